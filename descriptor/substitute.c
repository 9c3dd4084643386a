/*
 * ${NAME} and ${NAME:-default} in the scalar values of a document (document.h), replaced by the environment.
 *
 * `$$` is a dollar; a dollar before anything else stays as it is, so that variables of jq programs need no care. As in a
 * shell, the default also stands in for a variable that is empty. What comes in is text: it is never read as YAML again,
 * and all of it together is bounded like a file is.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor/document.h"
#include "shared/log.h"
#include "shared/wire.h"

enum { NAME_MAX_BYTES = 128 };

/* One pass over a document. */
struct pass {
	struct document *document;
	struct diagnostics *diagnostics;
	size_t bytes; /* put in so far */
};

/* A value in the making: measured first (`to` is NULL), then written. */
struct output {
	char *to;
	size_t size;
};

/* Adds some bytes. */
static void output_add(struct output *output, const char *bytes, size_t size)
{
	if (output->to != NULL)
		memcpy(output->to + output->size, bytes, size);
	output->size += size;
}

/* Length of the variable name at the start of some text. */
static size_t name_length(const char *text)
{
	size_t length = 0;

	while (isalnum((unsigned char)text[length]) || text[length] == '_')
		length++;
	return isdigit((unsigned char)text[0]) ? 0 : length;
}

/* Whether a variable's value may stand in a document: UTF-8, no control characters but line breaks and tabs. */
static bool value_is_text(const char *value)
{
	for (const char *at = value; *at != '\0'; at++) {
		if (((unsigned char)*at < 0x20 && *at != '\n' && *at != '\t') || *at == 0x7f)
			return false;
	}
	return utf8_valid(view_of(value));
}

/* Adds a finding about a value, which is then not looked at any more. A macro, so that the format stays checked. */
#define REFUSE(pass, node, ...) ((node)->kind = NODE_BROKEN, node_finding((pass)->diagnostics, node, __VA_ARGS__))

/* Replaces the reference at `at` (which starts with "${"). Returns what follows it, or NULL after a finding. */
static const char *reference_replace(struct pass *pass, struct node *node, const char *at, struct output *output)
{
	size_t length = name_length(at + 2);
	const char *rest = at + 2 + length, *end = strchr(rest, '}');
	char name[NAME_MAX_BYTES + 1];

	if (length == 0 || length > NAME_MAX_BYTES || end == NULL || (*rest != '}' && strncmp(rest, ":-", 2) != 0)) {
		struct finding *finding = REFUSE(pass, node, "a \"${\" that is no reference to a variable");
		finding_expected(finding, "${NAME} or ${NAME:-default}");
		finding_hint(finding, "write $${ where the text itself has ${");
		return NULL;
	}
	memcpy(name, at + 2, length);
	name[length] = '\0';
	const char *value = getenv(name);
	if (*rest == ':' && (value == NULL || *value == '\0')) {
		output_add(output, rest + 2, (size_t)(end - rest - 2));
	} else if (value == NULL) {
		finding_hint(REFUSE(pass, node, "the environment has no variable %s", name),
			     "set it, or give a default: ${%s:-value}", name);
		return NULL;
	} else if (!value_is_text(value)) {
		REFUSE(pass, node, "the variable %s is not text in UTF-8 without control characters", name);
		return NULL;
	} else {
		output_add(output, value, strlen(value));
	}
	return end + 1;
}

/* Goes through a scalar once. False after a finding. */
static bool scalar_expand(struct pass *pass, struct node *node, struct output *output)
{
	const char *at = node->text;

	while (at != NULL && *at != '\0') {
		size_t plain = strcspn(at, "$");
		output_add(output, at, plain);
		at += plain;
		if (strncmp(at, "${", 2) == 0) {
			at = reference_replace(pass, node, at, output);
		} else if (*at == '$') {
			output_add(output, at, 1);
			at += at[1] == '$' ? 2 : 1;
		}
		if (at != NULL && output->size > DOCUMENT_BYTES_MAX) {
			REFUSE(pass, node, "too much text comes in through variables");
			return false;
		}
	}
	return at != NULL;
}

/* Replaces what one scalar refers to. */
static void scalar_substitute(struct pass *pass, struct node *node)
{
	struct output measured = {NULL, 0};

	if (strchr(node->text, '$') == NULL || !scalar_expand(pass, node, &measured))
		return;
	pass->bytes += measured.size;
	if (pass->bytes > DOCUMENT_BYTES_MAX) {
		REFUSE(pass, node, "too much text comes in through variables");
		return;
	}
	struct output written = {pool_alloc(&pass->document->pool, measured.size + 1), 0};
	scalar_expand(pass, node, &written);
	node->text = written.to;
}

/* Goes down a tree, which is never deeper than DOCUMENT_DEPTH_MAX. */
static void node_substitute(struct pass *pass, struct node *node)
{
	if (node->kind == NODE_SCALAR)
		scalar_substitute(pass, node);
	for (struct node *child = node->first; child != NULL; child = child->next)
		node_substitute(pass, child);
}

char *text_substitute(const char *text, struct diagnostics *diagnostics)
{
	struct document none = {.file = ""};
	struct node node = {.kind = NODE_SCALAR, .text = text, .document = &none};
	struct pass pass = {&none, diagnostics, 0};

	scalar_substitute(&pass, &node);
	char *replaced = node.kind == NODE_BROKEN ? NULL : strdup(node.text);
	CHECK(node.kind == NODE_BROKEN || replaced != NULL);
	pool_free(&none.pool);
	return replaced;
}

void document_substitute(struct document *document, struct diagnostics *diagnostics)
{
	struct pass pass = {document, diagnostics, 0};

	node_substitute(&pass, document->root);
}
