/*
 * The unary calls: ProcessMessage, ProcessWatermark, AddToWindow, TriggerWindow.
 *
 * Outputs of a segment that ends in key_by or routes carry what the response message has no field for as headers:
 * `bridge-key` (when the key is UTF-8) and `bridge-route`.
 *
 * A call either succeeds as a whole or is refused with words and leaves all as it was; at least once is all that it promises. So a
 * window whose trigger is refused stays, and so does what steps hold, for the client to ask again; a window's age bounds it.
 *
 * A watermark that makes many timers due fires them in units of the usual size, and its reply is put together out of what they let go
 * (unary_words.h). When it is refused on the way those that have fired have fired: the next watermark of the segment says so.
 *
 * Windows are process memory, which no rollback reaches: so a call that changes one ends its unit, and changes it when nothing
 * else can go wrong. Counters count a call when its unit commits.
 */
#include "worker/unary.h"

#include <grpc/status.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "shared/log.h"
#include "worker/memory.h"
#include "worker/unary_words.h"
#include "worker/window.h"

enum {
	WINDOW_RUN = 1024, /* messages of a window that go through the chain together */
	TIMER_RUN = 256,   /* timers of a watermark that fire in one unit */
	TEXT_MAX = 2048    /* more than is sent, so that the cut is made between characters */
};

/* One segment, as unary calls see it. */
struct unary_segment {
	struct chain *chain;
	bool identity;
	bool keys;    /* the last step sets keys */
	bool touched; /* by the unit at hand, which adds this when it commits: */
	uint64_t records_in, bytes_in, records_out, bytes_out, errors;
};

struct unary {
	struct workspace *workspace;
	struct windows *windows;
	struct state_store *store;
	struct unary_segment *segments;
	struct segment_words *words; /* of the segments, in the arena */
	struct run ticked;           /* what the second release of a watermark yields */
};

/* One call at work. */
struct call {
	struct unary *unary;
	struct output *output;
	const struct frame *frame;
	const struct segment *segment;
	struct unary_segment *state;
	struct segment_words *words; /* of the segment */
	struct wire_unary request;
	struct wire_writer *reply; /* NULL: not begun */
	uint64_t mark;             /* in the unit: where the call began */
	uint32_t limit;            /* timers that the unit may fire; 0: as many as is good */
	bool more;                 /* records behind those at hand belong to the call, too */
	bool left;                 /* by the unit at hand: some of the call */
};

/* Opens the chain of one segment. */
static bool segment_open(struct unary *unary, const struct segment *segment, struct failure *failure)
{
	struct unary_segment *state = &unary->segments[segment->id];
	size_t last = segment->step_count;

	state->chain = workspace_chain(unary->workspace, segment, unary->store, failure);
	if (state->chain == NULL)
		return false;
	state->identity = chain_is_identity(state->chain);
	state->keys = last > 0 && segment->steps[last - 1].kind == STEP_key_by;
	return true;
}

/* Opens the chains of all segments. */
struct unary *unary_create(struct workspace *workspace, const struct segment **segment, struct failure *failure)
{
	const struct descriptor *descriptor = workspace->descriptor;
	struct unary *unary = memory_make(1, sizeof(*unary), "unary calls");

	unary->workspace = workspace;
	run_init(&unary->ticked, workspace->scratch);
	unary->windows = windows_create(workspace->config->window_bytes_max);
	unary->segments = memory_make(descriptor->segment_count + 1, sizeof(unary->segments[0]), "unary calls");
	unary->store = state_store_create(&workspace->arena, UNARY_CHANNEL);
	unary->words = unary_words_open(&workspace->arena, (uint32_t)descriptor->segment_count);
	if (unary->words == NULL) {
		failure_set(failure, 0, "the state memory of the slot is full: raise --state-memory");
		*segment = &descriptor->segments[0];
		unary_destroy(unary);
		return NULL;
	}
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		if (segment_open(unary, &descriptor->segments[i], failure))
			continue;
		*segment = &descriptor->segments[i];
		unary_destroy(unary);
		return NULL;
	}
	return unary;
}

/* Closes them. */
void unary_destroy(struct unary *unary)
{
	if (unary == NULL)
		return;
	for (size_t i = 0; i < unary->workspace->descriptor->segment_count; i++)
		if (unary->segments[i].chain != NULL)
			chain_destroy(unary->segments[i].chain);
	state_store_destroy(unary->store);
	windows_destroy(unary->windows);
	run_deinit(&unary->ticked);
	free(unary->segments);
	free(unary);
}

