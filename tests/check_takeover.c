/*
 * A worker dies and another one takes its slot over: in one process, where the first is forgotten between two turns, and with real
 * processes that are killed at any moment. What clients see must be the same as without it.
 *
 * The steps here are the test's own (its table of kinds stands in for the worker's), so that they do what is hard: remember per key,
 * set timers of both kinds, and make none or thousands of outputs out of one record.
 */
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "shared/fault.h"
#include "tests/rig.h"
#include "worker/wakes.h"

#include "tests/check_main.h"

enum { PENDING, SUMS, DUE }; /* the states that steps.def gives to batch */

/* ---- The step ------------------------------------------------------------------------------------------------------ */

/* An output with a text of its own. */
static bool push_text(struct run *out, const struct record *like, const char *text, struct failure *failure)
{
	struct record *record = run_push(out);

	if (record == NULL)
		return failure_set(failure, like->origin, "the run is full");
	record->payload = scratch_copy(out->scratch, view_of(text));
	record->timestamp = like->timestamp;
	record->origin = like->origin;
	record->key = like->key;
	record->key_hash = like->key_hash;
	record->key_group = like->key_group;
	record->keyed = like->keyed;
	return record->payload.data != NULL || failure_set(failure, like->origin, "no memory");
}

/* The time at which the current key wants to hear of a time. */
static int64_t next_full(int64_t time)
{
	return (time / 100 + 1) * 100;
}

/* Remembers one record; its number among those of its key. False when there was no room for it. */
static bool remember(struct step *step, const struct record *record, struct step_time time, uint64_t *number)
{
	void *bytes;
	bool is_new;

	step_key(step, record);
	if (state_edit(step->states[SUMS], sizeof(*number), &bytes, &is_new) != STATE_OK)
		return false;
	memcpy(number, bytes, sizeof(*number));
	++*number;
	memcpy(bytes, number, sizeof(*number));
	return state_list_append(step->states[PENDING], record->payload) == STATE_OK &&
	       state_timer_set(step->states[DUE], STATE_PROCESSING_TIME, next_full(time.processing_ms),
			       (struct view){NULL, 0}) == STATE_OK &&
	       state_timer_set(step->states[DUE], STATE_EVENT_TIME, next_full(record->timestamp), view_of("e")) ==
		   STATE_OK;
}

/* A record whose payload is the number n becomes n records, which say what number it is among those of its key; with fewer than none it
 * fails. */
static bool fan_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct run out;
	bool good = true;

	run_init(&out, run->scratch);
	for (uint32_t i = 0; i < run->count && good; i++) {
		struct record *record = &run->records[i];
		long fan = strtol((const char *)record->payload.data, NULL, 10);
		uint64_t number = 0;
		char text[64];

		if (fan < 0)
			good = failure_set(failure, record->origin, "less than none");
		else if (step->segment->keyed)
			good = remember(step, record, time, &number) ||
			       failure_set(failure, record->origin, "no room to remember it");
		for (long k = 0; k < fan && good; k++) {
			snprintf(text, sizeof(text), "%ld.%ld#%lu", fan, k, (unsigned long)number);
			good = push_text(&out, record, text, failure);
		}
	}
	if (good)
		run_trade(run, &out);
	run_deinit(&out);
	return good;
}

/* Says what is pending for a key, and forgets it. */
static bool fan_fire(struct step *step, enum state_time domain, const struct state_timer *timer, struct step_time time,
		     struct run *out, struct failure *failure)
{
	struct record like = {
	    .timestamp = time.watermark_ms,
	    .key = timer->key,
	    .key_hash = timer->key_hash,
	    .key_group = timer->key_group,
	    .keyed = true,
	};
	struct state_iterator iterator = {0};
	struct view value;
	unsigned long sum = 0, count = 0;
	char text[128];

	while (state_list_next(step->states[PENDING], &iterator, &value) == STATE_OK) {
		snprintf(text, sizeof(text), "%.*s", (int)value.size, (const char *)value.data);
		sum += strtoul(text, NULL, 10);
		count++;
	}
	if (state_list_clear(step->states[PENDING]) == STATE_TROUBLE)
		return failure_set(failure, 0, "no room");
	snprintf(text, sizeof(text), "%c%lld:%.*s=%lu/%lu", domain == STATE_EVENT_TIME ? 'e' : 'p',
		 (long long)timer->time_ms, (int)timer->key.size, (const char *)timer->key.data, sum, count);
	return push_text(out, &like, text, failure);
}

/* All timers fire when the input ends. */
static bool fan_open(struct step *step, struct failure *failure)
{
	(void)failure;
	step->flushes = true;
	return true;
}

static const struct step_kind_ops fan_ops = {.open = fan_open, .process = fan_process, .fire = fan_fire};

/* Has the undo log grow by a quarter of a KiB, as often as each payload says. */
static bool hog_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct arena *arena = state_arena(step->store);

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		long times = strtol((const char *)run->records[i].payload.data, NULL, 10);

		while (times-- > 0 && arena->trouble == ARENA_FINE)
			arena_write(arena, arena_session(arena, 1), ARENA_SESSION_OWN);
		if (arena->trouble != ARENA_FINE)
			return failure_set(failure, run->records[i].origin, "no room in the log");
	}
	return true;
}

