/* The chain: steps one after another, releases as a wave, counters, progress, who is to blame. */
#include <stdio.h>

#include "shared/counters.h"
#include "tests/check_main.h"
#include "tests/memory.h"
#include "tests/spec.h"
#include "worker/chain.h"
#include "worker/jq_program.h"
#include "worker/json_text.h"

static struct spec spec;
static struct scratch *scratch;
static struct run run;
static struct failure failure;
static struct memory memory;

static void setup(void)
{
	memory_make(&memory, 8 << 20);
	spec_init(&spec);
	scratch = scratch_create();
	run_init(&run, scratch);
	memset(&failure, 0, sizeof(failure));
}

static void teardown(void)
{
	run_deinit(&run);
	scratch_destroy(scratch);
	spec_deinit(&spec);
	memory_free(&memory);
	jq_programs_free();
	json_forget_keys();
}

/* Adds a record. */
static void push(const char *payload)
{
	uint32_t origin = run.count;
	struct record *record = run_push(&run);

	record->payload = view_of(payload);
	record->origin = origin;
	record->route = 3;
}

/* Payloads of the run, one per line. */
static const char *payloads(void)
{
	static char out[4096];
	size_t length = 0;

	out[0] = '\0';
	for (uint32_t i = 0; i < run.count; i++)
		length += (size_t)snprintf(out + length, sizeof(out) - length, "%s%.*s", i ? "\n" : "",
					   (int)run.records[i].payload.size, (const char *)run.records[i].payload.data);
	return out;
}

static struct chain *make(struct worker_step_counters *counters)
{
	struct chain *chain = chain_create(&spec.segment, memory.store, counters, &failure);

	ck_assert_msg(chain != NULL, "%s", failure.message);
	return chain;
}

static const struct step_time at_zero = {0, INT64_MIN};

/* Releases into the run; nothing may be left to release. */
static bool release(struct chain *chain, enum release_cause cause, struct step_time time)
{
	bool more;

	if (!chain_release(chain, cause, time, 1, &run, &more, &failure))
		return false;
	ck_assert(!more);
	return true;
}

START_TEST(test_identity)
{
	struct chain *chain = make(NULL);

	ck_assert(chain_is_identity(chain));
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	push("not json \xff");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(payloads(), "not json \xff");
	ck_assert_uint_eq(run.records[0].route, 0);
	chain_destroy(chain);

	spec_add(&spec, STEP_passthrough, NULL);
	spec_add(&spec, STEP_passthrough, NULL);
	chain = make(NULL);
	ck_assert(chain_is_identity(chain));
	chain_destroy(chain);

	spec_add(&spec, STEP_map, "program", ".", NULL);
	chain = make(NULL);
	ck_assert(!chain_is_identity(chain));
	chain_destroy(chain);
}
END_TEST

START_TEST(test_steps_in_order)
{
	spec_add(&spec, STEP_filter, "program", ".v != 2", NULL);
	spec_add(&spec, STEP_flat_map, "program", ".v, .v * 10", NULL);
	spec_add(&spec, STEP_passthrough, NULL);
	spec_add(&spec, STEP_map, "program", "{n: .}", NULL);
	spec_add(&spec, STEP_map, "program", "\"<\" + . + \">\"", "payload", "text", NULL);
	struct chain *chain = make(NULL);

	push("{\"v\":1}");
	push("{\"v\":2}");
	push("{\"v\":3}");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(payloads(), "<{\"n\":1}>\n<{\"n\":10}>\n<{\"n\":3}>\n<{\"n\":30}>");
	ck_assert_uint_eq(run.records[1].origin, 0);
	ck_assert_uint_eq(run.records[2].origin, 2);
	chain_destroy(chain);
}
END_TEST

START_TEST(test_nothing_in_nothing_out)
{
	spec_add(&spec, STEP_map, "program", ".a", NULL);
	struct chain *chain = make(NULL);

	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert(release(chain, RELEASE_END, at_zero));
	ck_assert_uint_eq(run.count, 0);
	chain_destroy(chain);
}
END_TEST

