/* What the commands of the stats socket do that change something (stats_views.h). Each answers at once; what takes longer is looked
 * at with another command. */
#include <inttypes.h>

#include "server/stats_views.h"
#include "shared/units.h"

/* Whether the sidecar serves; says so when it does not. */
static bool is_serving(const struct supervisor *supervisor, struct report *report)
{
	if (supervisor->phase == PHASE_SERVING)
		return true;
	stats_error(report, "the sidecar is %s", supervisor->phase == PHASE_STARTING ? "still starting" : "stopping");
	return false;
}

void stats_action_restart_worker(struct supervisor *supervisor, struct report *report, const char *argument)
{
	uint64_t slot;

	if (!is_serving(supervisor, report))
		return;
	if (!number_parse(argument, &slot) || slot >= supervisor->keeper_count) {
		stats_error(report, "\"%s\" is no slot: there are %u, counted from 0", argument,
			    supervisor->keeper_count);
		return;
	}
	struct keeper *keeper = &supervisor->keepers[slot];
	pid_t pid = keeper->owner == NULL ? 0 : keeper->owner->pid;
	if (!keeper_replace_owner(supervisor, keeper)) {
		stats_error(report, "slot %" PRIu64 " has no worker now that could leave; it is %s", slot,
			    keeper->owner == NULL ? "being taken over" : "leaving already");
		return;
	}
	log_info("worker %" PRIu64 " (pid %d) is restarted: somebody asked for it on the stats socket", slot, pid);
	report_number(report, "slot", slot, "");
	report_number(report, "leaving_pid", (uint64_t)pid, "");
}

void stats_action_drain(struct supervisor *supervisor, struct report *report, const char *argument)
{
	(void)argument;
	supervisor_drain(supervisor);
	report_text(report, "status", "DRAINING");
}

void stats_action_reload(struct supervisor *supervisor, struct report *report, const char *argument)
{
	char why[RELOAD_MESSAGE_MAX];

	if (!is_serving(supervisor, report))
		return;
	if (!reload_start(supervisor, argument[0] == '\0' ? supervisor->sidecar->config.descriptor : argument, why))
		stats_error(report, "%s", why);
	else
		stats_view_reloading(supervisor, report, "");
}
