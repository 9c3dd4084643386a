/*
 * Steps out of libraries: what can be wrong with a library, and each part of the interface, by the libraries in tests/libraries.
 * How their deaths are survived is shown end to end.
 */
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xxhash.h>

#include "shared/keygroup.h"
#include "shared/metrics.h"
#include "tests/check_main.h"
#include "tests/memory.h"
#include "tests/spec.h"
#include "worker/chain.h"
#include "worker/errors.h"
#include "worker/hosts/host.h"
#include "worker/jq_program.h"
#include "worker/json_text.h"
#include "worker/state_parts.h"
#include "worker/wakes.h"

enum { STATE_BYTES = 16 << 20, TEXT_SIZE = 1 << 14, TIMERS_AT_ONCE = 100 };

static struct spec spec;
static struct memory memory;
static struct scratch *scratch;
static struct run run;
static struct metric_table metrics;
static struct chain *chain;
static struct failure failure;

/* The libraries lie beside this program. */
static void setup(void)
{
	char program[1024] = "", folder[1100];

	ck_assert_int_gt(readlink("/proc/self/exe", program, sizeof(program) - 1), 0);
	snprintf(folder, sizeof(folder), "%s/libraries", dirname(program));
	ck_assert_int_eq(chdir(folder), 0);
	memory_make(&memory, STATE_BYTES);
	spec_init(&spec);
	scratch = scratch_create();
	run_init(&run, scratch);
	memset(&metrics, 0, sizeof(metrics));
	host_metrics_in(&metrics);
	chain = NULL;
}

static void teardown(void)
{
	chain_destroy(chain);
	host_forget();
	run_deinit(&run);
	scratch_destroy(scratch);
	spec_deinit(&spec);
	memory_free(&memory);
	jq_programs_free();
	json_forget_keys();
}

/* Opens the chain that the spec has. */
static void open_chain(void)
{
	chain_destroy(chain);
	chain = chain_create(&spec.segment, memory.store, NULL, &failure);
	ck_assert_msg(chain != NULL, "%s", failure.message);
}

/* Opens a segment of one step by its function, with states if it is keyed. */
static void open_function(const char *function, bool keyed)
{
	spec.segment.keyed = keyed;
	if (keyed)
		spec_add(&spec, STEP_native, "library", "steps.so", "function", function, "state",
			 "value=value\nmap=map\nlist=list\ntimers=timers", NULL);
	else
		spec_add(&spec, STEP_native, "library", "steps.so", "function", function, NULL);
	open_chain();
}

/* Makes records of lines; the key of each is its first letter. */
static void fill(const char *lines)
{
	static const struct wire_header header = {{(const uint8_t *)"h", 1}, {(const uint8_t *)"v", 1}};

	run_clear(&run);
	for (uint32_t i = 0; *lines; i++) {
		size_t size = strcspn(lines, "\n");
		struct record *record = run_push(&run);

		record->payload = (struct view){(const uint8_t *)lines, size};
		record->origin = i;
		record->timestamp = 1000 + i;
		record->keyed = true;
		record->key = (struct view){(const uint8_t *)lines, size > 0};
		record->key_hash = key_hash_of(record->key);
		record->headers = &header;
		record->header_count = 1;
		lines += size + (lines[size] == '\n');
	}
}

/* The run as text: payloads, and what is unusual: "payload@timestamp>route". */
static const char *shown(void)
{
	static char text[TEXT_SIZE];
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < run.count; i++) {
		const struct record *record = &run.records[i];
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%.*s", i ? "\n" : "",
					 (int)record->payload.size, (const char *)record->payload.data);
		if (record->timestamp < 1000 || record->timestamp > 1100)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "@%" PRId64, record->timestamp);
		if (record->route)
			used += (size_t)snprintf(text + used, sizeof(text) - used, ">%u", record->route);
	}
	return text;
}

