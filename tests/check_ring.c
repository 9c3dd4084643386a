/*
 * The ring, in three ways: step by step in one thread, between two threads (for the thread sanitizer), and between two
 * processes of which one is killed again and again.
 *
 * Payloads are slices of one table of noise, found by the frame's seq: so a frame that is torn, lost or out of order is
 * recognised by its contents.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/ring.h"
#include "shared/slot.h"
#include "tests/check_main.h"

enum { SIZE = 4096, NOISE = 1 << 16 };

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { THREAD_FRAMES = 1000000 };
#else
enum { THREAD_FRAMES = 3000000 };
#endif

/* A ring in shared memory, and what the two-process tests share beside it. */
struct rig {
	struct ring_producer_words producer_words;
	struct ring_consumer_words consumer_words;
	_Atomic uint64_t ready;        /* one bit: there is data */
	_Atomic uint32_t sleeps;       /* the consumer is about to block */
	_Atomic uint64_t next_seq;     /* consumer: the seq after the last one checked */
	_Atomic uint64_t first_seq;    /* consumer: the first one seen in this life, plus one */
	sem_t data_bell, room_bell;    /* between threads only */
	_Alignas(4096) uint8_t data[]; /* `size` bytes */
};

static struct rig *rig;
static uint64_t ring_size;
static struct ring_producer producer;
static struct ring_consumer consumer;
static uint8_t noise[2 * NOISE];
static uint64_t random_state = 88172645463325252u;

/* A number that looks random; the same ones in every run. */
static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Attaches a producer, as a new process would. */
static void attach_producer(void)
{
	ring_producer_init(&producer, &rig->producer_words, &rig->consumer_words, rig->data, ring_size);
}

/* Attaches a consumer, as a new process would. */
static void attach_consumer(void)
{
	ring_consumer_init(&consumer, &rig->consumer_words, &rig->producer_words, rig->data, ring_size);
}

/* Makes an empty ring of some size with both ends attached. */
static void make_ring(uint64_t size)
{
	ring_size = size;
	rig = mmap(NULL, sizeof(*rig) + size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(rig, MAP_FAILED);
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)next_random();
	attach_producer();
	attach_consumer();
}

/* The ring of the single-step tests. */
static void setup_small(void)
{
	make_ring(SIZE);
}

/* The ring of the two-sided tests: small enough to be full, and to wrap, all the time. */
static void setup_large(void)
{
	make_ring(1 << 14);
}

/* A ring in which laps end early: with frames of length_of, about as often as not. */
static void setup_lapped(void)
{
	make_ring(1 << 18);
}

static void teardown(void)
{
	munmap(rig, sizeof(*rig) + ring_size);
}

/* The payload of a seq. */
static const uint8_t *noise_of(uint64_t seq)
{
	return noise + seq * 31 % NOISE;
}

