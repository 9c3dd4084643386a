/*
 * Steps and segments made by hand, for tests of what runs them: options as text, everything else as descriptor/steps.def has it.
 *
 *   struct spec spec;
 *   spec_init(&spec);
 *   spec_add(&spec, STEP_map, "program", ".a", "payload", "text", NULL);
 *   struct chain *chain = chain_create(&spec.segment, NULL, NULL, &failure);
 *   ...
 *   spec_deinit(&spec);
 *
 * Steps are called after their kinds: batch, batch2, batch3. Items of a LIST, MAP or ROUTES option are separated by newlines, name and value of an item by the first '='.
 */
#ifndef TESTS_SPEC_H
#define TESTS_SPEC_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor/descriptor.h"
#include "shared/log.h"
#include "shared/units.h"

enum { SPEC_STEPS_MAX = 16, SPEC_OPTIONS_MAX = 8, SPEC_ITEMS_MAX = 32, SPEC_TEXT_MAX = 4096 };

struct spec {
	struct segment segment;
	struct step_spec steps[SPEC_STEPS_MAX];
	char names[SPEC_STEPS_MAX][32];
	struct option options[SPEC_STEPS_MAX][SPEC_OPTIONS_MAX];
	struct option_item items[SPEC_STEPS_MAX][SPEC_OPTIONS_MAX][SPEC_ITEMS_MAX];
	const char *routes[SPEC_ITEMS_MAX];
	void *texts[SPEC_STEPS_MAX * SPEC_OPTIONS_MAX]; /* to free */
	size_t text_count;
};

/* One line of steps.def. */
struct spec_option {
	enum step_kind kind;
	const char *name;
	enum option_type type;
	bool required;
	const char *fallback;
};

static const struct spec_option spec_options[] = {
#define STEP_OPTION(kind, option, type, required, fallback, help)                                                      \
	{STEP_##kind, #option, OPTION_##type, required, fallback},
#include "descriptor/steps.def"
};

/* What is said of failures where nobody says anything. */
static const char *const spec_rules[] = {
#define STEP_RULE(name, type, fallback, least, most, help) fallback,
#include "descriptor/steps.def"
};

/* Starts a segment without steps: id 0, unkeyed, no routes. */
static inline void spec_init(struct spec *spec)
{
	memset(spec, 0, sizeof(*spec));
	spec->segment.name = "test";
	spec->segment.parallelism = 1;
	spec->segment.max_parallelism = 128;
	spec->segment.steps = spec->steps;
	spec->segment.routes = spec->routes;
}

static inline void spec_deinit(struct spec *spec)
{
	for (size_t i = 0; i < spec->text_count; i++)
		free(spec->texts[i]);
}

/* Splits "a=b\nc=d" into items; the routes of a segment are those of its last step. */
static inline void spec_items(struct spec *spec, struct option *option, struct option_item *items, char *text)
{
	char *rest = text, *line;

	option->items = items;
	while ((line = strtok_r(rest, "\n", &rest)) != NULL) {
		char *value = option->type == OPTION_LIST ? NULL : strchr(line, '=');

		if (value)
			*value++ = '\0';
		CHECK(option->item_count < SPEC_ITEMS_MAX);
		items[option->item_count++] = (struct option_item){line, value};
		if (strcmp(option->name, "routes") == 0)
			spec->routes[spec->segment.route_count++] = line;
	}
}

/* Fills an option from its text. */
static inline void spec_fill(struct spec *spec, struct option *option, struct option_item *items, const char *text)
{
	static const char *const forms[] = {"json", "text", "bytes"};
	char *copy = strdup(text);
	uint64_t value = 0;

	CHECK(copy && spec->text_count < SPEC_STEPS_MAX * SPEC_OPTIONS_MAX);
	spec->texts[spec->text_count++] = copy;
	option->given = true;
	option->text = copy;
	switch (option->type) {
	case OPTION_PROGRAM:
	case OPTION_TEXT:
	case OPTION_CHOICE:
		return;
	case OPTION_NUMBER:
		option->number = strtoll(text, NULL, 10);
		return;
	case OPTION_BYTES:
		CHECK(size_parse(text, &value));
		option->number = (int64_t)value;
		return;
	case OPTION_DURATION:
		CHECK(duration_parse(text, &value));
		option->number = (int64_t)value / 1000;
		return;
	case OPTION_BOOL:
		option->number = strcmp(text, "true") == 0;
		return;
	case OPTION_FORM:
		while (strcmp(forms[option->number], text) != 0)
			CHECK(++option->number < 3);
		return;
	case OPTION_LIST:
	case OPTION_MAP:
	case OPTION_ROUTES:
		spec_items(spec, option, items, copy);
		return;
	}
}

/* Adds a step whose options are pairs of texts, as a NULL-terminated array. */
static inline void spec_add_array(struct spec *spec, enum step_kind kind, const char *const *pairs)
{
	size_t index = spec->segment.step_count++, used = 0, given = 0;
	struct step_spec *step = &spec->steps[index];

	CHECK(index < SPEC_STEPS_MAX);
	snprintf(spec->names[index], sizeof(spec->names[index]), "%s", step_kind_name(kind));
	for (size_t i = 0, same = 1; i < index; i++)
		if (spec->steps[i].kind == kind)
			snprintf(spec->names[index], sizeof(spec->names[index]), "%s%zu", step_kind_name(kind), ++same);
	*step = (struct step_spec){
	    .name = spec->names[index], .kind = kind, .index = (uint32_t)index, .options = spec->options[index]};
	for (size_t i = 0; i < ERROR_RULE_COUNT; i++)
		step->rules.of[i] = strtoll(spec_rules[i], NULL, 10);
	for (size_t i = 0; i < sizeof(spec_options) / sizeof(spec_options[0]); i++) {
		const struct spec_option *line = &spec_options[i];
		if (line->kind != kind)
			continue;
		struct option *option = &spec->options[index][step->option_count];
		const char *text = line->fallback;
		for (size_t k = 0; pairs[k]; k += 2)
			if (strcmp(pairs[k], line->name) == 0)
				text = pairs[k + 1], used++;
		option->name = line->name;
		option->type = line->type;
		if (text)
			spec_fill(spec, option, spec->items[index][step->option_count], text);
		step->option_count++;
	}
	while (pairs[given * 2])
		given++;
	CHECK(used == given);
}

/* Adds a step: its kind, then pairs of option and text, then NULL. */
#define spec_add(spec, kind, ...) spec_add_array(spec, kind, (const char *const[]){__VA_ARGS__})

#endif
