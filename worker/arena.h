/*
 * The arena: what a slot's sessions are and hold, in memory that outlives the worker.
 *
 *   | head | session words, one per channel | extent table | undo log | extents of 1 MiB ...                |
 *
 * The supervisor makes the memory (shared/slot.h), zeroed; the first owner formats it; after that every change is made by the
 * slot's owner alone, in units. A unit either happened as a whole or not at all, whenever its process is killed.
 *
 * Invariants
 *  A1  Offsets, never pointers: processes map the arena where they like.
 *  A2  Every overwrite of a committed word is logged first (arena_write). What was allocated within the unit needs no log.
 *      A block freed within a unit is handed out again only in a later one, so that a rollback finds its bytes.
 *  A3  The log's length word carries the number of the unit that it belongs to (number and length in one 64-bit word, stored
 *      after the record that it covers). A log of another unit is void.
 *  A4  Commit is one store: of the number of units committed. Nothing else makes a unit happen, nothing behind it can undo it.
 *  A5  A killed process leaves a prefix of its program order in shared memory, so the order of stores is all that is needed:
 *      compiler barriers, no flushes.
 *  A6  Nobody but the owner reads the arena; ring cursors are outside the log, stored after the commit that they follow from,
 *      and recomputed from the session words at a takeover.
 *  A7  A log record says which block it covers, and a block says where it was last logged: a block whose record still stands in
 *      the log of this unit, behind the last mark, is not logged again.
 *
 * All functions run in the worker's only thread. Each process has one struct arena per arena that it maps.
 */
#ifndef WORKER_ARENA_H
#define WORKER_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/slot.h"

enum {
	ARENA_UNIT = 16,            /* a reference counts in so many bytes, and every block is aligned to it */
	ARENA_EXTENT = 1 << 20,     /* bytes that a session's heap grows by */
	ARENA_BLOCK_MAX = 64 << 20, /* bytes of one block */
	ARENA_SESSION_OWN = 256,    /* bytes of session words that are the session's own to lay out */
};

/* A block in an arena: its offset in ARENA_UNITs; 0 is none. So an arena has at most 64 GiB. */
typedef uint32_t arena_ref;

/* Why an operation could not be done; it stays until the unit is rolled back, and a unit in trouble cannot commit. */
enum arena_trouble {
	ARENA_FINE,
	ARENA_FULL,     /* the arena has no memory left (--state-memory): the session fails in words */
	ARENA_LOG_FULL, /* the unit changes more than the log holds: roll back, repeat with half the records */
	ARENA_BROKEN, /* a block that was touched is not what it has to be; `broken` says which. The memory is damaged: nothing
			   of it is to be used again, the slot is to be given up. Stays, also through a rollback */
};

enum { ARENA_FREED_WORDS = 1024 }; /* a bit for every extent of the largest arena */

/* One process's handle. All but the mapping is this process's own: what the unit at hand has done so far. */
struct arena {
	uint8_t *base;
	uint64_t size;           /* bytes of the mapping */
	struct arena_head *head; /* at base */
	uint8_t *extents;        /* the table: a byte for each extent */
	uint64_t *log_records;   /* the log: what each record covers, from its start upwards */
	uint8_t *log_end;        /* the bytes that they save, from its end downwards */
	uint8_t *log_data;       /* the lowest of those in use */
	uint32_t log_count;      /* records in this unit */
	uint32_t log_mark;       /* records when the last mark was set: those before it do not count for A7 */
	uint64_t log_most;
	uint64_t blocks_from; /* offset of the first extent */
	uint32_t extent_count;
	uint32_t extent_hint; /* no extent before it is free */
	enum arena_trouble trouble;
	const char *broken; /* with ARENA_BROKEN: words */
	uint64_t units;     /* committed by this process */
	uint64_t undone; /* rollbacks, undos to a mark, sessions dropped: what was read before may be different now */
	/* To be set after arena_open where memory is a file on a disk: arena_idle punches no holes into it. */
	bool is_file;
	bool extents_freed; /* a bit of `freed` is set */
	uint64_t huge_at;   /* offset of what arena_make_huge was last asked for */
	bool filling; /* set by whoever writes much new state for a while: memory is asked for before it is touched */
	struct arena_asking {
		uint64_t huge_ns, small_ns; /* what a huge page took of late, and as much memory in small ones */
		uint32_t turns;             /* of asking, where there was a choice */
	} asking;
	uint32_t own_logged[SLOT_CHANNELS_MAX]; /* the records that cover a session's words (A7) */
	uint32_t core_logged[SLOT_CHANNELS_MAX];
	uint64_t freed[ARENA_FREED_WORDS]; /* extents freed within this unit: not to be handed out again in it (A2) */
};

enum arena_result {
	ARENA_OK,
	ARENA_DAMAGED, /* head or log cannot be true; `why` says what: the slot's memory is to be given up */
};

