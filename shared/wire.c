/*
 * Reading protobuf wire bytes. See wire.h for what is accepted.
 *
 * Records, which come by the thousand, have a parser of their own that switches on the key byte; messages, which come one by
 * one, are read field by field with wire_next. Nothing recurses: nesting is as deep as the contracts are, each level with
 * a function of its own. Entries of state are read in wire_state.c.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "shared/frame.h"
#include "shared/log.h"
#include "shared/wire_cursor.h"

enum {
	VARINT_BYTES_MAX = 10,
	PREFIX_BYTES_MAX = 5, /* of a key or a length */
	NUMBER_MAX = (1 << 29) - 1,
	TABLE_SIZE = 2048, /* of the table that finds headers given twice; more than twice WIRE_HEADERS_MAX */
	AHEAD = 2048,      /* bytes of a message that are asked for before they are read, when records are small */
	LINEAR_MAX = 16,   /* headers up to which comparing all of them is faster than that table */
};

/* ---- Cursor ---- */

/* The rest of a varint of more than one byte. */
const uint8_t *wire_varint_long(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
	uint64_t sum = 0;
	size_t room = (size_t)(end - at);
	size_t limit = room < VARINT_BYTES_MAX ? room : VARINT_BYTES_MAX;
	for (size_t i = 0; i < limit; i++) {
		sum |= (uint64_t)(at[i] & 0x7f) << (7 * i); /* bits beyond the 64th fall away, as in protobuf-c */
		if (at[i] < 0x80) {
			*value = sum;
			return at + i + 1;
		}
	}
	return NULL;
}

/* A key or length of more than one byte: up to five, below 2^32. */
const uint8_t *wire_prefix_long(const uint8_t *at, const uint8_t *end, uint32_t *value)
{
	uint64_t sum = 0;
	for (int i = 0; i < PREFIX_BYTES_MAX && at + i < end; i++) {
		sum |= (uint64_t)(at[i] & 0x7f) << (7 * i);
		if (at[i] < 0x80) {
			*value = (uint32_t)sum;
			return sum <= UINT32_MAX ? at + i + 1 : NULL;
		}
	}
	return NULL;
}

/* Reads the value that belongs to a key already read. */
static const uint8_t *value_read(const uint8_t *at, const uint8_t *end, uint32_t key, struct wire_field *field)
{
	uint32_t word;
	field->number = key >> 3;
	field->type = (enum wire_type)(key & 7);
	if (field->number == 0)
		return NULL;
	switch (field->type) {
	case WIRE_VARINT:
		return varint_read(at, end, &field->scalar);
	case WIRE_FIXED64:
		return fixed64_read(at, end, &field->scalar);
	case WIRE_BYTES:
		return bytes_read(at, end, &field->bytes);
	case WIRE_FIXED32:
		at = fixed32_read(at, end, &word);
		if (at != NULL)
			field->scalar = word;
		return at;
	}
	return NULL; /* groups, and types that do not exist */
}

const uint8_t *wire_unknown_skip(const uint8_t *at, const uint8_t *end, uint32_t key, uint32_t known)
{
	struct wire_field field;
	if (key >> 3 <= known)
		return NULL;
	return value_read(at, end, key, &field);
}

/* ---- Field by field ---- */

void wire_reader_init(struct wire_reader *reader, struct view message)
{
	static const uint8_t nothing;
	/* An absent message has no address to count from. */
	const uint8_t *start = message.data != NULL ? message.data : &nothing;
	*reader = (struct wire_reader){.at = start, .end = start + message.size};
}

bool wire_next(struct wire_reader *reader, struct wire_field *field)
{
	uint32_t key;
	if (reader->at >= reader->end || reader->malformed)
		return false;
	const uint8_t *at = key_read(reader->at, reader->end, &key);
	if (at != NULL)
		at = value_read(at, reader->end, key, field);
	if (at == NULL) {
		reader->malformed = true;
		return false;
	}
	reader->at = at;
	return true;
}

