/*
 * A pipeline's document into its model (pipeline.h). What is broken keeps its place in the model, marked as such, so that
 * things which refer to it are not reported as well.
 */
#include "descriptor/pipeline.h"

#include <string.h>

/* Whether the part of a pipeline under some key is a collection of the right kind with so many entries at most. */
static bool part_fits(const struct reading *reading, const struct node *part, const char *what, enum node_kind kind,
		      size_t most)
{
	if (part->kind != kind) {
		if (part->kind != NODE_BROKEN)
			finding_expected(
			    node_finding(reading->diagnostics, part, "%s are %s", what, node_describe(part)), "%s",
			    kind == NODE_MAP ? "a map of names to `{ kind: ... }`" : "a list of `{ name, kind, ... }`");
		return false;
	}
	if (part->count == 0)
		node_finding(reading->diagnostics, part, "%s are empty", what);
	if (part->count > most)
		node_finding(reading->diagnostics, part, "%zu %s; at most %zu are allowed", part->count, what, most);
	return part->count <= most;
}

/* The entries of `sources`, `steps` or `sinks`: NULL and a finding when they are missing or no collection. */
static const struct node *part_find(const struct reading *reading, const struct document *document, const char *key,
				    bool needed, enum node_kind kind, size_t most)
{
	const struct node *part = node_find(document->root, key);

	if (part == NULL && needed)
		diagnostics_add(reading->diagnostics, (struct place){document->file, 0, 0}, "the pipeline has no %s",
				key);
	return part != NULL && part_fits(reading, part, key, kind, most) ? part : NULL;
}

/* Whether an entry is a map; a finding otherwise. */
static bool entry_is_map(const struct reading *reading, const struct node *entry, const char *what)
{
	if (entry->kind == NODE_MAP)
		return true;
	if (entry->kind != NODE_BROKEN)
		finding_expected(node_finding(reading->diagnostics, entry, "%s is %s", what, node_describe(entry)),
				 "a map: { kind: ..., ... }");
	return false;
}

/* The parallelism of a source or sink: its own, else the pipeline's; 1 where the kind is not split, or not unasked. */
static uint32_t edge_parallelism(const struct pipeline *pipeline, const struct reading *reading,
				 const struct node *entry, enum scope scope, unsigned kind)
{
	const struct node *node = node_find(entry, "parallelism");
	const struct kind_info *info = kind_info(scope, kind);
	uint32_t value = read_number(reading, node, "parallelism", 1, pipeline->max_parallelism,
				     info->split == SPLIT_ALWAYS ? pipeline->parallelism : 1);

	if (value > 1 && info->split == SPLIT_NEVER && node != NULL)
		node_finding(reading->diagnostics, node, "a %s of kind %s has parallelism 1, not %u", scope_name(scope),
			     info->name, value);
	return info->split != SPLIT_NEVER ? value : 1;
}

/* Reads one source. */
static void source_read(struct pipeline *pipeline, const struct reading *reading, const struct node *entry,
			struct pipeline_source *to)
{
	static const char *const own[] = {"kind", "parallelism"};
	char what[160];
	size_t count;

	to->at = entry->key;
	to->source.name = read_name(reading, entry->key, "the name of a source");
	snprintf(what, sizeof(what), "source \"%.80s\"", entry->key->text);
	if (!entry_is_map(reading, entry, what))
		return;
	int kind = read_kind(reading, entry, entry->key, SCOPE_SOURCE, what);
	if (kind < 0)
		return;
	check_option_keys(reading, entry, SCOPE_SOURCE, (unsigned)kind, what, own, 2);
	to->source.kind = (enum source_kind)kind;
	to->source.parallelism = edge_parallelism(pipeline, reading, entry, SCOPE_SOURCE, (unsigned)kind);
	const struct option *options =
	    read_options(reading, entry, entry->key, SCOPE_SOURCE, (unsigned)kind, what, &count);
	source_fill(&to->source, options, count);
}

/* Reads one sink. */
static void sink_read(struct pipeline *pipeline, const struct reading *reading, const struct node *entry,
		      struct pipeline_sink *to)
{
	static const char *const own[] = {"kind", "from", "parallelism"};
	char what[160];
	size_t count;

	to->at = entry->key;
	to->sink.name = read_name(reading, entry->key, "the name of a sink");
	snprintf(what, sizeof(what), "sink \"%.80s\"", entry->key->text);
	if (!entry_is_map(reading, entry, what))
		return;
	to->from = node_find(entry, "from");
	int kind = read_kind(reading, entry, entry->key, SCOPE_SINK, what);
	if (kind < 0)
		return;
	check_option_keys(reading, entry, SCOPE_SINK, (unsigned)kind, what, own, 3);
	to->sink.kind = (enum sink_kind)kind;
	to->sink.parallelism = edge_parallelism(pipeline, reading, entry, SCOPE_SINK, (unsigned)kind);
	const struct option *options =
	    read_options(reading, entry, entry->key, SCOPE_SINK, (unsigned)kind, what, &count);
	sink_fill(&to->sink, options, count);
}

