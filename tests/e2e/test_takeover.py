"""What outlives what: state memory, and slots whose workers die, are replaced, hang, or get new code."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import threading

import grpc
import pytest

from conftest import BRIDGED, PATIENCE, SANITIZED, wait_until
from lives import PIPELINE as LIVES
from lives import Lives

PIPELINE = """\
name: through
sources:
  in: { kind: generator, count: 1 }
steps:
  - name: shout
    kind: map
    payload: text
    program: ascii_upcase
sinks:
  out: { kind: discard }
"""

ENDLESS = PIPELINE.replace("ascii_upcase", 'if . == "endless" then last(range(1e12)) | tostring else ascii_upcase end')


def refused(*flags):
    """What a bridged says that does not start."""
    run = subprocess.run([BRIDGED, *flags], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 1, run.stderr
    return run.stderr


def test_state_in_files_is_allocated_at_start_or_the_start_fails(bridged, client, compile, workdir):
    """A directory serves one sidecar, and one that has no room is an error in words before anything runs."""
    states = workdir / "states"
    states.mkdir()
    first = bridged(PIPELINE, flags=["--state-dir", states, "--state-memory", "8MiB"])
    assert list(states.iterdir()) == [], "arenas have no names"
    wait_for_heirs(first)
    session = client(first.unix).session(first)
    assert session.exchange(b"a") == [b"A"]
    os.kill(slot(first)["pid"], signal.SIGKILL)
    assert session.exchange(b"b") == [b"B"] and session.finish()[0] == grpc.StatusCode.OK
    flags = ("--descriptor", str(compile(PIPELINE)), "--listen", f"unix:{workdir}/second.sock", "--state-dir")
    assert f"another bridged keeps its state in {states}" in refused(*flags, str(states))
    first.stop()
    assert "cannot be used: No such file or directory" in refused(*flags, str(states / "none"))
    log = refused(*flags, "/dev/shm", "--state-memory", "64GiB")
    assert "/dev/shm has no room for the state of slot 0 (64.0 GiB): No space left on device" in log
    assert "lower --state-memory, or choose another --state-dir" in log


def slot(sidecar, index=0):
    return sidecar.stats_json("slots")["slots"][index]


def counters(sidecar):
    return sidecar.stats_json("stats")["supervisor"]


def wait_for_heirs(sidecar, slots=1, heirs=1):
    """Waits until each slot has a worker that is ready, and as many that wait behind it."""

    def look():
        rows = sidecar.stats_json("slots")["slots"]
        return all(rows[i]["heirs"] == heirs and rows[i]["state"] == "ready" for i in range(slots))

    wait_until(look, lambda: f"heirs:\n{sidecar.stats('slots')}")


@pytest.mark.parametrize(("victims", "heirs"), [("owner", 1), ("heir", 1), ("both", 1), ("owner", 0)])
def test_whoever_is_killed_the_session_goes_on(bridged, client, victims, heirs):
    """Twenty times in the middle of a stream; every message is answered once, in order."""
    sidecar = bridged(PIPELINE, flags=["--heirs", heirs, "--restart-delay", "1ms"])
    session = client(sidecar.unix).session(sidecar)
    sent, got = 0, []
    for _ in range(20):
        wait_for_heirs(sidecar, heirs=heirs)
        for _ in range(10):
            session.send_records(b"r%d" % sent)
            sent += 1
        pids = {"owner": [slot(sidecar)["pid"]], "heir": [], "both": [slot(sidecar)["pid"]]}[victims]
        pids += [slot(sidecar)["heir_pid"]] if victims in ("heir", "both") else []
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        got += [record.payload for _ in range(10) for record in session.results()]
        wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids), "the dead to be reaped")  # noqa: B023
    assert got == [b"R%d" % n for n in range(sent)]
    assert slot(sidecar)["generation"] == 1
    expected = {"owner": [20], "heir": [0], "both": range(20, 41)}[victims]
    wait_until(lambda: counters(sidecar)["takeovers"] in expected, "the last one to be counted")
    assert counters(sidecar)["deaths_blamed"] == 0
    assert session.finish()[0] == grpc.StatusCode.OK


def test_a_stopped_worker_is_taken_over_from(bridged, client):
    """One that was woken and does not wake up, and one that was stopped at work."""
    sidecar = bridged(PIPELINE, flags=["--unit-wall-limit", "1s"])
    session = client(sidecar.unix).session(sidecar)
    for n in range(3):
        wait_for_heirs(sidecar)
        stopped = slot(sidecar)["pid"]
        os.kill(stopped, signal.SIGSTOP)
        assert session.exchange(b"a") == [b"A"]
        wait_until(lambda: slot(sidecar)["pid"] not in (0, stopped), "another owner to be noted")
        wait_until(lambda: counters(sidecar)["watchdog_kills"] == n + 1, "the watchdog's count")


def test_a_worker_that_never_gets_on_is_killed_and_the_slot_goes_on(bridged, client):
    sidecar = bridged(ENDLESS, slots=2, flags=["--unit-cpu-limit", "300ms", "--restart-delay", "1ms"])
    hurt, other = client(sidecar.unix, metadata=[("bridge-slot", "0")]), client(sidecar.tcp, metadata=[("bridge-slot", "1")])
    request = hurt.proto.worker.ProcessMessageRequest(message=hurt.proto.worker.Message(payload=b"endless"), segment_id=0)
    call = hurt.worker.ProcessMessage.future(request, timeout=PATIENCE, metadata=hurt.metadata)
    assert other.process(0, b"fine")[0].payload == b"FINE"
    assert call.exception(PATIENCE).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
    assert hurt.process(0, b"back")[0].payload == b"BACK"
    assert counters(sidecar)["watchdog_kills"] >= 2
    assert slot(sidecar, 1)["process"] == 1
    sidecar.wait_for_log(r"worker 0 \(pid \d+\) has been at one unit of work for .* of processor time, and --unit-cpu-limit is 300ms")


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's own mappings count as the worker's")
def test_a_worker_that_eats_memory_fails_its_sessions_and_is_never_passed_over(bridged, client):
    """Whatever the step's policy: the slot begins again on fresh memory, and the other slot notices nothing."""
    eater = PIPELINE.replace("name: through", "name: through\non_error: skip").replace(
        "ascii_upcase", 'if . == "eat" then [range(1e9)] | length | tostring else ascii_upcase end')
    sidecar = bridged(eater, slots=2, flags=["--worker-memory", "96MiB", "--restart-delay", "1ms"])
    hurt = client(sidecar.unix, metadata=[("bridge-slot", "0")])
    session, other = hurt.session(sidecar, allocation_id="a"), client(sidecar.tcp).session(sidecar, allocation_id="b", job="other")
    eaten, spared = session.ack.open_ack.slot, other.ack.open_ack.slot
    assert eaten != spared and session.exchange(b"a") == [b"A"]
    session.send_records(b"eat")
    assert session.end()[0] == grpc.StatusCode.UNAVAILABLE
    assert other.exchange(b"b") == [b"B"] and slot(sidecar, spared)["process"] == 1
    wait_until(lambda: slot(sidecar, eaten)["generation"] == 2, "the slot to begin again")
    causes = [death["cause"] for death in sidecar.stats_json("deaths")["deaths"] if death["slot"] == eaten and death["step"]]
    assert causes[-1] == "memory" and set(causes) <= {"memory", "ordered"}  # an heir that had begun is told to leave
    assert counters(sidecar)["deaths_blamed"] == 0
    sidecar.wait_for_log(r"there is no memory for the values of a jq program: --worker-memory allows 96MiB")
    assert "does not get the input" not in sidecar.log()


