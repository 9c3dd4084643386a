/*
 * Tests of shared/wire.h and shared/utf8.c: edge by edge, and against protobuf-c over random messages. WIRE_SEED=n takes
 * other messages than the usual ones. The corpus in tests/corpus/wire is replayed by tests/fuzz/fuzz_wire.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/frame.h"
#include "shared/wire.h"
#include "tests/check_main.h"
#include "tests/wire_agree.h"
#include "tests/wire_messages.h"

#define BYTES(...) ((struct view){(const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})})
#define TEXT(literal) ((struct view){(const uint8_t *)(literal), sizeof(literal) - 1})

/* Fails with the bytes at hand when the two parsers disagree. */
static struct agreement must_agree(enum surface surface, struct view message)
{
	struct agreement agreement = wire_agree(surface, message);
	if (agreement.difference == NULL)
		return agreement;
	fprintf(stderr, "surface %d:", (int)surface);
	for (size_t i = 0; i < message.size; i++)
		fprintf(stderr, " %02x", message.data[i]);
	fprintf(stderr, "\n");
	ck_abort_msg("%s", agreement.difference);
}

/* ---- UTF-8 ---- */

START_TEST(utf8_known)
{
	static const struct {
		struct view text;
		bool valid;
	} cases[] = {
	    {TEXT(""), true},
	    {TEXT("plain"), true},
	    {TEXT("exactly8"), true},
	    {TEXT("more than eight bytes of plain text"), true},
	    {TEXT("nul \0 inside"), true},
	    {TEXT("\xc3\xa4"), true},
	    {TEXT("1234567\xc3\xa4"), true},
	    {TEXT("\xed\x9f\xbf\xee\x80\x80"), true},
	    {TEXT("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"), true},
	    {TEXT("\x80"), false},
	    {TEXT("12345678\x80"), false},
	    {TEXT("\x80"
		  "12345678"),
	     false},
	    {TEXT("\xc3"), false},
	    {TEXT("1234567\xc3"), false},
	    {TEXT("\xc0\x80"), false},
	    {TEXT("\xc1\xbf"), false},
	    {TEXT("\xe0\x9f\xbf"), false},
	    {TEXT("\xed\xa0\x80"), false},
	    {TEXT("\xe2\x82"), false},
	    {TEXT("\xf0\x8f\xbf\xbf"), false},
	    {TEXT("\xf4\x90\x80\x80"), false},
	    {TEXT("\xf5\x80\x80\x80"), false},
	    {TEXT("\xff"), false},
	};
	ck_assert_int_eq(utf8_valid(cases[_i].text), cases[_i].valid);
}
END_TEST

/* Whether three bytes are well-formed, by the code points they stand for. */
static bool three_valid(const uint8_t *at)
{
	size_t i = 0;
	while (i < 3) {
		if (at[i] < 0x80) {
			i++;
		} else if (i < 2 && at[i] >= 0xc2 && at[i] < 0xe0 && at[i + 1] >> 6 == 2) {
			i += 2;
		} else if (i == 0 && at[0] >> 4 == 14 && at[1] >> 6 == 2 && at[2] >> 6 == 2) {
			uint32_t point = (at[0] & 15u) << 12 | (at[1] & 63u) << 6 | (at[2] & 63u);
			return point >= 0x800 && (point < 0xd800 || point > 0xdfff);
		} else {
			return false;
		}
	}
	return true;
}

START_TEST(utf8_all_threes)
{
	uint8_t text[12] = "xxxxxxxxxxxx";
	for (uint32_t value = 0; value < 1u << 24; value += value % 5 == 0 ? 3 : 1) {
		uint8_t *at = text + (size_t)(value % 3) * 4;
		memcpy(text, "xxxxxxxxxxxx", sizeof(text));
		at[0] = (uint8_t)(value >> 16);
		at[1] = (uint8_t)(value >> 8);
		at[2] = (uint8_t)value;
		if (utf8_valid((struct view){text, sizeof(text)}) != three_valid(at))
			ck_abort_msg("%02x %02x %02x", at[0], at[1], at[2]);
	}
}
END_TEST

START_TEST(utf8_repaired)
{
	static const struct {
		const char *text, *repaired;
	} cases[] = {
	    {"", ""},
	    {"plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\x89", "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x8c\x89"},
	    {"cut \xe2\x82", "cut ??"},
	    {"\xff\xc3\xa4\x80!", "?\xc3\xa4?!"},
	    {"\xed\xa0\x80", "???"},
	};
	char text[64];
	snprintf(text, sizeof(text), "%s", cases[_i].text);
	utf8_repair(text);
	ck_assert_str_eq(text, cases[_i].repaired);
	ck_assert(utf8_valid(view_of(text)));
}
END_TEST

/* ---- Field by field ---- */

START_TEST(next_reads_each_type)
{
	struct view message = BYTES(0x08, 0x96, 0x01, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 2, 'h', 'i', 0x25, 4, 3, 2, 1,
				    0xf8, 0xff, 0xff, 0xff, 0x0f, 0);
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, message);
	ck_assert(wire_next(&reader, &field) && field.number == 1 && field.type == WIRE_VARINT && field.scalar == 150);
	ck_assert(wire_next(&reader, &field) && field.number == 2 && field.type == WIRE_FIXED64);
	ck_assert_uint_eq(field.scalar, 0x0807060504030201);
	ck_assert(wire_next(&reader, &field) && field.number == 3 && view_equal(field.bytes, TEXT("hi")));
	ck_assert(wire_next(&reader, &field) && field.number == 4 && field.scalar == 0x01020304);
	ck_assert(wire_next(&reader, &field) && field.number == (1 << 29) - 1 && field.scalar == 0);
	ck_assert(!wire_next(&reader, &field));
	ck_assert(!reader.malformed);
}
END_TEST

START_TEST(next_reads_varints)
{
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, BYTES(0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01));
	ck_assert(wire_next(&reader, &field) && field.scalar == UINT64_MAX);
	wire_reader_init(&reader, BYTES(0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7e));
	ck_assert(wire_next(&reader, &field) && field.scalar == 0); /* beyond the 64th bit */
	wire_reader_init(&reader, BYTES(0x88, 0x80, 0x00, 0x85, 0x00));
	ck_assert(wire_next(&reader, &field) && field.number == 1 && field.scalar == 5); /* longer than needed */
	wire_reader_init(&reader, (struct view){NULL, 0});
	ck_assert(!wire_next(&reader, &field) && !reader.malformed);
}
END_TEST

