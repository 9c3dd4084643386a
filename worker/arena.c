/*
 * The arena: units, their log, the sessions' words. Where blocks come from is heap.c; the layout is in arena_log.h.
 */
#include "worker/arena.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/fault.h"
#include "shared/log.h"
#include "worker/arena_log.h"

enum {
	ARENA_VERSION = 3,
	SESSIONS_FROM = 4096,
	LOG_MIN = 1 << 20,
	LOG_MAX = (8 << ARENA_COUNT_BITS) - 4096, /* so that its records can be counted: none is smaller than 8 bytes */
	ALIGNED_FROM = 64 << 20,                  /* bytes of arenas whose extents begin with a huge page */
	WHY_SIZE = 128,
};
#define ARENA_MAGIC UINT64_C(0x616e657261736c74)
#define ARENA_SIZE_MAX ((uint64_t)ARENA_FREED_WORDS * 64 * ARENA_EXTENT)

_Static_assert(sizeof(struct arena_head) <= SESSIONS_FROM, "the head has a page");
_Static_assert(sizeof(struct arena_session) % 64 == 0, "sessions share no cache line");

/* ---- Layout ------------------------------------------------------------------------------------------------------ */

/* Where everything is in an arena of some size. */
struct layout {
	uint64_t extents_from, log_from, log_to, blocks_from;
	uint32_t extent_count;
};

static uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* Everything follows from the size. False when it is too small or too large. */
static bool layout_of(uint64_t size, struct layout *layout)
{
	uint64_t log = size / 16;

	if (size > ARENA_SIZE_MAX)
		return false;
	log = log < LOG_MIN ? LOG_MIN : log > LOG_MAX ? LOG_MAX : log / 4096 * 4096;
	layout->extents_from = SESSIONS_FROM + round_up(sizeof(struct arena_session) * SLOT_CHANNELS_MAX, 4096);
	layout->log_from = layout->extents_from + round_up(size / ARENA_EXTENT, 4096);
	layout->log_to = round_up(layout->log_from + log, 4096);
	layout->blocks_from = round_up(layout->log_to, size >= ALIGNED_FROM ? SLOT_HUGE_PAGE : 4096);
	if (size < layout->blocks_from + ARENA_EXTENT)
		return false;
	layout->extent_count = (uint32_t)((size - layout->blocks_from) / ARENA_EXTENT);
	return true;
}

/* The bytes of mapping for so many of extents. */
uint64_t arena_size_for(uint64_t state)
{
	uint64_t extents = state < ARENA_EXTENT ? 1 : round_up(state, ARENA_EXTENT) / ARENA_EXTENT;
	uint64_t size = extents * ARENA_EXTENT + LOG_MIN;
	struct layout layout;

	while (!layout_of(size, &layout) || layout.extent_count < extents) {
		if (size > ARENA_SIZE_MAX)
			return ARENA_SIZE_MAX;
		size += ARENA_EXTENT / 4;
	}
	return size;
}

/* ---- The log ------------------------------------------------------------------------------------------------------- */

/* A record that the log has no room for but in its spare part. */
uint32_t arena_log_full(struct arena *arena, uint64_t offset, size_t size)
{
	size_t padded = (size + 7) & ~(size_t)7;
	uint64_t *record = arena->log_records + arena->log_count;

	if (arena->trouble == ARENA_FINE)
		arena->trouble = ARENA_LOG_FULL;
	CHECK((uint8_t *)(record + 1) + padded <= arena->log_data);
	arena->log_data -= padded;
	memcpy(arena->log_data, arena->base + offset, size);
	*record = offset << ARENA_SIZE_BITS | size;
	arena_order();
	FAULT_POINT(log_record);
	arena->head->log_word = arena_unit(arena) << ARENA_COUNT_BITS | ++arena->log_count;
	arena_order();
	return arena->log_count - 1;
}

/* What a record covers. */
static uint64_t record_offset(uint64_t record)
{
	return record >> ARENA_SIZE_BITS;
}

static size_t record_size(uint64_t record)
{
	return record & ((UINT64_C(1) << ARENA_SIZE_BITS) - 1);
}

/* Puts the bytes of all records from `count` on back, the last first. The log stays as it is: whoever dies on the way leaves a
 * successor that does it once more. Returns where the saved bytes of the remaining records end. */
static uint8_t *undo(struct arena *arena, uint32_t count)
{
	uint8_t *data = arena->log_data;

	arena->extent_hint = 0; /* extents that were taken are free again, wherever they are */
	for (uint32_t i = arena->log_count; i-- > count;) {
		uint64_t record = arena->log_records[i];
		memcpy(arena->base + record_offset(record), data, record_size(record));
		data += (record_size(record) + 7) & ~(size_t)7;
		FAULT_POINT(rollback_step);
	}
	return data;
}

/* Begins a unit: the log is void, because it is of another one. */
static void begin_unit(struct arena *arena)
{
	uint64_t used = arena->log_count * sizeof(uint64_t) + (uint64_t)(arena->log_end - arena->log_data);

	arena->log_most = used > arena->log_most ? used : arena->log_most;
	arena->log_count = 0;
	arena->log_mark = 0;
	arena->log_data = arena->log_end;
	heap_unit_over(arena);
}

