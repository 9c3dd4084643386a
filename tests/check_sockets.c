/* Socket paths: stale ones are removed, live ones refused, and the lock goes with its holder. */
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/sockets.h"
#include "tests/check_main.h"

static char folder[64], front[100], stats[100], lock[100], address[120];
static struct config config;
static struct socket_claims claims;
static char why[SOCKET_WHY_MAX];

static void set_up(void)
{
	strcpy(folder, "/tmp/sockXXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(front, sizeof(front), "%s/front", folder);
	snprintf(stats, sizeof(stats), "%s/stats", folder);
	snprintf(lock, sizeof(lock), "%s/front.lock", folder);
	snprintf(address, sizeof(address), "unix:%s", front);
	config = (struct config){.listen = {"127.0.0.1:1", address}, .listen_count = 2, .stats = stats};
	why[0] = '\0';
}

static void clean(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	ck_assert_int_eq(system(command), 0);
}

static bool exists(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0;
}

/* A socket bound to a path; listening or, once closed, left over. */
static int bind_to(const char *path)
{
	struct sockaddr_un where = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(where.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&where, sizeof(where)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

START_TEST(paths_are_taken_and_given_back)
{
	ck_assert_msg(sockets_claim(&claims, &config, why), "%s", why);
	ck_assert_uint_eq(claims.count, 2);
	ck_assert(exists(lock));
	close(bind_to(front));
	sockets_release(&claims);
	ck_assert(!exists(lock));
	ck_assert(!exists(front));
	ck_assert_int_eq(rmdir(folder), 0); /* nothing at all is left */
	ck_assert_int_eq(mkdir(folder, 0700), 0);
}
END_TEST

START_TEST(a_second_sidecar_is_refused_and_told_whose_it_is)
{
	struct socket_claims second;
	char pid[32];

	ck_assert(sockets_claim(&claims, &config, why));
	ck_assert(!sockets_claim(&second, &config, why));
	snprintf(pid, sizeof(pid), "process %d", getpid());
	ck_assert_ptr_nonnull(strstr(why, "is served by another bridged"));
	ck_assert_ptr_nonnull(strstr(why, pid));
	ck_assert_ptr_nonnull(strstr(why, front));
	ck_assert(exists(lock)); /* the first one's */
	sockets_release(&claims);
	ck_assert(sockets_claim(&second, &config, why));
	sockets_release(&second);
}
END_TEST

START_TEST(what_was_taken_is_let_go_when_the_next_is_refused)
{
	int live = bind_to(stats);

	ck_assert(!sockets_claim(&claims, &config, why));
	ck_assert_ptr_nonnull(strstr(why, "another program is listening there"));
	ck_assert(!exists(lock));
	ck_assert(exists(stats));
	close(live);
}
END_TEST

START_TEST(a_stale_socket_is_removed)
{
	close(bind_to(front));
	ck_assert(exists(front));
	ck_assert_msg(sockets_claim(&claims, &config, why), "%s", why);
	ck_assert(!exists(front));
	sockets_release(&claims);
}
END_TEST

START_TEST(a_live_socket_is_refused_even_when_its_queue_is_full)
{
	int live = bind_to(front), waiting[8];

	for (size_t i = 0; i < 8; i++) {
		struct sockaddr_un where = {.sun_family = AF_UNIX};
		waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		strcpy(where.sun_path, front);
		(void)!connect(waiting[i], (struct sockaddr *)&where, sizeof(where));
	}
	ck_assert(!sockets_claim(&claims, &config, why));
	ck_assert_ptr_nonnull(strstr(why, front));
	ck_assert(exists(front));
	for (size_t i = 0; i < 8; i++)
		close(waiting[i]);
	close(live);
}
END_TEST

START_TEST(a_file_that_is_no_socket_is_left_alone)
{
	close(open(front, O_CREAT | O_WRONLY, 0600));
	ck_assert(!sockets_claim(&claims, &config, why));
	ck_assert_ptr_nonnull(strstr(why, "a file that is no socket"));
	ck_assert(exists(front));
}
END_TEST

START_TEST(a_folder_that_is_missing_is_named)
{
	config.stats = "/nonexistent/folder/stats";
	ck_assert(!sockets_claim(&claims, &config, why));
	ck_assert_ptr_nonnull(strstr(why, "/nonexistent/folder/stats.lock: No such file or directory"));
}
END_TEST

START_TEST(a_lock_goes_with_its_holder_however_that_ends)
{
	int ready[2], status;
	char byte;

	ck_assert_int_eq(pipe(ready), 0);
	pid_t holder = fork();
	if (holder == 0) {
		int live = sockets_claim(&claims, &config, why) ? bind_to(front) : -1;
		_exit(live >= 0 && write(ready[1], "x", 1) == 1 ? pause() : 1);
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	ck_assert(!sockets_claim(&claims, &config, why));
	kill(holder, SIGKILL);
	ck_assert_int_eq(waitpid(holder, &status, 0), holder);
	ck_assert(exists(lock) && exists(front));
	ck_assert_msg(sockets_claim(&claims, &config, why), "%s", why);
	ck_assert(!exists(front));
	sockets_release(&claims);
}
END_TEST

static Suite *sockets_suite(void)
{
	Suite *suite = suite_create("sockets");
	TCase *tests = tcase_create("sockets");

	tcase_add_checked_fixture(tests, set_up, clean);
	tcase_add_test(tests, paths_are_taken_and_given_back);
	tcase_add_test(tests, a_second_sidecar_is_refused_and_told_whose_it_is);
	tcase_add_test(tests, what_was_taken_is_let_go_when_the_next_is_refused);
	tcase_add_test(tests, a_stale_socket_is_removed);
	tcase_add_test(tests, a_live_socket_is_refused_even_when_its_queue_is_full);
	tcase_add_test(tests, a_file_that_is_no_socket_is_left_alone);
	tcase_add_test(tests, a_folder_that_is_missing_is_named);
	tcase_add_test(tests, a_lock_goes_with_its_holder_however_that_ends);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(sockets_suite)
