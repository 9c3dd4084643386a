/*
 * Options out of a map (options.h). A function for each type of option; each makes its own findings, and leaves the option
 * as not given, so that reading goes on.
 */
#include "descriptor/options.h"

#include <stdlib.h>
#include <string.h>

#include "descriptor/aggregate.h"
#include "descriptor/declared.h"
#include "shared/log.h"
#include "shared/suggest.h"
#include "shared/units.h"

/* One option at work. */
struct target {
	const struct reading *reading;
	const struct option_info *info;
	const struct node *node;
	const char *what; /* `"size" of step "bundle"` */
	struct option *option;
};

/* A finding that a node is of the wrong kind. */
static struct finding *wrong_kind(const struct reading *reading, const struct node *node, const char *what,
				  const char *expected)
{
	if (node->kind == NODE_BROKEN)
		return NULL;
	struct finding *finding = node_finding(reading->diagnostics, node, "%s is %s", what, node_describe(node));
	finding_expected(finding, "%s", expected);
	return finding;
}

const char *read_text(const struct reading *reading, const struct node *node, const char *what)
{
	if (node->kind != NODE_SCALAR || node_is_null(node)) {
		struct finding *finding = wrong_kind(reading, node, what, "text");
		if (node->kind == NODE_MAP || node->kind == NODE_LIST)
			finding_hint(finding, "text that starts with { or [ needs quotes around it");
		return NULL;
	}
	size_t size = strlen(node->text);
	if (size == 0)
		node_finding(reading->diagnostics, node, "%s is empty", what);
	else if (size > OPTION_TEXT_MAX)
		node_finding(reading->diagnostics, node, "%s has %zu bytes; at most %d are allowed", what, size,
			     OPTION_TEXT_MAX);
	else
		return pool_copy(reading->pool, node->text);
	return NULL;
}

/* Whether text can name something. */
static bool is_name(const char *text, size_t size)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
	static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789-";

	return size > 0 && size <= DESCRIPTOR_NAME_MAX && strchr(letters, text[0]) != NULL &&
	       strspn(text, rest) >= size;
}

/* Reads a name that is fit, or makes a finding. */
static const char *name_read(const struct reading *reading, const struct node *node, const char *what, bool joined)
{
	if (node->kind != NODE_SCALAR || node_is_null(node)) {
		wrong_kind(reading, node, what, "a name");
		return NULL;
	}
	const char *joint = joined ? strstr(node->text, "..") : NULL;
	size_t size = joint == NULL ? strlen(node->text) : (size_t)(joint - node->text);
	if (is_name(node->text, size) && (joint == NULL || is_name(joint + 2, strlen(joint + 2))))
		return pool_copy(reading->pool, node->text);
	struct finding *finding = node_finding(reading->diagnostics, node, "%s cannot be \"%.80s\"", what, node->text);
	finding_expected(finding, "a letter or _, then letters, digits, _ and -; at most %d of them",
			 DESCRIPTOR_NAME_MAX);
	return NULL;
}

const char *read_name(const struct reading *reading, const struct node *node, const char *what)
{
	return name_read(reading, node, what, false);
}

const char *read_joined_name(const struct reading *reading, const struct node *node, const char *what)
{
	return name_read(reading, node, what, true);
}

uint32_t read_number(const struct reading *reading, const struct node *node, const char *what, uint32_t least,
		     uint32_t most, uint32_t fallback)
{
	uint64_t value;

	if (node == NULL)
		return fallback;
	if (node->kind == NODE_SCALAR && number_parse(node->text, &value) && value >= least && value <= most)
		return (uint32_t)value;
	if (node->kind != NODE_SCALAR || node_is_null(node)) {
		wrong_kind(reading, node, what, "a whole number");
		return fallback;
	}
	struct finding *finding = node_finding(reading->diagnostics, node, "%s cannot be \"%.40s\"", what, node->text);
	finding_expected(finding, "a whole number from %u to %u", least, most);
	return fallback;
}

/* Writes names with a separator between them, as many as fit. */
static void names_join(char *text, size_t size, const char *const *names, size_t count)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < count && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", names[i]);
}