def test_a_worker_is_restarted_on_demand(bridged, client, bridgectl):
    sidecar = bridged(PIPELINE, slots=2)
    session = client(sidecar.unix).session(sidecar)
    index = session.ack.open_ack.slot
    for _ in range(5):
        wait_for_heirs(sidecar, slots=2)
        was = slot(sidecar, index)["pid"]
        session.send_records(b"a", b"b")
        bridgectl("restart-worker", str(index), "--stats", sidecar.stats_path)
        assert [record.payload for record in session.results()] == [b"A", b"B"]
        wait_until(lambda: slot(sidecar, index)["pid"] not in (0, was), "another worker")
    refusal = bridgectl("restart-worker", "2", "--stats", sidecar.stats_path, check=False)
    assert refusal.returncode == 1 and refusal.stderr == 'bridgectl: "2" is no slot: there are 2, counted from 0\n'
    assert counters(sidecar)["deaths_blamed"] == 0 and counters(sidecar)["takeovers"] == 5


def test_a_drain_is_a_stop_in_order(bridged, client, bridgectl):
    sidecar = bridged(PIPELINE)
    assert client(sidecar.unix).process(0, b"a")[0].payload == b"A"
    assert "DRAINING" in bridgectl("drain", "--stats", sidecar.stats_path).stdout
    assert sidecar.process.wait(PATIENCE) == 0
    assert "somebody asked for it on the stats socket" in sidecar.log()


