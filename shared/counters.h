/*
 * Counters in shared memory: each has one writing process, anybody reads. All come out of counters.def.
 *
 * A counter struct is plain words: `struct front_counters { _Atomic uint64_t unary_calls; ... }`. The writer adds with
 * counter_add (a plain load, add and relaxed store: no locked instruction), a reader loads relaxed.
 */
#ifndef SHARED_COUNTERS_H
#define SHARED_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Buckets double every four: bucket b covers values from histogram_floor(b) up to the next floor. */
enum { HISTOGRAM_BUCKETS = 160 };

struct histogram {
	_Atomic uint64_t count;
	_Atomic uint64_t sum;
	_Atomic uint64_t bucket[HISTOGRAM_BUCKETS];
};

enum counter_type { COUNTER_TYPE_COUNTER, COUNTER_TYPE_GAUGE, COUNTER_TYPE_HISTOGRAM };

/* What one line of counters.def says, and where in its scope's struct it lives. */
struct counter_info {
	const char *name;
	enum counter_type type;
	const char *unit;
	const char *help;
	size_t offset; /* bytes into the scope's struct */
};

/* COUNTERS_FIELD_<type> gives the storage of a type. */
#define COUNTERS_FIELD_COUNTER(name) _Atomic uint64_t name;
#define COUNTERS_FIELD_GAUGE(name) _Atomic uint64_t name;
#define COUNTERS_FIELD_HISTOGRAM(name) struct histogram name;

struct sup_counters {
#define SUP_COUNTER(name, type, unit, help) COUNTERS_FIELD_##type(name)
#include "shared/counters.def"
};

struct front_counters {
#define FRONT_COUNTER(name, type, unit, help) COUNTERS_FIELD_##type(name)
#include "shared/counters.def"
};

struct front_slot_counters {
#define FSLOT_COUNTER(name, type, unit, help) COUNTERS_FIELD_##type(name)
#include "shared/counters.def"
};

struct front_segment_counters {
#define FSEG_COUNTER(name, type, unit, help) COUNTERS_FIELD_##type(name)
#include "shared/counters.def"
};

struct worker_counters {
#define WORKER_COUNTER(name, type, unit, help) COUNTERS_FIELD_##type(name)
#include "shared/counters.def"
};

struct worker_segment_counters {
#define WSEG_COUNTER(name, type, unit, help) COUNTERS_FIELD_##type(name)
#include "shared/counters.def"
};

struct worker_step_counters {
#define WSTEP_COUNTER(name, type, unit, help) COUNTERS_FIELD_##type(name)
#include "shared/counters.def"
};

/* The scopes, in the order of counters.def. */
enum counter_scope {
	COUNTER_SCOPE_SUP,
	COUNTER_SCOPE_FRONT,
	COUNTER_SCOPE_FSLOT,
	COUNTER_SCOPE_FSEG,
	COUNTER_SCOPE_WORKER,
	COUNTER_SCOPE_WSEG,
	COUNTER_SCOPE_WSTEP,
	COUNTER_SCOPE_COUNT
};

/* The lines of a scope, in the order of counters.def; *count is set. */
const struct counter_info *counters_of(enum counter_scope scope, size_t *count);

/* Adds to a counter. Its writer only. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

/* Sets a gauge. Its writer only. */
static inline void gauge_set(_Atomic uint64_t *gauge, uint64_t value)
{
	atomic_store_explicit(gauge, value, memory_order_relaxed);
}

/* Reads a counter or gauge. Anybody. */
static inline uint64_t counter_read(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit((_Atomic uint64_t *)counter, memory_order_relaxed);
}

/* Counts one value. Its writer only. */
void histogram_add(struct histogram *histogram, uint64_t value);

/* The lower end of a bucket. */
uint64_t histogram_floor(unsigned bucket);

/* The value below which `fraction` (0 to 1) of the counted values lie, interpolated within its bucket; 0 when none. */
uint64_t histogram_quantile(const struct histogram *histogram, double fraction);

/* Adds another histogram's counts to one that only this process sees. */
void histogram_merge(struct histogram *into, const struct histogram *from);

#endif
