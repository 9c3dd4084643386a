"""`bridgectl run --checkpoint`: exactly once, whatever is killed when, and what is refused because it could not be."""

import collections
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time

import pytest

from conftest import BRIDGECTL, PATIENCE, SANITIZER_REPORT, alive, descendants, wait_until

ROUNDS = int(os.environ.get("RUN_CHECKPOINT_ROUNDS", "1"))  # of the tests that kill; more seeds for whoever wants them


class Run:
    """A `bridgectl run` in the background."""

    def __init__(self, workdir, arguments):
        environment = {**os.environ, "TMPDIR": str(workdir / "tmp")}
        environment.pop("XDG_RUNTIME_DIR", None)
        (workdir / "tmp").mkdir(exist_ok=True)
        self.err = workdir / "err"
        with open(self.err, "w") as err:
            self.process = subprocess.Popen(
                [str(BRIDGECTL), "run", *map(str, arguments)], cwd=workdir, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=err, text=True,
            )  # fmt: skip
        self.children = []

    def look(self):
        """Notes the processes of its sidecar; returns them, bridged itself first."""
        self.children = descendants(self.process.pid) or self.children
        return self.children

    def end(self, *codes):
        """Waits for the end; returns the exit code, standard output and standard error."""
        out, _ = self.process.communicate(timeout=PATIENCE * 3)
        err = self.err.read_text()
        assert not SANITIZER_REPORT.search(err), err
        assert self.process.returncode in codes, f"exit {self.process.returncode}\n{out}{err}"
        return self.process.returncode, out, err

    def kill(self):
        """SIGKILL to bridgectl; its sidecar goes with it."""
        self.look()
        self.process.kill()
        self.process.communicate()
        wait_until(lambda: not any(alive(pid) for pid in self.children), "the sidecar to leave")


@pytest.fixture
def start(workdir):
    """start(pipeline, *arguments): a run with --checkpoint file, in the background."""
    runs = []

    def make(pipeline, *arguments, checkpoint="file"):
        (workdir / "pipeline.yaml").write_text(pipeline)
        runs.append(Run(workdir, ["pipeline.yaml", "--checkpoint", checkpoint, *arguments]))
        return runs[-1]

    yield make
    for run in runs:
        if run.process.poll() is None:
            run.kill()


@pytest.fixture
def run(start):
    """run(pipeline, *arguments, code=0): to its end. Returns standard error and the JSON summary (None when there is none)."""

    def make(pipeline, *arguments, code=0, checkpoint="file"):
        _, out, err = start(pipeline, "--json", *arguments, checkpoint=checkpoint).end(code)
        return err, json.loads(out) if out else None

    return make


def write_numbers(path, numbers, mode="w"):
    """Lines {"n": n}."""
    with open(path, mode) as file:
        file.writelines(json.dumps({"n": n}) + "\n" for n in numbers)


def numbers(path):
    """What write_numbers wrote."""
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


PLAIN = """\
name: plain
sources:
  in: { kind: file, path: in }
steps:
  - { name: s, kind: passthrough }
sinks:
  out: { kind: file, path: out }
"""
GENERATED = PLAIN.replace("kind: file, path: in", "kind: generator, count: 5000, program: '{n: .}'")


# ---- Going on ----------------------------------------------------------------------------------------------------------


def test_a_finished_run_has_nothing_to_do_until_there_is_more(run, workdir):
    write_numbers(workdir / "in", range(1000))
    err, summary = run(PLAIN)
    assert summary["status"] == "finished" and summary["checkpoint"]["made"] >= 1 and summary["checkpoint"]["restored"] == 0
    last = summary["checkpoint"]["last"]
    err, summary = run(PLAIN)
    assert f"nothing to do: all input was processed up to checkpoint {last} in file" in err
    assert summary["records_in"] == 0 and summary["status"] == "finished" and summary["checkpoint"]["last"] == last
    write_numbers(workdir / "in", range(1000, 1500), "a")
    err, summary = run(PLAIN)
    assert f"going on from checkpoint {last} in file" in err
    assert summary["records_in"] == 500 and summary["checkpoint"]["restored"] == last < summary["checkpoint"]["last"]
    assert numbers(workdir / "out") == list(range(1500))
    assert "nothing to do" in run(PLAIN)[0]


