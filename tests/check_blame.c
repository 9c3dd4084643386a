/*
 * Workers that die of what they are given, in processes of their own: the right input is named, its step's policy says what becomes of it,
 * and everything around it comes out as if nothing had happened. The test is front and supervisor: it says why each worker died.
 *
 * The steps are the test's own (its table of kinds stands in for the worker's).
 */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "shared/recording.h"
#include "tests/rig.h"

#include "tests/check_main.h"

enum { PENDING, SUMS, DUE }; /* the states that steps.def gives to batch */

/* What the test and its workers share beside the slot: what a step does changes with it, as with a clock. */
struct shared {
	_Atomic uint32_t loops;   /* a step is in its endless loop */
	_Atomic uint32_t calls;   /* inputs that the deadly step has had, ever */
	_Atomic uint32_t healthy; /* from now on nobody dies */
	_Atomic uint32_t greedy;  /* channel 1 is to have all state memory that there is */
};

static struct shared *shared;
static struct rig rig;

/* ---- Steps --------------------------------------------------------------------------------------------------------- */

static const char *const ways[] = {"segv", "abort", "exit", "loop", "fpe"};

/* Dies in the way that a payload says, if any: "segv 3". */
static void die_of(struct view payload)
{
	char text[32];

	snprintf(text, sizeof(text), "%.*s", (int)payload.size, (const char *)payload.data);
	if (atomic_load(&shared->healthy))
		return;
	if (strncmp(text, "segv", 4) == 0)
		raise(SIGSEGV);
	if (strncmp(text, "fpe", 3) == 0)
		raise(SIGFPE);
	if (strncmp(text, "abort", 5) == 0)
		abort();
	if (strncmp(text, "exit", 4) == 0)
		_exit(3);
	if (strncmp(text, "loop", 4) == 0) {
		atomic_store(&shared->loops, 1);
		for (;;)
			pause();
	}
}

/* "3*x" becomes x three times; of what begins with '!' the key is not where it says. */
static bool copies_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	struct run out;

	(void)step, (void)time, (void)failure;
	run_init(&out, run->scratch);
	for (uint32_t i = 0; i < run->count; i++) {
		struct record copy = run->records[i];
		int count = copy.payload.data[0] - '0';

		copy.payload.data += 2;
		copy.payload.size -= 2;
		if (copy.payload.data[0] == '!')
			copy.key = (struct view){(const uint8_t *)sizeof(copy), sizeof(copy)};
		while (count-- > 0)
			CHECK(run_push_copy(&out, &copy) != NULL);
	}
	run_trade(run, &out);
	run_deinit(&out);
	return true;
}

/* Counts the records of a key, and dies of some; "timer x" sets a timer that dies in the way x. "never the same" is another
 * input each time. */
static bool deadly_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	(void)time;
	for (uint32_t i = 0; i < run->count; i++) {
		struct record *record = &run->records[i];
		char text[64];
		uint64_t count = 0;
		void *bytes;
		bool is_new;

		atomic_fetch_add(&shared->calls, 1);
		if (step->segment->keyed) {
			step_key(step, record);
			if (state_edit(step->states[SUMS], sizeof(count), &bytes, &is_new) != STATE_OK)
				return failure_set(failure, record->origin, "no room");
			memcpy(&count, bytes, sizeof(count));
			count++;
			memcpy(bytes, &count, sizeof(count));
			if (strncmp((const char *)record->payload.data, "timer", 5) == 0 &&
			    state_timer_set(step->states[DUE], STATE_PROCESSING_TIME, 5000 + record->timestamp,
					    (struct view){record->payload.data + 6, record->payload.size - 6}) !=
				STATE_OK)
				return failure_set(failure, record->origin, "no room");
		}
		die_of(record->payload);
		snprintf(text, sizeof(text), "%.*s:%lu", (int)record->payload.size, (const char *)record->payload.data,
			 (unsigned long)count);
		record_set_bytes(record, scratch_copy(run->scratch, view_of(text)));
	}
	return true;
}

static bool deadly_fire(struct step *step, enum state_time domain, const struct state_timer *timer,
			struct step_time time, struct run *out, struct failure *failure)
{
	struct record *record = run_push(out);
	char text[64];

	(void)step, (void)domain, (void)time;
	die_of(timer->tag);
	snprintf(text, sizeof(text), "fired %.*s", (int)timer->tag.size, (const char *)timer->tag.data);
	record->payload = scratch_copy(out->scratch, view_of(text));
	return record->payload.data != NULL || failure_set(failure, 0, "no memory");
}

/* Makes each payload another one with every call. */
static bool fickle_process(struct step *step, struct run *run, struct step_time time, struct failure *failure)
{
	(void)step, (void)time, (void)failure;
	for (uint32_t i = 0; i < run->count; i++) {
		char text[64];

		snprintf(text, sizeof(text), "%.*s %u", (int)run->records[i].payload.size,
			 (const char *)run->records[i].payload.data, atomic_fetch_add(&shared->calls, 1));
		record_set_bytes(&run->records[i], scratch_copy(run->scratch, view_of(text)));
	}
	return true;
}

