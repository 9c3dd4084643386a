/*
 * The unary service: flink_worker.FlinkWorkerService.
 *
 * A few requests per method are posted ahead; each call that arrives finds its slot (by metadata, by window, or by its
 * connection), goes through the slot's unary channel as one frame, and is answered by the frame with its number. A
 * call that finds no room, or no worker, waits in its slot's list; how many calls are inside at once is bounded by not
 * posting more requests, so that gRPC's own flow control holds the clients back.
 */
#include "server/front.h"

#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>

#include "shared/keygroup.h"
#include "shared/wire.h"

enum {
	POSTED_MAX = 16,     /* requests posted ahead per method: Debian's libgrpc scans outstanding tags per event */
	CALLS_MAX = 1 << 12, /* calls inside at once */
	WAITING_BYTES_MAX = 64 << 20, /* of requests that wait for room or a worker */
	CONNECTIONS_KNOWN = 1 << 12,
};

/* The methods, and the frame that carries each. */
static const struct method {
	const char *path;
	enum frame_kind kind;
} methods[METHODS_UNARY] = {
    {"/flink_worker.FlinkWorkerService/ProcessMessage", FRAME_PROCESS_MESSAGE},
    {"/flink_worker.FlinkWorkerService/ProcessWatermark", FRAME_PROCESS_WATERMARK},
    {"/flink_worker.FlinkWorkerService/AddToWindow", FRAME_ADD_TO_WINDOW},
    {"/flink_worker.FlinkWorkerService/TriggerWindow", FRAME_TRIGGER_WINDOW},
};

struct unary_call {
	struct front *front;
	struct unary_call *next; /* in the free list, or in a slot's waiting list */
	struct tag tag;
	unsigned method;
	grpc_call *call;
	gpr_timespec deadline;
	grpc_metadata_array metadata;
	grpc_byte_buffer *request;
	grpc_byte_buffer *reply;
	uint64_t number; /* generation of this struct's use << 12 | its index */
	uint64_t received_ns;
	struct slot_end *slot; /* NULL: not with a slot */
	bool sent;             /* the worker has it */
	uint32_t segment;
	int cancelled;
};

struct unary {
	void *registered[METHODS_UNARY];
	unsigned posted[METHODS_UNARY];
	struct unary_call *calls[CALLS_MAX]; /* made as needed, reused */
	unsigned made, inside;
	struct unary_call *free;
	uint64_t waiting_bytes;
	/* Which slot a connection's calls go to, by a hash of its name: dealt out in turn. 0: not dealt yet, else one more. */
	uint32_t slot_of_peer[CONNECTIONS_KNOWN];
	uint32_t next_slot;
};

static void unary_arrived(void *owner, bool ok);
static void unary_finished(void *owner, bool ok);

/* A call's struct, reused where possible; NULL when all are inside. */
static struct unary_call *unary_take(struct front *front)
{
	struct unary *unary = front->unary;
	struct unary_call *call = unary->free;
	if (call) {
		unary->free = call->next;
		call->number += CALLS_MAX;
		return call;
	}
	if (unary->made == CALLS_MAX)
		return NULL;
	call = calloc(1, sizeof *call);
	CHECK(call != NULL);
	call->front = front;
	call->number = CALLS_MAX + unary->made;
	call->tag.owner = call;
	grpc_metadata_array_init(&call->metadata);
	unary->calls[unary->made++] = call;
	return call;
}

/* Puts a call's struct back. */
static void unary_release(struct unary_call *call)
{
	struct unary *unary = call->front->unary;
	if (call->request)
		grpc_byte_buffer_destroy(call->request);
	if (call->reply)
		grpc_byte_buffer_destroy(call->reply);
	if (call->call)
		grpc_call_unref(call->call);
	call->request = call->reply = NULL;
	call->call = NULL;
	call->slot = NULL;
	call->sent = false;
	call->next = unary->free;
	unary->free = call;
}