def test_deaths_are_listed(bridged, client, bridgectl):
    sidecar = bridged(PIPELINE)
    wait_for_heirs(sidecar)
    client(sidecar.unix).process(0, b"a")
    os.kill(slot(sidecar)["pid"], signal.SIGABRT)
    wait_until(lambda: sidecar.stats_json("deaths")["deaths"], "the death to be noted")
    death = json.loads(bridgectl("deaths", "--json", "--stats", sidecar.stats_path).stdout)["deaths"][0]
    assert (death["process"], death["slot"], death["cause"]) == ("worker", 0, "code")
    assert death["end"] == "signal 6 (Aborted)" and death["then"] == "its heir takes over"
    assert "signal 6 (Aborted)" in bridgectl("deaths", "--stats", sidecar.stats_path).stdout


def test_deaths_show_the_input_that_a_careful_worker_had_in_hand(bridged, client, bridgectl):
    """The first death is over a message of three records; the second, of a careful worker, is over one record, with its first bytes."""
    sidecar = bridged(ENDLESS, flags=["--unit-cpu-limit", "300ms", "--restart-delay", "1ms"])
    session = client(sidecar.unix).session(sidecar)
    session.send_records(*(session.proto.Record(payload=p, key=b"k\x1b") for p in (b"a", b"endless", b"b")))
    assert session.end()[0] == grpc.StatusCode.INTERNAL
    careful, first = json.loads(bridgectl("deaths", "--json", "--stats", sidecar.stats_path).stdout)["deaths"]
    assert first["cause"] == careful["cause"] == "watchdog" and first["seq"] == careful["seq"] == 2
    assert (first["step"], first["key"], first["input"]) == ("shout", None, None)
    assert (careful["step"], careful["key"], careful["input"]) == ("shout", "k\\x1b", "endless")
    assert "k\\x1b" in bridgectl("deaths", "--stats", sidecar.stats_path).stdout
    assert f'record {careful["record"]} (channel' in sidecar.log() and ', key "k\\x1b", input: endless, ' in sidecar.log()


@pytest.fixture
def reload(bridgectl, workdir, compile):
    """Reloads a sidecar with another pipeline; the finished process."""
    names = itertools.count()

    def run(sidecar, pipeline, check=True):
        descriptor = compile(pipeline, name=f"new{next(names)}")
        return bridgectl("reload", "--descriptor", str(descriptor), "--stats", sidecar.stats_path, check=check)

    return run


def test_new_code_takes_over_while_a_session_goes_on(bridged, client, reload):
    """Frames sent before, while and after it: each is answered once, in order, first by the old code and then by the new."""
    sidecar = bridged(PIPELINE, slots=2)
    session = client(sidecar.unix).session(sidecar)
    old, new = PIPELINE, PIPELINE.replace("ascii_upcase", '. + "!"')
    for code in (new, old, new):
        sent = [b"r%d" % n for n in range(300)]
        done = []
        thread = threading.Thread(target=lambda code=code, done=done: done.append(reload(sidecar, code)))
        thread.start()
        for payload in sent:
            session.send_records(payload)
        got = [record.payload for _ in sent for record in session.results()]
        thread.join()
        assert "done" in done[0].stdout
        before, after = (lambda p: p.upper(), lambda p: p + b"!") if code is new else (lambda p: p + b"!", lambda p: p.upper())
        switched = next((n for n, payload in enumerate(got) if payload == after(sent[n])), len(got))
        assert got == [before(p) for p in sent[:switched]] + [after(p) for p in sent[switched:]]
        assert session.exchange(b"x") == [after(b"x")]
    wait_for_heirs(sidecar, slots=2)
    assert counters(sidecar)["reloads"] == 3 and counters(sidecar)["deaths_blamed"] == 0
    assert all(slot(sidecar, i)["generation"] == 1 for i in range(2))
    os.kill(slot(sidecar, session.ack.open_ack.slot)["pid"], signal.SIGKILL)  # the heir has the new code, too
    assert session.exchange(b"y") == [b"y!"]


