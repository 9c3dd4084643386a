/* Feeds (feed.h). */
#include "worker/hosts/python/feed.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <structmember.h>

static uint64_t calls; /* of all steps: so that a message knows whether it is of the one at hand */

struct feed *feed_create(const struct bridge_host *host, struct bridge_context *context,
			 const struct bridge_setup *setup)
{
	struct feed *feed = PyObject_New(struct feed, &feed_type);

	if (!feed)
		return NULL;
	memset(&feed->out, 0, sizeof(*feed) - offsetof(struct feed, out));
	feed->host = host;
	feed->context = context;
	feed->setup = setup;
	feed->kept = PyList_New(0);
	if (!feed->kept)
		Py_CLEAR(feed);
	return feed;
}

static void feed_dealloc(PyObject *self)
{
	struct feed *feed = (struct feed *)self;

	Py_XDECREF(feed->out);
	Py_XDECREF(feed->message);
	Py_XDECREF(feed->kept);
	PyObject_Free(self);
}

void feed_begin(struct feed *feed, enum feed_phase phase)
{
	feed->phase = phase;
	feed->call = ++calls;
	feed->at = feed->used = UINT32_MAX;
	feed->count = 0;
	feed->all = feed->blamed = feed->waiting = feed->full = false;
}

/* A buffer over a payload is in use beyond its unit, and would show other bytes soon: that must not be. */
static void __attribute__((noreturn)) feed_leave(struct feed *feed)
{
	feed->host->log(
	    feed->context, BRIDGE_ERROR,
	    "the process leaves: a buffer of message.view() is in use beyond the call that it was given in (an array "
	    "that is kept?); copy what is to stay");
	_exit(EXIT_FAILURE);
}

void feed_end(struct feed *feed)
{
	bool ended = true;

	Py_CLEAR(feed->out);
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(feed->kept); i++)
		ended &= message_end((struct message *)PyList_GET_ITEM(feed->kept, i));
	PyList_SetSlice(feed->kept, 0, PyList_GET_SIZE(feed->kept), NULL);
	if (feed->message) {
		ended &= message_end(feed->message);
		if (Py_REFCNT(feed->message) > 1)
			Py_CLEAR(feed->message);
	}
	feed->phase = FEED_IDLE;
	feed->run = NULL;
	feed->timer = NULL;
	if (!ended)
		feed_leave(feed);
}

uint32_t feed_record(const struct feed *feed)
{
	if (feed->phase != FEED_RECORDS || feed->at == UINT32_MAX)
		return BRIDGE_NO_RECORD;
	return feed->all && !feed->blamed && feed->run->count > 1 ? BRIDGE_NO_RECORD : feed->at;
}

bool feed_key(const struct feed *feed, struct bridge_bytes *key)
{
	if (feed->phase == FEED_TIMER && feed->setup->keyed) {
		*key = feed->timer->key;
		return true;
	}
	if (feed->phase != FEED_RECORDS || feed->all || feed->at == UINT32_MAX)
		return false;
	*key = bridge_run_record(feed->run, feed->at)->key;
	return bridge_run_record(feed->run, feed->at)->keyed;
}

bool feed_allows(struct feed *feed, int result, const char *what)
{
	switch (result) {
	case BRIDGE_OK:
	case BRIDGE_NONE:
		return true;
	case BRIDGE_FULL:
		feed->full = true;
		PyErr_Format(PyExc_SystemExit, "no room for %s in this unit of work",
			     what); /* not an Exception: it passes by */
		return false;
	case BRIDGE_TOO_LARGE:
		PyErr_Format(package.StepError, "%s: larger than one may be", what);
		return false;
	case BRIDGE_NO_KEY:
		PyErr_Format(
		    package.StepError,
		    "%s: state by key, and no key is worked on (in a batch function or on_watermark there is none)",
		    what);
		return false;
	default:
		PyErr_Format(package.StepError, "%s: not here (%d)", what, result);
		return false;
	}
}

/* ---- Outputs ------------------------------------------------------------------------------------------------------- */

/* Where a result goes, and what it is made from. */
struct way {
	uint32_t from, route;
	const char *name; /* of the route; NULL: none was named */
};

