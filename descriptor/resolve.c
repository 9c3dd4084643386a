/*
 * What everything in a pipeline reads from (pipeline.h): names become indices, steps get an order in which each comes after
 * what it reads from, and what nobody reads is found.
 *
 * Outputs that nobody reads are errors, not warnings: they are records that vanish. A sink of kind `discard` says that
 * they are meant to.
 */
#include <string.h>

#include "descriptor/pipeline.h"
#include "descriptor/routes.h"

/* Names that are compared with a mistyped one, at most. */
enum { NAMES_MAX = 2000 };

/* One resolution at work. */
struct resolver {
	struct pipeline *pipeline;
	const struct reading *reading;
	const char **names; /* all that `from` can say, up to NAMES_MAX; made when it is first needed */
	size_t name_count;
};

/* Whether a step's output goes to named routes. */
static bool has_routes(const struct pipeline_step *step)
{
	return step->kind == STEP_route || step->kind == STEP_broadcast || step->route_count > 0;
}

/* The source or step of a name; -1 when there is none. */
static long source_index(const struct pipeline *pipeline, const char *name, size_t size)
{
	for (size_t i = 0; i < pipeline->source_count; i++) {
		const char *other = pipeline->sources[i].source.name;
		if (other != NULL && strlen(other) == size && memcmp(other, name, size) == 0)
			return (long)i;
	}
	return -1;
}

/* The index of a step by name, or -1. */
static long step_index(const struct pipeline *pipeline, const char *name, size_t size)
{
	for (size_t i = 0; i < pipeline->step_count; i++) {
		const char *other = pipeline->steps[i].name;
		if (other != NULL && strlen(other) == size && memcmp(other, name, size) == 0)
			return (long)i;
	}
	return -1;
}

/* Makes findings of things that are called as the dead letters are. */
static void reserved_check(const struct resolver *resolver)
{
	static const char text[] = "\"" ROUTE_DEAD_LETTER "\" is what `from` calls the records that steps fail on";
	const struct pipeline *pipeline = resolver->pipeline;
	struct diagnostics *diagnostics = resolver->reading->diagnostics;

	for (size_t i = 0; i < pipeline->source_count; i++) {
		const char *name = pipeline->sources[i].source.name;
		if (name != NULL && strcmp(name, ROUTE_DEAD_LETTER) == 0)
			finding_hint(node_finding(diagnostics, pipeline->sources[i].at, text), "choose another name");
	}
	for (size_t i = 0; i < pipeline->step_count; i++) {
		const struct pipeline_step *step = &pipeline->steps[i];
		bool taken = step->name != NULL && strcmp(step->name, ROUTE_DEAD_LETTER) == 0;
		for (size_t r = 0; r < step->route_count; r++)
			taken = taken || strcmp(step->routes[r].name, ROUTE_DEAD_LETTER) == 0;
		if (taken)
			finding_hint(node_finding(diagnostics, step->at, text),
				     "choose another name for the step or its route");
	}
}

/* Makes findings of names that two things have. */
static void names_check(const struct resolver *resolver)
{
	const struct pipeline *pipeline = resolver->pipeline;

	for (size_t i = 0; i < pipeline->step_count; i++) {
		const char *name = pipeline->steps[i].name;
		if (name == NULL)
			continue;
		long first = step_index(pipeline, name, strlen(name));
		if (first != (long)i)
			node_finding(resolver->reading->diagnostics, pipeline->steps[i].at,
				     "a second step of the name \"%s\"; the first is in line %zu", name,
				     pipeline->steps[first].at->line);
		if (source_index(pipeline, name, strlen(name)) >= 0)
			finding_hint(node_finding(resolver->reading->diagnostics, pipeline->steps[i].at,
						  "a step and a source are both called \"%s\"", name),
				     "give one of them another name, so that `from` is clear");
	}
}

/* Lists a step's routes as a person would refer to them. */
static void routes_describe(const struct pipeline_step *step, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < step->route_count && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s.%s", i > 0 ? ", " : "", step->name,
					 step->routes[i].name);
}

/* Adds a name to those that `from` can say. */
static void name_add(struct resolver *resolver, const char *step, const char *route)
{
	if (step == NULL || resolver->name_count == NAMES_MAX)
		return;
	resolver->names[resolver->name_count++] =
	    route == NULL ? step : pool_format(resolver->reading->pool, "%s.%s", step, route);
}