@pytest.mark.parametrize("pipeline", [PLAIN, GENERATED], ids=["file", "generator"])
def test_limit_stops_with_a_checkpoint_and_the_next_run_goes_on(run, workdir, pipeline):
    write_numbers(workdir / "in", range(5000))
    for done in (2000, 4000):
        _, summary = run(pipeline, "--limit", "2000")
        assert summary["records_in"] == 2000
        assert numbers(workdir / "out") == list(range(done))
    _, summary = run(pipeline, "--limit", "2000")
    assert summary["records_in"] == 1000 and summary["status"] == "finished"
    assert numbers(workdir / "out") == list(range(5000))


def test_ctrl_c_stops_with_a_checkpoint(start, workdir):
    pipeline = PLAIN.replace("kind: file, path: in", "kind: generator, rate: 3000, program: '{n: .}'")
    seen = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        running = start(pipeline, "--checkpoint-interval", "1h", "--json")
        size = (workdir / "out").stat().st_size if seen else 0
        wait_until(lambda: (workdir / "out").exists() and (workdir / "out").stat().st_size > size + 3000, "some output")
        running.process.send_signal(number)
        _, out, err = running.end(code)
        assert "writing a checkpoint to go on from" in err
        summary = json.loads(out)
        assert summary["status"] == "interrupted" and summary["checkpoint"]["made"] == 1
        written = numbers(workdir / "out")
        assert written == list(range(len(written)))
        assert len(written) == seen + summary["records_in"]
        seen = len(written)


def test_lines_without_an_end(run, workdir):
    (workdir / "in").write_text("one\ntwo")
    run(PLAIN)
    with open(workdir / "in", "a") as more:
        more.write("\nthree\r")
    run(PLAIN)
    with open(workdir / "in", "a") as more:
        more.write("\nfour\n")
    run(PLAIN)
    assert (workdir / "out").read_text() == "one\ntwo\nthree\nfour\n"
    with open(workdir / "in", "a") as more:
        more.write("five")
    run(PLAIN)
    with open(workdir / "in", "a") as more:
        more.write(" and more\n")
    err, _ = run(PLAIN, code=2)
    assert "line 5 of in had no end when it was read, and goes on now" in err


def test_what_lies_beyond_the_checkpoint_is_cut(run, workdir):
    write_numbers(workdir / "in", range(100))
    run(PLAIN)
    with open(workdir / "out", "a") as out:
        out.write("of a run that was killed\n" * 1000)
    write_numbers(workdir / "in", range(100, 200), "a")
    run(PLAIN)
    assert numbers(workdir / "out") == list(range(200))


def test_a_run_that_fails_says_how_to_go_on(run, start, workdir):
    write_numbers(workdir / "in", range(1000))
    run(PLAIN)
    fails = PLAIN.replace("kind: passthrough", 'kind: map, program: "if .n == 1500 then error(\\"no\\") else . end"')
    write_numbers(workdir / "in", range(1000, 2000), "a")
    err, summary = run(fails, code=1)
    assert '"n":1500' in err.replace(" ", "") and f"start again with the same command to go on from checkpoint {summary['checkpoint']['last']}" in err
    err, _ = run(PLAIN)
    assert numbers(workdir / "out") == list(range(2000))


# ---- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pipeline, words",
    [
        (PLAIN.replace("path: in", 'path: "-"'), 'source "in" reads standard input, which cannot be read again'),
        (PLAIN.replace("path: in", "path: pipe"), 'source "in": pipe is no regular file: it cannot be read again'),
        (PLAIN.replace("file, path: out", "print"), 'sink "out" writes to standard output, which cannot be cut back'),
        (PLAIN.replace("path: out", 'path: "-"'), 'sink "out" writes to standard output, which cannot be cut back'),
        (PLAIN.replace("path: out", "path: /dev/null"), 'sink "out": /dev/null is no regular file: it cannot be cut back'),
    ],
)
def test_what_cannot_be_exact_is_refused(run, workdir, pipeline, words):
    write_numbers(workdir / "in", range(10))
    os.mkfifo(workdir / "pipe")
    err, _ = run(pipeline, code=2)
    assert words in err and "--checkpoint" in err