/* A finding that a word is none of some. */
static void wrong_word(const struct reading *reading, const struct node *node, const char *what,
		       const char *const *words, size_t count)
{
	char all[512];

	names_join(all, sizeof(all), words, count);
	struct finding *finding = node_finding(reading->diagnostics, node, "%s cannot be \"%.80s\"", what, node->text);
	finding_expected(finding, "one of: %s", all);
	finding_suggest(finding, node->text, words, count);
}

int read_kind(const struct reading *reading, const struct node *map, const struct node *at, enum scope scope,
	      const char *what)
{
	const char *names[32];
	size_t count = kind_count(scope);
	const struct node *node = node_find(map, "kind");

	CHECK(count <= sizeof(names) / sizeof(*names));
	for (unsigned i = 0; i < count; i++)
		names[i] = kind_info(scope, i)->name;
	if (node == NULL) {
		char all[512];
		names_join(all, sizeof(all), names, count);
		finding_expected(node_finding(reading->diagnostics, at, "%s has no kind", what), "kind: one of %s",
				 all);
		return -1;
	}
	char label[256];
	snprintf(label, sizeof(label), "the kind of %s", what);
	if (node->kind != NODE_SCALAR || node_is_null(node)) {
		wrong_kind(reading, node, label, "a word");
		return -1;
	}
	int kind = kind_find(scope, node->text);
	if (kind < 0)
		wrong_word(reading, node, label, names, count);
	return kind;
}

enum error_policy read_error_policy(const struct reading *reading, const struct node *node, const char *what,
				    enum error_policy fallback)
{
	if (node == NULL)
		return fallback;
	if (node->kind != NODE_SCALAR || node_is_null(node)) {
		wrong_kind(reading, node, what, "one of: fail, skip, dead_letter");
		return fallback;
	}
	for (int i = 0; i < ON_ERROR_COUNT; i++) {
		if (strcmp(error_policy_names[i], node->text) == 0)
			return (enum error_policy)i;
	}
	wrong_word(reading, node, what, error_policy_names, ON_ERROR_COUNT);
	return fallback;
}

/* Reads one `step.state`; false and a finding when it is none. */
static bool state_name_read(const struct reading *reading, const struct node *node, const char *what,
			    struct state_name *name)
{
	const char *text = read_text(reading, node, what), *dot = text == NULL ? NULL : strchr(text, '.');

	if (text == NULL)
		return false;
	if (dot == NULL || !is_name(text, (size_t)(dot - text)) || !is_name(dot + 1, strlen(dot + 1))) {
		finding_expected(node_finding(reading->diagnostics, node, "%s cannot have \"%.80s\"", what, text),
				 "STEP.STATE, as `bridgectl explain` shows them");
		return false;
	}
	*name = (struct state_name){pool_copy_bytes(reading->pool, text, (size_t)(dot - text)), dot + 1};
	return true;
}

const struct state_name *read_state_names(const struct reading *reading, const struct node *node, const char *what,
					  size_t *count)
{
	const struct node *first = node == NULL || node->kind != NODE_LIST ? node : node->first;

	*count = 0;
	if (node == NULL)
		return NULL;
	if (node->kind == NODE_LIST && node->count > DESCRIPTOR_DROPS_MAX) {
		node_finding(reading->diagnostics, node, "%s has %zu items; at most %d are allowed", what, node->count,
			     DESCRIPTOR_DROPS_MAX);
		return NULL;
	}
	size_t room = node->kind == NODE_LIST ? node->count : 1;
	struct state_name *names = pool_array(reading->pool, room, sizeof(*names));
	for (const struct node *item = first; item != NULL && *count < room; item = item->next) {
		*count += state_name_read(reading, item, what, &names[*count]);
		if (node->kind != NODE_LIST)
			break;
	}
	return names;
}

