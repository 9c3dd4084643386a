/*
 * Counters: the tables say what counters.def says, and histograms find their values again.
 */
#include "shared/counters.h"

#include <string.h>

#include "tests/check_main.h"

/* The line of a counter, or NULL. */
static const struct counter_info *find(enum counter_scope scope, const char *name)
{
	size_t count;
	const struct counter_info *infos = counters_of(scope, &count);
	for (size_t i = 0; i < count; i++) {
		if (strcmp(infos[i].name, name) == 0)
			return &infos[i];
	}
	return NULL;
}

START_TEST(tables_lead_to_the_words)
{
	struct front_counters front = {0};
	counter_add(&front.messages_in, 40);
	counter_add(&front.messages_in, 2);
	const struct counter_info *info = find(COUNTER_SCOPE_FRONT, "messages_in");
	ck_assert_ptr_nonnull(info);
	ck_assert_int_eq(info->type, COUNTER_TYPE_COUNTER);
	ck_assert_str_eq(info->unit, "messages");
	ck_assert_uint_eq(counter_read((_Atomic uint64_t *)((char *)&front + info->offset)), 42);

	struct worker_step_counters step = {0};
	histogram_add(&step.latency, 5);
	info = find(COUNTER_SCOPE_WSTEP, "latency");
	ck_assert_int_eq(info->type, COUNTER_TYPE_HISTOGRAM);
	ck_assert_uint_eq(histogram_quantile((struct histogram *)((char *)&step + info->offset), 0.5), 5);

	gauge_set(&front.sessions_open, 7);
	gauge_set(&front.sessions_open, 6);
	info = find(COUNTER_SCOPE_FRONT, "sessions_open");
	ck_assert_int_eq(info->type, COUNTER_TYPE_GAUGE);
	ck_assert_uint_eq(counter_read((_Atomic uint64_t *)((char *)&front + info->offset)), 6);
}
END_TEST

/* Bytes of each scope's struct: its table covers them without gap. */
static const size_t struct_sizes[COUNTER_SCOPE_COUNT] = {
    [COUNTER_SCOPE_SUP] = sizeof(struct sup_counters),
    [COUNTER_SCOPE_FRONT] = sizeof(struct front_counters),
    [COUNTER_SCOPE_FSLOT] = sizeof(struct front_slot_counters),
    [COUNTER_SCOPE_FSEG] = sizeof(struct front_segment_counters),
    [COUNTER_SCOPE_WORKER] = sizeof(struct worker_counters),
    [COUNTER_SCOPE_WSEG] = sizeof(struct worker_segment_counters),
    [COUNTER_SCOPE_WSTEP] = sizeof(struct worker_step_counters),
};

START_TEST(every_table_covers_its_struct)
{
	size_t count, offset = 0;
	const struct counter_info *infos = counters_of((enum counter_scope)_i, &count);
	for (size_t i = 0; i < count; i++) {
		ck_assert_uint_eq(infos[i].offset, offset);
		offset += infos[i].type == COUNTER_TYPE_HISTOGRAM ? sizeof(struct histogram) : sizeof(uint64_t);
	}
	ck_assert_uint_eq(offset, struct_sizes[_i]);
}
END_TEST

START_TEST(every_counter_says_what_it_is)
{
	size_t count;
	const struct counter_info *infos = counters_of((enum counter_scope)_i, &count);
	ck_assert_uint_gt(count, 0);
	for (size_t i = 0; i < count; i++) {
		size_t length = strlen(infos[i].help);
		ck_assert_uint_gt(strlen(infos[i].unit), 0);
		ck_assert_uint_gt(length, 10);
		ck_assert_int_eq(infos[i].help[length - 1], '.');
		ck_assert_ptr_eq(find((enum counter_scope)_i, infos[i].name), &infos[i]); /* no name twice */
	}
}
END_TEST

/* The bucket that a single value was counted in. */
static unsigned bucket_used(uint64_t value)
{
	static struct histogram histogram;
	memset(&histogram, 0, sizeof(histogram));
	histogram_add(&histogram, value);
	unsigned bucket = 0;
	while (histogram.bucket[bucket] == 0)
		bucket++;
	return bucket;
}

