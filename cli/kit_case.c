/* Cases out of their file (kit_case.h). */
#include "cli/kit_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor/options.h"
#include "shared/log.h"
#include "shared/units.h"
#include "worker/base64.h"
#include "worker/jq_program.h"

enum {
	EVENTS_MAX = 100000,
	CASES_MAX = 10000,
	HEADERS_MAX = 1000,
	PARALLELISM_MAX = 63,
	SERVICES_MAX = 16,
	COMMAND_MAX = 64
};

const char *const kit_order_names[KIT_ORDER_COUNT] = {
    [KIT_IN_ORDER] = "in_order", [KIT_BY_KEY] = "by_key", [KIT_ANY] = "any"};

/* Keys that stand at the top of a file, or in a case for that alone. */
#define SHARED_KEYS "pipeline", "config", "environment", "services", "segment", "parallelism", "start", "watermarks"

/* One reading at work. */
struct reader {
	struct kit_file *file;
	struct pool *pool;
	struct diagnostics *diagnostics;
};

/* A finding at a node. */
#define FIND(reader, node, ...) node_finding((reader)->diagnostics, node, __VA_ARGS__)

/* ---- Scalars ------------------------------------------------------------------------------------------------------- */

/* Text, or NULL and a finding. */
static const char *text_of(struct reader *reader, const struct node *node, const char *what)
{
	if (node->kind == NODE_SCALAR)
		return node->text;
	if (node->kind != NODE_BROKEN)
		finding_expected(FIND(reader, node, "%s is %s", what, node_describe(node)), "text");
	return NULL;
}

/* A time in ms: a whole number, or a duration. False and a finding. */
static bool time_of(struct reader *reader, const struct node *node, const char *what, int64_t *ms)
{
	const char *text = text_of(reader, node, what);
	const char *digits = text != NULL && *text == '-' ? text + 1 : text;
	uint64_t number;

	if (text == NULL)
		return false;
	if (number_parse(digits, &number) && number <= KIT_TIME_MAX)
		*ms = digits > text ? -(int64_t)number : (int64_t)number;
	else if (duration_parse(text, &number) && number % 1000 == 0 && number / 1000 <= KIT_TIME_MAX)
		*ms = (int64_t)(number / 1000);
	else {
		finding_expected(FIND(reader, node, "%s is no time: \"%.60s\"", what, text),
				 "milliseconds (1500), or a duration (1500ms, 2s, 5min, 1h)");
		return false;
	}
	return true;
}

/* A whole number within bounds; 0 and a finding. */
static uint32_t number_of(struct reader *reader, const struct node *node, const char *what, uint32_t least,
			  uint32_t most)
{
	const char *text = text_of(reader, node, what);
	uint64_t number;

	if (text == NULL)
		return 0;
	if (number_parse(text, &number) && number >= least && number <= most)
		return (uint32_t)number;
	finding_expected(FIND(reader, node, "%s is \"%.60s\"", what, text), "a number from %u to %u", least, most);
	return 0;
}

/* `true` or `false`; false and a finding for anything else. */
static bool flag_of(struct reader *reader, const struct node *node, const char *what)
{
	bool is_true = node->kind == NODE_SCALAR && strcmp(node->text, "true") == 0;

	if (!is_true && node->kind != NODE_BROKEN && !(node->kind == NODE_SCALAR && strcmp(node->text, "false") == 0))
		finding_expected(FIND(reader, node, "%s is %s", what, node_describe(node)), "true or false");
	return is_true;
}

/* Whether a node is a map, or a list; a finding otherwise. */
static bool is_kind(struct reader *reader, const struct node *node, enum node_kind kind, const char *what)
{
	if (node->kind != kind && node->kind != NODE_BROKEN)
		finding_expected(FIND(reader, node, "%s is %s", what, node_describe(node)), "%s",
				 kind == NODE_MAP ? "a map" : "a list");
	return node->kind == kind;
}

/* ---- YAML as JSON -------------------------------------------------------------------------------------------------- */

