/*
 * The outbox: a list of frames on the heap.
 */
#include "worker/outbox.h"

#include <stdlib.h>

#include "shared/log.h"

/* Memory for a frame of up to `size` payload bytes. A worker without memory for an answer leaves, as from any memory death. */
struct outbox_frame *outbox_frame_create(uint64_t size)
{
	struct outbox_frame *frame = malloc(sizeof(*frame) + size);

	if (frame == NULL)
		fatalx("no memory for an answer of %llu bytes that waits for its client", (unsigned long long)size);
	frame->next = NULL;
	frame->size = size;
	return frame;
}

/* Frees a frame that is in no outbox. */
void outbox_frame_free(struct outbox_frame *frame)
{
	free(frame);
}

/* Puts a frame at the end. */
void outbox_append(struct outbox *outbox, struct outbox_frame *frame, struct frame header, uint64_t used)
{
	struct outbox_frame *shrunk = realloc(frame, sizeof(*frame) + used);

	if (shrunk != NULL)
		frame = shrunk;
	frame->header = header;
	frame->size = used;
	if (outbox->first == NULL)
		outbox->first = frame;
	else
		outbox->last->next = frame;
	outbox->last = frame;
	outbox->bytes += sizeof(frame->header) + used;
}

/* Frees the first frame. */
void outbox_pop(struct outbox *outbox)
{
	struct outbox_frame *first = outbox->first;

	outbox->first = first->next;
	if (outbox->first == NULL)
		outbox->last = NULL;
	outbox->bytes -= sizeof(first->header) + first->size;
	free(first);
}

/* Frees all frames. */
void outbox_clear(struct outbox *outbox)
{
	while (outbox->first != NULL)
		outbox_pop(outbox);
}
