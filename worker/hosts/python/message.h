/*
 * Messages in a worker: the Message of the package over the memory that a record lies in.
 *
 *      input  ---- replace() ----> own: payload, headers, timestamp as objects; knows the record that it is made from
 *        |
 *        +-- nobody keeps it: the same object is the next record's
 *        +-- somebody keeps it: at the end of the call its bytes are copied, and it is one of its own from then on
 *
 * A view is memory of the unit, so that at its end all of them are void: those that are kept raise when they are used. What a buffer
 * has been taken of in turn (by an array, say) cannot be made void: message_end says so.
 */
#ifndef WORKER_HOSTS_PYTHON_MESSAGE_H
#define WORKER_HOSTS_PYTHON_MESSAGE_H

#include "worker/hosts/python/interpreter.h"

struct message {
	PyObject ob_base;
	const struct bridge_record *record; /* of an input, during its call; else NULL */
	uint64_t call;                      /* in which it, or what it is made from, was an input; 0: none */
	uint32_t index;                     /* of that record in the call's run */
	bool timed;                         /* timestamp is set */
	int64_t timestamp;
	/* Objects, made when they are asked for; of an own message payload is always there, and headers NULL are not set. */
	PyObject *payload, *key, *headers, *json;
	PyObject *views; /* a list of the buffers that views were given of */
};

extern PyTypeObject message_type;

/* A message of a record. */
struct message *message_of(const struct bridge_record *record, uint64_t call, uint32_t index);

/* Makes it the message of another record of its call. */
static inline void message_renew(struct message *message, const struct bridge_record *record, uint32_t index)
{
	Py_CLEAR(message->payload);
	Py_CLEAR(message->key);
	Py_CLEAR(message->headers);
	Py_CLEAR(message->json);
	Py_CLEAR(message->views); /* all released: each buffer that is not holds its message */
	message->record = record;
	message->index = index;
	message->timestamp = record->timestamp;
}

/* The bytes of its payload; false and an exception. */
bool message_payload(struct message *message, struct bridge_bytes *bytes);

/* Ends its call: views are void, and what anybody but the caller, with one reference, keeps has bytes of its own. False: a buffer of a view
 * is still in use. */
bool message_end(struct message *message);

#endif
