/*
 * Answers into a ring of the smallest size, and into the outbox beyond it.
 */
#include "worker/output.h"

#include <flink_bridge.pb-c.h>
#include <grpc/status.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check_main.h"

enum { RING = 4096, RECORD_MAX = 600, ARENA = 8 << 20 };

static struct ring_producer_words producer_words;
static struct ring_consumer_words consumer_words;
static _Alignas(64) uint8_t data[RING];
static struct ring_producer producer;
static struct ring_consumer consumer;
static struct output output;
static struct outbox outbox;
static struct arena arena;
static void *memory;
static uint8_t bytes[4096];

static void setup(void)
{
	struct frame request = {.kind = FRAME_MESSAGE, .epoch = 7, .segment = 3, .seq = 9, .received_ns = 11};
	char why[128];

	memset(&producer_words, 0, sizeof(producer_words));
	memset(&consumer_words, 0, sizeof(consumer_words));
	memset(bytes, 'b', sizeof(bytes));
	ring_producer_init(&producer, &producer_words, &consumer_words, data, RING);
	ring_consumer_init(&consumer, &consumer_words, &producer_words, data, RING);
	memory = calloc(1, ARENA);
	ck_assert_int_eq(arena_open(&arena, memory, ARENA, 0, why), ARENA_OK);
	outbox = (struct outbox){0};
	output_init(&output, &producer, &outbox, &arena, 1, 100000, RECORD_MAX);
	output.surplus = true; /* as for the outputs of one record */
	output_answer(&output, &request, 9);
}

static void teardown(void)
{
	output_deinit(&output);
	free(memory);
}

/* A record whose payload has so many bytes and whose timestamp is its number. */
static struct wire_record record_of(size_t size, int64_t number)
{
	return (struct wire_record){.payload = {bytes, size}, .timestamp = number};
}

static enum output_result write_one(size_t size, int64_t number)
{
	struct wire_record record = record_of(size, number);
	uint64_t found = 0;

	return output_records(&output, &record, 1, 0, &found);
}

/* Takes the next answer that has been published; NULL when there is none. */
static FlinkBridge__FromWorker *take(struct frame *header)
{
	FlinkBridge__FromWorker *message;
	const uint8_t *payload;

	if (ring_peek(&consumer, header, &payload) != RING_OK)
		return NULL;
	ck_assert_uint_eq(header->epoch, 7);
	ck_assert_uint_eq(header->segment, 3);
	ck_assert_uint_eq(header->received_ns, 11);
	message = flink_bridge__from_worker__unpack(NULL, header->length - sizeof(*header), payload);
	ck_assert_ptr_nonnull(message);
	ring_release(&consumer, ring_advance(&consumer, header));
	return message;
}

START_TEST(the_message_limit_is_the_ring_s)
{
	ck_assert_uint_eq(output.message_max, ring_payload_max(RING));
}
END_TEST

START_TEST(nothing_is_seen_before_it_is_published)
{
	FlinkBridge__FromWorker *message;
	struct frame header;

	ck_assert_int_eq(write_one(10, 5), OUTPUT_OK);
	ck_assert(output_results_open(&output));
	output_results_end(&output, false, true, 123);
	ck_assert(!output_results_open(&output));
	ck_assert_ptr_null(take(&header));
	ck_assert(output_publish(&output));
	ck_assert(!output_publish(&output));
	message = take(&header);
	ck_assert_uint_eq(header.kind, FRAME_ANSWER);
	ck_assert_uint_eq(header.flags, FRAME_LAST);
	ck_assert_uint_eq(message->seq, 9);
	ck_assert_int_eq(message->next_wakeup_ms, 123);
	ck_assert(!message->results->more);
	ck_assert_uint_eq(message->results->n_records, 1);
	ck_assert_int_eq(message->results->records[0]->timestamp, 5);
	flink_bridge__from_worker__free_unpacked(message, NULL);
}
END_TEST

