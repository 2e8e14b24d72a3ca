"""Iterating over outcomes: from synchronous code, from async code, in either order."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

from okanjo_conductor._core.outcomes import outcomes_of, size_of
from okanjo_conductor._delivery import OutcomeBuffer, Reorderer
from okanjo_conductor._io import loops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator

    from okanjo_conductor._core.records import JobFailed, JobsDone
    from okanjo_conductor._types import Outcome, Report


class Outcomes:
    """The outcomes of a conductor's run, which begins with the iteration.

    ``for`` runs the conductor in a background thread and its handlers there, or, given `steps`, in
    the caller's; ``async for`` runs it in the caller's loop. Leaving the loop early aborts the run.
    """

    def __init__(
        self,
        start: Callable[[OutcomeBuffer], Coroutine[Any, Any, Report]],
        run: Callable[[OutcomeBuffer], Report],
        abort: Callable[[], None],
        *,
        ordered: bool,
        steps: Callable[[OutcomeBuffer, list[Callable[[], None]]], Generator[None]] | None = None,
    ) -> None:
        self._start = start
        self._run = run
        self._steps = steps
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
        if self._steps is None or loops.is_loop_running():
            return self._records_of_thread()
        return self._records_of_steps(self._steps)

    def _records_of_steps(
        self, steps: Callable[[OutcomeBuffer, list[Callable[[], None]]], Generator[None]]
    ) -> Iterator[JobsDone | JobFailed]:
        """Run in this thread: on until there is something to take, and on."""
        stops: list[Callable[[], None]] = []
        """What stops the loop of the run, while it has one."""

        def pause() -> None:
            for stop in stops:
                stop()

        buffer = OutcomeBuffer(pause)
        with closing(steps(buffer, stops)) as running:
            for _ in running:
                for record in buffer.take():
                    yield record
                    buffer.release(size_of(record))

    def _records_of_thread(self) -> Iterator[JobsDone | JobFailed]:
        news = _News()
        buffer = OutcomeBuffer(news.tell)
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
                for record in buffer.take():
                    yield record
                    buffer.release(size_of(record))
        finally:
            if not buffer.is_over:
                self._abort()
                buffer.discard()
            thread.join()
            del _live[thread]
            news.close()
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


class _News:
    """What the run tells a consumer in another thread: that there is something to take.

    A pipe, because who reads from one is woken on the CPU of who has written to it, which is about
    to wait. A lock or an `Event` wakes on an idle CPU, which takes several times as long.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self._is_told = False

    def tell(self) -> None:
        """End a `wait`, or the next one. Called in the thread of the run."""
        if not self._is_told:
            self._is_told = True
            os.write(self._write_end, b"\0")

    def wait(self) -> None:
        """Block until there is something to take that was not told of before."""
        os.read(self._read_end, 1)
        self._is_told = False

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._read_end)
        os.close(self._write_end)


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
