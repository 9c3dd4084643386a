/*
 * The checkpoint file (run_store.h), in SQLite.
 *
 * A transaction is begun by the first write behind a commit, so that the state that comes in between two checkpoints goes to
 * SQLite at once, whose page cache bounds the memory, and a commit has little left to write. The journal is a rollback journal
 * (no second file is left when the run has ended), with synchronous=EXTRA: what is committed outlives a loss of power.
 *
 * The lock is flock on a descriptor of its own, because SQLite's locks come and go with transactions. POSIX drops SQLite's
 * locks when any descriptor of the file is closed, so that descriptor is closed last.
 */
#include "cli/run_store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flink_bridge.pb-c.h"
#include "shared/log.h"

enum {
	APPLICATION_ID = 0x466c4272, /* "FlBr": what file(1) and this program know the file by */
	BUSY_MS = 5000,              /* somebody looks into the file: a commit waits so long */
	STATES_MAX = 4096,
	BY_KEY = FLINK_BRIDGE__STATE_PARTITION__STATE_BY_KEY,
	SPLIT = FLINK_BRIDGE__STATE_PARTITION__STATE_SPLIT,
};

static const char schema[] =
    "BEGIN; PRAGMA application_id = 1181500018; PRAGMA user_version = 1;"
    "CREATE TABLE checkpoint (id INTEGER NOT NULL, finished INTEGER NOT NULL, pipeline TEXT NOT NULL,"
    " topology_hash TEXT NOT NULL, made_ms INTEGER NOT NULL, program TEXT NOT NULL, descriptor TEXT NOT NULL) STRICT;"
    "CREATE TABLE source (name TEXT PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL, position INTEGER NOT NULL,"
    " records INTEGER NOT NULL, largest_ms INTEGER, fingerprint INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE sink (name TEXT PRIMARY KEY, path TEXT NOT NULL, length INTEGER NOT NULL, records INTEGER NOT NULL,"
    " fingerprint INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE subtask (segment TEXT, subtask INTEGER, watermark_ms INTEGER,"
    " PRIMARY KEY (segment, subtask)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE state (id INTEGER PRIMARY KEY, segment TEXT NOT NULL, step TEXT NOT NULL, name TEXT NOT NULL,"
    " kind INTEGER NOT NULL, partition INTEGER NOT NULL, format_version INTEGER NOT NULL, ttl_ms INTEGER NOT NULL,"
    " UNIQUE (segment, step, name)) STRICT;"
    "CREATE TABLE entry (state INTEGER, key_group INTEGER, subtask INTEGER, key BLOB, sub_key BLOB,"
    " key_hash INTEGER NOT NULL, value BLOB NOT NULL,"
    " PRIMARY KEY (state, key_group, subtask, key, sub_key)) STRICT, WITHOUT ROWID;"
    "COMMIT;";

/* The statements that are used again and again. */
enum statement {
	BEGIN,
	COMMIT,
	PUT_CHECKPOINT,
	DROP_CHECKPOINT,
	PUT_SOURCE,
	PUT_SINK,
	PUT_SUBTASK,
	PUT_STATE,
	PUT_ENTRY,
	DROP_ENTRY,
	STATEMENT_COUNT
};

static const char put_state_text[] =
    "INSERT INTO state (segment, step, name, kind, partition, format_version, ttl_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, "
    "?7)"
    " ON CONFLICT (segment, step, name) DO UPDATE SET kind = ?4, partition = ?5, format_version = ?6, ttl_ms = ?7"
    " RETURNING id";

/* An update in place costs less than to replace the row. */
static const char put_entry_text[] =
    "INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET key_hash = ?6, value = ?7";

