/*
 * The four unary calls on the slot's unary channel, windows included.
 */
#include "tests/rig.h"

#include "tests/check_main.h"

static struct rig rig;
static uint64_t calls; /* made so far: the number of the last one */

/* Opens the unary channel of a rig whose segments are there. */
static void start(void)
{
	rig_start(&rig);
	rig_open_channel(&rig, UNARY_CHANNEL, 0);
	calls = 0;
}

static void setup(enum step_kind kind, const char *option, const char *value)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), kind, option, value, NULL);
	start();
}

/* ---- Requests ---- */

static FlinkWorker__Message message_of(const char *payload)
{
	FlinkWorker__Message message = FLINK_WORKER__MESSAGE__INIT;

	message.payload = (ProtobufCBinaryData){strlen(payload), (uint8_t *)payload};
	message.timestamp = 5;
	return message;
}

/* Makes a call out of the bytes of a request and serves it. */
static void call_bytes(enum frame_kind kind, const uint8_t *bytes, size_t size)
{
	ck_assert(rig_push(&rig, UNARY_CHANNEL, (struct frame){.kind = (uint16_t)kind, .seq = ++calls}, bytes, size));
	rig_serve(&rig);
}

static void process(uint32_t segment, const char *payload)
{
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
	FlinkWorker__Message message = message_of(payload);
	uint8_t bytes[1024];

	request.message = &message;
	request.segment_id = segment;
	call_bytes(FRAME_PROCESS_MESSAGE, bytes, flink_worker__process_message_request__pack(&request, bytes));
}

static void watermark(uint32_t segment, int64_t timestamp)
{
	FlinkWorker__ProcessWatermarkRequest request = FLINK_WORKER__PROCESS_WATERMARK_REQUEST__INIT;
	uint8_t bytes[64];

	request.timestamp = timestamp;
	request.segment_id = segment;
	call_bytes(FRAME_PROCESS_WATERMARK, bytes, flink_worker__process_watermark_request__pack(&request, bytes));
}

static void add(const char *key, int64_t window_start, const char *payload)
{
	FlinkWorker__AddToWindowRequest request = FLINK_WORKER__ADD_TO_WINDOW_REQUEST__INIT;
	FlinkWorker__WindowIdentifier window = FLINK_WORKER__WINDOW_IDENTIFIER__INIT;
	FlinkWorker__Message message = message_of(payload);
	static uint8_t bytes[65536];

	window.partition_key = (char *)key;
	window.window_start_time = window_start;
	request.message = &message;
	request.window_id = &window;
	call_bytes(FRAME_ADD_TO_WINDOW, bytes, flink_worker__add_to_window_request__pack(&request, bytes));
}

static void trigger(const char *key, int64_t window_start)
{
	FlinkWorker__TriggerWindowRequest request = FLINK_WORKER__TRIGGER_WINDOW_REQUEST__INIT;
	FlinkWorker__WindowIdentifier window = FLINK_WORKER__WINDOW_IDENTIFIER__INIT;
	uint8_t bytes[256];

	window.partition_key = (char *)key;
	window.window_start_time = window_start;
	request.window_id = &window;
	call_bytes(FRAME_TRIGGER_WINDOW, bytes, flink_worker__trigger_window_request__pack(&request, bytes));
}

/* ---- Answers ---- */

/* Takes the reply to the last call: the payloads given, up to a NULL. */
static void take_reply(const char *first, ...)
{
	struct answer answer = rig_take(&rig, UNARY_CHANNEL);
	const char *payload = first;
	va_list arguments;
	size_t count = 0;

	ck_assert_msg(answer.frame.kind == FRAME_REPLY, "refused: %s", answer.text);
	ck_assert_uint_eq(answer.frame.seq, calls);
	va_start(arguments, first);
	for (; payload != NULL; payload = va_arg(arguments, const char *), count++) {
		ck_assert_uint_lt(count, answer.reply->n_messages);
		ck_assert_uint_eq(answer.reply->messages[count]->payload.len, strlen(payload));
		ck_assert_mem_eq(answer.reply->messages[count]->payload.data, payload, strlen(payload));
	}
	va_end(arguments);
	ck_assert_uint_eq(answer.reply->n_messages, count);
	answer_free(&answer);
	rig_take_nothing(&rig, UNARY_CHANNEL);
}

