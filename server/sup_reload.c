/*
 * New code for slots that go on working.
 *
 *      reload --> CHECKING --the probe found nothing--> REPLACING --slot by slot--> DONE
 *                    |                                      |
 *                    +-- what it found                      +-- an heir did not load: FAILED
 *
 * The descriptor's bytes are read once. A process of its own parses them, compares them with what is served, and compiles the
 * programs; only when that one was content does the supervisor parse the same bytes. Then, in each slot: an heir is forked that
 * loads the new code, or has it from the new code's template; when it waits, the slot's code generation is raised, which makes it
 * the next owner; the heirs with the old code are ended; the owner leaves between two units of work. Until that store nothing has
 * changed for the slot, and if its owner dies meanwhile an heir with the old code takes over. Sessions notice a pause.
 *
 * The topology must be the same: front and clients send records by it. And the new code must be able to take the state over.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descriptor/against.h"
#include "descriptor/diagnostics.h"
#include "server/sidecar.h"
#include "server/sup.h"

#define DESCRIPTOR_BYTES_MAX (UINT64_C(16) << 20)

const char *reload_state_name(enum reload_state state)
{
	static const char *const names[] = {"none", "checking", "replacing", "done", "failed"};

	CHECK(state < sizeof(names) / sizeof(names[0]));
	return names[state];
}

/* ---- Code generations ---- */

void codes_init(struct supervisor *supervisor)
{
	supervisor->code = 1;
	supervisor->first = supervisor->sidecar->descriptor;
	supervisor->codes[0] = (struct code){.number = 1, .descriptor = supervisor->first};
}

struct code *code_of(struct supervisor *supervisor, uint32_t number)
{
	for (size_t i = 0; i < CODES_MAX; i++) {
		if (supervisor->codes[i].number == number)
			return &supervisor->codes[i];
	}
	CHECK(false);
	return NULL;
}

/* Whether any slot is to be served by a generation. */
static bool code_in_use(const struct supervisor *supervisor, uint32_t number)
{
	for (uint32_t i = 0; i < supervisor->keeper_count; i++) {
		if (supervisor->keepers[i].code == number)
			return true;
	}
	return number == supervisor->code;
}

bool code_is_needed(const struct supervisor *supervisor, uint32_t number)
{
	const struct reload *reload = &supervisor->reload;

	return code_in_use(supervisor, number) || (reload->state == RELOAD_REPLACING && reload->code == number);
}

/* A place for another generation; what was there is freed. NULL: slots with many different ones are left from reloads that failed. */
static struct code *code_place(struct supervisor *supervisor)
{
	for (size_t i = 0; i < CODES_MAX; i++) {
		struct code *code = &supervisor->codes[i];
		if (code->number != 0 && (code_in_use(supervisor, code->number) || template_is_there(code)))
			continue;
		descriptor_free(code->owned);
		*code = (struct code){0};
		return code;
	}
	return NULL;
}

/* ---- Ends ---- */

/* Lets go of what checking needs. */
static void end_checking(struct reload *reload)
{
	if (reload->in >= 0)
		close(reload->in);
	if (reload->probe.pidfd >= 0)
		close(reload->probe.pidfd);
	free(reload->text);
	reload->in = reload->probe.pidfd = -1;
	reload->text = NULL;
	reload->due_ns = 0;
}

/* Ends a reload that cannot succeed, in words. */
static void fail(struct supervisor *supervisor, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct supervisor *supervisor, const char *format, ...)
{
	struct reload *reload = &supervisor->reload;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(reload->message, sizeof(reload->message), format, arguments);
	va_end(arguments);
	end_checking(reload);
	reload->state = RELOAD_FAILED;
	reload->due_ns = 0;
	if (reload->slots_done == 0)
		log_error("reload of %s: nothing has changed: %s", reload->path, reload->message);
	else
		log_error("reload of %s: %u slots run the new code, the others do not: %s", reload->path,
			  reload->slots_done, reload->message);
}

