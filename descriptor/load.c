/*
 * A descriptor out of its file (descriptor.h). The options go through the same readers as a pipeline's; what the compiler
 * guarantees about segments, inputs and routes is checked again here, because everybody behind this believes it:
 *
 *   - segments stand in the order of their ids, and read only from sources and from segments of smaller ids;
 *   - what leaves a key_by is partitioned by hash, nothing else is, and a segment is keyed if all of its inputs are;
 *   - a step that keeps state by key is in a segment that is keyed;
 *   - forward joins equal parallelism;
 *   - a step that closes a segment is its last, and the segment's routes are that step's;
 *   - the topology hash is that of the file.
 */
#include <string.h>

#include "descriptor/load.h"
#include "descriptor/manifest.h"
#include "descriptor/options.h"
#include "descriptor/routes.h"
#include "descriptor/topology.h"

/* A descriptor written out of the largest pipeline fits into these. */
const struct document_limits document_limits_descriptor = {16 << 20, (size_t)4 * DOCUMENT_NODES_MAX};

/* Those of a pipeline, and one for each segment that only joins a source to a sink. */
enum { STEPS_MAX = DESCRIPTOR_STEPS_MAX + DESCRIPTOR_SEGMENTS_MAX };

/* One loading at work. */
struct loader {
	struct descriptor *descriptor;
	struct reading reading;
	const struct document *document;
	struct source *sources;
	struct segment *segments;
	struct sink *sinks;
	const struct node **segment_at; /* the configs of the segments */
	const struct node *hash_at;
};

/* A finding at a node. */
#define FIND(loader, node, ...) node_finding((loader)->reading.diagnostics, node, __VA_ARGS__)

/* The value of a key that has to be there; NULL and a finding otherwise. */
static const struct node *needed(struct loader *loader, const struct node *map, const char *key, const char *what)
{
	const struct node *node = node_find(map, key);

	if (node == NULL && map->kind == NODE_MAP)
		FIND(loader, map, "%s has no \"%s\"", what, key);
	return node;
}

/* Whether a node is a map, or a list; a finding otherwise. */
static bool is_kind(struct loader *loader, const struct node *node, enum node_kind kind, const char *what)
{
	if (node != NULL && node->kind != kind && node->kind != NODE_BROKEN)
		finding_expected(FIND(loader, node, "%s is %s", what, node_describe(node)), "%s",
				 kind == NODE_MAP ? "a map" : "a list");
	return node != NULL && node->kind == kind;
}

/* Text that has to be there; "" after a finding. */
static const char *needed_text(struct loader *loader, const struct node *map, const char *key, const char *what)
{
	const struct node *node = needed(loader, map, key, what);
	const char *text = node == NULL ? NULL : read_text(&loader->reading, node, key);

	return text == NULL ? "" : text;
}

/* A number that has to be there; `least` after a finding. */
static uint32_t needed_number(struct loader *loader, const struct node *map, const char *key, const char *what,
			      uint32_t least, uint32_t most)
{
	const struct node *node = needed(loader, map, key, what);

	return read_number(&loader->reading, node, key, least, most, least);
}

/* Reads the sources. */
static void sources_load(struct loader *loader, const struct node *sources)
{
	static const char *const own[] = {"kind", "parallelism"};
	size_t i = 0, count;

	for (const struct node *entry = sources->first; entry != NULL; entry = entry->next, i++) {
		struct source *source = &loader->sources[i];
		char what[160];
		snprintf(what, sizeof(what), "source \"%.80s\"", entry->key->text);
		source->name = read_name(&loader->reading, entry->key, "the name of a source");
		int kind = is_kind(loader, entry, NODE_MAP, what)
			       ? read_kind(&loader->reading, entry, entry, SCOPE_SOURCE, what)
			       : -1;
		if (kind < 0)
			continue;
		check_option_keys(&loader->reading, entry, SCOPE_SOURCE, (unsigned)kind, what, own, 2);
		source->kind = (enum source_kind)kind;
		source->parallelism = needed_number(loader, entry, "parallelism", what, 1, DESCRIPTOR_PARALLELISM_MAX);
		const struct option *options =
		    read_options(&loader->reading, entry, entry, SCOPE_SOURCE, (unsigned)kind, what, &count);
		source_fill(source, options, count);
	}
}

