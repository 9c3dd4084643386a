/*
 * Drawings (show.h). What is drawn is the same for both formats; a format is a table of functions that say it in its
 * syntax. Names and kinds are plain words in both, so nothing has to be quoted.
 */
#include "descriptor/show.h"

#include "descriptor/routes.h"

const char *const graph_format_names[GRAPH_FORMAT_COUNT] = {[GRAPH_MERMAID] = "mermaid", [GRAPH_DOT] = "dot"};

struct syntax {
	void (*begin)(const char *pipeline, FILE *out);
	/* A source (`prefix` "source") or sink ("sink"). */
	void (*end_point)(const char *prefix, size_t index, const char *name, const char *kind, FILE *out);
	void (*segment_begin)(const struct segment *segment, FILE *out);
	void (*step)(const struct step_spec *step, FILE *out);
	void (*segment_end)(FILE *out);
	void (*edge)(const char *from, size_t from_index, const char *to, size_t to_index, const char *label,
		     FILE *out);
	void (*end)(FILE *out);
};

/* Begins a Mermaid flowchart. */
static void mermaid_begin(const char *pipeline, FILE *out)
{
	fprintf(out, "---\ntitle: %s\n---\nflowchart LR\n", pipeline);
}

/* A source or sink. */
static void mermaid_end_point(const char *prefix, size_t index, const char *name, const char *kind, FILE *out)
{
	fprintf(out, "  %s%zu[(\"%s<br/><i>%s</i>\")]\n", prefix, index, name, kind);
}

/* Begins the frame around the steps of a segment. */
static void mermaid_segment_begin(const struct segment *segment, FILE *out)
{
	fprintf(out, "  subgraph segment%u[\"segment %u: %s<br/>%u subtask%s%s\"]\n", segment->id, segment->id,
		segment->name, segment->parallelism, segment->parallelism == 1 ? "" : "s",
		segment->keyed ? ", keyed" : "");
}

/* A step. */
static void mermaid_step(const struct step_spec *step, FILE *out)
{
	fprintf(out, "    step%u[\"%s<br/><i>%s</i>\"]\n", step->index, step->name, step_kind_name(step->kind));
}

/* Ends the frame. */
static void mermaid_segment_end(FILE *out)
{
	fputs("  end\n", out);
}

/* An arrow, with words on it unless they are empty. */
static void mermaid_edge(const char *from, size_t from_index, const char *to, size_t to_index, const char *label,
			 FILE *out)
{
	if (*label == '\0')
		fprintf(out, "  %s%zu --> %s%zu\n", from, from_index, to, to_index);
	else
		fprintf(out, "  %s%zu -->|\"%s\"| %s%zu\n", from, from_index, label, to, to_index);
}

/* Mermaid needs no end. */
static void mermaid_end(FILE *out)
{
	(void)out;
}

/* Begins a Graphviz graph. */
static void dot_begin(const char *pipeline, FILE *out)
{
	fprintf(out, "digraph \"%s\" {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n", pipeline);
}

/* A source or sink. */
static void dot_end_point(const char *prefix, size_t index, const char *name, const char *kind, FILE *out)
{
	fprintf(out, "  %s%zu [label=\"%s\\n%s\", shape=cylinder, style=solid];\n", prefix, index, name, kind);
}

/* Begins the frame around the steps of a segment. */
static void dot_segment_begin(const struct segment *segment, FILE *out)
{
	fprintf(out, "  subgraph cluster_%u {\n    label=\"segment %u: %s\\n%u subtask%s%s\";\n", segment->id,
		segment->id, segment->name, segment->parallelism, segment->parallelism == 1 ? "" : "s",
		segment->keyed ? ", keyed" : "");
}

/* A step. */
static void dot_step(const struct step_spec *step, FILE *out)
{
	fprintf(out, "    step%u [label=\"%s\\n%s\"];\n", step->index, step->name, step_kind_name(step->kind));
}

