/*
 * A single-producer single-consumer ring of frames in shared memory.
 *
 *      head (consumer)            tail (producer)
 *        v                          v
 *   ....|frame|frame|frame|PAD......|........        cursors count bytes and never wrap; position = cursor % size
 *
 * Invariants
 *  R1  Each cursor has one writer: tail the producer, head the consumer. They sit on cache lines of their own.
 *  R2  A frame is written whole before the tail passes it (release); the consumer reads the tail (acquire) first.
 *  R3  The head passes a frame only when nobody reads it any more (release); the producer reads the head (acquire)
 *      before it writes there again.
 *  R4  A frame is contiguous; one that does not fit before the end is preceded by a PAD that reaches the end. The producer
 *      may put a PAD anywhere if the frame behind it has room.
 *  R5  Nothing that the other side wrote is believed: cursor and header are copied, then checked; what fails the
 *      check is RING_DAMAGED, and the owner of the channel gives the slot up.
 *  R6  A side that found the ring full (empty) and is about to wait says so in its flag and looks once more
 *      (sequentially consistent, both); the other side that makes room (data) sees the flag and rings.
 *
 * The handles are process-local; they hold the side's own position and the last seen cursor of the peer, so that a
 * hot loop touches the peer's cache line only when it runs out.
 */
#ifndef SHARED_RING_H
#define SHARED_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/frame.h"

enum { RING_LINE = 128 }; /* two cache lines: neighbours are prefetched in pairs */

/* A ring's size is a power of two from 4 KiB up to this. */
#define RING_SIZE_MAX (UINT64_C(1) << 31)

/* Written by the producer alone. */
struct ring_producer_words {
	_Alignas(RING_LINE) _Atomic uint64_t tail; /* bytes published; release, pairs with ring_peek */
	_Atomic uint32_t wants_room;               /* 1: found it full and waits; pairs with ring_release */
};

/* Written by the consumer alone. */
struct ring_consumer_words {
	_Alignas(RING_LINE) _Atomic uint64_t head; /* bytes given back; release, pairs with ring_reserve */
};

enum ring_result {
	RING_OK,
	RING_FULL,    /* reserve: no room now */
	RING_EMPTY,   /* peek: nothing published beyond the position */
	RING_DAMAGED, /* the peer's cursor or a header cannot be true */
};

/* ---- Producer API: the producing process, one thread ---- */

struct ring_producer {
	struct ring_producer_words *own;
	const struct ring_consumer_words *peer;
	uint8_t *data;
	uint64_t size;         /* bytes, a power of two */
	uint64_t position;     /* where the next frame goes; at or beyond published */
	uint64_t published;    /* our tail; the shared word is never read back (R5) */
	uint64_t peer_head;    /* as last seen and checked; never more than size behind position */
	uint64_t reserved;     /* where the reserved frame starts (after a PAD, if one is needed) */
	uint64_t reserved_end; /* where its room ends; at reserved: there is none */
	uint64_t looked;       /* where the position was when the head was last looked at for a new lap */
	bool waiting;          /* wants_room is set */
	bool damaged;          /* the consumer's head could not be true; stays so */
};

/* Attaches to a ring of `size` bytes and takes its position from its own tail. */
void ring_producer_init(struct ring_producer *producer, struct ring_producer_words *own,
			const struct ring_consumer_words *peer, void *data, uint64_t size);

/* Goes on, after ring_producer_init, where a predecessor that died had got to as its own records have it, whatever the shared tail
 * says: frames before `cursor` become visible, what stands behind it was never there. */
void ring_producer_resume(struct ring_producer *producer, uint64_t cursor);

/* Finds room for a frame of up to `payload_max` bytes: on RING_OK *payload points to that many contiguous bytes.
 * May be called again without appending; `payload_max` may not exceed ring_payload_max(). Success takes an announcement
 * of ring_wait_for_room back: so of several frames that wait for one ring the one that announced goes first. */
enum ring_result ring_reserve(struct ring_producer *producer, uint64_t payload_max, uint8_t **payload);

/* Completes the reserved frame with the payload bytes really used (at most those reserved) and the header's other
 * fields; header->length is set here. The frame stays invisible until ring_publish. */
void ring_append(struct ring_producer *producer, struct frame header, uint64_t payload_used);

/* Makes all appended frames visible by one store of the tail. Returns whether there were any. */
bool ring_publish(struct ring_producer *producer);

/* Forgets frames appended since the last publish. */
void ring_rollback(struct ring_producer *producer);

/* Whether a frame of up to `payload_max` bytes would find room now. Reserves nothing. */
bool ring_has_room(struct ring_producer *producer, uint64_t payload_max);

/* Announces that the producer waits for room (publish first: the consumer gives back only what it can see), and looks
 * once more: true when there is room now after all, and the announcement is taken back; or when the head could not be
 * true, which ring_reserve then says. */
bool ring_wait_for_room(struct ring_producer *producer, uint64_t payload_max);

/* Bytes between head and tail, as of now; for gauges and for tests of emptiness. */
uint64_t ring_producer_fill(struct ring_producer *producer);

/* ---- Consumer API: the consuming process, one thread ---- */

struct ring_consumer {
	struct ring_consumer_words *own;
	struct ring_producer_words *peer;
	const uint8_t *data;
	uint64_t size;
	uint64_t position;  /* of the next frame to read; at or beyond released */
	uint64_t released;  /* our head; the shared word is never read back (R5) */
	uint64_t peer_tail; /* as last seen and checked */
	bool damaged;       /* the producer's tail or a header could not be true; stays so */
};

/* Attaches to a ring and takes its position from its own head. */
void ring_consumer_init(struct ring_consumer *consumer, struct ring_consumer_words *own,
			struct ring_producer_words *peer, const void *data, uint64_t size);

/* Goes on, after ring_consumer_init, where a predecessor that died had got to: what stands before `cursor` is given back. */
void ring_consumer_resume(struct ring_consumer *consumer, uint64_t cursor);

/* Goes back to a cursor that ring_advance returned, or that the consumer began with, and that has not been passed by a release. */
void ring_rewind(struct ring_consumer *consumer, uint64_t cursor);

/* Looks at the next frame: on RING_OK *header is a checked copy and *payload points into the ring (valid until
 * released). Skips PADs. Does not move on. */
enum ring_result ring_peek(struct ring_consumer *consumer, struct frame *header, const uint8_t **payload);

/* Moves past the frame last peeked; its bytes stay valid until they are released. Returns the cursor behind it. */
uint64_t ring_advance(struct ring_consumer *consumer, const struct frame *header);

/* Gives all bytes before `cursor` back to the producer. Returns true when the producer waits for room: ring its
 * doorbell then. */
bool ring_release(struct ring_consumer *consumer, uint64_t cursor);

/* Whether the producer has published nothing beyond the position (reads the shared tail). A tail that cannot be true
 * is no emptiness: ring_peek then says what it is. */
bool ring_is_empty(struct ring_consumer *consumer);

/* ---- Both ---- */

/* Bytes between two cursors of a ring of `size` bytes, at most `size` apart, without the PAD that may lie between them as far
 * as that can be told; for gauges. */
uint64_t ring_bytes_between(uint64_t from, uint64_t to, uint64_t size);

/* The largest payload that a ring of `size` bytes carries: a quarter of it less the header. */
static inline uint64_t ring_payload_max(uint64_t size)
{
	return size / 4 - sizeof(struct frame);
}

#endif
