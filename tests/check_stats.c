/* The stats socket: what its commands answer, and that its server withstands any client. */
#include <jv.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "server/stats.h"
#include "tests/check_main.h"
#include "tests/sidecar_double.h"

/* ---- Answers, out of a supervisor that has no processes ---- */

static struct supervisor supervisor;

/* The words of a slot's owner. */
static struct life *owner_life(uint32_t slot)
{
	return &control_worker(&sut.sidecar.control, slot)->lives[1];
}

/* This process as the owner of a slot, in its second place. */
static void make_owner(uint32_t slot)
{
	struct keeper *keeper = &supervisor.keepers[slot];
	struct birth birth = {.slot = slot, .place = 1, .number = 2};

	keeper->owner = &keeper->lives[1];
	*keeper->owner = (struct child){.role = ROLE_WORKER,
					.slot = slot,
					.place = 1,
					.state = CHILD_UP,
					.pid = getpid(),
					.number = 2,
					.announced = true,
					.born_ns = clock_ns()};
	life_begin(owner_life(slot), &birth, getpid());
	atomic_store(&owner_life(slot)->state, LIFE_READY);
}

/* A sidecar of two slots, all of whose processes are this one. */
static void make(void)
{
	sut_create(2);
	supervisor = (struct supervisor){
	    .sidecar = &sut.sidecar,
	    .phase = PHASE_SERVING,
	    .child_count = 1 + 2 * LIVES_MAX,
	    .keeper_count = 2,
	    .started_ns = clock_ns(),
	    .started_wall_ms = (uint64_t)clock_wall_ms(),
	};
	supervisor.children[0] =
	    (struct child){.role = ROLE_FRONT, .state = CHILD_UP, .pid = getpid(), .number = 1, .born_ns = clock_ns()};
	codes_init(&supervisor);
	keepers_init(&supervisor);
	for (uint32_t slot = 0; slot < 2; slot++)
		make_owner(slot);
	atomic_store(&sut.sidecar.control.front->state, FRONT_SERVING);
	atomic_store(&sut.sidecar.control.front->generation, 1);
	atomic_store(&sut.sidecar.control.front->sleeps, 1);
}

static void clean(void)
{
	sut_clean();
}

/* The answer to a line; valid until the next. */
static const char *answer(const char *line)
{
	static char *text;
	size_t size;

	free(text);
	FILE *out = open_memstream(&text, &size);
	stats_answer(&supervisor, line, out);
	fclose(out);
	return text;
}

/* The same, as a JSON value: one line, and valid. */
static jv answer_json(const char *line)
{
	const char *text = answer(line);
	size_t length = strlen(text);

	ck_assert_uint_gt(length, 1);
	ck_assert_ptr_eq(strchr(text, '\n'), text + length - 1);
	jv value = jv_parse(text);
	ck_assert_msg(jv_is_valid(value), "%s: %s", line, text);
	return value;
}

/* A number inside of a JSON value by a path of keys and indices separated by dots; consumes the value. */
static double number_at(jv value, const char *path)
{
	char copy[256], *rest = NULL;

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *key = strtok_r(copy, ".", &rest); key != NULL; key = strtok_r(NULL, ".", &rest))
		value = jv_get_kind(value) == JV_KIND_ARRAY ? jv_array_get(value, atoi(key))
							    : jv_object_get(value, jv_string(key));
	ck_assert_msg(jv_get_kind(value) == JV_KIND_NUMBER, "no number at %s", path);
	double number = jv_number_value(value);
	jv_free(value);
	return number;
}

/* A text inside of a JSON value, likewise; valid until the next. */
static const char *text_at(jv value, const char *path)
{
	static char text[512];
	char copy[256], *rest = NULL;

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *key = strtok_r(copy, ".", &rest); key != NULL; key = strtok_r(NULL, ".", &rest))
		value = jv_get_kind(value) == JV_KIND_ARRAY ? jv_array_get(value, atoi(key))
							    : jv_object_get(value, jv_string(key));
	ck_assert_msg(jv_get_kind(value) == JV_KIND_STRING, "no text at %s", path);
	snprintf(text, sizeof(text), "%s", jv_string_value(value));
	jv_free(value);
	return text;
}

#define assert_has(text, part) ck_assert_msg(strstr(text, part) != NULL, "no \"%s\" in:\n%s", part, text)

