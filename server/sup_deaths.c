/*
 * Why processes end, and the list of the last ones.
 *
 * The kernel does not say who sent a signal. What this process killed it knows. A signal that programs raise by their own fault
 * counts as the code's; SIGKILL and the like are from elsewhere, and the memory killer's are told from others by the count that
 * the container's memory controller keeps of them (cgroup v2: memory.events, v1: memory.oom_control).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "server/budget.h"
#include "server/sup.h"
#include "shared/wire.h"

/* Whether a program's own fault raises this signal. */
static bool is_own_fault(int number)
{
	static const int faults[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};

	for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
		if (faults[i] == number)
			return true;
	}
	return false;
}

/* The number behind a key in a file of lines "key number". */
static uint64_t number_of_key(const char *path, const char *key)
{
	char line[256], name[64];
	uint64_t value = 0, found;
	FILE *file = fopen(path, "re");

	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "%63s %" SCNu64, name, &found) == 2 && strcmp(name, key) == 0)
			value = found;
	}
	if (file != NULL)
		fclose(file);
	return value;
}

uint64_t oom_kills_read(const char *root)
{
	char path[4608];
	uint64_t kills = 0;

	if (budget_cgroup_file(root, true, "memory.events", path, sizeof(path)))
		kills += number_of_key(path, "oom_kill");
	if (budget_cgroup_file(root, false, "memory.oom_control", path, sizeof(path)))
		kills += number_of_key(path, "oom_kill");
	return kills;
}

/* Whether the memory killer has struck since the last look. */
static bool memory_killer_struck(struct supervisor *supervisor)
{
	uint64_t kills = oom_kills_read(""), before = supervisor->oom_kills;

	supervisor->oom_kills = kills;
	return kills > before;
}

void death_of_nobody(struct supervisor *supervisor, const siginfo_t *end)
{
	bool killed = end->si_code == CLD_KILLED && end->si_status == SIGKILL;

	supervisor->oom_kills += killed && oom_kills_read("") > supervisor->oom_kills;
}

/* Whether the process's successor found that others of its threads went on after its main thread. */
static bool left_threads(const struct supervisor *supervisor, const struct child *child)
{
	const struct keeper *keeper = &supervisor->keepers[child->slot];
	const struct life *life = keeper->owner == NULL ? NULL : child_life(supervisor, keeper->owner);

	return life != NULL && atomic_load_explicit(&life->predecessor, memory_order_relaxed) == child->number &&
	       atomic_load_explicit(&life->found_writing, memory_order_relaxed) != 0;
}

/* Why a process ended that we neither told to nor killed, as far as its end tells. */
static enum death_cause cause_by_end(struct supervisor *supervisor, const siginfo_t *end)
{
	if (end->si_code == CLD_EXITED)
		return end->si_status == EXIT_MEMORY ? DEATH_MEMORY : DEATH_CODE;
	if (is_own_fault(end->si_status))
		return DEATH_CODE;
	return end->si_status == SIGKILL && memory_killer_struck(supervisor) ? DEATH_MEMORY : DEATH_OUTSIDE;
}

enum death_cause death_find_cause(struct supervisor *supervisor, const struct child *child, const siginfo_t *end)
{
	bool exited = end->si_code == CLD_EXITED;

	if (exited && end->si_status == EXIT_DAMAGED)
		return DEATH_DAMAGE;
	if (exited && (end->si_status == EXIT_UNMEANT || (child->ordered && end->si_status == 0)))
		return DEATH_ORDERED;
	if (!exited && child->killed && end->si_status == SIGKILL)
		return child->verdict;
	enum death_cause cause = cause_by_end(supervisor, end);
	if (cause == DEATH_OUTSIDE && child->role == ROLE_WORKER && left_threads(supervisor, child))
		return DEATH_CODE;
	return cause;
}

/* Whether bytes are a text that can be shown: it ends among them, is UTF-8, and has no control characters. */
static bool is_showable(const char text[INPUT_TEXT_MAX])
{
	const uint8_t *at = (const uint8_t *)text;
	size_t size = strnlen(text, INPUT_TEXT_MAX);

	if (size == INPUT_TEXT_MAX || !utf8_valid((struct view){at, size}))
		return false;
	for (size_t i = 0; i < size; i++)
		if (at[i] < 0x20 || at[i] == 0x7f || (at[i] == 0xc2 && at[i + 1] < 0xa0))
			return false;
	return true;
}

/* Copies what a dead worker showed. The copies are looked at, not its page: threads of it may not have ended. */
bool death_read_input(const struct progress *progress, char key[INPUT_TEXT_MAX], char input[INPUT_TEXT_MAX])
{
	/* Acquire: pairs with the release store behind the texts. */
	if (atomic_load_explicit(&progress->shown, memory_order_acquire) != 1)
		return false;
	memcpy(key, progress->key, INPUT_TEXT_MAX);
	memcpy(input, progress->input, INPUT_TEXT_MAX);
	return is_showable(key) && is_showable(input);
}

/* Notes what a worker was at, as far as it can be true. */
static void note_work(const struct supervisor *supervisor, const struct child *child, struct death *death)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	const struct life *life = child_life(supervisor, child);

	if (life == NULL || atomic_load_explicit(&life->progress.since_ns, memory_order_acquire) == 0)
		return;
	death->segment = atomic_load_explicit(&life->progress.segment, memory_order_relaxed);
	death->step = atomic_load_explicit(&life->progress.step, memory_order_relaxed);
	death->record = atomic_load_explicit(&life->progress.record, memory_order_relaxed);
	death->seq = counter_read(&life->progress.seq);
	death->busy = death->segment < descriptor->segment_count;
	death->shown = death->busy && death_read_input(&life->progress, death->key, death->input);
}

/* Puts a death at the end of the list, in place of the oldest one. */
static struct death *add_death(struct supervisor *supervisor, const siginfo_t *end, enum death_cause cause,
			       const char *then)
{
	struct death *death = &supervisor->deaths[supervisor->death_count++ % DEATHS_KEPT];

	*death = (struct death){.when_ms = (uint64_t)clock_wall_ms(), .cause = cause};
	death_words(end, death->how);
	snprintf(death->then, sizeof(death->then), "%s", then);
	if (death_blames_code(cause))
		counter_add(&counters_of_sup(supervisor)->deaths_blamed, 1);
	return death;
}

void deaths_note(struct supervisor *supervisor, const struct child *child, const siginfo_t *end, enum death_cause cause,
		 const char *then)
{
	if (cause == DEATH_ORDERED && child->role == ROLE_WORKER && !child->announced)
		return; /* an heir that was in the way: each reload has some, and they would push the others out */
	struct death *death = add_death(supervisor, end, cause, then);
	death->process = child->role == ROLE_FRONT ? "front" : child->announced ? "worker" : "heir";
	death->slot = child->slot;
	death->pid = child->pid;
	death->number = child->number;
	if (child->role == ROLE_WORKER)
		note_work(supervisor, child, death);
}

void deaths_note_template(struct supervisor *supervisor, const struct code *code, const siginfo_t *end,
			  const char *then)
{
	struct death *death = add_death(supervisor, end, cause_by_end(supervisor, end), then);

	death->process = "template";
	death->pid = code->template.process.pid;
	death->number = code->number;
}