START_TEST(next_refuses)
{
	const struct view cases[] = {
	    BYTES(0x08),                                                                   /* no value */
	    BYTES(0x88),                                                                   /* half a key */
	    BYTES(0x08, 0x80),                                                             /* half a varint */
	    BYTES(0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01), /* eleven bytes */
	    BYTES(0x0a),                                                                   /* no length */
	    BYTES(0x0a, 0x01),                                                             /* no bytes */
	    BYTES(0x0a, 0x80),                                                             /* half a length */
	    BYTES(0x0a, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 'x'),                          /* a length of six bytes */
	    BYTES(0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'),                                /* 4 GiB */
	    BYTES(0x0a, 0x81, 0x80, 0x80, 0x80, 0x10, 'x'),                                /* 64 GiB and one */
	    BYTES(0x0b),                                                                   /* a group */
	    BYTES(0x0c),                                                                   /* its end */
	    BYTES(0x0e),                                                                   /* type 6 */
	    BYTES(0x0f),                                                                   /* type 7 */
	    BYTES(0x09, 1, 2, 3, 4, 5, 6, 7),                                              /* seven of eight */
	    BYTES(0x0d, 1, 2, 3),                                                          /* three of four */
	    BYTES(0x00, 0x00),                                                             /* number 0 */
	    BYTES(0x80, 0x80, 0x00, 0x00),                                                 /* the same, longer */
	    BYTES(0xf8, 0xff, 0xff, 0xff, 0x1f, 0x00),                                     /* number 2^29 */
	    BYTES(0x88, 0x80, 0x80, 0x80, 0x80, 0x00, 0x00),                               /* a key of six bytes */
	};
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, cases[_i]);
	ck_assert(!wire_next(&reader, &field));
	ck_assert(reader.malformed);
	ck_assert(!wire_next(&reader, &field)); /* it stays so */
	ck_assert_int_eq(wire_parse_empty(cases[_i]), WIRE_MALFORMED);
	must_agree(SURFACE_RECORD, cases[_i]);
	must_agree(SURFACE_TO_WORKER, cases[_i]);
}
END_TEST

/* ---- Records ---- */

START_TEST(record_all_fields)
{
	struct view message = BYTES(0x0a, 2, 'p', 'q', 0x12, 6, 0x0a, 1, 'k', 0x12, 1, 'v', 0x18, 5, 0x22, 1, 'y', 0x2d,
				    0xfe, 0xff, 0xff, 0xff, 0x30, 7, 0x38, 8, 0x40, 9);
	struct wire_batch batch = {0};
	ck_assert_int_eq(wire_parse_record(message, WIRE_RECORD, &batch), WIRE_OK);
	const struct wire_record *record = &batch.records[0];
	ck_assert(view_equal(record->payload, TEXT("pq")));
	ck_assert(record->keyed && view_equal(record->key, TEXT("y")));
	ck_assert_int_eq(record->timestamp, 5);
	ck_assert_int_eq(record->key_hash, -2);
	ck_assert_uint_eq(record->key_group, 7);
	ck_assert_uint_eq(record->input, 8);
	ck_assert_uint_eq(record->route, 9);
	ck_assert_uint_eq(record->header_count, 1);
	ck_assert(view_equal(record->headers[0].key, TEXT("k")));
	ck_assert(view_equal(record->headers[0].value, TEXT("v")));
	must_agree(SURFACE_RECORD, message);
	wire_batch_free(&batch);
}
END_TEST

START_TEST(record_defaults)
{
	struct wire_batch batch = {0};
	ck_assert_int_eq(wire_parse_record((struct view){NULL, 0}, WIRE_RECORD, &batch), WIRE_OK);
	ck_assert_int_eq(wire_parse_record(BYTES(0x22, 0), WIRE_RECORD, &batch), WIRE_OK);
	ck_assert_uint_eq(batch.count, 2);
	ck_assert(!batch.records[0].keyed && batch.records[0].payload.size == 0);
	ck_assert(batch.records[0].timestamp == WIRE_NO_TIMESTAMP);
	ck_assert(batch.records[1].keyed && batch.records[1].key.size == 0); /* an empty key is a key */
	ck_assert_int_eq(wire_parse_record((struct view){NULL, 0}, WIRE_MESSAGE, &batch), WIRE_OK);
	ck_assert(batch.records[2].timestamp == 0); /* whose contract has no absent time */
	wire_batch_clear(&batch);
	ck_assert(batch.count == 0 && batch.header_count == 0 && batch.capacity > 0);
	wire_batch_free(&batch);
}
END_TEST

START_TEST(record_last_one_wins)
{
	struct view message =
	    BYTES(0x0a, 1, 'a', 0x18, 1, 0x22, 1, 'x', 0x0a, 1, 'b', 0x18, 2, 0x22, 0, 0x40, 3, 0x40, 4);
	struct wire_batch batch = {0};
	ck_assert_int_eq(wire_parse_record(message, WIRE_RECORD, &batch), WIRE_OK);
	ck_assert(view_equal(batch.records[0].payload, TEXT("b")));
	ck_assert(batch.records[0].keyed && batch.records[0].key.size == 0);
	ck_assert(batch.records[0].timestamp == 2 && batch.records[0].route == 4);
	must_agree(SURFACE_RECORD, message);
	wire_batch_free(&batch);
}
END_TEST

START_TEST(record_refuses)
{
	const struct view cases[] = {
	    BYTES(0x08, 0),                                 /* payload as a number */
	    BYTES(0x10, 0),                                 /* headers as a number */
	    BYTES(0x1a, 0),                                 /* timestamp as bytes */
	    BYTES(0x20, 0),                                 /* key as a number */
	    BYTES(0x28, 0),                                 /* hash as a number */
	    BYTES(0x35, 0, 0, 0, 0),                        /* group as fixed */
	    BYTES(0x3a, 0),                                 /* input as bytes */
	    BYTES(0x42, 0),                                 /* route as bytes */
	    BYTES(0x12, 2, 0x08, 0),                        /* header's key as a number */
	    BYTES(0x12, 2, 0x10, 0),                        /* header's value as a number */
	    BYTES(0x12, 3, 0x0a, 2, 'k'),                   /* a key longer than its header */
	    BYTES(0x12, 3, 0x0a, 1, 0xff),                  /* not UTF-8 */
	    BYTES(0x12, 6, 0x0a, 1, 'k', 0x12, 1, 0xff),    /* not UTF-8 */
	    BYTES(0x12, 1, 0x0a),                           /* half a header */
	    BYTES(0x4b),                                    /* an unknown group */
	    BYTES(0x4a, 2, 0),                              /* an unknown field cut short */
	    BYTES(0x0a, 1, 'a', 0x12, 4, 0x0a, 0, 0x12, 1), /* good, then not */
	};
	struct wire_batch batch = {0};
	ck_assert_int_eq(wire_parse_record(BYTES(0x12, 3, 0x0a, 1, 'k'), WIRE_RECORD, &batch), WIRE_OK);
	ck_assert_int_eq(wire_parse_record(cases[_i], WIRE_RECORD, &batch), WIRE_MALFORMED);
	ck_assert(batch.count == 1 && batch.header_count == 1); /* as before */
	must_agree(SURFACE_RECORD, cases[_i]);
	wire_batch_free(&batch);
}
END_TEST

/* Appends a header entry of a record. */
static void add_header(struct bytes *out, const char *key, const char *value)
{
	bytes_add_varint(out, 0x12);
	bytes_add_varint(out, strlen(key) + strlen(value) + 4);
	bytes_add_varint(out, 0x0a);
	bytes_add_varint(out, strlen(key));
	bytes_add(out, key, strlen(key));
	bytes_add_varint(out, 0x12);
	bytes_add_varint(out, strlen(value));
	bytes_add(out, value, strlen(value));
}