static const struct step_kind_ops hog_ops = {.process = hog_process};

static bool shy_starts;

/* Starts when it may. */
static bool shy_start(struct step *step, struct step_time time, struct failure *failure)
{
	(void)step;
	(void)time;
	return shy_starts || failure_set(failure, 0, "not now");
}

/* Waits for something outside, which is there when the same run comes again. */
static bool shy_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	(void)run;
	(void)time;
	if (step->own != NULL)
		return true;
	step->own = step;
	failure_set(failure, 0, "waits");
	failure->waits = true;
	failure->wakes = wakes_count();
	wakes_ring();
	return false;
}

static const struct step_kind_ops shy_ops = {.start = shy_start, .process = shy_process};

/* The steps of this test by the names of others. */
const struct step_kind_ops *const step_kinds[STEP_KIND_COUNT] = {
    [STEP_batch] = &fan_ops, [STEP_select] = &hog_ops, [STEP_dedup] = &shy_ops};

/* ---- What goes in -------------------------------------------------------------------------------------------------- */

enum { SESSIONS = 2, KEYS = 40 };

static struct rig rig;

/* A client: makes its messages out of its random numbers, and digests what comes back. */
struct client {
	uint32_t channel;
	uint32_t seed;
	uint64_t messages; /* to be sent, the Close included */
	int64_t time, watermark;
	bool pending; /* `message` could not be sent yet */
	FlinkBridge__ToWorker message;
	FlinkBridge__Open open;
	FlinkBridge__Batch batch;
	FlinkBridge__Watermark mark;
	FlinkBridge__TimerTick tick;
	FlinkBridge__Barrier barrier;
	FlinkBridge__EndInput end;
	FlinkBridge__Close close;
	FlinkBridge__Record records[32], *pointers[32];
	char payloads[32][16], keys[32][16];

	uint64_t digest, outputs, answered; /* of what came back */
	bool ended;
};

/* The next random number below a limit. */
static uint32_t below(struct client *client, uint32_t limit)
{
	client->seed = client->seed * 1664525 + 1013904223;
	return (client->seed >> 8) % limit;
}

/* Mostly few outputs, at times thousands. */
static uint32_t next_fan(struct client *client)
{
	uint32_t dice = below(client, 400);

	if (dice == 0)
		return 10000;
	return dice < 10 ? below(client, 300) : below(client, 4);
}

/* Fills the batch. */
static void make_batch(struct client *client)
{
	client->batch.n_records = 1 + below(client, 31);
	client->batch.records = client->pointers;
	for (size_t i = 0; i < client->batch.n_records; i++) {
		FlinkBridge__Record *record = &client->records[i];

		flink_bridge__record__init(record);
		client->pointers[i] = record;
		snprintf(client->payloads[i], sizeof(client->payloads[i]), "%u", next_fan(client));
		snprintf(client->keys[i], sizeof(client->keys[i]), "key-%u", below(client, KEYS));
		record->payload = (ProtobufCBinaryData){strlen(client->payloads[i]), (uint8_t *)client->payloads[i]};
		record->maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
		record->timestamp = client->watermark + (int64_t)below(client, 300);
		record->maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
		record->key = (ProtobufCBinaryData){strlen(client->keys[i]), (uint8_t *)client->keys[i]};
		record->key_hash = key_hash_of(view_of(client->keys[i]));
		record->key_group = key_group_of(record->key_hash, 64);
	}
	client->message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	client->message.batch = &client->batch;
}

/* Anything but a batch. */
static void make_other(struct client *client)
{
	switch (below(client, 3)) {
	case 0:
		client->watermark += below(client, 200);
		client->mark.timestamp = client->watermark;
		client->message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_WATERMARK;
		client->message.watermark = &client->mark;
		break;
	case 1:
		client->message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_TIMER_TICK;
		client->message.timer_tick = &client->tick;
		break;
	default:
		client->barrier.checkpoint_id = client->message.seq;
		client->message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BARRIER;
		client->message.barrier = &client->barrier;
	}
}

/* Makes the next message. */
static void make_message(struct client *client)
{
	uint64_t seq = rig.channels[client->channel].seq + 1;

	flink_bridge__to_worker__init(&client->message);
	client->message.seq = seq;
	client->message.processing_time_ms = client->time += below(client, 30);
	if (seq == 1) {
		client->message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
		client->message.open = &client->open;
	} else if (seq == client->messages - 1) {
		client->message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_END_INPUT;
		client->message.end_input = &client->end;
	} else if (seq == client->messages) {
		client->message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_CLOSE;
		client->message.close = &client->close;
	} else if (below(client, 5) > 0) {
		make_batch(client);
	} else {
		make_other(client);
	}
	client->pending = true;
}

/* Starts a client whose session is of a segment. */
static void client_init(struct client *client, uint32_t channel, uint32_t segment, uint64_t messages)
{
	*client = (struct client){.channel = channel, .seed = 17 + channel, .messages = messages, .time = RIG_TIME};
	client->open = rig_open_message();
	client->open.segment = segment;
	client->open.max_parallelism = 64;
	flink_bridge__batch__init(&client->batch);
	flink_bridge__watermark__init(&client->mark);
	flink_bridge__timer_tick__init(&client->tick);
	flink_bridge__barrier__init(&client->barrier);
	flink_bridge__end_input__init(&client->end);
	flink_bridge__close__init(&client->close);
	client->close.reason = (char *)"";
	rig_open_channel(&rig, channel, segment);
}

