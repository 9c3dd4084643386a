/*
 * What the host of Python steps costs, as ratios that a slow machine does not change: the same function in the same interpreter, called by a
 * chain of the one step over runs of records that are there already (until their outputs' bytes are) and by a bare loop over messages that are.
 *
 *   bench_python [--numpy]     the second: with the ratio of the batch form, for an interpreter that has numpy
 *
 * Rounds of both alternate, and what is printed is the median: `name<TAB>value<TAB>unit`. What stands around a worker is measured by
 * bench/python/bench_python.py.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "shared/counters.h"
#include "shared/keygroup.h"
#include "tests/memory.h"
#include "tests/spec.h"
#include "worker/chain.h"
#include "worker/hosts/host.h"

enum { RECORDS_MAX = 1024, ROUNDS = 31, RUNS = 8, REPEATS = 8 };

static char payloads[RECORDS_MAX][EVENT_MAX];
static struct wire_record records[RECORDS_MAX];

/* Events as a shop would send them. */
static void make_payloads(void)
{
	for (int i = 0; i < RECORDS_MAX; i++) {
		records[i].payload = make_event(payloads[i], i);
	}
}

/* A chain of one Python step. */
struct bench {
	struct spec spec;
	struct memory memory;
	struct scratch *scratch;
	struct run runs[RUNS];
	struct chain *chain;
	struct wire_batch batch;
};

static void bench_open(struct bench *bench, const char *function, const char *form, const char *options, uint32_t count)
{
	struct failure failure;

	memory_make(&bench->memory, 64 << 20);
	spec_init(&bench->spec);
	spec_add(&bench->spec, STEP_python, "module", "bench_python_steps", "function", function, "form", form,
		 "options", options, NULL);
	bench->batch = (struct wire_batch){.records = records, .count = count};
	bench->scratch = scratch_create();
	for (int i = 0; i < RUNS; i++)
		run_init(&bench->runs[i], bench->scratch);
	bench->chain = chain_create(&bench->spec.segment, bench->memory.store, NULL, &failure);
	if (!bench->chain)
		fatalx("%s", failure.message);
}

static void bench_close(struct bench *bench)
{
	chain_destroy(bench->chain);
	for (int i = 0; i < RUNS; i++)
		run_deinit(&bench->runs[i]);
	scratch_destroy(bench->scratch);
	memory_free(&bench->memory);
	spec_deinit(&bench->spec);
}

/* Makes runs of so many records. */
static void make_runs(struct bench *bench, uint32_t runs, uint32_t count)
{
	for (uint32_t i = 0; i < RUNS; i++)
		run_clear(&bench->runs[i]);
	scratch_reset(bench->scratch);
	for (uint32_t i = 0; i < runs; i++)
		CHECK(run_take_batch(&bench->runs[i], &bench->batch, 0, count));
}

/* Passes them through the chain, a unit each; returns the time that it took. */
static uint64_t pass(struct bench *bench, uint32_t runs)
{
	struct failure failure;
	uint64_t start = now_ns();

	for (uint32_t i = 0; i < runs; i++) {
		if (!chain_process(bench->chain, &bench->runs[i], (struct step_time){0, 0}, &failure))
			fatalx("%s", failure.message);
		arena_commit(&bench->memory.arena);
	}
	return now_ns() - start;
}

/* Nanoseconds per record through the host. */
static double through_host(struct bench *bench)
{
	uint64_t took = 0;

	for (int i = 0; i < REPEATS; i++) {
		make_runs(bench, RUNS, bench->batch.count);
		took += pass(bench, RUNS);
	}
	return (double)took / RUNS / REPEATS / bench->batch.count;
}

/* Nanoseconds per record of the bare loop, as it says. */
static double through_loop(struct bench *bench)
{
	char text[64];

	make_runs(bench, 1, 1);
	pass(bench, 1);
	CHECK(bench->runs[0].count == 1);
	snprintf(text, sizeof(text), "%.*s", (int)bench->runs[0].records[0].payload.size,
		 (const char *)bench->runs[0].records[0].payload.data);
	return strtod(text, NULL);
}

/* Measures a function both ways; prints the ratio of their speeds, and returns the host's records a second. */
static double compare(const char *name, const char *function, bool whole, uint32_t count)
{
	struct bench host = {0}, loop = {0};
	double ratios[ROUNDS], speeds[ROUNDS];
	char options[128];

	snprintf(options, sizeof(options), "function=%s\ncount=%u\nbatch=%s", function, count,
		 whole ? "true" : "false");
	bench_open(&host, function, whole ? "batch" : "process", options, count);
	bench_open(&loop, "Bare", "process", options, count);
	make_runs(&loop, 1, count);
	pass(&loop, 1);
	for (int i = -3; i < ROUNDS; i++) { /* the first ones warm up */
		double ours = through_host(&host), bare = through_loop(&loop);
		ratios[i < 0 ? 0 : i] = bare / ours;
		speeds[i < 0 ? 0 : i] = 1e9 / ours;
	}
	printf("%s\t%.3f\tx\n", name, median(ratios, ROUNDS));
	fflush(stdout);
	bench_close(&host);
	bench_close(&loop);
	host_forget();
	return median(speeds, ROUNDS);
}

int main(int argc, char **argv)
{
	log_init("bench_python", LOG_WARN);
	make_payloads();
	setenv("FLINK_BRIDGE_PYTHON_PATH", "bench/python", 0);
	if (argc > 1 && strcmp(argv[1], "--numpy") == 0) {
		compare("python_batch_ratio", "total", true, RECORDS_MAX);
		return 0;
	}
	double speed = compare("python_host_ratio_identity", "identity", false, 128);
	printf("python_identity_per_s\t%.0f\trecords/s\n", speed);
	compare("python_host_ratio_json", "change", false, 128);
	return 0;
}