/* Lists everything that `from` can say, for the nearest of it. */
static void names_list(struct resolver *resolver)
{
	const struct pipeline *pipeline = resolver->pipeline;

	resolver->names = pool_array(resolver->reading->pool, NAMES_MAX, sizeof(*resolver->names));
	for (size_t i = 0; i < pipeline->source_count; i++)
		name_add(resolver, pipeline->sources[i].source.name, NULL);
	for (size_t i = 0; i < pipeline->step_count; i++) {
		if (pipeline->steps[i].route_count == 0)
			name_add(resolver, pipeline->steps[i].name, NULL);
	}
	for (size_t i = 0; i < pipeline->step_count; i++) {
		for (size_t r = 0; r < pipeline->steps[i].route_count; r++)
			name_add(resolver, pipeline->steps[i].name, pipeline->steps[i].routes[r].name);
	}
	name_add(resolver, ROUTE_DEAD_LETTER, NULL);
	for (size_t i = 0; i < pipeline->step_count; i++) {
		if (pipeline->steps[i].policy == ON_ERROR_DEAD_LETTER)
			name_add(resolver, pipeline->steps[i].name, ROUTE_DEAD_LETTER);
	}
}

/* The finding that a reference leads nowhere. */
static void unknown_reference(struct resolver *resolver, const struct node *node)
{
	struct finding *finding =
	    node_finding(resolver->reading->diagnostics, node, "there is no source or step \"%.80s\"", node->text);

	if (resolver->names == NULL)
		names_list(resolver);
	finding_suggest(finding, node->text, resolver->names, resolver->name_count);
}

/* Takes a reference to a step's dead letters. */
static void letters_resolve(const struct resolver *resolver, struct pipeline_step *step, struct reference *reference)
{
	reference->resolved = reference->dead_letters = step->policy == ON_ERROR_DEAD_LETTER;
	step->letters_named += reference->dead_letters;
	if (reference->dead_letters)
		return;
	struct finding *finding =
	    node_finding(resolver->reading->diagnostics, reference->node,
			 "step \"%s\" has no dead letters: what it fails on is not put aside (%s)", step->name,
			 error_policy_name(step->policy));
	finding_hint(finding, "say `on_error: dead_letter` at the step");
}

/* Finds the route that a reference to a step names; `name` is NULL when it names none. */
static void route_resolve(const struct resolver *resolver, const struct pipeline_step *step, const char *name,
			  struct reference *reference)
{
	struct diagnostics *diagnostics = resolver->reading->diagnostics;
	struct finding *finding;
	char routes[512];

	reference->resolved = step->kind >= 0 && !has_routes(step) && name == NULL;
	for (size_t i = 0; name != NULL && i < step->route_count; i++) {
		if (strcmp(step->routes[i].name, name) != 0)
			continue;
		reference->route = (uint32_t)i;
		reference->resolved = true;
	}
	if (reference->resolved || step->kind < 0 || (has_routes(step) && step->route_count == 0))
		return;
	routes_describe(step, routes, sizeof(routes));
	if (!has_routes(step)) {
		finding = node_finding(diagnostics, reference->node, "step \"%s\" is a %s and has no routes",
				       step->name, kind_info(SCOPE_STEP, (unsigned)step->kind)->name);
		finding_expected(finding, "from: %s", step->name);
	} else if (name == NULL) {
		finding = node_finding(diagnostics, reference->node, "which route of \"%s\" is meant?", step->name);
		finding_expected(finding, "one of: %s", routes);
	} else {
		finding = node_finding(diagnostics, reference->node, "\"%s\" has no route \"%.80s\"", step->name, name);
		finding_expected(finding, "one of: %s", routes);
	}
}

/* Finds what one text refers to. */
static void reference_resolve(struct resolver *resolver, const struct node *node, struct reference *reference)
{
	struct diagnostics *diagnostics = resolver->reading->diagnostics;

	reference->node = node;
	if (node->kind != NODE_SCALAR || node_is_null(node)) {
		if (node->kind != NODE_BROKEN)
			finding_expected(node_finding(diagnostics, node, "`from` is %s", node_describe(node)),
					 "the name of a source or step, step.route, or a list of those");
		return;
	}
	const char *dot = strchr(node->text, '.');
	size_t size = dot == NULL ? strlen(node->text) : (size_t)(dot - node->text);
	long source = source_index(resolver->pipeline, node->text, size);
	long step = step_index(resolver->pipeline, node->text, size);
	if (source >= 0 && dot == NULL) {
		reference->resolved = reference->from_source = true;
		reference->index = (uint32_t)source;
	} else if (step >= 0) {
		reference->index = (uint32_t)step;
		if (dot != NULL && strcmp(dot + 1, ROUTE_DEAD_LETTER) == 0)
			letters_resolve(resolver, &resolver->pipeline->steps[step], reference);
		else
			route_resolve(resolver, &resolver->pipeline->steps[step], dot == NULL ? NULL : dot + 1,
				      reference);
	} else if (strcmp(node->text, ROUTE_DEAD_LETTER) == 0) {
		reference->all_dead_letters = true;
	} else {
		unknown_reference(resolver, node);
	}
}

