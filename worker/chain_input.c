/*
 * Inputs that a step fails on, or dies of, one at a time.
 *
 *      run --kept, mark--> the step in batch form --good--> goes on
 *                                 |
 *                               fails: back to the mark; if it is worth it the unit is begun anew later (errors.h),
 *                                 |      else each record of the kept run by itself:
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

enum error_header {
#define ERROR_HEADER(symbol, name, help) HEADER_##symbol,
#include "worker/error_headers.def"
	ERROR_HEADERS
};

static const char *const header_names[ERROR_HEADERS] = {
#define ERROR_HEADER(symbol, name, help) name,
#include "worker/error_headers.def"
};

/* Headers on their way to a dead letter. */
struct letter {
	struct scratch *scratch;
	struct wire_header *headers;
	uint32_t count;
	bool full; /* there was no memory for one */
};

/* Whether a header is one of those that a dead letter gets. */
static bool is_error_header(struct view key)
{
	for (size_t i = 0; i < ERROR_HEADERS; i++)
		if (view_equal(key, view_of(header_names[i])))
			return true;
	return false;
}

/* Adds a header; its value is copied. */
static void put_header(struct letter *letter, enum error_header header, const char *value)
{
	struct view copy = scratch_copy(letter->scratch, view_of(value));

	letter->full |= !copy.data;
	letter->headers[letter->count++] = (struct wire_header){view_of(header_names[header]), copy};
}

/* The same with a number. */
static void put_number_header(struct letter *letter, enum error_header header, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, value);
	put_header(letter, header, text);
}

/* Adds what is known of a failure. */
static void put_failure(struct letter *letter, const struct chain *chain, uint32_t index, const struct failure *failure)
{
	uint32_t attempts = chain->errors ? errors_attempts(chain->errors, index, failure->origin) : 0;

	put_header(letter, HEADER_MESSAGE, failure->message);
	put_header(letter, HEADER_KIND, failure->crash ? "crash" : failure->kind[0] ? failure->kind : "failure");
	put_header(letter, HEADER_STEP, chain->segment->steps[index].name);
	put_header(letter, HEADER_SEGMENT, chain->segment->name);
	put_number_header(letter, HEADER_ATTEMPT, (int64_t)attempts + 1);
	put_number_header(letter, HEADER_TIME, chain->processing_ms);
	if (failure->traceback)
		put_header(letter, HEADER_TRACEBACK, failure->traceback);
	if (!failure->crash)
		return;
	put_number_header(letter, HEADER_SEQ, (int64_t)failure->seq);
	put_number_header(letter, HEADER_RECORD, failure->record);
	put_header(letter, HEADER_CAUSE, failure->cause);
}

/* Gives a record headers that say why it is a dead letter, in place of any that came in under these names. */
static bool put_error_headers(const struct chain *chain, uint32_t index, struct record *record, struct scratch *scratch,
			      const struct failure *failure)
{
	struct letter letter = {.scratch = scratch};

	letter.headers = scratch_alloc(scratch, (record->header_count + ERROR_HEADERS) * sizeof(*letter.headers));
	if (!letter.headers)
		return false;
	for (uint32_t i = 0; i < record->header_count && letter.count < WIRE_HEADERS_MAX - ERROR_HEADERS; i++)
		if (!is_error_header(record->headers[i].key))
			letter.headers[letter.count++] = record->headers[i];
	put_failure(&letter, chain, index, failure);
	record->headers = letter.headers;
	record->header_count = letter.count;
	return !letter.full;
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

bool chain_tries_again(const struct chain *chain, uint32_t index, struct failure *failure)
{
	failure->retry = !failure->waits && chain->errors && errors_may_retry(chain->errors, index, failure);
	return failure->retry;
}

bool chain_leave_out(struct chain *chain, uint32_t index, const struct record *record, struct scratch *scratch,
		     struct failure *failure)
{
	struct step_tally *tally = &chain->tallies[index];
	enum error_policy policy = chain->segment->steps[index].policy;

	if (chain_tries_again(chain, index, failure) || policy == ON_ERROR_FAIL)
		return false;
	if (chain->errors && !errors_fail(chain->errors, index, failure))
		return false;
	if (policy == ON_ERROR_DEAD_LETTER && !put_aside(chain, index, record, scratch, failure))
		return false;
	tally->errors++;
	tally->skipped += policy == ON_ERROR_SKIP;
	tally->dead_letters += policy == ON_ERROR_DEAD_LETTER;
	return true;
}

/* Counts inputs that a step was good with. */
static void pass(const struct chain *chain, uint32_t index, uint32_t count)
{
	if (chain->errors)
		errors_pass(chain->errors, index, count);
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
	step->may_wait = false; /* what it would get for one is gone when the next one waits */
	if (!run_push_copy(single, record))
		return failure_set(failure, record->origin, "no memory for a record");
	if (past(chain, index,
		 ask_record(chain, index, record, out->scratch, failure) &&
		     step->ops->process(step, single, time, failure))) {
		pass(chain, index, 1);
		return run_append(out, single) || failure_set(failure, record->origin, "no memory for records");
	}
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

/* Does with the only record of a run what the policy says of one that a step failed on. */
static bool leave_out_only(struct chain *chain, uint32_t index, struct run *run, struct failure *failure)
{
	bool good;

	run_clear(run);
	failure->origin = chain->kept.records[0].origin;
	good = chain_leave_out(chain, index, &chain->kept.records[0], run->scratch, failure);
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
	chain_let_wait(chain, step);
	if (step->ops->process(step, run, time, failure)) {
		pass(chain, index, chain->kept.count);
		run_clear(&chain->kept);
		return true;
	}
	/* With fewer records there may be the memory that was missing, which is for the caller to try. */
	if (in_trouble(chain) || failure->waits || (scratch_is_out(run->scratch) && chain->kept.count > 1)) {
		run_clear(&chain->kept);
		return false;
	}
	undo_to(chain, step, here);
	if (chain->kept.count == 1)
		return leave_out_only(chain, index, run, failure);
	if (chain_tries_again(chain, index, failure)) {
		run_clear(&chain->kept);
		return false;
	}
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
		     step->ops->fire(step, domain, timer, time, out, failure))) {
		pass(chain, index, 1);
		return true;
	}
	if (in_trouble(chain))
		return false;
	if (!picky)
		return chain_tries_again(chain, index, failure), false;
	undo_to(chain, step, here);
	cut(out, before);
	return chain_leave_out(chain, index, &record, out->scratch, failure);
}

bool chain_release_input(struct chain *chain, uint32_t index, enum release_cause cause, struct step_time time,
			 struct run *out, struct failure *failure)
{
	struct step *step = &chain->steps[index];
	struct chain_input input = {.step = index, .digest = cause};

	return past(chain, index, ask(chain, &input, failure) && step->ops->release(step, cause, time, out, failure)) ||
	       (chain_tries_again(chain, index, failure), false);
}
