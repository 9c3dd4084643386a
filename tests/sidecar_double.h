/*
 * A sidecar for tests of the supervisor: a pipeline of two segments written out by hand, real memories, and doubles of
 * front and worker that do as a script in shared memory says. The supervisor runs in a process of its own; the test looks
 * at the same control memory.
 */
#ifndef TESTS_SIDECAR_DOUBLE_H
#define TESTS_SIDECAR_DOUBLE_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/sup.h"
#include "server/template.h"

/* What a double does. */
enum double_mode {
	DOUBLE_GOOD,     /* becomes ready, leaves when told */
	DOUBLE_STUBBORN, /* becomes ready, never leaves */
	DOUBLE_EARLY,    /* dies before it is ready */
	DOUBLE_REFUSE,   /* leaves with the exit code for "cannot": EXIT_FRONT_BIND, EXIT_CHAIN */
	DOUBLE_SILENT,   /* never becomes ready */
	DOUBLE_BRIEF,    /* becomes ready, and dies of SIGSEGV before it has done anything */
	DOUBLE_DAMAGED,  /* becomes owner, and finds that the slot's memory cannot be true */
	DOUBLE_STARVED,  /* becomes owner, and finds that it has used up its memory */
	DOUBLE_GREEDY, /* takes the slot without waiting for its turn; as a template: starts a thread when it is first asked */
	DOUBLE_DEAF, /* as a template: closes its socket, and lives */
};

/* Shared between the test, the supervisor and the doubles. */
struct script {
	_Atomic int front_mode;
	_Atomic int worker_mode[SLOTS_MAX];
	_Atomic int template_mode;
	_Atomic int spares_die;              /* so many of the processes that a template makes next die at once */
	_Atomic int frames[SLOTS_MAX];       /* frames a worker says it has done once it is ready */
	_Atomic int front_pid_at_worker_end; /* what slot 0's worker saw when it left in order */
	char fds[8192];                      /* of the last process of slot 0, listed before it waits */
};

struct test_sidecar {
	struct sidecar sidecar;
	struct script *script;
	char folder[64];
	char log[80];
	pid_t supervisor;
};

static struct test_sidecar sut; /* one per test process */

/* ---- The pipeline: "first" (parse, upper) -> "second" (count) ---- */

static const struct step_spec double_first_steps[] = {
    {.name = "parse", .kind = STEP_parse_json, .index = 0},
    {.name = "upper", .kind = STEP_map, .index = 1},
};
static const struct step_spec double_second_steps[] = {{.name = "count", .kind = STEP_passthrough, .index = 2}};
static const struct segment double_segments[] = {
    {.id = 0, .name = "first", .parallelism = 2, .max_parallelism = 128, .steps = double_first_steps, .step_count = 2},
    {.id = 1,
     .name = "second",
     .parallelism = 1,
     .max_parallelism = 128,
     .steps = double_second_steps,
     .step_count = 1},
};
static const struct descriptor double_descriptor = {
    .pipeline = "double",
    .topology_hash = "0123456789abcdef0123456789abcdef",
    .segments = double_segments,
    .segment_count = 2,
    .step_count = 3,
};

/* The same, with a step that a template is for. */
static const struct step_spec double_python_steps[] = {
    {.name = "parse", .kind = STEP_python, .index = 0},
    {.name = "upper", .kind = STEP_map, .index = 1},
};
static const struct segment double_python_segments[] = {
    {.id = 0, .name = "first", .parallelism = 2, .max_parallelism = 128, .steps = double_python_steps, .step_count = 2},
};
static const struct descriptor double_python_descriptor = {
    .pipeline = "double",
    .topology_hash = "0123456789abcdef0123456789abcdef",
    .segments = double_python_segments,
    .segment_count = 1,
    .step_count = 2,
};

/* ---- Doubles ---- */

/* Waits on a doorbell, for a while. */
static inline void double_wait(int bell)
{
	struct pollfd wait = {.fd = bell, .events = POLLIN};
	uint64_t count;

	if (poll(&wait, 1, 10000) == 1)
		ck_assert_int_eq(read(bell, &count, sizeof(count)), sizeof(count));
}

