/*
 * How fast the state is: updates of values of 24 bytes under random keys of 8 bytes, through the state API, in units of 128 as a
 * worker commits them. Prints `name<TAB>value<TAB>unit`, and writes build/bench/state.json.
 *
 * The arena is in the memory of a slot, and beside this process, its owner, is another with an heir's part: once the keys are there it makes huge
 * pages of what is full, as heirs do when state no longer grows fast. `_small_pages` is what was measured before that.
 *
 * The cost of the undo log is the same work by a program that was built without it (bench_state_without_log), in turns with this one,
 * because machines have slow phases. Each figure is the best of several rounds: other processes only ever make one slower.
 *
 *   bench_state            all figures that fit into half of the machine's memory
 *   bench_state updates N  ns per update with N keys, one line a round: what the two programs compare
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "shared/keygroup.h"
#include "shared/log.h"
#include "shared/slot.h"
#include "worker/state.h"

enum { UNIT = 128, VALUE = 24, KEY = 8, CHANNEL = 1, ROUNDS = 5, RATIO_ROUNDS = 5, RATIO_KEYS = 1000000 };

/* What was measured, for the file. */
static struct figure {
	char name[64];
	double value;
	const char *unit;
} figures[32];
static unsigned figure_count;

static void report(const char *name, double value, const char *unit)
{
	printf("%s\t%.*f\t%s\n", name, value < 100 ? 2 : 0, value, unit);
	fflush(stdout);
	CHECK(figure_count < sizeof(figures) / sizeof(figures[0]));
	snprintf(figures[figure_count].name, sizeof(figures[0].name), "%s", name);
	figures[figure_count].value = value;
	figures[figure_count++].unit = unit;
}

/* Writes all figures as JSON, as the other benches do. */
static void write_json(const char *path)
{
	FILE *file = fopen(path, "w");
	if (file == NULL)
		return; /* not started by make */
	fputs("{\n", file);
	for (unsigned i = 0; i < figure_count; i++)
		fprintf(file, "  \"%s\": {\"value\": %.3f, \"unit\": \"%s\"}%s\n", figures[i].name, figures[i].value,
			figures[i].unit, i + 1 < figure_count ? "," : "");
	fputs("}\n", file);
	fclose(file);
}

/* A slot whose arena has one value per key. */
struct rig {
	struct slot_memory memory;
	struct arena arena;
	int heir, heir_asked, heir_answers; /* process, and the ends of its pipes that are ours */
	struct state_store *store;
	struct state *state;
	uint64_t keys;
	uint64_t chance;
};

