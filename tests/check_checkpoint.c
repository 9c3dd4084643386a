/*
 * State that goes out and comes in over a Session, seen by a client on a worker's rings: in which order deltas stand to answers, what
 * a restore lets through, that neighbours have their turns meanwhile, and that a successor after every turn changes nothing.
 */
#include "tests/rig.h"

#include "tests/check_main.h"
#include "tests/state_table.h"

static struct rig rig;

/* What a client knows of a session. */
struct client {
	uint32_t channel;
	struct table table;
	uint64_t entries; /* told by deltas, parts of values counted as one */
	uint64_t deltas, results, records;
	uint64_t answered; /* seq of the last full answer */
	uint64_t restored; /* as RestoreAck says */
	bool promised;     /* the last Results said that more would come */
	FlinkBridge__OpenAck *ack;
	struct answer opened;
};

static struct client clients[3];

/* Segment 0 counts and sums by key; segment 1 collects by key. */
static void setup(void)
{
	rig_init(&rig);
	for (int i = 0; i < 2; i++) {
		struct spec *spec = rig_segment(&rig);
		spec->segment.keyed = true;
		if (i == 0)
			spec_add(spec, STEP_aggregate, "fields", "n=count\ntotal=sum(.v)", NULL);
		else
			spec_add(spec, STEP_batch, "size", "100", "time", "10s", NULL);
	}
}

/* Takes an entry of a delta over. */
static void entry_apply(struct client *client, const FlinkBridge__StateEntry *entry)
{
	client->entries += !entry->more;
	ck_assert_uint_lt(entry->state, client->ack->n_state_manifest);
	table_apply(&client->table, (struct wire_entry){
					.state = entry->state,
					.key_group = entry->key_group,
					.key_hash = entry->key_hash,
					.key = {entry->key.data, entry->key.len},
					.sub_key = {entry->sub_key.data, entry->sub_key.len},
					.value = {entry->value.data, entry->value.len},
					.removed = entry->removed,
					.more = entry->more,
				    });
}

/* Takes a FromWorker over. */
static void judge(struct client *client, const struct answer *answer)
{
	FlinkBridge__FromWorker *message = answer->message;
	bool last = answer->frame.flags == FRAME_LAST;
	ck_assert_uint_eq(answer->frame.kind, FRAME_ANSWER);
	ck_assert_uint_ge(message->seq, client->answered + 1);
	switch (message->kind_case) {
	case FLINK_BRIDGE__FROM_WORKER__KIND_STATE_DELTA:
		ck_assert(!last);
		ck_assert_uint_gt(message->state_delta->n_entries, 0);
		for (size_t i = 0; i < message->state_delta->n_entries; i++)
			entry_apply(client, message->state_delta->entries[i]);
		client->deltas++;
		return;
	case FLINK_BRIDGE__FROM_WORKER__KIND_RESULTS:
		ck_assert(message->results->more == !last);
		client->promised = message->results->more;
		client->results++;
		client->records += message->results->n_records;
		break;
	case FLINK_BRIDGE__FROM_WORKER__KIND_RESTORE_ACK:
		client->restored = message->restore_ack->entries;
		break;
	case FLINK_BRIDGE__FROM_WORKER__KIND_BARRIER_ACK:
		ck_assert(last && !client->promised);
		ck_assert_uint_eq(client->table.partial.size, 0);
		break;
	default:
		ck_abort_msg("kind %d: %s", message->kind_case, message->error->message);
	}
	if (last) {
		ck_assert(!client->promised);
		client->answered = message->seq;
	}
}

/* Takes what has come, so many answers at most. */
static void take(struct client *client, int most)
{
	struct answer answer;
	while (most-- > 0 && rig_try_take(&rig, client->channel, &answer)) {
		judge(client, &answer);
		answer_free(&answer);
	}
}

/* Opens a session; with a manifest it restores. */
static void open_session(struct client *client, uint32_t channel, uint32_t segment, const FlinkBridge__OpenAck *from)
{
	FlinkBridge__Open open = rig_open_message();
	*client = (struct client){.channel = channel, .answered = 1};
	open.segment = segment;
	open.parallelism = 1;
	open.key_group_last = 127;
	if (from != NULL) {
		open.restored_checkpoint = 5;
		open.n_state_manifest = from->n_state_manifest;
		open.state_manifest = from->state_manifest;
	}
	rig_open_channel(&rig, channel, segment);
	rig_send_open(&rig, channel, &open);
	rig_serve(&rig);
	client->opened = rig_take(&rig, channel);
	ck_assert_int_eq(client->opened.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_OPEN_ACK);
	client->ack = client->opened.message->open_ack;
	ck_assert_uint_gt(client->ack->n_state_manifest, 0);
}

