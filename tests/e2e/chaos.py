"""Processes killed, stopped and hurried at random for CHAOS_SECONDS, under sessions, calls and vanishing clients: `make chaos`.

What must hold all the while: a client hears UNAVAILABLE (or a refusal that names the missing slot) and nothing else, no answer is wrong, and at
the end everything is well, nothing is open, and nothing has leaked. And what clients commit that go on from their checkpoints is what they
would have committed had nobody died.
"""

import contextlib
import os
import pathlib
import random
import signal
import threading
import time

import grpc
import pytest

from conftest import PATIENCE, wait_until
from lives import PIPELINE as LIVES
from lives import SESSIONS, Job
from test_faults import CALL, PIPELINE, ending, let_vanish, load, named, new_answers, quiet, ring_kib, sockets

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
ALLOWED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.mark.timeout(SECONDS + 240)
def test_chaos(bridged, client):
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"CHAOS_SEED={seed}")
    dice = random.Random(seed)
    sidecar = bridged(PIPELINE, slots=2, flags=["--restart-delay", "10ms", "--restart-delay-max", "100ms"])
    good = client(sidecar.unix)
    let_vanish(sidecar, good, range(500))
    good.process(CALL, b"warm")
    idle_rings, idle_sockets = ring_kib(sidecar, client), sockets(sidecar)
    stop, answers = threading.Event(), new_answers()
    deaths = {"SIGKILL": 0, "SIGSEGV": 0, "SIGSTOP": 0}
    deadline = time.monotonic() + SECONDS
    with ending(stop, load(sidecar, client, stop, answers)):
        while time.monotonic() < deadline:
            number = dice.choices([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP], [6, 2, 2])[0]
            victim = named(sidecar, dice.choice(["bridged-w0", "bridged-w1", "bridged-w0", "bridged-w1", "bridged-front"]))
            if victim is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, number)
                    deaths[number.name] += 1
                    if number == signal.SIGSTOP:
                        stop.wait(dice.uniform(0, 0.3))
                        os.kill(victim, signal.SIGCONT)
            stop.wait(dice.choice([0.0, 0.005, 0.05, 0.3]))  # between blows, not to wait for anything
            was = answers["stream"], answers["unary"]
            if dice.random() < 0.3:
                wait_until(lambda: answers["stream"] > was[0] and answers["unary"] > was[1], lambda: f"answers: {answers}", PATIENCE * 2)
        was = answers["stream"], answers["unary"]
        wait_until(lambda: answers["stream"] > was[0] + 20 and answers["unary"] > was[1] + 20, lambda: f"load: {answers}")
    print(deaths, answers)
    assert {code for code, _ in answers["statuses"]} <= ALLOWED, answers["statuses"]
    wait_until(lambda: sidecar.stats_json("health")["healthy"], lambda: sidecar.stats("health"))
    wait_until(lambda: quiet(sidecar), lambda: sidecar.stats("stats"), PATIENCE * 2)
    good.process(CALL, b"still")
    wait_until(lambda: sockets(sidecar) <= idle_sockets, "all sockets to be closed")
    assert ring_kib(sidecar, client) <= idle_rings
    assert not list(pathlib.Path("/dev/shm").glob("*bridge*"))


class Jobs:
    """A job for each segment, all at once, life after life until they are to end."""

    def __init__(self, sidecar, client, dice):
        connect = lambda: client(sidecar.unix)  # noqa: E731
        bridge = connect().proto.bridge
        self.jobs = [Job(sidecar, connect, bridge, *session, dice.random()) for session in SESSIONS.items()]
        self.stop = threading.Event()
        self.failures = []
        for job in self.jobs:
            job.live()  # undisturbed: what the others are measured by
        self.threads = [threading.Thread(target=self.run, args=(job,)) for job in self.jobs]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures, self.failures

    def run(self, job):
        try:
            while not self.stop.is_set():
                job.live(die=0.001)
        except BaseException as failure:
            self.failures.append(failure)
            self.stop.set()


@pytest.mark.timeout(SECONDS + 240)
def test_exactly_once_whoever_dies(bridged, client):
    """Workers, heirs, the front and clients die; each job commits the same as one to which nothing happened."""
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"CHAOS_SEED={seed}")
    dice = random.Random(seed)
    flags = ["--session-ring", "512KiB", "--message-max", "131008", "--restart-delay", "10ms", "--restart-delay-max", "100ms"]
    sidecar = bridged(LIVES, slots=2, flags=flags)
    deaths, reloads = dict.fromkeys(["bridged-w0", "bridged-w1", "bridged-h0", "bridged-h1", "bridged-front"], 0), 0
    with Jobs(sidecar, client, dice) as jobs:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and not jobs.stop.is_set():
            name = dice.choices(list(deaths), [30, 30, 10, 10, 2])[0]
            victim = named(sidecar, name)
            if victim is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    deaths[name] += 1
            if dice.random() < 0.03:
                sidecar.stats("reload")
                reloads += 1
            jobs.stop.wait(dice.choice([0.0, 0.01, 0.05, 0.2]))  # between blows, not to wait for anything
    print(deaths, f"{reloads} reloads;", ", ".join(f"segment {job.segment}: {job.lives} lives, {dict(job.ended)}" for job in jobs.jobs))
    counters = sidecar.stats_json("stats")["supervisor"]
    assert counters["deaths_blamed"] == 0 and counters["memories_renewed"] == 0, counters
    assert all(job.lives > 1 for job in jobs.jobs), "nobody came to an end"
    wait_until(lambda: sidecar.stats_json("health")["healthy"], lambda: sidecar.stats("health"))
    wait_until(lambda: quiet(sidecar), lambda: sidecar.stats("stats"), PATIENCE * 2)
