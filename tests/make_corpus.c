/*
 * Writes the corpora of fuzz_arena, fuzz_wire, fuzz_protobuf, fuzz_ring, fuzz_worker, fuzz_restore and fuzz_recording anew: `make corpus`. Always the same files; what fuzzing
 * found beside them stays, under the names that libFuzzer gave it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "flink_bridge.pb-c.h"
#include "flink_worker.pb-c.h"
#include "shared/keygroup.h"
#include "shared/log.h"
#include "shared/recording.h"
#include "shared/wire.h"
#include "tests/wire_agree.h"
#include "tests/wire_messages.h"

/* Writes one input: a byte that chooses, then the rest. */
static void input_write(const char *target, const char *name, unsigned number, uint8_t choice, struct view rest)
{
	char path[512];
	snprintf(path, sizeof(path), "tests/corpus/%s/%s-%u", target, name, number);
	FILE *file = fopen(path, "wb");
	if (file == NULL)
		fatal("%s: cannot be written", path);
	bool written = fputc(choice, file) != EOF && fwrite(rest.data, 1, rest.size, file) == rest.size;
	if (fclose(file) != 0 || !written)
		fatal("%s: cannot be written", path);
}

/* For each message: some plain, some odd, some damaged. */
static void write_wire(void)
{
	static const char *const names[SURFACE_COUNT] = {"to-worker",     "from-worker",     "record",
							 "results",       "process-message", "process-watermark",
							 "add-to-window", "trigger-window",  "state-delta"};
	struct dice dice = {1};
	for (unsigned surface = 0; surface < SURFACE_COUNT; surface++) {
		for (unsigned i = 0; i < 6; i++) {
			struct bytes message = {0};
			do {
				message.size = 0;
				message_make(&message, surface_descriptor((enum surface)surface), &dice, i < 2);
			} while (message.size < 10 || message.size > 400);
			if (i >= 4)
				message_damage(&message, &dice);
			input_write("wire", names[surface], i, (uint8_t)surface, bytes_view(&message));
			bytes_free(&message);
		}
	}
}

/* An Open that fuzz_protobuf's pipeline takes, and others that lack one thing each. */
static void write_opens(void)
{
	for (unsigned i = 0; i < 8; i++) {
		FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;
		FlinkBridge__ToWorker envelope = FLINK_BRIDGE__TO_WORKER__INIT;
		open.protocol_version = WIRE_PROTOCOL_VERSION - (i == 1);
		open.job = i == 2 ? "" : "job";
		open.pipeline = i == 3 ? "q" : "p";
		open.segment = i == 4 ? 2 : 1;
		open.topology_hash = i == 5 ? "other" : "0123456789abcdef0123456789abcdef";
		open.allocation_id = "allocation";
		open.attempt_id = "attempt";
		open.subtask = i == 6 ? 2 : 1;
		open.parallelism = 2;
		open.max_parallelism = 128;
		open.key_group_last = i == 7 ? 128 : 127;
		open.jvm_uuid = "f6b1c1de-9a0a-4c3e-8a43-6d1f8a6f2b11";
		open.open_token = 7;
		envelope.seq = 1;
		envelope.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
		envelope.open = &open;
		uint8_t packed[512];
		CHECK(flink_bridge__to_worker__get_packed_size(&envelope) <= sizeof(packed));
		size_t size = flink_bridge__to_worker__pack(&envelope, packed);
		input_write("protobuf", "open", i, 0, (struct view){packed, size});
	}
}

/* One message for each choice of fuzz_protobuf, in its order. */
static void write_protobuf(void)
{
	static const ProtobufCMessageDescriptor *const messages[] = {
	    &flink_bridge__to_worker__descriptor,
	    &flink_bridge__from_worker__descriptor,
	    &flink_worker__process_message_request__descriptor,
	    &flink_worker__process_message_response__descriptor,
	    &flink_worker__process_watermark_request__descriptor,
	    &flink_worker__add_to_window_request__descriptor,
	    &flink_worker__trigger_window_request__descriptor};
	struct dice dice = {2};
	for (unsigned i = 0; i < sizeof(messages) / sizeof(messages[0]) * 2; i++) {
		struct bytes message = {0};
		message_make(&message, messages[i / 2], &dice, (i & 1) == 0);
		input_write("protobuf", "message", i, (uint8_t)(i / 2), bytes_view(&message));
		bytes_free(&message);
	}
}

/* Scripts of steps: honest ones, and random ones. */
static void write_ring(void)
{
	/* consumer at 0: a frame of 64 bytes, the tail behind it, take, release */
	static const uint8_t consumer[] = {0, 0, 0, 2, 64, 0, 2, 0, 0, 2, 0, 6, 1, 5};
	/* producer at 0: two frames, publish, the head behind the first, room wanted */
	static const uint8_t producer[] = {0, 0, 0, 6, 32, 0, 32, 0, 6, 100, 0, 50, 0, 4, 0, 0, 2, 0, 3, 0, 3, 5};
	struct dice dice = {3};
	input_write("ring", "consumer", 0, 0, (struct view){consumer, sizeof(consumer)});
	input_write("ring", "producer", 0, 1, (struct view){producer, sizeof(producer)});
	for (unsigned i = 0; i < 8; i++) {
		uint8_t script[120];
		for (unsigned k = 0; k < sizeof(script); k++)
			script[k] = (uint8_t)dice_roll(&dice, k % 3 == 0 ? 256 : 8);
		input_write("ring", "script", i, (uint8_t)(i & 1), (struct view){script, sizeof(script)});
	}
}

