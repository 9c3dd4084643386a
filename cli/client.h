/*
 * A gRPC client on the C core, for one thread: the local runner and the benchmarks talk to `bridged` through it.
 *
 * A client is one connection and one completion queue. Any number of unary calls and streams are in flight on it; what
 * becomes of them comes out of client_poll, one event at a time. Nothing blocks but client_poll, and nothing is called
 * back. Only client_wake may be called from another thread.
 *
 *   struct client *client = client_connect("unix:/run/bridge.sock", &(struct client_options){0});
 *   struct client_stream *stream = client_stream_open(client, client_method(client, "/pkg.Service/Session"), ...);
 *   client_stream_send(stream, slice);
 *   client_stream_receive(stream);
 *   while (client_poll(client, CLIENT_FOREVER, &event) != CLIENT_ENDED)
 *           ...
 *
 * Messages are gRPC slices both ways, taken over as they are: no copy of ours, unless a message arrived in pieces.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/view.h"

struct client;
struct client_stream;

/* How a client connects. Zeroes are good defaults. */
struct client_options {
	size_t message_max;          /* bytes of one message, either way; 0: 4 MiB */
	uint32_t reconnect_after_ms; /* the pause after a failed attempt; 0: 100 ms, the least that gRPC allows */
};

/* How a call is made. Zeroes are good defaults. */
struct client_call_options {
	bool wait_for_ready;                       /* wait for a connection instead of failing with UNAVAILABLE */
	uint64_t deadline_ns;                      /* CLOCK_MONOTONIC; 0: none */
	const char *metadata_key, *metadata_value; /* one pair to send along; NULL: none */
};

enum client_result {
	CLIENT_TAKEN, /* the message was taken over */
	CLIENT_FULL,  /* the queue is full: the message is still the caller's, CLIENT_ROOM will come */
	CLIENT_GONE,  /* the stream is over or was half-closed: the message is still the caller's */
};

enum client_event_kind {
	CLIENT_TIMEOUT, /* the deadline passed and nothing happened */
	CLIENT_WOKEN,   /* client_wake was called */
	CLIENT_REPLY,   /* a unary call is over: status, text, message when the status is OK */
	CLIENT_MESSAGE, /* a stream received the message that client_stream_receive asked for */
	CLIENT_ROOM,    /* a stream that said CLIENT_FULL has room again */
	CLIENT_ENDED,   /* a stream is over, all its messages were delivered: status, text */
};

struct client_event {
	enum client_event_kind kind;
	void *owner;                  /* what the caller gave when it started the call or stream; else NULL */
	struct client_stream *stream; /* of MESSAGE, ROOM and ENDED; after ENDED it is gone at the next poll */
	grpc_slice message;           /* in one piece; until the next poll, unless the caller takes a reference */
	grpc_status_code status;      /* of REPLY and ENDED */
	struct view text;             /* the status's words, not NUL-terminated; until the next poll */
};

#define CLIENT_FOREVER UINT64_MAX

/* A client of `unix:/path` or `host:port`; connects on its first call. Clients never share a connection. NULL: `address`
 * cannot be one. */
struct client *client_connect(const char *address, const struct client_options *options);

/* Cancels what is in flight, waits for its end, frees everything. */
void client_close(struct client *client);

/* Prepares a method, "/package.Service/Method", for calls; the text must outlive the client. NULL when there are too many. */
const void *client_method(struct client *client, const char *path);

/* Starts a unary call; takes `request` over. CLIENT_REPLY with `owner` will come. False: out of memory. */
bool client_call(struct client *client, const void *method, grpc_slice request,
		 const struct client_call_options *options, void *owner);

/* Unary calls whose reply has not come. */
size_t client_calls_in_flight(const struct client *client);

/* Opens a bidirectional stream that queues up to `queue_max` messages (1 to 1024) behind the one on its way.
 * CLIENT_ENDED with `owner` will come. NULL: out of memory. */
struct client_stream *client_stream_open(struct client *client, const void *method, uint32_t queue_max,
					 const struct client_call_options *options, void *owner);

/* Sends a message, in order; takes it over when it says CLIENT_TAKEN. */
enum client_result client_stream_send(struct client_stream *stream, grpc_slice message);

/* Messages taken and not yet handed to the connection. */
uint32_t client_stream_queued(const struct client_stream *stream);

/* Asks for the next message; one at a time: without a call of this, nothing is read and the sender feels it. */
void client_stream_receive(struct client_stream *stream);

/* Says that no more messages will be sent, behind those queued. */
void client_stream_half_close(struct client_stream *stream);

/* Gives the stream up at once; CLIENT_ENDED comes with CANCELLED. */
void client_stream_cancel(struct client_stream *stream);

/* The next event; waits until `deadline_ns` (CLOCK_MONOTONIC; 0: not at all). Returns event->kind. */
enum client_event_kind client_poll(struct client *client, uint64_t deadline_ns, struct client_event *event);

/* Makes client_poll return CLIENT_WOKEN soon, once for any number of calls. From any thread. */
void client_wake(struct client *client);

/* The name of a status ("UNAVAILABLE"); "?" for a number that is none. */
const char *client_status_name(grpc_status_code status);

#endif
