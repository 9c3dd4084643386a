/*
 * The supervisor's side of template processes (template.h): one per generation of code that has steps in Python.
 *
 *      start, reload --> LOADING --it can--> READY --asked--> a spare --a slot's birth--> a process of that slot
 *                           |                  |
 *                           +---- it dies -----+--> DYING --dead, or not in time--> NONE: processes load by themselves
 *                           |                  |                                     ^
 *                           +------------------+-- it cannot, or took too long ------+
 *
 * A template is a convenience: whatever happens to it, slots get processes that are forked here and load the code themselves, as
 * without it. So none is started twice for a generation, and nothing waits for one longer than for a process that loads.
 *
 * At most one spare is on its way at a time. It is asked for when a slot wants a process, and goes to the first that wants one when it is
 * there, so that neither side waits for the other. Until then it is nobody: if it dies it is forgotten, reaped as a stranger, and another
 * one is asked for.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/sup.h"
#include "server/template.h"
#include "shared/units.h"

enum {
	SPARE_PATIENCE_MS = 10000, /* for a spare to come, unless processes must have loaded sooner */
	DEATH_PATIENCE_MS = 2000,  /* for the end of a template that is dying */
	SPARES_LOST_MAX = 3,       /* in a row, and the template is good for nothing */
};

/* Has the loop wake up for a descriptor; the turn looks at all of them. */
static void watch(const struct supervisor *supervisor, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = (void *)supervisor->codes};

	CHECK(epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

/* Closes a descriptor once. A child just forked may hold a copy, so the loop is told, too. */
static void let_go(const struct supervisor *supervisor, int *fd)
{
	if (*fd < 0)
		return;
	epoll_ctl(supervisor->epoll, EPOLL_CTL_DEL, *fd, NULL);
	close(*fd);
	*fd = -1;
}

/* ---- Start and end ---- */

void template_start(struct supervisor *supervisor, struct code *code)
{
	struct template *template = &code->template;
	int ends[2];

	*template = (struct template){.link = -1, .process.pidfd = -1, .spare_link = -1, .spare.pidfd = -1};
	if (supervisor->roles->template == NULL || !template_is_wanted(code->descriptor))
		return;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
		log_warn("there can be no template process: %s; each process loads its code by itself",
			 strerror(errno));
		return;
	}
	if (launcher_start_template(&template->process, supervisor->sidecar, supervisor->roles, code->descriptor,
				    ends[1]) != 0) {
		log_warn("the template process cannot be started: %s; each process loads its code by itself",
			 strerror(errno));
		template->process.pidfd = -1;
		close(ends[0]);
		close(ends[1]);
		return;
	}
	close(ends[1]);
	template->link = ends[0];
	watch(supervisor, template->link);
	watch(supervisor, template->process.pidfd);
	template->state = TEMPLATE_LOADING;
	template->born_ns = clock_ns();
	template->due_ns = template->born_ns + supervisor->sidecar->config.start_timeout_ms * 1000000;
	gauge_set(&counters_of_sup(supervisor)->templates, counter_read(&counters_of_sup(supervisor)->templates) + 1);
}

/* Waits for a spare no longer. */
static void stop_waiting(struct template *template)
{
	if (template->state == TEMPLATE_READY)
		template->due_ns = 0;
}

/* Forgets a spare that is asked for, or there: its socket's end is its own. */
static void drop_spare(struct supervisor *supervisor, struct template *template)
{
	let_go(supervisor, &template->spare_link);
	if (template->spare.pidfd >= 0)
		close(template->spare.pidfd);
	template->spare = (struct launched){.pidfd = -1};
}

/* Whether a spare is there. */
static bool has_spare(const struct template *template)
{
	return template->spare.pidfd >= 0;
}

/* Goes on without the template. A spare that is there already is as good as ever. */
static void do_without(struct supervisor *supervisor, struct template *template)
{
	template->state = TEMPLATE_NONE;
	template->ended = true;
	template->due_ns = 0;
	let_go(supervisor, &template->link);
	if (!has_spare(template))
		drop_spare(supervisor, template);
	if (template->process.pidfd >= 0)
		kill(template->process.pid, SIGKILL); /* ours and not reaped: the pid is nobody else's */
}