static bool settle(struct feed *feed, PyObject *result, const struct way *way, bool within);

/* Forwards the stretch that waits. */
static bool flush(struct feed *feed)
{
	uint32_t count = feed->count;

	feed->count = 0;
	return count == 0 || feed_allows(feed, feed->host->forward(feed->context, feed->first, count, 0), "a record");
}

/* Hands an input on. */
static inline bool forward(struct feed *feed, uint32_t index, const struct way *way)
{
	if (way->route == 0 && feed->count > 0 && feed->first + feed->count == index) {
		feed->count++;
		return true;
	}
	if (!flush(feed))
		return false;
	if (way->route != 0)
		return feed_allows(feed, feed->host->forward(feed->context, index, 1, way->route), "a record");
	feed->first = index;
	feed->count = 1;
	return true;
}

static bool emit(struct feed *feed, struct bridge_output *output, const struct way *way)
{
	if (!flush(feed))
		return false;
	output->size = sizeof(*output);
	output->route = way->route;
	int result = feed->host->emit(feed->context, output);
	if (result != BRIDGE_NO_KEY)
		return feed_allows(feed, result, "an output");
	PyErr_SetString(
	    package.StepError,
	    "an output has the key that is worked on, and there is none: behind a key_by emit in process or on_timer");
	return false;
}

/* Emits a payload; the rest is that of what it is made from. */
static bool emit_bytes(struct feed *feed, const void *data, Py_ssize_t size, const struct way *way)
{
	struct bridge_output output = {.from = way->from, .payload = {data, (size_t)size}};

	return emit(feed, &output, way);
}

/* A part of the input's payload need not be copied. */
static bool emit_buffer(struct feed *feed, PyObject *result, const struct way *way)
{
	struct bridge_output output = {.from = way->from};
	Py_buffer buffer;
	bool emitted;

	if (PyObject_GetBuffer(result, &buffer, PyBUF_SIMPLE) < 0)
		return false;
	output.payload = (struct bridge_bytes){buffer.buf, (size_t)buffer.len};
	if (way->from != BRIDGE_NO_RECORD) {
		const struct bridge_bytes *input = &bridge_run_record(feed->run, way->from)->payload;
		if ((uintptr_t)buffer.buf >= (uintptr_t)input->data &&
		    (uintptr_t)buffer.buf + (size_t)buffer.len <= (uintptr_t)input->data + input->size)
			output.flags = BRIDGE_OUT_STAYS;
	}
	emitted = emit(feed, &output, way);
	PyBuffer_Release(&buffer);
	return emitted;
}

static bool emit_text(struct feed *feed, PyObject *result, const struct way *way)
{
	Py_ssize_t size;
	const char *text = PyUnicode_AsUTF8AndSize(result, &size);

	return text && emit_bytes(feed, text, size, way);
}

static bool emit_json(struct feed *feed, PyObject *value, const struct way *way)
{
	PyObject *bytes = PyObject_CallOneArg(package.dumps, value);
	bool emitted = bytes && emit_bytes(feed, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), way);

	Py_XDECREF(bytes);
	return emitted;
}

/* The headers of a message, pointing into its texts. NULL and an exception. */
static struct bridge_header *headers_of(PyObject *mapping, size_t *count)
{
	PyObject *pairs = PyMapping_Items(mapping);
	struct bridge_header *headers = NULL;

	*count = 0;
	if (pairs)
		headers = PyMem_Malloc(((size_t)PyList_GET_SIZE(pairs) + 1) * sizeof(*headers));
	for (Py_ssize_t i = 0; headers && i < PyList_GET_SIZE(pairs); i++) {
		PyObject *pair = PyList_GET_ITEM(pairs, i);
		struct bridge_header *header = &headers[(*count)++];

		if (!interpreter_text(PyTuple_GET_ITEM(pair, 0), &header->name) ||
		    !interpreter_text(PyTuple_GET_ITEM(pair, 1), &header->value)) {
			PyMem_Free(headers);
			headers = NULL;
		}
	}
	Py_XDECREF(pairs); /* the texts are the mapping's */
	return headers;
}

