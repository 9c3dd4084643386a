"""`bridgectl run`: whole pipelines on this machine, what they write, how they end, and that nothing is left behind."""

import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess

import pytest

from conftest import BRIDGECTL, PATIENCE, SANITIZER_REPORT, TOP, alive, descendants, memory_kib, wait_until

QUICKSTART = TOP / "examples/quickstart"


def lines(path):
    """The lines of a file, parsed as JSON."""
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


class Run:
    """A `bridgectl run` that goes on while the test does."""

    def __init__(self, workdir, arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE):
        self.temporary = workdir / "tmp"
        self.temporary.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        environment.pop("XDG_RUNTIME_DIR", None)
        self.process = subprocess.Popen(
            [str(BRIDGECTL), "run", *map(str, arguments)],
            cwd=workdir, env=environment, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.children = []

    def wait_for_sidecar(self):
        """Waits until all sessions are open: the private folder is gone then. Returns the sidecar's process ids, supervisor first."""

        def look():
            assert self.process.poll() is None, self.process.stderr.read()
            self.children = descendants(self.process.pid) or self.children
            return len(self.children) >= 3 and not list(self.temporary.iterdir())

        wait_until(look, "the sidecar to serve and the private folder to be removed")
        return self.children

    def end(self, code):
        """Waits for the end; checks the exit code and that nothing is left. Returns standard output and standard error."""
        out, err = self.process.communicate(timeout=PATIENCE * 2)
        assert not SANITIZER_REPORT.search(err), err
        assert self.process.returncode == code, f"exit {self.process.returncode}\n{out}{err}"
        assert not list(self.temporary.iterdir()), "the private folder is left"
        assert not [pid for pid in self.children if alive(pid)], "a process is left"
        return out, err

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        self.process.wait()


@pytest.fixture
def start(workdir):
    """Starts a run of a pipeline's text in the background: start(pipeline, *arguments, stdin=..., stdout=...)."""
    runs = []

    def make(pipeline, *arguments, **options):
        (workdir / "pipeline.yaml").write_text(pipeline)
        runs.append(Run(workdir, ["pipeline.yaml", *arguments], **options))
        return runs[-1]

    yield make
    for run in runs:
        run.kill()


@pytest.fixture
def run(workdir, start):
    """Runs the text of a pipeline to its end: run(pipeline, *arguments, code=0, stdin=text). Returns out, err and the JSON summary."""

    def make(pipeline, *arguments, code=0, stdin=""):
        given = workdir / "given"
        given.write_text(stdin)
        with open(given) as source:
            out, err = start(pipeline, "--json", *arguments, stdin=source).end(code)
        text = next((line for line in [*out.splitlines(), *err.splitlines()] if line.startswith('{"pipeline"')), "{}")
        return out, err, json.loads(text)

    return make


# ---- What comes out ----------------------------------------------------------------------------------------------------


def test_a_deployment_need_not_speak_of_the_sidecar(run, workdir):
    """It changes parallelism and source alone; the steps run on as many subtasks as it says."""
    pipeline = "name: p\nsources: { in: { kind: file, path: '-' } }\nsteps: [ { name: s, kind: passthrough } ]\nsinks: { out: { kind: print } }\n"
    config = workdir / "c.yaml"
    config.write_text("parallelism: 3\nsources: { in: { kind: generator, count: 4 } }\n")
    out, _, summary = run(pipeline, "-c", config)
    assert sorted(out.split()) == ["0", "1", "2", "3"]
    assert [segment["parallelism"] for segment in summary["segments"]] == [3]


def test_quickstart(workdir):
    done = subprocess.run(
        [str(BRIDGECTL), "run", "pipeline.yaml", "--slots", "2", "--json"],
        cwd=QUICKSTART, env={**os.environ, "EVENTS": "events.jsonl", "OUT": str(workdir / "out")}, capture_output=True, text=True,
        timeout=PATIENCE * 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {"big": [], "small": []}
    for event in lines(QUICKSTART / "events.jsonl"):
        if event.get("user") is None:
            continue
        event["score"] = (event.get("amount") or 0) * (2 if event["type"] == "purchase" else 1)
        expected["big" if event["type"] == "purchase" and event["amount"] > 100 else "small"].append(event)
    bundles, small = lines(workdir / "out/big.jsonl"), lines(workdir / "out/small.jsonl")

    def text(records):
        return sorted(json.dumps(record, sort_keys=True) for record in records)

    assert all(1 <= len(bundle) <= 10 for bundle in bundles)
    assert text(record for bundle in bundles for record in bundle) == text(expected["big"])
    assert text(small) == text(expected["small"])
    summary = json.loads(done.stdout)
    assert summary["status"] == "finished" and summary["slots"] == 2
    assert summary["records_in"] == len(lines(QUICKSTART / "events.jsonl"))
    assert summary["records_out"] == len(bundles) + len(small)


KEYED = """\
name: keyed
sources:
  in: { kind: file, path: "-" }
steps:
  - { name: by_k, kind: key_by, key: .k }
  - { name: collect, kind: batch, size: 1000000, bytes: 64KiB, parallelism: 4 }
  - { name: apart, kind: flat_map, program: ".[]", parallelism: 4 }
sinks:
  out: { kind: file, path: out }
"""


def test_keys_stay_together_and_in_order(run, workdir):
    records = [{"k": f"key {n % 61}", "n": n} for n in range(20000)]
    _, _, summary = run(KEYED, stdin="".join(json.dumps(record) + "\n" for record in records))
    of_key = collections.defaultdict(list)
    for record in lines(workdir / "out"):
        of_key[record["k"]].append(record["n"])
    assert len(of_key) == 61
    assert all(numbers == [n for n in range(20000) if f"key {n % 61}" == key] for key, numbers in of_key.items())
    assert summary["segments"][-1]["parallelism"] == 4


def test_a_key_has_one_subtask(run, workdir):
    pipeline = """\
name: gather
parallelism: 3
sources:
  in: { kind: file, path: "-" }
steps:
  - { name: by_k, kind: key_by, key: .k }
  - { name: collect, kind: batch, size: 1000000, bytes: 900KiB, parallelism: 4 }
sinks:
  out: { kind: file, path: out }
"""
    run(pipeline, stdin="".join(json.dumps({"k": n % 40}) + "\n" for n in range(2000)))
    # A batch behind key_by is of one key; were a key on two subtasks, it would have two.
    assert sorted(lines(workdir / "out"), key=lambda batch: batch[0]["k"]) == [[{"k": k}] * 50 for k in range(40)]


def test_routes(run, workdir):
    pipeline = """\
name: routes
parallelism: 2
sources:
  in: { kind: generator, count: 3000 }
steps:
  - name: split
    kind: route
    routes: { fizz: ". % 3 == 0", buzz: ". % 5 == 0", rest: default }
  - { name: double, kind: map, program: ". * 2", from: split.buzz }
sinks:
  fizz: { kind: file, path: fizz, from: split.fizz }
  buzz: { kind: file, path: buzz, from: double }
  rest: { kind: file, path: rest, from: split.rest }
"""
    run(pipeline)
    assert sorted(lines(workdir / "fizz")) == [n for n in range(3000) if n % 3 == 0]
    assert sorted(lines(workdir / "buzz")) == [n * 2 for n in range(3000) if n % 3 and n % 5 == 0]
    assert sorted(lines(workdir / "rest")) == [n for n in range(3000) if n % 3 and n % 5]


def test_broadcast_and_union(run, workdir):
    pipeline = """\
name: both
sources:
  one: { kind: generator, count: 500, program: "{a: .}" }
  two: { kind: generator, count: 300, program: "{b: .}" }
steps:
  - { name: copy, kind: broadcast, routes: [left, right], from: [one, two] }
  - { name: mark, kind: map, program: ".marked = true", from: copy.right, parallelism: 3 }
  - { name: all, kind: passthrough, from: [copy.left, mark], parallelism: 2 }
sinks:
  out: { kind: file, path: out, from: all }
"""
    _, _, summary = run(pipeline)
    expected = [{"a": n} for n in range(500)] + [{"b": n} for n in range(300)]
    expected += [{**record, "marked": True} for record in expected]
    key = lambda record: json.dumps(record, sort_keys=True)  # noqa: E731
    assert sorted(lines(workdir / "out"), key=key) == sorted(expected, key=key)
    assert summary["records_in"] == 800 and summary["records_out"] == 1600


def test_batch_by_size(run, workdir):
    pipeline = """\
name: sizes
sources:
  in: { kind: generator, count: 1003 }
steps:
  - { name: collect, kind: batch, size: 100 }
sinks:
  out: { kind: file, path: out }
"""
    run(pipeline)
    batches = lines(workdir / "out")
    assert [len(batch) for batch in batches] == [100] * 10 + [3]
    assert [n for batch in batches for n in batch] == list(range(1003))


def test_batch_by_time_while_the_input_pauses(start):
    pipeline = """\
name: times
sources:
  in: { kind: file, path: "-" }
steps:
  - { name: collect, kind: batch, size: 1000, time: 50ms }
sinks:
  out: { kind: print }
"""
    running = start(pipeline, "--quiet", stdin=subprocess.PIPE)
    for n in range(3):
        running.process.stdin.write(f"{n}\n")
        running.process.stdin.flush()
        assert json.loads(running.process.stdout.readline()) == [n]
    out, _ = running.end(0)
    assert out == ""


def test_payload_bytes_are_kept(run, workdir):
    text = 'plain\n\n  spaces  \nwith\ttab\rand "quotes"\ncrlf\r\nünï€ 🎉\nno end'
    pipeline = """\
name: text
sources:
  in: { kind: file, path: "-" }
steps:
  - { name: same, kind: passthrough }
  - { name: upper, kind: map, program: ascii_upcase, payload: text }
sinks:
  out: { kind: file, path: deep/er/out }
"""
    run(pipeline, stdin=text)
    # Every line ends with LF, and a CR before it is not part of the line, as in Flink.
    expected = text.upper().replace("ÜNÏ", "üNï").replace("\r\n", "\n") + "\n"
    assert (workdir / "deep/er/out").read_bytes().decode() == expected


def test_a_record_larger_than_a_batch_and_one_too_large(run, workdir):
    pipeline = "name: p\nsources: {in: {kind: file, path: '-'}}\nsteps: [{name: s, kind: passthrough}]\nsinks: {out: {kind: file, path: out}}\n"
    text = "\n".join(["x" * 10, "y" * 900_000, "z" * 20, "v" * 1_000_000])
    _, _, summary = run(pipeline, stdin=text)
    assert (workdir / "out").read_text() == text + "\n" and summary["records_out"] == 4
    _, err, summary = run(pipeline, stdin="ok\n" + "w" * 1_100_000 + "\n", code=1)
    assert "larger than" in err and "message-max" in err and "wwww" in err
    assert summary["status"] == "failed"


def test_nothing_in_nothing_out(run, workdir):
    _, _, summary = run(KEYED)
    assert (workdir / "out").read_bytes() == b""
    assert summary["records_in"] == summary["records_out"] == 0 and summary["status"] == "finished"


def test_limit_counts_over_all_sources(run):
    pipeline = """\
name: endless
sources:
  one: { kind: generator }
  two: { kind: generator, rate: 50 }
steps:
  - { name: s, kind: passthrough, from: [one, two], parallelism: 2 }
sinks:
  out: { kind: discard }
"""
    _, _, summary = run(pipeline, "--limit", "12345")
    assert summary["records_in"] == summary["records_out"] == 12345


def test_generator_rate_is_kept(run):
    pipeline = "name: p\nsources: {in: {kind: generator, rate: 100, count: 20}}\nsteps: [{name: s, kind: passthrough}]\nsinks: {out: {kind: discard}}\n"
    _, _, summary = run(pipeline)
    assert summary["records_in"] == 20 and summary["seconds"] >= 0.19


def test_watermarks_reach_every_segment(start, workdir):
    pipeline = """\
name: time
parallelism: 2
sources:
  in: { kind: file, path: "-", timestamp: .ts, out_of_orderness: 1s }
steps:
  - { name: by_k, kind: key_by, key: .k }
  - { name: same, kind: passthrough }
sinks:
  out: { kind: discard }
"""
    running = start(pipeline, "--stats", workdir / "stats", stdin=subprocess.PIPE)
    running.wait_for_sidecar()
    running.process.stdin.write("".join(json.dumps({"k": n, "ts": 1_000_000 + n}) + "\n" for n in range(100)))
    running.process.stdin.flush()

    def seen():
        answer = subprocess.run(
            [str(BRIDGECTL), "segments", "--json", "--stats", "stats"], cwd=workdir, capture_output=True, text=True, check=True
        )
        segments = json.loads(answer.stdout)["segments"]
        return len(segments) == 2 and all(segment["records_in"] == 100 for segment in segments)

    wait_until(seen, "all records to pass both segments")
    out, err = running.end(0)
    assert "finished: 100 records in, 100 out" in err


# ---- Ends that options change ----------------------------------------------------------------------------------------------

KAFKA = """\
name: topics
sources:
  in: { kind: kafka, bootstrap_servers: ["localhost:9092"], stream_name: events }
steps:
  - { name: s, kind: passthrough }
sinks:
  out: { kind: kafka, bootstrap_servers: ["localhost:9092"], stream_name: results }
"""


def test_kafka_is_refused_and_can_be_replaced(run):
    _, err, _ = run(KAFKA, code=1)
    assert "Kafka" in err and "--input in=PATH" in err
    _, err, _ = run(KAFKA, "--input", "in=-", code=1)
    assert "Kafka" in err and "--output out=PATH" in err
    out, _, _ = run(KAFKA, "--input", "in=-", "--output", "out=-", stdin="a\nb\n")
    assert out == "a\nb\n"
    out, _, _ = run(KAFKA, "-i", "-", "-o", "-", stdin="a\nb\n")  # one of each: no need to name them
    assert out == "a\nb\n"


@pytest.mark.parametrize("how, word", [("partition: broadcast", "broadcast"), ("partition_by: .n", "custom")])
def test_partitions_that_only_flink_has(run, how, word):
    """They are refused where they would mean something, and make no difference to a single subtask."""
    pipeline = (
        "name: spread\nsources: { in: { kind: generator, count: 3, program: '{n: .}' } }\n"
        f"steps: [{{ name: s, kind: map, program: .n, {how}, parallelism: 2 }}]\nsinks: {{ out: {{ kind: print }} }}\n"
    )
    _, err, _ = run(pipeline, code=1)
    assert f'segment "s" is read by the partition {word}, which only Flink has' in err
    out, _, _ = run(pipeline.replace("parallelism: 2", "parallelism: 1"))
    assert out == "0\n1\n2\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--input", "inn=x"], 'no source "inn", did you mean "in"?'),
        (["--output", "other=x"], 'no sink "other"'),
        (["--slots", "0"], "--slots wants a number from 1 to 128"),
        (["--slots", "10000"], "--slots wants a number from 1 to 128"),
        (["--limit", "-1"], "--limit wants a number"),
        (["--inptu", "x"], 'unknown option "--inptu", did you mean "--input"?'),
        (["another.yaml"], 'unexpected argument "another.yaml"'),
    ],
)
def test_misuse(run, arguments, words):
    _, err, _ = run(KAFKA, *arguments, code=2)
    assert words in err and "Try `bridgectl help run`" in err


