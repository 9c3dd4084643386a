"""Tests of steps without a server: messages in, messages out, with event time, timers, state, and restarts in the middle.

A single step runs in this process, over the package's own model of state and time:

>>> from flink_bridge import Step
>>> class Count(Step):
...     def open(self, context):
...         self.seen = context.state.value("seen")
...     def process(self, message):
...         self.seen.set(self.seen.get(0) + 1)
...         return {"seen": self.seen.get()}
>>> harness = StepHarness(Count, state={"seen": "value"})
>>> harness.send({"page": "/"}, key="ada").json()
[{'seen': 1}]
>>> harness.restart()                     # the worker dies, and the next one takes over
>>> harness.send({"page": "/"}, key="ada").json()
[{'seen': 2}]

A whole pipeline, of whatever kinds of steps, runs in the worker's own code by `bridgectl test` (see PipelineHarness).
"""

from __future__ import annotations

import base64
import json as _json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .engine import Feed, Runner, StepError, check_target, describe, is_transient, key_bytes, outputs_of
from .message import Json, Message, dumps
from .pipeline import quoted
from .step import Context, Timer

Payload = Message | bytes | str | dict[str, Any] | Json
"""What a test sends: a Message, or a payload: bytes, text, a dict or Json(value) as JSON."""

MAX_TIME = 2**63 - 1
ROUTE_DEAD_LETTER = "dead_letter"
_UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}
_KINDS = {"value": "value", "map": "map", "list": "list", "timers": "timers", "split": "list", "union": "list"}


class Outputs(list[Message]):
    """What came out: a list of messages, of a step those of its first route. `routes` has all others by name.

    >>> Outputs([Message(b'{"n": 1}')]).json()
    [{'n': 1}]
    """

    def __init__(self, messages: Iterable[Message] = (), routes: Mapping[str, Outputs] | None = None) -> None:
        super().__init__(messages)
        self.routes: dict[str, Outputs] = dict(routes or {})

    def json(self) -> list[Any]:
        """The payloads as JSON values."""
        return [message.json() for message in self]

    def texts(self) -> list[str]:
        """The payloads as texts."""
        return [message.text() for message in self]

    def payloads(self) -> list[bytes]:
        """The payloads as they are."""
        return [message.payload for message in self]


@dataclass(frozen=True)
class Failure:
    """A message that a step failed on."""

    message: Message
    error: BaseException


def to_message(
    payload: Payload,
    *,
    key: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    timestamp: int | None = None,
) -> Message:
    """A message out of what a test sends; what is given beside it goes before what a Message has.

    >>> to_message({"a": 1}, key="k").payload
    b'{"a":1}'
    """
    if isinstance(payload, Message):
        return Message(
            payload.payload,
            key=payload.key if key is None else key,
            headers=payload.headers if headers is None else headers,
            timestamp=payload.timestamp if timestamp is None else timestamp,
        )
    if isinstance(payload, dict):
        data: bytes | str = dumps(payload)
    elif isinstance(payload, Json):
        data = dumps(payload.value)
    else:
        data = payload
    return Message(data, key=key, headers=headers, timestamp=timestamp)


# ---- State and time ----------------------------------------------------------------------------------------------------


@dataclass
class _State:
    """A declared state: of each key what it holds, and when that was last written."""

    name: str
    kind: str
    ttl: int | None
    held: dict[bytes | None, Any] = field(default_factory=dict)


def _declared(name: str, words: str) -> _State:
    """A state out of its declaration: `value`, `map ttl 1h`, `list version 2`."""
    found = re.fullmatch(r"(\w+)(?: ttl (\d+)(ms|s|min|h))?(?: version \d+)?(?: ttl (\d+)(ms|s|min|h))?", words.strip())
    if found is None or found[1] not in _KINDS:
        raise ValueError(f"the state `{name}` is declared as `{words}`; it is value, map, list, timers, split or union, with ttl and version")
    number, unit = (found[2], found[3]) if found[2] else (found[4], found[5])
    return _State(name, _KINDS[found[1]], int(number) * _UNITS[unit] if number else None)


