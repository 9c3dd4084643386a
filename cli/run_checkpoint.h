/*
 * Checkpoints of the local runner: what makes `bridgectl run --checkpoint FILE` exactly once.
 *
 *   sources  --barrier-->  segments  --barrier-->  sinks          once all have reported, one transaction (run_store.h) makes
 *     |                       |                      |            the checkpoint; then the next one may begin
 *     position                state, watermark       length
 *
 * The protocol is Flink's. A barrier is sent by every source between two records, travels with them, is aligned where inputs meet
 * (run_align.h), and cuts the state of each session (run_state.h). What was read before it is in the checkpoint with all that came of
 * it, and nothing else is. After a crash everything goes on from there: sources are positioned, sessions get their state, and
 * outputs are cut to the lengths that they had.
 *
 * Invariants
 *  K1  One checkpoint is under way at a time.
 *  K2  A source's position is taken when its barrier is sent, with no record at hand that is not delivered.
 *  K3  A subtask reports when its BarrierAck has come; all StateDelta before that are in the transaction. What it sends afterwards
 *      waits unread until the transaction is committed (run_checkpoint_defers), so the transaction holds exactly one checkpoint.
 *  K4  A sink reports when everything before the barrier is in its file and on the disk (fdatasync), so that no committed length
 *      is longer than the file, whatever happens.
 *  K5  Who has ended needs no barrier from its inputs: sources and sinks report where they ended, sessions get theirs directly.
 *  K6  The end of the input is a checkpoint as well: the largest watermark, the end, and then one more barrier into every session;
 *      what comes after it in a later run (lines appended to the files) goes on from there.
 *
 * A stop (Ctrl-C, --limit) takes a checkpoint where it is and drains nothing, so that the run that goes on makes what one run would
 * have made. Watermarks go on where they were; they are kept per subtask, and after rescaling the least of them counts.
 *
 * What cannot be exact is refused: standard input and pipes cannot be read again, standard output cannot be cut.
 */
#ifndef CLI_RUN_CHECKPOINT_H
#define CLI_RUN_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/run_store.h"

struct run_graph;
struct sink_writer;
struct source_reader;
struct subtask;

/* Why a checkpoint is taken. */
enum checkpoint_cause {
	CHECKPOINT_DUE,  /* its time has come */
	CHECKPOINT_STOP, /* the run stops behind it */
	CHECKPOINT_LAST, /* all input is processed: the sessions are closed behind it */
};

struct run_checkpoint {
	const char *path;
	struct run_store *store;
	char *descriptor;               /* the pipeline's, as text */
	struct store_checkpoint before; /* what this run went on from; id 0: it began anew */
	uint64_t interval_ns;
	bool started; /* all sessions run */
	bool under_way;
	bool stop_wanted, stopped;
	enum checkpoint_cause cause; /* of the one under way */
	uint64_t id;                 /* of the one under way, or of the last one */
	uint32_t missing;            /* who has not reported yet */
	uint64_t begun_ns, next_ns;
	/* For people. */
	uint64_t count, last_ns, most_ns, total_ns; /* checkpoints made, and how long they took */
	uint64_t state_bytes, last_state_bytes;     /* of entries in the one to come, and in the last one */
};

/* ---- The life ---- */

/* Whether the pipeline's sources and sinks can be exact, by their kinds. False: it said why on standard error. */
bool run_checkpoint_possible(const struct run_graph *graph);

/* Opens the file and looks whether its checkpoint is of this pipeline, or of one whose state this one can take over (as `bridgectl
 * check --against` has it); sets what stages go on from. Before sources and sinks are opened. Returns false with graph->failure, and
 * graph->refused when it is a matter of the wrong file. */
bool run_checkpoint_open(struct run_checkpoint *checkpoint, struct run_graph *graph, const char *path,
			 uint64_t interval_ns);

/* Positions the opened sources and sinks; nothing is written before all of them fit. */
bool run_checkpoint_resume(struct run_graph *graph);

/* Whether all input was processed by the runs before. */
bool run_checkpoint_nothing_to_do(const struct run_graph *graph);

/* All sessions run: what they remember is theirs from now on. */
void run_checkpoint_start(struct run_graph *graph);

/* Begins a checkpoint that is due, and commits one that is complete. */
void run_checkpoint_turn(struct run_graph *graph);

/* When there is something to do by itself (CLOCK_MONOTONIC ns; 0: now; UINT64_MAX: never). */
uint64_t run_checkpoint_deadline(const struct run_graph *graph);

/* Asks for a last checkpoint where everything is, and the end. */
void run_checkpoint_stop(struct run_graph *graph);

/* Whether that has been made. */
bool run_checkpoint_stopped(const struct run_graph *graph);

/* Closes the file. */
void run_checkpoint_close(struct run_checkpoint *checkpoint);

/* ---- Who takes part; all of them may be asked without checkpoints as well ---- */

/* The barrier that everybody must pass now or has passed; 0: none yet. */
uint64_t run_checkpoint_wanted(const struct run_graph *graph);

/* Whether sources shall read no more. */
bool run_checkpoint_stopping(const struct run_graph *graph);

/* Whether a subtask's state must wait: it belongs to the checkpoint behind the one under way (K3). */
bool run_checkpoint_defers(const struct subtask *subtask);

/* Reports: a source sent its barrier, a subtask's was acknowledged, a sink is written. */
void run_checkpoint_source(struct source_reader *reader);
void run_checkpoint_subtask(struct subtask *subtask);
void run_checkpoint_sink(struct sink_writer *writer);

/* The number of the checkpoint that was gone on from; the file; and bytes of state that went into it. */
uint64_t run_checkpoint_restored(const struct run_graph *graph);
struct run_store *run_checkpoint_store(const struct run_graph *graph);
void run_checkpoint_count(struct run_graph *graph, uint64_t bytes);

/* What tells one file's beginning from another's: a hash of the first and the last 4 KiB of its first `length` bytes. False: they
 * cannot be read. */
bool run_fingerprint(int fd, uint64_t length, uint64_t *fingerprint);

#endif