static const char *const statement_texts[STATEMENT_COUNT] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [PUT_CHECKPOINT] = "INSERT INTO checkpoint VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [DROP_CHECKPOINT] = "DELETE FROM checkpoint",
    [PUT_SOURCE] = "INSERT OR REPLACE INTO source VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [PUT_SINK] = "INSERT OR REPLACE INTO sink VALUES (?1, ?2, ?3, ?4, ?5)",
    [PUT_SUBTASK] = "INSERT OR REPLACE INTO subtask VALUES (?1, ?2, ?3)",
    [PUT_STATE] = put_state_text,
    [PUT_ENTRY] = put_entry_text,
    [DROP_ENTRY] =
	"DELETE FROM entry WHERE state = ?1 AND key_group = ?2 AND subtask = ?3 AND key = ?4 AND sub_key = ?5",
};

/* A copy of texts that live as long as the store. */
struct text {
	struct text *next;
	char bytes[];
};

struct run_store {
	sqlite3 *database;
	int lock;
	char *path;
	char why[STORE_WHY_MAX];
	bool writing; /* a transaction is open */
	sqlite3_stmt *statements[STATEMENT_COUNT];
	sqlite3_stmt *found_source, *found_sink; /* the rows handed out last */
	struct text *texts;
	struct store_state_list {
		struct store_state_list *next;
		struct store_state states[];
	} * lists;
};

/* Keeps what SQLite says; false. */
static bool failed(struct run_store *store, const char *doing)
{
	snprintf(store->why, sizeof(store->why), "cannot %s the checkpoint %s: %s", doing, store->path,
		 sqlite3_errmsg(store->database));
	return false;
}

const char *run_store_why(const struct run_store *store)
{
	return store->why;
}

/* ---- Opening ---- */

/* Says what is wrong with a file, and lets go of it. */
static enum store_result __attribute__((format(printf, 4, 5)))
refuse(struct run_store *store, enum store_result result, char *why, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vsnprintf(why, STORE_WHY_MAX, format, list);
	va_end(list);
	run_store_close(store);
	return result;
}

/* Runs statements that yield nothing. */
static bool execute(struct run_store *store, const char *text)
{
	return sqlite3_exec(store->database, text, NULL, NULL, NULL) == SQLITE_OK;
}

/* The one number that a statement yields; false: it failed. */
static bool ask(struct run_store *store, const char *text, int64_t *number)
{
	sqlite3_stmt *statement = NULL;
	bool fine = sqlite3_prepare_v2(store->database, text, -1, &statement, NULL) == SQLITE_OK &&
		    sqlite3_step(statement) == SQLITE_ROW;
	if (fine)
		*number = sqlite3_column_int64(statement, 0);
	return sqlite3_finalize(statement) == SQLITE_OK && fine;
}

/* Makes a new file durable by its name, too. */
static void sync_folder(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	snprintf(folder, sizeof(folder), "%.*s", slash == NULL ? 1 : (int)(slash - path + 1),
		 slash == NULL ? "." : path);
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	fsync(fd);
	close(fd);
}

/* Locks the file, making it if there is none. */
static enum store_result lock_file(struct run_store *store, const char *path, char *why)
{
	struct stat stat;
	store->path = strdup(path);
	if (store->path == NULL)
		fatalx("out of memory");
	store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
	if (store->lock < 0 || fstat(store->lock, &stat) != 0)
		return refuse(store, STORE_FAILED, why, "cannot open the checkpoint %s: %s", path, strerror(errno));
	if (!S_ISREG(stat.st_mode))
		return refuse(store, STORE_NOT_OURS, why, "the checkpoint %s is no regular file", path);
	if (flock(store->lock, LOCK_EX | LOCK_NB) != 0)
		return refuse(store, STORE_IN_USE, why,
			      "the checkpoint %s is in use by another run; wait for its end, or name another file",
			      path);
	sync_folder(path);
	return STORE_OK;
}

