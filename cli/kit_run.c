/* One case (kit_run.h). */
#include "cli/kit_run.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/kit_job.h"
#include "cli/kit_service.h"
#include "cli/load.h"
#include "shared/json.h"
#include "shared/log.h"
#include "worker/base64.h"

enum { LOG_LINES = 30, LOG_BYTES = 16 << 10, SERVICE_MS = 30000 };

/* A case at work. */
struct case_run {
	struct kit_file *file;
	const struct kit_case *kit;
	const struct kit_run_options *options;
	struct kit_edits *edits;
	struct kit_job job;
	struct kit_outcome *outcome;
	FILE *plain, *coloured; /* the same words */
	char *plain_text, *coloured_text;
	size_t plain_size, coloured_size;
	int log;
};

/* ---- Words ------------------------------------------------------------------------------------------------------------ */

/* The case has failed, in these words. */
static void __attribute__((format(printf, 2, 3))) fail(struct case_run *run, const char *format, ...)
{
	va_list arguments;

	run->outcome->failed = true;
	va_start(arguments, format);
	vfprintf(run->plain, format, arguments);
	va_end(arguments);
	va_start(arguments, format);
	vfprintf(run->coloured, format, arguments);
	va_end(arguments);
}

/* Opens the streams that words go to. */
static void words_begin(struct case_run *run)
{
	run->plain = open_memstream(&run->plain_text, &run->plain_size);
	run->coloured = open_memstream(&run->coloured_text, &run->coloured_size);
	if (run->plain == NULL || run->coloured == NULL)
		fatal("no memory for the words of a case");
}

/* Hands them over. */
static void words_end(struct case_run *run)
{
	if (fclose(run->plain) != 0 || fclose(run->coloured) != 0)
		fatal("no memory for the words of a case");
	run->outcome->words = run->plain_text;
	run->outcome->coloured = run->coloured_text;
}

