/* Snapshot and restore. See snapshot.h. */
#include "worker/snapshot.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "descriptor/manifest.h"
#include "shared/keygroup.h"
#include "shared/log.h"
#include "worker/memory.h"

enum {
	DELTA_BYTES = 256 << 10,            /* of a message with changed state, unless a single entry is larger */
	PART_MIN = 4096,                    /* bytes of a value that are worth a part behind other entries */
	PARTS_BYTES_MAX = STATE_TRAVEL_MAX, /* of all parts of a value */
	RESERVE_STEPS = 1 << 16,            /* buckets that a unit has time for */
	CHECKSUM_BYTES = 9,
	NAME_SHOWN = 100, /* bytes of a name in words */
};

/* A part of a value that has not come as a whole yet. */
struct part {
	arena_ref next;
	uint32_t size;
	uint8_t bytes[];
};

void snapshot_init(struct snapshot *snapshot, struct state_store *store, struct arena *arena, uint32_t channel,
		   struct snapshot_words *words)
{
	*snapshot = (struct snapshot){
	    .arena = arena,
	    .store = store,
	    .words = words,
	    .channel = channel,
	};
}

void snapshot_scope(struct snapshot *snapshot, uint32_t key_group_first, uint32_t key_group_last,
		    uint32_t max_parallelism)
{
	snapshot->key_group_first = key_group_first;
	snapshot->key_group_last = key_group_last;
	snapshot->max_parallelism = max_parallelism;
}

/* Says why something is refused. Always returns REFUSED, for callers to pass on. */
static enum snapshot_result __attribute__((format(printf, 3, 4)))
refuse(struct snapshot *snapshot, enum snapshot_fault fault, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(snapshot->why, sizeof(snapshot->why), format, arguments);
	va_end(arguments);
	snapshot->fault = fault;
	snapshot->record = snapshot->words->chunk_entries;
	return SNAPSHOT_REFUSED;
}

/* Whether the unit is in trouble. */
static bool troubled(const struct snapshot *snapshot)
{
	return snapshot->arena->trouble != ARENA_FINE;
}

/* ---- Manifests ---- */

/* A handle's spec as a declaration. */
static struct wire_declaration declaration_of(const struct state_spec *spec)
{
	return (struct wire_declaration){
	    .step = view_of(spec->step),
	    .name = view_of(spec->name),
	    .kind = (uint32_t)spec->kind,
	    .partition = (uint32_t)spec->partition,
	    .version = spec->version,
	    .ttl_ms = spec->ttl_ms,
	};
}

uint64_t snapshot_manifest_size(const struct state_store *store)
{
	uint64_t size = 0;
	for (uint32_t i = 0; i < state_count(store); i++) {
		struct wire_declaration declaration = declaration_of(state_spec_of(store, i));
		size += wire_declaration_size(&declaration);
	}
	return size;
}

void snapshot_put_manifest(const struct state_store *store, struct wire_writer *writer, uint32_t field)
{
	for (uint32_t i = 0; i < state_count(store); i++) {
		struct wire_declaration declaration = declaration_of(state_spec_of(store, i));
		wire_put_declaration(writer, field, &declaration);
	}
}

/* The handle of a declared state; SNAPSHOT_DROPPED: there is none. */
static uint32_t handle_find(const struct state_store *store, const struct wire_declaration *declaration)
{
	for (uint32_t i = 0; i < state_count(store); i++) {
		const struct state_spec *spec = state_spec_of(store, i);
		if (view_equal(view_of(spec->name), declaration->name) &&
		    view_equal(view_of(spec->step), declaration->step))
			return i;
	}
	return SNAPSHOT_DROPPED;
}

/* The bytes of a name that are shown. */
static int shown(struct view name)
{
	return (int)(name.size < NAME_SHOWN ? name.size : NAME_SHOWN);
}

