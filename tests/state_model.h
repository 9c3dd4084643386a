/*
 * A simple reference for the state: plain arrays that can be copied, so that a rollback is putting a copy back. Operations are drawn from
 * numbers, made on the state and on the model alike, and compared; a unit of a number is always the same.
 *
 *   struct model model;            what the state must be
 *   model_unit(&model, &rig, n)    makes unit n on both, with marks, undone parts and rollbacks on the way; the caller commits
 *   model_check(&model, &rig)      compares everything
 *
 * With `rig == NULL` a unit is made on the model alone: so a parent learns what a child that was killed must have left behind.
 * Deltas are applied to a mirror, as a client would keep them; it must equal the state whenever all have been taken.
 */
#ifndef TESTS_STATE_MODEL_H
#define TESTS_STATE_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "worker/state.h"

enum {
	MODEL_KEYS = 24,
	MODEL_SUBS = 12,
	MODEL_ELEMENTS = 48,
	MODEL_PIECES = MODEL_ELEMENTS,
	MODEL_TIMES = 6,
	MODEL_TAGS = 3,
	MODEL_TTL = 50,
	MODEL_VALUE_MAX = 3 << 20,
	MODEL_CHANNEL = 3,
};

/* The states of the model, in their order. */
enum { MODEL_COUNTER, MODEL_VALUE, MODEL_EXPIRING, MODEL_MAP, MODEL_LIST, MODEL_TIMERS, MODEL_STATES };

/* A value by its size and hash; `hash` is 0 where there is none. */
struct model_value {
	uint64_t hash;
	uint32_t size;
	uint32_t order; /* of entries in a map */
	int64_t written;
};

/* Everything that there is under one key. */
struct model_key {
	struct model_value values[3];
	struct model_value map[MODEL_SUBS];
	struct model_value list[MODEL_ELEMENTS];
	uint32_t list_count;
	bool timers[STATE_TIMES][MODEL_TIMES][MODEL_TAGS];
};

struct model {
	struct model_key keys[MODEL_KEYS];
	struct model_key mirror[MODEL_KEYS]; /* what a client has of all this; lists are not kept */
	uint64_t mirror_pieces[MODEL_KEYS][MODEL_PIECES];
	uint32_t order;
	int64_t now;
	uint64_t units; /* made */
};

/* A store with its handles. */
struct model_rig {
	struct arena arena;
	struct state_store *store;
	struct state *states[MODEL_STATES];
	uint32_t channel;
};

#define MODEL_REQUIRE(condition)                                                                                       \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: the state is not what it must be: %s\n", __FILE__, __LINE__,           \
				#condition);                                                                           \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

/* ---- Chance -------------------------------------------------------------------------------------------------------- */

struct model_dice {
	uint64_t state;
};

static inline uint64_t model_next(struct model_dice *dice)
{
	uint64_t word = dice->state += UINT64_C(0x9e3779b97f4a7c15);
	word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
	return word ^ word >> 31;
}

static inline uint32_t model_roll(struct model_dice *dice, uint32_t sides)
{
	return (uint32_t)(model_next(dice) % sides);
}

/* ---- Keys and values --------------------------------------------------------------------------------------------------- */

/* Keys of all kinds: none, short, such that are longer than what is logged, and some with a hash that is not their own. */
static inline struct view model_key_bytes(uint32_t key, char *bytes)
{
	static const uint16_t sizes[] = {8, 8, 3, 16, 40, 300, 8, 1000};
	size_t size = key == 0 ? 0 : sizes[key % 8];
	memset(bytes, 'k', size);
	if (size > 0)
		bytes[0] = (char)key;
	return (struct view){(const uint8_t *)bytes, size};
}

enum { MODEL_KEY_BYTES = 1024 };

static inline uint32_t model_key_of(struct view key)
{
	uint32_t number = key.size == 0 ? 0 : key.data[0];
	MODEL_REQUIRE(number < MODEL_KEYS);
	return number;
}

static inline int32_t model_key_hash(uint32_t key, struct view bytes)
{
	return key % 5 == 3 ? (int32_t)key : key_hash_of(bytes);
}

