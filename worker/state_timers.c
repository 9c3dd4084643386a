/*
 * TIMERS: an entry per timer in the table, so that setting one twice is seen and a snapshot has it; and per handle and domain a
 * heap of four children a node, ordered by time, then key, then tag. An entry's prefix is its place in the heap.
 *
 *   sub of a timer:   | domain, 1 byte | time, 8 bytes big-endian, sign bit turned so that they sort | tag |
 */
#include "shared/log.h"
#include "worker/state_parts.h"

enum { SUB_HEAD = 9, SUB_MAX = SUB_HEAD + STATE_TAG_MAX, CHILDREN = 4 };

/* A sub, as it is put together. */
struct timer_sub {
	uint8_t bytes[SUB_MAX];
};

/* ---- Subs ------------------------------------------------------------------------------------------------------------ */

static struct view sub_write(struct timer_sub *sub, enum state_time domain, int64_t time_ms, struct view tag)
{
	uint64_t time = (uint64_t)time_ms ^ UINT64_C(1) << 63;

	sub->bytes[0] = (uint8_t)domain;
	for (int i = 0; i < 8; i++)
		sub->bytes[1 + i] = (uint8_t)(time >> (56 - 8 * i));
	if (tag.size > 0)
		memcpy(sub->bytes + SUB_HEAD, tag.data, tag.size);
	return (struct view){sub->bytes, SUB_HEAD + tag.size};
}

bool timer_sub_can_be(struct view sub)
{
	return sub.size >= SUB_HEAD && sub.size <= SUB_MAX && sub.data[0] < STATE_TIMES;
}

static int64_t sub_time(struct view sub)
{
	uint64_t time = 0;

	for (int i = 0; i < 8; i++)
		time = time << 8 | sub.data[1 + i];
	return (int64_t)(time ^ UINT64_C(1) << 63);
}

static struct view sub_tag(struct view sub)
{
	return (struct view){sub.data + SUB_HEAD, sub.size - SUB_HEAD};
}

/* ---- The heap -------------------------------------------------------------------------------------------------------- */

/* The heap that a timer's entry is or belongs in; its words are good to read. */
static struct timer_heap *heap_of(const struct state *state, const struct entry *entry)
{
	return &state->handle->heaps[entry_sub(entry).data[0]];
}

/* The entry that a node leads to; NULL: damaged. */
static struct entry *node_entry(const struct state *state, const struct timer_node *node)
{
	struct entry *entry = entry_at(state->store, node->entry);

	if (entry == NULL ||
	    (entry->state == state->index && (entry->flags & ENTRY_PREFIX) != 0 && timer_sub_can_be(entry_sub(entry))))
		return entry;
	arena_set_broken(state->store->arena, "the order of timers leads to what is none");
	return NULL;
}

static struct timer_node *node_at(const struct state *state, const struct timer_heap *heap, uint32_t index)
{
	return vector_at(state->store, &heap->nodes, index, NODES_PER_CHUNK, sizeof(struct timer_node));
}

/* Whether one timer comes before another. */
static bool node_before(const struct state *state, const struct timer_node *a, const struct timer_node *b)
{
	if (a->time_ms != b->time_ms)
		return a->time_ms < b->time_ms;
	const struct entry *x = node_entry(state, a), *y = node_entry(state, b);
	if (x == NULL || y == NULL)
		return false;
	int order = view_compare(entry_key(x), entry_key(y));
	return (order != 0 ? order : view_compare(entry_sub(x), entry_sub(y))) < 0;
}

/* Puts a node into a place, and tells its entry. */
static bool node_put(const struct state *state, const struct timer_heap *heap, uint32_t index, struct timer_node node)
{
	struct arena *arena = state->store->arena;
	struct timer_node *at = node_at(state, heap, index);
	struct entry *entry = at == NULL ? NULL : node_entry(state, &node);

	if (entry == NULL)
		return false;
	*(struct timer_node *)arena_write(arena, at, sizeof(*at)) = node;
	uint32_t *place = entry_prefix(entry);
	*(uint32_t *)arena_write(arena, place, sizeof(*place)) = index;
	return arena->trouble == ARENA_FINE;
}

/* Lets a node rise from the hole at `index` to where it belongs. */
static bool sift_up(const struct state *state, const struct timer_heap *heap, uint32_t index, struct timer_node node)
{
	while (index > 0) {
		uint32_t parent = (index - 1) / CHILDREN;
		const struct timer_node *other = node_at(state, heap, parent);
		if (other == NULL)
			return false;
		if (!node_before(state, &node, other))
			break;
		if (!node_put(state, heap, index, *other))
			return false;
		index = parent;
	}
	return node_put(state, heap, index, node);
}

/* The first of a node's children; `best` is NULL when there are none. False: damaged. */
static bool first_child(const struct state *state, const struct timer_heap *heap, uint32_t index,
			const struct timer_node **best, uint32_t *best_index)
{
	uint64_t from = (uint64_t)index * CHILDREN + 1;

	*best = NULL;
	for (uint64_t i = from; i < from + CHILDREN && i < heap->count; i++) {
		const struct timer_node *child = node_at(state, heap, (uint32_t)i);
		if (child == NULL)
			return false;
		if (*best == NULL || node_before(state, child, *best)) {
			*best = child;
			*best_index = (uint32_t)i;
		}
	}
	return true;
}

/* Lets a node sink from the hole at `index` to where it belongs. */
static bool sift_down(const struct state *state, const struct timer_heap *heap, uint32_t index, struct timer_node node)
{
	const struct timer_node *child;
	uint32_t child_index = 0;

	for (;;) {
		if (!first_child(state, heap, index, &child, &child_index))
			return false;
		if (child == NULL || !node_before(state, child, &node))
			return node_put(state, heap, index, node);
		if (!node_put(state, heap, index, *child))
			return false;
		index = child_index;
	}
}

