/*
 * Serving channels: attaching to those that the front opens, taking frames, committing units, showing answers, closing.
 *
 * A unit belongs to one channel and may hold several small messages:
 *
 *      frames are worked on:  the channel's position (a copy), state and outbox (in the arena, logged), answers (not visible)
 *      channel_commit:        position -> session words, arena_commit: now it has happened
 *                             answers published, request bytes given back, the front marked: what follows from that
 *      channel_rollback:      none of it has happened, and the same frames are taken again
 *
 * Invariants, and the tests that hold them to it (tests/check_takeover.c)
 *  U1  A unit happens by one store, once its answers are written and its position stands among the session's words.
 *      [death_at_every_point_loses_and_doubles_nothing, workers_killed_at_random_lose_and_double_nothing]
 *  U2  What follows from a commit (tail, head, marks) follows from the words alone: a successor makes it anew, and believes none of what
 *      the dead left in shared words. [cursors_are_made_from_the_commit]
 *  U3  No Results is open across a commit, and nothing that a unit goes by is kept in process memory alone: a rollback and a
 *      takeover find the same. [a_successor_goes_on_where_the_last_commit_was]
 *  U4  What waits in the outbox goes to the ring before the channel's next input. [an_outbox_outlives_its_worker]
 *  U5  A unit in trouble is rolled back as a whole. What it is begun anew with (limit, surplus) is committed by itself, so that no
 *      number of deaths keeps a unit from getting smaller. [a_successor_goes_on_where_the_last_commit_was]
 *  U6  The state of a closed channel is gone before the front hears that this side has left it (S2).
 *      [sessions_whose_channel_is_gone_are_dropped]
 *
 * A unit is committed every few microseconds of work rather than after every frame: a commit logs and stores the words, and a mark is
 * a locked instruction on a line that the front polls.
 *
 * A unit in trouble is begun anew: once the ring has room for an answer as large as any; then alone; then with half the records, and
 * so on; a single record's surplus goes to the outbox, and what still has no room fails its session in words. After a few units
 * without trouble they may grow again.
 */
#include "worker/serve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/fault.h"
#include "shared/log.h"
#include "worker/memory.h"
#include "worker/output.h"
#include "worker/session.h"
#include "worker/state_show.h"
#include "worker/unary.h"
#include "worker/wakes.h"

enum {
	SHARE_NS = 1000 * 1000,      /* of a turn, for one channel, when others wait */
	LIMIT_NS = 50 * 1000 * 1000, /* when none does: orders and a new front must be seen, too */
	SHOW_NS = 20 * 1000,         /* work begun longer ago than this is committed while the share goes on */
	CALM_UNITS = 4,              /* without trouble, before units may be twice as large */
	WAIT_NS = 100 * 1000 * 1000, /* a step that waits looks by itself so often, should nobody ring */
	LIMIT_MAX = 4096,            /* records of a unit, from which on there is no limit */
};

/* How long a session waits for the supervisor to say why a worker died over it. */
#define CAUSE_PATIENCE_NS (UINT64_C(2) * 1000 * 1000 * 1000)

static const char RING_LIES[] = "the front wrote ring words that cannot be true";

/* One channel, as this process has it. */
struct channel {
	uint32_t epoch; /* 0: not attached */
	uint32_t stale; /* an epoch that was there before us, never to be served; 0: none */
	struct ring_consumer requests;
	struct ring_producer answers;
	struct output output;
	struct session *session;    /* NULL on the unary channel */
	struct session_position at; /* the session words, as the unit at hand leaves them */
	bool waits;                 /* for room in the response ring, before anything else is tried */
	bool roomy;                 /* there was that room when the unit was begun, after trouble */
	bool hopeless;              /* it cannot be made smaller: to fail with the trouble of `given_up` */
	struct unit given_up;
	uint64_t cause_due_ns; /* from when on nobody waits any more to hear why a worker died over it */
	uint64_t rest_ns;      /* its next input waits for something outside: until then, or until somebody rings */
	uint32_t rest_wakes;   /* how often had been rung before */
	uint32_t calm;         /* units without trouble since the limit was set */
};