/* Counts what a segment's calls have come to. */
static void segment_count(const struct unary *unary, struct unary_segment *state, uint32_t segment)
{
	struct worker_segment_counters *counters = workspace_segment_counters(unary->workspace, segment);

	counter_add(&counters->records_in, state->records_in);
	counter_add(&counters->bytes_in, state->bytes_in);
	counter_add(&counters->records_out, state->records_out);
	counter_add(&counters->bytes_out, state->bytes_out);
	counter_add(&counters->errors, state->errors);
	chain_committed(state->chain);
}

/* The unit is over. */
static void unit_over(struct unary *unary, bool committed)
{
	for (uint32_t i = 0; i < unary->workspace->descriptor->segment_count; i++) {
		struct unary_segment *state = &unary->segments[i];

		if (!state->touched)
			continue;
		if (committed)
			segment_count(unary, state, i);
		else
			chain_rolled_back(state->chain);
		state->touched = false;
		state->records_in = state->bytes_in = state->records_out = state->bytes_out = state->errors = 0;
	}
}

void unary_committed(struct unary *unary)
{
	unit_over(unary, true);
}

void unary_rolled_back(struct unary *unary)
{
	unit_over(unary, false);
}

const struct state_store *unary_state(const struct unary *unary)
{
	return unary->store;
}

/* ---- Answers ------------------------------------------------------------------------------------------------------- */

/* Refuses a call, and undoes what it has changed. Always returns false, for callers to pass on. (A unit in trouble is rolled back as a
 * whole: nothing needs to be said then.) */
static bool __attribute__((format(printf, 3, 4)))
refuse(struct call *call, grpc_status_code code, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list arguments;

	if (workspace_in_trouble(call->unary->workspace))
		return false;
	arena_undo_to(&call->unary->workspace->arena, call->mark);
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	output_drop(call->output);
	output_status(call->output, FRAME_REFUSAL, code, text);
	if (call->state != NULL)
		call->state->errors++;
	return false;
}

/* Refuses a call because a step failed. What the pipeline has tried again is UNAVAILABLE: the caller repeats it, who has the deadline, and
 * whom gRPC gives policies for that. Here it would hold up all other callers of the slot. */
static bool refuse_step(struct call *call, const struct failure *failure)
{
	const struct segment *segment = call->segment;
	const struct step_spec *spec = failure->step < segment->step_count ? &segment->steps[failure->step] : NULL;
	bool again = failure->transient && spec != NULL && spec->rules.of[RULE_retries] > 0;
	const char *step = spec == NULL ? "" : spec->name;

	refuse(call, again ? GRPC_STATUS_UNAVAILABLE : GRPC_STATUS_INTERNAL,
	       "segment \"%s\" step \"%s\" record %" PRIu32 ": %s", segment->name, step, failure->origin,
	       failure->message);
	return false;
}

/* Refuses a call that would need more memory than the worker has. */
static bool refuse_memory(struct call *call)
{
	return refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "segment \"%s\": the worker has no memory for this call",
		      call->segment->name);
}

/* Counts records of the segment. */
static void count(const struct call *call, bool in, uint64_t records, uint64_t bytes)
{
	*(in ? &call->state->records_in : &call->state->records_out) += records;
	*(in ? &call->state->bytes_in : &call->state->bytes_out) += bytes;
}

/* Adds the headers that say key and route to an output, in place of any that came in under these names. False when memory
 * is out. */
static bool decorate(const struct call *call, struct record *record)
{
	const struct view key_name = view_of("bridge-key"), route_name = view_of("bridge-route");
	bool keyed = call->state->keys && record->keyed && utf8_valid(record->key);
	bool routed = record->route < call->segment->route_count;
	struct wire_header *headers;
	uint32_t kept = 0;

	headers = scratch_alloc(call->unary->workspace->scratch, (record->header_count + 2) * sizeof(*headers));
	if (headers == NULL)
		return false;
	for (uint32_t i = 0; i < record->header_count; i++)
		if (!(keyed && view_equal(record->headers[i].key, key_name)) &&
		    !(routed && view_equal(record->headers[i].key, route_name)))
			headers[kept++] = record->headers[i];
	if (keyed)
		headers[kept++] = (struct wire_header){key_name, record->key};
	if (routed)
		headers[kept++] = (struct wire_header){route_name, view_of(call->segment->routes[record->route])};
	record->headers = headers;
	record->header_count = kept;
	return true;
}

