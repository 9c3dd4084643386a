/*
 * The sessions of a test case: opened and restored, one message sent at a time and answered before the next, ticks when they are due,
 * barriers.
 */
#include "cli/kit_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shared/keygroup.h"
#include "shared/log.h"

enum {
	TICKS_MAX = 1000000,     /* in one event: a segment that asks for more never stops asking */
	CHUNK_BYTES = 128 << 10, /* of state that is restored, unless an entry's key needs more */
};

/* ---- Sessions ------------------------------------------------------------------------------------------------------- */

bool kit_slot_failed(struct kit_job *job)
{
	return BREAK(job, "%s", job->slot.why);
}

/* The session ended with an Error. */
static void got_error(struct kit_job *job, struct view message)
{
	FlinkBridge__FromWorker *answer = flink_bridge__from_worker__unpack(NULL, message.size, message.data);

	if (answer == NULL || answer->kind_case != FLINK_BRIDGE__FROM_WORKER__KIND_ERROR) {
		BREAK(job, "the worker sent an error that cannot be read");
	} else if (answer->error->fatal) {
		job->step = pool_copy(&job->pool, answer->error->step);
		kit_fail(job, "%s", answer->error->message);
	}
	if (answer != NULL)
		flink_bridge__from_worker__free_unpacked(answer, NULL);
}

/* Outputs go to the consumers. */
static bool got_results(struct kit_job *job, struct kit_subtask *subtask, struct view body)
{
	bool more;

	wire_batch_clear(&job->batch);
	if (wire_parse_records(body, &job->batch, &more) != WIRE_OK)
		return BREAK(job, "the worker sent results that cannot be read");
	for (uint32_t i = 0; i < job->batch.count; i++)
		if (!kit_push(job, &subtask->stage->out, subtask->index, &job->batch.records[i]))
			return false;
	return true;
}

/* Keeps what an OpenAck says of state. */
static void got_open_ack(struct kit_subtask *subtask, struct view message)
{
	FlinkBridge__FromWorker *answer = flink_bridge__from_worker__unpack(NULL, message.size, message.data);

	if (answer != NULL && answer->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_OPEN_ACK)
		kit_states_declare(&subtask->stage->states, answer->open_ack);
	if (answer != NULL)
		flink_bridge__from_worker__free_unpacked(answer, NULL);
}

/* Takes an answer of a session. */
static void got_answer(struct kit_job *job, struct kit_subtask *subtask, struct view message, bool last)
{
	struct wire_to_worker envelope;

	if (wire_parse_from_worker(message, &envelope) != WIRE_OK) {
		BREAK(job, "the worker sent a message that cannot be read");
		return;
	}
	if (last && envelope.kind != FROM_WORKER_ERROR && envelope.kind != FROM_WORKER_OPEN_ACK)
		subtask->wakeup_ms = envelope.processing_time_ms;
	if (envelope.kind == FROM_WORKER_RESULTS) {
		got_results(job, subtask, envelope.body);
	} else if (envelope.kind == FROM_WORKER_STATE_DELTA) {
		const char *wrong = kit_states_take(&subtask->stage->states, subtask->index, envelope.body);
		if (wrong != NULL)
			BREAK(job, "the worker %s", wrong);
	} else if (envelope.kind == FROM_WORKER_OPEN_ACK) {
		got_open_ack(subtask, message);
	} else if (envelope.kind == FROM_WORKER_ERROR) {
		got_error(job, message);
	}
}

/* Takes all frames that a session wrote; *last says whether the last answer to its message was among them. */
static void take_frames(struct kit_job *job, struct kit_subtask *subtask, bool *last)
{
	struct frame frame;
	struct view payload;

	while (!job->failed && kit_slot_take(&job->slot, subtask->channel, &frame, &payload)) {
		bool is_last = (frame.flags & FRAME_LAST) != 0 && frame.seq == subtask->seq;
		if (frame.kind == FRAME_ANSWER)
			got_answer(job, subtask, payload, is_last);
		else if (frame.kind == FRAME_END && payload.size >= sizeof(struct frame_status))
			kit_fail(job, "%.*s", (int)(payload.size - sizeof(struct frame_status)),
				 (const char *)payload.data + sizeof(struct frame_status));
		*last |= is_last;
		kit_slot_release(&job->slot, subtask->channel, &frame);
	}
}

