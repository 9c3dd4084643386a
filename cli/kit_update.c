/*
 * Expectations rewritten in place (kit_update.h).
 *
 * The tree says where each key and each list item begins and ends, and in YAML's block style that is whole lines. So an edit is whole
 * lines, too: those of one list of records. Comments and blank lines above an item belong to it.
 */
#include "cli/kit_update.h"

#include <errno.h>
#include <inttypes.h>
#include <jv.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"
#include "worker/base64.h"
#include "worker/json_text.h"

/* ---- Lines ------------------------------------------------------------------------------------------------------------ */

/* A line without its break. */
static struct view line_at(struct view text, size_t line)
{
	size_t ending;

	return line_of(text, line, &ending);
}

/* Copies a line with its break, for the breaks within a value are part of it; the last one may have none and gets one. */
static void keep_line(struct view text, size_t line, FILE *out)
{
	size_t ending;
	struct view kept = line_of(text, line, &ending);

	fwrite(kept.data, 1, kept.size + ending, out);
	if (ending == 0)
		putc('\n', out);
}

/* How many lines there are. */
static size_t line_count(struct view text)
{
	size_t count = 0, start = 0;

	for (size_t at = 0; at < text.size;) {
		size_t length = line_break_at(text, at);
		at += length > 0 ? length : 1;
		count += length > 0;
		start = length > 0 ? at : start;
	}
	return count + (start < text.size);
}

/* Whether a line between values says nothing: it is blank, or a comment. */
static bool is_silent(struct view line)
{
	size_t i = 0;

	while (i < line.size && line.data[i] == ' ')
		i++;
	return i == line.size || line.data[i] == '#';
}

/* Whether a key is the first on its line, but for the dashes of the list that it is in. */
static bool is_first(struct view text, const struct node *key)
{
	struct view line = line_at(text, key->line);

	for (size_t i = 0; i + 1 < key->column && i < line.size; i++)
		if (line.data[i] != ' ' && line.data[i] != '-')
			return false;
	return true;
}

/* The last scalar, or empty map or list, of a value. */
static const struct node *last_leaf(const struct node *value)
{
	while (value->first != NULL) {
		value = value->first;
		while (value->next != NULL)
			value = value->next;
	}
	return value;
}

/* Whether a value ends with a text whose last line is empty: so blank lines behind it are part of it. */
static bool ends_blank(const struct node *value)
{
	const struct node *leaf = last_leaf(value);

	if (leaf->kind != NODE_SCALAR)
		return false;
	size_t size = strlen(leaf->text);
	return size > 0 && leaf->text[size - 1] == '\n' && (size == 1 || leaf->text[size - 2] == '\n');
}

/* Whether a file ends with a block of text, and that without a line break: with one, it would be another text. */
static bool ends_within_block(const struct document *document)
{
	struct view text = document->text;
	size_t last, count = line_count(text);

	line_of(text, count, &last);
	return last == 0 && last_leaf(document->root)->block;
}

/* The first line behind a value. */
static size_t value_end(const struct node *value)
{
	struct view text = value->document->text;
	size_t end = value->last_line + 1;

	while (!ends_blank(value) && end > value->line + 1 && line_at(text, end - 1).size == 0)
		end--;
	return end;
}

/* ---- Records as YAML ---------------------------------------------------------------------------------------------------- */

/* Writes JSON with a space behind each comma and colon, and characters escaped that YAML does not take as they are. */
static void put_json(FILE *out, struct view json)
{
	bool inside = false;

	for (size_t i = 0; i < json.size; i++) {
		uint8_t byte = json.data[i];
		if (byte == 0x7f) {
			fputs("\\u007f", out);
			continue;
		}
		if (byte == 0xc2 && i + 1 < json.size && json.data[i + 1] < 0xa0) {
			fprintf(out, "\\u%04x", json.data[++i]);
			continue;
		}
		putc(byte, out);
		if (inside && byte == '\\' && i + 1 < json.size)
			putc(json.data[++i], out);
		else if (byte == '"')
			inside = !inside;
		else if (!inside && (byte == ',' || byte == ':'))
			putc(' ', out);
	}
}