/* Whether two references lead to the same output. */
static bool references_equal(const struct reference *a, const struct reference *b)
{
	if (a->all_dead_letters || b->all_dead_letters)
		return a->all_dead_letters && b->all_dead_letters;
	return a->resolved && b->resolved && a->from_source == b->from_source && a->index == b->index &&
	       a->route == b->route && a->dead_letters == b->dead_letters;
}

/* Resolves a `from` that is given. */
static struct reference *from_resolve(struct resolver *resolver, const struct node *from, size_t *count)
{
	const struct node *first = from->kind == NODE_LIST ? from->first : from;
	struct diagnostics *diagnostics = resolver->reading->diagnostics;

	*count = from->kind == NODE_LIST ? from->count : 1;
	if (*count == 0 || *count > DESCRIPTOR_INPUTS_MAX) {
		finding_expected(node_finding(diagnostics, from, "`from` lists %zu inputs", *count), "1 to %d",
				 DESCRIPTOR_INPUTS_MAX);
		*count = 0;
	}
	struct reference *references = pool_array(resolver->reading->pool, *count, sizeof(*references));
	for (size_t i = 0; i < *count; i++, first = first->next) {
		reference_resolve(resolver, first, &references[i]);
		for (size_t before = 0; before < i; before++) {
			if (references_equal(&references[before], &references[i]))
				node_finding(diagnostics, first, "`from` names \"%.80s\" twice", first->text);
		}
	}
	return references;
}

/* What is read when `from` is left away: the step `before`, or with none the only source. */
static struct reference *from_default(const struct resolver *resolver, const struct node *at, const char *what,
				      const struct pipeline_step *before, size_t *count)
{
	struct pipeline *pipeline = resolver->pipeline;
	struct reference *reference = pool_alloc(resolver->reading->pool, sizeof(*reference));

	*count = 1;
	reference->node = at;
	if (before != NULL && has_routes(before)) {
		char routes[512];
		routes_describe(before, routes, sizeof(routes));
		if (before->name != NULL && before->route_count > 0)
			finding_expected(
			    node_finding(resolver->reading->diagnostics, at,
					 "%s comes behind \"%s\" and has to say which of its routes it reads", what,
					 before->name),
			    "from: one of %s", routes);
	} else if (before != NULL) {
		reference->index = (uint32_t)(before - pipeline->steps);
		reference->resolved = before->kind >= 0;
	} else if (pipeline->source_count > 1) {
		finding_expected(node_finding(resolver->reading->diagnostics, at,
					      "%s has to say which of the %zu sources it reads", what,
					      pipeline->source_count),
				 "from: NAME, or a list of names");
	} else if (pipeline->source_count == 1) {
		reference->from_source = reference->resolved = true;
	}
	return reference;
}

/* Resolves what all steps read from. */
static void steps_resolve(struct resolver *resolver)
{
	struct pipeline *pipeline = resolver->pipeline;

	for (size_t i = 0; i < pipeline->step_count; i++) {
		struct pipeline_step *step = &pipeline->steps[i];
		char what[128];
		step->readers = pool_array(resolver->reading->pool, step->route_count + 1, sizeof(uint32_t));
		snprintf(what, sizeof(what), "step \"%s\"", step->name == NULL ? "?" : step->name);
		if (step->from != NULL)
			step->inputs = from_resolve(resolver, step->from, &step->input_count);
		else if (step->name != NULL)
			step->inputs =
			    from_default(resolver, step->at, what, i > 0 ? step - 1 : NULL, &step->input_count);
	}
}

/* Resolves what all sinks read from. */
static void sinks_resolve(struct resolver *resolver)
{
	struct pipeline *pipeline = resolver->pipeline;

	for (size_t i = 0; i < pipeline->sink_count; i++) {
		struct pipeline_sink *sink = &pipeline->sinks[i];
		struct pipeline_step *last =
		    pipeline->step_count > 0 ? &pipeline->steps[pipeline->step_count - 1] : NULL;
		char what[128];
		snprintf(what, sizeof(what), "sink \"%s\"", sink->sink.name == NULL ? "?" : sink->sink.name);
		if (sink->from != NULL)
			sink->inputs = from_resolve(resolver, sink->from, &sink->input_count);
		else if (pipeline->sink_count == 1)
			sink->inputs = from_default(resolver, sink->at, what, last, &sink->input_count);
		else
			finding_expected(node_finding(resolver->reading->diagnostics, sink->at,
						      "%s has to say what it reads, as there are %zu sinks", what,
						      pipeline->sink_count),
					 "from: NAME, step.route, or a list of those");
	}
}

