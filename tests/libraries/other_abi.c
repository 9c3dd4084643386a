/* A library of steps that was built for another version of the interface. */
#include "bridge_step.h"

static const struct bridge_step_library library = {.abi = BRIDGE_STEP_ABI + 41, .size = sizeof(library)};

const struct bridge_step_library *bridge_step_library(void)
{
	return &library;
}