/* Records held by an early step pass the later ones before those let go of their own. */
START_TEST(test_release_is_a_wave)
{
	spec_add(&spec, STEP_batch, "size", "2", NULL);
	spec_add(&spec, STEP_map, "program", "add", NULL);
	spec_add(&spec, STEP_batch, "size", "10", NULL);
	spec_add(&spec, STEP_map, "program", "{sums: .}", NULL);
	struct chain *chain = make(NULL);

	for (int i = 0; i < 5; i++)
		push(&"1\0002\0003\0004\0005"[2 * i]);
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_uint_eq(run.count, 0);
	ck_assert(release(chain, RELEASE_END, at_zero));
	ck_assert_str_eq(payloads(), "{\"sums\":[3,7,5]}");
	run_clear(&run);
	ck_assert(release(chain, RELEASE_END, at_zero));
	ck_assert_uint_eq(run.count, 0);
	chain_destroy(chain);
}
END_TEST

START_TEST(test_wakeup_is_the_earliest)
{
	spec_add(&spec, STEP_batch, "time", "5s", NULL);
	spec_add(&spec, STEP_batch, "time", "1s", NULL);
	struct chain *chain = make(NULL);

	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	push("1");
	ck_assert(chain_process(chain, &run, (struct step_time){100, INT64_MIN}, &failure));
	ck_assert_int_eq(chain_next_wakeup(chain), 5100);
	ck_assert(release(chain, RELEASE_TICK, (struct step_time){5100, INT64_MIN}));
	ck_assert_uint_eq(run.count, 0);
	ck_assert_int_eq(chain_next_wakeup(chain), 6100);
	ck_assert(release(chain, RELEASE_TICK, (struct step_time){6100, INT64_MIN}));
	ck_assert_str_eq(payloads(), "[[1]]");
	chain_destroy(chain);
}
END_TEST

/* A failure names step and record, and leaves an empty run. */
START_TEST(test_failure)
{
	spec_add(&spec, STEP_passthrough, NULL);
	spec_add(&spec, STEP_flat_map, "program", ".[]", NULL);
	spec_add(&spec, STEP_map, "program", ".a", NULL);
	struct chain *chain = make(NULL);

	push("[{\"a\":1}]");
	push("[{\"a\":2}, 7]");
	ck_assert(!chain_process(chain, &run, at_zero, &failure));
	ck_assert_uint_eq(failure.step, 2);
	ck_assert_uint_eq(failure.origin, 1);
	ck_assert_msg(strstr(failure.message, "Cannot index number") != NULL, "%s", failure.message);
	ck_assert_uint_eq(run.count, 0);

	push("[{\"a\":3}]");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(payloads(), "3");
	chain_destroy(chain);
}
END_TEST

/* A payload that cannot be written is the fault of the last step that may have made it. */
START_TEST(test_failure_to_write)
{
	spec_add(&spec, STEP_map, "program", "reduce range(300) as $i (0; [.])", NULL);
	spec_add(&spec, STEP_filter, "program", "true", NULL);
	struct chain *chain = make(NULL);

	push("1");
	ck_assert(!chain_process(chain, &run, at_zero, &failure));
	ck_assert_uint_eq(failure.step, 0);
	ck_assert_str_eq(failure.message, "the payload cannot be written as JSON: the value is nested deeper than 256");
	ck_assert_uint_eq(run.count, 0);
	chain_destroy(chain);
}
END_TEST

START_TEST(test_failure_in_release)
{
	spec_add(&spec, STEP_batch, "size", "10", NULL);
	spec_add(&spec, STEP_map, "program", ".a", NULL);
	struct chain *chain = make(NULL);

	push("1");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert(!release(chain, RELEASE_END, at_zero));
	ck_assert_uint_eq(failure.step, 1);
	ck_assert_uint_eq(run.count, 0);
	chain_destroy(chain);
}
END_TEST

/* A step that cannot be opened: the ones before it are closed again. */
START_TEST(test_failure_to_open)
{
	spec_add(&spec, STEP_batch, NULL);
	spec_add(&spec, STEP_flat_map, "program", ".", NULL);
	spec_add(&spec, STEP_map, "program", "nosuch", NULL);
	ck_assert_ptr_null(chain_create(&spec.segment, NULL, NULL, &failure));
	ck_assert_uint_eq(failure.step, 2);
	ck_assert_str_eq(failure.message, "the program in option `program` does not compile: nosuch/0 is not defined "
					  "at <top-level>, line 1: nosuch");
}
END_TEST

