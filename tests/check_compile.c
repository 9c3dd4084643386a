/*
 * Checks the compiler on a corpus: tests/corpus/pipeline/good/NAME.yaml compiles to exactly NAME.descriptor, and
 * bad/NAME.yaml ends in exactly the findings of NAME.findings. A NAME.config beside either is laid over it.
 *
 * UPDATE_CORPUS=1 in the environment writes the expected files anew; read what changed before it is committed.
 */
#include "descriptor/compile.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptor/kinds.h"
#include "shared/log.h"
#include "tests/check_main.h"
#include "worker/chain.h"

static const char corpus[] = "tests/corpus/pipeline";

/* Reads a whole file; NULL when there is none. */
static char *slurp(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = NULL;
	size_t size = 0;

	if (file == NULL)
		return NULL;
	FILE *out = open_memstream(&text, &size);
	for (int c; (c = fgetc(file)) != EOF;)
		fputc(c, out);
	fclose(file);
	fclose(out);
	return text;
}

/* Compares text with what a file expects, or writes the file when that is asked for. */
static void expect(const char *path, const char *text)
{
	if (getenv("UPDATE_CORPUS") != NULL) {
		FILE *file = fopen(path, "w");
		ck_assert_ptr_nonnull(file);
		fputs(text, file);
		ck_assert_int_eq(fclose(file), 0);
		return;
	}
	char *expected = slurp(path);
	ck_assert_msg(expected != NULL, "%s is missing", path);
	ck_assert_msg(strcmp(text, expected) == 0, "not what %s says:\n%s", path, text);
	free(expected);
}

/* Names of the pipelines in a folder of the corpus, without their ends. */
static size_t names_list(const char *folder, char names[][64], size_t room)
{
	char path[PATH_MAX];
	size_t count = 0;

	snprintf(path, sizeof(path), "%s/%s", corpus, folder);
	DIR *directory = opendir(path);
	if (directory == NULL)
		fatal("%s: run this from the top of the repository", path);
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
		const char *end = strrchr(entry->d_name, '.');
		if (end == NULL || strcmp(end, ".yaml") != 0)
			continue;
		CHECK(count < room);
		snprintf(names[count++], 64, "%.*s", (int)(end - entry->d_name), entry->d_name);
	}
	closedir(directory);
	return count;
}

/* Compiles a program, and says the same of all that are broken: the compiler's words are another in each of its versions. */
static char *program_look(const char *program)
{
	char *words = jq_program_check(program);

	free(words);
	return words == NULL ? NULL : strdup("(the compiler's words)");
}

/* Compiles one pipeline of the corpus, with its configuration if it has one. */
static struct descriptor *corpus_compile(const char *folder, const char *name, struct diagnostics *diagnostics)
{
	char path[PATH_MAX], config[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s/%s.yaml", corpus, folder, name);
	snprintf(config, sizeof(config), "%s/%s/%s.config", corpus, folder, name);
	return compile_file(path, access(config, R_OK) == 0 ? config : NULL, program_look, diagnostics);
}

/* A descriptor as text, to be freed. */
static char *descriptor_text(const struct descriptor *descriptor)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	descriptor_write(descriptor, out);
	fclose(out);
	return text;
}

enum { CORPUS_MAX = 200 };
static char good[CORPUS_MAX][64], bad[CORPUS_MAX][64];
static size_t good_count, bad_count;

START_TEST(test_good)
{
	struct diagnostics diagnostics;
	char path[PATH_MAX];

	diagnostics_init(&diagnostics);
	struct descriptor *descriptor = corpus_compile("good", good[_i], &diagnostics);
	if (descriptor == NULL) {
		diagnostics_print(&diagnostics, stderr, false);
		ck_abort_msg("%s has findings", good[_i]);
	}
	char *text = descriptor_text(descriptor);
	snprintf(path, sizeof(path), "%s/good/%s.descriptor", corpus, good[_i]);
	expect(path, text);

	struct descriptor *loaded = descriptor_load(path, &diagnostics);
	if (loaded == NULL) {
		diagnostics_print(&diagnostics, stderr, false);
		ck_abort_msg("%s cannot be loaded", path);
	}
	char *again = descriptor_text(loaded);
	ck_assert_str_eq(text, again);
	free(again);
	free(text);
	descriptor_free(loaded);
	descriptor_free(descriptor);
	diagnostics_free(&diagnostics);
}
END_TEST