static void forget(struct client *client)
{
	answer_free(&client->opened);
	table_free(&client->table);
}

/* Sends a Batch of one record for each of so many keys; false when there is no room. */
static bool try_feed(uint32_t channel, unsigned first, unsigned count)
{
	FlinkBridge__ToWorker message = rig_message(&rig, channel);
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__Record records[64], *pointers[64];
	char keys[64][16];
	ck_assert_uint_le(count, 64);
	for (unsigned i = 0; i < count; i++) {
		FlinkBridge__Record *record = pointers[i] = &records[i];
		flink_bridge__record__init(record);
		snprintf(keys[i], sizeof(keys[i]), "key-%u", first + i);
		record->payload = (ProtobufCBinaryData){7, (uint8_t *)"{\"v\":3}"};
		record->maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
		record->key = (ProtobufCBinaryData){strlen(keys[i]), (uint8_t *)keys[i]};
		record->key_hash = key_hash_of(view_of(keys[i]));
		record->key_group = key_group_of(record->key_hash, 128);
	}
	batch.n_records = count;
	batch.records = pointers;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	return rig_try_send(&rig, channel, &message);
}

/* One turn, and then, if wished, another worker. */
static void turn(bool adopt)
{
	ck_assert_int_ne(serve_turn(rig.serve), SERVE_DAMAGED);
	if (adopt)
		rig_adopt(&rig);
}

/* Feeds so many keys, reading little at a time. */
static void feed(struct client *client, unsigned keys, bool adopt)
{
	for (unsigned fed = 0; fed < keys || client->answered < rig.channels[client->channel].seq;) {
		if (fed < keys && try_feed(client->channel, fed, 50))
			fed += 50;
		turn(adopt);
		take(client, 3);
	}
}

static void barrier(struct client *client, bool adopt)
{
	rig_barrier(&rig, client->channel, 1);
	while (client->answered < rig.channels[client->channel].seq) {
		turn(adopt);
		take(client, 1);
	}
}

/* Sends a body made by wire's own writer. */
static bool try_send_raw(uint32_t channel, uint32_t kind, const uint8_t *body, size_t size)
{
	uint8_t *bytes = malloc(size + 64);
	struct wire_writer writer = {.at = bytes, .end = bytes + size + 64};
	struct frame header = {.kind = FRAME_MESSAGE, .seq = rig.channels[channel].seq + 1};
	ck_assert_ptr_nonnull(bytes);
	wire_put_varint_field(&writer, 1, header.seq);
	wire_put_varint_field(&writer, 2, RIG_TIME);
	wire_put_bytes_field(&writer, kind, (struct view){body, size});
	bool sent = rig_push(&rig, channel, header, bytes, (size_t)(writer.at - bytes));
	if (sent)
		rig.channels[channel].seq++;
	free(bytes);
	return sent;
}

/* A RestoreChunk's body out of rows, from `at` on, as large as it may be; returns its end. */
static uint64_t chunk_of(struct row **rows, uint64_t count, uint64_t at, size_t room, uint8_t *body, size_t *size)
{
	struct wire_writer writer = {.at = body, .end = body + room};
	uint8_t *start = body;
	for (; at < count && wire_entry_size(&rows[at]->entry) + 16 < (uint64_t)(writer.end - writer.at); at++)
		wire_put_entry(&writer, &rows[at]->entry);
	wire_put_fixed64_field(&writer, 2, wire_checksum((struct view){start, (size_t)(writer.at - start)}));
	ck_assert(!writer.overflow);
	*size = (size_t)(writer.at - start);
	return at;
}

