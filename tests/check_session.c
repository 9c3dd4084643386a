/*
 * One session on a channel: every kind of message, every rule that ends it, and what happens when nobody reads.
 */
#include "tests/rig.h"

#include "tests/check_main.h"

static struct rig rig;

/* A rig with one segment of the kinds given. */
static void setup_identity(void)
{
	rig_init(&rig);
	rig_segment(&rig)->segment.name = "pass";
	rig_start(&rig);
}

/* The same with two inputs. */
static void setup_inputs(void)
{
	static struct input inputs[2];

	rig_init(&rig);
	rig_segment(&rig)->segment.inputs = inputs;
	rig.specs[0].segment.input_count = 2;
	rig_start(&rig);
}

static void setup_map(void)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_map, "program", ".a", NULL);
	rig_start(&rig);
}

static void setup_batch(void)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_batch, "size", "3", "time", "500ms", NULL);
	rig_start(&rig);
}

/* ---- Every kind of message ---- */

START_TEST(open_is_answered_with_epoch_and_limits)
{
	FlinkBridge__Open open = rig_open_message();
	struct answer answer;

	setup_identity();
	rig_open_channel(&rig, 3, 0);
	rig_send_open(&rig, 3, &open);
	rig_serve(&rig);
	answer = rig_take(&rig, 3);
	ck_assert_uint_eq(answer.message->seq, 1);
	ck_assert_uint_eq(answer.message->open_ack->epoch, rig.channels[3].epoch);
	ck_assert_uint_eq(answer.message->open_ack->slot, 0);
	ck_assert_uint_eq(answer.message->open_ack->worker_pid, (uint32_t)getpid());
	ck_assert_uint_eq(answer.message->open_ack->limits->max_record_bytes, 128 << 10);
	ck_assert_uint_eq(answer.message->open_ack->limits->max_message_bytes,
			  ring_payload_max(rig.sizes.session_ring) < 256 << 10
			      ? ring_payload_max(rig.sizes.session_ring)
			      : 256 << 10);
	answer_free(&answer);
	ck_assert_uint_eq(rig_position(&rig, 3)->seq, 1);
	ck_assert_int_eq(rig_position(&rig, 3)->processing_time, RIG_TIME);
	rig_stop(&rig);
}
END_TEST

START_TEST(identity_hands_records_on)
{
	FlinkBridge__Record record = FLINK_BRIDGE__RECORD__INIT, *records[] = {&record};
	FlinkBridge__Record__HeadersEntry header = FLINK_BRIDGE__RECORD__HEADERS_ENTRY__INIT, *headers[] = {&header};
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__ToWorker message;
	FlinkBridge__Record *out;
	struct answer answer;

	setup_inputs();
	rig_open(&rig, 1, 0);
	header.key = (char *)"who";
	header.value = (char *)"me";
	record.payload = (ProtobufCBinaryData){4, (uint8_t *)"\0\1\2\3"};
	record.n_headers = 1;
	record.headers = headers;
	record.maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
	record.timestamp = INT64_MIN;
	record.maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
	record.key = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
	record.key_hash = -5;
	record.key_group = 99;
	record.input = 1;
	record.route = 5; /* which is not for a client to say */
	batch.n_records = 1;
	batch.records = records;
	message = rig_message(&rig, 1);
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	rig_send(&rig, 1, &message);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	out = answer_results(&answer, 2, 1, true)->records[0];
	ck_assert_uint_eq(out->payload.len, 4);
	ck_assert_mem_eq(out->payload.data, "\0\1\2\3", 4);
	ck_assert_uint_eq(out->n_headers, 1);
	ck_assert_str_eq(out->headers[0]->key, "who");
	ck_assert_str_eq(out->headers[0]->value, "me");
	ck_assert_int_eq(out->maybe_timestamp_case, FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP__NOT_SET);
	ck_assert_int_eq(out->maybe_key_case, FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY);
	ck_assert_mem_eq(out->key.data, "abc", 3);
	ck_assert_int_eq(out->key_hash, -5);
	ck_assert_uint_eq(out->key_group, 99);
	ck_assert_uint_eq(out->input, 0);
	ck_assert_uint_eq(out->route, 0);
	ck_assert_int_eq(answer.message->next_wakeup_ms, 0);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_chain_transforms_records)
{
	setup_map();
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "{\"a\":1}", "{\"a\":\"b\"}", NULL);
	rig_batch(&rig, 1, NULL);
	rig_serve(&rig);
	rig_take_results(&rig, 1, 2, true, "1", "\"b\"", NULL);
	rig_take_results(&rig, 1, 3, true, NULL);
	rig_take_nothing(&rig, 1);
	rig_stop(&rig);
}
END_TEST

