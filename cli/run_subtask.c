/*
 * A subtask of a segment: its session with the sidecar (run_graph.h).
 *
 *   records in --> batch --> sent (unanswered, at most SENT_MAX) --> answer --> outlet
 *                  ^ full: refuses                                   ^ consumer full: not read on
 *
 * Batches adapt: while fewer than SENT_IDLE messages are unanswered a batch goes out however small it is, so nobody waits
 * for company; behind a busy worker it grows until it is full. A watermark goes out behind the batch; several that are
 * due become one. The answer to a watermark, read in order behind the records, passes it on to the consumers.
 *
 * How many records may be unanswered adapts as well: as many as the worker does in WINDOW_TARGET_MS, the time that its other sessions
 * take included. More would not make it faster, and every barrier and watermark would wait behind them, segment after segment.
 *
 * A barrier goes out behind all that came before it on every input (run_align.h); from then on nothing is sent until it is
 * acknowledged, while the next batch is filled. The acknowledgement, read in order behind the records, passes it on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/run_checkpoint.h"
#include "cli/run_graph.h"
#include "flink_bridge.pb-c.h"
#include "shared/control.h"
#include "shared/log.h"

enum {
	BODY_START = 6,    /* the key and length of the embedded Batch */
	ENVELOPE_MAX = 32, /* seq and time, and the key and length */
	CONTROL_MESSAGE_MAX = 64,
	MESSAGE_MAX_UNTIL_TOLD = 64 << 10,
	STREAM_QUEUE = 2 * SENT_MAX,
};

/* ---- Sending ---- */

/* Time as messages carry it: the wall clock, never going back. */
static int64_t processing_now(struct subtask *subtask)
{
	int64_t now = clock_wall_ms();
	if (now > subtask->processing_ms)
		subtask->processing_ms = now;
	return subtask->processing_ms;
}

/* Notes a message as one that will be answered; `kept` is a reference to it, to show the record that a step failed on. */
static struct sent *note_sent(struct subtask *subtask, uint32_t kind, int64_t value, grpc_slice kept)
{
	CHECK(subtask->sent_count < SENT_MAX);
	struct sent *sent = &subtask->sent[(subtask->sent_first + subtask->sent_count++) % SENT_MAX];
	*sent = (struct sent){.seq = subtask->seq, .kind = kind, .value = value, .message = kept};
	return sent;
}

/* Hands a message to the stream, whose queue is large enough. A broken stream swallows it: its end is on the way. */
static void send_noted(struct subtask *subtask, grpc_slice message)
{
	enum client_result result = client_stream_send(subtask->stream, message);
	CHECK(result != CLIENT_FULL);
	if (result == CLIENT_GONE)
		grpc_slice_unref(message);
}

void subtask_put_envelope(struct subtask *subtask, struct wire_writer *writer)
{
	wire_put_varint_field(writer, 1, ++subtask->seq);
	wire_put_varint_field(writer, 2, (uint64_t)processing_now(subtask));
}

grpc_slice subtask_control_message(struct subtask *subtask, uint32_t kind, bool has_number, int64_t number)
{
	uint8_t bytes[CONTROL_MESSAGE_MAX];
	struct wire_writer writer = {bytes, bytes + sizeof(bytes), false};
	uint8_t *body = wire_begin(&writer, kind);
	if (has_number)
		wire_put_varint_field(&writer, 1, (uint64_t)number);
	wire_end(&writer, body);
	subtask_put_envelope(subtask, &writer);
	CHECK(!writer.overflow);
	note_sent(subtask, kind, number, grpc_empty_slice());
	return grpc_slice_from_copied_buffer((char *)bytes, (size_t)(writer.at - bytes));
}

/* Sends a message with at most one number in its body. */
static void send_control(struct subtask *subtask, uint32_t kind, bool has_number, int64_t number)
{
	send_noted(subtask, subtask_control_message(subtask, kind, has_number, number));
}

