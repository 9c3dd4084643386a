/*
 * The texts of failures: formatting that cannot produce broken UTF-8, and excerpts of payloads. It knows nothing of records.
 */
#include "worker/failure.h"

#include <stdarg.h>
#include <stdio.h>

#include "shared/wire.h"

/* Bytes of the well-formed character at `at`, 0 when there is none. */
static size_t character_size(const uint8_t *at, size_t left)
{
	size_t size = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;

	if (size > left || !utf8_valid((struct view){at, size}))
		return 0;
	return size;
}

/* Makes a C string valid UTF-8 in place: broken bytes become '?', and a character cut at the end is dropped. */
static void repair(char *text, bool cut)
{
	size_t size = strlen(text), at = 0;

	while (at < size) {
		size_t step = character_size((const uint8_t *)text + at, size - at);
		if (step == 0 && cut && size - at < 4) {
			text[at] = '\0';
			return;
		}
		if (step == 0)
			text[at] = '?';
		at += step ? step : 1;
	}
}

bool failure_set(struct failure *failure, uint32_t origin, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(failure->message, sizeof(failure->message), format, arguments);
	va_end(arguments);
	repair(failure->message, length >= (int)sizeof(failure->message));
	failure->origin = origin;
	failure->crash = false;
	failure->cause[0] = '\0';
	failure->kind[0] = '\0';
	failure->transient = failure->retry = failure->waits = false;
	failure->traceback = NULL;
	return false;
}

void failure_set_kind(struct failure *failure, struct view kind)
{
	size_t size = kind.size < sizeof(failure->kind) - 1 ? kind.size : sizeof(failure->kind) - 1;

	if (size > 0)
		memcpy(failure->kind, kind.data, size);
	failure->kind[size] = '\0';
	repair(failure->kind, size < kind.size);
}

void failure_repair(char *text)
{
	repair(text, false);
}

/* Whether the well-formed character at `at` does something to a terminal instead of being seen. */
static bool is_control(const uint8_t *at)
{
	return at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0);
}

const char *excerpt(struct view bytes, char out[EXCERPT_SIZE])
{
	size_t at = 0, length = 0, characters = 0;

	while (at < bytes.size) {
		size_t size = character_size(bytes.data + at, bytes.size - at);
		bool plain = size > 0 && !is_control(bytes.data + at);
		size_t width = plain ? 1 : 4;

		if (characters + width > EXCERPT_CHARACTERS)
			break;
		if (plain) {
			memcpy(out + length, bytes.data + at, size);
			length += size;
		} else {
			size = 1;
			length += (size_t)snprintf(out + length, 5, "\\x%02x", bytes.data[at]);
		}
		at += size;
		characters += width;
	}
	memcpy(out + length, at < bytes.size ? "..." : "", at < bytes.size ? 4 : 1);
	return out;
}
