/*
 * Runs of records, and what a record's payload is at the moment: bytes, a value, or both.
 *
 *             record_need_value                    record_take_value, record_set_value
 *    BYTES ---------------------->  BOTH  ------------------------------------------->  VALUE
 *      ^  <-----------------------                                                        |
 *      |      record_need_bytes (for nothing: the bytes still stand)                      |
 *      +----------------------------------------------------------------------------------+
 *                                  record_need_bytes (printed)
 *
 * A value wanted in another form than it has goes through bytes: what a `text` step sees of a JSON value is its JSON.
 */
#include "worker/run.h"
#include "worker/memory.h"

#include <stdarg.h>
#include <stdlib.h>

#include "worker/base64.h"
#include "worker/failure.h"
#include "worker/json_text.h"

/* ---- Runs ---- */

void run_init(struct run *run, struct scratch *scratch)
{
	*run = (struct run){.scratch = scratch};
}

void run_deinit(struct run *run)
{
	run_clear(run);
	free(run->records);
	run->records = NULL;
	run->capacity = 0;
}

void run_clear(struct run *run)
{
	for (uint32_t i = 0; i < run->count; i++)
		if (run->records[i].state != PAYLOAD_BYTES)
			jv_free(run->records[i].value);
	run->count = 0;
}

/* Makes room for `more` records. */
static bool run_reserve(struct run *run, uint32_t more)
{
	if (more <= run->capacity - run->count)
		return true;
	if (more > RUN_RECORDS_MAX - run->count) {
		scratch_set_out(run->scratch);
		return false;
	}

	uint32_t capacity = run->capacity ? run->capacity * 2 : 64;
	if (capacity < run->count + more)
		capacity = run->count + more;
	if (capacity > RUN_RECORDS_MAX)
		capacity = RUN_RECORDS_MAX;
	struct record *records = realloc(run->records, capacity * sizeof(*records));
	if (!records)
		memory_leave("the records of a unit of work");
	run->records = records;
	run->capacity = capacity;
	return true;
}

struct record *run_push(struct run *run)
{
	if (!run_reserve(run, 1))
		return NULL;
	struct record *record = &run->records[run->count++];
	memset(record, 0, sizeof(*record));
	return record;
}

struct record *run_push_copy(struct run *run, const struct record *record)
{
	if (!run_reserve(run, 1))
		return NULL;
	struct record *copy = &run->records[run->count++];
	*copy = *record;
	if (record->state != PAYLOAD_BYTES)
		copy->value = jv_copy(record->value);
	return copy;
}

bool run_append(struct run *run, struct run *from)
{
	if (!run_reserve(run, from->count))
		return false;
	if (from->count > 0)
		memcpy(run->records + run->count, from->records, from->count * sizeof(*from->records));
	run->count += from->count;
	from->count = 0;
	return true;
}

void run_trade(struct run *a, struct run *b)
{
	struct run was = *a;

	*a = *b;
	*b = was;
	b->scratch = a->scratch;
	a->scratch = was.scratch;
}

void record_of_batch(struct record *record, const struct wire_batch *batch, uint32_t index)
{
	const struct wire_record *from = &batch->records[index];

	record->payload = from->payload;
	record->state = PAYLOAD_BYTES; /* so there is no value */
	record->form = 0;
	record->keyed = from->keyed;
	record->key = from->key;
	record->key_hash = from->key_hash;
	record->key_group = from->key_group;
	record->timestamp = from->timestamp;
	record->route = from->input;
	record->origin = index;
	record->headers = from->headers;
	record->header_count = from->header_count;
}

bool run_take_batch(struct run *run, const struct wire_batch *batch, uint32_t first, uint32_t count)
{
	if (!run_reserve(run, count))
		return false;
	for (uint32_t i = 0; i < count; i++)
		record_of_batch(&run->records[run->count++], batch, first + i);
	return true;
}

/* ---- Payloads ---- */

void record_drop(struct record *record)
{
	if (record->state != PAYLOAD_BYTES)
		jv_free(record->value);
	record->state = PAYLOAD_BYTES;
	record->payload = (struct view){NULL, 0};
}

jv record_take_value(struct record *record)
{
	jv value = record->value;

	record->value = jv_null();
	record->state = PAYLOAD_VALUE;
	return value;
}

void record_set_value(struct record *record, jv value, enum payload_form form)
{
	if (record->state != PAYLOAD_BYTES)
		jv_free(record->value);
	record->value = value;
	record->state = PAYLOAD_VALUE;
	record->form = (uint8_t)form;
}

void record_set_bytes(struct record *record, struct view bytes)
{
	record_drop(record);
	record->payload = bytes;
}

/* Words for *why in scratch memory; returns false. */
__attribute__((format(printf, 3, 4))) static bool say(struct scratch *scratch, const char **why, const char *format,
						      ...)
{
	char *text = scratch_alloc(scratch, sizeof(((struct failure *)0)->message));
	va_list arguments;

	*why = "memory is out";
	if (!text)
		return false;
	va_start(arguments, format);
	vsnprintf(text, sizeof(((struct failure *)0)->message), format, arguments);
	va_end(arguments);
	*why = text;
	return false;
}

