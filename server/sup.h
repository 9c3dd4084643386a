/*
 * The supervisor: starts front and workers, keeps heirs behind the workers, stops all in order, answers the stats socket.
 *
 * This header is shared by the supervisor's own files (sup_*.c, stats_*.c); bridged.c uses supervisor_run alone.
 */
#ifndef SERVER_SUP_H
#define SERVER_SUP_H

#include <signal.h>

#include "server/launcher.h"
#include "server/sup_policy.h"

/* Runs the sidecar until it is told to stop, or its start fails; returns the exit code. The memories exist, nothing has
 * been forked. */
int supervisor_run(struct sidecar *sidecar, const struct roles *roles);

/* ---- Processes ---- */

enum child_role { ROLE_FRONT, ROLE_WORKER };

/*
 *                 fork                    told to leave, or killed
 *   CHILD_DOWN -----------> CHILD_UP ------------------> CHILD_LEAVING
 *       ^                      |                               | (until `due`: then SIGKILL, or something is wrong)
 *       +----------------------+-------------------------------+   dead and reaped
 */
enum child_state { CHILD_DOWN, CHILD_UP, CHILD_LEAVING };

struct child {
	enum child_role role;
	uint32_t slot, place; /* of a worker: whose, and which of the slot's lives are its words */
	enum child_state state;
	pid_t pid;
	int pidfd;           /* -1 while down */
	uint32_t number;     /* counts the front's processes (then it is its generation), or the slot's */
	uint32_t generation; /* of a worker: of the memory that it has mapped */
	uint32_t code;       /* of a worker: of the code that it has loaded */
	uint64_t born_ns;
	/* DOWN (front): when to start; UP (worker): when it must have loaded; LEAVING: when to lose patience; 0: not at all */
	uint64_t due_ns;
	bool ordered;             /* it was told to leave */
	bool killed;              /* by us */
	enum death_cause verdict; /* killed: why */
	bool dead;                /* it is being buried */
	bool announced;           /* a worker that has become owner */
	bool ready_seen;          /* it has been seen ready in this life */
	uint32_t restarts;        /* front alone, like the next two */
	struct restart_history history;
	char last_death[160]; /* the cause of the last death, in words; empty: none */
};

/* What a worker was at when it was looked at; while nothing of it changes it is one unit of work. */
struct unit_mark {
	uint32_t number, record;
	uint64_t since_ns, seq, frames_done, sleeps;
};

/* A unit of work that the watchdog has seen. */
struct watch {
	bool known;
	struct unit_mark mark;
	uint64_t begun_ran_ns;                 /* how long the process had run when the unit was first seen */
	uint64_t wall_ns;                      /* how long it has been at it since, without what is not its own doing */
	uint64_t looked_ns, ran_ns, waited_ns; /* the last look, and the times of the process then */
};

/* What the supervisor keeps of one slot. */
struct keeper {
	uint32_t slot;
	uint32_t generation;      /* of its memory */
	uint32_t code;            /* generation of code that its owner should have loaded */
	uint32_t numbers;         /* the number of the last process forked for it */
	struct child *lives;      /* LIVES_MAX of them */
	struct child *owner;      /* announced and not dead; NULL: none */
	uint32_t last_owner;      /* its number, or that of the last one */
	uint64_t fork_due_ns;     /* before it no process is forked; 0: any time */
	uint64_t takeover_due_ns; /* somebody must have announced himself; 0: nobody needs to */
	uint64_t orphaned_ns;     /* since when it is without owner; 0: it has one */
	uint64_t renew_due_ns;    /* its memory is given up: renewed once all are dead, or at this time; 0: it is not */
	bool renew_failed;        /* the last try to: the next one waits until then */
	uint32_t wanted_seen;     /* the front's last demand for a newer owner that was granted */
	uint32_t restarts;        /* processes forked after the first owner and its heirs */
	uint32_t renewals;        /* of its memory */
	struct restart_history history;
	struct watch watch;
	char last_death[160]; /* of an owner */
};

enum phase {
	PHASE_STARTING,
	PHASE_SERVING,
	PHASE_DRAINING, /* the front finishes what is in flight */
	PHASE_LEAVING,  /* the front is gone, the workers leave */
	PHASE_OVER,
};

enum { CHILDREN_MAX = 1 + SLOTS_MAX * LIVES_MAX };

