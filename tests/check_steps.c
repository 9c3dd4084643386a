/*
 * Every step kind by a table: options, records in, records out or the exact words of the failure.
 *
 * Record i comes in with timestamp 1000 + i, key "k<i>" and the headers source=s1, empty=; what is different on the way out is
 * printed behind the payload, as ` ts=5 key=x route=1 a:1 -source`. Failures of open are printed as "open: ...", failures of
 * process as "<record>: ...". With `keys`, the segment is partitioned by key, and record i has the key "k" and the i-th letter of it.
 *
 * What steps remember is in an arena of the suite's own; units are committed and undone as a session would.
 */
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/keygroup.h"
#include "tests/check_main.h"
#include "tests/memory.h"
#include "tests/spec.h"
#include "worker/chain.h"
#include "worker/hosts/host.h"
#include "worker/jq_program.h"
#include "worker/json_text.h"

enum { OUT_SIZE = 1 << 16 };

static const struct wire_header headers_in[] = {
    {{(const uint8_t *)"source", 6}, {(const uint8_t *)"s1", 2}},
    {{(const uint8_t *)"empty", 5}, {(const uint8_t *)"", 0}},
};

struct example {
	enum step_kind kind;
	const char *options[9];
	const char *in;  /* payloads, one per line */
	const char *out; /* records, one per line, or a failure */
};

#define ESCAPED "\\xff"

