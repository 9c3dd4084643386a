/*
 * grpc.health.v1.Health: Check and Watch, for the services by name and for the sidecar as a whole ("").
 *
 * The sidecar serves while at least one slot has a worker and it is not draining. The messages have one field each, so
 * they are read and written here field by field.
 */
#include "server/front.h"

#include <stdlib.h>
#include <string.h>

#include "shared/wire.h"

enum { HEALTH_POSTED = 4, HEALTH_WATCHES_MAX = 256 };

enum health_status { HEALTH_SERVING = 1, HEALTH_NOT_SERVING = 2, HEALTH_SERVICE_UNKNOWN = 3 };

/* What one may ask after. */
static const char *const services[] = {"", "flink_worker.FlinkWorkerService", "flink_bridge.FlinkBridge"};

/* A Check or a Watch. */
struct health_call {
	struct front *front;
	struct health_call *next; /* of the watches */
	bool watch;
	grpc_call *call;
	gpr_timespec deadline;
	grpc_metadata_array metadata;
	grpc_byte_buffer *request, *reply;
	struct tag tag, close_tag;
	bool unknown, writing, closed;
	unsigned outstanding;
	enum health_status told; /* a Watch: the last one sent */
	int cancelled;
};

struct health {
	void *check, *watch;
	struct health_call *watches;
	unsigned watch_count;
};

/* What the sidecar would answer now. */
static enum health_status health_now(const struct front *front)
{
	for (uint32_t i = 0; i < front->slot_count && !front->draining; i++)
		if (front->slots[i].up)
			return HEALTH_SERVING;
	return HEALTH_NOT_SERVING;
}

static void health_arrived(void *owner, bool ok);

/* Posts one request for a Check or a Watch. */
static void health_post(struct front *front, bool watch)
{
	struct health_call *call = calloc(1, sizeof *call);
	CHECK(call != NULL);
	call->front = front;
	call->watch = watch;
	call->tag = (struct tag){health_arrived, call};
	grpc_metadata_array_init(&call->metadata);
	void *method = watch ? front->health->watch : front->health->check;
	CHECK(grpc_server_request_registered_call(front->server, method, &call->call, &call->deadline, &call->metadata,
						  &call->request, front->queue, front->queue,
						  &call->tag) == GRPC_CALL_OK);
}

/* Frees a call that gRPC has let go of. */
static void health_free(struct health_call *call)
{
	struct health_call **place = &call->front->health->watches;
	while (*place && *place != call)
		place = &(*place)->next;
	if (*place) {
		*place = call->next;
		call->front->health->watch_count--;
	}
	if (call->request)
		grpc_byte_buffer_destroy(call->request);
	if (call->reply)
		grpc_byte_buffer_destroy(call->reply);
	if (call->call)
		grpc_call_unref(call->call);
	grpc_metadata_array_destroy(&call->metadata);
	free(call);
}

/* Whether the request names a service that we have; false when it cannot be read, too. */
static bool health_knows(grpc_byte_buffer *request)
{
	struct flat flat;
	struct view name = {NULL, 0};
	struct wire_reader reader;
	struct wire_field field;
	if (!request || !flat_read(&flat, request))
		return false;
	wire_reader_init(&reader, flat.view);
	while (wire_next(&reader, &field))
		if (field.number == 1 && field.type == WIRE_BYTES)
			name = field.bytes;
	bool known = false;
	for (size_t i = 0; i < sizeof services / sizeof *services && !reader.malformed; i++)
		known |= view_equal(name, view_of(services[i]));
	flat_release(&flat);
	return known;
}

/* The message HealthCheckResponse{status}. */
static grpc_byte_buffer *health_reply(enum health_status status)
{
	uint8_t bytes[2] = {1 << 3 | WIRE_VARINT, (uint8_t)status};
	return buffer_of(bytes, sizeof bytes);
}

/* A tag of a call fired for the last time, perhaps. */
static void health_settle(struct health_call *call)
{
	if (--call->outstanding == 0)
		health_free(call);
}

