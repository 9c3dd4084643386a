/*
 * Files of test cases, as `bridgectl test` reads them and --update writes them: whatever is read is judged against outputs that do not fit,
 * and the file that an update makes of it must be one in which they do. What cannot be updated in place is left alone.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/kit_update.h"
#include "shared/log.h"
#include "worker/json_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the table of commands needs to link. */
int cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return BRIDGECTL_OK;
}

/* Outputs: some of what is expected, the last ones first, and others. */
static struct kit_record *outputs_of(struct pool *pool, const struct kit_outputs *outputs, size_t *count)
{
	size_t expected = outputs == NULL ? 0 : outputs->count;
	struct kit_record *made = pool_array(pool, expected + 2, sizeof(*made));

	*count = 0;
	for (size_t i = expected; i > 0; i -= i > 1 ? 2 : 1) {
		made[*count] = outputs->records[i - 1];
		made[*count].has_payload = made[*count].has_key = made[*count].has_timestamp = true;
		(*count)++;
	}
	made[(*count)++] = (struct kit_record){.payload = view_of("{\"a\":[\"# \\n: \"]}"),
					       .has_payload = true,
					       .has_key = true,
					       .key = view_of("k: \""),
					       .has_timestamp = true};
	made[(*count)++] =
	    (struct kit_record){.payload = view_of("\xff text"), .has_payload = true, .has_timestamp = true};
	return made;
}

/* Updates what the first case expects of its first sink at the end, or a sink that it does not name. */
static void update(struct kit_file *file, const char *text_of_file)
{
	struct diagnostics diagnostics;
	struct kit_edits edits = {0};
	const struct kit_case *kit = &file->cases[0];
	const struct kit_outputs *outputs = kit->expect.count > 0 ? &kit->expect.outputs[0] : NULL;
	const char *why = NULL;
	size_t count;
	struct kit_record *made = outputs_of(&file->pool, outputs, &count);
	struct kit_verdict verdict =
	    kit_judge(&file->pool, outputs == NULL ? "fuzzed" : outputs->sink, outputs, made, count);
	char *text = NULL;

	if (verdict.wrong > 0 && kit_update_plan(&edits, kit, &verdict, &why))
		text = kit_update_text(&edits, "cases", file->document->text);
	if (text != NULL) {
		diagnostics_init(&diagnostics);
		struct kit_file *again = kit_file_parse("cases", view_of(text), &diagnostics);
		if (again == NULL)
			abort();
		const struct kit_expect *expect = &again->cases[0].expect;
		verdict = kit_judge(&again->pool, "out", expect->count > 0 ? &expect->outputs[0] : NULL, made, count);
		if (verdict.wrong > 0) {
			fprintf(stderr, "%s\nwas updated to\n%s\n", text_of_file, text);
			abort();
		}
		kit_file_free(again);
		diagnostics_free(&diagnostics);
	}
	free(text);
	kit_edits_free(&edits);
}

/* Reads one input, and what comes of it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct diagnostics diagnostics;
	char *text = malloc(size + 1);

	if (text == NULL)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	log_init("fuzz", LOG_ERROR);
	diagnostics_init(&diagnostics);
	struct kit_file *file = kit_file_parse("cases", (struct view){data, size}, &diagnostics);
	if (file != NULL)
		update(file, text);
	kit_file_free(file);
	diagnostics_free(&diagnostics);
	json_forget_keys();
	free(text);
	return 0;
}
