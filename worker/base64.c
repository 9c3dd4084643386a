/* Base64, strict: what it decodes it would have encoded the same way. */
#include "worker/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct view bytes, char *out)
{
	for (size_t at = 0; at < bytes.size; at += 3, out += 4) {
		size_t left = bytes.size - at;
		uint32_t group = (uint32_t)bytes.data[at] << 16;

		if (left > 1)
			group |= (uint32_t)bytes.data[at + 1] << 8;
		if (left > 2)
			group |= bytes.data[at + 2];
		out[0] = alphabet[group >> 18];
		out[1] = alphabet[group >> 12 & 63];
		out[2] = left > 1 ? alphabet[group >> 6 & 63] : '=';
		out[3] = left > 2 ? alphabet[group & 63] : '=';
	}
}

/* What a character stands for, or -1. */
static int32_t digit_of(uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct view text, uint8_t *out, size_t *size)
{
	size_t padding = 0, length = 0;

	if (text.size % 4 != 0)
		return false;
	if (text.size > 0 && text.data[text.size - 1] == '=')
		padding = text.data[text.size - 2] == '=' ? 2 : 1;

	for (size_t at = 0; at < text.size; at += 4) {
		size_t bytes = at + 4 == text.size ? 3 - padding : 3;
		int32_t group = 0;

		for (size_t i = 0; i < 4; i++) {
			int32_t digit = i <= bytes ? digit_of(text.data[at + i]) : 0;
			if (digit < 0)
				return false;
			group = group << 6 | digit;
		}
		if (bytes < 3 && (group & ((1 << (8 * (3 - bytes))) - 1)) != 0)
			return false;
		for (size_t i = 0; i < bytes; i++)
			out[length++] = (uint8_t)(group >> (16 - 8 * i));
	}
	*size = length;
	return true;
}
