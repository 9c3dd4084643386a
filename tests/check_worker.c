/*
 * Real worker processes on a slot memory that the test made: started, ordered, killed and replaced. The test is supervisor
 * and front. Nothing here waits by time: doorbells, exits and words that change say when to go on.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/rig.h"

#include "tests/check_main.h"

static struct rig rig;

/* A slot memory, and a front that claims to sleep, so that the worker rings for each answer. */
static void make(const char *program)
{
	rig_init(&rig);
	rig.generation = 0;
	if (program != NULL)
		spec_add(rig_segment(&rig), STEP_map, "program", program, NULL);
	else
		rig_segment(&rig);
	rig_make(&rig);
	atomic_store(&rig.sidecar.control.front->sleeps, 1);
}

static struct birth birth; /* of the last worker started */

/* What the supervisor says of a process of the slot. */
static struct control_life *life_words(uint32_t number)
{
	return &rig.sidecar.control.control->slot[0].life[number % LIVES_MAX];
}

/* Another process of the slot, on the memory generation that there is. */
static pid_t start_heir(enum order order)
{
	struct control_slot *control = &rig.sidecar.control.control->slot[0];
	uint32_t number = birth.number + 1;
	pid_t pid;

	atomic_store(&control->generation, rig.generation);
	birth = (struct birth){.place = number % LIVES_MAX, .number = number, .generation = rig.generation};
	atomic_store(&life_words(number)->number, number);
	atomic_store(&life_words(number)->order, order);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		worker_main(&rig.sidecar, &birth);
	}
	atomic_store(&life_words(number)->pid, pid);
	return pid;
}

/* The next worker of the slot, on a new generation of its memory. */
static pid_t start_worker(enum order order)
{
	rig.generation++;
	return start_heir(order);
}

/* How far a process has come. */
static enum life_state state_of(uint32_t number)
{
	struct life *life = &control_worker(&rig.sidecar.control, 0)->lives[number % LIVES_MAX];

	return atomic_load(&life->number) == number ? (enum life_state)atomic_load(&life->state) : LIFE_NONE;
}

/* Blocks until a doorbell rings. */
static void await_bell(int fd)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	uint64_t rings;

	while (poll(&wait, 1, -1) < 1)
		;
	ck_assert_int_eq(read(fd, &rings, sizeof(rings)), sizeof(rings));
}

/* Blocks until the last worker started says ready. */
static void await_ready(void)
{
	struct worker_page *page = control_worker(&rig.sidecar.control, 0);

	while (atomic_load(&page->ready_generation) != rig.generation)
		await_bell(rig.sidecar.control.supervisor_bell);
	ck_assert_uint_eq(atomic_load(&page->lives[birth.place].frames_done), 0);
}

/* Wakes the worker, as the front does it. */
static void kick(void)
{
	if (atomic_load(&rig.front.channels->worker_sleeps))
		doorbell_ring(rig.front.worker_bell);
}

/* Blocks until a channel has an answer, and takes it. */
static struct answer await_answer(uint32_t channel)
{
	struct answer answer;

	while (!rig_try_take(&rig, channel, &answer))
		await_bell(rig.sidecar.control.front_bell);
	kick();
	return answer;
}