/* What comes out for lines, or the failure; the unit is committed, or rolled back. */
static const char *pass(const char *lines)
{
	static char text[TEXT_SIZE];

	scratch_reset(scratch);
	fill(lines);
	if (!chain_process(chain, &run, (struct step_time){500, 900}, &failure)) {
		arena_rollback(&memory.arena);
		snprintf(text, sizeof(text), "failed %u: %s", failure.origin, failure.message);
		return text;
	}
	arena_commit(&memory.arena);
	return shown();
}

/* What comes out when time moves on, or ends. */
static const char *release(enum release_cause cause, int64_t time)
{
	bool more = false;
	struct step_time now = {cause == RELEASE_TICK ? time : 500, cause == RELEASE_WATERMARK ? time : 900};

	run_clear(&run);
	if (!chain_release(chain, cause, now, TIMERS_AT_ONCE, &run, &more, &failure)) {
		arena_rollback(&memory.arena);
		return failure.message;
	}
	ck_assert(!more);
	arena_commit(&memory.arena);
	return shown();
}

/* ---- Libraries that are none ---- */

static const struct {
	const char *library, *function, *words;
} broken[] = {
    {"nowhere.so", "x",
     "the library nowhere.so cannot be read: No such file or directory (looked in: .; --library-path)"},
    {"/nowhere/x.so", "x", "the library /nowhere/x.so cannot be read: No such file or directory"},
    {"../check_host", "x", "the library cannot be loaded: ./../check_host: "},
    {"no_symbol.so", "x", "the library ./no_symbol.so has no symbol bridge_step_library: it must export"},
    {"other_abi.so", "x",
     "the library ./other_abi.so was built for version 42 of bridge_step.h, and this program has version 1"},
    {"short_table.so", "x", "the library ./short_table.so says that its table has "},
    {"no_process.so", "x", "the library ./no_process.so has no open() in its table"},
    {"steps.so", "nosuch", "there is no step nosuch in this library"},
};

/* The first folder that has the library is the one. */
START_TEST(test_libraries_are_looked_for_in_folders)
{
	char here[4096], folders[2 * sizeof(here) + 64];

	ck_assert_ptr_nonnull(getcwd(here, sizeof(here)));
	snprintf(folders, sizeof(folders), "/nowhere::%s/..:%s:/", here, here);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(setenv("FLINK_BRIDGE_LIBRARY_PATH", folders, 1), 0);
	open_function("identity", false);
	ck_assert_str_eq(pass("a"), "a");
	ck_assert_int_eq(setenv("FLINK_BRIDGE_LIBRARY_PATH", "/nowhere:/nor/here", 1), 0);
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "identity", NULL);
	ck_assert_ptr_null(chain_create(&spec.segment, NULL, NULL, &failure));
	ck_assert_str_eq(failure.message, "the library steps.so cannot be read: No such file or directory (looked in: "
					  "/nowhere:/nor/here; --library-path)");
}
END_TEST

START_TEST(test_broken_library)
{
	spec_add(&spec, STEP_native, "library", broken[_i].library, "function", broken[_i].function, NULL);
	ck_assert_ptr_null(chain_create(&spec.segment, NULL, NULL, &failure));
	ck_assert_msg(strncmp(failure.message, broken[_i].words, strlen(broken[_i].words)) == 0, "%s", failure.message);
}
END_TEST

START_TEST(test_a_host_that_is_not_installed)
{
	setenv("FLINK_BRIDGE_LIBDIR", "/nowhere", 1);
	spec_add(&spec, STEP_python, "module", "a", "function", "b", NULL);
	ck_assert_ptr_null(chain_create(&spec.segment, NULL, NULL, &failure));
	ck_assert_str_eq(failure.message, "bridge_python.so is not in /nowhere, which FLINK_BRIDGE_LIBDIR names");
}
END_TEST