/* Few headers are compared one with all, many through a table: both must find those given twice. */
START_TEST(headers_given_twice)
{
	static const unsigned distinct[] = {1, 3, 8, 9, 100, 500};
	struct bytes message = {0};
	struct wire_batch batch = {0};
	char key[16], value[16];
	for (unsigned i = 0; i < 2 * distinct[_i]; i++) {
		snprintf(key, sizeof(key), "k%u", i * 7 % distinct[_i]);
		snprintf(value, sizeof(value), "v%u", i);
		add_header(&message, key, value);
	}
	ck_assert_int_eq(wire_parse_record(bytes_view(&message), WIRE_RECORD, &batch), WIRE_OK);
	ck_assert_uint_eq(batch.header_count, distinct[_i]);
	ck_assert_uint_eq(batch.records[0].header_count, distinct[_i]);
	for (unsigned i = 0; i < distinct[_i]; i++) {
		snprintf(key, sizeof(key), "k%u", i * 7 % distinct[_i]);
		snprintf(value, sizeof(value), "v%u", i + distinct[_i]);
		ck_assert(view_equal(batch.headers[i].key, view_of(key)));
		ck_assert(view_equal(batch.headers[i].value, view_of(value)));
	}
	must_agree(SURFACE_RECORD, bytes_view(&message));
	wire_batch_free(&batch);
	bytes_free(&message);
}
END_TEST

START_TEST(headers_too_many)
{
	struct bytes message = {0};
	struct wire_batch batch = {0};
	char key[16];
	for (unsigned i = 0; i < WIRE_HEADERS_MAX; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		add_header(&message, key, "");
	}
	ck_assert_int_eq(wire_parse_record(bytes_view(&message), WIRE_RECORD, &batch), WIRE_OK);
	ck_assert_uint_eq(batch.records[0].header_count, WIRE_HEADERS_MAX);
	must_agree(SURFACE_RECORD, bytes_view(&message));
	add_header(&message, "k1", "one more, given twice or not");
	ck_assert_int_eq(wire_parse_record(bytes_view(&message), WIRE_RECORD, &batch), WIRE_TOO_MANY_HEADERS);
	ck_assert(batch.count == 1 && batch.header_count == WIRE_HEADERS_MAX);
	ck_assert(must_agree(SURFACE_RECORD, bytes_view(&message)).excused);
	wire_batch_free(&batch);
	bytes_free(&message);
}
END_TEST

/* The limit is per record: headers of one do not count against the next. Records find theirs though the array has grown since. */
START_TEST(headers_of_many_records)
{
	struct bytes record = {0}, body = {0};
	struct wire_batch batch = {0};
	add_header(&record, "a", "1");
	add_header(&record, "b", "2");
	for (int i = 0; i < 5000; i++) {
		bytes_add_varint(&body, 0x0a);
		bytes_add_varint(&body, record.size);
		bytes_add(&body, record.data, record.size);
	}
	ck_assert_int_eq(wire_parse_records(bytes_view(&body), &batch, NULL), WIRE_OK);
	ck_assert_uint_eq(batch.count, 5000);
	ck_assert_uint_eq(batch.header_count, 10000);
	for (uint32_t i = 0; i < batch.count; i++)
		ck_assert(batch.records[i].headers == batch.headers + 2 * i && batch.records[i].header_count == 2 &&
			  batch.records[i].ordinal == i && view_equal(batch.records[i].headers[1].value, TEXT("2")));
	wire_batch_free(&batch);
	bytes_free(&body);
	bytes_free(&record);
}
END_TEST

START_TEST(records_and_more)
{
	struct wire_batch batch = {0};
	bool more = true;
	ck_assert_int_eq(wire_parse_records(BYTES(0x0a, 0, 0x0a, 0), &batch, &more), WIRE_OK);
	ck_assert(!more && batch.count == 2);
	ck_assert_int_eq(wire_parse_records(BYTES(0x10, 1, 0x0a, 0), &batch, &more), WIRE_OK);
	ck_assert(more && batch.count == 3);
	ck_assert_int_eq(wire_parse_records(BYTES(0x0a, 0, 0x08, 0), &batch, &more), WIRE_MALFORMED);
	ck_assert_uint_eq(batch.count, 3); /* as before */
	ck_assert_int_eq(wire_parse_records(BYTES(0x12, 0), &batch, &more), WIRE_MALFORMED);
	ck_assert_int_eq(wire_parse_records(BYTES(0x12, 0), &batch, NULL), WIRE_OK); /* unknown to a Batch */
	ck_assert_int_eq(wire_parse_records((struct view){NULL, 0}, &batch, NULL), WIRE_OK);
	wire_batch_free(&batch);
}
END_TEST

/* Records in runs: up to a number, and up to what is wrong, by the record's fault or the body's. */
START_TEST(records_in_runs)
{
	struct wire_batch batch = {0};
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, BYTES(0x0a, 2, 0x18, 1, 0x12, 0, 0x0a, 2, 0x18, 2, 0x0a, 5, 0x0a, 3, 'a', 'b', 'c',
					0x0a, 1, 0x18));
	ck_assert_int_eq(wire_parse_run(&reader, &batch, 1, 4), WIRE_OK);
	ck_assert(batch.count == 1 && batch.records[0].timestamp == 1);
	ck_assert_int_eq(wire_parse_run(&reader, &batch, 1, 4), WIRE_OK); /* there is one already */
	ck_assert_int_eq(wire_parse_run(&reader, &batch, 9, 4), WIRE_TOO_LARGE);
	ck_assert(batch.count == 2 && batch.records[1].timestamp == 2 && !reader.malformed);
	ck_assert_int_eq(wire_parse_run(&reader, &batch, 9, 5), WIRE_MALFORMED);
	ck_assert(batch.count == 3 && !reader.malformed);
	ck_assert(wire_next(&reader, &field) && field.number == 1 &&
		  field.bytes.size == 1); /* it stands before that one */
	ck_assert_int_eq(wire_parse_run(&reader, &batch, 9, 5), WIRE_OK);
	wire_reader_init(&reader, BYTES(0x0a, 0, 0x0a, 1));
	wire_batch_clear(&batch);
	ck_assert_int_eq(wire_parse_run(&reader, &batch, 9, 5), WIRE_MALFORMED);
	ck_assert(batch.count == 1 && reader.malformed);
	wire_batch_free(&batch);
}
END_TEST

/* A record that ends with its time, in a Batch in which so many bytes follow; then the same, but for the last byte of the time, which the
 * record does not count as its own. */
static void must_read_among(const struct bytes *record, size_t behind, int64_t time)
{
	for (size_t cut = 0; cut < 2; cut++) {
		struct bytes body = {0};
		struct wire_batch batch = {0};
		bytes_add_varint(&body, 0x0a);
		bytes_add_varint(&body, record->size - cut);
		bytes_add(&body, record->data, record->size - cut);
		for (size_t i = 0; i < behind / 2; i++)
			bytes_add(&body, "\x0a\0", 2);
		if (cut) {
			ck_assert_int_eq(wire_parse_records(bytes_view(&body), &batch, NULL), WIRE_MALFORMED);
		} else {
			ck_assert_int_eq(wire_parse_records(bytes_view(&body), &batch, NULL), WIRE_OK);
			ck_assert(batch.count == 1 + behind / 2 && batch.records[0].timestamp == time);
		}
		wire_batch_free(&batch);
		bytes_free(&body);
	}
}

