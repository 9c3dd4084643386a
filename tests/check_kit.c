/* Test cases of pipelines: what is compared with what, what --update makes of a file, and whole cases, forks and all. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/kit_run.h"
#include "cli/kit_state.h"
#include "shared/log.h"
#include "tests/check_main.h"
#include "worker/jq_program.h"
#include "worker/json_text.h"

/* What the table of commands needs to link; main() has the real one. */
int cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return BRIDGECTL_OK;
}

static struct pool pool;
static char folder[] = "/tmp/check-kit-XXXXXX";
static char path[64];

static void setup(void)
{
	log_init("check", LOG_ERROR);
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/x.test.yaml", folder);
}

static void teardown(void)
{
	pool_free(&pool);
	jq_programs_free();
	json_forget_keys();
	unlink(path);
	rmdir(folder);
}

/* Writes the file of cases. */
static void write_file(const char *text)
{
	FILE *out = fopen(path, "we");

	ck_assert_ptr_nonnull(out);
	ck_assert_int_ge(fputs(text, out), 0);
	ck_assert_int_eq(fclose(out), 0);
}

/* Reads it as a text. */
static char *read_file(void)
{
	static char text[65536];
	FILE *in = fopen(path, "re");

	ck_assert_ptr_nonnull(in);
	text[fread(text, 1, sizeof(text) - 1, in)] = '\0';
	fclose(in);
	return text;
}

/* Reads it as cases; there must be no findings. */
static struct kit_file *read_cases(void)
{
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	struct kit_file *file = kit_file_read(path, &diagnostics);
	if (file == NULL)
		diagnostics_print(&diagnostics, stderr, false);
	ck_assert_ptr_nonnull(file);
	diagnostics_free(&diagnostics);
	return file;
}

/* ---- What is compared with what -------------------------------------------------------------------------------------- */

/* A record of a sink, with a payload that is a number and a key of one letter. */
static struct kit_record made(int number, char key)
{
	char *text = pool_format(&pool, "%d", number), *name = pool_format(&pool, "%c", key);

	return (struct kit_record){.payload = view_of(text),
				   .has_payload = true,
				   .has_key = true,
				   .key = view_of(name),
				   .has_timestamp = true,
				   .timestamp = number};
}

/* Judges numbers with keys against an expectation of the file's only case; how many pairs are wrong. */
static struct kit_verdict judged(const struct kit_file *file, const char *numbers, const char *keys)
{
	struct kit_record actual[16];
	size_t count = strlen(numbers);

	ck_assert_uint_eq(strlen(keys), count);
	for (size_t i = 0; i < count; i++)
		actual[i] = made(numbers[i] - '0', keys[i]);
	return kit_judge(&pool, "out", &file->cases[0].expect.outputs[0], actual, count);
}

/* A file that expects something of `out`. */
#define EXPECTING(what) "pipeline: p\ncases:\n  - name: a\n    events: []\n    expect: { out: " what " }\n"

static size_t wrong(const char *text, const char *numbers, const char *keys)
{
	write_file(text);
	struct kit_file *file = read_cases();
	size_t count = judged(file, numbers, keys).wrong;
	kit_file_free(file);
	return count;
}

START_TEST(records_are_compared_in_order)
{
	const char *text = EXPECTING("[ { json: 1 }, { json: 2.0 }, { json: 3 } ]");

	ck_assert_uint_eq(wrong(text, "123", "aaa"), 0);
	ck_assert_uint_eq(wrong(text, "12", "aa"), 1);
	ck_assert_uint_eq(wrong(text, "143", "aaa"), 1);
	ck_assert_uint_eq(wrong(text, "1243", "aaaa"), 1);
	ck_assert_uint_eq(wrong(text, "321", "aaa"), 4); /* 3 is there, and what was before it and is behind it */
	ck_assert_uint_eq(wrong(text, "", ""), 3);
	ck_assert_uint_eq(wrong(EXPECTING("[]"), "", ""), 0);
	ck_assert_uint_eq(wrong(EXPECTING("[]"), "12", "aa"), 2);
}
END_TEST

START_TEST(only_what_is_named_is_compared)
{
	ck_assert_uint_eq(wrong(EXPECTING("[ { key: a }, { timestamp: 2 } ]"), "12", "ab"), 0);
	ck_assert_uint_eq(wrong(EXPECTING("[ { key: b }, { timestamp: 3 } ]"), "12", "ab"), 2);
	ck_assert_uint_eq(wrong(EXPECTING("[ { text: '1', key: a }, { text: '2.0' } ]"), "12", "ab"), 1);
	ck_assert_uint_eq(wrong(EXPECTING("[ { json: 1, headers: { h: x } } ]"), "1", "a"), 1);
}
END_TEST

