/*
 * `bridgectl run`: a whole pipeline on one machine, without Flink.
 *
 * The pipeline is compiled into a private folder, a `bridged` of its own is started on it, and the graph (run_graph.h) is
 * Flink's part: it reads the sources, opens a Session for every subtask, and moves records and event time along the
 * edges. One thread does it all: it polls gRPC, and a watching thread wakes it for everything else.
 *
 * For development, tests and small jobs. No second engine: no second machine, no scheduler, and no recovery within a run: what
 * fails, fails the run. With --checkpoint (run_checkpoint.h) the next run goes on where the last checkpoint was.
 *
 * The life: read arguments, compile, open the ends, start the sidecar, wait for its socket, open all sessions, run until
 * every sink has ended, stop the sidecar, say what was done. However it ends, the sidecar and the folder are gone.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/load.h"
#include "cli/run_checkpoint.h"
#include "cli/run_graph.h"
#include "cli/run_progress.h"
#include "cli/run_sidecar.h"
#include "shared/control.h"
#include "shared/log.h"
#include "shared/suggest.h"
#include "shared/units.h"
#include "worker/jq_program.h"

enum {
	EVENTS_PER_TURN = 64,
	EXIT_SIGNAL = 128, /* and the signal's number: 130 for Ctrl-C */
	MESSAGE_MAX = 256 << 20,
	CHECKPOINT_INTERVAL_MS = 10000,
	CHECKPOINT_INTERVAL_LEAST_MS = 1,
	CHECKPOINT_INTERVAL_MOST_MS = 24 * 3600 * 1000,
};

/* An entry that changes often is to be written once for each checkpoint, and a pause of a few more milliseconds hurts nobody here;
 * without checkpoints nobody wants any. */
#define DELTA_BYTES "32MiB"
#define DELTA_BYTES_UNWANTED "1024GiB"

struct local_run {
	struct arguments arguments;
	uint64_t limit, slots;
	bool quiet, json, verbose;
	struct descriptor *descriptor;
	struct run_sidecar sidecar;
	struct client *client;
	struct watch *watch;
	struct run_graph graph;
	struct run_checkpoint checkpoint; /* used with --checkpoint */
	const char *checkpoint_path;      /* NULL: none are taken */
	uint64_t checkpoint_ms;
	struct run_progress progress;
	struct watch_item signal_item; /* a signalfd */
	int signal;                    /* the first that asked to stop; 0: none did */
	bool hurry;                    /* and another one after it */
	bool opening, started;         /* the sessions are being opened; the sources are read */
};

/* ---- Before anything is started ---- */

/* Reads a number of an option; 0 when it was not given. */
static bool read_number(const struct local_run *run, const char *option, uint64_t most, uint64_t *number)
{
	const char *text = arguments_value(&run->arguments, option);
	*number = 0;
	if (text == NULL || (number_parse(text, number) && *number >= 1 && *number <= most))
		return true;
	command_misused("run", "--%s wants a number from 1 to %llu, not \"%s\"", option, (unsigned long long)most,
			text);
	return false;
}

/* Reads --checkpoint and its interval. */
static bool read_checkpoint(struct local_run *run)
{
	const char *text = arguments_value(&run->arguments, "checkpoint-interval");
	uint64_t microseconds = (uint64_t)CHECKPOINT_INTERVAL_MS * 1000;
	run->checkpoint_path = arguments_value(&run->arguments, "checkpoint");
	if (text != NULL && run->checkpoint_path == NULL) {
		command_misused("run", "--checkpoint-interval says how often; where to is said by --checkpoint FILE");
		return false;
	}
	bool fine = text == NULL || duration_parse(text, &microseconds);
	run->checkpoint_ms = microseconds / 1000;
	if (fine && run->checkpoint_ms >= CHECKPOINT_INTERVAL_LEAST_MS &&
	    run->checkpoint_ms <= CHECKPOINT_INTERVAL_MOST_MS)
		return true;
	command_misused("run", "--checkpoint-interval wants a time from 1ms to 24h, such as 500ms or 10s, not \"%s\"",
			text);
	return false;
}

/* Compiles the pipeline. */
static bool compile_pipeline(struct local_run *run)
{
	run->descriptor = load_pipeline(&run->arguments);
	return run->descriptor != NULL;
}

