/*
 * The slot memory: making, mapping, and the pages of channels. The layout and the invariants S1 to S4 stand in slot.h.
 *
 *   channels mapping   | struct channels | request 0 | response 0 | request 1 | response 1 | ...
 *                        head pages        unary_ring each          session_ring each
 *
 * The arena is a mapping of its own, as large as --state-memory says; what is in it is the worker's business. All sizes are fixed when the supervisor makes the memory and the memfds are sealed at them, so no process can make
 * another one's access fail by truncating. What is used is allocated beforehand, so that a lack of memory is an errno in
 * the process that asks and never a SIGBUS in one that writes. (Where a cgroup's limit is hit the kernel may still kill;
 * the budget is checked against it at start.)
 *
 * The head is for people and tools that look at a memory from outside. No process goes by it: whoever maps the channels
 * could write there, and so each computes the layout from the sizes that the supervisor handed it.
 *
 * Left out: state, timers and the undo log of the arena.
 */
#include "shared/slot.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "shared/control.h"
#include "shared/log.h"

#define CHANNELS_MAGIC UINT64_C(0x314c4e4e41484346) /* "FCHANNL1" */

enum { LAYOUT_VERSION = 1 };

/* For how long an heir maps arena at a time. */
#define PREMAP_NS UINT64_C(1000000)

/* An arena that has grown by this much since an heir last looked is being filled; who fills it is not to wait for huge pages. */
#define PREMAP_FILLING (UINT64_C(8) << 20)

/* How many huge pages in a row are refused before a walk asks for no more: memory is in pieces, or there are none at all. */
enum { PREMAP_REFUSED_MAX = 8 };

/* The system's own number, which older headers do not have. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Bytes of a file that are allocated at a time: milliseconds even where the file system has to write them. */
#define FILE_PIECE (UINT64_C(16) << 20)

/* Bytes of a page. */
static uint64_t page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Rounds up to whole pages. */
static uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + page_size() - 1) / page_size() * page_size();
}

/* ---- Layout ------------------------------------------------------------------------------------------------------ */

/* Where the rings start: behind the head pages. */
static uint64_t rings_offset(void)
{
	return whole_pages(sizeof(struct channels));
}

/* Where a channel's request ring starts; its response ring follows. `channel` may be channel_count: the end. */
static uint64_t channel_offset(const struct slot_sizes *sizes, uint32_t channel)
{
	if (channel == UNARY_CHANNEL)
		return rings_offset();
	return rings_offset() + 2 * sizes->unary_ring + (uint64_t)2 * (channel - 1) * sizes->session_ring;
}

/* Bytes of the channels mapping. */
static uint64_t channels_bytes(const struct slot_sizes *sizes)
{
	return channel_offset(sizes, sizes->channel_count);
}

uint64_t slot_memory_max(const struct slot_sizes *sizes)
{
	return channels_bytes(sizes) + sizes->arena + page_size();
}

uint64_t channel_ring_size(const struct slot_memory *memory, uint32_t channel)
{
	return channel == UNARY_CHANNEL ? memory->sizes.unary_ring : memory->sizes.session_ring;
}

uint8_t *channel_request_data(const struct slot_memory *memory, uint32_t channel)
{
	CHECK(channel < memory->sizes.channel_count);
	return (uint8_t *)memory->channels + channel_offset(&memory->sizes, channel);
}

uint8_t *channel_response_data(const struct slot_memory *memory, uint32_t channel)
{
	return channel_request_data(memory, channel) + channel_ring_size(memory, channel);
}

/* ---- Making ------------------------------------------------------------------------------------------------------ */

/* Whether a ring can have this size: whole pages, a power of two, not too large. */
static bool ring_size_is_sound(uint64_t size)
{
	return size >= page_size() && size <= RING_SIZE_MAX && (size & (size - 1)) == 0;
}

/* Whether an arena can have this size: whole pages. */
static bool arena_size_is_sound(uint64_t size)
{
	return size > 0 && size % page_size() == 0;
}

/* Allocates pages of a memfd, however often a signal comes between. 0, or -1 with errno. */
static int allocate(int fd, uint64_t offset, uint64_t bytes)
{
	int result;
	do
		result = fallocate(fd, 0, (off_t)offset, (off_t)bytes);
	while (result != 0 && errno == EINTR);
	return result;
}

