/*
 * What the commands of the stats socket show of the sidecar itself: help, version, configuration, a reload, health (stats_views.h).
 */
#include "server/stats_views.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/stats_health.h"

/* ---- help, version, config ---- */

/* One row of the list of commands. */
static void show_command(struct report *report, const char *name, const char *argument, const char *help)
{
	char text[64];

	snprintf(text, sizeof(text), "%s%s%s", name, argument[0] == '\0' ? "" : " ", argument);
	report_row(report);
	report_text(report, "command", text);
	report_text(report, "answer", help);
	report_row_end(report);
}

void stats_view_help(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)supervisor;
	if (strcmp(argument, "stats") == 0) {
		stats_list_counters(report);
		return;
	}
	if (argument[0] != '\0') {
		stats_error(report, "\"help\" takes no word but stats and json");
		return;
	}
	report_table(report, "commands");
#define STATS_COMMAND(name, argument, help) show_command(report, #name, argument, help);
#define STATS_ACTION(name, argument, help) show_command(report, #name, argument, help);
#include "server/stats_commands.def"
	report_table_end(report);
	report_line(report, "With the word json a command answers with one line of JSON: \"slots json\".");
}

/* How long the sidecar has been running. */
static uint64_t uptime_ns(const struct supervisor *supervisor)
{
	return clock_ns() - supervisor->started_ns;
}

void stats_view_version(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct descriptor *descriptor = supervisor->sidecar->descriptor;

	(void)argument;
	report_text(report, "version", BRIDGE_VERSION);
	report_text(report, "pipeline", descriptor->pipeline);
	report_text(report, "topology_hash", descriptor->topology_hash);
	report_text(report, "descriptor", supervisor->sidecar->config.descriptor);
	report_number(report, "segments", descriptor->segment_count, "");
	report_number(report, "slots", supervisor->sidecar->config.slots, "");
	report_number(report, "supervisor_pid", (uint64_t)getpid(), "");
	report_number(report, "started_at_ms", supervisor->started_wall_ms, "ms since 1970");
	report_ns(report, "uptime_ns", uptime_ns(supervisor));
}

/* Writes one line of the configuration with a printer of config.h, as a cell. */
static void config_cell(struct report *report, const char *key, const struct supervisor *supervisor,
			const struct flag *flag,
			void (*print)(const struct config *config, const struct flag *flag, FILE *out))
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (out == NULL)
		fatal("no memory for a report");
	print(&supervisor->sidecar->config, flag, out);
	fclose(out);
	report_text(report, key, text);
	free(text);
}

void stats_view_config(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)argument;
	report_table(report, "flags");
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		if (config_flags[i].type == FLAG_TYPE_ACTION)
			continue;
		report_row(report);
		report_text(report, "flag", config_flags[i].name);
		config_cell(report, "value", supervisor, &config_flags[i], config_print_value);
		config_cell(report, "from", supervisor, &config_flags[i], config_print_origin);
		report_row_end(report);
	}
	report_table_end(report);
}

/* ---- reloading ---- */

void stats_view_reloading(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	const struct reload *reload = &supervisor->reload;

	(void)argument;
	report_text(report, "state", reload_state_name(reload->state));
	report_number(report, "code", supervisor->code, "");
	report_number(report, "slots_done", reload->slots_done, "");
	report_text(report, "descriptor", reload->path[0] == '\0' ? NULL : reload->path);
	report_text(report, "message", reload->message[0] == '\0' ? NULL : reload->message);
}

/* ---- health ---- */

/* One row for each process. */
static void show_process(const struct supervisor *supervisor, struct report *report, const struct child *child)
{
	char name[16];
	bool front = child->role == ROLE_FRONT;
	const struct keeper *keeper = front ? NULL : &supervisor->keepers[child->slot];
	const char *last_death = front ? child->last_death : child->announced ? keeper->last_death : "";

	report_row(report);
	report_text(report, "process", child_name(child, name));
	report_text(report, "state", health_state(supervisor, child));
	report_number(report, "pid", (uint64_t)child->pid, "");
	report_number(report, "number", child->number, "");
	report_ns(report, "age_ns", child->state == CHILD_DOWN ? 0 : clock_ns() - child->born_ns);
	report_ns(report, "heartbeat_age_ns", front ? health_front_silent_ns(supervisor) : 0);
	report_ns(report, "busy_ns", health_busy_ns(supervisor, child));
	report_bytes(report, "private_bytes", health_private_bytes(child));
	report_number(report, "restarts", front ? child->restarts : keeper->restarts, "");
	report_text(report, "last_death", last_death[0] == '\0' ? NULL : last_death);
	report_row_end(report);
}

void stats_view_health(const struct supervisor *supervisor, struct report *report, const char *argument)
{
	struct health health;

	(void)argument;
	health_judge(supervisor, &health);
	report_text(report, "status", health.status);
	report_bool(report, "healthy", strcmp(health.status, "SERVING") == 0);
	report_ns(report, "uptime_ns", uptime_ns(supervisor));
	if (report->as_json)
		report_open_list(report, "reasons");
	for (size_t i = 0; i < health.reason_count; i++)
		report_text(report, report->as_json ? NULL : "reason", health.reasons[i]);
	if (report->as_json)
		report_close_list(report);
	report_table(report, "processes");
	for (uint32_t i = 0; i < supervisor->child_count; i++) {
		if (supervisor->children[i].state != CHILD_DOWN || i == 0)
			show_process(supervisor, report, &supervisor->children[i]);
	}
	report_table_end(report);
}
