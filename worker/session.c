/*
 * The Session contract, as the worker keeps it.
 *
 * What a session is strict about: seq goes up by one from Open's 1; processing time and watermark never go back; Open comes
 * first and once; after EndInput no Batch and no second EndInput (time goes on, barriers and Close are fine); record keys
 * belong to the segment and to the subtask; no record is larger than the limit. What breaks a rule is answered by a fatal Error
 * and the end of the stream; so is a step that fails.
 *
 * The truth about where a session stands is its session_position in the arena. A unit is taken over there when its outputs are
 * written (still invisible: the caller publishes them afterwards).
 *
 * Left out until state survives a worker: undo of a unit that a crash cut short, RestoreChunk, StateDelta.
 */
#include "worker/session.h"

#include <flink_bridge.pb-c.h>
#include <grpc/status.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/log.h"

enum {
	UNIT_RECORDS =
	    256, /* enough to make the cost of a unit vanish, few enough to stay in the cache and within a turn */
	PROTOCOL_VERSION = 1,
	TEXT_MAX = 2048 /* more than is sent, so that the cut is made between characters */,
};

struct session {
	struct workspace *workspace;
	struct output *output;
	struct session_position *position; /* in the arena */
	const struct segment *segment;     /* NULL before Open */
	struct chain *chain;
	uint32_t channel, epoch;
	uint32_t key_group_first, key_group_last;
	bool identity; /* the chain hands records on untouched */
	bool finished;

	/* The message at hand. */
	bool midway;       /* it is a Batch, and units are left of it */
	uint64_t began_ns; /* when it was taken */
	uint64_t offset;   /* bytes of a Batch that are done */
	uint32_t done;     /* records of a Batch that are done */
};

/* What goes wrong, and how the stream ends because of it. */
struct fault {
	FlinkBridge__ErrorCode code;
	grpc_status_code status;
	uint32_t record;
	const char *step;
};

/* The kinds of fault that have nothing else to say. */
#define FAULT_MALFORMED                                                                                                \
	(struct fault)                                                                                                 \
	{                                                                                                              \
		.code = FLINK_BRIDGE__ERROR_CODE__ERROR_MALFORMED, .status = GRPC_STATUS_INVALID_ARGUMENT              \
	}
#define FAULT_SEQUENCE                                                                                                 \
	(struct fault)                                                                                                 \
	{                                                                                                              \
		.code = FLINK_BRIDGE__ERROR_CODE__ERROR_SEQUENCE, .status = GRPC_STATUS_INVALID_ARGUMENT               \
	}
#define FAULT_STATE                                                                                                    \
	(struct fault)                                                                                                 \
	{                                                                                                              \
		.code = FLINK_BRIDGE__ERROR_CODE__ERROR_STATE, .status = GRPC_STATUS_INVALID_ARGUMENT                  \
	}
#define FAULT_STEP                                                                                                     \
	(struct fault)                                                                                                 \
	{                                                                                                              \
		.code = FLINK_BRIDGE__ERROR_CODE__ERROR_STEP, .status = GRPC_STATUS_INTERNAL                           \
	}

/* The same fault, blamed on a record of the batch. */
static struct fault fault_at(struct fault fault, uint32_t record)
{
	fault.record = record;
	return fault;
}

/* A session on a channel, before its Open. */
struct session *session_create(struct workspace *workspace, struct output *output, uint32_t channel, uint32_t epoch)
{
	struct session *session = calloc(1, sizeof(*session));

	if (session == NULL)
		fatalx("no memory for a session");
	session->workspace = workspace;
	session->output = output;
	session->channel = channel;
	session->epoch = epoch;
	session->position = &workspace->arena->position[channel];
	*session->position = (struct session_position){.epoch = epoch, .watermark = INT64_MIN};
	return session;
}

/* Frees the steps; the session will take nothing more. */
static void finish(struct session *session)
{
	if (session->chain != NULL)
		chain_destroy(session->chain);
	session->chain = NULL;
	session->finished = true;
}

/* Drops a session. */
void session_destroy(struct session *session)
{
	if (session == NULL)
		return;
	finish(session);
	*session->position = (struct session_position){0};
	free(session);
}

