/*
 * A step, as the chain sees it: one entry of the table of kinds in worker/steps/kinds.c, in the order of descriptor/steps.def.
 *
 * A step is opened once per session (and once per worker for unary calls), works on runs, and may hold records back. What it
 * must remember it keeps in the states that its kind declares (STEP_STATE in steps.def): those outlive the worker. All else that a
 * step has is gone with the process, at any moment. All functions run in the worker's only thread.
 */
#ifndef WORKER_STEP_H
#define WORKER_STEP_H

#include "descriptor/descriptor.h"
#include "worker/failure.h"
#include "worker/run.h"
#include "worker/state.h"

/* Time as it is carried by messages; it never goes back. */
struct step_time {
	int64_t processing_ms;
	int64_t watermark_ms; /* INT64_MIN before the first */
};

/* What asks a step to let go of what it holds. */
enum release_cause {
	RELEASE_WATERMARK, /* event time moved to time.watermark_ms */
	RELEASE_TICK,      /* processing time moved to time.processing_ms */
	RELEASE_END,       /* no input will come any more */
};

struct step {
	const struct step_kind_ops *ops;
	const struct step_spec *spec;
	const struct segment *segment;
	void *own; /* the kind's own */
	/* Set by `open`: whether all timers fire at the end of input, whatever their time. Else those of processing time are dropped, as
	 * Flink does. */
	bool flushes;
	/* Likewise: whether it gets one record at a time where its policy may leave records out. */
	bool single;
	/* Whether a process() that waits for something outside may give its unit up (failure->waits), to be called again with the same
	 * run: (seq, done) is the same then. Else it has to wait within the call. */
	bool may_wait;
	bool waited; /* set by such a step: what it got outside is good for one unit, which ends with its run */
	uint64_t seq;
	uint32_t done;
	/* Handles of its states: those that the kind declares, in the order of its STEP_STATE lines, then those that the pipeline
	 * does; NULL: the segment has no keys and the state needs some. Without a store (a chain that is opened to see whether it opens) all are NULL, and only `open` and
	 * `close` are called. */
	struct state_store *store;
	struct state *states[STEP_STATES_MAX];
	size_t state_count;           /* places of them, and of `timers` */
	bool timers[STEP_STATES_MAX]; /* whether it is one of TIMERS */
};

struct step_kind_ops {
	/* Compiles options into step->own. False and a message in `failure` when that cannot be done. NULL for kinds without. */
	bool (*open)(struct step *step, struct failure *failure);
	/* Called once in the process that owns the slot, before anything below: what only that may do. NULL for kinds without. */
	bool (*start)(struct step *step, struct step_time time, struct failure *failure);
	/* Frees step->own; NULL when nothing is to be freed. */
	void (*close)(struct step *step);
	/* Replaces the records of `run` by what the step makes of them, in order. False and `failure` on the first one that fails. */
	bool (*process)(struct step *step, struct run *run, struct step_time time, struct failure *failure);
	/* The same where the step is the only one of its segment and the records are those of a batch, as it was parsed, with route 0: the
	 * step need not have records made of them. What it hands on as it is may stay in the batch, without the rest (*in_place), with
	 * the route that it is to take; else `out` is what it makes of them. NULL for kinds that take runs alone. */
	bool (*process_batch)(struct step *step, struct wire_batch *batch, struct step_time time, struct run *out,
			      bool *in_place, struct failure *failure);
	/* A timer of one of its TIMERS states is due, and gone from the state: appends to `out` what the step makes of it. The timer's
	 * key is the current one; its views are good throughout the call. NULL for kinds without timers. */
	bool (*fire)(struct step *step, enum state_time domain, const struct state_timer *timer, struct step_time time,
		     struct run *out, struct failure *failure);
	/* Appends to `out` what the step lets go beside its timers, all at once; NULL for kinds that hold nothing back outside of
	 * keys. */
	bool (*release)(struct step *step, enum release_cause cause, struct step_time time, struct run *out,
			struct failure *failure);
	/* Processing time in ms at which a tick is wanted; INT64_MAX: none. NULL for kinds that want none. */
	int64_t (*next_wakeup)(const struct step *step);
};

/* Makes a record's key the one that the step's states are about. */
static inline void step_key(const struct step *step, const struct record *record)
{
	if (step->segment->keyed)
		state_key(step->store, record->key, record->key_hash, record->key_group);
}

/* The table. */
extern const struct step_kind_ops *const step_kinds[STEP_KIND_COUNT];

#endif