START_TEST(in_any_order_each_expectation_finds_its_record)
{
	/* The first one fits both records, the second one only the first. */
	const char *text = EXPECTING("{ order: any, records: [ { key: a }, { json: 1 } ] }");

	ck_assert_uint_eq(wrong(text, "12", "aa"), 0);
	ck_assert_uint_eq(wrong(text, "21", "aa"), 0);
	ck_assert_uint_eq(wrong(text, "13", "ab"), 1);
	ck_assert_uint_eq(wrong(text, "121", "aaa"), 1);
}
END_TEST

START_TEST(by_key_the_records_of_a_key_are_in_order)
{
	const char *text = EXPECTING("{ order: by_key, records: [ { json: 1, key: a }, { json: 2, key: a }, { json: 3, "
				     "key: b } ] }");

	ck_assert_uint_eq(wrong(text, "312", "baa"), 0);
	ck_assert_uint_eq(wrong(text, "132", "aba"), 0);
	ck_assert_uint_ge(wrong(text, "321", "baa"), 1);
	ck_assert_uint_eq(wrong(text, "3124", "baac"), 1);
}
END_TEST

/* ---- --update ---------------------------------------------------------------------------------------------------------- */

/* A file whose expectations are made at random: their style, their order, what they name; comments say which is which. */
static void write_random(unsigned *seed)
{
	static const char *const orders[] = {"in_order", "any", "by_key"};
	unsigned count = (unsigned)rand_r(seed) % 6, style = (unsigned)rand_r(seed) % 4,
		 order = (unsigned)rand_r(seed) % 3;
	FILE *out = fopen(path, "we");

	fprintf(out, "# top\npipeline: p\ncases:\n  - name: a\n    events: []\n    expect:   # what\n      out:");
	if (order > 0)
		fprintf(out, "\n        order: %s\n        # records\n        records:", orders[order]);
	int indent = (order > 0 ? 8 : 6) + (style == 1 ? 0 : style == 2 ? 5 : 2);
	if (count == 0)
		fprintf(out, " []\n");
	else
		fprintf(out, "\n");
	for (unsigned i = 0; i < count; i++) {
		int number = rand_r(seed) % 5;
		if (rand_r(seed) % 2)
			fprintf(out, "%s%*s# of %d\n", rand_r(seed) % 3 ? "" : "\n", indent, "", number);
		fprintf(out, "%*s- json: %d%s\n", indent, "", number, rand_r(seed) % 4 ? "" : "   # beside");
		if (order == 2 || rand_r(seed) % 2)
			fprintf(out, "%*s  key: %c\n", indent, "", 'a' + rand_r(seed) % 2);
		if (rand_r(seed) % 4 == 0)
			fprintf(out, "%*s  timestamp: %d\n", indent, "", number);
	}
	fprintf(out, "    # end\n%s", style == 3 ? "" : "  - name: b\n    events: []\n    expect: {}\n");
	fclose(out);
}

/* Numbers and keys at random. */
static void make_random(unsigned *seed, char numbers[8], char keys[8])
{
	unsigned count = (unsigned)rand_r(seed) % 7;

	for (unsigned i = 0; i < count; i++) {
		numbers[i] = (char)('0' + rand_r(seed) % 5);
		keys[i] = (char)('a' + rand_r(seed) % 2);
	}
	numbers[count] = keys[count] = '\0';
}

START_TEST(an_updated_file_holds_and_keeps_what_held)
{
	unsigned seed = (unsigned)_i + 1;
	char numbers[8] = "", keys[8] = "", before[65536];

	for (int round = 0; round < 150; round++) {
		struct kit_edits edits = {0};
		const char *why = NULL;
		write_random(&seed);
		make_random(&seed, numbers, keys);
		snprintf(before, sizeof(before), "%s", read_file());
		struct kit_file *file = read_cases();
		struct kit_verdict verdict = judged(file, numbers, keys);
		if (verdict.wrong > 0)
			ck_assert_msg(kit_update_plan(&edits, &file->cases[0], &verdict, &why), "%s", why);
		ck_assert_ptr_null(kit_update_apply(&edits, path, file->document->text));
		kit_edits_free(&edits);
		kit_file_free(file);
		if (verdict.wrong == 0)
			ck_assert_str_eq(read_file(), before);
		file = read_cases();
		ck_assert_msg(judged(file, numbers, keys).wrong == 0, "%s\nwith %s %s became\n%s", before, numbers,
			      keys, read_file());
		ck_assert_ptr_nonnull(strstr(read_file(), "\n    # end\n"));
		ck_assert_uint_eq(file->count, strstr(before, "name: b") != NULL ? 2 : 1);
		kit_file_free(file);
	}
}
END_TEST

