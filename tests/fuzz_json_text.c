/*
 * Fuzz target: the JSON parser and printer. What it takes, libjq must read as the same value, and what it prints must read back
 * as that value. What is found without parsing is there, too.
 */
#include <jv.h>
#include <stdint.h>
#include <stdlib.h>

#include "shared/log.h"
#include "worker/json_text.h"
#include "worker/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libjq's reading of a text; its buffer must end with a NUL. */
static jv their_value(struct view text)
{
	char *copy = malloc(text.size + 1);

	CHECK(copy);
	memcpy(copy, text.data, text.size);
	copy[text.size] = '\0';
	jv value = jv_parse_sized(copy, (int)text.size);
	free(copy);
	return value;
}

/* What a look for the field "a" finds is what parsing finds. */
static void check_look(struct view text, bool parsed, jv value)
{
	struct view found;

	if (!json_find_string(text, view_of("a"), &found))
		return;
	CHECK(parsed && jv_get_kind(value) == JV_KIND_OBJECT);
	jv field = jv_object_get(jv_copy(value), jv_string("a"));
	CHECK(jv_equal(field, jv_string_sized((const char *)found.data, (int)found.size)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct scratch *scratch = scratch_create();
	struct json_error error;
	struct view printed;
	jv value, again;

	if (!json_parse((struct view){data, size}, scratch, &value, &error)) {
		CHECK(error.what && error.offset <= size);
		check_look((struct view){data, size}, false, value);
		scratch_destroy(scratch);
		return 0;
	}
	check_look((struct view){data, size}, true, value);
	jv theirs = their_value((struct view){data, size});
	CHECK(!jv_is_valid(theirs) || jv_equal(jv_copy(theirs), jv_copy(value)));
	jv_free(theirs);
	CHECK(json_print(value, scratch, &printed) == NULL);
	CHECK(json_parse(printed, scratch, &again, &error));
	CHECK(jv_equal(value, again));
	scratch_destroy(scratch);
	return 0;
}