START_TEST(test_bad)
{
	struct diagnostics diagnostics;
	char path[PATH_MAX], *text;
	size_t size;

	diagnostics_init(&diagnostics);
	struct descriptor *descriptor = corpus_compile("bad", bad[_i], &diagnostics);
	ck_assert_msg(descriptor == NULL, "%s has no findings", bad[_i]);
	FILE *out = open_memstream(&text, &size);
	diagnostics_print(&diagnostics, out, false);
	fclose(out);
	snprintf(path, sizeof(path), "%s/bad/%s.findings", corpus, bad[_i]);
	expect(path, text);
	free(text);
	diagnostics_free(&diagnostics);
}
END_TEST

/* The headers of dead letters. */
static const struct {
	const char *name, *help;
} error_headers[] = {
#define ERROR_HEADER(symbol, name, help) {name, help},
#include "worker/error_headers.def"
};

/* Whether a table of a page has a row that begins so and ends in the sentence. */
static bool has_row(const char *page, const char *begin, const char *sentence)
{
	for (const char *at = page; (at = strstr(at, begin)) != NULL; at++) {
		const char *end = strchr(at, '\n'), *found = strstr(at, sentence);
		if (found != NULL && found < end && (at == page || at[-1] == '\n') &&
		    strncmp(found + strlen(sentence), " |\n", 3) == 0)
			return true;
	}
	return false;
}

/* Makes sure that a page has a row for each option of a scope. */
static void page_has_options(const char *path, enum scope scope)
{
	char *page = slurp(path), begin[128];

	ck_assert_ptr_nonnull(page);
	for (unsigned kind = 0; kind < kind_count(scope); kind++) {
		size_t count;
		const struct option_info *options = kind_options(scope, kind, &count);
		ck_assert_ptr_nonnull(strstr(page, kind_info(scope, kind)->help));
		for (size_t i = 0; i < count; i++) {
			snprintf(begin, sizeof(begin), "| `%s` | ", options[i].name);
			ck_assert_msg(has_row(page, begin, options[i].help), "%s: no row %s...%s", path, begin,
				      options[i].help);
		}
	}
	free(page);
}

/* Makes sure that the page has a row for everything that is said of failures. */
static void page_has_rules(void)
{
	char *page = slurp("docs/pipeline.md"), begin[128];

	ck_assert_ptr_nonnull(page);
	for (size_t i = 0; i < ERROR_RULE_COUNT; i++) {
		snprintf(begin, sizeof(begin), "| `%s` | ", error_rule_infos[i].name);
		ck_assert_msg(has_row(page, begin, error_rule_infos[i].help), "docs/pipeline.md: no row %s...%s", begin,
			      error_rule_infos[i].help);
	}
	for (size_t i = 0; i < sizeof(error_headers) / sizeof(*error_headers); i++) {
		snprintf(begin, sizeof(begin), "| `%s` | ", error_headers[i].name);
		ck_assert_msg(has_row(page, begin, error_headers[i].help), "docs/pipeline.md: no row %s...%s", begin,
			      error_headers[i].help);
	}
	free(page);
}

START_TEST(test_the_pages_have_every_option_of_sources_sinks_and_flink)
{
	page_has_options("docs/pipeline.md", SCOPE_SOURCE);
	page_has_options("docs/pipeline.md", SCOPE_SINK);
	page_has_options("docs/flink.md", SCOPE_FLINK);
	page_has_rules();
}
END_TEST