/* All slots run the new code. */
static void finish(struct supervisor *supervisor)
{
	struct reload *reload = &supervisor->reload;

	supervisor->code = reload->code;
	supervisor->sidecar->descriptor = code_of(supervisor, reload->code)->descriptor;
	reload->state = RELOAD_DONE;
	reload->due_ns = 0;
	counter_add(&counters_of_sup(supervisor)->reloads, 1);
	snprintf(reload->message, sizeof(reload->message), "all slots run it");
	log_info("reload of %s: all slots run it (code generation %u)", reload->path, reload->code);
}

/* ---- Checking ---- */

/* Reads a file whole. NULL with errno. */
static char *read_file(const char *path, size_t *size)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *text = NULL;

	if (fd == -1)
		return NULL;
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || (uint64_t)status.st_size > DESCRIPTOR_BYTES_MAX) {
		close(fd);
		errno = errno == 0 || S_ISREG(status.st_mode) ? EFBIG : EINVAL;
		return NULL;
	}
	text = malloc((size_t)status.st_size + 1);
	CHECK(text != NULL);
	ssize_t got = read(fd, text, (size_t)status.st_size);
	close(fd);
	if (got < 0) {
		free(text);
		return NULL;
	}
	*size = (size_t)got;
	text[got] = '\0';
	return text;
}

/* Whether new code can serve what is served, with counters for `room` steps; says in `out` why not. */
static bool fits(const struct supervisor *supervisor, const struct descriptor *new, uint32_t room,
		 struct diagnostics *diagnostics, FILE *out)
{
	const struct descriptor *old = supervisor->sidecar->descriptor;

	if (strcmp(old->topology_hash, new->topology_hash) != 0) {
		fprintf(
		    out,
		    "its topology is %s, and %s is served: segments, keys or routes are others, which takes a restart "
		    "together with the job\n",
		    new->topology_hash, old->topology_hash);
		return false;
	}
	if (new->step_count > room) {
		fprintf(out, "it has %u steps, and there are counters for %u: that takes a restart\n", new->step_count,
			room);
		return false;
	}
	against_compare(&(struct side){.descriptor = old, .file = "what is served"},
			&(struct side){.descriptor = new, .file = supervisor->reload.path}, diagnostics);
	return diagnostics->count == 0;
}

/* Unmaps what the supervisor can write to: compilers run here on what people wrote. */
static void forget_memories(struct sidecar *sidecar)
{
	for (uint32_t i = 0; i < sidecar->config.slots; i++)
		slot_memory_destroy(&sidecar->slots[i]);
	control_destroy(&sidecar->control);
}

/* In the probe: everything that could be wrong with the new descriptor, a line each. */
static int probe_reload(void *context, int out)
{
	const struct supervisor *supervisor = context;
	const struct reload *reload = &supervisor->reload;
	uint32_t room = supervisor->sidecar->control.control->step_count;
	struct diagnostics diagnostics;
	FILE *file = fdopen(out, "w");

	setpriority(PRIO_PROCESS, 0, 10); /* who serves should not notice */
	forget_memories(supervisor->sidecar);

	if (file == NULL)
		return 1;
	diagnostics_init(&diagnostics);
	struct descriptor *new =
	    descriptor_parse(reload->path, (struct view){(const uint8_t *)reload->text, reload->size}, &diagnostics);
	bool good = new != NULL &&fits(supervisor, new, room, &diagnostics, file);
	if (diagnostics.count > 0)
		diagnostics_print(&diagnostics, file, false);
	fflush(file);
	return good ? sidecar_probe_chains(new, out) : 1;
}

