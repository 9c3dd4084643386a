"""bridgectl's commands about pipelines: what they print, what they return, and what others' readers make of it."""

import json
import os
import pathlib
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
