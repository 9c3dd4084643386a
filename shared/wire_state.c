/*
 * Reading messages that carry state: StateDelta and RestoreChunk, whose bodies are alike, and manifests. See wire.h.
 *
 * A body is gone over twice. First from outside: where its entries lie, which is enough for the checksum; then, when that
 * is right, entry by entry, in place and with stops in between, because an entry is used as soon as it is read.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "shared/wire_cursor.h"

/* Numbers of the fields go up to these. */
enum { ENTRIES_FIELDS = 2, ENTRY_FIELDS = 8, DECLARATION_FIELDS = 6 };

uint64_t wire_checksum(struct view entries)
{
	return XXH3_64bits(entries.data, entries.size);
}

/* A checksum over bytes that come in runs, most often in a single one. */
struct summing {
	XXH3_state_t state;
	const uint8_t *from, *to; /* the run at hand */
	bool several;             /* there was one before, which is in `state` */
};

/* Adds bytes. */
static void sum_add(struct summing *sum, const uint8_t *from, const uint8_t *to)
{
	if (from != sum->to) {
		if (!sum->several)
			XXH3_64bits_reset(&sum->state);
		sum->several = true;
		XXH3_64bits_update(&sum->state, sum->from, (size_t)(sum->to - sum->from));
		sum->from = from;
	}
	sum->to = to;
}

/* Returns the checksum of all. */
static uint64_t sum_end(struct summing *sum)
{
	if (!sum->several)
		return XXH3_64bits(sum->from, (size_t)(sum->to - sum->from));
	XXH3_64bits_update(&sum->state, sum->from, (size_t)(sum->to - sum->from));
	return XXH3_64bits_digest(&sum->state);
}

enum wire_result wire_parse_entries(struct view body, struct wire_entries *out)
{
	struct wire_reader reader;
	struct summing sum;
	wire_reader_init(&reader, body);
	*out = (struct wire_entries){0};
	sum.from = sum.to = reader.at;
	sum.several = false;
	for (const uint8_t *at = reader.at, *end = reader.end; at < end;) {
		const uint8_t *field = at;
		uint32_t key;
		struct view entry;
		at = key_read(at, end, &key);
		if (at == NULL)
			return WIRE_MALFORMED;
		if (LIKELY(key == KEY(1, WIRE_BYTES)))
			at = bytes_read(at, end, &entry);
		else if (key == KEY(2, WIRE_FIXED64))
			at = fixed64_read(at, end, &out->checksum);
		else
			at = wire_unknown_skip(at, end, key, ENTRIES_FIELDS);
		if (at == NULL)
			return WIRE_MALFORMED;
		if (key == KEY(1, WIRE_BYTES)) {
			sum_add(&sum, field, at);
			out->count++;
		}
	}
	out->computed = sum_end(&sum);
	return WIRE_OK;
}

/* Reads a number of 32 bits; what is beyond them falls away, as in protobuf. */
static inline const uint8_t *number_read(const uint8_t *at, const uint8_t *end, uint32_t *value)
{
	uint64_t number = 0;
	at = varint_read(at, end, &number);
	*value = (uint32_t)number;
	return at;
}

/* Reads a bool. */
static inline const uint8_t *flag_read(const uint8_t *at, const uint8_t *end, bool *value)
{
	uint64_t number = 0;
	at = varint_read(at, end, &number);
	*value = number != 0;
	return at;
}

/* Reads the field of an entry that goes with a key. */
static ALWAYS_INLINE const uint8_t *entry_field(const uint8_t *at, const uint8_t *end, uint32_t key,
						struct wire_entry *entry)
{
	uint32_t word = 0;
	switch (key) {
	case KEY(1, WIRE_VARINT):
		return number_read(at, end, &entry->state);
	case KEY(2, WIRE_VARINT):
		return number_read(at, end, &entry->key_group);
	case KEY(3, WIRE_FIXED32):
		at = fixed32_read(at, end, &word);
		entry->key_hash = (int32_t)word;
		return at;
	case KEY(4, WIRE_BYTES):
		return bytes_read(at, end, &entry->key);
	case KEY(5, WIRE_BYTES):
		return bytes_read(at, end, &entry->sub_key);
	case KEY(6, WIRE_BYTES):
		return bytes_read(at, end, &entry->value);
	case KEY(7, WIRE_VARINT):
		return flag_read(at, end, &entry->removed);
	case KEY(8, WIRE_VARINT):
		return flag_read(at, end, &entry->more);
	}
	return wire_unknown_skip(at, end, key, ENTRY_FIELDS);
}

