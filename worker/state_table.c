/*
 * The table of a session's entries, and the queue of those that are dirty.
 *
 * Linear hashing: the number of buckets grows by one when there are more than three entries for four of them, by splitting the
 * bucket whose turn it is. So there is never a second table, and no insertion costs more than a few moves. Buckets that
 * are not in use yet are nobody's memory, and a split writes the new one whole.
 *
 * A bucket is one word: the reference of its first entry and, in the bits that no reference in an arena of this size has, marks. Each entry sets
 * one of them by its hash, so whoever looks for a key that is not there seldom has to go to an entry: one miss of caches and page tables
 * less for almost every entry that is restored. Marks stay when an entry is taken out, until the bucket is empty or split. An arena of 64 GiB has no
 * bit to spare, and no marks.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "worker/memory.h"
#include "worker/state_parts.h"

enum {
	BUCKETS_FIRST = 16,
	SPLITS_PER_INSERT = 2,
	RESERVED_ENTRY = 64, /* bytes */
	SPLIT_FIRST = 12,    /* buckets between the one that is split and those whose entries are asked for */
	SPLIT_SECOND = 6,
	AHEAD_FIRST = STATE_AHEAD - STATE_AHEAD / 3, /* the hash that was put there so many calls ago */
	AHEAD_SECOND = STATE_AHEAD - STATE_AHEAD * 2 / 3,
};

/* ---- Blocks -------------------------------------------------------------------------------------------------------- */

/* The session's words, to be changed. */
struct state_words *words_write(struct state_store *store)
{
	arena_core_write(store->arena, store->channel);
	return store->words;
}

/* A handle's words, to be changed. */
struct handle *handle_write(struct state *state)
{
	arena_cover(state->store->arena, state->handle, sizeof(*state->handle), &state->handle->logged);
	return state->handle;
}

/* A block that counts as the state's. */
arena_ref block_alloc(struct state_store *store, size_t size)
{
	arena_ref block = arena_alloc(store->arena, store->channel, size);

	if (block != 0)
		store->words->bytes += arena_block_size(size); /* logged with the heads of the heap */
	return block;
}

void block_free(struct state_store *store, arena_ref block, size_t size)
{
	arena_free(store->arena, store->channel, block, size);
	words_write(store)->bytes -= arena_block_size(size);
}

/* Adds a chunk. References behind the last chunk are nobody's, so storing one needs no log. */
bool vector_grow(struct state_store *store, struct vector *vector, size_t chunk_bytes)
{
	uint32_t chunk = vector->chunks;
	arena_ref root = vector->root, fan, block;

	if (chunk == VECTOR_CHUNKS_MAX) {
		arena_set_broken(store->arena, "an array has grown beyond what fits into an arena");
		return false;
	}
	if (chunk == 0)
		root = block_alloc(store, VECTOR_FAN * sizeof(arena_ref));
	arena_ref *fans = root == 0 ? NULL : arena_find(store->arena, root, VECTOR_FAN * sizeof(arena_ref));
	if (fans == NULL)
		return false;
	fan = chunk % VECTOR_FAN == 0 ? block_alloc(store, VECTOR_FAN * sizeof(arena_ref)) : fans[chunk / VECTOR_FAN];
	arena_ref *blocks = fan == 0 ? NULL : arena_find(store->arena, fan, VECTOR_FAN * sizeof(arena_ref));
	block = blocks == NULL ? 0 : block_alloc(store, chunk_bytes);
	if (block == 0)
		return false;
	fans[chunk / VECTOR_FAN] = fan;
	blocks[chunk % VECTOR_FAN] = block;
	vector->root = root;
	vector->chunks = chunk + 1;
	return true;
}

/* ---- Entries ------------------------------------------------------------------------------------------------------- */

/* Where an entry's own value, or the reference to it, is. */
static inline uint8_t *entry_inside(struct entry *entry)
{
	return (uint8_t *)entry + entry_value_offset(entry);
}

/* The block that a value is in; NULL: damaged. */
static struct large *entry_large(struct state_store *store, const struct entry *entry)
{
	arena_ref ref = *(const arena_ref *)((const uint8_t *)entry + entry_value_offset(entry));
	struct large *large = arena_find(store->arena, ref, sizeof(*large) + (uint64_t)entry->value_size);

