/*
 * The gRPC client against a real server: a small one on the C core in this process. Both are polled by the one thread
 * of the test in turn, so that nothing here waits for a clock.
 */
#include "cli/client.h"

#include <check.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/check_main.h"
#include "tests/tsan_grpc.h"

/* ---- The server: /t/Echo unary, /t/Fail unary, /t/Header unary, /t/Stream echoes, /t/Deaf never reads, /t/Stop refuses ---- */

enum server_tag_kind { SERVER_NEW, SERVER_READ, SERVER_WRITTEN, SERVER_DONE, SERVER_CLOSED };

struct server_call;

struct server_tag {
	enum server_tag_kind kind;
	struct server_call *call;
};

struct server_call {
	grpc_call *call;
	grpc_call_details details;
	grpc_metadata_array metadata;
	grpc_byte_buffer *message;
	int cancelled;
	bool greeted;
	struct server_tag tags[SERVER_CLOSED + 1];
};

struct server {
	grpc_server *server;
	grpc_completion_queue *queue;
	char directory[64], address[96];
	unsigned calls;
};

/* Waits for the next call. */
static void server_request(struct server *server)
{
	struct server_call *call = calloc(1, sizeof(*call));
	grpc_call_details_init(&call->details);
	grpc_metadata_array_init(&call->metadata);
	for (int kind = 0; kind <= SERVER_CLOSED; kind++)
		call->tags[kind] = (struct server_tag){(enum server_tag_kind)kind, call};
	ck_assert_int_eq(grpc_server_request_call(server->server, &call->call, &call->details, &call->metadata,
						  server->queue, server->queue, &call->tags[SERVER_NEW]),
			 GRPC_CALL_OK);
}

static void server_start(struct server *server)
{
	grpc_init();
	snprintf(server->directory, sizeof(server->directory), "/tmp/check_client.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(server->directory));
	snprintf(server->address, sizeof(server->address), "unix:%s/s", server->directory);
	server->server = grpc_server_create(NULL, NULL);
	server->queue = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(server->server, server->queue, NULL);
	grpc_server_credentials *insecure = grpc_insecure_server_credentials_create();
	ck_assert_int_ne(grpc_server_add_http2_port(server->server, server->address, insecure), 0);
	grpc_server_credentials_release(insecure);
	grpc_server_start(server->server);
	server_request(server);
}

static void server_batch(struct server_call *call, const grpc_op *ops, size_t count, enum server_tag_kind kind)
{
	ck_assert_int_eq(grpc_call_start_batch(call->call, ops, count, &call->tags[kind], NULL), GRPC_CALL_OK);
}

static void server_read(struct server_call *call)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &call->message;
	server_batch(call, &op, 1, SERVER_READ);
}

