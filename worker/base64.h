/* Base64 (RFC 4648, padded): how bytes that are no text pass through JSON. */
#ifndef WORKER_BASE64_H
#define WORKER_BASE64_H

#include <stdbool.h>

#include "shared/view.h"

/* Characters that `size` bytes become; bytes that `size` characters become at most. */
static inline size_t base64_encoded_size(size_t size)
{
	return (size + 2) / 3 * 4;
}
static inline size_t base64_decoded_size(size_t size)
{
	return size / 4 * 3;
}

/* Writes base64_encoded_size() characters, no NUL. */
void base64_encode(struct view bytes, char *out);

/* Writes the bytes and sets *size. False on any character, length or padding that an encoder would not have written. */
bool base64_decode(struct view text, uint8_t *out, size_t *size);

#endif
