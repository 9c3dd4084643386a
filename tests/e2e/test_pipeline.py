"""bridgectl's commands about pipelines: what they print, what they return, and what others' readers make of it."""

import collections
import json
import os
import pathlib
import random
import shutil
import stat
import subprocess

import jsonschema
import pytest
import yaml

from conftest import BRIDGECTL, TOP

EXAMPLES = sorted((TOP / "examples").glob("*/pipeline.yaml"))
CONFIGS = sorted((TOP / "examples").glob("*/config.yaml"))
GOOD = sorted((TOP / "tests/corpus/pipeline/good").glob("*.yaml"))

SMALL = """\
name: small
sources:
  in: { kind: generator, count: 3 }
steps:
  - { name: a, kind: map, program: . + 1 }
sinks:
  out: { kind: print }
"""


@pytest.fixture(scope="module")
def schemas():
    """The JSON Schemas of pipelines and of configurations, both checked."""

    def schema(*flags):
        text = subprocess.run([str(BRIDGECTL), "schema", *flags], capture_output=True, text=True, check=True).stdout
        parsed = json.loads(text)
        jsonschema.Draft7Validator.check_schema(parsed)
        return jsonschema.Draft7Validator(parsed)

    return schema(), schema("--config")


@pytest.mark.parametrize("path", [*EXAMPLES, *GOOD], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_compiles_fits_the_schema(schemas, path):
    errors = [f"{list(error.absolute_path)}: {error.message}" for error in schemas[0].iter_errors(yaml.safe_load(path.read_text()))]
    assert not errors


@pytest.mark.parametrize("path", [*CONFIGS, *(TOP / "tests/corpus/pipeline/good").glob("*.config")], ids=lambda path: path.parent.name)
def test_configurations_fit_the_schema(schemas, path):
    schemas[1].validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "old, new",
    [
        ("kind: map", "kind: mop"),
        ("program: . + 1", "programm: . + 1"),
        ("program: . + 1", "program: {a: b}"),
        ("count: 3", "count: -3"),
        ("name: small", "title: small"),
        ("name: small", "name: small\nparallelism: 0"),
        ("name: a", "name: 1st"),
    ],
)
def test_the_schema_finds_mistakes(schemas, old, new):
    assert schemas[0].is_valid(yaml.safe_load(SMALL))
    assert not schemas[0].is_valid(yaml.safe_load(SMALL.replace(old, new)))


def test_every_example_compiles_with_and_without_its_configuration(bridgectl):
    assert EXAMPLES
    for path in EXAMPLES:
        bridgectl("check", path)
        if (path.parent / "config.yaml").exists():
            bridgectl("check", path, "--config", path.parent / "config.yaml")


def test_the_descriptor_is_plain_yaml_in_the_layout_of_the_first_bridge(bridgectl):
    text = bridgectl(
        "compile", TOP / "examples/quickstart/pipeline.yaml", "-c", TOP / "examples/quickstart/config.yaml", env={**os.environ, "KAFKA": "k:1"}
    ).stdout
    descriptor = yaml.safe_load(text)
    assert list(descriptor) == ["sources", "steps", "sinks"]
    assert descriptor["sources"]["events"]["bootstrap_servers"] == ["k:1"]
    assert descriptor["sources"]["events"]["stream_name"] == "events"
    assert descriptor["sinks"]["big"]["stream_name"] == "big-purchases"
    assert all(set(step) == {"step_name", "config"} for step in descriptor["steps"])
    assert [step["config"]["id"] for step in descriptor["steps"]] == list(range(len(descriptor["steps"])))
    assert len({step["config"]["topology_hash"] for step in descriptor["steps"]}) == 1
    chain = [step["name"] for segment in descriptor["steps"] for step in segment["config"]["chain"]]
    assert chain == ["valid", "score", "by_user", "split", "bundle"]