START_TEST(time_and_status_are_answered_by_results)
{
	FlinkBridge__WatermarkStatus status = FLINK_BRIDGE__WATERMARK_STATUS__INIT;

	setup_identity();
	rig_open(&rig, 1, 0);
	rig_watermark(&rig, 1, INT64_MIN);
	rig_watermark(&rig, 1, 5);
	rig_watermark(&rig, 1, 5);
	rig_watermark(&rig, 1, INT64_MAX);
	status.idle = true;
	rig_send_watermark_status(&rig, 1, &status);
	rig_tick(&rig, 1, INT64_MAX);
	rig_serve(&rig);
	for (uint64_t seq = 2; seq <= 7; seq++)
		rig_take_results(&rig, 1, seq, true, NULL);
	ck_assert(rig_position(&rig, 1)->watermark == INT64_MAX);
	rig_stop(&rig);
}
END_TEST

/* What steps hold is state, and goes before the barrier's acknowledgement as such. */
START_TEST(a_barrier_releases_nothing)
{
	struct answer answer;

	setup_batch();
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "1", "2", NULL);
	rig_barrier(&rig, 1, 42);
	rig_batch(&rig, 1, "3", NULL);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	answer_results(&answer, 2, 0, true);
	ck_assert_int_eq(answer.message->next_wakeup_ms, RIG_TIME + 500);
	answer_free(&answer);
	answer = rig_take(&rig, 1);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_STATE_DELTA);
	ck_assert_uint_eq(answer.frame.flags, 0);
	ck_assert_uint_gt(answer.message->state_delta->n_entries, 0);
	answer_free(&answer);
	answer = rig_take(&rig, 1);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_BARRIER_ACK);
	ck_assert_uint_eq(answer.message->barrier_ack->checkpoint_id, 42);
	ck_assert_uint_eq(answer.frame.flags, FRAME_LAST);
	ck_assert_int_eq(answer.message->next_wakeup_ms, RIG_TIME + 500);
	answer_free(&answer);
	rig_take_results(&rig, 1, 4, true, "[1,2,3]", NULL);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_tick_closes_what_is_due)
{
	setup_batch();
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "1", NULL);
	rig_tick(&rig, 1, RIG_TIME + 499);
	rig_tick(&rig, 1, RIG_TIME + 500);
	rig_serve(&rig);
	rig_take_results(&rig, 1, 2, true, NULL);
	rig_take_results(&rig, 1, 3, true, NULL);
	rig_take_results(&rig, 1, 4, true, "[1]", NULL);
	rig_stop(&rig);
}
END_TEST

/* Times at the limits of int64 overflow nothing, and no record gets lost at the end of time. */
START_TEST(time_may_end)
{
	static const int64_t timestamps[] = {INT64_MIN, INT64_MAX};
	struct answer answer;
	int records_out = 0;

	setup_batch();
	rig_open(&rig, 1, 0);
	rig_tick(&rig, 1, INT64_MAX);
	for (int i = 0; i < 2; i++) {
		FlinkBridge__Record record = FLINK_BRIDGE__RECORD__INIT, *records[] = {&record};
		FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
		FlinkBridge__ToWorker message = rig_message(&rig, 1);

		record.payload = (ProtobufCBinaryData){1, (uint8_t *)"1"};
		record.maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
		record.timestamp = timestamps[i];
		batch.n_records = 1;
		batch.records = records;
		message.processing_time_ms = INT64_MAX;
		message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
		message.batch = &batch;
		rig_send(&rig, 1, &message);
	}
	rig_tick(&rig, 1, INT64_MAX);
	rig_serve(&rig);
	while (rig_try_take(&rig, 1, &answer)) {
		ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS);
		for (size_t i = 0; i < answer.message->results->n_records; i++)
			records_out += (int)answer.message->results->records[i]->payload.len / 2; /* [1] or [1,1] */
		answer_free(&answer);
	}
	ck_assert_int_eq(records_out, 2);
	rig_stop(&rig);
}
END_TEST

START_TEST(after_end_input_time_and_barriers_go_on)
{
	struct answer answer;

	setup_batch();
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "1", NULL);
	rig_end_input(&rig, 1);
	rig_watermark(&rig, 1, INT64_MAX);
	rig_barrier(&rig, 1, 1);
	rig_close(&rig, 1);
	rig_serve(&rig);
	rig_take_results(&rig, 1, 2, true, NULL);
	rig_take_results(&rig, 1, 3, false, "[1]", NULL);
	answer = rig_take(&rig, 1);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_END_ACK);
	answer_free(&answer);
	rig_take_results(&rig, 1, 4, true, NULL);
	answer = rig_take(&rig, 1);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_BARRIER_ACK);
	answer_free(&answer);
	answer = rig_take(&rig, 1);
	ck_assert_uint_eq(answer.frame.kind, FRAME_END);
	ck_assert_uint_eq(answer.code, GRPC_STATUS_OK);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

/* ---- Every rule ---- */

/* Frames behind the end of a session vanish, until its channel closes. */
static void check_is_over(uint32_t channel)
{
	rig_watermark(&rig, channel, 5);
	rig_serve(&rig);
	rig_take_nothing(&rig, channel);
	rig_close_channel(&rig, channel);
	rig_serve(&rig);
	ck_assert(rig_free_channel(&rig, channel));
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.sessions_open), 0);
	rig_stop(&rig);
}

