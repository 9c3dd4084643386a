/*
 * What a session goes through in a whole sidecar, on the clock on the wall: client, front, rings and worker, each a process of its own.
 *
 * First how long a slot stands still when its worker dies or gets new code, with little state and with much: one session, a keyed
 * aggregate, and batches of random keys in flight all the while.
 *
 *   takeover_first_commit   from SIGKILL of the owner to the first commit of its heir, in ms
 *   takeover_pause          the longest time between two answers around it, as the client has it
 *   reload_pause            the same around a reload
 *   quiet_pause             the same while nothing happens, for as long: what the machine does by itself
 *
 * Then what checkpoints cost (the same figures as bench_checkpoint has of the serving code alone, in CPU time):
 *
 *   whole_restore_mb_per_s             from the first RestoreChunk to the RestoreAck, by the bytes of the chunks
 *   whole_barrier_pause                from sending Barrier to the BarrierAck, a hundredth of the keys changed since the last one
 *   whole_checkpoint_throughput_ratio  records a second with a barrier each second, over those of a sidecar that never sends state; the two
 *                                      take turns
 *
 * Medians over rounds, for each size of state and for the worse of the sizes. Lines are `name<TAB>value<TAB>unit`; the same goes to
 * build/bench/takeover.json. A size that does not fit into a third of the memory that is free is made smaller, and the name says so.
 *
 *   bench_takeover [--bin DIR] [--rounds N] [--state-dir DIR] [--only takeovers|checkpoints] [--checkpoint-state MB] [--state MB]...
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jv.h>

#include "bench/bench.h"
#include "cli/client.h"
#include "descriptor/descriptor.h"
#include "descriptor/diagnostics.h"
#include "proto/flink_bridge.pb-c.h"
#include "shared/control.h"
#include "shared/keygroup.h"
#include "shared/log.h"
#include "shared/wire.h"

enum {
	KEY_BYTES = 240,
	KEY_TAKES = 340, /* bytes of state, about */
	FILL_RECORDS = 1024,
	LOAD_RECORDS = 128,
	FLIGHT = 8,
	ROUNDS_MAX = 101,
	SIZES_MAX = 8,
	ANSWER_MAX = 64 << 10,
	CHECKPOINT_KEY_BYTES = 40, /* so that an entry travels in some 100 bytes */
	CHUNK_BYTES = 256 << 10,
	TURN_S = 3, /* of each of the two sidecars that take turns */
	TURN_RECORDS = 16 * LOAD_RECORDS,
};
#define PATIENCE_NS UINT64_C(60000000000)
#define QUIET_NS UINT64_C(100000000)
/* After the state was made: by then heirs have it in huge pages, as far as there are any. */
#define SETTLE_NS UINT64_C(6000000000)

static const char pipeline[] =
    "name: takeover\n"
    "sources:\n"
    "  in: { kind: generator }\n"
    "steps:\n"
    "  - { name: by_key, kind: key_by, key: .key }\n"
    "  - { name: totals, kind: aggregate, fields: { n: count }, emit: processing_time, every: 24h, reset: false }\n"
    "sinks:\n"
    "  out: { kind: discard, from: totals }\n";
enum { SEGMENT = 1 }; /* totals */

/* What happens while the load goes on, in a thread of its own. */
struct event {
	bool (*happen)(struct event *event); /* false: it cannot be had again */
	double value;                        /* what it found, in ms */
	uint64_t chance;
	_Atomic uint64_t began_ns; /* 0: not yet */
	_Atomic uint32_t over;
};

static char directory[] = "/tmp/bridge-bench-XXXXXX";
static char stats_path[64];
static const char *bin = "build/release";
static unsigned rounds = 15;
static char topology[33];
static FILE *json;
static pid_t sidecar;
static struct client *client;
static struct client_stream *stream;
static uint64_t sent, answered; /* seq */
static uint64_t keys;           /* that there are */
static uint64_t chance = 1;
static size_t key_bytes = KEY_BYTES;
static const char *state_dir;             /* NULL: none */
static FlinkBridge__FromWorker *open_ack; /* of the last session */
static uint8_t sample[1024];              /* the value of one key, as it came in a StateDelta */
static size_t sample_size;
static uint32_t sample_state;

