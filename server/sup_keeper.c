/*
 * The keeper of a slot: its processes and its memory (sup.h).
 *
 *      forked: an heir --owner mutex--> announced: the owner --dies--> an heir is announced, within TAKEOVER_PATIENCE
 *
 * A slot has an owner and --heirs processes behind it. They settle among themselves who is next, in the owner mutex; the
 * keeper learns of it from their words, and backs the mutex up, for user code may have overwritten it: nobody announced
 * although an heir sleeps in the mutex, or somebody who was not the last owner's successor. Then the slot's memory is given up:
 * all its processes are killed, its sessions fail, and it begins again on fresh memory, which is what a new generation says.
 *
 * The same end takes memory whose owner found that it cannot be true, memory that owner after owner dies of, and memory whose killed
 * owner is still there after two seconds, because it sleeps in the kernel and might write when it wakes up.
 *
 * Heirs are forked once the owner is ready, and the sidecar serves, so that they do not compete with owners for the processor.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/sup.h"
#include "shared/units.h"

/* How long a slot may be without owner although an heir waits. */
#define TAKEOVER_PATIENCE_NS UINT64_C(50000000)

/* The slot, as everybody sees it. */
static struct control_slot *slot_of(const struct supervisor *supervisor, const struct keeper *keeper)
{
	return &supervisor->sidecar->control.control->slot[keeper->slot];
}

void keepers_init(struct supervisor *supervisor)
{
	supervisor->keeper_count = supervisor->sidecar->config.slots;
	for (uint32_t i = 0; i < supervisor->keeper_count; i++) {
		struct keeper *keeper = &supervisor->keepers[i];
		*keeper = (struct keeper){
		    .slot = i,
		    .generation = 1,
		    .code = 1,
		    .lives = &supervisor->children[1 + i * LIVES_MAX],
		};
		for (uint32_t place = 0; place < LIVES_MAX; place++)
			keeper->lives[place] =
			    (struct child){.role = ROLE_WORKER, .slot = i, .place = place, .pidfd = -1};
		atomic_store_explicit(&slot_of(supervisor, keeper)->code_generation, keeper->code,
				      memory_order_relaxed);
		atomic_store_explicit(&slot_of(supervisor, keeper)->generation, keeper->generation,
				      memory_order_release);
	}
}

bool keeper_is_ready(const struct supervisor *supervisor, const struct keeper *keeper)
{
	return keeper->owner != NULL && child_is_ready(supervisor, keeper->owner);
}

/* Whether a process has loaded all code and waits for the slot, or has got it a moment ago. */
static bool is_heir(const struct supervisor *supervisor, const struct child *child)
{
	return child->state == CHILD_UP && !child->dead && !child->announced &&
	       child_life_state(supervisor, child) >= LIFE_WAITING;
}

uint32_t keeper_heirs(const struct supervisor *supervisor, const struct keeper *keeper)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < LIVES_MAX; i++)
		count += is_heir(supervisor, &keeper->lives[i]);
	return count;
}

uint64_t keeper_heir_pid(const struct supervisor *supervisor, const struct keeper *keeper)
{
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		if (is_heir(supervisor, &keeper->lives[i]))
			return (uint64_t)keeper->lives[i].pid;
	}
	return 0;
}

/* ---- Who owns the slot ---- */

struct child *keeper_process(struct keeper *keeper, uint32_t number)
{
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		if (keeper->lives[i].state != CHILD_DOWN && keeper->lives[i].number == number)
			return &keeper->lives[i];
	}
	return NULL;
}

/* An owner that another has taken over from: it is on its way out, and not for long. */
static void supersede(struct child *child)
{
	if (child->killed)
		return;
	child->state = CHILD_LEAVING;
	child->due_ns = clock_ns() + UINT64_C(2000000000);
}