/* Appends a step of a worker's script: what to do on which channel, further choices, and a run of bytes with its length. */
static void step_add(struct bytes *script, uint8_t step, const char *choices, size_t choice_count, struct view body)
{
	uint8_t size[2] = {(uint8_t)(body.size >= 128 ? 128 + (body.size >> 8) : body.size), (uint8_t)body.size};
	bytes_add(script, &step, 1);
	bytes_add(script, choices, choice_count);
	bytes_add(script, size, body.size >= 128 ? 2 : 1);
	bytes_add(script, body.data, body.size);
}

/* For each segment: a session with some batches, time, a barrier and its end, and unary calls beside it. */
static void write_worker(void)
{
	struct dice dice = {4};
	for (uint8_t segment = 0; segment < 4; segment++) {
		struct bytes script = {0}, body = {0};
		uint8_t open[2] = {0, segment};
		bytes_add(&script, open, sizeof(open));
		for (int i = 0; i < 3; i++) {
			body.size = 0;
			message_make(&body, &flink_bridge__batch__descriptor, &dice, i < 2);
			step_add(&script, 6, "\0\1", 2, bytes_view(&body));
			body.size = 0;
			message_make(&body, surface_descriptor((enum surface)(SURFACE_PROCESS_MESSAGE + i)), &dice,
				     true);
			step_add(&script, 4, &"\0\1\2"[i], 1, bytes_view(&body));
		}
		step_add(&script, 6, "\2\0", 2, view_of("\x08\x64"));
		step_add(&script, 6, "\3\377", 2, view_of(""));
		step_add(&script, 6, "\4\0", 2, view_of("\x08\x07"));
		step_add(&script, 6, "\5\0", 2, view_of(""));
		step_add(&script, 6, "\6\0", 2, view_of("\x0a\x02ok"));
		input_write("worker", "life", segment, script.data[0], (struct view){script.data + 1, script.size - 1});
		bytes_free(&script);
		bytes_free(&body);
	}
}

/* Entries that the segments of fuzz_worker restore: identities by key, or a piece of a list without keys. */
static size_t put_entries(uint8_t *buffer, size_t size, bool keyed)
{
	struct wire_writer writer = {.at = buffer, .end = buffer + size};
	for (unsigned k = 0; k < (keyed ? 12 : 1); k++) {
		char key[8];
		snprintf(key, sizeof(key), "k%u", k);
		struct wire_entry entry = {.key = view_of(keyed ? key : "")};
		if (keyed) {
			entry.key_hash = key_hash_of(entry.key);
			entry.key_group = key_group_of(entry.key_hash, 128);
			entry.sub_key = view_of("identity");
		} else {
			entry.sub_key = (struct view){(const uint8_t *)"\0\0\0\0\0\0\0\0", 8};
			entry.value = (struct view){(const uint8_t *)"\2\0\0\0{}", 6};
		}
		wire_put_entry(&writer, &entry);
	}
	CHECK(!writer.overflow);
	return (size_t)(writer.at - buffer);
}

/* Sessions that restore: all of it, a chunk twice, no end, and a batch where a chunk should be. Then a barrier. */
static void write_worker_restores(void)
{
	enum { OPEN_RESTORES = 0x20, OPEN_KEYED = 0x10, OPEN_HELD = 2, CHUNK = 146, HALF_CLOSE = 145, SETTLE = 3 };
	for (unsigned i = 0; i < 8; i++) {
		bool keyed = i % 2 == 0;
		struct bytes script = {0};
		uint8_t entries[1000], open[2] = {0, OPEN_RESTORES | (keyed ? OPEN_KEYED : OPEN_HELD)};
		struct view chunk = {entries, put_entries(entries, sizeof(entries), keyed)};
		bytes_add(&script, open, sizeof(open));
		step_add(&script, CHUNK, "", 0, chunk);
		bytes_add(&script, &(uint8_t){SETTLE}, 1);
		if (i / 2 == 1)
			step_add(&script, CHUNK, "", 0, chunk);
		if (i / 2 == 2)
			step_add(&script, HALF_CLOSE, "", 0, view_of(""));
		if (i / 2 == 3)
			step_add(&script, 6, "\1\0", 2, view_of(""));
		step_add(&script, 6, "\12\0", 2, view_of(keyed ? "\x08\x0c" : "\x08\x01"));
		step_add(&script, 6, "\4\0", 2, view_of("\x08\x07"));
		step_add(&script, 6, "\5\0", 2, view_of(""));
		input_write("worker", "restore", i, script.data[0], (struct view){script.data + 1, script.size - 1});
		bytes_free(&script);
	}
}