void subtask_open(struct subtask *subtask)
{
	struct run_graph *graph = subtask->graph;
	const struct segment *segment = subtask->stage->segment;
	struct client_call_options options = {.wait_for_ready = true};
	subtask->message_max = MESSAGE_MAX_UNTIL_TOLD;
	subtask->window = BATCH_RECORDS_MAX;
	subtask->answer_message = grpc_empty_slice();
	subtask->stream = client_stream_open(graph->client, graph->session_method, STREAM_QUEUE, &options, subtask);
	CHECK(subtask->stream != NULL);

	char allocation[32], attempt[80];
	snprintf(allocation, sizeof(allocation), "run-slot-%u", subtask->index % graph->slots);
	snprintf(attempt, sizeof(attempt), "%s-%u-%u", graph->jvm_uuid, segment->id, subtask->index);
	uint32_t first, last;
	key_group_range(subtask->index, segment->parallelism, segment->max_parallelism, &first, &last);
	FlinkBridge__Open open = FLINK_BRIDGE__OPEN__INIT;
	open.protocol_version = WIRE_PROTOCOL_VERSION;
	open.job = (char *)"bridgectl run";
	open.pipeline = (char *)(uintptr_t)graph->descriptor->pipeline;
	open.segment = segment->id;
	open.topology_hash = (char *)(uintptr_t)graph->descriptor->topology_hash;
	open.allocation_id = allocation;
	open.attempt_id = attempt;
	open.subtask = subtask->index;
	open.parallelism = segment->parallelism;
	open.max_parallelism = segment->max_parallelism;
	open.key_group_first = first;
	open.key_group_last = last;
	open.jvm_uuid = graph->jvm_uuid;
	open.open_token = (int64_t)clock_ns();
	subtask_state_opening(subtask, &open);
	FlinkBridge__ToWorker message = FLINK_BRIDGE__TO_WORKER__INIT;
	message.seq = ++subtask->seq;
	message.processing_time_ms = processing_now(subtask);
	message.kind_case = FLINK_BRIDGE__TO_WORKER__KIND_OPEN;
	message.open = &open;
	grpc_slice bytes = grpc_slice_malloc(flink_bridge__to_worker__get_packed_size(&message));
	flink_bridge__to_worker__pack(&message, GRPC_SLICE_START_PTR(bytes));
	subtask_state_opened(&open);
	note_sent(subtask, TO_WORKER_OPEN, 0, grpc_empty_slice());
	send_noted(subtask, bytes);
	client_stream_receive(subtask->stream);
}

/* ---- The batch ---- */

/* Whether the batch has all it should have: at most half of what may be unanswered, so that the worker has the next one at hand. */
static bool batch_is_full(const struct subtask *subtask)
{
	uint32_t most = subtask->window < 2 * BATCH_RECORDS_MAX ? subtask->window / 2 : BATCH_RECORDS_MAX;
	return subtask->batch_closed || subtask->batch_records >= most || subtask->batch_size >= BATCH_BYTES_MAX;
}

/* Whether the batch fits into the window. */
static bool window_allows(struct subtask *subtask)
{
	bool allows = subtask->in_flight == 0 || subtask->in_flight + subtask->batch_records <= subtask->window;
	subtask->window_limits |= !allows;
	return allows;
}

/* A batch was answered after so long: the window grows if it was too small, and shrinks if it was too large. */
static void window_adapt(struct subtask *subtask, const struct sent *answered)
{
	subtask->in_flight -= answered->records;
	if (clock_ns() - answered->sent_ns > WINDOW_TARGET_MS * UINT64_C(1000000))
		subtask->window -= subtask->window / 4;
	else if (subtask->window_limits)
		subtask->window += subtask->window / 4;
	if (subtask->window < WINDOW_LEAST)
		subtask->window = WINDOW_LEAST;
	if (subtask->window > WINDOW_MOST)
		subtask->window = WINDOW_MOST;
	subtask->window_limits = false;
}