START_TEST(test_counters)
{
	static struct worker_step_counters counters[3];

	spec_add(&spec, STEP_filter, "program", ".v > 1", NULL);
	spec_add(&spec, STEP_map, "program", ".v", NULL);
	spec_add(&spec, STEP_batch, "size", "2", NULL);
	struct chain *chain = make(counters);

	push("{\"v\":1}");
	push("{\"v\":2}");
	push("{\"v\":3}");
	push("{\"v\":4}");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	run_clear(&run);
	ck_assert(release(chain, RELEASE_END, at_zero));
	ck_assert_uint_eq(counter_read(&counters[0].records_in), 0);
	chain_committed(chain);
	static const uint64_t in[] = {4, 3, 3}, out[] = {3, 3, 2};
	for (int i = 0; i < 3; i++) {
		ck_assert_uint_eq(counter_read(&counters[i].records_in), in[i]);
		ck_assert_uint_eq(counter_read(&counters[i].records_out), out[i]);
		ck_assert_uint_eq(counter_read(&counters[i].errors), 0);
		ck_assert_uint_eq(counter_read(&counters[i].latency.count), 1);
	}
	run_clear(&run);
	push("{\"v\":\"x\"}");
	push("x");
	ck_assert(!chain_process(chain, &run, at_zero, &failure));
	chain_rolled_back(chain); /* that unit was undone, and done once more */
	push("x");
	ck_assert(!chain_process(chain, &run, at_zero, &failure));
	chain_committed(chain);
	ck_assert_uint_eq(counter_read(&counters[0].records_in), 5);
	ck_assert_uint_eq(counter_read(&counters[0].errors), 1);
	ck_assert_uint_eq(counter_read(&counters[1].records_in), 3);
	chain_destroy(chain);
}
END_TEST

static void note(void *context, uint32_t step)
{
	char *text = context;

	text[strlen(text)] = (char)('0' + step);
}

START_TEST(test_progress)
{
	char steps[32] = "";

	spec_add(&spec, STEP_map, "program", ".", NULL);
	spec_add(&spec, STEP_batch, NULL);
	spec_add(&spec, STEP_map, "program", ".", NULL);
	struct chain *chain = make(NULL);
	chain_on_progress(chain, note, steps);

	push("1");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(steps, "01");
	ck_assert(release(chain, RELEASE_END, at_zero));
	ck_assert_str_eq(steps, "0112");
	chain_destroy(chain);
}
END_TEST

/* A segment with routes keeps what its last step chose; one without has route 0 alone. */
START_TEST(test_routes)
{
	spec_add(&spec, STEP_route, "routes", "a=.x\nb=default", NULL);
	struct chain *chain = make(NULL);

	push("{}");
	push("{\"x\":1}");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_uint_eq(run.records[0].route, 1);
	ck_assert_uint_eq(run.records[1].route, 0);
	chain_destroy(chain);
}
END_TEST

/* ---- on_error ---- */

/* The value of a header of a record; NULL when it has none. */
static const char *header_of(const struct record *record, const char *name)
{
	static char text[600];

	for (uint32_t i = 0; i < record->header_count; i++)
		if (view_equal(record->headers[i].key, view_of(name))) {
			snprintf(text, sizeof(text), "%.*s", (int)record->headers[i].value.size,
				 (const char *)record->headers[i].value.data);
			return text;
		}
	return NULL;
}

START_TEST(test_skip)
{
	static struct worker_step_counters counters[2];

	spec_add(&spec, STEP_flat_map, "program", ".[]", NULL);
	spec_add(&spec, STEP_map, "program", ".a + 1", NULL);
	spec.steps[1].policy = ON_ERROR_SKIP;
	struct chain *chain = make(counters);
	push("[{\"a\":1}, {\"a\":\"x\"}, {\"a\":2}]");
	push("[7]");
	push("[{\"a\":3}]");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(payloads(), "2\n3\n4");
	ck_assert_uint_eq(run.records[2].origin, 2);
	chain_committed(chain);
	ck_assert_uint_eq(counter_read(&counters[1].records_in), 5);
	ck_assert_uint_eq(counter_read(&counters[1].records_out), 3);
	ck_assert_uint_eq(counter_read(&counters[1].errors), 2);
	ck_assert_uint_eq(counter_read(&counters[1].skipped), 2);
	ck_assert_uint_eq(counter_read(&counters[1].dead_letters), 0);
	run_clear(&run);
	push("x"); /* the first step's policy is to fail */
	ck_assert(!chain_process(chain, &run, at_zero, &failure));
	ck_assert_uint_eq(failure.step, 0);
	ck_assert_uint_eq(run.count, 0);
	chain_destroy(chain);
}
END_TEST

