/* The tables of kinds as data (kinds.h): each .def file is included once for each of its macros. */
#include "descriptor/kinds.h"

#include <string.h>

#include "shared/log.h"

#define ITEMS(array) (sizeof(array) / sizeof(*(array)))

static const struct kind_info source_kinds[] = {
#define SOURCE_KIND(symbol, name, split, help) {#name, false, SPLIT_##split, help},
#include "descriptor/sources.def"
};

static const struct kind_info step_kinds_info[] = {
#define STEP_KIND(name, closes, help) {#name, closes, SPLIT_ALWAYS, help},
#include "descriptor/steps.def"
};

static const struct kind_info sink_kinds[] = {
#define SINK_KIND(symbol, name, split, help) {#name, false, SPLIT_##split, help},
#include "descriptor/sinks.def"
};

static const struct kind_info flink_kinds[] = {
#define FLINK_KIND(symbol, name, help) {#name, false, SPLIT_NEVER, help},
#include "descriptor/flink.def"
};

_Static_assert(ITEMS(source_kinds) == SOURCE_KIND_COUNT, "one entry for each kind of source");
_Static_assert(ITEMS(step_kinds_info) == STEP_KIND_COUNT, "one entry for each kind of step");
_Static_assert(ITEMS(sink_kinds) == SINK_KIND_COUNT, "one entry for each kind of sink");

static const struct {
	const char *name;
	const struct kind_info *kinds;
	size_t count;
} scopes[SCOPE_COUNT] = {
    [SCOPE_SOURCE] = {"source", source_kinds, ITEMS(source_kinds)},
    [SCOPE_STEP] = {"step", step_kinds_info, ITEMS(step_kinds_info)},
    [SCOPE_SINK] = {"sink", sink_kinds, ITEMS(sink_kinds)},
    [SCOPE_FLINK] = {"flink", flink_kinds, ITEMS(flink_kinds)},
};

