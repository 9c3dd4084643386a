/*
 * Fault points: counting the passes, and dying at the one that was asked for. What a point costs is of no matter: it is there in
 * the debug variant alone.
 */
#include "shared/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"

static const struct {
	const char *name, *when;
} faults[] = {
#define FAULT(name, when) {#name, when},
#include "shared/fault.def"
#undef FAULT
};
_Static_assert(sizeof(faults) / sizeof(faults[0]) == FAULT_COUNT, "one row per fault point");

static uint64_t passes[FAULT_COUNT];
static enum fault armed = FAULT_COUNT; /* none */
static uint64_t armed_pass;

const char *fault_name(enum fault fault)
{
	return faults[fault].name;
}

const char *fault_when(enum fault fault)
{
	return faults[fault].when;
}

/* Arms one point, and counts all from zero. */
void fault_arm(enum fault fault, uint64_t pass)
{
	CHECK(fault < FAULT_COUNT);
	memset(passes, 0, sizeof(passes));
	armed = pass > 0 ? fault : FAULT_COUNT;
	armed_pass = pass;
}

uint64_t fault_passes(enum fault fault)
{
	return passes[fault];
}

#ifdef FAULT_POINTS
/* Arms what the environment names. What it misspells is fatal: a test that waits for a death would wait for good. */
static void arm_from_environment(void)
{
	const char *wanted = getenv("BRIDGE_FAULT");
	const char *colon = wanted != NULL ? strchr(wanted, ':') : NULL;

	if (wanted == NULL || *wanted == '\0')
		return;
	for (int i = 0; i < FAULT_COUNT; i++) {
		size_t size = strlen(faults[i].name);
		if (strncmp(wanted, faults[i].name, size) != 0 || (wanted[size] != '\0' && wanted[size] != ':'))
			continue;
		armed = (enum fault)i;
		armed_pass = colon != NULL ? strtoull(colon + 1, NULL, 10) : 1;
		return;
	}
	fatalx("BRIDGE_FAULT=%s names no fault point (shared/fault.def has them)", wanted);
}

/* Comes to a point: dies when it is the one. */
void fault_pass(enum fault fault)
{
	static int looked;

	if (!looked) {
		looked = 1;
		if (armed == FAULT_COUNT)
			arm_from_environment();
	}
	if (++passes[fault] == armed_pass && fault == armed)
		raise(SIGKILL);
}
#endif