	if (large == NULL || (large->magic == LARGE_MAGIC && large->size == entry->value_size &&
			      large->size <= STATE_VALUE_MAX + sizeof(int64_t)))
		return large;
	arena_set_broken(store->arena, "a block that should be a large value of the state is none");
	return NULL;
}

/* The hash that the key came with: that of its bytes, as a rule. */
int32_t entry_key_hash(const struct entry *entry)
{
	int32_t hash;

	if ((entry->flags & ENTRY_ODD) == 0)
		return key_hash_of(entry_key(entry));
	memcpy(&hash, entry->bytes + entry->key_size + entry->sub_size, sizeof(hash));
	return hash;
}

/* The value as it travels. */
struct view entry_value(struct state_store *store, const struct entry *entry)
{
	if ((entry->flags & ENTRY_EXTERN) == 0)
		return (struct view){(const uint8_t *)entry + entry_value_offset(entry), entry->value_size};
	const struct large *large = entry_large(store, entry);
	if (large == NULL)
		return (struct view){0};
	return (struct view){(const uint8_t *)(large + 1), entry->value_size};
}

/* Whether a live entry counts. */
bool entry_lives(const struct state *state, const struct entry *entry)
{
	if ((entry->flags & ENTRY_REMOVED) != 0)
		return false;
	if (!state->has_ttl)
		return true;
	struct view value = entry_value(state->store, entry);
	int64_t written;
	if (value.size < sizeof(written))
		return true;
	memcpy(&written, value.data, sizeof(written));
	int64_t now = state->store->now_ms;
	return now <= written || (uint64_t)now - (uint64_t)written < (uint64_t)state->spec.ttl_ms;
}

/* Logs an entry of which a record covers the head alone: what else has to be saved goes before it. */
void entry_cover_parts(struct state_store *store, struct entry *entry)
{
	struct arena *arena = store->arena;
	uint64_t offset = arena_offset(arena, entry);
	uint32_t from = entry_prefix_offset(entry);
	uint32_t to = (entry->flags & ENTRY_APPENDS) != 0 ? entry_value_offset(entry) : heap_class_bytes[entry->block];

	if (is_covered(arena, entry))
		return;
	if (to > from)
		arena_log(arena, offset + from, to - from);
	entry->logged = arena_log(arena, offset, sizeof(*entry));
}

/* Makes room for a value outside; the old block is the caller's to free. */
static struct large *large_create(struct state_store *store, size_t size, arena_ref *ref)
{
	*ref = block_alloc(store, sizeof(struct large) + size);
	if (*ref == 0)
		return NULL;
	struct large *large = arena_at(store->arena, *ref);
	*large = (struct large){.magic = LARGE_MAGIC, .size = size, .logged = arena_log_fresh(store->arena, large)};
	return large;
}

/* Frees a value outside, if there is one. */
static void large_free(struct state_store *store, struct entry *entry)
{
	if ((entry->flags & ENTRY_EXTERN) == 0)
		return;
	arena_ref ref = *(arena_ref *)entry_inside(entry);
	if (entry_large(store, entry) != NULL)
		block_free(store, ref, sizeof(struct large) + entry->value_size);
}

/* Whether a value of `size` bytes stands in the entry. */
static bool fits_inside(const struct entry *entry, size_t size)
{
	return size <= entry_room(entry) && (size <= INLINE_MAX || (entry->flags & ENTRY_APPENDS) != 0);
}

/* Counts that a live entry's value has another size. */
static void count_resized(struct state *state, struct entry *entry, size_t size)
{
	if (size == entry->value_size)
		return;
	if ((entry->flags & ENTRY_ROOT) == 0)
		handle_write(state)->value_bytes += size - entry->value_size;
	if ((entry->flags & ENTRY_DIRTY) != 0)
		words_write(state->store)->dirty_bytes += size - entry->value_size;
	entry->value_size = (uint32_t)size;
}

/* Puts `ref` in place of the value that is there, which is freed. */
static void value_replace(struct state *state, struct entry *entry, arena_ref ref, size_t size)
{
	FAULT_POINT(value_replace);
	large_free(state->store, entry);
	*(arena_ref *)entry_inside(entry) = ref;
	entry->flags |= ENTRY_EXTERN;
	count_resized(state, entry, size);
}

/* Copies what there is of a value, and zeros behind it. */
static void copy_resized(uint8_t *to, size_t size, struct view from)
{
	size_t kept = from.size < size ? from.size : size;

	if (kept > 0)
		memmove(to, from.data, kept);
	memset(to + kept, 0, size - kept);
}

