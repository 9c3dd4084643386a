/*
 * The state: every call, bounds, what expires, the order of timers, deltas and restores, and the whole against a model, in one
 * process and with children that are killed.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check_main.h"
#include "tests/state_model.h"
#include "worker/state_parts.h"

static struct model_rig rig;
static uint64_t arena_bytes;

/* A fresh arena that children share. */
static void make_arena(uint64_t state)
{
	char why[128];
	arena_bytes = arena_size_for(state);
	void *memory =
	    mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	ck_assert_int_eq(arena_open(&rig.arena, memory, arena_bytes, 0, why), ARENA_OK);
}

static void setup(void)
{
	make_arena(64 << 20);
	model_rig_attach(&rig);
	arena_commit(&rig.arena);
}

static void teardown(void)
{
	state_store_destroy(rig.store);
	munmap(rig.arena.base, arena_bytes);
}

/* Opens the arena anew, as a successor does. */
static void take_over(void)
{
	char why[128];
	state_store_destroy(rig.store);
	if (arena_open(&rig.arena, rig.arena.base, arena_bytes, 0, why) != ARENA_OK)
		ck_abort_msg("%s", why);
	model_rig_attach(&rig);
}

/* How much longer than usual: CHAOS=n. */
static uint64_t chaos(void)
{
	const char *times = getenv("CHAOS");
	uint64_t number = times == NULL ? 1 : strtoull(times, NULL, 10);
	return number == 0 ? 1 : number;
}

START_TEST(it_is_what_a_simple_model_says)
{
	struct model *model = calloc(1, sizeof(*model));
	for (uint64_t i = 0; i < 6000 * chaos(); i++) {
		model_unit(model, &rig);
		arena_commit(&rig.arena);
		if (i % 64 == 63)
			take_over();
		if (i % 8 == 7)
			model_check(model, &rig);
	}
	model_delta(model, &rig);
	struct model_pieces seen = model_walk(model, &rig);
	ck_assert_mem_eq(seen.pieces, model->mirror_pieces, sizeof(seen.pieces));
	free(model);
}
END_TEST

/* Goes on from where the arena is, until it is killed. */
static void child_run(struct model *model)
{
	take_over();
	for (;;) {
		model_unit(model, &rig);
		arena_commit(&rig.arena);
	}
}

/* Lets a child run for some time, and kills it. Returns whether it was still running, as it must. */
static bool child_kill(struct model *model, uint32_t us)
{
	int status;
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		child_run(model);
	usleep(us); /* any time is right: it is where the child dies */
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Makes on the model what the dead have committed. */
static void follow(struct model *model)
{
	uint64_t units = model_rig_units(&rig);
	ck_assert_uint_ge(units, model->units);
	while (model->units < units)
		model_unit(model, NULL);
}

START_TEST(a_killed_process_leaves_whole_units)
{
	struct model *model = calloc(1, sizeof(*model));
	struct model_dice dice = {(uint64_t)getpid()};
	uint64_t units = 0;
	for (uint64_t i = 0; i < 600 * chaos() || units == 0;
	     i++) { /* on a busy machine few children come to anything */
		ck_assert(child_kill(model, model_roll(&dice, 3000)));
		take_over();
		follow(model);
		model_check(model, &rig);
		arena_rollback(&rig.arena);
		units = model->units;
	}
	free(model);
}
END_TEST

/* What a process knows of the state by its own calls stands while they do, and no longer. */
START_TEST(its_generation_changes_with_what_is_undone_or_restored)
{
	static const struct state_spec spec = {.step = "generation", .name = "value", .kind = STATE_VALUE};
	struct state *value = state_open(rig.store, &spec);
	struct state_entry entry = {.state = state_count(rig.store) - 1, .key = view_of("k"), .value = view_of("v")};
	const char *why;

	ck_assert_ptr_nonnull(value);
	arena_commit(&rig.arena);
	uint64_t generation = state_generation(rig.store);
	state_key(rig.store, view_of("a"), 1, 1);
	ck_assert_int_eq(state_put(value, view_of("1")), STATE_OK);
	arena_commit(&rig.arena);
	uint64_t mark = arena_mark(&rig.arena);
	ck_assert_int_eq(state_put(value, view_of("2")), STATE_OK);
	ck_assert_uint_eq(state_generation(rig.store), generation);
	arena_undo_to(&rig.arena, mark);
	ck_assert_uint_ne(state_generation(rig.store), generation);
	generation = state_generation(rig.store);
	arena_rollback(&rig.arena);
	ck_assert_uint_ne(state_generation(rig.store), generation);
	generation = state_generation(rig.store);
	ck_assert_int_eq(state_restore(rig.store, &entry, &why), STATE_OK);
	ck_assert_uint_ne(state_generation(rig.store), generation);
}
END_TEST

/* ---- Every call ------------------------------------------------------------------------------------------------------ */

static void key_set(const char *key)
{
	state_key(rig.store, view_of(key), key_hash_of(view_of(key)), 7);
}

/* Opens a state of its own for a test. */
static struct state *open_kind(const char *name, enum state_kind kind, enum state_partition partition, int64_t ttl_ms)
{
	struct state_spec spec = {.step = "test", .name = name, .kind = kind, .partition = partition, .ttl_ms = ttl_ms};
	struct state *state = state_open(rig.store, &spec);
	ck_assert_ptr_nonnull(state);
	return state;
}

#define ck_assert_value(state, expected)                                                                               \
	do {                                                                                                           \
		struct view is;                                                                                        \
		ck_assert_int_eq(state_get(state, &is), STATE_OK);                                                     \
		ck_assert(view_equal(is, view_of(expected)));                                                          \
	} while (0)

START_TEST(values_are_put_and_removed)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	struct view got;
	key_set("a");
	ck_assert_int_eq(state_get(value, &got), STATE_NONE);
	ck_assert_int_eq(state_remove(value), STATE_NONE);
	ck_assert_int_eq(state_put(value, view_of("one")), STATE_OK);
	ck_assert_value(value, "one");
	key_set("b");
	ck_assert_int_eq(state_get(value, &got), STATE_NONE);
	ck_assert_int_eq(state_put(value, view_of("")), STATE_OK);
	ck_assert_value(value, "");
	key_set("a");
	ck_assert_value(value, "one");
	ck_assert_int_eq(state_remove(value), STATE_OK);
	ck_assert_int_eq(state_remove(value), STATE_NONE);
	ck_assert_int_eq(state_get(value, &got), STATE_NONE);
	ck_assert_uint_eq(state_size_of(value).entries, 1);
}
END_TEST

/* The states of a session do not see one another's entries, whatever their keys. */
START_TEST(states_are_apart)
{
	struct state *a = open_kind("a", STATE_VALUE, STATE_BY_KEY, 0),
		     *b = open_kind("b", STATE_VALUE, STATE_BY_KEY, 0);
	struct state *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0);
	struct view got;
	key_set("k");
	ck_assert_int_eq(state_put(a, view_of("x")), STATE_OK);
	ck_assert_int_eq(state_get(b, &got), STATE_NONE);
	ck_assert_int_eq(state_map_get(map, view_of(""), &got), STATE_NONE);
	ck_assert_int_eq(state_map_put(map, view_of(""), view_of("y")), STATE_OK);
	ck_assert_uint_eq(state_map_count(map), 1);
	ck_assert_value(a, "x");
}
END_TEST