/* Looks whether the database is ours (C3), and makes its tables when it is empty. */
static enum store_result identify(struct run_store *store, char *why)
{
	int64_t application = 0, version = 0, tables = 0;
	if (!ask(store, "PRAGMA application_id", &application) || !ask(store, "PRAGMA user_version", &version) ||
	    !ask(store, "SELECT count(*) FROM sqlite_schema", &tables)) {
		bool other = sqlite3_errcode(store->database) == SQLITE_NOTADB;
		return refuse(store, other ? STORE_NOT_OURS : STORE_FAILED, why,
			      other ? "%s is no checkpoint: it is no SQLite file (%s)"
				    : "cannot read the checkpoint %s: %s",
			      store->path, sqlite3_errmsg(store->database));
	}
	if (tables == 0 && application == 0) {
		if (execute(store, schema))
			return STORE_OK;
		return refuse(store, STORE_FAILED, why, "cannot write the checkpoint %s: %s", store->path,
			      sqlite3_errmsg(store->database));
	}
	if (application != APPLICATION_ID)
		return refuse(store, STORE_NOT_OURS, why,
			      "%s is no checkpoint: it is an SQLite file of another program", store->path);
	if (version != STORE_FORMAT_VERSION)
		return refuse(store, STORE_NOT_OURS, why,
			      "the checkpoint %s has format %lld, and this bridgectl (" BRIDGE_VERSION
			      ") reads format %d: use the version that wrote it, or name another file",
			      store->path, (long long)version, STORE_FORMAT_VERSION);
	return STORE_OK;
}

/* Prepares what is used again and again. */
static bool prepare_statements(struct run_store *store)
{
	for (int i = 0; i < STATEMENT_COUNT; i++)
		if (sqlite3_prepare_v3(store->database, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &store->statements[i], NULL) != SQLITE_OK)
			return false;
	return true;
}

enum store_result run_store_open(struct run_store **out, const char *path, char *why)
{
	_Static_assert(APPLICATION_ID == 1181500018 && STORE_FORMAT_VERSION == 1, "as the schema has them");
	struct run_store *store = calloc(1, sizeof(*store));
	*out = NULL;
	if (store == NULL)
		fatalx("out of memory");
	store->lock = -1;
	enum store_result result = lock_file(store, path, why);
	if (result != STORE_OK)
		return result;
	char *place = realpath(path, NULL); /* SQLite has names that mean something else, such as ":memory:" */
	int opened = place == NULL
			 ? SQLITE_CANTOPEN
			 : sqlite3_open_v2(place, &store->database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	free(place);
	if (opened != SQLITE_OK)
		return refuse(store, STORE_FAILED, why, "cannot open the checkpoint %s: %s", path,
			      sqlite3_errmsg(store->database));
	sqlite3_busy_timeout(store->database, BUSY_MS);
	execute(store, "PRAGMA synchronous = EXTRA; PRAGMA cache_size = -65536"); /* no database: told below */
	result = identify(store, why);
	if (result != STORE_OK)
		return result;
	if (!execute(store, "PRAGMA journal_mode = DELETE") || !prepare_statements(store))
		return refuse(store, STORE_FAILED, why, "cannot use the checkpoint %s: %s", path,
			      sqlite3_errmsg(store->database));
	*out = store;
	return STORE_OK;
}

void run_store_close(struct run_store *store)
{
	if (store == NULL)
		return;
	for (int i = 0; i < STATEMENT_COUNT; i++)
		sqlite3_finalize(store->statements[i]);
	sqlite3_finalize(store->found_source);
	sqlite3_finalize(store->found_sink);
	if (sqlite3_close(store->database) != SQLITE_OK)
		fatalx("a statement on %s is still open", store->path);
	if (store->lock >= 0)
		close(store->lock);
	while (store->texts != NULL) {
		struct text *text = store->texts;
		store->texts = text->next;
		free(text);
	}
	while (store->lists != NULL) {
		struct store_state_list *list = store->lists;
		store->lists = list->next;
		free(list);
	}
	free(store->path);
	free(store);
}

bool run_store_is(const struct run_store *store, const struct stat *file)
{
	struct stat own;
	return fstat(store->lock, &own) == 0 && own.st_dev == file->st_dev && own.st_ino == file->st_ino;
}

uint64_t run_store_bytes(const struct run_store *store)
{
	struct stat stat;
	return fstat(store->lock, &stat) == 0 ? (uint64_t)stat.st_size : 0;
}

/* ---- Reading ---- */

/* Prepares a statement for once. */
static sqlite3_stmt *prepare(struct run_store *store, const char *text)
{
	sqlite3_stmt *statement = NULL;
	if (sqlite3_prepare_v2(store->database, text, -1, &statement, NULL) != SQLITE_OK)
		failed(store, "read");
	return statement;
}

/* Steps on to a row; `found` says whether there is one. */
static bool step(struct run_store *store, sqlite3_stmt *statement, bool *found)
{
	int code = sqlite3_step(statement);
	*found = code == SQLITE_ROW;
	return *found || code == SQLITE_DONE || failed(store, "read");
}

/* A text of a row; empty when there is none. */
static const char *column_text(sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);
	return text != NULL ? text : "";
}

