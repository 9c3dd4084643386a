/*
 * The Session stream.
 *
 *   OPENING --Open checked, placed--> RUNNING --END from the worker, or a reason to end--> ENDING --> gone
 *
 * At most one read and one write are outstanding per stream, as gRPC demands. A message that was read and finds no room
 * in the request ring is parked, and nothing more is read until it is through: gRPC's flow control carries that to the
 * client. An answer is taken out of the response ring only when the last write is done, so a client that never reads
 * fills its own ring and parks its own session.
 *
 * The client may go at any time (close_tag). A session's struct lives until none of its tags can fire any more; its
 * channel is closed as soon as the session has ended.
 */
#include "server/front.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/wire.h"

enum { SESSIONS_POSTED = 8 };

/* ---- Life ---- */

static void session_started(void *owner, bool ok);
static void session_end_if_done(struct session *session);

static void *session_method; /* registered once per process */

/* Posts one request for a session. */
static void session_post(struct front *front)
{
	struct session *session = calloc(1, sizeof *session);
	CHECK(session != NULL);
	session->front = front;
	session->start_tag = (struct tag){session_started, session};
	grpc_metadata_array_init(&session->metadata);
	grpc_call_error error = grpc_server_request_registered_call(front->server, session_method, &session->call,
								    &session->deadline, &session->metadata, NULL,
								    front->queue, front->queue, &session->start_tag);
	CHECK(error == GRPC_CALL_OK);
}

/* Frees a session none of whose tags can fire any more. */
static void session_free(struct session *session)
{
	if (session->inbound)
		grpc_byte_buffer_destroy(session->inbound);
	if (session->outbound)
		grpc_byte_buffer_destroy(session->outbound);
	while (session->direct_count > 0)
		grpc_byte_buffer_destroy(
		    session->direct[(session->direct_first + --session->direct_count) % DIRECT_MAX]);
	if (session->call)
		grpc_call_unref(session->call);
	grpc_metadata_array_destroy(&session->metadata);
	open_request_free(session->open);
	free(session);
}

/* Takes a session out of the list of all and frees it. */
static void session_leave(struct session *session)
{
	if (session->next)
		session->next->previous = session->previous;
	if (session->previous)
		session->previous->next = session->next;
	else
		session->front->sessions = session->next;
	if (session->front->sessions_last == session)
		session->front->sessions_last = session->previous;
	session_free(session);
}

/* One tag less can fire. The caller must not touch the session afterwards if this returns false. */
static bool session_settle(struct session *session)
{
	if (--session->outstanding > 0)
		return true;
	session_leave(session);
	return false;
}

/* Starts a batch of one operation on the session's call. */
static void session_start(struct session *session, const grpc_op *op, struct tag *tag)
{
	session->outstanding++;
	CHECK(grpc_call_start_batch(session->call, op, 1, tag, NULL) == GRPC_CALL_OK);
}

/* ---- Reading ---- */

/* Reads the next message, unless one is being read, parked, or none is to come. */
static void session_read(struct session *session)
{
	if (session->reading || session->inbound || session->half_closed || session->state == SESSION_ENDING ||
	    session->front->draining)
		return;
	session->reading = true;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &session->inbound};
	session_start(session, &op, &session->read_tag);
}

/* Drops the message at hand. */
static void session_drop_inbound(struct session *session)
{
	if (session->inbound)
		grpc_byte_buffer_destroy(session->inbound);
	session->inbound = NULL;
	session->parked = false;
}

void session_forward(struct session *session)
{
	struct frame header = {
	    .kind = session->seq == 0      ? FRAME_OPEN
		    : session->half_closed ? FRAME_HALF_CLOSE
					   : FRAME_MESSAGE,
	    .segment = session->segment,
	    .seq = session->seq + 1,
	    .received_ns = session->received_ns,
	};
	uint64_t size = grpc_byte_buffer_length(session->inbound);
	session->parked = channel_end_send(session->end, header, session->inbound) != SEND_OK;
	if (session->parked)
		return;
	session->seq++;
	if (header.kind != FRAME_HALF_CLOSE) {
		counter_add(&session->info->messages_in, 1);
		counter_add(&session->info->bytes_in, size);
		counter_add(&session->front->page->segment[session->segment].calls, 1);
	}
	session_drop_inbound(session);
	session_read(session);
}

