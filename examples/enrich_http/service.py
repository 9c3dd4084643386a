"""A service that knows customers: GET /customers/ID answers 200 with JSON, or 404. For trying the example out, and for its tests.

    python3 service.py [PORT]      prints CUSTOMERS_URL=http://127.0.0.1:PORT once it serves; without a PORT it takes a free one

As services do, it has bad moments: /customers/busy is answered with 503 the first time, /customers/broken with 500 each time.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CUSTOMERS = {"ada": {"name": "Ada", "tier": "gold"}, "bob": {"name": "Bob", "tier": "basic"}, "busy": {"name": "Busy", "tier": "basic"}}
asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """One connection; it stays open for further questions."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        customer = self.path.removeprefix("/customers/")
        asked.append(customer)
        if customer == "broken":
            self.answer(500, {"error": "a defect"})
        elif customer == "busy" and asked.count("busy") == 1:
            self.answer(503, {"error": "try again"})
        elif customer in CUSTOMERS:
            self.answer(200, CUSTOMERS[customer])
        else:
            self.answer(404, {"error": f"no customer {customer}"})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
    server.daemon_threads = True
    print(f"CUSTOMERS_URL=http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