START_TEST(a_value_put_from_itself_is_itself)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	static uint8_t large[100000];
	struct view got;
	memset(large, 'x', sizeof(large));
	key_set("a");
	ck_assert_int_eq(state_put(value, view_of("0123456789")), STATE_OK);
	ck_assert_int_eq(state_get(value, &got), STATE_OK);
	ck_assert_int_eq(state_put(value, (struct view){got.data + 2, 5}), STATE_OK);
	ck_assert_value(value, "23456");
	ck_assert_int_eq(state_put(value, (struct view){large, sizeof(large)}), STATE_OK);
	ck_assert_int_eq(state_get(value, &got), STATE_OK);
	ck_assert_int_eq(state_put(value, (struct view){got.data + 1, got.size - 1}), STATE_OK);
	ck_assert_int_eq(state_get(value, &got), STATE_OK);
	ck_assert_uint_eq(got.size, sizeof(large) - 1);
	ck_assert_mem_eq(got.data, large, got.size);
}
END_TEST

START_TEST(editing_keeps_cuts_and_fills_up)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	void *bytes;
	bool is_new;
	key_set("a");
	ck_assert_int_eq(state_edit(value, 8, &bytes, &is_new), STATE_OK);
	ck_assert(is_new);
	ck_assert_mem_eq(bytes, "\0\0\0\0\0\0\0\0", 8);
	memcpy(bytes, "12345678", 8);
	ck_assert_int_eq(state_edit(value, 12, &bytes, &is_new), STATE_OK);
	ck_assert(!is_new);
	ck_assert_mem_eq(bytes, "12345678\0\0\0\0", 12);
	ck_assert_int_eq(state_edit(value, 4, &bytes, &is_new), STATE_OK);
	ck_assert_value(value, "1234");
	ck_assert_int_eq(state_edit(value, 50000, &bytes, &is_new), STATE_OK);
	ck_assert_mem_eq(bytes, "1234\0\0\0\0", 8);
	memset(bytes, 'y', 50000);
	arena_commit(&rig.arena);
	/* a large value is not changed in place, but for one that the unit itself made */
	ck_assert_int_eq(state_edit(value, 50000, &bytes, &is_new), STATE_OK);
	void *same = bytes;
	memset(bytes, 'z', 50000);
	ck_assert_int_eq(state_edit(value, 50000, &bytes, &is_new), STATE_OK);
	ck_assert_ptr_eq(bytes, same);
	arena_rollback(&rig.arena);
	ck_assert_int_eq(state_edit(value, 50000, &bytes, &is_new), STATE_OK);
	ck_assert_mem_eq(bytes, "yyyyyyyy", 8);
	ck_assert_int_eq(state_remove(value), STATE_OK);
	ck_assert_int_eq(state_edit(value, 8, &bytes, &is_new), STATE_OK);
	ck_assert(is_new);
	ck_assert_mem_eq(bytes, "\0\0\0\0\0\0\0\0", 8);
}
END_TEST

START_TEST(what_is_too_large_is_refused)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	struct state *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0),
		     *list = open_kind("l", STATE_LIST, STATE_BY_KEY, 0);
	struct state *timers = open_kind("t", STATE_TIMERS, STATE_BY_KEY, 0);
	uint8_t *bytes = calloc(1, STATE_VALUE_MAX + 1);
	void *at;
	bool is_new;
	ck_assert_ptr_nonnull(bytes);
	key_set("k");
	ck_assert_int_eq(state_put(value, (struct view){bytes, STATE_VALUE_MAX}), STATE_OK);
	ck_assert_int_eq(state_put(value, (struct view){bytes, STATE_VALUE_MAX + 1}), STATE_TOO_LARGE);
	ck_assert_int_eq(state_remove(value), STATE_OK);
	ck_assert_int_eq(state_edit(value, STATE_VALUE_MAX + 1, &at, &is_new), STATE_TOO_LARGE);
	ck_assert_int_eq(state_map_put(map, (struct view){bytes, STATE_SUBKEY_MAX}, view_of("x")), STATE_OK);
	ck_assert_int_eq(state_map_put(map, (struct view){bytes, STATE_SUBKEY_MAX + 1}, view_of("x")), STATE_TOO_LARGE);
	ck_assert_int_eq(state_map_remove(map, (struct view){bytes, STATE_SUBKEY_MAX + 1}), STATE_NONE);
	ck_assert_int_eq(state_list_append(list, (struct view){bytes, STATE_VALUE_MAX}), STATE_TOO_LARGE);
	ck_assert_int_eq(state_timer_set(timers, STATE_EVENT_TIME, 1, (struct view){bytes, STATE_TAG_MAX}), STATE_OK);
	ck_assert_int_eq(state_timer_set(timers, STATE_EVENT_TIME, 1, (struct view){bytes, STATE_TAG_MAX + 1}),
			 STATE_TOO_LARGE);
	arena_commit(&rig.arena);
	struct view longest = {bytes, STATE_KEY_MAX}, longer = {bytes, STATE_KEY_MAX + 1};
	state_key(rig.store, longest, 0, 0);
	ck_assert_int_eq(state_put(value, view_of("x")), STATE_OK);
	ck_assert_int_eq(state_map_put(map, (struct view){bytes, STATE_SUBKEY_MAX}, view_of("x")), STATE_OK);
	ck_assert_value(value, "x");
	state_key(rig.store, longer, 0, 0);
	ck_assert_int_eq(state_put(value, view_of("x")), STATE_TOO_LARGE);
	ck_assert_int_eq(state_list_append(list, view_of("x")), STATE_TOO_LARGE);
	ck_assert_int_eq(state_timer_set(timers, STATE_EVENT_TIME, 1, view_of("")), STATE_TOO_LARGE);
	ck_assert_int_eq(rig.arena.trouble, ARENA_FINE);
	ck_assert_uint_eq(state_size_of(value).largest_key, STATE_KEY_MAX + 1);
	ck_assert_uint_eq(state_size_of(value).largest_value, STATE_VALUE_MAX + 1);
	free(bytes);
}
END_TEST

START_TEST(maps_go_by_first_insertion)
{
	struct state *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0);
	struct state_iterator iterator = {0};
	struct view key, value;
	char order[8] = "";
	key_set("k");
	for (const char *c = "cabd"; *c != '\0'; c++)
		ck_assert_int_eq(state_map_put(map, (struct view){(const uint8_t *)c, 1}, view_of("1")), STATE_OK);
	ck_assert_int_eq(state_map_put(map, view_of("a"), view_of("2")), STATE_OK);
	ck_assert_int_eq(state_map_remove(map, view_of("c")), STATE_OK);
	ck_assert_int_eq(state_map_put(map, view_of("c"), view_of("3")), STATE_OK);
	/* b is removed while a is at hand, d while it is itself */
	while (state_map_next(map, &iterator, &key, &value) == STATE_OK) {
		strncat(order, (const char *)key.data, 1);
		if (key.data[0] == 'a')
			ck_assert_int_eq(state_map_remove(map, view_of("b")), STATE_OK);
		if (key.data[0] == 'd')
			ck_assert_int_eq(state_map_remove(map, key), STATE_OK);
	}
	ck_assert_str_eq(order, "adc");
	ck_assert_uint_eq(state_map_count(map), 2);
	ck_assert_int_eq(state_map_clear(map), STATE_OK);
	ck_assert_int_eq(state_map_clear(map), STATE_NONE);
	ck_assert_uint_eq(state_map_count(map), 0);
}
END_TEST

