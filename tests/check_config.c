/* The configuration: the table, the command line, the file, and what flags say to one another. */
#include <stdarg.h>
#include <unistd.h>

#include "server/budget.h"
#include "server/config.h"
#include "tests/check_main.h"

static struct config config;
static struct findings findings;
static char path[64];

static void clean(void)
{
	findings_deinit(&findings);
	config_deinit(&config);
	if (path[0] != '\0')
		unlink(path);
	path[0] = '\0';
}

/* Reads a command line: the words of a text. */
static void read_line(const char *line)
{
	static char text[4096];
	char *words[64] = {"bridged"};
	char *rest = NULL;
	int count = 1;

	findings_deinit(&findings);
	config_deinit(&config);
	snprintf(text, sizeof(text), "%s", line);
	for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
		words[count++] = word;
	config_read(&config, count, words, &findings);
}

/* Reads a command line that must be fine. */
static void read_good(const char *line)
{
	read_line(line);
	ck_assert_msg(findings.count == 0, "%s", findings.text[0]);
}

/* Whether some finding holds a text. */
static bool found(const char *text)
{
	for (size_t i = 0; i < findings.count; i++) {
		if (strstr(findings.text[i], text) != NULL)
			return true;
	}
	return false;
}

#define assert_found(text)                                                                                             \
	do {                                                                                                           \
		if (!found(text)) {                                                                                    \
			findings_print(&findings, "found: ", stderr);                                                  \
			ck_abort_msg("not found: %s", text);                                                           \
		}                                                                                                      \
	} while (0)

/* Writes a configuration file; returns its path. */
static const char *write_file(const char *text)
{
	strcpy(path, "/tmp/confXXXXXX");
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	return path;
}

/* Reads a file's text together with the flags that are needed, and more. */
static void read_file(const char *text, const char *more)
{
	char line[4096];

	snprintf(line, sizeof(line), "--descriptor d.yaml --listen :1 --config %s %s", write_file(text), more);
	read_line(line);
	unlink(path);
}

START_TEST(defaults_fit_one_another)
{
	read_good("--descriptor d.yaml --listen unix:/run/s");
	ck_assert_uint_eq(config.slots, 1);
	ck_assert_uint_eq(config.message_max, (1 << 20) - 64);
	ck_assert_uint_eq(config.record_max, config.message_max);
	ck_assert_uint_eq(config.session_ring, 4 << 20);
	ck_assert_uint_eq(config.unary_ring, 16 << 20);
	ck_assert_uint_le(config.message_max, ring_payload_max(config.session_ring));
	ck_assert_uint_le(config.unary_message_max, ring_payload_max(config.unary_ring));
	ck_assert_uint_eq(config.drain_timeout_ms, 10000);
	ck_assert_uint_eq(config.window_age_ms_max, 600000);
	ck_assert_uint_eq(config.memory_limit, 0);
	ck_assert_uint_eq(config.spin_us, 50);
	ck_assert_uint_le(config.worker_spin_us, config.spin_us);
	config_complete(&config, 1, &findings);
	ck_assert_uint_eq(config.sessions_per_slot, 4);
}
END_TEST

START_TEST(what_spin_is_told_holds_for_workers_too)
{
	read_good("--descriptor d.yaml --listen unix:/run/s --slots 64 --spin 7us");
	ck_assert_uint_eq(config.spin_us, 7);
	ck_assert_uint_eq(config.worker_spin_us, 7);
	read_good("--descriptor d.yaml --listen unix:/run/s --slots 64");
	if (sysconf(_SC_NPROCESSORS_ONLN) < 66)
		ck_assert_uint_eq(config.worker_spin_us, 0);
}
END_TEST

START_TEST(every_default_lies_within_its_bounds)
{
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		const struct flag *flag = &config_flags[i];
		ck_assert(flag->help[0] != '\0' && flag->help[strlen(flag->help) - 1] != ' ');
		ck_assert_ptr_eq(config_flag(flag->name), flag);
		if (flag->fallback != NULL)
			ck_assert(config_set(&config, flag, flag->fallback, flag->name, &findings));
	}
	ck_assert_ptr_eq(config_flag("drain_timeout"), config_flag("drain-timeout"));
}
END_TEST

