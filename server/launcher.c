/*
 * The launcher (launcher.h).
 *
 * A child begins as a copy of the supervisor, and must not keep what is the supervisor's: its signal mask, its epoll, its
 * stats connections and lock files, the memories of other slots. It dies with the supervisor (PR_SET_PDEATHSIG; one that
 * was already gone shows in getppid), leaves no core dump (a limit of 1 also stops one that is piped to a program, which
 * would delay the slot's next worker by the size of its memory), and is a likelier victim of the kernel's memory killer
 * than the process above it.
 *
 * No exec: the configuration, the descriptor and the mappings are simply there. That is sound because the supervisor has
 * a single thread and never starts gRPC.
 */
#include "server/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	KEEP_MAX = 3 + 3 + 2 * SLOTS_MAX + 4,
	OOM_STEP = 100, /* how much likelier a victim, per step away from the supervisor */
};

/* The descriptors that a child keeps. */
struct keep {
	int fds[KEEP_MAX];
	size_t count;
};

/* Adds a descriptor to those kept; -1 is none. */
static void keep_fd(struct keep *keep, int fd)
{
	CHECK(keep->count < KEEP_MAX);
	if (fd >= 0)
		keep->fds[keep->count++] = fd;
}

/* Adds what every child needs: standard streams, the control memory, the doorbells it rings or hears. */
static void keep_common(struct keep *keep, const struct sidecar *sidecar)
{
	for (int fd = 0; fd <= 2; fd++)
		keep_fd(keep, fd);
	keep_fd(keep, sidecar->control.fd);
	keep_fd(keep, sidecar->control.front_bell);
	keep_fd(keep, sidecar->control.supervisor_bell);
}

