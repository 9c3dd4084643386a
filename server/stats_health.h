/* The state of processes as their shared words tell it: for the views of the stats socket. */
#ifndef SERVER_STATS_HEALTH_H
#define SERVER_STATS_HEALTH_H

#include "server/sup.h"

enum { HEALTH_REASONS_MAX = 8, HEALTH_REASON_MAX = 160 };

struct health {
	const char *status; /* STARTING, SERVING, DEGRADED, DRAINING */
	char reasons[HEALTH_REASONS_MAX][HEALTH_REASON_MAX];
	size_t reason_count;
};

/* One process's state in a word: waiting, starting, heir, takes over, serving, ready, draining, leaving, stopped. */
const char *health_state(const struct supervisor *supervisor, const struct child *child);

/* A slot's state in a word: its owner's, or starting or waiting where there is none. */
const char *health_slot_state(const struct supervisor *supervisor, const struct keeper *keeper);

/* How long a worker has been at the frame at hand, in ns; 0: idle. */
uint64_t health_busy_ns(const struct supervisor *supervisor, const struct child *child);

/* How long ago the front last turned its loop, in ns; 0 when it sleeps, as it may. */
uint64_t health_front_silent_ns(const struct supervisor *supervisor);

/* Memory that the process has for itself; 0 when that cannot be read. */
uint64_t health_private_bytes(const struct child *child);

/* The sidecar as a whole. */
void health_judge(const struct supervisor *supervisor, struct health *health);

#endif