static const struct example examples[] = {
    {STEP_passthrough, {NULL}, "a\n\n\xff", "a\n\n\xff"},

    /* map */
    {STEP_map, {"program", ".a"}, "{\"a\":1}\n{\"b\":2}\n{ \"a\": [ 1, 2 ] }", "1\nnull\n[1,2]"},
    {STEP_map, {"program", "."}, " 5 \n{ \"b\":1, \"a\":2 }", "5\n{\"b\":1,\"a\":2}"},
    {STEP_map, {"program", ".doubled = .value * 2"}, "{\"value\":4}", "{\"value\":4,\"doubled\":8}"},
    {STEP_map, {"program", "ascii_upcase", "payload", "text"}, "hello\nwörld", "HELLO\nWöRLD"},
    {STEP_map, {"program", "ascii_upcase", "payload", "text"}, "hello\nwörld\n", "HELLO\nWöRLD\n"},
    {STEP_map, {"program", "length", "payload", "text"}, "wörld", "5"},
    {STEP_map, {"program", "{text: .}", "payload", "text"}, "a\"b", "{\"text\":\"a\\\"b\"}"},
    {STEP_map, {"program", ".", "payload", "bytes"}, "\xff\xfe", "\xff\xfe"},
    {STEP_map, {"program", "@base64d | ascii_upcase | @base64", "payload", "bytes"}, "abc", "ABC"},
    {STEP_map,
     {"program", ".[0:2]", "payload", "bytes"},
     "abc",
     "0: a payload written as bytes must be a string of base64, and this is none: YW"},
    {STEP_map,
     {"program", "length", "payload", "bytes"},
     "abc",
     "0: a payload written as bytes must be a string of base64, and this is of type number"},
    {STEP_map, {"program", ".a.b"}, "{}\n{\"a\":7}", "1: Cannot index number with *; payload: {\"a\":7}"},
    {STEP_map,
     {"program", ".a + 1"},
     "{\"a\":\"x\"}",
     "0: string (\"x\") and number (1) cannot be added; payload: {\"a\":\"x\"}"},
    {STEP_map, {"program", ".[]"}, "[1]\n[]", "1: the program yields no value, and one is needed; payload: []"},
    {STEP_map,
     {"program", ".[]"},
     "[1]\n[1,2]",
     "1: the program yields more than one value, and one is needed; payload: [1,2]"},
    {STEP_map,
     {"program", "."},
     "1\n2\n{\"a\"",
     "2: the payload is not JSON: no `:` after the key of an object at its end: {\"a\""},
    {STEP_map, {"program", "."}, "", "0: the payload is empty, which is not JSON"},
    {STEP_map, {"program", "."}, "nan", "0: the payload is not JSON: no JSON value at byte 1: nan"},
    {STEP_map,
     {"program", "."},
     "{\"a\":\"\xff\"}",
     "0: the payload is not JSON: bytes that are no UTF-8 at byte 7: {\"a\":\"" ESCAPED "\"}"},
    {STEP_map,
     {"program", ".", "payload", "text"},
     "\xff",
     "0: the payload is read as text, but is not UTF-8: " ESCAPED},
    {STEP_map,
     {"program", "reduce range(300) as $i (0; [.])"},
     "1",
     "0: the payload cannot be written as JSON: the value is nested deeper than 256"},
    {STEP_map, {"program", ".a |"}, "1", "open: the program in option `program` does not compile: syntax error*"},
    {STEP_map,
     {"program", "nosuch(1)"},
     "1",
     "open: the program in option `program` does not compile: nosuch/1 is not defined at <top-level>, line 1: "
     "nosuch(1)"},

    /* filter: the payload stays as it came, to the letter */
    {STEP_filter,
     {"program", ".value % 10 != 0"},
     "{ \"value\": 3 }\n{\"value\":10}\n{\"value\":12, \"id\":12345678901234567890}",
     "{ \"value\": 3 }\n{\"value\":12, \"id\":12345678901234567890} ts=1002 key=k2"},
    {STEP_filter, {"program", ".keep"}, "{\"keep\":null}\n{\"keep\":false}\n{}", NULL},
    {STEP_filter, {"program", ".keep"}, "{\"keep\":0}\n{\"keep\":\"\"}", "{\"keep\":0}\n{\"keep\":\"\"}"},
    {STEP_filter, {"program", "startswith(\"#\") | not", "payload", "text"}, "# no\nyes", "yes ts=1001 key=k1"},
    {STEP_filter, {"program", ".keep"}, "{\"keep\":1}\n{}\n5", "2: Cannot index number with *; payload: 5"},
    {STEP_filter, {"program", "empty"}, "1", "0: the program yields no value, and one is needed; payload: 1"},
    {STEP_filter,
     {"program", ".[]"},
     "[true,true]",
     "0: the program yields more than one value, and one is needed; payload: [true,true]"},
    {STEP_filter, {"program", "("}, "1", "open: the program in option `program` does not compile: syntax error*"},

    /* flat_map */
    {STEP_flat_map, {"program", ".[]"}, "[1,2]\n[]\n[\"a\"]", "1\n2 ts=1000 key=k0\n\"a\""},
    {STEP_flat_map, {"program", "split(\" \")[]", "payload", "text"}, "a b", "a\nb ts=1000 key=k0"},
    {STEP_flat_map, {"program", "."}, "1", "1"},
    {STEP_flat_map, {"program", ".[] | if . > 1 then error(\"no\") else . end"}, "[1]\n[1,2]", "1: no; payload: [1,2]"},
    {STEP_flat_map,
     {"program", "repeat(1)"},
     "0",
     "0: the program yields more than 1000000 values for one record; payload: 0"},
    {STEP_flat_map, {"program", ")"}, "1", "open: the program in option `program` does not compile: syntax error*"},

    /* parse_json, serialize_json */
    {STEP_parse_json, {NULL}, " { \"b\" : 1.0, \"a\" : [ ] } \n\"x\"", "{\"b\":1,\"a\":[]}\n\"x\""},
    {STEP_parse_json, {NULL}, "1\n1 2", "1: the payload is not JSON: something after the value at byte 3: 1 2"},
    {STEP_parse_json, {NULL}, "'a'", "0: the payload is not JSON: no JSON value at byte 1: 'a'"},
    {STEP_serialize_json, {NULL}, "plain\n\"x\"\n", "\"plain\"\n\"\\\"x\\\"\"\n\"\""},
    {STEP_serialize_json, {"field", "line"}, "tab\there", "{\"line\":\"tab\\there\"}"},
    {STEP_serialize_json, {NULL}, "\xff", "0: the payload is read as text, but is not UTF-8: " ESCAPED},

    /* select, rename, set */
    {STEP_select, {"fields", "b\na\nc"}, "{\"a\":1,\"x\":2,\"b\":null}\n{}", "{\"b\":null,\"a\":1}\n{}"},
    {STEP_select, {"fields", "a"}, "{}\n[1]", "1: the payload must be a JSON object, and this is of type array: [1]"},
    {STEP_select, {"fields", "a"}, "x", "0: the payload is not JSON: no JSON value at byte 1: x"},
    {STEP_rename,
     {"fields", "a=x\nb=y"},
     "{\"c\":0,\"b\":1,\"a\":2}\n{\"c\":1}",
     "{\"c\":0,\"y\":1,\"x\":2}\n{\"c\":1}"},
    {STEP_rename, {"fields", "a=b\nb=a"}, "{\"a\":1,\"b\":2}", "{\"b\":1,\"a\":2}"},
    {STEP_rename,
     {"fields", "a=b"},
     "{\"a\":1,\"b\":2}\n{\"b\":2,\"a\":1}\n{\"b\":2}",
     "{\"b\":1}\n{\"b\":1}\n{\"b\":2}"},
    {STEP_rename, {"fields", "a=b"}, "null", "0: the payload must be a JSON object, and this is of type null: null"},
    {STEP_set, {"fields", "b=.a + 1\nc=.b"}, "{\"a\":1,\"b\":9}", "{\"a\":1,\"b\":2,\"c\":9}"},
    {STEP_set, {"fields", "a=null"}, "{\"a\":1}", "{\"a\":null}"},
    {STEP_set, {"fields", "a=[.b]\nc=.b.c"}, "{\"b\":3}", "0: Cannot index number with *; payload: {\"b\":3}"},
    {STEP_set, {"fields", "a=.b.c"}, "{\"b\":3}", "0: Cannot index number with *; payload: {\"b\":3}"},
    {STEP_set, {"fields", "a=empty"}, "{}", "0: the program yields no value, and one is needed; payload: {}"},
    {STEP_set, {"fields", "a=1"}, "\"s\"", "0: the payload must be a JSON object, and this is of type string: \"s\""},
    {STEP_set,
     {"fields", "a=1\nb=("},
     "{}",
     "open: the program of `b` in option `fields` does not compile: syntax error*"},

    /* enrich */
    {STEP_enrich,
     {"fields", "from=header.source\nat=timestamp\nwho=key\nnone=header.none\ne=header.empty"},
     "{\"a\":1}",
     "{\"a\":1,\"from\":\"s1\",\"at\":1000,\"who\":\"k0\",\"none\":null,\"e\":\"\"}"},
    {STEP_enrich,
     {"headers", "user=.user\nsource=.nothing\ncount=.n\nlist=[.n]"},
     "{ \"user\":\"bob\", \"n\":3 }",
     "{ \"user\":\"bob\", \"n\":3 } -source user:bob count:3 list:[3]"},
    {STEP_enrich, {"headers", "source=.s"}, "{\"s\":\"new\"}", "{\"s\":\"new\"} source:new"},
    {STEP_enrich, {"timestamp", ".at"}, "{\"at\":77}\n{\"at\":-5}", "{\"at\":77} ts=77\n{\"at\":-5} ts=-5"},
    {STEP_enrich,
     {"timestamp", ".at", "fields", "was=timestamp", "headers", "h=.was"},
     "{\"at\":77}",
     "{\"at\":77,\"was\":1000} ts=77"},
    {STEP_enrich,
     {"timestamp", ".at"},
     "{}",
     "0: the timestamp must be a number of milliseconds, and is of type null; payload: {}"},
    {STEP_enrich,
     {"timestamp", ".at"},
     "{\"at\":1.5}",
     "0: the timestamp must be a whole number of milliseconds within 64 bits, and is 1.5; payload: {\"at\":1.5}"},
    {STEP_enrich,
     {"timestamp", ".at"},
     "{\"at\":1e19}",
     "0: the timestamp must be a whole number of milliseconds within 64 bits, and is 1e+19; payload: {\"at\":1e19}"},
    {STEP_enrich,
     {"timestamp", "nan"},
     "{}",
     "0: the timestamp must be a whole number of milliseconds within 64 bits, and is *nan; payload: {}"},
    {STEP_enrich, {"timestamp", ".at.x"}, "{\"at\":1}", "0: Cannot index number with *; payload: {\"at\":1}"},
    {STEP_enrich, {"fields", "a=key"}, "[]", "0: the payload must be a JSON object, and this is of type array: []"},
    {STEP_enrich, {"headers", "h=error(\"no\")"}, "1", "0: no; payload: 1"},
    {STEP_enrich,
     {"fields", "a=headers.x"},
     "{}",
     "open: field `a` in option `fields` must come from `header.NAME`, `timestamp` or `key`, and not from `headers.x`"},
    {STEP_enrich,
     {"fields", "a=header."},
     "{}",
     "open: field `a` in option `fields` must come from `header.NAME`, `timestamp` or `key`, and not from `header.`"},
    {STEP_enrich,
     {"headers", "h=("},
     "{}",
     "open: the program of `h` in option `headers` does not compile: syntax error*"},
    {STEP_enrich, {"timestamp", "("}, "{}", "open: the program in option `timestamp` does not compile: syntax error*"},

    /* batch: by size and bytes; the rest below */
    {STEP_batch,
     {"size", "2"},
     "1\n{ \"a\": 2 }\n3\n4",
     "[1,{\"a\":2}] ts=1001 -key -source -empty\n"
     "[3,4] ts=1003 -key -source -empty"},
    {STEP_batch, {"size", "1"}, "1", "[1] -key -source -empty"},
    {STEP_batch, {"size", "2", "payload", "text"}, "a\"b\nc", "[\"a\\\"b\",\"c\"] ts=1001 -key -source -empty"},
    {STEP_batch, {"size", "2", "payload", "bytes"}, "\xff\nabc", "[\"/w==\",\"YWJj\"] ts=1001 -key -source -empty"},
    {STEP_batch,
     {"bytes", "6"},
     "111\n222\n333\n4444444\n5",
     "[111,222] ts=1001 -key -source -empty\n[333] ts=1002 -key -source -empty\n[4444444] ts=1003 -key -source -empty"},
    {STEP_batch, {"size", "2"}, "1\nx", "1: the payload is not JSON: no JSON value at byte 1: x"},
    {STEP_batch, {"size", "0"}, "1", "open: option `size` must be at least 1"},
    {STEP_batch, {"bytes", "0"}, "1", "open: option `bytes` must be at least 1"},
    {STEP_batch, {"time", "500us"}, "1", "open: option `time` must be at least 1ms"},

    /* key_by */
    {STEP_key_by,
     {"key", ".user"},
     "{ \"user\": \"bob\" }\n{\"user\":5}\n{\"user\":\"\"}",
     "{ \"user\": \"bob\" } key=bob\n{\"user\":5} key=5\n{\"user\":\"\"} key="},
    {STEP_key_by,
     {"key", "[.a, .b]"},
     "{\"a\":1,\"b\":{\"c\": null}}",
     "{\"a\":1,\"b\":{\"c\": null}} key=[1,{\"c\":null}]"},
    {STEP_key_by, {"key", ".ok"}, "{\"ok\":false}", "{\"ok\":false} key=false"},
    {STEP_key_by,
     {"key", ".user"},
     "{\"user\":1}\n{\"usr\":2}",
     "1: the key is null: the program must yield one for every record; payload: {\"usr\":2}"},
    {STEP_key_by, {"key", ".user.id"}, "{\"user\":1}", "0: Cannot index number with *; payload: {\"user\":1}"},
    {STEP_key_by,
     {"key", ".user[]"},
     "{\"user\":[]}",
     "0: the program yields no value, and one is needed; payload: {\"user\":[]}"},
    {STEP_key_by,
     {"key", "reduce range(300) as $i (0; [.])"},
     "1",
     "0: the value is nested deeper than 256; payload: 1"},
    {STEP_key_by, {"key", "."}, "x", "0: the payload is not JSON: no JSON value at byte 1: x"},
    {STEP_key_by, {"key", "("}, "x", "open: the program in option `key` does not compile: syntax error*"},

    /* route, broadcast */
    {STEP_route,
     {"routes", "big=.v > 10\nrest=default\nodd=.v % 2 == 1"},
     "{\"v\":11}\n{\"v\":2}\n{ \"v\":3 }",
     "{\"v\":11}\n{\"v\":2} route=1\n{ \"v\":3 } route=2"},
    {STEP_route, {"routes", "all=default"}, "not json", "not json"},
    {STEP_route,
     {"routes", "big=.v > 10\nodd=.v % 2 == 1"},
     "{\"v\":11}\n{\"v\":4}",
     "1: no route's condition holds and there is no default (routes: big, odd); payload: {\"v\":4}"},
    {STEP_route, {"routes", "a=.v\nb=default"}, "5", "0: Cannot index number with *; payload: 5"},
    {STEP_route,
     {"routes", "a=.[]\nb=default"},
     "[]",
     "0: the program yields no value, and one is needed; payload: []"},
    {STEP_route, {"routes", "a=.\nb=default"}, "x", "0: the payload is not JSON: no JSON value at byte 1: x"},
    {STEP_route, {"routes", "a=default\nb=default"}, "1", "open: option `routes` has two defaults"},
    {STEP_route,
     {"routes", "a=1\nb=("},
     "1",
     "open: the program of `b` in option `routes` does not compile: syntax error*"},
    {STEP_broadcast,
     {"routes", "a\nb\nc"},
     "1\nx",
     "1\n1 ts=1000 key=k0 route=1\n1 ts=1000 key=k0 route=2\nx ts=1001 key=k1\nx ts=1001 key=k1 route=1\n"
     "x ts=1001 key=k1 route=2"},

    /* native: libraries that lie beside this program; more of it in check_host.c */
    {STEP_native, {"library", "./steps.so", "function", "upcase"}, "one\ntwo", "ONE\nTWO"},
    {STEP_native, {"library", "./steps.so", "function", "upcase"}, "one\n!", "1: no shouting"},
    {STEP_native,
     {"library", "./steps.so", "function", "told", "options", "a=b"},
     "one",
     "test/native 1 of 128 a=b now 0"},
    {STEP_native, {"library", "./steps.so", "function", "routes", "routes", "a\nb"}, "a\nb", "a\nb route=1"},
    {STEP_native,
     {"library", "./no_symbol.so"},
     "one",
     "open: the library ./no_symbol.so has no symbol bridge_step_library: it must export that one function of "
     "bridge_step.h (in C++ and Rust with C linkage)"},
};

