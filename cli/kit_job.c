/* The job of a test case (kit_job.h). */
#include "cli/kit_job.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "worker/jq_program.h"

enum {
	PROTOCOL_VERSION = 1,
	ENVELOPE_MAX = 64,       /* of a message around its body */
	BATCH_RECORDS = 1024,    /* of one message */
	TICKS_MAX = 1000000,     /* in one event: a segment that asks for more never stops asking */
	CHUNK_BYTES = 128 << 10, /* of state that is restored, unless an entry's key needs more */
	LINE_MAX_BYTES = KIT_MESSAGE_MAX - 4096,
};

/* ---- Failures ------------------------------------------------------------------------------------------------------- */

/* The job fails; the first reason is kept. Returns false. */
static bool __attribute__((format(printf, 2, 3))) fail(struct kit_job *job, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (!job->failed)
		vsnprintf(job->failure, sizeof(job->failure), format, arguments);
	va_end(arguments);
	job->failed = true;
	return false;
}

/* The same for what is no failure of the pipeline: no case can expect it. */
#define BREAK(job, ...) ((job)->broken |= !(job)->failed, fail(job, __VA_ARGS__))

/* Memory, or the end in words. */
static void *need(void *memory)
{
	if (memory == NULL)
		fatalx("out of memory for a case");
	return memory;
}

/* ---- Sinks ---------------------------------------------------------------------------------------------------------- */

struct kit_sink *kit_job_sink(struct kit_job *job, const char *name)
{
	for (size_t i = 0; i < job->sink_count; i++)
		if (strcmp(job->sinks[i].name, name) == 0)
			return &job->sinks[i];
	return NULL;
}

/* A copy of bytes in the job's pool. */
static struct view keep_bytes(struct kit_job *job, struct view view)
{
	return (struct view){(const uint8_t *)pool_copy_bytes(&job->pool, view.data, view.size), view.size};
}

/* Orders headers by name: on the wire they have no order. */
static int compare_headers(const void *left, const void *right)
{
	const struct kit_header *a = left, *b = right;

	return strcmp(a->name, b->name);
}

/* A sink gets a record. */
static void sink_take(struct kit_job *job, struct kit_sink *sink, const struct wire_record *record,
		      const struct wire_header *all_headers)
{
	if (sink->count == sink->capacity) {
		sink->capacity = sink->capacity == 0 ? 16 : 2 * sink->capacity;
		sink->records = need(realloc(sink->records, sink->capacity * sizeof(*sink->records)));
	}
	struct kit_header *headers = pool_array(&job->pool, record->header_count, sizeof(*headers));
	for (uint32_t i = 0; i < record->header_count; i++) {
		const struct wire_header *from = &all_headers[record->first_header + i];
		headers[i].name = (const char *)keep_bytes(job, from->key).data;
		headers[i].value = (const char *)keep_bytes(job, from->value).data;
	}
	qsort(headers, record->header_count, sizeof(*headers), compare_headers);
	sink->records[sink->count++] = (struct kit_record){
	    .payload = keep_bytes(job, record->payload),
	    .has_payload = true,
	    .has_key = record->keyed,
	    .key = record->keyed ? keep_bytes(job, record->key) : (struct view){0},
	    .has_timestamp = true,
	    .timestamp = record->timestamp,
	    .headers = headers,
	    .header_count = record->header_count,
	};
}

/* ---- Queues --------------------------------------------------------------------------------------------------------- */

/* A new message at the end of a subtask's queue. */
static struct kit_message *enqueue(struct kit_subtask *subtask, uint32_t kind, int64_t value)
{
	if (subtask->first == subtask->count)
		subtask->first = subtask->count = 0;
	if (subtask->count == subtask->capacity) {
		subtask->capacity = subtask->capacity == 0 ? 8 : 2 * subtask->capacity;
		subtask->queue = need(realloc(subtask->queue, subtask->capacity * sizeof(*subtask->queue)));
	}
	CHECK(subtask->queue != NULL);
	struct kit_message *message = &subtask->queue[subtask->count++];
	*message = (struct kit_message){.kind = kind, .value = value};
	return message;
}

