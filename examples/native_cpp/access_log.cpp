/*
 * access_log: lines of a web server's log become JSON objects. A step in C++ without state.
 *
 *      127.0.0.1 - ada [10/Oct/2026:13:55:36 +0000] "GET /cart HTTP/1.1" 200 2326
 *   -> {"client":"127.0.0.1","user":"ada","method":"GET","path":"/cart","status":200,"bytes":2326}
 *
 * A line that is none fails with a kind of failure of its own, so that its dead letter can be told from others. The option `skip`
 * names a path whose requests are left out (health checks).
 *
 * No exception may leave a function of the table: what can throw is caught in `guarded`.
 */
#include <bridge_step.h>

#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>

namespace
{

/* A line in its parts. */
struct Request {
	std::string_view client, user, method, path, status, bytes;
};

/* Why a line is none; thrown. */
struct ParseError {
	const char *what;
};

/* One step for one subtask. */
class AccessLog
{
      public:
	AccessLog(const bridge_host *host, bridge_context *context, const bridge_setup *setup)
	    : host_(host), context_(context), requests_(host->metric(context, "requests", BRIDGE_COUNTER))
	{
		if (const char *skip = bridge_option_of(setup->options, setup->option_count, "skip"))
			skip_ = skip;
	}

	int process(const bridge_run *run)
	{
		for (uint32_t i = 0; i < run->count; i++) {
			const bridge_bytes &payload = bridge_run_record(run, i)->payload;
			std::string_view line(reinterpret_cast<const char *>(payload.data), payload.size);
			try {
				Request request = parse(line);
				if (!skip_.empty() && request.path == skip_)
					continue;
				write(request);
			} catch (const ParseError &error) {
				return refuse(i, error.what);
			}
			if (bridge_emit(host_, context_, i, text_.data(), text_.size()) != BRIDGE_OK)
				return BRIDGE_FAILED;
			host_->metric_update(requests_, 1);
		}
		return BRIDGE_OK;
	}

      private:
	/* Takes text off the front of a line, up to a mark, which goes, too. */
	static std::string_view take(std::string_view &line, const char *mark, const char *what)
	{
		size_t at = line.find(mark);

		if (at == std::string_view::npos)
			throw ParseError{what};
		std::string_view part = line.substr(0, at);
		line.remove_prefix(at + std::strlen(mark));
		return part;
	}

	/* A number as JSON has it, or what stands for none. */
	static std::string_view number(std::string_view text, const char *what)
	{
		if (text == "-")
			return "null";
		if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos)
			throw ParseError{what};
		return text;
	}

	static Request parse(std::string_view line)
	{
		Request request;

		request.client = take(line, " - ", "no client");
		request.user = take(line, " [", "no user");
		take(line, "] \"", "no time");
		request.method = take(line, " ", "no method");
		request.path = take(line, " ", "no path");
		take(line, "\" ", "no end of the request");
		request.status = number(take(line, " ", "no status"), "the status is no number");
		request.bytes = number(line, "the size is no number");
		return request;
	}

	/* Appends a member with a string. */
	void put(const char *name, std::string_view value)
	{
		static const char hex[] = "0123456789abcdef";

		text_.append(text_.size() > 1 ? ",\"" : "\"").append(name).append("\":\"");
		for (char c : value) {
			auto byte = static_cast<unsigned char>(c);
			if (c == '"' || c == '\\')
				text_.append(1, '\\').append(1, c);
			else if (byte < 0x20)
				text_.append("\\u00").append(1, hex[byte >> 4]).append(1, hex[byte & 15]);
			else
				text_.append(1, c);
		}
		text_.append(1, '"');
	}

	void write(const Request &request)
	{
		text_ = "{";
		put("client", request.client);
		if (request.user != "-")
			put("user", request.user);
		put("method", request.method);
		put("path", request.path);
		text_.append(",\"status\":")
		    .append(request.status)
		    .append(",\"bytes\":")
		    .append(request.bytes)
		    .append("}");
	}

	int refuse(uint32_t record, const char *what)
	{
		bridge_failure failure{};

		failure.size = sizeof(failure);
		failure.record = record;
		failure.kind = bridge_text("ParseError");
		failure.message = bridge_text(what);
		return host_->fail(context_, &failure);
	}

	const bridge_host *host_;
	bridge_context *context_;
	bridge_metric *requests_;
	std::string skip_, text_;
};

int open_step(const bridge_host *host, bridge_context *context, const bridge_setup *setup, void *, void **self)
{
	try {
		*self = new AccessLog(host, context, setup);
		return BRIDGE_OK;
	} catch (const std::exception &error) {
		return bridge_fail(host, context, BRIDGE_NO_RECORD, error.what());
	}
}

void close_step(void *self)
{
	delete static_cast<AccessLog *>(self);
}

/* Anything else that is thrown (no memory) fails the run. */
int process(void *self, const bridge_run *run)
{
	try {
		return static_cast<AccessLog *>(self)->process(run);
	} catch (const std::exception &) {
		return BRIDGE_FAILED;
	}
}

} // namespace

extern "C" const struct bridge_step_library *bridge_step_library(void)
{
	static const struct bridge_step_library library = {
	    BRIDGE_STEP_ABI, sizeof(library), nullptr, nullptr, open_step,
	    close_step,      process,         nullptr, nullptr, nullptr,
	};
	return &library;
}
