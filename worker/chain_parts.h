/* What the chain's own files share (chain.c, chain_input.c, chain_release.c), and nobody else includes. */
#ifndef WORKER_CHAIN_PARTS_H
#define WORKER_CHAIN_PARTS_H

#include "worker/chain.h"
#include "worker/errors.h"

/* What the unit at hand adds to a step's counters when it commits: all that are no histograms. */
struct step_tally {
#define STEP_TALLY_COUNTER(name) uint64_t name;
#define STEP_TALLY_HISTOGRAM(name)
#define WSTEP_COUNTER(name, type, unit, help) STEP_TALLY_##type(name)
#include "shared/counters.def"
};

struct chain {
	const struct segment *segment;
	struct step *steps;
	uint32_t step_count;
	uint32_t writer; /* the last step that may have changed payloads: to blame when one cannot be written */
	bool identity;
	bool wakes;                /* a step may want a tick */
	bool stateful;             /* a step has states */
	bool own_routes;           /* the last step says which route a record takes */
	uint32_t started;          /* steps that chain_start has begun with; after a failure it goes on there */
	struct state_store *store; /* or NULL */
	struct worker_step_counters *counters; /* or NULL */
	struct step_tally *tallies;            /* of each step */
	chain_progress *progress;
	void *progress_context;
	struct chain_guard guard; /* about_to NULL: none */
	struct errors *errors;    /* or NULL */
	bool waitable;            /* a step may give the run at hand up to wait for something outside */
	int64_t processing_ms;    /* of this call */
	uint32_t ordinal;         /* inputs that the guard was asked about in this call */
	struct run kept;          /* a run as it was before the step at work */
	struct run single;        /* one record of it */
	struct run dead;          /* dead letters of this call */
};

/* ---- chain.c ---- */

/* Begins a call: what time it is for states, nothing left of the call before. */
void chain_begin(struct chain *chain, struct step_time time, struct scratch *scratch);

/* Says that a step is at work now; where it is guarded, that none of its inputs is yet. */
void chain_at(const struct chain *chain, uint32_t step);

/* Runs one step over a run and counts it. */
bool chain_step(struct chain *chain, uint32_t index, struct run *run, struct step_time time, struct failure *failure);

/* Notes a failure of a step that nothing can be done about: the run is dropped. Returns false. */
bool chain_failed(struct chain *chain, uint32_t step, struct run *run, struct failure *failure);

/* Says to a step whether it may give up the run that it is to be called with, and which one that is. */
void chain_let_wait(const struct chain *chain, struct step *step);

/* Makes bytes of all payloads, and adds the dead letters. */
bool chain_finish(struct chain *chain, struct run *run, struct failure *failure);

/* ---- chain_input.c ---- */

/* Whether a step's inputs are to be handed to it so that one can be left out: its policy says so, or the chain is guarded. */
bool chain_is_picky(const struct chain *chain, uint32_t index);

/* Runs such a step over a run. */
bool chain_process_inputs(struct chain *chain, uint32_t index, struct run *run, struct step_time time,
			  struct failure *failure);

/* Fires a timer of such a step, or of any. */
bool chain_fire_input(struct chain *chain, uint32_t index, enum state_time domain, const struct state_timer *timer,
		      struct step_time time, struct run *out, struct failure *failure);

/* Lets any step release, guarded. */
bool chain_release_input(struct chain *chain, uint32_t index, enum release_cause cause, struct step_time time,
			 struct run *out, struct failure *failure);

/* Whether what a step failed on is to be tried again; then failure->retry is set, and the chain fails. */
bool chain_tries_again(const struct chain *chain, uint32_t index, struct failure *failure);

/* What becomes of a record that a step failed on, by the step's policy: left out, or a dead letter. False when that is to fail, too;
 * `failure` says why. */
bool chain_leave_out(struct chain *chain, uint32_t index, const struct record *record, struct scratch *scratch,
		     struct failure *failure);

#endif
