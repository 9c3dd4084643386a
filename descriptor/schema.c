/*
 * JSON Schemas (schema.h). What is open to ${NAME} may be a string where the value itself would be a number: an editor sees
 * the file before anything is put in.
 */
#include "descriptor/schema.h"

#include <string.h>

#include "descriptor/kinds.h"
#include "descriptor/options.h"
#include "shared/json.h"

static const char name_pattern[] = "^[A-Za-z_][A-Za-z0-9_-]{0,62}$";
static const char variable_pattern[] = "\\$\\{";

/* Text as YAML may give it: `program: 1` is text as well. */
static void text_json(struct json *json, const char *key, const char *help)
{
	json_open_object(json, key);
	if (help != NULL)
		json_text(json, "description", help);
	json_open_array(json, "type");
	json_text(json, NULL, "string");
	json_text(json, NULL, "number");
	json_text(json, NULL, "boolean");
	json_close_array(json);
	json_unsigned(json, "minLength", 1);
	json_unsigned(json, "maxLength", OPTION_TEXT_MAX);
	json_close_object(json);
}

/* An alternative of `anyOf`: a string of some pattern. */
static void pattern_json(struct json *json, const char *pattern)
{
	json_open_object(json, NULL);
	json_text(json, "type", "string");
	json_text(json, "pattern", pattern);
	json_close_object(json);
}

/* `anyOf` an integer within bounds and strings of two patterns. */
static void integer_json(struct json *json, int64_t least, int64_t most, const char *pattern)
{
	json_open_array(json, "anyOf");
	json_open_object(json, NULL);
	json_text(json, "type", "integer");
	json_signed(json, "minimum", least);
	if (most != INT64_MAX)
		json_signed(json, "maximum", most);
	json_close_object(json);
	pattern_json(json, pattern);
	pattern_json(json, variable_pattern);
	json_close_array(json);
}

/* `anyOf` some words and a variable. */
static void words_json(struct json *json, const char *const *words, size_t count)
{
	json_open_array(json, "anyOf");
	json_open_object(json, NULL);
	json_open_array(json, "enum");
	for (size_t i = 0; i < count; i++)
		json_text(json, NULL, words[i]);
	json_close_array(json);
	json_close_object(json);
	pattern_json(json, variable_pattern);
	json_close_array(json);
}

/* The words of a CHOICE. */
static void choices_json(struct json *json, const struct option_info *info)
{
	char copy[128], *rest = copy;
	const char *words[8];
	size_t count = 0;

	snprintf(copy, sizeof(copy), "%s", option_choices(info));
	for (char *word; (word = strsep(&rest, "|")) != NULL && count < 8;)
		words[count++] = word;
	words_json(json, words, count);
}

/* `anyOf` true, false and a variable. */
static void bool_json(struct json *json)
{
	json_open_array(json, "anyOf");
	json_open_object(json, NULL);
	json_text(json, "type", "boolean");
	json_close_object(json);
	pattern_json(json, variable_pattern);
	json_close_array(json);
}

/* `anyOf` a list of different texts and a single one. */
static void list_json(struct json *json)
{
	json_open_array(json, "anyOf");
	json_open_object(json, NULL);
	json_text(json, "type", "array");
	json_unsigned(json, "minItems", 1);
	json_unsigned(json, "maxItems", OPTION_ITEMS_MAX);
	json_bool(json, "uniqueItems", true);
	text_json(json, "items", NULL);
	json_close_object(json);
	text_json(json, NULL, NULL);
	json_close_array(json);
}

/* A map of texts; of a ROUTES option the keys are names. */
static void map_json(struct json *json, enum option_type type)
{
	json_text(json, "type", "object");
	json_unsigned(json, "minProperties", 1);
	json_unsigned(json, "maxProperties", type == OPTION_ROUTES ? DESCRIPTOR_ROUTES_MAX : OPTION_ITEMS_MAX);
	json_open_object(json, "propertyNames");
	json_text(json, "pattern", type == OPTION_ROUTES ? name_pattern : ".");
	json_close_object(json);
	json_open_object(json, "additionalProperties");
	json_open_array(json, "type");
	json_text(json, NULL, "string");
	json_text(json, NULL, "number");
	json_text(json, NULL, "boolean");
	json_close_array(json);
	json_close_object(json);
}

