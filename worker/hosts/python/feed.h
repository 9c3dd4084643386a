/*
 * A feed: what messages come to a step from and results go to (flink_bridge/engine.py has the same in Python).
 *
 *      process  for message in feed: feed.out = function(message)
 *               each turn settles the result of the turn before: forwards what is the input itself (in stretches, a call of the host for
 *               many), emits what is not; a generator runs before the next message's key is the current one
 *      timer    feed_settle() of what on_timer returned; likewise of the watermark and of the end
 *
 * It also is the step's one link to the host while a call lasts: what is done outside of one, or by another thread, is refused.
 */
#ifndef WORKER_HOSTS_PYTHON_FEED_H
#define WORKER_HOSTS_PYTHON_FEED_H

#include "worker/hosts/python/message.h"

enum feed_phase { FEED_IDLE, FEED_OPENING, FEED_RECORDS, FEED_TIMER, FEED_MOMENT };

struct feed {
	PyObject ob_base;
	PyObject *out; /* the result for the message at hand */
	const struct bridge_host *host;
	struct bridge_context *context;
	const struct bridge_setup *setup;
	enum feed_phase phase;
	const struct bridge_run *run;     /* FEED_RECORDS */
	const struct bridge_timer *timer; /* FEED_TIMER */
	uint64_t call;                    /* number of the call at hand */
	uint32_t at;                      /* index of the message at hand; UINT32_MAX before the first */
	uint32_t used;                    /* the record whose key the host was told to be current; UINT32_MAX: none */
	uint32_t first, count;            /* a stretch of records to forward */
	bool all;                         /* all messages were taken at once */
	bool blamed;                      /* and `at` is the one that a failure is about */
	bool waiting;                     /* for calls outside: the run is to come again */
	bool full;                        /* the unit has no room: whatever the step makes of that, the call fails */
	struct message *message;          /* at hand, or to be used again */
	PyObject *kept;                   /* a list of messages of this call that somebody held on to */
};

extern PyTypeObject feed_type;

/* A feed of a step. */
struct feed *feed_create(const struct bridge_host *host, struct bridge_context *context,
			 const struct bridge_setup *setup);

/* Begins a call, and ends it: messages and views of it are void then. */
void feed_begin(struct feed *feed, enum feed_phase phase);
void feed_end(struct feed *feed);

/* Sends a result on its way, and what is still waiting. False and an exception. */
bool feed_settle(struct feed *feed, PyObject *result);
bool feed_finish(struct feed *feed);

/* The record that a failure now is about. */
uint32_t feed_record(const struct feed *feed);

/* The key that is worked on; false: none. */
bool feed_key(const struct feed *feed, struct bridge_bytes *key);

/* Turns a result of the host into an exception; true when it is none. */
bool feed_allows(struct feed *feed, int result, const char *what);

#endif