/* Also when that leaves the store with fewer entries than the iteration has seen. */
START_TEST(a_map_is_emptied_by_an_iteration)
{
	enum { ENTRIES = 100 };
	struct state *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0);
	struct state_iterator iterator = {0};
	struct view key, value;
	unsigned seen = 0;
	key_set("k");
	for (unsigned i = 0; i < ENTRIES; i++)
		ck_assert_int_eq(state_map_put(map, (struct view){(const uint8_t *)&i, sizeof(i)}, view_of("v")),
				 STATE_OK);
	arena_commit(&rig.arena);
	while (state_map_next(map, &iterator, &key, &value) == STATE_OK) {
		ck_assert_int_eq(state_map_remove(map, key), STATE_OK);
		seen++;
	}
	ck_assert_uint_eq(seen, ENTRIES);
	ck_assert_int_eq(rig.arena.trouble, ARENA_FINE);
	ck_assert_uint_eq(state_map_count(map), 0);
}
END_TEST

START_TEST(lists_keep_the_order_of_appending)
{
	struct state *list = open_kind("l", STATE_LIST, STATE_BY_KEY, 0);
	static uint8_t element[9000];
	for (int k = 0; k < 3; k++) {
		key_set(k == 0 ? "a" : k == 1 ? "b" : "a");
		for (uint32_t i = 0; i < 3000; i++) {
			memcpy(element, &i, sizeof(i));
			size_t size = i % 500 == 499 ? sizeof(element) : 4 + i % 40;
			ck_assert_int_eq(state_list_append(list, (struct view){element, size}), STATE_OK);
		}
		arena_commit(&rig.arena);
	}
	struct state_iterator iterator = {0};
	struct view value;
	key_set("a");
	ck_assert_uint_eq(state_list_count(list), 6000);
	for (uint32_t i = 0; i < 6000; i++) {
		uint32_t number = i % 3000;
		ck_assert_int_eq(state_list_next(list, &iterator, &value), STATE_OK);
		ck_assert_uint_eq(value.size, number % 500 == 499 ? sizeof(element) : 4 + number % 40);
		ck_assert_mem_eq(value.data, &number, sizeof(number));
	}
	ck_assert_int_eq(state_list_next(list, &iterator, &value), STATE_NONE);
	uint64_t pieces = state_size_of(list).entries;
	ck_assert_uint_lt(pieces, 200); /* of about 4 KiB, and a few that are smaller or larger */
	ck_assert_int_eq(state_list_clear(list), STATE_OK);
	ck_assert_uint_eq(state_list_count(list), 0);
	ck_assert_int_eq(state_list_clear(list), STATE_NONE);
	key_set("b");
	ck_assert_uint_eq(state_list_count(list), 3000);
}
END_TEST

/* ---- Time ------------------------------------------------------------------------------------------------------------- */

START_TEST(values_expire_and_are_swept)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 100);
	struct state *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 100),
		     *kept = open_kind("k", STATE_VALUE, STATE_BY_KEY, 0);
	struct state_iterator iterator = {0};
	struct view got, key;
	void *bytes;
	bool is_new;
	state_clock(rig.store, 1000);
	for (char name[] = "a"; name[0] <= 'z'; name[0]++) {
		key_set(name);
		ck_assert_int_eq(state_put(value, view_of("x")), STATE_OK);
		ck_assert_int_eq(state_map_put(map, view_of("u"), view_of("x")), STATE_OK);
		ck_assert_int_eq(state_put(kept, view_of("x")), STATE_OK);
	}
	state_clock(rig.store, 1050);
	key_set("b");
	ck_assert_int_eq(state_put(value, view_of("y")), STATE_OK);
	ck_assert_int_eq(state_map_put(map, view_of("w"), view_of("y")), STATE_OK);
	state_clock(rig.store, 1099);
	key_set("a");
	ck_assert_value(value, "x");
	state_clock(rig.store, 1100);
	ck_assert_int_eq(state_get(value, &got), STATE_NONE);
	state_clock(rig.store, 1099); /* back, as with a unit that is rolled back */
	ck_assert_value(value, "x");
	state_clock(rig.store, 1100);
	ck_assert_int_eq(state_get(value, &got), STATE_NONE);
	ck_assert_int_eq(state_map_get(map, view_of("u"), &got), STATE_NONE);
	ck_assert_value(kept, "x");
	ck_assert_int_eq(state_edit(value, 1, &bytes, &is_new), STATE_OK);
	ck_assert(is_new);
	key_set("b");
	ck_assert_value(value, "y");
	ck_assert_int_eq(state_map_next(map, &iterator, &key, &got), STATE_OK);
	ck_assert(view_equal(key, view_of("w")));
	ck_assert_int_eq(state_map_next(map, &iterator, &key, &got), STATE_NONE);
	/* every changing call looks at a bucket */
	for (int i = 0; i < 2000; i++)
		ck_assert_int_eq(state_put(kept, view_of("z")), STATE_OK);
	ck_assert_uint_eq(state_size_of(value).entries, 2);
	ck_assert_uint_eq(state_size_of(map).entries, 1);
	ck_assert_uint_eq(state_size_of(kept).entries, 26);
}
END_TEST

START_TEST(a_ttl_is_part_of_the_format)
{
	struct state_spec spec = {.step = "test", .name = "v", .kind = STATE_VALUE, .version = 3, .ttl_ms = 100};
	struct state *state = state_open(rig.store, &spec);
	ck_assert_ptr_nonnull(state);
	ck_assert_uint_eq(state_spec_of(rig.store, state_count(rig.store) - 1)->version, 3 + STATE_VERSION_TTL);
	spec.ttl_ms = 200;
	ck_assert_ptr_eq(state_open(rig.store, &spec), state);
	spec.ttl_ms = 0;
	ck_assert_ptr_null(state_open(rig.store, &spec));
}
END_TEST

START_TEST(timers_come_by_time_key_and_tag)
{
	static const struct {
		int64_t time;
		const char *key, *tag;
	} order[] = {{INT64_MIN, "z", ""}, {-5, "a", ""}, {0, "a", ""},  {0, "a", "x"},  {0, "aa", ""},
		     {0, "b", "x"},        {7, "", ""},   {7, "b", "a"}, {7, "b", "aa"}, {INT64_MAX, "a", ""}};
	enum { COUNT = sizeof(order) / sizeof(order[0]) };
	struct state *timers = open_kind("t", STATE_TIMERS, STATE_BY_KEY, 0);
	struct state_timer timer;
	for (unsigned from = 0; from < COUNT; from++) {
		for (unsigned i = 0; i < COUNT; i++) {
			unsigned k = (from + i * 7) % COUNT;
			key_set(order[k].key);
			for (int twice = 0; twice < 2; twice++)
				ck_assert_int_eq(
				    state_timer_set(timers, STATE_EVENT_TIME, order[k].time, view_of(order[k].tag)),
				    STATE_OK);
		}
		ck_assert_int_eq(state_timer_first(timers, STATE_PROCESSING_TIME), INT64_MAX);
		ck_assert_uint_eq(state_size_of(timers).timers, COUNT);
		for (unsigned i = 0; i < COUNT; i++) {
			ck_assert_int_eq(state_timer_first(timers, STATE_EVENT_TIME), order[i].time);
			if (order[i].time > INT64_MIN)
				ck_assert_int_eq(state_timer_pop(timers, STATE_EVENT_TIME, order[i].time - 1, &timer),
						 STATE_NONE);
			ck_assert_int_eq(state_timer_pop(timers, STATE_EVENT_TIME, INT64_MAX, &timer), STATE_OK);
			ck_assert_int_eq(timer.time_ms, order[i].time);
			ck_assert(view_equal(timer.key, view_of(order[i].key)));
			ck_assert(view_equal(timer.tag, view_of(order[i].tag)));
			ck_assert_uint_eq(timer.key_group, 7);
			ck_assert_int_eq(timer.key_hash, key_hash_of(timer.key));
		}
		ck_assert_int_eq(state_timer_pop(timers, STATE_EVENT_TIME, INT64_MAX, &timer), STATE_NONE);
		arena_commit(&rig.arena);
	}
}
END_TEST

