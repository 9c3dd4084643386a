/*
 * What the worker's own code costs per record: frames go through real rings to the serving code and back in one process, with
 * nobody else to wait for. Prints `name<TAB>value<TAB>unit`.
 */
#include <flink_bridge.pb-c.h>
#include <flink_worker.pb-c.h>
#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/bench.h"
#include "shared/keygroup.h"
#include "tests/spec.h"
#include "worker/serve.h"

enum { RECORD_BYTES = 100, ROUNDS = 5, RATIO_ROUNDS = 301, RING = 4 << 20, TIME = 1000, EPOCH = 1, GROUPS = 128 };

/* A worker's serving code with one segment, and this process as its front with one channel. */
struct bench {
	struct spec spec;
	struct input input;
	struct descriptor descriptor;
	struct sidecar sidecar;
	struct slot_memory front;
	struct workspace workspace;
	struct serve *serve;
	uint32_t channel;
	uint64_t seq; /* of the last message sent */
	struct ring_producer requests;
	struct ring_consumer answers;
};

/* One measurement: how a batch looks and how many records to send in all. */
struct measure {
	const char *name;
	enum step_kind kind;
	const char *program; /* or library, beside this program; NULL: none */
	const char *payload; /* NULL: RECORD_BYTES of text */
	uint32_t batch;      /* records */
	uint32_t records;
	bool unary;
	bool keyed;
};

static const struct measure measures[] = {
    {"worker_identity_1", STEP_passthrough, NULL, NULL, 1, 400000, false, false},
    {"worker_identity_128", STEP_passthrough, NULL, NULL, 128, 4000000, false, false},
    {"worker_keyed_128", STEP_passthrough, NULL, NULL, 128, 4000000, false, true},
    {"worker_identity_1024", STEP_passthrough, NULL, NULL, 1024, 4000000, false, false},
    {"worker_native_128", STEP_native, "steps/identity_step.so", NULL, 128, 4000000, false, false},
    {"worker_unary_identity", STEP_passthrough, NULL, NULL, 1, 400000, true, false},
    {"worker_jq_map_128", STEP_map, ".value = .value * 2",
     "{\"user\":\"user-0123456789\",\"value\":12345,\"kind\":\"click\",\"page\":\"/some/page/of/this/site\",\"n\":1}",
     128, 100000, false, false},
};

/* The bytes of one request. */
static size_t request_of(const struct measure *measure, uint8_t *bytes)
{
	static char text[RECORD_BYTES];
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
	FlinkWorker__Message unary = FLINK_WORKER__MESSAGE__INIT;
	FlinkBridge__Record record = FLINK_BRIDGE__RECORD__INIT, **records = calloc(measure->batch, sizeof(*records));
	size_t size;

	memset(text, 'x', sizeof(text));
	record.payload.data = (uint8_t *)(measure->payload != NULL ? measure->payload : text);
	record.payload.len = measure->payload != NULL ? strlen(measure->payload) : sizeof(text);
	record.maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
	record.timestamp = 1790000000000;
	if (measure->keyed) {
		record.maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
		record.key = (ProtobufCBinaryData){3, (uint8_t *)"key"};
		record.key_hash = key_hash_of(view_of("key"));
		record.key_group = key_group_of(record.key_hash, GROUPS);
	}
	for (uint32_t i = 0; i < measure->batch; i++)
		records[i] = &record;
	batch.n_records = measure->batch;
	batch.records = records;
	message.seq = UINT64_C(1) << 20; /* room for the longest that comes: patched for each message */
	message.processing_time_ms = TIME;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	unary.payload = record.payload;
	unary.timestamp = record.timestamp;
	request.message = &unary;
	size = measure->unary ? flink_worker__process_message_request__pack(&request, bytes)
			      : flink_bridge__to_worker__pack(&message, bytes);
	free(records);
	return size;
}

/* Writes a seq over the three bytes that request_of left for it behind its tag. */
static void patch_seq(uint8_t *bytes, uint64_t seq)
{
	bytes[1] = (uint8_t)(seq & 0x7f) | 0x80;
	bytes[2] = (uint8_t)(seq >> 7 & 0x7f) | 0x80;
	bytes[3] = (uint8_t)(seq >> 14 & 0x7f);
}