struct serve {
	struct workspace *workspace;
	struct slot_memory *memory;
	struct unary *unary;
	uint64_t left;              /* channels with work left from the last turn */
	uint64_t awaits;            /* channels that wait to hear why a worker died over them */
	uint64_t rests;             /* channels that wait until something is tried again */
	uint64_t shown_ns;          /* when the channel at hand last committed its work */
	uint64_t state_shown_ns;    /* when what is remembered was last written down */
	uint64_t state_shown_units; /* the arena's, then */
	uint32_t first;             /* the channel that the next turn begins with */
	uint32_t sessions;          /* open */
	uint32_t generation;        /* of this worker */
	bool damaged;
	struct channel channels[SLOT_CHANNELS_MAX];
};

/* Loads the code of all steps. */
bool serve_load(const struct descriptor *descriptor, const struct segment **segment, struct failure *failure)
{
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		struct chain *chain = chain_create(&descriptor->segments[i], NULL, NULL, failure);

		*segment = &descriptor->segments[i];
		if (chain == NULL)
			return false;
		chain_destroy(chain);
	}
	return true;
}

/* Opens the chains that unary calls use. */
struct serve *serve_create(struct workspace *workspace, struct slot_memory *memory, uint32_t generation,
			   const struct segment **segment, struct failure *failure)
{
	struct serve *serve = memory_make(1, sizeof(*serve), "a slot's channels");

	serve->workspace = workspace;
	serve->memory = memory;
	serve->generation = generation;
	serve->unary = unary_create(workspace, segment, failure);
	if (serve->unary == NULL || workspace->arena.trouble != ARENA_FINE) {
		unary_destroy(serve->unary);
		arena_rollback(&workspace->arena);
		free(serve);
		return NULL;
	}
	arena_commit(&workspace->arena);
	return serve;
}

