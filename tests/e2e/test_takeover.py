"""What outlives what: state memory, and slots whose workers die, are replaced, hang, or get new code."""

import subprocess

from conftest import BRIDGED

PIPELINE = """\
name: through
sources:
  in: { kind: generator, count: 1 }
steps:
  - name: shout
    kind: map
    payload: text
    program: ascii_upcase
sinks:
  out: { kind: discard }
"""


def refused(*flags):
    """What a bridged says that does not start."""
    run = subprocess.run([BRIDGED, *flags], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1, run.stderr
    return run.stderr


def test_state_in_files_is_allocated_at_start_or_the_start_fails(bridged, compile, workdir):
    """A directory serves one sidecar, and one that has no room is an error in words before anything runs."""
    states = workdir / "states"
    states.mkdir()
    first = bridged(PIPELINE, flags=["--state-dir", states, "--state-memory", "8MiB"])
    assert list(states.iterdir()) == [], "arenas have no names"
    flags = ("--descriptor", str(compile(PIPELINE)), "--listen", f"unix:{workdir}/second.sock", "--state-dir")
    assert f"another bridged keeps its state in {states}" in refused(*flags, str(states))
    first.stop()
    assert "cannot be used: No such file or directory" in refused(*flags, str(states / "none"))
    log = refused(*flags, "/dev/shm", "--state-memory", "64GiB")
    assert "/dev/shm has no room for the state of slot 0 (64.0 GiB): No space left on device" in log
    assert "lower --state-memory, or choose another --state-dir" in log
