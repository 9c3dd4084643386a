/*
 * What the rings and workers cost: the same client against two sidecars that run side by side, one whose front answers
 * by itself (--direct) and one whose worker decodes and encodes every record of an identity segment.
 *
 * Each workload runs in short rounds that alternate between the two, so that the machine's slow phases hit both; what is
 * printed is the median over the rounds, and the median of the rounds' ratios. Lines are `name<TAB>value<TAB>unit`, and the
 * same goes to build/bench/transport.json.
 *
 * The client runs on core C and all processes of both sidecars on core S, as containers with cores of their own do, so that
 * nothing hangs on where the scheduler puts whom: --cores C:S, the first two that there are when nothing is said. With --cores any
 * it is the scheduler's choice, and the file is build/bench/transport_any.json.
 *
 * With --against DIR the first side is no direct one but the worker path of another build: what a change is worth.
 *
 *   bench_transport [--bin DIR] [--against DIR] [--rounds N] [--round-ms N] [--only NAME] [--cores C:S|any]
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "cli/client.h"
#include "descriptor/descriptor.h"
#include "descriptor/diagnostics.h"
#include "proto/flink_bridge.pb-c.h"
#include "proto/flink_worker.pb-c.h"
#include "shared/control.h"
#include "shared/log.h"
#include "shared/wire.h"

enum { RECORD_BYTES = 100, ROUNDS_MAX = 101, FLIGHT_MAX = 64, SEQ_BYTES = 5 };
#define START_NS UINT64_C(20000000000)

static const char pipeline[] = "name: identity\n"
			       "parallelism: 1\n"
			       "sources:\n"
			       "  in: { kind: generator }\n"
			       "steps:\n"
			       "  - { name: same, kind: passthrough }\n"
			       "sinks:\n"
			       "  out: { kind: discard, from: same }\n";

/* Batches made once, one more than are in flight; only their seq is rewritten. */
struct batches {
	uint8_t *bytes[FLIGHT_MAX + 2];
	size_t size;
	uint32_t count;
};

/* One sidecar under test. */
struct side {
	const char *name;
	const char *bin; /* where its programs are */
	bool direct;
	pid_t pid;
	char address[160];
	struct client *client;
	const void *process_message, *session;
	struct client_stream *stream; /* of the workload at hand */
	struct batches batches;
	uint64_t sent, answered; /* seq */
	size_t bytes;            /* of the answer at hand */
};

/* One workload: `batch` 0 is the unary call. */
struct workload {
	const char *name;
	uint32_t batch, outstanding;
};

static char directory[] = "/tmp/bridge-bench-XXXXXX";
static const char *bin = "build/release";
static const char *against;   /* another build's programs, instead of the direct side */
static const char *only = ""; /* workloads whose name begins so */
static unsigned rounds = 15, round_ms = 300;
static int client_core, sidecar_core; /* -1: wherever the scheduler puts them */
static char topology[33];
static FILE *json;

/* Prints one figure, for people and for machines. */
static void report(const char *name, double value, const char *unit)
{
	printf("%s\t%.4g\t%s\n", name, value, unit);
	fflush(stdout);
	fprintf(json, "%s\n  {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"}", ftell(json) > 1 ? "," : "", name,
		value, unit);
}

/* ---- Sidecars ---- */

/* Runs a program to its end; fatal when it fails. */
static void run(char *const argv[])
{
	pid_t pid = fork();
	if (pid == 0) {
		execv(argv[0], argv);
		_exit(127);
	}
	int status;
	waitpid(pid, &status, 0);
	if (status != 0)
		fatalx("%s failed", argv[0]);
}

/* Compiles the identity pipeline and learns its topology. */
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

/* Keeps this process, and those that it starts from now on, on a core; nothing for -1. */
static void stay_on(int core)
{
	cpu_set_t cores;
	if (core < 0)
		return;
	CPU_ZERO(&cores);
	CPU_SET(core, &cores);
	if (sched_setaffinity(0, sizeof cores, &cores) != 0)
		fatal("cannot run on core %d: see --cores", core);
}

