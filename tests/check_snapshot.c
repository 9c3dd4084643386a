/*
 * Tests of worker/snapshot.c over real arenas and stores, with a client that is a table: what deltas say must be what a walk of the
 * store finds, and what the table sends back must be what was there. Every unit may be the last of its worker. SNAPSHOT_SEED=n takes
 * other operations than the usual ones.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/roles.h"
#include "shared/keygroup.h"
#include "shared/log.h"
#include "tests/check_main.h"
#include "tests/state_table.h"
#include "worker/memory.h"
#include "worker/snapshot.h"

enum { MAX_PARALLELISM = 128, STATE_BYTES = 64 << 20, MESSAGE_MAX = 16 << 10, CHANNEL = 1, EXPECTED = 3000 };

/* ---- A worker's side ---- */

/* The states of a keyed segment, in an order that a test may turn. */
static const struct state_spec keyed_specs[] = {
    {.step = "sum", .name = "sums", .kind = STATE_VALUE, .version = 1},
    {.step = "join", .name = "seen", .kind = STATE_MAP, .version = 1},
    {.step = "batch", .name = "records", .kind = STATE_LIST, .version = 2},
    {.step = "batch", .name = "due", .kind = STATE_TIMERS, .version = 1},
};
enum { SUMS, SEEN, RECORDS, DUE, KEYED_STATES };

/* And of one without keys. */
static const struct state_spec unkeyed_specs[] = {
    {.step = "batch", .name = "records", .kind = STATE_LIST, .partition = STATE_SPLIT, .version = 1},
    {.step = "rules", .name = "rules", .kind = STATE_LIST, .partition = STATE_UNION, .version = 1},
};

/* A descriptor that lets no state go. */
static const struct descriptor keeps_all;

struct side {
	uint8_t *memory;
	uint64_t size;
	struct arena arena;
	struct state_store *store;
	struct snapshot snapshot;
	struct snapshot_words words; /* as the unit at hand leaves them */
	const struct state_spec *specs;
	uint32_t spec_count, turned;
	struct state *states[8];
	uint32_t first, last;
	uint64_t adopted, units;
	struct dice *deaths; /* NULL: nobody dies */
};

/* The worker's part: opened by the first, and again by each that takes over. */
static void side_enter(struct side *side)
{
	char why[256];
	ck_assert_msg(arena_open(&side->arena, side->memory, side->size, 0, why) == ARENA_OK, "%s", why);
	memcpy(&side->words, arena_session(&side->arena, CHANNEL), sizeof(side->words));
	side->store = state_store_create(&side->arena, CHANNEL);
	for (uint32_t i = 0; i < side->spec_count; i++) {
		uint32_t spec = (i + side->turned) % side->spec_count;
		side->states[spec] = state_open(side->store, &side->specs[spec]);
		ck_assert_ptr_nonnull(side->states[spec]);
	}
	snapshot_init(&side->snapshot, side->store, &side->arena, CHANNEL, &side->words);
	snapshot_scope(&side->snapshot, side->first, side->last, MAX_PARALLELISM);
}

/* Makes a session's unit happen. */
static void side_commit(struct side *side)
{
	ck_assert_int_eq(side->arena.trouble, ARENA_FINE);
	memcpy(arena_session_write(&side->arena, CHANNEL), &side->words, sizeof(side->words));
	arena_commit(&side->arena);
	side->units++;
}

