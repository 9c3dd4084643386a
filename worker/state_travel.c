/*
 * Snapshot, restore, inspection: entries as they travel.
 */
#include "shared/log.h"
#include "worker/state_parts.h"

/* An entry as others see it; false: damaged. */
static bool describe(struct state_store *store, const struct entry *entry, struct state_entry *to)
{
	if (entry->state >= store->state_count) {
		arena_set_broken(store->arena, "an entry belongs to a state that there is not");
		return false;
	}
	bool removed = (entry->flags & ENTRY_REMOVED) != 0;
	*to = (struct state_entry){
	    .state = entry->state,
	    .key_group = entry->key_group,
	    .key_hash = entry_key_hash(entry),
	    .removed = removed,
	    .key = entry_key(entry),
	    .sub = entry_sub(entry),
	};
	if (!removed)
		to->value = entry_value(store, entry);
	return store->arena->trouble == ARENA_FINE;
}

/* The first dirty entry, after dropping those that came and went without anybody having heard of them. */
enum state_result state_delta_peek(struct state_store *store, struct state_entry *entry)
{
	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	bool all = dirty_purge(store, STATE_PURGE_MAX);
	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	if (!all)
		return STATE_AGAIN;
	if (store->words->dirty_first == 0)
		return STATE_NONE;
	const struct entry *first = entry_at(store, store->words->dirty_first);
	return first != NULL && describe(store, first, entry) ? STATE_OK : STATE_TROUBLE;
}

uint64_t state_dirty_bytes(const struct state_store *store)
{
	return store->words->dirty_bytes;
}

uint64_t state_dirty_entries(const struct state_store *store)
{
	return store->words->dirty_entries;
}

/* Whether an entry that comes from outside is within the bounds of all. */
static const char *check_bounds(const struct state_store *store, const struct state_entry *entry)
{
	if (entry->state >= store->state_count)
		return "an entry belongs to a state that there is not";
	if (entry->removed)
		return "an entry says that it is removed";
	if (entry->key.size > STATE_KEY_MAX || entry->sub.size > STATE_SUBKEY_MAX)
		return "an entry's key is too long";
	if (entry->key_group > UINT16_MAX)
		return "an entry's key group is beyond the last";
	const struct state *state = store->states[entry->state];
	if (entry->value.size > STATE_VALUE_MAX + time_size(state))
		return "an entry's value is too long";
	if (state->has_ttl && entry->value.size < 8)
		return "an entry of a state with a TTL carries no time";
	if (state->spec.kind == STATE_VALUE && entry->sub.size > 0)
		return "a value has a user key";
	if (state->spec.kind == STATE_TIMERS && (!timer_sub_can_be(entry->sub) || entry->value.size > 0))
		return "a timer is none: its domain, time or tag cannot be";
	return NULL;
}

/* Stores a value as it travelled: with the time that it was written. */
static bool store_travelled(struct state *state, struct entry *entry, struct view value)
{
	if (!state->has_ttl)
		return entry_store(state, entry, value, true);
	uint8_t *to = entry_resize(state, entry, value.size, true);

	if (to == NULL)
		return false;
	if (value.size > 0)
		memcpy(to, value.data, value.size);
	return true;
}

/* Puts a VALUE, an entry of a MAP, or a timer in place. */
static enum state_result restore_entry(struct state *state, const struct state_entry *from, const char **why)
{
	enum state_kind kind = state->spec.kind;
	uint32_t hash =
	    from->hashes.known ? from->hashes.hash : hash_of(state, state->store->key_mix, from->sub, false);

	if (table_find(state, hash, from->sub, false) != NULL) {
		*why = "an entry is there already";
		return STATE_TOO_LARGE;
	}
	if (state->store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	struct entry *entry = table_insert(state, hash, from->sub, kind == STATE_VALUE ? 0 : ENTRY_PREFIX,
					   from->value.size <= INLINE_MAX ? from->value.size : 0);
	if (entry == NULL || !store_travelled(state, entry, from->value))
		return STATE_TROUBLE;
	FAULT_POINT(restore_entry);
	entry->flags |= ENTRY_SENT;
	if ((kind == STATE_MAP && !map_append(state, entry)) || (kind == STATE_TIMERS && !timer_push(state, entry)))
		return STATE_TROUBLE;
	return state->store->arena->trouble == ARENA_FINE ? STATE_OK : STATE_TROUBLE;
}

/* Puts an entry that a client kept back in place. */
enum state_result state_restore(struct state_store *store, const struct state_entry *entry, const char **why)
{
	*why = "";
	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	*why = check_bounds(store, entry);
	if (*why != NULL)
		return STATE_TOO_LARGE;
	*why = "";
	struct state *state = store->states[entry->state];
	store->restored++;
	if (entry->hashes.known)
		state_key_mixed(store, entry->key, entry->key_hash, entry->key_group, entry->hashes.key_mix);
	else
		state_key(store, entry->key, entry->key_hash, entry->key_group);
	enum state_result result =
	    state->spec.kind == STATE_LIST ? list_restore(state, entry, why) : restore_entry(state, entry, why);
	return store->arena->trouble == ARENA_FINE ? result : STATE_TROUBLE;
}

/* Walks over the live entries, bucket by bucket. */
void state_walk(struct state_store *store, uint64_t *cursor, uint64_t limit, state_visit *visit, void *context)
{
	struct state_entry seen;

	for (; limit > 0 && *cursor < store->words->bucket_count; limit--, ++*cursor) {
		uint64_t left = store->words->entries;
		for (const struct entry *entry = bucket_next(store, (uint32_t)*cursor, NULL); entry != NULL && left > 0;
		     entry = bucket_next(store, (uint32_t)*cursor, entry), left--) {
			if ((entry->flags & (ENTRY_ROOT | ENTRY_REMOVED)) == 0 && describe(store, entry, &seen))
				visit(context, &seen);
		}
		if (store->arena->trouble == ARENA_BROKEN)
			break;
	}
	if (*cursor >= store->words->bucket_count || store->arena->trouble == ARENA_BROKEN)
		*cursor = UINT64_MAX;
}
