/*
 * jq programs, compiled once and kept, because libjq parses all its builtins anew for each (10 to 30 ms).
 *
 * A program that is nothing but a path (`.`, `.user`, `.a.b[3]."x y"`) never reaches libjq's virtual machine: it is walked
 * with jv_get, which is what the machine's own instruction calls, so that values and error texts are the same. Neither do
 * strings that are given to `ascii_upcase` or `ascii_downcase` alone, which the machine takes apart and puts together again
 * letter by letter, at half a microsecond each.
 *
 * Not here: limits on time and memory of a program. They belong to whoever watches the process.
 */
#include "worker/jq_program.h"

#include <jq.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/log.h"
#include "worker/chain.h"
#include "worker/failure.h"
#include "worker/memory.h"

enum { PATH_LONGEST = 32 };

struct jq_program {
	struct jq_program *next;
	char *text;
	jq_state *jq; /* NULL: a path */
	jv path[PATH_LONGEST];
	size_t path_length;
	char from, to;  /* letters that change case, or 0: `ascii_upcase` is from 'a' to 'A' */
	bool by_hand;   /* what was started last goes without the machine */
	jv input;       /* by hand: started and not yielded yet, else invalid */
	size_t yielded; /* outputs since the start */
	char error[sizeof(((struct failure *)0)->message)];
};

/* All programs of this process, newest first. */
static struct jq_program *programs;

/* ---- Paths ---- */

