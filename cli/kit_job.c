/* The job of a test case (kit_job.h): put together, and taken apart again. */
#include "cli/kit_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Failures ------------------------------------------------------------------------------------------------------- */

bool kit_fail(struct kit_job *job, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (!job->failed)
		vsnprintf(job->failure, sizeof(job->failure), format, arguments);
	va_end(arguments);
	job->failed = true;
	return false;
}

/* ---- Putting it together -------------------------------------------------------------------------------------------- */

/* One more edge of a producer, whose last one it becomes. */
static struct kit_edge *edge_add(struct kit_producer *producer)
{
	producer->edges = kit_need(realloc(producer->edges, (producer->edge_count + 1) * sizeof(*producer->edges)));
	struct kit_edge *edge = &producer->edges[producer->edge_count++];
	*edge = (struct kit_edge){0};
	return edge;
}

/* The producer that feeds an input. In a segment that runs alone each input has one of its own. */
static struct kit_producer *producer_of(struct kit_job *job, const struct input *input, uint32_t number)
{
	if (job->alone != NULL)
		return &job->sources[number];
	return input->from_source ? &job->sources[input->index] : &job->stages[input->index].out;
}

/* Connects the inputs of a segment with what feeds them. */
static void connect_stage(struct kit_job *job, struct kit_stage *stage)
{
	const struct segment *segment = stage->segment;

	stage->channels = 0;
	for (uint32_t i = 0; i < segment->input_count; i++) {
		const struct input *input = &segment->inputs[i];
		struct kit_producer *producer = producer_of(job, input, i);
		struct kit_edge *edge = edge_add(producer);
		edge->route = job->alone != NULL ? 0 : input->route;
		edge->partition = input->partition;
		edge->stage = stage;
		edge->input = i;
		edge->first_channel = stage->channels;
		stage->channels += producer->parallelism;
	}
}

/* Makes the subtasks of a segment. */
static void make_subtasks(struct kit_stage *stage)
{
	stage->subtasks = kit_need(calloc(stage->parallelism, sizeof(*stage->subtasks)));
	for (uint32_t i = 0; i < stage->parallelism; i++) {
		stage->subtasks[i] = (struct kit_subtask){.stage = stage, .index = i};
		watermark_valve_init(&stage->subtasks[i].valve, stage->channels);
	}
}

/* Makes the partitioners of a producer, and finds out whom it reaches. */
static void make_partitioners(struct kit_producer *producer)
{
	producer->partitioners =
	    kit_need(calloc((size_t)producer->parallelism * producer->edge_count + 1, sizeof(*producer->partitioners)));
	for (uint32_t from = 0; from < producer->parallelism; from++)
		for (uint32_t i = 0; i < producer->edge_count; i++) {
			const struct kit_edge *edge = &producer->edges[i];
			if (edge->stage == NULL)
				continue;
			partitioner_init(kit_partitioner(producer, from, i), edge->partition, from,
					 edge->stage->parallelism, edge->stage->segment->max_parallelism);
			for (uint32_t to = 0; to < edge->stage->parallelism; to++) {
				struct kit_subtask *subtask = &edge->stage->subtasks[to];
				if (partitioner_reaches(kit_partitioner(producer, from, i), to))
					subtask->open++;
				else
					watermark_valve_leave_out(&subtask->valve, edge->first_channel + from);
			}
		}
}

void kit_connect(struct kit_job *job)
{
	const struct descriptor *descriptor = job->descriptor;

	for (size_t i = 0; i < job->source_count; i++)
		job->sources[i].parallelism = job->parallelism;
	for (size_t i = 0; i < descriptor->segment_count; i++)
		job->stages[i].parallelism = job->stages[i].out.parallelism = job->parallelism;
	for (size_t i = 0; i < descriptor->segment_count; i++)
		if (job->stages[i].runs) {
			connect_stage(job, &job->stages[i]);
			make_subtasks(&job->stages[i]);
		}
	for (size_t i = 0; job->alone == NULL && i < descriptor->sink_count; i++)
		for (size_t j = 0; j < descriptor->sinks[i].input_count; j++) {
			const struct input *input = &descriptor->sinks[i].inputs[j];
			struct kit_edge *edge = edge_add(producer_of(job, input, 0));
			edge->route = input->route;
			edge->sink = &job->sinks[i];
		}
	for (size_t i = 0; job->alone != NULL && i < job->sink_count; i++) {
		struct kit_edge *edge = edge_add(&job->stages[job->alone->id].out);
		edge->route = (uint32_t)i;
		edge->sink = &job->sinks[i];
	}
	for (size_t i = 0; i < job->source_count; i++)
		make_partitioners(&job->sources[i]);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		make_partitioners(&job->stages[i].out);
}

/* Takes a producer's edges away. */
static void producer_clear(struct kit_producer *producer)
{
	free(producer->edges);
	free(producer->partitioners);
	producer->edges = NULL;
	producer->partitioners = NULL;
	producer->edge_count = 0;
}

void kit_disconnect(struct kit_job *job)
{
	for (size_t i = 0; i < job->source_count; i++)
		producer_clear(&job->sources[i]);
	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		struct kit_stage *stage = &job->stages[i];
		producer_clear(&stage->out);
		for (uint32_t j = 0; stage->subtasks != NULL && j < stage->parallelism; j++) {
			struct kit_subtask *subtask = &stage->subtasks[j];
			for (; subtask->first < subtask->count; subtask->first++)
				free(subtask->queue[subtask->first].records);
			free(subtask->queue);
			watermark_valve_free(&subtask->valve);
		}
		free(stage->subtasks);
		stage->subtasks = NULL;
	}
}

