/*
 * Reports (stats_report.h). JSON is written as it comes. Text of a tree is written as it comes, with the path of branches
 * before each value; text of a table is kept until the table ends, because the widths are known only then.
 */
#include "server/stats_report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "shared/units.h"

void report_begin(struct report *report, FILE *out, bool as_json)
{
	*report = (struct report){.out = out, .as_json = as_json};
	json_init(&report->json, out);
	if (as_json)
		json_open_object(&report->json, NULL);
}

void report_end(struct report *report)
{
	CHECK(report->path[0] == '\0' && !report->in_table);
	if (report->as_json)
		json_close_object(&report->json);
	putc('\n', report->out);
}

/* ---- Tree ---- */

/* Appends a branch to the path. */
static void path_push(struct report *report, const char *name)
{
	size_t length = strlen(report->path);

	CHECK(length + strlen(name) + 2 < REPORT_PATH_MAX);
	snprintf(report->path + length, REPORT_PATH_MAX - length, "%s.", name);
}

/* Takes the last branch off; names hold no dots (path_name). */
static void path_pop(struct report *report)
{
	char *path = report->path;
	size_t length = strlen(path);

	CHECK(length > 0);
	path[length - 1] = '\0';
	char *dot = strrchr(path, '.');
	*(dot == NULL ? path : dot + 1) = '\0';
}

/* A name as part of a path: short, and without what would break a line or the path itself. */
static void path_name(const char *name, char text[64])
{
	size_t used = 0;

	for (; *name != '\0' && used < 63; name++)
		text[used++] = (unsigned char)*name <= ' ' || *name == '.' || *name == 0x7f ? '_' : *name;
	text[used] = '\0';
}

void report_open(struct report *report, const char *key, const char *label)
{
	char name[64];

	if (report->as_json) {
		json_open_object(&report->json, key);
		return;
	}
	path_name(label != NULL ? label : key, name);
	path_push(report, name);
}

void report_close(struct report *report)
{
	if (report->as_json)
		json_close_object(&report->json);
	else
		path_pop(report);
}

void report_open_list(struct report *report, const char *key)
{
	if (report->as_json)
		json_open_array(&report->json, key);
	else
		path_push(report, key);
}

void report_close_list(struct report *report)
{
	if (report->as_json)
		json_close_array(&report->json);
	else
		path_pop(report);
}

/* ---- Table ---- */

void report_table(struct report *report, const char *key)
{
	report->in_table = true;
	report->column_count = report->cell_count = report->column = 0;
	if (report->as_json)
		json_open_array(&report->json, key);
}

void report_row(struct report *report)
{
	report->column = 0;
	if (report->as_json)
		json_open_object(&report->json, NULL);
}

void report_row_end(struct report *report)
{
	if (report->as_json)
		json_close_object(&report->json);
	else
		CHECK(report->column == report->column_count);
}

/* A copy of a cell's text without anything that would break the line. */
static char *clean_cell(const char *text)
{
	char *cell = strdup(text[0] == '\0' ? "-" : text);

	if (cell == NULL)
		fatal("no memory for a report");
	for (char *at = cell; *at != '\0'; at++) {
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
	}
	return cell;
}

/* Keeps a cell of the text table. */
static void add_cell(struct report *report, const char *key, const char *text)
{
	CHECK(report->column < REPORT_COLUMNS_MAX);
	if (report->column == report->column_count)
		snprintf(report->columns[report->column_count++], REPORT_COLUMN_BYTES, "%s", key);
	if (report->cell_count == report->cell_capacity) {
		report->cell_capacity = report->cell_capacity == 0 ? 64 : 2 * report->cell_capacity;
		report->cells = realloc(report->cells, report->cell_capacity * sizeof(*report->cells));
		if (report->cells == NULL)
			fatal("no memory for a report");
	}
	report->cells[report->cell_count++] = clean_cell(text);
	report->column++;
}

/* Prints one cell of a line, the last one without padding. */
static void print_cell(const struct report *report, size_t column, const char *text, size_t width)
{
	bool last = column + 1 == report->column_count;

	fprintf(report->out, "%s%-*s%s", column == 0 ? "" : "  ", last ? 0 : (int)width, text, last ? "\n" : "");
}