/* Whether text without quotes is a number as JSON has them. */
static bool is_json_number(const char *text)
{
	text += *text == '-';
	if (*text == '0')
		text++;
	else if (*text >= '1' && *text <= '9')
		text += strspn(text, "0123456789");
	else
		return false;
	if (*text == '.') {
		size_t digits = strspn(++text, "0123456789");
		if (digits == 0)
			return false;
		text += digits;
	}
	if (*text == 'e' || *text == 'E') {
		text++;
		text += *text == '+' || *text == '-';
		size_t digits = strspn(text, "0123456789");
		if (digits == 0)
			return false;
		text += digits;
	}
	return *text == '\0';
}

/* Writes text as a JSON string. */
static void put_string(FILE *out, const char *text)
{
	putc('"', out);
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;
		if (byte == '"' || byte == '\\')
			fprintf(out, "\\%c", byte);
		else if (byte == '\n')
			fputs("\\n", out);
		else if (byte == '\t')
			fputs("\\t", out);
		else if (byte < 0x20)
			fprintf(out, "\\u%04x", byte);
		else
			putc(byte, out);
	}
	putc('"', out);
}

/* Writes a node as JSON, keys in the order written. The tree is no deeper than DOCUMENT_DEPTH_MAX. */
static void put_json(FILE *out, const struct node *node)
{
	const char *between = "";

	if (node->kind == NODE_SCALAR) {
		if (node_is_null(node))
			fputs("null", out);
		else if (!node->quoted && (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0 ||
					   is_json_number(node->text)))
			fputs(node->text, out);
		else
			put_string(out, node->text);
		return;
	}
	putc(node->kind == NODE_MAP ? '{' : '[', out);
	for (const struct node *child = node->first; child != NULL; child = child->next) {
		fputs(between, out);
		if (node->kind == NODE_MAP) {
			put_string(out, child->key->text);
			putc(':', out);
		}
		put_json(out, child);
		between = ",";
	}
	putc(node->kind == NODE_MAP ? '}' : ']', out);
}

/* A node as shortest JSON, in the pool. */
static struct view json_of(struct reader *reader, const struct node *node)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (out == NULL)
		fatal("no memory for a payload");
	put_json(out, node);
	if (fclose(out) != 0)
		fatal("no memory for a payload");
	struct view view = {(const uint8_t *)pool_copy_bytes(reader->pool, text, size), size};
	free(text);
	return view;
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

/* Reads headers: a map of names to texts. */
static void headers_read(struct reader *reader, const struct node *node, struct kit_record *record)
{
	if (!is_kind(reader, node, NODE_MAP, "\"headers\""))
		return;
	if (node->count > HEADERS_MAX) {
		FIND(reader, node, "%zu headers; a record has %d at most", node->count, HEADERS_MAX);
		return;
	}
	struct kit_header *headers = pool_array(reader->pool, node->count, sizeof(*headers));
	for (const struct node *child = node->first; child != NULL; child = child->next) {
		const char *value = text_of(reader, child, "a header");
		headers[record->header_count++] =
		    (struct kit_header){child->key->text, value == NULL ? "" : value, child};
	}
	record->headers = headers;
}

/* Decodes base64. */
static void base64_read(struct reader *reader, const struct node *node, struct kit_record *record)
{
	const char *text = text_of(reader, node, "\"base64\"");

	if (text == NULL)
		return;
	size_t size = strlen(text);
	uint8_t *bytes = pool_alloc(reader->pool, size + 4);
	if (base64_decode(view_of(text), bytes, &size))
		record->payload = (struct view){bytes, size};
	else
		FIND(reader, node, "this is no base64");
}

/* Reads what a map says of a record: payload, key, timestamp, headers. */
static void record_read(struct reader *reader, const struct node *map, struct kit_record *record)
{
	const struct node *json = node_find(map, "json"), *text = node_find(map, "text"),
			  *base64 = node_find(map, "base64"), *key = node_find(map, "key"),
			  *timestamp = node_find(map, "timestamp"), *headers = node_find(map, "headers");
	int payloads = (json != NULL) + (text != NULL) + (base64 != NULL);

	record->at = map;
	if (payloads > 1)
		FIND(reader, map, "a record has one payload: `json`, `text` or `base64`");
	record->has_payload = payloads > 0;
	record->json = json != NULL;
	if (json != NULL)
		record->payload = json_of(reader, json);
	if (text != NULL) {
		const char *words = text_of(reader, text, "\"text\"");
		record->payload = view_of(words == NULL ? "" : words);
	}
	if (base64 != NULL)
		base64_read(reader, base64, record);
	if (key != NULL) {
		const char *words = text_of(reader, key, "\"key\"");
		record->key = view_of(words == NULL ? "" : words);
		record->has_key = words != NULL;
	}
	if (timestamp != NULL)
		record->has_timestamp = time_of(reader, timestamp, "\"timestamp\"", &record->timestamp);
	if (headers != NULL)
		headers_read(reader, headers, record);
}

