/*
 * A process of a slot: it runs the pipeline's steps. One thread, no gRPC, no signals of its own.
 *
 *      forked --> attached --code loaded--> WAITING --owner mutex, and meant to run--> OWNER --predecessor gone--> READY --> loop
 *                                              |                                                                            |
 *                                              +-- not meant to run: leaves, the next one has the slot                      |
 *                                                                                                                           |
 *              a turn over the ready channels <----+-- something is marked                                                  |
 *              drop all sessions, acknowledge <----+-- a new front generation     <-----------------------------------------+
 *              leave, an heir goes on         <----+-- order LEAVE
 *              finish what is at hand, leave  <----+-- order STOP
 *              look a while, then block       <----+-- nothing to do
 *
 * Every process of a slot begins as an heir, the first one, too: it loads the code, as far as it does not come out of a template
 * that has, and sleeps in the owner mutex. The kernel wakes it when the owner dies, in whatever way, long before the dead can be
 * reaped. It first makes sure that its predecessor does nothing more: a process whose main thread has left gives the mutex away
 * while other threads of it still write.
 *
 * It maps its own slot's memory and the control memory and nothing else: the launcher has closed the rest. An owner blocks on one
 * doorbell, an eventfd that is never read: edge-triggered epoll reports each write to it. While it sleeps nothing wakes it but
 * that doorbell, and the age of the oldest window if there is one. Whoever wakes up while the supervisor does not watch rings for
 * it, so that a unit of work without end is noticed.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "server/roles.h"
#include "shared/log.h"
#include "shared/spin.h"
#include "worker/hosts/host.h"
#include "worker/memory.h"
#include "worker/serve.h"
#include "worker/wakes.h"
#include "worker/worker.h"

/* How often an heir looks whether the arena has grown, so that it has mapped what it may have to take over: while it is being filled, and
 * else; and how long it leaves the processor to others between two pieces. */
enum { PREMAP_FILLING_MS = 100, PREMAP_SOON_MS = 1000, PREMAP_LATE_MS = 32000, PREMAP_PAUSE_MS = 1 };

struct worker {
	struct sidecar *sidecar;
	const struct birth *birth;
	struct slot_memory *memory;
	const struct control_slot *control; /* what the supervisor wants of this slot */
	struct worker_page *page;
	struct life *life; /* this process's own words in it */
	struct workspace workspace;
	struct serve *serve;
	int epoll;
	uint32_t front_generation; /* acknowledged */
	bool served;               /* something, since it last slept */
	struct spin spin;
};

/* ---- Before it owns the slot --------------------------------------------------------------------------------------- */

/* Has the supervisor look at this process's words. */
static void ring_supervisor(const struct worker *worker)
{
	doorbell_ring(worker->sidecar->control.supervisor_bell);
}

/* Says what it has reached. */
static void enter_state(const struct worker *worker, enum life_state state)
{
	/* Release: what belongs to a state is written before it. */
	atomic_store_explicit(&worker->life->state, state, memory_order_release);
	ring_supervisor(worker);
}

/* Maps slot and control memory, puts the doorbell where it can be waited for, and begins its words. */
static void attach(struct worker *worker)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	uint32_t slot = worker->birth->slot;

	if (control_attach_worker(&worker->sidecar->control, slot) < 0)
		fatal("the control memory cannot be mapped");
	if (slot_attach_worker(worker->memory) < 0)
		fatal("the memory of slot %u cannot be mapped", slot);
	worker->control = &worker->sidecar->control.control->slot[slot];
	worker->page = control_worker(&worker->sidecar->control, slot);
	worker->life = &worker->page->lives[worker->birth->place];
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (worker->epoll < 0 || epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->memory->worker_bell, &event) < 0)
		fatal("the doorbell cannot be waited for");
	wakes_have_bell(worker->memory->worker_bell);
	life_begin(worker->life, worker->birth, getpid());
}

/* Leaves because a step does not open. */
static void __attribute__((noreturn)) leave_unopened(const struct segment *segment, const struct failure *failure)
{
	log_error("segment \"%s\" step \"%s\" cannot be opened: %s", segment->name,
		  failure->step < segment->step_count ? segment->steps[failure->step].name : "?", failure->message);
	_exit(EXIT_CHAIN);
}

/* Has the kernel let this process interrupt nobody when it wakes up, or lets it do so again: who loads code should not get in the way of
 * who serves, but who gets the slot must be fast. No nicer than that: without privilege there would be no way back. */
void worker_set_patient(bool patient)
{
	const struct sched_param none = {0};

	if (sched_setscheduler(0, patient ? SCHED_BATCH : SCHED_OTHER, &none) != 0)
		log_debug("the scheduling policy stays as it is: %s", strerror(errno));
}