/* Ends a call, behind the message if there is one. */
static void server_finish(struct server_call *call, grpc_status_code status, const char *text)
{
	grpc_slice details = grpc_slice_from_static_string(text);
	grpc_op ops[3];
	size_t count = 0;
	if (!call->greeted)
		ops[count++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
	if (call->message != NULL) {
		ops[count] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
		ops[count++].data.send_message.send_message = call->message;
	}
	ops[count] = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
	ops[count].data.send_status_from_server.status = status;
	ops[count++].data.send_status_from_server.status_details = &details;
	server_batch(call, ops, count, SERVER_DONE);
}

static void server_echo(struct server_call *call)
{
	grpc_op ops[2];
	size_t count = 0;
	if (!call->greeted)
		ops[count++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
	call->greeted = true;
	ops[count] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
	ops[count++].data.send_message.send_message = call->message;
	server_batch(call, ops, count, SERVER_WRITTEN);
}

static bool server_path(const struct server_call *call, const char *path)
{
	return grpc_slice_str_cmp(call->details.method, path) == 0;
}

/* The value of the metadata "bridge-slot" becomes the reply. */
static void server_reply_header(struct server_call *call)
{
	for (size_t i = 0; i < call->metadata.count; i++) {
		if (grpc_slice_str_cmp(call->metadata.metadata[i].key, "bridge-slot") != 0)
			continue;
		grpc_byte_buffer_destroy(call->message);
		call->message = grpc_raw_byte_buffer_create(&call->metadata.metadata[i].value, 1);
	}
	server_finish(call, GRPC_STATUS_OK, "");
}

/* A message, or the end of the stream, was read. */
static void server_got(struct server_call *call)
{
	if (server_path(call, "/t/Header"))
		server_reply_header(call);
	else if (server_path(call, "/t/Stream") && call->message != NULL)
		server_echo(call);
	else
		server_finish(call, GRPC_STATUS_OK, "");
}

static void server_new(struct server *server, struct server_call *call)
{
	server->calls++;
	server_request(server);
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	op.data.recv_close_on_server.cancelled = &call->cancelled;
	server_batch(call, &op, 1, SERVER_CLOSED);
	if (server_path(call, "/t/Fail") || server_path(call, "/t/Stop"))
		server_finish(call, GRPC_STATUS_INVALID_ARGUMENT, "unknown segment 7");
	else if (!server_path(call, "/t/Deaf"))
		server_read(call);
}

/* One completion of the server, if there is one. */
static void server_turn(struct server *server)
{
	gpr_timespec soon = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(1, GPR_TIMESPAN));
	grpc_event event = grpc_completion_queue_next(server->queue, soon, NULL);
	if (event.type != GRPC_OP_COMPLETE)
		return;
	struct server_tag *tag = event.tag;
	if (tag->kind == SERVER_NEW && event.success)
		server_new(server, tag->call);
	else if (tag->kind == SERVER_READ)
		server_got(tag->call);
	else if (tag->kind == SERVER_WRITTEN && event.success) {
		grpc_byte_buffer_destroy(tag->call->message);
		server_read(tag->call);
	}
}

static void server_stop(struct server *server)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/s", server->directory);
	unlink(path);
	ck_assert_int_eq(rmdir(server->directory), 0);
}

/* The next event that is not a timeout; serves meanwhile. */
static enum client_event_kind next_event(struct server *server, struct client *client, struct client_event *event)
{
	while (client_poll(client, 0, event) == CLIENT_TIMEOUT)
		server_turn(server);
	return event->kind;
}

static grpc_slice slice_of(size_t size, uint8_t fill)
{
	grpc_slice slice = grpc_slice_malloc(size);
	memset(GRPC_SLICE_START_PTR(slice), fill, size);
	return slice;
}

static void assert_filled(grpc_slice slice, size_t size, uint8_t fill)
{
	size_t wrong = 0;
	ck_assert_uint_eq(GRPC_SLICE_LENGTH(slice), size);
	for (size_t i = 0; i < size; i++)
		wrong += GRPC_SLICE_START_PTR(slice)[i] != fill;
	ck_assert_uint_eq(wrong, 0);
}

static const struct client_options plain;
static const struct client_call_options plain_call;

