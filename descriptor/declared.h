/*
 * States that a pipeline declares for a step of its own code:
 *
 *      state: { total: value, seen: map ttl 1h, due: timers version 2, offsets: split }
 *
 * value, map, list and timers are kept by key; split and union are lists of a segment without keys.
 */
#ifndef DESCRIPTOR_DECLARED_H
#define DESCRIPTOR_DECLARED_H

#include "descriptor/manifest.h"

/* What can stand there, for messages. */
#define STATE_DECLARATION                                                                                              \
	"value, map, list, timers, split or union, and behind it, if wanted, `ttl DURATION` (of a value or map) and "  \
	"`version NUMBER`"

struct declaration {
	enum state_kind kind;
	enum state_partition partition;
	uint32_t version; /* 1 without one */
	int64_t ttl_ms;   /* 0: kept for good */
};

/* Reads what is said of one state. False when it cannot be that. */
bool declaration_parse(const char *text, struct declaration *declaration);

#endif
