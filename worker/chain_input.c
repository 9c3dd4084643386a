/*
 * Inputs that a step fails on, or dies of, one at a time.
 *
 *      run --kept, mark--> the step in batch form --good--> goes on
 *                                 |
 *                               fails: back to the mark, and each record of the kept run by itself:
 *                                 mark --> the step --good--> behind the others
 *                                             +-- fails: back to that mark; skipped, or a dead letter, or all of it fails
 *
 * Keeping a run is copying an array (values are shared by reference count), so a run without failures costs no allocation. Marks
 * are set for steps that have states; what a step keeps elsewhere nobody can undo.
 *
 * A guarded chain gives every step one input at a time (a record, a timer, a release), and asks before each. What the guard passes
 * over is treated like an input that the step failed on.
 *
 * Left out: a policy for releases. What a step lets go all at once is no single input; it fails.
 */
#include <inttypes.h>
#include <stdio.h>

#include <xxhash.h>

#include "shared/log.h"
#include "worker/chain_parts.h"
#include "worker/json_text.h"

enum { ERROR_HEADERS = 6 };

bool chain_is_picky(const struct chain *chain, uint32_t index)
{
	return chain->segment->steps[index].policy != ON_ERROR_FAIL || chain->guard.about_to;
}

/* ---- Marks ---- */

/* Whether a step has anything that a mark can undo. */
static bool has_states(const struct chain *chain, const struct step *step)
{
	if (!chain->store)
		return false;
	for (size_t i = 0; i < step->state_count; i++)
		if (step->states[i])
			return true;
	return false;
}

static uint64_t mark(const struct chain *chain, const struct step *step)
{
	return has_states(chain, step) ? arena_mark(state_arena(chain->store)) : 0;
}

static void undo_to(const struct chain *chain, const struct step *step, uint64_t mark)
{
	if (has_states(chain, step))
		arena_undo_to(state_arena(chain->store), mark);
}

/* Whether the unit is lost anyway: the caller will roll it back. */
static bool in_trouble(const struct chain *chain)
{
	return chain->store && state_arena(chain->store)->trouble != ARENA_FINE;
}

/* ---- Policy ---- */

/* Whether a header is one of those that a dead letter gets. */
static bool is_error_header(struct view key)
{
	static const char *const names[ERROR_HEADERS] = {"bridge-error",         "bridge-error-step",
							 "bridge-error-segment", "bridge-error-cause",
							 "bridge-error-seq",     "bridge-error-record"};

	for (size_t i = 0; i < ERROR_HEADERS; i++)
		if (view_equal(key, view_of(names[i])))
			return true;
	return false;
}

/* A number as digits in scratch; no data: no memory. */
static struct view digits_of(uint64_t number, struct scratch *scratch)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, number);
	return scratch_copy(scratch, view_of(text));
}

/* Adds the headers that an input gets which workers died of. */
static bool put_crash_headers(struct wire_header *headers, uint32_t *count, struct scratch *scratch,
			      const struct failure *failure)
{
	struct view cause = scratch_copy(scratch, view_of(failure->cause));
	struct view seq = digits_of(failure->seq, scratch), record = digits_of(failure->record, scratch);

	if (!cause.data || !seq.data || !record.data)
		return false;
	headers[(*count)++] = (struct wire_header){view_of("bridge-error-cause"), cause};
	headers[(*count)++] = (struct wire_header){view_of("bridge-error-seq"), seq};
	headers[(*count)++] = (struct wire_header){view_of("bridge-error-record"), record};
	return true;
}