def test_another_pipeline_is_refused(run, workdir):
    write_numbers(workdir / "in", range(10))
    run(PLAIN)
    kept = (workdir / "out").read_bytes()
    err, _ = run(PLAIN.replace("name: plain", "name: other"), code=2)
    assert 'the checkpoint file is of pipeline "plain", not of "other"' in err
    err, _ = run(PLAIN.replace("name: plain", "name: plain\nmax_parallelism: 64"), code=2)
    assert "cannot all be taken over" in err and "max_parallelism" in err
    assert (workdir / "out").read_bytes() == kept


def test_a_pipeline_that_has_changed_goes_on_if_nothing_is_lost(run, workdir):
    write_numbers(workdir / "in", range(10))
    write_numbers(workdir / "also", range(1000, 1010))
    run(PLAIN)
    write_numbers(workdir / "in", range(10, 20), "a")
    changed = """\
name: plain
sources:
  also: { kind: file, path: also }
  in: { kind: file, path: in }
steps:
  - { name: s, kind: passthrough, from: [in, also] }
  - { name: by, kind: key_by, key: .n }
  - { name: t, kind: passthrough }
sinks:
  new: { kind: file, path: new }
  out: { kind: file, path: out, from: t }
""".replace("path: new }", "path: new, from: s }")
    _, summary = run(changed)
    assert summary["records_in"] == 20
    written = numbers(workdir / "out")
    assert written[:10] == list(range(10)) and sorted(written[10:]) == [*range(10, 20), *range(1000, 1010)]
    assert sorted(numbers(workdir / "new")) == [*range(10, 20), *range(1000, 1010)]


def test_other_ends_are_refused(run, workdir):
    write_numbers(workdir / "in", range(10))
    (workdir / "copy").write_bytes((workdir / "in").read_bytes())
    run(PLAIN)
    err, _ = run(PLAIN, "--input", "in=copy", code=2)
    assert 'source "in" reads' in err and "/copy, and read" in err
    (workdir / "precious").write_text("not to be cut\n" * 100)
    err, _ = run(PLAIN, "--output", "out=precious", code=2)
    assert 'sink "out" writes' in err and "/precious, and wrote" in err
    assert (workdir / "precious").read_text() == "not to be cut\n" * 100
    err, _ = run(PLAIN.replace("kind: file, path: out", "kind: discard"), code=2)
    assert 'sink "out" writes nothing, and wrote' in err
    err, _ = run(PLAIN.replace("kind: file, path: in", "kind: generator, count: 10"), code=2)
    assert 'source "in" is of kind generator, and of kind file in the checkpoint file' in err


def test_files_that_were_changed_are_refused(run, workdir):
    write_numbers(workdir / "in", range(100))
    run(PLAIN)
    read = (workdir / "in").read_bytes()
    (workdir / "in").write_bytes(read[:500])
    err, _ = run(PLAIN, code=2)
    assert f'in has 500 bytes, and {len(read)} of it have been read: it was cut or replaced' in err
    (workdir / "in").write_bytes(b"x" + read[1:] + b"more\n")
    err, _ = run(PLAIN, code=2)
    assert "in is not the file that was read: it was replaced" in err
    (workdir / "in").write_bytes(read)
    written = (workdir / "out").read_bytes()
    (workdir / "out").write_bytes(written[:-1])
    err, _ = run(PLAIN, code=2)
    assert 'sink "out": out has' in err and "it was cut or replaced" in err
    (workdir / "out").write_bytes(written[:-2] + b"x\n")
    err, _ = run(PLAIN, code=2)
    assert 'sink "out": out does not hold what was written there' in err
    (workdir / "out").write_bytes(written)
    assert "nothing to do" in run(PLAIN)[0]