/* Takes the refusal of the last call. */
static void take_refusal(uint32_t code, const char *words)
{
	struct answer answer = rig_take(&rig, UNARY_CHANNEL);

	ck_assert_uint_eq(answer.frame.kind, FRAME_REFUSAL);
	ck_assert_uint_eq(answer.frame.seq, calls);
	ck_assert_msg(strstr(answer.text, words) != NULL, "\"%s\" has no \"%s\"", answer.text, words);
	ck_assert_uint_eq(answer.code, code);
	answer_free(&answer);
}

/* ---- ProcessMessage ---- */

START_TEST(a_message_runs_through_the_chain)
{
	setup(STEP_flat_map, "program", ".[]");
	process(0, "[1,2]");
	take_reply("1", "2", NULL);
	process(0, "[]");
	take_reply(NULL);
	rig_stop(&rig);
}
END_TEST

START_TEST(an_identity_segment_keeps_all_of_a_message)
{
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
	FlinkWorker__Message message = message_of("\xff\xfe"), *out;
	FlinkWorker__Message__HeadersEntry header = FLINK_WORKER__MESSAGE__HEADERS_ENTRY__INIT, *headers[] = {&header};
	struct answer answer;
	uint8_t bytes[256];

	setup(STEP_passthrough, NULL, NULL);
	header.key = (char *)"a";
	header.value = (char *)"\xc3\xa4";
	message.headers = headers;
	message.n_headers = 1;
	message.timestamp = INT64_MIN;
	request.message = &message;
	call_bytes(FRAME_PROCESS_MESSAGE, bytes, flink_worker__process_message_request__pack(&request, bytes));
	answer = rig_take(&rig, UNARY_CHANNEL);
	ck_assert_uint_eq(answer.reply->n_messages, 1);
	out = answer.reply->messages[0];
	ck_assert_mem_eq(out->payload.data, "\xff\xfe", 2);
	ck_assert_uint_eq(out->n_headers, 1);
	ck_assert_str_eq(out->headers[0]->value, "\xc3\xa4");
	ck_assert(out->timestamp == INT64_MIN);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_failing_step_refuses_with_its_name)
{
	setup(STEP_map, "program", ".a.b");
	process(0, "5");
	take_refusal(GRPC_STATUS_INTERNAL, "segment \"test\" step \"map\" record 0: ");
	ck_assert_uint_eq(counter_read(&workspace_segment_counters(&rig.workspace, 0)->errors), 1);
	process(0, "{\"a\":{\"b\":1}}"); /* and the next one is fine */
	take_reply("1", NULL);
	rig_stop(&rig);
}
END_TEST

