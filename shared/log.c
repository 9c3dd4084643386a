/*
 * Log lines. A line is put together on the stack and leaves in one write(2), so that lines of several processes on one
 * standard error never mix. Whatever the text holds, it stays one line of valid UTF-8: control characters and stray
 * bytes are shown as \n, \t or \xHH. Longer lines are cut and end in "...".
 *
 * Left out: files, rotation, syslog. Whoever starts the sidecar collects its standard error.
 */
#include "shared/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096, SPEAKER_MAX = 64 };

static const char *const level_names[] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARN] = "warn",
    [LOG_ERROR] = "error",
};

static char speaker_name[SPEAKER_MAX];
static enum log_level lowest_level = LOG_INFO;

/* A line in the making; what goes beyond `limit` is left away and remembered. */
struct line {
	char text[LINE_MAX_BYTES];
	size_t used;
	size_t limit;
	bool cut;
};

/* Adds some bytes whole, or cuts the line here. */
static void line_add(struct line *line, const char *bytes, size_t size)
{
	if (line->cut || size > line->limit - line->used) {
		line->cut = true;
		return;
	}
	memcpy(line->text + line->used, bytes, size);
	line->used += size;
}

/* The length of the valid UTF-8 sequence of a printable character at `text`, 0 when there is none. */
static size_t printable_length(const uint8_t *text, size_t size)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	uint8_t first = text[0];
	if (first < 0x80)
		return first >= 0x20 && first != 0x7f;
	size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
	if (first < 0xc2 || first > 0xf4 || length > size)
		return 0;
	uint32_t point = first & (0x7f >> length);
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (text[i] & 0x3f);
	}
	bool surrogate = point >= 0xd800 && point <= 0xdfff;
	bool control = point < 0xa0;
	return point < smallest[length] || point > 0x10ffff || surrogate || control ? 0 : length;
}

/* Adds text, with everything that is not printable UTF-8 escaped. */
static void line_add_escaped(struct line *line, const char *text)
{
	size_t size = strlen(text);
	while (size > 0 && !line->cut) {
		size_t length = printable_length((const uint8_t *)text, size);
		char escape[8];
		if (length > 0) {
			line_add(line, text, length);
		} else {
			length = 1;
			if (*text == '\n' || *text == '\t')
				line_add(line, *text == '\n' ? "\\n" : "\\t", 2);
			else
				line_add(line, escape,
					 (size_t)snprintf(escape, sizeof(escape), "\\x%02X", (uint8_t)*text));
		}
		text += length;
		size -= length;
	}
}

/* Adds time, level and speaker. */
static void line_begin(struct line *line, enum log_level level)
{
	struct timespec now;
	struct tm utc;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	char head[SPEAKER_MAX + 64];
	size_t stamp = strftime(head, sizeof(head), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(head + stamp, sizeof(head) - stamp, ".%03dZ %-5s ", (int)(now.tv_nsec / 1000000), level_names[level]);
	line_add(line, head, strlen(head));
	line_add_escaped(line, speaker_name[0] != '\0' ? speaker_name : program_invocation_short_name);
	line_add(line, ": ", 2);
}

/* Ends the line and writes it; a standard error that takes nothing is nobody's problem here. */
static void line_write(struct line *line)
{
	if (line->cut) {
		memcpy(line->text + line->used, "...", 3);
		line->used += 3;
	}
	line->text[line->used++] = '\n';
	while (write(STDERR_FILENO, line->text, line->used) < 0 && errno == EINTR)
		;
}

/* A whole line: printf-like text and, when `error` is not 0, errno's words. Leaves errno alone. */
__attribute__((format(printf, 3, 0))) static void log_line(enum log_level level, int error, const char *format,
							   va_list arguments)
{
	if (level < lowest_level)
		return;
	int kept = errno;
	struct line line = {.limit = sizeof(line.text) - sizeof("...\n")};
	char text[LINE_MAX_BYTES];
	line_begin(&line, level);
	int size = vsnprintf(text, sizeof(text), format, arguments);
	line_add_escaped(&line, size < 0 ? format : text);
	if (error != 0) {
		line_add(&line, ": ", 2);
		line_add_escaped(&line, strerror(error));
	}
	line.cut |= size >= (int)sizeof(text);
	line_write(&line);
	errno = kept;
}

void log_init(const char *speaker, enum log_level lowest)
{
	snprintf(speaker_name, sizeof(speaker_name), "%s", speaker);
	lowest_level = lowest;
}

/* The four levels differ in name alone. */
#define LOG_FUNCTION(name, level)                                                                                      \
	void name(const char *format, ...)                                                                             \
	{                                                                                                              \
		va_list arguments;                                                                                     \
		va_start(arguments, format);                                                                           \
		log_line(level, 0, format, arguments);                                                                 \
		va_end(arguments);                                                                                     \
	}

LOG_FUNCTION(log_debug, LOG_DEBUG)
LOG_FUNCTION(log_info, LOG_INFO)
LOG_FUNCTION(log_warn, LOG_WARN)
LOG_FUNCTION(log_error, LOG_ERROR)

void fatal(const char *format, ...)
{
	int error = errno;
	va_list arguments;
	va_start(arguments, format);
	log_line(LOG_ERROR, error, format, arguments);
	va_end(arguments);
	exit(1);
}

void fatalx(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	log_line(LOG_ERROR, 0, format, arguments);
	va_end(arguments);
	exit(1);
}

void log_check_failed(const char *file, int line, const char *condition)
{
	log_error("%s:%d: this should never happen: %s is not true; please report it", file, line, condition);
	abort();
}
