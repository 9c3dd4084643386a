/*
 * A worker's serving code in one process with a front that is the test itself: real slot and control memory, real rings.
 *
 *   struct rig rig;
 *   rig_init(&rig);
 *   spec_add(rig_segment(&rig), STEP_map, "program", ".a", NULL);
 *   rig_start(&rig);
 *   rig_open(&rig, 1, 0);                        a session of segment 0 on channel 1, with Open answered
 *   rig_batch(&rig, 1, 2, "{\"a\":1}", NULL);    seq 2
 *   rig_serve(&rig);
 *   struct answer answer = rig_take(&rig, 1);
 *
 * Messages are made and read with protobuf-c, so that they are judged by another implementation than the worker's.
 */
#ifndef TESTS_RIG_H
#define TESTS_RIG_H

#include <check.h>
#include <flink_bridge.pb-c.h>
#include <flink_worker.pb-c.h>
#include <grpc/status.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/keygroup.h"
#include "tests/spec.h"
#include "worker/jq_program.h"
#include "worker/position.h"
#include "worker/solo.h"

/* A hash of a key that is of key group 0 in the sessions here. */
enum { RIG_HASH = 312 };

enum { RIG_SEGMENTS_MAX = 5, RIG_CHANNELS = 8, RIG_TIME = 1000, RIG_TURNS_MAX = 100000 };

struct rig {
	struct spec specs[RIG_SEGMENTS_MAX];
	struct segment segments[RIG_SEGMENTS_MAX];
	struct input input;
	struct descriptor descriptor;
	struct sidecar sidecar;
	struct slot_sizes sizes;
	struct slot_memory front; /* as the front maps it */
	struct workspace workspace;
	struct serve *serve;
	struct solo_channel channels[RIG_CHANNELS];
	uint32_t last_epoch;
	uint32_t generation; /* of the worker that channels are opened for */
};

/* One frame that the worker wrote; `message` is there for an ANSWER, `reply` for a REPLY, `code` and `text` for END and REFUSAL. */
struct answer {
	struct frame frame;
	FlinkBridge__FromWorker *message;
	FlinkWorker__ProcessMessageResponse *reply;
	uint32_t code;
	char text[2048];
	size_t size;
};

/* Starts with limits that a test may change before rig_start. */
static inline void rig_init(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->generation = 1;
	rig->sizes = (struct slot_sizes){
	    .channel_count = RIG_CHANNELS, .unary_ring = 1 << 20, .session_ring = 1 << 20, .arena = 64 << 20};
	rig->sidecar.config = (struct config){
	    .slots = 1,
	    .message_max = 256 << 10,
	    .record_max = 128 << 10,
	    .unary_message_max = 256 << 10,
	    .window_bytes_max = 1 << 20,
	    .window_age_ms_max = 60000,
	    .delta_bytes = UINT64_MAX, /* changed state waits for the barrier */
	    .max_skips_per_hour = 100,
	    .log_level = LOG_ERROR,
	};
	rig->descriptor = (struct descriptor){.pipeline = "rig", .segments = rig->segments};
	log_init("rig", LOG_ERROR);
}

/* One more segment, to add steps to; its id is the number of those before it. */
static inline struct spec *rig_segment(struct rig *rig)
{
	struct spec *spec = &rig->specs[rig->descriptor.segment_count];

	ck_assert_uint_lt(rig->descriptor.segment_count, RIG_SEGMENTS_MAX);
	spec_init(spec);
	spec->segment.id = (uint32_t)rig->descriptor.segment_count++;
	spec->segment.inputs = &rig->input;
	spec->segment.input_count = 1;
	return spec;
}

/* Makes control and slot memory and freezes the segments. */
static inline void rig_make(struct rig *rig)
{
	rig->sidecar.descriptor = &rig->descriptor;
	for (size_t i = 0; i < rig->descriptor.segment_count; i++) {
		rig->segments[i] = rig->specs[i].segment;
		for (size_t j = 0; j < rig->segments[i].step_count; j++)
			rig->specs[i].steps[j].index = rig->descriptor.step_count++;
	}
	ck_assert_int_eq(solo_make(&rig->sidecar, &rig->sizes, &rig->front), 0);
}