static inline uint64_t model_hash(struct view bytes)
{
	return XXH3_64bits(bytes.size > 0 ? bytes.data : (const uint8_t *)"", bytes.size) | 1;
}

/* Sizes as they come: mostly small, now and then such that do not fit into an entry, an extent. */
static inline uint32_t model_size(struct model_dice *dice)
{
	uint32_t kind = model_roll(dice, 200);
	if (kind < 100)
		return model_roll(dice, 48);
	if (kind < 190)
		return model_roll(dice, 1500);
	if (kind < 198)
		return model_roll(dice, 20000);
	return kind == 198 ? model_roll(dice, 700000) : model_roll(dice, MODEL_VALUE_MAX);
}

/* A value of some size; the bytes stay until the next. */
static inline struct view model_bytes(struct model_dice *dice, uint32_t size)
{
	static uint8_t bytes[MODEL_VALUE_MAX + 8];
	struct model_dice own = {model_next(dice)};
	for (uint32_t i = 0; i < size; i += 8) {
		uint64_t word = model_next(&own);
		memcpy(bytes + i, &word, 8);
	}
	return (struct view){bytes, size};
}

static inline struct model_value model_value_of(struct view bytes)
{
	return (struct model_value){.hash = model_hash(bytes), .size = (uint32_t)bytes.size};
}

static inline struct view model_sub(uint32_t number, char *bytes)
{
	size_t size = number == 0 ? 0 : (size_t)number * 7;
	memset(bytes, 's', size);
	if (size > 0)
		bytes[0] = (char)number;
	return (struct view){(const uint8_t *)bytes, size};
}

static inline uint32_t model_sub_of(struct view sub)
{
	uint32_t number = sub.size == 0 ? 0 : sub.data[0];
	MODEL_REQUIRE(number < MODEL_SUBS && sub.size == number * 7);
	return number;
}

static inline int64_t model_time(uint32_t number)
{
	static const int64_t times[MODEL_TIMES] = {INT64_MIN, -7, 0, 1, 1700000000000, INT64_MAX};
	return times[number];
}

static inline struct view model_tag(uint32_t number)
{
	return view_of(number == 0 ? "" : number == 1 ? "a" : "ab");
}

/* ---- Rigs -------------------------------------------------------------------------------------------------------------- */

/* Opens the store and its handles; the caller commits. */
static inline void model_rig_attach(struct model_rig *rig)
{
	static const struct state_spec specs[MODEL_STATES] = {
	    {.step = "a", .name = "counter", .kind = STATE_VALUE},
	    {.step = "a", .name = "value", .kind = STATE_VALUE, .version = 2},
	    {.step = "b", .name = "expiring", .kind = STATE_VALUE, .ttl_ms = MODEL_TTL},
	    {.step = "b", .name = "map", .kind = STATE_MAP},
	    {.step = "b", .name = "list", .kind = STATE_LIST},
	    {.step = "c", .name = "timers", .kind = STATE_TIMERS},
	};
	rig->channel = MODEL_CHANNEL;
	rig->store = state_store_create(&rig->arena, rig->channel);
	for (int i = 0; i < MODEL_STATES; i++) {
		rig->states[i] = state_open(rig->store, &specs[i]);
		MODEL_REQUIRE(rig->states[i] != NULL);
	}
}

/* The number of the last unit made, as the session's own words have it. */
static inline uint64_t model_rig_units(const struct model_rig *rig)
{
	return *(const uint64_t *)arena_session(&rig->arena, rig->channel);
}

/* ---- Operations ---------------------------------------------------------------------------------------------------------- */

static inline void model_set_key(struct model_rig *rig, uint32_t key)
{
	static char bytes[MODEL_KEY_BYTES];
	struct view view = model_key_bytes(key, bytes);
	if (rig != NULL)
		state_key(rig->store, view, model_key_hash(key, view), key);
}

/* Whether a value of the expiring state has done so. */
static inline bool model_lives(const struct model *model, int state, const struct model_value *value)
{
	return value->hash != 0 && (state != MODEL_EXPIRING || model->now - MODEL_TTL < value->written);
}

