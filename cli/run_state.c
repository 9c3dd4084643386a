/*
 * State in and out (run_state.h). What comes from the sidecar is checked before it is kept: checksum, state, and size.
 */
#include "cli/run_state.h"

#include <stdlib.h>
#include <string.h>

#include "cli/run_checkpoint.h"
#include "cli/run_graph.h"
#include "cli/run_store.h"
#include "shared/log.h"

enum {
	CHUNK_BYTES = 64 << 10,      /* of one RestoreChunk, unless the sidecar takes less */
	ENTRY_BYTES_MAX = 256 << 20, /* of key and value: more than any worker makes */
	STATES_MAX = 4096,           /* of one segment */
};

void stage_state_free(struct stage_state *state)
{
	free(state->declared);
	free(state->ids);
	free(state->text);
	*state = (struct stage_state){0};
}

/* Memory, or the end in words. */
static void *need(size_t size)
{
	void *memory = malloc(size > 0 ? size : 1);
	if (memory == NULL)
		fatalx("out of memory for the state of a session");
	return memory;
}

/* ---- Open and its answer ---- */

/* Text as protobuf-c has it, in memory of its own. */
static char *text_of(struct view view)
{
	char *text = need(view.size + 1);
	memcpy(text, view.data, view.size);
	text[view.size] = '\0';
	return text;
}

void subtask_state_opening(struct subtask *subtask, FlinkBridge__Open *open)
{
	const struct stage_state *state = &subtask->stage->state;
	if (state->before_count == 0)
		return; /* nothing to restore, and so no checkpoint to restore it from */
	open->restored_checkpoint = run_checkpoint_restored(subtask->graph);
	open->n_state_manifest = state->before_count;
	open->state_manifest = need(state->before_count * sizeof(open->state_manifest[0]));
	for (uint32_t i = 0; i < state->before_count; i++) {
		const struct wire_declaration *from = &state->before[i].declaration;
		FlinkBridge__StateDeclaration *to = open->state_manifest[i] = need(sizeof(*to));
		flink_bridge__state_declaration__init(to);
		to->step = text_of(from->step);
		to->name = text_of(from->name);
		to->kind = (FlinkBridge__StateKind)from->kind;
		to->partition = (FlinkBridge__StatePartition)from->partition;
		to->format_version = from->version;
		to->ttl_ms = from->ttl_ms;
	}
}

void subtask_state_opened(FlinkBridge__Open *open)
{
	for (size_t i = 0; i < open->n_state_manifest; i++) {
		free(open->state_manifest[i]->step);
		free(open->state_manifest[i]->name);
		free(open->state_manifest[i]);
	}
	free(open->state_manifest);
}

/* Copies a text to where the declarations' texts are. */
static struct view copy_text(uint8_t **to, const char *text)
{
	struct view copy = {*to, strlen(text)};
	memcpy(*to, text, copy.size);
	*to += copy.size;
	return copy;
}

/* Keeps the states that the first session of a stage names. */
static void declare(struct stage_state *state, const FlinkBridge__OpenAck *ack)
{
	size_t bytes = 0;
	for (size_t i = 0; i < ack->n_state_manifest; i++)
		bytes += strlen(ack->state_manifest[i]->step) + strlen(ack->state_manifest[i]->name);
	uint8_t *text = state->text = need(bytes);
	state->declared = need(ack->n_state_manifest * sizeof(state->declared[0]));
	state->ids = need(ack->n_state_manifest * sizeof(state->ids[0]));
	for (size_t i = 0; i < ack->n_state_manifest; i++) {
		const FlinkBridge__StateDeclaration *from = ack->state_manifest[i];
		state->declared[i] = (struct wire_declaration){
		    .step = copy_text(&text, from->step),
		    .name = copy_text(&text, from->name),
		    .kind = (uint32_t)from->kind,
		    .partition = (uint32_t)from->partition,
		    .version = from->format_version,
		    .ttl_ms = from->ttl_ms,
		};
	}
	state->declared_count = (uint32_t)ack->n_state_manifest;
	state->is_declared = true;
}

/* Whether another session of the stage names the same states. */
static bool is_same(const struct stage_state *state, const FlinkBridge__OpenAck *ack)
{
	if (ack->n_state_manifest != state->declared_count)
		return false;
	for (uint32_t i = 0; i < state->declared_count; i++) {
		const FlinkBridge__StateDeclaration *one = ack->state_manifest[i];
		const struct wire_declaration *other = &state->declared[i];
		if (!view_equal(view_of(one->step), other->step) || !view_equal(view_of(one->name), other->name) ||
		    (uint32_t)one->kind != other->kind || (uint32_t)one->partition != other->partition ||
		    one->format_version != other->version)
			return false;
	}
	return true;
}

