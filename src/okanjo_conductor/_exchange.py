"""What a run and its workers say besides jobs: messages, log records; lookups are passed on."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io.loggers import log
from okanjo_conductor._types import Message
from okanjo_conductor._wire import byvalue, failures
from okanjo_conductor._wire import messages as msg
from okanjo_conductor.errors import SerialisationError, UnknownCommandError, WorkerGoneError
from okanjo_conductor.lookups import live
from okanjo_conductor.lookups.live import NOTHING, Desk, read

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from okanjo_conductor._io.conductor_link import ConductorLink
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._wire.messages import AnyMessage
    from okanjo_conductor.lookups.arrays import Arena


if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Owner(live.Owner, Protocol):
        """The conductor, as far as its workers talk to it."""

        @property
        def id(self) -> str:
            """Unique id of the conductor."""
            ...

        def _handle_message(self, worker_id: int, post: Message) -> Any:
            """Handle a custom message; a coroutine is awaited."""


class Exchange:
    """Answers the workers of a run, and sends them messages."""

    def __init__(
        self, owner: Owner, loop: Loop, links: dict[int, ConductorLink], arena: Arena | None
    ) -> None:
        self._owner = owner
        self.lookups = Desk(owner, loop, links, arena)
        self._loop = loop
        self._links = links
        self._tasks: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Wait for no handler any more."""
        for task in self._tasks:
            task.cancel()
        self.lookups.close()

    def on_message(self, worker_id: int, message: AnyMessage) -> None:
        """A worker sent a message that is not about jobs."""
        if not self.lookups.on_message(worker_id, message):
            _ON_MESSAGE[type(message)](self, worker_id, message)

    def _on_log(self, worker_id: int, message: msg.Log) -> None:
        import logging  # the worker has loaded it, too

        try:
            record = logging.makeLogRecord(read(message.value, "a log record"))
        except SerialisationError as error:
            log().error("worker %d: %s", worker_id, error)
            return
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)

    # Custom messages

    def _on_ask(self, worker_id: int, message: msg.Ask) -> None:
        try:
            data = read(message.value, f"the data of {message.cmd!r}")
        except SerialisationError as error:
            self.reply_error(worker_id, message.cmd, message.callback, error)
            return
        post = Message(message.cmd, data, message.callback, worker_id, self._owner.id)
        try:
            reply = self._owner._handle_message(worker_id, post)
        except Exception as error:
            self._note_handler_error(worker_id, post, error)
            return
        if isinstance(reply, Coroutine):
            task = self._loop.create_task(self._finish_handler(worker_id, post, reply))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _finish_handler(self, worker_id: int, post: Message, reply: Any) -> None:
        try:
            await reply
        except Exception as error:
            self._note_handler_error(worker_id, post, error)

    def _note_handler_error(self, worker_id: int, post: Message, error: Exception) -> None:
        if not isinstance(error, UnknownCommandError):
            log().error("the handler of command %r raised", post.cmd, exc_info=error)
        self.reply_error(worker_id, post.cmd, post.callback, error)

    def reply_error(self, worker_id: int, cmd: str, callback: str | None, error: Exception) -> None:
        """Tell a worker that its request could not be answered."""
        if callback is not None and worker_id in self._links:
            packed = failures.pack(failures.take_apart(error))
            self._links[worker_id].send(msg.Post(cmd, callback, packed, NOTHING))

    def send_message(self, worker_id: int, cmd: str, data: Any, callback: str | None) -> None:
        """Send a custom message to a worker."""
        if worker_id not in self._links:
            raise WorkerGoneError(worker_id)
        self._links[worker_id].send(msg.Post(cmd, callback, None, byvalue.encode_by_value(data)))

    def broadcast(self, cmd: str, data: Any) -> None:
        """Send a custom message to every worker."""
        value = byvalue.encode_by_value(data)
        for link in self._links.values():
            link.send(msg.Post(cmd, None, None, value))


_ON_MESSAGE: dict[type[Any], Callable[[Exchange, int, Any], None]] = {
    msg.Ask: Exchange._on_ask,
    msg.Log: Exchange._on_log,
}
