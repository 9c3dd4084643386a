/*
 * Words of failures in the arena (errors.h): one block for each session whose steps have rules.
 *
 *      what is to be tried again | how many steps | tally of step 0 | tally of step 1 | ...
 *
 * The share is counted over windows that stand side by side: so many records, then anew. It is exceeded as soon as there are more
 * failures in a window than it may have, whatever else comes in it.
 */
#include "worker/errors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/log.h"

enum { PERCENT = 100, BACKOFF_DOUBLINGS = 20 };

static const uint64_t backoff_max_ns = UINT64_C(3600) * 1000 * 1000 * 1000;

/* What is counted of one step. */
struct error_tally {
	uint32_t in_row;  /* failures one after the other */
	uint32_t records; /* of the window at hand */
	uint32_t failed;  /* among them */
};

struct error_words {
	struct retry retry; /* seq 0: none */
	uint32_t step_count, unused;
	struct error_tally steps[];
};

/* A rule of a step. */
static int64_t rule_of(const struct errors *errors, uint32_t step, enum error_rule rule)
{
	return errors->segment->steps[step].rules.of[rule];
}

/* Whether failures of a step are counted: where the first one ends the session there is nothing to count. */
static bool counts(const struct segment *segment, uint32_t step)
{
	const struct step_spec *spec = &segment->steps[step];

	return spec->policy != ON_ERROR_FAIL &&
	       (spec->rules.of[RULE_errors_in_row] > 0 || spec->rules.of[RULE_error_percent] > 0);
}

/* Whether a segment needs words. */
static bool needs_words(const struct segment *segment)
{
	for (uint32_t i = 0; i < segment->step_count; i++)
		if (counts(segment, i) || segment->steps[i].rules.of[RULE_retries] > 0)
			return true;
	return false;
}

/* The size of the words of so many steps. */
static size_t words_size(size_t steps)
{
	return sizeof(struct error_words) + steps * sizeof(struct error_tally);
}

/* Finds the words that there are. NULL: there are none, or the arena is broken; other code may have had other steps. */
static struct error_words *words_find(struct arena *arena, const struct segment *segment, arena_ref block)
{
	struct error_words *words = block == 0 ? NULL : arena_find(arena, block, words_size(0));

	if (words == NULL)
		return NULL;
	if (words->step_count > DESCRIPTOR_STEPS_MAX) {
		arena_set_broken(arena, "the words of a session's failures cannot be true");
		return NULL;
	}
	return words->step_count == segment->step_count ? arena_find(arena, block, words_size(segment->step_count))
							: NULL;
}

bool errors_open(struct errors *errors, struct arena *arena, uint32_t channel, const struct segment *segment,
		 arena_ref *block)
{
	*errors = (struct errors){.arena = arena, .segment = segment};
	if (!needs_words(segment))
		return true;
	errors->words = words_find(arena, segment, *block);
	if (errors->words != NULL)
		return true;
	if (arena->trouble != ARENA_FINE)
		return false;
	if (*block != 0) {
		const struct error_words *old = arena_find(arena, *block, words_size(0));
		arena_free(arena, channel, *block, words_size(old->step_count));
	}
	*block = arena_alloc(arena, channel, words_size(segment->step_count));
	if (*block == 0)
		return false;
	errors->words = arena_at(arena, *block);
	memset(errors->words, 0, words_size(segment->step_count));
	errors->words->step_count = (uint32_t)segment->step_count;
	return true;
}

/* ---- Trying again ---- */

void errors_at(struct errors *errors, uint64_t seq, uint32_t done)
{
	errors->seq = seq;
	errors->done = done;
}

uint32_t errors_attempts(const struct errors *errors, uint32_t step, uint32_t origin)
{
	const struct retry *retry = errors->words == NULL ? NULL : &errors->words->retry;

	if (retry == NULL || retry->seq != errors->seq || retry->done != errors->done + origin || retry->step != step)
		return 0;
	return retry->attempts;
}

bool errors_may_retry(const struct errors *errors, uint32_t step, const struct failure *failure)
{
	return failure->transient && errors->words != NULL &&
	       errors_attempts(errors, step, failure->origin) < rule_of(errors, step, RULE_retries);
}

void errors_note_retry(struct errors *errors, const struct retry *retry)
{
	if (errors->words == NULL)
		return;
	*(struct retry *)arena_write(errors->arena, &errors->words->retry, sizeof(*retry)) = *retry;
}

const struct retry *errors_retry(const struct errors *errors, uint64_t next_seq, uint32_t done)
{
	const struct retry *retry = errors->words == NULL ? NULL : &errors->words->retry;

	return retry != NULL && retry->seq == next_seq && retry->done >= done ? retry : NULL;
}

uint64_t errors_backoff_ns(const struct segment *segment, uint32_t step, uint32_t attempts)
{
	uint64_t first = (uint64_t)segment->steps[step].rules.of[RULE_retry_backoff] * 1000000;
	uint32_t doublings = attempts > BACKOFF_DOUBLINGS ? BACKOFF_DOUBLINGS : attempts > 0 ? attempts - 1 : 0;

	return first > backoff_max_ns >> doublings ? backoff_max_ns : first << doublings;
}

/* ---- Counting ---- */

/* The tally of a step, to be changed. */
static struct error_tally *tally_write(struct errors *errors, uint32_t step)
{
	return arena_write(errors->arena, &errors->words->steps[step], sizeof(struct error_tally));
}

/* Begins a new window when the one at hand has all its records. */
static void window_turn(const struct errors *errors, uint32_t step, struct error_tally *tally)
{
	uint32_t window = (uint32_t)rule_of(errors, step, RULE_error_window);

	if (tally->records < window)
		return;
	tally->records %= window;
	tally->failed = 0;
}

void errors_pass(struct errors *errors, uint32_t step, uint32_t count)
{
	if (errors->words == NULL || count == 0 || !counts(errors->segment, step))
		return;
	struct error_tally *tally = tally_write(errors, step);
	tally->in_row = 0;
	tally->records += count;
	window_turn(errors, step, tally);
}

/* Says in front of a failure's words that it was one too many. */
static bool too_many(struct failure *failure, const char *words)
{
	char message[sizeof(failure->message)];

	memcpy(message, failure->message, sizeof(message));
	failure_set(failure, failure->origin, "%s; this one: %.380s", words, message);
	return false;
}

bool errors_fail(struct errors *errors, uint32_t step, struct failure *failure)
{
	char words[128];

	if (errors->words == NULL || !counts(errors->segment, step))
		return true;
	int64_t in_row = rule_of(errors, step, RULE_errors_in_row), percent = rule_of(errors, step, RULE_error_percent);
	int64_t window = rule_of(errors, step, RULE_error_window);
	struct error_tally *tally = tally_write(errors, step);
	tally->in_row++;
	tally->records++;
	tally->failed++;
	if (in_row > 0 && tally->in_row >= in_row) {
		snprintf(words, sizeof(words), "%" PRIu32 " failures one after the other (errors_in_row)",
			 tally->in_row);
		return too_many(failure, words);
	}
	if (percent > 0 && (int64_t)tally->failed * PERCENT > percent * window) {
		snprintf(words, sizeof(words),
			 "%" PRIu32 " failures among %" PRIu32 " records, more than %" PRId64 " %% of %" PRId64
			 " (error_percent, error_window)",
			 tally->failed, tally->records, percent, window);
		return too_many(failure, words);
	}
	window_turn(errors, step, tally);
	return true;
}