static void side_begin_with(struct side *side, const struct state_spec *specs, uint32_t count, uint32_t turned)
{
	*side = (struct side){.specs = specs, .spec_count = count, .turned = turned, .last = MAX_PARALLELISM - 1};
	side->size = arena_size_for(STATE_BYTES);
	side->memory = mmap(NULL, side->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(side->memory != MAP_FAILED);
	side_enter(side);
	side_commit(side);
}

/* A session of a keyed segment with so many of all key groups. */
static void side_begin(struct side *side, uint32_t first, uint32_t last, uint32_t turned)
{
	side_begin_with(side, keyed_specs, KEYED_STATES, turned);
	side->first = first;
	side->last = last;
	snapshot_scope(&side->snapshot, first, last, MAX_PARALLELISM);
}

static void side_end(struct side *side)
{
	state_store_destroy(side->store);
	munmap(side->memory, side->size);
}

/* The worker dies in the middle of a unit, and its successor takes over. */
static void side_die(struct side *side)
{
	state_store_destroy(side->store);
	memset(&side->words, 0xee, sizeof(side->words));
	memset(&side->arena, 0xee, sizeof(side->arena));
	side_enter(side);
	side->adopted++;
}

/* Whether the dice say that the worker dies now, which it then has. */
static bool side_dies(struct side *side)
{
	if (side->deaths == NULL || dice_roll(side->deaths, 3) != 0)
		return false;
	side_die(side);
	return true;
}

static void side_key(struct side *side, struct view key)
{
	int32_t hash = key_hash_of(key);
	state_key(side->store, key, hash, key_group_of(hash, MAX_PARALLELISM));
}

/* Sends one StateDelta to a table; false when there is nothing (more) to send. */
static bool delta_unit(struct side *side, struct table *table, uint64_t message_max, uint32_t limit)
{
	struct wire_to_worker envelope;
	struct wire_entries entries;
	struct wire_reader reader;
	struct wire_entry entry;
	if (!snapshot_is_dirty(&side->snapshot))
		return false;
	uint64_t size = snapshot_delta_size(&side->snapshot, message_max);
	ck_assert_uint_le(size, message_max);
	uint8_t *message = malloc(size);
	struct wire_writer writer = {.at = message, .end = message + size};
	wire_put_varint_field(&writer, 1, UINT64_MAX);
	enum snapshot_result result = snapshot_delta(&side->snapshot, &writer, limit);
	ck_assert_msg(result == SNAPSHOT_DONE || result == SNAPSHOT_MORE, "result %d: %s", result, side->snapshot.why);
	ck_assert(!writer.overflow && side->snapshot.count <= limit);
	if (side_dies(side)) { /* nobody has seen the message */
		free(message);
		return true;
	}
	side_commit(side);
	struct view bytes = {message, (size_t)(writer.at - message)};
	ck_assert_int_eq(wire_parse_from_worker(bytes, &envelope), WIRE_OK);
	ck_assert_uint_eq(envelope.kind, FROM_WORKER_STATE_DELTA);
	ck_assert_int_eq(wire_parse_entries(envelope.body, &entries), WIRE_OK);
	ck_assert_uint_eq(entries.checksum, entries.computed);
	ck_assert_uint_gt(entries.count, 0);
	wire_reader_init(&reader, envelope.body);
	while (wire_next_entry(&reader, &entry))
		table_apply(table, entry);
	ck_assert(!reader.malformed);
	free(message);
	return true;
}

/* All that a barrier sends. */
static void barrier(struct side *side, struct table *table)
{
	while (delta_unit(side, table, MESSAGE_MAX, 512))
		;
	ck_assert_uint_eq(state_dirty_entries(side->store), 0);
	ck_assert_uint_eq(state_dirty_bytes(side->store), 0);
	ck_assert_uint_eq(table->partial.size, 0);
}

/* ---- Table and store are the same ---- */

struct comparing {
	struct table *table;
	const struct side *side;
	uint64_t found;
};

static void compare_visit(void *context, const struct state_entry *entry)
{
	struct comparing *comparing = context;
	struct wire_entry name = {.key = entry->key, .sub_key = entry->sub, .state = entry->state};
	const struct row *row = *table_find(comparing->table, &name);
	ck_assert_msg(row != NULL, "an entry of state %u that no delta spoke of", entry->state);
	ck_assert_int_eq(row->entry.key_hash, entry->key_hash);
	ck_assert_uint_eq(row->entry.key_group, entry->key_group);
	ck_assert(view_equal(row->entry.value, entry->value));
	comparing->found++;
}

static uint64_t compare(struct side *side, struct table *table)
{
	struct comparing comparing = {.table = table, .side = side};
	for (uint64_t cursor = 0; cursor != UINT64_MAX;)
		state_walk(side->store, &cursor, 64, compare_visit, &comparing);
	ck_assert_uint_eq(comparing.found, table->count);
	return comparing.found;
}

/* ---- Random work ---- */

static uint64_t seed_of_run(void)
{
	const char *given = getenv("SNAPSHOT_SEED");
	return given != NULL ? strtoull(given, NULL, 0) : 20261126;
}

/* Some bytes, as long as the dice say below `limit`. */
static struct view some(struct dice *dice, uint8_t *buffer, size_t limit)
{
	size_t size = dice_roll(dice, limit);
	for (size_t i = 0; i < size; i++)
		buffer[i] = (uint8_t)dice_roll(dice, 256);
	return (struct view){buffer, size};
}

/* One change of the current key. */
static void change(struct side *side, struct dice *dice)
{
	uint8_t key[8], bytes[300];
	struct view user_key = {key, 1};
	key[0] = (uint8_t)dice_roll(dice, 6);
	switch (dice_roll(dice, 10)) {
	case 0:
	case 1:
		ck_assert_int_eq(state_put(side->states[SUMS], some(dice, bytes, 60)), STATE_OK);
		break;
	case 2:
		state_remove(side->states[SUMS]);
		break;
	case 3:
	case 4:
		ck_assert_int_eq(state_map_put(side->states[SEEN], user_key, some(dice, bytes, 60)), STATE_OK);
		break;
	case 5:
		state_map_remove(side->states[SEEN], user_key);
		break;
	case 6:
		ck_assert_int_eq(state_list_append(side->states[RECORDS], some(dice, bytes, sizeof(bytes))), STATE_OK);
		break;
	case 7:
		if (dice_roll(dice, 4) == 0)
			state_list_clear(side->states[RECORDS]);
		break;
	case 8:
		ck_assert_int_eq(state_timer_set(side->states[DUE], (enum state_time)dice_roll(dice, STATE_TIMES),
						 (int64_t)dice_roll(dice, 1000), user_key),
				 STATE_OK);
		break;
	default:
		state_timer_delete(side->states[DUE], (enum state_time)dice_roll(dice, STATE_TIMES),
				   (int64_t)dice_roll(dice, 1000), user_key);
	}
}

/* Sets one of a session's keys. */
static void random_key(struct side *side, struct dice *dice)
{
	char key[16];
	uint32_t group;
	do {
		snprintf(key, sizeof(key), "key-%u", (unsigned)dice_roll(dice, 400));
		group = key_group_of(key_hash_of(view_of(key)), MAX_PARALLELISM);
	} while (group < side->first || group > side->last);
	static char kept[16]; /* the bytes stay until the next key */
	memcpy(kept, key, sizeof(key));
	side_key(side, view_of(kept));
}

/* A unit of work: some keys changed, some timers fired, then committed, or undone by a death. */
static void work_unit(struct side *side, struct dice *dice)
{
	struct state_timer timer;
	for (uint64_t keys = dice_roll(dice, 30); keys > 0; keys--) {
		random_key(side, dice);
		for (uint64_t changes = dice_roll(dice, 4); changes > 0; changes--)
			change(side, dice);
	}
	if (dice_roll(dice, 8) == 0)
		state_timer_pop(side->states[DUE], (enum state_time)dice_roll(dice, STATE_TIMES),
				(int64_t)dice_roll(dice, 1000), &timer);
	if (side_dies(side))
		return;
	side_commit(side);
}

/* Work with barriers and early deltas in between; ends with a barrier. */
static void work(struct side *side, struct table *table, struct dice *dice, unsigned units)
{
	for (unsigned i = 0; i < units; i++) {
		work_unit(side, dice);
		if (dice_roll(dice, 20) == 0) {
			barrier(side, table);
			compare(side, table);
		}
		while (snapshot_is_due(&side->snapshot, 2000))
			delta_unit(side, table, 1024 + dice_roll(dice, MESSAGE_MAX), 1 + (uint32_t)dice_roll(dice, 40));
	}
	barrier(side, table);
}

/* ---- Restoring ---- */

/* An Open's body with a manifest. */
static struct bytes open_body(const struct state_spec *specs, uint32_t count, uint32_t turned)
{
	struct bytes body = {0};
	uint8_t buffer[4096];
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	wire_put_varint_field(&writer, 1, 1);
	for (uint32_t i = 0; i < count; i++) {
		const struct state_spec *spec = &specs[(i + turned) % count];
		struct wire_declaration declaration = {
		    .step = view_of(spec->step),
		    .name = view_of(spec->name),
		    .kind = (uint32_t)spec->kind,
		    .partition = (uint32_t)spec->partition,
		    .version = spec->version + (spec->ttl_ms > 0 ? STATE_VERSION_TTL : 0),
		    .ttl_ms = spec->ttl_ms,
		};
		wire_put_declaration(&writer, OPEN_STATE_MANIFEST, &declaration);
	}
	ck_assert(!writer.overflow);
	bytes_add(&body, buffer, (size_t)(writer.at - buffer));
	return body;
}

/* Opens a session for a checkpoint of the same states. */
static void restore_open(struct side *side, uint32_t turned)
{
	struct bytes body = open_body(side->specs, side->spec_count, turned);
	ck_assert_msg(snapshot_open(&side->snapshot, bytes_view(&body), 7, EXPECTED, &keeps_all) == SNAPSHOT_DONE, "%s",
		      side->snapshot.why);
	ck_assert(snapshot_restoring(&side->snapshot));
	side_commit(side);
	bytes_free(&body);
}

/* Works on a chunk unit by unit, dying as the dice say. */
static enum snapshot_result chunk_send(struct side *side, struct view body, uint32_t limit)
{
	for (;;) {
		enum snapshot_result result = snapshot_chunk(&side->snapshot, body, limit);
		ck_assert_uint_le(side->snapshot.count, limit);
		if (result == SNAPSHOT_REFUSED)
			return result;
		ck_assert_msg(result != SNAPSHOT_TROUBLE, "trouble %d", side->arena.trouble);
		if (side_dies(side))
			continue;
		side_commit(side);
		if (result == SNAPSHOT_DONE)
			return result;
	}
}

/* A chunk of entries, to be ended. */
struct chunk {
	uint8_t buffer[MESSAGE_MAX];
	struct wire_writer writer;
	uint8_t *start;
};

static void chunk_begin(struct chunk *chunk)
{
	chunk->writer = (struct wire_writer){.at = chunk->buffer, .end = chunk->buffer + sizeof(chunk->buffer)};
	chunk->start = wire_begin(&chunk->writer, TO_WORKER_RESTORE_CHUNK);
}

static struct view chunk_end(struct chunk *chunk)
{
	wire_end_entries(&chunk->writer, chunk->start);
	ck_assert(!chunk->writer.overflow);
	return (struct view){chunk->start, (size_t)(chunk->writer.at - chunk->start)};
}

/* Puts an entry into a chunk in parts of at most so many bytes, sending it whenever it is full. */
static void chunk_put(struct side *side, struct chunk *chunk, struct wire_entry entry, size_t part_max, uint32_t limit)
{
	struct view rest = entry.value;
	do {
		entry.value = (struct view){rest.data, rest.size < part_max ? rest.size : part_max};
		entry.more = entry.value.size < rest.size;
		if (wire_entry_size(&entry) + 16 > (uint64_t)(chunk->writer.end - chunk->writer.at)) {
			ck_assert_int_eq(chunk_send(side, chunk_end(chunk), limit), SNAPSHOT_DONE);
			chunk_begin(chunk);
		}
		wire_put_entry(&chunk->writer, &entry);
		rest = (struct view){rest.data + entry.value.size, rest.size - entry.value.size};
	} while (rest.size > 0);
}

/* Sends the rows of some tables that belong to a session, as states of a manifest that is turned by so much. */
static uint64_t restore(struct side *side, struct table *const *tables, size_t table_count, uint32_t turned,
			uint32_t limit)
{
	struct chunk *chunk = malloc(sizeof(*chunk));
	uint64_t sent = 0;
	restore_open(side, turned);
	chunk_begin(chunk);
	for (size_t i = 0; i < table_count; i++) {
		struct row **rows = table_rows(tables[i]);
		for (uint64_t k = 0; k < tables[i]->count; k++) {
			if (rows[k]->entry.key_group < side->first || rows[k]->entry.key_group > side->last)
				continue;
			chunk_put(side, chunk, rows[k]->entry, 5000, limit);
			sent++;
		}
		free(rows);
	}
	ck_assert_int_eq(chunk_send(side, chunk_end(chunk), limit), SNAPSHOT_DONE);
	ck_assert_int_eq(snapshot_restored(&side->snapshot, sent), SNAPSHOT_DONE);
	ck_assert_uint_eq(side->words.restored, sent);
	side_commit(side);
	ck_assert(!snapshot_restoring(&side->snapshot));
	free(chunk);
	return sent;
}

/* What a session that restored a table has to have for one: the numbers of states are its own now. */
static void table_translate(struct table *to, const struct table *from, const struct side *side, uint32_t turned)
{
	struct row **rows = table_rows(from);
	for (uint64_t i = 0; i < from->count; i++) {
		struct wire_entry entry = rows[i]->entry;
		uint32_t spec = (entry.state + turned) % side->spec_count;
		entry.state = (spec + side->spec_count - side->turned) % side->spec_count;
		if (entry.key_group >= side->first && entry.key_group <= side->last)
			table_put(to, &entry);
	}
	free(rows);
}

/* ---- Tests ---- */

/* Deltas are exact: after many barriers and early pieces the table is the store, with and without deaths. */
START_TEST(deltas_are_exact)
{
	struct dice dice = {seed_of_run() + (uint64_t)_i}, deaths = {seed_of_run() * 3 + (uint64_t)_i};
	static struct table table;
	struct side side;
	side_begin(&side, 0, MAX_PARALLELISM - 1, 0);
	side.deaths = _i % 2 == 0 ? NULL : &deaths;
	work(&side, &table, &dice, 400);
	ck_assert_uint_gt(compare(&side, &table), 500);
	ck_assert(side.deaths == NULL || side.adopted > 100);
	ck_assert(!delta_unit(&side, &table, MESSAGE_MAX, 1)); /* nothing is sent twice */
	side_end(&side);
	table_free(&table);
}
END_TEST

/* What is restored is what was there: entries, iteration, timers; it is clean, and further deltas go on from it. */
START_TEST(restored_is_what_was_there)
{
	struct dice dice = {seed_of_run() + (uint64_t)_i}, deaths = {seed_of_run() * 5 + (uint64_t)_i};
	static struct table table, again;
	struct table *tables[] = {&table};
	struct side old, new;
	side_begin(&old, 0, MAX_PARALLELISM - 1, 1);
	work(&old, &table, &dice, 200);
	side_begin(&new, 0, MAX_PARALLELISM - 1, 3);
	new.deaths = _i % 2 == 0 ? NULL : &deaths;
	uint64_t sent = restore(&new, tables, 1, 1, _i < 2 ? 1000 : 3);
	ck_assert_uint_eq(sent, table.count);
	ck_assert(new.deaths == NULL || new.adopted > (_i < 2 ? 0 : 3));
	ck_assert(!snapshot_is_dirty(&new.snapshot));
	table_translate(&again, &table, &new, 1);
	compare(&new, &again);
	work(&new, &again, &dice, 100);
	compare(&new, &again);
	side_end(&old);
	side_end(&new);
	table_free(&table);
	table_free(&again);
}
END_TEST

/* Timers of a restored session fire at their times, in the order that they had. */
START_TEST(restored_timers_fire)
{
	static struct table table;
	struct table *tables[] = {&table};
	struct dice dice = {seed_of_run()};
	struct state_timer was, is;
	struct side old, new;
	unsigned fired = 0;
	side_begin(&old, 0, MAX_PARALLELISM - 1, 0);
	work(&old, &table, &dice, 100);
	side_begin(&new, 0, MAX_PARALLELISM - 1, 2);
	restore(&new, tables, 1, 0, 50);
	for (int domain = 0; domain < STATE_TIMES; domain++) {
		ck_assert_int_eq(state_timer_first(old.states[DUE], (enum state_time)domain),
				 state_timer_first(new.states[DUE], (enum state_time)domain));
		while (state_timer_pop(old.states[DUE], (enum state_time)domain, 700, &was) == STATE_OK) {
			ck_assert_int_eq(state_timer_pop(new.states[DUE], (enum state_time)domain, 700, &is), STATE_OK);
			ck_assert_int_eq(was.time_ms, is.time_ms);
			ck_assert(view_equal(was.key, is.key) && view_equal(was.tag, is.tag));
			ck_assert_uint_eq(was.key_group, is.key_group);
			fired++;
		}
		ck_assert_int_eq(state_timer_pop(new.states[DUE], (enum state_time)domain, 700, &is), STATE_NONE);
	}
	ck_assert_uint_gt(fired, 50);
	side_end(&old);
	side_end(&new);
	table_free(&table);
}
END_TEST

/* Three sessions restore what one had, and two what the three had after some more work: nothing is lost, nothing is anywhere twice. */
START_TEST(split_and_merged)
{
	static struct table one, three[3], two[2];
	struct table *from_one[] = {&one}, *from_three[] = {&three[0], &three[1], &three[2]};
	struct dice dice = {seed_of_run() + (uint64_t)_i};
	struct side first, sides[3], last[2];
	uint64_t sum = 0;
	side_begin(&first, 0, MAX_PARALLELISM - 1, 0);
	work(&first, &one, &dice, 150);
	for (uint32_t i = 0; i < 3; i++) {
		side_begin(&sides[i], (i * MAX_PARALLELISM + 2) / 3, ((i + 1) * MAX_PARALLELISM + 2) / 3 - 1, 0);
		sum += restore(&sides[i], from_one, 1, 0, 100);
		table_translate(&three[i], &one, &sides[i], 0);
		compare(&sides[i], &three[i]);
	}
	ck_assert_uint_eq(sum, one.count);
	sum = 0;
	for (uint32_t i = 0; i < 3; i++) {
		work(&sides[i], &three[i], &dice, 60);
		compare(&sides[i], &three[i]);
		sum += three[i].count;
	}
	for (uint32_t i = 0; i < 2; i++) {
		side_begin(&last[i], i * MAX_PARALLELISM / 2, (i + 1) * MAX_PARALLELISM / 2 - 1, 0);
		sum -= restore(&last[i], from_three, 3, 0, 100);
		for (uint32_t k = 0; k < 3; k++)
			table_translate(&two[i], &three[k], &last[i], 0);
		compare(&last[i], &two[i]);
	}
	ck_assert_uint_eq(sum, 0);
	for (uint32_t i = 0; i < 3; i++) {
		side_end(&sides[i]);
		table_free(&three[i]);
	}
	for (uint32_t i = 0; i < 2; i++) {
		side_end(&last[i]);
		table_free(&two[i]);
	}
	side_end(&first);
	table_free(&one);
}
END_TEST

/* Values larger than a message go and come in parts, one after the other, and a death between two of them repeats none. */
START_TEST(large_values_in_parts)
{
	static const size_t sizes[] = {MESSAGE_MAX - 100, MESSAGE_MAX, 5 * MESSAGE_MAX, 3 << 20};
	struct dice dice = {seed_of_run()}, deaths = {seed_of_run() * 7};
	static struct table table, again;
	struct table *tables[] = {&table};
	struct side old, new;
	uint8_t *value = malloc(3 << 20);
	struct view user_key = {(const uint8_t *)"m", 1};
	ck_assert_ptr_nonnull(value);
	for (size_t i = 0; i < 3 << 20; i++)
		value[i] = (uint8_t)(i * 2654435761u >> 13);
	side_begin(&old, 0, MAX_PARALLELISM - 1, 0);
	old.deaths = _i == 0 ? NULL : &deaths;
	for (size_t i = 0; i < 4; i++) {
		random_key(&old, &dice);
		ck_assert_int_eq(state_put(old.states[SUMS], (struct view){value, sizes[i]}), STATE_OK);
		ck_assert_int_eq(state_put(old.states[SUMS], (struct view){value + i, sizes[i] - i}), STATE_OK);
		ck_assert_int_eq(state_map_put(old.states[SEEN], user_key, (struct view){value + 9, sizes[i] / 2}),
				 STATE_OK);
		side_commit(&old);
	}
	barrier(&old, &table);
	ck_assert_uint_gt(table.parts, 200);
	ck_assert_uint_eq(compare(&old, &table), 8);
	side_begin(&new, 0, MAX_PARALLELISM - 1, 0);
	new.deaths = old.deaths;
	restore(&new, tables, 1, 0, 3);
	ck_assert_uint_eq(new.words.parts_first, 0);
	compare(&new, &table);
	ck_assert(old.deaths == NULL || (old.adopted > 50 && new.adopted > 50));
	side_end(&old);
	side_end(&new);
	table_free(&table);
	table_free(&again);
	free(value);
}
END_TEST

/* Lets this process have a little more memory than it has, but no value. */
static void bound_memory(void)
{
	uint64_t kib = 0;
	char line[128];
	FILE *status = fopen("/proc/self/status", "re");

	CHECK(status != NULL);
	while (kib == 0 && fgets(line, sizeof(line), status) != NULL)
		sscanf(line, "VmData: %" SCNu64, &kib);
	CHECK(kib > 0);
	fclose(status);
	memory_bound((kib << 10) + (8 << 20));
}

/* Restores a value for which this process gets no memory. */
static void restore_without_memory(void)
{
	static struct table table;
	struct table *tables[] = {&table};
	struct dice dice = {seed_of_run()};
	struct side old, new;
	uint8_t *value = calloc(1, 24 << 20);

	CHECK(value != NULL);
	side_begin(&old, 0, MAX_PARALLELISM - 1, 0);
	random_key(&old, &dice);
	CHECK(state_put(old.states[SUMS], (struct view){value, 24 << 20}) == STATE_OK);
	side_commit(&old);
	barrier(&old, &table);
	side_begin(&new, 0, MAX_PARALLELISM - 1, 0);
	bound_memory();
	restore(&new, tables, 1, 0, UINT32_MAX);
	_exit(0);
}

/* That is no fault of the checkpoint: the worker leaves as for want of memory. */
START_TEST(a_value_without_memory_ends_the_worker)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0)
		restore_without_memory();
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), EXIT_MEMORY);
}
END_TEST

