/*
 * Sources of the local runner (run_graph.h): the lines of a file or of standard input, and generators.
 *
 * A line is a record, without its LF or CRLF, as Flink's text reader has it; a last line without an end counts. A file is read
 * by the source's first subtask alone (Flink does not split a single text file either), the others end at once. A
 * generator's record n belongs to subtask n % parallelism. Nothing here blocks: a pipe is read when it has something,
 * and the watch tells when; a named pipe is opened without waiting for its writer.
 *
 * With --checkpoint a barrier is sent between two records, and a run that goes on begins behind the last line of its checkpoint,
 * told by its offset. That the file still is what was read is told by a fingerprint of those bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run_checkpoint.h"
#include "cli/run_graph.h"
#include "shared/control.h"
#include "shared/log.h"
#include "worker/jq_program.h"

enum {
	TURN_RECORDS = 2048, /* then others have their turn */
	READ_BYTES = 256 << 10,
	LINE_MAX_BYTES = 256 << 20, /* the largest record that a sidecar can be told to take */
};

#define NS_PER_MS 1000000u
#define NS_PER_S 1000000000u

/* ---- Opening ---- */

/* Compiles a program of a source; NULL when it has none. */
static bool compile_program(struct source_reader *reader, const char *text, const char *what,
			    struct jq_program **program)
{
	char why[512];
	if (text == NULL)
		return true;
	*program = jq_program_get(text, why, sizeof(why));
	if (*program == NULL)
		run_graph_fail(reader->graph, "source \"%s\": the %s program does not compile: %s", reader->source.name,
			       what, why);
	return *program != NULL;
}

/* Opens the file. */
static bool open_file(struct source_reader *reader)
{
	const char *path = reader->source.path;
	struct stat stat;
	int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &stat) != 0) {
		run_graph_fail(reader->graph, "source \"%s\": cannot open %s: %s", reader->source.name, path,
			       strerror(errno));
		return false;
	}
	reader->item = (struct watch_item){.fd = fd, .events = EPOLLIN};
	if (S_ISDIR(stat.st_mode)) {
		run_graph_fail(reader->graph, "source \"%s\": %s is a folder; a file source reads one file",
			       reader->source.name, path);
		return false;
	}
	reader->pollable = !S_ISREG(stat.st_mode);
	if (reader->graph->checkpoint != NULL && reader->pollable)
		return run_graph_refuse(
		    reader->graph,
		    "source \"%s\": %s is no regular file: it cannot be read again after a crash, so "
		    "--checkpoint cannot make it exactly once",
		    reader->source.name, path);
	if (reader->graph->checkpoint != NULL && (reader->place = realpath(path, NULL)) == NULL)
		fatal("cannot find %s", path);
	reader->capacity = READ_BYTES;
	reader->buffer = malloc(reader->capacity);
	if (reader->buffer == NULL)
		fatalx("out of memory for a source");
	return true;
}

bool source_open(struct source_reader *reader)
{
	const struct source *source = &reader->source;
	reader->largest = reader->watermark = INT64_MIN;
	if (!compile_program(reader, source->timestamp, "timestamp", &reader->timestamp))
		return false;
	if (source->kind != SOURCE_GENERATOR)
		return open_file(reader);
	reader->place = strdup("");
	return compile_program(reader, source->program, "generator", &reader->program);
}

/* ---- Going on ---- */

uint64_t source_position(const struct source_reader *reader)
{
	return reader->source.kind == SOURCE_GENERATOR ? reader->made : reader->position_before + reader->bytes;
}

/* A last line without an end was a record; what has been written since then must begin with that end. */
static bool skip_late_end(struct source_reader *reader, const struct stat *stat)
{
	char bytes[3] = {0};
	off_t position = (off_t)reader->position_before;
	size_t have = stat->st_size - position < 2 ? (size_t)(stat->st_size - position) : 2;
	if (position == 0 || have == 0 ||
	    pread(reader->item.fd, bytes, 1 + have, position - 1) != (ssize_t)(1 + have) || bytes[0] == '\n')
		return true;
	if (bytes[1] != '\n' && (bytes[1] != '\r' || bytes[2] != '\n'))
		return run_graph_refuse(
		    reader->graph,
		    "source \"%s\": line %llu of %s had no end when it was read, and goes on now: the "
		    "first part of it has been processed already",
		    reader->source.name, (unsigned long long)reader->records_before, reader->source.path);
	reader->position_before += bytes[1] == '\n' ? 1 : 2;
	return true;
}