START_TEST(every_command_answers_as_text_and_as_json)
{
	static const char *const names[] = {
#define STATS_COMMAND(name, argument, help) #name,
#include "server/stats_commands.def"
	};
	char line[64];

	make();
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const char *text = answer(names[i]);
		ck_assert_uint_gt(strlen(text), 5); /* "none" at least */
		ck_assert_ptr_eq(strstr(text, "\n\n"),
				 text + strlen(text) - 2); /* an empty line, and it alone, ends it */
		assert_has(answer("help"), names[i]);
		snprintf(line, sizeof(line), "%s json", names[i]);
		jv_free(answer_json(line));
		snprintf(line, sizeof(line), " json\t%s \r", names[i]);
		jv_free(answer_json(line));
	}
}
END_TEST

START_TEST(what_is_no_command_is_refused_with_a_hint)
{
	make();
	ck_assert_str_eq(answer("slosts"), "error: unknown command \"slosts\", did you mean \"slots\"?\n\n");
	ck_assert_str_eq(answer(""), "error: unknown command \"\"; \"help\" lists all\n\n");
	ck_assert_str_eq(answer("quit\x01 json"),
			 "{\"error\":\"unknown command \\\"quit\\u0001\\\"; \\\"help\\\" lists all\"}\n");
	ck_assert_str_eq(answer("slots 3"), "error: \"slots\" takes no word but json\n\n");
	ck_assert_str_eq(answer("stats a b c d e f"), "error: \"stats\" takes no word but json\n\n");
}
END_TEST

START_TEST(actions_say_what_they_do_or_why_not)
{
	make();
	ck_assert_str_eq(answer("restart-worker"), "error: \"restart_worker\" wants SLOT behind it\n\n");
	ck_assert_str_eq(answer("restart_worker 2"), "error: \"2\" is no slot: there are 2, counted from 0\n\n");
	ck_assert_str_eq(answer("restart-worker one json"),
			 "{\"error\":\"\\\"one\\\" is no slot: there are 2, counted from 0\"}\n");
	ck_assert_str_eq(answer("drain now"), "error: \"drain\" takes no word but json\n\n");
	assert_has(answer("reload /no such/file"), "error: /no such/file cannot be read: No such file or directory\n");
	ck_assert_str_eq(text_at(answer_json("reloading json"), "state"), "none");
	ck_assert_double_eq(number_at(answer_json("json restart-worker 1"), "leaving_pid"), getpid());
	ck_assert_uint_eq(atomic_load(&sut.sidecar.control.control->slot[1].life[1].order), ORDER_LEAVE);
	assert_has(answer("restart-worker 1"),
		   "error: slot 1 has no worker now that could leave; it is leaving already\n");
	supervisor.phase = PHASE_STARTING;
	assert_has(answer("reload"), "error: the sidecar is still starting\n");
	supervisor.phase = PHASE_DRAINING;
	assert_has(answer("restart-worker 0"), "error: the sidecar is stopping\n");
}
END_TEST

/* Asserts that a row of the list has no input. */
static void assert_row_shows_nothing(int row)
{
	jv death = jv_array_get(jv_object_get(answer_json("deaths json"), jv_string("deaths")), row);

	ck_assert(jv_equal(jv_object_get(jv_copy(death), jv_string("key")), jv_null()));
	ck_assert(jv_equal(jv_object_get(death, jv_string("input")), jv_null()));
}

/* What the dead worker showed of the input in hand is listed, and not believed: text without an end, with control characters, or that is
 * no UTF-8 is left out. */
START_TEST(the_input_in_hand_is_told_if_it_is_text)
{
	static const char *const bad[] = {"\x1b[2J", "a\nb", "\xc2\x9bm", "\xff", "\x7f", ""};
	siginfo_t end = {.si_code = CLD_KILLED, .si_status = SIGSEGV};
	struct progress *progress;

	make();
	progress = &owner_life(1)->progress;
	atomic_store(&progress->segment, 0);
	atomic_store(&progress->step, 1);
	atomic_store(&progress->since_ns, clock_ns());
	snprintf(progress->key, INPUT_TEXT_MAX, "J\xc3\xbcrgen");
	snprintf(progress->input, INPUT_TEXT_MAX, "{\"a\":\\x00}");
	atomic_store(&progress->shown, 1);
	deaths_note(&supervisor, supervisor.keepers[1].owner, &end, DEATH_CODE, "");
	jv deaths = answer_json("deaths json");
	ck_assert_str_eq(text_at(jv_copy(deaths), "deaths.0.key"), "J\xc3\xbcrgen");
	ck_assert_str_eq(text_at(deaths, "deaths.0.input"), "{\"a\":\\x00}");
	assert_has(answer("deaths"), "J\xc3\xbcrgen");
	assert_has(answer("deaths"), "{\"a\":\\x00}");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		char *text = i % 2 == 0 ? progress->key : progress->input;

		snprintf(progress->key, INPUT_TEXT_MAX, "k");
		snprintf(progress->input, INPUT_TEXT_MAX, "i");
		snprintf(text, INPUT_TEXT_MAX, "%s", bad[i]);
		if (bad[i][0] == '\0')
			memset(text, 'x', INPUT_TEXT_MAX);
		deaths_note(&supervisor, supervisor.keepers[1].owner, &end, DEATH_CODE, "");
		assert_row_shows_nothing(0);
	}
	ck_assert_ptr_eq(strstr(answer("deaths"), "xxx"), NULL);
}
END_TEST