/* ---- Expectations -------------------------------------------------------------------------------------------------- */

/* Reads the records that are expected of one sink. */
static void expected_read(struct reader *reader, const struct node *list, struct kit_outputs *outputs)
{
	static const char *const keys[] = {"json", "text", "base64", "key", "timestamp", "headers"};

	outputs->list = list;
	if (!is_kind(reader, list, NODE_LIST, "what is expected of a sink"))
		return;
	struct kit_record *records = pool_array(reader->pool, list->count, sizeof(*records));
	for (const struct node *item = list->first; item != NULL; item = item->next) {
		struct kit_record *record = &records[outputs->count];
		if (!is_kind(reader, item, NODE_MAP, "an expected record"))
			continue;
		node_check_keys(item, "an expected record", keys, sizeof(keys) / sizeof(*keys), reader->diagnostics);
		record_read(reader, item, record);
		if (outputs->order == KIT_BY_KEY && !record->has_key)
			FIND(reader, item, "with `order: by_key` each expected record names its key");
		outputs->count++;
	}
	outputs->records = records;
}

/* Reads the order that outputs are compared in. */
static enum kit_order order_read(struct reader *reader, const struct node *node)
{
	const char *text = text_of(reader, node, "\"order\"");

	for (int i = 0; text != NULL && i < KIT_ORDER_COUNT; i++)
		if (strcmp(text, kit_order_names[i]) == 0)
			return (enum kit_order)i;
	if (text != NULL)
		finding_expected(FIND(reader, node, "unknown order \"%.60s\"", text), "in_order, by_key or any");
	return KIT_IN_ORDER;
}

/* Reads what is expected of one sink: a list of records, or a map with `order` and `records`. */
static void outputs_read(struct reader *reader, const struct node *node, struct kit_outputs *outputs)
{
	static const char *const keys[] = {"order", "records"};

	outputs->at = node;
	outputs->sink = node->key->text;
	if (node->kind != NODE_MAP) {
		expected_read(reader, node, outputs);
		return;
	}
	node_check_keys(node, "what is expected of a sink", keys, 2, reader->diagnostics);
	const struct node *order = node_find(node, "order"), *records = node_find(node, "records");
	outputs->order = order == NULL ? KIT_IN_ORDER : order_read(reader, order);
	if (records == NULL)
		FIND(reader, node, "there are no `records`");
	else
		expected_read(reader, records, outputs);
}

/* Reads an `expect`: a map of sinks. */
static struct kit_expect expect_read(struct reader *reader, const struct node *node)
{
	struct kit_expect expect = {.at = node};

	if (node_is_null(node) || !is_kind(reader, node, NODE_MAP, "\"expect\""))
		return expect;
	struct kit_outputs *outputs = pool_array(reader->pool, node->count, sizeof(*outputs));
	for (const struct node *child = node->first; child != NULL; child = child->next) {
		if (child->key->kind != NODE_SCALAR)
			continue;
		outputs[expect.count].expect = node;
		outputs_read(reader, child, &outputs[expect.count++]);
	}
	expect.outputs = outputs;
	return expect;
}

/* ---- Events -------------------------------------------------------------------------------------------------------- */

/* Reads a record as an event of its own. */
static void record_event(struct reader *reader, const struct node *map, struct kit_event *event)
{
	struct kit_record *record = pool_alloc(reader->pool, sizeof(*record));

	record_read(reader, map, record);
	event->kind = KIT_RECORDS;
	event->records = record;
	event->count = 1;
}