/* Goes on in a file. */
static bool resume_file(struct source_reader *reader, const struct store_source *before)
{
	struct stat stat;
	uint64_t fingerprint;
	if (fstat(reader->item.fd, &stat) != 0 || (uint64_t)stat.st_size < before->position)
		return run_graph_refuse(
		    reader->graph,
		    "source \"%s\": %s has %lld bytes, and %llu of it have been read: it was cut or "
		    "replaced",
		    reader->source.name, reader->source.path, (long long)stat.st_size,
		    (unsigned long long)before->position);
	if (!run_fingerprint(reader->item.fd, before->position, &fingerprint) || fingerprint != before->fingerprint)
		return run_graph_refuse(reader->graph,
					"source \"%s\": %s is not the file that was read: it was replaced",
					reader->source.name, reader->source.path);
	reader->position_before = before->position;
	if (!skip_late_end(reader, &stat))
		return false;
	if (lseek(reader->item.fd, (off_t)reader->position_before, SEEK_SET) >= 0)
		return true;
	run_graph_fail(reader->graph, "source \"%s\": cannot read %s: %s", reader->source.name, reader->source.path,
		       strerror(errno));
	return false;
}

bool source_resume(struct source_reader *reader, const struct store_source *before)
{
	reader->records_before = before->records;
	reader->largest = before->largest_ms;
	if (reader->source.kind != SOURCE_GENERATOR)
		return resume_file(reader, before);
	reader->made = reader->position_before = before->position;
	if (reader->source.count == 0 || reader->source.count >= before->position)
		return true;
	return run_graph_refuse(reader->graph, "source \"%s\" makes %llu records, and has made %llu already",
				reader->source.name, (unsigned long long)reader->source.count,
				(unsigned long long)before->position);
}

bool source_is_read(const struct source_reader *reader)
{
	struct stat stat;
	if (reader->source.kind == SOURCE_GENERATOR)
		return reader->source.count != 0 && reader->made == reader->source.count;
	return fstat(reader->item.fd, &stat) == 0 && (uint64_t)stat.st_size == source_position(reader);
}

/* ---- The ends of its life ---- */

/* The subtasks that have anything to read: of a file source only the first. */
static uint32_t live_subtasks(const struct source_reader *reader)
{
	return reader->source.kind == SOURCE_GENERATOR ? reader->source.parallelism : 1;
}

/* No more records: all consumers hear of it. */
static void end_source(struct source_reader *reader)
{
	reader->ended = true;
	for (uint32_t s = 0; s < live_subtasks(reader); s++)
		outlet_end(&reader->outlets[s]);
}

void source_close(struct source_reader *reader)
{
	if (reader->item.fd >= 0 && reader->graph->watch != NULL)
		watch_forget(reader->graph->watch, &reader->item);
	if (reader->item.fd > STDERR_FILENO)
		close(reader->item.fd);
	reader->item.fd = -1;
	free(reader->buffer);
	reader->buffer = NULL;
	jv_free(reader->text);
	reader->text = jv_null();
	free(reader->place);
	reader->place = NULL;
}

/* The number of the line or record at hand, over all runs. */
static unsigned long long line_number(const struct source_reader *reader)
{
	return reader->records_before + reader->records + 1;
}

/* ---- Lines ---- */

/* Makes room for another read behind what is left of the last ones. */
static bool make_room(struct source_reader *reader)
{
	if (reader->start > 0) {
		memmove(reader->buffer, reader->buffer + reader->start, reader->end - reader->start);
		reader->end -= reader->start;
		reader->start = 0;
	}
	if (reader->capacity - reader->end >= READ_BYTES / 2)
		return true;
	size_t capacity = 2 * reader->capacity;
	if (capacity > 2 * (size_t)LINE_MAX_BYTES) {
		run_graph_fail(reader->graph, "source \"%s\": line %llu of %s is longer than %d MiB",
			       reader->source.name, line_number(reader), reader->source.path, LINE_MAX_BYTES >> 20);
		return false;
	}
	reader->buffer = realloc(reader->buffer, capacity);
	if (reader->buffer == NULL)
		fatalx("out of memory for a line of %zu bytes", capacity);
	reader->capacity = capacity;
	return true;
}

/* Reads more. False: nothing is there yet, or it failed. */
static bool read_more(struct source_reader *reader)
{
	if (reader->pollable && !watch_ready_now(reader->item.fd, EPOLLIN)) {
		reader->waits = watch_arm(reader->graph->watch, &reader->item);
		return false;
	}
	if (!make_room(reader))
		return false;
	ssize_t got = read(reader->item.fd, reader->buffer + reader->end, reader->capacity - reader->end);
	if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
		reader->waits = errno == EAGAIN && watch_arm(reader->graph->watch, &reader->item);
		return false;
	}
	if (got < 0) {
		run_graph_fail(reader->graph, "source \"%s\": cannot read %s: %s", reader->source.name,
			       reader->source.path, strerror(errno));
		return false;
	}
	reader->end += (size_t)got;
	reader->at_end = got == 0;
	return true;
}

