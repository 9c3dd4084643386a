/*
 * Alignment: when a consumer of several channels hands a barrier on (Chandy and Lamport's snapshots, as Flink takes them).
 *
 *   channel a   r r | r r            A barrier | cuts every channel. What stands before it belongs to the checkpoint, what stands
 *   channel b   r r r r r |          behind it does not. A channel that has delivered its barrier is held until all have; then the
 *   channel c   r (ended)            barrier passes, and all go on. A channel that has ended holds nobody up.
 *
 * One barrier at a time: the next one starts when the last one has passed everywhere. What a consumer does about a channel that
 * is held is its own affair: here, its producers ask outlet_is_held and stop by themselves.
 */
#ifndef CLI_RUN_ALIGN_H
#define CLI_RUN_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

struct aligner {
	uint32_t open;    /* channels that have not ended */
	uint32_t arrived; /* of these: have delivered the barrier that is coming */
	uint64_t coming;  /* 0: none is */
	uint64_t passed;  /* the last one that went on */
};

/* Starts with so many open channels. */
void aligner_init(struct aligner *aligner, uint32_t channels);

/* A channel delivered its barrier. Whether that was the last one: the barrier is to pass. */
bool aligner_barrier(struct aligner *aligner, uint64_t barrier);

/* A channel that is not held has ended. Whether the barrier that waited for it is to pass now. */
bool aligner_end(struct aligner *aligner);

/* The barrier has passed: the channels are free. */
void aligner_pass(struct aligner *aligner, uint64_t barrier);

#endif
