/*
 * Where a channel's session stands: the words that the arena keeps for it (arena_session), its truth across workers.
 *
 * A unit works on a copy in process memory and stores it as a whole when it commits; a unit that is given up copies it back from
 * the arena. So all that must be the same after a takeover stands here, and nothing that stands here lives anywhere else.
 *
 *    consumed                 produced
 *       v                        v
 *   ...|frame at hand|...    ...|answers of the unit at hand, not visible|
 *   request ring              response ring
 */
#ifndef WORKER_POSITION_H
#define WORKER_POSITION_H

#include "worker/blame.h"
#include "worker/outbox.h"
#include "worker/snapshot.h"

/* What the message that stands first in the request ring has come to. */
enum session_phase {
	PHASE_NEXT, /* nothing of it is done */
	PHASE_BATCH, /* a Batch: `done` records in `offset` bytes are done; when that is all, changed state is left to send */
	PHASE_RELEASE, /* a Watermark, TimerTick or EndInput: it is taken, `done` units of timers have fired, and some are left, or changed state to send */
	PHASE_STATE,   /* a Barrier: changed state is left to send; or a RestoreChunk: as `snapshot` says */
};

struct session_position {
	uint32_t epoch; /* of the session, or of the unary channel; 0: there is none */
	uint32_t stale; /* an epoch of a life before, never to be served; it outlives the session */
	uint32_t segment;
	uint8_t opened;          /* an Open was taken; `segment` and the key groups hold */
	uint8_t ended;           /* an EndInput was taken */
	uint8_t finished;        /* END was written: frames are dropped until the channel closes */
	uint8_t surplus;         /* outputs of the unit at hand that find no room in the ring go to the outbox */
	uint64_t seq;            /* of the last message done */
	int64_t watermark;       /* ms; INT64_MIN before the first */
	int64_t processing_time; /* ms; 0 before the first message */
	int64_t next_wakeup;     /* ms, as last told to the client; 0: none */
	uint32_t key_group_first, key_group_last, max_parallelism;

	uint64_t consumed; /* request ring: all before it is done with */
	uint64_t produced; /* response ring: all before it is written and committed */

	/* The message at hand. */
	uint32_t phase; /* enum session_phase */
	uint32_t done;
	uint64_t offset;

	uint32_t limit;       /* records or timers that a unit may have; 0: as many as is good */
	arena_ref watermarks; /* unary channel: a block of each segment's words (worker/unary_words.h); 0: none yet */
	struct outbox outbox;
	struct snapshot_words snapshot;
	struct suspect suspect;
	arena_ref errors; /* what is known of failures (worker/errors.h); 0: nothing */
};

_Static_assert(sizeof(struct session_position) <= ARENA_SESSION_OWN, "a session's words have room for its position");

#endif
