/* Checks the reader of YAML documents: trees with positions, its bounds, what it refuses, and substitution. */
#include "descriptor/document.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check_main.h"

static struct diagnostics diagnostics;

static void setup(void)
{
	diagnostics_init(&diagnostics);
}

static void teardown(void)
{
	diagnostics_free(&diagnostics);
}

/* Parses text with the bounds of people's files. */
static struct document *parse_bytes(const char *text, size_t size)
{
	return document_parse("p.yaml", (struct view){(const uint8_t *)text, size}, document_limits_default,
			      &diagnostics);
}

static struct document *parse(const char *text)
{
	return parse_bytes(text, strlen(text));
}

/* The text of a finding at a place, which must be the only one. */
static const struct finding *only_finding(size_t line, size_t column)
{
	ck_assert_uint_eq(diagnostics.count, 1);
	ck_assert_str_eq(diagnostics.findings[0].where.file, "p.yaml");
	ck_assert_uint_eq(diagnostics.findings[0].where.line, line);
	ck_assert_uint_eq(diagnostics.findings[0].where.column, column);
	return &diagnostics.findings[0];
}

/* Parses text that must be refused as a whole, with one finding whose message has `words` in it. */
static void refused(const char *text, size_t line, size_t column, const char *words)
{
	struct document *document = parse(text);

	ck_assert_ptr_null(document);
	ck_assert_ptr_nonnull(strstr(only_finding(line, column)->message, words));
}

/* Parses text that is read with one finding whose message has `words` in it. */
static void flawed(const char *text, size_t line, size_t column, const char *words)
{
	struct document *document = parse(text);

	ck_assert_ptr_nonnull(document);
	ck_assert_ptr_nonnull(strstr(only_finding(line, column)->message, words));
	document_free(document);
}

START_TEST(test_tree)
{
	struct document *document =
	    parse("name: x\nlist: [a, 'b c', {d: \"\\u00e9\"}]\nempty:\nblock: |\n  one\n  two\n");
	ck_assert_ptr_nonnull(document);
	ck_assert_uint_eq(diagnostics.count, 0);
	ck_assert_int_eq(document->root->kind, NODE_MAP);
	ck_assert_uint_eq(document->root->count, 4);
	const struct node *name = node_find(document->root, "name");
	ck_assert_str_eq(name->text, "x");
	ck_assert_uint_eq(name->line, 1);
	ck_assert_uint_eq(name->column, 7);
	const struct node *list = node_find(document->root, "list");
	ck_assert_int_eq(list->kind, NODE_LIST);
	ck_assert_uint_eq(list->count, 3);
	ck_assert_str_eq(list->first->next->text, "b c");
	ck_assert(list->first->next->quoted);
	ck_assert_str_eq(node_find(list->first->next->next, "d")->text, "\xc3\xa9");
	ck_assert(node_is_null(node_find(document->root, "empty")));
	ck_assert_str_eq(node_find(document->root, "block")->text, "one\ntwo\n");
	ck_assert_ptr_null(node_find(document->root, "other"));
	document_free(document);
}
END_TEST

START_TEST(test_columns_count_characters)
{
	struct document *document = parse("{ \"\xc3\xa9\xe2\x82\xac\": \xf0\x9f\x98\x80, b: c }\n");
	const struct node *b = node_find(document->root, "b");
	node_finding(&diagnostics, b, "here");
	const struct finding *finding = only_finding(1, 15);
	ck_assert_uint_eq(finding->indent, 14);
	ck_assert_uint_eq(finding->width, 1);
	document_free(document);
}
END_TEST

START_TEST(test_a_long_line_is_cut_around_the_place)
{
	char text[4096];
	memset(text, ' ', sizeof(text));
	memcpy(text, "a: \"", 4);
	memset(text + 4, 'x', 3000);
	memcpy(text + 3004, "\"\nb: c\n", 8);
	struct document *document = parse(text);
	struct node place = *node_find(document->root, "a");
	place.column = 2000;
	place.width = 9;
	node_finding(&diagnostics, &place, "here");
	const struct finding *finding = &diagnostics.findings[0];
	ck_assert_uint_le(strlen(finding->excerpt), 120);
	ck_assert_uint_eq(finding->width, 9);
	ck_assert_uint_lt(finding->indent, 100);
	document_free(document);
}
END_TEST

