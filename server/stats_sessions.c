/*
 * What the commands of the stats socket show of sessions: who they are, and what they remember (stats_views.h).
 *
 * Front and workers write that at the same time, and may have written badly. So a whole is copied and taken only if it was not changed
 * meanwhile; numbers are shown, never used as an index or a length before they are checked, and texts are copied with a bound.
 */
#include "server/stats_views.h"

#include <string.h>

#include "descriptor/manifest.h"
#include "shared/units.h"

/* ---- sessions ---- */

/* Shows one session, unless it ends while it is looked at. */
static void show_session(const struct supervisor *supervisor, struct report *report, uint32_t slot, uint32_t channel)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;
	struct session_info *shared = &supervisor->sidecar->control.front->session[slot][channel];
	uint32_t epoch = atomic_load_explicit(&shared->epoch, memory_order_acquire);
	struct session_info info;

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
	report_outside(report, "job", info.job);
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
	report_outside(report, "attempt", info.attempt);
	report_outside(report, "allocation", info.allocation);
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

	report_row(report);
	report_number(report, "channel", row->channel, "");
	report_text(report, "segment", segment_name(supervisor, row->segment));
	report_outside(report, "step", row->step);
	report_outside(report, "state", row->name);
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
