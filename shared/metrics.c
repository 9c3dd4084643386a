/* The table of metrics that steps make (metrics.h): looked through from its beginning, as few are made and that once. */
#include "shared/metrics.h"

#include <stdio.h>
#include <string.h>

/* Whether a text can name a metric in any system that takes it. */
static bool is_metric_name(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
	size_t size = strlen(name);

	return size > 0 && size < METRIC_NAME_MAX && strspn(name, letters) == size && (name[0] < '0' || name[0] > '9');
}

struct metric *metric_get(struct metric_table *table, const char *step, const char *name, enum counter_type type)
{
	if (!is_metric_name(name))
		return NULL;
	for (size_t i = 0; i < METRICS_MAX; i++) {
		struct metric *metric = &table->row[i];
		if (atomic_load_explicit(&metric->used, memory_order_relaxed) == 0) {
			metric->type = type;
			snprintf(metric->step, sizeof(metric->step), "%s", step);
			snprintf(metric->name, sizeof(metric->name), "%s", name);
			/* Release: who sees the row sees what it is. */
			atomic_store_explicit(&metric->used, 1, memory_order_release);
			return metric;
		}
		if (strncmp(metric->step, step, METRIC_STEP_MAX - 1) == 0 && strcmp(metric->name, name) == 0)
			return metric->type == type ? metric : NULL;
	}
	return NULL;
}

void metric_update(struct metric *metric, int64_t value)
{
	switch ((enum counter_type)metric->type) {
	case COUNTER_TYPE_COUNTER:
		if (value > 0)
			counter_add(&metric->value, (uint64_t)value);
		return;
	case COUNTER_TYPE_GAUGE:
		gauge_set(&metric->value, (uint64_t)value);
		return;
	case COUNTER_TYPE_HISTOGRAM:
		histogram_add(&metric->histogram, value > 0 ? (uint64_t)value : 0);
		return;
	}
}
