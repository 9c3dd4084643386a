"""How steps are written: functions in one of several forms, or classes with a life."""

from __future__ import annotations

import json as _json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping

from .message import Message, dumps

TYPE_CHECKING = False  # of typing, which is large for what processes have of it
if TYPE_CHECKING:
    from typing import Any, Generic, Protocol, TypeVar

    T = TypeVar("T")
    F = TypeVar("F", bound=Callable[..., Any])
else:
    T = None

    class Generic:
        """Stands for typing's while code runs: only checkers look at parameters of types."""

        __slots__ = ()
        __class_getitem__ = classmethod(lambda cls, _: cls)

    Protocol = object

FORM = "__flink_bridge_form__"

# ---- Codecs: state is bytes ------------------------------------------------------------------------------------------


class Codec(Generic[T]):
    """How values of a state become bytes and values again.

    >>> UPPER = Codec(lambda text: text.lower().encode(), lambda data: data.decode().upper())
    >>> UPPER.load(UPPER.dump("ABC"))
    'ABC'
    """

    __slots__ = ("dump", "load")

    def __init__(self, dump: Callable[[T], bytes], load: Callable[[bytes], T]) -> None:
        self.dump, self.load = dump, load


def _dump_pickle(value: Any) -> bytes:
    import pickle  # large: for those that use it

    return pickle.dumps(value, protocol=4)