/* Sends what there is room for. */
static void client_send(struct client *client)
{
	while (rig.channels[client->channel].seq < client->messages) {
		if (!client->pending)
			make_message(client);
		if (!rig_try_send(&rig, client->channel, &client->message))
			return;
		client->pending = false;
	}
}

/* Adds bytes to the digest. */
static void digest(struct client *client, const void *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		client->digest = (client->digest ^ ((const uint8_t *)bytes)[i]) * UINT64_C(1099511628211);
}

static void digest_records(struct client *client, const FlinkBridge__Results *results)
{
	for (size_t i = 0; i < results->n_records; i++) {
		const FlinkBridge__Record *record = results->records[i];

		digest(client, record->payload.data, record->payload.len);
		digest(client, &record->timestamp, sizeof(record->timestamp));
		client->outputs++;
	}
}

/* Digests an answer: all but how records were spread over messages. */
static void client_judge(struct client *client, const struct answer *answer)
{
	FlinkBridge__FromWorker *message = answer->message;

	ck_assert(!client->ended);
	if (answer->frame.kind == FRAME_END) {
		ck_assert_uint_eq(answer->code, GRPC_STATUS_OK);
		ck_assert_uint_eq(client->answered, client->messages - 1);
		client->ended = true;
		return;
	}
	if (message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
		ck_abort_msg("an Error: %s", message->error->message);
	ck_assert_uint_eq(message->seq, client->answered + 1);
	if (message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS)
		digest_records(client, message->results);
	if (answer->frame.flags == FRAME_LAST) {
		client->answered++;
		digest(client, &message->kind_case, sizeof(message->kind_case));
		digest(client, &message->next_wakeup_ms, sizeof(message->next_wakeup_ms));
	}
}

/* Takes what has come, up to a number of answers; how many. */
static int client_take(struct client *client, int most)
{
	struct answer answer;
	int taken = 0;

	while (taken < most && rig_try_take(&rig, client->channel, &answer)) {
		client_judge(client, &answer);
		answer_free(&answer);
		taken++;
	}
	return taken;
}

/* Two segments in one slot, one keyed and one not, with rings that a single record's outputs do not fit into. */
static void setup(void)
{
	rig_init(&rig);
	rig.sizes.session_ring = 32 << 10;
	rig.sidecar.config.message_max = 4 << 10;
	rig.sidecar.config.record_max = 1 << 10;
	for (int i = 0; i < SESSIONS; i++)
		spec_add(rig_segment(&rig), STEP_batch, NULL);
	rig.specs[0].segment.keyed = true;
	rig.specs[1].steps[0].name = "unkeyed";
}

static struct client clients[SESSIONS];

/* Begins with both sessions. */
static void clients_init(uint64_t messages)
{
	for (uint32_t i = 0; i < SESSIONS; i++)
		client_init(&clients[i], i + 1, i, messages);
}

/* Whether both have ended. */
static bool clients_ended(void)
{
	return clients[0].ended && clients[1].ended;
}

/* What comes out when nobody dies. */
static void run_undisturbed(uint64_t messages, struct client result[SESSIONS])
{
	setup();
	rig_start(&rig);
	clients_init(messages);
	while (!clients_ended()) {
		for (int i = 0; i < SESSIONS; i++) {
			client_send(&clients[i]);
			client_take(&clients[i], 1000);
		}
		ck_assert_int_ne(serve_turn(rig.serve), SERVE_DAMAGED);
	}
	memcpy(result, clients, sizeof(clients));
	rig_stop(&rig);
}

/* Compares with that. */
static void check_same(const struct client expected[SESSIONS])
{
	for (int i = 0; i < SESSIONS; i++) {
		ck_assert_uint_gt(clients[i].outputs, 100);
		ck_assert_uint_eq(clients[i].outputs, expected[i].outputs);
		ck_assert_uint_eq(clients[i].digest, expected[i].digest);
	}
}

/* ---- In one process ------------------------------------------------------------------------------------------------ */

/* A successor after every turn, and a client that reads little, so that turns end in the middle of everything. */
START_TEST(a_successor_goes_on_where_the_last_commit_was)
{
	struct client expected[SESSIONS];
	uint64_t adoptions = 0;

	run_undisturbed(60, expected);
	setup();
	rig_start(&rig);
	clients_init(60);
	while (!clients_ended()) {
		for (int i = 0; i < SESSIONS; i++) {
			client_send(&clients[i]);
			client_take(&clients[i], 5);
		}
		ck_assert_int_ne(serve_turn(rig.serve), SERVE_DAMAGED);
		rig_adopt(&rig);
		adoptions++;
	}
	ck_assert_uint_gt(adoptions, 80);
	check_same(expected);
	rig_stop(&rig);
}
END_TEST

/* One that died between the commit and what follows from it: answers become visible, input is not taken again. */
START_TEST(cursors_are_made_from_the_commit)
{
	struct worker_channel *words;
	struct answer answer;

	setup();
	rig_start(&rig);
	words = &rig.front.channels->worker[2];
	rig_open(&rig, 2, 1);
	uint64_t tail = atomic_load(&words->response.tail), head = atomic_load(&words->request.head);
	rig_batch(&rig, 2, "3", "2", NULL);
	rig_serve(&rig);
	ck_assert_uint_gt(atomic_load(&words->response.tail), tail);
	atomic_store(&words->response.tail, tail);
	atomic_store(&words->request.head, head);
	rig_take_nothing(&rig, 2);
	atomic_store(&rig.front.channels->ready_for_front, 0);
	rig_adopt(&rig);
	ck_assert_uint_eq(atomic_load(&rig.front.channels->ready_for_front), (1 << RIG_CHANNELS) - 1);
	answer = rig_take(&rig, 2);
	answer_results(&answer, 2, 5, true);
	answer_free(&answer);
	rig_serve(&rig);
	rig_take_nothing(&rig, 2);
	rig_batch(&rig, 2, "1", NULL);
	rig_serve(&rig);
	answer = rig_take(&rig, 2);
	answer_results(&answer, 3, 1, true);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

/* The surplus of one record outlives the worker that made it. */
START_TEST(an_outbox_outlives_its_worker)
{
	struct answer answer;
	size_t count = 0;
	bool last = false;

	setup();
	rig_start(&rig);
	rig_open(&rig, 2, 1);
	rig_batch(&rig, 2, "10000", NULL);
	rig_serve(&rig);
	ck_assert(!outbox_is_empty(&rig_position(&rig, 2)->outbox));
	while (!last) {
		rig_adopt(&rig);
		rig_serve(&rig);
		answer = rig_take(&rig, 2);
		last = answer.frame.flags == FRAME_LAST;
		for (size_t i = 0; i < answer.message->results->n_records; i++, count++) {
			const FlinkBridge__Record *record = answer.message->results->records[i];
			ck_assert_uint_eq(strtoul((const char *)record->payload.data + 6, NULL, 10), count);
		}
		answer_free(&answer);
	}
	ck_assert_uint_eq(count, 10000);
	ck_assert(outbox_is_empty(&rig_position(&rig, 2)->outbox));
	rig_stop(&rig);
}
END_TEST

/* A channel that its front closed, or opened anew, while nobody was there is not adopted, and its state is dropped. */
START_TEST(sessions_whose_channel_is_gone_are_dropped)
{
	setup();
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 1);
	rig_close_channel(&rig, 1);
	rig_adopt(&rig);
	ck_assert_uint_eq(rig_position(&rig, 1)->epoch, 0);
	ck_assert_uint_eq(arena_session_usage(&rig.workspace.arena, 1).extents, 0);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.sessions_open), 1);
	rig_serve(&rig);
	ck_assert(rig_free_channel(&rig, 1));
	rig_open(&rig, 1, 0);
	rig_stop(&rig);
}
END_TEST