/* Whether anything waits to go out behind the batch. */
static bool something_behind(const struct subtask *subtask)
{
	return subtask->watermark_due || subtask->status_due || subtask->barrier_due || subtask->aligner.open == 0;
}

/* Whether the batch may go out now. */
static bool batch_may_go(struct subtask *subtask)
{
	if (subtask->batch_records == 0 || subtask->state != SUBTASK_RUNNING || subtask->barrier_sent)
		return false;
	bool pressed = batch_is_full(subtask) || something_behind(subtask);
	return subtask->sent_count < (pressed ? SENT_BATCHES_MAX : SENT_IDLE) && window_allows(subtask);
}

/* Sends the batch. */
static void batch_send(struct subtask *subtask)
{
	struct wire_writer writer = {subtask->batch + subtask->batch_size, subtask->batch + subtask->batch_capacity,
				     false};
	wire_end(&writer, subtask->batch + BODY_START);
	subtask_put_envelope(subtask, &writer);
	CHECK(!writer.overflow);
	size_t size = (size_t)(writer.at - subtask->batch);
	subtask->stage->batches++;
	subtask->stage->records_in += subtask->batch_records;
	uint32_t records = subtask->batch_records;
	subtask->batch_records = 0;
	subtask->batch_size = 0;
	subtask->batch_closed = false;
	subtask->graph->room = true;
	grpc_slice message = grpc_slice_from_copied_buffer((const char *)subtask->batch, size);
	struct sent *sent = note_sent(subtask, TO_WORKER_BATCH, 0, grpc_slice_ref(message));
	sent->records = records;
	sent->sent_ns = clock_ns();
	subtask->in_flight += records;
	send_noted(subtask, message);
}

/* Makes the batch's memory larger, so that a record of some size and the envelope fit behind what is there. */
static void batch_grow(struct subtask *subtask, uint64_t record)
{
	uint64_t need = subtask->batch_size + record + ENVELOPE_MAX;
	uint64_t capacity = subtask->batch_capacity > 0 ? subtask->batch_capacity : 4096;
	while (capacity < need)
		capacity *= 2;
	subtask->batch = realloc(subtask->batch, capacity);
	if (subtask->batch == NULL)
		fatalx("out of memory for a batch of %llu bytes", (unsigned long long)capacity);
	subtask->batch_capacity = capacity;
}

/* Starts an empty batch. */
static void batch_begin(struct subtask *subtask)
{
	if (subtask->batch_capacity == 0)
		batch_grow(subtask, BODY_START);
	struct wire_writer writer = {subtask->batch, subtask->batch + subtask->batch_capacity, false};
	wire_begin(&writer, TO_WORKER_BATCH);
	subtask->batch_size = (size_t)(writer.at - subtask->batch);
	CHECK(subtask->batch_size == BODY_START);
}

/* Says that a record is beyond what the sidecar takes. */
static enum offer too_large(struct subtask *subtask, const struct wire_record *record, uint64_t size)
{
	char excerpt[128];
	bool alone = size > subtask->record_max;
	run_graph_fail(subtask->graph,
		       "segment \"%s\": a record of %llu bytes is larger than the %llu bytes that the sidecar takes in "
		       "one %s: %s\n"
		       "  raise it with `sidecar: { message-max: ... }` in the file given with --config",
		       subtask->stage->segment->name, (unsigned long long)size,
		       (unsigned long long)(alone ? subtask->record_max : subtask->message_max),
		       alone ? "record" : "message", payload_excerpt(record->payload, excerpt, sizeof(excerpt)));
	return OFFER_FAILED;
}

