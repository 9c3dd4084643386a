/*
 * The `sidecar:` section of a configuration file (config.h), read event by event with libyaml.
 *
 * The file may hold other sections (it is the pipeline's deployment overlay, too); they are skipped, never expanded, so
 * that aliases cannot blow up. The file is at most 1 MiB. What the command line has given is checked all the same, then
 * left as it is. ${NAME} is replaced by the environment in this section alone: what other sections need is none of ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "descriptor/document.h"
#include "server/config.h"
#include "shared/suggest.h"

enum { FILE_MAX = 1 << 20, DEPTH_MAX = 64, WHERE_MAX = 512 };

struct reader {
	struct config *config;
	const char *path;
	struct findings *findings;
	yaml_parser_t parser;
	bool failed;           /* nothing more can be read */
	bool seen[FLAG_COUNT]; /* keys of the section so far */
	bool section;          /* the section was there */
	char near_section[64]; /* a key that looks like it */
};

/* "file:line:column" of a mark. */
static const char *place(const struct reader *reader, yaml_mark_t mark, char where[WHERE_MAX])
{
	snprintf(where, WHERE_MAX, "%s:%zu:%zu", reader->path, mark.line + 1, mark.column + 1);
	return where;
}

/* Adds a finding at a mark and gives the file up. */
static void give_up(struct reader *reader, yaml_mark_t mark, const char *what)
{
	char where[WHERE_MAX];

	findings_add(reader->findings, "%s: %s", place(reader, mark, where), what);
	reader->failed = true;
}

/* Reads the next event; false when the file is no YAML. */
static bool next(struct reader *reader, yaml_event_t *event)
{
	if (reader->failed)
		return false;
	if (yaml_parser_parse(&reader->parser, event) == 1)
		return true;
	give_up(reader, reader->parser.problem_mark,
		reader->parser.problem == NULL ? "not YAML" : reader->parser.problem);
	return false;
}

/* Skips the rest of a node whose first event is at hand, and deletes that event. */
static void skip_node(struct reader *reader, yaml_event_t *event)
{
	int depth = 0;

	for (;;) {
		yaml_event_type_t type = event->type;
		yaml_mark_t mark = event->start_mark;
		yaml_event_delete(event);
		if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT)
			depth++;
		else if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT)
			depth--;
		if (depth == 0)
			return;
		if (depth > DEPTH_MAX) {
			give_up(reader, mark, "nested too deeply");
			return;
		}
		if (!next(reader, event))
			return;
	}
}

/* The text of a scalar event; NULL and a finding when it is none, or holds a NUL. */
static const char *scalar_of(struct reader *reader, const yaml_event_t *event, const char *what)
{
	char where[WHERE_MAX];

	if (event->type == YAML_SCALAR_EVENT &&
	    memchr(event->data.scalar.value, '\0', event->data.scalar.length) == NULL)
		return (const char *)event->data.scalar.value;
	findings_add(reader->findings, "%s: expected %s%s", place(reader, event->start_mark, where), what,
		     event->type == YAML_ALIAS_EVENT ? ", not an alias" : "");
	return NULL;
}

/* A value with ${NAME} replaced, as everywhere else in such a file: fresh memory, or NULL and a finding. */
static char *substituted(const struct reader *reader, const char *text, const char *where)
{
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	char *replaced = text_substitute(text, &diagnostics);
	if (diagnostics.count > 0) {
		const struct finding *finding = &diagnostics.findings[0];
		findings_add(reader->findings, "%s: %s%s%s", where, finding->message, finding->hint == NULL ? "" : "; ",
			     finding->hint == NULL ? "" : finding->hint);
	}
	diagnostics_free(&diagnostics);
	return replaced;
}

/* Sets a flag from a text, unless the command line has. */
static void take_text(struct reader *reader, const struct flag *flag, const char *text, yaml_mark_t mark,
		      const char *where)
{
	size_t index = (size_t)(flag - config_flags);
	struct config checked = {0};

	if (text[0] == '\0' || (strcmp(text, "~") == 0 || strcmp(text, "null") == 0)) {
		findings_add(reader->findings, "%s: the value is missing: %s", where, flag->place);
		return;
	}
	if (reader->config->origin[index].from == FROM_COMMAND_LINE) {
		config_set(&checked, flag, text, where, reader->findings);
		config_deinit(&checked);
		return;
	}
	config_set(reader->config, flag, text, where, reader->findings);
	reader->config->origin[index].from = FROM_FILE;
	reader->config->origin[index].line = mark.line + 1;
	reader->config->origin[index].column = mark.column + 1;
}

/* Sets a flag from one scalar. */
static void take_scalar(struct reader *reader, const struct flag *flag, const yaml_event_t *event)
{
	char at[WHERE_MAX], where[WHERE_MAX + 80];
	const char *text = scalar_of(reader, event, "a single value");

	if (text == NULL)
		return;
	snprintf(where, sizeof(where), "%s: %s", place(reader, event->start_mark, at), flag->name);
	char *value = substituted(reader, text, where);
	if (value != NULL)
		take_text(reader, flag, value, event->start_mark, where);
	free(value);
}

/* Reads the value of a known key: a scalar, or a list of scalars for addresses. */
static void read_value(struct reader *reader, const struct flag *flag, yaml_event_t *event)
{
	if (event->type != YAML_SEQUENCE_START_EVENT || flag->type != FLAG_TYPE_ADDRESSES) {
		take_scalar(reader, flag, event);
		skip_node(reader, event);
		return;
	}
	yaml_event_delete(event);
	while (next(reader, event)) {
		if (event->type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(event);
			return;
		}
		take_scalar(reader, flag, event);
		skip_node(reader, event);
	}
}

