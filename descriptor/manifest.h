/*
 * The manifest of a segment: which states its steps keep, as the table of kinds (STEP_STATE in steps.def) and the segment have it.
 *
 * It goes with every checkpoint and is compared with that of the code that restores it: a state is known by (step, name), and its
 * kind, partition and version must be the same. The order is that of the steps, and within a step that of the table; a state's place
 * in it is the number that its entries carry.
 */
#ifndef DESCRIPTOR_MANIFEST_H
#define DESCRIPTOR_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "descriptor/descriptor.h"

/* What a state holds; worker/state.h says more. */
enum state_kind { STATE_VALUE, STATE_MAP, STATE_LIST, STATE_TIMERS, STATE_KIND_COUNT };

/* How a state is dealt out when the segment is rescaled. */
enum state_partition {
	STATE_BY_KEY, /* with its key group */
	STATE_SPLIT,  /* a list without keys: its elements are dealt out */
	STATE_UNION,  /* a list without keys: every subtask gets all elements */
	STATE_PARTITION_COUNT
};

/* One state: (step, name) is its identity over restarts, and kind, partition and version must match what is restored. */
struct state_spec {
	const char *step; /* names outlive whoever is handed them */
	const char *name;
	enum state_kind kind;
	enum state_partition partition;
	uint32_t version; /* of what the step writes into it, and STATE_VERSION_TTL more where there is a TTL */
	int64_t ttl_ms;   /* VALUE and MAP: dropped when not written for so long, by processing time; 0: kept */
};

/* Entries of a state with a TTL carry the time that they were written, so with and without are two formats. */
enum { STATE_VERSION_TTL = 1000 };

/* The states of a step: those that its kind has, or the pipeline declares for it (descriptor/declared.h); at most STEP_STATES_MAX. */
enum { STEP_STATES_MAX = 16 };
size_t step_state_count(const struct step_spec *step);

/* The state at a place among those, as the step has it in its segment. False when it has none there: the state is
 * one that only a segment with keys has. */
bool step_state(const struct segment *segment, const struct step_spec *step, size_t place, struct state_spec *spec);

/* What the table says of it, a sentence. */
const char *step_state_help(const struct step_spec *step, size_t place);

/* Whether a step can be only where records are partitioned by key, or only where they are not. */
bool step_needs_keys(const struct step_spec *step);
bool step_needs_no_keys(const struct step_spec *step);

/* The manifest of a segment: writes as many states as there is room for, and returns how many there are. */
size_t segment_manifest(const struct segment *segment, struct state_spec *states, size_t room);

/* Whether a descriptor says that a state of a checkpoint may be thrown away where it does not fit. */
bool descriptor_drops(const struct descriptor *descriptor, const char *step, const char *name);

/* The words for kinds and partitions. */
const char *state_kind_name(enum state_kind kind);
const char *state_partition_name(enum state_partition partition);

#endif
