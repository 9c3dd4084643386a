/*
 * One process's life, from fork to obituary (sup.h draws the states). How it is done; when, is sup_policy.c and sup_run.c.
 *
 * Between two lives the words of the dead belong to the supervisor: it clears what the next one is judged by (frames done,
 * progress, the front's state and session table), then raises the generation, then forks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/sup.h"

const char *child_name(const struct child *child, char text[16])
{
	if (child->role == ROLE_FRONT)
		strcpy(text, "front");
	else
		snprintf(text, 16, "worker %u", child->slot);
	return text;
}

/* The words that hold a child's generation, order and pid. */
struct child_words {
	_Atomic uint32_t *generation, *order;
	_Atomic int32_t *pid;
};

/* Finds them. */
static struct child_words words_of(const struct supervisor *supervisor, const struct child *child)
{
	struct control *control = supervisor->sidecar->control.control;
	struct control_slot *slot = &control->slot[child->slot];

	if (child->role == ROLE_FRONT)
		return (struct child_words){&control->front_generation, &control->front_order, &control->front_pid};
	return (struct child_words){&slot->generation, &slot->order, &slot->pid};
}

/* ---- Doorbells ---- */

/* Wakes a child, so that it sees its order. */
static void ring_child(const struct supervisor *supervisor, const struct child *child)
{
	const struct sidecar *sidecar = supervisor->sidecar;

	doorbell_ring(child->role == ROLE_FRONT ? sidecar->control.front_bell
						: sidecar->slots[child->slot].worker_bell);
}

/* Wakes those whom a child's new generation concerns: the front for a worker, all workers for the front. */
static void ring_peers(const struct supervisor *supervisor, const struct child *child)
{
	for (uint32_t i = 0; i < supervisor->child_count; i++) {
		if (supervisor->children[i].role != child->role)
			ring_child(supervisor, &supervisor->children[i]);
	}
}

/* ---- Start ---- */

/* Clears the words by which a worker's next life is judged. Nobody else writes them now. */
static void clear_worker_words(const struct supervisor *supervisor, const struct child *child)
{
	struct worker_page *page = control_worker(&supervisor->sidecar->control, child->slot);

	atomic_store_explicit(&page->frames_done, 0, memory_order_relaxed);
	atomic_store_explicit(&page->progress.since_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&page->progress.step, UINT32_MAX, memory_order_relaxed);
}

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

/* Forks the right role. */
static int launch(struct supervisor *supervisor, struct child *child, struct launched *launched)
{
	if (child->role == ROLE_FRONT)
		return launcher_start_front(launched, supervisor->sidecar, supervisor->roles, child->generation);
	return launcher_start_worker(launched, supervisor->sidecar, supervisor->roles, child->slot, child->generation);
}

/* Counts a start that is not the first. */
static void count_restart(struct supervisor *supervisor, struct child *child)
{
	struct sup_counters *counters = &supervisor->sidecar->control.control->counters;

	child->restarts++;
	counter_add(child->role == ROLE_FRONT ? &counters->front_restarts : &counters->worker_restarts, 1);
}

void child_start(struct supervisor *supervisor, struct child *child)
{
	struct child_words words = words_of(supervisor, child);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = child};
	struct launched launched;
	char name[16];

	CHECK(child->state == CHILD_DOWN);
	if (child->role == ROLE_FRONT)
		clear_front_words(supervisor);
	else
		clear_worker_words(supervisor, child);
	atomic_store_explicit(words.order, ORDER_RUN, memory_order_relaxed);
	/* Release: pairs with the acquire load of whoever compares generations; the cleared words are older. */
	atomic_store_explicit(words.generation, child->generation, memory_order_release);
	if (child->generation > 1)
		count_restart(supervisor, child);
	if (launch(supervisor, child, &launched) != 0) {
		log_error("%s cannot be started: %s; the next try is in %llu ms", child_name(child, name),
			  strerror(errno), (unsigned long long)supervisor->sidecar->config.restart_delay_max_ms);
		child->due_ns = clock_ns() + supervisor->sidecar->config.restart_delay_max_ms * 1000000;
		return;
	}
	CHECK(epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, launched.pidfd, &event) == 0);
	atomic_store_explicit(words.pid, launched.pid, memory_order_relaxed);
	child->state = CHILD_UP;
	child->pid = launched.pid;
	child->pidfd = launched.pidfd;
	child->born_ns = clock_ns();
	child->due_ns = 0;
	child->ordered = false;
	child->killed = false;
	child->ready_seen = false;
}

