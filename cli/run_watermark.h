/*
 * Event time at the inputs of one subtask, as Flink's watermark valve keeps it: the subtask's watermark is the least of
 * its channels' (a channel is one producer's subtask on one input), channels that are idle do not hold it back, and one
 * that comes back from idleness counts again once it has caught up.
 */
#ifndef CLI_RUN_WATERMARK_H
#define CLI_RUN_WATERMARK_H

#include <stdbool.h>
#include <stdint.h>

struct watermark_channel {
	int64_t time; /* ms; INT64_MIN before the first */
	bool absent;  /* nobody sends on it */
	bool idle;
	bool aligned; /* it counts */
};

struct watermark_valve {
	struct watermark_channel *channels;
	uint32_t count;
	int64_t time; /* the subtask's watermark; INT64_MIN before the first */
	bool idle;    /* all channels are */
};

/* What a change at one channel did to the subtask; bits. */
enum { WATERMARK_MOVED = 1, WATERMARK_STATUS = 2 };

/* Starts with so many channels, all active; ends the process in words when memory is out. Frees. */
void watermark_valve_init(struct watermark_valve *valve, uint32_t count);
void watermark_valve_free(struct watermark_valve *valve);

/* Says that nobody sends on a channel. Before anything else. */
void watermark_valve_leave_out(struct watermark_valve *valve, uint32_t channel);

/* The watermark of the channel `at` moved to `time`. */
unsigned watermark_valve_advance(struct watermark_valve *valve, uint32_t channel, int64_t time);

/* The channel `at` went idle, or came back. */
unsigned watermark_valve_set_idle(struct watermark_valve *valve, uint32_t channel, bool idle);

/* The watermark behind a largest timestamp: Flink's bounded out-of-orderness, never below the smallest int64. */
int64_t watermark_behind(int64_t largest, int64_t out_of_orderness_ms);

#endif