/* A process has announced itself as the owner. */
static void note_owner(struct supervisor *supervisor, struct keeper *keeper, struct child *child)
{
	struct life *life = child_life(supervisor, child);
	uint32_t predecessor = atomic_load_explicit(&life->predecessor, memory_order_relaxed);
	struct child *before = keeper->owner;

	child->announced = true;
	struct child *last = keeper_process(keeper, keeper->last_owner);
	/* One that was killed as it announced itself may not have come to say so. */
	if (predecessor != keeper->last_owner && last != NULL && !process_is_exiting(last->pid)) {
		keeper_give_up(supervisor, keeper, "two of its processes took it at once");
		return;
	}
	if (before != NULL)
		supersede(before);
	if (predecessor != 0) {
		counter_add(&counters_of_sup(supervisor)->takeovers, 1);
		log_info("worker %u: process %d takes over", keeper->slot, child->pid);
	}
	keeper->owner = child;
	keeper->last_owner = child->number;
	keeper->takeover_due_ns = 0;
	keeper->orphaned_ns = 0;
	atomic_store_explicit(&slot_of(supervisor, keeper)->pid, child->pid, memory_order_relaxed);
	/* Release: pairs with the front, which compares it with the owner that it wants at the least. */
	atomic_store_explicit(&slot_of(supervisor, keeper)->owner, child->number, memory_order_release);
	doorbell_ring(supervisor->sidecar->control.front_bell);
}

/* The owner has become ready. */
static void note_ready(struct supervisor *supervisor, struct child *child)
{
	const struct life *life = child_life(supervisor, child);
	uint64_t from = counter_read(&life->took_over_ns), to = counter_read(&life->ready_ns);

	child->ready_seen = true;
	if (atomic_load_explicit(&life->predecessor, memory_order_relaxed) != 0 && to >= from)
		histogram_add(&counters_of_sup(supervisor)->takeover_time, to - from);
}

/* The next process that has announced itself and is not noted yet, or NULL. Several may have in a short time: who came after the
 * last owner is first. */
static struct child *next_announced(const struct supervisor *supervisor, const struct keeper *keeper)
{
	struct child *found = NULL;

	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		struct child *child = &keeper->lives[i];
		if (child->state == CHILD_DOWN || child->announced || child_life_state(supervisor, child) < LIFE_OWNER)
			continue;
		const struct life *life = child_life(supervisor, child);
		if (atomic_load_explicit(&life->predecessor, memory_order_relaxed) == keeper->last_owner)
			return child;
		found = child;
	}
	return found;
}

void keeper_see(struct supervisor *supervisor, struct keeper *keeper)
{
	struct child *child;

	while (keeper->renew_due_ns == 0 && (child = next_announced(supervisor, keeper)) != NULL)
		note_owner(supervisor, keeper, child);
	if (keeper->owner != NULL && !keeper->owner->ready_seen && child_is_ready(supervisor, keeper->owner))
		note_ready(supervisor, keeper->owner);
}

/* Looks whether somebody should have taken the slot, and has not. */
static void check_takeover(struct supervisor *supervisor, struct keeper *keeper, uint64_t now)
{
	bool stuck = false, anybody = false, leaving = false;

	if (keeper->takeover_due_ns == 0 || now < keeper->takeover_due_ns)
		return;
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		struct child *child = &keeper->lives[i];
		/* One that was killed may have been woken first, and has the mutex until it has had the processor to end. */
		leaving |= child->state == CHILD_LEAVING;
		if (child->state != CHILD_UP)
			continue;
		anybody = true;
		if (child_life_state(supervisor, child) != LIFE_WAITING)
			continue;
		/* One that does not sleep has been woken, and has not had the processor yet. */
		stuck |= process_is_in_state(child->pid, "S");
		if (process_is_in_state(child->pid, "Tt")) {
			log_warn("heir %u (pid %d) is stopped, and its turn has come: it is killed", keeper->slot,
				 child->pid);
			child_kill(child, DEATH_ORDERED);
		}
	}
	keeper->takeover_due_ns = anybody ? now + TAKEOVER_PATIENCE_NS : 0;
	keeper_see(supervisor, keeper);
	if (stuck && !leaving && keeper->owner == NULL)
		keeper_give_up(supervisor, keeper, "its owner is dead, and the heir that waits is not woken");
}

bool keeper_replace_owner(struct supervisor *supervisor, struct keeper *keeper)
{
	if (keeper->owner == NULL || keeper->owner->state != CHILD_UP)
		return false;
	child_ask_to_leave(supervisor, keeper->owner, ORDER_LEAVE, supervisor->sidecar->config.stop_grace_ms);
	return true;
}

/* ---- Memory that is given up ---- */