/* Posts requests for a method up to the limit. */
static void unary_post(struct front *front, unsigned method)
{
	struct unary *unary = front->unary;
	while (!front->draining && unary->posted[method] < POSTED_MAX && unary->waiting_bytes < WAITING_BYTES_MAX) {
		struct unary_call *call = unary_take(front);
		if (!call)
			return;
		call->method = method;
		call->tag.done = unary_arrived;
		call->metadata.count = 0;
		grpc_call_error error = grpc_server_request_registered_call(
		    front->server, unary->registered[method], &call->call, &call->deadline, &call->metadata,
		    &call->request, front->queue, front->queue, &call->tag);
		CHECK(error == GRPC_CALL_OK);
		unary->posted[method]++;
	}
}

void call_finish(grpc_call *call, struct tag *tag, int *cancelled, grpc_byte_buffer *message, grpc_status_code code,
		 const char *text)
{
	grpc_slice details = grpc_slice_from_copied_string(text ? text : "");
	grpc_op ops[4];
	memset(ops, 0, sizeof ops);
	size_t count = 0;
	ops[count].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	ops[count++].data.recv_close_on_server.cancelled = cancelled;
	ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (message) {
		ops[count].op = GRPC_OP_SEND_MESSAGE;
		ops[count++].data.send_message.send_message = message;
	}
	ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[count].data.send_status_from_server.status = code;
	ops[count++].data.send_status_from_server.status_details = &details;
	CHECK(grpc_call_start_batch(call, ops, count, tag, NULL) == GRPC_CALL_OK);
	grpc_slice_unref(details);
}

/* Answers a call; it leaves its slot. */
static void unary_answer(struct unary_call *call, grpc_byte_buffer *reply, grpc_status_code code, const char *text)
{
	struct front *front = call->front;
	struct front_counters *counters = &front->page->counters;
	struct front_segment_counters *segment =
	    call->segment < front->descriptor->segment_count ? &front->page->segment[call->segment] : NULL;
	if (code != GRPC_STATUS_OK) {
		counter_add(&counters->unary_failed, 1);
		if (segment)
			counter_add(&segment->errors, 1);
	}
	if (reply) {
		counter_add(&counters->messages_out, 1);
		counter_add(&counters->bytes_out, grpc_byte_buffer_length(reply));
		if (segment && call->sent)
			histogram_add(&segment->latency, front->now_ns - call->received_ns);
	}
	if (call->sent)
		front->in_flight--;
	if (call->slot)
		call->slot->unary_in_flight--;
	call->slot = NULL;
	call->sent = false;
	call->reply = reply;
	call->tag.done = unary_finished;
	call_finish(call->call, &call->tag, &call->cancelled, reply, code, text);
}

/* gRPC has let go of an answered call. */
static void unary_finished(void *owner, bool ok)
{
	(void)ok;
	struct unary_call *call = owner;
	struct front *front = call->front;
	front->unary->inside--;
	gauge_set(&front->page->counters.unary_in_flight, front->unary->inside);
	unary_release(call);
	for (unsigned method = 0; method < METHODS_UNARY; method++)
		unary_post(front, method);
}

/* ---- Where a call goes ---- */

/* The value of a metadata key, or an empty view. */
static struct view metadata_value(const grpc_metadata_array *metadata, const char *key)
{
	for (size_t i = 0; i < metadata->count; i++) {
		const grpc_metadata *entry = &metadata->metadata[i];
		if (grpc_slice_str_cmp(entry->key, key) == 0)
			return (struct view){GRPC_SLICE_START_PTR(entry->value), GRPC_SLICE_LENGTH(entry->value)};
	}
	return (struct view){NULL, 0};
}

/* The slot of a connection: the peer's name is that of its descriptor, which a later connection may have again. */
static uint32_t slot_of_connection(struct unary_call *call)
{
	struct unary *unary = call->front->unary;
	char *peer = grpc_call_get_peer(call->call);
	struct view name = view_of(peer);
	uint32_t place = (uint32_t)key_hash_of(name) % CONNECTIONS_KNOWN;
	gpr_free(peer);
	if (unary->slot_of_peer[place] == 0)
		unary->slot_of_peer[place] = unary->next_slot++ % call->front->slot_count + 1;
	return unary->slot_of_peer[place] - 1;
}

