/*
 * dedup: lets the first record of each pass. The payload stays as it came.
 *
 * What has been there is in the state: a value per key, or with a program an entry per identity in the key's map. How long it is
 * remembered is the state's business (TTL): a repetition does not write, so it does not prolong anything.
 */
#include <stdlib.h>

#include "shared/log.h"
#include "worker/steps/kinds.h"

/* The states, as steps.def has them. */
enum { KEYS, IDENTITIES };

/* Compiles the program, if there is one; it is all that the step owns. */
static bool dedup_open(struct step *step, struct failure *failure)
{
	const struct option *key = step_option(step->spec, "key");

	if (!step->segment->keyed)
		return failure_set(failure, 0, "the records are not partitioned by key: add a key_by before it");
	if (key->given)
		step->own = step_program(key, NULL, key->text, failure);
	return !key->given || step->own;
}

/* Whether a record's key is new; from now on it is not. */
static bool key_is_new(struct step *step, const struct record *record, bool *is_new, struct failure *failure)
{
	struct view value;
	enum state_result result = state_get(step->states[KEYS], &value);

	*is_new = result == STATE_NONE;
	if (*is_new)
		result = state_put(step->states[KEYS], view_of("1"));
	return result == STATE_OK || step_state_failed(result, record->origin, "remember the key", failure);
}

/* Whether a record's identity is new in its key; from now on it is not. */
static bool identity_is_new(struct step *step, struct record *record, struct run *run, bool *is_new,
			    struct failure *failure)
{
	struct jq_program *program = step->own;
	struct view identity, value;
	jv yielded;

	if (!step_need_value(record, FORM_JSON, run, failure))
		return false;
	if (!jq_program_one(program, jv_copy(record->value), &yielded))
		return step_program_failed(program, record, failure);
	if (!step_key_bytes(record, yielded, "identity", run, &identity, failure))
		return false;
	enum state_result result = state_map_get(step->states[IDENTITIES], identity, &value);
	*is_new = result == STATE_NONE;
	if (*is_new)
		result = state_map_put(step->states[IDENTITIES], identity, view_of("1"));
	return result == STATE_OK || step_state_failed(result, record->origin, "remember the identity", failure);
}

/* Drops records that have been there, and closes the gaps. */
static bool dedup_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	uint32_t kept = 0;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		bool is_new = false;

		step_key(step, record);
		if (step->own ? !identity_is_new(step, record, run, &is_new, failure)
			      : !key_is_new(step, record, &is_new, failure))
			return false;
		if (!is_new) {
			record_drop(record);
			continue;
		}
		if (kept != i) {
			run->records[kept] = *record;
			record->state = PAYLOAD_BYTES;
		}
		kept++;
	}
	run->count = kept;
	return true;
}

const struct step_kind_ops dedup_ops = {.open = dedup_open, .process = dedup_process};
