/*
 * The worker of a test case: a slot's real memory, and the worker's serving code over it in a process of its own, without gRPC.
 *
 *   this process, the front's side                     the worker: a fork
 *   kit_slot_send    --- request ring (shared) --->    serve_turn until nothing is left
 *   kit_slot_take    <-- response ring (shared) ---
 *   kit_slot_turn    --- a byte through a pipe ---->   begins a turn
 *                    <-- a byte ------------------     its end
 *
 * So one of the two is at work at a time, and a case runs in the same way each time. A worker that dies, by a kill of the case or by its
 * own code, is followed by another one over the same memory, which is what an heir does in a sidecar: it undoes the unit that was at
 * hand, works on carefully, and passes over what killed two of them as the pipeline says. What workers write to standard output and
 * standard error is kept in a file without a name.
 */
#ifndef CLI_KIT_SLOT_H
#define CLI_KIT_SLOT_H

#include "worker/solo.h"

enum { KIT_SESSIONS_MAX = SLOT_CHANNELS_MAX - 1, KIT_MESSAGE_MAX = 1 << 20 };

struct kit_slot {
	struct sidecar *sidecar;
	struct slot_memory front;
	struct solo_channel channels[SLOT_CHANNELS_MAX];
	uint32_t processes; /* forked so far */
	uint32_t deaths;    /* since the last turn that came to its end */
	pid_t pid;
	int pidfd, orders, replies; /* of the worker; -1: there is none */
	int log;                    /* what workers wrote */
	uint64_t patience_ms;       /* how long one turn may take */
	bool made;
	char why[SOLO_WHY_MAX]; /* it failed; "" as long as it has not */
};

/* Makes the memory, for so many sessions on channels 1 and up, and starts the first worker. `log` is a descriptor that workers write
 * to. False: `why` says what is wrong. */
bool kit_slot_make(struct kit_slot *slot, const struct descriptor *descriptor, uint32_t sessions, uint64_t patience_ms,
		   int log);

/* Kills the worker and gives the memory back. */
void kit_slot_destroy(struct kit_slot *slot);

/* Opens the channel of a segment's session. */
bool kit_slot_open(struct kit_slot *slot, uint32_t channel, uint32_t segment);

/* Puts a message into the channel's request ring; the ring is large enough for one message of KIT_MESSAGE_MAX. */
void kit_slot_send(struct kit_slot *slot, uint32_t channel, struct frame header, struct view message);

/* The next frame that the channel's session wrote, in place until it is released; false: there is none. */
bool kit_slot_take(struct kit_slot *slot, uint32_t channel, struct frame *frame, struct view *payload);
void kit_slot_release(struct kit_slot *slot, uint32_t channel, const struct frame *frame);

/* Gives the worker a turn: until it has nothing to do, or dies, in which case the next one is started. False: `why`. */
bool kit_slot_turn(struct kit_slot *slot);

/* Kills the worker and starts the next one, as if a machine had done it. False: `why`. */
bool kit_slot_restart(struct kit_slot *slot);

#endif
