"""Steps out of libraries in a whole sidecar: what is wrong with one is said, and what goes wrong in one is survived."""

import os
import pathlib
import shutil
import signal
import subprocess

import grpc
import pytest

from conftest import BRIDGECTL, BRIDGED, BUILD, PATIENCE, SANITIZED, TOP, find_key, wait_until

LIBRARIES = BUILD / "tests" / "libraries"

MOODY = f"""
name: moody
sources:
  in: {{kind: generator, count: 1}}
steps:
  - {{name: moody, kind: native, library: {LIBRARIES}/steps.so, function: moody, on_error: POLICY}}
sinks:
  out: {{kind: discard}}
"""

COUNT = f"""
name: count
sources:
  in: {{kind: generator, count: 1}}
steps:
  - {{name: by, kind: key_by, key: .}}
  - {{name: count, kind: native, library: {LIBRARIES}/steps.so, function: count, state: {{value: value}}, on_error: skip}}
sinks:
  out: {{kind: discard}}
"""

LETTERS = MOODY.replace("POLICY", "dead_letter").replace("sinks:", "sinks:\n  dead: {kind: discard, from: dead_letter}").replace(
    "out: {kind: discard}", "out: {kind: discard, from: moody}"
)


def headers(record):
    return {name: value for name, value in record.headers.items() if name.startswith("bridge-error")}


# A sanitizer would report the first as its own.
DEADLY = [(b"segv", "signal 11")] * (not SANITIZED) + [(b"abort", "signal 6"), (b"exit", "exit")]


@pytest.mark.parametrize("deadly, how", DEADLY)
def test_a_deadly_record_is_put_aside(bridged, client, deadly, how):
    """The record that a native step dies of is a dead letter; its neighbours come out, and so does what comes later."""
    sidecar = bridged(LETTERS)
    session = client(sidecar.unix).session(sidecar)
    records = session.results(session.send_records(b"a", deadly, b"b"))
    assert sorted(record.payload for record in records) == sorted([b"a", b"b", deadly])
    dead = next(record for record in records if record.route == 1)
    said = headers(dead)
    assert dead.payload == deadly
    assert said["bridge-error-kind"] == "crash" and said["bridge-error-cause"] == "code"
    assert said["bridge-error-step"] == said["bridge-error-segment"] == "moody"
    assert said["bridge-error-seq"] == "2" and said["bridge-error-record"] == "1" and said["bridge-error-attempt"] == "1"
    assert session.exchange(b"c") == [b"c"]
    deaths = sidecar.stats_json("deaths")["deaths"]
    assert len(deaths) == 2 and all(death["step"] == "moody" for death in deaths), deaths
    assert how.split()[0] in sidecar.log()


def test_a_deadly_record_fails_the_session_by_default(bridged, client):
    sidecar = bridged(MOODY.replace("POLICY", "fail"))
    session = client(sidecar.unix).session(sidecar)
    session.send_records(b"abort")
    with pytest.raises(grpc.RpcError) as caught:
        while True:
            session.receive()
    assert "workers died of this input" in caught.value.details()


def test_a_loop_is_ended(bridged, client):
    """A step that does not come back is ended by the watchdog, and the record passed over."""
    sidecar = bridged(LETTERS, flags=["--unit-cpu-limit", "300ms"])
    session = client(sidecar.unix).session(sidecar)
    records = session.results(session.send_records(b"loop", b"b"))
    assert {record.payload: headers(record).get("bridge-error-cause") for record in records} == {b"loop": "watchdog", b"b": None}


def test_state_outlives_what_a_step_dies_of(bridged, client, bridgectl):
    """Counts of a native step go on where they were, and the deadly record counts nothing."""
    sidecar = bridged(COUNT)
    session = client(sidecar.unix).session(sidecar, segment=1)
    assert session.exchange(*[session.keyed(b"k", b"x")] * 3) == [b"x:1", b"x:2", b"x:3"]
    assert session.exchange(*[session.keyed(b"k", payload) for payload in (b"x", b"abort", b"fail", b"x")]) == [b"x:4", b"x:5"]
    assert session.exchange(session.keyed(b"k", b"x")) == [b"x:6"]
    rows = sidecar.stats_json("metrics")["metrics"]
    assert [(row["step"], row["metric"], row["type"]) for row in rows] == [("count", "records", "counter")]
    assert rows[0]["value"] >= 6  # what is done again is counted again
    assert "records" in bridgectl("metrics", "--stats", sidecar.stats_path).stdout