/* Makes the unit happen. */
void arena_commit(struct arena *arena)
{
	CHECK(arena->trouble == ARENA_FINE);
	arena->units++;
	if (arena->log_count == 0)
		return;
	FAULT_POINT(commit_before);
	arena_order();
	arena->head->commits++;
	arena_order();
	FAULT_POINT(commit_after);
	begin_unit(arena);
}

/* Makes it not have happened. */
void arena_rollback(struct arena *arena)
{
	undo(arena, 0);
	arena->undone++;
	arena_order();
	FAULT_POINT(rollback_end);
	arena->head->log_word = arena_unit(arena) << ARENA_COUNT_BITS;
	arena_order();
	begin_unit(arena);
	if (arena->trouble != ARENA_BROKEN)
		arena->trouble = ARENA_FINE;
}

/* A mark is the length of both parts of the log. */
uint64_t arena_mark(struct arena *arena)
{
	arena->log_mark = arena->log_count;
	return (uint64_t)(arena->log_end - arena->log_data) << ARENA_COUNT_BITS | arena->log_count;
}

/* Undoes what came behind a mark. */
void arena_undo_to(struct arena *arena, uint64_t mark)
{
	uint32_t count = mark & ((1U << ARENA_COUNT_BITS) - 1);

	CHECK(count <= arena->log_count);
	uint8_t *data = undo(arena, count);
	CHECK(data == arena->log_end - (mark >> ARENA_COUNT_BITS));
	arena->undone++;
	arena_order();
	FAULT_POINT(undo_step);
	arena->head->log_word = arena_unit(arena) << ARENA_COUNT_BITS | count;
	arena_order();
	arena->log_count = count;
	arena->log_mark = count;
	arena->log_data = data;
}

/* Logs what is about to be overwritten. */
void *arena_write(struct arena *arena, void *at, size_t size)
{
	arena_log(arena, arena_offset(arena, at), size);
	FAULT_POINT(log_length);
	return at;
}

uint64_t arena_commits(const struct arena *arena)
{
	return arena->head->commits;
}

/* Damage is the worst trouble and stays. */
void arena_set_broken(struct arena *arena, const char *what)
{
	if (arena->trouble == ARENA_BROKEN)
		return;
	arena->trouble = ARENA_BROKEN;
	arena->broken = what;
}

/* ---- Taking over ----------------------------------------------------------------------------------------------------- */

/* Lays a new arena out; what is there is zero, or what somebody wrote who died here. */
static void format(struct arena *arena, const struct layout *layout, uint32_t slot)
{
	*arena->head = (struct arena_head){
	    .version = ARENA_VERSION,
	    .slot = slot,
	    .size = arena->size,
	    .log_from = layout->log_from,
	    .blocks_from = layout->blocks_from,
	    .extent_count = layout->extent_count,
	};
	arena_order();
	FAULT_POINT(arena_format);
	arena->head->magic = ARENA_MAGIC;
	arena_order();
}

/* Whether the head is that of this arena. */
static bool check_head(const struct arena *arena, const struct layout *layout, uint32_t slot, char *why)
{
	const struct arena_head *head = arena->head;

	if (head->magic != ARENA_MAGIC)
		snprintf(why, WHY_SIZE, "the arena's head is overwritten: magic %016" PRIx64, head->magic);
	else if (head->version != ARENA_VERSION)
		snprintf(why, WHY_SIZE, "the arena has layout %u, this program %d", head->version, ARENA_VERSION);
	else if (head->slot != slot)
		snprintf(why, WHY_SIZE, "the arena is that of slot %u, not of slot %u", head->slot, slot);
	else if (head->size != arena->size)
		snprintf(why, WHY_SIZE, "the arena has %" PRIu64 " bytes, but was made with %" PRIu64, arena->size,
			 head->size);
	else if (head->log_from != layout->log_from || head->blocks_from != layout->blocks_from ||
		 head->extent_count != layout->extent_count)
		snprintf(why, WHY_SIZE, "the arena's head is overwritten: its layout cannot be");
	else
		return true;
	return false;
}

/* Whether a record covers something that units change: sessions' words, the extent table, blocks. */
static bool record_can_be(const struct arena *arena, uint64_t record)
{
	uint64_t offset = record_offset(record), end = offset + record_size(record);
	uint64_t log_from = arena_offset(arena, arena->log_records);

	return (offset >= SESSIONS_FROM && end <= log_from) || (offset >= arena->blocks_from && end <= arena->size);
}

