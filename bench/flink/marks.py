"""What MarkSink wrote: how many records had come by when."""

import bisect
import dataclasses
import pathlib

# The part of a run that counts: by then everything flows, and no subtask is without work yet.
BEGIN, END = 0.3, 0.95


@dataclasses.dataclass
class Marks:
    """One run."""

    count: int
    bytes: int
    curve: list[tuple[float, int]]  # seconds, records by then
    late: list[tuple[float, int]]  # milliseconds, records that took so long

    def when(self, share: float) -> float:
        """When this share of all records had come."""
        wanted = share * self.count
        at = bisect.bisect_left([count for _, count in self.curve], wanted)
        at = min(max(at, 1), len(self.curve) - 1)
        (t0, n0), (t1, n1) = self.curve[at - 1], self.curve[at]
        return t0 if n1 == n0 else t0 + (t1 - t0) * (wanted - n0) / (n1 - n0)

    def percentile(self, share: float) -> float:
        """What this share of the records took at most, in ms."""
        wanted = share * sum(count for _, count in self.late)
        seen = 0
        for took, count in self.late:
            seen += count
            if seen >= wanted:
                return took
        raise ValueError("no record has a time of birth")


def read(path: pathlib.Path, subtasks: int) -> Marks:
    """All subtasks' marks of a run; the files are removed."""
    steps: list[tuple[int, int]] = []
    late: dict[int, int] = {}
    count = size = 0
    for subtask in range(subtasks):
        file = path.with_name(f"{path.name}.{subtask}")
        lines = file.read_text().splitlines()
        file.unlink()
        mine, bytes_ = map(int, lines[0].split())
        count, size = count + mine, size + bytes_
        before = 0
        for line in lines[1:]:
            if line.startswith("late"):
                _, bin_, records = line.split()
                late[int(bin_)] = late.get(int(bin_), 0) + int(records)
            else:
                time, seen = map(int, line.split())
                steps.append((time, seen - before))
                before = seen
    steps.sort()
    curve, total = [], 0
    for time, more in steps:
        total += more
        curve.append((time / 1e9, total))
    return Marks(count, size, curve, [(bin_ / 100, records) for bin_, records in sorted(late.items())])