static const struct step_kind_ops copies_ops = {.process = copies_process};
static const struct step_kind_ops deadly_ops = {.process = deadly_process, .fire = deadly_fire};
static const struct step_kind_ops fickle_ops = {.process = fickle_process};

const struct step_kind_ops *const step_kinds[STEP_KIND_COUNT] = {
    [STEP_batch] = &deadly_ops, [STEP_flat_map] = &copies_ops, [STEP_map] = &fickle_ops};

/* ---- Workers ------------------------------------------------------------------------------------------------------- */

static uint32_t processes; /* of the slot, so far */
static uint32_t deaths;

/* Takes all memory that a channel can get, in blocks of the size that suspects are kept in. */
static void eat_state_memory(struct arena *arena, uint32_t channel)
{
	while (arena_alloc(arena, channel, SUSPECTS_MAX * sizeof(struct proven)) != 0)
		arena_commit(arena);
	arena_rollback(arena);
}

/* A worker of the slot: begins its words, takes the slot over and serves it until it dies. */
static void __attribute__((noreturn)) be_worker(uint32_t number)
{
	struct slot_memory *memory = &rig.sidecar.slots[0];
	const struct birth birth = {.place = number % LIVES_MAX, .number = number, .generation = 1};
	struct worker_page *page = control_worker(&rig.sidecar.control, 0);
	struct life *life = &page->lives[birth.place];

	signal(SIGSEGV, SIG_DFL);
	signal(SIGABRT, SIG_DFL);
	signal(SIGFPE, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CHECK(slot_attach_worker(memory) == 0 && slot_own(memory, slot_wait(memory, 60000)) == 0);
	life_begin(life, &birth, getpid());
	rig_own(&rig);
	rig.workspace.life = life;
	atomic_store(&life->predecessor, atomic_load(&page->owner));
	atomic_store(&page->owner, number);
	if (atomic_exchange(&shared->greedy, 0))
		eat_state_memory(&rig.workspace.arena, 1);
	serve_adopt(rig.serve);
	for (;;) {
		struct pollfd bell = {.fd = memory->worker_bell, .events = POLLIN};
		uint64_t rings;

		CHECK(serve_turn(rig.serve) != SERVE_DAMAGED);
		if (serve_is_wanted(rig.serve))
			continue;
		atomic_store(&memory->channels->worker_sleeps, 1);
		if (!serve_is_wanted(rig.serve) && poll(&bell, 1, -1) == 1)
			CHECK(read(bell.fd, &rings, sizeof(rings)) == sizeof(rings));
		atomic_store(&memory->channels->worker_sleeps, 0);
	}
}

static pid_t start_worker(void)
{
	pid_t pid;

	processes++;
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		be_worker(processes);
	return pid;
}

/* Says why a process died, as the supervisor does. */
static void publish(uint32_t number, enum death_cause cause)
{
	struct control_death *death = &rig.sidecar.control.control->slot[0].death[number % DEATHS_PUBLISHED];

	atomic_store(&death->number, 0);
	atomic_store(&death->cause, cause);
	atomic_store(&death->number, number);
	doorbell_ring(rig.front.worker_bell);
}

/* Sleeps until a worker has something for the front, or for a moment. */
static void wait_a_little(void)
{
	struct pollfd bell = {.fd = rig.sidecar.control.front_bell, .events = POLLIN};
	uint64_t rings;

	if (poll(&bell, 1, 5) == 1)
		ck_assert_int_eq(read(bell.fd, &rings, sizeof(rings)), sizeof(rings));
}

/* Whether a worker has ended, or is in an endless loop, which ends it; *cause is why. */
static bool has_died(pid_t pid, enum death_cause *cause)
{
	int status;

	if (atomic_exchange(&shared->loops, 0)) {
		ck_assert_int_eq(kill(pid, SIGKILL), 0);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		*cause = DEATH_WATCHDOG;
		return true;
	}
	*cause = DEATH_CODE;
	return waitpid(pid, &status, WNOHANG) == pid;
}

/* Takes the next answer; workers that die on the way are replaced, and it is said why they did: once their successor is there, so that it
 * has to wait for it. `outside`: whatever they died of, it is said that it was not their doing. */
static struct answer await_answer(uint32_t channel, pid_t *worker, bool outside)
{
	struct answer answer;
	enum death_cause cause;

	while (!rig_try_take(&rig, channel, &answer)) {
		if (has_died(*worker, &cause)) {
			uint32_t dead = processes;

			deaths++;
			ck_assert_uint_lt(deaths, 50);
			*worker = start_worker();
			publish(dead, outside ? DEATH_OUTSIDE : cause);
		} else {
			wait_a_little();
		}
	}
	doorbell_ring(rig.front.worker_bell);
	return answer;
}

/* ---- Rig ----------------------------------------------------------------------------------------------------------- */

static void setup(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(shared, MAP_FAILED);
	processes = deaths = 0;
	rig_init(&rig);
}

/* A segment of the deadly step with a policy, behind steps of other kinds. */
static void make(enum error_policy policy, bool keyed, const enum step_kind *before, size_t count)
{
	struct spec *spec = rig_segment(&rig);

	for (size_t i = 0; i < count; i++)
		spec_add(spec, before[i], "program", ".", NULL);
	spec_add(spec, STEP_batch, NULL);
	spec->segment.keyed = keyed;
	spec->segment.cut = "the pipeline ends here";
	spec->steps[count].name = "deadly";
	spec->steps[count].policy = policy;
	if (policy == ON_ERROR_DEAD_LETTER) {
		spec->routes[0] = "main";
		spec->routes[1] = "deadly.dead_letter";
		spec->segment.route_count = 2;
		spec->steps[count].dead_letter_route = 1;
	}
	rig_make(&rig);
	atomic_store(&rig.sidecar.control.front->sleeps, 1);
}

static void stop(pid_t worker)
{
	int status;

	kill(worker, SIGKILL);
	ck_assert_int_eq(waitpid(worker, &status, 0), worker);
	munmap(shared, sizeof(*shared));
	rig_stop(&rig);
}

/* Opens a session. */
static void open_session(uint32_t channel, pid_t *worker)
{
	FlinkBridge__Open open = rig_open_message();
	struct answer answer;

	rig_open_channel(&rig, channel, 0);
	rig_send_open(&rig, channel, &open);
	doorbell_ring(rig.front.worker_bell);
	answer = await_answer(channel, worker, false);
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_OPEN_ACK);
	answer_free(&answer);
}

