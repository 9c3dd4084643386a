/* Cuts a resolved pipeline into segments: the descriptor. Used by compile.c alone. */
#ifndef DESCRIPTOR_CUT_H
#define DESCRIPTOR_CUT_H

#include "descriptor/pipeline.h"

/* Fills a descriptor out of a pipeline without findings. Findings for what cannot be cut. */
void pipeline_cut(struct pipeline *pipeline, const struct reading *reading, struct descriptor *descriptor);

#endif
