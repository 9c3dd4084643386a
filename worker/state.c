/*
 * The state API: stores, handles, VALUE and MAP. LIST is in state_list.c, TIMERS in state_timers.c, what travels in
 * state_travel.c; all stand on the table of entries in state_table.c (state_parts.h says what an entry is).
 *
 * Everything is in the arena. What a store and a handle have in process memory is where to find it, so that a successor that makes
 * them anew goes on as this process would have.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "worker/memory.h"
#include "worker/state_parts.h"

/* ---- Stores -------------------------------------------------------------------------------------------------------- */

/* Process memory, which a worker has. */
static void *allocate(size_t size)
{
	return memory_make(1, size, "what a worker knows of state");
}

/* Makes this process's part of a handle that is in the arena. */
static struct state *state_attach(struct state_store *store, struct handle *handle)
{
	struct state *state = allocate(sizeof(*state));
	const char *names = (const char *)(handle + 1);

	*state = (struct state){
	    .store = store,
	    .handle = handle,
	    .index = (uint16_t)handle->index,
	    .salt = XXH3_64bits(&handle->index, sizeof(handle->index)),
	    .has_ttl = handle->ttl_ms > 0,
	    .spec = {.step = names,
		     .name = names + handle->step_size,
		     .kind = (enum state_kind)handle->kind,
		     .partition = (enum state_partition)handle->partition,
		     .version = handle->version,
		     .ttl_ms = handle->ttl_ms},
	};
	table_what_init(state);
	store->has_ttl |= state->has_ttl;
	store->states[store->state_count++] = state;
	return state;
}

/* Bytes of a handle's block. */
static size_t handle_size(const struct handle *handle)
{
	return sizeof(*handle) + handle->step_size + handle->name_size;
}

/* The handle at a reference; NULL and ARENA_BROKEN when there is none. */
static struct handle *handle_at(struct state_store *store, arena_ref ref, uint32_t index)
{
	struct handle *handle = arena_find(store->arena, ref, sizeof(*handle));

	if (handle == NULL)
		return NULL;
	const char *names = (const char *)(handle + 1);
	if (handle->magic == HANDLE_MAGIC && handle->index == index && handle->kind < STATE_KIND_COUNT &&
	    handle->partition <= STATE_UNION && handle->step_size > 0 && handle->name_size > 0 &&
	    arena_can_be(store->arena, ref, handle_size(handle)) && names[handle->step_size - 1] == '\0' &&
	    names[handle->step_size + handle->name_size - 1] == '\0')
		return handle;
	arena_set_broken(store->arena, "a block that should be a handle of the state is none");
	return NULL;
}

/* A store, with the handles that a predecessor opened. */
struct state_store *state_store_create(struct arena *arena, uint32_t channel)
{
	struct state_store *store = allocate(sizeof(*store));

	store->arena = arena;
	store->channel = channel;
	store->words = arena_session_state(arena, channel);
	table_marks_init(store);
	store->states = allocate(STATE_HANDLES_MAX * sizeof(struct state *));
	uint32_t count = store->words->handle_count;
	arena_ref ref = store->words->first_handle;
	if (count > STATE_HANDLES_MAX)
		arena_set_broken(arena, "a session has more states than there can be");
	for (uint32_t i = 0; i < count && i < STATE_HANDLES_MAX; i++) {
		struct handle *handle = handle_at(store, ref, i);
		if (handle == NULL)
			break;
		state_attach(store, handle);
		ref = handle->next;
	}
	state_key(store, (struct view){0}, 0, 0);
	return store;
}

struct arena *state_arena(const struct state_store *store)
{
	return store->arena;
}

/* Frees this process's part. */
void state_store_destroy(struct state_store *store)
{
	if (store == NULL)
		return;
	for (uint32_t i = 0; i < store->state_count; i++)
		free(store->states[i]);
	free(store->states);
	free(store->chunks);
	free(store);
}

/* ---- Handles --------------------------------------------------------------------------------------------------------- */

