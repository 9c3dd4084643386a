/*
 * State memory of a test's own, for steps that remember something.
 *
 *   struct memory memory;
 *   memory_make(&memory, 64 << 20);
 *   struct chain *chain = chain_create(&spec.segment, memory.store, NULL, &failure);
 *   ...
 *   arena_commit(&memory.arena);          as a session does at the end of a unit
 *   memory_take_over(&memory);            as another worker does: what was not committed is undone
 *   memory_free(&memory);
 */
#ifndef TESTS_MEMORY_H
#define TESTS_MEMORY_H

#include <string.h>
#include <sys/mman.h>

#include "shared/log.h"
#include "worker/state.h"

enum { MEMORY_CHANNEL = 1 };

struct memory {
	struct arena arena;
	size_t bytes;
	struct state_store *store; /* of MEMORY_CHANNEL */
};

/* Opens the arena, whatever it holds. */
static inline void memory_open(struct memory *memory)
{
	char why[128];
	void *base = memory->arena.base;

	memset(&memory->arena, 0, sizeof(memory->arena));
	if (arena_open(&memory->arena, base, memory->bytes, 0, why) != ARENA_OK)
		fatal("%s", why);
	memory->store = state_store_create(&memory->arena, MEMORY_CHANNEL);
}

/* Makes memory for so many bytes of state. */
static inline void memory_make(struct memory *memory, uint64_t state)
{
	memory->bytes = arena_size_for(state);
	memory->arena.base =
	    mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(memory->arena.base != MAP_FAILED);
	memory_open(memory);
}

static inline void memory_take_over(struct memory *memory)
{
	state_store_destroy(memory->store);
	memory_open(memory);
}

static inline void memory_free(struct memory *memory)
{
	state_store_destroy(memory->store);
	munmap(memory->arena.base, memory->bytes);
}

#endif
