/* The supervisor with doubles of front and worker: starts, deaths, restarts, orders, and that nothing is left behind. */
#include <signal.h>
#include <sys/ptrace.h>

#include "tests/check_main.h"
#include "tests/sidecar_double.h"

/* A counter of the supervisor. */
#define SUP_COUNT(name) counter_read(&sut.sidecar.control.control->counters.name)

/* Whether a process of a slot waits to take over. */
static bool heir_waits(uint32_t slot, uint32_t number)
{
	struct worker_page *page = control_worker(&sut.sidecar.control, slot);

	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		if (atomic_load(&page->lives[i].number) == number)
			return atomic_load(&page->lives[i].state) == LIFE_WAITING;
	}
	return false;
}

/* Reads a small file of /proc. */
static const char *proc_file(pid_t pid, const char *name)
{
	static char text[1 << 16];
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	fclose(file);
	return text;
}

/* The words of a dead owner stay until its successor has read them, whoever wants a place meanwhile. */
START_TEST(last_words_stay_until_they_are_read)
{
	static struct supervisor supervisor;
	static struct sidecar sidecar = {.config.slots = 1};
	struct keeper *keeper = &supervisor.keepers[0];
	struct life *life;

	ck_assert_int_eq(control_create(&sidecar.control, 1, 1, 1), 0);
	supervisor.sidecar = &sidecar;
	keepers_init(&supervisor);
	life = &control_worker(&sidecar.control, 0)->lives[1];
	ck_assert_ptr_eq(keeper_free_place(&supervisor, keeper), &keeper->lives[0]);
	keeper->lives[0].number = 1;
	keeper->last_owner = 1;
	ck_assert_ptr_eq(keeper_free_place(&supervisor, keeper), &keeper->lives[1]);
	keeper->lives[1].number = 2; /* has taken over, and is noted, but has not come to the words yet */
	keeper->lives[1].state = CHILD_UP;
	keeper->owner = &keeper->lives[1];
	keeper->last_owner = 2;
	atomic_store(&life->number, 2);
	atomic_store(&life->predecessor, 1);
	atomic_store(&life->state, LIFE_OWNER);
	ck_assert_ptr_eq(keeper_free_place(&supervisor, keeper), &keeper->lives[2]);
	atomic_store(&life->state, LIFE_READY);
	ck_assert_ptr_eq(keeper_free_place(&supervisor, keeper), &keeper->lives[0]);
	control_destroy(&sidecar.control);
}
END_TEST

START_TEST(starts_serves_and_stops_in_order)
{
	sut_serve(3);
	ck_assert(sut_logged("serving pipeline \"double\" on 127.0.0.1:5051 with 3 slots"));
	sut_stop();
	/* The workers leave once the front has gone, not before. */
	ck_assert_int_eq(sut.script->front_pid_at_worker_end, 0);
	ck_assert(sut_logged("front (pid"));
	ck_assert(sut_logged("left as it was told"));
	ck_assert(!sut_logged("warn"));
}
END_TEST

START_TEST(a_killed_worker_is_replaced_and_the_others_stay)
{
	sut_create(2);
	sut.script->frames[1] = 812;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && heir_waits(1, 2));
	pid_t front = sut_front_pid(), other = sut_worker_pid(0), dead = sut_worker_pid(1);
	uint32_t number = sut_owner(1);
	kill(dead, SIGKILL);
	WAIT_UNTIL(sut_owned_by(1, number + 1));
	ck_assert_int_ne(sut_worker_pid(1), dead);
	ck_assert_int_eq(sut_front_pid(), front);
	ck_assert_int_eq(sut_worker_pid(0), other);
	ck_assert_uint_eq(SUP_COUNT(restarts_throttled), 0);
	WAIT_UNTIL(sut_logged("process 1) died of signal 9 (Killed) after"));
	ck_assert(sut_logged("segment \"first\", step \"upper\", seq 17, record 3"));
	ck_assert(sut_logged(", key \"k1\", input: a deadly one, 812 frames done before; its heir takes over"));
	sut_stop();
}
END_TEST

START_TEST(a_killed_front_is_replaced_and_the_workers_stay)
{
	sut_serve(2);
	pid_t front = sut_front_pid(), worker = sut_worker_pid(0);
	/* A session of the dead front must not be shown as open. */
	kill(front, SIGSEGV);
	WAIT_UNTIL(atomic_load(&sut.sidecar.control.front->generation) == 2);
	ck_assert_uint_eq(atomic_load(&sut.sidecar.control.control->front_generation), 2);
	ck_assert_int_eq(sut_worker_pid(0), worker);
	ck_assert_uint_eq(SUP_COUNT(front_restarts), 1);
	ck_assert(sut_logged("died of signal 11 (Segmentation fault)"));
	WAIT_UNTIL(sut_logged("front (pid ") && sut_logged("generation 2) is ready"));
	sut_stop();
}
END_TEST

