/*
 * map, filter, flat_map: one jq program over each payload.
 *
 * map and flat_map give the value away to the program, so that libjq changes it in place where it can. filter keeps it: the
 * payload leaves as it came.
 */
#include <stdlib.h>

#include "shared/log.h"
#include "worker/memory.h"
#include "worker/steps/kinds.h"

struct jq_step {
	struct jq_program *program;
	enum payload_form form;
	struct run spare; /* flat_map writes here, then trades records with the run at hand */
};

/* Compiles the program. */
static bool jq_open(struct step *step, struct failure *failure)
{
	const struct option *program = step_option(step->spec, "program");
	struct jq_step *own = memory_make(1, sizeof(*own), "a step");

	step->own = own;
	own->form = (enum payload_form)step_option(step->spec, "payload")->number;
	own->program = step_program(program, NULL, program->text, failure);
	if (own->program)
		return true;
	free(own);
	return false;
}

/* The program stays: it belongs to the process. */
static void jq_close(struct step *step)
{
	struct jq_step *own = step->own;

	run_deinit(&own->spare);
	free(own);
}

/* One value for each payload. */
static bool map_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct jq_step *own = step->own;
	jv output;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];

		if (!step_need_value(record, own->form, run, failure))
			return false;
		if (!jq_program_one(own->program, record_take_value(record), &output))
			return step_program_failed(own->program, record, failure);
		record_set_value(record, output, own->form);
	}
	return true;
}

/* Drops records, and closes the gaps. */
static bool filter_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct jq_step *own = step->own;
	uint32_t kept = 0;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		bool holds;

		if (!step_need_value(record, own->form, run, failure))
			return false;
		if (!jq_program_holds(own->program, jv_copy(record->value), &holds))
			return step_program_failed(own->program, record, failure);
		if (!holds) {
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

/* All outputs for one record, appended to the spare run. */
static bool flat_map_record(struct jq_step *own, struct record *record, struct failure *failure)
{
	struct record without_value = *record;
	enum jq_result result;
	jv output;

	without_value.state = PAYLOAD_BYTES;
	jq_program_start(own->program, record_take_value(record));
	while ((result = jq_program_next(own->program, &output)) == JQ_OUTPUT) {
		struct record *out = run_push_copy(&own->spare, &without_value);
		if (!out) {
			jv_free(output);
			jq_program_stop(own->program);
			return step_no_room(record, failure);
		}
		record_set_value(out, output, own->form);
	}
	return result == JQ_DONE || step_program_failed(own->program, record, failure);
}

/* Any number of records for each. */
static bool flat_map_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct jq_step *own = step->own;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		if (!step_need_value(record, own->form, run, failure) || !flat_map_record(own, record, failure)) {
			run_clear(&own->spare);
			return false;
		}
	}
	run_trade(run, &own->spare);
	run_clear(&own->spare);
	return true;
}

const struct step_kind_ops map_ops = {.open = jq_open, .close = jq_close, .process = map_process};
const struct step_kind_ops filter_ops = {.open = jq_open, .close = jq_close, .process = filter_process};
const struct step_kind_ops flat_map_ops = {.open = jq_open, .close = jq_close, .process = flat_map_process};
