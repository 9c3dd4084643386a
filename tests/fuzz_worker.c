/*
 * Fuzz target: a worker that serves whatever clients may send. An input is a script of sessions opened and closed, messages
 * (whole envelopes made right around any body, or any bytes at all; state to restore with its checksum put right, or not) and unary
 * calls. Answers must be what protobuf-c can read,
 * in the order of their seq, with nothing behind an END; each unary call must be answered once. Meanwhile workers vanish, and
 * successors take over.
 */
#include <check.h>

#include "shared/log.h"

/* The rig asserts by Check, which is not at work here. */
#undef ck_assert
#undef ck_assert_msg
#undef ck_abort_msg
#undef ck_assert_int_eq
#undef ck_assert_int_ne
#undef ck_assert_uint_eq
#undef ck_assert_uint_lt
#undef ck_assert_uint_le
#undef ck_assert_uint_ge
#undef ck_assert_mem_eq
#undef ck_assert_ptr_nonnull
#define ck_assert(condition) CHECK(condition)
#define ck_assert_msg(condition, ...) CHECK(condition)
#define ck_abort_msg(...) CHECK(false)
#define ck_assert_int_eq(a, b) CHECK((a) == (b))
#define ck_assert_int_ne(a, b) CHECK((a) != (b))
#define ck_assert_uint_eq(a, b) CHECK((a) == (b))
#define ck_assert_uint_lt(a, b) CHECK((a) < (b))
#define ck_assert_uint_le(a, b) CHECK((a) <= (b))
#define ck_assert_uint_ge(a, b) CHECK((a) >= (b))
#define ck_assert_mem_eq(a, b, size) CHECK(memcmp(a, b, size) == 0)
#define ck_assert_ptr_nonnull(pointer) CHECK((pointer) != NULL)
#include "tests/rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SESSIONS = 3, STEPS_MAX = 64, BODY_MAX = 4096, SEGMENTS = 4, KEYED = SEGMENTS };

/* The script, read from front to back; zeros behind its end. */
struct script {
	const uint8_t *at, *end;
};

/* One session as its client sees it. */
struct client_side {
	bool open, ended;
	uint64_t answered; /* seq of the last answer */
	int64_t time;
};

static struct rig rig;
static struct client_side sessions[SESSIONS + 1]; /* by channel */
static uint64_t calls, replies;

static uint8_t script_byte(struct script *script)
{
	return script->at < script->end ? *script->at++ : 0;
}

/* A run of bytes: a length of one byte, or of two when that is large, then so many. */
static struct view script_bytes(struct script *script)
{
	size_t size = script_byte(script);
	if (size >= 128)
		size = (size - 128) << 8 | script_byte(script);
	size_t left = (size_t)(script->end - script->at);
	size = size < left ? size : left;
	size = size < BODY_MAX ? size : BODY_MAX;
	struct view bytes = {script->at, size};
	script->at += size;
	return bytes;
}

/* Five segments: as they come, through JSON, held back, onto routes, and remembered by key. Once: making the memories costs
 * milliseconds. */
static void stage_build(void)
{
	rig_init(&rig);
	/* Small, so that rings fill, answers split, and making it all anew for each input is cheap. */
	rig.sizes.unary_ring = rig.sizes.session_ring = 32 << 10;
	rig.sidecar.config.message_max = rig.sidecar.config.unary_message_max = 6 << 10;
	rig.sidecar.config.record_max = 2 << 10;
	rig.sidecar.config.window_bytes_max = 8 << 10;
	rig_segment(&rig);
	struct spec *json = rig_segment(&rig);
	spec_add(json, STEP_select, "fields", "a\nb", NULL);
	spec_add(json, STEP_rename, "fields", "a=c", NULL);
	spec_add(rig_segment(&rig), STEP_batch, "size", "3", "bytes", "1000", "time", "500ms", NULL);
	struct spec *routes = rig_segment(&rig);
	spec_add(routes, STEP_broadcast, "routes", "x\ny", NULL);
	routes->routes[0] = "x";
	routes->routes[1] = "y";
	routes->segment.route_count = 2;
	struct spec *keyed = rig_segment(&rig);
	spec_add(keyed, STEP_dedup, "key", ".a", NULL);
	keyed->segment.keyed = true;
	rig_start(&rig);
}

