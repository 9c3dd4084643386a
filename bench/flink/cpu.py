"""Who has how much of the processors while a job runs: threads of the JVM by what they are for, processes of the sidecar by their role.

A rate says little on a machine that others use, too; what a record costs in processor time says more."""

import bisect
import collections
import os
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
# Between two looks, in seconds: each takes some milliseconds of the processors that are measured.
EVERY = 0.25


def role(name: str) -> str:
    """What a thread is for."""
    return next((role for begin, role in NAMES.items() if name.startswith(begin)), "other")


def stat(path: str) -> tuple[str, list[bytes]]:
    """The name in a stat file of /proc, and what stands behind it; nothing of what has ended."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return "", []
    try:
        head, _, tail = os.read(file, 1024).rpartition(b")")
    except OSError:
        return "", []
    finally:
        os.close(file)
    return head.partition(b"(")[2].decode(errors="replace"), tail.split()


def listed(path: str) -> list[str]:
    """The numbers in a folder of /proc, none if it is gone."""
    try:
        return [name for name in os.listdir(path) if name.isdecimal()]
    except OSError:
        return []


def session(leader: int) -> list[int]:
    """The processes of a session: what its leader has started, and whatever those have."""
    found = []
    for name in listed("/proc"):
        _, words = stat(f"/proc/{name}/stat")
        if words and int(words[3]) == leader:
            found.append(int(name))
    return found


def times(pids: list[int]) -> Times:
    """Processor time so far of all threads of these processes, with their roles."""
    found: Times = {}
    for pid in pids:
        for task in listed(f"/proc/{pid}/task"):
            name, words = stat(f"/proc/{pid}/task/{task}/stat")
            if words:
                found[pid, int(task)] = (role(name), (int(words[11]) + int(words[12])) * TICK)
    return found


class Sampler:
    """Looks at processes now and then while it is entered."""

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
        while not self._ended.wait(EVERY):
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