const char *wire_result_text(enum wire_result result)
{
	switch (result) {
	case WIRE_OK:
		return "the message is fine";
	case WIRE_MALFORMED:
		return "the message is not well-formed protobuf of this contract";
	case WIRE_TOO_MANY_HEADERS:
		return "a record has more than 1000 headers";
	case WIRE_TOO_LARGE:
		return "a record is too large";
	case WIRE_NO_MEMORY:
		return "no memory is left to read the message";
	}
	return "?";
}

/* ---- Batches ---- */

void wire_batch_clear(struct wire_batch *batch)
{
	batch->count = 0;
	batch->header_count = 0;
}

void wire_batch_free(struct wire_batch *batch)
{
	free(batch->records);
	free(batch->headers);
	*batch = (struct wire_batch){0};
}

/* Doubles an array of `*capacity` entries, to no less than 64. */
static __attribute__((noinline)) bool array_grow(void **array, uint32_t *capacity, size_t entry)
{
	uint32_t wanted = *capacity < 64 ? 64 : *capacity * 2;
	if (*capacity > UINT32_MAX / 2)
		return false;
	void *grown = realloc(*array, wanted * entry);
	if (grown == NULL)
		return false;
	*array = grown;
	*capacity = wanted;
	return true;
}

/* Room for one more record; NULL when memory is out. */
static inline struct wire_record *record_room(struct wire_batch *batch)
{
	if (batch->count == batch->capacity &&
	    !array_grow((void **)&batch->records, &batch->capacity, sizeof(struct wire_record)))
		return NULL;
	return &batch->records[batch->count];
}

/* Doubles the array of headers, in which records have theirs. */
static __attribute__((noinline)) bool headers_grow(struct wire_batch *batch)
{
	struct wire_header *grown = NULL;
	if (!array_grow((void **)&grown, &batch->header_capacity, sizeof(*grown)))
		return false;
	if (batch->header_count > 0)
		memcpy(grown, batch->headers, batch->header_count * sizeof(*grown));
	for (uint32_t i = 0; i < batch->count; i++)
		if (batch->records[i].header_count > 0)
			batch->records[i].headers = grown + (batch->records[i].headers - batch->headers);
	free(batch->headers);
	batch->headers = grown;
	return true;
}

/* Room for one more header; NULL when memory is out. */
static inline struct wire_header *header_room(struct wire_batch *batch)
{
	if (batch->header_count == batch->header_capacity && !headers_grow(batch))
		return NULL;
	return &batch->headers[batch->header_count];
}

/* ---- Headers ---- */

/* Reads one entry of a headers map. */
static bool header_read(struct view entry, struct wire_header *header)
{
	const uint8_t *at = entry.data, *end = at + entry.size;
	*header = (struct wire_header){{end, 0}, {end, 0}};
	while (at != NULL && at < end) {
		uint32_t key;
		at = key_read(at, end, &key);
		if (at == NULL)
			return false;
		if (key == KEY(1, WIRE_BYTES))
			at = bytes_read(at, end, &header->key);
		else if (key == KEY(2, WIRE_BYTES))
			at = bytes_read(at, end, &header->value);
		else
			at = wire_unknown_skip(at, end, key, 2);
	}
	return at != NULL && utf8_valid(header->key) && utf8_valid(header->value);
}

/* Where a key's search in the table of headers starts. */
static uint32_t header_hash(struct view key)
{
	uint32_t hash = 2166136261u;
	for (size_t i = 0; i < key.size; i++)
		hash = (hash ^ key.data[i]) * 16777619u;
	return (hash ^ hash >> 15) % TABLE_SIZE;
}

/* Finds an earlier header of the same key: its index, or `count`. `table` holds indexes + 1; an absent key is entered. */
static uint32_t header_find_hashed(const struct wire_header *headers, uint32_t count, struct view key, uint16_t *table)
{
	uint32_t at = header_hash(key);
	for (; table[at] != 0; at = (at + 1) % TABLE_SIZE)
		if (view_equal(headers[table[at] - 1].key, key))
			return table[at] - 1u;
	table[at] = (uint16_t)(count + 1);
	return count;
}