/* Leaves in one of the ways that are not good. */
static inline void double_leave_early(int mode, int refusal)
{
	if (mode == DOUBLE_EARLY)
		_exit(77);
	if (mode == DOUBLE_REFUSE)
		_exit(refusal);
	while (mode == DOUBLE_SILENT)
		pause();
}

static inline void __attribute__((noreturn)) double_front(struct sidecar *sidecar, uint32_t generation)
{
	struct control_memory *memory = &sidecar->control;
	int mode = sut.script->front_mode;

	if (control_attach_front(memory) != 0)
		_exit(99);
	if (mode == DOUBLE_REFUSE)
		strcpy(memory->front->failure, "127.0.0.1:5051: address already in use");
	double_leave_early(mode, EXIT_FRONT_BIND);
	atomic_store(&memory->front->generation, generation);
	atomic_store(&memory->front->state, FRONT_SERVING);
	atomic_store(&memory->front->sleeps, 1);
	doorbell_ring(memory->supervisor_bell);
	while (mode == DOUBLE_STUBBORN || atomic_load(&memory->control->front_order) != ORDER_STOP)
		double_wait(memory->front_bell);
	_exit(0);
}

/* Lists the links of all open descriptors. */
static inline void double_list_fds(char *to, size_t size)
{
	char path[32], link[256];
	size_t used = 0;

	for (int fd = 0; fd < 1024; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t length = readlink(path, link, sizeof(link) - 1);
		if (length < 0)
			continue;
		link[length] = '\0';
		used += (size_t)snprintf(to + used, size - used, "%s\n", link);
	}
}

/* Waits its turn and becomes the owner, as worker.c does it. */
static inline void double_take_over(struct sidecar *sidecar, const struct birth *birth, struct life *life)
{
	struct control_memory *memory = &sidecar->control;
	struct worker_page *page = control_worker(memory, birth->slot);
	enum slot_wait found;

	atomic_store(&life->state, LIFE_WAITING);
	doorbell_ring(memory->supervisor_bell);
	while ((found = slot_wait(&sidecar->slots[birth->slot], 1000)) == SLOT_TAKEN)
		;
	if (found == SLOT_BROKEN)
		_exit(EXIT_DAMAGED);
	if (atomic_load(&memory->control->slot[birth->slot].life[birth->place].order) != ORDER_RUN)
		_exit(EXIT_UNMEANT);
	if (slot_own(&sidecar->slots[birth->slot], found) != 0)
		_exit(99);
	atomic_store(&life->predecessor, atomic_load(&page->owner));
	atomic_store(&life->took_over_ns, clock_ns());
	atomic_store(&page->owner, birth->number);
	atomic_store(&life->state, LIFE_OWNER);
}

/* Says that it works, on what, and that it has done something, as the script says. */
static inline void double_work(struct life *life, int frames)
{
	atomic_store(&life->frames_done, (uint64_t)frames);
	atomic_store(&life->asleep_since_ns, frames == 0 ? clock_ns() : 0);
	if (frames == 0)
		return;
	atomic_store(&life->first_commit_ns, clock_ns());
	atomic_store(&life->progress.segment, 0);
	atomic_store(&life->progress.step, 1);
	atomic_store(&life->progress.seq, 17);
	atomic_store(&life->progress.record, 3);
	snprintf(life->progress.key, INPUT_TEXT_MAX, "k1");
	snprintf(life->progress.input, INPUT_TEXT_MAX, "a deadly one");
	atomic_store(&life->progress.shown, 1);
	atomic_store(&life->progress.since_ns, clock_ns());
}

