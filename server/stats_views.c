/*
 * What each command of the stats socket shows (stats_views.h).
 *
 * Everything is read from shared memory that other processes write at the same time, and may have written badly: numbers
 * are shown, never used as an index or a length before they are checked, and texts are copied with a bound.
 */
#include "server/stats_views.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "descriptor/manifest.h"
#include "server/stats_health.h"
#include "shared/units.h"

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

/* ---- help, version, config ---- */

/* Lists all counters. */
static void list_counters(struct report *report)
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

/* One row of the list of commands. */
static void show_command(struct report *report, const char *name, const char *argument, const char *help)
{
	char text[64];

	snprintf(text, sizeof(text), "%s%s%s", name, argument[0] == '\0' ? "" : " ", argument);
	report_row(report);
	report_text(report, "command", text);
	report_text(report, "answer", help);
	report_row_end(report);
}

void stats_view_help(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)supervisor;
	if (strcmp(argument, "stats") == 0) {
		list_counters(report);
		return;
	}
	if (argument[0] != '\0') {
		stats_error(report, "\"help\" takes no word but stats and json");
		return;
	}
	report_table(report, "commands");
#define STATS_COMMAND(name, argument, help) show_command(report, #name, argument, help);
#define STATS_ACTION(name, argument, help) show_command(report, #name, argument, help);
#include "server/stats_commands.def"
	report_table_end(report);
	report_line(report, "With the word json a command answers with one line of JSON: \"slots json\".");
}

/* How long the sidecar has been running. */
static uint64_t uptime_ns(const struct supervisor *supervisor)
{
	return clock_ns() - supervisor->started_ns;
}

void stats_view_version(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;

	(void)argument;
	report_text(report, "version", BRIDGE_VERSION);
	report_text(report, "pipeline", descriptor->pipeline);
	report_text(report, "topology_hash", descriptor->topology_hash);
	report_text(report, "descriptor", supervisor->sidecar->config.descriptor);
	report_number(report, "segments", descriptor->segment_count, "");
	report_number(report, "slots", supervisor->sidecar->config.slots, "");
	report_number(report, "supervisor_pid", (uint64_t)getpid(), "");
	report_number(report, "started_at_ms", supervisor->started_wall_ms, "ms since 1970");
	report_ns(report, "uptime_ns", uptime_ns(supervisor));
}

/* Writes one line of the configuration with a printer of config.h, as a cell. */
static void config_cell(struct report *report, const char *key, const struct supervisor *supervisor,
			const struct flag *flag,
			void (*print)(const struct config *config, const struct flag *flag, FILE *out))
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (out == NULL)
		fatal("no memory for a report");
	print(&supervisor->sidecar->config, flag, out);
	fclose(out);
	report_text(report, key, text);
	free(text);
}

void stats_view_config(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)argument;
	report_table(report, "flags");
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		if (config_flags[i].type == FLAG_TYPE_ACTION)
			continue;
		report_row(report);
		report_text(report, "flag", config_flags[i].name);
		config_cell(report, "value", supervisor, &config_flags[i], config_print_value);
		config_cell(report, "from", supervisor, &config_flags[i], config_print_origin);
		report_row_end(report);
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

/* ---- slots ---- */

/* What a worker is at: "idle", or segment and step by name. */
static void show_work(const struct supervisor *supervisor, struct report *report, const struct child *child)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	const struct life *life = child == NULL ? NULL : child_life(supervisor, child);
	uint64_t busy_ns = life == NULL ? 0 : health_busy_ns(supervisor, child);
	uint32_t segment = busy_ns == 0 ? 0 : atomic_load_explicit(&life->progress.segment, memory_order_relaxed);
	uint32_t step = busy_ns == 0 ? 0 : atomic_load_explicit(&life->progress.step, memory_order_relaxed);
	bool busy = busy_ns > 0 && segment < descriptor->segment_count;

	report_text(report, "segment", busy ? descriptor->segments[segment].name : NULL);
	report_text(report, "step",
		    busy && step < descriptor->segments[segment].step_count
			? descriptor->segments[segment].steps[step].name
			: NULL);
	report_ns(report, "busy_ns", busy_ns);
}

