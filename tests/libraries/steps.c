/*
 * A library of steps for the tests: the option `function` says which. Each shows one part of the interface, and those that go wrong do so
 * in one way each.
 */
#include "bridge_step.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int *volatile nowhere;

struct step {
	const struct bridge_host *host;
	struct bridge_context *context;
	const struct bridge_setup *setup;
	int (*process)(struct step *step, const struct bridge_run *run);
	struct bridge_state *value, *map, *list, *timers;
	struct bridge_metric *metric;
	bool opened;
};

/* ---- What a record says ---- */

static bool says(const struct bridge_record *record, const char *text)
{
	return record->payload.size == strlen(text) && memcmp(record->payload.data, text, strlen(text)) == 0;
}

/* The payload as a C string. */
static const char *text_of(const struct bridge_record *record)
{
	static char text[256];

	snprintf(text, sizeof(text), "%.*s", (int)record->payload.size, (const char *)record->payload.data);
	return text;
}

static int emit_text(struct step *step, uint32_t from, const char *text)
{
	return bridge_emit(step->host, step->context, from, text, strlen(text));
}

/* Whether a record "laterN" is one of the first N calls with it in this process. */
static bool is_early(const struct bridge_record *record)
{
	static struct {
		char text[32];
		int calls;
	} seen[16];
	const char *text = text_of(record);

	for (size_t i = 0; strncmp(text, "later", 5) == 0 && i < sizeof(seen) / sizeof(*seen); i++) {
		if (seen[i].text[0] != '\0' && strcmp(seen[i].text, text) != 0)
			continue;
		snprintf(seen[i].text, sizeof(seen[i].text), "%.31s", text);
		return ++seen[i].calls <= atoi(text + 5);
	}
	return false;
}

/* Fails for now. */
static int fail_for_now(struct step *step, uint32_t index)
{
	struct bridge_failure failure = {.size = sizeof(failure),
					 .flags = BRIDGE_TRANSIENT,
					 .record = index,
					 .kind = bridge_text("MoodError"),
					 .message = bridge_text("not now"),
					 .traceback = bridge_text("line 1\nline 2")};
	return step->host->fail(step->context, &failure);
}

/* ---- Functions without state ---- */

/* Hands the whole run on. */
static int identity(struct step *step, const struct bridge_run *run)
{
	return step->host->forward(step->context, 0, run->count, 0);
}

/* Waits for an answer that is there when the run comes again; within the call, where it has to. "never": it says so without asking. */
static int waiting(struct step *step, const struct bridge_run *run)
{
	static uint64_t seq, answered_seq;
	static uint32_t done, answered_done;

	if (says(bridge_run_record(run, 0), "never"))
		return BRIDGE_WAITING;
	if (step->host->wait(step->context, &seq, &done) != BRIDGE_OK)
		return emit_text(step, 0, "within the call");
	if (seq == answered_seq && done == answered_done)
		return step->host->forward(step->context, 0, run->count, 0);
	answered_seq = seq;
	answered_done = done;
	step->host->wake();
	return BRIDGE_WAITING;
}

/* Makes capitals. */
static int upcase(struct step *step, const struct bridge_run *run)
{
	for (uint32_t i = 0; i < run->count; i++) {
		const struct bridge_record *record = bridge_run_record(run, i);
		struct bridge_output output = {.size = sizeof(output), .flags = BRIDGE_OUT_STAYS, .from = i};
		uint8_t *text = step->host->memory(step->context, record->payload.size);
		if (text == NULL)
			return BRIDGE_FAILED;
		for (size_t k = 0; k < record->payload.size; k++) {
			uint8_t byte = record->payload.data[k];
			if (byte == '!')
				return bridge_fail(step->host, step->context, i, "no shouting");
			text[k] = byte >= 'a' && byte <= 'z' ? (uint8_t)(byte - 'a' + 'A') : byte;
		}
		output.payload = (struct bridge_bytes){text, record->payload.size};
		int result = step->host->emit(step->context, &output);
		if (result != BRIDGE_OK)
			return BRIDGE_FAILED;
	}
	return BRIDGE_OK;
}