START_TEST(who_dies_before_its_first_work_waits_longer_each_time)
{
	sut_create(1);
	sut.sidecar.config.restart_delay_ms = 1;
	sut.sidecar.config.restart_delay_max_ms = 30000;
	sut.sidecar.config.heirs = 0;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	sut.script->worker_mode[0] = DOUBLE_EARLY;
	kill(sut_worker_pid(0), SIGKILL);
	WAIT_UNTIL(sut_logged("a new one is started in 4 ms"));
	ck_assert_uint_ge(SUP_COUNT(restarts_throttled), 3);
	ck_assert(sut_logged("a new one is started in 1 ms"));
	ck_assert(sut_logged("a new one is started in 2 ms"));
	ck_assert(sut_logged("exit code 77"));
	/* It comes back as soon as it can work, and counts as new once it has. */
	sut.script->frames[0] = 1;
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	WAIT_UNTIL(sut_owner_frames(0) == 1);
	uint32_t now = sut_owner(0);
	uint64_t throttled = SUP_COUNT(restarts_throttled);
	kill(sut_worker_pid(0), SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, now + 1));
	ck_assert_uint_eq(SUP_COUNT(restarts_throttled), throttled);
	sut_stop();
}
END_TEST

START_TEST(children_go_with_their_supervisor)
{
	sut_serve(3);
	kill(sut.supervisor, SIGKILL);
	ck_assert_int_eq(sut_wait(), 1000 + SIGKILL);
	WAIT_UNTIL(sut_nobody_left());
}
END_TEST

START_TEST(an_address_that_cannot_be_bound_ends_the_start)
{
	sut_create(2);
	sut.script->front_mode = DOUBLE_REFUSE;
	sut_start();
	ck_assert_int_eq(sut_wait(), 1);
	ck_assert(sut_logged("cannot start: 127.0.0.1:5051: address already in use"));
	ck_assert(sut_nobody_left());
}
END_TEST

START_TEST(steps_that_cannot_be_opened_end_the_start)
{
	sut_create(2);
	sut.script->worker_mode[1] = DOUBLE_REFUSE;
	sut_start();
	ck_assert_int_eq(sut_wait(), 1);
	ck_assert(sut_logged("cannot start: worker 1 could not open the pipeline's steps"));
	ck_assert(sut_nobody_left());
}
END_TEST

START_TEST(steps_that_do_not_fit_a_workers_memory_end_the_start)
{
	sut_create(2);
	sut.script->worker_mode[1] = DOUBLE_STARVED;
	sut_start();
	ck_assert_int_eq(sut_wait(), 1);
	ck_assert(sut_logged("cannot start: worker 1 has not enough memory to load the pipeline's steps: raise "
			     "--worker-memory"));
	ck_assert(sut_nobody_left());
}
END_TEST

/* The pid of a process of slot 0 by its number; 0: none. */
static pid_t pid_of(uint32_t number)
{
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		struct control_life *life = &sut.sidecar.control.control->slot[0].life[i];
		if (atomic_load(&life->number) == number)
			return atomic_load(&life->pid);
	}
	return 0;
}

/* Sends a process of slot 0 a signal, once the supervisor has noted its pid. */
static void signal_process(uint32_t number, int signal)
{
	WAIT_UNTIL(pid_of(number) != 0);
	ck_assert_int_eq(kill(pid_of(number), signal), 0);
}

/* The same of slot 0. */
static bool waits(uint32_t number)
{
	return heir_waits(0, number);
}

/* How a process of slot 0 ended, as the others are told. */
static enum death_cause cause_of(uint32_t number)
{
	return control_death_cause(&sut.sidecar.control.control->slot[0], number);
}

START_TEST(an_heir_takes_over_with_all_that_is_in_the_memory)
{
	sut_serve(1);
	for (uint32_t number = 1; number <= 20; number++) {
		WAIT_UNTIL(sut_owned_by(0, number) && waits(number + 1));
		signal_process(number, SIGKILL);
		WAIT_UNTIL(sut_owned_by(0, number + 1));
		ck_assert_uint_eq(atomic_load(&sut_owner_life(0)->predecessor), number);
	}
	ck_assert_uint_eq(sut_generation(0), 1);
	ck_assert_uint_eq(SUP_COUNT(takeovers), 20);
	ck_assert_uint_eq(SUP_COUNT(memories_renewed), 0);
	ck_assert_uint_eq(SUP_COUNT(deaths_blamed), 0);
	WAIT_UNTIL(cause_of(20) == DEATH_OUTSIDE);
	ck_assert_int_eq(cause_of(3), DEATH_UNKNOWN); /* long ago */
	sut_stop();
}
END_TEST

START_TEST(a_dead_heir_is_replaced_and_the_owner_stays)
{
	sut_serve(1);
	WAIT_UNTIL(waits(2));
	pid_t owner = pid_of(1);
	signal_process(2, SIGKILL);
	WAIT_UNTIL(waits(3));
	ck_assert_int_eq(sut_worker_pid(0), owner);
	ck_assert(sut_logged("heir 0 (pid"));
	/* Both at once: somebody new takes over what there is. */
	signal_process(3, SIGKILL);
	kill(owner, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 4));
	ck_assert_uint_eq(sut_generation(0), 1);
	ck_assert_uint_eq(atomic_load(&sut_owner_life(0)->predecessor), 1);
	sut_stop();
}
END_TEST

