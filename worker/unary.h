/*
 * The four unary calls of the first bridge's contract, on the slot's unary channel: one frame in, one REPLY or REFUSAL out.
 *
 * There is one chain per segment for all clients of the slot, so steps that hold records back hold those of all of them. The
 * watermark of a segment is its clock here: steps that wait for processing time wait for it (it is all that a client of this
 * contract sends). A call that is refused has changed nothing: a call is (a part of) a unit. A watermark that makes many timers due is
 * the exception: it takes units of its own, and what the first of them let go is not lost when it is refused. And windows: they are
 * kept in process memory, and a worker that dies takes them with it.
 */
#ifndef WORKER_UNARY_H
#define WORKER_UNARY_H

#include "worker/output.h"
#include "worker/workspace.h"

struct unary;

/* Opens the chains of all segments over the states that there are, or makes these, as part of the unit at hand. On failure NULL, *segment and `failure` say which step and why. */
struct unary *unary_create(struct workspace *workspace, const struct segment **segment, struct failure *failure);

/* Closes them; windows not triggered are lost. NULL is none. */
void unary_destroy(struct unary *unary);

/* Answers the call in a frame, or goes on with it, in the unit at hand, which fires `limit` timers at most (0: as many as is good). */
enum work_result unary_work(struct unary *unary, struct output *output, const struct frame *frame,
			    const uint8_t *payload, uint32_t limit);

/* Refuses the call in a frame, because a unit with nothing else in it got into trouble, or workers died over it. */
enum work_result unary_refuse(struct unary *unary, struct output *output, const struct frame *frame,
			      const struct unit *unit);

/* The unit at hand has been committed, or undone: what it did counts, or does not. */
void unary_committed(struct unary *unary);
void unary_rolled_back(struct unary *unary);

/* Drops windows that are too old. Returns the CLOCK_MONOTONIC ns at which the next one will be; UINT64_MAX: there is none. */
uint64_t unary_expire(struct unary *unary);

/* What unary calls remember. */
const struct state_store *unary_state(const struct unary *unary);

#endif