/* Sends a batch of records, payloads separated by commas, keyed by their first letter. */
static void send_batch(uint32_t channel, const char *list)
{
	FlinkBridge__ToWorker message = rig_message(&rig, channel);
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__Record records[32], *pointers[32];
	char text[1024], *rest = text, *payload;

	snprintf(text, sizeof(text), "%s", list);
	while ((payload = strtok_r(rest, ",", &rest)) != NULL) {
		FlinkBridge__Record *record = &records[batch.n_records];

		flink_bridge__record__init(record);
		record->payload = (ProtobufCBinaryData){strlen(payload), (uint8_t *)payload};
		record->maybe_timestamp_case = FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP;
		record->timestamp = (int64_t)batch.n_records;
		record->maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
		record->key = (ProtobufCBinaryData){1, (uint8_t *)payload};
		record->key_hash = RIG_HASH;
		pointers[batch.n_records++] = record;
	}
	batch.records = pointers;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	rig_send(&rig, channel, &message);
	doorbell_ring(rig.front.worker_bell);
}

/* The value of a header. */
static const char *header_of(const FlinkBridge__Record *record, const char *name)
{
	for (size_t i = 0; i < record->n_headers; i++)
		if (strcmp(record->headers[i]->key, name) == 0)
			return record->headers[i]->value;
	return "";
}

