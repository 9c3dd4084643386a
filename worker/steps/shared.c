/* What several kinds need. */
#include "worker/json_text.h"
#include "worker/steps/kinds.h"

struct jq_program *step_program(const struct option *option, const char *field, const char *text,
				struct failure *failure)
{
	char why[sizeof(failure->message)];
	struct jq_program *program = jq_program_get(text, why, sizeof(why));

	if (!program && field)
		failure_set(failure, 0, "the program of `%s` in option `%s` does not compile: %s", field, option->name,
			    why);
	else if (!program)
		failure_set(failure, 0, "the program in option `%s` does not compile: %s", option->name, why);
	return program;
}

bool step_need_value(struct record *record, enum payload_form form, struct run *run, struct failure *failure)
{
	const char *why;

	if (record_need_value(record, form, run->scratch, &why))
		return true;
	return failure_set(failure, record->origin, "%s", why);
}

bool step_need_object(struct record *record, struct run *run, struct failure *failure)
{
	char text[EXCERPT_SIZE];

	if (!step_need_value(record, FORM_JSON, run, failure))
		return false;
	if (jv_get_kind(record->value) == JV_KIND_OBJECT)
		return true;
	return failure_set(failure, record->origin, "the payload must be a JSON object, and this is of type %s: %s",
			   jv_kind_name(jv_get_kind(record->value)), excerpt(record->payload, text));
}

bool step_program_failed(const struct jq_program *program, const struct record *record, struct failure *failure)
{
	char text[EXCERPT_SIZE];

	return failure_set(failure, record->origin, "%s; payload: %s", jq_program_error(program),
			   excerpt(record->payload, text));
}

bool step_key_bytes(const struct record *record, jv value, const char *what, struct run *run, struct view *bytes,
		    struct failure *failure)
{
	char text[EXCERPT_SIZE];
	const char *why = NULL;
	bool null = jv_get_kind(value) == JV_KIND_NULL;

	if (jv_get_kind(value) == JV_KIND_STRING) {
		*bytes = scratch_copy(run->scratch, (struct view){(const uint8_t *)jv_string_value(value),
								  (size_t)jv_string_length_bytes(jv_copy(value))});
		why = bytes->data ? NULL : "memory is out";
	} else if (!null) {
		why = json_print(value, run->scratch, bytes);
	}
	jv_free(value);
	if (null)
		return failure_set(failure, record->origin,
				   "the %s is null: the program must yield one for every record; payload: %s", what,
				   excerpt(record->payload, text));
	return !why || failure_set(failure, record->origin, "%s; payload: %s", why, excerpt(record->payload, text));
}

bool step_state_failed(enum state_result result, uint32_t origin, const char *what, struct failure *failure)
{
	if (result == STATE_TOO_LARGE)
		return failure_set(
		    failure, origin,
		    "too large to %s: a key has at most %d bytes, an identity within a key %d, and what is kept %d",
		    what, STATE_KEY_MAX, STATE_SUBKEY_MAX, STATE_VALUE_MAX);
	return failure_set(failure, origin, "no room in the state memory of the slot to %s: raise --state-memory",
			   what);
}

bool step_no_room(const struct record *record, struct failure *failure)
{
	return failure_set(failure, record->origin,
			   "no memory for what became of this message: more than %d records, or too large ones",
			   RUN_RECORDS_MAX);
}
