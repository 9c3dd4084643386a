/* Comparing outputs with what was expected (kit_judge.h). */
#include "cli/kit_judge.h"

#include <inttypes.h>
#include <jv.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "worker/failure.h"
#include "worker/json_text.h"

enum {
	CELLS_MAX = 4 << 20, /* of the table that aligns two lists; beyond it they are compared place by place */
	AROUND = 3,          /* equal records that are shown around a difference */
	DIFFERENCES_MAX = 8, /* fields of one pair that are named */
	SHOWN_MAX = 2000,    /* bytes of a payload */
	WRONG_SHOWN = 50,    /* differences of a sink */
};

/* ---- Whether two records are equal ------------------------------------------------------------------------------------ */

/* The payload as a JSON value; invalid when it is none. */
static jv value_of(const struct kit_record *record, struct scratch *scratch)
{
	struct json_error error;
	jv value;

	return json_parse(record->payload, scratch, &value, &error) ? value : jv_invalid();
}

/* A record with its value, parsed once. */
struct side {
	const struct kit_record *record;
	jv value;
};

/* Whether what is expected of headers holds. */
static bool headers_hold(const struct kit_record *expected, const struct kit_record *actual)
{
	for (size_t i = 0; i < expected->header_count; i++) {
		bool found = false;
		for (size_t j = 0; !found && j < actual->header_count; j++)
			found = strcmp(expected->headers[i].name, actual->headers[j].name) == 0 &&
				strcmp(expected->headers[i].value, actual->headers[j].value) == 0;
		if (!found)
			return false;
	}
	return true;
}

/* Whether a record is as expected, in all that is said of it. */
static bool holds(const struct side *expected, const struct side *actual)
{
	const struct kit_record *want = expected->record, *got = actual->record;

	if (want->has_key && (!got->has_key || !view_equal(want->key, got->key)))
		return false;
	if (want->has_timestamp && (!got->has_timestamp || want->timestamp != got->timestamp))
		return false;
	if (want->has_payload && want->json &&
	    (!jv_is_valid(actual->value) || !jv_equal(jv_copy(expected->value), jv_copy(actual->value))))
		return false;
	if (want->has_payload && !want->json && !view_equal(want->payload, got->payload))
		return false;
	return headers_hold(want, got);
}

/* ---- Alignment -------------------------------------------------------------------------------------------------------- */

/* Two lists at work. */
struct judging {
	struct pool *pool;
	struct side *expected, *actual;
	size_t expected_count, actual_count;
	struct kit_verdict *verdict;
};

/* One more pair. */
static void pair(struct judging *judging, const struct side *expected, const struct side *actual, bool equal)
{
	struct kit_verdict *verdict = judging->verdict;

	verdict->pairs[verdict->count++] = (struct kit_pair){expected == NULL ? NULL : expected->record,
							     actual == NULL ? NULL : actual->record, equal};
	verdict->wrong += !equal;
}

/* Runs of both lists that have nothing in common: place by place, then what is left of the longer one. */
static void pair_unequal(struct judging *judging, struct side *const *expected, size_t expected_count,
			 struct side *const *actual, size_t actual_count)
{
	size_t both = expected_count < actual_count ? expected_count : actual_count;

	for (size_t i = 0; i < both; i++)
		pair(judging, expected[i], actual[i], false);
	for (size_t i = both; i < expected_count; i++)
		pair(judging, expected[i], NULL, false);
	for (size_t i = both; i < actual_count; i++)
		pair(judging, NULL, actual[i], false);
}

/* The longest common subsequence of the rest of two lists, by where the rests begin: rows of `width`. */
static uint32_t *common_table(struct side *const *expected, size_t m, struct side *const *actual, size_t n)
{
	size_t width = n + 1;
	uint32_t *table = calloc((m + 1) * width, sizeof(*table));

	if (table == NULL)
		fatal("no memory to compare %zu records with %zu", m, n);
	for (size_t i = m; i-- > 0;)
		for (size_t j = n; j-- > 0;) {
			uint32_t right = table[i * width + j + 1], below = table[(i + 1) * width + j];
			table[i * width + j] = holds(expected[i], actual[j]) ? table[(i + 1) * width + j + 1] + 1
					       : right > below               ? right
									     : below;
		}
	return table;
}

