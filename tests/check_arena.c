/*
 * The arena: a test per invariant (A1 to A7 in worker/arena.h), the heap, sessions, damage at a takeover, and a process that is
 * killed at random and at every fault point.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/fault.h"
#include "tests/check_main.h"
#include "tests/state_model.h"
#include "worker/arena_log.h"

enum { CHANNEL = 5, STATE = 24 << 20 };

static struct arena arena;
static void *memory;
static uint64_t bytes;
static int fd;

/* Maps the arena once more, as another process would. */
static void *map(void)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(at, MAP_FAILED);
	return at;
}

static void setup(void)
{
	char why[128];
	bytes = arena_size_for(STATE);
	fd = memfd_create("arena", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	memory = map();
	ck_assert_int_eq(arena_open(&arena, memory, bytes, 7, why), ARENA_OK);
}

static void teardown(void)
{
	munmap(memory, bytes);
	close(fd);
}

/* Takes the arena over, as a successor does. */
static void take_over(void)
{
	char why[128];
	if (arena_open(&arena, memory, bytes, 7, why) != ARENA_OK)
		ck_abort_msg("%s", why);
}

/* A word of the session's own. */
static uint64_t *word(unsigned index)
{
	return (uint64_t *)arena_session(&arena, CHANNEL) + index;
}

static void word_set(unsigned index, uint64_t value)
{
	((uint64_t *)arena_session_write(&arena, CHANNEL))[index] = value;
}

/* A block full of a byte. */
static arena_ref block_of(size_t size, int fill)
{
	arena_ref block = arena_alloc(&arena, CHANNEL, size);
	ck_assert_uint_ne(block, 0);
	memset(arena_at(&arena, block), fill, size);
	return block;
}

/* Whether it still is. */
static bool block_is(arena_ref block, size_t size, int fill)
{
	const uint8_t *at = arena_at(&arena, block);
	for (size_t i = 0; i < size; i++) {
		if (at[i] != fill)
			return false;
	}
	return true;
}

/* ---- Invariants ------------------------------------------------------------------------------------------------------ */

START_TEST(A1_an_arena_is_good_wherever_it_is_mapped)
{
	char why[128];
	struct arena other;
	arena_ref block = block_of(1000, 'x');
	word_set(0, block);
	arena_commit(&arena);
	void *elsewhere = map();
	ck_assert_ptr_ne(elsewhere, memory);
	ck_assert_int_eq(arena_open(&other, elsewhere, bytes, 7, why), ARENA_OK);
	uint64_t found = *(uint64_t *)arena_session(&other, CHANNEL);
	ck_assert_uint_eq(found, block);
	ck_assert_mem_eq(arena_at(&other, (arena_ref)found), arena_at(&arena, block), 1000);
	munmap(elsewhere, bytes);
}
END_TEST

START_TEST(A2_what_is_overwritten_comes_back)
{
	arena_ref block = block_of(64, 'a');
	word_set(0, 1);
	arena_commit(&arena);
	memset(arena_write(&arena, arena_at(&arena, block), 64), 'b', 64);
	memset(arena_write(&arena, arena_at(&arena, block), 3), 'c', 3);
	word_set(0, 2);
	word_set(1, 3);
	arena_rollback(&arena);
	ck_assert(block_is(block, 64, 'a'));
	ck_assert_uint_eq(*word(0), 1);
	ck_assert_uint_eq(*word(1), 0);
}
END_TEST

START_TEST(A2_a_freed_block_waits_for_the_next_unit)
{
	static const size_t sizes[] = {16, 64, 500, 4096, 300000, 2 << 20};
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t size = sizes[i];
		arena_ref block = block_of(size, 'a');
		arena_commit(&arena);
		arena_free(&arena, CHANNEL, block, size);
		arena_ref other = block_of(size, 'b');
		ck_assert_uint_ne(other, block);
		arena_rollback(&arena); /* as if nothing had been */
		ck_assert(block_is(block, size, 'a'));
		arena_free(&arena, CHANNEL, block, size);
		arena_commit(&arena);
		ck_assert_uint_eq(arena_alloc(&arena, CHANNEL, size), block);
		arena_commit(&arena);
	}
}
END_TEST

/* Blocks that are freed and handed out over several units come back as they were, whatever list they were in. */
START_TEST(A2_free_lists_come_back)
{
	arena_ref blocks[6];
	for (int i = 0; i < 6; i++)
		blocks[i] = block_of(48, 'a' + i);
	arena_commit(&arena);
	for (int i = 0; i < 4; i++) {
		arena_free(&arena, CHANNEL, blocks[i], 48);
		if (i % 2 == 1)
			arena_commit(&arena);
	}
	arena_ref order[4], again[4];
	for (int i = 0; i < 4; i++)
		order[i] = block_of(48, 'x');
	arena_rollback(&arena);
	for (int i = 0; i < 4; i++)
		again[i] = block_of(48, 'y');
	ck_assert_mem_eq(order, again, sizeof(order));
	for (int i = 0; i < 4; i++)
		ck_assert(again[i] != blocks[4] && again[i] != blocks[5]);
	arena_commit(&arena);
	ck_assert(block_is(blocks[4], 48, 'e') && block_is(blocks[5], 48, 'f'));
}
END_TEST

