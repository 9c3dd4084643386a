/*
 * The front's end of slots and channels.
 *
 * A slot is up when an owner has said that it serves the current generation of the slot's memory, and has acknowledged this
 * front (S3 in slot.h). That an owner dies is no concern of the front: frames wait in the rings until another has taken over.
 * When the generation changes, whatever was with the slot is failed at once; its channels are freed when an owner of the new
 * generation is up (S2), and each only after gRPC has returned the last of its lent slices.
 *
 * Nothing a worker wrote is believed: the ring checks cursors and headers, this file checks kinds and epochs.
 */
#include "server/front.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* From this size on an answer is lent out of the ring instead of copied. */
enum { LEND_BYTES = 4096 };

/* Writes the gauges of a slot. */
static void slot_gauges(struct slot_end *slot)
{
	struct front_slot_counters *counters = &slot->front->page->slot[slot->index].counters;
	gauge_set(&counters->sessions_open, slot->sessions);
	gauge_set(&counters->unary_in_flight, slot->unary_in_flight);
	gauge_set(&counters->memory, slot->memory_bytes);
}

/* Marks a channel for the worker; the doorbell follows in slots_kick. */
static void channel_end_mark(struct channel_end *end)
{
	ready_set(&end->slot->memory->channels->ready_for_worker, end->channel);
	end->slot->kicked = 1;
}

/* Has the supervisor see to it that a worker wakes up that was rung for. */
static void slot_watch(const struct slot_end *slot)
{
	const struct front *front = slot->front;
	atomic_store_explicit(&front->page->slot[slot->index].rung_ns, clock_ns(), memory_order_seq_cst);
	if (atomic_load_explicit(&front->control->control->watching, memory_order_seq_cst) == 0)
		doorbell_ring(front->control->supervisor_bell);
}

void slots_kick(struct front *front)
{
	for (uint32_t i = 0; i < front->slot_count; i++) {
		struct slot_end *slot = &front->slots[i];
		if (!slot->kicked)
			continue;
		slot->kicked = 0;
		if (atomic_load_explicit(&slot->memory->channels->worker_sleeps, memory_order_seq_cst)) {
			doorbell_ring(slot->memory->worker_bell);
			counter_add(&front->page->counters.doorbells_rung, 1);
			slot_watch(slot);
		}
	}
}

uint32_t front_epoch(struct front *front)
{
	uint32_t epoch = atomic_load_explicit(&front->page->last_epoch, memory_order_relaxed) + 1;
	epoch += epoch == 0; /* which is none */
	atomic_store_explicit(&front->page->last_epoch, epoch, memory_order_relaxed);
	return epoch;
}

/* Allocates a channel and makes this front's end of it. */
static struct channel_end *channel_end_open(struct slot_end *slot, uint32_t channel, uint32_t epoch, uint32_t segment)
{
	struct slot_memory *memory = slot->memory;
	if (channel_allocate(memory, channel) < 0)
		return NULL;
	struct channel_end *end = calloc(1, sizeof *end);
	CHECK(end != NULL);
	struct front_channel *own = &memory->channels->front[channel];
	struct worker_channel *peer = &memory->channels->worker[channel];
	uint64_t size = channel_ring_size(memory, channel);
	end->slot = slot;
	end->channel = channel;
	end->epoch = epoch;
	end->state = CHANNEL_OPEN;
	ring_producer_init(&end->requests, &own->request, &peer->request, channel_request_data(memory, channel), size);
	ring_consumer_init(&end->answers, &own->response, &peer->response, channel_response_data(memory, channel),
			   size);
	own->segment = segment;
	own->generation = slot->generation;
	slot->ends[channel] = end;
	slot->memory_bytes += 2 * size;
	channel_set_state(memory, channel, epoch, CHANNEL_OPEN);
	slot->kicked = 1;
	slot_gauges(slot);
	return end;
}

struct channel_end *slot_open_channel(struct slot_end *slot, struct session *session, uint32_t segment,
				      const char **why)
{
	uint32_t count = slot->memory->sizes.channel_count, channel = UNARY_CHANNEL + 1;
	while (channel < count && slot->ends[channel])
		channel++;
	if (channel == count) {
		*why = "all its session channels are taken (--sessions-per-slot)";
		return NULL;
	}
	struct channel_end *end = channel_end_open(slot, channel, session->epoch, segment);
	if (!end) {
		*why = strerror(errno);
		return NULL;
	}
	end->session = session;
	slot->sessions++;
	slot_gauges(slot);
	return end;
}

