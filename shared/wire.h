/*
 * A bounded view parser and a writer for protobuf wire bytes: the hot path's share of the two contracts.
 *
 * Parsing allocates nothing and copies nothing: views point into the message. Everything is bounded: lengths by the
 * message around them, varints by ten bytes, keys and lengths by five, headers by WIRE_HEADERS_MAX, records by the
 * message's size. It agrees with protobuf-c on what is valid and what it means: unknown fields are skipped, the last
 * of a repeated scalar, string or bytes field wins, a known field of another wire type is malformed, and so are groups.
 *
 * Where it does not agree, on purpose (tests/check_wire.c and tests/fuzz_wire.c know this list):
 *   W1  Strings (header keys and values, partition keys, reasons, names of states) must be UTF-8; protobuf-c does not look.
 *   W2  Field number 0 and numbers above 2^29 - 1 are malformed, as protobuf says; protobuf-c skips most of them.
 *   W3  A second embedded message of one field (`message`, `window_id`), and a second member of `kind`, are malformed:
 *       protobuf would merge the two or let the last win. No client's library writes such bytes.
 *   W4  A header given twice is one header with the last value, as in any protobuf map; protobuf-c keeps both.
 *   W5  A bool (`more`, `idle`, `removed`) of another wire type is malformed; protobuf-c takes it. One whose set bits all lie
 *       beyond the 64th is false; protobuf-c says true.
 *   W6  More than WIRE_HEADERS_MAX header entries in one record are refused.
 *   W7  A Message is read as the Record that it is a part of: fields 4 to 8, unknown to it, are known here.
 *
 * Everything else about the contracts (Open, tests, the client) uses the generated protobuf-c code.
 */
#ifndef SHARED_WIRE_H
#define SHARED_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/view.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

enum { WIRE_HEADERS_MAX = 1000 };   /* header entries of one record */
enum { WIRE_PROTOCOL_VERSION = 2 }; /* of the Session contract, in Open */

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

/* Replaces every byte that is no part of a well-formed character by '?': for words that quote a client, or were cut. */
void utf8_repair(char *text);

/* ---- Records: Record of flink_bridge and Message of flink_worker ---- */

/* One entry of the headers map. */
struct wire_header {
	struct view key, value;
};

/* The time of a record without event time; such a Record has no timestamp. A Message without one has 0. */
#define WIRE_NO_TIMESTAMP INT64_MIN

/* What there is of a record: all of it; what a worker's answer has, which is all but its input; the fields of flink_worker.Message. */
enum wire_form { WIRE_RECORD, WIRE_ANSWER, WIRE_MESSAGE };

/* A record as views into the message it came in; flat, so that a batch is an array of them. It begins as a library sees a record
 * (struct bridge_record of worker/hosts/bridge_step.h), so that steps out of libraries work on batches as they were parsed. */
struct wire_record {
	struct view payload;
	struct view key;                   /* meaningful when keyed */
	const struct wire_header *headers; /* of one out of a batch: in its array; NULL when there are none */
	int64_t timestamp;                 /* ms, or WIRE_NO_TIMESTAMP */
	uint32_t header_count;
	uint32_t keyed;   /* 1: the key is there, be it empty */
	uint32_t input;   /* Record.input: set by who sends to a worker */
	uint32_t ordinal; /* of one out of a batch: its index there */
	/* What a library does not see. */
	int32_t key_hash;
	uint32_t key_group;
	uint32_t route; /* Record.route: set by the worker */
};

/* Arrays that a parse fills; owned by the caller, zeroed before first use, grown by wire, reused from message to message. */
struct wire_batch {
	struct wire_record *records;
	uint32_t count, capacity;
	struct wire_header *headers;
	uint32_t header_count, header_capacity;
};

enum wire_result {
	WIRE_OK,
	WIRE_MALFORMED, /* not what the contract says: end the call or session with INVALID_ARGUMENT */
	WIRE_TOO_MANY_HEADERS,
	WIRE_TOO_LARGE, /* a record is larger than the caller takes */
	WIRE_NO_MEMORY,
};

/* What a result means, in words for the client: "the message is not well-formed protobuf". */
const char *wire_result_text(enum wire_result result);

/* Empties a batch without giving memory back; frees it. */
void wire_batch_clear(struct wire_batch *batch);
void wire_batch_free(struct wire_batch *batch);