START_TEST(test_duplicate_keys)
{
	flawed("a: 1\nb: 2\na: 3\n", 3, 1, "twice; first in line 1");
}
END_TEST

START_TEST(test_anchors_aliases_tags)
{
	struct document *document = parse("a: &x [1]\nb: *x\nc: !!str 5\n");
	ck_assert_ptr_nonnull(document);
	ck_assert_uint_eq(diagnostics.count, 3);
	ck_assert_int_eq(node_find(document->root, "b")->kind, NODE_BROKEN);
	document_free(document);
}
END_TEST

START_TEST(test_laughs_are_refused_not_expanded)
{
	struct document *document = parse("a: &a [l,l,l,l]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c]\n");
	ck_assert_ptr_nonnull(document);
	ck_assert_uint_eq(diagnostics.count, 14);
	document_free(document);
}
END_TEST

START_TEST(test_depth)
{
	char text[128];
	memset(text, '[', 32);
	memset(text + 32, ']', 32);
	text[64] = '\0';
	struct document *document = parse(text);
	ck_assert_ptr_nonnull(document);
	document_free(document);
	memset(text, '[', 64);
	refused(text, 1, 33, "deeper than 32");
}
END_TEST

START_TEST(test_nodes)
{
	size_t items = DOCUMENT_NODES_MAX + 5;
	char *text = malloc(2 * items + 8), *at = text;
	*at++ = '[';
	for (size_t i = 0; i < items; i++) {
		*at++ = 'a';
		*at++ = ',';
	}
	strcpy(at, "]\n");
	ck_assert_ptr_null(parse(text));
	ck_assert_uint_eq(diagnostics.count, 1);
	ck_assert_ptr_nonnull(strstr(diagnostics.findings[0].message, "more than 100000 values"));
	free(text);
}
END_TEST

START_TEST(test_many_duplicates_are_bounded)
{
	char text[8 * 400 + 1], *at = text;
	for (size_t i = 0; i < 400; i++)
		at = stpcpy(at, "k: v\n");
	struct document *document = parse(text);
	ck_assert_uint_eq(diagnostics.count, DIAGNOSTICS_MAX);
	ck_assert_uint_eq(diagnostics.dropped, 399 - DIAGNOSTICS_MAX);
	document_free(document);
}
END_TEST

START_TEST(test_refused_text)
{
	ck_assert_ptr_null(parse_bytes("a: \xff\n", 5));
	ck_assert_ptr_nonnull(strstr(only_finding(1, 4)->message, "not UTF-8: the byte 0xff"));
	teardown();
	ck_assert_ptr_null(parse_bytes("a: 1\nb: \xe2\x82", 10));
	ck_assert_ptr_nonnull(strstr(only_finding(2, 4)->message, "not UTF-8"));
	teardown();
	ck_assert_ptr_null(parse_bytes("a: 1\0b: 2\n", 10));
	ck_assert_ptr_nonnull(strstr(only_finding(1, 5)->message, "control character: the byte 0x00"));
	teardown();
	ck_assert_ptr_null(parse_bytes("a: \x1b[2J\n", 8));
	ck_assert_ptr_null(strchr(only_finding(1, 4)->excerpt, '\x1b'));
}
END_TEST

START_TEST(test_utf16_is_refused)
{
	ck_assert_ptr_null(parse_bytes("\xff\xfe"
				       "a\0:\0 \0b\0",
				       10));
	ck_assert_ptr_nonnull(strstr(only_finding(1, 1)->message, "not UTF-8"));
}
END_TEST

START_TEST(test_byte_order_mark)
{
	struct document *document = parse("\xef\xbb\xbf"
					  "a: b\n");
	ck_assert_ptr_nonnull(document);
	ck_assert_uint_eq(node_find(document->root, "a")->column, 4);
	document_free(document);
}
END_TEST

