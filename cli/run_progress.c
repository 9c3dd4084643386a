/*
 * Progress and summary of a run (run_progress.h). Colour and the moving line are for terminals alone.
 */
#include "cli/run_progress.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/run_checkpoint.h"
#include "cli/run_graph.h"
#include "shared/control.h"
#include "shared/json.h"
#include "shared/units.h"

#define INTERVAL_NS UINT64_C(500000000)

/* Whether the line is on the screen just now. One screen, one line. */
static bool line_is_shown;

void run_progress_start(struct run_progress *progress, bool wanted)
{
	*progress = (struct run_progress){.started_ns = clock_ns()};
	progress->shown = wanted && isatty(STDERR_FILENO);
	progress->shown_ns = progress->started_ns;
}

/* A number with its thousands apart. */
static const char *count_text(uint64_t value, char text[32])
{
	char digits[24];
	int size = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	char *to = text;
	for (int i = 0; i < size; i++) {
		if (i > 0 && (size - i) % 3 == 0)
			*to++ = ',';
		*to++ = digits[i];
	}
	*to = '\0';
	return text;
}

/* So many in so long, per second. */
static uint64_t rate(uint64_t count, uint64_t ns)
{
	return ns == 0 ? 0 : (uint64_t)((double)count * 1e9 / (double)ns);
}

/* What the progress line says of checkpoints; nothing without them. */
static const char *checkpoint_text(const struct run_graph *graph, char text[64])
{
	const struct run_checkpoint *checkpoint = graph->checkpoint;
	char duration[UNITS_TEXT_MAX];
	text[0] = '\0';
	if (checkpoint != NULL && checkpoint->count > 0)
		snprintf(text, 64, "  checkpoint %llu (%s)",
			 (unsigned long long)(checkpoint->id - checkpoint->under_way),
			 duration_rounded(duration, checkpoint->last_ns));
	return text;
}

uint64_t run_progress_show(struct run_progress *progress, const struct run_graph *graph)
{
	if (!progress->shown)
		return UINT64_MAX;
	uint64_t now = clock_ns();
	if (now < progress->shown_ns + INTERVAL_NS)
		return progress->shown_ns + INTERVAL_NS;
	char in[32], out[32], in_rate[32], out_rate[32], checkpoint[64];
	const char *bold = getenv("NO_COLOR") == NULL ? "\033[1m" : "", *plain = bold[0] != '\0' ? "\033[0m" : "";
	fprintf(stderr, "\r\033[K%s%s%s in (%s/s)  %s%s%s out (%s/s)%s  %llu s", bold,
		count_text(graph->records_in, in), plain,
		count_text(rate(graph->records_in - progress->shown_in, now - progress->shown_ns), in_rate), bold,
		count_text(graph->records_out, out), plain,
		count_text(rate(graph->records_out - progress->shown_out, now - progress->shown_ns), out_rate),
		checkpoint_text(graph, checkpoint), (unsigned long long)((now - progress->started_ns) / 1000000000));
	fflush(stderr);
	line_is_shown = true;
	progress->shown_ns = now;
	progress->shown_in = graph->records_in;
	progress->shown_out = graph->records_out;
	return now + INTERVAL_NS;
}

void run_progress_clear(void)
{
	if (line_is_shown)
		fprintf(stderr, "\r\033[K");
	line_is_shown = false;
}

/* ---- The summary ---- */

static const char *const end_names[] = {
    [RUN_FINISHED] = "finished", [RUN_INTERRUPTED] = "interrupted", [RUN_FAILED] = "failed"};

/* Where a source reads, for people. */
static const char *source_place(const struct source_reader *reader)
{
	if (reader->source.kind == SOURCE_GENERATOR)
		return "generator";
	return strcmp(reader->source.path, "-") == 0 ? "standard input" : reader->source.path;
}

/* Where a sink writes, for people. */
static const char *sink_place(const struct sink_writer *writer)
{
	if (writer->sink.kind == SINK_DISCARD)
		return "discarded";
	if (writer->sink.kind == SINK_PRINT || strcmp(writer->sink.path, "-") == 0)
		return "standard output";
	return writer->sink.path;
}

/* The width of the longest name. */
static int name_width(const struct descriptor *descriptor)
{
	size_t width = 0;
	for (size_t i = 0; i < descriptor->source_count; i++)
		width = strlen(descriptor->sources[i].name) > width ? strlen(descriptor->sources[i].name) : width;
	for (size_t i = 0; i < descriptor->segment_count; i++)
		width = strlen(descriptor->segments[i].name) > width ? strlen(descriptor->segments[i].name) : width;
	for (size_t i = 0; i < descriptor->sink_count; i++)
		width = strlen(descriptor->sinks[i].name) > width ? strlen(descriptor->sinks[i].name) : width;
	return width > 40 ? 40 : (int)width;
}

/* The line about checkpoints. */
static void summary_checkpoint(const struct run_checkpoint *checkpoint, FILE *out)
{
	char a[32], last[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX], size[UNITS_TEXT_MAX];
	fprintf(out, "checkpoints  %s made, the last one is %llu", count_text(checkpoint->count, a),
		(unsigned long long)(checkpoint->id - checkpoint->under_way));
	if (checkpoint->count > 0)
		fprintf(out, ": %s (longest %s)", duration_rounded(last, checkpoint->last_ns),
			duration_rounded(most, checkpoint->most_ns));
	fprintf(out, ", %s in %s\n", size_rounded(size, run_store_bytes(checkpoint->store)), checkpoint->path);
}

