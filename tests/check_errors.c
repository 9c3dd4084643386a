/*
 * Failures that may pass, and failures that are too many: retries, their waits, and limits, over whole sessions; also when another worker
 * takes over in between.
 */
#include "tests/rig.h"

#include <libgen.h>

#include "shared/control.h"
#include "tests/check_main.h"
#include "worker/hosts/host.h"

enum { TEXT_SIZE = 4096, HOUR_MS = 3600000 };

static struct rig rig;

/* The libraries lie beside this program. */
static void go_to_libraries(void)
{
	char program[1024] = "", folder[1100];

	ck_assert_int_gt(readlink("/proc/self/exe", program, sizeof(program) - 1), 0);
	snprintf(folder, sizeof(folder), "%s/libraries", dirname(program));
	ck_assert_int_eq(chdir(folder), 0);
}

/* A segment of one step of the tests' library, which is returned. */
static struct step_spec *begin(const char *function, enum error_policy policy, bool keyed)
{
	go_to_libraries();
	rig_init(&rig);
	struct spec *spec = rig_segment(&rig);
	spec->segment.keyed = keyed;
	spec_add(spec, STEP_native, "library", "./steps.so", "function", function, keyed ? "state" : NULL,
		 "value=value\nmap=map\nlist=list\ntimers=timers", NULL);
	struct step_spec *step = &spec->steps[0];
	step->policy = policy;
	if (policy == ON_ERROR_DEAD_LETTER) {
		spec->routes[0] = "main";
		spec->routes[1] = "native.dead_letter";
		spec->segment.route_count = 2;
		step->dead_letter_route = 1;
	}
	return step;
}

/* Ends a test. */
static void end(void)
{
	rig_stop(&rig);
	host_forget();
}

/* Serves until there is nothing left, whatever has to be waited for. */
static void serve_all(void)
{
	do
		rig_serve(&rig);
	while (serve_rest(rig.serve));
}

/* Sends records with one key. */
static void keyed_batch(uint32_t channel, const char *lines)
{
	FlinkBridge__ToWorker message = rig_message(&rig, channel);
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__Record records[16], *pointers[16];

	while (*lines != '\0') {
		FlinkBridge__Record *record = &records[batch.n_records];
		size_t size = strcspn(lines, "\n");

		flink_bridge__record__init(record);
		record->payload = (ProtobufCBinaryData){size, (uint8_t *)lines};
		record->maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
		record->timestamp = (int64_t)batch.n_records;
		record->maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
		record->key = (ProtobufCBinaryData){1, (uint8_t *)"k"};
		record->key_hash = RIG_HASH;
		pointers[batch.n_records++] = record;
		lines += size + (lines[size] == '\n');
	}
	batch.records = pointers;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	rig_send(&rig, channel, &message);
}

/* A header of a record, or "". */
static const char *header_of(const FlinkBridge__Record *record, const char *name)
{
	for (size_t i = 0; i < record->n_headers; i++)
		if (strcmp(record->headers[i]->key, name) == 0)
			return record->headers[i]->value;
	return "";
}

/* All records of the answers that are there, in words; what failed with its kind and attempt. */
static const char *taken(uint32_t channel)
{
	static char text[TEXT_SIZE];
	struct answer answer;
	size_t used = 0;

	text[0] = '\0';
	while (rig_try_take(&rig, channel, &answer)) {
		const FlinkBridge__Results *results = answer.message ? answer.message->results : NULL;

		ck_assert_msg(results != NULL, "an answer of kind %u: %s", answer.frame.kind, answer.text);
		for (size_t i = 0; i < results->n_records; i++) {
			const FlinkBridge__Record *record = results->records[i];
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%.*s", used > 0 ? " " : "",
						 (int)record->payload.len, (const char *)record->payload.data);
			if (record->route == 1)
				used += (size_t)snprintf(text + used, sizeof(text) - used, "(%s %s)",
							 header_of(record, "bridge-error-kind"),
							 header_of(record, "bridge-error-attempt"));
		}
		answer_free(&answer);
	}
	return text;
}

/* ---- Trying again ---- */

/* What fails for a while comes out in its place, whatever the policy is; nothing comes out twice. */
START_TEST(what_fails_for_a_while_comes_out_in_order)
{
	static const enum error_policy policies[] = {ON_ERROR_FAIL, ON_ERROR_SKIP, ON_ERROR_DEAD_LETTER};
	struct step_spec *step = begin("moody", policies[_i], false);

	step->rules.of[RULE_retries] = 2;
	step->rules.of[RULE_retry_backoff] = 1;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "a", "later2", "b", NULL);
	rig_batch(&rig, 1, "c", NULL);
	rig_batch(&rig, 1, "later1", "d", NULL);
	serve_all();
	ck_assert_str_eq(taken(1), "a later2 b c later1 d");
	ck_assert_uint_eq(rig_position(&rig, 1)->seq, 4);
	end();
}
END_TEST

