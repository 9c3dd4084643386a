/*
 * The table of bridgectl's commands, its help texts, and the reader of arguments (commands.h).
 *
 * Options may stand before, between and behind operands, as `--name value`, `--name=value`, `-n value` or `-nvalue`;
 * `--` ends them, and `-` alone is an operand. Nothing is abbreviated: scripts would break when an option is added.
 */
#include "cli/commands.h"

#include <stdarg.h>
#include <string.h>

#include "shared/suggest.h"

static const struct command commands[] = {
#define COMMAND(name, function, operands, help) {name, function, operands, help},
#include "cli/commands.def"
};

static const struct command_option options[] = {
#define COMMAND_OPTION(command, long, short, value, help) {command, long, short, value, help},
#include "cli/commands.def"
    {NULL, "help", 'h', NULL, "Explains the command."}, /* every command has it */
};

static const struct command_example examples[] = {
#define COMMAND_EXAMPLE(command, line, help) {command, line, help},
#include "cli/commands.def"
};

enum {
	COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]),
	OPTION_COUNT = sizeof(options) / sizeof(options[0]),
	EXAMPLE_COUNT = sizeof(examples) / sizeof(examples[0]),
	HELP_COLUMN = 28,
};

const struct command *commands_all(size_t *count)
{
	*count = COMMAND_COUNT;
	return commands;
}

const struct command_option *commands_options(size_t *count)
{
	*count = OPTION_COUNT;
	return options;
}

const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

const char *command_suggest(const char *name)
{
	const char *names[COMMAND_COUNT];
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		names[i] = commands[i].name;
	return suggest_nearest(name, names, COMMAND_COUNT);
}

/* Whether an option belongs to a command. */
static bool option_of(const struct command_option *option, const char *command)
{
	return option->command == NULL || strcmp(option->command, command) == 0;
}

/* One line of help: a term, and what it means from a fixed column on. */
static void print_term(FILE *out, const char *term, const char *meaning)
{
	if (strlen(term) < HELP_COLUMN - 2)
		fprintf(out, "  %-*s%s\n", HELP_COLUMN - 2, term, meaning);
	else
		fprintf(out, "  %s\n%*s%s\n", term, HELP_COLUMN, "", meaning);
}

/* The options of a command. */
static void print_options(const char *command, FILE *out)
{
	fprintf(out, "\nOptions:\n");
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct command_option *option = &options[i];
		if (!option_of(option, command))
			continue;
		char term[128], letter[8] = "    ";
		if (option->letter != 0)
			snprintf(letter, sizeof(letter), "-%c, ", option->letter);
		snprintf(term, sizeof(term), "%s--%s%s%s", letter, option->name, option->value != NULL ? " " : "",
			 option->value != NULL ? option->value : "");
		print_term(out, term, option->help);
	}
}

/* The examples of a command; of all when it is NULL. */
static void print_examples(const char *command, FILE *out)
{
	bool any = false;
	for (size_t i = 0; i < EXAMPLE_COUNT; i++) {
		if (command != NULL && strcmp(examples[i].command, command) != 0)
			continue;
		fprintf(out, "%s  %s\n      %s\n", any ? "" : "\nExamples:\n", examples[i].line, examples[i].help);
		any = true;
	}
}

void command_print_help(const struct command *command, FILE *out)
{
	bool operands = command->operands[0] != '\0';
	fprintf(out, "Usage: bridgectl %s [OPTION...]%s%s\n\n%s\n", command->name, operands ? " " : "",
		command->operands, command->help);
	print_options(command->name, out);
	print_examples(command->name, out);
}

void commands_print_help(FILE *out)
{
	fprintf(out,
		"Usage: bridgectl COMMAND [ARGUMENT...]\n\n"
		"Compiles, checks, explains and runs pipelines of Flink Bridge, and looks into a running sidecar.\n\n"
		"Commands:\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		print_term(out, commands[i].name, commands[i].help);
	fprintf(out, "\n");
	print_term(out, "--version", "Prints the version.");
	print_term(out, "--help", "Prints this.");
	print_examples(NULL, out);
	fprintf(out, "\nExit codes: 0 fine, 1 failed, 2 misused. `bridgectl help COMMAND` says more.\n");
}

int command_misused(const char *command, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	fprintf(stderr, "bridgectl %s: ", command);
	vfprintf(stderr, format, list);
	va_end(list);
	fprintf(stderr, "\nTry `bridgectl help %s`.\n", command);
	return BRIDGECTL_MISUSED;
}

/* ---- Reading arguments ---- */

/* An option of a command by its long name (of so many bytes), or by its letter when `name` is NULL. */
static const struct command_option *option_find(const char *command, const char *name, size_t size, char letter)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if (!option_of(&options[i], command))
			continue;
		if (name == NULL ? options[i].letter == letter
				 : strlen(options[i].name) == size && memcmp(options[i].name, name, size) == 0)
			return &options[i];
	}
	return NULL;
}

