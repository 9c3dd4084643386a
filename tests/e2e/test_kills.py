"""A worker process is disposable: kills from outside at any moment change nothing of what sessions answer and remember.

A fixed input goes through pipelines with state, timers, batches and records that become none or thousands, several messages in flight,
three sessions in one slot and one in another, unary calls beside them. First nobody is killed. Then the same input comes again and again,
while owners, heirs and both are killed at random, or new code is loaded as fast as it can be: every answer, seq by seq, and the state
at every barrier must be what it was.

The dice are seeded, so that a failure can be tried again (KILLS_SEED); where in the input a kill hits is up to the scheduler.
"""

import contextlib
import os
import random
import signal
import threading

import grpc
import pytest
from conftest import PATIENCE, SANITIZED, find_key, wait_until
from lives import CALL, PIPELINE, Lives

SEED = int(os.environ.get("KILLS_SEED", "20240229"))
FLAGS = ["--session-ring", "256KiB", "--message-max", "65472"]


class Killer:
    """Kills so many processes, of all slots, each slot as soon as it is whole again."""

    def __init__(self, sidecar, heirs, limit, seed=SEED):
        self.sidecar = sidecar
        self.heirs = heirs
        self.limit = limit
        self.dice = random.Random(seed)
        self.kills = dict.fromkeys(["owner", "heir", "both", "stopped owner"], 0)
        self.busy = 0  # slots that were at work when last looked at before a blow
        self.stop = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run)

    @property
    def count(self):
        """Processes killed so far."""
        return sum(self.kills.values()) + self.kills["both"]

    @property
    def done(self):
        return self.count >= self.limit

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        assert self.failure is None, self.failure

    def run(self):
        try:
            while not self.stop.is_set() and not self.done:
                for slot in self.sidecar.stats_json("slots")["slots"]:
                    if slot["state"] == "ready" and slot["heirs"] >= self.heirs:
                        self.kill_in(slot)
                self.stop.wait(0.001)
        except Exception as failure:
            self.failure = failure

    def kill_in(self, slot):
        """One blow, at any moment of the next milliseconds."""
        manner = self.dice.choices(list(self.kills), [6, 2, 2, 1] if self.heirs else [6, 0, 0, 1])[0]
        self.busy += slot["segment"] is not None
        self.stop.wait(self.dice.uniform(0, 0.003))
        pids = {"heir": [slot["heir_pid"]], "both": [slot["pid"], slot["heir_pid"]]}.get(manner, [slot["pid"]])
        if self.dice.random() < 0.5:
            pids.reverse()
        with contextlib.suppress(ProcessLookupError):
            if manner == "stopped owner":
                os.kill(pids[0], signal.SIGSTOP)
                self.stop.wait(self.dice.uniform(0, 0.003))
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            self.kills[manner] += 1


@contextlib.contextmanager
def calls(sidecar, client):
    """Unary calls all the while; each must be answered as if nothing happened."""
    stop, answers, failures = threading.Event(), [0], []

    def run():
        one = client(sidecar.unix, metadata=[("bridge-slot", "0")])
        try:
            while not stop.is_set():
                assert one.process(CALL, b"call %d" % answers[0])[0].payload == b"CALL %d" % answers[0]
                answers[0] += 1
        except Exception as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures, failures
    assert answers[0] > 0


def nobody_was_blamed(sidecar):
    """What the supervisor must say about kills from outside."""
    assert "(pid 0)" not in sidecar.log(), "somebody who had ended was to be ended"
    counters = sidecar.stats_json("stats")["supervisor"]
    assert counters["deaths_blamed"] == 0 and counters["memories_renewed"] == 0 and counters["watchdog_kills"] == 0, counters
    return counters


@pytest.mark.timeout(PATIENCE * 10)
@pytest.mark.parametrize("heirs, kills", [(1, 900), (0, 120)])
def test_kills_change_nothing(bridged, client, heirs, kills):
    sidecar = bridged(PIPELINE, slots=2, flags=[*FLAGS, "--heirs", heirs, "--restart-delay", "1ms", "--restart-delay-max", "20ms"])
    lives = Lives(sidecar, client(sidecar.unix))
    lives.live()
    with calls(sidecar, client), Killer(sidecar, heirs, kills // 10 if SANITIZED else kills) as killer:
        while not killer.done:
            lives.live()
    print(f"{killer.kills}, {killer.busy} of them at work; {lives.count} lives")
    assert nobody_was_blamed(sidecar)["takeovers"] > 0
    wait_until(lambda: sidecar.stats_json("health")["healthy"], lambda: sidecar.stats("health"))


class Reloader:
    """Reloads a sidecar time and again: 50 ms after the last was begun, or once it is done."""

    def __init__(self, sidecar, limit):
        self.sidecar, self.limit = sidecar, limit
        self.count = 0
        self.stop = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run)

    @property
    def done(self):
        return self.count >= self.limit

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        assert self.failure is None, self.failure

    def run(self):
        try:
            while not self.stop.is_set() and not self.done:
                self.sidecar.stats("reload")
                self.stop.wait(0.05)
                wait_until(self.is_over, lambda: self.sidecar.stats("reloading"), PATIENCE * 3)
                self.count += 1
        except BaseException as failure:
            self.failure = failure

    def is_over(self):
        """Whether the reload has come to its end, which must be a good one."""
        reload = self.sidecar.stats_json("reloading")
        assert find_key(reload, "state") != "failed", reload
        return find_key(reload, "state") == "done"


@pytest.mark.timeout(PATIENCE * 10)
@pytest.mark.parametrize("heirs, reloads", [(1, 25), (0, 8)])
def test_reloads_change_nothing(bridged, client, heirs, reloads):
    """New code again and again, under load: frames in flight are neither lost nor doubled."""
    sidecar = bridged(PIPELINE, slots=2, flags=[*FLAGS, "--heirs", heirs, "--stop-grace", "300ms"])
    lives = Lives(sidecar, client(sidecar.unix))
    lives.live()
    with calls(sidecar, client), Reloader(sidecar, reloads // 5 if SANITIZED else reloads) as reloader:
        while not reloader.done:
            lives.live()
    print(f"{reloader.count} reloads, {lives.count} lives")
    counters = nobody_was_blamed(sidecar)
    assert counters["reloads"] == reloader.count and counters["takeovers"] >= 2 * reloader.count
