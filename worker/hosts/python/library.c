/*
 * The host of Python steps: a library of steps (bridge_step.h) that has an interpreter in it.
 *
 *      load    imports the module and finds the function or class      code: that
 *      open    makes a Runner (flink_bridge/engine.py) over a backend    self: struct python_step
 *      process Runner.drive(feed), and so on: each call enters the interpreter, has a feed for its time, and leaves
 *
 * Left out: more than one interpreter in a process.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/hosts/own_host.h"
#include "worker/hosts/python/backend.h"

struct python_step {
	const struct bridge_host *host;
	struct bridge_context *context;
	struct feed *feed;
	PyObject *backend, *runner;
	PyObject *drive; /* Runner.drive, bound */
};

/* ---- Code ---------------------------------------------------------------------------------------------------------- */

/* What the pipeline says that the function is. */
static const char *form_of(const struct bridge_setup *setup)
{
	const char *form = bridge_option_of(setup->settings, setup->setting_count, "form");

	return setup->sets_keys ? "key_by" : form ? form : "process";
}

static int python_load(const struct bridge_host *host, struct bridge_context *context, const struct bridge_setup *setup,
		       struct bridge_loaded *loaded)
{
	const char *module = bridge_option_of(setup->settings, setup->setting_count, "module");
	const char *function = bridge_option_of(setup->settings, setup->setting_count, "function");
	const char *form = form_of(setup);
	PyObject *target;

	if (!interpreter_start(host, context))
		return BRIDGE_FAILED;
	interpreter_enter(host, context);
	target =
	    PyObject_CallFunction(package.find_target, "sss", module ? module : "", function ? function : "", form);
	if (!target)
		interpreter_fail(host, context, BRIDGE_NO_RECORD);
	interpreter_leave();
	loaded->code = target;
	return target ? BRIDGE_OK : BRIDGE_FAILED;
}

static void python_unload(void *code)
{
	interpreter_enter(NULL, NULL);
	Py_XDECREF((PyObject *)code);
	interpreter_leave();
}

/* ---- A step -------------------------------------------------------------------------------------------------------- */

/* The context that the user's class is given. */
static PyObject *make_context(PyObject *backend, const struct bridge_setup *setup)
{
	PyObject *options = PyDict_New(), *args = Py_BuildValue("(O)", backend), *kwargs = NULL, *context = NULL;

	for (size_t i = 0; options && i < setup->option_count; i++) {
		PyObject *value = PyUnicode_FromString(setup->options[i].value);
		if (!value || PyDict_SetItemString(options, setup->options[i].name, value) < 0)
			Py_CLEAR(options);
		Py_XDECREF(value);
	}
	if (options)
		kwargs = Py_BuildValue("{s:s,s:s,s:I,s:O}", "step", setup->step, "segment", setup->segment,
				       "parallelism", setup->parallelism, "options", options);
	if (args && kwargs)
		context = PyObject_Call(package.Context, args, kwargs);
	Py_XDECREF(options);
	Py_XDECREF(args);
	Py_XDECREF(kwargs);
	return context;
}

static void step_free(struct python_step *step)
{
	if (step->backend)
		backend_detach(step->backend);
	Py_XDECREF(step->drive);
	Py_XDECREF(step->runner);
	Py_XDECREF(step->backend);
	Py_XDECREF((PyObject *)step->feed);
	free(step);
}

/* Makes the runner and opens it. */
static bool step_open(struct python_step *step, const struct bridge_setup *setup, PyObject *target)
{
	const char *form = form_of(setup);
	PyObject *context = NULL, *done = NULL;

	step->feed = feed_create(step->host, step->context, setup);
	step->backend = step->feed ? backend_create(step->feed) : NULL;
	context = step->backend ? make_context(step->backend, setup) : NULL;
	if (!context)
		return false;
	feed_begin(step->feed, FEED_OPENING);
	step->runner = PyObject_CallFunction(package.Runner, "OOOs", target, step->backend, context, form);
	if (step->runner)
		done = PyObject_CallMethod(step->runner, "open", NULL);
	if (done)
		step->drive = PyObject_GetAttrString(step->runner, "drive");
	feed_end(step->feed);
	Py_DECREF(context);
	Py_XDECREF(done);
	return step->drive != NULL;
}

