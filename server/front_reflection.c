/*
 * Server reflection (v1 and v1alpha): lets tools such as grpcurl list the services and describe their messages.
 *
 * The build puts the descriptors of all contracts into the program, as protoc wrote them: a FileDescriptorSet. A request
 * for a file or a symbol is answered with the file that has it first and all others behind it, so a client never has to
 * ask again for an import. Extensions do not exist here.
 */
#include "server/front.h"

#include <stdlib.h>
#include <string.h>

#include "shared/wire.h"

/* The bytes of the FileDescriptorSet; the Makefile names the file. */
__asm__(".section .rodata\n"
	".balign 8\n"
	".global bridge_protoset\n"
	"bridge_protoset:\n"
	".incbin \"" BRIDGE_PROTOSET "\"\n"
	".global bridge_protoset_end\n"
	"bridge_protoset_end:\n"
	".previous\n");
extern const uint8_t bridge_protoset[], bridge_protoset_end[];

/* Field numbers of descriptor.proto and reflection.proto. */
enum {
	SET_FILE = 1,
	FILE_NAME = 1,
	FILE_PACKAGE = 2,
	FILE_MESSAGE = 4,
	FILE_ENUM = 5,
	FILE_SERVICE = 6,
	ENTRY_NAME = 1,
	REQUEST_FILE_BY_NAME = 3,
	REQUEST_FILE_BY_SYMBOL = 4,
	REQUEST_LIST_SERVICES = 7,
	RESPONSE_ORIGINAL_REQUEST = 2,
	RESPONSE_FILES = 4,
	RESPONSE_SERVICES = 6,
	RESPONSE_ERROR = 7,
};

enum { REFLECTION_STREAMS_MAX = 16, REPLY_ROOM = 4096 };

static const char *const methods[] = {
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
};
enum { METHODS = sizeof methods / sizeof *methods };

/* A stream: one question, one answer, in turn. */
struct reflection_call {
	struct front *front;
	void *method;
	grpc_call *call;
	gpr_timespec deadline;
	grpc_metadata_array metadata;
	grpc_byte_buffer *question, *answer;
	struct tag tag, close_tag;
	int cancelled;
	unsigned outstanding;
	bool counted;
};

static void *registered[METHODS];
static unsigned streams;

/* ---- What is known -------------------------------------------------------------------------------------------------- */

/* The n-th field of a kind in a message; false when there are not that many. */
static bool field_nth(struct view message, uint32_t number, unsigned n, struct view *out)
{
	struct wire_reader reader;
	struct wire_field field;
	wire_reader_init(&reader, message);
	while (wire_next(&reader, &field)) {
		if (field.number != number || field.type != WIRE_BYTES || n-- > 0)
			continue;
		*out = field.bytes;
		return true;
	}
	return false;
}

/* The n-th file of the set. */
static bool file_nth(unsigned n, struct view *file)
{
	struct view set = {bridge_protoset, (size_t)(bridge_protoset_end - bridge_protoset)};
	return field_nth(set, SET_FILE, n, file);
}

/* Whether a file defines a message, enum or service of that name (or one that it is the outer part of). */
static bool file_defines(struct view file, struct view symbol)
{
	struct view package = {NULL, 0}, entry, name;
	field_nth(file, FILE_PACKAGE, 0, &package);
	if (symbol.size <= package.size + 1 || memcmp(symbol.data, package.data, package.size) != 0 ||
	    symbol.data[package.size] != '.')
		return false;
	struct view rest = {symbol.data + package.size + 1, symbol.size - package.size - 1};
	const uint8_t *dot = memchr(rest.data, '.', rest.size);
	struct view head = {rest.data, dot ? (size_t)(dot - rest.data) : rest.size};
	static const uint32_t kinds[] = {FILE_MESSAGE, FILE_ENUM, FILE_SERVICE};
	for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
		for (unsigned n = 0; field_nth(file, kinds[kind], n, &entry); n++)
			if (field_nth(entry, ENTRY_NAME, 0, &name) && view_equal(name, head))
				return true;
	return false;
}

/* Whether a question for a file or symbol is about this file. */
static bool file_matches(struct view file, uint32_t question, struct view what)
{
	struct view name;
	if (question == REQUEST_FILE_BY_SYMBOL)
		return file_defines(file, what);
	return field_nth(file, FILE_NAME, 0, &name) && view_equal(name, what);
}