/* Prints one figure, for people and for machines. */
static void report(const char *name, double value, const char *unit)
{
	printf("%s\t%.4g\t%s\n", name, value, unit);
	fflush(stdout);
	if (json == NULL)
		return; /* not started by make */
	fprintf(json, "%s\n  {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"}", ftell(json) > 1 ? "," : "", name,
		value, unit);
}

/* The next number of a fixed sequence. */
static uint64_t draw(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

/* ---- The sidecar ---- */

/* Runs a program to its end; fatal when it fails. */
static void run(char *const argv[])
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		execv(argv[0], argv);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	if (status != 0)
		fatalx("%s failed", argv[0]);
}

/* Compiles the pipeline and learns its topology. */
static void compile(void)
{
	char source[128], descriptor[128], program[256];
	snprintf(source, sizeof source, "%s/pipeline.yaml", directory);
	snprintf(descriptor, sizeof descriptor, "%s/descriptor.yaml", directory);
	snprintf(program, sizeof program, "%s/bridgectl", bin);
	FILE *file = fopen(source, "w");
	if (!file || fputs(pipeline, file) < 0 || fclose(file) != 0)
		fatal("cannot write %s", source);
	run((char *[]){program, "compile", source, "-o", descriptor, NULL});
	struct diagnostics diagnostics;
	diagnostics_init(&diagnostics);
	struct descriptor *read = descriptor_load(descriptor, &diagnostics);
	if (!read)
		fatalx("cannot read %s", descriptor);
	memcpy(topology, read->topology_hash, sizeof topology);
	descriptor_free(read);
	diagnostics_free(&diagnostics);
}

/* Starts a sidecar with room for so much state, and connects to it. `name` is its sockets'; it sends changed state early from so many
 * bytes on. */
static void sidecar_start(uint64_t state_bytes, const char *name, const char *delta_bytes)
{
	char program[256], listen[160], descriptor[160], memory[32], files[512];
	snprintf(program, sizeof program, "%s/bridged", bin);
	snprintf(listen, sizeof listen, "unix:%s/%s", directory, name);
	snprintf(descriptor, sizeof descriptor, "%s/descriptor.yaml", directory);
	snprintf(stats_path, sizeof stats_path, "%s/%s.stats", directory, name);
	if (state_dir) {
		snprintf(files, sizeof files, "%s/%s", state_dir, name);
		if (mkdir(files, 0700) != 0 && errno != EEXIST)
			fatal("%s", files);
	}
	snprintf(memory, sizeof memory, "%" PRIu64, state_bytes + state_bytes / 4 + (UINT64_C(64) << 20));
	sidecar = fork();
	if (sidecar == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execl(program, program, "--descriptor", descriptor, "--listen", listen, "--stats", stats_path,
		      "--state-memory", memory, "--restart-delay", "1ms", "--log-level",
		      getenv("BENCH_LOG") ? "debug" : "warn", "--delta-bytes", delta_bytes,
		      state_dir ? "--state-dir" : NULL, files, NULL);
		_exit(127);
	}
	client = client_connect(listen, &(struct client_options){.message_max = 8 << 20});
}

static void sidecar_stop(void)
{
	client_close(client);
	kill(sidecar, SIGTERM);
	waitpid(sidecar, NULL, 0);
}