/* Loads the pipeline's code; leaves with EXIT_CHAIN when a step does not open. */
static void load_the_code(struct worker *worker)
{
	const struct segment *segment = NULL;
	struct failure failure = {0};

	workspace_init(&worker->workspace, worker->sidecar, worker->birth->slot);
	worker->workspace.life = worker->life;
	if (!serve_load(worker->sidecar->descriptor, &segment, &failure))
		leave_unopened(segment, &failure);
}

/* The order at hand. */
static enum order order_now(const struct worker *worker)
{
	return (enum order)atomic_load_explicit(&worker->control->life[worker->birth->place].order,
						memory_order_seq_cst);
}

/* Whether the supervisor wants this very process to own the slot. */
static bool is_meant(const struct worker *worker)
{
	const struct birth *birth = worker->birth;

	return order_now(worker) == ORDER_RUN &&
	       atomic_load_explicit(&worker->control->generation, memory_order_acquire) == birth->generation &&
	       atomic_load_explicit(&worker->control->code_generation, memory_order_acquire) == birth->code;
}

/* Names the process for people who look with ps. */
static void name_process(const struct worker *worker, char role)
{
	char name[16];

	snprintf(name, sizeof(name), "bridged-%c%u", role, worker->birth->slot);
	prctl(PR_SET_NAME, name);
}

/* Says that this process waits for the slot. */
static void say_waiting(const struct worker *worker)
{
	name_process(worker, 'h');
	enter_state(worker, LIFE_WAITING);
}

/* Sleeps in the owner mutex, maps what the arena holds meanwhile, piece by piece, and what it grows by later. It says that it waits once
 * it has mapped what there is. */
static enum slot_wait wait_in_mutex(struct worker *worker)
{
	uint64_t patience_ms = PREMAP_SOON_MS;
	bool said = false;
	enum slot_wait found;

	do {
		bool mapped = slot_premap(worker->memory), more = worker->memory->premap_at != 0;

		if (!more && !said)
			say_waiting(worker);
		said |= !more;
		if (more)
			patience_ms = PREMAP_PAUSE_MS;
		else if (worker->memory->premap_filling)
			patience_ms = PREMAP_FILLING_MS;
		else if (mapped || patience_ms < PREMAP_SOON_MS)
			patience_ms = PREMAP_SOON_MS;
		else if (patience_ms < PREMAP_LATE_MS)
			patience_ms *= 2;
		found = slot_wait(worker->memory, patience_ms);
	} while (found == SLOT_TAKEN);
	if (!said)
		say_waiting(worker);
	return found;
}

/* Waits until the slot is without an owner, and takes it. One that is not meant to run leaves as it is. */
static void own_the_slot(struct worker *worker)
{
	enum slot_wait found = wait_in_mutex(worker);

	if (found == SLOT_BROKEN) {
		log_error("the owner mutex of slot %u cannot be true", worker->birth->slot);
		_exit(EXIT_DAMAGED);
	}
	if (!is_meant(worker))
		_exit(EXIT_UNMEANT);
	int error = slot_own(worker->memory, found);
	if (error != 0) {
		log_error("slot %u cannot be owned: %s", worker->birth->slot, strerror(error));
		_exit(EXIT_DAMAGED);
	}
}

/* ---- Taking over --------------------------------------------------------------------------------------------------- */

/* A pidfd of another process of this slot, or -1 when it has been reaped. */
static int open_sibling(const struct worker *worker, uint32_t number, pid_t *pid)
{
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		const struct control_life *life = &worker->control->life[i];

		if (atomic_load_explicit(&life->number, memory_order_acquire) != number)
			continue;
		*pid = atomic_load_explicit(&life->pid, memory_order_seq_cst);
		int pidfd = *pid == 0 ? -1 : pidfd_open(*pid, 0);
		/* The supervisor zeroes the word before it reaps. So if it still stands, the process had not been reaped when the
		 * pidfd was opened, and its pid was nobody else's. */
		if (pidfd >= 0 && atomic_load_explicit(&life->pid, memory_order_seq_cst) == *pid)
			return pidfd;
		if (pidfd >= 0)
			close(pidfd);
		return -1;
	}
	return -1;
}

/* Whether threads of a process may still be at work though its main thread is gone: there are any, and no signal has ended it. */
static bool has_threads_at_work(pid_t pid)
{
	enum { THREADS = 20, EXIT_CODE = 52 }; /* fields of /proc/PID/stat (proc(5)), counted from 1 */
	char path[32], text[1024], *rest = NULL;
	long threads = 0, code = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	size_t size = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[size] = '\0';
	char *field = strrchr(text, ')'); /* the name before it may hold anything */
	field = field == NULL ? NULL : strtok_r(field, " ", &rest);
	for (int number = 2; field != NULL; field = strtok_r(NULL, " ", &rest), number++) {
		threads = number == THREADS ? atol(field) : threads;
		code = number == EXIT_CODE ? atol(field) : code;
	}
	return threads > 1 && (code & 0x7f) == 0;
}