/* Takes the Results of a message: payloads separated by commas, dead letters in brackets with how the worker died. */
static const char *take_results(uint32_t channel, pid_t *worker, bool outside)
{
	static char text[2048];
	size_t length = 0;
	bool last = false;

	text[0] = '\0';
	while (!last) {
		struct answer answer = await_answer(channel, worker, outside);

		ck_assert_uint_eq(answer.frame.kind, FRAME_ANSWER);
		if (answer.message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
			ck_abort_msg("an Error: %s", answer.message->error->message);
		last = answer.frame.flags == FRAME_LAST;
		for (size_t i = 0; i < answer.message->results->n_records; i++) {
			const FlinkBridge__Record *record = answer.message->results->records[i];

			length += (size_t)snprintf(text + length, sizeof(text) - length,
						   record->route == 0 ? "%s%.*s" : "%s[%.*s %s]", length > 0 ? "," : "",
						   (int)record->payload.len, (const char *)record->payload.data,
						   header_of(record, "bridge-error-cause"));
		}
		answer_free(&answer);
	}
	return text;
}

/* Takes the failure of a session, with words that it must have. */
static void take_crash(uint32_t channel, pid_t *worker, const char *step, uint32_t record, const char *words)
{
	struct answer answer = await_answer(channel, worker, false);

	while (answer.message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS) { /* of records before it */
		answer_free(&answer);
		answer = await_answer(channel, worker, false);
	}
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_ERROR);
	ck_assert_int_eq(answer.message->error->code, FLINK_BRIDGE__ERROR_CODE__ERROR_CRASH);
	ck_assert_str_eq(answer.message->error->step, step);
	ck_assert_uint_eq(answer.message->error->record, record);
	ck_assert_msg(strstr(answer.message->error->message, words) != NULL, "\"%s\" has no \"%s\"",
		      answer.message->error->message, words);
	answer_free(&answer);
	answer = await_answer(channel, worker, false);
	ck_assert_uint_eq(answer.frame.kind, FRAME_END);
	ck_assert_uint_eq(answer.code, GRPC_STATUS_INTERNAL);
	answer_free(&answer);
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

enum { WAYS = sizeof(ways) / sizeof(ways[0]), PLACES = 3, AROUND = 7 };

/* A batch of a few records of which one is deadly: the first, one in the middle, or the last. `expected` is what comes out, with
 * `instead` in its place. */
static void batch_around(const char *way, int place, const char *instead, char sent[256], char expected[256])
{
	int deadly = place == 0 ? 0 : place == 1 ? AROUND / 2 : AROUND - 1;
	size_t in = 0, out = 0;

	sent[0] = expected[0] = '\0';
	for (int i = 0; i < AROUND; i++) {
		const char *comma = i > 0 ? "," : "";
		if (i != deadly) {
			in += (size_t)snprintf(sent + in, 256 - in, "%sx%d", comma, i);
			out += (size_t)snprintf(expected + out, 256 - out, "%sx%d:0", out > 0 ? "," : "", i);
			continue;
		}
		in += (size_t)snprintf(sent + in, 256 - in, "%s%s %d", comma, way, i);
		if (instead != NULL)
			out += (size_t)snprintf(expected + out, 256 - out, "%s[%s %d %s]", out > 0 ? "," : "", way, i,
						instead);
	}
}

/* Under skip and dead letter the one input is named and left out, and its neighbours come out; two workers die of it, and no more. */
START_TEST(a_deadly_record_is_left_out)
{
	const char *way = ways[_i / PLACES % WAYS];
	bool aside = _i / PLACES / WAYS == 1;
	char sent[256], expected[256];
	pid_t worker;

	batch_around(way, _i % PLACES, !aside ? NULL : strcmp(way, "loop") == 0 ? "watchdog" : "code", sent, expected);
	setup();
	make(aside ? ON_ERROR_DEAD_LETTER : ON_ERROR_SKIP, false, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, sent);
	ck_assert_str_eq(take_results(1, &worker, false), expected);
	ck_assert_uint_eq(deaths, 2);
	send_batch(1, "y"); /* and it is over */
	ck_assert_str_eq(take_results(1, &worker, false), "y:0");
	stop(worker);
}
END_TEST

/* A dead letter says where in the stream it was and how workers died, in headers of its own, whatever came in under these names. */
START_TEST(a_dead_letter_says_where_it_was)
{
	static const char *const expected[][2] = {
	    {"bridge-error-cause", "code"},  {"bridge-error-seq", "2"},        {"bridge-error-record", "2"},
	    {"bridge-error-step", "deadly"}, {"bridge-error-segment", "test"},
	};
	uint32_t dead_letters = 0;
	struct answer answer;
	bool last;
	pid_t worker;

	setup();
	make(ON_ERROR_DEAD_LETTER, false, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "a,b,segv,c");
	do {
		answer = await_answer(1, &worker, false);
		ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS);
		for (size_t i = 0; i < answer.message->results->n_records; i++) {
			const FlinkBridge__Record *record = answer.message->results->records[i];

			ck_assert_str_eq(header_of(record, "bridge-error-seq"), record->route == 1 ? "2" : "");
			for (size_t k = 0; record->route == 1 && k < sizeof(expected) / sizeof(expected[0]); k++)
				ck_assert_str_eq(header_of(record, expected[k][0]), expected[k][1]);
			dead_letters += record->route == 1;
		}
		last = answer.frame.flags == FRAME_LAST;
		answer_free(&answer);
	} while (!last);
	ck_assert_uint_eq(dead_letters, 1);
	stop(worker);
}
END_TEST

/* A careful worker shows the input that it dies over, for the supervisor's list; one that is not careful, and what was shown before, show
 * nothing. */
START_TEST(the_input_in_hand_is_shown)
{
	const struct worker_page *page;
	pid_t worker;

	setup();
	make(ON_ERROR_SKIP, _i == 1, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, _i == 0 ? "a,segv \x1b[m,c" : "timer segv");
	take_results(1, &worker, false);
	if (_i == 1) {
		rig_tick(&rig, 1, 6000);
		doorbell_ring(rig.front.worker_bell);
		take_results(1, &worker, false);
	}
	ck_assert_uint_eq(deaths, 2);
	page = control_worker(&rig.sidecar.control, 0);
	ck_assert_uint_eq(atomic_load(&page->lives[1].progress.shown), 0);
	ck_assert_uint_eq(atomic_load(&page->lives[2].progress.shown), 1);
	ck_assert_str_eq(page->lives[2].progress.key, _i == 0 ? "s" : "t");
	ck_assert_str_eq(page->lives[2].progress.input, _i == 0 ? "segv \\x1b[m" : "segv");
	ck_assert_uint_eq(atomic_load(&page->lives[3].progress.shown), 0);
	stop(worker);
}
END_TEST