/* Lists without keys: split and union. Their pieces come anew after a restore. */
START_TEST(unkeyed_lists_come_anew)
{
	static struct table table, anew;
	struct side old, new;
	char text[32];
	uint32_t numbers[2] = {0};
	struct state_iterator iterator;
	struct view value;
	side_begin_with(&old, unkeyed_specs, 2, 0);
	state_key(old.store, view_of(""), 0, 0);
	for (int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "piece %u", (unsigned)i % 1000);
		ck_assert_int_eq(state_list_append(old.states[i % 2], view_of(text)), STATE_OK);
		if (i % 10 == 0)
			side_commit(&old);
	}
	side_commit(&old);
	barrier(&old, &table);
	compare(&old, &table);
	side_begin_with(&new, unkeyed_specs, 2, 0);
	struct table *tables[] = {&table};
	restore(&new, tables, 1, 0, 7);
	ck_assert(snapshot_is_dirty(&new.snapshot));
	barrier(&new, &anew);
	compare(&new, &anew);
	for (int state = 0; state < 2; state++) {
		state_key(new.store, view_of(""), 0, 0);
		memset(&iterator, 0, sizeof(iterator));
		while (state_list_next(new.states[state], &iterator, &value) == STATE_OK)
			numbers[state]++;
		ck_assert_uint_eq(numbers[state], 50);
	}
	side_end(&old);
	side_end(&new);
	table_free(&table);
	table_free(&anew);
}
END_TEST

