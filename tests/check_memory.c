/*
 * What a worker does when it gets no memory: it leaves with EXIT_MEMORY, so that neither a step nor a record is blamed and no policy
 * passes it over. Each case is a process of its own.
 */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/roles.h"
#include "shared/log.h"
#include "worker/jq_program.h"
#include "worker/memory.h"
#include "worker/window.h"

#include "tests/check_main.h"

enum { MANY = 64 << 20, BOUND = 16 << 20 };

/* Bytes that take none of the memory that is bounded. */
static struct view many_bytes(void)
{
	uint8_t *bytes = mmap(NULL, MANY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(bytes != MAP_FAILED);
	return (struct view){bytes, MANY};
}

static void make_memory(void)
{
	memory_bound(BOUND);
	memory_make(1, MANY, "a test");
}

static void add_to_window(void)
{
	struct windows *windows = windows_create(UINT64_MAX);
	struct window_name name = {.key = view_of("key")};
	struct view message = many_bytes();

	memory_bound(BOUND);
	windows_add(windows, &name, message, 1);
}

static void open_window(void)
{
	struct windows *windows = windows_create(UINT64_MAX);
	struct window_name name = {.key = many_bytes()};

	memory_bound(BOUND);
	windows_add(windows, &name, view_of("message"), 1);
}

static void change_letters(void)
{
	struct jq_program *program = jq_program_get("ascii_downcase", NULL, 0);
	struct view bytes = many_bytes();
	jv output;

	memset((uint8_t *)bytes.data, 'A', bytes.size);
	jv text = jv_string_sized((const char *)bytes.data, (int)bytes.size);
	memory_bound(BOUND);
	jq_program_one(program, text, &output);
}

static void grow_a_jq_value(void)
{
	struct jq_program *program = jq_program_get("[range(100000000)] | length", NULL, 0);
	jv output;

	memory_bound(BOUND);
	jq_program_one(program, jv_null(), &output);
}

static void (*const cases[])(void) = {make_memory, add_to_window, open_window, change_letters, grow_a_jq_value};

enum { CASES = sizeof(cases) / sizeof(cases[0]) };

START_TEST(without_memory_a_worker_leaves)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		cases[_i]();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "signal %d", WTERMSIG(status));
	ck_assert_int_eq(WEXITSTATUS(status), EXIT_MEMORY);
}
END_TEST

static Suite *memory_suite(void)
{
	Suite *suite = suite_create("memory");
	TCase *tests = tcase_create("all");

	log_init("check_memory", LOG_ERROR);
	tcase_add_loop_test(tests, without_memory_a_worker_leaves, 0, CASES);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(memory_suite)
