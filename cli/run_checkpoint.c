/*
 * The coordinator of checkpoints (run_checkpoint.h): who has reported, and when the next one begins.
 */
#include "cli/run_checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "cli/load.h"
#include "cli/run_graph.h"
#include "descriptor/against.h"
#include "descriptor/diagnostics.h"
#include "shared/control.h"
#include "shared/log.h"

enum { FINGERPRINT_BYTES = 4096 };

bool run_fingerprint(int fd, uint64_t length, uint64_t *fingerprint)
{
	uint8_t bytes[2 * FINGERPRINT_BYTES];
	uint64_t piece = length < FINGERPRINT_BYTES ? length : FINGERPRINT_BYTES;
	*fingerprint = 0;
	if (pread(fd, bytes, piece, 0) != (ssize_t)piece ||
	    pread(fd, bytes + piece, piece, (off_t)(length - piece)) != (ssize_t)piece)
		return false;
	*fingerprint = XXH3_64bits(bytes, 2 * piece);
	return true;
}

/* ---- What is refused ---- */

bool run_checkpoint_possible(const struct run_graph *graph)
{
	for (size_t i = 0; i < graph->descriptor->source_count; i++) {
		const struct source *source = &graph->sources[i].source;
		if (source->kind != SOURCE_FILE || strcmp(source->path, "-") != 0)
			continue;
		fprintf(
		    stderr,
		    "bridgectl run: source \"%s\" reads standard input, which cannot be read again after a crash, so "
		    "--checkpoint cannot make it exactly once.\n"
		    "Let it read a file: --input %s=PATH.\n",
		    source->name, source->name);
		return false;
	}
	for (size_t i = 0; i < graph->descriptor->sink_count; i++) {
		const struct sink *sink = &graph->sinks[i].sink;
		if (sink->kind != SINK_PRINT && (sink->kind != SINK_FILE || strcmp(sink->path, "-") != 0))
			continue;
		fprintf(
		    stderr,
		    "bridgectl run: sink \"%s\" writes to standard output, which cannot be cut back after a crash, so "
		    "--checkpoint cannot make it exactly once.\n"
		    "Let it write a file: --output %s=PATH.\n",
		    sink->name, sink->name);
		return false;
	}
	return true;
}

/* ---- Going on from the file ---- */

/* Fails with what the store says. */
static bool store_failed(struct run_graph *graph)
{
	run_graph_fail(graph, "%s", run_store_why(graph->checkpoint->store));
	return false;
}

/* What the stages go on from: states, parallelism, watermark. */
static bool read_stages(struct run_graph *graph)
{
	struct run_store *store = graph->checkpoint->store;
	for (size_t i = 0; i < graph->descriptor->segment_count; i++) {
		struct stage *stage = &graph->stages[i];
		struct stage_state *state = &stage->state;
		int64_t watermark;
		const char *name = stage->segment->name;
		if (!run_store_states(store, name, &state->before, &state->before_count) ||
		    !run_store_segment(store, name, &state->parallelism_before, &watermark))
			return store_failed(graph);
		for (uint32_t s = 0; s < stage->segment->parallelism; s++)
			stage->subtasks[s].valve.time = watermark;
	}
	return true;
}

/* The descriptor as text. */
static char *descriptor_text(const struct descriptor *descriptor)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		fatalx("out of memory for a descriptor");
	descriptor_write(descriptor, out);
	if (fclose(out) != 0)
		fatalx("out of memory for a descriptor");
	return text;
}

/* Looks whether a pipeline that has changed can take over the state of the one that made the checkpoint; says what keeps it from that. */
static bool compare_pipelines(struct run_graph *graph)
{
	const struct run_checkpoint *checkpoint = graph->checkpoint;
	struct diagnostics diagnostics;
	diagnostics_init(&diagnostics);
	struct descriptor *before =
	    descriptor_parse(checkpoint->path, view_of(checkpoint->before.descriptor), &diagnostics);
	if (before != NULL)
		against_compare(&(struct side){.descriptor = before, .file = checkpoint->path},
				&(struct side){.descriptor = graph->descriptor, .file = "the pipeline"}, &diagnostics);
	bool fits = diagnostics.count == 0;
	if (!fits)
		diagnostics_print(&diagnostics, stderr, load_wants_colour(stderr));
	diagnostics_free(&diagnostics);
	descriptor_free(before);
	return fits ||
	       run_graph_refuse(graph,
				"the checkpoint %s is of pipeline \"%s\" as it was before it changed, and what it "
				"holds cannot all be taken over: go on with the pipeline as it was, or remove the file "
				"to begin anew",
				checkpoint->path, checkpoint->before.pipeline);
}