/* Ends the frame. */
static void dot_segment_end(FILE *out)
{
	fputs("  }\n", out);
}

/* An arrow, with words on it. */
static void dot_edge(const char *from, size_t from_index, const char *to, size_t to_index, const char *label, FILE *out)
{
	fprintf(out, "  %s%zu -> %s%zu", from, from_index, to, to_index);
	if (*label != '\0')
		fprintf(out, " [label=\"%s\"]", label);
	fputs(";\n", out);
}

/* Ends the graph. */
static void dot_end(FILE *out)
{
	fputs("}\n", out);
}

static const struct syntax syntaxes[GRAPH_FORMAT_COUNT] = {
    [GRAPH_MERMAID] = {mermaid_begin, mermaid_end_point, mermaid_segment_begin, mermaid_step, mermaid_segment_end,
		       mermaid_edge, mermaid_end},
    [GRAPH_DOT] = {dot_begin, dot_end_point, dot_segment_begin, dot_step, dot_segment_end, dot_edge, dot_end},
};

/* The step that an input comes out of; *route is what to write on the arrow. */
static const struct step_spec *feeding_step(const struct segment *from, uint32_t number, const char **route)
{
	const struct step_spec *failing = route_dead_letters_of(from, number);

	*route = failing != NULL ? ROUTE_DEAD_LETTER : segment_has_own_routes(from) ? from->routes[number] : "";
	return failing != NULL ? failing : &from->steps[from->step_count - 1];
}

/* Draws what comes into a segment or sink: the route and how records are spread, unless they just go on. */
static void edges_print(const struct descriptor *descriptor, const struct input *inputs, size_t count, const char *to,
			size_t to_index, const struct syntax *syntax, FILE *out)
{
	for (size_t i = 0; i < count; i++) {
		const struct input *input = &inputs[i];
		const struct step_spec *step = NULL;
		const char *route = "";
		const char *spread = input->partition == PARTITION_FORWARD ? "" : partition_name(input->partition);
		char label[128];
		if (!input->from_source)
			step = feeding_step(&descriptor->segments[input->index], input->route, &route);
		snprintf(label, sizeof(label), "%s%s%s", route, *route != '\0' && *spread != '\0' ? ", " : "", spread);
		syntax->edge(step == NULL ? "source" : "step", step == NULL ? input->index : step->index, to, to_index,
			     label, out);
	}
}

/* Draws a segment's steps and what leads from one to the next. */
static void segment_print(const struct segment *segment, const struct syntax *syntax, FILE *out)
{
	syntax->segment_begin(segment, out);
	for (size_t i = 0; i < segment->step_count; i++)
		syntax->step(&segment->steps[i], out);
	syntax->segment_end(out);
	for (size_t i = 1; i < segment->step_count; i++)
		syntax->edge("step", segment->steps[i - 1].index, "step", segment->steps[i].index, "", out);
}

void graph_print(const struct descriptor *descriptor, enum graph_format format, FILE *out)
{
	const struct syntax *syntax = &syntaxes[format];

	syntax->begin(descriptor->pipeline, out);
	for (size_t i = 0; i < descriptor->source_count; i++)
		syntax->end_point("source", i, descriptor->sources[i].name,
				  source_kind_name(descriptor->sources[i].kind), out);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		segment_print(&descriptor->segments[i], syntax, out);
	for (size_t i = 0; i < descriptor->sink_count; i++)
		syntax->end_point("sink", i, descriptor->sinks[i].name, sink_kind_name(descriptor->sinks[i].kind), out);
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		const struct segment *segment = &descriptor->segments[i];
		edges_print(descriptor, segment->inputs, segment->input_count, "step", segment->steps[0].index, syntax,
			    out);
	}
	for (size_t i = 0; i < descriptor->sink_count; i++)
		edges_print(descriptor, descriptor->sinks[i].inputs, descriptor->sinks[i].input_count, "sink", i,
			    syntax, out);
	syntax->end(out);
}