/* Times of each length, at each distance from the record's end and the message's, whole and cut. */
START_TEST(times_of_each_length)
{
	for (unsigned length = 1; length <= 10; length++) {
		for (size_t before = 0; before < 10; before++) {
			for (size_t behind = 0; behind < 10; behind++) {
				struct bytes message = {0};
				struct wire_batch batch = {0};
				uint64_t time =
				    length < 10 ? (UINT64_C(1) << (7 * (length - 1))) | (length > 1) : UINT64_MAX;
				bytes_add_varint(&message, 0x0a);
				bytes_add_varint(&message, before);
				bytes_add(&message, "0123456789", before);
				bytes_add_varint(&message, 0x18);
				bytes_add_varint(&message, time);
				size_t whole = message.size;
				bytes_add_varint(&message, 0x22);
				bytes_add_varint(&message, behind);
				bytes_add(&message, "0123456789", behind);
				ck_assert_int_eq(wire_parse_record(bytes_view(&message), WIRE_RECORD, &batch), WIRE_OK);
				ck_assert(batch.records[0].timestamp == (int64_t)time);
				ck_assert_uint_eq(batch.records[0].key.size, behind);
				message.size = whole;
				ck_assert_int_eq(wire_parse_record(bytes_view(&message), WIRE_RECORD, &batch), WIRE_OK);
				ck_assert(batch.records[1].timestamp == (int64_t)time);
				message.size = whole - 1;
				ck_assert_int_eq(wire_parse_record(bytes_view(&message), WIRE_RECORD, &batch),
						 WIRE_MALFORMED);
				message.size = whole;
				must_read_among(&message, behind, (int64_t)time);
				wire_batch_free(&batch);
				bytes_free(&message);
			}
		}
	}
}
END_TEST

/* ---- Envelopes and bodies ---- */

START_TEST(envelope_fields)
{
	struct view message = BYTES(0x08, 7, 0x10, 9, 0x3a, 2, 0x08, 5);
	struct wire_to_worker out;
	ck_assert_int_eq(wire_parse_to_worker(message, &out), WIRE_OK);
	ck_assert(out.seq == 7 && out.processing_time_ms == 9 && out.kind == TO_WORKER_WATERMARK);
	ck_assert(out.body.data == message.data + 6 && out.body.size == 2);
	ck_assert_int_eq(wire_parse_to_worker((struct view){NULL, 0}, &out), WIRE_OK);
	ck_assert(out.kind == 0 && out.seq == 0);
	ck_assert_int_eq(wire_parse_to_worker(BYTES(0x6a, 0), &out), WIRE_OK); /* 13: no kind that we know */
	ck_assert_uint_eq(out.kind, 0);
	ck_assert_int_eq(wire_parse_to_worker(BYTES(0x08, 2, 0x22, 0), &out), WIRE_OK);
	ck_assert(out.seq == 2 && out.kind == TO_WORKER_RESTORE_CHUNK && out.body.size == 0);
	ck_assert_int_eq(wire_parse_to_worker(BYTES(0x2a, 2, 0x08, 9), &out), WIRE_OK);
	ck_assert(out.kind == TO_WORKER_RESTORE_END && out.body.size == 2);
	ck_assert_int_eq(wire_parse_from_worker(BYTES(0x4a, 0), &out), WIRE_OK);
	ck_assert_uint_eq(out.kind, FROM_WORKER_STATE_DELTA);
	ck_assert_int_eq(wire_parse_from_worker(BYTES(0x22, 0), &out), WIRE_OK);
	ck_assert_uint_eq(out.kind, FROM_WORKER_RESTORE_ACK);
	ck_assert_int_eq(wire_parse_from_worker(BYTES(0x08, 3, 0x5a, 0), &out), WIRE_OK);
	ck_assert(out.seq == 3 && out.kind == FROM_WORKER_END_ACK);
}
END_TEST

START_TEST(envelope_refuses)
{
	const struct view cases[] = {
	    BYTES(0x0a, 0),          /* seq as bytes */
	    BYTES(0x15, 0, 0, 0, 0), /* time as fixed */
	    BYTES(0x18, 0),          /* Open as a number */
	    BYTES(0x4a, 0, 0x4a, 0), /* twice the same kind */
	    BYTES(0x32, 0, 0x3a, 0), /* two kinds */
	    BYTES(0x32, 5, 0x0a, 0), /* longer than the message */
	};
	struct wire_to_worker out;
	ck_assert_int_eq(wire_parse_to_worker(cases[_i], &out), WIRE_MALFORMED);
	must_agree(SURFACE_TO_WORKER, cases[_i]);
}
END_TEST

START_TEST(bodies)
{
	uint64_t number;
	bool flag;
	struct view text, hello = BYTES(0x0a, 2, 'h', 'i');
	ck_assert(wire_parse_number(BYTES(0x08, 1, 0x08, 5, 0x12, 0), &number) == WIRE_OK && number == 5);
	ck_assert(wire_parse_number((struct view){NULL, 0}, &number) == WIRE_OK && number == 0);
	ck_assert(wire_parse_number(BYTES(0x0a, 0), &number) == WIRE_MALFORMED);
	ck_assert(wire_parse_flag(BYTES(0x08, 2), &flag) == WIRE_OK && flag);
	ck_assert(wire_parse_flag((struct view){NULL, 0}, &flag) == WIRE_OK && !flag);
	ck_assert(wire_parse_text(hello, &text) == WIRE_OK && view_equal(text, TEXT("hi")));
	ck_assert(wire_parse_text((struct view){NULL, 0}, &text) == WIRE_OK && text.size == 0);
	ck_assert(wire_parse_text(BYTES(0x0a, 1, 0xff), &text) == WIRE_MALFORMED);
	ck_assert(wire_parse_text(BYTES(0x08, 1), &text) == WIRE_MALFORMED);
	ck_assert(wire_parse_empty((struct view){NULL, 0}) == WIRE_OK);
	ck_assert(wire_parse_empty(BYTES(0x08, 1)) == WIRE_OK);
}
END_TEST

START_TEST(results_have_words)
{
	for (int result = WIRE_OK; result <= WIRE_NO_MEMORY; result++)
		ck_assert_str_ne(wire_result_text((enum wire_result)result), "?");
}
END_TEST

/* ---- Unary requests ---- */

