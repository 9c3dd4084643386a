/* The compiler (compile.h): each part of the work stands in a file of its own; here is their order. */
#include "descriptor/compile.h"

#include "descriptor/cut.h"
#include "descriptor/document_text.h"
#include "descriptor/load.h"
#include "descriptor/pipeline.h"
#include "descriptor/topology.h"

struct descriptor *compile_document(struct document *document, struct document *config, program_check *program,
				    struct diagnostics *diagnostics)
{
	struct descriptor_owner *owner = descriptor_owner_create();
	size_t programs = 0;
	struct reading reading = {&owner->pool, diagnostics, program, &programs};
	struct pipeline pipeline;

	document_substitute(document, diagnostics);
	if (config != NULL) {
		document_substitute(config, diagnostics);
		pipeline_overlay(document, config, diagnostics);
	}
	pipeline_read(&pipeline, &reading, document);
	pipeline_resolve(&pipeline, &reading);
	if (diagnostics->count == 0)
		pipeline_cut(&pipeline, &reading, &owner->descriptor);
	if (diagnostics->count == 0)
		return &owner->descriptor;
	descriptor_free(&owner->descriptor);
	return NULL;
}

struct descriptor *compile_file(const char *path, const char *config, program_check *program,
				struct diagnostics *diagnostics)
{
	struct document *document = document_read(path, document_limits_default, diagnostics);
	struct document *over = config == NULL ? NULL : document_read(config, document_limits_default, diagnostics);
	struct descriptor *descriptor = NULL;

	if (document != NULL && document_is_descriptor(document))
		finding_hint(diagnostics_add(diagnostics, (struct place){document->file, 0, 0},
					     "is a descriptor, not a pipeline"),
			     "name the pipeline that it was compiled from");
	else if (document != NULL && (config == NULL || over != NULL))
		descriptor = compile_document(document, over, program, diagnostics);
	document_free(document);
	document_free(over);
	return descriptor;
}

struct descriptor *compile_text(const char *file, struct view text, program_check *program,
				struct diagnostics *diagnostics)
{
	struct document *document = document_parse(file, text, document_limits_default, diagnostics);
	struct descriptor *descriptor =
	    document == NULL ? NULL : compile_document(document, NULL, program, diagnostics);

	document_free(document);
	return descriptor;
}

/* Whether a file that was read as if it might be a descriptor is small enough for a pipeline; a finding otherwise. */
static bool pipeline_fits(const struct document *document, struct diagnostics *diagnostics)
{
	if (document->text.size > document_limits_default.bytes)
		text_too_large(document, document_limits_default.bytes, diagnostics);
	else if (document->nodes > document_limits_default.nodes)
		node_finding(diagnostics, document->root, "more than %zu values in one file",
			     document_limits_default.nodes);
	return document->text.size <= document_limits_default.bytes && document->nodes <= document_limits_default.nodes;
}

struct descriptor *compile_or_load(const char *path, const char *config, program_check *program, bool *loaded,
				   struct diagnostics *diagnostics)
{
	struct document *document = document_read(path, document_limits_descriptor, diagnostics);
	struct document *over = config == NULL ? NULL : document_read(config, document_limits_default, diagnostics);
	struct descriptor *descriptor = NULL;

	*loaded = document != NULL && document_is_descriptor(document);
	if (*loaded && config != NULL)
		finding_hint(diagnostics_add(diagnostics, (struct place){document->file, 0, 0},
					     "is a descriptor, in which the configuration is settled already"),
			     "compile the pipeline with --config");
	else if (*loaded)
		descriptor = document_load(document, program, diagnostics);
	else if (document != NULL && pipeline_fits(document, diagnostics) && (config == NULL || over != NULL))
		descriptor = compile_document(document, over, program, diagnostics);
	document_free(document);
	document_free(over);
	return descriptor;
}
