/*
 * The gRPC client (client.h). Every batch of operations that is handed to gRPC has a tag, a struct inside the call or
 * stream that it belongs to; a completion is therefore one pointer away from what it is about.
 *
 * A stream has at most three batches under way: the life (initial metadata, then the status: it completes when the
 * call is over), one send, one receive. It is freed only when none is left. CLIENT_ENDED waits for all three, so that
 * it is always the last thing heard of a stream; gRPC itself holds the status back until every message has been read.
 *
 * Unary calls are one batch of six operations. Their structs are pooled: in the steady state nothing is allocated here.
 *
 * Left out: credentials, compression of what is sent, retries (switched off: they would buffer every message).
 */
#include "cli/client.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "shared/locks.h"
#include "shared/log.h"

enum {
	METHODS_MAX = 16,
	QUEUE_MAX = 1024,
	MESSAGE_MAX_DEFAULT = 4 << 20,
	RECONNECT_MS_DEFAULT = 100,
};

enum tag_kind { TAG_WAKE, TAG_UNARY, TAG_LIFE, TAG_SEND, TAG_RECEIVE };

struct tag {
	enum tag_kind kind;
	void *object; /* struct client_unary or client_stream */
};

/* What gRPC fills in at the end of a call. */
struct ending {
	grpc_metadata_array initial, trailing;
	grpc_status_code status;
	grpc_slice text;
};

/* One unary call; in the list of all, and in the free list while it is idle. */
struct client_unary {
	struct client_unary *next, *next_free;
	grpc_call *call; /* NULL while idle */
	void *owner;
	grpc_byte_buffer *reply;
	struct ending ending;
	struct tag tag;
};

struct client_stream {
	struct client_stream *next, *previous;
	struct client *client;
	grpc_call *call;
	void *owner;
	struct ending ending;
	struct tag life_tag, send_tag, receive_tag;
	bool living, sending, receiving; /* batches under way */
	bool broken;                     /* a send failed, or the status is there: no more sends */
	bool close_wanted, close_sent;
	bool room_wanted;
	grpc_byte_buffer *received;
	uint32_t queue_max, queue_first, queue_count;
	grpc_slice queue[]; /* a circle of queue_max */
};

struct client {
	grpc_channel *channel;
	grpc_completion_queue *queue;
	grpc_call *wake_call; /* never started: carries the empty batches of client_wake */
	struct tag wake_tag;
	_Atomic bool waking;
	void *methods[METHODS_MAX];
	size_t method_count;
	struct client_unary *unaries, *free_unaries;
	size_t unaries_in_flight;
	struct client_stream *streams;
	struct client_stream *due_stream; /* its end is the next event: its last message came behind its status */
	/* What the last event lent out. */
	struct client_unary *lent_unary;
	struct client_stream *lent_stream;
	grpc_slice lent_message;
};

/* ---- Connecting ---- */

/* An integer channel argument. */
static grpc_arg integer_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value = {.integer = value}};
}

/* The channel: no retries, no proxy, no service config, nothing compressed or counted, a connection of its own. */
static grpc_channel *create_channel(const char *address, const struct client_options *options)
{
	size_t message_max = options->message_max == 0 ? MESSAGE_MAX_DEFAULT : options->message_max;
	int pause = options->reconnect_after_ms == 0 ? RECONNECT_MS_DEFAULT : (int)options->reconnect_after_ms;
	int limit = message_max > INT32_MAX ? INT32_MAX : (int)message_max;
	grpc_arg args[] = {
	    integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, limit),
	    integer_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1), /* the server says what is too large */
	    integer_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
	    integer_arg(GRPC_ARG_ENABLE_RETRIES, 0),
	    integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
	    integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
	    integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0), /* nor does the server compress */
	    integer_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
	    integer_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
	    integer_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, pause),
	    integer_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, pause),
	    integer_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, pause),
	};
	grpc_channel_args all = {.num_args = sizeof(args) / sizeof(args[0]), .args = args};
	grpc_channel_credentials *insecure = grpc_insecure_credentials_create();
	grpc_channel *channel = grpc_channel_create(address, insecure, &all);
	grpc_channel_credentials_release(insecure);
	return channel;
}

