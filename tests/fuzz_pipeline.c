/*
 * The compiler and the loader on any text: what compiles must write a descriptor that loads, and that is written again byte by
 * byte as before; what loads as a descriptor likewise. Programs are not compiled: that is jq's business.
 *
 * Its corpus is that of tests/check_compile.c: pipelines, descriptors, and what was found since.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor/compile.h"
#include "descriptor/show.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A descriptor as text, to be freed. */
static char *descriptor_text(const struct descriptor *descriptor)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (out == NULL)
		abort();
	descriptor_write(descriptor, out);
	fclose(out);
	return text;
}

/* Tells and draws a descriptor, to see that this can be done. */
static void show(const struct descriptor *descriptor)
{
	static FILE *null;

	if (null == NULL)
		null = fopen("/dev/null", "w");
	explain_print(descriptor, null);
	explain_print_json(descriptor, null);
	graph_print(descriptor, GRAPH_DOT, null);
}

/* Writes a descriptor, reads it back, and writes that. */
static void round_trip(const struct descriptor *descriptor)
{
	struct diagnostics diagnostics;
	char *text = descriptor_text(descriptor);

	diagnostics_init(&diagnostics);
	struct descriptor *loaded = descriptor_parse("descriptor", view_of(text), &diagnostics);
	if (loaded == NULL) {
		fprintf(stderr, "%s", text);
		diagnostics_print(&diagnostics, stderr, false);
		abort();
	}
	char *again = descriptor_text(loaded);
	if (strcmp(text, again) != 0 || strcmp(descriptor->topology_hash, loaded->topology_hash) != 0) {
		fprintf(stderr, "written as\n%s\nand again as\n%s\n", text, again);
		abort();
	}
	show(loaded);
	free(again);
	free(text);
	descriptor_free(loaded);
	diagnostics_free(&diagnostics);
}

/* What came of one reading of the input. */
static void finish(struct descriptor *descriptor, struct diagnostics *diagnostics)
{
	char *text = NULL;
	size_t size = 0;

	if ((descriptor == NULL) != (diagnostics->count > 0))
		abort();
	if (descriptor != NULL)
		round_trip(descriptor);
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		abort();
	diagnostics_print(diagnostics, out, true);
	diagnostics_print_json(diagnostics, out);
	fclose(out);
	free(text);
	descriptor_free(descriptor);
	diagnostics_free(diagnostics);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct view text = {data, size};
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	finish(compile_text("pipeline", text, NULL, &diagnostics), &diagnostics);
	diagnostics_init(&diagnostics);
	finish(descriptor_parse("descriptor", text, &diagnostics), &diagnostics);
	return 0;
}
