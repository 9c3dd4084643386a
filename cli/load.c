/* The pipeline or descriptor of a command (load.h). */
#include "cli/load.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptor/against.h"
#include "descriptor/compile.h"
#include "descriptor/document.h"
#include "descriptor/load.h"
#include "server/config.h"
#include "worker/chain.h"

/* As the hosts of steps read them. */
static const char *const code_paths[LOAD_CODE_PATHS] = {"FLINK_BRIDGE_PYTHON_PATH", "FLINK_BRIDGE_LIBRARY_PATH"};

bool load_wants_colour(FILE *out)
{
	const char *none = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return isatty(fileno(out)) && (none == NULL || *none == '\0') && terminal != NULL &&
	       strcmp(terminal, "dumb") != 0;
}

struct load_code_paths load_set_code_paths(const char *pipeline)
{
	const char *slash = strrchr(pipeline, '/');
	char here[PATH_MAX], folders[2 * PATH_MAX + 2];
	int folder = slash == NULL ? 0 : (int)(slash - pipeline + (slash == pipeline));
	struct load_code_paths paths = {0};

	if (getcwd(here, sizeof(here)) == NULL)
		return paths;
	const char *between = *pipeline == '/' ? "" : here;
	snprintf(folders, sizeof(folders), "%s%s%.*s:%s", between, *between == '\0' ? "" : "/", folder, pipeline, here);
	for (size_t i = 0; i < LOAD_CODE_PATHS; i++)
		paths.set[i] = getenv(code_paths[i]) == NULL && setenv(code_paths[i], folders, 1) == 0;
	return paths;
}

void load_forget_code_paths(const struct load_code_paths *paths)
{
	for (size_t i = 0; i < LOAD_CODE_PATHS; i++)
		if (paths->set[i])
			unsetenv(code_paths[i]);
}

/* ---- The section `sidecar:` of a deployment, which compile leaves to bridged ---- */

/* Tries one value on its flag; what bridged would say becomes a finding at the value. */
static void check_value(const struct flag *flag, const struct node *value, struct diagnostics *diagnostics)
{
	struct config scratch = {0};
	struct findings findings = {0};

	if (value->kind == NODE_SCALAR && *value->text != '\0' && !node_is_null(value))
		config_set(&scratch, flag, value->text, flag->name, &findings);
	else if (value->kind != NODE_BROKEN)
		finding_expected(
		    node_finding(diagnostics, value, "\"%s\" of the sidecar is %s", flag->name, node_describe(value)),
		    "%s", flag->place);
	for (size_t i = 0; i < findings.count; i++)
		node_finding(diagnostics, value, "%s", findings.text[i]);
	findings_deinit(&findings);
	config_deinit(&scratch);
}

/* Checks one key of the section and what belongs to it. */
static void check_flag(const struct node *value, struct diagnostics *diagnostics)
{
	const struct flag *flag = config_flag(value->key->text);

	if (value->key->kind == NODE_BROKEN)
		return;
	if (flag == NULL) {
		const char *near = config_flag_nearest(value->key->text);
		finding_suggest(node_finding(diagnostics, value->key, "unknown key \"%.80s\" in section \"sidecar\"",
					     value->key->text),
				value->key->text, &near, near == NULL ? 0 : 1);
	} else if (flag->type == FLAG_TYPE_ACTION || flag->type == FLAG_TYPE_CONFIG) {
		node_finding(diagnostics, value->key, "\"%s\" belongs on the command line of bridged, not into a file",
			     flag->name);
	} else if (value->kind == NODE_LIST && flag->type == FLAG_TYPE_ADDRESSES) {
		for (const struct node *item = value->first; item != NULL; item = item->next)
			check_value(flag, item, diagnostics);
	} else {
		check_value(flag, value, diagnostics);
	}
}

