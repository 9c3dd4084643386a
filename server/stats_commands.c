/* Finds the command that a line of the stats socket means, and answers it (stats.h). */
#include <string.h>

#include "server/stats.h"
#include "server/stats_views.h"
#include "shared/suggest.h"

struct command {
	const char *name;
	void (*view)(const struct supervisor *supervisor, struct report *report, const char *argument);
};

static const struct command commands[] = {
#define STATS_COMMAND(name, help) {#name, stats_view_##name},
#include "server/stats_commands.def"
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(*commands), WORDS_MAX = 3, LINE_BYTES = 512 };

/* A line cut into words. */
struct words {
	char text[LINE_BYTES];
	const char *word[WORDS_MAX];
	size_t count;
	bool as_json, too_many;
};

/* Cuts a line into words; the word `json`, first or last, is no word but a wish. */
static void cut(struct words *words, const char *line)
{
	char *rest = NULL;

	*words = (struct words){0};
	snprintf(words->text, sizeof(words->text), "%s", line);
	for (char *word = strtok_r(words->text, " \t\r", &rest); word != NULL; word = strtok_r(NULL, " \t\r", &rest)) {
		if (strcmp(word, "json") == 0)
			words->as_json = true;
		else if (words->count < WORDS_MAX)
			words->word[words->count++] = word;
	}
	words->too_many = words->count > 2;
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

/* Answers that a line means nothing. */
static void refuse(const struct words *words, FILE *out)
{
	const char *names[COMMAND_COUNT], *word = words->count == 0 ? "" : words->word[0];
	char message[LINE_BYTES + 128];
	struct json json;

	for (size_t i = 0; i < COMMAND_COUNT; i++)
		names[i] = commands[i].name;
	const char *near = suggest_nearest(word, names, COMMAND_COUNT);
	if (find(word) != NULL)
		snprintf(message, sizeof(message), "\"%s\" takes no word but json", word);
	else if (near != NULL)
		snprintf(message, sizeof(message), "unknown command \"%s\", did you mean \"%s\"?", word, near);
	else
		snprintf(message, sizeof(message), "unknown command \"%s\"; \"help\" lists all", word);
	if (words->as_json) {
		json_init(&json, out);
		json_open_object(&json, NULL);
		json_text(&json, "error", message);
		json_close_object(&json);
		fputs("\n", out);
		return;
	}
	fputs("error: ", out);
	for (const char *at = message; *at != '\0'; at++)
		putc((unsigned char)*at < ' ' || *at == 0x7f ? '?' : *at, out);
	fputs("\n\n", out);
}

void stats_answer(const struct supervisor *supervisor, const char *line, FILE *out)
{
	struct words words;
	struct report report;

	cut(&words, line);
	const struct command *command = words.count == 0 ? NULL : find(words.word[0]);
	bool has_argument = words.count == 2 && command == &commands[0];
	if (command == NULL || words.too_many || (words.count == 2 && !has_argument)) {
		refuse(&words, out);
		return;
	}
	report_begin(&report, out, words.as_json);
	command->view(supervisor, &report, has_argument ? words.word[1] : "");
	report_end(&report);
}
