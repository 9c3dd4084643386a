"""Processes killed, stopped and hurried at random for CHAOS_SECONDS, under sessions, calls and vanishing clients: `make chaos`.

What must hold all the while: a client hears UNAVAILABLE (or a refusal that names the missing slot) and nothing else, no answer is wrong, and at
the end everything is well, nothing is open, and nothing has leaked.
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
