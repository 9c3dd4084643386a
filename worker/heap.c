/*
 * The heap of a session: blocks by size class out of extents, and runs of whole extents.
 *
 * A block is cut from the extent at hand, or taken off the list of its class; it goes back to a list of blocks freed in this
 * unit, which joins the other list once that unit is over (A2). Blocks are neither merged nor moved. When the extent at hand is used up, a large free block is cut up before a new extent is taken. Blocks above half
 * an extent are runs of extents of their own, and go back to the arena at once.
 *
 * For a session that is being filled (a restore) memory is asked for by the extent, or by huge pages where these are quick to be had: a fault for each small
 * page is a quarter of its time.
 *
 * What a rollback must find: list heads, the first word of a block that goes on or off a list, the extent table. All are
 * logged. The inside of an extent that nothing was cut from yet is nobody's and needs no log.
 */
#include <sys/mman.h>

#include "shared/control.h"
#include "shared/fault.h"
#include "shared/log.h"
#include "worker/arena_log.h"

enum {
	RECYCLE_MIN = 4096, /* bytes of a free block that is worth cutting up */
	TABLE_PIECE = 4096, /* bytes of the extent table that are logged at a time */
	PUNCH_EXTENTS = 4,  /* that arena_idle gives back at a time */
	UNITS_PER_EXTENT = ARENA_EXTENT / ARENA_UNIT,
	PAGE_EXTENTS = SLOT_HUGE_PAGE / ARENA_EXTENT,
	FILLED_FROM = 8,       /* extents that a session has before memory is asked for */
	OTHERWISE = 32,        /* every so many times it is asked for in the way that was slower */
	REFUSED_NS = 20000000, /* counts as slower than anything */
};

#define QUARTERS(low) (low) * 5 / 4, (low)*6 / 4, (low)*7 / 4, (low)*2
const uint32_t heap_class_bytes[HEAP_CLASSES] = {
    16,
    32,
    48,
    64,
    80,
    96,
    112,
    128,
    144,
    160,
    176,
    192,
    208,
    224,
    240,
    256,
    272,
    288,
    304,
    320,
    336,
    352,
    368,
    384,
    400,
    416,
    432,
    448,
    464,
    480,
    496,
    512,
    QUARTERS(512),
    QUARTERS(1024),
    QUARTERS(2048),
    QUARTERS(4096),
    QUARTERS(8192),
    QUARTERS(16384),
    QUARTERS(32768),
    QUARTERS(65536),
    QUARTERS(131072),
    QUARTERS(262144),
};

/* The class of a size of 1 to HEAP_CLASS_MAX. */
uint32_t heap_class_of(size_t size)
{
	if (size <= 512)
		return (uint32_t)(size + 15) / 16 - 1;
	unsigned top = 63 - (unsigned)__builtin_clzll(size - 1);
	return HEAP_SMALL + (top - 9) * 4 + (uint32_t)((size - 1) >> (top - 2)) - 4;
}

/* The bytes that a block takes. */
size_t arena_block_size(size_t size)
{
	if (size <= HEAP_CLASS_MAX)
		return heap_class_bytes[heap_class_of(size > 0 ? size : 1)];
	return (size + ARENA_EXTENT - 1) / ARENA_EXTENT * ARENA_EXTENT;
}

/* ---- Extents ------------------------------------------------------------------------------------------------------- */

/* Whether an extent can be handed out. */
static bool extent_is_free(const struct arena *arena, uint32_t extent)
{
	if (arena->extents[extent] == EXTENT_FREE)
		return true;
	return arena->extents[extent] == EXTENT_DIRTY && (arena->freed[extent / 64] >> (extent % 64) & 1) == 0;
}

/* The first of `count` free extents in a row, or UINT32_MAX. */
static uint32_t extents_find(struct arena *arena, uint32_t count)
{
	uint32_t run = 0, first_free = UINT32_MAX;

	for (uint32_t i = arena->extent_hint; i < arena->extent_count; i++) {
		run = extent_is_free(arena, i) ? run + 1 : 0;
		if (run > 0 && first_free == UINT32_MAX)
			first_free = i;
		if (run == count) {
			arena->extent_hint = first_free;
			return i + 1 - count;
		}
	}
	return UINT32_MAX;
}

