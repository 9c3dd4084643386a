/*
 * The control memory: orders, generations, lives, progress and counters of the whole sidecar, one memfd.
 *
 *   section             written by           read by
 *   struct control      the supervisor       everybody (read-only mapping in front and workers)
 *   struct front_page   the front            supervisor, workers
 *   struct worker_page  the slot's processes supervisor, front      (one per slot, each on pages of its own)
 *
 * A slot has several processes at once: an owner, heirs that wait to take over, and some that are on their way out. Each has a
 * struct life in the slot's worker page for its own words, so that an heir never overwrites what its predecessor was at. The
 * rest of that page is the owner's.
 *
 * Made by the supervisor before any fork; each child maps the whole read-only and its own section writable, and closes
 * the descriptor. Every word has one writer; what a store publishes stands beside it. The words of a process that has
 * died are the supervisor's until it forks the next one.
 */
#ifndef SHARED_CONTROL_H
#define SHARED_CONTROL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/counters.h"
#include "shared/metrics.h"
#include "shared/slot.h"

/* What the supervisor wants of a child. */
enum order {
	ORDER_RUN,
	ORDER_LEAVE, /* a worker: leave at the next commit, an heir goes on */
	ORDER_STOP, /* a worker: finish the message at hand and leave; an heir: leave; the front: stop accepting, finish what
			is in flight, leave */
};

/* Why a process ended, as the supervisor found. */
enum death_cause {
#define DEATH_CAUSE(name, word, blames, sentence) DEATH_##name,
#include "shared/deaths.def"
};

enum {
	STEPS_SPARE = 32,     /* counters of steps that a reload may add */
	LIVES_MAX = 4,        /* processes of one slot at a time: an owner, heirs, and those on their way out */
	DEATHS_PUBLISHED = 8, /* of one slot: the last ones */
};

/* One process of a slot, as the supervisor has it. */
struct control_life {
	_Atomic uint32_t number; /* the process that the rest is about; 0: none. release */
	_Atomic uint32_t order;  /* enum order */
	_Atomic int32_t pid;     /* 0 once it is dead, before its number can be another process's (seq_cst) */
};

/* How one of the last processes of a slot ended. */
struct control_death {
	_Atomic uint32_t number; /* 0: none; release, after `cause` */
	_Atomic uint32_t cause;  /* enum death_cause */
};

/* One slot, as the supervisor has it. */
struct control_slot {
	/* Of the slot's memory: 1 for the first; raised (release) when all that was in it has been given up, and it is fresh. */
	_Atomic uint32_t generation;
	_Atomic uint32_t code_generation; /* of the code that an owner should have loaded; release */
	_Atomic uint32_t owner;           /* the number of the process that last announced itself as owner; release */
	_Atomic int32_t pid;              /* of the owner; 0 between two */
	struct control_life life[LIVES_MAX];
	struct control_death death[DEATHS_PUBLISHED];
};