/* Reads several records that come in one message. */
static void batch_event(struct reader *reader, const struct node *list, struct kit_event *event)
{
	static const char *const keys[] = {"json", "text", "base64", "key", "timestamp", "headers"};

	event->kind = KIT_RECORDS;
	if (!is_kind(reader, list, NODE_LIST, "\"batch\""))
		return;
	struct kit_record *records = pool_array(reader->pool, list->count, sizeof(*records));
	for (const struct node *item = list->first; item != NULL; item = item->next) {
		if (!is_kind(reader, item, NODE_MAP, "a record"))
			continue;
		node_check_keys(item, "a record", keys, sizeof(keys) / sizeof(*keys), reader->diagnostics);
		record_read(reader, item, &records[event->count]);
		if (!records[event->count++].has_payload)
			FIND(reader, item, "a record without a payload: it needs `json`, `text` or `base64`");
	}
	event->records = records;
}

/* Reads a restart. */
static void restart_event(struct reader *reader, const struct node *map, const struct node *how,
			  struct kit_event *event)
{
	static const char *const words[] = {"worker", "job"};
	const struct node *parallelism = node_find(map, "parallelism");
	const char *text = text_of(reader, how, "\"restart\"");

	if (text == NULL)
		return;
	if (strcmp(text, "worker") != 0 && strcmp(text, "job") != 0)
		finding_suggest(FIND(reader, how, "\"restart\" is `worker` or `job`, not \"%.60s\"", text), text, words,
				2);
	event->kind = strcmp(text, "job") == 0 ? KIT_RESTART_JOB : KIT_RESTART_WORKER;
	if (parallelism == NULL)
		return;
	event->parallelism = number_of(reader, parallelism, "\"parallelism\"", 1, PARALLELISM_MAX);
	if (event->kind == KIT_RESTART_WORKER)
		FIND(reader, parallelism->key, "only a restart of the job can change the parallelism");
}

/* What an event can be, and the keys that may stand beside it. */
static const struct {
	const char *key;
	const char *beside[6];
} event_forms[] = {
    {"json", {"source", "key", "timestamp", "headers"}},
    {"text", {"source", "key", "timestamp", "headers"}},
    {"base64", {"source", "key", "timestamp", "headers"}},
    {"batch", {"source"}},
    {"lines", {"source"}},
    {"watermark", {"source"}},
    {"idle", {"source"}},
    {"advance", {NULL}},
    {"restart", {"parallelism"}},
    {"expect", {NULL}},
    {"end", {NULL}},
};

enum { EVENT_FORMS = sizeof(event_forms) / sizeof(*event_forms) };

/* Which form an event has: -1 and a finding when it has none, or keys that do not belong there. */
static int event_form(struct reader *reader, const struct node *map)
{
	const char *names[EVENT_FORMS + 8], what[] = "an event";
	size_t count = 0;
	int form = -1;

	for (int i = 0; i < EVENT_FORMS; i++) {
		if (form < 0 && node_find(map, event_forms[i].key) != NULL)
			form = i;
		names[count++] = event_forms[i].key;
	}
	if (form >= 0) {
		char of[64];
		snprintf(of, sizeof(of), "a `%s` event", event_forms[form].key);
		count = 0;
		names[count++] = event_forms[form].key;
		for (int i = 0; i < 6 && event_forms[form].beside[i] != NULL; i++)
			names[count++] = event_forms[form].beside[i];
		node_check_keys(map, of, names, count, reader->diagnostics);
		return form;
	}
	size_t before = reader->diagnostics->count;
	node_check_keys(map, what, names, count, reader->diagnostics);
	if (reader->diagnostics->count == before)
		finding_expected(FIND(reader, map, "an event that says nothing"),
				 "one of json, text, base64, batch, lines, watermark, idle, advance, restart, expect, "
				 "end");
	return -1;
}