/* What a slot's state takes now. */
static uint64_t state_memory_bytes(const struct slot_memory *memory)
{
	struct stat status;

	return fstat(memory->arena_fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

void stats_view_slots(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct control_memory *memory = &supervisor->sidecar->control;

	(void)argument;
	report_table(report, "slots");
	for (uint32_t i = 0; i < supervisor->keeper_count; i++) {
		const struct keeper *keeper = &supervisor->keepers[i];
		const struct child *owner = keeper->owner;
		const struct front_slot_counters *front = &memory->front->slot[keeper->slot].counters;
		const struct worker_page *page = control_worker(memory, keeper->slot);
		report_row(report);
		report_number(report, "slot", keeper->slot, "");
		report_text(report, "state", health_slot_state(supervisor, keeper));
		report_number(report, "pid", owner == NULL ? 0 : (uint64_t)owner->pid, "");
		report_number(report, "process", owner == NULL ? 0 : owner->number, "");
		report_number(report, "heirs", keeper_heirs(supervisor, keeper), "");
		report_number(report, "heir_pid", keeper_heir_pid(supervisor, keeper), "");
		report_number(report, "generation", keeper->generation, "");
		report_number(report, "sessions", counter_read(&front->sessions_open), "");
		report_number(report, "calls", counter_read(&front->unary_in_flight), "");
		report_number(report, "frames", counter_read(&page->counters.frames), "");
		show_work(supervisor, report, owner);
		report_bytes(report, "request_fill_bytes", counter_read(&front->request_fill));
		report_bytes(report, "ring_memory_bytes", counter_read(&front->memory));
		report_bytes(report, "state_memory_bytes", state_memory_bytes(&supervisor->sidecar->slots[i]));
		report_bytes(report, "private_bytes", owner == NULL ? 0 : health_private_bytes(owner));
		report_number(report, "restarts", keeper->restarts, "");
		report_text(report, "last_death", keeper->last_death[0] == '\0' ? NULL : keeper->last_death);
		report_row_end(report);
	}
	report_table_end(report);
}

/* ---- lives ---- */

/* One process of a slot. */
static void show_life(const struct supervisor *supervisor, struct report *report, const struct child *child)
{
	static const char *const states[] = {"none", "loading", "waiting", "owner", "ready"};
	const struct life *life = child_life(supervisor, child);

	if (life == NULL)
		return;
	report_row(report);
	report_number(report, "slot", child->slot, "");
	report_number(report, "process", child->number, "");
	report_number(report, "pid", (uint64_t)child->pid, "");
	report_text(report, "state", states[child_life_state(supervisor, child)]);
	report_number(report, "code", atomic_load_explicit(&life->code, memory_order_relaxed), "");
	report_number(report, "frames_done", counter_read(&life->frames_done), "");
	report_number(report, "took_over_at_ns", counter_read(&life->took_over_ns), "");
	report_number(report, "ready_at_ns", counter_read(&life->ready_ns), "");
	report_number(report, "first_commit_at_ns", counter_read(&life->first_commit_ns), "");
	report_row_end(report);
}

void stats_view_lives(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)argument;
	report_table(report, "lives");
	for (uint32_t i = 0; i < supervisor->keeper_count * LIVES_MAX; i++) {
		const struct child *child = &supervisor->children[1 + i];

		if (child->state != CHILD_DOWN)
			show_life(supervisor, report, child);
	}
	report_table_end(report);
}

/* ---- sessions ---- */

/* Copies a text that another process wrote, with a bound and an end. */
static const char *bounded(char to[65], const char from[64])
{
	memcpy(to, from, 64);
	to[64] = '\0';
	return to;
}

/* Shows one session, unless it ends while it is looked at. */
static void show_session(const struct supervisor *supervisor, struct report *report, uint32_t slot, uint32_t channel)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	struct session_info *shared = &supervisor->sidecar->control.front->session[slot][channel];
	uint32_t epoch = atomic_load_explicit(&shared->epoch, memory_order_acquire);
	struct session_info info;
	char text[65];

	if (epoch == 0)
		return;
	memcpy(&info, shared, sizeof(info));
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&shared->epoch, memory_order_relaxed) != epoch)
		return;
	uint64_t now = (uint64_t)clock_wall_ms();
	report_row(report);
	report_number(report, "slot", slot, "");
	report_number(report, "channel", channel, "");
	report_number(report, "epoch", epoch, "");
	report_text(report, "job", bounded(text, info.job));
	report_text(report, "segment",
		    info.segment < descriptor->segment_count ? descriptor->segments[info.segment].name : "?");
	report_number(report, "subtask", info.subtask, "");
	report_number(report, "parallelism", info.parallelism, "");
	report_ns(report, "age_ns", now > info.opened_ms ? (now - info.opened_ms) * 1000000 : 0);
	report_number(report, "messages_in", counter_read(&info.messages_in), "");
	report_number(report, "messages_out", counter_read(&info.messages_out), "");
	report_bytes(report, "bytes_in", counter_read(&info.bytes_in));
	report_bytes(report, "bytes_out", counter_read(&info.bytes_out));
	report_bytes(report, "request_fill_bytes", counter_read(&info.request_fill));
	report_bytes(report, "response_fill_bytes", counter_read(&info.response_fill));
	report_text(report, "attempt", bounded(text, info.attempt));
	report_text(report, "allocation", bounded(text, info.allocation));
	report_row_end(report);
}

