/*
 * Where clients come in: the listening sockets, and the thread that accepts (front.h).
 *
 * gRPC could listen by itself, but it has no setting for the buffers of a socket, which decide in how many pieces a large message
 * moves, and a listener of libgrpc 1.51 that could not accept once, for want of a descriptor, never accepts again.
 *
 * The thread owns the listening sockets and those who have connected and said nothing yet. With its first bytes a connection becomes
 * gRPC's; until then it costs a descriptor and a line in a table that is as long as it may get, and who stays silent is let go.
 *
 *   listening --accept--> silent --first bytes--> gRPC's
 *                           `---- SILENT_MS, or the table is full and it is the oldest ----> closed
 */
#include <errno.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/front.h"
#include "shared/log.h"

enum {
	BACKLOG = 4096,         /* the kernel's own bound holds as well */
	LISTENERS_MAX = 32,     /* a name may have several addresses */
	SILENT_MAX = 1024,      /* connections without a byte */
	SILENT_MS = 20000,      /* how long they may be so */
	WAIT_MS = 100,          /* before the next try to accept, when descriptors are out */
	SOCKET_BYTES = 1 << 20, /* of a Unix socket's send buffer: a message should move in one piece */
	EVENTS = 64
};

/* What an epoll event is about: its number in `data`. */
enum { ABOUT_STOP = -1, ABOUT_LISTENER = 0, ABOUT_SILENT = LISTENERS_MAX };

struct silent {
	int fd; /* -1: the place is free */
	uint64_t since_ns;
};

struct doors {
	grpc_server *server;
	grpc_server_credentials *credentials;
	int epoll, stop;
	int listeners[LISTENERS_MAX];
	bool is_unix[LISTENERS_MAX];
	uint32_t listener_count;
	uint64_t muted_until_ns; /* descriptors are out: nobody is accepted until then; 0: they are not */
	bool complain;           /* the next time that they are out is worth a line */
	struct silent silent[SILENT_MAX];
	uint32_t silent_count;
};

/* ---- Listening ---- */

/* Adds a descriptor to those that wake the thread; false and errno. */
static bool watch(struct doors *doors, int fd, int about)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(int64_t)about};
	return epoll_ctl(doors->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Binds one address and listens on it; false and errno. */
static bool listen_on(struct doors *doors, int family, const struct sockaddr *address, socklen_t size)
{
	int one = 1;
	if (doors->listener_count == LISTENERS_MAX) {
		errno = ENOBUFS;
		return false;
	}
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	if (family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, address, size) != 0 || listen(fd, BACKLOG) != 0 ||
	    !watch(doors, fd, ABOUT_LISTENER + (int)doors->listener_count)) {
		int error = errno;
		close(fd);
		errno = error;
		return false;
	}
	doors->is_unix[doors->listener_count] = family == AF_UNIX;
	doors->listeners[doors->listener_count++] = fd;
	return true;
}

/* Listens on a Unix socket; NULL, or why not. */
static const char *listen_unix(struct doors *doors, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path, path, strlen(path) + 1); /* the configuration has looked at its length */
	unlink(path); /* the supervisor holds its lock: whatever lies there is stale */
	return listen_on(doors, AF_UNIX, (struct sockaddr *)&address, sizeof address) ? NULL : strerror(errno);
}

/* Listens on all addresses that host:port or [v6]:port stands for; NULL, or why not. Of a name with several, those of a family that
 * this machine does not have are passed over. */
static const char *listen_tcp(struct doors *doors, const char *text)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
	char host[256];
	const char *colon = strrchr(text, ':'), *why = NULL;
	bool bracketed = text[0] == '[', any = false, absent = true;

	snprintf(host, sizeof host, "%.*s", (int)(colon - text) - 2 * bracketed, text + bracketed);
	int error = getaddrinfo(host, colon + 1, &hints, &found);
	if (error != 0)
		return error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
	for (struct addrinfo *at = found; at && absent; at = at->ai_next) {
		if (listen_on(doors, at->ai_family, at->ai_addr, at->ai_addrlen)) {
			any = true;
			continue;
		}
		why = strerror(errno);
		absent = errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT;
	}
	freeaddrinfo(found);
	return any && absent ? NULL : why;
}

const char *doors_open(struct front *front, const char **address)
{
	struct doors *doors = calloc(1, sizeof *doors);
	const char *why = NULL;

	CHECK(doors != NULL);
	front->doors = doors;
	doors->server = front->server;
	doors->complain = true;
	doors->credentials = grpc_insecure_server_credentials_create();
	doors->epoll = epoll_create1(EPOLL_CLOEXEC);
	doors->stop = eventfd(0, EFD_CLOEXEC);
	if (doors->epoll < 0 || doors->stop < 0 || !watch(doors, doors->stop, ABOUT_STOP))
		fatal("the front cannot watch sockets: %s", strerror(errno));
	for (uint32_t i = 0; i < SILENT_MAX; i++)
		doors->silent[i].fd = -1;
	for (uint32_t i = 0; i < front->config->listen_count && !why; i++) {
		*address = front->config->listen[i];
		why =
		    strncmp(*address, "unix:", 5) == 0 ? listen_unix(doors, *address + 5) : listen_tcp(doors, *address);
	}
	return why;
}

/* ---- Those who have said nothing yet ---- */

