/* What each command of the stats socket shows: one function per line of stats_commands.def. */
#ifndef SERVER_STATS_VIEWS_H
#define SERVER_STATS_VIEWS_H

#include "server/stats_report.h"
#include "server/sup.h"

/* `argument` is the word behind the command, or empty. */
#define STATS_COMMAND(name, help)                                                                                      \
	void stats_view_##name(const struct supervisor *supervisor, struct report *report, const char *argument);
#include "server/stats_commands.def"

#endif
