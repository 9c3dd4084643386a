"""What `make flink-up`, `flink-run` and `flink-down` refuse, and whom they end: all that needs no JVM. A whole cluster: cluster.py."""

import contextlib
import os
import pathlib
import socket
import subprocess
from collections.abc import Iterator

import pytest
from conftest import PATIENCE

TOP = pathlib.Path(__file__).resolve().parents[2]
PORTS = ("FLINK_PORT", "RPC_PORT", "KAFKA_PORT", "CONTROLLER_PORT")


def flink(command: str, folder: pathlib.Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """One run of the script, whose cluster would live in a folder."""
    environment = {**os.environ, "FLINK_FOLDER": str(folder), **variables}
    return subprocess.run([str(TOP / "bridge" / "flink.sh"), command], capture_output=True, text=True, env=environment, timeout=PATIENCE)


def birth(pid: int) -> str:
    """When a process was born, as the script keeps it."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


@pytest.fixture
def free() -> Iterator[dict[str, str]]:
    """Ports that nobody listens on, nor can while the test runs."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        yield {name: str(one.getsockname()[1]) for name, one in zip(PORTS, sockets, strict=True)}


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen]]:
    """Two processes that do nothing."""
    two = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield two
    for one in two:
        one.kill()
        one.wait()


def test_down_without_up(tmp_path):
    """There is nothing to do, and that is no error."""
    for folder in (tmp_path, tmp_path / "none"):
        done = flink("down", folder)
        assert (done.returncode, done.stdout) == (0, "  nothing was up\n"), done.stderr


def test_run_without_up(tmp_path):
    """It says what to do first."""
    done = flink("run", tmp_path)
    assert done.returncode == 1
    assert "it is not up (kafka is missing): `make flink-up` first" in done.stderr


def test_a_flink_that_does_not_answer(tmp_path, processes):
    """It is not waited for, nor is the job submitted a second time."""
    (tmp_path / "pid").mkdir()
    for name in ("kafka", "jobmanager", "taskmanager", "sidecar"):
        (tmp_path / "pid" / name).write_text(f"{processes[0].pid} {birth(processes[0].pid)}\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        done = flink("run", tmp_path, FLINK_PORT=port)
    assert done.returncode == 1 and f"Flink does not answer at 127.0.0.1:{port}" in done.stderr, done.stderr


@pytest.mark.parametrize("name", PORTS)
def test_a_port_that_is_taken(tmp_path, free, name):
    """It is named, with the variable that chooses another; nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = flink("up", tmp_path / "run", **{**free, name: port})
    assert done.returncode == 1
    assert f"port {port} is taken; choose another with {name}=" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_home_that_is_no_flink(tmp_path, free):
    """Flink 1 is none either."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "flink-dist-1.20.0.jar").touch()
    done = flink("up", tmp_path / "run", FLINK_HOME=str(tmp_path), **free)
    assert done.returncode == 1
    assert f"FLINK_HOME={tmp_path} has no lib/flink-dist-2.*.jar" in done.stderr


def test_a_folder_of_something_else(tmp_path, free):
    """What is in it stays."""
    (tmp_path / "precious").touch()
    done = flink("up", tmp_path, **free)
    assert done.returncode == 1
    assert "is not empty, and not of an earlier cluster" in done.stderr
    assert (tmp_path / "precious").exists()


def test_up_twice(tmp_path, free, processes):
    """The cluster that there is stays."""
    (tmp_path / "pid").mkdir()
    (tmp_path / "pid" / "jobmanager").write_text(f"{processes[0].pid} {birth(processes[0].pid)}\n")
    done = flink("up", tmp_path, **free)
    assert done.returncode == 1
    assert f"it is up already: http://127.0.0.1:{free['FLINK_PORT']}" in done.stderr
    assert processes[0].poll() is None


def test_down_ends_its_own(tmp_path, processes):
    """A process that has the id of one that has ended long since is somebody else's."""
    mine, other = processes
    (tmp_path / "pid").mkdir()
    (tmp_path / "pid" / "kafka").write_text(f"{mine.pid} {birth(mine.pid)}\n")
    (tmp_path / "pid" / "sidecar").write_text(f"{other.pid} {int(birth(other.pid)) - 1}\n")
    done = flink("down", tmp_path)
    assert (done.returncode, done.stdout) == (0, "  ENDED kafka\n"), done.stderr
    assert mine.wait() != 0
    assert other.poll() is None
    assert list((tmp_path / "pid").iterdir()) == []
