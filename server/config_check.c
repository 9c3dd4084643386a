/*
 * Cross-checks of the configuration (config_check.h). All findings are collected; each names the flags it is about and a
 * value that would do.
 */
#include "server/config_check.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/ring.h"
#include "shared/units.h"

enum {
	SPIN_US = 50,
	CORES_OF_OTHERS = 2, /* for the front and a client, beside one for each worker */
};

/* The smallest power of two whose ring carries a message. */
static uint64_t ring_for(uint64_t message)
{
	uint64_t size = 16384;

	while (ring_payload_max(size) < message)
		size *= 2;
	return size;
}

/* Works out or checks the size of one kind of ring. */
static void check_ring(uint64_t *ring, const char *ring_flag, uint64_t message, const char *message_flag,
		       struct findings *findings)
{
	char have[UNITS_TEXT_MAX], want[UNITS_TEXT_MAX], asked[UNITS_TEXT_MAX], carries[UNITS_TEXT_MAX];
	uint64_t least = ring_for(message);

	if (*ring == CONFIG_AUTO)
		*ring = least;
	if ((*ring & (*ring - 1)) != 0) {
		uint64_t above = least;
		while (above < *ring)
			above *= 2;
		findings_add(findings, "--%s: %s is not a power of two; say %s", ring_flag, size_exact(have, *ring),
			     size_exact(want, above));
	} else if (*ring < least) {
		findings_add(findings,
			     "--%s: a ring of %s carries messages of up to %s, and --%s is %s: raise --%s to %s, or "
			     "lower --%s to %s",
			     ring_flag, size_exact(have, *ring), size_exact(carries, ring_payload_max(*ring)),
			     message_flag, size_exact(asked, message), ring_flag, size_exact(want, least), message_flag,
			     carries);
	}
}

/* The record limit, within the message limit. */
static void check_record(struct config *config, struct findings *findings)
{
	char record[UNITS_TEXT_MAX], message[UNITS_TEXT_MAX];

	if (config->record_max == CONFIG_AUTO)
		config->record_max = config->message_max;
	if (config->record_max > config->message_max)
		findings_add(findings,
			     "--record-max: %s does not fit a message: lower it to --message-max (%s), or raise that",
			     size_exact(record, config->record_max), size_exact(message, config->message_max));
}

/* Addresses: at least one, none twice, and the stats socket on a path of its own. */
static void check_addresses(const struct config *config, struct findings *findings)
{
	const char *why;
	bool exposed;
	char *stats = NULL;

	if (config->listen_count == 0)
		findings_add(
		    findings,
		    "--listen: nowhere to listen; give at least one, such as --listen unix:/run/bridge/front.sock");
	for (uint32_t i = 0; i < config->listen_count; i++) {
		for (uint32_t j = 0; j < i; j++) {
			if (strcmp(config->listen[i], config->listen[j]) == 0)
				findings_add(findings, "--listen: %s is given twice", config->listen[i]);
		}
	}
	if (config->stats == NULL)
		return;
	if (asprintf(&stats, "unix:%s", config->stats) < 0)
		fatal("no memory for the configuration");
	char *address = config_address(stats, &why, &exposed);
	if (address == NULL)
		findings_add(findings, "--stats: \"%s\": %s", config->stats, why);
	for (uint32_t i = 0; address != NULL && i < config->listen_count; i++) {
		if (strcmp(address, config->listen[i]) == 0)
			findings_add(findings, "--stats: %s is already given to --listen; choose another path",
				     config->stats);
	}
	free(address);
	free(stats);
}

/* Restart delays in order; actions that go together. */
static void check_rest(const struct config *config, struct findings *findings)
{
	char low[UNITS_TEXT_MAX], high[UNITS_TEXT_MAX];

	if (config->restart_delay_ms > config->restart_delay_max_ms)
		findings_add(findings, "--restart-delay: %s is more than --restart-delay-max (%s): raise that",
			     duration_exact(low, config->restart_delay_ms * 1000),
			     duration_exact(high, config->restart_delay_max_ms * 1000));
	if (config->json && !config->check)
		findings_add(findings, "--json: goes with --check only; the stats socket answers in JSON by itself");
}