START_TEST(buckets_are_where_their_floors_are)
{
	ck_assert_uint_eq(histogram_floor(0), 0);
	for (unsigned b = 1; b < HISTOGRAM_BUCKETS; b++) {
		ck_assert_uint_gt(histogram_floor(b), histogram_floor(b - 1));
		ck_assert_uint_eq(bucket_used(histogram_floor(b)), b);
		ck_assert_uint_eq(bucket_used(histogram_floor(b) - 1), b - 1);
		if (b >= 8)
			ck_assert_uint_eq(histogram_floor(b), 2 * histogram_floor(b - 4));
	}
	ck_assert_uint_gt(histogram_floor(HISTOGRAM_BUCKETS - 1), UINT64_C(1) << 40);
	ck_assert_uint_eq(bucket_used(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}
END_TEST

START_TEST(an_empty_histogram_has_no_quantiles)
{
	struct histogram histogram = {0};
	ck_assert_uint_eq(histogram_quantile(&histogram, 0.5), 0);
	ck_assert_uint_eq(histogram_quantile(&histogram, 1), 0);
}
END_TEST

START_TEST(small_values_are_exact)
{
	struct histogram histogram = {0};
	for (int i = 0; i < 90; i++)
		histogram_add(&histogram, 3);
	for (int i = 0; i < 10; i++)
		histogram_add(&histogram, 7);
	ck_assert_uint_eq(histogram_quantile(&histogram, 0), 3);
	ck_assert_uint_eq(histogram_quantile(&histogram, 0.5), 3);
	ck_assert_uint_eq(histogram_quantile(&histogram, 0.9), 3);
	ck_assert_uint_eq(histogram_quantile(&histogram, 0.95), 7);
	ck_assert_uint_eq(histogram_quantile(&histogram, 1), 7);
	ck_assert_uint_eq(histogram_quantile(&histogram, -1), 3);
	ck_assert_uint_eq(histogram_quantile(&histogram, 2), 7);
	ck_assert_uint_eq(histogram.count, 100);
	ck_assert_uint_eq(histogram.sum, 340);
}
END_TEST

START_TEST(even_values_are_interpolated)
{
	struct histogram histogram = {0};
	for (uint64_t value = 0; value < 100000; value++)
		histogram_add(&histogram, value);
	static const double fractions[] = {0.01, 0.1, 0.25, 0.5, 0.75, 0.9};
	for (size_t i = 0; i < sizeof(fractions) / sizeof(fractions[0]); i++) {
		double exact = fractions[i] * 100000;
		ck_assert_double_eq_tol((double)histogram_quantile(&histogram, fractions[i]), exact, exact / 1000 + 2);
	}
	/* The last bucket is not full, so the largest values are known to within its width. */
	ck_assert_uint_ge(histogram_quantile(&histogram, 0.999), 98304);
	ck_assert_uint_lt(histogram_quantile(&histogram, 1), 114688);
}
END_TEST

START_TEST(quantiles_never_fall)
{
	struct histogram histogram = {0};
	uint64_t value = 1;
	for (int i = 0; i < 1000; i++) {
		value = value * UINT64_C(6364136223846793005) + 1442695040888963407;
		histogram_add(&histogram, value >> (value % 64));
	}
	uint64_t last = 0;
	for (int i = 0; i <= 1000; i++) {
		uint64_t quantile = histogram_quantile(&histogram, i / 1000.0);
		ck_assert_uint_ge(quantile, last);
		last = quantile;
	}
}
END_TEST

START_TEST(merging_adds_up)
{
	struct histogram into = {0}, from = {0};
	histogram_add(&into, 1);
	histogram_add(&from, 7);
	histogram_add(&from, UINT64_C(1) << 50);
	histogram_merge(&into, &from);
	ck_assert_uint_eq(into.count, 3);
	ck_assert_uint_eq(into.sum, 8 + (UINT64_C(1) << 50));
	ck_assert_uint_eq(into.bucket[1], 1);
	ck_assert_uint_eq(into.bucket[7], 1);
	ck_assert_uint_eq(into.bucket[HISTOGRAM_BUCKETS - 1], 1);
	ck_assert_uint_eq(from.count, 2);
}
END_TEST

static Suite *counters_suite(void)
{
	Suite *suite = suite_create("counters");
	TCase *tests = tcase_create("tables");
	tcase_add_test(tests, tables_lead_to_the_words);
	tcase_add_loop_test(tests, every_table_covers_its_struct, 0, COUNTER_SCOPE_COUNT);
	tcase_add_loop_test(tests, every_counter_says_what_it_is, 0, COUNTER_SCOPE_COUNT);
	suite_add_tcase(suite, tests);
	tests = tcase_create("histograms");
	tcase_add_test(tests, buckets_are_where_their_floors_are);
	tcase_add_test(tests, an_empty_histogram_has_no_quantiles);
	tcase_add_test(tests, small_values_are_exact);
	tcase_add_test(tests, even_values_are_interpolated);
	tcase_add_test(tests, quantiles_never_fall);
	tcase_add_test(tests, merging_adds_up);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(counters_suite)