struct client *client_connect(const char *address, const struct client_options *options)
{
	if (address == NULL || address[0] == '\0')
		return NULL;
	struct client *client = calloc(1, sizeof(*client));
	if (client == NULL)
		return NULL;
	locks_unwatched();
	grpc_init();
	client->channel = create_channel(address, options);
	client->queue = grpc_completion_queue_create_for_next(NULL);
	client->wake_tag = (struct tag){TAG_WAKE, client};
	client->lent_message = grpc_empty_slice();
	client->wake_call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
						     grpc_slice_from_static_string("/none"), NULL,
						     gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	CHECK(client->channel != NULL && client->queue != NULL && client->wake_call != NULL);
	return client;
}

const void *client_method(struct client *client, const char *path)
{
	if (client->method_count == METHODS_MAX)
		return NULL;
	void *method = grpc_channel_register_call(client->channel, path, NULL, NULL);
	client->methods[client->method_count++] = method;
	return method;
}

/* ---- What unary calls and streams have in common ---- */

/* Readies the places that gRPC fills in. */
static void ending_init(struct ending *ending)
{
	grpc_metadata_array_init(&ending->initial);
	grpc_metadata_array_init(&ending->trailing);
	ending->status = GRPC_STATUS_UNKNOWN;
	ending->text = grpc_empty_slice();
}

/* Drops a status's text; the arrays can be used again. */
static void ending_clear(struct ending *ending)
{
	grpc_slice_unref(ending->text);
	ending->text = grpc_empty_slice();
	ending->status = GRPC_STATUS_UNKNOWN;
}

/* Frees what ending_init made and gRPC filled in. */
static void ending_deinit(struct ending *ending)
{
	ending_clear(ending);
	grpc_metadata_array_destroy(&ending->initial);
	grpc_metadata_array_destroy(&ending->trailing);
}

/* CLOCK_MONOTONIC nanoseconds as gRPC has them. */
static gpr_timespec timespec_of(uint64_t ns)
{
	if (ns == CLIENT_FOREVER)
		return gpr_inf_future(GPR_CLOCK_MONOTONIC);
	return (gpr_timespec){(int64_t)(ns / 1000000000), (int32_t)(ns % 1000000000), GPR_CLOCK_MONOTONIC};
}

/* A call on a registered method. */
static grpc_call *create_call(struct client *client, const void *method, const struct client_call_options *options)
{
	gpr_timespec deadline = timespec_of(options->deadline_ns == 0 ? CLIENT_FOREVER : options->deadline_ns);
	grpc_call *call = grpc_channel_create_registered_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
							      client->queue, (void *)(uintptr_t)method, deadline, NULL);
	CHECK(call != NULL);
	return call;
}

/* The operation that starts a call; `pair` must live until the batch is started. */
static grpc_op start_op(const struct client_call_options *options, grpc_metadata *pair)
{
	grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
	if (options->wait_for_ready)
		op.flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY | GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
	if (options->metadata_key != NULL) {
		pair->key = grpc_slice_from_copied_string(options->metadata_key);
		pair->value = grpc_slice_from_copied_string(options->metadata_value);
		op.data.send_initial_metadata.metadata = pair;
		op.data.send_initial_metadata.count = 1;
	}
	return op;
}

/* Gives back what start_op made, once the batch is started. */
static void start_op_done(const grpc_op *op, grpc_metadata *pair)
{
	if (op->data.send_initial_metadata.count == 0)
		return;
	grpc_slice_unref(pair->key);
	grpc_slice_unref(pair->value);
}

