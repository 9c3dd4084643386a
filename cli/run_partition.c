/*
 * Partitioners (run_partition.h): forward keeps the subtask, rebalance deals in turn, hash goes by key group.
 */
#include "cli/run_partition.h"

#include "shared/keygroup.h"

void partitioner_init(struct partitioner *partitioner, enum partition partition, uint32_t producer,
		      uint32_t parallelism, uint32_t max_parallelism)
{
	*partitioner = (struct partitioner){partition, producer, parallelism, max_parallelism, producer % parallelism};
}

uint32_t partitioner_choose(const struct partitioner *partitioner, struct wire_record *record)
{
	if (record->keyed)
		record->key_group = key_group_of(record->key_hash, partitioner->max_parallelism);
	switch (partitioner->partition) {
	case PARTITION_FORWARD:
		return partitioner->producer % partitioner->parallelism;
	case PARTITION_REBALANCE:
		return partitioner->next;
	case PARTITION_BROADCAST:
	case PARTITION_CUSTOM:
		return 0; /* run.c has made sure that there is no other subtask */
	case PARTITION_HASH:
	case PARTITION_COUNT:
		break;
	}
	return key_group_subtask(record->key_group, partitioner->parallelism, partitioner->max_parallelism);
}

void partitioner_done(struct partitioner *partitioner)
{
	if (++partitioner->next == partitioner->parallelism)
		partitioner->next = 0;
}

bool partitioner_reaches(const struct partitioner *partitioner, uint32_t subtask)
{
	return partitioner->partition != PARTITION_FORWARD ||
	       partitioner->producer % partitioner->parallelism == subtask;
}

void key_group_range(uint32_t subtask, uint32_t parallelism, uint32_t max_parallelism, uint32_t *first, uint32_t *last)
{
	*first = (uint32_t)(((uint64_t)subtask * max_parallelism + parallelism - 1) / parallelism);
	*last = (uint32_t)((((uint64_t)subtask + 1) * max_parallelism - 1) / parallelism);
}
