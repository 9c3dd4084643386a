/*
 * Blame: which input workers die of.
 *
 *    a worker dies over a message --> its session is careful from there: units of one input, and each is named in the progress
 *                                     words (step, ordinal, digest) before a step gets it
 *    a careful one dies ------------> what it had named is the suspect; its successor is careful again, and when it comes there:
 *                                       that death was not the code's doing, or nobody says why: the step gets the input once more
 *                                       it was, and the input is the same: passed over, by the step's policy
 *                                       it was, and the input is another one: the session fails, for nothing can be named
 *    a commit past it --------------> over
 *
 * What a careful worker dies of outside of a step (an Open, a Barrier, the message itself) is not passed over: the session fails.
 * An input is passed over so many times an hour at most; the next one fails its session.
 *
 * One record may become several inputs that are deadly, in this step or later ones. Those that were proven before stay so until their unit
 * has committed: they are kept in a block of the session's heap.
 *
 * All of this is words of the session, so that it goes on across any number of deaths. Whether a death is the code's doing is the
 * supervisor's to say (control.h), and may come some time after the successor has begun.
 */
#ifndef WORKER_BLAME_H
#define WORKER_BLAME_H

#include "shared/control.h"
#include "worker/chain.h"

/* Session words. */
struct suspect {
	uint64_t seq;         /* of the message that a worker died over; 0: none */
	uint64_t digest;      /* of the suspect */
	uint32_t number;      /* the careful process that died over the suspect; 0: there is none yet */
	uint32_t cause;       /* enum death_cause, why it did */
	uint32_t until;       /* with so many records of the message done it is past, if no suspect says it better */
	uint32_t done;        /* records, or units of timers, that were done before the suspect */
	uint32_t step;        /* that had it; UINT32_MAX: none */
	uint32_t ordinal;     /* of the suspect in its unit */
	uint32_t hour;        /* in which inputs were passed over, since the epoch */
	uint32_t passed;      /* how many */
	arena_ref others;     /* SUSPECTS_MAX struct proven: suspects before this one in the same unit; 0: none */
	uint32_t other_count; /* of those; above SUSPECTS_MAX: not all could be kept */
};

enum { SUSPECTS_MAX = 16, SUSPECTS_NO_ROOM = SUSPECTS_MAX + 2 /* the arena had no room for them */ };

/* An input of which it is known that workers died of it. */
struct proven {
	uint32_t done, step, ordinal, unused;
	uint64_t digest;
};

/* What a process was at when it died, as its progress words have it. */
struct last_words {
	uint32_t number;
	uint32_t channel, epoch, step, record, ordinal;
	uint64_t seq, digest;
	bool careful;
};

/* Reads the last words of a process; false when it had nothing at hand, or the words are not there any more. */
bool blame_last_words(const struct worker_page *page, uint32_t number, struct last_words *words);

/* Notes a death over the session on a channel, of which all messages before `next_seq` are done. May get the arena into trouble, unless
 * it is known to have no room: then not more than one suspect is kept, which its session will hear. */
void suspect_note(struct suspect *suspect, struct arena *arena, uint32_t channel, const struct last_words *words,
		  uint64_t next_seq, bool room);

/* Whether a message is to be worked on carefully when so much of it is done. */
static inline bool suspect_is_near(const struct suspect *suspect, uint64_t seq, uint32_t done)
{
	return suspect->seq != 0 && suspect->seq == seq && done < suspect->until;
}

/* Whether it has to be known why a worker died before that message goes on. */
static inline bool suspect_awaits_cause(const struct suspect *suspect)
{
	return suspect->number != 0 && suspect->cause == DEATH_UNKNOWN;
}

/* Whether a careful worker died over a message, by the code's doing, whatever was at work: what a unary call goes by. */
static inline bool suspect_is_proven(const struct suspect *suspect, uint64_t seq)
{
	return suspect->number != 0 && suspect->seq == seq && death_blames_code((enum death_cause)suspect->cause);
}

/* The same when no step was at work: the message itself is to blame. */
static inline bool suspect_is_message(const struct suspect *suspect, uint64_t seq)
{
	return suspect_is_proven(suspect, seq) && suspect->step == UINT32_MAX;
}

/* Forgets the suspects: when so much of the message, or all of it, is done that they are past. */
void suspect_clear(struct suspect *suspect, struct arena *arena, uint32_t channel);

static inline void suspect_advance(struct suspect *suspect, struct arena *arena, uint32_t channel, uint64_t seq,
				   uint32_t done)
{
	if (suspect->seq == seq && (done >= suspect->until || (suspect->number != 0 && done > suspect->done)))
		suspect_clear(suspect, arena, channel);
}

static inline void suspect_finish(struct suspect *suspect, struct arena *arena, uint32_t channel, uint64_t seq)
{
	if (suspect->seq != 0 && suspect->seq <= seq)
		suspect_clear(suspect, arena, channel);
}

enum verdict {
	VERDICT_RUN,
	VERDICT_PASS,    /* the step is not to get it */
	VERDICT_CHANGED, /* it is not what it was, though it stands in its place */
	VERDICT_MANY,    /* workers died of more inputs of one unit than can be kept */
	VERDICT_NO_ROOM, /* the same, because the state memory has no room for them */
};

/* What is to be done about an input. */
enum verdict suspect_judge(const struct suspect *suspect, struct arena *arena, uint64_t seq, uint32_t done,
			   const struct chain_input *input);

/* Counts an input that is to be passed over; false when that would be more than `most` in this hour of the wall clock. */
bool suspect_count(struct suspect *suspect, uint32_t most, int64_t wall_ms);

#endif