/* What the stats socket answers; invalid when nobody does. */
static jv ask(const char *command)
{
	static _Thread_local char answer[ANSWER_MAX];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t size = 0;
	ssize_t got = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", stats_path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		fatal("the stats socket does not answer");
	dprintf(fd, "%s json\n", command);
	while (size < sizeof answer - 1 && memchr(answer, '\n', size) == NULL &&
	       (got = read(fd, answer + size, sizeof answer - 1 - size)) > 0)
		size += (size_t)got;
	close(fd);
	return jv_parse_sized(answer, (int)size);
}

/* A number, and a text, of an object. */
static uint64_t number_of(jv object, const char *key)
{
	jv value = jv_object_get(jv_copy(object), jv_string(key));
	double number = jv_get_kind(value) == JV_KIND_NUMBER ? jv_number_value(value) : 0;
	jv_free(value);
	return (uint64_t)number;
}

static bool text_is(jv object, const char *key, const char *text)
{
	jv value = jv_object_get(jv_copy(object), jv_string(key));
	bool is = jv_get_kind(value) == JV_KIND_STRING && strcmp(jv_string_value(value), text) == 0;
	jv_free(value);
	return is;
}

/* Bytes of state that the slot has taken. */
static uint64_t state_bytes_now(void)
{
	jv slots = jv_object_get(ask("slots"), jv_string("slots"));
	jv slot = jv_array_get(slots, 0);
	uint64_t bytes = number_of(slot, "state_memory_bytes");
	jv_free(slot);
	return bytes;
}

/* One look at the slot's processes. */
struct look {
	pid_t owner;           /* that is ready; 0: none */
	uint64_t took_over_ns; /* when it did */
	uint64_t ready_ns, first_commit_ns;
	pid_t heir; /* that waits; 0: none */
};

static struct look look_at_lives(void)
{
	struct look look = {0};
	jv lives = jv_object_get(ask("lives"), jv_string("lives"));
	for (int i = 0; i < jv_array_length(jv_copy(lives)); i++) {
		jv life = jv_array_get(jv_copy(lives), i);
		if (text_is(life, "state", "waiting"))
			look.heir = (pid_t)number_of(life, "pid");
		if (text_is(life, "state", "ready") && number_of(life, "took_over_at_ns") >= look.took_over_ns) {
			look.owner = (pid_t)number_of(life, "pid");
			look.took_over_ns = number_of(life, "took_over_at_ns");
			look.ready_ns = number_of(life, "ready_at_ns");
			look.first_commit_ns = number_of(life, "first_commit_at_ns");
		}
		jv_free(life);
	}
	jv_free(lives);
	return look;
}

/* ---- The session ---- */

/* Sends bytes, once the stream has room for them. */
static void send_slice(grpc_slice slice)
{
	struct client_event event;
	enum client_result result;
	while ((result = client_stream_send(stream, slice)) == CLIENT_FULL)
		while (client_poll(client, CLIENT_FOREVER, &event) != CLIENT_ROOM)
			if (event.kind == CLIENT_ENDED)
				fatalx("the stream ended: %.*s", (int)event.text.size, (const char *)event.text.data);
	if (result != CLIENT_TAKEN)
		fatalx("the stream takes no more messages");
}

/* Packs and sends a message. */
static void send_message(FlinkBridge__ToWorker *message)
{
	message->seq = ++sent;
	message->processing_time_ms = 1700000000000;
	grpc_slice slice = grpc_slice_malloc(flink_bridge__to_worker__get_packed_size(message));
	flink_bridge__to_worker__pack(message, GRPC_SLICE_START_PTR(slice));
	send_slice(slice);
}

/* A key: the number's digits, and what fills it up. */
static void key_write(uint8_t key[KEY_BYTES], uint64_t number)
{
	memset(key, 'k', key_bytes);
	for (int i = 0; i < 16; i++)
		key[i] = (uint8_t)('a' + (number >> (4 * i) & 15));
}

