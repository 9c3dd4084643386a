"""`bridgectl test`: cases against the worker's own code, what is said of them, and what `--update` makes of their files."""

import json
import pathlib
import subprocess
import xml.etree.ElementTree

import jsonschema
import pytest
import yaml

from conftest import BRIDGECTL, PATIENCE, TOP

SHOP = """\
name: shop
sources:
  events: { kind: file, path: events.jsonl, timestamp: .ts }
steps:
  - { name: valid, kind: filter, program: .user != null }
  - { name: by_user, kind: key_by, key: .user }
  - { name: totals, kind: aggregate, fields: { n: count, sum: sum(.amount) } }
sinks:
  totals: { kind: file, path: totals.jsonl }
"""


@pytest.fixture
def cases(tmp_path):
    """Writes files, runs `bridgectl test` over them, and checks the exit code."""

    def run(text, *flags, code=0, **files):
        (tmp_path / "pipeline.yaml").write_text(SHOP)
        for name, body in files.items():
            (tmp_path / name.replace("_", ".", 1)).write_text(body)
        path = tmp_path / "x.test.yaml"
        if text is not None:
            path.write_text(text)
        done = subprocess.run([str(BRIDGECTL), "test", str(path), *flags], capture_output=True, text=True, timeout=PATIENCE * 2)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    run.path = tmp_path / "x.test.yaml"
    return run


def pipeline(steps, sink="{ kind: discard }", source="{ kind: generator }", more=""):
    """An inline pipeline, as a key of a file of cases."""
    return f"pipeline:\n  name: p\n  sources:\n    in: {source}\n{more}  steps:\n{steps}  sinks:\n    out: {sink}\n"


def test_records_state_and_restarts(cases):
    """What steps remember outlives the worker and the job, at whatever parallelism; keys keep their order."""
    cases(
        """\
pipeline: pipeline.yaml
cases:
  - name: totals go on
    events:
      - json: { user: ada, amount: 1, ts: 5 }
      - json: { user: null, amount: 1, ts: 5 }
      - restart: worker
      - json: { user: ada, amount: 2, ts: 6 }
      - json: { user: bob, amount: 7, ts: 6 }
      - expect:
          totals:
            order: by_key
            records:
              - { json: { key: bob, n: 1, sum: 7 }, key: bob, timestamp: 6 }
              - { json: { key: ada, n: 1, sum: 1 }, key: ada, timestamp: 5 }
              - { json: { key: ada, n: 2, sum: 3 }, key: ada, timestamp: 6 }
      - restart: job
        parallelism: 5
      - json: { user: ada, amount: 3, ts: 7 }
      - restart: job
        parallelism: 2
      - restart: worker
      - json: { user: bob, amount: 1, ts: 7 }
      - end
    expect:
      totals:
        - json: { sum: 6, n: 3, key: ada }
        - json: { key: bob, n: 2, sum: 8 }
"""
    )


def test_a_large_state_is_restored(cases):
    """Entries that do not fit into one message travel in parts."""
    steps = "    - { name: b, kind: batch, size: 4, bytes: 8MiB }\n"
    word = "x" * 100000
    record = f"      - json: {{ w: {word} }}\n"
    out = cases(
        pipeline(steps, "{ kind: print }")
        + "cases:\n  - name: large\n    events:\n"
        + record * 3
        + "      - restart: job\n      - restart: job\n        parallelism: 2\n      - end\n    expect: { out: [] }\n",
        "--json",
        code=1,
    )
    failure = json.loads(out.stdout)["cases"][0]["failure"]
    assert "expected 0 records, got" in failure and word[:1000] in failure


