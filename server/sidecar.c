/* Making a sidecar out of its configuration (sidecar.h). */
#include "server/sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include "descriptor/diagnostics.h"
#include "shared/json.h"
#include "shared/units.h"

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
	budget_fit_state(budget, &sidecar->config, sidecar->descriptor);
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

/* Lets go of it. */
static void close_state_dir(struct sidecar *sidecar)
{
	if (sidecar->state_dir >= 0)
		close(sidecar->state_dir);
	sidecar->state_dir = -1;
}

/* Says why a slot's memory could not be made. */
static void explain_memory(const struct sidecar *sidecar, uint32_t slot, int error)
{
	const struct config *config = &sidecar->config;
	char size[UNITS_TEXT_MAX];

	if (config->state_dir != NULL && (error == ENOSPC || error == EDQUOT || error == EFBIG))
		log_error("cannot start: %s has no room for the state of slot %u (%s): %s; each of the %u slots takes "
			  "that much there: make room, lower --state-memory, or choose another --state-dir",
			  config->state_dir, slot, size_rounded(size, config->state_memory), strerror(error),
			  config->slots);
	else
		log_error("cannot start: no memory for slot %u: %s", slot, strerror(error));
}

/* Makes the memories of all slots. */
static bool create_slots(struct sidecar *sidecar)
{
	struct slot_sizes sizes = config_slot_sizes(&sidecar->config);

	for (uint32_t i = 0; i < sidecar->config.slots; i++) {
		if (slot_memory_create(&sidecar->slots[i], i, &sizes, sidecar->state_dir) == 0)
			continue;
		explain_memory(sidecar, i, errno);
		while (i-- > 0)
			slot_memory_destroy(&sidecar->slots[i]);
		return false;
	}
	return true;
}

/* Takes the directory of state files: its lock says that no other sidecar keeps any there. */
static bool open_state_dir(struct sidecar *sidecar)
{
	const char *path = sidecar->config.state_dir;

	sidecar->state_dir = -1;
	if (path == NULL)
		return true;
	sidecar->state_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sidecar->state_dir >= 0 && flock(sidecar->state_dir, LOCK_EX | LOCK_NB) == 0)
		return true;
	if (sidecar->state_dir >= 0 && errno == EWOULDBLOCK)
		log_error("cannot start: another bridged keeps its state in %s: stop that one, or choose another "
			  "--state-dir",
			  path);
	else
		log_error("cannot start: --state-dir %s cannot be used: %s; it must be a directory that this process "
			  "may write to",
			  path, strerror(errno));
	close_state_dir(sidecar);
	return false;
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
	if (!open_state_dir(sidecar)) {
		sockets_release(claims);
		return false;
	}
	if (control_create(&sidecar->control, sidecar->config.slots, (uint32_t)descriptor->segment_count,
			   descriptor->step_count + STEPS_SPARE) != 0) {
		log_error("cannot start: no control memory: %s", strerror(errno));
	} else if (create_slots(sidecar)) {
		return true;
	} else {
		control_destroy(&sidecar->control);
	}
	close_state_dir(sidecar);
	sockets_release(claims);
	return false;
}

void sidecar_destroy(struct sidecar *sidecar, struct socket_claims *claims)
{
	for (uint32_t i = 0; i < sidecar->config.slots; i++)
		slot_memory_destroy(&sidecar->slots[i]);
	control_destroy(&sidecar->control);
	close_state_dir(sidecar);
	sockets_release(claims);
}
