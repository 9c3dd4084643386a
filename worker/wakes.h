/*
 * Wake-ups from within: other threads of a worker process say that what a step waits for outside is there.
 *
 *      step: wakes_count(), looks, it is not there yet --> its unit is undone, its session rests while the count is the same
 *      other thread: it is there now --> wakes_ring(): the count moves, and the worker, should it sleep, is rung awake
 *
 * Counted before looking, so what comes between looking and resting is not missed. Only a process that serves a slot has a bell; without
 * one nothing rests for this.
 */
#ifndef WORKER_WAKES_H
#define WORKER_WAKES_H

#include <stdbool.h>
#include <stdint.h>

/* Says what rings this process awake. Once, in a worker. */
void wakes_have_bell(int bell);

/* Whether there is one. */
bool wakes_are_heard(void);

/* How often has been rung. */
uint32_t wakes_count(void);

/* Rings. From any thread. */
void wakes_ring(void);

#endif
