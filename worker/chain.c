/*
 * The chain: a segment's steps, one after another over whole runs.
 *
 * Not here: what becomes of an input that a step fails on (chain_input.c), how what is held back is released (chain_release.c); and
 * what time it is, what a failure means to a session, and how outputs are written, which are the caller's.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "worker/chain_parts.h"
#include "worker/memory.h"
#include "worker/wakes.h"

/* Whether a kind hands payloads on as they are. */
static bool kind_only_looks(enum step_kind kind)
{
	return kind == STEP_passthrough || kind == STEP_filter || kind == STEP_dedup || kind == STEP_key_by ||
	       kind == STEP_route || kind == STEP_broadcast;
}

/* Opens the states that a step's kind declares. */
static bool chain_open_states(struct chain *chain, struct step *step, struct failure *failure)
{
	size_t count = step_state_count(step->spec);

	step->state_count = count;
	for (size_t place = 0; place < count && chain->store; place++) {
		struct state_spec spec;

		if (!step_state(chain->segment, step->spec, place, &spec))
			continue;
		step->states[place] = state_open(chain->store, &spec);
		if (!step->states[place])
			return failure_set(
			    failure, 0,
			    "the state `%s` cannot be opened: the state memory of the slot is full (raise "
			    "--state-memory), or another kind of state has that name there",
			    spec.name);
		if (spec.kind == STATE_TIMERS)
			step->timers[place] = chain->wakes = true;
		chain->stateful = true;
	}
	return true;
}

/* Opens one step; it is the chain's from then on. */
static bool chain_open_step(struct chain *chain, uint32_t index, struct failure *failure)
{
	const struct step_spec *spec = &chain->segment->steps[index];
	struct step *step = &chain->steps[index];

	CHECK(spec->kind < STEP_KIND_COUNT);
	*step = (struct step){
	    .ops = step_kinds[spec->kind], .spec = spec, .segment = chain->segment, .store = chain->store};
	if (!chain_open_states(chain, step, failure))
		return false;
	if (step->ops->open && !step->ops->open(step, failure))
		return false;
	chain->step_count++;
	chain->wakes |= step->ops->next_wakeup != NULL;
	if (spec->kind != STEP_passthrough)
		chain->identity = false;
	if (!kind_only_looks(spec->kind))
		chain->writer = index;
	return true;
}

struct chain *chain_create(const struct segment *segment, struct state_store *store,
			   struct worker_step_counters *counters, struct failure *failure)
{
	struct chain *chain = memory_make(1, sizeof(*chain), "the steps of a segment");

	chain->segment = segment;
	chain->store = store;
	chain->counters = counters;
	chain->identity = true;
	chain->own_routes = segment_has_own_routes(segment);
	chain->steps = memory_make(segment->step_count + 1, sizeof(*chain->steps), "the steps of a segment");
	chain->tallies = memory_make(segment->step_count + 1, sizeof(*chain->tallies), "the steps of a segment");
	for (uint32_t i = 0; i < segment->step_count; i++) {
		if (chain_open_step(chain, i, failure))
			continue;
		failure->step = i;
		failure->origin = 0;
		chain_destroy(chain);
		return NULL;
	}
	return chain;
}

void chain_destroy(struct chain *chain)
{
	if (!chain)
		return;
	for (uint32_t i = chain->step_count; i > 0; i--) {
		struct step *step = &chain->steps[i - 1];
		if (step->ops->close)
			step->ops->close(step);
	}
	run_deinit(&chain->kept);
	run_deinit(&chain->single);
	run_deinit(&chain->dead);
	free(chain->tallies);
	free(chain->steps);
	free(chain);
}

/* Adds what a unit has done to the counters. */
void chain_committed(struct chain *chain)
{
	for (uint32_t i = 0; i < chain->step_count && chain->counters; i++) {
#define ADD_COUNTER(name)                                                                                              \
	if (chain->tallies[i].name > 0)                                                                                \
		counter_add(&chain->counters[i].name, chain->tallies[i].name);
#define ADD_HISTOGRAM(name)
#define WSTEP_COUNTER(name, type, unit, help) ADD_##type(name)
#include "shared/counters.def"
	}
	chain_rolled_back(chain);
}

/* Forgets it. */
void chain_rolled_back(struct chain *chain)
{
	memset(chain->tallies, 0, chain->step_count * sizeof(*chain->tallies));
}

/* Counts what steps were not called for. */
void chain_count_identity(struct chain *chain, uint32_t records)
{
	for (uint32_t i = 0; i < chain->step_count; i++) {
		chain->tallies[i].records_in += records;
		chain->tallies[i].records_out += records;
	}
}

bool chain_start(struct chain *chain, struct step_time time, struct failure *failure)
{
	for (; chain->started < chain->step_count; chain->started++) {
		struct step *step = &chain->steps[chain->started];
		if (!step->ops->start)
			continue;
		chain_at(chain, chain->started);
		if (step->ops->start(step, time, failure))
			continue;
		failure->step = chain->started;
		return false;
	}
	return true;
}

void chain_on_progress(struct chain *chain, chain_progress *progress, void *context)
{
	chain->progress = progress;
	chain->progress_context = context;
}

void chain_set_errors(struct chain *chain, struct errors *errors)
{
	chain->errors = errors;
}

bool chain_waited(struct chain *chain)
{
	bool waited = false;

	for (uint32_t i = 0; i < chain->step_count; i++) {
		waited |= chain->steps[i].waited;
		chain->steps[i].waited = false;
	}
	return waited;
}

void chain_let_wait(const struct chain *chain, struct step *step)
{
	step->may_wait = chain->waitable;
	if (!chain->waitable)
		return;
	step->seq = chain->errors->seq;
	step->done = chain->errors->done;
}

