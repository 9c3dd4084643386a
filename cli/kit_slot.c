/* The worker of a test case (kit_slot.h). */
#include "cli/kit_slot.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/log.h"
#include "worker/wakes.h"

enum {
	GENERATION = 1,
	RING = 4 << 20,
	START_MS = 30000, /* how long a worker may take to open the steps, at least */
	DEATHS_MAX = 24,  /* in one turn: more inputs than anybody puts into one message to see them kill */
};

#define STATE_MEMORY (UINT64_C(256) << 20)

/* ---- The worker's process ------------------------------------------------------------------------------------------ */

/* Puts standard output and standard error where the case keeps them. */
static void redirect(int log)
{
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
	    dup2(log, STDERR_FILENO) < 0)
		_exit(EXIT_ORPHAN);
}

/* Takes the slot over, as worker.c does, but for the waiting. NULL: the log says why. */
static struct serve *take_over(struct sidecar *sidecar, struct workspace *workspace, uint32_t number)
{
	const struct birth birth = {
	    .place = number % LIVES_MAX, .number = number, .generation = GENERATION, .code = GENERATION};
	char why[SOLO_WHY_MAX];

	if (control_attach_worker(&sidecar->control, 0) != 0 || slot_attach_worker(&sidecar->slots[0]) != 0)
		fatal("the memory of the slot cannot be mapped");
	wakes_have_bell(sidecar->slots[0].worker_bell);
	struct worker_page *page = control_worker(&sidecar->control, 0);
	struct life *life = &page->lives[birth.place];
	life_begin(life, &birth, getpid());
	struct serve *serve = solo_own(sidecar, workspace, GENERATION, why);
	if (serve == NULL) {
		log_error("%s", why);
		return NULL;
	}
	workspace->life = life;
	atomic_store(&life->predecessor, atomic_load(&page->owner));
	atomic_store(&page->owner, number);
	if (number == 1)
		serve_reset(serve);
	else
		serve_adopt(serve);
	return serve;
}

/* Waits until a session may go on that rests: before it tries something again, or because a step waits for something outside, whose
 * threads ring. False: none rests. */
static bool rest(struct kit_slot *slot, struct serve *serve)
{
	uint64_t next = serve_expire(serve), now = clock_ns(), rings;
	struct pollfd bell = {.fd = slot->sidecar->slots[0].worker_bell, .events = POLLIN};

	if (next == UINT64_MAX)
		return false;
	if (poll(&bell, 1, next > now ? (int)((next - now) / 1000000 + 1) : 0) == 1 &&
	    read(bell.fd, &rings, sizeof(rings)) < 0)
		fatal("the doorbell cannot be read");
	return true;
}

/* The process: says that it is there, then a turn for each byte that comes, until nobody sends any more. */
static void __attribute__((noreturn)) be_worker(struct kit_slot *slot, int orders, int replies)
{
	static struct workspace workspace; /* large */
	enum serve_result result = SERVE_IDLE;
	char byte = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	redirect(slot->log);
	log_init("worker", LOG_WARN);
	struct serve *serve = take_over(slot->sidecar, &workspace, slot->processes);
	if (serve == NULL)
		_exit(EXIT_CHAIN);
	while (write(replies, &byte, 1) == 1 && read(orders, &byte, 1) == 1) {
		while ((result = serve_turn(serve)) == SERVE_BUSY || (result == SERVE_IDLE && rest(slot, serve)))
			;
		if (result == SERVE_DAMAGED)
			_exit(EXIT_DAMAGED);
	}
	_exit(0);
}

/* ---- This process --------------------------------------------------------------------------------------------------- */

/* Keeps what went wrong first. Returns false. */
static bool __attribute__((format(printf, 2, 3))) fail(struct kit_slot *slot, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (slot->why[0] == '\0')
		vsnprintf(slot->why, sizeof(slot->why), format, arguments);
	va_end(arguments);
	return false;
}