/* The value of a JSON text. */
static bool value_from_json(struct view bytes, jv *value, struct scratch *scratch, const char **why)
{
	char text[EXCERPT_SIZE];
	struct json_error error;

	if (json_parse(bytes, scratch, value, &error))
		return true;
	if (bytes.size == 0)
		return say(scratch, why, "the payload is empty, which is not JSON");
	if (error.offset >= bytes.size)
		return say(scratch, why, "the payload is not JSON: %s at its end: %s", error.what,
			   excerpt(bytes, text));
	return say(scratch, why, "the payload is not JSON: %s at byte %zu: %s", error.what, error.offset + 1,
		   excerpt(bytes, text));
}

/* A string of the bytes as they are. */
static bool value_from_text(struct view bytes, jv *value, struct scratch *scratch, const char **why)
{
	char text[EXCERPT_SIZE];

	if (bytes.size > INT32_MAX / 4)
		return say(scratch, why, "the payload is too large for a text: %zu bytes", bytes.size);
	if (!utf8_valid(bytes))
		return say(scratch, why, "the payload is read as text, but is not UTF-8: %s", excerpt(bytes, text));
	*value = jv_string_sized(bytes.size ? (const char *)bytes.data : "", (int)bytes.size);
	return true;
}

/* A string of the bytes in base64. */
static bool value_from_bytes(struct view bytes, jv *value, struct scratch *scratch, const char **why)
{
	if (bytes.size > INT32_MAX / 4)
		return say(scratch, why, "the payload is too large for base64: %zu bytes", bytes.size);
	size_t size = base64_encoded_size(bytes.size);
	char *text = scratch_alloc(scratch, size);
	if (!text)
		return say(scratch, why, "memory is out");
	base64_encode(bytes, text);
	*value = jv_string_sized(text, (int)size);
	return true;
}

/* Whether a record has the value that a step of this form is to see: for text and bytes that is always a string. */
static bool has_value(const struct record *record, enum payload_form form)
{
	if (record->state == PAYLOAD_BYTES || record->form != form)
		return false;
	return form == FORM_JSON || jv_get_kind(record->value) == JV_KIND_STRING;
}

bool record_need_value(struct record *record, enum payload_form form, struct scratch *scratch, const char **why)
{
	jv value = jv_invalid();
	bool done = false;

	if (has_value(record, form))
		return true;
	if (!record_need_bytes(record, scratch, why))
		return false;
	switch (form) {
	case FORM_JSON:
		done = value_from_json(record->payload, &value, scratch, why);
		break;
	case FORM_TEXT:
		done = value_from_text(record->payload, &value, scratch, why);
		break;
	case FORM_BYTES:
		done = value_from_bytes(record->payload, &value, scratch, why);
		break;
	}
	if (!done)
		return false;
	record->value = value;
	record->state = PAYLOAD_BOTH;
	record->form = (uint8_t)form;
	return true;
}

/* The bytes of a string value, copied to scratch memory. */
static bool print_text(jv value, struct scratch *scratch, struct view *bytes)
{
	struct view text = {(const uint8_t *)jv_string_value(value), (size_t)jv_string_length_bytes(jv_copy(value))};

	*bytes = scratch_copy(scratch, text);
	return bytes->data != NULL;
}

/* The bytes that a base64 string stands for. */
static bool print_bytes(jv value, struct scratch *scratch, struct view *bytes, const char **why)
{
	char words[EXCERPT_SIZE];

	if (jv_get_kind(value) != JV_KIND_STRING)
		return say(scratch, why,
			   "a payload written as bytes must be a string of base64, and this is of type %s",
			   jv_kind_name(jv_get_kind(value)));
	struct view text = {(const uint8_t *)jv_string_value(value), (size_t)jv_string_length_bytes(jv_copy(value))};
	uint8_t *out = scratch_alloc(scratch, base64_decoded_size(text.size));
	if (!out)
		return say(scratch, why, "memory is out");
	if (!base64_decode(text, out, &bytes->size))
		return say(scratch, why, "a payload written as bytes must be a string of base64, and this is none: %s",
			   excerpt(text, words));
	bytes->data = out;
	return true;
}

bool record_need_bytes(struct record *record, struct scratch *scratch, const char **why)
{
	struct view bytes = record->payload;

	if (record->state == PAYLOAD_BYTES)
		return true;
	if (record->state == PAYLOAD_VALUE) {
		bool is_text = record->form == FORM_TEXT && jv_get_kind(record->value) == JV_KIND_STRING;
		if (record->form == FORM_BYTES) {
			if (!print_bytes(record->value, scratch, &bytes, why))
				return false;
		} else if (is_text) {
			if (!print_text(record->value, scratch, &bytes))
				return say(scratch, why, "memory is out");
		} else {
			const char *what = json_print(record->value, scratch, &bytes);
			if (what)
				return say(scratch, why, "the payload cannot be written as JSON: %s", what);
		}
	}
	record_set_bytes(record, bytes);
	return true;
}