/* Chooses the first two cores that this process may use, or the only one. */
static void choose_cores(void)
{
	cpu_set_t cores;
	int found[2] = {0}, count = 0;
	if (sched_getaffinity(0, sizeof cores, &cores) != 0)
		fatal("cannot ask for the cores of this process");
	for (int core = 0; core < CPU_SETSIZE && count < 2; core++)
		if (CPU_ISSET(core, &cores))
			found[count++] = core;
	client_core = found[0];
	sidecar_core = count > 1 ? found[1] : found[0];
}

/* Starts a sidecar with one slot and connects to it. */
static void side_start(struct side *side)
{
	char program[256], listen[160], descriptor[160];
	snprintf(program, sizeof program, "%s/bridged", side->bin);
	snprintf(listen, sizeof listen, "unix:%s/%s.sock", directory, side->name);
	snprintf(descriptor, sizeof descriptor, "%s/descriptor.yaml", directory);
	snprintf(side->address, sizeof side->address, "%s", listen);
	side->pid = fork();
	if (side->pid == 0) {
		stay_on(sidecar_core);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execl(program, program, "--descriptor", descriptor, "--slots", "1", "--listen", listen, "--log-level",
		      "warn", side->direct ? "--direct" : NULL, NULL);
		_exit(127);
	}
	side->client = client_connect(side->address, &(struct client_options){.message_max = 8 << 20});
	side->process_message = client_method(side->client, "/flink_worker.FlinkWorkerService/ProcessMessage");
	side->session = client_method(side->client, "/flink_bridge.FlinkBridge/Session");
}

/* Stops a sidecar. */
static void side_stop(struct side *side)
{
	client_close(side->client);
	kill(side->pid, SIGTERM);
	waitpid(side->pid, NULL, 0);
}

/* ---- Unary ---- */

/* The request that every call sends. */
static grpc_slice unary_request(void)
{
	static uint8_t payload[RECORD_BYTES];
	memset(payload, 'x', sizeof payload);
	FlinkWorker__Message message = FLINK_WORKER__MESSAGE__INIT;
	message.payload = (ProtobufCBinaryData){sizeof payload, payload};
	message.timestamp = 1700000000000;
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
	request.message = &message;
	grpc_slice slice = grpc_slice_malloc(flink_worker__process_message_request__get_packed_size(&request));
	flink_worker__process_message_request__pack(&request, GRPC_SLICE_START_PTR(slice));
	return slice;
}

/* Starts one call. */
static void unary_call(struct side *side, grpc_slice request)
{
	struct client_call_options options = {.wait_for_ready = true,
					      .deadline_ns = clock_ns() + START_NS}; /* it may still be starting */
	if (!client_call(side->client, side->process_message, grpc_slice_ref(request), &options, side))
		fatalx("out of memory");
}

/* Calls per second over one round. */
static double unary_round(struct side *side, const struct workload *workload)
{
	grpc_slice request = unary_request();
	struct client_event event;
	uint64_t done = 0, begin = clock_ns(), end = begin + round_ms * UINT64_C(1000000), now;
	for (uint32_t i = 0; i < workload->outstanding; i++)
		unary_call(side, request);
	while (client_calls_in_flight(side->client) > 0) {
		if (client_poll(side->client, CLIENT_FOREVER, &event) != CLIENT_REPLY)
			continue;
		if (event.status != GRPC_STATUS_OK || GRPC_SLICE_LENGTH(event.message) < RECORD_BYTES)
			fatalx("%s: a call failed: %.*s", side->name, (int)event.text.size,
			       (const char *)event.text.data);
		now = clock_ns();
		if (now < end) {
			done++;
			unary_call(side, request);
		}
	}
	grpc_slice_unref(request);
	return (double)done * 1e9 / (double)(end - begin);
}

/* ---- Streams ---- */

/* Writes a seq into its five bytes: a varint with needless continuation bits is still a varint. */
static void seq_write(uint8_t *at, uint64_t seq)
{
	for (int i = 0; i < SEQ_BYTES; i++, seq >>= 7)
		at[i] = (uint8_t)((seq & 0x7f) | (i < SEQ_BYTES - 1 ? 0x80 : 0));
}