/* A process that waits loads the code, and opens nothing. */
START_TEST(test_opening_is_for_owners)
{
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "unopened", NULL);
	struct chain *waiting = chain_create(&spec.segment, NULL, NULL, &failure);
	ck_assert_ptr_nonnull(waiting);
	chain_destroy(waiting);
	open_chain();
	ck_assert(!chain_start(chain, (struct step_time){0, INT64_MIN}, &failure));
	ck_assert_str_eq(failure.message, "the door is locked");
	ck_assert_str_eq(pass("a"), "failed 0: the door is locked");
}
END_TEST

/* What was opened before a step that cannot be opened yet stays open, and what is behind it waits; what is open and says that it
 * failed is closed. */
START_TEST(test_opening_goes_on_where_it_failed)
{
	const struct step_time now = {0, INT64_MIN};

	spec_add(&spec, STEP_native, "library", "steps.so", "function", "identity", NULL);
	spec_add(&spec, STEP_map, "program", ".", NULL);
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "reluctant", NULL);
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "openings", NULL);
	open_chain();
	ck_assert(!chain_start(chain, now, &failure));
	ck_assert_str_eq(failure.message, "not now");
	ck_assert_uint_eq(failure.step, 2);
	ck_assert_str_eq(pass("1"), "failed 0: not yet");
	ck_assert_uint_eq(failure.step, 2);
	ck_assert_str_eq(pass("1"), "4 opened, 1 closed"); /* one of them twice */
	ck_assert(chain_start(chain, now, &failure));
	ck_assert_str_eq(pass("1"), "4 opened, 1 closed");
}
END_TEST

/* Outside of units of work there is no memory of theirs: that is no failure. */
START_TEST(test_opening_needs_no_memory)
{
	open_function("greedy", false);
	ck_assert_str_eq(pass("a"), "a");
}
END_TEST

/* ---- Records ---- */

static const struct {
	const char *function, *in, *out;
} plain[] = {
    {"identity", "a\nb\n\nc", "a\nb\n\nc"},
    {"upcase", "one\ntwo", "ONE\nTWO"},
    {"upcase", "one\ntwo!\nthree", "failed 1: no shouting"},
    {"sieve", "a\ndrop\nb\ndrop", "a\nb"},
    {"sieve", "drop\ndrop", ""},
    {"sieve", "a\ntwice\nb", "a\ntwice\ntwice\nb"},
    {"sieve", "a\ndrop\nlate\nb", "a\nanew\nb"},
    {"sieve", "a\nb\nback\nc", "a\nb\na\nc"},
    {"told", "a", "test/native 1 of 128 now 500"},
    {"routes", "a\nx", "failed 1: no such route"},
    {"dress", "a\nb", "a@77\nb@77"},
    {"many", "3\n0\n1", "3\n3\n3\n1"},
    {"moody", "a\nfail\nb", "failed 1: not today"},
    {"moody", "silent", "failed 0: process() returned -1, and did not say why (host->fail)"},
    {"moody", "odd", "failed 0: process() returned 17, and did not say why (host->fail)"},
};

START_TEST(test_records)
{
	open_function(plain[_i].function, false);
	ck_assert_str_eq(pass(plain[_i].in), plain[_i].out);
	ck_assert_str_eq(pass(plain[_i].in), plain[_i].out); /* nothing is left of the first call */
}
END_TEST