/* What may stand in an option. */
static void option_body_json(struct json *json, const struct option_info *info)
{
	int64_t least, most;

	option_bounds(info, &least, &most);
	switch (info->type) {
	case OPTION_PROGRAM:
	case OPTION_TEXT:
		break; /* text_json says it all */
	case OPTION_NUMBER:
		integer_json(json, least, most, "^[0-9]+$");
		break;
	case OPTION_BYTES:
		integer_json(json, least, most, "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$");
		break;
	case OPTION_DURATION:
		integer_json(json, 0, 0, "^(0|[0-9]+ *(us|ms|s|min|h))$");
		break;
	case OPTION_FORM:
		words_json(json, form_names, FORM_COUNT);
		break;
	case OPTION_CHOICE:
		choices_json(json, info);
		break;
	case OPTION_BOOL:
		bool_json(json);
		break;
	case OPTION_LIST:
		list_json(json);
		break;
	case OPTION_MAP:
	case OPTION_ROUTES:
		map_json(json, info->type);
		break;
	}
}

/* An option as a schema of its own. */
static void option_json(struct json *json, const char *key, const struct option_info *info)
{
	if (info->type == OPTION_PROGRAM || info->type == OPTION_TEXT) {
		text_json(json, key, info->help);
		return;
	}
	json_open_object(json, key);
	json_text(json, "description", info->help);
	if (info->fallback != NULL)
		json_text(json, "default", info->fallback);
	option_body_json(json, info);
	json_close_object(json);
}

/* A name. */
static void name_json(struct json *json, const char *key, const char *help)
{
	json_open_object(json, key);
	json_text(json, "description", help);
	json_text(json, "type", "string");
	json_text(json, "pattern", name_pattern);
	json_close_object(json);
}

/* A parallelism. */
static void parallelism_json(struct json *json, const char *key, const char *help)
{
	json_open_object(json, key);
	json_text(json, "description", help);
	integer_json(json, 1, DESCRIPTOR_PARALLELISM_MAX, "^[0-9]+$");
	json_close_object(json);
}

/* A `from`. */
static void from_json(struct json *json)
{
	json_open_object(json, "from");
	json_text(json, "description",
		  "What is read: a source, a step, step.route, step.dead_letter, dead_letter (of all steps), or a list "
		  "of those.");
	json_open_array(json, "anyOf");
	json_open_object(json, NULL);
	json_text(json, "type", "string");
	json_close_object(json);
	json_open_object(json, NULL);
	json_text(json, "type", "array");
	json_unsigned(json, "minItems", 1);
	json_unsigned(json, "maxItems", DESCRIPTOR_INPUTS_MAX);
	json_bool(json, "uniqueItems", true);
	json_open_object(json, "items");
	json_text(json, "type", "string");
	json_close_object(json);
	json_close_object(json);
	json_close_array(json);
	json_close_object(json);
}

/* An error policy. */
static void policy_json(struct json *json, const char *help)
{
	json_open_object(json, "on_error");
	json_text(json, "description", help);
	words_json(json, error_policy_names, ON_ERROR_COUNT);
	json_close_object(json);
}

static const char policy_help[] =
    "What becomes of a record that the step fails on; without it, what the pipeline says.";

/* What else is said of failures. */
static void rules_json(struct json *json)
{
	for (size_t i = 0; i < ERROR_RULE_COUNT; i++)
		option_json(json, error_rule_infos[i].name, &error_rule_infos[i]);
}

/* States to drop. */
static void drops_json(struct json *json)
{
	json_open_object(json, "drop_state");
	json_text(json, "description",
		  "States of a restored checkpoint, STEP.STATE each, that may be thrown away where they do not fit.");
	json_open_array(json, "anyOf");
	json_open_object(json, NULL);
	json_text(json, "type", "string");
	json_close_object(json);
	json_open_object(json, NULL);
	json_text(json, "type", "array");
	json_unsigned(json, "maxItems", DESCRIPTOR_DROPS_MAX);
	json_open_object(json, "items");
	json_text(json, "type", "string");
	json_close_object(json);
	json_close_object(json);
	json_close_array(json);
	json_close_object(json);
}

/* How a step is fed. */
static void partition_json(struct json *json)
{
	static const char *const words[] = {"rebalance", "broadcast"};

	json_open_object(json, "partition");
	json_text(
	    json, "description",
	    "How records reach its subtasks: in turn, or every record each of them. Without it, as parallelism has "
	    "it, and behind a key_by by the key.");
	words_json(json, words, 2);
	json_close_object(json);
	text_json(
	    json, "partition_by",
	    "A jq program over the payload that says which subtask a record goes to: by a number, or by a hash of "
	    "anything else.");
}