/* The first message: an Open. */
static void session_opens(struct session *session)
{
	struct flat flat;
	if (!flat_read(&flat, session->inbound)) {
		session_end(session, GRPC_STATUS_INTERNAL, "the Open could not be read");
		return;
	}
	session->open = open_check(session, flat.view);
	flat_release(&flat);
	if (!session->open || !open_fence(session))
		return;
	session->parked = true;
	if (open_place(session) && session->state == SESSION_RUNNING)
		session_forward(session);
}

/* Tells the worker that no more will come, so that it ends the stream. */
static void session_forward_end(struct session *session)
{
	session->inbound = grpc_raw_byte_buffer_create(NULL, 0);
	session->received_ns = session->front->now_ns;
	session_forward(session);
}

/* Benchmarks: answers without a worker. */
static void session_direct(struct session *session);

/* The client sends no more: the stream ends when all is answered. Whether a restore had come to its end only the worker knows, for
 * RestoreChunks are not answered. */
static void session_half_closed(struct session *session)
{
	session->half_closed = true;
	if (session->front->config->direct)
		session_end(session, GRPC_STATUS_OK, "%s", "");
	else if (session->state == SESSION_OPENING)
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT, "the stream ended before its Open");
	else if (session->open->restores)
		session_forward_end(session);
	else
		session_end_if_done(session);
}

/* A message was read, or none will come any more. */
static void session_was_read(void *owner, bool ok)
{
	struct session *session = owner;
	struct front *front = session->front;
	session->reading = false;
	if (!session_settle(session))
		return;
	if (session->state == SESSION_ENDING) {
		session_drop_inbound(session);
		return;
	}
	if (!ok || !session->inbound) {
		session_half_closed(session);
		return;
	}
	uint64_t size = grpc_byte_buffer_length(session->inbound);
	session->received_ns = front->now_ns;
	counter_add(&front->page->counters.messages_in, 1);
	counter_add(&front->page->counters.bytes_in, size);
	if (size > front->config->message_max)
		session_end(session, GRPC_STATUS_RESOURCE_EXHAUSTED,
			    "a message of %llu bytes: the limit is %llu (--message-max)", (unsigned long long)size,
			    (unsigned long long)front->config->message_max);
	else if (front->config->direct)
		session_direct(session);
	else if (session->state == SESSION_OPENING)
		session_opens(session);
	else
		session_forward(session);
}

/* ---- Writing ---- */

static void session_pump(struct session *session);

/* Sends the status once nothing is being written. */
static void session_send_status(struct session *session)
{
	if (session->writing || session->status_sent)
		return;
	session->status_sent = true;
	grpc_slice details = grpc_slice_from_copied_string(session->status_text);
	grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
	op.data.send_status_from_server.status = session->status;
	op.data.send_status_from_server.status_details = &details;
	session_start(session, &op, &session->status_tag);
	grpc_slice_unref(details);
}

/* Writes a message; `more` says that another follows at once. */
static void session_write(struct session *session, grpc_byte_buffer *message, bool more)
{
	struct front_counters *counters = &session->front->page->counters;
	uint64_t size = grpc_byte_buffer_length(message);
	counter_add(&counters->messages_out, 1);
	counter_add(&counters->bytes_out, size);
	if (session->info) {
		counter_add(&session->info->messages_out, 1);
		counter_add(&session->info->bytes_out, size);
	}
	session->outbound = message;
	session->writing = true;
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .flags = more ? GRPC_WRITE_BUFFER_HINT : 0};
	op.data.send_message.send_message = message;
	session_start(session, &op, &session->write_tag);
}

/* A write is done, or never will be. */
static void session_was_written(void *owner, bool ok)
{
	struct session *session = owner;
	session->writing = false;
	grpc_byte_buffer_destroy(session->outbound);
	session->outbound = NULL;
	if (!session_settle(session))
		return;
	if (!ok && session->state == SESSION_RUNNING)
		session_end(session, GRPC_STATUS_CANCELLED, "the client is gone");
	if (session->state == SESSION_ENDING)
		session_send_status(session);
	else if (session->state == SESSION_RUNNING && session->end)
		session_pump(session);
}

