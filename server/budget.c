/*
 * The memory budget (budget.h).
 *
 * Shared memory counts at its full size: all channels open, all rings touched. Processes count with an allowance that was
 * measured generously and is written out below; a front's grows with the connections it is to hold.
 *
 * State memory counts in full, unless it is kept in files: then the kernel writes its pages out when memory is short.
 *
 * Limits of containers come from both kinds of cgroup, and the whole way up, since any ancestor's limit binds. Inside a
 * container the path in /proc/self/cgroup may be the host's and not be visible; what is not there is passed over, and
 * the mount's own root is looked at in any case.
 *
 * Left out: what a pipeline's own programs may come to hold; the allowance of a worker is for modest ones.
 */
#include "server/budget.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/template.h"
#include "shared/control.h"
#include "shared/json.h"
#include "shared/units.h"

#define MIB (UINT64_C(1) << 20)
#define SUPERVISOR_ALLOWANCE (8 * MIB)
#define FRONT_ALLOWANCE (48 * MIB)
#define CONNECTION_ALLOWANCE (UINT64_C(64) << 10)
#define WORKER_ALLOWANCE (24 * MIB)
#define UNLIMITED (UINT64_C(1) << 60) /* cgroup v1 writes its "no limit" as a number near 2^63 */

/* ---- Adding up ---- */

/* Appends a line. */
static void add_line(struct budget *budget, const char *name, uint64_t count, uint64_t each, bool per_slot)
{
	CHECK(budget->count < BUDGET_LINES_MAX);
	budget->lines[budget->count++] = (struct budget_line){name, count, each, per_slot};
	budget->total += count * each;
}

/* What the counters of one slot's worker take, in whole pages. */
static uint64_t worker_page_bytes(const struct descriptor *descriptor)
{
	uint64_t bytes = sizeof(struct worker_page) +
			 descriptor->segment_count * sizeof(struct worker_segment_counters) +
			 (descriptor->step_count + STEPS_SPARE) * sizeof(struct worker_step_counters);

	return (bytes + 4095) / 4096 * 4096;
}

/* The processes of all slots, and the one that loads code for them. An heir that waits has loaded the code and nothing else, whatever it
 * may come to have. */
static void add_workers(struct budget *budget, const struct config *config, const struct descriptor *descriptor)
{
	uint64_t slots = config->slots;

	if (template_is_wanted(descriptor))
		add_line(budget, "template process", 1, WORKER_ALLOWANCE, false);

	if (config->worker_memory == 0) {
		add_line(budget, "worker processes and heirs", slots * (1 + (uint64_t)config->heirs), WORKER_ALLOWANCE,
			 true);
		return;
	}
	add_line(budget, "worker processes", slots, config->worker_memory, true);
	add_line(budget, "heirs", slots * config->heirs, WORKER_ALLOWANCE, true);
}

void budget_compute(struct budget *budget, const struct config *config, const struct descriptor *descriptor)
{
	struct slot_sizes sizes = config_slot_sizes(config);
	uint64_t slots = config->slots, sessions = config->sessions_per_slot;
	uint64_t rings = 2 * (config->unary_ring + sessions * config->session_ring);
	uint64_t control = sizeof(struct control) + sizeof(struct front_page) +
			   descriptor->segment_count * sizeof(struct front_segment_counters);

	*budget = (struct budget){0};
	add_line(budget, "session rings, a pair each", slots * sessions, 2 * config->session_ring, true);
	add_line(budget, "unary rings, a pair each", slots, 2 * config->unary_ring, true);
	add_line(budget, "slot heads, owner pages", slots, slot_memory_max(&sizes) - rings - sizes.arena, true);
	if (config->state_dir == NULL)
		add_line(budget, "state memory", slots, sizes.arena, true);
	add_line(budget, "windows of unary clients", slots, config->window_bytes_max, true);
	add_workers(budget, config, descriptor);
	add_line(budget, "worker counters", slots, worker_page_bytes(descriptor), true);
	add_line(budget, "control memory", 1, control, false);
	add_line(budget, "front process", 1, FRONT_ALLOWANCE, false);
	add_line(budget, "connections", config->connections_max, CONNECTION_ALLOWANCE, false);
	add_line(budget, "supervisor process", 1, SUPERVISOR_ALLOWANCE, false);
}

/* ---- Finding the limit ---- */