START_TEST(the_command_line_is_read_both_ways)
{
	read_good("--descriptor=d.yaml --slots 4 --listen unix:/a --listen=5051 --direct --log-level debug --stats /s "
		  "--drain-timeout=1500ms --message-max 64KiB");
	ck_assert_str_eq(config.descriptor, "d.yaml");
	ck_assert_uint_eq(config.slots, 4);
	ck_assert_uint_eq(config.listen_count, 2);
	ck_assert_str_eq(config.listen[1], "127.0.0.1:5051");
	ck_assert(config.direct);
	ck_assert_int_eq(config.log_level, LOG_DEBUG);
	ck_assert_uint_eq(config.drain_timeout_ms, 1500);
	ck_assert_uint_eq(config.message_max, 65536);
	ck_assert_uint_eq(config.session_ring, 512 << 10); /* 256KiB would carry 64KiB less the header */
	read_good("--descriptor d --listen :1 --slots 2 --slots 3");
	ck_assert_uint_eq(config.slots, 3); /* the last one wins */
}
END_TEST

START_TEST(all_findings_are_told_at_once)
{
	read_line("--slosts 4 --slots 0 --listen nowhere --stats rel --log-level loud --drain-timeout 10 stray --spin");
	assert_found("--slosts: there is no such flag, did you mean --slots?");
	assert_found("--slots: 0 is out of bounds: from 1 to 128");
	assert_found("--listen: \"nowhere\": expected unix:/path or host:port");
	assert_found("--stats: \"rel\": the path of a Unix socket must be absolute");
	assert_found("--log-level: \"loud\" is no log level");
	assert_found("--drain-timeout: \"10\" is not a time such as");
	assert_found("\"stray\": not a flag");
	assert_found("--spin: needs a value: TIME");
	assert_found("--descriptor: which pipeline?");
	assert_found("--listen: nowhere to listen");
	read_line("--descriptor d --listen :1 --slots 10000");
	assert_found("--slots: 10000 is out of bounds: from 1 to 128");
	read_line("--descriptor d --listen :1 --slots -1");
	assert_found("--slots: \"-1\" is not a number");
}
END_TEST

START_TEST(rings_and_limits_are_checked_against_each_other)
{
	read_line("--descriptor d --listen :1 --session-ring 3MiB");
	assert_found("--session-ring: 3MiB is not a power of two; say 4MiB");
	read_line("--descriptor d --listen :1 --session-ring 1MiB");
	assert_found("raise --session-ring to 4MiB, or lower --message-max to 262112");
	read_line("--descriptor d --listen :1 --message-max 2MiB --session-ring 8MiB");
	assert_found("raise --session-ring to 16MiB, or lower --message-max to 2097120");
	read_line("--descriptor d --listen :1 --record-max 2MiB");
	assert_found("--record-max: 2MiB does not fit a message");
	read_line("--descriptor d --listen :1 --listen 127.0.0.1:1");
	assert_found("--listen: 127.0.0.1:1 is given twice");
	read_line("--descriptor d --listen unix:/a --stats /a");
	assert_found("--stats: /a is already given to --listen");
	read_line("--descriptor d --listen :1 --restart-delay 20s");
	assert_found("--restart-delay: 20s is more than --restart-delay-max (10s)");
	read_line("--descriptor d --listen :1 --worker-memory 63MiB");
	assert_found("--worker-memory: a worker needs 64MiB at least; 0 is no limit");
	read_good("--descriptor d --listen :1 --worker-memory 64MiB");
	ck_assert_uint_eq(config.worker_memory, UINT64_C(64) << 20);
	read_line("--descriptor d --listen :1 --json");
	assert_found("--json: goes with --check only");
}
END_TEST

START_TEST(sessions_follow_the_pipeline)
{
	static const struct {
		size_t segments;
		uint32_t sessions;
	} cases[] = {{1, 4}, {2, 4}, {3, 6}, {31, 62}, {32, 63}, {63, 63}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		read_good("--descriptor d --listen :1");
		config_complete(&config, cases[i].segments, &findings);
		ck_assert_uint_eq(config.sessions_per_slot, cases[i].sessions);
		ck_assert_uint_eq(findings.count, 0);
		ck_assert_uint_le(config_slot_sizes(&config).channel_count, SLOT_CHANNELS_MAX);
	}
	read_good("--descriptor d --listen :1 --sessions-per-slot 2");
	config_complete(&config, 3, &findings);
	assert_found("raise it to 3, better to 6");
	read_line("--descriptor d --listen :1 --sessions-per-slot 64");
	assert_found("--sessions-per-slot: 64 is out of bounds: from 1 to 63");
}
END_TEST