/* The next line; false when there is none yet, or none any more (at_end). */
static bool next_line(struct source_reader *reader, struct view *line)
{
	for (;;) {
		const uint8_t *start = reader->buffer + reader->start;
		size_t have = reader->end - reader->start;
		const uint8_t *newline =
		    have > reader->scanned ? memchr(start + reader->scanned, '\n', have - reader->scanned) : NULL;
		if (newline == NULL && !reader->at_end) {
			reader->scanned = have;
			if (!read_more(reader))
				return false;
			continue;
		}
		if (newline == NULL && have == 0)
			return false;
		size_t size = newline != NULL ? (size_t)(newline - start) : have;
		reader->start += newline != NULL ? size + 1 : size;
		reader->scanned = 0;
		reader->bytes += newline != NULL ? size + 1 : size;
		*line = (struct view){start, size > 0 && start[size - 1] == '\r' ? size - 1 : size};
		return true;
	}
}

/* ---- Generators ---- */

/* When a generator's next record is due. */
static uint64_t generator_due(const struct source_reader *reader)
{
	if (reader->source.rate == 0)
		return 0;
	uint64_t made = reader->made - reader->position_before; /* in this run */
	uint64_t seconds = made / reader->source.rate, rest = made % reader->source.rate;
	return reader->started_ns + seconds * NS_PER_S + rest * NS_PER_S / reader->source.rate;
}

/* The payload of a generator's next record: its number, or the shortest JSON of what the program makes of it. */
static bool next_made(struct source_reader *reader, struct view *payload)
{
	if (reader->source.count != 0 && reader->made == reader->source.count)
		reader->at_end = true;
	if (reader->at_end || generator_due(reader) > clock_ns())
		return false;
	jv value = jv_number((double)reader->made);
	if (reader->program != NULL && !jq_program_one(reader->program, value, &value)) {
		run_graph_fail(reader->graph, "source \"%s\": the generator program failed on %llu: %s",
			       reader->source.name, (unsigned long long)reader->made,
			       jq_program_error(reader->program));
		return false;
	}
	jv_free(reader->text);
	reader->text = jv_dump_string(value, 0);
	reader->made++;
	*payload = (struct view){(const uint8_t *)jv_string_value(reader->text),
				 (size_t)jv_string_length_bytes(jv_copy(reader->text))};
	reader->bytes += payload->size;
	return true;
}

/* ---- Records ---- */

/* What is wrong with the timestamp of the record at hand. */
static bool timestamp_failed(struct source_reader *reader, struct view payload, const char *why)
{
	char excerpt[256];
	run_graph_fail(reader->graph, "source \"%s\": no timestamp for record %llu: %s\n  record: %s",
		       reader->source.name, line_number(reader), why,
		       payload_excerpt(payload, excerpt, sizeof(excerpt)));
	return false;
}

/* Event time: what the timestamp program says, else the time of reading. */
static bool find_timestamp(struct source_reader *reader, struct view payload, int64_t *timestamp)
{
	*timestamp = clock_wall_ms();
	if (reader->timestamp == NULL)
		return true;
	const char *why = jq_program_time(reader->timestamp, payload, timestamp);
	return why == NULL || timestamp_failed(reader, payload, why);
}

/* Gets the next record ready. False: none now, or none any more (at_end). */
static bool next_record(struct source_reader *reader)
{
	struct view payload;
	if (reader->graph->records_left == 0 && reader->graph->checkpoint != NULL) {
		run_checkpoint_stop(reader->graph);
		return false;
	}
	if (reader->graph->records_left == 0)
		source_stop(reader);
	bool generator = reader->source.kind == SOURCE_GENERATOR;
	reader->record_outlet = generator ? (uint32_t)(reader->made % reader->source.parallelism) : 0;
	if (!(generator ? next_made(reader, &payload) : next_line(reader, &payload)))
		return false;
	reader->record = (struct wire_record){.payload = payload};
	reader->has_record = find_timestamp(reader, payload, &reader->record.timestamp);
	reader->graph->records_left--;
	return reader->has_record;
}

/* Pushes the record at hand. */
static bool push_record(struct source_reader *reader)
{
	enum offer offer = outlet_push(reader->graph, &reader->outlets[reader->record_outlet], &reader->record);
	reader->blocked = offer == OFFER_FULL;
	if (offer != OFFER_TAKEN)
		return false;
	reader->has_record = false;
	reader->records++;
	reader->graph->records_in++;
	if (reader->record.timestamp > reader->largest)
		reader->largest = reader->record.timestamp;
	return true;
}

/* ---- Event time ---- */

/* The watermark as it should be by now. */
static int64_t current_watermark(const struct source_reader *reader)
{
	if (reader->largest == INT64_MIN)
		return INT64_MIN;
	return watermark_behind(reader->largest, reader->source.out_of_orderness_ms);
}

