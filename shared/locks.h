/* The mutexes of Abseil, which gRPC is built on. */
#ifndef SHARED_LOCKS_H
#define SHARED_LOCKS_H

/*
 * Has Abseil's mutexes of this process no longer keep a graph of who holds what while waiting for what, and look for
 * circles in it at every lock. A library built for release has no such search, but Debian's is built without NDEBUG. For any
 * process, before it starts threads that use gRPC.
 */
void locks_unwatched(void);

#endif
