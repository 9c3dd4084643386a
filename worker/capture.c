/* Captures (capture.h). */
#include "worker/capture.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/recording.h"

enum {
	CHUNK_BYTES = 256 << 10, /* of a RestoreChunk, unless a single entry is larger */
	WALK_BUCKETS = 1024,     /* between two looks at the clock */
	PARTS = 4,               /* of a unit's processor time: one of them is for looking for state */
};

/* Of looking for state; and of what is kept of it. */
#define WALK_NS_MAX (UINT64_C(1000) * 1000 * 1000)
#define STATE_BYTES_MAX (UINT64_C(256) << 20)

static const char suffix[] = ".capture";

/* A capture that is being written. */
struct capture {
	const struct workspace *workspace;
	const struct session_position *at;
	const struct segment *segment;
	struct state_store *store;
	const struct capture_input *input;
	struct state_entry *entries; /* views into the arena */
	size_t count, room;
	uint64_t bytes; /* of entries */
	bool incomplete;
	struct recording_writer *writer;
	uint64_t seq; /* of the last message */
	uint8_t *buffer;
	uint64_t buffer_size;
};

/* ---- The state --------------------------------------------------------------------------------------------------------- */

/* Keeps an entry that the input may read: of its key, or of a state without keys. */
static void keep_entry(void *context, const struct state_entry *entry)
{
	struct capture *capture = context;
	const struct capture_input *input = capture->input;
	bool by_key = state_spec_of(capture->store, entry->state)->partition == STATE_BY_KEY;
	uint64_t size = sizeof(*entry) + entry->key.size + entry->sub.size + entry->value.size;

	if (by_key && input->keyed && !view_equal(entry->key, input->key))
		return;
	if (capture->count == capture->room) {
		size_t room = capture->room == 0 ? 64 : 2 * capture->room;
		struct state_entry *more = realloc(capture->entries, room * sizeof(*more));
		if (more != NULL) {
			capture->entries = more;
			capture->room = room;
		}
	}
	if (capture->count == capture->room || size > STATE_BYTES_MAX - capture->bytes) {
		capture->incomplete = true;
		return;
	}
	capture->bytes += size;
	capture->entries[capture->count++] = *entry;
}

/* By state, key and what is under it: pieces of lists come in their order. */
static int compare_entries(const void *left, const void *right)
{
	const struct state_entry *a = left, *b = right;
	int order = (a->state > b->state) - (a->state < b->state);

	order = order != 0 ? order : view_compare(a->key, b->key);
	return order != 0 ? order : view_compare(a->sub, b->sub);
}

/* How long the walk may take. */
static uint64_t walk_ns_max(const struct config *config)
{
	uint64_t share = config->unit_cpu_limit_ms * 1000 * 1000 / PARTS;

	return share == 0 || share > WALK_NS_MAX ? WALK_NS_MAX : share;
}

/* Finds the state that the input may read. */
static void find_state(struct capture *capture)
{
	uint64_t cursor = 0, until = clock_ns() + walk_ns_max(capture->workspace->config);

	while (cursor != UINT64_MAX && !capture->incomplete) {
		state_walk(capture->store, &cursor, WALK_BUCKETS, keep_entry, capture);
		if (cursor != UINT64_MAX && clock_ns() > until)
			capture->incomplete = true;
	}
	if (capture->count > 1)
		qsort(capture->entries, capture->count, sizeof(*capture->entries), compare_entries);
}

/* ---- The messages ---------------------------------------------------------------------------------------------------- */

/* Begins a message of so many bytes at most, of one kind; *start is for message_end. False: no memory. */
static bool message_begin(struct capture *capture, struct wire_writer *writer, uint64_t size, uint32_t kind,
			  uint8_t **start)
{
	size += 64; /* around the body */
	if (size > capture->buffer_size) {
		uint8_t *buffer = realloc(capture->buffer, size);
		if (buffer == NULL)
			return false;
		capture->buffer = buffer;
		capture->buffer_size = size;
	}
	*writer = (struct wire_writer){capture->buffer, capture->buffer + capture->buffer_size, false};
	wire_put_varint_field(writer, 1, ++capture->seq);
	wire_put_varint_field(writer, 2, (uint64_t)capture->at->processing_time);
	*start = wire_begin(writer, kind);
	return true;
}

/* Adds a message whose body has been ended. */
static void message_add(struct capture *capture, const struct wire_writer *writer)
{
	CHECK(!writer->overflow);
	recording_add(capture->writer, (struct view){capture->buffer, (size_t)(writer->at - capture->buffer)});
}