/* Words for what a state is: "a map (by key) in format 3". */
static const char *state_words(char words[80], const struct wire_declaration *declaration)
{
	bool known = declaration->kind < STATE_KIND_COUNT && declaration->partition < STATE_PARTITION_COUNT;
	bool ages = declaration->version >= STATE_VERSION_TTL;
	snprintf(words, 80, "%s (%s) in format %" PRIu32 "%s",
		 known ? state_kind_name((enum state_kind)declaration->kind) : "a kind of a later release",
		 known ? state_partition_name((enum state_partition)declaration->partition) : "?",
		 declaration->version - (ages ? STATE_VERSION_TTL : 0), ages ? " with a time to live" : "");
	return words;
}

/* Whether the descriptor lets a state go. */
static bool may_go(const struct descriptor *descriptor, const struct wire_declaration *old)
{
	char step[NAME_SHOWN], name[NAME_SHOWN];
	if (old->step.size >= sizeof(step) || old->name.size >= sizeof(name))
		return false;
	snprintf(step, sizeof(step), "%.*s", shown(old->step), (const char *)old->step.data);
	snprintf(name, sizeof(name), "%.*s", shown(old->name), (const char *)old->name.data);
	return descriptor_drops(descriptor, step, name);
}

/* Finds what a state of the checkpoint is now. */
static enum snapshot_result declaration_match(struct snapshot *snapshot, const struct wire_declaration *old,
					      const struct descriptor *descriptor, uint32_t *handle)
{
	char was[80], is[80];
	struct wire_declaration now;
	*handle = handle_find(snapshot->store, old);
	if (*handle != SNAPSHOT_DROPPED) {
		now = declaration_of(state_spec_of(snapshot->store, *handle));
		if (now.kind == old->kind && now.partition == old->partition && now.version == old->version)
			return SNAPSHOT_DONE;
	}
	if (may_go(descriptor, old)) {
		*handle = SNAPSHOT_DROPPED;
		return SNAPSHOT_DONE;
	}
	if (*handle == SNAPSHOT_DROPPED)
		return refuse(
		    snapshot, SNAPSHOT_FAULT_RESTORE,
		    "the checkpoint has state \"%.*s\" of step \"%.*s\", which this pipeline does not have: bring "
		    "the step back under its name or, if its state may be lost, say so under drop_state",
		    shown(old->name), (const char *)old->name.data, shown(old->step), (const char *)old->step.data);
	return refuse(
	    snapshot, SNAPSHOT_FAULT_RESTORE,
	    "state \"%.*s\" of step \"%.*s\" is %s in the checkpoint and %s in this pipeline: restore with the "
	    "step as it was or, if its state may be lost, say so under drop_state",
	    shown(old->name), (const char *)old->name.data, shown(old->step), (const char *)old->step.data,
	    state_words(was, old), state_words(is, &now));
}

/* Counts the declarations of a manifest. */
static enum snapshot_result manifest_count(struct snapshot *snapshot, struct view open, uint32_t *count)
{
	struct wire_declaration declaration;
	struct wire_reader reader;
	wire_reader_init(&reader, open);
	for (*count = 0; wire_next_declaration(&reader, OPEN_STATE_MANIFEST, &declaration); ++*count)
		if (*count == STATE_HANDLES_MAX)
			return refuse(snapshot, SNAPSHOT_FAULT_RESTORE,
				      "the manifest of the checkpoint has more than %d states", STATE_HANDLES_MAX);
	if (reader.malformed)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE,
			      "the manifest of the checkpoint cannot be read behind its first %" PRIu32 " states",
			      *count);
	return SNAPSHOT_DONE;
}

/* Notes what each state of a manifest is now. */
static enum snapshot_result manifest_map(struct snapshot *snapshot, struct view open, uint32_t count,
					 const struct descriptor *descriptor)
{
	struct wire_declaration declaration;
	struct wire_reader reader;
	arena_ref map = arena_alloc(snapshot->arena, snapshot->channel, count * sizeof(uint32_t));
	if (map == 0)
		return SNAPSHOT_TROUBLE;
	uint32_t *handles = arena_at(snapshot->arena, map); /* it is new: nothing to log */
	wire_reader_init(&reader, open);
	for (uint32_t i = 0; i < count; i++) {
		CHECK(wire_next_declaration(&reader, OPEN_STATE_MANIFEST, &declaration));
		enum snapshot_result result = declaration_match(snapshot, &declaration, descriptor, &handles[i]);
		if (result != SNAPSHOT_DONE)
			return result;
	}
	snapshot->words->map = map;
	snapshot->words->map_count = count;
	return SNAPSHOT_DONE;
}

