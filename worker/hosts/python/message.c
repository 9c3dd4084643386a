/* Messages (message.h). */
#include "worker/hosts/python/message.h"

#include <string.h>

#include <structmember.h>

/* What JSON is read with; made at the first need. */
static PyObject *scanner, *decode_error;

static PyObject *no_headers(void)
{
	PyObject *empty = PyDict_New();
	PyObject *proxy = empty ? PyDictProxy_New(empty) : NULL;

	Py_XDECREF(empty);
	return proxy;
}

struct message *message_of(const struct bridge_record *record, uint64_t call, uint32_t index)
{
	struct message *message = PyObject_New(struct message, &message_type);

	if (!message)
		return NULL;
	message->payload = message->key = message->headers = message->json = message->views = NULL;
	message->call = call;
	message->timed = true;
	message->record = record;
	message->index = index;
	message->timestamp = record->timestamp;
	return message;
}

static void message_dealloc(PyObject *self)
{
	struct message *message = (struct message *)self;

	Py_XDECREF(message->payload);
	Py_XDECREF(message->key);
	Py_XDECREF(message->headers);
	Py_XDECREF(message->json);
	Py_XDECREF(message->views);
	PyObject_Free(self);
}

/* ---- Making one ---------------------------------------------------------------------------------------------------- */

/* Bytes of what stands for a payload or key. */
static PyObject *bytes_of(PyObject *value)
{
	if (PyBytes_CheckExact(value))
		return Py_NewRef(value);
	if (PyUnicode_Check(value))
		return PyUnicode_AsUTF8String(value);
	if (PyByteArray_Check(value) || PyMemoryView_Check(value) || PyBytes_Check(value))
		return PyBytes_FromObject(value);
	PyErr_Format(PyExc_TypeError, "bytes or str wanted, not %s", Py_TYPE(value)->tp_name);
	return NULL;
}

/* Headers as a mapping of the message's own, checked. */
static PyObject *headers_of(PyObject *value)
{
	PyObject *dict = PyDict_New(), *name, *text, *proxy = NULL;
	Py_ssize_t at = 0;

	if (!dict || PyDict_Update(dict, value) < 0)
		goto out;
	while (PyDict_Next(dict, &at, &name, &text))
		if (!PyUnicode_Check(name) || !PyUnicode_Check(text)) {
			PyErr_SetString(PyExc_TypeError, "headers are texts: a mapping of str to str");
			goto out;
		}
	proxy = PyDictProxy_New(dict);
out:
	Py_XDECREF(dict);
	return proxy;
}

/* Sets what is given; NULL is not given. */
static bool message_fill(struct message *message, PyObject *payload, PyObject *headers, PyObject *timestamp)
{
	if (payload && !(message->payload = bytes_of(payload)))
		return false;
	if (headers && !(message->headers = headers_of(headers)))
		return false;
	if (timestamp) {
		message->timestamp = PyLong_AsLongLong(timestamp);
		message->timed = true;
		if (message->timestamp == -1 && PyErr_Occurred())
			return false;
	}
	return true;
}

/* An empty one. */
static struct message *message_new_own(void)
{
	struct message *message = PyObject_New(struct message, &message_type);

	if (message)
		memset(&message->record, 0, sizeof(*message) - offsetof(struct message, record));
	return message;
}

/* Message(payload, *, key, headers, timestamp) */
static PyObject *message_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"payload", "key", "headers", "timestamp", NULL};
	PyObject *payload = NULL, *key = Py_None, *headers = Py_None, *timestamp = Py_None;
	struct message *message;

	(void)type;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$OOO:Message", names, &payload, &key, &headers, &timestamp))
		return NULL;
	message = message_new_own();
	if (!message)
		return NULL;
	if ((key != Py_None && !(message->key = bytes_of(key))) ||
	    !message_fill(message, payload, headers == Py_None ? NULL : headers,
			  timestamp == Py_None ? NULL : timestamp) ||
	    (!payload && !(message->payload = PyBytes_FromStringAndSize(NULL, 0)))) {
		Py_DECREF(message);
		return NULL;
	}
	return (PyObject *)message;
}

/* ---- Looking at one ------------------------------------------------------------------------------------------------ */

static PyObject *get_payload(PyObject *self, void *unused)
{
	struct message *message = (struct message *)self;

	(void)unused;
	if (!message->payload) {
		const struct bridge_bytes *bytes = &message->record->payload;
		message->payload = PyBytes_FromStringAndSize((const char *)bytes->data, (Py_ssize_t)bytes->size);
	}
	return Py_XNewRef(message->payload);
}

