/* See wire_agree.h. Every surface has a reader (the view parser, all the way down) and a comparison with what protobuf-c
 * unpacked; what both took is also written by wire and unpacked again. */
#include "tests/wire_agree.h"

#include <stdio.h>
#include <stdlib.h>

#include "flink_bridge.pb-c.h"
#include "flink_worker.pb-c.h"
#include "shared/frame.h"
#include "shared/log.h"
#include "shared/wire.h"

/* All that the view parser says about one message. */
struct reading {
	struct wire_to_worker envelope;
	struct wire_batch batch;
	struct wire_unary unary;
	struct wire_entries entries;
	uint64_t number, dropped;
	bool flag, more;
	struct view text;
};

/* ---- What may differ ---- */

/* A reader of keys and values that shares nothing with shared/wire.c. Returns false at the end or at malformed bytes,
 * which protobuf-c has then refused as well. */
static bool raw_next(struct view *rest, uint64_t *number, unsigned *type, struct view *value)
{
	uint64_t key = 0;
	size_t used = 0, size = 0;
	for (;; used++) {
		if (used == rest->size || used == 5)
			return false;
		key |= (uint64_t)(rest->data[used] & 0x7f) << (7 * used);
		if (rest->data[used] < 0x80)
			break;
	}
	*rest = (struct view){rest->data + used + 1, rest->size - used - 1};
	*number = key >> 3;
	*type = key & 7;
	used = 0;
	if (*type == 0 || *type == 2) {
		for (;; used++) {
			if (used == rest->size || used == 10)
				return false;
			size |= (size_t)(rest->data[used] & 0x7f) << (7 * used);
			if (rest->data[used] < 0x80)
				break;
		}
		used++;
	}
	if (*type == 0)
		*value = (struct view){rest->data, used};
	else
		*value = (struct view){rest->data + used, *type == 1 ? 8 : *type == 5 ? 4 : size};
	if (used + (*type == 0 ? 0 : value->size) > rest->size)
		return false;
	used += *type == 0 ? 0 : value->size;
	*rest = (struct view){rest->data + used, rest->size - used};
	return true;
}

/* A slow and plain check of UTF-8. */
static bool plain_utf8(struct view text)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	for (size_t i = 0; i < text.size;) {
		uint8_t lead = text.data[i];
		size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
		if (length == 0 || length > text.size - i)
			return false;
		uint32_t point = length == 1 ? lead : lead & (0x7f >> length);
		for (size_t k = 1; k < length; k++) {
			if (text.data[i + k] >> 6 != 2)
				return false;
			point = point << 6 | (text.data[i + k] & 0x3f);
		}
		if (point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
			return false;
		i += length;
	}
	return true;
}

/* Whether one field is something that wire.h refuses by W1, W2, W5 or W7. */
static bool field_excused(const ProtobufCMessageDescriptor *message, const ProtobufCFieldDescriptor *field,
			  uint64_t number, unsigned type, struct view value)
{
	if (number == 0 || number > (1 << 29) - 1)
		return true;
	if (message == &flink_worker__message__descriptor && number >= 4 && number <= 8)
		return true;
	if (field == NULL)
		return false;
	if (field->type == PROTOBUF_C_TYPE_STRING)
		return !plain_utf8(value);
	return field->type == PROTOBUF_C_TYPE_BOOL && type != 0;
}

/* Whether bytes that protobuf-c took hold something that wire.h says it refuses. Recursion is as deep as the contract. */
static bool excused(const ProtobufCMessageDescriptor *message, struct view bytes)
{
	uint64_t number, seen = 0;
	unsigned type, headers = 0;
	struct view value;
	while (raw_next(&bytes, &number, &type, &value)) {
		const ProtobufCFieldDescriptor *field =
		    number < 32 ? protobuf_c_message_descriptor_get_field(message, (unsigned)number) : NULL;
		if (field_excused(message, field, number, type, value))
			return true;
		if (field == NULL || field->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			headers += strcmp(field->name, "headers") == 0;
		} else {
			uint64_t bit = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 ? 1 : UINT64_C(1) << number;
			if ((seen & bit) != 0)
				return true;
			seen |= bit;
		}
		if (headers > WIRE_HEADERS_MAX || excused(field->descriptor, value))
			return true;
	}
	return false;
}

