"""Calls to services outside: `async def` steps.

The messages of a run are worked on at once, `capacity` of them at a time, and the run waits for all: so barriers and watermarks wait for the
calls before them and for no others, and calls that a worker dies over are made again by its heir. There is no current key: state by key
is not for these steps.

When one message fails for good the run fails, and if the step's policy leaves records out, the worker goes on message by message. The
results that were there are kept for that, so that no call is made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from .message import Message
from .step import Calls, Transient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_loop: asyncio.AbstractEventLoop | None = None


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs something to its end in the loop that all async steps of the process share."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    return _loop.run_until_complete(coroutine)


class _Failure:
    """What a call ended with instead of a result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _identity(message: Message) -> tuple[Any, ...]:
    return message.payload, message.key, message.timestamp, tuple(message.headers.items())


class Caller:
    """Drives an async function over runs of messages."""

    def __init__(self, calls: Calls | None) -> None:
        self.calls = calls or Calls(100, True, 10.0, 0, 0.1)
        self.kept: dict[tuple[Any, ...], list[Any]] = {}

    def drive(self, function: Callable[[Message], Coroutine[Any, Any, Any]], feed: Any) -> None:
        """Calls the function for all messages of a feed."""
        messages = feed.take()
        finished: list[tuple[int, Any]] = run(self._call_all(function, messages))
        failed = sorted(index for index, result in finished if isinstance(result, _Failure))
        if failed:
            self._keep(messages, finished)
            feed.blame(failed[0])
            raise next(result.error for index, result in finished if index == failed[0])
        if not self.kept or len(messages) > 1:
            self.kept.clear()
        if self.calls.ordered:
            finished.sort(key=lambda pair: pair[0])
        for index, result in finished:
            feed.give(index, result)

    def _keep(self, messages: list[Message], finished: list[tuple[int, Any]]) -> None:
        """Keeps results for a repetition."""
        if len(messages) == 1:
            return
        self.kept.clear()
        for index, result in finished:
            if not isinstance(result, _Failure):
                self.kept.setdefault(_identity(messages[index]), []).append(result)

    async def _call_all(self, function: Callable[[Message], Coroutine[Any, Any, Any]], messages: list[Message]) -> list[tuple[int, Any]]:
        """Pairs of index and result, as they came."""
        finished: list[tuple[int, Any]] = []
        todo = iter(enumerate(messages))

        async def work() -> None:
            for index, message in todo:
                finished.append((index, await self._call(function, message)))

        await asyncio.gather(*(work() for _ in range(min(self.calls.capacity, len(messages)))))
        return finished

    async def _call(self, function: Callable[[Message], Coroutine[Any, Any, Any]], message: Message) -> Any:
        """One message, as often as it may be tried."""
        if self.kept:
            results = self.kept.get(_identity(message))
            if results:
                return results.pop(0)
        pause = self.calls.backoff
        for left in range(self.calls.retries, -1, -1):
            try:
                return await asyncio.wait_for(_guarded(function, message), self.calls.timeout)
            except (Transient, ConnectionError, TimeoutError, asyncio.TimeoutError) as error:
                if left == 0:
                    return _Failure(_worded(error, self.calls))
                await asyncio.sleep(pause)
                pause *= 2
            except Exception as error:
                return _Failure(error)
        raise AssertionError("a last try always ends")


async def _guarded(function: Callable[[Message], Coroutine[Any, Any, Any]], message: Message) -> Any:
    """An exit is the policy's business, as any failure is: it would end the loop."""
    try:
        return await function(message)
    except (SystemExit, KeyboardInterrupt) as error:
        return _Failure(error)


def _worded(error: BaseException, calls: Calls) -> BaseException:
    """A time-out of ours has no words."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) and not str(error):
        return TimeoutError(f"no answer within {calls.timeout:g} s, {calls.retries + 1} times").with_traceback(error.__traceback__)
    return error