bool reload_start(struct supervisor *supervisor, const char *path, char why[RELOAD_MESSAGE_MAX])
{
	struct reload *reload = &supervisor->reload;
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = reload};
	int ends[2];

	if (reload->state == RELOAD_CHECKING || reload->state == RELOAD_REPLACING) {
		snprintf(why, RELOAD_MESSAGE_MAX, "a reload of %.256s is under way", reload->path);
		return false;
	}
	*reload = (struct reload){.in = -1, .probe.pidfd = -1, .code = supervisor->code + 1};
	snprintf(reload->path, sizeof(reload->path), "%s", path);
	errno = 0;
	reload->text = read_file(path, &reload->size);
	if (reload->text == NULL || pipe2(ends, O_CLOEXEC) != 0) {
		snprintf(why, RELOAD_MESSAGE_MAX, "%.256s cannot be read: %s", path, strerror(errno));
		end_checking(reload);
		return false;
	}
	if (launcher_start_probe(&reload->probe, probe_reload, supervisor, ends[1]) != 0) {
		snprintf(why, RELOAD_MESSAGE_MAX, "no process can be started to check it: %s", strerror(errno));
		reload->probe.pidfd = -1;
		close(ends[0]);
		close(ends[1]);
		end_checking(reload);
		return false;
	}
	close(ends[1]);
	reload->in = ends[0];
	fcntl(reload->in, F_SETFL, O_NONBLOCK);
	CHECK(epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, reload->in, &event) == 0);
	CHECK(epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, reload->probe.pidfd, &event) == 0);
	reload->due_ns = clock_ns() + supervisor->sidecar->config.start_timeout_ms * 1000000;
	reload->state = RELOAD_CHECKING;
	log_info("reload of %s: it is checked", path);
	return true;
}

/* Takes what the probe says; drops what there is no room for. */
static void hear_probe(struct reload *reload)
{
	char bytes[4096];
	ssize_t got;

	while (reload->in >= 0 && (got = read(reload->in, bytes, sizeof(bytes))) >= 0) {
		size_t room = sizeof(reload->said) - 1 - reload->said_used;
		size_t take = (size_t)got < room ? (size_t)got : room;
		memcpy(reload->said + reload->said_used, bytes, take);
		reload->said_used += take;
		if (got == 0) {
			close(reload->in);
			reload->in = -1;
		}
	}
}

/* Makes the new code known, after a probe that was content with it. */
static void begin_replacing(struct supervisor *supervisor)
{
	struct reload *reload = &supervisor->reload;
	struct diagnostics diagnostics;
	struct code *code = code_place(supervisor);

	if (code == NULL) {
		fail(supervisor,
		     "slots with different code are left from earlier reloads that failed: restart the sidecar");
		return;
	}
	diagnostics_init(&diagnostics);
	code->descriptor = code->owned =
	    descriptor_parse(reload->path, (struct view){(const uint8_t *)reload->text, reload->size}, &diagnostics);
	diagnostics_free(&diagnostics);
	CHECK(code->owned != NULL);
	/* No number twice: a process or a template may still be on its way out that has it. */
	for (size_t i = 0; i < CODES_MAX; i++) {
		if (supervisor->codes[i].number >= reload->code)
			reload->code = supervisor->codes[i].number + 1;
	}
	for (uint32_t i = 0; i < supervisor->keeper_count; i++) {
		if (supervisor->keepers[i].code >= reload->code)
			reload->code = supervisor->keepers[i].code + 1;
	}
	code->number = reload->code;
	end_checking(reload);
	reload->state = RELOAD_REPLACING;
	template_start(supervisor, code);
}

/* Waits for the probe's end, and judges. */
static void check(struct supervisor *supervisor, uint64_t now)
{
	struct reload *reload = &supervisor->reload;
	siginfo_t end = {0};

	hear_probe(reload);
	bool late = now >= reload->due_ns;
	if (late)
		kill(reload->probe.pid, SIGKILL);
	if (waitid(P_PIDFD, (id_t)reload->probe.pidfd, &end, late ? WEXITED : WEXITED | WNOHANG) != 0 ||
	    end.si_pid == 0)
		return;
	hear_probe(reload);
	while (reload->said_used > 0 && reload->said[reload->said_used - 1] == '\n')
		reload->said[--reload->said_used] = '\0';
	if (late)
		fail(supervisor, "its programs were not compiled in time (--start-timeout)");
	else if (end.si_code != CLD_EXITED)
		fail(supervisor, "compiling its programs ended with signal %d (%s)", end.si_status,
		     strsignal(end.si_status));
	else if (end.si_status != 0)
		fail(supervisor, "%s", reload->said_used == 0 ? "it cannot be used" : reload->said);
	else
		begin_replacing(supervisor);
}