def test_files_that_are_no_checkpoint_are_refused(run, workdir):
    write_numbers(workdir / "in", range(10))
    (workdir / "out").write_text("kept\n")
    err, _ = run(PLAIN, checkpoint="in", code=2)
    assert "in is no checkpoint: it is no SQLite file" in err
    with sqlite3.connect(workdir / "mine") as mine:
        mine.execute("CREATE TABLE t (x)")
    mine.close()
    err, _ = run(PLAIN, checkpoint="mine", code=2)
    assert "mine is no checkpoint: it is an SQLite file of another program" in err
    assert (workdir / "out").read_text() == "kept\n" and numbers(workdir / "in") == list(range(10))
    run(PLAIN)
    with sqlite3.connect(workdir / "file") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    err, _ = run(PLAIN, code=2)
    assert "the checkpoint file has format 99" in err
    err, _ = run(PLAIN, checkpoint="no/such/folder/file", code=1)
    assert "cannot open the checkpoint no/such/folder/file: No such file or directory" in err


def test_names_that_mean_something_else(run, workdir):
    write_numbers(workdir / "in", range(10))
    err, _ = run(PLAIN, "--output", "out=./file", code=2)
    assert 'sink "out" would overwrite ./file, which is the checkpoint' in err
    run(PLAIN, checkpoint=":memory:")
    assert "nothing to do" in run(PLAIN, checkpoint=":memory:")[0] and (workdir / ":memory:").stat().st_size > 0


def test_misuse(run):
    err, _ = run(PLAIN, "--checkpoint-interval", "soon", code=2)
    assert '--checkpoint-interval wants a time from 1ms to 24h, such as 500ms or 10s, not "soon"' in err
    done = subprocess.run([str(BRIDGECTL), "run", "p", "--checkpoint-interval", "1s"], capture_output=True, text=True)
    assert done.returncode == 2 and "--checkpoint FILE" in done.stderr


def test_two_runs_do_not_share_a_checkpoint(start, run, workdir):
    pipeline = PLAIN.replace("kind: file, path: in", "kind: generator, rate: 100, program: '{n: .}'")
    running = start(pipeline, "--quiet")
    wait_until(lambda: (workdir / "out").exists() and (workdir / "out").stat().st_size > 0, "some output")
    err, _ = run(pipeline, code=1)
    assert "the checkpoint file is in use by another run" in err
    running.process.send_signal(signal.SIGINT)
    running.end(130)
    written = numbers(workdir / "out")
    assert written == list(range(len(written)))


def test_a_sink_that_somebody_else_writes_fails_the_run(start, workdir):
    pipeline = PLAIN.replace("kind: file, path: in", "kind: generator, rate: 1000, program: '{n: .}'")
    running = start(pipeline, "--quiet", "--checkpoint-interval", "5ms")
    wait_until(lambda: (workdir / "out").exists() and (workdir / "out").stat().st_size > 0, "some output")
    with open(workdir / "out", "a") as out:
        out.write("x" * 100_000)
    _, _, err = running.end(1)
    assert "somebody else changes it" in err


# ---- Killed ------------------------------------------------------------------------------------------------------------


def size(workdir, outputs):
    """Bytes of the outputs, as far as they are there."""
    return sum((workdir / name).stat().st_size for name in outputs if (workdir / name).exists())


