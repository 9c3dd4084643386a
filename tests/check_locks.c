/* Locks that gRPC takes are not watched for deadlocks. */
#include <grpc/grpc.h>
#include <grpc/support/sync.h>

#include "shared/locks.h"
#include "tests/check_main.h"

/* Two mutexes of gRPC, one locked inside of the other. */
static void nest(gpr_mu *outer, gpr_mu *inner)
{
	gpr_mu_lock(outer);
	gpr_mu_lock(inner);
	gpr_mu_unlock(inner);
	gpr_mu_unlock(outer);
}

/* A watching library ends the process here: one order of two locks and then the other might be a deadlock some day. */
START_TEST(test_any_order_of_two_locks_will_do)
{
	gpr_mu one, two;
	grpc_init();
	locks_unwatched();
	gpr_mu_init(&one);
	gpr_mu_init(&two);
	nest(&one, &two);
	nest(&two, &one);
	gpr_mu_destroy(&one);
	gpr_mu_destroy(&two);
}
END_TEST

static Suite *locks_suite(void)
{
	Suite *suite = suite_create("locks");
	TCase *tests = tcase_create("all");

	tcase_add_test(tests, test_any_order_of_two_locks_will_do);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(locks_suite)
