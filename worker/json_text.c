/*
 * A JSON parser that builds libjq's values, and a printer for them.
 *
 * The parser is a recursive descent of bounded depth. What it costs is libjq's allocations, so object keys, which repeat from
 * record to record, are kept in a small table and shared by reference count. Numbers of up to 15 digits are converted exactly
 * without strtod, and printed without trying precisions, because 10^k and such digits are exact doubles.
 *
 * Half a surrogate pair (\ud800 alone) becomes U+FFFD, as in jq: no UTF-8 says it. Of a duplicate key the last value counts,
 * at the first one's place.
 */
#include "worker/json_text.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/wire.h"
#include "worker/run.h"

enum {
	KEY_CACHE_SIZE = 256, /* a power of two */
	KEY_CACHE_LONGEST = 32,
	NUMBER_LONGEST = 512, /* characters that strtod is given on the stack */
	JSON_TEXT_MAX = 1 << 30,
};

static const double powers_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
				       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* ---- Object keys, kept ---- */

/* A process serves records in one thread (the worker), so one table is enough. */
static struct kept_key {
	uint8_t text[KEY_CACHE_LONGEST];
	uint8_t size; /* 0: empty place */
	jv string;
} kept_keys[KEY_CACHE_SIZE];

/* The key's string, from the table if it is there; else made, and put there. */
static jv key_string(struct view key)
{
	if (key.size == 0 || key.size > KEY_CACHE_LONGEST)
		return jv_string_sized((const char *)key.data, (int)key.size);

	uint32_t hash = (uint32_t)key.size;
	for (size_t i = 0; i < key.size; i++)
		hash = hash * 31 + key.data[i];
	struct kept_key *kept = &kept_keys[(hash ^ hash >> 8) % KEY_CACHE_SIZE];

	if (kept->size == key.size && memcmp(kept->text, key.data, key.size) == 0)
		return jv_copy(kept->string);
	if (kept->size > 0)
		jv_free(kept->string);
	kept->string = jv_string_sized((const char *)key.data, (int)key.size);
	kept->size = (uint8_t)key.size;
	memcpy(kept->text, key.data, key.size);
	return jv_copy(kept->string);
}

void json_forget_keys(void)
{
	for (size_t i = 0; i < KEY_CACHE_SIZE; i++) {
		if (kept_keys[i].size > 0)
			jv_free(kept_keys[i].string);
		kept_keys[i].size = 0;
	}
}

/* ---- Parsing ---- */

struct parser {
	const uint8_t *start, *at, *end;
	struct scratch *scratch;
	const char *what; /* set by the first error, at `at` */
	unsigned depth;
};

static jv parse_value(struct parser *parser);

/* Notes an error at a place; the invalid value that the caller returns. */
static jv parse_failed(struct parser *parser, const uint8_t *at, const char *what)
{
	parser->what = what;
	parser->at = at;
	return jv_invalid();
}

