/*
 * `bridgectl test`: finds files of cases, runs the cases one after the other, and says what came of it.
 *
 * A folder is searched for *.test.yaml, down to the last of its folders but for hidden ones and links; a file that is named may be
 * called anything.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/kit_report.h"
#include "cli/kit_run.h"
#include "cli/load.h"
#include "shared/control.h"
#include "shared/log.h"
#include "shared/units.h"
#include "worker/jq_program.h"

enum { DEPTH_MAX = 32, FILES_MAX = 10000, PATIENCE_MS = 10000 };

#define SUFFIX ".test.yaml"

/* The files that are to be run. */
struct files {
	char **paths;
	size_t count, capacity;
};

struct testing {
	struct arguments arguments;
	struct kit_run_options options;
	const char *filter;
	bool json, quiet;
	struct files files;
	struct kit_results results;
	size_t unreadable; /* files */
};

/* ---- Finding files ------------------------------------------------------------------------------------------------------ */

/* Notes a file; the path is taken over. */
static void files_add(struct files *files, char *path)
{
	if (path == NULL)
		fatal("no memory for a path");
	if (files->count == files->capacity) {
		files->capacity = files->capacity == 0 ? 64 : 2 * files->capacity;
		files->paths = realloc(files->paths, files->capacity * sizeof(*files->paths));
		if (files->paths == NULL)
			fatal("no memory for paths");
	}
	files->paths[files->count++] = path;
}

/* Whether a name ends as those of files of cases do. */
static bool is_case_file(const char *name)
{
	size_t size = strlen(name), suffix = strlen(SUFFIX);

	return size > suffix && strcmp(name + size - suffix, SUFFIX) == 0;
}

/* Looks through a folder. False: all is said. */
static bool search_folder(struct files *files, const char *folder, unsigned depth)
{
	struct dirent **entries;
	int count = depth < DEPTH_MAX ? scandir(folder, &entries, NULL, alphasort) : -1;
	bool good = true;

	if (count < 0) {
		fprintf(stderr, "bridgectl test: cannot look into %s: %s\n", folder,
			depth < DEPTH_MAX ? strerror(errno) : "it is too deep");
		return false;
	}
	for (int i = 0; i < count; i++) {
		char *path = NULL;
		const char *name = entries[i]->d_name;
		struct stat stat;
		size_t length = strlen(folder);
		bool slash = length > 0 && folder[length - 1] == '/';
		if (asprintf(&path, "%s%s%s", folder, slash ? "" : "/", name) < 0)
			fatal("no memory for a path");
		bool seen = name[0] != '.' && lstat(path, &stat) == 0;
		if (seen && S_ISDIR(stat.st_mode))
			good = search_folder(files, path, depth + 1) && good;
		bool wanted = seen && S_ISREG(stat.st_mode) && is_case_file(name);
		if (wanted && files->count == FILES_MAX) {
			fprintf(stderr, "bridgectl test: %s is one file too many: at most %d\n", path, FILES_MAX);
			wanted = good = false;
		}
		if (wanted)
			files_add(files, path);
		else
			free(path);
		free(entries[i]);
	}
	free(entries);
	return good;
}

/* Finds all that was named. */
static bool find_files(struct testing *testing)
{
	bool good = true;

	for (size_t i = 0; i < testing->arguments.operand_count; i++) {
		const char *path = testing->arguments.operands[i];
		struct stat stat_of;
		size_t before = testing->files.count;
		if (stat(path, &stat_of) != 0) {
			fprintf(stderr, "bridgectl test: %s: %s\n", path, strerror(errno));
			good = false;
		} else if (!S_ISDIR(stat_of.st_mode)) {
			files_add(&testing->files, strdup(path));
		} else if (!search_folder(&testing->files, path, 0)) {
			good = false;
		} else if (testing->files.count == before) {
			fprintf(stderr, "bridgectl test: there are no files *" SUFFIX " in %s\n", path);
			good = false;
		}
	}
	return good;
}