/* Result of an operation on the state, unless it is out of room: then the unit is given up, and the model with it. */
#define MODEL_TRY(rig, call, expected)                                                                                 \
	do {                                                                                                           \
		if ((rig) != NULL) {                                                                                   \
			enum state_result got = (call);                                                                \
			MODEL_REQUIRE(got == (expected));                                                              \
		}                                                                                                      \
	} while (0)

static inline void model_put(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key,
			     int state)
{
	struct view value = model_bytes(dice, model_size(dice));
	MODEL_TRY(rig, state_put(rig->states[state], value), STATE_OK);
	model->keys[key].values[state] = model_value_of(value);
	model->keys[key].values[state].written = model->now;
}

static inline void model_get(const struct model *model, struct model_rig *rig, uint32_t key, int state)
{
	const struct model_value *value = &model->keys[key].values[state];
	struct view got;
	if (rig == NULL)
		return;
	if (!model_lives(model, state, value)) {
		MODEL_REQUIRE(state_get(rig->states[state], &got) == STATE_NONE);
		return;
	}
	MODEL_REQUIRE(state_get(rig->states[state], &got) == STATE_OK);
	MODEL_REQUIRE(got.size == value->size && model_hash(got) == value->hash);
}

/* Counts in place; the counter is the value, so the model keeps its hash. */
static inline void model_edit(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key,
			      int state)
{
	struct model_value *value = &model->keys[key].values[state];
	uint64_t add = model_next(dice);
	uint8_t bytes[24] = {0};
	void *at;
	bool is_new;
	/* another size than what was put: it is cut off or filled up; the model cannot know the bytes, so it asks */
	if (rig == NULL || !model_lives(model, state, value) || value->size == sizeof(bytes)) {
		memcpy(bytes, &add, sizeof(add));
		memcpy(bytes + 8, &model->units, 8);
		if (rig != NULL) {
			MODEL_REQUIRE(state_edit(rig->states[state], sizeof(bytes), &at, &is_new) == STATE_OK);
			MODEL_REQUIRE(is_new == !model_lives(model, state, value));
			MODEL_REQUIRE(((uintptr_t)at & 7) == 0);
			if (is_new) {
				static const uint8_t zeros[sizeof(bytes)];
				MODEL_REQUIRE(memcmp(at, zeros, sizeof(bytes)) == 0);
			} else {
				MODEL_REQUIRE(model_hash((struct view){at, sizeof(bytes)}) == value->hash);
			}
			memcpy(at, bytes, sizeof(bytes));
		}
		*value = model_value_of((struct view){bytes, sizeof(bytes)});
		value->written = model->now;
		return;
	}
	MODEL_REQUIRE(state_edit(rig->states[state], sizeof(bytes), &at, &is_new) == STATE_OK && !is_new);
	memcpy(bytes, &add, sizeof(add));
	memcpy(bytes + 8, &model->units, 8);
	memcpy(at, bytes, sizeof(bytes));
	*value = model_value_of((struct view){bytes, sizeof(bytes)});
	value->written = model->now;
}

static inline void model_remove(struct model *model, struct model_rig *rig, uint32_t key, int state)
{
	struct model_value *value = &model->keys[key].values[state];
	MODEL_TRY(rig, state_remove(rig->states[state]), model_lives(model, state, value) ? STATE_OK : STATE_NONE);
	*value = (struct model_value){0};
}

static inline void model_map_put(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key)
{
	char bytes[128];
	uint32_t number = model_roll(dice, MODEL_SUBS);
	struct model_value *value = &model->keys[key].map[number];
	struct view bytes_put = model_bytes(dice, model_size(dice));
	uint32_t order = value->hash != 0 ? value->order : ++model->order;
	MODEL_TRY(rig, state_map_put(rig->states[MODEL_MAP], model_sub(number, bytes), bytes_put), STATE_OK);
	*value = model_value_of(bytes_put);
	value->order = order;
}

static inline void model_map_remove(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key)
{
	char bytes[128];
	uint32_t number = model_roll(dice, MODEL_SUBS);
	struct model_value *value = &model->keys[key].map[number];
	MODEL_TRY(rig, state_map_remove(rig->states[MODEL_MAP], model_sub(number, bytes)),
		  value->hash != 0 ? STATE_OK : STATE_NONE);
	*value = (struct model_value){0};
}

