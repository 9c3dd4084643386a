/*
 * State: what steps remember, in the slot's arena, per session. What a language host offers to its users is this header.
 *
 *   struct state *seen = state_open(store, &(struct state_spec){.step = "dedup", .name = "seen", .kind = STATE_VALUE});
 *   ...
 *   state_key(store, record->key, record->key_hash, record->key_group);     the chain does this
 *   if (state_get(seen, &value) == STATE_NONE)
 *           state_put(seen, view_of("1"));
 *
 * A store is a session's; a handle is opened once per (segment, step, name) and has a kind:
 *
 *   VALUE   one value per key
 *   MAP     user keys to values, per key; iterated in the order of first insertion since the last restore
 *   LIST    values appended, per key; in a segment without keys one list per name, dealt out (split) or given to all (union)
 *           when the segment is rescaled
 *   TIMERS  times at which the step wants to be called, per key: by event time or processing time, each with a tag. Setting the same
 *           (key, time, tag) twice is setting it once
 *
 * Keys and values are bytes. A view that is handed out points into the arena and is good until the next call that changes this
 * store. Everything is part of the unit at hand: it happens when the caller of the chain commits, or not at all. No call
 * allocates process memory on the hot path.
 *
 * Every entry that was changed or removed since it was last taken by state_delta_* is dirty; a snapshot is the sum of the
 * deltas. All functions run in the worker's only thread.
 */
#ifndef WORKER_STATE_H
#define WORKER_STATE_H

#include "descriptor/manifest.h"
#include "shared/view.h"
#include "worker/arena.h"

struct state;       /* a handle */
struct state_store; /* a session's state, as this process has it */

enum state_time { STATE_EVENT_TIME, STATE_PROCESSING_TIME, STATE_TIMES };

enum state_result {
	STATE_OK,
	STATE_NONE, /* there is nothing (more) */
	STATE_TROUBLE, /* the arena or its log is full: arena->trouble says which; fail upwards, the session knows what to do */
	STATE_AGAIN,     /* a part of it is done; again, and best in another unit */
	STATE_TOO_LARGE, /* a key, user key or value exceeds what an entry may have; state_limit_words says it */
};

enum { STATE_HANDLES_MAX = 4096, STATE_KEY_MAX = 256 << 10, STATE_SUBKEY_MAX = 65535, STATE_VALUE_MAX = 32 << 20 };
/* Bytes of a value as it travels: behind the time, where its state has a TTL. */
enum { STATE_TRAVEL_MAX = STATE_VALUE_MAX + 8 };

/* ---- Stores and handles ---- */

/* A session's store over its part of the arena, empty or as a predecessor left it. */
struct state_store *state_store_create(struct arena *arena, uint32_t channel);

/* Frees this process's part; the arena keeps the state. */
void state_store_destroy(struct state_store *store);

/* Where it is. */
struct arena *state_arena(const struct state_store *store);

/* Opens a handle; the same (step, name) in a later process finds the same state. The handle is the store's. NULL when there are too
 * many, the arena is full, or the state is there with another kind or partition, or a TTL where there was none. Part of the unit at
 * hand, as everything. Handles that exist before the first unit of a session commits are all that it ever has. */
struct state *state_open(struct state_store *store, const struct state_spec *spec);

/* The handles, in the order of opening: the manifest. */
uint32_t state_count(const struct state_store *store);
const struct state_spec *state_spec_of(const struct state_store *store, uint32_t index);
const struct state *state_handle(const struct state_store *store, uint32_t index);

/* Sets the key that the calls below are about, until the next call. An unkeyed segment has the empty key, group 0. The bytes must
 * stay until then. */
void state_key(struct state_store *store, struct view key, int32_t key_hash, uint32_t key_group);

/* Says that a key will be the current one soon, and which state will be asked for: fetches what can be fetched ahead. Worth it for the
 * keys of a run, a few before they are due (STATE_AHEAD); leaving it out changes nothing but the speed. */
void state_ahead(struct state *state, struct view key);
enum { STATE_AHEAD = 16 };

/* Sets the time that TTLs go by, 0 or later. It goes back only where a unit has been rolled back. */
void state_clock(struct state_store *store, int64_t processing_ms);

/* Another number whenever the state is no longer what the calls of this process have made of it: after a rollback, an undo to a mark, a
 * restored entry. What a step knows of its state by other means than asking is void then. */
uint64_t state_generation(const struct state_store *store);

/* ---- VALUE ---- */

enum state_result state_get(struct state *state, struct view *value);
enum state_result state_put(struct state *state, struct view value);
enum state_result state_remove(struct state *state); /* OK, or NONE when there was none */

/* Writes in place: the value's bytes as they are (zeroed when new), of exactly `size`, logged and marked dirty. The fast way for
 * counters and sums. */
enum state_result state_edit(struct state *state, size_t size, void **bytes, bool *is_new);

/* ---- MAP ---- */

