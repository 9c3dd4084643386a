/*
 * What the commands of the stats socket show of processes: the slots with their owners, all lives, the deaths (stats_views.h).
 *
 * What a process says of itself is a word in shared memory: shown, never used as an index before it is checked.
 */
#include "server/stats_views.h"

#include <sys/stat.h>
#include <time.h>

#include "server/stats_health.h"

/* ---- slots ---- */

/* What a worker is at: "idle", or segment and step by name. */
static void show_work(const struct supervisor *supervisor, struct report *report, const struct child *child)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	const struct life *life = child == NULL ? NULL : child_life(supervisor, child);
	uint64_t busy_ns = life == NULL ? 0 : health_busy_ns(supervisor, child);
	uint32_t segment = busy_ns == 0 ? 0 : atomic_load_explicit(&life->progress.segment, memory_order_relaxed);
	uint32_t step = busy_ns == 0 ? 0 : atomic_load_explicit(&life->progress.step, memory_order_relaxed);
	bool busy = busy_ns > 0 && segment < descriptor->segment_count;

	report_text(report, "segment", busy ? descriptor->segments[segment].name : NULL);
	report_text(report, "step",
		    busy && step < descriptor->segments[segment].step_count
			? descriptor->segments[segment].steps[step].name
			: NULL);
	report_ns(report, "busy_ns", busy_ns);
}

/* What a slot's state takes now. */
static uint64_t state_memory_bytes(const struct slot_memory *memory)
{
	struct stat status;

	return fstat(memory->arena_fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

void stats_view_slots(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct control_memory *memory = &supervisor->sidecar->control;

	(void)argument;
	report_table(report, "slots");
	for (uint32_t i = 0; i < supervisor->keeper_count; i++) {
		const struct keeper *keeper = &supervisor->keepers[i];
		const struct child *owner = keeper->owner;
		const struct front_slot_counters *front = &memory->front->slot[keeper->slot].counters;
		const struct worker_page *page = control_worker(memory, keeper->slot);
		report_row(report);
		report_number(report, "slot", keeper->slot, "");
		report_text(report, "state", health_slot_state(supervisor, keeper));
		report_number(report, "pid", owner == NULL ? 0 : (uint64_t)owner->pid, "");
		report_number(report, "process", owner == NULL ? 0 : owner->number, "");
		report_number(report, "heirs", keeper_heirs(supervisor, keeper), "");
		report_number(report, "heir_pid", keeper_heir_pid(supervisor, keeper), "");
		report_number(report, "generation", keeper->generation, "");
		report_number(report, "sessions", counter_read(&front->sessions_open), "");
		report_number(report, "calls", counter_read(&front->unary_in_flight), "");
		report_number(report, "frames", counter_read(&page->counters.frames), "");
		show_work(supervisor, report, owner);
		report_bytes(report, "request_fill_bytes", counter_read(&front->request_fill));
		report_bytes(report, "ring_memory_bytes", counter_read(&front->memory));
		report_bytes(report, "state_memory_bytes", state_memory_bytes(&supervisor->sidecar->slots[i]));
		report_bytes(report, "private_bytes", owner == NULL ? 0 : health_private_bytes(owner));
		report_number(report, "restarts", keeper->restarts, "");
		report_text(report, "last_death", keeper->last_death[0] == '\0' ? NULL : keeper->last_death);
		report_row_end(report);
	}
	report_table_end(report);
}

/* ---- lives ---- */

/* One process of a slot. */
static void show_life(const struct supervisor *supervisor, struct report *report, const struct child *child)
{
	static const char *const states[] = {"none", "loading", "waiting", "owner", "ready"};
	const struct life *life = child_life(supervisor, child);

	if (life == NULL)
		return;
	report_row(report);
	report_number(report, "slot", child->slot, "");
	report_number(report, "process", child->number, "");
	report_number(report, "pid", (uint64_t)child->pid, "");
	report_text(report, "state", states[child_life_state(supervisor, child)]);
	report_number(report, "code", atomic_load_explicit(&life->code, memory_order_relaxed), "");
	report_number(report, "frames_done", counter_read(&life->frames_done), "");
	report_number(report, "took_over_at_ns", counter_read(&life->took_over_ns), "");
	report_number(report, "ready_at_ns", counter_read(&life->ready_ns), "");
	report_number(report, "first_commit_at_ns", counter_read(&life->first_commit_ns), "");
	report_row_end(report);
}

void stats_view_lives(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)argument;
	report_table(report, "lives");
	for (uint32_t i = 0; i < supervisor->keeper_count * LIVES_MAX; i++) {
		const struct child *child = &supervisor->children[1 + i];

		if (child->state != CHILD_DOWN)
			show_life(supervisor, report, child);
	}
	report_table_end(report);
}

/* ---- deaths ---- */

/* Writes a time as people and programs read it, in UTC. */
static const char *time_text(uint64_t ms, char text[32])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm utc;

	gmtime_r(&seconds, &utc);
	size_t length = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text + length, 32 - length, ".%03uZ", (unsigned)(ms % 1000));
	return text;
}

/* What the dead was at, by name. */
static void show_last_work(const struct supervisor *supervisor, struct report *report, const struct death *death)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	const struct segment *segment =
	    death->busy && death->segment < descriptor->segment_count ? &descriptor->segments[death->segment] : NULL;

	report_text(report, "segment", segment == NULL ? NULL : segment->name);
	report_text(report, "step",
		    segment != NULL && death->step < segment->step_count ? segment->steps[death->step].name : NULL);
	report_number(report, "seq", death->busy ? death->seq : 0, "");
	report_number(report, "record", death->busy ? death->record : 0, "");
	report_text(report, "key", death->shown ? death->key : NULL);
	report_text(report, "input", death->shown ? death->input : NULL);
}

/* One row for each death, the last one first. */
static void show_death(const struct supervisor *supervisor, struct report *report, const struct death *death)
{
	char when[32];

	report_row(report);
	report_text(report, "when", time_text(death->when_ms, when));
	report_text(report, "process", death->process);
	report_number(report, "slot", death->slot, "");
	report_number(report, "pid", (uint64_t)death->pid, "");
	report_number(report, "number", death->number, "");
	report_text(report, "cause", death_cause_name(death->cause));
	report_text(report, "end", death->how);
	show_last_work(supervisor, report, death);
	report_text(report, "then", death->then[0] == '\0' ? NULL : death->then);
	report_row_end(report);
}

void stats_view_deaths(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	uint64_t count = supervisor->death_count < DEATHS_KEPT ? supervisor->death_count : DEATHS_KEPT;

	(void)argument;
	report_table(report, "deaths");
	for (uint64_t i = 1; i <= count; i++)
		show_death(supervisor, report, &supervisor->deaths[(supervisor->death_count - i) % DEATHS_KEPT]);
	report_table_end(report);
}
