"""How often each word has come: a function that makes words of lines, and a class that counts them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flink_bridge import INT, Context, Message, Step, flat_map

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


@flat_map
def split(message: Message) -> Iterator[dict[str, str]]:
    """The words of a line, in small letters."""
    for word in WORD.findall(message.text()):
        yield {"word": word.lower()}


class Count(Step):
    """Counts the messages of each key. `options: { least: N }`: says nothing of words that have come less often."""

    def open(self, context: Context) -> None:
        self.seen = context.state.value("seen", INT)
        self.least = int(context.options.get("least", "1"))

    def process(self, message: Message) -> dict[str, Any] | None:
        seen: int = self.seen.get(0) + 1
        self.seen.set(seen)
        if seen < self.least:
            return None
        return {"word": message.json()["word"], "count": seen}
