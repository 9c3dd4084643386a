"""The test runner: every unit suite, fuzz replay and end-to-end file as a job of its own, two at a time.

    tests/run.py [--unit VARIANT,...] [--threaded VARIANT,...] [--replay VARIANT,...] [--e2e VARIANT,...] [--java SIZE]
                 [--cases VARIANT,...] [--cluster VARIANT,...] [NAME...]

A VARIANT is a folder of build/; --threaded is for the unit suites that start threads alone. --cases runs the examples' own test cases (`bridgectl test`), a folder each. --cluster is for tests/e2e/cluster.py, which needs the jar. --java runs the tests of the Flink application, all classes in one
run of Maven, against build/release: `small`, `full`, or `chaos` (only the *Chaos classes, for CHAOS_SECONDS). NAMEs pick jobs: check_ring, test_unary, CodecTest
(all of them when none is named). What is counted are single tests: Check's, each file of a replayed corpus, pytest's, JUnit's. A job that hangs is killed with everything it started, and counts
as one failure. Failures show the job's whole output, and again by name at the end; the last line is always

    N passed, N failed, N skipped

The exit status is 0 when nothing failed and something ran.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

TOP = pathlib.Path(__file__).resolve().parent.parent
SANITIZERS = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": f"halt_on_error=0:second_deadlock_stack=1:exitcode=66:suppressions={TOP}/tests/tsan.supp",
}


# By how much longer than another job this one may take: it is all of the Java tests.
JAVA_TIMES = {"small": 2, "full": 6, "chaos": 1}

# The same of a cluster that is started and ended several times.
CLUSTER_TIMES = 2


@dataclasses.dataclass
class Job:
    name: str
    variant: str
    kind: str
    command: list[str]
    timeout: float


@dataclasses.dataclass
class Outcome:
    passed: int = 0
    skipped: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    output: str = ""
    seconds: float = 0.0


def fixed_addresses() -> list[str]:
    """Sanitizers of older compilers cannot live with much address randomisation: a prefix that turns it off, where allowed."""
    prefix = ["setarch", os.uname().machine, "-R"]
    try:
        works = subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        works = False
    return prefix if works else []


def collect(options: argparse.Namespace) -> list[Job]:
    """All jobs that the options ask for, the long ones first."""
    jobs = []
    fixed = fixed_addresses()
    chaos = sorted((TOP / "tests" / "e2e").glob("chaos*.py")) if "chaos" in options.names else []
    names = [*options.names, *(path.stem for path in chaos)]

    def add(kind: str, name: str, variant: str, command: list[str]) -> None:
        if not names or name in names:
            prefix = fixed if "san" in variant and kind != "e2e" else []
            jobs.append(Job(name, variant, kind, [*prefix, *command], options.timeout))

    java = java_classes("Chaos" if options.java == "chaos" else "Test", [name for name in options.names if name != "chaos"])
    if options.java and java:
        flags = subprocess.run(["setup/jvm_flags.sh"], cwd=TOP, stdout=subprocess.PIPE, text=True, check=True).stdout
        command = ["setup/maven.sh", "test", "test", f"-Dtest={','.join(java)}", f"-Dbridge.size={options.java}"]
        command.append(f"-Dbridge.jvm={' '.join(flags.split())}")
        jobs.append(Job("java", "release", "java", command, options.timeout * JAVA_TIMES[options.java]))
    for variant in options.cluster:
        if not options.names or "cluster" in options.names:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e/cluster.py"]
            jobs.append(Job("cluster", variant, "e2e", command, options.timeout * CLUSTER_TIMES))
    for variant in options.e2e:
        for path in sorted((TOP / "tests" / "e2e").glob("test_*.py")) + chaos:
            add("e2e", path.stem, variant, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)])
        for path in sorted((TOP / "examples").glob("*/test_*.py")):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
            add("e2e", f"{path.parent.name}_{path.stem}", variant, command)
    for variant in options.cases:
        for folder in sorted({path.parent for path in (TOP / "examples").rglob("*.test.yaml")}):
            add("cases", folder.name, variant, [f"build/{variant}/bridgectl", "test", "--quiet", "--timeout", "60s", str(folder.relative_to(TOP))])
    for kind, variants in (("unit", options.unit), ("threaded", options.threaded)):
        for variant in variants:
            for source in sorted((TOP / "tests").glob("check_*.c")):
                if kind == "unit" or "pthread_create" in source.read_text():
                    add(kind, source.stem, variant, [f"build/{variant}/tests/{source.stem}"])
    for variant in options.replay:
        for source in sorted((TOP / "tests").glob("fuzz_*.c")):
            target = source.stem.removeprefix("fuzz_")
            add("replay", f"replay_{target}", variant, [f"build/{variant}/tests/replay_{target}", f"tests/corpus/{target}"])
    return jobs


def java_classes(ending: str, names: list[str]) -> list[str]:
    """The Java test classes with this ending that the names pick; all when there are none."""
    classes = sorted(path.stem for path in (TOP / "bridge" / "src" / "test").glob(f"**/*{ending}.java"))
    return [name for name in classes if not names or name in names or "java" in names]


class Runner:
    """Runs jobs and keeps what is alive, so that an interrupt leaves nothing behind."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.alive: dict[int, subprocess.Popen] = {}

    def kill_all(self) -> None:
        with self.lock:
            for group in self.alive:
                kill_group(group)

    def run(self, job: Job) -> Outcome:
        """One job, from start to counted outcome."""
        with tempfile.TemporaryDirectory(prefix="bridge-test-") as scratch:
            log = pathlib.Path(scratch) / "log"
            report = pathlib.Path(scratch) / "report"
            environment = dict(os.environ, **SANITIZERS, TMPDIR=scratch, BRIDGE_BUILD=f"build/{job.variant}", LC_ALL="C.UTF-8")
            environment["PYTHONPATH"] = str(TOP / "worker" / "hosts" / "python" / "package")
            if job.kind in ("unit", "threaded"):
                environment |= {"CK_TAP_LOG_FILE_NAME": str(report), "CK_DEFAULT_TIMEOUT": "60", "CK_TIMEOUT_MULTIPLIER": "4"}
            report_flags = {"e2e": [f"--junitxml={report}"], "cases": ["--junit", str(report)]}
            command = [*job.command, *report_flags.get(job.kind, [])]
            if job.kind == "java":
                report = TOP / "build" / "bridge" / "surefire-reports"
                shutil.rmtree(report, ignore_errors=True)
            started = time.monotonic()
            code, words = self.wait(job, command, environment, log)
            text = log.read_text(errors="replace") + words
            outcome = READERS[job.kind](job, code, text, report)
        outcome.output = outcome.output or text
        outcome.seconds = time.monotonic() - started
        if code != 0 and not outcome.failed:
            outcome.failed = [f"{job.name}: exit status {code}, though no test failed"]
        return outcome

    def wait(self, job: Job, command: list[str], environment: dict, log: pathlib.Path) -> tuple[int, str]:
        """Starts a command in a process group of its own; at its end, or when its time is up, the group is killed."""
        with open(log, "wb") as sink:
            try:
                process = subprocess.Popen(
                    command, cwd=TOP, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
                )
            except OSError as error:
                return 127, f"cannot run {command[0]}: {error.strerror}\n"
        with self.lock:
            self.alive[process.pid] = process
        try:
            return process.wait(job.timeout), ""
        except subprocess.TimeoutExpired:
            return 124, f"\n{job.name} ({job.variant}) HANGS: killed after {job.timeout:.0f} s\n"
        finally:
            kill_group(process.pid)
            process.wait()
            with self.lock:
                del self.alive[process.pid]


