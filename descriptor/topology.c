/*
 * The topology hash (topology.h): what a session's Open must match.
 *
 * In it is what decides where a record goes and which state it meets: sources, segments, their inputs, keys and routes,
 * sinks, the number of key groups, the manifests of what steps remember. Not in it are programs (new code takes over a running pipeline), parallelism (a
 * rescaled job is the same pipeline) and where sources and sinks really are. Texts go in with their lengths, so that no
 * two topologies look alike.
 */
#include "descriptor/topology.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "descriptor/manifest.h"
#include "shared/log.h"

/* Hashes a number. */
static void hash_number(XXH3_state_t *state, uint64_t value)
{
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
	XXH3_128bits_update(state, bytes, sizeof(bytes));
}

/* Hashes text. */
static void hash_text(XXH3_state_t *state, const char *text)
{
	hash_number(state, strlen(text));
	XXH3_128bits_update(state, text, strlen(text));
}

/* Hashes where records come from. */
static void hash_inputs(XXH3_state_t *state, const struct input *inputs, size_t count)
{
	hash_number(state, count);
	for (size_t i = 0; i < count; i++) {
		hash_number(state, inputs[i].from_source);
		hash_number(state, inputs[i].index);
		hash_number(state, inputs[i].route);
		hash_number(state, inputs[i].partition == PARTITION_HASH);
	}
}

/* Hashes what a step remembers; how long, is told for information only. */
static void hash_states(XXH3_state_t *state, const struct segment *segment, const struct step_spec *step)
{
	size_t declares = step_state_count(step);

	for (size_t place = 0; place < declares; place++) {
		struct state_spec spec;
		if (!step_state(segment, step, place, &spec))
			continue;
		hash_text(state, spec.step);
		hash_text(state, spec.name);
		hash_number(state, spec.kind);
		hash_number(state, spec.partition);
		hash_number(state, spec.version);
	}
}

/* Hashes a segment: its place, its key, how it ends, and what it remembers. */
static void hash_segment(XXH3_state_t *state, const struct segment *segment)
{
	const struct step_spec *last = &segment->steps[segment->step_count - 1];

	hash_text(state, segment->name);
	hash_number(state, segment->max_parallelism);
	hash_inputs(state, segment->inputs, segment->input_count);
	hash_text(state, last->key == NULL ? "" : last->key);
	hash_text(state, segment_has_own_routes(segment) ? step_kind_name(last->kind) : "");
	hash_number(state, segment->route_count);
	for (size_t i = 0; i < segment->route_count; i++)
		hash_text(state, segment->routes[i]);
	hash_number(state, segment_manifest(segment, NULL, 0));
	for (size_t i = 0; i < segment->step_count; i++)
		hash_states(state, segment, &segment->steps[i]);
}

void topology_hash(const struct descriptor *descriptor, char hash[33])
{
	XXH3_state_t *state = XXH3_createState();

	CHECK(state != NULL);
	XXH3_128bits_reset(state);
	hash_text(state, descriptor->pipeline);
	hash_number(state, descriptor->source_count);
	for (size_t i = 0; i < descriptor->source_count; i++)
		hash_text(state, descriptor->sources[i].name);
	hash_number(state, descriptor->segment_count);
	for (size_t i = 0; i < descriptor->segment_count; i++)
		hash_segment(state, &descriptor->segments[i]);
	hash_number(state, descriptor->sink_count);
	for (size_t i = 0; i < descriptor->sink_count; i++) {
		hash_text(state, descriptor->sinks[i].name);
		hash_inputs(state, descriptor->sinks[i].inputs, descriptor->sinks[i].input_count);
	}
	XXH128_hash_t sum = XXH3_128bits_digest(state);
	XXH3_freeState(state);
	snprintf(hash, 33, "%016llx%016llx", (unsigned long long)sum.high64, (unsigned long long)sum.low64);
}

struct descriptor_owner *descriptor_owner_create(void)
{
	struct descriptor_owner *owner = calloc(1, sizeof(*owner));

	if (owner == NULL)
		fatal("no memory for a descriptor");
	return owner;
}

void descriptor_free(struct descriptor *descriptor)
{
	struct descriptor_owner *owner = (struct descriptor_owner *)descriptor;

	if (owner == NULL)
		return;
	pool_free(&owner->pool);
	free(owner);
}
