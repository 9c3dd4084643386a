/*
 * What a host of ours has beyond bridge_step.h, found by a symbol of its own: how a process is forked that has its code loaded. Not for
 * authors of steps; host and worker are of one build.
 */
#ifndef WORKER_HOSTS_OWN_HOST_H
#define WORKER_HOSTS_OWN_HOST_H

#include <stddef.h>
#include <sys/types.h>

struct own_host {
	/* Names the threads that the code of steps has started, as far as the language knows them. */
	void (*name_threads)(char *text, size_t size);
	/* All is loaded, and forks follow: makes them share as much memory as can be. */
	void (*settle)(void);
	/* Forks by calling `fork_now`; what that returned: 0 in the process that goes on as the child. */
	pid_t (*fork)(pid_t (*fork_now)(void *context), void *context);
};

#define OWN_HOST_SYMBOL "bridge_own_host"

#endif
