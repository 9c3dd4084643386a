/*
 * The calls that a library can make (struct bridge_host). Each checks what it is handed as far as that can be checked, and says by its
 * result what is wrong; a pointer that leads nowhere kills the process, as a step's own would.
 *
 * Output: while a step forwards records in their order and emits nothing, they stay where they are, and only their indices are noted;
 * at the end the gaps are closed. So a step that hands everything on, or filters, copies no record. With the first thing that does not
 * fit into that picture they move to the output.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "shared/metrics.h"
#include "worker/hosts/host_parts.h"
#include "worker/wakes.h"

_Static_assert(sizeof(struct bridge_header) == sizeof(struct wire_header) &&
		   sizeof(struct bridge_bytes) == sizeof(struct view),
	       "headers and bytes are handed out as they are");

/* Where metrics are; this process's own memory, where nobody has said better. */
static struct metric_table own_metrics, *metrics = &own_metrics;

void host_metrics_in(struct metric_table *table)
{
	metrics = table;
}

/* ---- A call of the library ------------------------------------------------------------------------------------------------------- */

void host_begin(struct bridge_context *context, enum host_call call, struct step_time time, struct failure *failure)
{
	context->call = call;
	context->time = time;
	context->failure = failure;
	context->failed = context->full = context->has_key = context->asked = false;
	context->timer = NULL;
}

/* The place of a record in what came in. */
static uint32_t origin_of(const struct bridge_context *context, uint32_t index)
{
	return context->in != NULL ? context->in->records[index].origin : index;
}

bool host_end(struct bridge_context *context, int result)
{
	static const char *const names[] = {
	    [CALL_NONE] = "?",      [CALL_LOAD] = "load",           [CALL_OPEN] = "open", [CALL_PROCESS] = "process",
	    [CALL_TIMER] = "timer", [CALL_WATERMARK] = "watermark", [CALL_END] = "end"};
	const char *name = names[context->call];

	context->call = CALL_NONE;
	if (context->full)
		return failure_set(context->failure, context->failed ? context->failure->origin : 0,
				   "no room for what %s() makes: of its records, or in the state memory of the slot",
				   name);
	if (result == BRIDGE_OK && !context->failed)
		return true;
	if (result == BRIDGE_WAITING && context->asked && !context->failed) {
		failure_set(context->failure, 0, "waits for something outside");
		context->failure->waits = true;
		context->failure->wakes = context->wakes;
		return false;
	}
	if (context->failed)
		return false;
	return failure_set(context->failure, host_count(context) > 0 ? origin_of(context, 0) : 0,
			   "%s() returned %d, and did not say why (host->fail)", name, result);
}

/* Whether output can be made now. */
static bool can_emit(const struct bridge_context *context)
{
	return context->call >= CALL_PROCESS;
}

/* Notes that there is no room for something. */
static int no_room(struct bridge_context *context)
{
	context->full = true;
	return BRIDGE_FULL;
}

/* ---- Output ---------------------------------------------------------------------------------------------------------------------- */

/* Appends a copy of a record to the output; of one of a batch with the route that it was given. */
static struct record *push_copy(struct bridge_context *context, uint32_t index)
{
	struct record *record;

	if (context->in != NULL)
		return run_push_copy(context->out, &context->in->records[index])
			   ? &context->out->records[context->out->count - 1]
			   : NULL;
	record = run_push(context->out);
	if (record == NULL)
		return NULL;
	record_of_batch(record, context->batch, index);
	record->route = context->batch->records[index].route;
	return record;
}

bool host_leave_place(struct bridge_context *context)
{
	if (!context->in_place)
		return true;
	context->in_place = false;
	for (uint32_t i = 0; i < context->kept_first; i++)
		if (!push_copy(context, i))
			return false;
	for (uint32_t i = 0; i < context->kept_count; i++)
		if (!push_copy(context, context->kept[i]))
			return false;
	return true;
}

/* Whether a route is one of those that the step has; a step without has route 0. */
static bool has_route(const struct bridge_context *context, uint32_t route)
{
	return route == 0 || route < context->code->setup.route_count;
}

