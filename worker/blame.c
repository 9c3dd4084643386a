/* Blame (blame.h draws it). */
#include "worker/blame.h"

enum {
	NEAR = 256, /* records behind the first one of a unit that may have been at work: as many as a run has */
	HOUR_MS = 3600 * 1000,
};

/* Reads the last words of a process. They are no more than numbers: who uses them checks them against the session's own. */
bool blame_last_words(const struct worker_page *page, uint32_t number, struct last_words *words)
{
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		const struct life *life = &page->lives[i];
		const struct progress *progress = &life->progress;

		if (number == 0 || atomic_load_explicit(&life->number, memory_order_acquire) != number)
			continue;
		*words = (struct last_words){
		    .number = number,
		    .channel = atomic_load_explicit(&progress->channel, memory_order_relaxed),
		    .epoch = atomic_load_explicit(&progress->epoch, memory_order_relaxed),
		    .step = atomic_load_explicit(&progress->step, memory_order_relaxed),
		    .record = atomic_load_explicit(&progress->record, memory_order_relaxed),
		    .ordinal = atomic_load_explicit(&progress->ordinal, memory_order_relaxed),
		    .seq = atomic_load_explicit(&progress->seq, memory_order_relaxed),
		    .digest = atomic_load_explicit(&progress->digest, memory_order_relaxed),
		    .careful = atomic_load_explicit(&progress->careful, memory_order_relaxed) != 0,
		};
		return atomic_load_explicit(&progress->since_ns, memory_order_acquire) != 0;
	}
	return false;
}

/* Forgets the suspects, but not how many there were in this hour. */
void suspect_clear(struct suspect *suspect, struct arena *arena, uint32_t channel)
{
	if (suspect->others != 0)
		arena_free(arena, channel, suspect->others, SUSPECTS_MAX * sizeof(struct proven));
	*suspect = (struct suspect){.hour = suspect->hour, .passed = suspect->passed};
}

/* Puts a proven suspect with the others, before another one takes its place. */
static void keep(struct suspect *suspect, struct arena *arena, uint32_t channel, bool room)
{
	struct proven proven = {
	    .done = suspect->done, .step = suspect->step, .ordinal = suspect->ordinal, .digest = suspect->digest};
	struct proven *others;

	if (suspect->others == 0 && !room) {
		suspect->other_count = SUSPECTS_NO_ROOM;
		return;
	}
	if (suspect->others == 0)
		suspect->others = arena_alloc(arena, channel, SUSPECTS_MAX * sizeof(struct proven));
	if (suspect->others == 0 || suspect->other_count++ >= SUSPECTS_MAX)
		return;
	others = arena_find(arena, suspect->others, SUSPECTS_MAX * sizeof(*others));
	if (others == NULL)
		return;
	*(struct proven *)arena_write(arena, &others[suspect->other_count - 1], sizeof(proven)) = proven;
}

/* Notes a death. */
void suspect_note(struct suspect *suspect, struct arena *arena, uint32_t channel, const struct last_words *words,
		  uint64_t next_seq, bool room)
{
	if (words->seq < next_seq)
		return;
	if (suspect->seq != words->seq) {
		suspect_clear(suspect, arena, channel);
		suspect->seq = words->seq;
	}
	if (words->record < UINT32_MAX - NEAR && words->record + NEAR > suspect->until)
		suspect->until = words->record + NEAR;
	if (!words->careful)
		return;
	if (suspect_is_proven(suspect, words->seq) && suspect->done == words->record)
		keep(suspect, arena, channel, room);
	suspect->number = words->number;
	suspect->cause = DEATH_UNKNOWN;
	suspect->done = words->record;
	suspect->step = words->step;
	suspect->ordinal = words->ordinal;
	suspect->digest = words->digest;
}

/* What is to be done about an input that stands where another one is suspected. */
static enum verdict compare(uint64_t digest, const struct chain_input *input)
{
	return digest == input->digest ? VERDICT_PASS : VERDICT_CHANGED;
}

/* What is to be done about an input. */
enum verdict suspect_judge(const struct suspect *suspect, struct arena *arena, uint64_t seq, uint32_t done,
			   const struct chain_input *input)
{
	const struct proven *others = NULL;

	if (suspect->seq != seq)
		return VERDICT_RUN;
	if (suspect->other_count > SUSPECTS_MAX)
		return suspect->others == 0 ? VERDICT_NO_ROOM : VERDICT_MANY;
	if (suspect->others != 0) {
		others = arena_find(arena, suspect->others, SUSPECTS_MAX * sizeof(*others));
		if (others == NULL)
			return VERDICT_MANY; /* the unit comes to nothing anyway */
	}
	for (uint32_t i = 0; others != NULL && i < suspect->other_count; i++)
		if (others[i].done == done && others[i].step == input->step && others[i].ordinal == input->ordinal)
			return compare(others[i].digest, input);
	if (suspect->done != done || suspect->step != input->step || suspect->ordinal != input->ordinal ||
	    !suspect_is_proven(suspect, seq))
		return VERDICT_RUN;
	return compare(suspect->digest, input);
}

/* Counts an input that is to be passed over. */
bool suspect_count(struct suspect *suspect, uint32_t most, int64_t wall_ms)
{
	uint32_t hour = (uint32_t)(wall_ms / HOUR_MS);

	if (suspect->hour != hour) {
		suspect->hour = hour;
		suspect->passed = 0;
	}
	if (suspect->passed >= most)
		return false;
	suspect->passed++;
	return true;
}