def test_a_sink_does_not_overwrite_its_source(run, workdir):
    (workdir / "data").write_text("precious\n")
    _, err, _ = run(KAFKA, "--input", "in=data", "--output", "out=./data", code=1)
    assert 'would overwrite ./data, which is the file of source "in"' in err
    assert (workdir / "data").read_text() == "precious\n"


TWO = """\
name: two
sources:
  in: { kind: generator, count: 3000, program: '[., ("x" * 3000)]' }
steps:
  - { name: copy, kind: broadcast, routes: [a, b] }
sinks:
  one: { kind: print, from: copy.a }
  two: { kind: print, from: copy.b }
"""


def test_two_sinks_on_one_pipe_tear_no_lines(start):
    out, _ = start(TWO, "--quiet").end(0)
    numbers = [json.loads(line)[0] for line in out.splitlines()]
    assert sorted(numbers) == sorted([*range(3000), *range(3000)])


@pytest.mark.parametrize("seed", range(3))
def test_records_of_all_sizes_through_everything(start, workdir, seed):
    pipeline = """\
name: mixed
parallelism: 2
sources:
  in: { kind: file, path: data }
  more: { kind: generator, count: 5000, program: "{k: ., text: (\\"y\\" * (. % 300 + 1))}" }
steps:
  - { name: first, kind: passthrough, from: [in, more] }
  - { name: by_k, kind: key_by, key: ".k | tostring", parallelism: 1 }
  - { name: copy, kind: broadcast, routes: [left, right], parallelism: 3 }
  - { name: left, kind: passthrough, from: copy.left, parallelism: 1 }
  - { name: back, kind: passthrough, from: [left, copy.right], parallelism: 2 }
sinks:
  out: { kind: print, from: back }
  file: { kind: file, path: out, from: back }
"""
    draw = random.Random(seed)
    sizes = [draw.choice([0, 1, 90, 3000, 3001, 60_000, 262_144, 400_000]) for _ in range(120)] + [draw.randrange(2000) for _ in range(4000)]
    draw.shuffle(sizes)
    records = [{"k": n % 50, "n": n, "text": "x" * size} for n, size in enumerate(sizes)]
    (workdir / "data").write_text("".join(json.dumps(record) + "\n" for record in records))
    out, _ = start(pipeline, "--quiet", "--slots", "2").end(0)
    expected = 2 * sum(record["n"] * 1_000_003 + len(record["text"]) for record in records)
    for text in (out, (workdir / "out").read_text()):
        seen = [json.loads(line) for line in text.splitlines()]
        assert len(seen) == 2 * (5000 + len(records))
        assert sum(record["n"] * 1_000_003 + len(record["text"]) for record in seen if "n" in record) == expected


