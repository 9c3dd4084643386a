/*
 * The stats socket's server (stats.h).
 *
 * Any process of this machine that may open the socket may connect, so everything is bounded: so many clients, so long a
 * line, one answer at a time per client (no further line is taken until it has been read), and so much patience with one
 * that does not read. Nothing blocks: what a socket does not take now waits in the client's buffer.
 *
 * The server has an epoll of its own, whose descriptor the supervisor's loop watches as one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/stats.h"

enum {
	CLIENTS_MAX = 64,
	LINE_MAX_BYTES = 4352, /* a path, and a command before it */
	ANSWERS_PER_TURN = 8,  /* to one client: the supervisor has more to do than to answer one that never stops */
};

struct client {
	int fd; /* -1: free */
	char line[LINE_MAX_BYTES];
	size_t line_used;
	bool input_over; /* it will send nothing more */
	char *answer;    /* NULL: none is waiting */
	size_t answer_size, answer_sent;
	uint64_t stuck_since_ns; /* when the answer last moved */
	uint32_t interest;       /* what its descriptor is watched for */
};

struct stats_server {
	struct supervisor *supervisor;
	int listener, epoll;
	uint64_t patience_ns; /* with a client that does not read its answer */
	struct client clients[CLIENTS_MAX];
};

/* ---- Clients ---- */

/* Ends a connection. */
static void client_close(struct stats_server *server, struct client *client)
{
	epoll_ctl(server->epoll, EPOLL_CTL_DEL, client->fd, NULL);
	close(client->fd);
	free(client->answer);
	*client = (struct client){.fd = -1};
}

/* Watches a client for what it is waiting for: room for its answer, its next line, or (with `more` to be answered, for
 * which there is room) its next turn. */
static void client_watch(struct stats_server *server, struct client *client, bool more)
{
	uint32_t interest = client->answer != NULL || more ? EPOLLOUT : EPOLLIN;
	struct epoll_event event = {.events = interest, .data.ptr = client};

	if (interest == client->interest)
		return;
	CHECK(epoll_ctl(server->epoll, client->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client->fd, &event) == 0);
	client->interest = interest;
}