/* ---- Running ------------------------------------------------------------------------------------------------------------- */

/* Whether a case is wanted: its name, or its file's, has the filter's text in it. */
static bool is_wanted(const struct testing *testing, const struct kit_file *file, const struct kit_case *kit)
{
	return testing->filter == NULL || strstr(kit->name, testing->filter) != NULL ||
	       strstr(file->path, testing->filter) != NULL;
}

/* Says that a file cannot be read as cases. */
static void add_unreadable(struct testing *testing, const char *path, const struct diagnostics *diagnostics)
{
	char *words = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&words, &size);

	if (out == NULL)
		fatal("no memory for findings");
	diagnostics_print(diagnostics, out, false);
	fclose(out);
	diagnostics_print(diagnostics, stderr, load_wants_colour(stderr));
	kit_results_add(&testing->results, (struct kit_result){.file = path, .status = KIT_FAILED, .words = words});
	testing->unreadable++;
	free(words);
}

/* Runs one case, in a reading of its file that is its own. */
static void run_case(struct testing *testing, const char *path, size_t index, struct kit_edits *edits,
		     struct kit_file **kept)
{
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	struct kit_file *file = kit_file_read(path, &diagnostics);
	diagnostics_free(&diagnostics);
	if (file == NULL || index >= file->count)
		fatalx("%s has changed under the tests", path);
	*kept = file;
	const struct kit_case *kit = &file->cases[index];
	struct kit_outcome outcome = kit_run(file, kit, &testing->options, edits);
	struct kit_result result = {
	    .file = path,
	    .name = kit->name,
	    .line = kit->at->line,
	    .status = outcome.failed    ? KIT_FAILED
		      : outcome.updated ? KIT_UPDATED
					: KIT_PASSED,
	    .seconds = outcome.seconds,
	    .words = outcome.failed ? outcome.words : NULL,
	};
	kit_results_add(&testing->results, result);
	bool silent = testing->json || (testing->quiet && result.status == KIT_PASSED);
	if (!silent)
		kit_result_print(&result, outcome.coloured, testing->options.colour, stdout);
	fflush(stdout);
	free(outcome.words);
	free(outcome.coloured);
}

/* Writes the updates of a file. */
static void apply_edits(struct testing *testing, const struct kit_file *file, struct kit_edits *edits)
{
	const char *wrong = kit_update_apply(edits, file->path, file->document->text);

	if (wrong == NULL)
		return;
	fprintf(stderr, "bridgectl test: %s %s%s%s\n", file->path, wrong, errno != 0 ? ": " : "",
		errno != 0 ? strerror(errno) : "");
	testing->unreadable++;
}

/* Runs the cases of a file that are wanted. */
static void run_file(struct testing *testing, const char *path)
{
	struct diagnostics diagnostics;
	struct kit_edits edits = {0};

	diagnostics_init(&diagnostics);
	struct kit_file *file = kit_file_read(path, &diagnostics);
	if (file == NULL)
		add_unreadable(testing, path, &diagnostics);
	diagnostics_free(&diagnostics);
	if (file == NULL)
		return;
	struct kit_file **kept = calloc(file->count, sizeof(struct kit_file *));
	bool headed = false;
	if (kept == NULL)
		fatal("no memory for cases");
	for (size_t i = 0; i < file->count; i++) {
		if (!is_wanted(testing, file, &file->cases[i]))
			continue;
		if (!headed && !testing->json && !testing->quiet)
			printf("%s\n", path);
		headed = true;
		run_case(testing, path, i, &edits, &kept[i]);
	}
	apply_edits(testing, file, &edits);
	for (size_t i = 0; i < file->count; i++)
		kit_file_free(kept[i]);
	free(kept);
	kit_edits_free(&edits);
	kit_file_free(file);
}

/* ---- The end --------------------------------------------------------------------------------------------------------------- */