/* Gives records the route that they leave by, where the step has several. */
static void set_routes(struct bridge_context *context, uint32_t first, uint32_t count, uint32_t route)
{
	for (uint32_t i = first; i < first + count && context->code->setup.route_count > 0; i++) {
		if (context->in != NULL)
			context->in->records[i].route = route;
		else
			context->batch->records[i].route = route;
	}
}

/* Notes records that may stay where they are. */
static void keep_in_place(struct bridge_context *context, uint32_t first, uint32_t count, uint32_t route)
{
	set_routes(context, first, count, route);
	if (context->kept_count == 0 && first == context->kept_first) {
		context->kept_first += count;
		return;
	}
	for (uint32_t i = first; i < first + count; i++)
		context->kept[context->kept_count++] = i;
}

/* The first record that may still stay where it is. */
static uint32_t next_in_place(const struct bridge_context *context)
{
	return context->kept_count > 0 ? context->kept[context->kept_count - 1] + 1 : context->kept_first;
}

/* struct bridge_host: forward */
static int call_forward(struct bridge_context *context, uint32_t first, uint32_t count, uint32_t route)
{
	uint32_t all = host_count(context);

	if (context->call != CALL_PROCESS || count > all || first > all - count)
		return BRIDGE_MISUSE;
	if (!has_route(context, route))
		return BRIDGE_UNKNOWN;
	if (context->in_place && first >= next_in_place(context)) {
		keep_in_place(context, first, count, route);
		return BRIDGE_OK;
	}
	if (!host_leave_place(context))
		return no_room(context);
	for (uint32_t i = first; i < first + count; i++) {
		struct record *record = push_copy(context, i);
		if (record == NULL)
			return no_room(context);
		record->route = route;
	}
	return BRIDGE_OK;
}

/* The timestamp of what is made from no record. */
static int64_t time_of_nothing(const struct bridge_context *context)
{
	if (context->timer != NULL && context->domain == STATE_EVENT_TIME)
		return context->timer->time_ms;
	return context->time.watermark_ms;
}

/* Fills what an output has that is made from no record; false: a keyed segment has to know the key. */
static bool fill_from_nothing(const struct bridge_context *context, struct record *record)
{
	record->timestamp = time_of_nothing(context);
	if (context->timer != NULL) {
		record->keyed = context->segment->keyed;
		record->key = context->timer->key;
		record->key_hash = context->timer->key_hash;
		record->key_group = context->timer->key_group;
	}
	return context->timer != NULL || !context->segment->keyed;
}

/* Fills what an output has that is made from a record. */
static void fill_from(const struct record *from, struct record *record)
{
	record->timestamp = from->timestamp;
	record->keyed = from->keyed;
	record->key = from->key;
	record->key_hash = from->key_hash;
	record->key_group = from->key_group;
	record->headers = from->headers;
	record->header_count = from->header_count;
	record->origin = from->origin;
}

/* The same of one of a batch. */
static void fill_from_batch(const struct wire_batch *batch, uint32_t index, struct record *record)
{
	struct view payload = record->payload;

	record_of_batch(record, batch, index);
	record->payload = payload;
}

/* Bytes of the library's where they last as long as the unit. */
static bool bytes_take(const struct bridge_context *context, struct bridge_bytes bytes, bool stays, struct view *view)
{
	*view = (struct view){bytes.data, bytes.size};
	if (stays || bytes.size == 0)
		return true;
	*view = scratch_copy(context->out->scratch, *view);
	return view->data != NULL;
}

/* Takes over the headers of an output. */
static int headers_take(const struct bridge_context *context, const struct bridge_output *output, struct record *record)
{
	bool stays = output->flags & BRIDGE_OUT_STAYS;
	struct wire_header *headers;

	if (output->header_count > WIRE_HEADERS_MAX)
		return BRIDGE_TOO_LARGE;
	record->headers = (const struct wire_header *)(const void *)output->headers;
	record->header_count = (uint32_t)output->header_count;
	for (size_t i = 0; i < output->header_count; i++)
		if (!utf8_valid((struct view){output->headers[i].name.data, output->headers[i].name.size}) ||
		    !utf8_valid((struct view){output->headers[i].value.data, output->headers[i].value.size}))
			return BRIDGE_MISUSE;
	if (stays || output->header_count == 0)
		return BRIDGE_OK;
	headers = scratch_alloc(context->out->scratch, output->header_count * sizeof(*headers));
	if (headers == NULL)
		return BRIDGE_FULL;
	for (size_t i = 0; i < output->header_count; i++)
		if (!bytes_take(context, output->headers[i].name, false, &headers[i].key) ||
		    !bytes_take(context, output->headers[i].value, false, &headers[i].value))
			return BRIDGE_FULL;
	record->headers = headers;
	return BRIDGE_OK;
}