/* ---- Reading ---- */

/* For bodies that the view parser leaves to protobuf-c. */
static bool body_unpacks(const ProtobufCMessageDescriptor *descriptor, struct view body)
{
	ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, NULL, body.size, body.data);
	if (message == NULL)
		return false;
	protobuf_c_message_free_unpacked(message, NULL);
	return true;
}

/* A StateDelta or RestoreChunk, all of its entries too. */
static bool read_entries(struct view body, struct reading *out)
{
	struct wire_reader reader;
	struct wire_entry entry;
	uint64_t count = 0;
	if (wire_parse_entries(body, &out->entries) != WIRE_OK)
		return false;
	wire_reader_init(&reader, body);
	while (wire_next_entry(&reader, &entry))
		count++;
	CHECK(reader.malformed || count == out->entries.count);
	return !reader.malformed;
}

/* What the view parser sees of an Open or OpenAck: the manifest. */
static bool read_manifest(struct view body, uint32_t field)
{
	struct wire_reader reader;
	struct wire_declaration declaration;
	wire_reader_init(&reader, body);
	while (wire_next_declaration(&reader, field, &declaration))
		;
	return !reader.malformed;
}

static bool read_to_worker(struct view message, struct reading *out)
{
	struct view body;
	if (wire_parse_to_worker(message, &out->envelope) != WIRE_OK)
		return false;
	body = out->envelope.body;
	switch (out->envelope.kind) {
	case 0:
		return true;
	case TO_WORKER_OPEN:
		return body_unpacks(&flink_bridge__open__descriptor, body) && read_manifest(body, OPEN_STATE_MANIFEST);
	case TO_WORKER_RESTORE_CHUNK:
		return read_entries(body, out);
	case TO_WORKER_RESTORE_END:
		return wire_parse_number(body, &out->number) == WIRE_OK;
	case TO_WORKER_BATCH:
		return wire_parse_records(body, &out->batch, NULL) == WIRE_OK;
	case TO_WORKER_WATERMARK:
	case TO_WORKER_BARRIER:
		return wire_parse_number(body, &out->number) == WIRE_OK;
	case TO_WORKER_WATERMARK_STATUS:
		return wire_parse_flag(body, &out->flag) == WIRE_OK;
	case TO_WORKER_TIMER_TICK:
	case TO_WORKER_END_INPUT:
		return wire_parse_empty(body) == WIRE_OK;
	case TO_WORKER_CLOSE:
		return wire_parse_text(body, &out->text) == WIRE_OK;
	}
	CHECK(false);
	return false;
}

static bool read_from_worker(struct view message, struct reading *out)
{
	struct view body;
	if (wire_parse_from_worker(message, &out->envelope) != WIRE_OK)
		return false;
	body = out->envelope.body;
	switch (out->envelope.kind) {
	case 0:
		return true;
	case FROM_WORKER_OPEN_ACK:
		return body_unpacks(&flink_bridge__open_ack__descriptor, body) &&
		       read_manifest(body, OPEN_ACK_STATE_MANIFEST);
	case FROM_WORKER_RESTORE_ACK:
		return wire_parse_restore_ack(body, &out->number, &out->dropped) == WIRE_OK;
	case FROM_WORKER_STATE_DELTA:
		return read_entries(body, out);
	case FROM_WORKER_RESULTS:
		return wire_parse_records(body, &out->batch, &out->more) == WIRE_OK;
	case FROM_WORKER_BARRIER_ACK:
		return wire_parse_number(body, &out->number) == WIRE_OK;
	case FROM_WORKER_END_ACK:
		return wire_parse_empty(body) == WIRE_OK;
	case FROM_WORKER_ERROR:
		return body_unpacks(&flink_bridge__error__descriptor, body);
	}
	CHECK(false);
	return false;
}

