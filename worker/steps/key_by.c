/*
 * key_by: gives each record its key. The payload stays as it came. A function of a Python module that makes the keys is the host's
 * (worker/hosts), all else is here.
 *
 * A missing key fails the record: null would send every record that lacks the field to one subtask, which is an accident far
 * more often than a wish. (`.user // "nobody"` is how to wish it.)
 *
 * Nothing follows it in its segment, so where the program is the name of a field and the payload was not parsed before, the key is looked up
 * in the text, at a fifth of what parsing costs. What that does not find is done the long way.
 */
#include "shared/keygroup.h"
#include "worker/hosts/host.h"
#include "worker/json_text.h"
#include "worker/steps/kinds.h"

/* Compiles the program; it is all that the step owns. */
static bool key_by_open(struct step *step, struct failure *failure)
{
	const struct option *key = step_option(step->spec, "key");

	if (!key->given) {
		step->ops = &python_ops;
		return step->ops->open(step, failure);
	}
	step->own = step_program(key, NULL, key->text, failure);
	return step->own != NULL;
}

/* The key, from the payload's value. */
static bool make_key(struct jq_program *program, struct record *record, struct run *run, struct failure *failure)
{
	jv value;

	if (!step_need_value(record, FORM_JSON, run, failure))
		return false;
	if (!jq_program_one(program, jv_copy(record->value), &value))
		return step_program_failed(program, record, failure);
	return step_key_bytes(record, value, "key", run, &record->key, failure);
}

/* Sets key and hash of each record. */
static bool key_by_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct view name;
	bool is_field = jq_program_is_field(step->own, &name);

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];

		bool found =
		    is_field && record->state == PAYLOAD_BYTES && json_find_string(record->payload, name, &record->key);
		if (!found && !make_key(step->own, record, run, failure))
			return false;
		record->keyed = true;
		record->key_hash = key_hash_of(record->key);
		record->key_group = 0;
	}
	return true;
}

const struct step_kind_ops key_by_ops = {.open = key_by_open, .process = key_by_process};
