/*
 * The talk between supervisor, template and spare (template.h).
 *
 * All of it goes over sockets that keep messages apart (SOCK_SEQPACKET). Neither side believes more of the other than it has to: a birth
 * goes to a process whose pid the kernel told, and that can be waited for.
 */
#include "server/template.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/log.h"

enum {
	BIRTH_FDS = 4,
	THREAD_LOOKS = 300, /* a ms apart, until a thread that was there is taken for one that stays */
};

bool template_is_wanted(const struct descriptor *descriptor)
{
	for (size_t i = 0; i < descriptor->segment_count; i++) {
		for (size_t j = 0; j < descriptor->segments[i].step_count; j++) {
			if (step_is_python(&descriptor->segments[i].steps[j]))
				return true;
		}
	}
	return false;
}

/* Room for descriptors beside a message. */
union fds_room {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(BIRTH_FDS * sizeof(int))];
};

/* Sends a message with descriptors. */
static bool send_fds(int link, const void *bytes, size_t size, const int *fds, size_t count)
{
	union fds_room room = {0};
	struct iovec part = {.iov_base = (void *)bytes, .iov_len = size};
	struct msghdr message = {
	    .msg_iov = &part,
	    .msg_iovlen = 1,
	    .msg_control = &room,
	    .msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(head), fds, count * sizeof(int));
	return sendmsg(link, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

/* Waits for a message of this size with so many descriptors. False when the other side is gone, or says something else. */
static bool receive_fds(int link, void *bytes, size_t size, int *fds, size_t count)
{
	union fds_room room = {0};
	struct iovec part = {.iov_base = bytes, .iov_len = size};
	struct msghdr message = {
	    .msg_iov = &part, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof(room)};
	ssize_t got;

	do /* what modules do with signals is theirs */
		got = recvmsg(link, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	if (got != (ssize_t)size || head == NULL || head->cmsg_type != SCM_RIGHTS ||
	    head->cmsg_len != CMSG_LEN(count * sizeof(int)))
		return false;
	memcpy(fds, CMSG_DATA(head), count * sizeof(int));
	return true;
}

/* ---- The template -------------------------------------------------------------------------------------------------- */

/* Says how it went. */
static void say(int link, enum template_verdict verdict, const char *why)
{
	struct template_word word = {.verdict = verdict};

	snprintf(word.why, sizeof(word.why), "%s", why);
	if (send(link, &word, sizeof(word), MSG_NOSIGNAL) != sizeof(word))
		_exit(EXIT_ORPHAN);
}

void template_give_up(int link, const char *why)
{
	say(link, TEMPLATE_CANNOT, why);
	_exit(0);
}

/* Threads of this process beside the calling one. */
static uint32_t count_others(void)
{
	DIR *folder = opendir("/proc/self/task");
	uint32_t count = 0;

	if (folder == NULL)
		return 1; /* who cannot be counted may be there */
	for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
		count += entry->d_name[0] != '.';
	closedir(folder);
	return count - 1;
}

/* Waits until a child of ours has left. Whether with 0. */
static bool see_out(pid_t pid)
{
	int status;
	pid_t got;

	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	return got < 0 || status == 0; /* modules may have had the children be ignored: then nobody says how it ended */
}

/* Forks a process that does nothing. */
static pid_t fork_idly(void *unused)
{
	pid_t child = fork();

	(void)unused;
	if (child == 0)
		_exit(0);
	if (child > 0)
		see_out(child);
	return child;
}

/* One that has been joined is on the kernel's list for a moment more, or longer on a busy machine. */
uint32_t template_other_threads(template_fork *fork_by)
{
	uint32_t others = count_others();

	if (others == 0)
		return 0;
	fork_by(fork_idly, NULL);
	for (int looks = 0; looks < THREAD_LOOKS && (others = count_others()) > 0; looks++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	return others;
}

/* What is needed to make a process. */
struct making {
	pid_t supervisor;
	int link; /* the new process's end */
};

/* In the new process: waits until it is the supervisor's child, and sees to it that it ends with it. */
static void become_a_child(const struct making *making)
{
	struct pollfd end = {.fd = making->link};

	while (getppid() != making->supervisor) { /* the process between leaves just now */
		if (poll(&end, 1, 1) > 0)         /* the supervisor is gone, or wants nobody any more */
			_exit(EXIT_ORPHAN);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != making->supervisor)
		_exit(EXIT_ORPHAN);
	prctl(PR_SET_NAME, "bridged-spare");
}

/* Forks a process that forks another one and leaves. 0 in that one; the first one's pid in the template; -1: it cannot be. */
static pid_t fork_twice(void *context)
{
	const struct making *making = context;
	pid_t between = fork();

	if (between > 0 && !see_out(between)) {
		errno = EAGAIN; /* it could not fork */
		return -1;
	}
	if (between != 0)
		return between;
	pid_t child = fork();
	if (child != 0)
		_exit(child < 0);
	become_a_child(making);
	return 0;
}

/* The spare's life until it has a slot, and then. */
static void __attribute__((noreturn))
live_as_spare(struct sidecar *sidecar, const struct roles *roles, const struct making *making)
{
	struct birth birth;
	int fds[BIRTH_FDS];

	if (send(making->link, "", 1, MSG_NOSIGNAL) != 1 ||
	    !receive_fds(making->link, &birth, sizeof(birth), fds, BIRTH_FDS))
		_exit(EXIT_ORPHAN);
	close(making->link);
	CHECK(birth.slot < sidecar->config.slots);
	if (slot_memory_receive(&sidecar->slots[birth.slot], fds[0], fds[1], fds[2], fds[3]) != 0)
		fatal("the memory of slot %u cannot be mapped", birth.slot);
	launcher_begin_worker(sidecar, roles, &birth);
}

void template_serve(struct sidecar *sidecar, const struct roles *roles, int link, template_fork *fork_by)
{
	struct making making = {.supervisor = getppid()};
	char order;

	say(link, TEMPLATE_CAN, "");
	while (receive_fds(link, &order, 1, &making.link, 1)) {
		if (template_other_threads(fork_by) > 0)
			template_give_up(link, "threads have been started in it");
		fflush(NULL);
		pid_t made = fork_by(fork_twice, &making);
		if (made == 0) {
			close(link);
			live_as_spare(sidecar, roles, &making);
		}
		if (made < 0)
			template_give_up(link, strerror(errno));
		close(making.link);
	}
	_exit(0);
}

/* ---- The supervisor ------------------------------------------------------------------------------------------------ */

bool template_send_birth(int link, const struct birth *birth, const struct slot_memory *memory)
{
	const int fds[BIRTH_FDS] = {memory->channels_fd, memory->arena_fd, memory->owner_fd, memory->worker_bell};

	return send_fds(link, birth, sizeof(*birth), fds, BIRTH_FDS);
}

int template_send_order(int link)
{
	const int yes = 1;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return -1;
	/* Each message then has the pid of its sender with it. */
	bool sent =
	    setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) == 0 && send_fds(link, "", 1, &ends[1], 1);
	int error = errno;
	close(ends[1]);
	if (sent)
		return ends[0];
	close(ends[0]);
	errno = error;
	return -1;
}

int template_hear_spare(int link, pid_t *pid)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
	} room = {0};
	char byte;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
	    .msg_iov = &part, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof(room)};
	ssize_t got = recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	struct ucred sender;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got != 1 || (message.msg_flags & MSG_TRUNC) != 0 || head == NULL || head->cmsg_type != SCM_CREDENTIALS)
		return -1;
	memcpy(&sender, CMSG_DATA(head), sizeof(sender));
	*pid = sender.pid;
	return 1;
}