/* A Check is answered. */
static void health_checked(void *owner, bool ok)
{
	(void)ok;
	health_settle(owner);
}

/* ---- Watch ---- */

static void health_written(void *owner, bool ok);

/* Tells a watcher the status, if it is news and the last message is through. */
static void health_tell(struct health_call *call)
{
	enum health_status now = call->unknown ? HEALTH_SERVICE_UNKNOWN : health_now(call->front);
	if (call->writing || call->closed || call->told == now)
		return;
	grpc_op ops[2];
	memset(ops, 0, sizeof ops);
	size_t count = 0;
	if (call->told == 0)
		ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
	call->told = now;
	call->writing = true;
	call->reply = health_reply(now);
	ops[count].op = GRPC_OP_SEND_MESSAGE;
	ops[count++].data.send_message.send_message = call->reply;
	call->tag.done = health_written;
	call->outstanding++;
	CHECK(grpc_call_start_batch(call->call, ops, count, &call->tag, NULL) == GRPC_CALL_OK);
}

/* A watcher has been told. */
static void health_written(void *owner, bool ok)
{
	struct health_call *call = owner;
	grpc_byte_buffer_destroy(call->reply);
	call->reply = NULL;
	call->writing = false;
	if (ok)
		health_tell(call);
	health_settle(call);
}

/* A watcher has gone. */
static void health_unwatched(void *owner, bool ok)
{
	(void)ok;
	struct health_call *call = owner;
	call->closed = true;
	health_settle(call);
}

/* Starts to tell a watcher. */
static void health_watch(struct health_call *call)
{
	struct health *health = call->front->health;
	call->next = health->watches;
	health->watches = call;
	health->watch_count++;
	call->close_tag = (struct tag){health_unwatched, call};
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	op.data.recv_close_on_server.cancelled = &call->cancelled;
	call->outstanding++;
	CHECK(grpc_call_start_batch(call->call, &op, 1, &call->close_tag, NULL) == GRPC_CALL_OK);
	health_tell(call);
}

void health_changed(struct front *front)
{
	for (struct health_call *call = front->health->watches; call; call = call->next)
		health_tell(call);
}

void health_drain(struct front *front)
{
	for (struct health_call *call = front->health->watches; call; call = call->next)
		grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE, "the sidecar is stopping", NULL);
}

/* A Check or Watch arrived. */
static void health_arrived(void *owner, bool ok)
{
	struct health_call *call = owner;
	struct front *front = call->front;
	if (!ok) {
		health_free(call);
		return;
	}
	if (!front->draining)
		health_post(front, call->watch);
	call->unknown = !health_knows(call->request);
	if (call->watch && front->health->watch_count < HEALTH_WATCHES_MAX && !front->draining) {
		health_watch(call);
		return;
	}
	call->tag.done = health_checked;
	call->outstanding = 1;
	if (call->watch)
		call_finish(call->call, &call->tag, &call->cancelled, NULL, GRPC_STATUS_RESOURCE_EXHAUSTED,
			    "too many watch the health already, or the sidecar is stopping");
	else if (call->unknown)
		call_finish(call->call, &call->tag, &call->cancelled, NULL, GRPC_STATUS_NOT_FOUND, "unknown service");
	else
		call_finish(call->call, &call->tag, &call->cancelled, call->reply = health_reply(health_now(front)),
			    GRPC_STATUS_OK, NULL);
}

void health_init(struct front *front)
{
	front->health = calloc(1, sizeof *front->health);
	CHECK(front->health != NULL);
	front->health->check = grpc_server_register_method(front->server, "/grpc.health.v1.Health/Check", NULL,
							   GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
	front->health->watch = grpc_server_register_method(front->server, "/grpc.health.v1.Health/Watch", NULL,
							   GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
	CHECK(front->health->check && front->health->watch);
}

void health_start(struct front *front)
{
	for (int i = 0; i < HEALTH_POSTED; i++) {
		health_post(front, false);
		health_post(front, true);
	}
}