/* How a worker left: its exit code, or the negative signal. */
static int await_exit(pid_t pid)
{
	siginfo_t end;
	int status;

	ck_assert_int_eq(waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT), 0);
	for (uint32_t i = 0; i < LIVES_MAX; i++) { /* as the supervisor does it: before the pid can be another's */
		if (atomic_load(&life_words(i)->pid) == pid)
			atomic_store(&life_words(i)->pid, 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Tells the worker to leave and checks that it does. */
static void stop_worker(pid_t pid)
{
	for (uint32_t i = 0; i < LIVES_MAX; i++)
		atomic_store(&life_words(i)->order, ORDER_STOP);
	doorbell_ring(rig.front.worker_bell);
	ck_assert_int_eq(await_exit(pid), 0);
}

/* A session on a channel of the worker that is up. */
static void open_session(uint32_t channel)
{
	FlinkBridge__Open open = rig_open_message();
	struct answer answer;

	rig_open_channel(&rig, channel, 0);
	rig_send_open(&rig, channel, &open);
	kick();
	answer = await_answer(channel);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_OPEN_ACK);
	answer_free(&answer);
}

/* One batch of one record there and back. */
static void ping(uint32_t channel, uint64_t seq)
{
	struct answer answer;

	rig_batch(&rig, channel, "1", NULL);
	kick();
	answer = await_answer(channel);
	answer_results(&answer, seq, 1, true);
	answer_free(&answer);
}

START_TEST(a_worker_starts_serves_and_leaves)
{
	pid_t pid;

	make(". + 1");
	pid = start_worker(ORDER_RUN);
	await_ready();
	open_session(1);
	ping(1, 2);
	rig_close(&rig, 1);
	kick();
	struct answer answer = await_answer(1);
	ck_assert_uint_eq(answer.frame.kind, FRAME_END);
	answer_free(&answer);
	rig_close_channel(&rig, 1);
	kick();
	while (!rig_free_channel(&rig, 1))
		await_bell(rig.sidecar.control.front_bell);
	stop_worker(pid);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_step_that_does_not_open_is_told_by_the_exit_code)
{
	make("this is no program");
	ck_assert_int_eq(await_exit(start_worker(ORDER_RUN)), EXIT_CHAIN);
	rig_stop(&rig);
}
END_TEST

/* Waits until a process has come so far. */
static void await_state(uint32_t number, enum life_state state)
{
	while (state_of(number) < state)
		await_bell(rig.sidecar.control.supervisor_bell);
}

/* Whoever gets the slot and is not meant to run leaves it as it was, and the next one has it. */
START_TEST(an_heir_that_is_not_meant_leaves_the_slot_to_the_next)
{
	pid_t owner, unmeant, next;

	make(NULL);
	owner = start_worker(ORDER_RUN);
	await_ready();
	unmeant = start_heir(ORDER_STOP);
	await_state(2, LIFE_WAITING);
	kill(owner, SIGKILL);
	ck_assert_int_eq(await_exit(unmeant), EXIT_UNMEANT);
	ck_assert_int_eq(await_exit(owner), -SIGKILL);
	next = start_heir(ORDER_RUN);
	await_state(3, LIFE_READY);
	ck_assert_uint_eq(atomic_load(&control_worker(&rig.sidecar.control, 0)->lives[birth.place].predecessor), 1);
	open_session(1);
	ping(1, 2);
	stop_worker(next);
	rig_stop(&rig);
}
END_TEST

/* A thread that writes a word of the arena for as long as it may. */
static void *write_on(void *word)
{
	for (;;)
		atomic_fetch_add((_Atomic uint64_t *)word, 1);
	return NULL;
}

/* An owner that is no worker of ours, but what user code may make of one: it says that it owns the slot, and then its main thread
 * leaves while another writes on (writes), or it has a child that lives on. */
static pid_t start_strange_owner(bool writes, pid_t *child)
{
	struct slot_memory *memory = &rig.sidecar.slots[0];
	uint32_t number = ++birth.number;
	int ends[2];
	pid_t pid;

	rig.generation++;
	atomic_store(&rig.sidecar.control.control->slot[0].generation, rig.generation);
	atomic_store(&life_words(number)->number, number);
	ck_assert_int_eq(pipe(ends), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid > 0) {
		atomic_store(&life_words(number)->pid, pid);
		ck_assert_int_eq(read(ends[0], child, sizeof(*child)), sizeof(*child));
		close(ends[0]);
		close(ends[1]);
		return pid;
	}
	pthread_t thread;
	struct worker_page *page = control_worker(&rig.sidecar.control, 0);
	if (slot_attach_worker(memory) != 0 || slot_wait(memory, 10000) != SLOT_FREE ||
	    slot_own(memory, SLOT_FREE) != 0)
		_exit(99);
	atomic_store(&page->owner, number);
	*child = writes ? 0 : fork();
	if (!writes && *child == 0) {
		for (;;)
			pause();
	}
	/* At its very end, where nothing is. */
	_Atomic uint64_t *word = (_Atomic uint64_t *)((uint8_t *)memory->arena + rig.sizes.arena - 8);
	if (writes && pthread_create(&thread, NULL, write_on, word) != 0)
		_exit(99);
	while (writes && atomic_load(word) == 0) /* the heir may end that thread before it ever ran */
		sched_yield();
	if (write(ends[1], child, sizeof(*child)) != sizeof(*child))
		_exit(99);
	if (!writes) {
		for (;;)
			pause();
	}
	syscall(SYS_exit, 0); /* this thread alone */
	_exit(99);
}

/* The word that such a thread writes. */
static uint64_t written(void)
{
	uint64_t word;

	ck_assert_int_eq(pread(rig.sidecar.slots[0].arena_fd, &word, sizeof(word), (off_t)(rig.sizes.arena - 8)),
			 sizeof(word));
	return word;
}

/* The kernel gives the mutex away when the main thread leaves, however much its siblings do. */
START_TEST(a_main_thread_that_leaves_while_others_write_is_seen_out)
{
	pid_t strange, heir, none;

	make(NULL);
	strange = start_strange_owner(true, &none);
	uint32_t number = birth.number;
	heir = start_heir(ORDER_RUN);
	await_state(number + 1, LIFE_READY);
	uint64_t word = written();
	ck_assert_uint_gt(word, 0);
	ck_assert_uint_eq(atomic_load(&control_worker(&rig.sidecar.control, 0)->lives[birth.place].found_writing), 1);
	open_session(1);
	ping(1, 2);
	ck_assert_uint_eq(written(), word);
	ck_assert_int_eq(await_exit(strange), -SIGKILL);
	stop_worker(heir);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_child_of_user_code_that_lives_on_is_in_nobodys_way)
{
	pid_t strange, heir, child;

	make(NULL);
	strange = start_strange_owner(false, &child);
	uint32_t number = birth.number;
	heir = start_heir(ORDER_RUN);
	await_state(number + 1, LIFE_WAITING);
	kill(strange, SIGKILL);
	await_state(number + 1, LIFE_READY);
	open_session(1);
	ping(1, 2);
	ck_assert_int_eq(kill(child, 0), 0);
	kill(child, SIGKILL);
	ck_assert_int_eq(await_exit(strange), -SIGKILL);
	stop_worker(heir);
	rig_stop(&rig);
}
END_TEST

/* Each message finds the worker looking, asleep, or about to be: a wake-up that gets lost would hang here. */
START_TEST(no_wake_up_is_lost)
{
	struct worker_counters *counters;
	pid_t pid;

	make(NULL);
	rig.sidecar.config.worker_spin_us = _i == 0 ? 20 : 0;
	pid = start_worker(ORDER_RUN);
	await_ready();
	open_session(1);
	for (uint64_t seq = 2; seq < 2000; seq++)
		ping(1, seq);
	counters = &control_worker(&rig.sidecar.control, 0)->counters;
	ck_assert_uint_eq(counter_read(&counters->frames), 1999);
	stop_worker(pid);
	rig_stop(&rig);
}
END_TEST

/* Once asleep it stays so: no time limit of its own wakes it. */
START_TEST(an_idle_worker_sleeps)
{
	struct worker_counters *counters;
	uint64_t sleeps;
	pid_t pid;

	make(NULL);
	pid = start_worker(ORDER_RUN);
	await_ready();
	counters = &control_worker(&rig.sidecar.control, 0)->counters;
	while (!atomic_load(&rig.front.channels->worker_sleeps) || counter_read(&counters->sleeps) == 0)
		sched_yield();
	sleeps = counter_read(&counters->sleeps);
	open_session(1);
	ck_assert_uint_ge(counter_read(&counters->sleeps), sleeps);
	ck_assert_uint_le(counter_read(&counters->sleeps), sleeps + 2);
	stop_worker(pid);
	rig_stop(&rig);
}
END_TEST

/* The front's channels of a slot whose worker died, freed once its successor is up. */
static void free_all_channels(void)
{
	for (uint32_t channel = 0; channel < RIG_CHANNELS; channel++) {
		struct worker_channel *own = &rig.front.channels->worker[channel];

		ck_assert_uint_eq(atomic_load(&own->request.head), 0);
		ck_assert_uint_eq(atomic_load(&own->response.tail), 0);
		channel_free(&rig.front, channel);
	}
}

/* Killed in the middle of anything, with frames on their way in and out: its successor starts clean and serves. */
START_TEST(a_killed_worker_is_replaced)
{
	srand(4711);
	make(NULL);
	for (int round = 0; round < 20; round++) {
		pid_t pid = start_worker(ORDER_RUN);
		struct answer answer;

		await_ready();
		if (round > 0)
			free_all_channels();
		open_session(1);
		open_session(2);
		for (int i = 0; i < 30; i++) {
			rig_try_fill(&rig, 1, 100, 100);
			rig_try_fill(&rig, 2, 1000, 10);
		}
		kick();
		for (int answers = rand() % 40; answers > 0; answers--) {
			answer = await_answer(1 + (uint32_t)answers % 2);
			answer_free(&answer);
		}
		kill(pid, SIGKILL);
		ck_assert_int_eq(await_exit(pid), -SIGKILL);
		/* What it left is whole frames up to its tail. */
		while (rig_try_take(&rig, 1, &answer))
			answer_free(&answer);
	}
	rig_stop(&rig);
}
END_TEST

/* Its successor may be there before it is gone: it waits for the slot. */
START_TEST(a_successor_waits_for_the_owner_s_death)
{
	pid_t first, second;

	make(NULL);
	first = start_worker(ORDER_RUN);
	await_ready();
	second = start_worker(ORDER_RUN);
	rig.generation = 1; /* what this front still believes */
	open_session(1);
	ping(1, 2);
	rig.generation = 2;
	kill(first, SIGKILL);
	ck_assert_int_eq(await_exit(first), -SIGKILL);
	await_ready();
	free_all_channels();
	open_session(1);
	ping(1, 2);
	stop_worker(second);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_new_front_ends_all_sessions)
{
	struct worker_page *page;
	pid_t pid;

	make(NULL);
	pid = start_worker(ORDER_RUN);
	await_ready();
	page = control_worker(&rig.sidecar.control, 0);
	ck_assert_uint_eq(atomic_load(&page->front_generation), 1);
	open_session(1);
	ping(1, 2);
	rig_batch(&rig, 1, "1", NULL);
	atomic_store(&rig.sidecar.control.control->front_generation, 2);
	doorbell_ring(rig.front.worker_bell);
	while (atomic_load(&page->front_generation) != 2)
		await_bell(rig.sidecar.control.front_bell);
	ck_assert_uint_eq(counter_read(&page->counters.sessions_open), 0);
	free_all_channels();
	open_session(1);
	ping(1, 2);
	ck_assert_int_eq(kill(pid, 0), 0); /* it is the same process all along */
	stop_worker(pid);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_front_that_lies_costs_the_worker)
{
	pid_t pid;

	make(NULL);
	pid = start_worker(ORDER_RUN);
	await_ready();
	open_session(1);
	atomic_store(&rig.front.channels->front[1].request.tail, UINT64_C(1) << 40);
	ready_set(&rig.front.channels->ready_for_worker, 1);
	doorbell_ring(rig.front.worker_bell);
	ck_assert_int_eq(await_exit(pid), EXIT_DAMAGED);
	pid = start_worker(ORDER_RUN);
	await_ready();
	free_all_channels();
	open_session(1);
	ping(1, 2);
	stop_worker(pid);
	rig_stop(&rig);
}
END_TEST

static Suite *worker_suite(void)
{
	Suite *suite = suite_create("worker");
	TCase *test = tcase_create("worker");

	tcase_add_test(test, a_worker_starts_serves_and_leaves);
	tcase_add_test(test, a_step_that_does_not_open_is_told_by_the_exit_code);
	tcase_add_test(test, an_heir_that_is_not_meant_leaves_the_slot_to_the_next);
	tcase_add_test(test, a_main_thread_that_leaves_while_others_write_is_seen_out);
	tcase_add_test(test, a_child_of_user_code_that_lives_on_is_in_nobodys_way);
	tcase_add_loop_test(test, no_wake_up_is_lost, 0, 2);
	tcase_add_test(test, an_idle_worker_sleeps);
	tcase_add_test(test, a_killed_worker_is_replaced);
	tcase_add_test(test, a_successor_waits_for_the_owner_s_death);
	tcase_add_test(test, a_new_front_ends_all_sessions);
	tcase_add_test(test, a_front_that_lies_costs_the_worker);
	suite_add_tcase(suite, test);
	return suite;
}

CHECK_MAIN(worker_suite)