/* Writes a new handle into the arena, at the end of the list. */
static struct handle *handle_create(struct state_store *store, const struct state_spec *spec)
{
	struct handle head = {
	    .magic = HANDLE_MAGIC,
	    .ttl_ms = spec->ttl_ms,
	    .index = store->state_count,
	    .kind = (uint8_t)spec->kind,
	    .partition = (uint8_t)spec->partition,
	    .step_size = (uint16_t)(strlen(spec->step) + 1),
	    .name_size = (uint16_t)(strlen(spec->name) + 1),
	};
	arena_ref ref = block_alloc(store, handle_size(&head));

	if (ref == 0)
		return NULL;
	struct handle *handle = arena_at(store->arena, ref);
	head.logged = arena_log_fresh(store->arena, handle);
	*handle = head;
	memcpy(handle + 1, spec->step, head.step_size);
	memcpy((char *)(handle + 1) + head.step_size, spec->name, head.name_size);
	FAULT_POINT(state_open);
	struct state_words *words = words_write(store);
	if (store->state_count == 0)
		words->first_handle = ref;
	else
		handle_write(store->states[store->state_count - 1])->next = ref;
	words->handle_count++;
	return handle;
}

/* The handle of that name, or NULL. */
static struct state *state_find(const struct state_store *store, const struct state_spec *spec)
{
	for (uint32_t i = 0; i < store->state_count; i++) {
		const struct state_spec *other = &store->states[i]->spec;
		if (strcmp(other->step, spec->step) == 0 && strcmp(other->name, spec->name) == 0)
			return store->states[i];
	}
	return NULL;
}

/* Opens a handle. */
struct state *state_open(struct state_store *store, const struct state_spec *spec)
{
	struct state *state = state_find(store, spec);
	uint32_t version = spec->version % STATE_VERSION_TTL + (spec->ttl_ms > 0 ? STATE_VERSION_TTL : 0);

	CHECK(spec->kind < STATE_KIND_COUNT && strlen(spec->step) < UINT16_MAX && strlen(spec->name) < UINT16_MAX);
	CHECK(spec->version < 2 * STATE_VERSION_TTL && spec->ttl_ms >= 0);
	CHECK(spec->ttl_ms == 0 || spec->kind == STATE_VALUE || spec->kind == STATE_MAP);
	if (store->arena->trouble != ARENA_FINE)
		return NULL;
	if (state == NULL) {
		struct handle *handle = store->state_count < STATE_HANDLES_MAX ? handle_create(store, spec) : NULL;
		if (handle == NULL)
			return NULL;
		state = state_attach(store, handle);
	}
	if (state->spec.kind != spec->kind || state->spec.partition != spec->partition ||
	    (state->handle->ttl_ms > 0) != (spec->ttl_ms > 0))
		return NULL;
	if (state->handle->version != version || state->handle->ttl_ms != spec->ttl_ms) {
		struct handle *handle = handle_write(state);
		handle->version = version;
		handle->ttl_ms = spec->ttl_ms;
	}
	state->spec = *spec;
	state->spec.version = version;
	return store->arena->trouble == ARENA_FINE ? state : NULL;
}

uint32_t state_count(const struct state_store *store)
{
	return store->state_count;
}

const struct state_spec *state_spec_of(const struct state_store *store, uint32_t index)
{
	CHECK(index < store->state_count);
	return &store->states[index]->spec;
}

const struct state *state_handle(const struct state_store *store, uint32_t index)
{
	CHECK(index < store->state_count);
	return store->states[index];
}

/* The hash that tables go by. Keys of eight bytes are common, and what is done for that size alone is a few instructions. */
static inline __attribute__((flatten)) uint64_t mix_of(struct view key)
{
	if (key.size == 8)
		return XXH3_64bits(key.data, 8);
	return XXH3_64bits(key.size > 0 ? key.data : (const uint8_t *)"", key.size);
}

void state_key_mixed(struct state_store *store, struct view key, int32_t key_hash, uint32_t key_group, uint64_t key_mix)
{
	store->key = key.size > 0 ? key : (struct view){(const uint8_t *)"", 0};
	store->key_hash = key_hash;
	store->key_group = key_group;
	store->key_mix = key_mix;
}

/* Sets the current key. */
void state_key(struct state_store *store, struct view key, int32_t key_hash, uint32_t key_group)
{
	state_key_mixed(store, key, key_hash, key_group, mix_of(key));
}

