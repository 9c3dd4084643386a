/*
 * The chain: a segment's steps, one after another over whole runs.
 *
 * A release goes through the chain like a wave: whatever the first step lets go passes the second, then the second lets its
 * own go behind it, and so on. So what comes out is in the order in which it went in. Where a wave is cut short by the number of
 * timers, no step behind the one with timers left lets anything of its own go: the next wave begins where this one stopped.
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
	bool stateful;                         /* a step has states */
	struct state_store *store;             /* or NULL */
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

/* Opens the states that a step's kind declares. */
static bool chain_open_states(struct chain *chain, struct step *step, struct failure *failure)
{
	size_t count = step_state_count(step->spec->kind);

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
			step->timers[place] = true;
		chain->stateful = true;
	}
	return true;
}

struct chain *chain_create(const struct segment *segment, struct state_store *store,
			   struct worker_step_counters *counters, struct failure *failure)
{
	struct chain *chain = calloc(1, sizeof(*chain));

	CHECK(chain);
	chain->segment = segment;
	chain->store = store;
	chain->counters = counters;
	chain->identity = true;
	chain->steps = calloc(segment->step_count + 1, sizeof(*chain->steps));
	CHECK(chain->steps);

	for (uint32_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *spec = &segment->steps[i];
		struct step *step = &chain->steps[i];

		CHECK(spec->kind < STEP_KIND_COUNT);
		*step = (struct step){.ops = step_kinds[spec->kind], .spec = spec, .segment = segment, .store = store};
		if (!chain_open_states(chain, step, failure) || (step->ops->open && !step->ops->open(step, failure))) {
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

/* Tells the store what time it is. */
static void chain_clock(const struct chain *chain, struct step_time time)
{
	if (chain->stateful)
		state_clock(chain->store, time.processing_ms);
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
	chain_clock(chain, time);
	for (uint32_t i = 0; i < chain->step_count && run->count > 0; i++)
		if (!chain_step(chain, i, run, time, failure))
			return false;
	return chain_finish(chain, run, failure);
}

/* A release on its way through the steps. */
struct wave {
	struct chain *chain;
	enum release_cause cause;
	struct step_time time;
	uint32_t limit; /* timers that may still be taken */
	struct run *out;
	bool more; /* some were left: what is behind them waits, too */
	struct failure *failure;
};

/* Up to which time timers of a domain are due for a cause; false: none are. */
static bool due_until(const struct wave *wave, const struct step *step, enum state_time domain, int64_t *until)
{
	switch (wave->cause) {
	case RELEASE_WATERMARK:
		*until = wave->time.watermark_ms;
		return domain == STATE_EVENT_TIME;
	case RELEASE_TICK:
		*until = wave->time.processing_ms;
		return domain == STATE_PROCESSING_TIME;
	case RELEASE_END:
		*until = INT64_MAX;
		return domain == STATE_PROCESSING_TIME || step->ops->flushes;
	}
	return false;
}

/* Whether timers of a domain are left that are due; true too often only where time ends. */
static bool timers_left(const struct state *timers, enum state_time domain, int64_t until)
{
	int64_t first = state_timer_first(timers, domain);

	if (first < INT64_MAX)
		return first <= until;
	return until == INT64_MAX && state_size_of(timers).timers > 0;
}

/* Fires one timer, with its views in memory that no change of state moves. */
static bool wave_fire_one(struct wave *wave, struct step *step, enum state_time domain, struct state_timer *timer)
{
	timer->key = scratch_copy(wave->out->scratch, timer->key);
	timer->tag = scratch_copy(wave->out->scratch, timer->tag);
	if (!timer->key.data || !timer->tag.data)
		return failure_set(wave->failure, 0, "no memory for a timer");
	state_key(step->store, timer->key, timer->key_hash, timer->key_group);
	return step->ops->fire(step, domain, timer, wave->time, wave->out, wave->failure);
}

/* Fires the timers of one state and domain that are due. At the end of input those of steps that do not flush are only dropped. */
static bool wave_fire(struct wave *wave, struct step *step, struct state *timers, enum state_time domain)
{
	bool dropped = wave->cause == RELEASE_END && !step->ops->flushes;
	struct state_timer timer;
	int64_t until;

	if (!due_until(wave, step, domain, &until))
		return true;
	for (;;) {
		enum state_result result;

		if (wave->limit == 0) {
			wave->more = timers_left(timers, domain, until);
			return true;
		}
		result = state_timer_pop(timers, domain, until, &timer);
		if (result == STATE_NONE)
			return true;
		if (result != STATE_OK)
			return failure_set(wave->failure, 0, "no memory to take a timer");
		wave->limit--;
		if (!dropped && !wave_fire_one(wave, step, domain, &timer))
			return false;
	}
}

/* Lets one step fire its timers and release into the run, behind what came through from the steps before it. */
static bool wave_let_go(struct wave *wave, struct step *step)
{
	for (size_t i = 0; i < STEP_STATES_MAX; i++) {
		if (!step->timers[i])
			continue;
		for (enum state_time domain = 0; domain < STATE_TIMES && !wave->more; domain++)
			if (!wave_fire(wave, step, step->states[i], domain))
				return false;
	}
	if (wave->more || !step->ops->release)
		return true;
	return step->ops->release(step, wave->cause, wave->time, wave->out, wave->failure);
}

/* The same, counted. */
static bool wave_step(struct wave *wave, uint32_t index)
{
	struct chain *chain = wave->chain;
	struct step *step = &chain->steps[index];
	uint32_t before = wave->out->count;

	if (!step->ops->release && !step->ops->fire)
		return true;
	chain_at(chain, index);
	if (!wave_let_go(wave, step))
		return chain_failed(chain, index, wave->out, wave->failure);
	if (chain->counters)
		counter_add(&chain->counters[index].records_out, wave->out->count - before);
	return true;
}

bool chain_release(struct chain *chain, enum release_cause cause, struct step_time time, uint32_t limit,
		   struct run *out, bool *more, struct failure *failure)
{
	struct wave wave = {
	    .chain = chain, .cause = cause, .time = time, .limit = limit, .out = out, .failure = failure};

	chain_clock(chain, time);
	for (uint32_t i = 0; i < chain->step_count; i++) {
		if (out->count > 0 && !chain_step(chain, i, out, time, failure))
			return false;
		if (!wave.more && !wave_step(&wave, i))
			return false;
	}
	*more = wave.more;
	return chain_finish(chain, out, failure);
}

/* The earliest processing time at which a timer of a step is due. */
static int64_t first_timer(const struct step *step)
{
	int64_t first = INT64_MAX;

	for (size_t i = 0; i < STEP_STATES_MAX; i++) {
		if (!step->timers[i])
			continue;
		int64_t at = state_timer_first(step->states[i], STATE_PROCESSING_TIME);
		first = at < first ? at : first;
	}
	return first;
}

int64_t chain_next_wakeup(const struct chain *chain)
{
	int64_t next = INT64_MAX;

	for (uint32_t i = 0; i < chain->step_count; i++) {
		const struct step *step = &chain->steps[i];
		int64_t wanted = step->ops->next_wakeup ? step->ops->next_wakeup(step) : INT64_MAX;
		int64_t timer = first_timer(step);
		next = wanted < next ? wanted : next;
		next = timer < next ? timer : next;
	}
	return next;
}

bool chain_is_identity(const struct chain *chain)
{
	return chain->identity;
}
