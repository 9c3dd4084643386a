/* The topology hash of a descriptor, and the descriptor's memory. Used inside descriptor/ alone. */
#ifndef DESCRIPTOR_TOPOLOGY_H
#define DESCRIPTOR_TOPOLOGY_H

#include "descriptor/descriptor.h"
#include "descriptor/pool.h"

/* A descriptor with the memory that everything in it lives in. */
struct descriptor_owner {
	struct descriptor descriptor; /* first: what callers hold */
	struct pool pool;
};

/* An empty one. */
struct descriptor_owner *descriptor_owner_create(void);

/* XXH3-128 in hex over what both sides of a session must agree on: names, inputs, keys, routes, max parallelism. */
void topology_hash(const struct descriptor *descriptor, char hash[33]);

#endif