START_TEST(test_unary_many_in_flight)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	const void *echo = client_method(client, "/t/Echo");
	char owners[64];
	for (int i = 0; i < 64; i++)
		ck_assert(client_call(client, echo, slice_of((size_t)i * 100, (uint8_t)i), &plain_call, &owners[i]));
	ck_assert_uint_eq(client_calls_in_flight(client), 64);
	bool seen[64] = {0};
	for (int i = 0; i < 64; i++) {
		struct client_event event;
		ck_assert_int_eq(next_event(&server, client, &event), CLIENT_REPLY);
		long which = (char *)event.owner - owners;
		ck_assert(which >= 0 && which < 64 && !seen[which]);
		seen[which] = true;
		ck_assert_int_eq(event.status, GRPC_STATUS_OK);
		assert_filled(event.message, (size_t)which * 100, (uint8_t)which);
	}
	ck_assert_uint_eq(client_calls_in_flight(client), 0);
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_unary_failure_has_words)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	struct client_event event;
	client_call(client, client_method(client, "/t/Fail"), slice_of(3, 'x'), &plain_call, NULL);
	ck_assert_int_eq(next_event(&server, client, &event), CLIENT_REPLY);
	ck_assert_int_eq(event.status, GRPC_STATUS_INVALID_ARGUMENT);
	ck_assert(view_equal(event.text, view_of("unknown segment 7")));
	ck_assert_str_eq(client_status_name(event.status), "INVALID_ARGUMENT");
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_metadata_is_sent)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	struct client_event event;
	struct client_call_options options = {.metadata_key = "bridge-slot", .metadata_value = "3"};
	client_call(client, client_method(client, "/t/Header"), slice_of(1, 'x'), &options, NULL);
	ck_assert_int_eq(next_event(&server, client, &event), CLIENT_REPLY);
	assert_filled(event.message, 1, '3');
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_no_server_is_unavailable)
{
	struct client *client = client_connect("unix:/nonexistent/socket", &plain);
	struct client_event event;
	client_call(client, client_method(client, "/t/Echo"), slice_of(1, 'x'), &plain_call, NULL);
	ck_assert_int_eq(client_poll(client, CLIENT_FOREVER, &event), CLIENT_REPLY);
	ck_assert_int_eq(event.status, GRPC_STATUS_UNAVAILABLE);
	client_close(client);
}
END_TEST

START_TEST(test_waits_for_a_server)
{
	struct server server = {0};
	snprintf(server.address, sizeof(server.address), "unix:/nonexistent/socket");
	struct client *client = client_connect(server.address, &plain);
	struct client_event event;
	struct client_call_options options = {.wait_for_ready = true, .deadline_ns = 1};
	client_call(client, client_method(client, "/t/Echo"), slice_of(1, 'x'), &options, NULL);
	ck_assert_int_eq(client_poll(client, CLIENT_FOREVER, &event), CLIENT_REPLY);
	ck_assert_int_eq(event.status, GRPC_STATUS_DEADLINE_EXCEEDED);
	client_close(client);
}
END_TEST

