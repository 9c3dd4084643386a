/*
 * For suites that run gRPC in their own process: its library is not built for ThreadSanitizer, which therefore does not see what
 * its threads agree on. What that library does is left out; our own code is looked at as ever.
 */
#ifndef TESTS_TSAN_GRPC_H
#define TESTS_TSAN_GRPC_H

const char *__tsan_default_suppressions(
    void); /* NOLINT(bugprone-reserved-identifier,cert-dcl*): the sanitizer asks for it by name */

const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:libgrpc.so\n"
	       "called_from_lib:libgpr.so\n"
	       "race:libgrpc.so\n"
	       "race:libgpr.so\n"
	       "race:libabsl_\n"
	       "thread:libgpr.so\n";
}

#endif