START_TEST(deaths_are_told_with_what_was_known)
{
	siginfo_t end = {.si_code = CLD_KILLED, .si_status = SIGSEGV};

	make();
	ck_assert_str_eq(answer("deaths json"), "{\"deaths\":[]}\n");
	atomic_store(&owner_life(1)->progress.segment, 0);
	atomic_store(&owner_life(1)->progress.step, 1);
	atomic_store(&owner_life(1)->progress.seq, 17);
	atomic_store(&owner_life(1)->progress.record, 3);
	atomic_store(&owner_life(1)->progress.since_ns, clock_ns());
	deaths_note(&supervisor, supervisor.keepers[1].owner, &end, DEATH_CODE, "its heir takes over");
	jv deaths = answer_json("deaths json");
	ck_assert_str_eq(text_at(jv_copy(deaths), "deaths.0.process"), "worker");
	ck_assert_double_eq(number_at(jv_copy(deaths), "deaths.0.slot"), 1);
	ck_assert_str_eq(text_at(jv_copy(deaths), "deaths.0.cause"), "code");
	ck_assert_str_eq(text_at(jv_copy(deaths), "deaths.0.end"), "signal 11 (Segmentation fault)");
	ck_assert_str_eq(text_at(jv_copy(deaths), "deaths.0.step"), "upper");
	ck_assert_double_eq(number_at(jv_copy(deaths), "deaths.0.seq"), 17);
	ck_assert_double_eq(number_at(jv_copy(deaths), "deaths.0.record"), 3);
	ck_assert_str_eq(text_at(deaths, "deaths.0.then"), "its heir takes over");
	assert_row_shows_nothing(0);
	/* Nonsense in the words of the dead is left out, and only the last ones are kept, the last first. */
	atomic_store(&owner_life(1)->progress.segment, 77);
	for (int i = 0; i < 100; i++)
		deaths_note(&supervisor, supervisor.keepers[1].owner, &end, DEATH_WATCHDOG, "");
	deaths_note(&supervisor, &supervisor.children[0], &end, DEATH_OUTSIDE, "");
	deaths = answer_json("deaths json");
	ck_assert_int_eq(jv_array_length(jv_object_get(jv_copy(deaths), jv_string("deaths"))), DEATHS_KEPT);
	ck_assert_str_eq(text_at(jv_copy(deaths), "deaths.0.process"), "front");
	ck_assert_str_eq(text_at(deaths, "deaths.63.cause"), "watchdog");
	assert_has(answer("deaths"), "watchdog");
}
END_TEST

START_TEST(stats_shows_every_counter_of_the_table)
{
	make();
	const char *text = answer("stats");
#define SUP_COUNTER(name, type, unit, help) assert_has(text, "supervisor." #name);
#define FRONT_COUNTER(name, type, unit, help) assert_has(text, "front." #name);
#define FSLOT_COUNTER(name, type, unit, help) assert_has(text, "slots.1.front." #name);
#define FSEG_COUNTER(name, type, unit, help) assert_has(text, "segments.second.front." #name);
#define WORKER_COUNTER(name, type, unit, help) assert_has(text, "slots.1.worker." #name);
#define WSEG_COUNTER(name, type, unit, help) assert_has(text, "segments.first.worker." #name);
#define WSTEP_COUNTER(name, type, unit, help) assert_has(text, "segments.first.steps.upper." #name);
#include "shared/counters.def"
	const char *help = answer("help stats");
#define SUP_COUNTER(name, type, unit, sentence) assert_has(help, sentence);
#define FRONT_COUNTER(name, type, unit, sentence) assert_has(help, sentence);
#define FSLOT_COUNTER(name, type, unit, sentence) assert_has(help, sentence);
#define FSEG_COUNTER(name, type, unit, sentence) assert_has(help, sentence);
#define WORKER_COUNTER(name, type, unit, sentence) assert_has(help, sentence);
#define WSEG_COUNTER(name, type, unit, sentence) assert_has(help, sentence);
#define WSTEP_COUNTER(name, type, unit, sentence) assert_has(help, sentence);
#include "shared/counters.def"
}
END_TEST

