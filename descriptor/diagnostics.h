/*
 * What is wrong with a file, for people: file:line:column, the offending text, what was expected, and a hint. All
 * findings of a file are collected before anything is printed.
 *
 *   pipeline.yaml:12:5: error: unknown key "paralelism" in step "score"
 *      12 |     paralelism: 2
 *         |     ^^^^^^^^^^
 *     expected one of: name, kind, from, parallelism
 *     hint: did you mean "parallelism"?
 */
#ifndef DESCRIPTOR_DIAGNOSTICS_H
#define DESCRIPTOR_DIAGNOSTICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A place in a file; line and column from 1 (columns in characters), 0: the file as a whole. */
struct place {
	const char *file;
	size_t line, column;
};

struct finding {
	struct place where;
	char *message;
	char *excerpt;  /* the line, or NULL */
	size_t width;   /* characters to underline */
	char *expected; /* or NULL */
	char *hint;     /* or NULL */
};

struct diagnostics {
	struct finding *findings;
	size_t count, capacity;
	size_t dropped; /* beyond DIAGNOSTICS_MAX */
};

enum { DIAGNOSTICS_MAX = 100 };

/* Starts empty; frees. */
void diagnostics_init(struct diagnostics *diagnostics);
void diagnostics_free(struct diagnostics *diagnostics);

/* Prints all findings in the order of their places, and a line that counts them. Colour only if `colour`. */
void diagnostics_print(const struct diagnostics *diagnostics, FILE *out, bool colour);

/* The same as a JSON array of objects: file, line, column, message, expected, hint. */
void diagnostics_print_json(const struct diagnostics *diagnostics, FILE *out);

#endif