def _load_pickle(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


_int64 = struct.Struct("<q")
_float64 = struct.Struct("<d")

JSON: Codec[Any] = Codec(dumps, _json.loads)
BYTES: Codec[bytes] = Codec(bytes, bytes)
TEXT: Codec[str] = Codec(str.encode, bytes.decode)
INT: Codec[int] = Codec(_int64.pack, lambda data: int(_int64.unpack(data)[0]))
FLOAT: Codec[float] = Codec(_float64.pack, lambda data: float(_float64.unpack(data)[0]))
PICKLE: Codec[Any] = Codec(_dump_pickle, _load_pickle)

# ---- What a context stands on: the host, or a test's double of it ----------------------------------------------------


class Backend(Protocol):
    """What a step's context asks for: bytes of the current key's state, timers, metrics, time. `state` is a name that the step has
    declared in the pipeline; what was not is a KeyError with words."""

    def state_open(self, name: str, kind: str) -> int:
        """A handle for a declared state of a kind (value, map, list, timers)."""

    def value_get(self, state: int) -> bytes | None: ...
    def value_put(self, state: int, value: bytes) -> None: ...
    def value_remove(self, state: int) -> None: ...
    def map_get(self, state: int, key: bytes) -> bytes | None: ...
    def map_put(self, state: int, key: bytes, value: bytes) -> None: ...
    def map_remove(self, state: int, key: bytes) -> None: ...
    def map_clear(self, state: int) -> None: ...
    def map_items(self, state: int) -> list[tuple[bytes, bytes]]: ...
    def map_count(self, state: int) -> int: ...
    def list_append(self, state: int, value: bytes) -> None: ...
    def list_items(self, state: int) -> list[bytes]: ...
    def list_clear(self, state: int) -> None: ...
    def list_count(self, state: int) -> int: ...
    def timer_set(self, state: int, event_time: bool, time: int, tag: bytes) -> None: ...
    def timer_delete(self, state: int, event_time: bool, time: int, tag: bytes) -> None: ...
    def counter_add(self, name: str, value: int) -> None: ...
    def gauge_set(self, name: str, value: int) -> None: ...
    def histogram_record(self, name: str, value: int) -> None: ...
    def key(self) -> bytes | None:
        """The key that is worked on; None in a segment without keys."""

    def watermark(self) -> int | None: ...
    def processing_time(self) -> int: ...


# ---- State -----------------------------------------------------------------------------------------------------------


class ValueState(Generic[T]):
    """One value for each key.

    >>> class Count(Step):
    ...     def open(self, context):
    ...         self.seen = context.state.value("seen", INT)
    ...     def process(self, message):
    ...         self.seen.set(self.seen.get(0) + 1)
    ...         return {"seen": self.seen.get()}
    """

    __slots__ = ("_backend", "_codec", "_state")

    def __init__(self, backend: Backend, state: int, codec: Codec[T]) -> None:
        self._backend, self._state, self._codec = backend, state, codec

    def get(self, default: Any = None) -> Any:
        """The value, or the default when there is none."""
        data = self._backend.value_get(self._state)
        return default if data is None else self._codec.load(data)

    def set(self, value: T) -> None:
        """Sets it."""
        self._backend.value_put(self._state, self._codec.dump(value))

    def clear(self) -> None:
        """Forgets it."""
        self._backend.value_remove(self._state)


class MapState(Generic[T]):
    """A map from texts to values for each key, in the order in which entries were first set.

    >>> class Visits(Step):
    ...     def open(self, context):
    ...         self.pages = context.state.map("pages", INT)
    ...     def process(self, message):
    ...         page = message.json()["page"]
    ...         self.pages[page] = self.pages.get(page, 0) + 1
    ...         return dict(self.pages.items())
    """

    __slots__ = ("_backend", "_codec", "_state")

    def __init__(self, backend: Backend, state: int, codec: Codec[T]) -> None:
        self._backend, self._state, self._codec = backend, state, codec

    def get(self, name: str, default: Any = None) -> Any:
        """The value under a name, or the default when there is none."""
        data = self._backend.map_get(self._state, name.encode())
        return default if data is None else self._codec.load(data)

    def __getitem__(self, name: str) -> T:
        data = self._backend.map_get(self._state, name.encode())
        if data is None:
            raise KeyError(name)
        return self._codec.load(data)

    def __setitem__(self, name: str, value: T) -> None:
        self._backend.map_put(self._state, name.encode(), self._codec.dump(value))

    def __delitem__(self, name: str) -> None:
        self._backend.map_remove(self._state, name.encode())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._backend.map_get(self._state, name.encode()) is not None

    def __iter__(self) -> Iterator[str]:
        return (name.decode() for name, _ in self._backend.map_items(self._state))

    def __len__(self) -> int:
        return self._backend.map_count(self._state)

    def items(self) -> list[tuple[str, T]]:
        """All entries of the key, as they are now."""
        return [(name.decode(), self._codec.load(data)) for name, data in self._backend.map_items(self._state)]

    def clear(self) -> None:
        """Forgets all entries of the key."""
        self._backend.map_clear(self._state)


class ListState(Generic[T]):
    """A list for each key; in a segment without keys one for the subtask, dealt out anew when the parallelism changes.

    >>> class Last(Step):
    ...     def open(self, context):
    ...         self.held = context.state.list("held", BYTES)
    ...     def process(self, message):
    ...         self.held.append(message.payload)
    ...         if len(self.held) == 3:
    ...             payloads = list(self.held)
    ...             self.held.clear()
    ...             return b"".join(payloads)
    """

    __slots__ = ("_backend", "_codec", "_state")

    def __init__(self, backend: Backend, state: int, codec: Codec[T]) -> None:
        self._backend, self._state, self._codec = backend, state, codec

    def append(self, value: T) -> None:
        """Adds a value at the end."""
        self._backend.list_append(self._state, self._codec.dump(value))

    def __iter__(self) -> Iterator[T]:
        return iter([self._codec.load(data) for data in self._backend.list_items(self._state)])

    def __len__(self) -> int:
        return self._backend.list_count(self._state)

    def clear(self) -> None:
        """Forgets all values."""
        self._backend.list_clear(self._state)


class States:
    """The states of a step, by the names that the pipeline declares: `state: { seen: value, due: timers }`."""

    __slots__ = ("_backend",)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def value(self, name: str, codec: Codec[Any] = JSON) -> ValueState[Any]:
        """A state declared as `value`."""
        return ValueState(self._backend, self._backend.state_open(name, "value"), codec)

    def map(self, name: str, codec: Codec[Any] = JSON) -> MapState[Any]:
        """A state declared as `map`."""
        return MapState(self._backend, self._backend.state_open(name, "map"), codec)

    def list(self, name: str, codec: Codec[Any] = JSON) -> ListState[Any]:
        """A state declared as `list`."""
        return ListState(self._backend, self._backend.state_open(name, "list"), codec)

    def timers(self, name: str) -> Timers:
        """A state declared as `timers`."""
        return Timers(self._backend, self._backend.state_open(name, "timers"))


class Timers:
    """Times at which the step wants to be called for the current key. Setting the same time with the same tag twice is setting it once.

    >>> class Forget(Step):
    ...     def open(self, context):
    ...         self.due = context.state.timers("due")
    ...     def process(self, message):
    ...         self.due.at_event_time(message.timestamp + 60_000, "minute")
    ...     def on_timer(self, timer):
    ...         return {"key": timer.key.decode(), "quiet since": timer.time - 60_000}
    """

    __slots__ = ("_backend", "_state")

    def __init__(self, backend: Backend, state: int) -> None:
        self._backend, self._state = backend, state

    def at_event_time(self, time: int, tag: str = "") -> None:
        """Asks for a call once the watermark reaches a time in ms."""
        self._backend.timer_set(self._state, True, time, tag.encode())

    def at_processing_time(self, time: int, tag: str = "") -> None:
        """Asks for a call once the clock reaches a time in ms."""
        self._backend.timer_set(self._state, False, time, tag.encode())

    def delete_event_time(self, time: int, tag: str = "") -> None:
        """Takes such a wish back; nothing happens when there is none."""
        self._backend.timer_delete(self._state, True, time, tag.encode())

    def delete_processing_time(self, time: int, tag: str = "") -> None:
        """Likewise."""
        self._backend.timer_delete(self._state, False, time, tag.encode())


class Timer:
    """A timer that is due: the time in ms that was asked for, the key and the tag that it was set with, and whether the time is event time
    or else processing time.

    >>> Timer(5, b"k", "", True)
    Timer(time=5, key=b'k', tag='', event_time=True)
    """

    __slots__ = ("event_time", "key", "tag", "time")

    def __init__(self, time: int, key: bytes | None, tag: str, event_time: bool) -> None:
        self.time, self.key, self.tag, self.event_time = time, key, tag, event_time

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timer) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Timer(time={self.time}, key={self.key!r}, tag={self.tag!r}, event_time={self.event_time})"