START_TEST(a_timer_makes_its_key_the_current_one)
{
	struct state *timers = open_kind("t", STATE_TIMERS, STATE_BY_KEY, 0),
		     *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	struct state_timer timer;
	key_set("a");
	ck_assert_int_eq(state_put(value, view_of("of a")), STATE_OK);
	ck_assert_int_eq(state_timer_set(timers, STATE_PROCESSING_TIME, 5, view_of("tag")), STATE_OK);
	key_set("b");
	ck_assert_int_eq(state_timer_pop(timers, STATE_PROCESSING_TIME, 5, &timer), STATE_OK);
	ck_assert_value(value, "of a");
	/* it may be set again from within */
	ck_assert_int_eq(state_timer_set(timers, STATE_PROCESSING_TIME, 6, timer.tag), STATE_OK);
	ck_assert_int_eq(state_timer_first(timers, STATE_PROCESSING_TIME), 6);
}
END_TEST

/* Puts a value under its own number for so many keys from a number on; or looks whether it is there. */
static void number_values(struct state *value, uint32_t from, uint32_t to, bool look)
{
	char text[16];

	for (uint32_t i = from; i < to; i++) {
		snprintf(text, sizeof(text), "%u", i);
		key_set(text);
		if (look)
			ck_assert_value(value, text);
		else
			ck_assert_int_eq(state_put(value, view_of(text)), STATE_OK);
	}
}

/* Every third of so many numbers goes. */
static void remove_thirds(struct state *value, uint32_t to)
{
	char text[16];

	for (uint32_t i = 0; i < to; i += 3) {
		snprintf(text, sizeof(text), "%u", i);
		key_set(text);
		ck_assert_int_eq(state_remove(value), STATE_OK);
		state_delta_advance(rig.store);
		ck_assert_int_eq(state_remove(value), STATE_NONE);
	}
}

/* What is in a bucket is found and what is not is not, with as many bits for marks as an arena leaves: none, one, or some; behind insertions,
 * removals and splits. */
START_TEST(marks_of_buckets_hide_nothing)
{
	enum { COUNT = 6000 };
	static const uint64_t sizes[] = {UINT64_C(64) << 30, UINT64_C(32) << 30, UINT64_C(1) << 30};
	static const uint32_t marks[] = {0, 1, 6};
	struct state *value = open_kind("marked", STATE_VALUE, STATE_BY_KEY, 0);
	struct view is;

	rig.arena.size = sizes[_i];
	table_marks_init(rig.store);
	rig.arena.size = arena_bytes;
	ck_assert_uint_eq(rig.store->mark_count, marks[_i]);
	number_values(value, 0, COUNT / 2, false);
	while (state_dirty_entries(rig.store) > 0)
		state_delta_advance(rig.store);
	arena_commit(&rig.arena);
	remove_thirds(value, COUNT / 2);
	arena_commit(&rig.arena);
	number_values(value, COUNT / 2, COUNT, false);
	for (uint32_t i = 0; i < COUNT / 2; i++) {
		char text[16];
		snprintf(text, sizeof(text), "%u", i);
		key_set(text);
		ck_assert_int_eq(state_get(value, &is), i % 3 == 0 ? STATE_NONE : STATE_OK);
	}
	number_values(value, COUNT / 2, COUNT, true);
	ck_assert_uint_eq(state_size_of(value).entries, COUNT - COUNT / 6);
}
END_TEST

/* A table is made for what will come, in pieces, be it empty or not; what is undone of it, or left by a predecessor, is gone on with. */
START_TEST(a_table_is_reserved_in_pieces)
{
	enum { ENTRIES = 500000, STEPS = 10000, BEFORE = 200, BEHIND = 3000 };
	const uint32_t before = _i == 0 ? 0 : BEFORE, buckets = (ENTRIES * 4 + 2) / 3;
	struct state *value = open_kind("reserved", STATE_VALUE, STATE_BY_KEY, 0);
	uint32_t pieces = 1;

	number_values(value, 0, before, false);
	arena_commit(&rig.arena);
	for (; state_reserve(rig.store, ENTRIES, STEPS); pieces++) {
		ck_assert_uint_eq(rig.arena.trouble, ARENA_FINE);
		if (pieces % 4 == 3) {
			arena_rollback(&rig.arena);
			continue;
		}
		arena_commit(&rig.arena);
		take_over();
	}
	arena_commit(&rig.arena);
	ck_assert_uint_ge(pieces, buckets / STEPS);
	ck_assert_uint_eq(rig.store->words->bucket_count, buckets);
	value = open_kind("reserved", STATE_VALUE, STATE_BY_KEY, 0);
	number_values(value, before, BEHIND, false);
	arena_commit(&rig.arena);
	take_over();
	number_values(open_kind("reserved", STATE_VALUE, STATE_BY_KEY, 0), 0, BEHIND, true);
	ck_assert_uint_eq(rig.store->words->bucket_count, buckets);
	ck_assert(!state_reserve(rig.store, ENTRIES / 2, STEPS));
	ck_assert_uint_eq(rig.store->words->bucket_count, buckets);
}
END_TEST

/* Many timers, of which some are deleted, in and out in whatever order. */
START_TEST(timers_stay_in_order_by_the_thousand)
{
	enum { COUNT = 5000 };
	struct state *timers = open_kind("t", STATE_TIMERS, STATE_BY_KEY, 0);
	struct model_dice dice = {3};
	struct state_timer timer;
	static int64_t times[COUNT];
	char key[16];
	for (int i = 0; i < COUNT; i++) {
		snprintf(key, sizeof(key), "%d", i);
		key_set(key);
		times[i] = model_roll(&dice, 1000);
		ck_assert_int_eq(state_timer_set(timers, STATE_EVENT_TIME, times[i], view_of("")), STATE_OK);
		if (i % 3 == 2) {
			int other = (int)model_roll(&dice, (uint32_t)i + 1);
			snprintf(key, sizeof(key), "%d", other);
			key_set(key);
			ck_assert_int_eq(state_timer_delete(timers, STATE_EVENT_TIME, times[other], view_of("")),
					 times[other] >= 0 ? STATE_OK : STATE_NONE);
			times[other] = -1;
		}
		if (i % 50 == 0)
			arena_commit(&rig.arena);
	}
	uint64_t left = 0, popped = 0;
	int64_t last = -1;
	for (int i = 0; i < COUNT; i++)
		left += times[i] >= 0;
	while (state_timer_pop(timers, STATE_EVENT_TIME, INT64_MAX, &timer) == STATE_OK) {
		ck_assert_int_ge(timer.time_ms, last);
		last = timer.time_ms;
		if (++popped % 50 == 0)
			arena_commit(&rig.arena);
	}
	ck_assert_int_eq(rig.arena.trouble, ARENA_FINE);
	ck_assert_uint_eq(popped, left);
}
END_TEST