START_TEST(test_stream_echoes_in_order)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	struct client_stream *stream =
	    client_stream_open(client, client_method(client, "/t/Stream"), 4, &plain_call, &server);
	struct client_event event;
	unsigned sent = 0, received = 0;
	client_stream_receive(stream);
	for (;;) {
		grpc_slice message = slice_of(sent * 700 + 1, (uint8_t)sent);
		while (sent < 100 && client_stream_send(stream, message) == CLIENT_TAKEN) {
			sent++;
			message = slice_of(sent * 700 + 1, (uint8_t)sent);
		}
		grpc_slice_unref(message);
		if (sent == 100)
			client_stream_half_close(stream);
		enum client_event_kind kind = next_event(&server, client, &event);
		ck_assert_ptr_eq(event.owner, &server);
		if (kind == CLIENT_ENDED)
			break;
		if (kind != CLIENT_MESSAGE)
			continue;
		assert_filled(event.message, received * 700 + 1, (uint8_t)received);
		received++;
		client_stream_receive(stream);
	}
	ck_assert_uint_eq(received, 100);
	ck_assert_int_eq(event.status, GRPC_STATUS_OK);
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_large_messages_come_in_one_piece)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	struct client_stream *stream =
	    client_stream_open(client, client_method(client, "/t/Stream"), 4, &plain_call, NULL);
	struct client_event event;
	ck_assert_int_eq(client_stream_send(stream, slice_of(3 << 20, 'z')), CLIENT_TAKEN);
	client_stream_receive(stream);
	ck_assert_int_eq(next_event(&server, client, &event), CLIENT_MESSAGE);
	ck_assert_uint_eq(GRPC_SLICE_LENGTH(event.message), 3 << 20);
	grpc_slice kept = grpc_slice_ref(event.message);
	client_stream_half_close(stream);
	ck_assert_int_eq(next_event(&server, client, &event), CLIENT_ENDED);
	assert_filled(kept, 3 << 20, 'z');
	grpc_slice_unref(kept);
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_full_queue_says_so_and_makes_room)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	struct client_stream *stream =
	    client_stream_open(client, client_method(client, "/t/Stream"), 2, &plain_call, NULL);
	struct client_event event;
	unsigned taken = 0;
	grpc_slice message = slice_of(1 << 20, 1);
	while (client_stream_send(stream, grpc_slice_ref(message)) == CLIENT_TAKEN)
		taken++;
	grpc_slice_unref(message);
	grpc_slice_unref(message);
	ck_assert_uint_ge(taken, 2);
	ck_assert_uint_eq(client_stream_queued(stream), 2);
	client_stream_receive(stream);
	while (next_event(&server, client, &event) != CLIENT_ROOM) {
		ck_assert_int_eq(event.kind, CLIENT_MESSAGE);
		client_stream_receive(stream);
	}
	ck_assert_uint_lt(client_stream_queued(stream), 2);
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_refused_stream_ends_with_words)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	struct client_stream *stream =
	    client_stream_open(client, client_method(client, "/t/Stop"), 2, &plain_call, NULL);
	struct client_event event;
	client_stream_receive(stream);
	ck_assert_int_eq(next_event(&server, client, &event), CLIENT_ENDED);
	ck_assert_int_eq(event.status, GRPC_STATUS_INVALID_ARGUMENT);
	ck_assert(view_equal(event.text, view_of("unknown segment 7")));
	grpc_slice message = slice_of(1, 'x');
	ck_assert_int_eq(client_stream_send(stream, message), CLIENT_GONE);
	grpc_slice_unref(message);
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_cancelled_stream_ends)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	struct client_stream *stream =
	    client_stream_open(client, client_method(client, "/t/Deaf"), 2, &plain_call, NULL);
	struct client_event event;
	client_stream_receive(stream);
	while (server.calls == 0)
		server_turn(&server);
	client_stream_cancel(stream);
	ck_assert_int_eq(next_event(&server, client, &event), CLIENT_ENDED);
	ck_assert_int_eq(event.status, GRPC_STATUS_CANCELLED);
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_close_cancels_everything)
{
	struct server server = {0};
	server_start(&server);
	struct client *client = client_connect(server.address, &plain);
	for (int i = 0; i < 20; i++) {
		struct client_stream *stream =
		    client_stream_open(client, client_method(client, "/t/Deaf"), 2, &plain_call, NULL);
		ck_assert_int_eq(client_stream_send(stream, slice_of(100, 'x')), CLIENT_TAKEN);
		client_call(client, client_method(client, "/t/Deaf"), slice_of(1, 'x'), &plain_call, NULL);
		if (i == 7)
			break;
	}
	client_close(client);
	server_stop(&server);
}
END_TEST

START_TEST(test_wake_wakes_once)
{
	struct client *client = client_connect("unix:/nonexistent/socket", &plain);
	struct client_event event;
	client_wake(client);
	client_wake(client);
	ck_assert_int_eq(client_poll(client, CLIENT_FOREVER, &event), CLIENT_WOKEN);
	ck_assert_int_eq(client_poll(client, 0, &event), CLIENT_TIMEOUT);
	client_wake(client);
	ck_assert_int_eq(client_poll(client, CLIENT_FOREVER, &event), CLIENT_WOKEN);
	client_close(client);
}
END_TEST

static Suite *client_suite(void)
{
	Suite *suite = suite_create("client");
	TCase *tests = tcase_create("client");
	tcase_add_test(tests, test_unary_many_in_flight);
	tcase_add_test(tests, test_unary_failure_has_words);
	tcase_add_test(tests, test_metadata_is_sent);
	tcase_add_test(tests, test_no_server_is_unavailable);
	tcase_add_test(tests, test_waits_for_a_server);
	tcase_add_test(tests, test_stream_echoes_in_order);
	tcase_add_test(tests, test_large_messages_come_in_one_piece);
	tcase_add_test(tests, test_full_queue_says_so_and_makes_room);
	tcase_add_test(tests, test_refused_stream_ends_with_words);
	tcase_add_test(tests, test_cancelled_stream_ends);
	tcase_add_test(tests, test_close_cancels_everything);
	tcase_add_test(tests, test_wake_wakes_once);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(client_suite)