/* ---- Replacing ---- */

/* Ends the heirs of a slot that have other code than it should have. */
static void drop_old_heirs(struct supervisor *supervisor, struct keeper *keeper)
{
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		struct child *child = &keeper->lives[i];
		if (child->state != CHILD_UP || child->announced || child->code == keeper->code)
			continue;
		child_ask_to_leave(supervisor, child, ORDER_STOP, 0);
		child_kill(child, DEATH_ORDERED);
	}
}

/* Makes the new code what an owner of the slot should have. */
static void publish(struct supervisor *supervisor, struct keeper *keeper)
{
	keeper->code = supervisor->reload.code;
	/* Release: pairs with the look of whoever gets the slot. */
	atomic_store_explicit(&supervisor->sidecar->control.control->slot[keeper->slot].code_generation, keeper->code,
			      memory_order_release);
	drop_old_heirs(supervisor, keeper);
}

/* Looks after the heir that loads the new code, and publishes the code when it has. */
static void bring_up_heir(struct supervisor *supervisor, struct keeper *keeper, uint64_t now)
{
	struct reload *reload = &supervisor->reload;
	const struct control_slot *slot = &supervisor->sidecar->control.control->slot[keeper->slot];
	struct child *heir = keeper_process(keeper, reload->heir);

	if (reload->heir == 0 || (heir == NULL && control_death_cause(slot, reload->heir) == DEATH_ORDERED)) {
		reload->heir = keeper_fork(supervisor, keeper, reload->code, now);
		reload->due_ns = now + supervisor->sidecar->config.start_timeout_ms * 1000000;
	} else if (heir == NULL) {
		fail(supervisor,
		     "slot %u: a process with the new code did not load it, and ended; the log has its words",
		     keeper->slot);
	} else if (child_life_state(supervisor, heir) >= LIFE_WAITING) {
		publish(supervisor, keeper);
	} else if (now >= reload->due_ns) {
		child_kill(heir, DEATH_ORDERED);
		fail(supervisor, "slot %u: a process with the new code did not load it in time (--start-timeout)",
		     keeper->slot);
	}
}

/* Moves one slot on. Whether it is served by the new code. */
static bool replace(struct supervisor *supervisor, struct keeper *keeper, uint64_t now)
{
	if (keeper->renew_due_ns != 0) /* its memory is made anew: its processes are all on their way out */
		return false;
	if (keeper->code != supervisor->reload.code) {
		bring_up_heir(supervisor, keeper, now);
		return false;
	}
	drop_old_heirs(supervisor, keeper);
	if (keeper->owner == NULL)
		return false;
	if (keeper->owner->code != keeper->code)
		keeper_replace_owner(supervisor, keeper);
	return keeper->owner->code == keeper->code && keeper_is_ready(supervisor, keeper);
}

void reload_turn(struct supervisor *supervisor, uint64_t now)
{
	struct reload *reload = &supervisor->reload;

	if (supervisor->phase >= PHASE_DRAINING &&
	    (reload->state == RELOAD_CHECKING || reload->state == RELOAD_REPLACING)) {
		if (reload->state == RELOAD_CHECKING) {
			kill(reload->probe.pid, SIGKILL);
			waitid(P_PIDFD, (id_t)reload->probe.pidfd, &(siginfo_t){0}, WEXITED);
		}
		fail(supervisor, "the sidecar is stopping");
	}
	if (reload->state == RELOAD_CHECKING)
		check(supervisor, now);
	while (reload->state == RELOAD_REPLACING &&
	       replace(supervisor, &supervisor->keepers[reload->slots_done], now)) {
		reload->heir = 0;
		if (++reload->slots_done == supervisor->keeper_count)
			finish(supervisor);
	}
}

uint64_t reload_due(const struct supervisor *supervisor)
{
	return supervisor->reload.due_ns;
}