/* The slot of a window: all calls for it must meet. */
static uint32_t slot_of_window(const struct unary_call *call, const struct wire_unary *request)
{
	uint64_t hash = (uint32_t)key_hash_of(request->window_key);
	hash = (hash + (uint64_t)request->window_start) * UINT64_C(0x9E3779B97F4A7C15);
	return (uint32_t)((hash >> 32) % call->front->slot_count);
}

/* Finds the call's slot; false after it has been refused. */
static bool unary_find_slot(struct unary_call *call, const struct wire_unary *request, uint32_t *slot)
{
	struct front *front = call->front;
	struct view named = metadata_value(&call->metadata, "bridge-slot");
	char text[16] = "";
	if (named.data) {
		char *end = text;
		unsigned long number = 0;
		if (named.size > 0 && named.size < sizeof text) {
			memcpy(text, named.data, named.size);
			text[named.size] = '\0';
			number = strtoul(text, &end, 10);
		}
		if (end == text || *end || number >= front->slot_count) {
			char words[96];
			snprintf(words, sizeof words, "metadata bridge-slot: expected a slot from 0 to %u",
				 front->slot_count - 1);
			unary_answer(call, NULL, GRPC_STATUS_INVALID_ARGUMENT, words);
			return false;
		}
		*slot = (uint32_t)number;
	} else if (methods[call->method].kind == FRAME_ADD_TO_WINDOW ||
		   methods[call->method].kind == FRAME_TRIGGER_WINDOW) {
		*slot = slot_of_window(call, request);
	} else {
		*slot = slot_of_connection(call);
	}
	return true;
}

/* Reads what routes the call; false after it has been refused. */
static bool unary_route(struct unary_call *call, uint32_t *slot)
{
	struct front *front = call->front;
	struct wire_unary request = {0};
	struct flat flat;
	char words[160];
	if (!call->request || !flat_read(&flat, call->request)) {
		unary_answer(call, NULL, GRPC_STATUS_INTERNAL, "the request could not be read");
		return false;
	}
	bool fits = flat.view.size <= front->config->unary_message_max;
	enum wire_result parsed = WIRE_OK;
	if (fits)
		parsed = wire_parse_unary(methods[call->method].kind, flat.view, &request);
	call->segment = request.segment;
	bool routed = false;
	if (!fits) {
		snprintf(words, sizeof words, "the request has %zu bytes, the limit is %llu (--unary-message-max)",
			 flat.view.size, (unsigned long long)front->config->unary_message_max);
		unary_answer(call, NULL, GRPC_STATUS_RESOURCE_EXHAUSTED, words);
	} else if (parsed != WIRE_OK) {
		snprintf(words, sizeof words, "the request cannot be used: %s", wire_result_text(parsed));
		unary_answer(call, NULL, GRPC_STATUS_INVALID_ARGUMENT, words);
	} else if (request.segment >= front->descriptor->segment_count) {
		snprintf(words, sizeof words, "unknown segment %u: pipeline \"%s\" has segments 0 to %zu",
			 request.segment, front->descriptor->pipeline, front->descriptor->segment_count - 1);
		unary_answer(call, NULL, GRPC_STATUS_INVALID_ARGUMENT, words);
	} else if (front->segment_has_sessions[request.segment]) {
		snprintf(words, sizeof words, "segment %u is served by sessions; it takes no unary calls",
			 request.segment);
		unary_answer(call, NULL, GRPC_STATUS_FAILED_PRECONDITION, words);
	} else {
		counter_add(&front->page->segment[request.segment].calls, 1);
		routed = unary_find_slot(call, &request, slot);
	}
	flat_release(&flat);
	return routed;
}