/* The segment that a case runs alone; NULL and words when there is none of that name. */
static const struct segment *find_segment(struct kit_job *job, const char *name)
{
	char names[1024] = "";

	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		const struct segment *segment = &job->descriptor->segments[i];
		if (strcmp(segment->name, name) == 0)
			return segment;
		size_t used = strlen(names);
		snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", segment->name);
	}
	BREAK(job, "the pipeline has no segment \"%s\"; it has %s", name, names);
	return NULL;
}

/* What an input of a segment that runs alone is called: the source, or the segment, and its route if that has several. */
static const char *input_name(struct kit_job *job, const struct input *input)
{
	if (input->from_source)
		return job->descriptor->sources[input->index].name;
	const struct segment *from = &job->descriptor->segments[input->index];
	if (from->route_count == 0)
		return from->name;
	return pool_format(&job->pool, "%s.%s", from->name, from->routes[input->route]);
}

/* Makes sources and sinks of a pipeline. */
static void make_ends(struct kit_job *job)
{
	const struct descriptor *descriptor = job->descriptor;

	job->source_count = descriptor->source_count;
	job->sources = kit_need(calloc(job->source_count + 1, sizeof(*job->sources)));
	for (size_t i = 0; i < job->source_count; i++)
		job->sources[i] =
		    (struct kit_producer){.name = descriptor->sources[i].name,
					  .timestamp = descriptor->sources[i].timestamp,
					  .out_of_orderness_ms = descriptor->sources[i].out_of_orderness_ms,
					  .watermark = INT64_MIN};
	job->sink_count = descriptor->sink_count;
	job->sinks = kit_need(calloc(job->sink_count + 1, sizeof(*job->sinks)));
	for (size_t i = 0; i < job->sink_count; i++)
		job->sinks[i] = (struct kit_sink){.name = descriptor->sinks[i].name,
						  .discards = descriptor->sinks[i].kind == SINK_DISCARD};
}

/* Makes those of a segment that runs alone: its inputs and its routes. */
static void make_segment_ends(struct kit_job *job)
{
	const struct segment *segment = job->alone;

	job->source_count = segment->input_count;
	job->sources = kit_need(calloc(job->source_count + 1, sizeof(*job->sources)));
	for (size_t i = 0; i < job->source_count; i++) {
		const struct input *input = &segment->inputs[i];
		job->sources[i] = (struct kit_producer){.name = input_name(job, input), .watermark = INT64_MIN};
		if (!input->from_source)
			continue;
		job->sources[i].timestamp = job->descriptor->sources[input->index].timestamp;
		job->sources[i].out_of_orderness_ms = job->descriptor->sources[input->index].out_of_orderness_ms;
	}
	job->sink_count = segment->route_count > 0 ? segment->route_count : 1;
	job->sinks = kit_need(calloc(job->sink_count, sizeof(*job->sinks)));
	for (size_t i = 0; i < job->sink_count; i++)
		job->sinks[i].name = segment->route_count > 0 ? segment->routes[i] : "out";
}

bool kit_parallelism(struct kit_job *job, uint32_t parallelism)
{
	for (size_t i = 0; i < job->descriptor->segment_count; i++) {
		const struct segment *segment = &job->descriptor->segments[i];
		if (parallelism > segment->max_parallelism)
			return BREAK(job, "a parallelism of %u; the pipeline's max_parallelism is %u", parallelism,
				     segment->max_parallelism);
		for (size_t k = 0; k < segment->input_count && parallelism > 1; k++)
			if (segment->inputs[k].partition > PARTITION_HASH)
				return BREAK(job,
					     "a parallelism of %u; segment \"%s\" is read by the partition %s, which "
					     "only Flink has: with parallelism 1 it can be tested",
					     parallelism, segment->name, partition_name(segment->inputs[k].partition));
	}
	job->parallelism = parallelism;
	return true;
}

struct kit_sink *kit_job_sink(struct kit_job *job, const char *name)
{
	for (size_t i = 0; i < job->sink_count; i++)
		if (strcmp(job->sinks[i].name, name) == 0)
			return &job->sinks[i];
	return NULL;
}

bool kit_job_start(struct kit_job *job, const struct descriptor *descriptor, const struct kit_case *kit,
		   uint64_t patience_ms, int log)
{
	*job = (struct kit_job){.descriptor = descriptor,
				.now_ms = kit->start,
				.patience_ms = patience_ms,
				.log = log,
				.follows = kit->follows,
				.step = ""};
	job->slot.pidfd = -1;
	job->stages = kit_need(calloc(descriptor->segment_count, sizeof(*job->stages)));
	if (kit->segment != NULL && (job->alone = find_segment(job, kit->segment)) == NULL)
		return false;
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		job->stages[i].segment = &descriptor->segments[i];
		job->stages[i].runs = job->alone == NULL || job->alone == job->stages[i].segment;
	}
	if (job->alone != NULL)
		make_segment_ends(job);
	else
		make_ends(job);
	if (!kit_parallelism(job, kit->parallelism))
		return false;
	kit_connect(job);
	return kit_sessions_open(job) && kit_settle(job);
}

void kit_job_stop(struct kit_job *job)
{
	kit_slot_destroy(&job->slot);
	kit_disconnect(job);
	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		kit_states_free(&job->stages[i].states);
	for (size_t i = 0; i < job->sink_count; i++)
		free(job->sinks[i].records);
	free(job->stages);
	free(job->sources);
	free(job->sinks);
	wire_batch_free(&job->batch);
	pool_free(&job->pool);
}