/* Ends it, because nothing needs its code any more. */
static void end(struct supervisor *supervisor, struct code *code)
{
	drop_spare(supervisor, &code->template);
	do_without(supervisor, &code->template);
}

bool template_is_there(const struct code *code)
{
	return code->template.process.pidfd >= 0;
}

/* ---- What it says ---- */

/* Goes on without it, in words. */
static void give_up(struct supervisor *supervisor, struct code *code, const char *why)
{
	log_warn("each process of a slot loads the code of generation %u by itself: %s", code->number, why);
	do_without(supervisor, &code->template);
}

/* It has closed its end of the socket: as a rule by dying. */
static void hear_its_end(struct supervisor *supervisor, struct code *code)
{
	struct template *template = &code->template;

	if (!process_is_exiting(template->process.pid)) {
		give_up(supervisor, code, "the template has closed its end of the socket to the supervisor");
		return;
	}
	let_go(supervisor, &template->link);
	template->state = TEMPLATE_DYING;
	template->due_ns = clock_ns() + (uint64_t)DEATH_PATIENCE_MS * 1000000;
}

/* Hears how loading went, or that it can no more. */
static void hear_template(struct supervisor *supervisor, struct code *code)
{
	struct template *template = &code->template;
	struct template_word word;
	ssize_t got = recv(template->link, &word, sizeof(word), MSG_DONTWAIT);
	char took[UNITS_TEXT_MAX];

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got != sizeof(word)) {
		hear_its_end(supervisor, code);
		return;
	}
	word.why[sizeof(word.why) - 1] = '\0';
	if (word.verdict != TEMPLATE_CAN) {
		give_up(supervisor, code, word.why);
		return;
	}
	template->state = TEMPLATE_READY;
	template->due_ns = 0;
	log_info("the template of code generation %u (pid %d) has loaded it, in %s", code->number,
		 template->process.pid, duration_rounded(took, clock_ns() - template->born_ns));
}

/* Notes the template's end, if it has come. */
static void reap_template(struct supervisor *supervisor, struct code *code)
{
	struct template *template = &code->template;
	struct sup_counters *counters = counters_of_sup(supervisor);
	siginfo_t end = {0};
	char death[128], lived[UNITS_TEXT_MAX], why[300];

	if (waitid(P_PIDFD, (id_t) template->process.pidfd, &end, WEXITED | WNOHANG) != 0 || end.si_pid == 0)
		return;
	gauge_set(&counters->templates, counter_read(&counters->templates) - 1);
	let_go(supervisor, &template->process.pidfd);
	if (template->ended) {
		death_of_nobody(supervisor, &end);
	} else {
		deaths_note_template(supervisor, code, &end, "each process loads its code by itself");
		snprintf(why, sizeof(why), "the template (pid %d) died of %s after %s", template->process.pid,
			 death_words(&end, death), duration_rounded(lived, clock_ns() - template->born_ns));
		give_up(supervisor, code, why);
	}
}

/* A spare that was asked for has died before it was there, or the template could not make it, and then has said why. */
static void lose_spare(struct supervisor *supervisor, struct code *code)
{
	struct template *template = &code->template;

	drop_spare(supervisor, template);
	stop_waiting(template);
	if (template->state == TEMPLATE_READY)
		hear_template(supervisor, code);
	if (template->state == TEMPLATE_READY && ++template->spares_lost >= SPARES_LOST_MAX)
		give_up(supervisor, code, "processes that the template made have died before they had a slot");
}

/* Hears from a spare. */
static void hear_spare(struct supervisor *supervisor, struct code *code)
{
	struct template *template = &code->template;
	pid_t pid = 0;
	int heard = template_hear_spare(template->spare_link, &pid);

	if (heard == 0)
		return;
	if (heard < 0 && has_spare(template)) { /* somebody has killed it; the next wish asks for another */
		drop_spare(supervisor, template);
		return;
	}
	int pidfd = heard < 0 ? -1 : pidfd_open(pid, 0);
	siginfo_t end;
	/* Its end must be ours to wait for, and nobody's yet. */
	if (pidfd >= 0 && !has_spare(template) && pid != template->process.pid &&
	    waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED | WNOHANG | WNOWAIT) == 0) {
		template->spare = (struct launched){.pid = pid, .pidfd = pidfd};
		template->spares_lost = 0;
		stop_waiting(template);
		return;
	}
	if (pidfd >= 0)
		close(pidfd);
	lose_spare(supervisor, code);
}