/* A dead letter is the record as it came to the step, whatever earlier steps made of it; headers of these names that it came with go. */
START_TEST(test_dead_letter)
{
	static const struct wire_header headers[] = {
	    {{(const uint8_t *)"kept", 4}, {(const uint8_t *)"1", 1}},
	    {{(const uint8_t *)"bridge-error", 12}, {(const uint8_t *)"old", 3}},
	};

	spec_add(&spec, STEP_map, "program", ".v", NULL);
	spec_add(&spec, STEP_map, "program", ".a + 1", NULL);
	spec_add(&spec, STEP_filter, "program", ". > 1", NULL);
	spec.segment.name = "score";
	spec.steps[1].name = "add";
	spec.steps[1].policy = ON_ERROR_DEAD_LETTER;
	spec.steps[1].dead_letter_route = 1;
	spec.routes[0] = "main";
	spec.routes[1] = "add.dead_letter";
	spec.segment.route_count = 2;
	struct chain *chain = make(NULL);
	push("{\"v\":{\"a\":\"x\"}}");
	push("{\"v\":{\"a\":5}}");
	run.records[0].headers = headers;
	run.records[0].header_count = 2;
	run.records[0].keyed = true;
	run.records[0].key = view_of("k");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(payloads(), "6\n{\"a\":\"x\"}");
	const struct record *dead = &run.records[1];
	ck_assert_uint_eq(run.records[0].route, 0);
	ck_assert_uint_eq(dead->route, 1);
	ck_assert_uint_eq(dead->origin, 0);
	ck_assert(dead->keyed && view_equal(dead->key, view_of("k")));
	ck_assert_uint_eq(dead->header_count, 7);
	ck_assert_str_eq(header_of(dead, "bridge-error-kind"), "failure");
	ck_assert_str_eq(header_of(dead, "bridge-error-attempt"), "1");
	ck_assert_str_eq(header_of(dead, "bridge-error-time"), "0");
	ck_assert_ptr_null(header_of(dead, "bridge-error-traceback"));
	ck_assert_str_eq(header_of(dead, "kept"), "1");
	ck_assert_str_eq(header_of(dead, "bridge-error-step"), "add");
	ck_assert_str_eq(header_of(dead, "bridge-error-segment"), "score");
	ck_assert_ptr_nonnull(strstr(header_of(dead, "bridge-error"), "string (\"x\") and number (1) cannot be added"));
	ck_assert_ptr_null(header_of(dead, "bridge-error-cause"));
	run_clear(&run);
	push("{\"v\":{\"a\":7}}");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(payloads(), "8"); /* nothing is left of the call before */
	chain_destroy(chain);
}
END_TEST

/* What cannot be written at the end of the segment is left out by the policy of the step that made it. */
START_TEST(test_skip_what_cannot_be_written)
{
	spec_add(&spec, STEP_map, "program", "if . == 1 then reduce range(300) as $i (0; [.]) else . end", NULL);
	spec.steps[0].policy = ON_ERROR_SKIP;
	struct chain *chain = make(NULL);

	push("0");
	push("1");
	push("2");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(payloads(), "0\n2");
	chain_destroy(chain);
}
END_TEST

static Suite *chain_suite(void)
{
	Suite *suite = suite_create("chain");
	TCase *tests = tcase_create("all");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_identity);
	tcase_add_test(tests, test_steps_in_order);
	tcase_add_test(tests, test_nothing_in_nothing_out);
	tcase_add_test(tests, test_release_is_a_wave);
	tcase_add_test(tests, test_wakeup_is_the_earliest);
	tcase_add_test(tests, test_failure);
	tcase_add_test(tests, test_failure_to_write);
	tcase_add_test(tests, test_failure_in_release);
	tcase_add_test(tests, test_failure_to_open);
	tcase_add_test(tests, test_counters);
	tcase_add_test(tests, test_progress);
	tcase_add_test(tests, test_routes);
	tcase_add_test(tests, test_skip);
	tcase_add_test(tests, test_dead_letter);
	tcase_add_test(tests, test_skip_what_cannot_be_written);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(chain_suite)