/* Tells all consumers of all subtasks. */
static void tell_idle(struct source_reader *reader, bool idle)
{
	reader->idle = idle;
	for (uint32_t s = 0; s < live_subtasks(reader); s++)
		outlet_idle(&reader->outlets[s], idle);
}

/* Sends the watermark if it moved and the last one is long enough ago. */
static void tell_watermark(struct source_reader *reader, uint64_t now)
{
	int64_t watermark = current_watermark(reader);
	if (watermark <= reader->watermark || now - reader->watermark_ns < WATERMARK_INTERVAL_MS * (uint64_t)NS_PER_MS)
		return;
	reader->watermark = watermark;
	reader->watermark_ns = now;
	for (uint32_t s = 0; s < live_subtasks(reader); s++)
		outlet_watermark(&reader->outlets[s], watermark);
}

/* When a source that says nothing counts as idle. */
static uint64_t idle_at(const struct source_reader *reader)
{
	if (reader->source.idle_ms <= 0 || reader->idle || reader->blocked)
		return UINT64_MAX;
	return reader->record_ns + (uint64_t)reader->source.idle_ms * NS_PER_MS;
}

/* Whether consumers still wait for other barriers than its own. */
static bool is_held(struct source_reader *reader)
{
	for (uint32_t s = 0; s < live_subtasks(reader); s++)
		if (outlet_is_held(&reader->outlets[s]))
			return true;
	return false;
}

/* Sends the barrier that is wanted, between two records. Whether the source may go on to the next one. */
static bool pass_barrier(struct source_reader *reader)
{
	uint64_t wanted = run_checkpoint_wanted(reader->graph);
	if (wanted > reader->barrier) {
		reader->barrier = wanted;
		run_checkpoint_source(reader);
		for (uint32_t s = 0; s < live_subtasks(reader); s++)
			outlet_barrier(&reader->outlets[s], wanted);
	}
	reader->blocked = is_held(reader);
	return !reader->blocked && !run_checkpoint_stopping(reader->graph);
}

/* Whether the end may follow: no barrier has to go first, and the run does not stop where it is. */
static bool may_end(const struct source_reader *reader)
{
	return run_checkpoint_wanted(reader->graph) <= reader->barrier && !run_checkpoint_stopping(reader->graph);
}

/* Keeps event time and idleness up to date; `records` came in this turn. */
static void keep_time(struct source_reader *reader, unsigned records)
{
	uint64_t now = clock_ns();
	if (records > 0 || reader->blocked)
		reader->record_ns = now;
	if (records > 0 && reader->idle)
		tell_idle(reader, false);
	tell_watermark(reader, now);
	if (idle_at(reader) <= now)
		tell_idle(reader, true);
}

/* ---- The reader's turn ---- */

void source_begin(struct source_reader *reader)
{
	reader->started_ns = reader->record_ns = clock_ns();
	for (uint32_t s = live_subtasks(reader); s < reader->source.parallelism; s++)
		outlet_end(&reader->outlets[s]);
	tell_watermark(reader, reader->started_ns); /* what an earlier run had reached */
}

void source_stop(struct source_reader *reader)
{
	reader->at_end = true;
	reader->waits = false;
	reader->start = reader->end; /* the record at hand still points to its bytes */
	reader->scanned = 0;
}

void source_turn(struct source_reader *reader)
{
	if (reader->ended)
		return;
	if (watch_taken(&reader->item))
		reader->waits = false;
	unsigned records = 0;
	while (!reader->blocked && !reader->waits && records < TURN_RECORDS && !reader->graph->failed) {
		if (!reader->has_record && (!pass_barrier(reader) || !next_record(reader)))
			break;
		if (push_record(reader))
			records++;
	}
	if (is_held(reader))
		return; /* what it could tell comes behind the barrier */
	keep_time(reader, records);
	if (reader->at_end && !reader->has_record && reader->start == reader->end && may_end(reader))
		end_source(reader);
}

uint64_t source_deadline(struct source_reader *reader)
{
	if (reader->ended || is_held(reader))
		return UINT64_MAX;
	if (run_checkpoint_wanted(reader->graph) > reader->barrier && !reader->blocked)
		return 0;
	if (run_checkpoint_stopping(reader->graph) && !reader->has_record)
		return UINT64_MAX;
	bool generator = reader->source.kind == SOURCE_GENERATOR;
	if (!reader->blocked && !reader->waits && (!generator || reader->has_record))
		return 0;
	uint64_t deadline = idle_at(reader);
	if (generator && !reader->blocked && generator_due(reader) < deadline)
		deadline = generator_due(reader);
	uint64_t watermark_at = reader->watermark_ns + WATERMARK_INTERVAL_MS * (uint64_t)NS_PER_MS;
	if (current_watermark(reader) > reader->watermark && watermark_at < deadline)
		deadline = watermark_at;
	return deadline;
}
