/*
 * Key hash and key group. The second must agree with Flink to the bit: it decides which subtask a record goes to and
 * where its state is found after a rescale.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "shared/keygroup.h"
#include "shared/log.h"

/* Turns a word left by some bits (1 to 31). */
static uint32_t rotate_left(uint32_t word, unsigned bits)
{
	return word << bits | word >> (32 - bits);
}

/* MurmurHash3 (32 bits, seed 0) of one four-byte word, as Flink's MathUtils has it; never negative. */
static uint32_t murmur_hash(uint32_t code)
{
	code *= 0xcc9e2d51;
	code = rotate_left(code, 15);
	code *= 0x1b873593;
	code = rotate_left(code, 13);
	code = code * 5 + 0xe6546b64;

	code ^= 4; /* the length of the input */
	code ^= code >> 16;
	code *= 0x85ebca6b;
	code ^= code >> 13;
	code *= 0xc2b2ae35;
	code ^= code >> 16;

	/* Java takes the absolute value, and 0 for the one int that has none. No branch: nobody could guess the sign of a hash. */
	uint32_t sign = 0 - (code >> 31);
	return ((code ^ sign) - sign) & INT32_MAX;
}

int32_t key_hash_of(struct view key)
{
	/* XXH3 wants a pointer even to nothing. */
	return (int32_t)(uint32_t)XXH3_64bits(key.size > 0 ? key.data : (const uint8_t *)"", key.size);
}

uint32_t key_group_of(int32_t key_hash, uint32_t max_parallelism)
{
	uint32_t hash = murmur_hash((uint32_t)key_hash);

	CHECK(max_parallelism > 0);
	/* Most are a power of two, as Flink's own default is, and dividing takes as long as all the rest. */
	return (max_parallelism & (max_parallelism - 1)) == 0 ? hash & (max_parallelism - 1) : hash % max_parallelism;
}