/* Shows how many sessions there are. */
static void sessions_show(const struct serve *serve)
{
	gauge_set(&serve->workspace->page->counters.sessions_open, serve->sessions);
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

/* ---- Units --------------------------------------------------------------------------------------------------------- */

/* Notes that the slot cannot be served any more. */
static void serve_give_up(struct serve *serve, const char *what)
{
	if (!serve->damaged)
		log_error("slot %u is given up: %s", serve->workspace->slot, what);
	serve->damaged = true;
}

/* Stores a channel's session words, as part of the unit at hand. */
static void words_store(struct serve *serve, uint32_t index)
{
	memcpy(arena_session_write(&serve->workspace->arena, index), &serve->channels[index].at,
	       sizeof(struct session_position));
}

/* Lets units grow again after some without trouble. */
static void channel_calm(struct channel *channel, const struct unit *unit)
{
	if (unit->records == 0 && unit->messages == 0)
		return; /* nothing was taken in */
	channel->roomy = channel->hopeless = false;
	channel->at.surplus = channel->output.surplus = false;
	if (channel->at.limit == 0 || ++channel->calm < CALM_UNITS)
		return;
	channel->calm = 0;
	channel->at.limit = channel->at.limit < LIMIT_MAX ? channel->at.limit * 2 : 0;
}

/* Makes answers visible and gives request bytes back. */
static void channel_show(struct serve *serve, uint32_t index)
{
	struct channel *channel = &serve->channels[index];
	bool published, awaited;

	FAULT_POINT(cursor_store);
	published = output_publish(&channel->output);
	FAULT_POINT(cursor_shown);
	awaited = ring_release(&channel->requests, channel->at.consumed);
	FAULT_POINT(front_marked);
	if (published || awaited)
		front_mark(serve, index);
}

/* Undoes the unit at hand: everything is as the last commit left it. */
static void channel_rollback(struct serve *serve, uint32_t index)
{
	struct workspace *workspace = serve->workspace;
	struct channel *channel = &serve->channels[index];

	output_rollback(&channel->output);
	arena_rollback(&workspace->arena);
	memcpy(&channel->at, arena_session(&workspace->arena, index), sizeof(channel->at));
	ring_rewind(&channel->requests, channel->at.consumed);
	if (channel->session != NULL)
		session_rolled_back(channel->session);
	else
		unary_rolled_back(serve->unary);
	workspace->unit = (struct unit){0};
}

/* Notes what is to be tried again, in a commit of its own. */
static void channel_try_later(struct serve *serve, uint32_t index, const struct retry *retry)
{
	struct channel *channel = &serve->channels[index];

	if (retry->seq == 0)
		channel->at.limit = 1; /* timer by timer */
	else
		session_note_retry(channel->session, retry);
	words_store(serve, index);
	arena_commit(&serve->workspace->arena);
}

/* Has a unit that is in trouble begun anew, with more room or with less to do. */
static void channel_retry(struct serve *serve, uint32_t index)
{
	struct channel *channel = &serve->channels[index];
	struct unit unit = serve->workspace->unit;
	bool parked = output_is_parked(&channel->output);

	if (unit.trouble == TROUBLE_DAMAGE) {
		serve_give_up(serve, serve->workspace->arena.broken);
		return;
	}
	channel_rollback(serve, index);
	FAULT_POINT(unit_undone);
	serve->workspace->now_ns = clock_ns();
	channel->calm = 0;
	if (unit.trouble == TROUBLE_WAIT) {
		channel->rest_ns = serve->workspace->now_ns + WAIT_NS;
		channel->rest_wakes = unit.wakes;
		return;
	}
	if (unit.trouble == TROUBLE_RETRY) {
		channel_try_later(serve, index, &unit.retry);
		return;
	}
	/* The ring has at least the room now that it had when it was too little. State memory that answers were to wait in is not
	 * needed where the ring has room for them. */
	if ((unit.trouble == TROUBLE_RING && !output_has_room(&channel->output)) ||
	    (unit.trouble == TROUBLE_STATE && parked && !channel->roomy)) {
		channel->waits = true;
		return;
	}
	if (unit.messages == 0 && unit.records <= 1 && unit.trouble != TROUBLE_RING) {
		/* The words that fail a session have room in the ring where an answer as large as any has; there may be none for
		 * them elsewhere. And where there is that room, an answer that found none elsewhere needs none. */
		if (!output_has_room(&channel->output)) {
			channel->waits = true;
			return;
		}
		CHECK(!channel->hopeless);
		channel->hopeless = true;
		channel->given_up = unit;
		return;
	}
	if (unit.messages > 0)
		channel->at.limit = unit.records > 0 ? unit.records : 1;
	else if (unit.records > 1)
		channel->at.limit = unit.records / 2;
	else
		channel->at.surplus = channel->output.surplus = true;
	/* A commit of its own, so that a successor need not find out again. */
	words_store(serve, index);
	arena_commit(&serve->workspace->arena);
}

/* Commits the unit at hand, if anything was done in it, and does what follows. */
static void channel_commit(struct serve *serve, uint32_t index)
{
	struct workspace *workspace = serve->workspace;
	struct channel *channel = &serve->channels[index];

	serve->shown_ns = workspace->now_ns;
	if (!workspace->unit.begun || serve->damaged)
		return;
	CHECK(!output_results_open(&channel->output));
	channel_calm(channel, &workspace->unit);
	channel->at.consumed = channel->requests.position;
	channel->at.produced = channel->answers.position;
	words_store(serve, index);
	FAULT_POINT(words_store);
	if (workspace_in_trouble(workspace)) { /* the log had no room for the words */
		channel_retry(serve, index);
		return;
	}
	arena_commit(&workspace->arena);
	if (channel->session != NULL)
		session_committed(channel->session);
	else
		unary_committed(serve->unary);
	counter_add(&workspace->page->counters.frames, workspace->unit.messages);
	if (workspace->unit.messages > 0 || workspace->unit.records > 0)
		progress_done(workspace, workspace->unit.messages);
	workspace->unit = (struct unit){0};
	channel_show(serve, index);
}

/* ---- A channel's life (S2) ------------------------------------------------------------------------------------------ */

/* Makes this process's part of a channel whose words stand in `at`. */
static void channel_take(struct serve *serve, uint32_t index)
{
	struct slot_memory *memory = serve->memory;
	const struct config *config = serve->workspace->config;
	struct channel *channel = &serve->channels[index];
	struct front_channel *front = &memory->channels->front[index];
	struct worker_channel *own = &memory->channels->worker[index];
	uint64_t size = channel_ring_size(memory, index);
	bool unary = index == UNARY_CHANNEL;

	channel->epoch = channel->at.epoch;
	channel->waits = channel->roomy = channel->hopeless = false;
	channel->calm = 0;
	channel->rest_ns = 0;
	ring_consumer_init(&channel->requests, &own->request, &front->request, channel_request_data(memory, index),
			   size);
	ring_producer_init(&channel->answers, &own->response, &front->response, channel_response_data(memory, index),
			   size);
	output_init(&channel->output, &channel->answers, &channel->at.outbox, &serve->workspace->arena, index,
		    unary ? config->unary_message_max : config->message_max,
		    unary ? config->unary_message_max : config->record_max);
	channel->output.surplus = channel->at.surplus;
	if (unary)
		return;
	channel->session = session_create(serve->workspace, &channel->output, &channel->at, index);
	serve->sessions++;
	sessions_show(serve);
}

/* Attaches to a channel that the front opened. */
static void channel_attach(struct serve *serve, uint32_t index, uint32_t epoch)
{
	struct channel *channel = &serve->channels[index];
	const struct session_position *words = arena_session(&serve->workspace->arena, index);

	channel->at = (struct session_position){
	    .epoch = epoch,
	    .stale = channel->stale,
	    .watermark = INT64_MIN,
	    .watermarks = words->watermarks,
	};
	channel_take(serve, index);
	serve->workspace->unit.begun = true;
	channel_commit(serve, index);
	FAULT_POINT(session_open);
}

/* Drops what this process has of a channel; the shared words and the arena stay. */
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
	serve->awaits &= ~(UINT64_C(1) << (channel - serve->channels));
	serve->rests &= ~(UINT64_C(1) << (channel - serve->channels));
	sessions_show(serve);
}