/* One of the last deaths, for people. */
struct death {
	uint64_t when_ms;    /* since the epoch */
	const char *process; /* "front", "worker" of an owner, "heir", "template" */
	uint32_t slot;
	pid_t pid;
	uint32_t number; /* as in struct child; a template's is its generation of code */
	enum death_cause cause;
	bool busy; /* the next four say what it was at; checked against the descriptor */
	uint32_t segment, step, record;
	uint64_t seq;
	bool shown; /* the next two: the beginning of the input that a step had in hand */
	char key[INPUT_TEXT_MAX], input[INPUT_TEXT_MAX];
	char how[128];  /* the end in words */
	char then[128]; /* what was done */
};

enum { DEATHS_KEPT = 64 };

enum template_state {
	TEMPLATE_NONE, /* processes load by themselves: no need for one, or it could not, or is gone */
	TEMPLATE_LOADING,
	TEMPLATE_READY,
	TEMPLATE_DYING, /* its end will say of what */
};

/* The process that has a generation of code loaded, and the one that it has made for the next slot that wants one. */
struct template
{
	enum template_state state;
	struct launched process; /* pidfd -1: none, or reaped */
	int link;                /* to talk to it; -1: not any more */
	uint64_t born_ns;
	/* LOADING: until when it must have loaded; READY: until when a spare must have come; DYING: until when it must be dead; 0: no matter */
	uint64_t due_ns;
	bool ended;            /* nothing is to be said of its end */
	struct launched spare; /* pidfd -1: none is there */
	int spare_link;        /* -1: none is there, and none asked for */
	uint32_t spares_lost;  /* in a row, before they were there */
};

/* A generation of code: what its processes load. */
struct code {
	uint32_t number; /* 0: none */
	const struct descriptor *descriptor;
	struct descriptor *owned; /* the same, where it is ours to free; else NULL */
	struct template template;
};

enum reload_state { RELOAD_NONE, RELOAD_CHECKING, RELOAD_REPLACING, RELOAD_DONE, RELOAD_FAILED };

enum { CODES_MAX = 4, RELOAD_MESSAGE_MAX = 4096, RELOAD_PATH_MAX = 4096 };

/* A reload: the last one, or the one that is under way. */
struct reload {
	enum reload_state state;
	char path[RELOAD_PATH_MAX];
	char message[RELOAD_MESSAGE_MAX]; /* how it ended */
	uint32_t code;                    /* its generation */
	uint32_t slots_done;
	uint32_t heir;   /* in the slot at hand: the number of the first process with the new code; 0: none */
	uint64_t due_ns; /* when patience ends */
	char *text;      /* CHECKING: the descriptor's bytes */
	size_t size;
	struct launched probe; /* likewise; pidfd -1: none */
	int in;                /* what it says; -1: that is over */
	char said[RELOAD_MESSAGE_MAX];
	size_t said_used;
};

struct stats_server;

struct supervisor {
	struct sidecar *sidecar;
	const struct roles *roles;
	enum phase phase;
	bool hurry; /* no more patience: kill */
	int exit_code;
	uint64_t started_ns, started_wall_ms;
	int epoll, signals, timer;
	struct stats_server *stats;          /* NULL: none asked for */
	struct child children[CHILDREN_MAX]; /* the front, then LIVES_MAX places for each slot */
	uint32_t child_count;
	struct keeper keepers[SLOTS_MAX];
	uint32_t keeper_count;
	const struct descriptor *first; /* of the first generation: whoever loaded it frees it */
	struct code codes[CODES_MAX];
	uint32_t code; /* the generation that all slots were last brought to */
	struct reload reload;
	bool strangers;        /* children may have died that are none of those above */
	uint64_t watch_due_ns; /* when the watchdog looks next; 0: when somebody rings */
	uint32_t quiet_looks;  /* of these, so many in a row that saw sleepers alone */
	uint64_t oom_kills;    /* of the container, as last read */
	struct death deaths[DEATHS_KEPT];
	uint64_t death_count; /* ever; the last one is at (death_count - 1) % DEATHS_KEPT */
};

/* The supervisor's counters. */
static inline struct sup_counters *counters_of_sup(const struct supervisor *supervisor)
{
	return &supervisor->sidecar->control.control->counters;
}