/* Finds an earlier header of the same key by looking at all: its index, or `count`. */
static inline uint32_t header_find(const struct wire_header *headers, uint32_t count, struct view key)
{
	uint32_t i = 0;
	while (i < count && !view_equal(headers[i].key, key))
		i++;
	return i;
}

/* Leaves one header of each key, with the last value given, in the order of their first appearance. Returns how many. */
static uint32_t headers_unify(struct wire_header *headers, uint32_t count)
{
	uint16_t table[TABLE_SIZE];
	bool hashed = count > LINEAR_MAX;
	uint32_t kept = 0;
	if (hashed)
		memset(table, 0, sizeof(table));
	for (uint32_t i = 0; i < count; i++) {
		uint32_t found = hashed ? header_find_hashed(headers, kept, headers[i].key, table)
					: header_find(headers, kept, headers[i].key);
		headers[found] = headers[i];
		kept += found == kept;
	}
	return kept;
}

/* Appends one entry of a record's headers map. */
static enum wire_result header_append(struct wire_batch *batch, uint32_t first, struct view entry)
{
	if (batch->header_count - first == WIRE_HEADERS_MAX)
		return WIRE_TOO_MANY_HEADERS;
	struct wire_header *header = header_room(batch);
	if (header == NULL)
		return WIRE_NO_MEMORY;
	if (!header_read(entry, header))
		return WIRE_MALFORMED;
	batch->header_count++;
	return WIRE_OK;
}

/* ---- Records ---- */

/* Reads a timestamp with its key in front; what lies before `limit` may be looked at. */
static ALWAYS_INLINE const uint8_t *time_read(const uint8_t *at, const uint8_t *end, const uint8_t *limit,
					      int64_t *time)
{
	uint64_t word = 0;
	if (LIKELY(limit - at >= (ptrdiff_t)sizeof(word)))
		memcpy(&word, at, sizeof(word));
	word = le64toh(word);
	if (!LIKELY((word & TIME_SHAPE_MASK) == TIME_SHAPE)) {
		at = varint_read(at + 1, end, &word);
		*time = (int64_t)word;
		return at;
	}
	word = word >> 8 & TIME_GROUPS;
	word -= word >> 1 & TIME_UPPER; /* from twice its place to its place */
	*time = (int64_t)((word & TIME_PAIR(0)) | (word >> 2 & TIME_PAIR(1)) | (word >> 4 & TIME_PAIR(2)));
	at += TIME_FIELD_BYTES;
	return at <= end ? at : NULL;
}

/* Numbers of Record's fields go up to this. */
enum { RECORD_FIELDS = 8 };

/* Reads a field of a record that is no header. */
static ALWAYS_INLINE const uint8_t *record_field(const uint8_t *at, const uint8_t *end, uint32_t key,
						 struct wire_record *record)
{
	uint64_t number = 0;
	uint32_t word = 0;
	switch (key) {
	case KEY(1, WIRE_BYTES):
		return bytes_read(at, end, &record->payload);
	case KEY(3, WIRE_VARINT):
		at = varint_read(at, end, &number);
		record->timestamp = (int64_t)number;
		return at;
	case KEY(4, WIRE_BYTES):
		record->keyed = 1;
		return bytes_read(at, end, &record->key);
	case KEY(5, WIRE_FIXED32):
		at = fixed32_read(at, end, &word);
		record->key_hash = (int32_t)word;
		return at;
	case KEY(6, WIRE_VARINT):
		at = varint_read(at, end, &number);
		record->key_group = (uint32_t)number;
		return at;
	case KEY(7, WIRE_VARINT):
		at = varint_read(at, end, &number);
		record->input = (uint32_t)number;
		return at;
	case KEY(8, WIRE_VARINT):
		at = varint_read(at, end, &number);
		record->route = (uint32_t)number;
		return at;
	}
	return wire_unknown_skip(at, end, key, RECORD_FIELDS);
}