/* What comes out for lines as a batch, as it comes in by a session. */
static const char *pass_batch(const char *lines)
{
	static const struct wire_header header = {{(const uint8_t *)"h", 1}, {(const uint8_t *)"v", 1}};
	static char text[TEXT_SIZE];
	struct wire_record records[16];
	struct wire_batch batch = {.records = records};
	bool in_place;

	scratch_reset(scratch);
	fill(lines);
	for (uint32_t i = 0; i < run.count; i++) {
		const struct record *record = &run.records[i];
		records[batch.count++] = (struct wire_record){.payload = record->payload,
							      .key = record->key,
							      .key_hash = record->key_hash,
							      .timestamp = record->timestamp,
							      .keyed = true,
							      .input = 7,
							      .ordinal = i,
							      .headers = &header,
							      .header_count = 1};
	}
	run_clear(&run);
	ck_assert(chain_takes_batches(chain));
	if (!chain_process_batch(chain, &batch, &run, (struct step_time){500, 900}, &in_place, &failure)) {
		ck_assert_uint_eq(run.count, 0);
		arena_rollback(&memory.arena);
		snprintf(text, sizeof(text), "failed %u: %s", failure.origin, failure.message);
		return text;
	}
	arena_commit(&memory.arena);
	ck_assert(!in_place || run.count == 0);
	for (uint32_t i = 0; in_place && i < batch.count; i++) {
		struct record *record = run_push(&run);
		record_of_batch(record, &batch, i);
		record->route = records[i].route;
	}
	return shown();
}

START_TEST(test_records_of_a_batch)
{
	open_function(plain[_i].function, false);
	ck_assert_str_eq(pass_batch(plain[_i].in), plain[_i].out);
	ck_assert_str_eq(pass_batch(plain[_i].in), plain[_i].out);
}
END_TEST

START_TEST(test_what_records_of_a_batch_keep)
{
	open_function(_i ? "upcase" : "identity", false);
	pass_batch("one\ntwo");
	ck_assert_uint_eq(run.records[1].origin, 1);
	ck_assert_int_eq(run.records[1].timestamp, 1001);
	ck_assert(run.records[1].keyed && view_equal(run.records[1].key, view_of("t")));
	ck_assert_uint_eq(run.records[1].header_count, 1);
	ck_assert(view_equal(run.records[1].headers[0].key, view_of("h")));
}
END_TEST

START_TEST(test_a_batch_with_routes_and_state)
{
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "routes", "routes", "first\nsecond", NULL);
	open_chain();
	ck_assert_str_eq(pass_batch("b\na\nb"), "b>1\na\nb>1");
	chain_destroy(chain);
	chain = NULL;
	host_forget();
	spec_deinit(&spec);
	spec_init(&spec);
	open_function("count", true);
	ck_assert_str_eq(pass_batch("a\nb\na"), "a:1\nb:1\na:2");
	ck_assert_str_eq(pass_batch("a\nfail"), "failed 1: it says so");
	ck_assert_str_eq(pass_batch("a"), "a:3");
	ck_assert_str_eq(pass("a"), "a:4");
	/* With a policy records are looked at one by one. */
	spec.steps[0].policy = ON_ERROR_SKIP;
	ck_assert(!chain_takes_batches(chain));
}
END_TEST

/* What a library sees of records is what they came with, also when they are on their way already. */
START_TEST(test_what_records_show)
{
	static const char *const out[] = {"a>1\nb>1\na: key 1 a, header 1 v, time 1000, input 0, ordinal 0\n"
					  "b: key 1 b, header 1 v, time 1001, input 0, ordinal 1",
					  "a>1\nb>1\na: key 1 a, header 1 v, time 1000, input 7, ordinal 0\n"
					  "b: key 1 b, header 1 v, time 1001, input 7, ordinal 1"};

	spec_add(&spec, STEP_native, "library", "steps.so", "function", "shown", "routes", "first\nsecond", NULL);
	open_chain();
	ck_assert_str_eq(_i ? pass_batch("a\nb") : pass("a\nb"), out[_i]);
}
END_TEST

START_TEST(test_what_records_keep)
{
	open_function("upcase", false);
	pass("one\ntwo");
	ck_assert_uint_eq(run.records[1].origin, 1);
	ck_assert_int_eq(run.records[1].timestamp, 1001);
	ck_assert(view_equal(run.records[1].key, view_of("t")));
	ck_assert(run.records[1].keyed);
	ck_assert_uint_eq(run.records[1].header_count, 1);
	chain_destroy(chain);
	chain = NULL;
	host_forget();
	spec_deinit(&spec);
	spec_init(&spec);
	open_function("dress", false);
	pass("one");
	ck_assert_uint_eq(run.records[0].header_count, 1);
	ck_assert(view_equal(run.records[0].headers[0].key, view_of("worn")));
	ck_assert(view_equal(run.records[0].headers[0].value, view_of("hat")));
}
END_TEST