START_TEST(seq_goes_up_by_one)
{
	setup_identity();
	rig_open(&rig, 1, 0);
	rig.channels[1].seq = (uint64_t)(_i == 0 ? 2 : 0); /* one too many; the same again */
	rig_watermark(&rig, 1, 5);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_SEQUENCE, GRPC_STATUS_INVALID_ARGUMENT,
			 "came where 2 had to");
	check_is_over(1);
}
END_TEST

START_TEST(open_has_seq_one)
{
	FlinkBridge__Open open = rig_open_message();

	setup_identity();
	rig_open_channel(&rig, 1, 0);
	rig.channels[1].seq = 1;
	rig_send_open(&rig, 1, &open);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_SEQUENCE, GRPC_STATUS_INVALID_ARGUMENT,
			 "seq 2 came where 1 had to");
	check_is_over(1);
}
END_TEST

START_TEST(processing_time_never_goes_back)
{
	setup_identity();
	rig_open(&rig, 1, 0);
	rig_tick(&rig, 1, RIG_TIME - 1);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_SEQUENCE, GRPC_STATUS_INVALID_ARGUMENT,
			 "processing time went back from 1000 to 999");
	check_is_over(1);
}
END_TEST

START_TEST(watermarks_never_go_back)
{
	setup_identity();
	rig_open(&rig, 1, 0);
	rig_watermark(&rig, 1, 10);
	rig_watermark(&rig, 1, 9);
	rig_serve(&rig);
	rig_take_results(&rig, 1, 2, true, NULL);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_SEQUENCE, GRPC_STATUS_INVALID_ARGUMENT,
			 "watermark went back from 10 to 9");
	check_is_over(1);
}
END_TEST

START_TEST(open_comes_first_and_once)
{
	FlinkBridge__Open open = rig_open_message();
	FlinkBridge__ToWorker message;

	setup_identity();
	if (_i == 0) {
		rig_open_channel(&rig, 1, 0);
		rig_watermark(&rig, 1, 5);
	} else {
		rig_open(&rig, 1, 0);
		message = rig_message(&rig, 1);
		message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
		message.open = &open;
		rig_send(&rig, 1, &message);
	}
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_STATE, GRPC_STATUS_INVALID_ARGUMENT,
			 _i == 0 ? "the first message has to be Open" : "Open came twice");
	check_is_over(1);
}
END_TEST

START_TEST(open_is_checked)
{
	static const struct {
		uint32_t version, segment, first, last;
		const char *words;
	} cases[] = {
	    {1, 0, 0, 63, "protocol version 1"},
	    {2, 7, 0, 63, "no segment 7"},
	    {2, 0, 5, 4, "5 to 4 of max_parallelism 128"},
	    {2, 0, 0, 128, "0 to 128 of max_parallelism 128"},
	};
	FlinkBridge__Open open = rig_open_message();

	rig_init(&rig);
	rig_segment(&rig)->segment.keyed = true;
	rig_start(&rig);
	rig_open_channel(&rig, 1, 0);
	open.protocol_version = cases[_i].version;
	open.segment = cases[_i].segment;
	open.key_group_first = cases[_i].first;
	open.key_group_last = cases[_i].last;
	rig_send_open(&rig, 1, &open);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_STATE, GRPC_STATUS_INVALID_ARGUMENT, cases[_i].words);
	check_is_over(1);
}
END_TEST

START_TEST(after_end_input_there_is_none)
{
	struct answer answer;

	setup_identity();
	rig_open(&rig, 1, 0);
	rig_end_input(&rig, 1);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	answer_free(&answer);
	if (_i == 0)
		rig_batch(&rig, 1, "x", NULL);
	else
		rig_end_input(&rig, 1);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_STATE, GRPC_STATUS_INVALID_ARGUMENT,
			 _i == 0 ? "a Batch came after EndInput" : "EndInput came twice");
	check_is_over(1);
}
END_TEST

START_TEST(bytes_that_are_no_message_end_it)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *words;
	} cases[] = {
	    {"\xff\xff\xff", 3, "cannot be read as flink_bridge.ToWorker"},
	    {"\x08\x02\x10\xe8\x07", 5, "of no kind"},                               /* seq and time alone */
	    {"\x08\x02\x10\xe8\x07\x32\x02\x0a\x05", 9, "the batch cannot be read"}, /* a record of 5 bytes, cut off */
	    {"\x08\x02\x10\xe8\x07\x32\x04\x0a\x02\x0a\x05", 11, "record 0 of the batch"},
	    {"\x08\x02\x10\xe8\x07\x3a\x02\x0a\x00", 9, "the Watermark message"},
	    {"\x08\x02\x10\xe8\x07\x42\x02\x0a\x00", 9, "the WatermarkStatus message"},
	    {"\x08\x02\x10\xe8\x07\x4a\x01\x0a", 8, "the TimerTick message"},
	    {"\x08\x02\x10\xe8\x07\x52\x02\x0a\x00", 9, "the Barrier message"},
	    {"\x08\x02\x10\xe8\x07\x5a\x01\x0a", 8, "the EndInput message"},
	    {"\x08\x02\x10\xe8\x07\x62\x03\x0a\x01\xff", 10, "the Close message"}, /* a reason that is no UTF-8 */
	};

	setup_identity();
	rig_open(&rig, 1, 0);
	ck_assert(rig_push(&rig, 1, (struct frame){.kind = FRAME_MESSAGE, .seq = 2}, cases[_i].bytes, cases[_i].size));
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_MALFORMED, GRPC_STATUS_INVALID_ARGUMENT,
			 cases[_i].words);
	check_is_over(1);
}
END_TEST