/* Aligns two lists in order. */
static void align(struct judging *judging, struct side *const *expected, size_t m, struct side *const *actual, size_t n)
{
	size_t i = 0, j = 0;

	for (; i < m && i < n && holds(expected[i], actual[i]); i++)
		pair(judging, expected[i], actual[i], true);
	expected += i, actual += i, m -= i, n -= i;
	if ((m + 1) * (n + 1) > CELLS_MAX) {
		for (i = 0; i < m && i < n; i++)
			pair(judging, expected[i], actual[i], holds(expected[i], actual[i]));
		pair_unequal(judging, expected + i, m - i, actual + i, n - i);
		return;
	}
	uint32_t *table = common_table(expected, m, actual, n);
	for (i = 0; i < m || j < n;) {
		size_t from_i = i, from_j = j;
		while ((i < m && j < n && !holds(expected[i], actual[j])) || (i < m) != (j < n)) {
			bool skip = j == n || (i < m && table[(i + 1) * (n + 1) + j] >= table[i * (n + 1) + j + 1]);
			i += skip;
			j += !skip;
		}
		pair_unequal(judging, expected + from_i, i - from_i, actual + from_j, j - from_j);
		if (i < m && j < n)
			pair(judging, expected[i++], actual[j++], true);
	}
	free(table);
}

/* Pointers to all sides of a list. */
static struct side **pointers(struct pool *pool, struct side *sides, size_t count)
{
	struct side **list = pool_array(pool, count, sizeof(*list));

	for (size_t i = 0; i < count; i++)
		list[i] = &sides[i];
	return list;
}

/* Tries to find a partner for an expected record, moving others to other partners if need be. */
static bool find_partner(struct judging *judging, size_t expected, size_t *partner_of, bool *tried)
{
	for (size_t j = 0; j < judging->actual_count; j++) {
		if (tried[j] || !holds(&judging->expected[expected], &judging->actual[j]))
			continue;
		tried[j] = true;
		if (partner_of[j] == SIZE_MAX || find_partner(judging, partner_of[j], partner_of, tried)) {
			partner_of[j] = expected;
			return true;
		}
	}
	return false;
}

/* Pairs the lists in any order. An expectation that says little may fit several records, so that the first that fits need not be
 * the right one. */
static void align_any(struct judging *judging)
{
	size_t m = judging->expected_count, n = judging->actual_count;
	size_t *partner_of = pool_array(judging->pool, n, sizeof(*partner_of));
	size_t *partner = pool_array(judging->pool, m, sizeof(*partner));
	bool *tried = pool_array(judging->pool, n, sizeof(*tried));
	struct side **left = pool_array(judging->pool, m, sizeof(struct side *));
	struct side **right = pool_array(judging->pool, n, sizeof(struct side *));
	size_t left_count = 0, right_count = 0;

	for (size_t j = 0; j < n; j++)
		partner_of[j] = SIZE_MAX;
	for (size_t i = 0; i < m; i++) {
		memset(tried, 0, n * sizeof(*tried));
		find_partner(judging, i, partner_of, tried);
		partner[i] = SIZE_MAX;
	}
	for (size_t j = 0; j < n; j++) {
		if (partner_of[j] == SIZE_MAX)
			right[right_count++] = &judging->actual[j];
		else
			partner[partner_of[j]] = j;
	}
	for (size_t i = 0; i < m; i++) {
		if (partner[i] == SIZE_MAX)
			left[left_count++] = &judging->expected[i];
		else
			pair(judging, &judging->expected[i], &judging->actual[partner[i]], true);
	}
	pair_unequal(judging, left, left_count, right, right_count);
}

/* The sides of a list that have a key and are not taken yet; they are then. */
static size_t take_key(struct side *sides, size_t count, const struct kit_record *like, bool *taken, struct side **list)
{
	size_t found = 0;

	for (size_t i = 0; i < count; i++) {
		const struct kit_record *record = sides[i].record;
		if (taken[i] || record->has_key != like->has_key || !view_equal(record->key, like->key))
			continue;
		taken[i] = true;
		list[found++] = &sides[i];
	}
	return found;
}