/* The entry of a map that comes next in its order; NULL: none. */
static inline const struct model_value *model_map_after(const struct model_key *key, uint32_t order)
{
	const struct model_value *best = NULL;
	for (uint32_t i = 0; i < MODEL_SUBS; i++) {
		const struct model_value *value = &key->map[i];
		if (value->hash != 0 && value->order > order && (best == NULL || value->order < best->order))
			best = value;
	}
	return best;
}

/* Walks over a map in its order, and removes some entries while it stands on them. */
static inline void model_map_walk(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key,
				  bool removes)
{
	struct state_iterator iterator = {0};
	struct view user_key, value;
	uint32_t order = 0;
	const struct model_value *next;
	while ((next = model_map_after(&model->keys[key], order)) != NULL) {
		uint32_t number = (uint32_t)(next - model->keys[key].map);
		bool remove = removes && model_roll(dice, 3) == 0;
		order = next->order;
		if (rig != NULL) {
			char bytes[128];
			MODEL_REQUIRE(state_map_next(rig->states[MODEL_MAP], &iterator, &user_key, &value) == STATE_OK);
			MODEL_REQUIRE(model_sub_of(user_key) == number);
			MODEL_REQUIRE(value.size == next->size && model_hash(value) == next->hash);
			if (remove)
				MODEL_REQUIRE(state_map_remove(rig->states[MODEL_MAP], model_sub(number, bytes)) ==
					      STATE_OK);
		}
		if (remove)
			model->keys[key].map[number] = (struct model_value){0};
	}
	MODEL_TRY(rig, state_map_next(rig->states[MODEL_MAP], &iterator, &user_key, &value), STATE_NONE);
}

static inline void model_map_clear(struct model *model, struct model_rig *rig, uint32_t key)
{
	bool any = model_map_after(&model->keys[key], 0) != NULL;
	MODEL_TRY(rig, state_map_clear(rig->states[MODEL_MAP]), any ? STATE_OK : STATE_NONE);
	memset(model->keys[key].map, 0, sizeof(model->keys[key].map));
}

static inline void model_list_append(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key)
{
	struct model_key *at = &model->keys[key];
	struct view value = model_bytes(dice, model_size(dice));
	if (at->list_count == MODEL_ELEMENTS)
		return;
	MODEL_TRY(rig, state_list_append(rig->states[MODEL_LIST], value), STATE_OK);
	at->list[at->list_count++] = model_value_of(value);
}

static inline void model_list_clear(struct model *model, struct model_rig *rig, uint32_t key)
{
	struct model_key *at = &model->keys[key];
	MODEL_TRY(rig, state_list_clear(rig->states[MODEL_LIST]), at->list_count > 0 ? STATE_OK : STATE_NONE);
	memset(at->list, 0, sizeof(at->list));
	at->list_count = 0;
}

static inline void model_list_check(const struct model *model, struct model_rig *rig, uint32_t key)
{
	const struct model_key *at = &model->keys[key];
	struct state_iterator iterator = {0};
	struct view value;
	if (rig == NULL)
		return;
	MODEL_REQUIRE(state_list_count(rig->states[MODEL_LIST]) == at->list_count);
	for (uint32_t i = 0; i < at->list_count; i++) {
		MODEL_REQUIRE(state_list_next(rig->states[MODEL_LIST], &iterator, &value) == STATE_OK);
		MODEL_REQUIRE(value.size == at->list[i].size && model_hash(value) == at->list[i].hash);
	}
	MODEL_REQUIRE(state_list_next(rig->states[MODEL_LIST], &iterator, &value) == STATE_NONE);
}

static inline void model_timer_set(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key)
{
	enum state_time domain = (enum state_time)model_roll(dice, STATE_TIMES);
	uint32_t time = model_roll(dice, MODEL_TIMES), tag = model_roll(dice, MODEL_TAGS);
	MODEL_TRY(rig, state_timer_set(rig->states[MODEL_TIMERS], domain, model_time(time), model_tag(tag)), STATE_OK);
	model->keys[key].timers[domain][time][tag] = true;
}

