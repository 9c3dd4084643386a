/*
 * Checks descriptors as their readers see them: the struct that a file becomes, the hash and what it is made of, and what is
 * found in files that were damaged by hand.
 */
#include "descriptor/descriptor.h"

#include <stdlib.h>
#include <string.h>

#include "descriptor/against.h"
#include "descriptor/compile.h"
#include "descriptor/manifest.h"
#include "tests/check_main.h"

static const char pipeline[] = "name: p\n"
			       "parallelism: 2\n"
			       "sources:\n"
			       "  in: { kind: file, path: x, timestamp: .ts, out_of_orderness: 2s, idle: 1min }\n"
			       "  made: { kind: generator, count: 5, rate: 7, program: '{n: .}' }\n"
			       "steps:\n"
			       "  - { name: a, kind: filter, program: .a, from: [in, made] }\n"
			       "  - { name: b, kind: key_by, key: .k }\n"
			       "  - { name: c, kind: map, program: .c }\n"
			       "  - { name: d, kind: route, routes: { x: .x, y: default, z: .z } }\n"
			       "  - { name: e, kind: batch, from: d.y, time: 3s, segment: tail }\n"
			       "sinks:\n"
			       "  s1: { kind: file, path: out, from: [d.x, e] }\n"
			       "  s2: { kind: discard, from: d.z }\n";

static struct diagnostics diagnostics;

static void setup(void)
{
	diagnostics_init(&diagnostics);
}

static void teardown(void)
{
	diagnostics_free(&diagnostics);
}

/* Compiles text that must be fine. */
static struct descriptor *compile(const char *text)
{
	struct descriptor *descriptor = compile_text("p.yaml", view_of(text), NULL, &diagnostics);

	if (descriptor == NULL)
		diagnostics_print(&diagnostics, stderr, false);
	ck_assert_ptr_nonnull(descriptor);
	return descriptor;
}

/* A descriptor as text, to be freed. */
static char *text_of(const struct descriptor *descriptor)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	descriptor_write(descriptor, out);
	fclose(out);
	return text;
}

/* The descriptor of the pipeline above, once through its file. */
static struct descriptor *loaded(void)
{
	struct descriptor *compiled = compile(pipeline);
	char *text = text_of(compiled);
	struct descriptor *descriptor = descriptor_parse("d.yaml", view_of(text), &diagnostics);

	ck_assert_ptr_nonnull(descriptor);
	ck_assert_str_eq(compiled->topology_hash, descriptor->topology_hash);
	descriptor_free(compiled);
	free(text);
	return descriptor;
}

START_TEST(test_sources)
{
	struct descriptor *descriptor = loaded();
	const struct source *in = &descriptor->sources[0], *made = &descriptor->sources[1];
	ck_assert_str_eq(descriptor->pipeline, "p");
	ck_assert_uint_eq(descriptor->source_count, 2);
	ck_assert_str_eq(in->name, "in");
	ck_assert_int_eq(in->kind, SOURCE_FILE);
	ck_assert_uint_eq(in->parallelism, 1);
	ck_assert_str_eq(in->path, "x");
	ck_assert_str_eq(in->timestamp, ".ts");
	ck_assert_int_eq(in->out_of_orderness_ms, 2000);
	ck_assert_int_eq(in->idle_ms, 60000);
	ck_assert_int_eq(made->kind, SOURCE_GENERATOR);
	ck_assert_uint_eq(made->count, 5);
	ck_assert_uint_eq(made->rate, 7);
	ck_assert_str_eq(made->program, "{n: .}");
	ck_assert_ptr_null(made->timestamp);
	descriptor_free(descriptor);
}
END_TEST

