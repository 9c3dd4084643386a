/* Manifests (manifest.h), out of the STEP_STATE lines of steps.def. */
#include "descriptor/manifest.h"

#include <string.h>

#include "descriptor/declared.h"
#include "shared/log.h"

/* What becomes of a state in a segment without keys. */
enum unkeyed {
	UNKEYED_BY_KEY,   /* the step cannot be there */
	UNKEYED_IF_KEYED, /* the step does without it */
	UNKEYED_SPLIT,
	UNKEYED_UNION,
};

static const struct declared {
	enum step_kind kind;
	const char *name;
	enum state_kind holds;
	enum unkeyed unkeyed;
	uint32_t version;
	const char *ttl; /* the option that says how long it is kept, or "NULL" */
	const char *help;
} declared[] = {
#define STEP_STATE(kind, name, type, unkeyed, version, ttl, help)                                                      \
	{STEP_##kind, #name, STATE_##type, UNKEYED_##unkeyed, version, #ttl, help},
#include "descriptor/steps.def"
};

enum { DECLARED_COUNT = sizeof(declared) / sizeof(*declared) };

/* The state at a place among those of a kind, or NULL. */
static const struct declared *declared_at(enum step_kind kind, size_t place)
{
	for (size_t i = 0; i < DECLARED_COUNT; i++) {
		if (declared[i].kind == kind && place-- == 0)
			return &declared[i];
	}
	return NULL;
}

/* How many states a kind has by the table. */
static size_t table_count(enum step_kind kind)
{
	size_t count = 0;

	while (declared_at(kind, count) != NULL)
		count++;
	return count;
}

/* The states that the pipeline declares, or NULL when the kind has no such option. */
static const struct option *declarations(const struct step_spec *step)
{
	for (size_t i = 0; i < step->option_count; i++) {
		if (strcmp(step->options[i].name, "state") == 0 && step->options[i].type == OPTION_MAP)
			return &step->options[i];
	}
	return NULL;
}

size_t step_state_count(const struct step_spec *step)
{
	const struct option *option = declarations(step);
	size_t count = table_count(step->kind) + (option == NULL ? 0 : option->item_count);

	return count < STEP_STATES_MAX ? count : STEP_STATES_MAX; /* reading makes a finding of more */
}

/* How long the states of a step are kept that go by an option; 0: for good. */
static int64_t ttl_of(const struct step_spec *step, const char *option)
{
	if (strcmp(option, "NULL") == 0)
		return 0;
	const struct option *ttl = step_option(step, option);
	return ttl->given ? ttl->number : 0;
}

/* The same of one that the pipeline declares. */
static bool declaration_state(const struct segment *segment, const struct step_spec *step,
			      const struct option_item *item, struct state_spec *spec)
{
	struct declaration declaration;

	if (!declaration_parse(item->value, &declaration) || segment->keyed != (declaration.partition == STATE_BY_KEY))
		return false;
	*spec = (struct state_spec){.step = step->name,
				    .name = item->name,
				    .kind = declaration.kind,
				    .partition = declaration.partition,
				    .version = declaration.version + (declaration.ttl_ms > 0 ? STATE_VERSION_TTL : 0),
				    .ttl_ms = declaration.ttl_ms};
	return true;
}

bool step_state(const struct segment *segment, const struct step_spec *step, size_t place, struct state_spec *spec)
{
	static const enum state_partition partitions[] = {[UNKEYED_BY_KEY] = STATE_BY_KEY,
							  [UNKEYED_IF_KEYED] = STATE_BY_KEY,
							  [UNKEYED_SPLIT] = STATE_SPLIT,
							  [UNKEYED_UNION] = STATE_UNION};
	size_t own = table_count(step->kind);
	const struct declared *state = declared_at(step->kind, place);

	if (place >= own)
		return declaration_state(segment, step, &declarations(step)->items[place - own], spec);
	if (!segment->keyed && state->unkeyed <= UNKEYED_IF_KEYED)
		return false;
	int64_t ttl_ms = ttl_of(step, state->ttl);
	*spec = (struct state_spec){.step = step->name,
				    .name = state->name,
				    .kind = state->holds,
				    .partition = segment->keyed ? STATE_BY_KEY : partitions[state->unkeyed],
				    .version = state->version + (ttl_ms > 0 ? STATE_VERSION_TTL : 0),
				    .ttl_ms = ttl_ms};
	return true;
}

const char *step_state_help(const struct step_spec *step, size_t place)
{
	const struct declared *state = declared_at(step->kind, place);

	return state == NULL ? "The step's own." : state->help;
}

/* Whether the pipeline declares a state that is kept by key, or one that is not. */
static bool declares(const struct step_spec *step, bool by_key)
{
	const struct option *option = declarations(step);
	struct declaration declaration;

	for (size_t i = 0; option != NULL && i < option->item_count; i++) {
		if (declaration_parse(option->items[i].value, &declaration) &&
		    (declaration.partition == STATE_BY_KEY) == by_key)
			return true;
	}
	return false;
}

bool step_needs_keys(const struct step_spec *step)
{
	for (size_t i = 0; i < DECLARED_COUNT; i++) {
		if (declared[i].kind == step->kind && declared[i].unkeyed == UNKEYED_BY_KEY)
			return true;
	}
	return declares(step, true);
}

bool step_needs_no_keys(const struct step_spec *step)
{
	return declares(step, false);
}

size_t segment_manifest(const struct segment *segment, struct state_spec *states, size_t room)
{
	size_t count = 0;

	for (size_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *step = &segment->steps[i];
		size_t has = step_state_count(step);
		for (size_t place = 0; place < has; place++) {
			struct state_spec spec;
			if (!step_state(segment, step, place, &spec))
				continue;
			if (count < room)
				states[count] = spec;
			count++;
		}
	}
	return count;
}

bool descriptor_drops(const struct descriptor *descriptor, const char *step, const char *name)
{
	for (size_t i = 0; i < descriptor->drop_state_count; i++) {
		const struct state_name *dropped = &descriptor->drop_state[i];
		if (strcmp(dropped->step, step) == 0 && strcmp(dropped->name, name) == 0)
			return true;
	}
	return false;
}

const char *state_kind_name(enum state_kind kind)
{
	static const char *const names[STATE_KIND_COUNT] = {
	    [STATE_VALUE] = "value", [STATE_MAP] = "map", [STATE_LIST] = "list", [STATE_TIMERS] = "timers"};

	CHECK((size_t)kind < STATE_KIND_COUNT);
	return names[kind];
}

const char *state_partition_name(enum state_partition partition)
{
	static const char *const names[STATE_PARTITION_COUNT] = {
	    [STATE_BY_KEY] = "by key", [STATE_SPLIT] = "split", [STATE_UNION] = "union"};

	CHECK((size_t)partition < STATE_PARTITION_COUNT);
	return names[partition];
}
