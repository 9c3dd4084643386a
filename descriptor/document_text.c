/*
 * The text of a document (document_text.h). What is not a regular file is refused before it is read: a pipe may never
 * end, a device neither. The one exception is standard input when it is asked for by name.
 */
#include "descriptor/document_text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/wire.h"

/* A finding about the file as a whole. */
static struct finding *file_finding(const struct document *document, struct diagnostics *diagnostics, const char *words)
{
	return diagnostics_add(diagnostics, (struct place){document->file, 0, 0}, "%s", words);
}

void text_too_large(const struct document *document, size_t bytes_max, struct diagnostics *diagnostics)
{
	diagnostics_add(diagnostics, (struct place){document->file, 0, 0},
			"the file is too large: at most %zu KiB are read", bytes_max >> 10);
}

/* Opens a regular file for reading; -1 and a finding otherwise. Never blocks in open, whatever the path is. */
static int file_open(const struct document *document, const char *path, size_t bytes_max,
		     struct diagnostics *diagnostics)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) != 0) {
		diagnostics_add(diagnostics, (struct place){document->file, 0, 0}, "cannot be read: %s",
				strerror(errno));
	} else if (S_ISDIR(status.st_mode)) {
		file_finding(document, diagnostics, "is a directory, not a file");
	} else if (!S_ISREG(status.st_mode)) {
		finding_hint(file_finding(document, diagnostics, "is a pipe, socket or device, not a regular file"),
			     "use - to read standard input");
	} else if (status.st_size > (off_t)bytes_max) {
		text_too_large(document, bytes_max, diagnostics);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Reads a descriptor to its end, one byte more than allowed at most. The size, or -1 with errno. */
static ssize_t bytes_read(int fd, char *bytes, size_t bytes_max)
{
	size_t used = 0;

	while (used <= bytes_max) {
		ssize_t got = read(fd, bytes + used, bytes_max + 1 - used);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		used += (size_t)got;
	}
	return (ssize_t)used;
}

bool text_read(struct document *document, const char *path, size_t bytes_max, struct diagnostics *diagnostics)
{
	bool standard = strcmp(path, "-") == 0;
	int fd = standard ? STDIN_FILENO : file_open(document, path, bytes_max, diagnostics);

	if (fd < 0)
		return false;
	char *bytes = pool_alloc(&document->pool, bytes_max + 1);
	ssize_t size = bytes_read(fd, bytes, bytes_max);
	int saved = errno;
	if (!standard)
		close(fd);
	if (size < 0)
		diagnostics_add(diagnostics, (struct place){document->file, 0, 0}, "cannot be read: %s",
				strerror(saved));
	else if ((size_t)size > bytes_max)
		text_too_large(document, bytes_max, diagnostics);
	else
		document->text = (struct view){(const uint8_t *)bytes, (size_t)size};
	return size >= 0 && (size_t)size <= bytes_max;
}

/* Offset of the first byte that is no well-formed UTF-8, or the size. */
static size_t utf8_stray(struct view text)
{
	size_t at = utf8_valid(text) ? text.size : 0;

	while (at < text.size) {
		size_t length = 1;
		while (length < 4 && at + length < text.size && !utf8_valid((struct view){text.data + at, length}))
			length++;
		if (!utf8_valid((struct view){text.data + at, length}))
			break;
		at += length;
	}
	return at;
}

/* Makes a finding at an offset. */
static struct finding *offset_finding(const struct document *document, size_t offset, struct diagnostics *diagnostics,
				      const char *words, unsigned value)
{
	struct place where = place_of(document->file, document->text, offset);
	struct finding *finding = diagnostics_add(diagnostics, where, "%s: the byte 0x%02x", words, value);

	finding_show(finding, document->text, 1);
	return finding;
}

bool text_check(struct document *document, struct diagnostics *diagnostics)
{
	struct view *text = &document->text;

	if (text->size >= 3 && memcmp(text->data, "\xef\xbb\xbf", 3) == 0)
		*text = (struct view){text->data + 3, text->size - 3};
	size_t stray = utf8_stray(*text);
	if (stray < text->size) {
		finding_hint(offset_finding(document, stray, diagnostics, "not UTF-8", text->data[stray]),
			     "save the file as UTF-8");
		return false;
	}
	for (size_t i = 0; i < text->size; i++) {
		uint8_t byte = text->data[i];
		if (byte >= 0x20 ? byte != 0x7f : byte == '\t' || byte == '\n' || byte == '\r')
			continue;
		finding_hint(offset_finding(document, i, diagnostics, "a control character", byte),
			     "in double quotes write it as an escape like \\x1b");
		return false;
	}
	return true;
}

int text_character_at(struct view text, size_t line, size_t column)
{
	size_t low = 0;

	for (size_t at = 0; at < text.size && line > 1;) {
		size_t length = line_break_at(text, at);
		at += length > 0 ? length : 1;
		low = length > 0 ? at : low;
		line -= length > 0;
	}
	for (; low < text.size && column > 1; column--) {
		do {
			low++;
		} while (low < text.size && (text.data[low] & 0xc0) == 0x80);
	}
	return low < text.size ? text.data[low] : 0;
}
