/*
 * Scratch memory: a bump allocator over a list of chunks, for bytes that live as long as the unit at hand.
 *
 *   first -> [used........|free] -> [used.|free] -> NULL
 *                                      ^ current: the only one that allocations come from
 *
 * A reset starts over in the first chunk and keeps up to SCRATCH_KEEP of chunks, so that ordinary units never call malloc and
 * a rare giant does not pin its memory. Under AddressSanitizer what a reset took back is poisoned: a view that outlives its
 * unit is found.
 */
#include <stdlib.h>

#include "worker/memory.h"
#include "worker/run.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define POISON(at, size) ASAN_POISON_MEMORY_REGION(at, size)
#define UNPOISON(at, size) ASAN_UNPOISON_MEMORY_REGION(at, size)
#else
#define POISON(at, size) ((void)0)
#define UNPOISON(at, size) ((void)0)
#endif

enum { SCRATCH_ALIGN = 16, SCRATCH_CHUNK = 64 << 10, SCRATCH_KEEP = 2 << 20 };

struct chunk {
	struct chunk *next;
	size_t size, used; /* of data */
	_Alignas(SCRATCH_ALIGN) uint8_t data[];
};

struct scratch {
	struct chunk *first, *current;
	size_t total; /* bytes in all chunks */
	bool out;     /* something had no room */
};

struct scratch *scratch_create(void)
{
	return calloc(1, sizeof(struct scratch));
}

void scratch_destroy(struct scratch *scratch)
{
	if (!scratch)
		return;
	for (struct chunk *chunk = scratch->first, *next; chunk; chunk = next) {
		next = chunk->next;
		UNPOISON(chunk->data, chunk->size);
		free(chunk);
	}
	free(scratch);
}

void scratch_reset(struct scratch *scratch)
{
	size_t kept = 0;

	for (struct chunk **link = &scratch->first; *link;) {
		struct chunk *chunk = *link;
		if (kept + chunk->size > SCRATCH_KEEP) {
			*link = chunk->next;
			scratch->total -= chunk->size;
			UNPOISON(chunk->data, chunk->size);
			free(chunk);
			continue;
		}
		kept += chunk->size;
		chunk->used = 0;
		POISON(chunk->data, chunk->size);
		link = &chunk->next;
	}
	scratch->current = scratch->first;
	scratch->out = false;
}

bool scratch_is_out(const struct scratch *scratch)
{
	return scratch->out;
}

void scratch_set_out(struct scratch *scratch)
{
	scratch->out = true;
}

/* Adds a chunk with room for `size` behind the current one, or NULL beyond the limit. */
static struct chunk *scratch_add(struct scratch *scratch, size_t size)
{
	size_t wanted = size > SCRATCH_CHUNK ? size : SCRATCH_CHUNK;
	size_t doubled = scratch->total < SCRATCH_KEEP ? scratch->total : SCRATCH_KEEP;

	if (wanted < doubled)
		wanted = doubled;
	if (size > SCRATCH_LIMIT || scratch->total + wanted > SCRATCH_LIMIT)
		return NULL;

	struct chunk *chunk = malloc(sizeof(*chunk) + wanted);
	if (!chunk)
		memory_leave("the bytes of a unit of work");
	*chunk = (struct chunk){.size = wanted};
	POISON(chunk->data, wanted);
	scratch->total += wanted;
	if (scratch->current) {
		chunk->next = scratch->current->next;
		scratch->current->next = chunk;
	} else {
		scratch->first = chunk;
	}
	return chunk;
}

void *scratch_alloc(struct scratch *scratch, size_t size)
{
	struct chunk *chunk = scratch->current;

	size = size ? size : 1;
	while (!chunk || size > chunk->size - chunk->used) {
		struct chunk *next = chunk ? chunk->next : NULL;
		if (!next || size > next->size)
			next = scratch_add(scratch, size);
		if (!next) {
			scratch->out = true;
			return NULL;
		}
		scratch->current = chunk = next;
	}

	uint8_t *memory = chunk->data + chunk->used;
	size_t rounded = (size + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
	chunk->used = rounded < chunk->size - chunk->used ? chunk->used + rounded : chunk->size;
	UNPOISON(memory, size);
	return memory;
}

void *scratch_resize(struct scratch *scratch, void *last, size_t old_size, size_t size)
{
	struct chunk *chunk = scratch->current;
	size_t start = (size_t)((uint8_t *)last - chunk->data);

	if (size <= chunk->size - start) {
		size_t rounded = (size + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
		chunk->used = rounded < chunk->size - start ? start + rounded : chunk->size;
		UNPOISON(last, size);
		return last;
	}

	void *memory = scratch_alloc(scratch, size);
	if (memory)
		memcpy(memory, last, old_size < size ? old_size : size);
	return memory;
}

struct view scratch_copy(struct scratch *scratch, struct view bytes)
{
	uint8_t *copy = scratch_alloc(scratch, bytes.size);

	if (!copy)
		return (struct view){NULL, 0};
	if (bytes.size > 0)
		memcpy(copy, bytes.data, bytes.size);
	return (struct view){copy, bytes.size};
}
