/*
 * Load for unary servers: ProcessMessage calls to two addresses in rounds that alternate, with so many outstanding. Prints the medians of
 * their calls a second, and of the rounds' ratios, and how many calls were made in all, as `name<TAB>value<TAB>unit`.
 *
 *   load_unary OUTSTANDING ROUNDS ROUND_MS ADDRESS OTHER
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <grpc/grpc.h>

#include "bench/bench.h"
#include "cli/client.h"
#include "proto/flink_worker.pb-c.h"
#include "shared/control.h"
#include "shared/log.h"

enum { PAYLOAD_BYTES = 100, ROUNDS_MAX = 101, SIDES = 2 };
#define START_NS UINT64_C(20000000000)

struct side {
	struct client *client;
	const void *method;
	uint64_t calls; /* all that were made */
};

/* The request that every call sends. */
static grpc_slice make_request(void)
{
	static uint8_t payload[PAYLOAD_BYTES];
	FlinkWorker__Message message = FLINK_WORKER__MESSAGE__INIT;
	FlinkWorker__ProcessMessageRequest request = FLINK_WORKER__PROCESS_MESSAGE_REQUEST__INIT;

	memset(payload, 'x', sizeof(payload));
	message.payload = (ProtobufCBinaryData){sizeof(payload), payload};
	message.timestamp = 1700000000000;
	request.message = &message;
	grpc_slice slice = grpc_slice_malloc(flink_worker__process_message_request__get_packed_size(&request));
	flink_worker__process_message_request__pack(&request, GRPC_SLICE_START_PTR(slice));
	return slice;
}

/* Starts one call; its server may still be starting. */
static void call(struct side *side, grpc_slice request)
{
	struct client_call_options options = {.wait_for_ready = true, .deadline_ns = clock_ns() + START_NS};

	side->calls++;
	if (!client_call(side->client, side->method, grpc_slice_ref(request), &options, side))
		fatalx("out of memory");
}

/* Calls a second over one round. */
static double round_of(struct side *side, grpc_slice request, unsigned outstanding, uint64_t round_ns)
{
	uint64_t done = 0, begin = clock_ns(), end = begin + round_ns;
	struct client_event event;

	for (unsigned i = 0; i < outstanding; i++)
		call(side, request);
	while (client_calls_in_flight(side->client) > 0) {
		if (client_poll(side->client, CLIENT_FOREVER, &event) != CLIENT_REPLY)
			continue;
		if (event.status != GRPC_STATUS_OK || GRPC_SLICE_LENGTH(event.message) < PAYLOAD_BYTES)
			fatalx("a call failed: %.*s", (int)event.text.size, (const char *)event.text.data);
		if (clock_ns() >= end)
			continue;
		done++;
		call(side, request);
	}
	return (double)done * 1e9 / (double)round_ns;
}

int main(int argc, char **argv)
{
	static double rates[SIDES][ROUNDS_MAX], ratios[ROUNDS_MAX];
	struct side sides[SIDES] = {0};

	log_init("load_unary", LOG_WARN);
	if (argc != 6)
		fatalx("usage: load_unary OUTSTANDING ROUNDS ROUND_MS ADDRESS OTHER");
	unsigned outstanding = (unsigned)atoi(argv[1]), rounds = (unsigned)atoi(argv[2]);
	uint64_t round_ns = strtoull(argv[3], NULL, 10) * 1000000;
	if (rounds < 1 || rounds > ROUNDS_MAX)
		fatalx("1 to %d rounds", ROUNDS_MAX);
	grpc_init();
	for (int s = 0; s < SIDES; s++) {
		sides[s].client = client_connect(argv[4 + s], &(struct client_options){0});
		if (!sides[s].client)
			fatalx("%s cannot be an address", argv[4 + s]);
		sides[s].method = client_method(sides[s].client, "/flink_worker.FlinkWorkerService/ProcessMessage");
	}
	grpc_slice request = make_request();
	for (int s = 0; s < SIDES; s++) /* warms up */
		round_of(&sides[s], request, outstanding, round_ns);
	for (unsigned i = 0; i < rounds; i++) {
		for (int s = 0; s < SIDES; s++)
			rates[s][i] = round_of(&sides[s], request, outstanding, round_ns);
		ratios[i] = rates[0][i] / rates[1][i];
	}
	printf("unary_python_per_s\t%.0f\tcalls/s\n", median(rates[0], rounds));
	printf("unary_python_grpcio_per_s\t%.0f\tcalls/s\n", median(rates[1], rounds));
	printf("unary_python_ratio\t%.1f\tx\n", median(ratios, rounds));
	printf("unary_python_calls\t%" PRIu64 "\tcalls\n", sides[0].calls);
	printf("unary_python_grpcio_calls\t%" PRIu64 "\tcalls\n", sides[1].calls);
	grpc_slice_unref(request);
	for (int s = 0; s < SIDES; s++)
		client_close(sides[s].client);
	grpc_shutdown();
	return 0;
}
