/* State between two lives of a job (kit_state.h): a list that grows, and is sorted when somebody wants to read it. */
#include "cli/kit_state.h"

#include <stdlib.h>
#include <string.h>

#include "shared/keygroup.h"
#include "shared/log.h"

enum { STATES_MAX = 4096 };

void *kit_need(void *memory)
{
	if (memory == NULL)
		fatalx("out of memory for a case");
	return memory;
}

/* Whether an entry belongs to a key. */
static bool is_keyed(const struct kit_states *states, const struct wire_entry *entry)
{
	return states->partitions[entry->state] == FLINK_BRIDGE__STATE_PARTITION__STATE_BY_KEY;
}

void kit_states_declare(struct kit_states *states, const FlinkBridge__OpenAck *ack)
{
	if (states->manifest != NULL || ack->n_state_manifest == 0 || ack->n_state_manifest > STATES_MAX)
		return;
	size_t room = 0;
	for (size_t i = 0; i < ack->n_state_manifest; i++)
		room += strlen(ack->state_manifest[i]->step) + strlen(ack->state_manifest[i]->name) + 64;
	states->manifest = kit_need(malloc(room));
	states->partitions = kit_need(calloc(ack->n_state_manifest, sizeof(*states->partitions)));
	states->state_count = (uint32_t)ack->n_state_manifest;
	struct wire_writer writer = {states->manifest, states->manifest + room, false};
	for (size_t i = 0; i < ack->n_state_manifest; i++) {
		const FlinkBridge__StateDeclaration *from = ack->state_manifest[i];
		struct wire_declaration declaration = {
		    .step = view_of(from->step),
		    .name = view_of(from->name),
		    .kind = (uint32_t)from->kind,
		    .partition = (uint32_t)from->partition,
		    .version = from->format_version,
		    .ttl_ms = from->ttl_ms,
		};
		states->partitions[i] = (uint32_t)from->partition;
		wire_put_declaration(&writer, OPEN_STATE_MANIFEST, &declaration);
	}
	CHECK(!writer.overflow);
	states->manifest_size = (size_t)(writer.at - states->manifest);
}

/* A copy of bytes that is owned. */
static struct view copy(struct view view)
{
	uint8_t *bytes = kit_need(malloc(view.size + 1));

	if (view.size > 0)
		memcpy(bytes, view.data, view.size);
	return (struct view){bytes, view.size};
}

static void entry_free(struct kit_entry *entry)
{
	free((void *)(uintptr_t)entry->entry.key.data);
	free((void *)(uintptr_t)entry->entry.sub_key.data);
	free((void *)(uintptr_t)entry->entry.value.data);
}

/* Appends a part to the value of the last entry. False: it belongs to another one. */
static bool go_on(struct kit_states *states, const struct wire_entry *part)
{
	struct wire_entry *whole = &states->entries[states->count - 1].entry;

	if (part->state != whole->state || !view_equal(part->key, whole->key) ||
	    !view_equal(part->sub_key, whole->sub_key))
		return false;
	uint8_t *bytes =
	    kit_need(realloc((void *)(uintptr_t)whole->value.data, whole->value.size + part->value.size + 1));
	if (part->value.size > 0)
		memcpy(bytes + whole->value.size, part->value.data, part->value.size);
	whole->value = (struct view){bytes, whole->value.size + part->value.size};
	return true;
}

/* Keeps a new entry. */
static void keep(struct kit_states *states, uint32_t subtask, const struct wire_entry *entry)
{
	if (states->count == states->capacity) {
		states->capacity = states->capacity == 0 ? 64 : 2 * states->capacity;
		states->entries = kit_need(realloc(states->entries, states->capacity * sizeof(*states->entries)));
	}
	struct kit_entry *kept = &states->entries[states->count];
	*kept = (struct kit_entry){.entry = *entry, .order = states->count};
	kept->subtask = is_keyed(states, entry) ? 0 : subtask;
	kept->entry.key = copy(entry->key);
	kept->entry.sub_key = copy(entry->sub_key);
	kept->entry.value = copy(entry->value);
	kept->entry.more = false;
	states->count++;
}

const char *kit_states_take(struct kit_states *states, uint32_t subtask, struct view body)
{
	struct wire_entries all;
	struct wire_reader reader;
	struct wire_entry entry;

	if (wire_parse_entries(body, &all) != WIRE_OK || all.checksum != all.computed)
		return "sent state that is damaged";
	wire_reader_init(&reader, body);
	while (wire_next_entry(&reader, &entry)) {
		if (entry.state >= states->state_count || (states->partial && !go_on(states, &entry)))
			return "sent an entry of state that cannot be";
		if (!states->partial)
			keep(states, subtask, &entry);
		states->partial = entry.more;
	}
	return reader.malformed ? "sent state that cannot be read" : NULL;
}

/* Orders entries by what they are about; and those about the same. */
static int compare_identity(const struct kit_entry *a, const struct kit_entry *b)
{
	if (a->entry.state != b->entry.state)
		return a->entry.state < b->entry.state ? -1 : 1;
	if (a->subtask != b->subtask)
		return a->subtask < b->subtask ? -1 : 1;
	int order = view_compare(a->entry.key, b->entry.key);
	return order != 0 ? order : view_compare(a->entry.sub_key, b->entry.sub_key);
}

static int compare(const void *left, const void *right)
{
	const struct kit_entry *a = left, *b = right;
	int order = compare_identity(a, b);

	return order != 0 ? order : (a->order > b->order) - (a->order < b->order);
}

void kit_states_settle(struct kit_states *states)
{
	size_t left = 0;

	if (states->count == 0)
		return;
	qsort(states->entries, states->count, sizeof(*states->entries), compare);
	for (size_t i = 0; i < states->count; i++) {
		bool last =
		    i + 1 == states->count || compare_identity(&states->entries[i], &states->entries[i + 1]) != 0;
		if (last && !states->entries[i].entry.removed) {
			states->entries[left] = states->entries[i];
			states->entries[left].order = left;
			left++;
		} else {
			entry_free(&states->entries[i]);
		}
	}
	states->count = left;
}

bool kit_states_is_for(const struct kit_states *states, const struct kit_entry *entry, uint32_t subtask,
		       uint32_t parallelism, uint32_t max_parallelism)
{
	if (is_keyed(states, &entry->entry))
		return key_group_subtask(entry->entry.key_group, parallelism, max_parallelism) == subtask;
	if (states->partitions[entry->entry.state] == FLINK_BRIDGE__STATE_PARTITION__STATE_UNION)
		return true;
	return entry->subtask % parallelism == subtask;
}

void kit_states_forget_unkeyed(struct kit_states *states)
{
	size_t left = 0;

	for (size_t i = 0; i < states->count; i++) {
		if (!is_keyed(states, &states->entries[i].entry)) {
			entry_free(&states->entries[i]);
			continue;
		}
		states->entries[left] = states->entries[i];
		states->entries[left].order = left; /* before all that come */
		left++;
	}
	states->count = left;
}

void kit_states_free(struct kit_states *states)
{
	for (size_t i = 0; i < states->count; i++)
		entry_free(&states->entries[i]);
	free(states->entries);
	free(states->manifest);
	free(states->partitions);
	*states = (struct kit_states){0};
}
