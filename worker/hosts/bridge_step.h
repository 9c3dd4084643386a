/*
 * bridge_step.h: what a library must be so that its functions are steps of a pipeline, and what it can call.
 *
 * A library exports one symbol, bridge_step_library(), which hands out a table of entry points. Flink Bridge loads the library in a
 * worker process and calls them, all from the one thread of that process:
 *
 *      load      the step's code is wanted: look at the options, compile, import. Also called in processes that only wait to take
 *                over, and by `bridged --check`; so no sockets, no files that are written, no threads
 *      open      the process owns the slot and serves a subtask: connections, caches. One `self` for each subtask
 *      process   a run of records; what it emits or forwards takes their place, in that order
 *      timer     a timer that the step has set is due
 *      watermark event time has moved on (after the timers that this made due)
 *      end       no input will come any more (after the timers that fire at the end)
 *      close     the subtask is gone; not called when the process dies
 *      unload    the code is not wanted any more; not called when the process dies
 *
 * Each of them, and all that is done in it, belongs to a unit of work which happens as a whole or not at all: what is emitted, and every
 * change of state. What a step keeps elsewhere (in `self`, in globals) is a cache: it may be gone at any call, because another process
 * has taken over, and it is not undone when a unit is.
 *
 * Structs that cross the border begin with their size, so that either side may be older. Read records of a run by
 * bridge_run_record(), which knows how large they are. Texts are UTF-8. Pointers that are handed to a step are good until it returns,
 * those that it hands over until the call that takes them returns, where nothing else is said.
 *
 * Plain C11, and C++; needs no other header of ours. docs/hosts.md explains it with examples.
 */
#ifndef FLINK_BRIDGE_STEP_H
#define FLINK_BRIDGE_STEP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface. It changes only when what was there before would break; what is new comes at the ends of structs. */
#define BRIDGE_STEP_ABI 1

/* The name of the one symbol that a library exports. */
#define BRIDGE_STEP_SYMBOL "bridge_step_library"

#if defined(__GNUC__)
#define BRIDGE_STEP_EXPORT __attribute__((visibility("default")))
#else
#define BRIDGE_STEP_EXPORT
#endif

/* What calls return, in both directions. Below zero: it was not done. */
enum bridge_result {
	BRIDGE_OK = 0,
	BRIDGE_NONE = 1,    /* there is nothing, or nothing more */
	BRIDGE_FAILED = -1, /* entry points: the words went to host->fail(); without any it just failed */
	BRIDGE_FULL =
	    -2, /* the unit of work has no room for it: return BRIDGE_FAILED, it will be done again in smaller pieces */
	BRIDGE_TOO_LARGE = -3, /* a key, value or tag that is longer than one may be */
	BRIDGE_NO_KEY = -4,    /* the state is kept by key, and no key is current: see host->use() */
	BRIDGE_UNKNOWN = -5,   /* the pipeline declares no state or route like that for the step */
	BRIDGE_WAITING = -7,   /* process: what it waits for outside is not there yet, see host->wait() */
	BRIDGE_MISUSE = -6     /* not for this kind of state, not at this time, or an argument that makes no sense */
};

/* Bytes; with size 0 `data` may be anything. */
struct bridge_bytes {
	const uint8_t *data;
	size_t size;
};

/* A header of a record. */
struct bridge_header {
	struct bridge_bytes name, value;
};

/* ---- Records ------------------------------------------------------------------------------------------------------------------ */

struct bridge_record {
	struct bridge_bytes payload;
	struct bridge_bytes key; /* of a keyed record; else empty */
	const struct bridge_header *headers;
	int64_t timestamp; /* event time in ms since 1970; INT64_MIN: none */
	uint32_t header_count;
	uint32_t keyed;   /* 1: has a key, even if that is empty */
	uint32_t input;   /* by which of the segment's inputs it came in; 0 of what a step before has made */
	uint32_t ordinal; /* of the input record of the message that it was made from; several may have the same */
};

/* The records of one call, at least one. Only the chain knows how many of them come at once. */
struct bridge_run {
	uint32_t size;  /* of this struct */
	uint32_t count; /* of records */
	size_t stride;  /* bytes from one record to the next */
	const void *records;
};

/* A record of a run by its index, below run->count. */
static inline const struct bridge_record *bridge_run_record(const struct bridge_run *run, uint32_t index)
{
	return (const struct bridge_record *)(const void *)((const uint8_t *)run->records + index * run->stride);
}

