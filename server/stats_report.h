/*
 * A report: one description of what a command shows, written as text for people and grep, or as one line of JSON.
 *
 *   tree    text: a line per value, "slot.0.worker.frames 17 frames"; JSON: nested objects
 *   table   text: aligned columns under their names; JSON: an array of objects
 *
 * A table stands at the top or inside an object; all its rows have the same cells, in the same order.
 */
#ifndef SERVER_STATS_REPORT_H
#define SERVER_STATS_REPORT_H

#include "shared/counters.h"
#include "shared/json.h"

enum { REPORT_COLUMNS_MAX = 24, REPORT_COLUMN_BYTES = 32, REPORT_PATH_MAX = 512 };

struct report {
	FILE *out;
	bool as_json;
	struct json json;
	char path[REPORT_PATH_MAX]; /* text tree: "slot.0.worker." */
	/* The text table at hand. */
	bool in_table;
	char columns[REPORT_COLUMNS_MAX][REPORT_COLUMN_BYTES];
	char **cells;
	size_t column, column_count, cell_count, cell_capacity;
};

/* Starts and ends a report. */
void report_begin(struct report *report, FILE *out, bool as_json);
void report_end(struct report *report);

/* A branch of the tree. `key` NULL: an element of the list around it, named `label` in text. */
void report_open(struct report *report, const char *key, const char *label);
void report_close(struct report *report);
void report_open_list(struct report *report, const char *key);
void report_close_list(struct report *report);

/* A table, and its rows. */
void report_table(struct report *report, const char *key);
void report_row(struct report *report);
void report_row_end(struct report *report);
void report_table_end(struct report *report);

/* Values, in a branch or a row. JSON has plain numbers, so the name says the unit (`_bytes`, `_ns`); text shows sizes and times
 * as people read them, and leaves that end of the name out. */
void report_text(struct report *report, const char *key, const char *text); /* NULL: nothing */
void report_bool(struct report *report, const char *key, bool value);
void report_number(struct report *report, const char *key, uint64_t value, const char *unit);
void report_signed(struct report *report, const char *key, int64_t value);
void report_bytes(struct report *report, const char *key, uint64_t value);
void report_ns(struct report *report, const char *key, uint64_t value);
void report_none(struct report *report, const char *key);

/* A text that another process wrote, which may have no end. */
void report_outside(struct report *report, const char *key, const char text[64]);

/* A whole distribution: count, mean and quantiles. */
void report_histogram(struct report *report, const char *key, const struct histogram *histogram, const char *unit);

/* A line that only text shows. */
void report_line(struct report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
