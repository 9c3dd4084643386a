/*
 * The ring of frames: both ends. The invariants R1 to R6 stand in ring.h; comments here say where each is kept.
 *
 * Cursors count bytes for ever and are compared by subtraction, so even their overflow after 2^64 bytes is harmless. Of
 * the two cursors of a ring each side reads only the peer's out of shared memory: its own it keeps in its handle, because
 * whoever can damage the one could damage the other.
 *
 * Left out: more than one producer or consumer, waiting itself (the caller knows how it sleeps), and any system call.
 */
#include "shared/ring.h"

#include <stddef.h>
#include <string.h>

#include "shared/log.h"

enum {
	LAP_MIN = 128 << 10, /* no lap is shorter than this */
	LAP_SHARE = 4,       /* a lap ends where what is in use is so small a part of it, if the next frame fits */
	LAP_LOOK = 16 << 10, /* bytes between two looks at the head for that */
};

/* Bytes from a cursor's place to the end of the ring. */
static inline uint64_t to_end(uint64_t cursor, uint64_t size)
{
	return size - (cursor & (size - 1));
}

/* Whether a ring can have this size. */
static bool size_is_sound(uint64_t size)
{
	return size >= 4096 && (size & (size - 1)) == 0 && size <= RING_SIZE_MAX;
}

/* ---- Producer ---------------------------------------------------------------------------------------------------- */

void ring_producer_init(struct ring_producer *producer, struct ring_producer_words *own,
			const struct ring_consumer_words *peer, void *data, uint64_t size)
{
	CHECK(size_is_sound(size));
	uint64_t tail = atomic_load_explicit(&own->tail, memory_order_relaxed); /* R1: ours, or our predecessor's */
	*producer = (struct ring_producer){
	    .own = own,
	    .peer = peer,
	    .data = data,
	    .size = size,
	    .position = tail,
	    .published = tail,
	    .peer_head = tail - size, /* no room until the head has been looked at and checked */
	    .waiting = atomic_load_explicit(&own->wants_room, memory_order_relaxed) != 0,
	    .damaged = tail % FRAME_ALIGN != 0,
	};
}

void ring_producer_resume(struct ring_producer *producer, uint64_t cursor)
{
	producer->position = cursor;
	producer->published = cursor;
	producer->peer_head = cursor - producer->size;
	producer->damaged = cursor % FRAME_ALIGN != 0;
	/* R2: release, pairs with the acquire in ring_peek. */
	atomic_store_explicit(&producer->own->tail, cursor, memory_order_release);
}

/* Bytes from the position to the end of a frame of `span` bytes, the PAD that it may need included (R4). */
static inline uint64_t bytes_needed(const struct ring_producer *producer, uint64_t span)
{
	uint64_t rest = to_end(producer->position, producer->size);
	return span <= rest ? span : rest + span;
}

/* Whether so many bytes fit, by the head last seen. */
static inline bool has_room(const struct ring_producer *producer, uint64_t needed)
{
	return producer->position + needed - producer->peer_head <= producer->size;
}

/* Takes a head that was read: it lies between the one seen before and our tail, or the ring is damaged (R5). */
static bool take_head(struct ring_producer *producer, uint64_t head)
{
	uint64_t behind = producer->published - head;
	if (behind > producer->published - producer->peer_head || head % FRAME_ALIGN != 0) {
		producer->damaged = true;
		return false;
	}
	producer->peer_head = head;
	return true;
}

/* Reads the shared head. Acquire pairs with the release in ring_release: whoever read the bytes before it is done (R3). */
static uint64_t load_head(const struct ring_producer *producer, memory_order order)
{
	return atomic_load_explicit((_Atomic uint64_t *)&producer->peer->head, order);
}

/* Whether what is in use, by the head last seen, is a small part of this lap, and a frame of `span` bytes fits before it. */
static inline bool lap_is_free(const struct ring_producer *producer, uint64_t span)
{
	uint64_t place = producer->position & (producer->size - 1);
	return (producer->position - producer->peer_head) * LAP_SHARE + span <= place;
}

/* Whether to begin a new lap before the end of the ring. So one whose consumer keeps up uses its first pages again and again,
 * which both sides have in their caches; one whose consumer lags is used to its end. */
static bool lap_is_over(struct ring_producer *producer, uint64_t span)
{
	if ((producer->position & (producer->size - 1)) < LAP_MIN)
		return false;
	if (lap_is_free(producer, span))
		return true;
	if (producer->position - producer->looked < LAP_LOOK)
		return false;
	producer->looked = producer->position;
	return take_head(producer, load_head(producer, memory_order_acquire)) && lap_is_free(producer, span);
}

