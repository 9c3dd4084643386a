/* The checkpoint file: what goes in comes out, whole or not at all, and what is not ours stays as it is. */
#include "cli/run_store.h"

#include <check.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/run_partition.h"
#include "flink_bridge.pb-c.h"
#include "tests/check_main.h"

enum {
	BY_KEY = FLINK_BRIDGE__STATE_PARTITION__STATE_BY_KEY,
	SPLIT = FLINK_BRIDGE__STATE_PARTITION__STATE_SPLIT,
	UNION = FLINK_BRIDGE__STATE_PARTITION__STATE_UNION,
	GROUPS = 128,
};

static char folder[32], path[64], why[STORE_WHY_MAX];
static struct run_store *store;

/* Opens the file, which must go well. */
static void open_store(void)
{
	enum store_result result = run_store_open(&store, path, why);
	ck_assert_msg(result == STORE_OK, "%s", why);
}

/* Closes it and opens it again. */
static void reopen(void)
{
	run_store_close(store);
	open_store();
}

static void setup(void)
{
	strcpy(folder, "/tmp/storeXXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/file", folder);
	open_store();
}

static void teardown(void)
{
	char command[80];
	run_store_close(store);
	store = NULL;
	snprintf(command, sizeof(command), "rm -r %s", folder);
	ck_assert_int_eq(system(command), 0);
}

/* Commits a checkpoint of a number. */
static bool commit(uint64_t id)
{
	struct store_checkpoint checkpoint = {
	    .id = id, .pipeline = "p", .topology_hash = "hash", .descriptor = "d", .made_ms = 5};
	return run_store_commit(store, &checkpoint);
}

/* The number of the checkpoint in the file. */
static uint64_t number(void)
{
	struct store_checkpoint checkpoint;
	if (!run_store_checkpoint(store, &checkpoint))
		ck_abort_msg("%s", run_store_why(store));
	return checkpoint.id;
}

/* A declaration of a state of the step "s". */
static struct wire_declaration declaration(const char *name, uint32_t partition)
{
	return (struct wire_declaration){
	    .step = view_of("s"), .name = view_of(name), .kind = 2, .partition = partition, .version = 3, .ttl_ms = 4};
}

/* Puts an entry. */
static void put(int64_t state, uint32_t subtask, uint32_t group, const char *key, const char *sub, const char *value)
{
	struct wire_entry entry = {.key = view_of(key), .sub_key = view_of(sub), .key_group = group, .key_hash = -7};
	entry.removed = value == NULL;
	if (value != NULL)
		entry.value = view_of(value);
	if (!run_store_put_entry(store, state, subtask, &entry))
		ck_abort_msg("%s", run_store_why(store));
}

/* What a subtask gets of segment 0: "state.key/sub=value " for each. */
static const char *share_of(uint32_t subtask, uint32_t parallelism)
{
	static char text[4096];
	struct store_share share = {.subtask = subtask, .parallelism = parallelism};
	struct wire_entry entry;
	int64_t watermark;
	bool found;
	size_t used = 0;
	text[0] = '\0';
	key_group_range(subtask, parallelism, GROUPS, &share.key_group_first, &share.key_group_last);
	ck_assert(run_store_states(store, "a", &share.states, &share.count));
	ck_assert(run_store_segment(store, "a", &share.parallelism_before, &watermark));
	struct store_cursor *cursor = run_store_cursor(store, &share);
	while (run_store_next(cursor, &entry, &found) && found)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%u.%.*s/%.*s=%.*s ", entry.state,
					 (int)entry.key.size, (const char *)entry.key.data, (int)entry.sub_key.size,
					 (const char *)entry.sub_key.data, (int)entry.value.size,
					 (const char *)entry.value.data);
	ck_assert(!found);
	run_store_cursor_close(cursor);
	return text;
}

/* ---- What goes in comes out ---- */