/* Steps before and behind one see and make values; it sees bytes. */
START_TEST(test_among_others)
{
	spec_add(&spec, STEP_map, "program", ".a", NULL);
	spec_add(&spec, STEP_filter, "program", ". != 2", NULL);
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "identity", NULL);
	spec_add(&spec, STEP_map, "program", ". + 1", NULL);
	open_chain();
	ck_assert_str_eq(pass("{\"a\":1}\n{\"a\":2}\n{\"a\":3}"), "2\n4");
}
END_TEST

START_TEST(test_routes)
{
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "routes", "routes", "first\nsecond", NULL);
	open_chain();
	ck_assert(segment_has_own_routes(&spec.segment));
	ck_assert_str_eq(pass("b\na\nb"), "b>1\na\nb>1");
	ck_assert_str_eq(pass("b\nx"), "failed 1: no such route");
}
END_TEST

/* Which failures are tried again, by what the pipeline says: "later" the step calls transient, "fail" it does not. */
static const struct {
	const char *kinds[3];
	bool later, fail;
} retry_ons[] = {
    {{NULL}, true, false},
    {{"transient", NULL}, true, false},
    {{"MoodError", NULL}, true, true},
    {{"transient", "LibraryError", NULL}, true, true},
    {{"moods.MoodError", NULL}, true, true},
    {{"Mood", "MoodErro", NULL}, false, false},
    {{"moods.MoodError\nLibraryError", "other", NULL}, false, false},
};

START_TEST(test_the_pipeline_says_which_failures_may_pass)
{
	struct option_item items[3];
	size_t count = 0;

	for (; retry_ons[_i].kinds[count] != NULL; count++)
		items[count] = (struct option_item){.name = retry_ons[_i].kinds[count]};
	open_function("moody", false);
	spec.steps[0].rules.retry_on = items;
	spec.steps[0].rules.retry_on_count = count;
	pass("later");
	ck_assert_int_eq(failure.transient, retry_ons[_i].later);
	pass("fail");
	ck_assert_int_eq(failure.transient, retry_ons[_i].fail);
	pass("silent");
	ck_assert(!failure.transient);
}
END_TEST

START_TEST(test_failures_have_all_their_words)
{
	open_function("moody", false);
	pass("later");
	ck_assert_str_eq(failure.kind, "MoodError");
	ck_assert_str_eq(failure.traceback, "line 1\nline 2");
	ck_assert(failure.transient);
	pass("fail");
	ck_assert(!failure.transient);
	pass("silent");
	ck_assert_str_eq(failure.kind, "");
	ck_assert_ptr_null(failure.traceback);
}
END_TEST

/* What does not fit into a unit is the caller's to try again with less. */
START_TEST(test_too_much)
{
	open_function("many", false);
	ck_assert_str_eq(pass("9000000"), "failed 0: no room for what process() makes: of its records, or in the state "
					  "memory of the slot");
	ck_assert(scratch_is_out(scratch));
	ck_assert_str_eq(pass("1"), "1");
}
END_TEST

START_TEST(test_mistakes_are_noticed)
{
	open_function("mistakes", true);
	ck_assert_str_eq(pass("a"), "-6 -5 -6 -3 -6 0 -4 -6 -6 -3 -3 0");
}
END_TEST

/* ---- What a step is told ---- */