def test_texts_survive_another_reader(bridgectl, workdir):
    """What PyYAML reads out of a descriptor is what it read out of the pipeline."""
    texts = ["no", "1e3", "0x1f", "2026-11-21", "a: b", "'\"\\", "tab\there", "line\nbreak", "\u0085\u2028\ufeff", "\U0001f600 é", "~x", "#", "*"]
    pipeline = yaml.safe_load(SMALL)
    pipeline["steps"].append({"name": "b", "kind": "select", "fields": texts})
    (workdir / "p.yaml").write_text(yaml.safe_dump(pipeline))
    descriptor = yaml.safe_load(bridgectl("compile", "p.yaml").stdout)
    assert descriptor["steps"][0]["config"]["chain"][1]["fields"] == texts


def test_compile_writes_a_file_whole_or_not_at_all(bridgectl, workdir):
    (workdir / "p.yaml").write_text(SMALL)
    target = workdir / "d.yaml"
    target.write_text("old")
    (workdir / "bad.yaml").write_text("name: bad\n")
    assert bridgectl("compile", "bad.yaml", "-o", target, check=False).returncode == 1
    assert target.read_text() == "old"
    bridgectl("compile", "p.yaml", "-o", target)
    assert target.read_text() == bridgectl("compile", "p.yaml").stdout
    assert stat.S_IMODE(target.stat().st_mode) & 0o444, "readable as the umask says, not as mkstemp made it"
    assert sorted(path.name for path in workdir.iterdir()) == ["bad.yaml", "d.yaml", "p.yaml"]
    failed = bridgectl("compile", "p.yaml", "-o", workdir / "nowhere/d.yaml", check=False)
    assert failed.returncode == 1
    assert "could not be written: No such file or directory" in failed.stderr


def test_compile_says_when_the_disk_is_full(workdir):
    (workdir / "p.yaml").write_text(SMALL)
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(BRIDGECTL), "compile", workdir / "p.yaml"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left" in done.stderr


def test_pipelines_come_from_standard_input_too(bridgectl):
    assert "name" in bridgectl("compile", "-", input=SMALL).stdout
    assert bridgectl("check", "-", input="name: [", check=False).stderr.startswith("<standard input>:")


def test_check_returns_0_1_and_2(bridgectl, workdir):
    (workdir / "p.yaml").write_text(SMALL)
    assert "is fine: 1 source, 1 step in 1 segment, 1 sink" in bridgectl("check", "p.yaml").stdout
    assert bridgectl("check", "-q", "p.yaml").stdout == ""
    (workdir / "p.yaml").write_text(SMALL.replace("kind: map", "kind: mpa"))
    failed = bridgectl("check", "p.yaml", check=False)
    assert failed.returncode == 1
    assert 'p.yaml:5:22: error: the kind of step "a" cannot be "mpa"' in failed.stderr
    assert 'did you mean "map"?' in failed.stderr
    assert "\033" not in failed.stderr, "colours are for terminals"
    assert bridgectl("check", check=False).returncode == 2
    assert bridgectl("check", "p.yaml", "--nonsense", check=False).returncode == 2


def test_check_looks_into_the_sidecar_section(bridgectl, workdir):
    (workdir / "p.yaml").write_text(SMALL)
    config = workdir / "c.yaml"
    config.write_text('sidecar:\n  slots: "${N}"\n  log_level: debug\n  listen: [":7", "unix:/x"]\n')
    bridgectl("check", "p.yaml", "-c", config, env={**os.environ, "N": "2"})
    (workdir / "out").write_text("kept")
    for command in (["check"], ["explain"], ["compile"], ["run", "-o", "out=out"]):
        config.write_text("sidecar:\n  slotz: 1\n  slots: 500\n  listen: [x]\n  stats:\n  help: true\n")
        failed = bridgectl(*command, "p.yaml", "-c", config, check=False)
        assert failed.returncode == 1
        assert 'c.yaml:2:3: error: unknown key "slotz" in section "sidecar"' in failed.stderr
        assert 'did you mean "slots"?' in failed.stderr
        assert "c.yaml:3:10: error: slots: 500 is out of bounds: from 1 to 128" in failed.stderr
        assert 'c.yaml:4:12: error: listen: "x"' in failed.stderr
        assert 'c.yaml:5:9: error: "stats" of the sidecar is empty' in failed.stderr
        assert 'c.yaml:6:3: error: "help" belongs on the command line' in failed.stderr
        config.write_text("sidecar: [a]\n")
        assert 'the section "sidecar" is a list' in bridgectl(*command, "p.yaml", "-c", config, check=False).stderr
    assert (workdir / "out").read_text() == "kept", "a run that cannot start has not touched its sinks"


