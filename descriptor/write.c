/*
 * A descriptor as YAML (descriptor.h): the same descriptor, the same bytes.
 *
 * Written by hand rather than by libyaml's emitter: every text stands in double quotes with YAML's escapes, so that no
 * reader of YAML 1.1 or 1.2 takes `no`, `1e3` or `2026-11-21` for anything but text; numbers and booleans are plain.
 */
#include <inttypes.h>
#include <string.h>

#include "descriptor/kinds.h"
#include "descriptor/options.h"

/* The code point of the well-formed UTF-8 character at the start of some text; its length is set. */
static uint32_t character_of(const char *text, size_t *length)
{
	const uint8_t *at = (const uint8_t *)text;

	*length = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
	uint32_t point = *length == 1 ? at[0] : at[0] & (0x7fU >> *length);
	for (size_t i = 1; i < *length; i++)
		point = point << 6 | (at[i] & 0x3f);
	return point;
}

/* Whether a character may stand in YAML as it is: printable, no line break, no byte order mark. */
static bool is_plain(uint32_t point)
{
	return (point >= 0x20 && point < 0x7f) ||
	       (point >= 0xa0 && point != 0x2028 && point != 0x2029 && point != 0xfeff && (point & 0xfffe) != 0xfffe);
}

/* Writes text in double quotes. */
static void write_text(const char *text, FILE *out)
{
	fputc('"', out);
	while (*text != '\0') {
		size_t length;
		uint32_t point = character_of(text, &length);
		if (point == '"' || point == '\\')
			fprintf(out, "\\%c", (char)point);
		else if (point == '\n')
			fputs("\\n", out);
		else if (point == '\t')
			fputs("\\t", out);
		else if (is_plain(point))
			fwrite(text, 1, length, out);
		else if (point > 0xffff)
			fprintf(out, "\\U%08" PRIX32, point);
		else
			fprintf(out, "\\u%04" PRIX32, point);
		text += length;
	}
	fputc('"', out);
}

/* Writes `key: "text"` on a line of its own. */
static void write_pair(int indent, const char *key, const char *text, FILE *out)
{
	fprintf(out, "%*s%s: ", indent, "", key);
	write_text(text, out);
	fputc('\n', out);
}

static void write_option(int indent, const struct option *option, FILE *out);

/* Writes what is said of failures beside the policy. */
static void write_rules(int indent, const struct error_rules *rules, FILE *out)
{
	struct option option;

	for (size_t i = 0; i < ERROR_RULE_COUNT; i++) {
		if (error_rule_option(rules, i, &option))
			write_option(indent, &option, out);
	}
}

/* Writes the items of a LIST, MAP or ROUTES. */
static void write_items(int indent, const struct option *option, FILE *out)
{
	fprintf(out, "%*s%s:\n", indent, "", option->name);
	for (size_t i = 0; i < option->item_count; i++) {
		const struct option_item *item = &option->items[i];
		fprintf(out, "%*s", indent + 2, "");
		if (option->type == OPTION_LIST)
			fputs("- ", out);
		write_text(item->name, out);
		if (option->type != OPTION_LIST) {
			fputs(": ", out);
			write_text(item->value, out);
		}
		fputc('\n', out);
	}
}

/* Writes one option. */
static void write_option(int indent, const struct option *option, FILE *out)
{
	switch (option->type) {
	case OPTION_PROGRAM:
	case OPTION_TEXT:
	case OPTION_CHOICE:
		write_pair(indent, option->name, option->text, out);
		break;
	case OPTION_NUMBER:
	case OPTION_BYTES:
		fprintf(out, "%*s%s: %" PRId64 "\n", indent, "", option->name, option->number);
		break;
	case OPTION_DURATION:
		fprintf(out, "%*s%s: \"%" PRId64 "ms\"\n", indent, "", option->name, option->number);
		break;
	case OPTION_BOOL:
		fprintf(out, "%*s%s: %s\n", indent, "", option->name, option->number ? "true" : "false");
		break;
	case OPTION_FORM:
		write_pair(indent, option->name, form_names[option->number], out);
		break;
	case OPTION_LIST:
	case OPTION_MAP:
	case OPTION_ROUTES:
		write_items(indent, option, out);
		break;
	}
}

/* Writes the options that are given. */
static void write_options(int indent, const struct option *options, size_t count, FILE *out)
{
	for (size_t i = 0; i < count; i++) {
		if (options[i].given)
			write_option(indent, &options[i], out);
	}
}

