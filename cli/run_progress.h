/*
 * What a run tells people: the progress line on a terminal, and the summary at the end, as text or as one JSON object.
 */
#ifndef CLI_RUN_PROGRESS_H
#define CLI_RUN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct run_graph;

/* How a run ended. */
enum run_end { RUN_FINISHED, RUN_INTERRUPTED, RUN_FAILED };

struct run_progress {
	bool shown; /* on a terminal, and wanted */
	uint64_t started_ns, shown_ns, shown_in, shown_out;
};

/* Starts counting time. `wanted`: the line is shown if standard error is a terminal. */
void run_progress_start(struct run_progress *progress, bool wanted);

/* Shows the line if it is time to; returns when it will be next (CLOCK_MONOTONIC ns; UINT64_MAX: never). */
uint64_t run_progress_show(struct run_progress *progress, const struct run_graph *graph);

/* Takes the line away, before anything else is printed. */
void run_progress_clear(void);

/* The summary. `failure`: why it failed, or NULL. */
void run_progress_summary(const struct run_progress *progress, const struct run_graph *graph, enum run_end end,
			  FILE *out);
void run_progress_summary_json(const struct run_progress *progress, const struct run_graph *graph, enum run_end end,
			       const char *failure, FILE *out);

#endif