/* What a front before this one had open stays unserved, also under a successor. */
START_TEST(what_was_stale_stays_stale)
{
	setup();
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	serve_reset(rig.serve);
	rig_adopt(&rig);
	rig_watermark(&rig, 1, 5);
	rig_serve(&rig);
	ck_assert_uint_eq(atomic_load(&rig.front.channels->worker[1].response.tail), 0);
	channel_free(&rig.front, 1);
	rig_open(&rig, 1, 0);
	rig_stop(&rig);
}
END_TEST

/* A session that has ended stays ended. */
START_TEST(an_end_is_not_taken_back)
{
	struct answer answer;

	setup();
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_close(&rig, 1);
	rig_watermark(&rig, 1, 5);
	rig_serve(&rig);
	rig_adopt(&rig);
	answer = rig_take(&rig, 1);
	ck_assert_uint_eq(answer.frame.kind, FRAME_END);
	answer_free(&answer);
	rig_watermark(&rig, 1, 6);
	rig_serve(&rig);
	rig_take_nothing(&rig, 1);
	rig_stop(&rig);
}
END_TEST

/* ---- When there is no room for state ------------------------------------------------------------------------------- */

/* Has the session on channel 1 keep records until there is no room for more; returns its Error. */
static struct answer fill_state(void)
{
	for (uint64_t seq = 2;; seq++) {
		FlinkBridge__ToWorker message = rig_message(&rig, 1);
		FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
		FlinkBridge__Record record = FLINK_BRIDGE__RECORD__INIT, *records = &record;
		static char payload[800], key[32];
		struct answer answer;

		memset(payload, ' ', sizeof(payload));
		payload[0] = '1';
		snprintf(key, sizeof(key), "%lu", (unsigned long)seq);
		record.payload = (ProtobufCBinaryData){sizeof(payload), (uint8_t *)payload};
		record.maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
		record.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
		record.key_hash = RIG_HASH;
		batch.n_records = 1;
		batch.records = &records;
		message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
		message.batch = &batch;
		rig_send(&rig, 1, &message);
		rig_serve(&rig);
		answer = rig_take(&rig, 1);
		if (answer.message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
			return answer;
		answer_free(&answer);
		ck_assert_uint_lt(seq, 20000);
	}
}

/* A session that keeps more than the slot may have fails in words that help; the other one of the slot goes on. */
START_TEST(state_beyond_the_slot_s_memory_fails_its_session)
{
	struct answer answer;

	setup();
	rig.sizes.arena = 8 << 20;
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 1);
	answer = fill_state();
	ck_assert_int_eq(answer.message->error->code, FLINK_BRIDGE__ERROR_CODE__ERROR_STATE_FULL);
	ck_assert_str_eq(answer.message->error->step, "batch");
	ck_assert_ptr_nonnull(strstr(answer.message->error->message, "step \"batch\" record 0: the state memory"));
	ck_assert_ptr_nonnull(strstr(answer.message->error->message, "--state-memory"));
	answer_free(&answer);
	answer = rig_take(&rig, 1);
	ck_assert_uint_eq(answer.frame.kind, FRAME_END);
	ck_assert_uint_eq(answer.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
	answer_free(&answer);

	rig_batch(&rig, 2, "2", NULL);
	rig_serve(&rig);
	answer = rig_take(&rig, 2);
	answer_results(&answer, 2, 2, true);
	answer_free(&answer);
	rig_close_channel(&rig, 1);
	rig_serve(&rig);
	ck_assert(rig_free_channel(&rig, 1));
	ck_assert_uint_eq(arena_session_usage(&rig.workspace.arena, 1).extents, 0);
	rig_open(&rig, 1, 0);
	rig_stop(&rig);
}
END_TEST

/* A unit that changes more than can be undone is done in smaller ones; when it is one record, that fails its session in words. */
START_TEST(a_unit_beyond_the_undo_log_is_made_smaller)
{
	struct answer answer;
	size_t records = 0;
	bool last = false;

	rig_init(&rig);
	rig.sizes.arena = 8 << 20; /* 1 MiB of log */
	spec_add(rig_segment(&rig), STEP_select, "fields", "x", NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_batch(&rig, 1, "1500", "1500", "1500", "1500", NULL);
	rig_serve(&rig);
	while (!last) {
		answer = rig_take(&rig, 1);
		ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS);
		records += answer.message->results->n_records;
		last = answer.frame.flags == FRAME_LAST;
		answer_free(&answer);
	}
	ck_assert_uint_eq(records, 4);
	ck_assert_uint_eq(counter_read(&workspace_segment_counters(&rig.workspace, 0)->records_in), 4);
	ck_assert_uint_eq(counter_read(&control_worker_step(&rig.sidecar.control, 0, 0)->records_in), 4);
	ck_assert_uint_eq(counter_read(&control_worker_step(&rig.sidecar.control, 0, 0)->records_out), 4);
	ck_assert_uint_gt(rig_position(&rig, 1)->limit, 0);
	for (int i = 0; i < 100; i++) { /* and larger again after some without trouble */
		rig_batch(&rig, 1, "0", NULL);
		rig_serve(&rig);
		answer = rig_take(&rig, 1);
		answer_free(&answer);
	}
	ck_assert_uint_eq(rig_position(&rig, 1)->limit, 0);
	rig_batch(&rig, 1, "1", "1000000", NULL);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	answer_results(&answer, rig.channels[1].seq, 1, false); /* the first record */
	answer_free(&answer);
	rig_take_failure(&rig, 1, FLINK_BRIDGE__ERROR_CODE__ERROR_TOO_LARGE, GRPC_STATUS_RESOURCE_EXHAUSTED,
			 "step \"select\" record 1: one record changes more state than can be undone");
	ck_assert_uint_eq(counter_read(&workspace_segment_counters(&rig.workspace, 0)->errors), 1);
	ck_assert_uint_eq(counter_read(&control_worker_step(&rig.sidecar.control, 0, 0)->errors), 0);
	rig_stop(&rig);
}
END_TEST

/* One whose client does not read, while the state memory is full because of another, waits for its client: what finds no room in the
 * ring can wait nowhere else. */
START_TEST(without_room_anywhere_a_session_waits_for_its_client)
{
	enum { MESSAGES = 5000 };
	struct answer answer;
	uint64_t sent = 0, taken = 0;

	setup();
	rig.sizes.arena = 8 << 20;
	rig_segment(&rig);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 2);
	answer = fill_state();
	answer_free(&answer);
	for (; sent < MESSAGES; sent++) {
		uint64_t frames = counter_read(&rig.workspace.page->counters.frames);

		rig_watermark(&rig, 2, (int64_t)sent);
		rig_serve(&rig);
		if (counter_read(&rig.workspace.page->counters.frames) == frames)
			break;
	}
	ck_assert_uint_lt(sent, MESSAGES);
	while (taken <= sent) {
		answer = rig_take(&rig, 2);
		answer_results(&answer, 2 + taken++, 0, true);
		answer_free(&answer);
		rig_serve(&rig);
	}
	rig_take_nothing(&rig, 2);
	rig_stop(&rig);
}
END_TEST

