/*
 * Steps for the benches, as fast as JSON can be had: bytes in, bytes out, over simdjson.
 *
 *   function: double    of {"value": N, ...}: drops the record if N % 10 == 0, else sets "doubled" to 2 N
 *   function: totals    of {"value": N, ...}, behind a key_by: {"user": KEY, "count": n, "sum": s} so far, with each record;
 *                       needs `state: { totals: value }`
 *
 * A field is added in front of the closing brace: what else is in the payload stays as it came, to the letter. A value that is missing
 * or no whole number fails the record.
 */
#include <cstdio>
#include <cstring>
#include <new>

#include <simdjson.h>

#include "bridge_step.h"

namespace
{

namespace json = simdjson::dom; /* chooses the best that the processor can at run time */

/* One step for one subtask. */
struct Step {
	const bridge_host *host;
	bridge_context *context;
	bridge_state *totals;
	json::parser parser;
	size_t room;
	char *padded; /* the payload at hand, with the padding that the parser wants */
};

/* What is kept for a key. */
struct Totals {
	uint64_t count;
	int64_t sum;
};

/* What a payload has. */
struct Fields {
	int64_t value;
	bool has_doubled;
	size_t end; /* of its last field: where another one can stand */
};

/* A copy of the payload that may be parsed. */
bool pad(Step &step, const bridge_bytes &payload)
{
	if (payload.size + simdjson::SIMDJSON_PADDING > step.room) {
		delete[] step.padded;
		step.room = 2 * (payload.size + simdjson::SIMDJSON_PADDING);
		step.padded = new (std::nothrow) char[step.room];
	}
	if (step.padded == nullptr)
		return step.room = 0, false;
	std::memcpy(step.padded, payload.data, payload.size);
	std::memset(step.padded + payload.size, 0, simdjson::SIMDJSON_PADDING);
	return true;
}

/* Looks into an object. */
simdjson::error_code look(Step &step, const bridge_bytes &payload, Fields &fields)
{
	json::element document;
	json::object object;
	json::element other;

	fields = Fields{};
	if (auto error = step.parser.parse(step.padded, payload.size, false).get(document))
		return error;
	if (auto error = document.get_object().get(object))
		return error;
	if (auto error = object.at_key("value").get_int64().get(fields.value))
		return error;
	fields.has_doubled = object.at_key("doubled").get(other) == simdjson::SUCCESS;
	fields.end = payload.size;
	while (step.padded[fields.end - 1] != '}') /* there is one: it is an object */
		fields.end--;
	fields.end--;
	return simdjson::SUCCESS;
}

/* Fails on a record, in the parser's words. */
int refuse(Step &step, uint32_t index, simdjson::error_code error)
{
	char text[256];

	std::snprintf(text, sizeof(text), "the payload needs a whole number `value`: %s",
		      simdjson::error_message(error));
	return bridge_fail(step.host, step.context, index, text);
}

/* Looks at a record of a run. */
int take(Step &step, const bridge_run *run, uint32_t index, Fields &fields)
{
	const bridge_bytes &payload = bridge_run_record(run, index)->payload;

	if (!pad(step, payload))
		return bridge_fail(step.host, step.context, index, "no memory for the payload");
	if (auto error = look(step, payload, fields))
		return refuse(step, index, error);
	return BRIDGE_OK;
}

/* Emits text that lies in memory of the unit. */
int emit(Step &step, uint32_t from, const char *text, size_t size)
{
	bridge_output output{};

	output.size = sizeof(output);
	output.flags = BRIDGE_OUT_STAYS;
	output.from = from;
	output.payload = {reinterpret_cast<const uint8_t *>(text), size};
	return step.host->emit(step.context, &output);
}

/* Writes a number; returns the end. */
char *put_number(char *to, int64_t number)
{
	char digits[24];
	int count = 0;
	uint64_t rest = number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);

	do {
		digits[count++] = static_cast<char>('0' + rest % 10);
		rest /= 10;
	} while (rest > 0);
	if (number < 0)
		*to++ = '-';
	while (count > 0)
		*to++ = digits[--count];
	return to;
}

/* Appends a text of known length. */
template <size_t N> char *put(char *to, const char (&text)[N])
{
	std::memcpy(to, text, N - 1);
	return to + N - 1;
}

/* ---- double ---- */

