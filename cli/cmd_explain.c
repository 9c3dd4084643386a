/* `bridgectl explain`: which step went into which segment, and why. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/load.h"
#include "descriptor/show.h"

/* `bridgectl explain FILE [--config FILE] [--json]` */
int cmd_explain(int argc, char **argv)
{
	struct arguments arguments;
	int code = arguments_read(&arguments, 1, 1, argc, argv);

	if (code >= 0)
		return code;
	struct descriptor *descriptor = load_either(&arguments);
	if (descriptor == NULL)
		return BRIDGECTL_FAILED;
	if (arguments_given(&arguments, "json"))
		explain_print_json(descriptor, stdout);
	else
		explain_print(descriptor, stdout);
	descriptor_free(descriptor);
	return BRIDGECTL_OK;
}