static inline void model_timer_delete(struct model *model, struct model_rig *rig, struct model_dice *dice, uint32_t key)
{
	enum state_time domain = (enum state_time)model_roll(dice, STATE_TIMES);
	uint32_t time = model_roll(dice, MODEL_TIMES), tag = model_roll(dice, MODEL_TAGS);
	bool *there = &model->keys[key].timers[domain][time][tag];
	MODEL_TRY(rig, state_timer_delete(rig->states[MODEL_TIMERS], domain, model_time(time), model_tag(tag)),
		  *there ? STATE_OK : STATE_NONE);
	*there = false;
}

/* memcmp of two keys. */
static inline int model_key_order(uint32_t a, uint32_t b)
{
	static char x[MODEL_KEY_BYTES], y[MODEL_KEY_BYTES];
	struct view va = model_key_bytes(a, x), vb = model_key_bytes(b, y);
	size_t both = va.size < vb.size ? va.size : vb.size;
	int order = memcmp(x, y, both);
	return order != 0 ? order : va.size < vb.size ? -1 : va.size > vb.size;
}

/* Pops timers, which come by time, key, tag. */
static inline void model_timer_pop(struct model *model, struct model_rig *rig, struct model_dice *dice)
{
	enum state_time domain = (enum state_time)model_roll(dice, STATE_TIMES);
	uint32_t until = model_roll(dice, MODEL_TIMES), best = MODEL_KEYS;
	struct state_timer timer;
	for (uint32_t time = 0; time <= until && best == MODEL_KEYS; time++) {
		for (uint32_t key = 0; key < MODEL_KEYS; key++) {
			const bool *tags = model->keys[key].timers[domain][time];
			if ((tags[0] || tags[1] || tags[2]) && (best == MODEL_KEYS || model_key_order(key, best) < 0))
				best = key;
		}
		if (best == MODEL_KEYS)
			continue;
		bool *tags = model->keys[best].timers[domain][time];
		uint32_t tag = tags[0] ? 0 : tags[1] ? 1 : 2;
		tags[tag] = false;
		if (rig == NULL)
			return;
		MODEL_REQUIRE(state_timer_first(rig->states[MODEL_TIMERS], domain) == model_time(time));
		MODEL_REQUIRE(state_timer_pop(rig->states[MODEL_TIMERS], domain, model_time(until), &timer) ==
			      STATE_OK);
		MODEL_REQUIRE(timer.time_ms == model_time(time) && model_key_of(timer.key) == best);
		MODEL_REQUIRE(timer.key_hash == model_key_hash(best, timer.key) && timer.key_group == best);
		MODEL_REQUIRE(view_equal(timer.tag, model_tag(tag)));
	}
	if (best == MODEL_KEYS)
		MODEL_TRY(rig, state_timer_pop(rig->states[MODEL_TIMERS], domain, model_time(until), &timer),
			  STATE_NONE);
}

/* ---- Deltas ------------------------------------------------------------------------------------------------------------ */

/* A timer's place in the model, from the bytes that travel. */
static inline bool *model_timer_of(struct model_key *key, struct view sub)
{
	uint64_t time = 0;
	MODEL_REQUIRE(sub.size >= 9 && sub.size <= 11 && sub.data[0] < STATE_TIMES);
	for (int i = 0; i < 8; i++)
		time = time << 8 | sub.data[1 + i];
	for (uint32_t i = 0; i < MODEL_TIMES; i++) {
		if (model_time(i) == (int64_t)(time ^ UINT64_C(1) << 63))
			return &key->timers[sub.data[0]][i][sub.size - 9];
	}
	abort();
}

