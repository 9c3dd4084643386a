"""A worker that the kernel's memory killer ends, in a control group of its own (as root, cgroup v1 or v2): part of `make chaos`.

`make test` shows the same with a worker that finds by itself that it has no memory; this one is killed from outside, and only the group's
counter tells it from a SIGKILL that somebody sent.
"""

import os
import pathlib

import conftest
import grpc
import pytest
from conftest import wait_until
from test_takeover import PIPELINE, counters, slot

LIMIT = 640 << 20


def own_group():
    """Where the groups below this process's own are made, and how its limit and its members are called."""
    groups = dict(line.split(":", 2)[1:] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines())
    if "memory" in groups:
        return pathlib.Path("/sys/fs/cgroup/memory" + groups["memory"]), "memory.limit_in_bytes"
    return pathlib.Path("/sys/fs/cgroup" + groups[""]), "memory.max"


@pytest.fixture
def bounded(workdir, monkeypatch):
    """Has sidecars started in a group with little memory."""
    above, limit = own_group()
    if limit == "memory.max":
        (above / "cgroup.subtree_control").write_text("+memory")
    group = above / f"bridge-test-{os.getpid()}"
    group.mkdir()
    (group / limit).write_text(str(LIMIT))
    start = workdir / "bridged-in-a-group"
    start.write_text(f'#!/bin/sh\necho $$ > {group}/cgroup.procs && exec {conftest.BRIDGED} "$@"\n')
    start.chmod(0o755)
    monkeypatch.setattr(conftest, "BRIDGED", start)
    yield group
    wait_until(lambda: (group / "cgroup.procs").read_text() == "", "the group to be empty")
    group.rmdir()


def test_the_memory_killer_fails_the_slot_and_blames_nobody(bounded, bridged, client):
    eater = PIPELINE.replace("name: through", "name: through\non_error: skip").replace(
        "ascii_upcase", 'if . == "eat" then (("x" * 65536) * 16000) | length | tostring else ascii_upcase end'
    )
    sidecar = bridged(eater, slots=2, flags=["--state-memory", "16MiB", "--restart-delay", "1ms"])
    session = client(sidecar.unix).session(sidecar, allocation_id="a")
    other = client(sidecar.tcp).session(sidecar, allocation_id="b", job="other")
    eaten, spared = session.ack.open_ack.slot, other.ack.open_ack.slot
    assert eaten != spared and session.exchange(b"a") == [b"A"]
    session.send_records(b"eat")
    assert session.end()[0] == grpc.StatusCode.UNAVAILABLE
    assert other.exchange(b"b") == [b"B"] and slot(sidecar, spared)["process"] == 1
    wait_until(lambda: slot(sidecar, eaten)["generation"] == 2, "the slot to begin again")
    deaths = [death for death in sidecar.stats_json("deaths")["deaths"] if death["slot"] == eaten and death["step"]]
    assert deaths[-1]["cause"] == "memory", deaths
    assert counters(sidecar)["deaths_blamed"] == 0
    sidecar.wait_for_log(r"worker \d \(pid \d+, process 1\) died of signal 9 .*its memory is given up")
    sidecar.wait_for_log("its worker was killed for want of memory")
    assert "does not get the input" not in sidecar.log()
    again = client(sidecar.unix).session(sidecar, allocation_id="a", job="again")
    assert again.exchange(b"c") == [b"C"]
