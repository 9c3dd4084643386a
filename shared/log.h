/*
 * Log lines on standard error: "2026-11-21T10:00:00.123Z info  worker 3: text". One write per line, from any process.
 */
#ifndef SHARED_LOG_H
#define SHARED_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Names the speaker for all later lines ("front", "worker 3"); copied. Once per process. */
void log_init(const char *speaker, enum log_level lowest);

/* A line with printf-like text. */
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An error line with errno's words behind it, then exit(1). The world is broken at start. */
void fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The same without errno. */
void fatalx(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* A check of our own reasoning that stays on in release builds: logs file, line and condition, then aborts. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (__builtin_expect(!(condition), 0))                                                                 \
			log_check_failed(__FILE__, __LINE__, #condition);                                              \
	} while (0)
void log_check_failed(const char *file, int line, const char *condition) __attribute__((noreturn));

#endif
