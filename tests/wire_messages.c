/* See wire_messages.h. */
#include "tests/wire_messages.h"

#include <stdlib.h>

#include "shared/log.h"

uint64_t dice_roll(struct dice *dice, uint64_t sides)
{
	uint64_t mixed = dice->state += UINT64_C(0x9e3779b97f4a7c15);
	mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
	return (mixed ^ mixed >> 31) % sides;
}

void bytes_free(struct bytes *bytes)
{
	free(bytes->data);
	*bytes = (struct bytes){0};
}

struct view bytes_view(const struct bytes *bytes)
{
	return (struct view){bytes->data, bytes->size};
}

void bytes_add(struct bytes *bytes, const void *data, size_t size)
{
	if (bytes->size + size > bytes->capacity) {
		bytes->capacity = (bytes->size + size) * 2;
		bytes->data = realloc(bytes->data, bytes->capacity);
		CHECK(bytes->data != NULL);
	}
	if (size != 0)
		memcpy(bytes->data + bytes->size, data, size);
	bytes->size += size;
}

void bytes_add_varint(struct bytes *bytes, uint64_t value)
{
	do {
		uint8_t byte = (uint8_t)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
		bytes_add(bytes, &byte, 1);
		value >>= 7;
	} while (value != 0);
}

/* A number of any length, the limits among them. */
static uint64_t any_number(struct dice *dice)
{
	static const uint64_t limits[] = {0,         1, 127, 128, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_C(1) << 63,
					  UINT64_MAX};
	if (dice_roll(dice, 3) == 0)
		return limits[dice_roll(dice, sizeof(limits) / sizeof(limits[0]))];
	return dice_roll(dice, UINT64_MAX) >> dice_roll(dice, 64);
}

/* A text in several scripts, most often short. */
static struct view any_text(struct dice *dice)
{
	static const char *const texts[] = {"",
					    "a",
					    "k1",
					    "user-id",
					    "content-type",
					    "application/json",
					    "trace-id-0123456789abcdef0123456789abcdef",
					    "\xc3\xa4\xc3\xb6\xc3\xbc",
					    "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e",
					    "\xf0\x9f\x8c\x89 bridge",
					    "a long run of plain text and then one \xe2\x82\xac sign"};
	return view_of(texts[dice_roll(dice, sizeof(texts) / sizeof(texts[0]))]);
}

/* Appends a length-prefixed run of any bytes. */
static void add_payload(struct bytes *out, struct dice *dice)
{
	uint8_t data[300];
	size_t size = dice_roll(dice, dice_roll(dice, 4) == 0 ? sizeof(data) : 20);
	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)dice_roll(dice, 256);
	bytes_add_varint(out, size);
	bytes_add(out, data, size);
}

/* Appends a field that no message of ours knows. */
static void add_unknown(struct bytes *out, struct dice *dice)
{
	static const uint8_t types[] = {0, 1, 2, 5};
	unsigned type = types[dice_roll(dice, sizeof(types))];
	uint64_t word = dice_roll(dice, UINT64_MAX);
	bytes_add_varint(out, (20 + dice_roll(dice, 100000)) << 3 | type);
	if (type == 0)
		bytes_add_varint(out, word);
	else if (type == 2)
		add_payload(out, dice);
	else
		bytes_add(out, &word, type == 1 ? 8 : 4);
}

