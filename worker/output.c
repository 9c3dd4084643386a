/*
 * Writing answers: Results, single messages and statuses.
 *
 * A Results is written with no idea of its size: records go into what was reserved until one does not fit; then it is closed
 * with more=true and the next one begun. The reservation is a guess from above where one can be had (a guess too small
 * splits a message, nothing worse), because a reservation that does not fit before the ring's end costs the rest of the lap.
 */
#include "worker/output.h"

#include <string.h>

#include "shared/log.h"

enum {
	/* Envelope of a Results answer in front of its records: seq, and the tag and length of Results. */
	HEAD_MAX = 11 + 6,
	/* And behind them: more, next_wakeup_ms. */
	TAIL_MAX = 2 + 11,
	/* Fields of a record but for the bytes in it, all at their longest: tags, lengths, numbers. */
	RECORD_MAX_FRAME = 64,
	HEADER_MAX_FRAME = 16,
	/* What a message needs around a record that fills it. */
	AROUND_RECORD = 64,
};

enum { FIELD_SEQ = 1, FIELD_NEXT_WAKEUP = 2, FIELD_RECORDS = 1, FIELD_MORE = 2 };

/* Starts with nothing to send. */
void output_init(struct output *output, struct ring_producer *ring, uint64_t message_max, uint64_t record_max)
{
	uint64_t carried = ring_payload_max(ring->size);

	*output = (struct output){
	    .ring = ring,
	    .message_max = message_max < carried ? message_max : carried,
	};
	/* So that a record that may come in may go out, too. */
	output->record_max = output->message_max - AROUND_RECORD;
	if (record_max < output->record_max)
		output->record_max = record_max;
}

/* Frees what was not sent. */
void output_deinit(struct output *output)
{
	output_drop(output);
	outbox_clear(&output->outbox);
}

/* Says which request the following answers belong to. */
void output_answer(struct output *output, const struct frame *request, uint64_t seq)
{
	output->header = (struct frame){
	    .epoch = request->epoch,
	    .segment = request->segment,
	    .seq = seq,
	    .received_ns = request->received_ns,
	};
}

/* Finds memory for a payload: in the ring, or for the outbox when others wait there already or the ring has no room. */
static void payload_begin(struct output *output, uint64_t size)
{
	enum ring_result result = RING_FULL;

	CHECK(output->payload == NULL);
	if (!output_is_parked(output))
		result = ring_reserve(output->ring, size, &output->payload);
	if (result == RING_DAMAGED)
		output->damaged = true;
	if (result != RING_OK) {
		output->waiting = outbox_frame_create(size);
		output->payload = output->waiting->payload;
	}
	output->writer = (struct wire_writer){.at = output->payload, .end = output->payload + size};
}

/* Completes the answer being written. */
static void payload_end(struct output *output, enum frame_kind kind, bool last)
{
	struct frame header = output->header;
	uint64_t used = (uint64_t)(output->writer.at - output->payload);

	CHECK(!output->writer.overflow);
	header.kind = (uint16_t)kind;
	header.flags = last ? FRAME_LAST : 0;
	if (output->waiting != NULL)
		outbox_append(&output->outbox, output->waiting, header, used);
	else
		ring_append(output->ring, header, used);
	output->waiting = NULL;
	output->payload = NULL;
}

/* Begins a Results for about `wanted` bytes of records; room for what comes behind them is kept out of the writer's sight. */
static void results_begin(struct output *output, uint64_t wanted)
{
	uint64_t size = wanted + HEAD_MAX + TAIL_MAX;

	payload_begin(output, size < output->message_max ? size : output->message_max);
	output->writer.end -= TAIL_MAX;
	wire_put_varint_field(&output->writer, FIELD_SEQ, output->header.seq);
	output->results = wire_begin(&output->writer, FROM_WORKER_RESULTS);
	output->first = output->writer.at;
}

/* Whether the Results at hand has all the room that a message may have. */
static bool results_largest(const struct output *output)
{
	return (uint64_t)(output->writer.end + TAIL_MAX - output->payload) >= output->message_max;
}

/* Whether a Results has been begun and not ended. */
bool output_results_open(const struct output *output)
{
	return output->results != NULL;
}

/* Gives the answer being written up: what is reserved and not appended was never there. */
void output_drop(struct output *output)
{
	outbox_frame_free(output->waiting);
	output->waiting = NULL;
	output->payload = NULL;
	output->results = NULL;
}

/* Ends the Results at hand. */
void output_results_end(struct output *output, bool more, bool last, int64_t next_wakeup_ms)
{
	if (output->results == NULL)
		results_begin(output, 0);
	output->writer.end += TAIL_MAX;
	if (more)
		wire_put_varint_field(&output->writer, FIELD_MORE, 1);
	wire_end(&output->writer, output->results);
	if (last && next_wakeup_ms != 0)
		wire_put_varint_field(&output->writer, FIELD_NEXT_WAKEUP, (uint64_t)next_wakeup_ms);
	payload_end(output, FRAME_ANSWER, last);
	output->results = NULL;
}

/* The bytes of a record without the tag and length in front of it. */
static uint64_t record_inner(uint64_t written)
{
	uint64_t length_bytes = 1;

	while (length_bytes < 5 && (written - 1 - length_bytes) >> (7 * length_bytes) != 0)
		length_bytes++;
	return written - 1 - length_bytes;
}

/* Makes room for a record that did not fit: ends the Results at hand and begins the next. False when even an empty one of the
 * largest size had no room. */
static bool results_split(struct output *output)
{
	if (output->writer.at != output->first) {
		output_results_end(output, true, false, 0);
	} else {
		if (results_largest(output))
			return false;
		output_drop(output);
	}
	results_begin(output, output->message_max);
	return true;
}

