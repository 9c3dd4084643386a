/*
 * A slot in one process: its memory and control memory, a worker's serving code over them, and the front's side of its channels. For
 * `bridgectl replay`, which runs a recording in a debugger if wished, and for the tests.
 *
 *    solo_make --> solo_own --> solo_open_channel --> solo_push, serve_turn, solo_peek, solo_release ... --> solo_destroy
 *
 * No process is forked and no doorbell waited for: the caller gives the worker its turns.
 */
#ifndef WORKER_SOLO_H
#define WORKER_SOLO_H

#include "worker/serve.h"

enum { SOLO_WHY_MAX = 512, SOLO_RECEIVED_NS = 77 };

/* The front's side of a channel. */
struct solo_channel {
	uint32_t epoch;
	uint64_t seq; /* of the last message sent; the caller's */
	struct ring_producer requests;
	struct ring_consumer answers;
};

/* Makes control memory and slot memory of slot 0 for the descriptor and config in `sidecar`, and maps it a second time as the front
 * has it. 0, or -1 with errno, and nothing is left. */
int solo_make(struct sidecar *sidecar, const struct slot_sizes *sizes, struct slot_memory *front);

/* Becomes the slot's owner and opens the chains; generation as in serve_create. NULL, and `why` says what is wrong. */
struct serve *solo_own(struct sidecar *sidecar, struct workspace *workspace, uint32_t generation,
		       char why[SOLO_WHY_MAX]);

/* Gives all of the memory back. */
void solo_destroy(struct sidecar *sidecar, struct slot_memory *front);

/* Opens a channel under an epoch for a segment. 0, or -1 with errno. */
int solo_open_channel(struct slot_memory *front, struct solo_channel *channel, uint32_t index, uint32_t segment,
		      uint32_t epoch, uint32_t generation);

/* Puts a frame into a request ring; false when it has no room. `header` needs kind and seq. */
bool solo_push(struct slot_memory *front, struct solo_channel *channel, uint32_t index, struct frame header,
	       struct view payload);

/* The next frame of a response ring, in place; then gives its room back, and marks the worker if that waits for it. */
enum ring_result solo_peek(struct solo_channel *channel, struct frame *frame, const uint8_t **payload);
void solo_release(struct slot_memory *front, struct solo_channel *channel, uint32_t index, const struct frame *frame);

#endif