START_TEST(test_a_new_file_has_no_checkpoint)
{
	struct store_source source;
	struct store_sink sink;
	uint32_t subtasks;
	int64_t watermark;
	bool found;

	ck_assert_uint_eq(number(), 0);
	ck_assert(run_store_source(store, "in", &source, &found) && !found);
	ck_assert(run_store_sink(store, "out", &sink, &found) && !found);
	ck_assert(run_store_segment(store, "a", &subtasks, &watermark));
	ck_assert_uint_eq(subtasks, 0);
	ck_assert_int_eq(watermark, INT64_MIN);
	ck_assert_str_eq(share_of(0, 1), "");
	reopen();
	ck_assert_uint_eq(number(), 0);
}
END_TEST

START_TEST(test_ends_come_back)
{
	struct store_source in = {"in", "file", "/x/in", UINT64_C(1) << 40, 12, INT64_MIN, UINT64_MAX - 3}, source;
	struct store_sink out = {"out", "/x/out", 77, 5, 9}, sink;
	struct store_checkpoint checkpoint = {9, true, "pipe", "0123456789abcdef", "a: b\n", 123}, read;
	bool found;

	ck_assert(run_store_put_source(store, &in) && run_store_put_sink(store, &out));
	ck_assert(run_store_commit(store, &checkpoint));
	reopen();
	ck_assert(run_store_source(store, "in", &source, &found) && found);
	ck_assert_str_eq(source.path, in.path);
	ck_assert_str_eq(source.kind, in.kind);
	ck_assert_uint_eq(source.position, in.position);
	ck_assert_uint_eq(source.records, in.records);
	ck_assert_int_eq(source.largest_ms, INT64_MIN);
	ck_assert_uint_eq(source.fingerprint, in.fingerprint);
	ck_assert(run_store_sink(store, "out", &sink, &found) && found);
	ck_assert_str_eq(sink.path, out.path);
	ck_assert_uint_eq(sink.length, out.length);
	ck_assert_uint_eq(sink.records, out.records);
	ck_assert_uint_eq(sink.fingerprint, out.fingerprint);
	ck_assert(run_store_checkpoint(store, &read));
	ck_assert_uint_eq(read.id, checkpoint.id);
	ck_assert(read.finished);
	ck_assert_str_eq(read.pipeline, checkpoint.pipeline);
	ck_assert_str_eq(read.topology_hash, checkpoint.topology_hash);
	ck_assert_str_eq(read.descriptor, checkpoint.descriptor);
	ck_assert_int_eq(read.made_ms, checkpoint.made_ms);
	in.largest_ms = -4;
	ck_assert(run_store_put_source(store, &in) && commit(10));
	ck_assert(run_store_source(store, "in", &source, &found) && found);
	ck_assert_int_eq(source.largest_ms, -4);
	ck_assert_uint_eq(number(), 10);
}
END_TEST

START_TEST(test_the_least_watermark_of_as_many_subtasks_as_there_were)
{
	uint32_t subtasks;
	int64_t watermark;

	for (uint32_t s = 0; s < 4; s++)
		ck_assert(run_store_put_subtask(store, "c", s, 100 - (int64_t)s));
	ck_assert(commit(1) && run_store_segment(store, "c", &subtasks, &watermark));
	ck_assert_uint_eq(subtasks, 4);
	ck_assert_int_eq(watermark, 97);
	ck_assert(run_store_take_over(store, (const char *[]){"c"}, 1)); /* the others are gone */
	for (uint32_t s = 0; s < 2; s++)
		ck_assert(run_store_put_subtask(store, "c", s, s == 0 ? INT64_MIN : 50));
	ck_assert(commit(2) && run_store_segment(store, "c", &subtasks, &watermark));
	ck_assert_uint_eq(subtasks, 2);
	ck_assert_int_eq(watermark, INT64_MIN);
}
END_TEST

