/*
 * Which subtask of a consumer a record goes to, as Flink's partitioners choose it.
 */
#ifndef CLI_RUN_PARTITION_H
#define CLI_RUN_PARTITION_H

#include <stdint.h>

#include "descriptor/descriptor.h"
#include "shared/wire.h"

/* One end of an edge: a consumer as one subtask of a producer sees it. */
struct partitioner {
	enum partition partition;
	uint32_t producer;                     /* the producer's subtask */
	uint32_t parallelism, max_parallelism; /* the consumer's */
	uint32_t next;                         /* REBALANCE: whose turn it is */
};

/* Starts with the consumer's subtask that a record of this producer goes to first: no two producers start at the same one. */
void partitioner_init(struct partitioner *partitioner, enum partition partition, uint32_t producer,
		      uint32_t parallelism, uint32_t max_parallelism);

/* The subtask for a record, whose key group is set for the consumer. REBALANCE moves on with partitioner_done. */
uint32_t partitioner_choose(const struct partitioner *partitioner, struct wire_record *record);

/* The record chosen for was delivered. */
void partitioner_done(struct partitioner *partitioner);

/* Whether a subtask of the consumer hears of this producer at all (it always does unless records are forwarded). */
bool partitioner_reaches(const struct partitioner *partitioner, uint32_t subtask);

/* The key groups of a subtask, first to last, as Flink deals them out. */
void key_group_range(uint32_t subtask, uint32_t parallelism, uint32_t max_parallelism, uint32_t *first, uint32_t *last);

#endif