/* Becomes the slot's owner and opens the chains. */
static inline void rig_own(struct rig *rig)
{
	char why[SOLO_WHY_MAX];

	rig->serve = solo_own(&rig->sidecar, &rig->workspace, rig->generation, why);
	ck_assert_msg(rig->serve != NULL, "%s", why);
}

/* Makes everything and opens the chains. */
static inline void rig_start(struct rig *rig)
{
	rig_make(rig);
	ck_assert_int_eq(slot_attach_worker(&rig->sidecar.slots[0]), 0);
	rig_own(rig);
	serve_reset(rig->serve);
}

/* Forgets what the worker's process has, committing nothing: as if it had been killed. */
static inline void rig_forget(struct rig *rig)
{
	if (rig->serve != NULL) {
		serve_destroy(rig->serve);
		workspace_deinit(&rig->workspace);
	}
	rig->serve = NULL;
}

/* A successor takes the slot over. */
static inline void rig_adopt(struct rig *rig)
{
	rig_forget(rig);
	rig_own(rig);
	serve_adopt(rig->serve);
}

/* Where the session on a channel stands. */
static inline const struct session_position *rig_position(const struct rig *rig, uint32_t channel)
{
	return arena_session(&rig->workspace.arena, channel);
}

/* Frees all. */
static inline void rig_stop(struct rig *rig)
{
	rig_forget(rig);
	solo_destroy(&rig->sidecar, &rig->front);
	for (size_t i = 0; i < rig->descriptor.segment_count; i++)
		spec_deinit(&rig->specs[i]);
	jq_programs_free();
}

/* ---- The front's side of channels ---- */

/* Opens a channel under a new epoch. */
static inline void rig_open_channel(struct rig *rig, uint32_t index, uint32_t segment)
{
	ck_assert_int_eq(
	    solo_open_channel(&rig->front, &rig->channels[index], index, segment, ++rig->last_epoch, rig->generation),
	    0);
}

/* Says that the channel closes. */
static inline void rig_close_channel(struct rig *rig, uint32_t index)
{
	channel_set_state(&rig->front, index, rig->channels[index].epoch, CHANNEL_CLOSING);
}

/* Whether the worker has left a closing channel; then it is freed. */
static inline bool rig_free_channel(struct rig *rig, uint32_t index)
{
	if (atomic_load(&rig->front.channels->worker[index].closed_epoch) != rig->channels[index].epoch)
		return false;
	channel_free(&rig->front, index);
	return true;
}

/* Puts a frame into a request ring; false when it has no room. `header` needs kind and seq, and epoch only if wrong on purpose. */
static inline bool rig_push(struct rig *rig, uint32_t index, struct frame header, const void *payload, size_t size)
{
	return solo_push(&rig->front, &rig->channels[index], index, header, (struct view){payload, size});
}

/* Turns until there is nothing left to do that does not need the front. */
static inline void rig_serve(struct rig *rig)
{
	for (int i = 0; i < RIG_TURNS_MAX; i++) {
		enum serve_result result = serve_turn(rig->serve);

		ck_assert_int_ne(result, SERVE_DAMAGED);
		if (result == SERVE_IDLE)
			return;
	}
	ck_abort_msg("the worker never gets idle");
}

/* Reads a frame's payload into an answer. */
static inline void answer_read(struct answer *answer, const uint8_t *payload, size_t size)
{
	struct frame_status status;

	answer->size = size;
	switch (answer->frame.kind) {
	case FRAME_ANSWER:
		answer->message = flink_bridge__from_worker__unpack(NULL, size, payload);
		ck_assert_msg(answer->message != NULL, "an answer that protobuf-c cannot read");
		return;
	case FRAME_REPLY:
		answer->reply = flink_worker__process_message_response__unpack(NULL, size, payload);
		ck_assert_msg(answer->reply != NULL, "a reply that protobuf-c cannot read");
		return;
	default:
		ck_assert_uint_ge(size, sizeof(status));
		memcpy(&status, payload, sizeof(status));
		answer->code = status.code;
		snprintf(answer->text, sizeof(answer->text), "%.*s", (int)(size - sizeof(status)),
			 (const char *)payload + sizeof(status));
	}
}