/* What a client does with an entry. */
static inline void model_mirror(struct model *model, const struct state_entry *entry)
{
	uint32_t number = model_key_of(entry->key);
	struct model_key *key = &model->mirror[number];
	struct model_value value = {0};
	MODEL_REQUIRE(entry->key_group == number && entry->key_hash == model_key_hash(number, entry->key));
	if (!entry->removed)
		value = model_value_of(entry->value);
	MODEL_REQUIRE(!entry->removed || entry->value.size == 0);
	switch (entry->state) {
	case MODEL_EXPIRING:
		if (!entry->removed) {
			MODEL_REQUIRE(entry->value.size >= 8);
			value = model_value_of((struct view){entry->value.data + 8, entry->value.size - 8});
			memcpy(&value.written, entry->value.data, 8);
		} /* fallthrough */
	case MODEL_COUNTER:
	case MODEL_VALUE:
		key->values[entry->state] = value;
		break;
	case MODEL_MAP:
		key->map[model_sub_of(entry->sub)] = value;
		break;
	case MODEL_LIST:
		MODEL_REQUIRE(entry->sub.size == 8 && entry->sub.data[7] < MODEL_PIECES);
		model->mirror_pieces[number][entry->sub.data[7]] = value.hash;
		break;
	default:
		*model_timer_of(key, entry->sub) = !entry->removed;
	}
}

static inline void model_mirror_check(struct model *model)
{
	for (uint32_t i = 0; i < MODEL_KEYS; i++) {
		const struct model_key *key = &model->keys[i], *mirror = &model->mirror[i];
		for (int k = 0; k < 3; k++) {
			const struct model_value *value = &key->values[k];
			if (k == MODEL_EXPIRING && !model_lives(model, k, value))
				continue; /* swept sooner or later */
			MODEL_REQUIRE(value->hash == mirror->values[k].hash && value->size == mirror->values[k].size);
			MODEL_REQUIRE(k != MODEL_EXPIRING || value->written == mirror->values[k].written);
		}
		for (int k = 0; k < MODEL_SUBS; k++)
			MODEL_REQUIRE(key->map[k].hash == mirror->map[k].hash);
		MODEL_REQUIRE(memcmp(key->timers, mirror->timers, sizeof(key->timers)) == 0);
	}
}

/* A walk that finds the pieces of lists, which the mirror must have. */
struct model_pieces {
	struct model *model;
	uint64_t pieces[MODEL_KEYS][MODEL_PIECES];
	uint64_t entries[MODEL_STATES];
};

static inline void model_visit(void *context, const struct state_entry *entry)
{
	struct model_pieces *seen = context;
	seen->entries[entry->state]++;
	if (entry->state == MODEL_LIST)
		seen->pieces[model_key_of(entry->key)][entry->sub.data[7]] = model_hash(entry->value);
}

static inline struct model_pieces model_walk(struct model *model, struct model_rig *rig)
{
	struct model_pieces seen = {.model = model};
	for (uint64_t cursor = 0; cursor != UINT64_MAX;)
		state_walk(rig->store, &cursor, 7, model_visit, &seen);
	return seen;
}

/* Takes all deltas; then the mirror is the state. On the model alone the mirror is made from what it must be. */
static inline void model_delta(struct model *model, struct model_rig *rig)
{
	struct state_entry entry;
	enum state_result result;
	if (rig == NULL) {
		memcpy(model->mirror, model->keys, sizeof(model->keys));
		return;
	}
	while ((result = state_delta_peek(rig->store, &entry)) == STATE_OK) {
		model_mirror(model, &entry);
		state_delta_advance(rig->store);
	}
	MODEL_REQUIRE(result == STATE_NONE);
	MODEL_REQUIRE(state_dirty_entries(rig->store) == 0 && state_dirty_bytes(rig->store) == 0);
	model_mirror_check(model);
	memcpy(model->mirror, model->keys,
	       sizeof(model->keys)); /* forgets what expired, so that parent and child agree */
}

/* ---- Units ------------------------------------------------------------------------------------------------------------- */