START_TEST(test_what_it_is_told)
{
	spec.segment.keyed = true;
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "told", "options", "b=2\na=1", "state",
		 "seen=map ttl 1h\ndue=timers", NULL);
	open_chain();
	ck_assert_str_eq(pass("a"), "test/native 1 of 128 b=2 a=1 seen:1,1,3600000 due:3,1,0 now 500");
	chain_destroy(chain);
	chain = NULL;
	host_forget();
	spec_deinit(&spec);
	spec_init(&spec);
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "told", "state", "a=split\nb=union", NULL);
	memory_free(&memory);
	memory_make(&memory, STATE_BYTES);
	open_chain();
	ck_assert_str_eq(pass("a"), "test/native 1 of 128 a:2,0,0 b:2,0,0 now 500");
}
END_TEST

/* ---- State ---- */

START_TEST(test_counts)
{
	open_function("count", true);
	ck_assert_str_eq(pass("a\nb\na"), "a:1\nb:1\na:2");
	ck_assert_str_eq(pass("a\nfail"), "failed 1: it says so");
	ck_assert_str_eq(pass("a"), "a:3"); /* what the unit before did is undone */
	chain_destroy(chain);
	chain = NULL;
	memory_take_over(&memory);
	open_chain();
	ck_assert_str_eq(pass("a\nb"), "a:4\nb:2");
}
END_TEST

/* A failing record is undone and left out, the others of its run count once. */
START_TEST(test_counts_with_a_policy)
{
	spec_add(&spec, STEP_native, "library", "steps.so", "function", _i ? "single" : "count", "state", "value=value",
		 NULL);
	spec.segment.keyed = true;
	spec.steps[0].policy = ON_ERROR_SKIP;
	open_chain();
	ck_assert_str_eq(pass("f\nfail\nf\nb"), "f:1\nf:2\nb:1");
	ck_assert_str_eq(pass("f"), "f:3");
}
END_TEST

START_TEST(test_remembers)
{
	open_function("remember", true);
	ck_assert_str_eq(pass("a1\na2\nl\na1"), "");
	ck_assert_str_eq(pass("list"), "1,1 l [l]");
	pass("list\nlx\nly");
	ck_assert_str_eq(pass("list"), "3,3 l lx ly [l] [lx] [ly]");
	ck_assert_str_eq(pass("l"), "");
	ck_assert_str_eq(pass("clear"), "");
	ck_assert_str_eq(pass("list"), "3,4 l lx ly [l] [lx] [ly] [l]"); /* another key's was cleared */
}
END_TEST

/* What is fetched before its record is due is what the step will look for: its value, or where its map or list begins. */
START_TEST(test_looks_ahead)
{
	static const struct {
		const char *states;
		const char *found; /* NULL: none of them is found by the key alone */
		bool root;
	} cases[] = {
	    {"timers=timers\nvalue=value\nmap=map", "value", false},
	    {"timers=timers\nmap=map\nvalue=value", "map", true},
	    {"list=list\nvalue=value", "list", true},
	    {"timers=timers", NULL, false},
	};
	char lines[3 * STATE_AHEAD] = "";

	for (int i = 0; i <= STATE_AHEAD; i++)
		strcat(lines, i == STATE_AHEAD ? "k" : "a\n");
	spec.segment.keyed = true;
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "count", "state", cases[_i].states, NULL);
	open_chain();
	pass(lines);
	ck_assert_uint_eq(memory.store->ahead_at, cases[_i].found != NULL);
	for (uint32_t i = 0; cases[_i].found != NULL && i < state_count(memory.store); i++)
		if (strcmp(state_spec_of(memory.store, i)->name, cases[_i].found) == 0)
			ck_assert_uint_eq(memory.store->ahead[0].hash,
					  hash_of(state_handle(memory.store, i), XXH3_64bits("k", 1), (struct view){0},
						  cases[_i].root));
}
END_TEST