def wait_for_moment(running, workdir, outputs, draw, most):
    """Lets a run go on for a while: so long that it may not even have begun, until its outputs have grown by some bytes, or until it has
    written some checkpoints and a bit. Whether it still runs."""
    what = draw.choice(["moment", "growth", "checkpoints", "checkpoints"])
    moment = time.monotonic() + (draw.uniform(0, 0.2) if what == "moment" else PATIENCE)
    growth, checkpoints = draw.randrange(most), draw.randint(1, 4)
    least, file, seen = size(workdir, outputs), workdir / "file", set()
    while time.monotonic() < moment and running.process.poll() is None:
        least = min(size(workdir, outputs), least)  # what lies beyond the checkpoint is cut first
        if file.exists():
            seen.add(file.stat().st_mtime_ns)
        if what == "growth" and size(workdir, outputs) >= least + growth:
            break
        if what == "checkpoints" and len(seen) > 1 + checkpoints:
            what, moment = "moment", time.monotonic() + draw.uniform(0, 0.03)
        time.sleep(0.001)
    return running.process.poll() is None


def run_and_kill(running, workdir, outputs, draw, most):
    """Kills a run, its sidecar, or processes of the sidecar, which the run may outlive. Returns its exit code; None: bridgectl was killed."""
    while wait_for_moment(running, workdir, outputs, draw, most):
        sidecar = running.look()
        if draw.random() < 0.4 or not sidecar:
            running.kill()
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(sidecar[0] if draw.random() < 0.5 else draw.choice(sidecar), signal.SIGKILL)
    code, _, err = running.end(0, 1)
    assert code == 0 or "start again with the same command" in err or "the same command begins anew" in err, err
    return code


def run_until_done(start, workdir, pipeline, outputs, draw, kills, most, options):
    """Starts again and again, and kills, `kills` times or until it is done; then lets it finish. Returns the number of kills."""
    for killed in range(kills):
        running = start(pipeline(), "--quiet", "--checkpoint-interval", draw.choice(["2ms", "10ms", "30ms"]), *options())
        if run_and_kill(running, workdir, outputs, draw, most) == 0:
            return killed
    start(pipeline(), "--quiet", *options()).end(0)
    return kills


ROUTED = """\
name: routed
sources:
  in: { kind: file, path: in }
  more: { kind: generator, count: 30000, program: "{k: (. % 13 | tostring), m: .}" }
steps:
  - { name: by_k, kind: key_by, key: .k, from: [in, more] }
  - { name: mark, kind: set, fields: { seen: "true" }, parallelism: 3 }
  - { name: split, kind: route, parallelism: 3, routes: { odd: ".n and .n % 2 == 1", rest: default } }
  - { name: copy, kind: broadcast, from: split.rest, parallelism: 3, routes: [left, right] }
  - { name: again, kind: passthrough, from: [copy.right, split.odd], parallelism: 3 }
sinks:
  odd: { kind: file, path: odd, from: split.odd }
  left: { kind: file, path: left, from: copy.left }
  again: { kind: file, path: again, from: again }
"""


def check_routed(workdir):
    """What ROUTED must have written: per key, every record once and in order."""
    records = [{"k": f"key {n % 31}", "n": n} for n in range(60000)] + [{"k": str(n % 13), "m": n} for n in range(30000)]
    wanted = {"odd": collections.defaultdict(list), "left": collections.defaultdict(list), "again": collections.defaultdict(list)}
    for record in records:
        odd = record.get("n", 0) % 2 == 1
        for sink in ("odd", "again") if odd else ("left", "again"):
            wanted[sink][record["k"], odd].append(record.get("n", record.get("m")))
    for sink, expected in wanted.items():
        seen = collections.defaultdict(list)
        for line in (workdir / sink).read_text().splitlines():
            record = json.loads(line)
            assert record["seen"] is True
            seen[record["k"], record.get("n", 0) % 2 == 1].append(record.get("n", record.get("m")))
        assert seen == expected, sink


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
def test_killed_anywhere_it_writes_every_record_once(start, workdir, seed):
    draw = random.Random(seed)
    with open(workdir / "in", "w") as file:
        file.writelines(json.dumps({"k": f"key {n % 31}", "n": n}) + "\n" for n in range(60000))
    outputs, slots = ("odd", "left", "again"), lambda: ["--slots", str(draw.randint(1, 3))]
    assert run_until_done(start, workdir, lambda: ROUTED, outputs, draw, 12, 700_000, slots) >= 1
    check_routed(workdir)