def test_event_time(cases):
    """Watermarks fire timers; the least of several sources counts, but for those that are idle."""
    text = pipeline(
        "    - { name: k, kind: key_by, key: .k, from: [in, other] }\n"
        "    - { name: t, kind: aggregate, fields: { n: count }, emit: event_time, every: 10s }\n",
        "{ kind: print }",
        more="    other: { kind: generator }\n",
    )
    cases(
        text
        + """\
cases:
  - name: the least watermark counts
    events:
      - { json: { k: a }, source: in, timestamp: 1s }
      - { watermark: 10s, source: in }
      - expect: { out: [] }
      - { watermark: 9999ms, source: other }
      - expect: { out: [] }
      - { idle: true, source: other }
    expect:
      out:
        - { json: { key: a, n: 1 }, key: a, timestamp: 10s }
  - name: a restored job knows the watermark
    events:
      - { json: { k: a }, source: in, timestamp: 11s }
      - watermark: 10s
      - restart: job
        parallelism: 2
      - expect: { out: [] }
      - watermark: 20s
      - expect:
          out:
            - json: { key: a, n: 1 }
  - name: the end is the largest watermark
    events:
      - { json: { k: a }, source: other, timestamp: 11s }
      - end
    expect:
      out:
        - json: { key: a, n: 1 }
"""
    )


def test_watermarks_of_sources(cases):
    """Behind each record comes what its source makes of it; those of the case count, too."""
    text = pipeline(
        "    - { name: k, kind: key_by, key: .k }\n"
        "    - { name: t, kind: aggregate, fields: { n: count }, emit: event_time, every: 10s }\n",
        "{ kind: print }",
        "{ kind: generator, timestamp: .t, out_of_orderness: 5s }",
    )
    cases(
        text
        + """\
watermarks: source
parallelism: 2
cases:
  - name: follows
    events:
      - json: { k: a, t: 1000 }
      - json: { k: a, t: 15000 }
      - json: { k: b, t: 2000 }
      - expect: { out: [] }
      - json: { k: a, t: 15001 }
      - expect: { out: { order: any, records: [ { json: { key: a, n: 3 } }, { json: { key: b, n: 1 } } ] } }
      - json: { k: c, t: 1 }
      - watermark: 20s
    expect: { out: [ { json: { key: c, n: 1 } } ] }
  - name: does not
    watermarks: case
    events: [ { json: { k: a, t: 1000 } }, { json: { k: a, t: 90000 } } ]
    expect: {}
"""
    )


def test_processing_time(cases):
    """Each tick comes at its own time, however far time is advanced at once."""
    steps = (
        "    - { name: k, kind: key_by, key: .k }\n"
        "    - { name: t, kind: aggregate, fields: { n: count }, emit: processing_time, every: 10s, reset: false }\n"
    )
    cases(
        pipeline(steps, "{ kind: print }")
        + """\
start: 1h
cases:
  - name: ticks
    events:
      - json: { k: a }
      - advance: 9999ms
      - expect: { out: [] }
      - advance: 1ms
      - expect: { out: [ { json: { key: a, n: 1 } } ] }
      - json: { k: a }
      - advance: 1h
      - expect: { out: [ { json: { key: a, n: 2 } } ] }
"""
    )


def test_payloads_headers_dead_letters(cases):
    steps = (
        "    - { name: e, kind: enrich, fields: { h: header.trace, t: timestamp }, headers: { trace: .a }, on_error: dead_letter }\n"
    )
    text = pipeline(steps, "{ kind: discard, from: e }\n    bad: { kind: print, from: e.dead_letter }")
    cases(
        text
        + """\
cases:
  - name: payloads
    events:
      - { json: { a: "1", b: [1.5, -2, 1e3, true, ~, "true", 08] }, headers: { trace: x, other: y }, timestamp: -5 }
      - { text: "no JSON", headers: { trace: x } }
      - { base64: "//4=" }
    expect:
      out:
        - json: { a: "1", b: [1.5, -2, 1000, true, null, "true", "08"], h: x, t: -5 }
          headers: { trace: "1", other: y }
      bad:
        - { text: "no JSON", headers: { trace: x, bridge-error-step: e } }
        - { base64: "//4=", headers: { bridge-error-step: e } }
"""
    )


def test_one_segment_alone(cases):
    """Its inputs are called after what they come from, its outputs after its routes."""
    text = """\
pipeline: pipeline.yaml
segment: totals
cases:
  - name: alone
    events:
      - { json: { amount: 4 }, key: ada }
    expect:
      out: [ { json: { key: ada, n: 1, sum: 4 } } ]
"""
    cases(text)
    assert "segment \"totals\" is keyed: a record needs a `key`" in cases(text.replace(", key: ada }", " }"), code=1).stdout
    assert 'no segment "total"; it has valid..by_user, totals' in cases(text.replace("totals\n", "total\n"), code=1).stdout


