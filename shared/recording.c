/* Recordings (recording.h). */
#include "shared/recording.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "shared/wire.h"

static const char magic[8] = {'F', 'B', 'R', 'E', 'C', 'O', 'R', 'D'};

enum { HEAD_SIZE = sizeof(magic) + 4, END_SIZE = 4 + 8, NUMBERS_SIZE = 256 };

/* The fields of the header: FIELD(number, member), texts and numbers. */
#define TEXT_FIELDS(FIELD)                                                                                             \
	FIELD(1, release)                                                                                              \
	FIELD(2, pipeline)                                                                                             \
	FIELD(3, topology_hash)                                                                                        \
	FIELD(4, segment_name)                                                                                         \
	FIELD(5, descriptor)                                                                                           \
	FIELD(6, step)                                                                                                 \
	FIELD(7, cause)
#define NUMBER_FIELDS(FIELD)                                                                                           \
	FIELD(8, segment)                                                                                              \
	FIELD(9, slot)                                                                                                 \
	FIELD(10, process)                                                                                             \
	FIELD(11, record)                                                                                              \
	FIELD(12, seq)                                                                                                 \
	FIELD(13, when_ms)                                                                                             \
	FIELD(14, message_max)                                                                                         \
	FIELD(15, record_max)                                                                                          \
	FIELD(16, incomplete)

/* ---- Writing ---- */

struct recording_writer {
	FILE *file;
	char *path, *temporary;
	XXH3_state_t *checksum;
	uint64_t size;
	int error; /* the first; 0: none */
};

/* Notes what went wrong first. */
static void note(struct recording_writer *writer, int error)
{
	if (writer->error == 0)
		writer->error = error == 0 ? EIO : error;
}

/* Writes bytes, counted and checksummed. */
static void put(struct recording_writer *writer, const void *bytes, size_t size)
{
	if (writer->error != 0 || size == 0)
		return;
	if (size > RECORDING_MAX - writer->size) {
		note(writer, EFBIG);
		return;
	}
	writer->size += size;
	XXH3_64bits_update(writer->checksum, bytes, size);
	errno = 0;
	if (fwrite(bytes, 1, size, writer->file) != size)
		note(writer, errno);
}

/* Writes a size. */
static void put_size(struct recording_writer *writer, uint32_t size)
{
	uint8_t bytes[4] = {(uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), (uint8_t)(size >> 24)};

	put(writer, bytes, sizeof(bytes));
}

/* Writes the header behind its size. */
static void put_header(struct recording_writer *writer, const struct recording_header *header)
{
	uint64_t size = NUMBERS_SIZE;

#define FIELD(number, member) size += header->member.size;
	TEXT_FIELDS(FIELD)
#undef FIELD
	uint8_t *bytes = size > RECORDING_MAX ? NULL : malloc(size);
	if (bytes == NULL) {
		note(writer, ENOMEM);
		return;
	}
	struct wire_writer wire = {bytes, bytes + size, false};
#define FIELD(number, member) wire_put_bytes_field(&wire, number, header->member);
	TEXT_FIELDS(FIELD)
#undef FIELD
#define FIELD(number, member) wire_put_varint_field(&wire, number, (uint64_t)header->member);
	NUMBER_FIELDS(FIELD)
#undef FIELD
	put_size(writer, (uint32_t)(wire.at - bytes));
	put(writer, bytes, (size_t)(wire.at - bytes));
	free(bytes);
}

/* Frees a writer. */
static void writer_free(struct recording_writer *writer)
{
	if (writer->file != NULL)
		fclose(writer->file);
	XXH3_freeState(writer->checksum);
	free(writer->path);
	free(writer->temporary);
	free(writer);
}

struct recording_writer *recording_create(const char *path)
{
	struct recording_writer *writer = calloc(1, sizeof(*writer));