/* The properties that entries of a scope have whatever their kind. */
static void own_properties_json(struct json *json, enum scope scope)
{
	if (scope == SCOPE_STEP)
		name_json(json, "name", "The step's name, by which others refer to it.");
	if (scope != SCOPE_SOURCE)
		from_json(json);
	if (scope == SCOPE_STEP)
		name_json(json, "segment", "A name for the segment that the step ends up in.");
	if (scope == SCOPE_STEP) {
		policy_json(json, policy_help);
		rules_json(json);
		partition_json(json);
	}
	parallelism_json(json, "parallelism",
			 "How many subtasks; without it, the pipeline's where the kind is always split.");
}

/* The kinds of a scope as the property `kind`. */
static void kinds_json(struct json *json, enum scope scope)
{
	json_open_object(json, "kind");
	json_open_array(json, "oneOf");
	for (unsigned kind = 0; kind < kind_count(scope); kind++) {
		json_open_object(json, NULL);
		json_text(json, "const", kind_info(scope, kind)->name);
		json_text(json, "description", kind_info(scope, kind)->help);
		json_close_object(json);
	}
	json_close_array(json);
	json_close_object(json);
}

/* What an entry of one kind looks like. */
static void kind_json(struct json *json, enum scope scope, unsigned kind)
{
	size_t count;
	const struct option_info *options = kind_options(scope, kind, &count);

	json_bool(json, "additionalProperties", false);
	json_open_array(json, "required");
	for (size_t i = 0; i < count; i++) {
		if (options[i].required)
			json_text(json, NULL, options[i].name);
	}
	json_close_array(json);
	json_open_object(json, "properties");
	json_open_object(json, "kind");
	json_close_object(json);
	own_properties_json(json, scope);
	for (size_t i = 0; i < count; i++)
		option_json(json, options[i].name, &options[i]);
	json_close_object(json);
}

/* What an entry of a scope looks like, by its kind. */
static void scope_json(struct json *json, enum scope scope)
{
	json_open_object(json, scope_name(scope));
	json_text(json, "type", "object");
	json_open_array(json, "required");
	if (scope == SCOPE_STEP)
		json_text(json, NULL, "name");
	json_text(json, NULL, "kind");
	json_close_array(json);
	json_open_object(json, "properties");
	kinds_json(json, scope);
	json_close_object(json);
	json_open_array(json, "allOf");
	for (unsigned kind = 0; kind < kind_count(scope); kind++) {
		json_open_object(json, NULL);
		json_open_object(json, "if");
		json_open_object(json, "properties");
		json_open_object(json, "kind");
		json_text(json, "const", kind_info(scope, kind)->name);
		json_close_object(json);
		json_close_object(json);
		json_close_object(json);
		json_open_object(json, "then");
		kind_json(json, scope, kind);
		json_close_object(json);
		json_close_object(json);
	}
	json_close_array(json);
	json_close_object(json);
}

/* A map of names to entries of a scope. */
static void entries_json(struct json *json, const char *key, enum scope scope, const char *help)
{
	char reference[64];

	snprintf(reference, sizeof(reference), "#/definitions/%s", scope_name(scope));
	json_open_object(json, key);
	json_text(json, "description", help);
	json_text(json, "type", scope == SCOPE_STEP ? "array" : "object");
	json_unsigned(json, scope == SCOPE_STEP ? "minItems" : "minProperties", 1);
	if (scope != SCOPE_STEP) {
		json_open_object(json, "propertyNames");
		json_text(json, "pattern", name_pattern);
		json_close_object(json);
	}
	json_open_object(json, scope == SCOPE_STEP ? "items" : "additionalProperties");
	json_text(json, "$ref", reference);
	json_close_object(json);
	json_close_object(json);
}

/* Begins a schema. */
static void schema_begin(struct json *json, FILE *out, const char *title)
{
	json_init(json, out);
	json_open_object(json, NULL);
	json_text(json, "$schema", "http://json-schema.org/draft-07/schema#");
	json_text(json, "title", title);
	json_text(json, "type", "object");
	json_bool(json, "additionalProperties", false);
}