/* Notes that all messages up to a seq are done with: the last answer to one stands for those before it that are not answered at all.
 * The number is a worker's, so no more can be done than was sent. */
static void session_settle_up_to(struct session *session, const struct frame *header)
{
	struct front *front = session->front;
	if (header->seq <= session->answered || header->seq > session->seq)
		return;
	front->in_flight -= header->seq - session->answered;
	session->answered = header->seq;
	if (header->received_ns <= front->now_ns)
		histogram_add(&front->page->segment[session->segment].latency, front->now_ns - header->received_ns);
}

/* Writes an answer and notes whether its seq is done; consumes the frame. */
static void session_take_answer(struct session *session, const struct frame *header, const uint8_t *payload)
{
	struct channel_end *end = session->end;
	grpc_byte_buffer *message = channel_end_take(end, header, payload);
	if (header->flags & FRAME_LAST)
		session_settle_up_to(session, header);
	gauge_set(&session->info->response_fill,
		  ring_bytes_between(end->answers.position, end->answers.peer_tail, end->answers.size));
	session_write(session, message, !ring_is_empty(&end->answers));
}

/* The worker ends the session: with the status it gives; consumes the frame. */
static void session_take_end(struct session *session, const struct frame *header, const uint8_t *payload)
{
	struct frame_status status;
	size_t size = header->length - sizeof *header;
	if (size < sizeof status) {
		slot_damaged(session->end->slot, session->end->channel);
		return;
	}
	memcpy(&status, payload, sizeof status);
	int length = size - sizeof status < 500 ? (int)(size - sizeof status) : 500;
	char text[512];
	memcpy(text, payload + sizeof status, (size_t)length);
	channel_end_skip(session->end, header);
	session_end(session, status_code_of(&status), "%.*s", length, text);
}

/* Ends a session to which nothing more will come and which owes nothing. */
static void session_end_if_done(struct session *session)
{
	if (session->state != SESSION_RUNNING || session->writing || session->parked ||
	    session->answered < session->seq)
		return;
	if (session->half_closed)
		session_end(session, GRPC_STATUS_OK, "%s", "");
	else if (session->front->draining)
		session_end(session, GRPC_STATUS_UNAVAILABLE, "the sidecar is stopping");
}

/* Takes answers out of the ring while none is being written. */
static void session_pump(struct session *session)
{
	struct frame header;
	const uint8_t *payload;
	while (!session->writing && session->state == SESSION_RUNNING && !session->end->slot->damaged) {
		struct channel_end *end = session->end;
		enum ring_result result = ring_peek(&end->answers, &header, &payload);
		if (result == RING_DAMAGED)
			slot_damaged(end->slot, end->channel);
		if (result != RING_OK)
			break;
		if (header.epoch != end->epoch) {
			counter_add(&session->front->page->counters.frames_dropped, 1);
			channel_end_skip(end, &header);
		} else if (header.kind == FRAME_ANSWER) {
			session_take_answer(session, &header, payload);
		} else if (header.kind == FRAME_END) {
			session_take_end(session, &header, payload);
		} else {
			slot_damaged(end->slot, end->channel);
		}
	}
	session_end_if_done(session);
}

void session_serve(struct session *session)
{
	session_pump(session);
	if (session->state == SESSION_RUNNING && session->parked)
		session_forward(session);
	session_end_if_done(session);
}

/* ---- Ending ---- */

/* Counts a session that ended. */
static void session_count_end(struct session *session)
{
	struct front_counters *counters = &session->front->page->counters;
	if (session->state == SESSION_RUNNING) {
		gauge_set(&counters->sessions_open, counter_read(&counters->sessions_open) - 1);
		if (session->status != GRPC_STATUS_OK) {
			counter_add(&counters->sessions_failed, 1);
			counter_add(&session->front->page->segment[session->segment].errors, 1);
		}
	} else {
		counter_add(&counters->sessions_refused, 1);
	}
}