/* Reads the name of a step, and says when it has none. */
static void step_name_read(const struct reading *reading, const struct node *entry, size_t number,
			   struct pipeline_step *to)
{
	const struct node *name = node_find(entry, "name");

	to->at = name == NULL ? entry : name;
	if (name != NULL)
		to->name = read_name(reading, name, "the name of a step");
	else
		node_finding(reading->diagnostics, entry, "step number %zu has no name", number);
}

/* Reads how a step wants its records to reach it, if it says so. */
static void partition_read(const struct reading *reading, const struct node *entry, struct pipeline_step *to)
{
	static const char *const words[] = {[PARTITION_REBALANCE] = "rebalance", [PARTITION_BROADCAST] = "broadcast"};
	const struct node *word = node_find(entry, "partition"), *by = node_find(entry, "partition_by");
	const char *text = word == NULL ? NULL : read_text(reading, word, "partition");

	to->partition_at = word != NULL ? word : by;
	if (word != NULL && by != NULL)
		node_finding(reading->diagnostics, by->key, "partition and partition_by: one of them says it");
	if (by != NULL) {
		to->partition = PARTITION_CUSTOM;
		to->partition_by = read_program(reading, by, "partition_by");
	}
	for (size_t i = 0; text != NULL && i < sizeof(words) / sizeof(*words); i++) {
		if (words[i] != NULL && strcmp(words[i], text) == 0)
			to->partition = (enum partition)i;
	}
	if (text != NULL && to->partition == PARTITION_FORWARD)
		finding_expected(node_finding(reading->diagnostics, word, "partition cannot be \"%.80s\"", text),
				 "rebalance or broadcast; or, in its place, partition_by: PROGRAM");
}

/* Reads one step; `number` counts from 1. */
static void step_read(struct pipeline *pipeline, const struct reading *reading, const struct node *entry, size_t number,
		      struct pipeline_step *to)
{
	static const char *const own[] = {
	    "name", "kind", "from", "parallelism", "segment", "on_error", "partition", "partition_by",
#define STEP_RULE(name, type, fallback, least, most, help) #name,
#include "descriptor/steps.def"
	};
	const struct node *policy = node_find(entry, "on_error");
	char what[160];

	to->kind = -1;
	to->at = entry;
	to->parallelism = pipeline->parallelism;
	to->policy = pipeline->policy;
	to->rules = pipeline->rules;
	snprintf(what, sizeof(what), "step number %zu", number);
	if (!entry_is_map(reading, entry, what))
		return;
	step_name_read(reading, entry, number, to);
	if (to->name != NULL)
		snprintf(what, sizeof(what), "step \"%s\"", to->name);
	to->from = node_find(entry, "from");
	to->segment_at = node_find(entry, "segment");
	if (to->segment_at != NULL)
		to->segment = read_name(reading, to->segment_at, "the name of a segment");
	to->parallelism = read_number(reading, node_find(entry, "parallelism"), "parallelism", 1,
				      pipeline->max_parallelism, pipeline->parallelism);
	to->policy = read_error_policy(reading, policy, "on_error", pipeline->policy);
	to->policy_own = policy != NULL;
	partition_read(reading, entry, to);
	to->rules = read_error_rules(reading, entry, what, &pipeline->rules);
	to->kind = read_kind(reading, entry, to->at, SCOPE_STEP, what);
	if (to->kind < 0)
		return;
	check_option_keys(reading, entry, SCOPE_STEP, (unsigned)to->kind, what, own, sizeof(own) / sizeof(*own));
	to->options = read_options(reading, entry, to->at, SCOPE_STEP, (unsigned)to->kind, what, &to->option_count);
	const struct option *routes = routes_option(to->options, to->option_count);
	to->routes = routes == NULL ? NULL : routes->items;
	to->route_count = routes == NULL ? 0 : routes->item_count;
}

