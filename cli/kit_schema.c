/*
 * The JSON Schema of files of test cases (kit_schema.h). It says what kit_case.c reads, in the words of docs/testing.md; tests hold the two
 * against each other, on files that are fine and on files that are not.
 */
#include "cli/kit_schema.h"

/* JSON in C reads best as it is laid out here. */
/* clang-format off */
#define NOTE(text) ",\"description\":\"" text "\"}"
#define TIME_FROM(least) "{\"anyOf\":[{\"type\":\"integer\",\"maximum\":9007199254740992" least "}," /* KIT_TIME_MAX */ \
	"{\"type\":\"string\",\"pattern\":\"^[0-9]+(ms|s|min|h)?$\"}]"
#define TIME TIME_FROM("")
#define TEXT "{\"type\":\"string\"}"
#define SCALAR "{\"type\":[\"string\",\"number\",\"boolean\",\"null\"]}"
#define NAMED "{\"type\":\"object\",\"additionalProperties\":" SCALAR "}"
#define PATH_OR_MAP "{\"type\":[\"string\",\"object\"]"
#define PARALLELISM "{\"type\":\"integer\",\"minimum\":1,\"maximum\":63"
#define ONLY "\"type\":\"object\",\"additionalProperties\":false"
#define REFER(to) "{\"$ref\":\"#/definitions/" to "\"}"

/* What may be said of a record, in and out. */
#define BESIDE_PAYLOAD "\"key\":" SCALAR ",\"timestamp\":" TIME NOTE("Event time.") ",\"headers\":" NAMED
#define RECORD \
	"\"json\":{\"description\":\"The payload, as a JSON value.\"}," \
	"\"text\":" SCALAR "," \
	"\"base64\":" TEXT "," \
	BESIDE_PAYLOAD

/* What stands at the top of a file, or in a case for that alone. */
#define SHARED \
	"\"pipeline\":" PATH_OR_MAP NOTE("The pipeline's path, or the pipeline itself.") "," \
	"\"config\":" PATH_OR_MAP NOTE("A deployment's values over it: a path, or what stands there.") "," \
	"\"environment\":" NAMED "," \
	"\"services\":{\"type\":\"object\",\"additionalProperties\":" \
		"{\"type\":\"array\",\"minItems\":1,\"maxItems\":64,\"items\":" SCALAR "}" \
		NOTE("Programs that the steps talk to, started for each case.") "," \
	"\"segment\":{\"type\":\"string\"" NOTE("Run this segment alone.") "," \
	"\"parallelism\":" PARALLELISM NOTE("How many subtasks every segment has; 1 unless given.") "," \
	"\"start\":" TIME NOTE("Processing time at the beginning.") "," \
	"\"watermarks\":{\"enum\":[\"case\",\"source\"]" NOTE("Who sends watermarks; the case unless given.")

/* One kind of event: its own key, and what may stand beside it. */
#define EVENT(key, value, beside) "{\"required\":[\"" key "\"]," ONLY ",\"properties\":{\"" key "\":" value beside "}}"
#define SOURCE ",\"source\":" TEXT
#define BESIDE_RECORD "," BESIDE_PAYLOAD SOURCE

static const char schema[] =
	"{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"title\":\"Flink Bridge test cases\","
	"\"required\":[\"cases\"]," ONLY ",\"properties\":{" SHARED ","
		"\"cases\":{\"type\":\"array\",\"minItems\":1,\"items\":" REFER("case") "}},"
	"\"definitions\":{"
	"\"record\":{" ONLY ",\"properties\":{" RECORD "}},"
	"\"records\":{\"type\":\"array\",\"items\":" REFER("record") "},"
	"\"outputs\":{" ONLY ",\"required\":[\"records\"],\"properties\":{"
		"\"order\":{\"enum\":[\"in_order\",\"by_key\",\"any\"]},\"records\":" REFER("records") "}},"
	"\"expect\":{\"type\":[\"object\",\"null\"],"
		"\"additionalProperties\":{\"anyOf\":[" REFER("records") "," REFER("outputs") "]}"
		NOTE("What has come out, by sink.") ","
	"\"event\":{\"anyOf\":["
		"{\"const\":\"end\"" NOTE("All sources end.") ","
		EVENT("json", "{\"description\":\"A record comes in: a JSON value.\"}", BESIDE_RECORD) ","
		EVENT("text", SCALAR, BESIDE_RECORD) ","
		EVENT("base64", TEXT, BESIDE_RECORD) ","
		EVENT("batch", REFER("records"), SOURCE) ","
		EVENT("lines", "{\"type\":\"string\"" NOTE("Each line of a file comes in."), SOURCE) ","
		EVENT("watermark", TIME NOTE("Event time has reached this."), SOURCE) ","
		EVENT("idle", "{\"type\":\"boolean\"" NOTE("The source went idle, or came back."), SOURCE) ","
		EVENT("advance", TIME_FROM(",\"minimum\":0") NOTE("Processing time goes on by this."), "") ","
		EVENT("restart", "{\"enum\":[\"worker\",\"job\"]}", ",\"parallelism\":" PARALLELISM "}") ","
		EVENT("expect", REFER("expect"), "") ","
		EVENT("end", "{\"const\":true}", "") "]},"
	"\"failure\":{\"anyOf\":[{\"const\":true},{\"type\":\"string\"},"
		"{" ONLY ",\"properties\":{\"step\":" TEXT ",\"message\":" TEXT "}}]},"
	"\"case\":{\"required\":[\"name\",\"events\"]," ONLY ",\"properties\":{"
		"\"name\":" TEXT ",\"events\":{\"type\":\"array\",\"items\":" REFER("event") "},"
		"\"expect\":" REFER("expect") ",\"fails\":" REFER("failure") "," SHARED "}}}}\n";
/* clang-format on */

void kit_schema_print(FILE *out)
{
	fputs(schema, out);
}
