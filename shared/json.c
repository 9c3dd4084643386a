/* A small JSON writer (json.h). */
#include "shared/json.h"

#include <inttypes.h>
#include <math.h>

#include "shared/log.h"

/* Length of the well-formed UTF-8 sequence at `at` (no overlong form, no surrogate), or 0. */
static unsigned sequence_length(const unsigned char *at)
{
	unsigned char low = 0x80, high = 0xBF;
	unsigned length = at[0] < 0x80   ? 1
			  : at[0] < 0xC2 ? 0
			  : at[0] < 0xE0 ? 2
			  : at[0] < 0xF0 ? 3
			  : at[0] < 0xF5 ? 4
					 : 0;

	if (at[0] == 0xE0)
		low = 0xA0;
	else if (at[0] == 0xED)
		high = 0x9F;
	else if (at[0] == 0xF0)
		low = 0x90;
	else if (at[0] == 0xF4)
		high = 0x8F;
	for (unsigned i = 1; i < length; i++) {
		if (at[i] < low || at[i] > high)
			return 0;
		low = 0x80;
		high = 0xBF;
	}
	return length;
}

/* Writes one character below 0x20, or a quote or backslash, as JSON wants it. */
static void put_escaped(FILE *out, unsigned char c)
{
	switch (c) {
	case '"':
	case '\\':
		fprintf(out, "\\%c", c);
		break;
	case '\n':
		fputs("\\n", out);
		break;
	case '\t':
		fputs("\\t", out);
		break;
	case '\r':
		fputs("\\r", out);
		break;
	default:
		fprintf(out, "\\u%04x", c);
	}
}

void json_quote(FILE *out, const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	putc('"', out);
	while (*at != '\0') {
		unsigned length = sequence_length(at);
		if (length == 0)
			fputs("\\ufffd", out);
		else if (length == 1 && (*at < 0x20 || *at == '"' || *at == '\\' || *at == 0x7f))
			put_escaped(out, *at);
		else
			fwrite(at, 1, length, out);
		at += length == 0 ? 1 : length;
	}
	putc('"', out);
}

/* Writes the comma and the key that stand before a value. */
static void begin(struct json *json, const char *key)
{
	if (json->depth > 0 && json->filled[json->depth - 1])
		putc(',', json->out);
	if (json->depth > 0)
		json->filled[json->depth - 1] = true;
	if (key != NULL) {
		json_quote(json->out, key);
		putc(':', json->out);
	}
}

/* Opens an object or array. */
static void nest(struct json *json, const char *key, char bracket)
{
	begin(json, key);
	CHECK(json->depth < JSON_DEPTH_MAX);
	json->filled[json->depth++] = false;
	putc(bracket, json->out);
}

/* Closes an object or array. */
static void unnest(struct json *json, char bracket)
{
	CHECK(json->depth > 0);
	json->depth--;
	putc(bracket, json->out);
}

void json_init(struct json *json, FILE *out)
{
	*json = (struct json){.out = out};
}

void json_open_object(struct json *json, const char *key)
{
	nest(json, key, '{');
}

void json_close_object(struct json *json)
{
	unnest(json, '}');
}

void json_open_array(struct json *json, const char *key)
{
	nest(json, key, '[');
}

void json_close_array(struct json *json)
{
	unnest(json, ']');
}

void json_text(struct json *json, const char *key, const char *text)
{
	begin(json, key);
	if (text == NULL)
		fputs("null", json->out);
	else
		json_quote(json->out, text);
}

void json_unsigned(struct json *json, const char *key, uint64_t value)
{
	begin(json, key);
	fprintf(json->out, "%" PRIu64, value);
}

void json_signed(struct json *json, const char *key, int64_t value)
{
	begin(json, key);
	fprintf(json->out, "%" PRId64, value);
}

void json_real(struct json *json, const char *key, double value)
{
	begin(json, key);
	if (isfinite(value))
		fprintf(json->out, "%.17g", value);
	else
		fputs("null", json->out);
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_null(struct json *json, const char *key)
{
	begin(json, key);
	fputs("null", json->out);
}

void json_key(struct json *json, const char *key)
{
	begin(json, key);
}