START_TEST(an_open_that_cannot_be_read_ends_it)
{
	setup_identity();
	rig_open_channel(&rig, 1, 0);
	ck_assert(rig_push(&rig, 1, (struct frame){.kind = FRAME_OPEN, .seq = 1}, "\x08\x01\x1a\x01\x08", 5));
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_MALFORMED, GRPC_STATUS_INVALID_ARGUMENT,
			 "the Open message");
	check_is_over(1);
}
END_TEST

/* A batch of two records of which the second is as given. */
static void send_second(FlinkBridge__Record *second)
{
	FlinkBridge__Record first = *second, *records[] = {&first, second};
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__ToWorker message = rig_message(&rig, 1);

	first.key_hash = RIG_HASH;
	first.key_group = 0;
	first.input = 0;
	first.maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
	batch.n_records = 2;
	batch.records = records;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	rig_send(&rig, 1, &message);
	rig_serve(&rig);
}

START_TEST(records_are_checked_against_the_session)
{
	static const char *const words[] = {
	    "record 1 is of key group 64; this session has 0 to 63",
	    "record 1 has no key",
	    "record 1 names input 1; segment \"keyed\" has 1",
	    "record 1 is of key group 3, but its key hash 312 is of 0 at max_parallelism 128",
	};
	FlinkBridge__Record record = FLINK_BRIDGE__RECORD__INIT;

	rig_init(&rig);
	rig_segment(&rig)->segment.keyed = true;
	rig.specs[0].segment.name = "keyed";
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	record.key_hash = RIG_HASH;
	record.key_group = _i == 0 ? 64 : _i == 3 ? 3 : 0;
	record.maybe_key_case =
	    _i == 1 ? FLINK_BRIDGE__RECORD__MAYBE_KEY__NOT_SET : FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
	record.input = _i == 2 ? 1 : 0;
	send_second(&record);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_MALFORMED, GRPC_STATUS_INVALID_ARGUMENT, words[_i]);
	check_is_over(1);
}
END_TEST

START_TEST(a_failing_step_is_named)
{
	struct answer answer;

	setup_map();
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "{\"a\":1}", "5", NULL);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_ERROR);
	ck_assert_int_eq(answer.message->error->code, FLINK_BRIDGE__ERROR_CODE__ERROR_STEP);
	ck_assert_uint_eq(answer.message->error->seq, 2);
	ck_assert_uint_eq(answer.message->error->record, 1);
	ck_assert_str_eq(answer.message->error->step, "map");
	answer_free(&answer);
	answer = rig_take(&rig, 1);
	ck_assert_uint_eq(answer.code, GRPC_STATUS_INTERNAL);
	ck_assert_msg(strncmp(answer.text, "segment \"test\" step \"map\" record 1: ", 36) == 0, "%s", answer.text);
	answer_free(&answer);
	ck_assert_uint_eq(counter_read(&workspace_segment_counters(&rig.workspace, 0)->errors), 1);
	check_is_over(1);
}
END_TEST

/* The record at fault is counted over all units of a batch. */
START_TEST(a_failing_record_far_into_a_batch_is_named)
{
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	static FlinkBridge__Record records[1000], *pointers[1000];
	FlinkBridge__ToWorker message;
	struct answer answer;

	setup_map();
	rig_open(&rig, 1, 0);
	for (int i = 0; i < 1000; i++) {
		flink_bridge__record__init(&records[i]);
		records[i].payload = (ProtobufCBinaryData){i == 700 ? 1 : 2, (uint8_t *)"{}"};
		pointers[i] = &records[i];
	}
	batch.n_records = 1000;
	batch.records = pointers;
	message = rig_message(&rig, 1);
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	rig_send(&rig, 1, &message);
	rig_serve(&rig);
	do {
		answer = rig_take(&rig, 1);
		if (answer.message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
			break;
		answer_free(&answer);
	} while (true);
	ck_assert_uint_eq(answer.message->error->record, 700);
	answer_free(&answer);
	answer = rig_take(&rig, 1);
	ck_assert_uint_eq(answer.frame.kind, FRAME_END);
	answer_free(&answer);
	check_is_over(1);
}
END_TEST

/* ---- Limits ---- */

START_TEST(a_record_has_a_limit_on_the_way_in)
{
	setup_identity();
	rig_open(&rig, 1, 0);
	rig_fill(&rig, 1, 1, (128 << 10) - 6); /* with its tag, length and time exactly the limit */
	rig_serve(&rig);
	struct answer answer = rig_take(&rig, 1);
	answer_results(&answer, 2, 1, true);
	answer_free(&answer);
	rig_fill(&rig, 1, 1, (128 << 10) - 5);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE, GRPC_STATUS_RESOURCE_EXHAUSTED,
			 "record 0 has 131073 bytes; a record may have 131072");
	check_is_over(1);
}
END_TEST