/* Whether a message that was made by itself may leave here: the key of an output is that of what is worked on. */
static bool key_fits(const struct feed *feed, const struct message *message, uint32_t from)
{
	struct bridge_bytes key;
	bool keyed = feed_key(feed, &key);

	if (feed->phase == FEED_RECORDS && from != BRIDGE_NO_RECORD) {
		key = bridge_run_record(feed->run, from)->key;
		keyed = bridge_run_record(feed->run, from)->keyed;
	}
	if (!message->key || (keyed && key.size == (size_t)PyBytes_GET_SIZE(message->key) &&
			      memcmp(key.data, PyBytes_AS_STRING(message->key), key.size) == 0))
		return true;
	PyErr_Format(
	    package.StepError,
	    "a message with the key %R cannot leave here: an output has the key that is worked on; emit its payload",
	    message->key);
	return false;
}

/* A message that is no input of this call. */
static bool emit_message(struct feed *feed, struct message *message, const struct way *way)
{
	bool ours = message->call == feed->call && feed->phase == FEED_RECORDS;
	struct bridge_output output = {.from = ours ? message->index : way->from, .timestamp = message->timestamp};
	struct bridge_header *headers = NULL;
	bool emitted;

	if (!ours && !key_fits(feed, message, output.from))
		return false;
	if (message->timed)
		output.flags |= BRIDGE_OUT_TIMESTAMP;
	if (message->headers) {
		headers = headers_of(message->headers, &output.header_count);
		if (!headers)
			return false;
		output.flags |= BRIDGE_OUT_HEADERS;
		output.headers = headers;
	}
	message_payload(message, &output.payload);
	emitted = emit(feed, &output, way);
	PyMem_Free(headers);
	return emitted;
}

/* The number of a route of the step. */
static bool find_route(const struct feed *feed, const char *name, uint32_t *route)
{
	for (size_t i = 0; i < feed->setup->route_count; i++)
		if (strcmp(feed->setup->routes[i], name) == 0) {
			*route = (uint32_t)i;
			return true;
		}
	PyErr_Format(package.StepError, "the step has no route `%s`: the pipeline names them under `routes:`%s", name,
		     feed->setup->route_count == 0 ? ", and does not for this one" : "");
	return false;
}

/* An output on a route that is named. */
static bool settle_to(struct feed *feed, PyObject *result, const struct way *way)
{
	PyObject *name = PyObject_GetAttrString(result, "route"), *value = PyObject_GetAttrString(result, "value");
	struct way other = {.from = way->from};
	bool settled = false;

	if (name && value && way->name)
		PyErr_Format(package.StepError, "an output goes to one route: %R stands in one for `%s`", result,
			     way->name);
	else if (name && value && (other.name = PyUnicode_AsUTF8(name)) && find_route(feed, other.name, &other.route))
		settled = settle(feed, value, &other, false);
	Py_XDECREF(name);
	Py_XDECREF(value);
	return settled;
}

/* Several outputs, or as many as an iterator yields. */
static bool settle_many(struct feed *feed, PyObject *result, const struct way *way)
{
	PyObject *iterator = PyObject_GetIter(result), *each;
	bool settled = iterator != NULL;

	while (settled && (each = PyIter_Next(iterator))) {
		settled = settle(feed, each, way, true);
		Py_DECREF(each);
	}
	Py_XDECREF(iterator);
	return settled && !PyErr_Occurred();
}

/* What is none of the things that a step may return. */
static bool settle_nothing(PyObject *result, bool many)
{
	if (many)
		PyErr_Format(package.StepError,
			     "an output is a %s within many; a JSON array as a payload is Json([...])",
			     Py_TYPE(result)->tp_name);
	else
		PyErr_Format(
		    package.StepError,
		    "a step returned a %s; it returns None, a Message, bytes, str, a dict (as JSON), Json(value), "
		    "To(route, output), or a list, tuple or iterator of these",
		    Py_TYPE(result)->tp_name);
	return false;
}

