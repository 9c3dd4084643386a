/*
 * Memory that is freed as a whole (pool.h): a list of blocks, the newest of which is filled from its start. What does not
 * fit into an ordinary block gets one of its own.
 */
#include "descriptor/pool.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"

enum { BLOCK_BYTES = 32 << 10, ALIGN = 16 };

struct pool_block {
	struct pool_block *older;
	size_t used, size;
	_Alignas(ALIGN) char bytes[];
};

void pool_free(struct pool *pool)
{
	while (pool->newest != NULL) {
		struct pool_block *older = pool->newest->older;
		free(pool->newest);
		pool->newest = older;
	}
}

/* Puts a new block with room for so many bytes in front of the others. */
static void block_add(struct pool *pool, size_t size)
{
	size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
	struct pool_block *block = calloc(1, sizeof(*block) + room);

	if (block == NULL)
		fatal("no memory for %zu more bytes of a document", room);
	block->size = room;
	block->older = pool->newest;
	pool->newest = block;
}

void *pool_alloc(struct pool *pool, size_t size)
{
	CHECK(size <= SIZE_MAX / 2);
	size_t rounded = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);

	if (pool->newest == NULL || pool->newest->size - pool->newest->used < rounded)
		block_add(pool, rounded);
	void *bytes = pool->newest->bytes + pool->newest->used;
	pool->newest->used += rounded;
	return bytes;
}

void *pool_array(struct pool *pool, size_t count, size_t size)
{
	CHECK(count <= SIZE_MAX / 2 / size);
	return pool_alloc(pool, count * size);
}

char *pool_copy_bytes(struct pool *pool, const void *bytes, size_t size)
{
	char *copy = pool_alloc(pool, size + 1);

	if (size > 0)
		memcpy(copy, bytes, size);
	return copy;
}

char *pool_copy(struct pool *pool, const char *text)
{
	return pool_copy_bytes(pool, text, strlen(text));
}

char *pool_format(struct pool *pool, const char *format, ...)
{
	va_list arguments, again;

	va_start(arguments, format);
	va_copy(again, arguments);
	int length = vsnprintf(NULL, 0, format, arguments);
	CHECK(length >= 0);
	char *text = pool_alloc(pool, (size_t)length + 1);
	vsnprintf(text, (size_t)length + 1, format, again);
	va_end(again);
	va_end(arguments);
	return text;
}
