/*
 * batch: collects records into one whose payload is a JSON array.
 *
 * In a segment that is partitioned by key there is one open batch per key, else one in all. A batch is closed by its size, by
 * its bytes, by its age, and by whoever asks for everything. Payloads are printed as they arrive, into memory of the batch's
 * own, so that an open batch costs its text and no more.
 *
 *      by key: buckets[hash] -> batch -> batch            by age: oldest <-> ... <-> newest
 *
 * Since time never goes back, the list by age is the list by opening; what closes by age is at its head. Keys and bytes held are
 * bounded: beyond that the oldest batch closes early, which a batch's consumer must expect anyway.
 *
 * A batch's timestamp is the largest of its records', or the watermark if that has passed it: no output is ever late because it
 * was held back. It has its key, no headers, and route 0.
 */
#include <stdlib.h>

#include "shared/keygroup.h"
#include "shared/log.h"
#include "worker/json_text.h"
#include "worker/steps/kinds.h"

enum {
	BATCH_BUCKETS = 1024,
	BATCH_KEYS_MAX = 65536,        /* open batches */
	BATCH_HELD_MAX = 64 << 20,     /* bytes of text in all open batches */
	BATCH_BUFFER_KEPT = 256 << 10, /* larger buffers are freed when their batch closes */
};

struct batch {
	struct batch *next_in_bucket;
	struct batch *older, *newer;
	uint8_t *text; /* "[a,b" */
	size_t size, capacity;
	size_t payload; /* bytes of the payloads in it */
	int64_t count;
	int64_t timestamp; /* largest */
	int64_t opened_at; /* processing time in ms */
	bool keyed;
	uint8_t *key;
	size_t key_size;
	int32_t key_hash; /* of the record, as it came */
	uint32_t key_group;
	uint32_t bucket;
};

struct batch_step {
	int64_t size, bytes;
	int64_t time; /* ms; INT64_MAX: none */
	enum payload_form form;
	bool by_key;
	struct batch *oldest, *newest;
	struct batch *spare; /* one that was closed, for its buffer */
	size_t open, held;
	struct run out; /* process writes here, then trades records with the run at hand */
	struct batch *buckets[BATCH_BUCKETS];
};

/* ---- One batch ---- */

/* Frees a batch that is in no list. */
static void batch_free(struct batch *batch)
{
	if (!batch)
		return;
	free(batch->text);
	free(batch->key);
	free(batch);
}

/* Appends bytes to the text of a batch. */
static void batch_put(struct batch *batch, const void *bytes, size_t size)
{
	if (size > batch->capacity - batch->size) {
		size_t capacity = (batch->size + size) * 2 + 256;
		uint8_t *text = realloc(batch->text, capacity);
		CHECK(text);
		batch->text = text;
		batch->capacity = capacity;
	}
	memcpy(batch->text + batch->size, bytes, size);
	batch->size += size;
}

/* Whether a record belongs to a batch. */
static bool batch_fits(const struct batch *batch, const struct record *record)
{
	return batch->keyed == record->keyed &&
	       (!batch->keyed || view_equal((struct view){batch->key, batch->key_size}, record->key));
}

/* The bucket of a record's batch. */
static uint32_t bucket_of(const struct batch_step *own, const struct record *record)
{
	if (!own->by_key || !record->keyed)
		return 0;
	return (uint32_t)key_hash_of(record->key) % BATCH_BUCKETS;
}

/* The open batch that a record goes to, or NULL. */
static struct batch *batch_find(const struct batch_step *own, const struct record *record)
{
	if (!own->by_key)
		return own->oldest;
	struct batch *batch = own->buckets[bucket_of(own, record)];
	while (batch && !batch_fits(batch, record))
		batch = batch->next_in_bucket;
	return batch;
}

/* A new batch for a record, the newest. */
static struct batch *batch_open(struct batch_step *own, const struct record *record, int64_t now)
{
	struct batch *batch = own->spare ? own->spare : calloc(1, sizeof(*batch));