/* Drops what the arena has of a channel, in one commit. What unary calls remember is the slot's and stays; only what belongs to the
 * rings goes. */
static void channel_drop(struct serve *serve, uint32_t index)
{
	struct arena *arena = &serve->workspace->arena;
	const struct session_position *words = arena_session(arena, index);
	struct session_position left = {.stale = serve->channels[index].stale, .watermarks = words->watermarks};

	if (words->epoch == 0 && words->stale == left.stale)
		return;
	if (index == UNARY_CHANNEL) {
		struct outbox outbox = words->outbox;

		outbox_clear(&outbox, arena, index);
	} else {
		arena_session_drop(arena, index);
	}
	serve->channels[index].at = left;
	words_store(serve, index);
	if (arena->trouble == ARENA_BROKEN) {
		serve_give_up(serve, arena->broken);
		return;
	}
	arena_commit(arena);
}

/* Drops a channel and tells the front that this side has no part in it any more. The state goes first: once the front has heard
 * it may open the channel anew. */
static void channel_leave(struct serve *serve, uint32_t index, uint32_t epoch)
{
	channel_detach(serve, &serve->channels[index]);
	channel_drop(serve, index);
	FAULT_POINT(session_drop);
	channel_close(serve->memory, index, epoch);
	FAULT_POINT(session_close);
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

/* Notes that a worker died over a channel. That must not fail for want of state memory, which was not what it died of. */
static void death_note(struct serve *serve, uint32_t index, const struct last_words *died)
{
	struct channel *channel = &serve->channels[index];
	struct arena *arena = &serve->workspace->arena;

	log_warn("channel %u, epoch %u: a worker died over seq %" PRIu64 "; careful from there", index,
		 channel->at.epoch, died->seq);
	suspect_note(&channel->at.suspect, arena, index, died, channel->at.seq + 1, true);
	if (arena->trouble == ARENA_FULL) {
		channel_rollback(serve, index);
		suspect_note(&channel->at.suspect, arena, index, died, channel->at.seq + 1, false);
	}
	serve->workspace->unit.begun = true;
	channel_commit(serve, index);
}

/* Takes one channel over: its session goes on when the front still has it open, else it is dropped and the front's state followed
 * as usual. */
static void channel_adopt(struct serve *serve, uint32_t index, const struct last_words *died)
{
	struct channel *channel = &serve->channels[index];
	uint64_t word = atomic_load_explicit(&serve->memory->channels->front[index].state, memory_order_acquire);

	memcpy(&channel->at, arena_session(&serve->workspace->arena, index), sizeof(channel->at));
	channel->stale = channel->at.stale;
	if (channel->at.epoch == 0)
		return;
	if (channel_state_of(word) != CHANNEL_OPEN || channel_epoch_of(word) != channel->at.epoch) {
		channel_drop(serve, index);
		return;
	}
	channel_take(serve, index);
	ring_consumer_resume(&channel->requests, channel->at.consumed);
	ring_producer_resume(&channel->answers, channel->at.produced);
	if (died != NULL && died->epoch == channel->at.epoch)
		death_note(serve, index, died);
	channel->cause_due_ns = serve->workspace->now_ns + CAUSE_PATIENCE_NS;
	if (channel->session != NULL)
		session_adopt(channel->session);
	if (workspace_in_trouble(serve->workspace))
		channel_retry(serve, index);
	channel_commit(serve, index);
	FAULT_POINT(session_adopt);
}

/* Takes over what a predecessor left. It may have died between a commit and anything that follows from it, so everybody is to look at
 * everything. */
void serve_adopt(struct serve *serve)
{
	uint64_t all = UINT64_MAX >> (SLOT_CHANNELS_MAX - serve->memory->sizes.channel_count);

	const struct workspace *workspace = serve->workspace;
	uint32_t predecessor = atomic_load_explicit(&workspace->life->predecessor, memory_order_relaxed);
	struct last_words words;
	bool died = blame_last_words(workspace->page, predecessor, &words);

	serve->workspace->now_ns = clock_ns();
	for (uint32_t i = 0; i < serve->memory->sizes.channel_count && !serve->damaged; i++)
		channel_adopt(serve, i, died && words.channel == i ? &words : NULL);
	serve->left = all;
	atomic_fetch_or_explicit(&serve->memory->channels->ready_for_front, all, memory_order_seq_cst);
	doorbell_ring(serve->workspace->control->front_bell);
}

/* Drops all sessions and zeroes the worker's words. */
void serve_reset(struct serve *serve)
{
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		uint64_t word = atomic_load_explicit(&serve->memory->channels->front[i].state, memory_order_acquire);

		serve->channels[i].stale = channel_state_of(word) == CHANNEL_FREE ? 0 : channel_epoch_of(word);
		channel_detach(serve, &serve->channels[i]);
		channel_drop(serve, i);
	}
	slot_reset_worker(serve->memory);
	serve->left = 0;
	sessions_show(serve);
}

