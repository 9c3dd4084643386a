/*
 * An Open: what a client must say to get a session, who loses when two claim the same subtask, and which slot it gets.
 *
 * Fencing. A subtask is (job, segment, subtask). Within one life of a client process (its JVM uuid) the Open with the
 * larger token wins, whichever comes first. An Open of a new process ends all sessions of the process before it, and
 * that one's uuid is refused from then on.
 *
 * Placement. Subtasks that share a Flink slot share its allocation id, and so a slot here. A new allocation takes a slot
 * without sessions; one whose worker has served another allocation first gets a fresh worker. Where no slot is free the
 * Open waits, for as long as --open-wait says.
 *
 * Both outlive a front: which client processes there were, and which allocation each worker has served, is noted in the
 * front's page, where the next front finds it. A note is written so that one killed in the middle of it leaves none.
 */
#include "server/front.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/flink_bridge.pb-c.h"
#include "shared/wire.h"

enum {
	OPEN_TEXT_MAX = FRONT_NOTE_MAX,
	OPEN_SIZE_MAX = 512 << 10, /* twice what the largest manifest takes: what protobuf-c may have to unpack here */
};

void open_request_free(struct open_request *open)
{
	if (!open)
		return;
	free(open->job);
	free(open->attempt);
	free(open->allocation);
	free(open->jvm);
	free(open);
}

/* ---- Checks ---- */

/* Checks one text of an Open: there, not too long, UTF-8. */
static bool open_text(struct session *session, const char *name, const char *text)
{
	size_t length = strlen(text);
	if (length > 0 && length <= OPEN_TEXT_MAX && utf8_valid(view_of(text)))
		return true;
	session_end(session, GRPC_STATUS_INVALID_ARGUMENT, "Open.%s: expected UTF-8 text of 1 to %d bytes", name,
		    OPEN_TEXT_MAX);
	return false;
}

/* Checks that client and sidecar speak of the same pipeline. */
static bool open_same_pipeline(struct session *session, const FlinkBridge__Open *open)
{
	const struct descriptor *descriptor = session->front->descriptor;
	if (open->protocol_version != WIRE_PROTOCOL_VERSION) {
		session_end(session, GRPC_STATUS_FAILED_PRECONDITION,
			    "protocol version %u: this sidecar speaks version %d; use a client of the same release",
			    open->protocol_version, WIRE_PROTOCOL_VERSION);
	} else if (strcmp(open->pipeline, descriptor->pipeline) != 0) {
		session_end(session, GRPC_STATUS_FAILED_PRECONDITION,
			    "pipeline \"%.100s\": this sidecar serves \"%.100s\"; one sidecar serves one pipeline",
			    open->pipeline, descriptor->pipeline);
	} else if (open->segment >= descriptor->segment_count) {
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT,
			    "unknown segment %u: pipeline \"%.100s\" has segments 0 to %zu", open->segment,
			    descriptor->pipeline, descriptor->segment_count - 1);
	} else if (strcmp(open->topology_hash, descriptor->topology_hash) != 0) {
		session_end(session, GRPC_STATUS_FAILED_PRECONDITION,
			    "topology %.40s: this sidecar has %s; start both from the same descriptor",
			    open->topology_hash, descriptor->topology_hash);
	} else {
		return true;
	}
	return false;
}

/* Checks the numbers of a subtask. */
static bool open_numbers(struct session *session, const FlinkBridge__Open *open)
{
	if (open->parallelism == 0 || open->subtask >= open->parallelism) {
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT,
			    "subtask %u of %u: expected a subtask below the parallelism", open->subtask,
			    open->parallelism);
	} else if (open->max_parallelism < open->parallelism || open->max_parallelism > 32768) {
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT,
			    "max parallelism %u: expected from the parallelism (%u) to 32768", open->max_parallelism,
			    open->parallelism);
	} else if (open->key_group_first > open->key_group_last || open->key_group_last >= open->max_parallelism) {
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT,
			    "key groups %u to %u: expected a range below the max parallelism (%u)",
			    open->key_group_first, open->key_group_last, open->max_parallelism);
	} else {
		return true;
	}
	return false;
}

