/* The memory budget: the sum, the limits of containers, the verdict. */
#include <jv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/budget.h"
#include "server/sup.h"
#include "shared/json.h"
#include "tests/check_main.h"

static struct config config;
static struct findings findings;
static struct budget budget;
static char root[64];

static const struct step_spec steps[] = {{.name = "one", .kind = STEP_map}, {.name = "two", .kind = STEP_python}};
static const struct segment segments[] = {{.name = "a", .steps = steps, .step_count = 1},
					  {.name = "b", .steps = steps, .step_count = 1}};
static const struct segment with_python[] = {{.name = "a", .steps = steps, .step_count = 1},
					     {.name = "b", .steps = steps, .step_count = 2}};
static const struct descriptor two_segments = {
    .pipeline = "p", .segments = segments, .segment_count = 2, .step_count = 5};
static const struct descriptor with_a_template = {
    .pipeline = "p", .segments = with_python, .segment_count = 2, .step_count = 5};

/* The defaults, with so many slots. */
static void make(uint32_t slots)
{
	char *arguments[] = {"bridged", "--descriptor", "d", "--listen", ":1"};

	config_read(&config, 5, arguments, &findings);
	config.slots = slots;
	config_complete(&config, two_segments.segment_count, &findings);
	ck_assert_uint_eq(findings.count, 0);
	budget_compute(&budget, &config, &two_segments);
}

/* Writes a file below the root that stands for a machine, with the folders above it. */
static void put(const char *path, const char *text)
{
	char full[512];

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		mkdir(full, 0700);
		*at = '/';
	}
	FILE *file = fopen(full, "w");
	ck_assert_msg(file != NULL, "%s", full);
	fputs(text, file);
	fclose(file);
}

static void set_up(void)
{
	strcpy(root, "/tmp/budgetXXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	put("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");
}

static void clean(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	ck_assert_int_eq(system(command), 0);
	findings_deinit(&findings);
	config_deinit(&config);
}

START_TEST(the_sum_is_that_of_its_lines_and_of_the_slots)
{
	struct slot_sizes sizes;
	uint64_t sum = 0;

	make(3);
	uint64_t three = budget.total;
	for (uint32_t i = 0; i < budget.count; i++)
		sum += budget.lines[i].count * budget.lines[i].each;
	ck_assert_uint_eq(sum, budget.total);
	sizes = config_slot_sizes(&config);
	ck_assert_uint_ge(three, 3 * slot_memory_max(&sizes) + 3 * config.window_bytes_max);
	config_deinit(&config);
	make(4);
	ck_assert_uint_ge(budget.total - three, slot_memory_max(&sizes));
}
END_TEST

START_TEST(a_bound_of_workers_counts_in_full)
{
	make(3);
	uint64_t before = budget.total;
	config.worker_memory = UINT64_C(512) << 20;
	budget_compute(&budget, &config, &two_segments);
	ck_assert_uint_eq(budget.total - before, 3 * (UINT64_C(488) << 20)); /* the heirs' are as they were */
	config_deinit(&config);
}
END_TEST

START_TEST(a_template_counts_once)
{
	struct budget with;

	make(3);
	config.worker_memory = 64 << 20;
	budget_compute(&budget, &config, &two_segments);
	budget_compute(&with, &config, &with_a_template);
	ck_assert_uint_eq(with.count, budget.count + 1);
	ck_assert_uint_eq(with.total - budget.total, 24 << 20);
}
END_TEST

START_TEST(state_memory_that_nobody_asked_for_makes_room)
{
	make(4);
	uint64_t total = budget.total;
	ck_assert_uint_eq(config.state_memory, STATE_MEMORY_PLENTY);
	config.memory_limit = total;
	budget_find_limit(&budget, &config, root);
	budget_fit_state(&budget, &config, &two_segments);
	ck_assert_uint_eq(config.state_memory, STATE_MEMORY_PLENTY);
	config.memory_limit = total - 4 * (UINT64_C(100) << 20);
	budget_find_limit(&budget, &config, root);
	budget_fit_state(&budget, &config, &two_segments);
	ck_assert_uint_eq(config.state_memory, UINT64_C(156) << 20);
	ck_assert_uint_eq(budget.total, config.memory_limit);
	ck_assert_str_eq(budget.from, "--memory-limit");
	ck_assert(budget_check(&budget, &config, &findings));
	config.memory_limit = total - 4 * (UINT64_C(255) << 20);
	budget_find_limit(&budget, &config, root);
	budget_fit_state(&budget, &config, &two_segments);
	ck_assert_uint_eq(config.state_memory, STATE_MEMORY_MIN);
}
END_TEST

/* What was asked for by name is refused rather than made less; what is kept in files is no memory. */
START_TEST(state_memory_that_was_asked_for_stays)
{
	make(4);
	uint64_t total = budget.total;
	config.state_memory_auto = false;
	config.memory_limit = total - 1;
	budget_find_limit(&budget, &config, root);
	budget_fit_state(&budget, &config, &two_segments);
	ck_assert_uint_eq(config.state_memory, STATE_MEMORY_PLENTY);
	ck_assert(!budget_check(&budget, &config, &findings));
	ck_assert_ptr_nonnull(strstr(findings.text[0], "--state-memory"));
	config.state_dir = strdup("/var/lib/bridge");
	budget_compute(&budget, &config, &two_segments);
	ck_assert_uint_eq(budget.total, total - 4 * STATE_MEMORY_PLENTY);
}
END_TEST

START_TEST(the_machine_is_the_limit_where_there_is_no_other)
{
	make(1);
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(16) << 30);
	ck_assert_str_eq(budget.from, "the machine's memory");
	ck_assert(budget_check(&budget, &config, &findings));
}
END_TEST

