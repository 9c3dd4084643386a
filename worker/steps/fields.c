/*
 * select, rename, set: fields of a JSON object.
 *
 * Names are made into libjq strings once, at open; libjq keeps a string's hash in it.
 */
#include <stdlib.h>

#include "shared/log.h"
#include "worker/memory.h"
#include "worker/steps/kinds.h"

struct field {
	jv name;
	jv new_name;                /* rename */
	struct jq_program *program; /* set */
	jv result;                  /* set: between running the programs and setting the fields */
};

struct fields_step {
	struct field *fields;
	size_t count;
};

/* Frees the names. */
static void fields_close(struct step *step)
{
	struct fields_step *own = step->own;

	for (size_t i = 0; i < own->count; i++) {
		jv_free(own->fields[i].name);
		jv_free(own->fields[i].new_name);
	}
	free(own->fields);
	free(own);
}

/* Makes names into strings, and compiles what `set` runs. */
static bool fields_open(struct step *step, struct failure *failure)
{
	const struct option *option = step_option(step->spec, "fields");
	struct fields_step *own = memory_make(1, sizeof(*own), "a step");

	own->fields = memory_make(option->item_count + 1, sizeof(*own->fields), "a step");
	step->own = own;
	for (size_t i = 0; i < option->item_count; i++) {
		const struct option_item *item = &option->items[i];
		struct field *field = &own->fields[own->count++];

		field->name = jv_string(item->name);
		field->new_name = step->spec->kind == STEP_rename ? jv_string(item->value) : jv_null();
		if (step->spec->kind != STEP_set)
			continue;
		field->program = step_program(option, item->name, item->value, failure);
		if (!field->program) {
			fields_close(step);
			return false;
		}
	}
	return true;
}

/* Makes a new object of the fields wanted. */
static bool select_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	const struct fields_step *own = step->own;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		jv kept = jv_object();

		if (!step_need_object(record, run, failure)) {
			jv_free(kept);
			return false;
		}
		for (size_t k = 0; k < own->count; k++) {
			jv value = jv_object_get(jv_copy(record->value), jv_copy(own->fields[k].name));
			if (jv_is_valid(value))
				kept = jv_object_set(kept, jv_copy(own->fields[k].name), value);
			else
				jv_free(value);
		}
		record_set_value(record, kept, FORM_JSON);
	}
	return true;
}

/* The rename of a field, or NULL. */
static const struct field *rename_of(const struct fields_step *own, jv name)
{
	for (size_t k = 0; k < own->count; k++)
		if (jv_equal(jv_copy(own->fields[k].name), jv_copy(name)))
			return &own->fields[k];
	return NULL;
}

/* Whether a field that keeps its name has to make way for a renamed one. */
static bool is_replaced(const struct fields_step *own, jv object, jv name)
{
	for (size_t k = 0; k < own->count; k++)
		if (jv_equal(jv_copy(own->fields[k].new_name), jv_copy(name)) &&
		    jv_object_has(jv_copy(object), jv_copy(own->fields[k].name)))
			return true;
	return false;
}

/* Makes a new object, field by field. */
static bool rename_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	const struct fields_step *own = step->own;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];

		if (!step_need_object(record, run, failure))
			return false;
		jv from = record->value, to = jv_object();
		jv_object_foreach(from, name, value)
		{
			const struct field *field = rename_of(own, name);
			if (field) {
				to = jv_object_set(to, jv_copy(field->new_name), value);
				jv_free(name);
			} else if (is_replaced(own, from, name)) {
				jv_free(name);
				jv_free(value);
			} else {
				to = jv_object_set(to, name, value);
			}
		}
		record_set_value(record, to, FORM_JSON);
	}
	return true;
}

/* Runs all programs on a record before anything is set: so they see it as it came in, and libjq can then set fields in place. */
static bool set_results(struct fields_step *own, const struct record *record, struct failure *failure)
{
	for (size_t k = 0; k < own->count; k++) {
		struct jq_program *program = own->fields[k].program;

		if (jq_program_one(program, jv_copy(record->value), &own->fields[k].result))
			continue;
		while (k-- > 0)
			jv_free(own->fields[k].result);
		return step_program_failed(program, record, failure);
	}
	return true;
}

/* Sets fields in place. */
static bool set_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct fields_step *own = step->own;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];

		if (!step_need_object(record, run, failure) || !set_results(own, record, failure))
			return false;
		jv object = record_take_value(record);
		for (size_t k = 0; k < own->count; k++)
			object = jv_object_set(object, jv_copy(own->fields[k].name), own->fields[k].result);
		record_set_value(record, object, FORM_JSON);
	}
	return true;
}

const struct step_kind_ops select_ops = {.open = fields_open, .close = fields_close, .process = select_process};
const struct step_kind_ops rename_ops = {.open = fields_open, .close = fields_close, .process = rename_process};
const struct step_kind_ops set_ops = {.open = fields_open, .close = fields_close, .process = set_process};
