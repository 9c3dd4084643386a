/*
 * The slot memory: what outlives a worker.
 *
 * Three mappings per slot, made by the supervisor before any fork:
 *
 *   mapping     who maps it           what it holds                                    made as
 *   channels    front, worker         the slot's channel table and ring pairs          memfd, sealed against shrink and grow
 *   arena       worker                what sessions are and hold (worker/arena.h)      memfd, sealed; or a file, see below
 *   owner page  supervisor, worker    the robust mutex that says who owns the slot     memfd, one page between guard pages
 *
 * The arena is made zeroed and formatted by its first owner. As a memfd it takes memory as state grows, up to its size; as
 * a file it is allocated whole when it is made, because a disk that is full later would be a SIGBUS, and has no name any more.
 *
 * All are MADV_DONTFORK in the worker and MADV_DONTDUMP. A channel is a pair of rings: channel 0 carries all unary
 * calls of the slot, the others one session each. The pages of a channel are allocated when the front opens it and
 * given back when the front frees it; the front alone does either, and keeps the memfd's descriptor for that.
 *
 * Invariants
 *  S1  Every shared word has one writer (the struct it is in says which), but for the two ready bitmaps: the producing
 *      side sets bits, the consuming side takes them all. A bit too many costs a look; before sleeping a side takes the
 *      bitmap once more, so a bit is never missed.
 *  S2  A channel's life is in front_channel.state (front) and worker_channel.closed_epoch (worker):
 *
 *          FREE --front: pages allocated, front's words 0--> OPEN(epoch) --front: client gone,--> CLOSING(epoch)
 *            ^                                                             or END seen             |
 *            +-- front: closed_epoch == epoch, no slice outstanding <-- worker: its words 0, drops session
 *
 *      So at FREE the words of both sides are zero. A new worker zeroes its words in every channel before it says
 *      ready, and the front then frees all of that slot's channels (their sessions have ended).
 *  S3  A new front generation: the worker drops every session, zeroes its words, and acknowledges the generation in
 *      its page (control.h); only then does the new front open a channel of that slot.
 *  S4  A process owns the slot while it holds the owner mutex, from slot_own to its end: it never unlocks. It takes it before it
 *      touches channels or arena. Whoever gets the mutex and is not meant to run ends without slot_own, and the next one has it.
 */
#ifndef SHARED_SLOT_H
#define SHARED_SLOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/ring.h"

enum {
	SLOTS_MAX = 128,
	SLOT_CHANNELS_MAX = 64, /* the unary channel and 63 sessions: one bitmap word */
	UNARY_CHANNEL = 0,
	SLOT_HUGE_PAGE = 2 << 20, /* bytes; mappings begin at a multiple */
};

enum channel_state { CHANNEL_FREE, CHANNEL_OPEN, CHANNEL_CLOSING };

/* Written by the front alone. */
struct front_channel {
	_Alignas(RING_LINE) _Atomic uint64_t
	    state;           /* epoch << 2 | enum channel_state; release, pairs with the worker's look */
	uint32_t segment;    /* of the session; written before state; unused on the unary channel */
	uint32_t generation; /* of the slot's worker that it was opened for; written before state; no other serves it */
	struct ring_producer_words request;
	struct ring_consumer_words response;
};

/* Written by the worker alone. */
struct worker_channel {
	_Alignas(RING_LINE) _Atomic uint32_t
	    closed_epoch; /* the last epoch dropped; release, pairs with channel_free */
	struct ring_consumer_words request;
	struct ring_producer_words response;
};

/* The first pages of the channels mapping. The head, up to `bytes`, is written once by the supervisor and tells whoever
 * looks from outside what is where; front and worker go by slot_memory.sizes, which the other one cannot write. */
