/*
 * bridged: the sidecar's main. Configuration, descriptor, memory budget, sockets and memories in this order; then the
 * supervisor forks front and workers and stays until the end.
 *
 * Exit codes: 0 stopped in order (or --check found nothing), 1 the start failed, 2 misused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/sidecar.h"
#include "server/sup.h"

/* Reads and checks what is to be served. Returns -1 to go on, else the exit code. */
static int prepare(struct sidecar *sidecar)
{
	struct findings findings = {0};
	struct budget budget;

	if (!sidecar_load(sidecar, NULL))
		return 1;
	if (sidecar_check(sidecar, &budget, &findings))
		return -1;
	findings_print(&findings, "bridged: ", stderr);
	budget_print(&budget, stderr);
	findings_deinit(&findings);
	return 2;
}

/* Says where the sidecar can be reached from other machines, which know neither encryption nor a password. */
static void warn_of_exposure(const struct config *config)
{
	const char *why;
	bool exposed;

	for (uint32_t i = 0; i < config->listen_count; i++) {
		free(config_address(config->listen[i], &why, &exposed));
		if (exposed)
			log_warn("%s can be reached from other machines, and there is no TLS: anybody there may send "
				 "records",
				 config->listen[i]);
	}
}

/* Says to workers' libraries, by the environment, what flags are theirs. Whether that can be is the library's to say. */
static void tell_libraries(const struct config *config)
{
	bool told = true;

	if (config->library_path != NULL)
		told &= setenv("FLINK_BRIDGE_LIBRARY_PATH", config->library_path, 1) == 0;
	if (config->python_path != NULL)
		told &= setenv("FLINK_BRIDGE_PYTHON_PATH", config->python_path, 1) == 0;
	if (config->python_venv != NULL)
		told &= setenv("FLINK_BRIDGE_PYTHON_VENV", config->python_venv, 1) == 0;
	if (!told)
		fatal("the environment cannot be set");
}

/* The exit code, unless what was to be printed did not get out: an empty report must not pass for a good one. */
static int told(int code)
{
	bool failed = ferror(stdout) != 0;
	if (fflush(stdout) == 0 && !failed)
		return code;
	fprintf(stderr, "bridged: standard output cannot be written: %s\n", strerror(errno));
	return code != 0 ? code : 1;
}

int main(int argc, char **argv)
{
	static struct sidecar sidecar;
	static const struct roles roles = {.front = front_main, .worker = worker_main, .template = template_main};
	struct socket_claims claims;
	bool check_only;

	int code = config_parse(&sidecar.config, argc, argv, &check_only);
	if (code >= 0)
		return told(code);
	log_init("supervisor", sidecar.config.log_level);
	tell_libraries(&sidecar.config);
	if (check_only)
		return told(sidecar_report_check(&sidecar));
	code = prepare(&sidecar);
	if (code >= 0)
		return code;
	warn_of_exposure(&sidecar.config);
	if (!sidecar_create(&sidecar, &claims))
		return 1;
	code = supervisor_run(&sidecar, &roles);
	sidecar_destroy(&sidecar, &claims);
	return code;
}
