/*
 * Sinks of the local runner (run_graph.h): each record's payload as a line in one file, on standard output, or nowhere.
 *
 * What is written is collected in a buffer; a full one that cannot be written without blocking refuses records, and
 * the refusal travels up to the sources. A regular file never blocks; a pipe is given what it takes, in pieces of
 * PIPE_BUF, which is what a writable pipe is sure to take without blocking. Sinks that share standard output share one
 * buffer, so that no line is torn.
 *
 * With --checkpoint a barrier of all producers has the file written and synced, and its length is the checkpoint's. A run that
 * goes on cuts the file to that length; what was behind it comes again.
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

#include "cli/run_checkpoint.h"
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
	int how = writer->graph->checkpoint != NULL ? O_RDWR : O_WRONLY | O_TRUNC; /* cut later, see sink_cut */
	writer->item.fd = open(writer->sink.path, how | O_CREAT | O_CLOEXEC, 0666);
	return writer->item.fd >= 0 || sink_failed(writer, "open", errno);
}

/* With --checkpoint: what the file is known by, and that it can be cut. */
static bool find_place(struct sink_writer *writer, const struct stat *stat)
{
	if (!S_ISREG(stat->st_mode))
		return run_graph_refuse(writer->graph,
					"sink \"%s\": %s is no regular file: it cannot be cut back after a crash, so "
					"--checkpoint cannot make it exactly once",
					writer->sink.name, path_of(writer));
	if (run_store_is(run_checkpoint_store(writer->graph), stat))
		return run_graph_refuse(writer->graph, "sink \"%s\" would overwrite %s, which is the checkpoint",
					writer->sink.name, path_of(writer));
	writer->place = realpath(writer->sink.path, NULL);
	return writer->place != NULL || sink_failed(writer, "find", errno);
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
	if (writer->sink.kind == SINK_DISCARD) {
		writer->place = strdup("");
		return true;
	}
	writer->item = (struct watch_item){.fd = STDOUT_FILENO, .events = EPOLLOUT};
	if (writer->sink.kind == SINK_FILE && strcmp(writer->sink.path, "-") != 0 && !open_file(writer))
		return false;
	if (fstat(writer->item.fd, &stat) != 0)
		return sink_failed(writer, "open", errno);
	if (writer->graph->checkpoint != NULL && !find_place(writer, &stat))
		return false;
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

/* ---- Checkpoints ---- */

uint64_t sink_length(const struct sink_writer *writer)
{
	return writer->sink.kind == SINK_DISCARD ? 0 : writer->length_before + writer->bytes;
}

/* Has the file on the disk as it is, and looks whether it is what was written. */
static bool sync_file(struct sink_writer *writer)
{
	struct stat stat;
	if (writer->sink.kind == SINK_DISCARD)
		return true;
	if (fdatasync(writer->item.fd) != 0 || fstat(writer->item.fd, &stat) != 0)
		return sink_failed(writer, "sync", errno);
	uint64_t length = sink_length(writer);
	if ((uint64_t)stat.st_size == length && run_fingerprint(writer->item.fd, length, &writer->fingerprint))
		return true;
	run_graph_fail(writer->graph, "sink \"%s\": %s has %lld bytes, and %llu were written: somebody else changes it",
		       writer->sink.name, path_of(writer), (long long)stat.st_size, (unsigned long long)length);
	return false;
}

/* All producers have delivered the barrier: everything before it goes to the disk. */
static void pass_barrier(struct sink_writer *writer)
{
	flush_buffer(writer); /* a regular file takes all */
	if (writer->graph->failed || !sync_file(writer))
		return;
	CHECK(writer->start == writer->end);
	aligner_pass(&writer->aligner, writer->aligner.coming);
	writer->graph->room = true;
	run_checkpoint_sink(writer);
}

void sink_barrier(struct sink_writer *writer, uint64_t barrier)
{
	if (aligner_barrier(&writer->aligner, barrier))
		pass_barrier(writer);
}

bool sink_resume(struct sink_writer *writer, const struct store_sink *before)
{
	struct stat stat;
	uint64_t fingerprint;
	writer->records_before = before->records;
	writer->length_before = before->length;
	if (writer->sink.kind == SINK_DISCARD)
		return true;
	if (fstat(writer->item.fd, &stat) != 0 || (uint64_t)stat.st_size < before->length)
		return run_graph_refuse(
		    writer->graph,
		    "sink \"%s\": %s has %lld bytes, and %llu were written: it was cut or replaced; "
		    "without it nothing can be gone on with",
		    writer->sink.name, path_of(writer), (long long)stat.st_size, (unsigned long long)before->length);
	if (!run_fingerprint(writer->item.fd, before->length, &fingerprint) || fingerprint != before->fingerprint)
		return run_graph_refuse(
		    writer->graph, "sink \"%s\": %s does not hold what was written there: somebody else changed it",
		    writer->sink.name, path_of(writer));
	return true;
}

/* Makes the name of a new file durable. */
static bool sync_folder(struct sink_writer *writer)
{
	char folder[PATH_MAX];
	snprintf(folder, sizeof(folder), "%s", writer->place);
	strrchr(folder, '/')[1] = '\0';
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool fine = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return fine || sink_failed(writer, "sync the folder of", errno);
}

bool sink_cut(struct sink_writer *writer)
{
	if (writer->sink.kind == SINK_DISCARD)
		return true;
	off_t length = (off_t)writer->length_before;
	if (ftruncate(writer->item.fd, length) != 0 || lseek(writer->item.fd, length, SEEK_SET) != length)
		return sink_failed(writer, "cut", errno);
	return sync_folder(writer);
}

/* ---- Writing out, and the end ---- */

/* Ends the sink when all producers have and all is written. */
static void end_if_done(struct sink_writer *writer)
{
	if (writer->ended || writer->aligner.open > 0 || writer->through->end > writer->through->start)
		return;
	if (writer->graph->checkpoint != NULL && !sync_file(writer))
		return;
	writer->ended = true;
	if (run_checkpoint_wanted(writer->graph) > writer->aligner.passed)
		run_checkpoint_sink(writer); /* it will hear of no barrier any more */
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
	if (aligner_end(&writer->aligner))
		pass_barrier(writer);
	if (writer->aligner.open == 0)
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
	free(writer->place);
	writer->place = NULL;
}
