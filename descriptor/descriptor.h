/*
 * The descriptor, read, checked and frozen: what front, workers, runner and the Flink application agree on.
 *
 * A descriptor.yaml is a YAML map of `sources` (name to config), `steps` (one entry per segment, in segment-id order,
 * each `{step_name, config}`) and `sinks` (name to config). `bridgectl compile` writes it; nobody edits it by hand.
 * The struct is read-only once loaded, shared by fork, and freed as a whole.
 */
#ifndef DESCRIPTOR_DESCRIPTOR_H
#define DESCRIPTOR_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/view.h"

struct diagnostics; /* descriptor/diagnostics.h */

enum step_kind {
#define STEP_KIND(name, closes, help) STEP_##name,
#include "descriptor/steps.def"
	STEP_KIND_COUNT
};

enum option_type {
	OPTION_PROGRAM,
	OPTION_TEXT,
	OPTION_NUMBER,
	OPTION_BYTES,
	OPTION_DURATION,
	OPTION_FORM,
	OPTION_LIST,
	OPTION_MAP,
	OPTION_ROUTES,
	OPTION_CHOICE,
	OPTION_BOOL
};

enum payload_form { FORM_JSON, FORM_TEXT, FORM_BYTES };

/* One pair of a MAP or ROUTES option, or one item of a LIST (value NULL). */
struct option_item {
	const char *name;
	const char *value;
};

/* One option of one step, source or sink, defaults filled in. */
struct option {
	const char *name;
	enum option_type type;
	bool given;                      /* by the person, or by a default */
	const char *text;                /* PROGRAM, TEXT, CHOICE */
	int64_t number;                  /* NUMBER, BYTES, DURATION (ms), FORM (enum payload_form), BOOL */
	const struct option_item *items; /* LIST, MAP, ROUTES */
	size_t item_count;
};

/* What becomes of a record that a step fails on. */
enum error_policy {
	ON_ERROR_FAIL, /* the session fails, and with it Flink's task */
	ON_ERROR_SKIP, /* it is left out, and counted */
	ON_ERROR_DEAD_LETTER, /* it leaves by the step's dead-letter route, as it came to the step, with headers that say why */
	ON_ERROR_COUNT
};

/* The word of `retry_on` for failures that the step itself calls transient. */
#define RETRY_ON_TRANSIENT "transient"

/* What else is said of failures. */
enum error_rule {
#define STEP_RULE(name, type, fallback, least, most, help) RULE_##name,
#include "descriptor/steps.def"
	ERROR_RULE_COUNT
};
struct error_rules {
	int64_t of[ERROR_RULE_COUNT];       /* those that are numbers, times in ms */
	const struct option_item *retry_on; /* the one that is a list; none: as nobody says anything */
	size_t retry_on_count;
};

struct step_spec {
	const char *name;
	enum step_kind kind;
	uint32_t index;               /* over all segments of the descriptor */
	const struct option *options; /* all options of the kind, in the table's order */
	size_t option_count;
	enum error_policy policy;
	uint32_t dead_letter_route; /* of the segment; ON_ERROR_DEAD_LETTER alone */
	struct error_rules rules;
	const char *key; /* STEP_key_by: what makes its keys, the program or `python MODULE.FUNCTION`; else NULL */
};

/* How records reach a segment or sink from what feeds it. */
enum partition {
	PARTITION_FORWARD,
	PARTITION_REBALANCE,
	PARTITION_HASH,
	PARTITION_BROADCAST, /* every subtask gets every record */
	PARTITION_CUSTOM,    /* by what a program makes of the payload */
	PARTITION_COUNT
};

/* One thing that feeds a segment or a sink. */
struct input {
	bool from_source;
	uint32_t index; /* of the source, or id of the segment */
	uint32_t route; /* of that segment; 0 when it has no routes */
	enum partition partition;
	const char *partition_by; /* the program of PARTITION_CUSTOM */
};

struct segment {
	uint32_t id;
	const char *name;
	const char *cut; /* why it ends where it ends, for people */
	uint32_t parallelism, max_parallelism;
	bool keyed; /* its input is partitioned by key */
	const struct step_spec *steps;
	size_t step_count;
	const struct input *inputs;
	size_t input_count;
	/* Names; none: one unnamed output, route 0. With steps whose policy is ON_ERROR_DEAD_LETTER there is a route for each of
	 * them behind those of the last step; if that has none, everything else leaves by route 0, "main". */
	const char *const *routes;
	size_t route_count;
};