START_TEST(unary_fields)
{
	struct view process = BYTES(0x0a, 1, 'x', 0x10, 3);
	struct view watermark = BYTES(0x08, 9, 0x12, 3, 0x0a, 1, 'k', 0x18, 2);
	struct view add = BYTES(0x0a, 0, 0x10, 1, 0x1a, 5, 0x0a, 1, 'p', 0x10, 8);
	struct view trigger = BYTES(0x0a, 2, 0x10, 8, 0x10, 1);
	struct wire_unary out;
	ck_assert_int_eq(wire_parse_unary(FRAME_PROCESS_MESSAGE, process, &out), WIRE_OK);
	ck_assert(out.segment == 3 && view_equal(out.message, TEXT("x")));
	ck_assert_int_eq(wire_parse_unary(FRAME_PROCESS_WATERMARK, watermark, &out), WIRE_OK);
	ck_assert(out.segment == 2 && out.timestamp == 9 && out.message.data == NULL);
	ck_assert_int_eq(wire_parse_unary(FRAME_ADD_TO_WINDOW, add, &out), WIRE_OK);
	ck_assert(out.segment == 1 && out.message.data != NULL && out.message.size == 0);
	ck_assert(view_equal(out.window_key, TEXT("p")) && out.window_start == 8);
	ck_assert_int_eq(wire_parse_unary(FRAME_TRIGGER_WINDOW, trigger, &out), WIRE_OK);
	ck_assert(out.segment == 1 && out.window_start == 8 && out.window_key.size == 0);
	ck_assert_int_eq(wire_parse_unary(FRAME_PROCESS_MESSAGE, (struct view){NULL, 0}, &out), WIRE_OK);
	ck_assert(out.segment == 0 && out.message.data == NULL);
}
END_TEST

START_TEST(unary_refuses)
{
	const struct {
		unsigned kind;
		enum surface surface;
		struct view message;
	} cases[] = {
	    {FRAME_PROCESS_MESSAGE, SURFACE_PROCESS_MESSAGE, BYTES(0x08, 0)},
	    {FRAME_PROCESS_MESSAGE, SURFACE_PROCESS_MESSAGE, BYTES(0x12, 0)},
	    {FRAME_PROCESS_MESSAGE, SURFACE_PROCESS_MESSAGE, BYTES(0x0a, 0, 0x0a, 0)},
	    {FRAME_PROCESS_WATERMARK, SURFACE_PROCESS_WATERMARK, BYTES(0x0a, 0)},
	    {FRAME_PROCESS_WATERMARK, SURFACE_PROCESS_WATERMARK, BYTES(0x12, 1, 0x08)},
	    {FRAME_PROCESS_WATERMARK, SURFACE_PROCESS_WATERMARK, BYTES(0x12, 3, 0x0a, 1, 0xff)},
	    {FRAME_ADD_TO_WINDOW, SURFACE_ADD_TO_WINDOW, BYTES(0x1a, 2, 0x08, 0)},
	    {FRAME_ADD_TO_WINDOW, SURFACE_ADD_TO_WINDOW, BYTES(0x1a, 3, 0x0a, 1, 0xff)},
	    {FRAME_ADD_TO_WINDOW, SURFACE_ADD_TO_WINDOW, BYTES(0x1a, 0, 0x1a, 0)},
	    {FRAME_TRIGGER_WINDOW, SURFACE_TRIGGER_WINDOW, BYTES(0x0a, 2, 0x12, 0)},
	};
	struct wire_unary out;
	ck_assert_int_eq(wire_parse_unary(cases[_i].kind, cases[_i].message, &out), WIRE_MALFORMED);
	must_agree(cases[_i].surface, cases[_i].message);
}
END_TEST

/* ---- State ---- */

START_TEST(entry_all_fields)
{
	struct view body = BYTES(0x0a, 24, 0x08, 3, 0x10, 7, 0x1d, 0xfe, 0xff, 0xff, 0xff, 0x22, 1, 'k', 0x2a, 2, 's',
				 't', 0x32, 1, 'v', 0x40, 1, 0x98, 0x01, 5, /* next: */ 0x0a, 2, 0x38, 1);
	struct wire_reader reader;
	struct wire_entry entry;
	struct wire_entries entries;
	ck_assert_int_eq(wire_parse_entries(body, &entries), WIRE_OK);
	ck_assert_uint_eq(entries.count, 2);
	ck_assert_uint_eq(entries.computed, wire_checksum(body)); /* nothing else is in it */
	wire_reader_init(&reader, body);
	ck_assert(wire_next_entry(&reader, &entry));
	ck_assert(entry.state == 3 && entry.key_group == 7 && entry.key_hash == -2 && entry.more && !entry.removed);
	ck_assert(view_equal(entry.key, TEXT("k")) && view_equal(entry.sub_key, TEXT("st")));
	ck_assert(view_equal(entry.value, TEXT("v")));
	ck_assert(wire_next_entry(&reader, &entry));
	ck_assert(entry.removed && !entry.more && entry.key.size == 0 && entry.value.size == 0);
	ck_assert(!wire_next_entry(&reader, &entry) && !reader.malformed);
	must_agree(SURFACE_STATE_DELTA, body);
}
END_TEST

/* No order of fields is asked for, and of one that comes twice the last counts. */
START_TEST(entry_in_any_order)
{
	struct view body = BYTES(0x0a, 18, 0x32, 1, 'v', 0x22, 1, 'a', 0x22, 1, 'k', 0x1d, 0xfe, 0xff, 0xff, 0xff, 0x10,
				 7, 0x08, 3, /* next: a longer key of a field */ 0x0a, 5, 0x08, 1, 0x90, 0x00, 7);
	struct wire_reader reader;
	struct wire_entry entry;
	wire_reader_init(&reader, body);
	ck_assert(wire_next_entry(&reader, &entry));
	ck_assert(entry.state == 3 && entry.key_group == 7 && entry.key_hash == -2 && !entry.more && !entry.removed);
	ck_assert(view_equal(entry.key, TEXT("k")) && view_equal(entry.value, TEXT("v")) && entry.sub_key.size == 0);
	ck_assert(wire_next_entry(&reader, &entry));
	ck_assert(entry.state == 1 && entry.key_group == 7 && entry.key.size == 0);
	ck_assert(!wire_next_entry(&reader, &entry) && !reader.malformed);
	must_agree(SURFACE_STATE_DELTA, body);
}
END_TEST

/* The checksum is that of XXH3-64 over the entries alone, wherever they stand in the body. */
START_TEST(entries_checksum)
{
	struct view together = BYTES(0x0a, 2, 0x08, 1, 0x0a, 2, 0x08, 2);
	struct view apart = BYTES(0x0a, 2, 0x08, 1, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 2, 0x08, 2, 0x98, 0x01, 5);
	struct wire_entries entries;
	ck_assert_int_eq(wire_parse_entries(apart, &entries), WIRE_OK);
	ck_assert_uint_eq(entries.count, 2);
	ck_assert_uint_eq(entries.checksum, 0x0807060504030201);
	ck_assert_uint_eq(entries.computed, wire_checksum(together));
	ck_assert_int_eq(wire_parse_entries(together, &entries), WIRE_OK);
	ck_assert_uint_eq(entries.computed, wire_checksum(together));
	ck_assert_int_eq(wire_parse_entries((struct view){NULL, 0}, &entries), WIRE_OK);
	ck_assert_uint_eq(entries.computed, 0x2d06800538d394c2); /* of nothing, as the hash is specified */
	ck_assert_uint_eq(entries.count, 0);
	must_agree(SURFACE_STATE_DELTA, apart);
}
END_TEST