/* Reads one event. */
static void event_read(struct reader *reader, const struct node *item, struct kit_event *event)
{
	event->at = item;
	if (item->kind == NODE_SCALAR && strcmp(item->text, "end") == 0) {
		event->kind = KIT_END;
		return;
	}
	if (item->kind != NODE_MAP) {
		if (item->kind != NODE_BROKEN)
			finding_expected(FIND(reader, item, "an event is %s", node_describe(item)),
					 "a map, or the word `end`");
		return;
	}
	int form = event_form(reader, item);
	if (form < 0)
		return;
	const char *key = event_forms[form].key;
	const struct node *value = node_find(item, key), *source = node_find(item, "source");
	event->source = source == NULL ? NULL : text_of(reader, source, "\"source\"");
	if (form < 3) {
		record_event(reader, item, event);
	} else if (strcmp(key, "batch") == 0) {
		batch_event(reader, value, event);
	} else if (strcmp(key, "lines") == 0) {
		event->kind = KIT_LINES;
		event->path = text_of(reader, value, "\"lines\"");
	} else if (strcmp(key, "watermark") == 0) {
		event->kind = KIT_WATERMARK;
		time_of(reader, value, "\"watermark\"", &event->time);
	} else if (strcmp(key, "idle") == 0) {
		event->kind = KIT_IDLE;
		event->idle = flag_of(reader, value, "\"idle\"");
	} else if (strcmp(key, "advance") == 0) {
		event->kind = KIT_ADVANCE;
		if (time_of(reader, value, "\"advance\"", &event->time) && event->time < 0)
			FIND(reader, value, "time does not go back");
	} else if (strcmp(key, "restart") == 0) {
		restart_event(reader, item, value, event);
	} else if (strcmp(key, "expect") == 0) {
		event->kind = KIT_EXPECT;
		event->expect = expect_read(reader, value);
	} else {
		event->kind = KIT_END;
		if (!flag_of(reader, value, "\"end\""))
			FIND(reader, value, "an end that is none: leave it away");
	}
}

/* Whether an event may stand behind the end of the input. */
static bool may_follow_end(enum kit_event_kind kind)
{
	return kind == KIT_EXPECT || kind == KIT_RESTART_WORKER;
}

/* Reads the events of a case. */
static void events_read(struct reader *reader, const struct node *list, struct kit_case *kit)
{
	bool ended = false;

	if (!is_kind(reader, list, NODE_LIST, "\"events\""))
		return;
	if (list->count > EVENTS_MAX) {
		FIND(reader, list, "%zu events; a case has %d at most", list->count, EVENTS_MAX);
		return;
	}
	struct kit_event *events = pool_array(reader->pool, list->count, sizeof(*events));
	for (const struct node *item = list->first; item != NULL; item = item->next) {
		struct kit_event *event = &events[kit->event_count++];
		event_read(reader, item, event);
		if (ended && !may_follow_end(event->kind))
			FIND(reader, item,
			     "nothing comes behind the end of the input but `expect` and `restart: worker`");
		ended |= event->kind == KIT_END;
	}
	kit->events = events;
}

/* ---- Cases --------------------------------------------------------------------------------------------------------- */

/* Whether services are a map of commands; findings otherwise. */
static bool services_check(struct reader *reader, const struct node *map)
{
	size_t before = reader->diagnostics->count;

	if (!is_kind(reader, map, NODE_MAP, "\"services\""))
		return false;
	if (map->count > SERVICES_MAX)
		FIND(reader, map, "%zu services; a case has %d at most", map->count, SERVICES_MAX);
	for (const struct node *command = map->first; command != NULL; command = command->next) {
		if (!is_kind(reader, command, NODE_LIST, "a service"))
			continue;
		if (command->count == 0 || command->count > COMMAND_MAX)
			finding_expected(FIND(reader, command, "a command of %zu words", command->count),
					 "the program and its arguments, %d at most", COMMAND_MAX);
		for (const struct node *word = command->first; word != NULL; word = word->next)
			text_of(reader, word, "a word of a command");
	}
	return reader->diagnostics->count == before;
}

/* Who sends watermarks: `case`, or `source`, which is what the result says. */
static bool follows_read(struct reader *reader, const struct node *node)
{
	static const char *const words[] = {"case", "source"};
	const char *text = text_of(reader, node, "\"watermarks\"");
	bool source = text != NULL && strcmp(text, "source") == 0;

	if (text != NULL && !source && strcmp(text, "case") != 0)
		finding_suggest(FIND(reader, node, "\"watermarks\" is `case` or `source`, not \"%.60s\"", text), text,
				words, 2);
	return source;
}