/* Writes lines, each of which ends with `|`, with another end instead; returns what is behind them. */
static char *put_lines(char *to, const char *lines, const char *end)
{
	for (; *lines != '\0'; lines++) {
		if (*lines == '|')
			to = stpcpy(to, end);
		else
			*to++ = *lines;
	}
	*to = '\0';
	return to;
}

START_TEST(lines_end_with_any_break_that_yaml_has)
{
	static const char *const breaks[] = {"\n", "\r\n", "\r", "\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9"};
	static const char kept[] = "# top|pipeline: p|cases:|  - name: a|    events: []|    expect:|      out:|"
				   "        # of 1|        - json: 1|";
	const char *why = NULL, *end = breaks[_i];
	char text[2 * sizeof(kept)], wanted[2 * sizeof(kept)];
	struct kit_edits edits = {0};

	put_lines(put_lines(text, kept, end), "        - json: 2|    # end|", end);
	put_lines(stpcpy(put_lines(wanted, kept, end), "        - json: 3\n"), "    # end|", end);
	write_file(text);
	struct kit_file *file = read_cases();
	struct kit_verdict verdict = judged(file, "13", "aa");
	ck_assert_uint_eq(verdict.wrong, 1);
	ck_assert(kit_update_plan(&edits, &file->cases[0], &verdict, &why));
	ck_assert_ptr_null(kit_update_apply(&edits, path, file->document->text));
	kit_edits_free(&edits);
	kit_file_free(file);
	ck_assert_str_eq(read_file(), wanted);
	file = read_cases();
	ck_assert_uint_eq(judged(file, "13", "aa").wrong, 0);
	kit_file_free(file);
}
END_TEST

/* What `x.test.yaml` is after an update for a record without a key; it must hold then. */
static const char *updated(const char *text)
{
	const char *why = NULL;
	struct kit_edits edits = {0};
	struct kit_header header = {.name = "h", .value = "1"};
	struct kit_record actual[2] = {
	    {.payload = view_of("1"), .has_payload = true, .has_timestamp = true},
	    {.payload = view_of("# 2"), .has_payload = true, .headers = &header, .header_count = 1}};

	write_file(text);
	struct kit_file *file = read_cases();
	struct kit_verdict verdict = kit_judge(&pool, "out", &file->cases[0].expect.outputs[0], actual, 2);
	ck_assert_uint_ge(verdict.wrong, 1);
	bool planned = kit_update_plan(&edits, &file->cases[0], &verdict, &why);
	if (planned)
		ck_assert_ptr_null(kit_update_apply(&edits, path, file->document->text));
	kit_edits_free(&edits);
	kit_file_free(file);
	if (!planned)
		return why;
	file = read_cases();
	verdict = kit_judge(&pool, "out", &file->cases[0].expect.outputs[0], actual, 2);
	ck_assert_msg(verdict.wrong == 0, "%s became\n%s", text, read_file());
	kit_file_free(file);
	return read_file();
}

START_TEST(what_a_record_does_not_have_is_not_named)
{
#define BEFORE "pipeline: p\ncases:\n  - name: a\n    events: []\n    expect:\n      out:\n"
	ck_assert_str_eq(updated(BEFORE "        - key: k\n"), BEFORE "        - json: 1\n        - text: \"# 2\"\n");
	ck_assert_str_eq(updated(BEFORE "        - headers: {h: x}\n"),
			 BEFORE "        - json: 1\n        - headers:\n            h: \"1\"\n");
	ck_assert_str_eq(updated(BEFORE "        - json: 1\n        - timestamp: 0\n"),
			 BEFORE "        - json: 1\n        - text: \"# 2\"\n");
}
END_TEST

