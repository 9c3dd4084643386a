/*
 * When to start a dead process again: policy alone, no clock and no process in here.
 *
 * A process that had done work is replaced at once. One that died before its first work is likely to do so again: it
 * waits, twice as long each time, up to a limit. One that lived longer than that limit counts as a first such death.
 */
#ifndef SERVER_SUP_POLICY_H
#define SERVER_SUP_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* What the policy remembers of one process's predecessors. */
struct restart_history {
	uint32_t early_deaths; /* in a row */
};

/* How a life ended. */
struct restart_death {
	bool ordered; /* it was told to leave, or killed because it would not */
	bool worked;  /* it had finished some work */
	uint64_t lived_ms;
};

/* How long to wait before the next one, in ms; 0: not at all. */
uint64_t restart_delay(struct restart_history *history, struct restart_death death, uint64_t delay_ms,
		       uint64_t delay_max_ms);

#endif
