/*
 * `bridgectl replay`: runs a recording, such as a capture of what workers died of, through the same chain in this process.
 *
 * The worker's own serving code runs it, over memory of a private slot, with this command as the front. So what killed a worker kills
 * this process in the same way, and a debugger can be there: gdb --args bridgectl replay FILE. No watchdog ends a program without
 * end. What comes out goes to standard output, all words to standard error.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include <flink_bridge.pb-c.h>

#include "cli/commands.h"
#include "cli/load.h"
#include "shared/json.h"
#include "shared/log.h"
#include "shared/recording.h"
#include "worker/jq_program.h"
#include "worker/solo.h"

enum { CHANNEL = 1, CHANNELS = 2, EPOCH = 1, GENERATION = 1 };

/* What flags bound these to. */
#define MESSAGE_BYTES_MAX (UINT64_C(256) << 20)
#define STATE_BYTES_MIN (UINT64_C(256) << 20)

struct replay {
	struct recording recording;
	struct descriptor *descriptor;
	struct sidecar sidecar;
	struct slot_memory front;
	struct workspace workspace;
	struct serve *serve;
	struct solo_channel channel;
	bool json;
	bool ended;  /* the session has */
	bool failed; /* it ended with an Error, or what it answered cannot be read */
	uint64_t results;
	uint64_t asked, answered; /* the last seq handed in, and that an answer was the last one to */
};

/* ---- What came out --------------------------------------------------------------------------------------------------- */

/* Writes bytes as a JSON string: as the text that they are. */
static void json_bytes(struct json *json, const char *key, ProtobufCBinaryData bytes)
{
	char *text = malloc(bytes.len + 1);

	CHECK(text != NULL);
	if (bytes.len > 0)
		memcpy(text, bytes.data, bytes.len);
	text[bytes.len] = '\0';
	json_text(json, key, text);
	free(text);
}

/* Prints a record that the session made. */
static void print_record(const struct replay *replay, const FlinkBridge__Record *record)
{
	const struct segment *segment = &replay->descriptor->segments[replay->recording.header.segment];
	struct json json;

	if (!replay->json) {
		fwrite(record->payload.data, 1, record->payload.len, stdout);
		putchar('\n');
		return;
	}
	json_init(&json, stdout);
	json_open_object(&json, NULL);
	json_text(&json, "kind", "result");
	json_bytes(&json, "payload", record->payload);
	if (record->maybe_timestamp_case == FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP)
		json_signed(&json, "timestamp", record->timestamp);
	if (record->maybe_key_case == FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY)
		json_bytes(&json, "key", record->key);
	if (record->route < segment->route_count)
		json_text(&json, "route", segment->routes[record->route]);
	json_open_object(&json, "headers");
	for (size_t i = 0; i < record->n_headers; i++)
		json_text(&json, record->headers[i]->key, record->headers[i]->value);
	json_close_object(&json);
	json_close_object(&json);
	putchar('\n');
}

/* Prints an Error. */
static void print_error(struct replay *replay, const FlinkBridge__Error *error)
{
	struct json json;

	replay->failed = true;
	if (!replay->json) {
		fprintf(stderr, "bridgectl: the session ends: %s\n", error->message);
		return;
	}
	json_init(&json, stdout);
	json_open_object(&json, NULL);
	json_text(&json, "kind", "error");
	json_text(&json, "step", error->step);
	json_text(&json, "message", error->message);
	json_close_object(&json);
	putchar('\n');
}

