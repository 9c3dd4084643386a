/*
 * Writing answers: Results, single messages and statuses.
 *
 * A Results is written with no idea of its size: records go into what was reserved until one does not fit; then it is closed
 * with more=true and the next one begun. The reservation is a guess from above where one can be had (a guess too small
 * splits a message, nothing worse), because a reservation that does not fit before the ring's end costs the rest of the lap.
 */
#include "worker/output.h"

#include "worker/memory.h"

#include <stdlib.h>
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
	/* Room for the Error and the END of a session that fails. */
	ROOM_MIN = 4096,
	/* Frames that leave the outbox in one unit: bounds its log. */
	FLUSH_FRAMES = 64,
};

enum { FIELD_SEQ = 1, FIELD_NEXT_WAKEUP = 2, FIELD_RECORDS = 1, FIELD_MORE = 2 };

/* Starts with no answer at hand. */
void output_init(struct output *output, struct ring_producer *ring, struct outbox *outbox, struct arena *arena,
		 uint32_t channel, uint64_t message_max, uint64_t record_max)
{
	uint64_t carried = ring_payload_max(ring->size);

	*output = (struct output){
	    .ring = ring,
	    .outbox = outbox,
	    .arena = arena,
	    .channel = channel,
	    .message_max = message_max < carried ? message_max : carried,
	    .room = carried < ROOM_MIN ? carried : ROOM_MIN,
	};
	if (output->room < output->message_max)
		output->room = output->message_max;
	/* So that a record that may come in may go out, too. */
	output->record_max = output->message_max - AROUND_RECORD;
	if (record_max < output->record_max)
		output->record_max = record_max;
}

