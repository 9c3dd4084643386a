/*
 * The control memory: orders, generations, progress and counters of the whole sidecar, one memfd.
 *
 *   section             written by        read by
 *   struct control      the supervisor    everybody (read-only mapping in front and workers)
 *   struct front_page   the front         supervisor, workers
 *   struct worker_page  the slot's worker supervisor, front      (one per slot, each on pages of its own)
 *
 * Made by the supervisor before any fork; each child maps the whole read-only and its own section writable, and closes
 * the descriptor. Every word has one writer; what a store publishes stands beside it. The words of a process that has
 * died are the supervisor's until it forks the next one.
 */
#ifndef SHARED_CONTROL_H
#define SHARED_CONTROL_H

#include <stdatomic.h>
#include <stdint.h>

#include "shared/counters.h"
#include "shared/slot.h"

/* What the supervisor wants of a child. */
enum order {
	ORDER_RUN,
	ORDER_HOLD, /* a worker: wait without taking the slot over */
	ORDER_STOP, /* a worker: leave after the frame at hand; the front: stop accepting, finish what is in flight, leave */
};

/* One slot, as the supervisor has it. */
struct control_slot {
	_Atomic uint32_t generation; /* of the worker: 1 for the first; raised (release) once the last one is reaped */
	_Atomic uint32_t order;      /* enum order, for the worker of that generation */
	_Atomic int32_t pid;         /* of the worker; 0 between two */
	_Atomic uint32_t code_generation; /* of the code a worker should have loaded */
};

/* Written by the supervisor alone. */
struct control {
	uint64_t magic;
	uint32_t version;
	uint32_t slot_count;
	uint32_t segment_count;
	uint32_t step_count;                                 /* of all segments together */
	uint64_t bytes;                                      /* of the whole mapping */
	uint64_t front_offset, worker_offset, worker_stride; /* where the other sections are */
	_Atomic uint32_t front_generation; /* 1 for the first; raised (release) before a new front is forked */
	_Atomic uint32_t front_order;      /* enum order */
	_Atomic int32_t front_pid;
	struct sup_counters counters;
	struct control_slot slot[SLOTS_MAX];
};

/* What a front has reached. */
enum front_state { FRONT_STARTING, FRONT_SERVING, FRONT_DRAINING, FRONT_FAILED };

enum { FRONT_NOTE_MAX = 256, JVMS_RETIRED = 16 };

/* A text that the front leaves to the front after it. */
struct front_note {
	_Atomic uint32_t length; /* 0: none, or half written; release, after the text */
	char text[FRONT_NOTE_MAX];
};

/* What the front asks of the supervisor for one slot, and leaves to its successor. */
struct front_slot {
	_Atomic uint32_t wanted_generation; /* the worker should be at least this one: an older one is to be replaced */
	_Atomic uint32_t damaged;           /* the generation whose ring words could not be true; it is killed */
	struct front_slot_counters counters;
	struct front_note allocation;     /* the last one that a session of was let in */
	_Atomic uint32_t used_generation; /* of the worker that served it; written after `allocation` */
};

/* One open session, for the stats socket. */
struct session_info {
	_Atomic uint32_t epoch; /* 0: none; release, pairs with the reader's look before and after */
	uint32_t segment;
	uint32_t subtask;
	uint32_t parallelism;
	uint64_t opened_ms; /* since the epoch */
	_Atomic uint64_t messages_in, messages_out, bytes_in, bytes_out;
	_Atomic uint64_t request_fill, response_fill; /* bytes, when last looked */
	char job[64], attempt[64], allocation[64];    /* cut to fit, NUL-terminated */
};

/* Written by the front alone. */
struct front_page {
	_Atomic uint32_t sleeps;       /* 1 before it blocks: workers ring its doorbell */
	_Atomic uint32_t state;        /* enum front_state; release */
	_Atomic uint32_t generation;   /* of the front that wrote `state` */
	char failure[256];             /* why it failed; written before FRONT_FAILED */
	_Atomic uint64_t heartbeat_ns; /* CLOCK_MONOTONIC of the last turn of its loop */
	struct front_counters counters;
	struct front_slot slot[SLOTS_MAX];
	struct session_info session[SLOTS_MAX][SLOT_CHANNELS_MAX];
	struct front_note jvm;                        /* the client process whose sessions are served */
	struct front_note jvms_retired[JVMS_RETIRED]; /* earlier ones; refused */
	_Atomic uint32_t jvm_next_retired;            /* the place of the next */
	struct front_segment_counters segment[];      /* segment_count of them */
};

/* What a worker is at, for the obituary and the stats socket. */
struct progress {
	_Atomic uint64_t since_ns; /* CLOCK_MONOTONIC when the frame at hand was begun; 0: idle */
	_Atomic uint64_t seq;      /* of the frame */
	_Atomic uint32_t segment;
	_Atomic uint32_t channel;
	_Atomic uint32_t epoch;
	_Atomic uint32_t step;   /* index in the segment; UINT32_MAX: none */
	_Atomic uint32_t record; /* index in the run at hand */
};

/* Written by the slot's worker alone. */
struct worker_page {
	_Atomic uint32_t ready_generation; /* of the worker that is ready to serve; release, after slot_reset_worker */
	_Atomic uint32_t front_generation; /* the last one acknowledged (S3); release, after slot_reset_worker */
	_Atomic uint64_t frames_done;      /* frames finished in this life; 0: has done no work yet */
	struct progress progress;
	struct worker_counters counters;
	/* then segment_count struct worker_segment_counters, then step_count struct worker_step_counters */
};

/* The control memory as one process sees it. */
struct control_memory {
	int fd;                   /* -1 once closed */
	struct control *control;  /* writable in the supervisor alone */
	struct front_page *front; /* writable in the front (and never read back by it as truth) */
	uint8_t *workers;         /* first worker page */
	int front_bell;           /* eventfd: wakes the front; written by workers and supervisor */
	int supervisor_bell;      /* eventfd: wakes the supervisor; written by front and workers */
};

/* Makes the memory and the doorbells. Supervisor, before any fork. 0, or -1 with errno. */
int control_create(struct control_memory *memory, uint32_t slots, uint32_t segments, uint32_t steps);

/* Remaps everything read-only but the front's page, and closes the descriptor. Front. 0, or -1 with errno. */
int control_attach_front(struct control_memory *memory);

/* Remaps everything read-only but that slot's worker page, and closes the descriptor. Worker. 0, or -1 with errno. */
int control_attach_worker(struct control_memory *memory, uint32_t slot);

/* Unmaps and closes. Any process. */
void control_destroy(struct control_memory *memory);

/* The pages and counters of a slot's worker. `step` counts over all segments, in the descriptor's order. */
struct worker_page *control_worker(const struct control_memory *memory, uint32_t slot);
struct worker_segment_counters *control_worker_segment(const struct control_memory *memory, uint32_t slot,
						       uint32_t segment);
struct worker_step_counters *control_worker_step(const struct control_memory *memory, uint32_t slot, uint32_t step);

/* Rings a doorbell (an eventfd). Any process; never blocks. */
void doorbell_ring(int fd);

/* CLOCK_MONOTONIC in ns, and the wall clock in ms since the epoch. */
uint64_t clock_ns(void);
int64_t clock_wall_ms(void);

#endif