/* A blob of a row. */
static struct view column_blob(sqlite3_stmt *statement, int column)
{
	const void *bytes = sqlite3_column_blob(statement, column);
	return (struct view){bytes, (size_t)sqlite3_column_bytes(statement, column)};
}

/* A time of a row; NULL is the smallest. */
static int64_t column_time(sqlite3_stmt *statement, int column)
{
	return sqlite3_column_type(statement, column) == SQLITE_NULL ? INT64_MIN
								     : sqlite3_column_int64(statement, column);
}

/* A copy that lives as long as the store. */
static const char *keep_text(struct run_store *store, const char *bytes)
{
	struct text *text = malloc(sizeof(*text) + strlen(bytes) + 1);
	if (text == NULL)
		fatalx("out of memory");
	strcpy(text->bytes, bytes);
	text->next = store->texts;
	store->texts = text;
	return text->bytes;
}

bool run_store_checkpoint(struct run_store *store, struct store_checkpoint *out)
{
	*out = (struct store_checkpoint){0};
	sqlite3_stmt *row =
	    prepare(store, "SELECT id, finished, pipeline, topology_hash, made_ms, descriptor FROM checkpoint");
	bool found, fine = row != NULL && step(store, row, &found);
	if (fine && found) {
		out->id = (uint64_t)sqlite3_column_int64(row, 0);
		out->finished = sqlite3_column_int(row, 1) != 0;
		out->pipeline = keep_text(store, column_text(row, 2));
		out->topology_hash = keep_text(store, column_text(row, 3));
		out->made_ms = sqlite3_column_int64(row, 4);
		out->descriptor = keep_text(store, column_text(row, 5));
	}
	sqlite3_finalize(row);
	return fine;
}

/* The row of a name; the one handed out before is dropped. */
static bool find(struct run_store *store, sqlite3_stmt **row, const char *text, const char *name, bool *found)
{
	sqlite3_finalize(*row);
	*row = prepare(store, text);
	if (*row == NULL)
		return false;
	sqlite3_bind_text(*row, 1, name, -1, SQLITE_TRANSIENT);
	return step(store, *row, found);
}

bool run_store_source(struct run_store *store, const char *name, struct store_source *out, bool *found)
{
	if (!find(store, &store->found_source,
		  "SELECT name, kind, path, position, records, largest_ms, fingerprint FROM source WHERE name = ?1",
		  name, found))
		return false;
	if (!*found)
		return true;
	sqlite3_stmt *row = store->found_source;
	*out = (struct store_source){
	    .name = column_text(row, 0),
	    .kind = column_text(row, 1),
	    .path = column_text(row, 2),
	    .position = (uint64_t)sqlite3_column_int64(row, 3),
	    .records = (uint64_t)sqlite3_column_int64(row, 4),
	    .largest_ms = column_time(row, 5),
	    .fingerprint = (uint64_t)sqlite3_column_int64(row, 6),
	};
	return true;
}

