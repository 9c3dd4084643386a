/*
 * The stats socket: a Unix stream socket that takes commands by line and answers each, as text or as JSON. It is served by
 * the supervisor out of shared counters alone, and so answers when front and workers hang.
 *
 *   stats_server.c     the socket: clients, lines, buffers
 *   stats_commands.def the commands
 *   stats_commands.c   finds a command and answers it
 *   stats_views.c      what commands show: of the sidecar itself,
 *   stats_counters.c       of counters, segments and metrics,
 *   stats_processes.c      of slots, their processes and deaths,
 *   stats_sessions.c       of sessions and what they remember
 *   stats_actions.c    what those that change something do
 *   stats_report.c     how it is shown: as text or as JSON
 */
#ifndef SERVER_STATS_H
#define SERVER_STATS_H

#include "server/sup.h"

struct stats_server;

/* Listens on a path (whose lock is held, and which nothing is left on). A client that has not read any of its answer for
 * `patience_ms` is dropped. NULL with errno when that cannot be. */
struct stats_server *stats_server_create(struct supervisor *supervisor, const char *path, uint64_t patience_ms);

/* Ends all connections and stops listening; the socket's file is left. */
void stats_server_destroy(struct stats_server *server);

/* The descriptor to wait on: readable when stats_server_turn has something to do. */
int stats_server_fd(const struct stats_server *server);

/* Does what can be done without waiting. */
void stats_server_turn(struct stats_server *server);

/* When stats_server_turn wants to be called at the latest (CLOCK_MONOTONIC, ns); 0: no such time. */
uint64_t stats_server_due(const struct stats_server *server);

/* Answers one command line (without its line break) into a stream. */
void stats_answer(struct supervisor *supervisor, const char *line, FILE *out);

#endif
