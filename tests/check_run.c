/* Runs, payloads in their forms, scratch memory, base64 and the texts of failures. */
#include <stdio.h>

#include "tests/check_main.h"
#include "worker/base64.h"
#include "worker/failure.h"
#include "worker/json_text.h"
#include "worker/run.h"

static struct scratch *scratch;
static struct run run;

static void setup(void)
{
	scratch = scratch_create();
	run_init(&run, scratch);
}

static void teardown(void)
{
	run_deinit(&run);
	scratch_destroy(scratch);
	json_forget_keys();
}

/* ---- Scratch memory ---- */

START_TEST(test_scratch_gives_aligned_memory)
{
	uint8_t *last = NULL;

	for (size_t size = 0; size < 300; size++) {
		uint8_t *memory = scratch_alloc(scratch, size);
		ck_assert_uint_eq((uintptr_t)memory % 16, 0);
		ck_assert_ptr_ne(memory, last);
		memset(memory, 0xab, size);
		last = memory;
	}
}
END_TEST

START_TEST(test_scratch_large_and_reset)
{
	uint8_t *first = scratch_alloc(scratch, 10);

	for (int i = 0; i < 10; i++) {
		memset(scratch_alloc(scratch, 3 << 20), i, 3 << 20);
		memset(scratch_alloc(scratch, 100), i, 100);
		scratch_reset(scratch);
		ck_assert_ptr_eq(scratch_alloc(scratch, 10), first);
	}
}
END_TEST

START_TEST(test_scratch_limit)
{
	ck_assert_ptr_null(scratch_alloc(scratch, SIZE_MAX));
	ck_assert_ptr_null(scratch_alloc(scratch, (size_t)SCRATCH_LIMIT + 1));
	ck_assert_ptr_nonnull(scratch_alloc(scratch, 1));
}
END_TEST

START_TEST(test_scratch_resize)
{
	char *text = scratch_alloc(scratch, 4);

	memcpy(text, "abc", 4);
	ck_assert_ptr_eq(scratch_resize(scratch, text, 4, 1000), text);
	memset(text + 4, 'x', 996);
	char *moved = scratch_resize(scratch, text, 1000, 1 << 20);
	ck_assert_str_eq(moved, "abc");
	ck_assert_int_eq(moved[999], 'x');
	ck_assert_ptr_eq(scratch_resize(scratch, moved, 1 << 20, 16), moved);
	ck_assert_ptr_eq(scratch_alloc(scratch, 1), moved + 16);
}
END_TEST

START_TEST(test_scratch_copy)
{
	struct view empty = scratch_copy(scratch, (struct view){NULL, 0}), copy = scratch_copy(scratch, view_of("hey"));

	ck_assert_ptr_nonnull(empty.data);
	ck_assert_uint_eq(empty.size, 0);
	ck_assert(view_equal(copy, view_of("hey")));
}
END_TEST

/* ---- Runs ---- */

START_TEST(test_take_batch)
{
	struct wire_header headers[3] = {{view_of("a"), view_of("1")}, {view_of("b"), view_of("2")}};
	struct wire_record records[3] = {
	    {.payload = view_of("zero")},
	    {.payload = view_of("one"), .timestamp = 7, .input = 2, .headers = &headers[1], .header_count = 1},
	    {.payload = view_of("two"), .keyed = true, .key = view_of("k"), .key_hash = -5, .key_group = 9},
	};
	struct wire_batch batch = {.records = records, .count = 3};

	ck_assert(run_take_batch(&run, &batch, 1, 2));
	ck_assert_uint_eq(run.count, 2);
	ck_assert(view_equal(run.records[0].payload, view_of("one")));
	ck_assert_int_eq(run.records[0].state, PAYLOAD_BYTES);
	ck_assert_int_eq(run.records[0].timestamp, 7);
	ck_assert_uint_eq(run.records[0].route, 2);
	ck_assert_uint_eq(run.records[0].origin, 1);
	ck_assert_uint_eq(run.records[0].header_count, 1);
	ck_assert(view_equal(run.records[0].headers[0].value, view_of("2")));
	ck_assert(run.records[1].keyed && view_equal(run.records[1].key, view_of("k")));
	ck_assert_int_eq(run.records[1].key_hash, -5);
	ck_assert_uint_eq(run.records[1].key_group, 9);
	ck_assert_uint_eq(run.records[1].origin, 2);
}
END_TEST

