/* What unary calls have in the arena (unary_words.h). */
#include "worker/unary_words.h"

#include <string.h>

#include "worker/position.h"

/* The block of all segments. */
struct unary_words {
	int64_t count;
	struct segment_words segments[];
};

/* A block of encoded outputs. */
struct kept {
	arena_ref next;
	uint32_t size;
	uint8_t bytes[];
};

/* Bytes of the words of so many segments. */
static size_t words_size(size_t count)
{
	return sizeof(struct unary_words) + count * sizeof(struct segment_words);
}

/* The words of a predecessor. NULL: the arena is broken. */
static struct unary_words *words_find(struct arena *arena, arena_ref ref)
{
	const size_t most = (ARENA_BLOCK_MAX - words_size(0)) / sizeof(struct segment_words);
	struct unary_words *words = arena_find(arena, ref, words_size(0));

	if (words == NULL)
		return NULL;
	if (words->count > 0 && (size_t)words->count <= most &&
	    arena_find(arena, ref, words_size((size_t)words->count)) != NULL)
		return words;
	arena_set_broken(arena, "the watermarks of unary calls are none");
	return NULL;
}

/* The block of kept outputs at a reference; NULL: the arena is broken. */
static struct kept *kept_find(struct arena *arena, arena_ref ref)
{
	struct kept *kept = arena_find(arena, ref, sizeof(*kept));

	return kept == NULL ? NULL : arena_find(arena, ref, sizeof(*kept) + kept->size);
}

/* Makes words for so many segments; what the old ones keep goes over, or, where its segment is gone, away. */
static struct unary_words *words_make(struct arena *arena, uint32_t count, struct unary_words *old)
{
	arena_ref ref = arena_alloc(arena, UNARY_CHANNEL, words_size(count));

	if (ref == 0)
		return NULL;
	struct unary_words *words = arena_at(arena, ref);
	*words = (struct unary_words){.count = count};
	for (uint32_t i = 0; i < count; i++)
		words->segments[i] = (struct segment_words){.watermark = INT64_MIN};
	for (uint32_t i = 0; old != NULL && i < old->count; i++) {
		struct segment_words *kept = &old->segments[i];
		if (i >= count) {
			unary_hand_out(arena, unary_words_write(arena, kept), NULL);
			continue;
		}
		words->segments[i].kept_first = kept->kept_first;
		words->segments[i].kept_last = kept->kept_last;
		words->segments[i].kept_bytes = kept->kept_bytes;
	}
	struct session_position *position = arena_session_write(arena, UNARY_CHANNEL);
	position->watermarks = ref;
	return words;
}

struct segment_words *unary_words_open(struct arena *arena, uint32_t count)
{
	const struct session_position *position = arena_session(arena, UNARY_CHANNEL);
	arena_ref ref = position->watermarks;
	struct unary_words *words, *old = NULL;

	if (ref != 0) {
		old = words_find(arena, ref);
		if (old == NULL)
			return NULL;
		if (old->count == count)
			return old->segments;
	}
	words = words_make(arena, count, old);
	if (words != NULL && old != NULL)
		arena_free(arena, UNARY_CHANNEL, ref, words_size((size_t)old->count));
	return words == NULL || arena->trouble != ARENA_FINE ? NULL : words->segments;
}

struct segment_words *unary_words_write(struct arena *arena, struct segment_words *words)
{
	return arena_write(arena, words, sizeof(*words));
}

bool unary_keep(struct arena *arena, struct segment_words *words, uint64_t size, struct wire_writer *writer)
{
	_Static_assert(UNARY_KEEP_MAX + sizeof(struct kept) <= ARENA_BLOCK_MAX, "a block holds what is kept at a time");
	arena_ref ref = arena_alloc(arena, UNARY_CHANNEL, sizeof(struct kept) + size);

	if (ref == 0)
		return false;
	struct kept *kept = arena_at(arena, ref);
	*kept = (struct kept){.size = (uint32_t)size};
	if (words->kept_first == 0) {
		words->kept_first = ref;
	} else {
		struct kept *last = kept_find(arena, words->kept_last);
		if (last == NULL)
			return false;
		arena_write(arena, &last->next, sizeof(last->next));
		last->next = ref;
	}
	words->kept_last = ref;
	words->kept_bytes += size;
	*writer = (struct wire_writer){.at = kept->bytes, .end = kept->bytes + size};
	return arena->trouble == ARENA_FINE;
}

void unary_hand_out(struct arena *arena, struct segment_words *words, struct wire_writer *writer)
{
	while (words->kept_first != 0) {
		arena_ref ref = words->kept_first;
		const struct kept *kept = kept_find(arena, ref);

		if (kept != NULL && (kept->size == 0 || kept->size > words->kept_bytes))
			arena_set_broken(arena, "what a unary call keeps is not what it says");
		if (kept == NULL || arena->trouble == ARENA_BROKEN)
			return;
		if (writer != NULL)
			wire_put_encoded(writer, (struct view){kept->bytes, kept->size});
		words->kept_first = kept->next;
		words->kept_bytes -= kept->size;
		arena_free(arena, UNARY_CHANNEL, ref, sizeof(*kept) + kept->size);
	}
	words->kept_last = 0;
}