/* Adds what bridged would find in the section of a deployment's file. */
static void check_sidecar(const char *config, struct diagnostics *diagnostics)
{
	struct diagnostics said; /* what is wrong with the file as a whole has been found before */

	if (config == NULL || strcmp(config, "-") == 0)
		return;
	diagnostics_init(&said);
	struct document *document = document_read(config, document_limits_default, &said);
	if (document != NULL) {
		document_substitute(document, &said);
		const struct node *section = node_find(document->root, "sidecar");
		if (section != NULL && section->kind != NODE_MAP && section->kind != NODE_BROKEN)
			finding_expected(
			    node_finding(diagnostics, section, "the section \"sidecar\" is %s", node_describe(section)),
			    "a map of flags of bridged");
		else if (section != NULL)
			for (const struct node *value = section->first; value != NULL; value = value->next)
				check_flag(value, diagnostics);
	}
	document_free(document);
	diagnostics_free(&said);
}

bool load_has_sidecar(const char *config)
{
	struct diagnostics said;

	diagnostics_init(&said);
	struct document *document = document_read(config, document_limits_default, &said);
	bool has = document != NULL && node_find(document->root, "sidecar") != NULL;
	document_free(document);
	diagnostics_free(&said);
	return has;
}

/* ---- Pipelines and descriptors ---- */

/* Lets go of what was compiled if its deployment is wrong. */
static struct descriptor *unless_wrong(struct descriptor *descriptor, const struct diagnostics *diagnostics)
{
	if (diagnostics->count == 0)
		return descriptor;
	descriptor_free(descriptor);
	return NULL;
}

/* Prints the findings if there are any, and frees them. */
static void findings_finish(struct diagnostics *diagnostics)
{
	if (diagnostics->count > 0)
		diagnostics_print(diagnostics, stderr, load_wants_colour(stderr));
	diagnostics_free(diagnostics);
}

struct descriptor *load_pipeline(const struct arguments *arguments)
{
	struct diagnostics diagnostics;

	diagnostics_init(&diagnostics);
	struct descriptor *descriptor =
	    compile_file(arguments->operands[0], arguments_value(arguments, "config"), jq_program_check, &diagnostics);
	check_sidecar(arguments_value(arguments, "config"), &diagnostics);
	descriptor = unless_wrong(descriptor, &diagnostics);
	findings_finish(&diagnostics);
	return descriptor;
}

struct descriptor *load_file(const struct arguments *arguments, bool *loaded, struct diagnostics *diagnostics)
{
	const char *config = arguments_value(arguments, "config");
	struct descriptor *descriptor =
	    compile_or_load(arguments->operands[0], config, jq_program_check, loaded, diagnostics);

	if (!*loaded)
		check_sidecar(config, diagnostics);
	return unless_wrong(descriptor, diagnostics);
}

struct descriptor *load_either(const struct arguments *arguments)
{
	struct diagnostics diagnostics;
	bool loaded;

	diagnostics_init(&diagnostics);
	struct descriptor *descriptor = load_file(arguments, &loaded, &diagnostics);
	findings_finish(&diagnostics);
	return descriptor;
}

/* The tree of a file that has been read before without findings, for places; NULL for standard input. */
static struct document *read_again(const char *path)
{
	struct diagnostics said;

	if (strcmp(path, "-") == 0)
		return NULL;
	diagnostics_init(&said);
	struct document *document = document_read(path, document_limits_descriptor, &said);
	diagnostics_free(&said);
	return document;
}

void load_against(const struct arguments *arguments, const struct descriptor *descriptor,
		  struct diagnostics *diagnostics)
{
	const char *path = arguments->operands[0], *other = arguments_value(arguments, "against");
	bool loaded;
	struct descriptor *old = compile_or_load(other, NULL, NULL, &loaded, diagnostics);

	if (old == NULL)
		return;
	struct document *old_document = read_again(other), *document = read_again(path);
	against_compare(&(struct side){old, other, old_document}, &(struct side){descriptor, path, document},
			diagnostics);
	document_free(old_document);
	document_free(document);
	descriptor_free(old);
}