void keeper_give_up(struct supervisor *supervisor, struct keeper *keeper, const char *why)
{
	if (keeper->renew_due_ns != 0)
		return;
	log_error("slot %u: %s; its sessions fail, and it begins again on fresh memory", keeper->slot, why);
	keeper->renewals++;
	counter_add(&counters_of_sup(supervisor)->memories_renewed, 1);
	for (uint32_t i = 0; i < LIVES_MAX; i++)
		child_kill(&keeper->lives[i], DEATH_ORDERED);
	keeper->owner = NULL;
	keeper->takeover_due_ns = 0;
	keeper->orphaned_ns = clock_ns();
	keeper->renew_due_ns = clock_ns() + UINT64_C(2000000000);
	atomic_store_explicit(&slot_of(supervisor, keeper)->pid, 0, memory_order_relaxed);
}

/* Makes fresh memory once nobody uses the old one any more, or those who might cannot be waited for. */
static void renew(struct supervisor *supervisor, struct keeper *keeper, uint64_t now)
{
	struct sidecar *sidecar = supervisor->sidecar;
	uint64_t delay_ms = sidecar->config.restart_delay_max_ms;
	bool alone = true;

	for (uint32_t i = 0; i < LIVES_MAX; i++)
		alone = alone && keeper->lives[i].state == CHILD_DOWN;
	if (now < keeper->renew_due_ns && (!alone || keeper->renew_failed))
		return;
	keeper->renew_failed = false;
	switch (slot_memory_renew(&sidecar->slots[keeper->slot], sidecar->state_dir)) {
	case RENEWAL_DONE:
		break;
	case RENEWAL_MORE:
		keeper->renew_due_ns = now; /* after whatever else has happened meanwhile */
		return;
	case RENEWAL_FAILED:
		log_error("slot %u: there is no fresh memory for it: %s; the next try is in %llu ms", keeper->slot,
			  strerror(errno), (unsigned long long)delay_ms);
		keeper->renew_due_ns = now + delay_ms * 1000000;
		keeper->renew_failed = true;
		return;
	}
	keeper->renew_due_ns = 0;
	keeper->last_owner = 0;
	keeper->generation++;
	atomic_store_explicit(&control_worker(&sidecar->control, keeper->slot)->owner, 0, memory_order_relaxed);
	/* Release: pairs with the acquire load of the front, which now ends what it had with the old memory. */
	atomic_store_explicit(&slot_of(supervisor, keeper)->generation, keeper->generation, memory_order_release);
	doorbell_ring(sidecar->control.front_bell);
}

/* ---- Deaths ---- */

/* When the next process may be forked; in ms from now. */
static uint64_t next_fork(struct supervisor *supervisor, struct keeper *keeper, const struct child *child,
			  enum death_cause cause)
{
	const struct config *config = &supervisor->sidecar->config;
	const struct life *life = child_life(supervisor, child);
	struct restart_death death = {
	    .ordered = child->ordered || cause == DEATH_ORDERED,
	    .worked = life != NULL && counter_read(&life->first_commit_ns) != 0,
	    .outside = cause == DEATH_OUTSIDE && child_life_state(supervisor, child) >= LIFE_WAITING,
	    .took_over = child->announced,
	    .lived_ms = (clock_ns() - child->born_ns) / 1000000,
	};
	uint64_t delay = restart_delay(&keeper->history, death, config->restart_delay_ms, config->restart_delay_max_ms);

	if (delay > 0)
		counter_add(&counters_of_sup(supervisor)->restarts_throttled, 1);
	return delay;
}

/* What follows on an owner's death, in words. */
static void explain_owner(const struct supervisor *supervisor, const struct keeper *keeper, uint64_t delay_ms,
			  char then[128])
{
	if (keeper_heirs(supervisor, keeper) > 0)
		snprintf(then, 128, "its heir takes over");
	else if (delay_ms > 0)
		snprintf(then, 128, "a new one is started in %llu ms", (unsigned long long)delay_ms);
	else
		snprintf(then, 128, "a new one is started now");
}

/* Whether the slot's memory cannot be gone on with, and why. */
static const char *reason_to_give_up(const struct keeper *keeper, const struct child *child, enum death_cause cause,
				     int exit_code)
{
	if (child->generation != keeper->generation)
		return NULL;
	if (exit_code == EXIT_DAMAGED)
		return "its memory cannot be true";
	if (child->announced && exit_code == EXIT_MEMORY)
		return "its worker had used up its memory";
	if (child->announced && cause == DEATH_MEMORY)
		return "its worker was killed for want of memory";
	if (restart_gives_up(&keeper->history))
		return "one worker after the other dies before it has done anything";
	return NULL;
}

