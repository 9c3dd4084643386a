/*
 * The job that the local runner runs: what Flink would make of a descriptor, on one machine and in one thread.
 *
 *   source_reader --outlet--> subtask --outlet--> subtask --outlet--> sink_writer
 *                             (a Session with the sidecar)
 *
 * A stage is a segment, with one subtask for each of its parallelism. A producer (a source's subtask or a segment's) has
 * an outlet, which knows every edge that leads away from it. Records are pushed along edges; a consumer that is full
 * refuses, and the producer keeps the record and stops reading until there is room: nothing in between grows.
 * Everything is owned by the graph. The first thing that goes wrong is kept in `failure`; the runner then stops.
 *
 * With --checkpoint (run_checkpoint.h) barriers travel along the same edges, between the records: whoever has sent one waits
 * (outlet_is_held) until all of its consumers have passed it on.
 */
#ifndef CLI_RUN_GRAPH_H
#define CLI_RUN_GRAPH_H

#include <jv.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/client.h"
#include "cli/run_align.h"
#include "cli/run_partition.h"
#include "cli/run_state.h"
#include "cli/run_watch.h"
#include "cli/run_watermark.h"
#include "descriptor/descriptor.h"
#include "shared/wire.h"

struct jq_program;
struct run_checkpoint;
struct run_graph;
struct sink_writer;
struct source_reader;
struct stage;
struct store_sink;
struct store_source;
struct subtask;

enum {
	SENT_MAX = 16,        /* messages of a session that are not answered yet */
	SENT_BATCHES_MAX = 8, /* so many, and batches wait; the rest is for watermarks and ticks */
	SENT_IDLE = 2,        /* fewer, and a batch goes out however small it is */
	BATCH_RECORDS_MAX = 1024,
	WINDOW_MOST = SENT_BATCHES_MAX * BATCH_RECORDS_MAX, /* records of a session that are not answered yet */
	WINDOW_LEAST = 32,
	WINDOW_TARGET_MS = 20, /* so long does the window of a session keep its worker busy */
	BATCH_BYTES_MAX = 256 << 10,
	WATERMARK_INTERVAL_MS = 200, /* as Flink's pipeline.auto-watermark-interval */
};

/* What became of a record that was offered. */
enum offer { OFFER_TAKEN, OFFER_FULL, OFFER_FAILED };

/* The way from a producer to one consumer. */
struct edge {
	uint32_t route;
	enum partition partition;
	struct stage *stage;      /* the consumer; or */
	struct sink_writer *sink; /* this one */
	uint32_t input;           /* of the consumer */
	uint32_t first_channel;   /* of the consumer's valves; the producer's subtask is added */
};

struct edges {
	struct edge *list;
	uint32_t count;
};

/* Everything that leads away from one subtask of a producer. */
struct outlet {
	const struct edges *edges;
	struct partitioner *partitioners; /* one per edge */
	uint32_t subtask;
	uint32_t at; /* edges that the record at hand has passed already */
	uint64_t barrier,
	    barrier_through; /* the last one sent; and the last one that all consumers are known to have passed */
};

/* ---- Outlets (run_graph.c) ---- */

/* Pushes a record along every edge of its route. OFFER_FULL: some took it; offer it again when there is room. */
enum offer outlet_push(struct run_graph *graph, struct outlet *outlet, const struct wire_record *record);

/* Tells every consumer about event time, idleness, the end. */
void outlet_watermark(struct outlet *outlet, int64_t time);
void outlet_idle(struct outlet *outlet, bool idle);
void outlet_end(struct outlet *outlet);

/* Sends a barrier to every consumer. From then on the outlet is held: nothing may be pushed or told until all have passed it. */
void outlet_barrier(struct outlet *outlet, uint64_t barrier);
bool outlet_is_held(struct outlet *outlet);

/* ---- Subtasks: sessions with the sidecar (run_subtask.c) ---- */

enum subtask_state {
	SUBTASK_OPENING,   /* Open is sent */
	SUBTASK_RESTORING, /* state is being sent */
	SUBTASK_RUNNING,
	SUBTASK_ENDING,  /* EndInput is sent */
	SUBTASK_ENDED,   /* and acknowledged; the last checkpoint is still to come */
	SUBTASK_CLOSING, /* Close is sent */
	SUBTASK_CLOSED,
};

/* A message that is not answered yet. */
struct sent {
	uint64_t seq;
	uint32_t kind;      /* TO_WORKER_... */
	int64_t value;      /* the watermark, or whether idle */
	uint32_t records;   /* of a batch */
	uint64_t sent_ns;   /* of a batch */
	grpc_slice message; /* of a batch: to show the record that a step failed on */
};

