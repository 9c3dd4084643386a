/*
 * A unary watermark that makes very many timers due: it fires them in units, a worker that dies on the way leaves the rest to the next
 * one, and each timer is heard of once, whatever its call comes to.
 *
 * The only step here is the test's own: a record whose payload is the number n sets n timers, at 0, 1, 2, ... ms; each says when it was.
 */
#include "tests/rig.h"
#include "worker/unary_words.h"

#include "tests/check_main.h"

enum { DUE = 2, BATCHES = 100 }; /* the place that steps.def gives to the timers of batch; calls that set timers */

/* Sets timers that are not set yet. */
static bool alarm_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	static int64_t next;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		long more = strtol((const char *)run->records[i].payload.data, NULL, 10);

		step_key(step, &run->records[i]);
		for (; more > 0; more--)
			if (state_timer_set(step->states[DUE], STATE_EVENT_TIME, next++, (struct view){NULL, 0}) !=
			    STATE_OK)
				return failure_set(failure, 0, "no room for a timer");
	}
	run_clear(run);
	return true;
}

static size_t padding; /* bytes that follow it */

/* Says when it was. */
static bool alarm_fire(struct step *step, enum state_time domain, const struct state_timer *timer,
		       struct step_time time, struct run *out, struct failure *failure)
{
	struct record *record = run_push(out);
	char text[24];

	(void)step;
	(void)domain;
	(void)time;
	snprintf(text, sizeof(text), "%lld", (long long)timer->time_ms);
	if (record == NULL)
		return failure_set(failure, 0, "the run is full");
	size_t size = strlen(text);
	uint8_t *payload = scratch_alloc(out->scratch, size + padding);
	if (payload != NULL) {
		memcpy(payload, text, size);
		memset(payload + size, ' ', padding);
		record->payload = (struct view){payload, size + padding};
	}
	return payload != NULL || failure_set(failure, 0, "no memory");
}

static const struct step_kind_ops alarm_ops = {.process = alarm_process, .fire = alarm_fire};
const struct step_kind_ops *const step_kinds[STEP_KIND_COUNT] = {[STEP_batch] = &alarm_ops};

static struct rig rig;
static uint64_t calls;  /* made so far: the number of the last one */
static uint64_t fired;  /* timers that were heard of, in order */
static bool overflowed; /* the last answer was a refusal */

/* Makes a call, unserved. */
static void call(enum frame_kind kind, const ProtobufCMessage *request)
{
	uint8_t bytes[128];

	ck_assert_uint_le(protobuf_c_message_get_packed_size(request), sizeof(bytes));
	ck_assert(rig_push(&rig, UNARY_CHANNEL, (struct frame){.kind = (uint16_t)kind, .seq = ++calls}, bytes,
			   protobuf_c_message_pack(request, bytes)));
}

static void call_watermark(int64_t timestamp)
{
	FlinkWorker__ProcessWatermarkRequest request = FLINK_WORKER__PROCESS_WATERMARK_REQUEST__INIT;

	request.timestamp = timestamp;
	call(FRAME_PROCESS_WATERMARK, &request.base);
}

/* Takes the answer to the last call, if it is there: what it says of timers must be what comes next. */
static bool try_take(void)
{
	struct answer answer;

	if (!rig_try_take(&rig, UNARY_CHANNEL, &answer))
		return false;
	ck_assert_uint_eq(answer.frame.seq, calls);
	overflowed = answer.frame.kind == FRAME_REFUSAL;
	if (overflowed)
		ck_assert_msg(strstr(answer.text, "the outputs are more than a reply may carry") != NULL, "%s",
			      answer.text);
	for (size_t i = 0; !overflowed && i < answer.reply->n_messages; i++, fired++) {
		const ProtobufCBinaryData *payload = &answer.reply->messages[i]->payload;
		char text[24];

		snprintf(text, sizeof(text), "%llu", (unsigned long long)fired);
		ck_assert_uint_eq(payload->len, strlen(text) + padding);
		ck_assert_mem_eq(payload->data, text, strlen(text));
	}
	answer_free(&answer);
	return true;
}

