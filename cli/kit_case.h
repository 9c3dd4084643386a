/*
 * The cases of `bridgectl test`, out of their file: checked as a whole, every mistake with its place, before anything runs.
 *
 * A file has what its cases share at the top (pipeline, config, ...), and the list `cases`. What a case says itself is laid over that.
 * docs/testing.md is the user's page.
 */
#ifndef CLI_KIT_CASE_H
#define CLI_KIT_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "descriptor/compile.h"
#include "descriptor/document.h"

struct kit_header {
	const char *name, *value;
	const struct node *at;
};

/* A record that goes in, or one that is expected: then only what it names is compared. */
struct kit_record {
	const struct node *at; /* NULL: of a file of lines, or made */
	struct view payload;
	bool has_payload;
	bool json; /* given as a value: compared as one */
	bool has_key, has_timestamp;
	struct view key;
	int64_t timestamp;
	const struct kit_header *headers;
	size_t header_count;
};

/* In which order outputs are expected. */
enum kit_order { KIT_IN_ORDER, KIT_BY_KEY, KIT_ANY, KIT_ORDER_COUNT };
extern const char *const kit_order_names[KIT_ORDER_COUNT];

/* What is expected of one sink, or of one route of a segment. */
struct kit_outputs {
	const struct node *expect; /* the map that it stands in */
	const struct node *at;     /* the value; its key names the sink */
	const char *sink;
	enum kit_order order;
	const struct node *list;
	const struct kit_record *records;
	size_t count;
};

struct kit_expect {
	const struct node *at; /* NULL: nothing is said */
	const struct kit_outputs *outputs;
	size_t count;
};

enum kit_event_kind {
	KIT_RECORDS,   /* one message with these records */
	KIT_LINES,     /* each line of a file as a record */
	KIT_WATERMARK, /* event time has reached `time` */
	KIT_IDLE,
	KIT_ADVANCE, /* processing time goes on by `time` */
	KIT_RESTART_WORKER,
	KIT_RESTART_JOB,
	KIT_EXPECT,
	KIT_END,
};

/* Times of a case lie between minus this and this, in ms: some 285,000 years, with room to add and to round. */
#define KIT_TIME_MAX (INT64_C(1) << 53)

struct kit_event {
	enum kit_event_kind kind;
	const struct node *at;
	const char *source; /* or the input of a segment; NULL: the only one, or all */
	const struct kit_record *records;
	size_t count;
	const char *path; /* LINES */
	int64_t time;     /* ms */
	bool idle;
	uint32_t parallelism; /* RESTART_JOB; 0: as before */
	struct kit_expect expect;
};

struct kit_case {
	const char *name;
	const struct node *at;
	/* Where the pipeline and the deployment's values over it are: of the case, else of the file. */
	const struct node *pipeline, *config, *environment;
	const struct node *services; /* a map of commands, each a list of words; or NULL */
	const char *segment;         /* run this one alone; NULL: the whole pipeline */
	uint32_t parallelism;
	int64_t start; /* processing time at the beginning, ms */
	bool follows;  /* sources send their own watermarks behind each record */
	const struct kit_event *events;
	size_t event_count;
	struct kit_expect expect;
	bool fails;
	const char *fails_step, *fails_message; /* NULL: any */
	const struct node *fails_at;
};

struct kit_file {
	const char *path;
	struct document *document;
	struct pool pool;
	const struct kit_case *cases;
	size_t count;
};

/* Reads a file of cases. What is wrong with it becomes findings; NULL when there are any. */
struct kit_file *kit_file_read(const char *path, struct diagnostics *diagnostics);
/* The same from memory; `path` is what findings call it, and where other paths are seen from. */
struct kit_file *kit_file_parse(const char *path, struct view text, struct diagnostics *diagnostics);

void kit_file_free(struct kit_file *file);

/* Compiles the pipeline of a case, with its deployment over it. Once for each reading of the file: the tree of what
 * stands in the file itself is used up by it. NULL and findings. */
struct descriptor *kit_case_compile(struct kit_file *file, const struct kit_case *kit, struct diagnostics *diagnostics);

/* The file that the pipeline of a case stands in. */
const char *kit_case_place(struct kit_file *file, const struct kit_case *kit);

/* Puts the variables of the case into the environment. */
void kit_case_set_environment(const struct kit_case *kit);

/* A path as seen from the folder of the file, in the pool. */
const char *kit_path(struct kit_file *file, const char *path);

#endif
