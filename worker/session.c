/*
 * The Session contract, as the worker keeps it.
 *
 * What a session is strict about: seq goes up by one from Open's 1; processing time and watermark never go back; Open comes
 * first and once; after EndInput no Batch and no second EndInput (time goes on, barriers and Close are fine); record keys
 * belong to the segment and to the subtask; no record is larger than the limit. What breaks a rule is answered by a fatal Error
 * and the end of the stream; so is a step that fails.
 *
 * Units. A session works on the copy of its position that the caller keeps, on the state through the arena, and on answers that
 * nobody sees yet; the caller commits all of it, or rolls it back and calls again. No Results is open when it does. So a unit is
 * as large as is good: as many messages, and runs of a large one, as come within a few microseconds; runs of a large batch until
 * the turn is over. A unit that gets into trouble (workspace_in_trouble) is rolled back whatever the session made of it.
 *
 * Timers of a Watermark, a TimerTick or an EndInput are fired so many to a unit. Going on with such a message is taking it once
 * more: the timers that fired are gone from the state.
 *
 * State goes out before the last answer of a message: all that is unsent before a BarrierAck, and else so much of it that a barrier
 * would not have to wait long (snapshot.h). A value that is too large for a message goes out as a whole, part by part, before
 * anything else happens in the session.
 */
#include "worker/session.h"

#include <flink_bridge.pb-c.h>
#include <grpc/status.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "shared/units.h"
#include "worker/capture.h"
#include "worker/memory.h"

enum {
	RUN_RECORDS =
	    256, /* enough to make the cost of a run vanish, few enough to stay in the cache and within a turn */
	TEXT_MAX = 2048 /* more than is sent, so that the cut is made between characters */,
	DELTA_ENTRIES = 4096, /* of one StateDelta */
	LOG_PART = 4          /* of the undo log, before a unit ends by itself */
};

/* What the unit at hand adds to the segment's counters when it commits. */
struct tally {
	uint64_t records_in, bytes_in, records_out, bytes_out, errors;
};

struct session {
	struct workspace *workspace;
	struct output *output;
	struct session_position *at;   /* as the unit at hand leaves it */
	const struct segment *segment; /* NULL before Open */
	struct state_store *store;     /* NULL before Open */
	struct chain *chain;           /* likewise */
	struct snapshot snapshot;      /* over the store, likewise */
	uint32_t channel;
	bool opens;    /* the unit at hand has opened the steps, and with them what the arena has for them */
	bool identity; /* the chain hands records on untouched */
	bool left;     /* by the unit at hand: some of the message */
	bool promises; /* the message at hand is answered by Results until one of them says that no more will come */
	bool guarded;  /* the chain asks before each input */
	bool fatal;    /* `blamed` is to end the session, whatever a step's policy is */
	struct failure blamed;
	uint64_t began_ns; /* when the message at hand was taken */
	uint32_t kind;     /* of the message at hand */
	struct view body;
	struct tally tally;
	struct errors errors;
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

/* A session on a channel. */
struct session *session_create(struct workspace *workspace, struct output *output, struct session_position *at,
			       uint32_t channel)
{
	struct session *session = memory_make(1, sizeof(*session), "a session");

	session->workspace = workspace;
	session->output = output;
	session->at = at;
	session->channel = channel;
	return session;
}

/* Frees the steps, and what this process knows of their state. */
static void close_steps(struct session *session)
{
	if (session->chain != NULL)
		chain_destroy(session->chain);
	if (session->store != NULL)
		state_store_destroy(session->store);
	session->chain = NULL;
	session->opens = false;
	session->errors = (struct errors){0};
	session->guarded = false;
	session->store = NULL;
	session->segment = NULL;
}

/* Drops this process's part of a session. */
void session_destroy(struct session *session)
{
	if (session == NULL)
		return;
	close_steps(session);
	free(session);
}

const struct retry *session_retry(const struct session *session)
{
	return errors_retry(&session->errors, session->at->seq + 1, session->at->done);
}

void session_note_retry(struct session *session, const struct retry *retry)
{
	errors_note_retry(&session->errors, retry);
}

const struct state_store *session_state(const struct session *session)
{
	return session->store;
}

/* The unit has been committed: its records count. */
void session_committed(struct session *session)
{
	const struct tally *tally = &session->tally;
	struct worker_segment_counters *counters;

	if (session->segment != NULL) {
		counters = workspace_segment_counters(session->workspace, session->segment->id);
		counter_add(&counters->records_in, tally->records_in);
		counter_add(&counters->bytes_in, tally->bytes_in);
		counter_add(&counters->records_out, tally->records_out);
		counter_add(&counters->bytes_out, tally->bytes_out);
		counter_add(&counters->errors, tally->errors);
	}
	if (session->chain != NULL)
		chain_committed(session->chain);
	session->tally = (struct tally){0};
	session->opens = false;
	if (session->at->finished)
		close_steps(session);
}

/* The unit has been rolled back: so is what it made for steps that it opened. */
void session_rolled_back(struct session *session)
{
	session->tally = (struct tally){0};
	if (session->chain != NULL)
		chain_rolled_back(session->chain);
	if (session->opens || !session->at->opened)
		close_steps(session);
	snapshot_rolled_back(&session->snapshot);
}

/* The time that steps see. */
static struct step_time time_now(const struct session *session)
{
	return (struct step_time){
	    .processing_ms = session->at->processing_time,
	    .watermark_ms = session->at->watermark,
	};
}

/* When the chain wants a tick, as the wire has it. */
static int64_t next_wakeup(const struct session *session)
{
	int64_t time = chain_next_wakeup(session->chain);

	if (time == INT64_MAX)
		time = 0;
	else if (time <= 0)
		time = 1;
	session->at->next_wakeup = time;
	return time;
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
	session->tally.errors++;
	log_warn("session of segment %u, channel %u, epoch %u ends: %s", session->output->header.segment,
		 session->channel, session->at->epoch, text);
	session->at->finished = 1;
	return false;
}

/* The same for a step; `record` is an index in the message. */
static bool fail_step(struct session *session, const struct failure *failure, uint32_t record)
{
	const struct segment *segment = session->segment;
	struct fault fault = FAULT_STEP;

	if (failure->crash)
		fault.code = FLINK_BRIDGE__ERROR_CODE__ERROR_CRASH;
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

/* Bytes of payload of the records that a run is to be made of. */
static uint64_t batch_bytes(const struct wire_batch *batch)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < batch->count; i++)
		bytes += batch->records[i].payload.size;
	return bytes;
}