/* A worker that knows nothing of the input before. */
static void stage_start(void)
{
	const struct segment *segment;
	struct failure failure;
	if (rig.serve == NULL)
		stage_build();
	serve_destroy(rig.serve);
	rig.serve = serve_create(&rig.workspace, &rig.sidecar.slots[0], rig.generation, &segment, &failure);
	CHECK(rig.serve != NULL);
	serve_reset(rig.serve);
	rig_open_channel(&rig, UNARY_CHANNEL, 0);
}

/* Judges one frame that came back. */
static void answer_judge(uint32_t channel, const struct answer *answer)
{
	struct client_side *session = &sessions[channel];
	if (channel == UNARY_CHANNEL) {
		CHECK(answer->frame.kind == FRAME_REPLY || answer->frame.kind == FRAME_REFUSAL);
		CHECK(answer->frame.kind == FRAME_REPLY || (answer->code != 0 && answer->text[0] != '\0'));
		replies++;
		return;
	}
	CHECK(!session->ended && (answer->frame.kind == FRAME_ANSWER || answer->frame.kind == FRAME_END));
	session->ended = answer->frame.kind == FRAME_END;
	if (session->ended)
		return;
	CHECK(answer->message->kind_case != 0);
	if (answer->message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
		return; /* it has the seq that the message at fault had, wrong as that may be */
	CHECK(answer->frame.seq >= session->answered);
	session->answered = answer->frame.seq;
}

/* Lets the worker work until it has nothing left to do and nothing left to say. */
static void stage_settle(void)
{
	struct answer answer;
	bool more = true;
	while (more) {
		rig_serve(&rig);
		more = false;
		for (uint32_t channel = 0; channel <= SESSIONS; channel++) {
			if (channel != UNARY_CHANNEL && !sessions[channel].open)
				continue;
			while (rig_try_take(&rig, channel, &answer)) {
				answer_judge(channel, &answer);
				answer_free(&answer);
				more = true;
			}
		}
	}
}

/* Opens a session with an Open that fits its segment, and restores into it where the script says so. */
static void step_open(struct script *script, uint32_t channel)
{
	FlinkBridge__StateDeclaration states[2] = {FLINK_BRIDGE__STATE_DECLARATION__INIT,
						   FLINK_BRIDGE__STATE_DECLARATION__INIT};
	FlinkBridge__StateDeclaration *manifest[] = {&states[0], &states[1]};
	FlinkBridge__Open open = rig_open_message();
	uint8_t choice = script_byte(script);
	open.segment = choice & 0x10 ? KEYED : choice % SEGMENTS;
	open.key_group_last = 127;
	if (choice & 0x20) {
		open.restored_checkpoint = 1;
		open.restored_entries = choice & 0x40 ? 1000 : 0;
		for (int i = 0; i < 2; i++)
			states[i].format_version = 1;
		states[0].step = states[1].step = (char *)rig.segments[open.segment].steps[0].name;
		states[0].name = open.segment == KEYED ? "identities" : "pending";
		states[0].kind =
		    open.segment == KEYED ? FLINK_BRIDGE__STATE_KIND__STATE_MAP : FLINK_BRIDGE__STATE_KIND__STATE_LIST;
		if (open.segment != KEYED)
			states[0].partition = FLINK_BRIDGE__STATE_PARTITION__STATE_SPLIT;
		open.n_state_manifest = open.segment == 2 || open.segment == KEYED ? 1 : choice >> 7;
		open.state_manifest = manifest;
	}
	if (sessions[channel].open)
		return;
	sessions[channel] = (struct client_side){.open = true};
	rig_open_channel(&rig, channel, open.segment);
	rig_send_open(&rig, channel, &open);
	sessions[channel].time = RIG_TIME;
}

/* Sends an envelope that is right, around any body. */
static void step_message(struct script *script, uint32_t channel)
{
	static const uint8_t kinds[] = {TO_WORKER_BATCH,         TO_WORKER_BATCH,      TO_WORKER_WATERMARK,
					TO_WORKER_TIMER_TICK,    TO_WORKER_BARRIER,    TO_WORKER_END_INPUT,
					TO_WORKER_CLOSE,         TO_WORKER_OPEN,       TO_WORKER_WATERMARK_STATUS,
					TO_WORKER_RESTORE_CHUNK, TO_WORKER_RESTORE_END};
	uint8_t buffer[BODY_MAX + 64];
	struct client_side *session = &sessions[channel];
	uint32_t kind = kinds[script_byte(script) % sizeof(kinds)];
	int64_t later = script_byte(script);
	struct view body = script_bytes(script);
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	if (!session->open)
		return;
	session->time += later;
	uint64_t seq = rig.channels[channel].seq + 1;
	wire_put_varint_field(&writer, 1, seq);
	wire_put_varint_field(&writer, 2, (uint64_t)session->time);
	wire_put_bytes_field(&writer, kind, body);
	struct frame header = {.kind = FRAME_MESSAGE, .seq = seq};
	if (rig_push(&rig, channel, header, buffer, (size_t)(writer.at - buffer)))
		rig.channels[channel].seq = seq;
}

/* Sends any bytes as the entries of a RestoreChunk, with the checksum that they have. */
static void step_restore(struct script *script, uint32_t channel)
{
	uint8_t buffer[BODY_MAX + 64];
	struct view entries = script_bytes(script);
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	uint64_t seq = rig.channels[channel].seq + 1;
	if (!sessions[channel].open)
		return;
	wire_put_varint_field(&writer, 1, seq);
	wire_put_varint_field(&writer, 2, (uint64_t)sessions[channel].time);
	uint8_t *start = wire_begin(&writer, TO_WORKER_RESTORE_CHUNK);
	memcpy(writer.at, entries.data, entries.size);
	writer.at += entries.size;
	wire_end_entries(&writer, start);
	if (rig_push(&rig, channel, (struct frame){.kind = FRAME_MESSAGE, .seq = seq}, buffer,
		     (size_t)(writer.at - buffer)))
		rig.channels[channel].seq = seq;
}

/* Says that no more will come, as a front does for a client that has stopped sending. */
static void step_half_close(uint32_t channel)
{
	struct frame header = {.kind = FRAME_HALF_CLOSE, .seq = rig.channels[channel].seq + 1};
	if (sessions[channel].open && rig.channels[channel].seq > 0 && rig_push(&rig, channel, header, NULL, 0))
		rig.channels[channel].seq++;
}

/* Sends any bytes as the next message of a session. */
static void step_raw(struct script *script, uint32_t channel)
{
	struct view body = script_bytes(script);
	struct frame header = {.kind = FRAME_MESSAGE, .seq = rig.channels[channel].seq + 1};
	if (sessions[channel].open && rig_push(&rig, channel, header, body.data, body.size))
		rig.channels[channel].seq++;
}

/* Makes a unary call of any bytes. */
static void step_call(struct script *script)
{
	unsigned kind = FRAME_PROCESS_MESSAGE + script_byte(script) % 4;
	struct view body = script_bytes(script);
	calls += rig_push(&rig, UNARY_CHANNEL, (struct frame){.kind = (uint16_t)kind, .seq = calls + 1}, body.data,
			  body.size);
}

/* Ends a channel from the front's side. */
static void channel_end(uint32_t channel)
{
	rig_close_channel(&rig, channel);
	rig_serve(&rig);
	CHECK(rig_free_channel(&rig, channel));
}

/* Ends a session, whatever it is at. */
static void step_close(uint32_t channel)
{
	if (sessions[channel].open)
		channel_end(channel);
	sessions[channel].open = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script script = {data, data + size};
	memset(sessions, 0, sizeof(sessions));
	calls = replies = 0;
	stage_start();
	for (int step = 0; step < STEPS_MAX && script.at < script.end; step++) {
		uint8_t choice = script_byte(&script);
		uint32_t channel = 1 + choice / 8 % SESSIONS;
		switch (choice % 8) {
		case 0:
			step_open(&script, channel);
			break;
		case 1:
			if (choice >= 128)
				step_half_close(channel);
			else
				step_close(channel);
			break;
		case 2:
			if (choice >= 128)
				step_restore(&script, channel);
			else
				step_raw(&script, channel);
			break;
		case 3:
			if (choice / 8 % 4 == 3)
				rig_adopt(&rig); /* the worker is gone, and another one takes over */
			else
				stage_settle();
			break;
		case 4:
		case 5:
			step_call(&script);
			break;
		default:
			step_message(&script, channel);
		}
	}
	stage_settle();
	CHECK(replies == calls);
	for (uint32_t channel = 1; channel <= SESSIONS; channel++)
		step_close(channel);
	channel_end(UNARY_CHANNEL);
	return 0;
}
