/*
 * A bounded view parser and a writer for protobuf wire bytes: the hot path's share of the two contracts.
 *
 * Parsing allocates nothing and copies nothing: views point into the message. Everything is bounded (lengths by their
 * enclosing message, varints by ten bytes, groups refused, counts by the caller's arrays) and agrees with protobuf-c on what is valid:
 * unknown fields are skipped, the last of a repeated scalar wins, strings must be UTF-8.
 * Everything else about the contracts (Open, tests, the client) uses the generated protobuf-c code.
 */
#ifndef SHARED_WIRE_H
#define SHARED_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/view.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* ---- Reading a message field by field ---- */

struct wire_reader {
	const uint8_t *at, *end;
	bool malformed; /* sticky */
};

struct wire_field {
	uint32_t number;
	enum wire_type type;
	uint64_t scalar;   /* VARINT, FIXED32, FIXED64 */
	struct view bytes; /* BYTES */
};

/* Starts reading a message. */
void wire_reader_init(struct wire_reader *reader, struct view message);

/* Reads the next field; false at the end or when malformed (then reader->malformed is set). */
bool wire_next(struct wire_reader *reader, struct wire_field *field);

/* Whether bytes are well-formed UTF-8 (no surrogates, no overlong forms). */
bool utf8_valid(struct view text);

/* ---- Records: Record of flink_bridge and Message of flink_worker ---- */

/* One entry of the headers map. */
struct wire_header {
	struct view key, value;
};

/* A record as views into the message it came in; flat, so that a batch is an array of them. */
struct wire_record {
	struct view payload;
	struct view key;   /* meaningful when keyed */
	int64_t timestamp; /* ms */
	int32_t key_hash;
	uint32_t key_group;
	uint32_t input;                      /* or route, on the way out */
	uint32_t first_header, header_count; /* in the batch's header array */
	bool keyed;
};

/* Arrays that a parse fills; owned by the caller, grown by wire (jemalloc), reused from message to message. */
struct wire_batch {
	struct wire_record *records;
	uint32_t count, capacity;
	struct wire_header *headers;
	uint32_t header_count, header_capacity;
};

enum wire_result { WIRE_OK, WIRE_MALFORMED, WIRE_NO_MEMORY };

/* Empties a batch without giving memory back; frees it. */
void wire_batch_clear(struct wire_batch *batch);
void wire_batch_free(struct wire_batch *batch);

/* Appends the record or message in `bytes` to a batch. Duplicate header keys: the last wins, as in any protobuf map. */
enum wire_result wire_parse_record(struct view bytes, struct wire_batch *batch);

/* ---- The messages of the hot path ---- */

/* Which ToWorker.kind a message carries: its field number; 0: none. */
struct wire_to_worker {
	uint64_t seq;
	int64_t processing_time_ms;
	uint32_t kind;    /* field number of the oneof */
	struct view body; /* the message inside it; several of the same kind would merge: refused as malformed */
};

/* Field numbers of ToWorker.kind and FromWorker.kind, as in flink_bridge.proto. */
enum {
	TO_WORKER_OPEN = 3,
	TO_WORKER_BATCH = 6,
	TO_WORKER_WATERMARK = 7,
	TO_WORKER_WATERMARK_STATUS = 8,
	TO_WORKER_TIMER_TICK = 9,
	TO_WORKER_BARRIER = 10,
	TO_WORKER_END_INPUT = 11,
	TO_WORKER_CLOSE = 12,
	FROM_WORKER_OPEN_ACK = 3,
	FROM_WORKER_RESULTS = 6,
	FROM_WORKER_BARRIER_ACK = 10,
	FROM_WORKER_END_ACK = 11,
	FROM_WORKER_ERROR = 13,
};

/* Reads the envelope of a ToWorker message. */
enum wire_result wire_parse_to_worker(struct view message, struct wire_to_worker *out);

/* Reads the envelope of a FromWorker message into the same shape (processing_time_ms is then next_wakeup_ms). */
enum wire_result wire_parse_from_worker(struct view message, struct wire_to_worker *out);

/* Appends the records of a Batch or Results body to a batch; *more is Results.more (NULL to ignore). */
enum wire_result wire_parse_records(struct view body, struct wire_batch *batch, bool *more);

/* What the front must know of a unary request, and the worker too. Absent parts are zero. */
struct wire_unary {
	uint32_t segment;
	int64_t timestamp;      /* ProcessWatermark */
	struct view message;    /* the Message inside it */
	struct view window_key; /* WindowIdentifier.partition_key */
	int64_t window_start;   /* ms */
};

/* Reads a unary request; the kind is the frame's (FRAME_PROCESS_MESSAGE and so on). */
enum wire_result wire_parse_unary(unsigned frame_kind, struct view request, struct wire_unary *out);

/* ---- Writing ---- */

/* Writes into memory of fixed size; what does not fit sets `overflow` and writes nothing more. */
struct wire_writer {
	uint8_t *at, *end;
	bool overflow;
};

void wire_put_varint_field(struct wire_writer *writer, uint32_t field, uint64_t value);
void wire_put_fixed32_field(struct wire_writer *writer, uint32_t field, uint32_t value);
void wire_put_bytes_field(struct wire_writer *writer, uint32_t field, struct view bytes);

/* Starts an embedded message whose size is not known yet (a length of five bytes is kept free), and ends it. */
uint8_t *wire_begin(struct wire_writer *writer, uint32_t field);
void wire_end(struct wire_writer *writer, uint8_t *start);

/* Bytes that wire_put_record would write, tag and length included; and writes a record as field 1 of its parent
 * (Results.records, ProcessMessageResponse.messages). `as_message`: only the fields of flink_worker.Message.
 * `headers` is the array that record->first_header counts into. */
uint64_t wire_record_size(const struct wire_record *record, const struct wire_header *headers, bool as_message);
void wire_put_record(struct wire_writer *writer, const struct wire_record *record, const struct wire_header *headers,
		     bool as_message);

#endif