/* Counts records that entered the segment. */
static void count_in(struct session *session, uint64_t records, uint64_t bytes)
{
	session->tally.records_in += records;
	session->tally.bytes_in += bytes;
}

/* Counts records that left it. */
static void count_out(struct session *session, uint64_t records, uint64_t bytes)
{
	session->tally.records_out += records;
	session->tally.bytes_out += bytes;
}

/* Bytes of the undo log that there are, and that the unit at hand has used. */
static uint64_t log_size(const struct arena *arena)
{
	return (uint64_t)(arena->log_end - (uint8_t *)arena->log_records);
}

static uint64_t log_used(const struct arena *arena)
{
	return (uint64_t)(arena->log_end - arena->log_data) + arena->log_count * sizeof(arena->log_records[0]);
}

/* How many records or units of timers stand before what is to be tried again; 0: it comes next; UINT32_MAX: there is none in the message
 * at hand. */
static uint32_t records_to_retry(const struct session *session)
{
	const struct session_position *at = session->at;
	const struct retry *retry = errors_retry(&session->errors, session->output->header.seq, at->done);

	return retry == NULL ? UINT32_MAX : retry->done - at->done;
}

/* Whether the unit should end though more of the message is left: its size is limited, it has changed much, the ring is nearly full, or
 * others are to have their turn. */
static bool unit_is_over(struct session *session)
{
	struct workspace *workspace = session->workspace;
	const struct session_position *at = session->at;

	return workspace->careful || workspace->unit.over || records_to_retry(session) == 0 ||
	       (at->limit != 0 && workspace->unit.records >= at->limit) ||
	       log_used(&workspace->arena) > log_size(&workspace->arena) / LOG_PART ||
	       !output_has_room(session->output) || workspace_turn_is_over(workspace);
}

/* How many records or timers the next run of the unit may have. */
static uint32_t run_limit(const struct session *session)
{
	uint32_t limit = session->at->limit, tried = session->workspace->unit.records;

	if (session->workspace->careful)
		return 1;
	uint32_t until = records_to_retry(session);
	if (until != UINT32_MAX && (limit == 0 || limit - tried > until))
		return until > 0 ? until : 1;
	if (limit == 0 || limit - tried > RUN_RECORDS)
		return RUN_RECORDS;
	CHECK(limit > tried);
	return limit - tried;
}

/* Ends the Results at hand, if any, where others may follow. */
static void close_results(struct session *session)
{
	if (output_results_open(session->output))
		output_results_end(session->output, session->promises, false, 0);
}

/* Ends what the unit has written of a message that goes on. */
static void leave(struct session *session, enum session_phase phase)
{
	close_results(session);
	session->at->phase = phase;
	session->left = true;
}

/* ---- State to send ------------------------------------------------------------------------------------------------- */

/* Judges what came of state that goes or comes. False: the session has failed, or the unit is in trouble. */
static bool judge_snapshot(struct session *session, enum snapshot_result result)
{
	static const struct fault faults[] = {
	    [SNAPSHOT_FAULT_RESTORE] = {.code = FLINK_BRIDGE__ERROR_CODE__ERROR_RESTORE,
					.status = GRPC_STATUS_FAILED_PRECONDITION},
	    [SNAPSHOT_FAULT_STATE] = {.code = FLINK_BRIDGE__ERROR_CODE__ERROR_STATE,
				      .status = GRPC_STATUS_INVALID_ARGUMENT},
	    [SNAPSHOT_FAULT_TOO_LARGE] = {.code = FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE,
					  .status = GRPC_STATUS_RESOURCE_EXHAUSTED},
	};
	const struct snapshot *snapshot = &session->snapshot;

	if (workspace_in_trouble(session->workspace))
		return false;
	CHECK(result != SNAPSHOT_TROUBLE);
	if (result != SNAPSHOT_REFUSED)
		return true;
	return fail(session, fault_at(faults[snapshot->fault], snapshot->record), "%s", snapshot->why);
}

/* Sends one StateDelta. */
static bool write_delta(struct session *session)
{
	struct output *output = session->output;
	uint32_t limit = session->at->limit == 0 ? DELTA_ENTRIES : run_limit(session);
	enum snapshot_result result;
	struct wire_writer *writer;
	struct state_entry first;
	enum state_result found;

	/* All that was unsent may have come and gone without anybody having heard of it. */
	found = state_delta_peek(session->store, &first);
	if (found == STATE_NONE)
		return true;
	session->workspace->unit.records += limit;
	if (found == STATE_AGAIN)
		return true;
	close_results(session);
	writer = output_begin(output, snapshot_delta_size(&session->snapshot, output->message_max));
	wire_put_varint_field(writer, 1, output->header.seq);
	result = snapshot_delta(&session->snapshot, writer, limit);
	if (result == SNAPSHOT_DONE || result == SNAPSHOT_MORE)
		output_end(output, FRAME_ANSWER, false);
	else
		output_drop(output);
	return judge_snapshot(session, result);
}

