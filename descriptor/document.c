/*
 * YAML into a tree (document.h): libyaml's events, one by one, onto a stack of open maps and lists.
 *
 * The tree is built without recursion and the stack is as deep as a document may be, so neither nesting nor size of a file
 * can hurt. Aliases are refused rather than expanded, which is what a "billion laughs" file needs. A node that is refused
 * stays in the tree as NODE_BROKEN, so that reading goes on and all findings come at once.
 */
#include "descriptor/document.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "descriptor/document_text.h"
#include "shared/log.h"

const struct document_limits document_limits_default = {DOCUMENT_BYTES_MAX, DOCUMENT_NODES_MAX};

/* The maps and lists that are open while events come in. */
struct builder {
	struct document *document;
	struct document_limits limits;
	struct diagnostics *diagnostics;
	size_t depth;
	struct level {
		struct node *node;
		struct node *last; /* child */
		struct node *key;  /* of a map: read, its value not yet */
	} open[DOCUMENT_DEPTH_MAX];
};

/* What libyaml says, what a person is told, and the hint. */
static const struct {
	const char *problem, *words, *hint;
} problems[] = {
    {"mapping values are not allowed in this context", "a `: ` stands where no key can be",
     "text that contains `: ` or starts with one of { [ \" ' | > # & * ! % @ needs quotes around it"},
    {"found character that cannot start any token", "a character that cannot start a value",
     "put the text into quotes"},
    {"did not find expected key", "no key where one had to come", "check the indentation and the quotes before it"},
    {"did not find expected '-' indicator", "no `-` where the list had to go on", "check the indentation"},
    {"did not find expected ',' or '}'", "no `,` or `}` where the map had to go on",
     "text with , { } [ or ] in it needs quotes around it"},
    {"did not find expected ',' or ']'", "no `,` or `]` where the list had to go on",
     "text with , { } [ or ] in it needs quotes around it"},
    {"could not find expected ':'", "a key without a `:`", "check the indentation and the quotes before it"},
    {"found unexpected end of stream", "the file ends inside a quoted text", "close the quotes"},
    {"found unknown escape character", "an unknown escape in double quotes",
     "write \\\\ for a backslash, or use single quotes"},
    {"block sequence entries are not allowed in this context", "a list item where none can be",
     "put the list on lines of its own"},
    {"found undefined tag handle", "a tag (`!...`)", "text that starts with ! needs quotes around it"},
};

/* Turns libyaml's own error into a finding. */
static void problem_report(const struct document *document, const yaml_parser_t *parser,
			   struct diagnostics *diagnostics)
{
	if (parser->error == YAML_MEMORY_ERROR)
		fatalx("no memory to read %s", document->file);
	if (parser->error == YAML_READER_ERROR) {
		struct place where = place_of(document->file, document->text, parser->problem_offset);
		finding_show(diagnostics_add(diagnostics, where, "not YAML: %s", parser->problem), document->text, 1);
		return;
	}
	struct place where = {document->file, parser->problem_mark.line + 1, parser->problem_mark.column + 1};
	const char *words = parser->problem, *hint = NULL;
	for (size_t i = 0; i < sizeof(problems) / sizeof(*problems); i++) {
		if (strcmp(problems[i].problem, parser->problem) != 0)
			continue;
		words = problems[i].words;
		hint = problems[i].hint;
	}
	if (text_character_at(document->text, where.line, where.column) == '\t') {
		words = "a tab where YAML wants spaces";
		hint = "indent with spaces";
	}
	struct finding *finding = diagnostics_add(diagnostics, where, "not YAML: %s", words);
	finding_show(finding, document->text, 1);
	if (hint != NULL)
		finding_hint(finding, "%s", hint);
}

/* The last line of what an event stands for. A block scalar ends where the next line begins. */
static size_t last_line(const yaml_event_t *event)
{
	bool at_break = event->end_mark.column == 0 && event->end_mark.line > event->start_mark.line;

	return event->end_mark.line + !at_break;
}