/* Sends records of random keys, or of the next new ones. */
static void send_batch(uint32_t count, bool fresh)
{
	static uint8_t bytes[FILL_RECORDS][KEY_BYTES];
	static FlinkBridge__Record records[FILL_RECORDS], *list[FILL_RECORDS];
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t key = fresh ? keys++ : draw(&chance) % keys;
		key_write(bytes[i], key);
		flink_bridge__record__init(&records[i]);
		records[i].maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
		records[i].key = (ProtobufCBinaryData){key_bytes, bytes[i]};
		records[i].key_hash = key_hash_of((struct view){bytes[i], key_bytes});
		records[i].key_group = key_group_of(records[i].key_hash, 128);
		records[i].maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
		records[i].timestamp = 1700000000000;
		list[i] = &records[i];
	}
	batch.records = list;
	batch.n_records = count;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	send_message(&message);
}

/* Keeps what an Open that restores needs: the manifest of the states, and a value as it travels. */
static void keep(struct view message, uint32_t kind)
{
	FlinkBridge__FromWorker *read = flink_bridge__from_worker__unpack(NULL, message.size, message.data);
	if (!read)
		fatalx("an answer cannot be read");
	if (kind == FROM_WORKER_OPEN_ACK) {
		if (open_ack)
			flink_bridge__from_worker__free_unpacked(open_ack, NULL);
		open_ack = read;
		return;
	}
	for (size_t i = 0; i < read->state_delta->n_entries && sample_size == 0; i++) {
		const FlinkBridge__StateEntry *entry = read->state_delta->entries[i];
		if (entry->sub_key.len > 0 || entry->value.len == 0 || entry->value.len > sizeof sample)
			continue; /* a timer */
		memcpy(sample, entry->value.data, entry->value.len);
		sample_size = entry->value.len;
		sample_state = entry->state;
	}
	flink_bridge__from_worker__free_unpacked(read, NULL);
}

/* Waits for the next answer; state that the client is to keep is forgotten. */
static void await_answer(void)
{
	struct client_event event;
	struct wire_to_worker envelope;
	do {
		client_stream_receive(stream);
		while (client_poll(client, CLIENT_FOREVER, &event) != CLIENT_MESSAGE)
			if (event.kind == CLIENT_ENDED)
				fatalx("the stream ended: %.*s", (int)event.text.size, (const char *)event.text.data);
		struct view message = {GRPC_SLICE_START_PTR(event.message), GRPC_SLICE_LENGTH(event.message)};
		if (wire_parse_from_worker(message, &envelope) != WIRE_OK || envelope.seq != answered + 1)
			fatalx("not the answer that was due");
		if (envelope.kind == FROM_WORKER_OPEN_ACK ||
		    (envelope.kind == FROM_WORKER_STATE_DELTA && sample_size == 0))
			keep(message, envelope.kind);
		if (envelope.kind == FROM_WORKER_ERROR)
			fatalx("the session failed");
	} while (envelope.kind == FROM_WORKER_STATE_DELTA);
	answered++;
}

/* Opens a session; one that restores so many entries of the manifest that was acknowledged last, if any. */
static void session_open(uint64_t restored)
{
	static int64_t token;
	struct client_call_options options = {.wait_for_ready = true, .deadline_ns = clock_ns() + 60 * PATIENCE_NS};
	FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	open.protocol_version = WIRE_PROTOCOL_VERSION;
	open.job = (char *)"bench";
	open.pipeline = (char *)"takeover";
	open.segment = SEGMENT;
	open.topology_hash = topology;
	open.allocation_id = (char *)"allocation";
	open.attempt_id = (char *)"attempt";
	open.parallelism = 1;
	open.max_parallelism = 128;
	open.key_group_last = 127;
	open.jvm_uuid = (char *)"bench";
	open.open_token = ++token;
	if (restored > 0) {
		open.restored_checkpoint = 1;
		open.restored_entries = restored;
		open.n_state_manifest = open_ack->open_ack->n_state_manifest;
		open.state_manifest = open_ack->open_ack->state_manifest;
	}
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
	message.open = &open;
	stream = client_stream_open(client, client_method(client, "/flink_bridge.FlinkBridge/Session"), FLIGHT + 2,
				    &options, NULL);
	sent = answered = keys = 0;
	send_message(&message);
	await_answer();
}

