/*
 * Stages, edges and outlets of the local runner (run_graph.h), made out of a descriptor's inputs.
 */
#include "cli/run_graph.h"

#include "cli/run_checkpoint.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/control.h"
#include "shared/log.h"

/* Zeroed memory, or the end in words. */
static void *need(size_t count, size_t size)
{
	void *memory = calloc(count > 0 ? count : 1, size);
	if (memory == NULL)
		fatalx("out of memory");
	return memory;
}

/* ---- Putting it together ---- */

/* The edges that lead away from what an input names. */
static struct edges *edges_from(struct run_graph *graph, const struct input *input)
{
	if (input->from_source)
		return &graph->sources[input->index].edges;
	return &graph->stages[input->index].edges;
}

/* The parallelism of what an input names. */
static uint32_t parallelism_of(const struct run_graph *graph, const struct input *input)
{
	if (input->from_source)
		return graph->sources[input->index].source.parallelism;
	return graph->stages[input->index].segment->parallelism;
}

/* Adds an edge to its producer's. */
static void add_edge(struct run_graph *graph, const struct input *input, struct edge edge)
{
	struct edges *edges = edges_from(graph, input);
	edges->list = realloc(edges->list, (edges->count + 1) * sizeof(edge));
	if (edges->list == NULL)
		fatalx("out of memory");
	edge.route = input->route;
	edge.partition = input->partition;
	edges->list[edges->count++] = edge;
}

/* The edges into a segment, and how many channels its subtasks have. */
static void connect_stage(struct run_graph *graph, struct stage *stage)
{
	for (size_t i = 0; i < stage->segment->input_count; i++) {
		const struct input *input = &stage->segment->inputs[i];
		add_edge(graph, input,
			 (struct edge){.stage = stage, .input = (uint32_t)i, .first_channel = stage->channels});
		stage->channels += parallelism_of(graph, input);
	}
}

/* The edges into a sink. */
static void connect_sink(struct run_graph *graph, struct sink_writer *writer)
{
	uint32_t channels = 0;
	for (size_t i = 0; i < writer->sink.input_count; i++) {
		const struct input *input = &writer->sink.inputs[i];
		add_edge(graph, input, (struct edge){.sink = writer, .input = (uint32_t)i});
		channels += parallelism_of(graph, input);
	}
	aligner_init(&writer->aligner, channels);
}

/* One producer subtask's view of its edges. */
static void outlet_init(struct outlet *outlet, const struct edges *edges, uint32_t subtask)
{
	outlet->edges = edges;
	outlet->subtask = subtask;
	outlet->partitioners = need(edges->count, sizeof(outlet->partitioners[0]));
	for (uint32_t i = 0; i < edges->count; i++) {
		const struct stage *stage = edges->list[i].stage;
		partitioner_init(&outlet->partitioners[i], edges->list[i].partition, subtask,
				 stage != NULL ? stage->segment->parallelism : 1,
				 stage != NULL ? stage->segment->max_parallelism : 1);
	}
}

/* The subtasks of a stage. */
static void create_subtasks(struct run_graph *graph, struct stage *stage)
{
	uint32_t parallelism = stage->segment->parallelism;
	stage->subtasks = need(parallelism, sizeof(stage->subtasks[0]));
	graph->subtasks += parallelism;
	for (uint32_t i = 0; i < parallelism; i++) {
		struct subtask *subtask = &stage->subtasks[i];
		subtask->graph = graph;
		subtask->answer_message = grpc_empty_slice();
		subtask->stage = stage;
		subtask->index = i;
		aligner_init(&subtask->aligner, stage->channels);
		watermark_valve_init(&subtask->valve, stage->channels);
		outlet_init(&subtask->outlet, &stage->edges, i);
	}
}

/* Takes the channels out that nobody sends on: a forwarded producer reaches one subtask only. */
static void leave_out_channels(const struct outlet *outlet)
{
	for (uint32_t i = 0; i < outlet->edges->count; i++) {
		const struct edge *edge = &outlet->edges->list[i];
		for (uint32_t s = 0; edge->stage != NULL && s < edge->stage->segment->parallelism; s++) {
			if (partitioner_reaches(&outlet->partitioners[i], s))
				continue;
			watermark_valve_leave_out(&edge->stage->subtasks[s].valve,
						  edge->first_channel + outlet->subtask);
			edge->stage->subtasks[s].aligner.open--;
		}
	}
}