START_TEST(what_cannot_be_used_is_refused)
{
	static const struct {
		enum frame_kind kind;
		const char *bytes;
		size_t size;
		const char *words;
	} cases[] = {
	    {FRAME_PROCESS_MESSAGE, "\xff", 1, "the request cannot be used"},
	    {FRAME_PROCESS_MESSAGE, "\x10\x00", 2, "the request carries no message"},
	    {FRAME_PROCESS_MESSAGE, "\x0a\x02\x0a\x05", 4, "the message in the request cannot be used"},
	    {FRAME_PROCESS_MESSAGE, "\x0a\x00\x10\x09", 4,
	     "there is no segment 9; pipeline \"rig\" has segments 0 to 0"},
	    {FRAME_PROCESS_WATERMARK, "\x18\x01", 2, "there is no segment 1"},
	    {FRAME_PROCESS_WATERMARK, "\xff", 1, "the request cannot be used"},
	    {FRAME_ADD_TO_WINDOW, "\x0a\x01\xff", 3, "the message in the request cannot be used"},
	    {FRAME_ADD_TO_WINDOW, "\x1a\x03\x0a\x01\xff", 5, "the request cannot be used"}, /* a key that is no UTF-8 */
	    {FRAME_TRIGGER_WINDOW, "\x10\x01", 2, "there is no segment 1"},
	};

	setup(STEP_map, "program", ".");
	call_bytes(cases[_i].kind, (const uint8_t *)cases[_i].bytes, cases[_i].size);
	take_refusal(GRPC_STATUS_INVALID_ARGUMENT, cases[_i].words);
	process(0, "1");
	take_reply("1", NULL);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_frame_that_is_no_call_is_refused)
{
	setup(STEP_map, "program", ".");
	call_bytes(FRAME_MESSAGE, (const uint8_t *)"", 0);
	take_refusal(GRPC_STATUS_INTERNAL, "MESSAGE");
	rig_stop(&rig);
}
END_TEST

START_TEST(a_reply_has_a_limit)
{
	static const char *const programs[] = {"\"x\" * 262090", "\"x\" * 262140", "range(100) | \"x\" * 10000"};

	setup(STEP_flat_map, "program", programs[_i]);
	process(0, "1");
	if (_i == 0) {
		struct answer answer = rig_take(&rig, UNARY_CHANNEL);

		ck_assert_uint_eq(answer.frame.kind, FRAME_REPLY);
		ck_assert_uint_le(answer.size, 256 << 10);
		answer_free(&answer);
	} else {
		take_refusal(GRPC_STATUS_RESOURCE_EXHAUSTED, "more than a reply may carry, which is 262112");
	}
	rig_stop(&rig);
}
END_TEST

/* The header of that name; NULL when there is none. */
static const char *header_of(const FlinkWorker__Message *message, const char *name)
{
	const char *value = NULL;

	for (size_t i = 0; i < message->n_headers; i++)
		if (strcmp(message->headers[i]->key, name) == 0)
			value = message->headers[i]->value;
	return value;
}

START_TEST(route_and_key_are_headers)
{
	struct answer answer;

	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_route, "routes", "big=. > 10\nrest=default", NULL);
	spec_add(rig_segment(&rig), STEP_key_by, "key", ".k", NULL);
	start();
	process(0, "11");
	answer = rig_take(&rig, UNARY_CHANNEL);
	ck_assert_str_eq(header_of(answer.reply->messages[0], "bridge-route"), "big");
	answer_free(&answer);
	process(0, "1");
	answer = rig_take(&rig, UNARY_CHANNEL);
	ck_assert_str_eq(header_of(answer.reply->messages[0], "bridge-route"), "rest");
	ck_assert_ptr_null(header_of(answer.reply->messages[0], "bridge-key"));
	answer_free(&answer);
	process(1, "{\"k\":\"me\"}");
	answer = rig_take(&rig, UNARY_CHANNEL);
	ck_assert_str_eq(header_of(answer.reply->messages[0], "bridge-key"), "me");
	ck_assert_ptr_null(header_of(answer.reply->messages[0], "bridge-route"));
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_header_of_ours_that_came_in_is_replaced)
{
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
	FlinkWorker__Message message = message_of("11");
	FlinkWorker__Message__HeadersEntry header = FLINK_WORKER__MESSAGE__HEADERS_ENTRY__INIT, *headers[] = {&header};
	struct answer answer;
	uint8_t bytes[256];

	setup(STEP_broadcast, "routes", "one\ntwo");
	header.key = (char *)"bridge-route";
	header.value = (char *)"old";
	message.headers = headers;
	message.n_headers = 1;
	request.message = &message;
	call_bytes(FRAME_PROCESS_MESSAGE, bytes, flink_worker__process_message_request__pack(&request, bytes));
	answer = rig_take(&rig, UNARY_CHANNEL);
	ck_assert_uint_eq(answer.reply->n_messages, 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(answer.reply->messages[i]->n_headers, 1);
		ck_assert_str_eq(header_of(answer.reply->messages[i], "bridge-route"), i == 0 ? "one" : "two");
	}
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

/* ---- ProcessWatermark ---- */

START_TEST(a_watermark_with_nothing_to_do_is_fine)
{
	static const int64_t times[] = {INT64_MIN, -5, 0, 5, 4, INT64_MAX, INT64_MAX, 0};

	setup(STEP_map, "program", ".");
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		watermark(0, times[i]);
		take_reply(NULL);
	}
	rig_stop(&rig);
}
END_TEST

