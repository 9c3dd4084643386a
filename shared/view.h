/* A run of bytes that somebody else owns. */
#ifndef SHARED_VIEW_H
#define SHARED_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct view {
	const uint8_t *data;
	size_t size; /* bytes */
};

/* The bytes of a string literal or other C string, without its NUL. */
static inline struct view view_of(const char *text)
{
	return (struct view){(const uint8_t *)text, strlen(text)};
}

/* Whether two views hold the same bytes. */
static inline bool view_equal(struct view a, struct view b)
{
	return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Which of two views comes first, as memcmp() says it: byte by byte, of two that begin alike the shorter one. */
static inline int view_compare(struct view a, struct view b)
{
	size_t common = a.size < b.size ? a.size : b.size;
	int order = common == 0 ? 0 : memcmp(a.data, b.data, common);

	return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

#endif