void keeper_bury(struct supervisor *supervisor, struct keeper *keeper, struct child *child, enum death_cause cause,
		 int exit_code, char then[128])
{
	if (supervisor->phase >= PHASE_DRAINING)
		snprintf(then, 128, "%s", "no other is started");
	bool was_owner = child == keeper->owner;
	if (was_owner) {
		keeper->owner = NULL;
		keeper->orphaned_ns = clock_ns();
		keeper->takeover_due_ns = clock_ns() + TAKEOVER_PATIENCE_NS;
		atomic_store_explicit(&slot_of(supervisor, keeper)->pid, 0, memory_order_relaxed);
	}
	if (supervisor->phase >= PHASE_LEAVING || keeper->renew_due_ns != 0)
		return;
	uint64_t delay = next_fork(supervisor, keeper, child, cause);
	keeper->fork_due_ns = delay == 0 ? keeper->fork_due_ns : clock_ns() + delay * 1000000;
	const char *why = reason_to_give_up(keeper, child, cause, exit_code);
	if (why != NULL) {
		keeper->history = (struct restart_history){0};
		snprintf(then, 128, "its memory is given up");
		keeper_give_up(supervisor, keeper, why);
	} else if (was_owner) {
		explain_owner(supervisor, keeper, delay, then);
	} else if (child->announced) {
		snprintf(then, 128, "its heir takes over");
	} else if (delay > 0) {
		snprintf(then, 128, "a new one is started in %llu ms", (unsigned long long)delay);
	} else {
		snprintf(then, 128, "a new one is started now");
	}
}

/* ---- What the front asks for ---- */

/* Gives up memory whose ring words could not be true, has an owner replaced that is too old for the front. */
static void take_demand(struct supervisor *supervisor, struct keeper *keeper)
{
	struct front_slot *asked = &supervisor->sidecar->control.front->slot[keeper->slot];
	uint32_t damaged = atomic_load_explicit(&asked->damaged, memory_order_acquire);
	uint32_t wanted = atomic_load_explicit(&asked->wanted_owner, memory_order_acquire);

	if (damaged == keeper->generation) {
		keeper_give_up(supervisor, keeper, "its worker has damaged its rings");
		return;
	}
	/* A demand is granted once: a front that asked for the impossible must not keep workers dying. */
	if (keeper->owner == NULL || wanted <= keeper->owner->number || wanted == keeper->wanted_seen)
		return;
	keeper->wanted_seen = wanted;
	log_info("worker %u (pid %d) makes room for a fresh one", keeper->slot, keeper->owner->pid);
	keeper_replace_owner(supervisor, keeper);
}

/* ---- Forking ---- */

/* The process whose last words an owner may still have to read, because it does not serve yet; 0: none. */
static uint32_t read_by_owner(const struct supervisor *supervisor, const struct keeper *keeper)
{
	if (keeper->owner == NULL || child_is_ready(supervisor, keeper->owner))
		return 0;
	const struct life *life = child_life(supervisor, keeper->owner);
	return life == NULL ? 0 : atomic_load_explicit(&life->predecessor, memory_order_relaxed);
}

struct child *keeper_free_place(const struct supervisor *supervisor, struct keeper *keeper)
{
	uint32_t read = read_by_owner(supervisor, keeper);

	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		struct child *child = &keeper->lives[i];
		if (child->state == CHILD_DOWN &&
		    (child->number == 0 || (child->number != keeper->last_owner && child->number != read)))
			return child;
	}
	return NULL;
}

uint32_t keeper_fork(struct supervisor *supervisor, struct keeper *keeper, uint32_t code, uint64_t now)
{
	uint64_t delay_ms = supervisor->sidecar->config.restart_delay_max_ms;
	struct child *place = keeper_free_place(supervisor, keeper);
	struct birth birth = {
	    .slot = keeper->slot,
	    .place = place == NULL ? 0 : place->place,
	    .number = keeper->numbers + 1,
	    .generation = keeper->generation,
	    .code = code,
	};

	if (place == NULL) /* somebody is on his way out */
		return 0;
	switch (child_start_worker(supervisor, place, &birth)) {
	case CHILD_STARTED:
		break;
	case CHILD_LATER:
		return 0;
	case CHILD_FAILED:
		log_error("no process can be started for slot %u: %s; the next try is in %llu ms", keeper->slot,
			  strerror(errno), (unsigned long long)delay_ms);
		keeper->fork_due_ns = now + delay_ms * 1000000;
		return 0;
	}
	keeper->fork_due_ns = 0;
	if (++keeper->numbers > 1 + supervisor->sidecar->config.heirs) {
		keeper->restarts++;
		counter_add(&counters_of_sup(supervisor)->worker_restarts, 1);
	}
	return birth.number;
}