START_TEST(a_watermark_is_the_clock_of_batches)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_batch, "time", "500ms", NULL);
	start();
	watermark(0, 1000);
	take_reply(NULL);
	watermark(0, 400); /* another client's, which is behind: no news, the clock does not go back */
	take_reply(NULL);
	process(0, "1");
	take_reply(NULL);
	process(0, "2");
	take_reply(NULL);
	watermark(0, 1499);
	take_reply(NULL);
	watermark(0, 950);
	take_reply(NULL);
	watermark(0, 1500);
	take_reply("[1,2]", NULL);
	process(0, "3");
	take_reply(NULL);
	watermark(0, INT64_MAX);
	take_reply("[3]", NULL);
	rig_stop(&rig);
}
END_TEST

/* A call that is refused has changed nothing: what was taken before is still to be batched with another. */
START_TEST(a_failing_step_behind_a_batch_loses_nothing)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_batch, "size", "2", NULL);
	spec_add(&rig.specs[0], STEP_filter, "program", "if .[1] == 2 then error(\"no twos\") else true end", NULL);
	start();
	process(0, "1");
	take_reply(NULL);
	process(0, "2");
	take_refusal(GRPC_STATUS_INTERNAL, "no twos");
	process(0, "2");
	take_refusal(GRPC_STATUS_INTERNAL, "no twos");
	process(0, "3");
	take_reply("[1,3]", NULL);
	rig_stop(&rig);
}
END_TEST

/* What the batch took of a call that was refused is undone with it. */
START_TEST(a_refused_call_leaves_nothing_in_a_batch)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_batch, "size", "2", NULL);
	spec_add(&rig.specs[0], STEP_filter, "program", "if .[0] == 1 then error(\"no ones\") else true end", NULL);
	start();
	for (int i = 1; i <= 3; i++) {
		add("a", 0, i == 1 ? "1" : i == 2 ? "2" : "3");
		take_reply(NULL);
	}
	trigger("a", 0);
	take_refusal(GRPC_STATUS_INTERNAL, "no ones");
	process(0, "4");
	take_reply(NULL);
	process(0, "5");
	take_reply("[4,5]", NULL);
	rig_stop(&rig);
}
END_TEST

/* ---- Windows ---- */

START_TEST(a_window_returns_what_it_collected_and_is_gone)
{
	setup(STEP_map, "program", ". * 10");
	add("a", 0, "1");
	take_reply(NULL);
	add("b", 0, "2");
	take_reply(NULL);
	add("a", 60, "3");
	take_reply(NULL);
	add("a", 0, "4");
	take_reply(NULL);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.windows_open), 3);
	trigger("a", 0);
	take_reply("10", "40", NULL);
	trigger("a", 0);
	take_reply(NULL);
	trigger("b", 0);
	take_reply("20", NULL);
	trigger("a", 60);
	take_reply("30", NULL);
	trigger("", 0);
	take_reply(NULL);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.windows_open), 0);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.window_bytes), 0);
	rig_stop(&rig);
}
END_TEST