/* Time is what it is said to be: with a unit that is rolled back it goes back, too. */
void state_clock(struct state_store *store, int64_t processing_ms)
{
	store->now_ms = processing_ms;
}

/* ---- What expires ------------------------------------------------------------------------------------------------------ */

/* Removes a live VALUE or entry of a MAP. */
static void map_detach(struct state *state, struct entry *entry);
void remove_any(struct state *state, struct entry *entry)
{
	if (state->spec.kind == STATE_MAP)
		map_detach(state, entry);
	entry_remove(state, entry);
}

/* Looks at one bucket. One entry is removed at a time: the next call finds what else there is in the bucket. */
void sweep_bucket(struct state_store *store)
{
	if (store->words->bucket_count == 0)
		return;
	uint32_t bucket = store->words->sweep;
	bucket = bucket < store->words->bucket_count ? bucket : 0;
	uint64_t left = store->words->entries;
	for (struct entry *entry = bucket_next(store, bucket, NULL); entry != NULL && left > 0;
	     entry = bucket_next(store, bucket, entry), left--) {
		struct state *state = entry->state < store->state_count ? store->states[entry->state] : NULL;
		if (state == NULL || !state->has_ttl || (entry->flags & (ENTRY_REMOVED | ENTRY_ROOT)) != 0 ||
		    entry_lives(state, entry))
			continue;
		remove_any(state, entry);
		FAULT_POINT(sweep);
		return;
	}
	words_write(store)->sweep = bucket + 1;
}

/* ---- Bounds ------------------------------------------------------------------------------------------------------------ */

/* Notes what is large, and says whether it is too large. */
static inline bool too_large(struct state *state, size_t sub, size_t value)
{
	size_t key = state->store->key.size;

	state->largest_key = key > state->largest_key ? key : state->largest_key;
	state->largest_value = value > state->largest_value ? value : state->largest_value;
	return key > STATE_KEY_MAX || sub > STATE_SUBKEY_MAX || value > STATE_VALUE_MAX;
}

static inline bool in_trouble(const struct state *state)
{
	return state->store->arena->trouble != ARENA_FINE;
}

/* What an operation came to, if nothing was in its way. */
static inline enum state_result result_of(const struct state *state, enum state_result result)
{
	return in_trouble(state) ? STATE_TROUBLE : result;
}

/* The step's part of a value. */
static struct view step_value(const struct state *state, const struct entry *entry)
{
	struct view value = entry_value(state->store, entry);
	uint32_t time = time_size(state);

	if (value.size < time || value.data == NULL) /* damaged */
		return (struct view){0};
	return (struct view){value.data + time, value.size - time};
}

/* Room in a new entry for a value. */
static size_t room_for(const struct state *state, size_t size)
{
	size += time_size(state);
	return size <= INLINE_MAX ? size : 0;
}

uint64_t state_generation(const struct state_store *store)
{
	return store->arena->undone + store->restored;
}

/* ---- VALUE ------------------------------------------------------------------------------------------------------------- */

static const struct view no_sub = {(const uint8_t *)"", 0};

/* The entry of the current key. */
static inline struct entry *value_find(const struct state *state, uint32_t *hash)
{
	*hash = hash_of_value(state, state->store->key_mix);
	return table_find_value(state, *hash);
}

enum state_result state_get(struct state *state, struct view *value)
{
	uint32_t hash;

	*value = (struct view){0};
	if (in_trouble(state))
		return STATE_TROUBLE;
	struct entry *entry = value_find(state, &hash);
	if (entry == NULL || !entry_lives(state, entry))
		return result_of(state, STATE_NONE);
	*value = step_value(state, entry);
	return result_of(state, STATE_OK);
}

enum state_result state_put(struct state *state, struct view value)
{
	uint32_t hash;

	if (in_trouble(state))
		return STATE_TROUBLE;
	if (too_large(state, 0, value.size))
		return STATE_TOO_LARGE;
	sweep_step(state->store);
	struct entry *entry = value_find(state, &hash);
	if (entry == NULL)
		entry = in_trouble(state) ? NULL : table_insert(state, hash, no_sub, 0, room_for(state, value.size));
	else if ((entry->flags & ENTRY_REMOVED) != 0)
		entry_revive(state, entry);
	if (entry == NULL || !entry_store(state, entry, value, false))
		return STATE_TROUBLE;
	return STATE_OK;
}

