/*
 * Do the two parsers agree? The view parser of shared/wire.h and protobuf-c read the same bytes; both must refuse
 * them, or both must take them and see the same. Used by tests/check_wire.c and tests/fuzz/fuzz_wire.c.
 *
 * What wire.h lists as W1 to W7 is the only thing that may differ, and is looked for by a reader of its own here.
 */
#ifndef TESTS_WIRE_AGREE_H
#define TESTS_WIRE_AGREE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "shared/view.h"

/* The messages that both parsers read. */
enum surface {
	SURFACE_TO_WORKER,
	SURFACE_FROM_WORKER,
	SURFACE_RECORD,
	SURFACE_RESULTS,
	SURFACE_PROCESS_MESSAGE,
	SURFACE_PROCESS_WATERMARK,
	SURFACE_ADD_TO_WINDOW,
	SURFACE_TRIGGER_WINDOW,
	SURFACE_STATE_DELTA,
	SURFACE_COUNT
};

/* What came of a comparison. */
struct agreement {
	const char *difference; /* NULL: they agree */
	bool taken;             /* the view parser took it */
	bool excused;           /* it did not, protobuf-c did, and wire.h says why */
};

/* Lets both read a message. */
struct agreement wire_agree(enum surface surface, struct view message);

/* The generated description of a surface's message. */
const ProtobufCMessageDescriptor *surface_descriptor(enum surface surface);

#endif