static PyObject *get_key(PyObject *self, void *unused)
{
	struct message *message = (struct message *)self;

	(void)unused;
	if (!message->key && message->record && message->record->keyed) {
		const struct bridge_bytes *bytes = &message->record->key;
		message->key = PyBytes_FromStringAndSize((const char *)bytes->data, (Py_ssize_t)bytes->size);
		return Py_XNewRef(message->key);
	}
	return Py_NewRef(message->key ? message->key : Py_None);
}

/* The headers of a record as a mapping. */
static PyObject *headers_of_record(const struct bridge_record *record)
{
	PyObject *dict = PyDict_New(), *proxy = NULL;

	for (uint32_t i = 0; dict && i < record->header_count; i++) {
		const struct bridge_header *header = &record->headers[i];
		PyObject *name = PyUnicode_DecodeUTF8((const char *)header->name.data, (Py_ssize_t)header->name.size,
						      "surrogateescape");
		PyObject *value = PyUnicode_DecodeUTF8((const char *)header->value.data, (Py_ssize_t)header->value.size,
						       "surrogateescape");
		if (!name || !value || PyDict_SetItem(dict, name, value) < 0)
			Py_CLEAR(dict);
		Py_XDECREF(name);
		Py_XDECREF(value);
	}
	if (dict)
		proxy = PyDictProxy_New(dict);
	Py_XDECREF(dict);
	return proxy;
}

static PyObject *get_headers(PyObject *self, void *unused)
{
	struct message *message = (struct message *)self;

	(void)unused;
	if (!message->headers && message->record)
		message->headers = headers_of_record(message->record);
	else if (!message->headers)
		return no_headers();
	return Py_XNewRef(message->headers);
}

static PyObject *get_timestamp(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromLongLong(((struct message *)self)->timestamp);
}

bool message_payload(struct message *message, struct bridge_bytes *bytes)
{
	if (message->record) {
		*bytes = message->record->payload;
		return true;
	}
	*bytes = (struct bridge_bytes){(const uint8_t *)PyBytes_AS_STRING(message->payload),
				       (size_t)PyBytes_GET_SIZE(message->payload)};
	return true;
}

static PyObject *message_text(PyObject *self, PyObject *unused)
{
	struct bridge_bytes bytes;

	(void)unused;
	if (!message_payload((struct message *)self, &bytes))
		return NULL;
	return PyUnicode_DecodeUTF8((const char *)bytes.data, (Py_ssize_t)bytes.size, "strict");
}

/* ---- JSON ---- */

/* Finds the scanner of the standard library's decoder, in C, which has none of the checks that json.loads adds in Python. */
static bool find_scanner(void)
{
	PyObject *json = PyImport_ImportModule("json"), *decoder = NULL;

	if (json && (decode_error = PyObject_GetAttrString(json, "JSONDecodeError")) &&
	    (decoder = PyObject_CallMethod(json, "JSONDecoder", NULL)))
		scanner = PyObject_GetAttrString(decoder, "scan_once");
	Py_XDECREF(decoder);
	Py_XDECREF(json);
	return scanner != NULL;
}

static bool is_space(Py_UCS4 character)
{
	return character == ' ' || character == '\n' || character == '\t' || character == '\r';
}

static Py_ssize_t skip_space(PyObject *text, Py_ssize_t at)
{
	while (at < PyUnicode_GET_LENGTH(text) && is_space(PyUnicode_READ_CHAR(text, at)))
		at++;
	return at;
}

/* Raises what json.loads raises. */
static PyObject *not_json(const char *words, PyObject *text, Py_ssize_t at)
{
	PyObject *error = PyObject_CallFunction(decode_error, "sOn", words, text, at);

	if (error)
		PyErr_SetObject(decode_error, error);
	Py_XDECREF(error);
	return NULL;
}