START_TEST(a_dropped_results_was_never_there)
{
	FlinkBridge__FromWorker *message;
	struct frame header;

	ck_assert_int_eq(write_one(10, 1), OUTPUT_OK);
	output_drop(&output);
	ck_assert(!output_publish(&output));
	ck_assert_int_eq(write_one(10, 2), OUTPUT_OK);
	output_results_end(&output, true, false, 0);
	output_publish(&output);
	message = take(&header);
	ck_assert_int_eq(message->results->records[0]->timestamp, 2);
	ck_assert(message->results->more);
	ck_assert_uint_eq(header.flags, 0);
	flink_bridge__from_worker__free_unpacked(message, NULL);
	ck_assert_ptr_null(take(&header));
}
END_TEST

/* Records go out in order through split messages, the ring and the outbox, whatever their sizes. */
START_TEST(many_records_keep_their_order)
{
	int64_t expected = 0, written = 0;
	struct frame header;
	bool last = false;

	srand((unsigned)_i + 1);
	for (; written < 200; written++)
		ck_assert_int_eq(write_one((size_t)rand() % 500, written), OUTPUT_OK);
	output_results_end(&output, false, true, 0);
	ck_assert(output_is_parked(&output));
	while (!last) {
		FlinkBridge__FromWorker *message;

		output_flush(&output);
		output_publish(&output);
		message = take(&header);
		ck_assert_ptr_nonnull(message);
		last = header.flags == FRAME_LAST;
		ck_assert(message->results->more == !last);
		for (size_t i = 0; i < message->results->n_records; i++)
			ck_assert_int_eq(message->results->records[i]->timestamp, expected++);
		flink_bridge__from_worker__free_unpacked(message, NULL);
	}
	ck_assert_int_eq(expected, written);
	ck_assert(!output_is_parked(&output));
	ck_assert_uint_eq(outbox.bytes, 0);
}
END_TEST

START_TEST(a_guess_too_small_splits_and_loses_nothing)
{
	struct wire_record first = record_of(20, 0), second = record_of(500, 1);
	FlinkBridge__FromWorker *message;
	struct frame header;
	uint64_t size;

	ck_assert_int_eq(output_records(&output, &first, 1, 0, &size), OUTPUT_OK);
	ck_assert_int_eq(output_records(&output, &second, 1, 0, &size), OUTPUT_OK);
	output_results_end(&output, false, true, 0);
	output_publish(&output);
	message = take(&header);
	ck_assert(message->results->more);
	ck_assert_int_eq(message->results->records[0]->timestamp, 0);
	flink_bridge__from_worker__free_unpacked(message, NULL);
	message = take(&header);
	ck_assert(!message->results->more);
	ck_assert_uint_eq(message->results->records[0]->payload.len, 500);
	flink_bridge__from_worker__free_unpacked(message, NULL);
}
END_TEST

START_TEST(what_is_expected_to_follow_has_room)
{
	struct wire_record record = record_of(50, 0);
	FlinkBridge__FromWorker *message;
	struct frame header;
	uint64_t size;

	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(output_records(&output, &record, 1, 400, &size), OUTPUT_OK);
	output_results_end(&output, false, true, 0);
	output_publish(&output);
	message = take(&header);
	ck_assert_uint_eq(message->results->n_records, 5);
	flink_bridge__from_worker__free_unpacked(message, NULL);
}
END_TEST

START_TEST(a_record_beyond_the_limit_is_told_with_its_size)
{
	struct wire_record record = record_of(595, 0); /* with tag, length and time exactly the limit */
	uint64_t size = 0;

	ck_assert_int_eq(output_records(&output, &record, 1, 0, &size), OUTPUT_OK);
	record.payload.size++;
	ck_assert_int_eq(output_records(&output, &record, 1, 0, &size), OUTPUT_TOO_LARGE);
	ck_assert_uint_eq(size, RECORD_MAX + 1);
	output.record_max = 4000; /* a record that no message of this ring carries */
	record.payload.size = 2000;
	ck_assert_int_eq(output_records(&output, &record, 1, 0, &size), OUTPUT_TOO_LARGE);
	ck_assert_uint_eq(size, 2005);
}
END_TEST