/* Begins with so many timers for each of BATCHES calls, and time at -1. */
static void begin(const char *timers)
{
	rig_init(&rig);
	rig.sizes.unary_ring = padding == 0 ? 32 << 20 : 1 << 30;
	rig.sizes.arena = 128 << 20;
	spec_add(rig_segment(&rig), STEP_batch, NULL);
	rig.specs[0].segment.keyed = true;
	rig_start(&rig);
	rig_open_channel(&rig, UNARY_CHANNEL, 0);
	for (int i = 0; i <= BATCHES; i++) {
		FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
		FlinkWorker__Message message = FLINK_WORKER__MESSAGE__INIT;

		message.payload = (ProtobufCBinaryData){strlen(timers), (uint8_t *)timers};
		request.message = &message;
		if (i < BATCHES)
			call(FRAME_PROCESS_MESSAGE, &request.base);
		else
			call_watermark(-1);
		rig_serve(&rig);
		ck_assert(try_take() && !overflowed);
	}
}

/* The words of the segment. */
static const struct segment_words *words(void)
{
	return unary_words_open(&rig.workspace.arena, 1);
}

/* Each unit fires a few of a hundred thousand; and each turn a successor goes on where the last commit was. */
START_TEST(many_timers_fire_in_units)
{
	const uint64_t timers = UINT64_C(1000) * BATCHES;
	uint64_t adopted = 0;

	begin("1000");
	rig_forget(&rig);
	rig.sidecar.config.unary_message_max = 4 << 20;
	rig_own(&rig);
	serve_adopt(rig.serve);
	call_watermark((int64_t)timers);
	const uint64_t units = rig.workspace.arena.units;
	while (!try_take()) {
		ck_assert_int_ne(serve_turn(rig.serve), SERVE_DAMAGED);
		ck_assert_int_eq(rig_position(&rig, UNARY_CHANNEL)->phase, PHASE_NEXT);
		if (_i == 1 && words()->kept_bytes > 0) {
			rig_adopt(&rig);
			adopted++;
		}
	}
	ck_assert_uint_eq(fired, timers);
	ck_assert_int_eq(words()->watermark, (int64_t)timers);
	ck_assert_uint_eq(words()->kept_bytes, 0);
	if (_i == 0)
		ck_assert_uint_gt(rig.workspace.arena.units - units, timers / 1000);
	else
		ck_assert_uint_gt(adopted, 1);
	rig_stop(&rig);
}
END_TEST

/* What the timers of a usual unit let go may be more than can be kept at a time: then fewer fire in one; and what a single one lets go may
 * be, which is refused. */
START_TEST(what_can_be_kept_bounds_a_unit)
{
	const uint64_t timers = UINT64_C(3) * BATCHES; /* more than a unit fires */

	padding = _i == 0 ? UNARY_KEEP_MAX / 250 : UNARY_KEEP_MAX;
	begin("3");
	rig_forget(&rig);
	rig.sidecar.config.unary_message_max = 200 << 20;
	rig_own(&rig);
	serve_adopt(rig.serve);
	call_watermark((int64_t)timers);
	rig_serve(&rig);
	if (_i == 0) {
		ck_assert(try_take() && !overflowed);
		ck_assert_uint_eq(fired, timers);
	} else {
		struct answer answer = rig_take(&rig, UNARY_CHANNEL);
		ck_assert_int_eq(answer.frame.kind, FRAME_REFUSAL);
		ck_assert_str_eq(answer.text,
				 "segment \"test\": the outputs of one timer are more than 67108800 bytes");
		answer_free(&answer);
	}
	ck_assert_uint_eq(words()->kept_bytes, 0);
	rig_stop(&rig);
}
END_TEST

