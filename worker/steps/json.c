/* parse_json, serialize_json: the two ends of a pipeline whose payloads are not known to be JSON. */
#include "worker/steps/kinds.h"

/* Parses, and has it printed anew by setting the same value. */
static bool parse_json_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	(void)step;
	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];

		if (!step_need_value(record, FORM_JSON, run, failure))
			return false;
		record_set_value(record, record_take_value(record), FORM_JSON);
	}
	return true;
}

/* Makes the text a JSON string, in an object if wanted. */
static bool serialize_json_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	const char *field = step_option(step->spec, "field")->text;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];

		if (!step_need_value(record, FORM_TEXT, run, failure))
			return false;
		jv text = record_take_value(record);
		if (field)
			text = jv_object_set(jv_object(), jv_string(field), text);
		record_set_value(record, text, FORM_JSON);
	}
	return true;
}

const struct step_kind_ops parse_json_ops = {
    .process = parse_json_process,
};
const struct step_kind_ops serialize_json_ops = {
    .process = serialize_json_process,
};