START_TEST(entries_refuse)
{
	const struct view outside[] = {
	    BYTES(0x08, 0),                   /* an entry as a number */
	    BYTES(0x10, 0),                   /* the checksum as a varint */
	    BYTES(0x11, 1, 2, 3, 4, 5, 6, 7), /* half a checksum */
	    BYTES(0x0a, 2, 0x08),             /* an entry longer than the body */
	    BYTES(0x0a),                      /* half an entry's key */
	    BYTES(0x1b),                      /* a group */
	};
	const struct view inside[] = {
	    BYTES(0x0a, 2, 0x0a, 0),       /* state as bytes */
	    BYTES(0x0a, 2, 0x12, 0),       /* key group as bytes */
	    BYTES(0x0a, 2, 0x18, 0),       /* hash as a varint */
	    BYTES(0x0a, 4, 0x1d, 0, 0, 0), /* three of four */
	    BYTES(0x0a, 2, 0x20, 0),       /* key as a number */
	    BYTES(0x0a, 2, 0x28, 0),       /* sub_key */
	    BYTES(0x0a, 2, 0x30, 0),       /* value */
	    BYTES(0x0a, 2, 0x3a, 0),       /* removed as bytes */
	    BYTES(0x0a, 2, 0x42, 0),       /* more as bytes */
	    BYTES(0x0a, 3, 0x32, 2, 'v'),  /* a value longer than its entry */
	    BYTES(0x0a, 1, 0x32),          /* half a field */
	};
	struct wire_entries entries;
	struct wire_reader reader;
	struct wire_entry entry;
	for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		ck_assert_int_eq(wire_parse_entries(outside[i], &entries), WIRE_MALFORMED);
		must_agree(SURFACE_STATE_DELTA, outside[i]);
	}
	for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++) {
		ck_assert_int_eq(wire_parse_entries(inside[i], &entries), WIRE_OK);
		wire_reader_init(&reader, inside[i]);
		ck_assert(!wire_next_entry(&reader, &entry) && reader.malformed);
		ck_assert(!wire_next_entry(&reader, &entry));
		must_agree(SURFACE_STATE_DELTA, inside[i]);
	}
}
END_TEST

/* What is written for a room fits it, and is a whole entry or as large a part as it can be but for a few bytes. */
START_TEST(entry_parts)
{
	uint8_t buffer[512], value[400];
	struct wire_entry entry = {
	    .key = TEXT("key"), .sub_key = TEXT("sub"), .state = 300, .key_group = 70, .key_hash = 9};
	memset(value, 'v', sizeof(value));
	entry.value = (struct view){value, sizeof(value)};
	for (uint64_t room = 0; room < wire_entry_size(&entry); room++) {
		uint64_t bytes = wire_entry_room(&entry, room);
		struct wire_entry part = entry;
		ck_assert_uint_lt(bytes, sizeof(value));
		if (bytes == 0) {
			ck_assert_uint_le(room, 40);
			continue;
		}
		part.value.size = bytes;
		part.more = true;
		struct wire_writer writer = {.at = buffer, .end = buffer + room};
		wire_put_entry(&writer, &part);
		ck_assert(!writer.overflow);
		ck_assert_uint_le((size_t)(writer.end - writer.at), 12);
	}
}
END_TEST

START_TEST(entries_written)
{
	uint8_t buffer[128];
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	struct wire_entry first = {.key = TEXT("a"), .value = TEXT("1"), .key_hash = -1};
	struct wire_entry second = {.key = TEXT("b"), .value = TEXT("is not sent"), .removed = true, .state = 1};
	struct wire_to_worker envelope;
	struct wire_entries entries;
	wire_put_varint_field(&writer, 1, 5);
	uint8_t *start = wire_begin(&writer, FROM_WORKER_STATE_DELTA);
	wire_put_entry(&writer, &first);
	wire_put_entry(&writer, &second);
	ck_assert_uint_eq((size_t)(writer.at - start), wire_entry_size(&first) + wire_entry_size(&second));
	wire_end_entries(&writer, start);
	struct view message = {buffer, (size_t)(writer.at - buffer)};
	ck_assert(!writer.overflow);
	ck_assert_int_eq(wire_parse_from_worker(message, &envelope), WIRE_OK);
	ck_assert_uint_eq(envelope.kind, FROM_WORKER_STATE_DELTA);
	ck_assert_int_eq(wire_parse_entries(envelope.body, &entries), WIRE_OK);
	ck_assert_uint_eq(entries.checksum, entries.computed);
	ck_assert_uint_eq(entries.count, 2);
	ck_assert_uint_le(message.size, wire_entry_size(&first) + wire_entry_size(&second) + WIRE_ENTRIES_AROUND);
	must_agree(SURFACE_FROM_WORKER, message);
	for (size_t i = 0; i < envelope.body.size - 9; i++) { /* whatever changes is seen, or cannot be read */
		buffer[(size_t)(envelope.body.data - buffer) + i] ^= 1;
		if (wire_parse_entries(envelope.body, &entries) == WIRE_OK)
			ck_assert_uint_ne(entries.checksum, entries.computed);
		buffer[(size_t)(envelope.body.data - buffer) + i] ^= 1;
	}
}
END_TEST

START_TEST(manifest)
{
	uint8_t buffer[256];
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	struct wire_declaration one = {
	    .step = TEXT("count"), .name = TEXT("sums"), .kind = 1, .version = 3, .ttl_ms = -1};
	struct wire_declaration two = {.step = TEXT("b"), .name = TEXT(""), .kind = 2, .partition = 1}, out;
	wire_put_varint_field(&writer, 1, 9);
	wire_put_declaration(&writer, OPEN_STATE_MANIFEST, &one);
	ck_assert_uint_le((size_t)(writer.at - buffer), 2 + wire_declaration_size(&one));
	wire_put_declaration(&writer, OPEN_STATE_MANIFEST, &two);
	struct wire_reader reader;
	wire_reader_init(&reader, (struct view){buffer, (size_t)(writer.at - buffer)});
	ck_assert(wire_next_declaration(&reader, OPEN_STATE_MANIFEST, &out));
	ck_assert(view_equal(out.step, one.step) && view_equal(out.name, one.name));
	ck_assert(out.kind == 1 && out.partition == 0 && out.version == 3 && out.ttl_ms == -1);
	ck_assert(wire_next_declaration(&reader, OPEN_STATE_MANIFEST, &out));
	ck_assert(view_equal(out.step, two.step) && out.name.size == 0 && out.kind == 2 && out.partition == 1);
	ck_assert(!wire_next_declaration(&reader, OPEN_STATE_MANIFEST, &out) && !reader.malformed);
	wire_reader_init(&reader, BYTES(0x32, 3, 0x0a, 1, 0xff)); /* a name that is no text */
	ck_assert(!wire_next_declaration(&reader, OPEN_ACK_STATE_MANIFEST, &out) && reader.malformed);
	wire_reader_init(&reader, BYTES(0x32, 2, 0x1a, 0)); /* a kind as bytes */
	ck_assert(!wire_next_declaration(&reader, OPEN_ACK_STATE_MANIFEST, &out) && reader.malformed);
}
END_TEST

