/* Making a sidecar out of its configuration (sidecar.h). */
#include "server/sidecar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "descriptor/diagnostics.h"
#include "shared/json.h"

/* Writes diagnostics as a value of an object: their own printer ends with a line break, which has no place there. */
static void diagnostics_value(const struct diagnostics *diagnostics, struct json *json)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (out == NULL)
		fatal("no memory for the report");
	diagnostics_print_json(diagnostics, out);
	fclose(out);
	json_key(json, "diagnostics");
	fprintf(json->out, "%.*s", (int)strcspn(text, "\n"), text);
	free(text);
}

bool sidecar_load(struct sidecar *sidecar, struct json *json)
{
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	sidecar->descriptor = descriptor_load(sidecar->config.descriptor, &diagnostics);
	if (json == NULL && diagnostics.count > 0) {
		diagnostics_print(&diagnostics, stderr, isatty(STDERR_FILENO));
	} else if (json != NULL) {
		diagnostics_value(&diagnostics, json);
	}
	diagnostics_free(&diagnostics);
	return sidecar->descriptor != NULL;
}

bool sidecar_check(struct sidecar *sidecar, struct budget *budget, struct findings *findings)
{
	config_complete(&sidecar->config, sidecar->descriptor->segment_count, findings);
	budget_compute(budget, &sidecar->config, sidecar->descriptor);
	budget_find_limit(budget, &sidecar->config, "");
	budget_check(budget, &sidecar->config, findings);
	return findings->count == 0;
}

/* Lets this process, and all that it forks, have as many descriptors as it may. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		log_warn("the limit of open files stays where it is: %s", strerror(errno));
}

/* Makes the memories of all slots. */
static bool create_slots(struct sidecar *sidecar)
{
	struct slot_sizes sizes = config_slot_sizes(&sidecar->config);

	for (uint32_t i = 0; i < sidecar->config.slots; i++) {
		if (slot_memory_create(&sidecar->slots[i], i, &sizes) == 0)
			continue;
		log_error("cannot start: no memory for slot %u: %s", i, strerror(errno));
		while (i-- > 0)
			slot_memory_destroy(&sidecar->slots[i]);
		return false;
	}
	return true;
}

bool sidecar_create(struct sidecar *sidecar, struct socket_claims *claims)
{
	const struct descriptor *descriptor = sidecar->descriptor;
	char why[SOCKET_WHY_MAX];

	raise_descriptor_limit();
	if (!sockets_claim(claims, &sidecar->config, why)) {
		log_error("cannot start: %s", why);
		return false;
	}
	if (control_create(&sidecar->control, sidecar->config.slots, (uint32_t)descriptor->segment_count,
			   descriptor->step_count) != 0) {
		log_error("cannot start: no control memory: %s", strerror(errno));
	} else if (create_slots(sidecar)) {
		return true;
	} else {
		control_destroy(&sidecar->control);
	}
	sockets_release(claims);
	return false;
}

void sidecar_destroy(struct sidecar *sidecar, struct socket_claims *claims)
{
	for (uint32_t i = 0; i < sidecar->config.slots; i++)
		slot_memory_destroy(&sidecar->slots[i]);
	control_destroy(&sidecar->control);
	sockets_release(claims);
}
