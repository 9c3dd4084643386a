/*
 * The sidecar of one run (run_sidecar.h).
 */
#include "cli/run_sidecar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/run_progress.h"
#include "shared/log.h"

enum { STOP_PATIENCE_MS = 10000, HURRY_MS = 500, EXIT_NO_EXEC = 127 };

/* ---- The folder ---- */

/* Makes the private folder in `base`, if there is one and the socket's path will be short enough. */
static bool prepare_in(struct run_sidecar *sidecar, const char *base)
{
	if (base == NULL || base[0] != '/')
		return false;
	int size = snprintf(sidecar->folder, sizeof(sidecar->folder), "%s/bridgectl.XXXXXX", base);
	return size < (int)sizeof(sidecar->folder) && mkdtemp(sidecar->folder) != NULL;
}

bool run_sidecar_prepare(struct run_sidecar *sidecar)
{
	*sidecar = (struct run_sidecar){.exit_item.fd = -1, .log_item.fd = -1, .birth_item.fd = -1};
	if (!prepare_in(sidecar, getenv("XDG_RUNTIME_DIR")) && !prepare_in(sidecar, getenv("TMPDIR")) &&
	    !prepare_in(sidecar, "/tmp")) {
		fprintf(stderr,
			"bridgectl run: cannot make a private folder in /tmp: %s\n"
			"Set TMPDIR to a folder that can be written, with a path of fewer than 40 characters.\n",
			strerror(errno));
		sidecar->folder[0] = '\0';
		return false;
	}
	snprintf(sidecar->descriptor, sizeof(sidecar->descriptor), "%s/descriptor.yaml", sidecar->folder);
	snprintf(sidecar->socket, sizeof(sidecar->socket), "%s/s", sidecar->folder);
	snprintf(sidecar->address, sizeof(sidecar->address), "unix:%s", sidecar->socket);
	return true;
}

void run_sidecar_remove_folder(struct run_sidecar *sidecar)
{
	if (sidecar->folder[0] == '\0')
		return;
	DIR *folder = opendir(sidecar->folder);
	for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder != NULL)
		closedir(folder);
	if (rmdir(sidecar->folder) == 0 || errno == ENOENT)
		sidecar->folder[0] = '\0';
}

bool run_sidecar_has_socket(const struct run_sidecar *sidecar)
{
	return access(sidecar->socket, F_OK) == 0;
}

/* ---- Starting ---- */

/* Where bridged is: beside this program, unless it was named. */
static bool find_program(const char *named, char *path, size_t size)
{
	char own[PATH_MAX];
	ssize_t length = named == NULL ? readlink("/proc/self/exe", own, sizeof(own) - 1) : 0;
	if (length < 0) {
		fprintf(stderr, "bridgectl run: cannot tell where it is installed: %s; name bridged with --bridged\n",
			strerror(errno));
		return false;
	}
	own[length] = '\0';
	char *slash = strrchr(own, '/');
	if (slash != NULL)
		*slash = '\0';
	int needed = named != NULL ? snprintf(path, size, "%s", named) : snprintf(path, size, "%s/bridged", own);
	if (needed < (int)size && access(path, X_OK) == 0)
		return true;
	fprintf(stderr, "bridgectl run: cannot run %s: %s; name bridged with --bridged PATH\n", path, strerror(errno));
	return false;
}

/* In the child: nothing of ours but its standard error, a group of its own (Ctrl-C is for us), and it dies with us. */
static void become_bridged(const char *program, char *const *arguments, int log, pid_t parent)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int null = open("/dev/null", O_RDWR);
	if (getppid() != parent || null < 0)
		_exit(EXIT_NO_EXEC);
	dup2(null, STDIN_FILENO);
	dup2(log, STDERR_FILENO);
	dup2(log, STDOUT_FILENO);
	if (null > STDERR_FILENO)
		close(null);
	execv(program, arguments);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", program, strerror(errno));
	_exit(EXIT_NO_EXEC);
}