/* Gives a record headers that say why it is a dead letter, in place of any that came in under these names. */
static bool put_error_headers(const struct chain *chain, uint32_t index, struct record *record, struct scratch *scratch,
			      const struct failure *failure)
{
	struct wire_header *headers = scratch_alloc(scratch, (record->header_count + ERROR_HEADERS) * sizeof(*headers));
	struct view words = scratch_copy(scratch, view_of(failure->message));
	uint32_t count = 0;

	if (!headers || !words.data)
		return false;
	for (uint32_t i = 0; i < record->header_count && count < WIRE_HEADERS_MAX - ERROR_HEADERS; i++)
		if (!is_error_header(record->headers[i].key))
			headers[count++] = record->headers[i];
	headers[count++] = (struct wire_header){view_of("bridge-error"), words};
	headers[count++] =
	    (struct wire_header){view_of("bridge-error-step"), view_of(chain->segment->steps[index].name)};
	headers[count++] = (struct wire_header){view_of("bridge-error-segment"), view_of(chain->segment->name)};
	if (failure->crash && !put_crash_headers(headers, &count, scratch, failure))
		return false;
	record->headers = headers;
	record->header_count = count;
	return true;
}

/* Puts a record aside as it came to the step. */
static bool put_aside(struct chain *chain, uint32_t index, const struct record *record, struct scratch *scratch,
		      struct failure *failure)
{
	struct record *dead = run_push_copy(&chain->dead, record);
	const char *why;

	if (!dead || !record_need_bytes(dead, scratch, &why) ||
	    !put_error_headers(chain, index, dead, scratch, failure))
		return failure_set(failure, record->origin, "no memory for a dead letter");
	dead->route = chain->segment->steps[index].dead_letter_route;
	return true;
}

bool chain_leave_out(struct chain *chain, uint32_t index, const struct record *record, struct scratch *scratch,
		     struct failure *failure)
{
	struct step_tally *tally = &chain->tallies[index];
	enum error_policy policy = chain->segment->steps[index].policy;

	if (policy == ON_ERROR_FAIL)
		return false;
	if (policy == ON_ERROR_DEAD_LETTER && !put_aside(chain, index, record, scratch, failure))
		return false;
	tally->errors++;
	tally->skipped += policy == ON_ERROR_SKIP;
	tally->dead_letters += policy == ON_ERROR_DEAD_LETTER;
	return true;
}

/* ---- The guard ---- */

/* What identifies bytes. */
static uint64_t digest_of(struct view bytes, uint64_t seed)
{
	return XXH3_64bits_withSeed(bytes.size > 0 ? bytes.data : (const uint8_t *)"", bytes.size, seed);
}

/* The payload of a record as bytes, without changing what it is; of a value that cannot be written, what it was before. */
static struct view bytes_of(const struct record *record, struct scratch *scratch)
{
	struct view text;

	if (record->state != PAYLOAD_VALUE || json_print(record->value, scratch, &text))
		return record->payload;
	return text;
}

/* Asks the guard about an input. False when it is to be passed over; `failure` says why. */
static bool ask(struct chain *chain, struct chain_input *input, struct failure *failure)
{
	input->ordinal = chain->ordinal++;
	if (!chain->guard.about_to)
		return true;
	return chain->guard.about_to(chain->guard.context, input, failure);
}

/* The same about a record. */
static bool ask_record(struct chain *chain, uint32_t index, const struct record *record, struct scratch *scratch,
		       struct failure *failure)
{
	struct chain_input input = {.step = index, .origin = record->origin, .key = record->key};

	if (!chain->guard.about_to)
		return true;
	input.bytes = bytes_of(record, scratch);
	input.digest = digest_of(input.bytes, digest_of(record->key, (uint64_t)record->timestamp));
	return ask(chain, &input, failure);
}

/* Says that an input is through, before anything else is done: who dies of that did not die of the input. Returns `good`. */
static bool past(const struct chain *chain, uint32_t index, bool good)
{
	if (chain->guard.about_to)
		chain->guard.past(chain->guard.context, index);
	return good;
}

/* ---- Records ---- */

/* Keeps a run as it is. Values that still have their bytes are kept as these. */
static bool keep(struct run *kept, const struct run *run)
{
	run_clear(kept);
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *copy;

		if (run->records[i].state != PAYLOAD_BOTH) {
			if (!run_push_copy(kept, &run->records[i]))
				return false;
			continue;
		}
		copy = run_push(kept);
		if (!copy)
			return false;
		*copy = run->records[i];
		copy->state = PAYLOAD_BYTES;
	}
	return true;
}

