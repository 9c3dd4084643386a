/* Backends (backend.h). */
#include "worker/hosts/python/backend.h"

#include <string.h>

enum { HANDLES_MAX = 64, METRICS_MAX = 64 };

struct backend {
	PyObject ob_base;
	struct feed *feed; /* NULL: the step is closed */
	struct {
		struct bridge_state *state;
		const struct bridge_state_info *info;
	} handles[HANDLES_MAX];
	struct {
		struct bridge_metric *metric;
		PyObject *name;
		int kind;
	} metrics[METRICS_MAX];
	uint32_t handle_count, metric_count;
};

static const char *const kind_names[] = {"value", "map", "list", "timers"};

PyObject *backend_create(struct feed *feed)
{
	struct backend *backend = PyObject_New(struct backend, &backend_type);

	if (!backend)
		return NULL;
	memset(&backend->feed, 0, sizeof(*backend) - offsetof(struct backend, feed));
	backend->feed = (struct feed *)Py_NewRef((PyObject *)feed);
	return (PyObject *)backend;
}

void backend_detach(PyObject *self)
{
	Py_CLEAR(((struct backend *)self)->feed);
}

static void backend_dealloc(PyObject *self)
{
	struct backend *backend = (struct backend *)self;

	for (uint32_t i = 0; i < backend->metric_count; i++)
		Py_XDECREF(backend->metrics[i].name);
	Py_XDECREF(backend->feed);
	PyObject_Free(self);
}

/* The feed, while a call of the worker is at hand in its own thread; else NULL and an exception. */
static struct feed *feed_of(PyObject *self)
{
	struct feed *feed = ((struct backend *)self)->feed;

	if (feed && feed->phase != FEED_IDLE && interpreter_is_own_thread())
		return feed;
	PyErr_SetString(package.StepError,
			interpreter_is_own_thread()
			    ? "state, timers, metrics and time belong to a call of the step; there is none at hand"
			    : "state, timers, metrics and time are for the step's own thread; this is another");
	return NULL;
}

/* The handle that an argument means, with the key that it is about as the current one. */
static struct bridge_state *state_of(PyObject *self, PyObject *number, struct feed **feed)
{
	struct backend *backend = (struct backend *)self;
	unsigned long index = PyLong_AsUnsignedLong(number);

	*feed = feed_of(self);
	if (!*feed || index >= backend->handle_count) {
		if (!PyErr_Occurred())
			PyErr_SetString(package.StepError, "there is no such state");
		return NULL;
	}
	if (!backend->handles[index].info->by_key || (*feed)->phase == FEED_TIMER)
		return backend->handles[index].state;
	if ((*feed)->phase != FEED_RECORDS || (*feed)->all) {
		feed_allows(*feed, BRIDGE_NO_KEY, backend->handles[index].info->name);
		return NULL;
	}
	if ((*feed)->used != (*feed)->at) {
		if (!feed_allows(*feed, (*feed)->host->use((*feed)->context, (*feed)->at), "the key"))
			return NULL;
		(*feed)->used = (*feed)->at;
	}
	return backend->handles[index].state;
}

/* Bytes of an argument. */
static bool bytes_of(PyObject *object, struct bridge_bytes *bytes)
{
	if (!PyBytes_Check(object)) {
		PyErr_Format(PyExc_TypeError, "state holds bytes, not %s: the codec makes them",
			     Py_TYPE(object)->tp_name);
		return false;
	}
	*bytes = (struct bridge_bytes){(const uint8_t *)PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object)};
	return true;
}

static PyObject *object_of(struct bridge_bytes bytes)
{
	return PyBytes_FromStringAndSize((const char *)bytes.data, (Py_ssize_t)bytes.size);
}

/* Whether there are as many arguments as there should be. */
static bool expects(Py_ssize_t count, Py_ssize_t wanted)
{
	if (count == wanted)
		return true;
	PyErr_Format(PyExc_TypeError, "%zd arguments wanted, %zd given", wanted, count);
	return false;
}

/* None, or the exception that a result of the host is. */
static PyObject *none_or(struct feed *feed, int result, const char *what)
{
	return feed_allows(feed, result, what) ? Py_NewRef(Py_None) : NULL;
}

/* ---- Opening ------------------------------------------------------------------------------------------------------- */

/* What the pipeline declares under a name. */
static const struct bridge_state_info *find_info(const struct feed *feed, const char *name, const char *kind)
{
	for (size_t i = 0; i < feed->setup->state_count; i++) {
		const struct bridge_state_info *info = &feed->setup->states[i];
		if (strcmp(info->name, name) != 0)
			continue;
		if (info->kind < 4 && strcmp(kind_names[info->kind], kind) == 0)
			return info;
		PyErr_Format(package.StepError, "the pipeline declares the state `%s` as %s, and it is opened as %s",
			     name, info->kind < 4 ? kind_names[info->kind] : "something else", kind);
		return NULL;
	}
	PyErr_Format(package.StepError, "the pipeline declares no state `%s` for the step: add `state: { %s: %s }`",
		     name, name, kind);
	return NULL;
}