/* Appends a chunk to a script of fuzz_restore. */
static void chunk_add(struct bytes *script, const char choices[2], struct view body)
{
	uint8_t size[2] = {(uint8_t)(body.size >> 8), (uint8_t)body.size};
	bytes_add(script, choices, 2);
	bytes_add(script, size, sizeof(size));
	bytes_add(script, body.data, body.size);
}

/* Honest chunks: entries of each state, some in parts. And such as are anything but. */
static void write_restore(void)
{
	struct dice dice = {5};
	for (unsigned i = 0; i < 6; i++) {
		struct bytes script = {0};
		uint8_t buffer[2000], value[300];
		struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
		memset(value, 'v', sizeof(value));
		for (unsigned k = 0; k < 12; k++) {
			char key[8];
			snprintf(key, sizeof(key), "k%u", k);
			struct wire_entry entry = {.key = view_of(key), .key_hash = key_hash_of(view_of(key))};
			entry.key_group = key_group_of(entry.key_hash, 128);
			entry.state = k % 2;
			entry.sub_key = view_of(entry.state == 1 ? "user" : "");
			entry.value = (struct view){value, 20 + 10 * k};
			if (entry.key_group < 10 || entry.key_group > 100)
				continue;
			entry.more = true;
			if (i % 3 == 0)
				wire_put_entry(&writer, &entry);
			entry.more = false;
			wire_put_entry(&writer, &entry);
		}
		CHECK(!writer.overflow);
		chunk_add(&script, i < 3 ? "\0\3" : "\2\1", (struct view){buffer, (size_t)(writer.at - buffer)});
		struct bytes body = {0};
		message_make(&body, &flink_bridge__restore_chunk__descriptor, &dice, true);
		if (i % 2 == 1)
			chunk_add(&script, "\0\1", bytes_view(&body));
		input_write("restore", "chunks", i, i == 5 ? 4 : 0, bytes_view(&script));
		bytes_free(&body);
		bytes_free(&script);
	}
}

/* Nothing overwritten; one thing, in each of the places; and many. Then calls of all kinds. */
static void write_arena(void)
{
	struct dice dice = {5};
	for (unsigned i = 0; i < 24; i++) {
		uint8_t script[900];
		for (unsigned k = 0; k < sizeof(script); k++)
			script[k] = (uint8_t)dice_roll(&dice, 256);
		script[0] = (uint8_t)(i < 17 ? i > 0 : i - 15); /* damages, of four bytes of place each, then how */
		script[3] = (uint8_t)(i / 2);
		input_write("arena", "script", i, script[0], (struct view){script + 1, sizeof(script) - 1});
	}
}

/* Writes a recording as a worker does; its bytes. */
static struct recording recording_make(unsigned messages)
{
	struct recording_header header = {
	    .release = view_of("0.1.0"),
	    .pipeline = view_of("p"),
	    .topology_hash = view_of("0123456789abcdef"),
	    .segment_name = view_of("s"),
	    .descriptor = view_of("descriptor: 1\n"),
	    .step = view_of("step"),
	    .cause = view_of("code"),
	    .seq = 7,
	    .record = 3,
	    .when_ms = 1795711328123,
	    .message_max = 1 << 20,
	    .record_max = 1 << 20,
	    .incomplete = messages > 2,
	};
	char name[] = "/tmp/make_corpus_XXXXXX", why[RECORDING_WHY_MAX];
	struct recording recording;
	int fd = mkstemp(name);
	CHECK(fd >= 0);
	struct recording_writer *writer = recording_create(name);
	CHECK(writer != NULL);
	recording_describe(writer, &header);
	for (unsigned i = 0; i < messages; i++)
		recording_add(writer, view_of("\x08\x01\x10\xe8\x07\x1a\x02\x08\x01"));
	CHECK(recording_finish(writer) && recording_read(&recording, name, why));
	close(fd);
	unlink(name);
	return recording;
}

/* Whole ones; such whose inside is damaged and whose head and checksum are put right; cut ones. */
static void write_recording(void)
{
	enum { HEAD = 12, CHECKSUM = 8 };
	struct dice dice = {6};
	for (unsigned i = 0; i < 10; i++) {
		struct recording recording = recording_make(1 + i % 4);
		struct view inside = {recording.bytes + HEAD, recording.size - HEAD - CHECKSUM};
		if (i < 2) {
			input_write("recording", "whole", i, 0, (struct view){recording.bytes, recording.size});
		} else if (i < 8) {
			for (unsigned k = 0; k < i - 2; k++)
				recording.bytes[HEAD + dice_roll(&dice, (uint32_t)inside.size)] =
				    (uint8_t)dice_roll(&dice, 256);
			input_write("recording", "inside", i, 3, inside);
		} else {
			inside.size = dice_roll(&dice, (uint32_t)inside.size);
			input_write("recording", "cut", i, i == 8 ? 3 : 1, inside);
		}
		recording_free(&recording);
	}
}

int main(void)
{
	write_recording();
	write_arena();
	write_restore();
	write_worker();
	write_worker_restores();
	write_wire();
	write_opens();
	write_protobuf();
	write_ring();
	return 0;
}