enum snapshot_result snapshot_open(struct snapshot *snapshot, struct view open, uint64_t checkpoint, uint64_t expected,
				   const struct descriptor *descriptor)
{
	uint32_t count;
	enum snapshot_result result = manifest_count(snapshot, open, &count);
	if (result != SNAPSHOT_DONE)
		return result;
	if (checkpoint == 0 && count > 0)
		return refuse(snapshot, SNAPSHOT_FAULT_STATE,
			      "Open has a state_manifest but no restored_checkpoint: give both or none");
	if (checkpoint == 0)
		return SNAPSHOT_DONE;
	if (count > 0)
		result = manifest_map(snapshot, open, count, descriptor);
	if (result != SNAPSHOT_DONE)
		return result;
	snapshot->words->restoring = 1;
	snapshot->words->expected = expected;
	return SNAPSHOT_DONE;
}

/* ---- Restoring: entries ---- */

/* Says why an entry is refused, and which one. */
static enum snapshot_result __attribute__((format(printf, 3, 4)))
refuse_entry(struct snapshot *snapshot, uint32_t handle, const char *format, ...)
{
	char why[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	const struct state_spec *spec = state_spec_of(snapshot->store, handle);
	return refuse(snapshot, SNAPSHOT_FAULT_RESTORE,
		      "entry %" PRIu32 " of the RestoreChunk (state \"%.*s\" of step \"%.*s\"): %s",
		      snapshot->words->chunk_entries, NAME_SHOWN, spec->name, NAME_SHOWN, spec->step, why);
}

/* Checks that an entry belongs to this session. */
static enum snapshot_result entry_check(struct snapshot *snapshot, const struct wire_entry *entry, uint32_t handle)
{
	if (entry->removed)
		return refuse_entry(snapshot, handle, "it says that it was removed; only what is there is restored");
	if (state_spec_of(snapshot->store, handle)->partition != STATE_BY_KEY)
		return entry->key.size == 0 ? SNAPSHOT_DONE
					    : refuse_entry(snapshot, handle, "it has a key, and the state has none");
	if (entry->key_group < snapshot->key_group_first || entry->key_group > snapshot->key_group_last)
		return refuse_entry(snapshot, handle,
				    "it is of key group %" PRIu32 "; this session has %" PRIu32 " to %" PRIu32,
				    entry->key_group, snapshot->key_group_first, snapshot->key_group_last);
	uint32_t group = key_group_of(entry->key_hash, snapshot->max_parallelism);
	if (entry->key_group != group)
		return refuse_entry(snapshot, handle,
				    "its key hash %" PRId32 " is of key group %" PRIu32 " at max_parallelism %" PRIu32
				    ", not of %" PRIu32 ": the max_parallelism must be that of the checkpoint",
				    entry->key_hash, group, snapshot->max_parallelism, entry->key_group);
	return SNAPSHOT_DONE;
}

/* Puts a whole entry into the store. */
static enum snapshot_result entry_put(struct snapshot *snapshot, const struct wire_entry *entry, uint32_t handle,
				      struct view value, struct state_hashes hashes)
{
	const char *why = "it is none";
	struct state_entry whole = {
	    .state = handle,
	    .key_group = entry->key_group,
	    .key_hash = entry->key_hash,
	    .key = entry->key,
	    .sub = entry->sub_key,
	    .value = value,
	    .hashes = hashes,
	};
	enum state_result result = state_restore(snapshot->store, &whole, &why);
	if (troubled(snapshot))
		return SNAPSHOT_TROUBLE;
	if (result != STATE_OK)
		return refuse_entry(snapshot, handle, "%s", why);
	snapshot->words->restored++;
	return SNAPSHOT_DONE;
}

/* ---- Restoring: parts of large values ---- */

/* What all parts of a value have in common. */
static uint64_t identity_of(const struct wire_entry *entry)
{
	uint64_t numbers[] = {entry->state, entry->key_group, (uint32_t)entry->key_hash, wire_checksum(entry->key),
			      wire_checksum(entry->sub_key)};
	return wire_checksum((struct view){(const uint8_t *)numbers, sizeof(numbers)});
}

/* Keeps a part until the others have come. */
static enum snapshot_result part_keep(struct snapshot *snapshot, const struct wire_entry *entry, uint32_t handle)
{
	struct arena *arena = snapshot->arena;
	struct snapshot_words *words = snapshot->words;
	if (entry->value.size == 0)
		return refuse_entry(snapshot, handle, "a part of its value is empty");
	if (words->parts_bytes + entry->value.size > PARTS_BYTES_MAX)
		return refuse_entry(snapshot, handle, "its value has more than %d bytes", PARTS_BYTES_MAX);
	arena_ref block = arena_alloc(arena, snapshot->channel, sizeof(struct part) + entry->value.size);
	if (block == 0)
		return SNAPSHOT_TROUBLE;
	struct part *part = arena_at(arena, block);
	part->next = 0;
	part->size = (uint32_t)entry->value.size;
	memcpy(part->bytes, entry->value.data, part->size);
	if (words->parts_first == 0) {
		words->parts_first = block;
		words->parts_identity = identity_of(entry);
	} else {
		struct part *last = arena_find(arena, words->parts_last, sizeof(*last));
		if (last == NULL)
			return SNAPSHOT_TROUBLE;
		arena_write(arena, &last->next, sizeof(last->next));
		last->next = block;
	}
	words->parts_last = block;
	words->parts_bytes += part->size;
	return troubled(snapshot) ? SNAPSHOT_TROUBLE : SNAPSHOT_DONE;
}

/* Frees the parts, and copies them to `to` before, one behind the other. */
static void parts_take(struct snapshot *snapshot, uint8_t *to)
{
	struct snapshot_words *words = snapshot->words;
	uint64_t left = words->parts_bytes;
	for (arena_ref block = words->parts_first, next; block != 0; block = next) {
		struct part *part = arena_find(snapshot->arena, block, sizeof(*part));
		if (part == NULL || part->size > left ||
		    arena_find(snapshot->arena, block, sizeof(*part) + part->size) == NULL) {
			arena_set_broken(snapshot->arena, "a part of a restored value is none");
			return;
		}
		next = part->next;
		left -= part->size;
		memcpy(to, part->bytes, part->size);
		to += part->size;
		arena_free(snapshot->arena, snapshot->channel, block, sizeof(*part) + part->size);
	}
	words->parts_first = words->parts_last = 0;
	words->parts_bytes = 0;
}

/* Takes an entry of which parts have come before. */
static enum snapshot_result part_take(struct snapshot *snapshot, const struct wire_entry *entry, uint32_t handle)
{
	uint64_t before = snapshot->words->parts_bytes;
	if (identity_of(entry) != snapshot->words->parts_identity)
		return refuse_entry(
		    snapshot, handle,
		    "the value of the entry before it goes on in it, but it is of another state or key");
	if (entry->more)
		return part_keep(snapshot, entry, handle);
	uint8_t *whole = malloc(before + entry->value.size);
	if (whole == NULL)
		memory_leave("a restored value");
	parts_take(snapshot, whole);
	if (entry->value.size > 0)
		memcpy(whole + before, entry->value.data, entry->value.size);
	enum snapshot_result result = SNAPSHOT_TROUBLE;
	if (!troubled(snapshot))
		result = entry_put(snapshot, entry, handle, (struct view){whole, before + entry->value.size},
				   (struct state_hashes){0});
	free(whole);
	return result;
}

/* Takes one entry of a chunk, whose state is this handle now. */
static enum snapshot_result entry_take(struct snapshot *snapshot, const struct wire_entry *entry, uint32_t handle,
				       struct state_hashes hashes)
{
	struct snapshot_words *words = snapshot->words;
	if (words->parts_first != 0 && identity_of(entry) != words->parts_identity)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE,
			      "entry %" PRIu32
			      " of the RestoreChunk: the value of the one before it goes on in it, but it is of "
			      "another state or key",
			      words->chunk_entries);
	if (handle == SNAPSHOT_DROPPED) {
		words->restored += !entry->more;
		words->dropped += !entry->more;
		return SNAPSHOT_DONE;
	}
	enum snapshot_result result = entry_check(snapshot, entry, handle);
	if (result != SNAPSHOT_DONE)
		return result;
	if (words->parts_first != 0)
		return part_take(snapshot, entry, handle);
	return entry->more ? part_keep(snapshot, entry, handle)
			   : entry_put(snapshot, entry, handle, entry->value, hashes);
}