/* Takes a timer's entry into the order. */
bool timer_push(struct state *state, struct entry *entry)
{
	struct handle *handle = handle_write(state);
	struct timer_heap *heap = heap_of(state, entry);
	struct timer_node node = {.time_ms = sub_time(entry_sub(entry)), .entry = entry_ref(state->store, entry)};

	FAULT_POINT(timer_push);
	if (heap->count / NODES_PER_CHUNK >= heap->nodes.chunks &&
	    !vector_grow(state->store, &heap->nodes, NODES_PER_CHUNK * sizeof(node)))
		return false;
	handle->timers++;
	heap->count++;
	return sift_up(state, heap, heap->count - 1, node);
}

/* Takes it out: the last node fills the hole. */
void timer_take_out(struct state *state, struct entry *entry)
{
	struct handle *handle = handle_write(state);
	struct timer_heap *heap = heap_of(state, entry);
	uint32_t index = *entry_prefix(entry);
	const struct timer_node *at = index < heap->count ? node_at(state, heap, index) : NULL;
	const struct timer_node *last = at == NULL ? NULL : node_at(state, heap, heap->count - 1);

	if (last == NULL || at->entry != entry_ref(state->store, entry)) {
		arena_set_broken(state->store->arena, "a timer is not where it says it is");
		return;
	}
	handle->timers--;
	heap->count--;
	if (index == heap->count)
		return;
	struct timer_node node = *last;
	const struct timer_node *parent = index == 0 ? NULL : node_at(state, heap, (index - 1) / CHILDREN);
	if (parent != NULL && node_before(state, &node, parent))
		sift_up(state, heap, index, node);
	else
		sift_down(state, heap, index, node);
}

/* ---- The API --------------------------------------------------------------------------------------------------------- */

/* The entry of a timer of the current key. */
static struct entry *timer_find(const struct state *state, struct view sub, uint32_t *hash)
{
	*hash = hash_of(state, state->store->key_mix, sub, false);
	return table_find(state, *hash, sub, false);
}

enum state_result state_timer_set(struct state *state, enum state_time domain, int64_t time_ms, struct view tag)
{
	struct state_store *store = state->store;
	struct timer_sub bytes;
	uint32_t hash;

	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	if (tag.size > STATE_TAG_MAX || store->key.size > STATE_KEY_MAX)
		return STATE_TOO_LARGE;
	sweep_step(store);
	state->largest_key = store->key.size > state->largest_key ? store->key.size : state->largest_key;
	struct view sub = sub_write(&bytes, domain, time_ms, tag);
	struct entry *entry = timer_find(state, sub, &hash);
	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	if (entry == NULL) {
		entry = table_insert(state, hash, sub, ENTRY_PREFIX, 0);
		if (entry == NULL)
			return STATE_TROUBLE;
		entry_set_dirty(store, entry);
	} else if ((entry->flags & ENTRY_REMOVED) != 0) {
		entry_revive(state, entry);
	} else {
		return STATE_OK;
	}
	return timer_push(state, entry) ? STATE_OK : STATE_TROUBLE;
}

enum state_result state_timer_delete(struct state *state, enum state_time domain, int64_t time_ms, struct view tag)
{
	struct arena *arena = state->store->arena;
	struct timer_sub bytes;
	uint32_t hash;

	if (arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	if (tag.size > STATE_TAG_MAX)
		return STATE_NONE;
	sweep_step(state->store);
	struct entry *entry = timer_find(state, sub_write(&bytes, domain, time_ms, tag), &hash);
	if (entry == NULL || (entry->flags & ENTRY_REMOVED) != 0)
		return arena->trouble == ARENA_FINE ? STATE_NONE : STATE_TROUBLE;
	timer_take_out(state, entry);
	FAULT_POINT(timer_remove);
	entry_remove(state, entry);
	return arena->trouble == ARENA_FINE ? STATE_OK : STATE_TROUBLE;
}

enum state_result state_timer_pop(struct state *state, enum state_time domain, int64_t time_ms,
				  struct state_timer *timer)
{
	struct state_store *store = state->store;
	const struct timer_heap *heap = &state->handle->heaps[domain];

	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	if (heap->count == 0)
		return STATE_NONE;
	const struct timer_node *first = node_at(state, heap, 0);
	if (first != NULL && first->time_ms > time_ms)
		return STATE_NONE;
	struct entry *entry = first == NULL ? NULL : node_entry(state, first);
	if (entry == NULL)
		return STATE_TROUBLE;
	struct view sub = entry_sub(entry);
	*timer = (struct state_timer){.time_ms = sub_time(sub),
				      .key = entry_key(entry),
				      .key_hash = entry_key_hash(entry),
				      .key_group = entry->key_group,
				      .tag = sub_tag(sub)};
	state_key(store, timer->key, timer->key_hash, timer->key_group);
	timer_take_out(state, entry);
	FAULT_POINT(timer_remove);
	entry_remove(state, entry); /* the bytes stay where they are until the unit is over */
	return store->arena->trouble == ARENA_FINE ? STATE_OK : STATE_TROUBLE;
}

int64_t state_timer_first(const struct state *state, enum state_time domain)
{
	const struct timer_heap *heap = &state->handle->heaps[domain];
	const struct timer_node *first = heap->count == 0 ? NULL : node_at(state, heap, 0);

	return first == NULL ? INT64_MAX : first->time_ms;
}
