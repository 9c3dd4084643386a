"""Captures: what workers die of is kept with the state that it reads, and `bridgectl replay` runs it again."""

import json
import signal
import subprocess

import pytest

from conftest import BRIDGECTL, PATIENCE, SANITIZED

PIPELINE = """\
name: captured
on_error: {policy}
sources:
  in: {{ kind: file, path: in.jsonl, timestamp: .t }}
steps:
  - {{ name: by_user, kind: key_by, key: .user }}
  - {{ name: totals, kind: aggregate, fields: {{ n: count, total: sum(.v) }}{emit} }}
  - {{ name: shout, kind: map, program: '{program}' }}
sinks:
  out: {{ kind: file, path: out.jsonl, from: shout }}
"""
# libjq frees a value by recursion, so that one as deep as this is the end of the stack
DEADLY = "if .total == 1000 then .deep = (reduce range(400000) as $i (null; [.]) | 0) else . end"
MENDED = "if .total == 1000 then .mended = true else . end"
AT_TIME = ", emit: event_time, every: 10s"


def write_pipeline(workdir, program, name="pipeline", policy="skip", emit=""):
    path = workdir / f"{name}.yaml"
    path.write_text(PIPELINE.format(policy=policy, program=program, emit=emit))
    return path


def run(workdir, records, flags="", **pipeline):
    """Runs the deadly pipeline over records (user, v, t), with captures."""
    (workdir / "in.jsonl").write_text(
        "".join(json.dumps({"user": user, "v": v, "t": t}) + "\n" for user, v, t in records)
    )
    (workdir / "captures").mkdir(exist_ok=True)
    (workdir / "config.yaml").write_text(f"sidecar: {{ capture: captures{flags} }}\n")
    write_pipeline(workdir, DEADLY, **pipeline)
    return subprocess.run(
        [BRIDGECTL, "run", "pipeline.yaml", "--config", "config.yaml"],
        cwd=workdir, capture_output=True, text=True, timeout=PATIENCE * 2,
    )  # fmt: skip


def compiled(workdir, program, **pipeline):
    """A descriptor with another program."""
    source = write_pipeline(workdir, program, name="other", **pipeline)
    subprocess.run([BRIDGECTL, "compile", source, "-o", workdir / "other.descriptor"], check=True, capture_output=True)
    return workdir / "other.descriptor"


def replay(path, *arguments):
    return subprocess.run(
        [BRIDGECTL, "replay", path, *arguments], capture_output=True, text=True, timeout=PATIENCE
    )


def died(done):
    """Whether a replay ended where the stack does; a sanitizer says so in the kernel's place."""
    return done.returncode == 1 and "stack-overflow" in done.stderr if SANITIZED else done.returncode == -signal.SIGSEGV


def captures(workdir):
    return sorted((workdir / "captures").iterdir())


UPDATES = [("alice", 300, 1), ("bob", 7, 2), ("alice", 300, 3), ("alice", 400, 4), ("bob", 1, 5), ("alice", 5, 6)]


def test_a_record_dies_again_with_its_state_and_lives_with_other_code(workdir):
    ended = run(workdir, UPDATES)
    assert ended.returncode == 0, ended.stderr
    (path,) = captures(workdir)
    assert path.name.startswith("slot0-segment1-") and f"{path.name}: bridgectl replay" in ended.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    # The record alone is harmless: what it dies of is the sum, which is state.
    again = replay(path)
    assert died(again) and again.stdout == "", again.stderr
    assert 'step "shout": process' in again.stderr
    mended = replay(path, "--descriptor", compiled(workdir, MENDED))
    assert mended.returncode == 0, mended.stderr
    assert [json.loads(line) for line in mended.stdout.splitlines()] == [
        {"key": "alice", "n": 3, "total": 1000, "mended": True}
    ]
    assert b"alice" in path.read_bytes() and b"bob" not in path.read_bytes()  # the state of one key


def test_a_timer_dies_again_and_lives_with_other_code(workdir):
    times = [("alice", 300, 1000), ("bob", 7, 2000), ("alice", 700, 3000), ("bob", 1, 30_000)]
    ended = run(workdir, times, emit=AT_TIME)
    assert ended.returncode == 0, ended.stderr
    (path,) = captures(workdir)
    assert died(replay(path))
    mended = replay(path, "--json", "--descriptor", compiled(workdir, MENDED, emit=AT_TIME))
    assert mended.returncode == 0, mended.stderr
    recording, *results = [json.loads(line) for line in mended.stdout.splitlines()]
    assert recording["kind"] == "recording" and recording["step"] == "shout" and recording["cause"] == "code"
    assert [result["kind"] for result in results] == ["result"]
    made = json.loads(results[0]["payload"])
    assert (made["n"], made["total"], made["mended"]) == (2, 1000, True)
    assert results[0]["key"] == "alice"