void stats_view_sessions(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct config *config = &supervisor->sidecar->config;

	(void)argument;
	report_table(report, "sessions");
	for (uint32_t slot = 0; slot < config->slots; slot++) {
		for (uint32_t channel = 1; channel <= config->sessions_per_slot; channel++)
			show_session(supervisor, report, slot, channel);
	}
	report_table_end(report);
}

/* ---- state ---- */

/* Copies what a slot's owner says of its state; false: it is being written, or nobody has written it yet. */
static bool read_state(const struct supervisor *supervisor, uint32_t slot, struct state_page *to)
{
	const struct state_page *from = &control_worker(&supervisor->sidecar->control, slot)->state;

	for (int i = 0; i < 1000; i++) { /* an owner takes microseconds; one that died over it is followed by another */
		uint64_t version = atomic_load_explicit(&from->version, memory_order_acquire);

		if (version == 0 || (version & 1) != 0)
			continue;
		memcpy(to, from, sizeof(*to));
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&from->version, memory_order_relaxed) == version)
			return true;
	}
	return false;
}

/* The name of a segment that a worker wrote. */
static const char *segment_name(const struct supervisor *supervisor, uint32_t segment)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;

	if (segment == UINT32_MAX)
		return "(unary calls)";
	return segment < descriptor->segment_count ? descriptor->segments[segment].name : "?";
}

/* What the state memory of a slot has come to. */
static void show_state_memory(struct report *report, uint32_t slot, const struct state_page *page)
{
	uint64_t waste = page->extents > page->blocks ? page->extents - page->blocks : 0;

	report_number(report, "slot", slot, "");
	report_bytes(report, "limit_bytes", page->limit);
	report_bytes(report, "used_bytes", page->extents);
	report_bytes(report, "blocks_bytes", page->blocks);
	report_bytes(report, "freed_bytes", page->freed);
	report_number(report, "fragmentation_percent",
		      page->extents == 0 ? 0 : (uint64_t)((double)waste * 100 / (double)page->extents), "%");
	report_bytes(report, "log_most_bytes", page->log_most);
	report_bytes(report, "log_bytes", page->log_size);
	report_number(report, "states_left_out", page->rows_left_out, "states");
}

