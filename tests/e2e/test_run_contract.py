"""What `bridgectl run` says to a sidecar: every message of its sessions, seen by a double that stands in bridged's place."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from conftest import BRIDGECTL, PATIENCE, PROTO, alive, descendants, memory_kib, wait_until

DOUBLE = pathlib.Path(__file__).with_name("double_sidecar.py")
LAST = 2**63 - 1


class Double:
    """A run against the double."""

    def __init__(self, workdir, pipeline, arguments, orders, stdin):
        self.workdir = workdir
        (workdir / "bridged").write_text(f'#!/bin/sh\nexec {sys.executable} {DOUBLE} "$@"\n')
        (workdir / "bridged").chmod(0o700)
        (workdir / "pipeline.yaml").write_text(pipeline)
        (workdir / "tmp").mkdir(exist_ok=True)
        environment = {**os.environ, "DOUBLE": json.dumps(orders), "DOUBLE_LOG": str(workdir / "log"), "DOUBLE_PROTO": str(PROTO)}
        environment.update(TMPDIR=str(workdir / "tmp"))
        environment.pop("XDG_RUNTIME_DIR", None)
        self.process = subprocess.Popen(
            [str(BRIDGECTL), "run", "pipeline.yaml", "--bridged", "./bridged", *arguments],
            cwd=workdir, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def log(self, kind=None, segment=None, subtask=None):
        """The messages that the double got: all, or of a kind, segment, subtask."""
        path = self.workdir / "log"
        text = path.read_text() if path.exists() else ""
        messages = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        wanted = {"kind": kind, "segment": segment, "subtask": subtask}
        return [m for m in messages if all(value is None or m[name] == value for name, value in wanted.items())]

    def end(self, code=0):
        """Waits for the end; returns standard output and standard error."""
        out, err = self.process.communicate(timeout=PATIENCE * 2)
        assert self.process.returncode == code, f"exit {self.process.returncode}\n{out}{err}"
        assert not list((self.workdir / "tmp").iterdir())
        return out, err


@pytest.fixture
def double(workdir):
    """double(pipeline, *arguments, orders={}, stdin=...) starts a run against the double."""
    started = []

    def start(pipeline, *arguments, orders=None, stdin=subprocess.DEVNULL):
        started.append(Double(workdir, pipeline, arguments, orders or {}, stdin))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.communicate()


def lines(run, text):
    """Writes to a run's standard input."""
    run.process.stdin.write(text)
    run.process.stdin.flush()


def test_sessions_open_as_flink_would_open_them(double):
    run = double(
        """\
name: opened
parallelism: 2
sources:
  in: { kind: generator, count: 10 }
steps:
  - { name: by, kind: key_by, key: tostring }
  - { name: same, kind: passthrough, parallelism: 3 }
sinks:
  out: { kind: discard }
""",
        "--slots", "2", orders={"key": True},
    )  # fmt: skip
    run.end()
    opens = run.log("open")
    assert [(o["segment"], o["subtask"]) for o in sorted(opens, key=lambda o: (o["segment"], o["subtask"]))] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2)
    ]  # fmt: skip
    assert len({o["jvm_uuid"] for o in opens}) == 1 and len({o["attempt_id"] for o in opens}) == 5
    slots = {}
    for o in opens:
        assert o["protocol_version"] == 1 and o["pipeline"] == "opened" and len(o["topology_hash"]) == 32 and o["seq"] == 1
        slots.setdefault(o["subtask"] % 2, set()).add(o["allocation_id"])
    assert all(len(allocations) == 1 for allocations in slots.values()) and slots[0] != slots[1]
    # KeyGroupRangeAssignment.computeKeyGroupRangeForOperatorIndex(max, 3, i)
    groups = [(o["key_group_first"], o["key_group_last"]) for o in opens if o["segment"] == 1]
    assert opens[-1]["max_parallelism"] == 128
    assert sorted(groups) == [(0, 42), (43, 85), (86, 127)]


