/*
 * Where records and time go in a test case: from a producer's subtask to the queues of its consumers, and into sinks. Consumers get no more than
 * Flink would give them: a watermark is the least of all that feeds a subtask.
 */
#include "cli/kit_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"

enum { BATCH_RECORDS = 1024 /* of one message */ };

/* ---- Sinks ---------------------------------------------------------------------------------------------------------- */

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
static void sink_take(struct kit_job *job, struct kit_sink *sink, const struct wire_record *record)
{
	if (sink->count == sink->capacity) {
		sink->capacity = sink->capacity == 0 ? 16 : 2 * sink->capacity;
		sink->records = kit_need(realloc(sink->records, sink->capacity * sizeof(*sink->records)));
	}
	struct kit_header *headers = pool_array(&job->pool, record->header_count, sizeof(*headers));
	for (uint32_t i = 0; i < record->header_count; i++) {
		const struct wire_header *from = &record->headers[i];
		headers[i].name = (const char *)keep_bytes(job, from->key).data;
		headers[i].value = (const char *)keep_bytes(job, from->value).data;
	}
	qsort(headers, record->header_count, sizeof(*headers), compare_headers);
	sink->records[sink->count++] = (struct kit_record){
	    .payload = keep_bytes(job, record->payload),
	    .has_payload = true,
	    .has_key = record->keyed,
	    .key = record->keyed ? keep_bytes(job, record->key) : (struct view){0},
	    .has_timestamp = record->timestamp != WIRE_NO_TIMESTAMP,
	    .timestamp = record->timestamp,
	    .headers = headers,
	    .header_count = record->header_count,
	};
}

/* ---- Queues --------------------------------------------------------------------------------------------------------- */

struct kit_message *kit_enqueue(struct kit_subtask *subtask, uint32_t kind, int64_t value)
{
	if (subtask->first == subtask->count)
		subtask->first = subtask->count = 0;
	if (subtask->count == subtask->capacity) {
		subtask->capacity = subtask->capacity == 0 ? 8 : 2 * subtask->capacity;
		subtask->queue = kit_need(realloc(subtask->queue, subtask->capacity * sizeof(*subtask->queue)));
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
		last = kit_enqueue(subtask, TO_WORKER_BATCH, 0);
	if (last->size + size > last->capacity) {
		last->capacity = 2 * (last->size + size);
		last->records = kit_need(realloc(last->records, last->capacity));
	}
	return last;
}

/* Puts a record into the queue of a subtask. */
static bool offer(struct kit_job *job, struct kit_subtask *subtask, const struct wire_record *record)
{
	uint64_t size = wire_record_size(record, WIRE_RECORD);

	if (size > KIT_MESSAGE_MAX - KIT_ENVELOPE_MAX)
		return BREAK(job, "a record of %" PRIu64 " bytes: a case has room for %d", size,
			     KIT_MESSAGE_MAX - KIT_ENVELOPE_MAX);
	struct kit_message *batch = batch_for(subtask, size);
	struct wire_writer writer = {batch->records + batch->size, batch->records + batch->capacity, false};
	wire_put_record(&writer, record, WIRE_RECORD);
	CHECK(!writer.overflow);
	batch->size = (size_t)(writer.at - batch->records);
	batch->count++;
	return true;
}

/* ---- Producers ------------------------------------------------------------------------------------------------------ */

struct partitioner *kit_partitioner(const struct kit_producer *producer, uint32_t subtask, uint32_t edge)
{
	return &producer->partitioners[(size_t)subtask * producer->edge_count + edge];
}

bool kit_push(struct kit_job *job, struct kit_producer *producer, uint32_t from, struct wire_record *record)
{
	for (uint32_t i = 0; i < producer->edge_count; i++) {
		const struct kit_edge *edge = &producer->edges[i];
		if (edge->route != record->route)
			continue;
		if (edge->sink != NULL) {
			sink_take(job, edge->sink, record);
			continue;
		}
		struct partitioner *partitioner = kit_partitioner(producer, from, i);
		uint32_t to = partitioner_choose(partitioner, record);
		partitioner_done(partitioner);
		struct wire_record copy = *record;
		copy.input = edge->input;
		copy.route = 0;
		if (!offer(job, &edge->stage->subtasks[to], &copy))
			return false;
	}
	return true;
}

/* Takes a change of a valve over. */
static void valve_changed(struct kit_subtask *subtask, unsigned changes)
{
	if ((changes & WATERMARK_STATUS) != 0 && !subtask->valve.idle)
		kit_enqueue(subtask, TO_WORKER_WATERMARK_STATUS, 0);
	if ((changes & WATERMARK_MOVED) != 0)
		kit_enqueue(subtask, TO_WORKER_WATERMARK, subtask->valve.time);
	if ((changes & WATERMARK_STATUS) != 0 && subtask->valve.idle)
		kit_enqueue(subtask, TO_WORKER_WATERMARK_STATUS, 1);
}

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
		kit_enqueue(subtask, TO_WORKER_END_INPUT, 0);
}

void kit_tell(struct kit_producer *producer, uint32_t from, enum news news, int64_t value)
{
	for (uint32_t i = 0; i < producer->edge_count; i++) {
		const struct kit_edge *edge = &producer->edges[i];
		for (uint32_t to = 0; edge->stage != NULL && to < edge->stage->parallelism; to++)
			if (partitioner_reaches(kit_partitioner(producer, from, i), to))
				tell_subtask(&edge->stage->subtasks[to], edge->first_channel + from, news, value);
	}
}
