/*
 * Libraries of steps: found, loaded, checked, and kept.
 *
 *      path --dlopen--> library --bridge_step_library--> table --abi, size, entries--> load() --> the code of a step
 *
 * A library is never unloaded: new code comes with a new process. What is wrong with one is told in the words of a failure, which
 * `bridged --check`, a start and a reload show alike.
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptor/kinds.h"
#include "descriptor/manifest.h"
#include "shared/log.h"
#include "worker/hosts/host_parts.h"
#include "worker/hosts/own_host.h"

/* What has been loaded so far. */
static struct host_code *loaded;

/* The host of ours among it; NULL: none. */
static const struct own_host *own_host;

/* ---- Where it is --------------------------------------------------------------------------------------------------------------- */

enum { PATH_SIZE = 4096 };

/* Whether the library of a kind stands in some folder; its path. */
static bool found_in(const char *folder, const char *name, char path[PATH_SIZE])
{
	int size = snprintf(path, PATH_SIZE, "%s/%s", folder, name);

	return size < PATH_SIZE && access(path, R_OK) == 0;
}

/* Cuts the last part off a path; false when it has none. */
static bool cut_last(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash == NULL || slash == path)
		return false;
	*slash = '\0';
	return true;
}

/* The library of a host of ours: in the folder that the environment names; else beside this program, in the folder above (as the
 * programs of tests lie), or in lib/flink-bridge of that, where it is installed. */
static bool own_library(const char *name, char path[PATH_SIZE], struct failure *failure)
{
	const char *folder = getenv("FLINK_BRIDGE_LIBDIR");
	char program[PATH_SIZE] = "", installed[PATH_SIZE + 32];

	if (folder != NULL && folder[0] != '\0') {
		if (found_in(folder, name, path))
			return true;
		return failure_set(failure, 0, "%s is not in %.200s, which FLINK_BRIDGE_LIBDIR names", name, folder);
	}
	if (readlink("/proc/self/exe", program, sizeof(program) - 1) > 0)
		for (int up = 0; up < 2 && cut_last(program); up++)
			if (found_in(program, name, path))
				return true;
	snprintf(installed, sizeof(installed), "%s/lib/flink-bridge", program);
	if (found_in(installed, name, path))
		return true;
	return failure_set(
	    failure, 0,
	    "%s is neither beside this program nor in %.200s: install it, or set FLINK_BRIDGE_LIBDIR to the "
	    "folder that has it",
	    name, installed);
}

/* The library that a pipeline names: a relative path is one from the first of some folders in which it is there. Never one of the system's. */
static bool named_library(const struct step_spec *spec, char path[PATH_SIZE], struct failure *failure)
{
	const char *name = step_option(spec, "library")->text, *given = getenv("FLINK_BRIDGE_LIBRARY_PATH");
	const char *folders = name[0] == '/' ? "/" : given != NULL && given[0] != '\0' ? given : ".";
	int error = ENOENT;

	if (name[0] == '.' && name[1] == '/')
		name += 2;
	for (const char *at = folders; *at != '\0';) {
		int folder = (int)strcspn(at, ":");
		int size = snprintf(path, PATH_SIZE, "%.*s%s%s", folder, at, name[0] == '/' ? "" : "/",
				    name + (name[0] == '/'));
		if (size >= PATH_SIZE)
			return failure_set(failure, 0, "the path of the library is too long: %.80s...", name);
		if (folder > 0 && access(path, R_OK) == 0)
			return true;
		error = folder > 0 && errno != ENOENT ? errno : error;
		at += folder;
		at += *at == ':';
	}
	if (name[0] == '/')
		return failure_set(failure, 0, "the library %.300s cannot be read: %s", name, strerror(error));
	return failure_set(failure, 0, "the library %.200s cannot be read: %s (looked in: %.200s; --library-path)",
			   name, strerror(error), folders);
}

/* ---- What it is ---------------------------------------------------------------------------------------------------------------- */

/* Where a table that can be used at all ends: behind process. */
enum { LIBRARY_SIZE_MIN = offsetof(struct bridge_step_library, process) + sizeof(void *) };