/* The same in a segment that is partitioned by key; record i has the key "k" and the i-th letter of `keys`. */
static const struct keyed_example {
	struct example example;
	const char *keys; /* NULL: it is not partitioned */
} keyed_examples[] = {
    /* aggregate: with every record; the rest below */
    {{STEP_aggregate,
      {"fields", "n=count\ntotal=sum(.v)\nleast=min(.v)\nmost=max(.v)\nmean=avg(.v)"},
      "{\"v\":1}\n{\"v\":5}\n{\"v\":2}",
      "{\"key\":\"k0\",\"n\":1,\"total\":1,\"least\":1,\"most\":1,\"mean\":1} -source -empty\n"
      "{\"key\":\"k1\",\"n\":1,\"total\":5,\"least\":5,\"most\":5,\"mean\":5} -source -empty\n"
      "{\"key\":\"k0\",\"n\":2,\"total\":3,\"least\":1,\"most\":2,\"mean\":1.5} -source -empty"},
     "010"},
    {{STEP_aggregate,
      {"fields", "n=count\ns=sum(.v)\nl=min(.v)\nm=max(.v)\na=avg(.v)", "emit", "update"},
      "{}\n{\"v\":null}\n{\"v\":-2}",
      "{\"key\":\"k0\",\"n\":1,\"s\":0,\"l\":null,\"m\":null,\"a\":null} -source -empty\n"
      "{\"key\":\"k0\",\"n\":2,\"s\":0,\"l\":null,\"m\":null,\"a\":null} -source -empty\n"
      "{\"key\":\"k0\",\"n\":3,\"s\":-2,\"l\":-2,\"m\":-2,\"a\":-2} -source -empty"},
     "000"},
    {{STEP_aggregate, {"fields", "n=count"}, "no json", "{\"key\":\"k0\",\"n\":1} -source -empty"}, "0"},
    {{STEP_aggregate, {"fields", "n=count", "emit", "event_time", "every", "10s", "reset", "false"}, "1\n2", NULL},
     "01"},
    {{STEP_aggregate,
      {"fields", "n=count", "emit", "processing_time", "every", "10s", "fire_at_end", "true"},
      "1\n2",
      NULL},
     "01"},
    {{STEP_aggregate,
      {"fields", "n=count\ns=sum(.v)"},
      "{\"v\":1}\n{\"v\":\"x\"}",
      "1: field `s` needs a number, or null for none, and its program yields a value of type string; payload: "
      "{\"v\":\"x\"}"},
     "00"},
    {{STEP_aggregate,
      {"fields", "s=max(nan)"},
      "1",
      "0: field `s` needs a number, or null for none, and its program yields a value of type number; payload: 1"},
     "0"},
    {{STEP_aggregate, {"fields", "s=sum(.v.w)"}, "{\"v\":1}", "0: Cannot index number with *; payload: {\"v\":1}"},
     "0"},
    {{STEP_aggregate, {"fields", "s=sum(.v)"}, "x", "0: the payload is not JSON: no JSON value at byte 1: x"}, "0"},
    {{STEP_aggregate,
      {"fields", "s=sum(()"},
      "1",
      "open: the program of `s` in option `fields` does not compile: syntax error*"},
     "0"},
    {{STEP_aggregate,
      {"fields", "s=median(.v)"},
      "1",
      "open: field `s` in option `fields` must be count, sum(...), min(...), max(...) or avg(...), and not "
      "`median(.v)`"},
     "0"},
    {{STEP_aggregate,
      {"fields", "n=count", "emit", "event_time"},
      "1",
      "open: option `every` must be at least 1ms with `emit: event_time`"},
     "0"},
    {{STEP_aggregate,
      {"fields", "n=count"},
      "1",
      "open: the records are not partitioned by key: add a key_by before it"},
     NULL},

    /* dedup: the payload stays as it came */
    {{STEP_dedup,
      {NULL},
      "{ \"n\": 1 }\n{\"n\":2}\n{\"n\":3}\nno json",
      "{ \"n\": 1 }\n{\"n\":2}\nno json ts=1003 key=k2"},
     "0102"},
    {{STEP_dedup,
      {"key", ".id"},
      "{\"id\":1}\n{\"id\":\"1\"}\n{ \"id\":2 }\n{\"id\":1}\n{\"id\":1.0}",
      "{\"id\":1}\n{ \"id\":2 } ts=1002\n{\"id\":1} ts=1003 key=k1"},
     "00010"},
    {{STEP_dedup, {"ttl", "1h"}, "1\n2", "1"}, "00"},
    {{STEP_dedup,
      {"key", ".id"},
      "{\"id\":1}\n{}",
      "1: the identity is null: the program must yield one for every record; payload: {}"},
     "00"},
    {{STEP_dedup, {"key", ".a.b"}, "{\"a\":1}", "0: Cannot index number with *; payload: {\"a\":1}"}, "0"},
    {{STEP_dedup, {"key", "."}, "x", "0: the payload is not JSON: no JSON value at byte 1: x"}, "0"},
    {{STEP_dedup,
      {"key", "\"x\" * 70000"},
      "1",
      "0: too large to remember the identity: a key has at most 262144 bytes, an identity within a key 65535, and what "
      "is kept 33554432"},
     "0"},
    {{STEP_dedup, {"key", "("}, "1", "open: the program in option `key` does not compile: syntax error*"}, "0"},
    {{STEP_native, {"library", "./steps.so", "function", "count", "state", "value=value"}, "x\nx\nx", "x:1\nx:1\nx:2"},
     "010"},
    {{STEP_dedup, {NULL}, "1", "open: the records are not partitioned by key: add a key_by before it"}, NULL},
};

enum {
	PLAIN_COUNT = sizeof(examples) / sizeof(examples[0]),
	EXAMPLE_COUNT = PLAIN_COUNT + sizeof(keyed_examples) / sizeof(keyed_examples[0])
};

/* An example of either table. */
static const struct example *example_at(size_t i)
{
	return i < PLAIN_COUNT ? &examples[i] : &keyed_examples[i - PLAIN_COUNT].example;
}

/* ---- The bench that a step is tried on ---- */

static struct spec spec;
static struct scratch *scratch;
static struct run run;
static char keys[64][8];

/* Where steps remember. */
enum { STATE_BYTES = 64 << 20, OTHER_CHANNEL = MEMORY_CHANNEL + 1 };
static struct memory memory;

static void setup(void)
{
	memory_make(&memory, STATE_BYTES);
	spec_init(&spec);
	scratch = scratch_create();
	run_init(&run, scratch);
}

static void teardown(void)
{
	run_deinit(&run);
	scratch_destroy(scratch);
	spec_deinit(&spec);
	memory_free(&memory);
	jq_programs_free();
	json_forget_keys();
	host_forget();
}

