/*
 * aggregate: totals for each key.
 *
 * The totals of a key are one value in the state, edited in place: a head, and one or two parts for each field.
 *
 *      layout | due | timestamp | id, count or value | id, count or value | ...
 *
 * A part is known by its id, a hash of the field's name, its function, and what the part is of it. Where the fields of the step are
 * no longer those that the totals were made by (the layout is their hash), the totals are made anew at their first use: parts that are
 * still wanted are taken over, others begin. So fields may come, go and change places under a running job.
 *
 * With a timer, a key that has none gets one with its next record: at the first multiple of `every` behind now, or, by event time,
 * behind the record and the watermark, whichever is later. The totals say when they are due; a timer that says something else is an
 * old one.
 *
 * Not here: windows. Totals by event time are what has come in when the watermark passes, wherever in time it belongs.
 */
#include <math.h>
#include <stdlib.h>
#include <xxhash.h>

#include "descriptor/aggregate.h"
#include "shared/log.h"
#include "shared/wire.h"
#include "worker/memory.h"
#include "worker/steps/kinds.h"

/* The states, as steps.def has them. */
enum { TOTALS, DUE };

/* A count, or what a function over a program has come to; NaN: nothing yet. */
struct part {
	uint64_t id;
	union {
		int64_t count;
		double value;
	};
};

struct totals {
	uint64_t layout;
	int64_t due;       /* INT64_MAX: no timer is set */
	int64_t timestamp; /* of the youngest record in them */
	struct part parts[];
};

struct field {
	jv name;
	enum aggregate_function function;
	struct jq_program *program; /* NULL: count */
	uint32_t part;              /* the first of its parts; avg has two, sum and count */
	double value;               /* between running the programs and adding up; NaN: this record has none */
};

enum emit { EMIT_UPDATE, EMIT_EVENT_TIME, EMIT_PROCESSING_TIME };

struct aggregate_step {
	struct field *fields;
	size_t field_count;
	struct part *parts; /* as they are at the start */
	uint32_t part_count;
	struct totals *made; /* room for totals of the layout */
	uint64_t layout;
	enum emit emit;
	int64_t every;
	bool reset;
};

/* ---- Opening ---- */

/* The bytes of the step's totals. */
static size_t totals_size(const struct aggregate_step *own)
{
	return sizeof(struct totals) + own->part_count * sizeof(struct part);
}

/* Frees the fields; their programs belong to the process. */
static void aggregate_close(struct step *step)
{
	struct aggregate_step *own = step->own;

	for (size_t i = 0; i < own->field_count; i++)
		jv_free(own->fields[i].name);
	free(own->fields);
	free(own->parts);
	free(own->made);
	free(own);
}

/* Adds a part of a field, at its start. */
static void part_add(struct aggregate_step *own, const char *name, const char *what, bool is_value, double start)
{
	struct part *part = &own->parts[own->part_count++];
	XXH3_state_t *state = XXH3_createState();

	if (!state)
		memory_leave("a step");
	XXH3_64bits_reset(state);
	XXH3_64bits_update(state, name, strlen(name) + 1);
	XXH3_64bits_update(state, what, strlen(what) + 1);
	part->id = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	if (is_value)
		part->value = start;
	else
		part->count = 0;
}

/* Compiles the program of a field that has one. */
static bool field_compile(struct field *field, const struct option *option, const char *name, struct view text,
			  struct failure *failure)
{
	char *program = strndup((const char *)text.data, text.size);

	CHECK(program);
	field->program = step_program(option, name, program, failure);
	free(program);
	return field->program != NULL;
}

/* Reads one field. */
static bool field_open(struct aggregate_step *own, const struct option *option, const struct option_item *item,
		       struct failure *failure)
{
	struct field *field = &own->fields[own->field_count];
	struct view program;