/* The largest record that the message limit lets in comes out again, whatever the record limit says. */
START_TEST(what_may_come_in_may_go_out)
{
	struct answer answer;
	size_t size;

	rig_init(&rig);
	rig.sidecar.config.record_max = rig.sidecar.config.message_max = 10000;
	rig_segment(&rig);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	size = 10000 - 64 - 5;
	rig_fill(&rig, 1, 1, size);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	answer_results(&answer, 2, 1, true);
	answer_free(&answer);
	rig_fill(&rig, 1, 1, size + 1);
	rig_serve(&rig);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE, GRPC_STATUS_RESOURCE_EXHAUSTED,
			 "a record may have 9936");
	rig_stop(&rig);
}
END_TEST

START_TEST(a_record_has_a_limit_on_the_way_out)
{
	static const char *const programs[] = {"\"x\" * 131064", "\"x\" * 131065", "\"x\" * 10000000"};

	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_map, "program", programs[_i], NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "1", NULL);
	rig_serve(&rig);
	if (_i > 0) {
		rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE, GRPC_STATUS_RESOURCE_EXHAUSTED,
				 "a record may have 131072");
		check_is_over(1);
		return;
	}
	struct answer answer = rig_take(&rig, 1);
	answer_results(&answer, 2, 1, true);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

/* ---- Large answers, and clients that do not read ---- */

/* Takes Results of one seq to the last, serving whenever the ring is empty; checks that payloads are numbers in order from 0. */
static size_t take_numbers(uint32_t channel, uint64_t seq, size_t *messages)
{
	size_t count = 0;
	bool last = false;

	*messages = 0;
	while (!last) {
		struct answer answer;

		while (!rig_try_take(&rig, channel, &answer))
			rig_serve(&rig);
		ck_assert_uint_eq(answer.frame.kind, FRAME_ANSWER);
		ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS);
		ck_assert_uint_eq(answer.message->seq, seq);
		ck_assert_uint_le(answer.size, rig.sidecar.config.message_max);
		last = answer.frame.flags == FRAME_LAST;
		ck_assert(answer.message->results->more == !last);
		for (size_t i = 0; i < answer.message->results->n_records; i++, count++) {
			const ProtobufCBinaryData *payload = &answer.message->results->records[i]->payload;
			char number[32];
			int digits = snprintf(number, sizeof(number), "\"%zu ", count);

			ck_assert_uint_ge(payload->len, (size_t)digits);
			ck_assert_mem_eq(payload->data, number, (size_t)digits);
		}
		(*messages)++;
		answer_free(&answer);
	}
	return count;
}

START_TEST(a_fan_out_beyond_the_ring_comes_out_in_order)
{
	size_t messages;

	rig_init(&rig);
	rig.sizes.session_ring = 64 << 10;
	rig.sidecar.config.message_max = 16 << 10;
	rig.sidecar.config.record_max = 8 << 10;
	spec_add(rig_segment(&rig), STEP_flat_map, "program", "range(10000) | \"\\(.) \" + (\"x\" * 1000)", NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "0", NULL);
	rig_barrier(&rig, 1, 9);
	rig_serve(&rig);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.frames), 2); /* the Barrier waits */
	ck_assert_uint_ge(counter_read(&rig.workspace.page->counters.response_ring_full), 1);
	ck_assert_uint_eq(take_numbers(1, 2, &messages), 10000);
	ck_assert_uint_ge(messages, 10000 / 16);
	rig_serve(&rig);
	struct answer answer = rig_take(&rig, 1);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_BARRIER_ACK);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

/* A batch whose outputs do not fit parks between two units: what waits is one unit's, not the batch's. */
START_TEST(a_large_batch_parks_between_units)
{
	size_t count = 0;

	rig_init(&rig);
	rig.sizes.session_ring = 64 << 10;
	rig.sidecar.config.message_max = 16 << 10;
	rig.sidecar.config.record_max = 8 << 10;
	spec_add(rig_segment(&rig), STEP_flat_map, "payload", "text", "program", "\"0\", \"1\" | . + \"x\" * 500",
		 NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_fill(&rig, 1, 2000, 1);
	rig_serve(&rig);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.frames), 1);
	ck_assert_uint_lt(counter_read(&workspace_segment_counters(&rig.workspace, 0)->records_in), 1000);
	for (bool last = false; !last;) {
		struct answer answer;

		while (!rig_try_take(&rig, 1, &answer))
			rig_serve(&rig);
		last = answer.frame.flags == FRAME_LAST;
		for (size_t i = 0; i < answer.message->results->n_records; i++, count++)
			ck_assert_int_eq(answer.message->results->records[i]->payload.data[0], count % 2 ? '1' : '0');
		answer_free(&answer);
	}
	ck_assert_uint_eq(count, 4000);
	ck_assert_uint_eq(counter_read(&workspace_segment_counters(&rig.workspace, 0)->records_in), 2000);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.frames), 2);
	rig_stop(&rig);
}
END_TEST