/* Puts the dead letters of all steps whose own nobody reads by name in place of a reference to `dead_letter`. */
static void letters_expand(const struct resolver *resolver, struct reference **inputs, size_t *count)
{
	const struct pipeline *pipeline = resolver->pipeline;
	size_t at = 0, used = 0;

	while (at < *count && !(*inputs)[at].all_dead_letters)
		at++;
	if (at == *count)
		return;
	struct reference *all = pool_array(resolver->reading->pool, *count + pipeline->step_count, sizeof(*all));
	const struct node *node = (*inputs)[at].node;
	for (size_t i = 0; i < *count; i++) {
		if (i != at)
			all[used++] = (*inputs)[i];
	}
	size_t others = used;
	for (size_t i = 0; i < pipeline->step_count; i++) {
		const struct pipeline_step *step = &pipeline->steps[i];
		if (step->policy == ON_ERROR_DEAD_LETTER && step->letters_named == 0)
			all[used++] = (struct reference){
			    .node = node, .resolved = true, .index = (uint32_t)i, .dead_letters = true};
	}
	if (used == others)
		finding_hint(node_finding(resolver->reading->diagnostics, node,
					  "there are no dead letters that are not read by name already"),
			     "say `on_error: dead_letter` at a step, or at the top of the pipeline for all of them");
	if (used > DESCRIPTOR_INPUTS_MAX)
		finding_expected(
		    node_finding(resolver->reading->diagnostics, node,
				 "with the dead letters of %zu steps these are %zu inputs", used - others, used),
		    "%d at most: several sinks, each with a list of STEP." ROUTE_DEAD_LETTER, DESCRIPTOR_INPUTS_MAX);
	*inputs = all;
	*count = used;
}

/* Counts the readers of every output. */
static void readers_count(struct pipeline *pipeline, const struct reference *inputs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (inputs[i].from_source)
			pipeline->sources[inputs[i].index].readers++;
		else if (inputs[i].dead_letters)
			pipeline->steps[inputs[i].index].letters_readers++;
		else
			pipeline->steps[inputs[i].index].readers[inputs[i].route]++;
	}
}

/* Makes findings of dead letters that nobody reads: one of all those that are put aside because the pipeline says so. */
static void unread_letters_find(const struct resolver *resolver)
{
	const struct pipeline *pipeline = resolver->pipeline;
	struct diagnostics *diagnostics = resolver->reading->diagnostics;
	size_t inherited = 0;

	for (size_t i = 0; i < pipeline->step_count; i++) {
		const struct pipeline_step *step = &pipeline->steps[i];
		bool unread = step->policy == ON_ERROR_DEAD_LETTER && step->letters_readers == 0;
		inherited += unread && !step->policy_own;
		if (unread && step->policy_own)
			finding_hint(
			    node_finding(diagnostics, step->at, "nothing reads the dead letters of step \"%s\"",
					 step->name),
			    "add a sink for them, such as `%s_failed: { kind: file, path: %s_failed.jsonl, from: "
			    "%s." ROUTE_DEAD_LETTER " }`",
			    step->name, step->name, step->name);
	}
	if (inherited > 0)
		finding_hint(
		    node_finding(diagnostics, pipeline->policy_at, "nothing reads the dead letters of %zu step%s",
				 inherited, inherited == 1 ? "" : "s"),
		    "add a sink for them, such as `failed: { kind: file, path: failed.jsonl, from: " ROUTE_DEAD_LETTER
		    " }`");
}

/* Makes findings of outputs that nobody reads. */
static void unread_find(const struct resolver *resolver)
{
	static const char hint[] = "read it, remove it, or drop its records with a sink of `kind: discard`";
	struct pipeline *pipeline = resolver->pipeline;
	struct diagnostics *diagnostics = resolver->reading->diagnostics;

	for (size_t i = 0; i < pipeline->source_count; i++) {
		if (pipeline->sources[i].readers == 0)
			finding_hint(node_finding(diagnostics, pipeline->sources[i].at, "nothing reads source \"%s\"",
						  pipeline->sources[i].source.name),
				     hint);
	}
	for (size_t i = 0; i < pipeline->step_count; i++) {
		const struct pipeline_step *step = &pipeline->steps[i];
		for (size_t r = 0; r < step->route_count; r++) {
			if (step->readers[r] == 0)
				finding_hint(node_finding(diagnostics, step->at, "nothing reads route \"%s.%s\"",
							  step->name, step->routes[r].name),
					     hint);
		}
		if (step->route_count == 0 && step->readers[0] == 0)
			finding_hint(node_finding(diagnostics, step->at, "nothing reads step \"%s\"", step->name),
				     hint);
	}
}

