/*
 * Unix socket paths (sockets.h).
 *
 * The lock decides: who holds it owns the path. What is found at the path under the lock is either left over (nobody
 * answers: removed) or somebody else's who takes no lock (answers: refused). The lock file is removed while it is still
 * held; whoever opened it just before gets the lock on a file that is no longer there, notices, and opens it anew.
 */
#include "server/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LOCK_PATH_MAX = 128 };

/* Writes the path of a socket's lock file. */
static void lock_path(char path[LOCK_PATH_MAX], const char *socket_path)
{
	snprintf(path, LOCK_PATH_MAX, "%s.lock", socket_path);
}

/* Who holds a lock file, as it says itself. */
static long holder_of(int lock)
{
	char text[32];
	ssize_t got = pread(lock, text, sizeof(text) - 1, 0);

	if (got <= 0)
		return 0;
	text[got] = '\0';
	return strtol(text, NULL, 10);
}

/* Says in words why a lock file could not be had. */
static void explain_lock(const char *socket_path, const char *path, int lock, int error, char why[SOCKET_WHY_MAX])
{
	char pid[48] = "";

	if (error != EWOULDBLOCK) {
		snprintf(why, SOCKET_WHY_MAX, "unix:%s: cannot take the lock file %s: %s", socket_path, path,
			 strerror(error));
		return;
	}
	if (holder_of(lock) > 0)
		snprintf(pid, sizeof(pid), ", process %ld", holder_of(lock));
	snprintf(why, SOCKET_WHY_MAX,
		 "unix:%s is served by another bridged%s (it holds %s): stop that one, or choose another path",
		 socket_path, pid, path);
}

/* Whether an open lock file is still the one at its path. */
static bool is_current(int lock, const char *path)
{
	struct stat held, there;

	return fstat(lock, &held) == 0 && stat(path, &there) == 0 && held.st_ino == there.st_ino &&
	       held.st_dev == there.st_dev;
}

/* Opens and locks a socket's lock file; -1 and `why`. */
static int take_lock(const char *socket_path, char why[SOCKET_WHY_MAX])
{
	char path[LOCK_PATH_MAX];

	lock_path(path, socket_path);
	for (;;) {
		int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (lock == -1 || flock(lock, LOCK_EX | LOCK_NB) != 0) {
			explain_lock(socket_path, path, lock, errno, why);
			if (lock != -1)
				close(lock);
			return -1;
		}
		if (is_current(lock, path)) {
			if (ftruncate(lock, 0) == 0)
				dprintf(lock, "%d\n", getpid());
			return lock;
		}
		close(lock);
	}
}

/* Whether somebody answers at a socket. Errors other than a refusal count as an answer: better refuse than take away. */
static bool answers(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return true;
	memcpy(address.sun_path, path, strlen(path) + 1);
	bool refused = connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 &&
		       (errno == ECONNREFUSED || errno == ENOENT);
	close(fd);
	return !refused;
}

/* Removes what is left at a path, if nobody answers there. */
static bool clear_path(const char *path, char why[SOCKET_WHY_MAX])
{
	struct stat status;

	if (lstat(path, &status) != 0) {
		if (errno == ENOENT)
			return true;
		snprintf(why, SOCKET_WHY_MAX, "unix:%s: %s", path, strerror(errno));
		return false;
	}
	if (!S_ISSOCK(status.st_mode)) {
		snprintf(why, SOCKET_WHY_MAX,
			 "unix:%s: there is a file that is no socket: remove it, or choose another path", path);
		return false;
	}
	if (answers(path)) {
		snprintf(why, SOCKET_WHY_MAX,
			 "unix:%s: another program is listening there: stop that one, or choose another path", path);
		return false;
	}
	if (unlink(path) != 0) {
		snprintf(why, SOCKET_WHY_MAX, "unix:%s: a stale socket cannot be removed: %s", path, strerror(errno));
		return false;
	}
	log_info("removed the stale socket %s", path);
	return true;
}

/* Takes one path. */
static bool claim_path(struct socket_claims *claims, const char *path, char why[SOCKET_WHY_MAX])
{
	char file[LOCK_PATH_MAX];
	int lock = take_lock(path, why);

	if (lock == -1)
		return false;
	if (!clear_path(path, why)) {
		lock_path(file, path);
		unlink(file);
		close(lock);
		return false;
	}
	claims->claim[claims->count].path = path;
	claims->claim[claims->count++].lock = lock;
	return true;
}

bool sockets_claim(struct socket_claims *claims, const struct config *config, char why[SOCKET_WHY_MAX])
{
	bool claimed = true;

	*claims = (struct socket_claims){0};
	for (uint32_t i = 0; claimed && i < config->listen_count; i++) {
		if (strncmp(config->listen[i], "unix:", 5) == 0)
			claimed = claim_path(claims, config->listen[i] + 5, why);
	}
	if (claimed && config->stats != NULL)
		claimed = claim_path(claims, config->stats, why);
	if (!claimed)
		sockets_release(claims);
	return claimed;
}

void sockets_release(struct socket_claims *claims)
{
	char path[LOCK_PATH_MAX];

	for (size_t i = 0; i < claims->count; i++) {
		unlink(claims->claim[i].path);
		lock_path(path, claims->claim[i].path);
		unlink(path);
		close(claims->claim[i].lock);
	}
	claims->count = 0;
}
