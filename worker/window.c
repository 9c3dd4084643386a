/*
 * Windows of the unary service: a hash table of chains, and a list by age through all of them.
 */
#include "worker/window.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "shared/log.h"
#include "worker/memory.h"

enum { BUCKETS_FIRST = 64 };

struct windows {
	struct window **buckets;
	size_t bucket_count; /* a power of two */
	uint64_t count, bytes, bytes_max;
	struct window *oldest, *newest;
};

/* Starts without windows. */
struct windows *windows_create(uint64_t bytes_max)
{
	struct windows *windows = memory_make(1, sizeof(*windows), "windows");

	windows->bucket_count = BUCKETS_FIRST;
	windows->buckets = memory_make(windows->bucket_count, sizeof(windows->buckets[0]), "windows");
	windows->bytes_max = bytes_max;
	return windows;
}

/* Frees everything. */
void windows_destroy(struct windows *windows)
{
	if (windows == NULL)
		return;
	while (windows->oldest != NULL)
		windows_remove(windows, windows->oldest);
	free(windows->buckets);
	free(windows);
}

/* The hash of a name. */
static uint64_t name_hash(const struct window_name *name)
{
	uint64_t seed = (uint64_t)name->start * UINT64_C(0x9e3779b97f4a7c15) ^ name->segment;

	return XXH3_64bits_withSeed(name->key.size > 0 ? name->key.data : (const uint8_t *)"", name->key.size, seed);
}

/* Whether a window goes by that name. */
static bool name_is(const struct window *window, const struct window_name *name, uint64_t hash)
{
	return window->hash == hash && window->segment == name->segment && window->start == name->start &&
	       view_equal((struct view){window->key, window->key_size}, name->key);
}

/* Where the chain of a hash begins. */
static struct window **bucket_of(const struct windows *windows, uint64_t hash)
{
	return &windows->buckets[hash & (windows->bucket_count - 1)];
}

/* Finds a window. */
struct window *windows_find(const struct windows *windows, const struct window_name *name)
{
	uint64_t hash = name_hash(name);
	struct window *window = *bucket_of(windows, hash);

	while (window != NULL && !name_is(window, name, hash))
		window = window->chain;
	return window;
}

/* Doubles the table; when memory is out the chains just grow longer. */
static void table_grow(struct windows *windows)
{
	size_t count = windows->bucket_count * 2;
	struct window **buckets = calloc(count, sizeof(buckets[0]));

	if (buckets == NULL)
		return;
	free(windows->buckets);
	windows->buckets = buckets;
	windows->bucket_count = count;
	for (struct window *window = windows->oldest; window != NULL; window = window->newer) {
		struct window **bucket = bucket_of(windows, window->hash);

		window->chain = *bucket;
		*bucket = window;
	}
}

/* Puts a window into table and list. */
static void link_window(struct windows *windows, struct window *window)
{
	struct window **bucket;

	window->older = windows->newest;
	if (windows->newest != NULL)
		windows->newest->newer = window;
	else
		windows->oldest = window;
	windows->newest = window;
	bucket = bucket_of(windows, window->hash);
	window->chain = *bucket;
	*bucket = window;
	windows->count++;
	windows->bytes += window->bytes;
	if (windows->count > windows->bucket_count)
		table_grow(windows);
}

/* Bytes of a window without messages, and of one message. */
static uint64_t window_cost(const struct window_name *name)
{
	return sizeof(struct window) + name->key.size;
}

/* Bytes that a message costs while it is held. */
static uint64_t message_cost(struct view message)
{
	return (sizeof(struct window_message) + message.size + 15) / 16 *
	       16; /* as the allocator has it, or about that */
}

/* Makes an empty window. */
static struct window *window_create(struct windows *windows, const struct window_name *name, uint64_t now_ns)
{
	struct window *window = memory_make(1, sizeof(*window) + name->key.size, "a window");

	*window = (struct window){
	    .opened_ns = now_ns,
	    .bytes = window_cost(name),
	    .hash = name_hash(name),
	    .segment = name->segment,
	    .start = name->start,
	    .key_size = name->key.size,
	};
	window->last = &window->first;
	if (name->key.size > 0)
		memcpy(window->key, name->key.data, name->key.size);
	link_window(windows, window);
	return window;
}

/* Copies a message into a window. */
bool windows_add(struct windows *windows, const struct window_name *name, struct view message, uint64_t now_ns)
{
	struct window *window = windows_find(windows, name);
	uint64_t cost = message_cost(message) + (window == NULL ? window_cost(name) : 0);
	struct window_message *copy;

	if (cost > windows->bytes_max || windows->bytes > windows->bytes_max - cost)
		return false;
	copy = malloc(sizeof(*copy) + message.size);
	if (copy == NULL)
		memory_leave("the messages of a window");
	if (window == NULL)
		window = window_create(windows, name, now_ns);
	copy->next = NULL;
	copy->size = message.size;
	if (message.size > 0)
		memcpy(copy->bytes, message.data, message.size);
	*window->last = copy;
	window->last = &copy->next;
	window->bytes += message_cost(message);
	windows->bytes += message_cost(message);
	return true;
}

/* Takes a window out of table and list. */
static void unlink_window(struct windows *windows, struct window *window)
{
	struct window **at = bucket_of(windows, window->hash);

	while (*at != window)
		at = &(*at)->chain;
	*at = window->chain;
	*(window->older != NULL ? &window->older->newer : &windows->oldest) = window->newer;
	*(window->newer != NULL ? &window->newer->older : &windows->newest) = window->older;
	windows->count--;
	windows->bytes -= window->bytes;
}

/* Forgets a window. */
void windows_remove(struct windows *windows, struct window *window)
{
	unlink_window(windows, window);
	while (window->first != NULL) {
		struct window_message *message = window->first;

		window->first = message->next;
		free(message);
	}
	free(window);
}

/* Forgets the windows opened before a time. */
uint32_t windows_expire(struct windows *windows, uint64_t before_ns)
{
	uint32_t expired = 0;

	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): removing the oldest moves the head on before it is freed */
	while (windows->oldest != NULL && windows->oldest->opened_ns < before_ns) {
		windows_remove(windows, windows->oldest);
		expired++;
	}
	return expired;
}

/* The oldest window. */
const struct window *windows_oldest(const struct windows *windows)
{
	return windows->oldest;
}

/* How many there are. */
uint64_t windows_count(const struct windows *windows)
{
	return windows->count;
}

/* The bytes that they take up. */
uint64_t windows_bytes(const struct windows *windows)
{
	return windows->bytes;
}