/* Whether changed state is to be sent now. */
static bool state_is_due(struct session *session, bool all)
{
	if (all)
		return snapshot_is_dirty(&session->snapshot);
	return snapshot_is_due(&session->snapshot, session->workspace->config->delta_bytes);
}

/* Sends changed state, all of it or what is due of it. *more: the unit ends, and some is left. False: the session has failed, or the unit
 * is in trouble. */
static bool send_state(struct session *session, bool all, enum session_phase phase, bool *more)
{
	for (*more = state_is_due(session, all); *more; *more = state_is_due(session, all)) {
		if (session->workspace->unit.records > 0 && unit_is_over(session)) {
			leave(session, phase);
			return true;
		}
		if (!write_delta(session))
			return false;
	}
	return true;
}

/* ---- Open ---------------------------------------------------------------------------------------------------------- */

/* Answers an Open. */
static bool write_open_ack(struct session *session)
{
	const struct workspace *workspace = session->workspace;
	uint64_t size = 256 + snapshot_manifest_size(session->store);
	struct wire_writer *writer;
	uint8_t *ack, *limits;

	if (size > session->output->message_max)
		return fail(session,
			    (struct fault){.code = FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE,
					   .status = GRPC_STATUS_RESOURCE_EXHAUSTED},
			    "the manifest of segment \"%s\" has %" PRIu64 " bytes; a message may have %" PRIu64
			    ": raise --message-max, or cut the segment",
			    session->segment->name, size, session->output->message_max);
	writer = output_begin(session->output, size);

	wire_put_varint_field(writer, 1, session->output->header.seq);
	ack = wire_begin(writer, FROM_WORKER_OPEN_ACK);
	wire_put_varint_field(writer, 1, session->at->epoch);
	wire_put_varint_field(writer, 2, workspace->slot);
	wire_put_varint_field(writer, 3, (uint64_t)getpid());
	limits = wire_begin(writer, 4);
	wire_put_varint_field(writer, 1, session->output->message_max);
	wire_put_varint_field(writer, 2, session->output->record_max);
	wire_end(writer, limits);
	wire_put_bytes_field(writer, 5, view_of(BRIDGE_VERSION));
	snapshot_put_manifest(session->store, writer, OPEN_ACK_STATE_MANIFEST);
	wire_end(writer, ack);
	output_end(session->output, FRAME_ANSWER, true);
	return true;
}

/* Checks the parts of an Open that records are held against later. */
static bool open_check(struct session *session, const struct frame *frame, const FlinkBridge__Open *open)
{
	const struct descriptor *descriptor = session->workspace->descriptor;
	const struct segment *segment;

	if (open->protocol_version != WIRE_PROTOCOL_VERSION)
		return fail(session, FAULT_STATE, "protocol version %" PRIu32 " is not spoken here; use version %d",
			    open->protocol_version, WIRE_PROTOCOL_VERSION),
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
	session->at->segment = segment->id;
	session->at->key_group_first = open->key_group_first;
	session->at->key_group_last = open->key_group_last;
	session->at->max_parallelism = open->max_parallelism;
	return true;
}

/* Opens the steps of the segment over the states that there are, or makes these. */
static bool open_steps(struct session *session)
{
	struct failure failure = {0};

	session->opens = true;
	session->store = state_store_create(&session->workspace->arena, session->channel);
	session->chain = workspace_chain(session->workspace, session->segment, session->store, &failure);
	if (session->chain == NULL)
		return fail_step(session, &failure, 0);
	if (!chain_start(session->chain, (struct step_time){session->at->processing_time, session->at->watermark},
			 &failure))
		return fail_step(session, &failure, 0);
	if (!errors_open(&session->errors, &session->workspace->arena, session->channel, session->segment,
			 &session->at->errors))
		return false;
	chain_set_errors(session->chain, &session->errors);
	session->identity = chain_is_identity(session->chain);
	snapshot_init(&session->snapshot, session->store, &session->workspace->arena, session->channel,
		      &session->at->snapshot);
	snapshot_scope(&session->snapshot, session->at->key_group_first, session->at->key_group_last,
		       session->at->max_parallelism);
	return true;
}

/* Takes an Open: opens the chain and answers. */
static bool take_open(struct session *session, const struct frame *frame, struct view body)
{
	FlinkBridge__Open *open = flink_bridge__open__unpack(NULL, body.size, body.data);
	uint64_t checkpoint, expected;
	bool good;

	if (open == NULL)
		return fail_malformed(session, "Open");
	checkpoint = open->restored_checkpoint;
	expected = open->restored_entries;
	good = open_check(session, frame, open);
	flink_bridge__open__free_unpacked(open, NULL);
	if (!good || !open_steps(session))
		return false;
	if (!judge_snapshot(
		session, snapshot_open(&session->snapshot, body, checkpoint, expected, session->workspace->descriptor)))
		return false;
	session->at->opened = 1;
	return write_open_ack(session);
}

/* Opens the steps of a predecessor's session. */
void session_adopt(struct session *session)
{
	const struct session_position *at = session->at;
	const struct frame words = {.epoch = at->epoch, .segment = at->segment};

	if (!at->opened || at->finished)
		return;
	output_answer(session->output, &words, at->seq + 1);
	session->workspace->unit.begun = true;
	if (at->segment >= session->workspace->descriptor->segment_count) {
		fail(session, FAULT_STATE, "segment %" PRIu32 " is gone from the pipeline", at->segment);
		return;
	}
	session->segment = &session->workspace->descriptor->segments[at->segment];
	open_steps(session);
}