/* Reads what may stand at the top of a file and in a case alike. */
static void shared_read(struct reader *reader, const struct node *map, struct kit_case *kit)
{
	const struct node *node;

	if ((node = node_find(map, "pipeline")) != NULL)
		kit->pipeline = node;
	if ((node = node_find(map, "config")) != NULL)
		kit->config = node;
	if ((node = node_find(map, "environment")) != NULL && is_kind(reader, node, NODE_MAP, "\"environment\"")) {
		kit->environment = node;
		for (const struct node *child = node->first; child != NULL; child = child->next)
			text_of(reader, child, "a variable");
	}
	if ((node = node_find(map, "services")) != NULL && services_check(reader, node))
		kit->services = node;
	if ((node = node_find(map, "segment")) != NULL)
		kit->segment = text_of(reader, node, "\"segment\"");
	if ((node = node_find(map, "parallelism")) != NULL)
		kit->parallelism = number_of(reader, node, "\"parallelism\"", 1, PARALLELISM_MAX);
	if ((node = node_find(map, "watermarks")) != NULL)
		kit->follows = follows_read(reader, node);
	if ((node = node_find(map, "start")) != NULL)
		time_of(reader, node, "\"start\"", &kit->start);
	for (const struct node *part = kit->pipeline; part != NULL; part = part == kit->config ? NULL : kit->config)
		if (part->kind != NODE_SCALAR && part->kind != NODE_MAP && part->kind != NODE_BROKEN)
			finding_expected(FIND(reader, part, "\"%s\" is %s", part->key->text, node_describe(part)),
					 "the path of a file, or what would stand in it");
}

/* Reads how a case is expected to fail: `true`, words of the message, or a map of step and message. */
static void fails_read(struct reader *reader, const struct node *node, struct kit_case *kit)
{
	static const char *const keys[] = {"step", "message"};

	kit->fails = true;
	kit->fails_at = node;
	if (node->kind == NODE_SCALAR) {
		if (!node->quoted && strcmp(node->text, "true") == 0)
			return;
		kit->fails_message = node->text;
		return;
	}
	if (!is_kind(reader, node, NODE_MAP, "\"fails\""))
		return;
	node_check_keys(node, "\"fails\"", keys, 2, reader->diagnostics);
	const struct node *step = node_find(node, "step"), *message = node_find(node, "message");
	kit->fails_step = step == NULL ? NULL : text_of(reader, step, "\"step\"");
	kit->fails_message = message == NULL ? NULL : text_of(reader, message, "\"message\"");
}

/* Reads one case over what the file says. */
static void case_read(struct reader *reader, const struct node *map, struct kit_case *kit)
{
	static const char *const keys[] = {SHARED_KEYS, "name", "events", "expect", "fails"};

	kit->at = map;
	if (!is_kind(reader, map, NODE_MAP, "a case"))
		return;
	const struct node *name = node_find(map, "name"), *events = node_find(map, "events"),
			  *expect = node_find(map, "expect"), *fails = node_find(map, "fails");
	node_check_keys(map, "a case", keys, sizeof(keys) / sizeof(*keys), reader->diagnostics);
	shared_read(reader, map, kit);
	kit->name = name == NULL ? NULL : text_of(reader, name, "\"name\"");
	if (name == NULL || (kit->name != NULL && *kit->name == '\0'))
		FIND(reader, map, "a case without a name");
	if (kit->pipeline == NULL)
		FIND(reader, map, "there is no `pipeline`, neither here nor at the top of the file");
	if (events == NULL)
		FIND(reader, map, "a case without `events`");
	else
		events_read(reader, events, kit);
	if (expect != NULL)
		kit->expect = expect_read(reader, expect);
	if (fails != NULL)
		fails_read(reader, fails, kit);
}

/* Whether two cases have one name: they could not be told apart. */
static void names_check(struct reader *reader, const struct kit_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; cases[i].name != NULL && j < i; j++)
			if (cases[j].name != NULL && strcmp(cases[i].name, cases[j].name) == 0) {
				FIND(reader, cases[i].at, "a second case \"%.80s\"; the first is in line %zu",
				     cases[i].name, cases[j].at->line);
				break;
			}
}

/* Reads the whole tree. */
static void file_read(struct reader *reader, const struct node *root)
{
	static const char *const keys[] = {SHARED_KEYS, "cases"};
	struct kit_case shared = {.parallelism = 1};

	if (!is_kind(reader, root, NODE_MAP, "a file of cases"))
		return;
	node_check_keys(root, "a file of cases", keys, sizeof(keys) / sizeof(*keys), reader->diagnostics);
	shared_read(reader, root, &shared);
	const struct node *list = node_find(root, "cases");
	if (list == NULL) {
		FIND(reader, root, "a file of cases without `cases`");
		return;
	}
	if (!is_kind(reader, list, NODE_LIST, "\"cases\""))
		return;
	if (list->count == 0 || list->count > CASES_MAX) {
		FIND(reader, list, "%zu cases; a file has 1 to %d", list->count, CASES_MAX);
		return;
	}
	struct kit_case *cases = pool_array(reader->pool, list->count, sizeof(*cases));
	for (const struct node *item = list->first; item != NULL; item = item->next) {
		struct kit_case *kit = &cases[reader->file->count++];
		*kit = shared;
		case_read(reader, item, kit);
	}
	names_check(reader, cases, reader->file->count);
	reader->file->cases = cases;
}

