/*
 * A worker's own memory: how much it may have, and its end when that is used up.
 *
 * What cannot be had is neither an error of a step nor one of a record, so no policy passes it over: the process leaves with EXIT_MEMORY, and
 * the supervisor gives the slot up. Slot memory is not the worker's own.
 */
#ifndef WORKER_MEMORY_H
#define WORKER_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Bounds what this process may map of its own (RLIMIT_DATA: heap, private mappings), and has jq leave in order when it gets no memory.
 * 0 bytes: no bound. Once, before code is loaded. */
void memory_bound(uint64_t bytes);

/* Says what there was no memory for, and leaves. */
void memory_leave(const char *what) __attribute__((noreturn));

/* Zeroed memory for so many things; leaves when there is none for `what`. */
void *memory_make(size_t count, size_t size, const char *what) __attribute__((malloc, returns_nonnull));

/* The same as a handler of jq, which calls it instead of abort(). Each program that runs puts its own in place of the thread's. */
void memory_leave_jq(void *unused);

#endif