/* Prints the table. */
static void print_table(struct report *report)
{
	size_t widths[REPORT_COLUMNS_MAX] = {0}, columns = report->column_count;

	CHECK(columns > 0);
	for (size_t i = 0; i < columns; i++)
		widths[i] = strlen(report->columns[i]);
	for (size_t i = 0; i < report->cell_count; i++) {
		size_t length = strlen(report->cells[i]), *width = &widths[i % columns];
		*width = length > *width ? length : *width;
	}
	for (size_t i = 0; i < columns; i++)
		print_cell(report, i, report->columns[i], widths[i]);
	for (size_t i = 0; i < report->cell_count; i++)
		print_cell(report, i % columns, report->cells[i], widths[i % columns]);
}

void report_table_end(struct report *report)
{
	report->in_table = false;
	if (report->as_json) {
		json_close_array(&report->json);
		return;
	}
	if (report->cell_count == 0)
		fputs("none\n", report->out);
	else
		print_table(report);
	for (size_t i = 0; i < report->cell_count; i++)
		free(report->cells[i]);
	free(report->cells);
	report->cells = NULL;
	report->cell_count = report->cell_capacity = 0;
}

/* ---- Values ---- */

/* Writes a value of the text form: a cell, or a line of the tree. */
static void put_text(struct report *report, const char *key, const char *text, const char *unit)
{
	if (report->in_table) {
		add_cell(report, key, text);
		return;
	}
	char *clean = clean_cell(text);
	fprintf(report->out, "%s%s %s%s%s\n", report->path, key, clean, unit[0] == '\0' ? "" : " ", unit);
	free(clean);
}

void report_text(struct report *report, const char *key, const char *text)
{
	if (report->as_json)
		json_text(&report->json, key, text);
	else
		put_text(report, key, text == NULL ? "-" : text, "");
}

void report_outside(struct report *report, const char *key, const char text[64])
{
	char copy[65];

	memcpy(copy, text, 64);
	copy[64] = '\0';
	report_text(report, key, copy);
}

void report_bool(struct report *report, const char *key, bool value)
{
	if (report->as_json)
		json_bool(&report->json, key, value);
	else
		put_text(report, key, value ? "yes" : "no", "");
}

void report_none(struct report *report, const char *key)
{
	if (report->as_json)
		json_null(&report->json, key);
	else
		put_text(report, key, "-", "");
}

void report_number(struct report *report, const char *key, uint64_t value, const char *unit)
{
	char text[32];

	if (report->as_json) {
		json_unsigned(&report->json, key, value);
		return;
	}
	snprintf(text, sizeof(text), "%" PRIu64, value);
	put_text(report, key, text, unit);
}

void report_signed(struct report *report, const char *key, int64_t value)
{
	char text[32];

	if (report->as_json) {
		json_signed(&report->json, key, value);
		return;
	}
	snprintf(text, sizeof(text), "%" PRId64, value);
	put_text(report, key, text, "");
}

/* Writes a value that carries its unit itself, under its name without that unit at the end. */
static void put_rounded(struct report *report, const char *key, const char *suffix, const char *text)
{
	char name[64];
	size_t length = strlen(key), end = strlen(suffix);

	bool ends = length > end && strcmp(key + length - end, suffix) == 0;
	snprintf(name, sizeof(name), "%.*s", (int)(ends ? length - end : length), key);
	put_text(report, name, text, "");
}

void report_bytes(struct report *report, const char *key, uint64_t value)
{
	char text[UNITS_TEXT_MAX];

	if (report->as_json)
		json_unsigned(&report->json, key, value);
	else
		put_rounded(report, key, "_bytes", size_rounded(text, value));
}

void report_ns(struct report *report, const char *key, uint64_t value)
{
	char text[UNITS_TEXT_MAX];

	if (report->as_json)
		json_unsigned(&report->json, key, value);
	else
		put_rounded(report, key, "_ns", duration_rounded(text, value));
}

void report_histogram(struct report *report, const char *key, const struct histogram *histogram, const char *unit)
{
	uint64_t count = counter_read(&histogram->count);

	report_open(report, key, NULL);
	report_number(report, "count", count, "");
	report_number(report, "mean", count == 0 ? 0 : counter_read(&histogram->sum) / count, unit);
	report_number(report, "p50", histogram_quantile(histogram, 0.5), unit);
	report_number(report, "p90", histogram_quantile(histogram, 0.9), unit);
	report_number(report, "p99", histogram_quantile(histogram, 0.99), unit);
	report_number(report, "max", histogram_quantile(histogram, 1.0), unit);
	report_close(report);
}

void report_line(struct report *report, const char *format, ...)
{
	va_list arguments;

	if (report->as_json)
		return;
	va_start(arguments, format);
	vfprintf(report->out, format, arguments);
	va_end(arguments);
	putc('\n', report->out);
}
