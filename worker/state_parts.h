/*
 * Inside of the state: entries, the table that finds them, the queue of dirty ones. For the state_*.c.
 *
 * An entry is one block that never moves: whoever has its reference keeps it. What identifies it stands in it for good, only its
 * value changes: in place as long as it fits, else in a block of its own.
 *
 *     | head, 32 bytes | key | sub | key hash, if odd | pad to 8 | prefix | value, or the reference of the block that it is in |
 *
 *   entry   sub        prefix                        value
 *   VALUE   -          -                             the step's bytes (behind 8 bytes of time, where the state has a TTL)
 *   MAP     user key   previous, next in order       likewise
 *     root  -          -                             struct map_root
 *   LIST    place      -                             a piece: elements, each behind 4 bytes of length; is only appended to
 *     root  -          -                             struct list_root
 *   TIMERS  see state_timers.c   place in the heap   -
 *
 * Roots are a convenience of this process family: they never travel, and state_restore makes them anew.
 *
 * A removed entry stays where it is, REMOVED, until the removal has been sent (state_delta_advance); a put in between revives it.
 */
#ifndef WORKER_STATE_PARTS_H
#define WORKER_STATE_PARTS_H

#include <stddef.h>
#include <string.h>

#include "worker/arena_log.h"
#include "worker/state.h"

enum {
	ENTRY_MAGIC = 0xe7,
	HANDLE_MAGIC = 0x68616e64,
	LARGE_MAGIC = 0x6c617267,
	INLINE_MAX = 1024,   /* bytes of a value that stands in its entry, but for pieces of lists */
	COVER_KEY_MAX = 256, /* bytes of key and sub that are logged with the value rather than left out */
	PIECE_MAX = 4096 - 256,
	PIECE_MIN = 48,
};

/* What an entry is. */
enum {
	ENTRY_DIRTY = 1,   /* in the queue of dirty entries */
	ENTRY_SENT = 2,    /* whoever keeps the snapshot has had it: its removal must be sent as well */
	ENTRY_REMOVED = 4, /* waits for that */
	ENTRY_EXTERN = 8,  /* the value is in a block of its own */
	ENTRY_ROOT = 16,   /* never dirty */
	ENTRY_ODD = 32,    /* came with a hash that is not that of its key */
	ENTRY_PREFIX = 64, /* 8 bytes before the value */
	ENTRY_APPENDS =
	    128 /* a piece of a list: what is behind the value's end is nobody's, so only the head is logged */
};

struct entry {
	arena_ref next;  /* in its bucket */
	arena_ref dirty; /* the next in the queue */
	uint32_t logged; /* the record that covers it (A7) */
	uint32_t hash;   /* of (state, key, sub) */
	uint16_t state;  /* index of the handle */
	uint16_t key_group;
	uint16_t sub_size;
	uint8_t flags;
	uint8_t magic;
	uint32_t key_size : 24;
	uint32_t block : 8; /* size class of the whole */
	uint32_t value_size;
	uint8_t bytes[];
};
_Static_assert(sizeof(struct entry) == 32, "a key of 8 bytes and a value of 24 make one cache line");

/* Of an entry's head, the eight bytes that say what it is: state, key group, size of sub, flags, magic. Read at once. */
static inline uint64_t entry_what(const struct entry *entry)
{
	uint64_t what;

	memcpy(&what, (const uint8_t *)entry + offsetof(struct entry, state), sizeof(what));
	return what;
}

/* Before a value that has a block of its own. */
struct large {
	uint32_t magic;
	uint32_t logged; /* in the unit that made it: it may be changed in place (A7) */
	uint64_t size;   /* of the value behind this */
};

struct map_root {
	uint64_t count;
	arena_ref first, last;
};

struct list_root {
	uint64_t count;  /* elements */
	uint32_t places; /* the highest place, plus one */
	uint32_t pieces; /* that are there; fewer than places while a restore is under way */
	arena_ref last;  /* the piece at the highest place */
	uint32_t unused;
};

/* An array that grows by chunks and never moves: a root block of references to blocks of references to chunks. */
struct vector {
	arena_ref root;
	uint32_t chunks;
};
enum { VECTOR_FAN = 1024, VECTOR_CHUNKS_MAX = VECTOR_FAN * VECTOR_FAN };

