/*
 * Sinks of the local runner (run_graph.h): each record's payload as a line in one file, on standard output, or nowhere.
 *
 * What is written is collected in a buffer; a full one that cannot be written without blocking refuses records, and
 * the refusal travels up to the sources. A regular file never blocks; a pipe is given what it takes, in pieces of
 * PIPE_BUF, which is what a readable pipe is sure to take without blocking.
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

/* Whether the sink would overwrite what a source is reading. */
static bool overwrites_source(const struct sink_writer *writer)
{
	struct stat own, other;
	if (stat(writer->sink.path, &own) != 0 || !S_ISREG(own.st_mode))
		return false;
	for (size_t i = 0; i < writer->graph->descriptor->source_count; i++) {
		int fd = writer->graph->sources[i].item.fd;
		if (fd >= 0 && fstat(fd, &other) == 0 && own.st_dev == other.st_dev && own.st_ino == other.st_ino)
			return true;
	}
	return false;
}

/* Opens the file of a file sink. */
static bool open_file(struct sink_writer *writer)
{
	if (!make_folders(writer, writer->sink.path))
		return false;
	if (overwrites_source(writer)) {
		run_graph_fail(writer->graph, "sink \"%s\" would overwrite %s, which a source reads", writer->sink.name,
			       writer->sink.path);
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

bool sink_open(struct sink_writer *writer)
{
	struct stat stat;
	if (writer->sink.kind == SINK_DISCARD)
		return true;
	writer->item = (struct watch_item){.fd = STDOUT_FILENO, .events = EPOLLOUT};
	if (writer->sink.kind == SINK_FILE && strcmp(writer->sink.path, "-") != 0 && !open_file(writer))
		return false;
	if (fstat(writer->item.fd, &stat) != 0)
		return sink_failed(writer, "open", errno);
	writer->pollable = S_ISFIFO(stat.st_mode) || S_ISSOCK(stat.st_mode);
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
	if (writer->ended || writer->channels_open > 0 || writer->end > writer->start)
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

void sink_flush(struct sink_writer *writer)
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
	end_if_done(writer);
}

/* Whether the buffer has taken all it should; what can be written without blocking is written first. */
static bool is_full(struct sink_writer *writer)
{
	if (writer->end - writer->start < SINK_BUFFER)
		return false;
	sink_flush(writer);
	return writer->end - writer->start >= SINK_BUFFER;
}

enum offer sink_offer(struct sink_writer *writer, const struct wire_record *record)
{
	size_t size = record->payload.size + 1;
	if (writer->sink.kind != SINK_DISCARD) {
		if (is_full(writer))
			return writer->graph->failed ? OFFER_FAILED : OFFER_FULL;
		make_room(writer, size);
		if (record->payload.size > 0)
			memcpy(writer->buffer + writer->end, record->payload.data, record->payload.size);
		writer->end += size;
		writer->buffer[writer->end - 1] = '\n';
	}
	writer->records++;
	writer->bytes += size;
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
}