class MemoryBackend:
    """State, timers, metrics and time of one subtask, in memory: what a Context stands on in tests. Changes can be undone to a mark."""

    def __init__(self, state: Mapping[str, str] | None, start: int = 0) -> None:
        self.states = [_declared(name, words) for name, words in (state or {}).items()]
        self.undo: list[Callable[[], None]] = []
        self.current: bytes | None = None
        self.keyed = False
        self.time = start
        self.event_time: int | None = None
        self.timers: dict[tuple[bool, int, bytes | None, bytes], int] = {}
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, int] = {}
        self.histograms: dict[str, list[int]] = {}

    # -- What a Context asks for

    def state_open(self, name: str, kind: str) -> int:
        for index, state in enumerate(self.states):
            if state.name == name:
                if state.kind != kind:
                    raise KeyError(f"the state `{name}` is declared as {state.kind}, not as {kind}")
                return index
        raise KeyError(f"the state `{name}` is not declared; the step's `state` has {', '.join(each.name for each in self.states) or 'none'}")

    def _fresh(self, state: _State) -> dict[bytes, tuple[bytes, int]]:
        """The entries of the current key that have not gone out of date."""
        entries: dict[bytes, tuple[bytes, int]] = state.held.get(self._key_of(state), {})
        if state.ttl is None:
            return entries
        return {name: entry for name, entry in entries.items() if entry[1] + state.ttl > self.time}

    def _key_of(self, state: _State) -> bytes | None:
        if state.kind != "list" and self.current is None:
            raise StepError(f"there is no key at hand that the state `{state.name}` could be of; is there a key_by before the step?")
        return self.current

    def _put(self, index: int, held: Any) -> None:
        """Replaces what the current key holds; can be undone."""
        state, key = self.states[index], self._key_of(self.states[index])
        before, had = state.held.get(key), key in state.held

        def undo() -> None:
            if had:
                state.held[key] = before
            else:
                state.held.pop(key, None)

        self.undo.append(undo)
        if held:
            state.held[key] = held
        else:
            state.held.pop(key, None)

    def value_get(self, state: int) -> bytes | None:
        return self.map_get(state, b"")

    def value_put(self, state: int, value: bytes) -> None:
        self.map_put(state, b"", value)

    def value_remove(self, state: int) -> None:
        self._put(state, {})

    def map_get(self, state: int, key: bytes) -> bytes | None:
        entry = self._fresh(self.states[state]).get(key)
        return None if entry is None else entry[0]

    def map_put(self, state: int, key: bytes, value: bytes) -> None:
        self._put(state, {**self._fresh(self.states[state]), key: (bytes(value), self.time)})

    def map_remove(self, state: int, key: bytes) -> None:
        self._put(state, {name: entry for name, entry in self._fresh(self.states[state]).items() if name != key})

    def map_clear(self, state: int) -> None:
        self._put(state, {})

    def map_items(self, state: int) -> list[tuple[bytes, bytes]]:
        return [(name, entry[0]) for name, entry in self._fresh(self.states[state]).items()]

    def map_count(self, state: int) -> int:
        return len(self._fresh(self.states[state]))

    def list_append(self, state: int, value: bytes) -> None:
        self._put(state, [*self.list_items(state), bytes(value)])

    def list_items(self, state: int) -> list[bytes]:
        return list(self.states[state].held.get(self.current, []))

    def list_clear(self, state: int) -> None:
        self._put(state, [])

    def list_count(self, state: int) -> int:
        return len(self.list_items(state))

    def timer_set(self, state: int, event_time: bool, time: int, tag: bytes) -> None:
        self._timer((event_time, time, self._key_of(self.states[state]), tag), True)

    def timer_delete(self, state: int, event_time: bool, time: int, tag: bytes) -> None:
        self._timer((event_time, time, self._key_of(self.states[state]), tag), False)

    def _timer(self, timer: tuple[bool, int, bytes | None, bytes], wanted: bool) -> None:
        """Sets or deletes a timer; can be undone."""
        before = dict(self.timers)
        self.undo.append(lambda: self._set_timers(before))
        if wanted:
            self.timers.setdefault(timer, len(self.timers))
        else:
            self.timers.pop(timer, None)

    def _set_timers(self, timers: dict[tuple[bool, int, bytes | None, bytes], int]) -> None:
        self.timers = timers

    def counter_add(self, name: str, value: int) -> None:
        self.counters[name] = self.counters.get(name, 0) + value

    def gauge_set(self, name: str, value: int) -> None:
        self.gauges[name] = value

    def histogram_record(self, name: str, value: int) -> None:
        self.histograms.setdefault(name, []).append(value)

    def key(self) -> bytes | None:
        return self.current

    def watermark(self) -> int | None:
        return self.event_time

    def processing_time(self) -> int:
        return self.time

    # -- What the harness asks for

    def roll_back(self) -> None:
        """Undoes what was changed since the last commit."""
        while self.undo:
            self.undo.pop()()

    def commit(self) -> None:
        """What was changed stays."""
        self.undo.clear()

    def due(self, event_time: bool, until: int) -> tuple[bool, int, bytes | None, bytes] | None:
        """The first timer of a kind that is due by a time; None: there is none."""
        ready = [timer for timer in self.timers if timer[0] == event_time and timer[1] <= until]
        return min(ready, key=lambda timer: (timer[1], timer[2] or b"", timer[3]), default=None)


