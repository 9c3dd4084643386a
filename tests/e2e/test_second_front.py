"""What one front knew and the next one must know still: who was fenced, and which allocation a worker has served."""

import os
import signal
import uuid

import grpc
import pytest

from conftest import wait_until

PIPELINE = """\
name: shout
sources:
  in: { kind: generator, count: 1 }
steps:
  - { name: shout, kind: map, payload: text, program: ascii_upcase }
sinks:
  out: { kind: discard }
"""


def front_of(sidecar):
    """The pid of a front that serves, or None."""
    health = sidecar.stats_json("health")
    return health["healthy"] and next(p["pid"] for p in health["processes"] if p["process"] == "front")


def kill_front(sidecar):
    """Kills the front and waits for the next one."""
    before = wait_until(lambda: front_of(sidecar), "a front that serves")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: front_of(sidecar) not in (False, before), "the next front to serve")


@pytest.fixture
def sidecar(bridged):
    return bridged(PIPELINE)


def test_a_fenced_process_stays_fenced(sidecar, client):
    """Twice over: what the second front wrote down, the third one must add to and not begin anew."""
    jvms = [str(uuid.uuid4()) for _ in range(3)]
    one = client(sidecar.unix)
    for jvm in jvms[:2]:
        assert one.session(sidecar, jvm_uuid=jvm).exchange(b"a") == [b"A"]
    kill_front(sidecar)
    again = client(sidecar.unix)
    zombie = again.session(sidecar, open=False)
    zombie.open(sidecar, 0, jvm_uuid=jvms[0])
    code, words = zombie.end()
    assert code == grpc.StatusCode.FAILED_PRECONDITION and "fenced" in words
    assert again.session(sidecar, jvm_uuid=jvms[1]).exchange(b"b") == [b"B"]
    assert again.session(sidecar, jvm_uuid=jvms[2]).exchange(b"c") == [b"C"]
    kill_front(sidecar)
    last = client(sidecar.unix)
    for jvm in jvms[:2]:
        zombie = last.session(sidecar, open=False)
        zombie.open(sidecar, 0, jvm_uuid=jvm)
        assert zombie.end()[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert last.session(sidecar, jvm_uuid=jvms[2]).exchange(b"d") == [b"D"]


def test_a_worker_that_served_one_allocation_is_not_given_to_another(sidecar, client):
    first = client(sidecar.unix).session(sidecar, allocation_id="one")
    assert first.exchange(b"a") == [b"A"]
    kill_front(sidecar)
    same = client(sidecar.unix).session(sidecar, allocation_id="one")
    assert same.ack.open_ack.worker_pid == first.ack.open_ack.worker_pid
    kill_front(sidecar)
    other = client(sidecar.unix).session(sidecar, allocation_id="two")
    assert other.ack.open_ack.worker_pid != first.ack.open_ack.worker_pid
    assert other.exchange(b"b") == [b"B"]
