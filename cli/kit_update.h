/*
 * `bridgectl test --update`: puts what came out into a file of cases as what is expected, in place. Lines that still hold stay as they
 * are, with the comments above them; so does everything outside of the lists that are wrong.
 */
#ifndef CLI_KIT_UPDATE_H
#define CLI_KIT_UPDATE_H

#include "cli/kit_judge.h"

struct kit_edit {
	size_t from, to; /* lines, from 1; `to` is the first one that stays */
	char *text;      /* whole lines */
};

struct kit_edits {
	struct kit_edit *list;
	size_t count, capacity;
	const struct kit_case *sinks_of; /* the case whose `expect` gets further sinks, and the edit that gives them */
	size_t sinks_at;
};

/* Plans what a verdict of a case changes. The `expect` of the case gets sinks that nobody expected anything of. False, and `why` (a literal), when that cannot be done in place. */
bool kit_update_plan(struct kit_edits *edits, const struct kit_case *kit, const struct kit_verdict *verdict,
		     const char **why);

/* The edited text of a file, in memory of its own; NULL when it would not be a file of cases any more, which is then left as it is. */
char *kit_update_text(struct kit_edits *edits, const char *path, struct view text);

/* Writes the file anew, if there is anything to change. NULL, or what is wrong; errno says more, unless it is 0. */
const char *kit_update_apply(struct kit_edits *edits, const char *path, struct view text);

void kit_edits_free(struct kit_edits *edits);

#endif
