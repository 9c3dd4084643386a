/*
 * The chain with steps that remember: what a failing record did is undone, timers fire in waves, and a guard sees every input. The
 * steps are the test's own: its table of kinds stands in for the worker's.
 */
#include <stdio.h>

#include "shared/counters.h"
#include "tests/check_main.h"
#include "tests/spec.h"
#include "worker/chain.h"

enum { ARENA = 8 << 20 };
enum { PENDING, SUMS, DUE }; /* the states that steps.def gives to batch */

/* ---- Steps ---- */

/* Counts the records of a key. A payload "fail" counts, sets a timer, and fails; "at N" sets a timer of either kind for N; everything
 * goes on as "payload:count". */
static bool counting_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		char text[64], in[32];
		uint64_t count;
		void *bytes;
		bool is_new;
		long at;

		snprintf(in, sizeof(in), "%.*s", (int)record->payload.size, (const char *)record->payload.data);
		step_key(step, record);
		ck_assert_int_eq(state_edit(step->states[SUMS], sizeof(count), &bytes, &is_new), STATE_OK);
		memcpy(&count, bytes, sizeof(count));
		count++;
		memcpy(bytes, &count, sizeof(count));
		bool timed = sscanf(in, "at %ld", &at) == 1;
		if (strcmp(in, "fail") == 0) {
			at = 1;
			timed = true;
		}
		for (enum state_time domain = 0; domain < STATE_TIMES && timed; domain++)
			ck_assert_int_eq(state_timer_set(step->states[DUE], domain, at, view_of("tag")), STATE_OK);
		if (strcmp(in, "fail") == 0)
			return failure_set(failure, record->origin, "it says so");
		snprintf(text, sizeof(text), "%s:%lu", in, (unsigned long)count);
		record_set_bytes(record, scratch_copy(run->scratch, view_of(text)));
	}
	return true;
}

/* A timer counts, too; it fails when its time is 13, after it has put a record out. */
static bool counting_fire(struct step *step, enum state_time domain, const struct state_timer *timer,
			  struct step_time time, struct run *out, struct failure *failure)
{
	struct record *record = run_push(out);
	uint64_t count;
	char text[64];
	void *bytes;
	bool is_new;

	(void)time;
	ck_assert(view_equal(timer->tag, view_of("tag")));
	ck_assert_int_eq(state_edit(step->states[SUMS], sizeof(count), &bytes, &is_new), STATE_OK);
	memcpy(&count, bytes, sizeof(count));
	count++;
	memcpy(bytes, &count, sizeof(count));
	snprintf(text, sizeof(text), "%c%ld/%.*s:%lu", domain == STATE_EVENT_TIME ? 'e' : 'p', (long)timer->time_ms,
		 (int)timer->key.size, (const char *)timer->key.data, (unsigned long)count);
	record->payload = scratch_copy(out->scratch, view_of(text));
	return timer->time_ms != 13 || failure_set(failure, 0, "a bad time");
}

static bool flushes;

/* Says whether the step flushes. */
static bool counting_open(struct step *step, struct failure *words)
{
	(void)words;
	step->flushes = flushes;
	return true;
}

static const struct step_kind_ops counting_ops = {
    .open = counting_open, .process = counting_process, .fire = counting_fire};

/* Marks each payload, so that it shows which way a record took. */
static bool marking_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	(void)step, (void)time, (void)failure;
	for (uint32_t i = 0; i < run->count; i++) {
		char text[64];

		snprintf(text, sizeof(text), "<%.*s>", (int)run->records[i].payload.size,
			 (const char *)run->records[i].payload.data);
		record_set_bytes(&run->records[i], scratch_copy(run->scratch, view_of(text)));
	}
	return true;
}

static const struct step_kind_ops marking_ops = {.process = marking_process};

const struct step_kind_ops *const step_kinds[STEP_KIND_COUNT] = {
    [STEP_batch] = &counting_ops, [STEP_select] = &marking_ops};

/* ---- Rig ---- */

static struct spec spec;
static struct scratch *scratch;
static struct run run;
static struct failure failure;
static struct arena arena;
static struct state_store *store;
static struct chain *chain;
static void *memory;
static const struct step_time at_zero = {0, INT64_MIN};