/* Adds the end of what workers wrote. */
static void add_log(struct case_run *run)
{
	char text[LOG_BYTES + 1];
	off_t size = lseek(run->log, 0, SEEK_END), from = size > LOG_BYTES ? size - LOG_BYTES : 0;
	ssize_t have = size > 0 ? pread(run->log, text, LOG_BYTES, from) : 0;
	int lines = 0;

	if (have <= 0)
		return;
	text[have] = '\0';
	char *start = text + have;
	while (start > text && lines <= LOG_LINES)
		lines += *--start == '\n' && start + 1 < text + have;
	start += *start == '\n';
	bool failed = run->outcome->failed;
	fail(run, "  what the worker wrote%s:\n", from > 0 || start > text ? ", at its end" : "");
	for (char *rest = NULL, *line = strtok_r(start, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		for (char *at = line; *at != '\0'; at++)
			*at = (unsigned char)*at < 0x20 && *at != '\t' ? '?' : *at;
		utf8_repair(line);
		fail(run, "    | %s\n", line);
	}
	run->outcome->failed = failed;
}

/* ---- Verdicts ---------------------------------------------------------------------------------------------------------- */

/* Judges what a sink got since it was last looked at. */
static void judge(struct case_run *run, struct kit_sink *sink, const struct kit_outputs *outputs)
{
	const char *why = NULL;
	/* A sink that has got nothing has no array to point into. */
	const struct kit_record *got = sink->count > 0 ? sink->records + sink->looked_at : NULL;
	struct kit_verdict verdict =
	    kit_judge(&run->file->pool, sink->name, outputs, got, sink->count - sink->looked_at);

	sink->looked_at = sink->count;
	if (verdict.wrong == 0)
		return;
	if (run->options->update && kit_update_plan(run->edits, run->kit, &verdict, &why)) {
		run->outcome->updated = true;
		return;
	}
	run->outcome->failed = true;
	kit_verdict_print(&verdict, run->file->path, false, run->plain);
	kit_verdict_print(&verdict, run->file->path, run->options->colour, run->coloured);
	if (why != NULL)
		fail(run, "    cannot be updated in place: %s\n", why);
}

/* Judges the sinks that an expectation names. */
static void judge_expect(struct case_run *run, const struct kit_expect *expect)
{
	for (size_t i = 0; i < expect->count; i++) {
		const struct kit_outputs *outputs = &expect->outputs[i];
		struct kit_sink *sink = kit_job_sink(&run->job, outputs->sink);
		if (sink != NULL) {
			judge(run, sink, outputs);
			continue;
		}
		fail(run, "  %s:%zu:%zu: there is no %s \"%s\"; there is", run->file->path, outputs->at->key->line,
		     outputs->at->key->column, run->kit->segment == NULL ? "sink" : "route", outputs->sink);
		for (size_t j = 0; j < run->job.sink_count; j++)
			fail(run, "%s %s", j > 0 ? "," : "", run->job.sinks[j].name);
		fail(run, "\n");
	}
}

/* Judges what nobody has looked at. */
static void judge_rest(struct case_run *run)
{
	for (size_t i = 0; i < run->job.sink_count; i++)
		if (!run->job.sinks[i].discards && run->job.sinks[i].looked_at < run->job.sinks[i].count)
			judge(run, &run->job.sinks[i], NULL);
}

/* Whether a case expects anything at all. */
static bool expects_something(const struct kit_case *kit)
{
	bool any = kit->expect.at != NULL || kit->fails;

	for (size_t i = 0; i < kit->event_count; i++)
		any |= kit->events[i].kind == KIT_EXPECT;
	return any;
}

/* Judges how the job failed, or that it has not. */
static void judge_failure(struct case_run *run, const struct kit_event *at)
{
	const struct kit_case *kit = run->kit;
	const struct kit_job *job = &run->job;

	if (!job->failed && kit->fails)
		fail(run, "  %s:%zu:%zu: was expected to fail, and has not\n", run->file->path, kit->fails_at->line,
		     kit->fails_at->column);
	if (!job->failed)
		return;
	if (job->broken || !kit->fails) {
		fail(run, "  the job failed%s%s%s", *job->step != '\0' ? " in step \"" : "", job->step,
		     *job->step != '\0' ? "\"" : "");
		if (at != NULL)
			fail(run, " (%s:%zu:%zu)", run->file->path, at->at->line, at->at->column);
		fail(run, ": %s\n", job->failure);
		return;
	}
	if (kit->fails_step != NULL && strcmp(kit->fails_step, job->step) != 0)
		fail(run, "  step \"%s\" was expected to fail; \"%s\" did: %s\n", kit->fails_step, job->step,
		     job->failure);
	else if (kit->fails_message != NULL && strstr(job->failure, kit->fails_message) == NULL)
		fail(run, "  the job failed in other words than expected\n    - ... %s ...\n    + %s\n",
		     kit->fails_message, job->failure);
}

/* ---- Outputs for programs ---------------------------------------------------------------------------------------------- */

/* Writes bytes as a member, in base64. */
static void json_bytes(struct json *json, const char *key, struct view bytes)
{
	char *text = calloc(1, base64_encoded_size(bytes.size) + 1);

	if (text == NULL)
		fatal("no memory for an output");
	base64_encode(bytes, text);
	json_text(json, key, text);
	free(text);
}

/* Writes a record of a sink as a line; NULL: the sink alone. */
static void write_output(const struct case_run *run, const struct kit_sink *sink, const struct kit_record *record)
{
	struct json json;

	json_init(&json, run->options->outputs);
	json_open_object(&json, NULL);
	json_text(&json, "case", run->kit->name);
	json_text(&json, "sink", sink->name);
	if (record != NULL) {
		json_bytes(&json, "payload", record->payload);
		if (record->has_key)
			json_bytes(&json, "key", record->key);
		if (record->has_timestamp)
			json_signed(&json, "timestamp", record->timestamp);
		json_open_object(&json, "headers");
		for (size_t i = 0; i < record->header_count; i++)
			json_text(&json, record->headers[i].name, record->headers[i].value);
		json_close_object(&json);
	}
	json_close_object(&json);
	putc('\n', run->options->outputs);
}

/* Writes what all sinks got. */
static void write_outputs(const struct case_run *run)
{
	for (size_t i = 0; i < run->job.sink_count; i++) {
		const struct kit_sink *sink = &run->job.sinks[i];
		write_output(run, sink, NULL);
		for (size_t j = 0; j < sink->count; j++)
			write_output(run, sink, &sink->records[j]);
	}
}

/* ---- The case ---------------------------------------------------------------------------------------------------------- */

/* Runs the job of a compiled case. */
static void run_job(struct case_run *run, const struct descriptor *descriptor)
{
	const struct kit_case *kit = run->kit;
	const struct kit_event *at = NULL;
	struct kit_job *job = &run->job;
	bool good = kit_job_start(job, descriptor, kit, run->options->patience_ms, run->log);

	for (size_t i = 0; good && i < kit->event_count; i++) {
		at = &kit->events[i];
		if (at->kind == KIT_EXPECT)
			judge_expect(run, &at->expect);
		else
			good = kit_job_event(job, run->file, at);
	}
	judge_failure(run, at);
	if (run->options->outputs != NULL)
		write_outputs(run);
	bool looked_at = run->options->outputs == NULL || expects_something(kit);
	if (looked_at && !job->broken && (!job->failed || kit->fails)) {
		judge_expect(run, &kit->expect);
		judge_rest(run);
		if (!expects_something(kit) && !run->outcome->failed && !run->outcome->updated)
			fail(run, "  nothing came out, and nothing is expected: say so with `expect: {}`\n");
	}
	if (run->outcome->failed || run->options->verbose)
		add_log(run);
	kit_job_stop(job);
}

/* Says what is wrong with the pipeline. */
static void add_findings(struct case_run *run, const struct diagnostics *diagnostics)
{
	run->outcome->failed = true;
	diagnostics_print(diagnostics, run->plain, false);
	diagnostics_print(diagnostics, run->coloured, run->options->colour);
}

/* The environment that the variables of a case are laid over: their values before it. */
static char **environment_save(const struct kit_case *kit)
{
	size_t count = kit->environment == NULL ? 0 : kit->environment->count, i = 0;
	char **before = calloc(count + 1, sizeof(*before));

	if (before == NULL)
		fatal("no memory for the environment");
	for (const struct node *child = count == 0 ? NULL : kit->environment->first; child != NULL;
	     child = child->next) {
		const char *value = getenv(child->key->text);
		before[i++] = value == NULL ? NULL : strdup(value);
	}
	kit_case_set_environment(kit);
	return before;
}

/* Puts them back. */
static void environment_restore(const struct kit_case *kit, char **before)
{
	size_t i = 0;

	for (const struct node *child = kit->environment == NULL ? NULL : kit->environment->first; child != NULL;
	     child = child->next, i++) {
		if (before[i] == NULL)
			unsetenv(child->key->text);
		else
			setenv(child->key->text, before[i], 1);
		free(before[i]);
	}
	free(before);
}

struct kit_outcome kit_run(struct kit_file *file, const struct kit_case *kit, const struct kit_run_options *options,
			   struct kit_edits *edits)
{
	struct kit_outcome outcome = {0};
	struct case_run run = {.file = file, .kit = kit, .options = options, .edits = edits, .outcome = &outcome};
	uint64_t start = clock_ns();
	struct diagnostics diagnostics;

	words_begin(&run);
	run.log = memfd_create("log", MFD_CLOEXEC);
	if (run.log < 0)
		fatal("no memory for what workers write");
	diagnostics_init(&diagnostics);
	char **before = environment_save(kit);
	struct kit_services services = {0};
	bool served = kit_services_start(&services, file, kit, run.log, SERVICE_MS);
	if (!served)
		fail(&run, "  %s\n", services.why);
	struct load_code_paths paths = load_set_code_paths(kit_case_place(file, kit));
	struct descriptor *descriptor = served ? kit_case_compile(file, kit, &diagnostics) : NULL;
	if (descriptor != NULL)
		run_job(&run, descriptor);
	else if (served)
		add_findings(&run, &diagnostics);
	else
		add_log(&run);
	kit_services_stop(&services);
	load_forget_code_paths(&paths);
	environment_restore(kit, before);
	descriptor_free(descriptor);
	diagnostics_free(&diagnostics);
	close(run.log);
	words_end(&run);
	outcome.updated &= !outcome.failed;
	outcome.seconds = (double)(clock_ns() - start) / 1e9;
	return outcome;
}