START_TEST(segments_and_steps_are_summed_over_the_slots)
{
	struct control_memory *memory = &sut.sidecar.control;

	make();
	counter_add(&control_worker_segment(memory, 0, 0)->records_in, 3);
	counter_add(&control_worker_segment(memory, 1, 0)->records_in, 4);
	counter_add(&control_worker_step(memory, 0, 1)->errors, 1);
	counter_add(&control_worker_step(memory, 1, 1)->errors, 1);
	for (int i = 0; i < 10; i++)
		histogram_add(&control_worker_segment(memory, (uint32_t)i % 2, 0)->latency, 1000);
	ck_assert_double_eq(number_at(answer_json("stats json"), "segments.0.worker.records_in"), 7);
	ck_assert_double_eq(number_at(answer_json("stats json"), "segments.0.steps.1.errors"), 2);
	ck_assert_double_eq(number_at(answer_json("stats json"), "segments.0.worker.latency.count"), 10);
	ck_assert_double_eq(number_at(answer_json("stats json"), "segments.0.worker.latency.mean"), 1000);
	double p99 = number_at(answer_json("segments json"), "segments.0.worker_p99_ns");
	ck_assert(p99 >= 800 && p99 <= 1300);
	ck_assert_double_eq(number_at(answer_json("segments json"), "steps.1.errors"), 2);
	ck_assert_str_eq(text_at(answer_json("segments json"), "steps.2.step"), "count");
	assert_has(answer("stats"), "segments.first.worker.records_in 7 records\n");
}
END_TEST

START_TEST(sessions_are_shown_while_they_are_open)
{
	make();
	struct session_info *info = &sut.sidecar.control.front->session[1][2];
	assert_has(answer("sessions"), "none\n");
	*info = (struct session_info){
	    .segment = 1, .subtask = 3, .parallelism = 4, .opened_ms = (uint64_t)clock_wall_ms(), .bytes_in = 4096};
	strcpy(info->job, "job\n\x1b[31mred");
	memset(info->attempt, 'a', sizeof(info->attempt)); /* a front that forgot the end */
	strcpy(info->allocation, "\xff\xfe");
	assert_has(answer("sessions"), "none\n");
	atomic_store(&info->epoch, 9);
	assert_has(answer("sessions"), "job??[31mred");
	assert_has(answer("sessions"), "4.0 KiB");
	jv sessions = answer_json("sessions json");
	ck_assert_str_eq(text_at(jv_copy(sessions), "sessions.0.segment"), "second");
	ck_assert_str_eq(text_at(jv_copy(sessions), "sessions.0.job"), "job\n\x1b[31mred");
	ck_assert_uint_eq(strlen(text_at(jv_copy(sessions), "sessions.0.attempt")), 64);
	ck_assert_double_eq(number_at(jv_copy(sessions), "sessions.0.slot"), 1);
	ck_assert_double_eq(number_at(sessions, "sessions.0.bytes_in"), 4096);
	info->segment = UINT32_MAX; /* a front that lies */
	ck_assert_str_eq(text_at(answer_json("sessions json"), "sessions.0.segment"), "?");
}
END_TEST

