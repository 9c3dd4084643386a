/*
 * The front: speaks gRPC to clients and moves bytes between their streams and the slots' rings.
 *
 * One thread polls one completion queue and the rings in turn. While something is in flight it spins for a while before
 * it blocks in the queue; before it blocks it says so (front_page.sleeps), looks once more, and from then on a worker
 * that has something rings the doorbell. A second thread does nothing but block on that doorbell and post an empty
 * event to the queue; a third accepts connections.
 *
 * What it leaves out: records (it never decodes one), state, and policy (it asks the supervisor for workers).
 */
#include "server/front.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shared/locks.h"
#include "shared/spin.h"

enum {
	EVENTS_PER_TURN = 32,
	BYTES_PER_TURN = 32 << 10, /* to the workers: they read them while they are in the cache */
	LINGER_LOOKS = 60,
	LINGER_SERVED_MAX = 64,
	QUIET_MS = 1000, /* how long a stop waits for clients that have nothing to finish to hang up by themselves */
	LOOK_MS = 100,   /* how often to look for those who have waited too long, while there are any */
	METADATA_BYTES_MAX = 16 << 10,
	STREAMS_PER_CONNECTION_MAX = 4096
};

/* ---- Byte buffers ---- */

bool flat_read(struct flat *flat, grpc_byte_buffer *buffer)
{
	if (buffer->type == GRPC_BB_RAW && buffer->data.raw.compression == GRPC_COMPRESS_NONE &&
	    buffer->data.raw.slice_buffer.count == 1) {
		flat->slice = grpc_slice_ref(buffer->data.raw.slice_buffer.slices[0]);
	} else {
		grpc_byte_buffer_reader reader;
		if (!grpc_byte_buffer_reader_init(&reader, buffer))
			return false;
		flat->slice = grpc_byte_buffer_reader_readall(&reader);
		grpc_byte_buffer_reader_destroy(&reader);
	}
	flat->view = (struct view){GRPC_SLICE_START_PTR(flat->slice), GRPC_SLICE_LENGTH(flat->slice)};
	return true;
}

void flat_release(struct flat *flat)
{
	grpc_slice_unref(flat->slice);
}