/* Reads the field of a key if it is the next. */
static ALWAYS_INLINE const uint8_t *entry_next(const uint8_t *at, const uint8_t *end, uint32_t key,
					       struct wire_entry *entry)
{
	return at != NULL && at < end && *at == key ? entry_field(at + 1, end, key, entry) : at;
}

/* Reads an entry. Writers put fields in the order of their numbers: each is looked for where it would then be, which is less than to jump by its
 * key; what stands otherwise is read as it comes. */
static inline bool entry_read(struct view bytes, struct wire_entry *entry)
{
	const uint8_t *at = bytes.data, *end = at + bytes.size;
	*entry = (struct wire_entry){.key = {end, 0}, .sub_key = {end, 0}, .value = {end, 0}};
	at = entry_next(at, end, KEY(1, WIRE_VARINT), entry);
	at = entry_next(at, end, KEY(2, WIRE_VARINT), entry);
	at = entry_next(at, end, KEY(3, WIRE_FIXED32), entry);
	at = entry_next(at, end, KEY(4, WIRE_BYTES), entry);
	at = entry_next(at, end, KEY(5, WIRE_BYTES), entry);
	at = entry_next(at, end, KEY(6, WIRE_BYTES), entry);
	while (at != NULL && at < end) {
		uint32_t key;
		at = key_read(at, end, &key);
		if (at != NULL)
			at = entry_field(at, end, key, entry);
	}
	return at != NULL;
}

bool wire_next_entry(struct wire_reader *reader, struct wire_entry *entry)
{
	struct wire_field field;
	if (LIKELY(reader->at < reader->end && *reader->at == KEY(1, WIRE_BYTES) && !reader->malformed)) {
		const uint8_t *at = bytes_read(reader->at + 1, reader->end, &field.bytes);
		if (LIKELY(at != NULL && entry_read(field.bytes, entry))) {
			reader->at = at;
			return true;
		}
	}
	while (wire_next(reader, &field)) {
		if (field.number != 1)
			continue;
		if (field.type == WIRE_BYTES && entry_read(field.bytes, entry))
			return true;
		reader->malformed = true;
	}
	return false;
}

/* Takes a field of a declaration over. */
static bool declaration_field(const struct wire_field *field, struct wire_declaration *out)
{
	bool is_text = field->number <= 2;
	if (field->number > DECLARATION_FIELDS)
		return true;
	if (field->type != (is_text ? WIRE_BYTES : WIRE_VARINT) || (is_text && !utf8_valid(field->bytes)))
		return false;
	switch (field->number) {
	case 1:
		out->step = field->bytes;
		break;
	case 2:
		out->name = field->bytes;
		break;
	case 3:
		out->kind = (uint32_t)field->scalar;
		break;
	case 4:
		out->partition = (uint32_t)field->scalar;
		break;
	case 5:
		out->version = (uint32_t)field->scalar;
		break;
	default:
		out->ttl_ms = (int64_t)field->scalar;
	}
	return true;
}

/* Reads a declaration. */
static bool declaration_read(struct view bytes, struct wire_declaration *out)
{
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, bytes);
	*out = (struct wire_declaration){.step = {reader.end, 0}, .name = {reader.end, 0}};
	while (wire_next(&reader, &field))
		if (!declaration_field(&field, out))
			return false;
	return !reader.malformed;
}

bool wire_next_declaration(struct wire_reader *reader, uint32_t field, struct wire_declaration *out)
{
	struct wire_field next;
	while (wire_next(reader, &next)) {
		if (next.number != field)
			continue;
		if (next.type == WIRE_BYTES && declaration_read(next.bytes, out))
			return true;
		reader->malformed = true;
	}
	return false;
}

enum wire_result wire_parse_restore_ack(struct view body, uint64_t *entries, uint64_t *dropped)
{
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, body);
	*entries = *dropped = 0;
	while (wire_next(&reader, &field)) {
		if (field.number > 2)
			continue;
		if (field.type != WIRE_VARINT)
			return WIRE_MALFORMED;
		*(field.number == 1 ? entries : dropped) = field.scalar;
	}
	return reader.malformed ? WIRE_MALFORMED : WIRE_OK;
}
