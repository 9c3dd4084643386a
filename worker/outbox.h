/*
 * The outbox of a channel: frames that found no room in the response ring, complete and in order. While it holds any,
 * the channel takes no new input; they go to the ring first.
 *
 *      struct outbox            blocks of the session's heap in the arena
 *      first ---> [header, payload] ---> [goes on] ---> [header, payload] <--- last
 *
 * It is part of what a unit commits, so a frame is in the ring or in the outbox, once, whenever the worker dies. What is read of it is
 * looked at first: where it cannot be true the arena is broken.
 */
#ifndef WORKER_OUTBOX_H
#define WORKER_OUTBOX_H

#include "shared/frame.h"
#include "worker/arena.h"

/* Session words. */
struct outbox {
	arena_ref first, last; /* blocks; 0: it is empty */
	uint64_t bytes;        /* of payloads and headers held */
};

static inline bool outbox_is_empty(const struct outbox *outbox)
{
	return outbox->first == 0;
}

/* Puts a frame at the end; `header.length` is set here. False, and trouble in the arena, when there is no memory for it: the unit
 * is to be rolled back. */
bool outbox_append(struct outbox *outbox, struct arena *arena, uint32_t channel, struct frame header,
		   const uint8_t *payload, uint64_t size);

/* The header of the first frame. False: the arena is broken. */
bool outbox_first(const struct outbox *outbox, struct arena *arena, struct frame *header);

/* Copies the payload of the first frame, unless `to` is NULL, and takes the frame out. False: the arena is broken. */
bool outbox_take(struct outbox *outbox, struct arena *arena, uint32_t channel, uint8_t *to);

/* Frees all frames. */
void outbox_clear(struct outbox *outbox, struct arena *arena, uint32_t channel);

#endif