grpc_byte_buffer *buffer_of(const void *data, size_t size)
{
	grpc_slice slice = grpc_slice_from_copied_buffer(data, size);
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

/* ---- Unknown methods ---- */

struct stranger {
	struct front *front;
	grpc_call *call;
	grpc_call_details details;
	grpc_metadata_array metadata;
	struct tag tag;
	int cancelled;
};

static void stranger_arrived(void *owner, bool ok);

/* Posts one request for whatever method nobody registered. */
static void stranger_post(struct front *front)
{
	struct stranger *stranger = calloc(1, sizeof *stranger);
	CHECK(stranger != NULL);
	stranger->front = front;
	stranger->tag = (struct tag){stranger_arrived, stranger};
	grpc_call_details_init(&stranger->details);
	grpc_metadata_array_init(&stranger->metadata);
	CHECK(grpc_server_request_call(front->server, &stranger->call, &stranger->details, &stranger->metadata,
				       front->queue, front->queue, &stranger->tag) == GRPC_CALL_OK);
}

/* Frees a call to an unknown method. */
static void stranger_gone(void *owner, bool ok)
{
	(void)ok;
	struct stranger *stranger = owner;
	if (stranger->call)
		grpc_call_unref(stranger->call);
	grpc_call_details_destroy(&stranger->details);
	grpc_metadata_array_destroy(&stranger->metadata);
	free(stranger);
}

/* A call to an unknown method: refused. */
static void stranger_arrived(void *owner, bool ok)
{
	struct stranger *stranger = owner;
	if (!ok) {
		stranger_gone(stranger, false);
		return;
	}
	if (!stranger->front->draining)
		stranger_post(stranger->front);
	stranger->tag.done = stranger_gone;
	call_finish(stranger->call, &stranger->tag, &stranger->cancelled, NULL, GRPC_STATUS_UNIMPLEMENTED,
		    "unknown method: this sidecar speaks flink_worker.FlinkWorkerService, flink_bridge.FlinkBridge and "
		    "grpc.health.v1.Health");
}

/* ---- The server ---- */

/* Says why the front cannot serve, and leaves. */
static _Noreturn void front_fail(struct front *front, const char *address, const char *why)
{
	snprintf(front->page->failure, sizeof front->page->failure, "cannot listen on %s: %s", address, why);
	atomic_store_explicit(&front->page->generation, front->generation, memory_order_relaxed);
	atomic_store_explicit(&front->page->state, FRONT_FAILED, memory_order_release);
	doorbell_ring(front->control->supervisor_bell);
	_exit(EXIT_FRONT_BIND);
}

/* The arguments of the server: limits of messages and metadata. */
static grpc_server *server_create(const struct config *config)
{
	uint64_t message_max =
	    config->message_max > config->unary_message_max ? config->message_max : config->unary_message_max;
	grpc_arg arguments[] = {
	    {.type = GRPC_ARG_INTEGER,
	     .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
	     .value.integer = (int)message_max},
	    {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, .value.integer = -1},
	    {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_MAX_METADATA_SIZE, .value.integer = METADATA_BYTES_MAX},
	    {.type = GRPC_ARG_INTEGER,
	     .key = (char *)GRPC_ARG_MAX_CONCURRENT_STREAMS,
	     .value.integer = STREAMS_PER_CONNECTION_MAX},
	    {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_CHANNELZ, .value.integer = 0},
	    {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_KEEPALIVE_TIME_MS, .value.integer = 60000},
	    {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_KEEPALIVE_TIMEOUT_MS, .value.integer = 20000},
	    {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, .value.integer = 0},
	    /* Also of clients without a call: nothing else lets go of those that began to speak and stopped. */
	    {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, .value.integer = 1},
	};
	grpc_channel_args args = {.num_args = sizeof arguments / sizeof *arguments, .args = arguments};
	return grpc_server_create(&args, NULL);
}

/* Binds all addresses. */
static void server_listen(struct front *front)
{
	const char *address = NULL;
	const char *why = doors_open(front, &address);
	if (why)
		front_fail(front, address, why);
}

/* As many descriptors as there may be: each client takes one. */
static void raise_descriptors(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		log_warn("the limit of open files stays where it is: %s", strerror(errno));
}

/* ---- The doorbell ---- */

/* What the doorbell thread needs: a call that goes nowhere, to post empty batches on. */
struct bell {
	int fd;
	grpc_call *call;
	struct tag tag;
};

/* The doorbell rang: the control memory may have changed, too. */
static void bell_rang(void *owner, bool ok)
{
	(void)ok;
	struct front *front = owner;
	front->slots_changed = true;
}

/* Blocks on the doorbell and wakes the queue. A thread of its own. */
static void *bell_thread(void *argument)
{
	struct bell *bell = argument;
	uint64_t count;
	for (;;) {
		if (read(bell->fd, &count, sizeof count) != sizeof count && errno != EINTR)
			fatal("the front's doorbell cannot be read");
		grpc_call_start_batch(bell->call, NULL, 0, &bell->tag, NULL);
	}
	return NULL;
}

/* Starts the doorbell thread. */
static void bell_start(struct front *front)
{
	static struct bell bell;
	pthread_t thread;
	grpc_channel *nowhere = grpc_lame_client_channel_create("bell", GRPC_STATUS_UNAVAILABLE, "goes nowhere");
	bell.fd = front->control->front_bell;
	bell.tag = (struct tag){bell_rang, front};
	bell.call = grpc_channel_create_call(nowhere, NULL, GRPC_PROPAGATE_DEFAULTS, front->queue,
					     grpc_slice_from_static_string("/bell"), NULL,
					     gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
	if (pthread_create(&thread, NULL, bell_thread, &bell) != 0)
		fatal("cannot start the doorbell thread");
	pthread_detach(thread);
}

/* ---- The loop ---- */

/* gRPC has shut the server down: every call is over. */
static void front_stopped(void *owner, bool ok)
{
	(void)ok;
	(void)owner;
	_exit(0);
}

/* The supervisor wants it to stop: no new calls, finish what is in flight. */
static void front_drain(struct front *front)
{
	static struct tag stopped = {front_stopped, NULL};
	if (front->draining ||
	    atomic_load_explicit(&front->control->control->front_order, memory_order_acquire) != ORDER_STOP)
		return;
	log_info("stopping: no new calls, %llu in flight", (unsigned long long)front->in_flight);
	front->draining = true;
	atomic_store_explicit(&front->page->state, FRONT_DRAINING, memory_order_release);
	doors_close(front);
	grpc_server_shutdown_and_notify(front->server, front->queue, &stopped);
	sessions_drain(front);
	health_drain(front);
}

/* Hands events of the queue to their owners; whether there was any. Waits for the first until `deadline`. */
static bool front_events(struct front *front, gpr_timespec deadline)
{
	int count = 0;
	front->turn_bytes = 0;
	while (count < EVENTS_PER_TURN && front->turn_bytes < BYTES_PER_TURN) {
		grpc_event event = grpc_completion_queue_next(front->queue, deadline, NULL);
		if (event.type != GRPC_OP_COMPLETE)
			break;
		if (count == 0)
			front->now_ns = clock_ns();
		struct tag *tag = event.tag;
		tag->done(tag->owner, event.success != 0);
		deadline = gpr_inf_past(GPR_CLOCK_MONOTONIC);
		count++;
	}
	return count > 0;
}

/* Cuts off those who stay connected though they have nothing to finish and were asked to go. gRPC would wait for them. */
static void front_cut_idlers(struct front *front)
{
	if (!front->draining || front->cut)
		return;
	if (front->sessions || !unary_is_quiet(front))
		front->quiet_ns = 0;
	else if (front->quiet_ns == 0)
		front->quiet_ns = front->now_ns;
	else if (front->now_ns - front->quiet_ns >= QUIET_MS * UINT64_C(1000000)) {
		front->cut = true;
		grpc_server_cancel_all_calls(front->server);
	}
}

/* Looks now and then for those who have waited too long, however much there is to do for others. */
static void front_look(struct front *front)
{
	if (front->now_ns - front->looked_ns < LOOK_MS * UINT64_C(1000000))
		return;
	front->looked_ns = front->now_ns;
	front_cut_idlers(front);
	front->slots_changed = front->opens_woken = true;
	unary_end_late(front);
}

/* One look at everything that does not come through the queue; whether there was anything. */
static bool front_turn(struct front *front)
{
	bool served = slots_serve(front);
	front_look(front);
	if (front->slots_changed) {
		slots_refresh(front);
		unary_give_up(front, front->now_ns);
		front_drain(front);
	}
	if (front->opens_woken && front->sessions_waiting)
		opens_retry(front, front->now_ns);
	if (front->draining && served)
		sessions_drain(front);
	if (front->config->direct)
		sessions_direct(front);
	slots_kick(front);
	return served;
}

/* Looks at the rings a little longer before the next look at the queue, for that costs system calls: what workers answer
 * one after the other within microseconds is taken together. */
static bool front_linger(struct front *front)
{
	int served = 0;
	for (int look = 0; look < LINGER_LOOKS && front->in_flight > 0; look++) {
		if (slots_serve(front) && served++ < LINGER_SERVED_MAX)
			look = 0;
		spin_pause();
	}
	if (served > 0)
		slots_kick(front);
	return served > 0;
}

/* Until when to block: for good, but for those who wait for a slot, a worker, its answer, or the end. */
static gpr_timespec front_deadline(const struct front *front)
{
	bool waiting = front->sessions_waiting > 0 || front->in_flight > 0 || front->draining;
	for (uint32_t i = 0; i < front->slot_count && !waiting; i++)
		waiting = front->slots[i].waiting != NULL;
	if (!waiting)
		return gpr_inf_future(GPR_CLOCK_MONOTONIC);
	return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(LOOK_MS, GPR_TIMESPAN));
}

/* Blocks until something comes: says so, looks once more, then sleeps in the queue. */
static void front_sleep(struct front *front)
{
	atomic_store_explicit(&front->page->sleeps, 1, memory_order_seq_cst);
	front->now_ns = clock_ns();
	atomic_store_explicit(&front->page->heartbeat_ns, front->now_ns, memory_order_relaxed);
	if (!front_turn(front)) {
		counter_add(&front->page->counters.sleeps, 1);
		front_events(front, front_deadline(front));
	}
	atomic_store_explicit(&front->page->sleeps, 0, memory_order_relaxed);
}

/* Serves until told to stop. */
static _Noreturn void front_loop(struct front *front)
{
	const gpr_timespec past = gpr_inf_past(GPR_CLOCK_MONOTONIC);
	struct spin spin = {.limit_ns = front->config->spin_us * 1000};
	for (;;) {
		front->now_ns = clock_ns();
		spin_look(&spin, front->now_ns);
		bool busy = front_events(front, past);
		busy |= front_turn(front);
		busy |= front_linger(front);
		atomic_store_explicit(&front->page->heartbeat_ns, front->now_ns, memory_order_relaxed);
		if (!busy && front->in_flight > 0 && spin_on(&spin, front->now_ns))
			continue;
		spin_end(&spin);
		if (!busy)
			front_sleep(front);
	}
}

/* ---- The role ---- */

/* Attaches control memory and slots, and takes over what the front before this one noted. */
static void front_attach(struct front *front)
{
	struct sidecar *sidecar = front->sidecar;
	if (control_attach_front(front->control) < 0)
		fatal("cannot attach the control memory");
	front->page = front->control->front;
	front->slot_count = sidecar->config.slots;
	for (uint32_t i = 0; i < front->slot_count; i++) {
		struct slot_end *slot = &front->slots[i];
		slot->front = front;
		slot->index = i;
		slot->memory = &sidecar->slots[i];
		if (slot_attach_front(slot->memory) < 0)
			fatal("cannot attach the memory of slot %u", i);
	}
	open_inherit(front);
}

/* Tells the supervisor that it serves. */
static void front_ready(struct front *front)
{
	atomic_store_explicit(&front->page->generation, front->generation, memory_order_relaxed);
	atomic_store_explicit(&front->page->state, FRONT_SERVING, memory_order_release);
	doorbell_ring(front->control->supervisor_bell);
}

void front_main(struct sidecar *sidecar, uint32_t generation)
{
	static struct front front;
	front.sidecar = sidecar;
	front.config = &sidecar->config;
	front.descriptor = sidecar->descriptor;
	front.control = &sidecar->control;
	front.generation = generation;
	front.slots_changed = true;
	log_init("front", sidecar->config.log_level);
	front_attach(&front);
	raise_descriptors();
	setenv("GRPC_VERBOSITY", "NONE", 0); /* its words go nowhere a person looks; ours name the cause */
	locks_unwatched();
	grpc_init();
	front.queue = grpc_completion_queue_create_for_next(NULL);
	front.server = server_create(front.config);
	grpc_server_register_completion_queue(front.server, front.queue, NULL);
	unary_init(&front);
	sessions_init(&front);
	health_init(&front);
	reflection_init(&front);
	server_listen(&front);
	grpc_server_start(front.server);
	unary_start(&front);
	sessions_start(&front);
	health_start(&front);
	reflection_start_serving(&front);
	stranger_post(&front);
	bell_start(&front);
	doors_start(&front);
	front_ready(&front);
	front_loop(&front);
}
