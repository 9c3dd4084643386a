/*
 * Fuzz target: an arena that somebody has overwritten, and a successor that takes it over and works with it. An input is a script:
 * first what is overwritten in a good arena, then what is done with it. Whatever the bytes are, nobody may crash, go round for
 * good, or write outside of the arena: it lies between pages that nobody may touch, and a walk over what does not end would
 * run into the fuzzer's limit of time. Damage that is found is trouble, and ends the run as it ends a slot.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xxhash.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "worker/arena_log.h"
#include "worker/state_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHANNEL = 2, STATES = 5, PAGE = 4096, DAMAGES_MAX = 16, STEPS_MAX = 300, LOOK_MAX = 3000 };

/* The script, read from front to back; zeros behind its end. */
struct script {
	const uint8_t *at, *end;
};

static uint64_t number(struct script *script, unsigned bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < bytes && script->at < script->end; i++)
		value |= (uint64_t)*script->at++ << (8 * i);
	return value;
}

/* The arena at hand, and how it was before anything was overwritten. */
static uint8_t *memory, *good;
static uint64_t bytes;

struct rig {
	struct arena arena;
	struct state_store *store;
	struct state *states[STATES];
};

/* Opens the store and its handles; false: there is trouble. */
static bool attach(struct rig *rig)
{
	static const struct state_spec specs[STATES] = {
	    {.step = "s", .name = "value", .kind = STATE_VALUE},
	    {.step = "s", .name = "ttl", .kind = STATE_VALUE, .ttl_ms = 20},
	    {.step = "s", .name = "map", .kind = STATE_MAP},
	    {.step = "s", .name = "list", .kind = STATE_LIST},
	    {.step = "s", .name = "timers", .kind = STATE_TIMERS},
	};
	rig->store = state_store_create(&rig->arena, CHANNEL);
	for (int i = 0; i < STATES; i++) {
		rig->states[i] = state_open(rig->store, &specs[i]);
		if (rig->states[i] == NULL)
			return false;
	}
	return rig->arena.trouble == ARENA_FINE;
}

static void key_set(struct rig *rig, uint8_t *key)
{
	struct view view = {key, 1 + (*key & 7)};
	state_key(rig->store, view, key_hash_of(view), *key);
}

/* One call of the API. */
static void act(struct rig *rig, struct script *script)
{
	static const uint8_t filler[5000] = {1};
	struct state *value = rig->states[number(script, 1) & 1];
	uint8_t what = (uint8_t)number(script, 1), key[8] = {(uint8_t)(number(script, 1) & 31)}, sub = what >> 4;
	struct view some = {filler, number(script, 1) * (what > 200 ? 16 : 1)}, user = {&sub, 1}, got;
	enum state_time domain = (enum state_time)(sub & 1);
	struct state_iterator iterator = {0};
	struct state_timer timer;
	struct state_entry entry;
	void *at;
	bool is_new;
	key_set(rig, key);
	switch (what % 16) {
	case 0:
	case 1:
		state_put(value, some);
		break;
	case 2:
		state_get(value, &got);
		break;
	case 3:
		state_remove(value);
		break;
	case 4:
		if (state_edit(value, 24, &at, &is_new) == STATE_OK)
			memset(at, 7, 24);
		break;
	case 5:
		state_map_put(rig->states[2], user, some);
		break;
	case 6:
		state_map_remove(rig->states[2], user);
		break;
	case 7:
		for (int i = 0; i < LOOK_MAX && state_map_next(rig->states[2], &iterator, &user, &got) == STATE_OK; i++)
			;
		break;
	case 8:
		state_map_clear(rig->states[2]);
		break;
	case 9:
		state_list_append(rig->states[3], some);
		break;
	case 10:
		for (int i = 0; i < LOOK_MAX && state_list_next(rig->states[3], &iterator, &got) == STATE_OK; i++)
			;
		break;
	case 11:
		state_list_clear(rig->states[3]);
		break;
	case 12:
		state_timer_set(rig->states[4], domain, sub, (struct view){filler, sub & 3});
		break;
	case 13:
		state_timer_delete(rig->states[4], domain, sub, (struct view){filler, sub & 3});
		break;
	case 14:
		state_timer_pop(rig->states[4], domain, sub, &timer);
		break;
	default:
		for (uint64_t i = 0; i < some.size && state_delta_peek(rig->store, &entry) == STATE_OK; i++)
			state_delta_advance(rig->store);
	}
}

static void visit(void *context, const struct state_entry *entry)
{
	uint64_t *sum = context;
	*sum += XXH3_64bits(entry->value.size > 0 ? entry->value.data : entry->key.data, entry->value.size);
}

