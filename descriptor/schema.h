/*
 * JSON Schemas (draft 7) of the files that people write, for editors; made out of the tables of kinds.
 */
#ifndef DESCRIPTOR_SCHEMA_H
#define DESCRIPTOR_SCHEMA_H

#include <stdio.h>

/* The schema of pipeline.yaml, and of config.yaml. A file that compiles fits its schema; not the other way round: names,
 * routes and programs are looked into by the compiler alone. */
void schema_print_pipeline(FILE *out);
void schema_print_config(FILE *out);

#endif
