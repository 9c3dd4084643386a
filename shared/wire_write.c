/*
 * Writing protobuf wire bytes. See wire.h.
 *
 * The size of a record, or of an entry of state, is computed first, its room checked once, and then it is written without further
 * checks. Defaults of its fields are left out, as protobuf does.
 */
#include <endian.h>
#include <string.h>

#include "shared/log.h"
#include "shared/wire_cursor.h"

enum {
	VARINT_BYTES_MAX = 10,
	LENGTH_BYTES = 5, /* kept free for a length that is not known yet */
	SMALL_PAYLOAD_MAX = SMALL_MAX - TIME_FIELD_BYTES - 2,
	SMALL_ROOM = 2 + SMALL_MAX + 8, /* of a record that small_write writes, and what it may write behind it */
};

/* ---- Unchecked ---- */

/* Bytes of a varint: one for each seven bits. */
static inline uint64_t varint_size(uint64_t value)
{
	unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
	return (bits * 9 + 64) / 64; /* ceil(bits / 7) for 1 to 64 */
}

/* The same of a number that seldom has more than two. */
static inline uint64_t length_size(uint64_t length)
{
	return LIKELY(length < 1 << 14) ? 1 + (length >= 0x80) : varint_size(length);
}

/* Writes a varint; returns what is behind it. */
static inline uint8_t *varint_write(uint8_t *at, uint64_t value)
{
	while (value >= 0x80) {
		*at++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*at++ = (uint8_t)value;
	return at;
}

/* Writes four bytes, the lowest first. */
static inline uint8_t *fixed32_write(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		*at++ = (uint8_t)(value >> (8 * i));
	return at;
}

/* Key byte and varint. The key is one byte. */
static inline uint8_t *number_write(uint8_t *at, uint32_t key, uint64_t value)
{
	*at++ = (uint8_t)key;
	return varint_write(at, value);
}

/* The same for a length. `roomy`: without a loop, and whatever into the four bytes from `at` on. */
static ALWAYS_INLINE uint8_t *length_write(uint8_t *at, uint32_t key, uint64_t length, bool roomy)
{
	if (!roomy || length >= 1 << 14)
		return number_write(at, key, length);
	uint32_t low = (uint32_t)length, two = low >= 0x80;
	uint32_t word =
	    htole32((low + (low & 0x3f80) + (two << 7)) << 8 | key); /* its upper seven bits move up by one */
	memcpy(at, &word, sizeof(word));
	return at + 2 + two;
}

/* Key byte, length, bytes. The key is one byte. */
static ALWAYS_INLINE uint8_t *bytes_write(uint8_t *at, uint32_t key, struct view bytes, bool roomy)
{
	at = length_write(at, key, bytes.size, roomy);
	if (bytes.size != 0)
		memcpy(at, bytes.data, bytes.size);
	return at + bytes.size;
}

/* ---- Fields ---- */

/* Whether so many bytes fit; remembers when they do not. */
static inline bool writer_fits(struct wire_writer *writer, uint64_t size)
{
	if (!writer->overflow && size <= (uint64_t)(writer->end - writer->at))
		return true;
	writer->overflow = true;
	return false;
}

void wire_put_varint_field(struct wire_writer *writer, uint32_t field, uint64_t value)
{
	uint32_t key = KEY(field, WIRE_VARINT);
	if (writer_fits(writer, varint_size(key) + varint_size(value)))
		writer->at = varint_write(varint_write(writer->at, key), value);
}

void wire_put_fixed32_field(struct wire_writer *writer, uint32_t field, uint32_t value)
{
	uint32_t key = KEY(field, WIRE_FIXED32);
	if (writer_fits(writer, varint_size(key) + 4))
		writer->at = fixed32_write(varint_write(writer->at, key), value);
}

void wire_put_fixed64_field(struct wire_writer *writer, uint32_t field, uint64_t value)
{
	uint32_t key = KEY(field, WIRE_FIXED64);
	if (!writer_fits(writer, varint_size(key) + 8))
		return;
	writer->at = fixed32_write(varint_write(writer->at, key), (uint32_t)value);
	writer->at = fixed32_write(writer->at, (uint32_t)(value >> 32));
}

void wire_put_bytes_field(struct wire_writer *writer, uint32_t field, struct view bytes)
{
	uint32_t key = KEY(field, WIRE_BYTES);
	if (!writer_fits(writer, varint_size(key) + varint_size(bytes.size) + bytes.size))
		return;
	writer->at = varint_write(varint_write(writer->at, key), bytes.size);
	if (bytes.size != 0)
		memcpy(writer->at, bytes.data, bytes.size);
	writer->at += bytes.size;
}

void wire_put_encoded(struct wire_writer *writer, struct view bytes)
{
	if (!writer_fits(writer, bytes.size))
		return;
	if (bytes.size != 0)
		memcpy(writer->at, bytes.data, bytes.size);
	writer->at += bytes.size;
}

uint8_t *wire_begin(struct wire_writer *writer, uint32_t field)
{
	uint32_t key = KEY(field, WIRE_BYTES);
	if (!writer_fits(writer, varint_size(key) + LENGTH_BYTES))
		return NULL;
	writer->at = varint_write(writer->at, key) + LENGTH_BYTES;
	return writer->at;
}

void wire_end(struct wire_writer *writer, uint8_t *start)
{
	if (start == NULL || writer->overflow)
		return;
	uint64_t length = (uint64_t)(writer->at - start);
	CHECK(length <= INT32_MAX); /* what protobuf allows, and far beyond any ring */
	for (int i = 0; i < LENGTH_BYTES; i++)
		start[i - LENGTH_BYTES] = (uint8_t)((length >> (7 * i) & 0x7f) | (i < LENGTH_BYTES - 1 ? 0x80 : 0));
}

/* ---- Records ---- */

/* Bytes of a field with a one-byte key; nothing when the value is the default. */
static inline uint64_t number_size(uint64_t value)
{
	return value == 0 ? 0 : 1 + length_size(value);
}

/* Bytes of a field of so many bytes, key and length included. */
static inline uint64_t bytes_size(uint64_t size)
{
	return 1 + length_size(size) + size;
}

/* Bytes of one entry of the headers map, without its own key and length. */
static inline uint64_t header_size(const struct wire_header *header)
{
	return bytes_size(header->key.size) + bytes_size(header->value.size);
}

/* What a record takes: counted once, for its room and for its writing. */
struct record_sizes {
	uint64_t time; /* bytes of the timestamp behind its key; 0: it is not written */
	uint64_t rest; /* of the fields that most records do not have, as they are written: headers and routing */
	uint64_t body; /* of all fields */
};

/* Whether a record has nothing but a payload and a time. */
static inline bool is_plain(const struct wire_record *record)
{
	return (record->header_count | record->keyed | (uint32_t)record->key_hash | record->key_group | record->input |
		record->route) == 0;
}

/* Bytes of all fields but payload and time. */
static ALWAYS_INLINE uint64_t rest_size(const struct wire_record *record, enum wire_form form)
{
	uint64_t size = 0;
	for (uint32_t i = 0; i < record->header_count; i++)
		size += bytes_size(header_size(&record->headers[i]));
	if (form == WIRE_MESSAGE)
		return size;
	if (record->keyed)
		size += bytes_size(record->key.size);
	if (record->key_hash != 0)
		size += 1 + 4;
	if (form == WIRE_RECORD)
		size += number_size(record->input);
	return size + number_size(record->key_group) + number_size(record->route);
}

/* Whether a time is written: one that is absent is not, but in a Message, where absent means 0. */
static inline bool time_written(int64_t timestamp, enum wire_form form)
{
	return timestamp != (form == WIRE_MESSAGE ? 0 : WIRE_NO_TIMESTAMP);
}

/* Counts the bytes of a record. */
static ALWAYS_INLINE struct record_sizes record_sizes(const struct wire_record *record, enum wire_form form)
{
	struct record_sizes sizes = {0};
	if (time_written(record->timestamp, form))
		sizes.time = varint_size((uint64_t)record->timestamp);
	if (!LIKELY(is_plain(record)))
		sizes.rest = rest_size(record, form);
	sizes.body = record->payload.size == 0 ? 0 : bytes_size(record->payload.size);
	sizes.body += (sizes.time == 0 ? 0 : 1 + sizes.time) + sizes.rest;
	return sizes;
}

uint64_t wire_record_size(const struct wire_record *record, enum wire_form form)
{
	return bytes_size(record_sizes(record, form).body);
}

/* Writes the headers map of a record. */
static uint8_t *headers_write(uint8_t *at, const struct wire_record *record)
{
	for (uint32_t i = 0; i < record->header_count; i++) {
		const struct wire_header *header = &record->headers[i];
		at = number_write(at, KEY(2, WIRE_BYTES), header_size(header));
		at = bytes_write(at, KEY(1, WIRE_BYTES), header->key, false);
		at = bytes_write(at, KEY(2, WIRE_BYTES), header->value, false);
	}
	return at;
}

/* Writes the fields that only Record has. */
static ALWAYS_INLINE uint8_t *routing_write(uint8_t *at, const struct wire_record *record, enum wire_form form,
					    bool roomy)
{
	if (record->keyed)
		at = bytes_write(at, KEY(4, WIRE_BYTES), record->key, roomy);
	if (record->key_hash != 0) {
		*at++ = KEY(5, WIRE_FIXED32);
		at = fixed32_write(at, (uint32_t)record->key_hash);
	}
	if (record->key_group != 0)
		at = number_write(at, KEY(6, WIRE_VARINT), record->key_group);
	if (form == WIRE_RECORD && record->input != 0)
		at = number_write(at, KEY(7, WIRE_VARINT), record->input);
	if (record->route != 0)
		at = number_write(at, KEY(8, WIRE_VARINT), record->route);
	return at;
}

/* Writes a time of six bytes, its key in front of it, and whatever in the byte behind it. */
static ALWAYS_INLINE void time_write(uint8_t *at, int64_t timestamp)
{
	uint64_t word = (uint64_t)timestamp;
	word = (word & TIME_PAIR(0)) | (word & TIME_PAIR(1)) << 2 | (word & TIME_PAIR(2)) << 4;
	word += word & TIME_UPPER; /* to twice its place */
	word = htole64(word << 8 | TIME_SHAPE);
	memcpy(at, &word, sizeof(word));
}

/* Writes a record that is known to have these sizes, and to fit. `roomy`: so do four bytes more. */
static ALWAYS_INLINE uint8_t *record_write(uint8_t *at, const struct wire_record *record, enum wire_form form,
					   const struct record_sizes *sizes, bool roomy)
{
	at = length_write(at, KEY(1, WIRE_BYTES), sizes->body, roomy);
	if (record->payload.size != 0)
		at = bytes_write(at, KEY(1, WIRE_BYTES), record->payload, roomy);
	if (sizes->rest != 0 && record->header_count != 0)
		at = headers_write(at, record);
	if (roomy && sizes->time == TIME_FIELD_BYTES - 1) {
		time_write(at, record->timestamp);
		at += TIME_FIELD_BYTES;
	} else if (sizes->time != 0) {
		at = number_write(at, KEY(3, WIRE_VARINT), (uint64_t)record->timestamp);
	}
	return sizes->rest == 0 || form == WIRE_MESSAGE ? at : routing_write(at, record, form, roomy);
}

void wire_put_record(struct wire_writer *writer, const struct wire_record *record, enum wire_form form)
{
	struct record_sizes sizes = record_sizes(record, form);
	if (writer_fits(writer, bytes_size(sizes.body)))
		writer->at = record_write(writer->at, record, form, &sizes, false);
}

/* Whether a record is as most are: nothing but a payload and, if any, a time of six bytes, with a length that takes one byte. */
static ALWAYS_INLINE bool is_small(const struct wire_record *record)
{
	uint64_t sixth = (uint64_t)record->timestamp >> 35; /* and above: 1 to 127 when there are six bytes */
	bool time_fits = (sixth - 1 < 0x7f) | (record->timestamp == WIRE_NO_TIMESTAMP);
	uint32_t rest =
	    record->header_count | record->keyed | (uint32_t)record->key_hash | record->key_group | record->route;
	return (record->payload.size - 1 < SMALL_PAYLOAD_MAX) & time_fits & (rest == 0);
}

/* Writes such a record, with whatever in the eight bytes behind it: both keys and both lengths at its beginning at once, and so its time. */
static ALWAYS_INLINE uint8_t *small_write(uint8_t *at, const struct wire_record *record)
{
	uint32_t size = (uint32_t)record->payload.size;
	uint32_t time = record->timestamp != WIRE_NO_TIMESTAMP ? TIME_FIELD_BYTES : 0;
	uint32_t head = htole32(KEY(1, WIRE_BYTES) | (2 + size + time) << 8 | KEY(1, WIRE_BYTES) << 16 | size << 24);
	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	memcpy(at, record->payload.data, size);
	at += size;
	time_write(at, record->timestamp);
	return at + time;
}

uint32_t wire_put_records(struct wire_writer *writer, const struct wire_record *records, uint32_t count,
			  uint64_t size_max)
{
	uint8_t *at = writer->at, *const end = writer->end;
	bool small = size_max >= SMALL_MAX;
	uint32_t written = 0;
	if (writer->overflow)
		return 0;
	for (; written < count; written++) {
		const struct wire_record *record = &records[written];
		uint64_t room = (uint64_t)(end - at);
		if (LIKELY(is_small(record)) && small && room >= SMALL_ROOM) {
			at = small_write(at, record);
			continue;
		}
		struct record_sizes sizes = record_sizes(record, WIRE_ANSWER);
		uint64_t size = bytes_size(sizes.body);
		if (sizes.body > size_max || size > room)
			break;
		at = LIKELY(room - size >= 4) ? record_write(at, record, WIRE_ANSWER, &sizes, true)
					      : record_write(at, record, WIRE_ANSWER, &sizes, false);
	}
	writer->at = at;
	return written;
}

/* ---- State ---- */

/* Bytes of bytes that may be absent. */
static inline uint64_t optional_size(struct view bytes)
{
	return bytes.size == 0 ? 0 : bytes_size(bytes.size);
}

/* Bytes of an entry's fields but its value. */
static inline uint64_t entry_head_size(const struct wire_entry *entry)
{
	uint64_t size = number_size(entry->state) + number_size(entry->key_group);
	if (entry->key_hash != 0)
		size += 1 + 4;
	return size + optional_size(entry->key) + optional_size(entry->sub_key) + number_size(entry->removed) +
	       number_size(entry->more);
}

/* Bytes of an entry's fields. */
static inline uint64_t entry_body_size(const struct wire_entry *entry)
{
	return entry_head_size(entry) + (entry->removed ? 0 : optional_size(entry->value));
}

uint64_t wire_entry_size(const struct wire_entry *entry)
{
	return bytes_size(entry_body_size(entry));
}

uint64_t wire_entry_room(const struct wire_entry *entry, uint64_t room)
{
	/* The part has `more`; two lengths are as long as they can be. */
	uint64_t around = entry_head_size(entry) + 2 + UINT64_C(2) * (1 + LENGTH_BYTES);
	return room > around ? room - around : 0;
}

/* Writes the numbers in front of an entry's bytes. */
static inline uint8_t *entry_numbers_write(uint8_t *at, const struct wire_entry *entry)
{
	if (entry->state != 0)
		at = number_write(at, KEY(1, WIRE_VARINT), entry->state);
	if (entry->key_group != 0)
		at = number_write(at, KEY(2, WIRE_VARINT), entry->key_group);
	if (entry->key_hash != 0) {
		*at++ = KEY(3, WIRE_FIXED32);
		at = fixed32_write(at, (uint32_t)entry->key_hash);
	}
	return at;
}

void wire_put_entry(struct wire_writer *writer, const struct wire_entry *entry)
{
	uint64_t body = entry_body_size(entry);
	if (!writer_fits(writer, bytes_size(body)))
		return;
	uint8_t *at = entry_numbers_write(number_write(writer->at, KEY(1, WIRE_BYTES), body), entry);
	if (entry->key.size != 0)
		at = bytes_write(at, KEY(4, WIRE_BYTES), entry->key, false);
	if (entry->sub_key.size != 0)
		at = bytes_write(at, KEY(5, WIRE_BYTES), entry->sub_key, false);
	if (!entry->removed && entry->value.size != 0)
		at = bytes_write(at, KEY(6, WIRE_BYTES), entry->value, false);
	if (entry->removed)
		at = number_write(at, KEY(7, WIRE_VARINT), true);
	if (entry->more)
		at = number_write(at, KEY(8, WIRE_VARINT), true);
	writer->at = at;
}

void wire_end_entries(struct wire_writer *writer, uint8_t *start)
{
	if (start == NULL || writer->overflow)
		return;
	wire_put_fixed64_field(writer, 2, wire_checksum((struct view){start, (size_t)(writer->at - start)}));
	wire_end(writer, start);
}

uint64_t wire_declaration_size(const struct wire_declaration *declaration)
{
	return 2 + LENGTH_BYTES + bytes_size(declaration->step.size) + bytes_size(declaration->name.size) +
	       UINT64_C(4) * (1 + VARINT_BYTES_MAX);
}

void wire_put_declaration(struct wire_writer *writer, uint32_t field, const struct wire_declaration *declaration)
{
	uint8_t *start = wire_begin(writer, field);
	wire_put_bytes_field(writer, 1, declaration->step);
	wire_put_bytes_field(writer, 2, declaration->name);
	wire_put_varint_field(writer, 3, declaration->kind);
	wire_put_varint_field(writer, 4, declaration->partition);
	wire_put_varint_field(writer, 5, declaration->version);
	wire_put_varint_field(writer, 6, (uint64_t)declaration->ttl_ms);
	wire_end(writer, start);
}