static PyObject *backend_state_open(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct backend *backend = (struct backend *)self;
	struct feed *feed = expects(count, 2) ? feed_of(self) : NULL;
	const char *name = feed ? PyUnicode_AsUTF8(args[0]) : NULL, *kind = name ? PyUnicode_AsUTF8(args[1]) : NULL;
	const struct bridge_state_info *info = kind ? find_info(feed, name, kind) : NULL;

	if (!info)
		return NULL;
	for (uint32_t i = 0; i < backend->handle_count; i++)
		if (backend->handles[i].info == info)
			return PyLong_FromUnsignedLong(i);
	if (backend->handle_count == HANDLES_MAX)
		return PyErr_Format(package.StepError, "a step has %d states at most", HANDLES_MAX);
	backend->handles[backend->handle_count].state = feed->host->state(feed->context, name);
	backend->handles[backend->handle_count].info = info;
	if (!backend->handles[backend->handle_count].state)
		return PyErr_Format(package.StepError, "the state `%s` cannot be opened", name);
	return PyLong_FromUnsignedLong(backend->handle_count++);
}

/* ---- VALUE --------------------------------------------------------------------------------------------------------- */

static PyObject *backend_value_get(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_bytes value;
	int result;

	if (!state)
		return NULL;
	result = feed->host->get(state, &value);
	return result == BRIDGE_OK ? object_of(value) : none_or(feed, result, "a value");
}

static PyObject *backend_value_put(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 2) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_bytes value;

	if (!state || !bytes_of(args[1], &value))
		return NULL;
	return none_or(feed, feed->host->put(state, value), "a value");
}

static PyObject *backend_value_remove(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;

	return state ? none_or(feed, feed->host->remove(state), "a value") : NULL;
}

/* ---- MAP ----------------------------------------------------------------------------------------------------------- */

static PyObject *backend_map_get(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 2) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_bytes key, value;
	int result;

	if (!state || !bytes_of(args[1], &key))
		return NULL;
	result = feed->host->map_get(state, key, &value);
	return result == BRIDGE_OK ? object_of(value) : none_or(feed, result, "a map's entry");
}

static PyObject *backend_map_put(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 3) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_bytes key, value;

	if (!state || !bytes_of(args[1], &key) || !bytes_of(args[2], &value))
		return NULL;
	return none_or(feed, feed->host->map_put(state, key, value), "a map's entry");
}

static PyObject *backend_map_remove(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 2) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_bytes key;

	if (!state || !bytes_of(args[1], &key))
		return NULL;
	return none_or(feed, feed->host->map_remove(state, key), "a map's entry");
}

static PyObject *backend_map_clear(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;

	return state ? none_or(feed, feed->host->map_clear(state), "a map") : NULL;
}

static PyObject *backend_map_items(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_iterator iterator = {0};
	struct bridge_bytes key, value;
	PyObject *items = state ? PyList_New(0) : NULL;
	int result = BRIDGE_OK;

	while (items && (result = feed->host->map_next(state, &iterator, &key, &value)) == BRIDGE_OK) {
		PyObject *pair = Py_BuildValue("(y#y#)", (const char *)key.data, (Py_ssize_t)key.size,
					       (const char *)value.data, (Py_ssize_t)value.size);
		if (!pair || PyList_Append(items, pair) < 0)
			Py_CLEAR(items);
		Py_XDECREF(pair);
	}
	if (items && !feed_allows(feed, result, "a map"))
		Py_CLEAR(items);
	return items;
}

static PyObject *backend_map_count(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;

	return state ? PyLong_FromUnsignedLongLong(feed->host->map_count(state)) : NULL;
}

/* ---- LIST ---------------------------------------------------------------------------------------------------------- */

static PyObject *backend_list_append(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 2) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_bytes value;

	if (!state || !bytes_of(args[1], &value))
		return NULL;
	return none_or(feed, feed->host->list_append(state, value), "a list's element");
}

static PyObject *backend_list_items(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;
	struct bridge_iterator iterator = {0};
	struct bridge_bytes value;
	PyObject *items = state ? PyList_New(0) : NULL;
	int result = BRIDGE_OK;

	while (items && (result = feed->host->list_next(state, &iterator, &value)) == BRIDGE_OK) {
		PyObject *item = object_of(value);
		if (!item || PyList_Append(items, item) < 0)
			Py_CLEAR(items);
		Py_XDECREF(item);
	}
	if (items && !feed_allows(feed, result, "a list"))
		Py_CLEAR(items);
	return items;
}

static PyObject *backend_list_clear(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;

	return state ? none_or(feed, feed->host->list_clear(state), "a list") : NULL;
}

static PyObject *backend_list_count(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 1) ? state_of(self, args[0], &feed) : NULL;

	return state ? PyLong_FromUnsignedLongLong(feed->host->list_count(state)) : NULL;
}

/* ---- TIMERS -------------------------------------------------------------------------------------------------------- */