/* The finding of a circle, out of steps that could not be put into an order; `placed` are those that could. */
static void circle_report(const struct resolver *resolver, const bool *placed)
{
	const struct pipeline *pipeline = resolver->pipeline;
	uint32_t at = 0;
	char path[512];
	size_t used = 0;

	while (placed[at])
		at++;
	/* Going back from reader to read as often as there are steps ends inside a circle. */
	for (size_t hop = 0; hop < pipeline->step_count; hop++) {
		const struct pipeline_step *step = &pipeline->steps[at];
		size_t i = 0;
		while (step->inputs[i].from_source || placed[step->inputs[i].index])
			i++;
		at = step->inputs[i].index;
	}
	uint32_t start = at;
	do {
		const struct pipeline_step *step = &pipeline->steps[at];
		size_t i = 0;
		used += (size_t)snprintf(path + used, used < sizeof(path) ? sizeof(path) - used : 0, "%s reads ",
					 step->name);
		while (step->inputs[i].from_source || placed[step->inputs[i].index])
			i++;
		at = step->inputs[i].index;
	} while (at != start && used < sizeof(path) - 160);
	node_finding(resolver->reading->diagnostics, pipeline->steps[start].at, "the steps run in a circle: %s%s", path,
		     at == start ? pipeline->steps[start].name : "...");
}

/* Lowers the number of inputs that steps wait for, by those that come from one step. */
static void waiting_lower(const struct pipeline *pipeline, uint32_t from, size_t *waiting)
{
	for (size_t i = 0; i < pipeline->step_count; i++) {
		for (size_t k = 0; k < pipeline->steps[i].input_count; k++) {
			const struct reference *input = &pipeline->steps[i].inputs[k];
			waiting[i] -= !input->from_source && input->index == from;
		}
	}
}

/* Puts the steps into an order; those that can go first go as written. A finding when they run in a circle. */
static void steps_order(const struct resolver *resolver)
{
	struct pipeline *pipeline = resolver->pipeline;
	struct pool *pool = resolver->reading->pool;
	size_t *waiting = pool_array(pool, pipeline->step_count, sizeof(*waiting));
	bool *placed = pool_array(pool, pipeline->step_count, sizeof(*placed));

	pipeline->order = pool_array(pool, pipeline->step_count, sizeof(*pipeline->order));
	for (size_t i = 0; i < pipeline->step_count; i++) {
		for (size_t k = 0; k < pipeline->steps[i].input_count; k++)
			waiting[i] += !pipeline->steps[i].inputs[k].from_source;
	}
	for (size_t count = 0; count < pipeline->step_count; count++) {
		uint32_t next = 0;
		while (next < pipeline->step_count && (placed[next] || waiting[next] > 0))
			next++;
		if (next == pipeline->step_count) {
			circle_report(resolver, placed);
			return;
		}
		placed[next] = true;
		pipeline->order[count] = next;
		waiting_lower(pipeline, next, waiting);
	}
}

void pipeline_resolve(struct pipeline *pipeline, const struct reading *reading)
{
	struct resolver resolver = {.pipeline = pipeline, .reading = reading};

	reserved_check(&resolver);
	names_check(&resolver);
	steps_resolve(&resolver);
	sinks_resolve(&resolver);
	for (size_t i = 0; i < pipeline->step_count; i++)
		letters_expand(&resolver, &pipeline->steps[i].inputs, &pipeline->steps[i].input_count);
	for (size_t i = 0; i < pipeline->sink_count; i++)
		letters_expand(&resolver, &pipeline->sinks[i].inputs, &pipeline->sinks[i].input_count);
	if (reading->diagnostics->count > 0)
		return; /* what is broken would only be reported a second time, as unread */
	for (size_t i = 0; i < pipeline->step_count; i++)
		readers_count(pipeline, pipeline->steps[i].inputs, pipeline->steps[i].input_count);
	for (size_t i = 0; i < pipeline->sink_count; i++)
		readers_count(pipeline, pipeline->sinks[i].inputs, pipeline->sinks[i].input_count);
	unread_find(&resolver);
	unread_letters_find(&resolver);
	if (reading->diagnostics->count == 0)
		steps_order(&resolver);
}