static void setup(void)
{
	char why[128];

	spec_init(&spec);
	spec.segment.keyed = true;
	scratch = scratch_create();
	run_init(&run, scratch);
	memory = calloc(1, ARENA);
	ck_assert_int_eq(arena_open(&arena, memory, ARENA, 0, why), ARENA_OK);
	store = state_store_create(&arena, 1);
	chain = NULL;
}

static void teardown(void)
{
	chain_destroy(chain);
	state_store_destroy(store);
	free(memory);
	run_deinit(&run);
	scratch_destroy(scratch);
	spec_deinit(&spec);
}

static void make(struct worker_step_counters *counters)
{
	chain = chain_create(&spec.segment, store, counters, &failure);
	ck_assert_msg(chain != NULL, "%s", failure.message);
	arena_commit(&arena);
}

/* Adds a record of a key. */
static void push(const char *payload, const char *key)
{
	uint32_t origin = run.count;
	struct record *record = run_push(&run);

	record->payload = view_of(payload);
	record->origin = origin;
	record->keyed = true;
	record->key = view_of(key);
	record->key_hash = 5;
}

/* Payloads of the run with their routes, one after the other; empties it. */
static const char *take(void)
{
	static char out[4096];
	size_t length = 0;

	out[0] = '\0';
	for (uint32_t i = 0; i < run.count; i++) {
		const struct record *record = &run.records[i];
		length += (size_t)snprintf(out + length, sizeof(out) - length, "%s%.*s", i ? " " : "",
					   (int)record->payload.size, (const char *)record->payload.data);
		if (record->route > 0)
			length += (size_t)snprintf(out + length, sizeof(out) - length, "@%u", record->route);
	}
	run_clear(&run);
	return out;
}

static const char *process(void)
{
	ck_assert_msg(chain_process(chain, &run, at_zero, &failure), "%s", failure.message);
	arena_commit(&arena);
	return take();
}

/* Releases; a "+" behind what comes out when more is left. */
static const char *release(enum release_cause cause, struct step_time time, uint32_t limit)
{
	static char out[4100];
	bool more;

	ck_assert_msg(chain_release(chain, cause, time, limit, &run, &more, &failure), "%s", failure.message);
	arena_commit(&arena);
	snprintf(out, sizeof(out), "%s%s", take(), more ? "+" : "");
	return out;
}

/* A counting step with a policy, and marks in front of and behind it. */
static void counting_between_marks(enum error_policy policy)
{
	spec_add(&spec, STEP_batch, NULL);
	spec_add(&spec, STEP_select, "fields", "x", NULL);
	spec.steps[0].policy = policy;
	spec.steps[0].dead_letter_route = 1;
	spec.segment.route_count = 2;
}

/* ---- Policies ---- */

/* A record that fails has not been there: its count and its timer are undone, those of its neighbours stand. */
START_TEST(a_failing_record_is_undone)
{
	static struct worker_step_counters counters[2];

	counting_between_marks(_i == 0 ? ON_ERROR_SKIP : ON_ERROR_DEAD_LETTER);
	make(counters);
	push("a", "k");
	push("fail", "k");
	push("b", "k");
	push("fail", "other");
	ck_assert_str_eq(process(), _i == 0 ? "<a:1> <b:2>" : "<a:1> <b:2> fail@1 fail@1");
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	push("c", "k");
	push("d", "other");
	ck_assert_str_eq(process(), "<c:3> <d:1>");
	chain_committed(chain);
	ck_assert_uint_eq(counter_read(&counters[0].errors), 2);
	ck_assert_uint_eq(counter_read(&counters[0].skipped), _i == 0 ? 2 : 0);
	ck_assert_uint_eq(counter_read(&counters[0].dead_letters), _i == 0 ? 0 : 2);
}
END_TEST