/* Has a program looked into; the finding stands where the program does. */
static void program_look(const struct reading *reading, const struct node *node, const char *program, const char *what)
{
	if (++*reading->programs == OPTION_PROGRAMS_MAX + 1)
		node_finding(reading->diagnostics, node, "more than %d programs in one pipeline", OPTION_PROGRAMS_MAX);
	if (reading->program == NULL || *reading->programs > OPTION_PROGRAMS_MAX)
		return;
	char *words = reading->program(program);
	if (words != NULL)
		node_finding(reading->diagnostics, node, "%s is no jq program: %s", what, words);
	free(words);
}

const char *read_program(const struct reading *reading, const struct node *node, const char *what)
{
	const char *text = read_text(reading, node, what);

	if (text != NULL)
		program_look(reading, node, text, what);
	return text;
}

/* PROGRAM and TEXT. */
static void text_read_option(const struct target *target)
{
	const char *text = read_text(target->reading, target->node, target->what);

	if (text == NULL)
		return;
	target->option->given = true;
	target->option->text = text;
	if (target->info->type == OPTION_PROGRAM)
		program_look(target->reading, target->node, text, target->what);
}

/* Writes a value of a NUMBER, BYTES or DURATION as a person would. */
static const char *number_text(char text[UNITS_TEXT_MAX], enum option_type type, int64_t value)
{
	if (type == OPTION_BYTES)
		return size_exact(text, (uint64_t)value);
	if (type == OPTION_DURATION)
		return duration_exact(text, (uint64_t)value * 1000);
	snprintf(text, UNITS_TEXT_MAX, "%lld", (long long)value);
	return text;
}

/* NUMBER, BYTES and DURATION out of text; -1 when it is none. */
static int64_t number_of(enum option_type type, const char *text)
{
	uint64_t value;
	bool fine = type == OPTION_NUMBER  ? number_parse(text, &value)
		    : type == OPTION_BYTES ? size_parse(text, &value)
					   : duration_parse(text, &value) && value % 1000 == 0;

	if (!fine || value > INT64_MAX)
		return -1;
	return (int64_t)(type == OPTION_DURATION ? value / 1000 : value);
}

/* NUMBER, BYTES and DURATION. */
static void number_read_option(const struct target *target)
{
	static const char *const forms[] = {[OPTION_NUMBER] = "a whole number",
					    [OPTION_BYTES] = "a size like 64KiB or 2MiB",
					    [OPTION_DURATION] = "a duration like 500ms, 10s or 5min"};
	enum option_type type = target->info->type;
	char low[UNITS_TEXT_MAX], high[UNITS_TEXT_MAX];
	int64_t least, most;

	if (target->node->kind != NODE_SCALAR || node_is_null(target->node)) {
		wrong_kind(target->reading, target->node, target->what, forms[type]);
		return;
	}
	option_bounds(target->info, &least, &most);
	int64_t value = number_of(type, target->node->text);
	target->option->given = value >= least && value <= most;
	target->option->number = value;
	if (target->option->given)
		return;
	struct finding *finding = node_finding(target->reading->diagnostics, target->node, "%s cannot be \"%.40s\"",
					       target->what, target->node->text);
	if (most == INT64_MAX)
		finding_expected(finding, "%s", forms[type]);
	else
		finding_expected(finding, "%s, from %s to %s", forms[type], number_text(low, type, least),
				 number_text(high, type, most));
}

/* FORM. */
static void form_read_option(const struct target *target)
{
	if (target->node->kind != NODE_SCALAR || node_is_null(target->node)) {
		wrong_kind(target->reading, target->node, target->what, "one of: json, text, bytes");
		return;
	}
	for (int i = 0; i < FORM_COUNT; i++) {
		if (strcmp(form_names[i], target->node->text) != 0)
			continue;
		target->option->given = true;
		target->option->number = i;
		return;
	}
	wrong_word(target->reading, target->node, target->what, form_names, FORM_COUNT);
}

