/*
 * The commands of bridgectl: the table (cli/commands.def), its help, and one reader of arguments for all of them.
 *
 * A command is `int cmd_x(int argc, char **argv)` with its own name in argv[0]; it returns an exit code. It reads its
 * arguments with arguments_read, which knows its options from the table, answers --help, and explains what is wrong.
 */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Exit codes of every command; run adds 130 and 143 (cli/run.h). */
enum { BRIDGECTL_OK = 0, BRIDGECTL_FAILED = 1, BRIDGECTL_MISUSED = 2 };

#define COMMAND(name, function, operands, help) int function(int argc, char **argv);
#include "cli/commands.def"

struct command {
	const char *name;
	int (*function)(int argc, char **argv);
	const char *operands; /* for the usage line */
	const char *help;     /* a sentence */
};

struct command_option {
	const char *command;
	const char *name;  /* without the dashes */
	char letter;       /* or 0 */
	const char *value; /* what its value is called; NULL: it takes none */
	const char *help;
};

struct command_example {
	const char *command, *line, *help;
};

/* The table; `count` is set. */
const struct command *commands_all(size_t *count);
const struct command_option *commands_options(size_t *count);

/* A command by its name, or NULL. */
const struct command *command_find(const char *name);

/* The command whose name is nearest to a mistyped one, or NULL. */
const char *command_suggest(const char *name);

/* Prints the usage, options and examples of one command; or the overview of all. */
void command_print_help(const struct command *command, FILE *out);
void commands_print_help(FILE *out);

enum { ARGUMENTS_OPTIONS_MAX = 128, ARGUMENTS_OPERANDS_MAX = 16 };

/* What a command was given, in the order given. */
struct arguments {
	const char *operands[ARGUMENTS_OPERANDS_MAX];
	size_t operand_count;
	struct {
		const char *name;  /* the long one */
		const char *value; /* "" for an option that takes none */
	} options[ARGUMENTS_OPTIONS_MAX];
	size_t option_count;
};

/* Reads the arguments of the command argv[0]. Returns -1 to go on; else the exit code, everything being said already. */
int arguments_read(struct arguments *arguments, size_t operands_min, size_t operands_max, int argc, char **argv);

/* The value of an option given last, or NULL when it was not given. */
const char *arguments_value(const struct arguments *arguments, const char *option);

/* Whether an option was given. */
bool arguments_given(const struct arguments *arguments, const char *option);

/* Says on standard error what is wrong with how a command was called, and where to read more; returns the exit code. */
int command_misused(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
