/*
 * The kinds of steps whose code is a library's: the chain's entry points on one side, the library's on the other.
 *
 *      chain           open ---> start ---> process ... fire ... release ---> close
 *                       |          |           |         |         |            |
 *      library    (once) load     open      process    timer    watermark     close
 *                                                                end
 *
 * `open` loads the code, which every process of a slot does; `start` opens the step for one session, in the owner alone.
 *
 * A library sees records where they stand, for struct record and struct wire_record begin as its struct bridge_record; copies only where it
 * changes them itself, by giving keys or routes.
 *
 * Left out: unloading a library. New code comes with a new process.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "worker/hosts/host_parts.h"
#include "worker/memory.h"
#include "worker/steps/kinds.h"

/* ---- Life ------------------------------------------------------------------------------------------------------------------------- */

/* Frees what a step has here. */
static void host_close(struct step *step)
{
	struct bridge_context *context = step->own;

	if (context->self != NULL && context->code->library->close != NULL)
		context->code->library->close(context->self);
	run_deinit(&context->own);
	free(context->records);
	free(context->kept);
	free(context->traceback);
	free(context);
}

/* Loads the code. */
static bool host_open(struct step *step, struct failure *failure)
{
	const struct host_code *code = host_code_get(step->segment, step->spec, failure);

	if (code == NULL)
		return false;
	struct bridge_context *context = calloc(1, sizeof(*context));
	CHECK(context != NULL);
	context->spec = step->spec;
	context->segment = step->segment;
	context->code = code;
	context->step = step;
	step->own = context;
	step->flushes = code->flags & BRIDGE_STEP_FLUSHES;
	step->single = code->flags & BRIDGE_STEP_SINGLE;
	return true;
}

/* The state that is worth being looked up before its record is due: the first that is found by the key alone. */
static struct state *state_to_look_ahead(const struct step *step)
{
	for (size_t i = 0; i < step->state_count; i++) {
		struct state_spec spec;
		if (step->states[i] != NULL && step_state(step->segment, step->spec, i, &spec) &&
		    spec.partition == STATE_BY_KEY && spec.kind != STATE_TIMERS)
			return step->states[i];
	}
	return NULL;
}

/* Opens the step for a session. */
static bool host_start(struct step *step, struct step_time time, struct failure *failure)
{
	struct bridge_context *context = step->own;
	const struct host_code *code = context->code;
	void *self = NULL;

	host_begin(context, CALL_OPEN, time, failure);
	int result = code->library->open(&host_calls, context, &code->setup, code->code, &self);
	if (!host_end(context, result)) {
		/* It may be open, for all that the library knows. */
		if (result == BRIDGE_OK && self != NULL && code->library->close != NULL)
			code->library->close(self);
		return false;
	}
	context->self = self;
	context->ahead = state_to_look_ahead(step);
	return true;
}

/* ---- Records ---------------------------------------------------------------------------------------------------------------------- */

/* Makes room for as many records as a run has. */
static void make_room(struct bridge_context *context, uint32_t count)
{
	if (count <= context->record_room)
		return;
	free(context->records);
	free(context->kept);
	context->records = malloc(count * sizeof(*context->records));
	context->kept = malloc(count * sizeof(*context->kept));
	if (context->records == NULL || context->kept == NULL)
		memory_leave("the records of a unit of work");
	context->record_room = count;
}

#define SAME_PLACE(type, field, shown)                                                                                 \
	(offsetof(struct type, field) == offsetof(struct bridge_record, shown) &&                                      \
	 sizeof(((struct type *)NULL)->field) == sizeof(((struct bridge_record *)NULL)->shown))
#define BEGINS_AS_SHOWN(type, from, index)                                                                             \
	(SAME_PLACE(type, payload, payload) && SAME_PLACE(type, key, key) && SAME_PLACE(type, headers, headers) &&     \
	 SAME_PLACE(type, timestamp, timestamp) && SAME_PLACE(type, header_count, header_count) &&                     \
	 SAME_PLACE(type, keyed, keyed) && SAME_PLACE(type, from, input) && SAME_PLACE(type, index, ordinal))

_Static_assert(BEGINS_AS_SHOWN(record, route, origin), "a record of a run begins as the library sees one");
_Static_assert(BEGINS_AS_SHOWN(wire_record, input, ordinal), "a record of a batch begins as the library sees one");

/* Shows records to the library: as they stand, or copies where they are going to change under its eyes. */
static struct bridge_run show(struct bridge_context *context, const void *records, size_t stride, uint32_t count,
			      bool changing)
{
	make_room(context, count);
	for (uint32_t i = 0; i < count && changing; i++)
		memcpy(&context->records[i], (const uint8_t *)records + i * stride, sizeof(context->records[i]));
	return (struct bridge_run){
	    .size = sizeof(struct bridge_run),
	    .count = count,
	    .stride = changing ? sizeof(*context->records) : stride,
	    .records = changing ? context->records : records,
	};
}

/* Makes bytes of all payloads of a run. */
static bool need_bytes(struct run *run, struct failure *failure)
{
	const char *why;

	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		if (record->state == PAYLOAD_VALUE && !record_need_bytes(record, run->scratch, &why))
			return failure_set(failure, record->origin, "%s", why);
	}
	return true;
}

