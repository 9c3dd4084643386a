/* What the roles of this folder share. Their entries are in server/roles.h. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdbool.h>

/* Has the kernel let this process interrupt nobody when it wakes up, or lets it do so again. */
void worker_set_patient(bool patient);

#endif
