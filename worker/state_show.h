/*
 * What a slot's owner says of the state that it has: figures in its worker page, for the supervisor, which never touches an arena.
 *
 *    state_show_begin --> state_show_session, for each --> state_show_end
 *
 * The words in between are of no version: whoever reads then reads again. One writer, a bounded table; what does not fit is counted.
 */
#ifndef WORKER_STATE_SHOW_H
#define WORKER_STATE_SHOW_H

#include "shared/control.h"
#include "worker/state.h"

enum { STATE_SHOW_NS = 100 * 1000 * 1000 }; /* between two times, at least */

/* Begins anew: no session, no state. */
void state_show_begin(struct state_page *page);

/* Adds a session and its states; `segment` UINT32_MAX: the slot's unary calls. */
void state_show_session(struct state_page *page, uint32_t channel, uint32_t epoch, uint32_t segment,
			const struct state_store *store);

/* Adds what the arena has of all of them, and ends it: it can be read. Sets the gauges. */
void state_show_end(struct worker_page *page, const struct arena *arena);

#endif
