/*
 * The sidecar of one run: a `bridged` of its own, in a private folder, gone when the run is.
 *
 * The folder (mode 0700) holds the compiled descriptor and the socket; it is removed as soon as every session is open,
 * so that even a SIGKILL leaves nothing. The sidecar gets SIGKILL when this process dies, its own children leave with
 * it; whatever of them is left is reaped here, because this process is their subreaper.
 */
#ifndef CLI_RUN_SIDECAR_H
#define CLI_RUN_SIDECAR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cli/run_watch.h"

struct run_sidecar {
	char folder[64], descriptor[96], socket[96], address[112];
	pid_t pid;                    /* 0: not started, or reaped */
	pid_t group;                  /* of all its processes; 0: not started */
	struct watch_item exit_item;  /* a pidfd */
	struct watch_item log_item;   /* its standard error */
	struct watch_item birth_item; /* inotify: the socket appears */
	bool verbose;
	bool served; /* it took sessions: what it listens on is its own */
	bool asked_to_stop;
	bool died;         /* unasked */
	int status;        /* as waitpid has it */
	const char *stats; /* the path of its stats socket, or NULL */
	char line[4096];
	size_t line_used;
};

/* How it is started. */
struct run_sidecar_options {
	const char *program;     /* NULL: `bridged` beside this program */
	const char *config;      /* --config to hand on, or NULL */
	const char *stats;       /* --stats to hand on, or NULL */
	const char *delta_bytes; /* --delta-bytes, unless the configuration sets the sidecar up */
	uint32_t slots, sessions_per_slot;
	bool verbose;
};

/* Makes the private folder. False: it said why. */
bool run_sidecar_prepare(struct run_sidecar *sidecar);

/* Starts bridged on the descriptor in the folder. Before gRPC and any thread. False: it said why. */
bool run_sidecar_start(struct run_sidecar *sidecar, const struct run_sidecar_options *options);

/* Whether its socket is there. */
bool run_sidecar_has_socket(const struct run_sidecar *sidecar);

/* Passes on what it logged: warnings and errors, and everything when it is verbose. */
void run_sidecar_read_log(struct run_sidecar *sidecar);

/* Whether it has ended although nobody asked it to; then `status` says how. */
bool run_sidecar_check(struct run_sidecar *sidecar);

/* How it ended, in words. Returns `text`. */
const char *run_sidecar_end(const struct run_sidecar *sidecar, char *text, size_t size);

/* Removes the folder and what is in it. */
void run_sidecar_remove_folder(struct run_sidecar *sidecar);

/* Asks it to stop and waits for that, then kills what is left, reaps all of it, and removes the folder. It has 10 s, or
 * until a signal comes on `signal_fd`; half a second when in a hurry. */
void run_sidecar_stop(struct run_sidecar *sidecar, bool hurry, int signal_fd);

#endif
