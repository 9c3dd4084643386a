/*
 * What everything that one worker process serves shares: where it is in the world, the arrays that a unit of work fills
 * and the next one reuses, and the clock of the turn at hand. There is one thread and one unit at a time, so sessions and
 * unary calls borrow these and leave nothing in them that must outlive the unit.
 */
#ifndef WORKER_WORKSPACE_H
#define WORKER_WORKSPACE_H

#include "server/roles.h"
#include "worker/chain.h"

struct workspace {
	const struct config *config;
	const struct descriptor *descriptor;
	const struct control_memory *control;
	struct slot_positions *arena;
	struct worker_page *page;      /* the slot's */
	struct life *life;             /* this process's own words in it */
	const _Atomic uint64_t *ready; /* channels that the front has marked since the turn began */
	uint32_t slot;

	struct wire_batch batch; /* records as they came in */
	struct scratch *scratch; /* bytes that the unit at hand makes */
	struct run run;          /* the unit at hand; on scratch */

	uint64_t now_ns;      /* CLOCK_MONOTONIC, read between frames and between units */
	uint64_t deadline_ns; /* when the channel at hand has had its share of the turn, if others wait for theirs */
	uint64_t limit_ns;    /* when it has had it, whoever waits */
	uint64_t others;      /* channels that wait in this turn */
};

/* Fills a workspace for a slot's worker; everything named must outlive it. Frees what the workspace itself owns. */
void workspace_init(struct workspace *workspace, const struct sidecar *sidecar, uint32_t slot);
void workspace_deinit(struct workspace *workspace);

/* Empties the arrays for the next unit. */
void workspace_clear(struct workspace *workspace);

/* Whether the channel at hand should let others have their turn now. Reads the clock. */
bool workspace_turn_is_over(struct workspace *workspace);

/* Opens the chain of a segment with its counters and with progress words that name its steps. NULL and `failure`. */
struct chain *workspace_chain(struct workspace *workspace, const struct segment *segment, struct failure *failure);

/* Counts records that an identity chain's steps let through without being called. */
void workspace_count_identity(const struct workspace *workspace, const struct segment *segment, uint32_t records);

/* The counters of a segment, or of all steps of a segment one after the other. */
struct worker_segment_counters *workspace_segment_counters(const struct workspace *workspace, uint32_t segment);

/* Notes work done: a message, or the first commit of this life. */
void progress_done(const struct workspace *workspace);

/* Says in the progress words what is at hand, and that nothing is any more (which also counts the frame). */
void progress_begin(const struct workspace *workspace, const struct frame *frame, uint32_t channel);
void progress_record(const struct workspace *workspace, uint32_t record);
void progress_end(const struct workspace *workspace);

#endif