/* The batch at the end of the queue, if a record of some size can still go into it; else a new one. */
static struct kit_message *batch_for(struct kit_subtask *subtask, uint64_t size)
{
	struct kit_message *last = subtask->count > subtask->first ? &subtask->queue[subtask->count - 1] : NULL;

	if (last == NULL || last->kind != TO_WORKER_BATCH || last->count == BATCH_RECORDS ||
	    last->size + size > KIT_MESSAGE_MAX / 2)
		last = enqueue(subtask, TO_WORKER_BATCH, 0);
	if (last->size + size > last->capacity) {
		last->capacity = 2 * (last->size + size);
		last->records = need(realloc(last->records, last->capacity));
	}
	return last;
}

/* Puts a record into the queue of a subtask. */
static bool offer(struct kit_job *job, struct kit_subtask *subtask, const struct wire_record *record,
		  const struct wire_header *headers)
{
	uint64_t size = wire_record_size(record, headers, false);

	if (size > KIT_MESSAGE_MAX - ENVELOPE_MAX)
		return BREAK(job, "a record of %" PRIu64 " bytes: a case has room for %d", size,
			     KIT_MESSAGE_MAX - ENVELOPE_MAX);
	struct kit_message *batch = batch_for(subtask, size);
	struct wire_writer writer = {batch->records + batch->size, batch->records + batch->capacity, false};
	wire_put_record(&writer, record, headers, false);
	CHECK(!writer.overflow);
	batch->size = (size_t)(writer.at - batch->records);
	batch->count++;
	return true;
}

/* ---- Producers ------------------------------------------------------------------------------------------------------ */

/* The partitioner of a producer's subtask at an edge. */
static struct partitioner *partitioner_at(const struct kit_producer *producer, uint32_t subtask, uint32_t edge)
{
	return &producer->partitioners[(size_t)subtask * producer->edge_count + edge];
}

/* A producer's subtask gives a record out on a route. */
static bool push(struct kit_job *job, struct kit_producer *producer, uint32_t from, struct wire_record *record,
		 const struct wire_header *headers)
{
	for (uint32_t i = 0; i < producer->edge_count; i++) {
		const struct kit_edge *edge = &producer->edges[i];
		if (edge->route != record->route)
			continue;
		if (edge->sink != NULL) {
			sink_take(job, edge->sink, record, headers);
			continue;
		}
		struct partitioner *partitioner = partitioner_at(producer, from, i);
		uint32_t to = partitioner_choose(partitioner, record);
		partitioner_done(partitioner);
		struct wire_record copy = *record;
		copy.input = edge->input;
		copy.route = 0;
		if (!offer(job, &edge->stage->subtasks[to], &copy, headers))
			return false;
	}
	return true;
}

/* Takes a change of a valve over. */
static void valve_changed(struct kit_subtask *subtask, unsigned changes)
{
	if ((changes & WATERMARK_STATUS) != 0 && !subtask->valve.idle)
		enqueue(subtask, TO_WORKER_WATERMARK_STATUS, 0);
	if ((changes & WATERMARK_MOVED) != 0)
		enqueue(subtask, TO_WORKER_WATERMARK, subtask->valve.time);
	if ((changes & WATERMARK_STATUS) != 0 && subtask->valve.idle)
		enqueue(subtask, TO_WORKER_WATERMARK_STATUS, 1);
}

/* What a producer's subtask tells of time, of idleness, and of its end. */
enum news { NEWS_WATERMARK, NEWS_IDLE, NEWS_END };

/* Tells one consumer's subtask. */
static void tell_subtask(struct kit_subtask *subtask, uint32_t channel, enum news news, int64_t value)
{
	struct watermark_valve *valve = &subtask->valve;

	if (news == NEWS_WATERMARK)
		valve_changed(subtask, watermark_valve_advance(valve, channel, value));
	if (news == NEWS_IDLE)
		valve_changed(subtask, watermark_valve_set_idle(valve, channel, value != 0));
	if (news != NEWS_END)
		return;
	valve_changed(subtask, watermark_valve_set_idle(valve, channel, false));
	valve_changed(subtask, watermark_valve_advance(valve, channel, INT64_MAX));
	if (--subtask->open == 0)
		enqueue(subtask, TO_WORKER_END_INPUT, 0);
}

