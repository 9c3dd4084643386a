"""Orders get what a service outside knows of their customer: an `async def` step, so that many questions are under way at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlsplit

from flink_bridge import Context, Message, Step, Transient, asynchronous


class Enrich(Step):
    """Adds `name` and `tier` of the customer to an order; an unknown customer's are null. `options: { url: BASE }`.

    Connections are kept and used again. A busy service (503, no connection, no answer in time) is asked again, three times, and then the
    step fails on that order alone.
    """

    async def open(self, context: Context) -> None:
        base = urlsplit(context.options["url"])
        self.host, self.port, self.path = base.hostname, base.port or 80, base.path.rstrip("/")
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @asynchronous(capacity=50, ordered=True, timeout=2.0, retries=2, backoff=0.05)
    async def process(self, message: Message) -> dict[str, Any]:
        order = message.json()
        customer = await self.ask(order["customer"])
        return {**order, "name": customer.get("name"), "tier": customer.get("tier")}

    async def ask(self, customer: str) -> dict[str, Any]:
        """What the service knows of a customer; {} when it knows nothing."""
        status, body = await self.get(f"{self.path}/customers/{quote(customer, safe='')}")
        if status == 404:
            return {}
        if status >= 500:
            raise Transient(f"the service answers {status}")
        if status != 200:
            raise ValueError(f"the service answers {status}")
        found: dict[str, Any] = json.loads(body)
        return found

    async def get(self, path: str) -> tuple[int, bytes]:
        """One HTTP request over a connection that nobody uses. An error, or a time-out, costs the connection."""
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAccept: application/json\r\n\r\n".encode())
            status = int((await reader.readline()).split()[1])
            length = 0
            while line := (await reader.readline()).strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            body = await reader.readexactly(length)
        except IndexError:
            writer.close()
            raise ConnectionError("the service closed the connection") from None
        except BaseException:
            writer.close()
            raise
        self.free.append((reader, writer))
        return status, body

    async def close(self) -> None:
        for _, writer in self.free:
            writer.close()
