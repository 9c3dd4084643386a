/*
 * Options out of a map, by the tables: the same reading for pipelines and for descriptors.
 */
#ifndef DESCRIPTOR_OPTIONS_H
#define DESCRIPTOR_OPTIONS_H

#include "descriptor/compile.h"
#include "descriptor/document.h"
#include "descriptor/kinds.h"

enum {
	OPTION_TEXT_MAX = 64 << 10, /* bytes of one text or program */
	OPTION_ITEMS_MAX = 1000,    /* of a list or map */
	OPTION_PROGRAMS_MAX = 1000, /* of a whole pipeline: libjq takes milliseconds for each */
};

/* What all readings of one file share. */
struct reading {
	struct pool *pool; /* where the results live */
	struct diagnostics *diagnostics;
	program_check *program; /* or NULL: programs are not looked into */
	size_t *programs;       /* how many there were so far */
};

/* Text as a person gives it: not a map, not nothing, not too long. NULL and a finding otherwise; a copy in the pool. */
const char *read_text(const struct reading *reading, const struct node *node, const char *what);

/* A name: a letter or _, then letters, digits, _ and -. NULL and a finding otherwise. */
const char *read_name(const struct reading *reading, const struct node *node, const char *what);

/* The same for names of segments and of the steps in them, which may join two names by `..`. */
const char *read_joined_name(const struct reading *reading, const struct node *node, const char *what);

/* A jq program, which is looked into if programs are. NULL and a finding otherwise. */
const char *read_program(const struct reading *reading, const struct node *node, const char *what);

/* A whole number within bounds, 0 and a finding otherwise; `fallback` when the node is NULL. */
uint32_t read_number(const struct reading *reading, const struct node *node, const char *what, uint32_t least,
		     uint32_t most, uint32_t fallback);

/* The kind that the key `kind` of a map names; -1 and a finding otherwise. `what` describes the map, `at` is its place. */
int read_kind(const struct reading *reading, const struct node *map, const struct node *at, enum scope scope,
	      const char *what);

/* An error policy; `fallback` when the node is NULL, or after a finding. */
enum error_policy read_error_policy(const struct reading *reading, const struct node *node, const char *what,
				    enum error_policy fallback);

/* What else a map says of failures; what it does not say is as in `fallback`, or with NULL as the table has it. */
struct error_rules read_error_rules(const struct reading *reading, const struct node *map, const char *what,
				    const struct error_rules *fallback);

/* One of them as an option. Whether it is another than what it is where nobody says anything. */
bool error_rule_option(const struct error_rules *rules, size_t rule, struct option *option);

/* A list of states, each `step.state`; none when the node is NULL. Findings for what is no such list. */
const struct state_name *read_state_names(const struct reading *reading, const struct node *node, const char *what,
					  size_t *count);

/* All options of a kind out of a map, defaults filled in; findings for what is missing or wrong. */
const struct option *read_options(const struct reading *reading, const struct node *map, const struct node *at,
				  enum scope scope, unsigned kind, const char *what, size_t *count);

/* Findings for keys of a map that are neither options of the kind nor among `own`. */
void check_option_keys(const struct reading *reading, const struct node *map, enum scope scope, unsigned kind,
		       const char *what, const char *const *own, size_t own_count);

/* Takes out of options what struct source, struct step_spec (whose kind is known) and struct sink have fields for. */
void source_fill(struct source *source, const struct option *options, size_t count);
void step_fill(struct step_spec *step, const struct option *options, size_t count, struct pool *pool);
void sink_fill(struct sink *sink, const struct option *options, size_t count);

/* The items of the step's `routes`, or none when the kind has no routes. */
const struct option *routes_option(const struct option *options, size_t count);

#endif
