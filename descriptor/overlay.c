/*
 * config.yaml over pipeline.yaml (pipeline.h): values of a deployment replace those of the pipeline in its tree, and keep
 * their own places, so that later findings point into the right file.
 *
 * A source or sink whose `kind` the deployment gives is replaced as a whole (but for a sink's `from`): a test reads a file
 * where production reads Kafka. Steps can be tuned but neither replaced nor rewired: that would be another pipeline.
 */
#include <stdlib.h>
#include <string.h>

#include "descriptor/options.h"
#include "descriptor/pipeline.h"

/* One overlay at work. */
struct overlay {
	struct document *document;
	struct diagnostics *diagnostics;
};

/* Puts a value into a map: in place of the one with its key, or at the end. */
static void map_put(const struct overlay *overlay, struct node *map, const struct node *value)
{
	struct node *copy = pool_alloc(&overlay->document->pool, sizeof(*copy)), **link = &map->first;

	*copy = *value;
	while (*link != NULL && strcmp((*link)->key->text, value->key->text) != 0)
		link = &(*link)->next;
	map->count += *link == NULL;
	copy->next = *link == NULL ? NULL : (*link)->next;
	*link = copy;
}

/* Whether a node of the deployment's file is a map of a size that makes sense; a finding otherwise. */
static bool is_map(const struct overlay *overlay, const struct node *node, const char *what)
{
	if (node->kind == NODE_MAP && node->count <= DESCRIPTOR_STEPS_MAX)
		return true;
	if (node->kind == NODE_MAP)
		node_finding(overlay->diagnostics, node, "%s has %zu keys; at most %d are allowed", what, node->count,
			     DESCRIPTOR_STEPS_MAX);
	else if (node->kind != NODE_BROKEN && !node_is_null(node))
		finding_expected(node_finding(overlay->diagnostics, node, "%s is %s", what, node_describe(node)),
				 "a map of names to what changes");
	return false;
}

/* The finding that a deployment speaks of something that the pipeline does not have. */
static void unknown_name(const struct overlay *overlay, const struct node *key, const char *what,
			 const char *const *names, size_t count)
{
	struct finding *finding =
	    node_finding(overlay->diagnostics, key, "the pipeline has no %s \"%.80s\"", what, key->text);

	finding_suggest(finding, key->text, names, count);
}

/* Overlays one source or sink. */
static void entry_overlay(const struct overlay *overlay, struct node *entry, const struct node *change)
{
	const struct node *from = node_find(entry, "from");

	if (node_find(change, "kind") != NULL) {
		entry->first = NULL;
		entry->count = 0;
		if (from != NULL)
			map_put(overlay, entry, from);
	}
	for (const struct node *value = change->first; value != NULL; value = value->next) {
		if (strcmp(value->key->text, "from") == 0)
			node_finding(overlay->diagnostics, value->key,
				     "a deployment cannot change what a sink reads from");
		else
			map_put(overlay, entry, value);
	}
}

/* Overlays the sources or the sinks. */
static void entries_overlay(const struct overlay *overlay, struct node *entries, const struct node *changes,
			    const char *what)
{
	const char **names = calloc(entries->count + 1, sizeof(*names));
	size_t count = 0;

	for (struct node *entry = entries->first; names != NULL && entry != NULL; entry = entry->next)
		names[count++] = entry->key->text;
	for (const struct node *change = changes->first; change != NULL; change = change->next) {
		struct node *entry = node_find(entries, change->key->text);
		if (change->key->kind != NODE_SCALAR || !is_map(overlay, change, "this"))
			continue;
		if (entry == NULL)
			unknown_name(overlay, change->key, what, names, count);
		else if (entry->kind == NODE_MAP)
			entry_overlay(overlay, entry, change);
	}
	free(names);
}

/* The step of a name in a pipeline's list, or NULL. */
static struct node *step_find(const struct node *steps, const char *name)
{
	for (struct node *step = steps->first; step != NULL; step = step->next) {
		const struct node *found = node_find(step, "name");
		if (found != NULL && found->kind == NODE_SCALAR && strcmp(found->text, name) == 0)
			return step;
	}
	return NULL;
}

