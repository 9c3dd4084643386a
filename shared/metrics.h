/*
 * Metrics that steps make themselves: a table of so many per slot, in the worker's page. The owner of the slot writes it, anybody reads.
 *
 * A row is found by step and name, and stays when the process dies: its successor goes on counting.
 */
#ifndef SHARED_METRICS_H
#define SHARED_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/counters.h"

enum { METRICS_MAX = 64, METRIC_NAME_MAX = 64, METRIC_STEP_MAX = 64 };

struct metric {
	_Atomic uint32_t used;                             /* 1: the words below stand; release, after them */
	uint32_t type;                                     /* enum counter_type */
	char step[METRIC_STEP_MAX], name[METRIC_NAME_MAX]; /* NUL-terminated */
	_Atomic uint64_t value;                            /* of a counter; of a gauge, as int64_t */
	struct histogram histogram;
};

struct metric_table {
	struct metric row[METRICS_MAX];
};

/* Finds a metric, or makes it. NULL when the table is full, the name is no name, or it is one of another type. Its writer only. */
struct metric *metric_get(struct metric_table *table, const char *step, const char *name, enum counter_type type);

/* Counts, sets, or adds a value: as the type has it. Its writer only. */
void metric_update(struct metric *metric, int64_t value);

#endif