START_TEST(what_the_code_did_is_told_from_what_came_from_outside)
{
	sut_serve(1);
	WAIT_UNTIL(waits(2));
	signal_process(1, SIGSEGV);
	WAIT_UNTIL(sut_owned_by(0, 2) && waits(3) && cause_of(1) == DEATH_CODE);
	sut_stop();
	ck_assert_uint_eq(SUP_COUNT(deaths_blamed), 1);
	ck_assert_int_eq(cause_of(2), DEATH_ORDERED);
}
END_TEST

START_TEST(an_heir_that_is_not_woken_costs_the_slot_its_memory)
{
	sut_serve(2);
	WAIT_UNTIL(waits(2));
	memset(sut.sidecar.slots[0].owner, 0x5a, sizeof(pthread_mutex_t));
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_generation(0) == 2 && sut_owned_by(0, 3));
	ck_assert(sut_logged("its sessions fail, and it begins again on fresh memory"));
	ck_assert_uint_eq(SUP_COUNT(memories_renewed), 1);
	ck_assert_uint_eq(sut_generation(1), 1);
	/* And the fresh memory is as good as the first. */
	uint32_t owner = sut_owner(0);
	WAIT_UNTIL(waits(owner + 1));
	signal_process(owner, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, owner + 1));
	ck_assert_uint_eq(sut_generation(0), 2);
	sut_stop();
}
END_TEST

/* Who is stopped is not woken by a death; another one is. */
START_TEST(an_heir_that_is_stopped_does_not_keep_the_slot)
{
	sut_serve(1);
	WAIT_UNTIL(waits(2));
	signal_process(2, SIGSTOP);
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 3));
	ck_assert_uint_eq(sut_generation(0), 1);
	ck_assert(sut_logged("is stopped, and its turn has come: it is killed"));
	sut_stop();
}
END_TEST

START_TEST(an_heir_that_never_loads_is_killed)
{
	sut_create(1);
	sut.sidecar.config.start_timeout_ms = 3000; /* the start itself has to be done in it */
	sut.sidecar.config.restart_delay_ms = 1;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	sut.script->worker_mode[0] = DOUBLE_SILENT;
	signal_process(2, SIGKILL);
	WAIT_UNTIL(sut_logged("has not loaded its code in time (--start-timeout)"));
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	WAIT_UNTIL(waits(4) || waits(5) || waits(6));
	ck_assert_uint_eq(sut_owner(0), 1);
	sut_stop();
}
END_TEST

/* Owner after owner dies within microseconds: the supervisor learns of several at a time, and takes none for a thief. */
START_TEST(owners_that_follow_quickly_are_told_apart)
{
	sut_create(1);
	sut.sidecar.config.restart_delay_ms = 1;
	sut.sidecar.config.restart_delay_max_ms = 1;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	for (int round = 0; round < 5; round++) {
		uint32_t owner = sut_owner(0);
		WAIT_UNTIL(sut_owned_by(0, owner) && waits(owner + 1) && pid_of(owner + 1) != 0);
		kill(sut.supervisor, SIGSTOP);
		signal_process(owner, SIGKILL);
		WAIT_UNTIL(atomic_load(&control_worker(&sut.sidecar.control, 0)->owner) == owner + 1);
		signal_process(owner + 1, SIGKILL);
		kill(sut.supervisor, SIGCONT);
		WAIT_UNTIL(sut_owned_by(0, owner + 2) && waits(owner + 3));
	}
	ck_assert_uint_eq(sut_generation(0), 1);
	ck_assert_uint_ge(SUP_COUNT(takeovers), 5); /* one that is killed as it announces itself does not count */
	ck_assert_uint_eq(SUP_COUNT(memories_renewed), 0);
	sut_stop();
}
END_TEST

START_TEST(two_owners_at_once_cost_the_slot_its_memory)
{
	sut_create(1);
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	sut.script->worker_mode[0] = DOUBLE_GREEDY;
	signal_process(2, SIGKILL);
	WAIT_UNTIL(sut_logged("two of its processes took it at once"));
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	WAIT_UNTIL(sut_generation(0) >= 2 && sut_owned_by(0, 3));
	sut_stop();
}
END_TEST

START_TEST(memory_that_cannot_be_true_is_given_up)
{
	sut_create(1);
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	sut.script->worker_mode[0] = DOUBLE_DAMAGED;
	signal_process(2, SIGKILL);
	WAIT_UNTIL(waits(3));
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_generation(0) == 2 && sut_owned_by(0, 4));
	ck_assert(sut_logged("slot 0: its memory cannot be true; its sessions fail"));
	ck_assert_int_eq(cause_of(3), DEATH_DAMAGE);
	sut_stop();
}
END_TEST

START_TEST(a_worker_that_used_up_its_memory_fails_its_slot)
{
	sut_create(1);
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	sut.script->worker_mode[0] = DOUBLE_STARVED;
	signal_process(2, SIGKILL);
	WAIT_UNTIL(waits(3));
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_generation(0) == 2 && sut_owned_by(0, 4));
	ck_assert(sut_logged("slot 0: its worker had used up its memory; its sessions fail"));
	ck_assert(sut_logged("exit code 8 (it had used up its memory)"));
	ck_assert_int_eq(cause_of(3), DEATH_MEMORY);
	ck_assert_uint_eq(SUP_COUNT(deaths_blamed), 0);
	sut_stop();
}
END_TEST

