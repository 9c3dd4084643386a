/* JSON text to values and back: what is taken, what is refused and with which words, and that libjq agrees. */
#include <jv.h>
#include <math.h>
#include <stdio.h>

#include "tests/check_main.h"
#include "worker/json_text.h"
#include "worker/run.h"

static struct scratch *scratch;

static void setup(void)
{
	scratch = scratch_create();
}

static void teardown(void)
{
	scratch_destroy(scratch);
	json_forget_keys();
}

/* The text that a text becomes: parsed and printed. */
static const char *through(struct view text)
{
	struct json_error error;
	struct view out;
	jv value;

	if (!json_parse(text, scratch, &value, &error)) {
		ck_assert(!jv_is_valid(value));
		char *words = scratch_alloc(scratch, 200);
		snprintf(words, 200, "%zu %s", error.offset, error.what);
		return words;
	}
	const char *why = json_print(value, scratch, &out);
	jv_free(value);
	if (why)
		return why;
	char *copy = scratch_alloc(scratch, out.size + 1);
	memcpy(copy, out.data, out.size);
	copy[out.size] = '\0';
	return copy;
}

/* Text and what it becomes. */
static const char *const taken[][2] = {
    {"null", "null"},
    {" true\r\n", "true"},
    {"\tfalse", "false"},
    {"0", "0"},
    {"-0", "-0"},
    {"-0.0", "-0"},
    {"12345", "12345"},
    {"1e3", "1000"},
    {"1E+3", "1000"},
    {"1.50", "1.5"},
    {"-21.75", "-21.75"},
    {"0.1", "0.1"},
    {"0.001", "0.001"},
    {"3.141593", "3.141593"},
    {"3.141592653589793", "3.141592653589793"},
    {"0.30000000000000004", "0.30000000000000004"},
    {"1e-7", "1e-07"},
    {"123456789.123456", "123456789.123456"},
    {"9007199254740991", "9007199254740991"},
    {"9007199254740993", "9007199254740992"},
    {"1732156800123456789", "1732156800123456800"},
    {"-1732156800123456789", "-1732156800123456800"},
    {"1000000000000000000", "1000000000000000000"},
    {"100000000000000000000", "1e+20"},
    {"1.7976931348623157e308", "1.7976931348623157e+308"},
    {"5e-324", "4.94065645841247e-324"},
    {"000000e", "0 a number with a leading zero"},
    {"\"\"", "\"\""},
    {"\"a\\\"b\\\\c\\/d\"", "\"a\\\"b\\\\c/d\""},
    {"\"\\b\\f\\n\\r\\t\"", "\"\\b\\f\\n\\r\\t\""},
    {"\"\\u0000\\u001f\\u007f\"", "\"\\u0000\\u001f\x7f\""},
    {"\"\\u00e9\\u20AC\\ud83d\\ude00\"", "\"é€😀\""},
    {"\"é€😀\"", "\"é€😀\""},
    {"\"\\ud83d\"", "\"\xef\xbf\xbd\""},
    {"\"\\ud83dx\"", "\"\xef\xbf\xbdx\""},
    {"\"\\ude00\"", "\"\xef\xbf\xbd\""},
    {"\"\\ud83d\\u0041\"", "\"\xef\xbf\xbd"
			   "A\""},
    {"[]", "[]"},
    {"[ ]", "[]"},
    {"[1 , [2],{}]", "[1,[2],{}]"},
    {"{ }", "{}"},
    {"{\"z\":1, \"a\" : {\"k\":null} }", "{\"z\":1,\"a\":{\"k\":null}}"},
    {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":3,\"b\":2}"},
    {"{\"\":1,\"\\u0061\":2}", "{\"\":1,\"a\":2}"},
    {"{\"a key that is longer than those that are kept\":1}", "{\"a key that is longer than those that are kept\":1}"},
};

START_TEST(test_taken)
{
	ck_assert_str_eq(through(view_of(taken[_i][0])), taken[_i][1]);
}
END_TEST