/* Keeps what is not "drop"; "twice" comes twice, "late" is emitted anew, "back" brings the first record back. */
static int sieve(struct step *step, const struct bridge_run *run)
{
	int result = BRIDGE_OK;

	for (uint32_t i = 0; i < run->count && result == BRIDGE_OK; i++) {
		const struct bridge_record *record = bridge_run_record(run, i);
		if (says(record, "drop"))
			continue;
		if (says(record, "late"))
			result = emit_text(step, i, "anew");
		else if (says(record, "back"))
			result = step->host->forward(step->context, 0, 1, 0);
		else
			result = step->host->forward(step->context, i, 1, 0);
		if (result == BRIDGE_OK && says(record, "twice"))
			result = step->host->forward(step->context, i, 1, 0);
	}
	return result;
}

/* Says what it was told. */
static int told(struct step *step, const struct bridge_run *run)
{
	const struct bridge_setup *setup = step->setup;
	char text[512];
	size_t used = (size_t)snprintf(text, sizeof(text), "%s/%s %u of %u", setup->segment, setup->step,
				       setup->parallelism, setup->max_parallelism);

	for (size_t i = 0; i < setup->option_count; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, " %s=%s", setup->options[i].name,
					 setup->options[i].value);
	for (size_t i = 0; i < setup->state_count; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, " %s:%u,%u,%" PRId64, setup->states[i].name,
					 setup->states[i].kind, setup->states[i].by_key, setup->states[i].ttl);
	snprintf(text + used, sizeof(text) - used, " now %" PRId64,
		 step->host->now(step->context, BRIDGE_PROCESSING_TIME));
	(void)run;
	return emit_text(step, 0, text);
}

/* Sends "a..." to the first route, "b..." to the second, all else to one that there is not. */
static int routes(struct step *step, const struct bridge_run *run)
{
	for (uint32_t i = 0; i < run->count; i++) {
		const struct bridge_record *record = bridge_run_record(run, i);
		uint32_t route = record->payload.data[0] == 'a' ? 0 : record->payload.data[0] == 'b' ? 1 : 2;
		if (step->host->forward(step->context, i, 1, route) == BRIDGE_UNKNOWN)
			return bridge_fail(step->host, step->context, i, "no such route");
	}
	return BRIDGE_OK;
}

/* Forwards each record, and says what it shows then. */
static int shown(struct step *step, const struct bridge_run *run)
{
	int result = BRIDGE_OK;

	for (uint32_t i = 0; i < run->count && result == BRIDGE_OK; i++)
		result = step->host->forward(step->context, i, 1, 1);
	for (uint32_t i = 0; i < run->count && result == BRIDGE_OK; i++) {
		const struct bridge_record *record = bridge_run_record(run, i);
		char text[128];
		snprintf(text, sizeof(text),
			 "%.*s: key %u %.*s, header %u %.*s, time %" PRId64 ", input %u, ordinal %u",
			 (int)record->payload.size, (const char *)record->payload.data, record->keyed,
			 (int)record->key.size, (const char *)record->key.data, record->header_count,
			 record->header_count > 0 ? (int)record->headers->value.size : 0,
			 record->header_count > 0 ? (const char *)record->headers->value.data : "", record->timestamp,
			 record->input, record->ordinal);
		result = emit_text(step, i, text);
	}
	return result;
}

/* Gives records another time and other headers. */
static int dress(struct step *step, const struct bridge_run *run)
{
	struct bridge_header header = {bridge_text("worn"), bridge_text("hat")};

	for (uint32_t i = 0; i < run->count; i++) {
		struct bridge_output output = {.size = sizeof(output),
					       .flags = BRIDGE_OUT_TIMESTAMP | BRIDGE_OUT_HEADERS,
					       .from = i,
					       .payload = bridge_run_record(run, i)->payload,
					       .timestamp = 77,
					       .headers = &header,
					       .header_count = 1};
		if (step->host->emit(step->context, &output) != BRIDGE_OK)
			return BRIDGE_FAILED;
	}
	return BRIDGE_OK;
}