/* A copy of what an Open said. */
static struct open_request *open_copy(const FlinkBridge__Open *open)
{
	struct open_request *copy = calloc(1, sizeof *copy);
	CHECK(copy != NULL);
	copy->job = strdup(open->job);
	copy->attempt = strdup(open->attempt_id);
	copy->allocation = strdup(open->allocation_id);
	copy->jvm = strdup(open->jvm_uuid);
	CHECK(copy->job && copy->attempt && copy->allocation && copy->jvm);
	copy->token = open->open_token;
	copy->segment = open->segment;
	copy->subtask = open->subtask;
	copy->parallelism = open->parallelism;
	copy->restores = open->restored_checkpoint != 0;
	return copy;
}

struct open_request *open_check(struct session *session, struct view message)
{
	if (message.size > OPEN_SIZE_MAX) {
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT,
			    "the first message has %zu bytes: an Open has at most %d", message.size, OPEN_SIZE_MAX);
		return NULL;
	}
	FlinkBridge__ToWorker *envelope = flink_bridge__to_worker__unpack(NULL, message.size, message.data);
	if (!envelope) {
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT, "the first message is not a well-formed ToWorker");
		return NULL;
	}
	struct open_request *copy = NULL;
	const FlinkBridge__Open *open = envelope->open;
	if (envelope->kind_case != FLINK_BRIDGE__TO_WORKER__KIND_OPEN || envelope->seq != 1)
		session_end(session, GRPC_STATUS_INVALID_ARGUMENT,
			    "the first message of a session is Open with seq 1; this one has seq %" PRIu64 " and %s",
			    envelope->seq,
			    envelope->kind_case == FLINK_BRIDGE__TO_WORKER__KIND_OPEN ? "Open" : "another kind");
	else if (open_same_pipeline(session, open) && open_numbers(session, open) &&
		 open_text(session, "job", open->job) && open_text(session, "attempt_id", open->attempt_id) &&
		 open_text(session, "allocation_id", open->allocation_id) &&
		 open_text(session, "jvm_uuid", open->jvm_uuid))
		copy = open_copy(open);
	flink_bridge__to_worker__free_unpacked(envelope, NULL);
	return copy;
}

/* ---- Notes for the next front ---- */

/* Writes a note. */
static void note_write(struct front_note *note, const char *text)
{
	size_t length = strlen(text);
	CHECK(length > 0 && length <= FRONT_NOTE_MAX);
	atomic_store_explicit(&note->length, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst); /* a death between these lines leaves "none", not another's text */
	memcpy(note->text, text, length);
	atomic_store_explicit(&note->length, (uint32_t)length, memory_order_release);
}

/* A copy of a note; NULL: none. */
static char *note_read(const struct front_note *note)
{
	uint32_t length = atomic_load_explicit(&note->length, memory_order_acquire);
	if (length == 0 || length > FRONT_NOTE_MAX)
		return NULL;
	char *copy = strndup(note->text, length);
	CHECK(copy != NULL);
	return copy;
}

void open_inherit(struct front *front)
{
	struct front_page *page = front->page;
	front->jvm = note_read(&page->jvm);
	for (unsigned i = 0; i < JVMS_RETIRED; i++)
		front->jvms_retired[i] = note_read(&page->jvms_retired[i]);
	front->jvm_next_retired = atomic_load_explicit(&page->jvm_next_retired, memory_order_relaxed) % JVMS_RETIRED;
	for (uint32_t i = 0; i < front->slot_count; i++)
		front->slots[i].allocation = note_read(&page->slot[i].allocation);
}

/* ---- Fencing ---- */