enum offer subtask_offer(struct subtask *subtask, const struct wire_record *record)
{
	if (batch_is_full(subtask)) {
		if (!batch_may_go(subtask))
			return OFFER_FULL;
		batch_send(subtask);
	}
	uint64_t size = wire_record_size(record, WIRE_RECORD);
	uint64_t largest = subtask->message_max - ENVELOPE_MAX;
	if (size > largest || size > subtask->record_max + 6)
		return too_large(subtask, record, size);
	if (subtask->batch_records > 0 && subtask->batch_size + size > largest) {
		subtask->batch_closed = true;
		return subtask_offer(subtask, record);
	}
	if (subtask->batch_records == 0)
		batch_begin(subtask);
	if (subtask->batch_size + size + ENVELOPE_MAX > subtask->batch_capacity)
		batch_grow(subtask, size);
	struct wire_writer writer = {subtask->batch + subtask->batch_size, subtask->batch + subtask->batch_capacity,
				     false};
	wire_put_record(&writer, record, WIRE_RECORD);
	CHECK(!writer.overflow);
	subtask->batch_size = (size_t)(writer.at - subtask->batch);
	subtask->batch_records++;
	run_graph_mark(subtask->graph, subtask);
	return OFFER_TAKEN;
}

/* ---- What goes out behind the batch ---- */

/* Takes a change of the valve over. */
static void valve_changed(struct subtask *subtask, unsigned changes)
{
	if (changes & WATERMARK_MOVED)
		subtask->watermark_due = true;
	if (changes & WATERMARK_STATUS)
		subtask->status_due = true;
	if (changes != 0)
		run_graph_mark(subtask->graph, subtask);
}

void subtask_watermark(struct subtask *subtask, uint32_t channel, int64_t time)
{
	valve_changed(subtask, watermark_valve_advance(&subtask->valve, channel, time));
}

void subtask_idle(struct subtask *subtask, uint32_t channel, bool idle)
{
	valve_changed(subtask, watermark_valve_set_idle(&subtask->valve, channel, idle));
}

void subtask_channel_end(struct subtask *subtask, uint32_t channel)
{
	valve_changed(subtask, watermark_valve_set_idle(&subtask->valve, channel, false));
	valve_changed(subtask, watermark_valve_advance(&subtask->valve, channel, INT64_MAX));
	if (aligner_end(&subtask->aligner))
		subtask->barrier_due = true;
	run_graph_mark(subtask->graph, subtask);
}

void subtask_barrier(struct subtask *subtask, uint64_t barrier)
{
	if (aligner_barrier(&subtask->aligner, barrier))
		subtask->barrier_due = true;
	run_graph_mark(subtask->graph, subtask);
}

/* Sends the state of the inputs if it is not what was told last. */
static void send_status(struct subtask *subtask)
{
	if (subtask->idle_told != subtask->valve.idle)
		send_control(subtask, TO_WORKER_WATERMARK_STATUS, true, subtask->valve.idle);
	subtask->idle_told = subtask->valve.idle;
	subtask->status_due = false;
}

/* Sends the tick if its time has come. */
static void send_tick(struct subtask *subtask)
{
	if (subtask->wakeup_ms == 0 || subtask->ticking || subtask->wakeup_ms > clock_wall_ms())
		return;
	send_control(subtask, TO_WORKER_TIMER_TICK, false, 0);
	subtask->ticking = true;
	subtask->wakeup_ms = 0;
}

/* Room for another message that is no batch; the last places are kept for a tick and the end. */
static bool control_may_go(const struct subtask *subtask)
{
	return subtask->state == SUBTASK_RUNNING && !subtask->barrier_sent && subtask->batch_records == 0 &&
	       subtask->sent_count < SENT_MAX - 4;
}

/* Sends the barrier: what came in before it is on its way, and who was held may go on. */
static void send_barrier(struct subtask *subtask, uint64_t barrier)
{
	send_control(subtask, TO_WORKER_BARRIER, true, (int64_t)barrier);
	aligner_pass(&subtask->aligner, barrier);
	subtask->barrier_due = false;
	subtask->barrier_sent = true;
	subtask->cut_watermark = subtask->valve.time;
	subtask->graph->room = true;
}

/* A subtask whose inputs have all ended gets its barriers from nobody: it takes them when they are wanted. */
static void barrier_after_end(struct subtask *subtask)
{
	uint64_t wanted = run_checkpoint_wanted(subtask->graph);
	if (wanted > subtask->aligner.passed && !subtask->barrier_sent)
		send_barrier(subtask, wanted);
}