/* One operation. */
static inline void model_operation(struct model *model, struct model_rig *rig, struct model_dice *dice)
{
	uint32_t key = model_roll(dice, MODEL_KEYS), what = model_roll(dice, 100);
	int state = (int)model_roll(dice, 3);
	model_set_key(rig, key);
	if (what < 12)
		model_put(model, rig, dice, key, state);
	else if (what < 20)
		model_get(model, rig, key, state);
	else if (what < 35)
		model_edit(model, rig, dice, key, state);
	else if (what < 42)
		model_remove(model, rig, key, state);
	else if (what < 55)
		model_map_put(model, rig, dice, key);
	else if (what < 60)
		model_map_remove(model, rig, dice, key);
	else if (what < 64)
		model_map_walk(model, rig, dice, key, model_roll(dice, 2) == 0);
	else if (what < 65)
		model_map_clear(model, rig, key);
	else if (what < 75)
		model_list_append(model, rig, dice, key);
	else if (what < 77)
		model_list_check(model, rig, key);
	else if (what < 79)
		model_list_clear(model, rig, key);
	else if (what < 89)
		model_timer_set(model, rig, dice, key);
	else if (what < 92)
		model_timer_delete(model, rig, dice, key);
	else if (what < 98)
		model_timer_pop(model, rig, dice);
	else if (what < 99)
		model_delta(model, rig);
	else if (rig != NULL)
		state_clock(rig->store, model->now);
}

/* A run of operations behind a mark that may be undone. */
static inline void model_marked(struct model *model, struct model_rig *rig, struct model_dice *dice)
{
	struct model *before = malloc(sizeof(*before));
	uint64_t mark = rig == NULL ? 0 : arena_mark(&rig->arena);
	uint32_t count = model_roll(dice, 6);
	bool undo = model_roll(dice, 3) == 0;
	MODEL_REQUIRE(before != NULL);
	memcpy(before, model, sizeof(*before));
	for (uint32_t i = 0; i < count; i++)
		model_operation(model, rig, dice);
	if (undo && rig != NULL)
		arena_undo_to(&rig->arena, mark);
	if (undo)
		memcpy(model, before, sizeof(*before));
	free(before);
}

/* What a unit of a number does; the same each time. */
static inline void model_unit_once(struct model *model, struct model_rig *rig, struct model_dice *dice)
{
	uint32_t count = 1 + model_roll(dice, 5);
	model->now += model_roll(dice, 8);
	if (rig != NULL)
		state_clock(rig->store, model->now);
	for (uint32_t i = 0; i < count; i++) {
		if (model_roll(dice, 2) == 0)
			model_marked(model, rig, dice);
		else
			model_operation(model, rig, dice);
	}
	if (rig != NULL)
		*(uint64_t *)arena_session_write(&rig->arena, rig->channel) = model->units + 1;
}

/* Makes the next unit, sometimes after rolling another one back. The caller commits. */
static inline void model_unit(struct model *model, struct model_rig *rig)
{
	struct model_dice dice = {model->units * 1000003};
	if (model_roll(&dice, 4) == 0) {
		struct model *before = malloc(sizeof(*before));
		MODEL_REQUIRE(before != NULL);
		memcpy(before, model, sizeof(*before));
		model_unit_once(model, rig, &dice);
		memcpy(model, before, sizeof(*before));
		if (rig != NULL)
			arena_rollback(&rig->arena);
		free(before);
	}
	model_unit_once(model, rig, &dice);
	model->units++;
}

/* Compares all that there is. */
static inline void model_check(struct model *model, struct model_rig *rig)
{
	struct model_dice dice = {0};
	uint64_t timers = 0;
	state_clock(rig->store, model->now);
	MODEL_REQUIRE(model_rig_units(rig) == model->units);
	for (uint32_t key = 0; key < MODEL_KEYS; key++) {
		model_set_key(rig, key);
		for (int state = 0; state < 3; state++)
			model_get(model, rig, key, state);
		model_map_walk(model, rig, &dice, key, false);
		model_list_check(model, rig, key);
		for (uint32_t i = 0; i < STATE_TIMES * MODEL_TIMES * MODEL_TAGS; i++)
			timers += (&model->keys[key].timers[0][0][0])[i];
	}
	struct model_pieces seen = model_walk(model, rig);
	MODEL_REQUIRE(seen.entries[MODEL_TIMERS] == timers);
	for (int i = 0; i < MODEL_STATES; i++)
		MODEL_REQUIRE(state_size_of(rig->states[i]).entries == seen.entries[i]);
	MODEL_REQUIRE(state_size_of(rig->states[MODEL_TIMERS]).timers == timers);
	MODEL_REQUIRE(rig->arena.trouble == ARENA_FINE);
}

#endif