def test_who_serves_and_who_waits_are_scheduled_as_usual(bridged, client, reload):
    """A process is patient while it loads code, and no longer."""
    sidecar = bridged(PIPELINE)
    for _ in range(2):
        assert client(sidecar.unix).session(sidecar).exchange(b"a") == [b"A"]
        wait_for_heirs(sidecar)
        pids = [slot(sidecar)["pid"], slot(sidecar)["heir_pid"]]
        assert [os.sched_getscheduler(pid) for pid in pids] == [os.SCHED_OTHER] * 2
        reload(sidecar, PIPELINE)


def test_what_cannot_be_reloaded_changes_nothing(bridged, client, reload, bridgectl, workdir):
    sidecar = bridged(PIPELINE)
    session = client(sidecar.unix).session(sidecar)
    owner = slot(sidecar)["pid"]
    other = reload(sidecar, PIPELINE.replace("steps:", "steps:\n  - { name: spread, kind: key_by, key: . }"), check=False)
    assert other.returncode == 1 and "its topology is" in other.stdout and "failed" in other.stdout
    broken = workdir / "broken.yaml"
    broken.write_text(sidecar.descriptor_path.read_text().replace("ascii_upcase", "no_such_function"))
    refused = bridgectl("reload", "--descriptor", str(broken), "--stats", sidecar.stats_path, check=False)
    assert refused.returncode == 1 and "no_such_function" in refused.stdout
    broken.write_text("segments: [\n")
    refused = bridgectl("reload", "--descriptor", str(broken), "--stats", sidecar.stats_path, check=False)
    assert refused.returncode == 1 and "broken.yaml:" in refused.stdout
    missing = bridgectl("reload", "--descriptor", str(workdir / "none.yaml"), "--stats", sidecar.stats_path, check=False)
    assert missing.returncode == 1 and "No such file or directory" in missing.stderr
    assert slot(sidecar)["pid"] == owner and session.exchange(b"a") == [b"A"]
    again = bridgectl("reload", "--stats", sidecar.stats_path)  # the file that it was started with
    assert "done" in again.stdout and session.exchange(b"b") == [b"B"]
    assert slot(sidecar)["pid"] != owner and counters(sidecar)["reloads"] == 1


@pytest.mark.timeout(PATIENCE * 10)
def test_reloads_under_load_change_nothing(bridged, client):
    """New code every 50 ms, and workers restarted in between, while sessions with all kinds of state are at work."""
    sidecar = bridged(LIVES, slots=2, flags=["--session-ring", "256KiB", "--message-max", "65472"])
    lives, stop, failures = Lives(sidecar, client(sidecar.unix)), threading.Event(), []

    def disturb():
        try:
            while not stop.wait(0.05):
                state = sidecar.stats_json("reloading")["state"]
                assert state in ("none", "checking", "replacing", "done"), sidecar.stats("reloading")
                if state in ("none", "done"):
                    sidecar.stats("restart_worker 1")
                    sidecar.stats("reload")
        except Exception as failure:
            failures.append(failure)

    lives.live()
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        while counters(sidecar)["reloads"] < (3 if SANITIZED else 20) and not failures:
            lives.live()
    finally:
        stop.set()
        thread.join()
    assert not failures, failures
    now = counters(sidecar)
    assert now["deaths_blamed"] == now["memories_renewed"] == now["watchdog_kills"] == 0 and now["takeovers"] > now["reloads"], now
