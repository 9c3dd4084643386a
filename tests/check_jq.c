/* Compiled jq programs: what they yield, how they fail, that paths walked by hand do as libjq's machine does. */
#include <jq.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"
#include "tests/check_main.h"
#include "worker/chain.h"
#include "worker/jq_program.h"
#include "worker/json_text.h"

static void teardown(void)
{
	jq_programs_free();
	json_forget_keys();
}

/* All outputs of a program for an input, one per line; a failure as "! words"; a program that does not compile as "? words". */
static const char *run_all(const char *text, const char *input)
{
	static char out[4096];
	char why[512];
	struct jq_program *program = jq_program_get(text, why, sizeof(why));
	enum jq_result result;
	jv value;

	if (!program) {
		snprintf(out, sizeof(out), "? %s", why);
		return out;
	}
	out[0] = '\0';
	jq_program_start(program, jv_parse(input));
	while ((result = jq_program_next(program, &value)) == JQ_OUTPUT) {
		jv line = jv_dump_string(value, 0);
		ck_assert_uint_lt(strlen(out) + strlen(jv_string_value(line)) + 2, sizeof(out));
		strcat(strcat(out, out[0] ? "\n" : ""), jv_string_value(line));
		jv_free(line);
	}
	if (result == JQ_FAILED)
		snprintf(out + strlen(out), 600, "%s! %s", out[0] ? "\n" : "", jq_program_error(program));
	return out;
}

/* Program, input, what comes out. */
static const char *const programs[][3] = {
    {".", "[1]", "[1]"},
    {".a", "{\"a\":1}", "1"},
    {".[]", "[1,2,3]", "1\n2\n3"},
    {"empty", "1", ""},
    {"select(.value % 10 != 0) | .doubled = .value*2", "{\"value\":3}", "{\"value\":3,\"doubled\":6}"},
    {"select(.value % 10 != 0) | .doubled = .value*2", "{\"value\":10}", ""},
    {"1, error(\"oops\"), 2", "null", "1\n! oops"},
    {"error({a:1})", "null", "! {\"a\":1}"},
    {".[]", "5", "! Cannot iterate over number (5)"},
    {"halt", "1", "! the program called halt, which a step must not"},
    {"\"bye\" | halt_error", "1", "! the program called halt, which a step must not: bye"},
    {"{a:1} | halt_error(3)", "1", "! the program called halt, which a step must not: {\"a\":1}"},
    {"input", "1", "! a step's program has no further inputs: each record is run by itself"},
    {"[inputs]", "1", "! a step's program has no further inputs: each record is run by itself"},
    {"def f(x): x + 1; f(.)", "1", "2"},
    {"(", "1", "? syntax error, unexpected $end at <top-level>, line 1: ("},
    {".a | nosuch(1; 2)", "1", "? nosuch/2 is not defined at <top-level>, line 1: .a | nosuch(1; 2)"},
    {".a |\n.b |\nnosuch", "1", "? nosuch/0 is not defined at <top-level>, line 3: nosuch"},
    {"$x", "1", "? $x is not defined at <top-level>, line 1: $x"},
    {"ascii_upcase", "\"azAZ@[`{é\\u0000\"", "\"AZAZ@[`{é\\u0000\""},
    {"ascii_downcase", "\"azAZ@[`{é\\u0000\"", "\"azaz@[`{é\\u0000\""},
};

START_TEST(test_programs)
{
	const char *text = programs[_i][0], *expected = programs[_i][2], *got = run_all(text, programs[_i][1]);

	/* The parser's words for a syntax error differ between versions of libjq; that there are some is enough. */
	if (strncmp(expected, "? syntax error", 14) == 0)
		ck_assert_int_eq(strncmp(got, expected, 14), 0);
	else
		ck_assert_str_eq(got, expected);
	ck_assert_str_eq(run_all(".", "\"next\""), "\"next\"");
}
END_TEST

START_TEST(test_a_program_is_compiled_once)
{
	struct jq_program *program = jq_program_get(".a + 1", NULL, 0);

	ck_assert_ptr_nonnull(program);
	ck_assert_ptr_eq(jq_program_get(".a + 1", NULL, 0), program);
	ck_assert_ptr_ne(jq_program_get(".a + 2", NULL, 0), program);
	ck_assert_ptr_null(jq_program_get("(", NULL, 0));
}
END_TEST

