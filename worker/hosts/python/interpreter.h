/*
 * The interpreter of a worker process: started once, with the worker's log in place of standard output and error.
 *
 * It is entered for each call of the worker and left again, so that threads that steps have started run while the worker waits. All else
 * of this folder is called within.
 */
#ifndef WORKER_HOSTS_PYTHON_INTERPRETER_H
#define WORKER_HOSTS_PYTHON_INTERPRETER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "worker/hosts/bridge_step.h"

/* What the host uses of the package. */
struct package {
	PyObject *find_target, *Runner, *Context, *Timer; /* engine, step */
	PyObject *describe, *is_transient;                /* engine */
	PyObject *StepError;
	PyObject *To, *Json;
	PyObject *dumps;
};
extern struct package package;

/* Starts the interpreter if there is none yet. False: the words went to host->fail(). Enters nothing. */
bool interpreter_start(const struct bridge_host *host, struct bridge_context *context);

/* Enters it for a step, whose context the log goes to; leaves it. */
void interpreter_enter(const struct bridge_host *host, struct bridge_context *context);
void interpreter_leave(void);

/* Whether this process is a child that a step has forked and that came back from there: it must not go on as the worker, and ends. */
extern volatile bool interpreter_forked;
void interpreter_end_child(void) __attribute__((noreturn));

/* For a process that forks with modules loaded (own_host.h). */
void interpreter_name_threads(char *text, size_t size);
void interpreter_settle(void);
pid_t interpreter_fork(pid_t (*fork_now)(void *context), void *context);

/* Whether the thread at hand is the worker's own. */
bool interpreter_is_own_thread(void);

/* Takes the exception at hand and hands its words to host->fail(), as of a record. Returns BRIDGE_FAILED. */
int interpreter_fail(const struct bridge_host *host, struct bridge_context *context, uint32_t record);

/* The bytes of a str as they lie in it; false and an exception when it has none. */
bool interpreter_text(PyObject *text, struct bridge_bytes *bytes);

#endif
