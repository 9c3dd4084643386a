/*
 * Cutting (cut.h). A step joins the segment of the one before it unless something stands between them:
 *
 *   - the one before closes its segment (key_by, route, broadcast);
 *   - it has several readers, or this step has several inputs;
 *   - the two differ in parallelism;
 *   - it says how it is to be fed: in turn, all of it to all subtasks, or by a program;
 *   - it reads the dead letters of the one before, and not its output;
 *   - there is none before: the step reads a source.
 *
 * A sink closes a segment by being no step. Segments are numbered in the order of their first steps, and a step comes after
 * what it reads from; so a segment reads only from segments of smaller ids.
 */
#include "descriptor/cut.h"

#include <string.h>

#include "descriptor/manifest.h"
#include "descriptor/routes.h"
#include "descriptor/topology.h"
#include "shared/log.h"

/* A pipeline on its way into segments. */
struct cutter {
	struct pipeline *pipeline;
	const struct reading *reading;
	struct segment *segments;
	size_t count;
	uint32_t *segment_of;             /* each step's */
	uint32_t *last_of;                /* each segment's last step, as an index of the pipeline */
	const struct step_spec **spec_of; /* each step's place in its segment */
	const struct node **named_at;     /* where each segment got its name, or NULL */
};

/* All readers of a step's outputs together. */
static uint32_t readers_of(const struct pipeline_step *step)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < (step->route_count == 0 ? 1 : step->route_count); i++)
		sum += step->readers[i];
	return sum;
}

/* The step that a step continues the segment of, or NULL when it begins one. */
static const struct pipeline_step *continued(const struct pipeline *pipeline, const struct pipeline_step *step)
{
	if (step->input_count != 1 || step->inputs[0].from_source || step->inputs[0].dead_letters ||
	    step->partition != PARTITION_FORWARD)
		return NULL;
	const struct pipeline_step *before = &pipeline->steps[step->inputs[0].index];
	bool joined = !step_closes_segment((enum step_kind)before->kind, before->route_count) &&
		      readers_of(before) == 1 && before->parallelism == step->parallelism;
	return joined ? before : NULL;
}

/* Puts a passthrough step between each source and each sink that reads it directly: a segment is what records go through. */
static void sources_to_sinks(struct cutter *cutter)
{
	struct pipeline *pipeline = cutter->pipeline;

	for (size_t i = 0; i < pipeline->sink_count; i++) {
		struct pipeline_sink *sink = &pipeline->sinks[i];
		for (size_t k = 0; k < sink->input_count; k++) {
			struct reference *input = &sink->inputs[k];
			if (!input->from_source)
				continue;
			const struct source *source = &pipeline->sources[input->index].source;
			struct pipeline_step *step = &pipeline->steps[pipeline->step_count];
			step->name = pool_format(cutter->reading->pool, "%s..%s", source->name, sink->sink.name);
			step->kind = STEP_passthrough;
			step->rules = pipeline->rules;
			step->at = sink->at;
			step->parallelism = source->parallelism;
			step->inputs = pool_alloc(cutter->reading->pool, sizeof(*step->inputs));
			step->inputs[0] = *input;
			step->input_count = 1;
			step->readers = pool_alloc(cutter->reading->pool, sizeof(uint32_t));
			step->readers[0] = 1;
			*input = (struct reference){
			    .node = input->node, .resolved = true, .index = (uint32_t)pipeline->step_count++};
		}
	}
}

/* Gives every step, in order, its segment. */
static void segments_assign(struct cutter *cutter)
{
	struct pipeline *pipeline = cutter->pipeline;
	size_t ordered = pipeline->step_count;

	sources_to_sinks(cutter);
	cutter->segment_of = pool_array(cutter->reading->pool, pipeline->step_count, sizeof(uint32_t));
	cutter->last_of = pool_array(cutter->reading->pool, pipeline->step_count, sizeof(uint32_t));
	for (size_t i = 0; i < pipeline->step_count; i++) {
		uint32_t index = i < ordered ? pipeline->order[i] : (uint32_t)i;
		const struct pipeline_step *before = continued(pipeline, &pipeline->steps[index]);
		uint32_t id = before == NULL ? (uint32_t)cutter->count : cutter->segment_of[before - pipeline->steps];
		cutter->count += before == NULL;
		cutter->segment_of[index] = id;
		cutter->last_of[id] = index;
	}
}

/* Whether a reference is to the output of a step. */
static bool is_output_of(const struct reference *reference, uint32_t index)
{
	return !reference->from_source && !reference->dead_letters && reference->index == index;
}

