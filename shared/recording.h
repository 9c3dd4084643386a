/*
 * A recording: a session in the wire contract's own messages, in a file that can be run again (`bridgectl replay`).
 *
 *    | "FBRECORD" | version, 4 bytes | size, 4 | header | size, 4 | message | size, 4 | message | ... | 0, 4 | checksum, 8 |
 *
 * Numbers are little-endian. The header is protobuf wire format (fields in recording.c; unknown ones are skipped), the messages are
 * ToWorker, Open first. The checksum is XXH3-64 over everything before it. A file comes to be whole or not at all: it is written
 * under another name, synced, and renamed.
 *
 * Reading believes nothing: sizes are checked against the file, the file against RECORDING_MAX, texts for being UTF-8.
 */
#ifndef SHARED_RECORDING_H
#define SHARED_RECORDING_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/view.h"

enum { RECORDING_VERSION = 1, RECORDING_MESSAGES_MAX = 1 << 20, RECORDING_WHY_MAX = 512 };

/* Bytes of a file: what is larger is neither written nor read. */
#define RECORDING_MAX (UINT64_C(1) << 30)

/* What a recording says of itself. Views are the writer's, or lie in the file's bytes. */
struct recording_header {
	struct view release; /* of the program that wrote it */
	struct view pipeline, topology_hash, segment_name;
	struct view descriptor; /* as descriptor_write writes it: the code that ran */
	struct view step;       /* that had the input; empty: none */
	struct view cause;      /* how the process died */
	uint32_t segment, slot, process;
	uint32_t record;                  /* of the message, or units of timers that were done before */
	uint64_t seq;                     /* of the message, as the client had sent it */
	int64_t when_ms;                  /* wall clock, when it was written */
	uint64_t message_max, record_max; /* limits of the session */
	bool incomplete;                  /* there was more state than could be kept */
};

/* ---- Writing ---- */

struct recording_writer;

/* What a file is called until it is whole: behind its own name. */
#define RECORDING_PART ".part"

/* Begins a file at `path`, whose directory is there. NULL with errno. */
struct recording_writer *recording_create(const char *path);

/* Writes the header: once, and first. */
void recording_describe(struct recording_writer *writer, const struct recording_header *header);

/* Adds a message. What goes wrong is told by recording_finish. */
void recording_add(struct recording_writer *writer, struct view message);

/* Ends the file and gives it its name; frees the writer. False with errno, and there is no file: EFBIG where it would be too large. */
bool recording_finish(struct recording_writer *writer);

/* ---- Reading ---- */

struct recording {
	uint8_t *bytes; /* the whole file */
	uint64_t size;
	struct recording_header header;
	struct view *messages; /* never empty ones */
	uint32_t message_count;
};

/* Reads a file. False, and `why` (RECORDING_WHY_MAX bytes) has words. */
bool recording_read(struct recording *recording, const char *path, char *why);

/* Frees what was read; one that could not be, too. */
void recording_free(struct recording *recording);

#endif