/* Makes sure that the owner before this one does nothing more to the slot's memory. */
static void see_predecessor_out(struct worker *worker, uint32_t number)
{
	pid_t pid;
	int pidfd = number == 0 ? -1 : open_sibling(worker, number, &pid);

	if (pidfd < 0)
		return;
	bool at_work = has_threads_at_work(pid);
	pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	if (at_work) {
		struct pollfd end = {.fd = pidfd, .events = POLLIN};

		log_warn("the main thread of process %d has left, and others of it went on: it is killed", pid);
		atomic_store_explicit(&worker->life->found_writing, 1, memory_order_relaxed);
		while (poll(&end, 1, -1) < 1) /* should it never end, the supervisor ends this process */
			;
	}
	close(pidfd);
}

/* Announces itself as the owner, and sees the one before out. */
static void become_owner(struct worker *worker)
{
	uint32_t predecessor = atomic_load_explicit(&worker->page->owner, memory_order_relaxed);

	gauge_set(&worker->life->took_over_ns, clock_ns());
	atomic_store_explicit(&worker->life->predecessor, predecessor, memory_order_relaxed);
	atomic_store_explicit(&worker->page->owner, worker->birth->number, memory_order_relaxed);
	enter_state(worker, LIFE_OWNER);
	see_predecessor_out(worker, predecessor);
	name_process(worker, 'w');
	gauge_set(&worker->page->counters.windows_open, 0);
	gauge_set(&worker->page->counters.window_bytes, 0);
}

/* Opens the slot's state, in which the unit at hand of a predecessor is undone, and the steps over it. */
static void open_the_slot(struct worker *worker)
{
	struct slot_memory *memory = worker->memory;
	const struct segment *segment = NULL;
	struct failure failure = {0};
	char why[128];

	if (arena_open(&worker->workspace.arena, memory->arena, memory->sizes.arena, worker->birth->slot, why) !=
	    ARENA_OK) {
		log_error("the state of slot %u cannot be used: %s", worker->birth->slot, why);
		_exit(EXIT_DAMAGED);
	}
	host_metrics_in(&worker->page->metrics);
	worker->workspace.arena.is_file = worker->sidecar->config.state_dir != NULL;
	worker->serve = serve_create(&worker->workspace, memory, worker->birth->generation, &segment, &failure);
	if (worker->workspace.arena.trouble == ARENA_BROKEN) {
		log_error("the state of slot %u cannot be used: %s", worker->birth->slot,
			  worker->workspace.arena.broken);
		_exit(EXIT_DAMAGED);
	}
	if (worker->serve == NULL)
		leave_unopened(segment, &failure);
}

/* Has the front look at this worker's page. */
static void ring_front(const struct worker *worker)
{
	doorbell_ring(worker->sidecar->control.front_bell);
}

/* Begins with zeroed words, under the front generation that there is, which it acknowledges by that (S3). */
static void begin_anew(struct worker *worker, uint32_t front_generation)
{
	serve_reset(worker->serve);
	worker->front_generation = front_generation;
	/* Release: whoever sees the generation sees the words zeroed. */
	atomic_store_explicit(&worker->page->front_generation, front_generation, memory_order_release);
}

/* The generation of the front, as the supervisor has it. */
static uint32_t front_generation_now(const struct worker *worker)
{
	return atomic_load_explicit(&worker->sidecar->control.control->front_generation, memory_order_seq_cst);
}

/* Goes on with what a predecessor left in this memory under this front, or begins anew. */
static void take_up(struct worker *worker)
{
	uint32_t front_generation = front_generation_now(worker);

	if (atomic_load_explicit(&worker->page->ready_generation, memory_order_relaxed) != worker->birth->generation ||
	    atomic_load_explicit(&worker->page->front_generation, memory_order_relaxed) != front_generation) {
		begin_anew(worker, front_generation);
		return;
	}
	serve_adopt(worker->serve);
	worker->front_generation = front_generation;
}

/* Says ready. */
static void say_ready(struct worker *worker)
{
	take_up(worker);
	/* Release: likewise. */
	atomic_store_explicit(&worker->page->ready_generation, worker->birth->generation, memory_order_release);
	gauge_set(&worker->life->ready_ns, clock_ns());
	enter_state(worker, LIFE_READY);
	ring_front(worker);
	log_info("ready: process %u of the slot, memory generation %u, pipeline \"%s\", %zu segments",
		 worker->birth->number, worker->birth->generation, worker->sidecar->descriptor->pipeline,
		 worker->sidecar->descriptor->segment_count);
}

/* ---- Loop ---------------------------------------------------------------------------------------------------------- */