/* Sets or deletes a timer. */
static PyObject *timer_call(PyObject *self, PyObject *const *args, Py_ssize_t count, bool set)
{
	struct feed *feed;
	struct bridge_state *state = expects(count, 4) ? state_of(self, args[0], &feed) : NULL;
	int event_time = state ? PyObject_IsTrue(args[1]) : -1;
	long long time = event_time < 0 ? -1 : PyLong_AsLongLong(args[2]);
	int domain = event_time ? BRIDGE_EVENT_TIME : BRIDGE_PROCESSING_TIME;
	struct bridge_bytes tag;

	if (event_time < 0 || (time == -1 && PyErr_Occurred()) || !bytes_of(args[3], &tag))
		return NULL;
	return none_or(feed, (set ? feed->host->timer_set : feed->host->timer_delete)(state, domain, time, tag),
		       "a timer");
}

static PyObject *backend_timer_set(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return timer_call(self, args, count, true);
}

static PyObject *backend_timer_delete(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return timer_call(self, args, count, false);
}

/* ---- Metrics ------------------------------------------------------------------------------------------------------- */

/* The metric of a name, found or made; NULL and an exception. */
static struct bridge_metric *find_metric(struct backend *backend, struct feed *feed, PyObject *object, int kind)
{
	const char *name = PyUnicode_AsUTF8(object);
	struct bridge_metric *metric;

	for (uint32_t i = 0; name && i < backend->metric_count; i++)
		if (backend->metrics[i].kind == kind &&
		    (backend->metrics[i].name == object || PyUnicode_Compare(backend->metrics[i].name, object) == 0))
			return backend->metrics[i].metric;
	metric = name && backend->metric_count < METRICS_MAX ? feed->host->metric(feed->context, name, kind) : NULL;
	if (!metric) {
		if (!PyErr_Occurred())
			PyErr_Format(package.StepError,
				     "the metric `%U` cannot be had: there are too many, it is there as another kind, "
				     "or its name "
				     "is not of letters, digits and _",
				     object);
		return NULL;
	}
	backend->metrics[backend->metric_count].metric = metric;
	backend->metrics[backend->metric_count].name = Py_NewRef(object);
	backend->metrics[backend->metric_count++].kind = kind;
	return metric;
}

static PyObject *metric_call(PyObject *self, PyObject *const *args, Py_ssize_t count, int kind)
{
	struct feed *feed = expects(count, 2) ? feed_of(self) : NULL;
	struct bridge_metric *metric = feed ? find_metric((struct backend *)self, feed, args[0], kind) : NULL;
	long long value = metric ? PyLong_AsLongLong(args[1]) : -1;

	if (!metric || (value == -1 && PyErr_Occurred()))
		return NULL;
	feed->host->metric_update(metric, value);
	return Py_NewRef(Py_None);
}

static PyObject *backend_counter_add(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return metric_call(self, args, count, BRIDGE_COUNTER);
}

static PyObject *backend_gauge_set(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return metric_call(self, args, count, BRIDGE_GAUGE);
}

static PyObject *backend_histogram_record(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return metric_call(self, args, count, BRIDGE_HISTOGRAM);
}

/* ---- Key and time -------------------------------------------------------------------------------------------------- */

static PyObject *key(PyObject *self, PyObject *unused)
{
	struct feed *feed = feed_of(self);
	struct bridge_bytes bytes;

	(void)unused;
	if (!feed)
		return NULL;
	return feed_key(feed, &bytes) ? object_of(bytes) : Py_NewRef(Py_None);
}

static PyObject *watermark(PyObject *self, PyObject *unused)
{
	struct feed *feed = feed_of(self);
	int64_t now = feed ? feed->host->now(feed->context, BRIDGE_EVENT_TIME) : 0;

	(void)unused;
	if (!feed)
		return NULL;
	return now == INT64_MIN ? Py_NewRef(Py_None) : PyLong_FromLongLong(now);
}

static PyObject *processing_time(PyObject *self, PyObject *unused)
{
	struct feed *feed = feed_of(self);

	(void)unused;
	return feed ? PyLong_FromLongLong(feed->host->now(feed->context, BRIDGE_PROCESSING_TIME)) : NULL;
}

#define FAST(name)                                                                                                     \
	{                                                                                                              \
#name, (PyCFunction)(void (*)(void))backend_##name, METH_FASTCALL, NULL                                \
	}

static PyMethodDef backend_methods[] = {
    FAST(state_open),
    FAST(value_get),
    FAST(value_put),
    FAST(value_remove),
    FAST(map_get),
    FAST(map_put),
    FAST(map_remove),
    FAST(map_clear),
    FAST(map_items),
    FAST(map_count),
    FAST(list_append),
    FAST(list_items),
    FAST(list_clear),
    FAST(list_count),
    FAST(timer_set),
    FAST(timer_delete),
    FAST(counter_add),
    FAST(gauge_set),
    FAST(histogram_record),
    {"key", key, METH_NOARGS, NULL},
    {"watermark", watermark, METH_NOARGS, NULL},
    {"processing_time", processing_time, METH_NOARGS, NULL},
    {0},
};

PyTypeObject backend_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "flink_bridge.host.Backend",
    .tp_basicsize = sizeof(struct backend),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "State, timers, metrics and time, as the worker has them.",
    .tp_dealloc = backend_dealloc,
    .tp_methods = backend_methods,
};