START_TEST(test_push_and_trade)
{
	struct run other;

	run_init(&other, NULL);
	record_set_value(run_push(&run), jv_string("shared"), FORM_JSON);
	for (int i = 0; i < 1000; i++)
		ck_assert_ptr_nonnull(run_push_copy(&other, &run.records[0]));
	ck_assert_int_eq(jv_get_refcnt(run.records[0].value), 1001);
	run_trade(&run, &other);
	ck_assert_uint_eq(run.count, 1000);
	ck_assert_ptr_eq(run.scratch, scratch);
	ck_assert_ptr_null(other.scratch);
	run_clear(&run);
	ck_assert_uint_eq(run.count, 0);
	ck_assert_int_eq(jv_get_refcnt(other.records[0].value), 1);
	run_deinit(&other);
}
END_TEST

START_TEST(test_run_is_bounded)
{
	for (uint32_t i = 0; i < RUN_RECORDS_MAX; i++)
		ck_assert_ptr_nonnull(run_push(&run));
	ck_assert_ptr_null(run_push(&run));
	ck_assert_uint_eq(run.count, RUN_RECORDS_MAX);
}
END_TEST

/* ---- Payloads ---- */

/* A record of some bytes. */
static struct record *record_of(struct view payload)
{
	struct record *record = run_push(&run);

	record->payload = payload;
	return record;
}

START_TEST(test_a_look_keeps_the_bytes)
{
	struct record *record = record_of(view_of("{ \"id\": 12345678901234567890 }"));
	const uint8_t *data = record->payload.data;
	const char *why;

	ck_assert(record_need_value(record, FORM_JSON, scratch, &why));
	ck_assert_int_eq(record->state, PAYLOAD_BOTH);
	ck_assert(record_need_value(record, FORM_JSON, scratch, &why));
	ck_assert(record_need_bytes(record, scratch, &why));
	ck_assert_int_eq(record->state, PAYLOAD_BYTES);
	ck_assert_ptr_eq(record->payload.data, data);
}
END_TEST

START_TEST(test_a_change_is_printed)
{
	struct record *record = record_of(view_of("{ \"b\": 1, \"a\": [ ] }"));
	const char *why;

	ck_assert(record_need_value(record, FORM_JSON, scratch, &why));
	jv value = record_take_value(record);
	ck_assert_int_eq(jv_get_refcnt(value), 1);
	record_set_value(record, value, FORM_JSON);
	ck_assert(record_need_bytes(record, scratch, &why));
	ck_assert(view_equal(record->payload, view_of("{\"b\":1,\"a\":[]}")));
}
END_TEST

/* Bytes read as one form, and the JSON of the value that is seen. */
static const struct {
	struct view payload;
	enum payload_form form;
	const char *value; /* or, when `fails`, why */
	bool fails;
} read_as[] = {
    {{(const uint8_t *)"[1]", 3}, FORM_JSON, "[1]", false},
    {{(const uint8_t *)"[1]", 3}, FORM_TEXT, "\"[1]\"", false},
    {{(const uint8_t *)"[1]", 3}, FORM_BYTES, "\"WzFd\"", false},
    {{(const uint8_t *)"", 0}, FORM_TEXT, "\"\"", false},
    {{NULL, 0}, FORM_TEXT, "\"\"", false},
    {{NULL, 0}, FORM_BYTES, "\"\"", false},
    {{(const uint8_t *)"\0\xff", 2}, FORM_BYTES, "\"AP8=\"", false},
    {{NULL, 0}, FORM_JSON, "the payload is empty, which is not JSON", true},
    {{(const uint8_t *)" ", 1}, FORM_JSON, "the payload is not JSON: no value at its end:  ", true},
    {{(const uint8_t *)"{\"a\":}", 6}, FORM_JSON, "the payload is not JSON: no JSON value at byte 6: {\"a\":}", true},
    {{(const uint8_t *)"[\n1", 3},
     FORM_JSON,
     "the payload is not JSON: no `,` or `]` after an item of an array at its end: [\\x0a1",
     true},
    {{(const uint8_t *)"\xff\xfe", 2}, FORM_TEXT, "the payload is read as text, but is not UTF-8: \\xff\\xfe", true},
};

