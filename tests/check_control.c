/*
 * The control memory: sections that only their writer can write, read by everybody; doorbells and clocks.
 */
#include "shared/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/log.h"
#include "tests/check_main.h"

enum { SLOTS = 3, SEGMENTS = 5, STEPS = 11 };

static struct control_memory memory; /* as the supervisor has it */

static void setup(void)
{
	ck_assert_int_eq(control_create(&memory, SLOTS, SEGMENTS, STEPS), 0);
}

static void teardown(void)
{
	control_destroy(&memory);
}

/* The number of open descriptors. */
static int count_fds(void)
{
	int count = 0;
	DIR *fds = opendir("/proc/self/fd");
	while (readdir(fds) != NULL)
		count++;
	closedir(fds);
	return count;
}

/* Whether a write of one byte there kills a child of this process. */
static bool is_forbidden(void *address)
{
	int status;
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it */
		volatile uint8_t *byte = address;
		uint8_t kept = *byte;
		*byte = kept;
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

/* The last byte before an address. */
static void *before(void *address)
{
	return (uint8_t *)address - 1;
}

START_TEST(sections_are_on_pages_of_their_own)
{
	const struct control *control = memory.control;
	ck_assert_uint_eq(control->slot_count, SLOTS);
	ck_assert_uint_eq(control->segment_count, SEGMENTS);
	ck_assert_uint_eq(control->step_count, STEPS);
	ck_assert_uint_ge(control->front_offset, sizeof(struct control));
	ck_assert_uint_ge(control->worker_offset, control->front_offset + sizeof(struct front_page) +
						      SEGMENTS * sizeof(struct front_segment_counters));
	ck_assert_uint_ge(control->worker_stride, sizeof(struct worker_page) +
						      SEGMENTS * sizeof(struct worker_segment_counters) +
						      STEPS * sizeof(struct worker_step_counters));
	ck_assert_uint_eq(control->bytes, control->worker_offset + SLOTS * control->worker_stride);
	ck_assert_uint_eq(control->front_offset % 4096, 0);
	ck_assert_uint_eq(control->worker_offset % 4096, 0);
	ck_assert_uint_eq(control->worker_stride % 4096, 0);
}
END_TEST

START_TEST(counters_follow_one_another)
{
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		uint8_t *next = (uint8_t *)(control_worker(&memory, slot) + 1);
		for (uint32_t i = 0; i < SEGMENTS; i++) {
			ck_assert_ptr_eq(control_worker_segment(&memory, slot, i), next);
			next += sizeof(struct worker_segment_counters);
		}
		for (uint32_t i = 0; i < STEPS; i++) {
			ck_assert_ptr_eq(control_worker_step(&memory, slot, i), next);
			next += sizeof(struct worker_step_counters);
		}
		ck_assert(next <= memory.workers + (slot + 1) * memory.control->worker_stride);
	}
}
END_TEST

START_TEST(sizes_are_checked)
{
	struct control_memory refused;
	int fds = count_fds();
	ck_assert_int_eq(control_create(&refused, 0, 1, 1), -1);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_int_eq(control_create(&refused, SLOTS_MAX + 1, 1, 1), -1);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_int_eq(count_fds(), fds);
	ck_assert_int_eq(control_create(&refused, SLOTS_MAX, 200, 2000), 0);
	control_destroy(&refused);
	ck_assert_int_eq(count_fds(), fds);
}
END_TEST

START_TEST(the_front_can_write_its_page_alone)
{
	int fds = count_fds();
	ck_assert_int_eq(control_attach_front(&memory), 0);
	ck_assert_int_eq(count_fds(), fds - 1);
	ck_assert(is_forbidden(memory.control));
	ck_assert(is_forbidden(before(memory.front)));
	ck_assert(!is_forbidden(memory.front));
	ck_assert(!is_forbidden(&memory.front->segment[SEGMENTS - 1]));
	ck_assert(!is_forbidden(before(memory.workers)));
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		ck_assert(is_forbidden(control_worker(&memory, slot)));
}
END_TEST

