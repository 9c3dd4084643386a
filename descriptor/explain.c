/*
 * A descriptor told (show.h). Nothing here is worked out anew: the reasons of the cuts stand in the descriptor, so that
 * what is told of a pipeline and of its descriptor is the same.
 */
#include <inttypes.h>
#include <string.h>

#include "descriptor/kinds.h"
#include "descriptor/manifest.h"
#include "descriptor/options.h"
#include "descriptor/show.h"
#include "shared/json.h"
#include "shared/units.h"

/* The parallelism and the name of what an input comes from. */
static uint32_t feeding_parallelism(const struct descriptor *descriptor, const struct input *input)
{
	return input->from_source ? descriptor->sources[input->index].parallelism
				  : descriptor->segments[input->index].parallelism;
}

/* The name of the source or segment that an input comes from. */
static const char *feeding_name(const struct descriptor *descriptor, const struct input *input)
{
	return input->from_source ? descriptor->sources[input->index].name : descriptor->segments[input->index].name;
}

/* The route that an input takes, or NULL. */
static const char *feeding_route(const struct descriptor *descriptor, const struct input *input)
{
	const struct segment *segment = input->from_source ? NULL : &descriptor->segments[input->index];

	return segment != NULL && segment->route_count > 0 ? segment->routes[input->route] : NULL;
}

/* Says why records are spread as they are. */
static void partition_reason(const struct descriptor *descriptor, const struct input *input, uint32_t parallelism,
			     char *text, size_t size)
{
	if (input->partition == PARTITION_HASH)
		snprintf(text, size, "by the hash of the key, to the subtask that has its key group");
	else if (input->partition == PARTITION_FORWARD)
		snprintf(text, size, "each subtask to its own successor, %u to %u", parallelism, parallelism);
	else if (input->partition == PARTITION_BROADCAST)
		snprintf(text, size, "every record to each of %u subtasks", parallelism);
	else if (input->partition == PARTITION_CUSTOM)
		snprintf(text, size, "by %.80s, over %u subtasks", input->partition_by, parallelism);
	else
		snprintf(text, size, "in turn, from %u to %u subtasks", feeding_parallelism(descriptor, input),
			 parallelism);
}

/* Tells what is read. */
static void inputs_print(const struct descriptor *descriptor, const struct input *inputs, size_t count,
			 uint32_t parallelism, FILE *out)
{
	for (size_t i = 0; i < count; i++) {
		const char *route = feeding_route(descriptor, &inputs[i]);
		char reason[128];
		partition_reason(descriptor, &inputs[i], parallelism, reason, sizeof(reason));
		fprintf(out, "  %-7s %s %s%s%s, %s (%s)\n", i == 0 ? "reads" : "",
			inputs[i].from_source ? "source" : "segment", feeding_name(descriptor, &inputs[i]),
			route == NULL ? "" : ", route ", route == NULL ? "" : route,
			partition_name(inputs[i].partition), reason);
	}
}