# ---- Killed, with state ------------------------------------------------------------------------------------------------

STATEFUL = """\
name: stateful
sources:
  in: { kind: file, path: in, timestamp: .ts }
  more: { kind: generator, count: MADE, program: '{k: "more \\(. % 17)", n: ., id: (. % 3000), ts: .}', timestamp: .ts }
steps:
  - { name: by_k, kind: key_by, key: .k, from: [in, more] }
  - { name: unique, kind: dedup, key: .id, parallelism: WIDE }
  - { name: copy, kind: broadcast, routes: [totals, timed, bundles, spread], parallelism: WIDE }
  - { name: for_totals, kind: key_by, key: .k, from: copy.totals, parallelism: WIDE }
  - { name: totals, kind: aggregate, parallelism: NARROW, fields: { n: count, sum: sum(.n), most: max(.n) } }
  - { name: for_timed, kind: key_by, key: .k, from: copy.timed, parallelism: WIDE }
  - { name: timed, kind: aggregate, parallelism: WIDE, fields: { n: count, sum: sum(.n) }, emit: event_time, every: 2s }
  - { name: for_clocked, kind: key_by, key: .k, from: copy.timed, parallelism: NARROW }
  - { name: clocked, kind: aggregate, parallelism: WIDE, fields: { n: count, sum: sum(.n) }, emit: processing_time, every: 40ms, fire_at_end: true }
  - { name: for_bundles, kind: key_by, key: .k, from: copy.bundles, parallelism: WIDE }
  - { name: bundles, kind: batch, size: 7, parallelism: NARROW }
  - { name: parts, kind: route, parallelism: NARROW, routes: { even: ".[0].n % 2 == 0", odd: default } }
  - { name: loose, kind: batch, size: 5, from: copy.spread, parallelism: WIDE }
sinks:
  totals: { kind: file, path: totals, from: totals }
  timed: { kind: file, path: timed, from: timed }
  clocked: { kind: file, path: clocked, from: clocked }
  even: { kind: file, path: even, from: parts.even }
  odd: { kind: file, path: odd, from: parts.odd }
  loose: { kind: file, path: loose, from: loose }
"""
READ, MADE = 20000, 12000


def stateful(wide, narrow):
    """STATEFUL with its parallelisms."""
    return STATEFUL.replace("MADE", str(MADE)).replace("WIDE", str(wide)).replace("NARROW", str(narrow))