/* Fails, dies, or does not come back, as the record says; everything else goes on. */
static int moody(struct step *step, const struct bridge_run *run)
{
	for (uint32_t i = 0; i < run->count; i++) {
		const struct bridge_record *record = bridge_run_record(run, i);
		if (says(record, "silent"))
			return BRIDGE_FAILED;
		if (says(record, "odd"))
			return 17;
		if (says(record, "fail") || says(record, "later")) {
			struct bridge_failure failure = {.size = sizeof(failure),
							 .flags = says(record, "later") ? BRIDGE_TRANSIENT : 0,
							 .record = i,
							 .kind = bridge_text("MoodError"),
							 .message = bridge_text("not today"),
							 .traceback = bridge_text("line 1\nline 2"),
							 .kinds = bridge_text("moods.MoodError\nLibraryError")};
			return step->host->fail(step->context, &failure);
		}
		if (is_early(record))
			return fail_for_now(step, i);
		if (says(record, "segv"))
			*nowhere = 1;
		if (says(record, "exit"))
			exit(0);
		if (says(record, "abort"))
			abort();
		while (says(record, "loop"))
			;
		while (says(record, "sleep"))
			pause();
		if (step->host->forward(step->context, i, 1, 0) != BRIDGE_OK)
			return BRIDGE_FAILED;
	}
	return BRIDGE_OK;
}

/* Emits the payload so many times as it says. */
static int many(struct step *step, const struct bridge_run *run)
{
	for (uint32_t i = 0; i < run->count; i++)
		for (long left = atol(text_of(bridge_run_record(run, i))); left > 0; left--)
			if (emit_text(step, i, text_of(bridge_run_record(run, i))) != BRIDGE_OK)
				return BRIDGE_FAILED;
	return BRIDGE_OK;
}

/* Makes every mistake that can be noticed, and says what came of it. */
static int mistakes(struct step *step, const struct bridge_run *run)
{
	const struct bridge_host *host = step->host;
	struct bridge_context *context = step->context;
	struct bridge_output output = {.size = sizeof(output), .from = run->count};
	struct bridge_header header = {{(const uint8_t *)"\xff", 1}, bridge_text("")};
	struct bridge_bytes bytes, large = {(const uint8_t *)"", (size_t)1 << 40}, tag = {(const uint8_t *)"", 256};
	char text[256];
	int results[10];

	results[0] = host->emit(context, &output);
	output.from = 0;
	output.route = 1;
	results[1] = host->emit(context, &output);
	output.route = 0;
	output.flags = BRIDGE_OUT_HEADERS;
	output.headers = &header;
	output.header_count = 1;
	results[2] = host->emit(context, &output);
	output.header_count = 1000000;
	results[3] = host->emit(context, &output);
	results[4] = host->forward(context, 0, run->count + 1, 0);
	results[5] = host->state(context, "nosuch") != NULL;
	results[6] = host->get(step->value, &bytes);
	results[7] = host->use(context, run->count);
	host->use(context, 0);
	results[8] = host->map_put(step->value, bytes, bytes);
	results[9] = host->put(step->value, large);
	int used = 0;
	for (size_t i = 0; i < 10; i++)
		used += snprintf(text + used, sizeof(text) - (size_t)used, "%d ", results[i]);
	snprintf(text + used, sizeof(text) - (size_t)used, "%d %d",
		 host->timer_set(step->timers, BRIDGE_EVENT_TIME, 1, tag), host->metric(context, "a-b", 0) != NULL);
	return emit_text(step, 0, text);
}

/* ---- Functions with state ---- */

/* Counts the records of a key in place, in a value, and in a metric: payload:count. A "fail" counts, and fails. */
static int count(struct step *step, const struct bridge_run *run)
{
	for (uint32_t i = 0; i < run->count; i++) {
		const struct bridge_record *record = bridge_run_record(run, i);
		char text[300];
		void *bytes;
		int is_new;

		if (step->host->use(step->context, i) != BRIDGE_OK ||
		    step->host->edit(step->value, sizeof(uint64_t), &bytes, &is_new) != BRIDGE_OK)
			return BRIDGE_FAILED;
		uint64_t number = ++*(uint64_t *)bytes;
		step->host->metric_update(step->metric, 1);
		if (says(record, "fail"))
			return bridge_fail(step->host, step->context, i, "it says so");
		if (is_early(record))
			return fail_for_now(step, i);
		if (says(record, "segv"))
			*nowhere = 1;
		if (says(record, "abort"))
			abort();
		snprintf(text, sizeof(text), "%s:%" PRIu64, text_of(record), number);
		if (emit_text(step, i, text) != BRIDGE_OK)
			return BRIDGE_FAILED;
	}
	return BRIDGE_OK;
}