/* An output as the wire code takes it. */
static struct wire_record message_of(const struct record *record)
{
	CHECK(record->state != PAYLOAD_VALUE);
	return (struct wire_record){
	    .payload = record->payload,
	    .timestamp = record->timestamp,
	    .headers = record->headers,
	    .header_count = record->header_count,
	};
}

/* Refuses a call whose outputs are more than a reply may carry. */
static bool refuse_size(struct call *call)
{
	return refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED,
		      "segment \"%s\": the outputs are more than a reply may carry, which is %" PRIu64
		      " bytes: collect less at a time, or raise --unary-message-max",
		      call->segment->name, call->output->message_max);
}

/* Begins the reply for outputs of so many bytes, or for all that it may carry when there will be more. False: the call was
 * refused. */
static bool reply_begin(struct call *call, uint64_t size)
{
	if (call->reply != NULL)
		return true;
	if (size > call->output->message_max)
		return refuse_size(call);
	call->reply = output_begin(call->output, call->more ? call->output->message_max : size);
	return true;
}

/* Ends the reply, which is empty when nothing came out. */
static bool reply_end(struct call *call)
{
	if (call->reply == NULL)
		output_begin(call->output, 0);
	output_end(call->output, FRAME_REPLY, true);
	return true;
}

/* Makes the outputs of the run ready to be written, and says how many bytes that will be. False: the call was refused. */
static bool run_measure(struct call *call, uint64_t *size)
{
	struct run *run = &call->unary->workspace->run;
	bool decorated = call->state->keys || call->segment->route_count > 0;

	*size = 0;
	for (uint32_t i = 0; i < run->count; i++) {
		if (decorated && !decorate(call, &run->records[i]))
			return refuse_memory(call);
		struct wire_record message = message_of(&run->records[i]);
		*size += wire_record_size(&message, WIRE_MESSAGE);
	}
	return true;
}

/* Writes them, and counts them. */
static void run_put(const struct call *call, struct wire_writer *writer)
{
	const struct run *run = &call->unary->workspace->run;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < run->count; i++) {
		struct wire_record message = message_of(&run->records[i]);
		bytes += message.payload.size;
		wire_put_record(writer, &message, WIRE_MESSAGE);
	}
	count(call, false, run->count, bytes);
}

/* Adds the outputs of the run to the reply. */
static bool reply_run(struct call *call)
{
	uint64_t size;

	if (!run_measure(call, &size) || !reply_begin(call, size))
		return false;
	run_put(call, call->reply);
	return !call->reply->overflow || refuse_size(call);
}

/* Adds the records of the batch, as they came in, to the reply. */
static bool reply_batch(struct call *call)
{
	const struct wire_batch *batch = &call->unary->workspace->batch;
	uint64_t size = 0, bytes = 0;

	for (uint32_t i = 0; i < batch->count; i++) {
		size += wire_record_size(&batch->records[i], WIRE_MESSAGE);
		bytes += batch->records[i].payload.size;
	}
	if (!reply_begin(call, size))
		return false;
	for (uint32_t i = 0; i < batch->count; i++)
		wire_put_record(call->reply, &batch->records[i], WIRE_MESSAGE);
	count(call, false, batch->count, bytes);
	return !call->reply->overflow || refuse_size(call);
}

/* ---- The calls ----------------------------------------------------------------------------------------------------- */

/* The time that steps see: the watermark, as the one clock there is. */
static struct step_time time_at(int64_t watermark)
{
	return (struct step_time){
	    .processing_ms = watermark > 0 ? watermark : 0,
	    .watermark_ms = watermark,
	};
}

/* Runs the messages in the batch through the chain and adds what comes out to the reply. */
static bool process_batch(struct call *call)
{
	struct workspace *workspace = call->unary->workspace;
	const struct wire_batch *batch = &workspace->batch;
	struct failure failure = {0};
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < batch->count; i++)
		bytes += batch->records[i].payload.size;
	count(call, true, batch->count, bytes);
	if (call->state->identity) {
		chain_count_identity(call->state->chain, batch->count);
		return reply_batch(call);
	}
	if (!run_take_batch(&workspace->run, batch, 0, batch->count))
		return refuse_memory(call);
	if (!chain_process(call->state->chain, &workspace->run, time_at(call->words->watermark), &failure))
		return refuse_step(call, &failure);
	return reply_run(call);
}

