/*
 * One process's life, from fork to obituary (sup.h draws the states). How it is done; when, is sup_policy.c, sup_keeper.c and
 * sup_run.c.
 *
 * The front's words belong to the supervisor between two lives: it clears what the next one is judged by (state, session table),
 * then raises the generation, then forks. A worker has words of its own, in a place that no other process has meanwhile; they
 * stay as they were after its death until the place is needed, because its successor reads them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/sup.h"

/* How long a process that was sent SIGKILL may take to be gone. */
#define KILL_PATIENCE_NS UINT64_C(2000000000)

const char *child_name(const struct child *child, char text[16])
{
	if (child->role == ROLE_FRONT)
		strcpy(text, "front");
	else
		snprintf(text, 16, "%s %u", child->announced ? "worker" : "heir", child->slot);
	return text;
}

/* What the supervisor says of a worker in the control memory. */
static struct control_life *control_life_of(const struct supervisor *supervisor, const struct child *child)
{
	return &supervisor->sidecar->control.control->slot[child->slot].life[child->place];
}

/* Where a child's order stands. */
static _Atomic uint32_t *order_of(const struct supervisor *supervisor, const struct child *child)
{
	if (child->role == ROLE_FRONT)
		return &supervisor->sidecar->control.control->front_order;
	return &control_life_of(supervisor, child)->order;
}

struct life *child_life(const struct supervisor *supervisor, const struct child *child)
{
	struct worker_page *page = control_worker(&supervisor->sidecar->control, child->slot);
	struct life *life = &page->lives[child->place];

	if (child->role != ROLE_WORKER || child->number == 0 ||
	    atomic_load_explicit(&life->number, memory_order_acquire) != child->number)
		return NULL;
	return life;
}

enum life_state child_life_state(const struct supervisor *supervisor, const struct child *child)
{
	struct life *life = child_life(supervisor, child);
	uint32_t state = life == NULL ? LIFE_NONE : atomic_load_explicit(&life->state, memory_order_acquire);

	return state <= LIFE_READY ? (enum life_state)state : LIFE_NONE;
}

/* Reads /proc/PID/stat from the state on. False when there is no such process. */
static bool read_stat(pid_t pid, char *state, unsigned *flags)
{
	char path[32], text[512];
	const char *end = NULL;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	if (fgets(text, sizeof(text), file) != NULL)
		end = strrchr(text, ')'); /* the name before it may hold anything */
	fclose(file);
	return end != NULL && sscanf(end + 1, " %c %*d %*d %*d %*d %*d %u", state, flags) == 2;
}

bool process_is_in_state(pid_t pid, const char *states)
{
	char state;
	unsigned flags;

	return read_stat(pid, &state, &flags) && strchr(states, state) != NULL;
}

bool process_is_exiting(pid_t pid)
{
	enum { EXITING = 4 }; /* PF_EXITING of the kernel */
	char state;
	unsigned flags;

	return !read_stat(pid, &state, &flags) || (flags & EXITING) != 0 || state == 'Z' || state == 'X';
}

/* ---- Doorbells ---- */

/* Wakes a child, so that it sees its order. */
static void ring_child(const struct supervisor *supervisor, const struct child *child)
{
	const struct sidecar *sidecar = supervisor->sidecar;

	doorbell_ring(child->role == ROLE_FRONT ? sidecar->control.front_bell
						: sidecar->slots[child->slot].worker_bell);
}

/* Wakes all workers. */
static void ring_workers(const struct supervisor *supervisor)
{
	for (uint32_t i = 0; i < supervisor->sidecar->config.slots; i++)
		doorbell_ring(supervisor->sidecar->slots[i].worker_bell);
}

/* ---- Start ---- */

/* Clears the words by which a front's next life is judged, and the table of sessions that died with the last. */
static void clear_front_words(const struct supervisor *supervisor)
{
	const struct sidecar *sidecar = supervisor->sidecar;
	struct front_page *page = sidecar->control.front;

	atomic_store_explicit(&page->state, FRONT_STARTING, memory_order_relaxed);
	atomic_store_explicit(&page->heartbeat_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&page->sleeps, 0, memory_order_relaxed);
	gauge_set(&page->counters.sessions_open, 0);
	gauge_set(&page->counters.unary_in_flight, 0);
	memset(page->failure, 0, sizeof(page->failure));
	for (uint32_t i = 0; i < sidecar->config.slots; i++) {
		for (uint32_t j = 0; j <= sidecar->config.sessions_per_slot; j++)
			atomic_store_explicit(&page->session[i][j].epoch, 0, memory_order_relaxed);
	}
}

