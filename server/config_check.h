/* What flags say to one another, and the defaults that follow from others. Inside the configuration's own files only. */
#ifndef SERVER_CONFIG_CHECK_H
#define SERVER_CONFIG_CHECK_H

#include "server/config.h"

/* What a value of `auto` is kept as until it is worked out. */
#define CONFIG_AUTO UINT64_MAX
#define CONFIG_AUTO_COUNT UINT32_MAX

/* Works out the rings and checks all flags against one another, before the descriptor is read. */
void config_check(struct config *config, struct findings *findings);

/* Prints the object of --check --json when it ends at the flags. */
void config_print_findings_json(const struct findings *findings, FILE *out);

#endif