/* The length of a seq's payload: mostly small, sometimes the largest. */
static uint64_t length_of(uint64_t seq)
{
	uint64_t scrambled = (seq + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 20;
	uint64_t most = ring_payload_max(ring_size);
	return scrambled % 16 == 0 ? scrambled / 16 % (most + 1) : scrambled / 16 % 200;
}

/* Appends the frame of a seq, reserving `spare` bytes more than it uses; what ring_reserve said. */
static enum ring_result append_seq(uint64_t seq, uint64_t length, uint64_t spare)
{
	uint8_t *payload;
	enum ring_result result = ring_reserve(&producer, length + spare, &payload);
	if (result != RING_OK)
		return result;
	memcpy(payload, noise_of(seq), length);
	ring_append(&producer, (struct frame){.kind = FRAME_MESSAGE, .seq = seq, .epoch = 7, .segment = 5}, length);
	return RING_OK;
}

/* Appends and publishes a frame with so many payload bytes, which must fit. */
static void push(uint64_t seq, uint64_t length)
{
	ck_assert_int_eq(append_seq(seq, length, 0), RING_OK);
	ck_assert(ring_publish(&producer));
}

/* Whether a peeked frame is exactly what append_seq wrote. */
static bool is_frame_of(const struct frame *header, const uint8_t *payload, uint64_t seq, uint64_t length)
{
	return header->seq == seq && header->kind == FRAME_MESSAGE && header->epoch == 7 && header->segment == 5 &&
	       header->length == sizeof(*header) + length && memcmp(payload, noise_of(seq), length) == 0;
}

/* Takes the next frame, which must be that of a seq; the cursor behind it. */
static uint64_t pull(uint64_t seq, uint64_t length)
{
	struct frame header;
	const uint8_t *payload;
	ck_assert_int_eq(ring_peek(&consumer, &header, &payload), RING_OK);
	ck_assert(is_frame_of(&header, payload, seq, length));
	return ring_advance(&consumer, &header);
}

/* Takes and releases the next frame. */
static void pull_release(uint64_t seq, uint64_t length)
{
	ring_release(&consumer, pull(seq, length));
}

/* What a peek says. */
static enum ring_result peek(void)
{
	struct frame header;
	const uint8_t *payload;
	return ring_peek(&consumer, &header, &payload);
}

/* What a reserve says. */
static enum ring_result reserve(uint64_t payload_max)
{
	uint8_t *payload;
	return ring_reserve(&producer, payload_max, &payload);
}

/* The header that stands at a place of the ring. */
static struct frame header_at(uint64_t offset)
{
	struct frame header;
	memcpy(&header, rig->data + offset, sizeof(header));
	return header;
}

/* ---- Single step ------------------------------------------------------------------------------------------------- */

START_TEST(a_new_ring_is_empty)
{
	ck_assert_int_eq(peek(), RING_EMPTY);
	ck_assert(ring_is_empty(&consumer));
	ck_assert_uint_eq(ring_producer_fill(&producer), 0);
	ck_assert(!ring_publish(&producer));
	ck_assert(!ring_release(&consumer, 0));
}
END_TEST

START_TEST(an_appended_frame_is_invisible_until_published)
{
	ck_assert_int_eq(append_seq(1, 100, 0), RING_OK);
	ck_assert_int_eq(append_seq(2, 0, 0), RING_OK);
	ck_assert_int_eq(peek(), RING_EMPTY);
	ck_assert(ring_is_empty(&consumer));
	ck_assert_uint_eq(ring_producer_fill(&producer), 0);
	ck_assert(ring_publish(&producer));
	ck_assert(!ring_publish(&producer));
	ck_assert(!ring_is_empty(&consumer));
	ck_assert_uint_eq(ring_producer_fill(&producer), 160 + 32);
	pull(1, 100);
	ring_release(&consumer, pull(2, 0));
	ck_assert(ring_is_empty(&consumer));
	ck_assert_uint_eq(ring_producer_fill(&producer), 0);
}
END_TEST

START_TEST(a_header_arrives_as_it_was_given)
{
	uint8_t *payload;
	const uint8_t *seen;
	struct frame given = {
	    .kind = FRAME_ANSWER, .flags = FRAME_LAST, .epoch = 1, .segment = 2, .seq = 3, .received_ns = 4};
	struct frame header;
	ck_assert_int_eq(ring_reserve(&producer, 50, &payload), RING_OK);
	memset(payload, 'x', 50);
	ring_append(&producer, given, 9);
	ring_publish(&producer);
	given.length = sizeof(given) + 9;
	ck_assert_int_eq(ring_peek(&consumer, &header, &seen), RING_OK);
	ck_assert_mem_eq(&header, &given, sizeof(given));
	ck_assert_mem_eq(seen, "xxxxxxxxx", 9);
	ck_assert_uint_eq(ring_advance(&consumer, &header), 64);
}
END_TEST

START_TEST(every_length_up_to_the_largest_passes)
{
	for (uint64_t length = 0; length <= ring_payload_max(SIZE); length++) {
		push(length, length);
		pull_release(length, length);
	}
}
END_TEST

START_TEST(largest_frames_fill_the_ring_exactly)
{
	uint64_t most = ring_payload_max(SIZE);
	for (uint64_t seq = 0; seq < 4; seq++)
		push(seq, most);
	ck_assert_uint_eq(ring_producer_fill(&producer), SIZE);
	ck_assert_int_eq(reserve(0), RING_FULL);
	uint64_t first = pull(0, most);
	pull(1, most);
	ck_assert_int_eq(reserve(0), RING_FULL); /* read, but not given back */
	ring_release(&consumer, first);
	push(4, most);
	ck_assert_int_eq(reserve(0), RING_FULL);
	pull(2, most);
	pull(3, most);
	ring_release(&consumer, pull(4, most));
	ck_assert_int_eq(peek(), RING_EMPTY);
}
END_TEST

START_TEST(smallest_frames_fill_the_ring_exactly)
{
	for (int round = 0; round < 3; round++) {
		for (uint64_t seq = 0; seq < SIZE / FRAME_ALIGN; seq++)
			push(seq, 0);
		ck_assert_int_eq(reserve(0), RING_FULL);
		for (uint64_t seq = 0; seq < SIZE / FRAME_ALIGN; seq++)
			pull_release(seq, 0);
		ck_assert_int_eq(peek(), RING_EMPTY);
	}
}
END_TEST

/* Moves both cursors to a place in the ring. */
static void move_to(uint64_t offset)
{
	for (uint64_t at = 0; at < offset; at += FRAME_ALIGN) {
		push(at, 0);
		pull_release(at, 0);
	}
}

START_TEST(a_frame_that_ends_at_the_end_needs_no_pad)
{
	move_to(SIZE - 256);
	push(1, 256 - 32);
	ck_assert_uint_eq(header_at(SIZE - 256).kind, FRAME_MESSAGE);
	push(2, 10);
	ck_assert_uint_eq(header_at(0).seq, 2);
	pull_release(1, 256 - 32);
	pull_release(2, 10);
}
END_TEST

START_TEST(a_frame_that_crosses_the_end_is_preceded_by_a_pad)
{
	move_to(SIZE - 256);
	push(1, 256 - 32 + 1);
	ck_assert_uint_eq(header_at(SIZE - 256).kind, FRAME_PAD);
	ck_assert_uint_eq(header_at(SIZE - 256).length, 256);
	ck_assert_uint_eq(header_at(0).seq, 1);
	ck_assert_uint_eq(ring_producer_fill(&producer), 256 + 288);
	pull_release(1, 256 - 32 + 1);
	ck_assert_uint_eq(ring_producer_fill(&producer), 0);
}
END_TEST

START_TEST(a_pad_may_be_one_header_long)
{
	move_to(SIZE - 32);
	push(1, 1);
	ck_assert_uint_eq(header_at(SIZE - 32).kind, FRAME_PAD);
	ck_assert_uint_eq(header_at(SIZE - 32).length, 32);
	pull_release(1, 1);
}
END_TEST

START_TEST(the_largest_frame_fits_an_empty_ring_from_everywhere)
{
	uint64_t most = ring_payload_max(SIZE);
	for (uint64_t round = 0; round < SIZE / FRAME_ALIGN; round++) {
		push(round, most);
		pull_release(round, most);
		push(round, 0);
		pull_release(round, 0);
	}
}
END_TEST

START_TEST(a_ring_that_is_kept_empty_uses_its_first_part_only)
{
	uint64_t longest = 0, laps = 0;
	for (uint64_t seq = 0; seq < 1000; seq++) {
		push(seq, 1000);
		laps += header_at(0).seq == seq;
		pull_release(seq, 1000);
		uint64_t place = consumer.position % ring_size;
		longest = place > longest ? place : longest;
	}
	ck_assert_uint_ge(longest, ring_size / 2); /* the shortest lap is half of this ring */
	ck_assert_uint_lt(longest, ring_size * 2 / 3);
	ck_assert_uint_ge(laps, 6);
}
END_TEST

START_TEST(so_does_one_that_is_kept_empty_of_large_frames)
{
	uint64_t longest = 0;
	for (uint64_t seq = 0; seq < 1000; seq++) {
		push(seq, ring_size / 5);
		pull_release(seq, ring_size / 5);
		uint64_t place = consumer.position % ring_size;
		longest = place > longest ? place : longest;
	}
	ck_assert_uint_lt(longest, ring_size * 2 / 3); /* the third frame ends behind the shortest lap */
}
END_TEST

START_TEST(a_ring_whose_consumer_lags_is_used_to_its_end)
{
	uint64_t count = 0;
	while (append_seq(count, 1000, 0) == RING_OK)
		count++;
	ck_assert_uint_eq(count, ring_size / frame_span(sizeof(struct frame) + 1000));
	ring_publish(&producer);
	for (uint64_t seq = 0; seq < count; seq++)
		pull_release(seq, 1000);
}
END_TEST

START_TEST(a_pad_that_ends_a_lap_is_not_counted_as_fill)
{
	uint64_t size = 1 << 18;
	ck_assert_uint_eq(ring_bytes_between(size + 512, size + 1024, size), 512);
	ck_assert_uint_eq(ring_bytes_between(size - 512, size + 1024, size), 1536); /* a full lap, hardly a pad */
	ck_assert_uint_le(ring_bytes_between(size / 2, size + 1024, size), size / 6 + 1024);
	for (uint64_t seq = 0; seq < 1000; seq++) {
		push(seq, 1000);
		ck_assert_uint_le(ring_bytes_between(consumer.position, producer.position, ring_size), ring_size / 4);
		pull_release(seq, 1000);
	}
}
END_TEST

START_TEST(a_head_that_cannot_be_true_is_found_at_a_laps_end_too)
{
	for (uint64_t seq = 0; producer.position < (1 << 17); seq++) {
		push(seq, 1000);
		pull_release(seq, 1000);
	}
	rig->consumer_words.head = producer.position + 32;
	ck_assert_int_eq(reserve(1000), RING_DAMAGED);
	ck_assert_int_eq(reserve(1000), RING_DAMAGED);
}
END_TEST

START_TEST(room_counts_the_pad)
{
	move_to(SIZE - 64);
	push(1, 0); /* 32 bytes are left to the end, and all from 0 to SIZE - 64 is free */
	for (uint64_t seq = 2; seq < 5; seq++)
		push(seq, ring_payload_max(SIZE)); /* a pad of 32, then 3/4 of the ring */
	ck_assert_int_eq(reserve(SIZE / 4 - 64 - 32 + 1), RING_FULL);
	ck_assert_int_eq(reserve(SIZE / 4 - 64 - 32), RING_OK);
	push(5, SIZE / 4 - 64 - 32);
	ck_assert_uint_eq(ring_producer_fill(&producer), SIZE);
	pull_release(1, 0);
	ck_assert_int_eq(reserve(0), RING_OK);
	ck_assert_int_eq(reserve(1), RING_FULL); /* 32 bytes to the end, and the frame before was the first */
}
END_TEST

START_TEST(less_may_be_used_than_was_reserved)
{
	move_to(SIZE - 256);
	ck_assert_int_eq(append_seq(1, 3, 500), RING_OK); /* the pad is due to what was reserved */
	ck_assert_int_eq(append_seq(2, 0, 100), RING_OK);
	ring_publish(&producer);
	ck_assert_uint_eq(ring_producer_fill(&producer), 256 + 64 + 32);
	pull_release(1, 3);
	pull_release(2, 0);
}
END_TEST

START_TEST(a_reservation_may_be_made_again)
{
	uint8_t *first, *second;
	ck_assert_int_eq(ring_reserve(&producer, 100, &first), RING_OK);
	ck_assert_int_eq(ring_reserve(&producer, 900, &second), RING_OK);
	ck_assert_ptr_eq(first, second);
	push(1, 5);
	pull_release(1, 5);
	ck_assert_int_eq(peek(), RING_EMPTY);
}
END_TEST

START_TEST(rollback_forgets_what_was_not_published)
{
	move_to(SIZE - 256);
	push(1, 10);
	for (uint64_t seq = 2; seq < 5; seq++)
		ck_assert_int_eq(append_seq(seq, 900, 0), RING_OK); /* over the end, with a pad */
	ring_rollback(&producer);
	ck_assert(!ring_publish(&producer));
	pull_release(1, 10);
	ck_assert_int_eq(peek(), RING_EMPTY);
	push(5, 20);
	pull_release(5, 20);
	ck_assert_int_eq(peek(), RING_EMPTY);
}
END_TEST

/* A successor goes on where its predecessor's own records have it, not where the shared words do: what was written and not shown
 * becomes visible, what was read and not given back is given back, and what stands behind the cursor was never there. */
START_TEST(a_successor_resumes_at_a_cursor)
{
	move_to(SIZE - 256);
	push(1, 10);
	ck_assert_int_eq(append_seq(2, 900, 0), RING_OK);
	uint64_t written = producer.position;
	ck_assert_int_eq(append_seq(3, 20, 0), RING_OK);
	attach_producer();
	ring_producer_resume(&producer, written);
	push(4, 30);
	uint64_t read = pull(1, 10);
	attach_consumer();
	ring_consumer_resume(&consumer, read);
	ck_assert_uint_eq(atomic_load(&rig->consumer_words.head), read);
	pull_release(2, 900);
	pull_release(4, 30);
	ck_assert_int_eq(peek(), RING_EMPTY);
	ring_producer_resume(&producer, producer.position + 7); /* no cursor that there can be */
	ck_assert(producer.damaged);
	ring_consumer_resume(&consumer, consumer.position + 7);
	ck_assert_int_eq(peek(), RING_DAMAGED);
}
END_TEST

START_TEST(what_was_read_can_be_read_again)
{
	push(1, 10);
	push(2, 20);
	uint64_t first = consumer.position;
	pull(1, 10);
	pull(2, 20);
	ring_rewind(&consumer, first);
	pull_release(1, 10);
	pull_release(2, 20);
	ck_assert_int_eq(peek(), RING_EMPTY);
}
END_TEST

START_TEST(room_can_be_asked_for)
{
	uint64_t seq = 0;
	ck_assert(ring_has_room(&producer, ring_payload_max(SIZE)));
	while (ring_has_room(&producer, 500))
		push(++seq, 500);
	ck_assert_int_eq(append_seq(99, 500, 0), RING_FULL);
	pull_release(1, 500);
	ck_assert(ring_has_room(&producer, 500));
	atomic_store(&rig->consumer_words.head, UINT64_C(1) << 50);
	ck_assert(!ring_has_room(&producer, 900));
	ck_assert(producer.damaged);
}
END_TEST

START_TEST(frames_are_released_in_pieces)
{
	uint64_t cursor[8];
	for (uint64_t seq = 0; seq < 8; seq++)
		push(seq, 480);
	for (uint64_t seq = 0; seq < 8; seq++)
		cursor[seq] = pull(seq, 480);
	ring_release(&consumer, cursor[2]);
	ck_assert_uint_eq(ring_producer_fill(&producer), 5 * 512);
	ring_release(&consumer, cursor[2]);
	ring_release(&consumer, cursor[7]);
	ck_assert_uint_eq(ring_producer_fill(&producer), 0);
}
END_TEST

START_TEST(waiting_for_room_is_announced_and_taken_back)
{
	uint64_t most = ring_payload_max(SIZE);
	for (uint64_t seq = 0; seq < 4; seq++)
		push(seq, most);
	ck_assert(!ring_release(&consumer, pull(0, most))); /* nobody waits */
	push(4, most);
	ck_assert_int_eq(reserve(0), RING_FULL);
	ck_assert(!ring_wait_for_room(&producer, 0));
	ck_assert_uint_eq(rig->producer_words.wants_room, 1);
	ck_assert(ring_release(&consumer, pull(1, most)));
	ck_assert(ring_release(&consumer, pull(2, most))); /* until the producer has looked */
	ck_assert_int_eq(reserve(0), RING_OK);
	ck_assert_uint_eq(rig->producer_words.wants_room, 0);
	ck_assert(!ring_release(&consumer, pull(3, most)));
}
END_TEST

START_TEST(waiting_ends_at_once_when_there_is_room_after_all)
{
	for (uint64_t seq = 0; seq < 4; seq++)
		push(seq, ring_payload_max(SIZE));
	ck_assert_int_eq(reserve(100), RING_FULL);
	pull_release(0, ring_payload_max(SIZE));
	ck_assert(ring_wait_for_room(&producer, 100));
	ck_assert_uint_eq(rig->producer_words.wants_room, 0);
	ck_assert_int_eq(reserve(100), RING_OK);
}
END_TEST

START_TEST(a_frame_too_large_for_the_room_goes_on_waiting)
{
	uint64_t most = ring_payload_max(SIZE);
	for (uint64_t seq = 0; seq < 64; seq++)
		push(seq, 32);
	ck_assert(!ring_wait_for_room(&producer, most));
	for (uint64_t seq = 0; seq < 15; seq++) {
		ck_assert(ring_release(&consumer, pull(seq, 32)));
		ck_assert_int_eq(reserve(most), RING_FULL);
		ck_assert_uint_eq(rig->producer_words.wants_room, 1);
	}
	ck_assert(ring_release(&consumer, pull(15, 32)));
	ck_assert_int_eq(reserve(most), RING_OK);
	ck_assert_uint_eq(rig->producer_words.wants_room, 0);
}
END_TEST

START_TEST(a_successor_takes_its_predecessors_announcement_back)
{
	for (uint64_t seq = 0; seq < 4; seq++)
		push(seq, ring_payload_max(SIZE));
	ck_assert(!ring_wait_for_room(&producer, 0));
	attach_producer();
	pull_release(0, ring_payload_max(SIZE));
	ck_assert_int_eq(reserve(0), RING_OK);
	ck_assert_uint_eq(rig->producer_words.wants_room, 0);
}
END_TEST

START_TEST(successors_go_on_where_the_words_are)
{
	for (uint64_t seq = 0; seq < 100; seq++) {
		push(seq, 100);
		attach_producer();
		ck_assert_int_eq(append_seq(1000, 77, 0), RING_OK); /* not published: dies with its producer */
		attach_producer();
		push(seq + 1000, 10);
		pull(seq, 100); /* not released: comes again */
		attach_consumer();
		pull_release(seq, 100);
		pull_release(seq + 1000, 10);
	}
}
END_TEST

START_TEST(cursors_may_overflow)
{
	uint64_t start = UINT64_C(0) - 3 * SIZE;
	rig->producer_words.tail = start;
	rig->consumer_words.head = start;
	attach_producer();
	attach_consumer();
	for (uint64_t seq = 0; seq < 100; seq++) {
		push(seq, 900);
		push(seq, 9);
		pull_release(seq, 900);
		pull_release(seq, 9);
	}
	ck_assert_uint_lt(rig->consumer_words.head, start);
}
END_TEST

START_TEST(own_words_are_never_read_back)
{
	push(1, 100);
	rig->producer_words.tail = 12345;
	rig->consumer_words.head = 0;
	push(2, 100);
	pull_release(1, 100);
	rig->consumer_words.head = 54321;
	pull_release(2, 100);
	ck_assert_uint_eq(ring_producer_fill(&producer), 0);
}
END_TEST

START_TEST(kinds_have_names)
{
	ck_assert_str_eq(frame_kind_name(FRAME_PAD), "PAD");
	ck_assert_str_eq(frame_kind_name(FRAME_REFUSAL), "REFUSAL");
	ck_assert_str_eq(frame_kind_name(FRAME_KIND_COUNT), "?");
}
END_TEST

/* ---- Our own mistakes abort -------------------------------------------------------------------------------------- */

START_TEST(reserving_more_than_a_frame_aborts)
{
	reserve(ring_payload_max(SIZE) + 1);
}
END_TEST

START_TEST(appending_without_a_reservation_aborts)
{
	push(1, 1);
	ring_append(&producer, (struct frame){.kind = FRAME_MESSAGE}, 0);
}
END_TEST

START_TEST(appending_more_than_was_reserved_aborts)
{
	reserve(32);
	ring_append(&producer, (struct frame){.kind = FRAME_MESSAGE}, 33);
}
END_TEST

START_TEST(releasing_what_was_not_read_aborts)
{
	push(1, 1);
	ring_release(&consumer, 64);
}
END_TEST

START_TEST(a_ring_of_an_odd_size_aborts)
{
	ring_consumer_init(&consumer, &rig->consumer_words, &rig->producer_words, rig->data, SIZE - 32);
}
END_TEST

/* ---- A peer that lies -------------------------------------------------------------------------------------------- */

/* What is added to the peer's cursor: to a tail at 2,048 when the head is at 1,024 and all is read; to a head at 1,024
 * when the tail is at 5,120, one ring ahead. */
static const int64_t false_tails[] = {1, 31, -32, -1024, -2048, 3104, 4096, 1 << 20, INT64_MIN};
static const int64_t false_heads[] = {1, 31, 4128, 8192, -32, -1024, -4096, 1 << 20, INT64_MIN};

/* A ring where both sides have been through something: the consumer has read and released up to 1,024. */
static void prepare_for_lies(void)
{
	for (uint64_t seq = 0; seq < 4; seq++)
		push(seq, 480);
	pull_release(0, 480);
	pull_release(1, 480);
}

START_TEST(a_tail_that_cannot_be_true_is_damage)
{
	prepare_for_lies();
	pull(2, 480);
	pull(3, 480); /* read up to the tail, so the next peek looks at it */
	atomic_fetch_add(&rig->producer_words.tail, (uint64_t)false_tails[_i]);
	ck_assert_int_eq(peek(), RING_DAMAGED);
	rig->producer_words.tail = 2048;
	ck_assert_int_eq(peek(), RING_DAMAGED); /* for good */
}
END_TEST

START_TEST(a_tail_that_can_be_true_is_none)
{
	prepare_for_lies();
	pull(2, 480);
	pull(3, 480);
	rig->producer_words.tail += 1024 + 2048; /* one ring beyond the head; the header there is old and sound */
	struct frame header = {.kind = FRAME_MESSAGE, .length = 32};
	memcpy(rig->data + 2048, &header, sizeof(header));
	ck_assert_int_eq(peek(), RING_OK);
}
END_TEST

START_TEST(a_head_that_cannot_be_true_is_damage)
{
	prepare_for_lies();
	for (uint64_t seq = 4; seq < 10; seq++)
		push(seq, 480); /* full, and the producer has seen the head */
	rig->consumer_words.head += (uint64_t)false_heads[_i];
	ck_assert_int_eq(reserve(ring_payload_max(SIZE)), RING_DAMAGED);
	ck_assert(ring_wait_for_room(&producer, ring_payload_max(SIZE)));
	rig->consumer_words.head = 1024;
	ck_assert_int_eq(reserve(0), RING_DAMAGED); /* for good */
}
END_TEST

START_TEST(waiting_finds_a_false_head_too)
{
	for (uint64_t seq = 0; seq < 4; seq++)
		push(seq, ring_payload_max(SIZE));
	ck_assert_int_eq(reserve(0), RING_FULL);
	rig->consumer_words.head = UINT64_C(1) << 40;
	ck_assert(ring_wait_for_room(&producer, 0));
	ck_assert_uint_eq(rig->producer_words.wants_room, 0);
	ck_assert_int_eq(reserve(0), RING_DAMAGED);
	ck_assert_uint_eq(ring_producer_fill(&producer), SIZE);
}
END_TEST

/* Headers that cannot be true at offset 3,584 of the ring, one frame of 512 before its end, tail at the end + 512. */
static const struct {
	uint32_t length;
	uint16_t kind;
} false_headers[] = {
    {0, FRAME_MESSAGE},
    {31, FRAME_MESSAGE},
    {513, FRAME_MESSAGE},  /* over the end of the ring */
    {1025, FRAME_MESSAGE}, /* over a quarter */
    {UINT32_MAX, FRAME_MESSAGE},
    {UINT32_MAX - 30, FRAME_MESSAGE},
    {512, FRAME_KIND_COUNT},
    {512, UINT16_MAX},
    {480, FRAME_PAD}, /* a pad reaches the end */
    {544, FRAME_PAD},
    {511, FRAME_PAD},
    {0, FRAME_PAD},
};

START_TEST(a_header_that_cannot_be_true_is_damage)
{
	move_to(3584);
	push(1, 480);
	push(2, 480);
	struct frame header = header_at(3584);
	header.length = false_headers[_i].length;
	header.kind = false_headers[_i].kind;
	memcpy(rig->data + 3584, &header, sizeof(header));
	ck_assert_int_eq(peek(), RING_DAMAGED);
	header = (struct frame){.kind = FRAME_MESSAGE, .length = 512};
	memcpy(rig->data + 3584, &header, sizeof(header));
	ck_assert_int_eq(peek(), RING_DAMAGED); /* for good */
}
END_TEST

START_TEST(a_frame_over_the_tail_is_damage)
{
	push(1, 100);
	struct frame header = header_at(0);
	header.length = 161;
	memcpy(rig->data, &header, sizeof(header));
	ck_assert_int_eq(peek(), RING_DAMAGED);
}
END_TEST

START_TEST(a_pad_at_the_start_is_damage)
{
	push(1, 100);
	struct frame pad = {.kind = FRAME_PAD, .length = SIZE};
	memcpy(rig->data, &pad, sizeof(pad));
	ck_assert_int_eq(peek(), RING_DAMAGED);
}
END_TEST

START_TEST(a_pad_alone_is_emptiness)
{
	move_to(SIZE - 256);
	struct frame pad = {.kind = FRAME_PAD, .length = 256};
	memcpy(rig->data + SIZE - 256, &pad, sizeof(pad));
	rig->producer_words.tail = SIZE;
	ck_assert_int_eq(peek(), RING_EMPTY);
	ck_assert(ring_is_empty(&consumer));
}
END_TEST

/* Overwrites a random word of the producer's: the tail, or one in the ring. */
static void damage_something(void)
{
	uint64_t word = next_random() % 3 == 0 ? next_random() : next_random() % (2 * SIZE);
	if (next_random() % 4 == 0)
		rig->producer_words.tail = word;
	else
		memcpy(rig->data + next_random() % (SIZE / 8) * 8, &word, sizeof(word));
}

START_TEST(no_damage_leads_outside_the_ring)
{
	unsigned found = 0;
	for (int round = 0; round < 20000; round++) {
		rig->producer_words = (struct ring_producer_words){0};
		rig->consumer_words = (struct ring_consumer_words){0};
		attach_producer();
		attach_consumer();
		for (uint64_t seq = 0; append_seq(seq, next_random() % 200, 0) == RING_OK; seq++)
			ring_publish(&producer);
		struct frame header;
		const uint8_t *payload;
		enum ring_result result;
		for (int i = 0; i < 300 && (result = ring_peek(&consumer, &header, &payload)) == RING_OK; i++) {
			uint64_t length = header.length - sizeof(header);
			ck_assert(payload >= rig->data && payload + length <= rig->data + SIZE);
			ck_assert(length <= ring_payload_max(SIZE) && header.kind < FRAME_KIND_COUNT);
			ring_release(&consumer, ring_advance(&consumer, &header));
			damage_something();
		}
		found += result == RING_DAMAGED;
	}
	ck_assert_uint_gt(found, 1000);
}
END_TEST

/* ---- Two threads ------------------------------------------------------------------------------------------------- */

/* Reserves the frame of a seq, sleeping as R6 says while there is no room. */
static void append_or_sleep(uint64_t seq, uint64_t length)
{
	while (append_seq(seq, length, 0) == RING_FULL) {
		/* What is appended must be seen, or the consumer would sleep for it while we sleep for room. */
		if (ring_publish(&producer) && ready_set(&rig->ready, 0) && atomic_load(&rig->sleeps))
			sem_post(&rig->data_bell);
		if (!ring_wait_for_room(&producer, length))
			sem_wait(&rig->room_bell);
	}
}

/* How many frames go from thread to thread; a larger ring has larger ones. */
static uint64_t thread_frames(void)
{
	return ring_size > 1 << 14 ? THREAD_FRAMES / 20 : THREAD_FRAMES;
}

/* Sends all frames, publishing after a random number of them. */
static void *produce(void *unused)
{
	uint64_t scrambled = 1;
	for (uint64_t seq = 0, frames = thread_frames(); seq < frames; seq++) {
		append_or_sleep(seq, length_of(seq));
		scrambled = scrambled * UINT64_C(6364136223846793005) + 1442695040888963407;
		if (scrambled >> 62 != 0 && seq + 1 < frames)
			continue;
		if (ring_publish(&producer) && ready_set(&rig->ready, 0) && atomic_load(&rig->sleeps))
			sem_post(&rig->data_bell);
	}
	return unused;
}

/* Sleeps until there may be data, unless there is: the consumer's half of the handshake. */
static void sleep_for_data(void)
{
	atomic_store(&rig->sleeps, 1);
	if (ready_take(&rig->ready) == 0)
		sem_wait(&rig->data_bell);
	atomic_store(&rig->sleeps, 0);
}

/* Takes all there is, and releases it in pieces; the first seq that was wrong, or the next one expected. */
static uint64_t take_all(uint64_t seq, bool *wrong)
{
	struct frame header;
	const uint8_t *payload;
	uint64_t cursor = consumer.released;
	enum ring_result result;
	while ((result = ring_peek(&consumer, &header, &payload)) == RING_OK) {
		if (!is_frame_of(&header, payload, seq, length_of(seq))) {
			*wrong = true;
			return seq;
		}
		cursor = ring_advance(&consumer, &header);
		if (seq++ % 3 == 0 && ring_release(&consumer, cursor))
			sem_post(&rig->room_bell);
	}
	*wrong |= result == RING_DAMAGED;
	if (ring_release(&consumer, cursor))
		sem_post(&rig->room_bell);
	return seq;
}

START_TEST(two_threads_lose_and_tear_nothing)
{
	sem_init(&rig->data_bell, 0, 0);
	sem_init(&rig->room_bell, 0, 0);
	pthread_t thread;
	ck_assert_int_eq(pthread_create(&thread, NULL, produce, NULL), 0);
	bool wrong = false;
	uint64_t seq = 0;
	while (seq < thread_frames() && !wrong) {
		uint64_t before = seq;
		ready_take(&rig->ready);
		seq = take_all(seq, &wrong);
		if (seq == before && !wrong)
			sleep_for_data();
	}
	ck_assert_msg(!wrong, "frame %llu is not as it was sent", (unsigned long long)seq);
	pthread_join(thread, NULL);
	ck_assert_int_eq(peek(), RING_EMPTY);
}
END_TEST

/* ---- Two processes, one of them killed --------------------------------------------------------------------------- */

enum { KILLS = 250, RELEASE_BATCH = 8 };

/* Forks a child that runs `life` until it is killed. */
static pid_t start(void (*life)(void))
{
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		life();
		_exit(1);
	}
	return pid;
}

