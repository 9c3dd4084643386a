/*
 * Services that a test case talks to: programs that are started before it and end with it.
 *
 * A service says that it is ready by a line on its standard output; words NAME=VALUE in that line become variables of the case, so that it
 * can choose a free port by itself.
 */
#ifndef CLI_KIT_SERVICE_H
#define CLI_KIT_SERVICE_H

#include <sys/types.h>

#include "cli/kit_case.h"

/* As many as the reader of cases lets through. */
enum { KIT_SERVICES_MAX = 16, KIT_SERVICE_WHY_MAX = 512 };

struct kit_services {
	struct {
		const char *name;
		pid_t pid;
		/* Who puts the rest of its standard output into the log, so that it never waits; 0: nobody yet. */
		pid_t reader;
	} list[KIT_SERVICES_MAX];
	size_t count;
	/* Variables that they have set, and what these were before (NULL: nothing). */
	struct {
		char *name, *before;
	} variables[64];
	size_t variable_count;
	char why[KIT_SERVICE_WHY_MAX]; /* one could not be started */
};

/* Starts the services of a case, in the folder of its file, and waits for each of them; what they write to standard error goes to `log`.
 * False: `why`. */
bool kit_services_start(struct kit_services *services, struct kit_file *file, const struct kit_case *kit, int log,
			uint64_t patience_ms);

/* Kills them, and all that is in their process groups; puts variables back. Once or more. */
void kit_services_stop(struct kit_services *services);

#endif