/* Reads the sinks, but for their inputs. */
static void sinks_load(struct loader *loader, const struct node *sinks)
{
	static const char *const own[] = {"kind", "parallelism", "inputs"};
	size_t i = 0, count;

	for (const struct node *entry = sinks->first; entry != NULL; entry = entry->next, i++) {
		struct sink *sink = &loader->sinks[i];
		char what[160];
		snprintf(what, sizeof(what), "sink \"%.80s\"", entry->key->text);
		sink->name = read_name(&loader->reading, entry->key, "the name of a sink");
		int kind = is_kind(loader, entry, NODE_MAP, what)
			       ? read_kind(&loader->reading, entry, entry, SCOPE_SINK, what)
			       : -1;
		if (kind < 0)
			continue;
		check_option_keys(&loader->reading, entry, SCOPE_SINK, (unsigned)kind, what, own, 3);
		sink->kind = (enum sink_kind)kind;
		sink->parallelism = needed_number(loader, entry, "parallelism", what, 1, DESCRIPTOR_PARALLELISM_MAX);
		const struct option *options =
		    read_options(&loader->reading, entry, entry, SCOPE_SINK, (unsigned)kind, what, &count);
		sink_fill(sink, options, count);
	}
}

/* Reads one step of a chain. */
static void step_load(struct loader *loader, const struct node *node, struct step_spec *step)
{
	static const char *const own[] = {
	    "name",
	    "kind",
	    "on_error",
#define STEP_RULE(name, type, fallback, least, most, help) #name,
#include "descriptor/steps.def"
	};
	const char *what = "a step of the chain";

	if (!is_kind(loader, node, NODE_MAP, what))
		return;
	const struct node *name = needed(loader, node, "name", what);
	step->name = name == NULL ? NULL : read_joined_name(&loader->reading, name, "the name of a step");
	int kind = read_kind(&loader->reading, node, node, SCOPE_STEP, what);
	if (kind < 0)
		return;
	check_option_keys(&loader->reading, node, SCOPE_STEP, (unsigned)kind, what, own, sizeof(own) / sizeof(*own));
	step->rules = read_error_rules(&loader->reading, node, what, NULL);
	step->policy =
	    read_error_policy(&loader->reading, needed(loader, node, "on_error", what), "on_error", ON_ERROR_FAIL);
	step->kind = (enum step_kind)kind;
	size_t count;
	const struct option *options =
	    read_options(&loader->reading, node, node, SCOPE_STEP, (unsigned)kind, what, &count);
	step_fill(step, options, count, loader->reading.pool);
	const struct option *routes = routes_option(step->options, step->option_count);
	if (step_closes_segment(step->kind, routes == NULL ? 0 : routes->item_count) && node->next != NULL)
		FIND(loader, node, "a %s in the middle of a chain: it has to be the last step",
		     step_kind_name(step->kind));
}

/* Reads the chain of a segment. */
static void chain_load(struct loader *loader, const struct node *config, struct segment *segment)
{
	const struct node *chain = needed(loader, config, "chain", "the config");

	if (!is_kind(loader, chain, NODE_LIST, "the chain"))
		return;
	if (chain->count == 0 || chain->count + loader->descriptor->step_count > STEPS_MAX) {
		FIND(loader, chain, chain->count == 0 ? "the chain is empty" : "too many steps in one descriptor");
		return;
	}
	struct step_spec *steps = pool_array(loader->reading.pool, chain->count, sizeof(*steps));
	size_t i = 0;
	for (const struct node *node = chain->first; node != NULL; node = node->next, i++) {
		step_load(loader, node, &steps[i]);
		steps[i].index = loader->descriptor->step_count++;
	}
	segment->steps = steps;
	segment->step_count = chain->count;
	segment_routes_make(segment, steps, loader->reading.pool);
}

/* Compares the routes of a segment with those that its steps make. */
static void routes_load(struct loader *loader, const struct node *config, const struct segment *segment)
{
	const struct node *node = node_find(config, "routes"), *item = node == NULL ? NULL : node->first;
	bool same =
	    node == NULL ? segment->route_count == 0 : node->kind == NODE_LIST && node->count == segment->route_count;

	for (size_t i = 0; i < segment->route_count; i++) {
		same = same && item != NULL && item->kind == NODE_SCALAR && strcmp(item->text, segment->routes[i]) == 0;
		item = item == NULL ? NULL : item->next;
	}
	if (!same)
		FIND(loader, node == NULL ? config : node,
		     "the routes of the segment are not those of its last step and of its dead letters");
}

