"""Custom messages between a run and its workers, both ways, and what of them waits for a reply.

Plain handlers of commands run in a thread of their own, one after another, in the order in which
their messages came: so a handler that takes long keeps nobody from being handed jobs. The intake is
not over before they have returned, because they may add jobs. ``async`` handlers, and those that
ask for it, run in the thread of the run.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io.loggers import log
from okanjo_conductor._types import Message
from okanjo_conductor._wire import byvalue, failures
from okanjo_conductor._wire import messages as msg
from okanjo_conductor._wire.codec import Encoded
from okanjo_conductor.errors import (
    ConductorStateError,
    SerialisationError,
    UnknownCommandError,
    WorkerGoneError,
)
from okanjo_conductor.lookups.live import NOTHING, read

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator
    from concurrent.futures import Future

    from okanjo_conductor._io.loops import Loop, Timer
    from okanjo_conductor._io.threads import Callers
    from okanjo_conductor.clusters._base import Link

if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Owner(Protocol):
        """The conductor, as far as its workers send it messages."""

        @property
        def id(self) -> str:
            """Unique id of the conductor."""
            ...

        def _handler_of(self, cmd: str) -> Handler:
            """Find who handles a command."""
            ...


class Handler:
    """Who handles a command.

    Args:
        call: what to call with the message.
        replies: whether what it returns is the reply.
        in_thread: whether it runs in the thread of handlers.
    """

    __slots__ = ("call", "in_thread", "replies")

    def __init__(self, call: Callable[[Message], Any], *, replies: bool, in_thread: bool) -> None:
        self.call = call
        self.replies = replies
        self.in_thread = in_thread


class WorkerReply:
    """What a worker will reply, or all workers: a future.

    Await it, or wait for `result` in any thread but that of the run.
    """

    def __init__(self, thread: int = 0) -> None:
        from concurrent.futures import Future  # only who asks needs it

        self._thread = thread
        """The thread of the run, which must not wait."""
        self._future: Future[Any] = Future()
        self._future.set_running_or_notify_cancel()  # what was sent cannot be called back

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the reply, in any event loop."""
        import asyncio

        return asyncio.wrap_future(self._future).__await__()

    def done(self) -> bool:
        """Whether it is here."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the reply, and return it.

        Args:
            timeout: seconds to wait here; the request itself goes on.

        Raises:
            WorkerGoneError: the worker has ended without a reply, or the run has.
            TimeoutError: it did not come in time.
            UnknownCommandError: the worker does not handle this command.
            ConductorStateError: this is the thread of the run, where it would never come.
            Exception: what the worker's handler raised.
        """
        if threading.get_ident() == self._thread and not self._future.done():
            message = (
                "result() would wait in the thread of the run, which must be free for the reply "
                "to arrive: await it in an async function, or call result() in a plain handler "
                "of a command or in a thread of your own"
            )
            raise ConductorStateError(message)
        return self._future.result(timeout)

    def resolve(self, error: BaseException | None, value: Any) -> None:
        """Let the waiting end."""
        if error is None:
            self._future.set_result(value)
        else:
            self._future.set_exception(error)


class _Pending:
    """A request that a worker has not answered."""

    __slots__ = ("resolve", "timer")

    def __init__(self, resolve: Callable[[BaseException | None, Any], None]) -> None:
        self.resolve = resolve
        self.timer: Timer | None = None