void subtask_pump(struct subtask *subtask)
{
	if (batch_may_go(subtask))
		batch_send(subtask);
	if (subtask->state == SUBTASK_RUNNING && !subtask->barrier_sent && subtask->sent_count < SENT_MAX - 2 &&
	    subtask->batch_records == 0)
		send_tick(subtask);
	if (subtask->state == SUBTASK_ENDED)
		barrier_after_end(subtask);
	if (!control_may_go(subtask))
		return;
	if (subtask->status_due && !subtask->valve.idle)
		send_status(subtask);
	if (subtask->watermark_due)
		send_control(subtask, TO_WORKER_WATERMARK, true, subtask->valve.time);
	subtask->watermark_due = false;
	if (subtask->status_due)
		send_status(subtask);
	if (subtask->barrier_due)
		send_barrier(subtask, subtask->aligner.coming);
	if (subtask->aligner.open > 0)
		return;
	send_control(subtask, TO_WORKER_END_INPUT, false, 0);
	subtask->state = SUBTASK_ENDING;
}

/* ---- Answers ---- */

/* The oldest message that is not answered yet. */
static struct sent *sent_oldest(struct subtask *subtask)
{
	return subtask->sent_count > 0 ? &subtask->sent[subtask->sent_first] : NULL;
}

/* The oldest message is answered in full: what it carried goes on to the consumers. */
static void sent_answered(struct subtask *subtask)
{
	struct sent sent = *sent_oldest(subtask);
	subtask->sent_first = (subtask->sent_first + 1) % SENT_MAX;
	subtask->sent_count--;
	grpc_slice_unref(sent.message);
	if (sent.kind == TO_WORKER_WATERMARK)
		outlet_watermark(&subtask->outlet, sent.value);
	else if (sent.kind == TO_WORKER_WATERMARK_STATUS)
		outlet_idle(&subtask->outlet, sent.value != 0);
	else if (sent.kind == TO_WORKER_TIMER_TICK)
		subtask->ticking = false;
	else if (sent.kind == TO_WORKER_BATCH)
		window_adapt(subtask, &sent);
	run_graph_mark(subtask->graph, subtask);
}

const char *subtask_place(const struct subtask *subtask, char *text, size_t size)
{
	const struct segment *segment = subtask->stage->segment;
	if (segment->parallelism == 1)
		snprintf(text, size, "segment \"%s\"", segment->name);
	else
		snprintf(text, size, "segment \"%s\" subtask %u", segment->name, subtask->index);
	return text;
}

void subtask_protocol_failed(struct subtask *subtask, const char *what)
{
	char where[256];
	run_graph_fail(subtask->graph, "%s: the sidecar %s; this is a defect of the sidecar or of this program",
		       subtask_place(subtask, where, sizeof(where)), what);
}

/* The payload of a record in a batch that was sent; false when it cannot be told. */
static bool find_record(struct subtask *subtask, uint64_t seq, uint32_t record, char *text, size_t size)
{
	for (uint32_t i = 0; i < subtask->sent_count; i++) {
		const struct sent *sent = &subtask->sent[(subtask->sent_first + i) % SENT_MAX];
		if (sent->seq != seq || sent->kind != TO_WORKER_BATCH)
			continue;
		struct view message = {GRPC_SLICE_START_PTR(sent->message), GRPC_SLICE_LENGTH(sent->message)};
		struct wire_to_worker envelope;
		struct wire_batch batch = {0};
		bool found = wire_parse_to_worker(message, &envelope) == WIRE_OK &&
			     wire_parse_records(envelope.body, &batch, NULL) == WIRE_OK && record < batch.count;
		if (found)
			payload_excerpt(batch.records[record].payload, text, size);
		wire_batch_free(&batch);
		return found;
	}
	return false;
}

