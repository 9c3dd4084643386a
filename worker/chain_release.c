/*
 * Releases: timers that are due fire, and steps let go of what else they hold back.
 *
 * A release goes through the chain like a wave: whatever the first step lets go passes the second, then the second lets its
 * own go behind it, and so on. So what comes out is in the order in which it went in. Where a wave is cut short by the number of
 * timers, no step behind the one with timers left lets anything of its own go: the next wave begins where this one stopped.
 */
#include "worker/chain_parts.h"

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
		return domain == STATE_PROCESSING_TIME || step->flushes;
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
static bool wave_fire_one(struct wave *wave, uint32_t index, enum state_time domain, struct state_timer *timer)
{
	struct step *step = &wave->chain->steps[index];

	timer->key = scratch_copy(wave->out->scratch, timer->key);
	timer->tag = scratch_copy(wave->out->scratch, timer->tag);
	if (!timer->key.data || !timer->tag.data)
		return failure_set(wave->failure, 0, "no memory for a timer");
	state_key(step->store, timer->key, timer->key_hash, timer->key_group);
	return chain_fire_input(wave->chain, index, domain, timer, wave->time, wave->out, wave->failure);
}

/* Fires the timers of one state and domain that are due. At the end of input those of steps that do not flush are only dropped. */
static bool wave_fire(struct wave *wave, uint32_t index, struct state *timers, enum state_time domain)
{
	const struct step *step = &wave->chain->steps[index];
	bool dropped = wave->cause == RELEASE_END && !step->flushes;
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
		if (!dropped && !wave_fire_one(wave, index, domain, &timer))
			return false;
	}
}

/* Lets one step fire its timers and release into the run, behind what came through from the steps before it. */
static bool wave_let_go(struct wave *wave, uint32_t index)
{
	struct step *step = &wave->chain->steps[index];

	for (size_t i = 0; i < step->state_count; i++) {
		if (!step->timers[i])
			continue;
		for (enum state_time domain = 0; domain < STATE_TIMES && !wave->more; domain++)
			if (!wave_fire(wave, index, step->states[i], domain))
				return false;
	}
	if (wave->more || !step->ops->release)
		return true;
	return chain_release_input(wave->chain, index, wave->cause, wave->time, wave->out, wave->failure);
}

/* The same, counted. */
static bool wave_step(struct wave *wave, uint32_t index)
{
	struct chain *chain = wave->chain;
	const struct step *step = &chain->steps[index];
	uint32_t before = wave->out->count;

	if (!step->ops->release && !step->ops->fire)
		return true;
	chain_at(chain, index);
	if (!wave_let_go(wave, index))
		return chain_failed(chain, index, wave->out, wave->failure);
	chain->tallies[index].records_out += wave->out->count - before;
	return true;
}

bool chain_release(struct chain *chain, enum release_cause cause, struct step_time time, uint32_t limit,
		   struct run *out, bool *more, struct failure *failure)
{
	struct wave wave = {
	    .chain = chain, .cause = cause, .time = time, .limit = limit, .out = out, .failure = failure};

	chain_begin(chain, time, out->scratch);
	if (!chain_start(chain, time, failure))
		return chain_failed(chain, failure->step, out, failure);
	for (uint32_t i = 0; i < chain->step_count; i++) {
		if (out->count > 0 && !chain_step(chain, i, out, time, failure))
			return false;
		if (!wave.more && !wave_step(&wave, i))
			return false;
	}
	*more = wave.more;
	return chain_finish(chain, out, failure);
}

/* Looks at the first timer of a state that is due: takes it, and puts it back. */
static bool peek_timer(const struct chain *chain, struct state *timers, enum state_time domain, int64_t until,
		       struct scratch *scratch, struct state_timer *timer)
{
	struct arena *arena = state_arena(chain->store);

	if (!timers_left(timers, domain, until))
		return false;
	uint64_t here = arena_mark(arena);
	bool found = state_timer_pop(timers, domain, until, timer) == STATE_OK;
	if (found) {
		timer->key = scratch_copy(scratch, timer->key);
		timer->tag = scratch_copy(scratch, timer->tag);
	}
	arena_undo_to(arena, here);
	return found && timer->key.data && timer->tag.data;
}

bool chain_next_timer(const struct chain *chain, enum release_cause cause, struct step_time time,
		      struct scratch *scratch, struct state_timer *timer)
{
	const struct wave wave = {.cause = cause, .time = time};
	int64_t until;

	*timer = (struct state_timer){0};
	for (uint32_t i = 0; i < chain->step_count; i++) {
		const struct step *step = &chain->steps[i];
		for (size_t j = 0; j < step->state_count; j++)
			for (enum state_time domain = 0; step->timers[j] && domain < STATE_TIMES; domain++)
				if (due_until(&wave, step, domain, &until) &&
				    peek_timer(chain, step->states[j], domain, until, scratch, timer))
					return true;
	}
	return false;
}

/* The earliest processing time at which a timer of a step is due. */
static int64_t first_timer(const struct step *step)
{
	int64_t first = INT64_MAX;

	for (size_t i = 0; i < step->state_count; i++) {
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

	if (!chain->wakes)
		return next;
	for (uint32_t i = 0; i < chain->step_count; i++) {
		const struct step *step = &chain->steps[i];
		int64_t wanted = step->ops->next_wakeup ? step->ops->next_wakeup(step) : INT64_MAX;
		int64_t timer = first_timer(step);
		next = wanted < next ? wanted : next;
		next = timer < next ? timer : next;
	}
	return next;
}