START_TEST(addresses_take_the_form_of_grpc)
{
	static const struct {
		const char *text, *address;
		bool exposed;
	} good[] = {{"5051", "127.0.0.1:5051", false},       {":5051", "127.0.0.1:5051", false},
		    {"localhost:80", "localhost:80", false}, {"127.0.0.9:1", "127.0.0.9:1", false},
		    {"[::1]:65535", "[::1]:65535", false},   {"0.0.0.0:5051", "0.0.0.0:5051", true},
		    {"[::]:5051", "[::]:5051", true},        {"sidecar.local:5051", "sidecar.local:5051", true},
		    {"unix:/run/s", "unix:/run/s", false},   {"unix:///run/s", "unix:/run/s", false}};
	static const char *const bad[] = {"",   "unix:",  "unix:run/s", "/run/s",    "host",   "host:",
					  ":0", ":65536", "::1:5051",   "[::1]5051", ":5051 ", "[:5051"};
	const char *why;
	bool exposed;
	char longest[256] = "unix:/";

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		char *address = config_address(good[i].text, &why, &exposed);
		ck_assert_ptr_nonnull(address);
		ck_assert_str_eq(address, good[i].address);
		ck_assert_int_eq(exposed, good[i].exposed);
		free(address);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		why = NULL;
		ck_assert_msg(config_address(bad[i], &why, &exposed) == NULL, "%s", bad[i]);
		ck_assert_ptr_nonnull(why);
	}
	memset(longest + 6, 'x', 106); /* the path has 107 bytes */
	char *address = config_address(longest, &why, &exposed);
	ck_assert_ptr_nonnull(address);
	free(address);
	longest[112] = 'x';
	ck_assert_ptr_null(config_address(longest, &why, &exposed));
	ck_assert_ptr_nonnull(strstr(why, "107"));
}
END_TEST

START_TEST(a_file_says_what_the_command_line_left_open)
{
	read_file("# deployment\n"
		  "steps:\n  score: {parallelism: 4, deep: [1, [2, {a: b}]]}\n"
		  "anchors: &a [x, *a]\n"
		  "sidecar:\n"
		  "  slots: 8\n"
		  "  message_max: 64KiB\n"
		  "  drain-timeout: \"3s\"\n"
		  "  direct: true\n"
		  "  listen: [\":7\", \"unix:/x\"]\n",
		  "--slots 2");
	ck_assert_msg(findings.count == 0, "%s", findings.text[0]);
	ck_assert_uint_eq(config.slots, 2); /* the command line wins */
	ck_assert_uint_eq(config.listen_count, 1);
	ck_assert_str_eq(config.listen[0], "127.0.0.1:1");
	ck_assert_uint_eq(config.message_max, 65536);
	ck_assert_uint_eq(config.drain_timeout_ms, 3000);
	ck_assert(config.direct);
	size_t index = (size_t)(config_flag("message-max") - config_flags);
	ck_assert_int_eq(config.origin[index].from, FROM_FILE);
	ck_assert_uint_eq(config.origin[index].line, 7);
	ck_assert_int_eq(config.origin[config_flag("slots") - config_flags].from, FROM_COMMAND_LINE);
	ck_assert_int_eq(config.origin[config_flag("stats") - config_flags].from, FROM_DEFAULT);
	char line[128];
	snprintf(line, sizeof(line), "--descriptor d --config %s",
		 write_file("sidecar:\n  listen:\n    - :7\n    - unix:/x\n"));
	read_good(line);
	ck_assert_uint_eq(config.listen_count, 2);
	ck_assert_str_eq(config.listen[1], "unix:/x");
}
END_TEST

