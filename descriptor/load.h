/* Loading a descriptor out of a document that has been read. Used inside descriptor/ alone. */
#ifndef DESCRIPTOR_LOAD_H
#define DESCRIPTOR_LOAD_H

#include "descriptor/compile.h"
#include "descriptor/document.h"

/* For files that `bridgectl compile` writes. */
extern const struct document_limits document_limits_descriptor;

/* Whether a document looks like a descriptor rather than a pipeline. */
bool document_is_descriptor(const struct document *document);

/* Makes a descriptor of a document; `program` as in compile.h. NULL when there are findings. */
struct descriptor *document_load(const struct document *document, program_check *program,
				 struct diagnostics *diagnostics);

#endif