/* A memfd of a fixed size, its first bytes allocated, sealed. The descriptor, or -1 with errno. */
static int make_memfd(const char *what, uint32_t slot, uint64_t bytes, uint64_t allocated)
{
	char name[64];
	snprintf(name, sizeof(name), "bridge-%s-%u", what, slot);
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)bytes) == 0 && (allocated == 0 || allocate(fd, 0, allocated) == 0) &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Writes the constant part of the channels' head. 0, or -1 with errno. */
static int write_head(const struct slot_memory *memory)
{
	const struct slot_sizes *sizes = &memory->sizes;
	struct channels channels = {
	    .magic = CHANNELS_MAGIC,
	    .version = LAYOUT_VERSION,
	    .slot = memory->slot,
	    .channel_count = sizes->channel_count,
	    .unary_ring = sizes->unary_ring,
	    .session_ring = sizes->session_ring,
	    .rings_offset = rings_offset(),
	    .bytes = channels_bytes(sizes),
	};
	return pwrite(memory->channels_fd, &channels, sizeof(channels), 0) == (ssize_t)sizeof(channels) ? 0 : -1;
}

/* A file in a directory, empty and without a name. The descriptor, or -1 with errno. */
static int open_file(int directory, uint32_t slot)
{
	char name[64];
	snprintf(name, sizeof(name), "bridge-arena-%u", slot);
	/* The directory is locked: what has this name is left over from a sidecar that was killed while it made it. */
	if (unlinkat(directory, name, 0) != 0 && errno != ENOENT)
		return -1;
	int fd = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || unlinkat(directory, name, 0) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Allocates bytes of a file. 0, or an errno. */
static int allocate_file(int fd, uint64_t from, uint64_t bytes)
{
	int error;
	do
		error = posix_fallocate(fd, (off_t)from, (off_t)bytes);
	while (error == EINTR);
	return error;
}

/* Allocates the next piece of a file. Where there cannot be room for all of it, not the first piece either: to fill a file system, or a
 * tmpfs and the memory, up before saying so would hurt others. 0, or an errno. */
static int allocate_piece(int fd, uint64_t bytes, uint64_t *done)
{
	struct statvfs room;
	uint64_t left = bytes - *done, piece = left < FILE_PIECE ? left : FILE_PIECE;
	if (fstatvfs(fd, &room) == 0 && room.f_blocks > 0 && (uint64_t)room.f_bavail * room.f_frsize < left)
		return ENOSPC;
	int error = allocate_file(fd, *done, piece);
	if (error == 0)
		*done += piece;
	return error;
}

/* A file of a fixed size in a directory, allocated whole and without a name. The descriptor, or -1 with errno. */
static int make_file(int directory, uint32_t slot, uint64_t bytes)
{
	int fd = open_file(directory, slot), error = fd < 0 ? errno : allocate_file(fd, 0, bytes);
	if (error == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	errno = error;
	return -1;
}

/* Makes the arena, zeroed. The descriptor, or -1 with errno. */
static int make_arena(const struct slot_memory *memory, int state_dir)
{
	if (state_dir >= 0)
		return make_file(state_dir, memory->slot, memory->sizes.arena);
	return make_memfd("arena", memory->slot, memory->sizes.arena, 0);
}

/* Maps the owner page between two pages that nobody may touch. The page, or NULL with errno. */
static void *map_owner_page(int fd)
{
	size_t page = page_size();
	uint8_t *guards = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (guards == MAP_FAILED)
		return NULL;
	void *owner = mmap(guards + page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (owner != MAP_FAILED && madvise(owner, page, MADV_DONTDUMP) == 0)
		return owner;
	int error = errno;
	munmap(guards, 3 * page);
	errno = error;
	return NULL;
}

/* Makes the mutex that says who owns the slot: its holder's death is told to the next one who locks. 0 or an errno. */
static int init_owner(pthread_mutex_t *owner)
{
	pthread_mutexattr_t attributes;
	int error = pthread_mutexattr_init(&attributes);
	if (error != 0)
		return error;
	error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	if (error == 0)
		error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	if (error == 0)
		error = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	if (error == 0)
		error = pthread_mutex_init(owner, &attributes);
	pthread_mutexattr_destroy(&attributes);
	return error;
}

/* Makes the owner page and the mutex in it. 0, or -1 with errno. */
static int make_owner(struct slot_memory *memory)
{
	memory->owner_fd = make_memfd("owner", memory->slot, page_size(), page_size());
	if (memory->owner_fd < 0)
		return -1;
	memory->owner = map_owner_page(memory->owner_fd);
	if (memory->owner == NULL)
		return -1;
	errno = init_owner(memory->owner);
	return errno == 0 ? 0 : -1;
}

/* The steps of slot_memory_create; what they have made when one fails is undone by the caller. 0, or -1 with errno. */
static int make_all(struct slot_memory *memory, int state_dir)
{
	memory->channels_fd = make_memfd("channels", memory->slot, channels_bytes(&memory->sizes), rings_offset());
	if (memory->channels_fd < 0 || write_head(memory) != 0)
		return -1;
	memory->arena_fd = make_arena(memory, state_dir);
	if (memory->arena_fd < 0)
		return -1;
	if (make_owner(memory) != 0)
		return -1;
	memory->worker_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return memory->worker_bell < 0 ? -1 : 0;
}

int slot_memory_create(struct slot_memory *memory, uint32_t slot, const struct slot_sizes *sizes, int state_dir)
{
	*memory = (struct slot_memory){
	    .slot = slot,
	    .channels_fd = -1,
	    .arena_fd = -1,
	    .owner_fd = -1,
	    .worker_bell = -1,
	    .sizes = *sizes,
	};
	if (slot >= SLOTS_MAX || sizes->channel_count < 1 || sizes->channel_count > SLOT_CHANNELS_MAX ||
	    !ring_size_is_sound(sizes->unary_ring) || !ring_size_is_sound(sizes->session_ring) ||
	    !arena_size_is_sound(sizes->arena)) {
		errno = EINVAL;
		return -1;
	}
	if (make_all(memory, state_dir) == 0)
		return 0;
	int error = errno;
	slot_memory_destroy(memory);
	errno = error;
	return -1;
}

/* ---- Mapping ----------------------------------------------------------------------------------------------------- */

/* Closes a descriptor once. */
static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Unmaps the owner page and its guards. */
static void unmap_owner_page(struct slot_memory *memory)
{
	if (memory->owner != NULL)
		munmap((uint8_t *)memory->owner - page_size(), 3 * page_size());
	memory->owner = NULL;
}

/* Maps a memfd whole where its huge pages would be huge pages of the process: at a multiple of their size. */
static void *map_aligned(int fd, uint64_t bytes)
{
	const uint64_t most = bytes + SLOT_HUGE_PAGE;
	uint8_t *room = mmap(NULL, most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return MAP_FAILED;
	const uint64_t before = (SLOT_HUGE_PAGE - (uintptr_t)room % SLOT_HUGE_PAGE) % SLOT_HUGE_PAGE;
	void *map = mmap(room + before, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
	int error = errno;
	if (map == MAP_FAILED) {
		munmap(room, most);
		errno = error;
		return MAP_FAILED;
	}
	const uint64_t end = before + (bytes + page_size() - 1) / page_size() * page_size();
	if (before > 0)
		munmap(room, before);
	if (end < most)
		munmap(room + end, most - end);
	return map;
}

/* Maps a memfd whole, left out of core dumps. NULL with errno when that fails. */
static void *map_shared(int fd, uint64_t bytes)
{
	void *map = map_aligned(fd, bytes);
	if (map == MAP_FAILED)
		return NULL;
	if (madvise(map, bytes, MADV_DONTDUMP) == 0)
		return map;
	int error = errno;
	munmap(map, bytes);
	errno = error;
	return NULL;
}

/* Makes the arena anew, or the next piece of it. */
static enum slot_renewal renew_arena(struct slot_memory *memory, int state_dir)
{
	int error;
	if (memory->renewed == 0) {
		unmap_owner_page(memory);
		close_fd(&memory->arena_fd);
		close_fd(&memory->owner_fd);
		memory->arena_fd = state_dir >= 0 ? open_file(state_dir, memory->slot) : make_arena(memory, -1);
	}
	if (memory->arena_fd < 0)
		return RENEWAL_FAILED;
	if (state_dir < 0)
		return RENEWAL_DONE;
	error = allocate_piece(memory->arena_fd, memory->sizes.arena, &memory->renewed);
	if (error == 0)
		return memory->renewed < memory->sizes.arena ? RENEWAL_MORE : RENEWAL_DONE;
	errno = error;
	return RENEWAL_FAILED;
}

enum slot_renewal slot_memory_renew(struct slot_memory *memory, int state_dir)
{
	enum slot_renewal result = renew_arena(memory, state_dir);
	if (result == RENEWAL_MORE)
		return result;
	if (result == RENEWAL_DONE && make_owner(memory) != 0)
		result = RENEWAL_FAILED;
	memory->renewed = 0;
	if (result == RENEWAL_DONE)
		return result;
	int error = errno;
	unmap_owner_page(memory);
	close_fd(&memory->arena_fd);
	close_fd(&memory->owner_fd);
	errno = error;
	return result;
}

int slot_attach_front(struct slot_memory *memory)
{
	memory->channels = map_shared(memory->channels_fd, channels_bytes(&memory->sizes));
	if (memory->channels == NULL)
		return -1;
	close_fd(&memory->arena_fd);
	close_fd(&memory->owner_fd);
	unmap_owner_page(memory);
	return 0;
}

int slot_attach_worker(struct slot_memory *memory)
{
	memory->channels = map_shared(memory->channels_fd, channels_bytes(&memory->sizes));
	memory->arena = map_shared(memory->arena_fd, memory->sizes.arena);
	if (memory->channels == NULL || memory->arena == NULL)
		return -1;
	/* A child that user code forks must not go on writing here after this process is gone. */
	if (madvise(memory->channels, channels_bytes(&memory->sizes), MADV_DONTFORK) != 0 ||
	    madvise(memory->arena, memory->sizes.arena, MADV_DONTFORK) != 0 ||
	    madvise(memory->owner, page_size(), MADV_DONTFORK) != 0)
		return -1;
	close_fd(&memory->channels_fd);
	close_fd(&memory->owner_fd);
	return 0;
}

bool slot_make_huge(void *at)
{
	return madvise(at, SLOT_HUGE_PAGE, MADV_COLLAPSE) == 0;
}

void slot_populate(void *at, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
	(void)madvise(at, bytes, MADV_POPULATE_WRITE); /* EINVAL: an old kernel */
#else
	(void)at, (void)bytes;
#endif
}

/* Finds what the arena holds from where the walk has come to. What is a hole stays one: to touch it would take memory
 * for it. So the end of what was found before counts only while the arena has not shrunk. False when there is no more. */
static bool premap_find(struct slot_memory *memory, uint64_t held)
{
	if (memory->premap_at < memory->premap_end && held >= memory->premap_held)
		return true;
	off_t from = lseek(memory->arena_fd, (off_t)memory->premap_at, SEEK_DATA);
	off_t to = from < 0 ? from : lseek(memory->arena_fd, from, SEEK_HOLE);
	if (from < 0 || to <= from)
		return false;
	memory->premap_at = (uint64_t)from;
	memory->premap_end = (uint64_t)to;
	memory->premap_held = held;
	return true;
}

/* Maps what was found as far as a huge page goes. */
static void premap_step(struct slot_memory *memory)
{
	uint64_t next = memory->premap_at / SLOT_HUGE_PAGE * SLOT_HUGE_PAGE + SLOT_HUGE_PAGE;
	uint8_t *at = (uint8_t *)memory->arena + memory->premap_at;

	if (next > memory->premap_end)
		next = memory->premap_end;
	if (next - memory->premap_at == SLOT_HUGE_PAGE && !memory->premap_filling &&
	    memory->premap_refused < PREMAP_REFUSED_MAX)
		memory->premap_refused = slot_make_huge(at) ? 0 : memory->premap_refused + 1;
	slot_populate(at, next - memory->premap_at);
	memory->premap_at = next;
}

bool slot_premap(struct slot_memory *memory)
{
	struct stat status;
	const uint64_t until = clock_ns() + PREMAP_NS;

	if (fstat(memory->arena_fd, &status) != 0)
		return false;
	const uint64_t held = (uint64_t)status.st_blocks * 512;
	if (memory->premap_at == 0) { /* else a walk is under way */
		if (held == memory->premapped && !memory->premap_filling)
			return false;
		memory->premap_filling = held >= memory->premapped + PREMAP_FILLING;
		memory->premapped = held;
		memory->premap_end = 0;
		memory->premap_refused = 0;
	}
	do {
		if (!premap_find(memory, held)) {
			memory->premap_at = 0;
			break;
		}
		premap_step(memory);
	} while (clock_ns() < until);
	return true;
}

void slot_memory_destroy(struct slot_memory *memory)
{
	if (memory->channels != NULL)
		munmap(memory->channels, channels_bytes(&memory->sizes));
	if (memory->arena != NULL)
		munmap(memory->arena, memory->sizes.arena);
	memory->channels = NULL;
	memory->arena = NULL;
	unmap_owner_page(memory);
	close_fd(&memory->channels_fd);
	close_fd(&memory->arena_fd);
	close_fd(&memory->owner_fd);
	close_fd(&memory->worker_bell);
}

int slot_memory_receive(struct slot_memory *memory, int channels_fd, int arena_fd, int owner_fd, int worker_bell)
{
	CHECK(memory->owner == NULL && memory->channels_fd < 0);
	memory->channels_fd = channels_fd;
	memory->arena_fd = arena_fd;
	memory->owner_fd = owner_fd;
	memory->worker_bell = worker_bell;
	memory->owner = map_owner_page(owner_fd);
	return memory->owner == NULL ? -1 : 0;
}

/* ---- Words ------------------------------------------------------------------------------------------------------- */

/* Zeroes a producer's words. No order: what the caller stores next publishes it. */
static void clear_producer_words(struct ring_producer_words *words)
{
	atomic_store_explicit(&words->tail, 0, memory_order_relaxed);
	atomic_store_explicit(&words->wants_room, 0, memory_order_relaxed);
}

/* Zeroes a consumer's words. No order: what the caller stores next publishes it. */
static void clear_consumer_words(struct ring_consumer_words *words)
{
	atomic_store_explicit(&words->head, 0, memory_order_relaxed);
}

/* Zeroes the front's words of a channel, but for the state. */
static void clear_front_words(struct front_channel *front)
{
	front->segment = 0;
	front->generation = 0;
	clear_producer_words(&front->request);
	clear_consumer_words(&front->response);
}

/* Zeroes the worker's words of a channel, but for closed_epoch. */
static void clear_worker_words(struct worker_channel *worker)
{
	clear_consumer_words(&worker->request);
	clear_producer_words(&worker->response);
}

/* The bytes of a channel's two rings. */
static uint64_t channel_bytes(const struct slot_memory *memory, uint32_t channel)
{
	return 2 * channel_ring_size(memory, channel);
}

int channel_allocate(struct slot_memory *memory, uint32_t channel)
{
	CHECK(channel < memory->sizes.channel_count);
	uint64_t offset = channel_offset(&memory->sizes, channel);
	if (allocate(memory->channels_fd, offset, channel_bytes(memory, channel)) != 0)
		return -1;
	clear_front_words(&memory->channels->front[channel]);
	return 0;
}

void channel_free(struct slot_memory *memory, uint32_t channel)
{
	CHECK(channel < memory->sizes.channel_count);
	struct front_channel *front = &memory->channels->front[channel];
	uint64_t offset = channel_offset(&memory->sizes, channel);
	/* The state last: a front that dies in between leaves a channel that its successor frees again. */
	if (fallocate(memory->channels_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		      (off_t)channel_bytes(memory, channel)) != 0)
		log_warn(
		    "slot %u, channel %u: its memory could not be given back: %s; it stays in use until the slot's next"
		    " session has come and gone",
		    memory->slot, channel, strerror(errno));
	clear_front_words(front);
	atomic_store_explicit(&front->state, CHANNEL_FREE, memory_order_release);
}

void channel_set_state(struct slot_memory *memory, uint32_t channel, uint32_t epoch, enum channel_state state)
{
	CHECK(channel < memory->sizes.channel_count);
	/* Release: pairs with the worker's acquire load after it took the ready bit; segment and words are older. */
	atomic_store_explicit(&memory->channels->front[channel].state, (uint64_t)epoch << 2 | state,
			      memory_order_release);
	ready_set(&memory->channels->ready_for_worker, channel);
}

enum slot_wait slot_wait(struct slot_memory *memory, uint64_t patience_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	uint64_t ns = (uint64_t)until.tv_nsec + patience_ms % 1000 * 1000000;
	until.tv_sec += (time_t)(patience_ms / 1000 + ns / 1000000000);
	until.tv_nsec = (long)(ns % 1000000000);
	switch (pthread_mutex_clocklock(memory->owner, CLOCK_MONOTONIC, &until)) {
	case 0:
		return SLOT_FREE;
	case EOWNERDEAD:
		return SLOT_ORPHANED;
	case ETIMEDOUT:
		return SLOT_TAKEN;
	default:
		return SLOT_BROKEN;
	}
}

int slot_own(struct slot_memory *memory, enum slot_wait found)
{
	close_fd(&memory->arena_fd);
	return found == SLOT_ORPHANED ? pthread_mutex_consistent(memory->owner) : 0;
}

void channel_close(struct slot_memory *memory, uint32_t channel, uint32_t epoch)
{
	CHECK(channel < memory->sizes.channel_count);
	struct worker_channel *worker = &memory->channels->worker[channel];
	clear_worker_words(worker);
	/* Release: pairs with the front's acquire load before it frees the channel. */
	atomic_store_explicit(&worker->closed_epoch, epoch, memory_order_release);
}

void slot_reset_worker(struct slot_memory *memory)
{
	for (uint32_t i = 0; i < SLOT_CHANNELS_MAX; i++) {
		clear_worker_words(&memory->channels->worker[i]);
		atomic_store_explicit(&memory->channels->worker[i].closed_epoch, 0, memory_order_release);
	}
	atomic_store_explicit(&memory->channels->worker_sleeps, 0, memory_order_seq_cst);
}