def test_a_descriptor_is_no_pipeline(bridgectl, workdir):
    (workdir / "p.yaml").write_text(SMALL)
    bridgectl("compile", "p.yaml", "-o", "d.yaml")
    for command in ("compile", "run"):
        failed = bridgectl(command, "d.yaml", check=False)
        assert failed.returncode == 1
        assert failed.stderr.startswith("d.yaml: error: is a descriptor, not a pipeline\n")


def test_check_finds_programs_that_do_not_compile(bridgectl, workdir):
    (workdir / "p.yaml").write_text(SMALL.replace(". + 1", "'.a |'"))
    failed = bridgectl("check", "p.yaml", "--json", check=False)
    assert failed.returncode == 1
    (finding,) = json.loads(failed.stdout)
    assert (finding["line"], finding["column"]) == (5, 36)
    assert "is no jq program" in finding["message"]


def test_check_looks_into_descriptors(bridgectl, workdir):
    (workdir / "p.yaml").write_text(SMALL)
    bridgectl("compile", "p.yaml", "-o", "d.yaml")
    assert "descriptor of" in bridgectl("check", "d.yaml").stdout
    descriptor = (workdir / "d.yaml").read_text()
    (workdir / "d.yaml").write_text(descriptor.replace("max_parallelism: 128", "max_parallelism: 64"))
    failed = bridgectl("check", "d.yaml", check=False)
    assert failed.returncode == 1
    assert "the topology hash is not that of this file" in failed.stderr
    (workdir / "d.yaml").write_text(descriptor.replace('program: ". + 1"', 'program: ". +"'))
    assert "is no jq program" in bridgectl("check", "d.yaml", check=False).stderr
    assert bridgectl("check", "d.yaml", "-c", "p.yaml", check=False).returncode == 1


KEYED = """\
name: keyed
sources:
  in: { kind: generator, count: 3 }
steps:
  - { name: by_n, kind: key_by, key: . }
  - { name: bundle, kind: batch }
sinks:
  out: { kind: print }
"""


def test_check_against_what_runs(bridgectl, workdir):
    (workdir / "old.yaml").write_text(KEYED)
    bridgectl("compile", "old.yaml", "-o", "running.yaml")
    (workdir / "new.yaml").write_text(KEYED.replace("kind: batch", "kind: batch, size: 3"))
    for old in ("old.yaml", "running.yaml"):
        assert f"new.yaml: takes over the state of {old}\n" in bridgectl("check", "new.yaml", "--against", old).stdout
        assert bridgectl("check", "new.yaml", "--against", old, "--quiet").stdout == ""
        assert json.loads(bridgectl("check", "new.yaml", "--against", old, "--json").stdout) == []
    (workdir / "new.yaml").write_text(KEYED.replace("bundle", "bunch").replace("key: .", "key: .x"))
    bridgectl("compile", "new.yaml", "-o", "next.yaml")
    for old, new, place in (("old.yaml", "new.yaml", (6, 13)), ("running.yaml", "next.yaml", (44, 17))):
        failed = bridgectl("check", new, "--against", old, check=False)
        assert failed.returncode == 1
        assert "this step is gone, and with it its states: bundle.pending, bundle.sums, bundle.due" in failed.stderr
        (finding,) = json.loads(bridgectl("check", new, "--against", old, "--json", check=False).stdout)
        assert (finding["file"], finding["line"], finding["column"]) == (old, *place)
        assert "drop_state: [bundle.pending, bundle.sums, bundle.due]" in finding["hint"]
    dropped = KEYED.replace("bundle", "bunch") + "drop_state: [bundle.pending, bundle.sums, bundle.due]\n"
    (workdir / "new.yaml").write_text(dropped)
    bridgectl("check", "new.yaml", "--against", "running.yaml")
    assert "drops of a checkpoint what does not fit: bundle.pending, bundle.sums" in bridgectl("explain", "new.yaml").stdout
    assert bridgectl("check", "-", "--against", "old.yaml", input=dropped).returncode == 0
    broken = bridgectl("check", "new.yaml", "--against", "nowhere.yaml", check=False)
    assert broken.returncode == 1
    assert "nowhere.yaml" in broken.stderr


