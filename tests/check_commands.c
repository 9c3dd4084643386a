/* bridgectl's table of commands and its reader of arguments. */
#include "cli/commands.h"

#include <check.h>
#include <string.h>

#include "tests/check_main.h"

/* What the table needs to link; main() has the real one. */
int cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return BRIDGECTL_OK;
}

/* Reads a line of arguments, at most eight of them. */
static int read_line(struct arguments *arguments, size_t least, size_t most, const char *const *words)
{
	char *argv[8];
	int argc = 0;
	for (; words[argc] != NULL; argc++)
		argv[argc] = (char *)(uintptr_t)words[argc];
	return arguments_read(arguments, least, most, argc, argv);
}

#define READ(arguments, least, most, ...) read_line(arguments, least, most, (const char *[]){__VA_ARGS__, NULL})

START_TEST(test_all_spellings_of_an_option)
{
	struct arguments arguments;
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "--slots", "3", "p.yaml", "-q"), -1);
	ck_assert_str_eq(arguments_value(&arguments, "slots"), "3");
	ck_assert_str_eq(arguments.operands[0], "p.yaml");
	ck_assert(arguments_given(&arguments, "quiet") && !arguments_given(&arguments, "json"));
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "p.yaml", "--slots=4"), -1);
	ck_assert_str_eq(arguments_value(&arguments, "slots"), "4");
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "-s", "5", "p.yaml"), -1);
	ck_assert_str_eq(arguments_value(&arguments, "slots"), "5");
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "-s6", "p.yaml"), -1);
	ck_assert_str_eq(arguments_value(&arguments, "slots"), "6");
}
END_TEST

START_TEST(test_repeated_options_keep_their_order)
{
	struct arguments arguments;
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "-i", "a=1", "--input=b=2", "p.yaml"), -1);
	ck_assert_uint_eq(arguments.option_count, 2);
	ck_assert_str_eq(arguments.options[0].value, "a=1");
	ck_assert_str_eq(arguments.options[1].value, "b=2");
	ck_assert_str_eq(arguments_value(&arguments, "input"), "b=2");
}
END_TEST

START_TEST(test_dashes)
{
	struct arguments arguments;
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "-"), -1);
	ck_assert_str_eq(arguments.operands[0], "-");
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "--", "--slots"), -1);
	ck_assert_str_eq(arguments.operands[0], "--slots");
}
END_TEST

START_TEST(test_misuse)
{
	struct arguments arguments;
	ck_assert_int_eq(READ(&arguments, 1, 1, "run"), BRIDGECTL_MISUSED);
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "a", "b"), BRIDGECTL_MISUSED);
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "a", "--slot", "1"), BRIDGECTL_MISUSED);
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "a", "--slots"), BRIDGECTL_MISUSED);
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "a", "--quiet=yes"), BRIDGECTL_MISUSED);
	ck_assert_int_eq(READ(&arguments, 1, 1, "run", "a", "-x"), BRIDGECTL_MISUSED);
}
END_TEST

START_TEST(test_names_are_unique_and_everything_belongs_to_a_command)
{
	size_t count, option_count;
	const struct command *commands = commands_all(&count);
	const struct command_option *options = commands_options(&option_count);
	for (size_t i = 0; i < count; i++) {
		ck_assert_ptr_eq(command_find(commands[i].name), &commands[i]);
		ck_assert(strlen(commands[i].help) > 10);
	}
	for (size_t i = 0; i < option_count; i++) {
		ck_assert(options[i].command == NULL || command_find(options[i].command) != NULL);
		for (size_t j = 0; j < i; j++) {
			bool same = options[i].command == NULL || options[j].command == NULL ||
				    strcmp(options[i].command, options[j].command) == 0;
			ck_assert(!same || strcmp(options[i].name, options[j].name) != 0);
			ck_assert(!same || options[i].letter == 0 || options[i].letter != options[j].letter);
		}
	}
}
END_TEST

START_TEST(test_did_you_mean)
{
	ck_assert_str_eq(command_suggest("rnu"), "run");
	ck_assert_str_eq(command_suggest("slot"), "slots");
	ck_assert_ptr_null(command_suggest("xyzzyplugh"));
}
END_TEST

static Suite *commands_suite(void)
{
	Suite *suite = suite_create("commands");
	TCase *tests = tcase_create("commands");
	tcase_add_test(tests, test_all_spellings_of_an_option);
	tcase_add_test(tests, test_repeated_options_keep_their_order);
	tcase_add_test(tests, test_dashes);
	tcase_add_test(tests, test_misuse);
	tcase_add_test(tests, test_names_are_unique_and_everything_belongs_to_a_command);
	tcase_add_test(tests, test_did_you_mean);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(commands_suite)