/* Sends as much of the answer as the socket takes. False when the client is gone. */
static bool client_send(struct client *client)
{
	while (client->answer != NULL) {
		ssize_t sent = send(client->fd, client->answer + client->answer_sent,
				    client->answer_size - client->answer_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		client->stuck_since_ns = clock_ns();
		client->answer_sent += (size_t)sent;
		if (client->answer_sent == client->answer_size) {
			free(client->answer);
			client->answer = NULL;
		}
	}
	return true;
}

/* Works an answer out: of what there is now, for whoever asks may have been served already by an owner that is not noted yet. False when
 * there is no memory for it. */
static bool client_answer(struct stats_server *server, struct client *client, const char *line)
{
	FILE *out = open_memstream(&client->answer, &client->answer_size);

	if (out == NULL)
		return false;
	for (uint32_t i = 0; i < server->supervisor->keeper_count; i++)
		keeper_see(server->supervisor, &server->supervisor->keepers[i]);
	stats_answer(server->supervisor, line, out);
	counter_add(&server->supervisor->sidecar->control.control->counters.stats_requests, 1);
	client->answer_sent = 0;
	client->stuck_since_ns = clock_ns();
	return fclose(out) == 0;
}

/* Takes the first line out of the buffer, if there is a whole one (or a last one). False when there is none. */
static bool take_line(struct client *client, char line[LINE_MAX_BYTES + 1])
{
	char *end = memchr(client->line, '\n', client->line_used);
	size_t length = end != NULL ? (size_t)(end - client->line) : client->line_used, whole = length + (end != NULL);

	if (end == NULL && client->line_used < LINE_MAX_BYTES && !(client->input_over && client->line_used > 0))
		return false;
	memcpy(line, client->line, length);
	line[length] = '\0';
	if (memchr(line, '\0', length) != NULL)
		strcpy(line, "(binary)");
	memmove(client->line, client->line + whole, client->line_used - whole);
	client->line_used -= whole;
	return true;
}

/* Reads what there is. False when the client is gone. */
static bool client_receive(struct client *client)
{
	while (!client->input_over && client->line_used < LINE_MAX_BYTES) {
		ssize_t got = recv(client->fd, client->line + client->line_used, LINE_MAX_BYTES - client->line_used,
				   MSG_DONTWAIT);
		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		if (got == 0)
			client->input_over = true;
		client->line_used += (size_t)got;
	}
	return true;
}

/* Moves one client on: send, receive, answer, again, as far as it goes and its share of the turn lasts. */
static void client_turn(struct stats_server *server, struct client *client)
{
	char line[LINE_MAX_BYTES + 1];
	int share = ANSWERS_PER_TURN;

	for (; share > 0; share--) {
		if (!client_send(client) || (client->answer == NULL && !client_receive(client))) {
			client_close(server, client);
			return;
		}
		if (client->answer != NULL || !take_line(client, line))
			break;
		if (!client_answer(server, client, line)) {
			client_close(server, client);
			return;
		}
	}
	if (client->answer == NULL && client->input_over && share > 0)
		client_close(server, client);
	else
		client_watch(server, client, share == 0);
}

/* ---- The server ---- */

/* Takes one connection. The next has its turn when those who have left in between are seen to have. */
static void accept_one(struct stats_server *server)
{
	static const char full[] = "error: too many connections to the stats socket; close one\n";
	struct client *client = NULL;
	int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	for (size_t i = 0; client == NULL && i < CLIENTS_MAX; i++)
		client = server->clients[i].fd == -1 ? &server->clients[i] : NULL;
	if (client == NULL) {
		send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
		return;
	}
	*client = (struct client){.fd = fd};
	client_turn(server, client);
}

void stats_server_turn(struct stats_server *server)
{
	struct epoll_event events[CLIENTS_MAX + 1];
	int count = epoll_wait(server->epoll, events, CLIENTS_MAX + 1, 0);
	uint64_t now = clock_ns();
	bool somebody_waits = false;

	for (int i = 0; i < count; i++) {
		struct client *client = events[i].data.ptr;
		somebody_waits |= client == NULL;
		if (client != NULL && client->fd != -1)
			client_turn(server, client);
	}
	if (somebody_waits) /* last: those who have left make room */
		accept_one(server);
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *client = &server->clients[i];
		if (client->fd != -1 && client->answer != NULL && now > client->stuck_since_ns + server->patience_ns) {
			log_debug("a client of the stats socket does not read its answer; it is dropped");
			client_close(server, client);
		}
	}
}

uint64_t stats_server_due(const struct stats_server *server)
{
	uint64_t due = 0;

	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		const struct client *client = &server->clients[i];
		uint64_t end = client->stuck_since_ns + server->patience_ns + 1;
		if (client->fd != -1 && client->answer != NULL && (due == 0 || end < due))
			due = end;
	}
	return due;
}

int stats_server_fd(const struct stats_server *server)
{
	return server->epoll;
}

/* Binds and listens. */
static int listen_on(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	CHECK(strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (fd != -1 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, SOMAXCONN) == 0)
		return fd;
	int error = errno;
	if (fd != -1)
		close(fd);
	errno = error;
	return -1;
}

struct stats_server *stats_server_create(struct supervisor *supervisor, const char *path, uint64_t patience_ms)
{
	struct stats_server *server = calloc(1, sizeof(*server));
	struct epoll_event event = {.events = EPOLLIN};

	if (server == NULL)
		return NULL;
	server->supervisor = supervisor;
	server->patience_ns = patience_ms * 1000000;
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		server->clients[i].fd = -1;
	server->listener = listen_on(path);
	server->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (server->listener != -1 && server->epoll != -1 &&
	    epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listener, &event) == 0)
		return server;
	int error = errno;
	stats_server_destroy(server);
	errno = error;
	return NULL;
}

void stats_server_destroy(struct stats_server *server)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		if (server->clients[i].fd != -1)
			client_close(server, &server->clients[i]);
	}
	if (server->listener != -1)
		close(server->listener);
	if (server->epoll != -1)
		close(server->epoll);
	free(server);
}