START_TEST(A3_a_log_of_another_unit_is_void)
{
	word_set(0, 1);
	arena_commit(&arena);
	word_set(0, 2);
	uint64_t stale = arena.head->log_word;
	arena_commit(&arena);
	ck_assert_uint_eq(arena.head->log_word, stale); /* it stands there still, with a record of the word as it was */
	take_over();
	ck_assert_uint_eq(*word(0), 2);
	/* a record that the length does not cover yet does not count either */
	word_set(0, 3);
	arena.head->log_word--;
	take_over();
	ck_assert_uint_eq(*word(0), 3);
}
END_TEST

START_TEST(A4_commit_is_one_store)
{
	word_set(0, 1);
	arena_ref block = block_of(100, 'a');
	arena_commit(&arena);
	uint64_t commits = arena_commits(&arena);
	word_set(0, 2);
	memset(arena_write(&arena, arena_at(&arena, block), 100), 'b', 100);
	uint8_t *before = malloc(bytes);
	memcpy(before, memory, bytes);
	arena_commit(&arena);
	ck_assert_uint_eq(arena_commits(&arena), commits + 1);
	/* all that it changed in the arena is that one word */
	uint64_t *was = (uint64_t *)before, *is = memory, at = arena_offset(&arena, &arena.head->commits) / 8;
	for (uint64_t i = 0; i < bytes / 8; i++)
		ck_assert_uint_eq(is[i], was[i] + (i == at ? 1 : 0));
	/* without it nothing has happened, with it all has */
	take_over();
	ck_assert_uint_eq(*word(0), 2);
	memcpy(memory, before, bytes);
	take_over();
	ck_assert_uint_eq(*word(0), 1);
	ck_assert(block_is(block, 100, 'a'));
	free(before);
}
END_TEST

START_TEST(A4_a_unit_that_changed_nothing_is_not_counted)
{
	uint64_t commits = arena_commits(&arena);
	arena_commit(&arena);
	ck_assert_uint_eq(arena_commits(&arena), commits);
	arena_rollback(&arena);
	ck_assert_uint_eq(arena_commits(&arena), commits);
}
END_TEST

/* Counts in words that must always be equal, until it is killed. */
static void count_for_good(void)
{
	for (uint64_t i = *word(0) + 1;; i++) {
		arena_ref block = arena_alloc(&arena, CHANNEL, 16 + i % 600);
		for (unsigned k = 0; k < 30; k++)
			word_set(k, i);
		arena_free(&arena, CHANNEL, block, 16 + i % 600);
		arena_commit(&arena);
	}
}

START_TEST(A5_a_process_killed_anywhere_leaves_whole_units)
{
	uint64_t last = 0;
	struct model_dice dice = {(uint64_t)getpid()};
	for (int round = 0; round < 300 || last == 0; round++) { /* on a busy machine few children come to anything */
		int status;
		pid_t pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			take_over();
			count_for_good();
		}
		usleep(model_roll(&dice, 1500)); /* any time is right: it is where the child dies */
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		take_over();
		for (unsigned k = 1; k < 30; k++)
			ck_assert_uint_eq(*word(k), *word(0));
		ck_assert_uint_ge(*word(0), last);
		last = *word(0);
	}
	ck_assert_uint_eq(arena_session_usage(&arena, CHANNEL).blocks, 0);
}
END_TEST

/* The words that others could see, the rings' cursors, are not in the arena; what is there is enough to compute them anew. */
START_TEST(A6_what_is_read_at_a_takeover_is_what_was_committed)
{
	word_set(0, 10);
	arena_commit(&arena);
	word_set(0, 11);
	struct arena dead = arena; /* its owner is gone, and never looks again */
	take_over();
	ck_assert_uint_eq(*word(0), 10);
	ck_assert_uint_eq(arena_commits(&arena), arena_commits(&dead));
	word_set(0, 12);
	arena_commit(&arena);
	take_over();
	ck_assert_uint_eq(*word(0), 12);
}
END_TEST

START_TEST(A7_words_are_logged_once_per_unit_and_mark)
{
	for (int unit = 0; unit < 3; unit++) {
		word_set(0, 1);
		uint32_t once = arena.log_count;
		for (unsigned i = 0; i < 30; i++)
			word_set(i, i);
		ck_assert_uint_eq(arena.log_count, once);
		arena_mark(&arena);
		word_set(0, 2);
		ck_assert_uint_eq(arena.log_count, once + 1);
		word_set(0, 3);
		ck_assert_uint_eq(arena.log_count, once + 1);
		arena_commit(&arena);
	}
}
END_TEST

/* A block that says where it was last logged. */
struct stamped {
	uint32_t logged;
	uint32_t value;
};

