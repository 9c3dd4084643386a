/*
 * batch: collects records into one whose payload is a JSON array.
 *
 * In a segment that is partitioned by key there is one open batch per key, else one in all. A batch is closed by its size, by
 * its bytes, by its age, and by the end of input. What is in an open batch is in the state: a list of payloads, printed as they
 * arrive, each behind a head of two times. So a batch stays open across checkpoints and deaths, and costs its text and little more.
 *
 *      pending   timestamp, opened_at, text | timestamp, opened_at, text | ...
 *      sums      how many those are, their bytes, when the batch was opened and has to go              } by key
 *      due       a timer at that time; where no time was given, at the end of time, so that the end of   } only
 *                input finds all keys that have a batch
 *
 * Without keys there can be but the list, which is dealt out when the segment is rescaled. The sums of it are counted together in the
 * process and are void when the state is another than what this process made of it (state_generation): then they are counted anew. A
 * list may so hold more than one batch, and is closed as several.
 *
 * A batch's timestamp is the largest of its records', or the watermark if that has passed it: no output is ever late because it
 * was held back. It has its key, no headers, and route 0.
 */
#include <stdlib.h>

#include "shared/log.h"
#include "worker/json_text.h"
#include "worker/memory.h"
#include "worker/steps/kinds.h"

/* The states, as steps.def has them. */
enum { PENDING, SUMS, DUE };

/* What stands before the text of each payload in the list. */
struct head {
	int64_t timestamp;
	int64_t opened_at; /* of its batch; processing time in ms */
};

/* What the open batch of a key is; all zero: there is none. */
struct sums {
	int64_t count;
	int64_t bytes;     /* of the payloads */
	int64_t opened_at; /* processing time in ms */
	int64_t due;       /* processing time at which it has to go; INT64_MAX: never */
};

struct batch_step {
	int64_t size, bytes;
	int64_t time; /* ms; INT64_MAX: none */
	enum payload_form form;
	struct run out; /* process writes here, then trades records with the run at hand */
	/* Without keys: the sums, and the generation of the state that they are of. */
	struct sums sums;
	uint64_t generation;
	bool counted;
};

/* ---- Opening ---- */

/* What is pending stays in the state. */
static void batch_close(struct step *step)
{
	struct batch_step *own = step->own;

	run_deinit(&own->out);
	free(own);
}

/* Reads the options. */
static bool batch_open(struct step *step, struct failure *failure)
{
	const struct option *time = step_option(step->spec, "time");
	int64_t size = step_option(step->spec, "size")->number, bytes = step_option(step->spec, "bytes")->number;

	if (size < 1)
		return failure_set(failure, 0, "option `size` must be at least 1");
	if (bytes < 1)
		return failure_set(failure, 0, "option `bytes` must be at least 1");
	if (time->given && time->number < 1)
		return failure_set(failure, 0, "option `time` must be at least 1ms");

	struct batch_step *own = memory_make(1, sizeof(*own), "a step");
	own->size = size;
	own->bytes = bytes;
	own->time = time->given ? time->number : INT64_MAX;
	own->form = (enum payload_form)step_option(step->spec, "payload")->number;
	step->own = own;
	step->flushes = true;
	return true;
}

/* ---- Sums ---- */

/* The processing time at which a batch that was opened at some time has to go. */
static int64_t due_at(const struct batch_step *own, int64_t opened_at)
{
	if (own->time == INT64_MAX || (opened_at > 0 && own->time > INT64_MAX - opened_at))
		return INT64_MAX;
	return opened_at + own->time;
}

/* Adds one payload to the sums. */
static void sums_add(const struct batch_step *own, struct sums *sums, const struct head *head, size_t bytes)
{
	if (sums->count == 0 || head->opened_at < sums->opened_at) {
		sums->opened_at = head->opened_at;
		sums->due = due_at(own, head->opened_at);
	}
	sums->count++;
	sums->bytes += (int64_t)bytes;
}

/* Takes a list's element apart. False when it is none, which only a checkpoint can bring about that somebody else has written. */
static bool element_read(struct view element, struct head *head, struct view *text)
{
	if (element.size < sizeof(*head))
		return false;
	memcpy(head, element.data, sizeof(*head));
	*text = (struct view){element.data + sizeof(*head), element.size - sizeof(*head)};
	return true;
}