/* Tells every consumer. */
static void tell(struct kit_producer *producer, uint32_t from, enum news news, int64_t value)
{
	for (uint32_t i = 0; i < producer->edge_count; i++) {
		const struct kit_edge *edge = &producer->edges[i];
		for (uint32_t to = 0; edge->stage != NULL && to < edge->stage->parallelism; to++)
			if (partitioner_reaches(partitioner_at(producer, from, i), to))
				tell_subtask(&edge->stage->subtasks[to], edge->first_channel + from, news, value);
	}
}

/* ---- Sessions ------------------------------------------------------------------------------------------------------- */

/* Says what is wrong with the worker, after it was said to be. */
static bool slot_failed(struct kit_job *job)
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
		fail(job, "%s", answer->error->message);
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
		if (!push(job, &subtask->stage->out, subtask->index, &job->batch.records[i], job->batch.headers))
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
			fail(job, "%.*s", (int)(payload.size - sizeof(struct frame_status)),
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
			return slot_failed(job);
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
	return kit_slot_turn(&job->slot) || slot_failed(job);
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
		tell(out, subtask->index, NEWS_WATERMARK, message->value);
	if (message->kind == TO_WORKER_WATERMARK_STATUS)
		tell(out, subtask->index, NEWS_IDLE, message->value);
	if (message->kind == TO_WORKER_END_INPUT)
		tell(out, subtask->index, NEWS_END, 0);
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

/* Lets processing time go on to `until`, with each tick that is wanted on the way at its own time. */
static bool tick(struct kit_job *job, int64_t until)
{
	uint32_t ticks = 0;

	for (int64_t next; (next = next_tick(job)) <= until;) {
		if (++ticks > TICKS_MAX)
			return fail(job, "more than %d ticks were asked for up to processing time %" PRId64, TICKS_MAX,
				    until);
		job->now_ms = next > job->now_ms ? next : job->now_ms;
		for (size_t i = 0; i < job->descriptor->segment_count; i++)
			for (uint32_t j = 0; job->stages[i].runs && j < job->stages[i].parallelism; j++) {
				struct kit_subtask *subtask = &job->stages[i].subtasks[j];
				if (subtask->wakeup_ms == 0 || subtask->wakeup_ms > job->now_ms)
					continue;
				subtask->wakeup_ms = 0;
				enqueue(subtask, TO_WORKER_TIMER_TICK, 0);
			}
		if (!drain(job))
			return false;
	}
	job->now_ms = until > job->now_ms ? until : job->now_ms;
	return true;
}

/* Works off what an event began, with the ticks that are due by it. */
static bool settle(struct kit_job *job)
{
	return drain(job) && tick(job, job->now_ms);
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
	open.protocol_version = PROTOCOL_VERSION;
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
	size_t room = size + manifest + ENVELOPE_MAX;
	uint8_t *body = need(malloc(size + manifest + 1)), *bytes = need(malloc(room));
	flink_bridge__open__pack(&open, body);
	if (open.restored_checkpoint > 0 && manifest > 0)
		memcpy(body + size, stage->states.manifest, manifest);
	struct wire_writer writer = {bytes, bytes + room, false};
	wire_put_bytes_field(&writer, TO_WORKER_OPEN,
			     (struct view){body, size + (open.restored_checkpoint > 0 ? manifest : 0)});
	bool good = size + manifest <= KIT_MESSAGE_MAX - ENVELOPE_MAX
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

/* Opens all sessions in a new slot. */
static bool open_sessions(struct kit_job *job)
{
	uint32_t sessions = 0;

	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		sessions += job->stages[i].runs ? job->stages[i].parallelism : 0;
	if (sessions > KIT_SESSIONS_MAX)
		return BREAK(job, "%u subtasks in all; a case has room for %d: lower its parallelism", sessions,
			     KIT_SESSIONS_MAX);
	if (!kit_slot_make(&job->slot, job->descriptor, sessions, job->patience_ms, job->log))
		return slot_failed(job);
	uint32_t channel = 0;
	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		struct kit_stage *stage = &job->stages[i];
		for (uint32_t j = 0; stage->runs && j < stage->parallelism; j++) {
			struct kit_subtask *subtask = &stage->subtasks[j];
			subtask->channel = ++channel;
			if (!kit_slot_open(&job->slot, channel, stage->segment->id))
				return slot_failed(job);
			if (!open_session(job, subtask) || !restore_session(job, subtask))
				return false;
		}
		kit_states_forget_unkeyed(&stage->states);
	}
	return true;
}

/* ---- Putting it together -------------------------------------------------------------------------------------------- */

/* One more edge of a producer, whose last one it becomes. */
static struct kit_edge *edge_add(struct kit_producer *producer)
{
	producer->edges = need(realloc(producer->edges, (producer->edge_count + 1) * sizeof(*producer->edges)));
	struct kit_edge *edge = &producer->edges[producer->edge_count++];
	*edge = (struct kit_edge){0};
	return edge;
}

/* The producer that feeds an input. In a segment that runs alone each input has one of its own. */
static struct kit_producer *producer_of(struct kit_job *job, const struct input *input, uint32_t number)
{
	if (job->alone != NULL)
		return &job->sources[number];
	return input->from_source ? &job->sources[input->index] : &job->stages[input->index].out;
}

/* Connects the inputs of a segment with what feeds them. */
static void connect_stage(struct kit_job *job, struct kit_stage *stage)
{
	const struct segment *segment = stage->segment;

	stage->channels = 0;
	for (uint32_t i = 0; i < segment->input_count; i++) {
		const struct input *input = &segment->inputs[i];
		struct kit_producer *producer = producer_of(job, input, i);
		struct kit_edge *edge = edge_add(producer);
		edge->route = job->alone != NULL ? 0 : input->route;
		edge->partition = input->partition;
		edge->stage = stage;
		edge->input = i;
		edge->first_channel = stage->channels;
		stage->channels += producer->parallelism;
	}
}

/* Makes the subtasks of a segment. */
static void make_subtasks(struct kit_stage *stage)
{
	stage->subtasks = need(calloc(stage->parallelism, sizeof(*stage->subtasks)));
	for (uint32_t i = 0; i < stage->parallelism; i++) {
		stage->subtasks[i] = (struct kit_subtask){.stage = stage, .index = i};
		watermark_valve_init(&stage->subtasks[i].valve, stage->channels);
	}
}

/* Makes the partitioners of a producer, and finds out whom it reaches. */
static void make_partitioners(struct kit_producer *producer)
{
	producer->partitioners =
	    need(calloc((size_t)producer->parallelism * producer->edge_count + 1, sizeof(*producer->partitioners)));
	for (uint32_t from = 0; from < producer->parallelism; from++)
		for (uint32_t i = 0; i < producer->edge_count; i++) {
			const struct kit_edge *edge = &producer->edges[i];
			if (edge->stage == NULL)
				continue;
			partitioner_init(partitioner_at(producer, from, i), edge->partition, from,
					 edge->stage->parallelism, edge->stage->segment->max_parallelism);
			for (uint32_t to = 0; to < edge->stage->parallelism; to++) {
				struct kit_subtask *subtask = &edge->stage->subtasks[to];
				if (partitioner_reaches(partitioner_at(producer, from, i), to))
					subtask->open++;
				else
					watermark_valve_leave_out(&subtask->valve, edge->first_channel + from);
			}
		}
}

/* Connects all, for the parallelism that there is now. */
static void connect_all(struct kit_job *job)
{
	const struct descriptor *descriptor = job->descriptor;

	for (size_t i = 0; i < job->source_count; i++)
		job->sources[i].parallelism = job->parallelism;
	for (size_t i = 0; i < descriptor->segment_count; i++)
		job->stages[i].parallelism = job->stages[i].out.parallelism = job->parallelism;
	for (size_t i = 0; i < descriptor->segment_count; i++)
		if (job->stages[i].runs) {
			connect_stage(job, &job->stages[i]);
			make_subtasks(&job->stages[i]);
		}
	for (size_t i = 0; job->alone == NULL && i < descriptor->sink_count; i++)
		for (size_t j = 0; j < descriptor->sinks[i].input_count; j++) {
			const struct input *input = &descriptor->sinks[i].inputs[j];
			struct kit_edge *edge = edge_add(producer_of(job, input, 0));
			edge->route = input->route;
			edge->sink = &job->sinks[i];
		}
	for (size_t i = 0; job->alone != NULL && i < job->sink_count; i++) {
		struct kit_edge *edge = edge_add(&job->stages[job->alone->id].out);
		edge->route = (uint32_t)i;
		edge->sink = &job->sinks[i];
	}
	for (size_t i = 0; i < job->source_count; i++)
		make_partitioners(&job->sources[i]);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		make_partitioners(&job->stages[i].out);
}

/* Takes a producer's edges away. */
static void producer_clear(struct kit_producer *producer)
{
	free(producer->edges);
	free(producer->partitioners);
	producer->edges = NULL;
	producer->partitioners = NULL;
	producer->edge_count = 0;
}

/* Takes all of it apart again; states, sinks and the sources' time stay. */
static void disconnect_all(struct kit_job *job)
{
	for (size_t i = 0; i < job->source_count; i++)
		producer_clear(&job->sources[i]);
	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		struct kit_stage *stage = &job->stages[i];
		producer_clear(&stage->out);
		for (uint32_t j = 0; stage->subtasks != NULL && j < stage->parallelism; j++) {
			struct kit_subtask *subtask = &stage->subtasks[j];
			for (; subtask->first < subtask->count; subtask->first++)
				free(subtask->queue[subtask->first].records);
			free(subtask->queue);
			watermark_valve_free(&subtask->valve);
		}
		free(stage->subtasks);
		stage->subtasks = NULL;
	}
}