/* A new node where an event stands; text that goes over several lines is underlined to the end of its first. */
static struct node *node_create(struct builder *builder, enum node_kind kind, const yaml_event_t *event)
{
	struct node *node = pool_alloc(&builder->document->pool, sizeof(*node));
	bool one_line = event->start_mark.line == event->end_mark.line;

	node->kind = kind;
	node->line = event->start_mark.line + 1;
	node->column = event->start_mark.column + 1;
	node->last_line = last_line(event);
	node->width = one_line ? event->end_mark.column - event->start_mark.column : SIZE_MAX;
	node->document = builder->document;
	return node;
}

/* Makes a finding of an event and returns a node that stands for what was refused. */
static struct node *node_refuse(struct builder *builder, const yaml_event_t *event, const char *words, const char *hint)
{
	struct node *node = node_create(builder, NODE_BROKEN, event);
	struct finding *finding = node_finding(builder->diagnostics, node, "%s", words);

	finding_hint(finding, "%s", hint);
	return node;
}

/* The node of a scalar. */
static struct node *scalar_create(struct builder *builder, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;

	if (event->data.scalar.anchor != NULL)
		return node_refuse(builder, event, "anchors are not used here",
				   "write the value out where it is needed");
	if (event->data.scalar.tag != NULL)
		return node_refuse(builder, event, "tags are not used here",
				   "text that starts with ! needs quotes around it");
	if (strlen(text) != event->data.scalar.length)
		return node_refuse(builder, event, "a NUL character inside a text", "leave the \\0 away");
	struct node *node = node_create(builder, NODE_SCALAR, event);
	node->text = pool_copy_bytes(&builder->document->pool, text, event->data.scalar.length);
	node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	node->block = event->data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
		      event->data.scalar.style == YAML_FOLDED_SCALAR_STYLE;
	if (node->block)
		node->width = 1;
	return node;
}

/* The node of a map or list that begins. */
static struct node *collection_create(struct builder *builder, const yaml_event_t *event)
{
	bool map = event->type == YAML_MAPPING_START_EVENT;
	bool anchor = map ? event->data.mapping_start.anchor != NULL : event->data.sequence_start.anchor != NULL;
	bool tag = map ? event->data.mapping_start.tag != NULL : event->data.sequence_start.tag != NULL;
	struct node *node = node_create(builder, map ? NODE_MAP : NODE_LIST, event);

	if (anchor)
		finding_hint(node_finding(builder->diagnostics, node, "anchors are not used here"),
			     "write the value out where it is needed");
	if (tag)
		node_finding(builder->diagnostics, node, "tags are not used here");
	node->width = 1;
	return node;
}

/* Takes a node as the key of the map on top. */
static void key_take(struct builder *builder, struct level *level, struct node *node)
{
	level->key = node;
	if (node->kind == NODE_SCALAR && strlen(node->text) <= DOCUMENT_KEY_MAX)
		return;
	if (node->kind == NODE_SCALAR)
		node_finding(builder->diagnostics, node, "a key of %zu bytes; at most %d are allowed",
			     strlen(node->text), DOCUMENT_KEY_MAX);
	else if (node->kind != NODE_BROKEN)
		finding_hint(node_finding(builder->diagnostics, node, "%s as a key", node_describe(node)),
			     "quote text that starts with { or [");
	node->kind = NODE_BROKEN;
	node->text = "";
}

/* Puts a node where it belongs: root, key, value or item. */
static void node_place(struct builder *builder, struct node *node)
{
	if (builder->depth == 0) {
		builder->document->root = node;
		return;
	}
	struct level *level = &builder->open[builder->depth - 1];
	if (level->node->kind == NODE_MAP && level->key == NULL) {
		key_take(builder, level, node);
		return;
	}
	if (level->last == NULL)
		level->node->first = node;
	else
		level->last->next = node;
	level->last = node;
	level->node->count++;
	node->key = level->key;
	level->key = NULL;
}

/* Orders children by key, then as written. */
static int children_compare(const void *left, const void *right)
{
	const struct node *a = *(struct node *const *)left, *b = *(struct node *const *)right;
	int order = strcmp(a->key->text, b->key->text);

	if (order != 0)
		return order;
	if (a->key->line != b->key->line)
		return a->key->line < b->key->line ? -1 : 1;
	return a->key->column < b->key->column ? -1 : a->key->column > b->key->column;
}