START_TEST(a_deadly_record_fails_its_session)
{
	const char *way = ways[_i / PLACES];
	int place = _i % PLACES;
	uint32_t deadly = place == 0 ? 0 : place == 1 ? AROUND / 2 : AROUND - 1;
	char sent[256], expected[256], words[64];
	pid_t worker;

	batch_around(way, place, NULL, sent, expected);
	setup();
	make(ON_ERROR_FAIL, false, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	open_session(2, &worker);
	send_batch(1, sent);
	snprintf(words, sizeof(words), "seq 2, key \"%c\", input: %s %u", way[0], way, deadly);
	take_crash(1, &worker, "deadly", deadly, words);
	ck_assert_uint_eq(deaths, 2);
	send_batch(2, "y");
	ck_assert_str_eq(take_results(2, &worker, false), "y:0");
	stop(worker);
}
END_TEST

/* Of the copies that one record became the step dies of each; the record's other outputs, and its neighbours', are there. */
START_TEST(an_input_behind_another_step_is_named)
{
	const enum step_kind before[] = {STEP_flat_map};
	pid_t worker;

	setup();
	make(ON_ERROR_SKIP, false, before, 1);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "2*a,2*segv 1,2*b");
	ck_assert_str_eq(take_results(1, &worker, false), "a:0,a:0,b:0,b:0");
	ck_assert_uint_eq(deaths, 3); /* one over the message, and one for each copy */
	stop(worker);
}
END_TEST

/* Where the state memory has no room to note a second one, that is what the session hears, and not that its step had no room. */
START_TEST(suspects_without_room_fail_their_session)
{
	const enum step_kind before[] = {STEP_flat_map};
	pid_t worker;

	setup();
	make(ON_ERROR_SKIP, false, before, 1);
	worker = start_worker();
	open_session(1, &worker);
	atomic_store(&shared->greedy, 1);
	send_batch(1, "2*a,2*segv 1,2*b");
	take_crash(1, &worker, "deadly", 1, "the state memory has no room to note them");
	ck_assert_uint_eq(deaths, 3);
	stop(worker);
}
END_TEST

/* What a worker dies of between two inputs is not blamed on the one before: no input is passed over for it. */
START_TEST(a_death_between_inputs_is_nobody_s)
{
	const enum step_kind before[] = {STEP_flat_map};
	pid_t worker;

	setup();
	make(ON_ERROR_SKIP, false, before, 1);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "2*a,2*!,2*b");
	take_crash(1, &worker, "", 1, "in no step");
	ck_assert_uint_eq(deaths, 2);
	stop(worker);
}
END_TEST

/* What the input did to the state before the step died is undone, like all of it. */
START_TEST(the_state_is_as_if_it_had_not_been)
{
	pid_t worker;

	setup();
	make(ON_ERROR_SKIP, true, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "s1,s2,segv x,s3");
	ck_assert_str_eq(take_results(1, &worker, false), "s1:1,s2:2,s3:3");
	send_batch(1, "segv y,s4");
	ck_assert_str_eq(take_results(1, &worker, false), "s4:4");
	ck_assert_uint_eq(deaths, 4);
	stop(worker);
}
END_TEST

/* ---- Timers -------------------------------------------------------------------------------------------------------- */

START_TEST(a_deadly_timer_is_left_out)
{
	pid_t worker;

	setup();
	make(_i == 0 ? ON_ERROR_SKIP : ON_ERROR_DEAD_LETTER, true, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "timer a,timer segv,timer b");
	ck_assert_str_eq(take_results(1, &worker, false), "timer a:1,timer segv:2,timer b:3");
	rig_tick(&rig, 1, 6000);
	doorbell_ring(rig.front.worker_bell);
	ck_assert_str_eq(take_results(1, &worker, false), _i == 0 ? "fired a,fired b" : "fired a,[segv code],fired b");
	ck_assert_uint_eq(deaths, 2);
	stop(worker);
}
END_TEST

START_TEST(a_deadly_timer_fails_its_session)
{
	pid_t worker;

	setup();
	make(ON_ERROR_FAIL, true, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "timer abort");
	take_results(1, &worker, false);
	rig_tick(&rig, 1, 6000);
	doorbell_ring(rig.front.worker_bell);
	take_crash(1, &worker, "deadly", 0, "seq 3, key \"t\", input: abort");
	ck_assert_uint_eq(deaths, 2);
	stop(worker);
}
END_TEST

/* ---- Captures ---------------------------------------------------------------------------------------------------------- */

static char captures[64];

/* Has captures written into a directory of the test's own. */
static void setup_captures(uint32_t most)
{
	setup();
	strcpy(captures, "/tmp/check_blame_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(captures));
	rig.sidecar.config.capture = captures;
	rig.sidecar.config.capture_max = most;
}

/* How many files are in it; the last one is read, if any, and all are removed, with the directory. */
static uint32_t take_captures(struct recording *recording)
{
	char path[512], why[RECORDING_WHY_MAX];
	DIR *directory = opendir(captures);
	uint32_t count = 0;

	ck_assert_ptr_nonnull(directory);
	for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
		if (entry->d_name[0] == '.')
			continue;
		if (count++ > 0)
			recording_free(recording);
		snprintf(path, sizeof(path), "%s/%s", captures, entry->d_name);
		ck_assert_msg(recording_read(recording, path, why), "%s: %s", path, why);
		ck_assert_int_eq(unlink(path), 0);
	}
	closedir(directory);
	ck_assert_int_eq(rmdir(captures), 0);
	return count;
}