def test_failures(cases):
    """A job that fails is expected to, by step and words; one that does not fail is not."""
    head = "pipeline: pipeline.yaml\ncases:\n  - name: fails\n    events:\n      - json: { user: [1], amount: x, ts: 1 }\n"
    cases(head + "    fails: { step: totals, message: not a number }\n", code=1)
    said = cases(head, code=1).stdout
    assert 'the job failed in step "totals"' in said and "x.test.yaml:5:9" in said
    cases(head + "    fails: true\n")
    cases(head + "    fails: { step: totals }\n")
    assert 'step "valid" was expected to fail; "totals" did' in cases(head + "    fails: { step: valid }\n", code=1).stdout
    assert "was expected to fail, and has not" in cases(head.replace("x,", "1,") + "    fails: true\n", code=1).stdout


@pytest.mark.parametrize("policy, expect", [("fail", "fails: { step: spin }"), ("dead_letter", "expect: { bad: [ { json: 2 } ], out: [ { json: 1 }, { json: 3 } ] }")])
def test_a_worker_that_hangs(cases, policy, expect):
    """It is killed, its successor is careful, and the input that killed two of them goes the way of the policy."""
    steps = f'    - {{ name: spin, kind: map, program: "if . == 2 then last(range(1e18)) else . end", on_error: {policy} }}\n'
    sink = "{ kind: discard, from: spin }" + ("\n    bad: { kind: print, from: spin.dead_letter }" if policy == "dead_letter" else "")
    cases(
        pipeline(steps, sink)
        + "cases:\n  - name: hangs\n    events:\n      - batch: [ { json: 1 }, { json: 2 }, { json: 3 } ]\n    "
        + expect
        + "\n",
        "--timeout",
        "1s",
    )


def test_a_difference_is_shown(cases):
    said = cases(
        """\
pipeline: pipeline.yaml
cases:
  - name: wrong
    events:
      - json: { user: ada, amount: 1, ts: 1 }
      - json: { user: ada, amount: 1, ts: 2 }
      - json: { user: ada, amount: 1, ts: 3 }
    expect:
      totals:
        - json: { key: ada, n: 1, sum: 1 }
        - json: { key: ada, n: 2, sum: 3 }
""",
        code=1,
    ).stdout
    assert 'sink "totals": expected 2 records, got 3' in said and "x.test.yaml:9:7" in said
    assert '\n      {"key":"ada","n":1,"sum":1}\n' in said
    assert '\n    - {"key":"ada","n":2,"sum":3}\n    + {"key":"ada","n":2,"sum":2}\n        .sum: expected 3, got 2\n' in said
    assert '\n    + {"key":"ada","n":3,"sum":3}\n' in said
    assert "\033" not in said and "0 passed, 1 failed" in said


UPDATED = """\
# A file that people wrote.
pipeline: pipeline.yaml

cases:
  # The first case.
  - name: list
    events:
      - json: { user: ada, amount: 1, ts: 1 }   # in
      - expect:
          totals:
            # Kept, for it holds.
            - json: { sum: 1, n: 1, key: ada }
            # Of one that is gone.
            - json: { key: ada, n: 9, sum: 1 }
      - json: { user: ada, amount: 1, ts: 2 }
      - json: { user: ada, amount: 1, ts: 3 }
      - json: { user: ada, amount: 1, ts: 4 }
    expect:
      totals:   # three
        # The second, which is wrong.
        - json: { key: ada, n: 2, sum: 3 }
          timestamp: 77
        # The third.
        - json: { key: ada, n: 3, sum: 3 }
    # The end of the first.

  - name: nothing yet
    events:
      - json: { user: "x: y", amount: 1, ts: 1 }
  - name: empty
    parallelism: 2
    events:
      - json: { user: ada, amount: 1, ts: 1 }
    expect: {}

  - name: too much
    events: []
    expect:
      totals:
        - json: 1
"""


