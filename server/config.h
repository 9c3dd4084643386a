/*
 * The sidecar's configuration: parsed from flags and config file, cross-checked, frozen; only then anything forks.
 * One table (server/flags.def) gives names, types, bounds, defaults and help of all of them.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/log.h"
#include "shared/slot.h"

enum { LISTEN_MAX = 8 };

struct config {
	const char *descriptor;         /* path */
	uint32_t slots;                 /* 1 to SLOTS_MAX */
	const char *listen[LISTEN_MAX]; /* "unix:/path" or "host:port", as gRPC takes them */
	uint32_t listen_count;
	const char *stats;                 /* path of the stats socket, or NULL */
	const char *config_file;           /* path, or NULL */
	uint64_t message_max;              /* bytes of one session message */
	uint64_t record_max;               /* bytes of one record */
	uint64_t unary_message_max;        /* bytes of one unary request or reply */
	uint64_t session_ring, unary_ring; /* bytes, powers of two, >= four times the largest message */
	uint32_t sessions_per_slot;
	uint32_t connections_max;
	uint64_t memory_limit; /* bytes for everything; 0: the container's or machine's */
	uint64_t drain_timeout_ms;
	uint64_t open_wait_ms;     /* how long an Open waits for a free slot */
	uint64_t window_bytes_max; /* of unary windows, per slot */
	uint64_t window_age_ms_max;
	uint64_t spin_us; /* how long front and workers look before they sleep, while something is in flight */
	bool direct;      /* benchmarks: the front answers by itself, no worker sees the message */
	enum log_level log_level;
};

/* Reads the command line (and --config); prints help, version or findings itself. Returns -1 to go on, else the exit code. */
int config_parse(struct config *config, int argc, char **argv, bool *check_only);

#endif