bool run_store_sink(struct run_store *store, const char *name, struct store_sink *out, bool *found)
{
	if (!find(store, &store->found_sink,
		  "SELECT name, path, length, records, fingerprint FROM sink WHERE name = ?1", name, found))
		return false;
	if (!*found)
		return true;
	sqlite3_stmt *row = store->found_sink;
	*out = (struct store_sink){
	    .name = column_text(row, 0),
	    .path = column_text(row, 1),
	    .length = (uint64_t)sqlite3_column_int64(row, 2),
	    .records = (uint64_t)sqlite3_column_int64(row, 3),
	    .fingerprint = (uint64_t)sqlite3_column_int64(row, 4),
	};
	return true;
}

bool run_store_segment(struct run_store *store, const char *segment, uint32_t *subtasks, int64_t *watermark)
{
	*subtasks = 0;
	*watermark = INT64_MAX;
	sqlite3_stmt *row = prepare(store, "SELECT watermark_ms FROM subtask WHERE segment = ?1");
	if (row == NULL)
		return false;
	sqlite3_bind_text(row, 1, segment, -1, SQLITE_STATIC);
	bool found, fine;
	while ((fine = step(store, row, &found)) && found) {
		int64_t time = column_time(row, 0);
		*watermark = time < *watermark ? time : *watermark;
		++*subtasks;
	}
	if (*subtasks == 0)
		*watermark = INT64_MIN;
	sqlite3_finalize(row);
	return fine;
}

/* Reads a row of the table state. */
static struct store_state state_of(struct run_store *store, sqlite3_stmt *row)
{
	return (struct store_state){
	    .id = sqlite3_column_int64(row, 0),
	    .declaration =
		{
		    .step = view_of(keep_text(store, column_text(row, 1))),
		    .name = view_of(keep_text(store, column_text(row, 2))),
		    .kind = (uint32_t)sqlite3_column_int64(row, 3),
		    .partition = (uint32_t)sqlite3_column_int64(row, 4),
		    .version = (uint32_t)sqlite3_column_int64(row, 5),
		    .ttl_ms = sqlite3_column_int64(row, 6),
		},
	};
}

bool run_store_states(struct run_store *store, const char *segment, const struct store_state **states, uint32_t *count)
{
	struct store_state_list *list = calloc(1, sizeof(*list) + STATES_MAX * sizeof(list->states[0]));
	if (list == NULL)
		fatalx("out of memory");
	list->next = store->lists;
	store->lists = list;
	*states = list->states;
	*count = 0;
	sqlite3_stmt *row = prepare(store, "SELECT id, step, name, kind, partition, format_version, ttl_ms FROM state"
					   " WHERE segment = ?1 ORDER BY id");
	if (row == NULL)
		return false;
	sqlite3_bind_text(row, 1, segment, -1, SQLITE_STATIC);
	bool found, fine;
	while ((fine = step(store, row, &found)) && found && *count < STATES_MAX)
		list->states[(*count)++] = state_of(store, row);
	sqlite3_finalize(row);
	return fine;
}

/* ---- What a subtask gets of the state ---- */

struct store_cursor {
	struct run_store *store;
	struct store_share share;
	uint32_t at; /* state in the share */
	sqlite3_stmt *rows;
};

struct store_cursor *run_store_cursor(struct run_store *store, const struct store_share *share)
{
	struct store_cursor *cursor = calloc(1, sizeof(*cursor));
	if (cursor == NULL)
		fatalx("out of memory");
	cursor->store = store;
	cursor->share = *share;
	return cursor;
}

