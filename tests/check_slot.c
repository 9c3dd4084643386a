/*
 * The slot memory: layout, seals, guards, the pages and the life of channels, and the mutex that survives its owner.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/slot.h"
#include "tests/check_main.h"

static const struct slot_sizes sizes = {
    .channel_count = 5, .unary_ring = 1 << 16, .session_ring = 1 << 14, .arena = 1 << 16};
static struct slot_memory memory; /* as the supervisor has it */

static void setup(void)
{
	ck_assert_int_eq(slot_memory_create(&memory, 3, &sizes, -1), 0);
}

static void teardown(void)
{
	slot_memory_destroy(&memory);
}

/* The number of open descriptors. */
static int count_fds(void)
{
	int count = 0;
	DIR *fds = opendir("/proc/self/fd");
	while (readdir(fds) != NULL)
		count++;
	closedir(fds);
	return count;
}

/* A second handle of a memory, as a forked process has it; both can be attached in one process. */
static struct slot_memory clone_of(const struct slot_memory *whose)
{
	struct slot_memory clone = *whose;
	clone.channels_fd = dup(whose->channels_fd);
	clone.arena_fd = dup(whose->arena_fd);
	clone.owner_fd = dup(whose->owner_fd);
	clone.worker_bell = dup(whose->worker_bell);
	clone.owner = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	clone.owner = mmap((uint8_t *)clone.owner + 4096, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			   clone.owner_fd, 0);
	ck_assert_ptr_ne(clone.owner, MAP_FAILED);
	return clone;
}

static struct slot_memory clone_memory(void)
{
	return clone_of(&memory);
}

