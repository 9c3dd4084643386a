/*
 * The sidecar's configuration: parsed from flags and config file, cross-checked, frozen; only then anything forks.
 * One table (server/flags.def) gives names, types, bounds, defaults and help of all of them.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "server/findings.h"
#include "shared/log.h"
#include "shared/slot.h"

enum { LISTEN_MAX = 8 };

/* Bounds of a slot's state memory, and what it is where nobody says and memory is plenty. */
#define STATE_MEMORY_MIN (UINT64_C(8) << 20)
#define STATE_MEMORY_PLENTY (UINT64_C(256) << 20)
#define STATE_MEMORY_MAX (UINT64_C(64) << 30)

/* The least that a worker process can be bounded to: it has mapped about 40 MiB before its first record. */
#define WORKER_MEMORY_MIN (UINT64_C(64) << 20)

enum flag_type {
	FLAG_TYPE_PATH,
	FLAG_TYPE_ADDRESSES,
	FLAG_TYPE_COUNT,
	FLAG_TYPE_SIZE,
	FLAG_TYPE_MILLIS,
	FLAG_TYPE_MICROS,
	FLAG_TYPE_LEVEL,
	FLAG_TYPE_SWITCH,
	FLAG_TYPE_ACTION,
	FLAG_TYPE_CONFIG,
};

/* One line of flags.def. */
struct flag {
	const char *name;
	enum flag_type type;
	size_t offset; /* of the field in struct config */
	uint64_t low, high;
	const char *fallback; /* the default as text, or NULL */
	const char *place;
	const char *help;
};

enum {
	FLAG_COUNT = 0
#define FLAG_GROUP(title)
#define FLAG(name, type, field, low, high, fallback, place, help) +1
#include "server/flags.def"
};

enum flag_origin { FROM_DEFAULT, FROM_FILE, FROM_COMMAND_LINE };

struct config {
	char *descriptor;         /* path */
	uint32_t slots;           /* 1 to SLOTS_MAX */
	char *listen[LISTEN_MAX]; /* "unix:/path" or "host:port", as gRPC takes them */
	uint32_t listen_count;
	char *stats;                       /* path of the stats socket, or NULL */
	char *config_file;                 /* path, or NULL */
	uint64_t message_max;              /* bytes of one session message */
	uint64_t record_max;               /* bytes of one record */
	uint64_t unary_message_max;        /* bytes of one unary request or reply */
	uint64_t session_ring, unary_ring; /* bytes, powers of two, >= four times the largest message */
	uint64_t state_memory;             /* bytes of a slot's arena, whole pages */
	bool state_memory_auto; /* nobody said how much: less will do where the memory for everything is short */
	char *capture;          /* where inputs that workers died of are kept, or NULL */
	uint32_t capture_max;
	char *library_path;              /* for native steps, or NULL */
	char *python_path, *python_venv; /* for bridge_python.so, or NULL */
	char *state_dir;                 /* where arenas are files, or NULL */
	uint64_t delta_bytes;            /* changed state that a session may have unsent between barriers */
	uint32_t sessions_per_slot;
	uint64_t worker_memory; /* bytes that a worker process may map of its own; 0: no limit */
	uint32_t heirs;         /* processes that wait behind each slot's owner */
	uint32_t connections_max;
	uint64_t memory_limit; /* bytes for everything; 0: the container's or machine's */
	uint64_t drain_timeout_ms;
	uint64_t open_wait_ms;     /* how long an Open waits for a free slot */
	uint64_t window_bytes_max; /* of unary windows, per slot */
	uint64_t window_age_ms_max;
	uint32_t max_skips_per_hour; /* of a session: inputs that workers died of */
	uint64_t spin_us;            /* how long the front looks before it sleeps, while something is in flight */
	uint64_t worker_spin_us;     /* how long workers do; follows from spin_us */
	uint64_t start_timeout_ms;
	uint64_t stop_grace_ms; /* how long a worker asked to leave may take */
	uint64_t restart_delay_ms, restart_delay_max_ms;
	uint64_t unit_cpu_limit_ms, unit_wall_limit_ms; /* 0: none */
	bool direct; /* benchmarks: the front answers by itself, no worker sees the message */
	enum log_level log_level;
	bool check, json, version, help; /* actions of the command line */

	/* Where each value came from, in the order of the table; line and column in config_file. */
	struct {
		enum flag_origin from;
		size_t line, column;
	} origin[FLAG_COUNT];
};

/* Reads the command line (and --config); prints help, version or findings itself. Returns -1 to go on, else the exit code. */
int config_parse(struct config *config, int argc, char **argv, bool *check_only);

/* Works out the defaults that hang on the pipeline and the machine; the last cross-checks. */
void config_complete(struct config *config, size_t segments, struct findings *findings);

/* The sizes of the slot memories that this configuration asks for. */
struct slot_sizes config_slot_sizes(const struct config *config);

/* Frees what config_parse allocated. */
void config_deinit(struct config *config);

/* ---- For help, stats, documentation and tests ---- */

/* The table: FLAG_COUNT of them. */
extern const struct flag config_flags[FLAG_COUNT];

/* Writes a flag's value as a person would write it; an empty line for none. */
void config_print_value(const struct config *config, const struct flag *flag, FILE *out);

/* "default", "auto", "command line" or "FILE:LINE". */
void config_print_origin(const struct config *config, const struct flag *flag, FILE *out);

/* Prints --help. */
void config_print_help(FILE *out);

/* config_parse without its printing: defaults, file, command line, cross-checks. */
void config_read(struct config *config, int argc, char **argv, struct findings *findings);

/* Reads the `sidecar:` section of a YAML file into what the command line left open. */
void config_file_read(struct config *config, const char *path, struct findings *findings);

/* Sets one flag from text. `where` begins a message about it. False when the text is refused (and a finding added). */
bool config_set(struct config *config, const struct flag *flag, const char *text, const char *where,
		struct findings *findings);

/* The flag of a name (`_` counts as `-`), or NULL; the nearest name, or NULL. */
const struct flag *config_flag(const char *name);
const char *config_flag_nearest(const char *name);

/* Brings an address into the form gRPC takes: a string to free, or NULL and *why. *exposed: reachable from other machines. */
char *config_address(const char *text, const char **why, bool *exposed);

#endif
