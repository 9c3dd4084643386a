/*
 * A run: the records that a chain works on together. Steps take a run and hand a run on, never record by record.
 *
 * A record's payload is bytes, or a JSON value parsed from them; it is parsed by the first step that needs the value and
 * printed once, when bytes are needed again. Views point into the request frame, into the run's scratch memory, or into
 * memory that a step owns until its next call.
 */
#ifndef WORKER_RUN_H
#define WORKER_RUN_H

#include <jv.h>
#include <stdbool.h>
#include <stdint.h>

#include "descriptor/descriptor.h"
#include "shared/view.h"
#include "shared/wire.h"

/* PAYLOAD_BOTH: the value was parsed from the bytes and nobody changed it, so the bytes still stand: a step that only looks
 * (filter, route, key_by) leaves the payload as it came, to the letter. */
enum payload_state { PAYLOAD_BYTES, PAYLOAD_VALUE, PAYLOAD_BOTH };

/* It begins as a library sees a record (struct bridge_record of worker/hosts/bridge_step.h). */
struct record {
	struct view payload; /* BYTES, BOTH: the payload. VALUE: what it was before, for messages only */
	struct view key;
	const struct wire_header *headers; /* immutable: shared by copies */
	int64_t timestamp;                 /* ms, or WIRE_NO_TIMESTAMP */
	uint32_t header_count;
	uint32_t keyed;  /* 1: has a key */
	uint32_t route;  /* input on the way in, route on the way out */
	uint32_t origin; /* index of the input record in its batch that this came from */
	/* What a library does not see. */
	int32_t key_hash;
	uint32_t key_group;
	jv value;      /* VALUE, BOTH: owned by the record */
	uint8_t state; /* enum payload_state */
	uint8_t form;  /* enum payload_form the value was read as, and is written as */
};

/* Memory that lives as long as the unit at hand: bytes that steps make. Reset, not freed, between units. */
struct scratch;
struct scratch *scratch_create(void);
void scratch_destroy(struct scratch *scratch);
void scratch_reset(struct scratch *scratch);

/* `size` bytes, 16-aligned, until the next reset. NULL beyond SCRATCH_LIMIT, or when memory is out. */
void *scratch_alloc(struct scratch *scratch, size_t size);

/* Gives the most recent allocation, and only that one, another size: in place if possible. NULL as above. */
void *scratch_resize(struct scratch *scratch, void *last, size_t old_size, size_t size);

/* Whether it, or a run on it, had no room for something since the last reset: with fewer records there might be. And says so. */
bool scratch_is_out(const struct scratch *scratch);
void scratch_set_out(struct scratch *scratch);

/* A copy of some bytes in scratch memory; data is NULL when there is no room. */
struct view scratch_copy(struct scratch *scratch, struct view bytes);

/* What one unit may take: a fan-out that goes on for ever fails its record, not the process. */
enum { SCRATCH_LIMIT = 256 << 20, RUN_RECORDS_MAX = 1 << 21 };

struct run {
	struct record *records;
	uint32_t count, capacity;
	struct scratch *scratch; /* not owned */
};

/* Starts empty on some scratch memory; frees records and their values. */
void run_init(struct run *run, struct scratch *scratch);
void run_deinit(struct run *run);

/* Drops all records, freeing their values. */
void run_clear(struct run *run);

/* A new record at the end, zeroed; NULL beyond RUN_RECORDS_MAX or when memory is out. The pointer is good until the next push. */
struct record *run_push(struct run *run);

/* Appends a copy of a record, which must not be in the same run: the value is shared by reference count. */
struct record *run_push_copy(struct run *run, const struct record *record);

/* Moves all records of another run to the end of this one. False when there is no room: then both are as they were. */
bool run_append(struct run *run, struct run *from);

/* Drops the value that a record has, if any; what is left is an empty payload. */
void record_drop(struct record *record);

/* Trades the records of two runs; each keeps its scratch memory. */
void run_trade(struct run *a, struct run *b);

/* Fills a record from one of a parsed batch, as bytes. */
void record_of_batch(struct record *record, const struct wire_batch *batch, uint32_t index);

/* Takes records [first, first + count) of a parsed batch into a run, as bytes. */
bool run_take_batch(struct run *run, const struct wire_batch *batch, uint32_t first, uint32_t count);

/* Makes the payload a JSON value of the form asked for. On failure false and *why says what is wrong (in scratch memory).
 *   json: the parsed value; text: a string of the bytes, which must be UTF-8; bytes: a string, base64 of the bytes. */
bool record_need_value(struct record *record, enum payload_form form, struct scratch *scratch, const char **why);

/* Makes the payload bytes again: json: shortest JSON, keys in their order; text: the string itself (any other value as JSON);
 * bytes: the base64 string decoded. On failure false and *why. */
bool record_need_bytes(struct record *record, struct scratch *scratch, const char **why);

/* Moves the value out of a record that has one (see record_need_value); set another one, or drop the record, next. */
jv record_take_value(struct record *record);

/* Replaces the payload by a value; takes ownership of `value`. */
void record_set_value(struct record *record, jv value, enum payload_form form);

/* Replaces the payload by bytes, which must live as long as the run's scratch memory. */
void record_set_bytes(struct record *record, struct view bytes);

#endif