/* Takes what a unit did over. */
static void commit(struct session *session)
{
	_Atomic uint64_t *number = &session->workspace->arena->commit;

	atomic_store_explicit(number, atomic_load_explicit(number, memory_order_relaxed) + 1, memory_order_release);
}

/* The time that steps see. */
static struct step_time time_now(const struct session *session)
{
	return (struct step_time){
	    .processing_ms = session->position->processing_time,
	    .watermark_ms = session->position->watermark,
	};
}

/* When the chain wants a tick, as the wire has it. */
static int64_t next_wakeup(const struct session *session)
{
	int64_t at = chain_next_wakeup(session->chain);

	if (at == INT64_MAX)
		return 0;
	return at > 0 ? at : 1;
}

/* Writes an Error answer. */
static void write_error(struct session *session, const struct fault *fault, const char *text)
{
	struct view step = view_of(fault->step == NULL ? "" : fault->step);
	struct view message = {(const uint8_t *)text, text_cut(text, STATUS_TEXT_MAX)};
	struct wire_writer *writer = output_begin(session->output, 128 + step.size + message.size);
	uint8_t *error;

	wire_put_varint_field(writer, 1, session->output->header.seq);
	error = wire_begin(writer, FROM_WORKER_ERROR);
	wire_put_varint_field(writer, 1, (uint64_t)fault->code);
	wire_put_varint_field(writer, 2, true);
	wire_put_varint_field(writer, 3, session->output->header.seq);
	wire_put_varint_field(writer, 4, fault->record);
	wire_put_bytes_field(writer, 5, step);
	wire_put_bytes_field(writer, 6, message);
	wire_end(writer, error);
	output_end(session->output, FRAME_ANSWER, true);
}

/* Ends the session with an Error and a status, both in the same words. Always returns false, for callers to pass on. */
static bool __attribute__((format(printf, 3, 4)))
fail(struct session *session, struct fault fault, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	output_drop(session->output);
	write_error(session, &fault, text);
	output_status(session->output, FRAME_END, fault.status, text);
	if (session->segment != NULL)
		counter_add(&workspace_segment_counters(session->workspace, session->segment->id)->errors, 1);
	log_warn("session of segment %u, channel %u, epoch %u ends: %s", session->output->header.segment,
		 session->channel, session->epoch, text);
	finish(session);
	return false;
}

/* The same for a step; `record` is an index in the message. */
static bool fail_step(struct session *session, const struct failure *failure, uint32_t record)
{
	const struct segment *segment = session->segment;
	struct fault fault = FAULT_STEP;

	fault.record = record;
	fault.step = failure->step < segment->step_count ? segment->steps[failure->step].name : "";
	return fail(session, fault, "segment \"%s\" step \"%s\" record %" PRIu32 ": %s", segment->name, fault.step,
		    record, failure->message);
}

/* The same for an output that is larger than a record may be. */
static bool fail_output(struct session *session, uint64_t size)
{
	const struct output *output = session->output;
	struct fault fault = {.code = FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE,
			      .status = GRPC_STATUS_RESOURCE_EXHAUSTED};

	return fail(session, fault,
		    "segment \"%s\" made a record of %" PRIu64 " bytes; a record may have %" PRIu64
		    " (and a message %" PRIu64 "): make it smaller, or raise --record-max and --message-max",
		    session->segment->name, size, output->record_max, output->message_max);
}

/* The same when the arrays for a unit cannot be had. */
static bool fail_memory(struct session *session)
{
	struct fault fault = {.code = FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE,
			      .status = GRPC_STATUS_RESOURCE_EXHAUSTED};

	return fail(session, fault, "segment \"%s\": the worker has no memory for the message", session->segment->name);
}

/* The same for a message whose inside cannot be read. */
static bool fail_malformed(struct session *session, const char *kind)
{
	return fail(session, FAULT_MALFORMED, "the %s message cannot be read as flink_bridge.%s", kind, kind);
}

/* Counts records that enter or leave the segment. */
static void count(const struct session *session, bool in, uint64_t records, uint64_t bytes)
{
	struct worker_segment_counters *counters = workspace_segment_counters(session->workspace, session->segment->id);

	counter_add(in ? &counters->records_in : &counters->records_out, records);
	counter_add(in ? &counters->bytes_in : &counters->bytes_out, bytes);
}