/* Checks the kinds of a recording's messages, and that their seqs follow one another. */
static void check_kinds(const struct recording *recording, size_t count, const uint32_t kinds[])
{
	ck_assert_uint_eq(recording->message_count, count);
	for (size_t i = 0; i < count; i++) {
		struct wire_to_worker message;

		ck_assert_int_eq(wire_parse_to_worker(recording->messages[i], &message), WIRE_OK);
		ck_assert_uint_eq(message.kind, kinds[i]);
		ck_assert_uint_eq(message.seq, i + 1);
	}
}

/* The body of a recorded message. */
static struct view body_of(const struct recording *recording, uint32_t index)
{
	struct wire_to_worker message;

	ck_assert_int_eq(wire_parse_to_worker(recording->messages[index], &message), WIRE_OK);
	return message.body;
}

/* Checks that a RestoreChunk has so many entries, all of that key. */
static void check_entries(struct view body, uint32_t count, const char *key)
{
	struct wire_reader reader;
	struct wire_entry entry;

	wire_reader_init(&reader, body);
	while (wire_next_entry(&reader, &entry)) {
		ck_assert(view_equal(entry.key, view_of(key)));
		count--;
	}
	ck_assert(!reader.malformed);
	ck_assert_uint_eq(count, 0);
}

START_TEST(a_deadly_record_is_captured_with_the_state_of_its_key)
{
	static const uint32_t kinds[] = {TO_WORKER_OPEN, TO_WORKER_RESTORE_CHUNK, TO_WORKER_RESTORE_END,
					 TO_WORKER_BATCH};
	struct recording recording;
	struct wire_batch batch = {0};
	pid_t worker;

	setup_captures(100);
	make(ON_ERROR_SKIP, true, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "s1,a,s2,segv,b,a");
	ck_assert_str_eq(take_results(1, &worker, false), "s1:1,a:1,s2:2,b:1,a:2");
	ck_assert_uint_eq(take_captures(&recording), 1);
	check_kinds(&recording, 4, kinds);
	check_entries(body_of(&recording, 1), 1, "s");
	ck_assert_int_eq(wire_parse_records(body_of(&recording, 3), &batch, NULL), WIRE_OK);
	ck_assert_uint_eq(batch.count, 1);
	ck_assert(view_equal(batch.records[0].payload, view_of("segv")));
	ck_assert(view_equal(recording.header.step, view_of("deadly")));
	ck_assert(view_equal(recording.header.cause, view_of("code")));
	ck_assert_uint_eq(recording.header.seq, 2);
	ck_assert_uint_eq(recording.header.record, 3);
	ck_assert_uint_eq(recording.header.process, 2);
	ck_assert(!recording.header.incomplete);
	wire_batch_free(&batch);
	recording_free(&recording);
	stop(worker);
}
END_TEST

START_TEST(a_deadly_timer_is_captured_with_what_fires_it)
{
	static const uint32_t kinds[] = {TO_WORKER_OPEN, TO_WORKER_RESTORE_CHUNK, TO_WORKER_RESTORE_END,
					 TO_WORKER_TIMER_TICK};
	struct recording recording;
	pid_t worker;

	setup_captures(100);
	make(ON_ERROR_FAIL, true, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "x,timer abort,y");
	take_results(1, &worker, false);
	rig_tick(&rig, 1, 6000);
	doorbell_ring(rig.front.worker_bell);
	take_crash(1, &worker, "deadly", 0, "seq 3, key \"t\", input: abort");
	ck_assert_uint_eq(take_captures(&recording), 1);
	check_kinds(&recording, 4, kinds);
	check_entries(body_of(&recording, 1), 2, "t"); /* its sum, and the timer: looking at that has not taken it */
	recording_free(&recording);
	stop(worker);
}
END_TEST

/* One record, two deadly inputs: a file for each death. Without state there is none to restore. */
START_TEST(each_death_has_its_capture)
{
	static const enum step_kind before[] = {STEP_flat_map};
	static const uint32_t kinds[] = {TO_WORKER_OPEN, TO_WORKER_BATCH};
	struct recording recording;
	pid_t worker;

	setup_captures(100);
	make(ON_ERROR_SKIP, false, before, 1);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "1*a,2*segv,1*b");
	ck_assert_str_eq(take_results(1, &worker, false), "a:0,b:0");
	ck_assert_uint_eq(take_captures(&recording), 2);
	check_kinds(&recording, 2, kinds);
	recording_free(&recording);
	stop(worker);
}
END_TEST