START_TEST(the_flag_wins_over_everything)
{
	make(1);
	config.memory_limit = UINT64_C(64) << 30;
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(64) << 30);
	ck_assert_str_eq(budget.from, "--memory-limit");
}
END_TEST

#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

START_TEST(any_group_above_binds_in_version_two)
{
	make(1);
	put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" V2_MOUNT);
	put("/proc/self/cgroup", "0::/pods/one/main\n");
	put("/sys/fs/cgroup/pods/one/main/memory.max", "max\n");
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(16) << 30);
	put("/sys/fs/cgroup/pods/one/memory.max", "2147483648\n");
	put("/sys/fs/cgroup/pods/memory.max", "8589934592\n");
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(2) << 30);
	ck_assert_str_eq(budget.from, "/sys/fs/cgroup/pods/one/memory.max");
	put("/sys/fs/cgroup/pods/memory.max", "1073741824\n");
	budget_find_limit(&budget, &config, root);
	ck_assert_str_eq(budget.from, "/sys/fs/cgroup/pods/memory.max");
}
END_TEST

START_TEST(inside_a_container_the_mounts_own_root_is_looked_at)
{
	make(1);
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/proc/self/cgroup", "0::/kubepods/of/the/host\n");
	put("/sys/fs/cgroup/memory.max", "536870912\n");
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(512) << 20);
	ck_assert_str_eq(budget.from, "/sys/fs/cgroup/memory.max");
}
END_TEST

START_TEST(version_one_is_read_beside_version_two)
{
	make(1);
	put("/proc/self/mountinfo", "31 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
				    "32 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
				    "33 23 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
	put("/proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/a/b\n0::/a\n");
	put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(16) << 30); /* that number means none */
	put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3221225472\n");
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(3) << 30);
}
END_TEST

START_TEST(nonsense_in_the_files_is_no_limit)
{
	make(1);
	put("/proc/self/mountinfo", "garbage\n - \n" V2_MOUNT);
	put("/proc/self/cgroup", "garbage\n::\n0::\n0::/x\n");
	put("/sys/fs/cgroup/x/memory.max", "many\n");
	put("/sys/fs/cgroup/memory.max", "");
	budget_find_limit(&budget, &config, root);
	ck_assert_uint_eq(budget.limit, UINT64_C(16) << 30);
}
END_TEST

