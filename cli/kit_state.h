/*
 * What the sessions of one segment remember, between a job's end and its restore: the entries of their barriers, kept as Flink
 * would keep them, and dealt out again to as many subtasks as there are then.
 */
#ifndef CLI_KIT_STATE_H
#define CLI_KIT_STATE_H

#include <flink_bridge.pb-c.h>

#include "shared/wire.h"

/* One entry, or the news that it is gone; the last one of a key counts. */
struct kit_entry {
	struct wire_entry entry; /* its bytes are owned */
	uint32_t subtask;        /* of an entry without key */
	uint64_t order;
};

struct kit_states {
	uint8_t *manifest; /* StateDeclaration fields, as an Open has them */
	size_t manifest_size;
	uint32_t *partitions; /* by state: as a StateDeclaration has them */
	uint32_t state_count;
	struct kit_entry *entries;
	size_t count, capacity;
	bool partial; /* the last entry goes on in the next one that comes */
};

/* Memory for a case, or the end in words. */
void *kit_need(void *memory);

/* Keeps the manifest of an OpenAck. */
void kit_states_declare(struct kit_states *states, const FlinkBridge__OpenAck *ack);

/* Keeps what a StateDelta of a subtask says. NULL, or what is wrong with it. */
const char *kit_states_take(struct kit_states *states, uint32_t subtask, struct view body);

/* Leaves one entry for each key, in the order of the keys; those that are gone are no more. */
void kit_states_settle(struct kit_states *states);

/* Whether an entry, all of them being settled, goes to a subtask of so many. */
bool kit_states_is_for(const struct kit_states *states, const struct kit_entry *entry, uint32_t subtask,
		       uint32_t parallelism, uint32_t max_parallelism);

/* Forgets entries without keys: they come anew under new names once they have been restored. */
void kit_states_forget_unkeyed(struct kit_states *states);

void kit_states_free(struct kit_states *states);

#endif