static bool read_record(struct view message, struct reading *out)
{
	return wire_parse_record(message, WIRE_RECORD, &out->batch) == WIRE_OK;
}

static bool read_results(struct view message, struct reading *out)
{
	return wire_parse_records(message, &out->batch, &out->more) == WIRE_OK;
}

static bool read_state_delta(struct view message, struct reading *out)
{
	out->envelope.body = message;
	return read_entries(message, out);
}

/* A unary request and the Message in it, if there is one. */
static bool read_unary(unsigned frame_kind, struct view message, struct reading *out)
{
	if (wire_parse_unary(frame_kind, message, &out->unary) != WIRE_OK)
		return false;
	return out->unary.message.data == NULL ||
	       wire_parse_record(out->unary.message, WIRE_MESSAGE, &out->batch) == WIRE_OK;
}

static bool read_process_message(struct view message, struct reading *out)
{
	return read_unary(FRAME_PROCESS_MESSAGE, message, out);
}

static bool read_process_watermark(struct view message, struct reading *out)
{
	return read_unary(FRAME_PROCESS_WATERMARK, message, out);
}

static bool read_add_to_window(struct view message, struct reading *out)
{
	return read_unary(FRAME_ADD_TO_WINDOW, message, out);
}

static bool read_trigger_window(struct view message, struct reading *out)
{
	return read_unary(FRAME_TRIGGER_WINDOW, message, out);
}

/* ---- Comparing ---- */

/* Ends a comparison with its own text where a condition does not hold. */
#define SAME(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			return "differs: " #condition;                                                                 \
	} while (0)

static bool same_bytes(ProtobufCBinaryData theirs, struct view ours)
{
	return view_equal((struct view){theirs.data, theirs.len}, ours);
}

/* protobuf-c's strings end with a NUL that is not on the wire; one within them stays, so memcmp sees all of it. */
static bool same_text(const char *theirs, struct view ours)
{
	return (ours.size == 0 || memcmp(theirs, ours.data, ours.size) == 0) && theirs[ours.size] == 0;
}

/* Compares maps: theirs may hold a key several times, the last one counts (W4). Keys with a NUL within are left out:
 * protobuf-c does not say how long they are. */
static const char *compare_headers(size_t count, FlinkBridge__Record__HeadersEntry *const *theirs,
				   const struct wire_record *record)
{
	const struct wire_header *headers = record->headers;
	size_t distinct = 0;
	for (uint32_t i = 0; i < record->header_count; i++)
		if (headers[i].key.size != 0 && memchr(headers[i].key.data, 0, headers[i].key.size) != NULL)
			return NULL;
	for (size_t i = 0; i < count; i++) {
		size_t last = i, first = i;
		for (size_t k = 0; k < count; k++) {
			if (strcmp(theirs[k]->key, theirs[i]->key) == 0) {
				first = k < first ? k : first;
				last = k > last ? k : last;
			}
		}
		if (first != i)
			continue;
		SAME(distinct < record->header_count);
		SAME(same_text(theirs[i]->key, headers[distinct].key));
		SAME(same_text(theirs[last]->value, headers[distinct].value));
		distinct++;
	}
	SAME(distinct == record->header_count);
	return NULL;
}

static const char *compare_record(const FlinkBridge__Record *theirs, const struct wire_record *ours)
{
	SAME(same_bytes(theirs->payload, ours->payload));
	SAME(ours->timestamp == (theirs->maybe_timestamp_case == FLINK_BRIDGE__RECORD__MAYBE_TIMESTAMP_TIMESTAMP
				     ? theirs->timestamp
				     : WIRE_NO_TIMESTAMP));
	SAME(ours->keyed == (theirs->maybe_key_case == FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY));
	SAME(!ours->keyed || same_bytes(theirs->key, ours->key));
	SAME(theirs->key_hash == ours->key_hash);
	SAME(theirs->key_group == ours->key_group);
	SAME(theirs->input == ours->input);
	SAME(theirs->route == ours->route);
	return compare_headers(theirs->n_headers, theirs->headers, ours);
}