START_TEST(test_read_as)
{
	struct record *record = record_of(read_as[_i].payload);
	const char *why = NULL;
	struct view text;

	ck_assert_int_eq(record_need_value(record, read_as[_i].form, scratch, &why), !read_as[_i].fails);
	if (read_as[_i].fails) {
		ck_assert_str_eq(why, read_as[_i].value);
		ck_assert_int_eq(record->state, PAYLOAD_BYTES);
		return;
	}
	ck_assert_ptr_null(json_print(record->value, scratch, &text));
	ck_assert(view_equal(text, view_of(read_as[_i].value)));
}
END_TEST

/* A value set in one form, and the bytes that it is written as. */
static const struct {
	const char *value;
	enum payload_form form;
	const char *bytes; /* or, when `fails`, why */
	bool fails;
} written_as[] = {
    {"\"a\"", FORM_JSON, "\"a\"", false},
    {"\"a\"", FORM_TEXT, "a", false},
    {"\"\"", FORM_TEXT, "", false},
    {"[1, \"a\"]", FORM_TEXT, "[1,\"a\"]", false},
    {"\"WzFd\"", FORM_BYTES, "[1]", false},
    {"\"\"", FORM_BYTES, "", false},
    {"5", FORM_BYTES, "a payload written as bytes must be a string of base64, and this is of type number", true},
    {"\"W\"", FORM_BYTES, "a payload written as bytes must be a string of base64, and this is none: W", true},
};

START_TEST(test_written_as)
{
	struct record *record = record_of(view_of("before"));
	const char *why = NULL;

	record_set_value(record, jv_parse(written_as[_i].value), written_as[_i].form);
	ck_assert_int_eq(record_need_bytes(record, scratch, &why), !written_as[_i].fails);
	if (written_as[_i].fails)
		ck_assert_str_eq(why, written_as[_i].bytes);
	else
		ck_assert(view_equal(record->payload, view_of(written_as[_i].bytes)));
}
END_TEST

START_TEST(test_another_form_goes_through_bytes)
{
	struct record *record = record_of(view_of("{ \"a\": 1 }"));
	const char *why;

	ck_assert(record_need_value(record, FORM_JSON, scratch, &why));
	ck_assert(record_need_value(record, FORM_TEXT, scratch, &why));
	ck_assert_str_eq(jv_string_value(record->value), "{ \"a\": 1 }");
	record_set_value(record, jv_parse("[2, 3]"), FORM_JSON);
	ck_assert(record_need_value(record, FORM_BYTES, scratch, &why));
	ck_assert_str_eq(jv_string_value(record->value), "WzIsM10=");
	record_set_value(record, jv_number(5), FORM_TEXT);
	ck_assert(record_need_value(record, FORM_TEXT, scratch, &why));
	ck_assert_str_eq(jv_string_value(record->value), "5");
}
END_TEST

/* ---- Base64 ---- */

START_TEST(test_base64_round_trip)
{
	uint8_t bytes[64], back[64];
	char text[96];
	size_t size;

	for (size_t length = 0; length < sizeof(bytes); length++) {
		for (size_t i = 0; i < length; i++)
			bytes[i] = (uint8_t)(i * 37 + length * 11);
		base64_encode((struct view){bytes, length}, text);
		struct view encoded = {(uint8_t *)text, base64_encoded_size(length)};
		ck_assert(base64_decode(encoded, back, &size));
		ck_assert_uint_eq(size, length);
		ck_assert_mem_eq(back, bytes, length);
	}
}
END_TEST