static inline void __attribute__((noreturn)) double_worker(struct sidecar *sidecar, const struct birth *birth)
{
	struct control_memory *memory = &sidecar->control;
	uint32_t slot = birth->slot;
	int mode = sut.script->worker_mode[slot];

	if (slot == 0)
		double_list_fds(sut.script->fds, sizeof(sut.script->fds));
	if (control_attach_worker(memory, slot) != 0 || slot_attach_worker(&sidecar->slots[slot]) != 0)
		_exit(99);
	struct worker_page *page = control_worker(memory, slot);
	struct life *life = &page->lives[birth->place];
	life_begin(life, birth, getpid());
	double_leave_early(mode, EXIT_CHAIN);
	if (mode != DOUBLE_GREEDY)
		double_take_over(sidecar, birth, life);
	atomic_store(&life->state, LIFE_OWNER);
	doorbell_ring(memory->supervisor_bell);
	if (mode == DOUBLE_DAMAGED)
		_exit(EXIT_DAMAGED);
	if (mode == DOUBLE_STARVED)
		_exit(EXIT_MEMORY);
	atomic_store(&page->ready_generation, birth->generation);
	double_work(life, sut.script->frames[slot]);
	atomic_store(&life->ready_ns, clock_ns());
	atomic_store(&life->state, LIFE_READY);
	doorbell_ring(memory->supervisor_bell);
	if (mode == DOUBLE_BRIEF)
		raise(SIGSEGV);
	while (mode == DOUBLE_STUBBORN ||
	       atomic_load(&memory->control->slot[slot].life[birth->place].order) == ORDER_RUN)
		double_wait(sidecar->slots[slot].worker_bell);
	if (slot == 0)
		atomic_store(&sut.script->front_pid_at_worker_end, atomic_load(&memory->control->front_pid));
	_exit(0);
}

/* Forks for a template that has nothing loaded. */
static inline pid_t double_fork(pid_t (*fork_now)(void *context), void *context)
{
	static pthread_t thread;
	pid_t made = fork_now(context);

	if (made == 0 && sut.script->spares_die > 0) {
		sut.script->spares_die--;
		raise(SIGSEGV);
	}
	if (made > 0 && sut.script->template_mode == DOUBLE_GREEDY && thread == 0 &&
	    pthread_create(&thread, NULL, (void *(*)(void *))(uintptr_t)pause, NULL) != 0)
		_exit(99); /* a check of the library would write to a descriptor that is another one here */
	return made;
}

static inline void __attribute__((noreturn))
double_template(struct sidecar *sidecar, const struct roles *roles, int link)
{
	if (sut.script->template_mode == DOUBLE_REFUSE)
		template_give_up(link, "the double was told so");
	double_leave_early(sut.script->template_mode, 0);
	if (sut.script->template_mode == DOUBLE_DEAF) {
		close(link);
		pause();
	}
	template_serve(sidecar, roles, link, double_fork);
}

/* ---- The sidecar under test ---- */