/* Begins with a session on channel 2, whose answers lie in its outbox and fill the state memory. */
static void begin_without_room(void)
{
	struct arena *arena = &rig.workspace.arena;

	setup();
	rig.sizes.arena = 8 << 20;
	rig_start(&rig);
	rig_open(&rig, 2, 1);
	rig_batch(&rig, 2, "10000", NULL);
	rig_serve(&rig);
	ck_assert(!outbox_is_empty(&rig_position(&rig, 2)->outbox));
	while (arena_alloc(arena, 2, 64) != 0)
		arena_commit(arena);
	arena_rollback(arena);
}

/* Takes the answers to a batch of which one record makes so many. */
static void take_fan(size_t fan)
{
	struct answer answer;
	size_t count = 0;
	bool last = false;

	while (!last) {
		rig_serve(&rig);
		answer = rig_take(&rig, 2);
		last = answer.frame.flags == FRAME_LAST;
		ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS);
		count += answer.message->results->n_records;
		answer_free(&answer);
	}
	ck_assert_uint_eq(count, fan);
}

/* Has failures of the step on channel 2 skipped, so many in a row. */
static void skip_in_row(int64_t most)
{
	rig.specs[1].steps[0].policy = ON_ERROR_SKIP;
	rig.specs[1].steps[0].rules.of[RULE_errors_in_row] = most;
}

