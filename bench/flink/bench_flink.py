"""`make bench-flink`: the bridge in a real Flink, against Java operators with the same logic, and against PyFlink.

    build/venv/bin/python bench/flink/bench_flink.py [--quick] [--rounds N] [--seconds S] [--sizes 100,1000] [--parallelism 1,2] [--only PART,...]
                                                     [--cpu] [--profile] [--engines NAME,...] [--plot FILE.svg]

All read the same files and end in a sink that forgets. Each engine is a process of its own that stays from round to round, and runs unmeasured
until the JVM's compiler has little left to do, so start-up, class loading and compilation are over when it counts. A run's rate is taken
inside the job, between the times at which 30 % and 95 % of its records had come to the sink. (The difference of two runs of different length
would do as well, but has the noise of both, and more compiled code in the second.) In every round each engine runs once, and ratios are of
runs of the same round; what is printed is their median.

--quick has the goals that need no PyFlink, with the C step, at 100 bytes and parallelism 1, in some ten minutes of a machine that does
nothing else.

Lines are `name<TAB>value<TAB>unit`: first every figure for itself (`native_ratio.stateless.c.100b.p1`), at the end the headlines, each the
worst of its sizes and parallelisms. All of it, and every single run, goes to build/bench/flink.json, also when it is ended before its end;
--plot draws the rates. What is being done is said on the standard error.
"""

import argparse
import contextlib
import itertools
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import plot
from engines import BIN, HERE, OUT, PEERS, TOP, Engine, Failed, Run

# What can be measured, by the logic whose engines do it.
PARTS = {"identity": ["identity"], "stateless": ["stateless", "latency"], "keyed": ["keyed", "checkpoint"]}
LANGUAGES = ["c", "builtin", "python"]
# Records of an engine's first run, which tells how many it does in a second.
FIRST = {"native": 2_000_000, "bridge": 1_000_000, "pyflink": 100_000}
FIRST_KEYED = {"native": 1_000_000, "bridge": 500_000, "pyflink": 8_000}
# An engine is warm when its compiler had less than this share of what it computes, twice in a row; runs before that, at most. The JVM
# compiles what has run some thousand times, and much of Flink runs once a file: first come runs over files that are a sixteenth as long.
COMPILING = 0.05
WARM_RUNS = 12
WARM_RUNS_MANY_FILES = 3
# A job's beginning has the JVM throw compiled code away (a stream that waits for its connection is of another class than one that has it), so
# runs are long enough for that to count little, as it does in jobs that run for weeks.
QUICK = {"rounds": 3, "seconds": 5.0, "sizes": [100], "parallelism": [1], "engines": ["native", "bridge-c", "bridge-builtin"]}
FULL = {"rounds": 5, "seconds": 5.0, "sizes": [100, 1000], "parallelism": [1, 2], "engines": None}


class Report:
    """What came out, as it is printed and kept."""

    def __init__(self) -> None:
        self.figures: dict[str, tuple[float, str]] = {}
        self.runs: list[dict[str, object]] = []

    def add(self, name: str, value: float, unit: str) -> None:
        """Prints a figure and keeps it."""
        self.figures[name] = (value, unit)
        print(f"{name}\t{value:.4g}\t{unit}", flush=True)

    def matching(self, prefix: str) -> list[float]:
        """All figures of that name, whatever their size and parallelism."""
        return [value for name, (value, _) in self.figures.items() if name.startswith(prefix + ".")]

    def write(self, path: pathlib.Path) -> None:
        """All of it, for programs."""
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = [{"name": name, "value": value, "unit": unit} for name, (value, unit) in self.figures.items()]
        path.write_text(json.dumps({"figures": figures, "runs": self.runs}, indent=1) + "\n")