/* Takes the next frame out of a response ring; false when there is none. Gives its room back, and marks the worker if that waits. */
static inline bool rig_try_take(struct rig *rig, uint32_t index, struct answer *answer)
{
	struct solo_channel *channel = &rig->channels[index];
	const uint8_t *payload;
	enum ring_result result;

	memset(answer, 0, sizeof(*answer));
	result = solo_peek(channel, &answer->frame, &payload);
	ck_assert_int_ne(result, RING_DAMAGED);
	if (result != RING_OK)
		return false;
	ck_assert_uint_eq(answer->frame.epoch, channel->epoch);
	ck_assert_uint_eq(answer->frame.received_ns, SOLO_RECEIVED_NS);
	answer_read(answer, payload, answer->frame.length - sizeof(struct frame));
	solo_release(&rig->front, channel, index, &answer->frame);
	return true;
}

/* The same where there has to be one. */
static inline struct answer rig_take(struct rig *rig, uint32_t index)
{
	struct answer answer;

	ck_assert_msg(rig_try_take(rig, index, &answer), "channel %u has no answer", index);
	return answer;
}

/* Checks that there is none. */
static inline void rig_take_nothing(struct rig *rig, uint32_t index)
{
	struct answer answer;

	ck_assert_msg(!rig_try_take(rig, index, &answer), "an answer of kind %u that should not be", answer.frame.kind);
}

static inline void answer_free(struct answer *answer)
{
	if (answer->message != NULL)
		flink_bridge__from_worker__free_unpacked(answer->message, NULL);
	if (answer->reply != NULL)
		flink_worker__process_message_response__free_unpacked(answer->reply, NULL);
	memset(answer, 0, sizeof(*answer));
}

/* ---- Sessions ---- */

/* Sends a ToWorker message as it is; false when the ring is full. */
static inline bool rig_try_send(struct rig *rig, uint32_t index, const FlinkBridge__ToWorker *message)
{
	size_t size = flink_bridge__to_worker__get_packed_size(message);
	bool open = message->kind_case == FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
	struct frame header = {.kind = open ? FRAME_OPEN : FRAME_MESSAGE,
			       .seq = message->seq,
			       .segment = rig->front.channels->front[index].segment};
	uint8_t *bytes = malloc(size + 1);
	bool sent;

	flink_bridge__to_worker__pack(message, bytes);
	sent = rig_push(rig, index, header, bytes, size);
	free(bytes);
	if (sent)
		rig->channels[index].seq = message->seq;
	return sent;
}

/* The same where there has to be room. */
static inline void rig_send(struct rig *rig, uint32_t index, const FlinkBridge__ToWorker *message)
{
	ck_assert_msg(rig_try_send(rig, index, message), "the request ring of channel %u is full", index);
}

/* A message with the next seq of a channel, to be given a kind. */
static inline FlinkBridge__ToWorker rig_message(const struct rig *rig, uint32_t index)
{
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;

	message.seq = rig->channels[index].seq + 1;
	message.processing_time_ms = RIG_TIME;
	return message;
}

/* An Open that is fine for segment 0: key groups 0 to 63 of 128. */
static inline FlinkBridge__Open rig_open_message(void)
{
	FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;

	open.protocol_version = WIRE_PROTOCOL_VERSION;
	open.parallelism = 2;
	open.max_parallelism = 128;
	open.key_group_last = 63;
	return open;
}

/* Sends an Open. */
static inline void rig_send_open(struct rig *rig, uint32_t index, FlinkBridge__Open *open)
{
	FlinkBridge__ToWorker message = rig_message(rig, index);
	struct frame header = {.kind = FRAME_OPEN, .seq = message.seq, .segment = open->segment};
	uint8_t bytes[512];

	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
	message.open = open;
	ck_assert_uint_le(flink_bridge__to_worker__get_packed_size(&message), sizeof(bytes));
	ck_assert(rig_push(rig, index, header, bytes, flink_bridge__to_worker__pack(&message, bytes)));
	rig->channels[index].seq = message.seq;
}

