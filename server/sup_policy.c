/* When to start a dead process again (sup_policy.h). */
#include "server/sup_policy.h"

uint64_t restart_delay(struct restart_history *history, struct restart_death death, uint64_t delay_ms,
		       uint64_t delay_max_ms)
{
	uint64_t delay = delay_ms;

	if (death.ordered || death.worked) {
		history->early_deaths = 0;
		return 0;
	}
	if (death.lived_ms >= delay_max_ms)
		history->early_deaths = 0;
	for (uint32_t i = 0; i < history->early_deaths && delay < delay_max_ms; i++)
		delay *= 2;
	history->early_deaths++;
	return delay < delay_max_ms ? delay : delay_max_ms;
}