START_TEST(a_worker_can_write_its_page_alone)
{
	int fds = count_fds();
	ck_assert_int_eq(control_attach_worker(&memory, 1), 0);
	ck_assert_int_eq(count_fds(), fds - 1);
	ck_assert(is_forbidden(memory.control));
	ck_assert(is_forbidden(memory.front));
	ck_assert(is_forbidden(control_worker(&memory, 0)));
	ck_assert(is_forbidden(before(control_worker(&memory, 1))));
	ck_assert(!is_forbidden(control_worker(&memory, 1)));
	ck_assert(!is_forbidden(control_worker_step(&memory, 1, STEPS - 1)));
	ck_assert(!is_forbidden(before(control_worker(&memory, 2))));
	ck_assert(is_forbidden(control_worker(&memory, 2)));
}
END_TEST

/* A worker's part in the next test: waits for its order, counts, and rings. */
static void answer_the_order(void)
{
	struct pollfd bell = {.fd = memory.front_bell, .events = POLLIN};
	if (control_attach_worker(&memory, 2) != 0 || poll(&bell, 1, -1) != 1)
		_exit(1);
	if (memory.control->slot[2].life[1].order != ORDER_STOP)
		_exit(2);
	counter_add(&control_worker(&memory, 2)->counters.frames, 9);
	control_worker(&memory, 2)->ready_generation = memory.control->slot[2].generation;
	doorbell_ring(memory.supervisor_bell);
	_exit(0);
}

/* The last deaths of a slot are known by number; older ones and those still to come are not. */
START_TEST(a_successor_learns_how_its_predecessor_ended)
{
	struct control_slot *slot = &memory.control->slot[1];

	ck_assert_int_eq(control_death_cause(slot, 0), DEATH_UNKNOWN);
	ck_assert_int_eq(control_death_cause(slot, 3), DEATH_UNKNOWN);
	for (uint32_t number = 1; number <= 3 * DEATHS_PUBLISHED; number++) {
		struct control_death *death = &slot->death[number % DEATHS_PUBLISHED];
		atomic_store(&death->cause, number % 2 == 0 ? DEATH_CODE : DEATH_OUTSIDE);
		atomic_store(&death->number, number);
		ck_assert_int_eq(control_death_cause(slot, number), number % 2 == 0 ? DEATH_CODE : DEATH_OUTSIDE);
		ck_assert_int_eq(control_death_cause(slot, number + 1), DEATH_UNKNOWN);
	}
	ck_assert_int_eq(control_death_cause(slot, 2 * DEATHS_PUBLISHED), DEATH_UNKNOWN);
	ck_assert_int_eq(control_death_cause(slot, 2 * DEATHS_PUBLISHED + 2), DEATH_CODE);
	ck_assert_str_eq(death_cause_name(DEATH_WATCHDOG), "watchdog");
	ck_assert(death_blames_code(DEATH_WATCHDOG) && death_blames_code(DEATH_CODE));
	ck_assert(!death_blames_code(DEATH_OUTSIDE) && !death_blames_code(DEATH_MEMORY) &&
		  !death_blames_code(DEATH_UNKNOWN));
}
END_TEST

/* A life begins with nothing of the one whose place it has. */
START_TEST(a_life_begins_cleared)
{
	struct life *life = &control_worker(&memory, 0)->lives[2];
	const struct birth birth = {.place = 2, .number = 9, .code = 4};

	memset(life, 0xff, sizeof(*life));
	life_begin(life, &birth, 77);
	ck_assert_uint_eq(life->number, 9);
	ck_assert_uint_eq(life->state, LIFE_LOADING);
	ck_assert_int_eq(life->pid, 77);
	ck_assert_uint_eq(life->code, 4);
	ck_assert_uint_eq(life->frames_done, 0);
	ck_assert_uint_eq(life->first_commit_ns, 0);
	ck_assert_uint_eq(life->progress.since_ns, 0);
	ck_assert_uint_eq(life->progress.step, UINT32_MAX);
}
END_TEST