/* Takes over a library's table, whole even where theirs is shorter. */
static bool table_take(const struct bridge_step_library *theirs, const char *path, struct bridge_step_library *ours,
		       struct failure *failure)
{
	if (theirs == NULL)
		return failure_set(failure, 0,
				   "the library %.300s hands out no table: " BRIDGE_STEP_SYMBOL " returned NULL", path);
	if (theirs->abi != BRIDGE_STEP_ABI)
		return failure_set(
		    failure, 0,
		    "the library %.300s was built for version %" PRIu32
		    " of bridge_step.h, and this program has version %d: build it again with the header of this "
		    "release",
		    path, theirs->abi, BRIDGE_STEP_ABI);
	if (theirs->size < LIBRARY_SIZE_MIN || theirs->size > 4096)
		return failure_set(
		    failure, 0,
		    "the library %.300s says that its table has %" PRIu32
		    " bytes, and %d are the least: its field `size` must be sizeof(struct bridge_step_library)",
		    path, theirs->size, LIBRARY_SIZE_MIN);
	memset(ours, 0, sizeof(*ours));
	memcpy(ours, theirs, theirs->size < sizeof(*ours) ? theirs->size : sizeof(*ours));
	if (ours->open == NULL || ours->process == NULL)
		return failure_set(failure, 0, "the library %.300s has no %s() in its table", path,
				   ours->open == NULL ? "open" : "process");
	return true;
}

/* Loads a library and finds its table; of a host of ours, the other one, too. */
static bool library_load(const char *path, bool own, struct bridge_step_library *table, struct failure *failure)
{
	const struct bridge_step_library *(*symbol)(void);
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (library == NULL)
		return failure_set(failure, 0, "the library cannot be loaded: %s", dlerror());
	if (own)
		own_host = dlsym(library, OWN_HOST_SYMBOL);
	*(void **)&symbol = dlsym(library, BRIDGE_STEP_SYMBOL);
	if (symbol == NULL)
		return failure_set(
		    failure, 0,
		    "the library %.300s has no symbol " BRIDGE_STEP_SYMBOL
		    ": it must export that one function of bridge_step.h (in C++ and Rust with C linkage)",
		    path);
	return table_take(symbol(), path, table, failure);
}

/* ---- What the pipeline says ------------------------------------------------------------------------------------------------------ */

/* Memory that stays as long as the code. */
static void *keep(size_t count, size_t size)
{
	void *memory = calloc(count + 1, size);

	CHECK(memory != NULL);
	return memory;
}

/* A copy of a text. */
static const char *copy_of(const char *text)
{
	char *copy = strdup(text);

	CHECK(copy != NULL);
	return copy;
}

/* An option that has no items, as text. */
static const char *option_text(const struct option *option)
{
	char number[24];

	switch (option->type) {
	case OPTION_PROGRAM:
	case OPTION_TEXT:
	case OPTION_CHOICE:
		return copy_of(option->text);
	case OPTION_BOOL:
		return copy_of(option->number ? "true" : "false");
	case OPTION_FORM:
		return copy_of(form_names[option->number]);
	default:
		snprintf(number, sizeof(number), "%" PRId64, option->number);
		return copy_of(number);
	}
}

/* Whether an option has items. */
static bool has_items(enum option_type type)
{
	return type == OPTION_LIST || type == OPTION_MAP || type == OPTION_ROUTES;
}

/* The options of the kind that were given, as texts. */
static void settings_make(struct bridge_setup *setup, const struct step_spec *spec)
{
	struct bridge_option *settings = keep(spec->option_count, sizeof(*settings));

	for (size_t i = 0; i < spec->option_count; i++) {
		const struct option *option = &spec->options[i];
		if (option->given && !has_items(option->type))
			settings[setup->setting_count++] = (struct bridge_option){option->name, option_text(option)};
	}
	setup->settings = settings;
}

/* Those under `options:` and `routes:`. */
static void items_make(struct bridge_setup *setup, const struct step_spec *spec)
{
	static const struct option none;
	bool has = spec->kind != STEP_key_by;
	const struct option *options = has ? step_option(spec, "options") : &none;
	const struct option *routes = has ? step_option(spec, "routes") : &none;
	struct bridge_option *pairs = keep(options->item_count, sizeof(*pairs));
	const char **names = keep(routes->item_count, sizeof(*names));

	for (size_t i = 0; i < options->item_count; i++)
		pairs[i] = (struct bridge_option){options->items[i].name, options->items[i].value};
	for (size_t i = 0; i < routes->item_count; i++)
		names[i] = routes->items[i].name;
	setup->options = pairs;
	setup->option_count = options->item_count;
	setup->routes = names;
	setup->route_count = routes->item_count;
}