/* Closes the gaps between the records that stay where they are. */
static void close_gaps(struct bridge_context *context, struct run *run)
{
	uint32_t next = context->kept_first, kept = 0;

	for (uint32_t i = next; i < run->count; i++) {
		struct record *record = &run->records[i];
		if (kept == context->kept_count || context->kept[kept] != i) {
			record_drop(record);
			continue;
		}
		kept++;
		run->records[next++] = *record; /* there is a gap before it */
		record->state = PAYLOAD_BYTES;  /* its value has moved */
	}
	run->count = next;
}

/* Has the library process records that it has been shown, and that stand where the context says. */
static bool process(struct bridge_context *context, const struct bridge_run *shown, struct step_time time,
		    struct failure *failure)
{
	host_begin(context, CALL_PROCESS, time, failure);
	context->in_place = true;
	context->kept_first = context->kept_count = 0;
	return host_end(context, context->code->library->process(context->self, shown));
}

/* Hands a run to the library; what it makes of it becomes the run. */
static bool host_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct bridge_context *context = step->own;

	if (!need_bytes(run, failure))
		return false;
	const struct bridge_setup *setup = &context->code->setup;
	const struct bridge_run shown =
	    show(context, run->records, sizeof(*run->records), run->count, setup->sets_keys || setup->route_count > 0);
	context->in = run;
	context->out = &context->own;
	context->own.scratch = run->scratch;
	bool good = process(context, &shown, time, failure);
	context->in = context->out = NULL;
	if (good && context->in_place)
		close_gaps(context, run);
	else if (good)
		run_trade(run, &context->own);
	run_clear(&context->own);
	return good;
}

/* ---- Batches as they came --------------------------------------------------------------------------------------------------------- */

/* Closes the gaps between the records of a batch that stay where they are. */
static void close_batch_gaps(const struct bridge_context *context, struct wire_batch *batch)
{
	batch->count = context->kept_first;
	for (uint32_t i = 0; i < context->kept_count; i++)
		batch->records[batch->count++] = batch->records[context->kept[i]];
}

/* Hands a batch to the library. */
static bool host_process_batch(struct step *step, struct wire_batch *batch, struct step_time time, struct run *out,
			       bool *in_place, struct failure *failure)
{
	struct bridge_context *context = step->own;

	const struct bridge_run shown =
	    show(context, batch->records, sizeof(*batch->records), batch->count, context->code->setup.sets_keys);
	context->batch = batch;
	context->out = out;
	bool good = process(context, &shown, time, failure);
	context->batch = NULL;
	context->out = NULL;
	*in_place = good && context->in_place;
	if (*in_place)
		close_batch_gaps(context, batch);
	return good;
}

/* ---- Time ------------------------------------------------------------------------------------------------------------------------- */

/* Begins a call that has no records, and emits to a run. */
static void begin_without_records(struct bridge_context *context, enum host_call call, struct step_time time,
				  struct run *out, struct failure *failure)
{
	host_begin(context, call, time, failure);
	context->in = NULL;
	context->out = out;
	context->in_place = false;
}

/* A timer is due. */
static bool host_fire(struct step *step, enum state_time domain, const struct state_timer *timer, struct step_time time,
		      struct run *out, struct failure *failure)
{
	struct bridge_context *context = step->own;
	const struct bridge_timer shown = {
	    .size = sizeof(shown),
	    .domain = (uint32_t)domain,
	    .time = timer->time_ms,
	    .key = {timer->key.data, timer->key.size},
	    .tag = {timer->tag.data, timer->tag.size},
	};

	if (context->code->library->timer == NULL)
		return failure_set(failure, 0, "the library has no timer() in its table, and a timer is due");
	begin_without_records(context, CALL_TIMER, time, out, failure);
	context->timer = timer;
	context->domain = domain;
	context->has_key = true;
	return host_end(context, context->code->library->timer(context->self, &shown));
}

/* Event time has moved, or the input has ended. */
static bool host_release(struct step *step, enum release_cause cause, struct step_time time, struct run *out,
			 struct failure *failure)
{
	struct bridge_context *context = step->own;
	const struct bridge_step_library *library = context->code->library;

	if (cause == RELEASE_WATERMARK && library->watermark != NULL) {
		begin_without_records(context, CALL_WATERMARK, time, out, failure);
		return host_end(context, library->watermark(context->self, time.watermark_ms));
	}
	if (cause == RELEASE_END && library->end != NULL) {
		begin_without_records(context, CALL_END, time, out, failure);
		return host_end(context, library->end(context->self));
	}
	return true;
}

/* A library's step is the same to the chain whoever the host is. */
#define HOST_OPS                                                                                                       \
	{                                                                                                              \
		.open = host_open, .start = host_start, .close = host_close, .process = host_process,                  \
		.process_batch = host_process_batch, .fire = host_fire, .release = host_release,                       \
	}

const struct step_kind_ops native_ops = HOST_OPS;
const struct step_kind_ops python_ops = HOST_OPS;