# ---- One step ----------------------------------------------------------------------------------------------------------


class StepHarness:
    """One step as one subtask has it. Each call returns what came out by it; `outputs` has all of it.

    `step` is a function or class, as a pipeline would name it; `form`, `state`, `options`, `routes` and `on_error` are what the pipeline
    would say; `retries` is how often a message is given to the step again that fails in a way that may pass (at once: nothing waits), and
    `retry_on` says which ways those are.
    `key_by` makes a record's key (else `send` takes it); `start` is processing time at the beginning, in ms.

    >>> harness = StepHarness(lambda message: message.text().upper())
    >>> harness.send("ada").texts()
    ['ADA']
    """

    def __init__(
        self,
        step: Any,
        *,
        form: str = "process",
        state: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        routes: Sequence[str] = (),
        on_error: str = "fail",
        retries: int = 0,
        retry_on: Sequence[str] = ("transient",),
        key_by: Callable[[Message], bytes | str] | None = None,
        start: int = 0,
        name: str = "step",
    ) -> None:
        if on_error not in ("fail", "skip", "dead_letter"):
            raise ValueError(f"on_error is fail, skip or dead_letter, not {on_error!r}")
        check_target(step, getattr(step, "__qualname__", str(step)), form)
        self._step, self._form, self._options, self._name = step, form, options, name
        self._route_names, self._on_error, self._key_by = tuple(routes), on_error, key_by
        self._retries, self._retry_on, self._ended = retries, tuple(retry_on), False
        self.backend = MemoryBackend(state, start)
        self.outputs = Outputs()
        self.failures: list[Failure] = []
        self._open()

    def _open(self) -> None:
        """A fresh object of the step over the state that there is."""
        self.backend.current = None
        context = Context(self.backend, step=self._name, options=self._options)
        self._runner = Runner(self._step, self.backend, context, self._form)
        self._runner.open()
        self.backend.commit()

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The step's own metrics: counters and gauges as numbers, histograms as lists of what was recorded."""
        return {**self.backend.counters, **self.backend.gauges, **self.backend.histograms}

    # -- Input

    def send(
        self,
        *payloads: Payload,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timestamp: int | None = None,
    ) -> Outputs:
        """Messages, one after the other; in the batch form as one batch. Without a timestamp they have processing time."""
        if self._ended:
            raise ValueError("the input has ended: nothing more can be sent")
        messages = []
        for payload in payloads:
            time = timestamp
            if time is None and not isinstance(payload, Message):
                time = self.backend.time
            message = to_message(payload, key=key, headers=headers, timestamp=time)
            if self._key_by is not None and message.key is None:
                message = to_message(message, key=key_bytes(self._key_by(message)))
            messages.append(message)
        if self._runner.takes_all:
            return self._batch(messages)
        out = Outputs()
        for message in messages:
            self._add(out, self._one(message))
        return out

    def watermark(self, time: int) -> Outputs:
        """Event time has reached `time`: timers that are due fire, in their order, then `on_watermark`."""
        if self.backend.event_time is not None and time <= self.backend.event_time:
            return Outputs()
        self.backend.event_time = time
        out = self._fire(True, time)
        if self._runner.on_watermark is not None:
            watermarked = self._runner.on_watermark
            self.backend.current = None
            self._add(out, self._work(Message(timestamp=time), lambda: self._results(watermarked(time), Message(timestamp=time))))
        return out

    def advance(self, milliseconds: int) -> Outputs:
        """Processing time goes on; timers fire at their own time on the way."""
        if milliseconds < 0:
            raise ValueError("time does not go back")
        until = self.backend.time + milliseconds
        out = Outputs()
        while (timer := self.backend.due(False, until)) is not None:
            self.backend.time = max(self.backend.time, timer[1])
            self._add(out, self._fire(False, self.backend.time))
        self.backend.time = until
        return out

    def end(self) -> Outputs:
        """The input ends: event time becomes the largest that there is, timers of processing time are dropped, as Flink does, and `on_end`."""
        out = self.watermark(MAX_TIME)
        self.backend.timers = {timer: order for timer, order in self.backend.timers.items() if timer[0]}
        self._ended = True
        if self._runner.on_end is not None:
            ended = self._runner.on_end
            self.backend.current = None
            self._add(out, self._work(Message(), lambda: self._results(ended(), Message())))
        return out

    def restart(self) -> None:
        """The worker dies: the step's object is gone, what is in its state is not. The next one opens over it."""
        self._open()

    def close(self) -> None:
        """The subtask's work is done."""
        self._runner.close()

    # -- Work

    def _drive(self, messages: list[Message]) -> Outputs:
        """Runs messages through the step."""

        def use(message: Message) -> None:
            self.backend.current = message.key

        feed = Feed(messages, use)
        if self._runner.takes_all:
            self.backend.current = None
        self._runner.drive(feed)
        feed.settle()
        return self._routed((route, message) for _, route, message in feed.outputs)

    def _one(self, message: Message) -> Outputs:
        """One message as a unit of work."""
        return self._work(message, lambda: self._drive([message]))

    def _results(self, result: Any, base: Message) -> Outputs:
        """What a result of a timer, a watermark or the end is."""
        return self._routed(outputs_of(result, base))

    def _routed(self, outputs: Iterable[tuple[str | None, Message]]) -> Outputs:
        """Deals outputs out by route."""
        out = Outputs()
        for route, message in outputs:
            if route is None or (self._route_names and route == self._route_names[0]):
                out.append(message)
            elif route not in self._route_names:
                raise StepError(f"the step has no route `{route}`; its `routes` are {', '.join(self._route_names) or 'none'}")
            if route is not None or self._route_names:
                out.routes.setdefault(route or self._route_names[0], Outputs()).append(message)
        return out

    def _work(self, message: Message, work: Callable[[], Outputs]) -> Outputs:
        """A unit of work: it counts as a whole or, when the step fails, not at all; then the policy decides."""
        out = Outputs()
        for attempt in range(1, self._retries + 2):
            try:
                out = work()
            except Exception as error:
                self.backend.roll_back()
                if attempt > self._retries or not is_transient(error, self._retry_on):
                    return self._failed(message, error, attempt)
            else:
                break
        self.backend.commit()
        self._add(self.outputs, out)
        return out

    def _failed(self, message: Message, error: Exception, attempt: int) -> Outputs:
        """What becomes of a message that the step failed on."""
        if self._on_error == "fail":
            raise error
        self.failures.append(Failure(message, error))
        if self._on_error == "skip":
            return Outputs()
        kind, words, traceback, _ = describe(error)
        headers = {
            **message.headers,
            "bridge-error": words,
            "bridge-error-kind": kind,
            "bridge-error-step": self._name,
            "bridge-error-segment": "segment",
            "bridge-error-attempt": str(attempt),
            "bridge-error-time": str(self.backend.time),
            "bridge-error-traceback": traceback,
        }
        letter = Message(message.payload, key=message.key, headers=headers, timestamp=message.timestamp)
        out = Outputs(routes={ROUTE_DEAD_LETTER: Outputs([letter])})
        self._add(self.outputs, out)
        return out

    def _batch(self, messages: list[Message]) -> Outputs:
        """A batch; when it fails and single messages may be left out, the messages one by one."""
        if self._on_error == "fail":
            return self._work(messages[0] if messages else Message(), lambda: self._drive(messages))
        try:
            out = self._drive(messages)
        except Exception:
            self.backend.roll_back()
            out = Outputs()
            for message in messages:
                self._add(out, self._one(message))
            return out
        self.backend.commit()
        self._add(self.outputs, out)
        return out

    def _fire(self, event_time: bool, until: int) -> Outputs:
        """Fires timers that are due, also those that others set meanwhile."""
        out = Outputs()
        while (timer := self.backend.due(event_time, until)) is not None:
            self._add(out, self._fire_one(timer))
        return out

    def _fire_one(self, timer: tuple[bool, int, bytes | None, bytes]) -> Outputs:
        event_time, time, key, tag = timer
        base = Message(key=key, timestamp=time)
        due = Timer(time, key, tag.decode(), event_time)
        self.backend.current = key
        self.backend.timers.pop(timer)
        on_timer = self._runner.on_timer
        if on_timer is None:
            raise StepError("a timer is due, and the step has no method `on_timer(self, timer)`")
        return self._work(base, lambda: self._results(on_timer(due), base))

    def _add(self, out: Outputs, more: Outputs) -> None:
        """Puts outputs behind others."""
        out.extend(more)
        for route, messages in more.routes.items():
            out.routes.setdefault(route, Outputs()).extend(messages)