/* Reads a boolean that has to be there. */
static bool needed_bool(struct loader *loader, const struct node *map, const char *key, const char *what)
{
	const struct node *node = needed(loader, map, key, what);

	if (node == NULL || (node->kind == NODE_SCALAR && strcmp(node->text, "false") == 0))
		return false;
	if (node->kind != NODE_SCALAR || strcmp(node->text, "true") != 0)
		finding_expected(FIND(loader, node, "\"%s\" is neither true nor false", key), "true or false");
	return true;
}

/* Whether two lists of states to drop are the same. */
static bool drops_equal(const struct state_name *a, size_t a_count, const struct state_name *b, size_t b_count)
{
	bool equal = a_count == b_count;

	for (size_t i = 0; i < a_count && equal; i++)
		equal = strcmp(a[i].step, b[i].step) == 0 && strcmp(a[i].name, b[i].name) == 0;
	return equal;
}

/* Reads what all segments of a descriptor say alike: the pipeline, its hash, and what it drops. */
static void identity_load(struct loader *loader, const struct node *config)
{
	struct descriptor *descriptor = loader->descriptor;
	const char *pipeline = needed_text(loader, config, "pipeline", "the config");
	const char *hash = needed_text(loader, config, "topology_hash", "the config");
	size_t drop_count;
	const struct state_name *drops =
	    read_state_names(&loader->reading, node_find(config, "drop_state"), "drop_state", &drop_count);

	if (descriptor->pipeline == NULL) { /* the first segment that can be read */
		descriptor->pipeline = pipeline;
		descriptor->drop_state = drops;
		descriptor->drop_state_count = drop_count;
		loader->hash_at = node_find(config, "topology_hash");
		snprintf(descriptor->topology_hash, sizeof(descriptor->topology_hash), "%s", hash);
		return;
	}
	if (strcmp(pipeline, descriptor->pipeline) != 0)
		FIND(loader, config, "this segment is of pipeline \"%.80s\", the first of \"%.80s\"", pipeline,
		     descriptor->pipeline);
	if (strcmp(hash, descriptor->topology_hash) != 0)
		FIND(loader, config, "this segment has another topology hash than the first");
	if (!drops_equal(drops, drop_count, descriptor->drop_state, descriptor->drop_state_count))
		FIND(loader, config, "this segment drops other states than the first");
}

/* Reads one segment, but for its inputs. */
static void segment_load(struct loader *loader, const struct node *entry, size_t index)
{
	static const char *const outer[] = {"step_name", "config"};
	static const char *const keys[] = {"format_version", "pipeline",        "topology_hash", "id",
					   "parallelism",    "max_parallelism", "keyed",         "cut",
					   "drop_state",     "inputs",          "routes",        "chain"};
	struct segment *segment = &loader->segments[index];

	if (!is_kind(loader, entry, NODE_MAP, "a segment"))
		return;
	node_check_keys(entry, "a segment", outer, 2, loader->reading.diagnostics);
	const struct node *name = needed(loader, entry, "step_name", "the segment");
	const struct node *config = needed(loader, entry, "config", "the segment");
	segment->name = name == NULL ? NULL : read_joined_name(&loader->reading, name, "the name of a segment");
	if (!is_kind(loader, config, NODE_MAP, "the config"))
		return;
	loader->segment_at[index] = config;
	node_check_keys(config, "the config", keys, 12, loader->reading.diagnostics);
	identity_load(loader, config);
	needed_number(loader, config, "format_version", "the config", DESCRIPTOR_FORMAT_VERSION,
		      DESCRIPTOR_FORMAT_VERSION);
	segment->id = needed_number(loader, config, "id", "the config", 0, DESCRIPTOR_SEGMENTS_MAX - 1);
	if (segment->id != index && node_find(config, "id") != NULL)
		finding_expected(FIND(loader, node_find(config, "id"), "segments are out of order: id %u", segment->id),
				 "id: %zu", index);
	segment->max_parallelism =
	    needed_number(loader, config, "max_parallelism", "the config", 1, DESCRIPTOR_PARALLELISM_MAX);
	segment->parallelism = needed_number(loader, config, "parallelism", "the config", 1, segment->max_parallelism);
	segment->keyed = needed_bool(loader, config, "keyed", "the config");
	segment->cut = needed_text(loader, config, "cut", "the config");
	chain_load(loader, config, segment);
	if (segment->step_count > 0)
		routes_load(loader, config, segment);
}