START_TEST(memory_that_one_after_the_other_dies_of_is_given_up)
{
	sut_create(1);
	sut.sidecar.config.restart_delay_ms = 1;
	sut.sidecar.config.restart_delay_max_ms = 30000;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	sut.script->worker_mode[0] = DOUBLE_BRIEF;
	signal_process(2, SIGKILL);
	WAIT_UNTIL(waits(3));
	signal_process(1, SIGSEGV);
	WAIT_UNTIL(sut_logged("one worker after the other dies before it has done anything"));
	ck_assert_uint_ge(SUP_COUNT(restarts_throttled), 3);
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	WAIT_UNTIL(sut_generation(0) >= 2);
	uint32_t owner = sut_owner(0);
	WAIT_UNTIL(sut_owner(0) > owner && sut_owned_by(0, owner + 1));
	sut_stop();
}
END_TEST

START_TEST(who_does_not_get_on_is_killed_and_blamed)
{
	sut_create(2);
	sut.sidecar.config.unit_wall_limit_ms = 400;
	sut.script->frames[0] = 7; /* it says that it is at work, and is for good */
	sut_start();
	WAIT_UNTIL(sut_owned_by(0, 2) && cause_of(1) == DEATH_WATCHDOG);
	ck_assert(sut_logged("has been at one unit of work for"));
	ck_assert(sut_logged("and --unit-wall-limit is 400ms: it is killed"));
	ck_assert_uint_ge(SUP_COUNT(watchdog_kills), 1);
	ck_assert_uint_ge(SUP_COUNT(deaths_blamed), 1);
	ck_assert_uint_eq(sut_owner(1), 1); /* it sleeps, and may for days */
	sut_stop();
}
END_TEST

START_TEST(who_was_rung_for_and_does_not_wake_up_is_killed)
{
	sut_create(1);
	sut.sidecar.config.unit_wall_limit_ms = 400;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	WAIT_UNTIL(atomic_load(&sut.sidecar.control.control->watching) == 0);
	atomic_store(&sut.sidecar.control.front->slot[0].rung_ns, clock_ns());
	doorbell_ring(sut.sidecar.control.supervisor_bell);
	WAIT_UNTIL(sut_owned_by(0, 2) && cause_of(1) == DEATH_WATCHDOG);
	/* Whoever has fallen asleep since is left alone, and the supervisor goes to sleep, too. */
	WAIT_UNTIL(atomic_load(&sut.sidecar.control.control->watching) == 0);
	ck_assert_uint_eq(sut_owner(0), 2);
	sut_stop();
}
END_TEST

/* A machine that stands still for an hour counts for two looks; a worker that sleeps through as many as the limit has is killed. */
START_TEST(who_is_looked_at_late_is_not_killed_for_it)
{
	static struct supervisor supervisor;
	static struct sidecar sidecar = {.config = {.slots = 1, .unit_wall_limit_ms = 800}};
	const uint64_t look = 100000000, hour = UINT64_C(3600) * 1000000000;
	struct keeper *keeper = &supervisor.keepers[0];
	struct birth birth = {.number = 1};
	uint64_t now = clock_ns();
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	WAIT_UNTIL(process_is_in_state(pid, "S"));
	ck_assert_int_eq(control_create(&sidecar.control, 1, 1, 1), 0);
	supervisor.sidecar = &sidecar;
	keepers_init(&supervisor);
	keeper->lives[0].state = CHILD_UP;
	keeper->lives[0].pid = pid;
	keeper->lives[0].number = 1;
	keeper->owner = &keeper->lives[0];
	life_begin(&control_worker(&sidecar.control, 0)->lives[0], &birth, pid);
	watchdog_turn(&supervisor, now);         /* begins to look, */
	watchdog_turn(&supervisor, now += look); /* sees it, */
	watchdog_turn(&supervisor, now += hour); /* and comes late */
	for (int i = 0; i < 6; i++) {
		ck_assert(!keeper->lives[0].killed);
		watchdog_turn(&supervisor, now += look);
	}
	ck_assert(!keeper->lives[0].killed);
	watchdog_turn(&supervisor, now + look);
	ck_assert(keeper->lives[0].killed);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	control_destroy(&sidecar.control);
}
END_TEST

START_TEST(the_same_later_is_no_end_but_waits)
{
	sut_create(1);
	sut.sidecar.config.restart_delay_ms = 1;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	sut.script->worker_mode[0] = DOUBLE_REFUSE;
	sut.script->front_mode = DOUBLE_REFUSE;
	kill(sut_worker_pid(0), SIGKILL);
	kill(sut_front_pid(), SIGKILL);
	WAIT_UNTIL(sut_logged("exit code 4") && sut_logged("exit code 3"));
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	sut.script->front_mode = DOUBLE_GOOD;
	WAIT_UNTIL(sut_owned_by(0, 2));
	WAIT_UNTIL(atomic_load(&sut.sidecar.control.front->state) == FRONT_SERVING);
	sut_stop();
}
END_TEST