/* Fills a record from an output that has been checked. */
static int output_take(const struct bridge_context *context, const struct bridge_output *output, struct record *record)
{
	if (!bytes_take(context, output->payload, output->flags & BRIDGE_OUT_STAYS, &record->payload))
		return BRIDGE_FULL;
	if (output->from != BRIDGE_NO_RECORD && context->in == NULL)
		fill_from_batch(context->batch, output->from, record);
	else if (output->from != BRIDGE_NO_RECORD)
		fill_from(&context->in->records[output->from], record);
	else if (!fill_from_nothing(context, record))
		return BRIDGE_NO_KEY;
	record->route = output->route;
	if (output->flags & BRIDGE_OUT_TIMESTAMP)
		record->timestamp = output->timestamp;
	return output->flags & BRIDGE_OUT_HEADERS ? headers_take(context, output, record) : BRIDGE_OK;
}

/* struct bridge_host: emit */
static int call_emit(struct bridge_context *context, const struct bridge_output *given)
{
	struct bridge_output whole = {0};
	const struct bridge_output *output = given;

	if (given->size < sizeof(whole)) {
		memcpy(&whole, given, given->size);
		output = &whole;
	}
	if (!can_emit(context) || (output->from != BRIDGE_NO_RECORD &&
				   (context->call != CALL_PROCESS || output->from >= host_count(context))))
		return BRIDGE_MISUSE;
	if (!has_route(context, output->route))
		return BRIDGE_UNKNOWN;
	struct record *record = host_leave_place(context) ? run_push(context->out) : NULL;
	if (record == NULL)
		return no_room(context);
	int result = output_take(context, output, record);
	if (result != BRIDGE_OK)
		context->out->count--;
	return result == BRIDGE_FULL ? no_room(context) : result;
}

/* struct bridge_host: key */
static int call_key(struct bridge_context *context, uint32_t index, struct bridge_bytes bytes)
{
	struct view key;

	if (context->call != CALL_PROCESS || !context->code->setup.sets_keys || index >= host_count(context))
		return BRIDGE_MISUSE;
	if (!bytes_take(context, bytes, false, &key))
		return no_room(context);
#define SET_KEY(record)                                                                                                \
	(record).key = key, (record).key_hash = key_hash_of(key), (record).key_group = 0, (record).keyed = true
	if (context->in != NULL)
		SET_KEY(context->in->records[index]);
	else
		SET_KEY(context->batch->records[index]);
#undef SET_KEY
	return BRIDGE_OK;
}

/* struct bridge_host: memory. Where there is no unit of work there is none, and it is not for want of room. */
static void *call_memory(struct bridge_context *context, size_t size)
{
	if (!can_emit(context))
		return NULL;
	void *memory = scratch_alloc(context->out->scratch, size);
	if (memory == NULL)
		no_room(context);
	return memory;
}

/* ---- Failures, log, time, metrics ------------------------------------------------------------------------------------------------ */

enum { TRACEBACK_MAX = 16 << 10 };

/* Keeps a traceback, or its end, until the next failure of the step. */
static const char *traceback_keep(struct bridge_context *context, struct bridge_bytes text)
{
	size_t cut = text.size > TRACEBACK_MAX ? text.size - TRACEBACK_MAX : 0;

	free(context->traceback);
	context->traceback = NULL;
	if (text.size == 0)
		return NULL;
	context->traceback = strndup((const char *)text.data + cut, text.size - cut);
	CHECK(context->traceback != NULL);
	failure_repair(context->traceback);
	return context->traceback;
}