START_TEST(test_the_pipelines_of_the_page_compile)
{
	char *page = slurp("docs/pipeline.md");
	size_t compiled = 0;

	ck_assert_ptr_nonnull(page);
	for (const char *at = page; (at = strstr(at, "```yaml\nname:")) != NULL; compiled++) {
		const char *start = at + strlen("```yaml\n"), *end = strstr(start, "```");
		struct diagnostics diagnostics;
		diagnostics_init(&diagnostics);
		struct descriptor *descriptor =
		    compile_text("docs/pipeline.md", (struct view){(const uint8_t *)start, (size_t)(end - start)},
				 program_look, &diagnostics);
		diagnostics_print(&diagnostics, stderr, false);
		ck_assert_ptr_nonnull(descriptor);
		descriptor_free(descriptor);
		diagnostics_free(&diagnostics);
		at = end;
	}
	ck_assert_uint_ge(compiled, 2);
	free(page);
}
END_TEST

static size_t programs_seen;

/* Counts what it is asked about. */
static char *program_count(const char *program)
{
	(void)program;
	programs_seen++;
	return NULL;
}

/* Compiles what a function writes; the finding must be the only one and have some words. */
static void only_finding(void (*write)(FILE *out), const char *words)
{
	struct diagnostics diagnostics;
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	write(out);
	fclose(out);
	diagnostics_init(&diagnostics);
	struct view view = {(const uint8_t *)text, size};
	ck_assert_ptr_null(compile_text("p.yaml", view, program_count, &diagnostics));
	ck_assert_uint_eq(diagnostics.count, 1);
	ck_assert_msg(strstr(diagnostics.findings[0].message, words) != NULL, "%s", diagnostics.findings[0].message);
	diagnostics_free(&diagnostics);
	free(text);
}

/* A pipeline with 5,000 programs. */
static void write_many_programs(FILE *out)
{
	fputs("name: p\nsources:\n  in: { kind: generator }\nsteps:\n", out);
	for (int step = 0; step < 50; step++) {
		fprintf(out, "- name: s%d\n  kind: set\n  fields:\n", step);
		for (int field = 0; field < 100; field++)
			fprintf(out, "    f%d: .x\n", field);
	}
	fputs("sinks:\n  out: { kind: discard }\n", out);
}

START_TEST(test_programs_are_bounded)
{
	programs_seen = 0;
	only_finding(write_many_programs, "more than 1000 programs");
	ck_assert_uint_eq(programs_seen, 1000);
}
END_TEST

/* As many steps as there may be, each reading as many as it may. */
static void write_dense(FILE *out)
{
	fputs("name: p\nsources:\n  in: { kind: generator }\nsteps:\n", out);
	for (int step = 0; step < DESCRIPTOR_STEPS_MAX; step++) {
		fprintf(out, "- { name: s%d, kind: passthrough, from: [in", step);
		for (int from = step > 63 ? step - 63 : 0; from < step; from++)
			fprintf(out, ",s%d", from);
		fputs("] }\n", out);
	}
	fputs("sinks:\n  out: { kind: discard }\n", out);
}

START_TEST(test_the_largest_pipeline_is_survived)
{
	only_finding(write_dense, "falls into 1000 segments");
}
END_TEST

START_TEST(test_the_corpus_is_there)
{
	ck_assert_uint_ge(good_count, 3);
	ck_assert_uint_ge(bad_count, 3);
}
END_TEST

static Suite *compile_suite(void)
{
	Suite *suite = suite_create("compile");
	TCase *tcase = tcase_create("corpus");

	setenv("CORPUS_DIRECTORY", "/data", 1);
	unsetenv("CORPUS_NOTHING");
	good_count = names_list("good", good, CORPUS_MAX);
	bad_count = names_list("bad", bad, CORPUS_MAX);
	tcase_add_test(tcase, test_the_corpus_is_there);
	tcase_add_test(tcase, test_programs_are_bounded);
	tcase_add_test(tcase, test_the_largest_pipeline_is_survived);
	tcase_add_test(tcase, test_the_pages_have_every_option_of_sources_sinks_and_flink);
	tcase_add_test(tcase, test_the_pipelines_of_the_page_compile);
	tcase_add_loop_test(tcase, test_good, 0, (int)good_count);
	tcase_add_loop_test(tcase, test_bad, 0, (int)bad_count);
	suite_add_tcase(suite, tcase);
	return suite;
}

CHECK_MAIN(compile_suite)
