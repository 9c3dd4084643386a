"""Pipelines written in Python: what stands here compiles to the same pipeline.yaml that people write by hand.

    # shop.py
    from flink_bridge import Message
    from flink_bridge.pipeline import Pipeline

    shop = Pipeline("shop", parallelism=2)
    events = shop.source("events", "file", path="events.jsonl", timestamp=".ts")

    @events.step(on_error="dead_letter")
    def score(message: Message):
        event = message.json()
        return {**event, "score": event["amount"] * 2}

    split = score.key_by(".user", name="by_user").route({"big": ".score > 200", "small": "default"}, name="split")
    split["big"].batch(size=10, time="1s", name="bundle").sink("big", "file", path="big.jsonl")
    split["small"].sink("small", "file", path="small.jsonl")
    score.dead_letter.sink("failed", "print")

`python -m flink_bridge.pipeline shop -o pipeline.yaml` writes it, with `--check` only once `bridgectl check` has nothing to say. A function or class
that `step` decorates stays what it was for tests: `score.function`. Options are those of docs/steps.md by their own names; what is wrong with
them is `bridgectl check`'s business, what cannot be a step at all is said at once.
"""

from __future__ import annotations

import argparse
import importlib
import json as _json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .engine import TARGET, check_target
from .message import Message

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
PLAIN = re.compile(r"[A-Za-z_.][A-Za-z0-9_.-]*")
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")  # of what JSON leaves as it is
NO_BLOCK = re.compile(r"[^\S\n]\n|\A\s|[^\n\t\x20-\x7e\xa0-\ufffd]")  # in a text that a block could not show as it is
WORDS = {"true", "false", "null", "yes", "no", "on", "off"}


class PipelineError(Exception):
    """Something that a pipeline cannot have. The message says what, and what to do."""


def quoted(value: Any) -> str:
    """A value as JSON that YAML reads as the same: with characters as they are, but for those that YAML wants written as escapes.

    >>> print(quoted(["a\\u007f\\x85", "ü😀"]))
    ["a\\u007f\\u0085", "ü😀"]
    """
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", _json.dumps(value, ensure_ascii=False))


def _scalar(value: Any) -> str:
    """A value as YAML on one line; JSON is YAML."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_scalar(str(key))}: {_scalar(each)}" for key, each in value.items()) + " }" if value else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_scalar(each) for each in value) + "]"
    return quoted(value)


def _lines(key: str, value: Any, indent: str) -> list[str]:
    """An entry of a map as YAML: text of several lines as a block, long maps a key per line."""
    if isinstance(value, str) and "\n" in value and not NO_BLOCK.search(value) and not UNPRINTABLE.search(value):
        return [f"{indent}{_scalar(key)}: |{'' if value.endswith(chr(10)) else '-'}", *[f"{indent}  {line}".rstrip() for line in value.splitlines()]]
    if isinstance(value, Mapping) and len(_scalar(value)) > 100:
        return [f"{indent}{_scalar(key)}:", *[line for name, each in value.items() for line in _lines(str(name), each, indent + "  ")]]
    return [f"{indent}{_scalar(key)}: {_scalar(value)}"]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given."""
    return {name: value for name, value in options.items() if value is not None}