/* Sends a message of a session, and takes what it answers. */
static bool exchange(struct kit_job *job, struct kit_subtask *subtask, enum frame_kind kind, struct view message)
{
	struct frame header = {.kind = kind, .seq = subtask->seq, .segment = subtask->stage->segment->id};
	bool last = false;

	kit_slot_send(&job->slot, subtask->channel, header, message);
	while (!last && !job->failed) {
		if (!kit_slot_turn(&job->slot))
			return kit_slot_failed(job);
		take_frames(job, subtask, &last);
	}
	return !job->failed;
}

/* Whether a message is answered by itself. */
static bool is_answered(uint32_t kind)
{
	return kind != TO_WORKER_RESTORE_CHUNK;
}

/* Puts the fields behind the body, and sends what was written. */
static bool send_written(struct kit_job *job, struct kit_subtask *subtask, uint32_t kind, uint8_t *bytes,
			 struct wire_writer *writer)
{
	wire_put_varint_field(writer, 1, ++subtask->seq);
	wire_put_varint_field(writer, 2, (uint64_t)job->now_ms);
	CHECK(!writer->overflow);
	struct view message = {bytes, (size_t)(writer->at - bytes)};
	if (is_answered(kind))
		return exchange(job, subtask, kind == TO_WORKER_OPEN ? FRAME_OPEN : FRAME_MESSAGE, message);
	struct frame header = {.kind = FRAME_MESSAGE, .seq = subtask->seq, .segment = subtask->stage->segment->id};
	kit_slot_send(&job->slot, subtask->channel, header, message);
	return kit_slot_turn(&job->slot) || kit_slot_failed(job);
}

/* Sends one message of the queue. */
static bool send_message(struct kit_job *job, struct kit_subtask *subtask, const struct kit_message *message)
{
	static uint8_t bytes[KIT_MESSAGE_MAX];
	struct wire_writer writer = {bytes, bytes + sizeof(bytes), false};

	if (message->kind == TO_WORKER_BATCH) {
		wire_put_bytes_field(&writer, message->kind, (struct view){message->records, message->size});
	} else {
		uint8_t *body = wire_begin(&writer, message->kind);
		if (message->kind == TO_WORKER_WATERMARK || message->kind == TO_WORKER_WATERMARK_STATUS ||
		    message->kind == TO_WORKER_BARRIER || message->kind == TO_WORKER_RESTORE_END)
			wire_put_varint_field(&writer, 1, (uint64_t)message->value);
		wire_end(&writer, body);
	}
	return send_written(job, subtask, message->kind, bytes, &writer);
}

/* What follows for the consumers when a message has been answered. */
static void pass_on(struct kit_subtask *subtask, const struct kit_message *message)
{
	struct kit_producer *out = &subtask->stage->out;

	if (message->kind == TO_WORKER_WATERMARK)
		kit_tell(out, subtask->index, NEWS_WATERMARK, message->value);
	if (message->kind == TO_WORKER_WATERMARK_STATUS)
		kit_tell(out, subtask->index, NEWS_IDLE, message->value);
	if (message->kind == TO_WORKER_END_INPUT)
		kit_tell(out, subtask->index, NEWS_END, 0);
}

/* Works a subtask's queue off. */
static bool drain_subtask(struct kit_job *job, struct kit_subtask *subtask)
{
	while (!job->failed && subtask->first < subtask->count) {
		struct kit_message message = subtask->queue[subtask->first++];
		if (send_message(job, subtask, &message))
			pass_on(subtask, &message);
		free(message.records);
	}
	return !job->failed;
}