UNION = """\
name: both
sources:
  one: { kind: file, path: "-", timestamp: .ts, out_of_orderness: 100ms }
  two: { kind: file, path: two, timestamp: .ts, idle: 20ms }
steps:
  - { name: mark, kind: passthrough, from: one, parallelism: 2 }
  - { name: all, kind: passthrough, from: [mark, two] }
sinks:
  out: { kind: discard }
"""


def test_every_session_is_a_proper_sequence(double, workdir):
    (workdir / "two").write_text("".join(json.dumps({"ts": 5000 + n}) + "\n" for n in range(5000)))
    run = double(UNION, stdin=subprocess.PIPE)
    lines(run, "".join(json.dumps({"ts": 1000 + n}) + "\n" for n in range(3000)))
    run.end()
    for segment, subtask in ((0, 0), (0, 1), (1, 0)):
        messages = run.log(segment=segment, subtask=subtask)
        kinds = [m["kind"] for m in messages]
        assert [m["seq"] for m in messages] == list(range(1, len(messages) + 1))
        assert all(a["time"] <= b["time"] for a, b in zip(messages, messages[1:]))
        assert kinds[0] == "open" and kinds[-2:] == ["end_input", "close"]
        assert kinds.count("open") == kinds.count("end_input") == kinds.count("close") == 1
        watermarks = [m["watermark"] for m in messages if m["kind"] == "watermark"]
        assert watermarks == sorted(set(watermarks)) and watermarks[-1] == LAST
        assert kinds[-3] == "watermark" or kinds[-3] == "watermark_status"
        assert all(len(m["records"]) <= 1024 for m in messages if m["kind"] == "batch")
    inputs = {0: [], 1: []}
    for message in run.log("batch", segment=1):
        for record in message["records"]:
            inputs[record["input"]].append(record["timestamp"])
    assert sorted(inputs[0]) == [1000 + n for n in range(3000)]
    assert inputs[1] == [5000 + n for n in range(5000)], "one producer, one consumer: the order is kept"
    dealt = [sum(len(m["records"]) for m in run.log("batch", segment=0, subtask=s)) for s in (0, 1)]
    assert dealt == [1500, 1500], "rebalance deals in turn"


def test_watermarks_follow_the_slowest_input_that_is_not_idle(double, workdir):
    os.mkfifo(workdir / "two")
    run = double(UNION, stdin=subprocess.PIPE)
    with open(workdir / "two", "w", buffering=1) as two:
        wait_until(lambda: len(run.log("open")) == 3, "all sessions to open")
        lines(run, '{"ts": 10000}\n{"ts": 9000}\n')
        # Source two has said nothing: after 20 ms it is idle, and the union goes by source one alone.
        wait_until(lambda: [m["watermark"] for m in run.log("watermark", segment=1)] == [10000 - 100 - 1], "the watermark of source one")
        two.write('{"ts": 20000}\n')
        wait_until(lambda: run.log("batch", segment=1), "the record of source two")
        lines(run, '{"ts": 11000}\n')
        wait_until(lambda: 11000 - 100 - 1 in [m["watermark"] for m in run.log("watermark", segment=1)], "the next watermark")
    run.end()
    watermarks = [m["watermark"] for m in run.log("watermark", segment=1)]
    assert watermarks[0] == 9899 and watermarks[-1] == LAST and watermarks == sorted(watermarks)
    # Behind the records that carried it.
    messages = run.log(segment=0)
    first_watermark = next(at for at, m in enumerate(messages) if m["kind"] == "watermark")
    seen = [r["timestamp"] for m in messages[:first_watermark] if m["kind"] == "batch" for r in m["records"]]
    assert 10000 in seen


def test_all_idle_is_told_and_taken_back(double):
    run = double(
        """\
name: pauses
sources:
  in: { kind: file, path: "-", timestamp: .ts, idle: 20ms }
steps:
  - { name: a, kind: passthrough, parallelism: 2 }
  - { name: b, kind: passthrough, parallelism: 1 }
sinks:
  out: { kind: discard }
""",
        stdin=subprocess.PIPE,
    )
    wait_until(lambda: [m["idle"] for m in run.log("watermark_status", segment=1)] == [True], "idleness to reach the last segment")
    lines(run, '{"ts": 1}\n{"ts": 2}\n')
    wait_until(lambda: [m["idle"] for m in run.log("watermark_status", segment=1)] == [True, False, True], "the way back")
    run.end()
    assert [m["idle"] for m in run.log("watermark_status", segment=1)] == [True, False, True, False]