/* The same where the policy is to fail: all of the unit is to be undone by the caller. */
START_TEST(a_failure_is_the_caller_s_to_undo)
{
	counting_between_marks(ON_ERROR_FAIL);
	make(NULL);
	push("a", "k");
	push("fail", "k");
	ck_assert(!chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(failure.message, "it says so");
	ck_assert_uint_eq(failure.origin, 1);
	arena_rollback(&arena);
	push("a", "k");
	ck_assert_str_eq(process(), "<a:1>");
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
}
END_TEST

/* A timer that fails is gone, and what it did is undone, but for the others. */
START_TEST(a_failing_timer_is_undone)
{
	counting_between_marks(_i == 0 ? ON_ERROR_SKIP : ON_ERROR_DEAD_LETTER);
	make(NULL);
	push("at 12", "k");
	push("at 13", "k");
	push("at 14", "k");
	ck_assert_str_eq(process(), "<at 12:1> <at 13:2> <at 14:3>");
	ck_assert_str_eq(release(RELEASE_TICK, (struct step_time){20, INT64_MIN}, 100),
			 _i == 0 ? "<p12/k:4> <p14/k:5>" : "<p12/k:4> <p14/k:5> tag@1");
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
}
END_TEST

/* ---- Timers ---- */

START_TEST(timers_fire_by_their_time)
{
	counting_between_marks(ON_ERROR_FAIL);
	make(NULL);
	push("at 30", "b");
	push("at 10", "a");
	push("at 10", "a"); /* setting it twice is setting it once */
	push("at 20", "a");
	process();
	ck_assert_int_eq(chain_next_wakeup(chain), 10);
	ck_assert_str_eq(release(RELEASE_TICK, (struct step_time){9, INT64_MIN}, 100), "");
	ck_assert_str_eq(release(RELEASE_TICK, (struct step_time){10, INT64_MIN}, 100), "<p10/a:4>");
	ck_assert_int_eq(chain_next_wakeup(chain), 20);
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){10, 25}, 100), "<e10/a:5> <e20/a:6>");
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){10, INT64_MAX}, 100), "<e30/b:2>");
	ck_assert_str_eq(release(RELEASE_TICK, (struct step_time){99, INT64_MAX}, 100), "<p20/a:7> <p30/b:3>");
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
}
END_TEST

/* A wave ends at its number of timers; what is behind the step with timers left waits, and nothing fires twice or out of order. */
START_TEST(a_wave_ends_at_its_limit)
{
	spec_add(&spec, STEP_batch, NULL);
	spec_add(&spec, STEP_batch, NULL);
	spec.steps[1].name = "second";
	make(NULL);
	for (int i = 0; i < 3; i++)
		push(&"at 1\0at 2\0at 3"[i * 5], "k");
	ck_assert_str_eq(process(), "at 1:1:1 at 2:2:2 at 3:3:3");
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){0, 2}, 1), "e1/k:4:1+");
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){0, 2}, 1), "e2/k:5:2+");
	/* The second step's own timers were set by "at 1:1" and so on, which it reads as the same times. */
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){0, 2}, 1), "e1/k:4+");
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){0, 2}, 1), "e2/k:5");
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){0, 2}, 1), "");
}
END_TEST

/* At the end of input timers of processing time are dropped, or, with a step that flushes, all timers fire. */
START_TEST(the_end_fires_or_drops)
{
	flushes = _i == 1;
	spec_add(&spec, STEP_batch, NULL);
	make(NULL);
	push("at 5", "k");
	push("at 9", "k");
	process();
	ck_assert_str_eq(release(RELEASE_END, (struct step_time){0, INT64_MIN}, 1), _i == 1 ? "e5/k:3+" : "+");
	ck_assert_str_eq(release(RELEASE_END, (struct step_time){0, INT64_MIN}, 100),
			 _i == 1 ? "e9/k:4 p5/k:5 p9/k:6" : "");
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	ck_assert_str_eq(release(RELEASE_WATERMARK, (struct step_time){0, INT64_MAX}, 100),
			 _i == 1 ? "" : "e5/k:3 e9/k:4");
}
END_TEST

/* ---- The guard ---- */

/* Notes what it is asked, and passes over the input with one ordinal. */
struct notes {
	char text[512];
	uint32_t over;
	uint64_t digest[64];
};

