/*
 * Sinks of the local runner (run_graph.h): each record's payload as a line in one file, on standard output, or nowhere.
 *
 * What is written is collected in a buffer; a full one that cannot be written without blocking refuses records, and
 * the refusal travels up to the sources. A regular file never blocks; a pipe is given what it takes, in pieces of
 * PIPE_BUF, which is what a writable pipe is sure to take without blocking. Sinks that share standard output share one
 * buffer, so that no line is torn.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run_graph.h"
#include "shared/log.h"

enum { SINK_BUFFER = 256 << 10 };

/* What is written to, for messages. */
static const char *path_of(const struct sink_writer *writer)
{
	return writer->sink.kind == SINK_FILE && strcmp(writer->sink.path, "-") != 0 ? writer->sink.path
										     : "standard output";
}

/* Says that a sink cannot go on; false. */
static bool sink_failed(struct sink_writer *writer, const char *doing, int error)
{
	run_graph_fail(writer->graph, "sink \"%s\": cannot %s %s: %s", writer->sink.name, doing, path_of(writer),
		       strerror(error));
	return false;
}

/* Makes the folders above a path. */
static bool make_folders(struct sink_writer *writer, const char *path)
{
	char folder[PATH_MAX];
	if (strlen(path) >= sizeof(folder))
		return sink_failed(writer, "create", ENAMETOOLONG);
	strcpy(folder, path);
	for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
			run_graph_fail(writer->graph, "sink \"%s\": cannot create the folder %s: %s", writer->sink.name,
				       folder, strerror(errno));
			return false;
		}
		*slash = '/';
	}
	return true;
}

/* Whether a descriptor is of the same regular file as `own`. */
static bool is_file(int fd, const struct stat *own)
{
	struct stat other;
	return fd > STDERR_FILENO && S_ISREG(own->st_mode) && fstat(fd, &other) == 0 && own->st_dev == other.st_dev &&
	       own->st_ino == other.st_ino;
}

/* Who else has the file that a sink is to write: a source, or another sink; NULL: nobody. */
static const char *find_other_user(const struct sink_writer *writer, const char **what)
{
	const struct run_graph *graph = writer->graph;
	struct stat own;
	if (stat(writer->sink.path, &own) != 0)
		return NULL;
	*what = "source";
	for (size_t i = 0; i < graph->descriptor->source_count; i++)
		if (is_file(graph->sources[i].item.fd, &own))
			return graph->sources[i].source.name;
	*what = "sink";
	for (size_t i = 0; i < graph->descriptor->sink_count; i++)
		if (is_file(graph->sinks[i].item.fd, &own))
			return graph->sinks[i].sink.name;
	return NULL;
}