def test_a_step_that_fails_says_why(bridged, client):
    sidecar = bridged(LETTERS)
    session = client(sidecar.unix).session(sidecar)
    dead = next(record for record in session.results(session.send_records(b"a", b"fail")) if record.route == 1)
    said = headers(dead)
    time = said.pop("bridge-error-time")
    assert said == {
        "bridge-error": "not today", "bridge-error-kind": "MoodError", "bridge-error-step": "moody", "bridge-error-segment": "moody",
        "bridge-error-attempt": "1", "bridge-error-traceback": "line 1\nline 2",
    }  # fmt: skip
    assert time.isdigit()


def test_unary_calls(bridged, client):
    """The same step behind the unary call: answers, failures in its words, a death that costs one call."""
    sidecar = bridged(MOODY.replace("POLICY", "fail"))
    one = client(sidecar.unix)
    assert [message.payload for message in one.process(0, b"a")] == [b"a"]
    for payload, words in ((b"fail", "not today"), (b"later9", "not now"), (b"abort", "workers died over this call")):
        with pytest.raises(grpc.RpcError) as caught:
            one.process(0, payload)
        assert caught.value.code() == grpc.StatusCode.INTERNAL and words in caught.value.details()
    assert [message.payload for message in one.process(0, b"b")] == [b"b"]


def test_retries_rest_and_go_on(bridged, client):
    """What fails for a while comes out; meanwhile another session of the slot is served."""
    sidecar = bridged(MOODY.replace("on_error: POLICY", "retries: 3, retry_backoff: 50ms"))
    one = client(sidecar.unix)
    resting, other = one.session(sidecar, subtask=0, parallelism=2), one.session(sidecar, subtask=1, parallelism=2)
    seq = resting.send_records(b"a", b"later3", b"b")
    assert other.exchange(b"c") == [b"c"]
    assert [record.payload for record in resting.results(seq)] == [b"a", b"later3", b"b"]


def owner(sidecar):
    return sidecar.stats_json("slots")["slots"][0]["pid"]


def test_failures_are_counted_across_deaths(bridged, client):
    """Two failures, a killed worker, and the third in a row ends the session, in words."""
    sidecar = bridged(MOODY.replace("on_error: POLICY", "on_error: skip, errors_in_row: 3"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"fail", b"a", b"fail", b"fail") == [b"a"]
    before = owner(sidecar)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: owner(sidecar) not in (before, None, 0), "another owner")
    session.send_records(b"fail")
    with pytest.raises(grpc.RpcError) as caught:
        while True:
            session.receive()
    assert "3 failures one after the other (errors_in_row); this one: not today" in caught.value.details()


@pytest.mark.parametrize(
    "library, words",
    [
        ("nowhere.so", "cannot be read: No such file or directory"),
        ("no_symbol.so", "has no symbol bridge_step_library"),
        ("other_abi.so", "was built for version 42 of bridge_step.h"),
        ("short_table.so", "says that its table has"),
    ],
)
def test_a_broken_library_is_found_before_anything_starts(compile, workdir, library, words):
    """`bridged --check` and the start say the same, with segment and step."""
    descriptor = compile(MOODY.replace("steps.so", library).replace("POLICY", "fail"))
    command = [str(BRIDGED), "--check", "--descriptor", str(descriptor), "--listen", f"unix:{workdir}/s"]
    check = subprocess.run(command, capture_output=True, text=True)
    assert check.returncode == 1
    assert words in check.stderr and 'step "moody"' in check.stderr, check.stderr