static void session_close(void)
{
	struct client_event event;
	client_stream_cancel(stream);
	while (client_poll(client, CLIENT_FOREVER, &event) != CLIENT_ENDED)
		;
}

/* Makes new keys until the slot's state has so many bytes. */
static void fill(uint64_t state_bytes)
{
	/* A file has all its bytes from the start: there so many keys are made as take about that. */
	while (state_dir ? keys * KEY_TAKES < state_bytes : state_bytes_now() < state_bytes)
		for (int i = 0; i < 32; i++) {
			while (sent - answered >= FLIGHT)
				await_answer();
			send_batch(FILL_RECORDS, true);
		}
	while (answered < sent)
		await_answer();
}

/* ---- What happens under load ---- */

static void nap(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)}, NULL);
}

/* How long a process has waited for a processor although it could have run, in ns. */
static uint64_t run_delay_ns(pid_t pid)
{
	char path[64];
	unsigned long long ran, waited = 0;
	snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
	FILE *file = fopen(path, "r");
	if (file != NULL && fscanf(file, "%llu %llu", &ran, &waited) != 2)
		waited = 0;
	if (file != NULL)
		fclose(file);
	return waited;
}

/* Waits until the slot has an owner and an heir. */
static struct look await_heir(void)
{
	uint64_t until = clock_ns() + PATIENCE_NS;
	struct look look;
	while (look = look_at_lives(), look.owner == 0 || look.heir == 0) {
		if (clock_ns() > until)
			fatalx("the slot has no heir");
		nap(1000000);
	}
	return look;
}

/* Kills the owner, at any moment, and waits for its heir's first commit. */
static bool take_over(struct event *event)
{
	struct look look = await_heir();
	nap(draw(&event->chance) % 5000000);
	uint64_t waited_ns = run_delay_ns(look.heir);
	uint64_t killed_ns = clock_ns();
	event->began_ns = killed_ns;
	kill(look.owner, SIGKILL);
	while (look = look_at_lives(), look.took_over_ns < killed_ns || look.first_commit_ns == 0) {
		if (clock_ns() > killed_ns + PATIENCE_NS)
			return false;
		nap(1000000);
	}
	if (getenv("BENCH_LOG"))
		fprintf(stderr,
			"took over after %.3f ms, ready %.3f, committed %.3f; had to wait for a processor for %.3f\n",
			(double)(look.took_over_ns - killed_ns) / 1e6, (double)(look.ready_ns - killed_ns) / 1e6,
			(double)(look.first_commit_ns - killed_ns) / 1e6,
			(double)(run_delay_ns(look.owner) - waited_ns) / 1e6);
	event->value = (double)(look.first_commit_ns - killed_ns) / 1e6;
	return true;
}

/* Reloads, and waits until that is done. */
static bool reload(struct event *event)
{
	await_heir();
	nap(draw(&event->chance) % 5000000);
	event->began_ns = clock_ns();
	jv_free(ask("reload"));
	for (;;) {
		jv reloading = ask("reloading");
		bool done = text_is(reloading, "state", "done"), failed = text_is(reloading, "state", "failed");
		jv_free(reloading);
		if (done || failed)
			return done;
		nap(2000000);
	}
}

/* Nothing. */
static bool nothing(struct event *event)
{
	event->began_ns = clock_ns();
	nap(QUIET_NS);
	return true;
}

/* Nothing, for as long as heirs need to come to rest. */
static bool settle(struct event *event)
{
	event->began_ns = clock_ns();
	nap(SETTLE_NS);
	return true;
}

static void *event_thread(void *argument)
{
	struct event *event = argument;
	if (!event->happen(event))
		fatalx("the slot did not go on");
	event->over = 1;
	return NULL;
}