/* Writes where a segment or sink gets its records from. */
static void write_inputs(int indent, const struct descriptor *descriptor, const struct input *inputs, size_t count,
			 FILE *out)
{
	fprintf(out, "%*sinputs:\n", indent, "");
	for (size_t i = 0; i < count; i++) {
		const struct input *input = &inputs[i];
		const struct segment *segment = input->from_source ? NULL : &descriptor->segments[input->index];
		fprintf(out, "%*s- %s: ", indent + 2, "", segment == NULL ? "source" : "segment");
		write_text(segment == NULL ? descriptor->sources[input->index].name : segment->name, out);
		fputc('\n', out);
		if (segment != NULL && segment->route_count > 0)
			write_pair(indent + 4, "route", segment->routes[input->route], out);
		write_pair(indent + 4, "partition", partition_name(input->partition), out);
		if (input->partition == PARTITION_CUSTOM)
			write_pair(indent + 4, "partition_by", input->partition_by, out);
	}
}

/* Writes which states of a checkpoint may be thrown away. */
static void write_drops(int indent, const struct descriptor *descriptor, FILE *out)
{
	if (descriptor->drop_state_count > 0)
		fprintf(out, "%*sdrop_state:\n", indent, "");
	for (size_t i = 0; i < descriptor->drop_state_count; i++)
		fprintf(out, "%*s- \"%s.%s\"\n", indent + 2, "", descriptor->drop_state[i].step,
			descriptor->drop_state[i].name);
}

/* Writes one segment. */
static void write_segment(const struct descriptor *descriptor, const struct segment *segment, FILE *out)
{
	fputs("  - step_name: ", out);
	write_text(segment->name, out);
	fprintf(out, "\n    config:\n      format_version: %d\n", DESCRIPTOR_FORMAT_VERSION);
	write_pair(6, "pipeline", descriptor->pipeline, out);
	write_pair(6, "topology_hash", descriptor->topology_hash, out);
	fprintf(out, "      id: %u\n      parallelism: %u\n      max_parallelism: %u\n      keyed: %s\n", segment->id,
		segment->parallelism, segment->max_parallelism, segment->keyed ? "true" : "false");
	write_pair(6, "cut", segment->cut, out);
	write_drops(6, descriptor, out);
	write_inputs(6, descriptor, segment->inputs, segment->input_count, out);
	if (segment->route_count > 0)
		fputs("      routes:\n", out);
	for (size_t i = 0; i < segment->route_count; i++) {
		fputs("        - ", out);
		write_text(segment->routes[i], out);
		fputc('\n', out);
	}
	fputs("      chain:\n", out);
	for (size_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *step = &segment->steps[i];
		fputs("        - name: ", out);
		write_text(step->name, out);
		fputc('\n', out);
		write_pair(10, "kind", step_kind_name(step->kind), out);
		write_pair(10, "on_error", error_policy_name(step->policy), out);
		write_rules(10, &step->rules, out);
		write_options(10, step->options, step->option_count, out);
	}
}

/* Writes what heads a source or sink. */
static void write_edge(const char *name, const char *kind, uint32_t parallelism, FILE *out)
{
	fputs("  ", out);
	write_text(name, out);
	fputs(":\n", out);
	write_pair(4, "kind", kind, out);
	fprintf(out, "    parallelism: %u\n", parallelism);
}

void descriptor_write(const struct descriptor *descriptor, FILE *out)
{
	fprintf(
	    out,
	    "# The pipeline %s, cut into segments by `bridgectl compile`. Not to be edited: change the pipeline and\n"
	    "# compile it again. `bridgectl explain` tells about this file, `bridgectl check` looks it over.\n",
	    descriptor->pipeline);
	fputs("sources:\n", out);
	for (size_t i = 0; i < descriptor->source_count; i++) {
		const struct source *source = &descriptor->sources[i];
		write_edge(source->name, source_kind_name(source->kind), source->parallelism, out);
		write_options(4, source->options, source->option_count, out);
	}
	fputs("steps:\n", out);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		write_segment(descriptor, &descriptor->segments[i], out);
	fputs("sinks:\n", out);
	for (size_t i = 0; i < descriptor->sink_count; i++) {
		const struct sink *sink = &descriptor->sinks[i];
		write_edge(sink->name, sink_kind_name(sink->kind), sink->parallelism, out);
		write_inputs(4, descriptor, sink->inputs, sink->input_count, out);
		write_options(4, sink->options, sink->option_count, out);
	}
}