START_TEST(results_are_split_at_the_message_limit)
{
	struct answer answer;
	size_t count = 0, messages = 0;

	setup_identity();
	rig_open(&rig, 1, 0);
	/* What comes in as one message may not fit into one on the way out, which has seq and Results around it. */
	rig_fill(&rig, 1, 3, 80 << 10);
	rig_serve(&rig);
	while (rig_try_take(&rig, 1, &answer)) {
		count += answer.message->results->n_records;
		messages++;
		answer_free(&answer);
	}
	ck_assert_uint_eq(count, 3);
	ck_assert_uint_eq(messages, 1);
	rig_stop(&rig);
}
END_TEST

/* One that never reads parks alone; the other one of the slot is served, and so is the first when it reads again. */
START_TEST(one_that_never_reads_holds_nobody_up)
{
	uint64_t sent = 1, answered = 1;
	struct answer answer;

	rig_init(&rig);
	rig.sizes.session_ring = 64 << 10;
	rig.sidecar.config.message_max = 16 << 10;
	rig_segment(&rig);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 0);
	while (rig_try_fill(&rig, 1, 10, 1000)) { /* until the request ring of the one that does not read is full too */
		sent++;
		rig_serve(&rig);
	}
	ck_assert_uint_ge(sent, 10);
	for (uint64_t seq = 2; seq < 50; seq++) {
		rig_fill(&rig, 2, 10, 1000);
		rig_serve(&rig);
		answer = rig_take(&rig, 2);
		answer_results(&answer, seq, 10, true);
		answer_free(&answer);
	}
	while (rig_try_take(&rig, 1, &answer)) {
		answer_results(&answer, ++answered, 10, true);
		answer_free(&answer);
		rig_serve(&rig);
	}
	ck_assert_uint_eq(answered, sent);
	rig_stop(&rig);
}
END_TEST

/* Two that both have plenty to do move on in every turn, and end together. */
START_TEST(sessions_share_the_worker)
{
	uint64_t done[2] = {0, 0};

	rig_init(&rig);
	for (uint32_t segment = 0; segment < 2; segment++)
		spec_add(rig_segment(&rig), STEP_filter, "program", "[range(20)] | length < 0", "payload", "text",
			 NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 1);
	rig_fill(&rig, 1, 20000, 1);
	rig_fill(&rig, 2, 20000, 1);
	for (int turn = 0; turn < 3; turn++) {
		ck_assert_int_eq(serve_turn(rig.serve), SERVE_BUSY);
		for (uint32_t segment = 0; segment < 2; segment++) {
			uint64_t records =
			    counter_read(&workspace_segment_counters(&rig.workspace, segment)->records_in);

			ck_assert_uint_gt(records, done[segment]);
			ck_assert_uint_lt(records, 20000);
			done[segment] = records;
		}
	}
	rig_serve(&rig);
	for (uint32_t channel = 1; channel <= 2; channel++) {
		struct answer answer = rig_take(&rig, channel);

		answer_results(&answer, 2, 0, true);
		answer_free(&answer);
	}
	rig_stop(&rig);
}
END_TEST

/* ---- Life and death of channels ---- */

START_TEST(frames_of_another_epoch_are_dropped)
{
	setup_identity();
	rig_open(&rig, 1, 0);
	ck_assert(rig_push(&rig, 1, (struct frame){.kind = FRAME_MESSAGE, .seq = 2, .epoch = 999}, "\xff", 1));
	rig_watermark(&rig, 1, 5);
	rig_serve(&rig);
	rig_take_results(&rig, 1, 2, true, NULL);
	rig_take_nothing(&rig, 1);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_closed_channel_opens_again)
{
	setup_batch();
	for (int i = 0; i < 5; i++) {
		rig_open(&rig, 1, 0);
		ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.sessions_open), 1);
		rig_batch(&rig, 1, "1", NULL);
		rig_serve(&rig);
		rig_take_results(&rig, 1, 2, true, NULL); /* nothing is left of the session before */
		rig_close_channel(&rig, 1);
		rig_serve(&rig);
		ck_assert(rig_free_channel(&rig, 1));
		ck_assert_uint_eq(rig_position(&rig, 1)->epoch, 0);
	}
	rig_stop(&rig);
}
END_TEST

START_TEST(a_channel_that_opens_and_closes_unseen_is_left)
{
	setup_identity();
	rig_open_channel(&rig, 1, 0);
	rig_close_channel(&rig, 1);
	rig_serve(&rig);
	ck_assert(rig_free_channel(&rig, 1));
	rig_stop(&rig);
}
END_TEST

