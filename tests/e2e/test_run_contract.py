"""What `bridgectl run` says to a sidecar: every message of its sessions, seen by a double that stands in bridged's place."""

import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
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
        assert o["protocol_version"] == 2 and o["pipeline"] == "opened" and len(o["topology_hash"]) == 32 and o["seq"] == 1
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


def test_as_much_is_unanswered_as_is_answered_soon(double):
    """A session that takes long for each batch gets small ones."""
    pipeline = """\
name: slow
sources:
  in: { kind: generator, count: 6000 }
steps:
  - { name: a, kind: passthrough }
sinks:
  out: { kind: discard }
"""
    run = double(pipeline, orders={"slow_batch": 60})
    run.end()
    sizes = [len(batch["records"]) for batch in run.log("batch")]
    assert sum(sizes) == 6000 and max(sizes) == 512 and 16 in sizes


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
    wait_until(lambda: len(run.log("batch")) >= 14, "both sessions to be full")
    seen = []

    def still():
        seen.append(sum(map(int, pathlib.Path(f"/proc/{run.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13])))
        return len(seen) > 60 and seen[-1] == seen[-40]

    wait_until(still, "the source to stop reading")
    for subtask in (0, 1):
        batches = run.log("batch", subtask=subtask)
        assert len(batches) <= 8 and all(batch["size"] < 300 * 1024 for batch in batches)
        assert sum(len(batch["records"]) for batch in batches) <= 1024, "more than a new session may have unanswered"
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


# ---- Checkpoints -----------------------------------------------------------------------------------------------------------

CUT = """\
name: cut
sources:
  one: { kind: file, path: one, timestamp: .ts }
  two: { kind: file, path: two, timestamp: .ts }
steps:
  - { name: mark, kind: passthrough, from: one, parallelism: 2 }
  - { name: copy, kind: broadcast, routes: [left, right], from: [mark, two], parallelism: 3 }
  - { name: all, kind: passthrough, from: [copy.left, copy.right, two], parallelism: 2 }
sinks:
  out: { kind: file, path: out, from: all }
"""


def per_barrier(run, segment, subtask):
    """The payloads that a session got before each barrier, by the barrier's number."""
    seen, result = [], {}
    for message in run.log(segment=segment, subtask=subtask):
        if message["kind"] == "batch":
            seen += [record["payload"] for record in message["records"]]
        elif message["kind"] == "barrier":
            result[message["barrier"]] = list(seen)
    return result


def test_barriers_cut_all_sessions_at_the_same_place(double, workdir):
    for name, count in (("one", 20000), ("two", 7000)):
        (workdir / name).write_text("".join(json.dumps({"ts": n, name: n}) + "\n" for n in range(count)))
    run = double(CUT, "--quiet", "--checkpoint", "file", "--checkpoint-interval", "5ms", orders={"slow_ack": 3})
    run.end()
    mark = [per_barrier(run, 0, s) for s in range(2)]
    copy = [per_barrier(run, 1, s) for s in range(3)]
    every = [per_barrier(run, 2, s) for s in range(2)]
    numbers = list(mark[0])
    assert len(numbers) >= 3 and numbers == list(range(1, numbers[-1] + 1))
    assert all(list(session) == numbers for session in (*mark, *copy, *every))
    for number in numbers:
        ones = sorted(payload for session in mark for payload in session[number])
        copied = sorted(payload for session in copy for payload in session[number])
        assert [payload for payload in copied if "one" in payload] == ones
        twos = [payload for payload in copied if "two" in payload]
        assert {json.loads(payload)["two"] for payload in twos} == set(range(len(twos))), "a cut through the middle of a source"
        # The double answers with route 0 only: what went left, and what came from `two` directly.
        assert sorted(payload for session in every for payload in session[number]) == sorted(ones + twos + twos)
    assert sum(len(session[numbers[-1]]) for session in every) == 20000 + 2 * 7000


def test_nothing_is_sent_between_a_barrier_and_its_acknowledgement(double, workdir):
    (workdir / "one").write_text("".join(json.dumps({"ts": n, "one": n}) + "\n" for n in range(20000)))
    (workdir / "two").write_text("")
    run = double(CUT, "--quiet", "--checkpoint", "file", "--checkpoint-interval", "1ms", orders={"slow_ack": 20, "wakeup_ms": 1})
    run.end()
    for segment, subtask in ((0, 0), (0, 1), (1, 0), (2, 1)):
        acknowledged = [m["time"] for m in run.log("acknowledged", segment, subtask)]
        messages = run.log(segment=segment, subtask=subtask)
        messages = [m for m in messages if m["kind"] != "acknowledged"]
        behind = [messages[at + 1]["time"] for at, m in enumerate(messages[:-1]) if m["kind"] == "barrier"]
        assert len(behind) >= 2 and len(acknowledged) == len(behind)
        assert all(sent >= ack for sent, ack in zip(behind, acknowledged))
        assert messages[-1]["kind"] == "close" and messages[-2]["kind"] == "barrier"


COUNTS = """\
name: counts
sources:
  in: { kind: file, path: in }
steps:
  - { name: by, kind: key_by, key: .k }
  - { name: count, kind: passthrough, parallelism: PARALLELISM }
sinks:
  out: { kind: file, path: out }
"""


@pytest.mark.parametrize("part", [100, 7])
def test_state_comes_back_at_any_parallelism(double, workdir, part):
    keys = [f"key{n * n % 97}" for n in range(6000)]
    orders = {"key": True, "state": 10, "part": part}
    (workdir / "in").write_text("")
    for run_number, parallelism in enumerate((1, 3, 3, 2, 5)):
        with open(workdir / "in", "a") as more:
            more.writelines(key + "\n" for key in keys[run_number * 1200 : (run_number + 1) * 1200])
        (workdir / "log").unlink(missing_ok=True)
        pipeline = COUNTS.replace("PARALLELISM", str(parallelism))
        run = double(pipeline, "--quiet", "--checkpoint", "file", "--checkpoint-interval", "20ms", orders=orders)
        run.end()
        restored = [m["entries"] for m in run.log("restore_end", segment=1)]
        seen = len(set(keys[: run_number * 1200]))
        assert sum(restored) == seen and len(restored) == (parallelism if run_number else 0)
        opens = run.log("open", segment=1)
        assert all(m["manifest"] == ([["count", "unused"], ["count", "counts"]] if run_number else []) for m in opens)
        assert {m["restored_checkpoint"] > 0 for m in opens} == {run_number > 0}
    counts, expected = {}, []
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
        expected.append(f"{key} {counts[key]}")
    written = (workdir / "out").read_text().splitlines()
    assert sorted(written) == sorted(expected)
    for key in counts:
        assert [line for line in written if line.split()[0] == key] == [f"{key} {n + 1}" for n in range(counts[key])]


def test_state_larger_than_what_a_stream_queues(double, workdir):
    (workdir / "in").write_text("".join(f"key{n}-{'x' * 100}\n" for n in range(25000)))
    orders = {"key": True, "state": 1000}
    double(COUNTS.replace("PARALLELISM", "1"), "--quiet", "--checkpoint", "file", orders=orders).end()
    with open(workdir / "in", "a") as more:
        more.write(f"key7-{'x' * 100}\n")
    run = double(COUNTS.replace("PARALLELISM", "1"), "--quiet", "--checkpoint", "file", orders=orders)
    run.end()
    assert [m["entries"] for m in run.log("restore_end", segment=1)] == [25000]
    assert (workdir / "out").read_text().splitlines()[-1] == f"key7-{'x' * 100} 2"


def test_state_of_the_next_checkpoint_waits_for_this_one(double, workdir):
    """Sessions send state early, and acknowledge barriers at different times: none of it gets into the checkpoint before."""
    keys = [f"key{n * n % 97}" for n in range(12000)]
    (workdir / "in").write_text("".join(key + "\n" for key in keys))
    draw, orders = random.Random(5), {"key": True, "state": 10, "early": True, "slow_ack": 5}
    pipeline = COUNTS.replace("PARALLELISM", "4")
    for _ in range(8):
        run = double(pipeline, "--quiet", "--checkpoint", "file", "--checkpoint-interval", "1ms", orders=orders)
        before = (workdir / "file").stat().st_mtime_ns if (workdir / "file").exists() else 0
        wait_until(lambda: (workdir / "file").exists() and (workdir / "file").stat().st_mtime_ns > before or run.process.poll() is not None, "a checkpoint")
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(draw.uniform(0, 0.2))
        children = descendants(run.process.pid)
        run.process.kill()
        run.process.communicate()
        wait_until(lambda: not any(alive(pid) for pid in children), "the double to leave")
        shutil.rmtree(workdir / "tmp")  # it may have been killed before its sessions were open
    double(pipeline, "--quiet", "--checkpoint", "file", orders=orders).end()
    counts = collections.Counter(keys)
    written = (workdir / "out").read_text().splitlines()
    assert sorted(written) == sorted(f"{key} {n + 1}" for key in counts for n in range(counts[key]))


@pytest.mark.parametrize(
    "spoil, words",
    [
        ("checksum", "sent state that is damaged"),
        ("state", "sent an entry of state that cannot be"),
        ("part", "sent an entry of state that cannot be"),
    ],
)
def test_state_that_cannot_be_is_not_kept(double, workdir, spoil, words):
    (workdir / "in").write_text("".join(f"key{n}\n" for n in range(100)))
    orders = {"key": True, "state": 1000, "spoil": spoil}
    run = double(COUNTS.replace("PARALLELISM", "1"), "--quiet", "--checkpoint", "file", orders=orders)
    _, err = run.end(1)
    assert words in err and "there was no checkpoint yet" in err


def test_watermarks_go_on_where_they_were(double, workdir):
    pipeline = """\
name: time
sources:
  in: { kind: file, path: in, timestamp: .ts, out_of_orderness: 5ms }
steps:
  - { name: a, kind: passthrough, parallelism: 2 }
  - { name: b, kind: passthrough, parallelism: PARALLELISM }
sinks:
  out: { kind: discard }
"""
    (workdir / "in").write_text("".join(json.dumps({"ts": 1000 + n}) + "\n" for n in range(100)))
    reached = {}
    for run_number, parallelism in enumerate((1, 4, 1)):
        run = double(pipeline.replace("PARALLELISM", str(parallelism)), "--quiet", "--checkpoint", "file", "--limit", "40")
        run.end()
        for segment, subtasks in ((0, 2), (1, parallelism)):
            last = []
            for subtask in range(subtasks):
                messages = [m for m in run.log(segment=segment, subtask=subtask) if m["kind"] in ("batch", "watermark")]
                times = [m["watermark"] for m in messages if m["kind"] == "watermark"]
                if segment in reached:
                    assert messages[0]["kind"] == "watermark" and reached[segment] <= times[0] < LAST
                # A run that stops does not drain.
                assert (times[-1] == LAST) == (run_number == 2)
                last.append(times[-1])
            reached[segment] = min(last)
        assert run_number > 0 or set(reached.values()) == {1000 + 39 - 5 - 1}
        (workdir / "log").unlink()