/* The part of a list without keys that a subtask gets: its own when nothing was rescaled, else a run of the whole. */
static bool select_split(struct store_cursor *cursor, int64_t state)
{
	const struct store_share *share = &cursor->share;
	struct run_store *store = cursor->store;
	int64_t total = 0, subtask = share->subtask, parallelism = share->parallelism;
	bool same = share->parallelism == share->parallelism_before;
	char text[160];
	snprintf(text, sizeof(text), "SELECT count(*) FROM entry WHERE state = %lld", (long long)state);
	if (!same && !ask(store, text, &total))
		return failed(store, "read");
	cursor->rows =
	    prepare(store, same ? "SELECT key_group, key_hash, key, sub_key, value FROM entry"
				  " WHERE state = ?1 AND subtask = ?2 ORDER BY key_group, key, sub_key"
				: "SELECT key_group, key_hash, key, sub_key, value FROM entry"
				  " WHERE state = ?1 ORDER BY key_group, subtask, key, sub_key LIMIT ?3 OFFSET ?2");
	if (cursor->rows == NULL)
		return false;
	int64_t first = total * subtask / parallelism, behind = total * (subtask + 1) / parallelism;
	sqlite3_bind_int64(cursor->rows, 1, state);
	sqlite3_bind_int64(cursor->rows, 2, same ? subtask : first);
	if (!same)
		sqlite3_bind_int64(cursor->rows, 3, behind - first);
	return true;
}

/* Selects a subtask's entries of the state at hand. */
static bool select_rows(struct store_cursor *cursor)
{
	const struct store_state *state = &cursor->share.states[cursor->at];
	uint32_t partition = state->declaration.partition;
	if (partition == SPLIT)
		return select_split(cursor, state->id);
	bool keyed = partition == BY_KEY;
	cursor->rows =
	    prepare(cursor->store, keyed ? "SELECT key_group, key_hash, key, sub_key, value FROM entry WHERE state = ?1"
					   " AND key_group BETWEEN ?2 AND ?3 ORDER BY key_group, subtask, key, sub_key"
					 : "SELECT key_group, key_hash, key, sub_key, value FROM entry WHERE state = ?1"
					   " ORDER BY key_group, subtask, key, sub_key");
	if (cursor->rows == NULL)
		return false;
	sqlite3_bind_int64(cursor->rows, 1, state->id);
	if (keyed) {
		sqlite3_bind_int64(cursor->rows, 2, cursor->share.key_group_first);
		sqlite3_bind_int64(cursor->rows, 3, cursor->share.key_group_last);
	}
	return true;
}

bool run_store_next(struct store_cursor *cursor, struct wire_entry *entry, bool *found)
{
	*found = false;
	for (; cursor->at < cursor->share.count; cursor->at++) {
		if (cursor->rows == NULL && !select_rows(cursor))
			return false;
		if (!step(cursor->store, cursor->rows, found))
			return false;
		if (*found)
			break;
		sqlite3_finalize(cursor->rows);
		cursor->rows = NULL;
	}
	if (*found)
		*entry = (struct wire_entry){
		    .state = cursor->at,
		    .key_group = (uint32_t)sqlite3_column_int64(cursor->rows, 0),
		    .key_hash = (int32_t)sqlite3_column_int64(cursor->rows, 1),
		    .key = column_blob(cursor->rows, 2),
		    .sub_key = column_blob(cursor->rows, 3),
		    .value = column_blob(cursor->rows, 4),
		};
	return true;
}

void run_store_cursor_close(struct store_cursor *cursor)
{
	if (cursor == NULL)
		return;
	sqlite3_finalize(cursor->rows);
	free(cursor);
}

/* ---- Writing ---- */

/* Runs a prepared statement that yields nothing, and readies it for the next time. */
static bool run(struct run_store *store, enum statement which)
{
	sqlite3_stmt *statement = store->statements[which];
	bool fine = sqlite3_step(statement) == SQLITE_DONE || failed(store, "write");
	sqlite3_reset(statement);
	return fine;
}

/* Opens the transaction of the next checkpoint, if it is not open (C1), and hands a statement out for binding; NULL: it failed. */
static sqlite3_stmt *begin(struct run_store *store, enum statement which)
{
	sqlite3_finalize(store->found_source);
	sqlite3_finalize(store->found_sink);
	store->found_source = store->found_sink = NULL;
	if (!store->writing && !run(store, BEGIN))
		return NULL;
	store->writing = true;
	return store->statements[which];
}