/* A successor that has no room for the states of its steps waits with what is to be sent first, and opens them once more: what the first
 * try made in its own memory is freed (which the variant with AddressSanitizer sees). */
START_TEST(a_session_is_adopted_once_there_is_room)
{
	struct answer answer;

	begin_without_room();
	if (_i == 0)
		rig.specs[1].steps[0].name = "renamed";
	else /* or for what is counted of failures */
		skip_in_row(5);
	rig_adopt(&rig);
	take_fan(10000);
	rig_batch(&rig, 2, "3", NULL);
	rig_serve(&rig);
	answer = rig_take(&rig, 2);
	answer_results(&answer, 3, 3, true);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

/* What a successor has made for its steps once there was room stays, whatever becomes of the message that comes next: failures are
 * counted where the next successor finds them. */
START_TEST(what_an_adopted_session_counts_is_kept)
{
	begin_without_room();
	skip_in_row(2);
	rig_adopt(&rig);
	rig_batch(&rig, 2, "5000", NULL); /* which begins with a unit that has too little room in the ring */
	take_fan(10000);
	take_fan(5000);
	rig_batch(&rig, 2, "-1", NULL);
	rig_serve(&rig);
	rig_take_results(&rig, 2, 4, true, NULL);
	rig_adopt(&rig);
	rig_batch(&rig, 2, "-1", NULL);
	rig_serve(&rig);
	rig_take_failure(&rig, 2, FLINK_BRIDGE__ERROR_CODE__ERROR_STEP, GRPC_STATUS_INTERNAL,
			 "2 failures one after the other");
	rig_stop(&rig);
}
END_TEST

/* Steps that were opened in a unit for whose words there was no room are opened once more, as a whole. */
START_TEST(a_session_that_could_not_say_why_it_fails_is_adopted_anew)
{
	struct answer answer;

	begin_without_room();
	rig.specs[1].steps[0].kind = STEP_dedup;
	rig_adopt(&rig);
	take_fan(10000);
	shy_starts = true;
	rig_batch(&rig, 2, "3", NULL);
	rig_serve(&rig);
	rig_take_results(&rig, 2, 3, true, "3", NULL);
	rig_barrier(&rig, 2, 1);
	rig_serve(&rig);
	answer = rig_take(&rig, 2);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_BARRIER_ACK);
	answer_free(&answer);
	rig_stop(&rig);
}
END_TEST

/* When memory turns out to be damaged nothing more is done in it, not even for a channel that has closed. */
START_TEST(a_damaged_arena_is_left_as_it_is)
{
	setup();
	rig_start(&rig);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 1);
	memset(arena_session_state(&rig.workspace.arena, 1), 0xff, ARENA_SESSION_STATE);
	rig_close_channel(&rig, 2);
	rig_adopt(&rig);
	ck_assert_int_eq(serve_turn(rig.serve), SERVE_DAMAGED);
	ck_assert_uint_ne(rig_position(&rig, 2)->epoch, 0);
	rig_stop(&rig);
}
END_TEST

/* The same where it is what unary calls keep: nobody serves over it, and it is not taken for a step that does not open. */
START_TEST(nobody_serves_over_damaged_state_of_unary_calls)
{
	struct slot_memory *memory = &rig.sidecar.slots[0];
	const struct segment *segment = NULL;
	struct failure failure;
	char why[128];

	rig_init(&rig);
	rig_segment(&rig);
	rig_start(&rig);
	memset(arena_session_state(&rig.workspace.arena, UNARY_CHANNEL), 0xff, ARENA_SESSION_STATE);
	rig_forget(&rig);
	workspace_init(&rig.workspace, &rig.sidecar, 0);
	ck_assert_int_eq(arena_open(&rig.workspace.arena, memory->arena, memory->sizes.arena, 0, why), ARENA_OK);
	ck_assert_ptr_null(serve_create(&rig.workspace, memory, 1, &segment, &failure));
	ck_assert_int_eq(rig.workspace.arena.trouble, ARENA_BROKEN);
	workspace_deinit(&rig.workspace);
	rig_stop(&rig);
}
END_TEST