START_TEST(A7_a_stamp_from_anywhere_is_never_mistaken)
{
	arena_ref block = arena_alloc(&arena, CHANNEL, sizeof(struct stamped));
	struct stamped *stamped = arena_at(&arena, block);
	*stamped = (struct stamped){.logged = UINT32_MAX, .value = 1};
	arena_commit(&arena);
	for (uint32_t stamp = 0; stamp < 8; stamp++) {
		/* numbers of records that are of something else, or of none */
		stamped->logged = stamp;
		word_set(0, stamp);
		arena_write(&arena, &stamped->value, sizeof(stamped->value)); /* a part of it is not all of it */
		arena_write(&arena, stamped, 4);
		uint32_t count = arena.log_count;
		arena_cover(&arena, stamped, sizeof(*stamped), &stamped->logged);
		ck_assert_uint_eq(arena.log_count, count + 1);
		stamped->value = 100 + stamp;
		arena_cover(&arena, stamped, sizeof(*stamped), &stamped->logged);
		ck_assert_uint_eq(arena.log_count, count + 1);
		arena_rollback(&arena);
		ck_assert_uint_eq(stamped->value, 1);
		ck_assert_uint_eq(stamped->logged, stamp);
	}
}
END_TEST

START_TEST(A7_what_is_new_is_not_logged_but_behind_a_mark)
{
	arena_ref block = arena_alloc(&arena, CHANNEL, sizeof(struct stamped));
	struct stamped *stamped = arena_at(&arena, block);
	*stamped = (struct stamped){.logged = arena_log_fresh(&arena, stamped), .value = 1};
	uint32_t count = arena.log_count;
	arena_cover(&arena, stamped, sizeof(*stamped), &stamped->logged);
	ck_assert_uint_eq(arena.log_count, count);
	uint64_t mark = arena_mark(&arena);
	arena_cover(&arena, stamped, sizeof(*stamped), &stamped->logged);
	ck_assert_uint_eq(arena.log_count, count + 1);
	stamped->value = 2;
	arena_undo_to(&arena, mark);
	ck_assert_uint_eq(stamped->value, 1);
}
END_TEST

/* ---- Units ----------------------------------------------------------------------------------------------------------- */

START_TEST(marks_undo_what_is_behind_them)
{
	word_set(0, 1);
	uint64_t first = arena_mark(&arena);
	word_set(0, 2);
	arena_ref block = block_of(32, 'a');
	uint64_t second = arena_mark(&arena);
	word_set(0, 3);
	arena_free(&arena, CHANNEL, block, 32);
	arena_undo_to(&arena, second);
	ck_assert_uint_eq(*word(0), 2);
	ck_assert(block_is(block, 32, 'a'));
	word_set(0, 4);
	arena_undo_to(&arena, second);
	ck_assert_uint_eq(*word(0), 2);
	arena_undo_to(&arena, first);
	ck_assert_uint_eq(*word(0), 1);
	ck_assert_uint_eq(arena_session_usage(&arena, CHANNEL).blocks, 0);
	word_set(1, 5);
	arena_commit(&arena);
	take_over();
	ck_assert_uint_eq(*word(0), 1);
	ck_assert_uint_eq(*word(1), 5);
}
END_TEST

START_TEST(a_full_log_is_trouble_and_can_still_be_undone)
{
	arena_ref block = block_of(4096, 'a');
	arena_commit(&arena);
	uint64_t writes = 0;
	while (arena.trouble == ARENA_FINE) {
		memset(arena_write(&arena, arena_at(&arena, block), 4096), 'b', 4096);
		writes++;
	}
	ck_assert_int_eq(arena.trouble, ARENA_LOG_FULL);
	ck_assert_uint_gt(writes, 100);
	ck_assert_uint_eq(arena_alloc(&arena, CHANNEL, 16), 0);
	/* what is under way can finish, also the dropping of a session */
	memset(arena_write(&arena, arena_at(&arena, block), 4096), 'c', 4096);
	arena_session_drop(&arena, CHANNEL);
	arena_rollback(&arena);
	ck_assert_int_eq(arena.trouble, ARENA_FINE);
	ck_assert(block_is(block, 4096, 'a'));
	ck_assert_uint_gt(arena_usage(&arena).log_most, 800000);
}
END_TEST

/* The largest log has no more records than the log word can count. */
START_TEST(a_log_full_of_records_is_counted)
{
	char why[128];
	struct arena large;
	uint64_t size = arena_size_for(UINT64_C(8) << 30);
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(at, MAP_FAILED);
	ck_assert_int_eq(arena_open(&large, at, size, 7, why), ARENA_OK);
	uint64_t *own = arena_session_write(&large, CHANNEL);
	*own = 1;
	arena_commit(&large);
	*(uint64_t *)arena_session_write(&large, CHANNEL) = 2;
	while (large.trouble == ARENA_FINE)
		arena_log_fresh(&large, (uint8_t *)at + large.blocks_from);
	ck_assert_int_eq(large.trouble, ARENA_LOG_FULL);
	ck_assert_msg(arena_open(&large, at, size, 7, why) == ARENA_OK, "%s", why);
	ck_assert_uint_eq(*own, 1);
	munmap(at, size);
}
END_TEST

START_TEST(a_unit_in_trouble_cannot_commit)
{
	arena.trouble = ARENA_FULL;
	arena_commit(&arena);
}
END_TEST