static int python_open(const struct bridge_host *host, struct bridge_context *context, const struct bridge_setup *setup,
		       void *code, void **self)
{
	struct python_step *step = calloc(1, sizeof(*step));
	bool opened;

	if (!step)
		return BRIDGE_FAILED;
	step->host = host;
	step->context = context;
	interpreter_enter(host, context);
	opened = step_open(step, setup, code);
	if (!opened) {
		interpreter_fail(host, context, BRIDGE_NO_RECORD);
		step_free(step);
	}
	interpreter_leave();
	*self = opened ? step : NULL;
	return opened ? BRIDGE_OK : BRIDGE_FAILED;
}

static void python_close(void *self)
{
	struct python_step *step = self;
	PyObject *done;

	interpreter_enter(step->host, step->context);
	done = PyObject_CallMethod(step->runner, "close", NULL);
	if (!done)
		PyErr_WriteUnraisable(step->runner);
	Py_XDECREF(done);
	step_free(step);
	interpreter_leave();
}

/* ---- Calls --------------------------------------------------------------------------------------------------------- */

/* Ends a call: what it made goes out, or the failure's words do. */
static int call_end(struct python_step *step, bool good)
{
	struct feed *feed = step->feed;

	good = good && feed_finish(feed);
	if (!good && !feed->full)
		interpreter_fail(step->host, step->context, feed_record(feed));
	good &= !feed->full;
	bool waiting = good && feed->waiting;
	PyErr_Clear();
	feed_end(feed);
	interpreter_leave();
	return waiting ? BRIDGE_WAITING : good ? BRIDGE_OK : BRIDGE_FAILED;
}

static int python_process(void *self, const struct bridge_run *run)
{
	struct python_step *step = self;
	PyObject *done;

	interpreter_enter(step->host, step->context);
	feed_begin(step->feed, FEED_RECORDS);
	step->feed->run = run;
	done = PyObject_CallOneArg(step->drive, (PyObject *)step->feed);
	Py_XDECREF(done);
	return call_end(step, done != NULL);
}

/* Calls a method of the step, if it has it, and settles what it returns. */
static bool call_method(struct python_step *step, const char *name, PyObject *argument, const char *missing)
{
	PyObject *method = PyObject_GetAttrString(step->runner, name), *result = NULL;
	bool good = method == Py_None && !missing;

	if (method == Py_None && missing)
		PyErr_SetString(package.StepError, missing);
	if (method && method != Py_None) {
		result = PyObject_CallFunctionObjArgs(method, argument, NULL);
		good = result && feed_settle(step->feed, result);
	}
	Py_XDECREF(result);
	Py_XDECREF(method);
	return good;
}

static int python_timer(void *self, const struct bridge_timer *timer)
{
	struct python_step *step = self;
	PyObject *object;
	bool good;

	interpreter_enter(step->host, step->context);
	feed_begin(step->feed, FEED_TIMER);
	step->feed->timer = timer;
	object =
	    PyObject_CallFunction(package.Timer, "Ly#s#O", (long long)timer->time, (const char *)timer->key.data,
				  (Py_ssize_t)timer->key.size, (const char *)timer->tag.data,
				  (Py_ssize_t)timer->tag.size, timer->domain == BRIDGE_EVENT_TIME ? Py_True : Py_False);
	good = object &&
	       call_method(step, "on_timer", object, "a timer is due, and the step has no on_timer(self, timer)");
	Py_XDECREF(object);
	return call_end(step, good);
}

static int python_watermark(void *self, int64_t watermark)
{
	struct python_step *step = self;
	PyObject *time;
	bool good;

	interpreter_enter(step->host, step->context);
	feed_begin(step->feed, FEED_MOMENT);
	time = PyLong_FromLongLong(watermark);
	good = time && call_method(step, "on_watermark", time, NULL);
	Py_XDECREF(time);
	return call_end(step, good);
}

static int python_end(void *self)
{
	struct python_step *step = self;

	interpreter_enter(step->host, step->context);
	feed_begin(step->feed, FEED_MOMENT);
	return call_end(step, call_method(step, "on_end", NULL, NULL));
}

/* How processes are forked with all this loaded. */
extern const struct own_host bridge_own_host;
__attribute__((visibility("default"))) const struct own_host bridge_own_host = {
    .name_threads = interpreter_name_threads,
    .settle = interpreter_settle,
    .fork = interpreter_fork,
};

const struct bridge_step_library *bridge_step_library(void)
{
	static const struct bridge_step_library library = {
	    .abi = BRIDGE_STEP_ABI,
	    .size = sizeof(library),
	    .load = python_load,
	    .unload = python_unload,
	    .open = python_open,
	    .close = python_close,
	    .process = python_process,
	    .timer = python_timer,
	    .watermark = python_watermark,
	    .end = python_end,
	};

	return &library;
}
