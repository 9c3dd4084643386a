/*
 * The front against a worker that the test plays itself, so that the worker can lie, die, dawdle and be replaced.
 *
 * The test process is supervisor (it made the memories), worker (it writes the worker's words) and client (a real gRPC
 * client over a Unix socket); the front is a real one in a child process.
 */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/client.h"
#include "proto/flink_bridge.pb-c.h"
#include "proto/flink_worker.pb-c.h"
#include "server/roles.h"
#include "shared/wire.h"
#include "tests/check_main.h"
#include "tests/tsan_grpc.h"

enum { SLOTS = 2, RING = 64 << 10, FRONTS = 2 };

/* ---- The stage: memories, a front, a client ---- */

static struct sidecar sidecar;
static struct descriptor descriptor;
static struct segment segments[2];
static pid_t front_pid;
static pid_t front_pids[FRONTS + 1];
static int front_starts[FRONTS + 1][2];
static uint32_t front_generation;
static char directory[64], address[96];
static uint64_t open_wait_ms = 60000;
static struct client *client;
static const void *session_method, *message_method;

/* The worker of a slot, as the test plays it. */
struct fake {
	uint32_t slot;
	struct slot_memory *memory;
	struct worker_page *page;
	struct ring_consumer requests[4];
	struct ring_producer answers[4];
	uint32_t epoch[4];
	uint32_t stale[4]; /* what a front before this one had open */
};

static struct fake fakes[SLOTS];
static struct slot_memory worker_memory[SLOTS]; /* the worker's view; the supervisor's keeps its descriptors */

/* A new worker of a slot becomes ready: what the supervisor and the worker would store. */
static void fake_ready(struct fake *fake)
{
	struct control_slot *control = &sidecar.control.control->slot[fake->slot];
	uint32_t generation = atomic_load(&control->generation) + 1;
	memset(fake->epoch, 0, sizeof fake->epoch);
	slot_reset_worker(fake->memory);
	atomic_store(&control->owner, atomic_load(&control->owner) + 1);
	atomic_store(&control->generation, generation);
	atomic_store(&fake->page->front_generation, atomic_load(&sidecar.control.control->front_generation));
	atomic_store(&fake->page->ready_generation, generation);
	doorbell_ring(sidecar.control.front_bell);
}

/* Forks the fronts that a test may need, before this process touches gRPC: each waits until it is started. */
static void fronts_fork(void)
{
	for (uint32_t generation = 1; generation <= FRONTS; generation++) {
		ck_assert_int_eq(pipe(front_starts[generation]), 0);
		front_pids[generation] = fork();
		if (front_pids[generation] == 0) {
			char go;
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (read(front_starts[generation][0], &go, 1) == 1)
				front_main(&sidecar, generation);
			_exit(1);
		}
	}
}

static void front_start(void)
{
	atomic_store(&sidecar.control.control->front_generation, ++front_generation);
	front_pid = front_pids[front_generation];
	ck_assert_int_eq(write(front_starts[front_generation][1], "g", 1), 1);
}

/* Blocks until the front serves. */
static void front_wait(void)
{
	struct pollfd bell = {.fd = sidecar.control.supervisor_bell, .events = POLLIN};
	uint64_t count;
	while (atomic_load(&sidecar.control.front->state) != FRONT_SERVING ||
	       atomic_load(&sidecar.control.front->generation) != front_generation) {
		ck_assert_int_eq(poll(&bell, 1, 60000), 1);
		ck_assert_int_eq(read(bell.fd, &count, sizeof count), sizeof count);
	}
}

