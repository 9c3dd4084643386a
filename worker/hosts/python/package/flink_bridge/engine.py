"""How steps are run, by the host and by tests alike: what a name in a pipeline means, what a form does, what a result is.

Not for users. The host and `flink_bridge.testing` stand on this:

    target = find_target("app.steps", "clean")        # once per process: imports the module
    runner = Runner(target, backend, context)        # once per subtask
    runner.open()
    runner.drive(feed)                                # for each run of messages
    runner.on_timer(timer), runner.on_watermark(time) # results, to be settled
    runner.close()

A feed is what messages come from and results go to: an iterable of messages with `out`, the result for the message that came last. It settles
that (`settle` below, or the same in C) before it hands out the next message, so that generators run while their own key is current.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

from .message import Json, Message, To, dumps
from .step import FORM, Aggregate, Backend, Context, Form, Timer, Transient, ValueState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COROUTINE, _ASYNC_GENERATOR = 0x80, 0x200  # of a function's code
TARGET = "__flink_bridge_target__"  # of what stands for a step in a module: the function or class itself
TRACEBACK_MAX = 4096
MESSAGE_MAX = 400


class StepError(Exception):
    """Something that a step is, returns or asks for cannot be. The message says what, and what to do."""


# ---- Threads ---------------------------------------------------------------------------------------------------------


def name_threads() -> str:
    """The names of other threads that are Python's, as a text for people; "" when there are none."""
    import threading

    return ", ".join(repr(each.name) for each in threading.enumerate() if each is not threading.current_thread())


# ---- What a name means -----------------------------------------------------------------------------------------------


def find_target(module: str, name: str, form: str = "process") -> Any:
    """The function or class that a pipeline names, of a module that is imported for it. StepError says what is wrong."""
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise StepError(f"there is no Python module `{module}` (looked in: {', '.join(sys.path)})") from None
        raise
    for part in name.split("."):
        if not hasattr(found, part):
            raise StepError(f"the Python module `{module}` has no `{name}`{_similar(found, part)}")
        found = getattr(found, part)
    found = getattr(found, TARGET, found)
    check_target(found, f"{module}.{name}", form)
    return found


def _similar(holder: object, name: str) -> str:
    """A hint at what may be meant."""
    import difflib

    names = difflib.get_close_matches(name, [each for each in dir(holder) if not each.startswith("_")], 1)
    return f"; is `{names[0]}` meant?" if names else ""


def form_of(target: Any, form: str = "process") -> Form:
    """Which form a function or class is in: as the pipeline says, or, where that says `process`, as it is decorated."""
    if isinstance(target, type):
        return Form("aggregate") if issubclass(target, Aggregate) else Form("class")
    if form != "process":
        return Form(form)
    said = getattr(target, FORM, None)
    return said if isinstance(said, Form) else Form("function")


def check_target(target: Any, name: str, form: str = "process") -> None:
    """StepError when a target cannot be a step."""
    if isinstance(target, type):
        if form != "process":
            raise StepError(f"the class `{name}` cannot have the form `{form}`: that is for functions")
        if not issubclass(target, Aggregate) and not callable(getattr(target, "process", None)):
            raise StepError(f"the class `{name}` has no method `process(self, message)`")
        _check_arguments(target, name, 0, "a step class is made without arguments: what it needs it finds in open(self, context)")
        return
    if not callable(target):
        raise StepError(f"`{name}` is neither a function nor a class: {type(target).__name__}")
    if _code_flags(target) & _ASYNC_GENERATOR:
        raise StepError(f"`{name}` is an `async def` that yields: it has to return its outputs, as a list if they are several")
    if _code_flags(target) & _COROUTINE and form_of(target, form).name not in ("async", "function"):
        raise StepError(f"`{name}` is an `async def`, which cannot have the form `{form_of(target, form).name}`")
    wanted = 2 if form_of(target, form).name == "reduce" else 1
    words = {2: "a reduce function takes two values", 1: "a step function takes a message"}
    _check_arguments(target, name, wanted, words[wanted])


def _code_flags(target: Any) -> int:
    """The flags of a function's or method's code; 0 for what has none."""
    flags: int = getattr(getattr(target, "__code__", None), "co_flags", 0)
    return flags


def _check_arguments(target: Any, name: str, count: int, words: str) -> None:
    """StepError when something cannot be called with so many arguments."""
    code = getattr(target, "__code__", None)
    if code is not None and code.co_argcount == count and code.co_kwonlyargcount == 0:
        return  # the common case, without a module as large as `inspect`
    if code is None and count == 0 and target.__init__ is object.__init__:
        return
    import inspect

    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return  # some of C have none
    try:
        signature.bind(*[None] * count)
    except TypeError:
        raise StepError(f"`{name}{signature}` cannot be called: {words}") from None