START_TEST(a_start_that_never_ends_fails)
{
	sut_create(2);
	sut.script->worker_mode[1] = DOUBLE_SILENT;
	sut.sidecar.config.start_timeout_ms = 100;
	sut_start();
	ck_assert_int_eq(sut_wait(), 1);
	ck_assert(sut_logged("--start-timeout"));
	ck_assert(sut_nobody_left());
}
END_TEST

START_TEST(a_stop_is_bounded)
{
	sut_create(1);
	sut.script->front_mode = DOUBLE_STUBBORN;
	sut.script->worker_mode[0] = DOUBLE_STUBBORN;
	sut.sidecar.config.drain_timeout_ms = 0;
	sut.sidecar.config.stop_grace_ms = 1;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	sut_stop();
	ck_assert(sut_logged("front (pid"));
	ck_assert(sut_logged("did not leave in time; it is killed"));
	ck_assert(sut_logged("died of our signal 9"));
}
END_TEST

START_TEST(a_second_signal_hurries)
{
	sut_create(2);
	sut.script->front_mode = DOUBLE_STUBBORN;
	sut.sidecar.config.drain_timeout_ms = 3600000;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	kill(sut.supervisor, SIGINT);
	WAIT_UNTIL(sut_logged("stopping (signal 2"));
	kill(sut.supervisor, SIGINT);
	ck_assert_int_eq(sut_wait(), 0);
	ck_assert(sut_logged("stopping at once"));
	ck_assert(sut_nobody_left());
}
END_TEST

START_TEST(a_signal_to_the_whole_group_is_an_orderly_stop_all_the_same)
{
	sut_serve(2);
	kill(sut_front_pid(), SIGINT);
	kill(sut_worker_pid(0), SIGTERM);
	kill(sut_worker_pid(1), SIGHUP);
	kill(sut.supervisor, SIGINT);
	ck_assert_int_eq(sut_wait(), 0);
	ck_assert(sut_logged("front (pid") && !sut_logged("died of"));
	ck_assert(sut_nobody_left());
}
END_TEST

START_TEST(a_terminal_that_goes_stops_it_unless_started_by_nohup)
{
	sut_create(1);
	signal(SIGHUP, SIG_IGN);
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	kill(sut.supervisor, SIGHUP);
	kill(sut.supervisor, SIGTERM);
	ck_assert_int_eq(sut_wait(), 0);
	ck_assert(!sut_logged("signal 1,") && sut_logged("signal 15,") && !sut_logged("stopping at once"));
	ck_assert_int_eq(unlink(sut.log), 0);
	signal(SIGHUP, SIG_DFL);
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	kill(sut.supervisor, SIGHUP);
	ck_assert_int_eq(sut_wait(), 0);
	ck_assert(sut_logged("signal 1,"));
}
END_TEST

START_TEST(a_stop_in_the_middle_of_the_start_is_a_stop)
{
	sut_create(1);
	sut.script->worker_mode[0] = DOUBLE_SILENT;
	sut.sidecar.config.stop_grace_ms = 1;
	sut_start();
	WAIT_UNTIL(atomic_load(&sut.sidecar.control.control->slot[0].life[0].pid) != 0 && sut_front_pid() != 0);
	sut_stop();
}
END_TEST

/* Does as the front would: asks the supervisor for something, and rings. */
static void ask(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store(word, value);
	doorbell_ring(sut.sidecar.control.supervisor_bell);
}

START_TEST(the_front_gets_a_fresh_worker_when_it_asks)
{
	sut_serve(2);
	WAIT_UNTIL(sut_logged("serving pipeline"));
	ask(&sut.sidecar.control.front->slot[1].wanted_owner, 2);
	WAIT_UNTIL(sut_owned_by(1, 2));
	ck_assert(sut_logged("makes room for a fresh one"));
	ck_assert_uint_eq(SUP_COUNT(restarts_throttled), 0);
	/* One that asks for the impossible gets one fresh worker, not a storm of them. */
	ask(&sut.sidecar.control.front->slot[1].wanted_owner, UINT32_MAX);
	WAIT_UNTIL(sut_owned_by(1, 3));
	ask(&sut.sidecar.control.front->slot[0].wanted_owner, 2);
	WAIT_UNTIL(sut_owned_by(0, 2));
	ck_assert_uint_eq(sut_owner(1), 3);
	ck_assert_uint_eq(sut_generation(1), 1); /* what is in its memory stays */
	sut_stop();
}
END_TEST

START_TEST(a_fresh_worker_comes_even_when_the_old_one_will_not_leave)
{
	sut_create(1);
	sut.script->worker_mode[0] = DOUBLE_STUBBORN;
	sut.sidecar.config.stop_grace_ms = 1;
	sut.sidecar.config.heirs = 0;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	sut.script->worker_mode[0] = DOUBLE_GOOD;
	ask(&sut.sidecar.control.front->slot[0].wanted_owner, 2);
	WAIT_UNTIL(sut_owned_by(0, 2));
	ck_assert(sut_logged("did not leave in time"));
	sut_stop();
}
END_TEST