/* Text, and the place and the words of the error. */
static const char *const refused[][2] = {
    {"", "0 no value"},
    {" \n", "2 no value"},
    {"nan", "0 no JSON value"},
    {"NaN", "0 no JSON value"},
    {"Infinity", "0 no JSON value"},
    {"-Infinity", "1 a number without digits"},
    {"nul", "0 no JSON value"},
    {"True", "0 no JSON value"},
    {"'a'", "0 no JSON value"},
    {"truex", "4 something after the value"},
    {"1 2", "2 something after the value"},
    {"{}{}", "2 something after the value"},
    {"[1],", "3 something after the value"},
    {"01", "0 a number with a leading zero"},
    {"-", "1 a number without digits"},
    {"+1", "0 no JSON value"},
    {".5", "0 no JSON value"},
    {"1.", "2 a number without digits after its point"},
    {"1.e3", "2 a number without digits after its point"},
    {"1e", "2 a number without digits in its exponent"},
    {"1e+", "3 a number without digits in its exponent"},
    {"0x10", "1 something after the value"},
    {"1e999", "0 a number beyond the range of a double"},
    {"-1e999", "0 a number beyond the range of a double"},
    {"\"abc", "0 a string without its closing quote"},
    {"\"abc\\", "0 a string without its closing quote"},
    {"\"abc\\\"", "0 a string without its closing quote"},
    {"\"\\x\"", "1 a bad escape in a string"},
    {"\"\\u12g4\"", "1 a bad escape in a string"},
    {"\"\\u12\"", "1 a bad escape in a string"},
    {"\"a\nb\"", "2 a control character in a string, which must be escaped"},
    {"\"a\xff\"", "2 bytes that are no UTF-8"},
    {"\"\xc3\"", "1 bytes that are no UTF-8"},
    {"\"\xed\xa0\x80\"", "1 bytes that are no UTF-8"},
    {"\"\xc0\x80\"", "1 bytes that are no UTF-8"},
    {"\"\xf4\x90\x80\x80\"", "1 bytes that are no UTF-8"},
    {"\xef\xbb\xbf{}", "0 no JSON value"},
    {"[", "1 no value"},
    {"[1", "2 no `,` or `]` after an item of an array"},
    {"[1,]", "3 no JSON value"},
    {"[1 2]", "3 no `,` or `]` after an item of an array"},
    {"{", "1 no key in quotes where an object needs one"},
    {"{a:1}", "1 no key in quotes where an object needs one"},
    {"{\"a\" 1}", "5 no `:` after the key of an object"},
    {"{\"a\":}", "5 no JSON value"},
    {"{\"a\":1,}", "7 no key in quotes where an object needs one"},
    {"{\"a\":1 \"b\":2}", "7 no `,` or `}` after a value of an object"},
    {"{\"a\":1", "6 no `,` or `}` after a value of an object"},
};

START_TEST(test_refused)
{
	ck_assert_str_eq(through(view_of(refused[_i][0])), refused[_i][1]);
}
END_TEST

START_TEST(test_nul_is_refused)
{
	ck_assert_str_eq(through((struct view){(const uint8_t *)"\0", 1}), "0 no JSON value");
	ck_assert_str_eq(through((struct view){(const uint8_t *)"{}\0", 3}), "2 something after the value");
}
END_TEST

/* `depth` opening brackets, then closing ones. */
static struct view nest(size_t depth)
{
	char *text = scratch_alloc(scratch, 2 * depth);

	memset(text, '[', depth);
	memset(text + depth, ']', depth);
	return (struct view){(uint8_t *)text, 2 * depth};
}

START_TEST(test_depth)
{
	ck_assert_uint_eq(strlen(through(nest(256))), 512);
	ck_assert_str_eq(through(nest(257)), "256 nesting deeper than 256");
	ck_assert_str_eq(through(nest(1000000)), "256 nesting deeper than 256");
}
END_TEST

START_TEST(test_print_what_no_text_says)
{
	struct view out;
	jv deep = jv_null();

	ck_assert_ptr_null(json_print(jv_number(NAN), scratch, &out));
	ck_assert(view_equal(out, view_of("null")));
	ck_assert_ptr_null(json_print(jv_number(INFINITY), scratch, &out));
	ck_assert(view_equal(out, view_of("1.7976931348623157e+308")));
	ck_assert_ptr_null(json_print(jv_number(-INFINITY), scratch, &out));
	ck_assert(view_equal(out, view_of("-1.7976931348623157e+308")));
	ck_assert_str_eq(json_print(jv_invalid(), scratch, &out), "there is no value");
	for (int i = 0; i < 257; i++)
		deep = jv_array_append(jv_array(), deep);
	ck_assert_str_eq(json_print(deep, scratch, &out), "the value is nested deeper than 256");
	jv_free(deep);
}
END_TEST

