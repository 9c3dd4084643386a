"""Records that workers die of, in a whole sidecar: the watchdog ends the worker, its heir finds the record, and the policy decides."""

import json
import pathlib
import re
import subprocess

from conftest import BRIDGECTL, PATIENCE

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