/* Looks whether the checkpoint is of this pipeline. */
static bool check_pipeline(struct run_graph *graph)
{
	const struct store_checkpoint *before = &graph->checkpoint->before;
	if (strcmp(before->pipeline, graph->descriptor->pipeline) != 0)
		return run_graph_refuse(graph,
					"the checkpoint %s is of pipeline \"%s\", not of \"%s\": name another file, or "
					"remove it to begin anew",
					graph->checkpoint->path, before->pipeline, graph->descriptor->pipeline);
	return strcmp(before->topology_hash, graph->descriptor->topology_hash) == 0 || compare_pipelines(graph);
}

bool run_checkpoint_open(struct run_checkpoint *checkpoint, struct run_graph *graph, const char *path,
			 uint64_t interval_ns)
{
	char why[STORE_WHY_MAX];
	*checkpoint = (struct run_checkpoint){.path = path, .interval_ns = interval_ns};
	checkpoint->descriptor = descriptor_text(graph->descriptor);
	graph->checkpoint = checkpoint;
	enum store_result result = run_store_open(&checkpoint->store, path, why);
	if (result != STORE_OK) {
		run_graph_fail(graph, "%s", why);
		graph->refused = result == STORE_NOT_OURS;
		return false;
	}
	if (!run_store_checkpoint(checkpoint->store, &checkpoint->before))
		return store_failed(graph);
	checkpoint->id = checkpoint->before.id;
	return checkpoint->id == 0 || (check_pipeline(graph) && read_stages(graph));
}

/* Positions one source. */
static bool resume_source(struct run_graph *graph, struct source_reader *reader)
{
	const struct run_checkpoint *checkpoint = graph->checkpoint;
	struct store_source before;
	bool found;
	if (!run_store_source(checkpoint->store, reader->source.name, &before, &found))
		return store_failed(graph);
	const char *kind = source_kind_name(reader->source.kind);
	if (!found)
		return true; /* a new one, read from its beginning */
	if (strcmp(before.kind, kind) != 0)
		return run_graph_refuse(graph, "source \"%s\" is of kind %s, and of kind %s in the checkpoint %s",
					reader->source.name, kind, before.kind, checkpoint->path);
	if (strcmp(before.path, reader->place) != 0)
		return run_graph_refuse(
		    graph,
		    "source \"%s\" reads %s, and read %s for the checkpoint %s: let it read that file, "
		    "or name another checkpoint",
		    reader->source.name, reader->place, before.path, checkpoint->path);
	return source_resume(reader, &before);
}

/* Looks whether one sink can go on. */
static bool resume_sink(struct run_graph *graph, struct sink_writer *writer)
{
	const struct run_checkpoint *checkpoint = graph->checkpoint;
	struct store_sink before;
	bool found;
	if (!run_store_sink(checkpoint->store, writer->sink.name, &before, &found))
		return store_failed(graph);
	if (!found)
		return true; /* a new one, written anew */
	if (strcmp(before.path, writer->place) != 0)
		return run_graph_refuse(graph,
					"sink \"%s\" writes %s, and wrote %s for the checkpoint %s: let it write that "
					"file, or name another checkpoint",
					writer->sink.name, writer->place[0] != '\0' ? writer->place : "nothing",
					before.path[0] != '\0' ? before.path : "nothing", checkpoint->path);
	return sink_resume(writer, &before);
}

bool run_checkpoint_resume(struct run_graph *graph)
{
	bool fine = true, anew = graph->checkpoint->before.id == 0;
	for (size_t i = 0; fine && !anew && i < graph->descriptor->source_count; i++)
		fine = resume_source(graph, &graph->sources[i]);
	for (size_t i = 0; fine && !anew && i < graph->descriptor->sink_count; i++)
		fine = resume_sink(graph, &graph->sinks[i]);
	for (size_t i = 0; fine && i < graph->descriptor->sink_count; i++)
		fine = sink_cut(&graph->sinks[i]);
	return fine;
}

bool run_checkpoint_nothing_to_do(const struct run_graph *graph)
{
	if (!graph->checkpoint->before.finished)
		return false;
	for (size_t i = 0; i < graph->descriptor->source_count; i++)
		if (!source_is_read(&graph->sources[i]))
			return false;
	return true;
}

