/*
 * What went wrong with a record, in words for the person who wrote the pipeline.
 *
 * A failure's text is always valid UTF-8 and cut between characters, whatever was in the payload or in libjq's message: it
 * travels in gRPC statuses and protobuf strings.
 */
#ifndef WORKER_FAILURE_H
#define WORKER_FAILURE_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/view.h"

/* Why a step failed: which record of the run, and what to tell the person. */
struct failure {
	uint32_t origin;   /* struct record.origin of the record at fault */
	uint32_t step;     /* index in the segment; set by the chain */
	bool crash;        /* the input was passed over because workers died on it */
	char cause[64];    /* how they died; else empty */
	uint64_t seq;      /* crash: the message that the input came with, or was due in */
	uint32_t record;   /* crash: of that message; of timers: so many units of them before */
	char message[512]; /* UTF-8, NUL-terminated */
	/* Of a step's own failure; else empty, false, NULL. */
	char kind[64];  /* what kind of failure, in a word: ValueError */
	bool transient; /* it may succeed when it is done again */
	bool retry;     /* and it is to be: the unit is to be given up, and begun anew later */
	bool waits; /* it is none: the step waits for something outside; the unit is to be given up, and begun anew */
	uint32_t wakes;        /* when wakes_count() is no longer this (wakes.h) */
	const char *traceback; /* UTF-8, several lines; the step's, good until it is called again */
};

/* Fills origin and message, as the words of a step; returns false, so that a step can `return failure_set(...)`. */
bool failure_set(struct failure *failure, uint32_t origin, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Names the kind of a failure that has been set. */
void failure_set_kind(struct failure *failure, struct view kind);

/* Makes a C string valid UTF-8 in place. */
void failure_repair(char *text);

/* The beginning of some bytes as printable UTF-8: at most 64 characters and "..." when there is more; control
 * characters (C0, DEL, C1) and bytes that are no UTF-8 are escaped as \xHH. Returns `out`. */
enum { EXCERPT_CHARACTERS = 64, EXCERPT_SIZE = EXCERPT_CHARACTERS * 4 + 8 };
const char *excerpt(struct view bytes, char out[EXCERPT_SIZE]);

#endif