START_TEST(test_timers)
{
	open_function(_i ? "flushing" : "remember", true);
	ck_assert_str_eq(pass("at 2000\nat 1500\nin 700\nat 9000\nat 3000\nnot 3000"), "");
	ck_assert_int_eq(chain_next_wakeup(chain), 700);
	ck_assert_str_eq(release(RELEASE_WATERMARK, 1800), "event at 1500 of a@1500");
	ck_assert_str_eq(release(RELEASE_TICK, 699), "");
	ck_assert_str_eq(release(RELEASE_TICK, 700), "processing in 700 of i@900");
	ck_assert_str_eq(release(RELEASE_WATERMARK, 2500), "event at 2000 of a@2000");
	ck_assert(view_equal(run.records[0].key, view_of("a")));
	pass("in 800");
	/* "not 3000" was asked for another key than that of "at 3000". */
	ck_assert_str_eq(release(RELEASE_END, 0),
			 _i ? "event at 3000 of a@3000\nevent at 9000 of a@9000\nprocessing in 800 of i@900" : "");
	ck_assert_str_eq(release(RELEASE_WATERMARK, INT64_MAX),
			 _i ? "" : "event at 3000 of a@3000\nevent at 9000 of a@9000");
}
END_TEST

START_TEST(test_a_timer_fails)
{
	open_function("remember", true);
	pass("at 12\nat 13\nat 15");
	ck_assert_str_eq(release(RELEASE_WATERMARK, 20), "a bad time");
	spec.steps[0].policy = ON_ERROR_SKIP;
	ck_assert_str_eq(release(RELEASE_WATERMARK, 20), "event at 12 of a@12\nevent at 15 of a@15");
}
END_TEST

START_TEST(test_watermarks_and_the_end)
{
	spec_add(&spec, STEP_native, "library", "steps.so", "function", "identity", "options", "watermarks=yes", NULL);
	open_chain();
	ck_assert_str_eq(release(RELEASE_WATERMARK, 1050), "watermark 1050");
	ck_assert_str_eq(release(RELEASE_TICK, 700), "");
	ck_assert_str_eq(release(RELEASE_END, 0), "end@900");
	/* In a segment with keys there is none that this could have. */
	spec.segment.keyed = true;
	ck_assert_str_eq(release(RELEASE_END, 0), "end() returned -4, and did not say why (host->fail)");
}
END_TEST

/* ---- Waiting ---- */

/* A unit is given up for a run that waits, and the same run finds its answer; in any policy, and only where there is a bell and a session. */
START_TEST(test_a_run_that_waits_comes_again)
{
	struct errors errors = {.segment = &spec.segment, .seq = 7, .done = 3};
	int bell = eventfd(0, EFD_NONBLOCK);
	uint64_t rung = 0;

	spec_add(&spec, STEP_native, "library", "steps.so", "function", "waiting", NULL);
	spec.steps[0].policy = _i == 0 ? ON_ERROR_FAIL : ON_ERROR_SKIP;
	open_chain();
	ck_assert_str_eq(pass("a\nb"), "within the call");
	chain_set_errors(chain, &errors);
	ck_assert_str_eq(pass("a\nb"), "within the call");
	wakes_have_bell(bell);
	ck_assert(!chain_waited(chain));
	pass("a\nb");
	ck_assert(failure.waits && failure.wakes + 1 == wakes_count());
	ck_assert_int_eq(read(bell, &rung, sizeof(rung)), sizeof(rung));
	ck_assert(chain_waited(chain));
	ck_assert_str_eq(pass("a\nb"), "a\nb");
	ck_assert(chain_waited(chain) && !chain_waited(chain));
	errors.done = 5;
	pass("a\nb");
	ck_assert_msg(failure.waits, "another run is not answered by that");
	ck_assert_str_eq(pass("never"),
			 _i == 0 ? "failed 0: process() returned -7, and did not say why (host->fail)" : "");
	chain_set_errors(chain, NULL);
	ck_assert_str_eq(pass("a\nb"), "within the call");
	wakes_have_bell(-1);
	close(bell);
}
END_TEST

