/*
 * The launcher: every fork of the sidecar but those of a template (template.h), which is forked here, too. What a child must get rid of
 * before its role begins happens here, once.
 */
#ifndef SERVER_LAUNCHER_H
#define SERVER_LAUNCHER_H

#include <sys/types.h>

#include "server/roles.h"

/* What runs in a child: front_main and worker_main, or a test's doubles. They never return. */
struct roles {
	void (*front)(struct sidecar *sidecar, uint32_t generation);
	void (*worker)(struct sidecar *sidecar, const struct birth *birth);
	/* Loads code, and makes workers that have it (template.h); NULL: there is none. */
	void (*template)(struct sidecar *sidecar, const struct roles *roles, int link);
};

/* A process just forked. */
struct launched {
	pid_t pid;
	int pidfd; /* readable once it is dead */
};

/* Forks the front, or a process of a slot with the code of `descriptor`. 0, or -1 with errno. The supervisor's only thread calls these. */
int launcher_start_front(struct launched *launched, struct sidecar *sidecar, const struct roles *roles,
			 uint32_t generation);
int launcher_start_worker(struct launched *launched, struct sidecar *sidecar, const struct roles *roles,
			  const struct descriptor *descriptor, const struct birth *birth);

/* Forks a process that loads the code of `descriptor`, as a template; `link` is its end of the socket. */
int launcher_start_template(struct launched *launched, struct sidecar *sidecar, const struct roles *roles,
			    const struct descriptor *descriptor, int link);

/* Begins to run as a process of a slot, in one that has become the supervisor's child and has the slot's memory. */
void launcher_begin_worker(struct sidecar *sidecar, const struct roles *roles, const struct birth *birth)
    __attribute__((noreturn));

/* Forks a process that runs a function and leaves with what it returns; it keeps one descriptor to write to. */
int launcher_start_probe(struct launched *launched, int (*probe)(void *context, int out), void *context, int out);

#endif