def test_update(cases):
    """What is wrong is replaced, what holds stays as it is, comments too; and then all pass, and nothing changes any more."""
    assert "4 updated" in cases(UPDATED, "--update").stdout
    text = cases.path.read_text()
    assert text.startswith(UPDATED[: UPDATED.index("            # Of one that is gone.")])
    assert "# Of one that is gone." not in text
    assert (
        """\
    expect:
      totals:   # three
        # The second, which is wrong.
        - json: {"key": "ada", "n": 2, "sum": 2}
          timestamp: 2
        # The third.
        - json: { key: ada, n: 3, sum: 3 }
        - json: {"key": "ada", "n": 4, "sum": 4}
"""
        in text
    )
    assert "# The end of the first.\n\n  - name: nothing yet\n" in text
    assert text.endswith("  - name: too much\n    events: []\n    expect:\n      totals: []\n")
    assert "4 passed, 0 failed (" in cases(None).stdout
    assert "updated" not in cases(None, "--update").stdout and cases.path.read_text() == text


def test_an_update_of_one_line(cases):
    """An `expect` on one line becomes a block."""
    text = """\
pipeline: pipeline.yaml
cases:
  - name: a
    events:
      - json: { user: ada, amount: 1, ts: 1 }
      - expect: { totals: [] }   # nothing yet
      - json: { user: ada, amount: 1, ts: 2 }
    expect: { totals: { order: any, records: [ { json: { sum: 1 },
        key: bob } ] } }
"""
    cases(text, "--update")
    assert cases.path.read_text() == text[: text.index("      - expect:")] + """\
      - expect:
          totals:
            - json: {"key": "ada", "n": 1, "sum": 1}
      - json: { user: ada, amount: 1, ts: 2 }
    expect:
      totals:
        order: any
        records:
          - json: {"key": "ada", "n": 2, "sum": 2}
            key: ada
"""
    cases(None)


def test_an_update_that_cannot_be(cases):
    """What stands on one line with other things is left alone, in words."""
    text = "pipeline: pipeline.yaml\ncases:\n  - { name: flow, events: [ { json: { user: a, ts: 1 } } ], expect: { totals: [] } }\n"
    assert "cannot be updated in place" in cases(text, "--update", code=1).stdout
    assert cases.path.read_text() == text


def test_reports(cases, tmp_path):
    text = "pipeline: pipeline.yaml\ncases:\n" + "".join(
        f'  - name: "{name}"\n    events: [ {{ json: {{ user: "<&\\u0001", amount: 1, ts: 1 }} }} ]\n    expect: {{ totals: {expect} }}\n'
        for name, expect in (("good & fine", "[ { key: \"<&\\u0001\" } ]"), ("bad", "[ { text: \"]]>\" } ]"))
    )
    report = json.loads(cases(text, "--json", "--junit", str(tmp_path / "report.xml"), code=1).stdout)
    assert (report["passed"], report["failed"], report["updated"]) == (1, 1, 0)
    assert [(case["name"], case["status"], case["line"]) for case in report["cases"]] == [("good & fine", "passed", 3), ("bad", "failed", 6)]
    assert report["cases"][0]["failure"] is None and "expected 1 record, got 1" in report["cases"][1]["failure"]
    suites = xml.etree.ElementTree.parse(tmp_path / "report.xml").getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("2", "1")
    good, bad = suites.iter("testcase")
    assert good.get("name") == "good & fine" and good.find("failure") is None
    assert "]]>" in bad.find("failure").text and bad.get("line") == "6"