def test_json_findings_of_a_file_with_many(bridgectl, workdir):
    (workdir / "p.yaml").write_text("".join(f"x{i}: 1\n" for i in range(500)))
    findings = json.loads(bridgectl("check", "p.yaml", "--json", check=False).stdout)
    assert len(findings) == 100
    text = bridgectl("check", "p.yaml", check=False).stderr
    assert "503 errors, of which the first 100 found are shown" in text


@pytest.mark.parametrize(
    "content, words",
    [
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "aliases are not used here"),
        (b"[" * 5000, "nested deeper than 32 levels"),
        (b"{a: " * 5000, "nested deeper than 32 levels"),
        (b"name: x\nname: y\n", "stands here twice"),
        (b"name: \xff\n", "not UTF-8"),
        (b"- x\n" * 200_000, "more than 100000 values"),
        (b"\0" * 100, "control character"),
        (b"", "the file is empty"),
        (b"a" * (1 << 21), "at most 1024 KiB"),
    ],
    ids=["laughs", "lists", "maps", "twice", "latin1", "values", "nul", "empty", "long"],
)
def test_hostile_files(bridgectl, workdir, content, words):
    (workdir / "p.yaml").write_bytes(content)
    for command in ("check", "compile", "explain", "graph"):
        failed = bridgectl(command, "p.yaml", check=False)
        assert failed.returncode == 1
        assert any(word in failed.stderr for word in words.split("|")), failed.stderr


def test_100_megabytes_are_refused_unread(bridgectl, workdir):
    with open(workdir / "p.yaml", "wb") as file:
        file.truncate(100 << 20)
    for command in ("check", "compile"):
        failed = bridgectl(command, "p.yaml", check=False)
        assert failed.returncode == 1
        assert "the file is too large" in failed.stderr


def test_graph(bridgectl):
    pipeline = TOP / "examples/quickstart/pipeline.yaml"
    mermaid = bridgectl("graph", pipeline).stdout
    assert mermaid.count("subgraph") == mermaid.count("\n  end\n") == 5
    assert '-->|"big"|' in mermaid
    dot = bridgectl("graph", pipeline, "--format", "dot").stdout
    assert dot.count("subgraph cluster_") == 5
    assert 'label="big"' in dot
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=dot, text=True, check=True, capture_output=True)
    wrong = bridgectl("graph", pipeline, "-f", "png", check=False)
    assert wrong.returncode == 2
    assert '"mermaid" or "dot", not "png"' in wrong.stderr


def test_explain_says_the_same_of_a_pipeline_and_its_descriptor(bridgectl, workdir):
    pipeline = TOP / "examples/quickstart/pipeline.yaml"
    bridgectl("compile", pipeline, "-o", workdir / "d.yaml")
    for flags in ([], ["--json"]):
        assert bridgectl("explain", pipeline, *flags).stdout == bridgectl("explain", workdir / "d.yaml", *flags).stdout
    told = json.loads(bridgectl("explain", pipeline, "--json").stdout)
    assert [segment["name"] for segment in told["segments"]] == ["valid", "score", "by_user", "split", "bundle"]
    assert told["segments"][3]["keyed"] and told["segments"][3]["inputs"][0]["partition"] == "hash"
    assert told["segments"][0]["cut"] == "score behind it has parallelism 1, not 2"
    assert "by_user is a key_by" in bridgectl("explain", pipeline).stdout


@pytest.mark.parametrize("command", ["compile", "check", "explain", "graph", "schema"])
def test_help_has_examples(bridgectl, command):
    text = bridgectl(command, "--help").stdout
    assert f"bridgectl {command}" in text
    assert "xample" in text