def kill_group(group: int) -> None:
    """SIGKILL to a process group that may be gone already."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def read_tap(job: Job, code: int, text: str, report: pathlib.Path) -> Outcome:
    """Check's report: `ok N - file:case:test: Passed`."""
    outcome = Outcome()
    for line in report.read_text(errors="replace").splitlines() if report.exists() else []:
        if line.startswith("ok "):
            outcome.passed += 1
        elif line.startswith("not ok "):
            outcome.failed.append(f"{job.name}: {line.partition(' - ')[2]}")
    if not outcome.failed and (code != 0 or outcome.passed == 0):
        outcome.failed.append(f"{job.name}: {describe_end(code)}, {outcome.passed} tests reported")
    if "WARNING: ThreadSanitizer" in text and not outcome.failed:
        outcome.failed.append(f"{job.name}: ThreadSanitizer reported")
    return outcome


def read_replay(job: Job, code: int, text: str, report: pathlib.Path) -> Outcome:
    """A replayed corpus: `N inputs` is its last line."""
    found = re.search(r"^(\d+) inputs$", text, re.MULTILINE)
    if code == 0 and found and int(found[1]) > 0:
        return Outcome(passed=int(found[1]))
    return Outcome(failed=[f"{job.name}: {describe_end(code)}"])


