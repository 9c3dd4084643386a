/*
 * bridged --check: flags, descriptor, programs, memory, all without starting anything that stays.
 *
 * The pipeline's programs are compiled as a worker would, in a process that is forked for it and watched: the supervisor's
 * own binary path never runs a pipeline's code, and a program that hangs or crashes its compiler is a finding.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/launcher.h"
#include "server/sidecar.h"
#include "shared/json.h"
#include "worker/chain.h"

enum { PROBE_TEXT_MAX = 1 << 16 };

int sidecar_probe_chains(const struct descriptor *descriptor, int out)
{
	int failed = 0;

	for (size_t i = 0; i < descriptor->segment_count; i++) {
		const struct segment *segment = &descriptor->segments[i];
		struct failure failure = {0};
		struct chain *chain = chain_create(segment, NULL, NULL, &failure);
		if (chain != NULL) {
			chain_destroy(chain);
			continue;
		}
		const char *step = failure.step < segment->step_count ? segment->steps[failure.step].name : "?";
		for (char *at = failure.message; *at != '\0'; at++)
			*at = *at == '\n' ? ' ' : *at;
		dprintf(out, "segment \"%s\", step \"%s\": %s\n", segment->name, step, failure.message);
		failed = 1;
	}
	return failed;
}

/* The same, as launcher_start_probe takes it. */
static int probe_chains(void *context, int out)
{
	return sidecar_probe_chains(context, out);
}

/* Reads all that the probe writes, for as long as it may take. False when its time was up. */
static bool read_probe(int in, char text[PROBE_TEXT_MAX], uint64_t timeout_ms)
{
	uint64_t end = clock_ns() + timeout_ms * 1000000;
	size_t used = 0;
	ssize_t got = 1;

	while (got > 0 && used + 1 < PROBE_TEXT_MAX) {
		uint64_t now = clock_ns();
		struct pollfd wait = {.fd = in, .events = POLLIN};
		if (now >= end || poll(&wait, 1, (int)((end - now) / 1000000 + 1)) == 0)
			break;
		got = read(in, text + used, PROBE_TEXT_MAX - 1 - used);
		used += got > 0 ? (size_t)got : 0;
	}
	text[used] = '\0';
	return got <= 0;
}

/* Turns what the probe said, and how it ended, into findings. */
static void judge_probe(char *text, bool in_time, const siginfo_t *end, struct findings *findings)
{
	char *rest = NULL;

	for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
		findings_add(findings, "%s", line);
	if (!in_time)
		findings_add(findings, "the pipeline's programs were not compiled in time (--start-timeout)");
	else if (end->si_code != CLD_EXITED)
		findings_add(findings, "compiling the pipeline's programs ended with signal %d (%s)", end->si_status,
			     strsignal(end->si_status));
}

/* Compiles all programs in a process of their own. */
static void check_chains(const struct sidecar *sidecar, struct findings *findings)
{
	static char text[PROBE_TEXT_MAX];
	struct launched probe;
	siginfo_t end = {0};
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0 ||
	    launcher_start_probe(&probe, probe_chains, (void *)sidecar->descriptor, ends[1]) != 0) {
		findings_add(findings, "the pipeline's programs cannot be checked: %s", strerror(errno));
		return;
	}
	close(ends[1]);
	bool in_time = read_probe(ends[0], text, sidecar->config.start_timeout_ms);
	if (!in_time)
		kill(probe.pid, SIGKILL);
	waitid(P_PIDFD, (id_t)probe.pidfd, &end, WEXITED);
	close(ends[0]);
	close(probe.pidfd);
	judge_probe(text, in_time, &end, findings);
}

/* Prints the verdict for people. */
static void print_verdict(const struct sidecar *sidecar, const struct budget *budget, const struct findings *findings)
{
	const struct descriptor *descriptor = sidecar->descriptor;

	printf("pipeline \"%s\": %zu segments, %u steps, topology %s\n\n", descriptor->pipeline,
	       descriptor->segment_count, descriptor->step_count, descriptor->topology_hash);
	budget_print(budget, stdout);
	fflush(stdout);
	if (findings->count == 0)
		printf("\nall is well: `bridged` would start\n");
	else
		findings_print(findings, "bridged: ", stderr);
}

int sidecar_report_check(struct sidecar *sidecar)
{
	struct findings programs = {0}, flags = {0};
	struct budget budget;
	struct json json;
	bool as_json = sidecar->config.json;
	int code = 1;

	json_init(&json, stdout);
	if (as_json)
		json_open_object(&json, NULL);
	if (sidecar_load(sidecar, as_json ? &json : NULL)) {
		sidecar_check(sidecar, &budget, &flags);
		check_chains(sidecar, &programs);
		code = flags.count > 0 ? 2 : programs.count > 0 ? 1 : 0;
		if (as_json) {
			json_text(&json, "pipeline", sidecar->descriptor->pipeline);
			budget_json(&budget, "budget", &json);
		}
		for (size_t i = 0; i < programs.count; i++)
			findings_add(&flags, "%s", programs.text[i]);
		if (!as_json)
			print_verdict(sidecar, &budget, &flags);
	}
	if (as_json) {
		findings_json(&flags, "findings", &json);
		json_bool(&json, "ok", code == 0);
		json_close_object(&json);
		putchar('\n');
	}
	findings_deinit(&flags);
	findings_deinit(&programs);
	return code;
}