/* Says that list and sums cannot both be true. Returns false. */
static bool batch_torn(uint32_t origin, struct failure *failure)
{
	failure_set(failure, origin,
		    "what is kept of a batch is damaged: the checkpoint that it comes from is none of "
		    "this program's");
	return false;
}

/* Counts the sums of the current key's list. */
static bool sums_count(struct step *step, struct sums *sums, uint32_t origin, struct failure *failure)
{
	struct state_iterator iterator = {0};
	enum state_result result;
	struct view element, text;
	struct head head;

	*sums = (struct sums){0};
	while ((result = state_list_next(step->states[PENDING], &iterator, &element)) == STATE_OK) {
		if (!element_read(element, &head, &text))
			return batch_torn(origin, failure);
		sums_add(step->own, sums, &head, text.size);
	}
	return result == STATE_NONE || step_state_failed(result, origin, "count a batch", failure);
}

/* The sums of the current key's batch, out of the state. */
static bool sums_read(struct step *step, struct sums *sums, uint32_t origin, struct failure *failure)
{
	struct view value;
	enum state_result result = state_get(step->states[SUMS], &value);

	*sums = (struct sums){0};
	if (result == STATE_NONE)
		return true;
	if (result != STATE_OK)
		return step_state_failed(result, origin, "read a batch", failure);
	if (value.size != sizeof(*sums))
		return batch_torn(origin, failure);
	memcpy(sums, value.data, sizeof(*sums));
	return true;
}

/* The sums of the current key's batch. */
static bool sums_load(struct step *step, struct sums *sums, uint32_t origin, struct failure *failure)
{
	struct batch_step *own = step->own;

	if (step->segment->keyed)
		return sums_read(step, sums, origin, failure);
	if (!own->counted || own->generation != state_generation(step->store)) {
		own->generation = state_generation(step->store);
		own->counted = sums_count(step, &own->sums, origin, failure);
	}
	*sums = own->sums;
	return own->counted;
}

/* Keeps the sums of the current key's batch; and its timer, which it gets when it is opened and loses when it is closed. */
static enum state_result sums_save(struct step *step, const struct sums *was, const struct sums *sums)
{
	struct batch_step *own = step->own;
	struct view value = {(const uint8_t *)sums, sizeof(*sums)};
	enum state_result result = STATE_OK;

	if (!step->segment->keyed) {
		own->sums = *sums;
		return STATE_OK;
	}
	if (was->count > 0 && (sums->count == 0 || was->due != sums->due))
		result = state_timer_delete(step->states[DUE], STATE_PROCESSING_TIME, was->due, view_of(""));
	if (result == STATE_OK || result == STATE_NONE)
		result = sums->count > 0 ? state_put(step->states[SUMS], value) : state_remove(step->states[SUMS]);
	if (result == STATE_NONE)
		result = STATE_OK;
	if (result == STATE_OK && sums->count > 0 && (was->count == 0 || was->due != sums->due))
		result = state_timer_set(step->states[DUE], STATE_PROCESSING_TIME, sums->due, view_of(""));
	return result;
}

/* ---- Closing ---- */

/* What a closing is about, and the batch that it puts together. */
struct closing {
	struct step *step;
	struct run *out;
	struct step_time time;
	uint32_t origin;
	bool keyed;
	struct view key; /* in memory that lives as long as the run's */
	int32_t key_hash;
	uint32_t key_group;
	uint8_t *text; /* the most recent of the scratch memory */
	size_t used, room;
	int64_t count, bytes, timestamp;
	struct failure *failure;
};

/* Hands the batch that was put together on. */
static bool closing_emit(struct closing *closing)
{
	struct record *record = run_push(closing->out);

	if (!record)
		return failure_set(closing->failure, closing->origin, "no memory to hand a batch on");
	closing->text[closing->used++] = ']';
	record->payload = (struct view){
	    scratch_resize(closing->out->scratch, closing->text, closing->used, closing->used), closing->used};
	record->origin = closing->origin;
	record->timestamp =
	    closing->timestamp > closing->time.watermark_ms ? closing->timestamp : closing->time.watermark_ms;
	record->keyed = closing->keyed;
	record->key = closing->key;
	record->key_hash = closing->key_hash;
	record->key_group = closing->key_group;
	closing->text = NULL;
	closing->count = closing->bytes = 0;
	return true;
}