/* The inotify descriptor that tells when the socket appears. */
static int watch_folder(const struct run_sidecar *sidecar)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd >= 0 && inotify_add_watch(fd, sidecar->folder, IN_CREATE | IN_MOVED_TO) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Forks, and keeps what tells about the child. */
static bool spawn(struct run_sidecar *sidecar, const char *program, char *const *arguments)
{
	int log[2], birth = watch_folder(sidecar);
	if (birth < 0 || pipe2(log, O_CLOEXEC) != 0) {
		fprintf(stderr, "bridgectl run: cannot start %s: %s\n", program, strerror(errno));
		return false;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid_t parent = getpid();
	sidecar->pid = fork();
	if (sidecar->pid == 0)
		become_bridged(program, arguments, log[1], parent);
	int error = errno;
	close(log[1]);
	fcntl(log[0], F_SETFL, O_NONBLOCK);
	sidecar->log_item = (struct watch_item){.fd = log[0], .events = EPOLLIN};
	sidecar->birth_item = (struct watch_item){.fd = birth, .events = EPOLLIN};
	if (sidecar->pid < 0) {
		sidecar->pid = 0;
		fprintf(stderr, "bridgectl run: cannot start %s: %s\n", program, strerror(error));
		return false;
	}
	sidecar->group = sidecar->pid;
	setpgid(sidecar->pid, sidecar->pid); /* both do: whoever comes first */
	sidecar->exit_item =
	    (struct watch_item){.fd = (int)syscall(SYS_pidfd_open, sidecar->pid, 0), .events = EPOLLIN};
	if (sidecar->exit_item.fd < 0)
		fatal("cannot watch the sidecar");
	return true;
}

bool run_sidecar_start(struct run_sidecar *sidecar, const struct run_sidecar_options *options)
{
	char program[PATH_MAX + 16], slots[16], sessions[16];
	if (!find_program(options->program, program, sizeof(program)))
		return false;
	sidecar->verbose = options->verbose;
	sidecar->stats = options->stats;
	snprintf(slots, sizeof(slots), "%u", options->slots);
	snprintf(sessions, sizeof(sessions), "%u", options->sessions_per_slot);
	const char *arguments[20] = {program,    "--descriptor",   sidecar->descriptor,   "--slots", slots,
				     "--listen", sidecar->address, "--sessions-per-slot", sessions};
	size_t count = 9;
	if (options->stats != NULL) {
		arguments[count++] = "--stats";
		arguments[count++] = options->stats;
	}
	if (options->config != NULL) {
		arguments[count++] = "--config";
		arguments[count++] = options->config;
	} else {
		arguments[count++] = "--delta-bytes";
		arguments[count++] = options->delta_bytes;
	}
	return spawn(sidecar, program, (char *const *)(uintptr_t)arguments);
}

/* ---- Its log ---- */

/* Whether a log line is for people. "TIME LEVEL speaker: text" below warn is not, and a session's end is told by the run
 * itself, with the record at hand; what is no log line (a sanitizer's report, an abort) always is. */
static bool line_matters(const char *line)
{
	const char *level = strchr(line, ' ');
	bool timed = level != NULL && level - line >= 20 && line[4] == '-' && line[10] == 'T';
	if (!timed)
		return true;
	level++;
	return strncmp(level, "info", 4) != 0 && strncmp(level, "debug", 5) != 0 &&
	       strstr(level, ": session of segment ") == NULL;
}

/* Passes a whole line on. */
static void line_done(struct run_sidecar *sidecar)
{
	sidecar->line[sidecar->line_used] = '\0';
	if (sidecar->line_used > 0 && (sidecar->verbose || line_matters(sidecar->line))) {
		run_progress_clear();
		fprintf(stderr, "%s\n", sidecar->line);
	}
	sidecar->line_used = 0;
}

void run_sidecar_read_log(struct run_sidecar *sidecar)
{
	char bytes[4096];
	ssize_t got = -1;
	while (sidecar->log_item.fd >= 0 && (got = read(sidecar->log_item.fd, bytes, sizeof(bytes))) > 0) {
		for (ssize_t i = 0; i < got; i++) {
			if (bytes[i] == '\n' || sidecar->line_used == sizeof(sidecar->line) - 1)
				line_done(sidecar);
			if (bytes[i] != '\n')
				sidecar->line[sidecar->line_used++] = bytes[i];
		}
	}
	if (got == 0) { /* nobody holds its log any more */
		close(sidecar->log_item.fd);
		sidecar->log_item.fd = -1;
	}
}

/* ---- Its end ---- */

bool run_sidecar_check(struct run_sidecar *sidecar)
{
	if (sidecar->pid != 0 && waitpid(sidecar->pid, &sidecar->status, WNOHANG) == sidecar->pid) {
		sidecar->pid = 0;
		sidecar->died = !sidecar->asked_to_stop;
	}
	return sidecar->died;
}

const char *run_sidecar_end(const struct run_sidecar *sidecar, char *text, size_t size)
{
	if (WIFSIGNALED(sidecar->status))
		snprintf(text, size, "was killed by signal %d (%s)", WTERMSIG(sidecar->status),
			 strsignal(WTERMSIG(sidecar->status)));
	else
		snprintf(text, size, "ended with exit code %d", WEXITSTATUS(sidecar->status));
	return text;
}

/* Waits for its end, reading its log meanwhile, until time is up or a signal comes. */
static void wait_for_end(struct run_sidecar *sidecar, int patience_ms, int signal_fd)
{
	while (sidecar->pid != 0) {
		struct pollfd looks[3] = {
		    {sidecar->exit_item.fd, POLLIN, 0}, {sidecar->log_item.fd, POLLIN, 0}, {signal_fd, POLLIN, 0}};
		int ready = poll(looks, 3, patience_ms);
		run_sidecar_read_log(sidecar);
		run_sidecar_check(sidecar);
		if (ready == 0 || (ready < 0 && errno != EINTR) || looks[2].revents != 0)
			return;
	}
}

/* Closes the descriptors that told about it. */
static void close_items(struct run_sidecar *sidecar)
{
	struct watch_item *items[] = {&sidecar->exit_item, &sidecar->log_item, &sidecar->birth_item};
	for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
		if (items[i]->fd >= 0)
			close(items[i]->fd);
		items[i]->fd = -1;
	}
}

