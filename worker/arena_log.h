/*
 * Inside of the arena: its layout, and the log's hot path. For arena.c, heap.c and the state over them.
 *
 * The log is one region that is filled from both ends: records, 64-bit words that say what is covered, grow from its start; the
 * bytes that they save grow from its end downwards, in the same order, each padded to 8 bytes. So a record is found by its number
 * and is never mistaken for saved bytes, which A7 depends on.
 *
 *     | record 0 | record 1 | ...  ->                 <- ... | bytes of record 1 | bytes of record 0 |
 *
 * A record of size 0 saves nothing: it says that the block is new in this unit, and so needs no saving behind it.
 *
 * The order of stores (A3, A5): saved bytes, record, log word, and only then the change that they are for.
 */
#ifndef WORKER_ARENA_LOG_H
#define WORKER_ARENA_LOG_H

#include <stdatomic.h>
#include <string.h>

#include "shared/fault.h"
#include "worker/arena.h"

enum {
	ARENA_SIZE_BITS = 28,       /* of a record: bytes covered; the rest is the offset */
	ARENA_COUNT_BITS = 24,      /* of the log word: records; the rest is the unit's number */
	ARENA_LOG_SPARE = 96 << 10, /* kept back, so that the operation at hand can finish */
	HEAP_SMALL = 32,            /* classes of 16, 32, ... 512 bytes */
	HEAP_CLASSES = 72,          /* and from there in quarter steps of powers of two to half an extent */
	HEAP_CLASS_MAX = ARENA_EXTENT / 2,
};

/* Written by the slot's owner alone, as everything in the arena. */
struct arena_head {
	uint64_t magic; /* stored last when the arena is formatted */
	uint32_t version;
	uint32_t slot;
	uint64_t size; /* of the whole arena */
	uint64_t log_from, blocks_from;
	uint32_t extent_count;
	_Alignas(64) uint64_t commits; /* A4: this store is the commit */
	uint64_t log_word;             /* A3: number of the unit, number of its records */
};

/* Free blocks of one size. Those freed in the unit at hand wait in a list of their own (A2). */
struct heap_class {
	arena_ref free;       /* blocks that can be handed out; each points to the next with its first word */
	arena_ref freed;      /* blocks freed in unit `freed_in`; once that is over they may be handed out */
	arena_ref freed_last; /* the last of them */
	uint32_t freed_in;    /* low bits of that unit's number; a number that comes again only makes blocks wait */
	uint32_t logged;      /* the record that covers this class (A7) */
	uint32_t unused;
};

/* What changes together. */
struct session_core {
	uint64_t state[ARENA_SESSION_STATE / 8];
	uint32_t bump, bump_end; /* in ARENA_UNITs: what is left of the extent that blocks are cut from */
	uint32_t extents;        /* that the session has */
	uint32_t unused;
	uint64_t blocks; /* bytes in use */
};

/* A channel's words. */
struct arena_session {
	_Alignas(64) uint64_t own[ARENA_SESSION_OWN / 8];
	struct session_core core;
	struct heap_class classes[HEAP_CLASSES];
};

/* What the byte of an extent in the table says; else it is the owner's channel + EXTENT_OWNED. */
enum { EXTENT_FREE, EXTENT_DIRTY /* free, but its memory is still there */, EXTENT_OWNED };

/* A channel's words in the arena. */
static inline struct arena_session *arena_words(const struct arena *arena, uint32_t channel)
{
	return (struct arena_session *)(arena->base + 4096) + channel;
}

/* The offset of something in the arena. */
static inline uint64_t arena_offset(const struct arena *arena, const void *at)
{
	return (uint64_t)((const uint8_t *)at - arena->base);
}

/* The number of the unit at hand. */
static inline uint64_t arena_unit(const struct arena *arena)
{
	return arena->head->commits + 1;
}

/* Keeps the compiler from moving stores over this point (A5). */
static inline void arena_order(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* Copies bytes, a multiple of 8; most often an entry's, or a word. What is behind them is in the arena as well. */
static inline void arena_save(uint8_t *to, const uint8_t *from, size_t size)
{
	for (; size >= 32; to += 32, from += 32, size -= 32)
		memcpy(to, from, 32);
	for (; size > 0; to += 8, from += 8, size -= 8)
		memcpy(to, from, 8);
}

/* Saves `size` bytes at an offset; fresh: saves nothing, and says that they are new. Returns the record's number. The log's spare
 * part takes it when the log is full already; what is beyond that is our own mistake. */
uint32_t arena_log_full(struct arena *arena, uint64_t offset, size_t size);

static inline uint32_t arena_log(struct arena *arena, uint64_t offset, size_t size)
{
#ifdef ARENA_WITHOUT_LOG /* what the log costs is measured against this: nothing can be undone */
	(void)offset, (void)size;
	arena->log_count = 1;
	return 0;
#endif
	size_t padded = (size + 7) & ~(size_t)7;
	uint64_t *record = arena->log_records + arena->log_count;

	if (__builtin_expect((uint8_t *)(record + 1) + padded > arena->log_data - ARENA_LOG_SPARE, 0))
		return arena_log_full(arena, offset, size);
	arena->log_data -= padded;
	arena_save(arena->log_data, arena->base + offset, padded);
	*record = offset << ARENA_SIZE_BITS | size;
	arena_order();
	FAULT_POINT(log_record);
	arena->head->log_word = arena_unit(arena) << ARENA_COUNT_BITS | ++arena->log_count;
	arena_order();
	return arena->log_count - 1;
}

/* Whether a record covers what is at hand (A7): a number of any origin, what it is to cover. Fresh blocks are covered whole. */
static inline bool arena_is_covered(const struct arena *arena, uint32_t logged, uint64_t offset, size_t size)
{
#ifdef ARENA_WITHOUT_LOG
	(void)logged, (void)offset, (void)size;
	return true;
#endif
	/* Most numbers are of units before, and as likely below the count as not: no branch for the number alone, which nobody could guess. */
	uint32_t within = logged - arena->log_mark < arena->log_count - arena->log_mark;
	uint64_t record = arena->log_records[logged & (0 - within)];
	uint64_t fresh = offset << ARENA_SIZE_BITS;
	return (within & ((record == fresh) | (record == (fresh | size)))) != 0;
}

/* Logs a block that says where it was last logged, unless it still is. */
static inline void arena_cover(struct arena *arena, void *at, size_t size, uint32_t *logged)
{
	uint64_t offset = arena_offset(arena, at);
	if (!arena_is_covered(arena, *logged, offset, size))
		*logged = arena_log(arena, offset, size);
}

/* Says that a block is new in this unit. */
static inline uint32_t arena_log_fresh(struct arena *arena, const void *at)
{
	return arena_log(arena, arena_offset(arena, at), 0);
}

/* The words of a session's heap and state, to be changed. */
static inline struct session_core *arena_core_write(struct arena *arena, uint32_t channel)
{
	struct session_core *core = &arena_words(arena, channel)->core;
	arena_cover(arena, core, sizeof(*core), &arena->core_logged[channel]);
	return core;
}

/* heap.c: gives a session's extents back, and forgets what was freed within the unit that has ended. */
void heap_drop(struct arena *arena, uint32_t channel);
void heap_unit_over(struct arena *arena);

/* The size class of a block, and its bytes. */
uint32_t heap_class_of(size_t size);
extern const uint32_t heap_class_bytes[HEAP_CLASSES];

#endif