START_TEST(state_is_shown_as_its_owner_wrote_it)
{
	struct state_page *page;

	make();
	page = &control_worker(&sut.sidecar.control, 1)->state;
	assert_has(answer("state"), "error: \"state\" wants SLOT behind it");
	assert_has(answer("state 2"), "error: \"2\" is no slot: there are 2");
	assert_has(answer("state 1"), "error: nobody has said yet");
	*page = (struct state_page){.limit = 1000, .extents = 400, .blocks = 300, .row_count = 2, .rows_left_out = 7};
	page->session[3] = (struct state_session){.epoch = 9, .segment = 0, .bytes = 250, .dirty_entries = 4};
	page->row[0] =
	    (struct state_row){.channel = 3, .entries = 11, .largest_value = 77, .step = "sums", .name = "sum"};
	page->row[1] = (struct state_row){.channel = 0, .segment = UINT32_MAX, .kind = 99};
	memset(page->row[1].step, 'x', sizeof(page->row[1].step)); /* without an end */
	atomic_store(&page->version, 3);
	assert_has(answer("state 1"), "error: nobody has said yet"); /* being written */
	atomic_store(&page->version, 4);
	ck_assert(number_at(answer_json("state 1 json"), "fragmentation_percent") == 25);
	ck_assert(number_at(answer_json("state 1 json"), "states_left_out") == 7);
	ck_assert(number_at(answer_json("state 1 json"), "sessions.0.channel") == 3);
	ck_assert(number_at(answer_json("state 1 json"), "sessions.0.dirty_entries") == 4);
	ck_assert(number_at(answer_json("state 1 json"), "states.0.entries") == 11);
	ck_assert(number_at(answer_json("state 1 json"), "states.0.largest_value_bytes") == 77);
	ck_assert_str_eq(text_at(answer_json("state 1 json"), "states.0.state"), "sum");
	ck_assert_str_eq(text_at(answer_json("state 1 json"), "states.1.kind"), "?");
	ck_assert_str_eq(text_at(answer_json("state 1 json"), "states.1.segment"), "(unary calls)");
	page->row_count = UINT32_MAX;
	ck_assert_uint_gt(strlen(answer("state 1")), 100); /* and no more is read than there is */
}
END_TEST

START_TEST(slots_say_what_the_worker_is_at)
{
	make();
	struct progress *progress = &owner_life(1)->progress;
	atomic_store(&progress->segment, 0);
	atomic_store(&progress->step, 1);
	atomic_store(&progress->since_ns, clock_ns());
	jv slots = answer_json("slots json");
	ck_assert_str_eq(text_at(jv_copy(slots), "slots.1.segment"), "first");
	ck_assert_str_eq(text_at(jv_copy(slots), "slots.1.step"), "upper");
	ck_assert_double_ge(number_at(jv_copy(slots), "slots.1.busy_ns"), 1);
	ck_assert_double_eq(number_at(slots, "slots.0.busy_ns"), 0);
	atomic_store(&progress->segment, 77);
	atomic_store(&progress->step, 77);
	jv_free(answer_json("slots json")); /* nonsense is shown as nothing */
}
END_TEST

START_TEST(health_tells_what_is_wrong)
{
	make();
	ck_assert_str_eq(text_at(answer_json("health json"), "status"), "SERVING");
	assert_has(answer("health"), "healthy yes\n");
	ck_assert_ptr_null(strstr(answer("health"), "_ns")); /* people see units, not names of units */
	ck_assert_ptr_null(strstr(answer("slots"), "_bytes"));
	/* A slot may be without owner for a moment: another takes over. */
	struct keeper *keeper = &supervisor.keepers[1];
	struct child *owner = keeper->owner;
	keeper->owner = NULL;
	owner->state = CHILD_DOWN;
	keeper->orphaned_ns = UINT64_MAX; /* a moment ago, however long the test takes */
	strcpy(keeper->last_death, "signal 11 (Segmentation fault)");
	ck_assert_str_eq(text_at(answer_json("health json"), "status"), "SERVING");
	keeper->orphaned_ns = 1;
	ck_assert_str_eq(text_at(answer_json("health json"), "status"), "DEGRADED");
	ck_assert_str_eq(text_at(answer_json("health json"), "reasons.0"),
			 "worker 1 is waiting; the last one died of signal 11 (Segmentation fault)");
	assert_has(answer("health"), "healthy no\n");
	keeper->owner = owner;
	owner->state = CHILD_UP;
	/* A front that does not sleep and does not turn hangs; one that sleeps may be silent for days. */
	atomic_store(&sut.sidecar.control.front->heartbeat_ns, 1);
	ck_assert_str_eq(text_at(answer_json("health json"), "status"), "SERVING");
	atomic_store(&sut.sidecar.control.front->sleeps, 0);
	ck_assert_str_eq(text_at(answer_json("health json"), "status"), "DEGRADED");
	assert_has(answer("health"), "reason front has not turned its loop for");
	atomic_store(&sut.sidecar.control.front->sleeps, 1);
	atomic_store(&owner_life(0)->progress.since_ns, 1);
	assert_has(answer("health"), "reason worker 0 has been at one frame for");
	atomic_store(&owner_life(0)->progress.since_ns, 0);
	supervisor.phase = PHASE_STARTING;
	ck_assert_str_eq(text_at(answer_json("health json"), "status"), "STARTING");
	supervisor.phase = PHASE_DRAINING;
	ck_assert_str_eq(text_at(answer_json("health json"), "status"), "DRAINING");
}
END_TEST