/* The sink or the step that is the only reader of a step; *sink is NULL when it is a step. */
static const struct pipeline_step *reader_of(const struct pipeline *pipeline, uint32_t index,
					     const struct pipeline_sink **sink)
{
	for (size_t i = 0; i < pipeline->step_count; i++) {
		for (size_t k = 0; k < pipeline->steps[i].input_count; k++) {
			if (is_output_of(&pipeline->steps[i].inputs[k], index))
				return &pipeline->steps[i];
		}
	}
	for (size_t i = 0; i < pipeline->sink_count; i++) {
		for (size_t k = 0; k < pipeline->sinks[i].input_count; k++) {
			if (is_output_of(&pipeline->sinks[i].inputs[k], index))
				*sink = &pipeline->sinks[i];
		}
	}
	return NULL;
}

/* Why a segment ends behind a step, for people. */
static const char *cut_reason(const struct cutter *cutter, uint32_t index)
{
	const struct pipeline *pipeline = cutter->pipeline;
	const struct pipeline_step *step = &pipeline->steps[index];
	struct pool *pool = cutter->reading->pool;
	const struct pipeline_sink *sink = NULL;
	uint32_t readers = readers_of(step);

	if (step->kind == STEP_key_by)
		return pool_format(pool, "%s is a key_by: what follows is partitioned by the key", step->name);
	if (step_closes_segment((enum step_kind)step->kind, step->route_count))
		return pool_format(pool, "%s is a %s%s: records leave it on %zu route%s", step->name,
				   step_kind_name((enum step_kind)step->kind),
				   step_kind_closes_segment((enum step_kind)step->kind) ? "" : " with routes",
				   step->route_count, step->route_count == 1 ? "" : "s");
	if (readers > 1)
		return pool_format(pool, "%s has %u readers", step->name, readers);
	const struct pipeline_step *reader = reader_of(pipeline, index, &sink);
	CHECK(reader != NULL || sink != NULL);
	if (reader == NULL)
		return pool_format(pool, "%s feeds sink %s", step->name, sink->sink.name);
	if (reader->input_count > 1)
		return pool_format(pool, "%s behind it joins %zu inputs", reader->name, reader->input_count);
	if (reader->partition != PARTITION_FORWARD)
		return pool_format(pool, "%s behind it has a partition of its own, %s", reader->name,
				   partition_name(reader->partition));
	return pool_format(pool, "%s behind it has parallelism %u, not %u", reader->name, reader->parallelism,
			   step->parallelism);
}

/* One input of a segment or sink. */
static struct input input_make(const struct cutter *cutter, const struct reference *reference, uint32_t parallelism)
{
	const struct pipeline *pipeline = cutter->pipeline;
	struct input input = {.from_source = reference->from_source, .route = reference->route};
	uint32_t feeding;

	if (reference->from_source) {
		input.index = reference->index;
		feeding = pipeline->sources[reference->index].source.parallelism;
	} else {
		input.index = cutter->segment_of[reference->index];
		feeding = pipeline->steps[reference->index].parallelism;
	}
	input.partition = feeding == parallelism ? PARTITION_FORWARD : PARTITION_REBALANCE;
	if (reference->dead_letters)
		input.route = cutter->spec_of[reference->index]->dead_letter_route;
	else if (!reference->from_source && pipeline->steps[reference->index].kind == STEP_key_by)
		input.partition = PARTITION_HASH;
	return input;
}

/* All inputs of a segment or sink. */
static struct input *inputs_make(const struct cutter *cutter, const struct reference *references, size_t count,
				 uint32_t parallelism)
{
	struct input *inputs = pool_array(cutter->reading->pool, count, sizeof(*inputs));

	for (size_t i = 0; i < count; i++)
		inputs[i] = input_make(cutter, &references[i], parallelism);
	return inputs;
}

/* Has the inputs of a segment partitioned as its first step says, if it does. */
static const struct input *partitions_set(const struct cutter *cutter, const struct pipeline_step *step,
					  struct input *inputs)
{
	for (size_t i = 0; i < step->input_count && step->partition != PARTITION_FORWARD; i++) {
		if (inputs[i].partition == PARTITION_HASH) {
			finding_hint(node_finding(cutter->reading->diagnostics, step->partition_at,
						  "what step \"%s\" reads is partitioned by its key", step->name),
				     "leave the partition away, or read something that is not behind a key_by");
			break;
		}
		inputs[i].partition = step->partition;
		inputs[i].partition_by = step->partition_by;
	}
	return inputs;
}

