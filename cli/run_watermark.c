/*
 * The watermark valve (run_watermark.h). A change looks at all channels again: they are few, and watermarks are rare
 * beside records.
 */
#include "cli/run_watermark.h"

#include <stdlib.h>

#include "shared/log.h"

void watermark_valve_init(struct watermark_valve *valve, uint32_t count)
{
	*valve = (struct watermark_valve){.count = count, .time = INT64_MIN};
	valve->channels = calloc(count > 0 ? count : 1, sizeof(valve->channels[0]));
	if (valve->channels == NULL)
		fatalx("out of memory for %u channels", count);
	for (uint32_t i = 0; i < count; i++)
		valve->channels[i] = (struct watermark_channel){.time = INT64_MIN, .aligned = true};
}

void watermark_valve_free(struct watermark_valve *valve)
{
	free(valve->channels);
	valve->channels = NULL;
}

void watermark_valve_leave_out(struct watermark_valve *valve, uint32_t channel)
{
	valve->channels[channel].absent = true;
}

/* Moves the subtask's watermark on to `time` if that is later. */
static unsigned move_on(struct watermark_valve *valve, int64_t time)
{
	if (time <= valve->time)
		return 0;
	valve->time = time;
	return WATERMARK_MOVED;
}

/* Moves on to the least watermark of the channels that count; nothing happens when none does. */
static unsigned settle(struct watermark_valve *valve)
{
	int64_t least = INT64_MAX;
	bool any = false;
	for (uint32_t i = 0; i < valve->count; i++) {
		const struct watermark_channel *channel = &valve->channels[i];
		if (channel->absent || channel->idle || !channel->aligned)
			continue;
		any = true;
		if (channel->time < least)
			least = channel->time;
	}
	return any ? move_on(valve, least) : 0;
}

/* Whether every channel is idle. */
static bool all_idle(const struct watermark_valve *valve)
{
	bool any = false;
	for (uint32_t i = 0; i < valve->count; i++) {
		if (valve->channels[i].absent)
			continue;
		if (!valve->channels[i].idle)
			return false;
		any = true;
	}
	return any;
}

/* The largest watermark of all channels: what a subtask whose inputs are all idle has reached. */
static int64_t largest_time(const struct watermark_valve *valve)
{
	int64_t time = INT64_MIN;
	for (uint32_t i = 0; i < valve->count; i++)
		if (!valve->channels[i].absent && valve->channels[i].time > time)
			time = valve->channels[i].time;
	return time;
}

unsigned watermark_valve_advance(struct watermark_valve *valve, uint32_t channel, int64_t time)
{
	struct watermark_channel *one = &valve->channels[channel];
	if (one->idle || time <= one->time)
		return 0;
	one->time = time;
	if (!one->aligned && time >= valve->time)
		one->aligned = true;
	return settle(valve);
}

unsigned watermark_valve_set_idle(struct watermark_valve *valve, uint32_t channel, bool idle)
{
	struct watermark_channel *one = &valve->channels[channel];
	if (one->idle == idle)
		return 0;
	one->idle = idle;
	if (!idle) {
		one->aligned = one->time >= valve->time;
		unsigned changes = valve->idle ? WATERMARK_STATUS : 0;
		valve->idle = false;
		return changes | settle(valve);
	}
	one->aligned = false;
	if (!all_idle(valve))
		return settle(valve);
	valve->idle = true;
	return WATERMARK_STATUS | move_on(valve, largest_time(valve));
}

int64_t watermark_behind(int64_t largest, int64_t out_of_orderness_ms)
{
	int64_t behind = 0;
	if (__builtin_sub_overflow(largest, out_of_orderness_ms, &behind) || behind == INT64_MIN)
		return INT64_MIN;
	return behind - 1;
}