static const char *compare_records(size_t count, FlinkBridge__Record *const *theirs, const struct wire_batch *ours)
{
	SAME(count == ours->count);
	for (uint32_t i = 0; i < ours->count; i++) {
		const char *difference = compare_record(theirs[i], &ours->records[i]);
		if (difference != NULL)
			return difference;
	}
	return NULL;
}

/* Writes the records one by one; *exact: they took as many bytes as was computed before. free() it. */
static uint8_t *write_each(const struct wire_batch *batch, enum wire_form form, uint64_t *size, bool *exact)
{
	*size = 0;
	for (uint32_t i = 0; i < batch->count; i++)
		*size += wire_record_size(&batch->records[i], form);
	uint8_t *buffer = malloc(*size + 1);
	CHECK(buffer != NULL);
	struct wire_writer writer = {.at = buffer, .end = buffer + *size};
	for (uint32_t i = 0; i < batch->count; i++)
		wire_put_record(&writer, &batch->records[i], form);
	*exact = !writer.overflow && writer.at == writer.end;
	return buffer;
}

/* Whether the records, written together, are those bytes: with not one byte to spare, and with some. */
static bool writes_these(const struct wire_batch *batch, struct view bytes)
{
	bool same = true;
	for (uint64_t spare = 0; spare <= 160 && same; spare += spare < 9 ? 1 : 151) {
		uint8_t *buffer = malloc(bytes.size + spare + 1);
		CHECK(buffer != NULL);
		struct wire_writer writer = {.at = buffer, .end = buffer + bytes.size + spare};
		same = wire_put_records(&writer, batch->records, batch->count, UINT64_MAX) == batch->count &&
		       !writer.overflow && view_equal((struct view){buffer, (size_t)(writer.at - buffer)}, bytes);
		free(buffer);
	}
	return same;
}

/* Whether the records, written together, are those of an answer written one by one. */
static bool writes_together(const struct wire_batch *batch)
{
	uint64_t size;
	bool exact;
	uint8_t *buffer = write_each(batch, WIRE_ANSWER, &size, &exact);
	bool same = exact && writes_these(batch, (struct view){buffer, size});
	free(buffer);
	return same;
}

/* Writes the records with wire and lets protobuf-c read them back. */
static const char *compare_written(const struct wire_batch *batch)
{
	uint64_t size;
	bool exact;
	uint8_t *buffer = write_each(batch, WIRE_RECORD, &size, &exact);
	FlinkBridge__Results *read = flink_bridge__results__unpack(NULL, size, buffer);
	const char *difference =
	    read == NULL ? "written records do not unpack" : compare_records(read->n_records, read->records, batch);
	if (read != NULL)
		flink_bridge__results__free_unpacked(read, NULL);
	free(buffer);
	if (!writes_together(batch))
		return "records written together are not those written one by one";
	return exact ? difference : "the computed size of records is not the written one";
}

static bool entry_same(const FlinkBridge__StateEntry *theirs, const struct wire_entry *ours)
{
	return theirs->state == ours->state && theirs->key_group == ours->key_group &&
	       theirs->key_hash == ours->key_hash && same_bytes(theirs->key, ours->key) &&
	       same_bytes(theirs->sub_key, ours->sub_key) && same_bytes(theirs->value, ours->value) &&
	       /* W5 */ (theirs->removed || !ours->removed) && (theirs->more || !ours->more);
}

/* Writes an entry with wire and lets protobuf-c read it back. */
static const char *compare_entry_written(const struct wire_entry *entry)
{
	uint64_t size = wire_entry_size(entry);
	uint8_t *buffer = malloc(size + 1);
	CHECK(buffer != NULL);
	struct wire_writer writer = {.at = buffer, .end = buffer + size};
	struct wire_entry shown = *entry;
	wire_put_entry(&writer, entry);
	if (entry->removed)
		shown.value.size = 0;
	FlinkBridge__StateDelta *read = flink_bridge__state_delta__unpack(NULL, size, buffer);
	bool same = !writer.overflow && writer.at == writer.end && read != NULL && read->n_entries == 1 &&
		    entry_same(read->entries[0], &shown) &&
		    flink_bridge__state_delta__get_packed_size(read) == size; /* defaults are left out */
	if (read != NULL)
		flink_bridge__state_delta__free_unpacked(read, NULL);
	free(buffer);
	return same ? NULL : "a written entry is another";
}