static bool note(void *context, const struct chain_input *input, struct failure *words)
{
	struct notes *notes = context;
	size_t length = strlen(notes->text);

	snprintf(notes->text + length, sizeof(notes->text) - length, "%u/%u=%.*s ", input->step, input->ordinal,
		 (int)input->bytes.size, (const char *)input->bytes.data);
	notes->digest[input->ordinal] = input->digest;
	return input->ordinal != notes->over || failure_set(words, input->origin, "passed over");
}

/* And notes that it is past. */
static void note_past(void *context, uint32_t step)
{
	struct notes *notes = context;
	size_t length = strlen(notes->text);

	snprintf(notes->text + length, sizeof(notes->text) - length, "%u. ", step);
}

/* What a chain does of its own between two inputs is not the doing of the one before. */
START_TEST(a_guard_sees_every_input)
{
	struct notes first = {.over = UINT32_MAX}, again = {.over = 1};

	counting_between_marks(ON_ERROR_SKIP);
	make(NULL);
	chain_set_guard(chain, &(struct chain_guard){note, note_past, &first});
	push("a", "k");
	push("b", "k");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(first.text, "0. 0/0=a 0. 0/1=b 0. 1. 1/2=a:1 1. 1/3=b:2 1. ");
	ck_assert_str_eq(take(), "<a:1> <b:2>");
	arena_rollback(&arena);
	chain_set_guard(chain, &(struct chain_guard){note, note_past, &again});
	push("a", "k");
	push("b", "k");
	ck_assert(chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(again.text, "0. 0/0=a 0. 0/1=b 0. 1. 1/2=a:1 1. ");
	ck_assert_str_eq(take(), "<a:1>");
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(first.digest[i], again.digest[i]);
	ck_assert_uint_ne(first.digest[0], first.digest[1]);
	chain_set_guard(chain, NULL);
	push("c", "k");
	ck_assert_str_eq(process(), "<c:2>");
}
END_TEST

START_TEST(a_guard_sees_timers)
{
	struct notes notes = {.over = 0};

	counting_between_marks(ON_ERROR_DEAD_LETTER);
	make(NULL);
	push("at 5", "k");
	push("at 6", "k");
	process();
	chain_set_guard(chain, &(struct chain_guard){note, note_past, &notes});
	ck_assert_str_eq(release(RELEASE_TICK, (struct step_time){9, INT64_MIN}, 100), "<p6/k:3> tag@1");
	ck_assert_str_eq(notes.text, "0. 0/0=tag 0. 0/1=tag 0. 1. 1/2=p6/k:3 1. ");
	ck_assert_uint_ne(notes.digest[0], notes.digest[1]);
}
END_TEST

/* What is passed over under the policy to fail is a failure. */
START_TEST(what_a_guard_passes_over_may_fail)
{
	struct notes notes = {.over = 1};

	counting_between_marks(ON_ERROR_FAIL);
	make(NULL);
	chain_set_guard(chain, &(struct chain_guard){note, note_past, &notes});
	push("a", "k");
	push("b", "k");
	ck_assert(!chain_process(chain, &run, at_zero, &failure));
	ck_assert_str_eq(failure.message, "passed over");
	ck_assert_uint_eq(failure.step, 0);
	ck_assert_uint_eq(failure.origin, 1);
}
END_TEST

static Suite *chain_state_suite(void)
{
	Suite *suite = suite_create("chain_state");
	TCase *tests = tcase_create("all");

	log_init("check_chain_state", LOG_WARN);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_loop_test(tests, a_failing_record_is_undone, 0, 2);
	tcase_add_test(tests, a_failure_is_the_caller_s_to_undo);
	tcase_add_loop_test(tests, a_failing_timer_is_undone, 0, 2);
	tcase_add_test(tests, timers_fire_by_their_time);
	tcase_add_test(tests, a_wave_ends_at_its_limit);
	tcase_add_loop_test(tests, the_end_fires_or_drops, 0, 2);
	tcase_add_test(tests, a_guard_sees_every_input);
	tcase_add_test(tests, a_guard_sees_timers);
	tcase_add_test(tests, what_a_guard_passes_over_may_fail);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(chain_state_suite)