/* Texts, and what is found in them under "user"; NULL: nothing without parsing. */
static const char *const looks[][2] = {
    {"{\"user\":\"ada\"}", "ada"},
    {" {\"n\":[1,-2.5,{\"user\":\"x\"}],\t\"user\" : \"bob\" ,\"on\":true}\n", "bob"},
    {"{\"user\":\"\"}", ""},
    {"{\"user\":\"é😀\",\"t\":\"a \\\"quote\\\" \\u00e9 and more than eight\"}", "é😀"},
    {"{\"user\":\"first\",\"user\":\"last\"}", "last"},
    {"{\"user\":\"first\",\"user\":1}", NULL},
    {"{\"user\":\"a\\u0062\"}", NULL},
    {"{\"user\":1}", NULL},
    {"{\"users\":\"ada\",\"use\":\"ada\"}", NULL},
    {"{\"other\":{\"user\":\"ada\"}}", NULL},
    {"[{\"user\":\"ada\"}]", NULL},
    {"\"user\"", NULL},
    {"{}", NULL},
    {"", NULL},
};

START_TEST(test_look)
{
	const char *expected = looks[_i][1];
	struct view found;

	ck_assert_int_eq(json_find_string(view_of(looks[_i][0]), view_of("user"), &found), expected != NULL);
	if (expected)
		ck_assert(view_equal(found, view_of(expected)));
}
END_TEST

/* Nothing is found in a text that parsing refuses: in objects with such values before and behind, and cut off anywhere. */
START_TEST(test_look_refuses)
{
	static const char *const frames[][2] = {
	    {"{\"user\":\"u\",\"x\":", "}"}, {"{\"x\":", ",\"user\":\"u\"}"}, {"{\"user\":\"u\"}", ""}};
	struct json_error error;
	struct view found;
	char text[200];
	jv value;

	for (size_t i = 0; i < sizeof(frames) / sizeof(*frames); i++) {
		snprintf(text, sizeof(text), "%s%s%s", frames[i][0], refused[_i][0], frames[i][1]);
		for (size_t size = strlen(text); size > 0; size--) {
			struct view part = {(const uint8_t *)text, size};
			bool parsed = json_parse(part, scratch, &value, &error);
			jv_free(value);
			ck_assert_msg(parsed || !json_find_string(part, view_of("user"), &found), "%.*s", (int)size,
				      text);
		}
	}
}
END_TEST

/* A number from the generator at hand. */
static uint64_t random_next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 16 ^ *state << 32;
}

/* Every double, however odd, is printed so that it reads back as itself, and libjq reads it the same. */
START_TEST(test_numbers_read_back)
{
	uint64_t state = 42;

	for (int i = 0; i < 20000; i++) {
		uint64_t bits = random_next(&state);
		struct json_error error;
		struct view out;
		double value;
		jv back;

		if (i % 2)
			value = (double)(int64_t)(bits % 2000000000) / (double)(1 + bits % 1000);
		else
			memcpy(&value, &bits, sizeof(value));
		if (!isfinite(value))
			continue;
		ck_assert_ptr_null(json_print(jv_number(value), scratch, &out));
		ck_assert_msg(json_parse(out, scratch, &back, &error), "%.*s", (int)out.size, out.data);
		ck_assert_msg(jv_number_value(back) == value, "%.17g became %.*s", value, (int)out.size, out.data);
		jv theirs = jv_parse_sized((const char *)out.data, (int)out.size);
		ck_assert_msg(jv_equal(theirs, back), "%.*s", (int)out.size, out.data);
		scratch_reset(scratch);
	}
}
END_TEST