enum state_result state_remove(struct state *state)
{
	uint32_t hash;

	if (in_trouble(state))
		return STATE_TROUBLE;
	sweep_step(state->store);
	struct entry *entry = value_find(state, &hash);
	if (entry == NULL || (entry->flags & ENTRY_REMOVED) != 0)
		return result_of(state, STATE_NONE);
	bool lived = entry_lives(state, entry);
	entry_remove(state, entry);
	return result_of(state, lived ? STATE_OK : STATE_NONE);
}

/* Makes or resizes the value; what is left when it is not simply there. */
static enum state_result edit_slow(struct state *state, struct entry *entry, uint32_t hash, size_t size, void **bytes,
				   bool *is_new)
{
	uint32_t time = time_size(state);

	if (too_large(state, 0, size))
		return STATE_TOO_LARGE;
	*is_new = entry == NULL || !entry_lives(state, entry);
	if (entry == NULL)
		entry = in_trouble(state) ? NULL : table_insert(state, hash, no_sub, 0, room_for(state, size));
	else if ((entry->flags & ENTRY_REMOVED) != 0)
		entry_revive(state, entry);
	uint8_t *value = entry == NULL ? NULL : entry_resize(state, entry, size + time, false);
	if (value == NULL)
		return STATE_TROUBLE;
	if (time > 0)
		memcpy(value, &state->store->now_ms, sizeof(state->store->now_ms));
	if (*is_new)
		memset(value + time, 0, size);
	*bytes = value + time;
	return result_of(state, STATE_OK);
}

enum state_result state_edit(struct state *state, size_t size, void **bytes, bool *is_new)
{
	uint32_t hash;

	if (in_trouble(state))
		return STATE_TROUBLE;
	sweep_step(state->store);
	struct entry *entry = value_find(state, &hash);
	if (entry == NULL || state->has_ttl || entry->value_size != size ||
	    (entry->flags & (ENTRY_REMOVED | ENTRY_EXTERN)) != 0)
		return edit_slow(state, entry, hash, size, bytes, is_new);
	entry_cover(state->store, entry);
	entry_set_dirty(state->store, entry);
	FAULT_POINT(value_edit);
	*bytes = (uint8_t *)entry + entry_value_offset(entry);
	*is_new = false;
	return result_of(state, STATE_OK);
}

/* ---- MAP --------------------------------------------------------------------------------------------------------------- */

/* The root of the current key's map, or NULL. */
static struct entry *root_find(const struct state *state, uint32_t *hash)
{
	*hash = hash_of(state, state->store->key_mix, no_sub, true);
	return table_find(state, *hash, no_sub, true);
}

/* A root's words; NULL: damaged, or there is none. */
static struct map_root *map_root_of(const struct state *state, struct entry *root)
{
	if (root == NULL)
		return NULL;
	if (root->value_size == sizeof(struct map_root) && (root->flags & ENTRY_EXTERN) == 0)
		return (struct map_root *)((uint8_t *)root + entry_value_offset(root));
	arena_set_broken(state->store->arena, "the root of a map is overwritten");
	return NULL;
}

/* Links of a map's entry: previous and next. NULL: damaged. */
static uint32_t *map_links(struct state *state, arena_ref ref, struct entry **entry)
{
	*entry = entry_at(state->store, ref);
	if (*entry == NULL)
		return NULL;
	if (((*entry)->flags & (ENTRY_PREFIX | ENTRY_ROOT)) == ENTRY_PREFIX && (*entry)->state == state->index)
		return entry_prefix(*entry);
	arena_set_broken(state->store->arena, "the order of a map leads to what is none of its entries");
	return NULL;
}

/* Points a neighbour elsewhere. */
static void map_relink(struct state *state, arena_ref ref, unsigned which, arena_ref to)
{
	struct entry *entry;
	uint32_t *links = map_links(state, ref, &entry);

	if (links != NULL)
		*(uint32_t *)arena_write(state->store->arena, &links[which], sizeof(*links)) = to;
}

