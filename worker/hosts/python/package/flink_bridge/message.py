"""Messages, and what a step makes of them.

This is the Message of editors, tests and scripts. In a worker its place is taken by one that the host provides: the same names and the
same behaviour, over the memory that the record came in.
"""

from __future__ import annotations

import json as _json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

TYPE_CHECKING = False  # of typing, which is large
if TYPE_CHECKING:
    from typing import Any

_NOTHING: Any = object()
_encode = _json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def dumps(value: Any) -> bytes:
    """The bytes that a JSON value becomes as a payload: UTF-8, shortest form, keys in their order. ValueError for what JSON has not.

    >>> dumps({"a": [1, "ü"]})
    b'{"a":[1,"\\xc3\\xbc"]}'
    """
    return _encode(value).encode()


class Message:
    """A record: payload, key, headers and event time. It cannot be changed; `replace` makes another one.

    Of one that a step makes and returns, what is not given (headers, timestamp) is that of the message that is worked on.

    >>> message = Message(b'{"user": "ada"}', key="ada", timestamp=1000)
    >>> message.json()["user"], message.key, message.timestamp
    ('ada', b'ada', 1000)
    """

    __slots__ = ("_headers", "_json", "_key", "_origin", "_payload", "_timestamp", "_views")

    def __init__(
        self,
        payload: bytes | bytearray | memoryview | str = b"",
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timestamp: int | None = None,
    ) -> None:
        self._payload = payload.encode() if isinstance(payload, str) else bytes(payload)
        self._key = key.encode() if isinstance(key, str) else key
        self._headers = None if headers is None else MappingProxyType(dict(headers))
        self._timestamp = timestamp
        self._origin: Message | None = None
        self._json = _NOTHING
        self._views: list[memoryview] = []

    @property
    def payload(self) -> bytes:
        """The payload's bytes."""
        return self._payload

    @property
    def key(self) -> bytes | None:
        """The key that a `key_by` before this step has set; None where there is none. A step cannot change it."""
        return self._key

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, read-only."""
        return MappingProxyType({}) if self._headers is None else self._headers

    @property
    def timestamp(self) -> int:
        """Event time in milliseconds since the epoch; 0 when it is not set."""
        return self._timestamp or 0

    def view(self) -> memoryview:
        """The payload without a copy, read-only. It is released when the unit of work ends; to use it later raises ValueError.

        >>> bytes(Message(b"abc").view()[1:])
        b'bc'
        """
        view = memoryview(self._payload)
        self._views.append(view)
        return view

    def text(self) -> str:
        """The payload as text; UnicodeDecodeError when it is not UTF-8.

        >>> Message("grün").text()
        'grün'
        """
        return self._payload.decode()

    def json(self) -> Any:
        """The payload as a JSON value, parsed once: each call gives the same object. ValueError when it is not JSON.

        Changing the object changes no payload: return it, or a message with it.

        >>> Message(b'{"n": 1}').json()
        {'n': 1}
        """
        if self._json is _NOTHING:
            self._json = _json.loads(self._payload)
        return self._json

    def replace(
        self,
        payload: bytes | bytearray | memoryview | str = _NOTHING,
        *,
        json: Any = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        timestamp: int = _NOTHING,
    ) -> Message:
        """The same message with something else in it.

        >>> Message(b"1", headers={"a": "b"}).replace(json={"n": 2}).payload
        b'{"n":2}'
        """
        if json is not _NOTHING:
            if payload is not _NOTHING:
                raise TypeError("replace() takes a payload or a json value, not both")
            payload = dumps(json)
        other = Message(
            self._payload if payload is _NOTHING else payload,
            key=self._key,
            headers=self._headers if headers is _NOTHING else headers,
            timestamp=self._timestamp if timestamp is _NOTHING else timestamp,
        )
        other._origin = self._origin or self
        return other

    def _as_output(self, base: Message, inputs: Sequence[Message]) -> Message:
        """The message as an output of a step that works on `base`, or on `inputs` in the batch form."""
        if self is base or any(self is each for each in inputs):
            return self
        if self._origin is not None and (self._origin is base or any(self._origin is each for each in inputs)):
            base = self._origin
        elif self._key is not None and self._key != base._key:
            raise ValueError(
                f"a message with the key {self._key!r} cannot leave here: an output has the key that is worked on; emit its payload"
            )
        return Message(
            self._payload,
            key=base._key,
            headers=base._headers if self._headers is None else self._headers,
            timestamp=base._timestamp if self._timestamp is None else self._timestamp,
        )

    def _release(self) -> None:
        """Ends the unit of work that the message was part of: its views are released."""
        for view in self._views:
            view.release()
        self._views.clear()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (self.payload, self.key, dict(self.headers), self.timestamp) == (
            other.payload,
            other.key,
            dict(other.headers),
            other.timestamp,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = self.payload if len(self.payload) <= 64 else self.payload[:64] + b"..."
        return f"<Message {shown!r} key={self.key!r} timestamp={self.timestamp}>"


try:  # in a worker, its own
    from _flink_bridge import Message  # type: ignore[import-not-found, no-redef]
except ImportError:
    pass


class To:
    """An output on one of the step's routes (its `routes` in the pipeline) instead of the first.

    >>> To("late", b"payload").route
    'late'
    """

    __slots__ = ("route", "value")

    def __init__(self, route: str, value: Any) -> None:
        self.route = route
        self.value = value

    def __repr__(self) -> str:
        return f"To({self.route!r}, {self.value!r})"


class Json:
    """A payload out of any JSON value. Dicts need it not; lists, numbers, booleans and None do, because those mean something else.

    >>> Json([1, 2]).value
    [1, 2]
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Json({self.value!r})"
