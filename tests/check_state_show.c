/* What a slot's owner says of its state: the figures are those of the stores, and they are written as seldom as they may be. */
#include "tests/rig.h"

#include "shared/keygroup.h"
#include "tests/check_main.h"
#include "worker/state_show.h"

static struct rig rig;

/* A keyed segment that counts, with a session on channel 1. */
static void begin(void)
{
	struct spec *spec;

	rig_init(&rig);
	spec = rig_segment(&rig);
	spec->segment.keyed = true;
	spec_add(spec, STEP_dedup, "key", ".id", NULL);
	rig_start(&rig);
	rig_open(&rig, 1, 0);
}

/* Sends a record of a key. */
static void send_keyed(const char *key, const char *payload)
{
	FlinkBridge__ToWorker message = rig_message(&rig, 1);
	FlinkBridge__Batch batch = FLINK_BRIDGE__BATCH__INIT;
	FlinkBridge__Record record = FLINK_BRIDGE__RECORD__INIT, *records = &record;
	struct answer answer;

	record.payload = (ProtobufCBinaryData){strlen(payload), (uint8_t *)payload};
	record.maybe_key_case = FLINK_BRIDGE__RECORD__MAYBE_KEY_KEY;
	record.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
	while (record.key_group = key_group_of(record.key_hash, 128), record.key_group > 63)
		record.key_hash++; /* the session has the groups up to 63 */
	batch.n_records = 1;
	batch.records = &records;
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_BATCH;
	message.batch = &batch;
	rig_send(&rig, 1, &message);
	rig_serve(&rig);
	answer = rig_take(&rig, 1);
	answer_free(&answer);
}

/* The rows of a session's states, of which one has the entries. */
static const struct state_row *find_row(const struct state_page *page, uint32_t channel)
{
	for (uint32_t i = 0; i < page->row_count; i++)
		if (page->row[i].channel == channel && page->row[i].entries > 0)
			return &page->row[i];
	ck_abort_msg("no state of channel %u has entries", channel);
}

START_TEST(the_figures_are_those_of_the_stores)
{
	const struct state_page *page;
	const struct state_row *row;

	begin();
	page = &rig.workspace.page->state;
	send_keyed("a", "{\"id\":1}");
	send_keyed("a", "{\"id\":2}");
	send_keyed("longer", "{\"id\":1}");
	ck_assert_uint_eq(serve_show_state(rig.serve), UINT64_MAX);
	ck_assert_uint_eq(atomic_load(&page->version) % 2, 0);
	row = find_row(page, 1);
	ck_assert_uint_eq(row->segment, 0);
	ck_assert_uint_eq(row->entries, 3);
	ck_assert_uint_eq(row->largest_key, 6);
	ck_assert_uint_ge(row->key_bytes, 8);
	ck_assert_uint_eq(page->session[1].epoch, rig.channels[1].epoch);
	ck_assert_uint_eq(page->session[1].dirty_entries, 3);
	ck_assert_uint_gt(page->session[1].bytes, row->key_bytes);
	ck_assert_uint_eq(page->limit, arena_usage(&rig.workspace.arena).limit);
	ck_assert_uint_eq(page->extents, arena_usage(&rig.workspace.arena).extents);
	ck_assert_uint_le(page->blocks, page->extents);
	ck_assert_uint_gt(page->log_most, 0);
	ck_assert_uint_gt(page->log_size, page->log_most);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.arena_used), page->extents);
	ck_assert_uint_ge(counter_read(&rig.workspace.page->counters.state_bytes), page->session[1].bytes);
	ck_assert_uint_eq(counter_read(&rig.workspace.page->counters.state_dirty_bytes), page->session[1].dirty_bytes);
	rig_stop(&rig);
}
END_TEST

START_TEST(they_are_written_when_they_have_changed_and_it_is_time)
{
	_Atomic uint64_t *version;
	uint64_t before, due;

	begin();
	version = &rig.workspace.page->state.version;
	rig.workspace.now_ns = 5 * (uint64_t)STATE_SHOW_NS;
	ck_assert_uint_eq(serve_show_state(rig.serve), UINT64_MAX);
	before = atomic_load(version);
	ck_assert_uint_gt(before, 0);
	rig.workspace.now_ns *= 2;
	ck_assert_uint_eq(serve_show_state(rig.serve), UINT64_MAX); /* nothing has changed */
	ck_assert_uint_eq(atomic_load(version), before);
	send_keyed("a", "{\"id\":1}");
	rig.workspace.now_ns = 5 * (uint64_t)STATE_SHOW_NS + 1;
	due = serve_show_state(rig.serve); /* it is too soon */
	ck_assert_uint_eq(due, 6 * (uint64_t)STATE_SHOW_NS);
	ck_assert_uint_eq(atomic_load(version), before);
	rig.workspace.now_ns = due;
	ck_assert_uint_eq(serve_show_state(rig.serve), UINT64_MAX);
	ck_assert_uint_eq(atomic_load(version), before + 2);
	rig_stop(&rig);
}
END_TEST

START_TEST(a_session_that_ended_is_gone)
{
	const struct state_page *page;

	begin();
	page = &rig.workspace.page->state;
	send_keyed("a", "{\"id\":1}");
	serve_show_state(rig.serve);
	ck_assert_uint_ne(page->session[1].epoch, 0);
	rig_close_channel(&rig, 1);
	rig_serve(&rig);
	ck_assert(rig_free_channel(&rig, 1));
	rig.workspace.now_ns = clock_ns() + STATE_SHOW_NS;
	serve_show_state(rig.serve);
	ck_assert_uint_eq(page->session[1].epoch, 0);
	for (uint32_t i = 0; i < page->row_count; i++)
		ck_assert_uint_eq(page->row[i].channel, 0);
	rig_stop(&rig);
}
END_TEST

START_TEST(the_table_is_bounded_and_a_dead_writer_is_followed)
{
	struct state_page *page;
	struct state_store *store;

	begin();
	page = &rig.workspace.page->state;
	store = state_store_create(&rig.workspace.arena, 1);
	ck_assert_uint_gt(state_count(store), 0);
	state_show_begin(page); /* and dies */
	ck_assert_uint_eq(atomic_load(&page->version) % 2, 1);
	state_show_begin(page);
	for (int i = 0; i < 300; i++)
		state_show_session(page, 1, 1, 0, store);
	state_show_end(rig.workspace.page, &rig.workspace.arena);
	ck_assert_uint_eq(atomic_load(&page->version) % 2, 0);
	ck_assert_uint_eq(page->row_count, STATE_ROWS_MAX);
	ck_assert_uint_eq(page->rows_left_out, 300 * state_count(store) - STATE_ROWS_MAX);
	state_store_destroy(store);
	rig_stop(&rig);
}
END_TEST

static Suite *state_show_suite(void)
{
	Suite *suite = suite_create("state_show");
	TCase *tests = tcase_create("state_show");

	tcase_add_test(tests, the_figures_are_those_of_the_stores);
	tcase_add_test(tests, they_are_written_when_they_have_changed_and_it_is_time);
	tcase_add_test(tests, a_session_that_ended_is_gone);
	tcase_add_test(tests, the_table_is_bounded_and_a_dead_writer_is_followed);
	suite_add_tcase(suite, tests);
	return suite;
}

CHECK_MAIN(state_show_suite)
