/*
 * The supervisor's loop (sup.h): events in, decisions out.
 *
 *   signalfd            SIGTERM, SIGINT, SIGHUP: stop in order; once more: at once. SIGCHLD: somebody may have to be reaped
 *   pidfd per child     it has died
 *   a template's link   it has something to say, or a process that it has made has
 *   supervisor_bell     front or a worker has something to be seen in shared memory: ready, or a demand of the front
 *   stats socket        a client
 *   timerfd             the earliest of: a throttled start, a grace that ends, a look at who is not ready yet
 *
 * Everything that is due is looked at after every wake-up, in one pass over front and slots: there are at most 129, and
 * wake-ups are rare. Nothing here blocks but epoll_wait; an idle sidecar has no timer running.
 *
 * The life of the sidecar is enum phase. STARTING ends when the front serves and all workers are ready (SERVING), or when
 * the start has failed: an address that cannot be bound, steps that cannot be opened, or too long a wait.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/stats.h"
#include "server/sup.h"
#include "shared/units.h"

enum { STATS_PATIENCE_MS = 10000 };

/* The front, which is the first child. */
static struct child *front_of(struct supervisor *supervisor)
{
	return &supervisor->children[0];
}

/* ---- Stopping ---- */

/* Begins to stop: the front first, so that nothing new comes in. */
static void begin_stop(struct supervisor *supervisor, int exit_code)
{
	if (supervisor->phase >= PHASE_DRAINING)
		return;
	supervisor->phase = PHASE_DRAINING;
	supervisor->exit_code = exit_code;
	child_ask_to_leave(supervisor, front_of(supervisor), ORDER_STOP, supervisor->sidecar->config.drain_timeout_ms);
}

void supervisor_drain(struct supervisor *supervisor)
{
	if (supervisor->phase < PHASE_DRAINING)
		log_info("stopping: somebody asked for it on the stats socket");
	begin_stop(supervisor, 0);
}

/* A start that cannot succeed: no more patience with anybody. */
static void fail_start(struct supervisor *supervisor)
{
	begin_stop(supervisor, 1);
	supervisor->hurry = true;
}

/* Kills what has not left yet. */
static void kill_all(struct supervisor *supervisor)
{
	for (uint32_t i = 0; i < supervisor->child_count; i++) {
		supervisor->children[i].ordered = true;
		child_kill(&supervisor->children[i], DEATH_ORDERED);
	}
}

/* Whether all workers are down. */
static bool workers_gone(const struct supervisor *supervisor)
{
	for (uint32_t i = 1; i < supervisor->child_count; i++) {
		if (supervisor->children[i].state != CHILD_DOWN)
			return false;
	}
	return true;
}

/* Moves an orderly stop on: front gone, then workers gone. */
static void advance_stop(struct supervisor *supervisor)
{
	if (supervisor->hurry && supervisor->phase >= PHASE_DRAINING)
		kill_all(supervisor);
	if (supervisor->phase == PHASE_DRAINING && front_of(supervisor)->state == CHILD_DOWN) {
		supervisor->phase = PHASE_LEAVING;
		for (uint32_t i = 0; i < supervisor->keeper_count; i++)
			keeper_stop(supervisor, &supervisor->keepers[i]);
	}
	if (supervisor->phase == PHASE_LEAVING && workers_gone(supervisor) && !templates_are_there(supervisor))
		supervisor->phase = PHASE_OVER;
}