/* ---- Restoring: chunks ---- */

/* Looks at a chunk as a whole, once in each process that works on it. */
static enum snapshot_result chunk_check(struct snapshot *snapshot, struct view body)
{
	if (!snapshot_restoring(snapshot))
		return refuse(snapshot, SNAPSHOT_FAULT_STATE,
			      "a RestoreChunk comes right behind an Open with a restored_checkpoint, or not at all");
	if (snapshot->chunk_known)
		return SNAPSHOT_DONE;
	if (wire_parse_entries(body, &snapshot->chunk) != WIRE_OK)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE, "the RestoreChunk cannot be read");
	if (snapshot->chunk.checksum != snapshot->chunk.computed)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE,
			      "the RestoreChunk is damaged: its checksum is %016" PRIx64 ", its %" PRIu64
			      " entries have %016" PRIx64,
			      snapshot->chunk.checksum, snapshot->chunk.count, snapshot->chunk.computed);
	snapshot->chunk_known = true;
	return SNAPSHOT_DONE;
}

/* Notes how far a chunk has come. */
static enum snapshot_result chunk_went(struct snapshot *snapshot, uint64_t offset)
{
	struct snapshot_words *words = snapshot->words;
	if (words->chunk_entries < snapshot->chunk.count) {
		words->chunk_offset = (uint32_t)offset;
		return SNAPSHOT_MORE;
	}
	words->chunk_offset = 0;
	words->chunk_entries = 0;
	snapshot->chunk_known = false;
	return SNAPSHOT_DONE;
}