START_TEST(test_check)
{
	ck_assert_ptr_null(jq_program_check(".a"));
	ck_assert_ptr_null(jq_program_check("map(.x) | add"));
	char *why = jq_program_check("map(.x | ad");
	ck_assert_ptr_nonnull(why);
	free(why);
	why = jq_program_check("ad(");
	ck_assert_ptr_nonnull(why);
	ck_assert_ptr_null(strchr(why, '\n'));
	free(why);
}
END_TEST

START_TEST(test_modules_are_out_of_reach)
{
	ck_assert_int_eq(strncmp(run_all("import \"a\" as a; .", "1"), "? module not found: a", 20), 0);
	ck_assert_int_eq(strncmp(run_all("include \"a\"; .", "1"), "? module not found: a", 20), 0);
}
END_TEST

START_TEST(test_home_is_out_of_reach)
{
	char folder[] = "/tmp/check_jq.XXXXXX", path[64];

	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/.jq", folder);
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fputs("def from_home: 1;\n", file);
	fclose(file);
	setenv("HOME", folder, 1);
	ck_assert_int_eq(strncmp(run_all("from_home", "1"), "? from_home/0 is not defined", 28), 0);
	ck_assert_str_eq(getenv("HOME"), folder);
	unlink(path);
	rmdir(folder);
}
END_TEST

START_TEST(test_one)
{
	struct jq_program *two = jq_program_get(".[]", NULL, 0);
	bool holds;
	jv value;

	ck_assert(jq_program_one(two, jv_parse("[7]"), &value));
	ck_assert(jv_number_value(value) == 7);
	jv_free(value);
	ck_assert(!jq_program_one(two, jv_parse("[]"), &value));
	ck_assert_str_eq(jq_program_error(two), "the program yields no value, and one is needed");
	ck_assert(!jq_program_one(two, jv_parse("[1,2]"), &value));
	ck_assert_str_eq(jq_program_error(two), "the program yields more than one value, and one is needed");
	ck_assert(jq_program_holds(two, jv_parse("[false]"), &holds) && !holds);
	ck_assert(jq_program_holds(two, jv_parse("[null]"), &holds) && !holds);
	ck_assert(jq_program_holds(two, jv_parse("[0]"), &holds) && holds);
	ck_assert(jq_program_holds(two, jv_parse("[\"\"]"), &holds) && holds);
	ck_assert(!jq_program_holds(two, jv_parse("5"), &holds));
}
END_TEST

START_TEST(test_endless_programs_are_stopped)
{
	struct jq_program *program = jq_program_get("repeat(1)", NULL, 0);
	enum jq_result result;
	size_t count = 0;
	jv value;

	jq_program_start(program, jv_null());
	while ((result = jq_program_next(program, &value)) == JQ_OUTPUT) {
		jv_free(value);
		count++;
	}
	ck_assert_int_eq(result, JQ_FAILED);
	ck_assert_uint_eq(count, JQ_OUTPUTS_MAX);
	ck_assert_str_eq(jq_program_error(program), "the program yields more than 1000000 values for one record");
}
END_TEST

/* A value is given away, so that a program which changes it can do so in place. */
START_TEST(test_a_program_keeps_nothing)
{
	struct jq_program *programs_to_try[] = {jq_program_get(".", NULL, 0),
						jq_program_get(".[0] | tostring", NULL, 0),
						jq_program_get(".[] , error", NULL, 0)};

	for (size_t i = 0; i < 3; i++) {
		jv input = jv_parse("[\"a string\", 2]"), value;
		jq_program_start(programs_to_try[i], jv_copy(input));
		while (jq_program_next(programs_to_try[i], &value) == JQ_OUTPUT)
			jv_free(value);
		ck_assert_int_eq(jv_get_refcnt(input), 1);
		jq_program_start(programs_to_try[i], jv_copy(input));
		ck_assert_int_eq(jq_program_next(programs_to_try[i], &value), JQ_OUTPUT);
		jv_free(value);
		jq_program_stop(programs_to_try[i]);
		ck_assert_int_eq(jv_get_refcnt(input), 1);
		jv_free(input);
	}
}
END_TEST

