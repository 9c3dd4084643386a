/*
 * A step, as the chain sees it: one entry of the table of kinds in worker/steps/table.c, in the order of descriptor/steps.def.
 *
 * A step is opened once per session (and once per worker for unary calls), works on runs, and may hold records back. All
 * functions run in the worker's only thread.
 */
#ifndef WORKER_STEP_H
#define WORKER_STEP_H

#include "descriptor/descriptor.h"
#include "worker/failure.h"
#include "worker/run.h"

/* Time as it is carried by messages; it never goes back. */
struct step_time {
	int64_t processing_ms;
	int64_t watermark_ms; /* INT64_MIN before the first */
};

/* What asks a step to let go of what it holds. */
enum release_cause {
	RELEASE_WATERMARK, /* event time moved to time.watermark_ms */
	RELEASE_TICK,      /* processing time moved to time.processing_ms */
	RELEASE_ALL,       /* barrier or end of input: everything must go */
};

struct step {
	const struct step_kind_ops *ops;
	const struct step_spec *spec;
	const struct segment *segment;
	void *own; /* the kind's own */
};

struct step_kind_ops {
	/* Compiles options into step->own. False and a message in `failure` when that cannot be done. NULL for kinds without. */
	bool (*open)(struct step *step, struct failure *failure);
	/* Frees step->own; NULL when nothing is to be freed. */
	void (*close)(struct step *step);
	/* Replaces the records of `run` by what the step makes of them, in order. False and `failure` on the first one that fails. */
	bool (*process)(struct step *step, struct run *run, struct step_time time, struct failure *failure);
	/* Appends to `out` what the step lets go; NULL for kinds that hold nothing back. */
	bool (*release)(struct step *step, enum release_cause cause, struct step_time time, struct run *out,
			struct failure *failure);
	/* Processing time in ms at which a tick is wanted; INT64_MAX: none. NULL for kinds that want none. */
	int64_t (*next_wakeup)(const struct step *step);
};

/* The table. */
extern const struct step_kind_ops *const step_kinds[STEP_KIND_COUNT];

#endif