class Stream:
    """What a source or a step gives out, to be read by steps and sinks. Made by Pipeline.source and by the methods here."""

    def __init__(self, pipeline: Pipeline, reads: str) -> None:
        self._pipeline, self.reads = pipeline, reads

    def __repr__(self) -> str:
        return f"<Stream {self.reads}>"

    # -- Steps of one's own

    def step(
        self,
        target: Any = None,
        *,
        name: str | None = None,
        form: str | None = None,
        module: str | None = None,
        state: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        routes: Sequence[str] | None = None,
        **common: Any,
    ) -> Any:
        """A Python step: a decorator for a function or class, or called with one. The step is called after it unless `name` says otherwise."""

        def add(function: Any) -> PythonStep:
            code = self._code(function, module, form or "process")
            given = {
                **code,
                "form": form,
                "options": options,
                "state": state,
                "routes": None if routes is None else list(routes),
            }
            return PythonStep(self._add("python", name or code["function"].replace(".", "_"), {**_given(given), **common}), routes or (), function)

        return add if target is None else add(target)

    def _code(self, function: Any, module: str | None, form: str) -> dict[str, str]:
        """Where a worker finds a function or class."""
        title = getattr(function, "__qualname__", "")
        check_target(function, title, form)
        if "<" in title or not title:
            raise PipelineError(f"`{title or function!r}` has no name that a worker could import: define it at the top of a module")
        return {"module": module or self._pipeline.module_of(function), "function": title}

    def native(self, library: str, *, name: str, routes: Sequence[str] | None = None, **options: Any) -> Step:
        """A step out of a library."""
        given = {"library": library, "routes": None if routes is None else list(routes), **options}
        return Step(self._pipeline, self._add("native", name, given).reads, routes or ())

    # -- Built-in steps

    def kind(self, kind: str, *, name: str, **options: Any) -> Step:
        """A step of any kind, with its options by name: for kinds that have no method here."""
        routes = options.get("routes") or ()
        return Step(self._pipeline, self._add(kind, name, options).reads, list(routes))

    def map(self, program: str, *, name: str, **options: Any) -> Step:
        """Each payload becomes the one value that a jq program makes of it."""
        return self.kind("map", name=name, program=program, **options)

    def filter(self, program: str, *, name: str, **options: Any) -> Step:
        """Keeps what a jq program holds for."""
        return self.kind("filter", name=name, program=program, **options)

    def flat_map(self, program: str, *, name: str, **options: Any) -> Step:
        """One record for each value that a jq program yields."""
        return self.kind("flat_map", name=name, program=program, **options)

    def parse_json(self, *, name: str, **options: Any) -> Step:
        """Fails on what is no JSON."""
        return self.kind("parse_json", name=name, **options)

    def set(self, fields: Mapping[str, str], *, name: str, **options: Any) -> Step:
        """Sets fields to what jq programs make of the record."""
        return self.kind("set", name=name, fields=dict(fields), **options)

    def select(self, fields: Sequence[str], *, name: str, **options: Any) -> Step:
        """Keeps the named fields alone."""
        return self.kind("select", name=name, fields=list(fields), **options)

    def rename(self, fields: Mapping[str, str], *, name: str, **options: Any) -> Step:
        """Renames fields."""
        return self.kind("rename", name=name, fields=dict(fields), **options)

    def key_by(self, key: str | Callable[[Message], bytes | str], *, name: str, module: str | None = None, **options: Any) -> Step:
        """Sets the key, by which what follows is partitioned: a jq program, or a function that takes a message and returns bytes or str."""
        made = {"key": key} if isinstance(key, str) else self._code(key, module, "key_by")
        return self.kind("key_by", name=name, **made, **options)

    def route(self, routes: Mapping[str, str], *, name: str, **options: Any) -> Step:
        """Each record to the first route whose condition holds; `default` takes the rest. Read the routes by `step["name"]`."""
        return self.kind("route", name=name, routes=dict(routes), **options)

    def broadcast(self, routes: Sequence[str], *, name: str, **options: Any) -> Step:
        """A copy of each record to every route."""
        return self.kind("broadcast", name=name, routes=list(routes), **options)

    def batch(self, *, name: str, size: int | None = None, time: str | None = None, **options: Any) -> Step:
        """Records become JSON arrays."""
        return self.kind("batch", name=name, size=size, time=time, **options)

    def aggregate(self, fields: Mapping[str, str], *, name: str, **options: Any) -> Step:
        """Totals for each key."""
        return self.kind("aggregate", name=name, fields=dict(fields), **options)

    def dedup(self, *, name: str, key: str | None = None, ttl: str | None = None, **options: Any) -> Step:
        """The first of each key, or of each identity within it."""
        return self.kind("dedup", name=name, key=key, ttl=ttl, **options)

    def enrich(self, *, name: str, **options: Any) -> Step:
        """Headers, timestamp and key into fields, fields into headers and timestamp."""
        return self.kind("enrich", name=name, **options)

    # -- Ends

    def union(self, *others: Stream) -> Stream:
        """This and others as one, mixed as they come."""
        return _Union(self._pipeline, [self, *others])

    def sink(self, name: str, kind: str, **options: Any) -> None:
        """Sends it to a sink."""
        self._pipeline._add_sink(name, {"kind": kind, "from": self._from(), **_given(options)})

    def _from(self) -> Any:
        return self.reads

    def _add(self, kind: str, name: str, options: Mapping[str, Any]) -> Step:
        self._pipeline._add_step(name, {"name": name, "kind": kind, "from": self._from(), **_given(options)})
        return Step(self._pipeline, name, ())


