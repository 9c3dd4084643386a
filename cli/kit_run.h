/* One case of `bridgectl test`, from its pipeline to the verdict. */
#ifndef CLI_KIT_RUN_H
#define CLI_KIT_RUN_H

#include "cli/kit_update.h"

struct kit_run_options {
	uint64_t patience_ms; /* how long a worker may take for one message */
	bool colour, verbose;
	bool update;
	FILE *outputs; /* what sinks got goes here, as JSON lines; NULL: nowhere */
};

struct kit_outcome {
	bool failed;
	bool updated; /* it would have failed, but for the edits that were planned */
	double seconds;
	char *words, *coloured; /* why it failed, and what workers wrote; owned; NULL: nothing */
};

/* Runs a case of a file. The tree of the file is used up by it, and must live until the edits are applied. */
struct kit_outcome kit_run(struct kit_file *file, const struct kit_case *kit, const struct kit_run_options *options,
			   struct kit_edits *edits);

#endif
