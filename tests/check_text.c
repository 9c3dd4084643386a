/* The small modules of text: units (sizes and times), suggestions, the JSON writer. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/suggest.h"
#include "shared/units.h"
#include "tests/check_main.h"

START_TEST(sizes_are_read_and_written_back)
{
	static const struct {
		const char *text;
		uint64_t bytes;
		const char *exact;
	} cases[] = {{"0", 0, "0"},
		     {"4096", 4096, "4KiB"},
		     {"64KiB", 65536, "64KiB"},
		     {"1 MiB", 1 << 20, "1MiB"},
		     {"1048512", 1048512, "1048512"},
		     {"3GiB", UINT64_C(3) << 30, "3GiB"},
		     {"2TiB", UINT64_C(2) << 40, "2TiB"}};
	char text[UNITS_TEXT_MAX];
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ck_assert(size_parse(cases[i].text, &bytes));
		ck_assert_uint_eq(bytes, cases[i].bytes);
		ck_assert_str_eq(size_exact(text, bytes), cases[i].exact);
	}
	ck_assert_str_eq(size_rounded(text, 1536), "1.5 KiB");
	ck_assert_str_eq(size_rounded(text, 12), "12 B");
	ck_assert_str_eq(size_rounded(text, UINT64_MAX), "16777216.0 TiB");
}
END_TEST

START_TEST(what_is_no_size_is_refused)
{
	static const char *const bad[] = {
	    "",           "-1", "MiB", "1MB", "1.5MiB", "1e3", "1 m", "1KiBs", "0x10", " 1", "18446744073709551616",
	    "99999999TiB"};
	uint64_t value;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_msg(!size_parse(bad[i], &value), "%s", bad[i]);
}
END_TEST

START_TEST(times_are_read_and_written_back)
{
	static const struct {
		const char *text;
		uint64_t us;
		const char *exact;
	} cases[] = {{"0", 0, "0"},
		     {"50us", 50, "50us"},
		     {"1500ms", 1500000, "1500ms"},
		     {"10s", 10000000, "10s"},
		     {"90s", 90000000, "90s"},
		     {"5min", 300000000, "5min"},
		     {"2h", UINT64_C(7200000000), "2h"}};
	char text[UNITS_TEXT_MAX];
	uint64_t us;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ck_assert(duration_parse(cases[i].text, &us));
		ck_assert_uint_eq(us, cases[i].us);
		ck_assert_str_eq(duration_exact(text, us), cases[i].exact);
	}
	ck_assert(!duration_parse("10", &us));
	ck_assert(!duration_parse("10m", &us));
	ck_assert(!duration_parse("s", &us));
	ck_assert_str_eq(duration_rounded(text, 3100), "3.1us");
	ck_assert_str_eq(duration_rounded(text, 12000000), "12ms");
	ck_assert_str_eq(duration_rounded(text, UINT64_C(250000000000)), "4m10s");
}
END_TEST

START_TEST(a_mistyped_word_finds_its_name)
{
	static const char *const names[] = {"slots", "sessions", "segments", "health"};

	ck_assert_str_eq(suggest_nearest("slosts", names, 4), "slots");
	ck_assert_str_eq(suggest_nearest("Helath", names, 4), "health");
	ck_assert_str_eq(suggest_nearest("sesions", names, 4), "sessions");
	ck_assert_ptr_null(suggest_nearest("barrier", names, 4));
	ck_assert_ptr_null(suggest_nearest("", names, 4));
}
END_TEST

START_TEST(json_is_nested_and_escaped)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	struct json json;

	json_init(&json, out);
	json_open_object(&json, NULL);
	json_text(&json, "a\"b", "line\n\x01\x7f \xc3\xa4 \xff \xed\xa0\x80 \\");
	json_open_array(&json, "list");
	json_unsigned(&json, NULL, UINT64_MAX);
	json_signed(&json, NULL, INT64_MIN);
	json_bool(&json, NULL, true);
	json_null(&json, NULL);
	json_text(&json, NULL, NULL);
	json_real(&json, NULL, 0.5);
	json_real(&json, NULL, 1.0 / 0.0);
	json_close_array(&json);
	json_open_object(&json, "empty");
	json_close_object(&json);
	json_close_object(&json);
	fclose(out);
	ck_assert_str_eq(text,
			 "{\"a\\\"b\":\"line\\n\\u0001\\u007f \xc3\xa4 \\ufffd \\ufffd\\ufffd\\ufffd \\\\\","
			 "\"list\":[18446744073709551615,-9223372036854775808,true,null,null,0.5,null],\"empty\":{}}");
	free(text);
}
END_TEST

static Suite *text_suite(void)
{
	Suite *suite = suite_create("text");
	TCase *tests = tcase_create("text");

	tcase_add_test(tests, sizes_are_read_and_written_back);
	tcase_add_test(tests, what_is_no_size_is_refused);
	tcase_add_test(tests, times_are_read_and_written_back);
	tcase_add_test(tests, a_mistyped_word_finds_its_name);
	tcase_add_test(tests, json_is_nested_and_escaped);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(text_suite)