def test_filter_and_folders(cases, tmp_path):
    text = "pipeline: ../pipeline.yaml\ncases:\n  - { name: one, events: [], expect: {} }\n  - { name: two, events: [], expect: {} }\n"
    for folder in ("a", "b/c", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.test.yaml").write_text(text.replace("..", "../.." if "/" in folder else ".."))
    (tmp_path / "a" / "other.yaml").write_text("no cases")

    def run(*arguments):
        return subprocess.run([str(BRIDGECTL), "test", *arguments], capture_output=True, text=True, cwd=tmp_path)

    (tmp_path / "pipeline.yaml").write_text(SHOP)
    done = run(".")
    assert done.returncode == 0 and "4 passed" in done.stdout and "./b/c/x.test.yaml\n" in done.stdout
    assert "2 passed" in run(".", "--filter", "two").stdout and "2 passed" in run(".", "--filter", "b/c").stdout
    assert run(".", "--filter", "three").returncode == 2
    assert run("nowhere").returncode == 2 and run().returncode == 2
    (tmp_path / "empty").mkdir()
    assert run("empty").returncode == 2


MISTAKEN = "pipeline: pipeline.yaml\ncases:\n  - name: a\n    events: [ { json: 1 } ]\n    expect: { totals: [] }\n"
MISTAKES = [
    ("events:", "event:", 'x.test.yaml:4:5: error: unknown key "event" in a case'),
    ("json:", "jsno:", 'unknown key "jsno" in an event'),
    ("{ json: 1 }", "{ json: 1, at: 5 }", 'unknown key "at" in a `json` event'),
    ("{ json: 1 }", "{ json: 1, text: x }", 'unknown key "text" in a `json` event'),
    ("{ json: 1 }", "{ watermark: soon }", '"watermark" is no time: "soon"'),
    ("{ json: 1 }", "{ restart: everything }", '"restart" is `worker` or `job`'),
    ("{ json: 1 }", "{ restart: worker, parallelism: 2 }", "only a restart of the job can change the parallelism"),
    ("{ json: 1 }", "begin", "an event is text"),
    ("{ json: 1 }", "end, { json: 1 }", "nothing comes behind the end of the input"),
    ("{ json: 1 }", "{ advance: -5 }", "time does not go back"),
    ("{ json: 1 }", "{ advance: 9223372036854775807 }", '"advance" is no time'),
    ("{ totals: [] }", "{ totals: { order: random, records: [] } }", 'unknown order "random"'),
    ("{ totals: [] }", "{ totals: { order: by_key, records: [ { json: 1 } ] } }", "each expected record names its key"),
    ("{ totals: [] }", "{ totals: 1 }", "what is expected of a sink is text"),
    ("pipeline: pipeline.yaml\n", "", "there is no `pipeline`"),
    ("- name: a", "- name: b\n    events: []\n  - name: b", 'a second case "b"'),
    ("cases:", "case:", 'unknown key "case"'),
    ("cases:", "watermarks: sources\ncases:", '"watermarks" is `case` or `source`'),
]


@pytest.mark.parametrize("old, new, words", MISTAKES)
def test_mistakes_have_places(cases, old, new, words):
    """A file that is wrong runs nothing, and says where it is wrong: exit code 2."""
    done = cases(MISTAKEN.replace(old, new, 1), code=2)
    assert words in done.stderr and "x.test.yaml:" in done.stderr


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("totals: []", "total: []", 'x.test.yaml:5:15: there is no sink "total"; there is totals'),
        ("{ json: { ts: 1 } }", "{ json: { ts: 1 }, source: event }", 'the pipeline has no source "event"; it has events'),
        ("pipeline.yaml", "gone.yaml", "gone.yaml"),
        ("cases:", "config: { steps: { valid: { size: 1 } } }\ncases:", 'unknown key "size" in step "valid"'),
        ("cases:", "parallelism: 63\ncases:", "126 subtasks in all; a case has room for 63"),
        ("{ json: { ts: 1 } }", "{ lines: gone.jsonl }", "gone.jsonl: No such file"),
        ("{ json: { ts: 1 } }", "{ advance: 9007199254740992 }, { advance: 1 }", "x.test.yaml:4:"),
        ("cases:\n", "segment: totals\ncases:\n", 'segment "totals" is keyed: a record needs a `key`'),
        ("{ json: { ts: 1 } }", "{ text: no }", "no timestamp for a record: "),
    ],
)
def test_cases_that_cannot_run(cases, old, new, words):
    """They fail, whatever they expect."""
    text = "pipeline: pipeline.yaml\ncases:\n  - name: a\n    events: [ { json: { ts: 1 } } ]\n    expect: { totals: [] }\n"
    done = cases(text.replace(old, new, 1), code=1)
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("option", ["partition: broadcast", "partition_by: .user"])
def test_partitions_that_only_flink_has(cases, option):
    """With one subtask there is nothing to spread; with more a case would show what Flink never does."""
    text = (
        pipeline(f"    - {{ name: f, kind: filter, program: 'true' }}\n    - {{ name: g, kind: passthrough, {option} }}\n")
        + "cases:\n  - name: a\n    events: [ { json: { user: 1 } } ]\n    expect: { out: [ { json: { user: 1 } } ] }\n"
    )
    cases(text)
    words = "which only Flink has"
    assert words in cases(text.replace("cases:", "parallelism: 2\ncases:"), code=1).stdout
    assert words in cases(text.replace("{ json: { user: 1 } } ]", "{ restart: job, parallelism: 2 }, { json: { user: 1 } } ]", 1), code=1).stdout