/* The operations that hear the end of a call. */
static void ending_ops(struct ending *ending, grpc_op ops[2])
{
	ops[0] = (grpc_op){.op = GRPC_OP_RECV_INITIAL_METADATA};
	ops[0].data.recv_initial_metadata.recv_initial_metadata = &ending->initial;
	ops[1] = (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
	ops[1].data.recv_status_on_client.trailing_metadata = &ending->trailing;
	ops[1].data.recv_status_on_client.status = &ending->status;
	ops[1].data.recv_status_on_client.status_details = &ending->text;
}

/* Hands a batch to gRPC; every refusal would be a mistake of ours. */
static void start_batch(grpc_call *call, const grpc_op *ops, size_t count, struct tag *tag)
{
	grpc_call_error error = grpc_call_start_batch(call, ops, count, tag, NULL);
	CHECK(error == GRPC_CALL_OK);
}

/* Takes a message out of its buffer in one piece; frees the buffer. */
static grpc_slice message_of(grpc_byte_buffer *buffer)
{
	grpc_slice message;
	if (buffer->type == GRPC_BB_RAW && buffer->data.raw.compression == GRPC_COMPRESS_NONE &&
	    buffer->data.raw.slice_buffer.count == 1) {
		message = grpc_slice_ref(buffer->data.raw.slice_buffer.slices[0]);
	} else {
		grpc_byte_buffer_reader reader;
		CHECK(grpc_byte_buffer_reader_init(&reader, buffer));
		message = grpc_byte_buffer_reader_readall(&reader);
		grpc_byte_buffer_reader_destroy(&reader);
	}
	grpc_byte_buffer_destroy(buffer);
	return message;
}

/* ---- Unary calls ---- */

/* An idle call from the pool, or a new one; NULL when memory is out. */
static struct client_unary *unary_take(struct client *client)
{
	struct client_unary *unary = client->free_unaries;
	if (unary != NULL) {
		client->free_unaries = unary->next_free;
		return unary;
	}
	unary = calloc(1, sizeof(*unary));
	if (unary == NULL)
		return NULL;
	ending_init(&unary->ending);
	unary->tag = (struct tag){TAG_UNARY, unary};
	unary->next = client->unaries;
	client->unaries = unary;
	return unary;
}

/* Puts a call whose reply was seen back into the pool. */
static void unary_give_back(struct client *client, struct client_unary *unary)
{
	ending_clear(&unary->ending);
	grpc_call_unref(unary->call);
	unary->call = NULL;
	unary->next_free = client->free_unaries;
	client->free_unaries = unary;
}

bool client_call(struct client *client, const void *method, grpc_slice request,
		 const struct client_call_options *options, void *owner)
{
	struct client_unary *unary = unary_take(client);
	if (unary == NULL) {
		grpc_slice_unref(request);
		return false;
	}
	unary->call = create_call(client, method, options);
	unary->owner = owner;
	unary->reply = NULL;
	grpc_byte_buffer *body = grpc_raw_byte_buffer_create(&request, 1);
	grpc_metadata pair = {0};
	grpc_op ops[6] = {start_op(options, &pair),
			  {.op = GRPC_OP_SEND_MESSAGE},
			  {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
			  {.op = GRPC_OP_RECV_MESSAGE}};
	ops[1].data.send_message.send_message = body;
	ops[3].data.recv_message.recv_message = &unary->reply;
	ending_ops(&unary->ending, &ops[4]);
	start_batch(unary->call, ops, 6, &unary->tag);
	start_op_done(&ops[0], &pair);
	grpc_byte_buffer_destroy(body);
	grpc_slice_unref(request);
	client->unaries_in_flight++;
	return true;
}

size_t client_calls_in_flight(const struct client *client)
{
	return client->unaries_in_flight;
}

/* ---- Streams ---- */

struct client_stream *client_stream_open(struct client *client, const void *method, uint32_t queue_max,
					 const struct client_call_options *options, void *owner)
{
	CHECK(queue_max >= 1 && queue_max <= QUEUE_MAX);
	struct client_stream *stream = calloc(1, sizeof(*stream) + queue_max * sizeof(stream->queue[0]));
	if (stream == NULL)
		return NULL;
	stream->client = client;
	stream->owner = owner;
	stream->queue_max = queue_max;
	stream->life_tag = (struct tag){TAG_LIFE, stream};
	stream->send_tag = (struct tag){TAG_SEND, stream};
	stream->receive_tag = (struct tag){TAG_RECEIVE, stream};
	ending_init(&stream->ending);
	stream->next = client->streams;
	if (stream->next != NULL)
		stream->next->previous = stream;
	client->streams = stream;

	stream->call = create_call(client, method, options);
	grpc_metadata pair = {0};
	grpc_op ops[3] = {start_op(options, &pair)};
	ending_ops(&stream->ending, &ops[1]);
	start_batch(stream->call, ops, 3, &stream->life_tag);
	start_op_done(&ops[0], &pair);
	stream->living = true;
	return stream;
}

/* Drops what is queued. */
static void stream_drop_queue(struct client_stream *stream)
{
	for (; stream->queue_count > 0; stream->queue_count--) {
		grpc_slice_unref(stream->queue[stream->queue_first]);
		stream->queue_first = (stream->queue_first + 1) % stream->queue_max;
	}
}

/* Starts the next send, if one is due and none is under way. More behind it: gRPC may wait and write them together. */
static void stream_pump(struct client_stream *stream)
{
	if (stream->sending || stream->broken || stream->close_sent)
		return;
	grpc_op ops[2];
	size_t count = 0;
	grpc_byte_buffer *body = NULL;
	if (stream->queue_count > 0) {
		grpc_slice *first = &stream->queue[stream->queue_first];
		body = grpc_raw_byte_buffer_create(first, 1);
		grpc_slice_unref(*first);
		stream->queue_first = (stream->queue_first + 1) % stream->queue_max;
		stream->queue_count--;
		ops[count] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
		ops[count].flags = stream->queue_count > 0 ? GRPC_WRITE_BUFFER_HINT : 0;
		ops[count++].data.send_message.send_message = body;
	}
	if (stream->queue_count == 0 && stream->close_wanted) {
		ops[count++] = (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
		stream->close_sent = true;
	}
	if (count == 0)
		return;
	stream->sending = true;
	start_batch(stream->call, ops, count, &stream->send_tag);
	if (body != NULL)
		grpc_byte_buffer_destroy(body);
}

enum client_result client_stream_send(struct client_stream *stream, grpc_slice message)
{
	if (stream->broken || stream->close_wanted)
		return CLIENT_GONE;
	if (stream->queue_count == stream->queue_max) {
		stream->room_wanted = true;
		return CLIENT_FULL;
	}
	stream->queue[(stream->queue_first + stream->queue_count) % stream->queue_max] = message;
	stream->queue_count++;
	stream_pump(stream);
	return CLIENT_TAKEN;
}

uint32_t client_stream_queued(const struct client_stream *stream)
{
	return stream->queue_count;
}

void client_stream_receive(struct client_stream *stream)
{
	if (stream->receiving || !stream->living)
		return;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	stream->received = NULL;
	op.data.recv_message.recv_message = &stream->received;
	stream->receiving = true;
	start_batch(stream->call, &op, 1, &stream->receive_tag);
}

void client_stream_half_close(struct client_stream *stream)
{
	stream->close_wanted = true;
	stream_pump(stream);
}

void client_stream_cancel(struct client_stream *stream)
{
	stream->broken = true;
	stream_drop_queue(stream);
	grpc_call_cancel(stream->call, NULL);
}

/* Takes a stream out of the list and frees it. */
static void stream_free(struct client_stream *stream)
{
	if (stream->previous != NULL)
		stream->previous->next = stream->next;
	else
		stream->client->streams = stream->next;
	if (stream->next != NULL)
		stream->next->previous = stream->previous;
	stream_drop_queue(stream);
	ending_deinit(&stream->ending);
	grpc_call_unref(stream->call);
	free(stream);
}

/* ---- Events ---- */

/* Takes back what the last event lent out. */
static void take_back(struct client *client)
{
	grpc_slice_unref(client->lent_message);
	client->lent_message = grpc_empty_slice();
	if (client->lent_unary != NULL)
		unary_give_back(client, client->lent_unary);
	client->lent_unary = NULL;
	if (client->lent_stream != NULL)
		stream_free(client->lent_stream);
	client->lent_stream = NULL;
}

/* Puts a status into an event. */
static void report_ending(const struct ending *ending, struct client_event *event)
{
	event->status = ending->status;
	event->text = (struct view){GRPC_SLICE_START_PTR(ending->text), GRPC_SLICE_LENGTH(ending->text)};
}

/* A unary call is over. */
static void unary_completed(struct client *client, struct client_unary *unary, struct client_event *event)
{
	client->unaries_in_flight--;
	client->lent_unary = unary;
	event->kind = CLIENT_REPLY;
	event->owner = unary->owner;
	report_ending(&unary->ending, event);
	if (unary->reply == NULL)
		return;
	client->lent_message = message_of(unary->reply);
	event->message = client->lent_message;
}

/* A send is done; says so to who was refused before. */
static void send_completed(struct client_stream *stream, bool success, struct client_event *event)
{
	stream->sending = false;
	if (!success) {
		stream->broken = true;
		stream_drop_queue(stream);
	}
	stream_pump(stream);
	if (!stream->room_wanted || stream->queue_count == stream->queue_max || stream->broken)
		return;
	stream->room_wanted = false;
	event->kind = CLIENT_ROOM;
}

/* A receive is done: a message, or nothing because there is none any more. */
static void receive_completed(struct client_stream *stream, struct client_event *event)
{
	stream->receiving = false;
	if (stream->received == NULL)
		return;
	stream->client->lent_message = message_of(stream->received);
	stream->received = NULL;
	event->kind = CLIENT_MESSAGE;
	event->message = stream->client->lent_message;
}

/* Nothing more will be heard of a stream. */
static void stream_ended(struct client *client, struct client_stream *stream, struct client_event *event)
{
	*event = (struct client_event){.kind = CLIENT_ENDED, .owner = stream->owner, .stream = stream};
	report_ending(&stream->ending, event);
	client->lent_stream = stream;
}

/* One of a stream's batches is done; the last one of all ends it. */
static void stream_completed(struct client *client, struct tag *tag, bool success, struct client_event *event)
{
	struct client_stream *stream = tag->object;
	event->stream = stream;
	event->owner = stream->owner;
	if (tag->kind == TAG_SEND)
		send_completed(stream, success, event);
	else if (tag->kind == TAG_RECEIVE)
		receive_completed(stream, event);
	else
		stream->living = false;
	if (!stream->living) {
		stream->broken = true;
		stream_drop_queue(stream);
	}
	if (stream->living || stream->sending || stream->receiving)
		return;
	if (event->kind == CLIENT_MESSAGE)
		client->due_stream = stream;
	else
		stream_ended(client, stream, event);
}

/* What a completion means; it may mean nothing to the caller (CLIENT_TIMEOUT is left as the kind). */
static void completed(struct client *client, struct tag *tag, bool success, struct client_event *event)
{
	switch (tag->kind) {
	case TAG_WAKE:
		atomic_store_explicit(&client->waking, false, memory_order_seq_cst);
		event->kind = CLIENT_WOKEN;
		break;
	case TAG_UNARY:
		unary_completed(client, tag->object, event);
		break;
	case TAG_LIFE:
	case TAG_SEND:
	case TAG_RECEIVE:
		stream_completed(client, tag, success, event);
		break;
	}
}

enum client_event_kind client_poll(struct client *client, uint64_t deadline_ns, struct client_event *event)
{
	take_back(client);
	if (client->due_stream != NULL) {
		stream_ended(client, client->due_stream, event);
		client->due_stream = NULL;
		return event->kind;
	}
	gpr_timespec deadline = timespec_of(deadline_ns);
	do {
		*event = (struct client_event){.kind = CLIENT_TIMEOUT};
		grpc_event done = grpc_completion_queue_next(client->queue, deadline, NULL);
		if (done.type != GRPC_OP_COMPLETE)
			break;
		completed(client, done.tag, done.success != 0, event);
	} while (event->kind == CLIENT_TIMEOUT);
	return event->kind;
}

void client_wake(struct client *client)
{
	if (atomic_exchange_explicit(&client->waking, true, memory_order_seq_cst))
		return;
	start_batch(client->wake_call, NULL, 0, &client->wake_tag);
}

/* ---- The end ---- */

/* Cancels every call and stream. */
static void cancel_all(struct client *client)
{
	for (struct client_unary *unary = client->unaries; unary != NULL; unary = unary->next)
		if (unary->call != NULL)
			grpc_call_cancel(unary->call, NULL);
	for (struct client_stream *stream = client->streams; stream != NULL; stream = stream->next)
		client_stream_cancel(stream);
}

void client_close(struct client *client)
{
	if (client == NULL)
		return;
	struct client_event event;
	take_back(client);
	cancel_all(client);
	while (client->unaries_in_flight > 0 || client->streams != NULL) {
		for (struct client_stream *stream = client->streams; stream != NULL; stream = stream->next)
			client_stream_receive(stream);
		client_poll(client, CLIENT_FOREVER, &event);
		take_back(client);
	}
	grpc_call_unref(client->wake_call);
	grpc_completion_queue_shutdown(client->queue);
	while (grpc_completion_queue_next(client->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
	       GRPC_QUEUE_SHUTDOWN)
		;
	grpc_completion_queue_destroy(client->queue);
	grpc_channel_destroy(client->channel);
	while (client->unaries != NULL) {
		struct client_unary *unary = client->unaries;
		client->unaries = unary->next;
		ending_deinit(&unary->ending);
		free(unary);
	}
	free(client);
	grpc_shutdown_blocking();
}

/* The names of gRPC's statuses, in the order of their numbers. */
static const char *const status_names[] = {
    "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
};

const char *client_status_name(grpc_status_code status)
{
	size_t count = sizeof(status_names) / sizeof(status_names[0]);
	return (size_t)status < count ? status_names[status] : "?";
}