START_TEST(a_worker_that_damages_its_rings_is_killed)
{
	sut_serve(1);
	ask(&sut.sidecar.control.front->slot[0].damaged, 1);
	WAIT_UNTIL(sut_worker_ready(0, 2));
	ck_assert(sut_logged("has damaged its rings"));
	/* The word stays; the next worker is of another generation, and lives. */
	doorbell_ring(sut.sidecar.control.supervisor_bell);
	sut_stop();
	ck_assert_uint_eq(sut_generation(0), 2);
}
END_TEST

START_TEST(children_keep_only_what_is_theirs)
{
	sut_serve(2);
	WAIT_UNTIL(heir_waits(0, 2)); /* the last one of the slot has listed its own */
	ck_assert_ptr_nonnull(strstr(sut.script->fds, "bridge-arena-0"));
	ck_assert_ptr_nonnull(strstr(sut.script->fds, "bridge-owner-0"));
	ck_assert_ptr_null(strstr(sut.script->fds, "bridge-arena-1"));
	ck_assert_ptr_null(strstr(sut.script->fds, "bridge-channels-1"));
	ck_assert_ptr_null(strstr(sut.script->fds, "[signalfd]"));
	ck_assert_ptr_null(strstr(sut.script->fds, "[eventpoll]"));
	ck_assert_ptr_null(strstr(sut.script->fds, "[timerfd]"));
	ck_assert_ptr_null(strstr(sut.script->fds, "socket:"));
	ck_assert_ptr_null(strstr(proc_file(sut_worker_pid(0), "maps"), "bridge-owner-1"));
	sut_stop();
}
END_TEST

START_TEST(children_have_names_and_die_first_when_memory_is_out)
{
	sut_serve(1);
	int supervisor = atoi(proc_file(sut.supervisor, "oom_score_adj"));
	int front = atoi(proc_file(sut_front_pid(), "oom_score_adj"));
	int worker = atoi(proc_file(sut_worker_pid(0), "oom_score_adj"));
	ck_assert_str_eq(proc_file(sut_front_pid(), "comm"), "bridged-front\n");
	ck_assert_str_eq(proc_file(sut_worker_pid(0), "comm"), "bridged-w0\n");
	ck_assert_int_le(supervisor, front);
	ck_assert_int_le(front, worker);
	ck_assert(supervisor >= 900 || supervisor < worker);
	const char *limits = strstr(proc_file(sut_worker_pid(0), "limits"), "Max core file size");
	ck_assert_ptr_nonnull(limits);
	ck_assert_int_eq(atoi(limits + strlen("Max core file size")), 1);
	sut_stop();
}
END_TEST

/* Whether the supervisor sleeps through a while. */
static bool sleeps_on(void)
{
	const char *key = "\nvoluntary_ctxt_switches:";
	long before = atol(strstr(proc_file(sut.supervisor, "status"), key) + strlen(key));

	nanosleep(&(struct timespec){0, 300000000}, NULL);
	long after = atol(strstr(proc_file(sut.supervisor, "status"), key) + strlen(key));
	return after - before <= 1;
}

START_TEST(an_idle_supervisor_is_not_woken)
{
	sut_serve(4);
	for (uint32_t slot = 0; slot < 4; slot++)
		WAIT_UNTIL(heir_waits(slot, 2));
	WAIT_UNTIL(atomic_load(&sut.sidecar.control.control->watching) == 0);
	WAIT_UNTIL(sleeps_on()); /* the last heir rings when it has said that it waits */
	sut_stop();
}
END_TEST

/* ---- Templates ---- */

/* The template's pid, out of the log; 0: there is none yet. */
static pid_t template_pid(void)
{
	const char *key = "the template of code generation 1 (pid ";
	const char *found = strstr(sut_log(), key);

	return found == NULL ? 0 : atoi(found + strlen(key));
}

/* Starts with a step that a template is for. */
static void serve_with_template(uint32_t slots, int mode)
{
	sut_create(slots);
	sut.sidecar.descriptor = &double_python_descriptor;
	sut.script->template_mode = mode;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline"));
	for (uint32_t slot = 0; slot < slots; slot++)
		WAIT_UNTIL(heir_waits(slot, 2));
}

/* What a process of slot 0 has to be, whoever made it. */
static void check_child(uint32_t number)
{
	static const char key[] = "PPid:\t";

	WAIT_UNTIL(pid_of(number) != 0);
	pid_t pid = pid_of(number);
	const char *maps = proc_file(pid, "maps");
	ck_assert_ptr_nonnull(strstr(maps, "bridge-owner-0"));
	ck_assert_ptr_null(strstr(maps, "bridge-owner-1"));
	ck_assert_int_eq(atoi(strstr(proc_file(pid, "status"), key) + strlen(key)), sut.supervisor);
	ck_assert_int_eq(atoi(strstr(proc_file(pid, "limits"), "Max core file size") + strlen("Max core file size")),
			 1);
}