/* Frees what this process has. */
void serve_destroy(struct serve *serve)
{
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		channel_detach(serve, &serve->channels[i]);
	unary_destroy(serve->unary);
	free(serve);
}

/* ---- A channel's share of a turn ----------------------------------------------------------------------------------- */

/* Answers a unary call. One that workers died over is refused. */
static enum work_result call_work(struct serve *serve, struct channel *channel, const struct frame *frame,
				  const uint8_t *payload)
{
	const struct unit death = {.trouble = TROUBLE_DEATH};
	const struct unit *refused = channel->hopeless ? &channel->given_up : NULL;
	enum work_result result;

	if (suspect_is_proven(&channel->at.suspect, frame->seq))
		refused = &death;
	result = refused != NULL ? unary_refuse(serve->unary, &channel->output, frame, refused)
				 : unary_work(serve->unary, &channel->output, frame, payload, channel->at.limit);
	if (result == WORK_DONE) {
		channel->at.seq = frame->seq;
		suspect_finish(&channel->at.suspect, &serve->workspace->arena, UNARY_CHANNEL, frame->seq);
	}
	return result;
}

/* Works on a frame. */
static enum work_result frame_work(struct serve *serve, struct channel *channel, const struct frame *frame,
				   const uint8_t *payload)
{
	serve->workspace->unit.begun = true;
	serve->workspace->unit.records = 0;
	serve->workspace->careful = suspect_is_near(&channel->at.suspect, frame->seq, channel->at.done);
	if (channel->session == NULL)
		return call_work(serve, channel, frame, payload);
	return channel->hopeless ? session_give_up(channel->session, frame, &channel->given_up)
				 : session_work(channel->session, frame, payload);
}