/* Aligns key by key, in the order in which keys come first: those that are expected, then the others. */
static void align_by_key(struct judging *judging)
{
	size_t m = judging->expected_count, n = judging->actual_count;
	bool *expected_taken = pool_array(judging->pool, m, sizeof(bool));
	bool *actual_taken = pool_array(judging->pool, n, sizeof(bool));
	struct side **expected = pool_array(judging->pool, m, sizeof(struct side *));
	struct side **actual = pool_array(judging->pool, n, sizeof(struct side *));

	for (size_t i = 0; i < m + n; i++) {
		bool first = i < m;
		if (first ? expected_taken[i] : actual_taken[i - m])
			continue;
		const struct kit_record *like = first ? judging->expected[i].record : judging->actual[i - m].record;
		size_t expected_count = take_key(judging->expected, m, like, expected_taken, expected);
		size_t actual_count = take_key(judging->actual, n, like, actual_taken, actual);
		align(judging, expected, expected_count, actual, actual_count);
	}
}

/* Records with their values. */
static struct side *sides_of(struct pool *pool, const struct kit_record *records, size_t count, struct scratch *scratch)
{
	struct side *sides = pool_array(pool, count, sizeof(*sides));

	for (size_t i = 0; i < count; i++)
		sides[i] = (struct side){&records[i], value_of(&records[i], scratch)};
	return sides;
}

struct kit_verdict kit_judge(struct pool *pool, const char *sink, const struct kit_outputs *outputs,
			     const struct kit_record *actual, size_t actual_count)
{
	struct kit_record *copy = pool_array(pool, actual_count, sizeof(*copy)); /* the sink's own array may move */
	size_t expected_count = outputs == NULL ? 0 : outputs->count;

	if (actual_count > 0)
		memcpy(copy, actual, actual_count * sizeof(*copy));
	actual = copy;
	struct kit_verdict verdict = {.sink = sink, .outputs = outputs, .actual_count = actual_count};
	struct scratch *scratch = scratch_create();

	if (scratch == NULL)
		fatal("no memory to compare records");
	verdict.pairs = pool_array(pool, expected_count + actual_count, sizeof(*verdict.pairs));
	struct judging judging = {
	    .pool = pool,
	    .expected = sides_of(pool, outputs == NULL ? NULL : outputs->records, expected_count, scratch),
	    .actual = sides_of(pool, actual, actual_count, scratch),
	    .expected_count = expected_count,
	    .actual_count = actual_count,
	    .verdict = &verdict,
	};
	enum kit_order order = outputs == NULL ? KIT_IN_ORDER : outputs->order;
	if (order == KIT_ANY)
		align_any(&judging);
	else if (order == KIT_BY_KEY)
		align_by_key(&judging);
	else
		align(&judging, pointers(pool, judging.expected, expected_count), expected_count,
		      pointers(pool, judging.actual, actual_count), actual_count);
	for (size_t i = 0; i < expected_count; i++)
		jv_free(judging.expected[i].value);
	for (size_t i = 0; i < actual_count; i++)
		jv_free(judging.actual[i].value);
	scratch_destroy(scratch);
	return verdict;
}

/* ---- Words ------------------------------------------------------------------------------------------------------------ */

/* Prints text so that no control character reaches a terminal; `quote`: inside double quotes. */
static void print_text(struct view text, bool quote, FILE *out)
{
	size_t size = text.size < SHOWN_MAX ? text.size : SHOWN_MAX;
	bool utf8 = utf8_valid(text);

	if (quote)
		putc('"', out);
	for (size_t i = 0; i < size; i++) {
		uint8_t byte = text.data[i];
		bool c1 = utf8 && byte == 0xc2 && i + 1 < size && text.data[i + 1] < 0xa0;
		if (byte < 0x20 || byte == 0x7f || c1 || (!utf8 && byte > 0x7f))
			fprintf(out, "\\x%02x", c1 ? text.data[++i] : byte);
		else if (quote && (byte == '"' || byte == '\\'))
			fprintf(out, "\\%c", byte);
		else
			putc(byte, out);
	}
	if (quote)
		putc('"', out);
	if (size < text.size)
		fprintf(out, "... (%zu bytes)", text.size);
}