# ---- Metrics ---------------------------------------------------------------------------------------------------------


class Counter:
    """A number that grows."""

    __slots__ = ("_backend", "_name")

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend, self._name = backend, name

    def add(self, value: int = 1) -> None:
        """Adds to it."""
        self._backend.counter_add(self._name, value)


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("_backend", "_name")

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend, self._name = backend, name

    def set(self, value: int) -> None:
        """Sets it."""
        self._backend.gauge_set(self._name, value)


class Histogram:
    """How values spread: latencies, sizes."""

    __slots__ = ("_backend", "_name")

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend, self._name = backend, name

    def record(self, value: int) -> None:
        """Notes a value, 0 or larger."""
        self._backend.histogram_record(self._name, value)


class Metrics:
    """The step's own numbers, beside those that every step has."""

    __slots__ = ("_backend",)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def counter(self, name: str) -> Counter:
        """A counter by name."""
        return Counter(self._backend, name)

    def gauge(self, name: str) -> Gauge:
        """A gauge by name."""
        return Gauge(self._backend, name)

    def histogram(self, name: str) -> Histogram:
        """A histogram by name."""
        return Histogram(self._backend, name)


# ---- Context ---------------------------------------------------------------------------------------------------------


class Context:
    """What a step class is given by `open`: its states and timers, metrics, log, options, and the time.

    Time is what the messages carry: it does not move while a message is worked on, and it is the same when that is done again."""

    __slots__ = ("_backend", "log", "metrics", "options", "parallelism", "segment", "state", "step")

    def __init__(
        self,
        backend: Backend,
        *,
        step: str = "step",
        segment: str = "segment",
        parallelism: int = 1,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._backend = backend
        self.state = States(backend)
        self.metrics = Metrics(backend)
        self.log = logging.getLogger(f"flink_bridge.{step}")
        self.options: Mapping[str, str] = dict(options or {})
        self.step, self.segment = step, segment
        self.parallelism = parallelism

    @property
    def key(self) -> bytes | None:
        """The key that is worked on; None in a segment without keys."""
        return self._backend.key()

    @property
    def watermark(self) -> int | None:
        """Event time in ms; None before the first watermark."""
        return self._backend.watermark()

    @property
    def processing_time(self) -> int:
        """Processing time in ms."""
        return self._backend.processing_time()


class Step:
    """A step with a life. Subclass it, or write any class with some of these methods; only `process` is needed.

    One object serves one subtask (and one the unary calls). Its attributes are a cache: they are gone when the worker dies, is reloaded,
    or the work is done again after a failure. What must be remembered goes into `context.state`.

    >>> class Shout(Step):
    ...     def process(self, message):
    ...         return message.text().upper()
    """

    def open(self, context: Context) -> None:
        """Called once before anything else: after a start, a takeover, a reload."""

    def process(self, message: Message) -> Any:
        """Called with each message. Returns, or yields, what becomes of it: nothing, one output or several."""
        raise NotImplementedError(f"{type(self).__name__} has no process method")

    def on_timer(self, timer: Timer) -> Any:
        """Called when a timer is due, with its key as the current one. Returns outputs, as `process` does."""

    def on_watermark(self, watermark: int) -> Any:
        """Called when event time has moved, behind the timers. There is no current key. Returns outputs."""

    def on_end(self) -> Any:
        """Called when the input has ended, behind the timers. There is no current key. Returns outputs."""

    def close(self) -> None:
        """Called when the subtask's work is done; not when the worker dies."""


class Transient(Exception):
    """A failure that may pass: raise it where doing the same again may help, and give the step the policy `retry`. ConnectionError and
    TimeoutError count as such, too."""


# ---- Forms of functions ----------------------------------------------------------------------------------------------


class Form:
    """What a decorator says of a function."""

    __slots__ = ("calls", "name")

    def __init__(self, name: str, calls: Calls | None = None) -> None:
        self.name, self.calls = name, calls


class Calls:
    """How an `async def` waits for services outside."""

    __slots__ = ("backoff", "capacity", "ordered", "retries", "timeout")

    def __init__(self, capacity: int, ordered: bool, timeout: float, retries: int, backoff: float) -> None:
        if capacity < 1 or timeout <= 0 or retries < 0 or backoff < 0:
            raise ValueError("a capacity of 1 or more, a timeout above 0, and retries and a backoff of 0 or more are wanted")
        self.capacity, self.ordered, self.timeout = capacity, ordered, timeout
        self.retries, self.backoff = retries, backoff


def _formed(function: F, form: Form) -> F:
    setattr(function, FORM, form)
    return function


def map(function: F) -> F:  # noqa: A001
    """A function that makes exactly one output of each message.

    >>> @map
    ... def double(message):
    ...     return {"n": message.json()["n"] * 2}
    """
    return _formed(function, Form("map"))


def filter(function: F) -> F:  # noqa: A001
    """A function that says which messages go on, untouched.

    >>> @filter
    ... def large(message):
    ...     return len(message.payload) > 100
    """
    return _formed(function, Form("filter"))


def flat_map(function: F) -> F:
    """A function that returns or yields outputs, any number.

    >>> @flat_map
    ... def words(message):
    ...     yield from message.text().split()
    """
    return _formed(function, Form("flat_map"))


def route(function: F) -> F:
    """A function that names the route of each message (one of the step's `routes`), or several, or None to drop it.

    >>> @route
    ... def by_size(message):
    ...     return "large" if len(message.payload) > 100 else "small"
    """
    return _formed(function, Form("route"))


def batch(function: F) -> F:
    """A function that gets a list of messages at once and returns a list of outputs, of any length: for numpy and the like.

    How many come together is the sender's business. A failure has the messages tried one by one, each as a list of one.

    >>> @batch
    ... def total(messages):
    ...     return [{"sum": sum(message.json()["n"] for message in messages)}]
    """
    return _formed(function, Form("batch"))


def asynchronous(
    *, capacity: int = 100, ordered: bool = True, timeout: float = 10.0, retries: int = 0, backoff: float = 0.1
) -> Callable[[F], F]:
    """How an `async def` calls services outside: so many messages at once, with outputs in the order of their inputs or as they come, so
    many seconds for one try, and so many more tries after a Transient, ConnectionError or TimeoutError, `backoff` seconds (then twice as
    many, and so on) apart. For a class it stands over `async def process`.

    >>> @asynchronous(capacity=20, ordered=False, timeout=2.0, retries=3)
    ... async def enrich(message):
    ...     city = await lookup(message.json()["zip"])
    ...     return {**message.json(), "city": city}
    """
    calls = Calls(capacity, ordered, timeout, retries, backoff)
    return lambda function: _formed(function, Form("async", calls))


def reduce(function: F) -> F:
    """A function that joins what was remembered of a key with the next message's JSON value. Emits the result each time.

    Declare the state that it is kept in: `state: { reduced: value }`.

    >>> @reduce
    ... def larger(a, b):
    ...     return a if a["n"] >= b["n"] else b
    """
    return _formed(function, Form("reduce"))


class Aggregate(Generic[T]):
    """Remembers something smaller than the messages of a key, and emits what follows from it with each message.

    Declare the state that it is kept in: `state: { aggregated: value }`.

    >>> class Mean(Aggregate):
    ...     def create(self):
    ...         return [0, 0]
    ...     def add(self, accumulator, message):
    ...         return [accumulator[0] + message.json()["n"], accumulator[1] + 1]
    ...     def merge(self, a, b):
    ...         return [a[0] + b[0], a[1] + b[1]]
    ...     def result(self, accumulator):
    ...         return {"mean": accumulator[0] / accumulator[1]}
    """

    codec: Codec[Any] = JSON
    """How the accumulator is kept."""

    def create(self) -> T:
        """The accumulator of a key that there was nothing of."""
        raise NotImplementedError

    def add(self, accumulator: T, message: Message) -> T:
        """The accumulator with one more message."""
        raise NotImplementedError

    def merge(self, a: T, b: T) -> T:
        """Two accumulators in one: for whoever aggregates in parts."""
        raise NotImplementedError

    def result(self, accumulator: T) -> Any:
        """What follows from the accumulator: outputs, as `process` returns them."""
        raise NotImplementedError