/* Writes the descriptor into the private folder, for the sidecar. */
static bool write_descriptor(struct local_run *run)
{
	FILE *out = fopen(run->sidecar.descriptor, "we");
	if (out != NULL)
		descriptor_write(run->descriptor, out);
	bool fine = out != NULL && ferror(out) == 0;
	if (out != NULL && fclose(out) == 0 && fine)
		return true;
	fprintf(stderr, "bridgectl run: cannot write %s: %s\n", run->sidecar.descriptor, strerror(errno));
	return false;
}

/* The number of slots: as many as Flink would need, unless told otherwise; and what each has to serve. */
static bool choose_slots(struct local_run *run, uint32_t *sessions_per_slot)
{
	uint32_t parallelism = 1, sessions = 0;
	for (size_t i = 0; i < run->descriptor->segment_count; i++)
		if (run->descriptor->segments[i].parallelism > parallelism)
			parallelism = run->descriptor->segments[i].parallelism;
	if (run->slots == 0)
		run->slots = parallelism < SLOTS_MAX ? parallelism : SLOTS_MAX;
	for (size_t i = 0; i < run->descriptor->segment_count; i++)
		sessions +=
		    (run->descriptor->segments[i].parallelism + (uint32_t)run->slots - 1) / (uint32_t)run->slots;
	*sessions_per_slot = sessions > 0 ? sessions : 1;
	if (sessions < SLOT_CHANNELS_MAX)
		return true;
	fprintf(stderr,
		"bridgectl run: %u sessions on one slot, %d are the most: the pipeline has %zu segments with up to %u "
		"subtasks.\n"
		"Give it more --slots (%u at most), or lower the parallelism.\n",
		sessions, SLOT_CHANNELS_MAX - 1, run->descriptor->segment_count, parallelism, (unsigned)SLOTS_MAX);
	return false;
}

/* Says that there is no source or sink of a name, and which may be meant. */
static bool unknown_end(const char *what, const char *name, const char *const *names, size_t count)
{
	const char *meant = suggest_nearest(name, names, count);
	if (meant != NULL)
		command_misused("run", "the pipeline has no %s \"%s\", did you mean \"%s\"?", what, name, meant);
	else
		command_misused("run", "the pipeline has no %s \"%s\"; it has: %s%s%s", what, name,
				count > 0 ? names[0] : "none", count > 1 ? ", " : "",
				count > 2   ? "..."
				: count > 1 ? names[1]
					    : "");
	return false;
}

/* Splits NAME=PATH; a path alone will do when there is only one to mean. */
static bool split_override(const char *text, const char *only, char *name, size_t size, const char **path)
{
	const char *equals = strchr(text, '=');
	if (equals == NULL) {
		*path = text;
		return only != NULL && snprintf(name, size, "%s", only) < (int)size;
	}
	*path = equals + 1;
	return snprintf(name, size, "%.*s", (int)(equals - text), text) < (int)size;
}

/* --input NAME=PATH: the source reads that file. */
static bool override_source(struct local_run *run, const char *text)
{
	const struct descriptor *descriptor = run->descriptor;
	const char *names[DESCRIPTOR_SOURCES_MAX], *path;
	char name[DESCRIPTOR_NAME_MAX + 1];
	for (size_t i = 0; i < descriptor->source_count; i++)
		names[i] = descriptor->sources[i].name;
	if (!split_override(text, descriptor->source_count == 1 ? names[0] : NULL, name, sizeof(name), &path)) {
		command_misused("run", "--input wants NAME=PATH, not \"%s\"", text);
		return false;
	}
	for (size_t i = 0; i < descriptor->source_count; i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		run->graph.sources[i].source.kind = SOURCE_FILE;
		run->graph.sources[i].source.path = path;
		return true;
	}
	return unknown_end("source", name, names, descriptor->source_count);
}

/* --output NAME=PATH: the sink writes that file. */
static bool override_sink(struct local_run *run, const char *text)
{
	const struct descriptor *descriptor = run->descriptor;
	const char *names[DESCRIPTOR_SINKS_MAX], *path;
	char name[DESCRIPTOR_NAME_MAX + 1];
	for (size_t i = 0; i < descriptor->sink_count; i++)
		names[i] = descriptor->sinks[i].name;
	if (!split_override(text, descriptor->sink_count == 1 ? names[0] : NULL, name, sizeof(name), &path)) {
		command_misused("run", "--output wants NAME=PATH, not \"%s\"", text);
		return false;
	}
	for (size_t i = 0; i < descriptor->sink_count; i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		run->graph.sinks[i].sink.kind = SINK_FILE;
		run->graph.sinks[i].sink.path = path;
		return true;
	}
	return unknown_end("sink", name, names, descriptor->sink_count);
}

