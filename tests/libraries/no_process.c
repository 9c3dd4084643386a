/* A library whose table has no process(). */
#include "bridge_step.h"

static const struct bridge_step_library library = {.abi = BRIDGE_STEP_ABI, .size = sizeof(library)};

const struct bridge_step_library *bridge_step_library(void)
{
	return &library;
}