START_TEST(items_begin_and_end_where_they_do)
{
	/* A line that looks like a comment is text in a block; one that ends without a line break would be another with it. */
	ck_assert_str_eq(updated(BEFORE "        - text: |-\n            # 3\n"),
			 BEFORE "        - text: \"1\"\n        - text: \"# 2\"\n");
	ck_assert_str_eq(updated(BEFORE "        - json: 1\n        - text: |-\n            # 2\n        - json: 3\n"),
			 BEFORE "        - json: 1\n        - text: |-\n            # 2\n");
	/* A dash may stand above what it is for. */
	ck_assert_str_eq(updated(BEFORE "        # one\n        - # beside\n          json: 1\n        - json: 3\n"),
			 BEFORE "        # one\n        - # beside\n          json: 1\n        - text: \"# 2\"\n");
	ck_assert_str_eq(updated(BEFORE "        - text: |\n            x"),
			 "the file ends within a block of text: end its last line with a line break");
#undef BEFORE
}
END_TEST

START_TEST(payloads_of_any_bytes_are_written_and_read_back)
{
	static const char *const payloads[] = {"{\"a\":\"\\u0001\x7f\xc2\x85\xf0\x9f\x98\x80\"}",
					       "no JSON: { # \"",
					       "\xff\xfe",
					       "",
					       "true",
					       "[1,\"x: y\",{\"k\":[]}]"};
	struct kit_record actual[6];

	for (size_t i = 0; i < 6; i++)
		actual[i] =
		    (struct kit_record){.payload = view_of(payloads[i]), .has_payload = true, .has_timestamp = true};
	write_file("pipeline: p\ncases:\n  - name: a\n    events: []\n");
	for (int round = 0; round < 2; round++) {
		struct kit_edits edits = {0};
		const char *why = NULL;
		struct kit_file *file = read_cases();
		const struct kit_outputs *outputs = round == 0 ? NULL : &file->cases[0].expect.outputs[0];
		struct kit_verdict verdict = kit_judge(&pool, "out", outputs, actual, 6);
		ck_assert_uint_eq(verdict.wrong, round == 0 ? 6 : 0);
		if (round == 0)
			ck_assert(kit_update_plan(&edits, &file->cases[0], &verdict, &why));
		ck_assert_ptr_null(kit_update_apply(&edits, path, file->document->text));
		kit_edits_free(&edits);
		kit_file_free(file);
	}
}
END_TEST

/* ---- State ------------------------------------------------------------------------------------------------------------- */

/* A StateDelta body with one entry. */
static struct view delta(uint8_t bytes[256], uint32_t state, const char *key, const char *value, bool more)
{
	struct wire_writer writer = {bytes, bytes + 256, false};
	struct wire_entry entry = {.state = state,
				   .key = view_of(key),
				   .value = view_of(value == NULL ? "" : value),
				   .removed = value == NULL,
				   .more = more};
	uint8_t *body = wire_begin(&writer, FROM_WORKER_STATE_DELTA);

	wire_put_entry(&writer, &entry);
	wire_end_entries(&writer, body);
	ck_assert(!writer.overflow);
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, (struct view){bytes, (size_t)(writer.at - bytes)});
	ck_assert(wire_next(&reader, &field));
	return field.bytes;
}

START_TEST(the_last_word_about_a_key_counts)
{
	FlinkBridge__StateDeclaration keyed = FLINK_BRIDGE__STATE_DECLARATION__INIT, split = keyed;
	FlinkBridge__StateDeclaration *manifest[] = {&keyed, &split};
	FlinkBridge__OpenAck ack = FLINK_BRIDGE__OPEN_ACK__INIT;
	struct kit_states states = {0};
	uint8_t bytes[256];

	keyed.step = split.step = (char *)"s";
	keyed.name = (char *)"k";
	split.name = (char *)"l";
	split.partition = FLINK_BRIDGE__STATE_PARTITION__STATE_SPLIT;
	ack.n_state_manifest = 2;
	ack.state_manifest = manifest;
	kit_states_declare(&states, &ack);
	ck_assert_ptr_null(kit_states_take(&states, 0, delta(bytes, 0, "a", "1", false)));
	ck_assert_ptr_null(kit_states_take(&states, 0, delta(bytes, 1, "x", "one", false)));
	ck_assert_ptr_null(kit_states_take(&states, 1, delta(bytes, 1, "x", "two", false)));
	ck_assert_ptr_null(kit_states_take(&states, 1, delta(bytes, 0, "a", "2", false)));
	ck_assert_ptr_null(kit_states_take(&states, 0, delta(bytes, 0, "b", "3", false)));
	ck_assert_ptr_null(kit_states_take(&states, 0, delta(bytes, 0, "b", NULL, false)));
	ck_assert_ptr_null(kit_states_take(&states, 0, delta(bytes, 0, "c", "par", true)));
	ck_assert_ptr_null(kit_states_take(&states, 0, delta(bytes, 0, "c", "ts", false)));
	kit_states_settle(&states);
	ck_assert_uint_eq(states.count, 4); /* a, c; and x of two subtasks */
	ck_assert(view_equal(states.entries[0].entry.value, view_of("2")));
	ck_assert(view_equal(states.entries[1].entry.value, view_of("parts")));
	ck_assert(kit_states_is_for(&states, &states.entries[3], 1, 2, 128));
	ck_assert(!kit_states_is_for(&states, &states.entries[3], 0, 2, 128));
	kit_states_forget_unkeyed(&states);
	ck_assert_ptr_null(kit_states_take(&states, 0, delta(bytes, 0, "c", "new", false)));
	kit_states_settle(&states);
	ck_assert_uint_eq(states.count, 2);
	ck_assert(view_equal(states.entries[1].entry.value, view_of("new")));
	ck_assert_ptr_nonnull(kit_states_take(&states, 0, delta(bytes, 2, "a", "1", false)));
	kit_states_free(&states);
}
END_TEST

