/*
 * The chain: a segment's steps, one after another over whole runs.
 *
 * A release goes through the chain like a wave: whatever the first step lets go passes the second, then the second lets its
 * own go behind it, and so on. So what comes out is in the order in which it went in.
 *
 * Not here: what time it is, what a failure means to a session, and how outputs are written: those are the caller's.
 */
#include "worker/chain.h"

#include <stdlib.h>
#include <time.h>

#include "shared/counters.h"
#include "shared/log.h"

struct chain {
	const struct segment *segment;
	struct step *steps;
	uint32_t step_count;
	uint32_t writer; /* the last step that may have changed payloads: to blame when one cannot be written */
	bool identity;
	struct worker_step_counters *counters; /* or NULL */
	chain_progress *progress;
	void *progress_context;
};

/* Whether a kind hands payloads on as they are. */
static bool kind_only_looks(enum step_kind kind)
{
	return kind == STEP_passthrough || kind == STEP_filter || kind == STEP_key_by || kind == STEP_route ||
	       kind == STEP_broadcast;
}

struct chain *chain_create(const struct segment *segment, struct state_store *store,
			   struct worker_step_counters *counters, struct failure *failure)
{
	struct chain *chain = calloc(1, sizeof(*chain));

	CHECK(chain);
	chain->segment = segment;
	chain->counters = counters;
	chain->identity = true;
	chain->steps = calloc(segment->step_count + 1, sizeof(*chain->steps));
	CHECK(chain->steps);

	for (uint32_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *spec = &segment->steps[i];
		struct step *step = &chain->steps[i];

		CHECK(spec->kind < STEP_KIND_COUNT);
		*step = (struct step){.ops = step_kinds[spec->kind], .spec = spec, .segment = segment, .store = store};
		if (step->ops->open && !step->ops->open(step, failure)) {
			failure->step = i;
			failure->origin = 0;
			chain_destroy(chain);
			return NULL;
		}
		chain->step_count++;
		if (spec->kind != STEP_passthrough)
			chain->identity = false;
		if (!kind_only_looks(spec->kind))
			chain->writer = i;
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
	free(chain->steps);
	free(chain);
}

void chain_on_progress(struct chain *chain, chain_progress *progress, void *context)
{
	chain->progress = progress;
	chain->progress_context = context;
}

/* A clock for latencies. */
static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Says that a step is at work now. */
static void chain_at(const struct chain *chain, uint32_t step)
{
	if (chain->progress)
		chain->progress(chain->progress_context, step);
}

/* Notes a failure of a step: the run is dropped. */
static bool chain_failed(struct chain *chain, uint32_t step, struct run *run, struct failure *failure)
{
	failure->step = step;
	run_clear(run);
	if (chain->counters)
		counter_add(&chain->counters[step].errors, 1);
	return false;
}

/* Runs one step over a run and counts it. */
static bool chain_step(struct chain *chain, uint32_t index, struct run *run, struct step_time time,
		       struct failure *failure)
{
	struct step *step = &chain->steps[index];
	struct worker_step_counters *counters = chain->counters ? &chain->counters[index] : NULL;

	chain_at(chain, index);
	if (!counters)
		return step->ops->process(step, run, time, failure) || chain_failed(chain, index, run, failure);

	uint64_t start = now_ns();
	counter_add(&counters->records_in, run->count);
	if (!step->ops->process(step, run, time, failure))
		return chain_failed(chain, index, run, failure);
	counter_add(&counters->records_out, run->count);
	histogram_add(&counters->latency, now_ns() - start);
	return true;
}

/* Makes bytes of all payloads; without routes all records leave by route 0. */
static bool chain_finish(struct chain *chain, struct run *run, struct failure *failure)
{
	bool routed = segment_has_own_routes(chain->segment);
	const char *why;

	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		if (!routed)
			record->route = 0;
		if (record_need_bytes(record, run->scratch, &why))
			continue;
		failure_set(failure, record->origin, "%s", why);
		return chain_failed(chain, chain->writer, run, failure);
	}
	return true;
}

bool chain_process(struct chain *chain, struct run *run, struct step_time time, struct failure *failure)
{
	for (uint32_t i = 0; i < chain->step_count && run->count > 0; i++)
		if (!chain_step(chain, i, run, time, failure))
			return false;
	return chain_finish(chain, run, failure);
}

/* Lets one step release into the run, behind what came through from the steps before it. */
static bool chain_let_go(struct chain *chain, uint32_t index, enum release_cause cause, struct step_time time,
			 struct run *out, struct failure *failure)
{
	struct step *step = &chain->steps[index];
	uint32_t before = out->count;

	if (!step->ops->release)
		return true;
	chain_at(chain, index);
	if (!step->ops->release(step, cause, time, out, failure))
		return chain_failed(chain, index, out, failure);
	if (chain->counters)
		counter_add(&chain->counters[index].records_out, out->count - before);
	return true;
}

bool chain_release(struct chain *chain, enum release_cause cause, struct step_time time, uint32_t limit,
		   struct run *out, bool *more, struct failure *failure)
{
	(void)limit;
	*more = false;
	for (uint32_t i = 0; i < chain->step_count; i++) {
		if (out->count > 0 && !chain_step(chain, i, out, time, failure))
			return false;
		if (!chain_let_go(chain, i, cause, time, out, failure))
			return false;
	}
	return chain_finish(chain, out, failure);
}

int64_t chain_next_wakeup(const struct chain *chain)
{
	int64_t next = INT64_MAX;

	for (uint32_t i = 0; i < chain->step_count; i++) {
		const struct step *step = &chain->steps[i];
		int64_t wanted = step->ops->next_wakeup ? step->ops->next_wakeup(step) : INT64_MAX;
		if (wanted < next)
			next = wanted;
	}
	return next;
}

bool chain_is_identity(const struct chain *chain)
{
	return chain->identity;
}