void session_end(struct session *session, grpc_status_code code, const char *format, ...)
{
	if (session->state == SESSION_ENDING)
		return;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(session->status_text, sizeof session->status_text, format, arguments);
	va_end(arguments);
	utf8_repair(session->status_text); /* it may quote the client, and be cut */
	session->status = code;
	session_count_end(session);
	if (session->wait_until_ns) {
		session->wait_until_ns = 0;
		session->front->sessions_waiting--;
	}
	session->state = SESSION_ENDING;
	if (session->info)
		atomic_store_explicit(&session->info->epoch, 0, memory_order_release);
	session->info = NULL;
	session->front->in_flight -= session->seq - session->answered;
	if (session->end)
		channel_end_close(session->end);
	session->end = NULL;
	if (!session->reading)
		session_drop_inbound(session);
	session_send_status(session);
}

void session_slot_lost(struct session *session)
{
	session_end(session, GRPC_STATUS_UNAVAILABLE, "the memory of slot %u was given up while it served this session",
		    session->end->slot->index);
}

/* The call is over, one way or the other. */
static void session_closed(void *owner, bool ok)
{
	(void)ok;
	struct session *session = owner;
	if (session->cancelled)
		session_end(session, GRPC_STATUS_CANCELLED, "the client is gone");
	session_settle(session);
}

/* The status is sent. */
static void session_status_sent(void *owner, bool ok)
{
	(void)ok;
	session_settle(owner);
}

/* The initial metadata is sent: nothing to do. */
static void session_greeted(void *owner, bool ok)
{
	(void)ok;
	session_settle(owner);
}

/* A stream arrived, or the server is shutting down. */
static void session_started(void *owner, bool ok)
{
	struct session *session = owner;
	struct front *front = session->front;
	if (!ok) {
		session_free(session);
		return;
	}
	if (!front->draining)
		session_post(front);
	session->close_tag = (struct tag){session_closed, session};
	session->read_tag = (struct tag){session_was_read, session};
	session->write_tag = (struct tag){session_was_written, session};
	session->status_tag = (struct tag){session_status_sent, session};
	session->start_tag = (struct tag){session_greeted, session};
	session->previous = front->sessions_last;
	if (session->previous)
		session->previous->next = session;
	else
		front->sessions = session;
	front->sessions_last = session;
	grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	close.data.recv_close_on_server.cancelled = &session->cancelled;
	session_start(session, &close, &session->close_tag);
	grpc_op greet = {.op = GRPC_OP_SEND_INITIAL_METADATA};
	session_start(session, &greet, &session->start_tag);
	session_read(session);
}

void sessions_drain(struct front *front)
{
	for (struct session *session = front->sessions, *next; session; session = next) {
		next = session->next;
		if (session->state == SESSION_OPENING)
			session_end(session, GRPC_STATUS_UNAVAILABLE, "the sidecar is stopping");
		else if (session->state == SESSION_RUNNING)
			session_serve(session);
	}
}

void sessions_init(struct front *front)
{
	session_method = grpc_server_register_method(front->server, "/flink_bridge.FlinkBridge/Session", NULL,
						     GRPC_SRM_PAYLOAD_NONE, 0);
	CHECK(session_method != NULL);
}

void sessions_start(struct front *front)
{
	for (int i = 0; i < SESSIONS_POSTED; i++)
		session_post(front);
}

/* ---- Benchmarks: the front answers by itself ---- */

/* A Batch's bytes are also those of a Results with the same seq: messages go back as they came. */
static void session_direct(struct session *session)
{
	if (!session->inbound || session->reading || session->direct_count == DIRECT_MAX)
		return;
	session->direct[(session->direct_first + session->direct_count++) % DIRECT_MAX] = session->inbound;
	session->inbound = NULL;
	session_read(session);
}

/* Writes the next message back, and says whether more follow. */
static void session_direct_write(struct session *session)
{
	if (session->writing || session->direct_count == 0 || session->state == SESSION_ENDING)
		return;
	grpc_byte_buffer *message = session->direct[session->direct_first];
	session->direct_first = (session->direct_first + 1) % DIRECT_MAX;
	session->direct_count--;
	session_write(session, message, session->direct_count > 0);
	session_direct(session);
}

void sessions_direct(struct front *front)
{
	for (struct session *session = front->sessions; session; session = session->next)
		session_direct_write(session);
}
