/*
 * Looking for work a little longer before sleeping: saves a wake-up (two system calls and tens of microseconds on a halted
 * core) where the next piece of work is near.
 *
 * Between two looks the core is offered to others. Where a stranger takes it, offering costs a whole time slice, while a
 * sleeper that is woken gets the core back at once: so after an offer that took long, sleep at once for a while.
 *
 *   for (;;) {
 *           spin_look(&spin, now = clock_ns());
 *           if (work was found and done)
 *                   spin_end(&spin);
 *           else if (!spin_on(&spin, now))
 *                   sleep, then spin_end(&spin);
 *   }
 */
#ifndef SHARED_SPIN_H
#define SHARED_SPIN_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	SPIN_STRANGER_NS = 300000, /* our own processes give the core back sooner than this; a stranger's slice is ms */
	SPIN_PAUSE_NS = 20000000,  /* how long not to spin after a stranger was met */
};

/* One loop's habit of looking. One thread. */
struct spin {
	uint64_t limit_ns;       /* how long to look; 0: never */
	uint64_t began_ns;       /* 0: not looking */
	uint64_t offered_ns;     /* when the core was offered last; 0: it has been given back */
	uint64_t pause_until_ns; /* a stranger was met */
};

/* Tells the core that this is a loop of looks. */
static inline void spin_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Says what time it is after the core may have been offered: before anything else in a turn. */
static inline void spin_look(struct spin *spin, uint64_t now_ns)
{
	if (spin->offered_ns != 0 && now_ns - spin->offered_ns > SPIN_STRANGER_NS)
		spin->pause_until_ns = now_ns + SPIN_PAUSE_NS;
	spin->offered_ns = 0;
}

/* Something was found, or it slept: the next look starts anew. */
static inline void spin_end(struct spin *spin)
{
	spin->began_ns = 0;
}

/* Nothing was found: offers the core and returns true, to look again; false: it is time to sleep. */
static inline bool spin_on(struct spin *spin, uint64_t now_ns)
{
	if (spin->began_ns == 0)
		spin->began_ns = now_ns;
	if (now_ns - spin->began_ns >= spin->limit_ns || now_ns < spin->pause_until_ns)
		return false;
	spin->offered_ns = now_ns;
	sched_yield();
	return true;
}

#endif