/* Makes findings of keys that a map has twice. */
static void duplicates_check(struct builder *builder, const struct node *map)
{
	struct node **sorted = calloc(map->count + 1, sizeof(struct node *));
	size_t count = 0;

	if (sorted == NULL)
		fatal("no memory to read %s", builder->document->file);
	for (struct node *child = map->first; child != NULL; child = child->next) {
		if (child->key->kind == NODE_SCALAR)
			sorted[count++] = child;
	}
	qsort(sorted, count, sizeof(struct node *), children_compare);
	for (size_t i = 1; i < count; i++) {
		if (strcmp(sorted[i - 1]->key->text, sorted[i]->key->text) == 0)
			node_finding(builder->diagnostics, sorted[i]->key,
				     "the key \"%.80s\" stands here twice; first in line %zu", sorted[i]->key->text,
				     sorted[i - 1]->key->line);
	}
	free(sorted);
}

/* The node that an event begins, or NULL when it begins none. */
static struct node *event_node(struct builder *builder, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return node_refuse(builder, event, "aliases are not used here",
				   "write the value out; text that starts with * needs quotes around it");
	case YAML_SCALAR_EVENT:
		return scalar_create(builder, event);
	case YAML_MAPPING_START_EVENT:
	case YAML_SEQUENCE_START_EVENT:
		return collection_create(builder, event);
	default:
		return NULL;
	}
}

/* Opens a map or list, so that what follows goes into it. A refused one is read like any other and never looked at. */
static bool level_open(struct builder *builder, struct node *node, enum node_kind kind)
{
	if (builder->depth == DOCUMENT_DEPTH_MAX) {
		node_finding(builder->diagnostics, node, "nested deeper than %d levels", DOCUMENT_DEPTH_MAX);
		return false;
	}
	node->kind = kind;
	builder->open[builder->depth++] = (struct level){.node = node};
	return true;
}

/* Closes the map or list on top. One in block style ends with its last child; what marks its end stands where the next thing begins. */
static void level_close(struct builder *builder, const yaml_event_t *event)
{
	struct level *level = &builder->open[--builder->depth];
	bool flow = event->end_mark.index > event->start_mark.index;

	if (level->node->kind == NODE_MAP)
		duplicates_check(builder, level->node);
	if (flow)
		level->node->last_line = last_line(event);
	else if (level->last != NULL)
		level->node->last_line = level->last->last_line;
}

/* Takes one event. False when reading must stop; the reason is a finding. */
static bool event_take(struct builder *builder, const yaml_event_t *event)
{
	if (event->type == YAML_MAPPING_END_EVENT || event->type == YAML_SEQUENCE_END_EVENT)
		level_close(builder, event);
	struct node *node = event_node(builder, event);
	if (node == NULL)
		return true;
	node_place(builder, node);
	if (++builder->document->nodes > builder->limits.nodes) {
		node_finding(builder->diagnostics, node, "more than %zu values in one file", builder->limits.nodes);
		return false;
	}
	if (event->type == YAML_MAPPING_START_EVENT)
		return level_open(builder, node, NODE_MAP);
	return event->type != YAML_SEQUENCE_START_EVENT || level_open(builder, node, NODE_LIST);
}

/* Feeds all events of the one document to the builder. False when the tree cannot be used. */
static bool events_read(struct builder *builder, yaml_parser_t *parser)
{
	bool going = true, document_seen = false;

	while (going) {
		yaml_event_t event;
		if (!yaml_parser_parse(parser, &event)) {
			problem_report(builder->document, parser, builder->diagnostics);
			return false;
		}
		if (event.type == YAML_STREAM_END_EVENT) {
			yaml_event_delete(&event);
			return true;
		}
		if (event.type == YAML_DOCUMENT_START_EVENT && document_seen) {
			node_refuse(builder, &event, "a second YAML document in one file",
				    "leave the `---` away, or make it a file of its own");
			going = false;
		}
		document_seen |= event.type == YAML_DOCUMENT_START_EVENT;
		going = going && event_take(builder, &event);
		yaml_event_delete(&event);
	}
	return false;
}

