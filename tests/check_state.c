/*
 * The state: every call, bounds, what expires, the order of timers, deltas and restores, and the whole against a model, in one
 * process and with children that are killed.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check_main.h"
#include "tests/state_model.h"

static struct model_rig rig;
static uint64_t arena_bytes;

/* A fresh arena that children share. */
static void make_arena(uint64_t state)
{
	char why[128];
	arena_bytes = arena_size_for(state);
	void *memory =
	    mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	ck_assert_int_eq(arena_open(&rig.arena, memory, arena_bytes, 0, why), ARENA_OK);
}

static void setup(void)
{
	make_arena(64 << 20);
	model_rig_attach(&rig);
	arena_commit(&rig.arena);
}

static void teardown(void)
{
	state_store_destroy(rig.store);
	munmap(rig.arena.base, arena_bytes);
}

/* Opens the arena anew, as a successor does. */
static void take_over(void)
{
	char why[128];
	state_store_destroy(rig.store);
	if (arena_open(&rig.arena, rig.arena.base, arena_bytes, 0, why) != ARENA_OK)
		ck_abort_msg("%s", why);
	model_rig_attach(&rig);
}

/* How much longer than usual: CHAOS=n. */
static uint64_t chaos(void)
{
	const char *times = getenv("CHAOS");
	uint64_t number = times == NULL ? 1 : strtoull(times, NULL, 10);
	return number == 0 ? 1 : number;
}

START_TEST(it_is_what_a_simple_model_says)
{
	struct model *model = calloc(1, sizeof(*model));
	for (uint64_t i = 0; i < 6000 * chaos(); i++) {
		model_unit(model, &rig);
		arena_commit(&rig.arena);
		if (i % 64 == 63)
			take_over();
		if (i % 8 == 7)
			model_check(model, &rig);
	}
	model_delta(model, &rig);
	struct model_pieces seen = model_walk(model, &rig);
	ck_assert_mem_eq(seen.pieces, model->mirror_pieces, sizeof(seen.pieces));
	free(model);
}
END_TEST

/* Goes on from where the arena is, until it is killed. */
static void child_run(struct model *model)
{
	take_over();
	for (;;) {
		model_unit(model, &rig);
		arena_commit(&rig.arena);
	}
}

/* Lets a child run for some time, and kills it. Returns whether it was still running, as it must. */
static bool child_kill(struct model *model, uint32_t us)
{
	int status;
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		child_run(model);
	usleep(us); /* any time is right: it is where the child dies */
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Makes on the model what the dead have committed. */
static void follow(struct model *model)
{
	uint64_t units = model_rig_units(&rig);
	ck_assert_uint_ge(units, model->units);
	while (model->units < units)
		model_unit(model, NULL);
}

START_TEST(a_killed_process_leaves_whole_units)
{
	struct model *model = calloc(1, sizeof(*model));
	struct model_dice dice = {(uint64_t)getpid()};
	uint64_t units = 0;
	for (uint64_t i = 0; i < 600 * chaos(); i++) {
		ck_assert(child_kill(model, model_roll(&dice, 3000)));
		take_over();
		follow(model);
		model_check(model, &rig);
		arena_rollback(&rig.arena);
		units = model->units;
	}
	ck_assert_uint_gt(units, 0);
	free(model);
}
END_TEST

/* What a process knows of the state by its own calls stands while they do, and no longer. */
START_TEST(its_generation_changes_with_what_is_undone_or_restored)
{
	static const struct state_spec spec = {.step = "generation", .name = "value", .kind = STATE_VALUE};
	struct state *value = state_open(rig.store, &spec);
	struct state_entry entry = {.state = state_count(rig.store) - 1, .key = view_of("k"), .value = view_of("v")};
	const char *why;

	ck_assert_ptr_nonnull(value);
	arena_commit(&rig.arena);
	uint64_t generation = state_generation(rig.store);
	state_key(rig.store, view_of("a"), 1, 1);
	ck_assert_int_eq(state_put(value, view_of("1")), STATE_OK);
	arena_commit(&rig.arena);
	uint64_t mark = arena_mark(&rig.arena);
	ck_assert_int_eq(state_put(value, view_of("2")), STATE_OK);
	ck_assert_uint_eq(state_generation(rig.store), generation);
	arena_undo_to(&rig.arena, mark);
	ck_assert_uint_ne(state_generation(rig.store), generation);
	generation = state_generation(rig.store);
	arena_rollback(&rig.arena);
	ck_assert_uint_ne(state_generation(rig.store), generation);
	generation = state_generation(rig.store);
	ck_assert_int_eq(state_restore(rig.store, &entry, &why), STATE_OK);
	ck_assert_uint_ne(state_generation(rig.store), generation);
}
END_TEST

static Suite *state_suite(void)
{
	Suite *suite = suite_create("state");
	TCase *tests = tcase_create("model");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, it_is_what_a_simple_model_says);
	tcase_add_test(tests, a_killed_process_leaves_whole_units);
	tcase_add_test(tests, its_generation_changes_with_what_is_undone_or_restored);
	tcase_set_timeout(tests, 120 * (double)chaos());
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(state_suite)
