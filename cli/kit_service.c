/* Services of test cases (kit_service.h). */
#include "cli/kit_service.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/control.h"
#include "shared/log.h"

enum { ARGUMENTS_MAX = 64, LINE_MAX_BYTES = 4096, EXIT_NO_EXEC = 127 };

/* Keeps what went wrong first. Returns false. */
static bool __attribute__((format(printf, 2, 3))) fail(struct kit_services *services, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (services->why[0] == '\0')
		vsnprintf(services->why, sizeof(services->why), format, arguments);
	va_end(arguments);
	return false;
}

/* In the child: becomes the service, in a process group of its own, and dies with this process. */
static void __attribute__((noreturn))
become(struct kit_file *file, const struct node *command, int out, int log, pid_t parent)
{
	const char *folder = kit_path(file, ".");
	char *arguments[ARGUMENTS_MAX + 1];
	size_t count = 0;

	for (const struct node *word = command->first; word != NULL && count < ARGUMENTS_MAX; word = word->next)
		arguments[count++] = (char *)(uintptr_t)word->text;
	arguments[count] = NULL;
	CHECK(count > 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (getppid() != parent || nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    dup2(log, STDERR_FILENO) < 0 || chdir(folder) != 0)
		_exit(EXIT_NO_EXEC);
	execvp(arguments[0], arguments);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], strerror(errno));
	_exit(EXIT_NO_EXEC);
}

/* Reads the line by which a service says that it is ready. False: it does not come. */
static bool read_line(int out, char *line, size_t size, uint64_t patience_ms)
{
	uint64_t until = clock_ns() + patience_ms * 1000000, now;
	size_t used = 0;

	while (used + 1 < size && (now = clock_ns()) < until) {
		struct pollfd watched = {.fd = out, .events = POLLIN};
		int ready = poll(&watched, 1, (int)((until - now) / 1000000 + 1));
		if (ready < 0 && errno != EINTR)
			fatal("waiting for a service failed");
		if (ready <= 0)
			continue;
		ssize_t got = read(out, line + used, 1);
		if (got <= 0)
			return false;
		if (line[used] == '\n') {
			line[used] = '\0';
			return true;
		}
		used++;
	}
	return false;
}

/* Sets a variable, and keeps what it was. */
static void set_variable(struct kit_services *services, const char *name, const char *value)
{
	const char *before = getenv(name);
	size_t at = services->variable_count;

	if (at == sizeof(services->variables) / sizeof(*services->variables))
		return;
	services->variables[at].name = strdup(name);
	services->variables[at].before = before == NULL ? NULL : strdup(before);
	services->variable_count++;
	if (services->variables[at].name == NULL || setenv(name, value, 1) != 0)
		fatal("no memory for a variable");
}

/* Takes the words NAME=VALUE of a line as variables. */
static void take_variables(struct kit_services *services, char *line)
{
	for (char *rest = NULL, *word = strtok_r(line, " \t\r", &rest); word != NULL;
	     word = strtok_r(NULL, " \t\r", &rest)) {
		char *equals = strchr(word, '=');
		if (equals == NULL || equals == word)
			continue;
		*equals = '\0';
		set_variable(services, word, equals + 1);
	}
}

/* Forks a process that copies what a service writes from now on into the log. */
static pid_t start_reader(int out, int log, pid_t parent)
{
	char bytes[4096];
	ssize_t size;
	pid_t pid = fork();

	if (pid < 0)
		fatal("cannot fork a reader");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent && (size = read(out, bytes, sizeof(bytes))) > 0)
		if (write(log, bytes, (size_t)size) != size)
			break;
	_exit(0);
}

/* Starts one service. */
static bool start_one(struct kit_services *services, struct kit_file *file, const struct node *command, int log,
		      uint64_t patience_ms)
{
	const char *name = command->key->text;
	char line[LINE_MAX_BYTES];
	pid_t parent = getpid();
	int out[2];

	if (pipe2(out, O_CLOEXEC) != 0)
		fatal("no pipe to a service");
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0)
		fatal("cannot fork a service");
	if (pid == 0)
		become(file, command, out[1], log, parent);
	close(out[1]);
	services->list[services->count].name = name;
	services->list[services->count].pid = pid;
	services->list[services->count].reader = 0;
	services->count++;
	bool ready = read_line(out[0], line, sizeof(line), patience_ms);
	if (ready)
		services->list[services->count - 1].reader = start_reader(out[0], log, parent);
	close(out[0]);
	if (!ready)
		return fail(services, "service \"%s\" has not said that it is ready, by a line on its standard output",
			    name);
	take_variables(services, line);
	return true;
}

bool kit_services_start(struct kit_services *services, struct kit_file *file, const struct kit_case *kit, int log,
			uint64_t patience_ms)
{
	const struct node *map = kit->services;

	for (const struct node *command = map == NULL ? NULL : map->first; command != NULL; command = command->next)
		if (!start_one(services, file, command, log, patience_ms))
			return false;
	return true;
}

/* Waits for a child that was killed. */
static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

void kit_services_stop(struct kit_services *services)
{
	for (size_t i = 0; i < services->count; i++) {
		kill(-services->list[i].pid, SIGKILL);
		kill(services->list[i].pid, SIGKILL); /* should it have had no group yet */
		reap(services->list[i].pid);
		if (services->list[i].reader == 0)
			continue;
		kill(services->list[i].reader, SIGKILL);
		reap(services->list[i].reader);
	}
	services->count = 0;
	while (services->variable_count > 0) {
		services->variable_count--;
		char *name = services->variables[services->variable_count].name;
		char *before = services->variables[services->variable_count].before;
		if (before == NULL)
			unsetenv(name);
		else
			setenv(name, before, 1);
		free(name);
		free(before);
	}
}
