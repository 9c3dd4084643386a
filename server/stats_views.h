/* What each command of the stats socket shows or does: one function per line of stats_commands.def. */
#ifndef SERVER_STATS_VIEWS_H
#define SERVER_STATS_VIEWS_H

#include "server/stats_report.h"
#include "server/sup.h"

/* `argument` is what stands behind the command, or empty. */
#define STATS_COMMAND(name, operand, help)                                                                             \
	void stats_view_##name(const struct supervisor *supervisor, struct report *report, const char *argument);
#define STATS_ACTION(name, operand, help)                                                                              \
	void stats_action_##name(struct supervisor *supervisor, struct report *report, const char *argument);
#include "server/stats_commands.def"

/* Lists all counters, for `help stats`. */
void stats_list_counters(struct report *report);

/* Answers that something could not be done: a line that begins with "error: ", or an object with `error`. */
void stats_error(struct report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