/* What runs out of its time goes from the table, too. */
START_TEST(expired_entries_are_removed)
{
	static const struct state_spec specs[] = {
	    {.step = "dedup", .name = "seen", .kind = STATE_VALUE, .version = 1, .ttl_ms = 1000},
	};
	static struct table table, again;
	struct table *tables[] = {&table};
	struct view value;
	struct side old, new;
	side_begin_with(&old, specs, 1, 0);
	state_clock(old.store, 5000);
	side_key(&old, view_of("early"));
	ck_assert_int_eq(state_put(old.states[0], view_of("1")), STATE_OK);
	state_clock(old.store, 5900);
	side_key(&old, view_of("late"));
	ck_assert_int_eq(state_put(old.states[0], view_of("2")), STATE_OK);
	side_commit(&old);
	barrier(&old, &table);
	ck_assert_uint_eq(table.count, 2);
	side_begin_with(&new, specs, 1, 0); /* the time of the last write is restored with the entry */
	restore(&new, tables, 1, 0, 10);
	state_clock(new.store, 6500);
	side_key(&new, view_of("early"));
	ck_assert_int_eq(state_get(new.states[0], &value), STATE_NONE);
	side_key(&new, view_of("late"));
	ck_assert_int_eq(state_get(new.states[0], &value), STATE_OK);
	ck_assert(view_equal(value, view_of("2")));
	side_key(&new, view_of("busy")); /* each change looks at a little of the table */
	for (int i = 0; i < 2 * EXPECTED; i++)
		ck_assert_int_eq(state_put(new.states[0], view_of("3")), STATE_OK);
	side_commit(&new);
	table_translate(&again, &table, &new, 0);
	barrier(&new, &again);
	ck_assert_uint_eq(again.count, 2); /* "late" and "busy" */
	compare(&new, &again);
	side_end(&old);
	side_end(&new);
	table_free(&table);
	table_free(&again);
}
END_TEST

