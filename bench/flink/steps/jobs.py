"""The jobs as Python steps, written as those for PyFlink are."""

import json
from collections.abc import Iterator

from flink_bridge import Codec, Context, Message, Step

TOTALS: Codec[tuple[int, int]] = Codec(
    lambda totals: b"%d %d" % totals,
    lambda data: tuple(map(int, data.split())),  # type: ignore[arg-type,return-value]
)


def doubled(message: Message) -> str | None:
    """Parses, drops every record whose value is a multiple of ten, adds a field, prints."""
    record = json.loads(message.payload)
    value = record["value"]
    if value % 10 == 0:
        return None
    record["doubled"] = value * 2
    return json.dumps(record, separators=(",", ":"))


class Totals(Step):
    """Counts and sums for each user, and emits both with every record."""

    def open(self, context: Context) -> None:
        self.totals = context.state.value("totals", TOTALS)

    def process(self, message: Message) -> Iterator[str]:
        count, total = self.totals.get((0, 0))
        count, total = count + 1, total + json.loads(message.payload)["value"]
        self.totals.set((count, total))
        assert message.key is not None
        yield json.dumps({"key": message.key.decode(), "count": count, "sum": total}, separators=(",", ":"))
