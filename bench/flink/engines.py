"""What is compared, each as a process that takes one job after the other: a JVM, or PyFlink with its JVM; and the sidecar beside it."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import IO

import cpu
import data
import marks

TOP = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
OUT = TOP / "build" / "bench" / "flink"
BIN = TOP / "build" / "release"
PEERS = TOP / "build" / "peers"

OPENS = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "util", "nio", "net")]
HEAP = ["-Xms1g", "-Xmx1g"]
LOG4J = """rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} %m%n
"""


class Failed(Exception):
    """A job or a process that should have worked did not."""


def classpath() -> str:
    """What the jobs run with: their classes, and Flink."""
    build = TOP / "build" / "bridge"
    return ":".join([str(build / "test-classes"), str(build / "classes"), (build / "classpath").read_text().strip()])


@dataclasses.dataclass
class Run:
    """What came out of a job."""

    marks: marks.Marks
    records: int
    rate: float  # records that came in, a second
    cpu: dict[str, float]  # microseconds of a processor for each of them, by who had them

    @property
    def cpu_running(self) -> float:
        """All of that but what compiling took, which ends."""
        return sum(spent for name, spent in self.cpu.items() if name != "compiler")


class Child:
    """A process that answers each line on its standard input with one that begins with DONE or FAILED."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        OUT.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = OUT / f"{name}.log"
        self._errors: IO[bytes] = self.log.open("wb")
        self._is_busy = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | environment,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self._process.pid

    def ask(self, job: dict[str, object]) -> None:
        """Runs a job to its end."""
        assert self._process.stdin and self._process.stdout
        self._is_busy = True
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(("DONE", "FAILED")):
                self._is_busy = False
            if line.startswith("DONE"):
                return
            if line.startswith("FAILED"):
                raise Failed(f"{self.name}: {line.strip()} (its log: {self.log})")
        raise Failed(f"{self.name} ended with {self._process.wait()} (its log: {self.log})")

    def close(self) -> None:
        """Ends it, and all that it started; in the middle of a job at once."""
        assert self._process.stdin
        if not self._is_busy:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._errors.close()


class Sidecar:
    """`bridged` with one pipeline and two slots, and its sockets in a folder of somebody else's."""

    def __init__(self, name: str, pipeline: pathlib.Path, sockets: pathlib.Path, slots: int = 2) -> None:
        self.folder = OUT / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.descriptor = self.folder / "descriptor.yaml"
        subprocess.run([BIN / "bridgectl", "compile", pipeline, "-o", self.descriptor], check=True, cwd=TOP)
        self.address = f"unix:{sockets}/bridge.sock"
        stats = sockets / "stats.sock"
        command: list[str | pathlib.Path] = [
            BIN / "bridged",
            "--descriptor",
            self.descriptor,
            "--slots",
            str(slots),
            "--listen",
            self.address,
            "--stats",
            stats,
        ]
        self._errors = (self.folder / "log").open("wb")
        environment = os.environ | {"PYTHONPATH": str(HERE / "steps")}
        words = [str(word) for word in command]
        self._process = subprocess.Popen(words, stdout=self._errors, stderr=self._errors, cwd=TOP, env=environment)
        health: list[str | pathlib.Path] = [BIN / "bridgectl", "health", "--stats", stats]
        deadline = time.monotonic() + 30
        while subprocess.run(health, capture_output=True).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise Failed(f"bridged does not serve {pipeline.name}: see {self.folder / 'log'}")
            time.sleep(0.1)

    def pids(self) -> list[int]:
        """Of the supervisor and all its children."""
        children = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [self._process.pid, *map(int, children)]

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()
        self._errors.close()


