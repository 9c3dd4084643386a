/* A step that hands every record on as it is: what an interface costs. */
#include <stdlib.h>

#include "bridge_step.h"

struct identity {
	const struct bridge_host *host;
	struct bridge_context *context;
};

static int identity_open(const struct bridge_host *host, struct bridge_context *context,
			 const struct bridge_setup *setup, void *code, void **self)
{
	struct identity *identity = malloc(sizeof(*identity));

	(void)setup;
	(void)code;
	if (identity == NULL)
		return bridge_fail(host, context, BRIDGE_NO_RECORD, "no memory");
	*identity = (struct identity){host, context};
	*self = identity;
	return BRIDGE_OK;
}

static void identity_close(void *self)
{
	free(self);
}

static int identity_process(void *self, const struct bridge_run *run)
{
	struct identity *identity = self;

	return identity->host->forward(identity->context, 0, run->count, 0);
}

static const struct bridge_step_library library = {
    .abi = BRIDGE_STEP_ABI,
    .size = sizeof(library),
    .open = identity_open,
    .close = identity_close,
    .process = identity_process,
};

const struct bridge_step_library *bridge_step_library(void)
{
	return &library;
}