/* CHOICE. */
static void choice_read_option(const struct target *target)
{
	char copy[128], *rest = copy;
	const char *words[8];
	size_t count = 0;

	snprintf(copy, sizeof(copy), "%s", option_choices(target->info));
	for (char *word; (word = strsep(&rest, "|")) != NULL && count < 8;)
		words[count++] = word;
	if (target->node->kind != NODE_SCALAR || node_is_null(target->node)) {
		wrong_kind(target->reading, target->node, target->what, "a word");
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (strcmp(words[i], target->node->text) != 0)
			continue;
		target->option->given = true;
		target->option->text = pool_copy(target->reading->pool, words[i]);
		return;
	}
	wrong_word(target->reading, target->node, target->what, words, count);
}

/* BOOL. */
static void bool_read_option(const struct target *target)
{
	static const char *const words[] = {"true", "false"};

	if (target->node->kind != NODE_SCALAR || node_is_null(target->node)) {
		wrong_kind(target->reading, target->node, target->what, "true or false");
		return;
	}
	target->option->number = strcmp(target->node->text, "true") == 0;
	target->option->given = target->option->number != 0 || strcmp(target->node->text, "false") == 0;
	if (!target->option->given)
		wrong_word(target->reading, target->node, target->what, words, 2);
}

/* Whether a list or map has items, but not too many; a finding otherwise. */
static bool items_count_fits(const struct target *target, size_t most)
{
	if (target->node->count == 0)
		node_finding(target->reading->diagnostics, target->node, "%s is empty", target->what);
	else if (target->node->count > most)
		node_finding(target->reading->diagnostics, target->node, "%s has %zu items; at most %zu are allowed",
			     target->what, target->node->count, most);
	return target->node->count > 0 && target->node->count <= most;
}

/* Whether items before have the same name. */
static bool items_have(const struct option_item *items, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(items[i].name, name) == 0)
			return true;
	}
	return false;
}

/* Whether a text is `host:port`, with a port that there is. As Kafka has it, a protocol:// may stand before it, and an IPv6
 * host stands in brackets. */
static bool is_address(const char *text)
{
	const char *protocol = strstr(text, "://"), *host = protocol == NULL ? text : protocol + 3;
	const char *colon = strrchr(host, ':');
	size_t digits = colon == NULL ? 0 : strspn(colon + 1, "0123456789");

	if (digits == 0 || digits > 5 || colon == host || colon[1 + digits] != '\0')
		return false;
	if (strcspn(host, " \t\n,/") < (size_t)(colon - host))
		return false;
	if (memchr(host, ':', (size_t)(colon - host)) != NULL && (host[0] != '[' || colon[-1] != ']'))
		return false;
	long port = strtol(colon + 1, NULL, 10);
	return port >= 1 && port <= 65535;
}

/* Looks at one item of a LIST by the option's rule. */
static void list_item_check(const struct target *target, const struct node *node, const char *text)
{
	if (option_values(target->info) == VALUES_ADDRESS && !is_address(text))
		finding_expected(
		    node_finding(target->reading->diagnostics, node, "%s cannot have \"%.80s\"", target->what, text),
		    "host:port, the port from 1 to 65535");
}

/* LIST; a single text is a list of one. Items of an option called `routes` are names. */
static void list_read_option(const struct target *target)
{
	const struct node *first = target->node->kind == NODE_LIST ? target->node->first : target->node;
	bool names = strcmp(target->info->name, "routes") == 0;
	size_t room = target->node->kind == NODE_LIST ? target->node->count : 1, count = 0;

	if (target->node->kind != NODE_LIST && (target->node->kind != NODE_SCALAR || node_is_null(target->node))) {
		wrong_kind(target->reading, target->node, target->what, "a list of texts");
		return;
	}
	if (target->node->kind == NODE_LIST &&
	    !items_count_fits(target, names ? DESCRIPTOR_ROUTES_MAX : OPTION_ITEMS_MAX))
		return;
	struct option_item *items = pool_array(target->reading->pool, room, sizeof(*items));
	for (const struct node *node = first; node != NULL && count < room; node = node->next) {
		const char *text = names ? read_name(target->reading, node, "a route")
					 : read_text(target->reading, node, target->what);
		if (text != NULL && items_have(items, count, text))
			node_finding(target->reading->diagnostics, node, "%s has \"%.80s\" twice", target->what, text);
		else if (text != NULL) {
			items[count++].name = text;
			list_item_check(target, node, text);
		}
	}
	target->option->given = true;
	target->option->items = items;
	target->option->item_count = count;
}