/* ---- Captures ------------------------------------------------------------------------------------------------------- */

/* Whether the unit that is about to begin has the input in it that workers died of. */
static bool capture_is_due(const struct session *session)
{
	const struct suspect *suspect = &session->at->suspect;

	return session->workspace->careful && suspect->step != UINT32_MAX && suspect->done == session->at->done &&
	       suspect_is_proven(suspect, session->output->header.seq);
}

/* Captures the one record of a run; `bytes` is where it stands in the Batch. */
static void capture_record(const struct session *session, struct view bytes)
{
	const struct wire_batch *batch = &session->workspace->batch;
	struct capture_input input = {.kind = TO_WORKER_BATCH, .body = bytes, .keyed = true};

	if (!capture_is_due(session) || batch->count == 0)
		return;
	if (session->segment->keyed)
		input.key = batch->records[0].key;
	capture_write(session->workspace, session->at, session->segment, session->store, &input);
}

/* Captures a message that fires a timer, or releases what steps hold. */
static void capture_release(const struct session *session, enum release_cause cause)
{
	struct capture_input input = {.kind = session->kind, .body = session->body};
	struct state_timer timer;

	if (!capture_is_due(session))
		return;
	input.keyed = chain_next_timer(session->chain, cause, time_now(session), session->workspace->scratch, &timer);
	input.key = timer.key;
	capture_write(session->workspace, session->at, session->segment, session->store, &input);
}

/* Captures a message of which workers died outside of any step. */
static void capture_message(const struct session *session, const struct frame *frame, struct view bytes)
{
	const struct session_position *at = session->at;
	const struct descriptor *descriptor = session->workspace->descriptor;
	struct capture_input input = {0};
	struct wire_to_worker message;

	if (frame->segment >= descriptor->segment_count || wire_parse_to_worker(bytes, &message) != WIRE_OK)
		return;
	input.kind = message.kind;
	input.body = message.body;
	if (at->phase == PHASE_BATCH)
		input.body = (struct view){message.body.data + at->offset, message.body.size - at->offset};
	if (message.kind == TO_WORKER_OPEN || session->store != NULL)
		capture_write(session->workspace, at, &descriptor->segments[frame->segment], session->store, &input);
}

/* ---- Batch --------------------------------------------------------------------------------------------------------- */

/* Checks a record against segment and key groups. */
static bool record_check(struct session *session, const struct wire_record *record, uint32_t index)
{
	const struct segment *segment = session->segment;
	struct fault fault = fault_at(FAULT_MALFORMED, index);

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
	if (record->key_group < session->at->key_group_first || record->key_group > session->at->key_group_last)
		return fail(session, fault,
			    "record %" PRIu32 " is of key group %" PRIu32 "; this session has %" PRIu32 " to %" PRIu32,
			    index, record->key_group, session->at->key_group_first, session->at->key_group_last),
		       false;
	if (__builtin_expect(key_group_of(record->key_hash, session->at->max_parallelism) != record->key_group, 0))
		return fail(session, fault,
			    "record %" PRIu32 " is of key group %" PRIu32 ", but its key hash %" PRId32
			    " is of %" PRIu32 " at max_parallelism %" PRIu32
			    ": its state would be found by nobody after a rescale",
			    index, record->key_group, record->key_hash,
			    key_group_of(record->key_hash, session->at->max_parallelism), session->at->max_parallelism),
		       false;
	return true;
}

/* Fails because the record in front of a reader, or what should be one, cannot be taken. Always returns false. */
static bool fail_record(struct session *session, enum wire_result result, struct wire_reader *reader, uint32_t index)
{
	struct fault fault = fault_at(FAULT_MALFORMED, index);
	struct wire_field field;

	if (result == WIRE_NO_MEMORY)
		memory_leave("the records of a unit of work");
	if (reader->malformed)
		return fail(session, fault, "the batch cannot be read behind its first %" PRIu32 " records", index),
		       false;
	if (result != WIRE_TOO_LARGE || !wire_next(reader, &field))
		return fail(session, fault, "record %" PRIu32 " of the batch: %s", index, wire_result_text(result)),
		       false;
	fault.code = FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE;
	fault.status = GRPC_STATUS_RESOURCE_EXHAUSTED;
	return fail(session, fault, "record %" PRIu32 " has %zu bytes; a record may have %" PRIu64, index,
		    (size_t)field.bytes.size, session->output->record_max),
	       false;
}

/* Reads the records of the next run into the workspace and moves `rest` behind them; *bytes: of their payloads. False: the session has
 * failed. */
static bool run_read(struct session *session, struct view *rest, uint64_t *bytes)
{
	struct wire_batch *batch = &session->workspace->batch;
	struct wire_reader reader;
	enum wire_result result;

	wire_reader_init(&reader, *rest);
	result = wire_parse_run(&reader, batch, run_limit(session), session->output->record_max);
	*bytes = 0;
	bool keyed = session->segment->keyed; /* else there is nothing to check of a record of the first input */
	for (uint32_t i = 0; i < batch->count; i++) {
		struct wire_record *record = &batch->records[i];
		if ((keyed || record->input > 0) && !record_check(session, record, session->at->done + i))
			return false;
		record->route = 0; /* is not for the client to say */
		*bytes += record->payload.size;
	}
	if (result != WIRE_OK)
		return fail_record(session, result, &reader, session->at->done + batch->count);
	session->workspace->unit.records += batch->count;
	*rest = (struct view){reader.at, (size_t)(reader.end - reader.at)};
	return true;
}