int double_process(void *self, const bridge_run *run)
{
	Step &step = *static_cast<Step *>(self);

	for (uint32_t i = 0; i < run->count; i++) {
		const bridge_bytes &payload = bridge_run_record(run, i)->payload;
		Fields fields;
		if (take(step, run, i, fields) != BRIDGE_OK)
			return BRIDGE_FAILED;
		if (fields.value % 10 == 0)
			continue;
		if (fields.has_doubled)
			return bridge_fail(step.host, step.context, i, "the payload has a field `doubled` already");
		char *text = static_cast<char *>(step.host->memory(step.context, fields.end + 40));
		if (text == nullptr)
			return BRIDGE_FAILED;
		std::memcpy(text, payload.data, fields.end);
		char *end = put_number(put(text + fields.end, ",\"doubled\":"), 2 * fields.value);
		*end++ = '}';
		if (emit(step, i, text, static_cast<size_t>(end - text)) != BRIDGE_OK)
			return BRIDGE_FAILED;
	}
	return BRIDGE_OK;
}

/* ---- totals ---- */

/* Writes a key as a JSON string; the room is six times its size, and two. */
char *put_string(char *to, const bridge_bytes &key)
{
	static const char hex[] = "0123456789abcdef";

	*to++ = '"';
	for (size_t i = 0; i < key.size; i++) {
		uint8_t byte = key.data[i];
		if (byte == '"' || byte == '\\') {
			*to++ = '\\';
			*to++ = static_cast<char>(byte);
		} else if (byte < 0x20) {
			to = put(to, "\\u00");
			*to++ = hex[byte >> 4];
			*to++ = hex[byte & 15];
		} else {
			*to++ = static_cast<char>(byte);
		}
	}
	*to++ = '"';
	return to;
}

int totals_process(void *self, const bridge_run *run)
{
	Step &step = *static_cast<Step *>(self);

	for (uint32_t i = 0; i < run->count; i++) {
		const bridge_bytes &key = bridge_run_record(run, i)->key;
		Fields fields;
		void *bytes = nullptr;
		int is_new = 0;
		if (take(step, run, i, fields) != BRIDGE_OK)
			return BRIDGE_FAILED;
		if (step.host->use(step.context, i) != BRIDGE_OK ||
		    step.host->edit(step.totals, sizeof(Totals), &bytes, &is_new) != BRIDGE_OK)
			return BRIDGE_FAILED;
		Totals *totals = static_cast<Totals *>(bytes);
		totals->count++;
		totals->sum += fields.value;
		char *text = static_cast<char *>(step.host->memory(step.context, 6 * key.size + 80));
		if (text == nullptr)
			return BRIDGE_FAILED;
		char *end = put_string(put(text, "{\"user\":"), key);
		end = put_number(put(end, ",\"count\":"), static_cast<int64_t>(totals->count));
		end = put_number(put(end, ",\"sum\":"), totals->sum);
		*end++ = '}';
		if (emit(step, i, text, static_cast<size_t>(end - text)) != BRIDGE_OK)
			return BRIDGE_FAILED;
	}
	return BRIDGE_OK;
}

/* ---- The table ---- */

int json_load(const bridge_host *host, bridge_context *context, const bridge_setup *setup, bridge_loaded *loaded)
{
	const char *name = bridge_option_of(setup->settings, setup->setting_count, "function");

	loaded->code = nullptr;
	if (name != nullptr && std::strcmp(name, "double") == 0)
		loaded->code = reinterpret_cast<void *>(double_process);
	if (name != nullptr && std::strcmp(name, "totals") == 0)
		loaded->code = reinterpret_cast<void *>(totals_process);
	return loaded->code != nullptr
		   ? BRIDGE_OK
		   : bridge_fail(host, context, BRIDGE_NO_RECORD, "`function` must be double or totals");
}

/* A step and which of the functions it is. */
struct Opened {
	Step step; /* first: the functions are handed this */
	int (*process)(void *self, const bridge_run *run);
};

int json_open(const bridge_host *host, bridge_context *context, const bridge_setup *, void *code, void **self)
{
	Opened *opened = new (std::nothrow) Opened();

	if (opened == nullptr)
		return bridge_fail(host, context, BRIDGE_NO_RECORD, "no memory");
	opened->step.host = host;
	opened->step.context = context;
	opened->step.totals = host->state(context, "totals");
	opened->process = reinterpret_cast<int (*)(void *, const bridge_run *)>(code);
	if (opened->process == totals_process && opened->step.totals == nullptr) {
		delete opened;
		return bridge_fail(host, context, BRIDGE_NO_RECORD, "declare `state: { totals: value }`");
	}
	*self = opened;
	return BRIDGE_OK;
}

void json_close(void *self)
{
	Opened *opened = static_cast<Opened *>(self);

	delete[] opened->step.padded;
	delete opened;
}

int json_process(void *self, const bridge_run *run)
{
	Opened *opened = static_cast<Opened *>(self);

	return opened->process(&opened->step, run);
}

} // namespace

extern "C" const struct bridge_step_library *bridge_step_library(void)
{
	static struct bridge_step_library library;

	library.abi = BRIDGE_STEP_ABI;
	library.size = sizeof(library);
	library.load = json_load;
	library.open = json_open;
	library.close = json_close;
	library.process = json_process;
	return &library;
}