	if (!aggregate_parse(item->value, &field->function, &program))
		return failure_set(
		    failure, 0,
		    "field `%s` in option `%s` must be count, sum(...), min(...), max(...) or avg(...), and not "
		    "`%s`",
		    item->name, option->name, item->value);
	if (field->function != AGGREGATE_COUNT && !field_compile(field, option, item->name, program, failure))
		return false;
	field->name = jv_string(item->name);
	field->part = own->part_count;
	own->field_count++;
	const char *function = aggregate_function_names[field->function];
	bool starts_at_zero = field->function == AGGREGATE_SUM || field->function == AGGREGATE_AVG;
	part_add(own, item->name, function, field->function != AGGREGATE_COUNT, starts_at_zero ? 0 : NAN);
	if (field->function == AGGREGATE_AVG)
		part_add(own, item->name, "avg count", false, 0);
	return true;
}

/* Reads the fields, and makes their layout. */
static bool fields_open(struct aggregate_step *own, const struct option *option, struct failure *failure)
{
	XXH3_state_t *state;

	own->fields = memory_make(option->item_count + 1, sizeof(*own->fields), "a step");
	own->parts = memory_make(2 * option->item_count + 1, sizeof(*own->parts), "a step");
	for (size_t i = 0; i < option->item_count; i++)
		if (!field_open(own, option, &option->items[i], failure))
			return false;
	state = XXH3_createState();
	if (!state)
		memory_leave("a step");
	XXH3_64bits_reset(state);
	for (uint32_t i = 0; i < own->part_count; i++)
		XXH3_64bits_update(state, &own->parts[i].id, sizeof(own->parts[i].id));
	own->layout = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	own->made = memory_make(1, totals_size(own), "a step");
	return true;
}

/* Reads when totals are emitted. */
static bool emit_open(struct step *step, struct aggregate_step *own, struct failure *failure)
{
	static const char *const words[] = {"update", "event_time", "processing_time"};
	const char *emit = step_option(step->spec, "emit")->text;
	const struct option *every = step_option(step->spec, "every");

	while (strcmp(words[own->emit], emit) != 0)
		if (++own->emit > EMIT_PROCESSING_TIME)
			return failure_set(failure, 0, "option `emit` cannot be `%s`", emit);
	if (own->emit != EMIT_UPDATE && (!every->given || every->number < 1))
		return failure_set(failure, 0, "option `every` must be at least 1ms with `emit: %s`", emit);
	own->every = every->number;
	own->reset = step_option(step->spec, "reset")->number != 0;
	step->flushes = own->emit == EMIT_PROCESSING_TIME && step_option(step->spec, "fire_at_end")->number != 0;
	return true;
}

/* Reads all options. */
static bool aggregate_open(struct step *step, struct failure *failure)
{
	struct aggregate_step *own;

	if (!step->segment->keyed)
		return failure_set(failure, 0, "the records are not partitioned by key: add a key_by before it");
	own = memory_make(1, sizeof(*own), "a step");
	step->own = own;
	if (emit_open(step, own, failure) && fields_open(own, step_option(step->spec, "fields"), failure))
		return true;
	aggregate_close(step);
	return false;
}

/* ---- Totals ---- */

/* The part of an id among some, or NULL. */
static const struct part *part_find(const struct part *parts, size_t count, uint64_t id)
{
	for (size_t i = 0; i < count; i++)
		if (parts[i].id == id)
			return &parts[i];
	return NULL;
}

/* Makes totals of the step's layout out of those that were made by other fields, or out of none (size 0). */
static struct totals *totals_make(const struct aggregate_step *own, const struct totals *old, size_t size)
{
	struct totals *totals = own->made;
	bool fits = size >= sizeof(*old);
	size_t count = fits ? (size - sizeof(*old)) / sizeof(*old->parts) : 0;

	totals->layout = own->layout;
	totals->due = fits ? old->due : INT64_MAX;
	totals->timestamp = fits ? old->timestamp : INT64_MIN;
	for (uint32_t i = 0; i < own->part_count; i++) {
		const struct part *kept = fits ? part_find(old->parts, count, own->parts[i].id) : NULL;
		totals->parts[i] = kept ? *kept : own->parts[i];
	}
	return totals;
}

/* The current key's totals, to be changed in place until the next call that changes state. `make`: also when there are none yet;
 * else STATE_NONE. */