/* Judges how records were written. False: the session has failed, or the unit is in trouble. */
static bool judge_output(struct session *session, enum output_result result, uint64_t size)
{
	if (result == OUTPUT_TOO_LARGE)
		return fail_output(session, size);
	if (result == OUTPUT_NO_ROOM)
		return workspace_trouble(session->workspace, TROUBLE_RING);
	return !workspace_in_trouble(session->workspace);
}

/* Gives the unit up because a step fails on something that may go well later. Of several timers in a unit nobody knows which one it is: they
 * are tried one by one first. Always returns false, for callers to pass on. */
static bool try_later(struct session *session, const struct failure *failure, uint32_t done, bool alone)
{
	const struct output *output = session->output;
	struct workspace *workspace = session->workspace;
	uint32_t attempts = errors_attempts(&session->errors, failure->step, failure->origin) + 1;

	workspace->unit.retry = (struct retry){0};
	if (alone)
		workspace->unit.retry = (struct retry){
		    .seq = output->header.seq,
		    .done = done,
		    .step = failure->step,
		    .attempts = attempts,
		    .due_ns = clock_ns() + errors_backoff_ns(session->segment, failure->step, attempts),
		};
	return workspace_trouble(workspace, TROUBLE_RETRY);
}

/* Judges how the chain ran. False: the session has failed, or the unit is in trouble: a step whose state had no room fails, too, and
 * one that did not look is as undone as any. */
static bool judge_chain(struct session *session, bool good, const struct failure *failure, uint32_t record, bool alone)
{
	struct workspace *workspace = session->workspace;

	if (workspace_in_trouble(workspace))
		return false;
	if (session->fatal)
		return fail_step(session, &session->blamed, record);
	workspace->unit.over |= chain_waited(session->chain);
	if (good)
		return true;
	if (failure->waits) {
		workspace->unit.wakes = failure->wakes;
		return workspace_trouble(workspace, TROUBLE_WAIT);
	}
	if (scratch_is_out(workspace->scratch) && workspace->unit.records > 1)
		return workspace_trouble(workspace, TROUBLE_MEMORY);
	if (failure->retry)
		return try_later(session, failure, session->at->done + failure->origin, alone);
	return fail_step(session, failure, record);
}

/* The fast path: records go from the request straight into the answer. */
static bool run_pass(struct session *session, uint64_t bytes, uint64_t rest)
{
	struct wire_batch *batch = &session->workspace->batch;
	uint64_t size = 0;
	enum output_result result;

	result = output_records(session->output, batch->records, batch->count, rest, &size);
	if (!judge_output(session, result, size))
		return false;
	chain_count_identity(session->chain, batch->count);
	count_in(session, batch->count, bytes);
	count_out(session, batch->count, bytes);
	return true;
}

/* Writes a run's outputs and counts them. */
static bool run_write(struct session *session, uint64_t expect)
{
	struct run *run = &session->workspace->run;
	uint64_t bytes = 0, size = 0;
	enum output_result result;

	result = output_run(session->output, run, session->segment->route_count > 0, expect, &size);
	if (!judge_output(session, result, size))
		return false;
	for (uint32_t i = 0; i < run->count; i++)
		bytes += run->records[i].payload.size;
	count_out(session, run->count, bytes);
	return true;
}

/* The way through a chain that takes batches as they are. */
static bool run_direct(struct session *session, uint64_t bytes, uint64_t rest)
{
	struct workspace *workspace = session->workspace;
	struct wire_batch *batch = &workspace->batch;
	uint32_t taken = batch->count;
	struct failure failure = {0};
	uint64_t size = 0;
	bool in_place, good;

	count_in(session, batch->count, bytes);
	errors_at(&session->errors, session->output->header.seq, session->at->done);
	good = chain_process_batch(session->chain, batch, &workspace->run, time_now(session), &in_place, &failure);
	if (!judge_chain(session, good, &failure, session->at->done + failure.origin, true))
		return false;
	if (!in_place)
		return run_write(session, rest > 0 ? session->output->message_max : 0);
	if (!judge_output(session, output_records(session->output, batch->records, batch->count, rest, &size), size))
		return false;
	count_out(session, batch->count, batch->count == taken ? bytes : batch_bytes(batch));
	batch->count = taken; /* by which the position moves on */
	return true;
}

/* The way through the chain. */
static bool run_through(struct session *session, uint64_t bytes, uint64_t rest)
{
	struct workspace *workspace = session->workspace;
	const struct wire_batch *batch = &workspace->batch;

	if (chain_takes_batches(session->chain))
		return run_direct(session, bytes, rest);
	struct failure failure = {0};
	bool good;
	count_in(session, batch->count, bytes);
	if (!run_take_batch(&workspace->run, batch, 0, batch->count))
		return fail_memory(session);
	errors_at(&session->errors, session->output->header.seq, session->at->done);
	good = chain_process(session->chain, &workspace->run, time_now(session), &failure);
	if (!judge_chain(session, good, &failure, session->at->done + failure.origin, true))
		return false;
	/* What the rest of the batch will come to is anybody's guess. */
	return run_write(session, rest > 0 ? session->output->message_max : 0);
}