START_TEST(many_windows_are_kept_apart)
{
	char key[32], number[32];

	setup(STEP_passthrough, NULL, NULL);
	rig.sidecar.config.window_bytes_max = 0; /* frozen at start: this changes nothing */
	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key %d", i % 500);
		snprintf(number, sizeof(number), "%d", i);
		add(key, i % 2, number);
		take_reply(NULL);
	}
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.windows_open), 500);
	for (int i = 0; i < 500; i++) {
		char second[32];

		snprintf(key, sizeof(key), "key %d", i);
		snprintf(number, sizeof(number), "%d", i);
		snprintf(second, sizeof(second), "%d", i + 500);
		trigger(key, i % 2);
		take_reply(number, second, NULL);
	}
	rig_stop(&rig);
}
END_TEST

/* Collects so many messages of which each becomes so many bytes, and triggers. */
static void collect(int messages)
{
	char number[32];

	for (int i = 0; i < messages; i++) {
		snprintf(number, sizeof(number), "%d", i);
		add("a", 0, number);
		take_reply(NULL);
	}
	trigger("a", 0);
}

START_TEST(a_large_window_goes_through_in_runs)
{
	struct answer answer;
	char number[32];

	setup(_i == 0 ? STEP_passthrough : STEP_map, _i == 0 ? NULL : "program", ".");
	collect(5000);
	answer = rig_take(&rig, UNARY_CHANNEL);
	ck_assert_uint_eq(answer.reply->n_messages, 5000);
	for (int i = 0; i < 5000; i++) {
		int digits = snprintf(number, sizeof(number), "%d", i);

		ck_assert_uint_eq(answer.reply->messages[i]->payload.len, (size_t)digits);
		ck_assert_mem_eq(answer.reply->messages[i]->payload.data, number, (size_t)digits);
	}
	answer_free(&answer);
	ck_assert_uint_eq(counter_read(&workspace_segment_counters(&rig.workspace, 0)->records_out), 5000);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_window_beyond_the_reply_s_limit_is_refused_and_stays)
{
	setup(STEP_map, "program", "\"x\" * 100");
	collect(3000);
	take_refusal(GRPC_STATUS_RESOURCE_EXHAUSTED, "more than a reply may carry");
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.windows_open), 1);
	process(0, "1");
	rig_serve(&rig);
	struct answer answer = rig_take(&rig, UNARY_CHANNEL);
	ck_assert_uint_eq(answer.frame.kind, FRAME_REPLY);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

START_TEST(windows_are_bounded_by_bytes)
{
	static char payload[40000];

	memset(payload, '1', sizeof(payload) - 1);
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_passthrough, NULL);
	rig.sidecar.config.window_bytes_max = 100000;
	start();
	add("a", 0, payload);
	take_reply(NULL);
	add("b", 0, payload);
	take_reply(NULL);
	add("a", 0, payload);
	take_refusal(GRPC_STATUS_RESOURCE_EXHAUSTED, "of 100000 allowed");
	trigger("a", 0);
	take_reply(payload, NULL);
	add("c", 0, payload);
	take_reply(NULL);
	ck_assert_uint_le(counter_read(&rig.workspace.page->counters.window_bytes), 100000);
	rig_stop(&rig);
}
END_TEST

START_TEST(old_windows_are_dropped_and_counted)
{
	uint64_t opened_ns, next_ns;

	setup(STEP_passthrough, NULL, NULL);
	ck_assert(serve_expire(rig.serve) == UINT64_MAX);
	add("a", 0, "1");
	take_reply(NULL);
	opened_ns = rig.workspace.now_ns;
	next_ns = serve_expire(rig.serve);
	ck_assert_uint_le(next_ns, opened_ns + UINT64_C(60000000000));
	ck_assert_uint_gt(next_ns, opened_ns);
	rig.sidecar.config.window_age_ms_max = 0; /* any age is too old now */
	ck_assert(serve_expire(rig.serve) == UINT64_MAX);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.windows_expired), 1);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.windows_open), 0);
	trigger("a", 0);
	take_reply(NULL);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_window_whose_trigger_fails_stays)
{
	setup(STEP_map, "program", ". * 10");
	add("a", 0, "{}");
	take_reply(NULL);
	trigger("a", 0);
	take_refusal(GRPC_STATUS_INTERNAL, "record 0");
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.windows_open), 1);
	rig_stop(&rig);
}
END_TEST

