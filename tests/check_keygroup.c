/*
 * Key hashes and key groups against values that other implementations gave: the hashes from one of XXH3's specification
 * in Python, the groups from Flink's own method in Java.
 */
#include "shared/keygroup.h"

#include <signal.h>

#include "tests/check_main.h"

START_TEST(text_keys_hash_as_specified)
{
	static const struct {
		const char *key;
		int32_t hash;
	} known[] = {
	    {"", 953390274},
	    {"a", 513166879},
	    {"ab", 617968476},
	    {"abc", -1993393840},
	    {"user", 1544597298},
	    {"user-42", -814020147},
	    {"customer", 1753206471},
	    {"customer-17", -1041861732},
	    {"0123456789abcdef", -654696147},
	    {"0123456789abcdef0", -621584332},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		ck_assert_int_eq(key_hash_of(view_of(known[i].key)), known[i].hash);
	ck_assert_int_eq(key_hash_of((struct view){NULL, 0}), known[0].hash);
}
END_TEST

START_TEST(long_keys_hash_as_specified)
{
	static const struct {
		size_t size;
		int32_t hash;
	} known[] = {
	    {33, -610588596},  {65, -1069278012},  {97, -1876265766}, {128, -1488940058},  {129, -1974696775},
	    {240, -325687772}, {241, -1164546710}, {1024, 71058523},  {1025, -1143224313}, {5000, 1731860005},
	};
	uint8_t key[5000];
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		for (size_t b = 0; b < known[i].size; b++)
			key[b] = (uint8_t)(b * 7 + known[i].size);
		ck_assert_int_eq(key_hash_of((struct view){key, known[i].size}), known[i].hash);
	}
}
END_TEST

START_TEST(key_groups_are_flinks)
{
	static const struct {
		int32_t hash;
		uint32_t of_128, of_4096, of_32768, of_7;
	} known[] = {
	    {0, 94, 2526, 31198, 0},          {1, 86, 4054, 16342, 2},
	    {-1, 80, 2896, 15184, 5},         {2, 127, 2943, 15231, 6},
	    {42, 29, 3613, 28189, 3},         {127, 27, 2203, 26779, 1},
	    {128, 41, 3113, 7209, 4},         {1000, 7, 135, 135, 4},
	    {-1000, 78, 3278, 11470, 6},      {65536, 73, 2889, 15177, 6},
	    {123456789, 81, 2385, 22865, 1},  {-123456789, 93, 2781, 6877, 4},
	    {2147483647, 62, 3262, 19646, 0}, {INT32_MIN, 108, 2156, 10348, 3},
	    {2135587861, 71, 2759, 6855, 3},  {-1640531527, 108, 2668, 10860, 5},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		ck_assert_uint_eq(key_group_of(known[i].hash, 128), known[i].of_128);
		ck_assert_uint_eq(key_group_of(known[i].hash, 4096), known[i].of_4096);
		ck_assert_uint_eq(key_group_of(known[i].hash, 32768), known[i].of_32768);
		ck_assert_uint_eq(key_group_of(known[i].hash, 7), known[i].of_7);
		ck_assert_uint_eq(key_group_of(known[i].hash, 1), 0);
	}
}
END_TEST

START_TEST(the_hash_without_an_absolute_value_goes_to_group_0)
{
	/* The one int that the scramble turns into Integer.MIN_VALUE. */
	ck_assert_uint_eq(key_group_of(-2089875627, 7), 0);
	ck_assert_uint_eq(key_group_of(-2089875627, 32767), 0);
}
END_TEST

START_TEST(many_key_groups_are_flinks)
{
	uint64_t sum = 0;
	for (int32_t hash = -100000; hash < 100000; hash++)
		sum = sum * 31 + key_group_of(hash, 32768);
	ck_assert_uint_eq(sum, UINT64_C(15163229198477626552));
}
END_TEST

START_TEST(key_groups_are_spread_over_subtasks_in_runs)
{
	ck_assert_uint_eq(key_group_subtask(0, 3, 128), 0);
	ck_assert_uint_eq(key_group_subtask(42, 3, 128), 0);
	ck_assert_uint_eq(key_group_subtask(43, 3, 128), 1);
	ck_assert_uint_eq(key_group_subtask(85, 3, 128), 1);
	ck_assert_uint_eq(key_group_subtask(86, 3, 128), 2);
	ck_assert_uint_eq(key_group_subtask(127, 3, 128), 2);
	ck_assert_uint_eq(key_group_subtask(32767, 32768, 32768), 32767);
}
END_TEST

START_TEST(no_parallelism_aborts)
{
	key_group_of(1, 0);
}
END_TEST

static Suite *keygroup_suite(void)
{
	Suite *suite = suite_create("keygroup");
	TCase *tests = tcase_create("keygroup");
	tcase_add_test(tests, text_keys_hash_as_specified);
	tcase_add_test(tests, long_keys_hash_as_specified);
	tcase_add_test(tests, key_groups_are_flinks);
	tcase_add_test(tests, the_hash_without_an_absolute_value_goes_to_group_0);
	tcase_add_test(tests, many_key_groups_are_flinks);
	tcase_add_test(tests, key_groups_are_spread_over_subtasks_in_runs);
	tcase_add_test_raise_signal(tests, no_parallelism_aborts, SIGABRT);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(keygroup_suite)