/* The checksum over all fields that are entries, found by the reader above. */
static uint64_t plain_checksum(struct view body)
{
	uint8_t *bytes = malloc(body.size + 1);
	size_t size = 0;
	uint64_t number;
	unsigned type;
	struct view value;
	CHECK(bytes != NULL);
	for (struct view rest = body; rest.size > 0;) {
		const uint8_t *from = rest.data;
		CHECK(raw_next(&rest, &number, &type, &value));
		if (number != 1)
			continue;
		memcpy(bytes + size, from, (size_t)(rest.data - from));
		size += (size_t)(rest.data - from);
	}
	uint64_t sum = wire_checksum((struct view){bytes, size});
	free(bytes);
	return sum;
}

/* Bodies of StateDelta and RestoreChunk are alike: both are compared as the first. */
static const char *compare_entries(size_t count, FlinkBridge__StateEntry *const *theirs, uint64_t checksum,
				   const struct reading *ours)
{
	struct wire_reader reader;
	struct wire_entry entry;
	const char *difference = NULL;
	SAME(checksum == ours->entries.checksum);
	SAME(count == ours->entries.count);
	SAME(plain_checksum(ours->envelope.body) == ours->entries.computed);
	wire_reader_init(&reader, ours->envelope.body);
	for (size_t i = 0; i < count && difference == NULL; i++) {
		SAME(wire_next_entry(&reader, &entry));
		SAME(entry_same(theirs[i], &entry));
		difference = compare_entry_written(&entry);
	}
	return difference;
}

/* Compares manifests, and what wire writes of theirs. */
static const char *compare_manifest(size_t count, FlinkBridge__StateDeclaration *const *theirs, struct view body,
				    uint32_t field)
{
	struct wire_reader reader;
	struct wire_declaration ours;
	uint8_t buffer[1024];
	wire_reader_init(&reader, body);
	for (size_t i = 0; i < count; i++) {
		SAME(wire_next_declaration(&reader, field, &ours));
		SAME(same_text(theirs[i]->step, ours.step) && same_text(theirs[i]->name, ours.name));
		SAME((uint32_t)theirs[i]->kind == ours.kind && (uint32_t)theirs[i]->partition == ours.partition);
		SAME(theirs[i]->format_version == ours.version && theirs[i]->ttl_ms == ours.ttl_ms);
		uint64_t size = wire_declaration_size(&ours);
		if (size > sizeof(buffer))
			continue;
		struct wire_writer writer = {.at = buffer, .end = buffer + size};
		struct wire_declaration again;
		struct wire_reader written;
		wire_put_declaration(&writer, field, &ours);
		wire_reader_init(&written, (struct view){buffer, (size_t)(writer.at - buffer)});
		SAME(!writer.overflow && wire_next_declaration(&written, field, &again));
		SAME(view_equal(again.step, ours.step) && view_equal(again.name, ours.name));
		SAME(again.kind == ours.kind && again.partition == ours.partition && again.version == ours.version);
		SAME(again.ttl_ms == ours.ttl_ms && written.at == writer.at);
	}
	SAME(!wire_next_declaration(&reader, field, &ours));
	return NULL;
}