/* Looks at one field of an aggregate. */
static void aggregate_field_check(const struct target *target, const struct node *node, const char *what)
{
	enum aggregate_function function;
	struct view program;

	if (strcmp(node->key->text, "key") == 0)
		finding_hint(node_finding(target->reading->diagnostics, node->key,
					  "%s cannot have a field \"key\": that is the key itself", target->what),
			     "choose another name, and `rename` it behind the step if it has to be that");
	if (!aggregate_parse(node->text, &function, &program)) {
		struct finding *finding =
		    node_finding(target->reading->diagnostics, node, "%s cannot be \"%.80s\"", what, node->text);
		finding_expected(finding, "count, sum(PROGRAM), min(PROGRAM), max(PROGRAM) or avg(PROGRAM)");
		return;
	}
	if (function != AGGREGATE_COUNT)
		program_look(target->reading, node, pool_copy_bytes(target->reading->pool, program.data, program.size),
			     what);
}

/* Looks at one declared state. */
static void state_check(const struct target *target, const struct node *node, const char *what)
{
	struct declaration declaration;

	if (!is_name(node->key->text, strlen(node->key->text)))
		finding_expected(
		    node_finding(target->reading->diagnostics, node->key, "a state of %s cannot be called \"%.80s\"",
				 target->what, node->key->text),
		    "a letter or _, then letters, digits, _ and -; at most %d of them", DESCRIPTOR_NAME_MAX);
	if (!declaration_parse(node->text, &declaration))
		finding_expected(
		    node_finding(target->reading->diagnostics, node, "%s cannot be \"%.80s\"", what, node->text),
		    STATE_DECLARATION);
}

/* Makes a finding where several states of a step hold timers, or there are too many. */
static void states_check(const struct target *target, const struct option *option)
{
	struct declaration declaration;
	size_t timers = 0;

	for (size_t i = 0; i < option->item_count; i++)
		timers += declaration_parse(option->items[i].value, &declaration) && declaration.kind == STATE_TIMERS;
	if (timers > 1)
		finding_hint(node_finding(target->reading->diagnostics, target->node, "%s has %zu states of timers",
					  target->what, timers),
			     "one is enough: timers are told apart by their tags");
	if (option->item_count > STEP_STATES_MAX)
		node_finding(target->reading->diagnostics, target->node, "%s has %zu states; at most %d are allowed",
			     target->what, option->item_count, STEP_STATES_MAX);
}

/* Looks at one offset: `TOPIC:PARTITION` and a number. */
static void offset_check(const struct target *target, const struct node *node, const char *what)
{
	const char *colon = strrchr(node->key->text, ':');
	uint64_t number;

	if (colon == NULL || colon == node->key->text || !number_parse(colon + 1, &number) || number > INT32_MAX)
		finding_expected(node_finding(target->reading->diagnostics, node->key, "%s cannot have \"%.80s\"",
					      target->what, node->key->text),
				 "TOPIC:PARTITION");
	if (!number_parse(node->text, &number) || number > INT64_MAX)
		finding_expected(
		    node_finding(target->reading->diagnostics, node, "%s cannot be \"%.80s\"", what, node->text),
		    "a whole number");
}

/* Looks at one value of a MAP by the option's rule. */
static void map_value_check(const struct target *target, const struct node *node)
{
	char what[512];
	enum value_rule rule = option_values(target->info);

	snprintf(what, sizeof(what), "\"%.80s\" in %s", node->key->text, target->what);
	if (rule == VALUES_PROGRAM)
		program_look(target->reading, node, node->text, what);
	if (rule == VALUES_AGGREGATE)
		aggregate_field_check(target, node, what);
	if (rule == VALUES_OFFSET)
		offset_check(target, node, what);
	if (rule == VALUES_STATE)
		state_check(target, node, what);
	if (rule != VALUES_ENRICH || strcmp(node->text, "timestamp") == 0 || strcmp(node->text, "key") == 0 ||
	    (strncmp(node->text, "header.", 7) == 0 && node->text[7] != '\0'))
		return;
	struct finding *finding =
	    node_finding(target->reading->diagnostics, node, "%s cannot be \"%.80s\"", what, node->text);
	finding_expected(finding, "header.NAME, timestamp or key");
}