/* Gives a value another size, its bytes kept. */
uint8_t *entry_resize(struct state *state, struct entry *entry, size_t size, bool clean)
{
	struct state_store *store = state->store;
	struct view old = entry_value(store, entry);
	arena_ref ref;

	entry_cover(store, entry);
	if (!clean)
		entry_set_dirty(store, entry);
	if (fits_inside(entry, size)) {
		if ((entry->flags & ENTRY_EXTERN) != 0) {
			large_free(store, entry); /* its bytes stay until the unit is over */
			entry->flags &= (uint8_t)~ENTRY_EXTERN;
		}
		copy_resized(entry_inside(entry), size, old);
		count_resized(state, entry, size);
		return entry_inside(entry);
	}
	if ((entry->flags & ENTRY_EXTERN) != 0 && size == old.size && store->arena->trouble == ARENA_FINE) {
		struct large *large = entry_large(store, entry);
		if (large != NULL &&
		    arena_is_covered(store->arena, large->logged, arena_offset(store->arena, large), 0))
			return (uint8_t *)(large + 1);
	}
	struct large *large = large_create(store, size, &ref);
	if (large == NULL)
		return NULL;
	copy_resized((uint8_t *)(large + 1), size, old);
	value_replace(state, entry, ref, size);
	return (uint8_t *)(large + 1);
}

/* Writes the time, where there is one, and the step's bytes. */
static void value_write(const struct state *state, uint8_t *to, struct view value)
{
	if (value.size > 0)
		memmove(to + time_size(state), value.data, value.size);
	if (state->has_ttl)
		memcpy(to, &state->store->now_ms, sizeof(state->store->now_ms));
}

/* Sets a value. It may be one that was handed out, even this one: a value is copied before its place is used otherwise. */
bool entry_store(struct state *state, struct entry *entry, struct view value, bool clean)
{
	struct state_store *store = state->store;
	size_t size = value.size + time_size(state);
	arena_ref ref;

	entry_cover(store, entry);
	if (!clean)
		entry_set_dirty(store, entry);
	if (fits_inside(entry, size)) {
		if ((entry->flags & ENTRY_EXTERN) != 0) {
			large_free(store, entry);
			entry->flags &= (uint8_t)~ENTRY_EXTERN;
		}
		value_write(state, entry_inside(entry), value);
		count_resized(state, entry, size);
		return store->arena->trouble == ARENA_FINE;
	}
	struct large *large = large_create(store, size, &ref);
	if (large == NULL)
		return false;
	value_write(state, (uint8_t *)(large + 1), value);
	value_replace(state, entry, ref, size);
	return store->arena->trouble == ARENA_FINE;
}

/* ---- Table --------------------------------------------------------------------------------------------------------- */

