/* A slot in one process (solo.h). */
#include "worker/solo.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Maps the channels as the front has them. */
static int map_front(const struct slot_memory *memory, struct slot_memory *front)
{
	*front = *memory;
	front->channels_fd = dup(memory->channels_fd);
	front->worker_bell = dup(memory->worker_bell);
	front->arena_fd = front->owner_fd = -1;
	front->owner = NULL;
	return front->channels_fd < 0 || front->worker_bell < 0 ? -1 : slot_attach_front(front);
}

int solo_make(struct sidecar *sidecar, const struct slot_sizes *sizes, struct slot_memory *front)
{
	const struct descriptor *descriptor = sidecar->descriptor;
	struct slot_memory *memory = &sidecar->slots[0];

	if (control_create(&sidecar->control, 1, (uint32_t)descriptor->segment_count, descriptor->step_count) != 0)
		return -1;
	if (slot_memory_create(memory, 0, sizes, -1) != 0) {
		int error = errno;
		control_destroy(&sidecar->control);
		errno = error;
		return -1;
	}
	if (map_front(memory, front) != 0) {
		int error = errno;
		solo_destroy(sidecar, front);
		errno = error;
		return -1;
	}
	atomic_store(&sidecar->control.control->front_generation, 1);
	return 0;
}

struct serve *solo_own(struct sidecar *sidecar, struct workspace *workspace, uint32_t generation,
		       char why[SOLO_WHY_MAX])
{
	struct slot_memory *memory = &sidecar->slots[0];
	const struct segment *segment = NULL;
	struct failure failure = {0};

	workspace_init(workspace, sidecar, 0);
	if (arena_open(&workspace->arena, memory->arena, memory->sizes.arena, 0, why) != ARENA_OK)
		return NULL;
	struct serve *serve = serve_create(workspace, memory, generation, &segment, &failure);
	if (serve == NULL)
		snprintf(why, SOLO_WHY_MAX, "segment \"%s\" step \"%s\": %.300s", segment->name,
			 failure.step < segment->step_count ? segment->steps[failure.step].name : "?", failure.message);
	return serve;
}

void solo_destroy(struct sidecar *sidecar, struct slot_memory *front)
{
	slot_memory_destroy(front);
	slot_memory_destroy(&sidecar->slots[0]);
	control_destroy(&sidecar->control);
}

int solo_open_channel(struct slot_memory *front, struct solo_channel *channel, uint32_t index, uint32_t segment,
		      uint32_t epoch, uint32_t generation)
{
	struct front_channel *own = &front->channels->front[index];
	struct worker_channel *peer = &front->channels->worker[index];
	uint64_t size = channel_ring_size(front, index);

	if (channel_allocate(front, index) != 0)
		return -1;
	*channel = (struct solo_channel){.epoch = epoch};
	ring_producer_init(&channel->requests, &own->request, &peer->request, channel_request_data(front, index), size);
	ring_consumer_init(&channel->answers, &own->response, &peer->response, channel_response_data(front, index),
			   size);
	own->segment = segment;
	own->generation = generation;
	channel_set_state(front, index, epoch, CHANNEL_OPEN);
	return 0;
}

bool solo_push(struct slot_memory *front, struct solo_channel *channel, uint32_t index, struct frame header,
	       struct view payload)
{
	uint8_t *to;

	if (ring_reserve(&channel->requests, payload.size, &to) != RING_OK)
		return false;
	if (payload.size > 0)
		memcpy(to, payload.data, payload.size);
	if (header.epoch == 0)
		header.epoch = channel->epoch;
	header.received_ns = SOLO_RECEIVED_NS;
	ring_append(&channel->requests, header, payload.size);
	ring_publish(&channel->requests);
	ready_set(&front->channels->ready_for_worker, index);
	return true;
}

enum ring_result solo_peek(struct solo_channel *channel, struct frame *frame, const uint8_t **payload)
{
	return ring_peek(&channel->answers, frame, payload);
}

void solo_release(struct slot_memory *front, struct solo_channel *channel, uint32_t index, const struct frame *frame)
{
	if (ring_release(&channel->answers, ring_advance(&channel->answers, frame)))
		ready_set(&front->channels->ready_for_worker, index);
}