/* One pair of a MAP; values may be empty only where they are plain text. */
static bool map_item_read(const struct target *target, const struct node *node, struct option_item *item)
{
	if (node->key->kind != NODE_SCALAR)
		return false;
	bool empty = node->kind == NODE_SCALAR && node->text[0] == '\0' && node->quoted &&
		     option_values(target->info) == VALUES_TEXT;
	item->name = pool_copy(target->reading->pool, node->key->text);
	item->value = empty ? "" : read_text(target->reading, node, target->what);
	if (node->key->text[0] == '\0')
		node_finding(target->reading->diagnostics, node->key, "%s has an empty name", target->what);
	if (item->value != NULL)
		map_value_check(target, node);
	return item->value != NULL;
}

/* MAP. */
static void map_read_option(const struct target *target)
{
	size_t count = 0;

	if (target->node->kind != NODE_MAP) {
		wrong_kind(target->reading, target->node, target->what, "a map of names to texts");
		return;
	}
	if (!items_count_fits(target, OPTION_ITEMS_MAX))
		return;
	struct option_item *items = pool_array(target->reading->pool, target->node->count, sizeof(*items));
	for (const struct node *node = target->node->first; node != NULL; node = node->next)
		count += map_item_read(target, node, &items[count]);
	target->option->given = true;
	target->option->items = items;
	target->option->item_count = count;
	if (option_values(target->info) == VALUES_STATE)
		states_check(target, target->option);
}

/* ROUTES: names to conditions, at most one of which is the word `default`. */
static void routes_read_option(const struct target *target)
{
	const struct node *fallback = NULL;
	size_t count = 0;

	if (target->node->kind != NODE_MAP) {
		wrong_kind(target->reading, target->node, target->what, "a map of route names to jq conditions");
		return;
	}
	if (!items_count_fits(target, DESCRIPTOR_ROUTES_MAX))
		return;
	struct option_item *items = pool_array(target->reading->pool, target->node->count, sizeof(*items));
	for (const struct node *node = target->node->first; node != NULL; node = node->next) {
		const char *name = read_name(target->reading, node->key, "a route");
		const char *condition = read_text(target->reading, node, target->what);
		bool is_default = condition != NULL && strcmp(condition, "default") == 0;
		if (is_default && fallback != NULL)
			node_finding(target->reading->diagnostics, node,
				     "a second default in %s; the first is in line %zu", target->what, fallback->line);
		fallback = is_default ? node : fallback;
		if (condition != NULL && !is_default)
			program_look(target->reading, node, condition, target->what);
		if (name != NULL)
			items[count++] = (struct option_item){name, condition == NULL ? "default" : condition};
	}
	target->option->given = true;
	target->option->items = items;
	target->option->item_count = count;
}

/* Reads one option by its type. */
static void option_read(const struct target *target)
{
	static void (*const readers[])(const struct target *) = {
	    [OPTION_PROGRAM] = text_read_option,    [OPTION_TEXT] = text_read_option,
	    [OPTION_NUMBER] = number_read_option,   [OPTION_BYTES] = number_read_option,
	    [OPTION_DURATION] = number_read_option, [OPTION_FORM] = form_read_option,
	    [OPTION_LIST] = list_read_option,       [OPTION_MAP] = map_read_option,
	    [OPTION_ROUTES] = routes_read_option,   [OPTION_CHOICE] = choice_read_option,
	    [OPTION_BOOL] = bool_read_option,
	};

	readers[target->info->type](target);
}