/* Says that a command has no such option, and which may be meant. */
static int option_unknown(const char *command, const char *given, const char *name)
{
	const char *names[OPTION_COUNT];
	size_t count = 0;
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (option_of(&options[i], command))
			names[count++] = options[i].name;
	const char *meant = suggest_nearest(name, names, count);
	if (meant != NULL)
		return command_misused(command, "unknown option \"%s\", did you mean \"--%s\"?", given, meant);
	return command_misused(command, "unknown option \"%s\"", given);
}

/* Notes an option that was given. */
static int option_take(struct arguments *arguments, const char *command, const struct command_option *option,
		       const char *value)
{
	if (arguments->option_count == ARGUMENTS_OPTIONS_MAX)
		return command_misused(command, "more than %d options", ARGUMENTS_OPTIONS_MAX);
	arguments->options[arguments->option_count].name = option->name;
	arguments->options[arguments->option_count++].value = value;
	return -1;
}

/* Reads the option at *at, its value included, and moves *at to the last argument used. */
static int option_read(struct arguments *arguments, int argc, char **argv, int *at)
{
	const char *given = argv[*at], *command = argv[0];
	bool is_long = given[1] == '-';
	const char *name = is_long ? given + 2 : given + 1;
	const char *equals = is_long ? strchr(name, '=') : NULL;
	size_t size = equals != NULL ? (size_t)(equals - name) : strlen(name);
	const struct command_option *option = option_find(command, is_long ? name : NULL, size, name[0]);
	if (option == NULL) {
		char word[64];
		snprintf(word, sizeof(word), "%.*s", (int)(size < 60 ? size : 60), name);
		return option_unknown(command, given, word);
	}
	const char *value = equals != NULL ? equals + 1 : !is_long && name[1] != '\0' ? name + 1 : NULL;
	if (option->value == NULL && value != NULL)
		return command_misused(command, "option \"--%s\" takes no value", option->name);
	if (option->value == NULL)
		return option_take(arguments, command, option, "");
	if (value == NULL && *at + 1 == argc)
		return command_misused(command, "option \"--%s\" needs a value: %s", option->name, option->value);
	return option_take(arguments, command, option, value != NULL ? value : argv[++*at]);
}

/* Checks how many operands there are. */
static int operands_check(const struct arguments *arguments, size_t least, size_t most, const char *name)
{
	const struct command *command = command_find(name);
	const char *operands = command != NULL ? command->operands : "";
	if (arguments->operand_count < least)
		return command_misused(name, "something is missing: bridgectl %s %s", name, operands);
	if (arguments->operand_count > most)
		return command_misused(name, "unexpected argument \"%s\"", arguments->operands[most]);
	return -1;
}

int arguments_read(struct arguments *arguments, size_t operands_min, size_t operands_max, int argc, char **argv)
{
	*arguments = (struct arguments){0};
	bool only_operands = false;
	for (int at = 1; at < argc; at++) {
		if (!only_operands && strcmp(argv[at], "--") == 0) {
			only_operands = true;
			continue;
		}
		if (!only_operands && argv[at][0] == '-' && argv[at][1] != '\0') {
			int code = option_read(arguments, argc, argv, &at);
			if (code >= 0)
				return code;
			continue;
		}
		if (arguments->operand_count == ARGUMENTS_OPERANDS_MAX)
			return command_misused(argv[0], "too many arguments");
		arguments->operands[arguments->operand_count++] = argv[at];
	}
	if (arguments_given(arguments, "help")) {
		command_print_help(command_find(argv[0]), stdout);
		return BRIDGECTL_OK;
	}
	return operands_check(arguments, operands_min, operands_max, argv[0]);
}

const char *arguments_value(const struct arguments *arguments, const char *option)
{
	for (size_t i = arguments->option_count; i-- > 0;)
		if (strcmp(arguments->options[i].name, option) == 0)
			return arguments->options[i].value;
	return NULL;
}

bool arguments_given(const struct arguments *arguments, const char *option)
{
	return arguments_value(arguments, option) != NULL;
}