/* Puts an entry at the end of the order. */
bool map_append(struct state *state, struct entry *entry)
{
	struct state_store *store = state->store;
	arena_ref ref = entry_ref(store, entry);
	uint32_t hash;
	struct entry *root_entry = root_find(state, &hash);

	if (root_entry == NULL && store->arena->trouble == ARENA_FINE) {
		root_entry = table_insert(state, hash, no_sub, ENTRY_ROOT, sizeof(struct map_root));
		if (root_entry == NULL || entry_resize(state, root_entry, sizeof(struct map_root), true) == NULL)
			return false;
	}
	struct map_root *root = map_root_of(state, root_entry);
	if (root == NULL)
		return false;
	FAULT_POINT(map_link);
	entry_cover(store, root_entry);
	entry_cover(store, entry);
	uint32_t *links = entry_prefix(entry);
	links[0] = root->last;
	links[1] = 0;
	if (root->last != 0)
		map_relink(state, root->last, 1, ref);
	else
		root->first = ref;
	root->last = ref;
	root->count++;
	return store->arena->trouble == ARENA_FINE;
}

/* Takes an entry out of the order. Its own links stay, for whoever stands there in an iteration. */
static void map_detach(struct state *state, struct entry *entry)
{
	struct state_store *store = state->store;
	struct view key = entry_key(entry);
	const uint32_t *links = entry_prefix(entry);
	/* the sweep comes here for keys that are not the current one */
	struct view current = store->key;
	uint64_t current_mix = store->key_mix;
	uint32_t hash;

	store->key = key;
	store->key_mix = mix_of(key);
	struct entry *root_entry = root_find(state, &hash);
	struct map_root *root = map_root_of(state, root_entry);
	store->key = current;
	store->key_mix = current_mix;
	if (root == NULL) {
		arena_set_broken(store->arena, "an entry of a map is there, but not the map");
		return;
	}
	entry_cover(store, root_entry);
	if (links[0] != 0)
		map_relink(state, links[0], 1, links[1]);
	else
		root->first = links[1];
	if (links[1] != 0)
		map_relink(state, links[1], 0, links[0]);
	else
		root->last = links[0];
	if (--root->count == 0)
		table_unlink(store, root_entry);
}

/* The entry of a user key. */
static struct entry *map_find(const struct state *state, struct view user_key, uint32_t *hash)
{
	*hash = hash_of(state, state->store->key_mix, user_key, false);
	return table_find(state, *hash, user_key, false);
}

enum state_result state_map_get(struct state *state, struct view user_key, struct view *value)
{
	uint32_t hash;

	*value = (struct view){0};
	if (in_trouble(state))
		return STATE_TROUBLE;
	struct entry *entry = map_find(state, user_key, &hash);
	if (entry == NULL || !entry_lives(state, entry))
		return result_of(state, STATE_NONE);
	*value = step_value(state, entry);
	return result_of(state, STATE_OK);
}

enum state_result state_map_put(struct state *state, struct view user_key, struct view value)
{
	uint32_t hash;

	if (in_trouble(state))
		return STATE_TROUBLE;
	if (too_large(state, user_key.size, value.size))
		return STATE_TOO_LARGE;
	sweep_step(state->store);
	struct entry *entry = map_find(state, user_key, &hash);
	bool joins = entry == NULL || (entry->flags & ENTRY_REMOVED) != 0;
	if (entry == NULL)
		entry = in_trouble(state)
			    ? NULL
			    : table_insert(state, hash, user_key, ENTRY_PREFIX, room_for(state, value.size));
	else if (joins)
		entry_revive(state, entry);
	if (entry == NULL || !entry_store(state, entry, value, false) || (joins && !map_append(state, entry)))
		return STATE_TROUBLE;
	return STATE_OK;
}

enum state_result state_map_remove(struct state *state, struct view user_key)
{
	uint32_t hash;