/* Does what supervisor and front generation ask for. */
static void obey(struct worker *worker)
{
	uint32_t front_generation = front_generation_now(worker);

	enum order order = order_now(worker);

	if (order != ORDER_RUN) {
		if (order == ORDER_STOP) /* else an heir goes on with it */
			serve_finish(worker->serve);
		log_info("leaves");
		_exit(0);
	}
	if (front_generation == worker->front_generation)
		return;
	log_info("front generation %u: all sessions of the one before are dropped", front_generation);
	begin_anew(worker, front_generation);
	ring_front(worker);
	ring_supervisor(worker);
}

/* Whether there is any reason not to sleep. */
static bool is_wanted(const struct worker *worker)
{
	return serve_is_wanted(worker->serve) || order_now(worker) != ORDER_RUN ||
	       front_generation_now(worker) != worker->front_generation;
}

/* Looks for work for a while; true when some came. Only worth it while there is traffic. */
static bool look_around(struct worker *worker)
{
	bool wanted = is_wanted(worker);

	while (!wanted && spin_on(&worker->spin, clock_ns())) {
		spin_look(&worker->spin, clock_ns());
		wanted = is_wanted(worker);
	}
	spin_end(&worker->spin);
	return wanted;
}

/* How long to sleep at most, in ms; -1: until the doorbell rings. */
static int sleep_limit(struct worker *worker)
{
	uint64_t next = serve_expire(worker->serve), now = worker->workspace.now_ns;
	uint64_t show = serve_show_state(worker->serve);
	uint64_t ms;

	next = show < next ? show : next;
	if (next == UINT64_MAX)
		return -1;
	ms = next > now ? (next - now) / 1000000 + 1 : 0;
	return ms < 1000000 ? (int)ms : 1000000;
}

/* Blocks until the doorbell rings, or for so many ms (-1: no limit). */
static void wait_for_bell(const struct worker *worker, int timeout_ms)
{
	struct epoll_event event;

	if (epoll_pwait(worker->epoll, &event, 1, timeout_ms, NULL) < 0 && errno != EINTR)
		fatal("waiting for the doorbell failed");
}

/* Says since when it sleeps, or that it is awake, and has the supervisor watch again when it does not. */
static void say_asleep(struct worker *worker, uint64_t since_ns)
{
	/* Sequentially consistent, like the supervisor's store before its last look at this word: one of the two sees the other. */
	atomic_store_explicit(&worker->life->asleep_since_ns, since_ns, memory_order_seq_cst);
	if (since_ns == 0 &&
	    atomic_load_explicit(&worker->sidecar->control.control->watching, memory_order_seq_cst) == 0)
		ring_supervisor(worker);
}

/* Blocks until there is something to do. */
static void sleep_until_wanted(struct worker *worker)
{
	struct channels *channels = worker->memory->channels;
	int limit = sleep_limit(worker);

	worker->served = false;
	say_asleep(worker, clock_ns()); /* first: who rings from now on rings later than that */
	/* Sequentially consistent, and one more look behind it: whoever marked before this store is seen by the look, whoever
	 * marks after it sees the store and rings. */
	atomic_store_explicit(&channels->worker_sleeps, 1, memory_order_seq_cst);
	if (!is_wanted(worker)) {
		counter_add(&worker->page->counters.sleeps, 1);
		wait_for_bell(worker, limit);
	}
	atomic_store_explicit(&channels->worker_sleeps, 0, memory_order_seq_cst);
	say_asleep(worker, 0);
}

/* Serves until it is told to stop. */
static void __attribute__((noreturn)) loop(struct worker *worker)
{
	for (;;) {
		obey(worker);
		switch (serve_turn(worker->serve)) {
		case SERVE_BUSY:
			worker->served = true;
			serve_show_state(worker->serve);
			break;
		case SERVE_IDLE:
			if (!serve_idle(worker->serve) && (!worker->served || !look_around(worker)))
				sleep_until_wanted(worker);
			break;
		case SERVE_DAMAGED:
			log_error("leaves: it cannot serve slot %u any more", worker->birth->slot);
			_exit(EXIT_DAMAGED);
		}
	}
}

/* A process of a slot. */
void worker_main(struct sidecar *sidecar, const struct birth *birth)
{
	struct worker worker = {
	    .sidecar = sidecar,
	    .birth = birth,
	    .memory = &sidecar->slots[birth->slot],
	    .spin.limit_ns = sidecar->config.worker_spin_us * 1000,
	};

	attach(&worker);
	memory_bound(sidecar->config.worker_memory);
	worker_set_patient(true);
	load_the_code(&worker);
	worker_set_patient(false);
	own_the_slot(&worker);
	become_owner(&worker);
	open_the_slot(&worker);
	say_ready(&worker);
	loop(&worker);
}