def parsed(path):
    """The lines of a file, as JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_key(records, key=lambda record: record["key"]):
    """Records by their key, in order."""
    found = collections.defaultdict(list)
    for record in records:
        found[key(record)].append(record)
    return dict(found)


def read_records():
    """What the file of STATEFUL holds: some ids come again."""
    return [{"k": f"key {n * n % 97}", "n": n, "id": n % 7000, "ts": n} for n in range(READ)]


def check_stateful(workdir):
    """What STATEFUL must have written, computed independently."""
    made = [{"k": f"more {n % 17}", "n": n, "id": n % 3000, "ts": n} for n in range(MADE)]
    unique, seen = collections.defaultdict(list), set()
    for record in read_records() + made:
        if (record["k"], record["id"]) not in seen:
            seen.add((record["k"], record["id"]))
            unique[record["k"]].append(record)
    numbers_of = {key: [record["n"] for record in records] for key, records in unique.items()}

    totals = by_key(parsed(workdir / "totals"))
    assert totals == {
        key: [{"key": key, "n": i + 1, "sum": sum(ns[: i + 1]), "most": max(ns[: i + 1])} for i in range(len(ns))]
        for key, ns in numbers_of.items()
    }
    for name in ("timed", "clocked"):  # when they were emitted depends on watermarks and clocks, what they add up to does not
        emitted = by_key(parsed(workdir / name))
        assert {key: sum(record["n"] for record in of) for key, of in emitted.items()} == {k: len(ns) for k, ns in numbers_of.items()}
        assert {key: sum(record["sum"] for record in of) for key, of in emitted.items()} == {k: sum(ns) for k, ns in numbers_of.items()}
    bundles = {key: [records[at : at + 7] for at in range(0, len(records), 7)] for key, records in unique.items()}
    for name, rest in (("even", 0), ("odd", 1)):
        of_key = {key: [bundle for bundle in of_key if bundle[0]["n"] % 2 == rest] for key, of_key in bundles.items()}
        assert by_key(parsed(workdir / name), lambda bundle: bundle[0]["k"]) == {key: of for key, of in of_key.items() if of}, name
    loose = parsed(workdir / "loose")
    assert all(1 <= len(batch) <= 5 for batch in loose)
    assert sorted((r["k"], r["n"]) for batch in loose for r in batch) == sorted((k, n) for k, ns in numbers_of.items() for n in ns)


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
@pytest.mark.timeout(PATIENCE * 10)
def test_killed_anywhere_state_counts_every_record_once(start, workdir, seed):
    """SIGKILL of bridgectl or bridged at random, started again with other slots and other parallelisms each time."""
    draw = random.Random(seed)
    with open(workdir / "in", "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in read_records())
    outputs = ("totals", "timed", "clocked", "even", "odd", "loose")
    pipeline, slots = lambda: stateful(draw.randint(1, 4), draw.randint(1, 3)), lambda: ["--slots", str(draw.randint(1, 3))]
    assert run_until_done(start, workdir, pipeline, outputs, draw, 15, 1_000_000, slots) >= 1
    check_stateful(workdir)


def test_state_goes_on_when_more_is_appended(run, workdir):
    """Not killed at all: the end of one run and the beginning of the next one, at other parallelisms."""
    records = read_records()
    for part in range(4):
        with open(workdir / "in", "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records[part * READ // 4 : (part + 1) * READ // 4])
        run(stateful(part + 1, 3 - part % 3).replace("size: 7", "size: 1"))
    totals = by_key(parsed(workdir / "totals"))
    unique = {(record["k"], record["id"]): record["n"] for record in reversed(records)}
    for key in {record["k"] for record in records}:
        numbers_of = sorted(n for (k, _), n in unique.items() if k == key)
        assert [record["sum"] for record in totals[key]] == [sum(numbers_of[: i + 1]) for i in range(len(numbers_of))]


KEYED = """\
name: keyed
DROP
sources:
  in: { kind: file, path: in }
steps:
  - { name: by_k, kind: key_by, key: .k }
  - { name: unique, kind: dedup, key: .n, segment: work, parallelism: 2 }
  - { name: totals, kind: aggregate, fields: { n: count }, parallelism: 2 }
sinks:
  out: { kind: file, path: out }
"""


def test_state_that_has_no_place_any_more_is_refused_or_dropped_as_the_pipeline_says(run, workdir):
    def append(numbers):
        with open(workdir / "in", "a") as file:
            file.writelines(json.dumps({"k": "k", "n": n}) + "\n" for n in numbers)

    append([1, 2, 1, 3])
    run(KEYED.replace("DROP\n", ""))
    append([1, 4])
    without = KEYED.replace("name: unique, kind: dedup, key: .n", "name: unique, kind: passthrough")
    err, _ = run(without.replace("DROP\n", ""), code=2)
    assert "unique.identities" in err and "drop_state" in err and "cannot all be taken over" in err
    err, summary = run(without.replace("DROP", "drop_state: [unique.keys, unique.identities]"))
    assert [record["n"] for record in parsed(workdir / "out")] == [1, 2, 3, 4, 5]
    append([1])
    run(KEYED.replace("DROP\n", ""))  # it begins without memory
    assert [record["n"] for record in parsed(workdir / "out")] == [1, 2, 3, 4, 5, 6]
    with sqlite3.connect(workdir / "file") as file:
        states = file.execute("SELECT segment, step, name, (SELECT count(*) FROM entry WHERE state = id) FROM state ORDER BY 2, 3").fetchall()
    file.close()
    assert ("work", "totals", "totals", 1) in states and ("work", "unique", "identities", 1) in states