/* The index of a name among sources, or among segments before `before`; -1 and a finding when there is none. */
static long input_find(struct loader *loader, const struct node *node, bool source, size_t before)
{
	const struct descriptor *descriptor = loader->descriptor;
	size_t count = source ? descriptor->source_count : before;

	for (size_t i = 0; node->kind == NODE_SCALAR && i < count; i++) {
		const char *name = source ? loader->sources[i].name : loader->segments[i].name;
		if (name != NULL && strcmp(name, node->text) == 0)
			return (long)i;
	}
	FIND(loader, node, "there is no %s \"%.130s\"%s", source ? "source" : "segment",
	     node->kind == NODE_SCALAR ? node->text : "?", source ? "" : " before this");
	return -1;
}

/* Finds the route that an input names. */
static void input_route_load(struct loader *loader, const struct node *node, const struct segment *segment,
			     struct input *input)
{
	const struct node *route = node_find(node, "route");

	if (route == NULL && segment->route_count > 0)
		FIND(loader, node, "the input has no \"route\", but segment \"%s\" has routes", segment->name);
	if (route == NULL)
		return;
	while (input->route < segment->route_count &&
	       (route->kind != NODE_SCALAR || strcmp(segment->routes[input->route], route->text) != 0))
		input->route++;
	if (input->route == segment->route_count)
		FIND(loader, route, "segment \"%s\" has no such route", segment->name);
}

/* Reads the partition of an input and checks it against both of its ends. */
static void input_partition_load(struct loader *loader, const struct node *node, uint32_t parallelism,
				 struct input *input)
{
	const struct node *partition = needed(loader, node, "partition", "the input");
	const struct segment *segment = input->from_source ? NULL : &loader->segments[input->index];
	uint32_t feeding = segment == NULL ? loader->sources[input->index].parallelism : segment->parallelism;
	bool keyed = segment != NULL && segment->step_count > 0 && input->route == 0 &&
		     segment->steps[segment->step_count - 1].kind == STEP_key_by;

	if (partition == NULL)
		return;
	for (int i = PARTITION_COUNT - 1; i >= 0; i--) {
		input->partition = (enum partition)i;
		if (partition->kind == NODE_SCALAR && strcmp(partition_name(input->partition), partition->text) == 0)
			break;
		if (i == 0)
			finding_expected(FIND(loader, partition, "no partition"),
					 "forward, rebalance, hash, broadcast or custom");
	}
	if (keyed != (input->partition == PARTITION_HASH))
		FIND(loader, partition, "records are partitioned by hash behind a key_by, and only there");
	else if (input->partition == PARTITION_FORWARD && feeding != parallelism)
		FIND(loader, partition, "forward between parallelism %u and %u", feeding, parallelism);
}

/* Reads the program by which an input is partitioned. */
static void input_program_load(struct loader *loader, const struct node *node, struct input *input)
{
	const struct node *program = node_find(node, "partition_by");

	if ((program != NULL) != (input->partition == PARTITION_CUSTOM))
		FIND(loader, program == NULL ? node : program,
		     "\"partition_by\" belongs to the partition custom, and only there");
	else if (program != NULL)
		input->partition_by = read_program(&loader->reading, program, "partition_by");
}

/* Reads one input. */
static void input_load(struct loader *loader, const struct node *node, uint32_t parallelism, size_t before,
		       struct input *input)
{
	static const char *const keys[] = {"source", "segment", "route", "partition", "partition_by"};

	if (!is_kind(loader, node, NODE_MAP, "an input"))
		return;
	node_check_keys(node, "an input", keys, 5, loader->reading.diagnostics);
	const struct node *source = node_find(node, "source"), *segment = node_find(node, "segment");
	if ((source == NULL) == (segment == NULL)) {
		finding_expected(FIND(loader, node, "an input is a source or a segment"),
				 "source: NAME or segment: NAME");
		return;
	}
	input->from_source = source != NULL;
	long index = input_find(loader, input->from_source ? source : segment, input->from_source, before);
	if (index < 0)
		return;
	input->index = (uint32_t)index;
	if (!input->from_source)
		input_route_load(loader, node, &loader->segments[index], input);
	input_partition_load(loader, node, parallelism, input);
	input_program_load(loader, node, input);
}

