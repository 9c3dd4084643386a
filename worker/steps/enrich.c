/*
 * enrich: what travels beside the payload (headers, timestamp, key) goes into its fields, and what is in the payload goes
 * beside it. All programs see the payload as it came in; the fields are set last.
 */
#include <math.h>
#include <stdlib.h>

#include "shared/log.h"
#include "worker/json_text.h"
#include "worker/memory.h"
#include "worker/steps/kinds.h"

enum source_of_field { FROM_HEADER, FROM_TIMESTAMP, FROM_KEY };

struct enriched_field {
	jv name;
	enum source_of_field from;
	struct view header; /* FROM_HEADER: its name, in the descriptor's memory */
};

struct enriched_header {
	struct view name;
	struct jq_program *program;
};

struct enrich_step {
	struct enriched_field *fields;
	size_t field_count;
	struct enriched_header *headers;
	size_t header_count;
	struct jq_program *timestamp; /* or NULL */
};

/* Frees fields and headers. */
static void enrich_close(struct step *step)
{
	struct enrich_step *own = step->own;

	for (size_t i = 0; i < own->field_count; i++)
		jv_free(own->fields[i].name);
	free(own->fields);
	free(own->headers);
	free(own);
}

/* Reads `header.NAME`, `timestamp` or `key`. */
static bool read_source(struct enriched_field *field, const char *text)
{
	static const char header[] = "header.";

	if (strcmp(text, "timestamp") == 0)
		field->from = FROM_TIMESTAMP;
	else if (strcmp(text, "key") == 0)
		field->from = FROM_KEY;
	else if (strncmp(text, header, sizeof(header) - 1) == 0 && text[sizeof(header) - 1])
		field->header = view_of(text + sizeof(header) - 1);
	else
		return false;
	return true;
}

/* Reads where each field comes from. */
static bool open_fields(struct enrich_step *own, const struct option *option, struct failure *failure)
{
	own->fields = memory_make(option->item_count + 1, sizeof(*own->fields), "a step");
	for (size_t i = 0; i < option->item_count; i++) {
		const struct option_item *item = &option->items[i];
		struct enriched_field *field = &own->fields[own->field_count];

		if (!read_source(field, item->value))
			return failure_set(
			    failure, 0,
			    "field `%s` in option `%s` must come from `header.NAME`, `timestamp` or `key`, "
			    "and not from `%s`",
			    item->name, option->name, item->value);
		field->name = jv_string(item->name);
		own->field_count++;
	}
	return true;
}

/* Compiles the program of each header. */
static bool open_headers(struct enrich_step *own, const struct option *option, struct failure *failure)
{
	own->headers = memory_make(option->item_count + 1, sizeof(*own->headers), "a step");
	for (size_t i = 0; i < option->item_count; i++) {
		const struct option_item *item = &option->items[i];
		struct enriched_header *header = &own->headers[own->header_count++];

		header->name = view_of(item->name);
		header->program = step_program(option, item->name, item->value, failure);
		if (!header->program)
			return false;
	}
	return true;
}

/* Reads all three options. */
static bool enrich_open(struct step *step, struct failure *failure)
{
	const struct option *timestamp = step_option(step->spec, "timestamp");
	struct enrich_step *own = memory_make(1, sizeof(*own), "a step");

	step->own = own;
	bool opened = open_fields(own, step_option(step->spec, "fields"), failure) &&
		      open_headers(own, step_option(step->spec, "headers"), failure);
	if (opened && timestamp->given) {
		own->timestamp = step_program(timestamp, NULL, timestamp->text, failure);
		opened = own->timestamp != NULL;
	}
	if (!opened)
		enrich_close(step);
	return opened;
}

/* ---- Beside the payload ---- */

/* The text of a header's value: a string's own, any other value's JSON; takes over `value`. */
static bool header_text(struct record *record, jv value, struct run *run, struct view *text, struct failure *failure)
{
	const char *why = NULL;

	if (jv_get_kind(value) == JV_KIND_STRING) {
		*text = scratch_copy(run->scratch, (struct view){(const uint8_t *)jv_string_value(value),
								 (size_t)jv_string_length_bytes(jv_copy(value))});
		if (!text->data)
			why = "memory is out";
	} else {
		why = json_print(value, run->scratch, text);
	}
	jv_free(value);
	return !why || failure_set(failure, record->origin, "%s", why);
}

/* Removes a header from an array; the new count. */
static uint32_t header_remove(struct wire_header *headers, uint32_t count, struct view name)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++)
		if (!view_equal(headers[i].key, name))
			headers[kept++] = headers[i];
	return kept;
}