/* ---- What is refused ---- */

/* A good entry, for tests to spoil. */
static struct wire_entry good_entry(const char *key)
{
	int32_t hash = key_hash_of(view_of(key));
	return (struct wire_entry){.key = view_of(key),
				   .value = view_of("v"),
				   .key_hash = hash,
				   .key_group = key_group_of(hash, MAX_PARALLELISM)};
}

/* Expects a chunk to be refused, with these words and this entry to blame. */
static void refused(struct side *side, struct view body, uint32_t record, const char *words)
{
	ck_assert_int_eq(chunk_send(side, body, 10), SNAPSHOT_REFUSED);
	ck_assert_int_eq(side->snapshot.fault, SNAPSHOT_FAULT_RESTORE);
	ck_assert_msg(strstr(side->snapshot.why, words) != NULL, "\"%s\" has no \"%s\"", side->snapshot.why, words);
	ck_assert_uint_eq(side->snapshot.record, record);
}

/* Spoils the second of three entries in one way each. */
START_TEST(bad_entries_are_refused)
{
	static uint8_t long_sub[STATE_SUBKEY_MAX + 1];
	struct chunk *chunk = malloc(sizeof(*chunk));
	struct wire_entry entry = good_entry("b"), parts = good_entry("c");
	struct side side;
	const char *words = "";
	side_begin(&side, 0, MAX_PARALLELISM - 1, 0);
	restore_open(&side, 0);
	chunk_begin(chunk);
	struct wire_entry before = good_entry("a");
	wire_put_entry(&chunk->writer, &before);
	switch (_i) {
	case 0:
		entry.state = KEYED_STATES;
		words = "is of state 4; the checkpoint's manifest has 4";
		break;
	case 1:
		entry.removed = true;
		words = "(state \"sums\" of step \"sum\"): it says that it was removed";
		break;
	case 2:
		entry.key_group = entry.key_group == 5 ? 6 : 5;
		words = "the max_parallelism must be that of the checkpoint";
		break;
	case 3:
		side.snapshot.key_group_first = entry.key_group + 1;
		before = good_entry("a");
		snapshot_scope(&side.snapshot, 0, entry.key_group - 1, MAX_PARALLELISM);
		words = "this session has";
		break;
	case 4:
		entry.state = DUE;
		entry.sub_key = view_of("no timer's");
		words = "(state \"due\" of step \"batch\")";
		break;
	case 5:
		entry.state = RECORDS;
		entry.sub_key = view_of("no place");
		words = "(state \"records\" of step \"batch\")";
		break;
	case 6:
		parts.more = true;
		wire_put_entry(&chunk->writer, &parts); /* and then another */
		words = "the value of the one before it goes on in it, but it is of another";
		break;
	case 7:
		entry.more = true;
		entry.value.size = 0;
		words = "a part of its value is empty";
		break;
	case 8:
		entry.state = SEEN;
		entry.sub_key = (struct view){long_sub, sizeof(long_sub)};
		words = NULL; /* does not fit into this test's chunk: see below */
		break;
	}
	if (words == NULL) {
		uint64_t size = wire_entry_size(&entry) + 100;
		uint8_t *buffer = malloc(size);
		struct wire_writer writer = {.at = buffer, .end = buffer + size};
		uint8_t *start = wire_begin(&writer, TO_WORKER_RESTORE_CHUNK);
		wire_put_entry(&writer, &entry);
		wire_end_entries(&writer, start);
		refused(&side, (struct view){start, (size_t)(writer.at - start)}, 0,
			"(state \"seen\" of step \"join\")");
		free(buffer);
	} else {
		struct wire_entry after = good_entry("d");
		wire_put_entry(&chunk->writer, &entry);
		wire_put_entry(&chunk->writer, &after);
		if (_i == 3 && before.key_group > side.snapshot.key_group_last)
			refused(&side, chunk_end(chunk), 0, words);
		else
			refused(&side, chunk_end(chunk), _i == 6 ? 2 : 1, words);
	}
	arena_rollback(&side.arena);
	side_end(&side);
	free(chunk);
}
END_TEST