struct subtask {
	struct run_graph *graph;
	struct stage *stage;
	uint32_t index;
	enum subtask_state state;
	struct client_stream *stream;
	uint64_t seq, message_max, record_max;
	int64_t processing_ms;
	uint32_t slot;
	struct sent sent[SENT_MAX]; /* a circle, oldest first */
	uint32_t sent_first, sent_count;
	uint32_t window, in_flight; /* records that may be unanswered, and that are */
	bool window_limits;         /* a batch waits for it */
	/* The batch that is being filled. */
	uint8_t *batch;
	size_t batch_size, batch_capacity;
	uint32_t batch_records;
	bool batch_closed; /* the next record would not fit */
	/* What goes out behind it. */
	struct watermark_valve valve;
	struct aligner aligner;
	bool watermark_due, status_due, barrier_due;
	bool barrier_sent;                    /* nothing goes out until it is acknowledged */
	uint64_t acknowledged;                /* the last barrier that was */
	int64_t cut_watermark;                /* the watermark as it was at the last barrier */
	struct subtask_state_flow state_flow; /* with --checkpoint: state on its way in or out */
	bool idle_told;
	int64_t wakeup_ms; /* processing time of the tick that is wanted; 0: none */
	bool ticking;
	/* The answer at hand. */
	struct wire_batch answer;
	grpc_slice answer_message;
	uint32_t answer_at;
	bool answering, answer_more;
	/* The answer at hand was not looked into yet: the outlet is held, or the state that it brings has to wait. */
	bool waiting;
	struct outlet outlet;
	bool dirty;
	struct subtask *next_dirty;
};

struct stage {
	const struct segment *segment;
	struct subtask *subtasks; /* segment->parallelism of them */
	struct edges edges;
	uint32_t channels;        /* of each subtask's valve */
	struct stage_state state; /* with --checkpoint: what its sessions remember */
	uint64_t records_in, records_out, batches;
};

/* Opens the session. */
void subtask_open(struct subtask *subtask);

/* Takes a record over by copy, into the batch that is being filled. */
enum offer subtask_offer(struct subtask *subtask, const struct wire_record *record);

/* What an outlet tells. */
void subtask_watermark(struct subtask *subtask, uint32_t channel, int64_t time);
void subtask_idle(struct subtask *subtask, uint32_t channel, bool idle);
void subtask_channel_end(struct subtask *subtask, uint32_t channel);

/* Sends what is due: the batch, and when it is out of the way what goes behind it. */
void subtask_pump(struct subtask *subtask);

/* An event of the session's stream. */
void subtask_event(struct subtask *subtask, const struct client_event *event);

/* What an outlet tells: a channel has delivered a barrier. */
void subtask_barrier(struct subtask *subtask, uint64_t barrier);

/* Goes on with an answer that a full or aligning consumer stopped. False: it still does. */
bool subtask_resume(struct subtask *subtask);

/* Closes the session of a subtask that has ended. */
void subtask_finish(struct subtask *subtask);

/* The next message, with at most one number in its body; it must be sent, and will be answered. */
grpc_slice subtask_control_message(struct subtask *subtask, uint32_t kind, bool has_number, int64_t number);

/* Puts the fields behind a body that every message carries: the next seq, and the time. */
void subtask_put_envelope(struct subtask *subtask, struct wire_writer *writer);

/* Its session is open, and all of its state is in place: it takes records. */
void subtask_run(struct subtask *subtask);

/* The sidecar did what it must not do: `what` completes "the sidecar ...". */
void subtask_protocol_failed(struct subtask *subtask, const char *what);

/* Where a subtask is, for messages: segment "x", and which subtask if there are several. Returns `text`. */
const char *subtask_place(const struct subtask *subtask, char *text, size_t size);

/* Lets go of what it holds; the stream is the client's. Once or more, as source_close and sink_close. */
void subtask_close(struct subtask *subtask);

/* ---- Sources (run_source.c) ---- */

struct source_reader {
	struct run_graph *graph;
	struct source source; /* a copy: --input may have changed it */
	struct edges edges;
	struct outlet *outlets; /* one per subtask of the source */
	struct watch_item item; /* its descriptor; -1: a generator */
	bool waits;             /* for the item */
	bool pollable;          /* reading may block */
	uint8_t *buffer;        /* FILE: what was read and not taken yet is start to end */
	size_t start, end, capacity, scanned;
	bool at_end;               /* of the file */
	uint64_t made, started_ns; /* GENERATOR */
	struct jq_program *program, *timestamp;
	struct wire_record record; /* the record at hand */
	uint32_t record_outlet;
	bool has_record;
	jv text; /* GENERATOR: what the payload points into */
	int64_t largest, watermark;
	uint64_t watermark_ns, record_ns;
	bool idle, ended, blocked;
	uint64_t records, bytes;                  /* of this run */
	uint64_t records_before, position_before; /* what runs before it have read */
	uint64_t barrier;                         /* the last one sent */
	char *place;                              /* with --checkpoint: the absolute path */
};

/* Opens the file, compiles the programs. False: it said so in graph->failure. */
bool source_open(struct source_reader *reader);

/* All consumers are there: the subtasks that have nothing to read end. */
void source_begin(struct source_reader *reader);