/* ---- Open ---------------------------------------------------------------------------------------------------------- */

/* Answers an Open. */
static void write_open_ack(struct session *session)
{
	const struct workspace *workspace = session->workspace;
	struct wire_writer *writer = output_begin(session->output, 256);
	uint8_t *ack, *limits;

	wire_put_varint_field(writer, 1, session->output->header.seq);
	ack = wire_begin(writer, FROM_WORKER_OPEN_ACK);
	wire_put_varint_field(writer, 1, session->epoch);
	wire_put_varint_field(writer, 2, workspace->slot);
	wire_put_varint_field(writer, 3, (uint64_t)getpid());
	limits = wire_begin(writer, 4);
	wire_put_varint_field(writer, 1, session->output->message_max);
	wire_put_varint_field(writer, 2, session->output->record_max);
	wire_end(writer, limits);
	wire_put_bytes_field(writer, 5, view_of(BRIDGE_VERSION));
	wire_end(writer, ack);
	output_end(session->output, FRAME_ANSWER, true);
}

/* Checks the parts of an Open that records are held against later. */
static bool open_check(struct session *session, const struct frame *frame, const FlinkBridge__Open *open)
{
	const struct descriptor *descriptor = session->workspace->descriptor;
	const struct segment *segment;

	if (open->protocol_version != PROTOCOL_VERSION)
		return fail(session, FAULT_STATE, "protocol version %" PRIu32 " is not spoken here; use version %d",
			    open->protocol_version, PROTOCOL_VERSION),
		       false;
	if (open->segment != frame->segment || open->segment >= descriptor->segment_count)
		return fail(session, FAULT_STATE,
			    "there is no segment %" PRIu32 "; pipeline \"%s\" has segments 0 to %zu", open->segment,
			    descriptor->pipeline, descriptor->segment_count - 1),
		       false;
	segment = &descriptor->segments[open->segment];
	if (segment->keyed &&
	    (open->key_group_first > open->key_group_last || open->key_group_last >= open->max_parallelism))
		return fail(session, FAULT_STATE,
			    "segment \"%s\" is keyed, so Open must name its key groups: %" PRIu32 " to %" PRIu32
			    " of max_parallelism %" PRIu32 " is no range",
			    segment->name, open->key_group_first, open->key_group_last, open->max_parallelism);
	session->segment = segment;
	session->key_group_first = open->key_group_first;
	session->key_group_last = open->key_group_last;
	return true;
}

/* Takes an Open: opens the chain and answers. */
static bool take_open(struct session *session, const struct frame *frame, struct view body)
{
	FlinkBridge__Open *open = flink_bridge__open__unpack(NULL, body.size, body.data);
	struct failure failure = {0};
	bool good;

	if (open == NULL)
		return fail_malformed(session, "Open");
	good = open_check(session, frame, open);
	flink_bridge__open__free_unpacked(open, NULL);
	if (!good)
		return false;
	session->position->segment = session->segment->id;
	session->chain = workspace_chain(session->workspace, session->segment, &failure);
	if (session->chain == NULL)
		return fail_step(session, &failure, 0);
	session->identity = chain_is_identity(session->chain);
	write_open_ack(session);
	return true;
}

/* ---- Batch --------------------------------------------------------------------------------------------------------- */

/* Checks a record against segment, key groups and limits. */
static bool record_check(struct session *session, const struct wire_record *record, uint32_t index, uint64_t size)
{
	const struct segment *segment = session->segment;
	struct fault fault = fault_at(FAULT_MALFORMED, index);

	if (__builtin_expect(size > session->output->record_max, 0)) {
		fault.code = FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE;
		fault.status = GRPC_STATUS_RESOURCE_EXHAUSTED;
		return fail(session, fault, "record %" PRIu32 " has %" PRIu64 " bytes; a record may have %" PRIu64,
			    index, size, session->output->record_max),
		       false;
	}
	if (__builtin_expect(record->input > 0 && record->input >= segment->input_count, 0))
		return fail(session, fault, "record %" PRIu32 " names input %" PRIu32 "; segment \"%s\" has %zu", index,
			    record->input, segment->name, segment->input_count),
		       false;
	if (!segment->keyed)
		return true;
	if (!record->keyed)
		return fail(session, fault, "record %" PRIu32 " has no key; segment \"%s\" is keyed", index,
			    segment->name),
		       false;
	if (record->key_group < session->key_group_first || record->key_group > session->key_group_last)
		return fail(session, fault,
			    "record %" PRIu32 " is of key group %" PRIu32 "; this session has %" PRIu32 " to %" PRIu32,
			    index, record->key_group, session->key_group_first, session->key_group_last),
		       false;
	return true;
}

