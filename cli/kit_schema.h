/* The JSON Schema of files of test cases, for editors. */
#ifndef CLI_KIT_SCHEMA_H
#define CLI_KIT_SCHEMA_H

#include <stdio.h>

/* Prints it. */
void kit_schema_print(FILE *out);

#endif
