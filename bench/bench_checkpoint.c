/*
 * What checkpoints cost a keyed segment with much state: how long a barrier holds it up when a hundredth of the state has changed since
 * the last one, how fast state is restored, and what a barrier each second takes from the throughput. Frames go through real rings to the
 * serving code and back in one process, which is also the front; the state is a gigabyte, or a tenth of the machine's free
 * memory where that is less. Prints `name<TAB>value<TAB>unit`, and writes build/bench/checkpoint.json.
 *
 *   bench_checkpoint [--state MB] [--state-dir DIR]      the arena is then a file, as with bridged --state-dir
 *
 * All times are those that this process was given; the client's and gRPC's part is not in them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "shared/keygroup.h"
#include "shared/log.h"
#include "tests/spec.h"
#include "worker/serve.h"

enum { RING = 4 << 20, MESSAGE = (1 << 20) - 64, TIME = 1000, GROUPS = 128, BATCH = 128, ROUNDS = 7, RESTORES = 5 };

/* A worker's serving code with a counting segment, and this process as its front. */
struct bench {
	struct spec spec;
	struct input input;
	struct descriptor descriptor;
	struct sidecar sidecar;
	struct slot_memory front;
	struct workspace workspace;
	struct serve *serve;
	uint32_t channel, epoch;
	uint64_t seq;
	struct ring_producer requests;
	struct ring_consumer answers;
	uint64_t spent_ns;    /* in the serving code */
	uint64_t answered;    /* seq of the last answer that was the last of its seq */
	uint64_t delta_bytes; /* of StateDelta bodies */
	uint64_t next_key;    /* to be updated */
	uint8_t value[512];   /* of one key's totals, as the segment writes it */
	size_t value_size;
	uint8_t manifest[1024]; /* as fields of an Open */
	size_t manifest_size;
};

static struct figure {
	const char *name, *unit;
	double value;
} figures[8];
static unsigned figure_count;
static int state_dir = -1; /* where the arena is a file */

static void report(const char *name, double value, const char *unit)
{
	printf("%s\t%.2f\t%s\n", name, value, unit);
	fflush(stdout);
	CHECK(figure_count < sizeof(figures) / sizeof(figures[0]));
	figures[figure_count++] = (struct figure){name, unit, value};
}

/* Writes all figures as JSON, as the other benches do. */
static void write_json(const char *path)
{
	FILE *file = fopen(path, "w");
	if (file == NULL)
		return; /* not started by make */
	fputs("{\n", file);
	for (unsigned i = 0; i < figure_count; i++)
		fprintf(file, "  \"%s\": {\"value\": %.3f, \"unit\": \"%s\"}%s\n", figures[i].name, figures[i].value,
			figures[i].unit, i + 1 < figure_count ? "," : "");
	fputs("}\n", file);
	fclose(file);
}

/* ---- The worker ---------------------------------------------------------------------------------------------------- */

static void bench_init(struct bench *bench, uint64_t arena, uint64_t delta_bytes)
{
	const struct slot_sizes sizes = {.channel_count = 4, .unary_ring = RING, .session_ring = RING, .arena = arena};
	struct slot_memory *memory = &bench->sidecar.slots[0];
	const struct segment *segment;
	struct failure failure;
	char why[128];

	memset(bench, 0, sizeof(*bench));
	spec_init(&bench->spec);
	bench->spec.segment.keyed = true;
	spec_add(&bench->spec, STEP_aggregate, "fields", "n=count\ntotal=sum(.v)\nmost=max(.v)", NULL);
	bench->spec.segment.inputs = &bench->input;
	bench->spec.segment.input_count = 1;
	bench->descriptor = (struct descriptor){
	    .pipeline = "bench", .segments = &bench->spec.segment, .segment_count = 1, .step_count = 1};
	bench->sidecar.descriptor = &bench->descriptor;
	bench->sidecar.config = (struct config){.slots = 1,
						.message_max = MESSAGE,
						.record_max = MESSAGE,
						.unary_message_max = MESSAGE,
						.delta_bytes = delta_bytes};
	CHECK(control_create(&bench->sidecar.control, 1, 1, 1) == 0);
	CHECK(slot_memory_create(memory, 0, &sizes, state_dir) == 0);
	bench->front = *memory;
	bench->front.channels_fd = dup(memory->channels_fd);
	bench->front.worker_bell = bench->front.arena_fd = bench->front.owner_fd = -1;
	bench->front.owner = NULL;
	CHECK(slot_attach_front(&bench->front) == 0 && slot_attach_worker(memory) == 0);
	workspace_init(&bench->workspace, &bench->sidecar, 0);
	if (arena_open(&bench->workspace.arena, memory->arena, memory->sizes.arena, 0, why) != ARENA_OK)
		fatalx("%s", why);
	bench->serve = serve_create(&bench->workspace, memory, 1, &segment, &failure);
	CHECK(bench->serve != NULL);
	serve_reset(bench->serve);
}