/* Nothing goes to the ring past the outbox, even if it would fit. */
START_TEST(small_answers_queue_behind_large_ones)
{
	FlinkBridge__FromWorker *message;
	struct frame header;
	const uint8_t *payload;
	struct frame_status status;
	int answers = 0;

	for (int i = 0; i < 8; i++) {
		ck_assert_int_eq(write_one(500, i), OUTPUT_OK);
		output_results_end(&output, false, true, 0);
	}
	output_status(&output, FRAME_END, GRPC_STATUS_INTERNAL, "words");
	ck_assert(output_is_parked(&output));
	for (;; answers++) {
		output_flush(&output);
		output_publish(&output);
		ck_assert_int_eq(ring_peek(&consumer, &header, &payload), RING_OK);
		if (header.kind == FRAME_END)
			break;
		message = take(&header);
		ck_assert_int_eq(message->results->records[0]->timestamp, answers);
		flink_bridge__from_worker__free_unpacked(message, NULL);
	}
	ck_assert_int_eq(answers, 8);
	memcpy(&status, payload, sizeof(status));
	ck_assert_uint_eq(status.code, GRPC_STATUS_INTERNAL);
	ck_assert_uint_eq(header.length, sizeof(header) + sizeof(status) + 5);
	ck_assert_mem_eq(payload + sizeof(status), "words", 5);
}
END_TEST

/* A parked channel announces that it waits; the consumer that makes room is told so by ring_release. */
START_TEST(a_parked_channel_is_told_of_room)
{
	struct frame header;
	const uint8_t *payload;

	while (!output_is_parked(&output)) {
		ck_assert_int_eq(write_one(500, 0), OUTPUT_OK);
		output_results_end(&output, false, true, 0);
	}
	ck_assert_uint_eq(output_flush(&output), 0);
	ck_assert(output_publish(&output));
	ck_assert(!output_wait_for_room(&output));
	ck_assert_int_eq(ring_peek(&consumer, &header, &payload), RING_OK);
	ck_assert(ring_release(&consumer, ring_advance(&consumer, &header)));
	ck_assert(output_wait_for_room(&output));
	ck_assert_uint_eq(output_flush(&output), 1);
	ck_assert(!output_is_parked(&output));
	ck_assert_int_eq(ring_peek(&consumer, &header, &payload), RING_OK);
	ck_assert(!ring_release(&consumer, ring_advance(&consumer, &header)));
}
END_TEST

/* Records of a unit that can be made smaller do not go to the outbox; what was written of them is given up, and other answers do go. */
START_TEST(a_unit_without_room_can_be_given_up)
{
	FlinkBridge__FromWorker *message;
	enum output_result result;
	struct frame header;
	int64_t number = 0;

	output.surplus = false;
	ck_assert_int_eq(write_one(20, 100), OUTPUT_OK);
	output_results_end(&output, false, true, 0);
	output_publish(&output);
	while ((result = write_one(500, number)) == OUTPUT_OK)
		number++;
	ck_assert_int_eq(result, OUTPUT_NO_ROOM);
	ck_assert_int_ge(number, 2);
	ck_assert(!output_is_parked(&output));
	output_rollback(&output);
	ck_assert(!output_results_open(&output));
	ck_assert(output_has_room(&output));
	output_status(&output, FRAME_END, GRPC_STATUS_OK, "");
	output_publish(&output);
	message = take(&header);
	ck_assert_int_eq(message->results->records[0]->timestamp, 100);
	flink_bridge__from_worker__free_unpacked(message, NULL);
	const uint8_t *payload;
	ck_assert_int_eq(ring_peek(&consumer, &header, &payload), RING_OK);
	ck_assert_uint_eq(header.kind, FRAME_END);
}
END_TEST