/* Bytes of memory that the channels take up. */
static uint64_t channels_used(const struct slot_memory *seen)
{
	struct stat status;
	ck_assert_int_eq(fstat(seen->channels_fd, &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

/* Runs something in a child; its wait status. */
static int in_child(void (*act)(void *), void *argument)
{
	int status;
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it */
		act(argument);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/* Writes one byte. */
__attribute__((no_sanitize("address", "thread"))) static void touch(void *address)
{
	*(volatile uint8_t *)address = 1;
}

/* Whether a child that writes there dies of it. */
static bool is_forbidden(void *address)
{
	int status = in_child(touch, address);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

/* ---- Making ------------------------------------------------------------------------------------------------------ */

START_TEST(sizes_are_checked)
{
	static const struct slot_sizes wrong[] = {
	    {0, 1 << 16, 1 << 16, 1 << 16}, {65, 1 << 16, 1 << 16, 1 << 16},
	    {4, 1 << 11, 1 << 16, 1 << 16}, {4, (1 << 16) + 4096, 1 << 16, 1 << 16},
	    {4, 1 << 16, 0, 1 << 16},       {4, 1 << 16, 2 * RING_SIZE_MAX, 1 << 16},
	    {4, 1 << 16, 1 << 16, 0},       {4, 1 << 16, 1 << 16, 65537},
	};
	struct slot_memory refused;
	int before = count_fds();
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		ck_assert_int_eq(slot_memory_create(&refused, 0, &wrong[i], -1), -1);
		ck_assert_int_eq(errno, EINVAL);
	}
	ck_assert_int_eq(slot_memory_create(&refused, SLOTS_MAX, &sizes, -1), -1);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(want_of_descriptors_is_an_error_and_leaves_none)
{
	int before = count_fds(), lowest_free = dup(0);
	close(lowest_free);
	struct rlimit limit;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int spare = 0; spare < 4; spare++) { /* it takes four */
		struct slot_memory refused;
		struct rlimit few = {.rlim_cur = (rlim_t)(lowest_free + spare), .rlim_max = limit.rlim_max};
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
		int result = slot_memory_create(&refused, 0, &sizes, -1), error = errno;
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
		ck_assert_int_eq(result, -1);
		ck_assert_int_eq(error, EMFILE);
		ck_assert_int_eq(count_fds(), before);
	}
}
END_TEST

/* An arena in a file has all its blocks from the start, and no name; leftovers of a sidecar that was killed are no trap. */
START_TEST(an_arena_can_be_a_file_without_a_name)
{
	char path[] = "/tmp/stateXXXXXX", name[64];
	struct slot_memory other;
	struct stat status;

	ck_assert_ptr_nonnull(mkdtemp(path));
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(name, sizeof(name), "bridge-arena-%u", 1U);
	close(openat(directory, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	ck_assert_int_eq(slot_memory_create(&other, 1, &sizes, directory), 0);
	ck_assert_int_eq(fstat(other.arena_fd, &status), 0);
	ck_assert_uint_eq((uint64_t)status.st_size, sizes.arena);
	ck_assert_uint_ge((uint64_t)status.st_blocks * 512, sizes.arena);
	ck_assert_uint_eq(status.st_nlink, 0);
	ck_assert_int_eq(slot_attach_worker(&other), 0);
	memset(other.arena, 7, sizes.arena);
	slot_memory_destroy(&other);
	ck_assert_int_eq(rmdir(path), 0);
	close(directory);
}
END_TEST

START_TEST(a_file_that_finds_no_room_is_an_error_and_leaves_nothing)
{
	char path[] = "/tmp/stateXXXXXX";
	struct rlimit limit, small;
	struct slot_memory other;
	int before = count_fds();

	ck_assert_ptr_nonnull(mkdtemp(path));
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){.rlim_cur = sizes.arena / 2, .rlim_max = limit.rlim_max};
	struct slot_sizes large = {.channel_count = 1, .unary_ring = 4096, .session_ring = 4096, .arena = sizes.arena};
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	int result = slot_memory_create(&other, 1, &large, directory), error = errno;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(result, -1);
	ck_assert_int_eq(error, EFBIG);
	ck_assert_int_eq(rmdir(path), 0);
	close(directory);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(heads_say_what_is_where)
{
	ck_assert_int_eq(slot_attach_worker(&memory), 0);
	const struct channels *channels = memory.channels;
	ck_assert_uint_eq(channels->slot, 3);
	ck_assert_uint_eq(channels->channel_count, 5);
	ck_assert_uint_eq(channels->unary_ring, 1 << 16);
	ck_assert_uint_eq(channels->session_ring, 1 << 14);
	ck_assert_uint_ge(channels->rings_offset, sizeof(struct channels));
	ck_assert_uint_eq(channels->rings_offset % 4096, 0);
	ck_assert_uint_eq(channels->bytes, channels->rings_offset + 2 * (1 << 16) + 4 * 2 * (1 << 14));
	ck_assert_uint_ge(slot_memory_max(&sizes), channels->bytes + sizes.arena + 4096);
	ck_assert_uint_eq((uintptr_t)memory.arena % SLOT_HUGE_PAGE,
			  0); /* so that huge pages of the file are the process's */
	for (uint64_t i = 0; i < sizes.arena; i++)
		ck_assert_uint_eq(((const uint8_t *)memory.arena)[i], 0);
}
END_TEST

START_TEST(rings_follow_one_another)
{
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	uint8_t *next = (uint8_t *)memory.channels + memory.channels->rings_offset;
	for (uint32_t i = 0; i < sizes.channel_count; i++) {
		uint64_t size = channel_ring_size(&memory, i);
		ck_assert_uint_eq(size, i == UNARY_CHANNEL ? 1 << 16 : 1 << 14);
		ck_assert_ptr_eq(channel_request_data(&memory, i), next);
		ck_assert_ptr_eq(channel_response_data(&memory, i), next + size);
		next += 2 * size;
	}
	ck_assert_ptr_eq(next, (uint8_t *)memory.channels + memory.channels->bytes);
}
END_TEST

START_TEST(nobody_goes_by_the_head)
{
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	uint8_t *data = channel_request_data(&memory, 4);
	memset(memory.channels, 0xff, offsetof(struct channels, ready_for_worker)); /* a worker might */
	ck_assert_ptr_eq(channel_request_data(&memory, 4), data);
	ck_assert_uint_eq(channel_ring_size(&memory, 4), 1 << 14);
	ck_assert_int_eq(channel_allocate(&memory, 4), 0);
	channel_free(&memory, 4);
}
END_TEST

START_TEST(no_memory_changes_its_size)
{
	int fds[] = {memory.channels_fd, memory.arena_fd, memory.owner_fd};
	for (int i = 0; i < 3; i++) {
		struct stat status;
		ck_assert_int_eq(fstat(fds[i], &status), 0);
		ck_assert_int_eq(ftruncate(fds[i], 0), -1);
		ck_assert_int_eq(errno, EPERM);
		ck_assert_int_eq(ftruncate(fds[i], status.st_size * 2), -1);
		ck_assert_int_eq(errno, EPERM);
		ck_assert_int_eq(fcntl(fds[i], F_ADD_SEALS, F_SEAL_WRITE), -1);
		ck_assert_int_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	}
}
END_TEST

START_TEST(the_owner_page_is_guarded)
{
	uint8_t *owner = (uint8_t *)memory.owner;
	ck_assert(is_forbidden(owner - 1));
	ck_assert(is_forbidden(owner + 4096));
	ck_assert(!is_forbidden(owner + 4095));
}
END_TEST

/* ---- Mapping ----------------------------------------------------------------------------------------------------- */

START_TEST(the_front_keeps_one_descriptor_and_no_owner_page)
{
	int before = count_fds();
	uint8_t *owner = (uint8_t *)memory.owner;
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	ck_assert_int_eq(count_fds(), before - 2);
	ck_assert_int_ge(memory.channels_fd, 0);
	ck_assert_int_ge(memory.worker_bell, 0);
	ck_assert_ptr_null(memory.owner);
	ck_assert_ptr_null(memory.arena);
	ck_assert(is_forbidden(owner));
}
END_TEST

/* Waits for the slot, however long it takes, and owns it. 0, or an errno. */
static int own(struct slot_memory *slot)
{
	enum slot_wait found;
	while ((found = slot_wait(slot, 1000)) == SLOT_TAKEN)
		;
	return found == SLOT_BROKEN ? EINVAL : slot_own(slot, found);
}

/* Forks a worker that owns the slot, says so through a pipe, and then leaves by _exit or waits to be killed. */
static pid_t start_owner(int *said, bool leaves)
{
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid > 0) {
		close(ends[1]);
		*said = ends[0];
		return pid;
	}
	char result = (char)own(&memory);
	if (write(ends[1], &result, 1) == 1 && !leaves)
		pause();
	_exit(0);
}

/* Waits for an owner's word: what own() returned. */
static int hear_owner(int said)
{
	char result = -1;
	ck_assert_int_eq(read(said, &result, 1), 1);
	close(said);
	return result;
}

/* Waits for a child that was killed, or left. */
static void reap(pid_t pid)
{
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(an_owner_keeps_no_descriptor_but_its_doorbell)
{
	int before = count_fds();
	ck_assert_int_eq(slot_attach_worker(&memory), 0);
	ck_assert_int_eq(count_fds(), before - 2); /* an heir looks how large the arena has become */
	ck_assert_int_eq(own(&memory), 0);
	ck_assert_int_eq(count_fds(), before - 3);
	ck_assert_int_ge(memory.worker_bell, 0);
	ck_assert_ptr_nonnull(memory.owner);
}
END_TEST

/* A field of /proc/self/smaps for the mapping at an address, in bytes. */
static uint64_t mapped(const void *address, const char *field)
{
	char line[256];
	unsigned long from, to, kib = 0;
	bool inside = false;
	const size_t length = strlen(field);
	FILE *file = fopen("/proc/self/smaps", "r");
	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from <= (uintptr_t)address && (uintptr_t)address < to;
		else if (inside && strncmp(line, field, length) == 0 && sscanf(line + length, ": %lu kB", &kib) == 1)
			break;
	}
	fclose(file);
	return kib * 1024;
}

/* Bytes of a mapping that this process has page tables for. */
static uint64_t resident(const void *address)
{
	return mapped(address, "Rss");
}

/* An heir maps what is there, and takes no memory for what is not; and looks again only when there is more. */
START_TEST(an_heir_maps_what_the_arena_holds)
{
	struct slot_memory owner = clone_memory();
	ck_assert_int_eq(slot_attach_worker(&memory), 0);
	ck_assert_int_eq(slot_attach_worker(&owner), 0);
	ck_assert(!slot_premap(&memory));
	memset((uint8_t *)owner.arena + 4096, 1, 4096);
	memset((uint8_t *)owner.arena + 5 * 4096, 1, 3 * 4096);
	ck_assert_uint_eq(resident(memory.arena), 0);
	ck_assert(slot_premap(&memory));
	ck_assert_uint_eq(resident(memory.arena), 4 * 4096);
	ck_assert(!slot_premap(&memory));
	memset((uint8_t *)owner.arena + 9 * 4096, 1, 4096);
	ck_assert(slot_premap(&memory));
	ck_assert_uint_eq(resident(memory.arena), 5 * 4096);
	ck_assert_uint_eq(memory.premap_at, 0);
	slot_memory_destroy(&owner);
}
END_TEST

/* Memory with room for some huge pages, mapped by its owner, who writes to all of it. */
static struct slot_memory large_memory(struct slot_memory *owner, uint64_t pages)
{
	struct slot_memory heir;
	struct slot_sizes large = sizes;
	large.arena = pages * SLOT_HUGE_PAGE;
	ck_assert_int_eq(slot_memory_create(&heir, 0, &large, -1), 0);
	*owner = clone_of(&heir);
	ck_assert_int_eq(slot_attach_worker(&heir), 0);
	ck_assert_int_eq(slot_attach_worker(owner), 0);
	memset(owner->arena, 5, large.arena);
	return heir;
}

/* An heir looks at the arena, and walks through all of it. */
static void walk(struct slot_memory *heir)
{
	do
		ck_assert(slot_premap(heir));
	while (heir->premap_at != 0);
}

/* What is full becomes huge pages where the system has them, with what it held, and what is not stays as it is. */
START_TEST(an_heir_makes_huge_pages_of_what_is_full)
{
	struct slot_memory owner, heir = large_memory(&owner, 4);
	uint8_t *arena = owner.arena;
	ck_assert_int_eq(madvise(arena + 3 * SLOT_HUGE_PAGE + 4096, 4096, MADV_REMOVE), 0);
	walk(&heir);
	ck_assert_uint_eq(resident(heir.arena), 4 * SLOT_HUGE_PAGE - 4096);
	const uint64_t huge = mapped(heir.arena, "ShmemPmdMapped");
	ck_assert_uint_le(huge, 3 * SLOT_HUGE_PAGE);
	ck_assert_uint_ge(huge, heir.premap_refused < 3 ? SLOT_HUGE_PAGE : 0); /* memory in pieces may refuse some */
	for (uint64_t i = 0; i < 4 * SLOT_HUGE_PAGE; i++)
		ck_assert(arena[i] == (i / 4096 == 3 * SLOT_HUGE_PAGE / 4096 + 1 ? 0 : 5));
	slot_memory_destroy(&owner);
	slot_memory_destroy(&heir);
}
END_TEST

/* Nobody has to wait for huge pages while the arena is being filled: they are made at the look after that. */
START_TEST(an_heir_only_maps_while_the_arena_is_filled)
{
	struct slot_memory owner, heir = large_memory(&owner, 32);
	walk(&heir);
	ck_assert_uint_eq(resident(heir.arena), heir.sizes.arena);
	ck_assert_uint_eq(mapped(heir.arena, "ShmemPmdMapped"), 0);
	walk(&heir);
	ck_assert_uint_eq(resident(heir.arena), heir.sizes.arena);
	ck_assert(mapped(heir.arena, "ShmemPmdMapped") > 0 || heir.premap_refused >= 8);
	ck_assert(!slot_premap(&heir));
	slot_memory_destroy(&owner);
	slot_memory_destroy(&heir);
}
END_TEST

/* What is given back while an heir maps the arena is not taken again. */
START_TEST(an_heir_takes_no_memory_for_what_was_given_back)
{
	struct slot_memory owner, heir = large_memory(&owner, 32);
	struct stat before, after;
	ck_assert(slot_premap(&heir));
	ck_assert_int_eq(madvise((uint8_t *)owner.arena + 8 * SLOT_HUGE_PAGE, 24 * SLOT_HUGE_PAGE, MADV_REMOVE), 0);
	ck_assert_int_eq(fstat(heir.arena_fd, &before), 0);
	while (heir.premap_at != 0)
		ck_assert(slot_premap(&heir));
	ck_assert_int_eq(fstat(heir.arena_fd, &after), 0);
	ck_assert_int_eq(after.st_blocks, before.st_blocks);
	ck_assert_uint_eq((uint64_t)after.st_blocks * 512, 8 * SLOT_HUGE_PAGE);
	slot_memory_destroy(&owner);
	slot_memory_destroy(&heir);
}
END_TEST

START_TEST(renewed_memory_is_fresh_and_apart_from_the_old)
{
	struct slot_memory old = clone_memory();
	ck_assert_int_eq(slot_attach_worker(&old), 0);
	memset(old.arena, 9, sizes.arena);
	int before = count_fds();
	ck_assert_int_eq(slot_memory_renew(&memory, -1), 0);
	ck_assert_int_eq(count_fds(), before);
	ck_assert_int_eq(slot_attach_worker(&memory), 0);
	memset(old.arena, 8, sizes.arena); /* one that lived on */
	for (uint64_t i = 0; i < sizes.arena; i++)
		ck_assert_uint_eq(((const uint8_t *)memory.arena)[i], 0);
	ck_assert_int_eq(own(&memory), 0);
	slot_memory_destroy(&old);
}
END_TEST

/* A file is renewed in pieces, so that nobody is kept waiting for a disk; what fails on the way can be tried again. */
START_TEST(a_renewed_file_is_made_in_pieces)
{
	char path[] = "/tmp/stateXXXXXX";
	struct slot_sizes large = {
	    .channel_count = 1, .unary_ring = 4096, .session_ring = 4096, .arena = (40 << 20) + 4096};
	struct rlimit limit, small;
	struct slot_memory other;
	struct stat status;
	int before = count_fds();

	ck_assert_ptr_nonnull(mkdtemp(path));
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(slot_memory_create(&other, 1, &large, directory), 0);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){.rlim_cur = large.arena / 2, .rlim_max = limit.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	ck_assert_int_eq(slot_memory_renew(&other, directory), RENEWAL_MORE);
	ck_assert_int_eq(slot_memory_renew(&other, directory), RENEWAL_FAILED);
	ck_assert_int_eq(errno, EFBIG);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(slot_memory_renew(&other, directory), RENEWAL_MORE);
	ck_assert_int_eq(slot_memory_renew(&other, directory), RENEWAL_MORE);
	ck_assert_int_eq(slot_memory_renew(&other, directory), RENEWAL_DONE);
	ck_assert_int_eq(fstat(other.arena_fd, &status), 0);
	ck_assert_uint_eq((uint64_t)status.st_size, large.arena);
	ck_assert_uint_ge((uint64_t)status.st_blocks * 512, large.arena);
	other.sizes.arena = UINT64_C(1) << 50; /* what no disk has is not begun */
	ck_assert_int_eq(slot_memory_renew(&other, directory), RENEWAL_FAILED);
	ck_assert_int_eq(errno, ENOSPC);
	slot_memory_destroy(&other);
	ck_assert_int_eq(rmdir(path), 0);
	close(directory);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

/* Forks a process that gets the slot when its owner dies, and ends without making the mutex consistent. */
static pid_t start_unmeant(int *said)
{
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid > 0) {
		close(ends[1]);
		*said = ends[0];
		return pid;
	}
	enum slot_wait found;
	while ((found = slot_wait(&memory, 1000)) == SLOT_TAKEN)
		;
	char result = (char)found;
	_exit(write(ends[1], &result, 1) == 1 ? 0 : 1);
}

START_TEST(whoever_is_not_meant_leaves_the_slot_orphaned)
{
	int said, unmeant_said;
	pid_t owner = start_owner(&said, false);
	ck_assert_int_eq(hear_owner(said), 0);
	pid_t unmeant = start_unmeant(&unmeant_said);
	kill(owner, SIGKILL);
	ck_assert_int_eq(hear_owner(unmeant_said), SLOT_ORPHANED);
	reap(unmeant);
	ck_assert_int_eq(slot_wait(&memory, 10000), SLOT_ORPHANED);
	ck_assert_int_eq(slot_own(&memory, SLOT_ORPHANED), 0);
	reap(owner);
}
END_TEST

START_TEST(a_wait_has_an_end)
{
	int said;
	pid_t owner = start_owner(&said, false);
	ck_assert_int_eq(hear_owner(said), 0);
	ck_assert_int_eq(slot_wait(&memory, 0), SLOT_TAKEN);
	ck_assert_int_eq(slot_wait(&memory, 1), SLOT_TAKEN);
	kill(owner, SIGKILL);
	reap(owner);
	ck_assert_int_eq(slot_wait(&memory, 0), SLOT_ORPHANED);
}
END_TEST

/* Whether the mapping at an address has a flag in smaps ("dd": not dumped, "dc": not copied on fork). */
static bool has_flag(const void *address, const char *flag)
{
	char line[512], start[32];
	bool here = false, found = false;
	FILE *maps = fopen("/proc/self/smaps", "r");
	ck_assert_ptr_nonnull(maps);
	snprintf(start, sizeof(start), "%08lx-", (unsigned long)address);
	while (fgets(line, sizeof(line), maps) != NULL) {
		if (strchr(line, '-') != NULL && strchr(line, '-') < line + 17)
			here = strncmp(line, start, strlen(start)) == 0;
		if (here && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line + 8, flag) != NULL;
	}
	fclose(maps);
	return found;
}

START_TEST(nothing_is_dumped_and_the_worker_forks_nothing)
{
	struct slot_memory front = clone_memory();
	ck_assert_int_eq(slot_attach_front(&front), 0);
	ck_assert_int_eq(slot_attach_worker(&memory), 0);
	ck_assert(has_flag(front.channels, " dd"));
	ck_assert(has_flag(memory.channels, " dd"));
	ck_assert(has_flag(memory.arena, " dd"));
	ck_assert(has_flag(memory.owner, " dd"));
	ck_assert(!has_flag(front.channels, " dc"));
	ck_assert(is_forbidden(memory.channels));
	ck_assert(is_forbidden(memory.arena));
	ck_assert(is_forbidden(memory.owner));
	slot_memory_destroy(&front);
}
END_TEST

START_TEST(destroying_leaves_nothing_open)
{
	int before = count_fds();
	for (int round = 0; round < 3; round++) {
		struct slot_memory other;
		ck_assert_int_eq(slot_memory_create(&other, 1, &sizes, -1), 0);
		uint8_t *owner = (uint8_t *)other.owner;
		if (round == 1)
			ck_assert_int_eq(slot_attach_front(&other), 0);
		if (round == 2)
			ck_assert_int_eq(slot_attach_worker(&other), 0);
		slot_memory_destroy(&other);
		ck_assert_int_eq(count_fds(), before);
		ck_assert(is_forbidden(owner));
	}
}
END_TEST

/* ---- Channels ---------------------------------------------------------------------------------------------------- */

START_TEST(a_channels_pages_come_and_go_with_it)
{
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	uint64_t head = memory.channels->rings_offset;
	ck_assert_uint_eq(channels_used(&memory), head);
	ck_assert_int_eq(channel_allocate(&memory, UNARY_CHANNEL), 0);
	ck_assert_uint_eq(channels_used(&memory), head + 2 * (1 << 16));
	ck_assert_int_eq(channel_allocate(&memory, 4), 0);
	ck_assert_uint_eq(channels_used(&memory), head + 2 * (1 << 16) + 2 * (1 << 14));
	memset(channel_request_data(&memory, 4), 'x', 2 * (1 << 14));
	channel_free(&memory, 4);
	ck_assert_uint_eq(channels_used(&memory), head + 2 * (1 << 16));
	channel_free(&memory, UNARY_CHANNEL);
	ck_assert_uint_eq(channels_used(&memory), head);
	ck_assert_int_eq(channel_allocate(&memory, 4), 0);
	ck_assert_uint_eq(*channel_request_data(&memory, 4), 0); /* nothing of the last session is left */
}
END_TEST

START_TEST(a_channel_that_cannot_be_allocated_is_an_error)
{
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	memory.channels->front[2].segment = 9;
	int fd = memory.channels_fd;
	memory.channels_fd = open("/dev/null", O_RDWR); /* the kernel allocates nothing there */
	ck_assert_int_eq(channel_allocate(&memory, 2), -1);
	ck_assert_int_ne(errno, 0);
	ck_assert_uint_eq(memory.channels->front[2].segment, 9);
	close(memory.channels_fd);
	memory.channels_fd = fd;
}
END_TEST

/* Whether all words of both sides of a channel are 0, but for closed_epoch. */
static bool words_are_zero(const struct channels *channels, uint32_t channel)
{
	const struct front_channel *front = &channels->front[channel];
	const struct worker_channel *worker = &channels->worker[channel];
	return front->state == 0 && front->segment == 0 && front->request.tail == 0 && front->request.wants_room == 0 &&
	       front->response.head == 0 && worker->request.head == 0 && worker->response.tail == 0 &&
	       worker->response.wants_room == 0;
}

/* Sends a frame through a ring and takes it out again; wants_room is left set. */
static void use_ring(struct ring_producer_words *produced, struct ring_consumer_words *consumed, uint8_t *data)
{
	struct ring_producer producer;
	struct ring_consumer consumer;
	struct frame header;
	uint8_t *payload;
	const uint8_t *seen;
	ring_producer_init(&producer, produced, consumed, data, 1 << 14);
	ring_consumer_init(&consumer, consumed, produced, data, 1 << 14);
	ck_assert_int_eq(ring_reserve(&producer, 10, &payload), RING_OK);
	ring_append(&producer, (struct frame){.kind = FRAME_MESSAGE}, 10);
	ring_publish(&producer);
	ck_assert_int_eq(ring_peek(&consumer, &header, &seen), RING_OK);
	ring_release(&consumer, ring_advance(&consumer, &header));
	while (ring_reserve(&producer, 4000, &payload) == RING_OK)
		ring_append(&producer, (struct frame){.kind = FRAME_MESSAGE}, 4000);
	ck_assert(!ring_wait_for_room(&producer, 4000));
}

/* Uses both rings of a channel, so that no word of it is 0. */
static void use_channel(struct slot_memory *front, uint32_t channel)
{
	struct channels *channels = front->channels;
	use_ring(&channels->front[channel].request, &channels->worker[channel].request,
		 channel_request_data(front, channel));
	use_ring(&channels->worker[channel].response, &channels->front[channel].response,
		 channel_response_data(front, channel));
}

/* Opens a channel as the front does. */
static void open_channel(struct slot_memory *front, uint32_t channel, uint32_t epoch)
{
	ck_assert_int_eq(channel_allocate(front, channel), 0);
	front->channels->front[channel].segment = 7;
	channel_set_state(front, channel, epoch, CHANNEL_OPEN);
}

START_TEST(a_channels_life_ends_with_all_words_zero)
{
	struct slot_memory worker = clone_memory();
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	ck_assert_int_eq(slot_attach_worker(&worker), 0);
	for (uint32_t epoch = 1; epoch < 4; epoch++) {
		open_channel(&memory, 2, epoch);
		ck_assert_uint_eq(ready_take(&worker.channels->ready_for_worker), 1 << 2);
		uint64_t state = worker.channels->front[2].state;
		ck_assert_uint_eq(channel_epoch_of(state), epoch);
		ck_assert_int_eq(channel_state_of(state), CHANNEL_OPEN);
		use_channel(&memory, 2);
		channel_set_state(&memory, 2, epoch, CHANNEL_CLOSING);
		ck_assert_uint_eq(ready_take(&worker.channels->ready_for_worker), 1 << 2);
		ck_assert_int_eq(channel_state_of(worker.channels->front[2].state), CHANNEL_CLOSING);
		ck_assert_uint_ne(memory.channels->worker[2].closed_epoch, epoch);
		channel_close(&worker, 2, epoch);
		ck_assert_uint_eq(memory.channels->worker[2].closed_epoch, epoch);
		channel_free(&memory, 2);
		ck_assert(words_are_zero(memory.channels, 2));
	}
	slot_memory_destroy(&worker);
}
END_TEST

START_TEST(a_new_worker_starts_from_zero)
{
	struct slot_memory worker = clone_memory();
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	ck_assert_int_eq(slot_attach_worker(&worker), 0);
	for (uint32_t i = 1; i < sizes.channel_count; i++) {
		open_channel(&memory, i, 40 + i);
		use_channel(&memory, i);
		worker.channels->worker[i].closed_epoch = 30;
	}
	worker.channels->worker_sleeps = 1;
	slot_reset_worker(&worker);
	ck_assert_uint_eq(memory.channels->worker_sleeps, 0);
	for (uint32_t i = 1; i < sizes.channel_count; i++) {
		ck_assert_uint_eq(memory.channels->worker[i].closed_epoch, 0);
		ck_assert_uint_eq(channel_epoch_of(memory.channels->front[i].state),
				  40 + i); /* the front's, untouched */
		channel_free(&memory, i);
		ck_assert(words_are_zero(memory.channels, i));
	}
	slot_memory_destroy(&worker);
}
END_TEST

START_TEST(a_channel_that_is_none_aborts)
{
	ck_assert_int_eq(slot_attach_front(&memory), 0);
	channel_allocate(&memory, sizes.channel_count);
}
END_TEST

START_TEST(ready_marks_are_taken_once)
{
	_Atomic uint64_t bitmap = 0;
	ck_assert_uint_eq(ready_take(&bitmap), 0);
	ck_assert(ready_set(&bitmap, 0));
	ck_assert(ready_set(&bitmap, 63));
	ck_assert(!ready_set(&bitmap, 63));
	ck_assert_uint_eq(ready_take(&bitmap), UINT64_C(1) << 63 | 1);
	ck_assert_uint_eq(ready_take(&bitmap), 0);
	ck_assert(ready_set(&bitmap, 63));
}
END_TEST

/* ---- Owner ------------------------------------------------------------------------------------------------------- */

START_TEST(a_dead_owner_is_succeeded)
{
	for (int round = 0; round < 20; round++) {
		int said;
		bool leaves = round % 2 == 1;
		pid_t pid = start_owner(&said, leaves);
		ck_assert_int_eq(hear_owner(said), 0);
		if (!leaves)
			kill(pid, SIGKILL);
		reap(pid);
	}
	ck_assert_int_eq(own(&memory), 0);
}
END_TEST

START_TEST(a_living_owner_is_waited_for)
{
	int first_said, second_said;
	pid_t first = start_owner(&first_said, false);
	ck_assert_int_eq(hear_owner(first_said), 0);
	pid_t second = start_owner(&second_said, false);
	ck_assert_int_eq(pthread_mutex_trylock(memory.owner), EBUSY);
	ck_assert_int_eq(fcntl(second_said, F_SETFL, O_NONBLOCK), 0);
	char none;
	ck_assert_int_eq(read(second_said, &none, 1), -1); /* it cannot own yet, however slow we are */
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(fcntl(second_said, F_SETFL, 0), 0);
	kill(first, SIGKILL);
	ck_assert_int_eq(hear_owner(second_said), 0);
	kill(second, SIGKILL);
	reap(first);
	reap(second);
}
END_TEST

START_TEST(owning_twice_is_an_error)
{
	ck_assert_int_eq(own(&memory), 0);
	ck_assert_int_eq(slot_wait(&memory, 1000), SLOT_BROKEN);
}
END_TEST

START_TEST(an_attached_worker_that_dies_is_succeeded)
{
	int said[2];
	ck_assert_int_eq(pipe(said), 0);
	pid_t pid = fork();
	if (pid == 0) {
		char result = (char)(slot_attach_worker(&memory) != 0 || own(&memory) != 0);
		slot_reset_worker(&memory);
		if (write(said[1], &result, 1) == 1)
			pause();
		_exit(1);
	}
	ck_assert_int_eq(hear_owner(said[0]), 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(own(&memory), 0); /* it waits for the death; no need to have reaped */
	reap(pid);
}
END_TEST

static Suite *slot_suite(void)
{
	Suite *suite = suite_create("slot");
	TCase *tests = tcase_create("memory");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, sizes_are_checked);
	tcase_add_test(tests, want_of_descriptors_is_an_error_and_leaves_none);
	tcase_add_test(tests, an_arena_can_be_a_file_without_a_name);
	tcase_add_test(tests, a_file_that_finds_no_room_is_an_error_and_leaves_nothing);
	tcase_add_test(tests, heads_say_what_is_where);
	tcase_add_test(tests, rings_follow_one_another);
	tcase_add_test(tests, nobody_goes_by_the_head);
	tcase_add_test(tests, no_memory_changes_its_size);
	tcase_add_test(tests, the_owner_page_is_guarded);
	tcase_add_test(tests, the_front_keeps_one_descriptor_and_no_owner_page);
	tcase_add_test(tests, an_owner_keeps_no_descriptor_but_its_doorbell);
	tcase_add_test(tests, an_heir_maps_what_the_arena_holds);
	tcase_add_test(tests, an_heir_makes_huge_pages_of_what_is_full);
	tcase_add_test(tests, an_heir_only_maps_while_the_arena_is_filled);
	tcase_add_test(tests, an_heir_takes_no_memory_for_what_was_given_back);
	tcase_add_test(tests, renewed_memory_is_fresh_and_apart_from_the_old);
	tcase_add_test(tests, a_renewed_file_is_made_in_pieces);
	tcase_add_test(tests, whoever_is_not_meant_leaves_the_slot_orphaned);
	tcase_add_test(tests, a_wait_has_an_end);
	tcase_add_test(tests, nothing_is_dumped_and_the_worker_forks_nothing);
	tcase_add_test(tests, destroying_leaves_nothing_open);
	suite_add_tcase(suite, tests);
	tests = tcase_create("channels");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, a_channels_pages_come_and_go_with_it);
	tcase_add_test(tests, a_channel_that_cannot_be_allocated_is_an_error);
	tcase_add_test(tests, a_channels_life_ends_with_all_words_zero);
	tcase_add_test(tests, a_new_worker_starts_from_zero);
	tcase_add_test_raise_signal(tests, a_channel_that_is_none_aborts, SIGABRT);
	tcase_add_test(tests, ready_marks_are_taken_once);
	suite_add_tcase(suite, tests);
	tests = tcase_create("owner");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, a_dead_owner_is_succeeded);
	tcase_add_test(tests, a_living_owner_is_waited_for);
	tcase_add_test(tests, owning_twice_is_an_error);
	tcase_add_test(tests, an_attached_worker_that_dies_is_succeeded);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(slot_suite)