/* Opens a channel with a session of a segment, and takes the OpenAck. */
static inline void rig_open(struct rig *rig, uint32_t index, uint32_t segment)
{
	FlinkBridge__Open open = rig_open_message();
	struct answer answer;

	open.segment = segment;
	rig_open_channel(rig, index, segment);
	rig_send_open(rig, index, &open);
	rig_serve(rig);
	answer = rig_take(rig, index);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_OPEN_ACK);
	ck_assert_uint_eq(answer.frame.flags, FRAME_LAST);
	answer_free(&answer);
}

/* Tries to send a Batch of unkeyed records with payloads of so many bytes of one character. */
static inline bool rig_try_fill(struct rig *rig, uint32_t index, uint32_t count, size_t size)
{
	FlinkBridge__ToWorker message = rig_message(rig, index);
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__Record *records = calloc(count, sizeof(*records)), **pointers = calloc(count, sizeof(*pointers));
	uint8_t *payload = malloc(size + 1);
	bool sent;

	memset(payload, 'x', size);
	for (uint32_t i = 0; i < count; i++) {
		flink_bridge__record__init(&records[i]);
		records[i].payload = (ProtobufCBinaryData){size, payload};
		records[i].maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
		records[i].timestamp = i;
		pointers[i] = &records[i];
	}
	batch.n_records = count;
	batch.records = pointers;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	sent = rig_try_send(rig, index, &message);
	free(records);
	free(pointers);
	free(payload);
	return sent;
}

/* The same where there has to be room. */
static inline void rig_fill(struct rig *rig, uint32_t index, uint32_t count, size_t size)
{
	ck_assert(rig_try_fill(rig, index, count, size));
}

/* Sends a Batch of unkeyed records with the payloads given, up to a NULL. */
static inline void rig_batch(struct rig *rig, uint32_t index, ...)
{
	FlinkBridge__ToWorker message = rig_message(rig, index);
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__Record records[16], *pointers[16];
	va_list arguments;
	char *payload;

	va_start(arguments, index);
	while ((payload = va_arg(arguments, char *)) != NULL) {
		FlinkBridge__Record *record = &records[batch.n_records];

		ck_assert_uint_lt(batch.n_records, 16);
		flink_bridge__record__init(record);
		record->payload = (ProtobufCBinaryData){strlen(payload), (uint8_t *)payload};
		record->maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
		record->timestamp = (int64_t)batch.n_records;
		pointers[batch.n_records++] = record;
	}
	va_end(arguments);
	batch.records = pointers;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	rig_send(rig, index, &message);
}

/* The simple kinds. */
#define RIG_SEND(name, KIND, type)                                                                                     \
	static inline void rig_send_##name(struct rig *rig, uint32_t index, type *body)                                \
	{                                                                                                              \
		FlinkBridge__ToWorker message = rig_message(rig, index);                                               \
		message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_##KIND;                                              \
		message.name = body;                                                                                   \
		rig_send(rig, index, &message);                                                                        \
	}
RIG_SEND(watermark, WATERMARK, FlinkBridge__Watermark)
RIG_SEND(watermark_status, WATERMARK_STATUS, FlinkBridge__WatermarkStatus)
RIG_SEND(barrier, BARRIER, FlinkBridge__Barrier)
RIG_SEND(end_input, END_INPUT, FlinkBridge__EndInput)
RIG_SEND(close, CLOSE, FlinkBridge__Close)

/* A Watermark. */
static inline void rig_watermark(struct rig *rig, uint32_t index, int64_t timestamp)
{
	FlinkBridge__Watermark watermark = FLINK_BRIDGE__WATERMARK__INIT;

	watermark.timestamp = timestamp;
	rig_send_watermark(rig, index, &watermark);
}

