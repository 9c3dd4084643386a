/* Recordings: what is written is read, a disk that is full leaves nothing behind, and no damage goes unseen. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/recording.h"
#include "tests/check_main.h"

static char directory[] = "/tmp/check_recording_XXXXXX";
static char path[128], part[160];

static void setup(void)
{
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/one", directory);
	snprintf(part, sizeof(part), "%s.part", path);
}

static void teardown(void)
{
	unlink(path);
	unlink(part);
	ck_assert_int_eq(rmdir(directory), 0);
}

static struct recording_header some_header(void)
{
	return (struct recording_header){
	    .release = view_of("1.2"),
	    .pipeline = view_of("orders"),
	    .topology_hash = view_of("abc"),
	    .segment_name = view_of("by_user"),
	    .descriptor = view_of("sources: {}\n"),
	    .step = view_of("shout"),
	    .cause = view_of("code"),
	    .segment = 3,
	    .slot = 2,
	    .process = 7,
	    .record = UINT32_MAX,
	    .seq = UINT64_MAX,
	    .when_ms = 1795711328123,
	    .message_max = 1 << 20,
	    .record_max = 1000,
	    .incomplete = true,
	};
}

/* Writes a recording with two messages. */
static bool write_some(void)
{
	struct recording_header header = some_header();
	struct recording_writer *writer = recording_create(path);

	if (writer == NULL)
		return false;
	recording_describe(writer, &header);
	recording_add(writer, view_of("first"));
	recording_add(writer, view_of("second"));
	return recording_finish(writer);
}

START_TEST(what_is_written_is_read)
{
	struct recording recording;
	struct recording_header header = some_header(), *read = &recording.header;
	char why[RECORDING_WHY_MAX];
	struct stat status;

	ck_assert(write_some());
	ck_assert_int_eq(access(part, F_OK), -1);
	ck_assert_int_eq(stat(path, &status), 0);
	ck_assert_uint_eq(status.st_mode & 0777, 0600);
	ck_assert_msg(recording_read(&recording, path, why), "%s", why);
	ck_assert_uint_eq(recording.message_count, 2);
	ck_assert(view_equal(recording.messages[0], view_of("first")));
	ck_assert(view_equal(recording.messages[1], view_of("second")));
	ck_assert(view_equal(read->release, header.release) && view_equal(read->pipeline, header.pipeline));
	ck_assert(view_equal(read->topology_hash, header.topology_hash) && view_equal(read->cause, header.cause));
	ck_assert(view_equal(read->segment_name, header.segment_name) && view_equal(read->step, header.step));
	ck_assert(view_equal(read->descriptor, header.descriptor) && read->incomplete);
	ck_assert_uint_eq(read->segment, header.segment);
	ck_assert_uint_eq(read->slot, header.slot);
	ck_assert_uint_eq(read->process, header.process);
	ck_assert_uint_eq(read->record, header.record);
	ck_assert_uint_eq(read->seq, header.seq);
	ck_assert_int_eq(read->when_ms, header.when_ms);
	ck_assert_uint_eq(read->message_max, header.message_max);
	ck_assert_uint_eq(read->record_max, header.record_max);
	recording_free(&recording);
}
END_TEST

START_TEST(a_full_disk_leaves_nothing_behind)
{
	ck_assert_int_eq(symlink("/dev/full", part), 0);
	errno = 0;
	ck_assert(!write_some());
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(faccessat(AT_FDCWD, part, F_OK, AT_SYMLINK_NOFOLLOW), -1);
}
END_TEST

START_TEST(a_directory_that_is_gone_is_an_error)
{
	errno = 0;
	ck_assert_ptr_null(recording_create("/nowhere/at/all"));
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(a_recording_that_is_too_large_is_none)
{
	struct recording_header header = some_header();
	struct recording_writer *writer = recording_create(path);

	ck_assert_ptr_nonnull(writer);
	recording_describe(writer, &header);
	recording_add(writer, (struct view){(const uint8_t *)"", RECORDING_MAX + 1}); /* never looked at */
	ck_assert(!recording_finish(writer));
	ck_assert_int_eq(errno, EFBIG);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

/* Writes bytes to the file. */
static void put_bytes(const uint8_t *bytes, size_t size)
{
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
	ck_assert_int_eq(fclose(file), 0);
}

/* Reads the file, which must be refused in words. */
static void check_refused(const char *words)
{
	struct recording recording;
	char why[RECORDING_WHY_MAX] = "";

	ck_assert(!recording_read(&recording, path, why));
	ck_assert_msg(why[0] != '\0' && strstr(why, words) != NULL, "\"%s\" has no \"%s\"", why, words);
	recording_free(&recording);
}

START_TEST(no_damage_goes_unseen)
{
	struct recording recording;
	char why[RECORDING_WHY_MAX];

	ck_assert(write_some());
	ck_assert(recording_read(&recording, path, why));
	for (uint64_t i = 0; i < recording.size; i++) {
		put_bytes(recording.bytes, i);
		check_refused("");
		recording.bytes[i] ^= 0x10;
		put_bytes(recording.bytes, recording.size);
		check_refused("");
		recording.bytes[i] ^= 0x10;
	}
	recording.bytes[8] = 9;
	put_bytes(recording.bytes, recording.size);
	check_refused("it is of version 9; this program reads version 1");
	put_bytes((const uint8_t *)"hello, world", 12);
	check_refused("it is no recording");
	recording_free(&recording);
}
END_TEST

START_TEST(without_messages_it_is_none)
{
	struct recording_header header = some_header();
	struct recording_writer *writer = recording_create(path);

	recording_describe(writer, &header);
	ck_assert(recording_finish(writer));
	check_refused("there is no message in it");
	ck_assert_int_eq(unlink(path), 0);
	check_refused("No such file");
	ck_assert_int_eq(mkdir(path, 0700), 0);
	check_refused("it is no file");
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

static Suite *recording_suite(void)
{
	Suite *all = suite_create("recording");
	TCase *tests = tcase_create("recording");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, what_is_written_is_read);
	tcase_add_test(tests, a_full_disk_leaves_nothing_behind);
	tcase_add_test(tests, a_directory_that_is_gone_is_an_error);
	tcase_add_test(tests, a_recording_that_is_too_large_is_none);
	tcase_add_test(tests, no_damage_goes_unseen);
	tcase_add_test(tests, without_messages_it_is_none);
	suite_add_tcase(all, tests);
	return all;
}

CHECK_MAIN(recording_suite)
