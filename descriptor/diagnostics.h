/*
 * What is wrong with a file, for people: file:line:column, the offending text, what was expected, and a hint. All
 * findings of a file are collected before anything is printed.
 *
 *   pipeline.yaml:12:5: error: unknown key "paralelism" in step "score"
 *      12 |     paralelism: 2
 *         |     ^^^^^^^^^^
 *     expected one of: name, kind, from, parallelism
 *     hint: did you mean "parallelism"?
 *
 * Findings may quote anything: control characters and bytes that are not UTF-8 never reach the terminal as they are.
 */
#ifndef DESCRIPTOR_DIAGNOSTICS_H
#define DESCRIPTOR_DIAGNOSTICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "shared/view.h"

/* A place in a file; line and column from 1 (columns in characters), 0: the file as a whole. */
struct place {
	const char *file;
	size_t line, column;
};

struct finding {
	struct place where;
	char *message;
	char *excerpt;  /* the line, cut to what is near the place, or NULL */
	size_t indent;  /* characters of the excerpt before the place */
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

/* Adds a finding; the text of the place's file is named by its copy. NULL when there are DIAGNOSTICS_MAX already; the functions
 * below take that. The pointer is good until the next finding is added. */
struct finding *diagnostics_add(struct diagnostics *diagnostics, struct place where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Shows the line of the place, out of the file's whole text, with so many characters underlined. */
void finding_show(struct finding *finding, struct view text, size_t width);

/* Says what was expected, or what to try. */
void finding_expected(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
void finding_hint(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds `did you mean "..."?` as the hint if one of the names is near to the word. */
void finding_suggest(struct finding *finding, const char *word, const char *const *names, size_t count);

/* Bytes of the line break at an offset that is in a text, 0 when there is none; those of YAML 1.1, as libyaml counts lines. */
size_t line_break_at(struct view text, size_t at);

/* A line of a text, counted from 1 in the same way, without its break, of which there are `*ending` bytes; empty behind the last. */
struct view line_of(struct view text, size_t line, size_t *ending);

/* The place of a byte in a text, lines being counted as YAML does. */
struct place place_of(const char *file, struct view text, size_t offset);

/* Prints all findings in the order of their places, and a line that counts them. Colour only if `colour`. */
void diagnostics_print(const struct diagnostics *diagnostics, FILE *out, bool colour);

/* The same as a JSON array of objects: file, line, column, message, expected, hint. */
void diagnostics_print_json(const struct diagnostics *diagnostics, FILE *out);

#endif