/* Processes that should be there now, and one that is not. */
static bool wants_another(const struct supervisor *supervisor, const struct keeper *keeper)
{
	uint32_t count = 0, wanted = 1;

	for (uint32_t i = 0; i < LIVES_MAX; i++)
		count += keeper->lives[i].state == CHILD_UP;
	if (supervisor->phase == PHASE_SERVING && keeper_is_ready(supervisor, keeper) &&
	    keeper->owner->state == CHILD_UP)
		wanted += supervisor->sidecar->config.heirs;
	return count < wanted;
}

/* Forks what is wanted, unless it has to wait. */
static void fill(struct supervisor *supervisor, struct keeper *keeper, uint64_t now)
{
	while (now >= keeper->fork_due_ns && wants_another(supervisor, keeper) &&
	       keeper_fork(supervisor, keeper, keeper->code, now) != 0)
		;
}

/* ---- Turns ---- */

/* Does what is due for one process. */
static void act_on_time(struct supervisor *supervisor, struct keeper *keeper, struct child *child, uint64_t now)
{
	char name[16];

	if (child->due_ns == 0 || now < child->due_ns)
		return;
	if (child->state == CHILD_UP) {
		child->due_ns = 0;
		if (child_life_state(supervisor, child) >= LIFE_WAITING)
			return;
		log_warn("heir %u (pid %d) has not loaded its code in time (--start-timeout); it is killed",
			 child->slot, child->pid);
		child_kill(child, DEATH_WATCHDOG);
		return;
	}
	if (!child->killed) {
		log_warn("%s (pid %d) did not leave in time; it is killed", child_name(child, name), child->pid);
		child_kill(child, DEATH_ORDERED);
		return;
	}
	child->due_ns = 0; /* nothing more can be done about it */
	log_error("%s (pid %d) was killed and is still there: it sleeps in the kernel", child_name(child, name),
		  child->pid);
	if (child->announced && child->generation == keeper->generation && supervisor->phase < PHASE_LEAVING)
		keeper_give_up(supervisor, keeper, "a worker that was killed does not end");
}

void keeper_turn(struct supervisor *supervisor, struct keeper *keeper, uint64_t now)
{
	keeper_see(supervisor, keeper);
	for (uint32_t i = 0; i < LIVES_MAX; i++)
		act_on_time(supervisor, keeper, &keeper->lives[i], now);
	if (supervisor->phase >= PHASE_LEAVING)
		return;
	if (keeper->renew_due_ns != 0)
		renew(supervisor, keeper, now);
	if (keeper->renew_due_ns != 0)
		return;
	check_takeover(supervisor, keeper, now);
	if (supervisor->phase < PHASE_DRAINING)
		take_demand(supervisor, keeper);
	if (keeper->renew_due_ns == 0 && supervisor->phase < PHASE_DRAINING)
		fill(supervisor, keeper, now);
}

uint64_t keeper_due(const struct supervisor *supervisor, const struct keeper *keeper, uint64_t now)
{
	uint64_t due = earlier(keeper->takeover_due_ns, keeper->renew_due_ns);

	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		if (keeper->lives[i].state != CHILD_DOWN)
			due = earlier(due, keeper->lives[i].due_ns);
	}
	if (keeper->fork_due_ns > now && supervisor->phase < PHASE_DRAINING)
		due = earlier(due, keeper->fork_due_ns);
	return due;
}

void keeper_stop(struct supervisor *supervisor, struct keeper *keeper)
{
	keeper_see(supervisor, keeper);
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		struct child *child = &keeper->lives[i];
		if (child == keeper->owner || child->state != CHILD_UP)
			continue;
		/* The order, too: it may get the mutex before it is dead. */
		child_ask_to_leave(supervisor, child, ORDER_STOP, 0);
		child_kill(child, DEATH_ORDERED);
	}
	if (keeper->owner != NULL)
		child_ask_to_leave(supervisor, keeper->owner, ORDER_STOP, supervisor->sidecar->config.stop_grace_ms);
}
