/*
 * The outbox of a channel: frames that found no room in the response ring, complete and in order. While it holds any,
 * the channel takes no new input; they go to the ring first.
 *
 * It lives on the heap and dies with the worker; its users see nothing but these few calls.
 */
#ifndef WORKER_OUTBOX_H
#define WORKER_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/frame.h"

struct outbox_frame {
	struct outbox_frame *next;
	struct frame header;
	uint64_t size; /* bytes of payload */
	uint8_t payload[];
};

struct outbox {
	struct outbox_frame *first, *last;
	uint64_t bytes; /* of payloads and headers held */
};

/* Memory for a frame of up to `size` payload bytes; not in any outbox yet. */
struct outbox_frame *outbox_frame_create(uint64_t size);

/* Frees a frame that is in no outbox; NULL is none. */
void outbox_frame_free(struct outbox_frame *frame);

/* Puts a frame at the end, with the payload bytes really used; the memory that it did not use is given back. */
void outbox_append(struct outbox *outbox, struct outbox_frame *frame, struct frame header, uint64_t used);

/* Frees the first frame. */
void outbox_pop(struct outbox *outbox);

/* Frees all frames. */
void outbox_clear(struct outbox *outbox);

static inline bool outbox_is_empty(const struct outbox *outbox)
{
	return outbox->first == NULL;
}

#endif
