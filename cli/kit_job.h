/*
 * The job of a test case: what Flink makes of a pipeline, or of one segment of it, with every choice made in a fixed order.
 *
 *   event --> producers --> subtask: queue --> session (kit_slot.h) --> outputs --> consumers, down to the sinks
 *
 * One event is worked off to its end before the next: segments in the order of their ids, which no record runs against, subtasks in
 * theirs, one message at a time. All sessions are served by one worker. Time is what the case says: event time moves by watermarks that
 * the case sends, processing time by its `advance`, and each tick that a segment asks for on the way comes at its own time.
 */
#ifndef CLI_KIT_JOB_H
#define CLI_KIT_JOB_H

#include "cli/kit_case.h"
#include "cli/kit_slot.h"
#include "cli/kit_state.h"
#include "cli/run_partition.h"
#include "cli/run_watermark.h"

/* A sink, or a route of the segment that is run alone. */
struct kit_sink {
	const char *name;
	bool discards; /* nobody has to expect what it gets */
	struct kit_record *records;
	size_t count, capacity;
	size_t looked_at; /* by expectations before */
};

/* The way from a producer to one consumer. */
struct kit_edge {
	uint32_t route;
	enum partition partition;
	struct kit_stage *stage; /* the consumer; or */
	struct kit_sink *sink;   /* this one */
	uint32_t input;          /* of the consumer */
	uint32_t first_channel;  /* of the consumer's valves */
};

/* A source, or what a segment writes: its subtasks feed the same edges. */
struct kit_producer {
	const char *name;
	uint32_t parallelism;
	struct kit_edge *edges;
	uint32_t edge_count;
	struct partitioner *partitioners; /* by subtask and edge */
	uint32_t next;                    /* SOURCE: the subtask that the next record comes from */
	int64_t watermark;                /* SOURCE: the last one; INT64_MIN: none */
	bool idle;                        /* SOURCE */
	const char *timestamp;            /* SOURCE: its jq program, or NULL */
	int64_t out_of_orderness_ms;      /* SOURCE */
};

/* A message that waits for its session. */
struct kit_message {
	uint32_t kind;    /* TO_WORKER_... */
	int64_t value;    /* of a watermark, a status, a barrier */
	uint8_t *records; /* BATCH: record fields, one behind the other */
	size_t size, capacity;
	uint32_t count;
};

struct kit_subtask {
	struct kit_stage *stage;
	uint32_t index, channel;
	uint64_t seq;
	int64_t wakeup_ms; /* processing time of the tick that is wanted; 0: none */
	struct watermark_valve valve;
	uint32_t open; /* channels that have not ended */
	struct kit_message *queue;
	size_t first, count, capacity;
};

struct kit_stage {
	const struct segment *segment;
	bool runs; /* false: not a part of this case */
	uint32_t parallelism, channels;
	struct kit_subtask *subtasks;
	struct kit_producer out;
	struct kit_states states;
};

struct kit_job {
	const struct descriptor *descriptor;
	const struct segment *alone; /* the one segment that is run, or NULL */
	struct pool pool;            /* what sinks got; names */
	struct kit_slot slot;
	struct kit_stage *stages;
	struct kit_producer *sources;
	size_t source_count;
	struct kit_sink *sinks;
	size_t sink_count;
	uint32_t parallelism;
	int64_t now_ms;
	uint64_t checkpoint;
	struct wire_batch batch; /* outputs at hand */
	uint64_t patience_ms;
	int log;
	bool follows;     /* sources send their own watermarks behind each record */
	bool failed;      /* the session did, or what runs it: */
	bool broken;      /* the case cannot be run, whatever it expects */
	const char *step; /* that failed; "" when it was none */
	char failure[2048];
};

/* Puts the job together and opens its sessions. `segment`: run this one alone, unless NULL. False: the job has failed. */
bool kit_job_start(struct kit_job *job, const struct descriptor *descriptor, const struct kit_case *kit,
		   uint64_t patience_ms, int log);

/* Works one event off. False: the job has failed. EXPECT is not its business. */
bool kit_job_event(struct kit_job *job, struct kit_file *file, const struct kit_event *event);

/* The sink of a name, or NULL. */
struct kit_sink *kit_job_sink(struct kit_job *job, const char *name);

void kit_job_stop(struct kit_job *job);

#endif
