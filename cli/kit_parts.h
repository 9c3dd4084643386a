/* What the files of a test case's job share (kit_job.c, kit_flow.c, kit_session.c, kit_event.c), and nobody else includes. */
#ifndef CLI_KIT_PARTS_H
#define CLI_KIT_PARTS_H

#include "cli/kit_job.h"

enum { KIT_ENVELOPE_MAX = 64 /* of a message around its body */ };

/* ---- kit_job.c ------------------------------------------------------------------------------------------------------ */

/* The job fails; the first reason is kept. Returns false. */
bool __attribute__((format(printf, 2, 3))) kit_fail(struct kit_job *job, const char *format, ...);

/* The same for what is no failure of the pipeline: no case can expect it. */
#define BREAK(job, ...) ((job)->broken |= !(job)->failed, kit_fail(job, __VA_ARGS__))

/* Takes a parallelism over, if it is possible. */
bool kit_parallelism(struct kit_job *job, uint32_t parallelism);

/* Connects all, for the parallelism that there is now; and takes it apart again: states, sinks and the sources' time stay. */
void kit_connect(struct kit_job *job);
void kit_disconnect(struct kit_job *job);

/* ---- kit_flow.c ----------------------------------------------------------------------------------------------------- */

/* What a producer's subtask tells of time, of idleness, and of its end. */
enum news { NEWS_WATERMARK, NEWS_IDLE, NEWS_END };

/* A new message at the end of a subtask's queue. */
struct kit_message *kit_enqueue(struct kit_subtask *subtask, uint32_t kind, int64_t value);

/* The partitioner of a producer's subtask at an edge. */
struct partitioner *kit_partitioner(const struct kit_producer *producer, uint32_t subtask, uint32_t edge);

/* A producer's subtask gives a record out on a route. */
bool kit_push(struct kit_job *job, struct kit_producer *producer, uint32_t from, struct wire_record *record);

/* Tells every consumer. */
void kit_tell(struct kit_producer *producer, uint32_t from, enum news news, int64_t value);

/* ---- kit_session.c -------------------------------------------------------------------------------------------------- */

/* Opens all sessions in a new slot, and gives each its share of the state. */
bool kit_sessions_open(struct kit_job *job);

/* Cuts the state of all sessions. */
bool kit_sessions_cut(struct kit_job *job);

/* Lets processing time go on to `until`, with each tick that is wanted on the way at its own time. */
bool kit_tick(struct kit_job *job, int64_t until);

/* Works off what an event began, with the ticks that are due by it. */
bool kit_settle(struct kit_job *job);

/* Says what is wrong with the worker, after it was said to be. */
bool kit_slot_failed(struct kit_job *job);

#endif