bool subtask_state_begin(struct subtask *subtask, const FlinkBridge__OpenAck *ack)
{
	struct stage *stage = subtask->stage;
	if (subtask->graph->checkpoint == NULL)
		return false;
	if (ack->n_state_manifest > STATES_MAX) {
		subtask_protocol_failed(subtask, "names more states than a segment can have");
		return false;
	}
	if (!stage->state.is_declared) {
		declare(&stage->state, ack);
	} else if (!is_same(&stage->state, ack)) {
		subtask_protocol_failed(subtask, "names other states for one subtask than for another");
		return false;
	}
	if (stage->state.before_count == 0)
		return false;
	struct store_share share = {
	    .states = stage->state.before,
	    .count = stage->state.before_count,
	    .subtask = subtask->index,
	    .parallelism = stage->segment->parallelism,
	    .parallelism_before = stage->state.parallelism_before,
	};
	key_group_range(subtask->index, stage->segment->parallelism, stage->segment->max_parallelism,
			&share.key_group_first, &share.key_group_last);
	subtask->state_flow.cursor = run_store_cursor(run_checkpoint_store(subtask->graph), &share);
	subtask->state_flow.buffer = need(CHUNK_BYTES);
	subtask->state = SUBTASK_RESTORING;
	subtask_state_send(subtask);
	return true;
}

/* ---- Out: restore ---- */

/* Makes the next entry the one at hand; false when there is none any more, or the file cannot be read. */
static bool next_entry(struct subtask *subtask)
{
	struct subtask_state_flow *flow = &subtask->state_flow;
	if (flow->has_entry)
		return true;
	flow->sent = 0;
	if (!run_store_next(flow->cursor, &flow->entry, &flow->has_entry))
		run_graph_fail(subtask->graph, "%s", run_store_why(run_checkpoint_store(subtask->graph)));
	flow->entries += flow->has_entry;
	return flow->has_entry;
}

/* Writes as much of the entry at hand as fits. Whether there is room for another one. */
static bool put_entry(struct subtask_state_flow *flow, struct wire_writer *writer)
{
	uint64_t room = (uint64_t)(writer->end - writer->at);
	struct wire_entry part = flow->entry;
	if (flow->sent > 0) /* an empty value may have no address */
		part.value.data += flow->sent;
	part.value.size -= flow->sent;
	if (wire_entry_size(&part) > room) {
		part.more = true;
		part.value.size = wire_entry_room(&part, room);
	}
	if (part.more && part.value.size == 0)
		return false;
	wire_put_entry(writer, &part);
	CHECK(!writer->overflow);
	flow->sent += part.value.size;
	flow->has_entry = part.more;
	return !part.more;
}

/* Hands a message to the stream; false: it has no room and will say when it has. */
static bool send_message(struct subtask *subtask)
{
	struct subtask_state_flow *flow = &subtask->state_flow;
	enum client_result result = client_stream_send(subtask->stream, flow->message);
	if (result == CLIENT_FULL)
		return false;
	flow->has_message = false;
	if (result == CLIENT_GONE) /* its end is on the way */
		grpc_slice_unref(flow->message);
	return result == CLIENT_TAKEN;
}

/* Makes the next chunk. False: nothing is left for one. */
static bool make_chunk(struct subtask *subtask)
{
	struct subtask_state_flow *flow = &subtask->state_flow;
	uint64_t size = subtask->message_max < CHUNK_BYTES ? subtask->message_max : CHUNK_BYTES;
	struct wire_writer writer = {flow->buffer, flow->buffer + size - WIRE_ENTRIES_AROUND, false};
	if (!next_entry(subtask))
		return false;
	uint8_t *body = wire_begin(&writer, TO_WORKER_RESTORE_CHUNK);
	uint8_t *first = writer.at;
	while (next_entry(subtask) && put_entry(flow, &writer))
		;
	if (writer.at == first && !subtask->graph->failed) {
		run_graph_fail(subtask->graph, "segment \"%s\": a key of %zu bytes does not fit into a message of %llu",
			       subtask->stage->segment->name, flow->entry.key.size + flow->entry.sub_key.size,
			       (unsigned long long)size);
		return false;
	}
	writer.end = flow->buffer + size;
	wire_end_entries(&writer, body);
	subtask_put_envelope(subtask, &writer);
	CHECK(!writer.overflow);
	flow->message = grpc_slice_from_copied_buffer((const char *)flow->buffer, (size_t)(writer.at - flow->buffer));
	flow->has_message = true;
	return true;
}

/* Makes the message behind the last chunk. */
static void make_end(struct subtask *subtask)
{
	struct subtask_state_flow *flow = &subtask->state_flow;
	run_store_cursor_close(flow->cursor);
	flow->cursor = NULL;
	flow->message = subtask_control_message(subtask, TO_WORKER_RESTORE_END, true, (int64_t)flow->entries);
	flow->has_message = true;
}

void subtask_state_send(struct subtask *subtask)
{
	struct subtask_state_flow *flow = &subtask->state_flow;
	while (subtask->state == SUBTASK_RESTORING && !subtask->graph->failed) {
		if (flow->has_message && !send_message(subtask))
			return;
		if (flow->cursor == NULL)
			return;
		if (!make_chunk(subtask) && !subtask->graph->failed)
			make_end(subtask);
	}
}

