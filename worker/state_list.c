/*
 * LIST: pieces in the table, numbered by their place from 0 on without gaps, and a root that knows the last of them.
 *
 * A piece holds elements one behind the other, each behind four bytes of length. It is only appended to, so that nothing but its
 * head is logged; a list that grows gets larger and larger pieces, up to about 4 KiB. An element that is larger has a piece of its own.
 */
#include "shared/log.h"
#include "worker/state_parts.h"

enum { LENGTH = 4, PLACE = 8, PLACES_MAX = 1 << 24 /* pieces of the largest arena */ };

static const struct view no_sub = {(const uint8_t *)"", 0};

/* The sub of a place: big-endian, so that they sort. */
struct place {
	uint8_t bytes[PLACE];
};

static struct place place_of(uint32_t number)
{
	return (struct place){
	    {0, 0, 0, 0, (uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number}};
}

/* Places that a list of this arena can have: each piece takes more than so many bytes. */
static uint32_t places_max(const struct state *state)
{
	uint64_t most = state->store->arena->size / 64;

	return most < PLACES_MAX ? (uint32_t)most : PLACES_MAX;
}

/* The root's words, covered when they are to be changed; NULL: none, or trouble. */
static struct list_root *root_words(const struct state *state, struct entry *root, bool write)
{
	if (root == NULL)
		return NULL;
	if (root->value_size != sizeof(struct list_root) || (root->flags & ENTRY_EXTERN) != 0) {
		arena_set_broken(state->store->arena, "the root of a list is overwritten");
		return NULL;
	}
	struct list_root *words = (struct list_root *)((uint8_t *)root + entry_value_offset(root));
	if (words->places > places_max(state) || words->pieces > words->places) {
		arena_set_broken(state->store->arena, "the root of a list is overwritten");
		return NULL;
	}
	if (write)
		entry_cover(state->store, root);
	return words;
}

/* The root of the current key's list. */
static struct entry *root_find(const struct state *state, uint32_t *hash)
{
	*hash = hash_of(state, state->store->key_mix, no_sub, true);
	return table_find(state, *hash, no_sub, true);
}

/* The same, to be changed, made when there is none. */
static struct list_root *root_make(struct state *state)
{
	uint32_t hash;
	struct entry *root = root_find(state, &hash);

	if (root == NULL && state->store->arena->trouble == ARENA_FINE) {
		root = table_insert(state, hash, no_sub, ENTRY_ROOT, sizeof(struct list_root));
		if (root == NULL || entry_resize(state, root, sizeof(struct list_root), true) == NULL)
			return NULL;
	}
	return root_words(state, root, true);
}

/* The piece at a place, also a removed one. */
static struct entry *piece_find(const struct state *state, uint32_t number, uint32_t *hash)
{
	struct place place = place_of(number);
	struct view sub = {place.bytes, PLACE};

	*hash = hash_of(state, state->store->key_mix, sub, false);
	return table_find(state, *hash, sub, false);
}

/* Makes the piece at the next place, live and empty, with room for `wanted` bytes if the size allows. */
static struct entry *piece_make(struct state *state, uint32_t number, size_t wanted)
{
	uint32_t hash;
	struct entry *piece = piece_find(state, number, &hash);
	struct place place = place_of(number);