/* What became of the next frame of a channel. */
enum frame_result { FRAME_TAKEN, FRAME_UNFINISHED, FRAME_TROUBLE, FRAME_NONE };

/* Takes the next frame. */
static enum frame_result frame_take(struct serve *serve, struct channel *channel)
{
	const uint8_t *payload;
	struct frame frame;

	switch (ring_peek(&channel->requests, &frame, &payload)) {
	case RING_OK:
		break;
	case RING_DAMAGED:
		serve_give_up(serve, RING_LIES);
		return FRAME_NONE;
	default:
		return FRAME_NONE;
	}
	if (frame.epoch == channel->epoch) {
		enum work_result result = frame_work(serve, channel, &frame, payload);

		if (result != WORK_DONE)
			return result == WORK_LEFT ? FRAME_UNFINISHED : FRAME_TROUBLE;
		serve->workspace->unit.messages++;
	}
	serve->workspace->unit.begun = true;
	ring_advance(&channel->requests, &frame);
	return FRAME_TAKEN;
}

/* Takes the next frame and ends the unit where that is due. Returns whether there was one. */
static bool channel_step(struct serve *serve, uint32_t index)
{
	struct workspace *workspace = serve->workspace;
	struct channel *channel = &serve->channels[index];
	enum frame_result result;

	if (channel->at.suspect.seq != 0 || (channel->session != NULL && session_retry(channel->session) != NULL))
		channel_commit(
		    serve, index); /* so that what workers died over, or what is tried again, is in a unit of its own */
	result = frame_take(serve, channel);
	if (channel->output.damaged)
		serve_give_up(serve, RING_LIES);
	if (serve->damaged || result == FRAME_NONE)
		return false;
	if (result == FRAME_TROUBLE) {
		channel_retry(serve, index);
		return true;
	}
	if (result == FRAME_UNFINISHED || workspace->unit.over || channel->at.limit != 0 ||
	    output_is_parked(&channel->output) || workspace->now_ns - serve->shown_ns >= SHOW_NS)
		channel_commit(serve, index);
	if (result == FRAME_UNFINISHED)
		channel->waits = !output_has_room(&channel->output);
	return true;
}

/* Sends what waits in the outbox, in units of its own, and sees to it that there is room where that is waited for. False: the channel
 * is parked. */