/* After so many tries the policy has its way. */
START_TEST(after_the_last_try_the_policy_follows)
{
	struct step_spec *step = begin("moody", (enum error_policy)_i, false);

	step->rules.of[RULE_retries] = 2;
	step->rules.of[RULE_retry_backoff] = 1;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "later3", "b", NULL);
	serve_all();
	if (_i == ON_ERROR_FAIL)
		rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_STEP, GRPC_STATUS_INTERNAL,
				 "step \"native\" record 0: not now");
	else if (_i == ON_ERROR_SKIP)
		ck_assert_str_eq(taken(1), "b");
	else
		ck_assert_str_eq(taken(1), "later3(MoodError 3) b");
	end();
}
END_TEST

/* What is not transient is not tried again, nor is anything without retries. */
START_TEST(what_is_no_use_is_not_tried)
{
	struct step_spec *step = begin("moody", ON_ERROR_DEAD_LETTER, false);

	step->rules.of[RULE_retries] = _i ? 5 : 0;
	step->rules.of[RULE_retry_backoff] = HOUR_MS;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, _i ? "fail" : "later9", "b", NULL);
	rig_serve(&rig);
	ck_assert_str_eq(taken(1), _i ? "b fail(MoodError 1)" : "b later9(MoodError 1)");
	end();
}
END_TEST

/* A dead letter says all that is known of the failure. */
START_TEST(a_dead_letter_says_it_all)
{
	struct answer answer;

	begin("moody", ON_ERROR_DEAD_LETTER, false);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "fail", NULL);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	const FlinkBridge__Record *record = answer.message->results->records[0];
	ck_assert_str_eq(header_of(record, "bridge-error"), "not today");
	ck_assert_str_eq(header_of(record, "bridge-error-kind"), "MoodError");
	ck_assert_str_eq(header_of(record, "bridge-error-step"), "native");
	ck_assert_str_eq(header_of(record, "bridge-error-segment"), "test");
	ck_assert_str_eq(header_of(record, "bridge-error-attempt"), "1");
	ck_assert_str_eq(header_of(record, "bridge-error-time"), "1000");
	ck_assert_str_eq(header_of(record, "bridge-error-traceback"), "line 1\nline 2");
	ck_assert_uint_eq(record->n_headers, 7);
	answer_free(&answer);
	end();
}
END_TEST

/* While a session rests others are served, and its own messages wait. */
START_TEST(others_are_served_meanwhile)
{
	struct step_spec *step = begin("moody", ON_ERROR_SKIP, false);

	step->rules.of[RULE_retries] = 1;
	step->rules.of[RULE_retry_backoff] = HOUR_MS;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 0);
	rig_batch(&rig, 1, "a", "later9", NULL);
	rig_batch(&rig, 1, "b", NULL);
	rig_batch(&rig, 2, "c", NULL);
	rig_serve(&rig);
	rig_batch(&rig, 2, "d", NULL);
	rig_batch(&rig, 1, "e", NULL);
	rig_serve(&rig);
	ck_assert_str_eq(taken(1), "a");
	ck_assert_str_eq(taken(2), "c d");
	ck_assert(!serve_is_wanted(rig.serve));
	/* The worker sleeps until then, and not much longer. */
	uint64_t until = serve_expire(rig.serve), now = clock_ns();
	ck_assert_uint_gt(until, now + UINT64_C(3500) * 1000000000);
	ck_assert_uint_le(until, now + UINT64_C(3600) * 1000000000);
	/* The session goes, and with it what it waits for. */
	rig_close_channel(&rig, 1);
	rig_serve(&rig);
	ck_assert(!serve_rest(rig.serve));
	end();
}
END_TEST

/* What a failed try has done to the state is undone: the record counts once. */
START_TEST(state_counts_a_record_once)
{
	struct step_spec *step = begin("count", (enum error_policy)_i, true);

	step->rules.of[RULE_retries] = 3;
	step->rules.of[RULE_retry_backoff] = 1;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	keyed_batch(1, "a\nlater3\nb\nlater2\nc");
	serve_all();
	ck_assert_str_eq(taken(1), "a:1 later3:2 b:3 later2:4 c:5");
	end();
}
END_TEST

/* A successor knows what is to be tried again, when, and how often it was. */
START_TEST(tries_outlive_the_worker)
{
	struct step_spec *step = begin("moody", ON_ERROR_DEAD_LETTER, false);

	step->rules.of[RULE_retries] = 2;
	step->rules.of[RULE_retry_backoff] = 20;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "a", "later9", "b", NULL);
	do {
		rig_serve(&rig);
		rig_forget(&rig);
		rig_adopt(&rig);
		rig_serve(&rig);
	} while (serve_rest(rig.serve));
	ck_assert_str_eq(taken(1), "a later9(MoodError 3) b");
	end();
}
END_TEST