def run_step(step: Any, messages: Iterable[Payload], **options: Any) -> Outputs:
    """What a step makes of a list of messages, to the end of the input. `options` are those of StepHarness.

    >>> run_step(lambda message: message.text().split(), ["a b", "c"]).texts()
    ['a', 'b', 'c']
    """
    harness = StepHarness(step, **options)
    harness.send(*messages)
    harness.end()
    harness.close()
    return harness.outputs


# ---- A whole pipeline ----------------------------------------------------------------------------------------------------


class PipelineFailed(AssertionError):
    """The pipeline could not be run, or has failed. The message is what `bridgectl test` says."""


class PipelineHarness:
    """A whole pipeline, run by the worker's own code in `bridgectl test`: built-in steps, Python and native ones, over restarts.

    Events are noted, and `run` runs them all from the beginning; a list of messages for each sink comes back.

        harness = PipelineHarness("pipeline.yaml")
        harness.send({"user": "ada", "amount": 150})
        harness.restart_worker()
        harness.advance(1000)
        assert harness.run()["big"].json() == [[{"user": "ada", "amount": 150, "score": 300}]]

    `pipeline` is a path, or a flink_bridge.pipeline.Pipeline. `config` is a path, or what would stand in the file. `python_path` are folders
    that modules of Python steps are looked for in. `bridgectl` is the program; else the environment's BRIDGECTL, or the one on PATH.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        segment: str | None = None,
        parallelism: int = 1,
        start: int = 0,
        environment: Mapping[str, str] | None = None,
        python_path: Sequence[str | os.PathLike[str]] = (),
        bridgectl: str | os.PathLike[str] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._case: dict[str, Any] = {"name": "case", "parallelism": parallelism, "start": start}
        if config is not None:
            self._case["config"] = dict(config) if isinstance(config, Mapping) else str(pathlib.Path(config).resolve())
        if segment is not None:
            self._case["segment"] = segment
        self._environment = dict(environment or {})
        if python_path:
            self._environment["FLINK_BRIDGE_PYTHON_PATH"] = ":".join(str(pathlib.Path(folder).resolve()) for folder in python_path)
        self._program = bridgectl or os.environ.get("BRIDGECTL") or shutil.which("bridgectl")
        self._events: list[dict[str, Any]] = []

    def _note(self, event: dict[str, Any], source: str | None = None) -> None:
        self._events.append({**event, **({} if source is None else {"source": source})})

    def send(
        self,
        *payloads: Payload,
        source: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Messages come in, one after the other. Without a timestamp they have what the source's program makes of the payload."""
        for payload in payloads:
            message = to_message(payload)
            event: dict[str, Any] = {"base64": base64.b64encode(message.payload).decode()}
            word = key if key is not None or message.key is None else message.key.decode()
            named = headers if headers is not None else dict(message.headers)
            time = timestamp
            if time is None and isinstance(payload, Message) and payload.timestamp != 0:
                time = payload.timestamp
            event.update({} if word is None else {"key": word})
            event.update({} if not named else {"headers": dict(named)})
            event.update({} if time is None else {"timestamp": time})
            self._note(event, source)

    def watermark(self, time: int, source: str | None = None) -> None:
        """Event time has reached this, of one source or of all."""
        self._note({"watermark": time}, source)

    def idle(self, idle: bool = True, source: str | None = None) -> None:
        """A source went idle, or came back."""
        self._note({"idle": idle}, source)

    def advance(self, milliseconds: int) -> None:
        """Processing time goes on, with the ticks that steps ask for on the way."""
        self._note({"advance": milliseconds})

    def restart_worker(self) -> None:
        """The worker process is killed, and the next one takes its memory over."""
        self._note({"restart": "worker"})

    def restart_job(self, parallelism: int | None = None) -> None:
        """The job ends with a checkpoint, and another one is restored from it, maybe at another parallelism."""
        self._note({"restart": "job", **({} if parallelism is None else {"parallelism": parallelism})})

    def end(self) -> None:
        """The input ends."""
        self._note({"end": True})

    def run(self) -> dict[str, Outputs]:
        """Runs what was noted. What each sink got, by name. PipelineFailed when the pipeline fails."""
        if self._program is None:
            raise FileNotFoundError("bridgectl is not on PATH; name it by bridgectl=..., or by the variable BRIDGECTL")
        with tempfile.TemporaryDirectory(prefix="flink-bridge-") as folder:
            cases, outputs = pathlib.Path(folder) / "case.test.yaml", pathlib.Path(folder) / "outputs.jsonl"
            cases.write_text(quoted(self._file(pathlib.Path(folder))), encoding="utf-8")
            command = [str(self._program), "test", str(cases), "--json", "--outputs", str(outputs)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8")
            if done.returncode not in (0, 1):
                raise PipelineFailed(done.stderr or done.stdout)
            failure = _json.loads(done.stdout)["cases"][0]["failure"]
            if failure is not None:
                raise PipelineFailed(failure)
            return _read_outputs(outputs.read_text(encoding="utf-8"))

    def _file(self, folder: pathlib.Path) -> dict[str, Any]:
        """The file of cases, which is JSON, and so YAML."""
        path = folder / "pipeline.yaml"
        if hasattr(self._pipeline, "to_yaml"):
            path.write_text(self._pipeline.to_yaml(), encoding="utf-8")
        else:
            path = pathlib.Path(self._pipeline).resolve()
        case = {**self._case, "events": self._events}
        return {"pipeline": str(path), "environment": self._environment, "cases": [case]}


def _read_outputs(text: str) -> dict[str, Outputs]:
    """What `bridgectl test --outputs` has written."""
    sinks: dict[str, Outputs] = {}
    for line in filter(None, text.split("\n")):  # splitlines() ends lines at more than that
        record = _json.loads(line)
        messages = sinks.setdefault(record["sink"], Outputs())
        if "payload" not in record:
            continue  # a sink that got nothing
        key = record.get("key")
        messages.append(
            Message(
                base64.b64decode(record["payload"]),
                key=None if key is None else base64.b64decode(key),
                headers=record["headers"],
                timestamp=record.get("timestamp"),
            )
        )
    return sinks