static bool channel_flush(struct serve *serve, uint32_t index)
{
	struct channel *channel = &serve->channels[index];

	while (output_is_parked(&channel->output) || channel->waits) {
		channel_commit(serve, index);
		if (output_is_parked(&channel->output) && output_flush(&channel->output) > 0) {
			FAULT_POINT(outbox_moved);
			serve->workspace->unit.begun = true;
			continue;
		}
		bool room = output_wait_for_room(&channel->output);
		if (channel->output.damaged)
			serve_give_up(serve, RING_LIES);
		if (serve->workspace->arena.trouble == ARENA_BROKEN)
			serve_give_up(serve, serve->workspace->arena.broken);
		if (serve->damaged)
			return false;
		if (!room) {
			counter_add(&serve->workspace->page->counters.response_ring_full, 1);
			return false;
		}
		if (!output_is_parked(&channel->output)) {
			channel->waits = false;
			channel->roomy = true;
		}
	}
	return true;
}

/* Whether a channel goes on only when it is known why a worker died over it. */
static bool channel_awaits(struct serve *serve, uint32_t index)
{
	struct workspace *workspace = serve->workspace;
	struct channel *channel = &serve->channels[index];
	struct suspect *suspect = &channel->at.suspect;

	serve->awaits &= ~(UINT64_C(1) << index);
	if (!suspect_awaits_cause(suspect))
		return false;
	suspect->cause = control_death_cause(&workspace->control->control->slot[workspace->slot], suspect->number);
	if (suspect->cause == DEATH_UNKNOWN && workspace->now_ns < channel->cause_due_ns) {
		serve->awaits |= UINT64_C(1) << index;
		return true;
	}
	if (suspect->cause == DEATH_UNKNOWN)
		suspect->number = 0; /* nobody says: then it is not blamed */
	workspace->unit.begun = true;
	return false;
}

/* The channels of those that wait which need not wait any more. */
static uint64_t causes_known(const struct serve *serve)
{
	const struct control_slot *control = &serve->workspace->control->control->slot[serve->workspace->slot];
	uint64_t known = 0, now = clock_ns();

	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		const struct channel *channel = &serve->channels[i];

		if ((serve->awaits >> i & 1) != 0 &&
		    (now >= channel->cause_due_ns ||
		     control_death_cause(control, channel->at.suspect.number) != DEATH_UNKNOWN))
			known |= UINT64_C(1) << i;
	}
	return known;
}

/* When a channel may go on whose next input is to be tried again, or waits for something outside; 0: at once. */
static uint64_t channel_rest_until(const struct serve *serve, uint32_t index)
{
	const struct channel *channel = &serve->channels[index];
	const struct retry *retry = channel->session == NULL ? NULL : session_retry(channel->session);
	uint64_t until = retry == NULL || retry->done != channel->at.done ? 0 : retry->due_ns;

	if (channel->rest_ns > until && channel->rest_wakes == wakes_count())
		return channel->rest_ns;
	return until;
}

/* Whether a channel is not to go on yet. */
static bool channel_rests(struct serve *serve, uint32_t index)
{
	uint64_t bit = UINT64_C(1) << index;

	serve->rests &= ~bit;
	if (channel_rest_until(serve, index) <= serve->workspace->now_ns)
		return false;
	serve->rests |= bit;
	return true;
}

/* The channels of those that rest whose time has come. */
static uint64_t rested(const struct serve *serve)
{
	uint64_t due = 0, now = clock_ns();

	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		if ((serve->rests >> i & 1) != 0 && channel_rest_until(serve, i) <= now)
			due |= UINT64_C(1) << i;
	return due;
}

/* Serves a channel until its share is over, it has no more frames, or it parks. Returns whether it has work left. */
static bool channel_serve(struct serve *serve, uint32_t index)
{
	struct workspace *workspace = serve->workspace;
	bool left = false;

	if (channel_awaits(serve, index))
		return false;
	while (!serve->damaged && channel_flush(serve, index)) {
		left = workspace->now_ns >= workspace->deadline_ns;
		if (left || channel_rests(serve, index) || !channel_step(serve, index))
			break;
	}
	channel_commit(serve, index);
	return left;
}