/* Each bit of a chunk counts. */
START_TEST(damaged_chunks_are_refused)
{
	struct chunk *chunk = malloc(sizeof(*chunk));
	struct wire_entry entries[] = {good_entry("a"), good_entry("b"), good_entry("c")};
	struct side side;
	side_begin(&side, 0, MAX_PARALLELISM - 1, 0);
	restore_open(&side, 0);
	chunk_begin(chunk);
	for (unsigned i = 0; i < 3; i++)
		wire_put_entry(&chunk->writer, &entries[i]);
	struct view body = chunk_end(chunk);
	uint8_t *bytes = chunk->start;
	for (size_t bit = 0; bit < body.size * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		snapshot_rolled_back(&side.snapshot);
		ck_assert_msg(snapshot_chunk(&side.snapshot, body, 100) == SNAPSHOT_REFUSED, "bit %zu", bit);
		ck_assert_ptr_nonnull(strstr(side.snapshot.why, "RestoreChunk"));
		ck_assert_uint_eq(side.words.restored, 0);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t size = 0; size < body.size; size++) {
		snapshot_rolled_back(&side.snapshot);
		ck_assert_int_eq(snapshot_chunk(&side.snapshot, (struct view){body.data, size}, 100), SNAPSHOT_REFUSED);
	}
	snapshot_rolled_back(&side.snapshot);
	ck_assert_int_eq(chunk_send(&side, body, 100), SNAPSHOT_DONE);
	ck_assert_int_eq(snapshot_restored(&side.snapshot, 2), SNAPSHOT_REFUSED);
	ck_assert_ptr_nonnull(strstr(side.snapshot.why, "RestoreEnd says that 2 entries were sent; 3 came"));
	ck_assert_int_eq(snapshot_restored(&side.snapshot, 3), SNAPSHOT_DONE);
	ck_assert_int_eq(snapshot_restored(&side.snapshot, 3), SNAPSHOT_REFUSED);
	ck_assert_int_eq(side.snapshot.fault, SNAPSHOT_FAULT_STATE);
	ck_assert_int_eq(snapshot_chunk(&side.snapshot, body, 100), SNAPSHOT_REFUSED);
	ck_assert_int_eq(side.snapshot.fault, SNAPSHOT_FAULT_STATE);
	side_end(&side);
	free(chunk);
}
END_TEST