void subtask_state_restored(struct subtask *subtask, struct view body)
{
	struct subtask_state_flow *flow = &subtask->state_flow;
	uint64_t entries, dropped;
	char where[256];
	if (wire_parse_restore_ack(body, &entries, &dropped) != WIRE_OK || entries != flow->entries) {
		subtask_protocol_failed(subtask, "took over another number of state entries than it was sent");
		return;
	}
	if (dropped > 0)
		log_warn("%s: %llu entries of state were dropped, as the pipeline says",
			 subtask_place(subtask, where, sizeof(where)), (unsigned long long)dropped);
	free(flow->buffer);
	flow->buffer = NULL;
	subtask_run(subtask);
}

/* ---- In: deltas ---- */

/* Makes room for more bytes behind those of the entry in parts. */
static bool part_grow(struct subtask_state_flow *flow, size_t size)
{
	if (size > ENTRY_BYTES_MAX || flow->size + size > ENTRY_BYTES_MAX)
		return false;
	size_t capacity = flow->capacity > 0 ? flow->capacity : 4096;
	while (capacity < flow->size + size)
		capacity *= 2;
	if (capacity == flow->capacity)
		return true;
	flow->bytes = realloc(flow->bytes, capacity);
	if (flow->bytes == NULL)
		fatalx("out of memory for an entry of state of %zu bytes", capacity);
	flow->capacity = capacity;
	return true;
}

/* Appends bytes to the entry in parts. */
static bool part_append(struct subtask_state_flow *flow, struct view bytes)
{
	if (!part_grow(flow, bytes.size))
		return false;
	if (bytes.size > 0)
		memcpy(flow->bytes + flow->size, bytes.data, bytes.size);
	flow->size += bytes.size;
	return true;
}

/* Takes a part of an entry, the first or a later one. `entry` becomes the whole one with the last part; until then `whole` is
 * false. Returns whether the part belongs where it came. */
static bool take_part(struct subtask_state_flow *flow, struct wire_entry *entry, bool *whole)
{
	bool first = !flow->part.more;
	*whole = !entry->more;
	if (first && !entry->more)
		return true;
	if (first) {
		flow->size = 0;
		flow->part = *entry;
		if (!part_append(flow, entry->key) || !part_append(flow, entry->sub_key))
			return false;
	}
	/* The key's views are made anew each time: memory may have moved. */
	struct view key = {flow->bytes, flow->part.key.size};
	struct view sub_key = {flow->bytes + key.size, flow->part.sub_key.size};
	if (entry->state != flow->part.state || entry->removed || !view_equal(entry->key, key) ||
	    !view_equal(entry->sub_key, sub_key) || !part_append(flow, entry->value))
		return false;
	flow->part.more = entry->more;
	size_t keys = key.size + sub_key.size;
	if (*whole) {
		*entry = flow->part;
		entry->key.data = flow->bytes;
		entry->sub_key.data = flow->bytes + key.size;
		entry->value = (struct view){flow->bytes + keys, flow->size - keys};
	}
	return true;
}

/* Writes one entry into the next checkpoint. */
static bool keep_entry(struct subtask *subtask, struct wire_entry *entry)
{
	const struct stage_state *state = &subtask->stage->state;
	bool whole;
	if (entry->state >= state->declared_count || !take_part(&subtask->state_flow, entry, &whole)) {
		subtask_protocol_failed(subtask, "sent an entry of state that cannot be");
		return false;
	}
	if (!whole)
		return true;
	bool keyed = state->declared[entry->state].partition == FLINK_BRIDGE__STATE_PARTITION__STATE_BY_KEY;
	run_checkpoint_count(subtask->graph, entry->key.size + entry->sub_key.size + entry->value.size);
	if (run_store_put_entry(run_checkpoint_store(subtask->graph), state->ids[entry->state],
				keyed ? 0 : subtask->index, entry))
		return true;
	run_graph_fail(subtask->graph, "%s", run_store_why(run_checkpoint_store(subtask->graph)));
	return false;
}

void subtask_state_delta(struct subtask *subtask, struct view body)
{
	struct wire_entries all;
	struct wire_reader reader;
	struct wire_entry entry;
	if (subtask->graph->checkpoint == NULL)
		return;
	if (wire_parse_entries(body, &all) != WIRE_OK || all.checksum != all.computed) {
		subtask_protocol_failed(subtask, "sent state that is damaged");
		return;
	}
	wire_reader_init(&reader, body);
	while (wire_next_entry(&reader, &entry))
		if (!keep_entry(subtask, &entry))
			return;
	if (reader.malformed)
		subtask_protocol_failed(subtask, "sent state that cannot be read");
}

void subtask_state_close(struct subtask *subtask)
{
	struct subtask_state_flow *flow = &subtask->state_flow;
	run_store_cursor_close(flow->cursor);
	if (flow->has_message)
		grpc_slice_unref(flow->message);
	free(flow->buffer);
	free(flow->bytes);
	*flow = (struct subtask_state_flow){0};
}
