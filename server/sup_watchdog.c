/*
 * The watchdog: a worker that does not get on with its unit of work is killed, and its successor blames the input for it.
 *
 * A unit has a limit of processor time, and a longer one of time as such, from which the time is taken off that the process was
 * ready to run and did not get a processor: a busy machine is nobody's fault. Nor is one that stood still, as virtual ones do: a look
 * that comes late counts for no more than two. A process that was stopped, sleeps for good, or was woken and does not wake up comes
 * under the second one.
 *
 * What a unit is: as long as the progress words stand still, it is one and the same. They are looked at by a timer, a few times per
 * limit; so a limit may be passed by one look. There is no timer while all workers sleep: whoever wakes one, and whoever wakes
 * up, rings for the supervisor while control.watching is 0.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/sup.h"
#include "shared/units.h"

enum {
	LOOKS_PER_LIMIT = 8,
	LOOK_MIN_MS = 2,
	LOOK_MAX_MS = 1000,
	QUIET_LOOKS = 2, /* looks at sleepers alone before it stops looking */
};

/* Whether there is any limit. */
static bool has_limits(const struct config *config)
{
	return config->unit_cpu_limit_ms != 0 || config->unit_wall_limit_ms != 0;
}

/* How often to look, in ns. */
static uint64_t look_every(const struct config *config)
{
	uint64_t limit = config->unit_wall_limit_ms;

	if (limit == 0 || (config->unit_cpu_limit_ms != 0 && config->unit_cpu_limit_ms < limit))
		limit = config->unit_cpu_limit_ms;
	uint64_t ms = limit / LOOKS_PER_LIMIT;
	return (ms < LOOK_MIN_MS ? LOOK_MIN_MS : ms > LOOK_MAX_MS ? LOOK_MAX_MS : ms) * UINT64_C(1000000);
}

/* How long a process has run, and has waited for a processor, in ns. */
static bool read_times(pid_t pid, uint64_t *ran, uint64_t *waited)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	bool read = fscanf(file, "%" SCNu64 " %" SCNu64, ran, waited) == 2;
	fclose(file);
	return read;
}

/* Whether a worker has something to do, for all that is known: it is awake, or the front has rung for it since it fell asleep. */
static bool is_wanted(const struct supervisor *supervisor, const struct keeper *keeper)
{
	struct life *life = keeper->owner == NULL ? NULL : child_life(supervisor, keeper->owner);

	if (life == NULL)
		return false;
	uint64_t asleep = atomic_load_explicit(&life->asleep_since_ns, memory_order_seq_cst);
	uint64_t rung =
	    atomic_load_explicit(&supervisor->sidecar->control.front->slot[keeper->slot].rung_ns, memory_order_relaxed);
	return asleep == 0 || rung > asleep;
}

/* Whether any worker has something to do. */
static bool anybody_wanted(const struct supervisor *supervisor)
{
	for (uint32_t i = 0; i < supervisor->keeper_count; i++) {
		if (is_wanted(supervisor, &supervisor->keepers[i]))
			return true;
	}
	return false;
}

/* What a worker is at now. */
static struct unit_mark mark_of(const struct supervisor *supervisor, const struct keeper *keeper)
{
	const struct life *life = child_life(supervisor, keeper->owner);
	const struct worker_page *page = control_worker(&supervisor->sidecar->control, keeper->slot);

	return (struct unit_mark){
	    .number = keeper->owner->number,
	    .record = atomic_load_explicit(&life->progress.record, memory_order_relaxed),
	    .since_ns = counter_read(&life->progress.since_ns),
	    .seq = counter_read(&life->progress.seq),
	    .frames_done = counter_read(&life->frames_done),
	    .sleeps = counter_read(&page->counters.sleeps),
	};
}

/* Kills a worker that has passed a limit. */
static void kill_it(struct supervisor *supervisor, struct keeper *keeper, uint64_t took_ns, const char *of,
		    const char *flag, uint64_t limit_ms)
{
	char took[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX];

	log_warn("worker %u (pid %d) has been at one unit of work for %s%s, and %s is %s: it is killed", keeper->slot,
		 keeper->owner->pid, duration_rounded(took, took_ns), of, flag, duration_exact(limit, limit_ms * 1000));
	counter_add(&counters_of_sup(supervisor)->watchdog_kills, 1);
	child_kill(keeper->owner, DEATH_WATCHDOG);
	keeper->watch.known = false;
}