/* Binds a text that lives until the statement has run. */
static void bind_text(sqlite3_stmt *statement, int at, struct view text)
{
	sqlite3_bind_text64(statement, at, text.size > 0 ? (const char *)text.data : "", text.size, SQLITE_STATIC,
			    SQLITE_UTF8);
}

/* Binds bytes; none is an empty blob, not NULL. */
static void bind_blob(sqlite3_stmt *statement, int at, struct view bytes)
{
	sqlite3_bind_blob64(statement, at, bytes.size > 0 ? (const void *)bytes.data : "", bytes.size, SQLITE_STATIC);
}

/* Binds a time; the smallest is NULL. */
static void bind_time(sqlite3_stmt *statement, int at, int64_t time)
{
	if (time == INT64_MIN)
		sqlite3_bind_null(statement, at);
	else
		sqlite3_bind_int64(statement, at, time);
}

bool run_store_put_source(struct run_store *store, const struct store_source *source)
{
	sqlite3_stmt *put = begin(store, PUT_SOURCE);
	if (put == NULL)
		return false;
	bind_text(put, 1, view_of(source->name));
	bind_text(put, 2, view_of(source->kind));
	bind_text(put, 3, view_of(source->path));
	sqlite3_bind_int64(put, 4, (int64_t)source->position);
	sqlite3_bind_int64(put, 5, (int64_t)source->records);
	bind_time(put, 6, source->largest_ms);
	sqlite3_bind_int64(put, 7, (int64_t)source->fingerprint);
	return run(store, PUT_SOURCE);
}

bool run_store_put_sink(struct run_store *store, const struct store_sink *sink)
{
	sqlite3_stmt *put = begin(store, PUT_SINK);
	if (put == NULL)
		return false;
	bind_text(put, 1, view_of(sink->name));
	bind_text(put, 2, view_of(sink->path));
	sqlite3_bind_int64(put, 3, (int64_t)sink->length);
	sqlite3_bind_int64(put, 4, (int64_t)sink->records);
	sqlite3_bind_int64(put, 5, (int64_t)sink->fingerprint);
	return run(store, PUT_SINK);
}

bool run_store_put_subtask(struct run_store *store, const char *segment, uint32_t subtask, int64_t watermark)
{
	sqlite3_stmt *put = begin(store, PUT_SUBTASK);
	if (put == NULL)
		return false;
	bind_text(put, 1, view_of(segment));
	sqlite3_bind_int64(put, 2, subtask);
	bind_time(put, 3, watermark);
	return run(store, PUT_SUBTASK);
}

/* Forgets a state: all of it, or its entries only. */
static bool forget(struct run_store *store, int64_t id, bool whole)
{
	char text[160];
	snprintf(text, sizeof(text), "DELETE FROM entry WHERE state = %lld%s", (long long)id, whole ? ";" : "");
	if (!execute(store, text))
		return failed(store, "write");
	snprintf(text, sizeof(text), "DELETE FROM state WHERE id = %lld", (long long)id);
	return !whole || execute(store, text) || failed(store, "write");
}

