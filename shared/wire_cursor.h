/*
 * What shared/wire*.c share. The cursor that they read protobuf bytes with: functions that return where to go on, or NULL when the bytes are
 * malformed; so a parser is a loop over a local pointer that the compiler keeps in a register. Theirs alone.
 */
#ifndef SHARED_WIRE_CURSOR_H
#define SHARED_WIRE_CURSOR_H

#include "shared/wire.h"

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define ALWAYS_INLINE inline __attribute__((always_inline)) /* what is done for each record */
#define KEY(number, type) ((uint32_t)(number) << 3 | (type))

/* What most records are, and is read and written at once: a length of one byte, and so the payload's, both keys in front of them; and a time
 * from 1971 to 2109 in ms, which takes six bytes. */
enum { SMALL_MAX = 127, TIME_FIELD_BYTES = 7 /* with the key */ };

/* Such a time's key and bytes as a little-endian word: which bits of it say so, what they are then, and where its bits stand: in pairs of
 * groups of seven, each group in a byte, and in the number, of which a pair is fourteen. */
#define TIME_SHAPE_MASK UINT64_C(0x00808080808080ff)
#define TIME_SHAPE (UINT64_C(0x0000808080808000) | KEY(3, WIRE_VARINT))
#define TIME_GROUPS UINT64_C(0x7f7f7f7f7f7f)
#define TIME_UPPER UINT64_C(0x3f803f803f80) /* the upper group of each pair, before it moves up to its byte */
#define TIME_PAIR(index) (UINT64_C(0x3fff) << 14 * (index))

/* What the functions below leave to a call: a varint, and a key or length, of more than one byte. */
const uint8_t *wire_varint_long(const uint8_t *at, const uint8_t *end, uint64_t *value);
const uint8_t *wire_prefix_long(const uint8_t *at, const uint8_t *end, uint32_t *value);

/* Skips the value of a key that the message's contract does not know; NULL when its number is one up to `known`: then
 * the type was wrong. */
const uint8_t *wire_unknown_skip(const uint8_t *at, const uint8_t *end, uint32_t key, uint32_t known);

/* Reads a varint; NULL when there is none. */
static inline const uint8_t *varint_read(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
	if (LIKELY(at < end && *at < 0x80)) {
		*value = *at;
		return at + 1;
	}
	return wire_varint_long(at, end, value);
}

/* Reads a field's key: number and type in one. */
static inline const uint8_t *key_read(const uint8_t *at, const uint8_t *end, uint32_t *key)
{
	if (LIKELY(*at < 0x80)) {
		*key = *at;
		return at + 1;
	}
	return wire_prefix_long(at, end, key);
}

/* Reads a length and the bytes that it announces. */
static inline const uint8_t *bytes_read(const uint8_t *at, const uint8_t *end, struct view *bytes)
{
	uint32_t size;
	if (LIKELY(at < end && *at < 0x80)) {
		size = *at++;
	} else if (end - at >= 2 && at[1] < 0x80) {
		size = (uint32_t)(at[0] & 0x7f) | (uint32_t)at[1] << 7;
		at += 2;
	} else {
		at = wire_prefix_long(at, end, &size);
		if (at == NULL)
			return NULL;
	}
	if (size > (size_t)(end - at))
		return NULL;
	*bytes = (struct view){at, size};
	return at + size;
}

/* Reads four bytes, the lowest first; NULL when there are not that many. */
static inline const uint8_t *fixed32_read(const uint8_t *at, const uint8_t *end, uint32_t *value)
{
	if (end - at < 4)
		return NULL;
	*value = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
	return at + 4;
}

/* Reads eight bytes, the lowest first; NULL when there are not that many. */
static inline const uint8_t *fixed64_read(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
	if (end - at < 8)
		return NULL;
	uint32_t low = 0, high = 0;
	fixed32_read(at, end, &low);
	fixed32_read(at + 4, end, &high);
	*value = (uint64_t)high << 32 | low;
	return at + 8;
}

#endif