/* Makes cases of a document, which is taken over; `before`: so many findings there were before it was read. */
static struct kit_file *file_of(const char *path, struct document *document, size_t before,
				struct diagnostics *diagnostics)
{
	if (document == NULL)
		return NULL;
	struct kit_file *file = calloc(1, sizeof(*file));
	if (file == NULL)
		fatal("no memory for a file of cases");
	file->path = path;
	file->document = document;
	struct reader reader = {file, &file->pool, diagnostics};
	file_read(&reader, document->root);
	if (diagnostics->count == before)
		return file;
	kit_file_free(file);
	return NULL;
}

struct kit_file *kit_file_read(const char *path, struct diagnostics *diagnostics)
{
	size_t before = diagnostics->count;

	return file_of(path, document_read(path, document_limits_default, diagnostics), before, diagnostics);
}

struct kit_file *kit_file_parse(const char *path, struct view text, struct diagnostics *diagnostics)
{
	size_t before = diagnostics->count;

	return file_of(path, document_parse(path, text, document_limits_default, diagnostics), before, diagnostics);
}

void kit_file_free(struct kit_file *file)
{
	if (file == NULL)
		return;
	document_free(file->document);
	pool_free(&file->pool);
	free(file);
}

/* ---- The pipeline of a case ---------------------------------------------------------------------------------------- */

const char *kit_path(struct kit_file *file, const char *path)
{
	const char *slash = strrchr(file->path, '/');

	if (*path == '/' || slash == NULL)
		return path;
	return pool_format(&file->pool, "%.*s/%s", (int)(slash - file->path), file->path, path);
}

const char *kit_case_place(struct kit_file *file, const struct kit_case *kit)
{
	return kit->pipeline->kind == NODE_SCALAR ? kit_path(file, kit->pipeline->text) : file->path;
}

/* The document that a value is, or that is in the file that it names. NULL and findings. */
static struct document *part_open(struct kit_file *file, const struct node *node, struct document *part,
				  struct diagnostics *diagnostics)
{
	if (node->kind == NODE_SCALAR)
		return document_read(kit_path(file, node->text), document_limits_default, diagnostics);
	*part = *file->document;
	part->root = (struct node *)(uintptr_t)node;
	part->pool = (struct pool){NULL};
	return part;
}

/* Lets go of it. */
static void part_close(struct document *opened, struct document *part)
{
	if (opened == part)
		pool_free(&part->pool);
	else
		document_free(opened);
}

/* Compiles a jq program and keeps it: the next case has it already, and so has each worker, which is a fork of this process. */
static char *check_program(const char *text)
{
	char why[1024];

	return jq_program_get(text, why, sizeof(why)) != NULL ? NULL : strdup(why);
}

struct descriptor *kit_case_compile(struct kit_file *file, const struct kit_case *kit, struct diagnostics *diagnostics)
{
	struct document pipeline_part, config_part, *config = NULL;
	struct descriptor *descriptor = NULL;
	struct document *pipeline = part_open(file, kit->pipeline, &pipeline_part, diagnostics);

	if (kit->config != NULL)
		config = part_open(file, kit->config, &config_part, diagnostics);
	if (pipeline != NULL && (kit->config == NULL || config != NULL))
		descriptor = compile_document(pipeline, config, check_program, diagnostics);
	part_close(pipeline, &pipeline_part);
	part_close(config, &config_part);
	return descriptor;
}

void kit_case_set_environment(const struct kit_case *kit)
{
	for (const struct node *child = kit->environment == NULL ? NULL : kit->environment->first; child != NULL;
	     child = child->next)
		if (setenv(child->key->text, child->text, 1) != 0)
			fatal("cannot set the variable %s", child->key->text);
}