/* ---- Whole cases --------------------------------------------------------------------------------------------------------- */

/* Runs a case of the file. */
static struct kit_outcome ran(size_t index, bool update, struct kit_edits *edits, struct kit_file **file)
{
	struct kit_run_options options = {.patience_ms = 60000, .update = update};

	*file = read_cases();
	return kit_run(*file, &(*file)->cases[index], &options, edits);
}

#define CASE                                                                                                           \
	"pipeline:\n  name: p\n  sources: { in: { kind: generator } }\n  steps:\n"                                     \
	"    - { name: k, kind: key_by, key: .k }\n    - { name: t, kind: aggregate, fields: { n: count } }\n"         \
	"  sinks: { out: { kind: print } }\ncases:\n  - name: a\n    events:\n      - json: { k: x }\n"                \
	"      - restart: worker\n      - json: { k: x }\n      - restart: job\n        parallelism: 3\n"              \
	"      - json: { k: x }\n      - end\n"

START_TEST(a_case_runs_over_restarts_and_is_updated)
{
	struct kit_edits edits = {0};
	struct kit_file *file;

	write_file(CASE);
	struct kit_outcome outcome = ran(0, false, &edits, &file);
	ck_assert(outcome.failed);
	ck_assert_ptr_nonnull(strstr(outcome.words, "sink \"out\": expected 0 records, got 3"));
	free(outcome.words);
	free(outcome.coloured);
	kit_file_free(file);
	outcome = ran(0, true, &edits, &file);
	ck_assert_msg(outcome.updated, "%s", outcome.words);
	ck_assert_ptr_null(kit_update_apply(&edits, path, file->document->text));
	kit_edits_free(&edits);
	free(outcome.words);
	free(outcome.coloured);
	kit_file_free(file);
	ck_assert_str_eq(read_file(), CASE "    expect:\n      out:\n        - json: {\"key\": \"x\", \"n\": 1}\n"
					   "        - json: {\"key\": \"x\", \"n\": 2}\n"
					   "        - json: {\"key\": \"x\", \"n\": 3}\n");
	outcome = ran(0, false, &edits, &file);
	ck_assert_msg(!outcome.failed, "%s", outcome.words);
	free(outcome.words);
	free(outcome.coloured);
	kit_file_free(file);
}
END_TEST

static Suite *kit_suite(void)
{
	Suite *suite = suite_create("kit");
	TCase *tests = tcase_create("kit");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, records_are_compared_in_order);
	tcase_add_test(tests, only_what_is_named_is_compared);
	tcase_add_test(tests, in_any_order_each_expectation_finds_its_record);
	tcase_add_test(tests, by_key_the_records_of_a_key_are_in_order);
	tcase_add_loop_test(tests, an_updated_file_holds_and_keeps_what_held, 0, 8);
	tcase_add_loop_test(tests, lines_end_with_any_break_that_yaml_has, 0, 6);
	tcase_add_test(tests, what_a_record_does_not_have_is_not_named);
	tcase_add_test(tests, items_begin_and_end_where_they_do);
	tcase_add_test(tests, payloads_of_any_bytes_are_written_and_read_back);
	tcase_add_test(tests, the_last_word_about_a_key_counts);
	tcase_add_test(tests, a_case_runs_over_restarts_and_is_updated);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(kit_suite)