static void bench_deinit(struct bench *bench)
{
	serve_destroy(bench->serve);
	workspace_deinit(&bench->workspace);
	slot_memory_destroy(&bench->front);
	slot_memory_destroy(&bench->sidecar.slots[0]);
	control_destroy(&bench->sidecar.control);
	spec_deinit(&bench->spec);
}

/* Keeps the manifest of an OpenAck, as fields of an Open. */
static void manifest_keep(struct bench *bench, struct view ack)
{
	struct wire_writer writer = {.at = bench->manifest, .end = bench->manifest + sizeof(bench->manifest)};
	struct wire_declaration declaration;
	struct wire_reader reader;

	wire_reader_init(&reader, ack);
	while (wire_next_declaration(&reader, OPEN_ACK_STATE_MANIFEST, &declaration))
		wire_put_declaration(&writer, OPEN_STATE_MANIFEST, &declaration);
	CHECK(!writer.overflow);
	bench->manifest_size = (size_t)(writer.at - bench->manifest);
}

/* Keeps a value out of a StateDelta. */
static void value_keep(struct bench *bench, struct view delta)
{
	struct wire_reader reader;
	struct wire_entry entry;

	bench->delta_bytes += delta.size;
	wire_reader_init(&reader, delta);
	if (bench->value_size == 0 && wire_next_entry(&reader, &entry)) {
		CHECK(entry.value.size <= sizeof(bench->value));
		memcpy(bench->value, entry.value.data, entry.value.size);
		bench->value_size = entry.value.size;
	}
}

/* Takes all answers. */
static void drain(struct bench *bench)
{
	struct wire_to_worker message;
	const uint8_t *payload;
	struct frame frame;
	uint64_t cursor = 0;
	bool any = false;

	while (ring_peek(&bench->answers, &frame, &payload) == RING_OK) {
		CHECK(frame.kind == FRAME_ANSWER);
		CHECK(wire_parse_from_worker((struct view){payload, frame.length - sizeof(frame)}, &message) ==
		      WIRE_OK);
		if (message.kind == FROM_WORKER_ERROR)
			fatalx("an Error: %.*s", (int)message.body.size, (const char *)message.body.data);
		if (message.kind == FROM_WORKER_OPEN_ACK)
			manifest_keep(bench, message.body);
		if (message.kind == FROM_WORKER_STATE_DELTA)
			value_keep(bench, message.body);
		if (frame.flags == FRAME_LAST)
			bench->answered = frame.seq;
		cursor = ring_advance(&bench->answers, &frame);
		any = true;
	}
	if (any && ring_release(&bench->answers, cursor))
		ready_set(&bench->front.channels->ready_for_worker, bench->channel);
}

/* Serves until nothing is left to do. */
static void serve_all(struct bench *bench)
{
	for (;;) {
		uint64_t start = now_ns();
		enum serve_result result = serve_turn(bench->serve);
		bench->spent_ns += now_ns() - start;
		CHECK(result != SERVE_DAMAGED);
		drain(bench);
		if (result == SERVE_IDLE)
			return;
	}
}

/* Sends a message whose body is one field of the envelope. */
static void send(struct bench *bench, uint32_t kind, struct view body)
{
	struct frame header = {
	    .kind = kind == TO_WORKER_OPEN ? FRAME_OPEN : FRAME_MESSAGE, .seq = ++bench->seq, .epoch = bench->epoch};
	uint64_t size = body.size + 40;
	uint8_t *to;

	CHECK(ring_reserve(&bench->requests, size, &to) == RING_OK);
	struct wire_writer writer = {.at = to, .end = to + size};
	wire_put_varint_field(&writer, 1, header.seq);
	wire_put_varint_field(&writer, 2, TIME);
	wire_put_bytes_field(&writer, kind, body);
	CHECK(!writer.overflow);
	ring_append(&bench->requests, header, (uint64_t)(writer.at - to));
	ring_publish(&bench->requests);
	ready_set(&bench->front.channels->ready_for_worker, bench->channel);
}