/* Takes so many extents in a row for a session; UINT32_MAX and trouble when there are none. */
static uint32_t extents_take(struct arena *arena, uint32_t channel, uint32_t count)
{
	uint32_t first = extents_find(arena, count);

	if (first == UINT32_MAX) {
		if (arena->trouble == ARENA_FINE)
			arena->trouble = ARENA_FULL;
		return UINT32_MAX;
	}
	arena_core_write(arena, channel)->extents += count;
	memset(arena_write(arena, arena->extents + first, count), (int)(EXTENT_OWNED + channel), count);
	return first;
}

/* Says that an extent is free from the next unit on. The table is logged. */
static void extent_release(struct arena *arena, uint32_t extent)
{
	arena->extents[extent] = EXTENT_DIRTY;
	arena->freed[extent / 64] |= UINT64_C(1) << (extent % 64);
	arena->extents_freed = true;
	if (extent < arena->extent_hint)
		arena->extent_hint = extent;
}

/* Forgets what was freed within the unit. */
void heap_unit_over(struct arena *arena)
{
	arena->extent_hint = arena->extents_freed ? 0 : arena->extent_hint;
	if (arena->extents_freed)
		memset(arena->freed, 0, sizeof(arena->freed));
	arena->extents_freed = false;
}

/* Frees all extents of a session. The table is logged in pieces: a record for each extent could be more than the log has. */
void heap_drop(struct arena *arena, uint32_t channel)
{
	uint8_t owner = (uint8_t)(EXTENT_OWNED + channel);

	for (uint32_t from = 0; from < arena->extent_count; from += TABLE_PIECE) {
		uint32_t left = arena->extent_count - from, size = left < TABLE_PIECE ? left : TABLE_PIECE;
		if (memchr(arena->extents + from, owner, size) == NULL)
			continue;
		arena_write(arena, arena->extents + from, size);
		for (uint32_t i = from; i < from + size; i++) {
			if (arena->extents[i] == owner)
				extent_release(arena, i);
		}
	}
}

/* Gives some freed memory back. A byte says that it is to be, and is stored after it was: nobody minds if it happens twice. */
bool arena_idle(struct arena *arena)
{
	uint32_t done = 0;

	CHECK(arena->log_count == 0);
	for (uint32_t i = 0; i < arena->extent_count; i++) {
		if (arena->extents[i] != EXTENT_DIRTY)
			continue;
		if (done == PUNCH_EXTENTS)
			return true;
		uint8_t *memory = arena->base + arena->blocks_from + (uint64_t)i * ARENA_EXTENT;
		if (!arena->is_file)
			(void)madvise(memory, ARENA_EXTENT, MADV_REMOVE);
		FAULT_POINT(idle_punched);
		arena_order();
		arena->extents[i] = EXTENT_FREE;
		done++;
	}
	return false;
}

/* A mapping begins at a multiple of the size of huge pages, so offsets are as good as addresses. */
void arena_make_huge(struct arena *arena, const void *at)
{
	uint64_t page = arena_offset(arena, at) / SLOT_HUGE_PAGE * SLOT_HUGE_PAGE;

	if (page == arena->huge_at || page + SLOT_HUGE_PAGE > arena->size)
		return;
	arena->huge_at = page;
	(void)slot_make_huge(arena->base + page);
}

/* ---- Blocks -------------------------------------------------------------------------------------------------------- */

/* A class's lists, to be changed. */
static struct heap_class *class_write(struct arena *arena, struct heap_class *class)
{
	arena_cover(arena, class, sizeof(*class), &class->logged);
	return class;
}

/* Whether blocks wait in the second list that may be handed out by now. */
static bool class_has_waited(const struct arena *arena, const struct heap_class *class)
{
	return class->freed != 0 && class->freed_in != (uint32_t)arena_unit(arena);
}

/* The next free block of a class, or 0. */
static arena_ref class_take(struct arena *arena, struct heap_class *class, uint32_t bytes)
{
	if (class->free == 0) {
		if (!class_has_waited(arena, class))
			return 0;
		class_write(arena, class);
		class->free = class->freed;
		class->freed = 0;
	}
	arena_ref block = class->free;
	arena_ref *link = arena_find(arena, block, bytes);
	if (link == NULL)
		return 0;
	class_write(arena, class)->free = *link;
	arena_write(arena, link, sizeof(*link)); /* its user overwrites it, a rollback puts the block back */
	FAULT_POINT(alloc_list);
	return block;
}

