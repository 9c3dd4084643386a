/*
 * Obituaries: what a dead process was, how it ended, and what it was at. One line, written by the supervisor alone.
 *
 * The dead may have written nonsense before it died: every number out of its page is checked before it is used as an
 * index, and none decides anything.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "server/sup.h"
#include "shared/units.h"

enum { WORK_TEXT_MAX = 512 + 2 * INPUT_TEXT_MAX };

/* What an exit code of ours means. */
static const char *exit_words(int code)
{
	switch (code) {
	case 0:
		return "it left of its own accord";
	case EXIT_FRONT_BIND:
		return "it could not bind an address";
	case EXIT_CHAIN:
		return "it could not open the pipeline's steps";
	case EXIT_DAMAGED:
		return "it found that the slot's memory cannot be true";
	case EXIT_UNMEANT:
		return "it was not meant to run";
	case EXIT_MEMORY:
		return "it had used up its memory";
	case EXIT_ORPHAN:
		return "it found no supervisor";
	default:
		return "an exit that is not one of ours";
	}
}

const char *death_words(const siginfo_t *end, char text[128])
{
	if (end->si_code == CLD_EXITED)
		snprintf(text, 128, "exit code %d (%s)", end->si_status, exit_words(end->si_status));
	else
		snprintf(text, 128, "signal %d (%s)", end->si_status, strsignal(end->si_status));
	return text;
}

/* Names the segment and step that a worker's progress words mean, as far as they mean any. */
static void place_words(const struct descriptor *descriptor, uint32_t segment, uint32_t step, char *text, size_t size)
{
	if (segment >= descriptor->segment_count) {
		snprintf(text, size, "segment %u", segment);
		return;
	}
	const struct segment *at = &descriptor->segments[segment];
	if (step < at->step_count)
		snprintf(text, size, "segment \"%s\", step \"%s\"", at->name, at->steps[step].name);
	else
		snprintf(text, size, "segment \"%s\"", at->name);
}

/* What a careful worker showed of the input that a step had in hand, from ", " on; nothing of others. */
static void input_words(const struct progress *progress, char *text, size_t size)
{
	char key[INPUT_TEXT_MAX], input[INPUT_TEXT_MAX];

	text[0] = '\0';
	if (death_read_input(progress, key, input))
		snprintf(text, size, ", key \"%s\", input: %s", key, input);
}

/* What a worker was at when it died. */
static void work_words(const struct supervisor *supervisor, const struct child *child, char *text, size_t size)
{
	const struct life *life = child_life(supervisor, child);

	if (life == NULL || !child->announced) {
		snprintf(text, size, "%s",
			 child_life_state(supervisor, child) == LIFE_WAITING ? "it waited" : "it was loading");
		return;
	}
	const struct progress *progress = &life->progress;
	uint64_t since = atomic_load_explicit(&progress->since_ns, memory_order_acquire), now = clock_ns();
	uint64_t done = counter_read(&life->frames_done);
	char place[256], time[UNITS_TEXT_MAX], shown[2 * INPUT_TEXT_MAX + 32];

	if (since == 0) {
		snprintf(text, size, "idle, %" PRIu64 " frames done", done);
		return;
	}
	place_words(supervisor->sidecar->descriptor, atomic_load_explicit(&progress->segment, memory_order_relaxed),
		    atomic_load_explicit(&progress->step, memory_order_relaxed), place, sizeof(place));
	input_words(progress, shown, sizeof(shown));
	snprintf(text, size,
		 "at work for %s on %s, seq %" PRIu64 ", record %u (channel %u, epoch %u)%s, %" PRIu64
		 " frames done before",
		 duration_rounded(time, now > since ? now - since : 0), place, counter_read(&progress->seq),
		 atomic_load_explicit(&progress->record, memory_order_relaxed),
		 atomic_load_explicit(&progress->channel, memory_order_relaxed),
		 atomic_load_explicit(&progress->epoch, memory_order_relaxed), shown, done);
}

/* What the front was at. */
static void front_words(const struct supervisor *supervisor, char *text, size_t size)
{
	const struct front_counters *counters = &supervisor->sidecar->control.front->counters;

	snprintf(text, size, "%" PRIu64 " sessions and %" PRIu64 " calls were open",
		 counter_read(&counters->sessions_open), counter_read(&counters->unary_in_flight));
}

void obituary_write(const struct supervisor *supervisor, const struct child *child, const siginfo_t *end,
		    enum death_cause cause, const char *then)
{
	char name[16], death[128], work[WORK_TEXT_MAX], lived[UNITS_TEXT_MAX];

	child_name(child, name);
	duration_rounded(lived, clock_ns() - child->born_ns);
	if (cause == DEATH_ORDERED && end->si_code == CLD_EXITED) {
		log_info("%s (pid %d, %s %u) left as it was told, after %s", name, child->pid,
			 child->role == ROLE_FRONT ? "generation" : "process", child->number, lived);
		return;
	}
	if (child->killed && (supervisor->exit_code != 0 || (!child->announced && child->ordered))) {
		log_info("%s (pid %d) is killed", name, child->pid); /* the reason stands above, or it held nothing */
		return;
	}
	if (child->role == ROLE_WORKER)
		work_words(supervisor, child, work, sizeof(work));
	else
		front_words(supervisor, work, sizeof(work));
	log_warn("%s (pid %d, %s %u) died of %s%s after %s: %s%s%s", name, child->pid,
		 child->role == ROLE_FRONT ? "generation" : "process", child->number, child->killed ? "our " : "",
		 death_words(end, death), lived, work, then[0] == '\0' ? "" : "; ", then);
}