/* Writes one record, splitting the message when it is full. */
static enum output_result record_write(struct output *output, const struct wire_record *record,
				       const struct wire_header *headers, uint64_t *size)
{
	for (;;) {
		uint8_t *before = output->writer.at;
		uint64_t written;

		wire_put_record(&output->writer, record, headers, false);
		written = (uint64_t)(output->writer.at - before);
		if (__builtin_expect(!output->writer.overflow, 1)) {
			if (__builtin_expect(written <= output->record_max, 1) ||
			    record_inner(written) <= output->record_max)
				return OUTPUT_OK;
			*size = record_inner(written);
			return OUTPUT_TOO_LARGE;
		}
		output->writer.at = before;
		output->writer.overflow = false;
		if (!results_split(output)) {
			*size = record_inner(wire_record_size(record, headers, false));
			return OUTPUT_TOO_LARGE;
		}
	}
}

/* A bound from above of the bytes that a record takes. */
static uint64_t record_bound(const struct wire_record *record, const struct wire_header *headers)
{
	uint64_t bound = RECORD_MAX_FRAME + record->payload.size + record->key.size;

	for (uint32_t i = 0; i < record->header_count; i++) {
		const struct wire_header *header = &headers[record->first_header + i];

		bound += HEADER_MAX_FRAME + header->key.size + header->value.size;
	}
	return bound;
}

/* Appends records to the Results at hand. */
enum output_result output_records(struct output *output, const struct wire_record *records, uint32_t count,
				  const struct wire_header *headers, uint64_t expect, uint64_t *size)
{
	if (count > 0 && output->results == NULL) {
		uint64_t bound = expect;

		for (uint32_t i = 0; i < count && bound < output->message_max; i++)
			bound += record_bound(&records[i], headers);
		results_begin(output, bound);
	}
	for (uint32_t i = 0; i < count; i++)
		if (record_write(output, &records[i], headers, size) != OUTPUT_OK)
			return OUTPUT_TOO_LARGE;
	return OUTPUT_OK;
}

/* A record of a run as the wire code takes it. */
static struct wire_record record_of(const struct record *record, bool routed)
{
	return (struct wire_record){
	    .payload = record->payload,
	    .key = record->key,
	    .timestamp = record->timestamp,
	    .key_hash = record->key_hash,
	    .key_group = record->key_group,
	    .route = routed ? record->route : 0,
	    .header_count = (uint16_t)record->header_count,
	    .keyed = record->keyed,
	};
}

/* Appends the records of a run. */
enum output_result output_run(struct output *output, const struct run *run, bool routed, uint64_t expect,
			      uint64_t *size)
{
	uint64_t bound = expect;

	if (run->count > 0 && output->results == NULL) {
		for (uint32_t i = 0; i < run->count && bound < output->message_max; i++) {
			struct wire_record record = record_of(&run->records[i], routed);

			bound += record_bound(&record, run->records[i].headers);
		}
		results_begin(output, bound);
	}
	for (uint32_t i = 0; i < run->count; i++) {
		struct wire_record record = record_of(&run->records[i], routed);

		CHECK(run->records[i].state != PAYLOAD_VALUE);
		if (record_write(output, &record, run->records[i].headers, size) != OUTPUT_OK)
			return OUTPUT_TOO_LARGE;
	}
	return OUTPUT_OK;
}

/* Begins an answer that is not Results. */
struct wire_writer *output_begin(struct output *output, uint64_t size_max)
{
	payload_begin(output, size_max);
	return &output->writer;
}

/* Ends it. */
void output_end(struct output *output, enum frame_kind kind, bool last)
{
	payload_end(output, kind, last);
}

/* The longest beginning of a text that cuts no character. */
size_t text_cut(const char *text, size_t limit)
{
	size_t length = strnlen(text, limit + 1);

	if (length <= limit)
		return length;
	length = limit;
	while (length > 0 && ((uint8_t)text[length] & 0xc0) == 0x80)
		length--;
	return length;
}

/* END or REFUSAL. */
void output_status(struct output *output, enum frame_kind kind, uint32_t code, const char *text)
{
	size_t limit = output->message_max - sizeof(struct frame_status);
	size_t length = text_cut(text, limit < STATUS_TEXT_MAX ? limit : STATUS_TEXT_MAX);
	struct frame_status status = {.code = code};

	payload_begin(output, sizeof(status) + length);
	memcpy(output->writer.at, &status, sizeof(status));
	memcpy(output->writer.at + sizeof(status), text, length);
	output->writer.at += sizeof(status) + length;
	payload_end(output, kind, true);
}

/* Moves the first waiting frame to the ring; false when there is no room for it. */
static bool flush_first(struct output *output)
{
	struct outbox_frame *frame = output->outbox.first;
	enum ring_result result;
	uint8_t *payload;

	result = ring_reserve(output->ring, frame->size, &payload);
	if (result == RING_DAMAGED)
		output->damaged = true;
	if (result != RING_OK)
		return false;
	memcpy(payload, frame->payload, frame->size);
	ring_append(output->ring, frame->header, frame->size);
	outbox_pop(&output->outbox);
	return true;
}

/* Moves the outbox to the ring. */
bool output_flush(struct output *output)
{
	while (output_is_parked(output) && !output->damaged) {
		if (flush_first(output))
			continue;
		/* The front makes room by reading what is there: it must see it before anybody waits for that. */
		output->published |= ring_publish(output->ring);
		if (!ring_wait_for_room(output->ring, output->outbox.first->size))
			return false;
	}
	return !output_is_parked(output);
}

/* Makes what is in the ring visible. */
bool output_publish(struct output *output)
{
	bool published = ring_publish(output->ring) || output->published;

	output->published = false;
	return published;
}