START_TEST(closing_while_parked_frees_what_waits)
{
	rig_init(&rig);
	rig.sizes.session_ring = 64 << 10;
	rig.sidecar.config.message_max = 16 << 10;
	spec_add(rig_segment(&rig), STEP_flat_map, "program", "range(1000) | \"x\" * 1000", NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "1", NULL);
	rig_serve(&rig);
	rig_close_channel(&rig, 1);
	rig_serve(&rig);
	ck_assert(rig_free_channel(&rig, 1));
	rig_open(&rig, 1, 0);
	rig_stop(&rig);
}
END_TEST

/* What a reset finds open is never served: its front has freed it before it opens it anew under another epoch. */
START_TEST(a_reset_drops_all_and_ignores_what_was_open)
{
	setup_identity();
	rig_open(&rig, 1, 0);
	rig_fill(&rig, 1, 10, 100);
	rig_serve(&rig);
	rig_fill(&rig, 1, 10, 100);
	serve_reset(rig.serve);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.sessions_open), 0);
	ck_assert_uint_eq(atomic_load(&rig.front.channels->worker[1].response.tail), 0);
	ck_assert_uint_eq(atomic_load(&rig.front.channels->worker[1].request.head), 0);
	ready_set(&rig.front.channels->ready_for_worker, 1);
	rig_serve(&rig);
	ck_assert_uint_eq(atomic_load(&rig.front.channels->worker[1].response.tail), 0);
	channel_free(&rig.front, 1);
	rig_open(&rig, 1, 0);
	rig_watermark(&rig, 1, 5);
	rig_serve(&rig);
	rig_take_results(&rig, 1, 2, true, NULL);
	rig_stop(&rig);
}
END_TEST

/* A channel that the front opened for our predecessor, not knowing yet of its death, is none of ours. */
START_TEST(a_channel_opened_for_a_predecessor_is_ignored)
{
	FlinkBridge__Open open = rig_open_message();

	rig_init(&rig);
	rig.generation = 2;
	rig_segment(&rig);
	rig_start(&rig);
	rig.generation = 1;
	rig_open_channel(&rig, 1, 0);
	rig_send_open(&rig, 1, &open);
	rig_serve(&rig);
	rig_take_nothing(&rig, 1);
	rig_close_channel(&rig, 1);
	rig_serve(&rig);
	ck_assert_uint_eq(atomic_load(&rig.front.channels->worker[1].closed_epoch), 0);
	channel_free(&rig.front, 1);
	rig.generation = 2;
	rig_open(&rig, 1, 0);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_front_that_lies_is_found_out)
{
	setup_identity();
	rig_open(&rig, 1, 0);
	atomic_store(&rig.front.channels->front[1].request.tail, UINT64_C(1) << 40);
	ready_set(&rig.front.channels->ready_for_worker, 1);
	ck_assert_int_eq(serve_turn(rig.serve), SERVE_DAMAGED);
	rig_stop(&rig);
}
END_TEST

START_TEST(the_front_is_rung_only_when_it_sleeps)
{
	uint64_t rings = 0;

	setup_identity();
	rig_open(&rig, 1, 0);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.doorbells_rung), 0);
	atomic_store(&rig.sidecar.control.front->sleeps, 1);
	rig_watermark(&rig, 1, 5);
	rig_serve(&rig);
	ck_assert_int_eq(read(rig.sidecar.control.front_bell, &rings, sizeof(rings)), sizeof(rings));
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.doorbells_rung), rings);
	ck_assert(atomic_load(&rig.front.channels->ready_for_front) & 2);
	rig_stop(&rig);
}
END_TEST

START_TEST(messages_half_done_are_finished_before_leaving)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_filter, "program", "[range(20)] | length < 0", "payload", "text", NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 0);
	rig_fill(&rig, 1, 20000, 1);
	rig_fill(&rig, 2, 20000, 1);
	serve_turn(rig.serve);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.frames), 2); /* the Opens */
	serve_finish(rig.serve);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.frames), 4);
	for (uint32_t channel = 1; channel <= 2; channel++) {
		struct answer answer = rig_take(&rig, channel);

		answer_results(&answer, 2, 0, true);
		answer_free(&answer);
	}
	rig_stop(&rig);
}
END_TEST

/* ---- Counters ---- */

