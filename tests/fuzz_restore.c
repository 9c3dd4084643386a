/*
 * Fuzz target: a session that restores whatever a client may send. An input is a script: an Open's manifest (the right one, or any
 * bytes), RestoreChunks (with their checksum put right or not) worked on in units of any size with deaths in between, and a RestoreEnd.
 * What is refused has words; what is taken can be walked, and goes out again as deltas that say the same.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shared/log.h"
#include "worker/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHANNEL = 1, MESSAGE_MAX = 2048, UNITS_MAX = 10000 };

static const struct state_spec specs[] = {
    {.step = "s", .name = "value", .kind = STATE_VALUE, .version = 1, .ttl_ms = 1000},
    {.step = "s", .name = "map", .kind = STATE_MAP, .version = 1},
    {.step = "s", .name = "list", .kind = STATE_LIST, .version = 1},
    {.step = "s", .name = "timers", .kind = STATE_TIMERS, .version = 1},
    {.step = "u", .name = "split", .kind = STATE_LIST, .partition = STATE_SPLIT, .version = 1},
};
static const struct state_name dropped = {.step = "s", .name = "old"};
static const struct descriptor descriptor = {.drop_state = &dropped, .drop_state_count = 1};
enum { STATES = sizeof(specs) / sizeof(specs[0]) };

/* The script, read from front to back; zeros behind its end. */
struct script {
	const uint8_t *at, *end;
};

static uint8_t *memory;
static uint64_t memory_size;
static struct arena arena;
static struct state_store *store;
static struct snapshot_words words;
static struct snapshot snapshot;

static uint8_t script_byte(struct script *script)
{
	return script->at < script->end ? *script->at++ : 0;
}

/* A run of bytes with its length in front. */
static struct view script_bytes(struct script *script)
{
	size_t size = script_byte(script);
	size = size << 8 | script_byte(script);
	size_t left = (size_t)(script->end - script->at);
	struct view bytes = {script->at, size < left ? size : left};
	script->at += bytes.size;
	return bytes;
}

/* Begins as a new worker on what the arena has. */
static void enter(void)
{
	char why[256];
	CHECK(arena_open(&arena, memory, memory_size, 0, why) == ARENA_OK);
	memcpy(&words, arena_session(&arena, CHANNEL), sizeof(words));
	store = state_store_create(&arena, CHANNEL);
	for (unsigned i = 0; i < STATES; i++)
		CHECK(state_open(store, &specs[i]) != NULL);
	snapshot_init(&snapshot, store, &arena, CHANNEL, &words);
	snapshot_scope(&snapshot, 10, 100, 128);
}

/* Makes a unit happen, or lets its worker die in the middle of it. */
static void commit_or_die(bool dies)
{
	CHECK(arena.trouble == ARENA_FINE);
	if (!dies) {
		memcpy(arena_session_write(&arena, CHANNEL), &words, sizeof(words));
		arena_commit(&arena);
		return;
	}
	state_store_destroy(store);
	enter();
}

/* Whether a result lets the session live; a refusal has to have words. */
static bool lives(enum snapshot_result result)
{
	if (result == SNAPSHOT_DONE || result == SNAPSHOT_MORE)
		return true;
	if (result == SNAPSHOT_REFUSED)
		CHECK(snapshot.why[0] != '\0');
	else
		CHECK(arena.trouble != ARENA_FINE);
	return false;
}

/* The right manifest, as Open has it. */
static struct view right_manifest(void)
{
	static uint8_t buffer[1024];
	struct wire_writer writer = {.at = buffer, .end = buffer + sizeof(buffer)};
	for (unsigned i = 0; i < STATES; i++) {
		struct wire_declaration declaration = {
		    .step = view_of(specs[i].step),
		    .name = view_of(specs[i].name),
		    .kind = (uint32_t)specs[i].kind,
		    .partition = (uint32_t)specs[i].partition,
		    .version = specs[i].version,
		};
		wire_put_declaration(&writer, OPEN_STATE_MANIFEST, &declaration);
	}
	CHECK(!writer.overflow);
	return (struct view){buffer, (size_t)(writer.at - buffer)};
}