def test_two_sinks_do_not_share_a_file(run):
    _, err, _ = run(TWO, "-o", "one=same", "-o", "two=./same", code=1)
    assert 'sink "two" would overwrite ./same, which is the file of sink "one"' in err


def test_a_named_pipe_without_a_writer_does_not_hang(start, workdir):
    os.mkfifo(workdir / "pipe")
    running = start(KAFKA, "--quiet", "-i", "pipe", "-o", "out")
    running.wait_for_sidecar()
    with open(workdir / "pipe", "w") as pipe:
        pipe.write("late\n")
    running.end(0)
    assert (workdir / "out").read_text() == "late\n"
    running = start(KAFKA, "--quiet", "-i", "pipe", "-o", "out")
    running.wait_for_sidecar()
    running.process.send_signal(signal.SIGINT)
    running.end(130)


# ---- What goes wrong -------------------------------------------------------------------------------------------------------


def test_a_broken_pipeline_is_explained(run):
    _, err, _ = run(KAFKA.replace("kind: passthrough", "kind: map, programm: ."), code=1)
    assert "pipeline.yaml:5" in err and 'did you mean "program"' in err


def test_missing_files(run):
    _, err, _ = run(KAFKA, "--input", "in=/nowhere/file", "--output", "out=-", code=1)
    assert 'source "in": cannot open /nowhere/file: No such file or directory' in err
    _, err, _ = run(KAFKA, "--input", "in=-", "--output", "out=given/below", code=1)
    assert 'sink "out"' in err and "given" in err and ("Not a directory" in err or "File exists" in err)


