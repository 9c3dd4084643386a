/* Finds the command that a line of the stats socket means, and answers it (stats.h). */
#include <stdarg.h>
#include <string.h>

#include "server/stats.h"
#include "server/stats_views.h"
#include "shared/suggest.h"

/* A command shows something or does something. */
struct command {
	const char *name;
	const char *argument; /* as in the table */
	void (*view)(const struct supervisor *supervisor, struct report *report, const char *argument);
	void (*action)(struct supervisor *supervisor, struct report *report, const char *argument);
};

static const struct command commands[] = {
#define STATS_COMMAND(name, argument, help) {#name, argument, stats_view_##name, NULL},
#define STATS_ACTION(name, argument, help) {#name, argument, NULL, stats_action_##name},
#include "server/stats_commands.def"
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(*commands), LINE_BYTES = 8192 };

/* A line: a command, and what stands behind it. */
struct request {
	char text[LINE_BYTES];
	const char *word;     /* the command; empty: none */
	const char *argument; /* the rest of the line; empty: nothing */
	bool as_json;
};

/* The first byte of a text that is no blank. */
static char *skip_blanks(char *text)
{
	return text + strspn(text, " \t\r");
}

/* Cuts a word off the beginning of a text; returns what is behind it. */
static char *cut_word(char *text)
{
	char *end = text + strcspn(text, " \t\r");

	if (*end == '\0')
		return end;
	*end = '\0';
	return skip_blanks(end + 1);
}

/* Cuts blanks off the end of a text. */
static void trim_end(char *text)
{
	size_t length = strlen(text);

	while (length > 0 && strchr(" \t\r", text[length - 1]) != NULL)
		text[--length] = '\0';
}

/* Whether the last word of a text is `json`, which is cut off then. */
static bool cut_json_end(char *text)
{
	size_t length = strlen(text);

	if (length < 4 || strcmp(text + length - 4, "json") != 0 ||
	    (length > 4 && strchr(" \t\r", text[length - 5]) == NULL))
		return false;
	text[length - 4] = '\0';
	trim_end(text);
	return true;
}

/* Reads a line; the word `json`, first or last, is no word but a wish. */
static void read_request(struct request *request, const char *line)
{
	*request = (struct request){0};
	snprintf(request->text, sizeof(request->text), "%s", line);
	char *at = skip_blanks(request->text);
	trim_end(at);
	char *rest = cut_word(at);
	if (strcmp(at, "json") == 0) {
		request->as_json = true;
		at = rest;
		rest = cut_word(at);
	}
	request->as_json |= cut_json_end(rest);
	request->word = at;
	request->argument = rest;
	for (char *byte = at; *byte != '\0'; byte++)
		*byte = *byte == '-' ? '_' : *byte;
}

/* The command of a name, or NULL. */
static const struct command *find(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(name, commands[i].name) == 0)
			return &commands[i];
	}
	return NULL;
}

void stats_error(struct report *report, const char *format, ...)
{
	char message[LINE_BYTES + 256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	if (report->as_json) {
		report_text(report, "error", message);
		return;
	}
	for (char *at = message; *at != '\0'; at++)
		*at = (unsigned char)*at < ' ' || *at == 0x7f ? '?' : *at;
	report_line(report, "error: %s", message);
}

/* Answers that a line means nothing. */
static void refuse(struct report *report, const struct request *request, const struct command *command)
{
	const char *names[COMMAND_COUNT];

	for (size_t i = 0; i < COMMAND_COUNT; i++)
		names[i] = commands[i].name;
	const char *near = suggest_nearest(request->word, names, COMMAND_COUNT);
	if (command != NULL && command->argument[0] == '\0')
		stats_error(report, "\"%s\" takes no word but json", request->word);
	else if (command != NULL)
		stats_error(report, "\"%s\" wants %s behind it", request->word, command->argument);
	else if (near != NULL)
		stats_error(report, "unknown command \"%s\", did you mean \"%s\"?", request->word, near);
	else
		stats_error(report, "unknown command \"%s\"; \"help\" lists all", request->word);
}

/* Whether a command may have this argument. */
static bool takes(const struct command *command, const char *argument)
{
	bool given = argument[0] != '\0';

	if (command->argument[0] == '\0')
		return !given;
	return given || command->argument[0] == '[';
}

void stats_answer(struct supervisor *supervisor, const char *line, FILE *out)
{
	static struct request request; /* large, and there is one thread */
	struct report report;

	read_request(&request, line);
	const struct command *command = find(request.word);
	report_begin(&report, out, request.as_json);
	if (command == NULL || !takes(command, request.argument))
		refuse(&report, &request, command);
	else if (command->view != NULL)
		command->view(supervisor, &report, request.argument);
	else
		command->action(supervisor, &report, request.argument);
	report_end(&report);
}