/* A part is larger than any value, and would be larger than any block. */
START_TEST(a_part_beyond_all_bounds_is_refused)
{
	const size_t room = ARENA_BLOCK_MAX + 4096;
	uint8_t *value = calloc(1, ARENA_BLOCK_MAX), *buffer = malloc(room);
	struct wire_writer writer = {.at = buffer, .end = buffer + room};
	struct wire_entry part = good_entry("a");
	struct side side;
	side_begin(&side, 0, MAX_PARALLELISM - 1, 0);
	restore_open(&side, 0);
	uint8_t *start = wire_begin(&writer, TO_WORKER_RESTORE_CHUNK);
	part.more = true;
	part.value = (struct view){value, ARENA_BLOCK_MAX};
	wire_put_entry(&writer, &part);
	wire_end_entries(&writer, start);
	struct view body = {start, (size_t)(writer.at - start)};
	ck_assert_int_eq(snapshot_chunk(&side.snapshot, body, 100), SNAPSHOT_REFUSED);
	ck_assert_ptr_nonnull(strstr(side.snapshot.why, "its value has more than"));
	side_end(&side);
	free(buffer);
	free(value);
}
END_TEST

START_TEST(the_end_waits_for_the_last_part)
{
	struct chunk *chunk = malloc(sizeof(*chunk));
	struct wire_entry part = good_entry("a");
	struct side side;
	side_begin(&side, 0, MAX_PARALLELISM - 1, 0);
	restore_open(&side, 0);
	chunk_begin(chunk);
	part.more = true;
	wire_put_entry(&chunk->writer, &part);
	ck_assert_int_eq(chunk_send(&side, chunk_end(chunk), 100), SNAPSHOT_DONE);
	ck_assert_int_eq(snapshot_restored(&side.snapshot, 0), SNAPSHOT_REFUSED);
	ck_assert_ptr_nonnull(strstr(side.snapshot.why, "before the last part"));
	side_end(&side);
	free(chunk);
}
END_TEST

/* A key with which no message has room for a value is an error in words, and one that leaves some room is none. */
START_TEST(keys_beyond_a_message)
{
	static struct table table;
	struct side side;
	uint8_t *key = calloc(1, MESSAGE_MAX);
	side_begin(&side, 0, MAX_PARALLELISM - 1, 0);
	side_key(&side, (struct view){key, MESSAGE_MAX / 2});
	ck_assert_int_eq(state_put(side.states[SUMS], (struct view){key, MESSAGE_MAX}), STATE_OK);
	side_commit(&side);
	barrier(&side, &table);
	compare(&side, &table);
	side_key(&side, (struct view){key, MESSAGE_MAX});
	ck_assert_int_eq(state_put(side.states[SUMS], view_of("v")), STATE_OK);
	side_commit(&side);
	uint8_t message[MESSAGE_MAX];
	struct wire_writer writer = {.at = message, .end = message + sizeof(message)};
	ck_assert_int_eq(snapshot_delta(&side.snapshot, &writer, 10), SNAPSHOT_REFUSED);
	ck_assert_int_eq(side.snapshot.fault, SNAPSHOT_FAULT_TOO_LARGE);
	ck_assert_ptr_nonnull(strstr(side.snapshot.why, "state \"sums\" of step \"sum\" has 16384 bytes of key"));
	side_end(&side);
	table_free(&table);
	free(key);
}
END_TEST

/* ---- Manifests ---- */

/* What a descriptor lets go. */
static const struct state_name join_seen = {.step = "join", .name = "seen"};
static const struct descriptor drops_join = {.drop_state = &join_seen, .drop_state_count = 1};

/* Opens a session over states `now` for a checkpoint of states `then`. */
static enum snapshot_result open_over(struct side *side, const struct state_spec *now, uint32_t now_count,
				      const struct state_spec *then, uint32_t then_count,
				      const struct descriptor *descriptor)
{
	struct bytes body = open_body(then, then_count, 0);
	side_begin_with(side, now, now_count, 0);
	enum snapshot_result result = snapshot_open(&side->snapshot, bytes_view(&body), 1, 0, descriptor);
	bytes_free(&body);
	return result;
}

START_TEST(changed_states_are_refused)
{
	struct state_spec now[KEYED_STATES];
	struct side side;
	const char *words = "state \"sums\" of step \"sum\" is value (by key) in format 1 in the checkpoint and ";
	memcpy(now, keyed_specs, sizeof(now));
	switch (_i) {
	case 0:
		now[SUMS].version = 2;
		break;
	case 1:
		now[SUMS].kind = STATE_MAP;
		break;
	case 2:
		now[SUMS].name = "totals";
		words = "the checkpoint has state \"sums\" of step \"sum\", which this pipeline does not have";
		break;
	default:
		now[SUMS].step = "total";
		words = "the checkpoint has state \"sums\" of step \"sum\", which this pipeline does not have";
	}
	ck_assert_int_eq(
	    open_over(&side, now, KEYED_STATES, keyed_specs, KEYED_STATES, _i == 3 ? &drops_join : &keeps_all),
	    SNAPSHOT_REFUSED);
	ck_assert_int_eq(side.snapshot.fault, SNAPSHOT_FAULT_RESTORE);
	ck_assert_msg(strstr(side.snapshot.why, words) != NULL, "%s", side.snapshot.why);
	arena_rollback(&side.arena);
	side_end(&side);
}
END_TEST