/* Gives the answer being written up. */
void output_deinit(struct output *output)
{
	output_drop(output);
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

/* Reserves a payload in the ring; false when it has no room, or when others wait in the outbox already. */
static bool payload_reserve(struct output *output, uint64_t size)
{
	enum ring_result result = RING_FULL;

	CHECK(output->payload == NULL);
	if (!output_is_parked(output))
		result = ring_reserve(output->ring, size, &output->payload);
	if (result == RING_DAMAGED)
		output->damaged = true;
	return result == RING_OK;
}

/* Takes memory for a payload that will go to the outbox. */
static void payload_aside(struct output *output, uint64_t size)
{
	output->aside = malloc(size + 1);
	if (output->aside == NULL)
		memory_leave("an answer that waits for its client");
	output->payload = output->aside;
}

/* Lets the writer write to the payload. */
static void payload_open(struct output *output, uint64_t size)
{
	output->writer = (struct wire_writer){.at = output->payload, .end = output->payload + size};
}

/* Finds memory for a payload that is to be written in any case. */
static void payload_begin(struct output *output, uint64_t size)
{
	if (!payload_reserve(output, size))
		payload_aside(output, size);
	payload_open(output, size);
}

/* Completes the answer being written. When the arena has no memory for it, that says so. */
static void payload_end(struct output *output, enum frame_kind kind, bool last)
{
	struct frame header = output->header;
	uint64_t used = (uint64_t)(output->writer.at - output->payload);

	CHECK(!output->writer.overflow);
	header.kind = (uint16_t)kind;
	header.flags = last ? FRAME_LAST : 0;
	if (output->aside != NULL)
		outbox_append(output->outbox, output->arena, output->channel, header, output->payload, used);
	else
		ring_append(output->ring, header, used);
	free(output->aside);
	output->aside = NULL;
	output->payload = NULL;
}

/* Writes the head of a Results; room for what comes behind its records is kept out of the writer's sight. */
static void results_open(struct output *output, uint64_t size)
{
	payload_open(output, size);
	output->writer.end -= TAIL_MAX;
	wire_put_varint_field(&output->writer, FIELD_SEQ, output->header.seq);
	output->results = wire_begin(&output->writer, FROM_WORKER_RESULTS);
	output->first = output->writer.at;
}

/* Bytes of a Results for so many bytes of records. */
static uint64_t results_size(const struct output *output, uint64_t records)
{
	uint64_t size = records + HEAD_MAX + TAIL_MAX;

	return size < output->message_max ? size : output->message_max;
}

/* Begins a Results for about `least` bytes of records, and `expect` more if there is room for those, too. False: there is no room
 * in the ring, and it is no surplus. */
static bool results_begin(struct output *output, uint64_t least, uint64_t expect)
{
	uint64_t size = results_size(output, least + expect);

	if (!payload_reserve(output, size)) {
		size = results_size(output, least);
		if (!payload_reserve(output, size)) {
			if (!output->surplus)
				return false;
			payload_aside(output, size);
		}
	}
	results_open(output, size);
	return true;
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
	free(output->aside);
	output->aside = NULL;
	output->payload = NULL;
	output->results = NULL;
}

/* Gives up everything that was not published. */
void output_rollback(struct output *output)
{
	output_drop(output);
	ring_rollback(output->ring);
}

/* Ends the Results at hand. */
void output_results_end(struct output *output, bool more, bool last, int64_t next_wakeup_ms)
{
	if (output->results == NULL) {
		uint64_t size = results_size(output, 0);

		payload_begin(output, size);
		results_open(output, size);
	}
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

/* Makes room for a record that did not fit: ends the Results at hand and begins the next. */
static enum output_result results_split(struct output *output)
{
	if (output->writer.at != output->first) {
		output_results_end(output, true, false, 0);
	} else {
		if (results_largest(output))
			return OUTPUT_TOO_LARGE; /* even an empty one of the largest size had no room */
		output_drop(output);
	}
	return results_begin(output, output->message_max, 0) ? OUTPUT_OK : OUTPUT_NO_ROOM;
}

/* Writes one record, splitting the message when it is full. */
static enum output_result record_write(struct output *output, const struct wire_record *record, uint64_t *size)
{
	for (;;) {
		uint8_t *before = output->writer.at;
		enum output_result split;
		uint64_t written;

		wire_put_record(&output->writer, record, WIRE_ANSWER);
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
		split = results_split(output);
		if (split != OUTPUT_OK) {
			*size = record_inner(wire_record_size(record, WIRE_ANSWER));
			return split;
		}
	}
}

/* A bound from above of the bytes that a record takes. */
static uint64_t record_bound(const struct wire_record *record)
{
	uint64_t bound = RECORD_MAX_FRAME + record->payload.size + record->key.size;

	for (uint32_t i = 0; i < record->header_count; i++) {
		const struct wire_header *header = &record->headers[i];

		bound += HEADER_MAX_FRAME + header->key.size + header->value.size;
	}
	return bound;
}

/* Appends records to the Results at hand. */
enum output_result output_records(struct output *output, const struct wire_record *records, uint32_t count,
				  uint64_t expect, uint64_t *size)
{
	enum output_result result = OUTPUT_OK;

	if (count > 0 && output->results == NULL) {
		uint64_t bound = 0;

		for (uint32_t i = 0; i < count && bound < output->message_max; i++)
			bound += record_bound(&records[i]);
		if (!results_begin(output, bound, expect))
			return OUTPUT_NO_ROOM;
	}
	for (uint32_t i = 0; i < count && result == OUTPUT_OK; i++) {
		i += wire_put_records(&output->writer, &records[i], count - i, output->record_max);
		if (i < count)
			result = record_write(output, &records[i], size);
	}
	return result;
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
	    .headers = record->headers,
	    .header_count = record->header_count,
	    .keyed = record->keyed,
	};
}

/* Appends the records of a run. */
enum output_result output_run(struct output *output, const struct run *run, bool routed, uint64_t expect,
			      uint64_t *size)
{
	enum output_result result = OUTPUT_OK;
	uint64_t bound = 0;

	if (run->count > 0 && output->results == NULL) {
		for (uint32_t i = 0; i < run->count && bound < output->message_max; i++) {
			struct wire_record record = record_of(&run->records[i], routed);

			bound += record_bound(&record);
		}
		if (!results_begin(output, bound, expect))
			return OUTPUT_NO_ROOM;
	}
	for (uint32_t i = 0; i < run->count && result == OUTPUT_OK; i++) {
		struct wire_record record = record_of(&run->records[i], routed);

		CHECK(run->records[i].state != PAYLOAD_VALUE);
		result = record_write(output, &record, size);
	}
	return result;
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

/* The header of the first waiting frame, which is none larger than a ring carries. False: the arena is broken. */
static bool first_waiting(struct output *output, struct frame *header)
{
	if (!outbox_first(output->outbox, output->arena, header))
		return false;
	if (header->length - sizeof(*header) <= ring_payload_max(output->ring->size))
		return true;
	arena_set_broken(output->arena, "a frame in an outbox is larger than frames are");
	return false;
}

/* Moves the first waiting frame to the ring; false when there is no room for it. */
static bool flush_first(struct output *output)
{
	enum ring_result result;
	struct frame header;
	uint8_t *payload;
	uint64_t size;

	if (!first_waiting(output, &header))
		return false;
	size = header.length - sizeof(header);
	result = ring_reserve(output->ring, size, &payload);
	if (result == RING_DAMAGED)
		output->damaged = true;
	if (result != RING_OK)
		return false;
	if (!outbox_take(output->outbox, output->arena, output->channel, payload))
		return false;
	ring_append(output->ring, header, size);
	return true;
}

/* Moves a few frames from the outbox to the ring. */
uint32_t output_flush(struct output *output)
{
	uint32_t moved = 0;

	while (moved < FLUSH_FRAMES && output_is_parked(output) && flush_first(output))
		moved++;
	return moved;
}

/* Announces that the channel waits for room. */
bool output_wait_for_room(struct output *output)
{
	uint64_t size = output->room;
	struct frame header;

	if (output_is_parked(output)) {
		if (!first_waiting(output, &header))
			return false;
		size = header.length - sizeof(header);
	}
	return ring_wait_for_room(output->ring, size);
}

/* Whether an answer as large as any would find room. */
bool output_has_room(struct output *output)
{
	return ring_has_room(output->ring, output->room);
}

/* Makes what is in the ring visible. */
bool output_publish(struct output *output)
{
	return ring_publish(output->ring);
}
