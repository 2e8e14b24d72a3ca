"""The conversation of an async worker with its conductor: read by its event loop, never waited for.

What arrives is handled as soon as the loop gets to it: there is no moment between jobs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import suppress

from okanjo_conductor._logs import log
from okanjo_conductor._talk import ConductorGone, Talk
from okanjo_conductor.errors import ConductorStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any

    from okanjo_conductor._types import Message
    from okanjo_conductor._wire.messages import Post, Request


class AsyncReply:
    """The reply to a request, to come: await it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[Any] = loop.create_future()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Wait for the reply; raise what the conductor's handler raised."""
        return self._future.__await__()

    def done(self) -> bool:
        """Whether the reply is here."""
        return self._future.done()

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the reply.

        Args:
            timeout: seconds; None waits as long as the conductor lives.

        Raises:
            TimeoutError: it did not come in time.
            Exception: what the conductor's handler raised.
        """
        done, _ = await asyncio.wait({self._future}, timeout=timeout)
        if not done:
            message = f"no reply within {timeout} s"
            raise TimeoutError(message)
        return self._future.result()

    def resolve(self, error: BaseException | None, value: Any) -> None:
        """Let the waiting end."""
        if self._future.done():  # nobody waits for it any more
            return
        if error is None:
            self._future.set_result(value)
            return
        try:
            self._future.set_exception(error)
        except TypeError:  # asyncio takes no StopIteration
            self._future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
        self._future.exception()  # whoever gave a callback does not await it


class AsyncTalk(Talk):
    """One async worker's conversation with its conductor."""

    loop: asyncio.AbstractEventLoop
    """The worker's; set when it begins."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tasks: set[asyncio.Future[Any]] = set()
        """Handlers that are at work: the loop itself would forget them."""
        self._news = threading.Condition()
        """Notified whenever something was read."""

    def wait_for(self, is_met: Callable[[], bool], timeout: float | None) -> None:
        """Wait, in a thread beside the loop's, while the loop reads.

        Raises:
            TimeoutError: the condition was not met in time.
            ConductorStateError: this is the loop's thread, which must not wait.
        """
        if asyncio._get_running_loop() is not None:
            message = "this would block all jobs of the async worker: await it"
            raise ConductorStateError(message)
        with self._news:
            if not self._news.wait_for(is_met, timeout):
                message = f"no reply within {timeout} s"
                raise TimeoutError(message)

    def read_nowait(self) -> None:
        """Handle what has arrived, and tell the threads that wait for it."""
        super().read_nowait()
        with self._news:
            self._news.notify_all()

    def _make_reply(self) -> Any:
        return AsyncReply(self.loop)

    def _finish_reply(self, callback: str, message: Message, handled: Any) -> None:
        if isinstance(handled, Awaitable):
            self._spawn(self._finish_reply_later(callback, message, handled))
        else:
            super()._finish_reply(callback, message, handled)

    async def _finish_reply_later(
        self, callback: str, message: Message, handled: Awaitable[Any]
    ) -> None:
        try:
            await handled
        except (Exception, SystemExit):
            log().exception("on_master_message raised for the reply to %r", message.cmd)
        super()._finish_reply(callback, message, None)

    def _answer(self, post: Post | Request, error: BaseException | None, handled: Any) -> None:
        if isinstance(handled, Awaitable):
            self._spawn(self._answer_later(post, handled))
        else:
            super()._answer(post, error, handled)

    async def _answer_later(self, post: Post | Request, handled: Awaitable[Any]) -> None:
        error = reply = None
        try:
            reply = await handled
        except BaseException as raised:  # a cancelled handler replies as well
            error = raised
        with suppress(ConductorGone):  # the loop comes across that
            super()._answer(post, error, reply)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