/* Lowers the limit to a value found somewhere. */
static void offer_limit(struct budget *budget, uint64_t limit, const char *from)
{
	if (limit == 0 || limit >= UNLIMITED || (budget->limit != 0 && limit >= budget->limit))
		return;
	budget->limit = limit;
	snprintf(budget->from, sizeof(budget->from), "%s", from);
}

/* Reads one limit file, if it is there and holds a number. */
static void offer_file(struct budget *budget, const char *root, const char *path)
{
	char full[4608], text[64];
	uint64_t limit;

	snprintf(full, sizeof(full), "%s%s", root, path);
	FILE *file = fopen(full, "re");
	if (file == NULL)
		return;
	if (fgets(text, sizeof(text), file) != NULL) {
		text[strcspn(text, "\n")] = '\0';
		if (number_parse(text, &limit))
			offer_limit(budget, limit, path);
	}
	fclose(file);
}

/* Offers the limits of a cgroup and of all above it, up to the mount. */
static void offer_cgroup(struct budget *budget, const char *root, const char *mount, const char *group,
			 const char *file)
{
	char path[4400], above[2048];

	snprintf(above, sizeof(above), "%s", group);
	for (;;) {
		snprintf(path, sizeof(path), "%s%s/%s", mount, strcmp(above, "/") == 0 ? "" : above, file);
		offer_file(budget, root, path);
		char *slash = strrchr(above, '/');
		if (slash == NULL || above[1] == '\0')
			return;
		slash[slash == above ? 1 : 0] = '\0';
	}
}

/* Where the hierarchy with a memory controller is mounted, out of /proc/self/mountinfo: for v2 the cgroup2 mount, for v1
 * the cgroup mount with the option "memory". */
static bool find_mount(const char *root, bool v2, char mount[1024])
{
	char path[4200], line[4096], point[1024], type[64], options[1024];
	bool found = false;

	snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), file) != NULL) {
		const char *rest = strstr(line, " - ");
		if (rest == NULL || sscanf(line, "%*s %*s %*s %*s %1023s", point) != 1 ||
		    sscanf(rest, " - %63s %*s %1023s", type, options) != 2)
			continue;
		found = v2 ? strcmp(type, "cgroup2") == 0
			   : strcmp(type, "cgroup") == 0 && strstr(options, "memory") != NULL;
	}
	fclose(file);
	if (found)
		memcpy(mount, point, sizeof(point));
	return found;
}

/* Whether a line of /proc/self/cgroup ("4:cpu,memory:/path", "0::/path") is of the memory hierarchy asked for. */
static bool names_memory(const char *controllers, bool v2)
{
	size_t length = strcspn(controllers, ":");

	if (v2)
		return length == 0;
	for (const char *at = controllers; at < controllers + length; at += strcspn(at, ",:") + 1) {
		if (strncmp(at, "memory", 6) == 0 && (at[6] == ',' || at[6] == ':'))
			return true;
	}
	return false;
}

/* Offers the limits of this process's cgroups of one version. */
static void offer_cgroups(struct budget *budget, const char *root, bool v2)
{
	char path[4200], line[4096], mount[1024];
	const char *limit_file = v2 ? "memory.max" : "memory.limit_in_bytes";

	if (!find_mount(root, v2, mount))
		return;
	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	FILE *file = fopen(path, "re");
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		char *controllers = strchr(line, ':');
		char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
		if (group != NULL && names_memory(controllers + 1, v2))
			offer_cgroup(budget, root, mount, group + 1, limit_file);
	}
	if (file != NULL)
		fclose(file);
}

bool budget_cgroup_file(const char *root, bool v2, const char *file, char *path, size_t size)
{
	char line[4096], mount[1024], groups[4200];
	bool found = false;

	if (!find_mount(root, v2, mount))
		return false;
	snprintf(groups, sizeof(groups), "%s/proc/self/cgroup", root);
	FILE *list = fopen(groups, "re");
	while (!found && list != NULL && fgets(line, sizeof(line), list) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		char *controllers = strchr(line, ':');
		char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
		if (group == NULL || !names_memory(controllers + 1, v2))
			continue;
		snprintf(path, size, "%s%s%s/%s", root, mount, strcmp(group + 1, "/") == 0 ? "" : group + 1, file);
		found = access(path, R_OK) == 0;
		if (!found) { /* in a container the path may be the host's: then the mount is the group itself */
			snprintf(path, size, "%s%s/%s", root, mount, file);
			found = access(path, R_OK) == 0;
		}
	}
	if (list != NULL)
		fclose(list);
	return found;
}