	if (piece != NULL && (piece->flags & ENTRY_REMOVED) != 0) {
		entry_revive(state, piece);
		return piece;
	}
	if (piece != NULL)
		arena_set_broken(state->store->arena, "a list has a piece behind its last");
	if (state->store->arena->trouble != ARENA_FINE)
		return NULL;
	return table_insert(state, hash, (struct view){place.bytes, PLACE}, ENTRY_APPENDS,
			    wanted <= PIECE_MAX ? wanted : 0);
}

/* Whether an element can go behind those of a piece. */
static bool piece_has_room(const struct entry *piece, size_t size)
{
	return (piece->flags & ENTRY_EXTERN) == 0 && piece->value_size + LENGTH + size <= PIECE_MAX &&
	       piece->value_size + LENGTH + size <= entry_room(piece);
}

/* Writes an element's length and bytes. */
static void element_write(uint8_t *to, struct view value)
{
	uint32_t size = (uint32_t)value.size;

	memcpy(to, &size, LENGTH);
	if (value.size > 0)
		memmove(to + LENGTH, value.data, value.size);
}

/* Appends to the last piece. */
static void append_in_place(struct state *state, struct entry *piece, struct view value)
{
	struct state_store *store = state->store;
	size_t more = LENGTH + value.size;

	entry_cover(store, piece);
	entry_set_dirty(store, piece);
	element_write((uint8_t *)piece + entry_value_offset(piece) + piece->value_size, value);
	piece->value_size += (uint32_t)more;
	handle_write(state)->value_bytes += more;
	words_write(store)->dirty_bytes += more;
}

/* Appends as the first of a new piece. */
static bool append_new(struct state *state, struct list_root *root, uint32_t last_room, struct view value)
{
	size_t size = LENGTH + value.size, wanted = size < PIECE_MIN ? PIECE_MIN : size;

	if (root->places == places_max(state)) {
		arena_set_broken(state->store->arena, "a list has grown beyond what fits into an arena");
		return false;
	}
	if (wanted < 2 * (size_t)last_room)
		wanted = 2 * last_room < PIECE_MAX ? 2 * last_room : PIECE_MAX;
	wanted = size > PIECE_MAX ? size : wanted;
	struct entry *piece = piece_make(state, root->places, wanted);
	if (piece == NULL)
		return false;
	uint8_t *at = entry_resize(state, piece, size, false);
	if (at == NULL)
		return false;
	element_write(at, value);
	root->last = entry_ref(state->store, piece);
	root->places++;
	root->pieces++;
	return true;
}

/* The last piece of a list that has one; NULL: none, or damaged. */
static struct entry *piece_last(struct state *state, const struct list_root *root)
{
	if (root->places == 0)
		return NULL;
	struct entry *piece = entry_at(state->store, root->last);
	if (piece == NULL || ((piece->flags & ENTRY_APPENDS) != 0 && piece->state == state->index))
		return piece;
	arena_set_broken(state->store->arena, "a list leads to what is no piece of it");
	return NULL;
}

/* Appends one element to the current key's list. */
static bool append(struct state *state, struct view value)
{
	struct list_root *root = root_make(state);
	struct entry *last = root == NULL ? NULL : piece_last(state, root);

	if (root == NULL || state->store->arena->trouble != ARENA_FINE)
		return false;
	if (last != NULL && piece_has_room(last, value.size))
		append_in_place(state, last, value);
	else if (!append_new(state, root, last == NULL ? 0 : entry_room(last), value))
		return false;
	FAULT_POINT(list_append);
	root->count++;
	return state->store->arena->trouble == ARENA_FINE;
}

enum state_result state_list_append(struct state *state, struct view value)
{
	struct state_store *store = state->store;

	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	state->largest_key = store->key.size > state->largest_key ? store->key.size : state->largest_key;
	state->largest_value = value.size > state->largest_value ? value.size : state->largest_value;
	if (store->key.size > STATE_KEY_MAX || value.size > STATE_VALUE_MAX - LENGTH)
		return STATE_TOO_LARGE;
	sweep_step(store);
	return append(state, value) ? STATE_OK : STATE_TROUBLE;
}

/* The element at an offset of a piece's value: OK, NONE at its end, TROUBLE when it cannot be. */
static enum state_result element_at(struct state_store *store, struct view piece, uint64_t offset, struct view *value)
{
	uint32_t size;

	if (offset == piece.size)
		return STATE_NONE;
	if (offset + LENGTH <= piece.size) {
		memcpy(&size, piece.data + offset, LENGTH);
		*value = (struct view){piece.data + offset + LENGTH, size};
		if (size <= piece.size - offset - LENGTH)
			return STATE_OK;
	}
	arena_set_broken(store->arena, "a piece of a list is overwritten");
	return STATE_TROUBLE;
}

/* The piece that an iteration stands in: `at` is its reference above the offset in it; `part` its place. */
static struct entry *piece_at(struct state *state, const struct state_iterator *iterator)
{
	struct entry *piece = entry_at(state->store, (arena_ref)(iterator->at >> 32));

	if (piece == NULL || ((piece->flags & ENTRY_APPENDS) != 0 && piece->state == state->index))
		return piece;
	arena_set_broken(state->store->arena, "an iteration leads to what is no piece of a list");
	return NULL;
}

enum state_result state_list_next(struct state *state, struct state_iterator *iterator, struct view *value)
{
	struct state_store *store = state->store;
	uint32_t hash;

