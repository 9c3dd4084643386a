/*
 * When to start a dead process again: policy alone, no clock and no process in here.
 *
 * A process that had done work is replaced at once. One that died before its first work is likely to do so again: the next one
 * waits, twice as long each time, up to a limit. One that lived longer than that limit counts as a first such death.
 *
 * Two kinds of early deaths are no sign of that, up to a number: those that came from outside, and those of an owner that dies
 * of the input its predecessor died of; it takes three to find out which input it is.
 */
#ifndef SERVER_SUP_POLICY_H
#define SERVER_SUP_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum {
	RESTART_FREE_KILLS = 16,    /* deaths from outside in a row that cost nothing */
	RESTART_FREE_TAKEOVERS = 3, /* deaths of owners before their first work, likewise */
	RESTART_TAKEOVERS_MAX = 10, /* so many in a row: the slot cannot go on */
};

/* What the policy remembers of one process's predecessors. */
struct restart_history {
	uint32_t early_deaths; /* in a row */
	uint32_t kills;        /* of these, from outside and for nothing */
	uint32_t early_owners; /* in a row: owners that died before their first work */
};

/* How a life ended. */
struct restart_death {
	bool ordered;   /* it was told to leave, or killed because it would not */
	bool worked;    /* it had finished some work */
	bool outside;   /* it was killed from outside, after it had loaded its code */
	bool took_over; /* it had become a slot's owner */
	uint64_t lived_ms;
};

/* How long to wait before the next one, in ms; 0: not at all. */
uint64_t restart_delay(struct restart_history *history, struct restart_death death, uint64_t delay_ms,
		       uint64_t delay_max_ms);

/* Whether owner after owner has died before its first work: the memory that they take over must be given up. */
bool restart_gives_up(const struct restart_history *history);

#endif
