/* Sizes and durations as people write them (units.h). */
#include "shared/units.h"

#include <stdio.h>
#include <string.h>

#include "shared/log.h"

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit sizes[] = {
    {"TiB", UINT64_C(1) << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1},
};

static const struct unit durations[] = {
    {"h", UINT64_C(3600000000)}, {"min", 60000000}, {"s", 1000000}, {"ms", 1000}, {"us", 1},
};

/* Reads leading digits; returns what follows them, or NULL when there are none or they do not fit. */
static const char *digits_parse(const char *text, uint64_t *value)
{
	const char *at = text;

	for (*value = 0; *at >= '0' && *at <= '9'; at++) {
		uint64_t digit = (uint64_t)(*at - '0');
		if (*value > (UINT64_MAX - digit) / 10)
			return NULL;
		*value = *value * 10 + digit;
	}
	return at == text ? NULL : at;
}

/* Reads digits and one of some units. */
static bool unit_parse(const char *text, const struct unit *units, size_t count, uint64_t *value)
{
	uint64_t number;
	const char *rest = digits_parse(text, &number);

	if (rest == NULL)
		return false;
	while (*rest == ' ')
		rest++;
	for (size_t i = 0; i < count; i++) {
		if (strcmp(rest, units[i].name) != 0)
			continue;
		if (number > UINT64_MAX / units[i].factor)
			return false;
		*value = number * units[i].factor;
		return true;
	}
	return false;
}

/* Writes a value in the largest unit that divides it. */
static const char *unit_exact(char text[UNITS_TEXT_MAX], uint64_t value, const struct unit *units, size_t count)
{
	size_t i = 0;

	while (i + 1 < count && (value == 0 || value % units[i].factor != 0))
		i++;
	snprintf(text, UNITS_TEXT_MAX, "%llu%s", (unsigned long long)(value / units[i].factor),
		 units[i].factor == 1 && units == sizes ? "" : units[i].name);
	return text;
}

bool number_parse(const char *text, uint64_t *value)
{
	const char *rest = digits_parse(text, value);

	return rest != NULL && *rest == '\0';
}

bool size_parse(const char *text, uint64_t *bytes)
{
	return unit_parse(text, sizes, sizeof(sizes) / sizeof(*sizes), bytes);
}

bool duration_parse(const char *text, uint64_t *microseconds)
{
	uint64_t number;

	if (number_parse(text, &number) && number == 0) {
		*microseconds = 0;
		return true;
	}
	return unit_parse(text, durations, sizeof(durations) / sizeof(*durations), microseconds);
}

const char *size_exact(char text[UNITS_TEXT_MAX], uint64_t bytes)
{
	return unit_exact(text, bytes, sizes, sizeof(sizes) / sizeof(*sizes));
}

const char *size_rounded(char text[UNITS_TEXT_MAX], uint64_t bytes)
{
	if (bytes < 1024) {
		snprintf(text, UNITS_TEXT_MAX, "%llu B", (unsigned long long)bytes);
		return text;
	}
	for (size_t i = 0;; i++) {
		CHECK(i < sizeof(sizes) / sizeof(*sizes));
		if (bytes < sizes[i].factor)
			continue;
		snprintf(text, UNITS_TEXT_MAX, "%.1f %s", (double)bytes / (double)sizes[i].factor, sizes[i].name);
		return text;
	}
}

const char *duration_exact(char text[UNITS_TEXT_MAX], uint64_t microseconds)
{
	if (microseconds == 0)
		return memcpy(text, "0", sizeof("0"));
	return unit_exact(text, microseconds, durations, sizeof(durations) / sizeof(*durations));
}

const char *duration_rounded(char text[UNITS_TEXT_MAX], uint64_t nanoseconds)
{
	double us = (double)nanoseconds / 1e3;
	unsigned long long seconds = nanoseconds / UINT64_C(1000000000);

	if (nanoseconds == 0)
		strcpy(text, "0");
	else if (us < 1000)
		snprintf(text, UNITS_TEXT_MAX, "%.*fus", us < 10 ? 1 : 0, us);
	else if (us < 1e6)
		snprintf(text, UNITS_TEXT_MAX, "%.*fms", us < 1e4 ? 1 : 0, us / 1e3);
	else if (seconds < 60)
		snprintf(text, UNITS_TEXT_MAX, "%.1fs", us / 1e6);
	else if (seconds < 3600)
		snprintf(text, UNITS_TEXT_MAX, "%llum%llus", seconds / 60, seconds % 60);
	else
		snprintf(text, UNITS_TEXT_MAX, "%lluh%llum", seconds / 3600, seconds / 60 % 60);
	return text;
}
