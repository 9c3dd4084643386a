/*
 * The file of `bridgectl run --checkpoint FILE`: one SQLite database that holds one checkpoint, the last one that is complete.
 *
 *   checkpoint   one row: its number, of which pipeline (the descriptor, too), whether all input is processed
 *   source       how far each source was read
 *   sink         how long each output was
 *   subtask      the watermark of each subtask; their number is the parallelism it was made with
 *   state        what each segment remembers, by name: kind, partition, format version
 *   entry        the remembered entries, by state, key group and key
 *
 * Invariants
 *  C1  What is in the file is one checkpoint, whole. Everything that belongs to the next one is written inside one transaction, open
 *      from the first write until run_store_commit; a process that is killed, or a machine that loses power, leaves the last one.
 *  C2  One process at a time: the file is locked (flock) from run_store_open to run_store_close.
 *  C3  A file that is not ours is never changed: no database, another program's database, a newer format.
 *
 * Left out: a history of checkpoints, and checksums over entries beside those of the disk.
 */
#ifndef CLI_RUN_STORE_H
#define CLI_RUN_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/wire.h"

struct run_store;

enum { STORE_WHY_MAX = 1024, STORE_FORMAT_VERSION = 1 };

enum store_result {
	STORE_OK,
	STORE_NOT_OURS, /* to be refused: see C3 */
	STORE_IN_USE,   /* by another run: see C2 */
	STORE_FAILED,   /* the disk, or permissions, or damage */
};

/* Opens the file, makes it when there is none, and locks it. `why` (of STORE_WHY_MAX bytes) says what went wrong. */
enum store_result run_store_open(struct run_store **out, const char *path, char *why);

/* Closes it; what was not committed is forgotten. NULL is fine. */
void run_store_close(struct run_store *store);

/* What went wrong last, in words, with the file's name. All functions below return false after that. */
const char *run_store_why(const struct run_store *store);

/* Whether a file is this one. */
struct stat;
bool run_store_is(const struct run_store *store, const struct stat *file);

/* Bytes of the file. */
uint64_t run_store_bytes(const struct run_store *store);

/* ---- Reading the checkpoint: found is false when the file has no such row ---- */

struct store_checkpoint {
	uint64_t id; /* 0: the file has none yet */
	bool finished;
	const char *pipeline, *topology_hash;
	const char *descriptor; /* as text */
	int64_t made_ms;
};
/* The texts are good until the store is closed. */
bool run_store_checkpoint(struct run_store *store, struct store_checkpoint *out);

/* A source; the path is absolute, empty for a generator. */
struct store_source {
	const char *name, *kind, *path;
	uint64_t position; /* bytes of a file, or records of a generator */
	uint64_t records;
	int64_t largest_ms; /* timestamp; INT64_MIN: none yet */
	uint64_t fingerprint;
};

/* A sink; the path is absolute, empty for one that discards. */
struct store_sink {
	const char *name, *path;
	uint64_t length, records;
	uint64_t fingerprint;
};

/* The texts are good until the next call of the same function, and until anything is written. */
bool run_store_source(struct run_store *store, const char *name, struct store_source *out, bool *found);
bool run_store_sink(struct run_store *store, const char *name, struct store_sink *out, bool *found);

/* The subtasks that a segment had, and the least watermark of them; INT64_MIN: one had none. */
bool run_store_segment(struct run_store *store, const char *segment, uint32_t *subtasks, int64_t *watermark);

/* A state that a segment has in the checkpoint; strings are the store's. */
struct store_state {
	int64_t id;
	struct wire_declaration declaration;
};

/* The states of a segment, in the order that they were first written; good until the store is closed. */
bool run_store_states(struct run_store *store, const char *segment, const struct store_state **states, uint32_t *count);

/* What a subtask gets of a segment's state: entries of its key groups, and its share of those without keys. */
struct store_share {
	const struct store_state *states;
	uint32_t count;
	uint32_t subtask, parallelism;
	uint32_t parallelism_before;
	uint32_t key_group_first, key_group_last;
};

struct store_cursor;
struct store_cursor *run_store_cursor(struct run_store *store, const struct store_share *share);

/* The next entry; entry->state is its index in the share's states. Views are good until the next call. `found` is false at the end. */
bool run_store_next(struct store_cursor *cursor, struct wire_entry *entry, bool *found);
void run_store_cursor_close(struct store_cursor *cursor);

/* ---- Writing the next checkpoint (C1) ---- */

/* Begins the first checkpoint of a run: every source, sink and subtask is written anew, and of the state that there is only that of
 * these segments is kept. */
bool run_store_take_over(struct run_store *store, const char *const *segments, uint32_t count);

bool run_store_put_source(struct run_store *store, const struct store_source *source);
bool run_store_put_sink(struct run_store *store, const struct store_sink *sink);

/* Watermark INT64_MIN: none. */
bool run_store_put_subtask(struct run_store *store, const char *segment, uint32_t subtask, int64_t watermark);

/* Says which states a segment has from now on; ids[i] is then declaration i's. Entries of states that are gone are forgotten, and
 * so are all without keys: sessions send those again, under new places. */
bool run_store_declare(struct run_store *store, const char *segment, const struct wire_declaration *declarations,
		       uint32_t count, int64_t *ids);

/* Puts an entry, whole, or removes it. `subtask` is that of an entry without key, else 0. */
bool run_store_put_entry(struct run_store *store, int64_t state, uint32_t subtask, const struct wire_entry *entry);

/* Makes all of it happen. */
bool run_store_commit(struct run_store *store, const struct store_checkpoint *checkpoint);

#endif