/* Sets an option to its default, which the tables write as a person would. */
static void option_default(struct option *option, const struct option_info *info)
{
	option->given = info->fallback != NULL;
	if (info->fallback == NULL)
		return;
	if (info->type == OPTION_NUMBER || info->type == OPTION_BYTES || info->type == OPTION_DURATION)
		option->number = number_of(info->type, info->fallback);
	else if (info->type == OPTION_FORM)
		while (strcmp(form_names[option->number], info->fallback) != 0)
			option->number++;
	else if (info->type == OPTION_BOOL)
		option->number = strcmp(info->fallback, "true") == 0;
	else
		option->text = info->fallback;
	CHECK(option->number >= 0 && (option->text == NULL || info->type == OPTION_TEXT ||
				      info->type == OPTION_PROGRAM || info->type == OPTION_CHOICE));
}

struct error_rules read_error_rules(const struct reading *reading, const struct node *map, const char *what,
				    const struct error_rules *fallback)
{
	struct error_rules rules = {0};

	if (fallback != NULL)
		rules = *fallback;
	for (size_t i = 0; i < ERROR_RULE_COUNT; i++) {
		const struct option_info *info = &error_rule_infos[i];
		bool list = info->type == OPTION_LIST;
		const struct node *node = node_find(map, info->name);
		struct option option = {.name = info->name, .type = info->type};
		char label[256];

		snprintf(label, sizeof(label), "\"%s\" of %s", info->name, what);
		if (fallback == NULL && !list)
			rules.of[i] = number_of(info->type, info->fallback);
		if (node != NULL)
			option_read(&(struct target){reading, info, node, label, &option});
		if (option.given && list) {
			rules.retry_on = option.items;
			rules.retry_on_count = option.item_count;
		} else if (option.given) {
			rules.of[i] = option.number;
		}
	}
	return rules;
}

bool error_rule_option(const struct error_rules *rules, size_t rule, struct option *option)
{
	static const struct option_item by_default = {.name = RETRY_ON_TRANSIENT};
	const struct option_info *info = &error_rule_infos[rule];

	*option = (struct option){.name = info->name, .type = info->type, .given = true, .number = rules->of[rule]};
	if (info->type != OPTION_LIST)
		return option->number != number_of(info->type, info->fallback);
	option->items = rules->retry_on_count > 0 ? rules->retry_on : &by_default;
	option->item_count = rules->retry_on_count > 0 ? rules->retry_on_count : 1;
	return rules->retry_on_count > 0;
}

/* Whether an option may be there by what another one is, which has been read before it. A finding when it is there but must not, or must
 * be there and is not. */
static bool condition_check(const struct reading *reading, const struct node *map, const struct node *node,
			    const struct node *at, const struct option_info *info, const struct option *options,
			    const char *what)
{
	const struct option_when *when = option_when(info);

	if (when == NULL)
		return true;
	while (strcmp(options->name, when->other) != 0)
		options++;
	if (!options->given && node_find(map, when->other) != NULL)
		return true; /* there is a finding of it */
	if (!options->given) {
		if (node == NULL)
			return false;
		struct finding *finding =
		    node_finding(reading->diagnostics, node->key, "\"%s\" of %s has no meaning without `%s`",
				 info->name, what, when->other);
		if (when->words != NULL)
			finding_expected(finding, "%s: one of %s", when->other, when->words);
		return false;
	}
	bool holds = when->words == NULL || words_have(when->words, options->text);
	if (!holds && node != NULL)
		finding_expected(node_finding(reading->diagnostics, node->key,
					      "\"%s\" of %s has no meaning with `%s: %s`", info->name, what,
					      when->other, options->text),
				 "%s: one of %s", when->other, when->words);
	if (holds && when->needed && node == NULL)
		finding_expected(node_finding(reading->diagnostics, at, "%s has no \"%s\", which `%s: %s` needs", what,
					      info->name, when->other, options->text),
				 "%s: %s", info->name, info->help);
	return holds;
}