/* No record: of what is not made from a single one. */
#define BRIDGE_NO_RECORD UINT32_MAX

/* What is set in a struct bridge_output beside its payload. Without it, it is what the record has that the output is made from. Of what
 * is made from none: no headers; the timestamp of the timer, or event time as far as it is known. The key cannot be set: in a
 * timer it is the timer's. */
enum bridge_output_flags {
	BRIDGE_OUT_TIMESTAMP = 1,
	BRIDGE_OUT_HEADERS = 2,
	/* The payload (and with BRIDGE_OUT_HEADERS what the headers point to, and they themselves) need not be copied: it is that of a
	 * record of this run, or comes from host->memory(). */
	BRIDGE_OUT_STAYS = 4
};

/* A record to emit. */
struct bridge_output {
	uint32_t size;  /* of this struct */
	uint32_t flags; /* BRIDGE_OUT_... */
	uint32_t from;  /* index in the run of the record that it is made from, or BRIDGE_NO_RECORD */
	uint32_t route; /* 0; where the step declares routes, the place of one among them */
	struct bridge_bytes payload;
	int64_t timestamp;
	const struct bridge_header *headers;
	size_t header_count;
};

/* A timer that is due. */
struct bridge_timer {
	uint32_t size;           /* of this struct */
	uint32_t domain;         /* enum bridge_domain */
	int64_t time;            /* that it was set for, ms */
	struct bridge_bytes key; /* which is the current key now */
	struct bridge_bytes tag; /* that it was set with */
};

/* ---- Failures ----------------------------------------------------------------------------------------------------------------- */

enum bridge_failure_flags {
	BRIDGE_TRANSIENT = 1 /* it may succeed when it is done again: what `retries` in the pipeline is about */
};

/* Why an entry point fails. Texts that are left away are empty. */
struct bridge_failure {
	uint32_t size;                 /* of this struct */
	uint32_t flags;                /* BRIDGE_TRANSIENT */
	uint32_t record;               /* index in the run of the one at fault, or BRIDGE_NO_RECORD */
	struct bridge_bytes kind;      /* what kind of failure, in a word: ValueError */
	struct bridge_bytes message;   /* for the person who reads the log */
	struct bridge_bytes traceback; /* where it happened, in several lines */
	struct bridge_bytes kinds;     /* what else it is, a kind in each line: more general ones, other names */
};

/* ---- What the pipeline says ---------------------------------------------------------------------------------------------------- */

/* An option as text: numbers as digits, durations in ms, booleans as true or false. */
struct bridge_option {
	const char *name, *value;
};

enum bridge_state_kind { BRIDGE_VALUE, BRIDGE_MAP, BRIDGE_LIST, BRIDGE_TIMERS };

/* A state that the pipeline declares for the step. */
struct bridge_state_info {
	const char *name;
	uint32_t kind;   /* enum bridge_state_kind */
	uint32_t by_key; /* 1: kept for each key; 0: a list of the whole subtask */
	int64_t ttl;     /* ms; 0: kept for good */
};

/* The step as the pipeline has it. Good for as long as the code is loaded. */
struct bridge_setup {
	uint32_t size;  /* of this struct */
	uint32_t keyed; /* 1: records are partitioned by key */
	const char *segment, *step;
	uint32_t parallelism, max_parallelism;
	const struct bridge_option *settings; /* those that its kind has: library, function, ... */
	size_t setting_count;
	const struct bridge_option *options; /* those under `options:`, in their order */
	size_t option_count;
	const char *const *routes; /* those under `routes:`; none: there is but the main output */
	size_t route_count;
	const struct bridge_state_info *states; /* those under `state:` */
	size_t state_count;
	uint32_t sets_keys; /* 1: the step is a key_by: it gives each record its key, and hands it on as it is */
};

/* ---- What a step can call ------------------------------------------------------------------------------------------------------ */

struct bridge_context; /* of one step: handed to load or open, for the calls below */
struct bridge_state;   /* a state's handle: good until close() */
struct bridge_metric;  /* a metric's handle: likewise */

enum bridge_level { BRIDGE_DEBUG, BRIDGE_INFO, BRIDGE_WARN, BRIDGE_ERROR };
enum bridge_domain { BRIDGE_EVENT_TIME, BRIDGE_PROCESSING_TIME };
enum bridge_metric_kind { BRIDGE_COUNTER, BRIDGE_GAUGE, BRIDGE_HISTOGRAM };