/* An entry that has been read, and will be taken when the table has been fetched from memory. */
struct coming {
	struct wire_entry entry;
	struct state_hashes hashes;
	const uint8_t *behind; /* where the reader was then */
	enum { COMING_GOOD, COMING_MALFORMED, COMING_UNKNOWN } is;
	uint32_t handle;
};

/* Reads the next entry. */
static void coming_read(struct snapshot *snapshot, struct wire_reader *reader, const uint32_t *map,
			struct coming *coming)
{
	*coming = (struct coming){.is = COMING_MALFORMED};
	if (!wire_next_entry(reader, &coming->entry))
		return;
	const struct wire_entry *entry = &coming->entry;
	coming->behind = reader->at;
	coming->is = map != NULL && entry->state < snapshot->words->map_count ? COMING_GOOD : COMING_UNKNOWN;
	if (coming->is == COMING_UNKNOWN)
		return;
	coming->handle = map[entry->state];
	if (coming->handle < state_count(snapshot->store))
		coming->hashes = state_restore_ahead(snapshot->store, coming->handle, entry->key, entry->sub_key);
	else if (coming->handle != SNAPSHOT_DROPPED)
		arena_set_broken(snapshot->arena, "what a restored state is now cannot be");
}

/* Takes an entry that was read. */
static enum snapshot_result coming_take(struct snapshot *snapshot, const struct coming *coming)
{
	struct snapshot_words *words = snapshot->words;
	if (troubled(snapshot))
		return SNAPSHOT_TROUBLE;
	if (coming->is == COMING_MALFORMED)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE, "entry %" PRIu32 " of the RestoreChunk cannot be read",
			      words->chunk_entries);
	if (coming->is == COMING_UNKNOWN)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE,
			      "entry %" PRIu32 " of the RestoreChunk is of state %" PRIu32
			      "; the checkpoint's manifest has %" PRIu32,
			      words->chunk_entries, coming->entry.state, words->map_count);
	return entry_take(snapshot, &coming->entry, coming->handle, coming->hashes);
}