	if (writer == NULL)
		return NULL;
	writer->path = strdup(path);
	writer->checksum = XXH3_createState();
	if (writer->path == NULL || writer->checksum == NULL ||
	    asprintf(&writer->temporary, "%s" RECORDING_PART, path) < 0) {
		writer->temporary = NULL;
		writer_free(writer);
		errno = ENOMEM;
		return NULL;
	}
	XXH3_64bits_reset(writer->checksum);
	int fd =
	    open(writer->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600); /* it holds what people sent */
	writer->file = fd < 0 ? NULL : fdopen(fd, "w");
	if (writer->file == NULL) {
		int error = errno;
		if (fd >= 0)
			close(fd);
		writer_free(writer);
		errno = error;
		return NULL;
	}
	return writer;
}

void recording_describe(struct recording_writer *writer, const struct recording_header *header)
{
	put(writer, magic, sizeof(magic));
	put_size(writer, RECORDING_VERSION);
	put_header(writer, header);
}

void recording_add(struct recording_writer *writer, struct view message)
{
	if (message.size > RECORDING_MAX) {
		note(writer, EFBIG);
		return;
	}
	put_size(writer, (uint32_t)message.size);
	put(writer, message.data, message.size);
}

/* Has the directory that a file is in on the disk. */
static void sync_directory(char *path)
{
	int directory = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (directory < 0)
		return;
	fsync(directory);
	close(directory);
}

bool recording_finish(struct recording_writer *writer)
{
	put_size(writer, 0);
	uint64_t checksum = XXH3_64bits_digest(writer->checksum);
	put_size(writer, (uint32_t)checksum);
	put_size(writer, (uint32_t)(checksum >> 32));
	if (fflush(writer->file) != 0 || fsync(fileno(writer->file)) != 0)
		note(writer, errno);
	if (writer->error == 0 && rename(writer->temporary, writer->path) != 0)
		note(writer, errno);
	if (writer->error != 0)
		unlink(writer->temporary);
	else
		sync_directory(writer->path);
	int error = writer->error;
	writer_free(writer);
	errno = error;
	return error == 0;
}

/* ---- Reading ---- */

/* What is left of a file. */
struct cursor {
	const uint8_t *at, *end;
};

/* Reads a number of 4 bytes; false at the end. */
static bool take_size(struct cursor *cursor, uint32_t *size)
{
	if (cursor->end - cursor->at < 4)
		return false;
	*size = cursor->at[0] | (uint32_t)cursor->at[1] << 8 | (uint32_t)cursor->at[2] << 16 |
		(uint32_t)cursor->at[3] << 24;
	cursor->at += 4;
	return true;
}

/* Reads bytes behind their size; false where there are not so many. */
static bool take_bytes(struct cursor *cursor, struct view *bytes)
{
	uint32_t size;

	if (!take_size(cursor, &size) || (uint64_t)(cursor->end - cursor->at) < size)
		return false;
	*bytes = (struct view){cursor->at, size};
	cursor->at += size;
	return true;
}

/* Reads a header's fields. */
static bool parse_header(struct view bytes, struct recording_header *header)
{
	struct wire_reader reader;
	struct wire_field field;

	wire_reader_init(&reader, bytes);
	while (wire_next(&reader, &field)) {
		switch (field.number) {
#define FIELD(number, member)                                                                                          \
	case number:                                                                                                   \
		if (field.type != WIRE_BYTES || !utf8_valid(field.bytes) ||                                            \
		    memchr(field.bytes.data, '\0', field.bytes.size) != NULL)                                          \
			return false;                                                                                  \
		header->member = field.bytes;                                                                          \
		break;
			TEXT_FIELDS(FIELD)
#undef FIELD
#define FIELD(number, member)                                                                                          \
	case number:                                                                                                   \
		if (field.type != WIRE_VARINT)                                                                         \
			return false;                                                                                  \
		header->member = (__typeof__(header->member))field.scalar;                                             \
		break;
			NUMBER_FIELDS(FIELD)
#undef FIELD
		default:
			break;
		}
	}
	return !reader.malformed;
}

