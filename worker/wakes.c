/* Wake-ups from within (wakes.h). */
#include "worker/wakes.h"

#include <stdatomic.h>

#include "shared/control.h"

static int the_bell = -1;
static _Atomic uint32_t rung;

void wakes_have_bell(int bell)
{
	the_bell = bell;
}

bool wakes_are_heard(void)
{
	return the_bell >= 0;
}

uint32_t wakes_count(void)
{
	/* Sequentially consistent: a worker that is about to sleep looks at it behind its own word that it sleeps. */
	return atomic_load_explicit(&rung, memory_order_seq_cst);
}

void wakes_ring(void)
{
	atomic_fetch_add_explicit(&rung, 1, memory_order_seq_cst);
	if (the_bell >= 0)
		doorbell_ring(the_bell);
}