/* Makes records of the lines of a text, with keys of their own or by letters. */
static void fill(const char *lines, const char *letters)
{
	for (uint32_t i = 0;; i++) {
		size_t size = strcspn(lines, "\n");
		struct record *record = run_push(&run);

		if (letters)
			snprintf(keys[i], sizeof(keys[i]), "k%c", letters[i]);
		else
			snprintf(keys[i], sizeof(keys[i]), "k%" PRIu32, i);
		record->payload = (struct view){(const uint8_t *)lines, size};
		record->origin = i;
		record->timestamp = 1000 + i;
		record->keyed = true;
		record->key = view_of(keys[i]);
		record->headers = headers_in;
		record->header_count = 2;
		if (!lines[size])
			return;
		lines += size + 1;
	}
}

/* Appends printf-like text. */
__attribute__((format(printf, 2, 3))) static void add(char *out, const char *format, ...)
{
	size_t used = strlen(out);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(out + used, OUT_SIZE - used, format, arguments);
	va_end(arguments);
}

static bool has_header(const struct wire_header *headers, uint32_t count, const struct wire_header *wanted, bool value)
{
	for (uint32_t i = 0; i < count; i++)
		if (view_equal(headers[i].key, wanted->key) && (!value || view_equal(headers[i].value, wanted->value)))
			return true;
	return false;
}

/* Appends a record: its payload, and what is not as it came in for the record at this place of the output. */
static void add_record(char *out, const struct record *record, uint32_t place)
{
	ck_assert_int_eq(record->state, PAYLOAD_BYTES);
	add(out, "%s%.*s", place ? "\n" : "", (int)record->payload.size, (const char *)record->payload.data);
	if (record->timestamp != 1000 + (int64_t)place)
		add(out, " ts=%" PRId64, record->timestamp);
	if (!record->keyed)
		add(out, " -key");
	else if (!view_equal(record->key, view_of(keys[place])))
		add(out, " key=%.*s", (int)record->key.size, (const char *)record->key.data);
	if (record->route != 0)
		add(out, " route=%" PRIu32, record->route);
	for (size_t i = 0; i < 2; i++)
		if (!has_header(record->headers, record->header_count, &headers_in[i], false))
			add(out, " -%s", headers_in[i].key.data);
	for (uint32_t i = 0; i < record->header_count; i++)
		if (!has_header(headers_in, 2, &record->headers[i], true))
			add(out, " %.*s:%.*s", (int)record->headers[i].key.size,
			    (const char *)record->headers[i].key.data, (int)record->headers[i].value.size,
			    (const char *)record->headers[i].value.data);
}

/* What comes out of a chain for lines of payloads. */
static const char *try(const char *lines, const char *letters)
{
	static char out[OUT_SIZE];
	struct failure failure = {.origin = 99, .step = 99};
	spec.segment.keyed = letters != NULL;
	struct chain *chain = chain_create(&spec.segment, memory.store, NULL, &failure);

	out[0] = '\0';
	if (!chain) {
		ck_assert_uint_eq(failure.step, 0);
		add(out, "open: %s", failure.message);
		return out;
	}
	fill(lines, letters);
	if (!chain_process(chain, &run, (struct step_time){0, INT64_MIN}, &failure)) {
		ck_assert_uint_eq(run.count, 0);
		ck_assert_uint_eq(failure.step, 0);
		add(out, "%" PRIu32 ": %s", failure.origin, failure.message);
	}
	for (uint32_t i = 0; i < run.count; i++)
		add_record(out, &run.records[i], i);
	chain_destroy(chain);
	return out;
}

/* Whether a text is as expected, where one '*' stands for anything. */
static bool matches(const char *text, const char *expected)
{
	const char *star = strstr(expected, "with *;")   ? strchr(strstr(expected, "with *;"), '*')
			   : strstr(expected, "is *nan") ? strchr(strstr(expected, "is *nan"), '*')
			   : strstr(expected, "error*")  ? strchr(strstr(expected, "error*"), '*')
							 : NULL;
	size_t before, after;

	if (!star)
		return strcmp(text, expected) == 0;
	before = (size_t)(star - expected);
	after = strlen(star + 1);
	return strlen(text) >= before + after && strncmp(text, expected, before) == 0 &&
	       strcmp(text + strlen(text) - after, star + 1) == 0;
}

/* The libraries lie beside this program. */
static void go_to_libraries(void)
{
	char program[1024] = "", folder[1100];

	ck_assert_int_gt(readlink("/proc/self/exe", program, sizeof(program) - 1), 0);
	snprintf(folder, sizeof(folder), "%s/libraries", dirname(program));
	ck_assert_int_eq(chdir(folder), 0);
}

START_TEST(test_example)
{
	const struct example *example = example_at((size_t)_i);
	const char *letters = _i < PLAIN_COUNT ? NULL : keyed_examples[_i - PLAIN_COUNT].keys;
	const char *expected = example->out ? example->out : "";

	if (example->kind == STEP_native)
		go_to_libraries();
	spec_add_array(&spec, example->kind, example->options);
	const char *got = try(example->in, letters);
	ck_assert_msg(matches(got, expected), "%s of %s:\ngot      %s\nexpected %s", step_kind_name(example->kind),
		      example->in, got, expected);
}
END_TEST

/* Each kind and each option of steps.def is in the table at least once, and each kind has a failure of its own there. */
START_TEST(test_table_is_complete)
{
	for (size_t i = 0; i < sizeof(spec_options) / sizeof(spec_options[0]); i++) {
		/* The suites of the host have Python's. */
		bool found = spec_options[i].kind == STEP_python ||
			     (spec_options[i].kind == STEP_key_by && strcmp(spec_options[i].name, "key") != 0);
		for (size_t k = 0; k < EXAMPLE_COUNT; k++) {
			const struct example *example = example_at(k);
			for (size_t j = 0; example->kind == spec_options[i].kind && example->options[j]; j += 2)
				found |= strcmp(example->options[j], spec_options[i].name) == 0;
		}
		ck_assert_msg(found, "no example has option %s of %s", spec_options[i].name,
			      step_kind_name(spec_options[i].kind));
	}
	for (int kind = 0; kind < STEP_KIND_COUNT; kind++) {
		bool works = kind == STEP_python;
		bool fails = kind == STEP_passthrough || kind == STEP_broadcast || kind == STEP_python;
		for (size_t k = 0; k < EXAMPLE_COUNT; k++) {
			const char *out = example_at(k)->out;
			if ((int)example_at(k)->kind != kind || !out)
				continue;
			bool failed = strstr(out, "open: ") == out || (out[0] && strstr(out, ": ") == out + 1);
			fails |= failed;
			works |= !failed;
		}
		ck_assert_msg(works && fails, "no example of %s", step_kind_name((enum step_kind)kind));
	}
}
END_TEST

/* ---- docs/steps.md ---- */

static char *page; /* the whole page */

/* Reads the page, wherever the suite is run from. */
static void read_page(void)
{
	char path[512];
	size_t size = 0;

	snprintf(path, sizeof(path), "%.*s../docs/steps.md", (int)(strrchr(__FILE__, '/') + 1 - __FILE__), __FILE__);
	FILE *file = fopen(path, "r");
	ck_assert_msg(file != NULL, "%s cannot be read: run the tests from the top folder", path);
	page = calloc(1, 1 << 17);
	size = fread(page, 1, (1 << 17) - 1, file);
	ck_assert_uint_gt(size, 0);
	fclose(file);
}

/* The section of a kind: a copy. */
static char *section_of(const char *kind)
{
	char heading[64];

	snprintf(heading, sizeof(heading), "\n## %s\n", kind);
	const char *start = strstr(page, heading);
	ck_assert_msg(start != NULL, "docs/steps.md has no section %s", kind);
	const char *end = strstr(start + 4, "\n## ");
	return end ? strndup(start, (size_t)(end - start)) : strdup(start);
}

static const char *const kind_help[] = {
#define STEP_KIND(name, closes, help) help,
#include "descriptor/steps.def"
};

static const char *const option_help[] = {
#define STEP_OPTION(kind, option, type, required, fallback, help) help,
#include "descriptor/steps.def"
};