/* Keeps the load up until an event is over; the longest time between two answers meanwhile, in ms. */
static double load_through(struct event *event)
{
	enum { MORE = 16 }; /* answers, behind the event's end */
	uint64_t longest = 0, last = clock_ns();
	pthread_t thread;
	event->began_ns = 0;
	event->over = 0;
	if (pthread_create(&thread, NULL, event_thread, event) != 0)
		fatalx("no thread");
	for (int more = MORE; more > 0; more -= event->over != 0) {
		while (sent - answered < FLIGHT)
			send_batch(LOAD_RECORDS, false);
		await_answer();
		uint64_t now = clock_ns();
		if (event->began_ns != 0 && now > event->began_ns && now - last > longest)
			longest = now - last;
		last = now;
	}
	pthread_join(thread, NULL);
	while (answered < sent)
		await_answer();
	return (double)longest / 1e6;
}

/* ---- Figures ---- */

/* The medians of one size of state. */
struct medians {
	double first_commit, takeover, reload, quiet;
};

/* All rounds with so much state. */
static struct medians measure(uint64_t state_bytes)
{
	static double first_commit[ROUNDS_MAX], takeover[ROUNDS_MAX], reloaded[ROUNDS_MAX], quiet[ROUNDS_MAX];
	struct event death = {.happen = take_over, .chance = 7}, code = {.happen = reload, .chance = 8},
		     none = {.happen = nothing}, rest = {.happen = settle};
	sidecar_start(state_bytes, "s", "1MiB");
	session_open(0);
	fill(state_bytes);
	load_through(&rest);
	for (unsigned i = 0; i < rounds; i++) {
		takeover[i] = load_through(&death);
		first_commit[i] = death.value;
		reloaded[i] = load_through(&code);
		quiet[i] = load_through(&none);
	}
	session_close();
	sidecar_stop();
	return (struct medians){median(first_commit, rounds), median(takeover, rounds), median(reloaded, rounds),
				median(quiet, rounds)};
}

/* Reports the medians, under names that end so. */
static void report_medians(const struct medians *medians, const char *end)
{
	const struct {
		const char *name;
		double value;
	} figures[] = {{"takeover_first_commit", medians->first_commit},
		       {"takeover_pause", medians->takeover},
		       {"reload_pause", medians->reload},
		       {"quiet_pause", medians->quiet}};
	for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
		char name[64];
		snprintf(name, sizeof name, "%s%s", figures[i].name, end);
		report(name, figures[i].value, "ms");
	}
}

static double worse(double a, double b)
{
	return a > b ? a : b;
}

/* ---- Checkpoints ---- */

/* Sends a barrier and waits until it is acknowledged; for how long, in ms. */
static double barrier(void)
{
	FlinkBridge__Barrier body = FLINK_BRIDGE__BARRIER__INIT;
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	uint64_t from = clock_ns();
	body.checkpoint_id = sent;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BARRIER;
	message.barrier = &body;
	send_message(&message);
	await_answer();
	return (double)(clock_ns() - from) / 1e6;
}

/* Updates so many random keys. */
static void update(uint64_t count)
{
	for (uint64_t done = 0; done < count; done += LOAD_RECORDS) {
		while (sent - answered >= FLIGHT)
			await_answer();
		send_batch(LOAD_RECORDS, false);
	}
	while (answered < sent)
		await_answer();
}

/* Sends a ToWorker message that only has to be put around a body. */
static void send_body(uint32_t kind, struct view body)
{
	grpc_slice slice = grpc_slice_malloc(body.size + 64);
	struct wire_writer writer = {.at = GRPC_SLICE_START_PTR(slice)};
	writer.end = writer.at + body.size + 64;
	wire_put_varint_field(&writer, 1, ++sent);
	wire_put_varint_field(&writer, 2, 1700000000000);
	wire_put_bytes_field(&writer, kind, body);
	send_slice(grpc_slice_split_head(&slice, (size_t)(writer.at - GRPC_SLICE_START_PTR(slice))));
	grpc_slice_unref(slice);
}