START_TEST(test_segments)
{
	struct descriptor *descriptor = loaded();
	const struct segment *segments = descriptor->segments;
	ck_assert_uint_eq(descriptor->segment_count, 3);
	ck_assert_uint_eq(descriptor->step_count, 5);
	ck_assert_str_eq(segments[0].name, "a..b");
	ck_assert_uint_eq(segments[0].input_count, 2);
	ck_assert(segments[0].inputs[1].from_source);
	ck_assert_uint_eq(segments[0].inputs[1].index, 1);
	ck_assert_int_eq(segments[0].inputs[1].partition, PARTITION_REBALANCE);
	ck_assert(!segments[0].keyed);
	ck_assert_uint_eq(segments[0].route_count, 0);
	ck_assert_str_eq(segments[1].name, "c..d");
	ck_assert(segments[1].keyed);
	ck_assert_int_eq(segments[1].inputs[0].partition, PARTITION_HASH);
	ck_assert_uint_eq(segments[1].route_count, 3);
	ck_assert_str_eq(segments[1].routes[1], "y");
	ck_assert_uint_eq(segments[1].steps[0].index, 2);
	ck_assert_str_eq(segments[2].name, "tail");
	ck_assert_uint_eq(segments[2].id, 2);
	ck_assert_uint_eq(segments[2].inputs[0].index, 1);
	ck_assert_uint_eq(segments[2].inputs[0].route, 1);
	ck_assert_int_eq(segments[2].inputs[0].partition, PARTITION_FORWARD);
	ck_assert_uint_eq(segments[2].parallelism, 2);
	ck_assert_uint_eq(segments[2].max_parallelism, 128);
	descriptor_free(descriptor);
}
END_TEST

START_TEST(test_options)
{
	struct descriptor *descriptor = loaded();
	const struct step_spec *batch = &descriptor->segments[2].steps[0], *route = &descriptor->segments[1].steps[1];
	ck_assert_int_eq(batch->kind, STEP_batch);
	ck_assert_int_eq(step_option(batch, "size")->number, 100);
	ck_assert_int_eq(step_option(batch, "bytes")->number, 256 << 10);
	ck_assert_int_eq(step_option(batch, "time")->number, 3000);
	ck_assert_int_eq(step_option(batch, "payload")->number, FORM_JSON);
	ck_assert_uint_eq(step_option(route, "routes")->item_count, 3);
	ck_assert_str_eq(step_option(route, "routes")->items[0].value, ".x");
	ck_assert_str_eq(step_option(route, "routes")->items[1].name, "y");
	ck_assert_str_eq(step_option(route, "routes")->items[1].value, "default");
	descriptor_free(descriptor);
}
END_TEST

START_TEST(test_sinks)
{
	struct descriptor *descriptor = loaded();
	const struct sink *first = &descriptor->sinks[0];
	ck_assert_uint_eq(descriptor->sink_count, 2);
	ck_assert_int_eq(first->kind, SINK_FILE);
	ck_assert_str_eq(first->path, "out");
	ck_assert_uint_eq(first->parallelism, 1);
	ck_assert_uint_eq(first->input_count, 2);
	ck_assert_uint_eq(first->inputs[0].index, 1);
	ck_assert_uint_eq(first->inputs[0].route, 0);
	ck_assert_int_eq(first->inputs[0].partition, PARTITION_REBALANCE);
	ck_assert_uint_eq(first->inputs[1].index, 2);
	ck_assert_int_eq(descriptor->sinks[1].inputs[0].partition, PARTITION_FORWARD);
	descriptor_free(descriptor);
}
END_TEST