/* The segment that a case runs alone; NULL and words when there is none of that name. */
static const struct segment *find_segment(struct kit_job *job, const char *name)
{
	char names[1024] = "";

	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		const struct segment *segment = &job->descriptor->segments[i];
		if (strcmp(segment->name, name) == 0)
			return segment;
		size_t used = strlen(names);
		snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", segment->name);
	}
	BREAK(job, "the pipeline has no segment \"%s\"; it has %s", name, names);
	return NULL;
}

/* What an input of a segment that runs alone is called: the source, or the segment, and its route if that has several. */
static const char *input_name(struct kit_job *job, const struct input *input)
{
	if (input->from_source)
		return job->descriptor->sources[input->index].name;
	const struct segment *from = &job->descriptor->segments[input->index];
	if (from->route_count == 0)
		return from->name;
	return pool_format(&job->pool, "%s.%s", from->name, from->routes[input->route]);
}

/* Makes sources and sinks of a pipeline. */
static void make_ends(struct kit_job *job)
{
	const struct descriptor *descriptor = job->descriptor;

	job->source_count = descriptor->source_count;
	job->sources = need(calloc(job->source_count + 1, sizeof(*job->sources)));
	for (size_t i = 0; i < job->source_count; i++)
		job->sources[i] =
		    (struct kit_producer){.name = descriptor->sources[i].name,
					  .timestamp = descriptor->sources[i].timestamp,
					  .out_of_orderness_ms = descriptor->sources[i].out_of_orderness_ms,
					  .watermark = INT64_MIN};
	job->sink_count = descriptor->sink_count;
	job->sinks = need(calloc(job->sink_count + 1, sizeof(*job->sinks)));
	for (size_t i = 0; i < job->sink_count; i++)
		job->sinks[i] = (struct kit_sink){.name = descriptor->sinks[i].name,
						  .discards = descriptor->sinks[i].kind == SINK_DISCARD};
}