/* SOURCE_FILE, SOURCE_GENERATOR, SOURCE_KAFKA */
enum source_kind {
#define SOURCE_KIND(symbol, name, splittable, help) SOURCE_##symbol,
#include "descriptor/sources.def"
	SOURCE_KIND_COUNT
};

/* SINK_FILE, SINK_PRINT, SINK_DISCARD, SINK_KAFKA */
enum sink_kind {
#define SINK_KIND(symbol, name, splittable, help) SINK_##symbol,
#include "descriptor/sinks.def"
	SINK_KIND_COUNT
};

/* A source: what this side needs of it by name, and all of its options. */
struct source {
	const char *name;
	enum source_kind kind;
	uint32_t parallelism;
	const char *path;             /* FILE; "-" is standard input */
	uint64_t count;               /* GENERATOR: records to make; 0: no end */
	uint64_t rate;                /* GENERATOR: records per second; 0: as fast as they are taken */
	const char *program;          /* GENERATOR: jq over the running number, from 0; NULL: the number itself */
	const char *timestamp;        /* jq over the payload that yields event time in ms; NULL: time of reading */
	int64_t out_of_orderness_ms;  /* the watermark follows the largest timestamp by this much */
	int64_t idle_ms;              /* 0: never declared idle */
	const struct option *options; /* all options of the kind, in the table's order */
	size_t option_count;
};

struct sink {
	const char *name;
	enum sink_kind kind;
	uint32_t parallelism;
	const char *path; /* FILE; "-" is standard output */
	const struct input *inputs;
	size_t input_count;
	const struct option *options; /* all options of the kind, in the table's order */
	size_t option_count;
};

/* A state by its step and name. */
struct state_name {
	const char *step, *name;
};

struct descriptor {
	const char *pipeline;
	char topology_hash[33]; /* XXH3-128 in hex over segments, inputs, keys and routes; programs are not in it */
	const struct source *sources;
	size_t source_count;
	const struct segment *segments; /* index is the segment id */
	size_t segment_count;
	const struct sink *sinks;
	size_t sink_count;
	uint32_t step_count; /* of all segments */
	/* States of a restored checkpoint that are thrown away where the pipeline has none that they fit. */
	const struct state_name *drop_state;
	size_t drop_state_count;
};

enum {
	DESCRIPTOR_SEGMENTS_MAX = 63, /* a slot has channels for that many sessions */
	DESCRIPTOR_STEPS_MAX = 1000,
	DESCRIPTOR_SOURCES_MAX = 100,
	DESCRIPTOR_SINKS_MAX = 100,
	DESCRIPTOR_INPUTS_MAX = 64, /* of one step, segment or sink */
	DESCRIPTOR_ROUTES_MAX = 100,
	DESCRIPTOR_DROPS_MAX = 1000, /* states to drop */
	DESCRIPTOR_NAME_MAX = 63,    /* bytes of a name that a person gives */
	DESCRIPTOR_PARALLELISM_MAX = 32768,
	DESCRIPTOR_FORMAT_VERSION = 1,
};

/* Reads and checks a descriptor file. On failure NULL, and the reasons are in `diagnostics`. Never runs or compiles a program. */
struct descriptor *descriptor_load(const char *path, struct diagnostics *diagnostics);

/* The same from memory; `file` is what findings call it. */
struct descriptor *descriptor_parse(const char *file, struct view text, struct diagnostics *diagnostics);

/* Writes a descriptor as descriptor_load reads it: the same descriptor, the same bytes. */
void descriptor_write(const struct descriptor *descriptor, FILE *out);

/* Frees a descriptor that was loaded or compiled. */
void descriptor_free(struct descriptor *descriptor);

/* The name of a step kind, and what the table says of it: whether each step of it closes its segment. */
const char *step_kind_name(enum step_kind kind);
bool step_kind_closes_segment(enum step_kind kind);

/* Whether the last step of a segment says which route a record takes; else all that are no dead letters take route 0. */
bool segment_has_own_routes(const struct segment *segment);

/* "fail", "skip", "dead_letter". */
const char *error_policy_name(enum error_policy policy);

/* The names of source kinds, sink kinds and partitions. */
const char *source_kind_name(enum source_kind kind);
const char *sink_kind_name(enum sink_kind kind);
const char *partition_name(enum partition partition);

/* An option of a step by name; never NULL for a name in the table (an assert otherwise). */
const struct option *step_option(const struct step_spec *step, const char *name);

/* Whether its code is that of a Python module. */
bool step_is_python(const struct step_spec *step);

#endif