def test_environment_and_configuration(cases):
    """Variables and a deployment's values are of a case alone."""
    text = pipeline('    - { name: m, kind: map, program: "${WHAT:-.}" }\n', "{ kind: print }")
    cases(
        text
        + """\
cases:
  - { name: with, environment: { WHAT: ". + 1" }, events: [ { json: 1 } ], expect: { out: [ { json: 2 } ] } }
  - { name: without, events: [ { json: 1 } ], expect: { out: [ { json: 1 } ] } }
  - { name: over, config: { steps: { m: { program: "$$x" } } }, events: [ { json: 1 } ], expect: { out: [] } }
  - { name: file, config: c.yaml, events: [ { json: 1 } ], expect: { out: [ { json: 10 } ] } }
""".replace('"$$x"', '".|.*0"').replace("expect: { out: [] } }", "expect: { out: [ { json: 0 } ] } }"),
        c_yaml="steps: { m: { program: . * 10 } }\n",
    )


SERVICE = """\
import os, sys, time
open("started", "a").write(f"{os.getpid()} ")
while "after" in sys.argv and not os.path.exists("written"): time.sleep(0.01)
print("ready", *sys.argv[1:], flush=True)
print("x" * 1000000, flush=True)
open("written", "w").close()
time.sleep(1000)
"""


def test_services(cases, tmp_path):
    """They are there before the case and gone behind it; what they say becomes variables of their case alone; they may say as much as they like."""
    (tmp_path / "service.py").write_text(SERVICE)
    text = pipeline('    - { name: m, kind: map, program: "${WHAT:-.}" }\n', "{ kind: print }")
    cases(
        text
        + """\
cases:
  - name: with
    services: { one: [python3, service.py, WHAT=.+1], two: [python3, service.py, after] }
    events: [ { json: 1 } ]
    expect: { out: [ { json: 2 } ] }
  - { name: without, events: [ { json: 1 } ], expect: { out: [ { json: 1 } ] } }
"""
    )
    started = (tmp_path / "started").read_text().split()
    assert len(started) == 2
    assert not any((pathlib.Path("/proc") / pid).exists() for pid in started)


@pytest.mark.parametrize(
    "command, code, words",
    [
        ("[sh, -c, echo no >&2]", 1, 'service "one" has not said that it is ready'),
        ("[sh, -c, echo no >&2]", 1, "| no"),
        ("[./nowhere]", 1, "cannot run ./nowhere: No such file"),
        ("echo", 2, "a service is text"),
        ("[]", 2, "a command of 0 words"),
    ],
)
def test_services_that_do_not_start(cases, command, code, words):
    text = f"pipeline: pipeline.yaml\nservices: {{ one: {command} }}\ncases: [ {{ name: a, events: [], expect: {{}} }} ]\n"
    done = cases(text, code=code)
    assert words in done.stdout + done.stderr


@pytest.fixture(scope="module")
def schema():
    """The JSON Schema of files of cases, checked."""
    text = subprocess.run([str(BRIDGECTL), "schema", "--cases"], capture_output=True, text=True, check=True).stdout
    jsonschema.Draft7Validator.check_schema(json.loads(text))
    return jsonschema.Draft7Validator(json.loads(text))


@pytest.mark.parametrize("path", sorted((TOP / "examples").rglob("*.test.yaml")), ids=lambda path: path.stem)
def test_the_schema_takes_what_the_examples_have(schema, path):
    schema.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("old, new, words", MISTAKES)
def test_the_schema_refuses_mistakes(schema, old, new, words):
    text = MISTAKEN.replace(old, new, 1)
    beyond_it = ("a second case", "nothing comes behind", "there is no `pipeline`", "each expected record", "only a restart")
    assert schema.is_valid(yaml.safe_load(text)) == words.startswith(beyond_it)
    assert schema.is_valid(yaml.safe_load(MISTAKEN))


def test_the_examples_have_cases():
    """Every example that is a pipeline is tested."""
    for path in (TOP / "examples").glob("*/pipeline.yaml"):
        assert list(path.parent.glob("*.test.yaml")), path.parent.name