/* ---- Handles ------------------------------------------------------------------------------------------------------------ */

START_TEST(handles_are_found_again_by_name)
{
	struct state_spec spec = {.step = "s", .name = "n", .kind = STATE_MAP, .version = 4};
	uint32_t count = state_count(rig.store);
	struct state *state = state_open(rig.store, &spec);
	ck_assert_ptr_eq(state_open(rig.store, &spec), state);
	ck_assert_uint_eq(state_count(rig.store), count + 1);
	arena_commit(&rig.arena);
	state_store_destroy(rig.store);
	rig.store = state_store_create(&rig.arena, MODEL_CHANNEL);
	ck_assert_uint_eq(state_count(rig.store), count + 1);
	const struct state_spec *found = state_spec_of(rig.store, count);
	ck_assert_str_eq(found->step, "s");
	ck_assert_str_eq(found->name, "n");
	ck_assert_int_eq(found->kind, STATE_MAP);
	ck_assert_uint_eq(found->version, 4);
	spec.version = 5;
	ck_assert_ptr_nonnull(state_open(rig.store, &spec));
	ck_assert_uint_eq(state_spec_of(rig.store, count)->version, 5);
	spec.kind = STATE_VALUE;
	ck_assert_ptr_null(state_open(rig.store, &spec));
	spec.kind = STATE_MAP;
	spec.partition = STATE_SPLIT;
	ck_assert_ptr_null(state_open(rig.store, &spec));
}
END_TEST

START_TEST(there_are_so_many_handles_and_no_more)
{
	static char names[STATE_HANDLES_MAX][8];
	struct state_spec spec = {.step = "s", .kind = STATE_VALUE};
	for (uint32_t i = state_count(rig.store); i < STATE_HANDLES_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "%u", i);
		spec.name = names[i];
		ck_assert_ptr_nonnull(state_open(rig.store, &spec));
	}
	spec.name = "one more";
	ck_assert_ptr_null(state_open(rig.store, &spec));
	ck_assert_int_eq(rig.arena.trouble, ARENA_FINE);
}
END_TEST

/* ---- Deltas and restores -------------------------------------------------------------------------------------------------- */

/* An entry that a client keeps. */
struct kept {
	struct state_entry entry;
	bool used;
};

enum { KEPT_MAX = 4000 };

/* What a client has: the newest of each (state, key, sub). */
struct client {
	struct kept kept[KEPT_MAX];
	size_t count;
};

static struct view copy_of(struct view from)
{
	uint8_t *bytes = malloc(from.size + 1);
	ck_assert_ptr_nonnull(bytes);
	if (from.size > 0)
		memcpy(bytes, from.data, from.size);
	return (struct view){bytes, from.size};
}

/* Keeps an entry, or forgets one. */
static void client_take(void *context, const struct state_entry *entry)
{
	struct client *client = context;
	struct kept *found = NULL;
	for (size_t i = 0; i < client->count && found == NULL; i++) {
		struct kept *kept = &client->kept[i];
		if (kept->entry.state == entry->state && view_equal(kept->entry.key, entry->key) &&
		    view_equal(kept->entry.sub, entry->sub))
			found = kept;
	}
	if (found == NULL) {
		ck_assert_uint_lt(client->count, KEPT_MAX);
		found = &client->kept[client->count++];
		found->entry = *entry;
		found->entry.key = copy_of(entry->key);
		found->entry.sub = copy_of(entry->sub);
		found->entry.value = (struct view){0};
	}
	free((void *)found->entry.value.data);
	found->entry.value = copy_of(entry->value);
	found->used = !entry->removed;
}

/* Takes all deltas of a store. */
static void client_drain(struct client *client, struct state_store *store)
{
	struct state_entry entry;
	while (state_delta_peek(store, &entry) == STATE_OK) {
		client_take(client, &entry);
		state_delta_advance(store);
	}
	arena_commit(&rig.arena);
}

static void client_free(struct client *client)
{
	for (size_t i = 0; i < client->count; i++) {
		free((void *)client->kept[i].entry.key.data);
		free((void *)client->kept[i].entry.sub.data);
		free((void *)client->kept[i].entry.value.data);
	}
	free(client);
}

/* A model's state in another session, restored from what a client has of some key groups; in a shuffled order. */
static void client_restore(const struct client *client, struct model_rig *to, uint32_t first, uint32_t last)
{
	const char *why;
	static const size_t primes[] = {7, 11, 13};
	size_t step = client->count % primes[0] != 0   ? primes[0]
		      : client->count % primes[1] != 0 ? primes[1]
						       : primes[2];
	for (size_t i = 0, at = 0; i < client->count; i++, at = (at + step) % client->count) {
		const struct kept *kept = &client->kept[at];
		if (!kept->used || kept->entry.key_group < first || kept->entry.key_group > last)
			continue;
		enum state_result result = state_restore(to->store, &kept->entry, &why);
		if (result != STATE_OK)
			ck_abort_msg("%s", why);
		if (i % 16 == 0)
			arena_commit(&to->arena);
	}
	arena_commit(&to->arena);
}

/* Another session of the same arena, with the model's states. */
static struct model_rig rig_on(uint32_t channel)
{
	struct model_rig other = {.arena = rig.arena, .channel = channel};
	other.store = state_store_create(&rig.arena, channel);
	for (int i = 0; i < MODEL_STATES; i++)
		other.states[i] = state_open(other.store, state_spec_of(rig.store, (uint32_t)i));
	arena_commit(&rig.arena);
	return other;
}

/* Sorted hashes of the maps, which are restored in any order, and the model otherwise, must be equal for some keys. */
static void check_restored(struct model *model, struct model_rig *to, uint32_t first, uint32_t last)
{
	state_clock(to->store, model->now);
	for (uint32_t key = first; key <= last; key++) {
		struct state_iterator iterator = {0};
		struct view user_key, value;
		uint32_t entries = 0;
		model_set_key(to, key);
		for (int state = 0; state < 3; state++)
			model_get(model, to, key, state);
		while (state_map_next(to->states[MODEL_MAP], &iterator, &user_key, &value) == STATE_OK) {
			const struct model_value *is = &model->keys[key].map[model_sub_of(user_key)];
			ck_assert_uint_eq(is->hash, model_hash(value));
			entries++;
		}
		for (int i = 0; i < MODEL_SUBS; i++)
			entries -= model->keys[key].map[i].hash != 0;
		ck_assert_uint_eq(entries, 0);
		model_list_check(model, to, key);
	}
}

