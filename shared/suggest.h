/* "Did you mean": the name nearest to a mistyped word. */
#ifndef SHARED_SUGGEST_H
#define SHARED_SUGGEST_H

#include <stddef.h>

/* The nearest of some names (ignoring case), or NULL when none is near enough to be meant. */
const char *suggest_nearest(const char *word, const char *const *names, size_t count);

#endif
