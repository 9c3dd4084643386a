/*
 * The watching thread (run_watch.h): epoll with one-shot items. It touches nothing of the runner but the items' ready
 * flags and client_wake.
 */
#include "cli/run_watch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cli/client.h"
#include "shared/log.h"

struct watch {
	int epoll, stop;
	pthread_t thread;
	struct client *client;
};

/* The thread: waits, marks, wakes. An event without an item is the order to stop. */
static void *watch_main(void *argument)
{
	struct watch *watch = argument;
	for (;;) {
		struct epoll_event events[16];
		int count = epoll_wait(watch->epoll, events, 16, -1);
		for (int i = 0; i < count; i++) {
			struct watch_item *item = events[i].data.ptr;
			if (item == NULL)
				return NULL;
			atomic_store_explicit(&item->ready, true, memory_order_release); /* pairs with watch_taken */
		}
		if (count > 0)
			client_wake(watch->client);
	}
}

struct watch *watch_start(struct client *client)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		fatalx("out of memory");
	watch->client = client;
	watch->epoll = epoll_create1(EPOLL_CLOEXEC);
	watch->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event stop = {.events = EPOLLIN, .data.ptr = NULL};
	if (watch->epoll < 0 || watch->stop < 0 || epoll_ctl(watch->epoll, EPOLL_CTL_ADD, watch->stop, &stop) != 0)
		fatal("cannot wait for files");
	int error = pthread_create(&watch->thread, NULL, watch_main, watch);
	if (error != 0) {
		errno = error;
		fatal("cannot start a thread");
	}
	return watch;
}

void watch_stop(struct watch *watch)
{
	if (watch == NULL)
		return;
	eventfd_write(watch->stop, 1);
	pthread_join(watch->thread, NULL);
	close(watch->epoll);
	close(watch->stop);
	free(watch);
}

bool watch_arm(struct watch *watch, struct watch_item *item)
{
	struct epoll_event event = {.events = item->events | EPOLLONESHOT, .data.ptr = item};
	if (epoll_ctl(watch->epoll, item->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, item->fd, &event) != 0)
		return false;
	item->armed = true;
	return true;
}

bool watch_taken(struct watch_item *item)
{
	if (!atomic_load_explicit(&item->ready, memory_order_relaxed))
		return false;
	return atomic_exchange_explicit(&item->ready, false, memory_order_acquire);
}

void watch_forget(struct watch *watch, struct watch_item *item)
{
	if (item->armed)
		epoll_ctl(watch->epoll, EPOLL_CTL_DEL, item->fd, NULL);
	item->armed = false;
}

bool watch_ready_now(int fd, uint32_t events)
{
	struct pollfd look = {.fd = fd, .events = events == EPOLLOUT ? POLLOUT : POLLIN};
	return poll(&look, 1, 0) != 0;
}