START_TEST(config_and_version_say_what_runs)
{
	make();
	jv flags = jv_object_get(answer_json("config json"), jv_string("flags"));
	ck_assert_int_eq(jv_array_length(jv_copy(flags)), FLAG_COUNT - 4); /* but the actions */
	ck_assert_str_eq(text_at(jv_copy(flags), "0.value"), "d.yaml");
	ck_assert_str_eq(text_at(flags, "0.from"), "command line");
	ck_assert_str_eq(text_at(answer_json("version json"), "version"), BRIDGE_VERSION);
	ck_assert_str_eq(text_at(answer_json("version json"), "pipeline"), "double");
}
END_TEST

/* docs/stats.md has every command and every counter, word for word. */
/* Fails when a page lacks the row of a command. */
static void assert_row(const char *page, const char *name, const char *argument, const char *help)
{
	char row[512];

	snprintf(row, sizeof(row), "| `%s%s%s` | %s |\n", name, argument[0] == '\0' ? "" : " ", argument, help);
	assert_has(page, row);
}

START_TEST(the_documentation_has_every_command_and_counter)
{
	static char page[1 << 16];
	FILE *file = fopen("docs/stats.md", "r");

	ck_assert_msg(file != NULL, "run the tests from the top of the tree");
	page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
	fclose(file);
#define STATS_COMMAND(name, argument, help) assert_row(page, #name, argument, help);
#define STATS_ACTION(name, argument, help) assert_row(page, #name, argument, help);
#include "server/stats_commands.def"
#define ROW(name, type, unit, help) assert_has(page, "| `" #name "` | " #type " | " unit " | " help " |\n");
#define SUP_COUNTER ROW
#define FRONT_COUNTER ROW
#define FSLOT_COUNTER ROW
#define FSEG_COUNTER ROW
#define WORKER_COUNTER ROW
#define WSEG_COUNTER ROW
#define WSTEP_COUNTER ROW
#include "shared/counters.def"
}
END_TEST

/* ---- The server, in a supervisor that runs ---- */

static char stats_path[100];

/* Starts the doubles with a stats socket. */
static void serve(uint32_t slots)
{
	sut_create(slots);
	snprintf(stats_path, sizeof(stats_path), "%s/stats", sut.folder);
	sut.sidecar.config.stats = strdup(stats_path);
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
}

/* Connects. */
static int dial(void)
{
	struct sockaddr_un where = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(where.sun_path, stats_path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&where, sizeof(where)), 0);
	return fd;
}

/* Sends a text. */
static void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads until a text has come, or the end; valid until the next. */
static const char *hear(int fd, const char *until)
{
	static char text[1 << 16];
	size_t used = 0;

	for (text[0] = '\0'; until == NULL || strstr(text, until) == NULL;) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		ck_assert_msg(poll(&wait, 1, 60000) == 1, "no answer; so far: %s", text);
		ssize_t got = read(fd, text + used, sizeof(text) - 1 - used);
		if (got <= 0)
			break;
		used += (size_t)got;
		text[used] = '\0';
	}
	return text;
}

/* Asks for the health, and whether the answer holds a text. */
static bool health_says(int fd, const char *text)
{
	say(fd, "health\n");
	return strstr(hear(fd, "\n\n"), text) != NULL;
}

START_TEST(a_connection_takes_one_command_after_another)
{
	serve(1);
	int fd = dial();
	say(fd, "version\n");
	assert_has(hear(fd, "\n\n"), "pipeline double");
	say(fd, "hea");
	say(fd, "lth json\nnonsense\nslots json\n");
	const char *text = hear(fd, "\"slots\"");
	assert_has(text, "\"status\":\"SERVING\"");
	assert_has(text, "error: unknown command \"nonsense\"");
	close(fd);
	/* As socat does it: the last line may lack its end, and the answer comes before the connection ends. */
	fd = dial();
	say(fd, "version");
	shutdown(fd, SHUT_WR);
	assert_has(hear(fd, NULL), "topology_hash");
	close(fd);
	sut_stop();
}
END_TEST

