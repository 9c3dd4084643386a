/*
 * The memory budget: what the sidecar may come to use at the most, line by line, against what it may have: the flag
 * --memory-limit, the container's limit, or the machine's memory. Checked at start and printed by --check.
 */
#ifndef SERVER_BUDGET_H
#define SERVER_BUDGET_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "descriptor/descriptor.h"
#include "server/config.h"

struct json;

enum { BUDGET_LINES_MAX = 13, BUDGET_FROM_MAX = 256 };

struct budget_line {
	const char *name;
	uint64_t count;
	uint64_t each; /* bytes */
	bool per_slot; /* grows with --slots */
};

struct budget {
	struct budget_line lines[BUDGET_LINES_MAX];
	uint32_t count;
	uint64_t total;             /* bytes */
	uint64_t limit;             /* bytes; 0: none found */
	char from[BUDGET_FROM_MAX]; /* where the limit was found */
};

/* Adds everything up. */
void budget_compute(struct budget *budget, const struct config *config, const struct descriptor *descriptor);

/* Finds the limit: the flag's, or the lowest of those in the cgroups above this process and the machine's memory.
 * `root` is put before every path that is read ("" but in tests). */
void budget_find_limit(struct budget *budget, const struct config *config, const char *root);

/* The path of a file of this process's own memory cgroup, version 2 or 1. False where there is none. */
bool budget_cgroup_file(const char *root, bool v2, const char *file, char *path, size_t size);

/* Lowers the state memory that nobody asked for by name to what fits, down to STATE_MEMORY_MIN. */
void budget_fit_state(struct budget *budget, struct config *config, const struct descriptor *descriptor);

/* Whether it fits; if not a finding says which flags to lower, and to what. */
bool budget_check(const struct budget *budget, const struct config *config, struct findings *findings);

/* The table, for people and as an object under a key. */
void budget_print(const struct budget *budget, FILE *out);
void budget_json(const struct budget *budget, const char *key, struct json *json);

#endif