/* Sends a table to a session that restores, chunk by chunk, and waits for the RestoreAck. */
static void restore(struct client *client, const struct table *table, size_t chunk, bool adopt)
{
	struct row **rows = table_rows(table);
	uint8_t *body = malloc(chunk), end[16];
	size_t size = 0;
	struct wire_writer writer = {.at = end, .end = end + sizeof(end)};
	for (uint64_t at = 0, next = 0; at < table->count;) {
		if (next == at)
			next = chunk_of(rows, table->count, at, chunk, body, &size);
		ck_assert_uint_gt(next, at);
		if (try_send_raw(client->channel, TO_WORKER_RESTORE_CHUNK, body, size))
			at = next;
		turn(adopt);
		take(client, 1);
	}
	wire_put_varint_field(&writer, 1, table->count);
	while (!try_send_raw(client->channel, TO_WORKER_RESTORE_END, end, (size_t)(writer.at - end)))
		turn(adopt);
	while (client->answered < rig.channels[client->channel].seq) {
		turn(adopt);
		take(client, 1);
	}
	ck_assert_uint_eq(client->restored, table->count);
	free(rows);
	free(body);
}

/* Both tables hold the same. */
static void same_tables(struct table *a, struct table *b)
{
	struct row **rows = table_rows(a);
	ck_assert_uint_eq(a->count, b->count);
	for (uint64_t i = 0; i < a->count; i++) {
		const struct row *other = *table_find(b, &rows[i]->entry);
		ck_assert(other != NULL && view_equal(other->entry.value, rows[i]->entry.value));
		ck_assert_int_eq(other->entry.key_hash, rows[i]->entry.key_hash);
	}
	free(rows);
}

/* ---- Tests --------------------------------------------------------------------------------------------------------- */

/* Between the answers of a message, never as the last of them; and the barrier sends the rest, once. */
START_TEST(deltas_come_before_the_last_answer)
{
	struct client *client = &clients[0];
	setup();
	rig.sidecar.config.delta_bytes = 600;
	rig_start(&rig);
	open_session(client, 1, 0, NULL);
	ck_assert(try_feed(1, 0, 5)); /* too little to be worth a message */
	rig_serve(&rig);
	take(client, 100);
	ck_assert_uint_eq(client->deltas, 0);
	ck_assert(try_feed(1, 100, 50));
	rig_serve(&rig);
	take(client, 100);
	ck_assert_uint_gt(client->deltas, 0);
	ck_assert_uint_eq(client->results, 3); /* one, one that promises another, and that */
	ck_assert_uint_eq(client->records, 55);
	ck_assert_uint_gt(client->table.count, 30);
	barrier(client, false);
	ck_assert_uint_eq(client->table.count, 55);
	ck_assert_uint_eq(client->entries, 55);
	barrier(client, false);
	ck_assert_uint_eq(client->entries, 55);
	forget(client);
	rig_stop(&rig);
}
END_TEST

/* With rings that hold little of it: the same state is told, each change once, whether workers live long or for a turn. */
START_TEST(a_successor_after_every_turn_tells_nothing_twice)
{
	for (int adopt = 0; adopt < 2; adopt++) {
		struct client *client = &clients[adopt];
		setup();
		rig.sizes.session_ring = 16 << 10;
		rig.sidecar.config.message_max = 4000;
		rig.sidecar.config.delta_bytes = _i == 0 ? UINT64_MAX : 1500;
		rig_start(&rig);
		open_session(client, 1, (uint32_t)_i, NULL);
		feed(client, 600, adopt);
		barrier(client, adopt);
		ck_assert_uint_gt(client->deltas, 5);
		rig_stop(&rig);
	}
	ck_assert(_i != 0 || clients[0].entries == 600);
	ck_assert_uint_eq(clients[1].entries, clients[0].entries);
	ck_assert_uint_eq(clients[1].records, clients[0].records);
	same_tables(&clients[0].table, &clients[1].table);
	forget(&clients[0]);
	forget(&clients[1]);
}
END_TEST