START_TEST(captures_are_bounded_and_never_in_the_way)
{
	struct recording recording;
	pid_t worker;

	setup_captures(1);
	if (_i == 1)
		ck_assert_int_eq(rmdir(captures), 0);
	make(ON_ERROR_SKIP, false, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "a,segv,b,segv,c");
	ck_assert_str_eq(take_results(1, &worker, false), "a:0,b:0,c:0");
	if (_i == 1)
		ck_assert_int_eq(mkdir(captures, 0700), 0);
	ck_assert_uint_eq(take_captures(&recording), _i == 0 ? 1 : 0);
	if (_i == 0)
		recording_free(&recording);
	stop(worker);
}
END_TEST

/* A process that died while it wrote one leaves a part of it: the next one does without, and the one after that is as ever. */
START_TEST(what_kills_a_worker_in_capturing_is_not_tried_again)
{
	struct recording recording;
	char part[128];
	pid_t worker;
	FILE *file;

	setup_captures(100);
	snprintf(part, sizeof(part), "%s/slot0-segment0-seq1.capture.part", captures);
	file = fopen(part, "w");
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fclose(file), 0);
	make(ON_ERROR_SKIP, false, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "a,segv,b,abort,c");
	ck_assert_str_eq(take_results(1, &worker, false), "a:0,b:0,c:0");
	ck_assert_int_eq(access(part, F_OK), -1);
	ck_assert_uint_eq(take_captures(&recording), 1);
	ck_assert_uint_eq(recording.header.record, 3);
	recording_free(&recording);
	stop(worker);
}
END_TEST

/* ---- Who is not to blame ------------------------------------------------------------------------------------------- */

/* Deaths that were not the code's doing are never blamed, however often they come at the same place. */
START_TEST(a_death_from_outside_is_never_blamed)
{
	struct answer answer;
	pid_t worker;

	setup();
	make(ON_ERROR_SKIP, false, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "a,segv,b");
	while (deaths < 6) {
		enum death_cause cause;

		if (rig_try_take(&rig, 1, &answer)) { /* of the first record */
			ck_assert_uint_eq(answer.frame.flags, 0);
			answer_free(&answer);
		}
		if (!has_died(worker, &cause)) {
			wait_a_little();
			continue;
		}
		deaths++;
		worker = start_worker();
		if (deaths == 5)
			atomic_store(&shared->healthy, 1);
		publish(processes - 1, DEATH_OUTSIDE);
		if (deaths == 5)
			break;
	}
	ck_assert_str_eq(take_results(1, &worker, true), "segv:0,b:0"); /* a came with a commit of its own */
	stop(worker);
}
END_TEST

/* An input that is another one each time cannot be named: its session fails. */
START_TEST(an_input_that_changes_fails_its_session)
{
	const enum step_kind before[] = {STEP_map};
	pid_t worker;

	setup();
	make(ON_ERROR_SKIP, false, before, 1);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "a,segv,b");
	take_crash(1, &worker, "deadly", 1, "the input is another one each time");
	ck_assert_uint_eq(deaths, 2);
	stop(worker);
}
END_TEST

/* So many in an hour are passed over; the next one fails its session. (An hour may end on the way: then there is one more.) */
START_TEST(passing_over_is_bounded)
{
	struct answer answer;
	pid_t worker;

	setup();
	rig.sidecar.config.max_skips_per_hour = 2;
	make(ON_ERROR_SKIP, false, NULL, 0);
	worker = start_worker();
	open_session(1, &worker);
	send_batch(1, "a,segv 1,b,exit 2,c");
	ck_assert_str_eq(take_results(1, &worker, false), "a:0,b:0,c:0");
	for (int i = 0; i < 3; i++) {
		send_batch(1, "abort 3");
		answer = await_answer(1, &worker, false);
		bool failed = answer.message->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR;
		if (failed)
			ck_assert_ptr_nonnull(strstr(answer.message->error->message, "--max-skips-per-hour"));
		answer_free(&answer);
		if (failed)
			break;
		ck_assert_int_lt(i, 2);
	}
	stop(worker);
}
END_TEST