START_TEST(it_answers_while_front_and_workers_hang)
{
	serve(2);
	kill(sut_front_pid(), SIGSTOP);
	kill(sut_worker_pid(0), SIGSTOP);
	kill(sut_worker_pid(1), SIGSTOP);
	int fd = dial();
	static const char *const lines[] = {"stats\n", "slots\n", "sessions\n", "segments\n", "config\n", "version\n"};
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		say(fd, lines[i]);
		hear(fd, "\n\n");
	}
	/* A stop takes hold when the process next runs. */
	WAIT_UNTIL(health_says(fd, "front is stopped") && health_says(fd, "worker 1 is stopped"));
	ck_assert(health_says(fd, "status DEGRADED"));
	close(fd);
	kill(sut_front_pid(), SIGCONT);
	kill(sut_worker_pid(0), SIGCONT);
	kill(sut_worker_pid(1), SIGCONT);
	sut_stop();
}
END_TEST

/* Two things wait when the supervisor comes to look: an heir has taken over, and somebody who was served by it asks who the owner is. */
START_TEST(what_has_happened_is_told_to_who_asks_then)
{
	char owner[32];

	serve(1);
	struct worker_page *page = control_worker(&sut.sidecar.control, 0);
	struct life *heir = &page->lives[1];
	WAIT_UNTIL(atomic_load(&heir->number) == 2 && atomic_load(&heir->state) == LIFE_WAITING);
	int fd = dial();
	say(fd, "version\n");
	hear(fd, "\n\n");
	kill(sut.supervisor, SIGSTOP);
	WAIT_UNTIL(process_is_in_state(sut.supervisor, "T"));
	atomic_store(&heir->predecessor, 1);
	atomic_store(&page->owner, 2);
	atomic_store(&heir->state, LIFE_OWNER);
	doorbell_ring(sut.sidecar.control.supervisor_bell);
	say(fd, "slots json\n");
	shutdown(fd, SHUT_WR);
	kill(sut.supervisor, SIGCONT);
	snprintf(owner, sizeof(owner), "\"pid\":%d,", (int)atomic_load(&heir->pid));
	const char *text = hear(fd, NULL);
	assert_has(text, owner);
	close(fd);
	kill(sut.supervisor, SIGKILL); /* the old owner lives, which cannot be */
	ck_assert_int_eq(sut_wait(), 1000 + SIGKILL);
	WAIT_UNTIL(sut_nobody_left());
}
END_TEST

START_TEST(who_does_not_read_is_dropped_in_time)
{
	make();
	snprintf(stats_path, sizeof(stats_path), "%s/stats", sut.folder);
	struct stats_server *server = stats_server_create(&supervisor, stats_path, 500);
	ck_assert_ptr_nonnull(server);
	ck_assert_uint_eq(stats_server_due(server), 0);
	int lazy = dial(), other = dial();
	stats_server_turn(server);
	/* It asks until nothing more goes: its own answers stand in the way. */
	while (send(lazy, "stats\n", 6, MSG_NOSIGNAL | MSG_DONTWAIT) == 6)
		stats_server_turn(server);
	ck_assert_uint_ne(stats_server_due(server), 0);
	WAIT_UNTIL(clock_ns() > stats_server_due(server));
	stats_server_turn(server);
	ck_assert_uint_eq(stats_server_due(server), 0);
	ck_assert_int_eq(send(lazy, "stats\n", 6, MSG_NOSIGNAL), -1);
	say(other, "version\n");
	stats_server_turn(server);
	stats_server_turn(server);
	assert_has(hear(other, "\n\n"), "pipeline double");
	stats_server_destroy(server);
	ck_assert_str_eq(hear(other, NULL), "");
	close(lazy);
	close(other);
}
END_TEST

/* The supervisor has a single thread: it would neither reap nor stop while one client asks faster than it is answered. */
START_TEST(who_never_stops_asking_does_not_hold_the_supervisor_up)
{
	make();
	snprintf(stats_path, sizeof(stats_path), "%s/stats", sut.folder);
	struct stats_server *server = stats_server_create(&supervisor, stats_path, 20000);
	const _Atomic uint64_t *answered = &sut.sidecar.control.control->counters.stats_requests;
	int fd = dial();
	for (int i = 0; i < 100; i++)
		say(fd, "x\n"); /* all of their answers fit into the socket */
	stats_server_turn(server);
	ck_assert_uint_gt(counter_read(answered), 0);
	ck_assert_uint_lt(counter_read(answered), 20);
	say(fd, "version\n");
	shutdown(fd, SHUT_WR);
	char text[4096];
	while (counter_read(answered) < 101) {
		if (recv(fd, text, sizeof(text), MSG_DONTWAIT) < 0) /* first: a full socket makes it wait to be read */
			stats_server_turn(server);
	}
	stats_server_turn(server);
	assert_has(hear(fd, NULL), "pipeline double");
	close(fd);
	stats_server_destroy(server);
}
END_TEST

