/* What the files of this folder share, and nobody else includes. */
#ifndef WORKER_HOSTS_HOST_PARTS_H
#define WORKER_HOSTS_HOST_PARTS_H

#include "worker/hosts/bridge_step.h"
#include "worker/hosts/host.h"

/* ---- library.c: code that is loaded ------------------------------------------------------------------------------------------- */

/* The code of one step, kept until host_forget(). */
struct host_code {
	struct host_code *next;
	const struct step_spec *spec;              /* whose it is */
	const struct bridge_step_library *library; /* a copy, whole even where theirs is shorter */
	struct bridge_setup setup;
	void *code;     /* what load() made */
	uint32_t flags; /* enum bridge_step_flags */
};

/* The code of a step, loaded when it is asked for the first time. NULL and `failure` when it cannot be. */
const struct host_code *host_code_get(const struct segment *segment, const struct step_spec *spec,
				      struct failure *failure);

/* ---- calls.c: what a library can call ------------------------------------------------------------------------------------------ */

/* What a step is called for at the moment. */
enum host_call { CALL_NONE, CALL_LOAD, CALL_OPEN, CALL_PROCESS, CALL_TIMER, CALL_WATERMARK, CALL_END };

/* A handle of a state, as a library has it. */
struct bridge_state {
	struct bridge_context *context;
	struct state *state;
	enum state_kind kind;
	bool by_key;
};

/* A step at work, as a library has it. */
struct bridge_context {
	const struct step_spec *spec;
	const struct segment *segment;
	const struct host_code *code; /* NULL in load() */
	struct step *step;            /* likewise */
	void *self;
	enum host_call call;
	struct step_time time;
	struct bridge_state states[STEP_STATES_MAX];
	struct state *ahead; /* the state of which entries are asked for before their keys are used; NULL: none */
	/* The call at hand. */
	struct run *in;                /* process: the records */
	struct wire_batch *batch;      /* or these, as they came */
	struct run *out;               /* where what is emitted goes */
	struct run own;                /* process: that is this one */
	struct bridge_record *records; /* copies of them, where those change that the library would see */
	uint32_t record_room;
	/* While nothing is emitted and records are forwarded in their order, they stay where they are: the first so many, and behind a gap
	 * the indices of the others. */
	uint32_t kept_first;
	uint32_t *kept, kept_count;
	bool in_place;
	bool has_key;                    /* a key is current */
	bool asked;                      /* wait() was called in this call */
	uint32_t wakes;                  /* how often had been rung then */
	bool full;                       /* something had no room */
	const struct state_timer *timer; /* timer: the one that is due */
	enum state_time domain;
	bool failed; /* fail() was called, and `failure` filled */
	struct failure *failure;
	/* What outlives the call, for the failure to point to. */
	char *traceback;
};

/* The table of calls. */
extern const struct bridge_host host_calls;

/* How many records there are to process. */
static inline uint32_t host_count(const struct bridge_context *context)
{
	return context->in != NULL ? context->in->count : context->batch != NULL ? context->batch->count : 0;
}

/* Begins a call of the library. */
void host_begin(struct bridge_context *context, enum host_call call, struct step_time time, struct failure *failure);

/* Ends it: whether it is good, by what the library returned and what happened meanwhile; `failure` is filled when it is not. */
bool host_end(struct bridge_context *context, int result);

/* Moves the records that were to stay in place to the output, because something else comes behind them. */
bool host_leave_place(struct bridge_context *context);

#endif