/* Texts that are paths, or nearly. */
static const char *const paths[] = {
    ".",          " . ",      ".a",     ".a.b",   ".a.b.c",   ".a[1]",    ".[0]", ".[1].b",      ".\"x y\"",
    ".a.\"x y\"", ".a[0][1]", "._x1",   ".a[99]", ".a [1]",   ".[\"a\"]", ".a[]", ".a[-1]",      ".a[1.5]",
    ".a[1:2]",    ".a.[1]",   "..",     ".a..b",  ".a.",      ".1a",      ".a-b", ".a?",         ".\"\\u0061\"",
    ".a\"x y\"",  ".a b",     ".[a]",   ".and",   ".a,.b",    ".$x",      ".[1",  ".\"a\\(1)\"", ".a[0000000001]",
    ".é",         ".a\n.b",   ".[0].b", "\t.a\n", ".a.b[2].c"};

static const char *const path_inputs[] = {"null",
					  "5",
					  "\"a\"",
					  "[]",
					  "[[1,2],{\"b\":3}]",
					  "{\"a\":1,\"b\":2}",
					  "{\"a\":[0,[5,6],{\"b\":1}],\"x y\":7}",
					  "{\"a\":{\"b\":{\"c\":\"d\"},\"x y\":1,\"and\":2}}",
					  "{\"a\":{\"b\":[1,2,{\"c\":3}]},\"_x1\":4,\"and\":5}"};

/* A path is a shortcut: `(P)` in parentheses is the same program for libjq's machine, and must do the same. */
START_TEST(test_paths_do_as_the_machine)
{
	char machine[64], expected[4096];

	snprintf(machine, sizeof(machine), "(%s\n)", paths[_i]);
	for (size_t k = 0; k < sizeof(path_inputs) / sizeof(path_inputs[0]); k++) {
		snprintf(expected, sizeof(expected), "%s", run_all(machine, path_inputs[k]));
		const char *got = run_all(paths[_i], path_inputs[k]);
		if (expected[0] == '?')
			ck_assert_msg(got[0] == '?', "%s compiles to %s", paths[_i], got);
		else
			ck_assert_str_eq(got, expected);
	}
}
END_TEST

/* Letters are changed by hand in strings; everything else, and its words, is the machine's. */
START_TEST(test_letters_do_as_the_machine)
{
	static const char *const inputs[] = {"\"\"", "\"Hello, wörld\"", "null", "5", "[\"a\"]"};
	static char text[10000];
	char expected[4096];

	for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
		snprintf(expected, sizeof(expected), "%s", run_all("(ascii_upcase)", inputs[i]));
		ck_assert_str_eq(run_all("ascii_upcase", inputs[i]), expected);
		snprintf(expected, sizeof(expected), "%s", run_all("(ascii_downcase)", inputs[i]));
		ck_assert_str_eq(run_all("ascii_downcase", inputs[i]), expected);
	}
	memset(text, 'x', sizeof(text) - 1);
	struct jq_program *program = jq_program_get("ascii_upcase", NULL, 0);
	jv value;
	ck_assert(jq_program_one(program, jv_string(text), &value));
	ck_assert_int_eq(jv_string_length_bytes(jv_copy(value)), (int)sizeof(text) - 1);
	ck_assert_int_eq(jv_string_value(value)[9998], 'X');
	jv_free(value);
}
END_TEST

static Suite *jq_suite(void)
{
	Suite *suite = suite_create("jq");
	TCase *tests = tcase_create("all");

	log_init("check_jq", LOG_WARN);
	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_add_loop_test(tests, test_programs, 0, sizeof(programs) / sizeof(programs[0]));
	tcase_add_test(tests, test_a_program_is_compiled_once);
	tcase_add_test(tests, test_check);
	tcase_add_test(tests, test_modules_are_out_of_reach);
	tcase_add_test(tests, test_home_is_out_of_reach);
	tcase_add_test(tests, test_one);
	tcase_add_test(tests, test_endless_programs_are_stopped);
	tcase_add_test(tests, test_a_program_keeps_nothing);
	tcase_add_loop_test(tests, test_paths_do_as_the_machine, 0, sizeof(paths) / sizeof(paths[0]));
	tcase_add_test(tests, test_letters_do_as_the_machine);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(jq_suite)
