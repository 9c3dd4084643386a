/*
 * Two pipelines compared: whether the second can take over where the first stopped, out of its checkpoint.
 */
#ifndef DESCRIPTOR_AGAINST_H
#define DESCRIPTOR_AGAINST_H

#include "descriptor/descriptor.h"
#include "descriptor/document.h"

/* One side of the comparison. */
struct side {
	const struct descriptor *descriptor;
	const char *file;                /* as findings name it */
	const struct document *document; /* what it was made of, for places; or NULL */
};

/* Makes a finding of everything in a checkpoint of `old` that `new` cannot take: states that are gone, changed, or kept under another
 * segment or key, other key groups, sources whose position has nowhere to go. States that `new` says to drop are none. */
void against_compare(const struct side *old, const struct side *new, struct diagnostics *diagnostics);

#endif
