/*
 * Random messages of the contracts, made from protobuf-c's own descriptions of them: fields in any order, repeated ones
 * often, defaults sometimes, unknown fields now and then. And ways to damage them.
 */
#ifndef TESTS_WIRE_MESSAGES_H
#define TESTS_WIRE_MESSAGES_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "shared/view.h"

/* A run of random numbers that is the same for the same seed. */
struct dice {
	uint64_t state;
};

/* A number below `sides`. */
uint64_t dice_roll(struct dice *dice, uint64_t sides);

/* Bytes that grow. */
struct bytes {
	uint8_t *data;
	size_t size, capacity;
};

void bytes_free(struct bytes *bytes);
struct view bytes_view(const struct bytes *bytes);
void bytes_add(struct bytes *bytes, const void *data, size_t size);
void bytes_add_varint(struct bytes *bytes, uint64_t value);

/* Appends a random valid message. `plain`: as a client's library would write it, so no unknown or repeated fields. */
void message_make(struct bytes *out, const ProtobufCMessageDescriptor *message, struct dice *dice, bool plain);

/* Damages a message in one of several ways: a byte changed, bytes cut off, put in, taken out, repeated. */
void message_damage(struct bytes *bytes, struct dice *dice);

#endif
