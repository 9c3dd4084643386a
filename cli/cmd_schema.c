/* `bridgectl schema`: JSON Schemas of the files that people write, for their editors. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/kit_schema.h"
#include "descriptor/schema.h"

/* `bridgectl schema [--config | --cases]` */
int cmd_schema(int argc, char **argv)
{
	struct arguments arguments;
	int code = arguments_read(&arguments, 0, 0, argc, argv);

	if (code >= 0)
		return code;
	if (arguments_given(&arguments, "config"))
		schema_print_config(stdout);
	else if (arguments_given(&arguments, "cases"))
		kit_schema_print(stdout);
	else
		schema_print_pipeline(stdout);
	return BRIDGECTL_OK;
}