/* Those under `state:`. */
static void states_make(struct bridge_setup *setup, const struct segment *segment, const struct step_spec *spec)
{
	static const uint32_t kinds[] = {[STATE_VALUE] = BRIDGE_VALUE,
					 [STATE_MAP] = BRIDGE_MAP,
					 [STATE_LIST] = BRIDGE_LIST,
					 [STATE_TIMERS] = BRIDGE_TIMERS};
	size_t declares = step_state_count(spec);
	struct bridge_state_info *infos = keep(declares, sizeof(*infos));

	for (size_t place = 0; place < declares; place++) {
		struct state_spec state;
		if (step_state(segment, spec, place, &state))
			infos[setup->state_count++] =
			    (struct bridge_state_info){.name = state.name,
						       .kind = kinds[state.kind],
						       .by_key = state.partition == STATE_BY_KEY,
						       .ttl = state.ttl_ms};
	}
	setup->states = infos;
}

/* All that a library is told of a step. */
static void setup_make(struct bridge_setup *setup, const struct segment *segment, const struct step_spec *spec)
{
	*setup = (struct bridge_setup){
	    .size = sizeof(*setup),
	    .keyed = segment->keyed,
	    .segment = segment->name,
	    .step = spec->name,
	    .parallelism = segment->parallelism,
	    .max_parallelism = segment->max_parallelism,
	    .sets_keys = spec->kind == STEP_key_by,
	};
	settings_make(setup, spec);
	items_make(setup, spec);
	states_make(setup, segment, spec);
}

/* ---- The code of a step -------------------------------------------------------------------------------------------------------- */

/* Frees what was kept of a step. */
static void code_free(struct host_code *code)
{
	for (size_t i = 0; i < code->setup.setting_count; i++)
		free((void *)code->setup.settings[i].value);
	free((void *)code->setup.settings);
	free((void *)code->setup.options);
	free((void *)code->setup.routes);
	free((void *)code->setup.states);
	free((void *)code->library);
	free(code);
}

/* Calls load(), if there is one. */
static bool code_load(struct host_code *code, const struct segment *segment, struct failure *failure)
{
	struct bridge_context context = {.spec = code->spec, .segment = segment};
	struct bridge_loaded result = {.size = sizeof(result)};

	if (code->library->load == NULL)
		return true;
	host_begin(&context, CALL_LOAD, (struct step_time){0, INT64_MIN}, failure);
	bool good = host_end(&context, code->library->load(&host_calls, &context, &code->setup, &result));
	free(context.traceback);
	failure->traceback = NULL;
	code->code = result.code;
	code->flags = result.flags;
	return good;
}

/* Loads the library of a step, and the step's code in it. */
static struct host_code *code_make(const struct segment *segment, const struct step_spec *spec, struct failure *failure)
{
	struct bridge_step_library *table = keep(0, sizeof(*table));
	struct host_code *code = keep(0, sizeof(*code));
	char path[PATH_SIZE];
	bool own = step_is_python(spec);
	bool found = own ? own_library("bridge_python.so", path, failure) : named_library(spec, path, failure);

	code->spec = spec;
	code->library = table;
	setup_make(&code->setup, segment, spec);
	if (found && library_load(path, own, table, failure) && code_load(code, segment, failure))
		return code;
	code_free(code);
	return NULL;
}

const struct host_code *host_code_get(const struct segment *segment, const struct step_spec *spec,
				      struct failure *failure)
{
	for (const struct host_code *code = loaded; code != NULL; code = code->next) {
		if (code->spec == spec)
			return code;
	}
	struct host_code *code = code_make(segment, spec, failure);
	if (code == NULL)
		return NULL;
	code->next = loaded;
	loaded = code;
	return code;
}

bool host_load(const struct segment *segment, const struct step_spec *spec, struct failure *failure)
{
	return host_code_get(segment, spec, failure) != NULL;
}

/* ---- Forks --------------------------------------------------------------------------------------------------------------------- */

void host_name_threads(char *text, size_t size)
{
	*text = '\0';
	if (own_host != NULL)
		own_host->name_threads(text, size);
}

void host_settle(void)
{
	if (own_host != NULL)
		own_host->settle();
}

pid_t host_fork(pid_t (*fork_now)(void *context), void *context)
{
	return own_host == NULL ? fork_now(context) : own_host->fork(fork_now, context);
}

/* ---- The end ------------------------------------------------------------------------------------------------------------------- */

void host_forget(void)
{
	while (loaded != NULL) {
		struct host_code *code = loaded;
		loaded = code->next;
		if (code->library->unload != NULL)
			code->library->unload(code->code);
		code_free(code);
	}
}