/* Whether a word stands by itself in one of the lines of a text. */
static bool has_line(struct bridge_bytes text, const char *word)
{
	size_t size = strlen(word);

	if (text.size == 0) /* and no data, either */
		return false;
	for (const uint8_t *at = text.data, *end = at + text.size; at < end;) {
		const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
		if (stop == NULL)
			stop = end;
		if ((size_t)(stop - at) == size && memcmp(at, word, size) == 0)
			return true;
		at = stop + 1;
	}
	return false;
}

/* Whether a failure is one of those that the pipeline has tried again. */
static bool is_transient(const struct error_rules *rules, const struct bridge_failure *failure)
{
	bool called = failure->flags & BRIDGE_TRANSIENT, is = rules->retry_on_count == 0 && called;

	for (size_t i = 0; i < rules->retry_on_count && !is; i++) {
		const char *kind = rules->retry_on[i].name;
		is = (called && strcmp(kind, RETRY_ON_TRANSIENT) == 0) || has_line(failure->kind, kind) ||
		     has_line(failure->kinds, kind);
	}
	return is;
}

/* struct bridge_host: fail */
static int call_fail(struct bridge_context *context, const struct bridge_failure *given)
{
	struct bridge_failure whole = {0};
	struct failure *failure = context->failure;
	uint32_t origin = 0;

	if (context->call == CALL_NONE)
		return BRIDGE_FAILED;
	memcpy(&whole, given, given->size < sizeof(whole) ? given->size : sizeof(whole));
	if (context->call == CALL_PROCESS)
		origin = origin_of(context, whole.record < host_count(context) ? whole.record : 0);
	if (whole.message.size > 0)
		failure_set(failure, origin, "%.*s", (int)(whole.message.size < INT32_MAX ? whole.message.size : 0),
			    (const char *)whole.message.data);
	else
		failure_set(failure, origin, "the step said no more");
	failure_set_kind(failure, (struct view){whole.kind.data, whole.kind.size});
	failure->transient = is_transient(&context->spec->rules, &whole);
	failure->traceback = traceback_keep(context, whole.traceback);
	context->failed = true;
	return BRIDGE_FAILED;
}

/* struct bridge_host: log */
static void call_log(struct bridge_context *context, int level, const char *text)
{
	const char *step = context->spec->name;

	if (level <= BRIDGE_DEBUG)
		log_debug("step \"%s\": %s", step, text);
	else if (level == BRIDGE_INFO)
		log_info("step \"%s\": %s", step, text);
	else if (level == BRIDGE_WARN)
		log_warn("step \"%s\": %s", step, text);
	else
		log_error("step \"%s\": %s", step, text);
}

/* struct bridge_host: now */
static int64_t call_now(struct bridge_context *context, int domain)
{
	return domain == BRIDGE_EVENT_TIME ? context->time.watermark_ms : context->time.processing_ms;
}

/* struct bridge_host: metric */
static struct bridge_metric *call_metric(struct bridge_context *context, const char *name, int kind)
{
	static const enum counter_type types[] = {[BRIDGE_COUNTER] = COUNTER_TYPE_COUNTER,
						  [BRIDGE_GAUGE] = COUNTER_TYPE_GAUGE,
						  [BRIDGE_HISTOGRAM] = COUNTER_TYPE_HISTOGRAM};

	if (kind < BRIDGE_COUNTER || kind > BRIDGE_HISTOGRAM || context->call < CALL_OPEN)
		return NULL;
	return (struct bridge_metric *)metric_get(metrics, context->spec->name, name, types[kind]);
}

/* struct bridge_host: metric_update */
static void call_metric_update(struct bridge_metric *metric, int64_t value)
{
	if (metric != NULL)
		metric_update((struct metric *)metric, value);
}

/* ---- State ------------------------------------------------------------------------------------------------------------------------ */

/* struct bridge_host: state */
static struct bridge_state *call_state(struct bridge_context *context, const char *name)
{
	const struct step *step = context->step;

	for (size_t i = 0; step != NULL && i < step->state_count; i++) {
		struct bridge_state *handle = &context->states[i];
		if (step->states[i] == NULL)
			continue;
		struct state_spec spec;
		if (!step_state(step->segment, step->spec, i, &spec) || strcmp(spec.name, name) != 0)
			continue;
		*handle = (struct bridge_state){.context = context,
						.state = step->states[i],
						.kind = spec.kind,
						.by_key = spec.partition == STATE_BY_KEY};
		return handle;
	}
	return NULL;
}