/* Makes the batches of a workload. */
static void batches_make(struct batches *batches, const struct workload *workload)
{
	static uint8_t payload[RECORD_BYTES];
	memset(payload, 'x', sizeof payload);
	FlinkBridge__Record record = FLINK_BRIDGE__RECORD__INIT;
	record.payload = (ProtobufCBinaryData){sizeof payload, payload};
	record.maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
	record.timestamp = 1700000000000;
	FlinkBridge__Record **records = calloc(workload->batch, sizeof *records);
	for (uint32_t i = 0; i < workload->batch; i++)
		records[i] = &record;
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	batch.records = records;
	batch.n_records = workload->batch;
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	message.processing_time_ms = 1700000000000;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	size_t rest = flink_bridge__to_worker__get_packed_size(&message);
	batches->size = 1 + SEQ_BYTES + rest;
	batches->count = workload->outstanding + 2;
	for (uint32_t i = 0; i < batches->count; i++) {
		batches->bytes[i] = malloc(batches->size);
		batches->bytes[i][0] = 1 << 3 | WIRE_VARINT;
		flink_bridge__to_worker__pack(&message, batches->bytes[i] + 1 + SEQ_BYTES);
	}
	free(records);
}

/* gRPC is done with a batch: its memory is reused by count, nothing to do. */
static void batch_returned(void *bytes)
{
	(void)bytes;
}

/* Sends the batch with that seq. */
static void batch_send(struct side *side, uint64_t seq)
{
	uint8_t *bytes = side->batches.bytes[seq % side->batches.count];
	seq_write(bytes + 1, seq);
	if (client_stream_send(side->stream, grpc_slice_new(bytes, side->batches.size, batch_returned)) != CLIENT_TAKEN)
		fatalx("the stream takes no more messages");
}

/* The Open of a session. */
static grpc_slice open_message(void)
{
	static int64_t token;
	FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;
	open.protocol_version = WIRE_PROTOCOL_VERSION;
	open.job = (char *)"bench";
	open.pipeline = (char *)"identity";
	open.topology_hash = topology;
	open.allocation_id = (char *)"allocation";
	open.attempt_id = (char *)"attempt";
	open.parallelism = 1;
	open.max_parallelism = 128;
	open.key_group_last = 127;
	open.jvm_uuid = (char *)"bench";
	open.open_token = ++token;
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	message.seq = 1;
	message.processing_time_ms = 1;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
	message.open = &open;
	grpc_slice slice = grpc_slice_malloc(flink_bridge__to_worker__get_packed_size(&message));
	flink_bridge__to_worker__pack(&message, GRPC_SLICE_START_PTR(slice));
	return slice;
}

/* Waits for the next message of a stream. */
static void stream_next(struct side *side, struct client_event *event)
{
	client_stream_receive(side->stream);
	while (client_poll(side->client, CLIENT_FOREVER, event) != CLIENT_MESSAGE)
		if (event->kind == CLIENT_ENDED)
			fatalx("%s: the stream ended: %.*s", side->name, (int)event->text.size,
			       (const char *)event->text.data);
}

/* Whether an answer is the last of its seq: the flag is looked for, the records are not parsed. */
static bool is_last(struct view results)
{
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, results);
	while (wire_next(&reader, &field))
		if (field.number == 2 && field.scalar)
			return false;
	return !reader.malformed;
}

/* Opens the session that a side's rounds of a workload share. */
static void stream_open(struct side *side, const struct workload *workload)
{
	struct client_event event;
	struct client_call_options options = {.wait_for_ready = true};
	batches_make(&side->batches, workload);
	side->stream = client_stream_open(side->client, side->session, FLIGHT_MAX + 2, &options, side);
	client_stream_send(side->stream, open_message());
	stream_next(side, &event);
	side->sent = side->answered = 1;
}

/* Ends it. */
static void stream_close(struct side *side)
{
	struct client_event event;
	client_stream_cancel(side->stream);
	while (client_poll(side->client, CLIENT_FOREVER, &event) != CLIENT_ENDED)
		;
	for (uint32_t i = 0; i < side->batches.count; i++)
		free(side->batches.bytes[i]);
}