/* The earlier of two times, of which 0 is none. */
static inline uint64_t earlier(uint64_t a, uint64_t b)
{
	return a == 0 ? b : b == 0 || a < b ? a : b;
}

/* ---- sup_child.c: one process's life ---- */

/* "front", "worker 3", or "heir 3" of a worker that has not become owner. */
const char *child_name(const struct child *child, char text[16]);

/* Forks the front, which is down; when that fails it stays down and is due later. */
void child_start_front(struct supervisor *supervisor, struct child *child);

enum child_start { CHILD_STARTED, CHILD_LATER, CHILD_FAILED };

/* Starts a process of a slot in a place that is free: one that a template has made, or one that is forked here. LATER: a template is at
 * it, and its word is an event. FAILED: with errno. */
enum child_start child_start_worker(struct supervisor *supervisor, struct child *child, const struct birth *birth);

/* Gives a child an order to leave, and kills it when it has not within `grace_ms`. */
void child_ask_to_leave(struct supervisor *supervisor, struct child *child, enum order order, uint64_t grace_ms);

/* SIGKILL; its end follows as an event. The verdict is the cause of death that is published then. */
void child_kill(struct child *child, enum death_cause verdict);

/* Reaps a dead child: writes the obituary, publishes the cause, tells the others, and sets what is due next. */
void child_reap(struct supervisor *supervisor, struct child *child);

/* A worker's words; NULL while it has written none. */
struct life *child_life(const struct supervisor *supervisor, const struct child *child);

/* How far a worker has come, by its own words. */
enum life_state child_life_state(const struct supervisor *supervisor, const struct child *child);

/* Whether the process has said that it serves. */
bool child_is_ready(const struct supervisor *supervisor, const struct child *child);

/* Whether a process is on its way out, or gone: what it held of a mutex is, too. */
bool process_is_exiting(pid_t pid);

/* Whether the kernel has a process in one of the states in `states` (proc(5): R, S, D, T, t, Z). */
bool process_is_in_state(pid_t pid, const char *states);

/* ---- sup_keeper.c: a slot and its processes ---- */

/* Makes the keepers; nothing runs yet. */
void keepers_init(struct supervisor *supervisor);

/* Notes who has announced himself, does what is due, and forks what is wanted. */
void keeper_turn(struct supervisor *supervisor, struct keeper *keeper, uint64_t now);

/* When it wants a turn at the latest; 0: when something happens. */
uint64_t keeper_due(const struct supervisor *supervisor, const struct keeper *keeper, uint64_t now);

/* A process of the slot has died; what follows in words. Before it is forgotten. */
void keeper_bury(struct supervisor *supervisor, struct keeper *keeper, struct child *child, enum death_cause cause,
		 int exit_code, char then[128]);

/* Notes who has announced himself. */
void keeper_see(struct supervisor *supervisor, struct keeper *keeper);

/* Gives the slot's memory up: its processes are killed, its sessions fail, and it begins again on fresh memory. */
void keeper_give_up(struct supervisor *supervisor, struct keeper *keeper, const char *why);

/* Stops a slot for good: heirs at once, then the owner in order. */
void keeper_stop(struct supervisor *supervisor, struct keeper *keeper);

/* Has an heir take over from the owner, in order. False when there is no owner to be asked. */
bool keeper_replace_owner(struct supervisor *supervisor, struct keeper *keeper);

/* Whether its owner is ready. */
bool keeper_is_ready(const struct supervisor *supervisor, const struct keeper *keeper);

/* A place whose words nobody needs: the last owner's are read by its successor, who has done so once it serves. NULL: none. */
struct child *keeper_free_place(const struct supervisor *supervisor, struct keeper *keeper);

/* Forks one more process of the slot, with this generation of code. Its number; 0: that is not possible now. */
uint32_t keeper_fork(struct supervisor *supervisor, struct keeper *keeper, uint32_t code, uint64_t now);

/* The process of a number that has not been reaped, or NULL. */
struct child *keeper_process(struct keeper *keeper, uint32_t number);

/* Heirs that have all loaded and wait. */
uint32_t keeper_heirs(const struct supervisor *supervisor, const struct keeper *keeper);

/* The process id of one of them; 0: there is none. */
uint64_t keeper_heir_pid(const struct supervisor *supervisor, const struct keeper *keeper);

