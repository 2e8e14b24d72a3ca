"""What a run and its workers say besides jobs and custom messages: lookups, log records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from okanjo_conductor._io.loggers import log
from okanjo_conductor._wire import messages as msg
from okanjo_conductor.errors import SerialisationError
from okanjo_conductor.lookups.live import Desk, read

if TYPE_CHECKING:
    from okanjo_conductor._io.conductor_link import ConductorLink
    from okanjo_conductor._io.loops import Loop
    from okanjo_conductor._wire.messages import AnyMessage
    from okanjo_conductor.lookups.arrays import Arena
    from okanjo_conductor.lookups.live import Owner


class Exchange:
    """Answers the workers of a run."""

    def __init__(
        self, owner: Owner, loop: Loop, links: dict[int, ConductorLink], arena: Arena | None
    ) -> None:
        self.lookups = Desk(owner, loop, links, arena)

    def close(self) -> None:
        """Make no more entries of lookups."""
        self.lookups.close()

    def on_message(self, worker_id: int, message: AnyMessage) -> None:
        """A worker sent a message that is not about jobs."""
        if not self.lookups.on_message(worker_id, message):
            assert isinstance(message, msg.Log)  # noqa: S101 - there is nothing else
            _pass_on(worker_id, message)


def _pass_on(worker_id: int, message: msg.Log) -> None:
    import logging  # the worker has loaded it, too

    try:
        record = logging.makeLogRecord(read(message.value, "a log record"))
    except SerialisationError as error:
        log().error("worker %d: %s", worker_id, error)
        return
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