/* Moves over white space. */
static void skip_space(struct parser *parser)
{
	while (parser->at < parser->end &&
	       (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\t' || *parser->at == '\r'))
		parser->at++;
}

/* The byte at hand, 0 at the end (a NUL byte is an error wherever it stands). */
static uint8_t peek(const struct parser *parser)
{
	return parser->at < parser->end ? *parser->at : 0;
}

/* The four hex digits at `at`, or -1. */
static int32_t hex4(const uint8_t *at, const uint8_t *end)
{
	int32_t value = 0;

	if (end - at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		uint8_t c = at[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;
		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* Writes a code point (never a surrogate) as UTF-8; the bytes written. */
static size_t put_utf8(uint8_t *out, uint32_t code)
{
	if (code < 0x80) {
		out[0] = (uint8_t)code;
		return 1;
	}
	size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	for (size_t i = size - 1; i > 0; i--, code >>= 6)
		out[i] = (uint8_t)(0x80 | (code & 0x3f));
	out[0] = (uint8_t)(lead[size] | code);
	return size;
}

/* Decodes \uXXXX (and the second half of a pair) behind *from, which points at the 'u'; -1: malformed. */
static int32_t unescape_unicode(const uint8_t **from, const uint8_t *end)
{
	int32_t code = hex4(*from + 1, end);

	if (code < 0)
		return -1;
	*from += 5;
	if (code < 0xd800 || code > 0xdfff)
		return code;
	if (code < 0xdc00 && end - *from >= 6 && (*from)[0] == '\\' && (*from)[1] == 'u') {
		int32_t low = hex4(*from + 2, end);
		if (low >= 0xdc00 && low <= 0xdfff) {
			*from += 6;
			return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
		}
	}
	return 0xfffd;
}

/* What the character behind a backslash stands for; 0: no such escape. */
static uint8_t unescape_simple(uint8_t c)
{
	switch (c) {
	case '"':
	case '\\':
	case '/':
		return c;
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	default:
		return 0;
	}
}

/* Unescapes raw string content into scratch memory; never longer than it was. */
static bool unescape(struct parser *parser, const uint8_t *from, const uint8_t *end, struct view *text)
{
	uint8_t *out = scratch_alloc(parser->scratch, (size_t)(end - from)), *start = out;

	if (!out) {
		parse_failed(parser, from, "memory is out");
		return false;
	}
	while (from < end) {
		const uint8_t *escape = from;
		if (*from != '\\') {
			*out++ = *from++;
			continue;
		}
		uint8_t simple = unescape_simple(*++from);
		int32_t code = simple ? 0 : *from == 'u' ? unescape_unicode(&from, end) : -1;
		if (code < 0) {
			parse_failed(parser, escape, "a bad escape in a string");
			return false;
		}
		if (simple) {
			*out++ = simple;
			from++;
		} else {
			out += put_utf8(out, (uint32_t)code);
		}
	}
	*text = (struct view){start, (size_t)(out - start)};
	return true;
}

/* Where UTF-8 breaks in bytes that are known to be broken. */
static const uint8_t *first_bad_utf8(const uint8_t *from, const uint8_t *end)
{
	while (from < end) {
		size_t size = *from < 0x80 ? 1 : *from < 0xe0 ? 2 : *from < 0xf0 ? 3 : 4;
		if (size > (size_t)(end - from) || !utf8_valid((struct view){from, size}))
			return from;
		from += size;
	}
	return end;
}

/* Reads a string whose opening quote is at hand. */
static bool parse_string(struct parser *parser, struct view *text)
{
	const uint8_t *open = parser->at, *from = open + 1, *at = from;
	bool escaped = false, high = false;

	for (;; at++) {
		if (at >= parser->end) {
			parse_failed(parser, open, "a string without its closing quote");
			return false;
		}
		if (*at == '"')
			break;
		if (*at == '\\') {
			escaped = true;
			if (++at >= parser->end)
				at--;
		} else if (*at < 0x20) {
			parse_failed(parser, at, "a control character in a string, which must be escaped");
			return false;
		} else if (*at >= 0x80) {
			high = true;
		}
	}
	*text = (struct view){from, (size_t)(at - from)};
	if (high && !utf8_valid(*text)) {
		parse_failed(parser, first_bad_utf8(from, at), "bytes that are no UTF-8");
		return false;
	}
	if (escaped && !unescape(parser, from, at, text))
		return false;
	parser->at = at + 1;
	return true;
}

/* The number in [from, end), which has the right form, by strtod. */
static jv convert_slowly(struct parser *parser, const uint8_t *from, const uint8_t *end)
{
	char stack[NUMBER_LONGEST], *text = stack;
	size_t size = (size_t)(end - from);

	if (size >= sizeof(stack))
		text = scratch_alloc(parser->scratch, size + 1);
	if (!text)
		return parse_failed(parser, from, "memory is out");
	memcpy(text, from, size);
	text[size] = '\0';

	double value = strtod(text, NULL);
	if (isinf(value))
		return parse_failed(parser, from, "a number beyond the range of a double");
	parser->at = end;
	return jv_number(value);
}

/* Moves over digits, adding them to *value while it has less than 16; how many there were. */
static size_t take_digits(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	const uint8_t *from = *at;

	while (*at < end && **at >= '0' && **at <= '9') {
		if (*value < 100000000000000u)
			*value = *value * 10 + (uint64_t)(**at - '0');
		++*at;
	}
	return (size_t)(*at - from);
}

/* A number: by exact arithmetic when it is short and has no exponent. */
static jv parse_number(struct parser *parser)
{
	const uint8_t *from = parser->at, *at = from, *end = parser->end;
	bool negative = *at == '-';
	uint64_t digits = 0, exponent = 0;
	size_t fraction = 0;

	at += negative;
	const uint8_t *first = at;
	size_t whole = take_digits(&at, end, &digits);
	if (whole == 0)
		return parse_failed(parser, at, "a number without digits");
	if (whole > 1 && *first == '0')
		return parse_failed(parser, first, "a number with a leading zero");
	if (at < end && *at == '.') {
		at++;
		fraction = take_digits(&at, end, &digits);
		if (fraction == 0)
			return parse_failed(parser, at, "a number without digits after its point");
	}
	if (at < end && (*at == 'e' || *at == 'E')) {
		at++;
		if (at < end && (*at == '+' || *at == '-'))
			at++;
		if (take_digits(&at, end, &exponent) == 0)
			return parse_failed(parser, at, "a number without digits in its exponent");
		return convert_slowly(parser, from, at);
	}
	if (whole + fraction > 15)
		return convert_slowly(parser, from, at);

	double value = (double)digits;
	if (fraction > 0)
		value /= powers_of_ten[fraction];
	parser->at = at;
	return jv_number(negative ? -value : value);
}

/* An array, whose `[` is at hand. */
static jv parse_array(struct parser *parser)
{
	jv array = jv_array();

	parser->at++;
	skip_space(parser);
	if (peek(parser) == ']') {
		parser->at++;
		return array;
	}
	for (;;) {
		jv item = parse_value(parser);
		if (parser->what) {
			jv_free(array);
			return item;
		}
		array = jv_array_append(array, item);
		skip_space(parser);
		uint8_t c = peek(parser);
		if (c == ',' || c == ']')
			parser->at++;
		if (c == ']')
			return array;
		if (c != ',') {
			jv_free(array);
			return parse_failed(parser, parser->at, "no `,` or `]` after an item of an array");
		}
	}
}

/* Reads `"key": value` into an object; false after an error. */
static bool parse_member(struct parser *parser, jv *object)
{
	struct view key;

	skip_space(parser);
	if (peek(parser) != '"') {
		parse_failed(parser, parser->at, "no key in quotes where an object needs one");
		return false;
	}
	if (!parse_string(parser, &key))
		return false;
	skip_space(parser);
	if (peek(parser) != ':') {
		parse_failed(parser, parser->at, "no `:` after the key of an object");
		return false;
	}
	parser->at++;

	jv name = key_string(key);
	jv value = parse_value(parser);
	if (parser->what) {
		jv_free(name);
		return false;
	}
	*object = jv_object_set(*object, name, value);
	return true;
}

/* An object, whose `{` is at hand. */
static jv parse_object(struct parser *parser)
{
	jv object = jv_object();

	parser->at++;
	skip_space(parser);
	if (peek(parser) == '}') {
		parser->at++;
		return object;
	}
	while (parse_member(parser, &object)) {
		skip_space(parser);
		uint8_t c = peek(parser);
		if (c == ',' || c == '}')
			parser->at++;
		if (c == '}')
			return object;
		if (c != ',') {
			parse_failed(parser, parser->at, "no `,` or `}` after a value of an object");
			break;
		}
	}
	jv_free(object);
	return jv_invalid();
}

/* One of the three words. */
static jv parse_word(struct parser *parser, const char *word, jv value)
{
	size_t size = strlen(word);

	if ((size_t)(parser->end - parser->at) < size || memcmp(parser->at, word, size) != 0)
		return parse_failed(parser, parser->at, "no JSON value");
	parser->at += size;
	return value;
}

/* Any value, with white space before it. */
static jv parse_value(struct parser *parser)
{
	struct view text;
	jv value;

	skip_space(parser);
	switch (peek(parser)) {
	case '{':
	case '[':
		if (parser->depth >= JSON_DEPTH_MAX)
			return parse_failed(parser, parser->at, "nesting deeper than 256");
		parser->depth++;
		value = *parser->at == '{' ? parse_object(parser) : parse_array(parser);
		parser->depth--;
		return value;
	case '"':
		return parse_string(parser, &text) ? jv_string_sized((const char *)text.data, (int)text.size)
						   : jv_invalid();
	case 't':
		return parse_word(parser, "true", jv_true());
	case 'f':
		return parse_word(parser, "false", jv_false());
	case 'n':
		return parse_word(parser, "null", jv_null());
	default:
		if (peek(parser) == '-' || (peek(parser) >= '0' && peek(parser) <= '9'))
			return parse_number(parser);
		return parse_failed(parser, parser->at, parser->at < parser->end ? "no JSON value" : "no value");
	}
}

bool json_parse(struct view text, struct scratch *scratch, jv *value, struct json_error *error)
{
	const uint8_t *start = text.size > 0 ? text.data : (const uint8_t *)""; /* nothing need not be anywhere */
	struct parser parser = {start, start, start + text.size, scratch, NULL, 0};

	*value = jv_invalid();
	if (text.size > JSON_TEXT_MAX) {
		*error = (struct json_error){"more than 1 GiB", 0};
		return false;
	}
	skip_space(&parser);
	if (parser.at == parser.end) {
		*error = (struct json_error){"no value", text.size};
		return false;
	}
	*value = parse_value(&parser);
	if (!parser.what) {
		skip_space(&parser);
		if (parser.at == parser.end)
			return true;
		jv_free(*value);
		*value = parse_failed(&parser, parser.at, "something after the value");
	}
	*error = (struct json_error){parser.what, (size_t)(parser.at - parser.start)};
	return false;
}

/* ---- Looking, without building values ---- */

/* What a look goes over. It gives up at whatever is not simple; nothing is noted of why, because the parser words that. */
struct look {
	const uint8_t *at, *end;
	struct view name, found; /* found.data is NULL until the field has come, and if its value is no simple string */
	unsigned depth;
};

static bool look_value(struct look *look, struct view *string);

/* Whether any of eight bytes is a quote, a backslash, a control character, or no ASCII. */
static bool has_special(const uint8_t *bytes)
{
	const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return (((word - ones * 0x20) | ((word ^ ones * '"') - ones) | ((word ^ ones * '\\') - ones) | word) & highs) !=
	       0;
}

/* Moves over white space; the byte at hand, 0 at the end. */
static uint8_t look_on(struct look *look)
{
	while (look->at < look->end &&
	       (*look->at == ' ' || *look->at == '\n' || *look->at == '\t' || *look->at == '\r'))
		look->at++;
	return look->at < look->end ? *look->at : 0;
}

/* Moves over what stands behind a backslash. */
static bool look_escape(struct look *look)
{
	if (look->at == look->end)
		return false;
	if (*look->at == 'u')
		return hex4(look->at + 1, look->end) >= 0 && (look->at += 5);
	return unescape_simple(*look->at) != 0 && look->at++;
}

/* A string whose opening quote is at hand; its bytes, or no data if it has escapes. */
static bool look_string(struct look *look, struct view *string)
{
	const uint8_t *from = ++look->at;
	bool escaped = false, high = false;

	for (;;) {
		while (look->end - look->at >= 8 && !has_special(look->at))
			look->at += 8;
		if (look->at == look->end || *look->at < 0x20)
			return false;
		uint8_t c = *look->at++;
		if (c == '"')
			break;
		high |= c >= 0x80;
		if (c == '\\') {
			escaped = true;
			if (!look_escape(look))
				return false;
		}
	}
	*string = (struct view){from, (size_t)(look->at - 1 - from)};
	if (high && !utf8_valid(*string))
		return false;
	if (escaped)
		string->data = NULL;
	return true;
}

/* A number of up to 15 digits without an exponent, which no range can refuse. */
static bool look_number(struct look *look)
{
	uint64_t digits = 0;
	size_t fraction = 0;

	look->at += *look->at == '-';
	const uint8_t *first = look->at;
	size_t whole = take_digits(&look->at, look->end, &digits);
	if (whole == 0 || (whole > 1 && *first == '0'))
		return false;
	if (look->at < look->end && *look->at == '.') {
		look->at++;
		fraction = take_digits(&look->at, look->end, &digits);
		if (fraction == 0)
			return false;
	}
	return whole + fraction <= 15 && (look->at == look->end || (*look->at | 0x20) != 'e');
}

/* A name and its value; the value counts if this is the outermost object and the name the one that is looked for. */
static bool look_member(struct look *look)
{
	struct view name, value = {NULL, 0};

	if (look_on(look) != '"' || !look_string(look, &name) || !name.data || look_on(look) != ':')
		return false;
	look->at++;
	if (!look_value(look, &value))
		return false;
	if (look->depth == 1 && view_equal(name, look->name))
		look->found = value;
	return true;
}

/* An object or an array, whose bracket is at hand. */
static bool look_nested(struct look *look, uint8_t close)
{
	struct view unused;

	look->at++;
	if (look_on(look) == close)
		return look->at++;
	for (;;) {
		if (close == '}' ? !look_member(look) : !look_value(look, &unused))
			return false;
		uint8_t c = look_on(look);
		look->at++;
		if (c == close)
			return true;
		if (c != ',')
			return false;
	}
}

/* One of the three words. */
static bool look_word(struct look *look, const char *word)
{
	size_t size = strlen(word);

	if ((size_t)(look->end - look->at) < size || memcmp(look->at, word, size) != 0)
		return false;
	look->at += size;
	return true;
}

/* Any value, with white space before it; its bytes, if it is a string without escapes. */
static bool look_value(struct look *look, struct view *string)
{
	uint8_t c = look_on(look);

	string->data = NULL;
	switch (c) {
	case '"':
		return look_string(look, string);
	case '{':
	case '[':
		if (look->depth >= JSON_DEPTH_MAX)
			return false;
		look->depth++;
		bool nested = look_nested(look, c == '{' ? '}' : ']');
		look->depth--;
		return nested;
	case 't':
		return look_word(look, "true");
	case 'f':
		return look_word(look, "false");
	case 'n':
		return look_word(look, "null");
	default:
		return (c == '-' || (c >= '0' && c <= '9')) && look_number(look);
	}
}

bool json_find_string(struct view text, struct view name, struct view *found)
{
	struct look look = {text.data, text.data + text.size, name, {NULL, 0}, 0};
	struct view unused;

	if (text.size == 0 || text.size > JSON_TEXT_MAX || look_on(&look) != '{' || !look_value(&look, &unused))
		return false;
	look_on(&look);
	*found = look.found;
	return look.at == look.end && found->data != NULL;
}

/* ---- Printing ---- */

struct printer {
	struct scratch *scratch;
	uint8_t *text;
	size_t size, capacity;
	const char *failed;
	unsigned depth;
};

static void print_value(struct printer *printer, jv value);

/* Makes room for `size` more bytes where there is none; false when memory is out. */
static __attribute__((noinline)) bool grow(struct printer *printer, size_t size)
{
	size_t capacity = (printer->size + size) * 2;
	uint8_t *text = scratch_resize(printer->scratch, printer->text, printer->size, capacity);
	if (!text) {
		printer->failed = "memory is out";
		return false;
	}
	printer->text = text;
	printer->capacity = capacity;
	return true;
}

/* Makes room for `size` more bytes; false when memory is out. */
static inline bool reserve(struct printer *printer, size_t size)
{
	return size <= printer->capacity - printer->size || grow(printer, size);
}

/* Appends bytes. */
static inline void put(struct printer *printer, const void *bytes, size_t size)
{
	if (!reserve(printer, size))
		return;
	memcpy(printer->text + printer->size, bytes, size);
	printer->size += size;
}

/* Appends one byte. */
static inline void put_char(struct printer *printer, char c)
{
	if (reserve(printer, 1))
		printer->text[printer->size++] = (uint8_t)c;
}

/* Writes the escape of a character that cannot stand in a string as it is. */
static void put_escape(struct printer *printer, uint8_t c)
{
	static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
	char text[8];

	for (size_t i = 0; shorts[i]; i += 2) {
		if ((uint8_t)shorts[i] == c) {
			put(printer, (char[]){'\\', shorts[i + 1]}, 2);
			return;
		}
	}
	snprintf(text, sizeof(text), "\\u%04x", c);
	put(printer, text, 6);
}

/* A string value that somebody else holds, too: this reference to it is given up. */
static void print_string(struct printer *printer, jv string)
{
	const uint8_t *from = (const uint8_t *)jv_string_value(string);
	size_t size = (size_t)jv_string_length_bytes(string);
	const uint8_t *end = from + size;

	if (!reserve(printer, size + 2))
		return;
	printer->text[printer->size++] = '"';
	for (const uint8_t *at = from; at < end; at++) {
		if (*at >= 0x20 && *at != '"' && *at != '\\')
			continue;
		put(printer, from, (size_t)(at - from));
		put_escape(printer, *at);
		from = at + 1;
	}
	put(printer, from, (size_t)(end - from));
	put_char(printer, '"');
}

/* A whole number below 2^53. */
static void print_whole(struct printer *printer, uint64_t value, bool negative)
{
	char digits[24], *at = digits + sizeof(digits);

	do {
		*--at = (char)('0' + value % 10);
	} while ((value /= 10) > 0);
	if (negative)
		*--at = '-';
	put(printer, at, (size_t)(digits + sizeof(digits) - at));
}

/* A number with up to six digits after its point, if the value is exactly such a one; false otherwise. */
static bool print_short_fraction(struct printer *printer, double value, bool negative)
{
	for (int places = 1; places <= 6; places++) {
		double scaled = value * powers_of_ten[places];
		if (scaled != floor(scaled) || scaled >= 1e15 || scaled / powers_of_ten[places] != value)
			continue;
		uint64_t all = (uint64_t)scaled, unit = (uint64_t)powers_of_ten[places];
		print_whole(printer, all / unit, negative);
		put_char(printer, '.');
		for (uint64_t rest = all % unit; (unit /= 10) > 0; rest %= unit)
			put_char(printer, (char)('0' + rest / unit));
		return true;
	}
	return false;
}

/* A double as the shortest decimal that reads back the same. Whole numbers below 10^19 have no exponent, because readers take
 * a number with one for a fraction. */
static void print_slowly(struct printer *printer, double value)
{
	char text[32];

	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	const char *exponent = strchr(text, 'e');
	if (!exponent || fabs(value) >= 1e19 || fabs(value) < 1) {
		put(printer, text, strlen(text));
		return;
	}
	int zeros = (int)strtol(exponent + 1, NULL, 10);
	for (const char *at = text; at < exponent; at++) {
		if (*at == '.')
			zeros -= (int)(exponent - at) - 1;
		else
			put_char(printer, *at);
	}
	while (zeros-- > 0)
		put_char(printer, '0');
}

/* A number; what is none (nan) is null, and infinities are the largest numbers, as in jq. */
static void print_number(struct printer *printer, double value)
{
	bool negative = signbit(value);
	double size = fabs(value);

	if (isnan(value)) {
		put(printer, "null", 4);
		return;
	}
	if (size < 9007199254740992.0 && size == floor(size)) {
		print_whole(printer, (uint64_t)size, negative);
		return;
	}
	if (size >= 1e-3 && size < 1e9 && print_short_fraction(printer, size, negative))
		return;
	if (isinf(value))
		value = negative ? -DBL_MAX : DBL_MAX;
	print_slowly(printer, value);
}

/* Prints `[...]`. */
static void print_array(struct printer *printer, jv array)
{
	int length = jv_array_length(jv_copy(array));

	put_char(printer, '[');
	for (int i = 0; i < length && !printer->failed; i++) {
		if (i > 0)
			put_char(printer, ',');
		print_value(printer, jv_array_get(jv_copy(array), i));
	}
	put_char(printer, ']');
}

/* Prints `{...}`. */
static void print_object(struct printer *printer, jv object)
{
	bool first = true;

	put_char(printer, '{');
	for (int i = jv_object_iter(object); jv_object_iter_valid(object, i) && !printer->failed;
	     i = jv_object_iter_next(object, i)) {
		if (!first)
			put_char(printer, ',');
		first = false;
		print_string(printer, jv_object_iter_key(object, i));
		put_char(printer, ':');
		print_value(printer, jv_object_iter_value(object, i));
	}
	put_char(printer, '}');
}

/* Arrays and objects, one deeper. */
static void print_nested(struct printer *printer, jv value, bool is_array)
{
	if (printer->depth >= JSON_DEPTH_MAX) {
		printer->failed = "the value is nested deeper than 256";
		return;
	}
	printer->depth++;
	if (is_array)
		print_array(printer, value);
	else
		print_object(printer, value);
	printer->depth--;
}

/* A value that somebody else holds, too: this reference to it is given up. */
static void print_value(struct printer *printer, jv value)
{
	jv_kind kind = jv_get_kind(value);

	switch (kind) {
	case JV_KIND_INVALID:
		printer->failed = "there is no value";
		break;
	case JV_KIND_NULL:
		put(printer, "null", 4);
		return;
	case JV_KIND_FALSE:
		put(printer, "false", 5);
		return;
	case JV_KIND_TRUE:
		put(printer, "true", 4);
		return;
	case JV_KIND_NUMBER:
		print_number(printer, jv_number_value(value));
		break;
	case JV_KIND_STRING:
		print_string(printer, value);
		return;
	case JV_KIND_ARRAY:
	case JV_KIND_OBJECT:
		print_nested(printer, value, kind == JV_KIND_ARRAY);
		break;
	}
	jv_free(value);
}

const char *json_print(jv value, struct scratch *scratch, struct view *text)
{
	struct printer printer = {.scratch = scratch, .capacity = 256};

	printer.text = scratch_alloc(scratch, printer.capacity);
	if (!printer.text)
		return "memory is out";
	print_value(&printer, jv_copy(value));
	if (printer.failed)
		return printer.failed;
	*text = (struct view){scratch_resize(scratch, printer.text, printer.size, printer.size ? printer.size : 1),
			      printer.size};
	return NULL;
}
