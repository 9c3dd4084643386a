/*
 * watch: looks after sensors. A step in C, with state, a timer, two routes, options and a metric.
 *
 * A record's payload is a number, its key the sensor. The step keeps a moving mean for each sensor and hands every reading on with it.
 * One that is too far from the mean goes to the second route, and so does the news that a sensor has said nothing for too long.
 *
 *      options:  weight   of a new reading in the mean, 0 to 1 (default 0.2)
 *                far      how far from the mean is too far (default 5)
 *                silence  ms of event time without a reading (default 60000)
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bridge_step.h>

enum { READINGS, ALERTS }; /* the routes, in the pipeline's order */

struct watch {
	const struct bridge_host *host;
	struct bridge_context *context;
	double weight, far, silence;
	struct bridge_state *means, *due;
	struct bridge_metric *alerts;
};

/* What is kept of a sensor. */
struct sensor {
	double mean;
	uint64_t readings;
	int64_t silent_at; /* when its timer is due */
};

/* A number among the options. */
static double option(const struct bridge_setup *setup, const char *name, double fallback)
{
	const char *text = bridge_option_of(setup->options, setup->option_count, name);

	return text != NULL ? strtod(text, NULL) : fallback;
}

static int watch_open(const struct bridge_host *host, struct bridge_context *context, const struct bridge_setup *setup,
		      void *code, void **self)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	(void)code;
	if (watch == NULL)
		return bridge_fail(host, context, BRIDGE_NO_RECORD, "no memory");
	watch->host = host;
	watch->context = context;
	watch->weight = option(setup, "weight", 0.2);
	watch->far = option(setup, "far", 5);
	watch->silence = option(setup, "silence", 60000);
	watch->means = host->state(context, "means");
	watch->due = host->state(context, "due");
	watch->alerts = host->metric(context, "alerts", BRIDGE_COUNTER);
	if (watch->means == NULL || watch->due == NULL || setup->route_count != 2) {
		free(watch);
		return bridge_fail(host, context, BRIDGE_NO_RECORD,
				   "declare `state: { means: value, due: timers }` and two routes");
	}
	*self = watch;
	return BRIDGE_OK;
}

static void watch_close(void *self)
{
	free(self);
}

/* Emits text on a route. */
static int say(struct watch *watch, uint32_t from, uint32_t route, const char *text, int size)
{
	struct bridge_output output = {.size = sizeof(output), .from = from, .route = route};

	output.payload.data = (const uint8_t *)text;
	output.payload.size = (size_t)size;
	if (route == ALERTS)
		watch->host->metric_update(watch->alerts, 1);
	return watch->host->emit(watch->context, &output);
}

/* The number that a payload is; false when it is none. */
static bool number_of(struct bridge_bytes payload, double *number)
{
	char text[64], *end;

	if (payload.size == 0 || payload.size >= sizeof(text))
		return false;
	memcpy(text, payload.data, payload.size);
	text[payload.size] = '\0';
	*number = strtod(text, &end);
	return *end == '\0' && isfinite(*number);
}

/* Sets the timer of a sensor anew. */
static int wait_for_more(struct watch *watch, struct sensor *sensor, int64_t now)
{
	const struct bridge_host *host = watch->host;
	int64_t before = sensor->silent_at, then = now + (int64_t)watch->silence;

	if (then <= before)
		return BRIDGE_OK; /* a late reading changes nothing */
	sensor->silent_at = then;
	if (before != 0)
		host->timer_delete(watch->due, BRIDGE_EVENT_TIME, before, bridge_text(""));
	return host->timer_set(watch->due, BRIDGE_EVENT_TIME, then, bridge_text(""));
}

/* One reading. */
static int watch_one(struct watch *watch, const struct bridge_record *record, uint32_t index)
{
	const struct bridge_host *host = watch->host;
	struct sensor *sensor;
	void *bytes;
	double value;
	int is_new, size;
	char text[160];

	if (!number_of(record->payload, &value))
		return bridge_fail(host, watch->context, index, "the payload is no number");
	host->use(watch->context, index);
	if (host->edit(watch->means, sizeof(*sensor), &bytes, &is_new) != BRIDGE_OK)
		return BRIDGE_FAILED;
	sensor = bytes; /* good until another state is changed */
	bool far = !is_new && fabs(value - sensor->mean) > watch->far;
	sensor->mean = is_new ? value : sensor->mean + watch->weight * (value - sensor->mean);
	sensor->readings++;
	size = snprintf(text, sizeof(text), "{\"sensor\":\"%.*s\",\"value\":%g,\"mean\":%.3f,\"readings\":%llu}",
			(int)(record->key.size < 60 ? record->key.size : 60), (const char *)record->key.data, value,
			sensor->mean, (unsigned long long)sensor->readings);
	if (wait_for_more(watch, sensor, record->timestamp) != BRIDGE_OK)
		return BRIDGE_FAILED;
	return say(watch, index, far ? ALERTS : READINGS, text, size);
}

static int watch_process(void *self, const struct bridge_run *run)
{
	for (uint32_t i = 0; i < run->count; i++)
		if (watch_one(self, bridge_run_record(run, i), i) != BRIDGE_OK)
			return BRIDGE_FAILED;
	return BRIDGE_OK;
}

/* A sensor has said nothing for too long. */
static int watch_timer(void *self, const struct bridge_timer *timer)
{
	char text[160];
	int size = snprintf(text, sizeof(text), "{\"sensor\":\"%.*s\",\"silent\":true}",
			    (int)(timer->key.size < 60 ? timer->key.size : 60), (const char *)timer->key.data);

	return say(self, BRIDGE_NO_RECORD, ALERTS, text, size);
}

static const struct bridge_step_library library = {
    .abi = BRIDGE_STEP_ABI,
    .size = sizeof(library),
    .open = watch_open,
    .close = watch_close,
    .process = watch_process,
    .timer = watch_timer,
};

const struct bridge_step_library *bridge_step_library(void)
{
	return &library;
}
