/*
 * The template process of a generation of code (server/template.h): loads the modules of all Python steps, one after the other as a
 * worker does, and opens nothing.
 *
 * The rest of what a worker loads is compiled by each by itself: programs take a millisecond, and native libraries may start threads when
 * they are loaded.
 */
#include <stdio.h>
#include <string.h>

#include "server/template.h"
#include "shared/log.h"
#include "worker/hosts/host.h"
#include "worker/memory.h"
#include "worker/worker.h"

/* Loads one step's code. Leaves, with words for the supervisor's log, when it fails or starts threads. */
static void load_step(const struct segment *segment, const struct step_spec *spec, int link)
{
	struct failure failure = {0};
	char why[1000], names[400];

	if (!host_load(segment, spec, &failure)) {
		snprintf(why, sizeof(why), "segment \"%s\" step \"%s\" cannot be opened in the template: %s",
			 segment->name, spec->name, failure.message);
		template_give_up(link, why);
	}
	uint32_t others = template_other_threads(host_fork);
	if (others == 0)
		return;
	host_name_threads(names, sizeof(names));
	snprintf(why, sizeof(why),
		 "segment \"%s\" step \"%s\": importing its module starts %u thread%s%s%s: start them in open()",
		 segment->name, spec->name, others, others == 1 ? "" : "s", names[0] == '\0' ? "" : ", ", names);
	template_give_up(link, why);
}

/* The template. */
void template_main(struct sidecar *sidecar, const struct roles *roles, int link)
{
	const struct descriptor *descriptor = sidecar->descriptor;

	memory_bound(sidecar->config.worker_memory);
	worker_set_patient(true);
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		const struct segment *segment = &descriptor->segments[i];
		for (size_t j = 0; j < segment->step_count; j++) {
			if (step_is_python(&segment->steps[j]))
				load_step(segment, &segment->steps[j], link);
		}
	}
	host_settle();
	template_serve(sidecar, roles, link, host_fork);
}
