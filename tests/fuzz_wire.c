/*
 * The view parser against protobuf-c: the first byte of an input chooses the message, the rest is its bytes. A difference
 * that wire.h does not list ends the process.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/wire_agree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return -1;
	struct agreement agreement =
	    wire_agree((enum surface)(data[0] % SURFACE_COUNT), (struct view){data + 1, size - 1});
	if (agreement.difference == NULL)
		return 0;
	fprintf(stderr, "the parsers disagree on surface %u: %s\n", (unsigned)data[0] % SURFACE_COUNT,
		agreement.difference);
	abort();
}
