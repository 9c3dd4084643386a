/* What `bridgectl test` says of its cases: to people, as JUnit XML, as JSON. */
#ifndef CLI_KIT_REPORT_H
#define CLI_KIT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum kit_status { KIT_PASSED, KIT_FAILED, KIT_UPDATED, KIT_STATUS_COUNT };

/* One case that was run; or a file that could not be read, whose case has no name. */
struct kit_result {
	const char *file, *name; /* owned by whoever lists them, longer than this */
	size_t line;
	enum kit_status status;
	double seconds;
	char *words; /* why it failed; owned. NULL: it has not */
};

struct kit_results {
	struct kit_result *list;
	size_t count, capacity;
	size_t by_status[KIT_STATUS_COUNT];
	double seconds;
};

/* Adds one; its texts are copied. */
void kit_results_add(struct kit_results *results, struct kit_result result);

/* Prints one as a line and, if it failed, why; and all of them as a line of numbers. */
void kit_result_print(const struct kit_result *result, const char *words, bool colour, FILE *out);
void kit_results_print(const struct kit_results *results, bool colour, FILE *out);

/* Writes them all as JUnit XML, a suite for each file; as one JSON object. */
void kit_results_junit(const struct kit_results *results, FILE *out);
void kit_results_json(const struct kit_results *results, FILE *out);

void kit_results_free(struct kit_results *results);

#endif