uint32_t hash_of(const struct state *state, uint64_t key_mix, struct view sub, bool root)
{
	uint64_t hash = key_mix ^ state->salt;

	if (sub.size > 0)
		hash ^= XXH3_64bits(sub.data, sub.size) * UINT64_C(0xc2b2ae3d27d4eb4f);
	if (root)
		hash += UINT64_C(0x165667b19e3779f9);
	return (uint32_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* The bucket of a hash among so many: those behind the last full doubling are not split yet. */
static inline uint32_t bucket_of(uint32_t hash, uint32_t count)
{
	uint32_t mask = UINT32_MAX >> __builtin_clz((count - 1) | 1);
	uint32_t bucket = hash & mask;

	return bucket < count ? bucket : bucket & (mask >> 1);
}

/* Says where in a bucket the marks are. */
void table_marks_init(struct state_store *store)
{
	uint32_t last = (uint32_t)((store->arena->size - 1) / ARENA_UNIT);

	store->mark_first = 32 - (uint32_t)__builtin_clz(last | 1);
	store->mark_count = 32 - store->mark_first;
	store->ref_mask = UINT32_MAX >> store->mark_count;
}

/* The mark of a hash; 0 where there are none. By its upper bits: the entries of a bucket have the lower ones in common. */
static inline uint32_t mark_of(const struct state_store *store, uint32_t hash)
{
	return (uint32_t)(UINT64_C(1) << (store->mark_first + ((hash >> 16) * store->mark_count >> 16)));
}

/* The first entry of a bucket. */
static inline arena_ref bucket_first(const struct state_store *store, uint32_t bucket)
{
	return bucket & store->ref_mask;
}

/* Whether an entry with this mark may be in a bucket. */
static inline bool bucket_may_have(uint32_t bucket, uint32_t mark)
{
	return (bucket & mark) == mark;
}

/* Notes where a chunk of buckets is, and all before it. False: damaged. */
static bool chunks_note(struct state_store *store, uint32_t chunk)
{
	if (store->chunks_seen != store->arena->undone)
		store->chunk_count = 0;
	store->chunks_seen = store->arena->undone;
	while (store->chunk_count <= chunk) {
		uint8_t *at = vector_at(store, &store->words->buckets, store->chunk_count * BUCKETS_PER_CHUNK,
					BUCKETS_PER_CHUNK, sizeof(arena_ref));
		if (at == NULL)
			return false;
		if (store->chunk_count == store->chunks_room) {
			store->chunks_room = store->chunks_room == 0 ? 64 : 2 * store->chunks_room;
			store->chunks = realloc(store->chunks, store->chunks_room * sizeof(arena_ref));
			if (store->chunks == NULL)
				memory_leave("what a worker knows of state");
		}
		store->chunks[store->chunk_count++] = (arena_ref)(arena_offset(store->arena, at) / ARENA_UNIT);
	}
	return true;
}

/* The word of a bucket; NULL: damaged, or there is none yet. */
static inline uint32_t *bucket_at(struct state_store *store, uint32_t bucket)
{
	uint32_t chunk = bucket / BUCKETS_PER_CHUNK;

	if (__builtin_expect(chunk >= store->chunk_count || store->chunks_seen != store->arena->undone, 0) &&
	    !chunks_note(store, chunk))
		return NULL;
	return (uint32_t *)arena_at(store->arena, store->chunks[chunk]) + bucket % BUCKETS_PER_CHUNK;
}

/* Runs of bytes that are short as a rule. */
static inline bool bytes_equal(const uint8_t *a, const uint8_t *b, size_t size)
{
	uint64_t x, y;

	if (size != 8)
		return memcmp(a, b, size) == 0;
	memcpy(&x, a, 8);
	memcpy(&y, b, 8);
	return x == y;
}

/* Which bits of what an entry says of itself matter to whoever looks for it; one byte of a sub; a root. */
static const struct entry what_matters = {
    .state = UINT16_MAX, .sub_size = UINT16_MAX, .flags = ENTRY_ROOT, .magic = UINT8_MAX};
static const struct entry what_byte = {.sub_size = 1}, what_root = {.flags = ENTRY_ROOT};

void table_what_init(struct state *state)
{
	const struct entry wanted = {.state = state->index, .magic = ENTRY_MAGIC};
	state->what_value = entry_what(&wanted);
}

/* What an entry of a state says of itself. By sums: written field by field, it could not be read at once without a wait. */
static inline uint64_t what_of(const struct state *state, size_t sub_size, bool root)
{
	return state->what_value + (uint16_t)sub_size * entry_what(&what_byte) + (root ? entry_what(&what_root) : 0);
}

/* Whether an entry with the right hash is the one of the current key and a sub. */
static inline bool entry_is(const struct state *state, const struct entry *entry, uint64_t what, struct view sub)
{
	struct view key = state->store->key;

	return (entry_what(entry) & entry_what(&what_matters)) == what && entry->key_size == key.size &&
	       entry_is_sound(state->store->arena, entry) && bytes_equal(entry->bytes, key.data, key.size) &&
	       (sub.size == 0 || memcmp(entry->bytes + key.size, sub.data, sub.size) == 0);
}

/* Finds an entry. A chain that is longer than there are entries is damage. Compiled twice, once for values: nothing is done more often. */
static inline __attribute__((always_inline)) struct entry *find(const struct state *state, uint32_t hash, uint64_t what,
								struct view sub)
{
	struct state_store *store = state->store;
	struct arena *arena = store->arena;
	uint32_t count = store->words->bucket_count;

	if (count == 0)
		return NULL;
	const uint32_t *bucket = bucket_at(store, bucket_of(hash, count));
	if (bucket == NULL || !bucket_may_have(*bucket, mark_of(store, hash)))
		return NULL;
	arena_ref ref = bucket_first(store, *bucket);
	if (arena_can_be(arena, ref, sizeof(struct entry))) {
		/* Every third time or so it is the second: no branch for that, either. */
		const struct entry *first = arena_at(arena, ref);
		uint32_t others = first->hash != hash;
		ref ^= (ref ^ first->next) & (0 - others);
	}
	for (uint64_t left = store->words->entries; ref != 0; left--) {
		struct entry *entry = arena_at(arena, ref);
		if (__builtin_expect(!arena_can_be(arena, ref, sizeof(*entry)) || left == 0, 0)) {
			arena_set_broken(arena, "a bucket of the state leads astray");
			return NULL;
		}
		if (entry->hash == hash && entry_is(state, entry, what, sub))
			return entry;
		ref = entry->next;
	}
	return NULL;
}

struct entry *table_find(const struct state *state, uint32_t hash, struct view sub, bool root)
{
	return find(state, hash, what_of(state, sub.size, root), sub);
}

struct entry *table_find_value(const struct state *state, uint32_t hash)
{
	return find(state, hash, state->what_value, (struct view){0});
}

/* An entry to look at before it is known whether there is one: without a branch, since nobody could guess it. What is no reference leads to
 * the arena's head. */
static inline const struct entry *entry_maybe(const struct arena *arena, arena_ref ref)
{
	uint64_t offset = (uint64_t)ref * ARENA_UNIT;

	return (const struct entry *)(arena->base + (offset + sizeof(struct entry) <= arena->size ? offset : 0));
}

/* Asks the caches for what three keys will need: the bucket of this one; the first entry in the bucket of one that was asked for some
 * calls ago, where it may be; and the second entry for one before that, where the first is another's. */
void state_ahead_hash(struct state_store *store, uint32_t hash)
{
	struct arena *arena = store->arena;
	uint32_t count = store->words->bucket_count, at = store->ahead_at++;
	struct ahead *own = &store->ahead[at % STATE_AHEAD];
	struct ahead *then = &store->ahead[(at + AHEAD_FIRST) % STATE_AHEAD];

	*own = (struct ahead){.hash = hash};
	if (count == 0 || arena->trouble != ARENA_FINE)
		return;
	own->bucket = bucket_at(store, bucket_of(hash, count));
	__builtin_prefetch(own->bucket);
	if (then->bucket != NULL) {
		uint32_t bucket = *then->bucket, may_have = bucket_may_have(bucket, mark_of(store, then->hash));
		then->first = entry_maybe(arena, bucket_first(store, bucket) & (0 - may_have));
		__builtin_prefetch(then->first, 1);
	}
	then = &store->ahead[(at + AHEAD_SECOND) % STATE_AHEAD];
	if (then->first != NULL) {
		uint32_t others = then->first->hash != then->hash;
		__builtin_prefetch(entry_maybe(arena, then->first->next & (0 - others)), 1);
	}
}

/* Asks the caches for what splits of the next buckets will need: they come in order, but their entries lie anywhere. */
static inline void split_ahead(struct state_store *store, uint32_t bucket, uint32_t half)
{
	if (bucket + SPLIT_SECOND >= half || bucket + SPLIT_FIRST >= half)
		return;
	const uint32_t *far = bucket_at(store, bucket + SPLIT_FIRST), *near = bucket_at(store, bucket + SPLIT_SECOND);
	if (far != NULL && arena_can_be(store->arena, bucket_first(store, *far), sizeof(struct entry)))
		__builtin_prefetch(arena_at(store->arena, bucket_first(store, *far)), 1);
	if (near == NULL || !arena_can_be(store->arena, bucket_first(store, *near), sizeof(struct entry)))
		return;
	const struct entry *entry = arena_at(store->arena, bucket_first(store, *near));
	if (arena_can_be(store->arena, entry->next, sizeof(struct entry)))
		__builtin_prefetch(arena_at(store->arena, entry->next), 1);
}

/* Splits the bucket whose turn it is: what has the bit that the new number of buckets adds goes to the new one. */
static bool table_split(struct state_store *store)
{
	uint32_t count = store->words->bucket_count;
	uint32_t half = UINT32_C(1) << (31 - __builtin_clz(count)); /* the last full doubling */

	if (count == store->words->buckets.chunks * BUCKETS_PER_CHUNK &&
	    !vector_grow(store, &words_write(store)->buckets, BUCKETS_PER_CHUNK * sizeof(arena_ref)))
		return false;
	uint32_t *from = bucket_at(store, count - half), *to = bucket_at(store, count);
	if (from == NULL || to == NULL)
		return false;
	split_ahead(store, count - half, half);
	arena_ref kept = bucket_first(store, *from), moved = 0, *link = &kept;
	uint32_t kept_marks = 0, moved_marks = 0;
	for (uint64_t left = store->words->entries + 1; *link != 0; left--) {
		struct entry *entry = entry_at(store, *link);
		if (entry == NULL || left == 0)
			return false;
		if ((entry->hash & half) == 0) {
			kept_marks |= mark_of(store, entry->hash);
			link = &entry->next;
			continue;
		}
		arena_ref ref = *link;
		moved_marks |= mark_of(store, entry->hash);
		if (link != &kept)
			arena_write(store->arena, link, sizeof(*link));
		*link = entry->next;
		*(arena_ref *)arena_write(store->arena, &entry->next, sizeof(entry->next)) = moved;
		moved = ref;
	}
	if (*from != (kept | kept_marks))
		*(uint32_t *)arena_write(store->arena, from, sizeof(*from)) = kept | kept_marks;
	*to = moved | moved_marks;
	FAULT_POINT(table_split);
	words_write(store)->bucket_count = count + 1;
	return true;
}

/* Makes the first buckets. */
static bool table_begin(struct state_store *store)
{
	if (!vector_grow(store, &words_write(store)->buckets, BUCKETS_PER_CHUNK * sizeof(arena_ref)))
		return false;
	uint32_t *buckets = bucket_at(store, 0);
	if (buckets == NULL)
		return false;
	memset(buckets, 0, BUCKETS_FIRST * sizeof(*buckets));
	store->words->bucket_count = BUCKETS_FIRST;
	return true;
}

/* Has the buckets that are reserved stand in huge pages, as far as they fill some: entries go to buckets anywhere, and half of what it
 * takes to find one is finding its page. */
static void reserve_huge(struct state_store *store, uint32_t bucket, uint64_t wanted)
{
	if (bucket % BUCKETS_PER_CHUNK == 0 && (wanted - bucket) * sizeof(arena_ref) >= SLOT_HUGE_PAGE)
		arena_make_huge(store->arena, bucket_at(store, bucket));
}

/* Adds buckets to a table without entries, so many at most and no more than one chunk holds: how many. 0: trouble. */
static uint32_t table_extend(struct state_store *store, uint32_t most, uint64_t wanted)
{
	uint32_t count = store->words->bucket_count, more = BUCKETS_PER_CHUNK - count % BUCKETS_PER_CHUNK;

	more = more < most ? more : most;
	if (count == store->words->buckets.chunks * BUCKETS_PER_CHUNK &&
	    !vector_grow(store, &words_write(store)->buckets, BUCKETS_PER_CHUNK * sizeof(arena_ref)))
		return 0;
	uint32_t *buckets = bucket_at(store, count);
	if (buckets == NULL)
		return 0;
	*buckets = 0;
	reserve_huge(store, count, wanted);
	memset(buckets, 0, more * sizeof(*buckets));
	FAULT_POINT(table_split);
	words_write(store)->bucket_count = count + more;
	return more;
}

/* Grows the table before what it is for has come. */
bool state_reserve(struct state_store *store, uint64_t entries, uint32_t steps)
{
	/* Not for more than there is memory for, whatever somebody says: entries are larger than this. */
	const struct arena_usage usage = arena_usage(store->arena);
	uint64_t most = (usage.limit - usage.extents) / RESERVED_ENTRY;
	uint64_t wanted = ((entries < most ? entries : most) * 4 + 2) / 3;

	if (store->words->bucket_count == 0 && !table_begin(store))
		return false;
	while (steps > 0 && store->words->bucket_count < wanted) {
		uint64_t left = wanted - store->words->bucket_count;
		uint32_t more = left < steps ? (uint32_t)left : steps;
		if (store->words->entries > 0)
			more = table_split(store);
		else
			more = table_extend(store, more, wanted);
		if (more == 0)
			return false;
		steps -= more;
	}
	return steps == 0;
}

/* Counts an entry as live. */
static void count_live(struct state *state, const struct entry *entry, bool lives)
{
	if ((entry->flags & ENTRY_ROOT) != 0)
		return;
	struct handle *handle = handle_write(state);
	handle->entries += lives ? 1 : UINT64_MAX;
	handle->key_bytes +=
	    lives ? (uint64_t)entry->key_size + entry->sub_size : 0 - ((uint64_t)entry->key_size + entry->sub_size);
	if (!lives)
		handle->value_bytes -= entry->value_size;
}

/* Makes a new block an entry of the current key. Its head is written where it is, never copied: a copy would read what has just been written in
 * smaller pieces, and a processor does that only when all stores before are done, entries' first touch of their memory among them. */
static struct entry *entry_create(struct state *state, uint32_t hash, struct view sub, uint8_t flags, size_t room)
{
	struct state_store *store = state->store;
	uint32_t key_size = (uint32_t)store->key.size & 0xffffff;

	if (store->key_hash != (int32_t)(uint32_t)store->key_mix)
		flags |= ENTRY_ODD;
	size_t size =
	    value_offset(key_size + (uint32_t)sub.size, flags) + (room < sizeof(arena_ref) ? sizeof(arena_ref) : room);
	arena_ref ref = block_alloc(store, size);
	if (ref == 0)
		return NULL;
	struct entry *entry = arena_at(store->arena, ref);
	*entry = (struct entry){
	    .logged = arena_log_fresh(store->arena, entry),
	    .hash = hash,
	    .state = state->index,
	    .key_group = (uint16_t)store->key_group,
	    .sub_size = (uint16_t)sub.size,
	    .flags = flags,
	    .magic = ENTRY_MAGIC,
	    .key_size = key_size,
	    .block = heap_class_of(size) & 0xff,
	};
	memcpy(entry->bytes, store->key.data, store->key.size);
	if (sub.size > 0)
		memcpy(entry->bytes + store->key.size, sub.data, sub.size);
	if ((flags & ENTRY_ODD) != 0)
		memcpy(entry->bytes + store->key.size + sub.size, &store->key_hash, sizeof(store->key_hash));
	return entry;
}

/* Makes an entry. */
struct entry *table_insert(struct state *state, uint32_t hash, struct view sub, uint8_t flags, size_t room)
{
	struct state_store *store = state->store;

	if (store->words->bucket_count == 0 && !table_begin(store))
		return NULL;
	struct entry *entry = entry_create(state, hash, sub, flags, room);
	uint32_t *bucket = entry == NULL ? NULL : bucket_at(store, bucket_of(hash, store->words->bucket_count));
	if (bucket == NULL)
		return NULL;
	entry->next = bucket_first(store, *bucket);
	uint32_t marks = (*bucket ^ entry->next) | mark_of(store, hash);
	*(uint32_t *)arena_write(store->arena, bucket, sizeof(*bucket)) = entry_ref(store, entry) | marks;
	FAULT_POINT(table_insert);
	struct state_words *words = store->words; /* logged: the entry's block came from the heap */
	words->entries++;
	count_live(state, entry, true);
	for (int i = 0; i < SPLITS_PER_INSERT && words->entries * 4 > (uint64_t)words->bucket_count * 3; i++) {
		if (!table_split(store))
			return NULL;
	}
	return store->arena->trouble == ARENA_FINE ? entry : NULL;
}

/* Takes an entry out. */
void table_unlink(struct state_store *store, struct entry *entry)
{
	arena_ref ref = entry_ref(store, entry);
	uint32_t *link = store->words->bucket_count == 0
			     ? NULL
			     : bucket_at(store, bucket_of(entry->hash, store->words->bucket_count));
	uint32_t marks = link == NULL ? 0 : *link & ~store->ref_mask; /* of the word that leads to the entry */

	for (uint64_t left = store->words->entries; link != NULL && (*link ^ marks) != ref; left--, marks = 0) {
		arena_ref at = *link ^ marks;
		struct entry *other = at == 0 || left == 0 ? NULL : entry_at(store, at);
		link = other == NULL ? NULL : &other->next;
	}
	if (link == NULL) {
		arena_set_broken(store->arena, "an entry of the state is not in its bucket");
		return;
	}
	*(uint32_t *)arena_write(store->arena, link, sizeof(*link)) = entry->next == 0 ? 0 : entry->next | marks;
	FAULT_POINT(table_unlink);
	words_write(store)->entries--;
	large_free(store, entry);
	block_free(store, ref, heap_class_bytes[entry->block]);
}

/* Visits a bucket. */
struct entry *bucket_next(struct state_store *store, uint32_t bucket, const struct entry *entry)
{
	const uint32_t *at = entry == NULL ? bucket_at(store, bucket) : NULL;
	arena_ref next = entry != NULL ? entry->next : at == NULL ? 0 : bucket_first(store, *at);

	return next == 0 ? NULL : entry_at(store, next);
}

/* ---- Dirty and removed ------------------------------------------------------------------------------------------------ */

/* Puts an entry at the end of the queue. */
void dirty_append(struct state_store *store, struct entry *entry)
{
	struct state_words *words = words_write(store);
	struct entry *last = words->dirty_last == 0 ? NULL : entry_at(store, words->dirty_last);
	arena_ref ref = entry_ref(store, entry);
	entry->flags |= ENTRY_DIRTY;
	entry->dirty = 0;
	FAULT_POINT(dirty_append);
	if (last != NULL && !is_covered(store->arena, last))
		arena_write(store->arena, &last->dirty, sizeof(last->dirty));
	if (last != NULL)
		last->dirty = ref;
	else
		words->dirty_first = ref;
	words->dirty_last = ref;
	words->dirty_entries++;
	words->dirty_bytes += entry_bytes(entry);
}

/* Takes the first entry off the queue. */
static struct entry *dirty_take(struct state_store *store)
{
	struct state_words *words = words_write(store);
	struct entry *entry = words->dirty_first == 0 ? NULL : entry_at(store, words->dirty_first);

	if (entry == NULL)
		return NULL;
	if ((entry->flags & ENTRY_DIRTY) == 0 || words->dirty_entries == 0) {
		arena_set_broken(store->arena, "an entry that is not dirty is in the queue of those that are");
		return NULL;
	}
	words->dirty_first = entry->dirty;
	words->dirty_last = entry->dirty == 0 ? 0 : words->dirty_last;
	words->dirty_entries--;
	words->dirty_bytes -= entry_bytes(entry);
	FAULT_POINT(delta_take);
	return entry;
}

/* Takes the first entry off: it is clean, or gone. */
void state_delta_advance(struct state_store *store)
{
	struct entry *entry = dirty_take(store);

	if (entry == NULL)
		return;
	if ((entry->flags & ENTRY_REMOVED) != 0) {
		table_unlink(store, entry);
		return;
	}
	if (!is_covered(store->arena, entry))
		arena_write(store->arena, &entry->flags, sizeof(entry->flags));
	entry->flags = (uint8_t)((entry->flags & ~ENTRY_DIRTY) | ENTRY_SENT);
}

/* Drops what is first in the queue and that nobody has to hear of. */
bool dirty_purge(struct state_store *store, uint32_t limit)
{
	while (store->words->dirty_first != 0 && store->arena->trouble == ARENA_FINE) {
		struct entry *entry = entry_at(store, store->words->dirty_first);
		if (entry == NULL || (entry->flags & (ENTRY_REMOVED | ENTRY_SENT)) != ENTRY_REMOVED)
			return true;
		if (limit-- == 0)
			return false;
		if (dirty_take(store) != NULL)
			table_unlink(store, entry);
	}
	return true;
}

/* Removes a live entry. A piece's bytes are saved: whoever revives it writes over them, and a rollback needs them. */
void entry_remove(struct state *state, struct entry *entry)
{
	struct state_store *store = state->store;
	uint64_t offset = arena_offset(store->arena, entry);

	size_t inside = (entry->flags & ENTRY_EXTERN) != 0 ? sizeof(arena_ref) : entry->value_size;

	if ((entry->flags & ENTRY_APPENDS) != 0 && inside > 0 &&
	    !arena_is_covered(store->arena, entry->logged, offset, 0))
		arena_log(store->arena, offset + entry_value_offset(entry), inside);
	entry_cover(store, entry);
	entry_set_dirty(store, entry);
	count_live(state, entry, false);
	words_write(store)->dirty_bytes -= entry->value_size;
	large_free(store, entry);
	entry->value_size = 0;
	entry->flags = (uint8_t)((entry->flags & ~ENTRY_EXTERN) | ENTRY_REMOVED);
	dirty_purge(store, 2);
}

/* Takes a removal back; the entry is in the queue. */
void entry_revive(struct state *state, struct entry *entry)
{
	entry_cover(state->store, entry);
	entry->flags &= (uint8_t)~ENTRY_REMOVED;
	count_live(state, entry, true);
}