/* Overlays one step. */
static void step_overlay(const struct overlay *overlay, struct node *step, const struct node *change)
{
	static const char *const fixed[] = {"name", "kind", "from", "segment"};

	for (const struct node *value = change->first; value != NULL; value = value->next) {
		size_t i = 0;
		while (i < 4 && strcmp(fixed[i], value->key->text) != 0)
			i++;
		if (i < 4)
			node_finding(overlay->diagnostics, value->key, "a deployment cannot change the %s of a step",
				     fixed[i]);
		else
			map_put(overlay, step, value);
	}
}

/* Overlays the steps. */
static void steps_overlay(const struct overlay *overlay, struct node *steps, const struct node *changes)
{
	const char **names = calloc(steps->count + 1, sizeof(*names));
	size_t count = 0;

	for (struct node *step = steps->first; names != NULL && step != NULL; step = step->next) {
		const struct node *name = node_find(step, "name");
		if (name != NULL && name->kind == NODE_SCALAR)
			names[count++] = name->text;
	}
	for (const struct node *change = changes->first; change != NULL; change = change->next) {
		struct node *step = step_find(steps, change->key->text);
		if (change->key->kind != NODE_SCALAR || !is_map(overlay, change, "this"))
			continue;
		if (step == NULL)
			unknown_name(overlay, change->key, "step", names, count);
		else
			step_overlay(overlay, step, change);
	}
	free(names);
}

/* Whether a key is one of the pipeline's own, whose value is replaced as it is. */
static bool is_own(const char *key)
{
	static const char *const own[] = {
	    "parallelism",
	    "max_parallelism",
	    "on_error",
	    "drop_state",
#define STEP_RULE(name, type, fallback, least, most, help) #name,
#include "descriptor/steps.def"
	};

	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
		if (strcmp(own[i], key) == 0)
			return true;
	}
	return false;
}

/* Looks over what a deployment says to Flink, which reads it itself: one mistake fewer to find there. */
static void flink_check(const struct overlay *overlay, const struct node *section)
{
	size_t programs = 0, count;
	struct reading reading = {&overlay->document->pool, overlay->diagnostics, NULL, &programs};
	static const char what[] = "the section \"flink\"";

	if (section->kind != NODE_MAP) {
		if (section->kind != NODE_BROKEN)
			finding_expected(
			    node_finding(overlay->diagnostics, section, "%s is %s", what, node_describe(section)),
			    "a map of settings");
		return;
	}
	check_option_keys(&reading, section, SCOPE_FLINK, 0, what, NULL, 0);
	read_options(&reading, section, section->key, SCOPE_FLINK, 0, what, &count);
}

void pipeline_overlay(struct document *document, const struct document *config, struct diagnostics *diagnostics)
{
	static const char *const keys[] = {
	    "parallelism", "max_parallelism", "on_error", "drop_state", "sources", "steps", "sinks", "sidecar", "flink",
#define STEP_RULE(name, type, fallback, least, most, help) #name,
#include "descriptor/steps.def"
	};
	struct overlay overlay = {document, diagnostics};

	if (!is_map(&overlay, config->root, "the file"))
		return;
	node_check_keys(config->root, "the configuration", keys, sizeof(keys) / sizeof(*keys), diagnostics);
	for (const struct node *value = config->root->first; value != NULL; value = value->next) {
		const char *key = value->key->text;
		struct node *part = node_find(document->root, key);
		bool parts = strcmp(key, "sources") == 0 || strcmp(key, "steps") == 0 || strcmp(key, "sinks") == 0;
		if (strcmp(key, "flink") == 0)
			flink_check(&overlay, value);
		if (is_own(key)) {
			if (document->root->kind == NODE_MAP)
				map_put(&overlay, document->root, value);
		} else if (parts && is_map(&overlay, value, "this") && part != NULL) {
			if (part->kind == NODE_LIST && strcmp(key, "steps") == 0)
				steps_overlay(&overlay, part, value);
			else if (part->kind == NODE_MAP && strcmp(key, "steps") != 0)
				entries_overlay(&overlay, part, value, strcmp(key, "sinks") == 0 ? "sink" : "source");
		}
	}
}
