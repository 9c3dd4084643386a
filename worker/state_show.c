/* Figures of state (state_show.h). */
#include "worker/state_show.h"

#include <stdio.h>

void state_show_begin(struct state_page *page)
{
	uint64_t version = atomic_load_explicit(&page->version, memory_order_relaxed);

	/* Odd: being written. An owner that died while it wrote left it odd. */
	atomic_store_explicit(&page->version, version | 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	page->row_count = page->rows_left_out = 0;
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		page->session[i] = (struct state_session){0};
}

/* Adds a state. */
static void show_state(struct state_page *page, uint32_t channel, uint32_t segment, const struct state_store *store,
		       uint32_t index)
{
	const struct state_spec *spec = state_spec_of(store, index);
	struct state_size size = state_size_of(state_handle(store, index));

	if (page->row_count == STATE_ROWS_MAX) {
		page->rows_left_out++;
		return;
	}
	struct state_row *row = &page->row[page->row_count++];
	*row = (struct state_row){
	    .channel = channel,
	    .segment = segment,
	    .kind = (uint32_t)spec->kind,
	    .entries = size.entries,
	    .key_bytes = size.key_bytes,
	    .value_bytes = size.value_bytes,
	    .timers = size.timers,
	    .largest_key = size.largest_key,
	    .largest_value = size.largest_value,
	};
	snprintf(row->step, sizeof(row->step), "%s", spec->step);
	snprintf(row->name, sizeof(row->name), "%s", spec->name);
}

void state_show_session(struct state_page *page, uint32_t channel, uint32_t epoch, uint32_t segment,
			const struct state_store *store)
{
	struct arena_usage usage = arena_session_usage(state_arena(store), channel);

	page->session[channel] = (struct state_session){
	    .epoch = epoch,
	    .segment = segment,
	    .bytes = state_bytes(store),
	    .dirty_bytes = state_dirty_bytes(store),
	    .dirty_entries = state_dirty_entries(store),
	    .extents = usage.extents,
	    .blocks = usage.blocks,
	};
	for (uint32_t i = 0; i < state_count(store); i++)
		show_state(page, channel, segment, store, i);
}

void state_show_end(struct worker_page *page, const struct arena *arena)
{
	struct state_page *state = &page->state;
	struct arena_usage usage = arena_usage(arena);
	uint64_t bytes = 0, dirty = 0;

	state->limit = usage.limit;
	state->extents = usage.extents;
	state->blocks = usage.blocks;
	state->freed = usage.freed;
	state->log_most = usage.log_most;
	state->log_size = (uint64_t)(arena->log_end - (uint8_t *)arena->log_records);
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		bytes += state->session[i].bytes;
		dirty += state->session[i].dirty_bytes;
	}
	/* Release: who sees the even number sees all of the rest. */
	atomic_store_explicit(&state->version, atomic_load_explicit(&state->version, memory_order_relaxed) + 1,
			      memory_order_release);
	gauge_set(&page->counters.state_bytes, bytes);
	gauge_set(&page->counters.state_dirty_bytes, dirty);
	gauge_set(&page->counters.arena_used, usage.extents);
}