enum snapshot_result snapshot_chunk(struct snapshot *snapshot, struct view body, uint32_t limit)
{
	struct snapshot_words *words = snapshot->words;
	struct coming coming[STATE_AHEAD];
	struct wire_reader reader;
	const uint32_t *map = NULL;
	enum snapshot_result result = chunk_check(snapshot, body);
	snapshot->count = 0;
	if (result != SNAPSHOT_DONE)
		return result;
	if (words->map_count > 0)
		map = arena_find(snapshot->arena, words->map, words->map_count * sizeof(uint32_t));
	/* All of it before the first entry: it costs next to nothing then. */
	if (words->expected > 0 && state_reserve(snapshot->store, words->expected, RESERVE_STEPS))
		return chunk_went(snapshot, words->chunk_offset);
	words->expected = 0;
	CHECK(words->chunk_offset <= body.size);
	wire_reader_init(&reader, (struct view){body.data + words->chunk_offset, body.size - words->chunk_offset});
	const uint8_t *behind = reader.at;
	uint64_t left = snapshot->chunk.count - words->chunk_entries, todo = left < limit ? left : limit;
	snapshot->arena->filling = true;
	for (uint64_t read = 0; snapshot->count < todo; snapshot->count++) {
		for (; read < todo && read < snapshot->count + (uint64_t)STATE_AHEAD && !troubled(snapshot); read++)
			coming_read(snapshot, &reader, map, &coming[read % STATE_AHEAD]);
		result = coming_take(snapshot, &coming[snapshot->count % STATE_AHEAD]);
		if (result != SNAPSHOT_DONE)
			break;
		behind = coming[snapshot->count % STATE_AHEAD].behind;
		words->chunk_entries++;
	}
	snapshot->arena->filling = false;
	if (result != SNAPSHOT_DONE)
		return result;
	return chunk_went(snapshot, (uint64_t)(behind - body.data));
}

enum snapshot_result snapshot_restored(struct snapshot *snapshot, uint64_t entries)
{
	struct snapshot_words *words = snapshot->words;
	if (!snapshot_restoring(snapshot))
		return refuse(snapshot, SNAPSHOT_FAULT_STATE,
			      "a RestoreEnd comes behind an Open with a restored_checkpoint, once, or not at all");
	if (words->parts_first != 0)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE, "RestoreEnd came before the last part of a value");
	if (words->restored != entries)
		return refuse(snapshot, SNAPSHOT_FAULT_RESTORE,
			      "RestoreEnd says that %" PRIu64 " entries were sent; %" PRIu64 " came", entries,
			      words->restored);
	if (words->map != 0)
		arena_free(snapshot->arena, snapshot->channel, words->map, words->map_count * sizeof(uint32_t));
	words->map = 0;
	words->map_count = 0;
	words->restoring = 0;
	return troubled(snapshot) ? SNAPSHOT_TROUBLE : SNAPSHOT_DONE;
}

/* ---- Sending ---- */

bool snapshot_is_dirty(const struct snapshot *snapshot)
{
	return state_dirty_entries(snapshot->store) > 0;
}

bool snapshot_is_due(struct snapshot *snapshot, uint64_t limit)
{
	uint64_t bytes = state_dirty_bytes(snapshot->store);
	if (bytes > limit)
		snapshot->draining = true;
	else if (bytes <= limit / 2)
		snapshot->draining = false;
	/* A value that was begun is finished: nothing may get dirty before it. */
	return snapshot->words->sent > 0 || (snapshot->draining && snapshot_is_dirty(snapshot));
}