void schema_print_pipeline(FILE *out)
{
	static const char *const required[] = {"name", "sources", "sinks"};
	struct json json;

	schema_begin(&json, out, "A pipeline of Flink Bridge");
	json_open_array(&json, "required");
	for (size_t i = 0; i < 3; i++)
		json_text(&json, NULL, required[i]);
	json_close_array(&json);
	json_open_object(&json, "properties");
	name_json(&json, "name", "The pipeline's name.");
	parallelism_json(&json, "parallelism",
			 "How many subtasks everything has that does not say otherwise; 1 without it.");
	parallelism_json(
	    &json, "max_parallelism",
	    "How many key groups there are: the bound of all parallelism, fixed for a job's life; 128 without it.");
	policy_json(&json, "What becomes of a record that a step fails on which does not say; `fail` without it.");
	rules_json(&json);
	drops_json(&json);
	entries_json(&json, "sources", SCOPE_SOURCE, "Where records come from: names to sources.");
	entries_json(&json, "steps", SCOPE_STEP,
		     "What is done with them; each step reads the one before it, or its `from`.");
	entries_json(&json, "sinks", SCOPE_SINK, "Where records go: names to sinks.");
	json_close_object(&json);
	json_open_object(&json, "definitions");
	for (int scope = 0; scope <= SCOPE_SINK; scope++)
		scope_json(&json, (enum scope)scope);
	json_close_object(&json);
	json_close_object(&json);
	fputc('\n', out);
}

/* Whether an option of the same name stands further up in the table of a scope. */
static bool option_seen(enum scope scope, unsigned kind, const char *name)
{
	for (unsigned before = 0; before < kind; before++) {
		size_t count;
		const struct option_info *options = kind_options(scope, before, &count);
		for (size_t i = 0; i < count; i++) {
			if (strcmp(options[i].name, name) == 0)
				return true;
		}
	}
	return false;
}

/* An option of whatever kind has it. */
static void any_option_json(struct json *json, enum scope scope, const char *name)
{
	json_open_object(json, name);
	json_open_array(json, "anyOf");
	for (unsigned kind = 0; kind < kind_count(scope); kind++) {
		size_t count;
		const struct option_info *options = kind_options(scope, kind, &count);
		for (size_t i = 0; i < count; i++) {
			if (strcmp(options[i].name, name) == 0)
				option_json(json, NULL, &options[i]);
		}
	}
	json_close_array(json);
	json_close_object(json);
}

/* What a deployment may say of the entries of a scope. */
static void changes_json(struct json *json, const char *key, enum scope scope, const char *help)
{
	json_open_object(json, key);
	json_text(json, "description", help);
	json_text(json, "type", "object");
	json_open_object(json, "additionalProperties");
	json_text(json, "type", "object");
	json_bool(json, "additionalProperties", false);
	json_open_object(json, "properties");
	if (scope != SCOPE_STEP)
		kinds_json(json, scope);
	parallelism_json(json, "parallelism", "How many subtasks.");
	if (scope == SCOPE_STEP) {
		policy_json(json, policy_help);
		rules_json(json);
	}
	for (unsigned kind = 0; kind < kind_count(scope); kind++) {
		size_t count;
		const struct option_info *options = kind_options(scope, kind, &count);
		for (size_t i = 0; i < count; i++) {
			if (!option_seen(scope, kind, options[i].name))
				any_option_json(json, scope, options[i].name);
		}
	}
	json_close_object(json);
	json_close_object(json);
	json_close_object(json);
}

/* What a deployment says to Flink. */
static void flink_json(struct json *json)
{
	size_t count;
	const struct option_info *options = kind_options(SCOPE_FLINK, 0, &count);

	json_open_object(json, "flink");
	json_text(json, "description", kind_info(SCOPE_FLINK, 0)->help);
	json_text(json, "type", "object");
	json_bool(json, "additionalProperties", false);
	json_open_object(json, "properties");
	for (size_t i = 0; i < count; i++)
		option_json(json, options[i].name, &options[i]);
	json_close_object(json);
	json_close_object(json);
}

void schema_print_config(FILE *out)
{
	struct json json;

	schema_begin(&json, out, "What a deployment changes in a pipeline of Flink Bridge");
	json_open_object(&json, "properties");
	parallelism_json(&json, "parallelism", "How many subtasks everything has that does not say otherwise.");
	parallelism_json(&json, "max_parallelism", "How many key groups there are, fixed for a job's life.");
	policy_json(&json, "What becomes of a record that a step fails on which does not say.");
	rules_json(&json);
	drops_json(&json);
	changes_json(&json, "sources", SCOPE_SOURCE,
		     "Names to what changes; a source whose `kind` is given here is replaced as a whole.");
	changes_json(&json, "steps", SCOPE_STEP, "Names to options that change.");
	changes_json(&json, "sinks", SCOPE_SINK,
		     "Names to what changes; a sink whose `kind` is given here is replaced, but for its `from`.");
	flink_json(&json);
	json_open_object(&json, "sidecar");
	json_text(&json, "description", "The flags of bridged.");
	json_text(&json, "type", "object");
	json_close_object(&json);
	json_close_object(&json);
	json_close_object(&json);
	fputc('\n', out);
}