/* Pops all timers of a domain from one store or from two, and says what came in a hash. */
static uint64_t timers_of(struct model_rig *a, struct model_rig *b, enum state_time domain)
{
	uint64_t sum = 0;
	for (;;) {
		struct state_timer timer;
		int64_t first = state_timer_first(a->states[MODEL_TIMERS], domain);
		struct model_rig *from = a;
		if (b != NULL && state_timer_first(b->states[MODEL_TIMERS], domain) < first)
			from = b;
		if (state_timer_pop(from->states[MODEL_TIMERS], domain, INT64_MAX, &timer) != STATE_OK &&
		    (b == NULL || state_timer_pop(b->states[MODEL_TIMERS], domain, INT64_MAX, &timer) != STATE_OK))
			break;
		/* keys of two stores are not in one order: each timer is summed by itself, times are in order */
		sum = sum * 1000003 + (uint64_t)timer.time_ms + 1;
	}
	return sum;
}

/* A snapshot of one session is restored into two, by key groups, and theirs into one again. */
START_TEST(what_is_sent_can_be_restored_split_and_merged)
{
	struct model *model = calloc(1, sizeof(*model));
	struct client *client = calloc(1, sizeof(*client)), *both = calloc(1, sizeof(*both));
	for (int i = 0; i < 400; i++) {
		model_unit(model, &rig);
		arena_commit(&rig.arena);
	}
	struct model_rig all = rig_on(10);
	/* all entries anew: a walk says what a client that has followed from the start must have */
	client_drain(client, rig.store);
	for (uint64_t cursor = 0; cursor != UINT64_MAX;)
		state_walk(rig.store, &cursor, 100, client_take, client);
	client_restore(client, &all, 0, MODEL_KEYS);
	check_restored(model, &all, 0, MODEL_KEYS - 1);
	ck_assert_uint_eq(state_dirty_entries(all.store), 0);
	struct model_rig low = rig_on(11), high = rig_on(12), merged = rig_on(13);
	client_restore(client, &low, 0, 9);
	client_restore(client, &high, 10, MODEL_KEYS);
	check_restored(model, &low, 0, 9);
	check_restored(model, &high, 10, MODEL_KEYS - 1);
	ck_assert_uint_eq(state_size_of(low.states[MODEL_TIMERS]).timers +
			      state_size_of(high.states[MODEL_TIMERS]).timers,
			  state_size_of(all.states[MODEL_TIMERS]).timers);
	for (uint64_t cursor = 0; cursor != UINT64_MAX;)
		state_walk(low.store, &cursor, 100, client_take, both);
	for (uint64_t cursor = 0; cursor != UINT64_MAX;)
		state_walk(high.store, &cursor, 100, client_take, both);
	client_restore(both, &merged, 0, MODEL_KEYS);
	check_restored(model, &merged, 0, MODEL_KEYS - 1);
	for (enum state_time domain = STATE_EVENT_TIME; domain < STATE_TIMES; domain++) {
		uint64_t whole = timers_of(&all, NULL, domain);
		ck_assert_uint_eq(timers_of(&merged, NULL, domain), whole);
		ck_assert_uint_eq(timers_of(&low, &high, domain), whole);
	}
	struct model_rig *rigs[] = {&all, &low, &high, &merged};
	for (int i = 0; i < 4; i++)
		state_store_destroy(rigs[i]->store);
	client_free(client);
	client_free(both);
	free(model);
}
END_TEST

START_TEST(only_what_changed_is_sent)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	struct state_entry entry;
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_NONE);
	key_set("a");
	ck_assert_int_eq(state_put(value, view_of("1")), STATE_OK);
	key_set("b");
	ck_assert_int_eq(state_put(value, view_of("2")), STATE_OK);
	key_set("a");
	ck_assert_int_eq(state_put(value, view_of("333")), STATE_OK);
	ck_assert_uint_eq(state_dirty_entries(rig.store), 2);
	ck_assert_uint_eq(state_dirty_bytes(rig.store), 6);
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_OK);
	ck_assert(view_equal(entry.key, view_of("a")) && view_equal(entry.value, view_of("333")) && !entry.removed);
	ck_assert_uint_eq(entry.key_group, 7);
	ck_assert_uint_eq(entry.state, state_count(rig.store) - 1);
	state_delta_advance(rig.store);
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_OK);
	ck_assert(view_equal(entry.key, view_of("b")));
	state_delta_advance(rig.store);
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_NONE);
	/* what came and went between two deltas is nobody's business; what was sent is to be forgotten, once */
	key_set("c");
	ck_assert_int_eq(state_put(value, view_of("3")), STATE_OK);
	ck_assert_int_eq(state_remove(value), STATE_OK);
	key_set("b");
	ck_assert_int_eq(state_remove(value), STATE_OK);
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_OK);
	ck_assert(view_equal(entry.key, view_of("b")) && entry.removed && entry.value.size == 0);
	state_delta_advance(rig.store);
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_NONE);
	ck_assert_uint_eq(state_dirty_bytes(rig.store), 0);
	/* a removal that is taken back is a change */
	key_set("a");
	ck_assert_int_eq(state_remove(value), STATE_OK);
	ck_assert_int_eq(state_put(value, view_of("4")), STATE_OK);
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_OK);
	ck_assert(view_equal(entry.value, view_of("4")) && !entry.removed);
	ck_assert_uint_eq(state_dirty_entries(rig.store), 1);
}
END_TEST

/* What came and went behind an entry that was not sent yet is dropped piece by piece: all of it is more than a unit can undo. */
START_TEST(what_came_and_went_is_dropped_in_pieces)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	struct state_entry entry;
	enum state_result found;
	uint32_t pieces = 0;

	key_set("first");
	ck_assert_int_eq(state_put(value, view_of("1")), STATE_OK);
	for (uint32_t i = 0; i < 100000; i++) {
		char key[16];
		snprintf(key, sizeof(key), "%u", i);
		key_set(key);
		ck_assert_int_eq(state_put(value, view_of("1")), STATE_OK);
		ck_assert_int_eq(state_remove(value), STATE_OK);
		arena_commit(&rig.arena);
	}
	ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_OK);
	ck_assert(view_equal(entry.key, view_of("first")));
	state_delta_advance(rig.store);
	while ((found = state_delta_peek(rig.store, &entry)) == STATE_AGAIN) {
		arena_commit(&rig.arena);
		pieces++;
	}
	ck_assert_int_eq(found, STATE_NONE);
	ck_assert_uint_eq(pieces, 100000 / STATE_PURGE_MAX);
	ck_assert_uint_eq(state_dirty_entries(rig.store), 0);
}
END_TEST

START_TEST(memory_of_what_is_gone_is_used_again)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0),
		     *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0);
	uint64_t first = 0;
	struct state_entry entry;
	for (uint32_t round = 0; round < 40; round++) {
		for (uint32_t i = 0; i < 500; i++) {
			char key[16];
			snprintf(key, sizeof(key), "%u", i);
			key_set(key);
			ck_assert_int_eq(state_put(value, (struct view){(const uint8_t *)rig.arena.base, i * 5}),
					 STATE_OK);
			ck_assert_int_eq(state_map_put(map, view_of("u"), view_of("x")), STATE_OK);
			ck_assert_int_eq(state_map_put(map, view_of("w"), view_of("x")), STATE_OK);
			if (round % 2 == 1) {
				ck_assert_int_eq(state_remove(value), STATE_OK);
				ck_assert_int_eq(state_map_clear(map), STATE_OK);
			}
			arena_commit(&rig.arena);
		}
		while (state_delta_peek(rig.store, &entry) == STATE_OK)
			state_delta_advance(rig.store);
		arena_commit(&rig.arena);
		if (round == 1)
			first = state_bytes(rig.store);
		if (round % 2 == 1)
			ck_assert_uint_eq(state_bytes(rig.store), first);
	}
	ck_assert_uint_le(arena_session_usage(&rig.arena, MODEL_CHANNEL).extents, 8 << 20);
}
END_TEST

