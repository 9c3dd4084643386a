/*
 * Fuzz target: one end of a ring whose other end lies. An input is a script: what the liar stores in its cursor, its flag
 * and the ring's bytes, in between what the honest end does. It may never read or write outside the ring, hand out a frame
 * that is none, or trust a cursor that cannot be true; where it does, ASan or a CHECK ends the process.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "shared/ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RING = 4096, STEPS_MAX = 512 };

/* The script, read from front to back; zeros behind its end. */
struct script {
	const uint8_t *at, *end;
};

static uint64_t script_number(struct script *script, unsigned bytes)
{
	uint64_t number = 0;
	for (unsigned i = 0; i < bytes && script->at < script->end; i++)
		number |= (uint64_t)*script->at++ << (8 * i);
	return number;
}

/* A cursor as a liar would choose it: anything, or something near the truth. */
static uint64_t script_cursor(struct script *script, uint64_t near)
{
	uint64_t wild = script_number(script, 1);
	return (wild & 1) != 0 ? script_number(script, 8)
			       : near + script_number(script, 2) * ((wild & 2) != 0 ? 1 : FRAME_ALIGN);
}

/* Bytes of the script over bytes of the ring. */
static void script_overwrite(struct script *script, uint8_t *ring)
{
	uint64_t where = script_number(script, 2) % RING;
	uint64_t count = script_number(script, 1);
	for (uint64_t i = 0; i < count && where + i < RING; i++)
		ring[where + i] = (uint8_t)script_number(script, 1);
}

/* A frame as the other end would write it, or nearly so: `at` is a cursor, the length comes from the script. */
static void script_frame(struct script *script, uint8_t *ring, uint64_t at)
{
	struct frame header = {.length = (uint32_t)script_number(script, 2),
			       .kind = (uint16_t)script_number(script, 1)};
	memcpy(ring + (at & (RING - 1) & ~(uint64_t)(FRAME_ALIGN - 1)), &header, sizeof(header));
}

/* The consumer takes what it is given. */
static void consume(struct ring_consumer *consumer, uint8_t *ring, bool release)
{
	struct frame header;
	const uint8_t *payload;
	if (ring_peek(consumer, &header, &payload) != RING_OK)
		return;
	CHECK(header.length >= sizeof(header) && header.length <= RING / 4);
	CHECK(header.kind != FRAME_PAD && header.kind < FRAME_KIND_COUNT);
	size_t size = header.length - sizeof(header);
	CHECK(payload >= ring + sizeof(header) && payload + size <= ring + RING);
	uint8_t copy[RING / 4];
	memcpy(copy, payload, size); /* reads all of it */
	CHECK(memcmp(copy, payload, size) == 0);
	uint64_t cursor = ring_advance(consumer, &header);
	if (release)
		ring_release(consumer, cursor);
}

static void fuzz_consumer(struct script *script, uint8_t *ring)
{
	struct ring_producer_words liar = {0};
	struct ring_consumer_words own = {0};
	struct ring_consumer consumer;
	uint64_t start = script_cursor(script, 0);
	atomic_store(&own.head, start);
	atomic_store(&liar.tail, start);
	ring_consumer_init(&consumer, &own, &liar, ring, RING);
	for (int step = 0; step < STEPS_MAX && script->at < script->end; step++) {
		switch (script_number(script, 1) % 8) {
		case 0:
			atomic_store(&liar.tail, script_cursor(script, consumer.position));
			break;
		case 1:
			script_overwrite(script, ring);
			break;
		case 2:
			script_frame(script, ring, consumer.position);
			break;
		case 3:
			atomic_store(&liar.wants_room, (uint32_t)script_number(script, 1));
			break;
		case 4:
			ring_release(&consumer, consumer.position);
			break;
		case 5:
			ring_is_empty(&consumer);
			break;
		default:
			consume(&consumer, ring, script_number(script, 1) & 1);
		}
		CHECK(consumer.position - consumer.released <= RING);
	}
}

/* The producer writes a frame, if it gets room. */
static void produce(struct ring_producer *producer, uint8_t *ring, struct script *script)
{
	uint64_t wanted = script_number(script, 2) % (ring_payload_max(RING) + 1);
	uint8_t *payload;
	if (ring_reserve(producer, wanted, &payload) != RING_OK)
		return;
	CHECK(payload >= ring + sizeof(struct frame) && payload + wanted <= ring + RING);
	memset(payload, 'x', wanted);
	uint64_t used = script_number(script, 2) % (wanted + 1);
	ring_append(producer, (struct frame){.kind = FRAME_ANSWER}, used);
}

static void fuzz_producer(struct script *script, uint8_t *ring)
{
	struct ring_producer_words own = {0};
	struct ring_consumer_words liar = {0};
	struct ring_producer producer;
	uint64_t start = script_cursor(script, 0);
	atomic_store(&own.tail, start);
	atomic_store(&liar.head, start);
	ring_producer_init(&producer, &own, &liar, ring, RING);
	for (int step = 0; step < STEPS_MAX && script->at < script->end; step++) {
		switch (script_number(script, 1) % 8) {
		case 0:
			atomic_store(&liar.head, script_cursor(script, producer.peer_head));
			break;
		case 1:
			script_overwrite(script, ring);
			break;
		case 2:
			ring_rollback(&producer);
			break;
		case 3:
			ring_wait_for_room(&producer, script_number(script, 2) % (ring_payload_max(RING) + 1));
			break;
		case 4:
			ring_publish(&producer);
			break;
		case 5:
			CHECK(ring_producer_fill(&producer) <= RING);
			break;
		default:
			produce(&producer, ring, script);
		}
		CHECK(producer.position - producer.peer_head <= RING);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script script = {data, data + size};
	uint8_t *ring = calloc(1, RING);
	CHECK(ring != NULL);
	if (script_number(&script, 1) & 1)
		fuzz_producer(&script, ring);
	else
		fuzz_consumer(&script, ring);
	free(ring);
	return 0;
}