/* Reads the fields of a record from `at` on, whatever they are; headers go to the batch. */
static enum wire_result record_fields(const uint8_t *at, const uint8_t *end, struct wire_batch *batch,
				      struct wire_record *record)
{
	uint32_t first = batch->header_count;
	while (at < end) {
		uint32_t key;
		at = key_read(at, end, &key);
		if (at == NULL)
			return WIRE_MALFORMED;
		if (key == KEY(2, WIRE_BYTES)) {
			struct view entry;
			at = bytes_read(at, end, &entry);
			if (at == NULL)
				return WIRE_MALFORMED;
			enum wire_result result = header_append(batch, first, entry);
			if (result != WIRE_OK)
				return result;
			continue;
		}
		at = record_field(at, end, key, record);
		if (at == NULL)
			return WIRE_MALFORMED;
	}
	uint32_t headers = batch->header_count - first;
	if (headers == 0)
		return WIRE_OK;
	if (headers > 1)
		headers = headers_unify(batch->headers + first, headers);
	batch->header_count = first + headers;
	record->headers = batch->headers + first;
	record->header_count = headers;
	return WIRE_OK;
}

/* Reads the fields of a key where they come in order. */
static ALWAYS_INLINE const uint8_t *key_fields(const uint8_t *at, const uint8_t *end, struct wire_record *record)
{
	uint64_t number = 0;
	uint32_t word = 0;
	if (*at == KEY(4, WIRE_BYTES)) {
		record->keyed = 1;
		at = bytes_read(at + 1, end, &record->key);
	}
	if (at != NULL && at < end && *at == KEY(5, WIRE_FIXED32)) {
		at = fixed32_read(at + 1, end, &word);
		record->key_hash = (int32_t)word;
	}
	if (at != NULL && at < end && *at == KEY(6, WIRE_VARINT)) {
		at = varint_read(at + 1, end, &number);
		record->key_group = (uint32_t)number;
	}
	return at;
}

/* The beginning of a record: where its payload ends, or where its fields begin when that is not the first of them. */
struct record_head {
	const uint8_t *rest, *end;
	struct view payload;
};

/* Reads the beginning of a record of so many bytes; false when it is malformed. */
static ALWAYS_INLINE bool head_read(struct view bytes, struct record_head *head)
{
	const uint8_t *at = bytes.data, *end = at + bytes.size;
	*head = (struct record_head){at, end, {end, 0}};
	if (at < end && *at == KEY(1, WIRE_BYTES))
		head->rest = bytes_read(at + 1, end, &head->payload);
	return head->rest != NULL;
}

/* The same with the record's own key and length in front, all in one look, if both lengths take one byte each; false when they do not. */
static ALWAYS_INLINE bool small_head_read(const uint8_t *at, const uint8_t *end, struct record_head *head)
{
	uint32_t word;
	if (end - at < (ptrdiff_t)sizeof(word))
		return false;
	memcpy(&word, at, sizeof(word));
	word = le32toh(word);
	if ((word & 0x80ff80ff) != (KEY(1, WIRE_BYTES) << 16 | KEY(1, WIRE_BYTES)))
		return false;
	__builtin_prefetch(at + AHEAD);
	__builtin_prefetch(at + AHEAD + 64);
	head->payload = (struct view){at + sizeof(word), word >> 24};
	head->rest = head->payload.data + head->payload.size;
	head->end = at + 2 + (word >> 8 & 0x7f);
	return head->rest <= head->end && head->end <= end;
}

/* Reads what is behind the beginning of a record whose time is `timestamp` if it says none. A time and a key in this order, all that most
 * records have, are read by themselves: a jump by table costs as much as reading a field. */