/* Says in the file which states there are from now on. */
static bool declare_states(struct run_graph *graph)
{
	struct run_store *store = graph->checkpoint->store;
	const char *names[DESCRIPTOR_SEGMENTS_MAX] = {NULL};
	uint32_t count = (uint32_t)graph->descriptor->segment_count;
	for (uint32_t i = 0; i < count; i++)
		names[i] = graph->descriptor->segments[i].name;
	bool fine = run_store_take_over(store, names, count);
	for (uint32_t i = 0; fine && i < count; i++) {
		const struct stage_state *state = &graph->stages[i].state;
		fine = run_store_declare(store, names[i], state->declared, state->declared_count, state->ids);
	}
	return fine;
}

void run_checkpoint_start(struct run_graph *graph)
{
	struct run_checkpoint *checkpoint = graph->checkpoint;
	if (checkpoint == NULL)
		return;
	if (!declare_states(graph)) {
		store_failed(graph);
		return;
	}
	checkpoint->started = true;
	checkpoint->next_ns = clock_ns() + checkpoint->interval_ns;
	graph->room = true;
}

/* ---- A checkpoint ---- */

/* Whether all input has gone through everything. */
static bool all_ended(const struct run_graph *graph)
{
	return graph->ended == graph->subtasks && graph->sinks_ended == graph->descriptor->sink_count;
}

/* Begins a checkpoint: whoever has ended reports or is marked; the others come by themselves. */
static void begin(struct run_graph *graph, enum checkpoint_cause cause)
{
	struct run_checkpoint *checkpoint = graph->checkpoint;
	const struct descriptor *descriptor = graph->descriptor;
	checkpoint->under_way = true;
	checkpoint->cause = cause;
	checkpoint->id++;
	checkpoint->begun_ns = clock_ns();
	checkpoint->missing = (uint32_t)(descriptor->source_count + descriptor->sink_count) + graph->subtasks;
	for (size_t i = 0; i < descriptor->source_count; i++)
		if (graph->sources[i].ended)
			run_checkpoint_source(&graph->sources[i]);
	for (size_t i = 0; i < descriptor->sink_count; i++)
		if (graph->sinks[i].ended)
			run_checkpoint_sink(&graph->sinks[i]);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		for (uint32_t s = 0; s < graph->stages[i].segment->parallelism; s++)
			if (graph->stages[i].subtasks[s].state == SUBTASK_ENDED)
				run_graph_mark(graph, &graph->stages[i].subtasks[s]);
}

/* Closes all sessions. */
static void finish_sessions(struct run_graph *graph)
{
	for (size_t i = 0; i < graph->descriptor->segment_count; i++)
		for (uint32_t s = 0; s < graph->stages[i].segment->parallelism; s++)
			subtask_finish(&graph->stages[i].subtasks[s]);
}

/* Everybody has reported: the checkpoint is made. */
static void complete(struct run_graph *graph)
{
	struct run_checkpoint *checkpoint = graph->checkpoint;
	struct store_checkpoint made = {
	    .id = checkpoint->id,
	    .finished = checkpoint->cause == CHECKPOINT_LAST,
	    .pipeline = graph->descriptor->pipeline,
	    .topology_hash = graph->descriptor->topology_hash,
	    .descriptor = checkpoint->descriptor,
	    .made_ms = clock_wall_ms(),
	};
	if (!run_store_commit(checkpoint->store, &made)) {
		store_failed(graph);
		return;
	}
	uint64_t now = clock_ns();
	checkpoint->under_way = false;
	checkpoint->count++;
	checkpoint->last_ns = now - checkpoint->begun_ns;
	checkpoint->total_ns += checkpoint->last_ns;
	if (checkpoint->last_ns > checkpoint->most_ns)
		checkpoint->most_ns = checkpoint->last_ns;
	checkpoint->last_state_bytes = checkpoint->state_bytes;
	checkpoint->state_bytes = 0;
	checkpoint->next_ns = checkpoint->begun_ns + checkpoint->interval_ns;
	graph->room = true; /* state that was deferred */
	if (checkpoint->cause == CHECKPOINT_LAST)
		finish_sessions(graph);
	checkpoint->stopped = checkpoint->cause == CHECKPOINT_STOP;
}

/* Whether a checkpoint is to begin now, and why. */
static bool is_due(const struct run_graph *graph, enum checkpoint_cause *cause)
{
	const struct run_checkpoint *checkpoint = graph->checkpoint;
	if (!checkpoint->started || checkpoint->under_way || checkpoint->stopped ||
	    (checkpoint->count > 0 && checkpoint->cause == CHECKPOINT_LAST))
		return false;
	*cause = all_ended(graph) ? CHECKPOINT_LAST : checkpoint->stop_wanted ? CHECKPOINT_STOP : CHECKPOINT_DUE;
	return *cause != CHECKPOINT_DUE || clock_ns() >= checkpoint->next_ns;
}