struct timer_node {
	int64_t time_ms;
	arena_ref entry;
	uint32_t unused;
};
enum { NODES_PER_CHUNK = 256, BUCKETS_PER_CHUNK = 2048 };

struct timer_heap {
	struct vector nodes;
	uint32_t count;
	uint32_t unused;
};

/* A handle's words in the arena. */
struct handle {
	uint32_t magic;
	uint32_t logged; /* the record that covers it (A7) */
	arena_ref next;  /* in the order of opening */
	uint32_t index;
	uint8_t kind, partition;
	uint16_t step_size, name_size; /* with their NULs; the bytes are behind this */
	uint16_t unused;
	uint32_t version;
	int64_t ttl_ms;
	uint64_t entries, key_bytes, value_bytes, timers;
	struct timer_heap heaps[STATE_TIMES];
};

/* A session's state, in its words. */
struct state_words {
	struct vector buckets;
	uint32_t bucket_count;
	uint32_t handle_count;
	arena_ref first_handle;
	uint32_t sweep;   /* the bucket to look at next for what has expired */
	uint64_t entries; /* in the table, removed ones and roots too */
	uint64_t bytes;   /* of blocks */
	arena_ref dirty_first, dirty_last;
	uint64_t dirty_entries, dirty_bytes;
};
_Static_assert(sizeof(struct state_words) <= ARENA_SESSION_STATE, "the state's words have their place");

/* This process's part of a handle. */
struct state {
	struct state_store *store;
	struct state_spec spec;
	struct handle *handle;
	uint64_t salt; /* keeps the hashes of different states apart */
	uint64_t largest_key, largest_value;
	uint64_t what_value; /* entry_what of its entries without a sub that are no roots */
	uint16_t index;
	bool opened; /* by this process: the spec's names are its own */
	bool has_ttl;
};

/* A key that will be looked for soon: its bucket, and the first entry in it once that is known. Only ever read, to fetch what is there. */
struct ahead {
	const uint32_t *bucket;
	const struct entry *first;
	uint32_t hash;
};

/* This process's part of a store. */
struct state_store {
	uint64_t restored; /* entries, by this process */
	struct arena *arena;
	struct state_words *words;
	uint32_t channel;
	uint32_t state_count;
	struct state **states;
	int64_t now_ms;
	bool has_ttl; /* a state has */
	struct view key;
	int32_t key_hash;
	uint32_t key_group;
	uint64_t key_mix;  /* XXH3 of the key */
	arena_ref *chunks; /* of the table's buckets, as they were when arena->undone was chunks_seen */
	uint32_t chunk_count, chunks_room;
	uint32_t mark_first, mark_count; /* the bits of a bucket that are marks */
	uint32_t ref_mask;               /* the others: its first entry */
	uint64_t chunks_seen;
	struct ahead ahead[STATE_AHEAD]; /* keys that will be looked for soon, the oldest at ahead_at */
	uint32_t ahead_at;
};

/* ---- Blocks (state_table.c) ---- */

struct state_words *words_write(struct state_store *store);
struct handle *handle_write(struct state *state);
arena_ref block_alloc(struct state_store *store, size_t size);
void block_free(struct state_store *store, arena_ref block, size_t size);

/* Reads a reference in a block of references. */
static inline arena_ref fan_read(struct state_store *store, arena_ref block, uint32_t index)
{
	const arena_ref *refs = arena_find(store->arena, block, VECTOR_FAN * sizeof(arena_ref));
	return refs == NULL ? 0 : refs[index];
}

/* Where element `index` of a vector is, by chunks of `per_chunk` elements of `size` bytes; NULL when damaged. Three steps, the first two
 * of which are warm as a rule. */
static inline void *vector_at(struct state_store *store, const struct vector *vector, uint32_t index,
			      uint32_t per_chunk, size_t size)
{
	uint32_t chunk = index / per_chunk;

	if (__builtin_expect(chunk >= vector->chunks || chunk >= VECTOR_CHUNKS_MAX, 0)) {
		arena_set_broken(store->arena, "an array is shorter than what it should hold");
		return NULL;
	}
	arena_ref block = fan_read(store, fan_read(store, vector->root, chunk / VECTOR_FAN), chunk % VECTOR_FAN);
	uint8_t *elements = arena_find(store->arena, block, per_chunk * size);
	return elements == NULL ? NULL : elements + (index % per_chunk) * size;
}

