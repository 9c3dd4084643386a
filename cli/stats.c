/*
 * `bridgectl stats|slots|sessions|state|segments|metrics|deaths|health`: what a sidecar says of itself on its stats socket; and
 * `bridgectl reload|restart-worker|drain`: what it does when it is told there.
 *
 * One connection per question; the answer is printed as it comes, text or JSON, with --watch again and again. Nothing
 * of it is understood here but the word `healthy`, which is the exit code of `health`, whether an answer is an error, and
 * whether a reload has come to its end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "shared/units.h"

enum {
	ANSWER_MAX = 64 << 20,
	PATIENCE_S = 10, /* with a sidecar that takes the question and says nothing */
};

/* What the socket answered. */
struct answer {
	char *text; /* NUL-terminated */
	size_t size;
};

/* Says why there is no answer; false. */
static bool failed(const char *path, const char *what)
{
	const char *hint =
	    errno == ENOENT || errno == ECONNREFUSED ? "\nIs the sidecar running, with --stats and this path?" : "";
	bool silent = errno == EAGAIN || errno == EWOULDBLOCK;
	fprintf(stderr, "bridgectl: cannot %s the stats socket %s: %s%s\n", what, path,
		silent ? "it does not answer" : strerror(errno), hint);
	return false;
}

/* Connects; -1 and it said why. */
static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		failed(path, "connect to");
		return -1;
	}
	strcpy(address.sun_path, path);
	struct timeval patience = {.tv_sec = PATIENCE_S};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		failed(path, "connect to");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* Reads until the other side closes. */