/* Hands a call to its slot's worker; false: no room, or no worker, now. */
static bool unary_send(struct unary_call *call)
{
	struct slot_end *slot = call->slot;
	struct channel_end *end = slot->up && !slot->damaged ? slot_unary_channel(slot) : NULL;
	if (!end)
		return false;
	struct frame header = {
	    .kind = (uint16_t)methods[call->method].kind,
	    .segment = call->segment,
	    .seq = call->number,
	    .received_ns = call->received_ns,
	};
	if (channel_end_send(end, header, call->request) != SEND_OK)
		return false;
	call->sent = true;
	grpc_byte_buffer_destroy(call->request);
	call->request = NULL;
	return true;
}

/* Lets a call wait for room or a worker, in order. */
static void unary_wait(struct unary_call *call)
{
	struct slot_end *slot = call->slot;
	call->next = NULL;
	if (!slot->waiting)
		slot->waiting_tail = &slot->waiting;
	*slot->waiting_tail = call;
	slot->waiting_tail = &call->next;
	call->front->unary->waiting_bytes += grpc_byte_buffer_length(call->request);
}

/* A call arrived, or the server is shutting down. */
static void unary_arrived(void *owner, bool ok)
{
	struct unary_call *call = owner;
	struct front *front = call->front;
	front->unary->posted[call->method]--;
	if (!ok) {
		unary_release(call);
		return;
	}
	front->unary->inside++;
	call->received_ns = front->now_ns;
	call->segment = UINT32_MAX;
	struct front_counters *counters = &front->page->counters;
	counter_add(&counters->unary_calls, 1);
	counter_add(&counters->messages_in, 1);
	counter_add(&counters->bytes_in, call->request ? grpc_byte_buffer_length(call->request) : 0);
	gauge_set(&counters->unary_in_flight, front->unary->inside);
	unary_post(front, call->method);
	uint32_t slot;
	if (front->config->direct) {
		grpc_byte_buffer *same = call->request;
		call->request = NULL;
		unary_answer(call, same, GRPC_STATUS_OK, NULL);
	} else if (unary_route(call, &slot)) {
		call->slot = &front->slots[slot];
		call->slot->unary_in_flight++;
		if (call->slot->waiting || !unary_send(call))
			unary_wait(call);
	}
}

void unary_retry(struct slot_end *slot)
{
	while (slot->waiting) {
		struct unary_call *call = slot->waiting;
		uint64_t bytes = grpc_byte_buffer_length(call->request);
		if (!unary_send(call))
			return;
		slot->waiting = call->next;
		slot->front->unary->waiting_bytes -= bytes;
	}
}

/* ---- Answers ---- */

/* The call that an answer names; NULL when there is none such with that slot. */
static struct unary_call *unary_find(struct slot_end *slot, uint64_t number)
{
	struct unary *unary = slot->front->unary;
	uint64_t index = number % CALLS_MAX;
	struct unary_call *call = index < unary->made ? unary->calls[index] : NULL;
	return call && call->number == number && call->sent && call->slot == slot ? call : NULL;
}

/* Answers a call with what the frame carries; consumes the frame. */
static void unary_take_answer(struct channel_end *end, const struct frame *header, const uint8_t *payload)
{
	struct slot_end *slot = end->slot;
	struct unary_call *call = unary_find(slot, header->seq);
	size_t size = header->length - sizeof *header;
	if (!call || header->epoch != end->epoch) {
		counter_add(&slot->front->page->counters.frames_dropped, 1);
		channel_end_skip(end, header);
	} else if (header->kind == FRAME_REPLY) {
		unary_answer(call, channel_end_take(end, header, payload), GRPC_STATUS_OK, NULL);
	} else if (header->kind == FRAME_REFUSAL && size >= sizeof(struct frame_status)) {
		struct frame_status status;
		char text[1024];
		memcpy(&status, payload, sizeof status);
		size_t length = size - sizeof status < sizeof text - 1 ? size - sizeof status : sizeof text - 1;
		memcpy(text, payload + sizeof status, length);
		text[length] = '\0';
		channel_end_skip(end, header);
		unary_answer(call, NULL, status.code ? status_code_of(&status) : GRPC_STATUS_INTERNAL, text);
	} else {
		slot_damaged(slot, end->channel);
	}
}