/* Each kind has its sentence, and a table with a row for each option and no other. */
START_TEST(test_docs_tables)
{
	static const char *const types[] = {"program", "text", "number", "size", "duration", "form",
					    "list",    "map",  "routes", "word", "boolean"};
	size_t rows = 0, expected = 0;
	char row[1024], fallback[64];
	char *section;

	read_page();
	section = section_of(step_kind_name((enum step_kind)_i));
	ck_assert_msg(strstr(section, kind_help[_i]) != NULL, "no sentence: %s", kind_help[_i]);
	for (size_t i = 0; i < sizeof(spec_options) / sizeof(spec_options[0]); i++) {
		const struct spec_option *option = &spec_options[i];
		if ((int)option->kind != _i)
			continue;
		expected++;
		snprintf(fallback, sizeof(fallback),
			 option->fallback   ? " `%s`"
			 : option->required ? " %s"
					    : "%s",
			 option->fallback   ? option->fallback
			 : option->required ? "required"
					    : "");
		snprintf(row, sizeof(row), "\n| `%s` | %s |%s | %s |\n", option->name, types[option->type], fallback,
			 option_help[i]);
		ck_assert_msg(strstr(section, row) != NULL, "no row: %s", row);
	}
	for (const char *at = section; (at = strstr(at, "\n| `")) != NULL; at++)
		rows++;
	ck_assert_uint_eq(rows, expected);
	free(section);
	free(page);
}
END_TEST

/* Removes from the output of an example what every record on the bench has. */
static void plain(const char *from, char *to)
{
	static const char *const marks[] = {" ts=100", " key=k", " -key", " -source", " -empty"};

	while (*from) {
		size_t skip = 0;
		for (size_t i = 0; i < 5; i++)
			if (strncmp(from, marks[i], strlen(marks[i])) == 0)
				skip = strlen(marks[i]) + (i < 2);
		from += skip;
		if (!skip)
			*to++ = *from++;
	}
	*to = '\0';
}

/* Whether the names and values of an example's options stand in a text. */
static bool options_in(const struct example *example, const char *text)
{
	for (size_t i = 0; example->options[i]; i++) {
		char copy[256], *rest = copy;
		snprintf(copy, sizeof(copy), "%s", example->options[i]);
		for (char *part; (part = strsep(&rest, "\n")) != NULL;) {
			char *value = i % 2 && strstr(part, "=") && !strstr(part, " = ") ? strchr(part, '=') : NULL;
			if (value)
				*value++ = '\0';
			if (!strstr(text, part) || (value && !strstr(text, value)))
				return false;
		}
	}
	return true;
}

/* Whether there is a tested example of a kind with this input and output, and with the options of the section. */
static bool is_tested(int kind, const char *section, const char *in, const char *out)
{
	char bare[4096];

	for (size_t k = 0; k < EXAMPLE_COUNT; k++) {
		const struct example *example = example_at(k);
		if ((int)example->kind != kind || !example->out)
			continue;
		plain(example->out, bare);
		if (strcmp(in, example->in) == 0 && strcmp(out, bare) == 0 && options_in(example, section))
			return true;
	}
	return false;
}

/* Each example on the page is one of the table above. */
START_TEST(test_docs_examples)
{
	char in[1024] = "", out[1024] = "", *rest, *section;
	int found = 0;

	read_page();
	section = section_of(step_kind_name((enum step_kind)_i));
	char *lines = rest = strdup(section);
	for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
		bool is_in = strncmp(line, "    in ", 7) == 0;
		if (is_in || strncmp(line, "    out ", 8) == 0 || strncmp(line, "    fails ", 10) == 0) {
			char *to = is_in ? in : out, *text = line + 4 + strcspn(line + 4, " ");
			text += strspn(text, " ");
			snprintf(to + strlen(to), 1024 - strlen(to), "%s%s", to[0] ? "\n" : "", text);
		} else if (in[0]) {
			ck_assert_msg(is_tested(_i, section, in, out), "not in the table of tests:\n%s\n->\n%s", in,
				      out);
			in[0] = out[0] = '\0';
			found++;
		}
	}
	ck_assert_str_eq(in, "");
	ck_assert_int_ge(found, _i == STEP_passthrough || _i == STEP_python ? 0 : 1);
	free(lines);
	free(section);
	free(page);
}
END_TEST

/* ---- key_by ---- */

START_TEST(test_key_by_hashes_the_key)
{
	struct failure failure;

	spec_add(&spec, STEP_key_by, "key", ".user", NULL);
	struct chain *chain = chain_create(&spec.segment, NULL, NULL, &failure);
	fill("{\"user\":\"bob\"}", NULL);
	run.records[0].key_group = 77;
	ck_assert(chain_process(chain, &run, (struct step_time){0, 0}, &failure));
	ck_assert_int_eq(run.records[0].key_hash, key_hash_of(view_of("bob")));
	ck_assert_uint_eq(run.records[0].key_group, 0);
	chain_destroy(chain);
}
END_TEST

/* ---- enrich ---- */

START_TEST(test_enrich_without_key_and_time)
{
	struct failure failure;

	spec_add(&spec, STEP_enrich, "fields", "at=timestamp\nwho=key", NULL);
	struct chain *chain = chain_create(&spec.segment, NULL, NULL, &failure);
	fill("{}\n{}", NULL);
	run.records[0].keyed = false;
	run.records[0].timestamp = INT64_MIN;
	run.records[1].key = (struct view){(const uint8_t *)"\xff", 1};
	run.count = 1;
	ck_assert(chain_process(chain, &run, (struct step_time){0, 0}, &failure));
	ck_assert(view_equal(run.records[0].payload, view_of("{\"at\":null,\"who\":null}")));
	run.records[1].state = PAYLOAD_BYTES;
	run.records[0] = run.records[1];
	ck_assert(!chain_process(chain, &run, (struct step_time){0, 0}, &failure));
	ck_assert_str_eq(failure.message, "the key is not UTF-8 and cannot be a field: \\xff");
	chain_destroy(chain);
}
END_TEST

/* ---- Steps that remember ---- */

/* Opens the step as the only one of a segment. */
#define remember(is_keyed, kind, ...) remember_array(is_keyed, kind, (const char *const[]){__VA_ARGS__})
static struct chain *remember_array(bool is_keyed, enum step_kind kind, const char *const *options)
{
	struct failure failure;

	spec.segment.keyed = is_keyed;
	spec_add_array(&spec, kind, options);
	struct chain *chain = chain_create(&spec.segment, memory.store, NULL, &failure);
	ck_assert_msg(chain != NULL, "%s", failure.message);
	arena_commit(&memory.arena);
	return chain;
}

/* What a worker that died left to another: what was not committed is undone, and nothing of the process is left. */
static struct chain *reopen(struct chain *chain)
{
	struct failure failure;

	chain_destroy(chain);
	memory_take_over(&memory);
	chain = chain_create(&spec.segment, memory.store, NULL, &failure);
	ck_assert_msg(chain != NULL, "%s", failure.message);
	return chain;
}

static struct chain *batch_chain(bool keyed, const char *size, const char *time)
{
	return time ? remember(keyed, STEP_batch, "size", size, "time", time, NULL)
		    : remember(keyed, STEP_batch, "size", size, NULL);
}

/* Gives a chain one record; whether that went well. */
static bool offer(struct chain *chain, const char *payload, const char *key, int64_t timestamp, struct step_time time,
		  struct failure *failure)
{
	run_clear(&run);
	scratch_reset(scratch);
	struct record *record = run_push(&run);
	record->payload = scratch_copy(scratch, view_of(payload));
	record->timestamp = timestamp;
	record->keyed = key != NULL;
	record->key = scratch_copy(scratch, view_of(key ? key : ""));
	record->key_hash = 5;
	record->key_group = 6;
	return chain_process(chain, &run, time, failure);
}

/* Gives a chain one record; how many come out. */
static uint32_t give(struct chain *chain, const char *payload, const char *key, int64_t timestamp,
		     struct step_time time)
{
	struct failure failure;

	ck_assert_msg(offer(chain, payload, key, timestamp, time, &failure), "%s", failure.message);
	return run.count;
}

/* Makes a chain release; how many records come out. */
static uint32_t release(struct chain *chain, enum release_cause cause, struct step_time time)
{
	struct failure failure;
	bool more;

	run_clear(&run);
	scratch_reset(scratch);
	ck_assert_msg(chain_release(chain, cause, time, 1 << 20, &run, &more, &failure), "%s", failure.message);
	ck_assert(!more);
	return run.count;
}

static void expect(uint32_t index, const char *payload, const char *key, int64_t timestamp)
{
	const struct record *record = &run.records[index];

	ck_assert_uint_lt(index, run.count);
	ck_assert_msg(view_equal(record->payload, view_of(payload)), "%.*s", (int)record->payload.size,
		      record->payload.data);
	ck_assert_int_eq(record->keyed, key != NULL);
	if (key) {
		ck_assert(view_equal(record->key, view_of(key)));
		ck_assert_int_eq(record->key_hash, 5);
		ck_assert_uint_eq(record->key_group, 6);
	}
	ck_assert_int_eq(record->timestamp, timestamp);
	ck_assert_uint_eq(record->header_count, 0);
	ck_assert_uint_eq(record->route, 0);
}