/* Sends a result on its way: `within` others. */
static bool settle(struct feed *feed, PyObject *result, const struct way *way, bool within)
{
	if (result == Py_None)
		return true;
	if (Py_TYPE(result) == &message_type) {
		struct message *message = (struct message *)result;
		if (message->record)
			return forward(feed, message->index, way);
		return emit_message(feed, message, way);
	}
	if (PyBytes_Check(result))
		return emit_bytes(feed, PyBytes_AS_STRING(result), PyBytes_GET_SIZE(result), way);
	if (PyUnicode_Check(result))
		return emit_text(feed, result, way);
	if (PyDict_Check(result))
		return emit_json(feed, result, way);
	if (PyMemoryView_Check(result) || PyByteArray_Check(result))
		return emit_buffer(feed, result, way);
	if ((PyObject *)Py_TYPE(result) == package.To)
		return settle_to(feed, result, way);
	if ((PyObject *)Py_TYPE(result) == package.Json) {
		PyObject *value = PyObject_GetAttrString(result, "value");
		bool settled = value && emit_json(feed, value, way);
		Py_XDECREF(value);
		return settled;
	}
	if (PyList_Check(result) || PyTuple_Check(result) || PyIter_Check(result))
		return within ? settle_nothing(result, true) : settle_many(feed, result, way);
	return settle_nothing(result, false);
}

/* The outputs of a batch: each from the message at its place, those behind the last from the last. */
static bool settle_batch(struct feed *feed, PyObject *result)
{
	PyObject *sequence = PySequence_Fast(result, "a batch function returns a list of outputs");
	bool settled = sequence != NULL;

	for (Py_ssize_t i = 0; settled && i < PySequence_Fast_GET_SIZE(sequence); i++) {
		uint32_t last = feed->run->count - 1;
		struct way way = {.from = i < (Py_ssize_t)last ? (uint32_t)i : last};
		settled = settle(feed, PySequence_Fast_GET_ITEM(sequence, i), &way, false);
	}
	Py_XDECREF(sequence);
	return settled;
}

bool feed_settle(struct feed *feed, PyObject *result)
{
	struct way way = {.from = feed->phase == FEED_RECORDS ? feed->at : BRIDGE_NO_RECORD};

	if (result == Py_None)
		return true;
	return feed->all ? settle_batch(feed, result) : settle(feed, result, &way, false);
}

bool feed_finish(struct feed *feed)
{
	PyObject *out = feed->out;
	bool settled;

	feed->out = NULL;
	settled = !out || feed_settle(feed, out);
	Py_XDECREF(out);
	return settled && flush(feed);
}

/* ---- Messages ------------------------------------------------------------------------------------------------------ */

/* The next message: the same object again where nobody but the loop's variable and the feed hold it. */
static PyObject *next_message(struct feed *feed)
{
	const struct bridge_record *record = bridge_run_record(feed->run, feed->at);
	struct message *message = feed->message;

	if (message && Py_REFCNT(message) == (message->record ? 2 : 1)) {
		message_renew(message, record, feed->at);
		message->call = feed->call;
		return Py_NewRef((PyObject *)message);
	}
	if (message && message->record && PyList_Append(feed->kept, (PyObject *)message) < 0)
		return NULL;
	Py_XDECREF(message);
	feed->message = message_of(record, feed->call, feed->at);
	return Py_XNewRef((PyObject *)feed->message);
}

static PyObject *feed_next(PyObject *self)
{
	struct feed *feed = (struct feed *)self;
	PyObject *out = feed->out;

	if (interpreter_forked)
		interpreter_end_child();
	if (feed->phase != FEED_RECORDS || feed->all)
		return NULL;
	if (out) {
		bool settled;

		feed->out = NULL;
		settled = out == (PyObject *)feed->message ? forward(feed, feed->at, &(struct way){.from = feed->at})
							   : feed_settle(feed, out);
		Py_DECREF(out);
		if (!settled)
			return NULL;
	}
	if (feed->at + 1 >= feed->run->count)
		return NULL;
	feed->at++;
	return next_message(feed);
}

/* All messages at once. */
static PyObject *feed_take(PyObject *self, PyObject *unused)
{
	struct feed *feed = (struct feed *)self;
	PyObject *list;

	(void)unused;
	if (feed->phase != FEED_RECORDS)
		return PyList_New(0);
	feed->all = true;
	feed->at = 0;
	list = PyList_New((Py_ssize_t)feed->run->count);
	for (uint32_t i = 0; list && i < feed->run->count; i++) {
		struct message *message = message_of(bridge_run_record(feed->run, i), feed->call, i);
		if (!message || PyList_Append(feed->kept, (PyObject *)message) < 0) {
			Py_XDECREF(message);
			Py_CLEAR(list);
			break;
		}
		PyList_SET_ITEM(list, (Py_ssize_t)i, (PyObject *)message);
	}
	return list;
}