/* Appends one field with its key. */
static void add_field(struct bytes *out, const ProtobufCFieldDescriptor *field, struct dice *dice, bool plain)
{
	uint32_t word = (uint32_t)any_number(dice);
	uint64_t number;
	struct bytes inner = {0};
	struct view text = any_text(dice);
	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		bytes_add_varint(out, field->id << 3 | 2);
		message_make(&inner, field->descriptor, dice, plain);
		bytes_add_varint(out, inner.size);
		bytes_add(out, inner.data, inner.size);
		bytes_free(&inner);
		return;
	case PROTOBUF_C_TYPE_STRING:
		bytes_add_varint(out, field->id << 3 | 2);
		bytes_add_varint(out, text.size);
		bytes_add(out, text.data, text.size);
		return;
	case PROTOBUF_C_TYPE_BYTES:
		bytes_add_varint(out, field->id << 3 | 2);
		add_payload(out, dice);
		return;
	case PROTOBUF_C_TYPE_SFIXED32:
		bytes_add_varint(out, field->id << 3 | 5);
		bytes_add(out, &word, sizeof(word));
		return;
	case PROTOBUF_C_TYPE_FIXED64:
		number = any_number(dice);
		bytes_add_varint(out, field->id << 3 | 1);
		bytes_add(out, &number, sizeof(number));
		return;
	case PROTOBUF_C_TYPE_BOOL:
		bytes_add_varint(out, field->id << 3);
		bytes_add_varint(out, dice_roll(dice, 2));
		return;
	default:
		bytes_add_varint(out, field->id << 3);
		bytes_add_varint(out, any_number(dice));
	}
}

/* How often to write a field: a repeated one several times, a member of a oneof only when it is the chosen one. */
static uint64_t field_times(const ProtobufCFieldDescriptor *field, uint32_t chosen, struct dice *dice, bool plain)
{
	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
		return field->id == chosen;
	if (field->label == PROTOBUF_C_LABEL_REPEATED)
		return dice_roll(dice, dice_roll(dice, 20) == 0 ? 40 : 5);
	if (!plain && field->type != PROTOBUF_C_TYPE_MESSAGE && dice_roll(dice, 10) == 0)
		return 2;
	return dice_roll(dice, 4) != 0;
}

void message_make(struct bytes *out, const ProtobufCMessageDescriptor *message, struct dice *dice, bool plain)
{
	uint32_t members[32], member_count = 0;
	for (unsigned i = 0; i < message->n_fields; i++)
		if ((message->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 && member_count < 32)
			members[member_count++] = message->fields[i].id;
	uint32_t chosen = member_count == 0 || dice_roll(dice, 8) == 0 ? 0 : members[dice_roll(dice, member_count)];
	uint64_t turn = plain || message->n_fields == 0 ? 0 : dice_roll(dice, message->n_fields);
	for (unsigned i = 0; i < message->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->fields[(i + turn) % message->n_fields];
		for (uint64_t times = field_times(field, chosen, dice, plain); times > 0; times--)
			add_field(out, field, dice, plain);
		if (!plain && dice_roll(dice, 15) == 0)
			add_unknown(out, dice);
	}
}

void message_damage(struct bytes *bytes, struct dice *dice)
{
	struct bytes damaged = {0};
	size_t from = dice_roll(dice, bytes->size + 1);
	size_t length = dice_roll(dice, bytes->size - from + 1);
	uint8_t byte = (uint8_t)dice_roll(dice, 256);
	size_t resume = from;
	bytes_add(&damaged, bytes->data, from);
	switch (dice_roll(dice, 6)) {
	case 0: /* a bit flipped */
		if (from < bytes->size)
			byte = (uint8_t)(bytes->data[from] ^ 1u << dice_roll(dice, 8));
		/* fall through */
	case 1: /* a byte changed */
		bytes_add(&damaged, &byte, 1);
		resume = from + 1;
		break;
	case 2: /* bytes taken out */
		resume = from + length;
		break;
	case 3: /* bytes repeated */
		if (length > 0)
			bytes_add(&damaged, bytes->data + from, length);
		break;
	case 4: /* a byte put in */
		bytes_add(&damaged, &byte, 1);
		break;
	default: /* the rest cut off */
		resume = bytes->size;
	}
	if (resume < bytes->size)
		bytes_add(&damaged, bytes->data + resume, bytes->size - resume);
	bytes_free(bytes);
	*bytes = damaged;
}
