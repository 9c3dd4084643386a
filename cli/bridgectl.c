/*
 * bridgectl: compiles, checks, explains and runs pipelines, and looks into a running sidecar. This file finds the
 * command in the table (commands.def) and calls it; each command is a file of its own.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "shared/log.h"

/* Whether an argument is one of two spellings. */
static bool is_one_of(const char *argument, const char *word, const char *other)
{
	return strcmp(argument, word) == 0 || strcmp(argument, other) == 0;
}

/* Says that there is no such command, and which may be meant. */
static int unknown_command(const char *name)
{
	const char *meant = command_suggest(name);
	if (meant != NULL)
		fprintf(stderr, "bridgectl: unknown command \"%s\", did you mean \"%s\"?\n", name, meant);
	else
		fprintf(stderr, "bridgectl: unknown command \"%s\"\n", name);
	fprintf(stderr, "Try `bridgectl help`.\n");
	return BRIDGECTL_MISUSED;
}

/* `bridgectl help [COMMAND]` */
int cmd_help(int argc, char **argv)
{
	struct arguments arguments;
	int code = arguments_read(&arguments, 0, 1, argc, argv);
	if (code >= 0)
		return code;
	if (arguments.operand_count == 0) {
		commands_print_help(stdout);
		return BRIDGECTL_OK;
	}
	const struct command *command = command_find(arguments.operands[0]);
	if (command == NULL)
		return unknown_command(arguments.operands[0]);
	command_print_help(command, stdout);
	return BRIDGECTL_OK;
}

/* Standard output is only as good as its last write: a full disk must not look like success. */
static int finish(int code)
{
	errno = 0;
	bool failed = ferror(stdout) != 0;
	if (fflush(stdout) == 0 && !failed)
		return code;
	if (errno != EPIPE)
		fprintf(stderr, "bridgectl: standard output could not be written: %s\n",
			errno != 0 ? strerror(errno) : "an earlier write failed");
	return code != BRIDGECTL_OK ? code : BRIDGECTL_FAILED;
}

int main(int argc, char **argv)
{
	log_init("bridgectl", LOG_WARN);
	if (argc < 2) {
		commands_print_help(stderr);
		return BRIDGECTL_MISUSED;
	}
	if (is_one_of(argv[1], "--help", "-h")) {
		commands_print_help(stdout);
		return finish(BRIDGECTL_OK);
	}
	if (is_one_of(argv[1], "--version", "-V")) {
		printf("bridgectl " BRIDGE_VERSION "\n");
		return finish(BRIDGECTL_OK);
	}
	const struct command *command = command_find(argv[1]);
	if (command == NULL)
		return unknown_command(argv[1]);
	return finish(command->function(argc - 1, argv + 1));
}
