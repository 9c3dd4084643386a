/*
 * One session: the worker's side of the Session stream of one subtask.
 *
 *      OPEN frame --> opened --EndInput--> ended --+
 *                        |                         +-- Close --> finished (END OK was sent)
 *                        +-- violation, failure --------------> finished (Error and END were sent)
 *
 * A finished session drops every frame until the front closes the channel. Messages are worked on in units, of a run of records or
 * of due timers; between two units of a large one the session may be asked to let others have their turn, or park because
 * the client does not read, and goes on later with the same frame where it was.
 *
 * Where a session stands is its position (worker/position.h), of which the unit at hand changes a copy. What else is here is made
 * anew by the worker that takes the slot over.
 */
#ifndef WORKER_SESSION_H
#define WORKER_SESSION_H

#include "worker/output.h"
#include "worker/position.h"
#include "worker/workspace.h"

struct session;

/* A session on a channel: a new one before its Open, or one that a predecessor had (session_adopt comes next then). Everything
 * handed in must outlive it. */
struct session *session_create(struct workspace *workspace, struct output *output, struct session_position *at,
			       uint32_t channel);

/* Opens the steps of a predecessor's session over the state that they left. When one does not open the session fails; in any case
 * the unit at hand may have something to commit. */
void session_adopt(struct session *session);

/* Drops this process's part of a session. NULL is none. */
void session_destroy(struct session *session);

/* Works on the frame that stands first in the request ring, or goes on with it, in the unit at hand. The output must not be
 * parked. */
enum work_result session_work(struct session *session, const struct frame *frame, const uint8_t *payload);

/* Fails the session on that frame, because a unit got into a trouble that no smaller one would be out of. */
enum work_result session_give_up(struct session *session, const struct frame *frame, const struct unit *unit);

/* What stands in front of the session and is to be tried again, or is further back in the message that comes next; NULL: nothing. */
const struct retry *session_retry(const struct session *session);

/* Notes such a thing, as part of the unit at hand. */
void session_note_retry(struct session *session, const struct retry *retry);

/* What the session remembers; NULL before its Open and after its end. */
const struct state_store *session_state(const struct session *session);

/* The unit has been committed, or rolled back: what is not in the arena follows. */
void session_committed(struct session *session);
void session_rolled_back(struct session *session);

#endif