def test_ticks_come_when_they_are_asked_for(double):
    pipeline = """\
name: ticks
sources:
  in: { kind: file, path: "-" }
steps:
  - { name: a, kind: passthrough }
sinks:
  out: { kind: discard }
"""
    run = double(pipeline, stdin=subprocess.PIPE, orders={"wakeup_ms": 50})
    lines(run, "x\n")
    wait_until(lambda: run.log("timer_tick"), "the tick")
    batch, tick = run.log("batch")[0], run.log("timer_tick")[0]
    assert tick["time"] >= batch["time"] + 50
    run.end()
    assert len(run.log("timer_tick")) == 1, "one tick for one wish"


def test_an_answer_in_many_parts(double):
    pipeline = "name: p\nsources: {in: {kind: generator, count: 3000}}\nsteps: [{name: s, kind: passthrough}]\nsinks: {out: {kind: print}}\n"
    out, _ = double(pipeline, "--quiet", orders={"split": True}).end()
    assert out == "".join(f"{n}\n" for n in range(3000))


def test_a_sidecar_that_does_not_answer_is_not_flooded(double):
    pipeline = """\
name: flood
sources:
  in: { kind: generator, program: "(\\"x\\" * 2000)" }
steps:
  - { name: a, kind: passthrough, parallelism: 2 }
sinks:
  out: { kind: discard }
"""
    run = double(pipeline, orders={"mute": True})
    wait_until(lambda: len(run.log("batch")) >= 16, "both sessions to be full")
    seen = []

    def still():
        seen.append(sum(map(int, pathlib.Path(f"/proc/{run.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13])))
        return len(seen) > 60 and seen[-1] == seen[-40]

    wait_until(still, "the source to stop reading")
    for subtask in (0, 1):
        batches = run.log("batch", subtask=subtask)
        assert len(batches) == 8 and all(batch["size"] < 300 * 1024 for batch in batches)
    assert memory_kib(run.process.pid, "Rss") < 150 * 1024
    children = descendants(run.process.pid)
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGINT)
    # The kernel hands out pending signals by number, not by time.
    run.process.wait(PATIENCE)
    assert run.process.returncode in (130, 143)
    assert not [pid for pid in children if alive(pid)] and not list((run.workdir / "tmp").iterdir())


PLAIN = "name: p\nsources: {in: {kind: file, path: '-'}}\nsteps: [{name: s, kind: passthrough}]\nsinks: {out: {kind: discard}}\n"


@pytest.mark.parametrize(
    "orders, words",
    [
        ({"error": {"code": 3, "record": 1, "step": "s", "message": "it does not do"}}, 'segment "s": it does not do\n  the segment got: two\n'),
        ({"error": {"code": 3, "step": "s", "message": 'segment "s" step "s" record 0: no; payload: one'}}, 'run: segment "s" step "s" record 0: no; payload: one\n'),
        ({"status": ["FAILED_PRECONDITION", "somebody newer took over"]}, 'segment "s": the session ended with FAILED_PRECONDITION: somebody newer took over'),
        ({"garbage": True}, 'segment "s": the sidecar sent a message that cannot be read'),
        ({"seq": 1}, 'segment "s": the sidecar answered out of turn'),
    ],
    ids=["error", "error with its place", "status", "garbage", "seq"],
)  # fmt: skip
def test_what_a_sidecar_may_do_wrong(double, orders, words):
    run = double(PLAIN, "--quiet", stdin=subprocess.PIPE, orders=orders)
    lines(run, "one\ntwo\n")
    _, err = run.end(1)
    assert words in err and err.count("bridgectl run:") == 1
