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
	SERVE_DAMAGED, /* the front's words cannot be true */
};

/* Opens the chains that unary calls use, which proves that all steps open. Only channels that the front opened for this worker's
 * `generation` will be served. On failure NULL, *segment and `failure`. Everything handed in must outlive it. */
struct serve *serve_create(struct workspace *workspace, struct slot_memory *memory, uint32_t generation,
			   const struct segment **segment, struct failure *failure);

/* Drops all sessions and frees everything; leaves the shared words alone. */
void serve_destroy(struct serve *serve);

/* Drops all sessions and zeroes the worker's words of all channels: what a new worker and a new front begin with. Channels
 * that are open now are never served: they belong to a life before. */
void serve_reset(struct serve *serve);

/* Serves each ready channel once. */
enum serve_result serve_turn(struct serve *serve);

/* Whether a turn would find something. Sequentially consistent, for the look before sleeping. */
bool serve_is_wanted(const struct serve *serve);

/* Finishes the messages that are half done, but for those whose answers nobody reads. */
void serve_finish(struct serve *serve);

/* Drops what is too old. Returns the CLOCK_MONOTONIC ns at which to do so again; UINT64_MAX: no need. */
uint64_t serve_expire(struct serve *serve);

#endif