/* Forgets a silent connection; its descriptor is the caller's. */
static int silent_take(struct doors *doors, uint32_t place)
{
	int fd = doors->silent[place].fd;
	epoll_ctl(doors->epoll, EPOLL_CTL_DEL, fd, NULL);
	doors->silent[place].fd = -1;
	doors->silent_count--;
	return fd;
}

/* The place of the one that has been silent for longest; SILENT_MAX: there is none. */
static uint32_t silent_oldest(const struct doors *doors)
{
	uint32_t oldest = SILENT_MAX;
	for (uint32_t i = 0; i < SILENT_MAX && doors->silent_count > 0; i++) {
		if (doors->silent[i].fd != -1 &&
		    (oldest == SILENT_MAX || doors->silent[i].since_ns < doors->silent[oldest].since_ns))
			oldest = i;
	}
	return oldest;
}

/* Keeps a connection until it says something; in the place of the oldest if there is no other. */
static void silent_add(struct doors *doors, int fd)
{
	uint32_t place = 0;
	if (doors->silent_count == SILENT_MAX)
		close(silent_take(doors, silent_oldest(doors)));
	while (doors->silent[place].fd != -1)
		place++;
	if (!watch(doors, fd, ABOUT_SILENT + (int)place)) {
		log_warn("a connection is refused, for it cannot be watched: %s", strerror(errno));
		close(fd);
		return;
	}
	doors->silent[place] = (struct silent){fd, clock_ns()};
	doors->silent_count++;
}

/* Closes those whose time is over. */
static void silent_end_late(struct doors *doors)
{
	uint64_t now_ns = clock_ns();
	for (;;) {
		uint32_t oldest = silent_oldest(doors);
		if (oldest == SILENT_MAX || now_ns - doors->silent[oldest].since_ns < SILENT_MS * UINT64_C(1000000))
			return;
		close(silent_take(doors, oldest));
	}
}

/* Gives a connection that has said something (or has gone, which gRPC finds out) to gRPC. */
static void silent_spoke(struct doors *doors, uint32_t place)
{
	grpc_server_add_channel_from_fd(doors->server, silent_take(doors, place), doors->credentials);
}

/* ---- Accepting ---- */

/* Whether accept failed because of what this machine lacks, which passes. */
static bool is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* Switches the listening sockets' events off while descriptors are out, and on again. */
static void listeners_mute(struct doors *doors, bool mute)
{
	doors->muted_until_ns = mute ? clock_ns() + WAIT_MS * UINT64_C(1000000) : 0;
	for (uint32_t i = 0; i < doors->listener_count; i++) {
		struct epoll_event event = {.events = mute ? 0 : EPOLLIN, .data.u64 = ABOUT_LISTENER + i};
		epoll_ctl(doors->epoll, EPOLL_CTL_MOD, doors->listeners[i], &event);
	}
}

/* Accepts nobody for a while, for descriptors are out. */
static void accept_later(struct doors *doors, int error)
{
	if (doors->complain)
		log_warn("cannot accept a connection, will try again: %s", strerror(error));
	doors->complain = false;
	listeners_mute(doors, true);
}

/* Takes in all who wait at a listening socket. */
static void accept_all(struct doors *doors, uint32_t listener)
{
	int one = 1, bytes = SOCKET_BYTES;
	while (doors->muted_until_ns == 0) {
		int fd = accept4(doors->listeners[listener], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (is_shortage(errno))
				accept_later(doors, errno);
			return;
		}
		doors->complain = true;
		if (doors->is_unix[listener])
			setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
		else
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		silent_add(doors, fd);
	}
}

/* How long to wait for an event, in ms: -1 for good. */
static int patience(const struct doors *doors)
{
	if (doors->muted_until_ns != 0)
		return WAIT_MS;
	return doors->silent_count > 0 ? SILENT_MS / 10 : -1;
}

/* Closes what listens, and those who have said nothing. */
static void doors_shut(struct doors *doors)
{
	for (uint32_t i = 0; i < doors->listener_count; i++)
		close(doors->listeners[i]);
	for (uint32_t i = 0; i < SILENT_MAX; i++) {
		if (doors->silent[i].fd != -1)
			close(silent_take(doors, i));
	}
}

/* Accepts until it is stopped. A thread of its own. */
static void *doors_thread(void *argument)
{
	struct doors *doors = argument;
	struct epoll_event events[EVENTS];
	for (;;) {
		int count = epoll_wait(doors->epoll, events, EVENTS, patience(doors));
		if (doors->muted_until_ns != 0 && clock_ns() >= doors->muted_until_ns)
			listeners_mute(doors, false);
		for (int i = 0; i < count; i++) {
			int64_t about = (int64_t)events[i].data.u64;
			if (about == ABOUT_STOP) {
				doors_shut(doors);
				return NULL;
			}
			if (about < ABOUT_SILENT)
				accept_all(doors, (uint32_t)(about - ABOUT_LISTENER));
			else if (doors->silent[about - ABOUT_SILENT].fd != -1)
				silent_spoke(doors, (uint32_t)(about - ABOUT_SILENT));
		}
		silent_end_late(doors);
	}
}

void doors_start(struct front *front)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, doors_thread, front->doors) != 0)
		fatal("cannot start the thread that accepts connections");
	pthread_detach(thread);
}

void doors_close(struct front *front)
{
	uint64_t one = 1;
	if (write(front->doors->stop, &one, sizeof one) != sizeof one)
		log_warn("the thread that accepts connections cannot be stopped: %s", strerror(errno));
}
