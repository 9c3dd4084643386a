/*
 * `bridgectl completion bash|zsh|fish`: completion scripts made out of the table of commands. The first word completes
 * to a command, a word that starts with a dash to an option of that command, anything else to a file.
 */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"

/* Whether an option belongs to a command. */
static bool belongs(const struct command_option *option, const char *command)
{
	return option->command == NULL || strcmp(option->command, command) == 0;
}

/* The names of all commands, separated by spaces. */
static void print_names(void)
{
	size_t count;
	const struct command *commands = commands_all(&count);
	for (size_t i = 0; i < count; i++)
		printf("%s%s", i > 0 ? " " : "", commands[i].name);
}

/* The options of a command, separated by spaces. */
static void print_options(const char *command)
{
	size_t count;
	const struct command_option *options = commands_options(&count);
	bool any = false;
	for (size_t i = 0; i < count; i++) {
		if (!belongs(&options[i], command))
			continue;
		printf("%s--%s", any ? " " : "", options[i].name);
		any = true;
	}
}

/* Text inside single quotes of a shell. */
static void print_quoted(const char *text)
{
	putchar('\'');
	for (; *text != '\0'; text++) {
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
	}
	putchar('\'');
}

/* The bash script. */
static void print_bash(void)
{
	printf("# bash completion for bridgectl\n"
	       "_bridgectl()\n{\n"
	       "\tlocal word=${COMP_WORDS[COMP_CWORD]} words=\n"
	       "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\twords='");
	print_names();
	printf(" --help --version'\n\telse\n\t\tcase ${COMP_WORDS[1]} in\n\t\thelp) words='");
	print_names();
	printf("' ;;\n\t\tcompletion) words='bash zsh fish' ;;\n\t\tesac\n\t\tcase $word in\n\t\t-*)\n"
	       "\t\t\tcase ${COMP_WORDS[1]} in\n");
	size_t count;
	const struct command *commands = commands_all(&count);
	for (size_t i = 0; i < count; i++) {
		printf("\t\t\t%s) words='", commands[i].name);
		print_options(commands[i].name);
		printf("' ;;\n");
	}
	printf("\t\t\tesac\n\t\t\t;;\n\t\tesac\n\tfi\n"
	       "\tCOMPREPLY=()\n"
	       "\tlocal candidate\n"
	       "\twhile IFS= read -r candidate; do\n\t\tCOMPREPLY+=(\"$candidate\")\n"
	       "\tdone < <(compgen -W \"$words\" -- \"$word\")\n"
	       "}\ncomplete -o default -F _bridgectl bridgectl\n");
}

/* One option as zsh's _arguments has it. */
static void print_zsh_option(const struct command_option *option)
{
	char text[512];
	size_t at = 0;
	for (const char *from = option->help; *from != '\0' && at < sizeof(text) - 3; from++) {
		if (strchr("[]:\\", *from) != NULL)
			text[at++] = '\\';
		text[at++] = *from;
	}
	text[at] = '\0';
	char spec[640];
	snprintf(spec, sizeof(spec), "*--%s%s[%s]%s%s%s", option->name, option->value != NULL ? "=" : "", text,
		 option->value != NULL ? ":" : "", option->value != NULL ? option->value : "",
		 option->value != NULL ? ":_files" : "");
	printf(" \\\n\t\t\t");
	print_quoted(spec);
}

/* The zsh script. */
static void print_zsh(void)
{
	size_t count, option_count;
	const struct command *commands = commands_all(&count);
	const struct command_option *options = commands_options(&option_count);
	printf("#compdef bridgectl\n_bridgectl()\n{\n\tlocal -a commands\n\tcommands=(\n");
	for (size_t i = 0; i < count; i++) {
		char line[256];
		snprintf(line, sizeof(line), "%s:%s", commands[i].name, commands[i].help);
		printf("\t\t");
		print_quoted(line);
		printf("\n");
	}
	printf("\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n"
	       "\tcase $words[2] in\n");
	for (size_t i = 0; i < count; i++) {
		printf("\t%s)\n\t\t_arguments", commands[i].name);
		for (size_t o = 0; o < option_count; o++)
			if (belongs(&options[o], commands[i].name))
				print_zsh_option(&options[o]);
		printf(" \\\n\t\t\t'*:file:_files'\n\t\t;;\n");
	}
	printf("\tesac\n}\nif [ \"$funcstack[1]\" = _bridgectl ]; then\n\t_bridgectl \"$@\"\nelse\n"
	       "\tcompdef _bridgectl bridgectl\nfi\n");
}

/* The fish script. */
static void print_fish(void)
{
	size_t count, option_count;
	const struct command *commands = commands_all(&count);
	const struct command_option *options = commands_options(&option_count);
	printf("# fish completion for bridgectl\n");
	for (size_t i = 0; i < count; i++) {
		printf("complete -c bridgectl -f -n __fish_use_subcommand -a %s -d ", commands[i].name);
		print_quoted(commands[i].help);
		printf("\n");
		for (size_t o = 0; o < option_count; o++) {
			if (!belongs(&options[o], commands[i].name))
				continue;
			printf("complete -c bridgectl -n '__fish_seen_subcommand_from %s' -l %s", commands[i].name,
			       options[o].name);
			if (options[o].letter != 0)
				printf(" -s %c", options[o].letter);
			printf("%s -d ", options[o].value != NULL ? " -r" : "");
			print_quoted(options[o].help);
			printf("\n");
		}
	}
}

/* The shells. */
static const struct {
	const char *name;
	void (*print)(void);
} shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};

/* `bridgectl completion SHELL` */
int cmd_completion(int argc, char **argv)
{
	struct arguments arguments;
	int code = arguments_read(&arguments, 1, 1, argc, argv);
	if (code >= 0)
		return code;
	for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
		if (strcmp(shells[i].name, arguments.operands[0]) != 0)
			continue;
		shells[i].print();
		return BRIDGECTL_OK;
	}
	return command_misused(argv[0], "no completion for \"%s\": bash, zsh and fish are known",
			       arguments.operands[0]);
}