/* Offers the machine's memory. */
static void offer_machine(struct budget *budget, const char *root)
{
	char path[4200], line[256];
	unsigned long long kib;

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	FILE *file = fopen(path, "re");
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
			offer_limit(budget, (uint64_t)kib * 1024, "the machine's memory");
	}
	if (file != NULL)
		fclose(file);
}

void budget_find_limit(struct budget *budget, const struct config *config, const char *root)
{
	budget->limit = 0;
	if (config->memory_limit != 0) {
		offer_limit(budget, config->memory_limit, "--memory-limit");
		return;
	}
	offer_cgroups(budget, root, true);
	offer_cgroups(budget, root, false);
	offer_machine(budget, root);
}

/* ---- Verdict and printing ---- */

/* Bytes of the lines that grow with the slots. */
static uint64_t slots_total(const struct budget *budget)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < budget->count; i++)
		total += budget->lines[i].per_slot ? budget->lines[i].count * budget->lines[i].each : 0;
	return total;
}

void budget_fit_state(struct budget *budget, struct config *config, const struct descriptor *descriptor)
{
	if (!config->state_memory_auto || config->state_dir != NULL || budget->limit == 0 ||
	    budget->total <= budget->limit)
		return;
	uint64_t others = budget->total - config->slots * config->state_memory;
	uint64_t left = budget->limit > others ? (budget->limit - others) / config->slots / MIB * MIB : 0;
	config->state_memory = left < STATE_MEMORY_MIN ? STATE_MEMORY_MIN : left;
	struct budget limit = *budget;
	budget_compute(budget, config, descriptor);
	budget->limit = limit.limit;
	memcpy(budget->from, limit.from, sizeof(budget->from));
}

bool budget_check(const struct budget *budget, const struct config *config, struct findings *findings)
{
	char total[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX], session[UNITS_TEXT_MAX];
	CHECK(config->slots > 0 && slots_total(budget) >= config->slots);
	uint64_t per_slot = slots_total(budget) / config->slots;
	uint64_t fixed = budget->total - slots_total(budget);
	uint64_t fit = budget->limit > fixed ? (budget->limit - fixed) / per_slot : 0;

	if (budget->limit == 0 || budget->total <= budget->limit)
		return true;
	findings_add(
	    findings,
	    "memory: the sidecar may come to use %s, and %s allows %s: lower --slots%s, or --sessions-per-slot "
	    "(%u now, %s each), --state-memory, --window-bytes, --message-max or --connections, or raise the limit",
	    size_rounded(total, budget->total), budget->from, size_rounded(limit, budget->limit),
	    fit == 0 ? " (not even one fits)" : "", config->sessions_per_slot,
	    size_rounded(session, 2 * config->session_ring));
	if (fit > 0)
		findings_add(findings, "memory: with everything else as it is, %" PRIu64 " slots fit", fit);
	return false;
}

void budget_print(const struct budget *budget, FILE *out)
{
	char each[UNITS_TEXT_MAX], sum[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX];

	fprintf(out, "%-34s %7s %12s %12s\n", "memory, at the most", "number", "each", "together");
	for (uint32_t i = 0; i < budget->count; i++) {
		const struct budget_line *line = &budget->lines[i];
		fprintf(out, "%-34s %7" PRIu64 " %12s %12s\n", line->name, line->count, size_rounded(each, line->each),
			size_rounded(sum, line->count * line->each));
	}
	fprintf(out, "%-34s %7s %12s %12s\n", "all together", "", "", size_rounded(sum, budget->total));
	if (budget->limit != 0)
		fprintf(out, "%-34s %7s %12s %12s  (%s)\n", "allowed", "", "", size_rounded(limit, budget->limit),
			budget->from);
}

void budget_json(const struct budget *budget, const char *key, struct json *json)
{
	json_open_object(json, key);
	json_open_array(json, "lines");
	for (uint32_t i = 0; i < budget->count; i++) {
		json_open_object(json, NULL);
		json_text(json, "name", budget->lines[i].name);
		json_unsigned(json, "count", budget->lines[i].count);
		json_unsigned(json, "each_bytes", budget->lines[i].each);
		json_unsigned(json, "total_bytes", budget->lines[i].count * budget->lines[i].each);
		json_close_object(json);
	}
	json_close_array(json);
	json_unsigned(json, "total_bytes", budget->total);
	if (budget->limit == 0) {
		json_null(json, "limit_bytes");
		json_null(json, "limit_from");
	} else {
		json_unsigned(json, "limit_bytes", budget->limit);
		json_text(json, "limit_from", budget->from);
	}
	json_close_object(json);
}