static ALWAYS_INLINE enum wire_result record_read(const struct record_head *head, const uint8_t *limit,
						  int64_t timestamp, struct wire_batch *batch,
						  struct wire_record *record)
{
	const uint8_t *at = head->rest, *end = head->end;
	*record = (struct wire_record){
	    .payload = head->payload, .key = {end, 0}, .timestamp = timestamp, .ordinal = batch->count};
	if (at < end && *at == KEY(3, WIRE_VARINT)) {
		at = time_read(at, end, limit, &record->timestamp);
		if (at == NULL)
			return WIRE_MALFORMED;
	}
	if (LIKELY(at == end))
		return WIRE_OK;
	at = key_fields(at, end, record);
	if (at == NULL)
		return WIRE_MALFORMED;
	return LIKELY(at == end) ? WIRE_OK : record_fields(at, end, batch, record);
}

/* Reads the rest of a record and appends it; what lies before `limit` may be looked at. On failure the batch is as before. */
static ALWAYS_INLINE enum wire_result record_append(const struct record_head *head, const uint8_t *limit,
						    int64_t timestamp, struct wire_batch *batch)
{
	struct wire_record *record = record_room(batch);
	if (record == NULL)
		return WIRE_NO_MEMORY;
	uint32_t headers = batch->header_count;
	enum wire_result result = record_read(head, limit, timestamp, batch, record);
	if (LIKELY(result == WIRE_OK))
		batch->count++;
	else
		batch->header_count = headers;
	return result;
}

enum wire_result wire_parse_record(struct view bytes, enum wire_form form, struct wire_batch *batch)
{
	struct wire_reader reader; /* for its care of absent messages */
	struct record_head head;
	wire_reader_init(&reader, bytes);
	if (!head_read((struct view){reader.at, bytes.size}, &head))
		return WIRE_MALFORMED;
	return record_append(&head, reader.end, form == WIRE_MESSAGE ? 0 : WIRE_NO_TIMESTAMP, batch);
}

/* Notes that what is read is no message. */
static enum wire_result reader_fails(struct wire_reader *reader)
{
	reader->malformed = true;
	return WIRE_MALFORMED;
}

/* Reads the value of a field of a Batch or Results that is no record. */
static const uint8_t *other_read(const uint8_t *at, const uint8_t *end, uint32_t key, bool *more)
{
	uint64_t flag = 0;
	if (more == NULL || key != KEY(2, WIRE_VARINT))
		return wire_unknown_skip(at, end, key, more != NULL ? 2 : 1);
	at = varint_read(at, end, &flag);
	*more = flag != 0;
	return at;
}

/* Reads fields of a Batch or Results until the batch has `limit` records or the next one has more than `size_max` bytes. The reader moves
 * behind what was read. */
static inline enum wire_result records_read(struct wire_reader *reader, struct wire_batch *batch, uint32_t limit,
					    uint64_t size_max, bool *more)
{
	const uint8_t *at = reader->at, *end = reader->end;
	bool small = size_max >= SMALL_MAX;
	for (; at < end && batch->count < limit; reader->at = at) {
		struct record_head head;
		uint32_t key;
		if (!LIKELY(small && small_head_read(at, end, &head))) {
			at = key_read(at, end, &key);
			if (at == NULL)
				return reader_fails(reader);
			if (key != KEY(1, WIRE_BYTES)) {
				at = other_read(at, end, key, more);
				if (at == NULL)
					return reader_fails(reader);
				continue;
			}
			struct view bytes;
			at = bytes_read(at, end, &bytes);
			if (at == NULL)
				return reader_fails(reader);
			if (bytes.size > size_max)
				return WIRE_TOO_LARGE;
			if (!head_read(bytes, &head))
				return WIRE_MALFORMED;
		}
		enum wire_result result = record_append(&head, end, WIRE_NO_TIMESTAMP, batch);
		if (result != WIRE_OK)
			return result;
		at = head.end;
	}
	return WIRE_OK;
}

enum wire_result wire_parse_run(struct wire_reader *reader, struct wire_batch *batch, uint32_t limit, uint64_t size_max)
{
	return records_read(reader, batch, limit, size_max, NULL);
}

