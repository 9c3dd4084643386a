/*
 * The supervisor: starts front and workers, replaces the dead, stops all in order, answers the stats socket.
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
 *                 fork                    told to leave
 *   CHILD_DOWN -----------> CHILD_UP ------------------> CHILD_LEAVING
 *       ^ (until `due`)        |                               | (until `due`, then SIGKILL)
 *       +----------------------+-------------------------------+   dead and reaped: generation raised
 */
enum child_state { CHILD_DOWN, CHILD_UP, CHILD_LEAVING };

struct child {
	enum child_role role;
	uint32_t slot; /* of a worker */
	enum child_state state;
	pid_t pid;
	int pidfd; /* -1 while down */
	uint32_t generation;
	uint32_t wanted_seen; /* the front's last demand for a newer worker that was granted */
	uint64_t born_ns;
	uint64_t due_ns; /* DOWN: when to start; LEAVING: when to kill; 0: not at all */
	bool ordered;    /* it was told to leave */
	bool killed;     /* by us */
	bool ready_seen; /* it has been seen ready in this life */
	uint32_t restarts;
	struct restart_history history;
	char last_death[160]; /* the cause of the last death, in words; empty: none */
};

enum phase {
	PHASE_STARTING,
	PHASE_SERVING,
	PHASE_DRAINING, /* the front finishes what is in flight */
	PHASE_LEAVING,  /* the front is gone, the workers leave */
	PHASE_OVER,
};

enum { CHILDREN_MAX = 1 + SLOTS_MAX };

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
	struct child children[CHILDREN_MAX]; /* the front, then a worker per slot */
	uint32_t child_count;
};

/* ---- sup_child.c: one process's life ---- */

/* "front" or "worker 3". */
const char *child_name(const struct child *child, char text[16]);

/* Forks the process of a child that is down; when that fails it stays down and is due later. */
void child_start(struct supervisor *supervisor, struct child *child);

/* Asks a child to leave in order, and kills it when it has not within `grace_ms`. */
void child_ask_to_leave(struct supervisor *supervisor, struct child *child, uint64_t grace_ms);

/* SIGKILL; its end follows as an event. */
void child_kill(struct child *child);

/* Reaps a dead child: writes the obituary, raises the generation, tells the others, and sets when it is due again. */
void child_reap(struct supervisor *supervisor, struct child *child);

/* Whether the process has said that it serves, in this generation. */
bool child_is_ready(const struct supervisor *supervisor, const struct child *child);

/* ---- sup_run.c ---- */

/* Called for every dead child before anything else is done about it: what its end means for the sidecar as a whole. */
void supervisor_child_died(struct supervisor *supervisor, struct child *child, const siginfo_t *end);

/* ---- sup_obituary.c ---- */

/* What a dead child was at, from its progress words, which are not believed further than they can be checked. */
void obituary_write(const struct supervisor *supervisor, const struct child *child, const siginfo_t *end,
		    uint64_t restart_ms);

/* "signal 11 (Segmentation fault)" or "exit code 4 (...)". */
const char *death_words(const siginfo_t *end, char text[128]);

#endif