/* Makes a finding where of several options not exactly one is there. */
static void one_of_check(const struct reading *reading, const struct node *map, const struct node *at, enum scope scope,
			 unsigned kind, const char *what)
{
	const char *words = kind_one_of(scope, kind);
	size_t given = 0;

	if (words == NULL)
		return;
	for (const struct node *child = map->first; child != NULL; child = child->next)
		given += child->key->kind == NODE_SCALAR && words_have(words, child->key->text);
	if (given != 1)
		finding_expected(node_finding(reading->diagnostics, at, "%s has %s", what,
					      given == 0 ? "none of the options of which it needs one"
							 : "several options of which it can have but one"),
				 "one of: %s", words);
}

const struct option *read_options(const struct reading *reading, const struct node *map, const struct node *at,
				  enum scope scope, unsigned kind, const char *what, size_t *count)
{
	const struct option_info *infos = kind_options(scope, kind, count);
	struct option *options = pool_array(reading->pool, *count, sizeof(*options));

	for (size_t i = 0; i < *count; i++) {
		char label[256];
		const struct node *node = node_find(map, infos[i].name);
		struct target target = {reading, &infos[i], node, label, &options[i]};
		snprintf(label, sizeof(label), "\"%s\" of %s", infos[i].name, what);
		options[i].name = infos[i].name;
		options[i].type = infos[i].type;
		bool wanted = condition_check(reading, map, node, at, &infos[i], options, what);
		if (node != NULL)
			option_read(&target);
		else if (wanted)
			option_default(&options[i], &infos[i]);
		if (node == NULL && infos[i].required)
			finding_expected(
			    node_finding(reading->diagnostics, at, "%s has no \"%s\"", what, infos[i].name), "%s: %s",
			    infos[i].name, infos[i].help);
	}
	one_of_check(reading, map, at, scope, kind, what);
	return options;
}

void check_option_keys(const struct reading *reading, const struct node *map, enum scope scope, unsigned kind,
		       const char *what, const char *const *own, size_t own_count)
{
	const char *names[64];
	size_t option_count, count = 0;
	const struct option_info *infos = kind_options(scope, kind, &option_count);

	CHECK(own_count + option_count <= sizeof(names) / sizeof(*names));
	for (size_t i = 0; i < own_count; i++)
		names[count++] = own[i];
	for (size_t i = 0; i < option_count; i++)
		names[count++] = infos[i].name;
	node_check_keys(map, what, names, count, reading->diagnostics);
}

/* An option by its name, or NULL. */
static const struct option *option_find(const struct option *options, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	}
	return NULL;
}

/* The text of an option, or NULL. */
static const char *option_text(const struct option *options, size_t count, const char *name)
{
	const struct option *option = option_find(options, count, name);

	return option == NULL ? NULL : option->text;
}

/* The number of an option, or 0. */
static int64_t option_number(const struct option *options, size_t count, const char *name)
{
	const struct option *option = option_find(options, count, name);

	return option == NULL ? 0 : option->number;
}

void source_fill(struct source *source, const struct option *options, size_t count)
{
	source->options = options;
	source->option_count = count;
	source->path = option_text(options, count, "path");
	source->count = (uint64_t)option_number(options, count, "count");
	source->rate = (uint64_t)option_number(options, count, "rate");
	source->program = option_text(options, count, "program");
	source->timestamp = option_text(options, count, "timestamp");
	source->out_of_orderness_ms = option_number(options, count, "out_of_orderness");
	source->idle_ms = option_number(options, count, "idle");
}

void sink_fill(struct sink *sink, const struct option *options, size_t count)
{
	sink->options = options;
	sink->option_count = count;
	sink->path = option_text(options, count, "path");
}

void step_fill(struct step_spec *step, const struct option *options, size_t count, struct pool *pool)
{
	step->options = options;
	step->option_count = count;
	step->key = NULL;
	if (step->kind != STEP_key_by)
		return;
	const char *module = option_text(options, count, "module"), *function = option_text(options, count, "function");
	step->key = option_text(options, count, "key");
	if (step->key == NULL && module != NULL && function != NULL)
		step->key = pool_format(pool, "python %s.%s", module, function);
}

const struct option *routes_option(const struct option *options, size_t count)
{
	return option_find(options, count, "routes");
}