# ---- Steps that remember, run, and worked out here once more -----------------------------------------------------------


def lines(path):
    """The lines of a file, parsed as JSON."""
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def by_key(records, name="key"):
    """Records in their order, by what is in one of their fields."""
    found = collections.defaultdict(list)
    for record in records:
        found[record[name]].append(record)
    return dict(found)


class Totals:
    """What `aggregate` keeps of a key."""

    def __init__(self):
        self.numbers, self.count = [], 0

    def add(self, number):
        self.count += 1
        self.numbers += [] if number is None else [number]

    def fields(self):
        numbers = self.numbers
        return {
            "n": self.count, "total": sum(numbers), "least": min(numbers, default=None), "most": max(numbers, default=None),
            "mean": sum(numbers) / len(numbers) if numbers else None,
        }  # fmt: skip


def test_the_example_with_state(bridgectl, workdir):
    folder = TOP / "examples/orders_state"
    environment = {**os.environ, "ORDERS": str(folder / "orders.jsonl"), "OUT": str(workdir)}
    bridgectl("run", folder / "pipeline.yaml", "--quiet", env=environment)
    received, totals, seen, failed, expected = collections.Counter(), {}, set(), [], []
    for line in (folder / "orders.jsonl").read_text().splitlines():
        try:
            order = json.loads(line)
        except ValueError:
            failed.append(line)
            continue
        received[order["customer"]] += 1
        if order["order"] in seen:
            continue
        seen.add(order["order"])
        amounts = totals.setdefault(order["customer"], [])
        amounts.append(order["amount"])
        expected.append({"key": order["customer"], "orders": len(amounts), "amount": sum(amounts), "largest": max(amounts),
                         "mean": sum(amounts) / len(amounts)})  # fmt: skip
    assert len(failed) > 1 and sum(received.values()) > len(seen), "the example has what it is about"
    assert (workdir / "failed.jsonl").read_text().splitlines() == failed
    assert {line["key"]: line["messages"] for line in lines(workdir / "received.jsonl")} == received
    assert by_key(lines(workdir / "totals.jsonl")) == by_key(expected)


REMEMBERING = """\
name: remembering
sources:
  in: { kind: file, path: in }
steps:
  - { name: by_k, kind: key_by, key: .k }
  - { name: once, kind: dedup, key: .id, parallelism: 3 }
  - name: totals
    kind: aggregate
    fields: { n: count, total: sum(.v), least: min(.v), most: max(.v), mean: avg(.v) }
    parallelism: 3
  - { name: first, kind: dedup, from: by_k, parallelism: 2 }
  - { name: bunches, kind: batch, from: by_k, size: 7, bytes: 300, parallelism: 3 }
  - { name: heaps, kind: batch, from: in, size: 100, time: 1h }
sinks:
  totals: { kind: file, path: totals, from: totals }
  first: { kind: file, path: first, from: first }
  bunches: { kind: file, path: bunches, from: bunches }
  heaps: { kind: file, path: heaps, from: heaps }
"""