enum wire_result wire_parse_records(struct view body, struct wire_batch *batch, bool *more)
{
	struct wire_reader reader;
	wire_reader_init(&reader, body);
	uint32_t records = batch->count, headers = batch->header_count;
	if (more != NULL)
		*more = false;
	enum wire_result result = records_read(&reader, batch, UINT32_MAX, UINT64_MAX, more);
	if (result != WIRE_OK) {
		batch->count = records;
		batch->header_count = headers;
	}
	return result;
}

/* ---- Envelopes and small bodies ---- */

#define BIT(number) (UINT32_C(1) << (number))

static const uint32_t TO_WORKER_KINDS = BIT(TO_WORKER_OPEN) | BIT(TO_WORKER_RESTORE_CHUNK) |
					BIT(TO_WORKER_RESTORE_END) | BIT(TO_WORKER_BATCH) | BIT(TO_WORKER_WATERMARK) |
					BIT(TO_WORKER_WATERMARK_STATUS) | BIT(TO_WORKER_TIMER_TICK) |
					BIT(TO_WORKER_BARRIER) | BIT(TO_WORKER_END_INPUT) | BIT(TO_WORKER_CLOSE);
static const uint32_t FROM_WORKER_KINDS =
    BIT(FROM_WORKER_OPEN_ACK) | BIT(FROM_WORKER_RESTORE_ACK) | BIT(FROM_WORKER_RESULTS) | BIT(FROM_WORKER_STATE_DELTA) |
    BIT(FROM_WORKER_BARRIER_ACK) | BIT(FROM_WORKER_END_ACK) | BIT(FROM_WORKER_ERROR);

/* Reads an envelope: two numbers and one of the `kinds`. */
static inline enum wire_result envelope_read(struct view message, uint32_t kinds, struct wire_to_worker *out)
{
	struct wire_reader reader;
	struct wire_field field;
	*out = (struct wire_to_worker){0};
	wire_reader_init(&reader, message);
	while (wire_next(&reader, &field)) {
		if (field.number <= 2) {
			if (field.type != WIRE_VARINT)
				return WIRE_MALFORMED;
			if (field.number == 1)
				out->seq = field.scalar;
			else
				out->processing_time_ms = (int64_t)field.scalar;
		} else if (field.number < 32 && (kinds & BIT(field.number)) != 0) {
			if (field.type != WIRE_BYTES || out->kind != 0)
				return WIRE_MALFORMED;
			out->kind = field.number;
			out->body = field.bytes;
		}
	}
	return reader.malformed ? WIRE_MALFORMED : WIRE_OK;
}

enum wire_result wire_parse_to_worker(struct view message, struct wire_to_worker *out)
{
	return envelope_read(message, TO_WORKER_KINDS, out);
}

enum wire_result wire_parse_from_worker(struct view message, struct wire_to_worker *out)
{
	return envelope_read(message, FROM_WORKER_KINDS, out);
}

/* Reads a body of one field, number 1, of one type; `field` holds the last one given, or zeros. */
static enum wire_result single_read(struct view body, enum wire_type type, struct wire_field *field)
{
	struct wire_reader reader;
	struct wire_field next;
	wire_reader_init(&reader, body);
	*field = (struct wire_field){.bytes = {reader.end, 0}};
	while (wire_next(&reader, &next)) {
		if (next.number != 1)
			continue;
		if (next.type != type)
			return WIRE_MALFORMED;
		*field = next;
	}
	return reader.malformed ? WIRE_MALFORMED : WIRE_OK;
}

enum wire_result wire_parse_number(struct view body, uint64_t *value)
{
	struct wire_field field;
	enum wire_result result = single_read(body, WIRE_VARINT, &field);
	*value = field.scalar;
	return result;
}

enum wire_result wire_parse_flag(struct view body, bool *value)
{
	struct wire_field field;
	enum wire_result result = single_read(body, WIRE_VARINT, &field);
	*value = field.scalar != 0;
	return result;
}