/* Sources and sinks, as copies that options may change. */
static void create_ends(struct run_graph *graph)
{
	const struct descriptor *descriptor = graph->descriptor;
	graph->sources = need(descriptor->source_count, sizeof(graph->sources[0]));
	graph->sinks = need(descriptor->sink_count, sizeof(graph->sinks[0]));
	for (size_t i = 0; i < descriptor->source_count; i++) {
		graph->sources[i].graph = graph;
		graph->sources[i].source = descriptor->sources[i];
		graph->sources[i].item.fd = -1;
		graph->sources[i].text = jv_null();
	}
	for (size_t i = 0; i < descriptor->sink_count; i++) {
		graph->sinks[i].graph = graph;
		graph->sinks[i].sink = descriptor->sinks[i];
		graph->sinks[i].item.fd = -1;
	}
}

void run_graph_create(struct run_graph *graph, const struct descriptor *descriptor, uint32_t slots)
{
	*graph = (struct run_graph){.descriptor = descriptor, .slots = slots, .records_left = UINT64_MAX};
	create_ends(graph);
	graph->stages = need(descriptor->segment_count, sizeof(graph->stages[0]));
	for (size_t i = 0; i < descriptor->segment_count; i++)
		graph->stages[i].segment = &descriptor->segments[i];
	for (size_t i = 0; i < descriptor->segment_count; i++)
		connect_stage(graph, &graph->stages[i]);
	for (size_t i = 0; i < descriptor->sink_count; i++)
		connect_sink(graph, &graph->sinks[i]);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		create_subtasks(graph, &graph->stages[i]);
	for (size_t i = 0; i < descriptor->source_count; i++) {
		struct source_reader *reader = &graph->sources[i];
		reader->outlets = need(reader->source.parallelism, sizeof(reader->outlets[0]));
		for (uint32_t s = 0; s < reader->source.parallelism; s++) {
			outlet_init(&reader->outlets[s], &reader->edges, s);
			leave_out_channels(&reader->outlets[s]);
		}
	}
	for (size_t i = 0; i < descriptor->segment_count; i++)
		for (uint32_t s = 0; s < graph->stages[i].segment->parallelism; s++)
			leave_out_channels(&graph->stages[i].subtasks[s].outlet);
}

void run_graph_open(struct run_graph *graph, struct client *client, struct watch *watch)
{
	graph->client = client;
	graph->watch = watch;
	graph->session_method = client_method(client, "/flink_bridge.FlinkBridge/Session");
	for (size_t i = 0; i < graph->descriptor->segment_count && !graph->failed; i++)
		for (uint32_t s = 0; s < graph->stages[i].segment->parallelism; s++)
			subtask_open(&graph->stages[i].subtasks[s]);
}

/* Frees an outlet's own. */
static void outlet_deinit(struct outlet *outlet)
{
	free(outlet->partitioners);
	outlet->partitioners = NULL;
}

void run_graph_close(struct run_graph *graph)
{
	for (size_t i = 0; i < graph->descriptor->source_count; i++)
		source_close(&graph->sources[i]);
	for (size_t i = 0; i < graph->descriptor->sink_count; i++)
		sink_close(&graph->sinks[i]);
	for (size_t i = 0; i < graph->descriptor->segment_count; i++)
		for (uint32_t s = 0; s < graph->stages[i].segment->parallelism; s++)
			subtask_close(&graph->stages[i].subtasks[s]);
	graph->watch = NULL;
}

void run_graph_free(struct run_graph *graph)
{
	run_graph_close(graph);
	for (size_t i = 0; i < graph->descriptor->source_count; i++) {
		struct source_reader *reader = &graph->sources[i];
		for (uint32_t s = 0; s < reader->source.parallelism; s++)
			outlet_deinit(&reader->outlets[s]);
		free(reader->outlets);
		free(reader->edges.list);
	}
	for (size_t i = 0; i < graph->descriptor->segment_count; i++) {
		struct stage *stage = &graph->stages[i];
		for (uint32_t s = 0; s < stage->segment->parallelism; s++)
			outlet_deinit(&stage->subtasks[s].outlet);
		free(stage->subtasks);
		free(stage->edges.list);
		stage_state_free(&stage->state);
	}
	free(graph->stages);
	free(graph->sources);
	free(graph->sinks);
}

