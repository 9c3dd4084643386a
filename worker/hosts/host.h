/*
 * Hosts: kinds of steps whose code is not ours. All of them are libraries behind one interface, bridge_step.h:
 *
 *      native   the library that the pipeline names
 *      python   a library of ours with an interpreter in it (bridge_python.so)
 *
 * A library is loaded by dlopen when a descriptor names it, in a worker, the template of workers, and nowhere else (`bridged --check` forks one for it).
 */
#ifndef WORKER_HOSTS_HOST_H
#define WORKER_HOSTS_HOST_H

#include <sys/types.h>

#include "worker/step.h"

extern const struct step_kind_ops native_ops, python_ops;

/* Where the metrics of steps are kept; without it, in memory of this process. Once, before steps are opened. */
struct metric_table; /* shared/metrics.h */
void host_metrics_in(struct metric_table *table);

/* Loads the code of a step, for all who are forked from this process: what they open later is there. */
bool host_load(const struct segment *segment, const struct step_spec *spec, struct failure *failure);

/* In a process that forks with that code loaded (own_host.h). */
void host_name_threads(char *text, size_t size);
void host_settle(void);
pid_t host_fork(pid_t (*fork_now)(void *context), void *context);

/* Lets go of all code that was loaded. For processes that go on without it; all chains are destroyed. */
void host_forget(void);

#endif