# ---- Running ---------------------------------------------------------------------------------------------------------


def _drive(function: Callable[[Message], Any], feed: Any) -> None:
    for message in feed:
        feed.out = function(message)


def _drive_map(function: Callable[[Message], Any], feed: Any) -> None:
    for message in feed:
        out = function(message)
        if out is None or isinstance(out, (list, tuple, Iterator)):
            raise StepError(f"a map function makes exactly one output of each message; this is {_kind(out)}")
        feed.out = out


def _drive_filter(function: Callable[[Message], Any], feed: Any) -> None:
    for message in feed:
        feed.out = message if function(message) else None


def _drive_flat_map(function: Callable[[Message], Any], feed: Any) -> None:
    for message in feed:
        out = function(message)
        if out is not None:
            if isinstance(out, (str, bytes, bytearray, memoryview, dict, Message, Json, To)):
                raise StepError(f"a flat_map function returns or yields outputs; this is one by itself: {_kind(out)}")
            feed.out = iter(out)


def _drive_route(function: Callable[[Message], Any], feed: Any) -> None:
    for message in feed:
        names = function(message)
        if type(names) is str:
            feed.out = To(names, message)
        elif names is not None:
            feed.out = [To(name, message) for name in names]


def _drive_key_by(function: Callable[[Message], Any], feed: Any) -> None:
    for message in feed:
        key = function(message)
        feed.key(key if type(key) is bytes else key_bytes(key))
        feed.out = message


def _drive_batch(function: Callable[[list[Message]], Any], feed: Any) -> None:
    messages = feed.take()
    out = function(messages)
    if out is not None and not isinstance(out, (list, tuple)):
        raise StepError(f"a batch function returns a list of outputs; this is {_kind(out)}")
    feed.out = out


def _kind(value: Any) -> str:
    """What a value is, for messages."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


class _Reduce:
    """A reduce function over its state."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def open(self, context: Context) -> None:
        self.state: ValueState[Any] = context.state.value("reduced")

    def process(self, message: Message) -> Json:
        before, value = self.state.get(), message.json()
        if before is not None:
            value = self.function(before, value)
        if value is None:
            raise StepError("a reduce function returns a value; this is None")
        self.state.set(value)
        return Json(value)


class _Aggregating:
    """An Aggregate over its state."""

    def __init__(self, aggregate: Aggregate[Any]) -> None:
        self.aggregate = aggregate

    def open(self, context: Context) -> None:
        self.state: ValueState[Any] = context.state.value("aggregated", self.aggregate.codec)

    def process(self, message: Message) -> Any:
        accumulator = self.state.get()
        if accumulator is None:
            accumulator = self.aggregate.create()
        accumulator = self.aggregate.add(accumulator, message)
        self.state.set(accumulator)
        return self.aggregate.result(accumulator)


_DRIVERS: dict[str, Callable[[Any, Any], None]] = {
    "map": _drive_map,
    "filter": _drive_filter,
    "flat_map": _drive_flat_map,
    "route": _drive_route,
    "key_by": _drive_key_by,
    "batch": _drive_batch,
}


class Runner:
    """A step as one subtask has it."""

    def __init__(self, target: Any, backend: Backend, context: Context | None = None, form: str = "process") -> None:
        form_at_hand = form_of(target, form)
        self.context = context or Context(backend)
        self.takes_all = form_at_hand.name == "batch"
        self.caller: Any = None
        self._object: Any = None
        if form_at_hand.name == "class":
            self._object = target()
        elif form_at_hand.name == "aggregate":
            self._object = _Aggregating(target())
        elif form_at_hand.name == "reduce":
            self._object = _Reduce(target)
        self.function: Callable[..., Any] = target if self._object is None else self._object.process
        self.driver: Callable[[Callable[..., Any], Any], None] = _DRIVERS.get(form_at_hand.name, _drive)
        if form_at_hand.name != "aggregate" and (form_at_hand.name == "async" or _code_flags(self.function) & _COROUTINE):
            from .calls import Caller  # with asyncio, which is large

            said = form_of(self.function)
            self.caller = Caller(said.calls)
            self.driver = self.caller.drive
            self.takes_all = True
        self.on_timer: Callable[[Timer], Any] | None = getattr(self._object, "on_timer", None)
        self.on_watermark: Callable[[int], Any] | None = getattr(self._object, "on_watermark", None)
        self.on_end: Callable[[], Any] | None = getattr(self._object, "on_end", None)

    def open(self) -> None:
        """Runs the step's own `open`."""
        opening: Callable[[Context], Any] | None = getattr(self._object, "open", None)
        if opening is not None:
            _finish(opening(self.context))
            self.function = self._object.process  # which open may have chosen

    def drive(self, feed: Any) -> None:
        """Runs all messages of a feed through the step."""
        self.driver(self.function, feed)

    def close(self) -> None:
        """Runs the step's own `close`."""
        if self.caller is not None:
            self.caller.close()
        closing: Callable[[], Any] | None = getattr(self._object, "close", None)
        if closing is not None:
            _finish(closing())