/* Kills a child and reaps it: anything but a death by SIGKILL means that it had found something wrong. */
static void end(pid_t pid)
{
	int status;
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child ended by itself: %x",
		      (unsigned)status);
}

/* A producer's life: frames from next_seq on, published in runs. */
static void produce_for_ever(void)
{
	attach_producer();
	for (uint64_t seq = rig->next_seq;; seq++) {
		enum ring_result result;
		while ((result = append_seq(seq, length_of(seq), 0)) == RING_FULL) {
			ring_publish(&producer);
			sched_yield();
		}
		if (result != RING_OK)
			return;
		if (seq % 5 == 0)
			ring_publish(&producer);
	}
}

/* Takes up to `most` frames; how many there were. */
static uint64_t take_some(uint64_t most)
{
	struct frame header;
	const uint8_t *payload;
	uint64_t taken = 0;
	enum ring_result result = RING_OK;
	while (taken < most && (result = ring_peek(&consumer, &header, &payload)) == RING_OK) {
		uint64_t seq = rig->next_seq;
		ck_assert_msg(is_frame_of(&header, payload, seq, length_of(seq)), "frame %llu is torn or out of order",
			      (unsigned long long)seq);
		rig->next_seq = seq + 1;
		ring_release(&consumer, ring_advance(&consumer, &header));
		taken++;
	}
	ck_assert_int_ne(result, RING_DAMAGED);
	return taken;
}

