/*
 * The main() of a Check suite: CHECK_MAIN(suite_function) stands at the end of every tests/check_*.c.
 *
 * CK_ENV lets CK_VERBOSITY choose how much is printed; each test runs in a process of its own unless CK_FORK=no. The
 * time limit of a test is a guard against one that hangs, not a measurement: it is generous unless CK_DEFAULT_TIMEOUT
 * says otherwise.
 *
 * A child that may be killed at any time comes past no assertion of Check: each leaves a message in a file that the suite reads, and half
 * of one ("Bad message type") ends all of it. Such a child uses CHECK of shared/log.h, or ck_abort_msg once something is wrong.
 */
#ifndef TESTS_CHECK_MAIN_H
#define TESTS_CHECK_MAIN_H

#include <check.h>
#include <stdlib.h>

/* Runs one suite; the exit code says whether any test failed. */
static inline int check_main_run(Suite *(*make)(void))
{
	setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	SRunner *runner = srunner_create(make());
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define CHECK_MAIN(suite_function)                                                                                     \
	int main(void)                                                                                                 \
	{                                                                                                              \
		return check_main_run(suite_function);                                                                 \
	}

#endif