/* Whether a name is one of some. */
static bool is_among(const char *name, const char *const *names, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

/* Forgets the states of segments that are not among some. */
static bool forget_others(struct run_store *store, const char *const *segments, uint32_t count)
{
	int64_t gone[STATES_MAX];
	uint32_t gone_count = 0;
	sqlite3_stmt *row = prepare(store, "SELECT id, segment FROM state");
	bool found, fine = row != NULL;
	while (fine && (fine = step(store, row, &found)) && found && gone_count < STATES_MAX)
		if (!is_among(column_text(row, 1), segments, count))
			gone[gone_count++] = sqlite3_column_int64(row, 0);
	sqlite3_finalize(row);
	for (uint32_t i = 0; fine && i < gone_count; i++)
		fine = forget(store, gone[i], true);
	return fine;
}

bool run_store_take_over(struct run_store *store, const char *const *segments, uint32_t count)
{
	if (begin(store, BEGIN) == NULL)
		return false;
	if (!execute(store, "DELETE FROM source; DELETE FROM sink; DELETE FROM subtask"))
		return failed(store, "write");
	return forget_others(store, segments, count);
}

/* Writes a declaration; its row's number. */
static bool put_state(struct run_store *store, const char *segment, const struct wire_declaration *declaration,
		      int64_t *id)
{
	sqlite3_stmt *put = begin(store, PUT_STATE);
	bool found = false;
	if (put == NULL)
		return false;
	bind_text(put, 1, view_of(segment));
	bind_text(put, 2, declaration->step);
	bind_text(put, 3, declaration->name);
	sqlite3_bind_int64(put, 4, declaration->kind);
	sqlite3_bind_int64(put, 5, declaration->partition);
	sqlite3_bind_int64(put, 6, declaration->version);
	sqlite3_bind_int64(put, 7, declaration->ttl_ms);
	bool fine = step(store, put, &found) && found;
	if (fine)
		*id = sqlite3_column_int64(put, 0);
	sqlite3_reset(put);
	return fine;
}

/* Whether one of the declarations is of the state with a name. */
static bool is_declared(const struct wire_declaration *declarations, uint32_t count, const struct store_state *state)
{
	for (uint32_t i = 0; i < count; i++)
		if (view_equal(declarations[i].step, state->declaration.step) &&
		    view_equal(declarations[i].name, state->declaration.name))
			return true;
	return false;
}

bool run_store_declare(struct run_store *store, const char *segment, const struct wire_declaration *declarations,
		       uint32_t count, int64_t *ids)
{
	const struct store_state *states;
	uint32_t had;
	if (begin(store, PUT_STATE) == NULL || !run_store_states(store, segment, &states, &had))
		return false;
	for (uint32_t i = 0; i < had; i++) {
		bool gone = !is_declared(declarations, count, &states[i]);
		if ((gone || states[i].declaration.partition != BY_KEY) && !forget(store, states[i].id, gone))
			return false;
	}
	for (uint32_t i = 0; i < count; i++)
		if (!put_state(store, segment, &declarations[i], &ids[i]))
			return false;
	return true;
}

bool run_store_put_entry(struct run_store *store, int64_t state, uint32_t subtask, const struct wire_entry *entry)
{
	enum statement which = entry->removed ? DROP_ENTRY : PUT_ENTRY;
	sqlite3_stmt *put = begin(store, which);
	if (put == NULL)
		return false;
	sqlite3_bind_int64(put, 1, state);
	sqlite3_bind_int64(put, 2, entry->key_group);
	sqlite3_bind_int64(put, 3, subtask);
	bind_blob(put, 4, entry->key);
	bind_blob(put, 5, entry->sub_key);
	if (!entry->removed) {
		sqlite3_bind_int64(put, 6, entry->key_hash);
		bind_blob(put, 7, entry->value);
	}
	return run(store, which);
}

bool run_store_commit(struct run_store *store, const struct store_checkpoint *checkpoint)
{
	if (begin(store, DROP_CHECKPOINT) == NULL || !run(store, DROP_CHECKPOINT))
		return false;
	sqlite3_stmt *put = store->statements[PUT_CHECKPOINT];
	sqlite3_bind_int64(put, 1, (int64_t)checkpoint->id);
	sqlite3_bind_int(put, 2, checkpoint->finished);
	bind_text(put, 3, view_of(checkpoint->pipeline));
	bind_text(put, 4, view_of(checkpoint->topology_hash));
	sqlite3_bind_int64(put, 5, checkpoint->made_ms);
	bind_text(put, 6, view_of(BRIDGE_VERSION));
	bind_text(put, 7, view_of(checkpoint->descriptor));
	if (!run(store, PUT_CHECKPOINT) || !run(store, COMMIT))
		return false;
	store->writing = false;
	return true;
}