void unary_serve(struct channel_end *end)
{
	struct frame header;
	const uint8_t *payload;
	enum ring_result result;
	for (int budget = 64; budget > 0 && !end->slot->damaged; budget--) {
		result = ring_peek(&end->answers, &header, &payload);
		if (result == RING_DAMAGED)
			slot_damaged(end->slot, end->channel);
		if (result != RING_OK)
			return;
		unary_take_answer(end, &header, payload);
	}
	ready_set(&end->slot->memory->channels->ready_for_front, end->channel);
}

/* ---- When the worker is gone ---- */

void unary_slot_lost(struct slot_end *slot)
{
	struct unary *unary = slot->front->unary;
	char words[128];
	snprintf(words, sizeof words, "the memory of slot %u was given up while the call was in it; call again",
		 slot->index);
	for (unsigned i = 0; i < unary->made; i++) {
		struct unary_call *call = unary->calls[i];
		if (call->sent && call->slot == slot)
			unary_answer(call, NULL, GRPC_STATUS_UNAVAILABLE, words);
	}
}

void unary_give_up(struct front *front, uint64_t now_ns)
{
	for (uint32_t i = 0; i < front->slot_count; i++) {
		struct slot_end *slot = &front->slots[i];
		while (!slot->up && slot->waiting &&
		       now_ns - slot->waiting->received_ns > front->config->open_wait_ms * UINT64_C(1000000)) {
			struct unary_call *call = slot->waiting;
			slot->waiting = call->next;
			front->unary->waiting_bytes -= grpc_byte_buffer_length(call->request);
			unary_answer(call, NULL, GRPC_STATUS_UNAVAILABLE,
				     "the slot has no worker that serves; call again");
		}
	}
}

bool unary_is_quiet(const struct front *front)
{
	return front->unary->inside == 0;
}

/* Whether a call's caller has stopped waiting. */
static bool unary_is_late(const struct unary_call *call, gpr_timespec now)
{
	return gpr_time_cmp(gpr_convert_clock_type(call->deadline, GPR_CLOCK_MONOTONIC), now) < 0;
}

/* Takes the late ones out of a slot's waiting list. */
static void unary_end_late_waiting(struct slot_end *slot, gpr_timespec now)
{
	struct unary_call **at = &slot->waiting, *call;
	while ((call = *at) != NULL) {
		if (!unary_is_late(call, now)) {
			at = &call->next;
			continue;
		}
		*at = call->next;
		slot->front->unary->waiting_bytes -= grpc_byte_buffer_length(call->request);
		unary_answer(call, NULL, GRPC_STATUS_DEADLINE_EXCEEDED, "the deadline passed before the slot had room");
	}
	slot->waiting_tail = at;
}

/* A worker that hangs must not fill the front with calls that nobody waits for any more: other slots need the room. */
void unary_end_late(struct front *front)
{
	struct unary *unary = front->unary;
	gpr_timespec now = gpr_now(GPR_CLOCK_MONOTONIC);
	for (uint32_t i = 0; i < front->slot_count; i++)
		unary_end_late_waiting(&front->slots[i], now);
	for (unsigned i = 0; i < unary->made; i++) {
		struct unary_call *call = unary->calls[i];
		if (call->sent && unary_is_late(call, now))
			unary_answer(call, NULL, GRPC_STATUS_DEADLINE_EXCEEDED,
				     "the deadline passed before the worker answered");
	}
}

void unary_init(struct front *front)
{
	front->unary = calloc(1, sizeof *front->unary);
	CHECK(front->unary != NULL);
	for (unsigned method = 0; method < METHODS_UNARY; method++) {
		front->unary->registered[method] = grpc_server_register_method(
		    front->server, methods[method].path, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
		CHECK(front->unary->registered[method] != NULL);
	}
}

void unary_start(struct front *front)
{
	for (unsigned method = 0; method < METHODS_UNARY; method++)
		unary_post(front, method);
}