START_TEST(restore_ack)
{
	uint64_t entries, dropped;
	ck_assert_int_eq(wire_parse_restore_ack(BYTES(0x08, 5, 0x10, 2), &entries, &dropped), WIRE_OK);
	ck_assert(entries == 5 && dropped == 2);
	ck_assert_int_eq(wire_parse_restore_ack((struct view){NULL, 0}, &entries, &dropped), WIRE_OK);
	ck_assert(entries == 0 && dropped == 0);
	ck_assert_int_eq(wire_parse_restore_ack(BYTES(0x12, 0), &entries, &dropped), WIRE_MALFORMED);
}
END_TEST

/* ---- Writing ---- */

START_TEST(writer_fields)
{
	uint8_t buffer[64];
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	wire_put_varint_field(&writer, 1, 300);
	wire_put_fixed32_field(&writer, 2, 0x01020304);
	wire_put_bytes_field(&writer, 100, TEXT("abc"));
	uint8_t *start = wire_begin(&writer, 4);
	wire_put_varint_field(&writer, 1, 0);
	wire_end(&writer, start);
	struct view written = {buffer, (size_t)(writer.at - buffer)};
	ck_assert(!writer.overflow);
	ck_assert(view_equal(written, BYTES(0x08, 0xac, 0x02, 0x15, 4, 3, 2, 1, 0xa2, 0x06, 3, 'a', 'b', 'c', 0x22,
					    0x82, 0x80, 0x80, 0x80, 0x00, 0x08, 0x00)));
}
END_TEST

/* With each room too small by one byte or more, nothing is written behind the end, and nothing after the first failure. */
START_TEST(writer_overflows)
{
	uint8_t buffer[64];
	struct wire_header header = {TEXT("key"), TEXT("value")};
	struct wire_record record = {.payload = TEXT("payload"),
				     .keyed = true,
				     .key = TEXT("k"),
				     .timestamp = -1,
				     .key_hash = 1,
				     .key_group = 2,
				     .input = 3,
				     .route = 4,
				     .headers = &header,
				     .header_count = 1};
	uint64_t size = wire_record_size(&record, WIRE_RECORD);
	ck_assert_uint_lt(size, sizeof(buffer));
	for (size_t room = 0; room < size; room++) {
		memset(buffer, 0xee, sizeof(buffer));
		struct wire_writer writer = {.at = buffer, .end = buffer + room};
		wire_put_record(&writer, &record, WIRE_RECORD);
		ck_assert(writer.overflow && writer.at == buffer && buffer[0] == 0xee);
		wire_put_varint_field(&writer, 1, 1);
		wire_put_fixed32_field(&writer, 1, 1);
		wire_put_bytes_field(&writer, 1, TEXT("x"));
		wire_end(&writer, wire_begin(&writer, 1));
		ck_assert(writer.at == buffer && buffer[0] == 0xee && buffer[room] == 0xee);
	}
	struct wire_writer exact = {.at = buffer, .end = buffer + size};
	wire_put_record(&exact, &record, WIRE_RECORD);
	ck_assert(!exact.overflow && exact.at == exact.end);
	wire_put_varint_field(&exact, 1, 1);
	ck_assert(exact.overflow);
}
END_TEST

/* Records written together end where the next is too large or has no room, which is no failure. */
START_TEST(writer_of_many)
{
	uint8_t buffer[64];
	struct wire_record records[3] = {{.payload = TEXT("a"), .timestamp = 1},
					 {.payload = TEXT("bcd"), .timestamp = INT64_C(1) << 55},
					 /* An input is no part of an answer, and an absent time is not written. */
					 {.payload = TEXT("e"), .timestamp = WIRE_NO_TIMESTAMP, .input = 3}};
	uint64_t one = wire_record_size(&records[0], WIRE_ANSWER), two = wire_record_size(&records[1], WIRE_ANSWER);
	for (uint64_t room = 0; room < one + two; room++) {
		memset(buffer, 0xee, sizeof(buffer));
		struct wire_writer writer = {.at = buffer, .end = buffer + room};
		ck_assert_uint_eq(wire_put_records(&writer, records, 3, UINT64_MAX), room >= one);
		ck_assert(!writer.overflow && writer.at == buffer + (room < one ? 0 : one) && buffer[room] == 0xee);
	}
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	ck_assert_uint_eq(wire_put_records(&writer, records, 3, two - 3), 1);
	ck_assert_uint_eq(wire_put_records(&writer, records + 1, 2, two - 2), 2);
	ck_assert(!writer.overflow &&
		  view_equal((struct view){buffer, (size_t)(writer.at - buffer)},
			     BYTES(0x0a, 5, 0x0a, 1, 'a', 0x18, 1, 0x0a, 14, 0x0a, 3, 'b', 'c', 'd', 0x18, 0x80, 0x80,
				   0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0x0a, 3, 0x0a, 1, 'e')));
}
END_TEST

/* Three of a record in a row are the same bytes when they are written one by one, together with no byte to spare, and with many; they are read as
 * they were, and refused when they are too large, cut, or have a length that goes beyond what is there. */
static void must_come_back(const struct wire_record *record)
{
	uint8_t bytes[1024], same[1024];
	struct wire_record records[3] = {*record, *record, *record};
	struct wire_batch batch = {0};
	uint64_t size = wire_record_size(record, WIRE_ANSWER), inner = size - 2 - (size > 129);
	for (int i = 0; i < 3; i++) {
		struct wire_writer one = {.at = same + i * size, .end = same + (i + 1) * size};
		wire_put_record(&one, record, WIRE_ANSWER);
		ck_assert(!one.overflow && one.at == one.end);
	}
	for (int spare = 0; spare < 2; spare++) {
		struct wire_writer writer = {.at = bytes, .end = spare ? bytes + sizeof(bytes) : bytes + 3 * size};
		memset(bytes, 0xee, sizeof(bytes));
		if (inner > 0)
			ck_assert_uint_eq(wire_put_records(&writer, records, 3, inner - 1), 0);
		ck_assert_uint_eq(wire_put_records(&writer, records, 3, inner), 3);
		ck_assert(writer.at == bytes + 3 * size && memcmp(bytes, same, 3 * size) == 0);
	}
	ck_assert_int_eq(wire_parse_records((struct view){bytes, 3 * size}, &batch, NULL), WIRE_OK);
	ck_assert_uint_eq(batch.count, 3);
	for (int i = 0; i < 3; i++)
		ck_assert(view_equal(batch.records[i].payload, record->payload) &&
			  batch.records[i].timestamp == record->timestamp && batch.records[i].route == record->route);
	wire_batch_clear(&batch);
	struct wire_reader reader;
	wire_reader_init(&reader, (struct view){bytes, 3 * size});
	if (inner > 0)
		ck_assert_int_eq(wire_parse_run(&reader, &batch, 9, inner - 1), WIRE_TOO_LARGE);
	ck_assert_int_eq(wire_parse_run(&reader, &batch, 9, inner), WIRE_OK);
	ck_assert_uint_eq(batch.count, 3);
	if (record->payload.size > 0 && inner < 128) {
		bytes[size + 3] =
		    (uint8_t)(inner - 1); /* of the second payload: it would end a byte behind its record */
		ck_assert_int_eq(wire_parse_records((struct view){bytes, 3 * size}, &batch, NULL), WIRE_MALFORMED);
	}
	for (size_t cut = 1; cut < size; cut++)
		ck_assert_int_eq(wire_parse_records((struct view){same, 2 * size + cut}, &batch, NULL), WIRE_MALFORMED);
	wire_batch_free(&batch);
}