/* Works all queues off: what a segment makes goes to segments of higher ids alone. */
static bool drain(struct kit_job *job)
{
	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		for (uint32_t j = 0; job->stages[i].runs && j < job->stages[i].parallelism; j++)
			if (!drain_subtask(job, &job->stages[i].subtasks[j]))
				return false;
	return true;
}

/* The earliest processing time that a session wants a tick at; INT64_MAX: none does. */
static int64_t next_tick(const struct kit_job *job)
{
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		for (uint32_t j = 0; job->stages[i].runs && j < job->stages[i].parallelism; j++) {
			int64_t wanted = job->stages[i].subtasks[j].wakeup_ms;
			next = wanted != 0 && wanted < next ? wanted : next;
		}
	return next;
}

bool kit_tick(struct kit_job *job, int64_t until)
{
	uint32_t ticks = 0;

	for (int64_t next; (next = next_tick(job)) <= until;) {
		if (++ticks > TICKS_MAX)
			return kit_fail(job, "more than %d ticks were asked for up to processing time %" PRId64,
					TICKS_MAX, until);
		job->now_ms = next > job->now_ms ? next : job->now_ms;
		for (size_t i = 0; i < job->descriptor->segment_count; i++)
			for (uint32_t j = 0; job->stages[i].runs && j < job->stages[i].parallelism; j++) {
				struct kit_subtask *subtask = &job->stages[i].subtasks[j];
				if (subtask->wakeup_ms == 0 || subtask->wakeup_ms > job->now_ms)
					continue;
				subtask->wakeup_ms = 0;
				kit_enqueue(subtask, TO_WORKER_TIMER_TICK, 0);
			}
		if (!drain(job))
			return false;
	}
	job->now_ms = until > job->now_ms ? until : job->now_ms;
	return true;
}

bool kit_settle(struct kit_job *job)
{
	return drain(job) && kit_tick(job, job->now_ms);
}

/* ---- Open, restore -------------------------------------------------------------------------------------------------- */

/* Sends the Open of a subtask's session. */
static bool open_session(struct kit_job *job, struct kit_subtask *subtask)
{
	const struct kit_stage *stage = subtask->stage;
	const struct segment *segment = stage->segment;
	FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;
	uint32_t first, last;

	key_group_range(subtask->index, stage->parallelism, segment->max_parallelism, &first, &last);
	open.protocol_version = WIRE_PROTOCOL_VERSION;
	open.job = (char *)"bridgectl test";
	open.pipeline = (char *)(uintptr_t)job->descriptor->pipeline;
	open.segment = segment->id;
	open.topology_hash = (char *)(uintptr_t)job->descriptor->topology_hash;
	open.allocation_id = open.attempt_id = open.jvm_uuid = (char *)"bridgectl test";
	open.subtask = subtask->index;
	open.parallelism = stage->parallelism;
	open.max_parallelism = segment->max_parallelism;
	open.key_group_first = first;
	open.key_group_last = last;
	open.restored_checkpoint = stage->states.state_count > 0 ? job->checkpoint : 0;

	size_t size = flink_bridge__open__get_packed_size(&open), manifest = stage->states.manifest_size;
	size_t room = size + manifest + KIT_ENVELOPE_MAX;
	uint8_t *body = kit_need(malloc(size + manifest + 1)), *bytes = kit_need(malloc(room));
	flink_bridge__open__pack(&open, body);
	if (open.restored_checkpoint > 0 && manifest > 0)
		memcpy(body + size, stage->states.manifest, manifest);
	struct wire_writer writer = {bytes, bytes + room, false};
	wire_put_bytes_field(&writer, TO_WORKER_OPEN,
			     (struct view){body, size + (open.restored_checkpoint > 0 ? manifest : 0)});
	bool good = size + manifest <= KIT_MESSAGE_MAX - KIT_ENVELOPE_MAX
			? send_written(job, subtask, TO_WORKER_OPEN, bytes, &writer)
			: BREAK(job, "the manifest of segment \"%s\" is too large", segment->name);
	free(body);
	free(bytes);
	return good;
}