/* Takes a Batch, or goes on with one. */
static bool take_batch(struct session *session, struct view body)
{
	struct session_position *at = session->at;
	struct view rest = {body.data + at->offset, body.size - at->offset};
	bool more;

	while (rest.size > 0) {
		workspace_clear(session->workspace);
		progress_record(session->workspace, at->done);
		const uint8_t *from = rest.data;
		uint64_t bytes;
		if (!run_read(session, &rest, &bytes))
			return false;
		capture_record(session, (struct view){from, (size_t)(rest.data - from)});
		if (!(session->identity ? run_pass(session, bytes, rest.size) : run_through(session, bytes, rest.size)))
			return false;
		at->offset = body.size - rest.size;
		at->done += session->workspace->batch.count;
		suspect_advance(&at->suspect, &session->workspace->arena, session->channel, session->output->header.seq,
				at->done);
		if (rest.size > 0 && unit_is_over(session)) {
			leave(session, PHASE_BATCH);
			return true;
		}
	}
	if (!send_state(session, false, PHASE_BATCH, &more))
		return false;
	if (!more)
		output_results_end(session->output, false, true, next_wakeup(session));
	return true;
}

/* ---- Everything else ----------------------------------------------------------------------------------------------- */

/* Lets steps fire timers and release what they hold, and writes it. *more: the unit ends, and some are left. False: the session has
 * failed, or the unit is in trouble. */
static bool release(struct session *session, enum release_cause cause, bool *more)
{
	struct workspace *workspace = session->workspace;
	struct failure failure = {0};

	do {
		uint32_t limit = run_limit(session);
		bool good;

		workspace_clear(workspace);
		progress_record(workspace, session->at->done);
		workspace->unit.records += limit;
		capture_release(session, cause);
		errors_at(&session->errors, session->output->header.seq, session->at->done);
		good = chain_release(session->chain, cause, time_now(session), limit, &workspace->run, more, &failure);
		if (!judge_chain(session, good, &failure, 0, limit == 1) ||
		    !run_write(session, *more ? session->output->message_max : 0))
			return false;
	} while (*more && !unit_is_over(session));
	if (*more) {
		suspect_advance(&session->at->suspect, &workspace->arena, session->channel, session->output->header.seq,
				++session->at->done);
		leave(session, PHASE_RELEASE);
	}
	return true;
}

/* Writes an answer that has no more than two numbers in it (fields 1 and 2, unless 0), as the last of its seq. */
static void write_ack(struct session *session, uint32_t kind, uint64_t number, uint64_t second)
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
	if (second != 0)
		wire_put_varint_field(writer, 2, second);
	wire_end(writer, ack);
	output_end(session->output, FRAME_ANSWER, true);
}

/* The part of a Watermark or a TimerTick that the chain has in it. */
static bool take_release(struct session *session, enum release_cause cause)
{
	bool more;

	if (!release(session, cause, &more))
		return false;
	if (!more && !send_state(session, false, PHASE_RELEASE, &more))
		return false;
	if (!more)
		output_results_end(session->output, false, true, next_wakeup(session));
	return true;
}

/* Takes a Watermark. */
static bool take_watermark(struct session *session, struct view body)
{
	uint64_t number;
	int64_t timestamp;

	if (wire_parse_number(body, &number) != WIRE_OK)
		return fail_malformed(session, "Watermark");
	timestamp = (int64_t)number;
	if (timestamp < session->at->watermark)
		return fail(session, FAULT_SEQUENCE,
			    "the watermark went back from %" PRId64 " to %" PRId64 "; it may only go on",
			    session->at->watermark, timestamp);
	session->at->watermark = timestamp;
	return take_release(session, RELEASE_WATERMARK);
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
	return take_release(session, RELEASE_TICK);
}

/* Takes a Barrier. Nothing is released for it: what steps hold is state. */
static bool take_barrier(struct session *session, struct view body)
{
	uint64_t checkpoint;
	bool more;

	if (wire_parse_number(body, &checkpoint) != WIRE_OK)
		return fail_malformed(session, "Barrier");
	if (!send_state(session, true, PHASE_STATE, &more))
		return false;
	if (more)
		return true;
	write_ack(session, FROM_WORKER_BARRIER_ACK, checkpoint, 0);
	return true;
}

/* Takes an EndInput. */
static bool take_end_input(struct session *session, struct view body)
{
	bool more;

	if (wire_parse_empty(body) != WIRE_OK)
		return fail_malformed(session, "EndInput");
	if (session->at->ended && session->at->phase != PHASE_RELEASE)
		return fail(session, FAULT_STATE, "EndInput came twice");
	session->at->ended = 1;
	if (!release(session, RELEASE_END, &more))
		return false;
	if (!more && !send_state(session, false, PHASE_RELEASE, &more))
		return false;
	if (more)
		return true;
	close_results(session);
	write_ack(session, FROM_WORKER_END_ACK, 0, 0);
	return true;
}

/* Takes a RestoreChunk, or goes on with one. It is not answered. */
static bool take_restore_chunk(struct session *session, struct view body)
{
	enum snapshot_result result;

	do {
		uint32_t limit = run_limit(session);

		session->workspace->unit.records += limit;
		result = snapshot_chunk(&session->snapshot, body, limit);
		if (!judge_snapshot(session, result))
			return false;
	} while (result == SNAPSHOT_MORE && !unit_is_over(session));
	if (result == SNAPSHOT_MORE)
		leave(session, PHASE_STATE);
	return true;
}

/* Takes a RestoreEnd. */
static bool take_restore_end(struct session *session, struct view body)
{
	const struct snapshot_words *words = &session->at->snapshot;
	uint64_t entries;

	if (wire_parse_number(body, &entries) != WIRE_OK)
		return fail_malformed(session, "RestoreEnd");
	if (!judge_snapshot(session, snapshot_restored(&session->snapshot, entries)))
		return false;
	write_ack(session, FROM_WORKER_RESTORE_ACK, words->restored, words->dropped);
	return true;
}

