/*
 * The search for deadlocks in Abseil is ended by `absl::SetMutexDeadlockDetectionMode(OnDeadlockCycle::kIgnore)`: a function of its public
 * interface, but of C++, so it is looked up by the name that its compiler gave it. In between is the namespace of a
 * build: Debian counts them (`debian3` is bookworm's). Not found means that nothing changes but the speed.
 */
#include "shared/locks.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { IGNORE_CYCLES = 0, DEBIAN_BUILDS = 99 };

void locks_unwatched(void)
{
	for (int build = 1; build <= DEBIAN_BUILDS; build++) {
		char space[16], name[96];
		int length = snprintf(space, sizeof(space), "debian%d", build);
		snprintf(name, sizeof(name), "_ZN4absl%d%s29SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE",
			 length, space);
		void *found = dlsym(RTLD_DEFAULT, name);
		if (found != NULL) {
			void (*set_mode)(int);
			memcpy(&set_mode, &found, sizeof(set_mode));
			set_mode(IGNORE_CYCLES);
			return;
		}
	}
}
