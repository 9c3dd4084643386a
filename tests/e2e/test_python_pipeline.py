"""`flink_bridge.pipeline`: pipelines written in Python become the pipeline.yaml that a person would have written. And the wheel."""

import doctest
import json
import os
import re
import subprocess
import sys
import zipfile

import pytest
import yaml

from conftest import BRIDGECTL, TOP

PACKAGE = TOP / "worker" / "hosts" / "python" / "package"
sys.path.insert(0, str(PACKAGE))

from flink_bridge import Step, engine, pipeline  # noqa: E402
from flink_bridge.pipeline import Pipeline, PipelineError, PythonStep  # noqa: E402

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE), "BRIDGECTL": str(BRIDGECTL)}
SHOP = """
from flink_bridge import Message, Step
from flink_bridge.pipeline import Pipeline

shop = Pipeline("shop", parallelism=2, on_error="dead_letter")
events = shop.source("events", "file", path="events.jsonl", timestamp=".ts", out_of_orderness="2s")

@events.step(parallelism=1)
def score(message: Message):
    \"\"\"Twice the amount.\"\"\"
    event = message.json()
    return {**event, "score": event["amount"] * 2}

def user_of(message: Message) -> str:
    return message.json()["user"]

keyed = score.key_by(user_of, name="by_user")

@keyed.step(name="seen", state={"first": "value ttl 1h", "due": "timers"}, routes=["new", "old"], options={"a": "1"})
class Seen(Step):
    def process(self, message):
        return message

other = shop.source("other", "generator", count=10, program="{n: ., user: \'x\'}".replace("\'", '"'))
joined = other.map("# of several\\n# lines\\n.", name="shape").union(Seen["old"], events)
last = joined.kind("serialize_json", name="last", field="f")
Seen["new"].sink("new", "print")
last.sink("out", "file", path="a: b # c")
shop.dead_letter.union(score.dead_letter).sink("failed", "discard")
"""


def test_the_examples_in_its_docs_hold():
    found = doctest.testmod(pipeline)
    assert found.failed == 0 and found.attempted > 0