/* Takes the announcement of R6 back. */
static void stop_waiting(struct ring_producer *producer)
{
	producer->waiting = false;
	atomic_store_explicit(&producer->own->wants_room, 0, memory_order_relaxed);
}

enum ring_result ring_reserve(struct ring_producer *producer, uint64_t payload_max, uint8_t **payload)
{
	CHECK(payload_max <= ring_payload_max(producer->size));
	if (producer->damaged)
		return RING_DAMAGED;
	uint64_t span = frame_span(sizeof(struct frame) + payload_max);
	bool wrap = lap_is_over(producer, span);
	uint64_t needed = wrap ? to_end(producer->position, producer->size) + span : bytes_needed(producer, span);
	producer->reserved_end = producer->reserved;
	if (producer->damaged)
		return RING_DAMAGED;
	if (!has_room(producer, needed)) {
		if (!take_head(producer, load_head(producer, memory_order_acquire)))
			return RING_DAMAGED;
		if (!has_room(producer, needed))
			return RING_FULL;
	}
	if (producer->waiting)
		stop_waiting(producer);
	producer->reserved_end = producer->position + needed;
	producer->reserved = producer->reserved_end - span;
	*payload = producer->data + (producer->reserved & (producer->size - 1)) + sizeof(struct frame);
	return RING_OK;
}

/* Writes a header at a cursor's place. */
static inline void put_header(struct ring_producer *producer, uint64_t cursor, const struct frame *header)
{
	memcpy(producer->data + (cursor & (producer->size - 1)), header, sizeof(*header));
}

void ring_append(struct ring_producer *producer, struct frame header, uint64_t payload_used)
{
	uint64_t length = sizeof(struct frame) + payload_used;
	CHECK(length <= producer->reserved_end - producer->reserved);
	if (producer->reserved != producer->position) {
		struct frame pad = {.length = (uint32_t)(producer->reserved - producer->position), .kind = FRAME_PAD};
		put_header(producer, producer->position, &pad);
	}
	header.length = (uint32_t)length;
	put_header(producer, producer->reserved, &header);
	producer->position = producer->reserved + frame_span(length);
	producer->reserved_end = producer->reserved;
}

bool ring_publish(struct ring_producer *producer)
{
	if (producer->position == producer->published)
		return false;
	producer->published = producer->position;
	/* R2: release, pairs with the acquire in ring_peek. */
	atomic_store_explicit(&producer->own->tail, producer->position, memory_order_release);
	return true;
}

void ring_rollback(struct ring_producer *producer)
{
	producer->position = producer->published;
	producer->reserved_end = producer->reserved;
}

bool ring_has_room(struct ring_producer *producer, uint64_t payload_max)
{
	CHECK(payload_max <= ring_payload_max(producer->size));
	uint64_t needed = bytes_needed(producer, frame_span(sizeof(struct frame) + payload_max));
	if (has_room(producer, needed))
		return true;
	return !producer->damaged && take_head(producer, load_head(producer, memory_order_acquire)) &&
	       has_room(producer, needed);
}

bool ring_wait_for_room(struct ring_producer *producer, uint64_t payload_max)
{
	CHECK(payload_max <= ring_payload_max(producer->size));
	if (producer->damaged)
		return true;
	/* R6: store the flag, then load the head; ring_release stores the head, then loads the flag. All four are
	 * sequentially consistent, so at least one side sees what the other stored. */
	producer->waiting = true;
	atomic_store_explicit(&producer->own->wants_room, 1, memory_order_seq_cst);
	bool sound = take_head(producer, load_head(producer, memory_order_seq_cst));
	uint64_t span = frame_span(sizeof(struct frame) + payload_max);
	if (sound && !has_room(producer, bytes_needed(producer, span)))
		return false;
	stop_waiting(producer);
	return true;
}

uint64_t ring_bytes_between(uint64_t from, uint64_t to, uint64_t size)
{
	uint64_t place = from & (size - 1), rest = size - place;
	if (to - from < rest)
		return to - from;
	/* A lap that ended early was free but for a share of it, so of the rest no more than this is no pad. */
	return (rest < place / (LAP_SHARE - 1) ? rest : place / (LAP_SHARE - 1)) + (to - from - rest);
}

uint64_t ring_producer_fill(struct ring_producer *producer)
{
	uint64_t fill = producer->published - load_head(producer, memory_order_relaxed);
	return fill <= producer->size ? fill : producer->size;
}

/* ---- Consumer ---------------------------------------------------------------------------------------------------- */

