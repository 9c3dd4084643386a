/*
 * Sizes and durations as people write them: 64KiB, 4MiB, 2GiB, 500ms, 10s, 5min. One reading for flags, configuration files
 * and messages. Decimal units (KB, MB) are refused: too many people mean the other one.
 */
#ifndef SHARED_UNITS_H
#define SHARED_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UNITS_TEXT_MAX = 32 };

/* Reads a plain number, digits alone. False when it is none or does not fit. */
bool number_parse(const char *text, uint64_t *value);

/* Reads a size in bytes: digits and nothing, B, KiB, MiB, GiB or TiB. False when it is none or does not fit. */
bool size_parse(const char *text, uint64_t *bytes);

/* Reads a duration in microseconds: digits and us, ms, s, min or h; 0 needs no unit. False when it is none or does not fit. */
bool duration_parse(const char *text, uint64_t *microseconds);

/* Writes a size exactly, in the largest unit that divides it: "4MiB", "1048512". Returns `text`. */
const char *size_exact(char text[UNITS_TEXT_MAX], uint64_t bytes);

/* Writes a size for people: "1.5 GiB". Returns `text`. */
const char *size_rounded(char text[UNITS_TEXT_MAX], uint64_t bytes);

/* Writes a duration exactly, in the largest unit that divides it: "10s", "1500ms". Returns `text`. */
const char *duration_exact(char text[UNITS_TEXT_MAX], uint64_t microseconds);

/* Writes a duration for people: "3.1us", "12ms", "4m10s". Returns `text`. */
const char *duration_rounded(char text[UNITS_TEXT_MAX], uint64_t nanoseconds);

#endif