START_TEST(too_much_is_refused_with_what_would_fit)
{
	char text[64];

	make(100);
	config.memory_limit = UINT64_C(2) << 30;
	budget_find_limit(&budget, &config, root);
	ck_assert(!budget_check(&budget, &config, &findings));
	ck_assert_uint_eq(findings.count, 2);
	ck_assert_ptr_nonnull(strstr(findings.text[0], "lower --slots"));
	ck_assert_ptr_nonnull(strstr(findings.text[0], "--memory-limit allows 2.0 GiB"));
	unsigned fit = 0;
	ck_assert_int_eq(sscanf(strstr(findings.text[1], "is, "), "is, %u slots fit%1s", &fit, text), 1);
	ck_assert_uint_gt(fit, 0);
	/* And so it is: that many fit, one more does not. */
	findings_deinit(&findings);
	config_deinit(&config);
	make(fit);
	ck_assert_uint_le(budget.total, UINT64_C(2) << 30);
	config_deinit(&config);
	make(fit + 1);
	ck_assert_uint_gt(budget.total, UINT64_C(2) << 30);
}
END_TEST

START_TEST(the_table_is_printed_and_is_json)
{
	char *text = NULL;
	size_t size;
	struct json json;

	make(2);
	budget_find_limit(&budget, &config, root);
	FILE *out = open_memstream(&text, &size);
	budget_print(&budget, out);
	fclose(out);
	ck_assert_ptr_nonnull(strstr(text, "session rings, a pair each"));
	ck_assert_ptr_nonnull(strstr(text, "16.0 GiB  (the machine's memory)"));
	free(text);
	out = open_memstream(&text, &size);
	json_init(&json, out);
	json_open_object(&json, NULL);
	budget_json(&budget, "budget", &json);
	json_close_object(&json);
	fclose(out);
	jv value = jv_object_get(jv_parse(text), jv_string("budget"));
	jv total = jv_object_get(jv_copy(value), jv_string("total_bytes"));
	ck_assert_uint_eq((uint64_t)jv_number_value(total), budget.total);
	jv_free(total);
	ck_assert_int_eq(jv_array_length(jv_object_get(value, jv_string("lines"))), (int)budget.count);
	free(text);
}
END_TEST

/* How often the memory killer has struck is in the container's own group, under either version, and in the mount where the path
 * is the host's. */
START_TEST(kills_for_want_of_memory_are_counted)
{
	ck_assert_uint_eq(oom_kills_read(root), 0);
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/proc/self/cgroup", "0::/pods/one\n");
	put("/sys/fs/cgroup/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 9\n");
	ck_assert_uint_eq(oom_kills_read(root), 2);
	put("/sys/fs/cgroup/pods/one/memory.events", "oom_kill 5\n");
	ck_assert_uint_eq(oom_kills_read(root), 5);
	put("/proc/self/mountinfo", "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
	put("/proc/self/cgroup", "4:cpu,memory:/docker/abc\n");
	put("/sys/fs/cgroup/memory/docker/abc/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 11\n");
	ck_assert_uint_eq(oom_kills_read(root), 11);
}
END_TEST

static Suite *budget_suite(void)
{
	Suite *suite = suite_create("budget");
	TCase *tests = tcase_create("budget");

	tcase_add_checked_fixture(tests, set_up, clean);
	tcase_add_test(tests, the_sum_is_that_of_its_lines_and_of_the_slots);
	tcase_add_test(tests, a_bound_of_workers_counts_in_full);
	tcase_add_test(tests, a_template_counts_once);
	tcase_add_test(tests, state_memory_that_nobody_asked_for_makes_room);
	tcase_add_test(tests, state_memory_that_was_asked_for_stays);
	tcase_add_test(tests, the_machine_is_the_limit_where_there_is_no_other);
	tcase_add_test(tests, the_flag_wins_over_everything);
	tcase_add_test(tests, any_group_above_binds_in_version_two);
	tcase_add_test(tests, inside_a_container_the_mounts_own_root_is_looked_at);
	tcase_add_test(tests, version_one_is_read_beside_version_two);
	tcase_add_test(tests, nonsense_in_the_files_is_no_limit);
	tcase_add_test(tests, too_much_is_refused_with_what_would_fit);
	tcase_add_test(tests, kills_for_want_of_memory_are_counted);
	tcase_add_test(tests, the_table_is_printed_and_is_json);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(budget_suite)
