/*
 * What a session knows of the failures of its steps, beside what it does about each: how often the input at hand has been tried again,
 * and how many of the last ones failed (the rules in steps.def: retries, errors_in_row, error_percent).
 *
 * It stands in the arena, as part of the units: a rollback and a takeover find what was committed.
 *
 * A retry is a unit that is given up as a whole and begun anew later. What failed is known by its place: the message, the records (or
 * units of timers) of it that are done before, and the step. The unit that was given up is cut there, so that what stands before the
 * place is committed and what is tried again is a unit of one; and the session rests until it is time, while others are served.
 */
#ifndef WORKER_ERRORS_H
#define WORKER_ERRORS_H

#include "descriptor/descriptor.h"
#include "worker/arena.h"
#include "worker/failure.h"

struct error_words;

/* A session's part of it; zeroed: nothing is counted, nothing tried again. */
struct errors {
	struct arena *arena;
	const struct segment *segment;
	struct error_words *words; /* NULL: no step has rules that need any */
	uint64_t seq;              /* the message at hand */
	uint32_t done;             /* of it, before the run at hand */
};

/* What is to be tried again, and where. */
struct retry {
	uint64_t seq;
	uint32_t done;
	uint32_t step;
	uint32_t attempts; /* that failed */
	uint32_t unused;
	uint64_t due_ns; /* CLOCK_MONOTONIC, from when on it may be tried */
};

/* Finds a session's words, whose place is in *block, or makes them. False: the arena is in trouble. */
bool errors_open(struct errors *errors, struct arena *arena, uint32_t channel, const struct segment *segment,
		 arena_ref *block);

/* Says where the run at hand begins. */
void errors_at(struct errors *errors, uint64_t seq, uint32_t done);

/* How often the input of a step failed already, and was tried again; `origin` is its place in the run. */
uint32_t errors_attempts(const struct errors *errors, uint32_t step, uint32_t origin);

/* Whether an input that a step fails on is to be tried again. */
bool errors_may_retry(const struct errors *errors, uint32_t step, const struct failure *failure);

/* Notes that it will be, and when. Part of the unit at hand, which is another one than that which failed. */
void errors_note_retry(struct errors *errors, const struct retry *retry);

/* What is to be tried again and has not been passed; NULL: nothing. */
const struct retry *errors_retry(const struct errors *errors, uint64_t next_seq, uint32_t done);

/* How long a step waits after so many failed attempts, in ns. */
uint64_t errors_backoff_ns(const struct segment *segment, uint32_t step, uint32_t attempts);

/* Counts inputs that a step was good with. */
void errors_pass(struct errors *errors, uint32_t step, uint32_t count);

/* Counts one that it failed on. False, and other words, when that is one too many. */
bool errors_fail(struct errors *errors, uint32_t step, struct failure *failure);

#endif
