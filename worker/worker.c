/*
 * The worker of a slot: the process that runs the pipeline's steps. One thread, no gRPC, no signals of its own.
 *
 *      forked --> attached --order RUN, owner mutex--> owner --chains open, words zeroed--> ready --> loop
 *                                                                                                      |
 *              a turn over the ready channels <----+-- something is marked                             |
 *              drop all sessions, acknowledge <----+-- a new front generation     <--------------------+
 *              finish what is at hand, leave  <----+-- order STOP
 *              look a while, then block       <----+-- nothing to do
 *
 * It maps its own slot's memory and the control memory and nothing else: the launcher has closed the rest. It blocks on one doorbell, an eventfd that is
 * never read: edge-triggered epoll reports each write to it. While it sleeps nothing wakes it but that doorbell, and
 * the age of the oldest window if there is one.
 *
 * Left out: heirs. A worker ordered to HOLD waits before it takes the slot, which is where an heir will wait.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "server/roles.h"
#include "shared/log.h"
#include "shared/spin.h"
#include "worker/serve.h"

struct worker {
	struct sidecar *sidecar;
	struct slot_memory *memory;
	const struct control_slot *control; /* what the supervisor wants of this slot */
	struct worker_page *page;
	struct workspace workspace;
	struct serve *serve;
	int epoll;
	uint32_t slot, generation;
	uint32_t front_generation; /* acknowledged */
	bool served;               /* something, since it last slept */
	struct spin spin;
};

/* ---- Setup --------------------------------------------------------------------------------------------------------- */

/* Maps slot and control memory, and puts the doorbell where it can be waited for. */
static void attach(struct worker *worker)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	if (control_attach_worker(&worker->sidecar->control, worker->slot) < 0)
		fatal("the control memory cannot be mapped");
	if (slot_attach_worker(worker->memory) < 0)
		fatal("the memory of slot %u cannot be mapped", worker->slot);
	worker->control = &worker->sidecar->control.control->slot[worker->slot];
	worker->page = control_worker(&worker->sidecar->control, worker->slot);
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (worker->epoll < 0 || epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->memory->worker_bell, &event) < 0)
		fatal("the doorbell cannot be waited for");
}

/* Zeroes the words that speak of this life only. */
static void page_reset(struct worker_page *page)
{
	atomic_store_explicit(&page->frames_done, 0, memory_order_relaxed);
	atomic_store_explicit(&page->progress.since_ns, 0, memory_order_relaxed);
	gauge_set(&page->counters.windows_open, 0);
	gauge_set(&page->counters.window_bytes, 0);
}

/* The order at hand. */
static enum order order_now(const struct worker *worker)
{
	return (enum order)atomic_load_explicit(&worker->control->order, memory_order_seq_cst);
}

/* Blocks until the doorbell rings, or for so many ms (-1: no limit). */
static void wait_for_bell(const struct worker *worker, int timeout_ms)
{
	struct epoll_event event;

	if (epoll_pwait(worker->epoll, &event, 1, timeout_ms, NULL) < 0 && errno != EINTR)
		fatal("waiting for the doorbell failed");
}

/* Waits until it is meant to run, and takes the slot. */
static void own_the_slot(struct worker *worker)
{
	int error;

	while (order_now(worker) == ORDER_HOLD)
		wait_for_bell(worker, -1);
	if (order_now(worker) == ORDER_STOP)
		_exit(0);
	error = slot_own(worker->memory);
	if (error != 0)
		fatalx("slot %u cannot be owned: %s", worker->slot, strerror(error));
}

/* Opens the pipeline's steps; leaves with EXIT_CHAIN when one does not open. */
static void open_the_chains(struct worker *worker)
{
	const struct segment *segment = NULL;
	struct failure failure = {0};

	workspace_init(&worker->workspace, worker->sidecar, worker->slot);
	worker->serve = serve_create(&worker->workspace, worker->memory, worker->generation, &segment, &failure);
	if (worker->serve != NULL)
		return;
	log_error("segment \"%s\" step \"%s\" cannot be opened: %s", segment->name,
		  failure.step < segment->step_count ? segment->steps[failure.step].name : "?", failure.message);
	_exit(EXIT_CHAIN);
}

/* Has front and supervisor look at this worker's page. */
static void ring_both(const struct worker *worker)
{
	doorbell_ring(worker->sidecar->control.front_bell);
	doorbell_ring(worker->sidecar->control.supervisor_bell);
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

/* Says ready. */
static void say_ready(struct worker *worker)
{
	begin_anew(worker, front_generation_now(worker));
	/* Release: likewise. */
	atomic_store_explicit(&worker->page->ready_generation, worker->generation, memory_order_release);
	ring_both(worker);
	log_info("ready: generation %u, pipeline \"%s\", %zu segments", worker->generation,
		 worker->sidecar->descriptor->pipeline, worker->sidecar->descriptor->segment_count);
}

/* ---- Loop ---------------------------------------------------------------------------------------------------------- */

/* Does what supervisor and front generation ask for. */
static void obey(struct worker *worker)
{
	uint32_t front_generation = front_generation_now(worker);

	if (order_now(worker) == ORDER_STOP) {
		serve_finish(worker->serve);
		log_info("leaves");
		_exit(0);
	}
	if (front_generation == worker->front_generation)
		return;
	log_info("front generation %u: all sessions of the one before are dropped", front_generation);
	begin_anew(worker, front_generation);
	ring_both(worker);
}

/* Whether there is any reason not to sleep. */
static bool is_wanted(const struct worker *worker)
{
	return serve_is_wanted(worker->serve) || order_now(worker) == ORDER_STOP ||
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
	uint64_t ms;

	if (next == UINT64_MAX)
		return -1;
	ms = next > now ? (next - now) / 1000000 + 1 : 0;
	return ms < 1000000 ? (int)ms : 1000000;
}

/* Blocks until there is something to do. */
static void sleep_until_wanted(struct worker *worker)
{
	struct channels *channels = worker->memory->channels;
	int limit = sleep_limit(worker);

	worker->served = false;
	/* Sequentially consistent, and one more look behind it: whoever marked before this store is seen by the look, whoever
	 * marks after it sees the store and rings. */
	atomic_store_explicit(&channels->worker_sleeps, 1, memory_order_seq_cst);
	if (!is_wanted(worker)) {
		counter_add(&worker->page->counters.sleeps, 1);
		wait_for_bell(worker, limit);
	}
	atomic_store_explicit(&channels->worker_sleeps, 0, memory_order_seq_cst);
}

/* Serves until it is told to stop. */
static void __attribute__((noreturn)) loop(struct worker *worker)
{
	for (;;) {
		obey(worker);
		switch (serve_turn(worker->serve)) {
		case SERVE_BUSY:
			worker->served = true;
			break;
		case SERVE_IDLE:
			if (!worker->served || !look_around(worker))
				sleep_until_wanted(worker);
			break;
		case SERVE_DAMAGED:
			fatalx("the front wrote ring words that cannot be true: slot %u is given up", worker->slot);
		}
	}
}

/* The worker of a slot. */
void worker_main(struct sidecar *sidecar, uint32_t slot, uint32_t generation)
{
	struct worker worker = {
	    .sidecar = sidecar,
	    .memory = &sidecar->slots[slot],
	    .slot = slot,
	    .generation = generation,
	    .spin.limit_ns = sidecar->config.spin_us * 1000,
	};

	attach(&worker);
	own_the_slot(&worker);
	page_reset(worker.page);
	open_the_chains(&worker);
	say_ready(&worker);
	loop(&worker);
}