/* Puts a frame into the request ring; false when it has no room. */
static bool push(struct bench *bench, struct frame header, const uint8_t *bytes, size_t size)
{
	uint8_t *to;

	if (ring_reserve(&bench->requests, size, &to) != RING_OK)
		return false;
	memcpy(to, bytes, size);
	header.epoch = EPOCH;
	ring_append(&bench->requests, header, size);
	ring_publish(&bench->requests);
	ready_set(&bench->front.channels->ready_for_worker, bench->channel);
	return true;
}

/* Takes all answers away without looking into them. Returns whether there were any. */
static bool drain(struct bench *bench)
{
	const uint8_t *payload;
	struct frame frame;
	uint64_t cursor = 0;
	bool any = false;

	while (ring_peek(&bench->answers, &frame, &payload) == RING_OK) {
		CHECK(frame.kind == FRAME_ANSWER || frame.kind == FRAME_REPLY);
		cursor = ring_advance(&bench->answers, &frame);
		any = true;
	}
	if (any && ring_release(&bench->answers, cursor)) /* the worker waits for the room */
		ready_set(&bench->front.channels->ready_for_worker, bench->channel);
	return any;
}

/* Makes the memories and opens the chain. */
static void bench_init(struct bench *bench, const struct measure *measure)
{
	const struct slot_sizes sizes = {
	    .channel_count = 2, .unary_ring = RING, .session_ring = RING, .arena = 8 << 20};
	struct slot_memory *memory = &bench->sidecar.slots[0];
	const struct segment *segment;
	struct failure failure;

	memset(bench, 0, sizeof(*bench));
	spec_init(&bench->spec);
	spec_add(&bench->spec, measure->kind,
		 measure->program == NULL       ? NULL
		 : measure->kind == STEP_native ? "library"
						: "program",
		 measure->program, NULL);
	bench->spec.segment.inputs = &bench->input;
	bench->spec.segment.input_count = 1;
	bench->spec.segment.keyed = measure->keyed;
	bench->descriptor = (struct descriptor){
	    .pipeline = "bench", .segments = &bench->spec.segment, .segment_count = 1, .step_count = 1};
	bench->sidecar.descriptor = &bench->descriptor;
	bench->sidecar.config =
	    (struct config){.slots = 1, .message_max = 1 << 20, .record_max = 1 << 20, .unary_message_max = 1 << 20};
	CHECK(control_create(&bench->sidecar.control, 1, 1, 1) == 0);
	CHECK(slot_memory_create(memory, 0, &sizes, -1) == 0);
	bench->front = *memory;
	bench->front.channels_fd = dup(memory->channels_fd);
	bench->front.worker_bell = bench->front.arena_fd = bench->front.owner_fd = -1;
	bench->front.owner = NULL;
	CHECK(slot_attach_front(&bench->front) == 0 && slot_attach_worker(memory) == 0);
	workspace_init(&bench->workspace, &bench->sidecar, 0);
	char why[128];
	if (arena_open(&bench->workspace.arena, memory->arena, memory->sizes.arena, 0, why) != ARENA_OK)
		fatalx("%s", why);
	bench->serve = serve_create(&bench->workspace, memory, 1, &segment, &failure);
	CHECK(bench->serve != NULL);
	serve_reset(bench->serve);
}

/* Frees all. */
static void bench_deinit(struct bench *bench)
{
	serve_destroy(bench->serve);
	workspace_deinit(&bench->workspace);
	slot_memory_destroy(&bench->front);
	slot_memory_destroy(&bench->sidecar.slots[0]);
	control_destroy(&bench->sidecar.control);
	spec_deinit(&bench->spec);
}

