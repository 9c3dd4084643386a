/* The text of a document: read within bounds, and checked before any parser sees it. Used by document.c alone. */
#ifndef DESCRIPTOR_DOCUMENT_TEXT_H
#define DESCRIPTOR_DOCUMENT_TEXT_H

#include "descriptor/document.h"

/* Reads a file or standard input ("-") whole. False and a finding when it is no regular file, too large, or unreadable. */
bool text_read(struct document *document, const char *path, size_t bytes_max, struct diagnostics *diagnostics);

/* Makes the finding that a document is larger than it may be. */
void text_too_large(const struct document *document, size_t bytes_max, struct diagnostics *diagnostics);

/* Drops a byte order mark, and checks that the rest is UTF-8 without control characters. */
bool text_check(struct document *document, struct diagnostics *diagnostics);

/* The first byte of the character at a place; 0 when there is none. */
int text_character_at(struct view text, size_t line, size_t column);

#endif
