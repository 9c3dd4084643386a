/* What is said of test cases (kit_report.h). */
#include "cli/kit_report.h"

#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/log.h"
#include "shared/wire.h"

static const char *const status_names[KIT_STATUS_COUNT] = {
    [KIT_PASSED] = "passed", [KIT_FAILED] = "failed", [KIT_UPDATED] = "updated"};
static const char *const status_colours[KIT_STATUS_COUNT] = {
    [KIT_PASSED] = "\033[32m", [KIT_FAILED] = "\033[31m", [KIT_UPDATED] = "\033[33m"};

/* A copy of a text that may be NULL. */
static char *copy(const char *text)
{
	char *copied = text == NULL ? NULL : strdup(text);

	if (text != NULL && copied == NULL)
		fatal("no memory for a report");
	return copied;
}

void kit_results_add(struct kit_results *results, struct kit_result result)
{
	if (results->count == results->capacity) {
		results->capacity = results->capacity == 0 ? 64 : 2 * results->capacity;
		results->list = realloc(results->list, results->capacity * sizeof(*results->list));
		if (results->list == NULL)
			fatal("no memory for a report");
	}
	result.file = copy(result.file);
	result.name = copy(result.name);
	result.words = copy(result.words);
	results->list[results->count++] = result;
	results->by_status[result.status]++;
	results->seconds += result.seconds;
}

void kit_result_print(const struct kit_result *result, const char *words, bool colour, FILE *out)
{
	fprintf(out, "%s%-7s%s %s (%.0f ms)\n", colour ? status_colours[result->status] : "",
		status_names[result->status], colour ? "\033[0m" : "",
		result->name == NULL ? result->file : result->name, result->seconds * 1000);
	if (words != NULL)
		fputs(words, out);
}

void kit_results_print(const struct kit_results *results, bool colour, FILE *out)
{
	bool failed = results->by_status[KIT_FAILED] > 0;

	fprintf(out, "%s%zu passed, %zu failed", colour ? status_colours[failed ? KIT_FAILED : KIT_PASSED] : "",
		results->by_status[KIT_PASSED], results->by_status[KIT_FAILED]);
	if (results->by_status[KIT_UPDATED] > 0)
		fprintf(out, ", %zu updated", results->by_status[KIT_UPDATED]);
	fprintf(out, "%s (%.1f s)\n", colour ? "\033[0m" : "", results->seconds);
}

/* Writes text for XML: what its first version cannot hold at all becomes a question mark. */
static void put_xml(const char *text, FILE *out)
{
	char *clean = copy(text);

	utf8_repair(clean);
	for (const char *at = clean; *at != '\0'; at++) {
		unsigned char byte = (unsigned char)*at;
		if (byte == '&')
			fputs("&amp;", out);
		else if (byte == '<')
			fputs("&lt;", out);
		else if (byte == '>')
			fputs("&gt;", out);
		else if (byte == '"')
			fputs("&quot;", out);
		else
			putc(byte < 0x20 && byte != '\n' && byte != '\t' ? '?' : byte, out);
	}
	free(clean);
}

/* Writes one case. */
static void put_case(const struct kit_result *result, FILE *out)
{
	fputs("    <testcase classname=\"", out);
	put_xml(result->file, out);
	fputs("\" name=\"", out);
	put_xml(result->name == NULL ? "the file" : result->name, out);
	fprintf(out, "\" file=\"");
	put_xml(result->file, out);
	fprintf(out, "\" line=\"%zu\" time=\"%.3f\"", result->line, result->seconds);
	if (result->status != KIT_FAILED) {
		fputs("/>\n", out);
		return;
	}
	fputs(">\n      <failure message=\"not as expected\">", out);
	put_xml(result->words == NULL ? "" : result->words, out);
	fputs("</failure>\n    </testcase>\n", out);
}

/* The first result behind those of one file; *failed and *seconds are of that file's. */
static size_t suite_end(const struct kit_results *results, size_t first, size_t *failed, double *seconds)
{
	size_t end = first;

	*failed = 0;
	*seconds = 0;
	for (; end < results->count && strcmp(results->list[end].file, results->list[first].file) == 0; end++) {
		*failed += results->list[end].status == KIT_FAILED;
		*seconds += results->list[end].seconds;
	}
	return end;
}

void kit_results_junit(const struct kit_results *results, FILE *out)
{
	fprintf(out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"bridgectl test\" tests=\"%zu\" "
		"failures=\"%zu\" errors=\"0\" time=\"%.3f\">\n",
		results->count, results->by_status[KIT_FAILED], results->seconds);
	for (size_t first = 0, end; first < results->count; first = end) {
		size_t failed;
		double seconds;
		end = suite_end(results, first, &failed, &seconds);
		fputs("  <testsuite name=\"", out);
		put_xml(results->list[first].file, out);
		fprintf(out, "\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"0\" time=\"%.3f\">\n",
			end - first, failed, seconds);
		for (size_t i = first; i < end; i++)
			put_case(&results->list[i], out);
		fputs("  </testsuite>\n", out);
	}
	fputs("</testsuites>\n", out);
}

void kit_results_json(const struct kit_results *results, FILE *out)
{
	struct json json;

	json_init(&json, out);
	json_open_object(&json, NULL);
	for (int status = 0; status < KIT_STATUS_COUNT; status++)
		json_unsigned(&json, status_names[status], results->by_status[status]);
	json_real(&json, "seconds", results->seconds);
	json_open_array(&json, "cases");
	for (size_t i = 0; i < results->count; i++) {
		const struct kit_result *result = &results->list[i];
		json_open_object(&json, NULL);
		json_text(&json, "file", result->file);
		json_unsigned(&json, "line", result->line);
		json_text(&json, "name", result->name);
		json_text(&json, "status", status_names[result->status]);
		json_real(&json, "seconds", result->seconds);
		json_text(&json, "failure", result->words);
		json_close_object(&json);
	}
	json_close_array(&json);
	json_close_object(&json);
	putc('\n', out);
}

void kit_results_free(struct kit_results *results)
{
	for (size_t i = 0; i < results->count; i++) {
		free((void *)(uintptr_t)results->list[i].file);
		free((void *)(uintptr_t)results->list[i].name);
		free(results->list[i].words);
	}
	free(results->list);
	*results = (struct kit_results){0};
}