START_TEST(test_problems_of_yaml)
{
	refused("a: b\n\tc: d\n", 2, 1, "a tab where YAML wants spaces");
	teardown();
	refused("a: b: c\n", 1, 5, "`: ` stands where no key can be");
	teardown();
	refused("a: [1, 2\nb: 3\n", 2, 2, "not YAML");
	teardown();
	refused("a: @x\n", 1, 4, "cannot start a value");
	ck_assert_str_eq(diagnostics.findings[0].hint, "put the text into quotes");
	teardown();
	refused("a: 1\n---\nb: 2\n", 2, 1, "second YAML document");
	teardown();
	refused("", 0, 0, "empty");
	teardown();
	refused("# only a comment\n", 0, 0, "empty");
	teardown();
	flawed("? [a, b]\n: c\n", 1, 3, "a list as a key");
	teardown();
	flawed("a: \"x\\0y\"\n", 1, 4, "NUL character");
}
END_TEST

START_TEST(test_long_keys)
{
	char text[400];
	memset(text, 'k', 300);
	strcpy(text + 300, ": v\n");
	flawed(text, 1, 1, "a key of 300 bytes");
}
END_TEST

START_TEST(test_unknown_keys)
{
	static const char *const names[] = {"name", "parallelism"};
	struct document *document = parse("name: x\nparalelism: 2\n");
	node_check_keys(document->root, "the pipeline", names, 2, &diagnostics);
	const struct finding *finding = only_finding(2, 1);
	ck_assert_str_eq(finding->message, "unknown key \"paralelism\" in the pipeline");
	ck_assert_str_eq(finding->expected, "one of: name, parallelism");
	ck_assert_str_eq(finding->hint, "did you mean \"parallelism\"?");
	ck_assert_str_eq(finding->excerpt, "paralelism: 2");
	ck_assert_uint_eq(finding->width, 10);
	document_free(document);
}
END_TEST

/* Substitutes in one value; NULL when that made a finding. */
static const char *substituted(const char *yaml, struct document **document)
{
	*document = parse(yaml);
	ck_assert_ptr_nonnull(*document);
	document_substitute(*document, &diagnostics);
	const struct node *node = node_find((*document)->root, "a");
	return node->kind == NODE_SCALAR ? node->text : NULL;
}

START_TEST(test_substitution)
{
	static const struct {
		const char *yaml, *value;
	} cases[] = {
	    {"a: ${CHECK_ONE}", "one"},
	    {"a: \"x${CHECK_ONE}y${CHECK_ONE}\"", "xoneyone"},
	    {"a: ${CHECK_NONE:-two three}", "two three"},
	    {"a: ${CHECK_EMPTY:-four}", "four"},
	    {"a: x${CHECK_EMPTY}y", "xy"},
	    {"a: ${CHECK_NONE:-}", ""},
	    {"a: . as $x | $x", ". as $x | $x"},
	    {"a: $$5 and $${CHECK_ONE}", "$5 and ${CHECK_ONE}"},
	    {"a: 5$", "5$"},
	    {"a: ${CHECK_DOLLAR}", "${CHECK_ONE}"},
	};
	setenv("CHECK_ONE", "one", 1);
	setenv("CHECK_EMPTY", "", 1);
	setenv("CHECK_DOLLAR", "${CHECK_ONE}", 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct document *document;
		ck_assert_str_eq(substituted(cases[i].yaml, &document), cases[i].value);
		ck_assert_uint_eq(diagnostics.count, 0);
		document_free(document);
	}
}
END_TEST

START_TEST(test_substitution_refused)
{
	static const struct {
		const char *yaml, *words;
	} cases[] = {
	    {"a: ${CHECK_NONE}", "no variable CHECK_NONE"},
	    {"a: ${}", "no reference"},
	    {"a: ${1X}", "no reference"},
	    {"a: ${CHECK_ONE", "no reference"},
	    {"a: ${CHECK_ONE:+x}", "no reference"},
	    {"a: ${CHECK_BAD}", "CHECK_BAD is not text"},
	    {"a: ${CHECK_CONTROL}", "CHECK_CONTROL is not"},
	};
	setenv("CHECK_BAD", "\xff", 1);
	setenv("CHECK_CONTROL", "\x1b", 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct document *document;
		ck_assert_ptr_null(substituted(cases[i].yaml, &document));
		ck_assert_ptr_nonnull(strstr(only_finding(1, 4)->message, cases[i].words));
		document_free(document);
		teardown();
	}
}
END_TEST