/* Reads and pushes on for a while; after the last record come the largest watermark and the end. */
void source_turn(struct source_reader *reader);

/* When it has something to do by itself (CLOCK_MONOTONIC ns; 0: now); UINT64_MAX: never. */
uint64_t source_deadline(struct source_reader *reader);

/* Reads nothing more: the record at hand is the last one. */
void source_stop(struct source_reader *reader);

/* How far it has read: bytes of a file, records of a generator. The record at hand counts as read. */
uint64_t source_position(const struct source_reader *reader);

/* Goes on where a run before it stood. Before source_begin. False: the file is not what it was; graph->failure says so. */
bool source_resume(struct source_reader *reader, const struct store_source *before);

/* Whether there is nothing more to read. */
bool source_is_read(const struct source_reader *reader);

/* Lets go of what it holds. */
void source_close(struct source_reader *reader);

/* ---- Sinks (run_sink.c) ---- */

struct sink_writer {
	struct run_graph *graph;
	struct sink sink; /* a copy: --output may have changed it */
	struct watch_item item;
	bool waits, pollable;
	/* The writer whose buffer takes its lines: itself, or the first on the same output. */
	struct sink_writer *through;
	uint8_t *buffer; /* start to end is not written yet */
	size_t start, end, capacity;
	struct aligner aligner;
	bool ended;
	uint64_t records, bytes;                /* of this run */
	uint64_t records_before, length_before; /* what runs before it have written */
	uint64_t fingerprint;                   /* of the file, as it was last synced */
	char *place;                            /* with --checkpoint: the absolute path */
};

/* Opens the file, and makes the folders above it. False: it said so in graph->failure. */
bool sink_open(struct sink_writer *writer);

/* Takes a record's payload over by copy, as a line. */
enum offer sink_offer(struct sink_writer *writer, const struct wire_record *record);

/* Writes out what it holds, as far as that does not block. */
void sink_flush(struct sink_writer *writer);

/* One producer's subtask has ended; the last one ends the sink, once everything is written. */
void sink_channel_end(struct sink_writer *writer);

/* One producer's subtask has delivered a barrier; the last one has everything before it written and synced. */
void sink_barrier(struct sink_writer *writer, uint64_t barrier);

/* Bytes of the file, with all that was taken over. */
uint64_t sink_length(const struct sink_writer *writer);

/* Goes on where a run before it stood. False: the file is not what it was; graph->failure says so. Changes nothing yet: */
bool sink_resume(struct sink_writer *writer, const struct store_sink *before);

/* cuts the file to that length. */
bool sink_cut(struct sink_writer *writer);

/* Lets go of what it holds. */
void sink_close(struct sink_writer *writer);

/* ---- The graph (run_graph.c) ---- */

struct run_graph {
	const struct descriptor *descriptor;
	struct client *client;
	const void *session_method;
	struct watch *watch;
	uint32_t slots;
	struct stage *stages;              /* one per segment */
	struct source_reader *sources;     /* one per source */
	struct sink_writer *sinks;         /* one per sink */
	struct subtask *dirty;             /* those that may have something to send */
	bool room;                         /* a consumer has room again */
	struct run_checkpoint *checkpoint; /* NULL: none are taken */
	uint32_t subtasks, opened, ended, closed, sinks_ended;
	uint64_t records_left; /* --limit */
	uint64_t records_in, records_out;
	char jvm_uuid[40];
	bool failed;
	bool refused;         /* the failure is that the checkpoint does not fit what is there */
	bool connection_lost; /* the failure is only that a stream broke: the sidecar may know better */
	char failure[4096];
};

/* Puts stages, edges and outlets together; nothing is opened yet. */
void run_graph_create(struct run_graph *graph, const struct descriptor *descriptor, uint32_t slots);

/* Opens all sessions. */
void run_graph_open(struct run_graph *graph, struct client *client, struct watch *watch);

/* Sends what is due everywhere, and lets those go on who were stopped by a full consumer. */
void run_graph_pump(struct run_graph *graph);

/* Marks a subtask as having something to send. */
void run_graph_mark(struct run_graph *graph, struct subtask *subtask);

/* Sends ticks whose time has come; the time of the next one (CLOCK_MONOTONIC ns; UINT64_MAX: none). */
uint64_t run_graph_tick(struct run_graph *graph);

/* Whether everything came to its end. */
bool run_graph_done(const struct run_graph *graph);

/* Keeps the first thing that went wrong. */
void run_graph_fail(struct run_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for what does not fit the checkpoint that is to be gone on from. Returns false. */
bool run_graph_refuse(struct run_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Closes sources, sinks and sessions, and lets go of watch and gRPC: before those are closed. Once or more. */
void run_graph_close(struct run_graph *graph);

/* Frees everything. */
void run_graph_free(struct run_graph *graph);

/* A payload for people: cut short, control characters and what is no UTF-8 replaced. Returns `text`. */
const char *payload_excerpt(struct view payload, char *text, size_t size);

#endif
