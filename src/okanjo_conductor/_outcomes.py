"""Iterating over outcomes: from synchronous code, from async code, in either order."""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.outcomes import outcomes_of, size_of
from okanjo_conductor._delivery import OutcomeBuffer, Reorderer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from okanjo_conductor._core.records import JobFailed, JobsDone
    from okanjo_conductor._types import Outcome, Report


class Outcomes:
    """The outcomes of a conductor's run, which begins with the iteration.

    ``for`` runs the conductor in a background thread and its handlers there; ``async for`` runs it
    in the caller's loop. Leaving the loop early aborts the run.
    """

    def __init__(
        self,
        start: Callable[[OutcomeBuffer], Coroutine[Any, Any, Report]],
        run: Callable[[OutcomeBuffer], Report],
        abort: Callable[[], None],
        *,
        ordered: bool,
    ) -> None:
        self._start = start
        self._run = run
        self._abort = abort
        self._ordered = ordered

    def __iter__(self) -> Iterator[Outcome]:
        order = Reorderer() if self._ordered else None
        for record in self.records():
            yield from order.add(record) if order else outcomes_of(record)
        if order:
            yield from order.rest()

    def records(self) -> Iterator[JobsDone | JobFailed]:
        """Iterate over what outcomes are made of, in the order in which jobs end."""
        news = threading.Event()
        buffer = OutcomeBuffer(news.set)
        ends: list[BaseException] = []

        def run() -> None:
            try:
                self._run(buffer)
            except BaseException as error:
                ends.append(error)
            buffer.end()

        thread = threading.Thread(target=run, name="okanjo-conductor", daemon=True)
        thread.start()
        _live[thread] = self._abort
        try:
            while not (buffer.is_over and buffer.is_empty):
                news.wait()
                news.clear()
                for record in buffer.take():
                    yield record
                    buffer.release(size_of(record))
        finally:
            if not buffer.is_over:
                self._abort()
                buffer.discard()
            thread.join()
            del _live[thread]
        if ends:
            raise ends[0]

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        import asyncio

        order = Reorderer() if self._ordered else None
        news = asyncio.Event()
        buffer = OutcomeBuffer(news.set)
        task = asyncio.ensure_future(self._start(buffer))
        task.add_done_callback(lambda _: buffer.end())
        try:
            while not (buffer.is_over and buffer.is_empty):
                await news.wait()
                news.clear()
                for record in buffer.take():
                    for outcome in order.add(record) if order else outcomes_of(record):
                        yield outcome
                    buffer.release(size_of(record))
            for outcome in order.rest() if order else ():
                yield outcome
        finally:
            if not task.done():
                self._abort()
                buffer.discard()
                await asyncio.wait([task])
        await task


_live: dict[threading.Thread, Callable[[], None]] = {}
"""The threads of runs that are being iterated over, and how to abort each."""


@atexit.register
def _end_live_runs() -> None:
    """End the runs that the program leaves behind, while threads can still run.

    A suspended iteration is closed only when the interpreter clears its modules. Threads are
    stopped by then, and waiting for one would never end.
    """
    for thread, abort in tuple(_live.items()):
        abort()
        thread.join()