static const char *const bad_base64[] = {
    "A", "AA", "AAA", "A===", "====", "AB==", "AAB=", "A=A=", "AA=A", "AA==AAAA", "A A=", "AAA\n", "-_AA"};

START_TEST(test_base64_refused)
{
	uint8_t out[16];
	size_t size;

	ck_assert(!base64_decode(view_of(bad_base64[_i]), out, &size));
}
END_TEST

/* ---- Failures ---- */

START_TEST(test_excerpt)
{
	char out[EXCERPT_SIZE], text[400];

	ck_assert_str_eq(excerpt((struct view){NULL, 0}, out), "");
	ck_assert_str_eq(excerpt(view_of("a\tb\x7f\xff\xc3 é😀"), out), "a\\x09b\\x7f\\xff\\xc3 é😀");
	ck_assert_str_eq(excerpt(view_of("\xc2\x9b"
					 "2J\xc2\xa0"),
				 out),
			 "\\xc2\\x9b2J\xc2\xa0");
	memset(text, 'x', sizeof(text));
	ck_assert_uint_eq(strlen(excerpt((struct view){(uint8_t *)text, 64}, out)), 64);
	ck_assert_uint_eq(strlen(excerpt((struct view){(uint8_t *)text, 65}, out)), 67);
	memset(text, 0xff, sizeof(text));
	ck_assert_uint_eq(strlen(excerpt((struct view){(uint8_t *)text, 400}, out)), 67);
	for (size_t i = 0; i < 400; i += 4)
		memcpy(text + i, "😀", 4);
	ck_assert_uint_eq(strlen(excerpt((struct view){(uint8_t *)text, 400}, out)), 64 * 4 + 3);
}
END_TEST

START_TEST(test_failures_are_utf8)
{
	struct failure failure = {0};
	char text[1024];

	for (size_t start = 0; start < 4; start++) {
		memset(text, 'a', start);
		for (size_t i = start; i + 5 < sizeof(text); i += 4)
			memcpy(text + i, "😀", 5);
		ck_assert(!failure_set(&failure, 3, "%s", text));
		ck_assert_uint_eq(failure.origin, 3);
		ck_assert(utf8_valid(view_of(failure.message)));
		ck_assert_uint_ge(strlen(failure.message), 505);
	}
	failure_set(&failure, 0, "cut: %s", "ab\xf0\x9f");
	ck_assert_str_eq(failure.message, "cut: ab??");
}
END_TEST

static Suite *run_suite(void)
{
	Suite *suite = suite_create("run");
	TCase *tests = tcase_create("all");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_scratch_gives_aligned_memory);
	tcase_add_test(tests, test_scratch_large_and_reset);
	tcase_add_test(tests, test_scratch_limit);
	tcase_add_test(tests, test_scratch_resize);
	tcase_add_test(tests, test_scratch_copy);
	tcase_add_test(tests, test_take_batch);
	tcase_add_test(tests, test_push_and_trade);
	tcase_add_test(tests, test_run_is_bounded);
	tcase_add_test(tests, test_a_look_keeps_the_bytes);
	tcase_add_test(tests, test_a_change_is_printed);
	tcase_add_loop_test(tests, test_read_as, 0, sizeof(read_as) / sizeof(read_as[0]));
	tcase_add_loop_test(tests, test_written_as, 0, sizeof(written_as) / sizeof(written_as[0]));
	tcase_add_test(tests, test_another_form_goes_through_bytes);
	tcase_add_test(tests, test_base64_round_trip);
	tcase_add_loop_test(tests, test_base64_refused, 0, sizeof(bad_base64) / sizeof(bad_base64[0]));
	tcase_add_test(tests, test_excerpt);
	tcase_add_test(tests, test_failures_are_utf8);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(run_suite)
