/*
 * What the commands of the stats socket show of counters: all of them, those of segments and steps, and the metrics that steps make
 * themselves (stats_views.h).
 *
 * They are read from shared memory that other processes write at the same time, and may have written badly: numbers are shown, never used
 * as an index or a length before they are checked, and texts are copied with a bound.
 */
#include "server/stats_views.h"

#include <string.h>

/* Names of the scopes of counters.def, as `stats` and `help stats` show them. */
static const char *const scope_names[COUNTER_SCOPE_COUNT] = {
    "supervisor",
    "front",
    "slots.N.front",
    "segments.NAME.front",
    "slots.N.worker",
    "segments.NAME.worker",
    "segments.NAME.steps.NAME",
};

void stats_list_counters(struct report *report)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};

	report_table(report, "counters");
	for (unsigned scope = 0; scope < COUNTER_SCOPE_COUNT; scope++) {
		size_t count;
		const struct counter_info *info = counters_of((enum counter_scope)scope, &count);
		for (size_t i = 0; i < count; i++) {
			report_row(report);
			report_text(report, "where", scope_names[scope]);
			report_text(report, "name", info[i].name);
			report_text(report, "type", types[info[i].type]);
			report_text(report, "unit", info[i].unit);
			report_text(report, "meaning", info[i].help);
			report_row_end(report);
		}
	}
	report_table_end(report);
}

/* ---- stats ---- */

/* Shows all counters of one scope. */
static void show_scope(struct report *report, enum counter_scope scope, const void *counters)
{
	size_t count;
	const struct counter_info *info = counters_of(scope, &count);

	for (size_t i = 0; i < count; i++) {
		const void *at = (const char *)counters + info[i].offset;
		if (info[i].type == COUNTER_TYPE_HISTOGRAM)
			report_histogram(report, info[i].name, at, info[i].unit);
		else
			report_number(report, info[i].name, counter_read(at), info[i].unit);
	}
}

/* The same, as a branch. */
static void show_branch(struct report *report, const char *key, enum counter_scope scope, const void *counters)
{
	report_open(report, key, NULL);
	show_scope(report, scope, counters);
	report_close(report);
}

/* Adds the counters of one scope to a sum that only this process sees. */
static void add_scope(enum counter_scope scope, void *sum, const void *counters)
{
	size_t count;
	const struct counter_info *info = counters_of(scope, &count);

	for (size_t i = 0; i < count; i++) {
		void *into = (char *)sum + info[i].offset;
		const void *from = (const char *)counters + info[i].offset;
		if (info[i].type == COUNTER_TYPE_HISTOGRAM)
			histogram_merge(into, from);
		else
			counter_add(into, counter_read(from));
	}
}

/* A segment's counters over all slots. */
static void sum_segment(const struct supervisor *supervisor, uint32_t segment, struct worker_segment_counters *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (uint32_t slot = 0; slot < supervisor->sidecar->config.slots; slot++)
		add_scope(COUNTER_SCOPE_WSEG, sum,
			  control_worker_segment(&supervisor->sidecar->control, slot, segment));
}

/* A step's counters over all slots. */
static void sum_step(const struct supervisor *supervisor, uint32_t step, struct worker_step_counters *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (uint32_t slot = 0; slot < supervisor->sidecar->config.slots; slot++)
		add_scope(COUNTER_SCOPE_WSTEP, sum, control_worker_step(&supervisor->sidecar->control, slot, step));
}

/* The counters of one slot: the front's and the worker's. */
static void show_slot(const struct supervisor *supervisor, struct report *report, uint32_t slot)
{
	const struct control_memory *memory = &supervisor->sidecar->control;
	char label[16];

	snprintf(label, sizeof(label), "%u", slot);
	report_open(report, NULL, label);
	if (report->as_json)
		report_number(report, "slot", slot, "");
	show_branch(report, "front", COUNTER_SCOPE_FSLOT, &memory->front->slot[slot].counters);
	show_branch(report, "worker", COUNTER_SCOPE_WORKER, &control_worker(memory, slot)->counters);
	report_close(report);
}

/* The counters of one segment and its steps. */
static void show_segment(const struct supervisor *supervisor, struct report *report, const struct segment *segment)
{
	static struct worker_segment_counters of_segment; /* large, and there is one thread */
	static struct worker_step_counters of_step;

	report_open(report, NULL, segment->name);
	if (report->as_json) {
		report_number(report, "id", segment->id, "");
		report_text(report, "name", segment->name);
	}
	show_branch(report, "front", COUNTER_SCOPE_FSEG, &supervisor->sidecar->control.front->segment[segment->id]);
	sum_segment(supervisor, segment->id, &of_segment);
	show_branch(report, "worker", COUNTER_SCOPE_WSEG, &of_segment);
	report_open_list(report, "steps");
	for (size_t i = 0; i < segment->step_count; i++) {
		report_open(report, NULL, segment->steps[i].name);
		if (report->as_json) {
			report_text(report, "name", segment->steps[i].name);
			report_text(report, "kind", step_kind_name(segment->steps[i].kind));
		}
		sum_step(supervisor, segment->steps[i].index, &of_step);
		show_scope(report, COUNTER_SCOPE_WSTEP, &of_step);
		report_close(report);
	}
	report_close_list(report);
	report_close(report);
}