/* Remembers payloads in a map and a list, and sets timers: "at N" in event time, "in N" in processing time. "list" tells all that it
 * remembers, "clear" forgets it. */
static int remember(struct step *step, const struct bridge_run *run)
{
	const struct bridge_host *host = step->host;

	for (uint32_t i = 0; i < run->count; i++) {
		const struct bridge_record *record = bridge_run_record(run, i);
		struct bridge_iterator iterator = {0, 0};
		struct bridge_bytes key, value;
		char text[1024] = "";
		size_t used = 0;
		long at;

		host->use(step->context, i);
		if (says(record, "clear")) {
			host->map_clear(step->map);
			host->list_clear(step->list);
		} else if (sscanf(text_of(record), "at %ld", &at) == 1) {
			host->timer_set(step->timers, BRIDGE_EVENT_TIME, at, record->payload);
		} else if (sscanf(text_of(record), "in %ld", &at) == 1) {
			host->timer_set(step->timers, BRIDGE_PROCESSING_TIME, at, record->payload);
		} else if (sscanf(text_of(record), "not %ld", &at) == 1) {
			char tag[32];
			snprintf(tag, sizeof(tag), "at %ld", at);
			host->timer_delete(step->timers, BRIDGE_EVENT_TIME, at, bridge_text(tag));
		} else if (!says(record, "list")) {
			host->map_put(step->map, record->payload, record->payload);
			host->list_append(step->list, record->payload);
		} else {
			used += (size_t)snprintf(text, sizeof(text), "%" PRIu64 ",%" PRIu64, host->map_count(step->map),
						 host->list_count(step->list));
			while (host->map_next(step->map, &iterator, &key, &value) == BRIDGE_OK)
				used += (size_t)snprintf(text + used, sizeof(text) - used, " %.*s", (int)key.size,
							 (const char *)key.data);
			iterator = (struct bridge_iterator){0, 0};
			while (host->list_next(step->list, &iterator, &value) == BRIDGE_OK)
				used += (size_t)snprintf(text + used, sizeof(text) - used, " [%.*s]", (int)value.size,
							 (const char *)value.data);
			if (emit_text(step, i, text) != BRIDGE_OK)
				return BRIDGE_FAILED;
		}
	}
	return BRIDGE_OK;
}

/* ---- Opening ---- */

/* Steps that were opened and closed in this process, and calls of open() that were to fail. */
static int openings, closings, refusals;

/* Tells of it. */
static int tell_openings(struct step *step, const struct bridge_run *run)
{
	char text[64];

	(void)run;
	snprintf(text, sizeof(text), "%d opened, %d closed", openings, closings);
	return emit_text(step, 0, text);
}

/* ---- The table ---- */

static const struct {
	const char *name;
	int (*process)(struct step *step, const struct bridge_run *run);
	uint32_t flags;
} functions[] = {
    {"identity", identity, 0},
    {"waiting", waiting, 0},
    {"upcase", upcase, 0},
    {"sieve", sieve, 0},
    {"told", told, 0},
    {"routes", routes, 0},
    {"dress", dress, 0},
    {"shown", shown, 0},
    {"moody", moody, 0},
    {"many", many, 0},
    {"mistakes", mistakes, 0},
    {"count", count, 0},
    {"remember", remember, 0},
    {"flushing", remember, BRIDGE_STEP_FLUSHES},
    {"single", count, BRIDGE_STEP_SINGLE},
    {"unopened", identity, 0},
    {"openings", tell_openings, 0},
    {"reluctant", identity, 0}, /* opens the third time; the first time it is open, and says that it failed */
    {"greedy", identity, 0},    /* asks for memory when it is opened, and does without */
};

