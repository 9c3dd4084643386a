/*
 * The outbox: a list of blocks in the arena. A large frame takes several, so that no block is larger than the heap hands out well.
 */
#include "worker/outbox.h"

#include <string.h>

#include "shared/log.h"

enum { PART_MAX = 64 << 10 }; /* bytes of payload in one block */

struct outbox_block {
	arena_ref next;      /* 0: the last */
	uint32_t size;       /* bytes of payload in this block */
	struct frame header; /* length 0: the block goes on with the frame of the one before */
	uint8_t payload[];
};

/* The bytes of a block with so much payload. */
static size_t block_size(uint32_t payload)
{
	return sizeof(struct outbox_block) + payload;
}

/* Hangs a block behind the last one. */
static void link_last(struct outbox *outbox, struct arena *arena, arena_ref block)
{
	if (outbox->last == 0) {
		outbox->first = block;
	} else {
		struct outbox_block *last = arena_at(arena, outbox->last);

		arena_write(arena, &last->next, sizeof(last->next));
		last->next = block;
	}
	outbox->last = block;
}

/* Appends one block. */
static bool part_append(struct outbox *outbox, struct arena *arena, uint32_t channel, const struct frame *header,
			const uint8_t *payload, uint32_t size)
{
	arena_ref ref = arena_alloc(arena, channel, block_size(size));
	struct outbox_block *block;

	if (ref == 0)
		return false;
	block = arena_at(arena, ref);
	*block = (struct outbox_block){.size = size, .header = *header};
	if (size > 0)
		memcpy(block->payload, payload, size);
	link_last(outbox, arena, ref);
	return true;
}

/* Puts a frame at the end. */
bool outbox_append(struct outbox *outbox, struct arena *arena, uint32_t channel, struct frame header,
		   const uint8_t *payload, uint64_t size)
{
	static const struct frame goes_on;
	uint64_t done = size < PART_MAX ? size : PART_MAX;

	header.length = (uint32_t)(sizeof(header) + size);
	if (!part_append(outbox, arena, channel, &header, payload, (uint32_t)done))
		return false;
	while (done < size) {
		uint64_t part = size - done < PART_MAX ? size - done : PART_MAX;

		if (!part_append(outbox, arena, channel, &goes_on, payload + done, (uint32_t)part))
			return false;
		done += part;
	}
	outbox->bytes += header.length;
	return true;
}

/* The header of the first frame. */
struct frame outbox_first(const struct outbox *outbox, const struct arena *arena)
{
	const struct outbox_block *first = arena_at(arena, outbox->first);

	CHECK(!outbox_is_empty(outbox) && first->header.length >= sizeof(struct frame));
	return first->header;
}

/* Frees the first block; returns its bytes of payload, which stand until the unit commits. */
static uint32_t first_free(struct outbox *outbox, struct arena *arena, uint32_t channel)
{
	arena_ref ref = outbox->first;
	const struct outbox_block *block = arena_at(arena, ref);
	uint32_t size = block->size;

	outbox->first = block->next;
	if (outbox->first == 0)
		outbox->last = 0;
	arena_free(arena, channel, ref, block_size(size));
	return size;
}

/* Copies the payload of the first frame and takes the frame out. */
void outbox_take(struct outbox *outbox, struct arena *arena, uint32_t channel, uint8_t *payload)
{
	uint32_t length = outbox_first(outbox, arena).length;
	uint64_t left = length - sizeof(struct frame);

	outbox->bytes -= length;
	do {
		const struct outbox_block *block = arena_at(arena, outbox->first);

		CHECK(block->size <= left);
		memcpy(payload, block->payload, block->size);
		payload += block->size;
		left -= first_free(outbox, arena, channel);
	} while (left > 0);
}

/* Frees all frames. */
void outbox_clear(struct outbox *outbox, struct arena *arena, uint32_t channel)
{
	while (!outbox_is_empty(outbox))
		first_free(outbox, arena, channel);
	outbox->bytes = 0;
}