def _finish(result: Any) -> None:
    """Runs what an `async def` has begun to its end."""
    if result is not None and hasattr(result, "__await__"):
        from .calls import run

        run(result)


# ---- Results ---------------------------------------------------------------------------------------------------------


def outputs_of(
    result: Any, message: Message, route: str | None = None, inputs: Sequence[Message] = ()
) -> Iterator[tuple[str | None, Message]]:
    """What a result is: pairs of route (None: the first) and message. What is not given is that of `message`; `inputs` are all that the
    step had at once.

    >>> [(route, out.payload) for route, out in outputs_of(["a", To("late", {"b": 1})], Message())]
    [(None, b'a'), ('late', b'{"b":1}')]
    """
    if result is None:
        return
    if isinstance(result, Message):
        try:
            yield route, result._as_output(message, inputs)
        except ValueError as error:
            raise StepError(str(error)) from None
    elif isinstance(result, (bytes, bytearray, memoryview, str)):
        yield route, message.replace(result)
    elif isinstance(result, dict):
        yield route, message.replace(dumps(result))
    elif isinstance(result, Json):
        yield route, message.replace(dumps(result.value))
    elif isinstance(result, To):
        if route is not None:
            raise StepError(f"an output goes to one route: {result!r} stands in one for `{route}`")
        yield from outputs_of(result.value, message, result.route, inputs)
    elif isinstance(result, (list, tuple, Iterator)):
        for each in result:
            if isinstance(each, (list, tuple, Iterator)):
                raise StepError(f"an output is {_kind(each)} within many; a JSON array as a payload is Json([...])")
            yield from outputs_of(each, message, route, inputs)
    else:
        raise StepError(
            f"a step returned {_kind(result)}; it returns None, a Message, bytes, str, a dict (as JSON), Json(value), To(route, output), "
            "or a list, tuple or iterator of these"
        )


def key_bytes(key: Any) -> bytes:
    """The bytes of a key; StepError when it is none.

    >>> key_bytes("ü")
    b'\\xc3\\xbc'
    """
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):
        return key
    raise StepError(f"a key_by function returns the key, bytes or str; this is {_kind(key)}")


class Feed:
    """A feed over a list of messages: what the host's does, in Python. `outputs` has (index of the message, route, output).

    >>> feed = Feed([Message("a"), Message("b")])
    >>> for message in feed:
    ...     feed.out = message.text() * 2
    >>> [(index, out.payload) for index, route, out in feed.outputs]
    [(0, b'aa'), (1, b'bb')]
    """

    def __init__(self, messages: Iterable[Message], on_message: Callable[[Message], None] | None = None) -> None:
        self.messages = list(messages)
        self.on_message = on_message
        self.outputs: list[tuple[int, str | None, Message]] = []
        self.out: Any = None
        self.at = -1
        self._all = False
        self._key: bytes | None = None

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Message:
        self.settle()
        if self.at + 1 >= len(self.messages):
            raise StopIteration
        self.at += 1
        message = self.messages[self.at]
        if self.on_message is not None:
            self.on_message(message)
        return message

    def take(self) -> list[Message]:
        """All messages at once, for the batch form."""
        self._all = True
        self.at = len(self.messages) - 1
        return list(self.messages)

    def give(self, index: int, result: Any) -> None:
        """Takes the result for one of the messages that were taken."""
        self.outputs += [(index, route, output) for route, output in outputs_of(result, self.messages[index], None, self.messages)]

    def blame(self, index: int) -> None:
        """Says which of the messages that were taken a failure is about."""
        self.at = index

    def key(self, key: bytes) -> None:
        """Gives the message at hand its key, with which it leaves."""
        self._key = key

    def wait(self) -> None:
        """Which run this is, if it may come again later: here it may not."""

    def settle(self) -> None:
        """Takes the result for the message at hand. Once more after the last one."""
        out, self.out = self.out, None
        key, self._key = self._key, None
        if out is None:
            return
        if key is not None:
            message = self.messages[self.at]
            self.outputs.append((self.at, None, Message(message.payload, key=key, headers=message.headers, timestamp=message.timestamp)))
            return
        if not self._all:
            self.outputs += [(self.at, route, each) for route, each in outputs_of(out, self.messages[self.at])]
            return
        for place, each in enumerate(out):
            index = min(place, len(self.messages) - 1)
            self.outputs += [(index, route, output) for route, output in outputs_of(each, self.messages[index], None, self.messages)]


