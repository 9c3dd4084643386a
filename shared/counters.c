/*
 * The tables of counters, and histograms.
 *
 * A histogram's buckets are log-linear: 0 to 7 have a bucket each, and from there every power of two is split into four
 * equal parts, so a value is known to within a quarter. Bucket 159 starts at 1.75 * 2^40 (32 minutes in ns) and takes
 * whatever is larger.
 */
#include "shared/counters.h"

#include <stdbool.h>

#include "shared/log.h"

/* Every scope's table has the name, the type, the unit, the sentence, and the offset in its struct. */
#define INFO(scope, field, kind, in, sentence)                                                                         \
	{#field, COUNTER_TYPE_##kind, in, sentence, offsetof(struct scope, field)},

static const struct counter_info sup_infos[] = {
#define SUP_COUNTER(name, type, unit, help) INFO(sup_counters, name, type, unit, help)
#include "shared/counters.def"
};
static const struct counter_info front_infos[] = {
#define FRONT_COUNTER(name, type, unit, help) INFO(front_counters, name, type, unit, help)
#include "shared/counters.def"
};
static const struct counter_info front_slot_infos[] = {
#define FSLOT_COUNTER(name, type, unit, help) INFO(front_slot_counters, name, type, unit, help)
#include "shared/counters.def"
};
static const struct counter_info front_segment_infos[] = {
#define FSEG_COUNTER(name, type, unit, help) INFO(front_segment_counters, name, type, unit, help)
#include "shared/counters.def"
};
static const struct counter_info worker_infos[] = {
#define WORKER_COUNTER(name, type, unit, help) INFO(worker_counters, name, type, unit, help)
#include "shared/counters.def"
};
static const struct counter_info worker_segment_infos[] = {
#define WSEG_COUNTER(name, type, unit, help) INFO(worker_segment_counters, name, type, unit, help)
#include "shared/counters.def"
};
static const struct counter_info worker_step_infos[] = {
#define WSTEP_COUNTER(name, type, unit, help) INFO(worker_step_counters, name, type, unit, help)
#include "shared/counters.def"
};

static const struct {
	const struct counter_info *infos;
	size_t count;
} scopes[] = {
#define SCOPE(infos)                                                                                                   \
	{                                                                                                              \
		infos, sizeof(infos) / sizeof(infos[0])                                                                \
	}
    [COUNTER_SCOPE_SUP] = SCOPE(sup_infos),           [COUNTER_SCOPE_FRONT] = SCOPE(front_infos),
    [COUNTER_SCOPE_FSLOT] = SCOPE(front_slot_infos),  [COUNTER_SCOPE_FSEG] = SCOPE(front_segment_infos),
    [COUNTER_SCOPE_WORKER] = SCOPE(worker_infos),     [COUNTER_SCOPE_WSEG] = SCOPE(worker_segment_infos),
    [COUNTER_SCOPE_WSTEP] = SCOPE(worker_step_infos),
#undef SCOPE
};

_Static_assert(sizeof(scopes) / sizeof(scopes[0]) == COUNTER_SCOPE_COUNT, "a table for every scope");

const struct counter_info *counters_of(enum counter_scope scope, size_t *count)
{
	CHECK(scope < COUNTER_SCOPE_COUNT);
	*count = scopes[scope].count;
	return scopes[scope].infos;
}

/* The bucket that a value belongs to. */
static unsigned bucket_of(uint64_t value)
{
	if (value < 4)
		return (unsigned)value;
	unsigned power = 63 - (unsigned)__builtin_clzll(value);
	unsigned bucket = (power - 1) * 4 + (unsigned)(value >> (power - 2) & 3);
	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
	counter_add(&histogram->count, 1);
	counter_add(&histogram->sum, value);
	counter_add(&histogram->bucket[bucket_of(value)], 1);
}

uint64_t histogram_floor(unsigned bucket)
{
	if (bucket < 4)
		return bucket;
	unsigned power = bucket / 4 + 1;
	return (UINT64_C(4) + bucket % 4) << (power - 2);
}

/* The value that lies `rank` counts into a bucket of `count`. */
static uint64_t value_in_bucket(unsigned bucket, double rank, uint64_t count)
{
	uint64_t floor = histogram_floor(bucket);
	uint64_t width = histogram_floor(bucket + 1) - floor;
	uint64_t into = (uint64_t)(rank / (double)count * (double)width);
	return floor + (into < width ? into : width - 1);
}

uint64_t histogram_quantile(const struct histogram *histogram, double fraction)
{
	/* The buckets may grow while we look: one copy of them is counted, and the shared count is left aside. */
	uint64_t counts[HISTOGRAM_BUCKETS], total = 0;
	for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++)
		total += counts[b] = counter_read(&histogram->bucket[b]);
	if (total == 0)
		return 0;
	double rank = (fraction < 0 ? 0 : fraction > 1 ? 1 : fraction) * (double)total;
	unsigned last = 0;
	for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++) {
		if (counts[b] == 0)
			continue;
		if (rank <= (double)counts[b])
			return value_in_bucket(b, rank, counts[b]);
		rank -= (double)counts[b];
		last = b;
	}
	return value_in_bucket(last, (double)counts[last], counts[last]); /* rounding left a rest */
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	counter_add(&into->count, counter_read(&from->count));
	counter_add(&into->sum, counter_read(&from->sum));
	for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++)
		counter_add(&into->bucket[b], counter_read(&from->bucket[b]));
}
