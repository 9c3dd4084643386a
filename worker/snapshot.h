/*
 * Snapshot and restore: a session's state on its way to the client and back. docs/wire.md, "State", is the contract.
 *
 *      Open ----> snapshot_open ----> [ snapshot_chunk ... ] ----> snapshot_restored
 *                                                                        |
 *      at a barrier, or when much is unsent:   snapshot_delta ... <------+
 *
 * Both ways go in units: a StateDelta message, or a run of a RestoreChunk's entries, is the least that one commits. How far a session
 * has come is in its words, which commit with the unit, so a worker that dies in the middle of either costs that unit alone:
 *
 *   - Of a chunk, the bytes that are done; of a large value that comes in parts, the parts, each in a block of the session's heap,
 *     until the last one is there and the whole is put into the store.
 *   - Of a large value that goes out in parts, how much has been sent. The entry stays dirty until its last part is: so that is
 *     good as long as nothing else gets dirty before it, which is why whoever begins to send a value finishes it before the state
 *     changes again.
 *   - What the checkpoint's manifest meant: for each of its states the handle that it is now.
 *
 * Left to the session: frames, commits, rollbacks, turns, and the words of an Error around the reason given here.
 */
#ifndef WORKER_SNAPSHOT_H
#define WORKER_SNAPSHOT_H

#include "descriptor/descriptor.h"
#include "shared/wire.h"
#include "worker/state.h"

/* What a session knows of it: a part of its words, as the unit at hand leaves them; zero in a session that has just begun. */
struct snapshot_words {
	uint64_t restored;      /* whole entries that came */
	uint64_t expected;      /* entries, as the client says; 0: it does not, or there is room for them by now */
	uint64_t dropped;       /* of these, of states that the descriptor says to drop */
	uint32_t restoring;     /* 1: RestoreEnd has not come yet */
	uint32_t chunk_offset;  /* bytes of the chunk at hand that are done */
	uint32_t chunk_entries; /* and entries, or parts of some */
	uint32_t sent;          /* bytes of the first dirty entry's value that went out in parts */
	arena_ref map;          /* uint32_t for each state of the checkpoint: the handle's index, or SNAPSHOT_DROPPED */
	uint32_t map_count;
	arena_ref parts_first, parts_last; /* of the value that comes in parts */
	uint64_t parts_bytes;
	uint64_t parts_identity; /* a hash of what all parts must repeat */
};

enum snapshot_result {
	SNAPSHOT_DONE, /* of the chunk, or of what is to be sent, nothing is left */
	SNAPSHOT_MORE, /* a unit was done; some is left */
	SNAPSHOT_TROUBLE, /* arena->trouble says which: roll back, and after ARENA_LOG_FULL call again for a smaller unit */
	SNAPSHOT_REFUSED, /* roll back and end the session: snapshot->fault, record and why */
};

enum snapshot_fault {
	SNAPSHOT_FAULT_RESTORE,   /* what is restored is damaged, unknown or changed */
	SNAPSHOT_FAULT_STATE,     /* a message came where it may not */
	SNAPSHOT_FAULT_TOO_LARGE, /* an entry fits no message */
};

/* One process's part of it. */
struct snapshot {
	struct arena *arena;
	struct state_store *store;
	struct snapshot_words *words;
	uint32_t channel;
	uint32_t key_group_first, key_group_last, max_parallelism;
	struct wire_entries chunk; /* the chunk at hand, if it has been looked at */
	bool chunk_known;          /* it has */
	bool draining;             /* more was unsent than may be, and is not yet half of that */
	uint32_t count;            /* entries, or parts, of the last call */
	enum snapshot_fault fault; /* after REFUSED */
	uint32_t record;           /* likewise: the index of the entry in its chunk */
	char why[600];
};

enum { SNAPSHOT_DROPPED = UINT32_MAX };

/* Sets a snapshot up for a session, a new one or one that a predecessor left. The store has all its handles. */
void snapshot_init(struct snapshot *snapshot, struct state_store *store, struct arena *arena, uint32_t channel,
		   struct snapshot_words *words);

/* Says which entries belong to the session. */
void snapshot_scope(struct snapshot *snapshot, uint32_t key_group_first, uint32_t key_group_last,
		    uint32_t max_parallelism);

/* ---- Manifests ---- */

/* Bytes that the manifest of the code takes in an Open or OpenAck at most; and writes it, as that field. */
uint64_t snapshot_manifest_size(const struct state_store *store);
void snapshot_put_manifest(const struct state_store *store, struct wire_writer *writer, uint32_t field);

/* Takes the manifest of an Open body over, and how many entries are expected (0: nobody knows): what is restored must be what the code has, or what the descriptor lets go. DONE: with a
 * checkpoint the session is restoring from now on. */
enum snapshot_result snapshot_open(struct snapshot *snapshot, struct view open, uint64_t checkpoint, uint64_t expected,
				   const struct descriptor *descriptor);

/* ---- Restoring ---- */

/* Whether nothing but RestoreChunk, RestoreEnd and Close may come. */
static inline bool snapshot_restoring(const struct snapshot *snapshot)
{
	return snapshot->words->restoring != 0;
}

/* Works on the next entries, so many at most, of a RestoreChunk body. MORE: hand the same body in again, in this unit or the next. */
enum snapshot_result snapshot_chunk(struct snapshot *snapshot, struct view body, uint32_t limit);

/* What was done of a chunk was rolled back, or another begins. */
static inline void snapshot_rolled_back(struct snapshot *snapshot)
{
	snapshot->chunk_known = false;
}

/* Takes a RestoreEnd with its count: DONE when all is there. words->restored and dropped go into the RestoreAck. */
enum snapshot_result snapshot_restored(struct snapshot *snapshot, uint64_t entries);

/* ---- Sending ---- */

/* Whether anything is unsent. */
bool snapshot_is_dirty(const struct snapshot *snapshot);

/* Whether some of it should be sent now, although no barrier asks for it: more than `limit` bytes have come together, and from then on
 * until half of that is left. */
bool snapshot_is_due(struct snapshot *snapshot, uint64_t limit);

/* Bytes to reserve for the next StateDelta answer as a whole; `message_max` bounds it. */
uint64_t snapshot_delta_size(struct snapshot *snapshot, uint64_t message_max);

/* Writes the next StateDelta, of so many entries at most, as a field of a FromWorker, into a writer over so many bytes in which only
 * seq stands yet. To be called when there is something. DONE and MORE: it was written. */
enum snapshot_result snapshot_delta(struct snapshot *snapshot, struct wire_writer *writer, uint32_t limit);

#endif