@pytest.mark.parametrize("flags", [[], ["--slots", "1"], ["--checkpoint", "file"]], ids=["slots", "slot", "checkpoint"])
def test_steps_that_remember(bridgectl, workdir, flags):
    roll = random.Random(7)
    records = [
        {"k": f"k{min(roll.randrange(40), roll.randrange(40))}", "id": roll.randrange(300), "v": roll.choice([None, roll.randrange(-99, 99)]),
         "pad": "x" * roll.randrange(60)}
        for _ in range(3000)
    ]  # fmt: skip
    (workdir / "in").write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))
    (workdir / "p.yaml").write_text(REMEMBERING)
    bridgectl("run", "p.yaml", "--quiet", *flags)

    totals, seen, expected = collections.defaultdict(Totals), set(), []
    for record in records:
        if (record["k"], record["id"]) not in seen:
            seen.add((record["k"], record["id"]))
            totals[record["k"]].add(record["v"])
            expected.append({"key": record["k"], **totals[record["k"]].fields()})
    assert len(seen) < len(records)
    assert by_key(lines(workdir / "totals")) == by_key(expected)

    assert by_key(lines(workdir / "first"), "k") == {key: found[:1] for key, found in by_key(records, "k").items()}

    bunches, size = collections.defaultdict(lambda: [[]]), collections.Counter()
    for record in records:
        key, more = record["k"], len(json.dumps(record, separators=(",", ":")))
        if bunches[key][-1] and size[key] + more > 300:
            bunches[key].append([])
            size[key] = 0
        bunches[key][-1].append(record)
        size[key] += more
        if len(bunches[key][-1]) == 7 or size[key] >= 300:
            bunches[key].append([])
            size[key] = 0
    got = collections.defaultdict(list)
    for bunch in lines(workdir / "bunches"):
        got[bunch[0]["k"]].append(bunch)
    assert got == {key: [bunch for bunch in found if bunch] for key, found in bunches.items()}

    assert lines(workdir / "heaps") == [records[at : at + 100] for at in range(0, len(records), 100)]


@pytest.mark.parametrize("emit, more", [("event_time", ""), ("processing_time", ", fire_at_end: true"), ("processing_time", "")])
def test_totals_by_a_timer(bridgectl, workdir, emit, more):
    """When each key is emitted depends on how far time has come meanwhile; all of it together does not, where the end fires timers."""
    records = [{"k": f"k{at % 7}", "at": at * 10, "v": at} for at in range(2000)]
    (workdir / "in").write_text("".join(json.dumps(record) + "\n" for record in records))
    (workdir / "p.yaml").write_text(f"""\
name: timed
sources:
  in: {{ kind: file, path: in, timestamp: .at }}
steps:
  - {{ name: by_k, kind: key_by, key: .k }}
  - {{ name: totals, kind: aggregate, fields: {{ n: count, v: sum(.v) }}, emit: {emit}, every: 1h{more}, parallelism: 2 }}
  - {{ name: stamp, kind: enrich, fields: {{ at: timestamp }}, parallelism: 2 }}
sinks:
  out: {{ kind: file, path: out }}
""")
    bridgectl("run", "p.yaml", "--quiet")
    got = by_key(lines(workdir / "out"))
    if emit == "processing_time" and not more:
        assert got == {}
        return
    for key, found in by_key(records, "k").items():
        assert sum(total["n"] for total in got[key]) == len(found)
        assert sum(total["v"] for total in got[key]) == sum(record["v"] for record in found)
        if emit == "event_time":
            assert [total["at"] for total in got[key]] == [3_600_000]


def test_dead_letters(bridgectl, workdir):
    values = [1, "x", 3, None, [5], 6, {"a": 7}]
    (workdir / "in").write_text("".join(json.dumps({"v": value}) + "\n" for value in values) + "no json\n")
    (workdir / "p.yaml").write_text("""\
name: careful
on_error: dead_letter
sources:
  in: { kind: file, path: in }
steps:
  - { name: shift, kind: map, program: .v += 1 }
  - { name: big, kind: filter, program: 'if .v > 6 then error("too big") else true end' }
  - { name: last, kind: map, program: error, from: big, on_error: skip }
  - name: why
    kind: enrich
    from: big.dead_letter
    fields: { error: header.bridge-error, step: header.bridge-error-step, segment: header.bridge-error-segment }
    on_error: fail
sinks:
  out: { kind: file, path: out, from: big }
  none: { kind: file, path: none, from: last }
  why: { kind: file, path: why, from: why }
  dead: { kind: file, path: dead, from: dead_letter }
""")
    bridgectl("run", "p.yaml", "--quiet")
    assert [line["v"] for line in lines(workdir / "out")] == [2, 4, 1]
    assert lines(workdir / "none") == []
    assert (workdir / "dead").read_text().splitlines() == ['{"v": "x"}', '{"v": [5]}', '{"v": {"a": 7}}', "no json"]
    assert lines(workdir / "why") == [{"v": 7, "error": "too big; payload: {\"v\": 6}", "step": "big", "segment": "shift..big"}]
