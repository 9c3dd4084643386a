"""Records that workers die of, in a whole sidecar: the watchdog ends the worker, its heir finds the record, and the policy decides."""

import json
import pathlib
import re
import subprocess

import pytest

from conftest import BRIDGECTL, BUILD, PATIENCE, SANITIZED

PIPELINE = """\
name: deadly
on_error: {policy}
sources:
  in: {{ kind: file, path: in.jsonl }}
steps:
  - {{ name: twice, kind: flat_map, program: '., .' }}
  - name: shout
    kind: map
    program: 'if .v == "endless" then last(range(1e12)) else .v |= ascii_upcase end'
sinks:
  out: {{ kind: file, path: out.jsonl, from: shout }}
{failed}"""
CONFIG = "sidecar: { unit-cpu-limit: 300ms }\n"
COUNT, DEADLY = 600, 300


def run(workdir, policy, failed=""):
    """Runs the pipeline over a file with one record that no worker survives."""
    records = [{"n": n, "v": "endless" if n == DEADLY else f"x{n}"} for n in range(COUNT)]
    (workdir / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (workdir / "pipeline.yaml").write_text(PIPELINE.format(policy=policy, failed=failed))
    (workdir / "config.yaml").write_text(CONFIG)
    return subprocess.run(
        [BRIDGECTL, "run", "pipeline.yaml", "--config", "config.yaml"],
        cwd=workdir, capture_output=True, text=True, timeout=PATIENCE * 2,
    )  # fmt: skip


def numbers(path: pathlib.Path):
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_a_deadly_record_is_left_out_and_nothing_else(workdir):
    ended = run(workdir, "skip")
    assert ended.returncode == 0, ended.stderr
    assert numbers(workdir / "out.jsonl") == [n for n in range(COUNT) for _ in range(2) if n != DEADLY]
    assert "does not get the input of seq" in ended.stderr


def test_a_deadly_record_is_put_aside_as_it_came_to_the_step(workdir):
    sinks = "  failed: { kind: file, path: failed.jsonl, from: dead_letter }\n"
    ended = run(workdir, "dead_letter", sinks)
    assert ended.returncode == 0, ended.stderr
    assert numbers(workdir / "out.jsonl") == [n for n in range(COUNT) for _ in range(2) if n != DEADLY]
    assert (workdir / "failed.jsonl").read_text() == f'{{"n":{DEADLY},"v":"endless"}}\n' * 2
    obituary = r'worker 0 .* died of our signal 9 .* step "shout", seq \d+, record \d+ .*, input: '
    assert len(re.findall(obituary + re.escape(f'{{"n":{DEADLY},"v":"endless"}}, '), ended.stderr)) == 2, ended.stderr


def test_a_deadly_record_fails_its_session_by_name(workdir):
    ended = run(workdir, "fail")
    assert ended.returncode != 0
    assert 'step "shout" record' in ended.stderr and "workers died of this input (watchdog)" in ended.stderr
    assert f'{{"n":{DEADLY},"v":"endless"}}' in ended.stderr


# ---- Deaths of a native step, in every way -------------------------------------------------------------------------------

NATIVE = """\
name: moody
on_error: {policy}
sources:
  in: {{ kind: file, path: in.txt }}
steps:
  - {{ name: mood, kind: native, library: {library}, function: {function} }}
sinks:
  out: {{ kind: file, path: out.txt, from: mood }}
{failed}"""
PATIENT = 20 if SANITIZED else 3  # other records have to be done within these limits
LIMITS = f"sidecar: {{ unit-cpu-limit: {300 * PATIENT}ms, unit-wall-limit: {500 * PATIENT}ms, capture: captures }}\n"
WAYS = {"segv": "code", "abort": "code", "exit": "code", "loop": "watchdog", "sleep": "watchdog"}


def write_native(workdir, name, policy, failed="", function="moody"):
    path = workdir / f"{name}.yaml"
    path.write_text(NATIVE.format(policy=policy, failed=failed, function=function, library=BUILD / "tests/libraries/steps.so"))
    return path


def run_native(workdir, way, policy, failed=""):
    """Runs a native step over lines of which one is its end, in a whole sidecar; captures are kept."""
    (workdir / "captures").mkdir()
    (workdir / "in.txt").write_text("".join(f"{way if n == DEADLY else f'x{n}'}\n" for n in range(COUNT)))
    (workdir / "config.yaml").write_text(LIMITS)
    return subprocess.run(
        [BRIDGECTL, "run", write_native(workdir, "native", policy, failed), "--config", "config.yaml"],
        cwd=workdir, capture_output=True, text=True, timeout=PATIENCE * 2,
    )  # fmt: skip


EVERYTHING_ELSE = [f"x{n}" for n in range(COUNT) if n != DEADLY]


@pytest.mark.parametrize("way", WAYS)
def test_what_a_native_step_dies_of_is_put_aside_and_captured(workdir, way):
    """Also the sleep without end, which takes no processor time: the limit of the wall clock finds it."""
    ended = run_native(workdir, way, "dead_letter", "  failed: { kind: file, path: failed.txt, from: dead_letter }\n")
    assert ended.returncode == 0, ended.stderr
    assert (workdir / "out.txt").read_text().split() == EVERYTHING_ELSE
    assert (workdir / "failed.txt").read_text() == f"{way}\n"
    assert len(re.findall(rf'step "mood", seq \d+, record \d+ .*, input: {way}, ', ended.stderr)) >= 1, ended.stderr
    flag = {"loop": "--unit-cpu-limit", "sleep": "--unit-wall-limit"}.get(way)
    assert ("has been at one unit of work" in ended.stderr) == bool(flag) and (not flag or f"{flag} is" in ended.stderr)
    [capture] = (workdir / "captures").iterdir()
    other = workdir / "other.descriptor"
    compiled = [BRIDGECTL, "compile", write_native(workdir, "other", "fail", function="upcase"), "-o", other]
    subprocess.run(compiled, check=True, capture_output=True)
    again = subprocess.run(
        [BRIDGECTL, "replay", capture, "--descriptor", other], capture_output=True, text=True, timeout=PATIENCE
    )
    assert again.returncode == 0 and way.upper() in again.stdout, again
    assert f"record {DEADLY} ({WAYS[way]})" in again.stderr, again


@pytest.mark.parametrize("policy", ["skip", "fail"])
def test_a_sleep_without_end_is_left_out_or_fails_its_session(workdir, policy):
    ended = run_native(workdir, "sleep", policy)
    assert (ended.returncode == 0) == (policy == "skip"), ended.stderr
    if policy == "skip":
        assert (workdir / "out.txt").read_text().split() == EVERYTHING_ELSE
    else:
        assert 'step "mood" record' in ended.stderr and "workers died of this input (watchdog)" in ended.stderr