/* Says what is wrong; false. */
static bool __attribute__((format(printf, 2, 3))) refuse(char *why, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, RECORDING_WHY_MAX, format, arguments);
	va_end(arguments);
	return false;
}

/* Reads the file's bytes. */
static bool read_bytes(struct recording *recording, const char *path, char *why)
{
	struct stat status;
	FILE *file = fopen(path, "re");

	if (file == NULL)
		return refuse(why, "%s", strerror(errno));
	if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode)) {
		fclose(file);
		return refuse(why, "it is no file");
	}
	if ((uint64_t)status.st_size > RECORDING_MAX) {
		fclose(file);
		return refuse(why, "it has more bytes than a recording can have");
	}
	recording->size = (uint64_t)status.st_size;
	recording->bytes = malloc(recording->size + 1);
	bool whole = recording->bytes != NULL && fread(recording->bytes, 1, recording->size, file) == recording->size;
	fclose(file);
	return whole || refuse(why, "it cannot be read as a whole");
}

/* Checks head and checksum; the cursor is then over what is between. */
static bool check_outside(const struct recording *recording, struct cursor *cursor, char *why)
{
	struct cursor end;
	uint32_t version = 0, low = 0, high = 0;

	if (recording->size < sizeof(magic) || memcmp(recording->bytes, magic, sizeof(magic)) != 0)
		return refuse(why, "it is no recording");
	*cursor = (struct cursor){recording->bytes + sizeof(magic), recording->bytes + recording->size};
	if (!take_size(cursor, &version))
		return refuse(why, "it ends in its head: it has been cut off");
	if (version != RECORDING_VERSION)
		return refuse(why, "it is of version %" PRIu32 "; this program reads version %d", version,
			      RECORDING_VERSION);
	if (recording->size < HEAD_SIZE + 4 + END_SIZE)
		return refuse(why, "it ends in its head: it has been cut off");
	end = (struct cursor){cursor->end - 8, cursor->end};
	take_size(&end, &low);
	take_size(&end, &high);
	cursor->end -= 8;
	if (XXH3_64bits(recording->bytes, recording->size - 8) != ((uint64_t)high << 32 | low))
		return refuse(why, "its checksum is wrong: it has been cut off, or is damaged");
	return true;
}

/* Finds the messages. */
static bool find_messages(struct recording *recording, struct cursor cursor, char *why)
{
	struct view message = {0};
	uint32_t room = 0;

	while (take_bytes(&cursor, &message) && message.size > 0) {
		if (recording->message_count == RECORDING_MESSAGES_MAX)
			return refuse(why, "it has more than %d messages", RECORDING_MESSAGES_MAX);
		if (recording->message_count == room) {
			room = room == 0 ? 16 : 2 * room;
			struct view *more = realloc(recording->messages, room * sizeof(*more));
			if (more == NULL)
				return refuse(why, "there is no memory for it");
			recording->messages = more;
		}
		recording->messages[recording->message_count++] = message;
		message.size = SIZE_MAX; /* so that the end can be told from where nothing can be taken */
	}
	if (message.size != 0 || cursor.at != cursor.end)
		return refuse(why, "behind message %" PRIu32 " comes what is none", recording->message_count);
	if (recording->message_count == 0)
		return refuse(why, "there is no message in it");
	return true;
}

bool recording_read(struct recording *recording, const char *path, char *why)
{
	struct cursor cursor = {0};
	struct view header;

	*recording = (struct recording){0};
	if (!read_bytes(recording, path, why) || !check_outside(recording, &cursor, why))
		return false;
	if (!take_bytes(&cursor, &header) || !parse_header(header, &recording->header))
		return refuse(why, "its header cannot be read");
	return find_messages(recording, cursor, why);
}

void recording_free(struct recording *recording)
{
	free(recording->bytes);
	free(recording->messages);
	*recording = (struct recording){0};
}