def compiled(arguments, folder, code=0):
    """What `python -m flink_bridge.pipeline` does."""
    command = [sys.executable, "-m", "flink_bridge.pipeline", *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def test_what_is_written_is_what_was_said(tmp_path):
    """The YAML says what the tree says, the sidecar's own check agrees, and a decorated step is found where it is named."""
    (tmp_path / "shop.py").write_text(SHOP)
    compiled(["shop", "--check", "-o", "pipeline.yaml"], tmp_path)
    text = (tmp_path / "pipeline.yaml").read_text()
    assert compiled(["shop:shop"], tmp_path).stdout == text
    sys.path.insert(0, str(tmp_path))
    try:
        shop = pipeline.find("shop")
        import shop as module
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("shop", None)
    assert yaml.safe_load(text) == shop.to_dict()
    steps = {step["name"]: step for step in shop.to_dict()["steps"]}
    assert steps["score"] == {"name": "score", "kind": "python", "from": "events", "module": "shop", "function": "score", "parallelism": 1}
    assert steps["seen"]["function"] == "Seen" and steps["seen"]["state"] == {"first": "value ttl 1h", "due": "timers"}
    assert steps["by_user"] == {"name": "by_user", "kind": "key_by", "from": "score", "module": "shop", "function": "user_of"}
    assert steps["last"]["from"] == ["shape", "seen.old", "events"]
    assert shop.to_dict()["sinks"]["failed"]["from"] == ["dead_letter", "score.dead_letter"]
    assert isinstance(module.score, PythonStep) and module.score.__doc__ == "Twice the amount."
    assert issubclass(module.Seen.function, Step)
    sys.modules["shop"] = module
    try:
        assert engine.find_target("shop", "Seen") is module.Seen.function
        assert engine.find_target("shop", "score")(__import__("flink_bridge").Message('{"amount": 2}')) == {"amount": 2, "score": 4}
    finally:
        del sys.modules["shop"]


def test_the_pipeline_in_the_documentation(tmp_path):
    text = (TOP / "docs" / "pipeline.md").read_text()
    (tmp_path / "shop.py").write_text(re.search(r"```python\n(# shop\.py\n.*?)```", text, re.DOTALL)[1])
    assert "function: score" in compiled(["shop", "--check"], tmp_path).stdout


def test_the_word_count_is_one_pipeline_in_two_languages(tmp_path):
    folder = TOP / "examples" / "word_count"
    compiled(["words_pipeline", "--check", "-o", str(tmp_path / "pipeline.yaml")], folder)
    texts = [
        subprocess.run([str(BRIDGECTL), "compile", str(path)], capture_output=True, text=True, check=True, cwd=TOP).stdout
        for path in (folder / "pipeline.yaml", tmp_path / "pipeline.yaml")
    ]
    assert texts[0] == texts[1]


ODD = "\x7f\x85\u2028\u2029\ufeff😀ü\" \\ # : \t"


def test_any_text_is_written_as_it_is(tmp_path):
    """What YAML cannot have as it is, or would read as something else, on one line and on several."""
    made, source = shop()
    program = f"if {json.dumps(ODD)} then . else . end"
    several = source.kind("serialize_json", name="field", field=ODD.replace("\t", "")).map(program, name="one").map(program + "\n| .", name="lines")
    several.sink("out", "file", path=f"{tmp_path}/ü😀")
    assert yaml.safe_load(made.to_yaml()) == made.to_dict()
    made.check(BRIDGECTL)


def shop():
    made = Pipeline("p")
    return made, made.source("in", "generator")


def local(message):
    return message


MISTAKES = [
    (lambda p, s: Pipeline("a b"), "is no name"),
    (lambda p, s: p.source("in", "print"), "there is a source or step `in` already"),
    (lambda p, s: s.map(".", name="in"), "there is a source or step `in` already"),
    (lambda p, s: s.sink("out", "print") or s.sink("out", "print"), "there is a sink `out` already"),
    (lambda p, s: s.route({"a": "true"}, name="r").sink("out", "print"), r"which route of `r`\? say r\['a'\]"),
    (lambda p, s: s.route({"a": "true"}, name="r")["b"], "step `r` has no route `b`; it has a"),
    (lambda p, s: s.step(lambda message: message), "no name that a worker could import"),
    (lambda p, s: s.step(5), "neither a function nor a class"),
    (lambda p, s: s.step(local, form="reduce"), "cannot be called"),
    (lambda p, s: s.key_by(lambda message: b"", name="k"), "no name that a worker could import"),
    (lambda p, s: s.key_by(dict, name="k"), "that is for functions"),
    (lambda p, s: s.map(".[", name="m").sink("out", "print") or p.check(BRIDGECTL), "is no jq program"),
]


@pytest.mark.parametrize("wrong, words", MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_said(wrong, words):
    made, source = shop()
    with pytest.raises((PipelineError, engine.StepError), match=words):
        wrong(made, source)


def test_a_module_without_one(tmp_path):
    (tmp_path / "none.py").write_text("")
    (tmp_path / "two.py").write_text("from flink_bridge.pipeline import Pipeline\na, b = Pipeline('a'), Pipeline('b')\n")
    assert "has no Pipeline" in compiled(["none"], tmp_path, 1).stderr
    assert "say which: two:a, two:b" in compiled(["two"], tmp_path, 1).stderr
    assert "has no Pipeline `c`" in compiled(["two:c"], tmp_path, 1).stderr
    assert "No module named" in compiled(["gone"], tmp_path, 1).stderr


def test_the_wheel(tmp_path):
    """`make wheel` builds what its name says, with all modules and the mark that it is typed; it works where it is installed."""
    subprocess.run(["make", "-s", "wheel", "SETUP=no", f"WHEELS={tmp_path}"], cwd=TOP, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    version = re.search(r"^VERSION := (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)[1]
    assert wheel.name == f"flink_bridge-{version}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    modules = {f"flink_bridge/{path.name}" for path in (PACKAGE / "flink_bridge").glob("*.py*")}
    assert modules <= set(names) and "flink_bridge/py.typed" in names
    assert not (PACKAGE / "build").exists() and not list(PACKAGE.glob("*.egg-info"))
    code = "import flink_bridge.testing as t; print(t.run_step(lambda m: m.text() * 2, ['a']).texts(), t.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['aa']") and str(wheel) in done.stdout