/* Restores so many keys into a session that was opened for it; MB/s. */
static double restore(uint64_t count)
{
	static uint8_t body[CHUNK_BYTES];
	uint8_t end[16], key[KEY_BYTES];
	struct wire_writer last = {.at = end, .end = end + sizeof end};
	uint64_t bytes = 0, from = clock_ns();
	while (keys < count) {
		struct wire_writer writer = {.at = body, .end = body + sizeof body};
		while (keys < count && (size_t)(writer.end - writer.at) > 2 * (sizeof key + sample_size)) {
			key_write(key, keys++);
			struct wire_entry entry = {
			    .key = {key, key_bytes}, .value = {sample, sample_size}, .state = sample_state};
			entry.key_hash = key_hash_of(entry.key);
			entry.key_group = key_group_of(entry.key_hash, 128);
			wire_put_entry(&writer, &entry);
		}
		wire_put_fixed64_field(&writer, 2, wire_checksum((struct view){body, (size_t)(writer.at - body)}));
		bytes += (size_t)(writer.at - body);
		send_body(TO_WORKER_RESTORE_CHUNK, (struct view){body, (size_t)(writer.at - body)});
	}
	wire_put_varint_field(&last, 1, keys);
	send_body(TO_WORKER_RESTORE_END, (struct view){end, (size_t)(last.at - end)});
	answered = sent - 1; /* chunks are not */
	await_answer();
	return (double)bytes / 1e6 / ((double)(clock_ns() - from) / 1e9);
}

/* One of two sidecars that take turns: what stands in the variables above while it is its turn. */
struct side {
	pid_t sidecar;
	struct client *client;
	struct client_stream *stream;
	uint64_t sent, answered, keys;
};

static void side_leave(struct side *side)
{
	*side = (struct side){sidecar, client, stream, sent, answered, keys};
}

static void side_enter(const struct side *side)
{
	sidecar = side->sidecar;
	client = side->client;
	stream = side->stream;
	sent = side->sent;
	answered = side->answered;
	keys = side->keys;
}

/* A sidecar with a session that has restored so many keys. */
static struct side side_make(const char *name, uint64_t state_bytes, const char *delta_bytes, uint64_t count,
			     double *mb_per_s)
{
	struct side side;
	sidecar_start(state_bytes, name, delta_bytes);
	if (sample_size == 0) {
		session_open(0);
		keys = 1;
		update(LOAD_RECORDS);
		barrier();
		if (sample_size == 0)
			fatalx("no state came");
		session_close();
	}
	session_open(count);
	*mb_per_s = restore(count);
	side_leave(&side);
	return side;
}

/* Records a second for a while, with a barrier each second or without any. */
static double throughput(bool barriers)
{
	uint64_t from = clock_ns(), next = from + 1000000000, records = 0;
	while (clock_ns() < from + TURN_S * UINT64_C(1000000000)) {
		update(TURN_RECORDS);
		records += TURN_RECORDS;
		if (barriers && clock_ns() > next) {
			barrier();
			next += 1000000000;
		}
	}
	return (double)records / ((double)(clock_ns() - from) / 1e9);
}