struct channel_end *slot_unary_channel(struct slot_end *slot)
{
	struct channel_end *end = slot->ends[UNARY_CHANNEL];
	if (!end)
		return channel_end_open(slot, UNARY_CHANNEL, front_epoch(slot->front), 0);
	return end->state == CHANNEL_OPEN ? end : NULL;
}

/* Gives a channel's memory back. */
static void channel_end_free(struct channel_end *end)
{
	struct slot_end *slot = end->slot;
	slot->memory_bytes -= 2 * channel_ring_size(slot->memory, end->channel);
	slot->request_fill -= end->fill;
	channel_free(slot->memory, end->channel);
	slot->ends[end->channel] = NULL;
	if (end->channel != UNARY_CHANNEL)
		slot->sessions--;
	slot_gauges(slot);
	opens_wake(slot->front);
	free(end);
}

void channel_end_close(struct channel_end *end)
{
	end->session = NULL;
	end->waits_for_room = false;
	if (end->state != CHANNEL_OPEN)
		return;
	end->state = CHANNEL_CLOSING;
	channel_set_state(end->slot->memory, end->channel, end->epoch, CHANNEL_CLOSING);
	end->slot->kicked = 1;
}

/* ---- Requests ---- */

/* Copies a byte buffer's slices to one place. */
static void copy_slices(uint8_t *to, grpc_byte_buffer *from)
{
	grpc_byte_buffer_reader reader;
	grpc_slice *slice;
	CHECK(grpc_byte_buffer_reader_init(&reader, from));
	while (grpc_byte_buffer_reader_peek(&reader, &slice)) {
		memcpy(to, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
		to += GRPC_SLICE_LENGTH(*slice);
	}
	grpc_byte_buffer_reader_destroy(&reader);
}

/* Notes how full a request ring is. */
static void note_fill(struct channel_end *end)
{
	struct slot_end *slot = end->slot;
	struct front_slot_counters *counters = &slot->front->page->slot[slot->index].counters;
	uint64_t fill = ring_bytes_between(end->requests.peer_head, end->requests.position,
					   end->requests.size); /* as last seen: no look at the worker's line */
	slot->request_fill += fill - end->fill;
	end->fill = fill;
	gauge_set(&counters->request_fill, slot->request_fill);
	if (fill > counter_read(&counters->request_fill_max))
		gauge_set(&counters->request_fill_max, fill);
	if (end->session && end->session->info)
		atomic_store_explicit(&end->session->info->request_fill, fill, memory_order_relaxed);
}

enum send_result channel_end_send(struct channel_end *end, struct frame header, grpc_byte_buffer *payload)
{
	uint64_t size = grpc_byte_buffer_length(payload);
	uint8_t *to;
	enum ring_result result = ring_reserve(&end->requests, size, &to);
	if (result == RING_FULL && ring_wait_for_room(&end->requests, size))
		result = ring_reserve(&end->requests, size, &to);
	if (result == RING_DAMAGED)
		slot_damaged(end->slot, end->channel);
	if (result != RING_OK) {
		if (!end->waits_for_room)
			counter_add(&end->slot->front->page->counters.request_ring_full, 1);
		end->waits_for_room = true;
		return SEND_FULL;
	}
	end->waits_for_room = false;
	copy_slices(to, payload);
	header.epoch = end->epoch;
	ring_append(&end->requests, header, size);
	ring_publish(&end->requests);
	channel_end_mark(end);
	note_fill(end);
	end->slot->front->in_flight++;
	end->slot->front->turn_bytes += size;
	return SEND_OK;
}

/* ---- Answers ---- */

/* gRPC has let go of an answer's bytes. Any thread: marks, and has the front look. */
static void lent_returned(void *data)
{
	struct lent *lent = data;
	struct slot_end *slot = lent->end->slot;
	uint32_t channel = lent->end->channel;
	atomic_store_explicit(&lent->done, 1, memory_order_release);
	ready_set(&slot->memory->channels->ready_for_front, channel);
	if (atomic_load_explicit(&slot->front->page->sleeps, memory_order_seq_cst))
		doorbell_ring(slot->front->control->front_bell);
}

/* Gives back to the ring what gRPC has returned, in order. */
static void channel_end_release(struct channel_end *end)
{
	uint64_t cursor = 0;
	while (end->lent_first != end->lent_next) {
		struct lent *lent = &end->lent[end->lent_first % LENT_MAX];
		if (!atomic_load_explicit(&lent->done, memory_order_acquire))
			break;
		cursor = lent->cursor;
		end->lent_first++;
	}
	if (cursor && end->state == CHANNEL_OPEN && ring_release(&end->answers, cursor))
		channel_end_mark(end);
}

/* Moves past the frame peeked; its bytes go back to the ring once `lent` is done. */
static struct lent *channel_end_consume(struct channel_end *end, const struct frame *header, bool done)
{
	struct lent *lent = &end->lent[end->lent_next++ % LENT_MAX];
	lent->end = end;
	lent->cursor = ring_advance(&end->answers, header);
	atomic_store_explicit(&lent->done, done, memory_order_relaxed);
	return lent;
}

grpc_byte_buffer *channel_end_take(struct channel_end *end, const struct frame *header, const uint8_t *payload)
{
	size_t size = header->length - sizeof *header;
	bool lend = size >= LEND_BYTES && end->lent_next - end->lent_first < LENT_MAX - 1;
	grpc_slice slice;
	if (lend) {
		struct lent *lent = channel_end_consume(end, header, false);
		slice = grpc_slice_new_with_user_data((void *)(uintptr_t)payload, size, lent_returned, lent);
		counter_add(&end->slot->front->page->counters.slices_lent, 1);
	} else {
		slice = grpc_slice_from_copied_buffer((const char *)payload, size);
		channel_end_skip(end, header);
	}
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

void channel_end_skip(struct channel_end *end, const struct frame *header)
{
	if (end->lent_first == end->lent_next) {
		if (ring_release(&end->answers, ring_advance(&end->answers, header)))
			channel_end_mark(end);
		return;
	}
	if (end->lent_next - end->lent_first == LENT_MAX) /* the oldest waits for gRPC: so does this one's room */
		end->lent[(end->lent_next - 1) % LENT_MAX].cursor = ring_advance(&end->answers, header);
	else
		channel_end_consume(end, header, true);
	channel_end_release(end);
}

static void slot_refresh(struct slot_end *slot);

grpc_status_code status_code_of(const struct frame_status *status)
{
	return status->code <= GRPC_STATUS_UNAUTHENTICATED ? (grpc_status_code)status->code : GRPC_STATUS_UNKNOWN;
}

/* Looks at one channel: returned slices, the worker's goodbye, answers, room. */
static void channel_end_serve(struct channel_end *end)
{
	struct slot_end *slot = end->slot;
	channel_end_release(end);
	if (slot->lost) { /* a slice came back that held up the clearing of the slot */
		slot_refresh(slot);
		return;
	}
	if (end->state == CHANNEL_CLOSING) {
		struct worker_channel *peer = &slot->memory->channels->worker[end->channel];
		uint32_t closed = atomic_load_explicit(&peer->closed_epoch, memory_order_acquire);
		if (closed == end->epoch && end->lent_first == end->lent_next)
			channel_end_free(end);
		return;
	}
	if (slot->damaged)
		return;
	if (end->channel == UNARY_CHANNEL) {
		unary_serve(end);
		if (slot->waiting)
			unary_retry(slot);
	} else if (end->session) {
		session_serve(end->session);
	}
}

bool slots_serve(struct front *front)
{
	bool served = false;
	for (uint32_t i = 0; i < front->slot_count; i++) {
		struct slot_end *slot = &front->slots[i];
		uint64_t ready = ready_take(&slot->memory->channels->ready_for_front);
		while (ready) {
			uint32_t channel = (uint32_t)__builtin_ctzll(ready);
			ready &= ready - 1;
			served = true;
			if (slot->ends[channel])
				channel_end_serve(slot->ends[channel]);
		}
	}
	return served;
}

/* ---- A worker comes and goes ---- */

void slot_damaged(struct slot_end *slot, uint32_t channel)
{
	if (slot->damaged)
		return;
	log_error("slot %u: its worker wrote ring words that cannot be true (channel %u); it is replaced", slot->index,
		  channel);
	slot->damaged = true;
	slot->front->slots_changed = true;
	counter_add(&slot->front->page->counters.slots_damaged, 1);
	atomic_store_explicit(&slot->front->page->slot[slot->index].damaged, slot->generation, memory_order_release);
	doorbell_ring(slot->front->control->supervisor_bell);
}

/* The slot's memory is given up: everything that was in it fails now. Channels stay until an owner of the next is up. */
static void slot_lost(struct slot_end *slot)
{
	slot->up = false;
	slot->lost = true;
	slot->used = false;
	for (uint32_t channel = 0; channel < SLOT_CHANNELS_MAX; channel++) {
		struct channel_end *end = slot->ends[channel];
		if (end && end->session)
			session_slot_lost(end->session);
		if (end)
			end->state = CHANNEL_CLOSING;
	}
	unary_slot_lost(slot);
}

/* Frees a channel that a front before this one had open. */
static void slot_free_leftover(struct slot_end *slot, uint32_t channel)
{
	struct front_channel *own = &slot->memory->channels->front[channel];
	if (channel < slot->memory->sizes.channel_count &&
	    channel_state_of(atomic_load_explicit(&own->state, memory_order_relaxed)) != CHANNEL_FREE)
		channel_free(slot->memory, channel);
}

/* The new owner has zeroed its words: the channels of the generation before can go. */
static bool slot_clear(struct slot_end *slot)
{
	bool clear = true;
	for (uint32_t channel = 0; channel < SLOT_CHANNELS_MAX; channel++) {
		struct channel_end *end = slot->ends[channel];
		if (!end) {
			slot_free_leftover(slot, channel);
			continue;
		}
		channel_end_release(end);
		if (end->lent_first == end->lent_next)
			channel_end_free(end);
		else
			clear = false;
	}
	return clear;
}

/* Whether a slot has had an owner that serves that generation and this front. */
static bool worker_ready(const struct slot_end *slot, uint32_t generation)
{
	struct worker_page *worker = control_worker(slot->front->control, slot->index);
	return generation != 0 && atomic_load_explicit(&worker->ready_generation, memory_order_acquire) == generation &&
	       atomic_load_explicit(&worker->front_generation, memory_order_acquire) == slot->front->generation;
}

/* Another process owns the slot. It has taken the sessions over that there are, and counts as used if there are any. */
static void slot_owner_changed(struct slot_end *slot, uint32_t owner)
{
	_Atomic uint32_t *noted = &slot->front->page->slot[slot->index].used_owner;
	slot->owner = owner;
	slot->used = slot->sessions > 0 || atomic_load_explicit(noted, memory_order_relaxed) == owner;
	if (slot->used)
		atomic_store_explicit(noted, owner, memory_order_release);
	if (owner >= slot->wanted)
		slot->leaving = false;
}

/* Takes one slot's state over. */
static void slot_refresh(struct slot_end *slot)
{
	struct front *front = slot->front;
	struct control_slot *control = &front->control->control->slot[slot->index];
	uint32_t generation = atomic_load_explicit(&control->generation, memory_order_acquire);
	if (generation != slot->generation || (slot->damaged && slot->up)) {
		slot_lost(slot);
		slot->damaged = slot->damaged && generation == slot->generation;
		slot->generation = generation;
		health_changed(front);
	}
	/* Acquire: pairs with the supervisor's store. */
	uint32_t owner = atomic_load_explicit(&control->owner, memory_order_acquire);
	if (owner != slot->owner)
		slot_owner_changed(slot, owner);
	if (slot->up || slot->damaged || slot->leaving || !worker_ready(slot, generation) ||
	    (slot->lost && !slot_clear(slot)))
		return;
	slot->lost = false;
	slot->up = true;
	opens_wake(front);
	unary_retry(slot);
	health_changed(front);
}

void slots_refresh(struct front *front)
{
	front->slots_changed = false;
	for (uint32_t i = 0; i < front->slot_count; i++)
		slot_refresh(&front->slots[i]);
}
