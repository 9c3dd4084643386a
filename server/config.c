/*
 * The configuration (config.h): the table, setting one flag, the command line. The file is read in config_file.c, what
 * flags say to one another is checked in config_check.c, all printing is in config_print.c.
 */
#include "server/config.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "server/config_check.h"
#include "shared/suggest.h"
#include "shared/units.h"

const struct flag config_flags[FLAG_COUNT] = {
#define FLAG_GROUP(title)
#define FLAG(name, type, field, low, high, fallback, place, help)                                                      \
	{#name, FLAG_TYPE_##type, offsetof(struct config, field), low, high, fallback, place, help},
#include "server/flags.def"
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

const struct flag *config_flag(const char *name)
{
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		const char *a = config_flags[i].name, *b = name;
		while (*a != '\0' && (*a == *b || (*a == '-' && *b == '_'))) {
			a++;
			b++;
		}
		if (*a == '\0' && *b == '\0')
			return &config_flags[i];
	}
	return NULL;
}

const char *config_flag_nearest(const char *name)
{
	const char *names[FLAG_COUNT];

	for (size_t i = 0; i < FLAG_COUNT; i++)
		names[i] = config_flags[i].name;
	return suggest_nearest(name, names, FLAG_COUNT);
}

/* A copy of some text; there is no going on without memory at start. */
static char *copy_text(const char *text)
{
	char *copy = strdup(text);

	if (copy == NULL)
		fatal("no memory for the configuration");
	return copy;
}

/* ---- Addresses ---- */

/* Checks the path of a Unix socket. */
static const char *socket_path_problem(const char *path)
{
	if (path[0] != '/')
		return "the path of a Unix socket must be absolute, as in unix:/run/bridge/front.sock";
	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return "the path is too long: the kernel takes at most 107 bytes for a Unix socket; choose a shorter "
		       "folder";
	return NULL;
}

/* Whether a host is this machine alone. */
static bool host_is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (strcmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return (ntohl(v4.s_addr) >> 24) == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* Splits host:port, [v6]:port, :port or port. */
static const char *split_host_port(const char *text, char host[256], const char **port)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon == NULL ? 0 : (size_t)(colon - text);
	const char *start = text;

	*port = colon == NULL ? text : colon + 1;
	if (text[0] == '[') {
		if (colon == NULL || length < 2 || text[length - 1] != ']')
			return "an IPv6 address is written [address]:port";
		start = text + 1;
		length -= 2;
	} else if (memchr(text, ':', length) != NULL) {
		return "an IPv6 address is written in brackets: [address]:port";
	}
	if (length >= 256)
		return "the host is too long";
	memcpy(host, start, length);
	host[length] = '\0';
	return NULL;
}

char *config_address(const char *text, const char **why, bool *exposed)
{
	char host[256];
	const char *port;
	uint64_t number;
	char *address = NULL;

	*exposed = false;
	if (strncmp(text, "unix:", 5) == 0) {
		const char *path = strncmp(text + 5, "//", 2) == 0 ? text + 7 : text + 5;
		*why = socket_path_problem(path);
		if (*why == NULL && asprintf(&address, "unix:%s", path) < 0)
			fatal("no memory for the configuration");
		return address;
	}
	*why = split_host_port(text, host, &port);
	if (*why == NULL && (!number_parse(port, &number) || number < 1 || number > 65535))
		*why = text[0] == '/' ? "a Unix socket is written unix:/path"
				      : "expected unix:/path or host:port with a port from 1 to 65535";
	if (*why != NULL)
		return NULL;
	if (host[0] == '\0')
		strcpy(host, "127.0.0.1");
	*exposed = !host_is_loopback(host);
	if (asprintf(&address, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, (unsigned)number) < 0)
		fatal("no memory for the configuration");
	return address;
}

/* ---- Setting one flag ---- */

/* Where a flag's value lives. */
static void *field_of(struct config *config, const struct flag *flag)
{
	return (char *)config + flag->offset;
}

/* Adds one address to those listened on. */
static bool add_address(struct config *config, const char *text, const char *where, struct findings *findings)
{
	const char *why = NULL;
	bool exposed;
	char *address = config_address(text, &why, &exposed);

	if (address == NULL) {
		findings_add(findings, "%s: \"%s\": %s", where, text, why);
		return false;
	}
	if (config->listen_count == LISTEN_MAX) {
		findings_add(findings, "%s: \"%s\": at most %d addresses", where, text, LISTEN_MAX);
		free(address);
		return false;
	}
	config->listen[config->listen_count++] = address;
	return true;
}

/* What a value of a type looks like, for messages. */
static const char *type_words(enum flag_type type)
{
	switch (type) {
	case FLAG_TYPE_COUNT:
		return "a number";
	case FLAG_TYPE_SIZE:
		return "a size such as 65536, 64KiB, 4MiB or 1GiB";
	case FLAG_TYPE_MILLIS:
	case FLAG_TYPE_MICROS:
		return "a time such as 500ms, 10s or 5min";
	default:
		return "a value";
	}
}

/* Reads a number in the unit in which it is kept. */
static bool scalar_parse(const struct flag *flag, const char *text, uint64_t *value)
{
	switch (flag->type) {
	case FLAG_TYPE_COUNT:
		return number_parse(text, value);
	case FLAG_TYPE_SIZE:
		return size_parse(text, value);
	case FLAG_TYPE_MICROS:
		return duration_parse(text, value);
	default:
		if (!duration_parse(text, value) || *value % 1000 != 0)
			return false;
		*value /= 1000;
		return true;
	}
}

/* Writes a number in the unit in which it is kept. */
static const char *scalar_text(const struct flag *flag, uint64_t value, char text[UNITS_TEXT_MAX])
{
	if (flag->type == FLAG_TYPE_SIZE)
		return size_exact(text, value);
	if (flag->type == FLAG_TYPE_MILLIS)
		return duration_exact(text, value * 1000);
	if (flag->type == FLAG_TYPE_MICROS)
		return duration_exact(text, value);
	snprintf(text, UNITS_TEXT_MAX, "%llu", (unsigned long long)value);
	return text;
}

/* Stores a number. */
static void scalar_store(struct config *config, const struct flag *flag, uint64_t value)
{
	if (flag->type == FLAG_TYPE_COUNT)
		*(uint32_t *)field_of(config, flag) = value == CONFIG_AUTO ? CONFIG_AUTO_COUNT : (uint32_t)value;
	else
		*(uint64_t *)field_of(config, flag) = value;
}

/* Sets a COUNT, SIZE, MILLIS or MICROS. */
static bool set_scalar(struct config *config, const struct flag *flag, const char *text, const char *where,
		       struct findings *findings)
{
	char low[UNITS_TEXT_MAX], high[UNITS_TEXT_MAX];
	uint64_t value;

	if (flag->fallback != NULL && strcmp(flag->fallback, "auto") == 0 && strcmp(text, "auto") == 0) {
		scalar_store(config, flag, CONFIG_AUTO);
		return true;
	}
	if (!scalar_parse(flag, text, &value)) {
		findings_add(findings, "%s: \"%s\" is not %s", where, text, type_words(flag->type));
		return false;
	}
	if (value < flag->low || value > flag->high) {
		findings_add(findings, "%s: %s is out of bounds: from %s to %s", where, text,
			     scalar_text(flag, flag->low, low), scalar_text(flag, flag->high, high));
		return false;
	}
	scalar_store(config, flag, value);
	return true;
}

/* Sets a LEVEL. */
static bool set_level(struct config *config, const struct flag *flag, const char *text, const char *where,
		      struct findings *findings)
{
	for (unsigned i = 0; i < sizeof(level_names) / sizeof(*level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*(enum log_level *)field_of(config, flag) = (enum log_level)i;
			return true;
		}
	}
	findings_add(findings, "%s: \"%s\" is no log level: debug, info, warn or error", where, text);
	return false;
}

/* Sets a SWITCH or ACTION. */
static bool set_switch(struct config *config, const struct flag *flag, const char *text, const char *where,
		       struct findings *findings)
{
	bool on = strcmp(text, "true") == 0;

	if (!on && strcmp(text, "false") != 0) {
		findings_add(findings, "%s: \"%s\" is neither true nor false", where, text);
		return false;
	}
	*(bool *)field_of(config, flag) = on;
	return true;
}

/* Sets a PATH or CONFIG. */
static bool set_path(struct config *config, const struct flag *flag, const char *text, const char *where,
		     struct findings *findings)
{
	char **field = field_of(config, flag);

	if (text[0] == '\0') {
		findings_add(findings, "%s: the path is empty", where);
		return false;
	}
	free(*field);
	*field = copy_text(text);
	return true;
}

bool config_set(struct config *config, const struct flag *flag, const char *text, const char *where,
		struct findings *findings)
{
	switch (flag->type) {
	case FLAG_TYPE_PATH:
	case FLAG_TYPE_CONFIG:
		return set_path(config, flag, text, where, findings);
	case FLAG_TYPE_ADDRESSES:
		return add_address(config, text, where, findings);
	case FLAG_TYPE_LEVEL:
		return set_level(config, flag, text, where, findings);
	case FLAG_TYPE_SWITCH:
	case FLAG_TYPE_ACTION:
		return set_switch(config, flag, text, where, findings);
	default:
		return set_scalar(config, flag, text, where, findings);
	}
}

/* Sets everything that has a default to it. */
static void set_defaults(struct config *config)
{
	struct findings none = {0};

	for (size_t i = 0; i < FLAG_COUNT; i++) {
		if (config_flags[i].fallback != NULL)
			config_set(config, &config_flags[i], config_flags[i].fallback, config_flags[i].name, &none);
	}
	CHECK(none.count == 0);
}

/* ---- The command line ---- */

/* Finds the flag that an argument names ("--name" or "--name=value"); NULL and a finding when there is none. */
static const struct flag *argument_flag(const char *argument, struct findings *findings)
{
	char name[64];
	size_t length = strcspn(argument, "=");

	if (strncmp(argument, "--", 2) != 0 || length == 2) {
		findings_add(findings, "\"%s\": not a flag; flags begin with --, and there are no other arguments",
			     argument);
		return NULL;
	}
	snprintf(name, sizeof(name), "%.*s", (int)(length - 2), argument + 2);
	const struct flag *flag = config_flag(name);
	if (flag == NULL) {
		const char *near = config_flag_nearest(name);
		findings_add(findings, "--%s: there is no such flag%s%s%s", name,
			     near == NULL ? "" : ", did you mean --", near == NULL ? "" : near,
			     near == NULL ? "" : "?");
	}
	return flag;
}

/* Whether the flag may stand without a value. */
static bool is_switch(const struct flag *flag)
{
	return flag->type == FLAG_TYPE_SWITCH || flag->type == FLAG_TYPE_ACTION;
}

/* Reads one flag at argv[at]; returns how many arguments it took. */
static int read_argument(struct config *config, int argc, char **argv, int at, struct findings *findings)
{
	char where[80];
	const struct flag *flag = argument_flag(argv[at], findings);
	const char *equals = strchr(argv[at], '=');
	bool separate = false;

	if (flag == NULL) /* skip what looks like its value */
		return equals == NULL && at + 1 < argc && strncmp(argv[at + 1], "--", 2) != 0 ? 2 : 1;
	snprintf(where, sizeof(where), "--%s", flag->name);
	const char *text = equals != NULL ? equals + 1 : is_switch(flag) ? "true" : NULL;
	if (text == NULL) {
		if (at + 1 == argc || strncmp(argv[at + 1], "--", 2) == 0) {
			findings_add(findings, "%s: needs a value: %s", where, flag->place);
			return 1;
		}
		text = argv[at + 1];
		separate = true;
	}
	config_set(config, flag, text, where, findings);
	config->origin[flag - config_flags].from = FROM_COMMAND_LINE;
	return separate ? 2 : 1;
}

void config_read(struct config *config, int argc, char **argv, struct findings *findings)
{
	*config = (struct config){0};
	set_defaults(config);
	for (int at = 1; at < argc;)
		at += read_argument(config, argc, argv, at, findings);
	if (config->config_file != NULL)
		config_file_read(config, config->config_file, findings);
	if (!config->help && !config->version)
		config_check(config, findings);
}

/* Prints findings as text, or as the JSON object that --check --json promises. */
static void print_findings(const struct config *config, const struct findings *findings)
{
	findings_print(findings, "bridged: ", stderr);
	fprintf(stderr, "bridged: nothing was started; `bridged --help` explains all flags\n");
	if (config->check && config->json)
		config_print_findings_json(findings, stdout);
}

int config_parse(struct config *config, int argc, char **argv, bool *check_only)
{
	struct findings findings = {0};
	int code = -1;

	config_read(config, argc, argv, &findings);
	*check_only = config->check;
	if (config->help) {
		config_print_help(stdout);
		code = 0;
	} else if (config->version) {
		printf("bridged %s\n", BRIDGE_VERSION);
		code = 0;
	} else if (findings.count > 0) {
		print_findings(config, &findings);
		code = 2;
	}
	findings_deinit(&findings);
	return code;
}

void config_deinit(struct config *config)
{
	for (size_t i = 0; i < FLAG_COUNT; i++) {
		if (config_flags[i].type == FLAG_TYPE_PATH || config_flags[i].type == FLAG_TYPE_CONFIG)
			free(*(char **)field_of(config, &config_flags[i]));
	}
	for (uint32_t i = 0; i < config->listen_count; i++)
		free(config->listen[i]);
	*config = (struct config){0};
}
