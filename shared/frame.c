/* Names of frame kinds, out of the one table in frame.h. */
#include "shared/frame.h"

static const char *const kind_names[] = {
#define FRAME(name, payload) #name,
    FRAME_KINDS(FRAME)
#undef FRAME
};

_Static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == FRAME_KIND_COUNT, "a name for every frame kind");

const char *frame_kind_name(unsigned kind)
{
	return kind < FRAME_KIND_COUNT ? kind_names[kind] : "?";
}