/* A directory for captures: there, and to be written to. */
static void check_capture(const struct config *config, struct findings *findings)
{
	struct stat status;

	if (config->capture == NULL)
		return;
	bool found = stat(config->capture, &status) == 0;
	if (found && !S_ISDIR(status.st_mode))
		findings_add(findings, "--capture: %s is no directory", config->capture);
	else if (!found || access(config->capture, W_OK | X_OK) != 0)
		findings_add(findings,
			     "--capture: %s cannot be used: %s; it must be a directory that this process may write to",
			     config->capture, strerror(errno));
	else if (strlen(config->capture) >= PATH_MAX)
		findings_add(findings, "--capture: the path is too long");
}

/* State memory: whole pages. */
static void check_state(struct config *config)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	config->state_memory_auto = config->state_memory == CONFIG_AUTO;
	if (config->state_memory_auto)
		config->state_memory = STATE_MEMORY_PLENTY;
	config->state_memory = (config->state_memory + page - 1) / page * page;
}

/* Decides who looks how long before sleeping, by the number of cores. A worker that looks on a core which the client or the
 * front has work for takes each message singly, where a sleeper finds several when it gets the core. The front looks even on a
 * machine with one core, for waking it takes a detour through its doorbell thread. */
static void resolve_spin(struct config *config)
{
	cpu_set_t set;
	unsigned cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : UINT_MAX;
	bool decided = config->spin_us != CONFIG_AUTO;

	if (!decided)
		config->spin_us = SPIN_US;
	config->worker_spin_us = decided || cores >= config->slots + CORES_OF_OTHERS ? config->spin_us : 0;
}

void config_check(struct config *config, struct findings *findings)
{
	if (config->descriptor == NULL)
		findings_add(findings, "--descriptor: which pipeline? Give the file that `bridgectl compile` wrote");
	check_addresses(config, findings);
	check_record(config, findings);
	check_ring(&config->session_ring, "session-ring", config->message_max, "message-max", findings);
	check_ring(&config->unary_ring, "unary-ring", config->unary_message_max, "unary-message-max", findings);
	check_state(config);
	if (config->worker_memory != 0 && config->worker_memory < WORKER_MEMORY_MIN)
		findings_add(findings, "--worker-memory: a worker needs 64MiB at least; 0 is no limit");
	check_capture(config, findings);
	check_rest(config, findings);
	if (config->memory_limit == CONFIG_AUTO)
		config->memory_limit = 0;
	resolve_spin(config);
}

/* Enough descriptors for the front: connections, slots (memory and doorbell each), and some of gRPC's own. */
static void check_descriptors(const struct config *config, struct findings *findings)
{
	uint64_t needed = (uint64_t)config->connections_max + 2 * (uint64_t)config->slots + 128;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < needed)
		findings_add(findings,
			     "--connections: %u connections and %u slots need %llu file descriptors, and a process may "
			     "have %llu: "
			     "raise the limit (ulimit -Hn, LimitNOFILE), or lower --connections to %lld",
			     config->connections_max, config->slots, (unsigned long long)needed,
			     (unsigned long long)limit.rlim_max,
			     (long long)limit.rlim_max - (long long)(needed - config->connections_max));
}

void config_complete(struct config *config, size_t segments, struct findings *findings)
{
	uint32_t most = SLOT_CHANNELS_MAX - 1;

	if (config->sessions_per_slot == CONFIG_AUTO_COUNT) {
		uint64_t wanted = 2 * (uint64_t)segments < 4 ? 4 : 2 * (uint64_t)segments;
		config->sessions_per_slot = wanted > most ? most : (uint32_t)wanted;
	}
	if (config->sessions_per_slot < segments)
		findings_add(
		    findings,
		    "--sessions-per-slot: the pipeline has %zu segments, and Flink opens a session for each in "
		    "a slot; %u are too few: raise it to %zu, better to %zu",
		    segments, config->sessions_per_slot, segments, 2 * segments > most ? most : 2 * segments);
	check_descriptors(config, findings);
}

struct slot_sizes config_slot_sizes(const struct config *config)
{
	return (struct slot_sizes){
	    .channel_count = config->sessions_per_slot + 1,
	    .unary_ring = config->unary_ring,
	    .session_ring = config->session_ring,
	    .arena = config->state_memory,
	};
}