/* ---- End ---- */

void child_kill(struct child *child)
{
	if (child->state == CHILD_DOWN)
		return;
	kill(child->pid, SIGKILL); /* ours and not reaped: the pid is nobody else's */
	child->state = CHILD_LEAVING;
	child->killed = true;
	child->due_ns = 0;
}

void child_ask_to_leave(struct supervisor *supervisor, struct child *child, uint64_t grace_ms)
{
	if (child->state != CHILD_UP)
		return;
	atomic_store_explicit(words_of(supervisor, child).order, ORDER_STOP, memory_order_release);
	ring_child(supervisor, child);
	child->state = CHILD_LEAVING;
	child->ordered = true;
	child->due_ns = clock_ns() + grace_ms * 1000000;
}

/* Whether a child has finished work in this life. The front's work is to serve. */
static bool has_worked(const struct supervisor *supervisor, const struct child *child)
{
	if (child->role == ROLE_FRONT)
		return child->ready_seen || child_is_ready(supervisor, child);
	return counter_read(&control_worker(&supervisor->sidecar->control, child->slot)->frames_done) > 0;
}

/* When the next one is to be started: ms from now. */
static uint64_t next_start(struct supervisor *supervisor, struct child *child)
{
	const struct config *config = &supervisor->sidecar->config;
	struct restart_death death = {
	    .ordered = child->ordered,
	    .worked = has_worked(supervisor, child),
	    .lived_ms = (clock_ns() - child->born_ns) / 1000000,
	};
	uint64_t delay = restart_delay(&child->history, death, config->restart_delay_ms, config->restart_delay_max_ms);

	if (delay > 0)
		counter_add(&supervisor->sidecar->control.control->counters.restarts_throttled, 1);
	return delay;
}

/* What ends with the process: its pid, its place in epoll, its generation. */
static void bury(struct supervisor *supervisor, struct child *child)
{
	struct child_words words = words_of(supervisor, child);

	epoll_ctl(supervisor->epoll, EPOLL_CTL_DEL, child->pidfd, NULL); /* a child just forked may hold a copy */
	close(child->pidfd);
	atomic_store_explicit(words.pid, 0, memory_order_relaxed);
	child->pidfd = -1;
	child->pid = 0;
	child->state = CHILD_DOWN;
	if (child->role == ROLE_FRONT && supervisor->phase >= PHASE_DRAINING)
		return; /* no front follows; the workers are told to leave, not to wait for one */
	child->generation++;
	/* Release: pairs with the acquire load of front or workers, who now end what they had with the dead. */
	atomic_store_explicit(words.generation, child->generation, memory_order_release);
	ring_peers(supervisor, child);
}

void child_reap(struct supervisor *supervisor, struct child *child)
{
	siginfo_t end = {0};

	/* A pidfd can be readable a moment before the process can be reaped (other threads of it); then it is again. */
	if (waitid(P_PIDFD, (id_t)child->pidfd, &end, WEXITED | WNOHANG) != 0 || end.si_pid == 0)
		return;
	supervisor_child_died(supervisor, child, &end);
	bool stopping = supervisor->phase >= PHASE_DRAINING;
	uint64_t delay = stopping ? 0 : next_start(supervisor, child);
	obituary_write(supervisor, child, &end, delay);
	if (!child->ordered)
		death_words(&end, child->last_death);
	bury(supervisor, child);
	child->due_ns = stopping ? 0 : clock_ns() + delay * 1000000;
}

bool child_is_ready(const struct supervisor *supervisor, const struct child *child)
{
	const struct control_memory *memory = &supervisor->sidecar->control;

	if (child->state == CHILD_DOWN)
		return false;
	if (child->role == ROLE_FRONT)
		return atomic_load_explicit(&memory->front->generation, memory_order_acquire) == child->generation &&
		       atomic_load_explicit(&memory->front->state, memory_order_acquire) == FRONT_SERVING;
	return atomic_load_explicit(&control_worker(memory, child->slot)->ready_generation, memory_order_acquire) ==
	       child->generation;
}