/* A state that may go is counted and forgotten, one that is new is empty, and a changed time to live is no change. */
START_TEST(dropped_and_new_states)
{
	static struct table table, rest;
	struct dice dice = {seed_of_run()};
	struct state_spec now[KEYED_STATES];
	struct side old, new;
	struct chunk *chunk = malloc(sizeof(*chunk));
	uint64_t sent = 0, dropped = 0;
	memcpy(now, keyed_specs, sizeof(now));
	if (_i == 0)
		now[SEEN] = (struct state_spec){.step = "fresh", .name = "one", .kind = STATE_VALUE, .version = 9};
	else
		now[SEEN].version++;
	now[SUMS].ttl_ms = 0;
	side_begin(&old, 0, MAX_PARALLELISM - 1, 0);
	work(&old, &table, &dice, 100);
	ck_assert_int_eq(open_over(&new, now, KEYED_STATES, keyed_specs, KEYED_STATES, &drops_join), SNAPSHOT_DONE);
	side_commit(&new);
	struct row **rows = table_rows(&table);
	chunk_begin(chunk);
	for (uint64_t i = 0; i < table.count; i++, sent++) {
		chunk_put(&new, chunk, rows[i]->entry, 20, 30);
		dropped += rows[i]->entry.state == SEEN;
		if (rows[i]->entry.state != SEEN)
			table_put(&rest, &rows[i]->entry);
	}
	ck_assert_int_eq(chunk_send(&new, chunk_end(chunk), 30), SNAPSHOT_DONE);
	ck_assert_int_eq(snapshot_restored(&new.snapshot, sent), SNAPSHOT_DONE);
	ck_assert_uint_gt(dropped, 20);
	ck_assert_uint_eq(new.words.dropped, dropped);
	side_commit(&new);
	compare(&new, &rest);
	ck_assert_uint_eq(state_size_of(new.states[SEEN]).entries, 0);
	side_end(&old);
	side_end(&new);
	table_free(&table);
	table_free(&rest);
	free(rows);
	free(chunk);
}
END_TEST

/* However many entries a client announces, its session gets no more room than there is memory for, and the rest is for them. */
START_TEST(announced_entries_take_no_more_than_there_is)
{
	struct bytes body = open_body(keyed_specs, KEYED_STATES, 0);
	struct chunk *chunk = malloc(sizeof(*chunk));
	struct side side;
	side_begin(&side, 0, MAX_PARALLELISM - 1, 0);
	ck_assert_int_eq(snapshot_open(&side.snapshot, bytes_view(&body), 1, UINT64_MAX, &keeps_all), SNAPSHOT_DONE);
	side_commit(&side);
	for (unsigned i = 0; i < 100; i++) {
		char key[16];
		snprintf(key, sizeof(key), "key-%u", i);
		struct wire_entry entry = good_entry(key);
		chunk_begin(chunk);
		wire_put_entry(&chunk->writer, &entry);
		ck_assert_int_eq(chunk_send(&side, chunk_end(chunk), 1), SNAPSHOT_DONE);
	}
	ck_assert_uint_eq(side.words.expected, 0);
	struct arena_usage usage = arena_session_usage(&side.arena, CHANNEL);
	ck_assert_uint_gt(usage.extents, 2 << 20);
	ck_assert_uint_lt(usage.extents, STATE_BYTES / 8);
	ck_assert_int_eq(snapshot_restored(&side.snapshot, 100), SNAPSHOT_DONE);
	side_end(&side);
	bytes_free(&body);
	free(chunk);
}
END_TEST

START_TEST(opens_without_a_checkpoint)
{
	struct bytes body = open_body(keyed_specs, KEYED_STATES, 0);
	struct side side;
	uint8_t buffer[1024];
	side_begin(&side, 0, MAX_PARALLELISM - 1, 2);
	ck_assert_int_eq(snapshot_open(&side.snapshot, bytes_view(&body), 0, 0, &keeps_all), SNAPSHOT_REFUSED);
	ck_assert_int_eq(side.snapshot.fault, SNAPSHOT_FAULT_STATE);
	ck_assert_int_eq(snapshot_open(&side.snapshot, view_of("\x08\x01"), 0, 0, &keeps_all), SNAPSHOT_DONE);
	ck_assert(!snapshot_restoring(&side.snapshot));
	ck_assert_int_eq(snapshot_chunk(&side.snapshot, view_of(""), 1), SNAPSHOT_REFUSED);
	ck_assert_int_eq(side.snapshot.fault, SNAPSHOT_FAULT_STATE);
	ck_assert_int_eq(snapshot_restored(&side.snapshot, 0), SNAPSHOT_REFUSED);
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	struct wire_declaration declaration;
	struct wire_reader reader;
	snapshot_put_manifest(side.store, &writer, OPEN_ACK_STATE_MANIFEST);
	struct view written = {buffer, (size_t)(writer.at - buffer)};
	ck_assert_uint_le(written.size, snapshot_manifest_size(side.store));
	wire_reader_init(&reader, written);
	for (uint32_t i = 0; i < KEYED_STATES; i++) { /* in the order of opening, which this session turned */
		const struct state_spec *spec = &keyed_specs[(i + 2) % KEYED_STATES];
		ck_assert(wire_next_declaration(&reader, OPEN_ACK_STATE_MANIFEST, &declaration));
		ck_assert(view_equal(declaration.name, view_of(spec->name)) && declaration.kind == spec->kind);
		ck_assert(view_equal(declaration.step, view_of(spec->step)) && declaration.version == spec->version);
	}
	side_end(&side);
	bytes_free(&body);
}
END_TEST

static Suite *snapshot_suite(void)
{
	Suite *suite = suite_create("snapshot");
	TCase *tests = tcase_create("all");
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, deltas_are_exact, 0, 4);
	tcase_add_loop_test(tests, restored_is_what_was_there, 0, 4);
	tcase_add_test(tests, restored_timers_fire);
	tcase_add_loop_test(tests, split_and_merged, 0, 2);
	tcase_add_loop_test(tests, large_values_in_parts, 0, 2);
	tcase_add_test(tests, a_value_without_memory_ends_the_worker);
	tcase_add_test(tests, unkeyed_lists_come_anew);
	tcase_add_test(tests, expired_entries_are_removed);
	tcase_add_loop_test(tests, bad_entries_are_refused, 0, 9);
	tcase_add_test(tests, damaged_chunks_are_refused);
	tcase_add_test(tests, a_part_beyond_all_bounds_is_refused);
	tcase_add_test(tests, the_end_waits_for_the_last_part);
	tcase_add_test(tests, keys_beyond_a_message);
	tcase_add_loop_test(tests, changed_states_are_refused, 0, 4);
	tcase_add_loop_test(tests, dropped_and_new_states, 0, 2);
	tcase_add_test(tests, announced_entries_take_no_more_than_there_is);
	tcase_add_test(tests, opens_without_a_checkpoint);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(snapshot_suite)
