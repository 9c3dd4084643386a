/* The state of processes as their shared words tell it (stats_health.h). */
#include "server/stats_health.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shared/units.h"

/* The front turns its loop at least so often while it does not sleep, and no frame takes so long: beyond it, say so. */
#define FRONT_SILENT_NS UINT64_C(5000000000)
#define WORKER_BUSY_NS UINT64_C(60000000000)
/* A slot may be without a ready owner for so long before anybody is told. */
#define OWNERLESS_NS UINT64_C(100000000)

const char *health_state(const struct supervisor *supervisor, const struct child *child)
{
	uint32_t front = atomic_load_explicit(&supervisor->sidecar->control.front->state, memory_order_acquire);

	if (child->state == CHILD_DOWN)
		return "waiting";
	if (process_is_in_state(child->pid, "Tt"))
		return "stopped";
	if (child->role == ROLE_FRONT && child->state == CHILD_LEAVING)
		return front == FRONT_DRAINING ? "draining" : "leaving";
	if (child->state == CHILD_LEAVING)
		return "leaving";
	if (child_is_ready(supervisor, child))
		return child->role == ROLE_FRONT ? "serving" : "ready";
	if (child->role == ROLE_FRONT)
		return "starting";
	enum life_state state = child_life_state(supervisor, child);
	return state == LIFE_WAITING ? "heir" : state == LIFE_OWNER ? "takes over" : "starting";
}

/* Time since a moment of CLOCK_MONOTONIC that another process wrote. */
static uint64_t since(uint64_t moment)
{
	uint64_t now = clock_ns();

	return now > moment ? now - moment : 1;
}

uint64_t health_busy_ns(const struct supervisor *supervisor, const struct child *child)
{
	if (child->role != ROLE_WORKER || child->state == CHILD_DOWN)
		return 0;
	const struct life *life = child_life(supervisor, child);
	uint64_t moment = life == NULL ? 0 : atomic_load_explicit(&life->progress.since_ns, memory_order_acquire);
	return moment == 0 ? 0 : since(moment);
}

uint64_t health_front_silent_ns(const struct supervisor *supervisor)
{
	const struct front_page *page = supervisor->sidecar->control.front;
	uint64_t moment = atomic_load_explicit(&page->heartbeat_ns, memory_order_relaxed);

	if (moment == 0 || atomic_load_explicit(&page->sleeps, memory_order_relaxed) != 0)
		return 0;
	return since(moment);
}

uint64_t health_private_bytes(const struct child *child)
{
	char path[32];
	unsigned long long resident = 0, shared = 0;

	if (child->state == CHILD_DOWN)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/statm", child->pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return 0;
	int got = fscanf(file, "%*s %llu %llu", &resident, &shared);
	fclose(file);
	return got == 2 && resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Adds a reason, as long as there is room. */
static void add_reason(struct health *health, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_reason(struct health *health, const char *format, ...)
{
	va_list arguments;

	if (health->reason_count == HEALTH_REASONS_MAX)
		return;
	va_start(arguments, format);
	vsnprintf(health->reasons[health->reason_count++], HEALTH_REASON_MAX, format, arguments);
	va_end(arguments);
}

/* "; the last one died of ..." or nothing. */
static const char *death_suffix(const char *last_death, char text[200])
{
	snprintf(text, 200, "%s%s", last_death[0] == '\0' ? "" : "; the last one died of ", last_death);
	return text;
}

/* Judges the front. */
static void judge_front(const struct supervisor *supervisor, struct health *health)
{
	const struct child *front = &supervisor->children[0];
	const char *state = health_state(supervisor, front);
	char time[UNITS_TEXT_MAX], text[200];

	if (strcmp(state, "serving") != 0)
		add_reason(health, "front is %s%s", state, death_suffix(front->last_death, text));
	else if (health_front_silent_ns(supervisor) > FRONT_SILENT_NS)
		add_reason(health, "front has not turned its loop for %s",
			   duration_rounded(time, health_front_silent_ns(supervisor)));
}

/* Since when a slot has had no owner that serves; 0: it has one, or has not begun. */
static uint64_t ownerless_since(const struct supervisor *supervisor, const struct keeper *keeper)
{
	if (keeper->owner == NULL)
		return keeper->orphaned_ns;
	if (child_is_ready(supervisor, keeper->owner))
		return 0;
	const struct life *life = child_life(supervisor, keeper->owner);
	return life == NULL ? 0 : counter_read(&life->took_over_ns);
}

/* Judges a slot. That one process takes over from another is no news, unless it takes long. */
static void judge_slot(const struct supervisor *supervisor, const struct keeper *keeper, struct health *health)
{
	const char *state = health_slot_state(supervisor, keeper);
	uint64_t moment = ownerless_since(supervisor, keeper);
	bool away = keeper->owner == NULL ? moment == 0 || since(moment) > OWNERLESS_NS
					  : moment != 0 && since(moment) > OWNERLESS_NS;
	char time[UNITS_TEXT_MAX], text[200];

	if (away || strcmp(state, "stopped") == 0)
		add_reason(health, "worker %u is %s%s", keeper->slot, state, death_suffix(keeper->last_death, text));
	else if (keeper->owner != NULL && health_busy_ns(supervisor, keeper->owner) > WORKER_BUSY_NS)
		add_reason(health, "worker %u has been at one frame for %s", keeper->slot,
			   duration_rounded(time, health_busy_ns(supervisor, keeper->owner)));
}

const char *health_slot_state(const struct supervisor *supervisor, const struct keeper *keeper)
{
	if (keeper->owner != NULL)
		return health_state(supervisor, keeper->owner);
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		if (keeper->lives[i].state == CHILD_UP && !keeper->lives[i].announced)
			return "starting";
	}
	return "waiting";
}

void health_judge(const struct supervisor *supervisor, struct health *health)
{
	*health = (struct health){0};
	judge_front(supervisor, health);
	for (uint32_t i = 0; i < supervisor->keeper_count; i++)
		judge_slot(supervisor, &supervisor->keepers[i], health);
	if (supervisor->phase >= PHASE_DRAINING)
		health->status = "DRAINING";
	else if (supervisor->phase == PHASE_STARTING)
		health->status = "STARTING";
	else
		health->status = health->reason_count > 0 ? "DEGRADED" : "SERVING";
}
