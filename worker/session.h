/*
 * One session: the worker's side of the Session stream of one subtask.
 *
 *      OPEN frame --> opened --EndInput--> ended --+
 *                        |                         +-- Close --> finished (END OK was sent)
 *                        +-- violation, failure --------------> finished (Error and END were sent)
 *
 * A finished session drops every frame until the front closes the channel. Messages are worked on in units, a run of
 * records each; between two units of a large batch the session may be asked to let others have their turn, or park
 * because the client does not read, and goes on later with the same frame where it was.
 */
#ifndef WORKER_SESSION_H
#define WORKER_SESSION_H

#include "worker/output.h"
#include "worker/workspace.h"

struct session;

/* A session on a channel, before its Open. Everything handed in must outlive it. */
struct session *session_create(struct workspace *workspace, struct output *output, uint32_t channel, uint32_t epoch);

/* Drops a session with all that its steps hold. NULL is none. */
void session_destroy(struct session *session);

/* Works on the frame that stands first in the request ring. Returns true when it is done with it. False when some is left: the
 * turn is over or the answers wait in the outbox; the same frame is to be handed in again. The output must not be parked. */
bool session_work(struct session *session, const struct frame *frame, const uint8_t *payload);

/* Whether a frame was handed in that session_work is not done with. */
bool session_is_midway(const struct session *session);

#endif
