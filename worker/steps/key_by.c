/*
 * key_by: gives each record its key. The payload stays as it came.
 *
 * A missing key fails the record: null would send every record that lacks the field to one subtask, which is an accident far
 * more often than a wish. (`.user // "nobody"` is how to wish it.)
 */
#include "shared/keygroup.h"
#include "worker/steps/kinds.h"

/* Compiles the program; it is all that the step owns. */
static bool key_by_open(struct step *step, struct failure *failure)
{
	const struct option *key = step_option(step->spec, "key");

	step->own = step_program(key, NULL, key->text, failure);
	return step->own != NULL;
}

/* Sets key and hash of each record. */
static bool key_by_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct jq_program *program = step->own;
	jv value;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];

		if (!step_need_value(record, FORM_JSON, run, failure))
			return false;
		if (!jq_program_one(program, jv_copy(record->value), &value))
			return step_program_failed(program, record, failure);
		if (!step_key_bytes(record, value, "key", run, &record->key, failure))
			return false;
		record->keyed = true;
		record->key_hash = key_hash_of(record->key);
		record->key_group = 0;
	}
	return true;
}

const struct step_kind_ops key_by_ops = {.open = key_by_open, .process = key_by_process};