/* The sidecar says what went wrong; once it is fatal, that is the end of the run. */
static void got_error(struct subtask *subtask, const FlinkBridge__Error *error)
{
	char where[256], excerpt[512];
	subtask_place(subtask, where, sizeof(where));
	if (!error->fatal) {
		log_warn("%s: %s", where, error->message);
		return;
	}
	/* A step's failure names segment and step by itself, and its own input when that is short. */
	bool whole = strncmp(error->message, "segment \"", strlen("segment \"")) == 0;
	bool found = find_record(subtask, error->seq, error->record, excerpt, sizeof(excerpt)) &&
		     strstr(error->message, excerpt) == NULL;
	run_graph_fail(subtask->graph, "%s%s%s%s%s", whole ? "" : where, whole ? "" : ": ", error->message,
		       found ? "\n  the segment got: " : "", found ? excerpt : "");
}

/* The session is open: what it takes, and where it is served. */
static void got_open_ack(struct subtask *subtask, const FlinkBridge__OpenAck *ack)
{
	if (subtask->state != SUBTASK_OPENING) {
		subtask_protocol_failed(subtask, "acknowledged an Open twice");
		return;
	}
	subtask->slot = ack->slot;
	subtask->message_max = ack->limits != NULL ? ack->limits->max_message_bytes : MESSAGE_MAX_UNTIL_TOLD;
	subtask->record_max = ack->limits != NULL ? ack->limits->max_record_bytes : MESSAGE_MAX_UNTIL_TOLD;
	if (subtask->message_max < (uint64_t)2 * ENVELOPE_MAX)
		subtask_protocol_failed(subtask, "takes no messages");
	sent_answered(subtask);
	if (subtask_state_begin(subtask, ack))
		subtask->state = SUBTASK_RESTORING;
	else
		subtask_run(subtask);
}

void subtask_run(struct subtask *subtask)
{
	subtask->state = SUBTASK_RUNNING;
	subtask->graph->opened++;
	subtask->watermark_due = subtask->valve.time > INT64_MIN; /* what an earlier run had reached */
	run_graph_mark(subtask->graph, subtask);
}

/* The messages that are rare: through protobuf-c. */
static void got_rare(struct subtask *subtask, struct view message)
{
	FlinkBridge__FromWorker *answer = flink_bridge__from_worker__unpack(NULL, message.size, message.data);
	if (answer == NULL)
		subtask_protocol_failed(subtask, "sent a message that cannot be read");
	else if (answer->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_OPEN_ACK)
		got_open_ack(subtask, answer->open_ack);
	else if (answer->kind_case == FLINK_BRIDGE__FROM_WORKER__KIND_ERROR)
		got_error(subtask, answer->error);
	else
		subtask_protocol_failed(subtask, "sent a message of an unknown kind");
	flink_bridge__from_worker__free_unpacked(answer, NULL);
}

/* All input is answered: the consumers hear of the end, the session is closed. */
static void got_end_ack(struct subtask *subtask)
{
	if (subtask->state != SUBTASK_ENDING || sent_oldest(subtask)->kind != TO_WORKER_END_INPUT) {
		subtask_protocol_failed(subtask, "acknowledged an end of input out of turn");
		return;
	}
	subtask->state = SUBTASK_ENDED;
	subtask->graph->ended++;
	sent_answered(subtask);
	outlet_end(&subtask->outlet);
	if (subtask->graph->checkpoint == NULL)
		subtask_finish(subtask);
}

void subtask_finish(struct subtask *subtask)
{
	send_control(subtask, TO_WORKER_CLOSE, false, 0);
	client_stream_half_close(subtask->stream);
	subtask->state = SUBTASK_CLOSING;
}

/* All that came before the barrier is here, the state included: the consumers hear of it. */
static void got_barrier_ack(struct subtask *subtask, struct view body)
{
	const struct sent *oldest = sent_oldest(subtask);
	uint64_t id;
	if (oldest->kind != TO_WORKER_BARRIER || wire_parse_number(body, &id) != WIRE_OK ||
	    id != (uint64_t)oldest->value) {
		subtask_protocol_failed(subtask, "acknowledged a barrier out of turn");
		return;
	}
	sent_answered(subtask);
	subtask->barrier_sent = false;
	subtask->acknowledged = id;
	run_checkpoint_subtask(subtask);
	if (subtask->state != SUBTASK_ENDED)
		outlet_barrier(&subtask->outlet, id);
}

