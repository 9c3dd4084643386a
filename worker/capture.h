/*
 * Captures: the input that workers died of and the state that it reads, as a recording (shared/recording.h) for `bridgectl replay`.
 *
 *    Open, with the manifest --> RestoreChunk ..., RestoreEnd --> Watermark, if there was one --> the message, with that input alone
 *
 * Written by the successor, before what blame has found takes effect and before the input has changed anything: in a file for each death,
 * by name, so that a unit that is begun anew writes it once. A capture is a help for people: when it cannot be written there is
 * a line in the log, and nothing else happens. It takes a second of the unit's time at most, however much state there is.
 *
 * Left out: inputs of unary calls, and messages that restore a checkpoint: what came before them is not here any more. The order in
 * which a map was filled, and timers that were set for a time before the watermark: these fire with it.
 */
#ifndef WORKER_CAPTURE_H
#define WORKER_CAPTURE_H

#include "worker/position.h"
#include "worker/workspace.h"

/* The message to record. */
struct capture_input {
	uint32_t kind;    /* TO_WORKER_... */
	struct view body; /* of it, as it is to be run again */
	bool keyed;       /* the input's key is known: other keys' state is left out */
	struct view key;
};

/* Writes the capture of the suspect of a session, if captures are wanted and the suspect is proven. `store`: NULL before Open. Called
 * between records; may find the arena damaged. */
void capture_write(const struct workspace *workspace, const struct session_position *at, const struct segment *segment,
		   struct state_store *store, const struct capture_input *input);

#endif