/* A session over which a careful worker died waits to hear why, and nobody else does; it waits no more once its channel is gone. */
START_TEST(a_session_waits_to_hear_why)
{
	const bool gone = _i == 1;
	struct life *life;
	struct answer answer;

	setup();
	make(ON_ERROR_SKIP, false, NULL, 0);
	ck_assert_int_eq(slot_attach_worker(&rig.sidecar.slots[0]), 0);
	rig_own(&rig);
	serve_reset(rig.serve);
	rig_open(&rig, 1, 0);
	rig_open(&rig, 2, 0);
	life = &rig.workspace.page->lives[1];
	life_begin(life, &(struct birth){.number = 7}, 1);
	atomic_store(&life->progress.seq, 2);
	atomic_store(&life->progress.channel, 1);
	atomic_store(&life->progress.epoch, rig.channels[1].epoch);
	atomic_store(&life->progress.step, 0);
	atomic_store(&life->progress.careful, 1);
	atomic_store(&life->progress.since_ns, 1);
	atomic_store(&rig.workspace.life->predecessor, 7);
	rig_adopt(&rig);
	rig_batch(&rig, 1, "a", NULL);
	rig_batch(&rig, 2, "b", NULL);
	rig_serve(&rig);
	rig_take_nothing(&rig, 1);
	answer = rig_take(&rig, 2);
	answer_free(&answer);
	ck_assert(!serve_is_wanted(rig.serve));
	ck_assert_uint_lt(serve_expire(rig.serve), UINT64_MAX);
	if (gone) {
		rig_close_channel(&rig, 1);
		rig_serve(&rig);
		ck_assert(rig_free_channel(&rig, 1));
		ck_assert_uint_eq(serve_expire(rig.serve), UINT64_MAX);
	}
	publish(7, DEATH_CODE);
	ck_assert_int_eq(serve_is_wanted(rig.serve), !gone);
	rig_serve(&rig);
	if (!gone) { /* it goes on; and what the words named is another input */
		answer = rig_take(&rig, 1);
		ck_assert_int_eq(answer.message->error->code, FLINK_BRIDGE__ERROR_CODE__ERROR_CRASH);
		answer_free(&answer);
	}
	munmap(shared, sizeof(*shared));
	rig_stop(&rig);
}
END_TEST

/* ---- Unary calls --------------------------------------------------------------------------------------------------- */

/* A call that two workers died over is refused; the next one is answered. */
START_TEST(a_deadly_call_is_refused)
{
	static const char *const payloads[] = {"a", "segv", "b"};
	pid_t worker;

	setup();
	make(ON_ERROR_FAIL, false, NULL, 0);
	worker = start_worker();
	rig_open_channel(&rig, UNARY_CHANNEL, 0);
	for (uint64_t i = 0; i < 3; i++) {
		FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;
		FlinkWorker__Message message = FLINK_WORKER__MESSAGE__INIT;
		uint8_t bytes[64];

		message.payload = (ProtobufCBinaryData){strlen(payloads[i]), (uint8_t *)payloads[i]};
		request.message = &message;
		ck_assert(rig_push(&rig, UNARY_CHANNEL, (struct frame){.kind = FRAME_PROCESS_MESSAGE, .seq = i + 1},
				   bytes, flink_worker__process_message_request__pack(&request, bytes)));
	}
	doorbell_ring(rig.front.worker_bell);
	for (uint64_t i = 0; i < 3; i++) {
		struct answer answer = await_answer(UNARY_CHANNEL, &worker, false);

		ck_assert_uint_eq(answer.frame.seq, i + 1);
		ck_assert_uint_eq(answer.frame.kind, i == 1 ? FRAME_REFUSAL : FRAME_REPLY);
		if (i == 1) {
			ck_assert_uint_eq(answer.code, GRPC_STATUS_INTERNAL);
			ck_assert_ptr_nonnull(strstr(answer.text, "workers died over this call"));
		}
		answer_free(&answer);
	}
	ck_assert_uint_eq(deaths, 2);
	stop(worker);
}
END_TEST

static Suite *blame_suite(void)
{
	Suite *suite = suite_create("blame");
	TCase *test = tcase_create("blame");

	tcase_add_loop_test(test, a_deadly_record_is_left_out, 0, 2 * WAYS * PLACES);
	tcase_add_test(test, a_dead_letter_says_where_it_was);
	tcase_add_loop_test(test, the_input_in_hand_is_shown, 0, 2);
	tcase_add_loop_test(test, a_deadly_record_fails_its_session, 0, WAYS * PLACES);
	tcase_add_test(test, an_input_behind_another_step_is_named);
	tcase_add_test(test, a_death_between_inputs_is_nobody_s);
	tcase_add_test(test, suspects_without_room_fail_their_session);
	tcase_add_test(test, the_state_is_as_if_it_had_not_been);
	tcase_add_loop_test(test, a_deadly_timer_is_left_out, 0, 2);
	tcase_add_test(test, a_deadly_timer_fails_its_session);
	tcase_add_test(test, a_deadly_record_is_captured_with_the_state_of_its_key);
	tcase_add_test(test, a_deadly_timer_is_captured_with_what_fires_it);
	tcase_add_test(test, each_death_has_its_capture);
	tcase_add_test(test, what_kills_a_worker_in_capturing_is_not_tried_again);
	tcase_add_loop_test(test, captures_are_bounded_and_never_in_the_way, 0, 2);
	tcase_add_test(test, a_death_from_outside_is_never_blamed);
	tcase_add_test(test, an_input_that_changes_fails_its_session);
	tcase_add_test(test, passing_over_is_bounded);
	tcase_add_loop_test(test, a_session_waits_to_hear_why, 0, 2);
	tcase_add_test(test, a_deadly_call_is_refused);
	suite_add_tcase(suite, test);
	return suite;
}

CHECK_MAIN(blame_suite)