def test_a_failing_step_names_everything_once(run):
    pipeline = """\
name: fails
sources:
  in: { kind: file, path: "-" }
steps:
  - { name: fine, kind: passthrough }
  - { name: divide, kind: map, program: "{x: (10 / .n)}" }
sinks:
  out: { kind: file, path: out }
"""
    _, err, summary = run(pipeline, stdin='{"n": 1}\n{"n": "zero"}\n{"n": 2}\n', code=1)
    told = err.split('{"pipeline"')[0]
    assert 'segment "fine..divide" step "divide" record' in told and '{"n": "zero"}' in told
    assert told.count("cannot be divided") == told.count("zero\"}") == 1
    assert summary["status"] == "failed" and "divide" in summary["failure"]


def test_a_timestamp_that_is_none(run):
    pipeline = KAFKA.replace("in: {", "in: { timestamp: .ts,").replace("kafka, bootstrap_servers: [\"localhost:9092\"], stream_name: events", "file, path: '-'")
    _, err, _ = run(pipeline, "--output", "out=-", stdin='{"ts": 1}\n{"ts": "late"}\n', code=1)
    assert 'source "in": no timestamp for record 2' in err and '{"ts": "late"}' in err


def test_a_full_disk(run):
    pipeline = "name: p\nsources: {in: {kind: generator, count: 100000}}\nsteps: [{name: s, kind: passthrough}]\nsinks: {out: {kind: file, path: /dev/full}}\n"
    _, err, summary = run(pipeline, code=1)
    assert 'sink "out": cannot write /dev/full: No space left on device' in err
    assert summary["status"] == "failed"


