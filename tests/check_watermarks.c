/* Event time at the inputs of a subtask. */
#include "cli/run_watermark.h"

#include <check.h>

#include "tests/check_main.h"

START_TEST(test_least_of_all_channels)
{
	struct watermark_valve valve;
	watermark_valve_init(&valve, 3);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 0, 10), 0);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 1, 20), 0);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 2, 5), WATERMARK_MOVED);
	ck_assert_int_eq(valve.time, 5);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 2, 30), WATERMARK_MOVED);
	ck_assert_int_eq(valve.time, 10);
	watermark_valve_free(&valve);
}
END_TEST

START_TEST(test_never_goes_back)
{
	struct watermark_valve valve;
	watermark_valve_init(&valve, 1);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 0, 10), WATERMARK_MOVED);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 0, 9), 0);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 0, 10), 0);
	ck_assert_int_eq(valve.time, 10);
	watermark_valve_free(&valve);
}
END_TEST

START_TEST(test_idle_channels_do_not_hold_back)
{
	struct watermark_valve valve;
	watermark_valve_init(&valve, 2);
	watermark_valve_advance(&valve, 0, 100);
	ck_assert_int_eq(valve.time, INT64_MIN);
	ck_assert_uint_eq(watermark_valve_set_idle(&valve, 1, true), WATERMARK_MOVED);
	ck_assert_int_eq(valve.time, 100);
	ck_assert_uint_eq(watermark_valve_set_idle(&valve, 1, true), 0);
	watermark_valve_free(&valve);
}
END_TEST

START_TEST(test_one_that_comes_back_counts_once_it_has_caught_up)
{
	struct watermark_valve valve;
	watermark_valve_init(&valve, 2);
	watermark_valve_advance(&valve, 0, 100);
	watermark_valve_set_idle(&valve, 1, true);
	ck_assert_uint_eq(watermark_valve_set_idle(&valve, 1, false), 0);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 1, 50), 0);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 0, 110), WATERMARK_MOVED);
	ck_assert_int_eq(valve.time, 110);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 1, 120), 0);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 0, 130), WATERMARK_MOVED);
	ck_assert_int_eq(valve.time, 120);
	watermark_valve_free(&valve);
}
END_TEST

START_TEST(test_all_idle_is_told_and_reaches_the_largest)
{
	struct watermark_valve valve;
	watermark_valve_init(&valve, 2);
	watermark_valve_advance(&valve, 0, 100);
	watermark_valve_advance(&valve, 1, 50);
	ck_assert_uint_eq(watermark_valve_set_idle(&valve, 0, true), 0);
	ck_assert_int_eq(valve.time, 50);
	ck_assert_uint_eq(watermark_valve_set_idle(&valve, 1, true), WATERMARK_STATUS | WATERMARK_MOVED);
	ck_assert(valve.idle);
	ck_assert_int_eq(valve.time, 100);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 1, 500), 0);
	ck_assert_uint_eq(watermark_valve_set_idle(&valve, 0, false), WATERMARK_STATUS);
	ck_assert(!valve.idle);
	watermark_valve_free(&valve);
}
END_TEST

START_TEST(test_absent_channels_do_not_count)
{
	struct watermark_valve valve;
	watermark_valve_init(&valve, 3);
	watermark_valve_leave_out(&valve, 0);
	watermark_valve_leave_out(&valve, 2);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 1, 7), WATERMARK_MOVED);
	ck_assert_int_eq(valve.time, 7);
	ck_assert_uint_eq(watermark_valve_set_idle(&valve, 1, true), WATERMARK_STATUS);
	watermark_valve_free(&valve);
}
END_TEST

START_TEST(test_the_end_is_the_largest_watermark)
{
	struct watermark_valve valve;
	watermark_valve_init(&valve, 2);
	watermark_valve_advance(&valve, 0, INT64_MAX);
	ck_assert_int_eq(valve.time, INT64_MIN);
	ck_assert_uint_eq(watermark_valve_advance(&valve, 1, INT64_MAX), WATERMARK_MOVED);
	ck_assert_int_eq(valve.time, INT64_MAX);
	watermark_valve_free(&valve);
}
END_TEST

START_TEST(test_behind_the_largest_timestamp)
{
	ck_assert_int_eq(watermark_behind(1000, 0), 999);
	ck_assert_int_eq(watermark_behind(1000, 200), 799);
	ck_assert_int_eq(watermark_behind(INT64_MAX, 0), INT64_MAX - 1);
	ck_assert_int_eq(watermark_behind(INT64_MIN, 0), INT64_MIN);
	ck_assert_int_eq(watermark_behind(INT64_MIN + 5, 10), INT64_MIN);
	ck_assert_int_eq(watermark_behind(INT64_MIN + 1, 1), INT64_MIN);
}
END_TEST

static Suite *watermarks_suite(void)
{
	Suite *suite = suite_create("watermarks");
	TCase *tests = tcase_create("watermarks");
	tcase_add_test(tests, test_least_of_all_channels);
	tcase_add_test(tests, test_never_goes_back);
	tcase_add_test(tests, test_idle_channels_do_not_hold_back);
	tcase_add_test(tests, test_one_that_comes_back_counts_once_it_has_caught_up);
	tcase_add_test(tests, test_all_idle_is_told_and_reaches_the_largest);
	tcase_add_test(tests, test_absent_channels_do_not_count);
	tcase_add_test(tests, test_the_end_is_the_largest_watermark);
	tcase_add_test(tests, test_behind_the_largest_timestamp);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(watermarks_suite)
