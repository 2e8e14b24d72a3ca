"""An async worker in the thread of the run: its jobs are tasks on the run's own loop.

So the loop goes on while they wait, and what they ask for is answered, whoever answers it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from okanjo_conductor._async_runtime import AsyncRuntime
from okanjo_conductor._hosting import raise_interrupt
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._wire.messages import Bye, Ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any


class InlineAsyncRuntime(AsyncRuntime):
    """The life of an async worker on the loop of the run."""

    has_work = False
    """Its turn comes only when something has arrived."""

    def begin(self, host: Any) -> None:
        """Begin to set up, as a task."""
        self.attach()
        self._host = host
        loop = host.loop
        self._loop = self.talk.loop = loop.upgrade() if hasattr(loop, "upgrade") else loop
        self.talk.urgent = frozenset()
        self._place.home.on_condemned = partial(call_soon, self._loop, self._leave)
        self._raised: BaseException | None = None
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._main = self._loop.create_task(self._live_as_task())
        self._main.add_done_callback(self._on_done)

    def turn(self) -> None:
        """Take what has arrived."""
        self._read()

    def clear_up(self, then: Callable[[], None]) -> None:
        """End what is in flight, whose outcomes count no more; call `then` when it has ended."""
        self._is_closing = True
        attempts = [attempt.task for attempt in self._attempts.values()]
        left = {task for task in (self._main, *attempts) if task is not None and not task.done()}

        def note(task: asyncio.Task[None]) -> None:
            left.discard(task)
            if not left:
                then()

        if not left:
            then()
        for task in tuple(left):
            task.add_done_callback(note)
            task.cancel()

    async def _live_as_task(self) -> None:
        try:
            await self._live_on_loop()
        except BaseException as error:  # a SystemExit would leave the loop
            self._raised = error

    async def _live_on_loop(self) -> None:
        worker, link = self.worker, self._link
        await _finished(worker.setup)
        worker.start_monitoring()
        link.send(Ready([], self._concurrency, can_cancel=True))
        self._is_working = True
        self.talk.deliver_posts()  # those that have come while it was set up
        self._start_jobs()
        await self._over
        self._is_working = False
        if self._broken is not None:
            raise self._broken
        self._ring()
        await _finished(worker.teardown)
        worker.stop_monitoring()
        self.report_stats()
        self._emit("completed")
        link.send(Bye())

    def _on_done(self, _main: asyncio.Task[None]) -> None:
        if not self._is_closing:
            self._host.finish(self._conclude)

    def _conclude(self) -> int:
        if self._raised is not None:
            raise self._raised
        return 0

    def _stop(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _failure_item(self, error: BaseException) -> Any:
        raise_interrupt(error)
        return super()._failure_item(error)

    def _fail(self, attempt: Any, error: BaseException) -> None:
        try:
            super()._fail(attempt, error)
        except KeyboardInterrupt as interrupt:
            self._break(interrupt)


async def _finished(function: Callable[[], Any]) -> None:
    made = function()
    if isinstance(made, Awaitable):
        await made