/* Notes that a child has been forked, and watches for its end. */
static void note_birth(struct supervisor *supervisor, struct child *child, const struct launched *launched)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = child};

	CHECK(epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, launched->pidfd, &event) == 0);
	child->state = CHILD_UP;
	child->pid = launched->pid;
	child->pidfd = launched->pidfd;
	child->born_ns = clock_ns();
	child->due_ns = 0;
	child->ordered = false;
	child->killed = false;
	child->dead = false;
	child->verdict = DEATH_UNKNOWN;
	child->announced = false;
	child->ready_seen = false;
}

void child_start_front(struct supervisor *supervisor, struct child *child)
{
	struct control *control = supervisor->sidecar->control.control;
	uint64_t delay_ms = supervisor->sidecar->config.restart_delay_max_ms;
	struct launched launched;

	CHECK(child->state == CHILD_DOWN);
	clear_front_words(supervisor);
	atomic_store_explicit(&control->front_order, ORDER_RUN, memory_order_relaxed);
	/* Release: pairs with the acquire load of whoever compares generations; the cleared words are older. */
	atomic_store_explicit(&control->front_generation, child->number, memory_order_release);
	if (child->number > 1) {
		child->restarts++;
		counter_add(&control->counters.front_restarts, 1);
	}
	if (launcher_start_front(&launched, supervisor->sidecar, supervisor->roles, child->number) != 0) {
		log_error("front cannot be started: %s; the next try is in %llu ms", strerror(errno),
			  (unsigned long long)delay_ms);
		child->due_ns = clock_ns() + delay_ms * 1000000;
		return;
	}
	atomic_store_explicit(&control->front_pid, launched.pid, memory_order_relaxed);
	note_birth(supervisor, child, &launched);
}

/* Has a template's process begin, or forks one here. */
static enum child_start launch(struct supervisor *supervisor, const struct birth *birth, struct launched *launched)
{
	struct code *code = code_of(supervisor, birth->code);

	switch (template_ask(supervisor, code)) {
	case TEMPLATE_LATER:
		return CHILD_LATER;
	case TEMPLATE_HAS_ONE:
		return template_give(supervisor, code, launched, birth) ? CHILD_STARTED : CHILD_LATER;
	case TEMPLATE_HAS_NONE:
		break;
	}
	if (launcher_start_worker(launched, supervisor->sidecar, supervisor->roles, code->descriptor, birth) != 0)
		return CHILD_FAILED;
	return CHILD_STARTED;
}

enum child_start child_start_worker(struct supervisor *supervisor, struct child *child, const struct birth *birth)
{
	struct control_life *life = control_life_of(supervisor, child);
	struct launched launched = {0};

	CHECK(child->state == CHILD_DOWN);
	atomic_store_explicit(&life->number, 0, memory_order_relaxed);
	atomic_store_explicit(&life->pid, 0, memory_order_relaxed);
	atomic_store_explicit(&life->order, ORDER_RUN, memory_order_release);
	enum child_start start = launch(supervisor, birth, &launched);
	if (start != CHILD_STARTED)
		return start;
	child->number = birth->number;
	child->generation = birth->generation;
	child->code = birth->code;
	atomic_store_explicit(&life->pid, launched.pid, memory_order_relaxed);
	/* Release: pairs with a successor's acquire load; the pid is older. */
	atomic_store_explicit(&life->number, birth->number, memory_order_release);
	note_birth(supervisor, child, &launched);
	child->due_ns = child->born_ns + supervisor->sidecar->config.start_timeout_ms * 1000000;
	return CHILD_STARTED;
}

/* ---- End ---- */

void child_kill(struct child *child, enum death_cause verdict)
{
	if (child->state == CHILD_DOWN || child->killed || child->dead)
		return;
	kill(child->pid, SIGKILL); /* ours and not reaped: the pid is nobody else's */
	child->state = CHILD_LEAVING;
	child->killed = true;
	child->verdict = verdict;
	child->due_ns = clock_ns() + KILL_PATIENCE_NS;
}

void child_ask_to_leave(struct supervisor *supervisor, struct child *child, enum order order, uint64_t grace_ms)
{
	if (child->state != CHILD_UP)
		return;
	atomic_store_explicit(order_of(supervisor, child), order, memory_order_seq_cst);
	ring_child(supervisor, child);
	child->state = CHILD_LEAVING;
	child->ordered = true;
	child->due_ns = clock_ns() + grace_ms * 1000000;
}