/* Reads the Message of a request into the batch. False: the call was refused. */
static bool message_read(struct call *call)
{
	enum wire_result result;

	if (call->request.message.data == NULL)
		return refuse(call, GRPC_STATUS_INVALID_ARGUMENT, "the request carries no message");
	result = wire_parse_record(call->request.message, WIRE_MESSAGE, &call->unary->workspace->batch);
	if (result == WIRE_NO_MEMORY)
		memory_leave("the records of a unit of work");
	if (result != WIRE_OK)
		return refuse(call, GRPC_STATUS_INVALID_ARGUMENT, "the message in the request cannot be used: %s",
			      wire_result_text(result));
	return true;
}

/* ProcessMessage. */
static bool process_message(struct call *call)
{
	return message_read(call) && process_batch(call) && reply_end(call);
}

/* Whether this call has had a unit before the one at hand. */
static bool is_under_way(const struct call *call)
{
	return call->words->seq == call->frame->seq && call->words->epoch == call->frame->epoch;
}

/* Whether that has done all that event time makes due. */
static bool is_ticking(const struct call *call)
{
	return is_under_way(call) && call->words->ticking;
}

/* Lets steps release by event time and then by the clock that it is, in this order, into the workspace's run, with so many timers at a
 * time. *more: some are left. */
static bool release_some(const struct call *call, uint32_t limit, bool *ticking, bool *more, struct failure *failure)
{
	struct unary *unary = call->unary;
	struct run *run = &unary->workspace->run, *ticked = &unary->ticked;
	const struct step_time time = time_at(call->request.timestamp);
	bool room;

	*ticking = is_ticking(call);
	if (*ticking)
		return chain_release(call->state->chain, RELEASE_TICK, time, limit, run, more, failure);
	if (!chain_release(call->state->chain, RELEASE_WATERMARK, time, limit, run, more, failure))
		return false;
	*ticking = !*more;
	if (*more)
		return true;
	*more = call->limit != 0; /* a unit that is to be small does one of both */
	if (*more)
		return true;
	if (!chain_release(call->state->chain, RELEASE_TICK, time, limit, ticked, more, failure))
		return false;
	room = run_append(run, ticked);
	run_clear(ticked);
	return room || failure_set(failure, 0, "no memory for what is let go");
}

/* The same, judged. False: the call was refused, or the unit is in trouble. */
static bool release(struct call *call, bool *ticking, bool *more)
{
	struct workspace *workspace = call->unary->workspace;
	uint32_t limit = call->limit == 0 || call->limit > TIMER_RUN ? TIMER_RUN : call->limit;
	struct failure failure = {0};

	workspace->unit.records += limit;
	if (release_some(call, limit, ticking, more, &failure))
		return !workspace_in_trouble(workspace);
	if (!workspace_in_trouble(workspace) && scratch_is_out(workspace->scratch) && limit > 1)
		return workspace_trouble(workspace, TROUBLE_MEMORY);
	return refuse_step(call, &failure);
}

/* Replies with what is kept and the outputs of the run. */
static bool reply_with_kept(struct call *call, uint64_t size)
{
	if (!reply_begin(call, call->words->kept_bytes + size))
		return false;
	if (call->words->kept_first != 0)
		unary_hand_out(&call->unary->workspace->arena,
			       unary_words_write(&call->unary->workspace->arena, call->words), call->reply);
	run_put(call, call->reply);
	return call->reply->overflow ? refuse_size(call) : reply_end(call);
}

/* Judges outputs that are more than a reply may carry. What an earlier call has left is made room for first: it is the reply, and the
 * watermark has yet to pass. */
static bool reply_without_run(struct call *call)
{
	struct arena *arena = &call->unary->workspace->arena;

	if (is_under_way(call) || call->words->kept_bytes == 0)
		return refuse_size(call);
	arena_undo_to(arena, call->mark);
	run_clear(&call->unary->workspace->run);
	return reply_with_kept(call, 0);
}

/* Judges outputs of a unit that are more than can be kept at a time: fewer timers make fewer. Always returns false. */
static bool refuse_keeping(struct call *call)
{
	if (call->limit != 1)
		return workspace_trouble(call->unary->workspace, TROUBLE_MEMORY);
	return refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED,
		      "segment \"%s\": the outputs of one timer are more than %d bytes", call->segment->name,
		      UNARY_KEEP_MAX);
}