	CHECK(batch);
	own->spare = NULL;
	*batch = (struct batch){.text = batch->text, .capacity = batch->capacity};
	batch->timestamp = INT64_MIN;
	batch->opened_at = now;
	if (own->by_key && record->keyed) {
		batch->keyed = true;
		batch->key_hash = record->key_hash;
		batch->key_group = record->key_group;
		batch->key_size = record->key.size;
		batch->key = malloc(record->key.size + 1);
		CHECK(batch->key);
		if (record->key.size > 0)
			memcpy(batch->key, record->key.data, record->key.size);
	}
	batch->bucket = bucket_of(own, record);
	batch->next_in_bucket = own->buckets[batch->bucket];
	own->buckets[batch->bucket] = batch;
	batch->older = own->newest;
	*(own->newest ? &own->newest->newer : &own->oldest) = batch;
	own->newest = batch;
	own->open++;
	return batch;
}

/* Takes a batch out of both lists. */
static void batch_unlink(struct batch_step *own, struct batch *batch)
{
	struct batch **link = &own->buckets[batch->bucket];

	while (*link != batch)
		link = &(*link)->next_in_bucket;
	*link = batch->next_in_bucket;
	*(batch->older ? &batch->older->newer : &own->oldest) = batch->newer;
	*(batch->newer ? &batch->newer->older : &own->newest) = batch->older;
	own->open--;
	own->held -= batch->payload;
}

/* Keeps one closed batch for its buffer, frees others. */
static void batch_recycle(struct batch_step *own, struct batch *batch)
{
	free(batch->key);
	batch->key = NULL;
	if (own->spare || batch->capacity > BATCH_BUFFER_KEPT) {
		batch_free(batch);
		return;
	}
	own->spare = batch;
}

/* Closes a batch: its record goes to `out`. */
static bool batch_close(struct batch_step *own, struct batch *batch, uint32_t origin, struct step_time time,
			struct run *out, struct failure *failure)
{
	struct record *record = run_push(out);
	struct view key = {NULL, 0}, text;

	batch_put(batch, "]", 1);
	text = scratch_copy(out->scratch, (struct view){batch->text, batch->size});
	if (batch->keyed)
		key = scratch_copy(out->scratch, (struct view){batch->key, batch->key_size});
	if (!record || !text.data || (batch->keyed && !key.data))
		return failure_set(failure, origin, "no memory to hand a batch of %zu bytes on", batch->size);

	record->payload = text;
	record->origin = origin;
	record->timestamp = batch->timestamp > time.watermark_ms ? batch->timestamp : time.watermark_ms;
	record->keyed = batch->keyed;
	record->key = key;
	record->key_hash = batch->key_hash;
	record->key_group = batch->key_group;
	batch_unlink(own, batch);
	batch_recycle(own, batch);
	return true;
}

/* ---- The step ---- */

/* Loses what is open. */
static void batch_step_close(struct step *step)
{
	struct batch_step *own = step->own;

	for (struct batch *batch = own->oldest, *newer; batch; batch = newer) {
		newer = batch->newer;
		batch_free(batch);
	}
	batch_free(own->spare);
	run_deinit(&own->out);
	free(own);
}

/* Reads the options. */
static bool batch_step_open(struct step *step, struct failure *failure)
{
	const struct option *time = step_option(step->spec, "time");
	int64_t size = step_option(step->spec, "size")->number, bytes = step_option(step->spec, "bytes")->number;

	if (size < 1)
		return failure_set(failure, 0, "option `size` must be at least 1");
	if (bytes < 1)
		return failure_set(failure, 0, "option `bytes` must be at least 1");
	if (time->given && time->number < 1)
		return failure_set(failure, 0, "option `time` must be at least 1ms");

	struct batch_step *own = calloc(1, sizeof(*own));
	CHECK(own);
	own->size = size;
	own->bytes = bytes;
	own->time = time->given ? time->number : INT64_MAX;
	own->form = (enum payload_form)step_option(step->spec, "payload")->number;
	own->by_key = step->segment->keyed;
	step->own = own;
	return true;
}