/* Whether a header is among those that are named. */
static bool names_header(const struct kit_record *like, const char *name)
{
	for (size_t i = 0; i < like->header_count; i++)
		if (strcmp(like->headers[i].name, name) == 0)
			return true;
	return false;
}

void kit_record_print(const struct kit_record *record, const struct kit_record *like, FILE *out)
{
	struct scratch *scratch = scratch_create();
	jv value = scratch == NULL ? jv_invalid() : value_of(record, scratch);

	if (record->has_payload)
		print_text(record->payload, !record->json && !jv_is_valid(value), out);
	jv_free(value);
	scratch_destroy(scratch);
	if (like == NULL)
		return;
	if (like->has_key && record->has_key) {
		fputs("  key ", out);
		print_text(record->key, true, out);
	} else if (like->has_key) {
		fputs("  no key", out);
	}
	if (like->has_timestamp && record->has_timestamp)
		fprintf(out, "  timestamp %" PRId64, record->timestamp);
	else if (like->has_timestamp)
		fputs("  no timestamp", out);
	for (size_t i = 0; i < record->header_count; i++) {
		if (!names_header(like, record->headers[i].name))
			continue;
		fprintf(out, "  %s: ", record->headers[i].name);
		print_text(view_of(record->headers[i].value), true, out);
	}
}

/* Prints a value in short. */
static void print_value(jv value, FILE *out)
{
	jv text = jv_dump_string(value, 0);

	print_text((struct view){(const uint8_t *)jv_string_value(text), strlen(jv_string_value(text))}, false, out);
	jv_free(text);
}

static void print_fields(jv expected, jv actual, const char *path, int *left, FILE *out);

/* Says how one field, or one item, is different. */
static void print_field(jv want, jv got, const char *path, int *left, FILE *out)
{
	if (jv_is_valid(want) && jv_is_valid(got)) {
		print_fields(want, got, path, left, out);
		return;
	}
	fprintf(out, "        %s: %s\n", path, jv_is_valid(want) ? "is missing" : "was not expected");
	(*left)--;
	jv_free(want);
	jv_free(got);
}

/* Says where two objects differ. */
static void print_objects(jv expected, jv actual, const char *path, int *left, FILE *out)
{
	jv names = jv_keys(jv_object_merge(jv_copy(expected), jv_copy(actual)));

	for (int i = 0; i < jv_array_length(jv_copy(names)) && *left > 0; i++) {
		jv name = jv_array_get(jv_copy(names), i);
		char deeper[512];
		snprintf(deeper, sizeof(deeper), "%.250s.%.200s", path, jv_string_value(name));
		print_field(jv_object_get(jv_copy(expected), jv_copy(name)),
			    jv_object_get(jv_copy(actual), jv_copy(name)), deeper, left, out);
		jv_free(name);
	}
	jv_free(names);
}

/* Says where two arrays differ. */
static void print_arrays(jv expected, jv actual, const char *path, int *left, FILE *out)
{
	int want = jv_array_length(jv_copy(expected)), got = jv_array_length(jv_copy(actual));

	for (int i = 0; (i < want || i < got) && *left > 0; i++) {
		char deeper[512];
		snprintf(deeper, sizeof(deeper), "%.250s[%d]", path, i);
		print_field(i < want ? jv_array_get(jv_copy(expected), i) : jv_invalid(),
			    i < got ? jv_array_get(jv_copy(actual), i) : jv_invalid(), deeper, left, out);
	}
}

/* Says where two values differ: in which fields, one level after the other. Takes both over. */
static void print_fields(jv expected, jv actual, const char *path, int *left, FILE *out)
{
	jv_kind kind = jv_get_kind(expected);
	bool same_kind = kind == jv_get_kind(actual);

	if (*left > 0 && !jv_equal(jv_copy(expected), jv_copy(actual))) {
		if (same_kind && kind == JV_KIND_OBJECT) {
			print_objects(expected, actual, path, left, out);
		} else if (same_kind && kind == JV_KIND_ARRAY) {
			print_arrays(expected, actual, path, left, out);
		} else if (*path != '\0') {
			(*left)--;
			fprintf(out, "        %s: expected ", path);
			print_value(jv_copy(expected), out);
			fputs(", got ", out);
			print_value(jv_copy(actual), out);
			putc('\n', out);
		}
	}
	jv_free(expected);
	jv_free(actual);
}

