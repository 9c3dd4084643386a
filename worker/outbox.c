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

/* A block that is in the list, whole; NULL and ARENA_BROKEN when it cannot be. */
static struct outbox_block *block_find(struct arena *arena, arena_ref ref)
{
	struct outbox_block *block = arena_find(arena, ref, sizeof(*block));

	if (block == NULL || arena_find(arena, ref, block_size(block->size)) == NULL)
		return NULL;
	if (block->size <= PART_MAX)
		return block;
	arena_set_broken(arena, "a block of an outbox is none");
	return NULL;
}

/* Hangs a block behind the last one. */
static void link_last(struct outbox *outbox, struct arena *arena, arena_ref block)
{
	if (outbox->last == 0) {
		outbox->first = block;
	} else {
		struct outbox_block *last = block_find(arena, outbox->last);

		if (last == NULL)
			return;
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
bool outbox_first(const struct outbox *outbox, struct arena *arena, struct frame *header)
{
	const struct outbox_block *first = block_find(arena, outbox->first);

	if (first == NULL)
		return false;
	*header = first->header;
	if (header->length >= sizeof(*header) && header->length <= outbox->bytes)
		return true;
	arena_set_broken(arena, "a frame in an outbox is none");
	return false;
}

/* Frees the first block, which holds so much of what is left of its frame; its payload stands until the unit commits. False when the
 * arena is broken. */
static bool first_free(struct outbox *outbox, struct arena *arena, uint32_t channel, uint64_t *left,
		       const uint8_t **payload, uint32_t *size)
{
	arena_ref ref = outbox->first;
	const struct outbox_block *block = block_find(arena, ref);

	if (block == NULL)
		return false;
	if (block->size > *left || (block->size == 0 && *left > 0)) {
		arena_set_broken(arena, "the parts of a frame in an outbox are not its length");
		return false;
	}
	*payload = block->payload;
	*size = block->size;
	*left -= block->size;
	outbox->first = block->next;
	if (outbox->first == 0)
		outbox->last = 0;
	arena_free(arena, channel, ref, block_size(*size));
	return arena->trouble != ARENA_BROKEN;
}

/* Takes the first frame out, and copies its payload where that is wanted. */
bool outbox_take(struct outbox *outbox, struct arena *arena, uint32_t channel, uint8_t *to)
{
	struct frame header;
	const uint8_t *payload;
	uint32_t size;

	if (!outbox_first(outbox, arena, &header))
		return false;
	uint64_t left = header.length - sizeof(header);
	outbox->bytes -= header.length;
	do {
		if (!first_free(outbox, arena, channel, &left, &payload, &size))
			return false;
		if (to != NULL) {
			memcpy(to, payload, size);
			to += size;
		}
	} while (left > 0);
	return true;
}

/* Frees all frames. */
void outbox_clear(struct outbox *outbox, struct arena *arena, uint32_t channel)
{
	while (!outbox_is_empty(outbox) && outbox_take(outbox, arena, channel, NULL))
		;
	outbox->bytes = 0;
}
