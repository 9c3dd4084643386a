/*
 * What unary calls have in the arena for each segment: its watermark, and how far a watermark has come that lets too much go for one unit.
 *
 *      ProcessWatermark --> unit: some timers fire, what they let go is kept --> ... --> unit: the last ones fire; the reply is what
 *                                                                                        was kept, and what they let go
 *
 * What is kept is encoded, as it will stand in the reply. When the call is refused between two units it stays, for the reply to the next
 * one: its timers have fired, and nobody else would say so.
 */
#ifndef WORKER_UNARY_WORDS_H
#define WORKER_UNARY_WORDS_H

#include "shared/wire.h"
#include "worker/arena.h"

struct segment_words {
	int64_t watermark; /* ms; INT64_MIN before the first */
	uint64_t seq;      /* of the call that is under way, or was last; 0: none has ever been */
	uint32_t epoch;    /* likewise */
	uint32_t ticking;  /* all is done of it that event time makes due; what is left is due by the clock */
	arena_ref kept_first, kept_last; /* blocks of encoded outputs */
	uint64_t kept_bytes;             /* of outputs */
};

/* Finds the words of so many segments, or makes them, as part of the unit at hand. Where there were those of another number of
 * segments, what is kept stays. NULL: the arena is full, or broken. */
struct segment_words *unary_words_open(struct arena *arena, uint32_t count);

/* The words of a segment, to be changed. */
struct segment_words *unary_words_write(struct arena *arena, struct segment_words *words);

/* The most bytes that can be kept at a time. */
enum { UNARY_KEEP_MAX = ARENA_BLOCK_MAX - 64 };

/* Makes room for outputs of so many bytes (at least one) behind those that are kept; the words are ready to be changed. False: the arena
 * is in trouble. */
bool unary_keep(struct arena *arena, struct segment_words *words, uint64_t size, struct wire_writer *writer);

/* Puts all that is kept into a reply, and frees it; likewise. */
void unary_hand_out(struct arena *arena, struct segment_words *words, struct wire_writer *writer);

#endif