# ---- Words for failures ----------------------------------------------------------------------------------------------

_OWN_FILES = (__file__, re.sub(r"engine(\.py)$", r"calls\1", __file__))


def describe(error: BaseException) -> tuple[str, str, str, str]:
    """Type, message and traceback of an exception, each bounded: what goes into the log and into a dead letter. And its classes."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ in ("builtins", "__main__", __name__) else f"{kind.__module__}.{kind.__name__}"
    try:
        text = str(error)
    except BaseException as inner:  # a __str__ of the user's
        text = f"(its words cannot be had: {type(inner).__name__})"
    if isinstance(error, StepError):
        return "StepError", _bounded(text, MESSAGE_MAX), _traceback_of(error), _classes_of(error)
    if isinstance(error, SystemExit):
        text = f"{text or '0'} (a step must not end its worker)"
    text = f"{name}: {text}" if text else name
    return name, _bounded(text, MESSAGE_MAX) + _place_of(error), _traceback_of(error), _classes_of(error)


def _classes_of(error: BaseException) -> str:
    """The names of an exception's class and its bases, a name in each line: by themselves, and behind their module."""
    classes = type(error).__mro__[:-1]
    return "\n".join([each.__name__ for each in classes] + [f"{each.__module__}.{each.__qualname__}" for each in classes])


def is_transient(error: BaseException, retry_on: Sequence[str] = ("transient",)) -> bool:
    """Whether doing it again may help: what a retry policy is about.

    >>> is_transient(KeyError()), is_transient(TimeoutError()), is_transient(KeyError(), ["LookupError"])
    (False, True, True)
    """
    if "transient" in retry_on and isinstance(error, (Transient, ConnectionError, TimeoutError)):
        return True
    return not set(retry_on).isdisjoint(_classes_of(error).splitlines())


def _place_of(error: BaseException) -> str:
    """The last line of the user's code, short."""
    frames = _frames_of(error)
    if not frames:
        return ""
    return _bounded(f" ({re.sub(r'^.*/', '', frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name})", 80)


def _bounded(text: str, limit: int) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _frames_of(error: BaseException) -> list[traceback.FrameSummary]:
    """The last frames of a traceback, without those of this package and of imports."""
    frames = traceback.extract_tb(error.__traceback__, limit=-40)
    return [frame for frame in frames if frame.filename not in _OWN_FILES and not _OTHERS.search(frame.filename)]


_OTHERS = re.compile(r"^<frozen importlib|/asyncio/\w+\.py$")


def _traceback_of(error: BaseException) -> str:
    """The traceback without the frames of this package; of a long one the end."""
    try:
        frames = _frames_of(error)
        text = "".join(traceback.format_list(frames) + traceback.format_exception_only(type(error), error)).rstrip()
    except BaseException as inner:
        return f"(the traceback cannot be had: {type(inner).__name__})"
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= TRACEBACK_MAX else "..." + text[3 - TRACEBACK_MAX :]


# ---- The worker's log ------------------------------------------------------------------------------------------------


class _Handler(logging.Handler):
    def __init__(self, log: Callable[[int, str], None]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # a wrong format, an argument's __str__
            text = f"{record.msg!r}: {type(error).__name__}: {error}"
        self._log(record.levelno, text)


class _Stream(io.TextIOBase):
    """Standard output and error: whole lines go into the log."""

    def __init__(self, log: Callable[[int, str], None], level: int) -> None:
        self._log, self._level, self._held = log, level, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._held = (self._held + text).split("\n")
        for line in lines:
            self._log(self._level, line)
        if len(self._held) > 4096:
            self._log(self._level, self._held)
            self._held = ""
        return len(text)


def install_log(log: Callable[[int, str], None], level: int) -> None:
    """Sends what Python code logs and prints to a function."""
    root = logging.getLogger()
    root.addHandler(_Handler(log))
    root.setLevel(level)
    sys.stdout = _Stream(log, logging.INFO)
    sys.stderr = _Stream(log, logging.WARNING)