def test_a_reader_that_leaves(start):
    pipeline = "name: p\nsources: {in: {kind: generator}}\nsteps: [{name: s, kind: passthrough}]\nsinks: {out: {kind: print}}\n"
    running = start(pipeline, "--quiet")
    assert running.process.stdout.readline() == "0\n"
    running.process.stdout.close()
    running.process.stdout = None
    _, err = running.end(1)
    assert "standard output: Broken pipe" in err


def test_no_bridged(run):
    _, err, _ = run(KAFKA, "-i", "-", "-o", "-", "--bridged", "/nowhere/bridged", code=1)
    assert "cannot run /nowhere/bridged" in err and "--bridged" in err
    _, err, _ = run(KAFKA, "-i", "-", "-o", "-", "--bridged", "/bin/false", code=1)
    assert "the sidecar ended with exit code 1" in err


# ---- Signals, and what is left ---------------------------------------------------------------------------------------------

ENDLESS = """\
name: endless
parallelism: 2
sources:
  in: { kind: generator, rate: 2000 }
steps:
  - { name: by_n, kind: key_by, key: ". % 7 | tostring" }
  - { name: collect, kind: batch, size: 100000, bytes: 256KiB }
sinks:
  out: { kind: file, path: out }
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_drains(start, workdir, number, code):
    running = start(ENDLESS, "--json")
    running.wait_for_sidecar()
    running.process.send_signal(number)
    out, err = running.end(code)
    summary = json.loads(out)
    batches = lines(workdir / "out")
    assert summary["status"] == "interrupted" and "stopping" in err
    assert sum(len(batch) for batch in batches) == summary["records_in"], "what was read was not finished"


BLOCKED = """\
name: blocked
sources:
  in: { kind: generator, program: "{n: ., text: (\\"x\\" * 1000)}" }
