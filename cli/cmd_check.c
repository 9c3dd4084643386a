/* `bridgectl check`: everything that is wrong with a pipeline or a descriptor, and nothing else. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/load.h"

/* "1 step", "2 steps". */
static void print_count(size_t count, const char *what, const char *behind)
{
	printf("%zu %s%s%s", count, what, count == 1 ? "" : "s", behind);
}

/* Says what was found to be fine. */
static void print_fine(const char *path, const struct descriptor *descriptor, bool loaded, const char *against)
{
	printf("%s: %s \"%s\" is fine: ", path, loaded ? "descriptor of" : "pipeline", descriptor->pipeline);
	print_count(descriptor->source_count, "source", ", ");
	print_count(descriptor->step_count, "step", " in ");
	print_count(descriptor->segment_count, "segment", ", ");
	print_count(descriptor->sink_count, "sink", "\n");
	if (against != NULL)
		printf("%s: takes over the state of %s\n", path, against);
}

/* `bridgectl check FILE [--config FILE] [--against OLD] [--json]` */
int cmd_check(int argc, char **argv)
{
	struct arguments arguments;
	struct diagnostics diagnostics;
	bool loaded;
	int code = arguments_read(&arguments, 1, 1, argc, argv);

	if (code >= 0)
		return code;
	diagnostics_init(&diagnostics);
	struct descriptor *descriptor = load_file(&arguments, &loaded, &diagnostics);
	const char *against = arguments_value(&arguments, "against");
	if (descriptor != NULL && against != NULL)
		load_against(&arguments, descriptor, &diagnostics);
	if (arguments_given(&arguments, "json"))
		diagnostics_print_json(&diagnostics, stdout);
	else if (diagnostics.count > 0)
		diagnostics_print(&diagnostics, stderr, load_wants_colour(stderr));
	else if (descriptor != NULL && !arguments_given(&arguments, "quiet"))
		print_fine(arguments.operands[0], descriptor, loaded, against);
	code = diagnostics.count > 0 ? BRIDGECTL_FAILED : BRIDGECTL_OK;
	diagnostics_free(&diagnostics);
	descriptor_free(descriptor);
	return code;
}