def test_a_list_without_keys_comes_back_in_its_order(workdir):
    (workdir / "in.jsonl").write_text("".join(f'{{"v":{v}}}\n' for v in (*range(1, 100), 1000)))
    (workdir / "captures").mkdir()
    (workdir / "config.yaml").write_text("sidecar: { capture: captures }\n")
    source = (
        "name: listed\non_error: skip\nsources:\n  in: {{ kind: file, path: in.jsonl }}\nsteps:\n"
        "  - {{ name: bundle, kind: batch, size: 100 }}\n  - {{ name: shout, kind: map, program: '{program}' }}\n"
        "sinks:\n  out: {{ kind: file, path: out.jsonl, from: shout }}\n"
    )
    deadly = DEADLY.replace("if .total == 1000 then .deep =", "if .[99].v == 1000 then . =")
    (workdir / "pipeline.yaml").write_text(source.format(program=deadly))
    (workdir / "other.yaml").write_text(source.format(program="map(.v)"))
    command = [BRIDGECTL, "run", "pipeline.yaml", "--config", "config.yaml"]
    ended = subprocess.run(command, cwd=workdir, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert ended.returncode == 0, ended.stderr
    subprocess.run([BRIDGECTL, "compile", "other.yaml", "-o", "d"], cwd=workdir, check=True, capture_output=True)
    (path,) = captures(workdir)
    assert died(replay(path))
    mended = replay(path, "--descriptor", workdir / "d")
    assert [json.loads(line) for line in mended.stdout.splitlines()] == [[*range(1, 100), 1000]]


def test_a_session_that_fails_leaves_a_capture(workdir):
    ended = run(workdir, UPDATES, policy="fail")
    assert ended.returncode != 0 and "workers died of this input" in ended.stderr
    (path,) = captures(workdir)
    assert died(replay(path))


def test_code_that_fails_says_so(workdir):
    run(workdir, UPDATES)
    (path,) = captures(workdir)
    failed = replay(path, "--descriptor", compiled(workdir, 'error("no " + (.total | tostring))', policy="fail"))
    assert failed.returncode == 1 and failed.stdout == ""
    assert 'step "shout" record 0' in failed.stderr and "no 1000" in failed.stderr


def test_there_are_no_more_captures_than_wanted(workdir):
    (workdir / "captures").mkdir()
    (workdir / "captures" / "old.capture").write_text("")
    ended = run(workdir, UPDATES, flags=", capture-max: 1")
    assert ended.returncode == 0, ended.stderr
    assert "no capture is written: captures has 1 of them (--capture-max)" in ended.stderr
    assert [path.name for path in captures(workdir)] == ["old.capture"]


def test_a_directory_that_is_none_is_found_at_start(workdir):
    (workdir / "captures").write_text("")
    write_pipeline(workdir, MENDED)
    subprocess.run([BRIDGECTL, "compile", "pipeline.yaml", "-o", "d.yaml"], cwd=workdir, check=True)
    for place, words in (("captures", "is no directory"), ("nowhere", "cannot be used: No such file")):
        checked = subprocess.run(
            [BRIDGECTL.with_name("bridged"), "--check", "--descriptor", "d.yaml", "--listen", f"unix:{workdir}/s", "--capture", place],
            cwd=workdir, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert checked.returncode == 2 and words in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda whole: whole[: len(whole) // 2], "its checksum is wrong"),
        (lambda whole: whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], "its checksum is wrong"),
        (lambda whole: whole[:10], "it ends in its head"),
        (lambda whole: whole[:8] + b"\x02" + whole[9:], "it is of version 2; this program reads version 1"),
        (lambda whole: b"something else", "it is no recording"),
    ],
)
def test_files_that_cannot_be_replayed(workdir, damage, words):
    run(workdir, UPDATES)
    (path,) = captures(workdir)
    path.write_bytes(damage(path.read_bytes()))
    refused = replay(path)
    assert refused.returncode == 1 and refused.stdout == "" and words in refused.stderr


def test_other_pipelines_and_misuse_get_words(workdir):
    run(workdir, UPDATES)
    (path,) = captures(workdir)
    other = workdir / "small.yaml"
    other.write_text("name: small\nsources: {in: {kind: generator, count: 1}}\nsteps: [{name: a, kind: map, program: .}]\n"
                     "sinks: {out: {kind: discard, from: a}}\n")  # fmt: skip
    subprocess.run([BRIDGECTL, "compile", other, "-o", workdir / "small"], check=True, capture_output=True)
    refused = replay(path, "--descriptor", workdir / "small")
    assert refused.returncode == 1 and 'the recording is of segment 1; pipeline "small" has 1 segments' in refused.stderr
    assert replay(workdir / "nowhere").returncode == 1
    assert subprocess.run([BRIDGECTL, "replay"], capture_output=True, timeout=PATIENCE).returncode == 2