/* Reads the records of the next unit into the workspace and moves `rest` behind them. False: the session has failed. */
static bool unit_read(struct session *session, struct view *rest)
{
	struct wire_batch *batch = &session->workspace->batch;
	struct wire_reader reader;
	struct wire_field field;

	wire_reader_init(&reader, *rest);
	while (batch->count < UNIT_RECORDS && wire_next(&reader, &field)) {
		uint32_t index = session->done + batch->count;
		enum wire_result result;

		if (field.number != 1)
			continue;
		result = field.type == WIRE_BYTES ? wire_parse_record(field.bytes, batch) : WIRE_MALFORMED;
		if (result == WIRE_NO_MEMORY)
			return fail_memory(session);
		if (result != WIRE_OK)
			return fail(session, fault_at(FAULT_MALFORMED, index), "record %" PRIu32 " of the batch: %s",
				    index, wire_result_text(result));
		if (!record_check(session, &batch->records[batch->count - 1], index, field.bytes.size))
			return false;
	}
	if (reader.malformed)
		return fail(session, fault_at(FAULT_MALFORMED, session->done + batch->count),
			    "the batch cannot be read behind its first %" PRIu32 " records",
			    session->done + batch->count);
	*rest = (struct view){reader.at, (size_t)(reader.end - reader.at)};
	return true;
}

/* The fast path: records go from the request straight into the answer. */
static bool unit_pass(struct session *session, uint64_t rest)
{
	struct wire_batch *batch = &session->workspace->batch;
	uint64_t bytes = 0, size;

	for (uint32_t i = 0; i < batch->count; i++) {
		batch->records[i].input = 0;
		batch->records[i].route = 0;
		bytes += batch->records[i].payload.size;
	}
	if (output_records(session->output, batch->records, batch->count, batch->headers, rest, &size) != OUTPUT_OK)
		return fail_output(session, size);
	workspace_count_identity(session->workspace, session->segment, batch->count);
	count(session, true, batch->count, bytes);
	count(session, false, batch->count, bytes);
	return true;
}

/* Writes a run's outputs and counts them. */
static bool unit_write(struct session *session, uint64_t expect)
{
	struct run *run = &session->workspace->run;
	uint64_t bytes = 0, size;

	if (output_run(session->output, run, session->segment->route_count > 0, expect, &size) != OUTPUT_OK)
		return fail_output(session, size);
	for (uint32_t i = 0; i < run->count; i++)
		bytes += run->records[i].payload.size;
	count(session, false, run->count, bytes);
	return true;
}

/* The way through the chain. */
static bool unit_run(struct session *session, uint64_t rest)
{
	struct workspace *workspace = session->workspace;
	const struct wire_batch *batch = &workspace->batch;
	struct failure failure = {0};
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < batch->count; i++)
		bytes += batch->records[i].payload.size;
	count(session, true, batch->count, bytes);
	if (!run_take_batch(&workspace->run, batch, 0, batch->count))
		return fail_memory(session);
	if (!chain_process(session->chain, &workspace->run, time_now(session), &failure))
		return fail_step(session, &failure, session->done + failure.origin);
	/* What the rest of the batch will come to is anybody's guess. */
	return unit_write(session, rest > 0 ? session->output->message_max : 0);
}