/* The same where it is a channel's outbox that is overwritten: nothing of it is followed, wherever it leads. */
START_TEST(a_damaged_outbox_is_not_followed)
{
	struct session_position *words;

	setup();
	rig_start(&rig);
	rig_open(&rig, 2, 1);
	rig_batch(&rig, 2, "10000", NULL);
	rig_serve(&rig);
	words = arena_session(&rig.workspace.arena, 2);
	ck_assert(!outbox_is_empty(&words->outbox));
	if (_i == 0)
		words->outbox.first = UINT32_MAX;
	else if (_i == 1)
		memset(arena_at(&rig.workspace.arena, words->outbox.first), 0xff, 16);
	else
		memset((uint8_t *)arena_at(&rig.workspace.arena, words->outbox.first) + 8, 0, sizeof(struct frame));
	rig_adopt(&rig);
	ck_assert_int_eq(serve_turn(rig.serve), SERVE_DAMAGED);
	ck_assert_int_eq(rig.workspace.arena.trouble, ARENA_BROKEN);
	rig_stop(&rig);
}
END_TEST

/* And where it is that of unary calls, whose front is gone. */
START_TEST(a_damaged_outbox_is_not_freed)
{
	struct session_position *words;

	setup();
	rig_start(&rig);
	rig_open_channel(&rig, UNARY_CHANNEL, 0);
	rig_serve(&rig);
	words = arena_session(&rig.workspace.arena, UNARY_CHANNEL);
	words->outbox = (struct outbox){.first = UINT32_MAX, .last = UINT32_MAX, .bytes = 100};
	serve_reset(rig.serve);
	ck_assert_int_eq(serve_turn(rig.serve), SERVE_DAMAGED);
	rig_stop(&rig);
}
END_TEST

/* And the watermarks of unary calls. */
START_TEST(damaged_watermarks_are_not_read)
{
	struct slot_memory *memory = &rig.sidecar.slots[0];
	const struct segment *segment = NULL;
	struct session_position *words;
	struct failure failure;
	char why[128];

	rig_init(&rig);
	rig_segment(&rig);
	rig_start(&rig);
	words = arena_session(&rig.workspace.arena, UNARY_CHANNEL);
	if (_i == 0)
		words->watermarks = UINT32_MAX;
	else
		*(int64_t *)arena_at(&rig.workspace.arena, words->watermarks) = INT64_MAX;
	rig_forget(&rig);
	workspace_init(&rig.workspace, &rig.sidecar, 0);
	ck_assert_int_eq(arena_open(&rig.workspace.arena, memory->arena, memory->sizes.arena, 0, why), ARENA_OK);
	ck_assert_ptr_null(serve_create(&rig.workspace, memory, 1, &segment, &failure));
	ck_assert_int_eq(rig.workspace.arena.trouble, ARENA_BROKEN);
	workspace_deinit(&rig.workspace);
	rig_stop(&rig);
}
END_TEST

/* ---- Killed at any moment ------------------------------------------------------------------------------------------ */

static uint32_t processes; /* of the slot, so far */

/* A worker of the slot, in a process of its own: takes the slot over and serves it until it is killed, or dies where a fault is armed. */
static void __attribute__((noreturn)) be_worker(enum fault fault, uint64_t pass)
{
	struct slot_memory *memory = &rig.sidecar.slots[0];
	const struct birth birth = {.place = processes % LIVES_MAX, .number = processes, .generation = 1};
	struct worker_page *page = control_worker(&rig.sidecar.control, 0);
	struct life *life = &page->lives[birth.place];
	struct channels *channels;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CHECK(slot_attach_worker(memory) == 0 && slot_own(memory, slot_wait(memory, 60000)) == 0);
	channels = memory->channels;
	life_begin(life, &birth, getpid());
	fault_arm(fault, pass);
	rig_own(&rig);
	rig.workspace.life = life;
	atomic_store(&life->predecessor, atomic_load(&page->owner));
	atomic_store(&page->owner, birth.number);
	serve_adopt(rig.serve);
	for (;;) {
		struct pollfd bell = {.fd = memory->worker_bell, .events = POLLIN};
		uint64_t rings;

		CHECK(serve_turn(rig.serve) != SERVE_DAMAGED);
		if (serve_is_wanted(rig.serve))
			continue;
		atomic_store(&channels->worker_sleeps, 1);
		if (!serve_is_wanted(rig.serve) && poll(&bell, 1, -1) == 1)
			CHECK(read(bell.fd, &rings, sizeof(rings)) == sizeof(rings));
		atomic_store(&channels->worker_sleeps, 0);
	}
}

/* Starts a worker that dies at the `pass`th time that it comes to a fault; 0: never. */
static pid_t start_worker(enum fault fault, uint64_t pass)
{
	pid_t pid;

	processes++;
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		be_worker(fault, pass);
	return pid;
}

/* Notes that a worker was killed, and says that it was not its own doing. */
static void bury(int status)
{
	struct control_death *death = &rig.sidecar.control.control->slot[0].death[processes % DEATHS_PUBLISHED];

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the worker ended by itself: %x",
		      (unsigned)status);
	atomic_store(&death->cause, DEATH_OUTSIDE);
	atomic_store(&death->number, processes);
}

static void kill_worker(pid_t pid)
{
	int status;

	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	bury(status);
}

/* Sends and takes what can be; returns how many answers, and sleeps when there is nothing to do. */
static int exchange(int most)
{
	int taken = 0;

	for (int i = 0; i < SESSIONS; i++) {
		client_send(&clients[i]);
		taken += client_take(&clients[i], most);
	}
	doorbell_ring(rig.front.worker_bell);
	if (taken == 0) {
		struct pollfd bell = {.fd = rig.sidecar.control.front_bell, .events = POLLIN};
		uint64_t rings;

		if (poll(&bell, 1, 20) == 1)
			ck_assert_int_eq(read(bell.fd, &rings, sizeof(rings)), sizeof(rings));
	}
	return taken;
}