	for (;;) {
		if (store->arena->trouble != ARENA_FINE)
			return STATE_TROUBLE;
		struct entry *piece =
		    iterator->at != 0 ? piece_at(state, iterator) : piece_find(state, (uint32_t)iterator->part, &hash);
		if (piece == NULL || (piece->flags & ENTRY_REMOVED) != 0)
			return store->arena->trouble == ARENA_FINE ? STATE_NONE : STATE_TROUBLE;
		uint32_t offset = (uint32_t)iterator->at;
		enum state_result result = element_at(store, entry_value(store, piece), offset, value);
		if (result == STATE_OK)
			iterator->at =
			    (uint64_t)entry_ref(store, piece) << 32 | (offset + LENGTH + (uint32_t)value->size);
		if (result != STATE_NONE)
			return result;
		iterator->at = 0;
		iterator->part++;
	}
}

enum state_result state_list_clear(struct state *state)
{
	struct state_store *store = state->store;
	enum state_result result = STATE_NONE;
	uint32_t hash;

	if (store->arena->trouble != ARENA_FINE)
		return STATE_TROUBLE;
	sweep_step(store);
	struct entry *root_entry = root_find(state, &hash);
	struct list_root *root = root_words(state, root_entry, true);
	while (root != NULL && root->pieces > 0 && root->places > 0 && store->arena->trouble == ARENA_FINE) {
		struct entry *piece = piece_find(state, --root->places, &hash);
		if (piece == NULL || (piece->flags & ENTRY_REMOVED) != 0)
			continue;
		entry_remove(state, piece);
		root->pieces--;
		result = STATE_OK;
	}
	if (root != NULL && store->arena->trouble == ARENA_FINE)
		table_unlink(store, root_entry);
	return store->arena->trouble == ARENA_FINE ? result : STATE_TROUBLE;
}

uint64_t state_list_count(struct state *state)
{
	uint32_t hash;

	if (state->store->arena->trouble != ARENA_FINE)
		return 0;
	const struct list_root *root = root_words(state, root_find(state, &hash), false);
	return root == NULL ? 0 : root->count;
}

/* ---- Restore --------------------------------------------------------------------------------------------------------- */

/* The elements of a piece that comes from outside; UINT64_MAX: it is none. */
static uint64_t elements_of(struct view piece)
{
	uint64_t offset = 0, count = 0;
	uint32_t size;

	for (; offset < piece.size; count++) {
		if (offset + LENGTH > piece.size)
			return UINT64_MAX;
		memcpy(&size, piece.data + offset, LENGTH);
		if (size > piece.size - offset - LENGTH)
			return UINT64_MAX;
		offset += LENGTH + size;
	}
	return count;
}

/* Appends the elements of a piece one by one: its place means nothing here. */
static enum state_result restore_appending(struct state *state, struct view piece)
{
	uint32_t size;

	for (uint64_t offset = 0; offset < piece.size; offset += LENGTH + size) {
		memcpy(&size, piece.data + offset, LENGTH);
		if (!append(state, (struct view){piece.data + offset + LENGTH, size}))
			return STATE_TROUBLE;
	}
	return STATE_OK;
}

/* Puts a piece of the current key's list back at its place, whatever the order that they come in. */
enum state_result list_restore(struct state *state, const struct state_entry *from, const char **why)
{
	uint64_t count = elements_of(from->value);
	uint32_t number, hash;

	if (from->sub.size != PLACE || memcmp(from->sub.data, "\0\0\0\0", 4) != 0 || count == UINT64_MAX) {
		*why = "a piece of a list is none: its place or the lengths of its elements cannot be";
		return STATE_TOO_LARGE;
	}
	if (state->spec.partition != STATE_BY_KEY)
		return restore_appending(state, from->value);
	const uint8_t *place = from->sub.data + 4;
	number = (uint32_t)place[0] << 24 | (uint32_t)place[1] << 16 | (uint32_t)place[2] << 8 | place[3];
	if (number >= places_max(state)) {
		*why = "a piece of a list has a place beyond the last";
		return STATE_TOO_LARGE;
	}
	if (piece_find(state, number, &hash) != NULL) {
		*why = "a piece of a list is there already";
		return STATE_TOO_LARGE;
	}
	struct list_root *root = root_make(state);
	struct entry *piece = root == NULL ? NULL : piece_make(state, number, from->value.size);
	if (piece == NULL || !entry_store(state, piece, from->value, true))
		return STATE_TROUBLE;
	FAULT_POINT(restore_entry);
	piece->flags |= ENTRY_SENT;
	root->count += count;
	root->pieces++;
	if (number >= root->places) {
		root->places = number + 1;
		root->last = entry_ref(state->store, piece);
	}
	return state->store->arena->trouble == ARENA_FINE ? STATE_OK : STATE_TROUBLE;
}