/* Takes a Batch, or goes on with one. */
static bool take_batch(struct session *session, struct view body)
{
	struct view rest = {body.data + session->offset, body.size - session->offset};

	while (rest.size > 0) {
		workspace_clear(session->workspace);
		progress_record(session->workspace, session->done);
		if (!unit_read(session, &rest))
			return false;
		if (!(session->identity ? unit_pass(session, rest.size) : unit_run(session, rest.size)))
			return false;
		session->offset = body.size - rest.size;
		session->done += session->workspace->batch.count;
		commit(session);
		if (rest.size > 0 &&
		    (output_is_parked(session->output) || workspace_turn_is_over(session->workspace))) {
			if (output_results_open(session->output))
				output_results_end(session->output, true, false, 0);
			session->midway = true;
			return true;
		}
	}
	output_results_end(session->output, false, true, next_wakeup(session));
	return true;
}

/* ---- Everything else ----------------------------------------------------------------------------------------------- */

/* Lets steps release what they hold, and writes it. */
static bool release(struct session *session, enum release_cause cause)
{
	struct workspace *workspace = session->workspace;
	struct failure failure = {0};
	bool more;

	workspace_clear(workspace);
	if (!chain_release(session->chain, cause, time_now(session), UINT32_MAX, &workspace->run, &more, &failure))
		return fail_step(session, &failure, 0);
	return unit_write(session, 0);
}

/* Writes an answer that has no more than a number in it (field 1, unless 0), as the last of its seq. */
static void write_ack(struct session *session, uint32_t kind, uint64_t number)
{
	struct wire_writer *writer = output_begin(session->output, 64);
	int64_t wakeup = next_wakeup(session);
	uint8_t *ack;

	wire_put_varint_field(writer, 1, session->output->header.seq);
	if (wakeup != 0)
		wire_put_varint_field(writer, 2, (uint64_t)wakeup);
	ack = wire_begin(writer, kind);
	if (number != 0)
		wire_put_varint_field(writer, 1, number);
	wire_end(writer, ack);
	output_end(session->output, FRAME_ANSWER, true);
}

/* Takes a Watermark. */
static bool take_watermark(struct session *session, struct view body)
{
	uint64_t number;
	int64_t timestamp;

	if (wire_parse_number(body, &number) != WIRE_OK)
		return fail_malformed(session, "Watermark");
	timestamp = (int64_t)number;
	if (timestamp < session->position->watermark)
		return fail(session, FAULT_SEQUENCE,
			    "the watermark went back from %" PRId64 " to %" PRId64 "; it may only go on",
			    session->position->watermark, timestamp);
	session->position->watermark = timestamp;
	if (!release(session, RELEASE_WATERMARK))
		return false;
	output_results_end(session->output, false, true, next_wakeup(session));
	return true;
}

/* Takes a WatermarkStatus: nothing here waits for an idle input. */
static bool take_watermark_status(struct session *session, struct view body)
{
	bool idle;

	if (wire_parse_flag(body, &idle) != WIRE_OK)
		return fail_malformed(session, "WatermarkStatus");
	output_results_end(session->output, false, true, next_wakeup(session));
	return true;
}

/* Takes a TimerTick. */
static bool take_tick(struct session *session, struct view body)
{
	if (wire_parse_empty(body) != WIRE_OK)
		return fail_malformed(session, "TimerTick");
	if (!release(session, RELEASE_TICK))
		return false;
	output_results_end(session->output, false, true, next_wakeup(session));
	return true;
}

/* Takes a Barrier: all that steps hold goes before it. */
static bool take_barrier(struct session *session, struct view body)
{
	uint64_t checkpoint;

	if (wire_parse_number(body, &checkpoint) != WIRE_OK)
		return fail_malformed(session, "Barrier");
	if (!release(session, RELEASE_END))
		return false;
	if (output_results_open(session->output))
		output_results_end(session->output, false, false, 0);
	write_ack(session, FROM_WORKER_BARRIER_ACK, checkpoint);
	return true;
}

/* Takes an EndInput. */
static bool take_end_input(struct session *session, struct view body)
{
	if (wire_parse_empty(body) != WIRE_OK)
		return fail_malformed(session, "EndInput");
	if (session->position->ended)
		return fail(session, FAULT_STATE, "EndInput came twice");
	session->position->ended = 1;
	if (!release(session, RELEASE_END))
		return false;
	if (output_results_open(session->output))
		output_results_end(session->output, false, false, 0);
	write_ack(session, FROM_WORKER_END_ACK, 0);
	return true;
}

