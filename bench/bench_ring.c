/*
 * How fast one ring is by itself: frames a second between two threads and between two processes, for small payloads and
 * for large ones. Prints `name<TAB>value<TAB>unit`.
 *
 * Both sides spin when they can do nothing, publish and release in runs, and touch every payload byte: the producer
 * copies it in, the consumer adds it up. Sleeping, doorbells and messages are left out: they are in bench_transport.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/control.h"
#include "shared/log.h"
#include "shared/ring.h"

enum { RING_SIZE = 1 << 20, RUN = 32, PAYLOAD_MAX = 16384 };

/* A ring in memory that a forked process shares. */
struct rig {
	struct ring_producer_words producer_words;
	struct ring_consumer_words consumer_words;
	_Alignas(4096) uint8_t data[RING_SIZE];
};

/* One measurement. */
struct work {
	struct rig *rig;
	uint64_t frames;
	uint64_t payload; /* bytes of each */
};

/* Sends all frames of a measurement. */
static void *produce(void *argument)
{
	const struct work *work = argument;
	static uint8_t bytes[PAYLOAD_MAX];
	struct ring_producer producer;
	uint8_t *payload;
	ring_producer_init(&producer, &work->rig->producer_words, &work->rig->consumer_words, work->rig->data,
			   RING_SIZE);
	for (uint64_t seq = 0; seq < work->frames; seq++) {
		enum ring_result result;
		while ((result = ring_reserve(&producer, work->payload, &payload)) == RING_FULL) {
			ring_publish(&producer);
			sched_yield();
		}
		CHECK(result == RING_OK);
		memcpy(payload, bytes, work->payload);
		ring_append(&producer, (struct frame){.kind = FRAME_MESSAGE, .seq = seq}, work->payload);
		if (seq % RUN == RUN - 1)
			ring_publish(&producer);
	}
	ring_publish(&producer);
	return NULL;
}

/* Adds up a payload's words. */
static uint64_t sum_of(const uint8_t *payload, uint64_t size)
{
	uint64_t sum = 0, word;
	for (uint64_t i = 0; i + sizeof(word) <= size; i += sizeof(word)) {
		memcpy(&word, payload + i, sizeof(word));
		sum += word;
	}
	return sum;
}

/* Takes all frames of a measurement. */
static void consume(const struct work *work)
{
	struct ring_consumer consumer;
	struct frame header;
	const uint8_t *payload;
	uint64_t seq = 0, sum = 0;
	ring_consumer_init(&consumer, &work->rig->consumer_words, &work->rig->producer_words, work->rig->data,
			   RING_SIZE);
	while (seq < work->frames) {
		uint64_t cursor = consumer.released;
		enum ring_result result = RING_OK;
		for (int i = 0; i < RUN && (result = ring_peek(&consumer, &header, &payload)) == RING_OK; i++) {
			CHECK(header.seq == seq++);
			sum += sum_of(payload, header.length - sizeof(header));
			cursor = ring_advance(&consumer, &header);
		}
		CHECK(result != RING_DAMAGED);
		ring_release(&consumer, cursor);
		if (result == RING_EMPTY)
			sched_yield();
	}
	CHECK(sum == 0); /* of a payload of zeroes; and the additions are not left out */
}

/* Prints what so many frames in so many ns come to. */
static void print_rates(const char *sides, const struct work *work, uint64_t ns)
{
	double rate = (double)work->frames * 1e9 / (double)ns;
	printf("ring_%s_%lu_frames\t%.0f\tframes/s\n", sides, (unsigned long)work->payload, rate);
	printf("ring_%s_%lu_bytes\t%.2f\tGB/s\n", sides, (unsigned long)work->payload,
	       rate * (double)work->payload / 1e9);
	fflush(stdout);
}

/* Measures between two threads. */
static void measure_threads(struct work work)
{
	pthread_t thread;
	uint64_t start = clock_ns();
	CHECK(pthread_create(&thread, NULL, produce, &work) == 0);
	consume(&work);
	pthread_join(thread, NULL);
	print_rates("threads", &work, clock_ns() - start);
}

/* Measures between two processes. */
static void measure_processes(struct work work)
{
	uint64_t start = clock_ns();
	pid_t pid = fork();
	if (pid < 0)
		fatal("cannot fork");
	if (pid == 0) {
		produce(&work);
		_exit(0);
	}
	int status;
	consume(&work);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	print_rates("processes", &work, clock_ns() - start);
}

/* A fresh ring, its pages in place. */
static struct rig *make_rig(void)
{
	struct rig *rig =
	    mmap(NULL, sizeof(*rig), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (rig == MAP_FAILED)
		fatal("cannot map %zu bytes for a ring", sizeof(*rig));
	return rig;
}

/* Runs all measurements; an argument multiplies their length. */
int main(int argc, char **argv)
{
	uint64_t times = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	if (argc > 2 || times == 0 || times > 1000) {
		fprintf(stderr, "usage: bench_ring [1..1000]   (times as long; once is about two seconds)\n");
		return 2;
	}
	const struct work works[] = {
	    {.frames = 10000000 * times, .payload = 128},
	    {.frames = 400000 * times, .payload = 16384},
	};
	for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
		struct work work = works[i];
		work.rig = make_rig();
		measure_threads(work);
		work.rig = make_rig();
		measure_processes(work);
	}
	return 0;
}