/* More than a reply may carry is refused; what has fired by then is the reply to the next call, and so on until time is there. */
START_TEST(what_a_refused_watermark_let_go_comes_with_the_next)
{
	const uint64_t timers = UINT64_C(1000) * BATCHES;
	uint32_t refused = 0;

	begin("1000");
	for (int i = 0; i < 100 && words()->watermark < (int64_t)timers; i++) {
		call_watermark((int64_t)timers);
		rig_serve(&rig);
		ck_assert(try_take());
		refused += overflowed;
		ck_assert_uint_le(words()->kept_bytes, rig.sidecar.config.unary_message_max);
		if (!overflowed || _i == 0)
			continue;
		ck_assert_uint_gt(words()->kept_bytes, 0);
		if (_i == 1)
			call_watermark(-1); /* which is no news */
		else
			rig_adopt(&rig);
		rig_serve(&rig);
		ck_assert(_i == 2 || (try_take() && words()->kept_bytes == 0));
	}
	ck_assert_uint_gt(refused, 1);
	ck_assert_uint_eq(fired, timers);
	rig_stop(&rig);
}
END_TEST

/* Code with another number of segments has what was kept, as far as its segment is there; the rest is freed. */
START_TEST(what_is_kept_goes_over_to_other_code)
{
	struct arena *arena = &rig.workspace.arena;

	begin("1000");
	call_watermark(INT64_MAX);
	rig_serve(&rig);
	ck_assert(try_take() && overflowed);
	const struct segment_words kept = *words();
	ck_assert_uint_gt(kept.kept_bytes, 0);
	struct segment_words *two = unary_words_open(arena, 2);
	ck_assert_uint_eq(two[0].kept_first, kept.kept_first);
	ck_assert_uint_eq(two[0].kept_bytes, kept.kept_bytes);
	ck_assert_uint_eq(two[1].kept_bytes, 0);
	two[1] = two[0];
	two[0] = (struct segment_words){0};
	const uint64_t used = arena_session_usage(arena, UNARY_CHANNEL).blocks;
	ck_assert_uint_eq(unary_words_open(arena, 1)->kept_bytes, 0);
	ck_assert_uint_le(arena_session_usage(arena, UNARY_CHANNEL).blocks, used - kept.kept_bytes);
	ck_assert_int_eq(arena->trouble, ARENA_FINE);
	rig_stop(&rig);
}
END_TEST

/* What is kept and overwritten is not followed. */
START_TEST(damaged_outputs_are_not_read)
{
	begin("1000");
	call_watermark(INT64_MAX);
	rig_serve(&rig);
	ck_assert(try_take() && overflowed);
	struct segment_words *damaged =
	    unary_words_write(&rig.workspace.arena, unary_words_open(&rig.workspace.arena, 1));
	if (_i == 0)
		damaged->kept_first = UINT32_MAX;
	else if (_i == 1)
		((uint32_t *)arena_at(&rig.workspace.arena, damaged->kept_first))[1] = UINT32_MAX;
	else
		damaged->kept_bytes = 1;
	arena_commit(&rig.workspace.arena);
	call_watermark(-1);
	ck_assert_int_eq(serve_turn(rig.serve), SERVE_DAMAGED);
	rig_stop(&rig);
}
END_TEST

static Suite *unary_timers_suite(void)
{
	Suite *suite = suite_create("unary_timers");
	TCase *test = tcase_create("unary_timers");

	tcase_set_timeout(test, 60);
	tcase_add_loop_test(test, many_timers_fire_in_units, 0, 2);
	tcase_add_loop_test(test, what_can_be_kept_bounds_a_unit, 0, 2);
	tcase_add_loop_test(test, what_a_refused_watermark_let_go_comes_with_the_next, 0, 3);
	tcase_add_test(test, what_is_kept_goes_over_to_other_code);
	tcase_add_loop_test(test, damaged_outputs_are_not_read, 0, 3);
	suite_add_tcase(suite, test);
	return suite;
}

CHECK_MAIN(unary_timers_suite)
