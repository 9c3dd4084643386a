/*
 * pipeline.yaml, with config.yaml over it, into a descriptor.
 */
#ifndef DESCRIPTOR_COMPILE_H
#define DESCRIPTOR_COMPILE_H

#include "descriptor/descriptor.h"
#include "descriptor/diagnostics.h"

struct document; /* descriptor/document.h */

/* What a program check is: NULL when a jq program is fine, else the compiler's words, to be freed. */
typedef char *program_check(const char *program);

/* Compiles a file ("-": standard input), with the one of a deployment over it unless `config` is NULL. `program` looks into
 * the jq programs; NULL leaves them to the worker. NULL when there are findings. To be freed with descriptor_free. */
struct descriptor *compile_file(const char *path, const char *config, program_check *program,
				struct diagnostics *diagnostics);

/* The same for documents that have been read; `config` may be NULL. Their trees are changed by it: they serve once. */
struct descriptor *compile_document(struct document *document, struct document *config, program_check *program,
				    struct diagnostics *diagnostics);

/* The same from memory and without a deployment; `file` is what findings call it. */
struct descriptor *compile_text(const char *file, struct view text, program_check *program,
				struct diagnostics *diagnostics);

/* Compiles a pipeline, or loads a descriptor if that is what the file is; *loaded says which it was. */
struct descriptor *compile_or_load(const char *path, const char *config, program_check *program, bool *loaded,
				   struct diagnostics *diagnostics);

#endif