/* Ends the input; what comes out is the state of nothing. */
static uint32_t end(struct chain *chain, struct step_time time)
{
	uint32_t count = release(chain, RELEASE_END, time);

	arena_commit(&memory.arena);
	return count;
}

/* Entries and timers that are in the store. */
static uint64_t live(void)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < state_count(memory.store); i++) {
		struct state_size size = state_size_of(state_open(memory.store, state_spec_of(memory.store, i)));
		count += size.entries + size.timers;
	}
	return count;
}

/* ---- batch ---- */

static const struct step_time at_zero = {0, INT64_MIN};

START_TEST(test_batch_by_time)
{
	struct chain *chain = batch_chain(_i, "100", "1500ms");
	const char *key = _i ? "k" : NULL;

	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	ck_assert_uint_eq(give(chain, "1", key, 50, (struct step_time){10000, INT64_MIN}), 0);
	ck_assert_int_eq(chain_next_wakeup(chain), 11500);
	ck_assert_uint_eq(give(chain, "2", key, 40, (struct step_time){11499, INT64_MIN}), 0);
	ck_assert_int_eq(chain_next_wakeup(chain), 11500);
	ck_assert_uint_eq(release(chain, RELEASE_TICK, (struct step_time){11499, INT64_MIN}), 0);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){11499, 1000}), 0);
	ck_assert_uint_eq(release(chain, RELEASE_TICK, (struct step_time){11500, 45}), 1);
	expect(0, "[1,2]", key, 50);
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	ck_assert_uint_eq(release(chain, RELEASE_TICK, (struct step_time){90000, 45}), 0);
	chain_destroy(chain);
}
END_TEST

/* A record that comes after the time is up finds the old batch closed and starts a new one. */
START_TEST(test_batch_due_before_a_record)
{
	struct chain *chain = batch_chain(_i, "100", "1s");
	const char *key = _i ? "k" : NULL;

	give(chain, "1", key, 1, (struct step_time){1000, INT64_MIN});
	ck_assert_uint_eq(give(chain, "2", key, 2, (struct step_time){2000, INT64_MIN}), 1);
	expect(0, "[1]", key, 1);
	ck_assert_int_eq(chain_next_wakeup(chain), 3000);
	ck_assert_uint_eq(end(chain, (struct step_time){2000, INT64_MIN}), 1);
	expect(0, "[2]", key, 2);
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	chain_destroy(chain);
}
END_TEST

/* What a watermark has passed while it was held comes out at the watermark. */
START_TEST(test_batch_is_never_late)
{
	struct chain *chain = batch_chain(_i, "2", NULL);
	const char *key = _i ? "k" : NULL;

	ck_assert_uint_eq(give(chain, "1", key, 10, at_zero), 0);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, 500}), 0);
	ck_assert_uint_eq(give(chain, "2", key, 20, (struct step_time){0, 500}), 1);
	expect(0, "[1,2]", key, 500);
	give(chain, "3", key, INT64_MAX, (struct step_time){0, 500});
	ck_assert_uint_eq(end(chain, (struct step_time){0, 600}), 1);
	expect(0, "[3]", key, INT64_MAX);
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	chain_destroy(chain);
}
END_TEST

START_TEST(test_batch_by_key)
{
	struct chain *chain = batch_chain(true, "2", "1s");

	ck_assert_uint_eq(give(chain, "1", "b", 1, at_zero), 0);
	ck_assert_uint_eq(give(chain, "2", "c", 2, (struct step_time){500, INT64_MIN}), 0);
	ck_assert_uint_eq(give(chain, "3", "a", 3, (struct step_time){600, INT64_MIN}), 0);
	ck_assert_uint_eq(give(chain, "4", "", 4, (struct step_time){700, INT64_MIN}), 0);
	ck_assert_uint_eq(give(chain, "5", "c", 5, (struct step_time){800, INT64_MIN}), 1);
	expect(0, "[2,5]", "c", 5);
	ck_assert_int_eq(chain_next_wakeup(chain), 1000);
	ck_assert_uint_eq(release(chain, RELEASE_TICK, (struct step_time){1600, INT64_MIN}), 2);
	expect(0, "[1]", "b", 1);
	expect(1, "[3]", "a", 3);
	ck_assert_uint_eq(end(chain, (struct step_time){1600, INT64_MIN}), 1);
	expect(0, "[4]", "", 4);
	ck_assert_uint_eq(live(), 0);
	chain_destroy(chain);
}
END_TEST

/* In a segment that is not partitioned by key, keys neither split batches nor survive them. */
START_TEST(test_batch_without_keys)
{
	struct chain *chain = batch_chain(false, "2", NULL);

	give(chain, "1", "a", 1, at_zero);
	ck_assert_uint_eq(give(chain, "2", "b", 2, at_zero), 1);
	expect(0, "[1,2]", NULL, 2);
	chain_destroy(chain);
}
END_TEST

/* At the end of input every key's batch is found, with and without a time. */
START_TEST(test_batch_ends_for_every_key)
{
	struct chain *chain = batch_chain(true, "100", _i ? "1h" : NULL);
	enum { KEYS = 5000 };
	static bool seen[KEYS];
	char key[16];

	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < 2 * KEYS; i++) {
		snprintf(key, sizeof(key), "%d", i % KEYS);
		ck_assert_uint_eq(give(chain, i < KEYS ? "1" : "2", key, 1, at_zero), 0);
		arena_commit(&memory.arena);
	}
	ck_assert_uint_eq(end(chain, at_zero), KEYS);
	for (uint32_t i = 0; i < run.count; i++) {
		snprintf(key, sizeof(key), "%.*s", (int)run.records[i].key.size, run.records[i].key.data);
		expect(i, "[1,2]", key, 1);
		ck_assert(!seen[atoi(key)]);
		seen[atoi(key)] = true;
	}
	ck_assert_uint_eq(end(chain, at_zero), 0);
	chain_destroy(chain);
}
END_TEST

START_TEST(test_batch_time_at_the_limits)
{
	struct chain *chain = batch_chain(_i, "100", "1s");
	const char *key = _i ? "k" : NULL;

	give(chain, "1", key, INT64_MIN, (struct step_time){INT64_MAX - 5, INT64_MIN});
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	ck_assert_uint_eq(end(chain, (struct step_time){INT64_MAX, INT64_MIN}), 1);
	expect(0, "[1]", key, INT64_MIN);
	chain_destroy(chain);
}
END_TEST

/* What was committed is in the batch after a death, and nothing else. */
START_TEST(test_batch_outlives_its_process)
{
	struct chain *chain = batch_chain(_i, "4", "1s");
	const char *key = _i ? "k" : NULL;

	give(chain, "1", key, 10, (struct step_time){1000, INT64_MIN});
	arena_commit(&memory.arena);
	give(chain, "2", key, 20, (struct step_time){1100, INT64_MIN});
	chain = reopen(chain);
	ck_assert_int_eq(chain_next_wakeup(chain), 2000);
	give(chain, "3", key, 5, (struct step_time){1200, INT64_MIN});
	arena_commit(&memory.arena);
	chain = reopen(chain);
	give(chain, "4", key, 7, (struct step_time){1300, INT64_MIN});
	ck_assert_uint_eq(give(chain, "5", key, 8, (struct step_time){1400, INT64_MIN}), 1);
	expect(0, "[1,3,4,5]", key, 10);
	chain = reopen(chain);
	ck_assert_uint_eq(release(chain, RELEASE_TICK, (struct step_time){2000, INT64_MIN}), 1);
	expect(0, "[1,3]", key, 10);
	chain_destroy(chain);
}
END_TEST

/* A unit that is undone, as a whole or to a mark, leaves no trace in the sums; also where as many records are pending as before. */
START_TEST(test_batch_forgets_what_was_undone)
{
	struct chain *chain = batch_chain(_i, "2", NULL);
	const char *key = _i ? "k" : NULL;

	give(chain, "1", key, 50, at_zero);
	arena_commit(&memory.arena);
	ck_assert_uint_eq(give(chain, "2", key, 60, at_zero), 1);
	give(chain, "\"much longer\"", key, 70, at_zero);
	arena_rollback(&memory.arena);
	uint64_t mark = arena_mark(&memory.arena);
	ck_assert_uint_eq(give(chain, "3", key, 80, at_zero), 1);
	expect(0, "[1,3]", key, 80);
	arena_undo_to(&memory.arena, mark);
	arena_commit(&memory.arena);
	ck_assert_uint_eq(give(chain, "4", key, 40, at_zero), 1);
	expect(0, "[1,4]", key, 50);
	chain_destroy(chain);
}
END_TEST

