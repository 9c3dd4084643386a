/*
 * The routes of a segment: those of its last step, or one called `main`, and behind them one for the dead letters of each step
 * whose policy is to put them aside. Used inside descriptor/ alone.
 */
#ifndef DESCRIPTOR_ROUTES_H
#define DESCRIPTOR_ROUTES_H

#include "descriptor/descriptor.h"
#include "descriptor/pool.h"

/* What `from` says behind a step, or alone for all of them; so nothing else may be called that. */
#define ROUTE_DEAD_LETTER "dead_letter"

/* Gives a segment its routes by its steps, and each step whose policy says so the one that its dead letters take. */
void segment_routes_make(struct segment *segment, struct step_spec *steps, struct pool *pool);

/* Whether a step is the last of its segment, whatever comes behind it: by its kind, or because it has routes. */
bool step_closes_segment(enum step_kind kind, size_t routes);

/* The step whose dead letters leave by a route, or NULL when it is a route of other records. */
const struct step_spec *route_dead_letters_of(const struct segment *segment, uint32_t route);

#endif