/* Where an iteration over a map or list stands; zeroed to begin. */
struct bridge_iterator {
	uint64_t at, part;
};

/* The calls. Each returns an enum bridge_result, where nothing else is said. In load(), only fail and log can be called; in open(),
 * also state, metric and now; the others in process, timer, watermark and end. */
struct bridge_host {
	uint32_t abi;  /* BRIDGE_STEP_ABI */
	uint32_t size; /* of this struct: a call that lies behind it is not there */

	/* Appends a record to the output. */
	int (*emit)(struct bridge_context *context, const struct bridge_output *output);
	/* Hands `count` records of the run on as they are, from index `first`; cheaper than anything else, and the payload is not
	 * touched. The route as in struct bridge_output. In process() only. */
	int (*forward)(struct bridge_context *context, uint32_t first, uint32_t count, uint32_t route);
	/* Memory until the unit of work is over; NULL: there is no room (as BRIDGE_FULL). */
	void *(*memory)(struct bridge_context *context, size_t size);
	/* Says why an entry point fails; returns BRIDGE_FAILED, so that it can `return host->fail(...)`. */
	int (*fail)(struct bridge_context *context, const struct bridge_failure *failure);
	/* Writes a line into the worker's log, which names the step. */
	void (*log)(struct bridge_context *context, int level, const char *text);
	/* The time in ms: processing time, as the client carries it, or the watermark (INT64_MIN: none yet). */
	int64_t (*now)(struct bridge_context *context, int domain);

	/* Finds or makes a metric of the step; shown by the stats socket. Counters add, gauges are set, histograms count values. NULL: there
	 * are too many, or the name is taken by another kind. Names: letters, digits and _, 63 at most. */
	struct bridge_metric *(*metric)(struct bridge_context *context, const char *name, int kind);
	void (*metric_update)(struct bridge_metric *metric, int64_t value);

	/* The handle of a state that the pipeline declares. NULL: it does not. */
	struct bridge_state *(*state)(struct bridge_context *context, const char *name);
	/* Makes the key of a record of the run the current one, that state by key is about. In a timer, the timer's is. */
	int (*use)(struct bridge_context *context, uint32_t record);

	/* VALUE. Bytes that are handed out are good until the next call that changes state. */
	int (*get)(struct bridge_state *state, struct bridge_bytes *value); /* or BRIDGE_NONE */
	int (*put)(struct bridge_state *state, struct bridge_bytes value);
	int (*remove)(struct bridge_state *state); /* or BRIDGE_NONE */
	/* To be changed in place: `size` bytes, zeroed when there were none of that size. The fast way for counts and sums. */
	int (*edit)(struct bridge_state *state, size_t size, void **bytes, int *is_new);

	/* MAP: in the order in which entries came since the last restore. Entries may be removed while it is iterated, but not put. */
	int (*map_get)(struct bridge_state *state, struct bridge_bytes key, struct bridge_bytes *value);
	int (*map_put)(struct bridge_state *state, struct bridge_bytes key, struct bridge_bytes value);
	int (*map_remove)(struct bridge_state *state, struct bridge_bytes key);
	int (*map_next)(struct bridge_state *state, struct bridge_iterator *iterator, struct bridge_bytes *key,
			struct bridge_bytes *value);
	int (*map_clear)(struct bridge_state *state);
	uint64_t (*map_count)(struct bridge_state *state);

	/* LIST. */
	int (*list_append)(struct bridge_state *state, struct bridge_bytes value);
	int (*list_next)(struct bridge_state *state, struct bridge_iterator *iterator, struct bridge_bytes *value);
	int (*list_clear)(struct bridge_state *state);
	uint64_t (*list_count)(struct bridge_state *state);

	/* TIMERS, of the current key: setting the same (domain, time, tag) twice is setting it once. A tag has 255 bytes at most. */
	int (*timer_set)(struct bridge_state *state, int domain, int64_t time, struct bridge_bytes tag);
	int (*timer_delete)(struct bridge_state *state, int domain, int64_t time, struct bridge_bytes tag);