/* Looks at an answer. */
static void take_answer(struct replay *replay, struct view bytes)
{
	FlinkBridge__FromWorker *answer = flink_bridge__from_worker__unpack(NULL, bytes.size, bytes.data);

	if (answer == NULL) {
		fprintf(stderr, "bridgectl: an answer cannot be read\n");
		replay->failed = true;
		return;
	}
	if (answer->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
		print_error(replay, answer->error);
	for (size_t i = 0;
	     answer->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS && i < answer->results->n_records; i++) {
		print_record(replay, answer->results->records[i]);
		replay->results++;
	}
	fflush(stdout);
	flink_bridge__from_worker__free_unpacked(answer, NULL);
}

/* Takes all answers that there are. */
static void take_answers(struct replay *replay)
{
	const uint8_t *payload;
	struct frame frame;

	while (solo_peek(&replay->channel, &frame, &payload) == RING_OK) {
		if (frame.kind == FRAME_ANSWER)
			take_answer(replay, (struct view){payload, frame.length - sizeof(frame)});
		if ((frame.flags & FRAME_LAST) != 0)
			replay->answered = frame.seq;
		replay->ended |= frame.kind == FRAME_END;
		solo_release(&replay->front, &replay->channel, CHANNEL, &frame);
	}
}

/* ---- The run --------------------------------------------------------------------------------------------------------- */

/* Gives the worker a turn; false when it has nothing to do, or cannot go on. */
static bool turn(struct replay *replay)
{
	enum serve_result result = serve_turn(replay->serve);

	take_answers(replay);
	if (result != SERVE_DAMAGED)
		return result == SERVE_BUSY || serve_rest(replay->serve);
	fprintf(stderr, "bridgectl: the memory of the replay is damaged\n");
	replay->ended = replay->failed = true;
	return false;
}

/* Hands a message in, as soon as there is room. */
static void hand_in(struct replay *replay, struct view message)
{
	struct wire_to_worker envelope = {0};
	struct frame frame = {.kind = FRAME_MESSAGE, .segment = replay->recording.header.segment};

	if (wire_parse_to_worker(message, &envelope) == WIRE_OK && envelope.kind == TO_WORKER_OPEN)
		frame.kind = FRAME_OPEN;
	frame.seq = replay->asked = envelope.seq;
	while (!replay->ended && !solo_push(&replay->front, &replay->channel, CHANNEL, frame, message))
		if (!turn(replay))
			break;
}

/* Runs all messages. */
static void run(struct replay *replay)
{
	const struct recording *recording = &replay->recording;

	for (uint32_t i = 0; i < recording->message_count && !replay->ended; i++)
		hand_in(replay, recording->messages[i]);
	while (turn(replay))
		;
	if (!replay->failed && replay->answered != replay->asked) {
		fprintf(stderr, "bridgectl: the recording ends before there is an answer to its last message\n");
		replay->failed = true;
	}
	if (!replay->json && !replay->failed)
		fprintf(stderr, "bridgectl: replayed: %" PRIu64 " record%s came out\n", replay->results,
			replay->results == 1 ? "" : "s");
}

/* ---- The slot -------------------------------------------------------------------------------------------------------- */

/* The smaller of a number and a bound, and the larger. */
static uint64_t at_most(uint64_t number, uint64_t bound)
{
	return number < bound ? number : bound;
}

static uint64_t at_least(uint64_t number, uint64_t bound)
{
	return number > bound ? number : bound;
}

/* Configures a sidecar as the session had it, but that every message of the recording fits. */
static void configure(struct replay *replay, struct slot_sizes *sizes)
{
	const struct recording *recording = &replay->recording;
	uint64_t message = at_least(at_most(recording->header.message_max, MESSAGE_BYTES_MAX), 64 << 10);
	uint64_t ring = 1 << 20;

	for (uint32_t i = 0; i < recording->message_count; i++)
		message = at_least(message, recording->messages[i].size);
	while (ring < 4 * (message + sizeof(struct frame)))
		ring *= 2;
	*sizes = (struct slot_sizes){
	    .channel_count = CHANNELS,
	    .unary_ring = 1 << 20,
	    .session_ring = ring,
	    .arena = arena_size_for(at_least(4 * recording->size, STATE_BYTES_MIN)),
	};
	replay->sidecar.descriptor = replay->descriptor;
	replay->sidecar.config = (struct config){
	    .slots = 1,
	    .message_max = message,
	    .record_max = at_most(at_least(recording->header.record_max, 64), message),
	    .unary_message_max = 64 << 10,
	    .window_bytes_max = 64 << 10,
	    .window_age_ms_max = 60000,
	    .delta_bytes = UINT64_MAX, /* there is nobody to keep it */
	    .log_level = LOG_ERROR,
	};
}

/* Makes the slot, runs the recording in it, and gives the slot back. */
static void run_in_slot(struct replay *replay)
{
	struct slot_sizes sizes;
	char why[SOLO_WHY_MAX];

	configure(replay, &sizes);
	if (solo_make(&replay->sidecar, &sizes, &replay->front) != 0) {
		fprintf(stderr, "bridgectl: no memory for a slot: %s\n", strerror(errno));
		replay->failed = true;
		return;
	}
	if (slot_attach_worker(&replay->sidecar.slots[0]) != 0)
		fatal("the memory of the slot cannot be mapped");
	replay->serve = solo_own(&replay->sidecar, &replay->workspace, GENERATION, why);
	if (replay->serve != NULL) {
		serve_reset(replay->serve);
		if (solo_open_channel(&replay->front, &replay->channel, CHANNEL, replay->recording.header.segment,
				      EPOCH, GENERATION) != 0)
			fatal("no memory for a channel");
		run(replay);
		serve_destroy(replay->serve);
	} else {
		fprintf(stderr, "bridgectl: %s\n", why);
		replay->failed = true;
	}
	workspace_deinit(&replay->workspace);
	solo_destroy(&replay->sidecar, &replay->front);
	jq_programs_free();
}

/* ---- What is replayed ------------------------------------------------------------------------------------------------ */

/* A view as a printf argument. */
#define VIEW(view) (int)(view).size, (const char *)(view).data

/* Writes a view as a member. */
static void json_view(struct json *json, const char *key, struct view view)
{
	json_bytes(json, key, (ProtobufCBinaryData){view.size, (uint8_t *)view.data});
}

/* Prints what the recording says of itself as JSON. */
static void describe_as_json(const struct recording_header *header)
{
	struct json json;

	json_init(&json, stdout);
	json_open_object(&json, NULL);
	json_text(&json, "kind", "recording");
	json_view(&json, "pipeline", header->pipeline);
	json_view(&json, "topology_hash", header->topology_hash);
	json_unsigned(&json, "slot", header->slot);
	json_unsigned(&json, "process", header->process);
	json_unsigned(&json, "segment", header->segment);
	json_view(&json, "segment_name", header->segment_name);
	json_view(&json, "step", header->step);
	json_unsigned(&json, "seq", header->seq);
	json_unsigned(&json, "record", header->record);
	json_view(&json, "cause", header->cause);
	json_signed(&json, "when_ms", header->when_ms);
	json_bool(&json, "incomplete", header->incomplete);
	json_view(&json, "release", header->release);
	json_close_object(&json);
	putchar('\n');
}

/* Says what the recording says of itself: before it is run, which may be the end. */
static void describe(const struct replay *replay)
{
	const struct recording_header *header = &replay->recording.header;
	time_t seconds = (time_t)(header->when_ms / 1000);
	char when[32] = "?";
	struct tm tm;

	if (gmtime_r(&seconds, &tm) != NULL)
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (replay->json)
		describe_as_json(header);
	else
		fprintf(stderr,
			"bridgectl: pipeline \"%.*s\", segment \"%.*s\", step \"%.*s\": process %" PRIu32
			" of slot %" PRIu32 " died at seq %" PRIu64 ", record %" PRIu32 " (%.*s), kept %s\n",
			VIEW(header->pipeline), VIEW(header->segment_name), VIEW(header->step), header->process,
			header->slot, header->seq, header->record, VIEW(header->cause), when);
	if (header->incomplete)
		fprintf(stderr, "bridgectl: only a part of the state that the input may read is in it\n");
	if (!view_equal(header->release, view_of(BRIDGE_VERSION)))
		fprintf(stderr, "bridgectl: release %.*s died of it, this is release %s\n", VIEW(header->release),
			BRIDGE_VERSION);
	fflush(stdout);
}

/* Whether the recorded segment is there in the descriptor; says what is different. */
static bool segment_fits(const struct replay *replay)
{
	const struct recording_header *header = &replay->recording.header;
	const struct descriptor *descriptor = replay->descriptor;

	if (header->segment >= descriptor->segment_count) {
		fprintf(stderr,
			"bridgectl: the recording is of segment %" PRIu32 "; pipeline \"%s\" has %zu segments\n",
			header->segment, descriptor->pipeline, descriptor->segment_count);
		return false;
	}
	if (!view_equal(header->topology_hash, view_of(descriptor->topology_hash)))
		fprintf(
		    stderr,
		    "bridgectl: the topology is another one than that of the recording: its segment \"%.*s\" runs as "
		    "segment %" PRIu32 " of this descriptor, \"%s\"\n",
		    VIEW(header->segment_name), header->segment, descriptor->segments[header->segment].name);
	return true;
}

/* Loads the code to run: the recording's own, or that of a file. False: all is said. */
static bool load_code(struct replay *replay, const char *recording, const char *file)
{
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	replay->descriptor = file != NULL
				 ? descriptor_load(file, &diagnostics)
				 : descriptor_parse(recording, replay->recording.header.descriptor, &diagnostics);
	if (replay->descriptor == NULL)
		diagnostics_print(&diagnostics, stderr, load_wants_colour(stderr));
	diagnostics_free(&diagnostics);
	return replay->descriptor != NULL && segment_fits(replay);
}

/* `bridgectl replay FILE [--descriptor FILE] [--json]` */
int cmd_replay(int argc, char **argv)
{
	struct arguments arguments;
	static struct replay replay; /* large */
	char why[RECORDING_WHY_MAX];
	int code = arguments_read(&arguments, 1, 1, argc, argv);

	if (code >= 0)
		return code;
	const char *path = arguments.operands[0];
	replay.json = arguments_given(&arguments, "json");
	log_init("replay", LOG_ERROR);
	if (!recording_read(&replay.recording, path, why)) {
		fprintf(stderr, "bridgectl: %s: %s\n", path, why);
		replay.failed = true;
	} else {
		describe(&replay);
		replay.failed = !load_code(&replay, path, arguments_value(&arguments, "descriptor"));
		if (!replay.failed)
			run_in_slot(&replay);
	}
	descriptor_free(replay.descriptor);
	recording_free(&replay.recording);
	return replay.failed || ferror(stdout) ? BRIDGECTL_FAILED : BRIDGECTL_OK;
}