START_TEST(a_file_may_refer_to_the_environment)
{
	setenv("CHECK_CONFIG_N", "5", 1);
	read_file("steps: {x: {program: \"${CHECK_CONFIG_NONE}\"}}\n"
		  "sidecar: {slots: \"${CHECK_CONFIG_N}\", stats: \"${CHECK_CONFIG_NONE:-/run}/s$$\"}\n",
		  "");
	ck_assert_msg(findings.count == 0, "%s", findings.text[0]);
	ck_assert_uint_eq(config.slots, 5);
	ck_assert_str_eq(config.stats, "/run/s$");
	read_file("sidecar:\n  slots: ${CHECK_CONFIG_NONE}\n", "");
	assert_found(":2:10: slots: the environment has no variable CHECK_CONFIG_NONE; set it, or give a default");
	read_file("sidecar: {slots: \"${CHECK_CONFIG_N:-}0\"}\n", "");
	ck_assert_uint_eq(config.slots, 50);
}
END_TEST

/* Whether a finding has the place of a file's line and column, and a text behind it. */
static bool found_at(const char *text, size_t line, size_t column)
{
	char place[256];

	snprintf(place, sizeof(place), "%s:%zu:%zu: %s", path, line, column, text);
	return found(place);
}

START_TEST(a_file_is_wrong_at_a_place)
{
	read_file("sidecar:\n"
		  "  sloots: 3\n"
		  "  slots: many\n"
		  "  slots: 4\n"
		  "  help: true\n"
		  "  stats:\n"
		  "  listen: {a: b}\n"
		  "  spin: [1, 2]\n"
		  "  zzzzzzzz: 1\n"
		  "  drain-timeout: 90x\n",
		  "--drain-timeout 1s");
	ck_assert(found_at("unknown key \"sloots\" in section \"sidecar\", did you mean \"slots\"?", 2, 3));
	ck_assert(found_at("slots: \"many\" is not a number", 3, 10));
	ck_assert(found_at("\"slots\" is given twice", 4, 3));
	ck_assert(found_at("\"help\" belongs on the command line", 5, 3));
	ck_assert(found_at("stats: the value is missing: PATH", 6, 9));
	ck_assert(found_at("expected a single value", 7, 11));
	ck_assert(found_at("expected a single value", 8, 9));
	ck_assert(found_at("unknown key \"zzzzzzzz\" in section \"sidecar\"; `bridged --help` lists all", 9, 3));
	/* What the command line overrides is checked all the same. */
	ck_assert(found_at("drain-timeout: \"90x\" is not a time", 10, 18));
}
END_TEST

START_TEST(a_file_that_is_none_is_refused)
{
	read_file("sidecar: [", "");
	assert_found(":1:");
	read_file("- a\n", "");
	assert_found(":1:1: expected a map");
	read_file("", "");
	ck_assert_uint_gt(findings.count, 0);
	read_file("sidecra:\n  slots: 1\n", "");
	assert_found("there is no section \"sidecar\"; is \"sidecra\" meant to be it?");
	read_file("sidecar: 4\n", "");
	assert_found(":1:10: the section \"sidecar\" must be a map");
	read_file("sidecar: {slots: 2}\nsidecar: {slots: 3}\n", "");
	assert_found("the section \"sidecar\" is given twice");
	read_file("sidecar: {slots: \"2\xff\"}\n", "");
	ck_assert_uint_gt(findings.count, 0);
	read_file("a: &a {b: c}\nsidecar: *a\n", "");
	assert_found("must be a map");
	read_line("--descriptor d --listen :1 --config /nonexistent/c.yaml");
	assert_found("--config: /nonexistent/c.yaml: No such file or directory");
	read_line("--descriptor d --listen :1 --config /dev/zero");
	assert_found("not a regular file");
}
END_TEST