/* Makes those of a segment that runs alone: its inputs and its routes. */
static void make_segment_ends(struct kit_job *job)
{
	const struct segment *segment = job->alone;

	job->source_count = segment->input_count;
	job->sources = need(calloc(job->source_count + 1, sizeof(*job->sources)));
	for (size_t i = 0; i < job->source_count; i++) {
		const struct input *input = &segment->inputs[i];
		job->sources[i] = (struct kit_producer){.name = input_name(job, input), .watermark = INT64_MIN};
		if (!input->from_source)
			continue;
		job->sources[i].timestamp = job->descriptor->sources[input->index].timestamp;
		job->sources[i].out_of_orderness_ms = job->descriptor->sources[input->index].out_of_orderness_ms;
	}
	job->sink_count = segment->route_count > 0 ? segment->route_count : 1;
	job->sinks = need(calloc(job->sink_count, sizeof(*job->sinks)));
	for (size_t i = 0; i < job->sink_count; i++)
		job->sinks[i].name = segment->route_count > 0 ? segment->routes[i] : "out";
}

/* Whether the parallelism is possible. */
static bool parallelism_fits(struct kit_job *job, uint32_t parallelism)
{
	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		const struct segment *segment = &job->descriptor->segments[i];
		if (parallelism > segment->max_parallelism)
			return BREAK(job, "a parallelism of %u; the pipeline's max_parallelism is %u", parallelism,
				     segment->max_parallelism);
		for (size_t k = 0; k < segment->input_count && parallelism > 1; k++)
			if (segment->inputs[k].partition > PARTITION_HASH)
				return BREAK(job,
					     "a parallelism of %u; segment \"%s\" is read by the partition %s, which "
					     "only Flink has: with parallelism 1 it can be tested",
					     parallelism, segment->name, partition_name(segment->inputs[k].partition));
	}
	job->parallelism = parallelism;
	return true;
}