/* Keeps the outputs of the run until the call goes on. */
static bool keep_run(struct call *call, uint64_t size, bool ticking)
{
	struct arena *arena = &call->unary->workspace->arena;
	struct segment_words *words;
	struct wire_writer writer;

	if (size > UNARY_KEEP_MAX)
		return refuse_keeping(call);
	words = unary_words_write(arena, call->words);
	words->seq = call->frame->seq;
	words->epoch = call->frame->epoch;
	words->ticking = ticking;
	call->left = true;
	if (size == 0)
		return true;
	if (!unary_keep(arena, words, size, &writer))
		return false;
	run_put(call, &writer);
	CHECK(!writer.overflow);
	return true;
}

/* ProcessWatermark. One that goes back is no news: clients share the segment, and each has a watermark of its own. */
static bool process_watermark(struct call *call)
{
	bool ticking, more;
	uint64_t size;

	if (call->request.timestamp <= call->words->watermark)
		return reply_with_kept(call, 0);
	if (!release(call, &ticking, &more) || !run_measure(call, &size))
		return false;
	if (call->words->kept_bytes + size > call->output->message_max)
		return reply_without_run(call);
	if (more)
		return keep_run(call, size, ticking);
	unary_words_write(&call->unary->workspace->arena, call->words)->watermark = call->request.timestamp;
	return reply_with_kept(call, size);
}

/* The window that a call names. */
static struct window_name window_of(const struct call *call)
{
	return (struct window_name){
	    .segment = call->request.segment,
	    .key = call->request.window_key,
	    .start = call->request.window_start,
	};
}

/* Shows windows in the counters. */
static void windows_show(const struct unary *unary)
{
	struct worker_counters *counters = &unary->workspace->page->counters;

	gauge_set(&counters->windows_open, windows_count(unary->windows));
	gauge_set(&counters->window_bytes, windows_bytes(unary->windows));
}

/* AddToWindow. The message is read now, so that what cannot be read is refused here and not when the window is triggered. */
static bool add_to_window(struct call *call)
{
	struct workspace *workspace = call->unary->workspace;
	struct windows *windows = call->unary->windows;
	struct window_name name = window_of(call);

	if (!message_read(call))
		return false;
	if (!windows_add(windows, &name, call->request.message, workspace->now_ns))
		return refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED,
			      "the windows of this slot hold %" PRIu64 " bytes in %" PRIu64 " windows, of %" PRIu64
			      " allowed: trigger windows that are complete, or raise --window-bytes",
			      windows_bytes(windows), windows_count(windows), workspace->config->window_bytes_max);
	call->unary->workspace->unit.over = true;
	windows_show(call->unary);
	return reply_end(call);
}

/* Reads the next messages of a window into the batch and moves on. False: the call was refused. */
static bool window_read(struct call *call, const struct window_message **at)
{
	struct wire_batch *batch = &call->unary->workspace->batch;

	workspace_clear(call->unary->workspace);
	for (; *at != NULL && batch->count < WINDOW_RUN; *at = (*at)->next) {
		enum wire_result result =
		    wire_parse_record((struct view){(*at)->bytes, (*at)->size}, WIRE_MESSAGE, batch);

		if (result == WIRE_NO_MEMORY)
			memory_leave("the records of a unit of work");
		CHECK(result == WIRE_OK); /* it was, when it was added */
	}
	call->more = *at != NULL;
	return true;
}

/* TriggerWindow: run after run of what was collected, so that a large window needs no more memory than its reply. */
static bool trigger_window(struct call *call)
{
	struct windows *windows = call->unary->windows;
	struct window_name name = window_of(call);
	struct window *window = windows_find(windows, &name);
	const struct window_message *at = window != NULL ? window->first : NULL;

	while (at != NULL)
		if (!window_read(call, &at) || !process_batch(call))
			return false;
	reply_end(call);
	if (workspace_in_trouble(call->unary->workspace))
		return false;
	call->unary->workspace->unit.over = true;
	if (window != NULL)
		windows_remove(windows, window);
	windows_show(call->unary);
	return true;
}