/* Begins to put a batch together, with room for what is left of the list. */
static bool closing_begin(struct closing *closing, const struct sums *left)
{
	if (left->count <= 0 || left->bytes < 0 || left->count > INT64_MAX / 4 || left->bytes > INT64_MAX / 4)
		return batch_torn(closing->origin, closing->failure);
	closing->room = (size_t)(left->bytes + left->count) + 1;
	closing->used = 1;
	closing->timestamp = INT64_MIN;
	closing->text = scratch_alloc(closing->out->scratch, closing->room);
	if (!closing->text) {
		failure_set(closing->failure, closing->origin, "no memory to hand a batch of %zu bytes on",
			    closing->room);
		return false;
	}
	closing->text[0] = '[';
	return true;
}

/* Adds a payload to the batch, which goes on first if that would be too much. */
static bool closing_add(struct closing *closing, const struct sums *left, const struct head *head, struct view text)
{
	const struct batch_step *own = closing->step->own;

	if (closing->text && (closing->count >= own->size || closing->bytes + (int64_t)text.size > own->bytes) &&
	    !closing_emit(closing))
		return false;
	if (!closing->text && !closing_begin(closing, left))
		return false;
	if (closing->room - closing->used < text.size + (closing->count > 0) + 1)
		return batch_torn(closing->origin, closing->failure);
	if (closing->count > 0)
		closing->text[closing->used++] = ',';
	memcpy(closing->text + closing->used, text.data, text.size);
	closing->used += text.size;
	closing->count++;
	closing->bytes += (int64_t)text.size;
	if (head->timestamp > closing->timestamp)
		closing->timestamp = head->timestamp;
	return true;
}

/* Hands on all that is pending of the current key, as one batch, or as several if it is more than one may be. */
static bool closing_drain(struct closing *closing, struct sums *sums)
{
	struct step *step = closing->step;
	struct state_iterator iterator = {0};
	struct sums left = *sums, was = *sums;
	enum state_result result;
	struct view element, text;
	struct head head;

	while ((result = state_list_next(step->states[PENDING], &iterator, &element)) == STATE_OK) {
		if (!element_read(element, &head, &text))
			return batch_torn(closing->origin, closing->failure);
		if (!closing_add(closing, &left, &head, text))
			return false;
		left.count--;
		left.bytes -= (int64_t)text.size;
	}
	if (result != STATE_NONE)
		return step_state_failed(result, closing->origin, "read a batch", closing->failure);
	if (left.count != 0 || left.bytes != 0)
		return batch_torn(closing->origin, closing->failure);
	if (closing->text && !closing_emit(closing))
		return false;
	*sums = (struct sums){0};
	result = state_list_clear(step->states[PENDING]);
	if (result == STATE_OK)
		result = sums_save(step, &was, sums);
	return result == STATE_OK || step_state_failed(result, closing->origin, "close a batch", closing->failure);
}

/* A closing of a record's batch. */
static struct closing closing_of(struct step *step, const struct record *record, struct step_time time, struct run *out,
				 struct failure *failure)
{
	bool keyed = step->segment->keyed;

	return (struct closing){.step = step,
				.out = out,
				.time = time,
				.origin = record->origin,
				.keyed = keyed,
				.key = keyed ? record->key : (struct view){NULL, 0},
				.key_hash = keyed ? record->key_hash : 0,
				.key_group = keyed ? record->key_group : 0,
				.failure = failure};
}

/* ---- The step ---- */

/* The payload of a record as an element of the list: its JSON, behind room for the head. */
static bool element_make(const struct batch_step *own, struct record *record, struct run *run, struct view *element,
			 struct failure *failure)
{
	struct view text;
	uint8_t *bytes;

	if (!step_need_value(record, own->form, run, failure))
		return false;
	const char *why = json_print(record->value, run->scratch, &text);
	if (why) {
		failure_set(failure, record->origin, "the payload cannot be written as JSON: %s", why);
		return false;
	}
	bytes = scratch_alloc(run->scratch, sizeof(struct head) + text.size);
	if (!bytes) {
		step_no_room(record, failure);
		return false;
	}
	memcpy(bytes + sizeof(struct head), text.data, text.size);
	*element = (struct view){bytes, sizeof(struct head) + text.size};
	return true;
}