class _Union(Stream):
    """Several streams as one."""

    def __init__(self, pipeline: Pipeline, streams: Iterable[Stream]) -> None:
        super().__init__(pipeline, "")
        self._streams = list(streams)

    def _from(self) -> list[str]:
        froms: list[str] = []
        for stream in self._streams:
            each = stream._from()
            froms += each if isinstance(each, list) else [each]
        return froms


class Step(Stream):
    """A step's output. A step with routes is read by route: `step["big"]`."""

    def __init__(self, pipeline: Pipeline, name: str, routes: Iterable[str]) -> None:
        super().__init__(pipeline, name)
        self.name, self._routes = name, list(routes)

    def __getitem__(self, route: str) -> Stream:
        if route not in self._routes:
            raise PipelineError(f"step `{self.name}` has no route `{route}`; it has {', '.join(self._routes) or 'none'}")
        return Stream(self._pipeline, f"{self.name}.{route}")

    def _from(self) -> Any:
        if self._routes:
            raise PipelineError(f"which route of `{self.name}`? say {self.name}[{self._routes[0]!r}]; it has {', '.join(self._routes)}")
        return self.reads

    @property
    def dead_letter(self) -> Stream:
        """The records that the step failed on, where its `on_error` is `dead_letter`."""
        return Stream(self._pipeline, f"{self.name}.dead_letter")


class PythonStep(Step):
    """A Python step: a stream, and what it decorates: `function`, and calls go to that."""

    def __init__(self, step: Step, routes: Iterable[str], function: Any) -> None:
        super().__init__(step._pipeline, step.name, routes)
        self.function = function
        setattr(self, TARGET, function)  # what a worker runs that imports the module
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)