/* Reads one value out of a text. */
static PyObject *read_json(PyObject *text)
{
	Py_ssize_t begin = skip_space(text, 0), end;
	PyObject *place = PyLong_FromSsize_t(begin), *found, *value;
	PyObject *args[] = {text, place};

	if (!place)
		return NULL;
	found = PyObject_Vectorcall(scanner, args, 2, NULL);
	Py_DECREF(place);
	if (!found && PyErr_ExceptionMatches(PyExc_StopIteration)) {
		PyErr_Clear();
		return not_json("Expecting value", text, begin);
	}
	if (!found)
		return NULL;
	value = Py_NewRef(PyTuple_GET_ITEM(found, 0));
	end = skip_space(text, PyLong_AsSsize_t(PyTuple_GET_ITEM(found, 1)));
	Py_DECREF(found);
	if (end == PyUnicode_GET_LENGTH(text))
		return value;
	Py_DECREF(value);
	return not_json("Extra data", text, end);
}

static PyObject *message_json(PyObject *self, PyObject *unused)
{
	struct message *message = (struct message *)self;
	PyObject *text;

	(void)unused;
	if (message->json)
		return Py_NewRef(message->json);
	if (!scanner && !find_scanner())
		return NULL;
	text = message_text(self, NULL);
	if (!text)
		return NULL;
	message->json = read_json(text);
	Py_DECREF(text);
	return Py_XNewRef(message->json);
}

/* ---- Views ---- */

static int message_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct message *message = (struct message *)self;
	struct bridge_bytes bytes;

	if (!message->record) {
		PyErr_SetString(PyExc_BufferError, "bytes(message.payload) is what has a buffer");
		return -1;
	}
	message_payload(message, &bytes);
	return PyBuffer_FillInfo(view, self, (void *)(uintptr_t)bytes.data, (Py_ssize_t)bytes.size, 1, flags);
}

static PyBufferProcs message_buffer = {.bf_getbuffer = message_getbuffer};

static PyObject *message_view(PyObject *self, PyObject *unused)
{
	struct message *message = (struct message *)self;
	PyObject *view;

	(void)unused;
	if (!message->record)
		return PyMemoryView_FromObject(message->payload);
	if (!message->views && !(message->views = PyList_New(0)))
		return NULL;
	view = PyMemoryView_FromObject(self);
	if (view && PyList_Append(message->views, (PyObject *)((PyMemoryViewObject *)view)->mbuf) < 0)
		Py_CLEAR(view);
	return view;
}

/* Whether something holds a buffer that it took of a view over these bytes: memory that cannot be taken from it. */
static bool is_lent_on(PyObject *buffer)
{
	PyObject *gc = PyImport_ImportModule("gc"), *holders = NULL;
	bool lent = true;

	if (gc)
		holders = PyObject_CallMethod(gc, "get_referrers", "O", buffer);
	if (holders) {
		lent = false;
		for (Py_ssize_t i = 0; i < PyList_GET_SIZE(holders); i++) {
			PyObject *holder = PyList_GET_ITEM(holders, i);
			lent |= PyMemoryView_Check(holder) && ((PyMemoryViewObject *)holder)->exports > 0;
		}
	}
	PyErr_Clear();
	Py_XDECREF(holders);
	Py_XDECREF(gc);
	return lent;
}

/* Makes all views over some bytes void, slices and all. */
static bool end_views(PyObject *object)
{
	_PyManagedBufferObject *buffer = (_PyManagedBufferObject *)object;

	if (buffer->flags & _Py_MANAGED_BUFFER_RELEASED)
		return true;
	if (buffer->exports > 0) {
		PyGC_Collect(); /* there may be nobody but a cycle that waits to be found */
		if (buffer->exports > 0 && is_lent_on(object))
			return false;
	}
	if (!(buffer->flags & _Py_MANAGED_BUFFER_RELEASED)) {
		buffer->flags |= _Py_MANAGED_BUFFER_RELEASED;
		PyBuffer_Release(&buffer->master);
	}
	return true;
}

bool message_end(struct message *message)
{
	bool ended = true;

	if (message->views) {
		for (Py_ssize_t i = 0; i < PyList_GET_SIZE(message->views); i++)
			ended &= end_views(PyList_GET_ITEM(message->views, i));
		Py_CLEAR(message->views);
	}
	if (Py_REFCNT(message) > 1 && message->record) {
		Py_XDECREF(get_payload((PyObject *)message, NULL));
		Py_XDECREF(get_key((PyObject *)message, NULL));
		Py_XDECREF(get_headers((PyObject *)message, NULL));
		if (!message->payload) /* no memory for it */
			message->payload = PyBytes_FromStringAndSize(NULL, 0);
		PyErr_Clear();
	}
	message->record = NULL;
	message->call = 0;
	return ended;
}