/* A key's bytes: spread, and always the same for a number. */
static uint64_t key_of(uint64_t number)
{
	number = (number ^ number >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (number ^ number >> 32) * UINT64_C(0xd6e8feb86659fd93);
}

/* A run of records, as a batch brings it: keys with their hashes. */
struct run_keys {
	uint64_t bytes[UNIT];
	int32_t hash[UNIT];
	uint32_t group[UNIT];
};

static void run_fill(struct rig *rig, struct run_keys *run, uint64_t from)
{
	for (unsigned i = 0; i < UNIT; i++) {
		rig->chance = rig->chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		uint64_t number =
		    from == UINT64_MAX ? (uint64_t)(((unsigned __int128)rig->chance * rig->keys) >> 64) : from + i;
		run->bytes[i] = key_of(number);
		struct view key = {(const uint8_t *)&run->bytes[i], KEY};
		run->hash[i] = key_hash_of(key);
		run->group[i] = key_group_of(run->hash[i], 128);
	}
}

/* One unit: counts in the value of each key of a run, and commits. */
static void unit_of(struct rig *rig, const struct run_keys *run, unsigned count)
{
	for (unsigned i = 0; i < STATE_AHEAD && i < count; i++)
		state_ahead(rig->state, (struct view){(const uint8_t *)&run->bytes[i], KEY});
	for (unsigned i = 0; i < count; i++) {
		uint64_t *value;
		bool is_new;
		if (i + STATE_AHEAD < count)
			state_ahead(rig->state, (struct view){(const uint8_t *)&run->bytes[i + STATE_AHEAD], KEY});
		state_key(rig->store, (struct view){(const uint8_t *)&run->bytes[i], KEY}, run->hash[i], run->group[i]);
		CHECK(state_edit(rig->state, VALUE, (void **)&value, &is_new) == STATE_OK);
		value[0]++;
		value[1] += i;
		value[2] = run->bytes[i];
	}
	arena_commit(&rig->arena);
}

/* An heir, as far as it matters here: each time it is asked, it does with the arena what heirs do, and answers. Ends with its pipe. */
static void be_heir(struct slot_memory *memory, int asked, int answers)
{
	char word;

	CHECK(slot_attach_worker(memory) == 0);
	while (read(asked, &word, 1) == 1) {
		while (slot_premap(memory))
			;
		CHECK(write(answers, &word, 1) == 1);
	}
	_exit(0);
}

/* Starts it, before the arena is mapped here: owners' children do not have it. */
static void heir_start(struct rig *rig)
{
	int asked[2], answers[2];

	CHECK(pipe(asked) == 0 && pipe(answers) == 0);
	rig->heir = fork();
	CHECK(rig->heir >= 0);
	if (rig->heir == 0) {
		close(asked[1]);
		be_heir(&rig->memory, asked[0], answers[1]);
	}
	close(asked[0]);
	close(answers[1]);
	rig->heir_asked = asked[1];
	rig->heir_answers = answers[0];
}

/* Has it make huge pages of what is full. */
static void heir_walks(const struct rig *rig)
{
	char word = 0;

	CHECK(write(rig->heir_asked, &word, 1) == 1 && read(rig->heir_answers, &word, 1) == 1);
}

/* Makes a slot for so many keys. */
static struct rig rig_create(uint64_t keys)
{
	struct rig rig = {.keys = keys, .chance = 1};
	const struct slot_sizes sizes = {
	    .channel_count = CHANNEL + 1,
	    .unary_ring = 1 << 16,
	    .session_ring = 1 << 16,
	    .arena = arena_size_for(keys * 72 + (64 << 20)),
	};
	char why[128];
	if (slot_memory_create(&rig.memory, 0, &sizes, -1) != 0)
		fatal("cannot have %lu bytes", (unsigned long)sizes.arena);
	heir_start(&rig);
	if (slot_attach_worker(&rig.memory) != 0)
		fatal("cannot map %lu bytes", (unsigned long)sizes.arena);
	if (arena_open(&rig.arena, rig.memory.arena, sizes.arena, 0, why) != ARENA_OK)
		fatalx("%s", why);
	return rig;
}

/* Opens the store and puts all keys in; ns per insertion. */
static double rig_fill(struct rig *rig)
{
	static struct run_keys run;
	uint64_t all = 0;
	rig->store = state_store_create(&rig->arena, CHANNEL);
	rig->state =
	    state_open(rig->store, &(struct state_spec){.step = "bench", .name = "value", .kind = STATE_VALUE});
	CHECK(rig->state != NULL);
	arena_commit(&rig->arena);
	for (uint64_t from = 0; from < rig->keys; from += UNIT) {
		run_fill(rig, &run, from);
		uint64_t start = now_ns();
		unit_of(rig, &run, (unsigned)(rig->keys - from < UNIT ? rig->keys - from : UNIT));
		all += now_ns() - start;
	}
	return (double)all / (double)rig->keys;
}

static void rig_destroy(struct rig *rig)
{
	state_store_destroy(rig->store);
	close(rig->heir_asked);
	close(rig->heir_answers);
	CHECK(waitpid(rig->heir, NULL, 0) == rig->heir);
	slot_memory_destroy(&rig->memory);
}

/* One round of updates; ns each. The keys are drawn beforehand, as a batch brings them. */
static double round_of(struct rig *rig)
{
	enum { UNITS = 8192 };
	static struct run_keys runs[UNITS];
	for (unsigned i = 0; i < UNITS; i++)
		run_fill(rig, &runs[i], UINT64_MAX);
	uint64_t start = now_ns();
	for (unsigned i = 0; i < UNITS; i++)
		unit_of(rig, &runs[i], UNIT);
	return (double)(now_ns() - start) / (UNITS * UNIT);
}

/* Reports the best of some rounds. */
static void report_rounds(struct rig *rig, const char *size, const char *pages)
{
	char name[64];
	double best = 1e9;

	for (int i = 0; i < ROUNDS; i++) {
		double ns = round_of(rig);
		best = ns < best ? ns : best;
	}
	snprintf(name, sizeof(name), "state_updates_per_s_%s%s", size, pages);
	report(name, 1e9 / best, "updates/s");
}

/* Updates a second with so many keys, if the memory allows. */
static void measure_updates(const char *size, uint64_t keys)
{
	char name[64];
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	if (arena_size_for(keys * 80) > memory / 2)
		return;
	struct rig rig = rig_create(keys);
	double insert = rig_fill(&rig);
	report_rounds(&rig, size, "_small_pages");
	heir_walks(&rig);
	report_rounds(&rig, size, "");
	snprintf(name, sizeof(name), "state_inserts_per_s_%s", size);
	report(name, 1e9 / insert, "inserts/s");
	if (keys == RATIO_KEYS)
		report("bytes_per_entry_overhead",
		       (double)state_bytes(rig.store) / (double)keys - (double)(KEY + VALUE), "bytes");
	rig_destroy(&rig);
}

/* The rounds of a program of this kind: the best, in ns per update. */
static double run_program(const char *program)
{
	char line[512], command[512];
	double best = 1e9;
	snprintf(command, sizeof(command), "%s updates %d", program, RATIO_KEYS);
	FILE *output = popen(command, "r");
	if (output == NULL)
		fatal("%s cannot be started", program);
	while (fgets(line, sizeof(line), output) != NULL) {
		double ns = strtod(line, NULL);
		best = ns > 0 && ns < best ? ns : best;
	}
	if (pclose(output) != 0)
		fatalx("%s failed", program);
	return best;
}

/* What the log costs: the best of both programs, in turns. */
static void measure_log(const char *self)
{
	char other[512];
	double with = 1e9, without = 1e9;
	snprintf(other, sizeof(other), "%s_without_log", self);
	if (access(other, X_OK) != 0)
		return;
	for (int i = 0; i < RATIO_ROUNDS; i++) {
		double ns = run_program(self);
		with = ns < with ? ns : with;
		ns = run_program(other);
		without = ns < without ? ns : without;
	}
	report("undo_cost_ratio", with / without, "ratio");
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "updates") == 0) {
		struct rig rig = rig_create(strtoull(argv[2], NULL, 10));
		rig_fill(&rig);
		heir_walks(&rig);
		for (int i = 0; i < ROUNDS; i++)
			printf("%.3f\n", round_of(&rig));
		rig_destroy(&rig);
		return 0;
	}
	if (argc != 1) {
		fprintf(stderr, "usage: bench_state [updates KEYS]\n");
		return 2;
	}
	measure_updates("100k", 100000);
	measure_updates("1m", RATIO_KEYS);
	measure_updates("10m", 10000000);
	measure_log(argv[0]);
	write_json("build/bench/state.json");
	return 0;
}
