/*
 * The tables of step, source and sink kinds (steps.def, sources.def, sinks.def) as data: what reading, checking, the
 * schema and the help of options go through.
 */
#ifndef DESCRIPTOR_KINDS_H
#define DESCRIPTOR_KINDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "descriptor/descriptor.h"

/* SCOPE_FLINK is no part of a pipeline: what a deployment says to Flink, one kind of one name. */
enum scope { SCOPE_SOURCE, SCOPE_STEP, SCOPE_SINK, SCOPE_FLINK, SCOPE_COUNT };

/* What the values of a MAP option are. */
enum value_rule {
	VALUES_TEXT,
	VALUES_PROGRAM,
	VALUES_ENRICH,
	VALUES_AGGREGATE,
	VALUES_STATE,
	VALUES_ADDRESS,
	VALUES_OFFSET
};

/* Whether a kind of source or sink has several subtasks: one alone; as many as it is told to; as many as everything, unless it is told. */
enum split { SPLIT_NEVER, SPLIT_ASKED, SPLIT_ALWAYS };

struct kind_info {
	const char *name;
	bool closes;      /* steps: closes its segment */
	enum split split; /* sources and sinks */
	const char *help;
};

struct option_info {
	enum scope scope;
	const char *kind;
	const char *name;
	enum option_type type;
	bool required;
	const char *fallback; /* default as a person would write it, or NULL */
	const char *help;
};

/* "source", "step", "sink". */
const char *scope_name(enum scope scope);

/* The kinds of a scope; the index is the value of its enum. */
size_t kind_count(enum scope scope);
const struct kind_info *kind_info(enum scope scope, unsigned kind);

/* The kind of that name, or -1. */
int kind_find(enum scope scope, const char *name);

/* The options of a kind, in the table's order. */
const struct option_info *kind_options(enum scope scope, unsigned kind, size_t *count);

/* What can be said of failures: ERROR_RULE_COUNT of them, each of no kind. */
extern const struct option_info error_rule_infos[ERROR_RULE_COUNT];

/* What may stand in an option: bounds of a number, the rule for the values of a MAP, the words of a CHOICE ("a|b"). */
void option_bounds(const struct option_info *info, int64_t *least, int64_t *most);
enum value_rule option_values(const struct option_info *info);
const char *option_choices(const struct option_info *info);

/* When an option may be there: another, before it in the table, is one of some words ("a|b"; NULL: is there). NULL: always. */
struct option_when {
	enum scope scope;
	const char *kind, *option;
	const char *other, *words;
	bool needed; /* and then it has to be there */
};
const struct option_when *option_when(const struct option_info *info);

/* Of which options ("a|b") a kind has exactly one; NULL: there is no such rule. */
const char *kind_one_of(enum scope scope, unsigned kind);

/* Whether a word is one of several ("a|b"). */
bool words_have(const char *words, const char *word);

/* The names of payload forms, in the order of enum payload_form. */
enum { FORM_COUNT = 3 };
extern const char *const form_names[FORM_COUNT];

/* The names of error policies, in the order of enum error_policy. */
extern const char *const error_policy_names[ON_ERROR_COUNT];

#endif