/* ---- Another one --------------------------------------------------------------------------------------------------- */

/* replace(payload, *, json, headers, timestamp) */
static PyObject *message_replace(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"payload", "json", "headers", "timestamp", NULL};
	PyObject *payload = NULL, *json = NULL, *headers = NULL, *timestamp = NULL, *made = NULL;
	struct message *message = (struct message *)self, *other;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$OOO:replace", names, &payload, &json, &headers, &timestamp))
		return NULL;
	if (json && payload) {
		PyErr_SetString(PyExc_TypeError, "replace() takes a payload or a json value, not both");
		return NULL;
	}
	if (json)
		made = PyObject_CallOneArg(package.dumps, json);
	else
		made = payload ? Py_NewRef(payload) : get_payload(self, NULL);
	other = made ? message_new_own() : NULL;
	if (other) {
		other->call = message->call;
		other->index = message->index;
		other->timestamp = message->timestamp;
		other->timed = message->timed;
		Py_XDECREF(get_key(self, NULL));
		other->key = Py_XNewRef(message->key);
		if (!headers && (message->headers || message->record))
			other->headers = get_headers(self, NULL);
		if (PyErr_Occurred() || !message_fill(other, made, headers, timestamp))
			Py_CLEAR(other);
	}
	Py_XDECREF(made);
	return (PyObject *)other;
}

/* ---- The type ------------------------------------------------------------------------------------------------------ */

/* Two are equal when all that they say is. */
static PyObject *message_compare(PyObject *self, PyObject *other, int operation)
{
	static const char *const names[] = {"payload", "key", "timestamp", "headers"};
	bool equal = true;

	if (Py_TYPE(other) != &message_type || (operation != Py_EQ && operation != Py_NE))
		return Py_NewRef(Py_NotImplemented);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && equal; i++) {
		PyObject *a = PyObject_GetAttrString(self, names[i]), *b = PyObject_GetAttrString(other, names[i]);
		int same = a && b ? PyObject_RichCompareBool(a, b, Py_EQ) : -1;
		Py_XDECREF(a);
		Py_XDECREF(b);
		if (same < 0)
			return NULL;
		equal = same == 1;
	}
	return PyBool_FromLong(equal == (operation == Py_EQ));
}

static PyObject *message_repr(PyObject *self)
{
	struct message *message = (struct message *)self;
	struct bridge_bytes bytes;
	PyObject *shown, *key, *text = NULL;

	message_payload(message, &bytes);
	shown = bytes.size <= 64 ? PyBytes_FromStringAndSize((const char *)bytes.data, (Py_ssize_t)bytes.size)
				 : PyBytes_FromFormat("%.64s...", (const char *)bytes.data);
	key = get_key(self, NULL);
	if (shown && key)
		text = PyUnicode_FromFormat("<Message %R key=%R timestamp=%lld>", shown, key,
					    (long long)message->timestamp);
	Py_XDECREF(shown);
	Py_XDECREF(key);
	return text;
}

static PyGetSetDef message_getset[] = {
    {"payload", get_payload, NULL, "The payload's bytes.", NULL},
    {"key", get_key, NULL, "The key; None where there is none.", NULL},
    {"headers", get_headers, NULL, "The headers, read-only.", NULL},
    {"timestamp", get_timestamp, NULL, "Event time in milliseconds since the epoch.", NULL},
    {0},
};

static PyMethodDef message_methods[] = {
    {"view", message_view, METH_NOARGS, "The payload without a copy, read-only, until the unit of work ends."},
    {"text", message_text, METH_NOARGS, "The payload as text; UnicodeDecodeError when it is not UTF-8."},
    {"json", message_json, METH_NOARGS, "The payload as a JSON value, parsed once."},
    {"replace", (PyCFunction)(void (*)(void))message_replace, METH_VARARGS | METH_KEYWORDS,
     "The same message with something else in it."},
    {0},
};

PyTypeObject message_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "flink_bridge.Message",
    .tp_basicsize = sizeof(struct message),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "A record: payload, key, headers and event time. It cannot be changed; `replace` makes another one.",
    .tp_new = message_new,
    .tp_dealloc = message_dealloc,
    .tp_getset = message_getset,
    .tp_methods = message_methods,
    .tp_richcompare = message_compare,
    .tp_hash = PyObject_HashNotImplemented,
    .tp_repr = message_repr,
    .tp_as_buffer = &message_buffer,
};