/* A frame larger than a block of the arena comes out of the outbox as it went in; what leaves frees its memory. */
START_TEST(the_outbox_carries_large_frames)
{
	static uint8_t large[200000], back[200000];
	struct frame header = {.kind = FRAME_ANSWER, .epoch = 7}, first;
	uint64_t blocks = arena_session_usage(&arena, 1).blocks;

	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = (uint8_t)(i * 7 + i / 1000);
	ck_assert(outbox_append(&outbox, &arena, 1, header, large, sizeof(large)));
	ck_assert(outbox_append(&outbox, &arena, 1, header, large, 0));
	ck_assert(outbox_append(&outbox, &arena, 1, header, large, 10));
	ck_assert_uint_eq(outbox.bytes, 3 * sizeof(header) + sizeof(large) + 10);
	arena_commit(&arena);
	ck_assert(outbox_first(&outbox, &arena, &first));
	ck_assert_uint_eq(first.length, sizeof(header) + sizeof(large));
	ck_assert(outbox_take(&outbox, &arena, 1, back));
	ck_assert_mem_eq(back, large, sizeof(large));
	ck_assert(outbox_first(&outbox, &arena, &first));
	ck_assert_uint_eq(first.length, sizeof(header));
	ck_assert(outbox_take(&outbox, &arena, 1, back));
	ck_assert(outbox_first(&outbox, &arena, &first));
	ck_assert_uint_eq(first.length, sizeof(header) + 10);
	outbox_clear(&outbox, &arena, 1);
	ck_assert(outbox_is_empty(&outbox) && outbox.bytes == 0);
	arena_commit(&arena);
	ck_assert_uint_eq(arena_session_usage(&arena, 1).blocks, blocks);
}
END_TEST

START_TEST(a_long_status_is_cut_between_characters)
{
	char text[4000];
	struct frame header;
	const uint8_t *payload;
	size_t size;

	text[0] = 'x';
	for (size_t i = (size_t)_i; i + 2 < sizeof(text); i += 2) /* the cut falls between two bytes of one, or not */
		memcpy(text + i, "\xc3\xa4\0", 3);
	output_status(&output, FRAME_END, GRPC_STATUS_INTERNAL, text);
	output_publish(&output);
	ck_assert_int_eq(ring_peek(&consumer, &header, &payload), RING_OK);
	size = header.length - sizeof(header) - sizeof(struct frame_status);
	ck_assert_uint_le(size, ring_payload_max(RING));
	ck_assert_uint_ge(size, 900);
	ck_assert_uint_eq(payload[sizeof(struct frame_status) + size - 1], 0xa4);
}
END_TEST

START_TEST(a_consumer_that_lies_is_found_out)
{
	while (!output_is_parked(&output)) {
		ck_assert_int_eq(write_one(500, 0), OUTPUT_OK);
		output_results_end(&output, false, true, 0);
	}
	atomic_store(&consumer_words.head, UINT64_C(1) << 50);
	ck_assert_uint_eq(output_flush(&output), 0);
	ck_assert(output.damaged);
}
END_TEST

static Suite *output_suite(void)
{
	Suite *suite = suite_create("output");
	TCase *test = tcase_create("output");

	tcase_add_checked_fixture(test, setup, teardown);
	tcase_add_test(test, the_message_limit_is_the_ring_s);
	tcase_add_test(test, nothing_is_seen_before_it_is_published);
	tcase_add_test(test, a_dropped_results_was_never_there);
	tcase_add_loop_test(test, many_records_keep_their_order, 0, 20);
	tcase_add_test(test, a_guess_too_small_splits_and_loses_nothing);
	tcase_add_test(test, what_is_expected_to_follow_has_room);
	tcase_add_test(test, a_record_beyond_the_limit_is_told_with_its_size);
	tcase_add_test(test, small_answers_queue_behind_large_ones);
	tcase_add_test(test, a_parked_channel_is_told_of_room);
	tcase_add_test(test, a_unit_without_room_can_be_given_up);
	tcase_add_test(test, the_outbox_carries_large_frames);
	tcase_add_loop_test(test, a_long_status_is_cut_between_characters, 0, 2);
	tcase_add_test(test, a_consumer_that_lies_is_found_out);
	suite_add_tcase(suite, test);
	return suite;
}

CHECK_MAIN(output_suite)