/* Calls, commits, rollbacks and what is undone, until the script or the arena is at its end. */
static void use(struct rig *rig, struct script *script)
{
	uint64_t sum = 0, mark = 0;
	for (int i = 0; i < STEPS_MAX && script->at < script->end && rig->arena.trouble != ARENA_BROKEN; i++) {
		uint8_t what = (uint8_t)number(script, 1);
		state_clock(rig->store, i);
		if (rig->arena.trouble != ARENA_FINE || what > 250) {
			arena_rollback(&rig->arena);
			mark = 0;
		} else if (what > 235) {
			mark = arena_mark(&rig->arena);
		} else if (what > 230 && mark != 0) {
			arena_undo_to(&rig->arena, mark);
		} else if (what > 190) {
			arena_commit(&rig->arena);
			mark = 0;
		} else {
			act(rig, script);
		}
	}
	for (uint64_t cursor = 0; cursor != UINT64_MAX && rig->arena.trouble != ARENA_BROKEN;)
		state_walk(rig->store, &cursor, 1000, visit, &sum);
	arena_rollback(&rig->arena);
	arena_session_drop(&rig->arena, CHANNEL);
	arena_rollback(&rig->arena);
	arena_idle(&rig->arena);
}

/* Makes a good arena, with something of everything, and a unit that is not finished. */
static void prepare(void)
{
	struct rig rig = {0};
	char why[128];
	bytes = arena_size_for(1 << 20);
	CHECK(bytes % PAGE == 0);
	uint8_t *all = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(all != MAP_FAILED && mprotect(all + PAGE, bytes, PROT_READ | PROT_WRITE) == 0);
	memory = all + PAGE;
	CHECK(arena_open(&rig.arena, memory, bytes, 0, why) == ARENA_OK && attach(&rig));
	arena_commit(&rig.arena);
	uint64_t dice = 1;
	for (int i = 0; i < 2000; i++) {
		uint8_t steps[4];
		for (int k = 0; k < 4; k++) {
			dice = dice * UINT64_C(6364136223846793005) + 1;
			steps[k] = (uint8_t)(dice >> 56);
		}
		act(&rig, &(struct script){steps, steps + sizeof(steps)});
		CHECK(rig.arena.trouble == ARENA_FINE);
		if (i % 10 == 0 && i < 1990)
			arena_commit(&rig.arena);
	}
	state_store_destroy(rig.store);
	good = malloc(bytes);
	CHECK(good != NULL);
	memcpy(good, memory, bytes);
}

/* Somewhere in the arena that is in use: its head, a session's words, the extent table, the log's ends, blocks. */
static uint64_t place_of(struct script *script, const struct arena *arena)
{
	uint64_t log = arena_offset(arena, arena->log_records), where = number(script, 3);
	switch (number(script, 1) % 8) {
	case 0:
		return where % sizeof(struct arena_head);
	case 1:
	case 2:
		return arena_offset(arena, arena_words(arena, CHANNEL)) + where % sizeof(struct arena_session);
	case 3:
		return arena_offset(arena, arena->extents) + where % 4;
	case 4:
		return log + where % 256;
	case 5:
		return arena->blocks_from - 1 - where % 4096;
	default:
		return arena->blocks_from + where % (ARENA_EXTENT / 2);
	}
}

/* Overwrites bytes, with some of the script's or with a word that is near what is there. */
static void damage(struct script *script, const struct arena *arena)
{
	uint64_t where = place_of(script, arena);
	uint8_t how = (uint8_t)number(script, 1);
	uint64_t count = 1 + how % 8;
	if (where + 8 > bytes)
		return;
	if (how >= 128) {
		uint32_t near;
		memcpy(&near, memory + where, sizeof(near));
		near += (uint32_t)number(script, 1) - 128;
		memcpy(memory + where, &near, sizeof(near));
		return;
	}
	for (uint64_t i = 0; i < count; i++)
		memory[where + i] = (uint8_t)number(script, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct arena layout;
	struct script script = {data, data + size};
	struct rig rig = {0};
	char why[128];
	if (memory == NULL) {
		prepare();
		CHECK(arena_open(&layout, memory, bytes, 0, why) == ARENA_OK);
	}
	memcpy(memory, good, bytes);
	uint64_t damages = number(&script, 1) % DAMAGES_MAX;
	for (uint64_t i = 0; i < damages; i++)
		damage(&script, &layout);
	if (arena_open(&rig.arena, memory, bytes, 0, why) != ARENA_OK)
		return 0;
	if (attach(&rig))
		use(&rig, &script);
	state_store_destroy(rig.store);
	return 0;
}