/* What a jq name begins with. */
static bool is_name_start(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* What may follow in it, too. */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Reads a name, `"text"` without escapes, or `[number]`; what follows it, or NULL when it is none of these. */
static const char *read_element(const char *at, jv *element)
{
	const char *from = at;

	if (is_name_start(*at)) {
		while (is_name_start(*at) || is_digit(*at))
			at++;
		*element = jv_string_sized(from, (int)(at - from));
		return at;
	}
	if (*at == '"') {
		from = ++at;
		while (*at && *at != '"' && *at != '\\')
			at++;
		if (*at != '"')
			return NULL;
		*element = jv_string_sized(from, (int)(at - from));
		return at + 1;
	}
	if (*at == '[') {
		char *end;
		if (!is_digit(at[1]))
			return NULL;
		long index = strtol(at + 1, &end, 10);
		if (*end != ']' || end - at > 9)
			return NULL;
		*element = jv_number((double)index);
		return end + 1;
	}
	return NULL;
}

/* Fills program->path if the text is nothing but a path. */
static bool path_parse(struct jq_program *program)
{
	const char *at = program->text + strspn(program->text, " \t\n");
	size_t length = strlen(at);

	while (length > 0 && strchr(" \t\n", at[length - 1]))
		length--;
	const char *end = at + length;
	if (length == 0 || *at != '.')
		return false;

	bool first = true;
	for (at++; at < end; first = false) {
		if (*at == '.' && !first)
			at++;
		else if (*at != '[' && !first)
			return false;
		if (*at == '[' && at[-1] == '.' && !first)
			return false;
		if (program->path_length == PATH_LONGEST)
			return false;
		at = read_element(at, &program->path[program->path_length]);
		if (!at)
			return false;
		program->path_length++;
	}
	return at == end;
}

/* Forgets the path of a text that turned out to be none. */
static void path_clear(struct jq_program *program)
{
	for (size_t i = 0; i < program->path_length; i++)
		jv_free(program->path[i]);
	program->path_length = 0;
}

bool jq_program_is_field(const struct jq_program *program, struct view *name)
{
	if (program->jq || program->path_length != 1 || jv_get_kind(program->path[0]) != JV_KIND_STRING)
		return false;
	*name = (struct view){(const uint8_t *)jv_string_value(program->path[0]),
			      (size_t)jv_string_length_bytes(jv_copy(program->path[0]))};
	return true;
}

/* ---- Letters ---- */

/* Notes the two programs that change the case of letters. */
static void letters_parse(struct jq_program *program)
{
	if (strcmp(program->text, "ascii_upcase") == 0) {
		program->from = 'a';
		program->to = 'A';
	} else if (strcmp(program->text, "ascii_downcase") == 0) {
		program->from = 'A';
		program->to = 'a';
	}
}

/* A string with its ASCII letters changed; takes over `string`. */
static jv letters_change(const struct jq_program *program, jv string)
{
	int size = jv_string_length_bytes(jv_copy(string));
	const char *text = jv_string_value(string);
	char stack[1024], *changed = size <= (int)sizeof(stack) ? stack : malloc((size_t)size);

	if (!changed)
		memory_leave("the values of a jq program");
	for (int i = 0; i < size; i++) {
		bool letter = text[i] >= program->from && text[i] <= program->from + 25;
		changed[i] = letter ? (char)(text[i] - program->from + program->to) : text[i];
	}
	jv_free(string);
	jv result = jv_string_sized(changed, size);
	if (changed != stack)
		free(changed);
	return result;
}

/* ---- Compiling ---- */

/* What a message says: a string itself, any other value as JSON; takes over `message`. */
static jv message_text(jv message)
{
	return jv_get_kind(message) == JV_KIND_STRING ? message : jv_dump_string(message, 0);
}

/* Collects the compiler's messages, without what libjq puts around them. */
static void on_compile_error(void *context, jv message)
{
	struct jq_program *program = context;
	size_t used = strlen(program->error), room = sizeof(program->error) - used;
	jv text = message_text(message);
	const char *words = jv_string_value(text);
	static const char noise[] = " (Unix shell quoting issues?)";

	if (strncmp(words, "jq: error: ", 11) == 0)
		words += 11;
	if (strncmp(words, "jq: ", 4) != 0) {
		const char *cut = strstr(words, noise);
		int before = cut ? (int)(cut - words) : (int)strlen(words);
		snprintf(program->error + used, room, "%s%.*s%s", used ? "; " : "", before, words,
			 cut ? cut + sizeof(noise) - 1 : "");
	}
	jv_free(text);
}

/* What a program says by `debug`. */
static void on_debug(void *context, jv message)
{
	jv text = jv_dump_string(message, 0);

	(void)context;
	log_debug("jq: %s", jv_string_value(text));
	jv_free(text);
}

/* What a program gets that asks for another input. */
static jv on_input(jq_state *jq, void *context)
{
	(void)jq;
	(void)context;
	return jv_invalid_with_msg(jv_string("a step's program has no further inputs: each record is run by itself"));
}

/* Compiles with no ~/.jq in sight: libjq would take definitions from there, and a pipeline must mean the same everywhere. The
 * environment is changed only where such a file is. */
static int compile_alone(jq_state *jq, const char *text)
{
	const char *home = getenv("HOME");
	char path[4096], *kept = NULL;

	if (home && snprintf(path, sizeof(path), "%s/.jq", home) < (int)sizeof(path) && access(path, F_OK) == 0) {
		kept = strdup(home);
		if (!kept)
			memory_leave("a jq program");
		unsetenv("HOME");
	}
	int compiled = jq_compile(jq, text);
	if (kept)
		setenv("HOME", kept, 1);
	free(kept);
	return compiled;
}

/* Gives a program its machine. */
static bool program_compile(struct jq_program *program)
{
	program->jq = jq_init();
	if (!program->jq)
		memory_leave("a jq program");
	jq_set_nomem_handler(program->jq, memory_leave_jq, NULL);
	jq_set_error_cb(program->jq, on_compile_error, program);
	jq_set_debug_cb(program->jq, on_debug, NULL);
	jq_set_input_cb(program->jq, on_input, NULL);
	jq_set_attr(program->jq, jv_string("JQ_LIBRARY_PATH"), jv_array());
	if (compile_alone(program->jq, program->text))
		return true;
	if (!program->error[0])
		snprintf(program->error, sizeof(program->error), "the program does not compile");
	return false;
}

/* Frees one program. */
static void program_free(struct jq_program *program)
{
	path_clear(program);
	jv_free(program->input);
	if (program->jq)
		jq_teardown(&program->jq);
	free(program->text);
	free(program);
}

/* Makes one line of a text in place: each stretch of white space becomes one space, none at the end. */
static void one_line(char *text)
{
	size_t length = 0;

	for (const char *at = text; *at; at++) {
		bool space = *at == '\n' || *at == '\t' || *at == ' ';
		if (!space || (length > 0 && text[length - 1] != ' '))
			text[length++] = space ? ' ' : *at;
	}
	if (length > 0 && text[length - 1] == ' ')
		length--;
	text[length] = '\0';
}

/* A program that is not in the list yet. On failure its error is written to `why`. */
static struct jq_program *program_create(const char *text, char *why, size_t why_size)
{
	struct jq_program *program = memory_make(1, sizeof(*program), "a jq program");

	program->text = strdup(text);
	if (!program->text)
		memory_leave("a jq program");
	program->input = jv_invalid();
	if (path_parse(program))
		return program;
	path_clear(program);
	letters_parse(program);
	if (program_compile(program))
		return program;

	struct failure words = {0};
	one_line(program->error);
	failure_set(&words, 0, "%s", program->error);
	if (why)
		snprintf(why, why_size, "%s", words.message);
	program_free(program);
	return NULL;
}

struct jq_program *jq_program_get(const char *text, char *why, size_t why_size)
{
	for (struct jq_program *program = programs; program; program = program->next)
		if (strcmp(program->text, text) == 0)
			return program;

	struct jq_program *program = program_create(text, why, why_size);
	if (program) {
		program->next = programs;
		programs = program;
	}
	return program;
}

void jq_programs_free(void)
{
	while (programs) {
		struct jq_program *program = programs;
		programs = program->next;
		program_free(program);
	}
}

char *jq_program_check(const char *text)
{
	char why[sizeof(((struct failure *)0)->message)];
	struct jq_program *program = program_create(text, why, sizeof(why));

	if (!program)
		return strdup(why);
	program_free(program);
	return NULL;
}

/* ---- Running ---- */

/* Puts libjq's words for a failure into program->error; takes over `message`. */
static void program_failed(struct jq_program *program, jv message)
{
	struct failure words = {0};
	jv text = message_text(message);

	failure_set(&words, 0, "%s", jv_string_value(text));
	memcpy(program->error, words.message, sizeof(program->error));
	jv_free(text);
}

void jq_program_start(struct jq_program *program, jv input)
{
	program->yielded = 0;
	program->error[0] = '\0';
	program->by_hand = !program->jq || (program->from && jv_get_kind(input) == JV_KIND_STRING);
	if (!program->by_hand) {
		jq_start(program->jq, input, 0);
		return;
	}
	jv_free(program->input);
	program->input = program->from ? letters_change(program, input) : input;
}

void jq_program_stop(struct jq_program *program)
{
	if (!program->by_hand) {
		jq_start(program->jq, jv_null(), 0);
		return;
	}
	jv_free(program->input);
	program->input = jv_invalid();
}

/* Yields what is at the end of the path; once per start. */
static enum jq_result path_next(struct jq_program *program, jv *output)
{
	jv value = program->input;

	if (!jv_is_valid(value))
		return JQ_DONE;
	program->input = jv_invalid();
	for (size_t i = 0; i < program->path_length; i++) {
		value = jv_get(value, jv_copy(program->path[i]));
		if (!jv_is_valid(value)) {
			program_failed(program, jv_invalid_get_msg(value));
			return JQ_FAILED;
		}
	}
	*output = value;
	return JQ_OUTPUT;
}

/* What an invalid value from the machine means. */
static enum jq_result machine_ended(struct jq_program *program, jv end)
{
	if (jq_halted(program->jq)) {
		jv_free(end);
		jv message = jq_get_error_message(program->jq);
		jv text = jv_is_valid(message) ? message_text(message) : jv_string("");
		bool words = jv_string_length_bytes(jv_copy(text)) > 0;
		program_failed(program, jv_string_fmt("the program called halt, which a step must not%s%s",
						      words ? ": " : "", jv_string_value(text)));
		jv_free(text);
		return JQ_FAILED;
	}
	if (!jv_invalid_has_msg(jv_copy(end))) {
		jv_free(end);
		return JQ_DONE;
	}
	program_failed(program, jv_invalid_get_msg(end));
	return JQ_FAILED;
}

enum jq_result jq_program_next(struct jq_program *program, jv *output)
{
	if (program->by_hand)
		return path_next(program, output);

	jv value = jq_next(program->jq);
	if (!jv_is_valid(value))
		return machine_ended(program, value);
	if (program->yielded++ >= JQ_OUTPUTS_MAX) {
		jv_free(value);
		jq_program_stop(program);
		program_failed(program, jv_string("the program yields more than 1000000 values for one record"));
		return JQ_FAILED;
	}
	*output = value;
	return JQ_OUTPUT;
}

const char *jq_program_error(const struct jq_program *program)
{
	return program->error;
}

bool jq_program_one(struct jq_program *program, jv input, jv *output)
{
	jv second;

	jq_program_start(program, input);
	enum jq_result result = jq_program_next(program, output);
	if (result == JQ_FAILED)
		return false;
	if (result == JQ_DONE) {
		program_failed(program, jv_string("the program yields no value, and one is needed"));
		return false;
	}
	if (program->by_hand)
		return true;
	result = jq_program_next(program, &second);
	if (result == JQ_DONE)
		return true;

	jv_free(*output);
	if (result == JQ_OUTPUT) {
		jv_free(second);
		jq_program_stop(program);
		program_failed(program, jv_string("the program yields more than one value, and one is needed"));
	}
	return false;
}

/* Why bytes are no JSON; takes the value over that was made of them. */
static const char *no_json(jv value)
{
	static char words[256];
	jv why =
	    jv_invalid_has_msg(jv_copy(value)) ? jv_invalid_get_msg(value) : (jv_free(value), jv_string("it is empty"));

	snprintf(words, sizeof(words), "%s", jv_string_value(why));
	jv_free(why);
	return words;
}

const char *jq_program_time(struct jq_program *program, struct view payload, int64_t *ms)
{
	jv result;

	if (payload.size > INT32_MAX)
		return "it is too large";
	jv value = jv_parse_sized((const char *)payload.data, (int)payload.size);
	if (!jv_is_valid(value))
		return no_json(value);
	if (!jq_program_one(program, value, &result))
		return jq_program_error(program);
	double number = jv_get_kind(result) == JV_KIND_NUMBER ? jv_number_value(result) : NAN;
	jv_free(result);
	if (!(number >= -9.2e18 && number <= 9.2e18))
		return "the timestamp program must yield milliseconds, a number";
	*ms = (int64_t)floor(number);
	return NULL;
}

bool jq_program_holds(struct jq_program *program, jv input, bool *holds)
{
	jv value;

	if (!jq_program_one(program, input, &value))
		return false;
	jv_kind kind = jv_get_kind(value);
	*holds = kind != JV_KIND_FALSE && kind != JV_KIND_NULL;
	jv_free(value);
	return true;
}
