/*
 * What reading and writing records costs, beside protobuf-c. Lines `name<TAB>value<TAB>unit`; each figure is the best of
 * several short runs, for the machine may be busy with other things in between.
 */
#include <stdio.h>
#include <stdlib.h>

#include "flink_bridge.pb-c.h"
#include "shared/control.h"
#include "shared/log.h"
#include "shared/wire.h"

enum { RECORDS = 128, ROUNDS = 200, RUNS = 40, PAYLOAD = 100 };

static uint8_t payload[PAYLOAD];
static const char *const header_texts[3][2] = {
    {"content-type", "application/json"}, {"trace-id", "4bf92f3577b34da6a3ce929d0e0e4736"}, {"user", "J\xc3\xbcrgen"}};
static uint8_t body[1 << 20], output[1 << 20];
static size_t body_size;
static struct wire_batch batch;

/* Writes a body of records with some headers each. */
static void make_body(uint32_t headers)
{
	struct wire_header header[3];
	struct wire_writer writer = {.at = body, .end = body + sizeof(body)};
	struct wire_record record = {.payload = {payload, sizeof(payload)},
				     .timestamp = 1763690400000,
				     .keyed = true,
				     .key = {(const uint8_t *)"user-12345", 10},
				     .key_hash = 123456789,
				     .key_group = 77,
				     .headers = header,
				     .header_count = headers};
	for (uint32_t i = 0; i < headers; i++)
		header[i] = (struct wire_header){view_of(header_texts[i][0]), view_of(header_texts[i][1])};
	for (int i = 0; i < RECORDS; i++)
		wire_put_record(&writer, &record, WIRE_RECORD);
	CHECK(!writer.overflow);
	body_size = (size_t)(writer.at - body);
}

static void parse_wire(void)
{
	wire_batch_clear(&batch);
	CHECK(wire_parse_records((struct view){body, body_size}, &batch, NULL) == WIRE_OK && batch.count == RECORDS);
}

static void write_wire(void)
{
	struct wire_writer writer = {.at = output, .end = output + sizeof(output)};
	for (uint32_t i = 0; i < batch.count; i++)
		wire_put_record(&writer, &batch.records[i], WIRE_RECORD);
	CHECK((size_t)(writer.at - output) == body_size);
}

static void parse_protobuf(void)
{
	FlinkBridge__Batch *unpacked = flink_bridge__batch__unpack(NULL, body_size, body);
	CHECK(unpacked != NULL && unpacked->n_records == RECORDS);
	flink_bridge__batch__free_unpacked(unpacked, NULL);
}

/* Prints the best time per record of a function that works on the whole body. */
static void measure(const char *name, void (*work)(void))
{
	uint64_t best = UINT64_MAX;
	for (int run = 0; run < RUNS; run++) {
		uint64_t begun = clock_ns();
		for (int i = 0; i < ROUNDS; i++)
			work();
		uint64_t spent = clock_ns() - begun;
		best = spent < best ? spent : best;
	}
	printf("%s\t%.1f\tns/record\n", name, (double)best / ROUNDS / RECORDS);
}

int main(void)
{
	memset(payload, '{', sizeof(payload));
	make_body(0);
	measure("wire_parse_100B", parse_wire);
	measure("wire_write_100B", write_wire);
	measure("protobuf_c_parse_100B", parse_protobuf);
	make_body(3);
	measure("wire_parse_100B_3_headers", parse_wire);
	measure("wire_write_100B_3_headers", write_wire);
	measure("protobuf_c_parse_100B_3_headers", parse_protobuf);
	wire_batch_free(&batch);
	return 0;
}