/* Works on a chunk in units of `limit` entries. */
static bool chunk_work(struct view body, uint8_t limit, bool dies)
{
	for (unsigned unit = 0; unit < UNITS_MAX; unit++) {
		enum snapshot_result result = snapshot_chunk(&snapshot, body, limit % 16 + 1);
		if (!lives(result))
			return false;
		commit_or_die(dies && unit % 3 == 1);
		if (result == SNAPSHOT_DONE && !(dies && unit % 3 == 1))
			return true;
	}
	CHECK(false); /* each unit gets on */
	return false;
}

/* Works on the next chunk of the script. */
static bool chunk_next(struct script *script)
{
	uint8_t choice = script_byte(script), limit = script_byte(script);
	struct view bytes = script_bytes(script);
	struct wire_entries entries;
	uint8_t *body = malloc(bytes.size + 16);
	CHECK(body != NULL);
	if (bytes.size > 0)
		memcpy(body, bytes.data, bytes.size);
	if ((choice & 1) == 0 && wire_parse_entries(bytes, &entries) == WIRE_OK) {
		struct wire_writer writer = {.at = body + bytes.size, .end = body + bytes.size + 16};
		wire_put_fixed64_field(&writer, 2, entries.computed);
		bytes.size = (size_t)(writer.at - body);
	}
	bool good = chunk_work((struct view){body, bytes.size}, limit, (choice & 2) != 0);
	free(body);
	return good;
}

static void count_visit(void *context, const struct state_entry *entry)
{
	CHECK(!entry->removed && entry->state < STATES);
	++*(uint64_t *)context;
}

/* Sends all that is dirty; returns how many whole entries went out. */
static uint64_t send_all(void)
{
	static uint8_t buffer[MESSAGE_MAX];
	uint64_t whole = 0;
	while (snapshot_is_dirty(&snapshot)) {
		struct wire_writer writer = {.at = buffer,
					     .end = buffer + snapshot_delta_size(&snapshot, sizeof(buffer))};
		struct wire_to_worker envelope;
		struct wire_entries entries;
		struct wire_reader reader;
		struct wire_entry entry;
		if (!lives(snapshot_delta(&snapshot, &writer, 100)))
			return whole;
		CHECK(!writer.overflow);
		CHECK(wire_parse_from_worker((struct view){buffer, (size_t)(writer.at - buffer)}, &envelope) ==
		      WIRE_OK);
		CHECK(wire_parse_entries(envelope.body, &entries) == WIRE_OK && entries.checksum == entries.computed);
		wire_reader_init(&reader, envelope.body);
		while (wire_next_entry(&reader, &entry))
			whole += !entry.more;
		CHECK(!reader.malformed && entries.count > 0);
		commit_or_die(false);
	}
	return whole;
}

/* Restores what the script says. */
static void run(struct script *script)
{
	uint8_t choice = script_byte(script);
	struct view manifest = (choice & 1) == 0 ? right_manifest() : script_bytes(script);
	uint64_t live = 0;
	if (!lives(snapshot_open(&snapshot, manifest, choice & 2 ? 0 : 7, choice & 8 ? UINT64_MAX : 100, &descriptor)))
		return;
	commit_or_die(false);
	while (script->at < script->end)
		if (!chunk_next(script))
			return;
	if (!lives(snapshot_restored(&snapshot, words.restored)))
		return;
	commit_or_die((choice & 4) != 0);
	if (snapshot_restoring(&snapshot))
		return;
	for (uint64_t cursor = 0; cursor != UINT64_MAX;)
		state_walk(store, &cursor, 16, count_visit, &live);
	CHECK(live <= words.restored);
	CHECK(send_all() <= live); /* only pieces of lists without keys are new */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script script = {data, data + size};
	memory_size = arena_size_for(8 << 20);
	memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(memory != MAP_FAILED);
	memset(&arena, 0, sizeof(arena));
	enter();
	commit_or_die(false);
	run(&script);
	state_store_destroy(store);
	CHECK(munmap(memory, memory_size) == 0);
	return 0;
}