/* Reads all inputs of a segment or sink. */
static const struct input *inputs_load(struct loader *loader, const struct node *map, uint32_t parallelism,
				       size_t before, size_t *count)
{
	const struct node *list = map == NULL ? NULL : needed(loader, map, "inputs", "this");
	size_t i = 0;

	if (list == NULL || !is_kind(loader, list, NODE_LIST, "inputs"))
		return NULL;
	if (list->count == 0 || list->count > DESCRIPTOR_INPUTS_MAX)
		finding_expected(FIND(loader, list, "%zu inputs", list->count), "1 to %d", DESCRIPTOR_INPUTS_MAX);
	struct input *inputs = pool_array(loader->reading.pool, list->count, sizeof(*inputs));
	for (const struct node *node = list->first; node != NULL; node = node->next, i++)
		input_load(loader, node, parallelism, before, &inputs[i]);
	*count = list->count;
	return inputs;
}

/* Makes findings of steps that need keys in a segment without. */
static void keys_check(struct loader *loader, size_t index)
{
	const struct segment *segment = &loader->segments[index];

	for (size_t i = 0; i < segment->step_count && loader->segment_at[index] != NULL; i++) {
		const struct step_spec *step = &segment->steps[i];
		if (segment->keyed && step->name != NULL && step_needs_no_keys(step))
			FIND(loader, loader->segment_at[index],
			     "step \"%s\" declares a split or union state in a segment that is keyed", step->name);
		if (!segment->keyed && step->name != NULL && step_needs_keys(step))
			FIND(loader, loader->segment_at[index], "step \"%s\" (%s) is in a segment that is not keyed",
			     step->name, step_kind_name(step->kind));
	}
}

/* Reads the inputs of all segments and sinks. */
static void all_inputs_load(struct loader *loader, const struct node *sinks)
{
	const struct node *entry = sinks->first;

	for (size_t i = 0; i < loader->descriptor->segment_count; i++) {
		struct segment *segment = &loader->segments[i];
		size_t hashed = 0;
		segment->inputs =
		    inputs_load(loader, loader->segment_at[i], segment->parallelism, i, &segment->input_count);
		for (size_t k = 0; k < segment->input_count; k++)
			hashed += segment->inputs[k].partition == PARTITION_HASH;
		if (loader->segment_at[i] != NULL && (hashed != (segment->keyed ? segment->input_count : 0)))
			FIND(loader, loader->segment_at[i],
			     "a segment is keyed if all of its inputs are, and only then");
		keys_check(loader, i);
	}
	for (size_t i = 0; i < loader->descriptor->sink_count; i++, entry = entry->next) {
		if (entry->kind == NODE_MAP)
			loader->sinks[i].inputs =
			    inputs_load(loader, entry, loader->sinks[i].parallelism, loader->descriptor->segment_count,
					&loader->sinks[i].input_count);
	}
}

/* Whether a step before the one at (id, at) has its name. */
static bool step_name_is_taken(const struct loader *loader, size_t id, size_t at, const char *name)
{
	for (size_t i = 0; i <= id; i++) {
		const struct segment *segment = &loader->segments[i];
		for (size_t k = 0; k < (i == id ? at : segment->step_count); k++) {
			if (segment->steps[k].name != NULL && strcmp(segment->steps[k].name, name) == 0)
				return true;
		}
	}
	return false;
}

/* Makes findings of segments, and of steps, that have one name. */
static void names_check(struct loader *loader)
{
	for (size_t i = 0; i < loader->descriptor->segment_count; i++) {
		const struct segment *segment = &loader->segments[i];
		for (size_t k = 0; k < i && segment->name != NULL && loader->segment_at[i] != NULL; k++) {
			if (loader->segments[k].name != NULL && strcmp(segment->name, loader->segments[k].name) == 0)
				FIND(loader, loader->segment_at[i], "a second segment of the name \"%s\"",
				     segment->name);
		}
		for (size_t k = 0; k < segment->step_count; k++) {
			const char *name = segment->steps[k].name;
			if (name != NULL && step_name_is_taken(loader, i, k, name))
				FIND(loader, loader->segment_at[i], "a second step of the name \"%s\"", name);
		}
	}
}

/* Whether the file is of a version that is understood; a finding otherwise. */
static bool version_check(struct loader *loader, const struct node *steps)
{
	const struct node *config = steps->first == NULL ? NULL : node_find(steps->first, "config");
	const struct node *version = config == NULL ? NULL : node_find(config, "format_version");

	if (version == NULL || version->kind != NODE_SCALAR || strcmp(version->text, "1") == 0)
		return true; /* what is missing or misshapen is found with everything else */
	finding_hint(FIND(loader, version, "a descriptor of another format version; this program reads version %d",
			  DESCRIPTOR_FORMAT_VERSION),
		     "compile the pipeline again with this version of bridgectl");
	return false;
}