/* Appends a random value's JSON, with random white space. */
static void random_json(uint64_t *state, char *text, size_t *at, int depth)
{
	static const char *const scalars[] = {"null", "true",         "-1.5e3",     "0",      "123456789012345678",
					      "\"\"", "\"\\u00e9x\"", "\"a b\\n\"", "\"é😀\"", "0.000001"};
	uint64_t choice = random_next(state) % (depth > 5 ? 10 : 20);
	size_t count = random_next(state) % 12;
	bool object = choice >= 15;

	*at += (size_t)sprintf(text + *at, "%s", random_next(state) % 4 ? "" : " \n");
	if (choice < 10) {
		*at += (size_t)sprintf(text + *at, "%s", scalars[choice]);
		return;
	}
	text[(*at)++] = object ? '{' : '[';
	for (size_t i = 0; i < count && *at < 4000; i++) {
		if (i > 0)
			text[(*at)++] = ',';
		if (object)
			*at += (size_t)sprintf(text + *at, "\"k%d\": ", (int)(random_next(state) % 30));
		random_json(state, text, at, depth + 1);
	}
	text[(*at)++] = object ? '}' : ']';
}

/* What is found in random texts, most of them damaged, is what parsing finds. */
START_TEST(test_look_agrees)
{
	uint64_t state = 7;
	int found_some = 0;

	for (int i = 0; i < 20000; i++) {
		char text[8192];
		size_t size = 0;
		struct json_error error;
		struct view found;
		jv value;

		random_json(&state, text, &size, 0);
		if (i % 2 && size > 0)
			text[random_next(&state) % size] = "\"\\,:}]e0 \x01\xc3"[random_next(&state) % 12];
		struct view view = {(const uint8_t *)text, size};
		for (int k = 0; k < 30; k++) {
			char name[16];
			snprintf(name, sizeof(name), "k%d", k);
			if (!json_find_string(view, view_of(name), &found))
				continue;
			ck_assert_msg(json_parse(view, scratch, &value, &error), "%.*s", (int)size, text);
			jv field = jv_object_get(value, jv_string(name));
			ck_assert_msg(jv_equal(field, jv_string_sized((const char *)found.data, (int)found.size)),
				      "%.*s", (int)size, text);
			found_some++;
		}
		scratch_reset(scratch);
	}
	ck_assert_int_gt(found_some, 50);
}
END_TEST

/* libjq makes the same of a text, and of what we print for it, keys in the same order. */
START_TEST(test_libjq_agrees)
{
	static char text[65536];
	uint64_t state = 7;

	for (int i = 0; i < 2000; i++) {
		struct json_error error;
		struct view out;
		size_t size = 0;
		jv ours;

		random_json(&state, text, &size, 0);
		text[size] = '\0';
		ck_assert_msg(json_parse((struct view){(uint8_t *)text, size}, scratch, &ours, &error), "%s", text);
		ck_assert_ptr_null(json_print(ours, scratch, &out));
		jv theirs = jv_parse(text), again = jv_parse_sized((const char *)out.data, (int)out.size);
		struct view printed;
		ck_assert_msg(jv_equal(jv_copy(theirs), jv_copy(ours)), "%s", text);
		ck_assert_msg(jv_equal(again, ours), "%s", text);
		ck_assert_ptr_null(json_print(theirs, scratch, &printed));
		ck_assert_msg(view_equal(printed, out), "%s", text);
		jv_free(theirs);
		scratch_reset(scratch);
	}
}
END_TEST

/* Keys that fall on the same place of the table of kept keys push each other out and stay what they are. */
START_TEST(test_many_keys)
{
	char text[64];

	for (int i = 0; i < 5000; i++) {
		snprintf(text, sizeof(text), "{\"key%d\":%d}", i % 1500, i);
		ck_assert_str_eq(through(view_of(text)), text);
		scratch_reset(scratch);
	}
}
END_TEST

static Suite *json_suite(void)
{
	Suite *suite = suite_create("json");
	TCase *tests = tcase_create("all");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_loop_test(tests, test_taken, 0, sizeof(taken) / sizeof(taken[0]));
	tcase_add_loop_test(tests, test_refused, 0, sizeof(refused) / sizeof(refused[0]));
	tcase_add_loop_test(tests, test_look, 0, sizeof(looks) / sizeof(looks[0]));
	tcase_add_loop_test(tests, test_look_refuses, 0, sizeof(refused) / sizeof(refused[0]));
	tcase_add_test(tests, test_look_agrees);
	tcase_add_test(tests, test_nul_is_refused);
	tcase_add_test(tests, test_depth);
	tcase_add_test(tests, test_print_what_no_text_says);
	tcase_add_test(tests, test_numbers_read_back);
	tcase_add_test(tests, test_libjq_agrees);
	tcase_add_test(tests, test_many_keys);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(json_suite)
