/* When a dead process is started again: the policy over time, with no process and no clock. */
#include <check.h>

#include "server/sup_policy.h"
#include "tests/check_main.h"

enum { DELAY = 100, DELAY_MAX = 10000 };

static struct restart_history history;

/* The wait after a death. */
static uint64_t after(struct restart_death death)
{
	return restart_delay(&history, death, DELAY, DELAY_MAX);
}

static const struct restart_death early = {.lived_ms = 5};
static const struct restart_death late = {.worked = true, .lived_ms = 5};

START_TEST(who_has_worked_is_replaced_at_once_however_often)
{
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_eq(after(late), 0);
}
END_TEST

START_TEST(who_dies_early_waits_twice_as_long_each_time_up_to_a_limit)
{
	static const uint64_t waits[] = {100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000};

	for (size_t i = 0; i < sizeof(waits) / sizeof(*waits); i++)
		ck_assert_uint_eq(after(early), waits[i]);
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_eq(after(early), DELAY_MAX);
}
END_TEST

START_TEST(work_forgives)
{
	after(early);
	after(early);
	ck_assert_uint_eq(after(late), 0);
	ck_assert_uint_eq(after(early), DELAY);
}
END_TEST

START_TEST(our_own_orders_are_nobodys_fault)
{
	after(early);
	ck_assert_uint_eq(after((struct restart_death){.ordered = true}), 0);
	ck_assert_uint_eq(after(early), DELAY);
}
END_TEST

START_TEST(a_long_idle_life_counts_as_a_first_death)
{
	after(early);
	after(early);
	ck_assert_uint_eq(after((struct restart_death){.lived_ms = DELAY_MAX}), DELAY);
	ck_assert_uint_eq(after(early), 2 * DELAY);
}
END_TEST

/* A killer outside is no fault of the process; but neither can it go on for ever without a pause. */
START_TEST(who_is_killed_from_outside_is_replaced_at_once_for_a_while)
{
	static const struct restart_death killed = {.outside = true, .took_over = true, .lived_ms = 5};

	for (int i = 0; i < RESTART_FREE_KILLS + RESTART_FREE_TAKEOVERS; i++)
		ck_assert_uint_eq(after(killed), 0);
	ck_assert_uint_eq(after(killed), DELAY);
	ck_assert_uint_eq(after(late), 0);
	ck_assert_uint_eq(after(killed), 0);
}
END_TEST

/* It takes three deaths to find out which input it is; after ten there is something else wrong. */
START_TEST(owners_that_die_of_what_they_took_over_are_given_up_at_last)
{
	static const struct restart_death owner = {.took_over = true, .lived_ms = 5};
	static const uint64_t waits[] = {0, 0, 0, 100, 200, 400, 800, 1600, 3200};

	for (size_t i = 0; i < sizeof(waits) / sizeof(*waits); i++) {
		ck_assert_uint_eq(after(owner), waits[i]);
		ck_assert(!restart_gives_up(&history));
	}
	after(owner);
	ck_assert(restart_gives_up(&history));
	after(late);
	ck_assert(!restart_gives_up(&history));
	for (int i = 0; i < 100; i++)
		after(early);
	ck_assert(!restart_gives_up(&history)); /* heirs that do not even load harm nobody */
}
END_TEST

START_TEST(bounds_that_are_equal_or_huge_are_kept)
{
	ck_assert_uint_eq(restart_delay(&history, early, 7, 7), 7);
	ck_assert_uint_eq(restart_delay(&history, early, 7, 7), 7);
	history = (struct restart_history){.early_deaths = UINT32_MAX - 1};
	ck_assert_uint_eq(restart_delay(&history, early, UINT64_C(1) << 40, UINT64_C(1) << 41), UINT64_C(1) << 41);
}
END_TEST

static void forget(void)
{
	history = (struct restart_history){0};
}

static Suite *policy_suite(void)
{
	Suite *suite = suite_create("policy");
	TCase *tests = tcase_create("restart");

	tcase_add_checked_fixture(tests, forget, NULL);
	tcase_add_test(tests, who_has_worked_is_replaced_at_once_however_often);
	tcase_add_test(tests, who_dies_early_waits_twice_as_long_each_time_up_to_a_limit);
	tcase_add_test(tests, work_forgives);
	tcase_add_test(tests, our_own_orders_are_nobodys_fault);
	tcase_add_test(tests, a_long_idle_life_counts_as_a_first_death);
	tcase_add_test(tests, who_is_killed_from_outside_is_replaced_at_once_for_a_while);
	tcase_add_test(tests, owners_that_die_of_what_they_took_over_are_given_up_at_last);
	tcase_add_test(tests, bounds_that_are_equal_or_huge_are_kept);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(policy_suite)