/* Writes the JUnit file. */
static bool write_junit(const struct testing *testing)
{
	const char *path = arguments_value(&testing->arguments, "junit");
	FILE *out = path == NULL ? NULL : fopen(path, "we");

	if (path == NULL)
		return true;
	if (out != NULL)
		kit_results_junit(&testing->results, out);
	bool good = out != NULL && !ferror(out);
	good = out != NULL && fclose(out) == 0 && good;
	if (!good)
		fprintf(stderr, "bridgectl test: %s cannot be written: %s\n", path, strerror(errno));
	return good;
}

/* Says what came of it all. Returns the exit code. */
static int report(struct testing *testing)
{
	struct kit_results *results = &testing->results;

	if (testing->json)
		kit_results_json(results, stdout);
	else
		kit_results_print(results, testing->options.colour, stdout);
	if (!write_junit(testing) || testing->unreadable > 0)
		return BRIDGECTL_MISUSED;
	if (results->count == 0) {
		fprintf(stderr, "bridgectl test: no case has \"%s\" in its name\n", testing->filter);
		return BRIDGECTL_MISUSED;
	}
	return results->by_status[KIT_FAILED] > 0 ? BRIDGECTL_FAILED : BRIDGECTL_OK;
}

/* Opens the file of --outputs. */
static bool open_outputs(struct testing *testing)
{
	const char *path = arguments_value(&testing->arguments, "outputs");

	if (path == NULL)
		return true;
	testing->options.outputs = fopen(path, "we");
	if (testing->options.outputs == NULL)
		fprintf(stderr, "bridgectl test: %s cannot be written: %s\n", path, strerror(errno));
	return testing->options.outputs != NULL;
}

/* Closes it. False: something could not be written. */
static bool close_outputs(struct testing *testing)
{
	FILE *out = testing->options.outputs;
	bool good = out == NULL || !ferror(out);

	good = (out == NULL || fclose(out) == 0) && good;
	if (!good)
		fprintf(stderr, "bridgectl test: the outputs cannot be written: %s\n", strerror(errno));
	return good;
}

/* Reads --timeout. */
static bool read_timeout(struct testing *testing)
{
	const char *text = arguments_value(&testing->arguments, "timeout");
	uint64_t microseconds;

	testing->options.patience_ms = PATIENCE_MS;
	if (text == NULL)
		return true;
	if (!duration_parse(text, &microseconds) || microseconds < 1000 || microseconds > UINT64_C(3600000000)) {
		command_misused("test", "--timeout wants a time from 1ms to 1h, not \"%s\"", text);
		return false;
	}
	testing->options.patience_ms = microseconds / 1000;
	return true;
}

/* `bridgectl test DIR|FILE...` */
int cmd_test(int argc, char **argv)
{
	struct testing testing = {0};
	int code = arguments_read(&testing.arguments, 1, ARGUMENTS_OPERANDS_MAX, argc, argv);

	if (code >= 0)
		return code;
	testing.json = arguments_given(&testing.arguments, "json");
	testing.quiet = arguments_given(&testing.arguments, "quiet");
	testing.filter = arguments_value(&testing.arguments, "filter");
	testing.options.update = arguments_given(&testing.arguments, "update");
	testing.options.verbose = arguments_given(&testing.arguments, "verbose");
	testing.options.colour = load_wants_colour(stdout);
	if (!read_timeout(&testing))
		return BRIDGECTL_MISUSED;
	log_init("test", LOG_ERROR);
	signal(SIGPIPE, SIG_IGN); /* of pipes to workers that die */
	code = BRIDGECTL_MISUSED;
	if (open_outputs(&testing) && find_files(&testing)) {
		for (size_t i = 0; i < testing.files.count; i++)
			run_file(&testing, testing.files.paths[i]);
		code = report(&testing);
	}
	if (!close_outputs(&testing))
		code = BRIDGECTL_MISUSED;
	for (size_t i = 0; i < testing.files.count; i++)
		free(testing.files.paths[i]);
	free(testing.files.paths);
	kit_results_free(&testing.results);
	jq_programs_free();
	return code;
}
