/* What benches share: the clock that they go by, and the payloads that steps are measured with. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "shared/view.h"

/* Time in ns that this process was given: others on the machine are no business of ours. */
static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* For qsort: doubles, the smallest first. */
static inline int ascending(const void *a, const void *b)
{
	const double *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

/* The middle one of at least one value; sorts them. */
static inline double median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), ascending);
	return values[count / 2];
}

enum { EVENT_MAX = 128 };

/* Writes the i-th event of a shop into `payload`: about 120 bytes of JSON, of one in 50 users. */
static inline struct view make_event(char payload[EVENT_MAX], int i)
{
	int size = snprintf(payload, EVENT_MAX,
			    "{\"id\":%d,\"user\":\"user-%03d\",\"kind\":\"click\",\"value\":%d,\"price\":%d.%02d,"
			    "\"tags\":[\"a\",\"b\"],\"ok\":true,\"at\":17321568%05d}",
			    100000 + i, i % 50, i, i % 90, i % 100, i);

	return (struct view){(const uint8_t *)payload, (size_t)size};
}

#endif