/* Adds a chunk; `vector` is ready to be changed. */
bool vector_grow(struct state_store *store, struct vector *vector, size_t chunk_bytes);

/* ---- Entries (state_table.c) ---- */

static inline struct view entry_key(const struct entry *entry)
{
	return (struct view){entry->bytes, entry->key_size};
}

static inline struct view entry_sub(const struct entry *entry)
{
	return (struct view){entry->bytes + entry->key_size, entry->sub_size};
}

/* Offset of prefix and value in an entry with so many bytes of key and sub. */
static inline uint32_t prefix_offset(uint32_t names, uint32_t flags)
{
	return ((uint32_t)sizeof(struct entry) + names + ((flags & ENTRY_ODD) ? 4 : 0) + 7) & ~7U;
}

static inline uint32_t value_offset(uint32_t names, uint32_t flags)
{
	return prefix_offset(names, flags) + ((flags & ENTRY_PREFIX) ? 8 : 0);
}

static inline uint32_t entry_prefix_offset(const struct entry *entry)
{
	return prefix_offset((uint32_t)entry->key_size + entry->sub_size, entry->flags);
}

static inline uint32_t entry_value_offset(const struct entry *entry)
{
	return value_offset((uint32_t)entry->key_size + entry->sub_size, entry->flags);
}

static inline uint32_t *entry_prefix(struct entry *entry)
{
	return (uint32_t *)((uint8_t *)entry + entry_prefix_offset(entry));
}

/* Bytes for a value in the entry itself. */
static inline uint32_t entry_room(const struct entry *entry)
{
	return heap_class_bytes[entry->block] - entry_value_offset(entry);
}

/* Bytes that travel. */
static inline uint64_t entry_bytes(const struct entry *entry)
{
	return (uint64_t)entry->key_size + entry->sub_size + entry->value_size;
}

static inline arena_ref entry_ref(const struct state_store *store, const struct entry *entry)
{
	return (arena_ref)(arena_offset(store->arena, entry) / ARENA_UNIT);
}

/* The hash that an entry's key came with. */
int32_t entry_key_hash(const struct entry *entry);

/* The value of an entry as it travels; empty, and trouble, when it is damaged. */
struct view entry_value(struct state_store *store, const struct entry *entry);

/* Whether what an entry says of itself can be; its head is within the arena. */
static inline bool entry_is_sound(const struct arena *arena, const struct entry *entry)
{
	if (entry->magic != ENTRY_MAGIC || entry->block >= HEAP_CLASSES)
		return false;
	uint64_t inside = (entry->flags & ENTRY_EXTERN) != 0 ? sizeof(arena_ref) : entry->value_size;
	uint32_t bytes = heap_class_bytes[entry->block];
	return entry_value_offset(entry) + inside <= bytes && arena_offset(arena, entry) + bytes <= arena->size;
}

/* The entry that a reference leads to; NULL and ARENA_BROKEN when there is none. */
static inline struct entry *entry_at(struct state_store *store, arena_ref ref)
{
	struct entry *entry = arena_find(store->arena, ref, sizeof(*entry));

	if (entry == NULL || entry_is_sound(store->arena, entry))
		return entry;
	arena_set_broken(store->arena, "a block that should be an entry of the state is none");
	return NULL;
}

/* Says where in a bucket the marks are, before anything else is done with a store. */
void table_marks_init(struct state_store *store);

/* Says what a state's entries say of themselves, once its index is known. */
void table_what_init(struct state *state);