struct channels {
	uint64_t magic;
	uint32_t version;
	uint32_t slot;
	uint32_t channel_count; /* the unary channel included */
	uint64_t unary_ring;    /* bytes of each ring of channel 0 */
	uint64_t session_ring;  /* bytes of each ring of the others */
	uint64_t rings_offset;  /* where channel 0's request ring starts */
	uint64_t bytes;         /* of the whole mapping */
	/* Bitmaps of channels with something to look at (S1): data, room, a change of state. */
	_Alignas(RING_LINE) _Atomic uint64_t ready_for_worker; /* front sets, worker takes */
	_Alignas(RING_LINE) _Atomic uint64_t ready_for_front;  /* worker sets, front takes */
	_Alignas(RING_LINE) _Atomic uint32_t worker_sleeps;    /* worker: 1 before it blocks on its doorbell */
	_Alignas(RING_LINE) struct front_channel front[SLOT_CHANNELS_MAX];
	struct worker_channel worker[SLOT_CHANNELS_MAX];
};

/* What sizes a slot's memory; frozen before the first slot is made. */
struct slot_sizes {
	uint32_t channel_count;
	uint64_t unary_ring;   /* bytes, power of two */
	uint64_t session_ring; /* bytes, power of two */
	uint64_t arena;        /* bytes of the whole mapping, whole pages */
};

/* One slot's memory as the supervisor made it; descriptors are inherited by fork and closed by who needs them not. */
struct slot_memory {
	uint32_t slot;
	int channels_fd, arena_fd, owner_fd;
	int worker_bell; /* eventfd, edge-triggered in the worker's epoll; written by front and supervisor */
	struct slot_sizes sizes;
	struct channels *channels; /* NULL where not mapped */
	void *arena;               /* sizes.arena bytes; NULL where not mapped */
	uint64_t premapped;        /* bytes that the arena had when slot_premap last began */
	uint64_t premap_at;        /* how far it has come; 0: it is through */
	uint64_t premap_end;       /* of the data that it is in */
	uint64_t premap_held;      /* bytes that the arena had when that was found */
	bool premap_filling;       /* the arena grew fast before: it has small pages as yet */
	uint32_t premap_refused;   /* huge pages, in a row, in this walk */
	uint64_t renewed; /* bytes of the file that slot_memory_renew has allocated so far; 0: none is under way */
	pthread_mutex_t *owner; /* NULL where not mapped */
};

/* ---- Supervisor ---- */

/* Bytes of shared memory that one slot may come to use (all channels open, all state memory taken). */
uint64_t slot_memory_max(const struct slot_sizes *sizes);

/* Makes the memories, writes the channels' head, maps the owner page. The arena becomes a nameless file in the directory
 * `state_dir`, allocated whole, or a memfd when that is -1. 0, or -1 with errno. */
int slot_memory_create(struct slot_memory *memory, uint32_t slot, const struct slot_sizes *sizes, int state_dir);

enum slot_renewal {
	RENEWAL_DONE,
	RENEWAL_MORE,   /* to be called again: a file is allocated piece by piece, since a disk may take its time */
	RENEWAL_FAILED, /* with errno: there is neither until a later call has made them */
};

/* Gives arena and owner page up, and makes new ones: whoever has the old ones mapped keeps them for himself. The channels stay,
 * for the front has them mapped; the next owner zeroes the worker's words there. */
enum slot_renewal slot_memory_renew(struct slot_memory *memory, int state_dir);

/* Unmaps and closes everything. Any process. */
void slot_memory_destroy(struct slot_memory *memory);

/* Takes over the descriptors of a slot that were sent to a process which has destroyed what it had of it; maps the owner page. 0, or -1
 * with errno. */
int slot_memory_receive(struct slot_memory *memory, int channels_fd, int arena_fd, int owner_fd, int worker_bell);

/* ---- Front ---- */

/* Maps the channels and keeps only their descriptor. 0, or -1 with errno. */
int slot_attach_front(struct slot_memory *memory);

/* Allocates the pages of a channel, zeroes the front's words; the state stays FREE. 0, or -1 with errno (ENOSPC, ENOMEM). */
int channel_allocate(struct slot_memory *memory, uint32_t channel);

