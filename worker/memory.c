/* A worker's own memory (memory.h). */
#include "worker/memory.h"

#include <jv.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/roles.h"
#include "shared/log.h"
#include "shared/units.h"

static uint64_t bound; /* bytes; 0: none */

/* Leaves. The lines are made on the stack, so that they need no memory. */
void memory_leave(const char *what)
{
	char text[UNITS_TEXT_MAX];

	if (bound != 0)
		log_error("leaves: there is no memory for %s: --worker-memory allows %s", what,
			  size_exact(text, bound));
	else
		log_error("leaves: there is no memory for %s", what);
	_exit(EXIT_MEMORY);
}

/* Memory, or the end. */
void *memory_make(size_t count, size_t size, const char *what)
{
	void *memory = calloc(count, size);

	if (memory == NULL)
		memory_leave(what);
	return memory;
}

/* Leaves, out of jq. */
void memory_leave_jq(void *unused)
{
	(void)unused;
	memory_leave("the values of a jq program");
}

/* Bounds this process. */
void memory_bound(uint64_t bytes)
{
	const struct rlimit limit = {bytes, bytes};

	jv_nomem_handler(memory_leave_jq, NULL);
	bound = bytes;
	if (bytes != 0 && setrlimit(RLIMIT_DATA, &limit) != 0)
		fatal("the process's memory cannot be bounded");
}