/* A signal: stop, or stop faster; or a child has died. */
static void take_signals(struct supervisor *supervisor)
{
	struct signalfd_siginfo signal;

	while (read(supervisor->signals, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
		const char *name = strsignal((int)signal.ssi_signo);
		if (signal.ssi_signo == SIGCHLD) {
			supervisor->strangers = true;
		} else if (supervisor->phase < PHASE_DRAINING) {
			char timeout[UNITS_TEXT_MAX];
			log_info("stopping (signal %u, %s): no new work is taken, what is in flight has %s; once more "
				 "to stop at once",
				 signal.ssi_signo, name,
				 duration_exact(timeout, supervisor->sidecar->config.drain_timeout_ms * 1000));
			begin_stop(supervisor, 0);
		} else if (!supervisor->hurry) {
			log_warn("stopping at once (signal %u, %s): what is in flight is lost", signal.ssi_signo, name);
			supervisor->hurry = true;
		}
	}
}

/* ---- Starting ---- */

/* Says why a process that died has made the start fail; true when it has. */
static bool death_fails_start(struct supervisor *supervisor, const struct child *child, const siginfo_t *end)
{
	char failure[sizeof(supervisor->sidecar->control.front->failure) + 1] = "";

	if (supervisor->phase != PHASE_STARTING || end->si_code != CLD_EXITED)
		return false;
	if (child->role == ROLE_FRONT && end->si_status == EXIT_FRONT_BIND) {
		memcpy(failure, supervisor->sidecar->control.front->failure, sizeof(failure) - 1);
		log_error("cannot start: %s", failure[0] == '\0' ? "the front could not bind an address" : failure);
		return true;
	}
	if (child->role == ROLE_WORKER && end->si_status == EXIT_MEMORY) {
		log_error("cannot start: worker %u has not enough memory to load the pipeline's steps: raise "
			  "--worker-memory",
			  child->slot);
		return true;
	}
	if (child->role == ROLE_WORKER && end->si_status == EXIT_CHAIN) {
		log_error(
		    "cannot start: worker %u could not open the pipeline's steps; its own lines above say why, and "
		    "`bridged --check` says it in full",
		    child->slot);
		return true;
	}
	return false;
}

void supervisor_child_died(struct supervisor *supervisor, struct child *child, const siginfo_t *end)
{
	if (death_fails_start(supervisor, child, end))
		fail_start(supervisor);
}

/* Says once that all is up. */
static void announce(struct supervisor *supervisor)
{
	const struct config *config = &supervisor->sidecar->config;
	char addresses[1024] = "", took[UNITS_TEXT_MAX];
	size_t used = 0;

	for (uint32_t i = 0; i < config->listen_count && used < sizeof(addresses); i++)
		used += (size_t)snprintf(addresses + used, sizeof(addresses) - used, "%s%s", i == 0 ? "" : ", ",
					 config->listen[i]);
	log_info("serving pipeline \"%s\" on %s with %u slot%s, after %s", supervisor->sidecar->descriptor->pipeline,
		 addresses, config->slots, config->slots == 1 ? "" : "s",
		 duration_rounded(took, clock_ns() - supervisor->started_ns));
}

/* Whether the front and an owner of each slot are ready. */
static bool all_are_ready(const struct supervisor *supervisor)
{
	bool all = supervisor->children[0].ready_seen && supervisor->children[0].state == CHILD_UP;

	for (uint32_t i = 0; i < supervisor->keeper_count; i++)
		all = all && keeper_is_ready(supervisor, &supervisor->keepers[i]);
	return all;
}

/* Notes that the front has become ready. */
static void see_front(struct supervisor *supervisor)
{
	struct child *front = front_of(supervisor);

	if (front->ready_seen || !child_is_ready(supervisor, front))
		return;
	front->ready_seen = true;
	if (front->number > 1)
		log_info("front (pid %d, generation %u) is ready", front->pid, front->number);
}

/* Ends the start: in good order, or because it takes too long. */
static void end_start(struct supervisor *supervisor)
{
	uint64_t limit_ns = supervisor->sidecar->config.start_timeout_ms * 1000000;

	if (all_are_ready(supervisor)) {
		supervisor->phase = PHASE_SERVING;
		announce(supervisor);
	} else if (clock_ns() - supervisor->started_ns > limit_ns) {
		char limit[UNITS_TEXT_MAX];
		log_error("cannot start: not all processes were ready within %s (--start-timeout)",
			  duration_rounded(limit, limit_ns));
		fail_start(supervisor);
	}
}

/* ---- Time ---- */

/* Does what is due for the front: starts it, or kills it. */
static void act_on_front(struct supervisor *supervisor, uint64_t now)
{
	struct child *front = front_of(supervisor);

	if (front->due_ns == 0 || front->due_ns > now)
		return;
	if (front->state == CHILD_DOWN && supervisor->phase < PHASE_DRAINING) {
		child_start_front(supervisor, front);
	} else if (front->state == CHILD_LEAVING && !front->killed) {
		log_warn("front (pid %d) did not leave in time; it is killed", front->pid);
		child_kill(front, DEATH_ORDERED);
	} else {
		front->due_ns = 0;
	}
}

/* When to look again while the start lasts: whoever gets ready rings, but one that hangs does not. */
static uint64_t next_look(const struct supervisor *supervisor, uint64_t now)
{
	uint64_t age = now - supervisor->started_ns, step = age / 8;

	if (supervisor->phase != PHASE_STARTING)
		return 0;
	return now + (step < 5000000 ? 5000000 : step > 1000000000 ? 1000000000 : step);
}

/* Sets the timer to the next thing that is due; stops it when nothing is. */
static void arm_timer(struct supervisor *supervisor)
{
	const struct child *front = front_of(supervisor);
	uint64_t now = clock_ns(), next = earlier(next_look(supervisor, now), supervisor->watch_due_ns);

	next = earlier(next, reload_due(supervisor));
	next = earlier(next, templates_due(supervisor));

	if (front->state != CHILD_DOWN || supervisor->phase < PHASE_DRAINING)
		next = earlier(next, front->due_ns);
	for (uint32_t i = 0; i < supervisor->keeper_count; i++)
		next = earlier(next, keeper_due(supervisor, &supervisor->keepers[i], now));
	if (supervisor->stats != NULL)
		next = earlier(next, stats_server_due(supervisor->stats));
	struct itimerspec when = {
	    .it_value = {.tv_sec = (time_t)(next / 1000000000), .tv_nsec = (long)(next % 1000000000)},
	};
	CHECK(timerfd_settime(supervisor->timer, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

/* ---- The loop ---- */

/* Looks at all slots. */
static void turn_keepers(struct supervisor *supervisor, uint64_t now)
{
	for (uint32_t i = 0; i < supervisor->keeper_count; i++)
		keeper_turn(supervisor, &supervisor->keepers[i], now);
}

/* Whether a child is one that somebody here waits for. */
static bool is_waited_for(const struct supervisor *supervisor, pid_t pid)
{
	for (uint32_t i = 0; i < supervisor->child_count; i++) {
		if (supervisor->children[i].state != CHILD_DOWN && supervisor->children[i].pid == pid)
			return true;
	}
	return (supervisor->reload.state == RELOAD_CHECKING && supervisor->reload.probe.pid == pid) ||
	       templates_own(supervisor, pid);
}

/* Reaps children that nobody waits for: a subreaper, and the first process of a container, is left those whose parents have died. */
static void reap_strangers(struct supervisor *supervisor)
{
	while (supervisor->strangers) {
		siginfo_t end = {0};

		if (waitid(P_ALL, 0, &end, WEXITED | WNOHANG | WNOWAIT) != 0 || end.si_pid == 0)
			supervisor->strangers = false;
		else if (is_waited_for(supervisor, end.si_pid)) /* its own event comes, and a turn with it */
			return;
		else if (waitid(P_PID, (id_t)end.si_pid, &end, WEXITED | WNOHANG) == 0)
			death_of_nobody(supervisor, &end);
	}
}

/* Looks at everything that may have become due. */
static void turn(struct supervisor *supervisor)
{
	uint64_t now = clock_ns();

	see_front(supervisor);
	act_on_front(supervisor, now);
	templates_turn(supervisor, now);
	turn_keepers(supervisor, now);
	reload_turn(supervisor, now);
	watchdog_turn(supervisor, now);
	if (supervisor->phase == PHASE_STARTING) {
		end_start(supervisor);
		if (supervisor->phase == PHASE_SERVING) /* now is the time for heirs */
			turn_keepers(supervisor, now);
	}
	if (supervisor->phase >= PHASE_DRAINING)
		advance_stop(supervisor);
	reap_strangers(supervisor);
}

/* Empties an eventfd or timerfd. */
static void drain(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		CHECK(errno == EAGAIN);
}

/* Takes one event. */
static void take_event(struct supervisor *supervisor, void *source)
{
	if (source == &supervisor->signals)
		take_signals(supervisor);
	else if (source == &supervisor->timer)
		drain(supervisor->timer);
	else if (source == &supervisor->sidecar->control)
		drain(supervisor->sidecar->control.supervisor_bell);
	else if (source == &supervisor->reload || source == supervisor->codes)
		; /* their turns look */
	else if (source == &supervisor->stats)
		stats_server_turn(supervisor->stats);
	else
		child_reap(supervisor, source);
}

/* Waits for events and takes them. */
static void wait_and_take(struct supervisor *supervisor)
{
	struct epoll_event events[32];

	arm_timer(supervisor);
	int count = epoll_wait(supervisor->epoll, events, sizeof(events) / sizeof(*events), -1);
	if (count < 0)
		CHECK(errno == EINTR);
	for (int i = 0; i < count; i++)
		take_event(supervisor, events[i].data.ptr);
	if (supervisor->stats != NULL)
		stats_server_turn(supervisor->stats);
}

/* ---- Setting up ---- */

/* Adds a descriptor to the loop. */
static void watch(const struct supervisor *supervisor, int fd, void *source)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

	if (fd == -1 || epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
		fatal("cannot set up the supervisor's loop");
}

/* Blocks the signals that arrive as events; returns their descriptor. */
static int catch_signals(void)
{
	sigset_t caught;

	sigemptyset(&caught);
	sigaddset(&caught, SIGTERM);
	sigaddset(&caught, SIGINT);
	sigaddset(&caught, SIGCHLD);
	if (signal(SIGHUP, SIG_DFL) == SIG_IGN) /* started by nohup: a terminal that goes is no reason to stop */
		signal(SIGHUP, SIG_IGN);
	else
		sigaddset(&caught, SIGHUP);
	CHECK(sigprocmask(SIG_BLOCK, &caught, NULL) == 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* whoever started us may have it ignored, and then nobody could be reaped */
	return signalfd(-1, &caught, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Makes the loop and what it waits on. */
static void set_up(struct supervisor *supervisor)
{
	const struct config *config = &supervisor->sidecar->config;

	supervisor->epoll = epoll_create1(EPOLL_CLOEXEC);
	supervisor->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	supervisor->signals = catch_signals();
	watch(supervisor, supervisor->timer, &supervisor->timer);
	watch(supervisor, supervisor->signals, &supervisor->signals);
	watch(supervisor, supervisor->sidecar->control.supervisor_bell, &supervisor->sidecar->control);
	if (config->stats != NULL) {
		supervisor->stats = stats_server_create(supervisor, config->stats, STATS_PATIENCE_MS);
		if (supervisor->stats == NULL)
			fatal("cannot listen on the stats socket %s", config->stats);
		watch(supervisor, stats_server_fd(supervisor->stats), &supervisor->stats);
	}
}

/* Starts all processes for the first time. */
static void start_all(struct supervisor *supervisor)
{
	supervisor->children[0] = (struct child){.role = ROLE_FRONT, .number = 1, .pidfd = -1};
	supervisor->child_count = 1 + supervisor->sidecar->config.slots * LIVES_MAX;
	/* Generations first: no process may see another's at 0. */
	atomic_store_explicit(&supervisor->sidecar->control.control->front_generation, 1, memory_order_release);
	codes_init(supervisor);
	template_start(supervisor, &supervisor->codes[0]);
	keepers_init(supervisor);
	for (uint32_t i = supervisor->keeper_count; i-- > 0;)
		keeper_turn(supervisor, &supervisor->keepers[i], clock_ns());
	child_start_front(supervisor, front_of(supervisor));
}

/* Gives everything back. */
static void tear_down(struct supervisor *supervisor)
{
	if (supervisor->stats != NULL)
		stats_server_destroy(supervisor->stats);
	close(supervisor->signals);
	close(supervisor->timer);
	close(supervisor->epoll);
}

int supervisor_run(struct sidecar *sidecar, const struct roles *roles)
{
	static struct supervisor supervisor;

	supervisor = (struct supervisor){
	    .sidecar = sidecar,
	    .roles = roles,
	    .started_ns = clock_ns(),
	    .started_wall_ms = (uint64_t)clock_wall_ms(),
	    .oom_kills = oom_kills_read(""),
	};
	gauge_set(&sidecar->control.control->counters.started_at, supervisor.started_wall_ms / 1000);
	set_up(&supervisor);
	start_all(&supervisor);
	while (supervisor.phase != PHASE_OVER) {
		wait_and_take(&supervisor);
		turn(&supervisor);
	}
	tear_down(&supervisor);
	if (supervisor.exit_code == 0)
		log_info("stopped");
	return supervisor.exit_code;
}