static void stage_config(void)
{
	struct config *config = &sidecar.config;
	snprintf(directory, sizeof directory, "/tmp/check_front.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(address, sizeof address, "unix:%s/s", directory);
	*config = (struct config){.slots = SLOTS,
				  .listen = {address},
				  .listen_count = 1,
				  .message_max = RING / 4 - 64,
				  .record_max = RING / 4 - 64,
				  .unary_message_max = RING / 4 - 64,
				  .session_ring = RING,
				  .unary_ring = RING,
				  .sessions_per_slot = 3,
				  .connections_max = 100,
				  .open_wait_ms = open_wait_ms,
				  .spin_us = 20,
				  .log_level = LOG_ERROR};
	descriptor = (struct descriptor){.pipeline = "test", .segments = segments, .segment_count = 2};
	snprintf(descriptor.topology_hash, sizeof descriptor.topology_hash, "0123456789abcdef");
	sidecar.descriptor = &descriptor;
}

static void stage_set(void)
{
	struct slot_sizes sizes = {.channel_count = 4, .unary_ring = RING, .session_ring = RING, .arena = 1 << 20};
	stage_config();
	ck_assert_int_eq(control_create(&sidecar.control, SLOTS, 2, 2), 0);
	for (uint32_t i = 0; i < SLOTS; i++) {
		ck_assert_int_eq(slot_memory_create(&sidecar.slots[i], i, &sizes, -1), 0);
		fakes[i] = (struct fake){.slot = i, .memory = &worker_memory[i]};
	}
	fronts_fork();
	front_start();
	for (uint32_t i = 0; i < SLOTS; i++) {
		worker_memory[i] = sidecar.slots[i];
		worker_memory[i].channels_fd = dup(sidecar.slots[i].channels_fd);
		worker_memory[i].arena_fd = dup(sidecar.slots[i].arena_fd);
		worker_memory[i].owner_fd = dup(sidecar.slots[i].owner_fd);
		ck_assert_int_eq(slot_attach_worker(&worker_memory[i]), 0);
		fakes[i].page = control_worker(&sidecar.control, i);
		fake_ready(&fakes[i]);
	}
	front_wait();
	client = client_connect(address, &(struct client_options){0});
	session_method = client_method(client, "/flink_bridge.FlinkBridge/Session");
	message_method = client_method(client, "/flink_worker.FlinkWorkerService/ProcessMessage");
}

/* The same with a front that lets nobody wait for long. */
static void stage_set_impatient(void)
{
	open_wait_ms = 50;
	stage_set();
}

static void stage_strike(void)
{
	int status;
	client_close(client);
	for (uint32_t generation = 1; generation <= FRONTS; generation++) {
		kill(front_pids[generation], SIGKILL);
		waitpid(front_pids[generation], &status, 0);
	}
	unlink(address + 5);
	rmdir(directory);
}

/* ---- What the fake worker does ---- */

/* Lets the client, which has no thread of its own, get on with what it has to send. */
static void client_pump(void)
{
	struct client_event event;
	client_poll(client, 0, &event);
	ck_assert_msg(event.kind == CLIENT_TIMEOUT || event.kind == CLIENT_ROOM, "unexpected event %d", event.kind);
}

/* Blocks until the front has something for the slot; then takes over channels that were opened. */
static void fake_wait(struct fake *fake)
{
	struct channels *channels = fake->memory->channels;
	struct pollfd bell = {.fd = fake->memory->worker_bell, .events = POLLIN};
	uint64_t count;
	atomic_store(&channels->worker_sleeps, 1);
	for (int turns = 0; ready_take(&channels->ready_for_worker) == 0; turns++) {
		ck_assert_msg(turns < 6000, "the front does not ring");
		if (poll(&bell, 1, 10) == 1)
			ck_assert_int_eq(read(bell.fd, &count, sizeof count), sizeof count);
		else
			client_pump();
	}
	atomic_store(&channels->worker_sleeps, 0);
}

/* Attaches to a channel that the front has opened; false when it is not open. */
static bool fake_attach(struct fake *fake, uint32_t channel)
{
	struct channels *channels = fake->memory->channels;
	uint64_t state = atomic_load(&channels->front[channel].state);
	if (channel_state_of(state) != CHANNEL_OPEN)
		return false;
	/* Not of a front before this one, nor for a worker before this one: what worker/serve.c looks at, too. */
	if (channel_epoch_of(state) == fake->stale[channel] ||
	    channels->front[channel].generation != atomic_load(&fake->page->ready_generation))
		return false;
	if (fake->epoch[channel] == channel_epoch_of(state))
		return true;
	fake->epoch[channel] = channel_epoch_of(state);
	uint64_t size = channel_ring_size(fake->memory, channel);
	ring_consumer_init(&fake->requests[channel], &channels->worker[channel].request,
			   &channels->front[channel].request, channel_request_data(fake->memory, channel), size);
	ring_producer_init(&fake->answers[channel], &channels->worker[channel].response,
			   &channels->front[channel].response, channel_response_data(fake->memory, channel), size);
	return true;
}

/* The next frame of a channel; waits for it. Released at once. */
static struct frame fake_take(struct fake *fake, uint32_t channel)
{
	struct frame header;
	const uint8_t *payload;
	while (!fake_attach(fake, channel) || ring_peek(&fake->requests[channel], &header, &payload) != RING_OK)
		fake_wait(fake);
	if (ring_release(&fake->requests[channel], ring_advance(&fake->requests[channel], &header))) {
		ready_set(&fake->memory->channels->ready_for_front, channel);
		doorbell_ring(sidecar.control.front_bell);
	}
	return header;
}

static void fake_ring(struct fake *fake, uint32_t channel)
{
	ready_set(&fake->memory->channels->ready_for_front, channel);
	if (atomic_load(&sidecar.control.front->sleeps))
		doorbell_ring(sidecar.control.front_bell);
}

/* Puts a frame into the response ring; false when it is full. */
static bool fake_answer(struct fake *fake, uint32_t channel, struct frame header, const void *payload, size_t size)
{
	uint8_t *to;
	if (ring_reserve(&fake->answers[channel], size, &to) != RING_OK)
		return false;
	memcpy(to, payload, size);
	header.epoch = fake->epoch[channel];
	ring_append(&fake->answers[channel], header, size);
	ring_publish(&fake->answers[channel]);
	fake_ring(fake, channel);
	return true;
}

/* An answer or end with a status and text. */
static void fake_status(struct fake *fake, uint32_t channel, enum frame_kind kind, uint64_t seq, uint32_t code,
			const char *text)
{
	uint8_t bytes[256];
	memcpy(bytes, &code, sizeof code);
	memcpy(bytes + sizeof code, text, strlen(text));
	ck_assert(fake_answer(fake, channel, (struct frame){.kind = (uint16_t)kind, .seq = seq}, bytes,
			      sizeof code + strlen(text)));
}

/* ---- What the client does ---- */

struct open_options {
	uint32_t segment, subtask;
	const char *allocation, *jvm;
	int64_t token;
};

static grpc_slice open_message(const struct open_options *options)
{
	FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;
	open.protocol_version = WIRE_PROTOCOL_VERSION;
	open.job = (char *)"job";
	open.pipeline = (char *)"test";
	open.topology_hash = descriptor.topology_hash;
	open.segment = options->segment;
	open.subtask = options->subtask;
	open.allocation_id = (char *)(options->allocation ? options->allocation : "a");
	open.attempt_id = (char *)"attempt";
	open.parallelism = 8;
	open.max_parallelism = 128;
	open.key_group_last = 127;
	open.jvm_uuid = (char *)(options->jvm ? options->jvm : "jvm");
	open.open_token = options->token;
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	message.seq = 1;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
	message.open = &open;
	grpc_slice slice = grpc_slice_malloc(flink_bridge__to_worker__get_packed_size(&message));
	flink_bridge__to_worker__pack(&message, GRPC_SLICE_START_PTR(slice));
	return slice;
}

static struct client_stream *session_open(const struct open_options *options)
{
	struct client_call_options call = {.wait_for_ready = true};
	struct client_stream *stream = client_stream_open(client, session_method, 64, &call, NULL);
	ck_assert_int_eq(client_stream_send(stream, open_message(options)), CLIENT_TAKEN);
	return stream;
}

static void stream_send(struct client_stream *stream, size_t size)
{
	grpc_slice slice = grpc_slice_malloc(size);
	memset(GRPC_SLICE_START_PTR(slice), 'm', size);
	ck_assert_int_eq(client_stream_send(stream, slice), CLIENT_TAKEN);
}

/* Polls until an event of that kind comes for that stream (or owner NULL for a call). */
static void expect(enum client_event_kind kind, struct client_stream *stream, struct client_event *event)
{
	uint64_t deadline = clock_ns() + UINT64_C(60000000000);
	while (client_poll(client, deadline, event) != kind || event->stream != stream)
		ck_assert_msg(event->kind != CLIENT_TIMEOUT && event->kind != CLIENT_ENDED, "unexpected event %d: %.*s",
			      event->kind, (int)event->text.size, (const char *)event->text.data);
}

static void expect_end(struct client_stream *stream, grpc_status_code code, const char *words)
{
	struct client_event event;
	char text[600];
	expect(CLIENT_ENDED, stream, &event);
	snprintf(text, sizeof text, "%.*s", (int)event.text.size, (const char *)event.text.data);
	ck_assert_msg(event.status == code, "status %s: %s", client_status_name(event.status), text);
	ck_assert_msg(strstr(text, words) != NULL, "\"%s\" is not in \"%s\"", words, text);
}

static void expect_reply(grpc_status_code code, const char *words)
{
	struct client_event event;
	char text[600];
	expect(CLIENT_REPLY, NULL, &event);
	snprintf(text, sizeof text, "%.*s", (int)event.text.size, (const char *)event.text.data);
	ck_assert_msg(event.status == code, "status %s: %s", client_status_name(event.status), text);
	ck_assert_msg(strstr(text, words) != NULL, "\"%s\" is not in \"%s\"", words, text);
}

static void call_segment(uint32_t segment, size_t payload, const char *slot)
{
	uint8_t *bytes = calloc(1, payload + 1);
	FlinkWorker__Message message = FLINK_WORKER__MESSAGE__INIT;
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
	message.payload = (ProtobufCBinaryData){payload, bytes};
	request.message = &message;
	request.segment_id = segment;
	grpc_slice slice = grpc_slice_malloc(flink_worker__process_message_request__get_packed_size(&request));
	flink_worker__process_message_request__pack(&request, GRPC_SLICE_START_PTR(slice));
	struct client_call_options options = {
	    .wait_for_ready = true, .metadata_key = slot ? "bridge-slot" : NULL, .metadata_value = slot};
	ck_assert(client_call(client, message_method, slice, &options, NULL));
	free(bytes);
}

/* A session that a fake has acknowledged with an answer. */
static struct client_stream *session_running(struct fake *fake, uint32_t channel, const struct open_options *options)
{
	struct client_event event;
	struct client_stream *stream = session_open(options);
	client_stream_receive(stream);
	client_poll(client, 0, &event);
	struct frame open;
	for (;;) { /* the client has one thread: let it send while the fake waits */
		client_poll(client, 0, &event);
		const uint8_t *payload;
		if (fake_attach(fake, channel) && ring_peek(&fake->requests[channel], &open, &payload) == RING_OK)
			break;
	}
	open = fake_take(fake, channel);
	ck_assert_int_eq(open.kind, FRAME_OPEN);
	ck_assert(
	    fake_answer(fake, channel, (struct frame){.kind = FRAME_ANSWER, .flags = FRAME_LAST, .seq = 1}, "ack", 3));
	expect(CLIENT_MESSAGE, stream, &event);
	return stream;
}

/* ---- Tests ---- */

START_TEST(unary_call_goes_to_the_slot_named_and_back)
{
	call_segment(1, 10, "1");
	struct client_event event;
	client_poll(client, clock_ns(), &event);
	struct frame frame = fake_take(&fakes[1], UNARY_CHANNEL);
	ck_assert_int_eq(frame.kind, FRAME_PROCESS_MESSAGE);
	ck_assert_uint_eq(frame.segment, 1);
	fake_answer(&fakes[1], UNARY_CHANNEL, (struct frame){.kind = FRAME_REPLY, .seq = frame.seq}, "reply", 5);
	expect(CLIENT_REPLY, NULL, &event);
	ck_assert_int_eq(event.status, GRPC_STATUS_OK);
	ck_assert_uint_eq(GRPC_SLICE_LENGTH(event.message), 5);
	ck_assert_mem_eq(GRPC_SLICE_START_PTR(event.message), "reply", 5);
}
END_TEST

START_TEST(unary_refusals_come_in_words)
{
	call_segment(2, 10, NULL);
	expect_reply(GRPC_STATUS_INVALID_ARGUMENT, "unknown segment 2");
	call_segment(0, 10, "2");
	expect_reply(GRPC_STATUS_INVALID_ARGUMENT, "slot from 0 to 1");
	call_segment(0, 10, "-1");
	expect_reply(GRPC_STATUS_INVALID_ARGUMENT, "slot from 0 to 1");
	call_segment(0, 10, "99999999999999999999999");
	expect_reply(GRPC_STATUS_INVALID_ARGUMENT, "slot from 0 to 1");
	call_segment(0, RING, NULL);
	expect_reply(GRPC_STATUS_RESOURCE_EXHAUSTED, "larger than max");
	call_segment(0, 10, "0");
	struct client_event event;
	client_poll(client, clock_ns(), &event);
	struct frame frame = fake_take(&fakes[0], UNARY_CHANNEL);
	fake_status(&fakes[0], UNARY_CHANNEL, FRAME_REFUSAL, frame.seq, GRPC_STATUS_INTERNAL, "step \"x\" failed");
	expect_reply(GRPC_STATUS_INTERNAL, "step \"x\" failed");
}
END_TEST

START_TEST(unary_calls_beyond_the_ring_wait_their_turn)
{
	enum { CALLS = 40, SIZE = RING / 8 };
	struct client_event event;
	unsigned replies = 0;
	for (int i = 0; i < CALLS; i++)
		call_segment(0, SIZE, "0");
	while (counter_read(&sidecar.control.front->counters.request_ring_full) == 0)
		ck_assert_int_eq(client_poll(client, 0, &event), CLIENT_TIMEOUT);
	for (int i = 0; i < CALLS; i++) {
		struct frame frame;
		const uint8_t *payload;
		while (!fake_attach(&fakes[0], 0) || ring_peek(&fakes[0].requests[0], &frame, &payload) != RING_OK)
			replies += client_poll(client, 0, &event) == CLIENT_REPLY;
		frame = fake_take(&fakes[0], UNARY_CHANNEL);
		ck_assert(fake_answer(&fakes[0], UNARY_CHANNEL, (struct frame){.kind = FRAME_REPLY, .seq = frame.seq},
				      "r", 1));
	}
	while (replies < CALLS)
		replies += client_poll(client, CLIENT_FOREVER, &event) == CLIENT_REPLY;
}
END_TEST

START_TEST(session_ends_as_its_worker_says)
{
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	fake_status(&fakes[0], 1, FRAME_END, 1, GRPC_STATUS_OK, "");
	client_stream_receive(stream);
	expect_end(stream, GRPC_STATUS_OK, "");
	stream = session_open(&(struct open_options){.segment = 7});
	client_stream_receive(stream);
	expect_end(stream, GRPC_STATUS_INVALID_ARGUMENT, "unknown segment 7");
}
END_TEST

/* Messages that are not answered are settled by the answer to a later one, and a worker's seq that was never sent settles nothing. */
START_TEST(one_answer_settles_the_messages_before_it)
{
	struct client_event event;
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	client_stream_receive(stream);
	for (int i = 0; i < 3; i++) {
		stream_send(stream, 100);
		client_poll(client, clock_ns(), &event);
		ck_assert_int_eq(fake_take(&fakes[0], 1).kind, FRAME_MESSAGE);
	}
	client_stream_half_close(stream);
	ck_assert(
	    fake_answer(&fakes[0], 1, (struct frame){.kind = FRAME_ANSWER, .flags = FRAME_LAST, .seq = 99}, "no", 2));
	expect(CLIENT_MESSAGE, stream, &event);
	ck_assert(
	    fake_answer(&fakes[0], 1, (struct frame){.kind = FRAME_ANSWER, .flags = FRAME_LAST, .seq = 4}, "all", 3));
	client_stream_receive(stream);
	expect(CLIENT_MESSAGE, stream, &event);
	client_stream_receive(stream);
	expect_end(stream, GRPC_STATUS_OK, "");
}
END_TEST

START_TEST(channel_memory_comes_back_when_the_worker_lets_go)
{
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	fake_status(&fakes[0], 1, FRAME_END, 1, GRPC_STATUS_OK, "");
	client_stream_receive(stream);
	expect_end(stream, GRPC_STATUS_OK, "");
	struct front_channel *own = &fakes[0].memory->channels->front[1];
	while (channel_state_of(atomic_load(&own->state)) != CHANNEL_CLOSING)
		fake_wait(&fakes[0]);
	channel_close(fakes[0].memory, 1, fakes[0].epoch[1]);
	fake_ring(&fakes[0], 1);
	struct client_event event;
	while (channel_state_of(atomic_load(&own->state)) != CHANNEL_FREE)
		client_poll(client, 0, &event);
	/* The next session can only get this slot's first channel if it is free again. */
	fakes[0].epoch[1] = 0;
	session_running(&fakes[0], 1, &(struct open_options){.segment = 1});
}
END_TEST

START_TEST(answers_lent_out_of_the_ring_arrive_whole)
{
	enum { ANSWERS = 200, SIZE = RING / 5 };
	struct client_event event;
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	uint8_t *bytes = malloc(SIZE);
	int sent = 0, received = 0;
	client_stream_receive(stream);
	while (received < ANSWERS) {
		memset(bytes, sent, SIZE);
		if (sent < ANSWERS &&
		    fake_answer(&fakes[0], 1, (struct frame){.kind = FRAME_ANSWER, .seq = 1}, bytes, SIZE))
			sent++;
		if (client_poll(client, 0, &event) != CLIENT_MESSAGE)
			continue;
		memset(bytes, received++, SIZE);
		ck_assert_uint_eq(GRPC_SLICE_LENGTH(event.message), SIZE);
		ck_assert_mem_eq(GRPC_SLICE_START_PTR(event.message), bytes, SIZE);
		client_stream_receive(stream);
	}
	free(bytes);
	ck_assert_uint_gt(counter_read(&sidecar.control.front->counters.slices_lent), 0);
}
END_TEST

START_TEST(client_that_never_reads_stops_its_own_worker_side_only)
{
	enum { SIZE = RING / 8 };
	struct client_event event;
	uint8_t bytes[SIZE] = {0};
	struct client_stream *deaf = session_running(&fakes[0], 1, &(struct open_options){0});
	struct client_stream *other = session_running(&fakes[0], 2, &(struct open_options){.segment = 1});
	(void)deaf;
	/* gRPC buffers some; then the ring is full and stays so, and the other session is served all the same. */
	for (int i = 0; i < 100; i++) {
		while (fake_answer(&fakes[0], 1, (struct frame){.kind = FRAME_ANSWER, .seq = 1}, bytes, SIZE))
			;
		client_stream_receive(other);
		ck_assert(fake_answer(&fakes[0], 2, (struct frame){.kind = FRAME_ANSWER, .seq = 1}, "x", 1));
		expect(CLIENT_MESSAGE, other, &event);
	}
}
END_TEST

START_TEST(lying_worker_costs_its_slot_alone)
{
	struct client_event event;
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	struct client_stream *other =
	    session_running(&fakes[1], 1, &(struct open_options){.allocation = "b", .subtask = 1});
	struct worker_channel *words = &fakes[0].memory->channels->worker[1];
	client_stream_receive(stream);
	atomic_store(&words->response.tail, UINT64_C(1) << (8 * (_i % 8)) | (_i < 8 ? 1 : UINT64_C(1) << 62));
	fake_ring(&fakes[0], 1);
	expect_end(stream, GRPC_STATUS_UNAVAILABLE, "slot 0");
	ck_assert_uint_eq(atomic_load(&sidecar.control.front->slot[0].damaged), 1);
	client_stream_receive(other);
	ck_assert(fake_answer(&fakes[1], 1, (struct frame){.kind = FRAME_ANSWER, .seq = 1}, "fine", 4));
	expect(CLIENT_MESSAGE, other, &event);
	fake_ready(&fakes[0]);
	session_running(&fakes[0], 1, &(struct open_options){.token = 1});
}
END_TEST

START_TEST(frames_that_cannot_be_are_the_slots_end)
{
	static const struct {
		uint16_t kind;
		size_t size;
	} wrong[] = {{FRAME_OPEN, 4}, {FRAME_REPLY, 4}, {FRAME_END, 3}};
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	client_stream_receive(stream);
	fake_answer(&fakes[0], 1, (struct frame){.kind = wrong[_i].kind, .seq = 1}, "zzzz", wrong[_i].size);
	expect_end(stream, GRPC_STATUS_UNAVAILABLE, "slot 0");
	ck_assert_uint_eq(atomic_load(&sidecar.control.front->slot[0].damaged), 1);
}
END_TEST

START_TEST(dead_worker_fails_what_was_with_it_and_the_next_one_serves)
{
	struct client_event event;
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	client_stream_receive(stream);
	call_segment(1, 10, "0");
	client_poll(client, clock_ns(), &event);
	fake_take(&fakes[0], UNARY_CHANNEL);
	fake_ready(&fakes[0]);
	bool ended = false, replied = false;
	while (!ended || !replied) {
		enum client_event_kind kind = client_poll(client, CLIENT_FOREVER, &event);
		ck_assert(kind == CLIENT_ENDED || kind == CLIENT_REPLY);
		ck_assert_int_eq(event.status, GRPC_STATUS_UNAVAILABLE);
		ended |= kind == CLIENT_ENDED;
		replied |= kind == CLIENT_REPLY;
	}
	call_segment(1, 10, "0");
	client_poll(client, clock_ns(), &event);
	struct frame frame = fake_take(&fakes[0], UNARY_CHANNEL);
	fake_answer(&fakes[0], UNARY_CHANNEL, (struct frame){.kind = FRAME_REPLY, .seq = frame.seq}, "r", 1);
	expect_reply(GRPC_STATUS_OK, "");
}
END_TEST

START_TEST(newer_attempt_fences_the_older)
{
	struct client_stream *first = session_running(&fakes[0], 1, &(struct open_options){.token = 5});
	client_stream_receive(first);
	struct client_stream *second = session_open(&(struct open_options){.token = 6});
	client_stream_receive(second);
	expect_end(first, GRPC_STATUS_FAILED_PRECONDITION, "fenced");
	struct client_stream *zombie = session_open(&(struct open_options){.token = 4});
	client_stream_receive(zombie);
	expect_end(zombie, GRPC_STATUS_FAILED_PRECONDITION, "fenced");
	struct client_stream *other = session_open(&(struct open_options){.jvm = "new", .subtask = 3, .token = 1});
	client_stream_receive(other);
	expect_end(second, GRPC_STATUS_FAILED_PRECONDITION, "taken over");
	struct client_stream *late = session_open(&(struct open_options){.token = 99});
	client_stream_receive(late);
	expect_end(late, GRPC_STATUS_FAILED_PRECONDITION, "taken over");
}
END_TEST

START_TEST(open_waits_for_a_slot_and_then_gives_up_in_words)
{
	session_running(&fakes[0], 1, &(struct open_options){.allocation = "a"});
	session_running(&fakes[1], 1, &(struct open_options){.allocation = "b", .subtask = 1});
	struct client_stream *third = session_open(&(struct open_options){.allocation = "c", .subtask = 2});
	client_stream_receive(third);
	expect_end(third, GRPC_STATUS_RESOURCE_EXHAUSTED, "no free slot");
	session_running(&fakes[1], 2, &(struct open_options){.allocation = "b", .subtask = 2});
}
END_TEST

START_TEST(slot_gets_a_fresh_worker_before_it_serves_another_allocation)
{
	struct client_event event;
	struct client_stream *streams[SLOTS];
	for (uint32_t i = 0; i < SLOTS; i++) {
		char allocation[2] = {(char)('a' + i), 0};
		streams[i] =
		    session_running(&fakes[i], 1, &(struct open_options){.allocation = allocation, .subtask = i});
	}
	client_stream_receive(streams[0]);
	fake_status(&fakes[0], 1, FRAME_END, 1, GRPC_STATUS_OK, "");
	expect_end(streams[0], GRPC_STATUS_OK, "");
	channel_close(fakes[0].memory, 1, fakes[0].epoch[1]);
	fake_ring(&fakes[0], 1);
	struct client_stream *stream = session_open(&(struct open_options){.allocation = "c", .subtask = 5});
	client_stream_receive(stream);
	client_poll(client, clock_ns(), &event);
	struct pollfd bell = {.fd = sidecar.control.supervisor_bell, .events = POLLIN};
	uint64_t count;
	while (atomic_load(&sidecar.control.front->slot[0].wanted_owner) != 2)
		if (poll(&bell, 1, 20) == 1)
			ck_assert_int_eq(read(bell.fd, &count, sizeof count), sizeof count);
		else
			client_poll(client, clock_ns(), &event);
	/* An heir takes over, with the memory as it is. */
	atomic_store(&sidecar.control.control->slot[0].owner, 2);
	doorbell_ring(sidecar.control.front_bell);
	ck_assert_int_eq(fake_take(&fakes[0], 1).kind, FRAME_OPEN);
	ck_assert_uint_eq(atomic_load(&sidecar.control.front->slot[0].used_owner), 2);
}
END_TEST

/* One owner after another is no concern of those who are served; and what they have of the slot is the new owner's use of it. */
START_TEST(takeover_is_not_noticed_by_sessions)
{
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	client_stream_receive(stream);
	atomic_store(&sidecar.control.control->slot[0].owner, 7);
	doorbell_ring(sidecar.control.front_bell);
	struct client_event event;
	while (atomic_load(&sidecar.control.front->slot[0].used_owner) != 7)
		client_poll(client, clock_ns() + 1000000, &event);
	fake_status(&fakes[0], 1, FRAME_END, 1, GRPC_STATUS_OK, "");
	expect_end(stream, GRPC_STATUS_OK, "");
}
END_TEST

START_TEST(killed_front_is_followed_by_one_that_serves)
{
	/* one that has had millions of sessions: the next does not begin with a number that a channel still has */
	atomic_store(&sidecar.control.front->last_epoch, 3 << 20);
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	uint32_t epoch = fakes[0].epoch[1];
	int status;
	kill(front_pid, SIGKILL);
	waitpid(front_pid, &status, 0);
	client_stream_receive(stream);
	expect_end(stream, GRPC_STATUS_UNAVAILABLE, "");
	front_start();
	for (uint32_t i = 0; i < SLOTS; i++) { /* what a worker does when the front generation changes */
		memset(fakes[i].epoch, 0, sizeof fakes[i].epoch);
		for (uint32_t j = 0; j < 4; j++)
			fakes[i].stale[j] = channel_epoch_of(atomic_load(&fakes[i].memory->channels->front[j].state));
		slot_reset_worker(fakes[i].memory);
		atomic_store(&fakes[i].page->front_generation, front_generation);
		doorbell_ring(sidecar.control.front_bell);
	}
	front_wait();
	session_running(&fakes[0], 1, &(struct open_options){.token = 1});
	ck_assert_uint_gt(epoch, 3 << 20);
	ck_assert_uint_gt(fakes[0].epoch[1], epoch);
}
END_TEST

START_TEST(stopping_front_finishes_what_is_in_flight)
{
	struct client_event event;
	int status;
	struct client_stream *stream = session_running(&fakes[0], 1, &(struct open_options){0});
	client_stream_receive(stream);
	stream_send(stream, 100);
	client_poll(client, clock_ns(), &event);
	ck_assert_int_eq(fake_take(&fakes[0], 1).kind, FRAME_MESSAGE);
	atomic_store(&sidecar.control.control->front_order, ORDER_STOP);
	doorbell_ring(sidecar.control.front_bell);
	while (atomic_load(&sidecar.control.front->state) != FRONT_DRAINING)
		client_poll(client, clock_ns(), &event);
	ck_assert(
	    fake_answer(&fakes[0], 1, (struct frame){.kind = FRAME_ANSWER, .flags = FRAME_LAST, .seq = 2}, "late", 4));
	expect(CLIENT_MESSAGE, stream, &event);
	client_stream_receive(stream);
	expect_end(stream, GRPC_STATUS_UNAVAILABLE, "stopping");
	ck_assert_int_eq(waitpid(front_pid, &status, 0), front_pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(unknown_methods_and_health)
{
	struct client_call_options options = {.wait_for_ready = true};
	client_call(client, client_method(client, "/no.Such/Method"), grpc_empty_slice(), &options, NULL);
	expect_reply(GRPC_STATUS_UNIMPLEMENTED, "unknown method");
	const void *check = client_method(client, "/grpc.health.v1.Health/Check");
	struct client_event event;
	client_call(client, check, grpc_empty_slice(), &options, NULL);
	expect(CLIENT_REPLY, NULL, &event);
	ck_assert_uint_eq(GRPC_SLICE_LENGTH(event.message), 2);
	ck_assert_mem_eq(GRPC_SLICE_START_PTR(event.message), "\x08\x01", 2);
	client_call(client, check, grpc_slice_from_copied_string("\x0a\x03zzz"), &options, NULL);
	expect_reply(GRPC_STATUS_NOT_FOUND, "unknown service");
}
END_TEST

/* Asks the reflection service one question and takes the answer's bytes. */
static struct view ask_reflection(const void *method, const char *question, size_t size, struct client_event *event)
{
	struct client_call_options call = {.wait_for_ready = true};
	struct client_stream *stream = client_stream_open(client, method, 4, &call, NULL);
	ck_assert_int_eq(client_stream_send(stream, grpc_slice_from_copied_buffer(question, size)), CLIENT_TAKEN);
	client_stream_receive(stream);
	expect(CLIENT_MESSAGE, stream, event);
	return (struct view){GRPC_SLICE_START_PTR(event->message), GRPC_SLICE_LENGTH(event->message)};
}

START_TEST(reflection_lists_services_and_hands_out_their_files)
{
	struct client_event event;
	const void *v1 = client_method(client, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
	const void *alpha = client_method(client, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
	struct view answer = ask_reflection(v1, "\x3a\x00", 2, &event);
	ck_assert_ptr_nonnull(memmem(answer.data, answer.size, "flink_worker.FlinkWorkerService", 31));
	ck_assert_ptr_nonnull(memmem(answer.data, answer.size, "flink_bridge.FlinkBridge", 24));
	ck_assert_ptr_nonnull(memmem(answer.data, answer.size, "grpc.health.v1.Health", 21));
	answer = ask_reflection(alpha,
				"\x22\x18"
				"flink_bridge.FlinkBridge",
				26, &event);
	ck_assert_ptr_nonnull(memmem(answer.data, answer.size, "TimerTick", 9));
	answer = ask_reflection(v1,
				"\x22\x11"
				"flink_bridge.Nope",
				19, &event);
	ck_assert_ptr_nonnull(memmem(answer.data, answer.size, "no file or symbol", 17));
	answer = ask_reflection(v1,
				"\x1a\x12"
				"flink_worker.proto",
				20, &event);
	ck_assert_ptr_nonnull(memmem(answer.data, answer.size, "WindowIdentifier", 16));
}
END_TEST

static Suite *front_suite(void)
{
	Suite *suite = suite_create("front");
	TCase *tests = tcase_create("front");
	tcase_add_checked_fixture(tests, stage_set, stage_strike);
	tcase_add_test(tests, unary_call_goes_to_the_slot_named_and_back);
	tcase_add_test(tests, unary_refusals_come_in_words);
	tcase_add_test(tests, unary_calls_beyond_the_ring_wait_their_turn);
	tcase_add_test(tests, session_ends_as_its_worker_says);
	tcase_add_test(tests, one_answer_settles_the_messages_before_it);
	tcase_add_test(tests, channel_memory_comes_back_when_the_worker_lets_go);
	tcase_add_test(tests, answers_lent_out_of_the_ring_arrive_whole);
	tcase_add_test(tests, client_that_never_reads_stops_its_own_worker_side_only);
	tcase_add_loop_test(tests, lying_worker_costs_its_slot_alone, 0, 16);
	tcase_add_loop_test(tests, frames_that_cannot_be_are_the_slots_end, 0, 3);
	tcase_add_test(tests, dead_worker_fails_what_was_with_it_and_the_next_one_serves);
	tcase_add_test(tests, newer_attempt_fences_the_older);
	tcase_add_test(tests, slot_gets_a_fresh_worker_before_it_serves_another_allocation);
	tcase_add_test(tests, takeover_is_not_noticed_by_sessions);
	tcase_add_test(tests, killed_front_is_followed_by_one_that_serves);
	tcase_add_test(tests, stopping_front_finishes_what_is_in_flight);
	tcase_add_test(tests, unknown_methods_and_health);
	tcase_add_test(tests, reflection_lists_services_and_hands_out_their_files);
	suite_add_tcase(suite, tests);
	tests = tcase_create("impatient front");
	tcase_add_checked_fixture(tests, stage_set_impatient, stage_strike);
	tcase_add_test(tests, open_waits_for_a_slot_and_then_gives_up_in_words);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(front_suite)