/* Opens the channel, and a session on it unless it is the unary one. */
static void bench_open(struct bench *bench, uint32_t channel)
{
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;
	uint8_t bytes[64];
	struct front_channel *own = &bench->front.channels->front[channel];
	struct worker_channel *peer = &bench->front.channels->worker[channel];

	bench->channel = channel;
	CHECK(channel_allocate(&bench->front, channel) == 0);
	own->generation = 1;
	ring_producer_init(&bench->requests, &own->request, &peer->request,
			   channel_request_data(&bench->front, channel), RING);
	ring_consumer_init(&bench->answers, &own->response, &peer->response,
			   channel_response_data(&bench->front, channel), RING);
	channel_set_state(&bench->front, channel, EPOCH, CHANNEL_OPEN);
	open.protocol_version = WIRE_PROTOCOL_VERSION;
	open.max_parallelism = GROUPS;
	open.key_group_last = GROUPS - 1;
	message.seq = 1;
	message.processing_time_ms = TIME;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
	message.open = &open;
	if (channel != UNARY_CHANNEL)
		CHECK(push(bench, (struct frame){.kind = FRAME_OPEN, .seq = ++bench->seq}, bytes,
			   flink_bridge__to_worker__pack(&message, bytes)));
	while (serve_turn(bench->serve) != SERVE_IDLE)
		;
	CHECK(channel == UNARY_CHANNEL || drain(bench));
}

/* Time in the serving code for all records of a measurement, in ns. */
static uint64_t run(struct bench *bench, const struct measure *measure, uint8_t *bytes, size_t size)
{
	uint64_t spent = 0;

	for (uint32_t sent = 0; sent < measure->records;) {
		struct frame header = {.kind = measure->unary ? FRAME_PROCESS_MESSAGE : FRAME_MESSAGE};
		uint64_t start;

		for (int i = 0; i < 8 && sent < measure->records; i++, sent += measure->batch) {
			header.seq = bench->seq + 1;
			if (!measure->unary)
				patch_seq(bytes, header.seq);
			if (!push(bench, header, bytes, size))
				break;
			bench->seq++;
		}
		start = now_ns();
		while (serve_turn(bench->serve) != SERVE_IDLE)
			;
		spent += now_ns() - start;
		CHECK(drain(bench));
	}
	return spent;
}

/* Runs one measurement and prints its best round. */
static void measure_one(const struct measure *measure)
{
	static struct bench bench;
	uint8_t *bytes = malloc(1 << 20);
	uint64_t best = UINT64_MAX;
	size_t size;

	CHECK(bytes != NULL);
	bench_init(&bench, measure);
	bench_open(&bench, measure->unary ? UNARY_CHANNEL : 1);
	size = request_of(measure, bytes);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t spent = run(&bench, measure, bytes, size);

		best = spent < best ? spent : best;
	}
	printf("%s\t%.1f\tns/record\n", measure->name, (double)best / measure->records);
	bench_deinit(&bench);
	free(bytes);
}

/* For qsort. */
static int by_size(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

/* Measures two in turns, round by round, so that what else the machine does hits both, and prints the speed of the first over that of
 * the second: the median of all rounds. */
static void measure_ratio(const char *name, const struct measure pair[2])
{
	static struct bench benches[2];
	static uint8_t bytes[2][1 << 20];
	static double ratios[RATIO_ROUNDS];
	size_t size[2];

	for (int i = 0; i < 2; i++) {
		bench_init(&benches[i], &pair[i]);
		bench_open(&benches[i], 1);
		size[i] = request_of(&pair[i], bytes[i]);
	}
	for (int round = 0; round < RATIO_ROUNDS; round++) {
		uint64_t first = run(&benches[0], &pair[0], bytes[0], size[0]);
		uint64_t second = run(&benches[1], &pair[1], bytes[1], size[1]);

		ratios[round] = (double)second / (double)first;
	}
	qsort(ratios, RATIO_ROUNDS, sizeof(ratios[0]), by_size);
	printf("%s\t%.3f\tratio\n", name, ratios[RATIO_ROUNDS / 2]);
	fflush(stdout);
	for (int i = 0; i < 2; i++)
		bench_deinit(&benches[i]);
}

/* Goes where this program lies, so that libraries beside it are found. */
static void go_home(void)
{
	char program[4096] = "";

	CHECK(readlink("/proc/self/exe", program, sizeof(program) - 1) > 0);
	CHECK(chdir(dirname(program)) == 0);
}

int main(void)
{
	static const struct measure native_identity[2] = {
	    {"native", STEP_native, "steps/identity_step.so", NULL, 1024, 24576, false, false},
	    {"passthrough", STEP_passthrough, NULL, NULL, 1024, 24576, false, false}};

	go_home();
	measure_ratio("native_ratio_identity", native_identity);
	for (size_t i = 0; i < sizeof(measures) / sizeof(measures[0]); i++)
		measure_one(&measures[i]);
	return 0;
}
