/*
 * What everything that one worker process serves shares: where it is in the world, the arrays that a unit of work fills
 * and the next one reuses, and the clock of the turn at hand. There is one thread and one unit at a time, so sessions and
 * unary calls borrow these and leave nothing in them that must outlive the unit.
 */
#ifndef WORKER_WORKSPACE_H
#define WORKER_WORKSPACE_H

#include "server/roles.h"
#include "worker/arena.h"
#include "worker/chain.h"
#include "worker/errors.h"

/* Why a unit could not be done as it was begun. It is then rolled back, and begun anew with less to do or more room. */
enum trouble {
	TROUBLE_NONE,
	TROUBLE_RING,   /* the response ring has no room for its outputs */
	TROUBLE_STATE,  /* the slot's state memory is full */
	TROUBLE_LOG,    /* it changes more than the undo log holds */
	TROUBLE_MEMORY, /* its records are more than a run or its memory can hold */
	TROUBLE_RETRY,  /* a step says that it may go well later (unit.retry) */
	TROUBLE_WAIT,   /* a step waits for something outside (unit.wakes) */
	TROUBLE_DEATH,  /* workers died over it */
	TROUBLE_DAMAGE, /* the arena is not what it has to be: nothing of it is to be used any more */
};

/* What the unit at hand has come to. */
struct unit {
	bool begun;        /* something was done in it: there is something to commit */
	bool over;         /* it must end with the message at hand, because process memory changed with it */
	uint32_t messages; /* done in it, before the one at hand */
	uint32_t records;  /* or timers, of the message at hand, tried in it */
	enum trouble trouble;
	uint32_t step;      /* at work when it got into trouble; UINT32_MAX: none */
	uint32_t wakes;     /* TROUBLE_WAIT: how often had been rung when it looked */
	struct retry retry; /* TROUBLE_RETRY: what and when; seq 0: as soon as there is one timer in a unit */
};

enum work_result {
	WORK_DONE,
	WORK_LEFT,    /* the unit ends here, and some of the frame is left */
	WORK_TROUBLE, /* the unit is to be rolled back; unit.trouble says why */
};

struct workspace {
	const struct config *config;
	const struct descriptor *descriptor;
	const struct control_memory *control;
	struct arena arena;            /* to be opened by who has become the slot's owner */
	struct worker_page *page;      /* the slot's */
	struct life *life;             /* this process's own words in it */
	const _Atomic uint64_t *ready; /* channels that the front has marked since the turn began */
	uint32_t slot;

	struct wire_batch batch; /* records as they came in */
	struct scratch *scratch; /* bytes that the unit at hand makes */
	struct run run;          /* the unit at hand; on scratch */

	struct unit unit;
	uint32_t step; /* the last one that was at work in it; UINT32_MAX: none */
	bool careful;  /* workers died over the message at hand: one input at a time, named before a step gets it */

	uint64_t now_ns;      /* CLOCK_MONOTONIC, read between frames and between units */
	uint64_t deadline_ns; /* when the channel at hand has had its share of the turn, if others wait for theirs */
	uint64_t limit_ns;    /* when it has had it, whoever waits */
	uint64_t others;      /* channels that wait in this turn */
};

/* Fills a workspace for a slot's worker; everything named must outlive it. The arena is not opened. Frees what the workspace itself
 * owns. */
void workspace_init(struct workspace *workspace, const struct sidecar *sidecar, uint32_t slot);
void workspace_deinit(struct workspace *workspace);

/* Empties the arrays for the next unit. */
void workspace_clear(struct workspace *workspace);

/* Whether the channel at hand should let others have their turn now. Reads the clock. */
bool workspace_turn_is_over(struct workspace *workspace);

/* Says that the unit at hand is in trouble. Always returns false, for callers to pass on. */
bool workspace_trouble(struct workspace *workspace, enum trouble trouble);

/* Notes that the arena is. */
void workspace_arena_trouble(struct workspace *workspace);

/* Whether the unit at hand is in trouble, through the arena or otherwise. */
static inline bool workspace_in_trouble(struct workspace *workspace)
{
	if (__builtin_expect(workspace->arena.trouble != ARENA_FINE, 0))
		workspace_arena_trouble(workspace);
	return workspace->unit.trouble != TROUBLE_NONE;
}

/* Opens the chain of a segment over the states in `store`, with its counters and with progress words that name its steps. NULL and
 * `failure`. */
struct chain *workspace_chain(struct workspace *workspace, const struct segment *segment, struct state_store *store,
			      struct failure *failure);

/* The counters of a segment, or of all steps of a segment one after the other. */
struct worker_segment_counters *workspace_segment_counters(const struct workspace *workspace, uint32_t segment);

/* Notes work that is committed: messages that are done with, if any, and when this life's first was. */
void progress_done(const struct workspace *workspace, uint32_t messages);

/* Says in the progress words what is at hand, and that nothing is any more (which also counts the frame). */
void progress_begin(struct workspace *workspace, const struct frame *frame, uint32_t channel);
void progress_record(const struct workspace *workspace, uint32_t record);

/* In careful mode: which input a step gets now; and that none is at work any more. */
void progress_input(const struct workspace *workspace, const struct chain_input *input);
void progress_no_input(const struct workspace *workspace);
void progress_end(const struct workspace *workspace);

#endif
