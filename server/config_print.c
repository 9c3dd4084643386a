/* The configuration in words: help, values, findings as JSON (config.h). */
#include <inttypes.h>
#include <string.h>

#include "server/config_check.h"
#include "shared/json.h"
#include "shared/units.h"

/* Prints help text wrapped to the width of a terminal, indented. */
static void print_wrapped(FILE *out, const char *text, int indent, int width)
{
	int column = 0;

	while (*text != '\0') {
		int length = (int)strcspn(text, " ");
		if (column == 0 || column + 1 + length > width) {
			fprintf(out, "%s%*s", column == 0 ? "" : "\n", indent, "");
			column = length;
		} else {
			putc(' ', out);
			column += length + 1;
		}
		fwrite(text, 1, (size_t)length, out);
		text += length;
		text += strspn(text, " ");
	}
	putc('\n', out);
}

/* Prints one flag of --help. */
static void print_flag(FILE *out, const struct flag *flag)
{
	bool shown = flag->fallback != NULL && flag->type != FLAG_TYPE_SWITCH && flag->type != FLAG_TYPE_ACTION;

	fprintf(out, "  --%s%s%s", flag->name, flag->place[0] == '\0' ? "" : " ", flag->place);
	if (shown)
		fprintf(out, "  (default %s)", flag->fallback);
	putc('\n', out);
	print_wrapped(out, flag->help, 8, 88);
}

void config_print_help(FILE *out)
{
	const struct flag *flag = config_flags;

	fputs(
	    "Serves a compiled pipeline to Flink: takes records over gRPC, runs them through the pipeline's steps in "
	    "one\n"
	    "worker process per task slot, and answers.\n"
	    "\n"
	    "Usage: bridged --descriptor FILE --slots N --listen ADDR [--listen ADDR] [--stats PATH] [--config FILE]\n",
	    out);
#define FLAG_GROUP(title) fprintf(out, "\n%s\n", title);
#define FLAG(name, type, field, low, high, fallback, place, help) print_flag(out, flag++);
#include "server/flags.def"
	fputs("\n"
	      "Sizes take KiB, MiB and GiB, times us, ms, s, min and h. Exit codes: 0 fine, 1 failed, 2 misused.\n"
	      "\n"
	      "Examples\n"
	      "  Beside a TaskManager with four slots, on a Unix socket that both containers mount:\n"
	      "    bridged --descriptor descriptor.yaml --slots 4 --listen unix:/run/bridge/front.sock \\\n"
	      "            --stats /run/bridge/stats.sock\n"
	      "  For a client on TCP, this machine only:\n"
	      "    bridged --descriptor descriptor.yaml --slots 1 --listen :5051\n"
	      "  Would it start, and what memory may it come to need?\n"
	      "    bridged --config config.yaml --descriptor descriptor.yaml --check\n"
	      "  What is it doing?\n"
	      "    echo health | socat - UNIX-CONNECT:/run/bridge/stats.sock\n",
	      out);
}

/* Prints all addresses, separated by commas. */
static void print_addresses(const struct config *config, FILE *out)
{
	for (uint32_t i = 0; i < config->listen_count; i++)
		fprintf(out, "%s%s", i == 0 ? "" : ", ", config->listen[i]);
}

/* Prints a number in the unit in which people write it. */
static void print_scalar(const struct flag *flag, const void *field, FILE *out)
{
	char text[UNITS_TEXT_MAX];
	uint64_t value = flag->type == FLAG_TYPE_COUNT ? *(const uint32_t *)field : *(const uint64_t *)field;

	if (flag->type == FLAG_TYPE_COUNT)
		fprintf(out, "%" PRIu64, value);
	else if (flag->type == FLAG_TYPE_SIZE)
		fputs(flag->offset == offsetof(struct config, memory_limit) && value == 0 ? "auto"
											  : size_exact(text, value),
		      out);
	else
		fputs(duration_exact(text, flag->type == FLAG_TYPE_MILLIS ? value * 1000 : value), out);
}

void config_print_value(const struct config *config, const struct flag *flag, FILE *out)
{
	static const char *const levels[] = {"debug", "info", "warn", "error"};
	const void *field = (const char *)config + flag->offset;

	switch (flag->type) {
	case FLAG_TYPE_PATH:
	case FLAG_TYPE_CONFIG:
		fputs(*(char *const *)field == NULL ? "" : *(char *const *)field, out);
		break;
	case FLAG_TYPE_ADDRESSES:
		print_addresses(config, out);
		break;
	case FLAG_TYPE_LEVEL:
		fputs(levels[*(const enum log_level *)field], out);
		break;
	case FLAG_TYPE_SWITCH:
	case FLAG_TYPE_ACTION:
		fputs(*(const bool *)field ? "true" : "false", out);
		break;
	default:
		print_scalar(flag, field, out);
	}
}

void config_print_origin(const struct config *config, const struct flag *flag, FILE *out)
{
	size_t i = (size_t)(flag - config_flags);

	if (config->origin[i].from == FROM_COMMAND_LINE)
		fputs("command line", out);
	else if (config->origin[i].from == FROM_FILE)
		fprintf(out, "%s:%zu", config->config_file, config->origin[i].line);
	else
		fputs(flag->fallback != NULL && strcmp(flag->fallback, "auto") == 0 ? "auto" : "default", out);
}

void config_print_findings_json(const struct findings *findings, FILE *out)
{
	struct json json;

	json_init(&json, out);
	json_open_object(&json, NULL);
	json_bool(&json, "ok", false);
	findings_json(findings, "findings", &json);
	json_close_object(&json);
	putc('\n', out);
}