START_TEST(a_killed_producer_leaves_whole_frames)
{
	for (int i = 0; i < KILLS; i++) {
		pid_t pid = start(produce_for_ever);
		uint64_t wanted = 1 + next_random() % 2000, taken = 0;
		while (taken < wanted) {
			uint64_t now = take_some(wanted - taken);
			taken += now;
			if (now == 0)
				sched_yield();
		}
		for (uint64_t spin = next_random() % 5000; spin > 0; spin--)
			atomic_signal_fence(memory_order_seq_cst);
		end(pid);
		take_some(UINT64_MAX); /* the next one counts on from here */
	}
}
END_TEST

/* A consumer's life: checks that frames go on from one that was not yet released, in order, and releases in batches. */
static void consume_for_ever(void)
{
	struct frame header;
	const uint8_t *payload;
	attach_consumer();
	uint64_t done = rig->next_seq;
	for (bool first = true;;) {
		enum ring_result result = ring_peek(&consumer, &header, &payload);
		if (result == RING_EMPTY) {
			sched_yield();
			continue;
		}
		if (result != RING_OK || header.seq > done || header.seq + RELEASE_BATCH < done)
			return;
		if (!is_frame_of(&header, payload, header.seq, length_of(header.seq)) || (!first && header.seq != done))
			return;
		first = false;
		done = header.seq + 1;
		if (rig->next_seq < done)
			rig->next_seq = done; /* seen by the next life, before the release */
		uint64_t cursor = ring_advance(&consumer, &header);
		if (done % RELEASE_BATCH == 0)
			ring_release(&consumer, cursor);
		rig->first_seq = header.seq + 1;
	}
}