START_TEST(lists_without_keys_are_appended_to_when_restored)
{
	struct state *list = open_kind("l", STATE_LIST, STATE_SPLIT, 0);
	static const uint8_t piece[] = {1, 0, 0, 0, 'a', 0, 0, 0, 0, 2, 0, 0, 0, 'b', 'c'}, place[8] = {0};
	struct state_entry entry = {.state = state_count(rig.store) - 1,
				    .key = view_of(""),
				    .sub = {place, 8},
				    .value = {piece, sizeof(piece)}};
	struct state_iterator iterator = {0};
	struct view value;
	const char *why;
	state_key(rig.store, view_of(""), 0, 0);
	ck_assert_int_eq(state_list_append(list, view_of("first")), STATE_OK);
	ck_assert_int_eq(state_restore(rig.store, &entry, &why), STATE_OK);
	ck_assert_int_eq(state_restore(rig.store, &entry, &why), STATE_OK); /* the same place of another subtask */
	ck_assert_uint_eq(state_list_count(list), 7);
	static const char *const expected[] = {"first", "a", "", "bc", "a", "", "bc"};
	for (int i = 0; i < 7; i++) {
		ck_assert_int_eq(state_list_next(list, &iterator, &value), STATE_OK);
		ck_assert(view_equal(value, view_of(expected[i])));
	}
	ck_assert_uint_gt(state_dirty_entries(rig.store), 0);
}
END_TEST

/* Restores what cannot be, and expects words. */
static void expect_refused(struct state_entry entry, const char *words)
{
	const char *why = "";
	ck_assert_int_eq(state_restore(rig.store, &entry, &why), STATE_TOO_LARGE);
	if (strstr(why, words) == NULL)
		ck_abort_msg("\"%s\" does not say \"%s\"", why, words);
	ck_assert_int_eq(rig.arena.trouble, ARENA_FINE);
	arena_rollback(&rig.arena);
}

/* With the time before it, where the state has one, it is larger than a step could make it. */
START_TEST(the_largest_value_can_be_restored)
{
	uint8_t *bytes = calloc(1, STATE_VALUE_MAX + 8);
	for (int64_t ttl = 0; ttl <= 100; ttl += 100) {
		struct state *state = open_kind(ttl == 0 ? "plain" : "aging", STATE_VALUE, STATE_BY_KEY, ttl);
		struct state_entry entry;
		struct view value;
		const char *why;
		key_set("k");
		ck_assert_int_eq(state_put(state, (struct view){bytes, STATE_VALUE_MAX}), STATE_OK);
		ck_assert_int_eq(state_delta_peek(rig.store, &entry), STATE_OK);
		memcpy(bytes, entry.value.data, entry.value.size);
		entry.value.data = bytes;
		entry.key = view_of("k");
		ck_assert_int_eq(state_remove(state), STATE_OK);
		arena_commit(&rig.arena);
		ck_assert_int_eq(state_restore(rig.store, &entry, &why), STATE_OK);
		ck_assert_int_eq(state_get(state, &value), STATE_OK);
		ck_assert_uint_eq(value.size, STATE_VALUE_MAX);
		ck_assert_int_eq(state_remove(state), STATE_OK);
		state_delta_advance(rig.store);
		arena_commit(&rig.arena);
	}
	free(bytes);
}
END_TEST

START_TEST(what_cannot_be_restored_is_refused_in_words)
{
	static uint8_t bytes[STATE_KEY_MAX + 1], place[8] = {0}, timer[9] = {0};
	static const uint8_t cut[] = {9, 0, 0, 0, 'a'};
	const char *why;
	struct state_entry value = {.state = MODEL_VALUE, .key = view_of("k"), .value = view_of("v")};
	expect_refused((struct state_entry){.state = MODEL_STATES}, "a state that there is not");
	expect_refused((struct state_entry){.state = MODEL_VALUE, .removed = true}, "removed");
	expect_refused((struct state_entry){.state = MODEL_VALUE, .key = {bytes, sizeof(bytes)}}, "too long");
	expect_refused((struct state_entry){.state = MODEL_MAP, .sub = {bytes, 65536}}, "too long");
	expect_refused((struct state_entry){.state = MODEL_VALUE, .key_group = 65536}, "key group");
	expect_refused((struct state_entry){.state = MODEL_VALUE, .sub = view_of("x")}, "a user key");
	expect_refused((struct state_entry){.state = MODEL_EXPIRING, .value = view_of("short")}, "no time");
	expect_refused((struct state_entry){.state = MODEL_TIMERS, .sub = view_of("x")}, "a timer is none");
	timer[0] = STATE_TIMES;
	expect_refused((struct state_entry){.state = MODEL_TIMERS, .sub = {timer, 9}}, "a timer is none");
	timer[0] = 0;
	expect_refused((struct state_entry){.state = MODEL_TIMERS, .sub = {timer, 9}, .value = view_of("x")},
		       "a timer is none");
	expect_refused((struct state_entry){.state = MODEL_LIST, .sub = view_of("x")}, "a piece of a list is none");
	expect_refused((struct state_entry){.state = MODEL_LIST, .sub = {place, 8}, .value = {cut, 5}},
		       "a piece of a list is none");
	place[4] = 1;
	expect_refused((struct state_entry){.state = MODEL_LIST, .sub = {place, 8}}, "beyond the last");
	ck_assert_int_eq(state_restore(rig.store, &value, &why), STATE_OK);
	arena_commit(&rig.arena);
	expect_refused(value, "there already");
	value.state = MODEL_MAP;
	ck_assert_int_eq(state_restore(rig.store, &value, &why), STATE_OK);
	arena_commit(&rig.arena);
	expect_refused(value, "there already");
}
END_TEST

/* ---- Trouble -------------------------------------------------------------------------------------------------------------- */

/* A call in a small arena until it refuses; then it is as before the unit. */
START_TEST(a_full_arena_is_trouble_and_nothing_is_lost)
{
	teardown();
	make_arena(2 << 20);
	rig.store = state_store_create(&rig.arena, MODEL_CHANNEL);
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0),
		     *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0);
	struct state *list = open_kind("l", STATE_LIST, STATE_BY_KEY, 0),
		     *timers = open_kind("t", STATE_TIMERS, STATE_BY_KEY, 0);
	arena_commit(&rig.arena);
	static const uint8_t bytes[3000];
	for (int kind = 0; kind < STATE_KIND_COUNT; kind++) {
		enum state_result result = STATE_OK;
		uint64_t committed = 0;
		while (result == STATE_OK) {
			char key[16];
			snprintf(key, sizeof(key), "%u", (unsigned)committed);
			key_set(key);
			struct view some = {bytes, committed % sizeof(bytes)};
			result = kind == STATE_VALUE  ? state_put(value, some)
				 : kind == STATE_MAP  ? state_map_put(map, view_of("u"), some)
				 : kind == STATE_LIST ? state_list_append(list, some)
						      : state_timer_set(timers, STATE_EVENT_TIME, (int64_t)committed,
									(struct view){bytes, 255});
			if (result != STATE_OK)
				break;
			arena_commit(&rig.arena);
			committed++;
		}
		ck_assert_int_eq(result, STATE_TROUBLE);
		ck_assert_int_eq(rig.arena.trouble, ARENA_FULL);
		struct view got;
		ck_assert_int_eq(state_get(value, &got), STATE_TROUBLE);
		arena_rollback(&rig.arena);
		ck_assert_uint_gt(committed, 20);
		ck_assert_uint_eq(state_size_of(kind == STATE_VALUE  ? value
						: kind == STATE_MAP  ? map
						: kind == STATE_LIST ? list
								     : timers)
				      .entries,
				  committed);
		arena_session_drop(&rig.arena, MODEL_CHANNEL);
		arena_commit(&rig.arena);
		state_store_destroy(rig.store);
		rig.store = state_store_create(&rig.arena, MODEL_CHANNEL);
		value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
		map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0);
		list = open_kind("l", STATE_LIST, STATE_BY_KEY, 0);
		timers = open_kind("t", STATE_TIMERS, STATE_BY_KEY, 0);
		arena_commit(&rig.arena);
	}
}
END_TEST