START_TEST(processes_out_of_a_template_are_children_like_the_others)
{
	serve_with_template(2, DOUBLE_GOOD);
	ck_assert_str_eq(proc_file(template_pid(), "comm"), "bridged-templ\n");
	ck_assert_ptr_null(strstr(proc_file(template_pid(), "maps"), "bridge-owner"));
	ck_assert_str_eq(proc_file(sut_worker_pid(0), "comm"), "bridged-w0\n");
	check_child(1);
	check_child(2);
	ck_assert_ptr_nonnull(strstr(sut.script->fds, "bridge-arena-0"));
	ck_assert_ptr_null(strstr(sut.script->fds, "bridge-arena-1"));
	ck_assert_ptr_null(strstr(sut.script->fds, "[signalfd]"));
	ck_assert_ptr_null(strstr(sut.script->fds, "socket:"));
	for (uint32_t number = 1; number <= 20; number++) {
		WAIT_UNTIL(sut_owned_by(0, number) && waits(number + 1));
		signal_process(number, SIGKILL);
	}
	WAIT_UNTIL(sut_owned_by(0, 21) && waits(22));
	WAIT_UNTIL(SUP_COUNT(template_forks) == 24);
	ck_assert_uint_eq(SUP_COUNT(templates), 1);
	sut_stop();
	ck_assert(!sut_logged("by itself"));
}
END_TEST

START_TEST(a_template_goes_with_its_supervisor)
{
	serve_with_template(2, DOUBLE_GOOD);
	kill(sut.supervisor, SIGKILL);
	ck_assert_int_eq(sut_wait(), 1000 + SIGKILL);
	WAIT_UNTIL(sut_nobody_left());
}
END_TEST

START_TEST(a_dead_template_costs_nothing_but_what_it_saved)
{
	serve_with_template(1, DOUBLE_GOOD);
	kill(template_pid(), SIGKILL);
	WAIT_UNTIL(sut_logged("each process of a slot loads the code of generation 1 by itself: the template (pid "));
	ck_assert(sut_logged(") died of signal 9 (Killed) after"));
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 2) && waits(3));
	check_child(3);
	ck_assert_uint_eq(SUP_COUNT(template_forks), 2);
	ck_assert_uint_eq(SUP_COUNT(templates), 0);
	sut_stop();
}
END_TEST

/* What becomes of templates, and what is said of them. */
static const struct {
	int mode;
	const char *words;
	uint32_t forks; /* that it made all the same */
} no_templates[] = {
    {DOUBLE_REFUSE, "generation 1 by itself: the double was told so", 0},
    {DOUBLE_EARLY, ") died of exit code 77", 0},
    {DOUBLE_DEAF, "by itself: the template has closed its end of the socket", 0},
    {DOUBLE_GREEDY, "by itself: threads have been started in it", 1},
};

START_TEST(who_is_no_good_as_a_template_is_done_without)
{
	serve_with_template(1, no_templates[_i].mode);
	ck_assert(sut_logged(no_templates[_i].words));
	check_child(1);
	check_child(2);
	WAIT_UNTIL(SUP_COUNT(templates) == 0);
	ck_assert_uint_eq(SUP_COUNT(template_forks), no_templates[_i].forks);
	ck_assert_uint_eq(SUP_COUNT(restarts_throttled), 0);
	sut_stop();
}
END_TEST

START_TEST(processes_that_die_before_they_have_a_slot_are_asked_for_again)
{
	serve_with_template(1, DOUBLE_GOOD);
	sut.script->spares_die = 2;
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 2) && waits(3));
	WAIT_UNTIL(SUP_COUNT(template_forks) == 3);
	sut.script->spares_die = 2; /* the ones before do not count any more */
	signal_process(2, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 3) && waits(4));
	WAIT_UNTIL(SUP_COUNT(template_forks) == 4);
	ck_assert(!sut_logged("by itself"));
	sut.script->spares_die = 1000;
	signal_process(3, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 4) && waits(5));
	ck_assert(sut_logged("by itself: processes that the template made have died before they had a slot"));
	ck_assert_int_eq(sut.script->spares_die, 1000 - 3);
	check_child(5);
	WAIT_UNTIL(SUP_COUNT(template_forks) == 4);
	ck_assert_uint_eq(SUP_COUNT(restarts_throttled), 0);
	sut_stop();
}
END_TEST

/* As one does that sleeps in the kernel: what another process traces is not its parent's to reap until that lets go of it. */
START_TEST(a_template_that_does_not_come_to_its_end_is_not_waited_for)
{
	serve_with_template(1, DOUBLE_GOOD);
	pid_t template = template_pid();
	ck_assert_int_eq(ptrace(PTRACE_SEIZE, template, NULL, NULL), 0);
	kill(template, SIGKILL);
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 2) && waits(3));
	ck_assert(sut_logged("by itself: the template is dying, but does not come to its end"));
	ck_assert_uint_eq(SUP_COUNT(template_forks), 2);
	ck_assert_uint_eq(SUP_COUNT(templates), 1);
	ck_assert_int_eq(waitpid(template, NULL, __WALL), template);
	WAIT_UNTIL(SUP_COUNT(templates) == 0);
	sut_stop();
}
END_TEST