class Posts:
    """Sends the workers of a run messages, and has theirs handled.

    Args:
        thread: calls plain handlers, one after another.
        sticky: messages for every worker, this run's first ones; grows with each sticky broadcast.
        on_idle: called when no plain handler is at work any more.
    """

    def __init__(
        self,
        owner: Owner,
        loop: Loop,
        links: dict[int, Link],
        thread: Callers,
        sticky: list[tuple[str, Encoded]],
        on_idle: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._links = links
        self._sticky = sticky
        self._on_idle = on_idle
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = thread
        self._at_work = 0
        """Messages that the thread of handlers has and is not done with."""
        self._then: Callable[[], None] | None = None
        self._is_abandoned = False
        self._requests = 0
        """How many were made."""
        self._pending: dict[int, dict[int, _Pending]] = {}
        """By worker and number."""

    @property
    def is_at_work(self) -> bool:
        """Whether a plain handler has something to do; it may add jobs."""
        return self._at_work > 0

    def close(self, then: Callable[[], None]) -> None:
        """Call `then` when the plain handlers have returned; wait for no others."""
        for task in self._tasks:
            task.cancel()
        for worker_id in tuple(self._pending):
            self.worker_gone(worker_id)
        self._then = then
        if self._is_abandoned or not self._at_work:
            self._conclude()

    def abandon(self) -> None:
        """Wait for no handler any more: somebody insists on the end."""
        if self._at_work and not self._is_abandoned:
            log().warning(
                "the run was interrupted: messages of workers whose handlers have not returned: %d",
                self._at_work,
            )
        self._is_abandoned = True
        self._thread.close()
        self._conclude()

    def _conclude(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            self._thread.close()
            then()

    # Workers come and go

    def worker_added(self, worker_id: int) -> None:
        """Send a new worker what every worker gets, ahead of everything else."""
        for cmd, value in self._sticky:
            self._links[worker_id].send(msg.Post(cmd, None, None, value))

    def worker_gone(self, worker_id: int) -> None:
        """A worker has ended: nobody will answer what it was asked."""
        for pending in self._pending.pop(worker_id, {}).values():
            _resolve(pending, WorkerGoneError(worker_id), None)

    # What workers say

    def on_ask(self, worker_id: int, message: msg.Ask) -> None:
        """A worker sent a custom message."""
        handler = self._owner._handler_of(message.cmd)
        if handler.in_thread:
            self._at_work += 1
            self._thread.submit(
                lambda: self._handle(worker_id, message, handler),
                lambda error, handled: self._note_handled(
                    worker_id, message, handler, error, handled
                ),
            )
            return
        self._proceed(worker_id, message, handler, self._handle(worker_id, message, handler))

    def _handle(self, worker_id: int, message: msg.Ask, handler: Handler) -> _Handled:
        """Call a handler, in any thread."""
        try:
            data = read(message.value, f"the data of {message.cmd!r}")
            post = Message(message.cmd, data, message.callback, worker_id, self._owner.id)
            reply = handler.call(post)
            if hasattr(reply, "__await__") or not (handler.replies and message.callback):
                return _Handled(None, reply)
            return _Handled(None, byvalue.encode_by_value(reply))
        except Exception as error:
            return _Handled(error, None)

    def _note_handled(
        self,
        worker_id: int,
        message: msg.Ask,
        handler: Handler,
        exit_: BaseException | None,
        handled: Any,
    ) -> None:
        try:
            if exit_ is not None:
                raise exit_  # a handler has called ``sys.exit()``, which means this process
            self._proceed(worker_id, message, handler, handled)
        finally:
            self._note_done()

    def _note_done(self) -> None:
        self._at_work -= 1
        if not self._at_work:
            self._on_idle()
            self._conclude()

    def _proceed(
        self, worker_id: int, message: msg.Ask, handler: Handler, handled: _Handled
    ) -> None:
        """Do what follows from a handler's return: reply, or await it first."""
        if handled.error is not None:
            self._note_error(worker_id, message, handled.error)
        elif hasattr(handled.reply, "__await__"):
            coroutine = self._finish_handler(worker_id, message, handler, handled.reply)
            task = self._loop.create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif handler.replies and message.callback is not None:
            self._reply(worker_id, message, None, handled.reply)

    async def _finish_handler(
        self, worker_id: int, message: msg.Ask, handler: Handler, reply: Any
    ) -> None:
        try:
            data = await reply
            if handler.replies and message.callback is not None:
                self._reply(worker_id, message, None, byvalue.encode_by_value(data))
        except Exception as error:
            self._note_error(worker_id, message, error)

    def _note_error(self, worker_id: int, message: msg.Ask, error: Exception) -> None:
        if message.callback is not None:
            packed = failures.pack(failures.take_apart(error))
            self._reply(worker_id, message, packed, NOTHING)
            if isinstance(error, UnknownCommandError):
                return
        if isinstance(error, SerialisationError | UnknownCommandError):
            log().error("%s", error)
        else:
            log().error("the handler of command %r raised", message.cmd, exc_info=error)

    def _reply(self, worker_id: int, message: msg.Ask, error: bytes | None, value: Encoded) -> None:
        link = self._links.get(worker_id)
        if link is None:
            log().debug("worker %d died before it got its reply", worker_id)
        else:
            link.send(msg.Post(message.cmd, message.callback, error, value))

    def on_response(self, worker_id: int, message: msg.Response) -> None:
        """A worker has answered a request."""
        pending = self._pending.get(worker_id, {}).pop(message.request, None)
        if pending is None:
            return  # it came too late
        if message.error is not None:
            _resolve(pending, failures.rebuild(failures.unpack(message.error)), None)
            return
        try:
            value = read(message.value, f"the reply of worker {worker_id}")
        except SerialisationError as error:
            _resolve(pending, error, None)
        else:
            _resolve(pending, None, value)

    # What workers are told

    def send(self, worker_id: int, cmd: str, value: Encoded, callback: str | None) -> None:
        """Send a worker a message.

        Raises:
            WorkerGoneError: there is no such worker.
        """
        link = self._links.get(worker_id)
        if link is None:
            raise WorkerGoneError(worker_id)
        link.send_command(cmd, msg.Post(cmd, callback, None, value))

    def broadcast(self, cmd: str, value: Encoded, *, sticky: bool) -> None:
        """Send every worker a message; with `sticky`, every later one as well."""
        if sticky:
            self._sticky.append((cmd, kept(value)))
        for link in self._links.values():
            link.send_command(cmd, msg.Post(cmd, None, None, value))

    def request(
        self, worker_id: int, cmd: str, value: Encoded, timeout: float | None, reply: WorkerReply
    ) -> None:
        """Ask a worker; `reply` is resolved whatever happens."""
        if worker_id in self._links:
            self._request(worker_id, cmd, value, timeout, reply.resolve)
        else:
            reply.resolve(WorkerGoneError(worker_id), None)

    def request_all(
        self, cmd: str, value: Encoded, timeout: float | None, reply: WorkerReply, *, sticky: bool
    ) -> None:
        """Ask every worker; `reply` is resolved with what each of them said, errors included."""
        if sticky:
            self._sticky.append((cmd, kept(value)))
        said: dict[int, Any] = dict.fromkeys(self._links)
        left = set(said)

        def note(worker_id: int, error: BaseException | None, data: Any) -> None:
            said[worker_id] = data if error is None else error
            left.discard(worker_id)
            if not left:
                reply.resolve(None, said)

        if not said:
            reply.resolve(None, said)
        for worker_id in tuple(said):
            self._request(worker_id, cmd, value, timeout, partial(note, worker_id))

    def _request(
        self,
        worker_id: int,
        cmd: str,
        value: Encoded,
        timeout: float | None,
        resolve: Callable[[BaseException | None, Any], None],
    ) -> None:
        self._requests = number = self._requests + 1
        pending = _Pending(resolve)
        self._pending.setdefault(worker_id, {})[number] = pending
        if timeout is not None:
            pending.timer = self._loop.call_later(
                timeout, self._expire, worker_id, number, f"no reply to {cmd!r} within {timeout} s"
            )
        self._links[worker_id].send_command(cmd, msg.Request(number, cmd, value))

    def _expire(self, worker_id: int, number: int, text: str) -> None:
        pending = self._pending.get(worker_id, {}).pop(number, None)
        if pending is not None:
            _resolve(pending, TimeoutError(text), None)


class _Handled:
    """What came of a handler's call: an error, or a reply, encoded where it is one already."""

    __slots__ = ("error", "reply")

    def __init__(self, error: Exception | None, reply: Any) -> None:
        self.error = error
        self.reply = reply


def kept(value: Encoded) -> Encoded:
    """Return a copy that does not change when what it was made of does."""
    return Encoded(value.blob, [bytes(buffer) for buffer in value.buffers])


def _resolve(pending: _Pending, error: BaseException | None, value: Any) -> None:
    if pending.timer is not None:
        pending.timer.cancel()
    pending.resolve(error, value)