START_TEST(a_killed_consumer_loses_nothing)
{
	uint64_t seq = 0;
	for (int i = 0; i < KILLS; i++) {
		rig->first_seq = 0;
		pid_t pid = start(consume_for_ever);
		uint64_t wanted = next_random() % 2000;
		/* Go on until the child lives and so many more frames have gone out. */
		while (rig->first_seq == 0 || wanted > 0) {
			enum ring_result result = append_seq(seq, length_of(seq), 0);
			ck_assert_int_ne(result, RING_DAMAGED);
			if (result == RING_OK && ring_publish(&producer)) {
				seq++;
				wanted -= wanted > 0;
				continue;
			}
			ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
			sched_yield();
		}
		end(pid);
	}
	attach_consumer(); /* what is left is whole and goes up to the last one sent */
	struct frame header;
	const uint8_t *payload;
	uint64_t last = seq;
	while (ring_peek(&consumer, &header, &payload) == RING_OK) {
		ck_assert(is_frame_of(&header, payload, header.seq, length_of(header.seq)));
		last = header.seq + 1;
		ring_advance(&consumer, &header);
	}
	ck_assert_uint_eq(last, seq);
}
END_TEST

/* ---- Suite ------------------------------------------------------------------------------------------------------- */

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* The tests in one thread: what a ring does. */
static TCase *single_step_case(void)
{
	TCase *tests = tcase_create("single step");
	tcase_add_checked_fixture(tests, setup_small, teardown);
	tcase_add_test(tests, a_new_ring_is_empty);
	tcase_add_test(tests, an_appended_frame_is_invisible_until_published);
	tcase_add_test(tests, a_header_arrives_as_it_was_given);
	tcase_add_test(tests, every_length_up_to_the_largest_passes);
	tcase_add_test(tests, largest_frames_fill_the_ring_exactly);
	tcase_add_test(tests, smallest_frames_fill_the_ring_exactly);
	tcase_add_test(tests, a_frame_that_ends_at_the_end_needs_no_pad);
	tcase_add_test(tests, a_frame_that_crosses_the_end_is_preceded_by_a_pad);
	tcase_add_test(tests, a_pad_may_be_one_header_long);
	tcase_add_test(tests, the_largest_frame_fits_an_empty_ring_from_everywhere);
	tcase_add_test(tests, room_counts_the_pad);
	tcase_add_test(tests, less_may_be_used_than_was_reserved);
	tcase_add_test(tests, a_reservation_may_be_made_again);
	tcase_add_test(tests, rollback_forgets_what_was_not_published);
	tcase_add_test(tests, a_successor_resumes_at_a_cursor);
	tcase_add_test(tests, what_was_read_can_be_read_again);
	tcase_add_test(tests, room_can_be_asked_for);
	tcase_add_test(tests, frames_are_released_in_pieces);
	tcase_add_test(tests, waiting_for_room_is_announced_and_taken_back);
	tcase_add_test(tests, waiting_ends_at_once_when_there_is_room_after_all);
	tcase_add_test(tests, a_frame_too_large_for_the_room_goes_on_waiting);
	tcase_add_test(tests, a_successor_takes_its_predecessors_announcement_back);
	tcase_add_test(tests, successors_go_on_where_the_words_are);
	tcase_add_test(tests, cursors_may_overflow);
	tcase_add_test(tests, own_words_are_never_read_back);
	tcase_add_test(tests, kinds_have_names);
	return tests;
}