	/* Waiting for something outside without holding up the slot: threads of the step's own do it, and process() returns BRIDGE_WAITING
	 * when it is not there yet. The unit is undone; the same run comes again once one of these threads has called wake(), and now
	 * and then by itself. Call wait() before looking. BRIDGE_OK: that can be done; *seq and *done say which run this is, so that
	 * it is known again. BRIDGE_MISUSE: not for this call, wait within it. When the run has been worked off, its unit ends with it. */
	int (*wait)(struct bridge_context *context, uint64_t *seq, uint32_t *done);
	/* Has those runs come again for which steps wait. From any thread. */
	void (*wake)(void);

	/* Gives a record of the run its key, before it is handed on. In process(), and where setup->sets_keys says that there is one to
	 * give; a record that is handed on must have been given one. */
	int (*key)(struct bridge_context *context, uint32_t record, struct bridge_bytes key);
};

/* ---- What a library hands out -------------------------------------------------------------------------------------------------- */

enum bridge_step_flags {
	/* Where the pipeline's error policy may leave single records out, give the step one record at a time: for one that cannot do
	 * the good records of a run again after one has failed. Without it a run that fails is undone and done again record by record. */
	BRIDGE_STEP_SINGLE = 1,
	/* All timers fire when the input ends, whatever their time; without it those that are left are dropped. */
	BRIDGE_STEP_FLUSHES = 2
};

/* What load() says of the code. */
struct bridge_loaded {
	uint32_t size;  /* of this struct, set by the caller */
	uint32_t flags; /* BRIDGE_STEP_... */
	void *code;     /* handed to open and unload */
};

/* Entry points return BRIDGE_OK, or BRIDGE_FAILED. Those that may be left away (NULL) are so marked. */
struct bridge_step_library {
	uint32_t abi;  /* BRIDGE_STEP_ABI */
	uint32_t size; /* sizeof(struct bridge_step_library) */

	int (*load)(const struct bridge_host *host, struct bridge_context *context, const struct bridge_setup *setup,
		    struct bridge_loaded *loaded); /* may be NULL */
	void (*unload)(void *code);                /* may be NULL */
	int (*open)(const struct bridge_host *host, struct bridge_context *context, const struct bridge_setup *setup,
		    void *code, void **self);
	void (*close)(void *self); /* may be NULL */
	int (*process)(void *self, const struct bridge_run *run);
	int (*timer)(void *self, const struct bridge_timer *timer); /* may be NULL where no timers are declared */
	int (*watermark)(void *self, int64_t watermark);            /* may be NULL */
	int (*end)(void *self);                                     /* may be NULL */
};

/* The symbol. It may be called more than once, and hands out the same table each time, which stays. */
BRIDGE_STEP_EXPORT const struct bridge_step_library *bridge_step_library(void);

/* ---- Short forms -------------------------------------------------------------------------------------------------------------- */

/* The bytes of a C string. */
static inline struct bridge_bytes bridge_text(const char *text)
{
	struct bridge_bytes bytes;

	bytes.data = (const uint8_t *)text;
	bytes.size = 0;
	while (text[bytes.size] != '\0')
		bytes.size++;
	return bytes;
}

/* Emits a payload made from a record of the run; the rest is that record's. */
static inline int bridge_emit(const struct bridge_host *host, struct bridge_context *context, uint32_t from,
			      const void *data, size_t size)
{
	struct bridge_output output;

	output.size = (uint32_t)sizeof(output);
	output.flags = 0;
	output.from = from;
	output.route = 0;
	output.payload.data = (const uint8_t *)data;
	output.payload.size = size;
	output.timestamp = 0;
	output.headers = NULL;
	output.header_count = 0;
	return host->emit(context, &output);
}

/* Fails on a record of the run (or BRIDGE_NO_RECORD) for some reason, once and for all. */
static inline int bridge_fail(const struct bridge_host *host, struct bridge_context *context, uint32_t record,
			      const char *message)
{
	struct bridge_failure failure;

	failure.size = (uint32_t)sizeof(failure);
	failure.flags = 0;
	failure.record = record;
	failure.kind = failure.traceback = bridge_text("");
	failure.message = bridge_text(message);
	return host->fail(context, &failure);
}

/* An option by its name, or NULL. */
static inline const char *bridge_option_of(const struct bridge_option *options, size_t count, const char *name)
{
	size_t i, k;

	for (i = 0; i < count; i++) {
		for (k = 0; name[k] != '\0' && options[i].name[k] == name[k]; k++)
			;
		if (name[k] == options[i].name[k])
			return options[i].value;
	}
	return NULL;
}

#ifdef __cplusplus
}
#endif

#endif