/* Writes text as a JSON string, which YAML takes, too. False when it is not UTF-8. */
static bool put_text(FILE *out, struct view text, struct scratch *scratch)
{
	struct view json;

	if (!utf8_valid(text) || text.size > INT32_MAX)
		return false;
	jv value = jv_string_sized((const char *)text.data, (int)text.size);
	bool good = json_print(value, scratch, &json) == NULL;
	if (good)
		put_json(out, json);
	jv_free(value);
	return good;
}

/* Whether text needs no quotes: a name that is no word of YAML's. */
static bool is_plain(struct view text)
{
	static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off"};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (text.size == strlen(words[i]) && strncasecmp((const char *)text.data, words[i], text.size) == 0)
			return false;
	for (size_t i = 0; i < text.size; i++) {
		uint8_t byte = text.data[i];
		bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_';
		if (!letter && (i == 0 || !((byte >= '0' && byte <= '9') || byte == '-')))
			return false;
	}
	return text.size > 0;
}

/* Writes a key or the name of a header. */
static bool put_word(FILE *out, struct view text, struct scratch *scratch)
{
	if (!is_plain(text))
		return put_text(out, text, scratch);
	fwrite(text.data, 1, text.size, out);
	return true;
}

/* Writes bytes as base64. */
static void put_base64(FILE *out, struct view bytes)
{
	size_t size = base64_encoded_size(bytes.size);
	char *text = malloc(size + 1);

	if (text == NULL)
		fatal("no memory for a record");
	base64_encode(bytes, text);
	fwrite(text, 1, size, out);
	free(text);
}

/* Writes the payload: as JSON if it may be and is, as text, or as base64. */
static void put_payload(FILE *out, const struct kit_record *record, bool as_text, struct scratch *scratch)
{
	struct json_error error;
	struct view json;
	jv value = jv_invalid();

	if (!as_text && json_parse(record->payload, scratch, &value, &error) &&
	    json_print(value, scratch, &json) == NULL) {
		fputs("json: ", out);
		put_json(out, json);
	} else if (utf8_valid(record->payload)) {
		fputs("text: ", out);
		put_text(out, record->payload, scratch);
	} else {
		fputs("base64: ", out);
		put_base64(out, record->payload);
	}
	jv_free(value);
}

/* Whether a header is to be named. */
static bool is_named(const struct kit_record *like, const char *name)
{
	for (size_t i = 0; like != NULL && i < like->header_count; i++)
		if (strcmp(like->headers[i].name, name) == 0)
			return true;
	/* Of a dead letter: why it is one. */
	return like == NULL && (strcmp(name, "bridge-error") == 0 || strcmp(name, "bridge-error-step") == 0);
}

/* How many headers of a record are to be named. */
static size_t named_headers(const struct kit_record *record, const struct kit_record *like)
{
	size_t count = 0;

	for (size_t i = 0; i < record->header_count; i++)
		count += is_named(like, record->headers[i].name);
	return count;
}

/* Writes headers that are to be named, their key at `indent`, where the first line has got to already. */
static void put_headers(FILE *out, const struct kit_record *record, const struct kit_record *like, size_t indent,
			struct scratch *scratch)
{
	fprintf(out, "headers:\n");
	for (size_t i = 0; i < record->header_count; i++) {
		if (!is_named(like, record->headers[i].name))
			continue;
		fprintf(out, "%*s", (int)indent + 2, "");
		put_word(out, view_of(record->headers[i].name), scratch);
		fputs(": ", out);
		put_word(out, view_of(record->headers[i].value), scratch);
		putc('\n', out);
	}
}

/* Writes a record as a list item; what it names is what `like` names, or its payload when it has nothing of that. */
static void put_record(FILE *out, const struct kit_record *record, const struct kit_record *like, bool by_key,
		       size_t indent)
{
	struct scratch *scratch = scratch_create();
	bool named = like != NULL && like->has_key && record->has_key;
	bool key = named || (by_key && record->has_key);
	bool time = like != NULL && like->has_timestamp && record->has_timestamp;
	bool headers = named_headers(record, like) > 0;
	bool payload = like == NULL || like->has_payload || !(named || time || headers);

	if (scratch == NULL)
		fatal("no memory for a record");
	fprintf(out, "%*s- ", (int)indent, "");
	indent += 2;
	if (payload) {
		put_payload(out, record, like != NULL && like->has_payload && !like->json, scratch);
		putc('\n', out);
	}
	if (key) {
		fprintf(out, "%*skey: ", payload ? (int)indent : 0, "");
		if (!put_word(out, record->key, scratch))
			fputs("\"\"", out);
		putc('\n', out);
	}
	if (time)
		fprintf(out, "%*stimestamp: %" PRId64 "\n", payload || key ? (int)indent : 0, "", record->timestamp);
	if (headers) {
		fprintf(out, "%*s", payload || key || time ? (int)indent : 0, "");
		put_headers(out, record, like, indent, scratch);
	}
	scratch_destroy(scratch);
}

