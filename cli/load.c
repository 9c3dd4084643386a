/* The pipeline or descriptor of a command (load.h). */
#include "cli/load.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptor/compile.h"
#include "worker/chain.h"

bool load_wants_colour(FILE *out)
{
	const char *none = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return isatty(fileno(out)) && (none == NULL || *none == '\0') && terminal != NULL &&
	       strcmp(terminal, "dumb") != 0;
}

/* Prints the findings if there are any, and frees them. */
static void findings_finish(struct diagnostics *diagnostics)
{
	if (diagnostics->count > 0)
		diagnostics_print(diagnostics, stderr, load_wants_colour(stderr));
	diagnostics_free(diagnostics);
}

struct descriptor *load_pipeline(const struct arguments *arguments)
{
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	struct descriptor *descriptor =
	    compile_file(arguments->operands[0], arguments_value(arguments, "config"), jq_program_check, &diagnostics);
	findings_finish(&diagnostics);
	return descriptor;
}

struct descriptor *load_either(const struct arguments *arguments)
{
	struct diagnostics diagnostics;
	bool loaded;

	diagnostics_init(&diagnostics);
	struct descriptor *descriptor = compile_or_load(arguments->operands[0], arguments_value(arguments, "config"),
							jq_program_check, &loaded, &diagnostics);
	findings_finish(&diagnostics);
	return descriptor;
}