/* Takes a Close. */
static bool take_close(struct session *session, struct view body)
{
	struct view reason;

	if (wire_parse_text(body, &reason) != WIRE_OK)
		return fail_malformed(session, "Close");
	output_status(session->output, FRAME_END, GRPC_STATUS_OK, "");
	session->at->finished = 1;
	return true;
}

/* Checks an envelope against what had to come next, and takes its time over. False: the session has failed. */
static bool envelope_check(struct session *session, const struct frame *frame, const struct wire_to_worker *message)
{
	struct session_position *position = session->at;
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
	if (position->snapshot.restoring && message->kind != TO_WORKER_RESTORE_CHUNK &&
	    message->kind != TO_WORKER_RESTORE_END && message->kind != TO_WORKER_CLOSE)
		return fail(session, FAULT_STATE,
			    "Open restores a checkpoint, so nothing but RestoreChunk, RestoreEnd and Close may come "
			    "before RestoreEnd");
	position->processing_time = message->processing_time_ms;
	return true;
}

/* Works on a message whose envelope is right. False: the session has failed. */
static bool take(struct session *session, const struct frame *frame, const struct wire_to_worker *message)
{
	switch (message->kind) {
	case TO_WORKER_OPEN:
		return take_open(session, frame, message->body);
	case TO_WORKER_RESTORE_CHUNK:
		return take_restore_chunk(session, message->body);
	case TO_WORKER_RESTORE_END:
		return take_restore_end(session, message->body);
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
			    WIRE_PROTOCOL_VERSION);
	}
}

/* ---- Messages over which workers died ------------------------------------------------------------------------------ */

/* Fills the words for an input that is not to be tried again. */
static bool blame(struct session *session, const struct chain_input *input, struct failure *failure, const char *what)
{
	const struct suspect *suspect = &session->at->suspect;
	const char *cause = death_cause_name((enum death_cause)suspect->cause);
	char key[EXCERPT_SIZE], bytes[EXCERPT_SIZE];

	failure_set(failure, input->origin, "%s (%s): seq %" PRIu64 ", key \"%s\", input: %s", what, cause,
		    suspect->seq, excerpt(input->key, key), excerpt(input->bytes, bytes));
	failure->crash = true;
	failure->seq = suspect->seq;
	failure->record = session->at->done + input->origin;
	snprintf(failure->cause, sizeof(failure->cause), "%s", cause);
	return false;
}

/* The same where no policy may keep the session alive. */
static bool blame_fatally(struct session *session, const struct chain_input *input, struct failure *failure,
			  const char *what)
{
	blame(session, input, failure, what);
	session->blamed = *failure;
	session->blamed.step = input->step;
	session->fatal = true;
	return false;
}

/* Names the input that a step is about to get, and judges whether it is to get it. */
static bool about_to(void *context, const struct chain_input *input, struct failure *failure)
{
	struct session *session = context;
	struct session_position *at = session->at;
	uint32_t most = session->workspace->config->max_skips_per_hour;
	struct chain_input of_suspect = *input; /* when it is the record as a whole: by the step that workers died in */

	of_suspect.step = at->suspect.step;
	progress_input(session->workspace, input);
	if (session->fatal)
		return false; /* what is left of the unit is for nothing */
	switch (suspect_judge(&at->suspect, &session->workspace->arena, session->output->header.seq, at->done, input)) {
	case VERDICT_RUN:
		return true;
	case VERDICT_CHANGED:
		return blame_fatally(session, input, failure,
				     "workers died here, and the input is another one each time");
	case VERDICT_MANY:
		return blame_fatally(session, &of_suspect, failure,
				     "workers died of too many inputs made of one record");
	case VERDICT_NO_ROOM:
		return blame_fatally(session, &of_suspect, failure,
				     "workers died of several inputs made of one record, and the state memory has no "
				     "room to note them (--state-memory)");
	case VERDICT_PASS:
		break;
	}
	if (session->segment->steps[input->step].policy != ON_ERROR_FAIL &&
	    !suspect_count(&at->suspect, most, clock_wall_ms()))
		return blame_fatally(session, input, failure,
				     "workers died of this input, as of others in this hour (--max-skips-per-hour)");
	log_warn("channel %u, epoch %u: step %u does not get the input of seq %" PRIu64 " that workers died of",
		 session->channel, at->epoch, input->step, at->suspect.seq);
	return blame(session, input, failure, "workers died of this input");
}

/* Says that none is at work. */
static void past(void *context, uint32_t step)
{
	struct session *session = context;

	session->workspace->step = step;
	progress_no_input(session->workspace);
}

/* Has the chain ask before each input, or not. */
static void set_guard(struct session *session)
{
	const struct chain_guard guard = {about_to, past, session};

	if (session->chain == NULL || session->guarded == session->workspace->careful)
		return;
	session->guarded = session->workspace->careful;
	chain_set_guard(session->chain, session->guarded ? &guard : NULL);
}

/* Fails the session when workers died over the message itself, outside of any step. */
static bool is_to_blame(struct session *session, const struct frame *frame, struct view bytes)
{
	const struct suspect *suspect = &session->at->suspect;
	const char *cause = death_cause_name((enum death_cause)suspect->cause);
	struct fault fault = FAULT_STEP;

	if (!suspect_is_message(suspect, frame->seq))
		return false;
	capture_message(session, frame, bytes);
	output_answer(session->output, frame, frame->seq);
	fault.code = FLINK_BRIDGE__ERROR_CODE__ERROR_CRASH;
	fault.record = session->at->done;
	fail(session, fault,
	     "workers died over the message with seq %" PRIu64 " behind record %" PRIu32 ", in no step (%s)",
	     frame->seq, session->at->done, cause);
	return true;
}