START_TEST(all_see_what_one_writes)
{
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		answer_the_order();
	memory.control->slot[2].generation = 4;
	memory.control->slot[2].life[1].order = ORDER_STOP;
	doorbell_ring(memory.front_bell); /* any doorbell will do */
	struct pollfd bell = {.fd = memory.supervisor_bell, .events = POLLIN};
	int status = 0;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(poll(&bell, 1, 0), 1);
	ck_assert_uint_eq(control_worker(&memory, 2)->ready_generation, 4);
	ck_assert_uint_eq(counter_read(&control_worker(&memory, 2)->counters.frames), 9);
}
END_TEST

START_TEST(doorbells_add_up_and_never_block)
{
	uint64_t rings;
	for (int i = 0; i < 1000; i++)
		doorbell_ring(memory.supervisor_bell);
	ck_assert_int_eq(read(memory.supervisor_bell, &rings, sizeof(rings)), sizeof(rings));
	ck_assert_uint_eq(rings, 1000);
	ck_assert_int_eq(read(memory.supervisor_bell, &rings, sizeof(rings)), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(fcntl(memory.front_bell, F_GETFL) & O_NONBLOCK, 0); /* a thread blocks on this one */
	doorbell_ring(memory.front_bell);
	ck_assert_int_eq(read(memory.front_bell, &rings, sizeof(rings)), sizeof(rings));
	ck_assert_uint_eq(rings, 1);
}
END_TEST

START_TEST(destroying_leaves_nothing_open)
{
	int fds = count_fds();
	struct control_memory other;
	for (int round = 0; round < 3; round++) {
		ck_assert_int_eq(control_create(&other, 1, 1, 1), 0);
		if (round == 1)
			ck_assert_int_eq(control_attach_front(&other), 0);
		if (round == 2)
			ck_assert_int_eq(control_attach_worker(&other, 0), 0);
		uint8_t *map = (uint8_t *)other.control;
		control_destroy(&other);
		ck_assert_int_eq(count_fds(), fds);
		ck_assert(is_forbidden(map));
	}
}
END_TEST

START_TEST(a_slot_that_is_none_aborts)
{
	control_worker(&memory, SLOTS);
}
END_TEST

START_TEST(a_step_that_is_none_aborts)
{
	control_worker_step(&memory, 0, STEPS);
}
END_TEST

START_TEST(clocks_run)
{
	uint64_t first = clock_ns();
	ck_assert_uint_gt(first, 0);
	ck_assert_uint_ge(clock_ns(), first);
	time_t now = time(NULL);
	ck_assert_int_ge(clock_wall_ms() / 1000, now);
}
END_TEST

static Suite *control_suite(void)
{
	Suite *suite = suite_create("control");
	TCase *tests = tcase_create("control");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, sections_are_on_pages_of_their_own);
	tcase_add_test(tests, counters_follow_one_another);
	tcase_add_test(tests, sizes_are_checked);
	tcase_add_test(tests, the_front_can_write_its_page_alone);
	tcase_add_test(tests, a_worker_can_write_its_page_alone);
	tcase_add_test(tests, all_see_what_one_writes);
	tcase_add_test(tests, a_successor_learns_how_its_predecessor_ended);
	tcase_add_test(tests, a_life_begins_cleared);
	tcase_add_test(tests, doorbells_add_up_and_never_block);
	tcase_add_test(tests, destroying_leaves_nothing_open);
	tcase_add_test_raise_signal(tests, a_slot_that_is_none_aborts, SIGABRT);
	tcase_add_test_raise_signal(tests, a_step_that_is_none_aborts, SIGABRT);
	tcase_add_test(tests, clocks_run);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(control_suite)