class Pipeline:
    """A pipeline. `options` are the keys at the top of pipeline.yaml: parallelism, max_parallelism, on_error, drop_state.

    >>> copy = Pipeline("copy")
    >>> copy.source("lines", "file", path="in.txt").filter("length > 0", name="some", payload="text").sink("out", "print")
    >>> print(copy.to_yaml(), end="")
    name: copy
    sources:
      lines: { kind: file, path: in.txt }
    steps:
      - name: some
        kind: filter
        from: lines
        program: "length > 0"
        payload: text
    sinks:
      out: { kind: print, from: some }
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name, self._options = self._named(name), _given(options)
        self._sources: dict[str, dict[str, Any]] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        self._sinks: dict[str, dict[str, Any]] = {}

    # -- Building

    def source(self, name: str, kind: str, **options: Any) -> Stream:
        """A source of a kind, with its options by name."""
        self._free(name)
        self._sources[name] = {"kind": kind, **_given(options)}
        return Stream(self, name)

    @property
    def dead_letter(self) -> Stream:
        """The records that any step failed on whose own nobody reads by name."""
        return Stream(self, "dead_letter")

    def module_of(self, function: Any) -> str:
        """The module that a worker imports a function or class from."""
        module = str(function.__module__)
        if module != "__main__":
            return module
        main = sys.modules["__main__"]
        if main.__spec__ is not None:
            return str(main.__spec__.name)
        if getattr(main, "__file__", None) is None:
            raise PipelineError(f"`{function.__qualname__}` is in no module that a worker could import: say `module=`")
        return pathlib.Path(str(main.__file__)).stem

    def _named(self, name: str) -> str:
        if not NAME.fullmatch(name):
            raise PipelineError(f"{name!r} is no name: a letter or _, then letters, digits, _ and -, 63 at most")
        return name

    def _free(self, name: str) -> None:
        if self._named(name) in self._sources or name in self._steps:
            raise PipelineError(f"there is a source or step `{name}` already: give this one another `name`")

    def _add_step(self, name: str, step: dict[str, Any]) -> None:
        self._free(name)
        self._steps[name] = step

    def _add_sink(self, name: str, sink: dict[str, Any]) -> None:
        if self._named(name) in self._sinks:
            raise PipelineError(f"there is a sink `{name}` already: give this one another name, or let it read a union")
        self._sinks[name] = sink

    # -- Compiling

    def to_dict(self) -> dict[str, Any]:
        """What stands in the pipeline.yaml."""
        return {
            "name": self.name,
            **self._options,
            "sources": self._sources,
            **({"steps": list(self._steps.values())} if self._steps else {}),
            "sinks": self._sinks,
        }

    def to_yaml(self) -> str:
        """The pipeline.yaml."""
        lines: list[str] = []
        for key, value in {"name": self.name, **self._options}.items():
            lines += _lines(key, value, "")
        lines += ["sources:", *[line for name, each in self._sources.items() for line in _lines(name, each, "  ")]]
        if self._steps:
            lines.append("steps:")
        for step in self._steps.values():
            text = [line for key, value in step.items() for line in _lines(key, value, "    ")]
            lines += ["  - " + text[0].lstrip(), *text[1:]]
        lines += ["sinks:", *[line for name, each in self._sinks.items() for line in _lines(name, each, "  ")]]
        return "\n".join(lines) + "\n"

    def check(self, bridgectl: str | os.PathLike[str] | None = None) -> None:
        """Has `bridgectl check` look at it; PipelineError with its words. `bridgectl` is the program; else BRIDGECTL, or the one on PATH."""
        program = bridgectl or os.environ.get("BRIDGECTL") or shutil.which("bridgectl")
        if program is None:
            raise PipelineError("bridgectl is not on PATH; name it by bridgectl=..., or by the variable BRIDGECTL")
        done = subprocess.run([str(program), "check", "-"], input=self.to_yaml(), capture_output=True, encoding="utf-8")
        if done.returncode != 0:
            raise PipelineError(done.stderr.strip())


def find(name: str) -> Pipeline:
    """The pipeline of `module` or `module:object`; of a module alone the only one that it has."""
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, Pipeline):
            raise PipelineError(f"the module `{module_name}` has no Pipeline `{attribute}`")
        return found
    pipelines = [(key, value) for key, value in vars(module).items() if isinstance(value, Pipeline)]
    if len(pipelines) != 1:
        names = ", ".join(f"{module_name}:{key}" for key, _ in pipelines)
        raise PipelineError(f"the module `{module_name}` has {'no Pipeline' if not names else f'several, say which: {names}'}")
    return pipelines[0][1]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m flink_bridge.pipeline MODULE[:OBJECT] [-o FILE] [--check]`"""
    parser = argparse.ArgumentParser(
        prog="python -m flink_bridge.pipeline", description="Writes a pipeline that is defined in Python as pipeline.yaml."
    )
    parser.add_argument("pipeline", metavar="MODULE[:OBJECT]", help="the module, as `import` has it, and the Pipeline in it where it has several")
    parser.add_argument("-o", "--output", metavar="FILE", help="writes there, whole or not at all; without it, to standard output")
    parser.add_argument("--check", action="store_true", help="has `bridgectl check` look at it first")
    options = parser.parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    try:
        pipeline = find(options.pipeline)
        if options.check:
            pipeline.check()
    except (PipelineError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    text = pipeline.to_yaml()
    if options.output is None:
        sys.stdout.buffer.write(text.encode())
        return 0
    new = pathlib.Path(f"{options.output}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(options.output)
    return 0


if __name__ == "__main__":
    # Not this module's own classes: the pipeline's module imports flink_bridge.pipeline, which is another one.
    from flink_bridge import pipeline as imported

    sys.exit(imported.main())
