"""Calls to services outside: `async def` steps.

The messages of a run are worked on at once, `capacity` of them at a time, in a loop that runs in a thread of its own. What the worker does
meanwhile:

    run comes --> calls begin --> all there within PATIENCE: results are given
                       |
                       +-- not yet: the run is postponed; its unit is undone, and other sessions of the slot are served
                           the last result wakes the worker, the same run comes again, and finds its results

A wake-up is for all that rest in the worker: a run that comes again and whose results are not there is postponed at once.

So a barrier or watermark of the session waits for the calls before it, and a worker that dies leaves nothing behind: its heir is given
the run, and makes the calls. Where a run cannot be postponed (unary calls, timers of steps before, one message at a time after a failure or
a death) the calls are waited for.

When one message fails for good the run fails, and if the step's policy leaves records out, the worker goes on message by message. The
results that were there are kept for that, so that no call is made twice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterator

from .message import Message
from .step import Calls, Transient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    from _flink_bridge import wake  # type: ignore[import-not-found]
except ImportError:

    def wake() -> None:
        """Nobody sleeps where there is no worker."""


PATIENCE = 0.002
"""Seconds that a run holds the slot up before it is postponed: what answers at once is not worth doing a unit twice."""

_loop: asyncio.AbstractEventLoop | None = None


def submit(coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
    """Has something run in the loop that all async steps of the process share."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        threading.Thread(target=_loop.run_forever, name="flink_bridge calls", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(coroutine, _loop)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs something there to its end."""
    return submit(coroutine).result()


class _Failure:
    """What a call ended with instead of a result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Pending:
    """The calls of a run that was postponed, or that may come again."""

    __slots__ = ("count", "future", "misses", "run")

    def __init__(self, run: tuple[int, int], count: int, misses: int, future: concurrent.futures.Future[Any]) -> None:
        self.run, self.count, self.misses, self.future = run, count, misses, future


def _identity(message: Message) -> tuple[Any, ...]:
    return message.payload, message.key, message.timestamp, tuple(message.headers.items())


class Caller:
    """Drives an async function over runs of messages."""

    def __init__(self, calls: Calls | None) -> None:
        self.calls = calls or Calls(100, True, 10.0, 0, 0.1)
        self.kept: dict[tuple[Any, ...], list[Any]] = {}
        self.pending: _Pending | None = None

    def drive(self, function: Callable[[Message], Coroutine[Any, Any, Any]], feed: Any) -> None:
        """Calls the function for all messages of a feed, or postpones the run."""
        messages: list[Message] = feed.take()
        finished = self._finished(function, messages, feed)
        if finished is None:
            feed.postpone()
            return
        failed = sorted(index for index, result in finished if isinstance(result, _Failure))
        if failed:
            self._keep(messages, finished)
            self.pending = None  # a run that is tried again is called again
            feed.blame(failed[0])
            raise next(result.error for index, result in finished if index == failed[0])
        if not self.kept or len(messages) > 1:
            self.kept.clear()
        if self.calls.ordered:
            finished = sorted(finished, key=lambda pair: pair[0])
        for index, result in finished:
            feed.give(index, result)

    def close(self) -> None:
        """Calls that nobody will ask about end."""
        if self.pending is not None:
            self.pending.future.cancel()

    def _finished(
        self, function: Callable[[Message], Coroutine[Any, Any, Any]], messages: list[Message], feed: Any
    ) -> list[tuple[int, Any]] | None:
        """Pairs of index and result, as they came; None when the run is to be postponed."""
        place: tuple[int, int] | None = feed.wait()
        if place is None:
            return run(self._call_all(function, messages))  # type: ignore[no-any-return]
        pending = self.pending
        patience: float | None = 0
        if pending is None or pending.run != place or pending.count != len(messages):
            misses = pending.misses + 1 if pending is not None and pending.run == place else 0
            self.close()
            pending = self.pending = _Pending(place, len(messages), misses, submit(self._call_all(function, messages)))
            pending.future.add_done_callback(lambda _: wake())
            # A run that comes with another number of messages each time would never find its results.
            patience = PATIENCE if misses < 3 else None
        try:
            return pending.future.result(patience)  # type: ignore[no-any-return]
        except concurrent.futures.TimeoutError:
            return None

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
    """An exit is the policy's business, as any failure is: it would end the loop. And results can be given more than once."""
    try:
        result = await function(message)
        return list(result) if isinstance(result, Iterator) else result
    except (SystemExit, KeyboardInterrupt) as error:
        return _Failure(error)


def _worded(error: BaseException, calls: Calls) -> BaseException:
    """A time-out of ours has no words."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) and not str(error):
        return TimeoutError(f"no answer within {calls.timeout:g} s, {calls.retries + 1} times").with_traceback(error.__traceback__)
    return error