/* For qsort. */
static int compare_fds(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Closes a span of descriptors, one by one where the kernel (or a container's filter) does not know how to at once. */
static void close_span(unsigned first, unsigned last)
{
	struct rlimit limit;

	if (close_range(first, last, 0) == 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	for (unsigned fd = first; fd <= last && fd < limit.rlim_cur; fd++)
		close((int)fd);
}

/* Closes everything else. */
static void close_others(struct keep *keep)
{
	unsigned from = 0;

	qsort(keep->fds, keep->count, sizeof(keep->fds[0]), compare_fds);
	for (size_t i = 0; i < keep->count; i++) {
		unsigned fd = (unsigned)keep->fds[i];
		if (fd > from)
			close_span(from, fd - 1);
		from = fd + 1;
	}
	close_span(from, ~0U);
}

/* Default signals, nothing blocked. But what a terminal or a service manager sends to the whole group is for the supervisor
 * alone: it gives the orders to leave. */
static void reset_signals(void)
{
	static const int not_ours[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
	struct sigaction fallback = {.sa_handler = SIG_DFL}, ignore = {.sa_handler = SIG_IGN};
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		sigaction(number, &fallback, NULL); /* some numbers are not ours to set: EINVAL, and no matter */
	for (size_t i = 0; i < sizeof(not_ours) / sizeof(*not_ours); i++)
		sigaction(not_ours[i], &ignore, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Makes the kernel's memory killer prefer this process; as far as it is allowed. */
static void prefer_as_victim(int steps)
{
	char text[16];
	int now = 0;
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);

	if (fd == -1)
		return;
	ssize_t got = read(fd, text, sizeof(text) - 1);
	if (got > 0) {
		text[got] = '\0';
		now = atoi(text);
	}
	int wanted = now + steps * OOM_STEP > 1000 ? 1000 : now + steps * OOM_STEP;
	int length = snprintf(text, sizeof(text), "%d", wanted);
	if (write(fd, text, (size_t)length) != length)
		log_debug("the score for the memory killer stays at %d: %s", now, strerror(errno));
	close(fd);
}

/* What every child does first. Leaves when the supervisor is gone already. */
static void become_child(pid_t supervisor, const char *name, struct keep *keep, int oom_steps)
{
	const struct rlimit no_core = {1, 1};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != supervisor)
		_exit(EXIT_ORPHAN);
	prctl(PR_SET_NAME, name);
	reset_signals();
	setrlimit(RLIMIT_CORE, &no_core);
	prefer_as_victim(oom_steps);
	close_others(keep);
}

/* Forks, with nothing left in stdio's buffers for the child to write once more. In the parent the child has a pidfd. */
static int fork_child(struct launched *launched)
{
	fflush(NULL);
	launched->pid = fork();
	if (launched->pid <= 0)
		return launched->pid < 0 ? -1 : 0;
	launched->pidfd = pidfd_open(launched->pid, 0);
	if (launched->pidfd >= 0)
		return 0;
	int error = errno; /* without a pidfd nobody would learn of its end */
	kill(launched->pid, SIGKILL);
	waitpid(launched->pid, NULL, 0);
	errno = error;
	return -1;
}

int launcher_start_front(struct launched *launched, struct sidecar *sidecar, const struct roles *roles,
			 uint32_t generation)
{
	pid_t supervisor = getpid();
	struct keep keep = {0};

	if (fork_child(launched) != 0)
		return -1;
	if (launched->pid > 0)
		return 0;
	keep_common(&keep, sidecar);
	for (uint32_t i = 0; i < sidecar->config.slots; i++) {
		keep_fd(&keep, sidecar->slots[i].channels_fd);
		keep_fd(&keep, sidecar->slots[i].worker_bell);
		sidecar->slots[i].arena_fd = -1;
		sidecar->slots[i].owner_fd = -1;
	}
	become_child(supervisor, "bridged-front", &keep, 1);
	log_init("front", sidecar->config.log_level);
	roles->front(sidecar, generation);
	abort();
}

void launcher_begin_worker(struct sidecar *sidecar, const struct roles *roles, const struct birth *birth)
{
	char name[16], speaker[32];

	snprintf(name, sizeof(name), "bridged-w%u", birth->slot);
	prctl(PR_SET_NAME, name);
	snprintf(speaker, sizeof(speaker), "worker %u", birth->slot);
	log_init(speaker, sidecar->config.log_level);
	roles->worker(sidecar, birth);
	abort();
}

int launcher_start_worker(struct launched *launched, struct sidecar *sidecar, const struct roles *roles,
			  const struct descriptor *descriptor, const struct birth *birth)
{
	pid_t supervisor = getpid();
	uint32_t slot = birth->slot;
	struct keep keep = {0};

	if (fork_child(launched) != 0)
		return -1;
	if (launched->pid > 0)
		return 0;
	keep_common(&keep, sidecar);
	keep_fd(&keep, sidecar->slots[slot].channels_fd);
	keep_fd(&keep, sidecar->slots[slot].arena_fd);
	keep_fd(&keep, sidecar->slots[slot].owner_fd);
	keep_fd(&keep, sidecar->slots[slot].worker_bell);
	for (uint32_t i = 0; i < sidecar->config.slots; i++) {
		if (i != slot)
			slot_memory_destroy(&sidecar->slots[i]);
	}
	become_child(supervisor, "bridged-worker", &keep, 2);
	sidecar->descriptor = descriptor;
	launcher_begin_worker(sidecar, roles, birth);
}

int launcher_start_template(struct launched *launched, struct sidecar *sidecar, const struct roles *roles,
			    const struct descriptor *descriptor, int link)
{
	pid_t supervisor = getpid();
	struct keep keep = {0};

	if (fork_child(launched) != 0)
		return -1;
	if (launched->pid > 0)
		return 0;
	keep_common(&keep, sidecar);
	keep_fd(&keep, link);
	for (uint32_t i = 0; i < sidecar->config.slots; i++) /* a process that it makes is sent its own */
		slot_memory_destroy(&sidecar->slots[i]);
	become_child(supervisor, "bridged-templ", &keep, 2);
	log_init("template", sidecar->config.log_level);
	if (control_attach_reader(&sidecar->control) != 0)
		fatal("the control memory cannot be mapped");
	sidecar->descriptor = descriptor;
	roles->template(sidecar, roles, link);
	abort();
}

int launcher_start_probe(struct launched *launched, int (*probe)(void *context, int out), void *context, int out)
{
	pid_t supervisor = getpid();
	struct keep keep = {0};

	if (fork_child(launched) != 0)
		return -1;
	if (launched->pid > 0)
		return 0;
	for (int fd = 0; fd <= 2; fd++)
		keep_fd(&keep, fd);
	keep_fd(&keep, out);
	become_child(supervisor, "bridged-check", &keep, 2);
	_exit(probe(context, out));
}