/* Opens a session on a channel; with the manifest that was kept it restores so many keys. */
static void open_session(struct bench *bench, uint32_t channel, bool restores, uint64_t keys)
{
	struct front_channel *own = &bench->front.channels->front[channel];
	struct worker_channel *peer = &bench->front.channels->worker[channel];
	uint8_t body[2048];
	struct wire_writer writer = {.at = body, .end = body + sizeof(body)};

	bench->channel = channel;
	bench->epoch++;
	bench->seq = bench->answered = 0;
	CHECK(channel_allocate(&bench->front, channel) == 0);
	own->generation = 1;
	ring_producer_init(&bench->requests, &own->request, &peer->request,
			   channel_request_data(&bench->front, channel), RING);
	ring_consumer_init(&bench->answers, &own->response, &peer->response,
			   channel_response_data(&bench->front, channel), RING);
	channel_set_state(&bench->front, channel, bench->epoch, CHANNEL_OPEN);
	wire_put_varint_field(&writer, 1, 1);
	wire_put_varint_field(&writer, 9, 1);
	wire_put_varint_field(&writer, 10, GROUPS);
	wire_put_varint_field(&writer, 12, GROUPS - 1);
	if (restores) {
		wire_put_varint_field(&writer, 15, 1);
		memcpy(writer.at, bench->manifest, bench->manifest_size);
		writer.at += bench->manifest_size;
		wire_put_varint_field(&writer, 17, keys);
	}
	send(bench, TO_WORKER_OPEN, (struct view){body, (size_t)(writer.at - body)});
	serve_all(bench);
	CHECK(bench->answered == 1);
}

/* ---- What is sent -------------------------------------------------------------------------------------------------- */

struct key {
	char bytes[24];
	struct view view;
	int32_t hash;
};

static void key_make(struct key *key, uint64_t number)
{
	snprintf(key->bytes, sizeof(key->bytes), "customer-%010llu", (unsigned long long)number);
	key->view = view_of(key->bytes);
	key->hash = key_hash_of(key->view);
}

/* Sends a batch of records, one for each of so many keys from a number on. */
static void send_batch(struct bench *bench, uint64_t first, uint64_t keys)
{
	static uint8_t body[64 << 10];
	struct wire_writer writer = {.at = body, .end = body + sizeof(body)};

	for (unsigned i = 0; i < BATCH; i++) {
		struct key key;
		key_make(&key, (first + i) % keys);
		struct wire_record record = {.payload = view_of("{\"v\":12.5,\"kind\":\"order\",\"shop\":\"shop-17\"}"),
					     .key = key.view,
					     .keyed = true,
					     .key_hash = key.hash,
					     .key_group = key_group_of(key.hash, GROUPS)};
		wire_put_record(&writer, &record, WIRE_RECORD);
	}
	CHECK(!writer.overflow);
	send(bench, TO_WORKER_BATCH, (struct view){body, (size_t)(writer.at - body)});
}

/* Updates so many keys, each once, spread over all. */
static void update(struct bench *bench, uint64_t count, uint64_t keys)
{
	for (uint64_t done = 0; done < count; done += BATCH) {
		send_batch(bench, bench->next_key, keys);
		bench->next_key = (bench->next_key + BATCH) % keys;
		if (done / BATCH % 8 == 0)
			serve_all(bench);
	}
	serve_all(bench);
}

static void barrier(struct bench *bench)
{
	send(bench, TO_WORKER_BARRIER, (struct view){(const uint8_t *)"\x08\x01", 2});
	serve_all(bench);
	CHECK(bench->answered == bench->seq);
}

/* Restores so many keys; returns the bytes of the chunks. */
static uint64_t restore(struct bench *bench, uint64_t keys)
{
	uint8_t *body = malloc(MESSAGE), end[16];
	struct wire_writer last = {.at = end, .end = end + sizeof(end)};
	uint64_t bytes = 0;

	CHECK(body != NULL);
	for (uint64_t sent = 0; sent < keys;) {
		struct wire_writer writer = {.at = body, .end = body + MESSAGE - 100};
		while (sent < keys && writer.end - writer.at > 600) {
			struct key key;
			key_make(&key, sent++);
			struct wire_entry entry = {.key = key.view,
						   .value = {bench->value, bench->value_size},
						   .key_hash = key.hash,
						   .key_group = key_group_of(key.hash, GROUPS)};
			wire_put_entry(&writer, &entry);
		}
		uint64_t sum = wire_checksum((struct view){body, (size_t)(writer.at - body)});
		wire_put_fixed64_field(&writer, 2, sum);
		bytes += (size_t)(writer.at - body);
		send(bench, TO_WORKER_RESTORE_CHUNK, (struct view){body, (size_t)(writer.at - body)});
		serve_all(bench);
	}
	wire_put_varint_field(&last, 1, keys);
	send(bench, TO_WORKER_RESTORE_END, (struct view){end, (size_t)(last.at - end)});
	serve_all(bench);
	CHECK(bench->answered == bench->seq);
	free(body);
	return bytes;
}