/* Builds the tree of a document whose text has been checked. */
static bool document_build(struct document *document, struct document_limits limits, struct diagnostics *diagnostics)
{
	struct builder builder = {.document = document, .limits = limits, .diagnostics = diagnostics};
	yaml_parser_t parser;

	if (!yaml_parser_initialize(&parser))
		fatalx("no memory to read %s", document->file);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, document->text.data, document->text.size);
	bool fine = events_read(&builder, &parser);
	yaml_parser_delete(&parser);
	if (fine && document->root == NULL) {
		diagnostics_add(diagnostics, (struct place){document->file, 0, 0}, "the file is empty");
		return false;
	}
	return fine;
}

/* A document that owns its name and has no text yet. */
static struct document *document_create(const char *file)
{
	struct document *document = calloc(1, sizeof(*document));

	if (document == NULL)
		fatal("no memory to read %s", file);
	document->file = pool_copy(&document->pool, file);
	return document;
}

/* Checks the text that a document has been given and makes the tree of it; frees the document when that fails. */
static struct document *document_finish(struct document *document, struct document_limits limits,
					struct diagnostics *diagnostics)
{
	if (text_check(document, diagnostics) && document_build(document, limits, diagnostics))
		return document;
	document_free(document);
	return NULL;
}

struct document *document_read(const char *path, struct document_limits limits, struct diagnostics *diagnostics)
{
	struct document *document = document_create(strcmp(path, "-") == 0 ? "<standard input>" : path);

	if (text_read(document, path, limits.bytes, diagnostics))
		return document_finish(document, limits, diagnostics);
	document_free(document);
	return NULL;
}

struct document *document_parse(const char *file, struct view text, struct document_limits limits,
				struct diagnostics *diagnostics)
{
	struct document *document = document_create(file);

	if (text.size > limits.bytes) {
		text_too_large(document, limits.bytes, diagnostics);
		document_free(document);
		return NULL;
	}
	document->text = (struct view){(uint8_t *)pool_copy_bytes(&document->pool, text.data, text.size), text.size};
	return document_finish(document, limits, diagnostics);
}

void document_free(struct document *document)
{
	if (document == NULL)
		return;
	pool_free(&document->pool);
	free(document);
}

struct node *node_find(const struct node *map, const char *key)
{
	if (map->kind != NODE_MAP)
		return NULL;
	for (struct node *child = map->first; child != NULL; child = child->next) {
		if (strcmp(child->key->text, key) == 0 && child->key->kind == NODE_SCALAR)
			return child;
	}
	return NULL;
}

bool node_is_null(const struct node *node)
{
	return node->kind == NODE_SCALAR && !node->quoted &&
	       (node->text[0] == '\0' || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

const char *node_describe(const struct node *node)
{
	if (node_is_null(node))
		return "empty";
	return node->kind == NODE_MAP ? "a map" : node->kind == NODE_LIST ? "a list" : "text";
}

struct finding *node_finding(struct diagnostics *diagnostics, const struct node *node, const char *format, ...)
{
	char message[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	struct place where = {node->document->file, node->line, node->column};
	struct finding *finding = diagnostics_add(diagnostics, where, "%s", message);
	finding_show(finding, node->document->text, node->width);
	return finding;
}

/* Writes names with commas between them, as many as fit. */
static void names_join(char *text, size_t size, const char *const *names, size_t count)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < count && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", names[i]);
}

void node_check_keys(const struct node *map, const char *what, const char *const *names, size_t count,
		     struct diagnostics *diagnostics)
{
	char known[512];

	names_join(known, sizeof(known), names, count);
	for (const struct node *child = map->first; child != NULL; child = child->next) {
		size_t i = 0;
		while (i < count && strcmp(names[i], child->key->text) != 0)
			i++;
		if (i < count || child->key->kind != NODE_SCALAR)
			continue;
		struct finding *finding =
		    node_finding(diagnostics, child->key, "unknown key \"%.80s\" in %s", child->key->text, what);
		finding_expected(finding, "one of: %s", known);
		finding_suggest(finding, child->key->text, names, count);
	}
}
