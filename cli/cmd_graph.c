/* `bridgectl graph`: a pipeline or descriptor as a drawing in Mermaid or Graphviz. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/load.h"
#include "descriptor/show.h"

/* The format of a name, or -1. */
static int format_find(const char *name)
{
	for (int i = 0; i < GRAPH_FORMAT_COUNT; i++) {
		if (strcmp(graph_format_names[i], name) == 0)
			return i;
	}
	return -1;
}

/* `bridgectl graph FILE [--config FILE] [--format mermaid|dot]` */
int cmd_graph(int argc, char **argv)
{
	struct arguments arguments;
	int code = arguments_read(&arguments, 1, 1, argc, argv);

	if (code >= 0)
		return code;
	const char *name = arguments_value(&arguments, "format");
	int format = name == NULL ? GRAPH_MERMAID : format_find(name);
	if (format < 0)
		return command_misused("graph", "the format is \"mermaid\" or \"dot\", not \"%s\"", name);
	struct descriptor *descriptor = load_either(&arguments);
	if (descriptor == NULL)
		return BRIDGECTL_FAILED;
	graph_print(descriptor, (enum graph_format)format, stdout);
	descriptor_free(descriptor);
	return BRIDGECTL_OK;
}