bool kit_job_start(struct kit_job *job, const struct descriptor *descriptor, const struct kit_case *kit,
		   uint64_t patience_ms, int log)
{
	*job = (struct kit_job){.descriptor = descriptor,
				.now_ms = kit->start,
				.patience_ms = patience_ms,
				.log = log,
				.follows = kit->follows,
				.step = ""};
	job->slot.pidfd = -1;
	job->stages = need(calloc(descriptor->segment_count, sizeof(*job->stages)));
	if (kit->segment != NULL && (job->alone = find_segment(job, kit->segment)) == NULL)
		return false;
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		job->stages[i].segment = &descriptor->segments[i];
		job->stages[i].runs = job->alone == NULL || job->alone == job->stages[i].segment;
	}
	if (job->alone != NULL)
		make_segment_ends(job);
	else
		make_ends(job);
	if (!parallelism_fits(job, kit->parallelism))
		return false;
	connect_all(job);
	return open_sessions(job) && settle(job);
}

void kit_job_stop(struct kit_job *job)
{
	kit_slot_destroy(&job->slot);
	disconnect_all(job);
	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		kit_states_free(&job->stages[i].states);
	for (size_t i = 0; i < job->sink_count; i++)
		free(job->sinks[i].records);
	free(job->stages);
	free(job->sources);
	free(job->sinks);
	wire_batch_free(&job->batch);
	pool_free(&job->pool);
}

/* ---- Events --------------------------------------------------------------------------------------------------------- */

/* Where an event stands, for messages. */
#define AT(file, event) (file)->path, (event)->at->line, (event)->at->column

/* The source that an event names, or the only one; NULL and words. */
static struct kit_producer *source_of(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	char names[1024] = "";

	if (event->source == NULL && job->source_count == 1)
		return &job->sources[0];
	for (size_t i = 0; i < job->source_count; i++) {
		if (event->source != NULL && strcmp(job->sources[i].name, event->source) == 0)
			return &job->sources[i];
		size_t used = strlen(names);
		snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", job->sources[i].name);
	}
	const char *what = job->alone != NULL ? "the segment" : "the pipeline";
	if (event->source != NULL)
		BREAK(job, "%s:%zu:%zu: %s has no source \"%s\"; it has %s", AT(file, event), what, event->source,
		      names);
	else
		BREAK(job, "%s:%zu:%zu: %s has several sources: say which `source`: %s", AT(file, event), what, names);
	return NULL;
}