/* ---- Lists -------------------------------------------------------------------------------------------------------------- */

/* A list of records in its file. */
struct spot {
	struct view text;
	const struct node *key, *list;
	size_t end;    /* the first line behind it */
	bool block;    /* its items stand on lines of their own, and can be kept */
	size_t indent; /* of the dashes */
};

/* Whether each item of a list begins on a line of its own, behind the key's. */
static bool is_block(const struct node *key, const struct node *list)
{
	size_t line = key->line;

	for (const struct node *item = list->first; item != NULL; item = item->next) {
		if (item->line <= line)
			return false;
		line = item->line;
	}
	return list->first != NULL && list->line > key->line;
}

/* Where a list is. */
static struct spot spot_of_list(const struct kit_verdict *verdict)
{
	const struct node *list = verdict->outputs->list, *key = list->key;
	struct spot place = {.text = list->document->text, .key = key, .list = list};

	place.block = is_block(key, list);
	place.indent = place.block ? list->column - 1 : key->column + 1;
	place.end = value_end(list);
	return place;
}

/* The first line that belongs to an item: all that is behind the item before, so comments and blank lines above its dash do. */
static size_t item_start(const struct spot *place, const struct node *item)
{
	const struct node *before = NULL;

	for (const struct node *node = place->list->first; node != item; node = node->next)
		before = node;
	return before != NULL ? value_end(before) : place->key->last_line + 1;
}

/* Copies the lines of an item. */
static void keep_item(const struct spot *place, const struct node *item, FILE *out)
{
	size_t end = item->next == NULL ? place->end : item_start(place, item->next);

	for (size_t line = item_start(place, item); line < end; line++)
		keep_line(place->text, line, out);
}

/* Copies the comments above an item that is written anew. */
static void keep_comments(const struct spot *place, const struct node *item, FILE *out)
{
	for (size_t line = item_start(place, item); line < item->line && is_silent(line_at(place->text, line)); line++)
		keep_line(place->text, line, out);
}

/* The key's line: as it is, or cut behind the colon when the value stood there, too. */
static void keep_key(const struct spot *place, bool empty, FILE *out)
{
	struct view line = line_at(place->text, place->key->line);
	size_t width = place->key->width == SIZE_MAX ? 0 : place->key->width;

	if (place->block && !empty) {
		keep_line(place->text, place->key->line, out);
		return;
	}
	/* Columns count characters, and what stands before the key is spaces and dashes; the key may hold anything. */
	size_t bytes = place->key->column - 1, characters = 0;
	while (bytes < line.size && characters < width) {
		bytes++;
		characters += bytes == line.size || (line.data[bytes] & 0xc0) != 0x80;
	}
	fwrite(line.data, 1, bytes, out);
	fputs(empty ? ": []\n" : ":\n", out);
}

/* Writes the records of a verdict as list items; those that are as expected as they stand. */
static void put_items(const struct spot *place, const struct kit_verdict *verdict, size_t indent, FILE *out)
{
	const struct kit_outputs *outputs = verdict->outputs;
	const struct kit_record *like = outputs != NULL && outputs->count > 0 ? &outputs->records[0] : NULL;
	bool key = outputs != NULL && outputs->order == KIT_BY_KEY;

	for (size_t i = 0; i < verdict->count; i++) {
		const struct kit_pair *pair = &verdict->pairs[i];
		if (pair->actual == NULL)
			continue;
		if (pair->equal && place != NULL && place->block) {
			keep_item(place, pair->expected->at, out);
			continue;
		}
		if (pair->expected != NULL && place != NULL && place->block)
			keep_comments(place, pair->expected->at, out);
		put_record(out, pair->actual, pair->expected != NULL ? pair->expected : like, key, indent);
	}
}

/* ---- Edits -------------------------------------------------------------------------------------------------------------- */