/* What a worker process is told when it is forked. */
struct birth {
	uint32_t slot;
	uint32_t place;      /* of its words among the slot's lives */
	uint32_t number;     /* counts the slot's processes, from 1 */
	uint32_t generation; /* of the slot's memory, which it has mapped */
	uint32_t code;       /* generation of the code that it loads */
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
	_Atomic uint32_t
	    watching; /* 1: the supervisor looks at workers by itself; 0: whoever wakes one or wakes up rings (seq_cst) */
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
	_Atomic uint32_t wanted_owner; /* the owner's number should be at least this: an older one is to be replaced */
	_Atomic uint32_t damaged;      /* the generation whose ring words could not be true; it is given up */
	_Atomic uint64_t rung_ns;      /* CLOCK_MONOTONIC when it last rang for a worker that slept */
	struct front_slot_counters counters;
	struct front_note allocation; /* the last one that a session of was let in */
	_Atomic uint32_t used_owner;  /* the number of the owner that served it; written after `allocation` */
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
	_Atomic uint32_t last_epoch;   /* given to a channel, by this front or one before it */
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

enum { INPUT_TEXT_MAX = 264 }; /* bytes of an excerpt of a key or a payload, with its NUL (worker/failure.h) */

/* What a worker is at, for the obituary and the stats socket. */
struct progress {
	_Atomic uint64_t since_ns; /* CLOCK_MONOTONIC when the frame at hand was begun; 0: idle */
	_Atomic uint64_t seq;      /* of the frame */
	_Atomic uint32_t segment;
	_Atomic uint32_t channel;
	_Atomic uint32_t epoch;
	_Atomic uint32_t step;   /* index in the segment; UINT32_MAX: none */
	_Atomic uint32_t record; /* of the message, that the unit at hand begins with; or units of timers done */
	/* In careful mode (worker/blame.h) the step has one input, and these name it. */
	_Atomic uint32_t careful;
	_Atomic uint32_t ordinal; /* among the inputs of the unit */
	_Atomic uint64_t digest;
	/* Likewise, for people alone. */
	_Atomic uint32_t shown; /* 1: the next two are of the input that a step has now; release, after them */
	char key[INPUT_TEXT_MAX], input[INPUT_TEXT_MAX]; /* excerpts, NUL-terminated */
};

/*
 * What a process of a slot has reached.
 *
 *   NONE --forked--> LOADING --chains open--> WAITING --owner mutex, and meant to run--> OWNER --sessions adopted--> READY
 */
enum life_state { LIFE_NONE, LIFE_LOADING, LIFE_WAITING, LIFE_OWNER, LIFE_READY };

/* One process of a slot. Written by it alone, and by the supervisor once it is dead. */
struct life {
	_Atomic uint32_t number; /* birth.number; 0: nobody; release, after the rest is cleared */
	_Atomic uint32_t state;  /* enum life_state; release */
	_Atomic int32_t pid;
	_Atomic uint32_t code;          /* birth.code */
	_Atomic uint32_t predecessor;   /* the number of the owner before it, as it found it; written before OWNER */
	_Atomic uint32_t found_writing; /* 1: that one's main thread had left, and others of it went on */
	_Atomic uint64_t
	    asleep_since_ns; /* while it blocks on its doorbell; else 0 (seq_cst, pairs with control.watching) */
	_Atomic uint64_t took_over_ns;    /* CLOCK_MONOTONIC; written before OWNER */
	_Atomic uint64_t ready_ns;        /* likewise, before READY */
	_Atomic uint64_t first_commit_ns; /* of the first work done in this life; 0: none yet */
	_Atomic uint64_t frames_done;     /* finished in this life */
	struct progress progress;
};

enum {
	STATE_ROWS_MAX = 256, /* states of a slot's sessions that are shown */
	STATE_TEXT_MAX = 64,  /* bytes of a name, with its NUL; longer ones are cut */
};

/* One state of one session. */
struct state_row {
	uint32_t channel;
	uint32_t segment; /* UINT32_MAX: of unary calls, which have one store for all */
	uint32_t kind;    /* enum state_kind */
	uint32_t unused;
	uint64_t entries, key_bytes, value_bytes, timers;
	uint64_t largest_key, largest_value; /* bytes, seen by this owner */
	char step[STATE_TEXT_MAX], name[STATE_TEXT_MAX];
};

/* All state of one session. */
struct state_session {
	uint32_t epoch; /* 0: none */
	uint32_t segment;
	uint64_t bytes; /* of the blocks that entries and tables take */
	uint64_t dirty_bytes, dirty_entries;
	uint64_t extents, blocks; /* bytes of the arena */
};

/* What the owner says of its state (worker/state_show.h): plain words, good where `version` is even and the same before and after. */
struct state_page {
	_Atomic uint64_t version; /* odd: being written; 0: nothing yet */
	uint32_t row_count, rows_left_out;
	uint64_t limit, extents, blocks, freed; /* bytes, as in struct arena_usage */
	uint64_t log_most, log_size;
	struct state_session session[SLOT_CHANNELS_MAX];
	struct state_row row[STATE_ROWS_MAX];
};

/* Written by the slot's owner alone, but for the lives. */
struct worker_page {
	_Atomic uint32_t
	    ready_generation; /* of the memory that an owner serves; release, after the channel words hold */
	_Atomic uint32_t front_generation; /* the last one acknowledged (S3); release, likewise */
	_Atomic uint32_t owner;            /* the number of the last process that became owner */
	struct life lives[LIVES_MAX];
	struct worker_counters counters;
	struct state_page state;
	struct metric_table metrics; /* that steps make themselves */
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

/* Remaps everything read-only, and closes the descriptor. A process that may become a worker later. 0, or -1 with errno. */
int control_attach_reader(struct control_memory *memory);

/* Unmaps and closes. Any process. */
void control_destroy(struct control_memory *memory);

/* The pages and counters of a slot's worker. `step` counts over all segments, in the descriptor's order. */
struct worker_page *control_worker(const struct control_memory *memory, uint32_t slot);
struct worker_segment_counters *control_worker_segment(const struct control_memory *memory, uint32_t slot,
						       uint32_t segment);
struct worker_step_counters *control_worker_step(const struct control_memory *memory, uint32_t slot, uint32_t step);

/* Begins the words of a process: cleared, LIFE_LOADING. That process. */
void life_begin(struct life *life, const struct birth *birth, int32_t pid);

/* How a process of a slot ended; DEATH_UNKNOWN until the supervisor has reaped it, or when that is long ago. */
enum death_cause control_death_cause(const struct control_slot *slot, uint32_t number);

/* The name of a cause, in small letters, and whether it speaks against the code that ran. */
const char *death_cause_name(enum death_cause cause);
bool death_blames_code(enum death_cause cause);

/* Rings a doorbell (an eventfd). Any process; never blocks. */
void doorbell_ring(int fd);

/* CLOCK_MONOTONIC in ns, and the wall clock in ms since the epoch. */
uint64_t clock_ns(void);
int64_t clock_wall_ms(void);

#endif