/* A restore that a worker has to itself for a turn at most; what comes afterwards is what would have come without it. */
START_TEST(a_successor_after_every_turn_restores_it_all)
{
	struct client *old = &clients[0], *new = &clients[1];
	setup();
	rig.sizes.session_ring = 16 << 10;
	rig.sidecar.config.message_max = 4000;
	rig_start(&rig);
	open_session(old, 1, (uint32_t)_i % 2, NULL);
	feed(old, 500, false);
	barrier(old, false);
	open_session(new, 2, (uint32_t)_i % 2, old->ack);
	restore(new, &old->table, 3000, _i >= 2);
	barrier(new, _i >= 2);
	ck_assert_uint_eq(new->entries, 0); /* the client has it all */
	feed(old, 500, false);
	barrier(old, false);
	feed(new, 500, _i >= 2);
	barrier(new, _i >= 2);
	ck_assert(_i % 2 == 1 || new->entries == 500);
	struct row **rows = table_rows(&new->table);
	for (uint64_t i = 0; i < new->table.count; i++) {
		const struct row *row = *table_find(&old->table, &rows[i]->entry);
		ck_assert(row != NULL && view_equal(row->entry.value, rows[i]->entry.value));
	}
	free(rows);
	forget(old);
	forget(new);
	rig_stop(&rig);
}
END_TEST

/* Neighbours are answered between two units of a large restore. */
START_TEST(neighbours_have_their_turns)
{
	struct client *model = &clients[0], *restoring = &clients[1], *neighbour = &clients[2];
	static struct table large;
	unsigned answered = 0;
	setup();
	rig.sizes.session_ring = 32 << 20;
	rig.sizes.arena = 256 << 20;
	rig_start(&rig);
	open_session(model, 1, 0, NULL);
	feed(model, 50, false);
	barrier(model, false);
	struct row **rows = table_rows(&model->table);
	for (unsigned i = 0; i < 150000; i++) {
		char key[16];
		snprintf(key, sizeof(key), "k-%u", i);
		struct wire_entry entry = rows[0]->entry;
		entry.key = view_of(key);
		entry.key_hash = key_hash_of(entry.key);
		entry.key_group = key_group_of(entry.key_hash, 128);
		table_put(&large, &entry);
	}
	free(rows);
	open_session(restoring, 2, 0, model->ack);
	open_session(neighbour, 3, 0, NULL);
	rows = table_rows(&large);
	uint8_t *body = malloc(200 << 10);
	size_t size;
	for (uint64_t at = 0; at < large.count;) {
		at = chunk_of(rows, large.count, at, 200 << 10, body, &size);
		ck_assert(try_send_raw(2, TO_WORKER_RESTORE_CHUNK, body, size));
	}
	for (;;) { /* all of the chunks wait in the ring, ahead of each record of the neighbour */
		uint64_t before = neighbour->answered;
		ck_assert(try_feed(3, answered, 1));
		turn(false);
		take(neighbour, 10);
		ck_assert_uint_gt(neighbour->answered, before);
		if (rig_position(&rig, 2)->seq == rig.channels[2].seq)
			break;
		answered++;
	}
	ck_assert_uint_gt(answered, 3);
	ck_assert_uint_eq(rig_position(&rig, 2)->snapshot.restored, large.count);
	free(rows);
	free(body);
	table_free(&large);
	for (int i = 0; i < 3; i++)
		forget(&clients[i]);
	rig_stop(&rig);
}
END_TEST