steps:
  - { name: one, kind: passthrough, parallelism: 2 }
  - { name: two, kind: passthrough, parallelism: 1 }
sinks:
  out: { kind: print }
"""


def test_back_pressure_bounds_memory_and_the_second_signal_hurries(start):
    running = start(BLOCKED, "--quiet")
    sidecar = running.wait_for_sidecar()

    def pids():
        return [running.process.pid, *sidecar]

    def jiffies():
        return sum(sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for pid in pids())

    seen = [-1]

    def still():
        # Nobody reads standard output: the source must come to rest, not only slow down.
        seen.append(jiffies())
        return len(seen) > 60 and seen[-1] == seen[-40]

    wait_until(still, "the source to stop reading because the sink is full")
    assert memory_kib(running.process.pid, "Rss") < 150 * 1024
    # Once somebody reads it goes on, beyond all that was on its way.
    assert all(running.process.stdout.readline() for _ in range(20000))
    running.process.send_signal(signal.SIGINT)
    running.process.send_signal(signal.SIGTERM)  # another one, so that the two cannot become one
    running.end(130)


def test_sigkill_leaves_nothing(start):
    running = start(ENDLESS, "--quiet")
    sidecar = running.wait_for_sidecar()
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in sidecar), "the sidecar to leave")
    assert not list(running.temporary.iterdir())


def test_the_sidecar_dies(start):
    running = start(ENDLESS, "--quiet")
    sidecar = running.wait_for_sidecar()
    os.kill(sidecar[0], signal.SIGKILL)
    _, err = running.end(1)
    assert "the sidecar was killed by signal 9 (Killed)" in err


def test_a_run_outlives_its_workers(start, workdir):
    running = start(ENDLESS, "--json", "--slots", "1", "--stats", workdir / "stats")
    sidecar = running.wait_for_sidecar()

    def worker():
        answer = subprocess.run([str(BRIDGECTL), "slots", "--json", "--stats", "stats"], cwd=workdir, capture_output=True, check=True)
        return json.loads(answer.stdout)["slots"][0]["pid"]

    first = worker()
    assert first in sidecar
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: worker() not in (0, None, first), "an heir to take the slot over")
    running.wait_for_sidecar()
    running.process.send_signal(signal.SIGINT)
    out, err = running.end(130)
    summary = json.loads(out)
    assert "worker 0" in err and "died of signal 9" in err
    numbers = [n for batch in lines(workdir / "out") for n in batch]
    assert sorted(numbers) == list(range(summary["records_in"]))


# ---- The other commands -----------------------------------------------------------------------------------------------------


def test_stats_commands(bridged, bridgectl):
    sidecar = bridged(KAFKA, slots=2)
    for command in ("stats", "slots", "sessions", "segments", "health"):
        text = bridgectl(command, "--stats", sidecar.stats_path).stdout
        assert text.strip() and not text.startswith("{")
        parsed = json.loads(bridgectl(command, "--stats", sidecar.stats_path, "--json").stdout)
        assert isinstance(parsed, dict) and parsed
    by_environment = bridgectl("health", "--json", env={**os.environ, "BRIDGE_STATS": sidecar.stats_path}).stdout
    assert json.loads(by_environment)["healthy"] is True


def test_watch_goes_on_until_the_sidecar_is_gone(bridged):
    sidecar = bridged(KAFKA)
    command = [str(BRIDGECTL), "slots", "--json", "--interval", "10ms", "--stats", sidecar.stats_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        for _ in range(3):
            assert "slots" in json.loads(watching.stdout.readline())
        sidecar.stop()
        watching.stdout.read()
        assert watching.wait(PATIENCE) == 1
        assert "stats socket" in watching.stderr.read()


def test_stats_without_a_sidecar(bridgectl, workdir):
    environment = {name: value for name, value in os.environ.items() if name != "BRIDGE_STATS"}
    done = bridgectl("health", check=False, env=environment)
    assert done.returncode == 2 and "--stats PATH" in done.stderr
    done = bridgectl("slots", "--stats", workdir / "none", check=False)
    assert done.returncode == 1 and "No such file" in done.stderr and "running" in done.stderr


def test_health_is_a_probe(bridged, bridgectl):
    sidecar = bridged(KAFKA)
    assert bridgectl("health", "--stats", sidecar.stats_path).returncode == 0
    worker = descendants(sidecar.pid)
    for pid in worker:
        os.kill(pid, signal.SIGSTOP)
    for pid in worker:
        os.kill(pid, signal.SIGKILL)
    codes = set()

    def both():
        codes.add(bridgectl("health", "--stats", sidecar.stats_path, check=False).returncode)
        return 0 in codes

    wait_until(both, "the sidecar to be well again")
    assert codes <= {0, 1}


def test_help_version_and_mistakes(bridgectl):
    assert "Usage: bridgectl" in bridgectl("--help").stdout
    assert bridgectl("--version").stdout.startswith("bridgectl ")
    overview = bridgectl("help").stdout
    for command in ("compile", "check", "run", "stats", "health", "completion"):
        assert command in overview
        page = bridgectl("help", command).stdout
        assert page == bridgectl(command, "--help").stdout
        assert "Examples:" in page and "--help" in page
    assert "no second engine" in bridgectl("help", "run").stdout
    done = bridgectl("rnu", check=False)
    assert done.returncode == 2 and 'did you mean "run"?' in done.stderr
    assert bridgectl(check=False).returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(bridgectl, shell, workdir):
    script = bridgectl("completion", shell).stdout
    assert "--slots" in script.replace(" -l slots", " --slots") and "sessions" in script
    if shell == "bash":
        (workdir / "completion").write_text(script)
        ask = "source ./completion; COMP_WORDS=(bridgectl run --sl); COMP_CWORD=2; _bridgectl; echo ${COMPREPLY[@]};"
        ask += "COMP_WORDS=(bridgectl heal); COMP_CWORD=1; _bridgectl; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", ask], cwd=workdir, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["--slots", "health"] and not done.stderr
    assert bridgectl("completion", "tcsh", check=False).returncode == 2


def test_help_into_a_full_disk_fails(bridgectl):
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(BRIDGECTL), "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "No space left" in done.stderr