/* Around what is read and written at once: lengths of one byte, and times of six. */
START_TEST(records_of_each_size)
{
	static const int64_t times[] = {WIRE_NO_TIMESTAMP,
					0,
					-1,
					INT64_MAX,
					(INT64_C(1) << 35) - 1,
					INT64_C(1) << 35,
					1700000000000,
					(INT64_C(1) << 42) - 1,
					INT64_C(1) << 42,
					(INT64_C(0x2a) << 35) + 0x123456789};
	uint8_t payload[140];
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 7);
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		for (size_t size = 0; size <= sizeof(payload); size++)
			for (uint32_t route = 0; route < 2; route++)
				must_come_back(&(struct wire_record){
				    .payload = {payload, size}, .timestamp = times[i], .route = route});
}
END_TEST

START_TEST(writer_as_message)
{
	uint8_t buffer[64];
	struct wire_header header = {TEXT("k"), TEXT("")};
	struct wire_record record = {.payload = TEXT("p"),
				     .keyed = true,
				     .timestamp = 1,
				     .key_hash = 1,
				     .key_group = 2,
				     .input = 3,
				     .route = 4,
				     .headers = &header,
				     .header_count = 1};
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	wire_put_record(&writer, &record, WIRE_MESSAGE);
	struct view written = {buffer, (size_t)(writer.at - buffer)};
	ck_assert(view_equal(written, BYTES(0x0a, 12, 0x0a, 1, 'p', 0x12, 5, 0x0a, 1, 'k', 0x12, 0, 0x18, 1)));
	ck_assert_uint_eq(wire_record_size(&record, WIRE_MESSAGE), written.size);
}
END_TEST

/* ---- Against protobuf-c ---- */

static uint64_t seed_of_run(void)
{
	const char *given = getenv("WIRE_SEED");
	return given != NULL ? strtoull(given, NULL, 0) : 20261121;
}

/* What a client's library would write is taken, whatever its values. */
START_TEST(agree_on_packed)
{
	struct dice dice = {seed_of_run() + (uint64_t)_i};
	for (int round = 0; round < 1500; round++) {
		struct bytes message = {0};
		message_make(&message, surface_descriptor((enum surface)_i), &dice, true);
		ProtobufCMessage *unpacked =
		    protobuf_c_message_unpack(surface_descriptor((enum surface)_i), NULL, message.size, message.data);
		ck_assert_ptr_nonnull(unpacked);
		size_t size = protobuf_c_message_get_packed_size(unpacked);
		uint8_t *packed = malloc(size + 1);
		protobuf_c_message_pack(unpacked, packed);
		ck_assert(must_agree((enum surface)_i, (struct view){packed, size}).taken);
		ck_assert(must_agree((enum surface)_i, bytes_view(&message)).taken);
		protobuf_c_message_free_unpacked(unpacked, NULL);
		free(packed);
		bytes_free(&message);
	}
}
END_TEST

/* Unusual but valid messages, and what is left of them after damage. */
START_TEST(agree_on_damaged)
{
	struct dice dice = {seed_of_run() * 31 + (uint64_t)_i};
	unsigned taken = 0, refused = 0;
	for (int round = 0; round < 1500; round++) {
		struct bytes message = {0};
		message_make(&message, surface_descriptor((enum surface)_i), &dice, false);
		ck_assert(must_agree((enum surface)_i, bytes_view(&message)).taken);
		for (int hit = 0; hit < 3; hit++) {
			message_damage(&message, &dice);
			bool fine = must_agree((enum surface)_i, bytes_view(&message)).taken;
			taken += fine;
			refused += !fine;
		}
		bytes_free(&message);
	}
	if (taken < 200 || refused < 200)
		ck_abort_msg("one-sided: %u taken, %u refused, seed %" PRIu64, taken, refused, seed_of_run());
}
END_TEST

/* Every prefix of a message. */
START_TEST(agree_on_prefixes)
{
	struct dice dice = {seed_of_run() * 17 + (uint64_t)_i};
	for (int round = 0; round < 20; round++) {
		struct bytes message = {0};
		message_make(&message, surface_descriptor((enum surface)_i), &dice, false);
		for (size_t size = 0; size < message.size; size++)
			must_agree((enum surface)_i, (struct view){message.data, size});
		bytes_free(&message);
	}
}
END_TEST

/* ---- The suite ---- */

static Suite *wire_suite(void)
{
	Suite *suite = suite_create("wire");
	TCase *unit = tcase_create("edges");
	tcase_add_loop_test(unit, utf8_known, 0, 23);
	tcase_add_test(unit, utf8_all_threes);
	tcase_add_loop_test(unit, utf8_repaired, 0, 5);
	tcase_add_test(unit, next_reads_each_type);
	tcase_add_test(unit, next_reads_varints);
	tcase_add_loop_test(unit, next_refuses, 0, 20);
	tcase_add_test(unit, record_all_fields);
	tcase_add_test(unit, record_defaults);
	tcase_add_test(unit, record_last_one_wins);
	tcase_add_loop_test(unit, record_refuses, 0, 17);
	tcase_add_loop_test(unit, headers_given_twice, 0, 6);
	tcase_add_test(unit, headers_too_many);
	tcase_add_test(unit, headers_of_many_records);
	tcase_add_test(unit, records_and_more);
	tcase_add_test(unit, records_in_runs);
	tcase_add_test(unit, times_of_each_length);
	tcase_add_test(unit, envelope_fields);
	tcase_add_loop_test(unit, envelope_refuses, 0, 6);
	tcase_add_test(unit, bodies);
	tcase_add_test(unit, results_have_words);
	tcase_add_test(unit, unary_fields);
	tcase_add_loop_test(unit, unary_refuses, 0, 10);
	tcase_add_test(unit, entry_all_fields);
	tcase_add_test(unit, entry_in_any_order);
	tcase_add_test(unit, entries_checksum);
	tcase_add_test(unit, entries_refuse);
	tcase_add_test(unit, entry_parts);
	tcase_add_test(unit, entries_written);
	tcase_add_test(unit, manifest);
	tcase_add_test(unit, restore_ack);
	tcase_add_test(unit, writer_fields);
	tcase_add_test(unit, writer_overflows);
	tcase_add_test(unit, writer_of_many);
	tcase_add_test(unit, records_of_each_size);
	tcase_add_test(unit, writer_as_message);
	suite_add_tcase(suite, unit);
	TCase *agree = tcase_create("against protobuf-c");
	tcase_add_loop_test(agree, agree_on_packed, 0, SURFACE_COUNT);
	tcase_add_loop_test(agree, agree_on_damaged, 0, SURFACE_COUNT);
	tcase_add_loop_test(agree, agree_on_prefixes, 0, SURFACE_COUNT);
	suite_add_tcase(suite, agree);
	return suite;
}

CHECK_MAIN(wire_suite)