/* ---- Outlets ---- */

/* Offers a record to the consumer at one edge. */
static enum offer push_along(const struct edge *edge, struct partitioner *partitioner, struct wire_record *record)
{
	if (edge->sink != NULL)
		return sink_offer(edge->sink, record);
	record->input = edge->input;
	enum offer offer = subtask_offer(&edge->stage->subtasks[partitioner_choose(partitioner, record)], record);
	if (offer == OFFER_TAKEN)
		partitioner_done(partitioner);
	return offer;
}

/* Whether a record can go along an edge at all: without a key there is no telling where to. */
static bool check_key(struct run_graph *graph, const struct edge *edge, const struct wire_record *record)
{
	if (edge->partition != PARTITION_HASH || record->keyed || edge->stage == NULL)
		return true;
	char excerpt[256];
	run_graph_fail(graph, "a record without a key reached segment \"%s\", which is partitioned by key: %s",
		       edge->stage->segment->name, payload_excerpt(record->payload, excerpt, sizeof(excerpt)));
	return false;
}

enum offer outlet_push(struct run_graph *graph, struct outlet *outlet, const struct wire_record *record)
{
	for (; outlet->at < outlet->edges->count; outlet->at++) {
		const struct edge *edge = &outlet->edges->list[outlet->at];
		if (edge->route != record->route)
			continue;
		if (!check_key(graph, edge, record))
			return OFFER_FAILED;
		struct wire_record copy = *record;
		copy.route = 0;
		enum offer offer = push_along(edge, &outlet->partitioners[outlet->at], &copy);
		if (offer != OFFER_TAKEN)
			return offer;
	}
	outlet->at = 0;
	return OFFER_TAKEN;
}

/* Calls something for every subtask that an outlet reaches, with the channel it is reached by. */
#define FOR_EACH_REACHED(outlet, target, channel, action)                                                              \
	for (uint32_t edge_at = 0; edge_at < (outlet)->edges->count; edge_at++) {                                      \
		const struct edge *edge = &(outlet)->edges->list[edge_at];                                             \
		for (uint32_t s = 0; edge->stage != NULL && s < edge->stage->segment->parallelism; s++) {              \
			struct subtask *target = &edge->stage->subtasks[s];                                            \
			uint32_t channel = edge->first_channel + (outlet)->subtask;                                    \
			if (partitioner_reaches(&(outlet)->partitioners[edge_at], s))                                  \
				action;                                                                                \
		}                                                                                                      \
	}

void outlet_watermark(struct outlet *outlet, int64_t time)
{
	FOR_EACH_REACHED(outlet, target, channel, subtask_watermark(target, channel, time));
}

void outlet_idle(struct outlet *outlet, bool idle)
{
	FOR_EACH_REACHED(outlet, target, channel, subtask_idle(target, channel, idle));
}

void outlet_end(struct outlet *outlet)
{
	FOR_EACH_REACHED(outlet, target, channel, subtask_channel_end(target, channel));
	for (uint32_t i = 0; i < outlet->edges->count; i++)
		if (outlet->edges->list[i].sink != NULL)
			sink_channel_end(outlet->edges->list[i].sink);
}

void outlet_barrier(struct outlet *outlet, uint64_t barrier)
{
	outlet->barrier = barrier;
	for (uint32_t i = 0; i < outlet->edges->count; i++) {
		const struct edge *edge = &outlet->edges->list[i];
		if (edge->sink != NULL)
			sink_barrier(edge->sink, barrier);
		for (uint32_t s = 0; edge->stage != NULL && s < edge->stage->segment->parallelism; s++)
			if (partitioner_reaches(&outlet->partitioners[i], s))
				subtask_barrier(&edge->stage->subtasks[s], barrier);
	}
}

/* Whether a consumer at one edge still waits for somebody else's barrier. */
static bool edge_is_held(const struct edge *edge, const struct partitioner *partitioner, uint64_t barrier)
{
	if (edge->sink != NULL)
		return edge->sink->aligner.passed < barrier;
	for (uint32_t s = 0; s < edge->stage->segment->parallelism; s++)
		if (partitioner_reaches(partitioner, s) && edge->stage->subtasks[s].aligner.passed < barrier)
			return true;
	return false;
}

