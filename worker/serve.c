/*
 * Serving channels: attaching to those that the front opens, taking frames, showing answers, closing.
 *
 * What becomes visible when: a message's answers are written, its position is taken over in the arena, and only then its
 * answers are published and its request bytes given back (channel_show). The front is marked after every few microseconds
 * of work rather than after every frame: a mark is a locked instruction on a line that the front polls.
 */
#include "worker/serve.h"

#include <stdlib.h>

#include "shared/log.h"
#include "worker/output.h"
#include "worker/session.h"
#include "worker/unary.h"

enum {
	SHARE_NS = 1000 * 1000,      /* of a turn, for one channel, when others wait */
	LIMIT_NS = 50 * 1000 * 1000, /* when none does: orders and a new front must be seen, too */
	SHOW_NS = 20 * 1000,         /* work done longer ago than this is shown while the share goes on */
};

/* One channel, as this process has it. */
struct channel {
	uint32_t epoch; /* 0: not attached */
	uint32_t stale; /* an epoch that was there before us, never to be served; 0: none */
	struct ring_consumer requests;
	struct ring_producer answers;
	struct output output;
	struct session *session; /* NULL on the unary channel */
};

struct serve {
	struct workspace *workspace;
	struct slot_memory *memory;
	struct unary *unary;
	uint64_t left;       /* channels with work left from the last turn */
	uint64_t shown_ns;   /* when the channel at hand last showed its work */
	uint32_t first;      /* the channel that the next turn begins with */
	uint32_t sessions;   /* open */
	uint32_t generation; /* of this worker */
	bool damaged;
	struct channel channels[SLOT_CHANNELS_MAX];
};

/* Opens the chains that unary calls use. */
struct serve *serve_create(struct workspace *workspace, struct slot_memory *memory, uint32_t generation,
			   const struct segment **segment, struct failure *failure)
{
	struct serve *serve = calloc(1, sizeof(*serve));

	CHECK(serve != NULL);
	serve->workspace = workspace;
	serve->memory = memory;
	serve->generation = generation;
	serve->unary = unary_create(workspace, segment, failure);
	if (serve->unary == NULL) {
		free(serve);
		return NULL;
	}
	return serve;
}

/* Shows how many sessions there are. */
static void sessions_show(const struct serve *serve)
{
	gauge_set(&serve->workspace->page->counters.sessions_open, serve->sessions);
}

/* ---- A channel's life (S2) ------------------------------------------------------------------------------------------ */

/* Attaches to a channel that the front opened. */
static void channel_attach(struct serve *serve, uint32_t index, uint32_t epoch)
{
	struct slot_memory *memory = serve->memory;
	const struct config *config = serve->workspace->config;
	struct channel *channel = &serve->channels[index];
	struct front_channel *front = &memory->channels->front[index];
	struct worker_channel *own = &memory->channels->worker[index];
	uint64_t size = channel_ring_size(memory, index);

	channel->epoch = epoch;
	ring_consumer_init(&channel->requests, &own->request, &front->request, channel_request_data(memory, index),
			   size);
	ring_producer_init(&channel->answers, &own->response, &front->response, channel_response_data(memory, index),
			   size);
	if (index == UNARY_CHANNEL) {
		output_init(&channel->output, &channel->answers, config->unary_message_max, config->unary_message_max);
		return;
	}
	output_init(&channel->output, &channel->answers, config->message_max, config->record_max);
	channel->session = session_create(serve->workspace, &channel->output, index, epoch);
	serve->sessions++;
	sessions_show(serve);
}

/* Drops what this process has of a channel; the shared words stay. */
static void channel_detach(struct serve *serve, struct channel *channel)
{
	if (channel->epoch == 0)
		return;
	if (channel->session != NULL)
		serve->sessions--;
	session_destroy(channel->session);
	output_deinit(&channel->output);
	channel->session = NULL;
	channel->epoch = 0;
	sessions_show(serve);
}

/* Has the front look at a channel. */
static void front_mark(struct serve *serve, uint32_t index)
{
	const struct control_memory *control = serve->workspace->control;

	ready_set(&serve->memory->channels->ready_for_front, index);
	/* Sequentially consistent: pairs with the front's store before its last look at the bitmap. */
	if (atomic_load_explicit(&control->front->sleeps, memory_order_seq_cst) != 0) {
		doorbell_ring(control->front_bell);
		counter_add(&serve->workspace->page->counters.doorbells_rung, 1);
	}
}

/* Drops a channel and tells the front that this side has no part in it any more. */
static void channel_leave(struct serve *serve, uint32_t index, uint32_t epoch)
{
	channel_detach(serve, &serve->channels[index]);
	channel_close(serve->memory, index, epoch);
	front_mark(serve, index);
}

/* Follows the front's state of a channel. Returns whether it is to be served.
 *
 * Two kinds of channel are not ours though they say OPEN: those of a front before this one (stale), and those that this front
 * opened for our predecessor before it knew of its death (generation). Nothing is written there, so the front can free
 * them without our leave. */
static bool channel_follow(struct serve *serve, uint32_t index)
{
	struct channel *channel = &serve->channels[index];
	/* Acquire: pairs with channel_set_state. */
	uint64_t word = atomic_load_explicit(&serve->memory->channels->front[index].state, memory_order_acquire);
	enum channel_state state = channel_state_of(word);
	uint32_t epoch = channel_epoch_of(word);

	if (channel->epoch != 0 && channel->epoch != epoch)
		channel_leave(serve, index, channel->epoch);
	if (epoch == channel->stale)
		return false;
	if (state != CHANNEL_FREE && serve->memory->channels->front[index].generation != serve->generation)
		return false;
	if (state == CHANNEL_CLOSING &&
	    epoch != atomic_load_explicit(&serve->memory->channels->worker[index].closed_epoch, memory_order_relaxed))
		channel_leave(serve, index, epoch);
	if (state == CHANNEL_OPEN && channel->epoch == 0)
		channel_attach(serve, index, epoch);
	return channel->epoch != 0;
}