static int load(const struct bridge_host *host, struct bridge_context *context, const struct bridge_setup *setup,
		struct bridge_loaded *loaded)
{
	const char *name = bridge_option_of(setup->settings, setup->setting_count, "function");
	char text[128];

	for (size_t i = 0; name != NULL && i < sizeof(functions) / sizeof(*functions); i++) {
		if (strcmp(functions[i].name, name) != 0)
			continue;
		loaded->code = (void *)&functions[i];
		loaded->flags = functions[i].flags;
		return BRIDGE_OK;
	}
	snprintf(text, sizeof(text), "there is no step %.40s in this library", name != NULL ? name : "without a name");
	return bridge_fail(host, context, BRIDGE_NO_RECORD, text);
}

static int open_step(const struct bridge_host *host, struct bridge_context *context, const struct bridge_setup *setup,
		     void *code, void **self)
{
	const size_t at = (size_t)((const char *)code - (const char *)functions) / sizeof(*functions);
	const char *name = functions[at].name;
	struct step *step;

	if (strcmp(name, "unopened") == 0)
		return bridge_fail(host, context, BRIDGE_NO_RECORD, "the door is locked");
	if (strcmp(name, "greedy") == 0 && host->memory(context, 16) != NULL)
		return bridge_fail(host, context, BRIDGE_NO_RECORD, "there is memory");
	if (strcmp(name, "reluctant") == 0 && ++refusals <= 2) {
		bridge_fail(host, context, BRIDGE_NO_RECORD, refusals == 1 ? "not now" : "not yet");
		if (refusals == 2)
			return BRIDGE_FAILED;
	}
	step = calloc(1, sizeof(*step));
	openings++;
	*step = (struct step){host, context, setup, functions[at].process, NULL, NULL, NULL, NULL, NULL, true};
	step->value = host->state(context, "value");
	step->map = host->state(context, "map");
	step->list = host->state(context, "list");
	step->timers = host->state(context, "timers");
	step->metric = host->metric(context, "records", BRIDGE_COUNTER);
	host->log(context, BRIDGE_DEBUG, "opened");
	*self = step;
	return BRIDGE_OK;
}

static void close_step(void *self)
{
	free(self);
	closings++;
}

static int process(void *self, const struct bridge_run *run)
{
	struct step *step = self;

	return step->process(step, run);
}

/* Tells of a timer: its tag and key. A tag "fail" or "segv" does that. */
static int timer(void *self, const struct bridge_timer *due)
{
	struct step *step = self;
	char text[256];

	if (due->time == 14) {
		static int calls;
		if (calls++ == 0)
			return fail_for_now(step, BRIDGE_NO_RECORD);
	}
	if (due->time == 13)
		return bridge_fail(step->host, step->context, BRIDGE_NO_RECORD, "a bad time");
	snprintf(text, sizeof(text), "%s %.*s of %.*s", due->domain == BRIDGE_EVENT_TIME ? "event" : "processing",
		 (int)due->tag.size, (const char *)due->tag.data, (int)due->key.size, (const char *)due->key.data);
	return emit_text(step, BRIDGE_NO_RECORD, text);
}

/* Tells the watermark, where the step is told to. */
static int watermark(void *self, int64_t time)
{
	struct step *step = self;
	char text[64];

	if (bridge_option_of(step->setup->options, step->setup->option_count, "watermarks") == NULL)
		return BRIDGE_OK;
	snprintf(text, sizeof(text), "watermark %" PRId64, time);
	return emit_text(step, BRIDGE_NO_RECORD, text);
}

static int end(void *self)
{
	struct step *step = self;

	if (bridge_option_of(step->setup->options, step->setup->option_count, "watermarks") == NULL)
		return BRIDGE_OK;
	return emit_text(step, BRIDGE_NO_RECORD, "end");
}

static const struct bridge_step_library library = {
    .abi = BRIDGE_STEP_ABI,
    .size = sizeof(library),
    .load = load,
    .open = open_step,
    .close = close_step,
    .process = process,
    .timer = timer,
    .watermark = watermark,
    .end = end,
};

const struct bridge_step_library *bridge_step_library(void)
{
	return &library;
}
