"""Who has how much of the processors while a job runs: threads of the JVM by what they are for, processes of the sidecar by their role.

A rate says little on a machine that others use, too; what a record costs in processor time says more."""

import bisect
import collections
import pathlib
import threading
import time
from collections.abc import Callable

TICK = 0.01  # of /proc, in seconds
# By the beginning of a thread's name, of which the kernel keeps 15 characters.
NAMES = {
    "bridged-front": "front",
    "bridged-w": "worker",
    "bridged-h": "heir",
    "bridged": "supervisor",
    "Source Data Fet": "reader",
    "Source: ": "task",
    "doubled": "task",
    "identity": "task",
    "totals": "task",
    "_stream_key": "task",
    "KEYED": "task",
    "grpc": "grpc",
    "C1 Comp": "compiler",
    "C2 Comp": "compiler",
    "GC ": "collector",
    "G1 ": "collector",
    "VM ": "collector",
    "python": "python",
}

Times = dict[tuple[int, int], tuple[str, float]]


def role(name: str) -> str:
    """What a thread is for."""
    return next((role for begin, role in NAMES.items() if name.startswith(begin)), "other")


def times(pids: list[int]) -> Times:
    """Processor time so far of all threads of these processes, with their roles."""
    found: Times = {}
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
            try:
                head, _, tail = (task / "stat").read_text().rpartition(")")
            except OSError:
                continue
            words = tail.split()
            found[pid, int(task.name)] = (role(head.partition("(")[2]), (int(words[11]) + int(words[12])) * TICK)
    return found


class Sampler:
    """Looks at processes every 50 ms while it is entered."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids = pids
        self._when: list[float] = []
        self._totals: list[dict[str, float]] = []
        self._last: Times = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self._last |= times(self._pids())  # the time of threads that have ended stays
            total: dict[str, float] = collections.defaultdict(float)
            for name, seconds in self._last.values():
                total[name] += seconds
            self._when.append(time.monotonic())
            self._totals.append(total)

    def _at(self, when: float) -> dict[str, float]:
        at = min(max(bisect.bisect_left(self._when, when), 1), len(self._when) - 1)
        (t0, t1), (low, high) = self._when[at - 1 : at + 1], self._totals[at - 1 : at + 1]
        share = (when - t0) / (t1 - t0)
        return {name: low.get(name, 0) + share * (high[name] - low.get(name, 0)) for name in high}

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Seconds of processor time by role between two times of the monotonic clock."""
        if len(self._when) < 2:
            return {}
        before, after = self._at(begin), self._at(end)
        spent = {name: after[name] - before.get(name, 0) for name in after}
        return {name: seconds for name, seconds in spent.items() if seconds > 0}