/* Hands one record to a step, and what becomes of it to the end of a run. */
static bool process_one(struct chain *chain, uint32_t index, const struct record *record, struct run *out,
			struct step_time time, struct failure *failure)
{
	struct step *step = &chain->steps[index];
	struct run *single = &chain->single;
	uint64_t here = mark(chain, step);

	run_clear(single);
	if (!run_push_copy(single, record))
		return failure_set(failure, record->origin, "no memory for a record");
	if (past(chain, index,
		 ask_record(chain, index, record, out->scratch, failure) &&
		     step->ops->process(step, single, time, failure)))
		return run_append(out, single) || failure_set(failure, record->origin, "no memory for records");
	run_clear(single);
	if (in_trouble(chain))
		return false;
	undo_to(chain, step, here);
	return chain_leave_out(chain, index, record, out->scratch, failure);
}

/* Hands the records that were kept to a step one by one. */
static bool process_each(struct chain *chain, uint32_t index, struct run *run, struct step_time time,
			 struct failure *failure)
{
	bool good = true;

	run_clear(run);
	for (uint32_t i = 0; i < chain->kept.count && good; i++)
		good = process_one(chain, index, &chain->kept.records[i], run, time, failure);
	run_clear(&chain->kept);
	return good;
}

bool chain_process_inputs(struct chain *chain, uint32_t index, struct run *run, struct step_time time,
			  struct failure *failure)
{
	struct step *step = &chain->steps[index];
	uint64_t here;

	if (!keep(&chain->kept, run))
		return failure_set(failure, run->records[0].origin, "no memory to keep records");
	if (chain->guard.about_to || step->single)
		return process_each(chain, index, run, time, failure);
	here = mark(chain, step);
	if (step->ops->process(step, run, time, failure)) {
		run_clear(&chain->kept);
		return true;
	}
	/* With fewer records there may be the memory that was missing, which is for the caller to try. */
	if (in_trouble(chain) || (scratch_is_out(run->scratch) && chain->kept.count > 1)) {
		run_clear(&chain->kept);
		return false;
	}
	undo_to(chain, step, here);
	return process_each(chain, index, run, time, failure);
}

/* ---- Timers and releases ---- */

/* A timer as a record, for its digest and for a dead letter. */
static struct record record_of_timer(const struct chain *chain, const struct state_timer *timer)
{
	return (struct record){
	    .payload = timer->tag,
	    .timestamp = timer->time_ms,
	    .keyed = chain->segment->keyed,
	    .key = timer->key,
	    .key_hash = timer->key_hash,
	    .key_group = timer->key_group,
	};
}

/* Drops what a step has put behind the first records of a run. */
static void cut(struct run *run, uint32_t count)
{
	while (run->count > count)
		record_drop(&run->records[--run->count]);
}

bool chain_fire_input(struct chain *chain, uint32_t index, enum state_time domain, const struct state_timer *timer,
		      struct step_time time, struct run *out, struct failure *failure)
{
	struct step *step = &chain->steps[index];
	struct record record = record_of_timer(chain, timer);
	bool picky = chain_is_picky(chain, index);
	uint64_t here = picky ? mark(chain, step) : 0;
	uint32_t before = out->count;

	if (past(chain, index,
		 ask_record(chain, index, &record, out->scratch, failure) &&
		     step->ops->fire(step, domain, timer, time, out, failure)))
		return true;
	if (!picky || in_trouble(chain))
		return false;
	undo_to(chain, step, here);
	cut(out, before);
	return chain_leave_out(chain, index, &record, out->scratch, failure);
}

bool chain_release_input(struct chain *chain, uint32_t index, enum release_cause cause, struct step_time time,
			 struct run *out, struct failure *failure)
{
	struct step *step = &chain->steps[index];
	struct chain_input input = {.step = index, .digest = cause};

	return past(chain, index, ask(chain, &input, failure) && step->ops->release(step, cause, time, out, failure));
}
