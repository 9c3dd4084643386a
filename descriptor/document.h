/*
 * A YAML file as a tree that remembers where everything stood. What people write and what `compile` writes is read through
 * here, bounded in size, depth and nodes; what plain data does not need (anchors, aliases, tags, several documents) is
 * refused in words.
 */
#ifndef DESCRIPTOR_DOCUMENT_H
#define DESCRIPTOR_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "descriptor/diagnostics.h"
#include "descriptor/pool.h"
#include "shared/view.h"

enum {
	DOCUMENT_DEPTH_MAX = 32,
	DOCUMENT_BYTES_MAX = 1 << 20,
	DOCUMENT_NODES_MAX = 100000,
	DOCUMENT_KEY_MAX = 255, /* bytes of a key */
};

/* How much a file may hold. */
struct document_limits {
	size_t bytes, nodes;
};

/* For files that people write. */
extern const struct document_limits document_limits_default;

enum node_kind {
	NODE_SCALAR,
	NODE_MAP,
	NODE_LIST,
	NODE_BROKEN, /* a finding has been made of it: say nothing more about it */
};

struct node {
	enum node_kind kind;
	bool quoted;                     /* SCALAR: in quotes or a block */
	bool block;                      /* SCALAR: a block, literal or folded */
	const char *text;                /* SCALAR: UTF-8 without NUL bytes */
	const struct node *key;          /* in a map: the key; NULL elsewhere */
	struct node *first, *next;       /* children in the order written */
	size_t count;                    /* of the children */
	size_t line, column, width;      /* where it starts, and how much to underline */
	size_t last_line;                /* where it ends; a block scalar has the blank lines behind it */
	const struct document *document; /* the file it comes from */
};

struct document {
	const char *file;  /* as findings name it */
	struct view text;  /* all of it */
	size_t nodes;      /* how many there are */
	struct node *root; /* never NULL */
	struct pool pool;  /* holds everything here */
};

/* Reads a file ("-": standard input). NULL when it could not be read as YAML at all; findings may be made either way. */
struct document *document_read(const char *path, struct document_limits limits, struct diagnostics *diagnostics);

/* The same from memory; `file` is what findings call it. */
struct document *document_parse(const char *file, struct view text, struct document_limits limits,
				struct diagnostics *diagnostics);

void document_free(struct document *document);

/* Replaces ${NAME} and ${NAME:-default} in all scalar values by the environment, and $$ by a dollar. */
void document_substitute(struct document *document, struct diagnostics *diagnostics);

/* The same for a text that stands in no document: fresh memory, or NULL and a finding without a place. */
char *text_substitute(const char *text, struct diagnostics *diagnostics);

/* The value of a key in a map, or NULL. */
struct node *node_find(const struct node *map, const char *key);

/* Whether a node is a scalar that says nothing: empty, `~` or `null` without quotes. */
bool node_is_null(const struct node *node);

/* "a map", "a list", "text", "empty": what a node is, for messages. */
const char *node_describe(const struct node *node);

/* Adds a finding at a node, its text underlined. */
struct finding *node_finding(struct diagnostics *diagnostics, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes findings of the keys of a map that are not among `names`; `what` describes the map ("step \"score\""). */
void node_check_keys(const struct node *map, const char *what, const char *const *names, size_t count,
		     struct diagnostics *diagnostics);

#endif