/* Loses patience. */
static void act_on_time(struct supervisor *supervisor, struct code *code, uint64_t now)
{
	struct template *template = &code->template;

	if (template->due_ns == 0 || now < template->due_ns)
		return;
	give_up(supervisor, code,
		template->state == TEMPLATE_LOADING ? "the template has not loaded it in time (--start-timeout)"
		: template->state == TEMPLATE_DYING ? "the template is dying, but does not come to its end"
						    : "the template does not answer");
}

void templates_turn(struct supervisor *supervisor, uint64_t now)
{
	for (size_t i = 0; i < CODES_MAX; i++) {
		struct code *code = &supervisor->codes[i];
		struct template *template = &code->template;
		if (code->number == 0)
			continue;
		if (supervisor->phase >= PHASE_DRAINING || !code_is_needed(supervisor, code->number))
			end(supervisor, code);
		if (template->link >= 0)
			hear_template(supervisor, code);
		if (template->spare_link >= 0)
			hear_spare(supervisor, code);
		if (template->process.pidfd >= 0)
			reap_template(supervisor, code);
		act_on_time(supervisor, code, now);
	}
}

uint64_t templates_due(const struct supervisor *supervisor)
{
	uint64_t due = 0;

	for (size_t i = 0; i < CODES_MAX; i++) {
		if (supervisor->codes[i].number != 0)
			due = earlier(due, supervisor->codes[i].template.due_ns);
	}
	return due;
}

bool templates_are_there(const struct supervisor *supervisor)
{
	for (size_t i = 0; i < CODES_MAX; i++) {
		if (supervisor->codes[i].number != 0 && template_is_there(&supervisor->codes[i]))
			return true;
	}
	return false;
}

bool templates_own(const struct supervisor *supervisor, pid_t pid)
{
	for (size_t i = 0; i < CODES_MAX; i++) {
		const struct template *template = &supervisor->codes[i].template;
		if (supervisor->codes[i].number != 0 &&
		    ((template->process.pidfd >= 0 && template->process.pid == pid) ||
		     (has_spare(template) && template->spare.pid == pid)))
			return true;
	}
	return false;
}

/* ---- Processes out of it ---- */

enum template_answer template_ask(struct supervisor *supervisor, struct code *code)
{
	struct template *template = &code->template;
	uint64_t patience_ms = supervisor->sidecar->config.start_timeout_ms;

	if (has_spare(template))
		return TEMPLATE_HAS_ONE;
	if (template->state == TEMPLATE_NONE)
		return TEMPLATE_HAS_NONE;
	if (template->state != TEMPLATE_READY || template->spare_link >= 0)
		return TEMPLATE_LATER;
	template->spare_link = template_send_order(template->link);
	if (template->spare_link < 0 && errno != EPIPE) {
		log_debug("the template cannot be asked for a process: %s", strerror(errno));
		return TEMPLATE_HAS_NONE;
	}
	if (template->spare_link >= 0) { /* else its end follows */
		watch(supervisor, template->spare_link);
		template->due_ns =
		    clock_ns() + (patience_ms < SPARE_PATIENCE_MS ? patience_ms : SPARE_PATIENCE_MS) * 1000000;
	}
	return TEMPLATE_LATER;
}

bool template_give(struct supervisor *supervisor, struct code *code, struct launched *launched,
		   const struct birth *birth)
{
	struct template *template = &code->template;

	CHECK(has_spare(template));
	bool sent = template_send_birth(template->spare_link, birth, &supervisor->sidecar->slots[birth->slot]);
	if (sent) {
		*launched = template->spare;
		template->spare.pidfd = -1;
		counter_add(&counters_of_sup(supervisor)->template_forks, 1);
	}
	drop_spare(supervisor, template);
	return sent;
}
