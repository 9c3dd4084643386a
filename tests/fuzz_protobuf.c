/*
 * Fuzz target: what is left to protobuf-c. The first byte of an input chooses the message, the rest is its bytes; what unpacks
 * must pack to the size announced. A ToWorker also goes through the front's checks of an Open, which
 * either refuse it in words or keep to their own limits.
 */
#include <stdlib.h>

#include "flink_bridge.pb-c.h"
#include "flink_worker.pb-c.h"
#include "server/front.h"
#include "shared/log.h"
#include "shared/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An Open is checked against the pipeline "p" with two segments and this topology: tests/make_corpus.c knows it, too. */
static const struct segment segments[2];
static const struct descriptor descriptor = {
    .pipeline = "p", .topology_hash = "0123456789abcdef0123456789abcdef", .segments = segments, .segment_count = 2};

static const ProtobufCMessageDescriptor *const messages[] = {
    &flink_bridge__to_worker__descriptor,
    &flink_bridge__from_worker__descriptor,
    &flink_worker__process_message_request__descriptor,
    &flink_worker__process_message_response__descriptor,
    &flink_worker__process_watermark_request__descriptor,
    &flink_worker__add_to_window_request__descriptor,
    &flink_worker__trigger_window_request__descriptor,
};

/* Whether a text of an Open that was taken keeps to the limits. */
static bool text_sound(const char *text)
{
	return text[0] != '\0' && strlen(text) <= 256 && utf8_valid(view_of(text));
}

/* Lets the front look at a first message. The session has a write under way, so it sends no status. */
static void check_open(struct view message)
{
	static struct front_page *page;
	if (page == NULL)
		page = calloc(1, sizeof(*page) + DESCRIPTOR_SEGMENTS_MAX * sizeof(page->segment[0]));
	struct config config = {0};
	struct front *front = calloc(1, sizeof(*front));
	CHECK(page != NULL && front != NULL);
	*front = (struct front){.config = &config, .descriptor = &descriptor, .page = page};
	struct session session = {.front = front, .reading = true, .writing = true};
	struct open_request *open = open_check(&session, message);
	if (open == NULL) {
		CHECK(session.state == SESSION_ENDING && session.status != GRPC_STATUS_OK);
		CHECK(session.status_text[0] != '\0' && utf8_valid(view_of(session.status_text)));
	} else {
		CHECK(session.state == SESSION_OPENING);
		CHECK(open->segment < descriptor.segment_count && open->subtask < open->parallelism);
		CHECK(text_sound(open->job) && text_sound(open->attempt));
		CHECK(text_sound(open->allocation) && text_sound(open->jvm));
	}
	open_request_free(open);
	free(front);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return -1;
	const ProtobufCMessageDescriptor *kind = messages[data[0] % (sizeof(messages) / sizeof(messages[0]))];
	struct view bytes = {data + 1, size - 1};
	if (kind == &flink_bridge__to_worker__descriptor)
		check_open(bytes);
	ProtobufCMessage *message = protobuf_c_message_unpack(kind, NULL, bytes.size, bytes.data);
	if (message == NULL)
		return 0;
	size_t packed_size = protobuf_c_message_get_packed_size(message);
	uint8_t *packed = malloc(packed_size + 1);
	CHECK(packed != NULL && protobuf_c_message_pack(message, packed) == packed_size);
	/* It may refuse what it packed: an unknown field 0 is refused in its shortest form and taken in a longer one. */
	ProtobufCMessage *again = protobuf_c_message_unpack(kind, NULL, packed_size, packed);
	if (again != NULL) {
		CHECK(protobuf_c_message_get_packed_size(again) == packed_size);
		protobuf_c_message_free_unpacked(again, NULL);
	}
	protobuf_c_message_free_unpacked(message, NULL);
	free(packed);
	return 0;
}