/* Books a message that is done with. */
static void message_done(struct session *session)
{
	struct workspace *workspace = session->workspace;

	workspace->now_ns = clock_ns();
	if (session->segment != NULL)
		histogram_add(&workspace_segment_counters(workspace, session->segment->id)->latency,
			      workspace->now_ns - session->began_ns);
	session->at->phase = PHASE_NEXT;
	session->at->offset = 0;
	session->at->done = 0;
}

/* Works on a ToWorker message, from its beginning or where it was left. */
static void work(struct session *session, const struct frame *frame, struct view bytes)
{
	struct wire_to_worker message;
	enum wire_result result = wire_parse_to_worker(bytes, &message);

	output_answer(session->output, frame, result == WIRE_OK ? message.seq : frame->seq);
	if (result != WIRE_OK) {
		fail(session, FAULT_MALFORMED, "the message cannot be read as flink_bridge.ToWorker");
		return;
	}
	if (session->at->phase == PHASE_NEXT && !envelope_check(session, frame, &message))
		return;
	session->kind = message.kind;
	session->body = message.body;
	session->promises = message.kind != TO_WORKER_BARRIER && message.kind != TO_WORKER_END_INPUT;
	if (take(session, frame, &message) && !session->left) {
		session->at->seq = message.seq;
		suspect_finish(&session->at->suspect, &session->workspace->arena, session->channel, message.seq);
	}
}

/* Ends the stream of a session to which no more will come. */
static void half_close(struct session *session, const struct frame *frame)
{
	output_answer(session->output, frame, frame->seq);
	if (session->at->snapshot.restoring) {
		fail(session, FAULT_STATE,
		     "the stream ended before RestoreEnd, behind %" PRIu64
		     " restored entries: send RestoreEnd, or Close to give the restore up",
		     session->at->snapshot.restored);
		return;
	}
	output_status(session->output, FRAME_END, GRPC_STATUS_OK, "");
	session->at->finished = 1;
}

/* Works on the frame that stands first in the request ring. */
enum work_result session_work(struct session *session, const struct frame *frame, const uint8_t *payload)
{
	struct workspace *workspace = session->workspace;
	struct view bytes = {payload, frame->length - sizeof(*frame)};

	if (session->at->finished)
		return WORK_DONE;
	if (session->at->phase == PHASE_NEXT)
		session->began_ns = workspace->now_ns;
	session->left = session->fatal = false;
	progress_begin(workspace, frame, session->channel);
	if (session->at->opened && session->chain == NULL) {
		/* Once more, because that unit got into trouble; and in one of its own again, which the message cannot get into any. */
		session_adopt(session);
		session->left = !session->at->finished;
	} else if (frame->kind == FRAME_HALF_CLOSE) {
		half_close(session, frame);
	} else if (!is_to_blame(session, frame, bytes)) {
		set_guard(session);
		work(session, frame, bytes);
	}
	progress_end(workspace);
	if (workspace_in_trouble(workspace))
		return WORK_TROUBLE;
	if (session->left)
		return WORK_LEFT;
	message_done(session);
	return WORK_DONE;
}

/* The record that the message at hand has come to; 0 among timers. */
static uint32_t record_at(const struct session *session)
{
	return session->at->phase == PHASE_BATCH ? session->at->done : 0;
}

/* Fails the session for want of state memory. */
static void fail_state(struct session *session, const char *step)
{
	struct arena_usage usage = arena_usage(&session->workspace->arena);
	struct fault fault = {.code = FLINK_BRIDGE__ERROR_CODE__ERROR_STATE_FULL,
			      .status = GRPC_STATUS_RESOURCE_EXHAUSTED,
			      .record = record_at(session),
			      .step = step};
	char limit[UNITS_TEXT_MAX], used[UNITS_TEXT_MAX], own[UNITS_TEXT_MAX];

	fail(session, fault,
	     "segment \"%s\" step \"%s\" record %" PRIu32 ": the state memory of the slot is full: its sessions have "
	     "%s of %s, this one %s: raise --state-memory, spread the work over more slots, or keep less",
	     session->segment->name, step, fault.record, size_rounded(used, usage.extents),
	     size_rounded(limit, usage.limit),
	     size_rounded(own, arena_session_usage(&session->workspace->arena, session->channel).extents));
}

/* Fails the session because one record changes more than can be undone. */
static void fail_log(struct session *session, const char *step)
{
	struct fault fault = {.code = FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE,
			      .status = GRPC_STATUS_RESOURCE_EXHAUSTED,
			      .record = record_at(session),
			      .step = step};
	char size[UNITS_TEXT_MAX];

	fail(session, fault,
	     "segment \"%s\" step \"%s\" record %" PRIu32 ": one record changes more state than can be undone, which "
	     "is %s: keep smaller values, or raise --state-memory",
	     session->segment->name, step, session->at->done, size_rounded(size, log_size(&session->workspace->arena)));
}

/* Fails the session because of a unit. */
enum work_result session_give_up(struct session *session, const struct frame *frame, const struct unit *unit)
{
	const struct segment *segment = session->segment;
	const char *step = "";

	output_answer(session->output, frame, session->at->seq + 1);
	/* An Open that was rolled back: its words say the segment. */
	if (segment == NULL && frame->segment < session->workspace->descriptor->segment_count)
		segment = session->segment = &session->workspace->descriptor->segments[frame->segment];
	CHECK(segment != NULL);
	if (unit->step < segment->step_count)
		step = segment->steps[unit->step].name;
	if (unit->trouble == TROUBLE_STATE)
		fail_state(session, step);
	else
		fail_log(session, step);
	return workspace_in_trouble(session->workspace) ? WORK_TROUBLE : WORK_DONE;
}
