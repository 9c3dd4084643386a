/*
 * Unix socket paths, taken so that two sidecars never serve the same one: a lock file beside the socket (PATH.lock, held by
 * flock for the sidecar's life, so that it goes with the process however that ends), and a look at what is there.
 */
#ifndef SERVER_SOCKETS_H
#define SERVER_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>

#include "server/config.h"

enum { SOCKET_WHY_MAX = 512 };

/* The paths of one sidecar. */
struct socket_claims {
	struct {
		const char *path; /* of the socket; belongs to the configuration */
		int lock;
	} claim[LISTEN_MAX + 1];
	size_t count;
};

/* Takes the paths of all Unix addresses and of the stats socket; removes stale sockets. False when one is in use or cannot be
 * taken: `why` says which, and what to do; nothing is held then. */
bool sockets_claim(struct socket_claims *claims, const struct config *config, char why[SOCKET_WHY_MAX]);

/* Removes sockets and lock files, and lets go. */
void sockets_release(struct socket_claims *claims);

#endif