/* Writes the Open. */
static bool write_open(struct capture *capture)
{
	const struct workspace *workspace = capture->workspace;
	const struct descriptor *descriptor = workspace->descriptor;
	const struct session_position *at = capture->at;
	struct wire_writer writer;
	uint8_t *start;

	if (!message_begin(capture, &writer,
			   512 + strlen(descriptor->pipeline) + snapshot_manifest_size(capture->store), TO_WORKER_OPEN,
			   &start))
		return false;
	wire_put_varint_field(&writer, 1, WIRE_PROTOCOL_VERSION);
	wire_put_bytes_field(&writer, 2, view_of("replay"));
	wire_put_bytes_field(&writer, 3, view_of(descriptor->pipeline));
	wire_put_varint_field(&writer, 4, capture->segment->id);
	wire_put_bytes_field(&writer, 5, view_of(descriptor->topology_hash));
	wire_put_varint_field(&writer, 9, 1);
	wire_put_varint_field(&writer, 10, at->max_parallelism);
	wire_put_varint_field(&writer, 11, at->key_group_first);
	wire_put_varint_field(&writer, 12, at->key_group_last);
	if (capture->count > 0) {
		wire_put_varint_field(&writer, 15, 1);
		snapshot_put_manifest(capture->store, &writer, OPEN_STATE_MANIFEST);
	}
	wire_end(&writer, start);
	message_add(capture, &writer);
	return true;
}

/* An entry as it travels. */
static struct wire_entry entry_on_wire(const struct state_entry *entry)
{
	return (struct wire_entry){
	    .key = entry->key,
	    .sub_key = entry->sub,
	    .value = entry->value,
	    .state = entry->state,
	    .key_group = entry->key_group,
	    .key_hash = entry->key_hash,
	};
}

/* Writes a RestoreChunk of as many entries, from the first, as go into one; how many is returned, 0: no memory. */
static size_t write_chunk(struct capture *capture, size_t first)
{
	uint64_t size = 0;
	size_t end = first;
	struct wire_writer writer;
	uint8_t *start;

	for (; end < capture->count; end++) {
		struct wire_entry entry = entry_on_wire(&capture->entries[end]);
		uint64_t more = wire_entry_size(&entry);
		if (end > first && size + more > CHUNK_BYTES)
			break;
		size += more;
	}
	if (!message_begin(capture, &writer, size + WIRE_ENTRIES_AROUND, TO_WORKER_RESTORE_CHUNK, &start))
		return 0;
	for (size_t i = first; i < end; i++) {
		struct wire_entry entry = entry_on_wire(&capture->entries[i]);
		wire_put_entry(&writer, &entry);
	}
	wire_end_entries(&writer, start);
	message_add(capture, &writer);
	return end - first;
}

/* Writes a message that has one number in it. */
static bool write_number(struct capture *capture, uint32_t kind, uint64_t number)
{
	struct wire_writer writer;
	uint8_t *start;

	if (!message_begin(capture, &writer, 16, kind, &start))
		return false;
	wire_put_varint_field(&writer, 1, number);
	wire_end(&writer, start);
	message_add(capture, &writer);
	return true;
}

/* Writes the state. */
static bool write_state(struct capture *capture)
{
	size_t written = 0, more = 0;

	if (capture->count == 0)
		return true;
	for (; written < capture->count; written += more) {
		more = write_chunk(capture, written);
		if (more == 0)
			return false;
	}
	return write_number(capture, TO_WORKER_RESTORE_END, capture->count);
}

/* Writes the message itself. */
static bool write_input(struct capture *capture)
{
	const struct capture_input *input = capture->input;
	struct wire_writer writer;
	uint8_t *start;

	if (!message_begin(capture, &writer, input->body.size, input->kind, &start))
		return false;
	if (input->body.size > 0)
		memcpy(writer.at, input->body.data, input->body.size);
	writer.at += input->body.size;
	wire_end(&writer, start);
	message_add(capture, &writer);
	return true;
}

/* Writes all messages; false: no memory. */
static bool write_messages(struct capture *capture)
{
	const struct capture_input *input = capture->input;

	if (input->kind == TO_WORKER_OPEN)
		return write_input(capture);
	if (!write_open(capture) || !write_state(capture))
		return false;
	if (capture->at->watermark != INT64_MIN && input->kind != TO_WORKER_WATERMARK &&
	    !write_number(capture, TO_WORKER_WATERMARK, (uint64_t)capture->at->watermark))
		return false;
	return write_input(capture);
}

/* ---- The file ---------------------------------------------------------------------------------------------------------- */

/* Whether a file is one that a process of a slot did not come to the end of. */
static bool is_left_by(uint32_t slot, const char *name)
{
	char begin[32];
	size_t length = strlen(name), end = strlen(RECORDING_PART);

	snprintf(begin, sizeof(begin), "slot%" PRIu32 "-", slot);
	return strncmp(name, begin, strlen(begin)) == 0 && length > end &&
	       strcmp(name + length - end, RECORDING_PART) == 0;
}

