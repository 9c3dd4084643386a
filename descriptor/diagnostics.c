/*
 * Findings (diagnostics.h): collected, then printed in the order of their places, as text or as JSON.
 *
 * Everything a finding holds is copied and cleaned when it is added: one line, valid UTF-8, nothing that a terminal would
 * take as a command. An excerpt is cut to a window around its place, so that a file of one long line stays readable.
 */
#include "descriptor/diagnostics.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/log.h"
#include "shared/suggest.h"
#include "shared/wire.h"

enum { EXCERPT_BEFORE = 80, EXCERPT_MAX = 120, MESSAGE_MAX = 2048 };

void diagnostics_init(struct diagnostics *diagnostics)
{
	*diagnostics = (struct diagnostics){0};
}

void diagnostics_free(struct diagnostics *diagnostics)
{
	for (size_t i = 0; i < diagnostics->count; i++) {
		struct finding *finding = &diagnostics->findings[i];
		free((char *)finding->where.file);
		free(finding->message);
		free(finding->excerpt);
		free(finding->expected);
		free(finding->hint);
	}
	free(diagnostics->findings);
	diagnostics_init(diagnostics);
}

/* Length of the well-formed UTF-8 character at the start of some bytes, or 0. */
static size_t character_length(const uint8_t *at, size_t size)
{
	size_t length = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;

	return length <= size && utf8_valid((struct view){at, length}) ? length : 0;
}

/* Whether a character is one that a terminal might obey: C0, DEL or C1. */
static bool is_control(const uint8_t *at, size_t length)
{
	return (length == 1 && (at[0] < 0x20 || at[0] == 0x7f)) || (length == 2 && at[0] == 0xc2 && at[1] < 0xa0);
}

/* A copy of some bytes fit to be shown on one line: one character for each. */
static char *clean_copy(const uint8_t *bytes, size_t size)
{
	char *copy = malloc(3 * size + 1), *to = copy;

	if (copy == NULL)
		fatal("no memory for a message");
	for (size_t i = 0; i < size;) {
		size_t length = character_length(bytes + i, size - i);
		if (length == 0) {
			memcpy(to, "\xef\xbf\xbd", 3); /* U+FFFD */
			to += 3;
		} else if (is_control(bytes + i, length)) {
			*to++ = ' ';
		} else {
			memcpy(to, bytes + i, length);
			to += length;
		}
		i += length == 0 ? 1 : length;
	}
	*to = '\0';
	return copy;
}

/* Formats, cuts and cleans a message. */
static char *__attribute__((format(printf, 1, 0))) clean_format(const char *format, va_list arguments)
{
	char text[MESSAGE_MAX];
	int length = vsnprintf(text, sizeof(text), format, arguments);

	CHECK(length >= 0);
	if ((size_t)length >= sizeof(text)) {
		memcpy(text + sizeof(text) - 4, "...", 4);
		length = sizeof(text) - 1;
	}
	return clean_copy((const uint8_t *)text, (size_t)length);
}

struct finding *diagnostics_add(struct diagnostics *diagnostics, struct place where, const char *format, ...)
{
	if (diagnostics->count == DIAGNOSTICS_MAX) {
		diagnostics->dropped++;
		return NULL;
	}
	if (diagnostics->count == diagnostics->capacity) {
		diagnostics->capacity = diagnostics->capacity == 0 ? 8 : 2 * diagnostics->capacity;
		diagnostics->findings =
		    realloc(diagnostics->findings, diagnostics->capacity * sizeof(*diagnostics->findings));
		if (diagnostics->findings == NULL)
			fatal("no memory for a message");
	}
	struct finding *finding = &diagnostics->findings[diagnostics->count++];
	*finding = (struct finding){.where = where};
	finding->where.file = clean_copy((const uint8_t *)where.file, strlen(where.file));
	va_list arguments;
	va_start(arguments, format);
	finding->message = clean_format(format, arguments);
	va_end(arguments);
	return finding;
}

void finding_expected(struct finding *finding, const char *format, ...)
{
	if (finding == NULL)
		return;
	va_list arguments;
	va_start(arguments, format);
	free(finding->expected);
	finding->expected = clean_format(format, arguments);
	va_end(arguments);
}

void finding_hint(struct finding *finding, const char *format, ...)
{
	if (finding == NULL)
		return;
	va_list arguments;
	va_start(arguments, format);
	free(finding->hint);
	finding->hint = clean_format(format, arguments);
	va_end(arguments);
}

void finding_suggest(struct finding *finding, const char *word, const char *const *names, size_t count)
{
	const char *nearest = finding == NULL ? NULL : suggest_nearest(word, names, count);

	if (nearest != NULL)
		finding_hint(finding, "did you mean \"%s\"?", nearest);
}

size_t line_break_at(struct view text, size_t at)
{
	const uint8_t *bytes = text.data + at;
	size_t left = text.size - at;

	switch (bytes[0]) {
	case '\n':
		return 1;
	case '\r':
		return left >= 2 && bytes[1] == '\n' ? 2 : 1;
	case 0xc2:
		return left >= 2 && bytes[1] == 0x85 ? 2 : 0;
	case 0xe2:
		return left >= 3 && bytes[1] == 0x80 && (bytes[2] == 0xa8 || bytes[2] == 0xa9) ? 3 : 0;
	}
	return 0;
}

struct view line_of(struct view text, size_t line, size_t *ending)
{
	size_t start = 0, at = 0;

	*ending = 0;
	while (at < text.size) {
		size_t length = line_break_at(text, at);
		if (length > 0 && --line == 0) {
			*ending = length;
			break;
		}
		at += length > 0 ? length : 1;
		start = length > 0 ? at : start;
	}
	if (*ending == 0 && line > 1)
		start = at;
	return (struct view){text.data + start, at - start};
}