/* Reads a request, finds its segment and does what it asks for. */
static bool work(struct call *call, struct view request)
{
	const struct descriptor *descriptor = call->unary->workspace->descriptor;
	enum wire_result result = wire_parse_unary(call->frame->kind, request, &call->request);

	if (result != WIRE_OK)
		return refuse(call, GRPC_STATUS_INVALID_ARGUMENT, "the request cannot be used: %s",
			      wire_result_text(result));
	if (call->request.segment >= descriptor->segment_count)
		return refuse(call, GRPC_STATUS_INVALID_ARGUMENT,
			      "there is no segment %" PRIu32 "; pipeline \"%s\" has segments 0 to %zu",
			      call->request.segment, descriptor->pipeline, descriptor->segment_count - 1);
	call->segment = &descriptor->segments[call->request.segment];
	call->state = &call->unary->segments[call->request.segment];
	call->words = &call->unary->words[call->request.segment];
	call->state->touched = true;
	call->output->header.segment = call->request.segment;
	switch (call->frame->kind) {
	case FRAME_PROCESS_MESSAGE:
		return process_message(call);
	case FRAME_PROCESS_WATERMARK:
		return process_watermark(call);
	case FRAME_ADD_TO_WINDOW:
		return add_to_window(call);
	case FRAME_TRIGGER_WINDOW:
		return trigger_window(call);
	}
	CHECK(!"a kind of frame that unary_work lets through");
	return false;
}

/* Whether a kind of frame is a unary call. */
static bool is_call(unsigned kind)
{
	return kind == FRAME_PROCESS_MESSAGE || kind == FRAME_PROCESS_WATERMARK || kind == FRAME_ADD_TO_WINDOW ||
	       kind == FRAME_TRIGGER_WINDOW;
}

/* A call in a frame. */
static struct call call_of(struct unary *unary, struct output *output, const struct frame *frame)
{
	output_answer(output, frame, frame->seq);
	return (struct call){
	    .unary = unary,
	    .output = output,
	    .frame = frame,
	    .mark = arena_mark(&unary->workspace->arena),
	};
}

/* Answers the call in a frame. */
enum work_result unary_work(struct unary *unary, struct output *output, const struct frame *frame,
			    const uint8_t *payload, uint32_t limit)
{
	struct workspace *workspace = unary->workspace;
	struct call call = call_of(unary, output, frame);
	uint64_t began_ns = workspace->now_ns;

	call.limit = limit;

	if (!is_call(frame->kind)) {
		refuse(&call, GRPC_STATUS_INTERNAL, "a frame of kind %s came on the channel of unary calls",
		       frame_kind_name(frame->kind));
		return workspace_in_trouble(workspace) ? WORK_TROUBLE : WORK_DONE;
	}
	workspace_clear(workspace);
	progress_begin(workspace, frame, UNARY_CHANNEL);
	work(&call, (struct view){payload, frame->length - sizeof(*frame)});
	progress_end(workspace);
	if (workspace_in_trouble(workspace))
		return WORK_TROUBLE;
	workspace->now_ns = clock_ns();
	if (call.left)
		return WORK_LEFT;
	if (call.segment != NULL)
		histogram_add(&workspace_segment_counters(workspace, call.segment->id)->latency,
			      workspace->now_ns - began_ns);
	return WORK_DONE;
}

/* Refuses the call in a frame. */
enum work_result unary_refuse(struct unary *unary, struct output *output, const struct frame *frame,
			      const struct unit *unit)
{
	struct workspace *workspace = unary->workspace;
	struct call call = call_of(unary, output, frame);

	if (unit->trouble == TROUBLE_DEATH)
		refuse(&call, GRPC_STATUS_INTERNAL, "workers died over this call, and it is not tried again");
	else if (unit->trouble == TROUBLE_STATE)
		refuse(&call, GRPC_STATUS_RESOURCE_EXHAUSTED,
		       "the state memory of the slot is full: raise --state-memory, or keep less");
	else
		refuse(&call, GRPC_STATUS_RESOURCE_EXHAUSTED,
		       "the call changes more state than can be undone: send less at a time, or raise --state-memory");
	return workspace_in_trouble(workspace) ? WORK_TROUBLE : WORK_DONE;
}

/* Drops windows that are too old. */
uint64_t unary_expire(struct unary *unary)
{
	struct workspace *workspace = unary->workspace;
	uint64_t age_ns = workspace->config->window_age_ms_max * UINT64_C(1000000);
	const struct window *oldest = windows_oldest(unary->windows);
	uint32_t expired;

	if (oldest == NULL)
		return UINT64_MAX;
	if (workspace->now_ns > age_ns) {
		expired = windows_expire(unary->windows, workspace->now_ns - age_ns);
		counter_add(&workspace->page->counters.windows_expired, expired);
		if (expired > 0)
			log_warn("%" PRIu32 " windows were dropped: nobody triggered them within %" PRIu64 " ms",
				 expired, workspace->config->window_age_ms_max);
		windows_show(unary);
	}
	oldest = windows_oldest(unary->windows);
	return oldest == NULL ? UINT64_MAX : oldest->opened_ns + age_ns;
}