static const char *compare_to_worker(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkBridge__ToWorker *theirs = (const void *)message;
	SAME(theirs->seq == ours->envelope.seq);
	SAME(theirs->processing_time_ms == ours->envelope.processing_time_ms);
	SAME((uint32_t)theirs->kind_case == ours->envelope.kind);
	if (ours->envelope.kind == TO_WORKER_OPEN)
		return compare_manifest(theirs->open->n_state_manifest, theirs->open->state_manifest,
					ours->envelope.body, OPEN_STATE_MANIFEST);
	if (ours->envelope.kind == TO_WORKER_RESTORE_CHUNK)
		return compare_entries(theirs->restore_chunk->n_entries, theirs->restore_chunk->entries,
				       theirs->restore_chunk->checksum, ours);
	if (ours->envelope.kind == TO_WORKER_RESTORE_END)
		SAME(theirs->restore_end->entries == ours->number);
	if (ours->envelope.kind == TO_WORKER_BATCH)
		return compare_records(theirs->batch->n_records, theirs->batch->records, &ours->batch);
	if (ours->envelope.kind == TO_WORKER_WATERMARK)
		SAME(theirs->watermark->timestamp == (int64_t)ours->number);
	if (ours->envelope.kind == TO_WORKER_BARRIER)
		SAME(theirs->barrier->checkpoint_id == ours->number);
	if (ours->envelope.kind == TO_WORKER_WATERMARK_STATUS && ours->flag) /* W5 */
		SAME(theirs->watermark_status->idle);
	if (ours->envelope.kind == TO_WORKER_CLOSE)
		SAME(same_text(theirs->close->reason, ours->text));
	return NULL;
}

static const char *compare_results(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkBridge__Results *theirs = (const void *)message;
	SAME(theirs->more || !ours->more); /* W5 */
	return compare_records(theirs->n_records, theirs->records, &ours->batch);
}

static const char *compare_from_worker(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkBridge__FromWorker *theirs = (const void *)message;
	SAME(theirs->seq == ours->envelope.seq);
	SAME(theirs->next_wakeup_ms == ours->envelope.processing_time_ms);
	SAME((uint32_t)theirs->kind_case == ours->envelope.kind);
	if (ours->envelope.kind == FROM_WORKER_OPEN_ACK)
		return compare_manifest(theirs->open_ack->n_state_manifest, theirs->open_ack->state_manifest,
					ours->envelope.body, OPEN_ACK_STATE_MANIFEST);
	if (ours->envelope.kind == FROM_WORKER_STATE_DELTA)
		return compare_entries(theirs->state_delta->n_entries, theirs->state_delta->entries,
				       theirs->state_delta->checksum, ours);
	if (ours->envelope.kind == FROM_WORKER_RESTORE_ACK)
		SAME(theirs->restore_ack->entries == ours->number && theirs->restore_ack->dropped == ours->dropped);
	if (ours->envelope.kind == FROM_WORKER_RESULTS)
		return compare_results(&theirs->results->base, ours);
	if (ours->envelope.kind == FROM_WORKER_BARRIER_ACK)
		SAME(theirs->barrier_ack->checkpoint_id == ours->number);
	return NULL;
}

static const char *compare_one_record(const ProtobufCMessage *message, const struct reading *ours)
{
	SAME(ours->batch.count == 1);
	return compare_record((const void *)message, &ours->batch.records[0]);
}

/* A Message is a Record with fewer fields. */
static const char *compare_message(const FlinkWorker__Message *theirs, const struct reading *ours)
{
	SAME((theirs == NULL) == (ours->unary.message.data == NULL));
	SAME(ours->batch.count == (theirs != NULL));
	if (theirs == NULL)
		return NULL;
	const struct wire_record *record = &ours->batch.records[0];
	SAME(same_bytes(theirs->payload, record->payload));
	SAME(theirs->timestamp == record->timestamp);
	/* The two generated types of a header are the same pair of strings. */
	return compare_headers(theirs->n_headers,
			       (FlinkBridge__Record__HeadersEntry *const *)(const void *)theirs->headers, record);
}

static const char *compare_window(const FlinkWorker__WindowIdentifier *theirs, const struct reading *ours)
{
	SAME(theirs != NULL || (ours->unary.window_key.size == 0 && ours->unary.window_start == 0));
	if (theirs == NULL)
		return NULL;
	SAME(same_text(theirs->partition_key, ours->unary.window_key));
	SAME(theirs->window_start_time == ours->unary.window_start);
	return NULL;
}