/* A Barrier. */
static inline void rig_barrier(struct rig *rig, uint32_t index, uint64_t checkpoint)
{
	FlinkBridge__Barrier barrier = FLINK_BRIDGE__BARRIER__INIT;

	barrier.checkpoint_id = checkpoint;
	rig_send_barrier(rig, index, &barrier);
}

/* An EndInput. */
static inline void rig_end_input(struct rig *rig, uint32_t index)
{
	FlinkBridge__EndInput end = FLINK_BRIDGE__END_INPUT__INIT;

	rig_send_end_input(rig, index, &end);
}

/* A Close. */
static inline void rig_close(struct rig *rig, uint32_t index)
{
	FlinkBridge__Close close_message = FLINK_BRIDGE__CLOSE__INIT;

	close_message.reason = (char *)"done";
	rig_send_close(rig, index, &close_message);
}

/* A TimerTick at a processing time. */
static inline void rig_tick(struct rig *rig, uint32_t index, int64_t time)
{
	FlinkBridge__ToWorker message = rig_message(rig, index);
	FlinkBridge__TimerTick tick = FLINK_BRIDGE__TIMER_TICK__INIT;

	message.processing_time_ms = time;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_TIMER_TICK;
	message.timer_tick = &tick;
	rig_send(rig, index, &message);
}

/* Checks that an answer is Results of so many records; returns them. */
static inline FlinkBridge__Results *answer_results(const struct answer *answer, uint64_t seq, size_t count, bool last)
{
	ck_assert_uint_eq(answer->frame.kind, FRAME_ANSWER);
	if (answer->message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
		ck_abort_msg("an Error: %s", answer->message->error->message);
	ck_assert_int_eq(answer->message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS);
	ck_assert_uint_eq(answer->message->seq, seq);
	ck_assert_uint_eq(answer->frame.seq, seq);
	ck_assert_uint_eq(answer->frame.flags, last ? FRAME_LAST : 0);
	ck_assert_uint_eq(answer->message->results->n_records, count);
	return answer->message->results;
}

/* Takes Results whose payloads are those given, up to a NULL. */
static inline void rig_take_results(struct rig *rig, uint32_t index, uint64_t seq, int last, ...)
{
	struct answer answer = rig_take(rig, index);
	FlinkBridge__Results *results;
	const char *payload;
	va_list arguments;
	size_t count = 0;

	va_start(arguments, last);
	while (va_arg(arguments, const char *) != NULL)
		count++;
	va_end(arguments);
	results = answer_results(&answer, seq, count, last != 0);
	ck_assert(!results->more);
	va_start(arguments, last);
	for (size_t i = 0; (payload = va_arg(arguments, const char *)) != NULL; i++) {
		ck_assert_uint_eq(results->records[i]->payload.len, strlen(payload));
		ck_assert_mem_eq(results->records[i]->payload.data, payload, strlen(payload));
	}
	va_end(arguments);
	answer_free(&answer);
}

/* Takes a fatal Error and the END behind it; words that its message must have. */
static inline void rig_take_failure(struct rig *rig, uint32_t index, FlinkBridge__ErrorCode code, uint32_t status,
				    const char *words)
{
	struct answer answer = rig_take(rig, index);

	ck_assert_uint_eq(answer.frame.kind, FRAME_ANSWER);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_ERROR);
	ck_assert_msg(strstr(answer.message->error->message, words) != NULL, "\"%s\" has no \"%s\"",
		      answer.message->error->message, words);
	ck_assert_int_eq(answer.message->error->code, code);
	ck_assert(answer.message->error->fatal);
	ck_assert_uint_eq(answer.message->error->seq, answer.message->seq);
	answer_free(&answer);
	answer = rig_take(rig, index);
	ck_assert_uint_eq(answer.frame.kind, FRAME_END);
	ck_assert_uint_eq(answer.code, status);
	ck_assert_ptr_nonnull(strstr(answer.text, words));
	answer_free(&answer);
	rig_take_nothing(rig, index);
}

#endif
