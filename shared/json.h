/*
 * A small JSON writer: commas, quoting and nesting right by construction. Writes one value without line breaks to a stream.
 * Text may hold anything: control characters are escaped, bytes that are not UTF-8 become U+FFFD.
 */
#ifndef SHARED_JSON_H
#define SHARED_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH_MAX = 16 };

struct json {
	FILE *out;
	uint32_t depth;
	bool filled[JSON_DEPTH_MAX]; /* the object or array at that depth has something in it */
};

/* Starts writing. */
void json_init(struct json *json, FILE *out);

/* In an object every value has a key; in an array, and at the top, the key is NULL. */
void json_open_object(struct json *json, const char *key);
void json_close_object(struct json *json);
void json_open_array(struct json *json, const char *key);
void json_close_array(struct json *json);
void json_text(struct json *json, const char *key, const char *text); /* NULL text: null */
void json_unsigned(struct json *json, const char *key, uint64_t value);
void json_signed(struct json *json, const char *key, int64_t value);
void json_real(struct json *json, const char *key, double value); /* not finite: null */
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);

/* Writes a key alone: its value follows, written to the stream by somebody else. */
void json_key(struct json *json, const char *key);

/* Writes text as a quoted JSON string, without a key or comma. */
void json_quote(FILE *out, const char *text);

#endif
