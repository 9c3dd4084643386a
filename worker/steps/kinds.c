/* The table of step kinds, in the order of descriptor/steps.def. A file of its own, so that a test can have a table of its own. */
#include "worker/steps/kinds.h"

#include "worker/hosts/host.h"

const struct step_kind_ops *const step_kinds[STEP_KIND_COUNT] = {
#define STEP_KIND(name, closes, help) [STEP_##name] = &name##_ops,
#include "descriptor/steps.def"
};