/* How much of the time since the last look is the process's own doing. */
static uint64_t own_time(const struct supervisor *supervisor, const struct keeper *keeper, uint64_t now, uint64_t ran,
			 uint64_t waited)
{
	const struct watch *watch = &keeper->watch;
	uint64_t passed = now - watch->looked_ns, away = waited - watch->waited_ns;
	uint64_t most = 2 * look_every(&supervisor->sidecar->config);

	/* A wait for a processor is booked when it is over. */
	if (ran == watch->ran_ns && away == 0 && process_is_in_state(keeper->owner->pid, "R"))
		return 0;
	uint64_t own = away < passed ? passed - away : 0;
	return passed <= most ? own : (uint64_t)((double)own * (double)most / (double)passed);
}

/* Judges one worker. */
static void look_at(struct supervisor *supervisor, struct keeper *keeper, uint64_t now)
{
	const struct config *config = &supervisor->sidecar->config;
	struct watch *watch = &keeper->watch;
	uint64_t ran, waited;

	if (!is_wanted(supervisor, keeper) || keeper->owner->state != CHILD_UP ||
	    !read_times(keeper->owner->pid, &ran, &waited)) {
		watch->known = false;
		return;
	}
	struct unit_mark mark = mark_of(supervisor, keeper);
	if (!watch->known || memcmp(&mark, &watch->mark, sizeof(mark)) != 0) {
		*watch = (struct watch){.known = true,
					.mark = mark,
					.begun_ran_ns = ran,
					.looked_ns = now,
					.ran_ns = ran,
					.waited_ns = waited};
		return;
	}
	watch->wall_ns += own_time(supervisor, keeper, now, ran, waited);
	watch->looked_ns = now;
	watch->ran_ns = ran;
	watch->waited_ns = waited;
	uint64_t cpu = ran - watch->begun_ran_ns, wall = watch->wall_ns;
	if (config->unit_cpu_limit_ms != 0 && cpu > config->unit_cpu_limit_ms * 1000000)
		kill_it(supervisor, keeper, cpu, " of processor time", "--unit-cpu-limit", config->unit_cpu_limit_ms);
	else if (config->unit_wall_limit_ms != 0 && wall > config->unit_wall_limit_ms * 1000000)
		kill_it(supervisor, keeper, wall, "", "--unit-wall-limit", config->unit_wall_limit_ms);
}

/* Begins to look by itself, or ends it. */
static void set_watching(struct supervisor *supervisor, bool watching, uint64_t now)
{
	/* Sequentially consistent, like the stores of those who sleep and wake: one of the two sees the other. */
	atomic_store_explicit(&supervisor->sidecar->control.control->watching, watching, memory_order_seq_cst);
	supervisor->watch_due_ns = watching ? now + look_every(&supervisor->sidecar->config) : 0;
	supervisor->quiet_looks = 0;
}

void watchdog_turn(struct supervisor *supervisor, uint64_t now)
{
	if (!has_limits(&supervisor->sidecar->config))
		return;
	if (supervisor->watch_due_ns == 0) {
		if (anybody_wanted(supervisor))
			set_watching(supervisor, true, now);
		return;
	}
	if (now < supervisor->watch_due_ns)
		return;
	for (uint32_t i = 0; i < supervisor->keeper_count; i++)
		look_at(supervisor, &supervisor->keepers[i], now);
	supervisor->watch_due_ns = now + look_every(&supervisor->sidecar->config);
	if (anybody_wanted(supervisor)) {
		supervisor->quiet_looks = 0;
	} else if (++supervisor->quiet_looks >= QUIET_LOOKS) {
		set_watching(supervisor, false, now);
		if (anybody_wanted(supervisor)) /* it woke up a moment ago, and did not ring */
			set_watching(supervisor, true, now);
	}
}