/* Compares the hash in the file with that of what was read. */
static void hash_check(struct loader *loader)
{
	char hash[33];

	topology_hash(loader->descriptor, hash);
	if (strcmp(hash, loader->descriptor->topology_hash) == 0)
		return;
	struct finding *finding = FIND(loader, loader->hash_at, "the topology hash is not that of this file");
	finding_expected(finding, "%s", hash);
	finding_hint(finding, "the file was edited: change the pipeline instead, and compile it again");
}

/* Reads the tree. */
static void tree_load(struct loader *loader)
{
	static const char *const keys[] = {"sources", "steps", "sinks"};
	struct descriptor *descriptor = loader->descriptor;
	const struct node *root = loader->document->root;
	size_t index = 0;

	if (!is_kind(loader, root, NODE_MAP, "a descriptor"))
		return;
	node_check_keys(root, "a descriptor", keys, 3, loader->reading.diagnostics);
	const struct node *sources = needed(loader, root, "sources", "the descriptor");
	const struct node *steps = needed(loader, root, "steps", "the descriptor");
	const struct node *sinks = needed(loader, root, "sinks", "the descriptor");
	if (!is_kind(loader, sources, NODE_MAP, "sources") || !is_kind(loader, steps, NODE_LIST, "steps") ||
	    !is_kind(loader, sinks, NODE_MAP, "sinks") || !version_check(loader, steps))
		return;
	if (steps->count == 0 || steps->count > DESCRIPTOR_SEGMENTS_MAX) {
		finding_expected(FIND(loader, steps, "%zu segments", steps->count), "1 to %d", DESCRIPTOR_SEGMENTS_MAX);
		return;
	}
	if (sources->count == 0 || sources->count > DESCRIPTOR_SOURCES_MAX || sinks->count == 0 ||
	    sinks->count > DESCRIPTOR_SINKS_MAX) {
		FIND(loader, root, "%zu sources and %zu sinks; at least one of each, at most %d", sources->count,
		     sinks->count, DESCRIPTOR_SINKS_MAX);
		return;
	}
	loader->sources = pool_array(loader->reading.pool, sources->count, sizeof(*loader->sources));
	loader->segments = pool_array(loader->reading.pool, steps->count, sizeof(*loader->segments));
	loader->segment_at = pool_array(loader->reading.pool, steps->count, sizeof(*loader->segment_at));
	loader->sinks = pool_array(loader->reading.pool, sinks->count, sizeof(*loader->sinks));
	descriptor->sources = loader->sources;
	descriptor->source_count = sources->count;
	descriptor->segments = loader->segments;
	descriptor->segment_count = steps->count;
	descriptor->sinks = loader->sinks;
	descriptor->sink_count = sinks->count;
	sources_load(loader, sources);
	for (const struct node *entry = steps->first; entry != NULL; entry = entry->next)
		segment_load(loader, entry, index++);
	sinks_load(loader, sinks);
	all_inputs_load(loader, sinks);
	names_check(loader);
	if (loader->reading.diagnostics->count == 0)
		hash_check(loader);
}

struct descriptor *document_load(const struct document *document, program_check *program,
				 struct diagnostics *diagnostics)
{
	struct descriptor_owner *owner = descriptor_owner_create();
	size_t programs = 0;
	struct loader loader = {.descriptor = &owner->descriptor,
				.reading = {&owner->pool, diagnostics, program, &programs},
				.document = document};

	tree_load(&loader);
	if (diagnostics->count == 0)
		return &owner->descriptor;
	descriptor_free(&owner->descriptor);
	return NULL;
}

bool document_is_descriptor(const struct document *document)
{
	const struct node *steps = node_find(document->root, "steps");

	return steps != NULL && steps->kind == NODE_LIST && steps->first != NULL &&
	       node_find(steps->first, "step_name") != NULL;
}

struct descriptor *descriptor_load(const char *path, struct diagnostics *diagnostics)
{
	struct document *document = document_read(path, document_limits_descriptor, diagnostics);
	struct descriptor *descriptor = document == NULL ? NULL : document_load(document, NULL, diagnostics);

	document_free(document);
	return descriptor;
}

struct descriptor *descriptor_parse(const char *file, struct view text, struct diagnostics *diagnostics)
{
	struct document *document = document_parse(file, text, document_limits_descriptor, diagnostics);
	struct descriptor *descriptor = document == NULL ? NULL : document_load(document, NULL, diagnostics);

	document_free(document);
	return descriptor;
}