/* ---- sup_reload.c: new code ---- */

/* Makes what is served the first generation of code. */
void codes_init(struct supervisor *supervisor);

/* A generation that there is. */
struct code *code_of(struct supervisor *supervisor, uint32_t number);

/* Whether slots are to be served by it, now or by the reload that is under way. */
bool code_is_needed(const struct supervisor *supervisor, uint32_t number);

/* Starts to check a descriptor, and goes on by itself. False and `why` when that cannot be. */
bool reload_start(struct supervisor *supervisor, const char *path, char why[RELOAD_MESSAGE_MAX]);

/* Moves a reload on. */
void reload_turn(struct supervisor *supervisor, uint64_t now);

/* When it wants a turn at the latest; 0: when something happens. */
uint64_t reload_due(const struct supervisor *supervisor);

/* "none", "checking", "replacing", "done", "failed". */
const char *reload_state_name(enum reload_state state);

/* ---- sup_template.c: processes that have code loaded for others ---- */

/* Starts the template of a generation, if that is worth it. Before any process of it. */
void template_start(struct supervisor *supervisor, struct code *code);

enum template_answer { TEMPLATE_HAS_NONE, TEMPLATE_LATER, TEMPLATE_HAS_ONE };

/* Asks for a process that has the code loaded. HAS_NONE: there will be none. */
enum template_answer template_ask(struct supervisor *supervisor, struct code *code);

/* Has the one that there is run as a process of a slot. False when it has died meanwhile. */
bool template_give(struct supervisor *supervisor, struct code *code, struct launched *launched,
		   const struct birth *birth);

/* Hears what templates say, reaps them, ends those that nothing needs. */
void templates_turn(struct supervisor *supervisor, uint64_t now);

/* When they want a turn at the latest; 0: when something happens. */
uint64_t templates_due(const struct supervisor *supervisor);

/* Whether a template has not been reaped yet: that of a generation, or any. */
bool template_is_there(const struct code *code);
bool templates_are_there(const struct supervisor *supervisor);

/* Whether a child is one of them, or what they made and no slot has. */
bool templates_own(const struct supervisor *supervisor, pid_t pid);

/* ---- sup_watchdog.c ---- */

/* Looks at the workers if it is time to. */
void watchdog_turn(struct supervisor *supervisor, uint64_t now);

/* ---- sup_run.c ---- */

/* Stops as SIGTERM does. */
void supervisor_drain(struct supervisor *supervisor);

/* Called for every dead child before anything else is done about it: what its end means for the sidecar as a whole. */
void supervisor_child_died(struct supervisor *supervisor, struct child *child, const siginfo_t *end);

/* ---- sup_deaths.c: why, and the list of the last ones ---- */

/* Why a child ended. */
enum death_cause death_find_cause(struct supervisor *supervisor, const struct child *child, const siginfo_t *end);

/* Copies what a dead worker showed of the input in hand, if it is text as it has to be: ended, UTF-8, without control characters. */
bool death_read_input(const struct progress *progress, char key[INPUT_TEXT_MAX], char input[INPUT_TEXT_MAX]);

/* Notes a death in the list; what it was at is taken from its words. */
void deaths_note(struct supervisor *supervisor, const struct child *child, const siginfo_t *end, enum death_cause cause,
		 const char *then);

/* The same of a template; `then` is what follows. */
void deaths_note_template(struct supervisor *supervisor, const struct code *code, const siginfo_t *end,
			  const char *then);

/* Takes note of the end of a process that is nobody's, so that what the memory killer did to it is not taken for the next child's. */
void death_of_nobody(struct supervisor *supervisor, const siginfo_t *end);

/* How often the kernel's memory killer has struck in this process's container; 0 where nobody says. `root` is put before every
 * path that is read ("" but in tests). */
uint64_t oom_kills_read(const char *root);

/* ---- sup_obituary.c ---- */

/* What a dead child was, how it ended, what it was at, from its progress words, which are not believed further than they can be
 * checked; and what is done about it. */
void obituary_write(const struct supervisor *supervisor, const struct child *child, const siginfo_t *end,
		    enum death_cause cause, const char *then);

/* "signal 11 (Segmentation fault)" or "exit code 4 (...)". */
const char *death_words(const siginfo_t *end, char text[128]);

#endif