/* Applies every --input and --output. */
static bool apply_overrides(struct local_run *run)
{
	for (size_t i = 0; i < run->arguments.option_count; i++) {
		const char *option = run->arguments.options[i].name, *value = run->arguments.options[i].value;
		if (strcmp(option, "input") == 0 && !override_source(run, value))
			return false;
		if (strcmp(option, "output") == 0 && !override_sink(run, value))
			return false;
	}
	return true;
}

/* What cannot be run here: Kafka, and standard input twice. */
static bool check_ends(const struct local_run *run)
{
	unsigned readers = 0;
	for (size_t i = 0; i < run->descriptor->source_count; i++) {
		const struct source *source = &run->graph.sources[i].source;
		if (source->kind == SOURCE_KAFKA) {
			fprintf(stderr,
				"bridgectl run: source \"%s\" is a Kafka topic, and `bridgectl run` reads files and "
				"generators only.\n"
				"Let it read a file instead: --input %s=PATH (or %s=- for standard input).\n",
				source->name, source->name, source->name);
			return false;
		}
		readers += source->kind == SOURCE_FILE && strcmp(source->path, "-") == 0;
	}
	if (readers > 1) {
		fprintf(stderr, "bridgectl run: %u sources read standard input; only one can.\n", readers);
		return false;
	}
	for (size_t i = 0; i < run->descriptor->sink_count; i++) {
		const struct sink *sink = &run->graph.sinks[i].sink;
		if (sink->kind != SINK_KAFKA)
			continue;
		fprintf(stderr,
			"bridgectl run: sink \"%s\" is a Kafka topic, and `bridgectl run` writes files and standard "
			"output only.\n"
			"Let it write a file instead: --output %s=PATH (or %s=- for standard output).\n",
			sink->name, sink->name, sink->name);
		return false;
	}
	return true;
}

/* What cannot be spread here: partitions that only Flink has. */
static bool check_spread(const struct local_run *run)
{
	const struct descriptor *descriptor = run->descriptor;

	for (size_t i = 0; i < descriptor->segment_count; i++) {
		const struct segment *segment = &descriptor->segments[i];
		for (size_t k = 0; k < segment->input_count; k++) {
			enum partition partition = segment->inputs[k].partition;
			if (partition <= PARTITION_HASH || segment->parallelism == 1)
				continue;
			fprintf(stderr,
				"bridgectl run: segment \"%s\" is read by the partition %s, which only Flink has.\n"
				"Give its steps parallelism 1, or run the pipeline with Flink.\n",
				segment->name, partition_name(partition));
			return false;
		}
	}
	return true;
}

/* Opens all sources and sinks, so that what cannot be opened is told before anything runs. */
static bool open_ends(struct local_run *run)
{
	bool fine = true;
	for (size_t i = 0; fine && i < run->descriptor->source_count; i++)
		fine = source_open(&run->graph.sources[i]);
	for (size_t i = 0; fine && i < run->descriptor->sink_count; i++)
		fine = sink_open(&run->graph.sinks[i]);
	return fine;
}

/* Signals become events: of this thread, and of all that are started later. */
static void catch_signals(struct local_run *run)
{
	sigset_t stops;
	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &stops, NULL);
	signal(SIGPIPE, SIG_IGN);
	run->signal_item =
	    (struct watch_item){.fd = signalfd(-1, &stops, SFD_CLOEXEC | SFD_NONBLOCK), .events = EPOLLIN};
	if (run->signal_item.fd < 0)
		fatal("cannot wait for signals");
}

