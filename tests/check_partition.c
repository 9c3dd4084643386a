/* Which subtask a record goes to, and which key groups a subtask has. */
#include "cli/run_partition.h"

#include <check.h>
#include <stdio.h>

#include "shared/keygroup.h"
#include "tests/check_main.h"

START_TEST(test_forward_keeps_the_subtask)
{
	struct wire_record record = {0};
	for (uint32_t producer = 0; producer < 4; producer++) {
		struct partitioner partitioner;
		partitioner_init(&partitioner, PARTITION_FORWARD, producer, 4, 128);
		for (int i = 0; i < 3; i++, partitioner_done(&partitioner))
			ck_assert_uint_eq(partitioner_choose(&partitioner, &record), producer);
		for (uint32_t s = 0; s < 4; s++)
			ck_assert_int_eq(partitioner_reaches(&partitioner, s), s == producer);
	}
}
END_TEST

START_TEST(test_rebalance_deals_in_turn)
{
	struct partitioner partitioner;
	struct wire_record record = {0};
	partitioner_init(&partitioner, PARTITION_REBALANCE, 1, 3, 128);
	const uint32_t expected[] = {1, 2, 0, 1, 2, 0, 1};
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		ck_assert_uint_eq(partitioner_choose(&partitioner, &record), expected[i]);
		ck_assert_uint_eq(partitioner_choose(&partitioner, &record), expected[i]); /* until it is delivered */
		partitioner_done(&partitioner);
	}
	ck_assert(partitioner_reaches(&partitioner, 0) && partitioner_reaches(&partitioner, 2));
}
END_TEST

START_TEST(test_hash_goes_to_the_owner_of_the_key_group)
{
	for (uint32_t parallelism = 1; parallelism <= 7; parallelism++) {
		struct partitioner partitioner;
		partitioner_init(&partitioner, PARTITION_HASH, 0, parallelism, 128);
		for (int i = 0; i < 500; i++) {
			char key[16];
			snprintf(key, sizeof(key), "key-%d", i);
			struct wire_record record = {.keyed = true, .key = view_of(key)};
			record.key_hash = key_hash_of(record.key);
			uint32_t subtask = partitioner_choose(&partitioner, &record), first, last;
			ck_assert_uint_lt(subtask, parallelism);
			key_group_range(subtask, parallelism, 128, &first, &last);
			ck_assert(record.key_group >= first && record.key_group <= last);
			partitioner_done(&partitioner);
			ck_assert_uint_eq(partitioner_choose(&partitioner, &record), subtask);
		}
	}
}
END_TEST

START_TEST(test_ranges_cover_all_key_groups_once)
{
	for (uint32_t most = 1; most <= 40; most++) {
		for (uint32_t parallelism = 1; parallelism <= most; parallelism++) {
			uint32_t next = 0, first, last;
			for (uint32_t s = 0; s < parallelism; s++) {
				key_group_range(s, parallelism, most, &first, &last);
				ck_assert_uint_eq(first, next);
				ck_assert_uint_ge(last, first);
				for (uint32_t group = first; group <= last; group++)
					ck_assert_uint_eq(key_group_subtask(group, parallelism, most), s);
				next = last + 1;
			}
			ck_assert_uint_eq(next, most);
		}
	}
}
END_TEST

static Suite *partition_suite(void)
{
	Suite *suite = suite_create("partition");
	TCase *tests = tcase_create("partition");
	tcase_add_test(tests, test_forward_keeps_the_subtask);
	tcase_add_test(tests, test_rebalance_deals_in_turn);
	tcase_add_test(tests, test_hash_goes_to_the_owner_of_the_key_group);
	tcase_add_test(tests, test_ranges_cover_all_key_groups_once);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(partition_suite)