static const char *compare_process_message(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkWorker__ProcessMessageRequest *theirs = (const void *)message;
	SAME(theirs->segment_id == ours->unary.segment);
	return compare_message(theirs->message, ours);
}

static const char *compare_process_watermark(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkWorker__ProcessWatermarkRequest *theirs = (const void *)message;
	SAME(theirs->segment_id == ours->unary.segment);
	SAME(theirs->timestamp == ours->unary.timestamp);
	return NULL;
}

static const char *compare_add_to_window(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkWorker__AddToWindowRequest *theirs = (const void *)message;
	SAME(theirs->segment_id == ours->unary.segment);
	const char *difference = compare_window(theirs->window_id, ours);
	return difference != NULL ? difference : compare_message(theirs->message, ours);
}

static const char *compare_trigger_window(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkWorker__TriggerWindowRequest *theirs = (const void *)message;
	SAME(theirs->segment_id == ours->unary.segment);
	return compare_window(theirs->window_id, ours);
}

static const char *compare_state_delta(const ProtobufCMessage *message, const struct reading *ours)
{
	const FlinkBridge__StateDelta *theirs = (const void *)message;
	return compare_entries(theirs->n_entries, theirs->entries, theirs->checksum, ours);
}

/* ---- The surfaces ---- */

static const struct {
	const ProtobufCMessageDescriptor *descriptor;
	bool (*read)(struct view message, struct reading *out);
	const char *(*compare)(const ProtobufCMessage *theirs, const struct reading *ours);
} surfaces[SURFACE_COUNT] = {
    [SURFACE_TO_WORKER] = {&flink_bridge__to_worker__descriptor, read_to_worker, compare_to_worker},
    [SURFACE_FROM_WORKER] = {&flink_bridge__from_worker__descriptor, read_from_worker, compare_from_worker},
    [SURFACE_RECORD] = {&flink_bridge__record__descriptor, read_record, compare_one_record},
    [SURFACE_RESULTS] = {&flink_bridge__results__descriptor, read_results, compare_results},
    [SURFACE_PROCESS_MESSAGE] = {&flink_worker__process_message_request__descriptor, read_process_message,
				 compare_process_message},
    [SURFACE_PROCESS_WATERMARK] = {&flink_worker__process_watermark_request__descriptor, read_process_watermark,
				   compare_process_watermark},
    [SURFACE_ADD_TO_WINDOW] = {&flink_worker__add_to_window_request__descriptor, read_add_to_window,
			       compare_add_to_window},
    [SURFACE_TRIGGER_WINDOW] = {&flink_worker__trigger_window_request__descriptor, read_trigger_window,
				compare_trigger_window},
    [SURFACE_STATE_DELTA] = {&flink_bridge__state_delta__descriptor, read_state_delta, compare_state_delta},
};

const ProtobufCMessageDescriptor *surface_descriptor(enum surface surface)
{
	return surfaces[surface].descriptor;
}

struct agreement wire_agree(enum surface surface, struct view message)
{
	const ProtobufCMessageDescriptor *descriptor = surfaces[surface].descriptor;
	struct reading ours = {0};
	struct agreement agreement = {.taken = surfaces[surface].read(message, &ours)};
	ProtobufCMessage *theirs = protobuf_c_message_unpack(descriptor, NULL, message.size, message.data);
	if (agreement.taken && theirs == NULL)
		agreement.difference = "wire takes what protobuf-c refuses";
	else if (!agreement.taken && theirs != NULL && !(agreement.excused = excused(descriptor, message)))
		agreement.difference = "wire refuses what protobuf-c takes";
	else if (agreement.taken)
		agreement.difference = surfaces[surface].compare(theirs, &ours);
	if (agreement.taken && agreement.difference == NULL)
		agreement.difference = compare_written(&ours.batch);
	if (theirs != NULL)
		protobuf_c_message_free_unpacked(theirs, NULL);
	wire_batch_free(&ours.batch);
	return agreement;
}