START_TEST(broken_stays_broken)
{
	ck_assert_ptr_null(arena_find(&arena, 1, 16));
	ck_assert_int_eq(arena.trouble, ARENA_BROKEN);
	ck_assert_ptr_nonnull(arena.broken);
	arena_rollback(&arena);
	ck_assert_int_eq(arena.trouble, ARENA_BROKEN);
	ck_assert_ptr_null(arena_find(&arena, UINT32_MAX, 16));
}
END_TEST

/* ---- Heap -------------------------------------------------------------------------------------------------------------- */

START_TEST(sizes_are_close_to_what_was_asked_for)
{
	ck_assert_uint_eq(arena_block_size(1), 16);
	ck_assert_uint_eq(arena_block_size(16), 16);
	ck_assert_uint_eq(arena_block_size(17), 32);
	ck_assert_uint_eq(arena_block_size(512), 512);
	ck_assert_uint_eq(arena_block_size(513), 640);
	ck_assert_uint_eq(arena_block_size(1024), 1024);
	ck_assert_uint_eq(arena_block_size(1025), 1280);
	ck_assert_uint_eq(arena_block_size(HEAP_CLASS_MAX), HEAP_CLASS_MAX);
	ck_assert_uint_eq(arena_block_size(HEAP_CLASS_MAX + 1), ARENA_EXTENT);
	ck_assert_uint_eq(arena_block_size(ARENA_BLOCK_MAX), ARENA_BLOCK_MAX);
	for (size_t size = 1; size <= HEAP_CLASS_MAX; size += 1 + size / 100) {
		size_t block = arena_block_size(size);
		ck_assert_uint_ge(block, size);
		ck_assert(block < size + 16 || block <= size + size / 4);
		ck_assert_uint_eq(block % ARENA_UNIT, 0);
		uint32_t class = heap_class_of(size);
		ck_assert(class == 0 || heap_class_bytes[class - 1] < size);
	}
}
END_TEST

START_TEST(blocks_do_not_overlap)
{
	enum { BLOCKS = 400 };
	static struct {
		arena_ref block;
		size_t size;
	} live[BLOCKS];
	struct model_dice dice = {1};
	for (int round = 0; round < 20000; round++) {
		uint32_t i = model_roll(&dice, BLOCKS);
		if (live[i].block != 0) {
			ck_assert(block_is(live[i].block, live[i].size, (int)(i & 0xff)));
			arena_free(&arena, CHANNEL, live[i].block, live[i].size);
			live[i].block = 0;
		} else {
			live[i].size = 1 + model_roll(&dice, model_roll(&dice, 50) == 0 ? 60000 : 700);
			live[i].block = block_of(live[i].size, (int)(i & 0xff));
		}
		if (round % 7 == 0)
			arena_commit(&arena);
	}
	uint64_t blocks = 0;
	for (int i = 0; i < BLOCKS; i++)
		blocks += live[i].block != 0 ? arena_block_size(live[i].size) : 0;
	ck_assert_uint_eq(arena_session_usage(&arena, CHANNEL).blocks, blocks);
	ck_assert_uint_le(arena_session_usage(&arena, CHANNEL).extents, 4 * blocks + (4 << 20));
}
END_TEST

/* What a unit took and gave back by being undone can be had by the next one, however often that happens. */
START_TEST(extents_of_units_that_are_undone_are_free_again)
{
	for (int i = 0; i < 2 * STATE / ARENA_EXTENT; i++) {
		block_of(ARENA_EXTENT, 'a');
		block_of(ARENA_EXTENT, 'b');
		arena_rollback(&arena);
	}
	for (int i = 0; i < 2 * STATE / ARENA_EXTENT; i++) {
		uint64_t mark = arena_mark(&arena);
		block_of(ARENA_EXTENT, 'a');
		block_of(ARENA_EXTENT, 'b');
		arena_undo_to(&arena, mark);
	}
}
END_TEST

/* All of the arena is used, and none of it is lost by what was tried beyond. */
START_TEST(a_full_arena_refuses_and_goes_on)
{
	uint64_t blocks = 0;
	arena_ref block, last = 0;
	while ((block = arena_alloc(&arena, CHANNEL, 100000)) != 0) {
		last = block;
		blocks++;
		arena_commit(&arena);
	}
	ck_assert_int_eq(arena.trouble, ARENA_FULL);
	ck_assert_uint_ge(blocks * 100000, STATE / 10 * 7);
	arena_rollback(&arena);
	ck_assert_int_eq(arena.trouble, ARENA_FINE);
	ck_assert_uint_eq(arena_alloc(&arena, CHANNEL, 2 << 20), 0);
	arena_rollback(&arena);
	ck_assert_uint_ne(arena_alloc(&arena, CHANNEL, 1000), 0); /* what is left of extents is of use */
	arena_free(&arena, CHANNEL, last, 100000);
	arena_commit(&arena);
	ck_assert_uint_eq(arena_alloc(&arena, CHANNEL, 100000), last);
	arena_commit(&arena);
	ck_assert_uint_eq(arena_usage(&arena).extents, arena_usage(&arena).limit);
}
END_TEST

