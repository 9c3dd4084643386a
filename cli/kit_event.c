/* The events of a test case: records, time, restarts; each is worked off to its end. */
#include "cli/kit_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/keygroup.h"
#include "worker/failure.h"
#include "worker/jq_program.h"

enum { LINE_MAX_BYTES = KIT_MESSAGE_MAX - 4096 };

/* ---- Events --------------------------------------------------------------------------------------------------------- */

/* Where an event stands, for messages. */
#define AT(file, event) (file)->path, (event)->at->line, (event)->at->column

/* The source that an event names, or the only one; NULL and words. */
static struct kit_producer *source_of(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	char names[1024] = "";

	if (event->source == NULL && job->source_count == 1)
		return &job->sources[0];
	for (size_t i = 0; i < job->source_count; i++) {
		if (event->source != NULL && strcmp(job->sources[i].name, event->source) == 0)
			return &job->sources[i];
		size_t used = strlen(names);
		snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", job->sources[i].name);
	}
	const char *what = job->alone != NULL ? "the segment" : "the pipeline";
	if (event->source != NULL)
		BREAK(job, "%s:%zu:%zu: %s has no source \"%s\"; it has %s", AT(file, event), what, event->source,
		      names);
	else
		BREAK(job, "%s:%zu:%zu: %s has several sources: say which `source`: %s", AT(file, event), what, names);
	return NULL;
}

/* Whether an event is about a source: it names it, or none. */
static bool is_about(const struct kit_event *event, const struct kit_producer *source)
{
	return event->source == NULL || strcmp(event->source, source->name) == 0;
}

/* Event time as the source's program makes it of a payload. */
static bool timestamp_of(struct kit_job *job, const struct kit_producer *source, struct view payload,
			 int64_t *timestamp)
{
	char why[512], text[EXCERPT_SIZE];
	struct jq_program *program = jq_program_get(source->timestamp, why, sizeof(why));

	if (program == NULL)
		return BREAK(job, "the timestamp program of source \"%s\" does not compile: %s", source->name, why);
	const char *wrong = jq_program_time(program, payload, timestamp);
	if (wrong != NULL)
		return kit_fail(job, "source \"%s\": no timestamp for a record: %s\n  record: %s", source->name, wrong,
				excerpt(payload, text));
	return true;
}

/* A source's own watermark follows a record, if the case leaves that to sources: of all of its subtasks, which have one clock. */
static void follow(const struct kit_job *job, struct kit_producer *source, int64_t timestamp)
{
	int64_t behind = watermark_behind(timestamp, source->out_of_orderness_ms);

	if (!job->follows || behind <= source->watermark)
		return;
	source->watermark = behind;
	for (uint32_t from = 0; from < source->parallelism; from++)
		kit_tell(source, from, NEWS_WATERMARK, behind);
}

/* A source gives a record out. */
static bool give(struct kit_job *job, struct kit_producer *source, const struct kit_record *record)
{
	struct wire_header *headers = pool_array(&job->pool, record->header_count, sizeof(*headers));
	struct wire_record out = {.payload = record->payload,
				  .key = record->key,
				  .keyed = record->has_key,
				  .timestamp = record->has_timestamp ? record->timestamp : job->now_ms,
				  .headers = headers,
				  .header_count = (uint32_t)record->header_count};

	for (size_t i = 0; i < record->header_count; i++)
		headers[i] = (struct wire_header){view_of(record->headers[i].name), view_of(record->headers[i].value)};
	if (record->has_key)
		out.key_hash = key_hash_of(record->key);
	if (!record->has_timestamp && source->timestamp != NULL &&
	    !timestamp_of(job, source, record->payload, &out.timestamp))
		return false;
	uint32_t from = source->next++ % source->parallelism;
	if (!kit_push(job, source, from, &out))
		return false;
	follow(job, source, out.timestamp);
	return true;
}

/* Whether records have the keys that the segment which runs alone needs; lines of a file have none. */
static bool keys_are_there(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	size_t count = event->kind == KIT_LINES ? 1 : event->count;

	for (size_t i = 0; job->alone != NULL && job->alone->keyed && i < count; i++)
		if (event->kind == KIT_LINES || !event->records[i].has_key)
			return BREAK(job, "%s:%zu:%zu: segment \"%s\" is keyed: a record needs a `key`",
				     AT(file, event), job->alone->name);
	return true;
}