/* Pushes the records of the answer at hand on; false when a consumer is full. */
static bool answer_deliver(struct subtask *subtask)
{
	struct wire_batch *answer = &subtask->answer;
	for (; subtask->answer_at < answer->count; subtask->answer_at++) {
		const struct wire_record *record = &answer->records[subtask->answer_at];
		enum offer offer = outlet_push(subtask->graph, &subtask->outlet, record);
		if (offer != OFFER_TAKEN)
			return offer == OFFER_FAILED;
		subtask->stage->records_out++;
	}
	return true;
}

/* The answer at hand is delivered: read on. */
static void answer_done(struct subtask *subtask)
{
	subtask->answering = false;
	grpc_slice_unref(subtask->answer_message);
	subtask->answer_message = grpc_empty_slice();
	wire_batch_clear(&subtask->answer);
	struct sent *oldest = sent_oldest(subtask);
	if (!subtask->answer_more && oldest != NULL && oldest->kind != TO_WORKER_END_INPUT &&
	    oldest->kind != TO_WORKER_BARRIER)
		sent_answered(subtask);
	client_stream_receive(subtask->stream);
}

/* Delivers the answer at hand. False: a consumer is full. */
static bool answer_go_on(struct subtask *subtask)
{
	if (!answer_deliver(subtask))
		return false;
	if (!subtask->graph->failed)
		answer_done(subtask);
	return true;
}

/* Outputs: kept until all of them are delivered. */
static void got_results(struct subtask *subtask, const struct wire_to_worker *envelope)
{
	subtask->answer_at = 0;
	if (wire_parse_records(envelope->body, &subtask->answer, &subtask->answer_more) != WIRE_OK) {
		subtask_protocol_failed(subtask, "sent results that cannot be read");
		return;
	}
	if (subtask->answer.count > 0 && subtask->state == SUBTASK_ENDED) {
		subtask_protocol_failed(subtask, "sent results behind the end of its input");
		return;
	}
	subtask->answering = true;
	answer_go_on(subtask);
}

/* When the worker wants a tick; while one is on its way, only its own answer and later ones count. */
static void take_wakeup(struct subtask *subtask, const struct sent *answered, int64_t wakeup_ms)
{
	if (!subtask->ticking || answered->kind == TO_WORKER_TIMER_TICK)
		subtask->wakeup_ms = wakeup_ms;
}

/* Any other message of the sidecar. */
static void got_control(struct subtask *subtask, const struct wire_to_worker *envelope, struct view message)
{
	switch (envelope->kind) {
	case FROM_WORKER_END_ACK:
		got_end_ack(subtask);
		break;
	case FROM_WORKER_BARRIER_ACK:
		got_barrier_ack(subtask, envelope->body);
		break;
	case FROM_WORKER_STATE_DELTA:
		subtask_state_delta(subtask, envelope->body);
		break;
	case FROM_WORKER_RESTORE_ACK:
		if (sent_oldest(subtask)->kind != TO_WORKER_RESTORE_END) {
			subtask_protocol_failed(subtask, "acknowledged a restore out of turn");
			break;
		}
		sent_answered(subtask);
		subtask_state_restored(subtask, envelope->body);
		break;
	default:
		got_rare(subtask, message);
	}
	grpc_slice_unref(subtask->answer_message);
	subtask->answer_message = grpc_empty_slice();
	client_stream_receive(subtask->stream);
}

/* Whether a kind of message answers the oldest message that is unanswered. */
static bool is_answer(uint32_t kind)
{
	return kind == FROM_WORKER_RESULTS || kind == FROM_WORKER_STATE_DELTA || kind == FROM_WORKER_END_ACK ||
	       kind == FROM_WORKER_BARRIER_ACK || kind == FROM_WORKER_RESTORE_ACK;
}

