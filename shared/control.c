/*
 * The control memory: one memfd, its sections on pages of their own, so that each process can write its own and none of
 * the others'.
 *
 *   | struct control | front page, a counter struct per segment | worker page 0 | worker page 1 | ...
 *
 * The supervisor keeps the whole writable, so that it can tidy up after a dead process; children give that right away as
 * the first thing they do. All of it is allocated when it is made: no later access can fail for want of memory.
 *
 * Left out: who believes what. A dead or lying child's words are judged by their reader.
 */
#include "shared/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "shared/log.h"

#define CONTROL_MAGIC UINT64_C(0x314c525443464342) /* "BCFCTRL1" */

enum { CONTROL_VERSION = 1 };

/* Rounds up to whole pages. */
static uint64_t whole_pages(uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	return (bytes + page - 1) / page * page;
}

/* The head of a control memory: where everything is. */
static struct control layout(uint32_t slots, uint32_t segments, uint32_t steps)
{
	uint64_t front = sizeof(struct front_page) + segments * sizeof(struct front_segment_counters);
	uint64_t worker = sizeof(struct worker_page) + segments * sizeof(struct worker_segment_counters) +
			  steps * sizeof(struct worker_step_counters);
	struct control head = {
	    .magic = CONTROL_MAGIC,
	    .version = CONTROL_VERSION,
	    .slot_count = slots,
	    .segment_count = segments,
	    .step_count = steps,
	    .front_offset = whole_pages(sizeof(struct control)),
	    .worker_stride = whole_pages(worker),
	};
	head.worker_offset = head.front_offset + whole_pages(front);
	head.bytes = head.worker_offset + slots * head.worker_stride;
	return head;
}

/* Makes, allocates, seals and maps the memfd. 0, or -1 with errno. */
static int make_memory(struct control_memory *memory, const struct control *head)
{
	memory->fd = memfd_create("bridge-control", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memory->fd < 0 || ftruncate(memory->fd, (off_t)head->bytes) != 0)
		return -1;
	int result;
	do
		result = fallocate(memory->fd, 0, 0, (off_t)head->bytes);
	while (result != 0 && errno == EINTR);
	if (result != 0 || fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return -1;
	uint8_t *map = mmap(NULL, head->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
	if (map == MAP_FAILED)
		return -1;
	memory->control = (struct control *)map;
	memory->front = (struct front_page *)(map + head->front_offset);
	memory->workers = map + head->worker_offset;
	memcpy(memory->control, head, sizeof(*head));
	return 0;
}

int control_create(struct control_memory *memory, uint32_t slots, uint32_t segments, uint32_t steps)
{
	*memory = (struct control_memory){.fd = -1, .front_bell = -1, .supervisor_bell = -1};
	if (slots < 1 || slots > SLOTS_MAX) {
		errno = EINVAL;
		return -1;
	}
	struct control head = layout(slots, segments, steps);
	/* The front's doorbell is read by a thread that does nothing else, and so blocks; the supervisor's by epoll. */
	if (make_memory(memory, &head) == 0 && (memory->front_bell = eventfd(0, EFD_CLOEXEC)) >= 0 &&
	    (memory->supervisor_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0)
		return 0;
	int error = errno;
	control_destroy(memory);
	errno = error;
	return -1;
}

/* Makes all read-only but one section, and closes the descriptor. 0, or -1 with errno. */
static int keep_writable(struct control_memory *memory, void *section, uint64_t bytes)
{
	if (mprotect(memory->control, memory->control->bytes, PROT_READ) != 0 ||
	    mprotect(section, bytes, PROT_READ | PROT_WRITE) != 0)
		return -1;
	if (memory->fd >= 0)
		close(memory->fd);
	memory->fd = -1;
	return 0;
}

int control_attach_front(struct control_memory *memory)
{
	const struct control *control = memory->control;
	return keep_writable(memory, memory->front, control->worker_offset - control->front_offset);
}

int control_attach_worker(struct control_memory *memory, uint32_t slot)
{
	return keep_writable(memory, control_worker(memory, slot), memory->control->worker_stride);
}

int control_attach_reader(struct control_memory *memory)
{
	return keep_writable(memory, memory->control, 0);
}

void control_destroy(struct control_memory *memory)
{
	int fds[] = {memory->fd, memory->front_bell, memory->supervisor_bell};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	if (memory->control != NULL)
		munmap(memory->control, memory->control->bytes);
	*memory = (struct control_memory){.fd = -1, .front_bell = -1, .supervisor_bell = -1};
}

struct worker_page *control_worker(const struct control_memory *memory, uint32_t slot)
{
	CHECK(slot < memory->control->slot_count);
	return (struct worker_page *)(memory->workers + slot * memory->control->worker_stride);
}

/* The first of a slot's segment counters. */
static struct worker_segment_counters *first_segment(const struct control_memory *memory, uint32_t slot)
{
	return (struct worker_segment_counters *)(control_worker(memory, slot) + 1);
}

struct worker_segment_counters *control_worker_segment(const struct control_memory *memory, uint32_t slot,
						       uint32_t segment)
{
	CHECK(segment < memory->control->segment_count);
	return first_segment(memory, slot) + segment;
}

struct worker_step_counters *control_worker_step(const struct control_memory *memory, uint32_t slot, uint32_t step)
{
	CHECK(step < memory->control->step_count);
	return (struct worker_step_counters *)(first_segment(memory, slot) + memory->control->segment_count) + step;
}

void life_begin(struct life *life, const struct birth *birth, int32_t pid)
{
	memset(life, 0, sizeof(*life)); /* nobody goes by them: the number is not ours yet */
	atomic_store_explicit(&life->progress.step, UINT32_MAX, memory_order_relaxed);
	atomic_store_explicit(&life->pid, pid, memory_order_relaxed);
	atomic_store_explicit(&life->code, birth->code, memory_order_relaxed);
	atomic_store_explicit(&life->state, LIFE_LOADING, memory_order_relaxed);
	/* Release: who sees the number sees the rest cleared. */
	atomic_store_explicit(&life->number, birth->number, memory_order_release);
}

enum death_cause control_death_cause(const struct control_slot *slot, uint32_t number)
{
	const struct control_death *death = &slot->death[number % DEATHS_PUBLISHED];

	/* Acquire: pairs with the release store of the number, which comes after the cause. */
	if (number == 0 || atomic_load_explicit((_Atomic uint32_t *)&death->number, memory_order_acquire) != number)
		return DEATH_UNKNOWN;
	return (enum death_cause)atomic_load_explicit((_Atomic uint32_t *)&death->cause, memory_order_relaxed);
}

/* The table of causes. */
static const struct {
	const char *name;
	bool blames;
} causes[] = {
#define DEATH_CAUSE(name, word, blames, sentence) {word, blames},
#include "shared/deaths.def"
};

const char *death_cause_name(enum death_cause cause)
{
	CHECK(cause < sizeof(causes) / sizeof(causes[0]));
	return causes[cause].name;
}

bool death_blames_code(enum death_cause cause)
{
	CHECK(cause < sizeof(causes) / sizeof(causes[0]));
	return causes[cause].blames;
}

void doorbell_ring(int fd)
{
	/* It blocks only near 2^64 rings unread; EAGAIN there would mean that it is ringing already. */
	const uint64_t one = 1;
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* A clock in ns. */
static uint64_t read_clock(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t clock_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_wall_ms(void)
{
	return (int64_t)(read_clock(CLOCK_REALTIME) / 1000000);
}