/* Serves each ready channel once, beginning with another one each time. */
enum serve_result serve_turn(struct serve *serve)
{
	struct workspace *workspace = serve->workspace;
	uint64_t ready = serve->left | ready_take(&serve->memory->channels->ready_for_worker);
	uint32_t first = serve->first;

	if (serve->damaged)
		return SERVE_DAMAGED;
	if (serve->awaits != 0)
		ready |= causes_known(serve);
	if (serve->rests != 0)
		ready |= rested(serve);
	serve->left = 0;
	if (ready == 0)
		return SERVE_IDLE;
	serve->first = (first + 1) % SLOT_CHANNELS_MAX;
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX && !serve->damaged; i++) {
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

/* Waits until the first channel that rests may go on. */
bool serve_rest(const struct serve *serve)
{
	uint64_t first = UINT64_MAX, now = clock_ns();

	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		if ((serve->rests >> i & 1) != 0 && channel_rest_until(serve, i) < first)
			first = channel_rest_until(serve, i);
	if (first == UINT64_MAX)
		return false;
	const uint64_t left = first > now ? first - now : 0;
	const struct timespec time = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
	nanosleep(&time, NULL);
	return true;
}

/* Whether a turn would find something. */
bool serve_is_wanted(const struct serve *serve)
{
	return serve->left != 0 || (serve->awaits != 0 && causes_known(serve) != 0) ||
	       (serve->rests != 0 && rested(serve) != 0) ||
	       atomic_load_explicit(&serve->memory->channels->ready_for_worker, memory_order_seq_cst) != 0;
}

/* Finishes the messages that are half done. */
void serve_finish(struct serve *serve)
{
	serve->workspace->deadline_ns = serve->workspace->limit_ns = UINT64_MAX;
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		struct channel *channel = &serve->channels[i];

		if (channel->session == NULL || channel->at.finished)
			continue;
		while (!serve->damaged && channel->at.phase != PHASE_NEXT && channel_flush(serve, i) &&
		       !channel_rests(serve, i) && channel_step(serve, i))
			;
		channel_commit(serve, i);
	}
}

/* Gives memory that sessions had back to the system, a little at a time. */
bool serve_idle(struct serve *serve)
{
	return arena_idle(&serve->workspace->arena);
}

/* Writes down what is remembered. */
static void show_state(const struct serve *serve)
{
	struct worker_page *page = serve->workspace->page;

	state_show_begin(&page->state);
	state_show_session(&page->state, UNARY_CHANNEL, 1, UINT32_MAX, unary_state(serve->unary));
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		const struct channel *channel = &serve->channels[i];
		const struct state_store *store = channel->session == NULL ? NULL : session_state(channel->session);

		if (store != NULL)
			state_show_session(&page->state, i, channel->epoch, channel->at.segment, store);
	}
	state_show_end(page, &serve->workspace->arena);
}

/* Writes down what is remembered, if it is time to. */
uint64_t serve_show_state(struct serve *serve)
{
	uint64_t units = serve->workspace->arena.units, now = serve->workspace->now_ns;
	uint64_t due = serve->state_shown_ns + STATE_SHOW_NS;

	if (serve->state_shown_ns != 0 && units == serve->state_shown_units &&
	    serve->workspace->page->state.freed == 0) /* which changes while nothing is committed */
		return UINT64_MAX;
	if (serve->state_shown_ns != 0 && now < due)
		return due;
	show_state(serve);
	serve->state_shown_ns = now;
	serve->state_shown_units = units;
	return UINT64_MAX;
}

/* Drops what is too old. */
uint64_t serve_expire(struct serve *serve)
{
	uint64_t next;

	serve->workspace->now_ns = clock_ns();
	next = unary_expire(serve->unary);
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		if ((serve->awaits >> i & 1) != 0 && serve->channels[i].cause_due_ns < next)
			next = serve->channels[i].cause_due_ns;
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++)
		if ((serve->rests >> i & 1) != 0 && channel_rest_until(serve, i) < next)
			next = channel_rest_until(serve, i);
	return next;
}
