/* When a consumer of several channels passes a barrier on. */
#include "cli/run_align.h"

#include <check.h>
#include <signal.h>
#include <stdlib.h>

#include "tests/check_main.h"

START_TEST(test_one_channel_passes_at_once)
{
	struct aligner aligner;
	aligner_init(&aligner, 1);
	for (uint64_t barrier = 1; barrier < 5; barrier++) {
		ck_assert(aligner_barrier(&aligner, barrier));
		ck_assert_uint_eq(aligner.coming, barrier);
		aligner_pass(&aligner, barrier);
		ck_assert_uint_eq(aligner.passed, barrier);
		ck_assert_uint_eq(aligner.coming, 0);
	}
}
END_TEST

START_TEST(test_the_last_of_several_lets_it_pass)
{
	struct aligner aligner;
	aligner_init(&aligner, 3);
	ck_assert(!aligner_barrier(&aligner, 7));
	ck_assert(!aligner_barrier(&aligner, 7));
	ck_assert_uint_eq(aligner.passed, 0); /* the channels are held: they look at this */
	ck_assert(aligner_barrier(&aligner, 7));
	aligner_pass(&aligner, 7);
	ck_assert(!aligner_barrier(&aligner, 8));
}
END_TEST

START_TEST(test_an_end_counts_as_having_delivered)
{
	struct aligner aligner;
	aligner_init(&aligner, 3);
	ck_assert(!aligner_end(&aligner)); /* nothing is coming */
	ck_assert(!aligner_barrier(&aligner, 1));
	ck_assert(aligner_end(&aligner)); /* the one that was waited for */
	aligner_pass(&aligner, 1);
	ck_assert_uint_eq(aligner.open, 1);
	ck_assert(!aligner_end(&aligner)); /* the last one ends: no barrier will come by any channel */
	ck_assert_uint_eq(aligner.open, 0);
}
END_TEST

START_TEST(test_ends_before_the_barrier)
{
	struct aligner aligner;
	aligner_init(&aligner, 2);
	ck_assert(!aligner_end(&aligner));
	ck_assert(aligner_barrier(&aligner, 3));
}
END_TEST

/* Whatever the order of barriers and ends, it passes exactly when the last open channel has delivered. */
START_TEST(test_any_order)
{
	unsigned seed = (unsigned)_i;
	struct aligner aligner;
	uint32_t channels = 1 + (unsigned)rand_r(&seed) % 8, open = channels, ended = 0;
	aligner_init(&aligner, channels);
	for (uint64_t barrier = 1; open > 0; barrier++) {
		uint32_t delivered = 0;
		bool passes = false;
		while (!passes && delivered < open) {
			if (rand_r(&seed) % 4 == 0) {
				open--;
				ended++;
				passes = aligner_end(&aligner);
			} else {
				delivered++;
				passes = aligner_barrier(&aligner, barrier);
			}
			ck_assert_int_eq(passes, delivered > 0 && delivered == open);
		}
		if (passes)
			aligner_pass(&aligner, barrier);
	}
	ck_assert_uint_eq(ended, channels);
}
END_TEST

START_TEST(test_a_second_barrier_before_the_first_has_passed)
{
	struct aligner aligner;
	aligner_init(&aligner, 2);
	aligner_barrier(&aligner, 1);
	aligner_barrier(&aligner, 2);
}
END_TEST

static Suite *align_suite(void)
{
	Suite *suite = suite_create("align");
	TCase *tests = tcase_create("all");

	tcase_add_test(tests, test_one_channel_passes_at_once);
	tcase_add_test(tests, test_the_last_of_several_lets_it_pass);
	tcase_add_test(tests, test_an_end_counts_as_having_delivered);
	tcase_add_test(tests, test_ends_before_the_barrier);
	tcase_add_loop_test(tests, test_any_order, 0, 200);
	tcase_add_test_raise_signal(tests, test_a_second_barrier_before_the_first_has_passed, SIGABRT);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(align_suite)