class Engine:
    """One of what is compared, with all that belongs to it."""

    def __init__(self, name: str, logic: str, profile: bool = False) -> None:
        self.name, self.logic, self.profile = name, logic, profile
        self.sidecar: Sidecar | None = None
        OUT.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # What it leaves behind, and a short path for sockets.
            self.scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-flink-", ignore_cleanup_errors=True)))
            self.child = self._start(stack)
            stack.callback(self.child.close)
            self._end = stack.pop_all()

    def _start(self, stack: contextlib.ExitStack) -> Child:
        """Its process, and the sidecar before it."""
        log4j = OUT / "log4j2.properties"
        log4j.write_text(LOG4J)
        options = [*HEAP, *OPENS, f"-Dlog4j.configurationFile={log4j}", f"-Djava.io.tmpdir={self.scratch}"]
        if self.profile:
            options.append(f"-XX:StartFlightRecording=settings=profile,filename={OUT / f'{self.name}-{self.logic}.jfr'}")
        kind, _, variant = self.name.partition("-")
        if kind == "pyflink":
            return self._pyflink(variant, options)
        arguments = [kind]
        if kind == "bridge":
            self.sidecar = Sidecar(f"{self.name}-{self.logic}", HERE / "pipelines" / f"{self.logic}-{variant}.yaml", self.scratch)
            stack.callback(self.sidecar.close)
            arguments += [str(self.sidecar.descriptor), self.sidecar.address]
        return Child(f"{self.name}-{self.logic}-jvm", ["java", *options, "-cp", classpath(), "io.flinkbridge.bench.Bench", *arguments], {})

    def _pyflink(self, mode: str, options: list[str]) -> Child:
        """PyFlink in one of its two modes; its workers find it by PYTHONPATH."""
        jar = OUT / "marks.jar"
        subprocess.run(["jar", "cf", jar, "-C", TOP / "build/bridge/test-classes", "io/flinkbridge/bench"], check=True)
        packages = next((PEERS / "lib").glob("python3*/site-packages"))
        environment = {
            "PYTHONPATH": str(packages),
            "PATH": f"{PEERS / 'bin'}:{os.environ['PATH']}",
            "JVM_ARGS": " ".join(options),
            "FLINK_LOG_DIR": str(OUT),
            "TMPDIR": str(self.scratch),
        }
        command = [str(PEERS / "bin/python"), str(HERE / "pyflink_jobs.py"), mode, str(jar)]
        return Child(f"{self.name}-{self.logic}", command, environment)

    def pids(self) -> list[int]:
        """Of all its processes."""
        return [*cpu.session(self.child.pid), *(self.sidecar.pids() if self.sidecar else [])]

    def run(self, size: int, parallelism: int, records: int, **more: object) -> Run:
        """Runs a job over about so many records."""
        files, count = data.files(TOP / "build" / "bench" / "flink-data", size, records, many=bool(more.pop("many_files", False)))
        if "rate" in more:
            count = records
            more["records"] = records
        where = self.scratch / "marks"
        job = {"logic": self.logic, "parallelism": parallelism, "files": files, "marks": str(where), **more}
        with cpu.Sampler(self.pids) as sampler, self._perf():
            self.child.ask(job)
        seen = marks.read(where, parallelism)
        begin, end = seen.when(marks.BEGIN), seen.when(marks.END)
        part = (marks.END - marks.BEGIN) * count
        spent = {name: seconds * 1e6 / part for name, seconds in sampler.between(begin, end).items()}
        return Run(seen, count, part / (end - begin), spent)

    @contextlib.contextmanager
    def _perf(self) -> Iterator[None]:
        """With a profile of the sidecar, if that is wanted: the last run's stays."""
        if not self.profile or not self.sidecar:
            yield
            return
        where = OUT / f"{self.name}-{self.logic}.perf"
        pids = ",".join(map(str, self.sidecar.pids()))
        perf = subprocess.Popen(["perf", "record", "-q", "-g", "-e", "cpu-clock", "-o", where, "-p", pids], stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            perf.send_signal(signal.SIGINT)
            perf.wait()

    def close(self) -> None:
        """Ends all its processes, and removes what they left."""
        self._end.close()