START_TEST(counters_and_progress_tell_what_happened)
{
	struct worker_segment_counters *counters;
	uint64_t commits;

	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_filter, "program", ". > 1", NULL);
	spec_add(&rig.specs[0], STEP_map, "program", ". * 100", NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	commits = arena_commits(&rig.workspace.arena);
	rig_batch(&rig, 1, "1", "2", "3", NULL);
	rig_serve(&rig);
	rig_take_results(&rig, 1, 2, true, "200", "300", NULL);
	counters = workspace_segment_counters(&rig.workspace, 0);
	ck_assert_uint_eq(counter_read(&counters->records_in), 3);
	ck_assert_uint_eq(counter_read(&counters->bytes_in), 3);
	ck_assert_uint_eq(counter_read(&counters->records_out), 2);
	ck_assert_uint_eq(counter_read(&counters->bytes_out), 6);
	ck_assert_uint_eq(counter_read(&counters->errors), 0);
	ck_assert_uint_eq(counter_read(&counters->latency.count), 2);
	ck_assert_uint_eq(counter_read(&control_worker_step(&rig.sidecar.control, 0, 1)->records_in), 2);
	ck_assert_uint_eq(counter_read(&rig.workspace.life->frames_done), 2);
	ck_assert_uint_eq(counter_read(&rig.workspace.life->progress.since_ns), 0);
	ck_assert_uint_eq(atomic_load(&rig.workspace.life->progress.seq), 2);
	ck_assert_uint_eq(atomic_load(&rig.workspace.life->progress.channel), 1);
	ck_assert_uint_eq(atomic_load(&rig.workspace.life->progress.step), 1);
	ck_assert_uint_eq(arena_commits(&rig.workspace.arena), commits + 1);
	rig_stop(&rig);
}
END_TEST

START_TEST(passthrough_steps_are_counted)
{
	rig_init(&rig);
	spec_add(rig_segment(&rig), STEP_passthrough, NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_fill(&rig, 1, 300, 10);
	rig_serve(&rig);
	ck_assert_uint_eq(counter_read(&control_worker_step(&rig.sidecar.control, 0, 0)->records_in), 300);
	ck_assert_uint_eq(counter_read(&control_worker_step(&rig.sidecar.control, 0, 0)->records_out), 300);
	ck_assert_uint_eq(counter_read(&workspace_segment_counters(&rig.workspace, 0)->bytes_out), 3000);
	rig_stop(&rig);
}
END_TEST

static Suite *session_suite(void)
{
	Suite *suite = suite_create("session");
	TCase *kinds = tcase_create("kinds"), *rules = tcase_create("rules"), *flow = tcase_create("flow"),
	      *life = tcase_create("life");

	tcase_add_test(kinds, open_is_answered_with_epoch_and_limits);
	tcase_add_test(kinds, identity_hands_records_on);
	tcase_add_test(kinds, a_chain_transforms_records);
	tcase_add_test(kinds, time_and_status_are_answered_by_results);
	tcase_add_test(kinds, a_barrier_releases_nothing);
	tcase_add_test(kinds, a_tick_closes_what_is_due);
	tcase_add_test(kinds, time_may_end);
	tcase_add_test(kinds, after_end_input_time_and_barriers_go_on);
	suite_add_tcase(suite, kinds);
	tcase_add_loop_test(rules, seq_goes_up_by_one, 0, 2);
	tcase_add_test(rules, open_has_seq_one);
	tcase_add_test(rules, processing_time_never_goes_back);
	tcase_add_test(rules, watermarks_never_go_back);
	tcase_add_loop_test(rules, open_comes_first_and_once, 0, 2);
	tcase_add_loop_test(rules, open_is_checked, 0, 4);
	tcase_add_loop_test(rules, after_end_input_there_is_none, 0, 2);
	tcase_add_loop_test(rules, bytes_that_are_no_message_end_it, 0, 10);
	tcase_add_test(rules, an_open_that_cannot_be_read_ends_it);
	tcase_add_loop_test(rules, records_are_checked_against_the_session, 0, 4);
	tcase_add_test(rules, a_failing_step_is_named);
	tcase_add_test(rules, a_failing_record_far_into_a_batch_is_named);
	tcase_add_test(rules, a_record_has_a_limit_on_the_way_in);
	tcase_add_test(rules, what_may_come_in_may_go_out);
	tcase_add_loop_test(rules, a_record_has_a_limit_on_the_way_out, 0, 3);
	suite_add_tcase(suite, rules);
	tcase_add_test(flow, a_fan_out_beyond_the_ring_comes_out_in_order);
	tcase_add_test(flow, a_large_batch_parks_between_units);
	tcase_add_test(flow, results_are_split_at_the_message_limit);
	tcase_add_test(flow, one_that_never_reads_holds_nobody_up);
	tcase_add_test(flow, sessions_share_the_worker);
	suite_add_tcase(suite, flow);
	tcase_add_test(life, frames_of_another_epoch_are_dropped);
	tcase_add_test(life, a_closed_channel_opens_again);
	tcase_add_test(life, a_channel_that_opens_and_closes_unseen_is_left);
	tcase_add_test(life, closing_while_parked_frees_what_waits);
	tcase_add_test(life, a_reset_drops_all_and_ignores_what_was_open);
	tcase_add_test(life, a_channel_opened_for_a_predecessor_is_ignored);
	tcase_add_test(life, a_front_that_lies_is_found_out);
	tcase_add_test(life, the_front_is_rung_only_when_it_sleeps);
	tcase_add_test(life, messages_half_done_are_finished_before_leaving);
	tcase_add_test(life, counters_and_progress_tell_what_happened);
	tcase_add_test(life, passthrough_steps_are_counted);
	suite_add_tcase(suite, life);
	return suite;
}

CHECK_MAIN(session_suite)
