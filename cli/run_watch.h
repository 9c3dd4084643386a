/*
 * File descriptors that the runner waits for beside gRPC: signals, the sidecar's end, pipes. A thread blocks on them all
 * and wakes the client's poll; whatever is to be done is done by the runner's one thread.
 */
#ifndef CLI_RUN_WATCH_H
#define CLI_RUN_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct client;
struct watch;

/* One watched descriptor; lives where its owner keeps it, at least as long as the watch. */
struct watch_item {
	int fd;
	uint32_t events; /* EPOLLIN or EPOLLOUT */
	bool armed;
	_Atomic bool ready; /* set by the thread, taken by the runner */
};

/* Starts the thread. Ends the process in words when that is impossible. */
struct watch *watch_start(struct client *client);

/* Ends the thread. */
void watch_stop(struct watch *watch);

/* Starts waiting for a descriptor, once: watch_taken, then arm it again. False: it is none that can be waited for, such
 * as a regular file, which is always ready. */
bool watch_arm(struct watch *watch, struct watch_item *item);

/* Whether an armed descriptor became ready since it was last asked. */
bool watch_taken(struct watch_item *item);

/* Stops waiting for a descriptor that is about to be closed. */
void watch_forget(struct watch *watch, struct watch_item *item);

/* Whether reading or writing would not block now. */
bool watch_ready_now(int fd, uint32_t events);

#endif