/* Ends every session of the process before this one, and remembers that process. */
static void open_retire_jvm(struct front *front, const char *successor)
{
	for (struct session *session = front->sessions, *next; session; session = next) {
		next = session->next;
		if (session->state == SESSION_ENDING || !session->open || strcmp(session->open->jvm, front->jvm) != 0)
			continue;
		counter_add(&front->page->counters.sessions_fenced, 1);
		session_end(session, GRPC_STATUS_FAILED_PRECONDITION,
			    "fenced: client process %.64s has taken over from %.64s", successor, session->open->jvm);
	}
	note_write(&front->page->jvms_retired[front->jvm_next_retired], front->jvm);
	free(front->jvms_retired[front->jvm_next_retired]);
	front->jvms_retired[front->jvm_next_retired] = front->jvm;
	front->jvm_next_retired = (front->jvm_next_retired + 1) % JVMS_RETIRED;
	atomic_store_explicit(&front->page->jvm_next_retired, front->jvm_next_retired, memory_order_relaxed);
	front->jvm = NULL;
}

/* Whether a process has been taken over from. */
static bool jvm_retired(const struct front *front, const char *jvm)
{
	for (unsigned i = 0; i < JVMS_RETIRED; i++)
		if (front->jvms_retired[i] && strcmp(front->jvms_retired[i], jvm) == 0)
			return true;
	return false;
}

/* The open session of the same subtask, or NULL. */
static struct session *open_rival(const struct session *session)
{
	const struct open_request *own = session->open;
	for (struct session *other = session->front->sessions; other; other = other->next) {
		const struct open_request *open = other->open;
		if (other != session && other->state != SESSION_ENDING && open && open->segment == own->segment &&
		    open->subtask == own->subtask && strcmp(open->job, own->job) == 0)
			return other;
	}
	return NULL;
}

bool open_fence(struct session *session)
{
	struct front *front = session->front;
	const struct open_request *open = session->open;
	if (jvm_retired(front, open->jvm)) {
		session_end(session, GRPC_STATUS_FAILED_PRECONDITION,
			    "fenced: another client process has taken over from %.64s", open->jvm);
		return false;
	}
	if (front->jvm && strcmp(front->jvm, open->jvm) != 0)
		open_retire_jvm(front, open->jvm);
	if (!front->jvm) {
		front->jvm = strdup(open->jvm);
		CHECK(front->jvm != NULL);
		note_write(&front->page->jvm, front->jvm);
	}
	struct session *rival = open_rival(session);
	if (!rival)
		return true;
	struct session *loser = rival->open->token > open->token ? session : rival;
	counter_add(&front->page->counters.sessions_fenced, 1);
	session_end(loser, GRPC_STATUS_FAILED_PRECONDITION,
		    "fenced: a newer attempt of subtask %u of segment %u has opened", open->subtask, open->segment);
	return loser == rival;
}

/* ---- Placement ---- */

/* Whether an Open waits for a slot that is given to its allocation already. */
static bool slot_awaited(const struct slot_end *slot)
{
	for (const struct session *session = slot->front->sessions; session && slot->allocation;
	     session = session->next)
		if (session->wait_until_ns && strcmp(session->open->allocation, slot->allocation) == 0)
			return true;
	return false;
}

/* The slot that serves an allocation, or one that can; NULL: all have sessions of others. */
static struct slot_end *open_find_slot(struct front *front, const char *allocation)
{
	struct slot_end *unused = NULL;
	for (uint32_t i = 0; i < front->slot_count; i++) {
		struct slot_end *slot = &front->slots[i];
		if (slot->allocation && strcmp(slot->allocation, allocation) == 0)
			return slot;
		bool better = !unused || (unused->used && !slot->used);
		if (slot->sessions == 0 && !slot_awaited(slot) && better)
			unused = slot;
	}
	return unused;
}

/* Gives a slot to another allocation; its worker is replaced first if it has served one before. */
static void open_assign(struct slot_end *slot, const char *allocation)
{
	struct front *front = slot->front;
	free(slot->allocation);
	slot->allocation = strdup(allocation);
	CHECK(slot->allocation != NULL);
	if (!slot->used)
		return;
	slot->up = false;
	slot->leaving = true;
	slot->wanted = slot->owner + 1;
	atomic_store_explicit(&front->page->slot[slot->index].wanted_owner, slot->wanted, memory_order_release);
	doorbell_ring(front->control->supervisor_bell);
}