/* Bytes of the next character, a stray byte being one. */
static size_t character_step(struct view text, size_t at)
{
	size_t length = character_length(text.data + at, text.size - at);

	return length > 0 ? length : 1;
}

struct place place_of(const char *file, struct view text, size_t offset)
{
	struct place place = {file, 1, 1};

	for (size_t at = 0; at < offset && at < text.size;) {
		size_t length = line_break_at(text, at);
		place.line += length > 0;
		place.column = length > 0 ? 1 : place.column + 1;
		at += length > 0 ? length : character_step(text, at);
	}
	return place;
}

void finding_show(struct finding *finding, struct view text, size_t width)
{
	if (finding == NULL || finding->where.line == 0)
		return;
	size_t ending;
	struct view line = line_of(text, finding->where.line, &ending);
	size_t skip = finding->where.column > EXCERPT_BEFORE ? finding->where.column - EXCERPT_BEFORE : 0;
	size_t start = 0, characters = 0;

	for (; characters < skip && start < line.size; characters++)
		start += character_step(line, start);
	finding->indent = finding->where.column - 1 - (characters < finding->where.column ? characters : 0);
	size_t end = start, shown = 0;
	for (; shown < EXCERPT_MAX && end < line.size; shown++)
		end += character_step(line, end);
	size_t room = shown > finding->indent ? shown - finding->indent : 1;
	finding->width = width == 0 ? 1 : width > room ? room : width;
	free(finding->excerpt);
	finding->excerpt = clean_copy(line.data + start, end - start);
}

/* Findings by file (in the order in which files first appear), line, column and age. */
struct sorted {
	const struct finding *finding;
	size_t file, age;
};

/* qsort's order of findings. */
static int sorted_compare(const void *left, const void *right)
{
	const struct sorted *a = left, *b = right;
	const struct place *p = &a->finding->where, *q = &b->finding->where;

	if (a->file != b->file)
		return a->file < b->file ? -1 : 1;
	if (p->line != q->line)
		return p->line < q->line ? -1 : 1;
	if (p->column != q->column)
		return p->column < q->column ? -1 : 1;
	return a->age < b->age ? -1 : 1;
}

/* Puts all findings into the order in which they are shown. */
static void findings_sort(const struct diagnostics *diagnostics, struct sorted *sorted)
{
	for (size_t i = 0; i < diagnostics->count; i++) {
		size_t first = 0;
		while (strcmp(diagnostics->findings[first].where.file, diagnostics->findings[i].where.file) != 0)
			first++;
		sorted[i] = (struct sorted){&diagnostics->findings[i], first, i};
	}
	if (diagnostics->count > 1)
		qsort(sorted, diagnostics->count, sizeof(*sorted), sorted_compare);
}

/* Prints the line that a finding is about and underlines the place. */
static void excerpt_print(const struct finding *finding, FILE *out, bool colour)
{
	fprintf(out, "%6zu | %s\n       | %*s%s", finding->where.line, finding->excerpt, (int)finding->indent, "",
		colour ? "\033[1;31m" : "");
	for (size_t i = 0; i < finding->width; i++)
		fputc('^', out);
	fprintf(out, "%s\n", colour ? "\033[0m" : "");
}

/* Prints one finding. */
static void finding_print(const struct finding *finding, FILE *out, bool colour)
{
	fprintf(out, "%s%s", colour ? "\033[1m" : "", finding->where.file);
	if (finding->where.line > 0)
		fprintf(out, ":%zu:%zu", finding->where.line, finding->where.column);
	fprintf(out, "%s: %serror:%s %s\n", colour ? "\033[0m" : "", colour ? "\033[1;31m" : "",
		colour ? "\033[0m" : "", finding->message);
	if (finding->excerpt != NULL)
		excerpt_print(finding, out, colour);
	if (finding->expected != NULL)
		fprintf(out, "  expected %s\n", finding->expected);
	if (finding->hint != NULL)
		fprintf(out, "  hint: %s\n", finding->hint);
}

void diagnostics_print(const struct diagnostics *diagnostics, FILE *out, bool colour)
{
	struct sorted sorted[DIAGNOSTICS_MAX];
	size_t all = diagnostics->count + diagnostics->dropped;

	findings_sort(diagnostics, sorted);
	for (size_t i = 0; i < diagnostics->count; i++)
		finding_print(sorted[i].finding, out, colour);
	if (diagnostics->dropped > 0)
		fprintf(out, "%zu errors, of which the first %zu found are shown\n", all, diagnostics->count);
	else if (all > 0)
		fprintf(out, "%zu error%s\n", all, all == 1 ? "" : "s");
}

void diagnostics_print_json(const struct diagnostics *diagnostics, FILE *out)
{
	struct sorted sorted[DIAGNOSTICS_MAX];
	struct json json;

	findings_sort(diagnostics, sorted);
	json_init(&json, out);
	json_open_array(&json, NULL);
	for (size_t i = 0; i < diagnostics->count; i++) {
		const struct finding *finding = sorted[i].finding;
		json_open_object(&json, NULL);
		json_text(&json, "file", finding->where.file);
		json_unsigned(&json, "line", finding->where.line);
		json_unsigned(&json, "column", finding->where.column);
		json_text(&json, "message", finding->message);
		json_text(&json, "expected", finding->expected);
		json_text(&json, "hint", finding->hint);
		json_close_object(&json);
	}
	json_close_array(&json);
	fputc('\n', out);
}
