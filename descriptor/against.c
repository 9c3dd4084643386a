/*
 * The comparison (against.h). State is found again by the name of its segment, then by step and name, and within that by the key's
 * hash: so these must be the same, and the manifest must say the same of it. What a step does with its state may have changed.
 *
 * Not here: what only one running worker can tell, such as whether a value is what the new code expects (its version says that).
 */
#include "descriptor/against.h"

#include <stdlib.h>
#include <string.h>

#include "descriptor/kinds.h"
#include "descriptor/manifest.h"
#include "shared/log.h"

/* One comparison at work. */
struct comparison {
	const struct side *old, *new;
	struct diagnostics *diagnostics;
};

/* ---- Places ---- */

/* The node of a step's name in a list of maps with names, or NULL. */
static const struct node *name_in(const struct node *list, const char *name)
{
	for (const struct node *entry = list == NULL ? NULL : list->first; entry != NULL; entry = entry->next) {
		const struct node *found = node_find(entry, "name");
		if (found != NULL && found->kind == NODE_SCALAR && strcmp(found->text, name) == 0)
			return found;
	}
	return NULL;
}

/* Where a step stands, in a pipeline or in a descriptor; NULL when that is not known. */
static const struct node *step_place(const struct side *side, const char *name)
{
	const struct node *steps = side->document == NULL ? NULL : node_find(side->document->root, "steps");
	const struct node *found = name_in(steps, name);

	for (const struct node *entry = steps == NULL ? NULL : steps->first; entry != NULL && found == NULL;
	     entry = entry->next) {
		const struct node *config = node_find(entry, "config");
		found = config == NULL ? NULL : name_in(node_find(config, "chain"), name);
	}
	return found;
}

/* Where a source or sink stands. */
static const struct node *edge_place(const struct side *side, const char *part, const char *name)
{
	const struct node *edges = side->document == NULL ? NULL : node_find(side->document->root, part);
	const struct node *edge = edges == NULL ? NULL : node_find(edges, name);

	return edge == NULL ? NULL : edge->key;
}

/* Where a pipeline says its max_parallelism. */
static const struct node *groups_place(const struct side *side)
{
	return side->document == NULL ? NULL : node_find(side->document->root, "max_parallelism");
}

/* A finding at a node of one side, or at its file as a whole. */
#define FIND(comparison, side, node, ...)                                                                              \
	((node) != NULL ? node_finding((comparison)->diagnostics, node, __VA_ARGS__)                                   \
			: diagnostics_add((comparison)->diagnostics, (struct place){(side)->file, 0, 0}, __VA_ARGS__))

/* ---- States ---- */

/* The step of a name with its segment, or NULL. */
static const struct step_spec *step_find(const struct descriptor *descriptor, const char *name,
					 const struct segment **segment)
{
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		*segment = &descriptor->segments[i];
		for (size_t k = 0; k < (*segment)->step_count; k++) {
			if (strcmp((*segment)->steps[k].name, name) == 0)
				return &(*segment)->steps[k];
		}
	}
	*segment = NULL;
	return NULL;
}

/* The state of a name that a step has, or false. */
static bool state_find(const struct segment *segment, const struct step_spec *step, const char *name,
		       struct state_spec *spec)
{
	size_t declares = step == NULL ? 0 : step_state_count(step);

	for (size_t place = 0; place < declares; place++) {
		if (step_state(segment, step, place, spec) && strcmp(spec->name, name) == 0)
			return true;
	}
	return false;
}

/* What a state is, in words. */
static void state_describe(const struct state_spec *state, char text[96])
{
	snprintf(text, 96, "a %s %s of version %u%s", state_kind_name(state->kind),
		 state_partition_name(state->partition), state->version % STATE_VERSION_TTL,
		 state->version < STATE_VERSION_TTL ? "" : " with a ttl");
}

/* Says that a state is kept otherwise than it was, if it is. */
static void state_compare(const struct comparison *comparison, const struct state_spec *old,
			  const struct state_spec *new)
{
	const struct node *at = step_place(comparison->new, new->step);
	char was[96], is[96];

	if (old->kind == new->kind && old->partition == new->partition && old->version == new->version)
		return;
	state_describe(old, was);
	state_describe(new, is);
	finding_hint(
	    FIND(comparison, comparison->new, at, "state \"%s.%s\" was %s, and is %s", new->step, new->name, was, is),
	    "if it may be lost: `drop_state: [%s.%s]`", new->step, new->name);
}

/* Says that states of a step are gone. */
static void states_gone(const struct comparison *comparison, const struct step_spec *old, bool stays, const char *names,
			size_t count)
{
	const struct side *side = stays ? comparison->new : comparison->old;
	const struct node *at = step_place(side, old->name);
	struct finding *finding;

	if (stays)
		finding = FIND(comparison, side, at, "step \"%s\" had state%s that it has no more: %s", old->name,
			       count == 1 ? "" : "s", names);
	else
		finding = FIND(comparison, side, at, "this step is gone, and with it its state%s: %s",
			       count == 1 ? "" : "s", names);
	finding_hint(finding, "if %s may be lost, say so in the new pipeline: `drop_state: [%s]`",
		     count == 1 ? "it" : "they", names);
}