/* The index of one of the messages that were taken; UINT32_MAX and an exception. */
static uint32_t taken_index(const struct feed *feed, PyObject *number)
{
	unsigned long index = PyLong_AsUnsignedLong(number);

	if (feed->phase == FEED_RECORDS && feed->all && index < feed->run->count)
		return (uint32_t)index;
	if (!PyErr_Occurred())
		PyErr_SetString(PyExc_IndexError, "no message that was taken has this index");
	return UINT32_MAX;
}

/* give(index, result): the result for one of the messages that were taken. */
static PyObject *feed_give(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct feed *feed = (struct feed *)self;
	struct way way = {0};

	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "give(index, result)");
		return NULL;
	}
	way.from = taken_index(feed, args[0]);
	if (way.from == UINT32_MAX || !settle(feed, args[1], &way, false))
		return NULL;
	return Py_NewRef(Py_None);
}

/* blame(index): a failure is about this one. */
static PyObject *feed_blame(PyObject *self, PyObject *number)
{
	struct feed *feed = (struct feed *)self;
	uint32_t index = taken_index(feed, number);

	if (index == UINT32_MAX)
		return NULL;
	feed->at = index;
	feed->blamed = true;
	return Py_NewRef(Py_None);
}

/* key(bytes): gives the message at hand its key. */
static PyObject *feed_set_key(PyObject *self, PyObject *key)
{
	struct feed *feed = (struct feed *)self;

	if (!PyBytes_Check(key) || feed->phase != FEED_RECORDS || feed->all || feed->at == UINT32_MAX) {
		PyErr_SetString(PyExc_TypeError, "key(bytes), of a message that is at hand");
		return NULL;
	}
	struct bridge_bytes bytes = {(const uint8_t *)PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key)};
	if (!feed_allows(feed, feed->host->key(feed->context, feed->at, bytes), "a key"))
		return NULL;
	return Py_NewRef(Py_None);
}

/* wait(): which run this is, as a pair of numbers, if it may come again when what it waits for is there; else None. */
static PyObject *feed_wait(PyObject *self, PyObject *unused)
{
	struct feed *feed = (struct feed *)self;
	uint64_t seq;
	uint32_t done;

	(void)unused;
	if (feed->phase != FEED_RECORDS || !interpreter_is_own_thread() ||
	    feed->host->wait(feed->context, &seq, &done) != BRIDGE_OK)
		return Py_NewRef(Py_None);
	return Py_BuildValue("(KI)", (unsigned long long)seq, (unsigned int)done);
}

/* postpone(): it is not there yet. */
static PyObject *feed_postpone(PyObject *self, PyObject *unused)
{
	(void)unused;
	((struct feed *)self)->waiting = true;
	return Py_NewRef(Py_None);
}

static PyMemberDef feed_members[] = {
    {"out", T_OBJECT_EX, offsetof(struct feed, out), 0, "The result for the message at hand."},
    {0},
};

static PyMethodDef feed_methods[] = {
    {"take", feed_take, METH_NOARGS, "All messages at once."},
    {"give", (PyCFunction)(void (*)(void))feed_give, METH_FASTCALL, "Takes the result for one of these."},
    {"key", feed_set_key, METH_O, "Gives the message at hand its key."},
    {"wait", feed_wait, METH_NOARGS, "Which run this is, if it may come again."},
    {"postpone", feed_postpone, METH_NOARGS, "Has it come again."},
    {"blame", feed_blame, METH_O, "Says which of these a failure is about."},
    {0},
};

PyTypeObject feed_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "flink_bridge.host.Feed",
    .tp_basicsize = sizeof(struct feed),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What messages come from and results go to.",
    .tp_dealloc = feed_dealloc,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = feed_next,
    .tp_members = feed_members,
    .tp_methods = feed_methods,
};