/* The processing time at which a batch has to go. */
static int64_t due_at(const struct batch_step *own, const struct batch *batch)
{
	if (own->time == INT64_MAX || (batch->opened_at > 0 && own->time > INT64_MAX - batch->opened_at))
		return INT64_MAX;
	return batch->opened_at + own->time;
}

/* Closes the batches whose time is up. */
static bool close_due(struct batch_step *own, uint32_t origin, struct step_time time, struct run *out,
		      struct failure *failure)
{
	if (own->time == INT64_MAX)
		return true;
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): closing the oldest moves the head on before it is freed */
	while (own->oldest && due_at(own, own->oldest) <= time.processing_ms)
		if (!batch_close(own, own->oldest, origin, time, out, failure))
			return false;
	return true;
}

/* The payload of a record as JSON: what it adds to a batch's text. */
static bool batch_text(const struct batch_step *own, struct record *record, struct run *run, struct view *text,
		       struct failure *failure)
{
	if (!step_need_value(record, own->form, run, failure))
		return false;
	const char *why = json_print(record->value, run->scratch, text);
	return !why || failure_set(failure, record->origin, "the payload cannot be written as JSON: %s", why);
}

/* Adds a record to its batch, closing what has to be closed before or after. */
static bool batch_add(struct batch_step *own, struct record *record, struct run *run, struct step_time time,
		      struct failure *failure)
{
	struct batch *batch = batch_find(own, record);
	struct view text;

	if (!batch_text(own, record, run, &text, failure))
		return false;
	if (batch && batch->payload + text.size > (uint64_t)own->bytes) {
		if (!batch_close(own, batch, record->origin, time, &own->out, failure))
			return false;
		batch = NULL;
	}
	if (!batch)
		batch = batch_open(own, record, time.processing_ms);
	batch_put(batch, batch->count > 0 ? "," : "[", 1);
	batch_put(batch, text.data, text.size);
	batch->count++;
	batch->payload += text.size;
	own->held += text.size;
	if (record->timestamp > batch->timestamp)
		batch->timestamp = record->timestamp;

	if (batch->count >= own->size || batch->payload >= (uint64_t)own->bytes)
		return batch_close(own, batch, record->origin, time, &own->out, failure);
	while (own->open > BATCH_KEYS_MAX || own->held > BATCH_HELD_MAX)
		if (!batch_close(own, own->oldest, record->origin, time, &own->out, failure))
			return false;
	return true;
}

/* Adds a run of records; what closes meanwhile is what goes on. */
static bool batch_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct batch_step *own = step->own;

	own->out.scratch = run->scratch;
	bool added = run->count == 0 || close_due(own, run->records[0].origin, time, &own->out, failure);
	for (uint32_t i = 0; i < run->count && added; i++)
		added = batch_add(own, &run->records[i], run, time, failure);
	if (added)
		run_trade(run, &own->out);
	run_clear(&own->out);
	return added;
}

/* Closes what is due, or everything. */
static bool batch_release(struct step *step, enum release_cause cause, struct step_time time, struct run *out,
			  struct failure *failure)
{
	struct batch_step *own = step->own;

	switch (cause) {
	case RELEASE_WATERMARK:
		return true;
	case RELEASE_TICK:
		return close_due(own, 0, time, out, failure);
	case RELEASE_END:
		while (own->oldest)
			/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): as above */
			if (!batch_close(own, own->oldest, 0, time, out, failure))
				return false;
		return true;
	}
	return true;
}

/* When the oldest batch is due. */
static int64_t batch_next_wakeup(const struct step *step)
{
	const struct batch_step *own = step->own;

	return own->oldest ? due_at(own, own->oldest) : INT64_MAX;
}

const struct step_kind_ops batch_ops = {
    .open = batch_step_open,
    .close = batch_step_close,
    .process = batch_process,
    .release = batch_release,
    .next_wakeup = batch_next_wakeup,
};