/* Takes one message; whether a seq is now answered in full. */
static bool stream_answered(struct side *side, const struct workload *workload)
{
	struct client_event event;
	struct wire_to_worker envelope;
	stream_next(side, &event);
	struct view message = {GRPC_SLICE_START_PTR(event.message), GRPC_SLICE_LENGTH(event.message)};
	if (wire_parse_from_worker(message, &envelope) != WIRE_OK || envelope.kind != FROM_WORKER_RESULTS ||
	    envelope.seq != side->answered + 1)
		fatalx("%s: not the answer that was due", side->name);
	side->bytes += message.size;
	if (!is_last(envelope.body))
		return false;
	if (side->bytes < (size_t)workload->batch * RECORD_BYTES)
		fatalx("%s: records are missing in an answer", side->name);
	side->bytes = 0;
	side->answered++;
	return true;
}

/* Records per second over one round. */
static double stream_round(struct side *side, const struct workload *workload)
{
	uint64_t begin = clock_ns(), end = begin + round_ms * UINT64_C(1000000), done = 0;
	while (side->sent - side->answered < workload->outstanding)
		batch_send(side, ++side->sent);
	while (side->answered < side->sent) {
		if (!stream_answered(side, workload) || clock_ns() >= end)
			continue;
		done++;
		batch_send(side, ++side->sent);
	}
	return (double)done * workload->batch * 1e9 / (double)(end - begin);
}

/* ---- Figures ---- */

/* One round of a workload on one side. */
static double round_of(struct side *side, const struct workload *workload)
{
	return workload->batch ? stream_round(side, workload) : unary_round(side, workload);
}

/* ---- Processes ---- */

/* Reads a number that follows `label` in a file of /proc; 0 when it is not there. */
static double proc_number(pid_t pid, const char *file, const char *label)
{
	char path[64], line[256];
	double value = 0;
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	FILE *stream = fopen(path, "r");
	while (stream && fgets(line, sizeof line, stream))
		if (strncmp(line, label, strlen(label)) == 0)
			value = strtod(line + strlen(label), NULL);
	if (stream)
		fclose(stream);
	return value;
}

/* CPU seconds that a process has used; 0 when it is gone. */
static double cpu_seconds(pid_t pid)
{
	clockid_t clock;
	struct timespec used;
	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
		return 0;
	return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* Whose CPU time is told apart. */
enum who { CLIENT, FRONT, WORKER, OTHERS, WHO_COUNT };

/* What the processes of a sidecar have used. */
struct usage {
	double cpu[WHO_COUNT]; /* seconds */
	double worker_kib;     /* PSS of the largest worker */
};

/* Whose time a process's is, by its name. */
static enum who who_is(pid_t pid)
{
	char path[64], name[32] = "";
	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	FILE *stream = fopen(path, "r");
	if (stream && !fgets(name, sizeof name, stream))
		name[0] = '\0';
	if (stream)
		fclose(stream);
	if (strncmp(name, "bridged-w", 9) == 0)
		return WORKER;
	return strncmp(name, "bridged-f", 9) == 0 ? FRONT : OTHERS;
}

/* Looks at the usage of a sidecar. */
static struct usage usage_now(const struct side *side)
{
	struct usage usage = {.cpu = {[OTHERS] = cpu_seconds(side->pid)}};
	DIR *proc = opendir("/proc");
	for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
		pid_t pid = atoi(entry->d_name);
		if (pid <= 0 || (pid_t)proc_number(pid, "status", "PPid:") != side->pid)
			continue;
		enum who who = who_is(pid);
		usage.cpu[who] += cpu_seconds(pid);
		double kib = who == WORKER ? proc_number(pid, "smaps_rollup", "Pss:") : 0;
		usage.worker_kib = kib > usage.worker_kib ? kib : usage.worker_kib;
	}
	closedir(proc);
	return usage;
}

/* CPU seconds of the sidecar's processes. */
static double sidecar_cpu(const struct usage *usage)
{
	return usage->cpu[FRONT] + usage->cpu[WORKER] + usage->cpu[OTHERS];
}