static const struct option_info options[] = {
#define SOURCE_OPTION(kind, option, type, required, fallback, help)                                                    \
	{SCOPE_SOURCE, #kind, #option, OPTION_##type, required, fallback, help},
#include "descriptor/sources.def"
#define STEP_OPTION(kind, option, type, required, fallback, help)                                                      \
	{SCOPE_STEP, #kind, #option, OPTION_##type, required, fallback, help},
#include "descriptor/steps.def"
#define SINK_OPTION(kind, option, type, required, fallback, help)                                                      \
	{SCOPE_SINK, #kind, #option, OPTION_##type, required, fallback, help},
#include "descriptor/sinks.def"
#define FLINK_OPTION(kind, option, type, required, fallback, help)                                                     \
	{SCOPE_FLINK, #kind, #option, OPTION_##type, required, fallback, help},
#include "descriptor/flink.def"
};

const struct option_info error_rule_infos[ERROR_RULE_COUNT] = {
#define STEP_RULE(name, type, fallback, least, most, help)                                                             \
	{SCOPE_STEP, "", #name, OPTION_##type, false, fallback, help},
#include "descriptor/steps.def"
};

static const struct {
	enum scope scope;
	const char *kind, *option;
	int64_t least, most;
} bounds[] = {
#define SOURCE_BOUND(kind, option, least, most) {SCOPE_SOURCE, #kind, #option, least, most},
#include "descriptor/sources.def"
#define STEP_BOUND(kind, option, least, most) {SCOPE_STEP, #kind, #option, least, most},
#define STEP_RULE(name, type, fallback, least, most, help) {SCOPE_STEP, "", #name, least, most},
#include "descriptor/steps.def"
#define SINK_BOUND(kind, option, least, most) {SCOPE_SINK, #kind, #option, least, most},
#include "descriptor/sinks.def"
#define FLINK_BOUND(kind, option, least, most) {SCOPE_FLINK, #kind, #option, least, most},
#include "descriptor/flink.def"
};

static const struct {
	enum scope scope;
	const char *kind, *option;
	enum value_rule rule;
} values[] = {
#define SOURCE_VALUES(kind, option, rule) {SCOPE_SOURCE, #kind, #option, VALUES_##rule},
#include "descriptor/sources.def"
#define STEP_VALUES(kind, option, rule) {SCOPE_STEP, #kind, #option, VALUES_##rule},
#include "descriptor/steps.def"
#define SINK_VALUES(kind, option, rule) {SCOPE_SINK, #kind, #option, VALUES_##rule},
#include "descriptor/sinks.def"
};

static const struct {
	enum scope scope;
	const char *kind, *option;
	const char *choices;
} choices[] = {
#define SOURCE_CHOICES(kind, option, words) {SCOPE_SOURCE, #kind, #option, words},
#include "descriptor/sources.def"
#define STEP_CHOICES(kind, option, words) {SCOPE_STEP, #kind, #option, words},
#include "descriptor/steps.def"
#define SINK_CHOICES(kind, option, words) {SCOPE_SINK, #kind, #option, words},
#include "descriptor/sinks.def"
#define FLINK_CHOICES(kind, option, words) {SCOPE_FLINK, #kind, #option, words},
#include "descriptor/flink.def"
};

static const struct option_when whens[] = {
#define SOURCE_WHEN(kind, option, other, words, needed) {SCOPE_SOURCE, #kind, #option, #other, words, needed},
#include "descriptor/sources.def"
#define STEP_WHEN(kind, option, other, words, needed) {SCOPE_STEP, #kind, #option, #other, words, needed},
#define STEP_WITH(kind, option, other) {SCOPE_STEP, #kind, #option, #other, NULL, true},
#include "descriptor/steps.def"
#define FLINK_WHEN(kind, option, other, words, needed) {SCOPE_FLINK, #kind, #option, #other, words, needed},
#include "descriptor/flink.def"
};

static const struct {
	enum scope scope;
	const char *kind, *options;
} one_ofs[] = {
#define SOURCE_ONE_OF(kind, options) {SCOPE_SOURCE, #kind, options},
#include "descriptor/sources.def"
#define STEP_ONE_OF(kind, options) {SCOPE_STEP, #kind, options},
#include "descriptor/steps.def"
};

const char *const form_names[FORM_COUNT] = {[FORM_JSON] = "json", [FORM_TEXT] = "text", [FORM_BYTES] = "bytes"};

const char *const error_policy_names[ON_ERROR_COUNT] = {
    [ON_ERROR_FAIL] = "fail", [ON_ERROR_SKIP] = "skip", [ON_ERROR_DEAD_LETTER] = "dead_letter"};

const char *error_policy_name(enum error_policy policy)
{
	CHECK((size_t)policy < ON_ERROR_COUNT);
	return error_policy_names[policy];
}

const char *scope_name(enum scope scope)
{
	return scopes[scope].name;
}

size_t kind_count(enum scope scope)
{
	return scopes[scope].count;
}

const struct kind_info *kind_info(enum scope scope, unsigned kind)
{
	CHECK(kind < scopes[scope].count);
	return &scopes[scope].kinds[kind];
}

int kind_find(enum scope scope, const char *name)
{
	for (size_t i = 0; i < scopes[scope].count; i++) {
		if (strcmp(scopes[scope].kinds[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

const struct option_info *kind_options(enum scope scope, unsigned kind, size_t *count)
{
	const char *name = kind_info(scope, kind)->name;
	const struct option_info *first = options;

	*count = 0;
	for (size_t i = 0; i < ITEMS(options); i++) {
		if (options[i].scope != scope || strcmp(options[i].kind, name) != 0)
			continue;
		if (*count == 0)
			first = &options[i];
		CHECK(first + *count == &options[i]); /* the options of a kind stand together in the table */
		(*count)++;
	}
	return first;
}

/* Whether an entry of one of the smaller tables is about an option. */
#define IS_ABOUT(entry, info)                                                                                          \
	((entry).scope == (info)->scope && strcmp((entry).kind, (info)->kind) == 0 &&                                  \
	 strcmp((entry).option, (info)->name) == 0)

void option_bounds(const struct option_info *info, int64_t *least, int64_t *most)
{
	*least = 0;
	*most = INT64_MAX;
	for (size_t i = 0; i < ITEMS(bounds); i++) {
		if (!IS_ABOUT(bounds[i], info))
			continue;
		*least = bounds[i].least;
		*most = bounds[i].most;
	}
}

enum value_rule option_values(const struct option_info *info)
{
	for (size_t i = 0; i < ITEMS(values); i++) {
		if (IS_ABOUT(values[i], info))
			return values[i].rule;
	}
	return VALUES_TEXT;
}

const char *option_choices(const struct option_info *info)
{
	for (size_t i = 0; i < ITEMS(choices); i++) {
		if (IS_ABOUT(choices[i], info))
			return choices[i].choices;
	}
	CHECK(info->type != OPTION_CHOICE);
	return "";
}

const struct option_when *option_when(const struct option_info *info)
{
	for (size_t i = 0; i < ITEMS(whens); i++) {
		if (IS_ABOUT(whens[i], info))
			return &whens[i];
	}
	return NULL;
}

const char *kind_one_of(enum scope scope, unsigned kind)
{
	const char *name = kind_info(scope, kind)->name;

	for (size_t i = 0; i < ITEMS(one_ofs); i++) {
		if (one_ofs[i].scope == scope && strcmp(one_ofs[i].kind, name) == 0)
			return one_ofs[i].options;
	}
	return NULL;
}

bool words_have(const char *words, const char *word)
{
	size_t size = strlen(word);

	for (const char *at = words; at != NULL; at = strchr(at, '|')) {
		at += *at == '|';
		if (strncmp(at, word, size) == 0 && (at[size] == '\0' || at[size] == '|'))
			return true;
	}
	return false;
}

const char *step_kind_name(enum step_kind kind)
{
	return kind_info(SCOPE_STEP, kind)->name;
}

bool step_kind_closes_segment(enum step_kind kind)
{
	return kind_info(SCOPE_STEP, kind)->closes;
}

const char *source_kind_name(enum source_kind kind)
{
	return kind_info(SCOPE_SOURCE, kind)->name;
}

const char *sink_kind_name(enum sink_kind kind)
{
	return kind_info(SCOPE_SINK, kind)->name;
}

const char *partition_name(enum partition partition)
{
	static const char *const names[] = {
	    [PARTITION_FORWARD] = "forward",     [PARTITION_REBALANCE] = "rebalance", [PARTITION_HASH] = "hash",
	    [PARTITION_BROADCAST] = "broadcast", [PARTITION_CUSTOM] = "custom",
	};

	CHECK((size_t)partition < PARTITION_COUNT);
	return names[partition];
}

const struct option *step_option(const struct step_spec *step, const char *name)
{
	for (size_t i = 0; i < step->option_count; i++) {
		if (strcmp(step->options[i].name, name) == 0)
			return &step->options[i];
	}
	log_check_failed(__FILE__, __LINE__, name);
}

bool step_is_python(const struct step_spec *step)
{
	return step->kind == STEP_python || (step->kind == STEP_key_by && !step_option(step, "key")->given);
}
