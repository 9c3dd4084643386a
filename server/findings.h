/* What is wrong with a configuration, for people: everything is collected before anything is printed. */
#ifndef SERVER_FINDINGS_H
#define SERVER_FINDINGS_H

#include <stddef.h>
#include <stdio.h>

struct json;

enum { FINDINGS_MAX = 64 };

struct findings {
	char *text[FINDINGS_MAX];
	size_t count;
	size_t dropped; /* beyond FINDINGS_MAX */
};

/* Adds one: where it is, what is wrong, and what to do about it, in one line. */
void findings_add(struct findings *findings, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints one line each, behind a prefix. */
void findings_print(const struct findings *findings, const char *prefix, FILE *out);

/* Writes them as a JSON array under a key. */
void findings_json(const struct findings *findings, const char *key, struct json *json);

/* Frees all of them. */
void findings_deinit(struct findings *findings);

#endif