/* Prints a figure of one side of a workload. */
static void report_side(const struct workload *workload, const char *side, const char *what, double value,
			const char *unit)
{
	char name[64];
	snprintf(name, sizeof name, "%s_%s%s", workload->name, side, what);
	report(name, value, unit);
}

/* What all rounds of a workload on one side came to. */
struct tally {
	double rate[ROUNDS_MAX];
	double cpu[WHO_COUNT]; /* seconds of all rounds */
	double done;           /* calls or records of all rounds */
};

/* Adds one round of a workload. */
static void tally_round(struct tally *tally, struct side *side, const struct workload *workload, unsigned round)
{
	struct usage before = usage_now(side);
	uint64_t client_ns = now_ns();
	tally->rate[round] = round_of(side, workload);
	tally->cpu[CLIENT] += (double)(now_ns() - client_ns) / 1e9;
	struct usage after = usage_now(side);
	for (int who = FRONT; who < WHO_COUNT; who++)
		tally->cpu[who] += after.cpu[who] - before.cpu[who];
	tally->done += tally->rate[round] * round_ms / 1e3;
}

/* CPU seconds of all that took part. */
static double tally_cpu(const struct tally *tally)
{
	double sum = 0;
	for (int who = 0; who < WHO_COUNT; who++)
		sum += tally->cpu[who];
	return sum;
}

/* Prints the figures of one side; sorts its rates. */
static void report_tally(struct tally *tally, const struct side *side, const struct workload *workload)
{
	static const char *const names[] = {"_client_cpu", "_front_cpu", "_worker_cpu"};
	const char *unit = workload->batch ? "ns/record" : "ns/call";
	report_side(workload, side->name, "", median(tally->rate, rounds), workload->batch ? "records/s" : "calls/s");
	report_side(workload, side->name, "_cpu", (tally_cpu(tally) - tally->cpu[CLIENT]) * 1e9 / tally->done, unit);
	for (int who = CLIENT; who <= WORKER; who++)
		report_side(workload, side->name, names[who], tally->cpu[who] * 1e9 / tally->done, unit);
}

/* Runs a workload on both sides in turn; returns the median ratio of the second over the first. */
static double compare(struct side *sides, const struct workload *workload)
{
	static struct tally tallies[2];
	static double ratio[ROUNDS_MAX];
	memset(tallies, 0, sizeof tallies);
	for (int i = 0; i < 2 && workload->batch; i++)
		stream_open(&sides[i], workload);
	for (int i = 0; i < 2; i++)
		round_of(&sides[i], workload); /* warms up */
	for (unsigned round = 0; round < rounds; round++) {
		for (int i = 0; i < 2; i++)
			tally_round(&tallies[i], &sides[i], workload, round);
		ratio[round] = tallies[1].rate[round] / tallies[0].rate[round];
	}
	for (int i = 0; i < 2; i++)
		report_tally(&tallies[i], &sides[i], workload);
	report_side(workload, "cpu", "_ratio",
		    tally_cpu(&tallies[0]) / tallies[0].done * tallies[1].done / tally_cpu(&tallies[1]), "");
	for (int i = 0; i < 2 && workload->batch; i++)
		stream_close(&sides[i]);
	return median(ratio, rounds);
}

/* What an idle sidecar takes. */
static void measure_idle(struct side *side, const char *when)
{
	char name[64];
	struct usage before = usage_now(side);
	uint64_t begin = clock_ns();
	struct client_event event;
	client_poll(side->client, begin + UINT64_C(4000000000),
		    &event); /* nothing is in flight: four seconds of nothing */
	struct usage after = usage_now(side);
	snprintf(name, sizeof name, "idle_worker_pss%s", when);
	report(name, after.worker_kib / 1024, "MiB");
	snprintf(name, sizeof name, "idle_cpu%s", when);
	report(name, (sidecar_cpu(&after) - sidecar_cpu(&before)) * 1e11 / (double)(clock_ns() - begin), "%");
}

/* ---- */

