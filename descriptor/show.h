/*
 * A descriptor for people: as a drawing, and told.
 */
#ifndef DESCRIPTOR_SHOW_H
#define DESCRIPTOR_SHOW_H

#include "descriptor/descriptor.h"

enum graph_format { GRAPH_MERMAID, GRAPH_DOT, GRAPH_FORMAT_COUNT };

/* The names of the formats, in the order of the enum. */
extern const char *const graph_format_names[GRAPH_FORMAT_COUNT];

/* Draws segments as boxes around their steps, with sources, sinks and routes. */
void graph_print(const struct descriptor *descriptor, enum graph_format format, FILE *out);

/* Tells which step is in which segment, why each segment ends, and how records get from one to the next. */
void explain_print(const struct descriptor *descriptor, FILE *out);

/* The same as one JSON object, on one line. */
void explain_print_json(const struct descriptor *descriptor, FILE *out);

#endif