/* The smallest arena that can be formatted, and the bytes of mapping that give sessions `state` bytes of extents. */
uint64_t arena_size_for(uint64_t state);

/* Takes an arena over: formats one that was never used, else checks head and log and rolls an unfinished unit back. `why` (of at
 * least 128 bytes) is set when it is damaged. */
enum arena_result arena_open(struct arena *arena, void *base, uint64_t size, uint32_t slot, char *why);

/* ---- Units ---- */

/* Makes all changes since the last commit happen, by one store. Not in trouble. A unit that changed nothing is not counted. */
void arena_commit(struct arena *arena);

/* Undoes all changes since the last commit. Clears trouble, but for ARENA_BROKEN. */
void arena_rollback(struct arena *arena);

/* A place in the unit to come back to: changes made behind it can be undone by themselves. Trouble stays. */
uint64_t arena_mark(struct arena *arena);
void arena_undo_to(struct arena *arena, uint64_t mark);

/* Logs the old bytes of committed memory that is about to be overwritten; cheap and exact, but logs again what was logged: use it
 * for small words. Returns `at`. Never fails: running out sets trouble, with enough kept back for what is under way. */
void *arena_write(struct arena *arena, void *at, size_t size);

/* The number of units committed since the arena was formatted. */
uint64_t arena_commits(const struct arena *arena);

/* ---- Sessions: one per channel ---- */

/* The session's own words (position, outbox, ...), ARENA_SESSION_OWN bytes, zero in a session that was never begun. Use
 * arena_session_write before changing any of them: all of a session's words are logged together, once per unit or mark. */
void *arena_session(const struct arena *arena, uint32_t channel);
void *arena_session_write(struct arena *arena, uint32_t channel);

/* Words of a session that are worker/state.c's, likewise; logged together with the heads of the heap. */
enum { ARENA_SESSION_STATE = 128 };
void *arena_session_state(const struct arena *arena, uint32_t channel);
void *arena_session_state_write(struct arena *arena, uint32_t channel);

/* Drops everything that a session has: its extents are free, its words zero. Part of the unit at hand; cheap whatever the size.
 * The memory itself goes back to the system in pieces, by arena_idle. */
void arena_session_drop(struct arena *arena, uint32_t channel);

/* Gives a few MiB of freed extents back to the system. Returns whether there is more; to be called while idle, between units. */
bool arena_idle(struct arena *arena);

/* Asks the system to have the memory around a place, which has been written to and will be soon all around, in one huge page: it takes that
 * memory at once, and finding the way there is cheaper. Where it does not, nothing is different. */
void arena_make_huge(struct arena *arena, const void *at);

/* ---- A session's heap ---- */

/* `size` bytes (1 to ARENA_BLOCK_MAX), ARENA_UNIT-aligned, not zeroed; 0 and trouble when the arena is full, and 0 in trouble. The
 * block is the unit's own until it commits. */
arena_ref arena_alloc(struct arena *arena, uint32_t channel, size_t size);

/* Frees a block; its bytes stay as they are until the unit has committed (A2). `size` as it was allocated. */
void arena_free(struct arena *arena, uint32_t channel, arena_ref block, size_t size);

/* The bytes that a block of `size` really takes. */
size_t arena_block_size(size_t size);

/* Where a block is; for references that this process made. */
static inline void *arena_at(const struct arena *arena, arena_ref block)
{
	return arena->base + (uint64_t)block * ARENA_UNIT;
}

/* Says that the arena is damaged: sets ARENA_BROKEN. `what` outlives the arena. */
void arena_set_broken(struct arena *arena, const char *what);

/* Whether a reference that was read in the arena can be a block of `size`. */
static inline bool arena_can_be(const struct arena *arena, arena_ref block, uint64_t size)
{
	uint64_t offset = (uint64_t)block * ARENA_UNIT;
	return offset >= arena->blocks_from && offset + size <= arena->size;
}

/* Where a block of `size` is; for references that were read in the arena: NULL and ARENA_BROKEN when it cannot be. */
static inline void *arena_find(struct arena *arena, arena_ref block, uint64_t size)
{
	if (__builtin_expect(arena_can_be(arena, block, size), 1))
		return arena_at(arena, block);
	arena_set_broken(arena, "a reference leads out of the arena");
	return NULL;
}

/* ---- Looking ---- */

struct arena_usage {
	uint64_t limit;    /* bytes of extents that there are */
	uint64_t extents;  /* bytes of extents that sessions have */
	uint64_t blocks;   /* bytes of blocks in use in them */
	uint64_t freed;    /* bytes of extents that wait for arena_idle */
	uint64_t log_most; /* the most bytes of log that a unit has used in this process */
};
struct arena_usage arena_usage(const struct arena *arena);
/* The same for one session's part. */
struct arena_usage arena_session_usage(const struct arena *arena, uint32_t channel);

#endif