/* Reads the command line. */
static void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (i + 1 < argc && strcmp(argv[i], "--bin") == 0) {
			bin = argv[++i];
		} else if (i + 1 < argc && strcmp(argv[i], "--against") == 0) {
			against = argv[++i];
		} else if (i + 1 < argc && strcmp(argv[i], "--only") == 0) {
			only = argv[++i];
		} else if (i + 1 < argc && strcmp(argv[i], "--rounds") == 0) {
			rounds = (unsigned)strtoul(argv[++i], NULL, 10);
		} else if (i + 1 < argc && strcmp(argv[i], "--round-ms") == 0) {
			round_ms = (unsigned)strtoul(argv[++i], NULL, 10);
		} else if (i + 1 < argc && strcmp(argv[i], "--cores") == 0 && strcmp(argv[i + 1], "any") == 0) {
			client_core = sidecar_core = -1;
			i++;
		} else if (i + 1 < argc && strcmp(argv[i], "--cores") == 0 &&
			   sscanf(argv[i + 1], "%d:%d", &client_core, &sidecar_core) == 2 && client_core >= 0 &&
			   sidecar_core >= 0 && client_core < CPU_SETSIZE && sidecar_core < CPU_SETSIZE) {
			i++;
		} else {
			fprintf(
			    stderr,
			    "usage: bench_transport [--bin DIR] [--against DIR] [--rounds N] [--round-ms N] [--only "
			    "NAME] [--cores CLIENT:SIDECAR|any]\n");
			exit(2);
		}
	}
	if (rounds < 1 || rounds > ROUNDS_MAX || round_ms < 1) {
		fprintf(stderr, "bench_transport: --rounds is from 1 to %d, --round-ms at least 1\n", ROUNDS_MAX);
		exit(2);
	}
}

/* One line of what is measured: the workload, and the name and sense of its ratio. */
static const struct figure {
	struct workload workload;
	const char *ratio;
	bool inverse; /* a latency: more is worse */
} figures[] = {
    {{"unary16", 0, 16}, "unary16_ratio", false},      {{"unary64", 0, 64}, "unary64_ratio", false},
    {{"unary1", 0, 1}, "unary_latency_ratio", true},   {{"stream1", 1, 64}, "stream1_ratio", false},
    {{"stream128", 128, 8}, "stream128_ratio", false}, {{"stream1024", 1024, 4}, "stream1024_ratio", false},
};

/* All ratios that the project holds itself to; unary calls come first, for sessions take their segment over. */
static void measure_ratios(struct side *sides)
{
	double unary = 0;
	for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
		const struct figure *figure = &figures[i];
		if (strncmp(figure->workload.name, only, strlen(only)) != 0)
			continue;
		double ratio = compare(sides, &figure->workload);
		report(figure->ratio, figure->inverse ? 1 / ratio : ratio, "");
		if (figure->workload.batch == 0 && !figure->inverse)
			unary = unary == 0 || ratio < unary ? ratio : unary;
	}
	if (unary > 0)
		report("unary_ratio", unary, "");
}

int main(int argc, char **argv)
{
	choose_cores();
	parse(argc, argv);
	struct side sides[2] = {
	    {.name = against ? "other" : "direct", .bin = against ? against : bin, .direct = !against},
	    {.name = "worker", .bin = bin}};
	mkdir("build/bench", 0777);
	const char *file = client_core < 0 ? "build/bench/transport_any.json" : "build/bench/transport.json";
	json = fopen(file, "w");
	if (!json || !mkdtemp(directory))
		fatal("cannot write %s, or a temporary directory", file);
	fputs("[", json);
	compile();
	stay_on(sidecar_core); /* whether there is such a core */
	stay_on(client_core);
	for (int i = 0; i < 2; i++)
		side_start(&sides[i]);
	for (int i = 0; i < 2; i++)
		unary_round(&sides[i], &(struct workload){"warm", 0, 1});
	if (!*only)
		measure_idle(&sides[1], "");
	measure_ratios(sides);
	if (!*only)
		measure_idle(&sides[1], "_after_load");
	for (int i = 0; i < 2; i++)
		side_stop(&sides[i]);
	fputs("\n]\n", json);
	run((char *[]){"/bin/rm", "-rf", directory, NULL});
	return fclose(json) == 0 ? 0 : 1;
}