/* Notes that a slot's worker serves the slot's allocation from now on: no other may have it. */
static void open_note_use(struct slot_end *slot)
{
	struct front_slot *notes = &slot->front->page->slot[slot->index];
	if (slot->used)
		return;
	slot->used = true;
	note_write(&notes->allocation, slot->allocation);
	atomic_store_explicit(&notes->used_owner, slot->owner, memory_order_release);
}

/* Shows a session on the stats socket. */
static void open_publish(struct session *session)
{
	struct channel_end *end = session->end;
	struct session_info *info = &session->front->page->session[end->slot->index][end->channel];
	const struct open_request *open = session->open;
	info->segment = open->segment;
	info->subtask = open->subtask;
	info->parallelism = open->parallelism;
	info->opened_ms = (uint64_t)clock_wall_ms();
	_Atomic uint64_t *zeroes[] = {&info->messages_in, &info->messages_out, &info->bytes_in,
				      &info->bytes_out,   &info->request_fill, &info->response_fill};
	for (size_t i = 0; i < sizeof zeroes / sizeof *zeroes; i++)
		gauge_set(zeroes[i], 0);
	snprintf(info->job, sizeof info->job, "%s", open->job);
	snprintf(info->attempt, sizeof info->attempt, "%s", open->attempt);
	snprintf(info->allocation, sizeof info->allocation, "%s", open->allocation);
	atomic_store_explicit(&info->epoch, end->epoch, memory_order_release);
	session->info = info;
}

/* Gives a session its channel on a slot that is up. */
static void open_accept(struct session *session, struct slot_end *slot)
{
	struct front *front = session->front;
	const char *why;
	session->segment = session->open->segment;
	session->subtask = session->open->subtask;
	session->epoch = front_epoch(front);
	open_note_use(slot);
	struct channel_end *end = slot_open_channel(slot, session, session->segment, &why);
	if (!end) {
		session_end(session, GRPC_STATUS_RESOURCE_EXHAUSTED, "slot %u cannot take the session: %s", slot->index,
			    why);
		return;
	}
	session->end = end;
	session->state = SESSION_RUNNING;
	front->segment_has_sessions[session->segment] = true;
	counter_add(&front->page->counters.sessions_opened, 1);
	gauge_set(&front->page->counters.sessions_open, counter_read(&front->page->counters.sessions_open) + 1);
	open_publish(session);
}

/* Starts to wait, or goes on waiting. */
static bool open_wait(struct session *session)
{
	struct front *front = session->front;
	if (session->wait_until_ns == 0) {
		session->wait_until_ns = front->now_ns + front->config->open_wait_ms * UINT64_C(1000000) + 1;
		front->sessions_waiting++;
	}
	return false;
}

bool open_place(struct session *session)
{
	struct front *front = session->front;
	const char *allocation = session->open->allocation;
	struct slot_end *slot = open_find_slot(front, allocation);
	if (!slot)
		return open_wait(session);
	if (!slot->allocation || strcmp(slot->allocation, allocation) != 0)
		open_assign(slot, allocation);
	if (!slot->up)
		return open_wait(session);
	if (session->wait_until_ns)
		front->sessions_waiting--;
	session->wait_until_ns = 0;
	open_accept(session, slot);
	return true;
}

void opens_wake(struct front *front)
{
	front->opens_woken = true;
}

/* Ends an Open that has waited long enough. */
static void open_give_up(struct session *session)
{
	session_end(session, GRPC_STATUS_RESOURCE_EXHAUSTED,
		    "no free slot: all %u serve other allocations, or their workers are not up; more slots (--slots) "
		    "or fewer subtasks",
		    session->front->slot_count);
}

void opens_retry(struct front *front, uint64_t now_ns)
{
	front->opens_woken = false;
	for (struct session *session = front->sessions, *next; session; session = next) {
		next = session->next;
		if (session->wait_until_ns == 0)
			continue;
		if (open_place(session)) {
			if (session->state == SESSION_RUNNING)
				session_forward(session);
		} else if (now_ns >= session->wait_until_ns) {
			open_give_up(session);
		}
	}
}
