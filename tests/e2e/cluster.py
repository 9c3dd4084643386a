"""A whole cluster by `make flink-up`, `flink-run` and `flink-down`: Kafka, Flink and a sidecar, each a process of its own, from topic to topic.

Run by `make test-full`, as it needs the jar that `make bridge` builds. What the script refuses is in test_flink_script.py.
"""

import os
import pathlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from conftest import BUILD, TOP

SMALL = 141  # of the quickstart's 200 events: those that leave one by one
PATIENCE = 600.0  # seconds; for what must come, never as a measure
PORTS = ("FLINK_PORT", "RPC_PORT", "KAFKA_PORT", "CONTROLLER_PORT")


class Cluster:
    """The script, with a folder and ports of its own."""

    def __init__(self, folder: pathlib.Path, variables: dict[str, str]) -> None:
        self.folder = folder
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
        ports = {name: str(one.getsockname()[1]) for name, one in zip(PORTS, sockets, strict=True)}
        for one in sockets:
            one.close()
        self.environment = {**os.environ, **ports, **variables, "FLINK_FOLDER": str(folder), "BIN": str(BUILD)}

    def does(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs one command to its end."""
        return subprocess.run([str(TOP / "bridge" / "flink.sh"), command], capture_output=True, text=True, env=self.environment, timeout=PATIENCE)

    def succeeds(self, command: str) -> str:
        """The same for one that has to go well; what it said."""
        done = self.does(command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def small_lines(self) -> int:
        """How many lines are in finished parts of the file sink."""
        parts = (self.folder / "out" / "small.jsonl").glob("[!.]*")
        return sum(part.read_text().count("\n") for part in parts)

    def await_small_lines(self, count: int) -> None:
        """Until a checkpoint has finished that many."""
        deadline = time.monotonic() + PATIENCE
        while self.small_lines() < count:
            assert time.monotonic() < deadline, f"{self.small_lines()} lines of {count}"
            time.sleep(0.1)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to notice its end does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def jars() -> list[pathlib.Path]:
    """What tests and tools run on."""
    return [pathlib.Path(jar) for jar in (TOP / "build" / "bridge" / "classpath").read_text().strip().split(":")]


def flink_home(folder: pathlib.Path) -> pathlib.Path:
    """The part of a Flink distribution that processes are started from, out of Maven's repository: no Kafka, no gRPC."""
    ours = re.compile(r"/(org/apache/kafka|io/grpc|com/google|com/fasterxml|org/yaml|net/thisptr|net/openhft)/|flink-connector-kafka|junit|-tests[.]jar")
    (folder / "lib").mkdir(parents=True)
    for jar in jars():
        if not ours.search(str(jar)):
            # A distribution has one large jar in place of this and many others; it is known by its name.
            name = jar.name.replace("flink-runtime-", "flink-dist-") if re.match(r"flink-runtime-\d", jar.name) else jar.name
            (folder / "lib" / name).symlink_to(jar)
    return folder


@pytest.fixture(params=["maven", "home"])
def cluster(request: pytest.FixtureRequest, workdir: pathlib.Path) -> Iterator[Cluster]:
    """A cluster that is not up; it is not afterwards, either."""
    variables = {"FLINK_HOME": str(flink_home(workdir / "flink"))} if request.param == "home" else {}
    one = Cluster(workdir / "run", variables)
    yield one
    one.does("down")


@pytest.mark.timeout(1800)
def test_up_run_down(cluster):
    """Two runs, each event once in what comes out; a second up changes nothing; after down nobody is left."""
    assert "make flink-run, again and again" in cluster.succeeds("up")
    again = cluster.does("up")
    assert again.returncode == 1
    assert "it is up already" in again.stderr
    for runs in (1, 2):
        said = cluster.succeeds("run")
        assert "200 records into the topic events" in said
        assert "committed records in the topic big-purchases" in said
        cluster.await_small_lines(runs * SMALL)
    pids = [int(path.read_text().split()[0]) for path in (cluster.folder / "pid").iterdir()]
    assert cluster.succeeds("down").split() == "ENDED sidecar ENDED taskmanager ENDED jobmanager ENDED kafka".split()
    assert not any(is_alive(pid) for pid in pids)
    assert cluster.small_lines() == 2 * SMALL
    assert cluster.succeeds("down") == "  nothing was up\n"
