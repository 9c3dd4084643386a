/*
 * What the steps cost: nanoseconds per record of 100 bytes, runs of 128 records, through a chain as a worker runs it, from
 * the record's bytes to its bytes. Prints `name<TAB>value<TAB>unit`.
 *
 * Each figure is the best of several rounds: other processes only ever make one slower. The wire is left out; see
 * bench_wire and bench_transport.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/bench.h"
#include "shared/counters.h"
#include "shared/keygroup.h"
#include "tests/memory.h"
#include "tests/spec.h"
#include "worker/chain.h"
#include "worker/hosts/host.h"
#include "worker/jq_program.h"
#include "worker/json_text.h"

enum { RUN_RECORDS = 128, RUNS = 20, ROUNDS_MIN = 3 };

static const uint64_t enough_ns = 300000000; /* of rounds, per figure */

static char payloads[RUN_RECORDS][EVENT_MAX], keys[RUN_RECORDS][16];
static struct wire_record records[RUN_RECORDS];
static const struct wire_batch batch = {.records = records, .count = RUN_RECORDS};

/* Events as a shop would send them. */
static void make_payloads(void)
{
	for (int i = 0; i < RUN_RECORDS; i++) {
		records[i].payload = make_event(payloads[i], i);
		snprintf(keys[i], sizeof(keys[i]), "user-%03d", i % 50);
		records[i].keyed = true;
		records[i].key = view_of(keys[i]);
		records[i].key_hash = key_hash_of(records[i].key);
	}
}

/* One round of a chain over all runs. */
static void round_of(struct chain *chain, struct arena *arena, struct run *run, struct scratch *scratch)
{
	struct failure failure;

	for (int i = 0; i < RUNS; i++) {
		CHECK(run_take_batch(run, &batch, 0, RUN_RECORDS));
		if (!chain_process(chain, run, (struct step_time){0, 0}, &failure))
			fatalx("%s", failure.message);
		arena_commit(arena);
		run_clear(run);
		scratch_reset(scratch);
	}
}

/* Measures the steps of a spec. */
static void measure(const char *name, struct spec *spec)
{
	static struct worker_step_counters counters[SPEC_STEPS_MAX];
	struct scratch *scratch = scratch_create();
	struct failure failure;
	struct run run;
	uint64_t best = UINT64_MAX, all = 0;
	struct memory memory;

	memory_make(&memory, 64 << 20);
	struct chain *chain = chain_create(&spec->segment, memory.store, counters, &failure);
	if (!chain)
		fatalx("%s", failure.message);
	run_init(&run, scratch);
	for (int i = 0; i < ROUNDS_MIN || all < enough_ns; i++) {
		uint64_t start = now_ns();
		round_of(chain, &memory.arena, &run, scratch);
		uint64_t took = now_ns() - start;
		best = took < best ? took : best;
		all += took;
	}
	printf("%s\t%.1f\tns/record\n", name, (double)best / (RUNS * RUN_RECORDS));
	fflush(stdout);
	run_deinit(&run);
	scratch_destroy(scratch);
	chain_destroy(chain);
	memory_free(&memory);
	spec_deinit(spec);
}

/* One step and its first option. */
static void measure_one(const char *name, enum step_kind kind, const char *option, const char *text)
{
	struct spec spec;

	spec_init(&spec);
	spec_add(&spec, kind, option, text, NULL);
	measure(name, &spec);
}

/* The same in a segment that is partitioned by key. */
static void measure_keyed(const char *name, enum step_kind kind, const char *option, const char *text)
{
	struct spec spec;

	spec_init(&spec);
	spec.segment.keyed = true;
	spec_add(&spec, kind, option, text, NULL);
	measure(name, &spec);
}

/* A step out of one of the libraries that lie beside this program. */
static void measure_library(const char *name, const char *file, const char *function, bool keyed)
{
	char path[4096] = "";
	struct spec spec;

	CHECK(readlink("/proc/self/exe", path, sizeof(path) - 64) > 0);
	strcpy(strrchr(path, '/'), "/steps/");
	strcat(path, file);
	spec_init(&spec);
	spec.segment.keyed = keyed;
	spec_add(&spec, STEP_native, "library", path, "function", function, keyed ? "state" : NULL, "totals=value",
		 NULL);
	measure(name, &spec);
	host_forget();
}

/* libjq's own parser and printer, for comparison. */
static void measure_libjq(void)
{
	uint64_t best = UINT64_MAX, all = 0;

	for (int round = 0; round < ROUNDS_MIN || all < enough_ns; round++) {
		uint64_t start = now_ns();
		for (int i = 0; i < RUNS * RUN_RECORDS; i++) {
			const struct view text = records[i % RUN_RECORDS].payload;
			jv_free(jv_dump_string(jv_parse_sized((const char *)text.data, (int)text.size), 0));
		}
		uint64_t took = now_ns() - start;
		best = took < best ? took : best;
		all += took;
	}
	printf("steps_parse_print_libjq\t%.1f\tns/record\n", (double)best / (RUNS * RUN_RECORDS));
}

int main(void)
{
	struct spec spec;

	log_init("bench_steps", LOG_WARN);
	make_payloads();
	measure_one("steps_identity", STEP_passthrough, NULL, NULL);
	measure_one("steps_parse_print", STEP_parse_json, NULL, NULL);
	measure_libjq();
	measure_one("steps_path", STEP_map, "program", ".user");
	measure_one("steps_path_by_machine", STEP_map, "program", "(.user)");
	measure_one("steps_filter", STEP_filter, "program", ".value % 10 != 0");
	spec_init(&spec);
	spec_add(&spec, STEP_filter, "program", ".value % 10 != 0", NULL);
	spec_add(&spec, STEP_map, "program", ".doubled = .value*2", NULL);
	measure("steps_filter_map", &spec);
	measure_one("steps_filter_map_in_one", STEP_flat_map, "program",
		    "select(.value % 10 != 0) | .doubled = .value*2");
	spec_init(&spec);
	spec_add(&spec, STEP_map, "program", "ascii_upcase", "payload", "text", NULL);
	measure("steps_text_upcase", &spec);
	measure_one("steps_select", STEP_select, "fields", "user\nvalue\nat");
	measure_one("steps_set", STEP_set, "fields", "doubled=.value * 2");
	measure_one("steps_enrich_timestamp", STEP_enrich, "timestamp", ".at");
	measure_one("steps_key_by", STEP_key_by, "key", ".user");
	measure_one("steps_route", STEP_route, "routes", "small=.value < 10\nrest=default");
	measure_one("steps_batch", STEP_batch, "size", "100");
	measure_keyed("steps_batch_by_key", STEP_batch, "size", "100");
	measure_keyed("steps_aggregate", STEP_aggregate, "fields", "n=count\nsum=sum(.value)");
	measure_keyed("steps_dedup", STEP_dedup, "ttl", "1h");
	measure_library("steps_native_identity", "identity_step.so", "", false);
	measure_library("steps_native_json_double", "json_step.so", "double", false);
	measure_library("steps_native_json_totals", "json_step.so", "totals", true);
	jq_programs_free();
	json_forget_keys();
	return 0;
}
