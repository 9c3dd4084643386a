/* When to start a dead process again (sup_policy.h). */
#include "server/sup_policy.h"

uint64_t restart_delay(struct restart_history *history, struct restart_death death, uint64_t delay_ms,
		       uint64_t delay_max_ms)
{
	uint64_t delay = delay_ms;
	uint32_t forgiven = death.took_over ? RESTART_FREE_TAKEOVERS : 0;

	if (death.ordered || death.worked) {
		*history = (struct restart_history){0};
		return 0;
	}
	if (death.outside && history->kills < RESTART_FREE_KILLS) {
		history->kills++;
		return 0;
	}
	if (death.lived_ms >= delay_max_ms)
		*history = (struct restart_history){0};
	history->early_owners += death.took_over;
	if (history->early_deaths++ < forgiven)
		return 0;
	for (uint32_t i = forgiven + 1; i < history->early_deaths && delay < delay_max_ms; i++)
		delay *= 2;
	return delay < delay_max_ms ? delay : delay_max_ms;
}

bool restart_gives_up(const struct restart_history *history)
{
	return history->early_owners >= RESTART_TAKEOVERS_MAX;
}