class Bench:
    """One run of the program."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.begun = time.monotonic()
        self.report = Report()
        self.rates: dict[tuple[object, ...], float] = {}

    def say(self, text: str) -> None:
        """What is being done, with the minutes since the beginning."""
        spent = int(time.monotonic() - self.begun)
        print(f"bench-flink {spent // 60}:{spent % 60:02}: {text}", file=sys.stderr, flush=True)

    def names(self, logic: str) -> list[str]:
        """The engines that there are for a logic: those whose pipeline is there and compiles, and PyFlink where it is installed."""
        names = ["native"]
        languages = ["c"] if self.options.quick and logic != "identity" else LANGUAGES
        names += [f"bridge-{language}" for language in languages if (HERE / "pipelines" / f"{logic}-{language}.yaml").exists()]
        if logic != "identity" and (PEERS / "ok").exists():
            names += ["pyflink-process", "pyflink-thread"]
        return [name for name in names if not self.options.engines or name in self.options.engines]

    @contextlib.contextmanager
    def engines(self, logic: str, names: list[str]) -> Iterator[dict[str, Engine]]:
        """These engines, until they are needed no more; one that does not start or fails its first job is left out, in words."""
        running: dict[str, Engine] = {}
        with contextlib.ExitStack() as stack:
            for name in names:
                with self.spared(name):
                    self.say(f"{logic}: {name} starts")
                    engine = stack.enter_context(contextlib.closing(Engine(name, logic, self.options.profile)))
                    self.warm_up(engine)
                    running[name] = engine
            yield running

    def warm_up(self, engine: Engine) -> None:
        """Runs an engine until the JVM has compiled what it runs."""
        first = (FIRST_KEYED if engine.logic == "keyed" else FIRST)[engine.name.partition("-")[0]]
        run = engine.run(100, 1, first // 2, many_files=True)
        for _ in range(WARM_RUNS_MANY_FILES):
            run = engine.run(100, 1, int(run.rate * self.options.seconds), many_files=True)
        calm = 0
        for _ in range(WARM_RUNS):
            run = engine.run(100, 1, int(run.rate * self.options.seconds))
            self.rates[engine.name, engine.logic] = run.rate
            calm = calm + 1 if run.cpu.get("compiler", 0) < COMPILING * run.cpu_running else 0
            if calm == 2:
                break

    @contextlib.contextmanager
    def spared(self, name: str) -> Iterator[None]:
        """A failure in here costs one engine, not all."""
        try:
            yield
        except (Failed, subprocess.CalledProcessError, StopIteration) as error:
            print(f"bench-flink: without {name}: {error}", file=sys.stderr, flush=True)

    def one(self, engine: Engine, size: int, parallelism: int, seconds: float, **more: object) -> Run:
        """One run of about so many seconds."""
        key = (engine.name, engine.logic, size, parallelism)
        guess = self.rates.get(key, self.rates[engine.name, engine.logic] * (100 / size) ** 0.7)
        run = engine.run(size, parallelism, int(guess * seconds), **more)
        self.rates[key] = run.rate
        outcome = {"engine": engine.name, "logic": engine.logic, "size": size, "parallelism": parallelism}
        outcome |= {"records": run.records, "rate": run.rate, "cpu": run.cpu, "out": run.marks.count, "out_bytes": run.marks.bytes}
        self.report.runs.append(outcome | more)
        return run

    def rounds(self, engines: dict[str, Engine], size: int, parallelism: int) -> dict[str, list[Run]]:
        """The runs of all engines, round by round; the order turns, so that nobody always runs behind the same one."""
        for engine in engines.values():
            self.one(engine, size, parallelism, 1)
        runs: dict[str, list[Run]] = {name: [] for name in engines}
        for turn in range(self.options.rounds):
            self.say(f"{size} B, parallelism {parallelism}: round {turn + 1} of {self.options.rounds}")
            order = list(engines)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                slow = 2 if name.startswith("pyflink") else 1
                runs[name].append(self.one(engines[name], size, parallelism, self.options.seconds * slow))
        return runs

    def logic(self, logic: str, parts: list[str]) -> None:
        """What is wanted of one logic, by the same engines."""
        with self.engines(logic, self.names(logic)) as engines:
            if logic in parts:
                self.compare(logic, engines)
            peers = {name: engine for name, engine in engines.items() if not name.startswith("pyflink")}
            if "latency" in parts:
                self.latency(peers)
            if "checkpoint" in parts:
                self.checkpoint(peers)

    def compare(self, logic: str, engines: dict[str, Engine]) -> None:
        """All engines with all sizes and parallelisms."""
        for size in self.options.sizes:
            for parallelism in self.options.parallelism:
                self.figures(logic, f"{size}b.p{parallelism}", self.rounds(engines, size, parallelism))

    def figures(self, logic: str, where: str, runs: dict[str, list[Run]]) -> None:
        """Rates, processor time, and ratios to what the bridge is held against."""
        for name, mine in runs.items():
            self.report.add(f"rate.{logic}.{name}.{where}", statistics.median(run.rate for run in mine), "records/s")
        for name, mine in runs.items():
            self.report.add(f"cpu.{logic}.{name}.{where}", statistics.median(run.cpu_running for run in mine), "us/record")
            for role in sorted({role for run in mine for role in run.cpu}):
                spent = statistics.median(run.cpu.get(role, 0) for run in mine)
                if self.options.cpu and spent >= 0.005:
                    self.report.add(f"cpu.{logic}.{name}.{where}.{role}", spent, "us/record")
        for name, peer in itertools.product(runs, runs):
            if name.startswith("bridge-") and not peer.startswith("bridge-"):
                figure = "identity_ratio" if logic == "identity" else f"{peer.replace('-', '_')}_ratio.{logic}"
                ratio = statistics.median(mine.rate / other.rate for mine, other in zip(runs[name], runs[peer], strict=True))
                self.report.add(f"{figure}.{name.removeprefix('bridge-')}.{where}", ratio, "ratio")

    def checkpoint(self, engines: dict[str, Engine]) -> None:
        """What checkpoints every second cost the keyed job, beside none."""
        for name, engine in engines.items():
            costs = []
            self.one(engine, 100, 1, 1)
            for turn in range(self.options.rounds):
                self.say(f"checkpoints in {name}: round {turn + 1} of {self.options.rounds}")
                rates = {}
                for interval in (0, 1000) if turn % 2 else (1000, 0):
                    rates[interval] = self.one(engine, 100, 1, max(4, self.options.seconds), checkpoint_ms=interval).rate
                costs.append(1 - rates[1000] / rates[0])
            self.report.add(f"checkpoint_cost.{name}", statistics.median(costs), "share")

    def latency(self, engines: dict[str, Engine]) -> None:
        """How long records are on their way at half of what the bridge can do, beside the same in Java."""
        for name in [name for name in engines if name != "native"]:
            load = statistics.median(self.one(engines[name], 100, 1, self.options.seconds).rate for _ in range(3)) / 2
            late: dict[str, list[float]] = {"native": [], name: []}
            for turn in range(self.options.rounds):
                self.say(f"latency of {name} at {load:,.0f} records/s: round {turn + 1} of {self.options.rounds}")
                for who, times in late.items():
                    run = engines[who].run(100, 1, int(load * 5), rate=load)
                    times.append(run.marks.percentile(0.99))
            over = statistics.median(mine - other for mine, other in zip(late[name], late["native"], strict=True))
            self.report.add(f"p99.{name}", statistics.median(late[name]), "ms")
            self.report.add(f"p99.native_beside_{name}", statistics.median(late["native"]), "ms")
            self.report.add(f"p99_over_native_ms.{name.removeprefix('bridge-')}", over, "ms")

    def headlines(self) -> None:
        """The figures that the project holds itself to: each the worst of its sizes and parallelisms."""
        lowest = {"native_ratio": "native_ratio.stateless.c", "native_keyed_ratio": "native_ratio.keyed.c", "identity_ratio": "identity_ratio"}
        for mode in ("process", "thread"):
            for logic in ("stateless", "keyed"):
                for language in LANGUAGES:
                    name = f"pyflink_{mode}_ratio.{logic}.{language}"
                    lowest[name.replace(".", "_")] = name
        for headline, prefix in lowest.items():
            if values := self.report.matching(prefix):
                self.report.add(headline, min(values), "ratio")
        for headline, unit in (("checkpoint_cost", "share"), ("p99_over_native_ms", "ms")):
            figures = self.report.figures.items()
            values = [value for name, (value, _) in figures if name.startswith(f"{headline}.") and not name.endswith(".native")]
            if values:
                self.report.add(headline, max(values), unit)

    def run(self) -> None:
        """All parts that are wanted."""
        try:
            for logic, parts in PARTS.items():
                if wanted := [part for part in parts if part in self.options.only]:
                    self.logic(logic, wanted)
            self.headlines()
        finally:
            self.report.write(TOP / "build" / "bench" / "flink.json")
        if self.options.plot:
            self.options.plot.write_text(plot.draw(self.report.figures))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    names = lambda text: text.split(",")  # noqa: E731
    parts = [part for parts in PARTS.values() for part in parts]
    parser.add_argument("--quick", action="store_true", help="the goals that need no PyFlink, with the C step, in about ten minutes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one run; those of PyFlink are twice as long")
    parser.add_argument("--sizes", type=numbers)
    parser.add_argument("--parallelism", type=numbers)
    parser.add_argument("--only", type=names, default=parts, help=",".join(parts))
    parser.add_argument("--engines", type=names, help="native, bridge-LANGUAGE, pyflink-process, pyflink-thread")
    parser.add_argument("--cpu", action="store_true", help="print processor time by role, too")
    parser.add_argument("--profile", action="store_true", help="flight recordings and perf data into build/bench/flink (slows all down)")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE.svg")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if unknown := set(options.only) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    if not (BIN / "bridged").exists():
        parser.error("build/release/bridged is not there: `make` builds it")
    OUT.mkdir(parents=True, exist_ok=True)
    return options


def leave(number: int, _: object) -> None:
    """Ends the program in order: engines are closed, and what they left is removed."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    Bench(parse()).run()