bool outlet_is_held(struct outlet *outlet)
{
	if (outlet->barrier_through == outlet->barrier)
		return false;
	for (uint32_t i = 0; i < outlet->edges->count; i++)
		if (edge_is_held(&outlet->edges->list[i], &outlet->partitioners[i], outlet->barrier))
			return true;
	outlet->barrier_through = outlet->barrier;
	return false;
}

/* ---- Going on ---- */

void run_graph_mark(struct run_graph *graph, struct subtask *subtask)
{
	if (subtask->dirty)
		return;
	subtask->dirty = true;
	subtask->next_dirty = graph->dirty;
	graph->dirty = subtask;
}

/* Sends what is due at the marked subtasks. */
static void pump_dirty(struct run_graph *graph)
{
	while (graph->dirty != NULL) {
		struct subtask *subtask = graph->dirty;
		graph->dirty = subtask->next_dirty;
		subtask->dirty = false;
		subtask_pump(subtask);
	}
}

/* Lets everybody go on whom a full consumer had stopped. */
static void resume_all(struct run_graph *graph)
{
	for (size_t i = 0; i < graph->descriptor->source_count; i++)
		graph->sources[i].blocked = false;
	for (size_t i = 0; i < graph->descriptor->segment_count; i++)
		for (uint32_t s = 0; s < graph->stages[i].segment->parallelism; s++)
			if (graph->stages[i].subtasks[s].answering || graph->stages[i].subtasks[s].waiting)
				subtask_resume(&graph->stages[i].subtasks[s]);
}

void run_graph_pump(struct run_graph *graph)
{
	pump_dirty(graph);
	while (graph->room && !graph->failed) {
		graph->room = false;
		resume_all(graph);
		pump_dirty(graph);
	}
}

uint64_t run_graph_tick(struct run_graph *graph)
{
	int64_t now = clock_wall_ms(), next = INT64_MAX;
	for (size_t i = 0; i < graph->descriptor->segment_count; i++) {
		for (uint32_t s = 0; s < graph->stages[i].segment->parallelism; s++) {
			struct subtask *subtask = &graph->stages[i].subtasks[s];
			if (subtask->wakeup_ms == 0 || subtask->ticking || subtask->state != SUBTASK_RUNNING)
				continue;
			if (subtask->wakeup_ms <= now)
				run_graph_mark(graph, subtask);
			else if (subtask->wakeup_ms < next)
				next = subtask->wakeup_ms;
		}
	}
	pump_dirty(graph);
	return next == INT64_MAX ? UINT64_MAX : clock_ns() + (uint64_t)(next - now) * 1000000;
}

bool run_graph_done(const struct run_graph *graph)
{
	if (run_checkpoint_stopped(graph))
		return true;
	return graph->closed == graph->subtasks && graph->sinks_ended == graph->descriptor->sink_count;
}

void run_graph_fail(struct run_graph *graph, const char *format, ...)
{
	if (graph->failed)
		return;
	graph->failed = true;
	va_list list;
	va_start(list, format);
	vsnprintf(graph->failure, sizeof(graph->failure), format, list);
	va_end(list);
}

bool run_graph_refuse(struct run_graph *graph, const char *format, ...)
{
	if (graph->failed)
		return false;
	graph->failed = graph->refused = true;
	va_list list;
	va_start(list, format);
	vsnprintf(graph->failure, sizeof(graph->failure), format, list);
	va_end(list);
	return false;
}

const char *payload_excerpt(struct view payload, char *text, size_t size)
{
	size_t room = size - sizeof("..."), at = 0;
	size_t take = payload.size < room ? payload.size : room;
	bool whole = take == payload.size;
	while (!whole && take > 0 && (payload.data[take] & 0xc0) == 0x80)
		take--; /* not in the middle of a character */
	bool valid = utf8_valid((struct view){payload.data, take});
	for (; at < take; at++) {
		uint8_t byte = payload.data[at];
		text[at] = byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !valid) ? '.' : (char)byte;
	}
	memcpy(text + at, whole ? "" : "...", whole ? 1 : 4);
	return text;
}