void stats_view_stats(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct sidecar *sidecar = supervisor->sidecar;

	(void)argument;
	show_branch(report, "supervisor", COUNTER_SCOPE_SUP, &sidecar->control.control->counters);
	show_branch(report, "front", COUNTER_SCOPE_FRONT, &sidecar->control.front->counters);
	report_open_list(report, "slots");
	for (uint32_t slot = 0; slot < sidecar->config.slots; slot++)
		show_slot(supervisor, report, slot);
	report_close_list(report);
	report_open_list(report, "segments");
	for (size_t i = 0; i < sidecar->descriptor->segment_count; i++)
		show_segment(supervisor, report, &sidecar->descriptor->segments[i]);
	report_close_list(report);
}

/* ---- segments ---- */

/* Median and 99th percentile, under two names. */
static void show_latency(struct report *report, const char *p50, const char *p99, const struct histogram *histogram)
{
	report_ns(report, p50, histogram_quantile(histogram, 0.5));
	report_ns(report, p99, histogram_quantile(histogram, 0.99));
}

/* One row for each segment. */
static void show_segments(const struct supervisor *supervisor, struct report *report)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	static struct worker_segment_counters sum;

	report_table(report, "segments");
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		const struct segment *segment = &descriptor->segments[i];
		const struct front_segment_counters *front = &supervisor->sidecar->control.front->segment[i];
		sum_segment(supervisor, (uint32_t)i, &sum);
		report_row(report);
		report_number(report, "id", segment->id, "");
		report_text(report, "segment", segment->name);
		report_number(report, "parallelism", segment->parallelism, "");
		report_number(report, "calls", counter_read(&front->calls), "");
		report_number(report, "errors", counter_read(&front->errors), "");
		report_number(report, "records_in", counter_read(&sum.records_in), "");
		report_number(report, "records_out", counter_read(&sum.records_out), "");
		report_bytes(report, "bytes_in", counter_read(&sum.bytes_in));
		report_bytes(report, "bytes_out", counter_read(&sum.bytes_out));
		show_latency(report, "latency_p50_ns", "latency_p99_ns", &front->latency);
		show_latency(report, "worker_p50_ns", "worker_p99_ns", &sum.latency);
		report_row_end(report);
	}
	report_table_end(report);
}

/* One row for each step. */
static void show_steps(const struct supervisor *supervisor, struct report *report, const struct segment *segment)
{
	static struct worker_step_counters sum;

	for (size_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *step = &segment->steps[i];
		sum_step(supervisor, step->index, &sum);
		report_row(report);
		report_text(report, "segment", segment->name);
		report_text(report, "step", step->name);
		report_text(report, "kind", step_kind_name(step->kind));
		report_number(report, "records_in", counter_read(&sum.records_in), "");
		report_number(report, "records_out", counter_read(&sum.records_out), "");
		report_number(report, "errors", counter_read(&sum.errors), "");
		show_latency(report, "run_p50_ns", "run_p99_ns", &sum.latency);
		report_row_end(report);
	}
}

void stats_view_segments(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;

	(void)argument;
	show_segments(supervisor, report);
	report_table(report, "steps");
	for (size_t i = 0; i < descriptor->segment_count; i++)
		show_steps(supervisor, report, &descriptor->segments[i]);
	report_table_end(report);
}

/* ---- metrics ---- */

/* The names of types, in the order of enum counter_type. */
static const char *const metric_types[] = {
    [COUNTER_TYPE_COUNTER] = "counter", [COUNTER_TYPE_GAUGE] = "gauge", [COUNTER_TYPE_HISTOGRAM] = "histogram"};

/* One metric of a slot. Of a histogram the value is how much was counted, and the rest says how large that was. */
static void show_metric(struct report *report, uint32_t slot, const struct metric *metric)
{
	uint32_t type = metric->type < sizeof(metric_types) / sizeof(*metric_types) ? metric->type : 0;
	bool spread = type == COUNTER_TYPE_HISTOGRAM;

	report_row(report);
	report_number(report, "slot", slot, "");
	report_outside(report, "step", metric->step);
	report_outside(report, "metric", metric->name);
	report_text(report, "type", metric_types[type]);
	report_signed(report, "value", (int64_t)counter_read(spread ? &metric->histogram.count : &metric->value));
	if (spread) {
		report_number(report, "p50", histogram_quantile(&metric->histogram, 0.5), "");
		report_number(report, "p99", histogram_quantile(&metric->histogram, 0.99), "");
		report_number(report, "max", histogram_quantile(&metric->histogram, 1.0), "");
	} else {
		report_none(report, "p50");
		report_none(report, "p99");
		report_none(report, "max");
	}
	report_row_end(report);
}

void stats_view_metrics(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)argument;
	report_table(report, "metrics");
	for (uint32_t slot = 0; slot < supervisor->sidecar->config.slots; slot++) {
		const struct metric_table *table = &control_worker(&supervisor->sidecar->control, slot)->metrics;
		/* Acquire: pairs with the worker's release store, behind which the names stand. */
		for (size_t i = 0; i < METRICS_MAX; i++)
			if (atomic_load_explicit(&table->row[i].used, memory_order_acquire) == 1)
				show_metric(report, slot, &table->row[i]);
	}
	report_table_end(report);
}
