/*
 * Windows of the unary service: messages that AddToWindow collected and TriggerWindow has not asked for yet.
 *
 * A window is named by segment, partition key and start. Messages are copied as they are on the wire, in the order of
 * arrival. All windows of a worker together are bounded by bytes, each by its age: nobody promises to trigger it.
 */
#ifndef WORKER_WINDOW_H
#define WORKER_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/view.h"

struct windows;

/* What a window is known by. */
struct window_name {
	uint32_t segment;
	struct view key;
	int64_t start; /* ms */
};

/* One message of a window. */
struct window_message {
	struct window_message *next;
	size_t size;
	uint8_t bytes[];
};

struct window {
	struct window *chain;         /* the next one of the same bucket */
	struct window *newer, *older; /* by age */
	struct window_message *first, **last;
	uint64_t opened_ns; /* CLOCK_MONOTONIC of its first message */
	uint64_t bytes;     /* of memory that it takes up */
	uint64_t hash;
	uint32_t segment;
	int64_t start;
	size_t key_size;
	uint8_t key[];
};

/* Starts without windows; frees them all. */
struct windows *windows_create(uint64_t bytes_max);
void windows_destroy(struct windows *windows);

/* Copies a message into a window, which is made by its first one. False when that would exceed the bytes allowed. */
bool windows_add(struct windows *windows, const struct window_name *name, struct view message, uint64_t now_ns);

/* Finds a window; NULL when there is none. */
struct window *windows_find(const struct windows *windows, const struct window_name *name);

/* Forgets a window. */
void windows_remove(struct windows *windows, struct window *window);

/* Forgets the windows opened before a time; returns how many. */
uint32_t windows_expire(struct windows *windows, uint64_t before_ns);

/* The oldest window; NULL when there is none. */
const struct window *windows_oldest(const struct windows *windows);

/* How many there are, and the bytes of memory that they take up. */
uint64_t windows_count(const struct windows *windows);
uint64_t windows_bytes(const struct windows *windows);

#endif
