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

/* Whether the kernel has a process stopped (SIGSTOP, a debugger). */
static bool is_stopped(pid_t pid)
{
	char path[32], text[256], *state = NULL;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	if (fgets(text, sizeof(text), file) != NULL)
		state = strrchr(text, ')'); /* the name before it may hold anything */
	fclose(file);
	return state != NULL && (state[2] == 'T' || state[2] == 't');
}

const char *health_state(const struct supervisor *supervisor, const struct child *child)
{
	uint32_t front = atomic_load_explicit(&supervisor->sidecar->control.front->state, memory_order_acquire);

	if (child->state == CHILD_DOWN)
		return "waiting";
	if (is_stopped(child->pid))
		return "stopped";
	if (child->role == ROLE_FRONT && child->state == CHILD_LEAVING)
		return front == FRONT_DRAINING ? "draining" : "leaving";
	if (child->state == CHILD_LEAVING)
		return "leaving";
	if (!child_is_ready(supervisor, child))
		return "starting";
	return child->role == ROLE_FRONT ? "serving" : "ready";
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
	const struct worker_page *page = control_worker(&supervisor->sidecar->control, child->slot);
	uint64_t moment = atomic_load_explicit(&page->progress.since_ns, memory_order_acquire);
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

/* Judges one process. */
static void judge_child(const struct supervisor *supervisor, const struct child *child, struct health *health)
{
	const char *state = health_state(supervisor, child), *good = child->role == ROLE_FRONT ? "serving" : "ready";
	uint64_t busy = health_busy_ns(supervisor, child);
	char name[16], time[UNITS_TEXT_MAX];

	child_name(child, name);
	if (strcmp(state, good) != 0)
		add_reason(health, "%s is %s%s%s", name, state,
			   child->last_death[0] == '\0' ? "" : "; the last one died of ", child->last_death);
	else if (child->role == ROLE_FRONT && health_front_silent_ns(supervisor) > FRONT_SILENT_NS)
		add_reason(health, "front has not turned its loop for %s",
			   duration_rounded(time, health_front_silent_ns(supervisor)));
	else if (busy > WORKER_BUSY_NS)
		add_reason(health, "%s has been at one frame for %s", name, duration_rounded(time, busy));
}

void health_judge(const struct supervisor *supervisor, struct health *health)
{
	*health = (struct health){0};
	for (uint32_t i = 0; i < supervisor->child_count; i++)
		judge_child(supervisor, &supervisor->children[i], health);
	if (supervisor->phase >= PHASE_DRAINING)
		health->status = "DRAINING";
	else if (supervisor->phase == PHASE_STARTING)
		health->status = "STARTING";
	else
		health->status = health->reason_count > 0 ? "DEGRADED" : "SERVING";
}
