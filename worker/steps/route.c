/* route, broadcast: where each record leaves the segment. The payload stays as it came. */
#include <stdlib.h>

#include "shared/log.h"
#include "worker/memory.h"
#include "worker/steps/kinds.h"

struct branch {
	struct jq_program *condition; /* NULL: the default */
	uint32_t route;
};

struct route_step {
	struct branch *branches; /* conditions in their order, the default last */
	size_t count;
	bool has_default;
	struct run spare; /* broadcast */
};

/* The number of a route in the segment, whose routes are those of this step. */
static bool find_route(const struct step *step, const char *name, uint32_t *route, struct failure *failure)
{
	for (uint32_t i = 0; i < step->segment->route_count; i++) {
		if (strcmp(step->segment->routes[i], name) == 0) {
			*route = i;
			return true;
		}
	}
	return failure_set(failure, 0, "the segment has no route `%s`", name);
}

/* Frees the branches; their programs belong to the process. */
static void route_close(struct step *step)
{
	struct route_step *own = step->own;

	run_deinit(&own->spare);
	free(own->branches);
	free(own);
}

/* One item of the option: a branch. */
static bool route_add(struct step *step, const struct option *option, const struct option_item *item,
		      struct failure *failure)
{
	struct route_step *own = step->own;
	struct branch branch = {NULL, 0};

	if (!find_route(step, item->name, &branch.route, failure))
		return false;
	if (!item->value || strcmp(item->value, "default") == 0) {
		if (item->value && own->has_default)
			return failure_set(failure, 0, "option `%s` has two defaults", option->name);
		own->has_default = item->value != NULL;
		own->branches[own->count++] = branch;
		return true;
	}
	branch.condition = step_program(option, item->name, item->value, failure);
	if (!branch.condition)
		return false;
	size_t place = own->has_default ? own->count - 1 : own->count;
	own->branches[own->count++] = own->branches[place];
	own->branches[place] = branch;
	return true;
}

/* Reads the branches, for both kinds. */
static bool route_open(struct step *step, struct failure *failure)
{
	const struct option *option = step_option(step->spec, "routes");
	struct route_step *own = memory_make(1, sizeof(*own), "a step");

	own->branches = memory_make(option->item_count + 1, sizeof(*own->branches), "a step");
	step->own = own;
	for (size_t i = 0; i < option->item_count; i++) {
		if (!route_add(step, option, &option->items[i], failure)) {
			route_close(step);
			return false;
		}
	}
	return true;
}

/* No condition held, and there is no default: says what the routes are. */
static bool route_missing(const struct step *step, const struct record *record, struct failure *failure)
{
	char text[EXCERPT_SIZE], names[160];
	size_t length = 0;

	for (uint32_t i = 0; i < step->segment->route_count && length < sizeof(names); i++)
		length += (size_t)snprintf(names + length, sizeof(names) - length, "%s%s", i ? ", " : "",
					   step->segment->routes[i]);
	return failure_set(failure, record->origin,
			   "no route's condition holds and there is no default (routes: %s%s); payload: %s", names,
			   length >= sizeof(names) ? "..." : "", excerpt(record->payload, text));
}

/* Finds the first branch that holds, for each record. */
static bool route_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	const struct route_step *own = step->own;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		bool holds = false;

		for (size_t k = 0; k < own->count && !holds; k++) {
			const struct branch *branch = &own->branches[k];
			record->route = branch->route;
			if (!branch->condition) {
				holds = true;
				break;
			}
			if (!step_need_value(record, FORM_JSON, run, failure))
				return false;
			if (!jq_program_holds(branch->condition, jv_copy(record->value), &holds))
				return step_program_failed(branch->condition, record, failure);
		}
		if (!holds)
			return route_missing(step, record, failure);
	}
	return true;
}

/* Copies each record once for each branch. */
static bool broadcast_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct route_step *own = step->own;

	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		for (size_t k = 0; k < own->count; k++) {
			struct record *copy = run_push_copy(&own->spare, &run->records[i]);
			if (!copy) {
				run_clear(&own->spare);
				return step_no_room(&run->records[i], failure);
			}
			copy->route = own->branches[k].route;
		}
	}
	run_trade(run, &own->spare);
	run_clear(&own->spare);
	return true;
}

const struct step_kind_ops route_ops = {.open = route_open, .close = route_close, .process = route_process};
const struct step_kind_ops broadcast_ops = {.open = route_open, .close = route_close, .process = broadcast_process};