/* A random UUID: every run is a client of its own to the sidecar. */
static void make_uuid(char text[40])
{
	uint8_t bytes[16];
	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		fatal("no random numbers");
	bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
	bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
	char *to = text;
	for (int i = 0; i < 16; i++)
		to += sprintf(to, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
}

/* ---- Running ---- */

/* Stops in order: the input ends here, or with --checkpoint, it pauses here. */
static void stop_reading(struct local_run *run)
{
	if (run->checkpoint_path != NULL)
		run_checkpoint_stop(&run->graph);
	for (size_t i = 0; run->checkpoint_path == NULL && i < run->descriptor->source_count; i++)
		source_stop(&run->graph.sources[i]);
}

/* The first signal asks for a stop in order, the second one for a quick one. */
static void take_signals(struct local_run *run)
{
	struct signalfd_siginfo info;
	while (read(run->signal_item.fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (run->signal != 0) {
			run->hurry = true;
			continue;
		}
		run->signal = (int)info.ssi_signo;
		run_progress_clear();
		if (!run->quiet)
			fprintf(stderr, "bridgectl run: stopping: reading no more, %s (once more to give that up)\n",
				run->checkpoint_path != NULL ? "writing a checkpoint to go on from"
							     : "finishing what was read");
		stop_reading(run);
	}
}

/* The socket is there: all sessions are opened. */
static void open_sessions(struct local_run *run)
{
	if (run->opening || !run_sidecar_has_socket(&run->sidecar))
		return;
	run->opening = true;
	run_graph_open(&run->graph, run->client, run->watch);
}

/* All sessions are open: nothing on disk is needed any more, the sources begin. */
static void start_sources(struct local_run *run)
{
	if (run->started || run->graph.opened < run->graph.subtasks || !run->opening)
		return;
	run->started = true;
	run_sidecar_remove_folder(&run->sidecar);
	run->sidecar.served = true;
	run_progress_start(&run->progress, !run->quiet && !run->json);
	run_checkpoint_start(&run->graph);
	for (size_t i = 0; i < run->descriptor->source_count; i++)
		source_begin(&run->graph.sources[i]);
}

/* Looks at one watched descriptor: whether it became ready; and waits for it again. */
static bool look_at(struct local_run *run, struct watch_item *item)
{
	bool ready = watch_taken(item);
	if (ready || !item->armed)
		watch_arm(run->watch, item);
	return ready;
}

/* Signals, the sidecar's log, its socket, its end. */
static void take_watched(struct local_run *run)
{
	struct run_sidecar *sidecar = &run->sidecar;
	char how[128], drain[512];
	if (look_at(run, &run->signal_item))
		take_signals(run);
	if (look_at(run, &sidecar->log_item))
		run_sidecar_read_log(sidecar);
	if (!run->opening && look_at(run, &sidecar->birth_item))
		while (read(sidecar->birth_item.fd, drain, sizeof(drain)) > 0)
			;
	if (look_at(run, &sidecar->exit_item) && run_sidecar_check(sidecar)) {
		run_sidecar_read_log(sidecar);
		run_graph_fail(&run->graph, "the sidecar %s", run_sidecar_end(sidecar, how, sizeof(how)));
	}
	open_sessions(run);
	start_sources(run);
}

/* When the next source, or checkpoint, has something to do by itself; 0: now. */
static uint64_t next_source(struct local_run *run)
{
	uint64_t deadline = run_checkpoint_deadline(&run->graph);
	for (size_t i = 0; run->started && i < run->descriptor->source_count; i++) {
		uint64_t wanted = source_deadline(&run->graph.sources[i]);
		deadline = wanted < deadline ? wanted : deadline;
	}
	return deadline;
}

/* Lets every source read; sinks write when there is nothing to read. When the next source has something to do. */
static uint64_t turn_ends(struct local_run *run)
{
	run_checkpoint_turn(&run->graph);
	for (size_t i = 0; run->started && i < run->descriptor->source_count; i++)
		source_turn(&run->graph.sources[i]);
	run_graph_pump(&run->graph);
	if (next_source(run) == 0)
		return 0;
	for (size_t i = 0; i < run->descriptor->sink_count; i++)
		sink_flush(&run->graph.sinks[i]);
	run_graph_pump(&run->graph);
	return next_source(run);
}

/* Takes what gRPC has, waiting until `deadline_ns` for the first of it. */
static void take_events(struct local_run *run, uint64_t deadline_ns)
{
	struct client_event event;
	for (unsigned i = 0; i < EVENTS_PER_TURN && !run->graph.failed; i++) {
		enum client_event_kind kind = client_poll(run->client, i == 0 ? deadline_ns : 0, &event);
		if (kind == CLIENT_TIMEOUT)
			return;
		if (kind != CLIENT_WOKEN)
			subtask_event(event.owner, &event);
	}
}

/* Runs until everything has ended, something failed, or somebody is in a hurry. */
static void run_loop(struct local_run *run)
{
	take_watched(run);
	while (!run_graph_done(&run->graph) && !run->graph.failed && !run->hurry &&
	       (run->signal == 0 || run->started)) {
		uint64_t tick = run_graph_tick(&run->graph);
		uint64_t deadline = turn_ends(run);
		uint64_t progress = run->started ? run_progress_show(&run->progress, &run->graph) : UINT64_MAX;
		deadline = tick < deadline ? tick : deadline;
		deadline = progress < deadline ? progress : deadline;
		if (!run_graph_done(&run->graph) && !run->graph.failed)
			take_events(run, deadline);
		take_watched(run);
	}
}

/* ---- The end ---- */

/* What the summary calls it, and the exit code. */
static enum run_end end_of(const struct local_run *run)
{
	if (run->graph.failed)
		return RUN_FAILED;
	return run->signal != 0 ? RUN_INTERRUPTED : RUN_FINISHED;
}

/* Whether a sink writes to standard output, where the summary then must not go. */
static bool stdout_is_taken(const struct local_run *run)
{
	for (size_t i = 0; i < run->descriptor->sink_count; i++)
		if (run->graph.sinks[i].item.fd == STDOUT_FILENO)
			return true;
	return false;
}

/* Says how to go on after a failure. */
static void add_remedy(struct local_run *run)
{
	if (run->checkpoint_path == NULL || run->graph.refused)
		return;
	char *failure = run->graph.failure;
	size_t used = strlen(failure), room = sizeof(run->graph.failure) - used;
	uint64_t made = run->checkpoint.id - run->checkpoint.under_way;
	if (made > 0)
		snprintf(failure + used, room, "\n  start again with the same command to go on from checkpoint %llu",
			 (unsigned long long)made);
	else
		snprintf(failure + used, room, "\n  there was no checkpoint yet: the same command begins anew");
}

/* Says what failed, and what was done. */
static void report(struct local_run *run)
{
	char how[128];
	if (run->graph.failed && run->graph.connection_lost && run->sidecar.died)
		snprintf(run->graph.failure, sizeof(run->graph.failure), "the sidecar %s",
			 run_sidecar_end(&run->sidecar, how, sizeof(how)));
	if (run->graph.failed)
		add_remedy(run);
	run_progress_clear();
	if (run->graph.failed)
		fprintf(stderr, "bridgectl run: %s\n", run->graph.failure);
	if (run->json)
		run_progress_summary_json(&run->progress, &run->graph, end_of(run),
					  run->graph.failed ? run->graph.failure : NULL,
					  stdout_is_taken(run) ? stderr : stdout);
	else if (!run->quiet)
		run_progress_summary(&run->progress, &run->graph, end_of(run), stderr);
}

/* From the started sidecar to its end. Returns the exit code. */
static int run_pipeline(struct local_run *run)
{
	make_uuid(run->graph.jvm_uuid);
	run->client = client_connect(run->sidecar.address, &(struct client_options){.message_max = MESSAGE_MAX});
	if (run->client == NULL)
		fatalx("out of memory");
	run->watch = watch_start(run->client);
	run->graph.watch = run->watch;
	run_progress_start(&run->progress, false);
	run_loop(run);
	run_sidecar_check(&run->sidecar);
	report(run);
	run_graph_close(&run->graph);
	watch_stop(run->watch); /* it wakes the client */
	client_close(run->client);
	run_sidecar_stop(&run->sidecar, run->hurry, run->signal_item.fd);
	if (run->graph.failed)
		return BRIDGECTL_FAILED;
	return run->signal != 0 ? EXIT_SIGNAL + run->signal : BRIDGECTL_OK;
}

/* From the private folder to the end of the sidecar. Returns the exit code. */
static int run_in_folder(struct local_run *run, uint32_t sessions_per_slot)
{
	const char *config = arguments_value(&run->arguments, "config");
	struct run_sidecar_options options = {
	    .program = arguments_value(&run->arguments, "bridged"),
	    .config = config != NULL && load_has_sidecar(config) ? config : NULL,
	    .stats = arguments_value(&run->arguments, "stats"),
	    .delta_bytes = run->checkpoint_path != NULL ? DELTA_BYTES : DELTA_BYTES_UNWANTED,
	    .slots = (uint32_t)run->slots,
	    .sessions_per_slot = sessions_per_slot,
	    .verbose = run->verbose,
	};
	int code = BRIDGECTL_FAILED;
	if (!run_sidecar_prepare(&run->sidecar))
		return code;
	if (write_descriptor(run) && run_sidecar_start(&run->sidecar, &options))
		code = run_pipeline(run);
	run_sidecar_remove_folder(&run->sidecar);
	return code;
}

/* Opens the checkpoint and what it is about, and goes on from it. Returns the exit code, or -1 to run. */
static int prepare_checkpoint(struct local_run *run)
{
	if (!run_checkpoint_possible(&run->graph))
		return BRIDGECTL_MISUSED;
	bool fine =
	    run_checkpoint_open(&run->checkpoint, &run->graph, run->checkpoint_path, run->checkpoint_ms * 1000000);
	fine = fine && open_ends(run) && run_checkpoint_resume(&run->graph);
	if (!fine) {
		fprintf(stderr, "bridgectl run: %s\n", run->graph.failure);
		return run->graph.refused ? BRIDGECTL_MISUSED : BRIDGECTL_FAILED;
	}
	unsigned long long before = run->checkpoint.before.id;
	if (!run->quiet && before > 0 && !run_checkpoint_nothing_to_do(&run->graph))
		fprintf(stderr, "bridgectl run: going on from checkpoint %llu in %s\n", before, run->checkpoint_path);
	if (!run_checkpoint_nothing_to_do(&run->graph))
		return -1;
	if (!run->quiet)
		fprintf(stderr, "bridgectl run: nothing to do: all input was processed up to checkpoint %llu in %s\n",
			before, run->checkpoint_path);
	run_progress_start(&run->progress, false);
	report(run);
	return BRIDGECTL_OK;
}

/* A compiled pipeline: its ends are opened while Ctrl-C still just ends the program, since a named pipe may take its time. */
static int run_connected(struct local_run *run, uint32_t sessions_per_slot)
{
	int code = -1;
	if (!apply_overrides(run))
		return BRIDGECTL_MISUSED;
	if (!check_ends(run) || !check_spread(run))
		return BRIDGECTL_FAILED;
	if (run->checkpoint_path != NULL) {
		code = prepare_checkpoint(run);
	} else if (!open_ends(run)) {
		fprintf(stderr, "bridgectl run: %s\n", run->graph.failure);
		code = BRIDGECTL_FAILED;
	}
	if (code >= 0)
		return code;
	catch_signals(run);
	code = run_in_folder(run, sessions_per_slot);
	close(run->signal_item.fd);
	return code;
}

/* A compiled pipeline, from its graph to the graph's end. */
static int run_compiled(struct local_run *run)
{
	uint32_t sessions_per_slot;
	if (!choose_slots(run, &sessions_per_slot))
		return BRIDGECTL_FAILED;
	run_graph_create(&run->graph, run->descriptor, (uint32_t)run->slots);
	if (run->limit > 0)
		run->graph.records_left = run->limit;
	int code = run_connected(run, sessions_per_slot);
	run_graph_free(&run->graph);
	run_checkpoint_close(&run->checkpoint);
	return code;
}

/* `bridgectl run PIPELINE` */
int cmd_run(int argc, char **argv)
{
	struct local_run run = {.signal_item.fd = -1};
	int code = arguments_read(&run.arguments, 1, 1, argc, argv);
	if (code >= 0)
		return code;
	if (!read_number(&run, "slots", SLOTS_MAX, &run.slots) || !read_number(&run, "limit", UINT64_MAX, &run.limit) ||
	    !read_checkpoint(&run))
		return BRIDGECTL_MISUSED;
	run.quiet = arguments_given(&run.arguments, "quiet");
	run.json = arguments_given(&run.arguments, "json");
	run.verbose = arguments_given(&run.arguments, "verbose");
	if (!compile_pipeline(&run))
		return BRIDGECTL_FAILED;
	load_set_code_paths(run.arguments.operands[0]);
	code = run_compiled(&run);
	descriptor_free(run.descriptor);
	jq_programs_free();
	return code;
}