/* ---- Answers -------------------------------------------------------------------------------------------------------- */

/* Writes all files, the one asked for first; false when there is none such. */
static bool put_files(struct wire_writer *writer, uint32_t question, struct view what)
{
	struct view file;
	unsigned first = 0;
	while (file_nth(first, &file) && !file_matches(file, question, what))
		first++;
	if (!file_nth(first, &file))
		return false;
	uint8_t *response = wire_begin(writer, RESPONSE_FILES);
	wire_put_bytes_field(writer, 1, file);
	for (unsigned n = 0; file_nth(n, &file); n++)
		if (n != first)
			wire_put_bytes_field(writer, 1, file);
	wire_end(writer, response);
	return true;
}

/* Writes the names of all services. */
static void put_services(struct wire_writer *writer)
{
	struct view file, package, service, name;
	uint8_t *response = wire_begin(writer, RESPONSE_SERVICES);
	for (unsigned n = 0; file_nth(n, &file); n++)
		for (unsigned i = 0; field_nth(file, FILE_SERVICE, i, &service); i++) {
			char full[256];
			if (!field_nth(file, FILE_PACKAGE, 0, &package) || !field_nth(service, ENTRY_NAME, 0, &name))
				continue;
			int length = snprintf(full, sizeof full, "%.*s.%.*s", (int)package.size,
					      (const char *)package.data, (int)name.size, (const char *)name.data);
			uint8_t *entry = wire_begin(writer, 1);
			wire_put_bytes_field(writer, 1, (struct view){(const uint8_t *)full, (size_t)length});
			wire_end(writer, entry);
		}
	wire_end(writer, response);
}

/* Writes an error: a gRPC status code and words. */
static void put_error(struct wire_writer *writer, grpc_status_code code, const char *words)
{
	uint8_t *response = wire_begin(writer, RESPONSE_ERROR);
	wire_put_varint_field(writer, 1, code);
	wire_put_bytes_field(writer, 2, view_of(words));
	wire_end(writer, response);
}

/* Writes what answers a question. */
static void put_answer(struct wire_writer *writer, struct view question)
{
	struct wire_reader reader;
	struct wire_field field, asked = {0};
	wire_reader_init(&reader, question);
	while (wire_next(&reader, &field))
		if (field.number >= REQUEST_FILE_BY_NAME && field.number <= REQUEST_LIST_SERVICES &&
		    field.type == WIRE_BYTES)
			asked = field;
	wire_put_bytes_field(writer, RESPONSE_ORIGINAL_REQUEST, question);
	if (reader.malformed)
		put_error(writer, GRPC_STATUS_INVALID_ARGUMENT, "the request is not a well-formed protobuf message");
	else if (asked.number == REQUEST_LIST_SERVICES)
		put_services(writer);
	else if (asked.number != REQUEST_FILE_BY_NAME && asked.number != REQUEST_FILE_BY_SYMBOL)
		put_error(writer, GRPC_STATUS_NOT_FOUND, "there are no extensions here");
	else if (!put_files(writer, asked.number, asked.bytes))
		put_error(writer, GRPC_STATUS_NOT_FOUND, "no file or symbol of that name");
}

/* The message that answers a question. */
static grpc_byte_buffer *answer_to(grpc_byte_buffer *question)
{
	struct flat flat;
	if (!flat_read(&flat, question))
		return NULL;
	size_t room = (size_t)(bridge_protoset_end - bridge_protoset) + 2 * flat.view.size + REPLY_ROOM;
	grpc_slice slice = grpc_slice_malloc(room);
	struct wire_writer writer = {.at = GRPC_SLICE_START_PTR(slice), .end = GRPC_SLICE_START_PTR(slice) + room};
	put_answer(&writer, flat.view);
	CHECK(!writer.overflow);
	GRPC_SLICE_SET_LENGTH(slice, (size_t)(writer.at - GRPC_SLICE_START_PTR(slice)));
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	flat_release(&flat);
	return buffer;
}

/* ---- Streams -------------------------------------------------------------------------------------------------------- */

static void reflection_arrived(void *owner, bool ok);

