/*
 * Memory that is freed as a whole: the strings, arrays and structs of one document or one descriptor.
 */
#ifndef DESCRIPTOR_POOL_H
#define DESCRIPTOR_POOL_H

#include <stddef.h>

struct pool_block;

struct pool {
	struct pool_block *newest; /* NULL: empty, which is how a pool starts */
};

/* Frees everything; the pool is empty again. */
void pool_free(struct pool *pool);

/* Zeroed bytes, aligned for anything. Never NULL: the process ends in words when memory is out. */
void *pool_alloc(struct pool *pool, size_t size);

/* Zeroed room for `count` items of `size` bytes. */
void *pool_array(struct pool *pool, size_t count, size_t size);

/* Copies of text, with a NUL behind them. */
char *pool_copy(struct pool *pool, const char *text);
char *pool_copy_bytes(struct pool *pool, const void *bytes, size_t size);

/* Text put together like printf does. */
char *pool_format(struct pool *pool, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