/* Workers are killed after they gave a few answers, wherever they are then; the next one takes over. */
START_TEST(workers_killed_at_random_lose_and_double_nothing)
{
	uint64_t messages = 150, kills = 0;
	struct client expected[SESSIONS];
	uint32_t seed = 12345 + (uint32_t)_i;

	run_undisturbed(messages, expected);
	setup();
	rig_make(&rig);
	atomic_store(&rig.sidecar.control.front->sleeps, 1);
	clients_init(messages);
	while (!clients_ended()) {
		pid_t pid = start_worker(0, 0);
		int life;

		seed = seed * 1664525 + 1013904223;
		life = (int)(seed >> 8) % 40;
		while (life > 0 && !clients_ended())
			life -= exchange(1 + (int)(seed >> 16) % 8);
		kill_worker(pid);
		kills++;
	}
	ck_assert_uint_ge(kills, 50);
	check_same(expected);
	rig_stop(&rig);
}
END_TEST

/* Whether a point is one that serving sessions comes to: those of the arena and the state have a test of their own. */
static bool is_served(enum fault fault)
{
	return fault >= FAULT_words_store && fault <= FAULT_session_adopt;
}

/* Opens a third channel, closes it, frees it when the worker has left it, and so on. */
static void cycle(bool *open)
{
	if (!*open)
		rig_open_channel(&rig, 3, 1);
	else if (!rig_free_channel(&rig, 3))
		rig_close_channel(&rig, 3);
	else
		*open = false;
	*open = *open || channel_state_of(atomic_load(&rig.front.channels->front[3].state)) != CHANNEL_FREE;
}

/* Workers die at one point, at its first pass, at a later one, and so on, until one does not come there any more; meanwhile a third
 * session opens and closes again and again. Elsewhere than in the debug variant there are no points. */
START_TEST(death_at_every_point_loses_and_doubles_nothing)
{
	enum fault fault = (enum fault)_i;
	struct client expected[SESSIONS];
	uint64_t messages = 40, deaths = 0, pass = 1;
	bool open = false;
	pid_t pid;
	int status;

	if (!is_served(fault))
		return;
	run_undisturbed(messages, expected);
	setup();
	rig_make(&rig);
	atomic_store(&rig.sidecar.control.front->sleeps, 1);
	clients_init(messages);
	pid = start_worker(fault, 0);
	while (exchange(4) == 0)
		;
	kill_worker(pid); /* so that there is something to take over */
	pid = start_worker(fault, pass);
	while (!clients_ended()) {
		exchange(4);
		cycle(&open);
		if (waitpid(pid, &status, WNOHANG) == 0)
			continue;
		bury(status);
		deaths++;
		pass = pass * 2 % 61; /* each in turn, so that all get on */
		pid = start_worker(fault, pass);
	}
	kill_worker(pid);
#ifdef FAULT_POINTS
	if (deaths == 0)
		ck_abort_msg("%s is never reached", fault_name(fault));
#else
	ck_assert_uint_eq(deaths, 0);
#endif
	check_same(expected);
	rig_stop(&rig);
}
END_TEST

static Suite *takeover_suite(void)
{
	Suite *suite = suite_create("takeover");
	TCase *test = tcase_create("takeover");

	tcase_set_timeout(test, 120);
	tcase_add_test(test, a_successor_goes_on_where_the_last_commit_was);
	tcase_add_test(test, cursors_are_made_from_the_commit);
	tcase_add_test(test, an_outbox_outlives_its_worker);
	tcase_add_test(test, sessions_whose_channel_is_gone_are_dropped);
	tcase_add_test(test, what_was_stale_stays_stale);
	tcase_add_test(test, an_end_is_not_taken_back);
	tcase_add_test(test, state_beyond_the_slot_s_memory_fails_its_session);
	tcase_add_test(test, a_damaged_arena_is_left_as_it_is);
	tcase_add_loop_test(test, a_session_is_adopted_once_there_is_room, 0, 2);
	tcase_add_test(test, what_an_adopted_session_counts_is_kept);
	tcase_add_test(test, a_session_that_could_not_say_why_it_fails_is_adopted_anew);
	tcase_add_test(test, nobody_serves_over_damaged_state_of_unary_calls);
	tcase_add_loop_test(test, a_damaged_outbox_is_not_followed, 0, 3);
	tcase_add_test(test, a_damaged_outbox_is_not_freed);
	tcase_add_loop_test(test, damaged_watermarks_are_not_read, 0, 2);
	tcase_add_test(test, a_unit_beyond_the_undo_log_is_made_smaller);
	tcase_add_test(test, without_room_anywhere_a_session_waits_for_its_client);
	tcase_add_loop_test(test, workers_killed_at_random_lose_and_double_nothing, 0, 3);
	tcase_add_loop_test(test, death_at_every_point_loses_and_doubles_nothing, 0, FAULT_COUNT);
	suite_add_tcase(suite, test);
	return suite;
}

CHECK_MAIN(takeover_suite)