/* Sends a chunk of entries; *at moves on, *sent says how much of the value at hand has gone. */
static bool send_chunk(struct kit_job *job, struct kit_subtask *subtask, size_t *at, size_t *sent)
{
	static uint8_t bytes[KIT_MESSAGE_MAX];
	const struct kit_stage *stage = subtask->stage;
	const struct kit_states *states = &stage->states;
	struct wire_writer writer = {bytes, bytes + CHUNK_BYTES, false};
	uint8_t *body = wire_begin(&writer, TO_WORKER_RESTORE_CHUNK), *first = writer.at;

	for (; *at < states->count; (*at)++, *sent = 0) {
		const struct kit_entry *entry = &states->entries[*at];
		if (!kit_states_is_for(states, entry, subtask->index, stage->parallelism,
				       stage->segment->max_parallelism))
			continue;
		struct wire_entry part = entry->entry;
		if (writer.at == first && part.key.size + part.sub_key.size > CHUNK_BYTES / 2)
			writer.end = bytes + sizeof(bytes) - WIRE_ENTRIES_AROUND;
		uint64_t room = (uint64_t)(writer.end - writer.at);
		part.value.data += *sent;
		part.value.size -= *sent;
		part.more = wire_entry_size(&part) > room;
		if (part.more)
			part.value.size = wire_entry_room(&part, room);
		if (part.more && part.value.size == 0)
			break;
		wire_put_entry(&writer, &part);
		*sent += part.value.size;
		if (part.more)
			break;
	}
	if (writer.at == first && *at < states->count)
		return BREAK(job, "a key of state is larger than a message");
	writer.end = bytes + sizeof(bytes);
	wire_end_entries(&writer, body);
	return send_written(job, subtask, TO_WORKER_RESTORE_CHUNK, bytes, &writer);
}

/* Gives a session its share of the state. */
static bool restore_session(struct kit_job *job, struct kit_subtask *subtask)
{
	const struct kit_stage *stage = subtask->stage;
	const struct kit_states *states = &stage->states;
	struct kit_message end = {.kind = TO_WORKER_RESTORE_END};
	size_t sent = 0;

	if (states->state_count == 0 || job->checkpoint == 0)
		return true;
	for (size_t i = 0; i < states->count; i++)
		end.value += kit_states_is_for(states, &states->entries[i], subtask->index, stage->parallelism,
					       stage->segment->max_parallelism);
	for (size_t at = 0; at < states->count;)
		if (!send_chunk(job, subtask, &at, &sent))
			return false;
	return send_message(job, subtask, &end);
}

bool kit_sessions_open(struct kit_job *job)
{
	uint32_t sessions = 0;

	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		sessions += job->stages[i].runs ? job->stages[i].parallelism : 0;
	if (sessions > KIT_SESSIONS_MAX)
		return BREAK(job, "%u subtasks in all; a case has room for %d: lower its parallelism", sessions,
			     KIT_SESSIONS_MAX);
	if (!kit_slot_make(&job->slot, job->descriptor, sessions, job->patience_ms, job->log))
		return kit_slot_failed(job);
	uint32_t channel = 0;
	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		struct kit_stage *stage = &job->stages[i];
		for (uint32_t j = 0; stage->runs && j < stage->parallelism; j++) {
			struct kit_subtask *subtask = &stage->subtasks[j];
			subtask->channel = ++channel;
			if (!kit_slot_open(&job->slot, channel, stage->segment->id))
				return kit_slot_failed(job);
			if (!open_session(job, subtask) || !restore_session(job, subtask))
				return false;
		}
		kit_states_forget_unkeyed(&stage->states);
	}
	return true;
}

/* ---- Checkpoints -------------------------------------------------------------------------------------------------- */

bool kit_sessions_cut(struct kit_job *job)
{
	job->checkpoint++;
	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		for (uint32_t j = 0; job->stages[i].runs && j < job->stages[i].parallelism; j++) {
			struct kit_message barrier = {.kind = TO_WORKER_BARRIER, .value = (int64_t)job->checkpoint};
			if (!send_message(job, &job->stages[i].subtasks[j], &barrier))
				return false;
		}
	return true;
}