/* A short private folder. */
static inline void sut_make_folder(void)
{
	strcpy(sut.folder, "/tmp/supXXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(sut.folder));
	snprintf(sut.log, sizeof(sut.log), "%s/log", sut.folder);
}

/* Makes configuration and memories; nothing runs yet. */
static inline void sut_create(uint32_t slots)
{
	struct findings findings = {0};
	char *arguments[] = {"bridged", "--descriptor",        "d.yaml", "--listen", ":5051", "--message-max",
			     "2KiB",    "--unary-message-max", "2KiB"};

	sut_make_folder();
	config_read(&sut.sidecar.config, sizeof(arguments) / sizeof(*arguments), arguments, &findings);
	ck_assert_msg(findings.count == 0, "%s", findings.text[0]);
	sut.sidecar.config.slots = slots;
	config_complete(&sut.sidecar.config, double_descriptor.segment_count, &findings);
	ck_assert_msg(findings.count == 0, "%s", findings.text[0]);
	sut.sidecar.descriptor = &double_descriptor;
	sut.sidecar.state_dir = -1;
	sut.script = mmap(NULL, sizeof(*sut.script), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(sut.script, MAP_FAILED);
	struct slot_sizes sizes = config_slot_sizes(&sut.sidecar.config);
	ck_assert_int_eq(control_create(&sut.sidecar.control, slots, 2, 3), 0);
	for (uint32_t i = 0; i < slots; i++)
		ck_assert_int_eq(slot_memory_create(&sut.sidecar.slots[i], i, &sizes, -1), 0);
}

/* Runs the supervisor in a process of its own, its log in a file. */
static inline void sut_start(void)
{
	static const struct roles roles = {double_front, double_worker, double_template};

	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	sut.supervisor = fork();
	ck_assert_int_ge(sut.supervisor, 0);
	if (sut.supervisor > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int log = open(sut.log, O_CREAT | O_WRONLY | O_APPEND, 0600);
	dup2(log, 2);
	close(log);
	log_init("supervisor", LOG_DEBUG);
	_exit(supervisor_run(&sut.sidecar, &roles));
}

/* Everything logged so far; valid until the next call. */
static inline const char *sut_log(void)
{
	static char text[1 << 16];
	FILE *file = fopen(sut.log, "r");

	text[file == NULL ? 0 : fread(text, 1, sizeof(text) - 1, file)] = '\0';
	if (file != NULL)
		fclose(file);
	return text;
}

/* Waits until a condition holds; the limit is a guard against hanging. */
#define WAIT_UNTIL(condition)                                                                                          \
	do {                                                                                                           \
		for (int turns_ = 0; !(condition); turns_++) {                                                         \
			ck_assert_msg(turns_ < 60000, "never: %s; log:\n%s", #condition, sut_log());                   \
			nanosleep(&(struct timespec){0, 1000000}, NULL);                                               \
		}                                                                                                      \
	} while (0)

/* Whether a line with some text has been logged. */
static inline bool sut_logged(const char *text)
{
	return strstr(sut_log(), text) != NULL;
}

static inline pid_t sut_front_pid(void)
{
	return atomic_load(&sut.sidecar.control.control->front_pid);
}

static inline pid_t sut_worker_pid(uint32_t slot)
{
	return atomic_load(&sut.sidecar.control.control->slot[slot].pid);
}

/* The words of a slot's owner, or of the last one. */
static inline struct life *sut_owner_life(uint32_t slot)
{
	struct worker_page *page = control_worker(&sut.sidecar.control, slot);
	uint32_t owner = atomic_load(&sut.sidecar.control.control->slot[slot].owner);

	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		if (atomic_load(&page->lives[i].number) == owner)
			return &page->lives[i];
	}
	return &page->lives[0];
}

static inline uint64_t sut_owner_frames(uint32_t slot)
{
	return counter_read(&sut_owner_life(slot)->frames_done);
}

/* Waits for an owner of at least this number. */
static inline bool sut_owned_by(uint32_t slot, uint32_t number)
{
	return atomic_load(&sut.sidecar.control.control->slot[slot].owner) >= number &&
	       atomic_load(&sut_owner_life(slot)->state) == LIFE_READY;
}

static inline uint32_t sut_owner(uint32_t slot)
{
	return atomic_load(&sut.sidecar.control.control->slot[slot].owner);
}

static inline uint32_t sut_generation(uint32_t slot)
{
	return atomic_load(&sut.sidecar.control.control->slot[slot].generation);
}

/* Whether the worker of at least this generation is ready. */
static inline bool sut_worker_ready(uint32_t slot, uint32_t generation)
{
	return atomic_load(&control_worker(&sut.sidecar.control, slot)->ready_generation) >= generation &&
	       sut_worker_pid(slot) != 0;
}

/* Waits for the supervisor's end; its exit code, or 1000 and the signal. */
static inline int sut_wait(void)
{
	int status;

	ck_assert_int_eq(waitpid(sut.supervisor, &status, 0), sut.supervisor);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* Whether no child is left, reaping those that were left to us. */
static inline bool sut_nobody_left(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD;
}

/* Starts, and waits until all serve. */
static inline void sut_serve(uint32_t slots)
{
	sut_create(slots);
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
}

/* Stops in order, and checks that nothing is left. */
static inline void sut_stop(void)
{
	kill(sut.supervisor, SIGTERM);
	ck_assert_int_eq(sut_wait(), 0);
	ck_assert(sut_nobody_left());
}

/* Removes the folder and what is in it. */
static inline void sut_clean(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", sut.folder);
	if (strncmp(sut.folder, "/tmp/sup", 8) == 0)
		ck_assert_int_eq(system(command), 0);
	config_deinit(&sut.sidecar.config);
}

#endif