/* Appends what is in `bytes` to a batch: a Message (WIRE_MESSAGE), or a Record (any other form); on failure the batch is as before. An empty
 * view is one of defaults. They differ in what an absent timestamp means. */
enum wire_result wire_parse_record(struct view bytes, enum wire_form form, struct wire_batch *batch);

/* ---- The messages of the hot path ---- */

/* Which ToWorker.kind a message carries: its field number; 0: none. */
struct wire_to_worker {
	uint64_t seq;
	int64_t processing_time_ms;
	uint32_t kind;    /* field number of the oneof */
	struct view body; /* the message inside it, not looked at yet */
};

/* Field numbers of ToWorker.kind and FromWorker.kind, as in flink_bridge.proto. */
enum {
	TO_WORKER_OPEN = 3,
	TO_WORKER_RESTORE_CHUNK = 4,
	TO_WORKER_RESTORE_END = 5,
	TO_WORKER_BATCH = 6,
	TO_WORKER_WATERMARK = 7,
	TO_WORKER_WATERMARK_STATUS = 8,
	TO_WORKER_TIMER_TICK = 9,
	TO_WORKER_BARRIER = 10,
	TO_WORKER_END_INPUT = 11,
	TO_WORKER_CLOSE = 12,
	FROM_WORKER_OPEN_ACK = 3,
	FROM_WORKER_RESTORE_ACK = 4,
	FROM_WORKER_RESULTS = 6,
	FROM_WORKER_STATE_DELTA = 9,
	FROM_WORKER_BARRIER_ACK = 10,
	FROM_WORKER_END_ACK = 11,
	FROM_WORKER_ERROR = 13,
};

/* Reads the envelope of a ToWorker message. */
enum wire_result wire_parse_to_worker(struct view message, struct wire_to_worker *out);

/* Reads the envelope of a FromWorker message into the same shape (processing_time_ms is then next_wakeup_ms). */
enum wire_result wire_parse_from_worker(struct view message, struct wire_to_worker *out);

/* Appends the records of a Batch or Results body to a batch; *more is Results.more (NULL for a Batch, which has no such
 * field). On failure the batch is as before. */
enum wire_result wire_parse_records(struct view body, struct wire_batch *batch, bool *more);

/* Appends the next records of a Batch's body, of which the reader has read those before: until the batch has `limit` of them, the body ends, or
 * the result is not WIRE_OK. Then what was read before stays in the batch; the reader is malformed if that is the body's fault, else it stands
 * before the record that is at fault: one that is malformed, or has more than `size_max` bytes. */
enum wire_result wire_parse_run(struct wire_reader *reader, struct wire_batch *batch, uint32_t limit,
				uint64_t size_max);

/* Reads a body whose only field is a number: Watermark, Barrier, BarrierAck, RestoreEnd. */
enum wire_result wire_parse_number(struct view body, uint64_t *value);

/* Reads a body whose only field is a bool: WatermarkStatus. */
enum wire_result wire_parse_flag(struct view body, bool *value);

/* Reads a body whose only field is a string: Close. */
enum wire_result wire_parse_text(struct view body, struct view *text);

/* Reads a body that has no field: TimerTick, EndInput, EndAck. */
enum wire_result wire_parse_empty(struct view body);

/* ---- State: what StateDelta and RestoreChunk carry, and what it means ---- */

/* An entry of state, or a part of one, as views into the message it came in. */
struct wire_entry {
	struct view key, sub_key, value;
	uint32_t state; /* index in the manifest */
	uint32_t key_group;
	int32_t key_hash;
	bool removed; /* there is no value */
	bool more;    /* the value goes on in the next entry */
};

/* What a StateDelta or RestoreChunk says as a whole. */
struct wire_entries {
	uint64_t count;    /* entries, each part of a large one counted */
	uint64_t checksum; /* as it was sent */
	uint64_t computed; /* as it has to be */
};

/* Reads the outside of a StateDelta or RestoreChunk body, and computes its checksum. Entries are not looked into. */
enum wire_result wire_parse_entries(struct view body, struct wire_entries *out);

/* Reads on to the next entry of a body that wire_parse_entries took; begin with wire_reader_init on the body, or on what is left
 * of it behind an entry. False at the end, or at an entry that is malformed (then reader->malformed is set). */
bool wire_next_entry(struct wire_reader *reader, struct wire_entry *entry);

/* The checksum of a message whose `entries` fields, tags and lengths included, are these bytes. */
uint64_t wire_checksum(struct view entries);