enum state_result state_map_get(struct state *state, struct view user_key, struct view *value);
enum state_result state_map_put(struct state *state, struct view user_key, struct view value);
enum state_result state_map_remove(struct state *state, struct view user_key);
enum state_result state_map_clear(struct state *state);
uint64_t state_map_count(struct state *state); /* also those that have expired, until they are swept */

/* Where an iteration over a map or list of the current key stands; zeroed to begin. */
struct state_iterator {
	uint64_t at, part;
};

/* The next entry. Entries may be removed on the way, also the one just handed out, but not put. */
enum state_result state_map_next(struct state *state, struct state_iterator *iterator, struct view *user_key,
				 struct view *value);

/* ---- LIST ---- */

enum state_result state_list_append(struct state *state, struct view value);
enum state_result state_list_next(struct state *state, struct state_iterator *iterator, struct view *value);
enum state_result state_list_clear(struct state *state);
uint64_t state_list_count(struct state *state);

/* ---- TIMERS ---- */

struct state_timer {
	int64_t time_ms;
	struct view key;
	int32_t key_hash;
	uint32_t key_group;
	struct view tag; /* at most 255 bytes */
};

enum { STATE_TAG_MAX = 255 };

/* For the current key. */
enum state_result state_timer_set(struct state *state, enum state_time domain, int64_t time_ms, struct view tag);
enum state_result state_timer_delete(struct state *state, enum state_time domain, int64_t time_ms, struct view tag);

/* Takes the first timer that is due at `time_ms` or before, of all keys; ties go by key, then tag, so that the order is the same
 * whatever happened before. Removes it, and makes its key the current one; its views are good until the next change. */
enum state_result state_timer_pop(struct state *state, enum state_time domain, int64_t time_ms,
				  struct state_timer *timer);

/* The time of the first timer; INT64_MAX: none. Cheap. */
int64_t state_timer_first(const struct state *state, enum state_time domain);

/* ---- Snapshot and restore: entries as they travel ---- */

/* What finding an entry takes of hashing, where it was done ahead. */
struct state_hashes {
	uint64_t key_mix;
	uint32_t hash;
	bool known;
};

/* One entry: of a VALUE (sub empty), of a MAP (sub is the user key), a piece of a LIST (sub is its place), or a timer (sub is domain,
 * time and tag). What sub and value hold of a LIST and a timer is this module's, and part of the savepoint format (version below). */
struct state_entry {
	uint32_t state; /* index of the handle */
	uint32_t key_group;
	int32_t key_hash;
	bool removed; /* then value is empty */
	struct view key, sub, value;
	struct state_hashes hashes; /* of an entry to be restored: what state_restore_ahead gave; or zero */
};

enum { STATE_FORMAT_VERSION = 1 };

/* The first dirty entry, or NONE. Its views are good until the next change. AGAIN: STATE_PURGE_MAX entries that nobody has to hear of stood
 * before it, were dropped, and others may follow. */
enum { STATE_PURGE_MAX = 1024 };
enum state_result state_delta_peek(struct state_store *store, struct state_entry *entry);

/* Takes it off: it is clean, or gone when it was removed. */
void state_delta_advance(struct state_store *store);

/* Bytes of keys and values that are dirty, and the entries. */
uint64_t state_dirty_bytes(const struct state_store *store);
uint64_t state_dirty_entries(const struct state_store *store);

/* Puts an entry that a client kept back in place, clean; pieces of lists without keys are appended and stay dirty, because their
 * place is new. STATE_TOO_LARGE also for what cannot be one (a timer's sub that is none, an entry that is there already): `why` says
 * what. Changes the current key. */
enum state_result state_restore(struct state_store *store, const struct state_entry *entry, const char **why);

/* Makes room in the table for so many entries in all, by some steps; as good as free while it is empty. False when all is done. */
bool state_reserve(struct state_store *store, uint64_t entries, uint32_t steps);

/* As state_ahead, of an entry that will be restored STATE_AHEAD calls from now, as long as `key` and `sub` stay as they are. */
struct state_hashes state_restore_ahead(struct state_store *store, uint32_t state, struct view key, struct view sub);

/* ---- Looking ---- */

struct state_size {
	uint64_t entries, key_bytes, value_bytes; /* live ones; entries of LISTs are their pieces */
	uint64_t timers;
	uint64_t largest_key, largest_value; /* bytes seen since the store was created */
};
struct state_size state_size_of(const struct state *state);

/* Of the whole store: bytes of blocks that entries and tables take. */
uint64_t state_bytes(const struct state_store *store);

/* Walks over all live entries in no particular order, `limit` buckets at most from *cursor (0 to begin; UINT64_MAX at the end): for
 * inspection, `state_walk` changes nothing. */
typedef void state_visit(void *context, const struct state_entry *entry);
void state_walk(struct state_store *store, uint64_t *cursor, uint64_t limit, state_visit *visit, void *context);

#endif
