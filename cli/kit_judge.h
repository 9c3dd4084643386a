/*
 * What a sink got, beside what was expected of it: aligned record by record, and shown as a diff.
 *
 *   sink "big": 1 of 2 records is not as expected (shop.test.yaml:14:9)
 *       {"user":"ada","score":240}
 *     - {"user":"bob","score":250}
 *     + {"user":"bob","score":260}
 *         .score: expected 250, got 260
 */
#ifndef CLI_KIT_JUDGE_H
#define CLI_KIT_JUDGE_H

#include <stdio.h>

#include "cli/kit_case.h"
#include "worker/run.h"

/* One line of the alignment: both, or one of them. */
struct kit_pair {
	const struct kit_record *expected, *actual;
	bool equal;
};

struct kit_verdict {
	const char *sink;
	const struct kit_outputs *outputs; /* NULL: nothing was expected */
	size_t actual_count;
	struct kit_pair *pairs; /* in the order of what is expected, with what came beside it */
	size_t count;
	size_t wrong; /* pairs that are not equal */
};

/* Compares what a sink got with what is expected; memory comes from the pool. */
struct kit_verdict kit_judge(struct pool *pool, const char *sink, const struct kit_outputs *outputs,
			     const struct kit_record *actual, size_t actual_count);

/* Prints the difference; nothing when there is none. */
void kit_verdict_print(const struct kit_verdict *verdict, const char *file, bool colour, FILE *out);

/* Prints a record in one line: the payload, and of the rest what `like` names (NULL: nothing). */
void kit_record_print(const struct kit_record *record, const struct kit_record *like, FILE *out);

#endif