	if (in_trouble(state))
		return STATE_TROUBLE;
	sweep_step(state->store);
	struct entry *entry = map_find(state, user_key, &hash);
	if (entry == NULL || (entry->flags & ENTRY_REMOVED) != 0)
		return result_of(state, STATE_NONE);
	bool lived = entry_lives(state, entry);
	map_detach(state, entry);
	entry_remove(state, entry);
	return result_of(state, lived ? STATE_OK : STATE_NONE);
}

/* Removes entry after entry, so that a clear of what is too large for the log is trouble as anything else. */
enum state_result state_map_clear(struct state *state)
{
	uint32_t hash;
	enum state_result result = STATE_NONE;

	if (in_trouble(state))
		return STATE_TROUBLE;
	sweep_step(state->store);
	while (!in_trouble(state)) {
		const struct map_root *root = map_root_of(state, root_find(state, &hash));
		struct entry *entry;
		if (root == NULL || map_links(state, root->first, &entry) == NULL)
			break;
		if ((entry->flags & ENTRY_REMOVED) != 0) {
			arena_set_broken(state->store->arena, "a removed entry is in the order of a map");
			break;
		}
		map_detach(state, entry);
		entry_remove(state, entry);
		result = STATE_OK;
	}
	return result_of(state, result);
}

uint64_t state_map_count(struct state *state)
{
	uint32_t hash;

	if (in_trouble(state))
		return 0;
	const struct map_root *root = map_root_of(state, root_find(state, &hash));
	return root == NULL ? 0 : root->count;
}

/* `at` is the entry handed out last, `part` how many may come at most, by what there was in the beginning: entries go meanwhile. Removed
 * ones on the way are passed. */
enum state_result state_map_next(struct state *state, struct state_iterator *iterator, struct view *user_key,
				 struct view *value)
{
	struct entry *entry = NULL;
	uint32_t hash;
	arena_ref next = 0;

	if (in_trouble(state))
		return STATE_TROUBLE;
	if (iterator->at == 0) {
		const struct map_root *root = map_root_of(state, root_find(state, &hash));
		next = root == NULL ? 0 : root->first;
		iterator->part = state->store->words->entries;
	} else {
		const uint32_t *links = map_links(state, (arena_ref)iterator->at, &entry);
		next = links == NULL ? 0 : links[1];
	}
	for (; next != 0; iterator->part--) {
		const uint32_t *links = map_links(state, next, &entry);
		if (links == NULL)
			return STATE_TROUBLE;
		if (iterator->part == 0) {
			arena_set_broken(state->store->arena, "the order of a map goes in circles");
			return STATE_TROUBLE;
		}
		iterator->at = next;
		if (entry_lives(state, entry)) {
			iterator->part--;
			*user_key = entry_sub(entry);
			*value = step_value(state, entry);
			return result_of(state, STATE_OK);
		}
		next = links[1];
	}
	return result_of(state, STATE_NONE);
}

/* ---- Ahead ------------------------------------------------------------------------------------------------------------- */

/* Asks for the bucket of this key, and for the entry of one that was asked for some calls ago. */
void state_ahead(struct state *state, struct view key)
{
	bool root = state->spec.kind == STATE_LIST || state->spec.kind == STATE_MAP;

	state_ahead_hash(state->store, hash_of(state, mix_of(key), no_sub, root));
}

/* Asks for what the table has where an entry will be. */
struct state_hashes state_restore_ahead(struct state_store *store, uint32_t state, struct view key, struct view sub)
{
	if (state >= store->state_count || store->states[state]->spec.kind == STATE_LIST)
		return (struct state_hashes){0};
	uint64_t mix = mix_of(key);
	uint32_t hash = hash_of(store->states[state], mix, sub, false);
	state_ahead_hash(store, hash);
	return (struct state_hashes){.key_mix = mix, .hash = hash, .known = true};
}

/* ---- Looking ----------------------------------------------------------------------------------------------------------- */

struct state_size state_size_of(const struct state *state)
{
	const struct handle *handle = state->handle;

	return (struct state_size){
	    .entries = handle->entries,
	    .key_bytes = handle->key_bytes,
	    .value_bytes = handle->value_bytes,
	    .timers = handle->timers,
	    .largest_key = state->largest_key,
	    .largest_value = state->largest_value,
	};
}

uint64_t state_bytes(const struct state_store *store)
{
	return store->words->bytes;
}