/* Of several timers that are due it is one that fails for now: the others fire, and it does in its place. */
START_TEST(a_timer_is_tried_again)
{
	struct step_spec *step = begin("remember", (enum error_policy)_i, true);

	step->rules.of[RULE_retries] = 1;
	step->rules.of[RULE_retry_backoff] = 1;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	keyed_batch(1, "at 11\nat 12\nat 14\nat 15");
	rig_watermark(&rig, 1, 20);
	serve_all();
	ck_assert_str_eq(taken(1), "event at 11 of k event at 12 of k event at 14 of k event at 15 of k");
	end();
}
END_TEST

/* ---- Too many ---- */

/* Failures one after the other end the session; good ones between them begin the count anew, a death does not. */
START_TEST(failures_in_a_row)
{
	struct step_spec *step = begin("moody", ON_ERROR_SKIP, false);

	step->rules.of[RULE_errors_in_row] = 3;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "fail", "fail", "a", "fail", "fail", NULL);
	rig_batch(&rig, 1, "b", "fail", NULL);
	rig_serve(&rig);
	rig_forget(&rig);
	rig_adopt(&rig);
	rig_batch(&rig, 1, "fail", NULL);
	rig_serve(&rig);
	ck_assert_str_eq(taken(1), "a b");
	rig_forget(&rig);
	rig_adopt(&rig);
	rig_batch(&rig, 1, "fail", NULL);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_STEP, GRPC_STATUS_INTERNAL,
			 "3 failures one after the other (errors_in_row); this one: not today");
	end();
}
END_TEST

/* A share of each window of records may fail, and not more; windows stand side by side. */
START_TEST(a_share_of_failures)
{
	struct step_spec *step = begin("moody", ON_ERROR_DEAD_LETTER, false);

	step->rules.of[RULE_error_percent] = 40;
	step->rules.of[RULE_error_window] = 5;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "fail", "a", "fail", "a", "a", NULL); /* one window */
	rig_batch(&rig, 1, "fail", "fail", "a", "a", "a", NULL); /* another */
	rig_batch(&rig, 1, "a", "fail", "fail", NULL);
	rig_serve(&rig);
	rig_forget(&rig);
	rig_adopt(&rig);
	taken(1);
	rig_batch(&rig, 1, "a", "a", "fail", NULL); /* the third ends, the fourth begins */
	rig_serve(&rig);
	ck_assert_str_eq(taken(1), "a a fail(MoodError 1)");
	rig_batch(&rig, 1, "fail", "fail", NULL);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_STEP, GRPC_STATUS_INTERNAL,
			 "3 failures among 3 records, more than 40 % of 5 (error_percent, error_window); this one: not "
			 "today");
	end();
}
END_TEST

/* What is tried again counts as a failure only when nothing helps. */
START_TEST(retries_do_not_count)
{
	struct step_spec *step = begin("moody", ON_ERROR_SKIP, false);

	step->rules.of[RULE_retries] = 5;
	step->rules.of[RULE_retry_backoff] = 1;
	step->rules.of[RULE_errors_in_row] = 2;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "fail", "later4", "fail", "a", NULL);
	serve_all();
	ck_assert_str_eq(taken(1), "later4 a");
	end();
}
END_TEST

/* Other code may have other steps: then what was counted is forgotten, and nothing else happens. */
START_TEST(new_code_counts_anew)
{
	struct step_spec *step = begin("moody", ON_ERROR_SKIP, false);

	step->rules.of[RULE_errors_in_row] = 2;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "fail", NULL);
	rig_serve(&rig);
	rig_forget(&rig);
	spec_add(&rig.specs[0], STEP_passthrough, NULL);
	rig.segments[0] = rig.specs[0].segment;
	rig_adopt(&rig);
	rig_batch(&rig, 1, "fail", "a", NULL);
	rig_serve(&rig);
	ck_assert_str_eq(taken(1), "a");
	end();
}
END_TEST

static Suite *errors_suite(void)
{
	Suite *suite = suite_create("errors");
	TCase *tests = tcase_create("errors");

	tcase_add_loop_test(tests, what_fails_for_a_while_comes_out_in_order, 0, 3);
	tcase_add_loop_test(tests, after_the_last_try_the_policy_follows, 0, ON_ERROR_COUNT);
	tcase_add_loop_test(tests, what_is_no_use_is_not_tried, 0, 2);
	tcase_add_test(tests, a_dead_letter_says_it_all);
	tcase_add_test(tests, others_are_served_meanwhile);
	tcase_add_loop_test(tests, state_counts_a_record_once, 0, ON_ERROR_COUNT - 1);
	tcase_add_test(tests, tries_outlive_the_worker);
	tcase_add_loop_test(tests, a_timer_is_tried_again, 0, ON_ERROR_COUNT - 1);
	tcase_add_test(tests, failures_in_a_row);
	tcase_add_test(tests, a_share_of_failures);
	tcase_add_test(tests, retries_do_not_count);
	tcase_add_test(tests, new_code_counts_anew);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(errors_suite)