/* Puts what is left of the extent at hand into the lists, as blocks as large as they come. */
static void bump_give_up(struct arena *arena, uint32_t channel, struct session_core *core)
{
	uint32_t left = core->bump_end - core->bump;

	while (left > 0) {
		uint64_t bytes = (uint64_t)left * ARENA_UNIT;
		uint32_t index = bytes >= HEAP_CLASS_MAX ? HEAP_CLASSES - 1 : heap_class_of(bytes);
		if (heap_class_bytes[index] > bytes)
			index--;
		struct heap_class *class = class_write(arena, &arena_words(arena, channel)->classes[index]);
		*(arena_ref *)arena_at(arena, core->bump) = class->free;
		class->free = core->bump;
		core->bump += heap_class_bytes[index] / ARENA_UNIT;
		left = core->bump_end - core->bump;
	}
}

/* What a way of asking takes, from what it took before and now: a bad turn or two are not the rule. */
static uint64_t ns_of_late(uint64_t before, uint64_t now)
{
	return before == 0 ? now : before - before / 4 + now / 4;
}

/* Whether a session is being filled, and is no small one: then memory for extents is asked for before it is touched. */
static bool is_filled(const struct arena *arena, const struct session_core *core)
{
	return arena->filling && !arena->is_file && core->extents >= FILLED_FROM;
}

/* Whether such a session grows by the extents of a huge page: when they are the next that are free, and it is quicker. That depends on what memory is
 * free just now, by a factor of three either way: it is what was quicker of late, and now and then the other. */
static bool grows_by_a_page(struct arena *arena)
{
	struct arena_asking *asking = &arena->asking;
	uint32_t next = arena->blocks_from % SLOT_HUGE_PAGE != 0 ? UINT32_MAX : extents_find(arena, PAGE_EXTENTS);

	if (next == UINT32_MAX || next != arena->extent_hint || next % PAGE_EXTENTS != 0)
		return false;
	return (asking->huge_ns <= asking->small_ns) != (++asking->turns % OTHERWISE == 0);
}

/* Asks the system for the memory of extents that nothing was cut from yet. */
static void memory_ask(struct arena *arena, uint8_t *memory, uint32_t extents)
{
	struct arena_asking *asking = &arena->asking;
	uint64_t start = clock_ns();

	*memory = 0; /* nobody's as yet */
	if (extents == PAGE_EXTENTS) {
		bool done = slot_make_huge(memory);
		asking->huge_ns = ns_of_late(asking->huge_ns, done ? clock_ns() - start : REFUSED_NS);
	} else {
		slot_populate(memory, ARENA_EXTENT);
		asking->small_ns = ns_of_late(asking->small_ns, (clock_ns() - start) * PAGE_EXTENTS);
	}
}

/* Finds memory to cut blocks of `bytes` from: a large free block, or new extents. */
static bool bump_refill(struct arena *arena, uint32_t channel, uint32_t bytes)
{
	struct session_core *core = arena_core_write(arena, channel);
	uint32_t least = heap_class_of(bytes > RECYCLE_MIN ? bytes : RECYCLE_MIN);

	bump_give_up(arena, channel, core);
	for (uint32_t i = HEAP_CLASSES; i-- > least;) {
		arena_ref block = class_take(arena, &arena_words(arena, channel)->classes[i], heap_class_bytes[i]);
		if (block != 0) {
			core->bump = block;
			core->bump_end = block + heap_class_bytes[i] / ARENA_UNIT;
			return true;
		}
	}
	bool filled = is_filled(arena, core);
	uint32_t count = filled && grows_by_a_page(arena) ? PAGE_EXTENTS : 1,
		 extent = extents_take(arena, channel, count);
	if (extent == UINT32_MAX)
		return false;
	core->bump = (uint32_t)(arena->blocks_from / ARENA_UNIT) + extent * UNITS_PER_EXTENT;
	core->bump_end = core->bump + count * UNITS_PER_EXTENT;
	FAULT_POINT(alloc_extent);
	if (filled)
		memory_ask(arena, arena_at(arena, core->bump), count);
	return true;
}

/* A block of whole extents. */
static arena_ref run_alloc(struct arena *arena, uint32_t channel, size_t size)
{
	uint32_t count = (uint32_t)((size + ARENA_EXTENT - 1) / ARENA_EXTENT);
	uint32_t first = extents_take(arena, channel, count);

	if (first == UINT32_MAX)
		return 0;
	FAULT_POINT(alloc_run);
	arena_core_write(arena, channel)->blocks += (uint64_t)count * ARENA_EXTENT;
	return (arena_ref)(arena->blocks_from / ARENA_UNIT) + first * UNITS_PER_EXTENT;
}

