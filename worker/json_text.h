/*
 * JSON text to libjq's values and back.
 *
 * libjq's own parser takes more than JSON (nan, 0x10, single values one after another), replaces broken UTF-8 in silence, and
 * reads past a buffer that has no NUL when it words an error; its printer differs between versions. This one is RFC 8259 to the
 * letter, bounded in depth, and says where and what. Numbers become doubles, as in jq 1.6, with every libjq.
 */
#ifndef WORKER_JSON_TEXT_H
#define WORKER_JSON_TEXT_H

#include <jv.h>
#include <stdbool.h>

#include "shared/view.h"

struct scratch;

enum { JSON_DEPTH_MAX = 256 };

struct json_error {
	const char *what; /* a literal */
	size_t offset;    /* of the byte at fault, from 0; the text's size: at its end */
};

/* Parses one JSON value; white space around it is allowed, anything else is not. */
bool json_parse(struct view text, struct scratch *scratch, jv *value, struct json_error *error);

/* Looks for a string in an object by the name of its field, without building values: true, and its bytes, only if json_parse() takes the text, and
 * this field of the value is that string. False says nothing but that this was not easy to see: parse then. */
bool json_find_string(struct view text, struct view name, struct view *found);

/* Prints a value (which stays the caller's) as its shortest JSON into scratch memory, object keys in their order.
 * NULL, or what is wrong with it (a literal). */
const char *json_print(jv value, struct scratch *scratch, struct view *text);

/* Forgets the strings of object keys that the parser keeps for reuse. */
void json_forget_keys(void);

#endif