/* One more edit; `text` is taken over. */
static void edit_add(struct kit_edits *edits, size_t from, size_t to, char *text)
{
	if (edits->count == edits->capacity) {
		edits->capacity = edits->capacity == 0 ? 16 : 2 * edits->capacity;
		edits->list = realloc(edits->list, edits->capacity * sizeof(*edits->list));
		if (edits->list == NULL)
			fatal("no memory for an update");
	}
	edits->list[edits->count++] = (struct kit_edit){from, to, text};
}

/* A stream into memory, and its end. */
static FILE *text_begin(char **text, size_t *size)
{
	FILE *out = open_memstream(text, size);

	if (out == NULL)
		fatal("no memory for an update");
	return out;
}

static void text_end(FILE *out)
{
	if (fclose(out) != 0)
		fatal("no memory for an update");
}

/* Plans an `expect` anew that stands on one line with the only sink that it names: as a block. */
static bool plan_flow(struct kit_edits *edits, const struct kit_verdict *verdict, const char **why)
{
	const struct node *expect = verdict->outputs->expect;
	struct view text = expect->document->text, line = line_at(text, expect->key->line);
	enum kit_order order = verdict->outputs->order;
	size_t indent = expect->key->column + 1, size = 0;
	char *lines = NULL;

	if (expect->count != 1 || !is_first(text, expect->key)) {
		*why = "it is written on one line with what is around it: give it lines of its own";
		return false;
	}
	FILE *out = text_begin(&lines, &size);
	fprintf(out, "%.*sexpect:\n%*s%s:", (int)expect->key->column - 1, (const char *)line.data, (int)indent, "",
		verdict->sink);
	if (order != KIT_IN_ORDER) {
		indent += 2;
		fprintf(out, "\n%*sorder: %s\n%*srecords:", (int)indent, "", kit_order_names[order], (int)indent, "");
	}
	fputs(verdict->actual_count == 0 ? " []\n" : "\n", out);
	put_items(NULL, verdict, indent + 2, out);
	text_end(out);
	edit_add(edits, expect->key->line, value_end(expect), lines);
	return true;
}

/* Plans a list anew. */
static bool plan_list(struct kit_edits *edits, const struct kit_verdict *verdict, const char **why)
{
	struct spot place = spot_of_list(verdict);
	char *text = NULL;
	size_t size = 0;

	if (!is_first(place.text, place.key))
		return plan_flow(edits, verdict, why);
	FILE *out = text_begin(&text, &size);
	keep_key(&place, verdict->actual_count == 0, out);
	put_items(&place, verdict, place.indent, out);
	text_end(out);
	edit_add(edits, place.key->line, place.end, text);
	return true;
}

/* Puts text behind that of an edit. */
static void edit_append(struct kit_edit *edit, char *text)
{
	size_t before = strlen(edit->text), size = strlen(text) + 1;

	edit->text = realloc(edit->text, before + size);
	if (edit->text == NULL)
		fatal("no memory for an update");
	memcpy(edit->text + before, text, size);
	free(text);
}

/* A sink and its records, as a key of an `expect`. */
static char *sink_text(const struct kit_verdict *verdict, size_t indent)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = text_begin(&text, &size);

	fprintf(out, "%*s%s:\n", (int)indent, "", verdict->sink);
	put_items(NULL, verdict, indent + 2, out);
	text_end(out);
	return text;
}

/* Plans an `expect` where a case has none, or an empty one; sinks follow. */
static void plan_expect(struct kit_edits *edits, const struct kit_case *kit)
{
	const struct node *expect = kit->expect.at;
	struct view text = kit->at->document->text;
	size_t end = value_end(kit->at);
	char *line = NULL;
	size_t size = 0;
	FILE *out = text_begin(&line, &size);

	if (expect == NULL) {
		fprintf(out, "%*sexpect:\n", (int)kit->at->column - 1, "");
	} else {
		struct view before = line_at(text, expect->key->line);
		fprintf(out, "%.*sexpect:\n", (int)expect->key->column - 1, (const char *)before.data);
	}
	text_end(out);
	edit_add(edits, expect == NULL ? end : expect->key->line, expect == NULL ? end : value_end(expect), line);
}

