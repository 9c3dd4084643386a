/*
 * The pipeline or descriptor that a command is about, out of its arguments; findings go to standard error.
 */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include <stdbool.h>

#include "cli/commands.h"
#include "descriptor/descriptor.h"
#include "descriptor/diagnostics.h"

/* Compiles the pipeline that is the first operand, with --config over it if that is given. NULL: all is said. */
struct descriptor *load_pipeline(const struct arguments *arguments);

/* The same, or loads the operand if it is a descriptor. */
struct descriptor *load_either(const struct arguments *arguments);

/* Compares a descriptor, which came of the first operand, with the pipeline or descriptor of --against: findings for what keeps it from
 * taking over the other's state, or for what is wrong with the other. */
void load_against(const struct arguments *arguments, const struct descriptor *descriptor,
		  struct diagnostics *diagnostics);

/* The same for those who print the findings themselves; *loaded says which it was. */
struct descriptor *load_file(const struct arguments *arguments, bool *loaded, struct diagnostics *diagnostics);

/* Whether a deployment's file, which has been checked, has a section for bridged. */
bool load_has_sidecar(const char *config);

/* Has steps that this process or its children run look for their modules and libraries beside a pipeline, then in the working directory,
 * unless the environment names other folders (FLINK_BRIDGE_PYTHON_PATH, FLINK_BRIDGE_LIBRARY_PATH). What it has set, to be forgotten. */
enum { LOAD_CODE_PATHS = 2 };
struct load_code_paths {
	bool set[LOAD_CODE_PATHS];
};
struct load_code_paths load_set_code_paths(const char *pipeline);
void load_forget_code_paths(const struct load_code_paths *paths);

/* Whether colours should be used on a stream: it is a terminal, and the person has not asked for none. */
bool load_wants_colour(FILE *out);

#endif