/* Gives the pages of a channel back, zeroes the front's words, and sets FREE. */
void channel_free(struct slot_memory *memory, uint32_t channel);

/* Publishes a state (release) and marks the channel ready for the worker. Rings no doorbell. */
void channel_set_state(struct slot_memory *memory, uint32_t channel, uint32_t epoch, enum channel_state state);

/* ---- Worker ---- */

/* Maps channels and arena, closes the descriptors (but not the doorbell, and the arena's only at slot_own), sets MADV_DONTFORK and
 * DONTDUMP on all three. 0, or -1 with errno. */
int slot_attach_worker(struct slot_memory *memory);

/* Puts the SLOT_HUGE_PAGE bytes of a mapping from a multiple of as many on into one huge page, in about a millisecond, during which other
 * processes that touch them wait. False when there is none to be had: not now, or not on this system or of this kind of memory. */
bool slot_make_huge(void *at);

/* Has the kernel fill in this process's page tables for so many bytes from a page on, and take memory for them where there is none yet, without a fault
 * for each page. Nothing on an old kernel. */
void slot_populate(void *at, size_t bytes);

/* Has the kernel fill in this process's page tables for what the arena holds, so that an heir does not fault on each page when it is
 * in a hurry, and makes huge pages of what is full: their tables take no time to make, nor to take apart when a process ends. For a millisecond or
 * two at a time, in which it does not wait for the slot. While the arena grows fast (premap_filling: to be called again soon) it makes none, for
 * whoever fills it would wait for them. Begins only when the arena has changed since it last did, or was being filled then; whether there was
 * something to do. premap_at says whether there is more. */
bool slot_premap(struct slot_memory *memory);

/* Waits for the owner mutex for so many ms. SLOT_FREE: nobody has had it. SLOT_ORPHANED: its last holder died. The caller then either
 * calls slot_own, or ends as it is: whoever waits next finds the slot orphaned again. SLOT_BROKEN: the mutex cannot be true. */
enum slot_wait { SLOT_FREE, SLOT_ORPHANED, SLOT_TAKEN, SLOT_BROKEN };
enum slot_wait slot_wait(struct slot_memory *memory, uint64_t patience_ms);

/* Owns the slot from now on, until the process ends; after slot_wait. 0, or an errno. */
int slot_own(struct slot_memory *memory, enum slot_wait found);

/* Zeroes the worker's words of one channel and publishes closed_epoch (S2). */
void channel_close(struct slot_memory *memory, uint32_t channel, uint32_t epoch);

/* Zeroes the worker's words of all channels (S2, S3). */
void slot_reset_worker(struct slot_memory *memory);

/* ---- Both ends ---- */

/* Where the rings of a channel are. */
uint8_t *channel_request_data(const struct slot_memory *memory, uint32_t channel);
uint8_t *channel_response_data(const struct slot_memory *memory, uint32_t channel);
uint64_t channel_ring_size(const struct slot_memory *memory, uint32_t channel);

static inline uint32_t channel_epoch_of(uint64_t state)
{
	return (uint32_t)(state >> 2);
}

static inline enum channel_state channel_state_of(uint64_t state)
{
	return (enum channel_state)(state & 3);
}

/* Marks a channel in a ready bitmap (release) and tells whether it was clear before. */
static inline bool ready_set(_Atomic uint64_t *bitmap, uint32_t channel)
{
	uint64_t bit = UINT64_C(1) << channel;
	return (atomic_fetch_or_explicit(bitmap, bit, memory_order_seq_cst) & bit) == 0;
}

/* Takes all marks (acquire); cheap when there are none. */
static inline uint64_t ready_take(_Atomic uint64_t *bitmap)
{
	if (atomic_load_explicit(bitmap, memory_order_seq_cst) == 0)
		return 0;
	return atomic_exchange_explicit(bitmap, 0, memory_order_seq_cst);
}

#endif