/* Compares what one step of the old pipeline keeps with what the new one makes of it. */
static void step_compare(const struct comparison *comparison, const struct segment *old_segment,
			 const struct step_spec *old)
{
	const struct segment *new_segment;
	const struct step_spec *new = step_find(comparison->new->descriptor, old->name, &new_segment);
	size_t declares = step_state_count(old), gone = 0, kept = 0, used = 0;
	char names[STEP_STATES_MAX * 160] = "";

	for (size_t place = 0; place < declares; place++) {
		struct state_spec state, now;
		if (!step_state(old_segment, old, place, &state) ||
		    descriptor_drops(comparison->new->descriptor, state.step, state.name))
			continue;
		if (state_find(new_segment, new, state.name, &now)) {
			kept++;
			state_compare(comparison, &state, &now);
			continue;
		}
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s.%s", gone++ > 0 ? ", " : "",
					 state.step, state.name);
	}
	if (gone > 0)
		states_gone(comparison, old, new != NULL, names, gone);
	if (kept == 0 || new == NULL || strcmp(old_segment->name, new_segment->name) == 0)
		return;
	struct finding *finding = FIND(
	    comparison, comparison->new, step_place(comparison->new, new->name),
	    "step \"%s\" was in segment \"%s\" and is in \"%s\": what it remembers is kept under the segment's name",
	    new->name, old_segment->name, new_segment->name);
	finding_hint(finding, "say `segment: %s` at the step", old_segment->name);
}

/* ---- Keys ---- */

/* The key_by that feeds an input of a keyed segment. */
static const struct step_spec *key_of(const struct descriptor *descriptor, const struct input *input)
{
	const struct segment *feeding = &descriptor->segments[input->index];

	CHECK(!input->from_source && input->partition == PARTITION_HASH);
	return &feeding->steps[feeding->step_count - 1];
}

/* Whether one of the inputs of a keyed segment has a key that is made by something. */
static bool has_key(const struct descriptor *descriptor, const struct segment *segment, const char *key)
{
	for (size_t i = 0; i < segment->input_count; i++) {
		if (strcmp(key_of(descriptor, &segment->inputs[i])->key, key) == 0)
			return true;
	}
	return false;
}

/* Says which keys of a segment with state are others than they were. */
static void keys_compare(const struct comparison *comparison, const struct segment *old, const struct segment *new)
{
	for (size_t i = 0; i < new->input_count; i++) {
		const struct step_spec *key_by = key_of(comparison->new->descriptor, &new->inputs[i]);
		if (has_key(comparison->old->descriptor, old, key_by->key))
			continue;
		const struct step_spec *was =
		    key_of(comparison->old->descriptor, &old->inputs[i < old->input_count ? i : 0]);
		struct finding *finding =
		    FIND(comparison, comparison->new, step_place(comparison->new, key_by->name),
			 "the key of \"%s\" is \"%.80s\", and segment \"%s\" keeps state by \"%.80s\"", key_by->name,
			 key_by->key, new->name, was->key);
		finding_hint(finding, "state cannot follow to another key: give the steps that keep it new names, and "
				      "put the old states under drop_state");
	}
}

/* Whether the old state of a segment is taken over by the new one of that name. */
static bool is_taken_over(const struct comparison *comparison, const struct segment *old, const struct segment *new)
{
	for (size_t i = 0; i < old->step_count; i++) {
		const struct segment *segment;
		const struct step_spec *step = step_find(comparison->new->descriptor, old->steps[i].name, &segment);
		size_t declares = step_state_count(&old->steps[i]);
		for (size_t place = 0; segment == new &&place < declares; place++) {
			struct state_spec was, is;
			if (step_state(old, &old->steps[i], place, &was) && state_find(new, step, was.name, &is))
				return true;
		}
	}
	return false;
}

/* ---- The whole ---- */

/* Compares the segments that keep something. */
static void segments_compare(const struct comparison *comparison)
{
	const struct descriptor *old = comparison->old->descriptor, *new = comparison->new->descriptor;

	for (size_t i = 0; i < old->segment_count; i++) {
		const struct segment *segment = &old->segments[i];
		for (size_t k = 0; k < segment->step_count; k++)
			step_compare(comparison, segment, &segment->steps[k]);
		for (size_t k = 0; k < new->segment_count; k++) {
			const struct segment *other = &new->segments[k];
			if (segment->keyed && other->keyed && strcmp(segment->name, other->name) == 0 &&
			    is_taken_over(comparison, segment, other))
				keys_compare(comparison, segment, other);
		}
	}
}

/* Says that the number of key groups is another. */
static void groups_compare(const struct comparison *comparison)
{
	uint32_t was = comparison->old->descriptor->segments[0].max_parallelism;
	uint32_t is = comparison->new->descriptor->segments[0].max_parallelism;

	if (was != is)
		finding_expected(
		    FIND(comparison, comparison->new, groups_place(comparison->new),
			 "max_parallelism was %u and is %u: a checkpoint is kept by key group, and cannot be "
			 "restored into another number of them",
			 was, is),
		    "max_parallelism: %u", was);
}

/* Says which sources are gone or of another kind: their positions have nowhere to go. */
static void sources_compare(const struct comparison *comparison)
{
	const struct descriptor *old = comparison->old->descriptor, *new = comparison->new->descriptor;

	for (size_t i = 0; i < old->source_count; i++) {
		const struct source *was = &old->sources[i];
		size_t k = 0;
		while (k < new->source_count && strcmp(new->sources[k].name, was->name) != 0)
			k++;
		if (k == new->source_count)
			FIND(comparison, comparison->old, edge_place(comparison->old, "sources", was->name),
			     "source \"%s\" is gone, and with it how far it has been read", was->name);
		else if (new->sources[k].kind != was->kind)
			FIND(comparison, comparison->new, edge_place(comparison->new, "sources", was->name),
			     "source \"%s\" was of kind %s and is of kind %s: how far it has been read is lost",
			     was->name, source_kind_name(was->kind), source_kind_name(new->sources[k].kind));
	}
}

void against_compare(const struct side *old, const struct side *new, struct diagnostics *diagnostics)
{
	struct comparison comparison = {old, new, diagnostics};

	groups_compare(&comparison);
	sources_compare(&comparison);
	segments_compare(&comparison);
}
