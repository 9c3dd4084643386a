/*
 * Keys, hashes and key groups, as Flink computes them: every process and the Flink side must agree.
 *
 * The key hash is the Integer that Flink keys its stream by: the low 32 bits of XXH3-64 (seed 0) over the key bytes. Flink takes
 * Integer.hashCode() (the value itself), scrambles it with its murmur variant and takes it modulo the max parallelism.
 */
#ifndef SHARED_KEYGROUP_H
#define SHARED_KEYGROUP_H

#include <stdint.h>

#include "shared/view.h"

/* The hash of a key's bytes. */
int32_t key_hash_of(struct view key);

/* The key group of a hash: MathUtils.murmurHash(hash) % max_parallelism. */
uint32_t key_group_of(int32_t key_hash, uint32_t max_parallelism);

/* The subtask that serves a key group: key_group * parallelism / max_parallelism. */
static inline uint32_t key_group_subtask(uint32_t key_group, uint32_t parallelism, uint32_t max_parallelism)
{
	return (uint32_t)((uint64_t)key_group * parallelism / max_parallelism);
}

#endif
