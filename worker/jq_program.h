/*
 * Compiled jq programs: run over a value, they yield any number of values, or fail.
 *
 * A program is compiled once per process and shared by everybody who names the same text; it serves one thread and runs one
 * input to the end at a time. It sees its input only: no other inputs, no modules, no library path, no ~/.jq.
 */
#ifndef WORKER_JQ_PROGRAM_H
#define WORKER_JQ_PROGRAM_H

#include <jv.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/view.h"

struct jq_program;

/* Outputs of one input at most: a program that never ends yielding fails. */
enum { JQ_OUTPUTS_MAX = 1000000 };

/* The compiled program, kept until jq_programs_free(). On failure NULL, and `why` (if not NULL) is the compiler's words. */
struct jq_program *jq_program_get(const char *text, char *why, size_t why_size);

/* Frees all programs of the process. */
void jq_programs_free(void);

/* Starts over with an input, which is taken over. */
void jq_program_start(struct jq_program *program, jv input);

/* The next output, which becomes the caller's. */
enum jq_result { JQ_OUTPUT, JQ_DONE, JQ_FAILED };
enum jq_result jq_program_next(struct jq_program *program, jv *output);

/* Why it failed; good until the next start. */
const char *jq_program_error(const struct jq_program *program);

/* Lets go of what a started program holds; for those who stop before JQ_DONE or JQ_FAILED. */
void jq_program_stop(struct jq_program *program);

/* Whether it is a path of one name (`.user`), and which. */
bool jq_program_is_field(const struct jq_program *program, struct view *name);

/* Runs a program that must yield exactly one value: false, and jq_program_error(), when it does not. */
bool jq_program_one(struct jq_program *program, jv input, jv *output);

/* The same over a payload that is JSON, to a time in ms, rounded down. NULL, or why there is none: good until the next call. */
const char *jq_program_time(struct jq_program *program, struct view payload, int64_t *ms);

/* The same as a condition: everything but false and null holds. */
bool jq_program_holds(struct jq_program *program, jv input, bool *holds);

#endif