static enum state_result totals_edit(struct step *step, bool make, struct totals **totals)
{
	const struct aggregate_step *own = step->own;
	struct view old = {NULL, 0};
	struct totals *made = NULL;
	size_t size = totals_size(own);
	enum state_result result = state_get(step->states[TOTALS], &old);
	void *bytes;
	bool is_new;

	if (result == STATE_NONE && make)
		old.size = 0;
	else if (result != STATE_OK)
		return result;
	if (old.size != size || ((const struct totals *)old.data)->layout != own->layout)
		made = totals_make(own, (const struct totals *)old.data, old.size);
	result = state_edit(step->states[TOTALS], size, &bytes, &is_new);
	if (result == STATE_OK && made)
		memcpy(bytes, made, size);
	*totals = bytes;
	return result;
}

/* Runs the programs of all fields on a record, before anything is added up: a record that fails leaves nothing behind. */
static bool fields_run(struct aggregate_step *own, struct record *record, struct run *run, struct failure *failure)
{
	char text[EXCERPT_SIZE];

	for (size_t i = 0; i < own->field_count; i++) {
		struct field *field = &own->fields[i];
		jv value;

		if (!field->program)
			continue;
		if (!step_need_value(record, FORM_JSON, run, failure))
			return false;
		if (!jq_program_one(field->program, jv_copy(record->value), &value))
			return step_program_failed(field->program, record, failure);
		jv_kind kind = jv_get_kind(value);
		field->value = kind == JV_KIND_NUMBER ? jv_number_value(value) : NAN;
		jv_free(value);
		if (kind != JV_KIND_NULL && isnan(field->value))
			return failure_set(
			    failure, record->origin,
			    "field `%s` needs a number, or null for none, and its program yields a value of "
			    "type %s; payload: %s",
			    jv_string_value(field->name), jv_kind_name(kind), excerpt(record->payload, text));
	}
	return true;
}

/* Adds what a record has to a field's parts. */
static void field_add(const struct field *field, struct part *parts)
{
	struct part *part = &parts[field->part];

	if (field->function != AGGREGATE_COUNT && isnan(field->value))
		return;
	switch (field->function) {
	case AGGREGATE_COUNT:
		part->count++;
		break;
	case AGGREGATE_AVG:
		part[1].count++;
		part->value += field->value;
		break;
	case AGGREGATE_SUM:
		part->value += field->value;
		break;
	case AGGREGATE_MIN:
		part->value = fmin(part->value, field->value);
		break;
	case AGGREGATE_MAX:
		part->value = fmax(part->value, field->value);
		break;
	case AGGREGATE_FUNCTION_COUNT:
		break;
	}
}

/* What a field has come to; null: nothing. */
static jv field_result(const struct field *field, const struct part *parts)
{
	const struct part *part = &parts[field->part];

	if (field->function == AGGREGATE_COUNT)
		return jv_number((double)part->count);
	if (field->function == AGGREGATE_AVG)
		return part[1].count > 0 ? jv_number(part->value / (double)part[1].count) : jv_null();
	return isnan(part->value) ? jv_null() : jv_number(part->value);
}

/* The payload that totals are emitted as: the key, and the fields in their order. */
static jv totals_object(const struct aggregate_step *own, struct view key, const struct totals *totals)
{
	jv object =
	    jv_object_set(jv_object(), jv_string("key"), jv_string_sized((const char *)key.data, (int)key.size));

	for (size_t i = 0; i < own->field_count; i++)
		object =
		    jv_object_set(object, jv_copy(own->fields[i].name), field_result(&own->fields[i], totals->parts));
	return object;
}

/* ---- The step ---- */

/* The first multiple of `every` behind a time. */
static int64_t next_multiple(int64_t time, int64_t every)
{
	int64_t into = time % every;

	if (into < 0)
		into += every;
	if (time > INT64_MAX - every)
		return INT64_MAX;
	return time < INT64_MIN + every ? time : time - into + every;
}