/* Gives a record a headers array of its own, with what the programs yield; null removes a header. */
static bool set_headers(const struct enrich_step *own, struct record *record, struct run *run, struct failure *failure)
{
	size_t room = record->header_count + own->header_count;
	struct wire_header *headers = scratch_alloc(run->scratch, room * sizeof(*headers));
	uint32_t count = record->header_count;

	if (!headers)
		return step_no_room(record, failure);
	if (count > 0)
		memcpy(headers, record->headers, count * sizeof(*headers));
	for (size_t i = 0; i < own->header_count; i++) {
		const struct enriched_header *header = &own->headers[i];
		struct view text;
		jv value;

		if (!jq_program_one(header->program, jv_copy(record->value), &value))
			return step_program_failed(header->program, record, failure);
		count = header_remove(headers, count, header->name);
		if (jv_get_kind(value) == JV_KIND_NULL) {
			jv_free(value);
			continue;
		}
		if (!header_text(record, value, run, &text, failure))
			return false;
		headers[count++] = (struct wire_header){header->name, text};
	}
	record->headers = headers;
	record->header_count = count;
	return true;
}

/* The event time that the program yields. */
static bool read_timestamp(const struct enrich_step *own, struct record *record, int64_t *timestamp,
			   struct failure *failure)
{
	char text[EXCERPT_SIZE];
	jv value;

	if (!jq_program_one(own->timestamp, jv_copy(record->value), &value))
		return step_program_failed(own->timestamp, record, failure);
	bool is_number = jv_get_kind(value) == JV_KIND_NUMBER;
	double ms = is_number ? jv_number_value(value) : 0;
	const char *kind = jv_kind_name(jv_get_kind(value));
	jv_free(value);
	if (!is_number)
		return failure_set(failure, record->origin,
				   "the timestamp must be a number of milliseconds, and is of type %s; payload: %s",
				   kind, excerpt(record->payload, text));
	if (ms != floor(ms) || ms < -9223372036854775808.0 || ms >= 9223372036854775808.0)
		return failure_set(failure, record->origin,
				   "the timestamp must be a whole number of milliseconds within 64 bits, and is %.17g; "
				   "payload: %s",
				   ms, excerpt(record->payload, text));
	*timestamp = (int64_t)ms;
	return true;
}

/* ---- Into the payload ---- */

/* A text from beside the payload as a value; false when it is not UTF-8. */
static bool text_value(struct view text, jv *value)
{
	if (!utf8_valid(text))
		return false;
	*value = jv_string_sized(text.size ? (const char *)text.data : "", (int)text.size);
	return true;
}

/* The value of a field: null when the record has no such header, key or timestamp. */
static bool field_value(const struct enriched_field *field, const struct record *record, jv *value,
			struct failure *failure)
{
	char text[EXCERPT_SIZE];

	*value = jv_null();
	switch (field->from) {
	case FROM_TIMESTAMP:
		if (record->timestamp != WIRE_NO_TIMESTAMP)
			*value = jv_number((double)record->timestamp);
		return true;
	case FROM_KEY:
		if (!record->keyed || text_value(record->key, value))
			return true;
		return failure_set(failure, record->origin, "the key is not UTF-8 and cannot be a field: %s",
				   excerpt(record->key, text));
	case FROM_HEADER:
		for (uint32_t i = 0; i < record->header_count; i++)
			if (view_equal(record->headers[i].key, field->header) &&
			    !text_value(record->headers[i].value, value))
				return failure_set(failure, record->origin, "the header's value is not UTF-8: %s",
						   excerpt(record->headers[i].value, text));
		return true;
	}
	return true;
}

/* Sets the fields, from what the record was before. */
static bool set_fields(const struct enrich_step *own, struct record *record, const struct record *before,
		       struct run *run, struct failure *failure)
{
	if (!step_need_object(record, run, failure))
		return false;
	jv object = record_take_value(record);
	for (size_t i = 0; i < own->field_count; i++) {
		jv value;
		if (!field_value(&own->fields[i], before, &value, failure)) {
			jv_free(object);
			return false;
		}
		object = jv_object_set(object, jv_copy(own->fields[i].name), value);
	}
	record_set_value(record, object, FORM_JSON);
	return true;
}

/* Timestamp, then headers, then fields of each record. */
static bool enrich_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	const struct enrich_step *own = step->own;
	bool programs = own->header_count > 0 || own->timestamp;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		struct record before = *record;

		if (programs && !step_need_value(record, FORM_JSON, run, failure))
			return false;
		if (own->timestamp && !read_timestamp(own, record, &record->timestamp, failure))
			return false;
		if (own->header_count > 0 && !set_headers(own, record, run, failure))
			return false;
		if (own->field_count > 0 && !set_fields(own, record, &before, run, failure))
			return false;
	}
	return true;
}

const struct step_kind_ops enrich_ops = {.open = enrich_open, .close = enrich_close, .process = enrich_process};