static bool read_answer(int fd, struct answer *answer)
{
	size_t capacity = 0;
	*answer = (struct answer){0};
	for (;;) {
		if (capacity - answer->size < 2) {
			capacity = capacity == 0 ? 16384 : 2 * capacity;
			char *text = capacity <= ANSWER_MAX ? realloc(answer->text, capacity) : NULL;
			if (text == NULL)
				break;
			answer->text = text;
		}
		ssize_t got = read(fd, answer->text + answer->size, capacity - answer->size - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			break;
		answer->size += (size_t)got;
		answer->text[answer->size] = '\0';
		if (got == 0)
			return answer->size > 0 || (errno = ECONNRESET, false);
	}
	return false;
}

/* Asks one question. The answer's text is the caller's to free, even when it failed. */
static bool ask(const char *path, const char *question, struct answer *answer)
{
	*answer = (struct answer){0};
	int fd = connect_to(path);
	if (fd < 0)
		return false;
	size_t size = strlen(question);
	bool fine = send(fd, question, size, MSG_NOSIGNAL) == (ssize_t)size && shutdown(fd, SHUT_WR) == 0;
	fine = fine && read_answer(fd, answer);
	if (!fine)
		failed(path, "read");
	close(fd);
	return fine;
}

/* Whether the sidecar calls itself healthy. */
static bool ask_healthy(const char *path)
{
	struct answer answer;
	bool healthy = ask(path, "health json\n", &answer) && strstr(answer.text, "\"healthy\":true") != NULL;
	free(answer.text);
	return healthy;
}

/* Prints an answer; on a terminal that is watched the screen is cleared first. */
static void print_answer(const struct answer *answer, bool watching)
{
	if (watching && isatty(STDOUT_FILENO))
		fputs("\033[H\033[2J", stdout);
	size_t size = answer->size;
	while (size > 1 && answer->text[size - 1] == '\n' && answer->text[size - 2] == '\n')
		size--; /* the blank line that ends an answer on a connection that stays open */
	fwrite(answer->text, 1, size, stdout);
	fflush(stdout);
}

/* Whether an answer says that something could not be done. */
static bool is_error(const struct answer *answer)
{
	return strncmp(answer->text, "error: ", 7) == 0 || strncmp(answer->text, "{\"error\":", 9) == 0;
}

/* Prints an answer in text that is an error. */
static void print_error(const struct answer *answer)
{
	const char *words = answer->text + strlen("error: ");

	fprintf(stderr, "bridgectl: %.*s\n", (int)strcspn(words, "\n"), words);
}

/* Asks, prints, and with an interval asks again after it. */
static int show(const char *name, const char *path, bool json, uint64_t interval_us)
{
	char question[300];
	snprintf(question, sizeof(question), "%s%s\n", name, json ? " json" : "");
	for (;;) {
		struct answer answer;
		bool fine = ask(path, question, &answer);
		bool refused = fine && is_error(&answer);
		if (refused && !json)
			print_error(&answer);
		else if (fine)
			print_answer(&answer, interval_us > 0);
		free(answer.text);
		if (!fine || refused || ferror(stdout))
			return BRIDGECTL_FAILED;
		if (interval_us == 0)
			return BRIDGECTL_OK;
		struct timespec pause = {(time_t)(interval_us / 1000000), (long)(interval_us % 1000000) * 1000};
		nanosleep(&pause, NULL);
	}
}

/* The socket that a command is to ask at; NULL, and it said what is wrong. */
static const char *socket_of(const struct arguments *arguments, const char *command)
{
	const char *path = arguments_value(arguments, "stats");

	if (path == NULL)
		path = getenv("BRIDGE_STATS");
	if (path != NULL && path[0] != '\0')
		return path;
	command_misused(command,
			"which sidecar? Name its stats socket: --stats PATH, or BRIDGE_STATS in the environment");
	return NULL;
}

/* Has the sidecar do something; prints what it says. */
static int act(const struct arguments *arguments, const char *path, const char *line)
{
	char question[4608];
	struct answer answer;

	snprintf(question, sizeof(question), "%s%s\n", arguments_given(arguments, "json") ? "json " : "", line);
	if (!ask(path, question, &answer)) {
		free(answer.text);
		return BRIDGECTL_FAILED;
	}
	bool failed = is_error(&answer);
	if (failed && answer.text[0] != '{')
		print_error(&answer);
	else
		print_answer(&answer, false);
	free(answer.text);
	return failed ? BRIDGECTL_FAILED : BRIDGECTL_OK;
}

/* `bridgectl restart-worker SLOT` */
int cmd_restart_worker(int argc, char **argv)
{
	struct arguments arguments;
	char line[256];
	int code = arguments_read(&arguments, 1, 1, argc, argv);

	if (code >= 0)
		return code;
	const char *path = socket_of(&arguments, argv[0]);
	if (path == NULL)
		return BRIDGECTL_MISUSED;
	snprintf(line, sizeof(line), "restart_worker %.200s", arguments.operands[0]);
	return act(&arguments, path, line);
}

/* `bridgectl drain` */
int cmd_drain(int argc, char **argv)
{
	struct arguments arguments;
	int code = arguments_read(&arguments, 0, 0, argc, argv);

	if (code >= 0)
		return code;
	const char *path = socket_of(&arguments, argv[0]);
	return path == NULL ? BRIDGECTL_MISUSED : act(&arguments, path, "drain");
}

/* Whether a reload is still under way; false, too, when nobody answers any more. */
static bool is_reloading(const char *path)
{
	struct answer answer;
	bool reloading =
	    ask(path, "reloading json\n", &answer) && (strstr(answer.text, "\"state\":\"checking\"") != NULL ||
						       strstr(answer.text, "\"state\":\"replacing\"") != NULL);

	free(answer.text);
	return reloading;
}

/* Waits for a reload's end, and tells it. */
static int await_reload(const struct arguments *arguments, const char *path)
{
	const struct timespec pause = {0, 20000000};
	struct answer answer;

	while (is_reloading(path))
		nanosleep(&pause, NULL);
	if (!ask(path, "reloading json\n", &answer)) {
		free(answer.text);
		return BRIDGECTL_FAILED;
	}
	bool done = strstr(answer.text, "\"state\":\"done\"") != NULL;
	free(answer.text);
	int code = act(arguments, path, "reloading");
	return done ? code : BRIDGECTL_FAILED;
}

/* `bridgectl reload [--descriptor FILE]` */
int cmd_reload(int argc, char **argv)
{
	struct arguments arguments;
	char line[4400] = "reload", *full = NULL;
	struct answer answer;
	int code = arguments_read(&arguments, 0, 0, argc, argv);

	if (code >= 0)
		return code;
	const char *path = socket_of(&arguments, argv[0]), *file = arguments_value(&arguments, "descriptor");
	if (path == NULL)
		return BRIDGECTL_MISUSED;
	if (file != NULL && (full = realpath(file, NULL)) == NULL) { /* the sidecar may be at home elsewhere */
		fprintf(stderr, "bridgectl: %s: %s\n", file, strerror(errno));
		return BRIDGECTL_FAILED;
	}
	if (full != NULL)
		snprintf(line, sizeof(line), "reload %s", full);
	free(full);
	strcat(line, "\n");
	bool asked = ask(path, line, &answer), started = asked && !is_error(&answer);
	if (asked && !started)
		print_error(&answer);
	free(answer.text);
	return started ? await_reload(&arguments, path) : BRIDGECTL_FAILED;
}

/* All commands that show something: argv[0] is the question, and the operand belongs to it. */
int cmd_stats(int argc, char **argv)
{
	struct arguments arguments;
	char question[256];
	bool of_slot = strcmp(argv[0], "state") == 0;
	int code = arguments_read(&arguments, of_slot, of_slot, argc, argv);
	if (code >= 0)
		return code;
	snprintf(question, sizeof(question), "%s%s%.200s", argv[0], of_slot ? " " : "",
		 of_slot ? arguments.operands[0] : "");
	const char *path = socket_of(&arguments, argv[0]), *interval = arguments_value(&arguments, "interval");
	uint64_t interval_us = arguments_given(&arguments, "watch") ? 1000000 : 0;
	if (path == NULL)
		return BRIDGECTL_MISUSED;
	if (interval != NULL && (!duration_parse(interval, &interval_us) || interval_us == 0))
		return command_misused(argv[0], "--interval wants a duration such as 500ms or 2s, not \"%s\"",
				       interval);
	code = show(question, path, arguments_given(&arguments, "json"), interval_us);
	if (code == BRIDGECTL_OK && strcmp(argv[0], "health") == 0 && !ask_healthy(path))
		return BRIDGECTL_FAILED;
	return code;
}