/* Lists of two subtasks that come together in one are more than a batch: several come out, none too large. */
START_TEST(test_batch_of_two_subtasks)
{
	struct chain *chain = batch_chain(false, "3", "1s");
	struct state_store *other = state_store_create(&memory.arena, OTHER_CHANNEL);
	struct state_entry entry;
	struct failure failure;
	const char *why;

	struct chain *joined = chain_create(&spec.segment, other, NULL, &failure);
	ck_assert_ptr_nonnull(joined);
	give(chain, "1", NULL, 10, (struct step_time){1000, INT64_MIN});
	give(chain, "2", NULL, 20, (struct step_time){1000, INT64_MIN});
	give(joined, "7", NULL, 70, (struct step_time){1100, INT64_MIN});
	give(joined, "8", NULL, 5, (struct step_time){1200, INT64_MIN});
	ck_assert_int_eq(chain_next_wakeup(joined), 2100);
	while (state_delta_peek(memory.store, &entry) == STATE_OK) {
		ck_assert_msg(state_restore(other, &entry, &why) == STATE_OK, "%s", why);
		state_delta_advance(memory.store);
	}
	ck_assert_int_eq(chain_next_wakeup(joined), 2000);
	ck_assert_uint_eq(give(joined, "9", NULL, 90, (struct step_time){1300, INT64_MIN}), 2);
	expect(0, "[7,8,1]", NULL, 70);
	expect(1, "[2]", NULL, 20);
	ck_assert_int_eq(chain_next_wakeup(joined), 2300);
	ck_assert_uint_eq(release(joined, RELEASE_END, (struct step_time){1300, INT64_MIN}), 1);
	expect(0, "[9]", NULL, 90);
	chain_destroy(joined);
	chain_destroy(chain);
	state_store_destroy(other);
}
END_TEST

/* What a checkpoint brings that no batch has written is refused in words, and nothing is read beyond it. */
START_TEST(test_batch_restored_from_nonsense)
{
	static const struct {
		uint32_t state; /* as steps.def has them: pending, sums */
		size_t size;
		uint8_t bytes[40];
	} nonsense[] = {
	    {0, 7, {3, 0, 0, 0, 'a', 'b', 'c'}}, /* an element shorter than its head */
	    {1, 8, {1}},
	    {1, 40, {1}}, /* a record that is not there */
	    {1, 40, {1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}}, /* the largest batch */
	    {1, 40, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
	    {1, 40, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},
	};
	struct state_entry entry = {.state = nonsense[_i].state,
				    .key_group = 6,
				    .key_hash = 5,
				    .key = view_of("k"),
				    .sub = {(const uint8_t *)"\0\0\0\0\0\0\0", nonsense[_i].state == 0 ? 8 : 0},
				    .value = {nonsense[_i].bytes, nonsense[_i].size}};
	struct chain *chain = batch_chain(true, "1", "1s");
	struct failure failure;
	const char *why;

	ck_assert_msg(state_restore(memory.store, &entry, &why) == STATE_OK, "%s", why);
	ck_assert(!offer(chain, "1", "k", 1, at_zero, &failure));
	ck_assert_msg(strncmp(failure.message, "what is kept of a batch is damaged", 34) == 0, "%s", failure.message);
	chain_destroy(chain);
}
END_TEST

/* ---- aggregate ---- */

START_TEST(test_aggregate_by_event_time)
{
	struct chain *chain =
	    remember(true, STEP_aggregate, "fields", "n=count\ns=sum(.)", "emit", "event_time", "every", "10ms", NULL);

	ck_assert_uint_eq(give(chain, "1", "a", 12, at_zero), 0);
	ck_assert_uint_eq(give(chain, "2", "b", 5, at_zero), 0);
	ck_assert_uint_eq(give(chain, "3", "a", 7, at_zero), 0); /* the timer of a stands */
	ck_assert_uint_eq(give(chain, "4", "a", 35, at_zero), 0);
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, 9}), 0);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, 19}), 1);
	expect(0, "{\"key\":\"b\",\"n\":1,\"s\":2}", "b", 10);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, 20}), 1);
	expect(0, "{\"key\":\"a\",\"n\":3,\"s\":8}", "a", 20);
	ck_assert_uint_eq(give(chain, "5", "a", 3, (struct step_time){0, 20}), 0); /* late: due behind the watermark */
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, INT64_MAX}), 1);
	expect(0, "{\"key\":\"a\",\"n\":1,\"s\":5}", "a", 30);
	arena_commit(&memory.arena);
	ck_assert_uint_eq(live(), 0);
	chain_destroy(chain);
}
END_TEST

START_TEST(test_aggregate_keeps_totals)
{
	struct chain *chain = remember(true, STEP_aggregate, "fields", "n=count", "emit", "event_time", "every", "10ms",
				       "reset", "false", NULL);

	give(chain, "1", "a", 12, at_zero);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, 50}), 1);
	expect(0, "{\"key\":\"a\",\"n\":1}", "a", 20);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, 90}), 0); /* nothing new */
	give(chain, "1", "a", 95, (struct step_time){0, 90});
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){0, 100}), 1);
	expect(0, "{\"key\":\"a\",\"n\":2}", "a", 100);
	chain_destroy(chain);
}
END_TEST

START_TEST(test_aggregate_by_processing_time)
{
	struct chain *chain = remember(true, STEP_aggregate, "fields", "n=count", "emit", "processing_time", "every",
				       "10ms", "fire_at_end", _i ? "true" : "false", NULL);

	give(chain, "1", "a", 500, (struct step_time){101, INT64_MIN});
	give(chain, "1", "b", 400, (struct step_time){110, INT64_MIN});
	ck_assert_int_eq(chain_next_wakeup(chain), 110);
	ck_assert_uint_eq(release(chain, RELEASE_TICK, (struct step_time){109, INT64_MIN}), 0);
	ck_assert_uint_eq(release(chain, RELEASE_WATERMARK, (struct step_time){109, 450}), 0);
	ck_assert_uint_eq(release(chain, RELEASE_TICK, (struct step_time){119, 450}), 1);
	expect(0, "{\"key\":\"a\",\"n\":1}", "a", 500);
	ck_assert_int_eq(chain_next_wakeup(chain), 120);
	ck_assert_uint_eq(end(chain, (struct step_time){119, 450}), _i);
	if (_i)
		expect(0, "{\"key\":\"b\",\"n\":1}", "b", 450);
	ck_assert_int_eq(chain_next_wakeup(chain), INT64_MAX);
	chain_destroy(chain);
}
END_TEST

/* Fields that are still wanted go on counting when others come and go, and whatever their order. */
START_TEST(test_aggregate_takes_fields_over)
{
	static const char before[] = "n=count\nmean=avg(.)\nleast=min(.)\ns=sum(.)";
	static const char after[] = "most=max(.)\ns=sum(. + 1)\nmean=avg(.)\nleast=max(.)\nn=count";
	struct chain *chain = remember(true, STEP_aggregate, "fields", before, NULL);

	give(chain, "4", "a", 1, at_zero);
	give(chain, "8", "a", 1, at_zero);
	give(chain, "1", "b", 1, at_zero);
	arena_commit(&memory.arena);
	chain_destroy(chain);
	memory_take_over(&memory);
	spec_deinit(&spec);
	spec_init(&spec);
	chain = remember(true, STEP_aggregate, "fields", after, NULL);
	give(chain, "3", "a", 1, at_zero);
	expect(0, "{\"key\":\"a\",\"most\":3,\"s\":16,\"mean\":5,\"least\":3,\"n\":3}", "a", 1);
	give(chain, "9", "a", 1, at_zero);
	expect(0, "{\"key\":\"a\",\"most\":9,\"s\":26,\"mean\":6,\"least\":9,\"n\":4}", "a", 1);
	give(chain, "2", "b", 1, at_zero);
	expect(0, "{\"key\":\"b\",\"most\":2,\"s\":4,\"mean\":1.5,\"least\":2,\"n\":2}", "b", 1);
	chain_destroy(chain);
}
END_TEST