/* Whether an event is about a source: it names it, or none. */
static bool is_about(const struct kit_event *event, const struct kit_producer *source)
{
	return event->source == NULL || strcmp(event->source, source->name) == 0;
}

/* Event time as the source's program makes it of a payload. */
static bool timestamp_of(struct kit_job *job, const struct kit_producer *source, struct view payload,
			 int64_t *timestamp)
{
	char why[512];
	struct jq_program *program = jq_program_get(source->timestamp, why, sizeof(why));

	if (program == NULL)
		return BREAK(job, "the timestamp program of source \"%s\" does not compile: %s", source->name, why);
	jv value = jv_parse_sized((const char *)payload.data, (int)payload.size), result;
	if (!jv_is_valid(value)) {
		jv_free(value);
		return fail(job, "source \"%s\": no timestamp for a record that is no JSON: %.100s", source->name,
			    (const char *)payload.data);
	}
	if (!jq_program_one(program, value, &result))
		return fail(job, "source \"%s\": no timestamp: %s", source->name, jq_program_error(program));
	double ms = jv_get_kind(result) == JV_KIND_NUMBER ? jv_number_value(result) : NAN;
	jv_free(result);
	if (!(ms >= -9.2e18 && ms <= 9.2e18))
		return fail(job, "source \"%s\": the timestamp program must yield milliseconds, a number",
			    source->name);
	*timestamp = (int64_t)floor(ms);
	return true;
}

/* A source's own watermark follows a record, if the case leaves that to sources: of all of its subtasks, which have one clock. */
static void follow(const struct kit_job *job, struct kit_producer *source, int64_t timestamp)
{
	int64_t behind = watermark_behind(timestamp, source->out_of_orderness_ms);

	if (!job->follows || behind <= source->watermark)
		return;
	source->watermark = behind;
	for (uint32_t from = 0; from < source->parallelism; from++)
		tell(source, from, NEWS_WATERMARK, behind);
}

/* A source gives a record out. */
static bool give(struct kit_job *job, struct kit_producer *source, const struct kit_record *record)
{
	struct wire_header *headers = pool_array(&job->pool, record->header_count, sizeof(*headers));
	struct wire_record out = {.payload = record->payload,
				  .key = record->key,
				  .keyed = record->has_key,
				  .timestamp = record->has_timestamp ? record->timestamp : job->now_ms,
				  .header_count = (uint16_t)record->header_count};

	for (size_t i = 0; i < record->header_count; i++)
		headers[i] = (struct wire_header){view_of(record->headers[i].name), view_of(record->headers[i].value)};
	if (record->has_key)
		out.key_hash = key_hash_of(record->key);
	if (!record->has_timestamp && source->timestamp != NULL &&
	    !timestamp_of(job, source, record->payload, &out.timestamp))
		return false;
	uint32_t from = source->next++ % source->parallelism;
	if (!push(job, source, from, &out, headers))
		return false;
	follow(job, source, out.timestamp);
	return true;
}

/* Whether records have the keys that the segment which runs alone needs; lines of a file have none. */
static bool keys_are_there(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	size_t count = event->kind == KIT_LINES ? 1 : event->count;

	for (size_t i = 0; job->alone != NULL && job->alone->keyed && i < count; i++)
		if (event->kind == KIT_LINES || !event->records[i].has_key)
			return BREAK(job, "%s:%zu:%zu: segment \"%s\" is keyed: a record needs a `key`",
				     AT(file, event), job->alone->name);
	return true;
}

/* Records come in. */
static bool do_records(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	struct kit_producer *source = source_of(job, file, event);

	if (source == NULL || !keys_are_there(job, file, event))
		return false;
	for (size_t i = 0; i < event->count; i++)
		if (!give(job, source, &event->records[i]))
			return false;
	return settle(job);
}