/* Says what a record has otherwise than expected. */
static void print_differences(const struct kit_record *expected, const struct kit_record *actual, FILE *out)
{
	struct scratch *scratch = scratch_create();
	int left = DIFFERENCES_MAX;

	if (scratch == NULL)
		fatal("no memory to compare records");
	jv want = value_of(expected, scratch), got = value_of(actual, scratch);
	if (expected->has_payload && jv_is_valid(want) && jv_is_valid(got) && !jv_equal(jv_copy(want), jv_copy(got)))
		print_fields(jv_copy(want), jv_copy(got), "", &left, out);
	jv_free(want);
	jv_free(got);
	scratch_destroy(scratch);
	for (size_t i = 0; i < expected->header_count; i++) {
		bool there = false;
		for (size_t j = 0; j < actual->header_count; j++)
			there |= strcmp(expected->headers[i].name, actual->headers[j].name) == 0;
		if (!there)
			fprintf(out, "        header %s: is missing\n", expected->headers[i].name);
	}
}

/* Starts and ends a coloured line. */
static void print_line(const struct kit_record *record, const struct kit_record *like, char sign, bool colour,
		       FILE *out)
{
	const char *start = sign == '-' ? "\033[31m" : sign == '+' ? "\033[32m" : "\033[2m";

	fprintf(out, "%s    %c ", colour ? start : "", sign);
	kit_record_print(record, like, out);
	fprintf(out, "%s\n", colour ? "\033[0m" : "");
}

/* Prints a pair. */
static void print_pair(const struct kit_pair *pair, const struct kit_record *like, bool colour, FILE *out)
{
	if (pair->equal) {
		print_line(pair->actual, pair->expected, ' ', colour, out);
		return;
	}
	if (pair->expected != NULL)
		print_line(pair->expected, pair->expected, '-', colour, out);
	if (pair->actual != NULL)
		print_line(pair->actual, pair->expected != NULL ? pair->expected : like, '+', colour, out);
	if (pair->expected != NULL && pair->actual != NULL)
		print_differences(pair->expected, pair->actual, out);
}

/* Whether a pair is near to one that is wrong. */
static bool is_near(const struct kit_verdict *verdict, size_t index)
{
	size_t first = index < AROUND ? 0 : index - AROUND;

	for (size_t i = first; i < verdict->count && i <= index + AROUND; i++)
		if (!verdict->pairs[i].equal)
			return true;
	return false;
}

void kit_verdict_print(const struct kit_verdict *verdict, const char *file, bool colour, FILE *out)
{
	const struct kit_outputs *outputs = verdict->outputs;
	size_t expected = outputs == NULL ? 0 : outputs->count, skipped = 0, wrong = 0;

	if (verdict->wrong == 0)
		return;
	fprintf(out, "  sink \"%s\": expected %zu record%s, got %zu", verdict->sink, expected, expected == 1 ? "" : "s",
		verdict->actual_count);
	if (outputs != NULL)
		fprintf(out, " (%s:%zu:%zu)", file, outputs->at->key->line, outputs->at->key->column);
	putc('\n', out);
	for (size_t i = 0; i < verdict->count; i++) {
		if (!is_near(verdict, i)) {
			skipped++;
			continue;
		}
		if (skipped > 0)
			fprintf(out, "      (%zu as expected)\n", skipped);
		skipped = 0;
		if (!verdict->pairs[i].equal && ++wrong > WRONG_SHOWN) {
			fprintf(out, "      (%zu more)\n", verdict->wrong - WRONG_SHOWN);
			return;
		}
		print_pair(&verdict->pairs[i], expected > 0 ? &outputs->records[0] : NULL, colour, out);
	}
	if (skipped > 0)
		fprintf(out, "      (%zu as expected)\n", skipped);
}