START_TEST(test_substitution_is_bounded)
{
	char value[20001], yaml[2001] = "a: ";
	struct document *document;

	memset(value, 'x', 20000);
	value[20000] = '\0';
	setenv("CHECK_BIG", value, 1);
	for (size_t i = 0; i < 60; i++)
		strcat(yaml, "${CHECK_BIG}");
	ck_assert_ptr_null(substituted(yaml, &document));
	ck_assert_ptr_nonnull(strstr(only_finding(1, 4)->message, "too much text"));
	document_free(document);
}
END_TEST

/* Reads a path that must be refused, with words. */
static void file_refused(const char *path, const char *words)
{
	ck_assert_ptr_null(document_read(path, document_limits_default, &diagnostics));
	ck_assert_uint_eq(diagnostics.count, 1);
	ck_assert_msg(strstr(diagnostics.findings[0].message, words) != NULL, "%s", diagnostics.findings[0].message);
	teardown();
}

START_TEST(test_files)
{
	char directory[] = "/tmp/check_yaml.XXXXXX", path[64];
	ck_assert_ptr_nonnull(mkdtemp(directory));

	file_refused("/nonexistent/p.yaml", "No such file");
	file_refused(directory, "is a directory");
	file_refused("/dev/zero", "device");
	snprintf(path, sizeof(path), "%s/fifo", directory);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	file_refused(path, "is a pipe");
	unlink(path);
	snprintf(path, sizeof(path), "%s/big.yaml", directory);
	int fd = open(path, O_CREAT | O_RDWR, 0600);
	ck_assert_int_eq(ftruncate(fd, 100 << 20), 0); /* a hole: reading it would find NUL bytes, not its size */
	file_refused(path, "at most 1024 KiB");
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(write(fd, "a: b\n", 5), 5);
	struct document *document = document_read(path, document_limits_default, &diagnostics);
	ck_assert_ptr_nonnull(document);
	ck_assert_str_eq(document->file, path);
	document_free(document);
	close(fd);
	unlink(path);
	rmdir(directory);
}
END_TEST

START_TEST(test_printing)
{
	char *text = NULL;
	size_t size;
	struct document *document = parse("b: 1\na: 2\n");
	node_finding(&diagnostics, node_find(document->root, "a"), "second \x1b[2J");
	finding_expected(node_finding(&diagnostics, node_find(document->root, "b"), "first"), "a letter");
	FILE *out = open_memstream(&text, &size);
	diagnostics_print(&diagnostics, out, false);
	fclose(out);
	ck_assert_str_eq(text, "p.yaml:1:4: error: first\n     1 | b: 1\n       |    ^\n  expected a letter\n"
			       "p.yaml:2:4: error: second  [2J\n     2 | a: 2\n       |    ^\n2 errors\n");
	free(text);
	out = open_memstream(&text, &size);
	diagnostics_print_json(&diagnostics, out);
	fclose(out);
	ck_assert_str_eq(
	    text, "[{\"file\":\"p.yaml\",\"line\":1,\"column\":4,\"message\":\"first\",\"expected\":\"a letter\","
		  "\"hint\":null},{\"file\":\"p.yaml\",\"line\":2,\"column\":4,\"message\":\"second  [2J\","
		  "\"expected\":null,\"hint\":null}]\n");
	free(text);
	document_free(document);
}
END_TEST

static Suite *yaml_suite(void)
{
	const TTest *const tests[] = {
	    test_tree,
	    test_columns_count_characters,
	    test_a_long_line_is_cut_around_the_place,
	    test_duplicate_keys,
	    test_anchors_aliases_tags,
	    test_laughs_are_refused_not_expanded,
	    test_depth,
	    test_nodes,
	    test_many_duplicates_are_bounded,
	    test_refused_text,
	    test_utf16_is_refused,
	    test_byte_order_mark,
	    test_problems_of_yaml,
	    test_long_keys,
	    test_unknown_keys,
	    test_substitution,
	    test_substitution_refused,
	    test_substitution_is_bounded,
	    test_files,
	    test_printing,
	};
	Suite *suite = suite_create("yaml");
	TCase *tcase = tcase_create("yaml");
	tcase_add_checked_fixture(tcase, setup, teardown);
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	return suite;
}

CHECK_MAIN(yaml_suite)