/* One session's state. */
static void show_state_session(const struct supervisor *supervisor, struct report *report, uint32_t slot,
			       uint32_t channel, const struct state_session *session)
{
	const struct session_info *info = &supervisor->sidecar->control.front->session[slot][channel];
	bool live = atomic_load_explicit(&info->epoch, memory_order_acquire) == session->epoch;

	report_row(report);
	report_number(report, "channel", channel, "");
	report_text(report, "segment", segment_name(supervisor, session->segment));
	if (live)
		report_number(report, "subtask", info->subtask, "");
	else
		report_none(report, "subtask");
	report_bytes(report, "state_bytes", session->bytes);
	report_number(report, "dirty_entries", session->dirty_entries, "");
	report_bytes(report, "dirty_bytes", session->dirty_bytes);
	report_bytes(report, "used_bytes", session->extents);
	report_bytes(report, "blocks_bytes", session->blocks);
	report_row_end(report);
}

/* One state. */
static void show_state_row(const struct supervisor *supervisor, struct report *report, const struct state_row *row)
{
	char text[65];

	report_row(report);
	report_number(report, "channel", row->channel, "");
	report_text(report, "segment", segment_name(supervisor, row->segment));
	report_text(report, "step", bounded(text, row->step));
	report_text(report, "state", bounded(text, row->name));
	report_text(report, "kind", row->kind < STATE_KIND_COUNT ? state_kind_name((enum state_kind)row->kind) : "?");
	report_number(report, "entries", row->entries, "");
	report_number(report, "timers", row->timers, "");
	report_bytes(report, "key_bytes", row->key_bytes);
	report_bytes(report, "value_bytes", row->value_bytes);
	report_bytes(report, "largest_key_bytes", row->largest_key);
	report_bytes(report, "largest_value_bytes", row->largest_value);
	report_row_end(report);
}

void stats_view_state(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	static struct state_page page; /* large, and there is one thread */
	uint64_t slot;

	if (!number_parse(argument, &slot) || slot >= supervisor->keeper_count) {
		stats_error(report, "\"%s\" is no slot: there are %u, counted from 0", argument,
			    supervisor->keeper_count);
		return;
	}
	if (!read_state(supervisor, (uint32_t)slot, &page)) {
		stats_error(report, "nobody has said yet what slot %u remembers: ask again", (unsigned)slot);
		return;
	}
	show_state_memory(report, (uint32_t)slot, &page);
	report_table(report, "sessions");
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		if (page.session[i].epoch != 0)
			show_state_session(supervisor, report, (uint32_t)slot, i, &page.session[i]);
	report_table_end(report);
	report_table(report, "states");
	for (uint32_t i = 0; i < page.row_count && i < STATE_ROWS_MAX; i++)
		show_state_row(supervisor, report, &page.row[i]);
	report_table_end(report);
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
	char text[65];

	report_row(report);
	report_number(report, "slot", slot, "");
	report_text(report, "step", bounded(text, metric->step));
	report_text(report, "metric", bounded(text, metric->name));
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

/* ---- deaths ---- */

/* Writes a time as people and programs read it, in UTC. */
static const char *time_text(uint64_t ms, char text[32])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm utc;

	gmtime_r(&seconds, &utc);
	size_t length = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text + length, 32 - length, ".%03uZ", (unsigned)(ms % 1000));
	return text;
}

/* What the dead was at, by name. */
static void show_last_work(const struct supervisor *supervisor, struct report *report, const struct death *death)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	const struct segment *segment =
	    death->busy && death->segment < descriptor->segment_count ? &descriptor->segments[death->segment] : NULL;

	report_text(report, "segment", segment == NULL ? NULL : segment->name);
	report_text(report, "step",
		    segment != NULL && death->step < segment->step_count ? segment->steps[death->step].name : NULL);
	report_number(report, "seq", death->busy ? death->seq : 0, "");
	report_number(report, "record", death->busy ? death->record : 0, "");
	report_text(report, "key", death->shown ? death->key : NULL);
	report_text(report, "input", death->shown ? death->input : NULL);
}

