/* Fields of aggregates (aggregate.h). */
#include "descriptor/aggregate.h"

const char *const aggregate_function_names[AGGREGATE_FUNCTION_COUNT] = {[AGGREGATE_COUNT] = "count",
									[AGGREGATE_SUM] = "sum",
									[AGGREGATE_MIN] = "min",
									[AGGREGATE_MAX] = "max",
									[AGGREGATE_AVG] = "avg"};

bool aggregate_parse(const char *text, enum aggregate_function *function, struct view *program)
{
	size_t name = strcspn(text, "("), size = strlen(text);

	for (int i = 0; i < AGGREGATE_FUNCTION_COUNT; i++) {
		const char *known = aggregate_function_names[i];
		if (strlen(known) != name || memcmp(known, text, name) != 0)
			continue;
		*function = (enum aggregate_function)i;
		*program = (struct view){(const uint8_t *)text + name, 0};
		if (i == AGGREGATE_COUNT)
			return name == size;
		if (size < name + 3 || text[size - 1] != ')')
			return false;
		*program = (struct view){(const uint8_t *)text + name + 1, size - name - 2};
		return true;
	}
	return false;
}
