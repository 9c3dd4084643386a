/*
 * Fuzz target: `bridgectl replay` reads a recording that anybody may have written. The first byte of an input says what is put right
 * before it is read (the head, the checksum at the end), so that there is something behind both to be found. What is refused has
 * words; what is taken lies within the file, and is the same again when it is written anew.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "shared/log.h"
#include "shared/recording.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RIGHT_HEAD = 1, RIGHT_CHECKSUM = 2, HEAD = 12, BODY_MAX = 1 << 16 };

/* Where a file without a name is found by one. */
static const char *path_of(int fd, char path[64])
{
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return path;
}

/* Makes a file of these bytes; its descriptor. */
static int file_of(const uint8_t *bytes, size_t size)
{
	int fd = memfd_create("recording", MFD_CLOEXEC);

	CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
	return fd;
}

/* Whether a view lies within the file. */
static bool is_inside(const struct recording *recording, struct view view)
{
	return view.size == 0 || (view.data >= recording->bytes && view.size <= recording->size &&
				  view.data + view.size <= recording->bytes + recording->size);
}

/* Writes what was read, and reads it again. */
static void check_again(const struct recording *recording)
{
	char name[] = "/tmp/fuzz_recording_XXXXXX", why[RECORDING_WHY_MAX];
	struct recording again;
	int fd = mkstemp(name);

	CHECK(fd >= 0);
	struct recording_writer *writer = recording_create(name);
	CHECK(writer != NULL);
	recording_describe(writer, &recording->header);
	for (uint32_t i = 0; i < recording->message_count; i++)
		recording_add(writer, recording->messages[i]);
	CHECK(recording_finish(writer) && recording_read(&again, name, why));
	CHECK(again.message_count == recording->message_count);
	for (uint32_t i = 0; i < again.message_count; i++)
		CHECK(view_equal(again.messages[i], recording->messages[i]));
	CHECK(view_equal(again.header.pipeline, recording->header.pipeline));
	CHECK(view_equal(again.header.descriptor, recording->header.descriptor));
	CHECK(again.header.seq == recording->header.seq && again.header.record == recording->header.record);
	recording_free(&again);
	close(fd);
	CHECK(unlink(name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t head[HEAD] = {'F', 'B', 'R', 'E', 'C', 'O', 'R', 'D', RECORDING_VERSION};
	static uint8_t bytes[HEAD + BODY_MAX + 8];
	uint8_t choice = size > 0 ? data[0] : 0;
	size_t rest = size > 0 ? size - 1 : 0, used = 0;
	struct recording recording;
	char path[64], why[RECORDING_WHY_MAX] = "";

	if (rest > BODY_MAX)
		return 0;
	if (choice & RIGHT_HEAD) {
		memcpy(bytes, head, HEAD);
		used = HEAD;
	}
	if (rest > 0)
		memcpy(bytes + used, data + 1, rest);
	used += rest;
	if (choice & RIGHT_CHECKSUM) {
		uint64_t checksum = XXH3_64bits(bytes, used);
		for (int i = 0; i < 8; i++)
			bytes[used++] = (uint8_t)(checksum >> (8 * i));
	}
	int fd = file_of(bytes, used);
	if (recording_read(&recording, path_of(fd, path), why)) {
		for (uint32_t i = 0; i < recording.message_count; i++)
			CHECK(recording.messages[i].size > 0 && is_inside(&recording, recording.messages[i]));
		CHECK(is_inside(&recording, recording.header.pipeline) &&
		      is_inside(&recording, recording.header.descriptor) &&
		      is_inside(&recording, recording.header.step));
		check_again(&recording);
	} else {
		CHECK(why[0] != '\0');
	}
	recording_free(&recording);
	close(fd);
	return 0;
}