/* Gives the current key a timer if its totals have none. */
static enum state_result totals_schedule(struct step *step, struct totals *totals, const struct record *record,
					 struct step_time time)
{
	const struct aggregate_step *own = step->own;
	bool by_event = own->emit == EMIT_EVENT_TIME;
	int64_t now = time.processing_ms;

	if (totals->due != INT64_MAX)
		return STATE_OK;
	if (by_event)
		now = record->timestamp > time.watermark_ms ? record->timestamp : time.watermark_ms;
	int64_t due = next_multiple(now, own->every);
	totals->due = due;
	return state_timer_set(step->states[DUE], by_event ? STATE_EVENT_TIME : STATE_PROCESSING_TIME, due,
			       view_of(""));
}

/* Adds one record up. */
static bool aggregate_record(struct step *step, struct record *record, struct run *run, struct step_time time,
			     struct failure *failure)
{
	struct aggregate_step *own = step->own;
	struct totals *totals;
	char text[EXCERPT_SIZE];

	if (!utf8_valid(record->key))
		return failure_set(failure, record->origin, "the key is not UTF-8 and cannot be a field: %s",
				   excerpt(record->key, text));
	if (!fields_run(own, record, run, failure))
		return false;
	step_key(step, record);
	enum state_result result = totals_edit(step, true, &totals);
	if (result != STATE_OK)
		return step_state_failed(result, record->origin, "keep the totals of a key", failure);
	for (size_t i = 0; i < own->field_count; i++)
		field_add(&own->fields[i], totals->parts);
	if (record->timestamp > totals->timestamp)
		totals->timestamp = record->timestamp;
	if (own->emit == EMIT_UPDATE) {
		record_set_value(record, totals_object(own, record->key, totals), FORM_JSON);
		record->headers = NULL;
		record->header_count = 0;
		record->route = 0;
		return true;
	}
	result = totals_schedule(step, totals, record, time);
	return result == STATE_OK || step_state_failed(result, record->origin, "set a timer", failure);
}

/* Adds records up; they go on as totals, or not at all where a timer emits those. */
static bool aggregate_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	const struct aggregate_step *own = step->own;

	for (uint32_t i = 0; i < run->count; i++)
		if (!aggregate_record(step, &run->records[i], run, time, failure))
			return false;
	if (own->emit != EMIT_UPDATE)
		run_clear(run);
	return true;
}

/* Makes the record of totals that are due. */
static bool totals_emit(struct step *step, const struct totals *totals, const struct state_timer *timer,
			enum state_time domain, struct step_time time, struct run *out, struct failure *failure)
{
	struct record *record = run_push(out);
	struct view key = scratch_copy(out->scratch, timer->key);

	if (!record || !key.data)
		return failure_set(failure, 0, "no memory to hand the totals of a key on");
	record->keyed = true;
	record->key = key;
	record->key_hash = timer->key_hash;
	record->key_group = timer->key_group;
	record->timestamp = domain == STATE_EVENT_TIME              ? timer->time_ms
			    : totals->timestamp > time.watermark_ms ? totals->timestamp
								    : time.watermark_ms;
	record_set_value(record, totals_object(step->own, key, totals), FORM_JSON);
	return true;
}

/* A key's timer: emits its totals, which start over or stay. */
static bool aggregate_fire(struct step *step, enum state_time domain, const struct state_timer *timer,
			   struct step_time time, struct run *out, struct failure *failure)
{
	const struct aggregate_step *own = step->own;
	struct totals *totals;
	enum state_result result = totals_edit(step, false, &totals);

	if (result == STATE_NONE)
		return true;
	if (result != STATE_OK)
		return step_state_failed(result, 0, "read the totals of a key", failure);
	if (totals->due != timer->time_ms)
		return true;
	if (!totals_emit(step, totals, timer, domain, time, out, failure))
		return false;
	totals->due = INT64_MAX;
	if (own->reset)
		result = state_remove(step->states[TOTALS]);
	return result == STATE_OK || step_state_failed(result, 0, "forget the totals of a key", failure);
}

const struct step_kind_ops aggregate_ops = {
    .open = aggregate_open, .close = aggregate_close, .process = aggregate_process, .fire = aggregate_fire};