/* Whether two paths are given and the same. */
static bool paths_equal(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/* Makes findings of files that two sinks write, or that are read as well, and of standard input read twice. */
static void paths_check(const struct pipeline *pipeline, const struct reading *reading)
{
	for (size_t i = 0; i < pipeline->source_count; i++) {
		const struct pipeline_source *source = &pipeline->sources[i];
		for (size_t k = 0; k < i; k++) {
			if (paths_equal(source->source.path, "-") && paths_equal(pipeline->sources[k].source.path, "-"))
				node_finding(reading->diagnostics, source->at, "a second source reads standard input");
		}
	}
	for (size_t i = 0; i < pipeline->sink_count; i++) {
		const struct pipeline_sink *sink = &pipeline->sinks[i];
		if (sink->sink.path == NULL || strcmp(sink->sink.path, "-") == 0)
			continue;
		for (size_t k = 0; k < i; k++) {
			if (paths_equal(sink->sink.path, pipeline->sinks[k].sink.path))
				finding_hint(node_finding(reading->diagnostics, sink->at,
							  "a second sink writes the file \"%.200s\"", sink->sink.path),
					     "one sink may read several steps: from: [a, b]");
		}
		for (size_t k = 0; k < pipeline->source_count; k++) {
			if (paths_equal(sink->sink.path, pipeline->sources[k].source.path))
				node_finding(reading->diagnostics, sink->at,
					     "the file \"%.200s\" is read by a source and written here",
					     sink->sink.path);
		}
	}
}

/* Reads what stands at the top of a pipeline's file. */
static void head_read(struct pipeline *pipeline, const struct reading *reading, const struct document *document)
{
	static const char *const keys[] = {
	    "name", "parallelism", "max_parallelism", "on_error", "drop_state", "sources", "steps", "sinks",
#define STEP_RULE(name, type, fallback, least, most, help) #name,
#include "descriptor/steps.def"
	};
	const struct node *root = document->root, *name = node_find(root, "name");
	const struct node *parallelism = node_find(root, "parallelism");

	node_check_keys(root, "the pipeline", keys, sizeof(keys) / sizeof(*keys), reading->diagnostics);
	if (name != NULL)
		pipeline->name = read_name(reading, name, "the name of the pipeline");
	else
		finding_expected(diagnostics_add(reading->diagnostics, (struct place){document->file, 0, 0},
						 "the pipeline has no name"),
				 "name: my-pipeline");
	pipeline->max_parallelism = read_number(reading, node_find(root, "max_parallelism"), "max_parallelism", 1,
						DESCRIPTOR_PARALLELISM_MAX, 128);
	pipeline->parallelism = read_number(reading, parallelism, "parallelism", 1, pipeline->max_parallelism, 1);
	pipeline->drop_state =
	    read_state_names(reading, node_find(root, "drop_state"), "drop_state", &pipeline->drop_state_count);
	pipeline->policy_at = node_find(root, "on_error");
	pipeline->policy = read_error_policy(reading, pipeline->policy_at, "on_error", ON_ERROR_FAIL);
	pipeline->rules = read_error_rules(reading, root, "the pipeline", NULL);
}

void pipeline_read(struct pipeline *pipeline, const struct reading *reading, const struct document *document)
{
	size_t i = 0;

	*pipeline = (struct pipeline){.parallelism = 1, .max_parallelism = 128};
	if (document->root->kind != NODE_MAP) {
		node_finding(reading->diagnostics, document->root, "a pipeline is a map, but here is %s",
			     node_describe(document->root));
		return;
	}
	head_read(pipeline, reading, document);
	const struct node *sources = part_find(reading, document, "sources", true, NODE_MAP, DESCRIPTOR_SOURCES_MAX);
	const struct node *steps = part_find(reading, document, "steps", false, NODE_LIST, DESCRIPTOR_STEPS_MAX);
	const struct node *sinks = part_find(reading, document, "sinks", true, NODE_MAP, DESCRIPTOR_SINKS_MAX);
	pipeline->source_count = sources == NULL ? 0 : sources->count;
	pipeline->step_count = steps == NULL ? 0 : steps->count;
	pipeline->sink_count = sinks == NULL ? 0 : sinks->count;
	pipeline->sources = pool_array(reading->pool, pipeline->source_count, sizeof(*pipeline->sources));
	/* Room for a step between each source and each sink that reads it directly. */
	pipeline->steps = pool_array(reading->pool, pipeline->step_count + pipeline->sink_count * DESCRIPTOR_INPUTS_MAX,
				     sizeof(*pipeline->steps));
	pipeline->sinks = pool_array(reading->pool, pipeline->sink_count, sizeof(*pipeline->sinks));
	for (const struct node *entry = sources == NULL ? NULL : sources->first; entry != NULL; entry = entry->next)
		source_read(pipeline, reading, entry, &pipeline->sources[i++]);
	i = 0;
	for (const struct node *entry = steps == NULL ? NULL : steps->first; entry != NULL; entry = entry->next, i++)
		step_read(pipeline, reading, entry, i + 1, &pipeline->steps[i]);
	i = 0;
	for (const struct node *entry = sinks == NULL ? NULL : sinks->first; entry != NULL; entry = entry->next)
		sink_read(pipeline, reading, entry, &pipeline->sinks[i++]);
	paths_check(pipeline, reading);
}