/* ---- Flow ---- */

/* Many calls at once whose replies find no room: all are answered, in order, once the front takes replies. */
START_TEST(replies_wait_for_room)
{
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
	FlinkWorker__Message message = message_of("1");
	uint8_t bytes[64];
	size_t size;

	rig_init(&rig);
	rig.sizes.unary_ring = 4096;
	spec_add(rig_segment(&rig), STEP_map, "program", "\"x\" * 600", NULL);
	start();
	request.message = &message;
	size = flink_worker__process_message_request__pack(&request, bytes);
	for (uint64_t seq = 1; seq <= 20; seq++)
		ck_assert(rig_push(&rig, UNARY_CHANNEL, (struct frame){.kind = FRAME_PROCESS_MESSAGE, .seq = seq},
				   bytes, size));
	rig_serve(&rig);
	ck_assert_uint_lt(counter_read(&rig.workspace.page->counters.frames), 20);
	for (uint64_t seq = 1; seq <= 20; seq++) {
		struct answer answer = rig_take(&rig, UNARY_CHANNEL);

		ck_assert_uint_eq(answer.frame.seq, seq);
		ck_assert_uint_eq(answer.reply->messages[0]->payload.len, 602);
		answer_free(&answer);
		rig_serve(&rig);
	}
	rig_take_nothing(&rig, UNARY_CHANNEL);
	rig_stop(&rig);
}
END_TEST

static Suite *unary_suite(void)
{
	Suite *suite = suite_create("unary");
	TCase *calls_case = tcase_create("calls"), *windows = tcase_create("windows"), *flow = tcase_create("flow");

	tcase_add_test(calls_case, a_message_runs_through_the_chain);
	tcase_add_test(calls_case, an_identity_segment_keeps_all_of_a_message);
	tcase_add_test(calls_case, a_failing_step_refuses_with_its_name);
	tcase_add_loop_test(calls_case, what_cannot_be_used_is_refused, 0, 9);
	tcase_add_test(calls_case, a_frame_that_is_no_call_is_refused);
	tcase_add_loop_test(calls_case, a_reply_has_a_limit, 0, 3);
	tcase_add_test(calls_case, route_and_key_are_headers);
	tcase_add_test(calls_case, a_header_of_ours_that_came_in_is_replaced);
	tcase_add_test(calls_case, a_watermark_with_nothing_to_do_is_fine);
	tcase_add_test(calls_case, a_watermark_is_the_clock_of_batches);
	tcase_add_test(calls_case, a_failing_step_behind_a_batch_loses_nothing);
	tcase_add_test(calls_case, a_refused_call_leaves_nothing_in_a_batch);
	suite_add_tcase(suite, calls_case);
	tcase_add_test(windows, a_window_returns_what_it_collected_and_is_gone);
	tcase_add_test(windows, many_windows_are_kept_apart);
	tcase_add_loop_test(windows, a_large_window_goes_through_in_runs, 0, 2);
	tcase_add_test(windows, a_window_beyond_the_reply_s_limit_is_refused_and_stays);
	tcase_add_test(windows, windows_are_bounded_by_bytes);
	tcase_add_test(windows, old_windows_are_dropped_and_counted);
	tcase_add_test(windows, a_window_whose_trigger_fails_stays);
	suite_add_tcase(suite, windows);
	tcase_add_test(flow, replies_wait_for_room);
	suite_add_tcase(suite, flow);
	return suite;
}

CHECK_MAIN(unary_suite)
