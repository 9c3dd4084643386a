/*
 * Serving the channels of one slot, in turn: the work of a worker without its sleep, its orders and its death.
 *
 * A turn gives each channel that is marked ready a share of time; a channel with work left is in the next turn again, and
 * one whose client does not read parks alone until the front has made room.
 */
#ifndef WORKER_SERVE_H
#define WORKER_SERVE_H

#include "worker/workspace.h"

struct serve;

enum serve_result {
	SERVE_IDLE,    /* no channel was ready */
	SERVE_BUSY,    /* something was looked at; there may be more */
	SERVE_DAMAGED, /* the front's words or the arena cannot be true: the slot is to be given up (the log says why) */
};

/* Opens the steps of all segments over no state and closes them again: what they compile stays compiled, so that a process that does
 * this while it waits for the slot can take it over at once. On failure false, *segment and `failure`. */
bool serve_load(const struct descriptor *descriptor, const struct segment **segment, struct failure *failure);

/* Opens the chains that unary calls use, which proves that all steps open. The workspace's arena must be open. Only channels that the front opened for this worker's
 * `generation` will be served. On failure NULL, *segment and `failure`, or an arena that is broken. Everything handed in must outlive it. */
struct serve *serve_create(struct workspace *workspace, struct slot_memory *memory, uint32_t generation,
			   const struct segment **segment, struct failure *failure);

/* Frees what this process has; leaves the shared words and the arena as they are. */
void serve_destroy(struct serve *serve);

/* Takes over what a predecessor left, after arena_open and before the first turn: the sessions whose channels are still open under the
 * same epoch go on where the last commit left them, the others are dropped. */
void serve_adopt(struct serve *serve);

/* Drops all sessions with their state and zeroes the worker's words of all channels: what a new front begins with. Channels that
 * are open now are never served: they belong to a life before. */
void serve_reset(struct serve *serve);

/* Serves each ready channel once. */
enum serve_result serve_turn(struct serve *serve);

/* For who has nothing else to do: waits until a session may go on that rests before it tries something again. False: none does. */
bool serve_rest(const struct serve *serve);

/* Whether a turn would find something. Sequentially consistent, for the look before sleeping. */
bool serve_is_wanted(const struct serve *serve);

/* Finishes the messages that are half done, but for those whose answers nobody reads. */
void serve_finish(struct serve *serve);

/* Does a little of what can wait until there is nothing else to do; returns whether there is more. */
bool serve_idle(struct serve *serve);

/* Writes down what is remembered, for the stats socket, if that has changed and it is time to. Returns the CLOCK_MONOTONIC ns at which to call
 * again though nothing happens; UINT64_MAX: no need. */
uint64_t serve_show_state(struct serve *serve);

/* Drops what is too old. Returns the CLOCK_MONOTONIC ns at which to do so again, or to have a turn; UINT64_MAX: no need. */
uint64_t serve_expire(struct serve *serve);

#endif