START_TEST(large_blocks_are_cut_up_before_more_is_taken)
{
	arena_ref block = block_of(500000, 'a');
	block_of(500000, 'b');
	arena_commit(&arena);
	uint64_t extents = arena_session_usage(&arena, CHANNEL).extents;
	arena_free(&arena, CHANNEL, block, 500000);
	arena_commit(&arena);
	for (int i = 0; i < 4000; i++)
		block_of(100, 'c');
	arena_commit(&arena);
	ck_assert_uint_eq(arena_session_usage(&arena, CHANNEL).extents, extents);
}
END_TEST

/* ---- Sessions ---------------------------------------------------------------------------------------------------------- */

START_TEST(dropping_a_session_is_part_of_a_unit)
{
	arena_ref block = block_of(3 << 20, 'a');
	word_set(0, 1);
	arena_alloc(&arena, CHANNEL + 1, 100);
	arena_commit(&arena);
	arena_session_drop(&arena, CHANNEL);
	ck_assert_uint_eq(*word(0), 0);
	ck_assert_uint_eq(arena_session_usage(&arena, CHANNEL).extents, 0);
	arena_ref other = arena_alloc(&arena, CHANNEL + 1, 3 << 20); /* not yet what was dropped */
	ck_assert_uint_ne(other, block);
	memset(arena_at(&arena, other), 'b', 3 << 20);
	arena_rollback(&arena);
	ck_assert_uint_eq(*word(0), 1);
	ck_assert(block_is(block, 3 << 20, 'a'));
	arena_session_drop(&arena, CHANNEL);
	arena_commit(&arena);
	ck_assert_uint_eq(arena_usage(&arena).extents, ARENA_EXTENT);
	ck_assert_uint_eq(arena_usage(&arena).freed, 3 << 20);
	ck_assert_uint_eq(arena_alloc(&arena, CHANNEL + 1, 3 << 20), block);
}
END_TEST