/* The hash that an entry is put under: of its key, which state it is in, and what it is under there. The first for entries without a sub. */
static inline uint32_t hash_of_value(const struct state *state, uint64_t key_mix)
{
	return (uint32_t)((key_mix ^ state->salt) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}
uint32_t hash_of(const struct state *state, uint64_t key_mix, struct view sub, bool root);

/* The entry of the current key, also a removed one; NULL: there is none, or trouble. The first for entries without a sub. */
struct entry *table_find_value(const struct state *state, uint32_t hash);
struct entry *table_find(const struct state *state, uint32_t hash, struct view sub, bool root);

/* The hash of a key that will be looked for soon. */
void state_ahead_hash(struct state_store *store, uint32_t hash);

/* Makes an entry for the current key with room for `room` bytes of value, in the table and clean; NULL: trouble. */
struct entry *table_insert(struct state *state, uint32_t hash, struct view sub, uint8_t flags, size_t room);

/* Takes an entry out of the table and frees it and its value. */
void table_unlink(struct state_store *store, struct entry *entry);

/* Visits a bucket's entries one after the other: the first for NULL. */
struct entry *bucket_next(struct state_store *store, uint32_t bucket, const struct entry *entry);

/* What a record of this entry covers: all of it, but for long keys, and the bytes of pieces of lists. */
static inline size_t cover_size(const struct entry *entry)
{
	if ((entry->flags & ENTRY_APPENDS) != 0 || entry->key_size + entry->sub_size > COVER_KEY_MAX)
		return sizeof(*entry);
	return heap_class_bytes[entry->block];
}

static inline bool is_covered(const struct arena *arena, const struct entry *entry)
{
	return arena_is_covered(arena, entry->logged, arena_offset(arena, entry), cover_size(entry));
}

/* Logs an entry that is to be changed: head and value (A7). */
void entry_cover_parts(struct state_store *store, struct entry *entry);
static inline void entry_cover(struct state_store *store, struct entry *entry)
{
	size_t size = cover_size(entry);

	if (size == sizeof(*entry))
		entry_cover_parts(store, entry);
	else
		arena_cover(store->arena, entry, size, &entry->logged);
}

/* Puts an entry into the queue of dirty ones, unless it is there. It is covered. */
void dirty_append(struct state_store *store, struct entry *entry);
static inline void entry_set_dirty(struct state_store *store, struct entry *entry)
{
	if ((entry->flags & (ENTRY_DIRTY | ENTRY_ROOT)) == 0)
		dirty_append(store, entry);
}

/* Whether an entry that is there counts: not removed, not expired. */
bool entry_lives(const struct state *state, const struct entry *entry);

/* Gives the value of a live entry `size` bytes: the old ones as far as they go, then zeros. Covers the entry, and makes it dirty unless
 * `clean`. Returns where the value is, to be changed; NULL: trouble. */
uint8_t *entry_resize(struct state *state, struct entry *entry, size_t size, bool clean);

/* Sets the value: the time where the state has a TTL, then the step's bytes. False: trouble. */
bool entry_store(struct state *state, struct entry *entry, struct view value, bool clean);

/* Removes a live entry: it waits REMOVED for being sent. Prefix and counts of roots are the caller's. */
void entry_remove(struct state *state, struct entry *entry);

/* Revives a removed entry with an empty value. */
void entry_revive(struct state *state, struct entry *entry);

/* Drops removed entries that nobody has had from the front of the queue, `limit` at most. False: there are more. */
bool dirty_purge(struct state_store *store, uint32_t limit);

/* ---- Kinds ---- */

/* Sets the current key, whose hash is known (state.c). */
void state_key_mixed(struct state_store *store, struct view key, int32_t key_hash, uint32_t key_group,
		     uint64_t key_mix);

/* Bytes of time before a step's value. */
static inline uint32_t time_size(const struct state *state)
{
	return state->has_ttl ? 8 : 0;
}

/* A change is about to be made: looks whether something has expired (state.c). */
void sweep_bucket(struct state_store *store);
static inline void sweep_step(struct state_store *store)
{
	if (store->has_ttl)
		sweep_bucket(store);
}

/* Removal of an entry of whatever kind, roots and heaps included (state.c). */
void remove_any(struct state *state, struct entry *entry);

/* Takes a timer's entry into its heap, and out of it (state_timers.c). `sub` must be one of a timer. */
bool timer_sub_can_be(struct view sub);
bool timer_push(struct state *state, struct entry *entry);
void timer_take_out(struct state *state, struct entry *entry);

/* Puts an entry that is new or revived at the end of its map; false: trouble (state.c). */
bool map_append(struct state *state, struct entry *entry);

/* Pieces of lists (state_list.c). */
enum state_result list_restore(struct state *state, const struct state_entry *from, const char **why);

#endif