/* One row for each death, the last one first. */
static void show_death(const struct supervisor *supervisor, struct report *report, const struct death *death)
{
	char when[32];

	report_row(report);
	report_text(report, "when", time_text(death->when_ms, when));
	report_text(report, "process", death->role == ROLE_FRONT ? "front" : death->owner ? "worker" : "heir");
	report_number(report, "slot", death->slot, "");
	report_number(report, "pid", (uint64_t)death->pid, "");
	report_number(report, "number", death->number, "");
	report_text(report, "cause", death_cause_name(death->cause));
	report_text(report, "end", death->how);
	show_last_work(supervisor, report, death);
	report_text(report, "then", death->then[0] == '\0' ? NULL : death->then);
	report_row_end(report);
}

void stats_view_deaths(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	uint64_t count = supervisor->death_count < DEATHS_KEPT ? supervisor->death_count : DEATHS_KEPT;

	(void)argument;
	report_table(report, "deaths");
	for (uint64_t i = 1; i <= count; i++)
		show_death(supervisor, report, &supervisor->deaths[(supervisor->death_count - i) % DEATHS_KEPT]);
	report_table_end(report);
}

/* ---- reloading ---- */

void stats_view_reloading(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct reload *reload = &supervisor->reload;

	(void)argument;
	report_text(report, "state", reload_state_name(reload->state));
	report_number(report, "code", supervisor->code, "");
	report_number(report, "slots_done", reload->slots_done, "");
	report_text(report, "descriptor", reload->path[0] == '\0' ? NULL : reload->path);
	report_text(report, "message", reload->message[0] == '\0' ? NULL : reload->message);
}

/* ---- health ---- */

/* One row for each process. */
static void show_process(const struct supervisor *supervisor, struct report *report, const struct child *child)
{
	char name[16];
	bool front = child->role == ROLE_FRONT;
	const struct keeper *keeper = front ? NULL : &supervisor->keepers[child->slot];
	const char *last_death = front ? child->last_death : child->announced ? keeper->last_death : "";

	report_row(report);
	report_text(report, "process", child_name(child, name));
	report_text(report, "state", health_state(supervisor, child));
	report_number(report, "pid", (uint64_t)child->pid, "");
	report_number(report, "number", child->number, "");
	report_ns(report, "age_ns", child->state == CHILD_DOWN ? 0 : clock_ns() - child->born_ns);
	report_ns(report, "heartbeat_age_ns", front ? health_front_silent_ns(supervisor) : 0);
	report_ns(report, "busy_ns", health_busy_ns(supervisor, child));
	report_bytes(report, "private_bytes", health_private_bytes(child));
	report_number(report, "restarts", front ? child->restarts : keeper->restarts, "");
	report_text(report, "last_death", last_death[0] == '\0' ? NULL : last_death);
	report_row_end(report);
}

void stats_view_health(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	struct health health;

	(void)argument;
	health_judge(supervisor, &health);
	report_text(report, "status", health.status);
	report_bool(report, "healthy", strcmp(health.status, "SERVING") == 0);
	report_ns(report, "uptime_ns", uptime_ns(supervisor));
	if (report->as_json)
		report_open_list(report, "reasons");
	for (size_t i = 0; i < health.reason_count; i++)
		report_text(report, report->as_json ? NULL : "reason", health.reasons[i]);
	if (report->as_json)
		report_close_list(report);
	report_table(report, "processes");
	for (uint32_t i = 0; i < supervisor->child_count; i++) {
		if (supervisor->children[i].state != CHILD_DOWN || i == 0)
			show_process(supervisor, report, &supervisor->children[i]);
	}
	report_table_end(report);
}