/* Bytes that the memory takes. */
static uint64_t memory_used(void)
{
	struct stat status;
	ck_assert_int_eq(fstat(fd, &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

START_TEST(freed_memory_goes_back_in_pieces)
{
	block_of(10 << 20, 'a');
	arena_commit(&arena);
	arena_session_drop(&arena, CHANNEL);
	arena_commit(&arena);
	uint64_t used = memory_used();
	ck_assert_uint_ge(used, 10 << 20);
	ck_assert(arena_idle(&arena));
	ck_assert_uint_lt(memory_used(), used);
	ck_assert_uint_gt(memory_used(), used - (10 << 20));
	while (arena_idle(&arena))
		;
	ck_assert_uint_le(memory_used(), used - (10 << 20));
	ck_assert_uint_eq(arena_usage(&arena).freed, 0);
	ck_assert_uint_ne(block_of(10 << 20, 'b'), 0);
}
END_TEST

START_TEST(a_file_gets_no_holes)
{
	block_of(4 << 20, 'a');
	arena_commit(&arena);
	arena_session_drop(&arena, CHANNEL);
	arena_commit(&arena);
	uint64_t used = memory_used();
	arena.is_file = true;
	while (arena_idle(&arena))
		;
	ck_assert_uint_eq(memory_used(), used);
	ck_assert_uint_eq(arena_usage(&arena).freed, 0);
}
END_TEST

/* An arena as slots have it: large, and mapped where huge pages can be. */
static void setup_large(void)
{
	char why[128];
	bytes = arena_size_for(96 << 20);
	fd = memfd_create("arena", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	uint8_t *room =
	    mmap(NULL, bytes + SLOT_HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(room, MAP_FAILED);
	room += SLOT_HUGE_PAGE - (uintptr_t)room % SLOT_HUGE_PAGE;
	memory = mmap(room, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	ck_assert_ptr_eq(memory, room);
	ck_assert_int_eq(arena_open(&arena, memory, bytes, 7, why), ARENA_OK);
}

/* Takes what is left of what blocks are cut from, and one block more: the bytes of extents that the session grew by. */
static uint64_t grow(void)
{
	const struct session_core *core = &arena_words(&arena, CHANNEL)->core;
	uint64_t before = core->extents;
	while (core->extents == before)
		block_of(HEAP_CLASS_MAX, 'a');
	return (core->extents - before) * ARENA_EXTENT;
}

START_TEST(what_is_filled_is_asked_for)
{
	const struct session_core *core = &arena_words(&arena, CHANNEL)->core;
	unsigned pages = 0, extents = 0;

	while (core->extents < 9)
		ck_assert_uint_eq(grow(), ARENA_EXTENT);
	arena_commit(&arena);
	arena.filling = true;
	for (int i = 0; i < 24; i++) {
		/* Both ways: as if the other had been slower. */
		arena.asking = (struct arena_asking){.huge_ns = i % 4 < 2, .small_ns = i % 4 >= 2};
		while (core->bump < core->bump_end)
			block_of(HEAP_CLASS_MAX, 'a');
		uint64_t used = memory_used(), had = core->extents;
		ck_assert_uint_ne(arena_alloc(&arena, CHANNEL, HEAP_CLASS_MAX), 0);
		uint64_t grown = (core->extents - had) * ARENA_EXTENT;
		pages += grown == SLOT_HUGE_PAGE;
		extents += grown == ARENA_EXTENT;
		if (grown == SLOT_HUGE_PAGE)
			ck_assert_uint_eq((uint64_t)core->bump_end * ARENA_UNIT % SLOT_HUGE_PAGE, 0);
		else /* huge pages are not to be had everywhere */
			ck_assert_uint_eq(memory_used(), used + ARENA_EXTENT);
		if (i % 3 == 0) {
			arena_commit(&arena);
			take_over();
			arena.filling = true;
		}
	}
	ck_assert(pages >= 3 && extents >= 6);
	ck_assert_uint_eq(pages + extents, 24);
	arena_commit(&arena);
	uint64_t had = core->extents;
	arena.asking = (struct arena_asking){0};
	grow();
	arena_rollback(&arena);
	ck_assert_uint_eq(core->extents, had);
	arena.filling = false;
	ck_assert_uint_eq(grow(), ARENA_EXTENT);
}
END_TEST

START_TEST(what_is_filled_takes_the_last_extent_too)
{
	arena.filling = true;
	uint64_t grown = 0;
	while (grown < arena_usage(&arena).limit)
		grown += grow();
	while (arena_alloc(&arena, CHANNEL, 16) != 0)
		;
	ck_assert_int_eq(arena.trouble, ARENA_FULL);
	ck_assert_uint_eq(arena_session_usage(&arena, CHANNEL).extents, arena_usage(&arena).limit);
}
END_TEST

START_TEST(a_file_is_filled_by_extents)
{
	arena.filling = arena.is_file = true;
	for (int i = 0; i < 20; i++)
		ck_assert_uint_eq(grow(), ARENA_EXTENT);
}
END_TEST

/* ---- Taking over ------------------------------------------------------------------------------------------------------- */

START_TEST(sizes_are_checked)
{
	char why[128];
	struct arena small;
	ck_assert_uint_ge(arena_size_for(0), ARENA_EXTENT);
	ck_assert_int_eq(arena_open(&small, memory, ARENA_EXTENT, 7, why), ARENA_DAMAGED);
	static const uint64_t states[] = {1, 1 << 20, 100 << 20, UINT64_C(3) << 30, UINT64_C(50) << 30};
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		uint64_t size = arena_size_for(states[i]);
		void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		ck_assert_ptr_ne(at, MAP_FAILED);
		ck_assert_int_eq(arena_open(&small, at, size, 0, why), ARENA_OK);
		ck_assert_uint_ge(arena_usage(&small).limit, states[i]);
		ck_assert_uint_le(size, states[i] + states[i] / 8 + (4 << 20));
		munmap(at, size);
	}
}
END_TEST

/* Opens what somebody has damaged; there must be words. */
static void expect_damaged(const char *words)
{
	char why[128] = "";
	struct arena other;
	ck_assert_int_eq(arena_open(&other, memory, bytes, 7, why), ARENA_DAMAGED);
	if (strstr(why, words) == NULL)
		ck_abort_msg("\"%s\" does not say \"%s\"", why, words);
}

START_TEST(a_damaged_head_is_found)
{
	char why[128];
	struct arena other;
	struct arena_head *head = arena.head, good;
	for (uint64_t i = 0; i < 3; i++) {
		word_set(0, i);
		arena_commit(&arena);
	}
	good = *head;
	head->magic ^= 1;
	expect_damaged("magic");
	*head = good;
	head->magic = 0; /* not taken for one that was never used */
	expect_damaged("magic");
	*head = good;
	head->version++;
	expect_damaged("layout");
	*head = good;
	head->size += 4096;
	expect_damaged("bytes");
	*head = good;
	head->extent_count++;
	expect_damaged("layout");
	*head = good;
	head->commits = 0;
	expect_damaged("the log is that of unit");
	*head = good;
	ck_assert_int_eq(arena_open(&other, memory, bytes, 8, why), ARENA_DAMAGED);
	ck_assert_ptr_nonnull(strstr(why, "slot 7, not of slot 8"));
	take_over();
}
END_TEST

START_TEST(a_damaged_log_is_found)
{
	word_set(0, 1);
	arena_commit(&arena);
	word_set(0, 2);
	uint64_t record = arena.log_records[0], length = arena.head->log_word;
	static const uint64_t offsets[] = {0, 64, 4000};
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		arena.log_records[0] = offsets[i] << ARENA_SIZE_BITS | 8; /* into the head */
		expect_damaged("record 0");
	}
	arena.log_records[0] = bytes << ARENA_SIZE_BITS | 8;
	expect_damaged("record 0");
	arena.log_records[0] = arena_offset(&arena, arena.log_records) << ARENA_SIZE_BITS | 8;
	expect_damaged("record 0");
	arena.log_records[0] = record | ((1 << ARENA_SIZE_BITS) - 1);
	expect_damaged("record 0");
	arena.log_records[0] = record;
	arena.head->log_word = length | ((1 << ARENA_COUNT_BITS) - 1);
	expect_damaged("no room");
	arena.head->log_word = length;
	take_over();
	ck_assert_uint_eq(*word(0), 1);
}
END_TEST

START_TEST(damaged_sessions_are_found)
{
	struct session_core *core = &arena_words(&arena, CHANNEL)->core;
	block_of(100, 'a');
	arena_commit(&arena);
	struct session_core good = *core;
	core->bump = 1;
	expect_damaged("channel 5");
	*core = good;
	core->bump_end = core->bump - 1;
	expect_damaged("channel 5");
	*core = good;
	core->bump_end = UINT32_MAX;
	expect_damaged("channel 5");
	*core = good;
	core->extents = UINT32_MAX;
	expect_damaged("channel 5");
	*core = good;
	arena.extents[3] = 200;
	expect_damaged("extent 3");
	arena.extents[3] = EXTENT_FREE;
	take_over();
}
END_TEST

START_TEST(a_damaged_list_is_trouble_when_it_is_touched)
{
	arena_ref a = block_of(64, 'a'), b = block_of(64, 'b');
	arena_commit(&arena);
	arena_free(&arena, CHANNEL, a, 64);
	arena_free(&arena, CHANNEL, b, 64);
	arena_commit(&arena);
	memset(arena_at(&arena, b), 0xff, 64);
	ck_assert_uint_eq(arena_alloc(&arena, CHANNEL, 64), b);
	ck_assert_uint_eq(arena_alloc(&arena, CHANNEL, 64), 0);
	ck_assert_int_eq(arena.trouble, ARENA_BROKEN);
}
END_TEST

/* ---- Fault points -------------------------------------------------------------------------------------------------------- */

/* A workload that comes to every point of the arena and the state: units of the model, and beside them a session that is dropped,
 * restored from what the other has sent, and memory that is given back. */
struct workload {
	struct model *model;
	struct model_rig *rig;
	uint64_t units; /* to be made */
};

enum { OTHER = 9 };

/* A second session that gets a copy of the first one's state, clean, in a unit of its own. */
static void workload_restore(struct workload *work)
{
	struct arena *at = &work->rig->arena;
	struct state_store *other = state_store_create(at, OTHER);
	const char *why;
	for (uint32_t i = 0; i < state_count(work->rig->store); i++)
		ck_assert_ptr_nonnull(state_open(other, state_spec_of(work->rig->store, i)));
	for (uint32_t i = 0; i < 5; i++) {
		uint8_t sub[10] = {0, 0x80, 0, 0, 0, 0, 0, 0, (uint8_t)i, 't'};
		uint8_t piece[5] = {1, 0, 0, 0, (uint8_t)i}, place[8] = {0, 0, 0, 0, 0, 0, 0, (uint8_t)i};
		struct state_entry entries[] = {
		    {.state = MODEL_VALUE, .key = view_of("k"), .value = {piece, 5}},
		    {.state = MODEL_MAP, .key = view_of("k"), .sub = {place, 8}, .value = {piece, 5}},
		    {.state = MODEL_LIST, .key = view_of("k"), .sub = {place, 8}, .value = {piece, 5}},
		    {.state = MODEL_TIMERS, .key = view_of("k"), .sub = {sub, 10}},
		};
		for (size_t k = i == 0 ? 0 : 1; k < sizeof(entries) / sizeof(entries[0]); k++)
			ck_assert_int_eq(state_restore(other, &entries[k], &why), STATE_OK);
	}
	arena_commit(at);
	arena_session_drop(at, OTHER);
	arena_commit(at);
	while (arena_idle(at))
		;
	state_store_destroy(other);
}

/* Opens the arena and makes what is left of the units. */
static void workload_run(struct workload *work)
{
	char why[128];
	struct model_rig *rig = work->rig;
	if (arena_open(&rig->arena, memory, bytes, 7, why) != ARENA_OK)
		ck_abort_msg("%s", why);
	if (arena_session_usage(&rig->arena, OTHER).extents > 0) {
		arena_session_drop(&rig->arena, OTHER);
		arena_commit(&rig->arena);
	}
	model_rig_attach(rig);
	arena_commit(&rig->arena);
	while (work->model->units < model_rig_units(rig))
		model_unit(work->model, NULL);
	model_check(work->model, rig);
	arena_rollback(&rig->arena);
	while (work->model->units < work->units) {
		model_unit(work->model, rig);
		arena_commit(&rig->arena);
		if (work->model->units % 50 == 0)
			workload_restore(work);
	}
	model_check(work->model, rig);
	state_store_destroy(rig->store);
}

/* Zeroes the arena: nobody has used it. */
static void forget(void)
{
	ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes), 0);
}

/* The workload in a child with a point armed; returns whether it died there. */
static bool workload_dies(enum fault fault, uint64_t pass, uint64_t units)
{
	int status;
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		struct model_rig rig = {0};
		struct workload work = {calloc(1, sizeof(struct model)), &rig, units};
		fault_arm(fault, pass);
		workload_run(&work);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return false;
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGKILL);
	return true;
}

#ifdef FAULT_POINTS
enum { FAULT_UNITS = 150 };

/* Dies at every point, at passes ever further on, and goes on as if nothing had been. */
START_TEST(death_at_every_fault_point_leaves_whole_units)
{
	enum fault fault = (enum fault)_i;
	uint64_t deaths = 0;
	for (uint64_t pass = 1;; pass = pass * 5 + 2) {
		forget();
		bool died = workload_dies(fault, pass, FAULT_UNITS);
		struct model_rig rig = {0};
		struct workload work = {calloc(1, sizeof(struct model)), &rig, FAULT_UNITS};
		fault_arm(fault, 0);
		workload_run(&work);
		free(work.model);
		if (!died)
			break;
		deaths++;
	}
	if (deaths == 0)
		ck_abort_msg("%s is never reached", fault_name(fault));
}
END_TEST
#else
/* Elsewhere there are no points to die at, and arming all of them one by one changes nothing. */
START_TEST(death_at_every_fault_point_leaves_whole_units)
{
	struct model_rig rig = {0};
	struct workload work = {calloc(1, sizeof(struct model)), &rig, 0};
	forget();
	for (enum fault fault = FAULT_arena_format; fault <= FAULT_sweep; fault++) {
		ck_assert(!workload_dies(fault, 1, work.units + 5));
		work.units += 10;
		fault_arm(fault, 1);
		workload_run(&work);
		ck_assert_uint_eq(fault_passes(fault), 0);
	}
	free(work.model);
}
END_TEST
#endif

static Suite *arena_suite(void)
{
	Suite *suite = suite_create("arena");
	TCase *tests = tcase_create("invariants");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, A1_an_arena_is_good_wherever_it_is_mapped);
	tcase_add_test(tests, A2_what_is_overwritten_comes_back);
	tcase_add_test(tests, A2_a_freed_block_waits_for_the_next_unit);
	tcase_add_test(tests, A2_free_lists_come_back);
	tcase_add_test(tests, A3_a_log_of_another_unit_is_void);
	tcase_add_test(tests, A4_commit_is_one_store);
	tcase_add_test(tests, A4_a_unit_that_changed_nothing_is_not_counted);
	tcase_add_test(tests, A5_a_process_killed_anywhere_leaves_whole_units);
	tcase_add_test(tests, A6_what_is_read_at_a_takeover_is_what_was_committed);
	tcase_add_test(tests, A7_words_are_logged_once_per_unit_and_mark);
	tcase_add_test(tests, A7_a_stamp_from_anywhere_is_never_mistaken);
	tcase_add_test(tests, A7_what_is_new_is_not_logged_but_behind_a_mark);
	suite_add_tcase(suite, tests);
	tests = tcase_create("units");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, marks_undo_what_is_behind_them);
	tcase_add_test(tests, a_full_log_is_trouble_and_can_still_be_undone);
	tcase_add_test(tests, a_log_full_of_records_is_counted);
	tcase_add_test_raise_signal(tests, a_unit_in_trouble_cannot_commit, SIGABRT);
	tcase_add_test(tests, broken_stays_broken);
	suite_add_tcase(suite, tests);
	tests = tcase_create("heap");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, sizes_are_close_to_what_was_asked_for);
	tcase_add_test(tests, blocks_do_not_overlap);
	tcase_add_test(tests, extents_of_units_that_are_undone_are_free_again);
	tcase_add_test(tests, a_full_arena_refuses_and_goes_on);
	tcase_add_test(tests, large_blocks_are_cut_up_before_more_is_taken);
	suite_add_tcase(suite, tests);
	tests = tcase_create("sessions");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, dropping_a_session_is_part_of_a_unit);
	tcase_add_test(tests, freed_memory_goes_back_in_pieces);
	tcase_add_test(tests, a_file_gets_no_holes);
	suite_add_tcase(suite, tests);
	tests = tcase_create("filling");
	tcase_add_checked_fixture(tests, setup_large, teardown);
	tcase_add_test(tests, what_is_filled_is_asked_for);
	tcase_add_test(tests, what_is_filled_takes_the_last_extent_too);
	tcase_add_test(tests, a_file_is_filled_by_extents);
	suite_add_tcase(suite, tests);
	tests = tcase_create("takeover");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, sizes_are_checked);
	tcase_add_test(tests, a_damaged_head_is_found);
	tcase_add_test(tests, a_damaged_log_is_found);
	tcase_add_test(tests, damaged_sessions_are_found);
	tcase_add_test(tests, a_damaged_list_is_trouble_when_it_is_touched);
	suite_add_tcase(suite, tests);
	tests = tcase_create("faults");
	tcase_add_checked_fixture(tests, setup, teardown);
#ifdef FAULT_POINTS
	tcase_add_loop_test(tests, death_at_every_fault_point_leaves_whole_units, 0, FAULT_sweep + 1);
#else
	tcase_add_test(tests, death_at_every_fault_point_leaves_whole_units);
#endif
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(arena_suite)
