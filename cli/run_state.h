/*
 * The state of sessions, between the sidecar and the checkpoint file: StateDelta in, RestoreChunk out.
 *
 *   Open (which checkpoint, which states) --> OpenAck (which states the code has) --> RestoreChunk ... RestoreEnd --> RestoreAck
 *   StateDelta ... BarrierAck                                      each entry goes to the file's open transaction at once
 *
 * A stage's sessions share what they remember; a session gets the part of its key groups, and its share of lists without keys.
 * A value larger than a message comes and goes in parts and stands in the file as a whole.
 */
#ifndef CLI_RUN_STATE_H
#define CLI_RUN_STATE_H

#include <grpc/slice.h>
#include <stdbool.h>
#include <stdint.h>

#include "flink_bridge.pb-c.h"
#include "shared/wire.h"

struct store_cursor;
struct store_state;
struct subtask;

/* What a stage's sessions remember. */
struct stage_state {
	const struct store_state *before; /* the states in the checkpoint that is gone on from */
	uint32_t before_count, parallelism_before;
	struct wire_declaration *declared; /* the states of the code that runs, as its first session named them */
	uint32_t declared_count;
	bool is_declared;
	int64_t *ids;  /* of `declared`, in the file */
	uint8_t *text; /* what `declared` points into */
};

/* State on its way in or out of one session. */
struct subtask_state_flow {
	/* Out, while it is restored. */
	struct store_cursor *cursor;
	struct wire_entry entry; /* the next one to be sent */
	uint64_t sent;           /* bytes of its value that were */
	bool has_entry;
	uint64_t entries;
	grpc_slice message; /* the stream had no room for it yet */
	bool has_message;
	uint8_t *buffer;
	/* In: the entry of which more parts are to come. */
	struct wire_entry part;
	uint8_t *bytes; /* its key, sub key and value so far */
	size_t size, capacity;
};

void stage_state_free(struct stage_state *state);

/* Adds to an Open what it says about state; frees that once the Open is packed. */
void subtask_state_opening(struct subtask *subtask, FlinkBridge__Open *open);
void subtask_state_opened(FlinkBridge__Open *open);

/* Takes what OpenAck says about state over, and starts sending the session's state. Whether there is any to be sent: the session
 * runs once that is acknowledged. */
bool subtask_state_begin(struct subtask *subtask, const FlinkBridge__OpenAck *ack);

/* Goes on sending: the stream has room again. */
void subtask_state_send(struct subtask *subtask);

/* A RestoreAck: the session runs. */
void subtask_state_restored(struct subtask *subtask, struct view body);

/* A StateDelta. Without --checkpoint nobody keeps it. */
void subtask_state_delta(struct subtask *subtask, struct view body);

/* Lets go of what it holds. */
void subtask_state_close(struct subtask *subtask);

#endif