/* Finds the flag that a key of the section names; NULL and a finding when it may not stand there. */
static const struct flag *key_flag(struct reader *reader, const char *key, yaml_mark_t mark)
{
	char where[WHERE_MAX];
	const struct flag *flag = config_flag(key);
	const char *near = flag == NULL ? config_flag_nearest(key) : NULL;

	place(reader, mark, where);
	if (flag == NULL)
		findings_add(reader->findings, "%s: unknown key \"%s\" in section \"sidecar\"%s%s%s", where, key,
			     near == NULL ? "" : ", did you mean \"", near == NULL ? "" : near,
			     near == NULL ? "; `bridged --help` lists all" : "\"?");
	else if (flag->type == FLAG_TYPE_ACTION || flag->type == FLAG_TYPE_CONFIG)
		findings_add(reader->findings, "%s: \"%s\" belongs on the command line, not into a file", where, key);
	else if (reader->seen[flag - config_flags])
		findings_add(reader->findings, "%s: \"%s\" is given twice", where, key);
	else {
		reader->seen[flag - config_flags] = true;
		return flag;
	}
	return NULL;
}

/* Reads the section's map; its start event has been taken. */
static void read_section(struct reader *reader)
{
	yaml_event_t event;

	while (next(reader, &event)) {
		if (event.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&event);
			return;
		}
		const char *key = scalar_of(reader, &event, "a key");
		const struct flag *flag = key == NULL ? NULL : key_flag(reader, key, event.start_mark);
		skip_node(reader, &event);
		if (!next(reader, &event))
			return;
		if (flag == NULL)
			skip_node(reader, &event);
		else
			read_value(reader, flag, &event);
	}
}

/* Remembers a top-level key that looks like the section's name. */
static void note_near_section(struct reader *reader, const char *key)
{
	static const char *const name[] = {"sidecar"};

	if (suggest_nearest(key, name, 1) != NULL)
		snprintf(reader->near_section, sizeof(reader->near_section), "%s", key);
}

/* Reads one key of the top level and what belongs to it. False at the end of the map. */
static bool read_top_key(struct reader *reader)
{
	yaml_event_t event;
	char where[WHERE_MAX];

	if (!next(reader, &event))
		return false;
	if (event.type == YAML_MAPPING_END_EVENT) {
		yaml_event_delete(&event);
		return false;
	}
	const char *key = scalar_of(reader, &event, "a key");
	bool ours = key != NULL && strcmp(key, "sidecar") == 0;
	if (key != NULL && !ours)
		note_near_section(reader, key);
	if (ours && reader->section)
		findings_add(reader->findings, "%s: the section \"sidecar\" is given twice",
			     place(reader, event.start_mark, where));
	skip_node(reader, &event);
	if (!next(reader, &event))
		return false;
	if (ours && event.type == YAML_MAPPING_START_EVENT) {
		yaml_event_delete(&event);
		read_section(reader);
	} else {
		if (ours)
			findings_add(reader->findings, "%s: the section \"sidecar\" must be a map of flags",
				     place(reader, event.start_mark, where));
		skip_node(reader, &event);
	}
	reader->section |= ours;
	return true;
}

/* Reads a document: a map at the top. */
static void read_document(struct reader *reader)
{
	yaml_event_t event;
	yaml_event_type_t type;

	do {
		if (!next(reader, &event))
			return;
		type = event.type;
		if (type != YAML_MAPPING_START_EVENT && type != YAML_STREAM_START_EVENT &&
		    type != YAML_DOCUMENT_START_EVENT)
			give_up(reader, event.start_mark, "expected a map with a section \"sidecar\"");
		yaml_event_delete(&event);
	} while (type != YAML_MAPPING_START_EVENT && !reader->failed);
	while (!reader->failed && read_top_key(reader))
		;
	if (!reader->failed && !reader->section)
		findings_add(reader->findings, "%s: there is no section \"sidecar\"%s%s%s", reader->path,
			     reader->near_section[0] == '\0' ? "" : "; is \"", reader->near_section,
			     reader->near_section[0] == '\0' ? "" : "\" meant to be it?");
}

/* Reads a whole file of bounded size; NULL and *why. */
static char *read_file(const char *path, size_t *size, const char **why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat status;
	char *bytes = NULL;

	*why = NULL;
	if (fd == -1 || fstat(fd, &status) == -1) {
		*why = strerror(errno);
	} else if (!S_ISREG(status.st_mode)) {
		*why = "not a regular file";
	} else if (status.st_size > FILE_MAX) {
		*why = "larger than 1MiB, which no configuration is";
	} else if ((bytes = malloc((size_t)status.st_size + 1)) == NULL) {
		fatal("no memory for the configuration");
	} else {
		ssize_t got = read(fd, bytes, (size_t)status.st_size);
		if (got < 0)
			*why = strerror(errno);
		*size = got < 0 ? 0 : (size_t)got;
	}
	if (fd != -1)
		close(fd);
	if (*why != NULL) {
		free(bytes);
		bytes = NULL;
	}
	return bytes;
}

void config_file_read(struct config *config, const char *path, struct findings *findings)
{
	struct reader reader = {.config = config, .path = path, .findings = findings};
	size_t size = 0;
	const char *why;
	char *bytes = read_file(path, &size, &why);

	if (bytes == NULL) {
		findings_add(findings, "--config: %s: %s", path, why);
		return;
	}
	if (yaml_parser_initialize(&reader.parser) != 1)
		fatal("no memory for the configuration");
	yaml_parser_set_input_string(&reader.parser, (unsigned char *)bytes, size);
	read_document(&reader);
	yaml_parser_delete(&reader.parser);
	free(bytes);
}