/* struct bridge_host: use */
static int call_use(struct bridge_context *context, uint32_t index)
{
	uint32_t count = host_count(context), ahead = index + STATE_AHEAD;

	if (context->call != CALL_PROCESS || index >= count)
		return BRIDGE_MISUSE;
	if (!context->segment->keyed)
		return BRIDGE_NO_KEY;
	if (context->in != NULL) {
		step_key(context->step, &context->in->records[index]);
	} else {
		const struct wire_record *record = &context->batch->records[index];
		state_key(context->step->store, record->key, record->key_hash, record->key_group);
	}
	context->has_key = true;
	if (ahead < count && context->ahead != NULL)
		state_ahead(context->ahead,
			    context->in != NULL ? context->in->records[ahead].key : context->batch->records[ahead].key);
	return BRIDGE_OK;
}

/* Whether a state can be asked now, as one of a kind; else what is wrong. */
static int state_check(struct bridge_state *state, enum state_kind kind)
{
	if (state == NULL)
		return BRIDGE_UNKNOWN;
	if (state->kind != kind || state->context->call < CALL_PROCESS)
		return BRIDGE_MISUSE;
	if (state->by_key && !state->context->has_key)
		return BRIDGE_NO_KEY;
	if (!state->by_key)
		state_key(state->context->step->store, view_of(""), 0, 0);
	return BRIDGE_OK;
}

/* What a result of the state module is in the words of the interface. */
static int result_of(struct bridge_state *state, enum state_result result)
{
	static const int results[] = {[STATE_OK] = BRIDGE_OK,
				      [STATE_NONE] = BRIDGE_NONE,
				      [STATE_TROUBLE] = BRIDGE_FULL,
				      [STATE_TOO_LARGE] = BRIDGE_TOO_LARGE};

	return result == STATE_TROUBLE ? no_room(state->context) : results[result];
}

/* Checks, calls, and translates. */
#define STATE_CALL(handle, kind, call)                                                                                 \
	do {                                                                                                           \
		int checked = state_check(handle, kind);                                                               \
		return checked != BRIDGE_OK ? checked : result_of(handle, call);                                       \
	} while (0)

#define VIEW(bytes) ((struct view){(bytes).data, (bytes).size})
#define BYTES(bytes) ((struct view *)(void *)(bytes))

/* struct bridge_host: get, put, remove, edit */
static int call_get(struct bridge_state *state, struct bridge_bytes *value)
{
	STATE_CALL(state, STATE_VALUE, state_get(state->state, BYTES(value)));
}

static int call_put(struct bridge_state *state, struct bridge_bytes value)
{
	STATE_CALL(state, STATE_VALUE, state_put(state->state, VIEW(value)));
}

static int call_remove(struct bridge_state *state)
{
	STATE_CALL(state, STATE_VALUE, state_remove(state->state));
}

static int call_edit(struct bridge_state *state, size_t size, void **bytes, int *is_new)
{
	bool new = false;
	int checked = state_check(state, STATE_VALUE);

	if (checked != BRIDGE_OK)
		return checked;
	checked = result_of(state, state_edit(state->state, size, bytes, &new));
	*is_new = new;
	return checked;
}

/* struct bridge_host: map_... */
static int call_map_get(struct bridge_state *state, struct bridge_bytes key, struct bridge_bytes *value)
{
	STATE_CALL(state, STATE_MAP, state_map_get(state->state, VIEW(key), BYTES(value)));
}

static int call_map_put(struct bridge_state *state, struct bridge_bytes key, struct bridge_bytes value)
{
	STATE_CALL(state, STATE_MAP, state_map_put(state->state, VIEW(key), VIEW(value)));
}

static int call_map_remove(struct bridge_state *state, struct bridge_bytes key)
{
	STATE_CALL(state, STATE_MAP, state_map_remove(state->state, VIEW(key)));
}

static int call_map_next(struct bridge_state *state, struct bridge_iterator *iterator, struct bridge_bytes *key,
			 struct bridge_bytes *value)
{
	struct state_iterator at = {iterator->at, iterator->part};
	int checked = state_check(state, STATE_MAP);