START_TEST(bad_clients_hurt_nobody)
{
	char flood[8192];
	int fds[70], ok = 0;

	serve(1);
	/* One that sends commands without end and reads no answer. */
	int greedy = dial();
	fcntl(greedy, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 4096 / 6; i++)
		memcpy(flood + 6 * i, "stats\n", 6);
	while (send(greedy, flood, 4092, MSG_NOSIGNAL) > 0)
		;
	/* One whose line never ends, one that sends bytes. */
	int endless = dial();
	memset(flood, 'x', sizeof(flood));
	ck_assert_int_gt(send(endless, flood, sizeof(flood), MSG_NOSIGNAL), 0);
	assert_has(hear(endless, "\n\n"), "error: unknown command");
	int binary = dial();
	ck_assert_int_eq(send(binary, "\0\0\xff\n", 4, MSG_NOSIGNAL), 4);
	assert_has(hear(binary, "\n\n"), "error: unknown command \"(binary)\"");
	/* Ones that vanish with an answer on its way. */
	for (int i = 0; i < 50; i++) {
		int fd = dial();
		say(fd, "stats\nstats\n");
		close(fd);
	}
	/* Too many: the surplus is told so. */
	for (int i = 0; i < 70; i++) {
		fds[i] = dial();
		(void)!send(fds[i], "version\n", 8, MSG_NOSIGNAL);
	}
	for (int i = 0; i < 70; i++) {
		const char *text = hear(fds[i], "\n");
		ok += strncmp(text, "version ", 8) == 0;
		ck_assert(strncmp(text, "version ", 8) == 0 || strstr(text, "too many connections") != NULL ||
			  *text == '\0');
	}
	ck_assert_int_ge(ok, 50);
	ck_assert_int_le(ok, 64);
	for (int i = 0; i < 70; i++)
		close(fds[i]);
	close(greedy);
	close(endless);
	close(binary);
	int fd = dial();
	say(fd, "health\n");
	assert_has(hear(fd, "\n\n"), "SERVING");
	close(fd);
	sut_stop();
}
END_TEST

static Suite *stats_suite(void)
{
	Suite *suite = suite_create("stats");
	TCase *answers = tcase_create("answers"), *server = tcase_create("server");

	tcase_add_checked_fixture(answers, NULL, clean);
	tcase_add_test(answers, every_command_answers_as_text_and_as_json);
	tcase_add_test(answers, what_is_no_command_is_refused_with_a_hint);
	tcase_add_test(answers, actions_say_what_they_do_or_why_not);
	tcase_add_test(answers, deaths_are_told_with_what_was_known);
	tcase_add_test(answers, the_input_in_hand_is_told_if_it_is_text);
	tcase_add_test(answers, stats_shows_every_counter_of_the_table);
	tcase_add_test(answers, segments_and_steps_are_summed_over_the_slots);
	tcase_add_test(answers, sessions_are_shown_while_they_are_open);
	tcase_add_test(answers, state_is_shown_as_its_owner_wrote_it);
	tcase_add_test(answers, slots_say_what_the_worker_is_at);
	tcase_add_test(answers, health_tells_what_is_wrong);
	tcase_add_test(answers, config_and_version_say_what_runs);
	tcase_add_test(answers, the_documentation_has_every_command_and_counter);
	suite_add_tcase(suite, answers);
	tcase_add_checked_fixture(server, NULL, clean);
	tcase_add_test(server, a_connection_takes_one_command_after_another);
	tcase_add_test(server, it_answers_while_front_and_workers_hang);
	tcase_add_test(server, what_has_happened_is_told_to_who_asks_then);
	tcase_add_test(server, who_does_not_read_is_dropped_in_time);
	tcase_add_test(server, who_never_stops_asking_does_not_hold_the_supervisor_up);
	tcase_add_test(server, bad_clients_hurt_nobody);
	suite_add_tcase(suite, server);
	return suite;
}

CHECK_MAIN(stats_suite)