/* Takes a Close. */
static bool take_close(struct session *session, struct view body)
{
	struct view reason;

	if (wire_parse_text(body, &reason) != WIRE_OK)
		return fail_malformed(session, "Close");
	output_status(session->output, FRAME_END, GRPC_STATUS_OK, "");
	finish(session);
	return true;
}

/* Checks an envelope against what had to come next, and takes its time over. False: the session has failed. */
static bool envelope_check(struct session *session, const struct frame *frame, const struct wire_to_worker *message)
{
	struct session_position *position = session->position;
	bool is_open = message->kind == TO_WORKER_OPEN;

	if (message->seq != position->seq + 1)
		return fail(session, FAULT_SEQUENCE, "seq %" PRIu64 " came where %" PRIu64 " had to", message->seq,
			    position->seq + 1);
	if (message->processing_time_ms < position->processing_time)
		return fail(session, FAULT_SEQUENCE,
			    "processing time went back from %" PRId64 " to %" PRId64 " ms; it may only go on",
			    position->processing_time, message->processing_time_ms),
		       false;
	if (is_open != (frame->kind == FRAME_OPEN) || is_open != (session->segment == NULL))
		return fail(session, FAULT_STATE, is_open ? "Open came twice" : "the first message has to be Open");
	if (position->ended && message->kind == TO_WORKER_BATCH)
		return fail(session, FAULT_STATE, "a Batch came after EndInput");
	position->processing_time = message->processing_time_ms;
	return true;
}

/* Works on a message whose envelope is right. False: the session has failed. */
static bool take(struct session *session, const struct frame *frame, const struct wire_to_worker *message)
{
	switch (message->kind) {
	case TO_WORKER_OPEN:
		return take_open(session, frame, message->body);
	case TO_WORKER_BATCH:
		return take_batch(session, message->body);
	case TO_WORKER_WATERMARK:
		return take_watermark(session, message->body);
	case TO_WORKER_WATERMARK_STATUS:
		return take_watermark_status(session, message->body);
	case TO_WORKER_TIMER_TICK:
		return take_tick(session, message->body);
	case TO_WORKER_BARRIER:
		return take_barrier(session, message->body);
	case TO_WORKER_END_INPUT:
		return take_end_input(session, message->body);
	case TO_WORKER_CLOSE:
		return take_close(session, message->body);
	default:
		return fail(session, FAULT_MALFORMED, "the message is of no kind that version %d of the protocol has",
			    PROTOCOL_VERSION);
	}
}

/* Books a message that is done with. */
static void message_done(struct session *session)
{
	struct workspace *workspace = session->workspace;

	workspace->now_ns = clock_ns();
	if (session->segment != NULL)
		histogram_add(&workspace_segment_counters(workspace, session->segment->id)->latency,
			      workspace->now_ns - session->began_ns);
	session->offset = 0;
	session->done = 0;
}

/* Works on a ToWorker message, from its beginning or where it was left. */
static void work(struct session *session, const struct frame *frame, struct view bytes)
{
	bool resumed = session->midway;
	struct wire_to_worker message;
	enum wire_result result = wire_parse_to_worker(bytes, &message);

	session->midway = false;
	output_answer(session->output, frame, result == WIRE_OK ? message.seq : frame->seq);
	if (result != WIRE_OK) {
		fail(session, FAULT_MALFORMED, "the message cannot be read as flink_bridge.ToWorker");
		return;
	}
	if (!resumed && !envelope_check(session, frame, &message))
		return;
	if (take(session, frame, &message) && !session->midway) {
		session->position->seq = message.seq;
		commit(session);
	}
}

/* Works on the frame that stands first in the request ring. */
bool session_work(struct session *session, const struct frame *frame, const uint8_t *payload)
{
	struct view bytes = {payload, frame->length - sizeof(*frame)};

	if (session->finished)
		return true;
	if (!session->midway)
		session->began_ns = session->workspace->now_ns;
	progress_begin(session->workspace, frame, session->channel);
	work(session, frame, bytes);
	progress_end(session->workspace);
	if (session->midway)
		return false;
	message_done(session);
	return true;
}

/* Whether a batch is half done. */
bool session_is_midway(const struct session *session)
{
	return session->midway;
}
