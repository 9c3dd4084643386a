/*
 * A chain: the steps of one segment as one session (or the worker's unary calls) runs them.
 */
#ifndef WORKER_CHAIN_H
#define WORKER_CHAIN_H

#include "worker/step.h"

struct chain;
struct worker_step_counters;

/* Called as the chain moves on, so that progress words name the step at work; cheap, once per run and step. */
typedef void chain_progress(void *context, uint32_t step);

/* Opens all steps of a segment, whose states are, or come to be, in `store`; NULL: the chain is only opened to see whether it
 * opens. `counters`: step_count of them, or NULL; times go there at once, records when their unit is committed. On failure NULL and
 * `failure`. */
struct chain *chain_create(const struct segment *segment, struct state_store *store,
			   struct worker_step_counters *counters, struct failure *failure);

/* Has the steps do what only the owner of a slot may do, once; else the first call below does it. False and `failure` when one cannot. */
bool chain_start(struct chain *chain, struct step_time time, struct failure *failure);

/* Closes the steps. Their states stay in the store; what they hold back elsewhere is lost. */
void chain_destroy(struct chain *chain);

/* Who is told about progress. */
void chain_on_progress(struct chain *chain, chain_progress *progress, void *context);

/* One input of one step: a record, a timer, or a release. */
struct chain_input {
	uint32_t step;
	uint32_t ordinal; /* among the inputs of all steps in this call of the chain */
	uint64_t digest;  /* of what it is */
	uint32_t origin;  /* of a record */
	struct view bytes, key;
};

/* Who is asked before a step gets an input; all inputs come one at a time then. False: it is not to get it; `failure` has the words, and
 * the step's policy says what becomes of the input. `past` says that no input is at work any more, nor any other yet: what goes on
 * before the next is the chain's own doing, for a step. */
struct chain_guard {
	bool (*about_to)(void *context, const struct chain_input *input, struct failure *failure);
	void (*past)(void *context, uint32_t step);
	void *context;
};

/* Guards a chain; NULL: no more. */
void chain_set_guard(struct chain *chain, const struct chain_guard *guard);

/* Where failures are counted, and inputs are known that are tried again; without it nothing is. It outlives the chain. When an input
 * is to be tried again, the chain fails, with failure->retry. */
struct errors;
void chain_set_errors(struct chain *chain, struct errors *errors);

/* Whether a step has waited for something outside since this was asked last: then the unit is to end. */
bool chain_waited(struct chain *chain);

/* Runs records through all steps: `run` becomes the outputs, payloads as bytes, and the dead letters of steps that put those aside. False
 * and `failure` when a step failed whose policy is to fail; the run is then empty and the states of steps are to be rolled back, or
 * the session to be ended. */
bool chain_process(struct chain *chain, struct run *run, struct step_time time, struct failure *failure);

/* Whether the chain takes batches as they were parsed. */
bool chain_takes_batches(const struct chain *chain);

/* Runs the records of a batch through such a chain: `run` becomes the outputs, or with *in_place the batch holds those that are left, each
 * with its route. Else like chain_process. */
bool chain_process_batch(struct chain *chain, struct wire_batch *batch, struct run *run, struct step_time time,
			 bool *in_place, struct failure *failure);

/* Lets each step in turn fire the timers that are due and release what it holds, through the steps behind it, into `out` (empty on
 * entry). `limit` bounds the timers of all steps together: when *more is set some are left, and the same call is to be made again,
 * until it is not. */
bool chain_release(struct chain *chain, enum release_cause cause, struct step_time time, uint32_t limit,
		   struct run *out, bool *more, struct failure *failure);

/* The first timer that chain_release would fire for a cause, without firing it; its views are in `scratch`. False: there is none. */
bool chain_next_timer(const struct chain *chain, enum release_cause cause, struct step_time time,
		      struct scratch *scratch, struct state_timer *timer);

/* The earliest processing time in ms at which a step wants a tick; INT64_MAX: none. */
int64_t chain_next_wakeup(const struct chain *chain);

/* The unit at hand has been committed: what it did counts; or undone: it does not. */
void chain_committed(struct chain *chain);
void chain_rolled_back(struct chain *chain);

/* Counts records that an identity chain's steps let through without being called. */
void chain_count_identity(struct chain *chain, uint32_t records);

/* Whether the chain hands records on untouched (no step, or passthrough alone). */
bool chain_is_identity(const struct chain *chain);

/* Compiles a jq program and throws it away: NULL when it is fine, else the compiler's words (free() them). */
char *jq_program_check(const char *text);

#endif
