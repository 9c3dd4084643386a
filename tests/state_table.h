/*
 * A client's table of state: what deltas have said, by (state, key, sub_key). For tests of what sends them.
 */
#ifndef TESTS_STATE_TABLE_H
#define TESTS_STATE_TABLE_H

#include <check.h>
#include <stdlib.h>

#include "shared/wire.h"
#include "tests/wire_messages.h"

enum { TABLE_BUCKETS = 4096 };

struct row {
	struct row *next;
	struct wire_entry entry; /* its bytes are the row's */
	uint8_t bytes[];
};

struct table {
	struct row *buckets[TABLE_BUCKETS];
	uint64_t count;
	struct bytes partial; /* the parts of a value that have come */
	uint64_t parts;
};

static inline uint64_t entry_hash(const struct wire_entry *entry)
{
	return wire_checksum(entry->key) * 31 + wire_checksum(entry->sub_key) * 7 + entry->state;
}

static inline bool entry_same_name(const struct wire_entry *a, const struct wire_entry *b)
{
	return a->state == b->state && view_equal(a->key, b->key) && view_equal(a->sub_key, b->sub_key);
}

/* Where the row of an entry's name hangs, or would hang. */
static inline struct row **table_find(struct table *table, const struct wire_entry *entry)
{
	struct row **at = &table->buckets[entry_hash(entry) % TABLE_BUCKETS];
	while (*at != NULL && !entry_same_name(&(*at)->entry, entry))
		at = &(*at)->next;
	return at;
}

static inline struct view copy_to(uint8_t **at, struct view bytes)
{
	struct view copy = {*at, bytes.size};
	if (bytes.size > 0)
		memcpy(*at, bytes.data, bytes.size);
	*at += bytes.size;
	return copy;
}

static inline void table_remove(struct table *table, const struct wire_entry *entry)
{
	struct row **at = table_find(table, entry), *row = *at;
	if (row == NULL)
		return;
	*at = row->next;
	free(row);
	table->count--;
}

static inline void table_put(struct table *table, const struct wire_entry *entry)
{
	table_remove(table, entry);
	struct row *row = malloc(sizeof(*row) + entry->key.size + entry->sub_key.size + entry->value.size);
	ck_assert_ptr_nonnull(row);
	row->entry = *entry;
	uint8_t *at = row->bytes;
	row->entry.key = copy_to(&at, entry->key);
	row->entry.sub_key = copy_to(&at, entry->sub_key);
	row->entry.value = copy_to(&at, entry->value);
	row->entry.more = false;
	row->next = NULL;
	*table_find(table, entry) = row;
	table->count++;
}

/* Takes an entry of a delta over. */
static inline void table_apply(struct table *table, struct wire_entry entry)
{
	ck_assert(!entry.removed || (entry.value.size == 0 && !entry.more && table->partial.size == 0));
	if (entry.more || table->partial.size > 0) {
		bytes_add(&table->partial, entry.value.data, entry.value.size);
		table->parts++;
		if (entry.more)
			return;
		entry.value = bytes_view(&table->partial);
	}
	if (entry.removed)
		table_remove(table, &entry);
	else
		table_put(table, &entry);
	table->partial.size = 0;
}

static inline void table_free(struct table *table)
{
	for (unsigned i = 0; i < TABLE_BUCKETS; i++)
		for (struct row *row = table->buckets[i], *next; row != NULL; row = next) {
			next = row->next;
			free(row);
		}
	bytes_free(&table->partial);
	memset(table, 0, sizeof(*table));
}

/* All rows, in an order that is the same for the same table. */
static inline struct row **table_rows(const struct table *table)
{
	struct row **rows = calloc(table->count + 1, sizeof(struct row *));
	size_t count = 0;
	ck_assert_ptr_nonnull(rows);
	for (unsigned i = 0; i < TABLE_BUCKETS; i++)
		for (struct row *row = table->buckets[i]; row != NULL; row = row->next)
			rows[count++] = row;
	ck_assert_uint_eq(count, table->count);
	return rows;
}

#endif