/* Whether the message at hand must wait: consumers wait for somebody else's barrier, or the state that it brings belongs to the
 * checkpoint after the one under way. Errors never wait. */
static bool must_wait(struct subtask *subtask, uint32_t kind)
{
	if (kind == FROM_WORKER_STATE_DELTA && run_checkpoint_defers(subtask))
		return true;
	return is_answer(kind) && outlet_is_held(&subtask->outlet);
}

/* Takes the message at hand, unless it must wait. */
static void take_message(struct subtask *subtask)
{
	struct view message = {GRPC_SLICE_START_PTR(subtask->answer_message),
			       GRPC_SLICE_LENGTH(subtask->answer_message)};
	struct wire_to_worker envelope;
	const struct sent *oldest = sent_oldest(subtask);
	if (wire_parse_from_worker(message, &envelope) != WIRE_OK) {
		subtask_protocol_failed(subtask, "sent a message that cannot be read");
		return;
	}
	bool answer = is_answer(envelope.kind);
	if (answer && (oldest == NULL || envelope.seq != oldest->seq)) {
		subtask_protocol_failed(subtask, "answered out of turn");
		return;
	}
	subtask->waiting = must_wait(subtask, envelope.kind);
	if (subtask->waiting)
		return;
	if (answer && envelope.kind != FROM_WORKER_STATE_DELTA)
		take_wakeup(subtask, oldest, envelope.processing_time_ms);
	if (envelope.kind == FROM_WORKER_RESULTS)
		got_results(subtask, &envelope); /* reads on when they are delivered */
	else
		got_control(subtask, &envelope, message);
}

/* A message of the sidecar. It is kept first: short slices have their bytes inside, and views must not move. */
static void got_message(struct subtask *subtask, grpc_slice slice)
{
	subtask->answer_message = grpc_slice_ref(slice);
	take_message(subtask);
}

bool subtask_resume(struct subtask *subtask)
{
	if (subtask->waiting)
		take_message(subtask);
	else if (subtask->answering)
		answer_go_on(subtask);
	return !subtask->waiting && !subtask->answering;
}

/* The stream is over: fine after Close, and only then. */
static void got_end(struct subtask *subtask, const struct client_event *event)
{
	subtask->stream = NULL;
	if (subtask->state == SUBTASK_CLOSING && event->status == GRPC_STATUS_OK) {
		subtask->state = SUBTASK_CLOSED;
		subtask->graph->closed++;
		return;
	}
	char where[256], text[512];
	bool failed_before = subtask->graph->failed;
	run_graph_fail(subtask->graph, "%s: the session ended with %s: %s",
		       subtask_place(subtask, where, sizeof(where)), client_status_name(event->status),
		       payload_excerpt(event->text, text, sizeof(text)));
	if (!failed_before)
		subtask->graph->connection_lost = event->status == GRPC_STATUS_UNAVAILABLE;
}

void subtask_event(struct subtask *subtask, const struct client_event *event)
{
	if (event->kind == CLIENT_MESSAGE)
		got_message(subtask, event->message);
	else if (event->kind == CLIENT_ROOM)
		subtask_state_send(subtask);
	else if (event->kind == CLIENT_ENDED)
		got_end(subtask, event);
}

void subtask_close(struct subtask *subtask)
{
	for (; subtask->sent_count > 0; subtask->sent_count--) {
		grpc_slice_unref(subtask->sent[subtask->sent_first].message);
		subtask->sent_first = (subtask->sent_first + 1) % SENT_MAX;
	}
	grpc_slice_unref(subtask->answer_message);
	subtask->answer_message = grpc_empty_slice();
	wire_batch_free(&subtask->answer);
	watermark_valve_free(&subtask->valve);
	subtask_state_close(subtask);
	free(subtask->batch);
	subtask->batch = NULL;
}
