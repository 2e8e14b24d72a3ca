"""The conversation of an async worker with its conductor: read by its event loop, never waited for.

What arrives is handled as soon as the loop gets to it: there is no moment between jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from okanjo_conductor._logs import log
from okanjo_conductor._talk import ConductorGone, Query, Talk
from okanjo_conductor.errors import ConductorStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any, NoReturn

    from okanjo_conductor._types import Message
    from okanjo_conductor._wire.messages import Load, Post, Request


class AsyncReply:
    """The reply to a request, to come: await it."""

    name = ""
    """The callback id of the request."""

    def __init__(self, talk: AsyncTalk) -> None:
        self._talk = talk
        self._future: asyncio.Future[Any] = talk.loop.create_future()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Wait for the reply; raise what the conductor's handler raised."""
        try:
            return (yield from self._future.__await__())
        except asyncio.CancelledError:
            self._talk.drop(self.name)  # who was cancelled has cancelled the future
            raise

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


class AsyncQuery(Query):
    """An answer about a lookup, to come: await `wait`."""

    def __init__(self, talk: AsyncTalk, number: int, *handlers: Any) -> None:
        super().__init__(talk, number, *handlers)
        self._reply = AsyncReply(talk)

    async def wait(self) -> Any:
        """Wait for the answer. Whoever stops waiting will get none."""
        try:
            return await self._reply
        except BaseException:
            if not self.done():
                self._talk.forget(self._number)
            raise

    def ordered(self, load: Load) -> None:
        """Make entries in a thread: that may take as long as it likes."""
        assert self._load is not None  # noqa: S101 - the conductor orders from who can make them
        loop: asyncio.AbstractEventLoop = self._talk.loop  # type: ignore[attr-defined]
        # No task: a job might cancel it, and everybody would wait for the entries in vain.
        loop.run_in_executor(None, self._load, load).add_done_callback(self._made)

    def _made(self, making: asyncio.Future[Any]) -> None:
        """Take note that no more entries are made; if that is for an error, wait no more."""
        error = making.exception()
        if error is not None and not self.done():
            with suppress(ConductorGone):  # the loop comes across that
                self._talk.forget(self._number)
            self.resolve(error, None)

    def resolve(self, error: BaseException | None, value: Any) -> None:
        """Let the waiting end."""
        super().resolve(error, value)
        self._reply.resolve(error, value)


class AsyncTalk(Talk):
    """One async worker's conversation with its conductor."""

    loop: asyncio.AbstractEventLoop
    """The worker's; set when it begins."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tasks: set[asyncio.Future[Any]] = set()
        """Handlers that are at work: the loop itself would forget them."""

    def wait_for(self, is_met: Callable[[], bool], timeout: float | None) -> NoReturn:  # noqa: ARG002
        """Refuse: it is the loop that reads."""
        message = "this would block all jobs of the async worker: await it"
        raise ConductorStateError(message)

    def _make_reply(self) -> Any:
        return AsyncReply(self)

    def _make_query(
        self,
        number: int,
        take: Callable[[Any], None] | None,
        load: Callable[[Load], None] | None,
    ) -> AsyncQuery:
        return AsyncQuery(self, number, take, load)

    def _hand_over(self, post: Post | Request) -> None:
        try:
            super()._hand_over(post)
        except (ConductorGone, OSError):
            raise
        except BaseException as error:  # asyncio.CancelledError, say
            self._answer(post, error, None)

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
        except BaseException:  # a job may have cancelled it; another one waits for the reply
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
