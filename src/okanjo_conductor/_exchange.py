"""What a run and its workers say besides jobs and custom messages: lookups, log records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._io.loggers import log
from okanjo_conductor._wire import byvalue, failures, pickling
from okanjo_conductor._wire import messages as msg
from okanjo_conductor._wire.codec import Encoded, decode
from okanjo_conductor.errors import SerialisationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._io.conductor_link import ConductorLink
    from okanjo_conductor._wire.messages import AnyMessage


if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Owner(Protocol):
        """The conductor, as far as its workers talk to it."""

        def get_lookup(self, name: str) -> Any:
            """Find a lookup, or raise `UnknownLookupError`."""

        def get_lookup_value(self, name: str, key: Any, default: Any = None) -> Any:
            """Read a lookup entry."""

        def set_lookup_value(self, name: str, key: Any, value: Any) -> None:
            """Set a lookup entry."""


class Exchange:
    """Answers the workers of a run."""

    def __init__(self, owner: Owner, links: dict[int, ConductorLink]) -> None:
        self._owner = owner
        self._links = links

    def on_message(self, worker_id: int, message: AnyMessage) -> None:
        """A worker sent a message that is not about jobs."""
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

    # Lookups

    def _on_look_up(self, worker_id: int, message: msg.LookUp) -> None:
        self._answer(worker_id, message, lambda: self._find(message))

    def _find(self, message: msg.LookUp) -> list[Any]:
        self._owner.get_lookup(message.name)
        missing = object()
        values = (
            self._owner.get_lookup_value(message.name, key, missing)
            for key in read(message.value, "the key of a lookup")
        )
        return [None if value is missing else (value,) for value in values]

    def _on_set_lookup(self, worker_id: int, message: msg.SetLookup) -> None:
        def set_it() -> None:
            key, value = read(message.value, "a lookup entry")
            self._owner.set_lookup_value(message.name, key, value)

        self._answer(worker_id, message, set_it)

    def _answer(
        self, worker_id: int, message: msg.LookUp | msg.SetLookup, act: Callable[[], Any]
    ) -> None:
        error: BaseException | None = None
        value = NOTHING
        try:
            found = act()
        except Exception as raised:
            error = raised
        else:
            value, error = _encoded(found)
        packed = failures.pack(failures.take_apart(error)) if error else None
        self._links[worker_id].send(msg.Answer(message.request, packed, value))


def read(value: Encoded, what: str) -> Any:
    """Unpickle what a worker sent.

    Raises:
        SerialisationError: that raised, whatever it was.
    """
    try:
        return decode(value)
    except KeyboardInterrupt:
        raise  # more likely the user's than the value's
    except BaseException as error:  # a class's __setstate__ may raise anything
        message = f"{what} cannot be unpickled in the conductor: {failures.said(error)}"
        raise SerialisationError(message) from error


def _encoded(value: Any) -> tuple[Encoded, BaseException | None]:
    try:
        return byvalue.encode_by_value(value), None
    except KeyboardInterrupt:
        raise  # more likely the user's than the value's
    except BaseException as error:  # a class's __reduce__ may raise anything
        return NOTHING, error


NOTHING = Encoded(pickling.dumps(None), [])
_ON_MESSAGE: dict[type[Any], Callable[[Exchange, int, Any], None]] = {
    msg.LookUp: Exchange._on_look_up,
    msg.SetLookup: Exchange._on_set_lookup,
    msg.Log: Exchange._on_log,
}