/* Text with the first place of one word replaced by another; to be freed. */
static char *replaced(const char *text, const char *old, const char *new)
{
	const char *at = strstr(text, old);
	char *copy = malloc(strlen(text) + strlen(new) + 1);

	ck_assert_msg(at != NULL, "no %s in the text", old);
	sprintf(copy, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
	return copy;
}

/* Whether replacing something in the pipeline changes the hash of its topology. */
static bool changes_hash(const char *old, const char *new)
{
	struct descriptor *before = compile(pipeline);
	char *text = replaced(pipeline, old, new);
	struct descriptor *after = compile(text);
	bool changed = strcmp(before->topology_hash, after->topology_hash) != 0;

	free(text);
	descriptor_free(before);
	descriptor_free(after);
	return changed;
}

START_TEST(test_the_hash_is_over_the_topology)
{
	ck_assert(changes_hash("name: p", "name: q"));
	ck_assert(changes_hash("key: .k", "key: .other"));
	ck_assert(changes_hash("{ x: .x, y: default, z: .z }", "{ z: .z, x: .x, y: default }"));
	ck_assert(changes_hash("from: [in, made]", "from: [made, in]"));
	ck_assert(changes_hash("parallelism: 2", "parallelism: 2\nmax_parallelism: 64"));
	ck_assert(changes_hash("segment: tail", "segment: head"));
	ck_assert(changes_hash("from: d.z", "from: [d.z, in]"));
	ck_assert(changes_hash("s2:", "s3:"));
	ck_assert(changes_hash("kind: batch, from: d.y, time: 3s", "kind: passthrough, from: d.y"));
}
END_TEST

START_TEST(test_the_hash_is_not_over_programs_and_deployments)
{
	ck_assert(!changes_hash("program: .a", "program: .other"));
	ck_assert(!changes_hash("x: .x", "x: .other"));
	ck_assert(!changes_hash("parallelism: 2", "parallelism: 5"));
	ck_assert(!changes_hash("path: out", "path: elsewhere"));
	ck_assert(!changes_hash("time: 3s", "time: 4s"));
	ck_assert(!changes_hash("program: .a,", "program: .a, on_error: skip,"));
}
END_TEST

START_TEST(test_compiling_twice_gives_the_same_bytes)
{
	struct descriptor *one = compile(pipeline), *two = compile(pipeline);
	char *first = text_of(one), *second = text_of(two);
	ck_assert_str_eq(first, second);
	free(first);
	free(second);
	descriptor_free(one);
	descriptor_free(two);
}
END_TEST

/* One change by hand, and what the loader has to say about it. */
static const struct {
	const char *old, *new, *words;
} damages[] = {
    {"format_version: 1", "format_version: 2", "another format version"},
    {"      format_version: 1\n", "", "has no \"format_version\""},
    {"id: 1", "id: 2", "segments are out of order"},
    {"id: 0", "id: zero", "id cannot be \"zero\""},
    {"id: 2", "id: 64", "id cannot be \"64\""},
    {"pipeline: \"p\"", "pipeline: \"q\"", "this segment is of pipeline"},
    {"topology_hash: \"", "topology_hash: \"0", "another topology hash than the first"},
    {"keyed: true", "keyed: false", "keyed if all of its inputs are"},
    {"keyed: true", "keyed: perhaps", "neither true nor false"},
    {"partition: \"hash\"", "partition: \"forward\"", "by hash behind a key_by"},
    {"partition: \"hash\"", "partition: \"hsh\"", "no partition"},
    {"partition: \"forward\"", "partition: \"hash\"", "by hash behind a key_by"},
    {"partition: \"rebalance\"", "partition: \"forward\"", "forward between parallelism 1 and 2"},
    {"source: \"in\"", "source: \"out\"", "there is no source \"out\""},
    {"segment: \"a..b\"", "segment: \"tail\"", "there is no segment \"tail\" before this"},
    {"route: \"y\"", "route: \"w\"", "has no such route"},
    {"          route: \"y\"\n", "", "the input has no \"route\""},
    {"        - \"x\"\n", "", "not those of its last step"},
    {"kind: \"key_by\"", "kind: \"map\"", "unknown key \"key\""},
    {"kind: \"filter\"", "kind: \"fliter\"", "cannot be \"fliter\""},
    {"chain:", "chian:", "has no \"chain\""},
    {"step_name: \"tail\"", "step_name: \"a..b\"", "a second segment of the name \"a..b\""},
    {"name: \"e\"", "name: \"a\"", "a second step of the name \"a\""},
    {"step_name: \"tail\"", "step_name: \"t/1\"", "cannot be \"t/1\""},
    {"max_parallelism: 128", "max_parallelism: 127", "the topology hash is not that of this file"},
    {"key: \".k\"", "key: \".l\"", "the topology hash is not that of this file"},
    {"parallelism: 2", "parallelism: 200", "from 1 to 128"},
    {"sinks:", "sink:", "has no \"sinks\""},
    {"sources:", "more: 1\nsources:", "unknown key \"more\""},
    {"size: 100", "size: 0", "cannot be \"0\""},
    {"time: \"3000ms\"", "time: \"3000\"", "cannot be \"3000\""},
    {"path: \"out\"", "", "has no \"path\""},
    {"          on_error: \"fail\"\n", "", "has no \"on_error\""},
    {"on_error: \"fail\"", "on_error: \"fial\"", "on_error cannot be \"fial\""},
    {"on_error: \"fail\"", "on_error: \"dead_letter\"", "not those of its last step and of its dead letters"},
};

START_TEST(test_damaged)
{
	struct descriptor *compiled = compile(pipeline);
	char *text = text_of(compiled), *damaged = replaced(text, damages[_i].old, damages[_i].new);
	struct descriptor *descriptor = descriptor_parse("d.yaml", view_of(damaged), &diagnostics);
	bool said = false;

	ck_assert_msg(descriptor == NULL, "\"%s\" for \"%s\" was taken", damages[_i].new, damages[_i].old);
	ck_assert_uint_gt(diagnostics.count, 0);
	for (size_t i = 0; i < diagnostics.count; i++) {
		said |= strstr(diagnostics.findings[i].message, damages[_i].words) != NULL ||
			(diagnostics.findings[i].expected != NULL &&
			 strstr(diagnostics.findings[i].expected, damages[_i].words) != NULL);
		ck_assert_uint_gt(diagnostics.findings[i].where.line, 0);
	}
	if (!said)
		diagnostics_print(&diagnostics, stderr, false);
	ck_assert_msg(said, "\"%s\" for \"%s\": not said: %s", damages[_i].new, damages[_i].old, damages[_i].words);
	free(damaged);
	free(text);
	descriptor_free(compiled);
}
END_TEST

START_TEST(test_missing_file)
{
	ck_assert_ptr_null(descriptor_load("/nonexistent/d.yaml", &diagnostics));
	ck_assert_uint_eq(diagnostics.count, 1);
	ck_assert_ptr_nonnull(strstr(diagnostics.findings[0].message, "No such file"));
}
END_TEST

START_TEST(test_programs_are_not_compiled_when_a_descriptor_is_loaded)
{
	struct descriptor *compiled = compile(pipeline);
	char *text = text_of(compiled), *broken = replaced(text, "program: \".a\"", "program: \".a |\"");
	struct descriptor *descriptor = descriptor_parse("d.yaml", view_of(broken), &diagnostics);

	ck_assert_ptr_nonnull(descriptor);
	free(broken);
	free(text);
	descriptor_free(compiled);
	descriptor_free(descriptor);
}
END_TEST

START_TEST(test_dead_letters_have_routes_of_their_own)
{
	struct descriptor *descriptor = compile("name: p\n"
						"on_error: dead_letter\n"
						"sources:\n"
						"  in: { kind: generator }\n"
						"steps:\n"
						"  - { name: a, kind: map, program: . }\n"
						"  - { name: b, kind: map, program: ., on_error: skip }\n"
						"  - { name: c, kind: key_by, key: . }\n"
						"  - { name: d, kind: route, routes: { x: .x, y: default } }\n"
						"sinks:\n"
						"  out: { kind: discard, from: [d.x, d.y] }\n"
						"  failed: { kind: discard, from: [d.dead_letter, dead_letter] }\n");
	const struct segment *keys = &descriptor->segments[0], *ends = &descriptor->segments[1];
	const struct sink *failed = &descriptor->sinks[1];

	ck_assert_int_eq(keys->steps[0].policy, ON_ERROR_DEAD_LETTER);
	ck_assert_int_eq(keys->steps[1].policy, ON_ERROR_SKIP);
	ck_assert(!segment_has_own_routes(keys));
	ck_assert_uint_eq(keys->route_count, 3);
	ck_assert_str_eq(keys->routes[0], "main");
	ck_assert_str_eq(keys->routes[keys->steps[0].dead_letter_route], "a.dead_letter");
	ck_assert_str_eq(keys->routes[keys->steps[2].dead_letter_route], "c.dead_letter");
	ck_assert(segment_has_own_routes(ends));
	ck_assert_uint_eq(ends->route_count, 3);
	ck_assert_uint_eq(ends->steps[0].dead_letter_route, 2);
	ck_assert_int_eq(ends->inputs[0].partition, PARTITION_HASH);
	ck_assert_uint_eq(failed->input_count, 3);
	ck_assert_uint_eq(failed->inputs[0].index, 1);
	ck_assert_uint_eq(failed->inputs[0].route, 2);
	ck_assert_uint_eq(failed->inputs[2].route, keys->steps[2].dead_letter_route);
	ck_assert_int_eq(failed->inputs[2].partition, PARTITION_FORWARD);
	descriptor_free(descriptor);
}
END_TEST

/* The manifest of a segment as "step.name kind partition version ..."; to be freed. */
static char *manifest_text(const struct segment *segment)
{
	struct state_spec states[8];
	size_t count = segment_manifest(segment, states, 8), size;
	char *text;
	FILE *out = open_memstream(&text, &size);

	ck_assert_uint_le(count, 8);
	for (size_t i = 0; i < count; i++)
		fprintf(out, "%s%s.%s %s %s %u", i > 0 ? "; " : "", states[i].step, states[i].name,
			state_kind_name(states[i].kind), state_partition_name(states[i].partition), states[i].version);
	fclose(out);
	return text;
}

START_TEST(test_manifests)
{
	struct descriptor *descriptor = compile("name: p\n"
						"sources:\n"
						"  in: { kind: generator }\n"
						"steps:\n"
						"  - { name: a, kind: map, program: . }\n"
						"  - { name: b, kind: batch }\n"
						"  - { name: c, kind: batch }\n"
						"  - { name: d, kind: key_by, key: .k }\n"
						"  - { name: e, kind: batch }\n"
						"sinks:\n"
						"  out: { kind: discard }\n");
	static const char *const expected[] = {
	    "b.pending list split 1; c.pending list split 1",
	    "e.pending list by key 1; e.sums value by key 1; e.due timers by key 1",
	};

	ck_assert_uint_eq(descriptor->segment_count, 2);
	for (size_t i = 0; i < 2; i++) {
		char *text = manifest_text(&descriptor->segments[i]);
		ck_assert_str_eq(text, expected[i]);
		free(text);
	}
	ck_assert_uint_eq(segment_manifest(&descriptor->segments[1], NULL, 0), 3);
	descriptor_free(descriptor);
}
END_TEST

/* Compiles three steps, the middle one with state; the name of the segment that it ends up in. */
static void segment_is_called(const char *first, const char *last, const char *name)
{
	static const char format[] = "name: p\n"
				     "sources:\n"
				     "  in: { kind: generator }\n"
				     "steps:\n"
				     "  - { name: a, kind: map, program: ., %s }\n"
				     "  - { name: bundle, kind: batch }\n"
				     "  - { name: c, kind: map, program: ., %s }\n"
				     "sinks:\n"
				     "  out: { kind: discard }\n";
	char text[512];
	bool found = false;

	snprintf(text, sizeof(text), format, first, last);
	struct descriptor *descriptor = compile(text);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		found |= segment_manifest(&descriptor->segments[i], NULL, 0) == 1 &&
			 strcmp(descriptor->segments[i].name, name) == 0;
	ck_assert_msg(found, "no segment with state is called %s", name);
	descriptor_free(descriptor);
}

START_TEST(test_a_segment_with_state_keeps_its_name_wherever_the_cuts_fall)
{
	segment_is_called("parallelism: 1", "parallelism: 1", "bundle");
	segment_is_called("parallelism: 2", "parallelism: 1", "bundle");
	segment_is_called("parallelism: 1", "parallelism: 2", "bundle");
	segment_is_called("parallelism: 2", "parallelism: 2", "bundle");
	segment_is_called("segment: x", "parallelism: 1", "x");
}
END_TEST

/* What a running pipeline keeps: a batch by key, another without. */
static const char running[] = "name: p\n"
			      "max_parallelism: 128\n"
			      "sources:\n"
			      "  in: { kind: generator }\n"
			      "  more: { kind: generator }\n"
			      "steps:\n"
			      "  - { name: all, kind: batch, from: [in, more] }\n"
			      "  - { name: split, kind: flat_map, program: '.[]' }\n"
			      "  - { name: by_k, kind: key_by, key: .k }\n"
			      "  - { name: one, kind: batch }\n"
			      "  - { name: two, kind: batch, on_error: skip }\n"
			      "sinks:\n"
			      "  out: { kind: discard }\n";

/* One change of it, and what keeps the changed one from taking over: the place and the words of the only finding, the end of its hint;
 * or nothing. */
static const struct {
	const char *old, *new;
	bool in_old; /* the place is in the running pipeline */
	size_t line, column;
	const char *words, *hint;
} changes[] = {
    {"size", "size", false, 0, 0, NULL, NULL}, /* nothing */
    {"program: '.[]'", "program: '.[] | .a'", false, 0, 0, NULL, NULL},
    {"kind: batch, on_error: skip", "kind: batch, size: 7", false, 0, 0, NULL, NULL},
    {"name: split", "name: apart", false, 0, 0, NULL, NULL},
    {"max_parallelism: 128", "max_parallelism: 128\nparallelism: 4", false, 0, 0, NULL, NULL},
    {"  - { name: one, kind: batch }\n", "  - { name: first, kind: map, program: . }\n  - { name: one, kind: batch }\n",
     false, 0, 0, NULL, NULL},
    {"max_parallelism: 128", "max_parallelism: 64", false, 2, 18, "max_parallelism was 128 and is 64", NULL},
    {"kind: batch, on_error: skip", "kind: map, program: .", false, 11, 13,
     "step \"two\" had states that it has no more: two.pending, two.sums, two.due",
     "`drop_state: [two.pending, two.sums, two.due]`"},
    {"  - { name: two, kind: batch, on_error: skip }\n", "", true, 11, 13,
     "this step is gone, and with it its states: two.pending, two.sums, two.due", NULL},
    {"name: p\n", "name: p\ndrop_state: [all.pending, x.y]\n", false, 0, 0, NULL, NULL},
    {"  - { name: two, kind: batch, on_error: skip }\n", "drop_state: [two.sums, two.pending, two.due]\n", false, 0, 0,
     NULL, NULL},
    {"  - { name: two, kind: batch, on_error: skip }\n", "drop_state: [two.sums, two.due]\n", true, 11, 13,
     "this step is gone, and with it its state: two.pending", "`drop_state: [two.pending]`"},
    {"key: .k", "key: .j", false, 9, 13, "the key of \"by_k\" is \".j\", and segment \"one\" keeps state by \".k\"",
     "put the old states under drop_state"},
    {"  - { name: two, kind: batch, on_error: skip }\n",
     "  - { name: again, kind: key_by, key: .k }\n  - { name: two, kind: batch }\n", false, 12, 13,
     "step \"two\" was in segment \"one\" and is in \"two\"", "say `segment: one` at the step"},
    {"name: all, kind: batch", "name: all, kind: batch, segment: s", false, 7, 13,
     "step \"all\" was in segment \"all\" and is in \"s\"", "say `segment: all` at the step"},
    {"  more: { kind: generator }", "  more: { kind: file, path: x }", false, 5, 3,
     "source \"more\" was of kind generator and is of kind file", NULL},
    {"  more: { kind: generator }", "  most: { kind: generator }\n  more: { kind: generator }", false, 0, 0, NULL,
     NULL},
};

/* Makes a side of the comparison of a text. */
static struct side side_of(const char *file, const char *text)
{
	struct side side = {compile(text), file,
			    document_parse(file, view_of(text), document_limits_default, &diagnostics)};

	ck_assert_ptr_nonnull(side.document);
	return side;
}

/* Frees a side. */
static void side_free(struct side *side)
{
	descriptor_free((struct descriptor *)side->descriptor);
	document_free((struct document *)side->document);
}

START_TEST(test_against)
{
	bool same = strcmp(changes[_i].old, changes[_i].new) == 0, more = strstr(changes[_i].new, "most") != NULL;
	char *text = same ? strdup(running) : replaced(running, changes[_i].old, changes[_i].new);
	char *read = more ? replaced(text, "[in, more]", "[in, more, most]") : strdup(text);
	struct side old = side_of("old.yaml", running), new = side_of("new.yaml", read);

	against_compare(&old, &new, &diagnostics);
	if (diagnostics.count != (changes[_i].words != NULL))
		diagnostics_print(&diagnostics, stderr, false);
	ck_assert_uint_eq(diagnostics.count, changes[_i].words != NULL);
	if (changes[_i].words != NULL) {
		const struct finding *finding = &diagnostics.findings[0];
		ck_assert_msg(strstr(finding->message, changes[_i].words) != NULL, "%s", finding->message);
		ck_assert_str_eq(finding->where.file, changes[_i].in_old ? "old.yaml" : "new.yaml");
		ck_assert_uint_eq(finding->where.line, changes[_i].line);
		ck_assert_uint_eq(finding->where.column, changes[_i].column);
		if (changes[_i].hint != NULL)
			ck_assert_msg(strstr(finding->hint, changes[_i].hint) != NULL, "%s", finding->hint);
	}
	side_free(&old);
	side_free(&new);
	free(read);
	free(text);
}
END_TEST

/* A batch that loses its keys keeps its records otherwise, and the rest not at all; a source and its reader may be gone. */
START_TEST(test_against_several)
{
	static const char changed[] = "name: p\n"
				      "sources:\n"
				      "  in: { kind: generator }\n"
				      "steps:\n"
				      "  - { name: all, kind: batch, from: in }\n"
				      "  - { name: split, kind: flat_map, program: '.[]' }\n"
				      "  - { name: by_k, kind: map, program: .k, parallelism: 2 }\n"
				      "  - { name: one, kind: batch, parallelism: 2 }\n"
				      "  - { name: two, kind: batch, parallelism: 2 }\n"
				      "sinks:\n"
				      "  out: { kind: discard }\n";
	struct side old = side_of("old.yaml", running), new = side_of("new.yaml", changed);
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	const struct document *document = new.document;
	new.document = NULL; /* read from standard input, say: the file is all that is known of the place */
	against_compare(&old, &new, &diagnostics);
	for (size_t i = 0; i < diagnostics.count; i++)
		fprintf(out, "%s: %s\n", diagnostics.findings[i].where.file, diagnostics.findings[i].message);
	fclose(out);
	ck_assert_str_eq(
	    text, "old.yaml: source \"more\" is gone, and with it how far it has been read\n"
		  "new.yaml: state \"one.pending\" was a list by key of version 1, and is a list split of version 1\n"
		  "new.yaml: step \"one\" had states that it has no more: one.sums, one.due\n"
		  "new.yaml: state \"two.pending\" was a list by key of version 1, and is a list split of version 1\n"
		  "new.yaml: step \"two\" had states that it has no more: two.sums, two.due\n");
	free(text);
	new.document = document;
	side_free(&old);
	side_free(&new);
}
END_TEST

/* With and without a time to live are two formats, of each state that has one. */
START_TEST(test_against_another_ttl)
{
	char *forgets = replaced(running, "kind: batch, on_error: skip", "kind: dedup, ttl: 1h");
	char *later = replaced(forgets, "ttl: 1h", "key: .x, ttl: 2h"), *text = replaced(forgets, ", ttl: 1h", "");
	struct side old = side_of("old.yaml", forgets), longer = side_of("new.yaml", later);
	struct side new = side_of("new.yaml", text);

	against_compare(&old, &longer, &diagnostics);
	ck_assert_uint_eq(diagnostics.count, 0);
	against_compare(&old, &new, &diagnostics);
	ck_assert_uint_eq(diagnostics.count, 2);
	ck_assert_str_eq(
	    diagnostics.findings[0].message,
	    "state \"two.keys\" was a value by key of version 1 with a ttl, and is a value by key of version 1");
	ck_assert_str_eq(
	    diagnostics.findings[1].message,
	    "state \"two.identities\" was a map by key of version 1 with a ttl, and is a map by key of version 1");
	ck_assert_uint_eq(diagnostics.findings[0].where.line, 11);
	side_free(&old);
	side_free(&longer);
	side_free(&new);
	free(forgets);
	free(later);
	free(text);
}
END_TEST

START_TEST(test_states_to_drop)
{
	struct descriptor *descriptor = compile("name: p\n"
						"drop_state: [a.b, a.c, some-step.x_1]\n"
						"sources:\n"
						"  in: { kind: generator }\n"
						"steps:\n"
						"  - { name: a, kind: key_by, key: . }\n"
						"  - { name: b, kind: batch }\n"
						"sinks:\n"
						"  out: { kind: discard }\n");
	char *text = text_of(descriptor), *other = replaced(text, "\"a.c\"", "\"a.d\"");
	struct descriptor *again = descriptor_parse("d.yaml", view_of(text), &diagnostics);

	ck_assert_ptr_nonnull(again);
	ck_assert_uint_eq(again->drop_state_count, 3);
	ck_assert(descriptor_drops(again, "a", "c"));
	ck_assert(descriptor_drops(again, "some-step", "x_1"));
	ck_assert(!descriptor_drops(again, "a", "x_1"));
	char *same = text_of(again);
	ck_assert_str_eq(same, text);
	ck_assert_ptr_null(descriptor_parse("d.yaml", view_of(other), &diagnostics));
	ck_assert_ptr_nonnull(strstr(diagnostics.findings[0].message, "drops other states than the first"));
	free(same);
	free(other);
	free(text);
	descriptor_free(again);
	descriptor_free(descriptor);
}
END_TEST

static Suite *descriptor_suite(void)
{
	const TTest *const tests[] = {
	    test_sources,
	    test_segments,
	    test_options,
	    test_sinks,
	    test_the_hash_is_over_the_topology,
	    test_the_hash_is_not_over_programs_and_deployments,
	    test_compiling_twice_gives_the_same_bytes,
	    test_dead_letters_have_routes_of_their_own,
	    test_manifests,
	    test_against_several,
	    test_against_another_ttl,
	    test_states_to_drop,
	    test_a_segment_with_state_keeps_its_name_wherever_the_cuts_fall,
	    test_missing_file,
	    test_programs_are_not_compiled_when_a_descriptor_is_loaded,
	};
	Suite *suite = suite_create("descriptor");
	TCase *tcase = tcase_create("descriptor");

	tcase_add_checked_fixture(tcase, setup, teardown);
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		tcase_add_test(tcase, tests[i]);
	tcase_add_loop_test(tcase, test_damaged, 0, (int)(sizeof(damages) / sizeof(*damages)));
	tcase_add_loop_test(tcase, test_against, 0, (int)(sizeof(changes) / sizeof(*changes)));
	suite_add_tcase(suite, tcase);
	return suite;
}

CHECK_MAIN(descriptor_suite)
