/*
 * Answers of a channel: encoded straight into reserved ring memory, or, when the response ring is full, into the outbox.
 *
 *      output_records --> the Results at hand --full--> closed with more=true, the next one begun
 *                                |
 *             room in the ring? -+- yes --> frame in the ring, visible at output_publish
 *                                +- no ---> records: NO_ROOM, unless they are the surplus of a unit that cannot be made smaller
 *                                           surplus, and all other answers (they are small): frame in the outbox
 *
 * The order of answers is the order of calls, whichever way they take: nothing goes to the ring past the outbox. Whatever was
 * written since the last commit can be given up as a whole (output_rollback).
 */
#ifndef WORKER_OUTPUT_H
#define WORKER_OUTPUT_H

#include "shared/ring.h"
#include "shared/wire.h"
#include "worker/outbox.h"
#include "worker/run.h"

enum { STATUS_TEXT_MAX = 1500 }; /* bytes of words in a status or Error */

struct output {
	struct ring_producer *ring;
	struct outbox *outbox; /* among the channel's words, as the unit at hand leaves them */
	struct arena *arena;
	uint32_t channel;
	uint64_t message_max; /* bytes of one answer */
	uint64_t record_max;  /* bytes of one record */
	uint64_t room;        /* in the ring, for an answer as large as any, or for the words of a failure */
	bool surplus;         /* records that find no room in the ring go to the outbox, too */
	bool damaged;         /* the front's words cannot be true */

	/* The answer being written, if any. */
	struct frame header; /* what answers to the message at hand carry; kind and flags are set per answer */
	struct wire_writer writer;
	uint8_t *payload; /* where it begins; NULL: none is being written */
	uint8_t *results; /* Results inside it */
	uint8_t *first;   /* where its first record begins */
	uint8_t *aside;   /* the memory it is written to when that is not the ring */
};

enum output_result {
	OUTPUT_OK,
	OUTPUT_TOO_LARGE, /* a record exceeds what a record or a message may have */
	OUTPUT_NO_ROOM,   /* the ring is full; the unit is to be rolled back */
};

/* Starts with no answer at hand. The message limit is cut to what the ring carries, the record limit to what a message does.
 * Everything handed in must outlive it. */
void output_init(struct output *output, struct ring_producer *ring, struct outbox *outbox, struct arena *arena,
		 uint32_t channel, uint64_t message_max, uint64_t record_max);

/* Gives the answer being written up. */
void output_deinit(struct output *output);

/* Says which request the following answers belong to: epoch, segment and receive time of its frame, and its seq. */
void output_answer(struct output *output, const struct frame *request, uint64_t seq);

/* Appends records to the Results at hand, begins it when there is none, and splits it when it is full. `expect`: bytes that are
 * likely to follow these records in the same Results. On TOO_LARGE *size is the size of the record at fault. */
enum output_result output_records(struct output *output, const struct wire_record *records, uint32_t count,
				  uint64_t expect, uint64_t *size);

/* The same for a run, whose payloads are bytes. */
enum output_result output_run(struct output *output, const struct run *run, bool routed, uint64_t expect,
			      uint64_t *size);

/* Whether a Results has been begun and not ended. */
bool output_results_open(const struct output *output);

/* Ends the Results at hand (an empty one when there is none). `last`: nothing else answers this seq; then next_wakeup_ms goes
 * with it (0: none). */
void output_results_end(struct output *output, bool more, bool last, int64_t next_wakeup_ms);

/* Gives the answer being written up, unsent. Nothing happens when there is none. */
void output_drop(struct output *output);

/* Gives up everything that was written to the ring and not published. The outbox is the arena's to roll back. */
void output_rollback(struct output *output);

/* Begins an answer that is not Results: a writer over `size_max` bytes, and its end. */
struct wire_writer *output_begin(struct output *output, uint64_t size_max);
void output_end(struct output *output, enum frame_kind kind, bool last);

/* Bytes of a text's longest beginning of at most `limit` bytes that cuts no UTF-8 sequence. */
size_t text_cut(const char *text, size_t limit);

/* END or REFUSAL with a gRPC status code and a text (cut to fit). */
void output_status(struct output *output, enum frame_kind kind, uint32_t code, const char *text);

/* Moves a few frames from the outbox to the ring: how many. 0 with an outbox that is not empty: there is no room for the first. */
uint32_t output_flush(struct output *output);

/* Announces, when all is published, that the channel waits for room for the first frame in the outbox, or, when that is empty, for an
 * answer as large as any. True: there is room now; else the front will mark the channel ready when it has made some. */
bool output_wait_for_room(struct output *output);

/* Whether an answer as large as any would find room in the ring. */
bool output_has_room(struct output *output);

/* Whether answers wait in the outbox. */
static inline bool output_is_parked(const struct output *output)
{
	return !outbox_is_empty(output->outbox);
}

/* Makes what is in the ring visible to the front. Returns whether anything became visible. */
bool output_publish(struct output *output);

#endif