def test_where_libraries_are(compile, workdir):
    """A relative path: where --library-path says, else in the working directory; for `bridgectl run` beside the pipeline."""
    (workdir / "steps").mkdir()
    shutil.copy(LIBRARIES / "steps.so", workdir / "steps" / "here.so")
    text = MOODY.replace(f"{LIBRARIES}/steps.so", "here.so").replace("POLICY", "fail")
    command = [str(BRIDGED), "--check", "--descriptor", str(compile(text)), "--listen", f"unix:{workdir}/s"]
    assert subprocess.run(command, cwd=workdir / "steps", capture_output=True).returncode == 0
    assert subprocess.run([*command, "--library-path", f"/nowhere:{workdir}/steps"], cwd="/", capture_output=True).returncode == 0
    refused = subprocess.run(command, cwd=workdir, capture_output=True, text=True)
    assert refused.returncode == 1 and "the library here.so cannot be read" in refused.stderr and "--library-path" in refused.stderr
    (workdir / "steps" / "moody.yaml").write_text(text)
    ran = subprocess.run([str(BRIDGECTL), "run", "steps/moody.yaml", "--slots", "1"], cwd=workdir, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_broken_library_does_not_start(bridged):
    sidecar = bridged(MOODY.replace("steps.so", "other_abi.so").replace("POLICY", "fail"), wait=False)
    sidecar.wait_for_log(r'step "moody" cannot be opened: the library .* was built for version 42')
    assert sidecar.process.wait(PATIENCE) != 0


def test_a_broken_library_never_takes_a_slot(bridged, client, workdir):
    """A reload loads the library anew; one that is broken changes nothing, and a good one comes in."""
    mine = workdir / "mine.so"
    shutil.copy(LIBRARIES / "steps.so", mine)
    sidecar = bridged(MOODY.replace(str(LIBRARIES / "steps.so"), str(mine)).replace("POLICY", "skip"))
    session = client(sidecar.unix).session(sidecar)
    assert session.exchange(b"a") == [b"a"]

    def replace(library):
        shutil.copy(LIBRARIES / library, workdir / "next.so")
        os.replace(workdir / "next.so", mine)

    def reloaded(state):
        sidecar.stats("reload")
        wait_until(lambda: find_key(sidecar.stats_json("reloading"), "state") == state, f"a reload that is {state}")

    replace("other_abi.so")
    reloaded("failed")
    assert session.exchange(b"b") == [b"b"]
    replace("steps.so")
    reloaded("done")
    assert session.exchange(b"c", b"fail") == [b"c"]


@pytest.mark.parametrize("name", ["native_c", "native_cpp", "native_rust"])
def test_an_example_is_all_that_is_needed(workdir, name):
    """A copy of the folder, the header as pkg-config finds it: it builds, and its cases pass, from anywhere."""
    include, config = workdir / "include/flink-bridge", workdir / "pkgconfig"
    include.mkdir(parents=True)
    config.mkdir()
    shutil.copy(TOP / "worker/hosts/bridge_step.h", include)
    pc = (TOP / "setup/flink-bridge.pc.in").read_text().replace("@PREFIX@", str(workdir)).replace("@VERSION@", "0")
    (config / "flink-bridge.pc").write_text(pc)
    folder = workdir / name
    shutil.copytree(TOP / "examples" / name, folder, ignore=shutil.ignore_patterns("*.so"))
    environment = {**os.environ, "PKG_CONFIG_PATH": str(config), "MAKEFLAGS": "", "STEPS": str(folder)}
    subprocess.run(["make", "-s", "-C", str(folder)], env=environment, check=True, capture_output=True, text=True)
    done = subprocess.run([str(BRIDGECTL), "test", str(folder)], env=environment, cwd=workdir, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_step_of_the_docs(workdir):
    """docs/hosts.md: the program builds as it stands there, and does what it says."""
    page = (TOP / "docs/hosts.md").read_text()
    (workdir / "shout.c").write_text(page.split("```c\n")[1].split("```")[0])
    (workdir / "pipeline.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    (workdir / "words.txt").write_text("one\ntwo\n")
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{TOP}/worker/hosts", "-o", "shout.so", "shout.c"], cwd=workdir,
                   check=True)  # fmt: skip
    done = subprocess.run([str(BRIDGECTL), "run", "pipeline.yaml"], cwd=workdir, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ONE\nTWO\n"), done.stderr


def test_the_header_is_plain_c_and_cpp(workdir):
    """It compiles alone, with all warnings, as C11 and as C++11."""
    header = TOP / "worker/hosts/bridge_step.h"
    for compiler, flags, name in (("gcc", "-std=c11", "t.c"), ("g++", "-std=c++11", "t.cpp")):
        source = pathlib.Path(workdir / name)
        source.write_text(f'#include "{header}"\nint main(void) {{ return BRIDGE_STEP_ABI - 1; }}\n')
        subprocess.run([compiler, flags, "-Wall", "-Wextra", "-pedantic", "-Werror", "-o", str(workdir / "t"), str(source)], check=True)
        assert subprocess.run([str(workdir / "t")]).returncode == 0
