/* "Did you mean" (suggest.h): edit distance with swaps of neighbours, over words of bounded length. */
#include "shared/suggest.h"

#include <ctype.h>
#include <string.h>

enum { WORD_MAX = 64 };

/* The smaller of two numbers. */
static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* How many letters must be changed, added, taken out or swapped to make one word of the other. */
static size_t distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	size_t rows[3][WORD_MAX + 1];

	for (size_t j = 0; j <= m; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *older = rows[(i + 1) % 3];
		now[0] = i;
		for (size_t j = 1; j <= m; j++) {
			int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
			now[j] = least(before[j - 1] + (x != y), least(before[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]))
				now[j] = least(now[j], older[j - 2] + 1);
		}
	}
	return rows[n % 3][m];
}

const char *suggest_nearest(const char *word, const char *const *names, size_t count)
{
	size_t length = strlen(word), best = length / 3 + 1;
	const char *nearest = NULL;

	if (length == 0 || length > WORD_MAX)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (strlen(names[i]) > WORD_MAX)
			continue;
		size_t d = distance(word, names[i]);
		if (d < best || (d == best && nearest == NULL)) {
			best = d;
			nearest = names[i];
		}
	}
	return nearest;
}