/* What may not come, or cannot be, ends that session with words, and no other. */
START_TEST(bad_restores_end_their_session)
{
	struct client *model = &clients[0], *restoring = &clients[1];
	uint8_t body[1000];
	size_t size;
	setup();
	rig_start(&rig);
	open_session(model, 1, 0, NULL);
	feed(model, 50, false);
	barrier(model, false);
	struct row **rows = table_rows(&model->table);
	chunk_of(rows, 5, 0, sizeof(body), body, &size);
	open_session(restoring, 2, 0, _i == 4 ? NULL : model->ack);
	switch (_i) {
	case 0:
		rig_barrier(&rig, 2, 1);
		rig_serve(&rig);
		rig_take_failure(&rig, 2, FLINK_BRIDGE__ERROR_CODE__ERROR_STATE, GRPC_STATUS_INVALID_ARGUMENT,
				 "nothing but RestoreChunk, RestoreEnd and Close");
		break;
	case 1:
		body[3] ^= 4;
		ck_assert(try_send_raw(2, TO_WORKER_RESTORE_CHUNK, body, size));
		rig_serve(&rig);
		rig_take_failure(&rig, 2, FLINK_BRIDGE__ERROR_CODE__ERROR_RESTORE, GRPC_STATUS_FAILED_PRECONDITION,
				 "the RestoreChunk is damaged");
		break;
	case 2:
		ck_assert(try_send_raw(2, TO_WORKER_RESTORE_CHUNK, body, size));
		ck_assert(try_send_raw(2, TO_WORKER_RESTORE_CHUNK, body, size));
		rig_serve(&rig);
		rig_take_failure(&rig, 2, FLINK_BRIDGE__ERROR_CODE__ERROR_RESTORE, GRPC_STATUS_FAILED_PRECONDITION,
				 "entry 0 of the RestoreChunk (state \"totals\" of step \"aggregate\")");
		break;
	case 3:
		ck_assert(try_send_raw(2, TO_WORKER_RESTORE_END, (const uint8_t *)"\x08\x05", 2));
		rig_serve(&rig);
		rig_take_failure(&rig, 2, FLINK_BRIDGE__ERROR_CODE__ERROR_RESTORE, GRPC_STATUS_FAILED_PRECONDITION,
				 "RestoreEnd says that 5 entries were sent; 0 came");
		break;
	default:
		ck_assert(try_send_raw(2, TO_WORKER_RESTORE_CHUNK, body, size));
		rig_serve(&rig);
		rig_take_failure(&rig, 2, FLINK_BRIDGE__ERROR_CODE__ERROR_STATE, GRPC_STATUS_INVALID_ARGUMENT,
				 "right behind an Open with a restored_checkpoint");
	}
	feed(model, 50, false);
	free(rows);
	forget(model);
	forget(restoring);
	rig_stop(&rig);
}
END_TEST

/* State that does not fit into the slot's memory ends the session that restores it; what it took is free again when it is closed. */
START_TEST(a_restore_beyond_the_slot_s_memory)
{
	struct client *model = &clients[0], *restoring = &clients[1];
	struct answer answer;
	uint8_t *body = malloc(200 << 10), value[100];
	setup();
	rig.sizes.arena = 8 << 20;
	rig_start(&rig);
	open_session(model, 1, 0, NULL);
	feed(model, 50, false);
	barrier(model, false);
	open_session(restoring, 2, 0, model->ack);
	memset(value, 'v', sizeof(value));
	for (unsigned i = 0;;) {
		struct wire_writer writer = {.at = body, .end = body + (200 << 10)};
		for (unsigned k = 0; k < 1000; k++, i++) {
			char key[16];
			snprintf(key, sizeof(key), "key-%u", i);
			struct wire_entry entry = {.key = view_of(key), .value = {value, sizeof(value)}};
			entry.key_hash = key_hash_of(entry.key);
			entry.key_group = key_group_of(entry.key_hash, 128);
			wire_put_entry(&writer, &entry);
		}
		wire_put_fixed64_field(&writer, 2, wire_checksum((struct view){body, (size_t)(writer.at - body)}));
		ck_assert(try_send_raw(2, TO_WORKER_RESTORE_CHUNK, body, (size_t)(writer.at - body)));
		rig_serve(&rig);
		if (rig_try_take(&rig, 2, &answer))
			break;
		ck_assert_uint_lt(i, 200000);
	}
	ck_assert_int_eq(answer.message->kind_case, FLINK_BRIDGE__FROM_WORKER__KIND_ERROR);
	ck_assert_int_eq(answer.message->error->code, FLINK_BRIDGE__ERROR_CODE__ERROR_STATE_FULL);
	ck_assert_ptr_nonnull(strstr(answer.message->error->message, "--state-memory"));
	answer_free(&answer);
	rig_close_channel(&rig, 2);
	rig_serve(&rig);
	ck_assert(rig_free_channel(&rig, 2));
	feed(model, 50, false);
	forget(model);
	forget(restoring);
	free(body);
	rig_stop(&rig);
}
END_TEST

static Suite *checkpoint_suite(void)
{
	Suite *suite = suite_create("checkpoint");
	TCase *tests = tcase_create("all");
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, deltas_come_before_the_last_answer);
	tcase_add_loop_test(tests, a_successor_after_every_turn_tells_nothing_twice, 0, 2);
	tcase_add_loop_test(tests, a_successor_after_every_turn_restores_it_all, 0, 4);
	tcase_add_test(tests, neighbours_have_their_turns);
	tcase_add_loop_test(tests, bad_restores_end_their_session, 0, 5);
	tcase_add_test(tests, a_restore_beyond_the_slot_s_memory);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(checkpoint_suite)