/* ---- Measurements -------------------------------------------------------------------------------------------------- */

static int double_compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return left < right ? -1 : left > right;
}

/* A barrier when a hundredth of the keys has changed: the median of some. */
static void measure_pause(struct bench *bench, uint64_t keys)
{
	double pauses[ROUNDS], sent = 0;

	for (int i = 0; i < ROUNDS; i++) {
		update(bench, keys / 100, keys);
		uint64_t before = bench->delta_bytes;
		bench->spent_ns = 0;
		barrier(bench);
		pauses[i] = (double)bench->spent_ns / 1e6;
		sent = (double)(bench->delta_bytes - before) / 1e6;
	}
	qsort(pauses, ROUNDS, sizeof(pauses[0]), double_compare);
	report("barrier_pause", pauses[ROUNDS / 2], "ms");
	report("barrier_sends", sent, "MB");
}

/* Updates a second, over ten seconds' worth, with or without a barrier each second. */
static double throughput(struct bench *bench, uint64_t keys, bool barriers)
{
	enum { STEP = 20000, SECONDS = 3 };
	uint64_t updates = 0, second = 1;

	bench->spent_ns = 0;
	while (bench->spent_ns < SECONDS * UINT64_C(1000000000)) {
		update(bench, STEP, keys);
		updates += STEP;
		if (barriers && bench->spent_ns > second * 1000000000u) {
			barrier(bench);
			second++;
		}
	}
	return (double)updates / ((double)bench->spent_ns / 1e9);
}

/* What checkpoints take: against the same without any, where nothing is ever sent. */
static void measure_ratio(struct bench *bench, uint64_t keys)
{
	double with = 0, without = 0;

	for (int i = 0; i < 3; i++) {
		bench->sidecar.config.delta_bytes = 1 << 20;
		barrier(bench);
		double rate = throughput(bench, keys, true);
		with = rate > with ? rate : with;
		barrier(bench);
		bench->sidecar.config.delta_bytes = UINT64_MAX;
		rate = throughput(bench, keys, false);
		without = rate > without ? rate : without;
	}
	report("checkpoint_updates_per_s", with / 1e6, "M/s");
	report("checkpoint_throughput_ratio", with / without, "ratio");
}

/* Restores so much state some times, each time into a slot of its own, and leaves it in the last; how many keys it has. The first is told by
 * itself: under a hypervisor that takes back what lies idle, memory that is touched for the first time in a while has to come from there. */
static uint64_t measure_restore(struct bench *bench, uint64_t bytes)
{
	double rates[RESTORES];
	uint64_t keys = 0;

	for (unsigned i = 0; i < RESTORES; i++) {
		if (i > 0)
			bench_deinit(bench);
		bench_init(bench, arena_size_for(3 * bytes), 1 << 20);
		open_session(bench, 1, false, 0);
		send_batch(bench, 0, BATCH);
		serve_all(bench);
		barrier(bench);
		CHECK(bench->value_size > 0);
		keys = bytes / (19 + bench->value_size);
		bench->spent_ns = 0;
		open_session(bench, 2, true, keys);
		uint64_t sent = restore(bench, keys);
		rates[i] = (double)sent / 1e6 / ((double)bench->spent_ns / 1e9);
		if (i == 0) {
			report("restore_first_mb_per_s", rates[0], "MB/s");
			report("restored_bytes_per_entry", (double)sent / (double)keys, "bytes");
		}
	}
	qsort(rates, RESTORES, sizeof(rates[0]), double_compare);
	report("restore_mb_per_s", rates[RESTORES / 2], "MB/s");
	return keys;
}

/* Bytes of state to measure with. */
static uint64_t state_bytes_wanted(void)
{
	uint64_t free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t wanted = UINT64_C(1) << 30;
	return free_bytes / 10 < wanted ? free_bytes / 10 : wanted;
}

int main(int argc, char **argv)
{
	static struct bench bench;
	uint64_t bytes = state_bytes_wanted();

	log_init("bench", LOG_WARN);
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--state-dir") == 0)
			state_dir = open(argv[i + 1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		else if (strcmp(argv[i], "--state") == 0)
			bytes = strtoull(argv[i + 1], NULL, 10) << 20;
		else
			fatalx("unknown option %s", argv[i]);
	}
	uint64_t keys = measure_restore(&bench, bytes);
	measure_pause(&bench, keys);
	measure_ratio(&bench, keys);
	bench_deinit(&bench);
	write_json("build/bench/checkpoint.json");
	return 0;
}