/* Whether the owner before this one died while it wrote a capture. Then none is written this time, so that no number of deaths comes of
 * capturing one; and its file is removed. */
static bool died_before(const struct workspace *workspace, const char *name)
{
	char path[4096 + 300];

	if (!is_left_by(workspace->slot, name))
		return false;
	log_warn("no capture is written: a worker died while it wrote %s", name);
	snprintf(path, sizeof(path), "%s/%.256s", workspace->config->capture, name);
	unlink(path);
	return true;
}

/* Whether the directory has room for one more, by --capture-max. */
static bool has_room(const struct workspace *workspace)
{
	const struct config *config = workspace->config;
	bool died = false;
	uint32_t count = 0;
	DIR *directory = opendir(config->capture);

	if (directory == NULL) {
		log_warn("no capture is written: --capture %s: %s", config->capture, strerror(errno));
		return false;
	}
	for (const struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
		count += strstr(entry->d_name, suffix) != NULL;
		died |= died_before(workspace, entry->d_name);
	}
	closedir(directory);
	if (died)
		return false;
	if (count < config->capture_max)
		return true;
	log_warn("no capture is written: %s has %" PRIu32 " of them (--capture-max): move away what has been looked at",
		 config->capture, count);
	return false;
}

/* Writes what the recording is of; false: no memory. */
static bool describe(struct capture *capture)
{
	const struct workspace *workspace = capture->workspace;
	const struct suspect *suspect = &capture->at->suspect;
	const struct segment *segment = capture->segment;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (out == NULL)
		return false;
	descriptor_write(workspace->descriptor, out);
	fclose(out);
	struct recording_header header = {
	    .release = view_of(BRIDGE_VERSION),
	    .pipeline = view_of(workspace->descriptor->pipeline),
	    .topology_hash = view_of(workspace->descriptor->topology_hash),
	    .segment_name = view_of(segment->name),
	    .descriptor = {(const uint8_t *)text, size},
	    .step = view_of(suspect->step < segment->step_count ? segment->steps[suspect->step].name : ""),
	    .cause = view_of(death_cause_name((enum death_cause)suspect->cause)),
	    .segment = segment->id,
	    .slot = workspace->slot,
	    .process = suspect->number,
	    .record = capture->at->done,
	    .seq = suspect->seq,
	    .when_ms = clock_wall_ms(),
	    .message_max = workspace->config->message_max,
	    .record_max = workspace->config->record_max,
	    .incomplete = capture->incomplete,
	};
	recording_describe(capture->writer, &header);
	free(text);
	return true;
}

/* Writes the file. It is begun before anything is looked at: see died_before. */
static void write_file(struct capture *capture, const char *path)
{
	capture->writer = recording_create(path);
	if (capture->writer == NULL) {
		log_warn("no capture is written: %s: %s", path, strerror(errno));
		return;
	}
	if (capture->store != NULL)
		find_state(capture);
	bool sound = capture->workspace->arena.trouble == ARENA_FINE;
	bool all = sound && describe(capture) && write_messages(capture);
	if (!recording_finish(capture->writer))
		log_warn("no capture is written: %s: %s", path, strerror(errno));
	else if (!all && unlink(path) == 0)
		log_warn("no capture is written: %s: %s", path, sound ? "no memory for it" : "the state is damaged");
	else
		log_warn("what workers died of is kept in %s%s: bridgectl replay runs it again", path,
			 capture->incomplete ? ", with a part of the state, of which there is too much" : "");
}

/* Whether that message can be run again. */
static bool can_be_captured(const struct capture_input *input)
{
	if (input->kind != TO_WORKER_RESTORE_CHUNK && input->kind != TO_WORKER_RESTORE_END)
		return true;
	log_warn("no capture is written: workers died in a restore, which the client can repeat");
	return false;
}

void capture_write(const struct workspace *workspace, const struct session_position *at, const struct segment *segment,
		   struct state_store *store, const struct capture_input *input)
{
	const struct config *config = workspace->config;
	struct capture capture = {.workspace = workspace, .at = at, .segment = segment, .store = store, .input = input};
	char path[4096 + 160];

	if (config->capture == NULL || !suspect_is_proven(&at->suspect, at->suspect.seq))
		return;
	snprintf(path, sizeof(path),
		 "%s/slot%" PRIu32 "-segment%" PRIu32 "-seq%" PRIu64 "-record%" PRIu32 "-process%" PRIu32 "-%" PRIu64
		 "%s",
		 config->capture, workspace->slot, segment->id, at->suspect.seq, at->done, at->suspect.number,
		 counter_read(&workspace->control->control->counters.started_at), suffix);
	if (access(path, F_OK) == 0 || !can_be_captured(input) || !has_room(workspace))
		return;
	write_file(&capture, path);
	free(capture.entries);
	free(capture.buffer);
}