/* A sidecar that was killed left its stats socket and the lock beside it. */
static void remove_stats(const struct run_sidecar *sidecar)
{
	char lock[PATH_MAX];
	if (sidecar->stats == NULL || !sidecar->served || !WIFSIGNALED(sidecar->status))
		return;
	if (snprintf(lock, sizeof(lock), "%s.lock", sidecar->stats) < (int)sizeof(lock))
		unlink(lock);
	unlink(sidecar->stats);
}

/* Kills and reaps what is left of its processes; they are our children once their own parent is gone. */
static void end_group(struct run_sidecar *sidecar)
{
	if (sidecar->pid != 0) {
		kill(-sidecar->group, SIGKILL);
		waitpid(sidecar->pid, &sidecar->status, 0);
		sidecar->pid = 0;
	}
	pid_t reaped;
	while ((reaped = waitpid(-sidecar->group, NULL, WNOHANG)) > 0)
		;
	if (reaped < 0)
		return; /* nobody is left, and the number may be somebody else's */
	kill(-sidecar->group, SIGKILL);
	while (waitpid(-sidecar->group, NULL, 0) > 0 || errno == EINTR)
		;
}

void run_sidecar_stop(struct run_sidecar *sidecar, bool hurry, int signal_fd)
{
	run_sidecar_check(sidecar);
	sidecar->asked_to_stop = true;
	if (sidecar->pid != 0) {
		kill(sidecar->pid, SIGTERM);
		wait_for_end(sidecar, hurry ? HURRY_MS : STOP_PATIENCE_MS, hurry ? -1 : signal_fd);
	}
	if (sidecar->group != 0)
		end_group(sidecar);
	run_sidecar_read_log(sidecar);
	line_done(sidecar);
	close_items(sidecar);
	remove_stats(sidecar);
	run_sidecar_remove_folder(sidecar);
}
