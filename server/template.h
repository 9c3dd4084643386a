/*
 * The template process: it has the modules of one generation of code loaded, and makes the processes of the slots, which so have them, too.
 *
 *   supervisor                                template                      spare: a process without a slot
 *      | <------ struct template_word ------------|
 *      | ------- one end of a new socket -------->| ---- forks, forks again ---> |
 *      | <------------------- a byte: here I am ---------------------------------|
 *      | -------------------- struct birth, the slot's descriptors ------------->| runs as a worker that was forked for it
 *
 * A slot's process must be the supervisor's own child: that alone can wait for it, and its death ends it. The supervisor is a subreaper
 * (prctl(2)), so a spare becomes its child when the process between it and the template leaves, which that does at once. A clone with
 * CLONE_PARENT would come there in one step, but without what fork() of the C library does: it runs the handlers by which allocators and
 * the libraries of modules stand a fork, and makes the child's thread id and its list of robust mutexes its own, without which no
 * child could own a slot.
 *
 * A process that forks with threads leaves their locks behind as they are. So the template counts its threads before each fork, and gives
 * up when there are others.
 */
#ifndef SERVER_TEMPLATE_H
#define SERVER_TEMPLATE_H

#include "server/launcher.h"

/* What the template says of itself: once when it has loaded, once more when it gives up later. */
enum template_verdict { TEMPLATE_CAN, TEMPLATE_CANNOT };

struct template_word {
	uint32_t verdict; /* enum template_verdict */
	char why[1000];   /* CANNOT: in words */
};

/* Whether a pipeline has steps whose code is worth it: those in Python. */
bool template_is_wanted(const struct descriptor *descriptor);

/* ---- The template itself ---- */

/* Forks by calling `fork_now`, with all done before and after that a fork of this process needs. What it returned: 0 in the child. */
typedef pid_t template_fork(pid_t (*fork_now)(void *context), void *context);

/* Says that the process cannot serve as a template, and leaves. */
void template_give_up(int link, const char *why) __attribute__((noreturn));

/* Says whether more threads than the calling one are there, by their number; those that end at a fork by themselves do not count. */
uint32_t template_other_threads(template_fork *fork_by);

/* Says that all is loaded, and makes processes as they are asked for; each of them comes out in roles->worker(). */
void template_serve(struct sidecar *sidecar, const struct roles *roles, int link, template_fork *fork_by)
    __attribute__((noreturn));

/* ---- The supervisor's end of a spare's socket ---- */

/* Hands a slot's memory to a spare. False when it is not there any more. */
bool template_send_birth(int link, const struct birth *birth, const struct slot_memory *memory);

/* Hands one end of a new socket to the template; the other one, or -1 with errno. */
int template_send_order(int link);

/* Hears from a spare: 1 and its pid, as the kernel says it; 0: nothing yet; -1: it is gone. */
int template_hear_spare(int link, pid_t *pid);

#endif