/* A block. */
arena_ref arena_alloc(struct arena *arena, uint32_t channel, size_t size)
{
	CHECK(size > 0 && size <= ARENA_BLOCK_MAX);
	if (arena->trouble != ARENA_FINE)
		return 0;
	if (size > HEAP_CLASS_MAX)
		return run_alloc(arena, channel, size);
	uint32_t index = heap_class_of(size), bytes = heap_class_bytes[index];
	struct session_core *core = arena_core_write(arena, channel);
	arena_ref block = class_take(arena, &arena_words(arena, channel)->classes[index], bytes);
	if (block == 0) {
		if (arena->trouble == ARENA_BROKEN)
			return 0;
		if ((core->bump_end - core->bump) * ARENA_UNIT < bytes && !bump_refill(arena, channel, bytes))
			return 0;
		block = core->bump;
		core->bump += bytes / ARENA_UNIT;
	}
	core->blocks += bytes;
	return block;
}

/* Gives the extents of a large block back to the arena. */
static void run_free(struct arena *arena, uint32_t channel, arena_ref block, size_t size)
{
	uint32_t count = (uint32_t)((size + ARENA_EXTENT - 1) / ARENA_EXTENT);
	uint64_t offset = (uint64_t)block * ARENA_UNIT - arena->blocks_from;
	uint32_t first = (uint32_t)(offset / ARENA_EXTENT);
	struct session_core *core = arena_core_write(arena, channel);

	if (offset % ARENA_EXTENT != 0) {
		arena_set_broken(arena, "a large block does not begin with an extent");
		return;
	}
	arena_write(arena, arena->extents + first, count);
	for (uint32_t i = first; i < first + count; i++)
		extent_release(arena, i);
	FAULT_POINT(free_run);
	core->extents -= count;
	core->blocks -= (uint64_t)count * ARENA_EXTENT;
}

/* Frees a block: it waits in its class's second list. */
void arena_free(struct arena *arena, uint32_t channel, arena_ref block, size_t size)
{
	CHECK(size > 0 && size <= ARENA_BLOCK_MAX);
	arena_ref *link = arena_find(arena, block, arena_block_size(size));

	if (link == NULL)
		return;
	if (size > HEAP_CLASS_MAX) {
		run_free(arena, channel, block, size);
		return;
	}
	uint32_t index = heap_class_of(size), now = (uint32_t)arena_unit(arena);
	struct heap_class *class = class_write(arena, &arena_words(arena, channel)->classes[index]);
	if (class_has_waited(arena, class)) {
		arena_ref *last = arena_find(arena, class->freed_last, heap_class_bytes[index]);
		if (last == NULL)
			return;
		*(arena_ref *)arena_write(arena, last, sizeof(*last)) = class->free;
		class->free = class->freed;
		class->freed = 0;
	}
	*(arena_ref *)arena_write(arena, link, sizeof(*link)) = class->freed;
	FAULT_POINT(free_link);
	if (class->freed == 0)
		class->freed_last = block;
	class->freed = block;
	class->freed_in = now;
	arena_core_write(arena, channel)->blocks -= heap_class_bytes[index];
}

/* ---- Looking ------------------------------------------------------------------------------------------------------- */

/* What the arena as a whole is used for. */
struct arena_usage arena_usage(const struct arena *arena)
{
	struct arena_usage usage = {
	    .limit = (uint64_t)arena->extent_count * ARENA_EXTENT,
	    .log_most = arena->log_most,
	};

	for (uint32_t i = 0; i < arena->extent_count; i++) {
		usage.extents += arena->extents[i] >= EXTENT_OWNED ? ARENA_EXTENT : 0;
		usage.freed += arena->extents[i] == EXTENT_DIRTY ? ARENA_EXTENT : 0;
	}
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		usage.blocks += arena_words(arena, i)->core.blocks;
	return usage;
}

/* And one session's part of it. */
struct arena_usage arena_session_usage(const struct arena *arena, uint32_t channel)
{
	CHECK(channel < SLOT_CHANNELS_MAX);
	const struct session_core *core = &arena_words(arena, channel)->core;

	return (struct arena_usage){
	    .limit = (uint64_t)arena->extent_count * ARENA_EXTENT,
	    .extents = (uint64_t)core->extents * ARENA_EXTENT,
	    .blocks = core->blocks,
	    .log_most = arena->log_most,
	};
}