/* Writes text on one line, cut where it gets long. */
static void print_short(const char *text, FILE *out)
{
	size_t shown = 0;

	for (; *text != '\0' && shown < 72; text++, shown += ((unsigned char)*text & 0xc0) != 0x80)
		fputc((unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text, out);
	for (; ((unsigned char)*text & 0xc0) == 0x80; text++)
		fputc(*text, out);
	if (*text != '\0')
		fputs("...", out);
}

/* Writes the value of an option as a person would. */
static void value_print(const struct option *option, FILE *out)
{
	char text[UNITS_TEXT_MAX];

	switch (option->type) {
	case OPTION_PROGRAM:
	case OPTION_TEXT:
	case OPTION_CHOICE:
		print_short(option->text, out);
		break;
	case OPTION_NUMBER:
		fprintf(out, "%" PRId64, option->number);
		break;
	case OPTION_BYTES:
		fputs(size_exact(text, (uint64_t)option->number), out);
		break;
	case OPTION_DURATION:
		fputs(duration_exact(text, (uint64_t)option->number * 1000), out);
		break;
	case OPTION_BOOL:
		fputs(option->number ? "true" : "false", out);
		break;
	case OPTION_FORM:
		fputs(form_names[option->number], out);
		break;
	case OPTION_LIST:
	case OPTION_MAP:
	case OPTION_ROUTES:
		for (size_t i = 0; i < option->item_count && i < 20; i++) {
			fputs(i > 0 ? ", " : "", out);
			print_short(option->items[i].name, out);
			if (option->type != OPTION_LIST) {
				fputs(": ", out);
				print_short(option->items[i].value, out);
			}
		}
		break;
	}
}

/* Writes what is said of failures beside the policy. */
static void rules_print(const struct error_rules *rules, FILE *out)
{
	struct option option;

	for (size_t i = 0; i < ERROR_RULE_COUNT; i++) {
		if (!error_rule_option(rules, i, &option))
			continue;
		fprintf(out, "            %s: ", option.name);
		value_print(&option, out);
		fputc('\n', out);
	}
}

/* Writes the options that are given. */
static void options_print(const struct option *options, size_t count, const char *indent, FILE *out)
{
	for (size_t i = 0; i < count; i++) {
		if (!options[i].given)
			continue;
		fprintf(out, "%s%s: ", indent, options[i].name);
		value_print(&options[i], out);
		fputc('\n', out);
	}
}

/* Tells what the steps of a segment remember. */
static void states_print(const struct segment *segment, FILE *out)
{
	const char *label = "state";

	for (size_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *step = &segment->steps[i];
		size_t declares = step_state_count(step);
		for (size_t place = 0; place < declares; place++) {
			struct state_spec spec;
			char kept[UNITS_TEXT_MAX];
			if (!step_state(segment, step, place, &spec))
				continue;
			fprintf(out, "  %-7s %s.%s: %s %s, version %u%s%s (%s)\n", label, spec.step, spec.name,
				state_kind_name(spec.kind), state_partition_name(spec.partition),
				spec.version % STATE_VERSION_TTL, spec.ttl_ms > 0 ? ", kept for " : "",
				spec.ttl_ms > 0 ? duration_exact(kept, (uint64_t)spec.ttl_ms * 1000) : "",
				step_state_help(step, place));
			label = "";
		}
	}
}

/* Tells about one segment. */
static void segment_print(const struct descriptor *descriptor, const struct segment *segment, FILE *out)
{
	fprintf(out, "\nsegment %u, %s: parallelism %u%s\n", segment->id, segment->name, segment->parallelism,
		segment->keyed ? ", keyed" : "");
	inputs_print(descriptor, segment->inputs, segment->input_count, segment->parallelism, out);
	for (size_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *step = &segment->steps[i];
		fprintf(out, "  %-7s %s, %s\n", i == 0 ? "steps" : "", step->name, step_kind_name(step->kind));
		if (step->policy != ON_ERROR_FAIL)
			fprintf(out, "            on_error: %s\n", error_policy_name(step->policy));
		rules_print(&step->rules, out);
		options_print(step->options, step->option_count, "            ", out);
	}
	states_print(segment, out);
	fprintf(out, "  ends    %s\n", segment->cut);
}

void explain_print(const struct descriptor *descriptor, FILE *out)
{
	fprintf(out, "pipeline %s: %u steps in %zu segments, topology %s\n", descriptor->pipeline,
		descriptor->step_count, descriptor->segment_count, descriptor->topology_hash);
	for (size_t i = 0; i < descriptor->drop_state_count; i++)
		fprintf(out, "%s%s.%s%s", i == 0 ? "drops of a checkpoint what does not fit: " : ", ",
			descriptor->drop_state[i].step, descriptor->drop_state[i].name,
			i + 1 == descriptor->drop_state_count ? "\n" : "");
	for (size_t i = 0; i < descriptor->source_count; i++) {
		const struct source *source = &descriptor->sources[i];
		fprintf(out, "\nsource %s, %s: parallelism %u\n", source->name, source_kind_name(source->kind),
			source->parallelism);
		options_print(source->options, source->option_count, "          ", out);
	}
	for (size_t i = 0; i < descriptor->segment_count; i++)
		segment_print(descriptor, &descriptor->segments[i], out);
	for (size_t i = 0; i < descriptor->sink_count; i++) {
		const struct sink *sink = &descriptor->sinks[i];
		fprintf(out, "\nsink %s, %s: parallelism %u\n", sink->name, sink_kind_name(sink->kind),
			sink->parallelism);
		inputs_print(descriptor, sink->inputs, sink->input_count, sink->parallelism, out);
		options_print(sink->options, sink->option_count, "          ", out);
	}
}

/* Writes one option as JSON: durations in ms, sizes in bytes. */
static void option_json(struct json *json, const struct option *option)
{
	bool list = option->type == OPTION_LIST;

	if (option->text != NULL) {
		json_text(json, option->name, option->text);
	} else if (option->type == OPTION_FORM) {
		json_text(json, option->name, form_names[option->number]);
	} else if (option->type == OPTION_BOOL) {
		json_bool(json, option->name, option->number != 0);
	} else if (option->type == OPTION_NUMBER || option->type == OPTION_BYTES || option->type == OPTION_DURATION) {
		json_signed(json, option->name, option->number);
	} else {
		(list ? json_open_array : json_open_object)(json, option->name);
		for (size_t i = 0; i < option->item_count; i++)
			json_text(json, list ? NULL : option->items[i].name,
				  list ? option->items[i].name : option->items[i].value);
		(list ? json_close_array : json_close_object)(json);
	}
}

/* Writes the options that are given as an object. */
static void options_json(struct json *json, const struct option *options, size_t count)
{
	json_open_object(json, "options");
	for (size_t i = 0; i < count; i++) {
		if (options[i].given)
			option_json(json, &options[i]);
	}
	json_close_object(json);
}

/* Writes what is read. */
static void inputs_json(struct json *json, const struct descriptor *descriptor, const struct input *inputs,
			size_t count, uint32_t parallelism)
{
	json_open_array(json, "inputs");
	for (size_t i = 0; i < count; i++) {
		char reason[128];
		partition_reason(descriptor, &inputs[i], parallelism, reason, sizeof(reason));
		json_open_object(json, NULL);
		json_text(json, inputs[i].from_source ? "source" : "segment", feeding_name(descriptor, &inputs[i]));
		if (feeding_route(descriptor, &inputs[i]) != NULL)
			json_text(json, "route", feeding_route(descriptor, &inputs[i]));
		json_text(json, "partition", partition_name(inputs[i].partition));
		if (inputs[i].partition == PARTITION_CUSTOM)
			json_text(json, "partition_by", inputs[i].partition_by);
		json_text(json, "reason", reason);
		json_close_object(json);
	}
	json_close_array(json);
}

/* Writes what every source, sink and step begins with. */
static void head_json(struct json *json, const char *name, const char *kind)
{
	json_open_object(json, NULL);
	json_text(json, "name", name);
	json_text(json, "kind", kind);
}

/* Writes what a step remembers. */
static void states_json(struct json *json, const struct segment *segment, const struct step_spec *step)
{
	size_t declares = step_state_count(step);

	json_open_array(json, "states");
	for (size_t place = 0; place < declares; place++) {
		struct state_spec spec;
		if (!step_state(segment, step, place, &spec))
			continue;
		json_open_object(json, NULL);
		json_text(json, "name", spec.name);
		json_text(json, "kind", state_kind_name(spec.kind));
		json_text(json, "partition", state_partition_name(spec.partition));
		json_unsigned(json, "version", spec.version);
		json_signed(json, "ttl_ms", spec.ttl_ms);
		json_close_object(json);
	}
	json_close_array(json);
}

/* Writes one segment. */
static void segment_json(struct json *json, const struct descriptor *descriptor, const struct segment *segment)
{
	json_open_object(json, NULL);
	json_unsigned(json, "id", segment->id);
	json_text(json, "name", segment->name);
	json_unsigned(json, "parallelism", segment->parallelism);
	json_unsigned(json, "max_parallelism", segment->max_parallelism);
	json_bool(json, "keyed", segment->keyed);
	inputs_json(json, descriptor, segment->inputs, segment->input_count, segment->parallelism);
	json_open_array(json, "routes");
	for (size_t i = 0; i < segment->route_count; i++)
		json_text(json, NULL, segment->routes[i]);
	json_close_array(json);
	json_open_array(json, "steps");
	for (size_t i = 0; i < segment->step_count; i++) {
		head_json(json, segment->steps[i].name, step_kind_name(segment->steps[i].kind));
		json_text(json, "on_error", error_policy_name(segment->steps[i].policy));
		for (size_t rule = 0; rule < ERROR_RULE_COUNT; rule++) {
			struct option option;
			error_rule_option(&segment->steps[i].rules, rule, &option);
			option_json(json, &option);
		}
		options_json(json, segment->steps[i].options, segment->steps[i].option_count);
		states_json(json, segment, &segment->steps[i]);
		json_close_object(json);
	}
	json_close_array(json);
	json_text(json, "cut", segment->cut);
	json_close_object(json);
}

/* Writes which states of a checkpoint may be thrown away. */
static void drops_json(struct json *json, const struct descriptor *descriptor)
{
	json_open_array(json, "drop_state");
	for (size_t i = 0; i < descriptor->drop_state_count; i++) {
		char text[2 * DESCRIPTOR_NAME_MAX + 2];
		snprintf(text, sizeof(text), "%s.%s", descriptor->drop_state[i].step, descriptor->drop_state[i].name);
		json_text(json, NULL, text);
	}
	json_close_array(json);
}

void explain_print_json(const struct descriptor *descriptor, FILE *out)
{
	struct json json;

	json_init(&json, out);
	json_open_object(&json, NULL);
	json_text(&json, "pipeline", descriptor->pipeline);
	json_text(&json, "topology_hash", descriptor->topology_hash);
	drops_json(&json, descriptor);
	json_open_array(&json, "sources");
	for (size_t i = 0; i < descriptor->source_count; i++) {
		const struct source *source = &descriptor->sources[i];
		head_json(&json, source->name, source_kind_name(source->kind));
		json_unsigned(&json, "parallelism", source->parallelism);
		options_json(&json, source->options, source->option_count);
		json_close_object(&json);
	}
	json_close_array(&json);
	json_open_array(&json, "segments");
	for (size_t i = 0; i < descriptor->segment_count; i++)
		segment_json(&json, descriptor, &descriptor->segments[i]);
	json_close_array(&json);
	json_open_array(&json, "sinks");
	for (size_t i = 0; i < descriptor->sink_count; i++) {
		const struct sink *sink = &descriptor->sinks[i];
		head_json(&json, sink->name, sink_kind_name(sink->kind));
		json_unsigned(&json, "parallelism", sink->parallelism);
		inputs_json(&json, descriptor, sink->inputs, sink->input_count, sink->parallelism);
		options_json(&json, sink->options, sink->option_count);
		json_close_object(&json);
	}
	json_close_array(&json);
	json_close_object(&json);
	fputc('\n', out);
}