	if (checked != BRIDGE_OK)
		return checked;
	checked = result_of(state, state_map_next(state->state, &at, BYTES(key), BYTES(value)));
	*iterator = (struct bridge_iterator){at.at, at.part};
	return checked;
}

static int call_map_clear(struct bridge_state *state)
{
	STATE_CALL(state, STATE_MAP, state_map_clear(state->state));
}

static uint64_t call_map_count(struct bridge_state *state)
{
	return state_check(state, STATE_MAP) == BRIDGE_OK ? state_map_count(state->state) : 0;
}

/* struct bridge_host: list_... */
static int call_list_append(struct bridge_state *state, struct bridge_bytes value)
{
	STATE_CALL(state, STATE_LIST, state_list_append(state->state, VIEW(value)));
}

static int call_list_next(struct bridge_state *state, struct bridge_iterator *iterator, struct bridge_bytes *value)
{
	struct state_iterator at = {iterator->at, iterator->part};
	int checked = state_check(state, STATE_LIST);

	if (checked != BRIDGE_OK)
		return checked;
	checked = result_of(state, state_list_next(state->state, &at, BYTES(value)));
	*iterator = (struct bridge_iterator){at.at, at.part};
	return checked;
}

static int call_list_clear(struct bridge_state *state)
{
	STATE_CALL(state, STATE_LIST, state_list_clear(state->state));
}

static uint64_t call_list_count(struct bridge_state *state)
{
	return state_check(state, STATE_LIST) == BRIDGE_OK ? state_list_count(state->state) : 0;
}

/* struct bridge_host: timer_... */
static int call_timer_set(struct bridge_state *state, int domain, int64_t time, struct bridge_bytes tag)
{
	if (domain != BRIDGE_EVENT_TIME && domain != BRIDGE_PROCESSING_TIME)
		return BRIDGE_MISUSE;
	if (tag.size > STATE_TAG_MAX)
		return BRIDGE_TOO_LARGE;
	STATE_CALL(state, STATE_TIMERS, state_timer_set(state->state, (enum state_time)domain, time, VIEW(tag)));
}

static int call_timer_delete(struct bridge_state *state, int domain, int64_t time, struct bridge_bytes tag)
{
	if (domain != BRIDGE_EVENT_TIME && domain != BRIDGE_PROCESSING_TIME)
		return BRIDGE_MISUSE;
	if (tag.size > STATE_TAG_MAX)
		return BRIDGE_TOO_LARGE;
	STATE_CALL(state, STATE_TIMERS, state_timer_delete(state->state, (enum state_time)domain, time, VIEW(tag)));
}

_Static_assert((int)BRIDGE_EVENT_TIME == (int)STATE_EVENT_TIME &&
		   (int)BRIDGE_PROCESSING_TIME == (int)STATE_PROCESSING_TIME,
	       "domains are handed through");

/* struct bridge_host: wait */
static int call_wait(struct bridge_context *context, uint64_t *seq, uint32_t *done)
{
	struct step *step = context->step;

	if (context->call != CALL_PROCESS || !step->may_wait)
		return BRIDGE_MISUSE;
	step->waited = context->asked = true;
	context->wakes = wakes_count();
	*seq = step->seq;
	*done = step->done;
	return BRIDGE_OK;
}

const struct bridge_host host_calls = {
    .abi = BRIDGE_STEP_ABI,
    .size = sizeof(struct bridge_host),
    .emit = call_emit,
    .forward = call_forward,
    .memory = call_memory,
    .fail = call_fail,
    .log = call_log,
    .now = call_now,
    .metric = call_metric,
    .metric_update = call_metric_update,
    .state = call_state,
    .use = call_use,
    .get = call_get,
    .put = call_put,
    .remove = call_remove,
    .edit = call_edit,
    .map_get = call_map_get,
    .map_put = call_map_put,
    .map_remove = call_map_remove,
    .map_next = call_map_next,
    .map_clear = call_map_clear,
    .map_count = call_map_count,
    .list_append = call_list_append,
    .list_next = call_list_next,
    .list_clear = call_list_clear,
    .list_count = call_list_count,
    .timer_set = call_timer_set,
    .timer_delete = call_timer_delete,
    .wait = call_wait,
    .wake = wakes_ring,
    .key = call_key,
};