enum wire_result wire_parse_text(struct view body, struct view *text)
{
	struct wire_field field;
	enum wire_result result = single_read(body, WIRE_BYTES, &field);
	*text = field.bytes;
	return result == WIRE_OK && !utf8_valid(field.bytes) ? WIRE_MALFORMED : result;
}

enum wire_result wire_parse_empty(struct view body)
{
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, body);
	while (wire_next(&reader, &field))
		;
	return reader.malformed ? WIRE_MALFORMED : WIRE_OK;
}

/* ---- Unary requests ---- */

/* What a field of a unary request is for. */
enum unary_part { PART_NONE, PART_MESSAGE, PART_SEGMENT, PART_TIMESTAMP, PART_HEADER, PART_WINDOW };

enum { UNARY_FIELDS = 3 };

/* The parts of each request, by field number. */
static const uint8_t UNARY_PARTS[FRAME_KIND_COUNT][UNARY_FIELDS + 1] = {
    [FRAME_PROCESS_MESSAGE] = {PART_NONE, PART_MESSAGE, PART_SEGMENT},
    [FRAME_PROCESS_WATERMARK] = {PART_NONE, PART_TIMESTAMP, PART_HEADER, PART_SEGMENT},
    [FRAME_ADD_TO_WINDOW] = {PART_NONE, PART_MESSAGE, PART_SEGMENT, PART_WINDOW},
    [FRAME_TRIGGER_WINDOW] = {PART_NONE, PART_WINDOW, PART_SEGMENT},
};

/* Reads a WindowIdentifier. */
static bool window_read(struct view body, struct wire_unary *out)
{
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, body);
	while (wire_next(&reader, &field)) {
		if (field.number > 2)
			continue;
		if (field.type != (field.number == 1 ? WIRE_BYTES : WIRE_VARINT))
			return false;
		if (field.number == 1)
			out->window_key = field.bytes;
		else
			out->window_start = (int64_t)field.scalar;
	}
	return !reader.malformed && utf8_valid(out->window_key);
}

/* Takes one part of a unary request; `seen` has a bit for each embedded message met. */
static bool unary_take(enum unary_part part, const struct wire_field *field, uint32_t *seen, struct wire_unary *out)
{
	struct wire_header header;
	bool is_scalar = part == PART_SEGMENT || part == PART_TIMESTAMP;
	if (field->type != (is_scalar ? WIRE_VARINT : WIRE_BYTES))
		return false;
	if (part == PART_SEGMENT) {
		out->segment = (uint32_t)field->scalar;
		return true;
	}
	if (part == PART_TIMESTAMP) {
		out->timestamp = (int64_t)field->scalar;
		return true;
	}
	if (part == PART_HEADER)
		return header_read(field->bytes, &header);
	if ((*seen & BIT(part)) != 0)
		return false;
	*seen |= BIT(part);
	if (part == PART_WINDOW)
		return window_read(field->bytes, out);
	out->message = field->bytes;
	return true;
}

enum wire_result wire_parse_unary(unsigned frame_kind, struct view request, struct wire_unary *out)
{
	struct wire_reader reader;
	struct wire_field field;
	uint32_t seen = 0, headers = 0;
	CHECK(frame_kind < FRAME_KIND_COUNT && UNARY_PARTS[frame_kind][1] != PART_NONE);
	*out = (struct wire_unary){0};
	wire_reader_init(&reader, request);
	while (wire_next(&reader, &field)) {
		enum unary_part part = field.number <= UNARY_FIELDS ? UNARY_PARTS[frame_kind][field.number] : PART_NONE;
		if (part == PART_NONE)
			continue;
		if (part == PART_HEADER && ++headers > WIRE_HEADERS_MAX)
			return WIRE_TOO_MANY_HEADERS;
		if (!unary_take(part, &field, &seen, out))
			return WIRE_MALFORMED;
	}
	return reader.malformed ? WIRE_MALFORMED : WIRE_OK;
}
