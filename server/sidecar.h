/* Making a sidecar out of its configuration: everything that must exist before the first fork. */
#ifndef SERVER_SIDECAR_H
#define SERVER_SIDECAR_H

#include "server/budget.h"
#include "server/roles.h"
#include "server/sockets.h"

/* Reads the descriptor into `sidecar`; what is wrong with it goes to standard error, or into `json` when that is not NULL. False
 * when there is anything. */
bool sidecar_load(struct sidecar *sidecar, struct json *json);

/* Completes the configuration and checks the memory budget. False when something was found. */
bool sidecar_check(struct sidecar *sidecar, struct budget *budget, struct findings *findings);

/* Takes the sockets' paths and makes the memories. False when that cannot be; a log line says why. */
bool sidecar_create(struct sidecar *sidecar, struct socket_claims *claims);

/* Gives all of it back. */
void sidecar_destroy(struct sidecar *sidecar, struct socket_claims *claims);

/* Opens every segment's chain, and writes a line into `out` for each that cannot be opened; 0 when there is none. To be called in a
 * process of its own: it runs compilers on what people wrote. */
int sidecar_probe_chains(const struct descriptor *descriptor, int out);

/* bridged --check: everything that can be checked without starting. Returns the exit code. */
int sidecar_report_check(struct sidecar *sidecar);

#endif