/* ---- Metrics ---- */

START_TEST(test_metrics)
{
	open_function("count", true);
	pass("a\nb\na");
	struct metric *metric = metric_get(&metrics, "native", "records", COUNTER_TYPE_COUNTER);
	ck_assert_uint_eq(counter_read(&metric->value), 3);
	ck_assert_ptr_null(metric_get(&metrics, "native", "records", COUNTER_TYPE_GAUGE));
	ck_assert_ptr_null(metric_get(&metrics, "native", "", COUNTER_TYPE_GAUGE));
	ck_assert_ptr_null(metric_get(&metrics, "native", "9lives", COUNTER_TYPE_GAUGE));
	struct metric *gauge = metric_get(&metrics, "native", "level", COUNTER_TYPE_GAUGE);
	metric_update(gauge, -5);
	ck_assert_int_eq((int64_t)counter_read(&gauge->value), -5);
	struct metric *sizes = metric_get(&metrics, "native", "sizes", COUNTER_TYPE_HISTOGRAM);
	metric_update(sizes, 100);
	metric_update(sizes, -100);
	ck_assert_uint_eq(counter_read(&sizes->histogram.count), 2);
	for (int i = 3; i < METRICS_MAX; i++) {
		char name[16];
		snprintf(name, sizeof(name), "m%d", i);
		ck_assert_ptr_nonnull(metric_get(&metrics, "native", name, COUNTER_TYPE_GAUGE));
	}
	ck_assert_ptr_null(metric_get(&metrics, "native", "more", COUNTER_TYPE_GAUGE));
	ck_assert_ptr_eq(metric_get(&metrics, "native", "level", COUNTER_TYPE_GAUGE), gauge);
}
END_TEST

static Suite *host_suite(void)
{
	Suite *suite = suite_create("host");
	TCase *tests = tcase_create("host");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_libraries_are_looked_for_in_folders);
	tcase_add_loop_test(tests, test_broken_library, 0, sizeof(broken) / sizeof(*broken));
	tcase_add_test(tests, test_a_host_that_is_not_installed);
	tcase_add_test(tests, test_opening_is_for_owners);
	tcase_add_test(tests, test_opening_goes_on_where_it_failed);
	tcase_add_test(tests, test_opening_needs_no_memory);
	tcase_add_loop_test(tests, test_records, 0, sizeof(plain) / sizeof(*plain));
	tcase_add_loop_test(tests, test_records_of_a_batch, 0, sizeof(plain) / sizeof(*plain));
	tcase_add_loop_test(tests, test_what_records_of_a_batch_keep, 0, 2);
	tcase_add_test(tests, test_a_batch_with_routes_and_state);
	tcase_add_loop_test(tests, test_what_records_show, 0, 2);
	tcase_add_test(tests, test_what_records_keep);
	tcase_add_test(tests, test_among_others);
	tcase_add_test(tests, test_routes);
	tcase_add_loop_test(tests, test_the_pipeline_says_which_failures_may_pass, 0,
			    sizeof(retry_ons) / sizeof(*retry_ons));
	tcase_add_test(tests, test_failures_have_all_their_words);
	tcase_add_test(tests, test_too_much);
	tcase_add_test(tests, test_mistakes_are_noticed);
	tcase_add_test(tests, test_what_it_is_told);
	tcase_add_test(tests, test_counts);
	tcase_add_loop_test(tests, test_counts_with_a_policy, 0, 2);
	tcase_add_test(tests, test_remembers);
	tcase_add_loop_test(tests, test_looks_ahead, 0, 4);
	tcase_add_loop_test(tests, test_timers, 0, 2);
	tcase_add_test(tests, test_a_timer_fails);
	tcase_add_test(tests, test_watermarks_and_the_end);
	tcase_add_loop_test(tests, test_a_run_that_waits_comes_again, 0, 2);
	tcase_add_test(tests, test_metrics);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(host_suite)