/* All figures of checkpoints. */
static void measure_checkpoints(uint64_t state_bytes)
{
	static double pauses[ROUNDS_MAX], ratios[ROUNDS_MAX];
	double restored, again;
	uint64_t count = state_bytes / (CHECKPOINT_KEY_BYTES + 60);
	key_bytes = CHECKPOINT_KEY_BYTES;
	struct side sends = side_make("sends", 2 * state_bytes, "1MiB", count, &restored);
	struct side keeps = side_make("keeps", 2 * state_bytes, "1TiB", count, &again);
	report("whole_restore_mb_per_s", restored > again ? restored : again, "MB/s");
	side_enter(&sends);
	for (unsigned i = 0; i < rounds; i++) {
		update(count / 100);
		pauses[i] = barrier();
	}
	side_leave(&sends);
	report("whole_barrier_pause", median(pauses, rounds), "ms");
	for (unsigned i = 0; i < rounds; i++) {
		side_enter(&sends);
		ratios[i] = throughput(true);
		side_leave(&sends);
		side_enter(&keeps);
		ratios[i] /= throughput(false);
		side_leave(&keeps);
	}
	report("whole_checkpoint_throughput_ratio", median(ratios, rounds), "ratio");
	side_enter(&sends);
	session_close();
	sidecar_stop();
	side_enter(&keeps);
	session_close();
	sidecar_stop();
}

/* Bytes of memory that may be had. */
static uint64_t memory_free(void)
{
	char line[128];
	unsigned long long kib = 0;
	FILE *file = fopen("/proc/meminfo", "r");
	while (file && kib == 0 && fgets(line, sizeof line, file))
		sscanf(line, "MemAvailable: %llu kB", &kib);
	if (file)
		fclose(file);
	return kib * 1024;
}

/* All figures of takeovers, for some sizes of state. */
static void measure_takeovers(const uint64_t sizes[], unsigned count)
{
	struct medians worst = {0};
	for (unsigned i = 0; i < count; i++) {
		uint64_t most = memory_free() / 3000000, size = sizes[i] < most ? sizes[i] : most;
		char end[32];
		snprintf(end, sizeof end, "_%llumb", (unsigned long long)size);
		struct medians found = measure(size * 1000000);
		report_medians(&found, end);
		worst = (struct medians){worse(worst.first_commit, found.first_commit),
					 worse(worst.takeover, found.takeover), worse(worst.reload, found.reload),
					 worse(worst.quiet, found.quiet)};
	}
	report_medians(&worst, "");
}

int main(int argc, char **argv)
{
	uint64_t sizes[SIZES_MAX] = {100, 2400}; /* MB */
	uint64_t checkpoint_mb = 1000;
	const char *only = "";
	unsigned count = 0;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--bin") == 0)
			bin = argv[i + 1];
		else if (strcmp(argv[i], "--rounds") == 0)
			rounds = (unsigned)atoi(argv[i + 1]);
		else if (strcmp(argv[i], "--state-dir") == 0)
			state_dir = argv[i + 1];
		else if (strcmp(argv[i], "--only") == 0)
			only = argv[i + 1];
		else if (strcmp(argv[i], "--checkpoint-state") == 0)
			checkpoint_mb = (uint64_t)atoi(argv[i + 1]);
		else if (strcmp(argv[i], "--state") == 0 && count < SIZES_MAX)
			sizes[count++] = (uint64_t)atoi(argv[i + 1]);
	}
	count = count == 0 ? 2 : count;
	if (rounds == 0 || rounds > ROUNDS_MAX)
		fatalx("usage: bench_takeover [--bin DIR] [--rounds 1..%d] [--state-dir DIR] "
		       "[--only takeovers|checkpoints] [--checkpoint-state MB] [--state MB]...",
		       ROUNDS_MAX);
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(directory))
		fatal("mkdtemp");
	json = fopen("build/bench/takeover.json", "w");
	if (json)
		fputc('[', json);
	compile();
	if (strcmp(only, "checkpoints") != 0)
		measure_takeovers(sizes, count);
	if (strcmp(only, "takeovers") != 0) {
		uint64_t most = memory_free() / 6000000;
		measure_checkpoints((checkpoint_mb < most ? checkpoint_mb : most) * 1000000);
	}
	if (json) {
		fputs("\n]\n", json);
		fclose(json);
	}
	run((char *[]){(char *)"/bin/rm", (char *)"-r", directory, NULL});
	return 0;
}