/* Drops all sessions and zeroes the worker's words. */
void serve_reset(struct serve *serve)
{
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		channel_detach(serve, &serve->channels[i]);
	slot_reset_worker(serve->memory);
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		uint64_t word = atomic_load_explicit(&serve->memory->channels->front[i].state, memory_order_acquire);

		serve->channels[i].stale = channel_state_of(word) == CHANNEL_FREE ? 0 : channel_epoch_of(word);
	}
	serve->left = 0;
	sessions_show(serve);
}

/* Drops all sessions and frees everything. */
void serve_destroy(struct serve *serve)
{
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		channel_detach(serve, &serve->channels[i]);
	unary_destroy(serve->unary);
	free(serve);
}

/* ---- A channel's share of a turn ----------------------------------------------------------------------------------- */

/* Makes answers visible and gives request bytes back. */
static void channel_show(struct serve *serve, uint32_t index)
{
	struct channel *channel = &serve->channels[index];
	bool published = output_publish(&channel->output);
	bool awaited = ring_release(&channel->requests, channel->requests.position);

	serve->shown_ns = serve->workspace->now_ns;
	if (published || awaited)
		front_mark(serve, index);
}

/* Works on a frame. Returns whether it is done with. */
static bool frame_work(struct serve *serve, struct channel *channel, const struct frame *frame, const uint8_t *payload)
{
	struct worker_page *page = serve->workspace->page;

	if (channel->session == NULL)
		unary_work(serve->unary, &channel->output, frame, payload);
	else if (!session_work(channel->session, frame, payload))
		return false;
	counter_add(&page->counters.frames, 1);
	progress_done(serve->workspace);
	return true;
}

/* What became of the next frame of a channel. */
enum frame_result { FRAME_TAKEN, FRAME_UNFINISHED, FRAME_NONE };

/* Takes the next frame. */
static enum frame_result frame_take(struct serve *serve, struct channel *channel)
{
	const uint8_t *payload;
	struct frame frame;

	switch (ring_peek(&channel->requests, &frame, &payload)) {
	case RING_OK:
		break;
	case RING_DAMAGED:
		serve->damaged = true;
		return FRAME_NONE;
	default:
		return FRAME_NONE;
	}
	if (frame.epoch == channel->epoch && !frame_work(serve, channel, &frame, payload))
		return FRAME_UNFINISHED;
	ring_advance(&channel->requests, &frame);
	return FRAME_TAKEN;
}

/* Sends what waits in the outbox. False: the channel is parked. */
static bool channel_flush(struct serve *serve, struct channel *channel)
{
	if (output_flush(&channel->output))
		return true;
	serve->damaged |= channel->output.damaged;
	counter_add(&serve->workspace->page->counters.response_ring_full, 1);
	return false;
}

/* Serves a channel until its share is over, it has no more frames, or it parks. Returns whether it has work left. */
static bool channel_serve(struct serve *serve, uint32_t index)
{
	struct workspace *workspace = serve->workspace;
	struct channel *channel = &serve->channels[index];
	bool left = false;

	while (!serve->damaged && channel_flush(serve, channel)) {
		enum frame_result result;

		left = workspace->now_ns >= workspace->deadline_ns;
		if (left)
			break;
		result = frame_take(serve, channel);
		if (result == FRAME_NONE)
			break;
		if (workspace->now_ns - serve->shown_ns >= SHOW_NS)
			channel_show(serve, index);
	}
	channel_show(serve, index);
	return left;
}

/* Serves each ready channel once, beginning with another one each time. */
enum serve_result serve_turn(struct serve *serve)
{
	struct workspace *workspace = serve->workspace;
	uint64_t ready = serve->left | ready_take(&serve->memory->channels->ready_for_worker);
	uint32_t first = serve->first;

	serve->left = 0;
	if (ready == 0)
		return SERVE_IDLE;
	serve->first = (first + 1) % SLOT_CHANNELS_MAX;
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		uint32_t index = (first + i) % SLOT_CHANNELS_MAX;

		if ((ready >> index & 1) == 0)
			continue;
		ready &= ~(UINT64_C(1) << index);
		if (!channel_follow(serve, index))
			continue;
		workspace->now_ns = clock_ns();
		workspace->deadline_ns = workspace->now_ns + SHARE_NS;
		workspace->limit_ns = workspace->now_ns + LIMIT_NS;
		workspace->others = serve->left | ready;
		serve->shown_ns = workspace->now_ns;
		if (channel_serve(serve, index))
			serve->left |= UINT64_C(1) << index;
	}
	return serve->damaged ? SERVE_DAMAGED : SERVE_BUSY;
}

/* Whether a turn would find something. */
bool serve_is_wanted(const struct serve *serve)
{
	return serve->left != 0 ||
	       atomic_load_explicit(&serve->memory->channels->ready_for_worker, memory_order_seq_cst) != 0;
}

/* Finishes the messages that are half done. */
void serve_finish(struct serve *serve)
{
	serve->workspace->deadline_ns = serve->workspace->limit_ns = UINT64_MAX;
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		struct channel *channel = &serve->channels[i];

		if (channel->session == NULL || !session_is_midway(channel->session) || serve->damaged)
			continue;
		while (channel_flush(serve, channel) && frame_take(serve, channel) == FRAME_UNFINISHED)
			;
		channel_show(serve, i);
	}
}

/* Drops what is too old. */
uint64_t serve_expire(struct serve *serve)
{
	serve->workspace->now_ns = clock_ns();
	return unary_expire(serve->unary);
}