/* The first dirty entry as it travels, without what went out of it before. */
static struct wire_entry entry_unsent(const struct snapshot *snapshot, const struct state_entry *entry)
{
	uint64_t sent = snapshot->words->sent;
	struct view value = entry->value;
	CHECK(sent <= value.size);
	if (sent > 0) /* a removed one has no bytes to be pointed at */
		value = (struct view){value.data + sent, value.size - sent};
	return (struct wire_entry){
	    .key = entry->key,
	    .sub_key = entry->sub,
	    .value = value,
	    .state = entry->state,
	    .key_group = entry->key_group,
	    .key_hash = entry->key_hash,
	    .removed = entry->removed,
	};
}

uint64_t snapshot_delta_size(struct snapshot *snapshot, uint64_t message_max)
{
	struct state_entry entry;
	uint64_t wanted = DELTA_BYTES;
	if (state_delta_peek(snapshot->store, &entry) == STATE_OK) {
		struct wire_entry unsent = entry_unsent(snapshot, &entry);
		uint64_t size = wire_entry_size(&unsent) + WIRE_ENTRIES_AROUND;
		wanted = size > wanted ? size : wanted;
	}
	return wanted < message_max ? wanted : message_max;
}

/* Writes an entry that is larger than a message as far as it fits, where that is worth it. */
static enum snapshot_result part_put(struct snapshot *snapshot, struct wire_writer *writer, struct wire_entry *entry,
				     uint64_t left, bool alone)
{
	uint64_t room = wire_entry_room(entry, left);
	if (!alone && room < PART_MIN)
		return SNAPSHOT_MORE;
	if (room < left / 16) /* so much of each message would be keys that a large value takes for ever */
		return refuse(
		    snapshot, SNAPSHOT_FAULT_TOO_LARGE,
		    "an entry of state \"%s\" of step \"%s\" has %zu bytes of key, more than fits into a message: "
		    "make keys smaller, or raise --message-max",
		    state_spec_of(snapshot->store, entry->state)->name,
		    state_spec_of(snapshot->store, entry->state)->step, entry->key.size + entry->sub_key.size);
	entry->value.size = room;
	entry->more = true;
	wire_put_entry(writer, entry);
	snapshot->words->sent += (uint32_t)room;
	return SNAPSHOT_MORE;
}

/* Writes entries until the message is full, the unit is large enough, or nothing is left. */
static enum snapshot_result entries_put(struct snapshot *snapshot, struct wire_writer *writer, uint32_t limit)
{
	const uint8_t *start = writer->at, *end = writer->end - CHECKSUM_BYTES;
	uint64_t whole = (uint64_t)(end - start);
	struct state_entry entry;
	for (snapshot->count = 0; snapshot->count < limit; snapshot->count++) {
		enum state_result found = state_delta_peek(snapshot->store, &entry);
		if (troubled(snapshot))
			return SNAPSHOT_TROUBLE;
		if (found != STATE_OK)
			return found == STATE_AGAIN ? SNAPSHOT_MORE : SNAPSHOT_DONE;
		struct wire_entry unsent = entry_unsent(snapshot, &entry);
		uint64_t size = wire_entry_size(&unsent), left = (uint64_t)(end - writer->at);
		if (size > left)
			return size <= whole ? SNAPSHOT_MORE
					     : part_put(snapshot, writer, &unsent, left, writer->at == start);
		wire_put_entry(writer, &unsent);
		snapshot->words->sent = 0;
		state_delta_advance(snapshot->store);
		if (troubled(snapshot))
			return SNAPSHOT_TROUBLE;
	}
	return snapshot_is_dirty(snapshot) ? SNAPSHOT_MORE : SNAPSHOT_DONE;
}

enum snapshot_result snapshot_delta(struct snapshot *snapshot, struct wire_writer *writer, uint32_t limit)
{
	uint8_t *start = wire_begin(writer, FROM_WORKER_STATE_DELTA);
	CHECK(start != NULL && (uint64_t)(writer->end - writer->at) > CHECKSUM_BYTES);
	enum snapshot_result result = entries_put(snapshot, writer, limit);
	if (result != SNAPSHOT_DONE && result != SNAPSHOT_MORE)
		return result;
	wire_end_entries(writer, start);
	return result;
}
