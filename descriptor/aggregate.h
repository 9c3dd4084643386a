/*
 * What a field of an `aggregate` step is made of: `count`, or a function over a jq program, as in `sum(.amount)`.
 */
#ifndef DESCRIPTOR_AGGREGATE_H
#define DESCRIPTOR_AGGREGATE_H

#include <stdbool.h>

#include "shared/view.h"

enum aggregate_function {
	AGGREGATE_COUNT,
	AGGREGATE_SUM,
	AGGREGATE_MIN,
	AGGREGATE_MAX,
	AGGREGATE_AVG,
	AGGREGATE_FUNCTION_COUNT
};

extern const char *const aggregate_function_names[AGGREGATE_FUNCTION_COUNT];

/* Reads a field's text; the program is the part of it between the parentheses, and empty for `count`. False when it is none. */
bool aggregate_parse(const char *text, enum aggregate_function *function, struct view *program);

#endif