START_TEST(test_states_come_back_in_the_order_they_were_declared)
{
	struct wire_declaration two[] = {declaration("b", BY_KEY), declaration("a", SPLIT)};
	const struct store_state *states;
	int64_t ids[2];
	uint32_t count;

	ck_assert(run_store_declare(store, "b", two, 2, ids) && commit(1));
	reopen();
	ck_assert(run_store_states(store, "b", &states, &count));
	ck_assert_uint_eq(count, 2);
	for (uint32_t i = 0; i < 2; i++) {
		ck_assert_int_eq(states[i].id, ids[i]);
		ck_assert(view_equal(states[i].declaration.name, two[i].name));
		ck_assert(view_equal(states[i].declaration.step, two[i].step));
		ck_assert_uint_eq(states[i].declaration.kind, 2);
		ck_assert_uint_eq(states[i].declaration.partition, two[i].partition);
		ck_assert_uint_eq(states[i].declaration.version, 3);
		ck_assert_int_eq(states[i].declaration.ttl_ms, 4);
	}
	ck_assert(run_store_states(store, "a", &states, &count));
	ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(test_entries_are_replaced_and_removed)
{
	struct wire_declaration one = declaration("a", BY_KEY);
	int64_t id;

	ck_assert(run_store_declare(store, "a", &one, 1, &id));
	put(id, 0, 5, "k", "", "1");
	put(id, 0, 5, "k", "x", "2");
	put(id, 0, 5, "k2", "", "3");
	ck_assert(commit(1));
	put(id, 0, 5, "k", "", "4");
	put(id, 0, 5, "k", "x", NULL);
	put(id, 0, 5, "none", "", NULL);
	put(id, 0, 5, "", "", "");
	ck_assert(commit(2));
	reopen();
	ck_assert_str_eq(share_of(0, 1), "0./= 0.k/=4 0.k2/=3 ");
}
END_TEST

START_TEST(test_bytes_of_all_kinds)
{
	uint8_t bytes[256];
	struct wire_declaration one = declaration("a", BY_KEY);
	const struct store_state *states;
	struct wire_entry entry, read;
	uint32_t count;
	int64_t id;
	bool found;

	for (int i = 0; i < 256; i++)
		bytes[i] = (uint8_t)i;
	entry = (struct wire_entry){.key = {bytes, 256}, .sub_key = {bytes, 1}, .value = {bytes, 3}};
	entry.key_hash = INT32_MIN;
	entry.key_group = 127;
	ck_assert(run_store_declare(store, "a", &one, 1, &id) && run_store_put_entry(store, id, 0, &entry) &&
		  commit(1));
	ck_assert(run_store_states(store, "a", &states, &count));
	struct store_cursor *cursor =
	    run_store_cursor(store, &(struct store_share){states, count, 0, 1, 1, 0, GROUPS - 1});
	ck_assert(run_store_next(cursor, &read, &found) && found);
	ck_assert(view_equal(read.key, entry.key) && view_equal(read.sub_key, entry.sub_key));
	ck_assert(view_equal(read.value, entry.value));
	ck_assert_int_eq(read.key_hash, INT32_MIN);
	ck_assert_uint_eq(read.key_group, 127);
	run_store_cursor_close(cursor);
}
END_TEST

/* ---- Rescaling ---- */

START_TEST(test_each_entry_goes_to_the_one_that_has_its_key_group)
{
	struct wire_declaration one = declaration("a", BY_KEY);
	uint32_t parallelism = (uint32_t)_i, seen = 0;
	int64_t id;
	char key[8];

	ck_assert(run_store_declare(store, "a", &one, 1, &id));
	for (uint32_t group = 0; group < GROUPS; group++) {
		snprintf(key, sizeof(key), "%u", group);
		put(id, 0, group, key, "", "");
	}
	ck_assert(commit(1));
	for (uint32_t s = 0; s < parallelism; s++) {
		uint32_t first, last;
		key_group_range(s, parallelism, GROUPS, &first, &last);
		for (const char *at = share_of(s, parallelism); *at != '\0'; at = strchr(at, ' ') + 1, seen++) {
			uint32_t group = (uint32_t)atoi(at + 2);
			ck_assert(group >= first && group <= last);
		}
	}
	ck_assert_uint_eq(seen, GROUPS);
}
END_TEST

START_TEST(test_lists_without_keys_are_dealt_out)
{
	struct wire_declaration two[] = {declaration("split", SPLIT), declaration("union", UNION)};
	int64_t ids[2];

	ck_assert(run_store_declare(store, "a", two, 2, ids));
	for (uint32_t s = 0; s < 2; s++) {
		ck_assert(run_store_put_subtask(store, "a", s, 0));
		for (int i = 0; i < 3; i++)
			put(ids[0], s, 0, "", (char[]){(char)('a' + i), 0}, s == 0 ? "zero" : "one");
		put(ids[1], s, 0, "", "u", s == 0 ? "zero" : "one");
	}
	ck_assert(commit(1));
	/* Nothing was rescaled: to each its own. */
	ck_assert_str_eq(share_of(0, 2), "0./a=zero 0./b=zero 0./c=zero 1./u=zero 1./u=one ");
	ck_assert_str_eq(share_of(1, 2), "0./a=one 0./b=one 0./c=one 1./u=zero 1./u=one ");
	ck_assert_str_eq(share_of(0, 1),
			 "0./a=zero 0./b=zero 0./c=zero 0./a=one 0./b=one 0./c=one 1./u=zero 1./u=one ");
	ck_assert_str_eq(share_of(0, 4), "0./a=zero 1./u=zero 1./u=one ");
	ck_assert_str_eq(share_of(1, 4), "0./b=zero 0./c=zero 1./u=zero 1./u=one ");
	ck_assert_str_eq(share_of(2, 4), "0./a=one 1./u=zero 1./u=one ");
	ck_assert_str_eq(share_of(3, 4), "0./b=one 0./c=one 1./u=zero 1./u=one ");
}
END_TEST

START_TEST(test_what_is_not_declared_any_more_is_forgotten)
{
	struct wire_declaration three[] = {declaration("a", BY_KEY), declaration("gone", BY_KEY),
					   declaration("list", SPLIT)};
	struct wire_declaration two[] = {three[2], three[0]};
	int64_t ids[3], new_ids[2];

	ck_assert(run_store_declare(store, "a", three, 3, ids));
	put(ids[0], 0, 1, "k", "", "kept");
	put(ids[1], 0, 1, "k", "", "forgotten");
	put(ids[2], 0, 0, "", "1", "sent again under a new place");
	ck_assert(run_store_put_subtask(store, "a", 0, 0) && commit(1));
	ck_assert(run_store_declare(store, "a", two, 2, new_ids));
	ck_assert_int_eq(new_ids[0], ids[2]);
	ck_assert_int_eq(new_ids[1], ids[0]);
	put(new_ids[0], 0, 0, "", "2", "new place");
	ck_assert(commit(2));
	ck_assert_str_eq(share_of(0, 1), "0.k/=kept 1./2=new place ");
}
END_TEST

START_TEST(test_a_run_takes_over_what_its_segments_had)
{
	struct wire_declaration one = declaration("a", BY_KEY);
	struct store_source in = {"in", "file", "/in", 1, 1, 1, 1};
	struct store_sink out = {"out", "/out", 1, 1, 1};
	const struct store_state *states;
	int64_t kept, gone;
	uint32_t count;
	bool found;

	ck_assert(run_store_declare(store, "a", &one, 1, &kept) && run_store_declare(store, "b", &one, 1, &gone));
	put(kept, 0, 1, "k", "", "kept");
	put(gone, 0, 1, "k", "", "gone");
	ck_assert(run_store_put_source(store, &in) && run_store_put_sink(store, &out) && commit(1));
	ck_assert(run_store_take_over(store, (const char *[]){"c", "a"}, 2) && commit(2));
	ck_assert_str_eq(share_of(0, 1), "0.k/=kept ");
	ck_assert(run_store_states(store, "b", &states, &count));
	ck_assert_uint_eq(count, 0);
	ck_assert(run_store_source(store, "in", &in, &found) && !found);
	ck_assert(run_store_sink(store, "out", &out, &found) && !found);
	run_store_close(store);
	store = NULL;
	sqlite3 *database;
	ck_assert_int_eq(sqlite3_open(path, &database), SQLITE_OK);
	sqlite3_stmt *rows;
	ck_assert_int_eq(sqlite3_prepare_v2(database, "SELECT count(*) FROM entry", -1, &rows, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(rows), SQLITE_ROW);
	ck_assert_int_eq(sqlite3_column_int(rows, 0), 1);
	sqlite3_finalize(rows);
	sqlite3_close(database);
}
END_TEST

/* ---- Whole or not at all (C1) ---- */

START_TEST(test_what_is_not_committed_never_was)
{
	struct wire_declaration one = declaration("a", BY_KEY);
	struct store_sink sink = {"out", "/out", 1, 1, 1};
	int64_t id;
	bool found;

	ck_assert(run_store_declare(store, "a", &one, 1, &id));
	put(id, 0, 1, "k", "", "1");
	ck_assert(run_store_put_sink(store, &sink) && commit(1));
	put(id, 0, 1, "k", "", "2");
	put(id, 0, 1, "k2", "", "2");
	sink.length = 2;
	ck_assert(run_store_put_sink(store, &sink));
	reopen();
	ck_assert_uint_eq(number(), 1);
	ck_assert_str_eq(share_of(0, 1), "0.k/=1 ");
	ck_assert(run_store_sink(store, "out", &sink, &found) && found);
	ck_assert_uint_eq(sink.length, 1);
}
END_TEST

/* In a child: checkpoint after checkpoint, each with all entries of its number, until it is killed. */
static void write_until_killed(int told)
{
	struct wire_declaration one = declaration("a", BY_KEY);
	int64_t id;
	char key[16], value[16];
	run_store_open(&store, path, why);
	for (uint64_t n = number() + 1;; n++) {
		run_store_declare(store, "a", &one, 1, &id);
		snprintf(value, sizeof(value), "%llu", (unsigned long long)n);
		for (uint32_t i = 0; i < 200; i++) {
			snprintf(key, sizeof(key), "%u", i);
			put(id, 0, i % GROUPS, key, "", value);
		}
		if (!commit(n) || write(told, "x", 1) != 1)
			_exit(1);
	}
}

START_TEST(test_killed_at_any_time_it_holds_one_checkpoint)
{
	unsigned seed = 11;
	uint64_t last = 0;
	for (int round = 0; round < 40; round++) {
		int told[2];
		char byte;
		run_store_close(store);
		store = NULL;
		ck_assert_int_eq(pipe(told), 0);
		pid_t child = fork();
		if (child == 0)
			write_until_killed(told[1]);
		for (int i = rand_r(&seed) % 4; i >= 0; i--)
			ck_assert_int_eq(read(told[0], &byte, 1), 1);
		for (volatile int i = rand_r(&seed) % 2000000; i > 0; i--)
			;
		kill(child, SIGKILL);
		ck_assert_int_eq(waitpid(child, NULL, 0), child);
		close(told[0]);
		close(told[1]);
		open_store();
		char expected[24];
		ck_assert_uint_gt(number(), last);
		last = number();
		snprintf(expected, sizeof(expected), "=%llu ", (unsigned long long)last);
		unsigned entries = 0;
		for (uint32_t s = 0; s < 2; s++)
			for (const char *at = share_of(s, 2); *at != '\0'; at = strchr(at, ' ') + 1, entries++)
				ck_assert_mem_eq(strchr(at, '='), expected, strlen(expected));
		ck_assert_uint_eq(entries, 200);
	}
}
END_TEST

/* ---- One at a time (C2), and only what is ours (C3) ---- */

START_TEST(test_a_second_run_is_kept_out)
{
	struct run_store *other;
	ck_assert_int_eq(run_store_open(&other, path, why), STORE_IN_USE);
	ck_assert_ptr_null(other);
	ck_assert_ptr_nonnull(strstr(why, "in use by another run"));
	reopen();
}
END_TEST

/* Replaces the file by what a command makes of it. */
static void spoil(const char *command)
{
	char text[256];
	run_store_close(store);
	store = NULL;
	snprintf(text, sizeof(text), "cd %s && %s", folder, command);
	ck_assert_int_eq(system(text), 0);
}

/* Bytes of the file. */
static int64_t file_size(void)
{
	struct stat stat_;
	ck_assert_int_eq(stat(path, &stat_), 0);
	return stat_.st_size;
}

static const struct {
	const char *command;
	enum store_result result;
	const char *words;
} strange[] = {
    {"printf 'some notes of mine, which nobody must touch\\n' > file", STORE_NOT_OURS, "it is no SQLite file"},
    {"rm file && mkdir file", STORE_FAILED, "Is a directory"},
    {"rm file && mkfifo file", STORE_NOT_OURS, "is no regular file"},
    {"rm file && ln -s /nowhere/at/all file", STORE_FAILED, "No such file"},
};

START_TEST(test_what_is_not_ours_is_refused)
{
	spoil(strange[_i].command);
	int64_t size = strange[_i].result == STORE_FAILED ? 0 : file_size();
	ck_assert_int_eq(run_store_open(&store, path, why), strange[_i].result);
	ck_assert_msg(strstr(why, strange[_i].words) != NULL, "%s", why);
	if (strange[_i].result != STORE_FAILED)
		ck_assert_int_eq(file_size(), size);
}
END_TEST

/* Runs SQL on the file, behind the store's back. */
static void with_sqlite(const char *text)
{
	sqlite3 *database;
	run_store_close(store);
	store = NULL;
	ck_assert_int_eq(sqlite3_open(path, &database), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(database, text, NULL, NULL, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_close(database), SQLITE_OK);
}

START_TEST(test_another_programs_database)
{
	with_sqlite("PRAGMA application_id = 0; CREATE TABLE mine (x)");
	ck_assert_int_eq(run_store_open(&store, path, why), STORE_NOT_OURS);
	ck_assert_msg(strstr(why, "an SQLite file of another program") != NULL, "%s", why);
}
END_TEST

START_TEST(test_a_newer_format)
{
	with_sqlite("PRAGMA user_version = 2");
	ck_assert_int_eq(run_store_open(&store, path, why), STORE_NOT_OURS);
	ck_assert_msg(strstr(why, "has format 2") != NULL && strstr(why, "reads format 1") != NULL, "%s", why);
}
END_TEST

START_TEST(test_a_damaged_file_is_told)
{
	struct wire_declaration one = declaration("a", BY_KEY);
	int64_t id;
	char key[16];

	ck_assert(run_store_declare(store, "a", &one, 1, &id));
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "%d", i);
		put(id, 0, 0, key, "", "some value that fills the pages of the file");
	}
	ck_assert(commit(1));
	spoil("dd if=/dev/urandom of=file bs=4096 seek=8 count=20 conv=notrunc status=none");
	open_store();
	const struct store_state *states;
	struct wire_entry entry;
	uint32_t count;
	bool found = true;
	if (run_store_states(store, "a", &states, &count)) {
		struct store_cursor *cursor =
		    run_store_cursor(store, &(struct store_share){states, count, 0, 1, 1, 0, GROUPS - 1});
		while (found && run_store_next(cursor, &entry, &found))
			;
		run_store_cursor_close(cursor);
	}
	ck_assert_msg(strstr(run_store_why(store), "malformed") != NULL, "%s", run_store_why(store));
}
END_TEST

static Suite *store_suite(void)
{
	Suite *suite = suite_create("run_store");
	TCase *tests = tcase_create("all");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, test_a_new_file_has_no_checkpoint);
	tcase_add_test(tests, test_ends_come_back);
	tcase_add_test(tests, test_the_least_watermark_of_as_many_subtasks_as_there_were);
	tcase_add_test(tests, test_states_come_back_in_the_order_they_were_declared);
	tcase_add_test(tests, test_entries_are_replaced_and_removed);
	tcase_add_test(tests, test_bytes_of_all_kinds);
	tcase_add_loop_test(tests, test_each_entry_goes_to_the_one_that_has_its_key_group, 1, 6);
	tcase_add_test(tests, test_lists_without_keys_are_dealt_out);
	tcase_add_test(tests, test_what_is_not_declared_any_more_is_forgotten);
	tcase_add_test(tests, test_a_run_takes_over_what_its_segments_had);
	tcase_add_test(tests, test_what_is_not_committed_never_was);
	tcase_add_test(tests, test_killed_at_any_time_it_holds_one_checkpoint);
	tcase_add_test(tests, test_a_second_run_is_kept_out);
	tcase_add_loop_test(tests, test_what_is_not_ours_is_refused, 0, sizeof(strange) / sizeof(strange[0]));
	tcase_add_test(tests, test_another_programs_database);
	tcase_add_test(tests, test_a_newer_format);
	tcase_add_test(tests, test_a_damaged_file_is_told);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(store_suite)