/* Plans a sink that nobody has mentioned: at the end of the case's `expect`, which may have to be made. */
static bool plan_sink(struct kit_edits *edits, const struct kit_case *kit, const struct kit_verdict *verdict,
		      const char **why)
{
	const struct node *expect = kit->expect.at;
	struct view text = kit->at->document->text;
	bool empty = expect == NULL || expect->count == 0;
	size_t indent = expect == NULL ? kit->at->column + 1 : expect->key->column + 1;

	if (!is_first(text, expect == NULL ? kit->at->first->key : expect->key) ||
	    (!empty && expect->first->key->line == expect->key->line)) {
		*why = "what is expected is written on one line with what is around it: give it lines of its own";
		return false;
	}
	if (!empty)
		indent = expect->first->key->column - 1;
	if (edits->sinks_of == kit) {
		edit_append(&edits->list[edits->sinks_at], sink_text(verdict, indent));
		return true;
	}
	if (empty) {
		plan_expect(edits, kit);
		edit_append(&edits->list[edits->count - 1], sink_text(verdict, indent));
	} else {
		size_t end = value_end(expect);
		edit_add(edits, end, end, sink_text(verdict, indent));
	}
	edits->sinks_of = kit;
	edits->sinks_at = edits->count - 1;
	return true;
}

bool kit_update_plan(struct kit_edits *edits, const struct kit_case *kit, const struct kit_verdict *verdict,
		     const char **why)
{
	if (ends_within_block(kit->at->document)) {
		*why = "the file ends within a block of text: end its last line with a line break";
		return false;
	}
	if (verdict->outputs != NULL)
		return plan_list(edits, verdict, why);
	return plan_sink(edits, kit, verdict, why);
}

/* Orders edits by where they begin; those at one place as they were planned. */
static int compare(const void *left, const void *right)
{
	const struct kit_edit *a = left, *b = right;

	if (a->from != b->from)
		return a->from < b->from ? -1 : 1;
	return (a->to > b->to) - (a->to < b->to);
}

/* Writes all lines, edited. */
static void put_edited(const struct kit_edits *edits, struct view text, FILE *out)
{
	size_t line = 1, lines = line_count(text);

	for (size_t i = 0; i <= edits->count; i++) {
		size_t until = i < edits->count ? edits->list[i].from : lines + 1;
		for (; line < until && line <= lines; line++)
			keep_line(text, line, out);
		if (i == edits->count)
			return;
		fputs(edits->list[i].text, out);
		line = edits->list[i].to > line ? edits->list[i].to : line;
	}
}

char *kit_update_text(struct kit_edits *edits, const char *path, struct view text)
{
	struct diagnostics diagnostics;
	char *edited = NULL;
	size_t size = 0;
	FILE *out = text_begin(&edited, &size);

	qsort(edits->list, edits->count, sizeof(*edits->list), compare);
	put_edited(edits, text, out);
	text_end(out);
	diagnostics_init(&diagnostics);
	struct kit_file *file = kit_file_parse(path, (struct view){(const uint8_t *)edited, size}, &diagnostics);
	if (file == NULL) {
		free(edited);
		edited = NULL;
	}
	kit_file_free(file);
	diagnostics_free(&diagnostics);
	return edited;
}

/* Writes text into a new file, which then takes the place of the one at `path`. False with errno. */
static bool replace_file(const char *path, const char *text)
{
	struct stat before;
	char name[4096];

	if (stat(path, &before) != 0)
		return false;
	snprintf(name, sizeof(name), "%.4000s.update-%d", path, getpid());
	FILE *out = fopen(name, "wxe");
	if (out == NULL)
		return false;
	bool good = fputs(text, out) >= 0 && fchmod(fileno(out), before.st_mode & 07777) == 0;
	good = fclose(out) == 0 && good;
	good = good && rename(name, path) == 0;
	if (!good) {
		int error = errno;
		unlink(name);
		errno = error;
	}
	return good;
}

const char *kit_update_apply(struct kit_edits *edits, const char *path, struct view text)
{
	errno = 0;
	if (edits->count == 0)
		return NULL;
	char *edited = kit_update_text(edits, path, text);
	if (edited == NULL)
		return "cannot be updated in place: give what is expected lines of its own, in YAML's block style";
	bool good = replace_file(path, edited);
	free(edited);
	return good ? NULL : "cannot be written";
}

void kit_edits_free(struct kit_edits *edits)
{
	for (size_t i = 0; i < edits->count; i++)
		free(edits->list[i].text);
	free(edits->list);
	*edits = (struct kit_edits){0};
}
