/* The routes of a segment (routes.h). */
#include "descriptor/routes.h"

#include "descriptor/options.h"

/* Where records go that are no dead letters, in a segment whose last step has no routes. */
static const char route_main[] = "main";

/* How many steps put their dead letters aside. */
static size_t dead_letters_count(const struct step_spec *steps, size_t count)
{
	size_t aside = 0;

	for (size_t i = 0; i < count; i++)
		aside += steps[i].policy == ON_ERROR_DEAD_LETTER;
	return aside;
}

void segment_routes_make(struct segment *segment, struct step_spec *steps, struct pool *pool)
{
	const struct step_spec *last = &steps[segment->step_count - 1];
	const struct option *option = routes_option(last->options, last->option_count);
	size_t own = option == NULL ? 0 : option->item_count, aside = dead_letters_count(steps, segment->step_count);
	const char **routes = pool_array(pool, own + aside + 1, sizeof(*routes));
	uint32_t count = 0;

	for (size_t i = 0; i < own; i++)
		routes[count++] = option->items[i].name;
	if (count == 0 && aside > 0)
		routes[count++] = route_main;
	for (size_t i = 0; i < segment->step_count; i++) {
		if (steps[i].policy != ON_ERROR_DEAD_LETTER || steps[i].name == NULL)
			continue;
		steps[i].dead_letter_route = count;
		routes[count++] = pool_format(pool, "%s." ROUTE_DEAD_LETTER, steps[i].name);
	}
	segment->routes = routes;
	segment->route_count = count;
}

const struct step_spec *route_dead_letters_of(const struct segment *segment, uint32_t route)
{
	for (size_t i = 0; i < segment->step_count; i++) {
		const struct step_spec *step = &segment->steps[i];
		if (step->policy == ON_ERROR_DEAD_LETTER && step->dead_letter_route == route)
			return step;
	}
	return NULL;
}

/* How many routes a step has. */
static size_t step_route_count(const struct step_spec *step)
{
	const struct option *option = routes_option(step->options, step->option_count);

	return option == NULL ? 0 : option->item_count;
}

bool step_closes_segment(enum step_kind kind, size_t routes)
{
	return step_kind_closes_segment(kind) || routes > 0;
}

bool segment_has_own_routes(const struct segment *segment)
{
	if (segment->step_count == 0)
		return false;
	const struct step_spec *last = &segment->steps[segment->step_count - 1];
	return step_closes_segment(last->kind, step_route_count(last)) && last->kind != STEP_key_by;
}