void run_checkpoint_turn(struct run_graph *graph)
{
	struct run_checkpoint *checkpoint = graph->checkpoint;
	enum checkpoint_cause cause;
	if (checkpoint == NULL || graph->failed)
		return;
	if (checkpoint->under_way && checkpoint->missing == 0)
		complete(graph);
	if (!graph->failed && is_due(graph, &cause))
		begin(graph, cause);
}

uint64_t run_checkpoint_deadline(const struct run_graph *graph)
{
	const struct run_checkpoint *checkpoint = graph->checkpoint;
	enum checkpoint_cause cause;
	if (checkpoint == NULL || !checkpoint->started)
		return UINT64_MAX;
	if (checkpoint->under_way)
		return checkpoint->missing == 0 ? 0 : UINT64_MAX;
	if (is_due(graph, &cause))
		return 0;
	return checkpoint->stopped || (checkpoint->count > 0 && checkpoint->cause == CHECKPOINT_LAST)
		   ? UINT64_MAX
		   : checkpoint->next_ns;
}

void run_checkpoint_stop(struct run_graph *graph)
{
	graph->checkpoint->stop_wanted = true;
}

bool run_checkpoint_stopped(const struct run_graph *graph)
{
	return graph->checkpoint != NULL && graph->checkpoint->stopped;
}

void run_checkpoint_close(struct run_checkpoint *checkpoint)
{
	run_store_close(checkpoint->store);
	free(checkpoint->descriptor);
	*checkpoint = (struct run_checkpoint){0};
}

/* ---- Who takes part ---- */

uint64_t run_checkpoint_wanted(const struct run_graph *graph)
{
	return graph->checkpoint != NULL && graph->checkpoint->under_way ? graph->checkpoint->id : 0;
}

bool run_checkpoint_stopping(const struct run_graph *graph)
{
	return graph->checkpoint != NULL && graph->checkpoint->stop_wanted;
}

bool run_checkpoint_defers(const struct subtask *subtask)
{
	const struct run_checkpoint *checkpoint = subtask->graph->checkpoint;
	if (checkpoint == NULL)
		return false;
	return !checkpoint->started || (checkpoint->under_way && subtask->acknowledged == checkpoint->id);
}

/* One more has reported; `kept` says whether the file took it. */
static void reported(struct run_graph *graph, bool kept)
{
	if (!kept)
		store_failed(graph);
	CHECK(graph->checkpoint->missing > 0);
	graph->checkpoint->missing--;
}

void run_checkpoint_source(struct source_reader *reader)
{
	struct store_source source = {
	    .name = reader->source.name,
	    .kind = source_kind_name(reader->source.kind),
	    .path = reader->place,
	    .position = source_position(reader),
	    .records = reader->records_before + reader->records,
	    .largest_ms = reader->largest,
	};
	if (reader->source.kind == SOURCE_FILE &&
	    !run_fingerprint(reader->item.fd, source.position, &source.fingerprint)) {
		run_graph_fail(reader->graph, "source \"%s\": cannot read %s again: it was cut while it was read",
			       reader->source.name, reader->source.path);
		return;
	}
	reported(reader->graph, run_store_put_source(reader->graph->checkpoint->store, &source));
}

void run_checkpoint_subtask(struct subtask *subtask)
{
	/* The watermark at the end of all time is that of the end; what is appended later has its own. */
	int64_t watermark = subtask->cut_watermark == INT64_MAX ? INT64_MIN : subtask->cut_watermark;
	reported(subtask->graph, run_store_put_subtask(subtask->graph->checkpoint->store, subtask->stage->segment->name,
						       subtask->index, watermark));
}

void run_checkpoint_sink(struct sink_writer *writer)
{
	struct store_sink sink = {
	    .name = writer->sink.name,
	    .path = writer->place,
	    .length = sink_length(writer),
	    .records = writer->records_before + writer->records,
	    .fingerprint = writer->fingerprint,
	};
	reported(writer->graph, run_store_put_sink(writer->graph->checkpoint->store, &sink));
}

uint64_t run_checkpoint_restored(const struct run_graph *graph)
{
	return graph->checkpoint != NULL ? graph->checkpoint->before.id : 0;
}

struct run_store *run_checkpoint_store(const struct run_graph *graph)
{
	return graph->checkpoint->store;
}

void run_checkpoint_count(struct run_graph *graph, uint64_t bytes)
{
	graph->checkpoint->state_bytes += bytes;
}