/* The tests of laps that end before the ring does. */
static TCase *laps_case(void)
{
	TCase *tests = tcase_create("laps");
	tcase_add_checked_fixture(tests, setup_lapped, teardown);
	tcase_add_test(tests, a_ring_that_is_kept_empty_uses_its_first_part_only);
	tcase_add_test(tests, so_does_one_that_is_kept_empty_of_large_frames);
	tcase_add_test(tests, a_ring_whose_consumer_lags_is_used_to_its_end);
	tcase_add_test(tests, a_pad_that_ends_a_lap_is_not_counted_as_fill);
	tcase_add_test(tests, a_head_that_cannot_be_true_is_found_at_a_laps_end_too);
	return tests;
}

/* Our mistakes and the peer's lies. */
static TCase *damage_case(void)
{
	TCase *tests = tcase_create("damage");
	tcase_add_checked_fixture(tests, setup_small, teardown);
	tcase_add_test_raise_signal(tests, reserving_more_than_a_frame_aborts, SIGABRT);
	tcase_add_test_raise_signal(tests, appending_without_a_reservation_aborts, SIGABRT);
	tcase_add_test_raise_signal(tests, appending_more_than_was_reserved_aborts, SIGABRT);
	tcase_add_test_raise_signal(tests, releasing_what_was_not_read_aborts, SIGABRT);
	tcase_add_test_raise_signal(tests, a_ring_of_an_odd_size_aborts, SIGABRT);
	tcase_add_loop_test(tests, a_tail_that_cannot_be_true_is_damage, 0, COUNT(false_tails));
	tcase_add_test(tests, a_tail_that_can_be_true_is_none);
	tcase_add_loop_test(tests, a_head_that_cannot_be_true_is_damage, 0, COUNT(false_heads));
	tcase_add_test(tests, waiting_finds_a_false_head_too);
	tcase_add_loop_test(tests, a_header_that_cannot_be_true_is_damage, 0, COUNT(false_headers));
	tcase_add_test(tests, a_frame_over_the_tail_is_damage);
	tcase_add_test(tests, a_pad_at_the_start_is_damage);
	tcase_add_test(tests, a_pad_alone_is_emptiness);
	tcase_add_test(tests, no_damage_leads_outside_the_ring);
	return tests;
}

/* The tests with two sides, on the ring that `setup` makes. */
static TCase *sides_case(const char *name, void (*setup)(void))
{
	TCase *tests = tcase_create(name);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, two_threads_lose_and_tear_nothing);
	tcase_add_test(tests, a_killed_producer_leaves_whole_frames);
	tcase_add_test(tests, a_killed_consumer_loses_nothing);
	return tests;
}

static Suite *ring_suite(void)
{
	Suite *suite = suite_create("ring");
	suite_add_tcase(suite, single_step_case());
	suite_add_tcase(suite, laps_case());
	suite_add_tcase(suite, damage_case());
	suite_add_tcase(suite, sides_case("two sides", setup_large));
	suite_add_tcase(suite, sides_case("two sides, laps that end early", setup_lapped));
	return suite;
}

CHECK_MAIN(ring_suite)