/* Appends an element to the batch of the current key, which is opened by it if there is none. */
static enum state_result batch_append(struct step *step, struct view element, int64_t timestamp, int64_t now,
				      struct sums *sums)
{
	struct head head = {timestamp, sums->count > 0 ? sums->opened_at : now};
	struct sums was = *sums;

	memcpy((uint8_t *)element.data, &head, sizeof(head));
	enum state_result result = state_list_append(step->states[PENDING], element);
	if (result != STATE_OK)
		return result;
	sums_add(step->own, sums, &head, element.size - sizeof(head));
	return sums_save(step, &was, sums);
}

/* Adds a record to its batch, closing what has to be closed before or after. */
static bool batch_add(struct step *step, struct record *record, struct run *run, struct step_time time,
		      struct failure *failure)
{
	struct batch_step *own = step->own;
	struct closing closing = closing_of(step, record, time, &own->out, failure);
	struct view element = {NULL, 0};
	struct sums sums;

	if (!element_make(own, record, run, &element, failure))
		return false;
	step_key(step, record);
	if (!sums_load(step, &sums, record->origin, failure))
		return false;
	int64_t bytes = (int64_t)(element.size - sizeof(struct head));
	bool full = sums.count > 0 && (sums.bytes + bytes > own->bytes || sums.count >= own->size);
	bool late = sums.count > 0 && own->time != INT64_MAX && sums.due <= time.processing_ms;
	if ((full || late) && !closing_drain(&closing, &sums))
		return false;
	enum state_result result = batch_append(step, element, record->timestamp, time.processing_ms, &sums);
	if (result != STATE_OK)
		return step_state_failed(result, record->origin, "keep a record of a batch", failure);
	return (sums.count < own->size && sums.bytes < own->bytes) || closing_drain(&closing, &sums);
}

/* Closes the batch of a segment without keys if it is due, or whatever its time. */
static bool close_unkeyed(struct step *step, bool always, uint32_t origin, struct step_time time, struct run *out,
			  struct failure *failure)
{
	struct closing closing = closing_of(step, &(struct record){.origin = origin}, time, out, failure);
	const struct batch_step *own = step->own;
	struct sums sums;

	if (!sums_load(step, &sums, origin, failure))
		return false;
	if (sums.count == 0 || (!always && (own->time == INT64_MAX || sums.due > time.processing_ms)))
		return true;
	return closing_drain(&closing, &sums);
}

/* Adds a run of records; what closes meanwhile is what goes on. */
static bool batch_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct batch_step *own = step->own;
	bool added = true;

	own->out.scratch = run->scratch;
	for (uint32_t i = 0; i < run->count && added; i++)
		added = batch_add(step, &run->records[i], run, time, failure);
	if (added)
		run_trade(run, &own->out);
	run_clear(&own->out);
	return added;
}

/* A key's batch is due, or the input has ended. */
static bool batch_fire(struct step *step, enum state_time domain, const struct state_timer *timer,
		       struct step_time time, struct run *out, struct failure *failure)
{
	struct record like = {
	    .key = scratch_copy(out->scratch, timer->key), .key_hash = timer->key_hash, .key_group = timer->key_group};
	struct closing closing = closing_of(step, &like, time, out, failure);
	struct sums sums;

	(void)domain;
	if (!like.key.data)
		return failure_set(failure, 0, "no memory to hand a batch on");
	if (!sums_load(step, &sums, 0, failure))
		return false;
	if (sums.count == 0 || sums.due != timer->time_ms)
		return true;
	return closing_drain(&closing, &sums);
}

/* Closes the batch of a segment without keys; those of keys have timers. */
static bool batch_release(struct step *step, enum release_cause cause, struct step_time time, struct run *out,
			  struct failure *failure)
{
	if (step->segment->keyed || cause == RELEASE_WATERMARK)
		return true;
	return close_unkeyed(step, cause == RELEASE_END, 0, time, out, failure);
}

/* When the batch of a segment without keys is due. */
static int64_t batch_next_wakeup(const struct step *step)
{
	struct step same = *step;
	struct failure failure;
	struct sums sums;

	if (step->segment->keyed || !sums_load(&same, &sums, 0, &failure) || sums.count == 0)
		return INT64_MAX;
	return sums.due;
}

const struct step_kind_ops batch_ops = {
    .open = batch_open,
    .close = batch_close,
    .process = batch_process,
    .fire = batch_fire,
    .release = batch_release,
    .next_wakeup = batch_next_wakeup,
};
