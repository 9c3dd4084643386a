/*
 * Fault points: places where a test lets a process die, as if by SIGKILL, to see that whoever comes after it goes on.
 *
 *   FAULT_POINT(commit_before);
 *
 * Only the debug variant has them; elsewhere they are nothing. A point is armed by the environment variable BRIDGE_FAULT, which
 * names it and says at which pass to die ("commit_before:3"; once, in the first process that reads it and comes there), or by a
 * call. All points are in fault.def.
 */
#ifndef SHARED_FAULT_H
#define SHARED_FAULT_H

#include <stdint.h>

enum fault {
#define FAULT(name, when) FAULT_##name,
#include "shared/fault.def"
#undef FAULT
	FAULT_COUNT,
};

/* The name of a point, and the words that say where it is. */
const char *fault_name(enum fault fault);
const char *fault_when(enum fault fault);

/* Lets this process die at the `pass`th time (from 1) that it comes to a point; 0 disarms. One point at a time. */
void fault_arm(enum fault fault, uint64_t pass);

/* How often this process has come to a point since it was last armed or disarmed; 0 but in the debug variant. */
uint64_t fault_passes(enum fault fault);

#ifdef FAULT_POINTS
void fault_pass(enum fault fault);
#define FAULT_POINT(name) fault_pass(FAULT_##name)
#else
#define FAULT_POINT(name) ((void)FAULT_##name)
#endif

#endif
