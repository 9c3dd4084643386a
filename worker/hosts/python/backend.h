/*
 * What a step's context stands on (Backend in flink_bridge/step.py): state, timers, metrics and time, as calls of the host. They belong to
 * the call at hand, which the step's feed knows.
 */
#ifndef WORKER_HOSTS_PYTHON_BACKEND_H
#define WORKER_HOSTS_PYTHON_BACKEND_H

#include "worker/hosts/python/feed.h"

extern PyTypeObject backend_type;

/* The backend of a step, which has its feed until backend_detach(). */
PyObject *backend_create(struct feed *feed);

/* The step is closed: what still holds the backend can do nothing with it. */
void backend_detach(PyObject *self);

#endif