/* Each line of a file comes in. */
static bool do_lines(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	struct kit_producer *source = source_of(job, file, event);
	const char *path = kit_path(file, event->path);
	bool good = source != NULL && keys_are_there(job, file, event);
	FILE *in = good ? fopen(path, "re") : NULL;
	char *line = NULL;
	size_t room = 0;
	ssize_t size;

	if (!good)
		return false;
	if (in == NULL)
		return BREAK(job, "%s:%zu:%zu: cannot open %s: %m", AT(file, event), path);
	while (!job->failed && (size = getline(&line, &room, in)) >= 0) {
		while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
			line[--size] = '\0';
		struct kit_record record = {.payload = {(const uint8_t *)line, (size_t)size}, .has_payload = true};
		if (size > LINE_MAX_BYTES)
			BREAK(job, "%s: a line of %zd bytes; a case has room for %d", path, size, LINE_MAX_BYTES);
		else if (give(job, source, &record))
			settle(job);
	}
	if (ferror(in))
		BREAK(job, "%s:%zu:%zu: cannot read %s: %m", AT(file, event), path);
	free(line);
	fclose(in);
	return !job->failed;
}

/* A source, or all of them, tell of time, of idleness, or of their end. */
static bool do_news(struct kit_job *job, struct kit_file *file, const struct kit_event *event, enum news news,
		    int64_t value)
{
	if (event->source != NULL && source_of(job, file, event) == NULL)
		return false;
	for (size_t i = 0; i < job->source_count; i++) {
		struct kit_producer *source = &job->sources[i];
		if (!is_about(event, source))
			continue;
		if (news == NEWS_WATERMARK && value > source->watermark)
			source->watermark = value;
		if (news == NEWS_IDLE)
			source->idle = value != 0;
		for (uint32_t from = 0; from < source->parallelism; from++)
			tell(source, from, news, value);
	}
	return settle(job);
}

/* Cuts the state of all sessions. */
static bool take_checkpoint(struct kit_job *job)
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

/* The job stops with a checkpoint, and another one is restored from it: new memory, new workers, maybe another parallelism. */
static bool do_restart_job(struct kit_job *job, const struct kit_event *event)
{
	if (!take_checkpoint(job))
		return false;
	kit_slot_destroy(&job->slot);
	disconnect_all(job);
	if (!parallelism_fits(job, event->parallelism > 0 ? event->parallelism : job->parallelism))
		return false;
	connect_all(job);
	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		kit_states_settle(&job->stages[i].states);
	if (!open_sessions(job))
		return false;
	for (size_t i = 0; i < job->source_count; i++)
		for (uint32_t from = 0; from < job->parallelism; from++) {
			if (job->sources[i].watermark > INT64_MIN)
				tell(&job->sources[i], from, NEWS_WATERMARK, job->sources[i].watermark);
			if (job->sources[i].idle)
				tell(&job->sources[i], from, NEWS_IDLE, 1);
		}
	return settle(job);
}

bool kit_job_event(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	switch (event->kind) {
	case KIT_RECORDS:
		return do_records(job, file, event);
	case KIT_LINES:
		return do_lines(job, file, event);
	case KIT_WATERMARK:
		return do_news(job, file, event, NEWS_WATERMARK, event->time);
	case KIT_IDLE:
		return do_news(job, file, event, NEWS_IDLE, event->idle);
	case KIT_ADVANCE:
		if (event->time > KIT_TIME_MAX - job->now_ms)
			return BREAK(job, "%s:%zu:%zu: processing time would go beyond %" PRId64 " ms", AT(file, event),
				     KIT_TIME_MAX);
		return tick(job, job->now_ms + event->time);
	case KIT_RESTART_WORKER:
		return kit_slot_restart(&job->slot) || slot_failed(job);
	case KIT_RESTART_JOB:
		return do_restart_job(job, event);
	case KIT_END:
		return do_news(job, file, event, NEWS_END, 0);
	case KIT_EXPECT:
		break;
	}
	return true;
}