/* Finds the log of an unfinished unit, and checks it before any of it is used. */
static bool check_log(struct arena *arena, char *why)
{
	uint64_t word = arena->head->log_word, number = word >> ARENA_COUNT_BITS;
	uint64_t count = word & ((1U << ARENA_COUNT_BITS) - 1);
	uint64_t now = arena_unit(arena) & (UINT64_MAX >> ARENA_COUNT_BITS);
	uint64_t room = (uint64_t)(arena->log_end - (uint8_t *)arena->log_records);
	uint64_t used = count * sizeof(uint64_t);

	if (number > now) {
		snprintf(why, WHY_SIZE, "the log is that of unit %" PRIu64 ", but unit %" PRIu64 " is at hand", number,
			 now);
		return false;
	}
	if (number != now)
		return true;
	if (used > room) {
		snprintf(why, WHY_SIZE, "the log has no room for %" PRIu64 " records", count);
		return false;
	}
	for (uint64_t i = 0; i < count; i++) {
		uint64_t record = arena->log_records[i];
		used += (record_size(record) + 7) & ~(size_t)7;
		if (used > room || !record_can_be(arena, record)) {
			snprintf(why, WHY_SIZE, "record %" PRIu64 " of the log cannot be: %zu bytes at %" PRIu64, i,
				 record_size(record), record_offset(record));
			return false;
		}
	}
	arena->log_count = (uint32_t)count;
	arena->log_data = arena->log_end - (used - count * sizeof(uint64_t));
	return true;
}

/* Whether what sessions' words say of their heaps can be; blocks are looked at when they are touched. */
static bool check_sessions(const struct arena *arena, char *why)
{
	uint64_t end = arena->size / ARENA_UNIT, from = arena->blocks_from / ARENA_UNIT;

	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		const struct session_core *core = &arena_words(arena, i)->core;
		bool unused = core->bump == 0 && core->bump_end == 0;
		if (core->extents > arena->extent_count || core->blocks > arena->size ||
		    (!unused && (core->bump < from || core->bump > core->bump_end || core->bump_end > end ||
				 core->bump_end - core->bump > SLOT_HUGE_PAGE / ARENA_UNIT))) {
			snprintf(why, WHY_SIZE, "what channel %u has in the arena cannot be", i);
			return false;
		}
	}
	for (uint32_t i = 0; i < arena->extent_count; i++) {
		if (arena->extents[i] >= EXTENT_OWNED + SLOT_CHANNELS_MAX) {
			snprintf(why, WHY_SIZE, "extent %u belongs to channel %u, which cannot be", i,
				 (uint32_t)arena->extents[i] - EXTENT_OWNED);
			return false;
		}
	}
	return true;
}

/* Takes an arena over. */
enum arena_result arena_open(struct arena *arena, void *base, uint64_t size, uint32_t slot, char *why)
{
	struct layout layout;

	if (!layout_of(size, &layout)) {
		snprintf(why, WHY_SIZE, "an arena cannot have %" PRIu64 " bytes", size);
		return ARENA_DAMAGED;
	}
	*arena = (struct arena){
	    .base = base,
	    .size = layout.blocks_from + (uint64_t)layout.extent_count * ARENA_EXTENT,
	    .head = base,
	    .extents = (uint8_t *)base + layout.extents_from,
	    .log_records = (uint64_t *)((uint8_t *)base + layout.log_from),
	    .log_end = (uint8_t *)base + layout.log_to,
	    .log_data = (uint8_t *)base + layout.log_to,
	    .blocks_from = layout.blocks_from,
	    .extent_count = layout.extent_count,
	};
	if (arena->head->magic == 0 && arena->head->commits == 0)
		format(arena, &layout, slot);
	if (!check_head(arena, &layout, slot, why) || !check_log(arena, why))
		return ARENA_DAMAGED;
	arena_rollback(arena);
	return check_sessions(arena, why) ? ARENA_OK : ARENA_DAMAGED;
}

/* ---- Sessions -------------------------------------------------------------------------------------------------------- */

void *arena_session(const struct arena *arena, uint32_t channel)
{
	CHECK(channel < SLOT_CHANNELS_MAX);
	return arena_words(arena, channel)->own;
}

/* The session's own words, logged once per unit or mark. */
void *arena_session_write(struct arena *arena, uint32_t channel)
{
	void *own = arena_session(arena, channel);

	arena_cover(arena, own, ARENA_SESSION_OWN, &arena->own_logged[channel]);
	return own;
}

void *arena_session_state(const struct arena *arena, uint32_t channel)
{
	CHECK(channel < SLOT_CHANNELS_MAX);
	return arena_words(arena, channel)->core.state;
}

/* The words of its state, logged likewise. */
void *arena_session_state_write(struct arena *arena, uint32_t channel)
{
	CHECK(channel < SLOT_CHANNELS_MAX);
	return arena_core_write(arena, channel)->state;
}

/* Drops a session: its extents first, then all words that could lead into them. */
void arena_session_drop(struct arena *arena, uint32_t channel)
{
	CHECK(channel < SLOT_CHANNELS_MAX);
	struct arena_session *session = arena_words(arena, channel);

	arena->undone++;
	heap_drop(arena, channel);
	FAULT_POINT(drop_extents);
	memset(arena_write(arena, session, sizeof(*session)), 0, sizeof(*session));
	FAULT_POINT(drop_words);
}