/* A record that fails leaves the totals as they were, whichever of its fields it is that fails. */
START_TEST(test_aggregate_fails_as_a_whole)
{
	struct chain *chain = remember(true, STEP_aggregate, "fields", "n=count\na=sum(.a)\nb=sum(.b)", NULL);
	struct failure failure;

	give(chain, "{\"a\":1,\"b\":1}", "k", 1, at_zero);
	ck_assert(!offer(chain, "{\"a\":1,\"b\":[]}", "k", 1, at_zero, &failure));
	ck_assert(!offer(chain, "{\"a\":1}", "\xff", 1, at_zero, &failure));
	ck_assert_str_eq(failure.message, "the key is not UTF-8 and cannot be a field: \\xff");
	give(chain, "{\"b\":5}", "k", 1, at_zero);
	expect(0, "{\"key\":\"k\",\"n\":2,\"a\":1,\"b\":6}", "k", 1);
	chain_destroy(chain);
}
END_TEST

/* Random records of random keys, in units that are committed, undone or cut off by a death, against plain arithmetic. */
START_TEST(test_aggregate_against_a_model)
{
	enum { KEYS = 50, UNITS = 3000 };
	struct model {
		int64_t count;
		double sum, least, most;
	} committed[KEYS] = {{0}}, now[KEYS];
	struct chain *chain =
	    remember(true, STEP_aggregate, "fields", "n=count\ns=sum(.)\nl=min(.)\nm=max(.)\na=avg(.)", NULL);
	char key[16], payload[16], expected[256];

	srand(1);
	for (int unit = 0; unit < UNITS; unit++) {
		memcpy(now, committed, sizeof(now));
		for (int i = rand() % 8; i >= 0; i--) {
			int k = rand() % KEYS, value = rand() % 2001 - 1000;
			struct model *model = &now[k];
			snprintf(key, sizeof(key), "key %d", k);
			snprintf(payload, sizeof(payload), "%d", value);
			give(chain, payload, key, unit, at_zero);
			model->least = model->count == 0 || value < model->least ? value : model->least;
			model->most = model->count == 0 || value > model->most ? value : model->most;
			model->sum += value;
			model->count++;
			snprintf(expected, sizeof(expected),
				 "{\"key\":\"%s\",\"n\":%" PRId64 ",\"s\":%.0f,\"l\":%.0f,\"m\":%.0f,\"a\":", key,
				 model->count, model->sum, model->least, model->most);
			const struct view got = run.records[0].payload;
			ck_assert_msg(strncmp((const char *)got.data, expected, strlen(expected)) == 0,
				      "%.*s is not %s", (int)got.size, got.data, expected);
			ck_assert_double_eq_tol(strtod((const char *)got.data + strlen(expected), NULL),
						model->sum / (double)model->count, 1e-9);
		}
		int fate = rand() % 10;
		if (fate == 0)
			chain = reopen(chain);
		else if (fate == 1)
			arena_rollback(&memory.arena);
		else {
			arena_commit(&memory.arena);
			memcpy(committed, now, sizeof(now));
		}
	}
	chain_destroy(chain);
}
END_TEST

/* ---- dedup ---- */

/* What is remembered outlives the process; what was undone is not remembered. */
START_TEST(test_dedup_outlives_its_process)
{
	struct chain *chain = _i ? remember(true, STEP_dedup, "key", ".", NULL) : remember(true, STEP_dedup, NULL);

	ck_assert_uint_eq(give(chain, "1", "a", 1, at_zero), 1);
	arena_commit(&memory.arena);
	ck_assert_uint_eq(give(chain, "1", "b", 1, at_zero), 1);
	chain = reopen(chain);
	ck_assert_uint_eq(give(chain, "1", "a", 1, at_zero), 0);
	ck_assert_uint_eq(give(chain, "1", "b", 1, at_zero), 1);
	ck_assert_uint_eq(give(chain, "1", "b", 1, at_zero), 0);
	arena_rollback(&memory.arena);
	ck_assert_uint_eq(give(chain, "1", "b", 1, at_zero), 1);
	ck_assert_uint_eq(give(chain, "2", "b", 1, at_zero), _i);
	chain_destroy(chain);
}
END_TEST

/* A record is remembered for its time, counted from the one that passed: repetitions do not prolong it. */
START_TEST(test_dedup_forgets)
{
	struct chain *chain = _i ? remember(true, STEP_dedup, "key", ".", "ttl", "100ms", NULL)
				 : remember(true, STEP_dedup, "ttl", "100ms", NULL);

	ck_assert_uint_eq(give(chain, "1", "a", 1, (struct step_time){1000, INT64_MIN}), 1);
	ck_assert_uint_eq(give(chain, "1", "a", 1, (struct step_time){1050, INT64_MIN}), 0);
	ck_assert_uint_eq(give(chain, "1", "a", 1, (struct step_time){1099, INT64_MIN}), 0);
	arena_commit(&memory.arena);
	ck_assert_uint_eq(give(chain, "1", "a", 1, (struct step_time){1101, INT64_MIN}), 1);
	ck_assert_uint_eq(give(chain, "1", "a", 1, (struct step_time){1200, INT64_MIN}), 0);
	chain_destroy(chain);
}
END_TEST

/* ---- When the memory is full ---- */

/* Each step that remembers says so when there is no room, and the arena knows why. */
START_TEST(test_full)
{
	static const struct {
		enum step_kind kind;
		const char *options[3];
		const char *words;
	} steps[] = {
	    {STEP_dedup, {NULL}, "no room in the state memory of the slot to remember the key: raise --state-memory"},
	    {STEP_dedup, {"key", "."}, "no room in the state memory of the slot to remember the identity: raise "},
	    {STEP_aggregate,
	     {"fields", "n=count"},
	     "no room in the state memory of the slot to keep the totals of a key"},
	    {STEP_batch, {"size", "1000000"}, "no room in the state memory of the slot to keep a record of a batch"},
	};
	static char key[100000];
	struct chain *chain = remember_array(true, steps[_i].kind, steps[_i].options);
	struct failure failure;
	bool fine = true;

	memset(key, 'k', sizeof(key) - 1);
	for (int i = 0; fine; i++) {
		ck_assert_int_lt(i, STATE_BYTES / 50000);
		key[snprintf(key, 10, "%d", i)] = 'k';
		fine = offer(chain, "1", key, 1, at_zero, &failure);
		if (fine)
			arena_commit(&memory.arena);
	}
	ck_assert_msg(strstr(failure.message, steps[_i].words) == failure.message, "%s", failure.message);
	ck_assert_int_eq(memory.arena.trouble, ARENA_FULL);
	arena_rollback(&memory.arena);
	chain_destroy(chain);
}
END_TEST

static Suite *steps_suite(void)
{
	Suite *suite = suite_create("steps");
	TCase *tests = tcase_create("all");

	log_init("check_steps", LOG_WARN);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_loop_test(tests, test_example, 0, EXAMPLE_COUNT);
	tcase_add_test(tests, test_table_is_complete);
	tcase_add_loop_test(tests, test_docs_tables, 0, STEP_KIND_COUNT);
	tcase_add_loop_test(tests, test_docs_examples, 0, STEP_KIND_COUNT);
	tcase_add_test(tests, test_key_by_hashes_the_key);
	tcase_add_test(tests, test_enrich_without_key_and_time);
	tcase_add_loop_test(tests, test_batch_by_time, 0, 2);
	tcase_add_loop_test(tests, test_batch_due_before_a_record, 0, 2);
	tcase_add_loop_test(tests, test_batch_is_never_late, 0, 2);
	tcase_add_test(tests, test_batch_by_key);
	tcase_add_test(tests, test_batch_without_keys);
	tcase_add_loop_test(tests, test_batch_ends_for_every_key, 0, 2);
	tcase_add_loop_test(tests, test_batch_time_at_the_limits, 0, 2);
	tcase_add_loop_test(tests, test_batch_outlives_its_process, 0, 2);
	tcase_add_loop_test(tests, test_batch_forgets_what_was_undone, 0, 2);
	tcase_add_test(tests, test_batch_of_two_subtasks);
	tcase_add_loop_test(tests, test_batch_restored_from_nonsense, 0, 6);
	tcase_add_test(tests, test_aggregate_by_event_time);
	tcase_add_test(tests, test_aggregate_keeps_totals);
	tcase_add_loop_test(tests, test_aggregate_by_processing_time, 0, 2);
	tcase_add_test(tests, test_aggregate_takes_fields_over);
	tcase_add_test(tests, test_aggregate_fails_as_a_whole);
	tcase_add_test(tests, test_aggregate_against_a_model);
	tcase_add_loop_test(tests, test_dedup_outlives_its_process, 0, 2);
	tcase_add_loop_test(tests, test_dedup_forgets, 0, 2);
	tcase_add_loop_test(tests, test_full, 0, 4);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(steps_suite)