void ring_consumer_init(struct ring_consumer *consumer, struct ring_consumer_words *own,
			struct ring_producer_words *peer, const void *data, uint64_t size)
{
	CHECK(size_is_sound(size));
	uint64_t head = atomic_load_explicit(&own->head, memory_order_relaxed); /* R1: ours, or our predecessor's */
	*consumer = (struct ring_consumer){
	    .own = own,
	    .peer = peer,
	    .data = data,
	    .size = size,
	    .position = head,
	    .released = head,
	    .peer_tail = head, /* nothing to read until the tail has been looked at and checked */
	    .damaged = head % FRAME_ALIGN != 0,
	};
}

void ring_consumer_resume(struct ring_consumer *consumer, uint64_t cursor)
{
	consumer->position = cursor;
	consumer->released = cursor;
	consumer->peer_tail = cursor;
	consumer->damaged = cursor % FRAME_ALIGN != 0;
	/* R3: release, pairs with the acquire in ring_reserve. */
	atomic_store_explicit(&consumer->own->head, cursor, memory_order_release);
}

void ring_rewind(struct ring_consumer *consumer, uint64_t cursor)
{
	CHECK(cursor - consumer->released <= consumer->position - consumer->released);
	consumer->position = cursor;
}

/* Notes that the producer lied. */
static enum ring_result damaged(struct ring_consumer *consumer)
{
	consumer->damaged = true;
	return RING_DAMAGED;
}

/* Reads the shared tail: it lies between our position and one ring beyond our head, or the ring is damaged (R5). */
static enum ring_result look_at_tail(struct ring_consumer *consumer)
{
	/* R2: acquire, pairs with the release in ring_publish. */
	uint64_t tail = atomic_load_explicit(&consumer->peer->tail, memory_order_acquire);
	uint64_t ahead = tail - consumer->position;
	if (ahead > consumer->size - (consumer->position - consumer->released) || tail % FRAME_ALIGN != 0)
		return damaged(consumer);
	consumer->peer_tail = tail;
	return ahead == 0 ? RING_EMPTY : RING_OK;
}

/* Whether a copied header can be true at our position: its frame ends before the tail and the ring's end (R4, R5). */
static inline bool header_is_sound(const struct ring_consumer *consumer, const struct frame *header)
{
	uint64_t rest = to_end(consumer->position, consumer->size);
	if (header->kind == FRAME_PAD ? header->length != rest : header->length > consumer->size / 4)
		return false;
	if (header->length < sizeof(*header))
		return false;
	uint64_t span = frame_span(header->length);
	return span <= rest && span <= consumer->peer_tail - consumer->position && header->kind < FRAME_KIND_COUNT;
}

enum ring_result ring_peek(struct ring_consumer *consumer, struct frame *header, const uint8_t **payload)
{
	if (consumer->damaged)
		return RING_DAMAGED;
	for (;;) {
		if (consumer->position == consumer->peer_tail) {
			enum ring_result result = look_at_tail(consumer);
			if (result != RING_OK)
				return result;
		}
		const uint8_t *frame = consumer->data + (consumer->position & (consumer->size - 1));
		memcpy(header, frame, sizeof(*header));
		/* R5: the compiler may not read the shared header again instead of the copy. */
		atomic_signal_fence(memory_order_seq_cst);
		if (!header_is_sound(consumer, header))
			return damaged(consumer);
		if (header->kind != FRAME_PAD) {
			*payload = frame + sizeof(*header);
			return RING_OK;
		}
		consumer->position += header->length;
	}
}

uint64_t ring_advance(struct ring_consumer *consumer, const struct frame *header)
{
	consumer->position += frame_span(header->length);
	CHECK(consumer->peer_tail - consumer->position <= consumer->size);
	return consumer->position;
}

bool ring_release(struct ring_consumer *consumer, uint64_t cursor)
{
	CHECK(cursor - consumer->released <= consumer->position - consumer->released);
	if (cursor == consumer->released)
		return false;
	consumer->released = cursor;
	/* R3 and R6: the store pairs with the loads in ring_reserve and ring_wait_for_room, the load with the store of
	 * the flag there. Sequentially consistent: the flag is read after the head is visible. */
	atomic_store_explicit(&consumer->own->head, cursor, memory_order_seq_cst);
	return atomic_load_explicit(&consumer->peer->wants_room, memory_order_seq_cst) != 0;
}

bool ring_is_empty(struct ring_consumer *consumer)
{
	/* Sequentially consistent: a side about to sleep says so first and then looks here. */
	return atomic_load_explicit(&consumer->peer->tail, memory_order_seq_cst) == consumer->position;
}
