/*
 * A pipeline as a person wrote it: sources, steps and sinks with their options, and what each says it reads `from`.
 *
 * The work goes through here in this order: pipeline_overlay (config.yaml over pipeline.yaml), pipeline_read (options and
 * references), pipeline_resolve (names to things, order, what nobody reads), then cut.h. Used inside descriptor/ alone.
 */
#ifndef DESCRIPTOR_PIPELINE_H
#define DESCRIPTOR_PIPELINE_H

#include "descriptor/options.h"

/* What something reads from: a source, a step, or a route of a step. */
struct reference {
	const struct node *node; /* where it says so; for a `from` left away, the thing itself */
	bool resolved;
	bool from_source;
	uint32_t index;        /* of the source or step */
	uint32_t route;        /* of that step; 0 when it has none */
	bool dead_letters;     /* of that step, and not its output */
	bool all_dead_letters; /* of all steps whose own nobody reads by name; until those are known */
};

struct pipeline_source {
	struct source source; /* all but its parallelism's use is final */
	const struct node *at;
	uint32_t readers;
};

struct pipeline_step {
	const char *name; /* NULL: broken, and said so */
	int kind;         /* enum step_kind; -1: broken, and said so */
	const struct node *at;
	const struct option *options;
	size_t option_count;
	uint32_t parallelism;
	enum partition partition; /* how it wants to be fed; FORWARD: it does not say */
	const char *partition_by; /* the program of CUSTOM */
	const struct node *partition_at;
	const char *segment; /* the name it asks for, or NULL */
	const struct node *segment_at;
	const struct node *from; /* or NULL: left away */
	struct reference *inputs;
	size_t input_count;
	const struct option_item *routes; /* their names; none: one unnamed output */
	size_t route_count;
	uint32_t *readers; /* of each route, or of the one output */
	enum error_policy policy;
	bool policy_own; /* it says so itself */
	struct error_rules rules;
	uint32_t letters_named;   /* readers of its dead letters by name */
	uint32_t letters_readers; /* all readers of them */
};

struct pipeline_sink {
	struct sink sink;
	const struct node *at;
	const struct node *from; /* or NULL: left away */
	struct reference *inputs;
	size_t input_count;
};

struct pipeline {
	const char *name;
	uint32_t parallelism, max_parallelism;
	enum error_policy policy; /* of steps that do not say theirs */
	const struct node *policy_at;
	struct error_rules rules; /* likewise */
	const struct state_name *drop_state;
	size_t drop_state_count;
	struct pipeline_source *sources;
	size_t source_count;
	struct pipeline_step *steps; /* as written */
	size_t step_count;
	struct pipeline_sink *sinks;
	size_t sink_count;
	uint32_t *order; /* the steps so that each comes after what it reads from; as written wherever that holds */
};

/* Puts what a deployment's file says over a pipeline's document. Nodes of both stay in use. */
void pipeline_overlay(struct document *document, const struct document *config, struct diagnostics *diagnostics);

/* Reads a pipeline's document; findings for whatever is wrong in it. */
void pipeline_read(struct pipeline *pipeline, const struct reading *reading, const struct document *document);

/* Finds what everything reads from, and the order of the steps. Findings for names that lead nowhere, circles, and outputs
 * that nobody reads. */
void pipeline_resolve(struct pipeline *pipeline, const struct reading *reading);

#endif