void chain_set_guard(struct chain *chain, const struct chain_guard *guard)
{
	chain->guard = guard ? *guard : (struct chain_guard){0};
}

/* A clock for latencies. */
static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void chain_begin(struct chain *chain, struct step_time time, struct scratch *scratch)
{
	chain->ordinal = 0;
	chain->processing_ms = time.processing_ms;
	run_clear(&chain->dead);
	chain->kept.scratch = chain->single.scratch = chain->dead.scratch = scratch;
	if (chain->stateful)
		state_clock(chain->store, time.processing_ms);
}

void chain_at(const struct chain *chain, uint32_t step)
{
	if (chain->guard.about_to)
		chain->guard.past(chain->guard.context, step);
	else if (chain->progress)
		chain->progress(chain->progress_context, step);
}

bool chain_failed(struct chain *chain, uint32_t step, struct run *run, struct failure *failure)
{
	failure->step = step;
	run_clear(run);
	run_clear(&chain->dead);
	chain->tallies[step].errors += !failure->waits;
	return false;
}

/* Runs one step over a run. */
static bool chain_process_step(struct chain *chain, uint32_t index, struct run *run, struct step_time time,
			       struct failure *failure)
{
	struct step *step = &chain->steps[index];

	if (chain_is_picky(chain, index))
		return chain_process_inputs(chain, index, run, time, failure);
	chain_let_wait(chain, step);
	return step->ops->process(step, run, time, failure) || (chain_tries_again(chain, index, failure), false);
}

bool chain_step(struct chain *chain, uint32_t index, struct run *run, struct step_time time, struct failure *failure)
{
	uint64_t start = chain->counters ? now_ns() : 0;

	chain_at(chain, index);
	chain->tallies[index].records_in += run->count;
	if (!chain_process_step(chain, index, run, time, failure))
		return chain_failed(chain, index, run, failure);
	chain->tallies[index].records_out += run->count;
	if (chain->counters)
		histogram_add(&chain->counters[index].latency, now_ns() - start);
	return true;
}

/* Leaves the records out whose payloads cannot be written, where the policy of the step that made them allows. What such a dead letter
 * carries is what its payload was before. */
static bool chain_write(struct chain *chain, struct run *run, struct failure *failure)
{
	uint32_t kept = 0;
	const char *why;

	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		if (record->state == PAYLOAD_BYTES || record_need_bytes(record, run->scratch, &why)) {
			if (kept != i)
				run->records[kept] = *record;
			kept++;
			continue;
		}
		failure_set(failure, record->origin, "%s", why);
		struct record before = *record;
		before.state = PAYLOAD_BYTES;
		if (!chain_leave_out(chain, chain->writer, &before, run->scratch, failure)) {
			while (i < run->count) /* so that each value is freed once */
				run->records[kept++] = run->records[i++];
			run->count = kept;
			return false;
		}
		record_drop(record);
	}
	run->count = kept;
	return true;
}

bool chain_finish(struct chain *chain, struct run *run, struct failure *failure)
{
	if (!chain->own_routes)
		for (uint32_t i = 0; i < run->count; i++)
			run->records[i].route = 0;
	if (!chain_write(chain, run, failure))
		return chain_failed(chain, chain->writer, run, failure);
	if (chain->dead.count > 0 && !run_append(run, &chain->dead)) {
		failure_set(failure, 0, "no memory for dead letters");
		return chain_failed(chain, chain->writer, run, failure);
	}
	return true;
}

bool chain_process(struct chain *chain, struct run *run, struct step_time time, struct failure *failure)
{
	bool good = true;

	chain_begin(chain, time, run->scratch);
	if (!chain_start(chain, time, failure))
		return chain_failed(chain, failure->step, run, failure);
	chain->waitable = chain->errors && wakes_are_heard();
	for (uint32_t i = 0; i < chain->step_count && run->count > 0 && good; i++)
		good = chain_step(chain, i, run, time, failure);
	chain->waitable = false;
	return good && chain_finish(chain, run, failure);
}

bool chain_takes_batches(const struct chain *chain)
{
	return chain->step_count == 1 && chain->steps[0].ops->process_batch &&
	       chain->segment->steps[0].policy == ON_ERROR_FAIL && !chain->guard.about_to;
}

/* Runs the only step over a batch. */
static bool chain_batch_step(struct chain *chain, struct wire_batch *batch, struct run *run, struct step_time time,
			     bool *in_place, struct failure *failure)
{
	struct step *step = &chain->steps[0];

	chain_at(chain, 0);
	chain->waitable = chain->errors && wakes_are_heard();
	chain_let_wait(chain, step);
	chain->waitable = false;
	if (step->ops->process_batch(step, batch, time, run, in_place, failure))
		return true;
	chain_tries_again(chain, 0, failure);
	return chain_failed(chain, 0, run, failure);
}

bool chain_process_batch(struct chain *chain, struct wire_batch *batch, struct run *run, struct step_time time,
			 bool *in_place, struct failure *failure)
{
	uint64_t start = chain->counters ? now_ns() : 0;

	*in_place = false;
	chain_begin(chain, time, run->scratch);
	if (!chain_start(chain, time, failure))
		return chain_failed(chain, failure->step, run, failure);
	chain->tallies[0].records_in += batch->count;
	if (!chain_batch_step(chain, batch, run, time, in_place, failure))
		return false;
	chain->tallies[0].records_out += *in_place ? batch->count : run->count;
	if (chain->counters)
		histogram_add(&chain->counters[0].latency, now_ns() - start);
	return *in_place || chain_finish(chain, run, failure);
}

bool chain_is_identity(const struct chain *chain)
{
	return chain->identity;
}