void run_progress_summary(const struct run_progress *progress, const struct run_graph *graph, enum run_end end,
			  FILE *out)
{
	const struct descriptor *descriptor = graph->descriptor;
	uint64_t took = clock_ns() - progress->started_ns;
	int width = name_width(descriptor);
	char a[32], b[32], c[32], size[UNITS_TEXT_MAX];
	for (size_t i = 0; i < descriptor->source_count; i++) {
		const struct source_reader *reader = &graph->sources[i];
		fprintf(out, "source   %-*s  %12s records  %10s  %s\n", width, reader->source.name,
			count_text(reader->records, a), size_rounded(size, reader->bytes), source_place(reader));
	}
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		const struct stage *stage = &graph->stages[i];
		fprintf(out, "segment  %-*s  %12s in  %12s out  %s batches, %u subtask%s\n", width,
			stage->segment->name, count_text(stage->records_in, a), count_text(stage->records_out, b),
			count_text(stage->batches, c), stage->segment->parallelism,
			stage->segment->parallelism == 1 ? "" : "s");
	}
	for (size_t i = 0; i < descriptor->sink_count; i++) {
		const struct sink_writer *writer = &graph->sinks[i];
		fprintf(out, "sink     %-*s  %12s records  %10s  %s\n", width, writer->sink.name,
			count_text(writer->records, a), size_rounded(size, writer->bytes), sink_place(writer));
	}
	if (graph->checkpoint != NULL)
		summary_checkpoint(graph->checkpoint, out);
	fprintf(out, "%s: %s records in, %s out, %.2f s, %s records/s\n", end_names[end],
		count_text(graph->records_in, a), count_text(graph->records_out, b), (double)took / 1e9,
		count_text(rate(graph->records_in, took), c));
}

/* The sources of the JSON summary. */
static void json_sources(struct json *json, const struct run_graph *graph)
{
	json_open_array(json, "sources");
	for (size_t i = 0; i < graph->descriptor->source_count; i++) {
		const struct source_reader *reader = &graph->sources[i];
		json_open_object(json, NULL);
		json_text(json, "name", reader->source.name);
		json_text(json, "place", source_place(reader));
		json_unsigned(json, "records", reader->records);
		json_unsigned(json, "bytes", reader->bytes);
		json_close_object(json);
	}
	json_close_array(json);
}

/* The segments of the JSON summary. */
static void json_segments(struct json *json, const struct run_graph *graph)
{
	json_open_array(json, "segments");
	for (size_t i = 0; i < graph->descriptor->segment_count; i++) {
		const struct stage *stage = &graph->stages[i];
		json_open_object(json, NULL);
		json_unsigned(json, "id", stage->segment->id);
		json_text(json, "name", stage->segment->name);
		json_unsigned(json, "parallelism", stage->segment->parallelism);
		json_unsigned(json, "records_in", stage->records_in);
		json_unsigned(json, "records_out", stage->records_out);
		json_unsigned(json, "batches", stage->batches);
		json_close_object(json);
	}
	json_close_array(json);
}

/* The sinks of the JSON summary. */
static void json_sinks(struct json *json, const struct run_graph *graph)
{
	json_open_array(json, "sinks");
	for (size_t i = 0; i < graph->descriptor->sink_count; i++) {
		const struct sink_writer *writer = &graph->sinks[i];
		json_open_object(json, NULL);
		json_text(json, "name", writer->sink.name);
		json_text(json, "place", sink_place(writer));
		json_unsigned(json, "records", writer->records);
		json_unsigned(json, "bytes", writer->bytes);
		json_close_object(json);
	}
	json_close_array(json);
}

/* The checkpoints of the JSON summary; null without them. */
static void json_checkpoint(struct json *json, const struct run_checkpoint *checkpoint)
{
	if (checkpoint == NULL) {
		json_null(json, "checkpoint");
		return;
	}
	json_open_object(json, "checkpoint");
	json_text(json, "file", checkpoint->path);
	json_unsigned(json, "bytes", run_store_bytes(checkpoint->store));
	json_unsigned(json, "restored", checkpoint->before.id);
	json_unsigned(json, "last", checkpoint->id - checkpoint->under_way);
	json_unsigned(json, "made", checkpoint->count);
	json_real(json, "last_seconds", (double)checkpoint->last_ns / 1e9);
	json_real(json, "longest_seconds", (double)checkpoint->most_ns / 1e9);
	json_real(json, "total_seconds", (double)checkpoint->total_ns / 1e9);
	json_unsigned(json, "last_state_bytes", checkpoint->last_state_bytes);
	json_close_object(json);
}

void run_progress_summary_json(const struct run_progress *progress, const struct run_graph *graph, enum run_end end,
			       const char *failure, FILE *out)
{
	struct json json;
	json_init(&json, out);
	json_open_object(&json, NULL);
	json_text(&json, "pipeline", graph->descriptor->pipeline);
	json_text(&json, "status", end_names[end]);
	json_text(&json, "failure", failure);
	json_real(&json, "seconds", (double)(clock_ns() - progress->started_ns) / 1e9);
	json_unsigned(&json, "slots", graph->slots);
	json_unsigned(&json, "records_in", graph->records_in);
	json_unsigned(&json, "records_out", graph->records_out);
	json_sources(&json, graph);
	json_segments(&json, graph);
	json_sinks(&json, graph);
	json_checkpoint(&json, graph->checkpoint);
	json_close_object(&json);
	fprintf(out, "\n");
}