/* A StateDeclaration. What its numbers stand for is up to who uses them: values that no enum has come as they are. */
struct wire_declaration {
	struct view step, name;
	uint32_t kind, partition, version;
	int64_t ttl_ms;
};

/* The field numbers of manifests. */
enum { OPEN_STATE_MANIFEST = 16, OPEN_ACK_STATE_MANIFEST = 6 };

/* Reads on to the next declaration of a manifest, which is field `field` of the message that the reader is on. False at the
 * end or when malformed. */
bool wire_next_declaration(struct wire_reader *reader, uint32_t field, struct wire_declaration *out);

/* Reads a RestoreAck body. */
enum wire_result wire_parse_restore_ack(struct view body, uint64_t *entries, uint64_t *dropped);

/* ---- Unary requests ---- */

/* What the front must know of a unary request, and the worker too. Absent parts are zero. The Message is not looked
 * into (wire_parse_record does that); all else is. */
struct wire_unary {
	uint32_t segment;
	int64_t timestamp;      /* ProcessWatermark */
	struct view message;    /* the Message inside it; data is NULL when there is none */
	struct view window_key; /* WindowIdentifier.partition_key */
	int64_t window_start;   /* ms */
};

/* Reads a unary request; the kind is the frame's (FRAME_PROCESS_MESSAGE and so on). */
enum wire_result wire_parse_unary(unsigned frame_kind, struct view request, struct wire_unary *out);

/* ---- Writing ---- */

/* Writes into memory of fixed size; what does not fit sets `overflow`, and from then on nothing is written. Fields are
 * written as told, defaults too: leaving those out is up to the caller. */
struct wire_writer {
	uint8_t *at, *end;
	bool overflow;
};

void wire_put_varint_field(struct wire_writer *writer, uint32_t field, uint64_t value);
void wire_put_fixed32_field(struct wire_writer *writer, uint32_t field, uint32_t value);
void wire_put_fixed64_field(struct wire_writer *writer, uint32_t field, uint64_t value);
void wire_put_bytes_field(struct wire_writer *writer, uint32_t field, struct view bytes);

/* Writes fields that another writer has written. */
void wire_put_encoded(struct wire_writer *writer, struct view bytes);

/* Starts an embedded message whose size is not known yet (a length of five bytes is kept free), and ends it. */
uint8_t *wire_begin(struct wire_writer *writer, uint32_t field);
void wire_end(struct wire_writer *writer, uint8_t *start);

/* Bytes that wire_put_record would write, tag and length included; and writes a record as field 1 of its parent
 * (Batch.records, Results.records, ProcessMessageResponse.messages), whole or not at all. */
uint64_t wire_record_size(const struct wire_record *record, enum wire_form form);
void wire_put_record(struct wire_writer *writer, const struct wire_record *record, enum wire_form form);

/* Writes records as wire_put_record does for an answer, one after the other, until one is larger than `size_max` (without tag and length) or
 * does not fit. Returns how many; the writer has not overflowed. */
uint32_t wire_put_records(struct wire_writer *writer, const struct wire_record *records, uint32_t count,
			  uint64_t size_max);

/* The same for an entry of state: always the same bytes for the same entry, so that whoever holds entries can compute the checksum
 * of a message that they came in. A removed entry has no value. */
uint64_t wire_entry_size(const struct wire_entry *entry);
void wire_put_entry(struct wire_writer *writer, const struct wire_entry *entry);

/* Bytes of value that an entry like this one can carry when it may take `room` bytes as a whole; 0: not even one. When its value is
 * larger, a part of so many bytes has `more` set, and the rest goes on in the next entry. */
uint64_t wire_entry_room(const struct wire_entry *entry, uint64_t room);

/* Bytes that a message of entries needs beyond those: of envelope (seq and time), body and checksum. */
enum { WIRE_ENTRIES_AROUND = 48 };

/* Ends a StateDelta or RestoreChunk begun with wire_begin, in which nothing but entries was written: puts the checksum behind them. */
void wire_end_entries(struct wire_writer *writer, uint8_t *start);

/* Writes a declaration as a field of its parent. */
void wire_put_declaration(struct wire_writer *writer, uint32_t field, const struct wire_declaration *declaration);

/* Bytes that it takes at most. */
uint64_t wire_declaration_size(const struct wire_declaration *declaration);

#endif