/* Sets what a segment has from its first step: inputs, parallelism, whether it is keyed. */
static void segment_begin(struct cutter *cutter, uint32_t id, const struct pipeline_step *step)
{
	struct segment *segment = &cutter->segments[id];
	size_t hashed = 0;

	segment->id = id;
	segment->parallelism = step->parallelism;
	segment->max_parallelism = cutter->pipeline->max_parallelism;
	segment->input_count = step->input_count;
	segment->inputs =
	    partitions_set(cutter, step, inputs_make(cutter, step->inputs, step->input_count, step->parallelism));
	for (size_t i = 0; i < segment->input_count; i++)
		hashed += segment->inputs[i].partition == PARTITION_HASH;
	segment->keyed = hashed > 0;
	if (hashed > 0 && hashed < segment->input_count)
		finding_hint(node_finding(cutter->reading->diagnostics, step->at,
					  "step \"%s\" joins inputs behind a key_by with others", step->name),
			     "join them first, and put the key_by behind that");
}

/* Takes the name that a step asks for its segment to have. */
static void segment_name_take(struct cutter *cutter, uint32_t id, const struct pipeline_step *step)
{
	struct segment *segment = &cutter->segments[id];

	if (step->segment == NULL)
		return;
	if (segment->name == NULL) {
		segment->name = step->segment;
		cutter->named_at[id] = step->segment_at;
	} else if (strcmp(segment->name, step->segment) != 0) {
		finding_hint(node_finding(cutter->reading->diagnostics, step->segment_at,
					  "step \"%s\" is in the segment \"%s\" already", step->name, segment->name),
			     "give one name for each segment; `bridgectl explain` shows what is in which");
	}
}

/* Makes a finding of a step that keeps something for each key where records are not partitioned by one, or the other way round. */
static void keys_check(const struct cutter *cutter, const struct segment *segment, const struct pipeline_step *step,
		       const struct step_spec *spec)
{
	enum step_kind kind = (enum step_kind)step->kind;

	if (segment->keyed && step_needs_no_keys(spec))
		finding_hint(
		    node_finding(cutter->reading->diagnostics, step->at,
				 "step \"%s\" declares a split or union state, and its records are partitioned by key",
				 step->name),
		    "`list` is the one that is kept by key");
	if (!segment->keyed && step_needs_keys(spec))
		finding_hint(
		    node_finding(
			cutter->reading->diagnostics, step->at,
			"step \"%s\" (%s) remembers something for each key, but its records are not partitioned by key",
			step->name, step_kind_name(kind)),
		    "add a key_by before it, with nothing between that ends a segment");
}

/* Copies a step into its place of a segment. */
static void step_copy(struct step_spec *to, const struct pipeline_step *step, struct pool *pool)
{
	to->name = step->name;
	to->kind = (enum step_kind)step->kind;
	step_fill(to, step->options, step->option_count, pool);
	to->policy = step->policy;
	to->rules = step->rules;
}

/* Gives all segments room for their steps. */
static struct step_spec **steps_make(struct cutter *cutter)
{
	struct pool *pool = cutter->reading->pool;
	struct step_spec **steps = pool_array(pool, cutter->count, sizeof(*steps));
	uint32_t passed = 0;

	for (size_t i = 0; i < cutter->pipeline->step_count; i++)
		cutter->segments[cutter->segment_of[i]].step_count++;
	for (size_t id = 0; id < cutter->count; id++) {
		steps[id] = pool_array(pool, cutter->segments[id].step_count, sizeof(**steps));
		cutter->segments[id].steps = steps[id];
		for (size_t i = 0; i < cutter->segments[id].step_count; i++)
			steps[id][i].index = passed++;
	}
	return steps;
}

/* Fills all segments with their steps, which stand in order, and with what they have by them. */
static void segments_fill(struct cutter *cutter, struct descriptor *descriptor)
{
	struct pipeline *pipeline = cutter->pipeline;
	struct pool *pool = cutter->reading->pool;
	struct step_spec **steps = steps_make(cutter);
	size_t *filled = pool_array(pool, cutter->count, sizeof(*filled));

	descriptor->step_count = (uint32_t)pipeline->step_count;
	cutter->spec_of = pool_array(pool, pipeline->step_count, sizeof(*cutter->spec_of));
	for (size_t i = 0; i < pipeline->step_count; i++) {
		uint32_t index = pipeline->order[i], id = cutter->segment_of[index];
		struct step_spec *step = &steps[id][filled[id]++];
		segment_name_take(cutter, id, &pipeline->steps[index]);
		step_copy(step, &pipeline->steps[index], pool);
		cutter->spec_of[index] = step;
	}
	for (size_t id = 0; id < cutter->count; id++)
		segment_routes_make(&cutter->segments[id], steps[id], pool);
	for (size_t i = 0; i < pipeline->step_count; i++) {
		uint32_t index = pipeline->order[i], id = cutter->segment_of[index];
		if (cutter->spec_of[index] == &steps[id][0])
			segment_begin(cutter, id, &pipeline->steps[index]);
		keys_check(cutter, &cutter->segments[id], &pipeline->steps[index], cutter->spec_of[index]);
	}
}