START_TEST(a_unit_that_is_too_large_is_trouble_and_can_be_halved)
{
	struct state *map = open_kind("m", STATE_MAP, STATE_BY_KEY, 0);
	uint32_t count = 0;
	key_set("k");
	for (;; count++) {
		if (state_map_put(map, (struct view){(const uint8_t *)&count, 4}, view_of("12345678")) != STATE_OK)
			break;
	}
	ck_assert_int_eq(rig.arena.trouble, ARENA_LOG_FULL);
	arena_rollback(&rig.arena);
	ck_assert_uint_eq(state_map_count(map), 0);
	arena_commit(&rig.arena);
	for (uint32_t i = 0; i < count; i++) {
		ck_assert_int_eq(state_map_put(map, (struct view){(const uint8_t *)&i, 4}, view_of("12345678")),
				 STATE_OK);
		if (i % (count / 2) == count / 4)
			arena_commit(&rig.arena);
	}
	arena_commit(&rig.arena);
	ck_assert_uint_eq(state_map_count(map), count);
	/* a single call can be too much, too */
	for (uint32_t i = count; i < 2 * count; i++) {
		ck_assert_int_eq(state_map_put(map, (struct view){(const uint8_t *)&i, 4}, view_of("12345678")),
				 STATE_OK);
		if (i % 100 == 0)
			arena_commit(&rig.arena);
	}
	arena_commit(&rig.arena);
	ck_assert_int_eq(state_map_clear(map), STATE_TROUBLE);
	ck_assert_int_eq(rig.arena.trouble, ARENA_LOG_FULL);
	arena_rollback(&rig.arena);
	ck_assert_uint_eq(state_map_count(map), 2 * count);
}
END_TEST

/* What is overwritten: so many bytes before a value, of a length. An entry of 8 bytes of key has its value 40 bytes behind its head. */
static const struct {
	bool large;
	size_t before, size;
} damages[] = {
    {false, 40, 4}, /* the reference of the next entry in the bucket */
    {false, 17, 1}, /* an entry's magic */
    {false, 12, 8}, /* the sizes of its key, block and value */
    {true, 16, 4},  /* the magic of a large value */
    {true, 8, 8},   /* its size */
};

START_TEST(a_damaged_block_is_trouble_when_it_is_touched)
{
	struct state *value = open_kind("v", STATE_VALUE, STATE_BY_KEY, 0);
	static const uint8_t large[5000];
	struct view got;
	key_set("12345678");
	struct view put = damages[_i].large ? (struct view){large, sizeof(large)} : view_of("value");
	ck_assert_int_eq(state_put(value, put), STATE_OK);
	arena_commit(&rig.arena);
	ck_assert_int_eq(state_get(value, &got), STATE_OK);
	memset((uint8_t *)(uintptr_t)got.data - damages[_i].before, 0xff, damages[_i].size);
	/* keys that are not there share its bucket now and then, and new ones split it */
	for (uint32_t i = 0; i < 1000 && rig.arena.trouble == ARENA_FINE; i++) {
		state_key(rig.store, (struct view){(const uint8_t *)&i, sizeof(i)}, 0, 0);
		(void)state_put(value, view_of("x"));
		key_set("12345678");
		(void)state_get(value, &got);
	}
	ck_assert_int_eq(rig.arena.trouble, ARENA_BROKEN);
	ck_assert_ptr_nonnull(rig.arena.broken);
	ck_assert_int_eq(state_get(value, &got), STATE_TROUBLE);
	ck_assert_int_eq(state_put(value, view_of("x")), STATE_TROUBLE);
}
END_TEST

static Suite *state_suite(void)
{
	Suite *suite = suite_create("state");
	TCase *tests = tcase_create("model");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, it_is_what_a_simple_model_says);
	tcase_add_test(tests, a_killed_process_leaves_whole_units);
	tcase_set_timeout(tests, 120 * (double)chaos());
	suite_add_tcase(suite, tests);
	tests = tcase_create("calls");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, values_are_put_and_removed);
	tcase_add_test(tests, states_are_apart);
	tcase_add_test(tests, a_value_put_from_itself_is_itself);
	tcase_add_test(tests, editing_keeps_cuts_and_fills_up);
	tcase_add_test(tests, what_is_too_large_is_refused);
	tcase_add_test(tests, maps_go_by_first_insertion);
	tcase_add_test(tests, a_map_is_emptied_by_an_iteration);
	tcase_add_test(tests, lists_keep_the_order_of_appending);
	tcase_add_test(tests, its_generation_changes_with_what_is_undone_or_restored);
	suite_add_tcase(suite, tests);
	tests = tcase_create("time");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, values_expire_and_are_swept);
	tcase_add_test(tests, a_ttl_is_part_of_the_format);
	tcase_add_test(tests, timers_come_by_time_key_and_tag);
	tcase_add_test(tests, a_timer_makes_its_key_the_current_one);
	tcase_add_loop_test(tests, marks_of_buckets_hide_nothing, 0, 3);
	tcase_add_loop_test(tests, a_table_is_reserved_in_pieces, 0, 2);
	tcase_add_test(tests, timers_stay_in_order_by_the_thousand);
	suite_add_tcase(suite, tests);
	tests = tcase_create("handles");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, handles_are_found_again_by_name);
	tcase_add_test(tests, there_are_so_many_handles_and_no_more);
	suite_add_tcase(suite, tests);
	tests = tcase_create("travel");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, what_is_sent_can_be_restored_split_and_merged);
	tcase_add_test(tests, only_what_changed_is_sent);
	tcase_add_test(tests, what_came_and_went_is_dropped_in_pieces);
	tcase_add_test(tests, memory_of_what_is_gone_is_used_again);
	tcase_add_test(tests, lists_without_keys_are_appended_to_when_restored);
	tcase_add_test(tests, the_largest_value_can_be_restored);
	tcase_add_test(tests, what_cannot_be_restored_is_refused_in_words);
	suite_add_tcase(suite, tests);
	tests = tcase_create("trouble");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, a_full_arena_is_trouble_and_nothing_is_lost);
	tcase_add_test(tests, a_unit_that_is_too_large_is_trouble_and_can_be_halved);
	tcase_add_loop_test(tests, a_damaged_block_is_trouble_when_it_is_touched, 0,
			    sizeof(damages) / sizeof(damages[0]));
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(state_suite)
