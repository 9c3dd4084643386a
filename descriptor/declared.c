/* Declared states (declared.h): a word, then pairs of words. */
#include "descriptor/declared.h"

#include <stdio.h>
#include <string.h>

#include "shared/units.h"

/* The words, and what they mean. */
static const struct {
	const char *word;
	enum state_kind kind;
	enum state_partition partition;
} words[] = {
    {"value", STATE_VALUE, STATE_BY_KEY},   {"map", STATE_MAP, STATE_BY_KEY},   {"list", STATE_LIST, STATE_BY_KEY},
    {"timers", STATE_TIMERS, STATE_BY_KEY}, {"split", STATE_LIST, STATE_SPLIT}, {"union", STATE_LIST, STATE_UNION},
};

enum { TTL_MAX_DAYS = 36500 };

/* Reads the first word. */
static bool kind_parse(const char *word, struct declaration *declaration)
{
	for (size_t i = 0; word != NULL && i < sizeof(words) / sizeof(*words); i++) {
		if (strcmp(words[i].word, word) != 0)
			continue;
		declaration->kind = words[i].kind;
		declaration->partition = words[i].partition;
		return true;
	}
	return false;
}

/* Reads a `ttl`: of what is kept by key and has values. */
static bool ttl_parse(const char *word, struct declaration *declaration)
{
	uint64_t us;

	if ((declaration->kind != STATE_VALUE && declaration->kind != STATE_MAP) || declaration->ttl_ms != 0 ||
	    !duration_parse(word, &us) || us % 1000 != 0 || us == 0 || us > (uint64_t)TTL_MAX_DAYS * 86400 * 1000000)
		return false;
	declaration->ttl_ms = (int64_t)(us / 1000);
	return true;
}

/* Reads a `version`. */
static bool version_parse(const char *word, struct declaration *declaration)
{
	uint64_t number;

	if (declaration->version != 0 || !number_parse(word, &number) || number < 1 || number >= STATE_VERSION_TTL)
		return false;
	declaration->version = (uint32_t)number;
	return true;
}

bool declaration_parse(const char *text, struct declaration *declaration)
{
	char copy[128], *rest = NULL;

	*declaration = (struct declaration){0};
	if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy) ||
	    !kind_parse(strtok_r(copy, " ", &rest), declaration))
		return false;
	for (const char *word; (word = strtok_r(NULL, " ", &rest)) != NULL;) {
		const char *value = strtok_r(NULL, " ", &rest);
		if (value == NULL)
			return false;
		if (strcmp(word, "ttl") == 0 ? !ttl_parse(value, declaration)
					     : strcmp(word, "version") != 0 || !version_parse(value, declaration))
			return false;
	}
	if (declaration->version == 0)
		declaration->version = 1;
	return true;
}