/* The name of a segment that nobody named. Checkpoints keep state by it: so a segment with state is called after the first step that
 * has some, wherever the cuts before and behind that fall. */
static const char *segment_name_make(const struct cutter *cutter, const struct segment *segment)
{
	const char *first = segment->steps[0].name, *last = segment->steps[segment->step_count - 1].name;
	struct state_spec state;

	if (segment_manifest(segment, &state, 1) > 0)
		return state.step;
	return segment->step_count == 1 ? first : pool_format(cutter->reading->pool, "%s..%s", first, last);
}

/* Names segments that nobody named, and ends them all. */
static void segments_finish(struct cutter *cutter)
{
	for (uint32_t id = 0; id < cutter->count; id++) {
		struct segment *segment = &cutter->segments[id];
		if (segment->name == NULL)
			segment->name = segment_name_make(cutter, segment);
		segment->cut = cut_reason(cutter, cutter->last_of[id]);
	}
	for (uint32_t id = 0; id < cutter->count; id++) {
		for (uint32_t other = 0; cutter->named_at[id] != NULL && other < cutter->count; other++) {
			if (other != id && strcmp(cutter->segments[other].name, cutter->segments[id].name) == 0 &&
			    (cutter->named_at[other] == NULL || other < id))
				node_finding(cutter->reading->diagnostics, cutter->named_at[id],
					     "another segment is called \"%s\" too", cutter->segments[id].name);
		}
	}
}

/* Fills sources and sinks. */
static void edges_fill(struct cutter *cutter, struct descriptor *descriptor)
{
	struct pipeline *pipeline = cutter->pipeline;
	struct source *sources = pool_array(cutter->reading->pool, pipeline->source_count, sizeof(*sources));
	struct sink *sinks = pool_array(cutter->reading->pool, pipeline->sink_count, sizeof(*sinks));

	for (size_t i = 0; i < pipeline->source_count; i++)
		sources[i] = pipeline->sources[i].source;
	for (size_t i = 0; i < pipeline->sink_count; i++) {
		const struct pipeline_sink *sink = &pipeline->sinks[i];
		sinks[i] = sink->sink;
		sinks[i].inputs = inputs_make(cutter, sink->inputs, sink->input_count, sink->sink.parallelism);
		sinks[i].input_count = sink->input_count;
	}
	descriptor->sources = sources;
	descriptor->source_count = pipeline->source_count;
	descriptor->sinks = sinks;
	descriptor->sink_count = pipeline->sink_count;
}

/* The steps in order, those between sources and sinks at the end. */
static void order_extend(struct cutter *cutter, size_t ordered)
{
	struct pipeline *pipeline = cutter->pipeline;
	uint32_t *order = pool_array(cutter->reading->pool, pipeline->step_count, sizeof(*order));

	for (size_t i = 0; i < pipeline->step_count; i++)
		order[i] = i < ordered ? pipeline->order[i] : (uint32_t)i;
	pipeline->order = order;
}

void pipeline_cut(struct pipeline *pipeline, const struct reading *reading, struct descriptor *descriptor)
{
	struct cutter cutter = {.pipeline = pipeline, .reading = reading};
	size_t ordered = pipeline->step_count;

	segments_assign(&cutter);
	order_extend(&cutter, ordered);
	if (cutter.count > DESCRIPTOR_SEGMENTS_MAX) {
		const struct pipeline_step *step = &pipeline->steps[cutter.last_of[DESCRIPTOR_SEGMENTS_MAX]];
		finding_hint(node_finding(reading->diagnostics, step->at,
					  "the pipeline falls into %zu segments; a slot can serve %d", cutter.count,
					  DESCRIPTOR_SEGMENTS_MAX),
			     "give steps the same parallelism, or make two pipelines of it");
		return;
	}
	cutter.segments = pool_array(reading->pool, cutter.count, sizeof(*cutter.segments));
	cutter.named_at = pool_array(reading->pool, cutter.count, sizeof(*cutter.named_at));
	descriptor->pipeline = pipeline->name;
	descriptor->drop_state = pipeline->drop_state;
	descriptor->drop_state_count = pipeline->drop_state_count;
	segments_fill(&cutter, descriptor);
	segments_finish(&cutter);
	edges_fill(&cutter, descriptor);
	descriptor->segments = cutter.segments;
	descriptor->segment_count = cutter.count;
	topology_hash(descriptor, descriptor->topology_hash);
}