/* Opens the file of a file sink. */
static bool open_file(struct sink_writer *writer)
{
	writer->item.fd = -1;
	if (!make_folders(writer, writer->sink.path))
		return false;
	const char *what = NULL, *other = find_other_user(writer, &what);
	if (other != NULL) {
		run_graph_fail(writer->graph, "sink \"%s\" would overwrite %s, which is the file of %s \"%s\"",
			       writer->sink.name, writer->sink.path, what, other);
		return false;
	}
	writer->item.fd = open(writer->sink.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return writer->item.fd >= 0 || sink_failed(writer, "open", errno);
}

/* Makes the buffer large enough for another line. */
static void make_room(struct sink_writer *writer, size_t size)
{
	if (writer->capacity - writer->end >= size)
		return;
	if (writer->start > 0)
		memmove(writer->buffer, writer->buffer + writer->start, writer->end - writer->start);
	writer->end -= writer->start;
	writer->start = 0;
	if (writer->capacity - writer->end >= size)
		return;
	writer->capacity = 2 * (writer->end + size);
	writer->buffer = realloc(writer->buffer, writer->capacity);
	if (writer->buffer == NULL)
		fatalx("out of memory for a record of %zu bytes", size);
}

/* The first sink on standard output: whoever else writes there writes through it. */
static struct sink_writer *first_on_stdout(const struct run_graph *graph)
{
	struct sink_writer *first = graph->sinks;
	while (first->item.fd != STDOUT_FILENO)
		first++;
	return first;
}

bool sink_open(struct sink_writer *writer)
{
	struct stat stat;
	writer->through = writer;
	if (writer->sink.kind == SINK_DISCARD)
		return true;
	writer->item = (struct watch_item){.fd = STDOUT_FILENO, .events = EPOLLOUT};
	if (writer->sink.kind == SINK_FILE && strcmp(writer->sink.path, "-") != 0 && !open_file(writer))
		return false;
	if (fstat(writer->item.fd, &stat) != 0)
		return sink_failed(writer, "open", errno);
	if (writer->item.fd == STDOUT_FILENO)
		writer->through = first_on_stdout(writer->graph);
	writer->pollable = S_ISFIFO(stat.st_mode) || S_ISSOCK(stat.st_mode);
	if (writer->through == writer)
		make_room(writer, (size_t)2 * SINK_BUFFER);
	return true;
}

/* Writes bytes as far as that does not block; the number written, or -1 when it failed. */
static ssize_t write_some(struct sink_writer *writer, const uint8_t *bytes, size_t size)
{
	if (writer->pollable && !watch_ready_now(writer->item.fd, EPOLLOUT)) {
		writer->waits = watch_arm(writer->graph->watch, &writer->item);
		return 0;
	}
	size_t piece = writer->pollable && size > PIPE_BUF ? PIPE_BUF : size;
	ssize_t written = write(writer->item.fd, bytes, piece);
	if (written >= 0)
		return written;
	if (errno == EINTR || errno == EAGAIN) {
		writer->waits = errno == EAGAIN && watch_arm(writer->graph->watch, &writer->item);
		return 0;
	}
	sink_failed(writer, "write", errno);
	return -1;
}

/* Ends the sink when all producers have and all is written. */
static void end_if_done(struct sink_writer *writer)
{
	if (writer->ended || writer->channels_open > 0 || writer->through->end > writer->through->start)
		return;
	writer->ended = true;
	writer->graph->sinks_ended++;
	if (writer->item.fd <= STDERR_FILENO)
		return;
	watch_forget(writer->graph->watch, &writer->item);
	int fd = writer->item.fd;
	writer->item.fd = -1;
	if (close(fd) != 0)
		sink_failed(writer, "write", errno);
}

/* Writes out what a buffer holds, as far as that does not block. */
static void flush_buffer(struct sink_writer *writer)
{
	if (watch_taken(&writer->item))
		writer->waits = false;
	while (writer->end > writer->start && !writer->waits) {
		ssize_t written = write_some(writer, writer->buffer + writer->start, writer->end - writer->start);
		if (written < 0)
			return;
		writer->start += (size_t)written;
		if (written > 0)
			writer->graph->room = true;
	}
	if (writer->start == writer->end)
		writer->start = writer->end = 0;
}

void sink_flush(struct sink_writer *writer)
{
	flush_buffer(writer->through);
	end_if_done(writer);
}

/* Whether a buffer has taken all it should; what can be written without blocking is written first. */
static bool is_full(struct sink_writer *writer)
{
	if (writer->end - writer->start < SINK_BUFFER)
		return false;
	flush_buffer(writer);
	return writer->end - writer->start >= SINK_BUFFER;
}

/* Appends a line to a buffer. */
static void append_line(struct sink_writer *writer, struct view line)
{
	make_room(writer, line.size + 1);
	if (line.size > 0)
		memcpy(writer->buffer + writer->end, line.data, line.size);
	writer->end += line.size + 1;
	writer->buffer[writer->end - 1] = '\n';
}

enum offer sink_offer(struct sink_writer *writer, const struct wire_record *record)
{
	if (writer->sink.kind != SINK_DISCARD) {
		if (is_full(writer->through))
			return writer->graph->failed ? OFFER_FAILED : OFFER_FULL;
		append_line(writer->through, record->payload);
	}
	writer->records++;
	writer->bytes += record->payload.size + 1;
	writer->graph->records_out++;
	return OFFER_TAKEN;
}

void sink_channel_end(struct sink_writer *writer)
{
	CHECK(writer->channels_open > 0);
	if (--writer->channels_open == 0)
		sink_flush(writer);
}

void sink_close(struct sink_writer *writer)
{
	if (writer->item.fd >= 0 && writer->graph->watch != NULL)
		watch_forget(writer->graph->watch, &writer->item);
	if (writer->item.fd > STDERR_FILENO)
		close(writer->item.fd);
	writer->item.fd = -1;
	free(writer->buffer);
	writer->buffer = NULL;
}