/* Posts one request for a stream. */
static void reflection_post(struct front *front, void *method)
{
	struct reflection_call *call = calloc(1, sizeof *call);
	CHECK(call != NULL);
	call->front = front;
	call->method = method;
	call->tag = (struct tag){reflection_arrived, call};
	grpc_metadata_array_init(&call->metadata);
	CHECK(grpc_server_request_registered_call(front->server, method, &call->call, &call->deadline, &call->metadata,
						  NULL, front->queue, front->queue, &call->tag) == GRPC_CALL_OK);
}

/* One tag less can fire; frees the call after the last. */
static bool reflection_settle(struct reflection_call *call)
{
	if (--call->outstanding > 0)
		return true;
	streams -= call->counted;
	if (call->question)
		grpc_byte_buffer_destroy(call->question);
	if (call->answer)
		grpc_byte_buffer_destroy(call->answer);
	grpc_call_unref(call->call);
	grpc_metadata_array_destroy(&call->metadata);
	free(call);
	return false;
}

/* Starts a batch whose end calls `done`. */
static void reflection_start(struct reflection_call *call, const grpc_op *ops, size_t count, void (*done)(void *, bool))
{
	call->outstanding++;
	call->tag.done = done;
	CHECK(grpc_call_start_batch(call->call, ops, count, &call->tag, NULL) == GRPC_CALL_OK);
}

/* The status is sent, or the stream is over. */
static void reflection_over(void *owner, bool ok)
{
	(void)ok;
	reflection_settle(owner);
}

/* Ends a stream. */
static void reflection_end(struct reflection_call *call, grpc_status_code code)
{
	grpc_slice details = grpc_slice_from_static_string(code == GRPC_STATUS_OK ? "" : "too many reflection streams");
	grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
	op.data.send_status_from_server.status = code;
	op.data.send_status_from_server.status_details = &details;
	reflection_start(call, &op, 1, reflection_over);
}

static void reflection_asked(void *owner, bool ok);

/* An answer is through: waits for the next question. */
static void reflection_answered(void *owner, bool ok)
{
	struct reflection_call *call = owner;
	grpc_byte_buffer_destroy(call->answer);
	call->answer = NULL;
	if (ok && !call->front->draining) {
		grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->question};
		reflection_start(call, &op, 1, reflection_asked);
	} else {
		reflection_end(call, GRPC_STATUS_OK);
	}
	reflection_settle(call);
}

/* A question, or none any more. */
static void reflection_asked(void *owner, bool ok)
{
	struct reflection_call *call = owner;
	call->answer = ok && call->question ? answer_to(call->question) : NULL;
	if (call->question)
		grpc_byte_buffer_destroy(call->question);
	call->question = NULL;
	if (call->answer) {
		grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->answer};
		reflection_start(call, &op, 1, reflection_answered);
	} else {
		reflection_end(call, GRPC_STATUS_OK);
	}
	reflection_settle(call);
}

/* A stream arrived, or the server is shutting down. */
static void reflection_arrived(void *owner, bool ok)
{
	struct reflection_call *call = owner;
	if (!ok) {
		grpc_metadata_array_destroy(&call->metadata);
		free(call);
		return;
	}
	if (!call->front->draining)
		reflection_post(call->front, call->method);
	call->close_tag = (struct tag){reflection_over, call};
	grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	close.data.recv_close_on_server.cancelled = &call->cancelled;
	call->outstanding++;
	CHECK(grpc_call_start_batch(call->call, &close, 1, &call->close_tag, NULL) == GRPC_CALL_OK);
	grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_RECV_MESSAGE}};
	ops[1].data.recv_message.recv_message = &call->question;
	call->counted = streams < REFLECTION_STREAMS_MAX;
	streams += call->counted;
	if (call->counted)
		reflection_start(call, ops, 2, reflection_asked);
	else
		reflection_end(call, GRPC_STATUS_RESOURCE_EXHAUSTED);
}

void reflection_init(struct front *front)
{
	for (size_t i = 0; i < METHODS; i++) {
		registered[i] = grpc_server_register_method(front->server, methods[i], NULL, GRPC_SRM_PAYLOAD_NONE, 0);
		CHECK(registered[i] != NULL);
	}
}

void reflection_start_serving(struct front *front)
{
	for (size_t i = 0; i < METHODS; i++)
		reflection_post(front, registered[i]);
}