/* Closes a descriptor once. */
static void close_once(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Waits for the worker's byte: 1 it came, 0 the worker is dead, -1 its time was up. */
static int await_reply(struct kit_slot *slot, uint64_t patience_ms)
{
	struct pollfd watched[2] = {{.fd = slot->replies, .events = POLLIN}, {.fd = slot->pidfd, .events = POLLIN}};
	uint64_t until = clock_ns() + patience_ms * 1000000, now;
	char byte;

	while ((now = clock_ns()) < until) {
		int ready = poll(watched, 2, (int)((until - now) / 1000000 + 1));
		if (ready < 0 && errno != EINTR)
			fatal("waiting for a worker failed");
		if (ready > 0 && (watched[0].revents & POLLIN) != 0)
			return read(slot->replies, &byte, 1) == 1;
		if (ready > 0 && (watched[1].revents & POLLIN) != 0)
			return 0;
	}
	return -1;
}

/* Says how a worker ended, for the next one. */
static void publish_death(struct kit_slot *slot, enum death_cause cause)
{
	struct control_death *death =
	    &slot->sidecar->control.control->slot[0].death[slot->processes % DEATHS_PUBLISHED];

	atomic_store(&death->number, 0);
	atomic_store(&death->cause, cause);
	atomic_store(&death->number, slot->processes);
}

/* What is to blame for an end that nobody here has caused. */
static enum death_cause cause_of(const siginfo_t *end)
{
	if (end->si_code == CLD_EXITED)
		return end->si_status == EXIT_MEMORY ? DEATH_MEMORY : DEATH_CODE;
	return end->si_status == SIGKILL ? DEATH_OUTSIDE : DEATH_CODE;
}

/* Reaps the worker, whose death has a cause that is known, or is to be found out (DEATH_UNKNOWN). */
static siginfo_t bury(struct kit_slot *slot, enum death_cause cause)
{
	siginfo_t end = {0};

	if (waitid(P_PIDFD, (id_t)slot->pidfd, &end, WEXITED) != 0)
		fatal("a worker cannot be waited for");
	publish_death(slot, cause == DEATH_UNKNOWN ? cause_of(&end) : cause);
	close_once(&slot->pidfd);
	close_once(&slot->orders);
	close_once(&slot->replies);
	return end;
}

/* Kills the worker and buries it. */
static void kill_worker(struct kit_slot *slot, enum death_cause cause)
{
	pidfd_send_signal(slot->pidfd, SIGKILL, NULL, 0);
	bury(slot, cause);
}

/* Forks a worker, and waits until it has taken the slot over. */
static bool start_worker(struct kit_slot *slot)
{
	int orders[2], replies[2];

	if (pipe2(orders, O_CLOEXEC) != 0)
		fatal("no pipe to a worker");
	if (pipe2(replies, O_CLOEXEC) != 0)
		fatal("no pipe to a worker");
	slot->processes++;
	fflush(NULL);
	slot->pid = fork();
	if (slot->pid < 0)
		fatal("cannot fork a worker");
	if (slot->pid == 0) {
		close(orders[1]);
		close(replies[0]);
		be_worker(slot, orders[0], replies[1]);
	}
	close(orders[0]);
	close(replies[1]);
	slot->orders = orders[1];
	slot->replies = replies[0];
	slot->pidfd = pidfd_open(slot->pid, 0);
	if (slot->pidfd < 0)
		fatal("no descriptor of a worker");
	uint64_t patience_ms = slot->patience_ms > START_MS ? slot->patience_ms : START_MS;
	int reply = await_reply(slot, patience_ms);
	if (reply == 1)
		return true;
	if (reply < 0) {
		kill_worker(slot, DEATH_WATCHDOG);
		return fail(slot, "the worker was not ready after %llu ms", (unsigned long long)patience_ms);
	}
	siginfo_t end = bury(slot, DEATH_UNKNOWN);
	if (end.si_code == CLD_EXITED)
		return fail(slot, "the worker could not open the steps: it left with status %d", end.si_status);
	return fail(slot, "the worker died of signal %d (%s) while it opened the steps", end.si_status,
		    strsignal(end.si_status));
}

/* Sizes and limits of a slot of so many sessions. */
static void configure(struct sidecar *sidecar, uint32_t sessions, struct slot_sizes *sizes)
{
	*sizes = (struct slot_sizes){
	    .channel_count = sessions + 1,
	    .unary_ring = 64 << 10,
	    .session_ring = RING,
	    .arena = arena_size_for(STATE_MEMORY),
	};
	sidecar->state_dir = -1;
	sidecar->config = (struct config){
	    .slots = 1,
	    .message_max = KIT_MESSAGE_MAX,
	    .record_max = KIT_MESSAGE_MAX,
	    .unary_message_max = 16 << 10,
	    .window_bytes_max = 64 << 10,
	    .window_age_ms_max = 60000,
	    .delta_bytes = UINT64_MAX, /* state comes with barriers alone */
	    .max_skips_per_hour = 1000,
	    .log_level = LOG_WARN,
	};
}

bool kit_slot_make(struct kit_slot *slot, const struct descriptor *descriptor, uint32_t sessions, uint64_t patience_ms,
		   int log)
{
	struct slot_sizes sizes;

	*slot = (struct kit_slot){.pidfd = -1, .orders = -1, .replies = -1, .log = log, .patience_ms = patience_ms};
	slot->sidecar = calloc(1, sizeof(*slot->sidecar));
	if (slot->sidecar == NULL)
		fatal("no memory for a slot");
	slot->sidecar->descriptor = descriptor;
	configure(slot->sidecar, sessions, &sizes);
	if (solo_make(slot->sidecar, &sizes, &slot->front) != 0)
		return fail(slot, "no memory for a slot: %s", strerror(errno));
	slot->made = true;
	return start_worker(slot);
}

void kit_slot_destroy(struct kit_slot *slot)
{
	if (slot->pidfd >= 0)
		kill_worker(slot, DEATH_ORDERED);
	if (slot->made)
		solo_destroy(slot->sidecar, &slot->front);
	slot->made = false;
	free(slot->sidecar);
	slot->sidecar = NULL;
}

bool kit_slot_open(struct kit_slot *slot, uint32_t channel, uint32_t segment)
{
	if (solo_open_channel(&slot->front, &slot->channels[channel], channel, segment, channel, GENERATION) == 0)
		return true;
	return fail(slot, "no memory for a session: %s", strerror(errno));
}

void kit_slot_send(struct kit_slot *slot, uint32_t channel, struct frame header, struct view message)
{
	CHECK(solo_push(&slot->front, &slot->channels[channel], channel, header, message));
}

bool kit_slot_take(struct kit_slot *slot, uint32_t channel, struct frame *frame, struct view *payload)
{
	const uint8_t *bytes;
	enum ring_result result = solo_peek(&slot->channels[channel], frame, &bytes);

	if (result == RING_DAMAGED)
		fail(slot, "the worker has damaged the memory of the slot");
	if (result != RING_OK)
		return false;
	*payload = (struct view){bytes, frame->length - sizeof(*frame)};
	return true;
}

void kit_slot_release(struct kit_slot *slot, uint32_t channel, const struct frame *frame)
{
	solo_release(&slot->front, &slot->channels[channel], channel, frame);
}

/* The worker is dead, by itself or for being too slow: the next one, unless that cannot help. */
static bool replace(struct kit_slot *slot, bool slow)
{
	siginfo_t end = {0};

	if (slow)
		kill_worker(slot, DEATH_WATCHDOG);
	else
		end = bury(slot, DEATH_UNKNOWN);
	if (end.si_code == CLD_EXITED && end.si_status == EXIT_DAMAGED)
		return fail(slot, "the worker found the memory of the slot damaged");
	if (++slot->deaths > DEATHS_MAX)
		return fail(slot, "%u workers died, one after the other", slot->deaths);
	return start_worker(slot);
}

bool kit_slot_turn(struct kit_slot *slot)
{
	char byte = 1;

	if (slot->why[0] != '\0')
		return false;
	int reply = write(slot->orders, &byte, 1) == 1 ? await_reply(slot, slot->patience_ms) : 0;
	if (reply != 1)
		return replace(slot, reply < 0);
	slot->deaths = 0;
	return true;
}

bool kit_slot_restart(struct kit_slot *slot)
{
	if (slot->why[0] != '\0')
		return false;
	kill_worker(slot, DEATH_ORDERED);
	return start_worker(slot);
}