START_TEST(a_file_is_bounded)
{
	char *deep = malloc(1 << 17);
	char *at = deep + sprintf(deep, "x: ");
	memset(at, '[', 2000);
	at[2000] = '\0';
	read_file(deep, "");
	ck_assert_uint_gt(findings.count, 0);
	/* A bomb of aliases in a section that is not ours costs nothing. */
	at = deep + sprintf(deep, "a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
	for (int i = 1; i < 40; i++)
		at += sprintf(at, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1,
			      i - 1, i - 1);
	sprintf(at, "sidecar: {slots: 5}\n");
	read_file(deep, "");
	ck_assert_uint_eq(findings.count, 0);
	ck_assert_uint_eq(config.slots, 5);
	free(deep);
	char *big = malloc((2 << 20) + 1);
	memset(big, '#', 2 << 20);
	big[2 << 20] = '\0';
	read_file(big, "");
	assert_found("larger than 1MiB");
	free(big);
}
END_TEST

START_TEST(values_are_printed_as_they_are_written)
{
	char *text = NULL;
	size_t size;

	read_good("--descriptor d --listen :1 --listen unix:/x --drain-timeout 90s --message-max 64KiB");
	FILE *out = open_memstream(&text, &size);
	static const char *const names[] = {"listen",       "drain-timeout", "message-max", "spin",        "log-level",
					    "memory-limit", "stats",         "direct",      "session-ring"};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		config_print_value(&config, config_flag(names[i]), out);
		putc('|', out);
		config_print_origin(&config, config_flag(names[i]), out);
		putc('\n', out);
	}
	fclose(out);
	ck_assert_ptr_nonnull(
	    strstr(text, "127.0.0.1:1, unix:/x|command line\n90s|command line\n64KiB|command line\n"));
	ck_assert_ptr_nonnull(strstr(text, "info|default\nauto|auto\n|default\nfalse|default\n512KiB|auto\n"));
	free(text);
}
END_TEST

START_TEST(help_names_every_flag)
{
	char *text = NULL, name[64];
	size_t size;
	FILE *out = open_memstream(&text, &size);

	config_print_help(out);
	fclose(out);
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		snprintf(name, sizeof(name), "\n  --%s", config_flags[i].name);
		ck_assert_ptr_nonnull(strstr(text, name));
	}
	ck_assert_ptr_nonnull(strstr(text, "Examples"));
	free(text);
}
END_TEST

/* docs/flags.md has a row per flag, word for word. */
START_TEST(the_documentation_has_every_flag)
{
	static char page[1 << 16];
	char row[1024], fallback[64];
	FILE *file = fopen("docs/flags.md", "r");

	ck_assert_msg(file != NULL, "run the tests from the top of the tree");
	page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
	fclose(file);
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		const struct flag *flag = &config_flags[i];
		bool shown = flag->fallback != NULL && flag->type != FLAG_TYPE_SWITCH && flag->type != FLAG_TYPE_ACTION;
		snprintf(fallback, sizeof(fallback), "%s%s%s", shown ? "`" : "", shown ? flag->fallback : "",
			 shown ? "`" : "");
		snprintf(row, sizeof(row), "| `--%s%s%s` | %s | %s |\n", flag->name, flag->place[0] == '\0' ? "" : " ",
			 flag->place, fallback, flag->help);
		ck_assert_msg(strstr(page, row) != NULL, "docs/flags.md lacks this row:\n%s", row);
	}
}
END_TEST

static Suite *config_suite(void)
{
	Suite *suite = suite_create("config");
	TCase *tests = tcase_create("config");

	tcase_add_checked_fixture(tests, NULL, clean);
	tcase_add_test(tests, defaults_fit_one_another);
	tcase_add_test(tests, what_spin_is_told_holds_for_workers_too);
	tcase_add_test(tests, every_default_lies_within_its_bounds);
	tcase_add_test(tests, the_command_line_is_read_both_ways);
	tcase_add_test(tests, all_findings_are_told_at_once);
	tcase_add_test(tests, rings_and_limits_are_checked_against_each_other);
	tcase_add_test(tests, sessions_follow_the_pipeline);
	tcase_add_test(tests, addresses_take_the_form_of_grpc);
	tcase_add_test(tests, a_file_says_what_the_command_line_left_open);
	tcase_add_test(tests, a_file_may_refer_to_the_environment);
	tcase_add_test(tests, a_file_is_wrong_at_a_place);
	tcase_add_test(tests, a_file_that_is_none_is_refused);
	tcase_add_test(tests, a_file_is_bounded);
	tcase_add_test(tests, values_are_printed_as_they_are_written);
	tcase_add_test(tests, help_names_every_flag);
	tcase_add_test(tests, the_documentation_has_every_flag);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(config_suite)
