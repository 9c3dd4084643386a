/* What is wrong with a configuration (findings.h). */
#include "server/findings.h"

#include <stdarg.h>
#include <stdlib.h>

#include "shared/json.h"
#include "shared/log.h"

void findings_add(struct findings *findings, const char *format, ...)
{
	va_list arguments;

	if (findings->count == FINDINGS_MAX) {
		findings->dropped++;
		return;
	}
	va_start(arguments, format);
	int length = vasprintf(&findings->text[findings->count], format, arguments);
	va_end(arguments);
	if (length < 0)
		fatal("no memory for a message");
	findings->count++;
}

void findings_print(const struct findings *findings, const char *prefix, FILE *out)
{
	for (size_t i = 0; i < findings->count; i++)
		fprintf(out, "%s%s\n", prefix, findings->text[i]);
	if (findings->dropped > 0)
		fprintf(out, "%sand %zu more of the kind\n", prefix, findings->dropped);
}

void findings_json(const struct findings *findings, const char *key, struct json *json)
{
	json_open_array(json, key);
	for (size_t i = 0; i < findings->count; i++)
		json_text(json, NULL, findings->text[i]);
	json_close_array(json);
}

void findings_deinit(struct findings *findings)
{
	for (size_t i = 0; i < findings->count; i++)
		free(findings->text[i]);
	*findings = (struct findings){0};
}