/* Records come in. */
static bool do_records(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	struct kit_producer *source = source_of(job, file, event);

	if (source == NULL || !keys_are_there(job, file, event))
		return false;
	for (size_t i = 0; i < event->count; i++)
		if (!give(job, source, &event->records[i]))
			return false;
	return kit_settle(job);
}

/* Each line of a file comes in. */
static bool do_lines(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	struct kit_producer *source = source_of(job, file, event);
	const char *path = kit_path(file, event->path);
	bool good = source != NULL && keys_are_there(job, file, event);
	FILE *in = good ? fopen(path, "re") : NULL;
	char *line = NULL;
	size_t room = 0;
	ssize_t size;

	if (!good)
		return false;
	if (in == NULL)
		return BREAK(job, "%s:%zu:%zu: cannot open %s: %m", AT(file, event), path);
	while (!job->failed && (size = getline(&line, &room, in)) >= 0) {
		while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
			line[--size] = '\0';
		struct kit_record record = {.payload = {(const uint8_t *)line, (size_t)size}, .has_payload = true};
		if (size > LINE_MAX_BYTES)
			BREAK(job, "%s: a line of %zd bytes; a case has room for %d", path, size, LINE_MAX_BYTES);
		else if (give(job, source, &record))
			kit_settle(job);
	}
	if (ferror(in))
		BREAK(job, "%s:%zu:%zu: cannot read %s: %m", AT(file, event), path);
	free(line);
	fclose(in);
	return !job->failed;
}

/* A source, or all of them, tell of time, of idleness, or of their end. */
static bool do_news(struct kit_job *job, struct kit_file *file, const struct kit_event *event, enum news news,
		    int64_t value)
{
	if (event->source != NULL && source_of(job, file, event) == NULL)
		return false;
	for (size_t i = 0; i < job->source_count; i++) {
		struct kit_producer *source = &job->sources[i];
		if (!is_about(event, source))
			continue;
		if (news == NEWS_WATERMARK && value > source->watermark)
			source->watermark = value;
		if (news == NEWS_IDLE)
			source->idle = value != 0;
		for (uint32_t from = 0; from < source->parallelism; from++)
			kit_tell(source, from, news, value);
	}
	return kit_settle(job);
}

/* The job stops with a checkpoint, and another one is restored from it: new memory, new workers, maybe another parallelism. */
static bool do_restart_job(struct kit_job *job, const struct kit_event *event)
{
	if (!kit_sessions_cut(job))
		return false;
	kit_slot_destroy(&job->slot);
	kit_disconnect(job);
	if (!kit_parallelism(job, event->parallelism > 0 ? event->parallelism : job->parallelism))
		return false;
	kit_connect(job);
	for (size_t i = 0; i < job->descriptor->segment_count; i++)
		kit_states_settle(&job->stages[i].states);
	if (!kit_sessions_open(job))
		return false;
	for (size_t i = 0; i < job->source_count; i++)
		for (uint32_t from = 0; from < job->parallelism; from++) {
			if (job->sources[i].watermark > INT64_MIN)
				kit_tell(&job->sources[i], from, NEWS_WATERMARK, job->sources[i].watermark);
			if (job->sources[i].idle)
				kit_tell(&job->sources[i], from, NEWS_IDLE, 1);
		}
	return kit_settle(job);
}

bool kit_job_event(struct kit_job *job, struct kit_file *file, const struct kit_event *event)
{
	switch (event->kind) {
	case KIT_RECORDS:
		return do_records(job, file, event);
	case KIT_LINES:
		return do_lines(job, file, event);
	case KIT_WATERMARK:
		return do_news(job, file, event, NEWS_WATERMARK, event->time);
	case KIT_IDLE:
		return do_news(job, file, event, NEWS_IDLE, event->idle);
	case KIT_ADVANCE:
		if (event->time > KIT_TIME_MAX - job->now_ms)
			return BREAK(job, "%s:%zu:%zu: processing time would go beyond %" PRId64 " ms", AT(file, event),
				     KIT_TIME_MAX);
		return kit_tick(job, job->now_ms + event->time);
	case KIT_RESTART_WORKER:
		return kit_slot_restart(&job->slot) || kit_slot_failed(job);
	case KIT_RESTART_JOB:
		return do_restart_job(job, event);
	case KIT_END:
		return do_news(job, file, event, NEWS_END, 0);
	case KIT_EXPECT:
		break;
	}
	return true;
}