def read_junit(job: Job, code: int, text: str, report: pathlib.Path) -> Outcome:
    """pytest's report, or that of `bridgectl test`. A test that failed and whose teardown failed too is one failure."""
    outcome = Outcome()
    bad: set[str] = set()
    try:
        root = xml.etree.ElementTree.parse(report).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return Outcome(failed=[f"{job.name}: {describe_end(code)}, no report"])
    for case in root.iter("testcase"):
        name = f"{job.name}: {case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            bad.add(name)
        elif case.find("skipped") is not None:
            outcome.skipped += 1
        else:
            outcome.passed += 1
    outcome.failed = sorted(bad)
    return outcome


def read_surefire(job: Job, code: int, text: str, report: pathlib.Path) -> Outcome:
    """Surefire's reports, a file for each class. What failed is put into words: the message, and where in our own code."""
    outcome = Outcome()
    for path in sorted(report.glob("TEST-*.xml")):
        for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
            problem = case.find("failure") if case.find("failure") is not None else case.find("error")
            if problem is not None:
                name = f"{(case.get('classname') or path.stem).rpartition('.')[2]}.{case.get('name')}"
                outcome.failed.append(f"{job.name}: {name}")
                outcome.output += f"{name}: {describe_problem(problem.text or '')}\n"
            elif case.find("skipped") is not None:
                outcome.skipped += 1
            else:
                outcome.passed += 1
    if not outcome.failed and (code != 0 or outcome.passed == 0):
        outcome.failed.append(f"{job.name}: {describe_end(code)}, {outcome.passed} tests reported")
    outcome.output += text
    return outcome


def describe_problem(trace: str) -> str:
    """A Java stack trace without the frames of libraries."""
    lines = [line for line in trace.splitlines() if not line.lstrip().startswith("at ") or "io.flinkbridge." in line]
    return "\n".join(lines[:40])


READERS = {"unit": read_tap, "threaded": read_tap, "replay": read_replay, "e2e": read_junit, "cases": read_junit, "java": read_surefire}


def describe_end(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return "hangs" if code == 124 else f"exit status {code}"


def report_progress(done: int, total: int, job: Job, outcome: Outcome) -> None:
    """One line for each finished job; everything it said when something failed."""
    verdict = f"{outcome.passed} passed"
    if outcome.skipped:
        verdict += f", {outcome.skipped} skipped"
    if outcome.failed:
        verdict += f", {len(outcome.failed)} FAILED"
    print(f"[{done:3}/{total}] {job.variant:13} {job.name:28} {verdict} ({outcome.seconds:.1f} s)", flush=True)
    if outcome.failed:
        print(f"---- output of {job.name} ({job.variant}) ----\n{outcome.output.rstrip()}\n---- end of {job.name} ----", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in ("unit", "threaded", "replay", "e2e", "cases", "cluster"):
        parser.add_argument(f"--{kind}", type=lambda text: text.split(","), default=[], metavar="VARIANT,...")
    parser.add_argument("--java", choices=["small", "full", "chaos"])
    parser.add_argument("--jobs", type=int, default=max(2, os.cpu_count() or 2))
    parser.add_argument("--timeout", type=float, default=1800, help="seconds after which a job hangs; single tests have limits of their own")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    jobs = collect(options)
    runner = Runner()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failures: list[str] = []
    passed = skipped = 0
    pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
    try:
        futures = {pool.submit(runner.run, job): job for job in jobs}
        for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
            job, outcome = futures[future], future.result()
            passed, skipped = passed + outcome.passed, skipped + outcome.skipped
            failures += [f"{name} ({job.variant})" for name in outcome.failed]
            report_progress(done, len(jobs), job, outcome)
    except (KeyboardInterrupt, SystemExit):
        pool.shutdown(wait=False, cancel_futures=True)
        runner.kill_all()
        failures.append("interrupted")
    pool.shutdown()
    if not jobs:
        failures.append("no test was found")
    for name in failures:
        print(f"FAILED {name}")
    print(f"{passed} passed, {len(failures)} failed, {skipped} skipped", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