START_TEST(a_template_that_never_loads_fails_the_start_like_a_worker)
{
	sut_create(1);
	sut.sidecar.descriptor = &double_python_descriptor;
	sut.sidecar.config.start_timeout_ms = 200;
	sut.script->template_mode = DOUBLE_SILENT;
	sut_start();
	ck_assert_int_eq(sut_wait(), 1);
	ck_assert(sut_logged("cannot start: not all processes were ready within 200ms (--start-timeout)"));
	WAIT_UNTIL(sut_nobody_left());
}
END_TEST

START_TEST(a_template_that_does_not_answer_is_killed)
{
	sut_create(1);
	sut.sidecar.descriptor = &double_python_descriptor;
	sut.sidecar.config.start_timeout_ms = 4000;
	sut_start();
	WAIT_UNTIL(sut_logged("serving pipeline") && waits(2));
	kill(template_pid(), SIGSTOP);
	signal_process(1, SIGKILL);
	WAIT_UNTIL(sut_owned_by(0, 2) && waits(3));
	ck_assert(sut_logged("by itself: the template does not answer"));
	WAIT_UNTIL(SUP_COUNT(templates) == 0);
	sut_stop();
}
END_TEST

static Suite *supervisor_suite(void)
{
	Suite *suite = suite_create("supervisor");
	TCase *tests = tcase_create("processes");

	tcase_add_checked_fixture(tests, NULL, sut_clean);
	tcase_add_test(tests, last_words_stay_until_they_are_read);
	tcase_add_test(tests, starts_serves_and_stops_in_order);
	tcase_add_test(tests, a_killed_worker_is_replaced_and_the_others_stay);
	tcase_add_test(tests, a_killed_front_is_replaced_and_the_workers_stay);
	tcase_add_test(tests, who_dies_before_its_first_work_waits_longer_each_time);
	tcase_add_test(tests, children_go_with_their_supervisor);
	tcase_add_test(tests, an_address_that_cannot_be_bound_ends_the_start);
	tcase_add_test(tests, steps_that_cannot_be_opened_end_the_start);
	tcase_add_test(tests, steps_that_do_not_fit_a_workers_memory_end_the_start);
	tcase_add_test(tests, an_heir_takes_over_with_all_that_is_in_the_memory);
	tcase_add_test(tests, a_dead_heir_is_replaced_and_the_owner_stays);
	tcase_add_test(tests, what_the_code_did_is_told_from_what_came_from_outside);
	tcase_add_test(tests, an_heir_that_is_not_woken_costs_the_slot_its_memory);
	tcase_add_test(tests, an_heir_that_is_stopped_does_not_keep_the_slot);
	tcase_add_test(tests, an_heir_that_never_loads_is_killed);
	tcase_add_test(tests, owners_that_follow_quickly_are_told_apart);
	tcase_add_test(tests, two_owners_at_once_cost_the_slot_its_memory);
	tcase_add_test(tests, memory_that_cannot_be_true_is_given_up);
	tcase_add_test(tests, a_worker_that_used_up_its_memory_fails_its_slot);
	tcase_add_test(tests, memory_that_one_after_the_other_dies_of_is_given_up);
	tcase_add_test(tests, who_does_not_get_on_is_killed_and_blamed);
	tcase_add_test(tests, who_was_rung_for_and_does_not_wake_up_is_killed);
	tcase_add_test(tests, who_is_looked_at_late_is_not_killed_for_it);
	tcase_add_test(tests, the_same_later_is_no_end_but_waits);
	tcase_add_test(tests, a_start_that_never_ends_fails);
	tcase_add_test(tests, a_stop_is_bounded);
	tcase_add_test(tests, a_second_signal_hurries);
	tcase_add_test(tests, a_signal_to_the_whole_group_is_an_orderly_stop_all_the_same);
	tcase_add_test(tests, a_terminal_that_goes_stops_it_unless_started_by_nohup);
	tcase_add_test(tests, a_stop_in_the_middle_of_the_start_is_a_stop);
	tcase_add_test(tests, the_front_gets_a_fresh_worker_when_it_asks);
	tcase_add_test(tests, a_fresh_worker_comes_even_when_the_old_one_will_not_leave);
	tcase_add_test(tests, a_worker_that_damages_its_rings_is_killed);
	tcase_add_test(tests, children_keep_only_what_is_theirs);
	tcase_add_test(tests, children_have_names_and_die_first_when_memory_is_out);
	tcase_add_test(tests, an_idle_supervisor_is_not_woken);
	tcase_add_test(tests, processes_out_of_a_template_are_children_like_the_others);
	tcase_add_test(tests, a_template_goes_with_its_supervisor);
	tcase_add_test(tests, a_dead_template_costs_nothing_but_what_it_saved);
	tcase_add_loop_test(tests, who_is_no_good_as_a_template_is_done_without, 0,
			    sizeof(no_templates) / sizeof(*no_templates));
	tcase_add_test(tests, processes_that_die_before_they_have_a_slot_are_asked_for_again);
	tcase_add_test(tests, a_template_that_does_not_come_to_its_end_is_not_waited_for);
	tcase_add_test(tests, a_template_that_never_loads_fails_the_start_like_a_worker);
	tcase_add_test(tests, a_template_that_does_not_answer_is_killed);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(supervisor_suite)
