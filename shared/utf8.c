/*
 * UTF-8 as the contracts want it: shortest forms only, no surrogates, nothing above U+10FFFF.
 *
 * Nearly all text is ASCII, so eight bytes are looked at together, and only text with other characters in it is read
 * character by character (eight at a time again wherever it is ASCII).
 */
#include "shared/wire.h"

static const uint64_t HIGH_BITS = UINT64_C(0x8080808080808080);

/* Eight bytes from wherever. */
static inline uint64_t load8(const uint8_t *at)
{
	uint64_t word;
	memcpy(&word, at, sizeof(word));
	return word;
}

/* Whether no byte has its high bit set. */
static inline bool all_ascii(const uint8_t *at, size_t size)
{
	uint64_t seen = 0;
	if (size < 8) {
		for (size_t i = 0; i < size; i++)
			seen |= at[i];
		return (seen & 0x80) == 0;
	}
	/* The last eight may overlap what came before them. */
	for (size_t i = 0; i + 8 < size; i += 8)
		seen |= load8(at + i);
	return ((seen | load8(at + size - 8)) & HIGH_BITS) == 0;
}

/* Whether `count` continuation bytes start here. */
static inline bool continues(const uint8_t *at, const uint8_t *end, int count)
{
	if (end - at < count)
		return false;
	for (int i = 0; i < count; i++)
		if ((at[i] & 0xc0) != 0x80)
			return false;
	return true;
}

/* The length of the well-formed character of two bytes or more that starts here; 0: none does. */
static inline int character_length(const uint8_t *at, const uint8_t *end)
{
	uint8_t lead = at[0];
	if (lead >= 0xc2 && lead <= 0xdf)
		return continues(at + 1, end, 1) ? 2 : 0;
	if (lead >= 0xe0 && lead <= 0xef) {
		if (!continues(at + 1, end, 2))
			return 0;
		if ((lead == 0xe0 && at[1] < 0xa0) || (lead == 0xed && at[1] > 0x9f))
			return 0; /* longer than needed; a surrogate */
		return 3;
	}
	if (lead >= 0xf0 && lead <= 0xf4) {
		if (!continues(at + 1, end, 3))
			return 0;
		if ((lead == 0xf0 && at[1] < 0x90) || (lead == 0xf4 && at[1] > 0x8f))
			return 0; /* longer than needed; beyond U+10FFFF */
		return 4;
	}
	return 0;
}

/* The check for text that is not all ASCII. */
static bool valid_mixed(const uint8_t *at, const uint8_t *end)
{
	while (at < end) {
		if (end - at >= 8 && (load8(at) & HIGH_BITS) == 0) {
			at += 8;
		} else if (*at < 0x80) {
			at++;
		} else {
			int length = character_length(at, end);
			if (length == 0)
				return false;
			at += length;
		}
	}
	return true;
}

bool utf8_valid(struct view text)
{
	if (text.size == 0 || all_ascii(text.data, text.size))
		return true;
	return valid_mixed(text.data, text.data + text.size);
}

void utf8_repair(char *text)
{
	uint8_t *at = (uint8_t *)text;
	const uint8_t *end = at + strlen(text);
	while (at < end) {
		int length = *at < 0x80 ? 1 : character_length(at, end);
		if (length == 0)
			*at = '?';
		at += length == 0 ? 1 : length;
	}
}
