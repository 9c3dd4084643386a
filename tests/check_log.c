/*
 * Log lines: their form, that they are always one line of sound UTF-8, and that a line is one write.
 */
#include "shared/log.h"

#include <errno.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check_main.h"

static char line[8192];    /* what was last logged, with its newline */
static int log_end, error; /* where standard error's lines come out, and the real one */

/* Turns standard error into a socket that keeps the bounds of writes. */
static void setup(void)
{
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	error = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	log_end = ends[0];
	log_init("worker 3", LOG_DEBUG);
}

static void teardown(void)
{
	dup2(error, STDERR_FILENO);
	close(error);
	close(log_end);
}

/* Takes one write's line into `line`; its length, 0 when nothing was written. */
static size_t take_line(void)
{
	ssize_t size = recv(log_end, line, sizeof(line) - 1, MSG_DONTWAIT);
	if (size < 0)
		size = 0;
	line[size] = '\0';
	return (size_t)size;
}

/* Checks that a line was written and that it ends in some text. */
static void expect_text(const char *text)
{
	size_t size = take_line();
	ck_assert_uint_gt(size, strlen(text));
	ck_assert_str_eq(line + size - strlen(text), text);
	ck_assert_ptr_eq(strchr(line, '\n'), line + size - 1);
}

/* Checks the last line against an extended regular expression. */
static void expect_form(const char *pattern)
{
	regex_t form;
	ck_assert_int_eq(regcomp(&form, pattern, REG_EXTENDED | REG_NOSUB), 0);
	ck_assert_msg(regexec(&form, line, 0, NULL, 0) == 0, "%s", line);
	regfree(&form);
}

START_TEST(a_line_says_when_how_bad_who_and_what)
{
	log_warn("%d things", 7);
	take_line();
	expect_form("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z warn  worker 3: 7 things\n$");
	log_debug("x");
	take_line();
	expect_form("Z debug worker 3: x\n$");
	log_info("x");
	take_line();
	expect_form("Z info  worker 3: x\n$");
	log_error("x");
	take_line();
	expect_form("Z error worker 3: x\n$");
}
END_TEST

START_TEST(lower_levels_are_left_out)
{
	log_init("front", LOG_WARN);
	log_debug("no");
	log_info("no");
	ck_assert_uint_eq(take_line(), 0);
	log_warn("yes");
	expect_text("front: yes\n");
}
END_TEST

START_TEST(a_line_stays_one_line)
{
	static const struct {
		const char *text, *shown;
	} cases[] = {
	    {"a\nb\tc", "3: a\\nb\\tc\n"},
	    {"\r\x1b[31m\x7f", "3: \\x0D\\x1B[31m\\x7F\n"},
	    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
	     "3: gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\n"},
	    {"\xff\x80x", "3: \\xFF\\x80x\n"},
	    {"\xc0\xaf", "3: \\xC0\\xAF\n"},                   /* an overlong slash */
	    {"\xe0\x80\xaf", "3: \\xE0\\x80\\xAF\n"},          /* another */
	    {"\xed\xa0\x80", "3: \\xED\\xA0\\x80\n"},          /* a surrogate */
	    {"\xf4\x90\x80\x80", "3: \\xF4\\x90\\x80\\x80\n"}, /* beyond Unicode */
	    {"\xc2\x85", "3: \\xC2\\x85\n"},                   /* "next line", a control character */
	    {"\xe2\x82", "3: \\xE2\\x82\n"},                   /* cut off */
	    {"\xe2\x82z", "3: \\xE2\\x82z\n"},
	    {"C:\\path", "3: C:\\path\n"},
	    {"", "3: \n"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		log_info("%s", cases[i].text);
		expect_text(cases[i].shown);
	}
}
END_TEST

START_TEST(speakers_are_escaped_and_cut)
{
	char name[200];
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	log_init(name, LOG_INFO);
	log_info("x");
	expect_text("nnn: x\n");
	log_init("a\nb", LOG_INFO);
	log_info("x");
	expect_text("a\\nb: x\n");
}
END_TEST

START_TEST(a_long_line_is_cut)
{
	static char text[20000];
	static const char *const fillings[] = {"x", "\n", "\xe2\x82\xac", "\xff"};
	for (size_t i = 0; i < sizeof(fillings) / sizeof(fillings[0]); i++) {
		text[0] = '\0';
		for (size_t used = 0; used + 3 < sizeof(text); used += strlen(fillings[i]))
			strcpy(text + used, fillings[i]);
		log_info("%s", text);
		expect_text("...\n");
		ck_assert_uint_gt(strlen(line), 4000);
		ck_assert_uint_le(strlen(line), 4096);
	}
	text[3000] = '\0';
	log_info("%.3000s", text);
	ck_assert_uint_gt(take_line(), 0);
}
END_TEST

START_TEST(errno_is_left_alone)
{
	errno = EXDEV;
	log_info("x");
	ck_assert_int_eq(errno, EXDEV);
}
END_TEST

/* Runs something that ends the process in a child; its wait status. */
static int in_child(void (*act)(void))
{
	int status;
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		act();
		_exit(77);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/* Ends with errno's words. */
static void be_fatal(void)
{
	errno = ENOENT;
	fatal("cannot open %s", "it");
}

/* Ends without them. */
static void be_fatalx(void)
{
	errno = ENOENT;
	fatalx("no such %s", "thing");
}

/* Fails a check of our own. */
static void fail_check(void)
{
	int one = 1;
	CHECK(one == 1);
	CHECK(one + 1 == 1);
}

START_TEST(fatal_says_why_and_exits_with_1)
{
	int status = in_child(be_fatal);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	expect_text(" error worker 3: cannot open it: No such file or directory\n");
	status = in_child(be_fatalx);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	expect_text(" error worker 3: no such thing\n");
}
END_TEST

START_TEST(a_failed_check_says_where_and_aborts)
{
	int status = in_child(fail_check);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	take_line();
	expect_form("error worker 3: tests/check_log.c:[0-9]+: .*one \\+ 1 == 1");
}
END_TEST

static Suite *log_suite(void)
{
	Suite *suite = suite_create("log");
	TCase *tests = tcase_create("log");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, a_line_says_when_how_bad_who_and_what);
	tcase_add_test(tests, lower_levels_are_left_out);
	tcase_add_test(tests, a_line_stays_one_line);
	tcase_add_test(tests, speakers_are_escaped_and_cut);
	tcase_add_test(tests, a_long_line_is_cut);
	tcase_add_test(tests, errno_is_left_alone);
	tcase_add_test(tests, fatal_says_why_and_exits_with_1);
	tcase_add_test(tests, a_failed_check_says_where_and_aborts);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(log_suite)
