/*
 * The processes: what each is handed when it is forked. A role never returns; it leaves by _exit.
 */
#ifndef SERVER_ROLES_H
#define SERVER_ROLES_H

#include "descriptor/descriptor.h"
#include "server/config.h"
#include "shared/control.h"
#include "shared/slot.h"

/* Everything that exists before the first fork. */
struct sidecar {
	struct config config;
	const struct descriptor *descriptor;
	struct control_memory control;
	struct slot_memory slots[SLOTS_MAX]; /* config.slots of them */
	int state_dir; /* the directory that arenas are files in, locked; -1: they are memfds. The supervisor's alone */
};

/* Exit codes of children, beyond 0 (orderly). */
enum {
	EXIT_FRONT_BIND = 3, /* an address could not be bound; front_page.failure says which and why */
	EXIT_CHAIN = 4,      /* the worker could not open the pipeline's steps; the log says why */
	EXIT_ORPHAN = 5,     /* the supervisor was gone */
	EXIT_DAMAGED = 6,    /* the slot's memory cannot be true; the log says what */
	EXIT_UNMEANT = 7,    /* an heir whose turn came, and who was not meant to run */
	EXIT_MEMORY = 8,     /* the worker's own memory is used up (--worker-memory); the log says on what */
};

/* The front: gRPC on one side, rings on the other (server/front.c). */
void front_main(struct sidecar *sidecar, uint32_t generation) __attribute__((noreturn));

/* A process of a slot (worker/worker.c): an heir, then the owner. */
void worker_main(struct sidecar *sidecar, const struct birth *birth) __attribute__((noreturn));

/* A template (worker/template.c): it loads the pipeline's code and makes processes of slots; `link` goes to the supervisor. */
struct roles;
void template_main(struct sidecar *sidecar, const struct roles *roles, int link) __attribute__((noreturn));

#endif