/* What ends with the front: its words, and its generation. When the next one is due, in words. */
static void bury_front(struct supervisor *supervisor, struct child *child, char then[128])
{
	const struct config *config = &supervisor->sidecar->config;
	struct control *control = supervisor->sidecar->control.control;
	struct restart_death death = {
	    .ordered = child->ordered,
	    .worked = child->ready_seen || child_is_ready(supervisor, child), /* its work is to serve */
	    .lived_ms = (clock_ns() - child->born_ns) / 1000000,
	};

	atomic_store_explicit(&control->front_pid, 0, memory_order_relaxed);
	if (supervisor->phase >= PHASE_DRAINING) { /* the workers are told to leave, not to wait for another */
		snprintf(then, 128, "no other is started");
		child->due_ns = 0;
		return;
	}
	uint64_t delay = restart_delay(&child->history, death, config->restart_delay_ms, config->restart_delay_max_ms);
	if (delay > 0) {
		counter_add(&control->counters.restarts_throttled, 1);
		snprintf(then, 128, "a new one is started in %llu ms", (unsigned long long)delay);
	} else {
		snprintf(then, 128, "a new one is started now");
	}
	child->number++;
	/* Release: pairs with the acquire load of the workers, who now end what they had with the dead. */
	atomic_store_explicit(&control->front_generation, child->number, memory_order_release);
	ring_workers(supervisor);
	child->due_ns = clock_ns() + delay * 1000000;
}

/* Publishes how a worker ended, for its successor. */
static void publish_death(struct supervisor *supervisor, const struct child *child, enum death_cause cause)
{
	struct control_slot *slot = &supervisor->sidecar->control.control->slot[child->slot];
	struct control_death *death = &slot->death[child->number % DEATHS_PUBLISHED];

	atomic_store_explicit(&death->number, 0, memory_order_release);
	atomic_store_explicit(&death->cause, cause, memory_order_relaxed);
	/* Release: pairs with control_death_cause. */
	atomic_store_explicit(&death->number, child->number, memory_order_release);
	ring_child(supervisor, child);
}

/* Takes the process off the kernel's list. */
static void reap(struct supervisor *supervisor, struct child *child)
{
	siginfo_t end;

	if (child->role == ROLE_WORKER) /* before the pid can be somebody else's (open_sibling in worker.c) */
		atomic_store_explicit(&control_life_of(supervisor, child)->pid, 0, memory_order_seq_cst);
	CHECK(waitid(P_PIDFD, (id_t)child->pidfd, &end, WEXITED | WNOHANG) == 0);
	epoll_ctl(supervisor->epoll, EPOLL_CTL_DEL, child->pidfd, NULL); /* a child just forked may hold a copy */
	close(child->pidfd);
	child->pidfd = -1;
}

void child_reap(struct supervisor *supervisor, struct child *child)
{
	siginfo_t end = {0};
	char then[128] = "";

	/* A pidfd can be readable a moment before the process can be reaped (other threads of it); then it is again. */
	if (waitid(P_PIDFD, (id_t)child->pidfd, &end, WEXITED | WNOHANG | WNOWAIT) != 0 || end.si_pid == 0)
		return;
	child->dead = true;
	supervisor_child_died(supervisor, child, &end);
	bool worker = child->role == ROLE_WORKER;
	struct keeper *keeper = &supervisor->keepers[child->slot]; /* of no meaning for the front */
	if (worker)                                                /* it may have become owner a moment ago */
		keeper_see(supervisor, keeper);
	enum death_cause cause = death_find_cause(supervisor, child, &end);
	int exit_code = end.si_code == CLD_EXITED ? end.si_status : -1;
	if (worker)
		keeper_bury(supervisor, keeper, child, cause, exit_code, then);
	else
		bury_front(supervisor, child, then);
	obituary_write(supervisor, child, &end, cause, then);
	deaths_note(supervisor, child, &end, cause, then);
	if (!child->ordered && (!worker || child->announced))
		death_words(&end, worker ? keeper->last_death : child->last_death);
	reap(supervisor, child);
	if (worker) {
		publish_death(supervisor, child, cause);
		child->due_ns = 0; /* it did leave; a front's is when the next one is started */
	}
	child->pid = 0;
	child->state = CHILD_DOWN;
}

bool child_is_ready(const struct supervisor *supervisor, const struct child *child)
{
	const struct control_memory *memory = &supervisor->sidecar->control;

	if (child->state == CHILD_DOWN)
		return false;
	if (child->role == ROLE_FRONT)
		return atomic_load_explicit(&memory->front->generation, memory_order_acquire) == child->number &&
		       atomic_load_explicit(&memory->front->state, memory_order_acquire) == FRONT_SERVING;
	return child_life_state(supervisor, child) == LIFE_READY;
}
