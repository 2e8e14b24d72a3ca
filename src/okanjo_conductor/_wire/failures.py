"""An exception, taken apart to travel and rebuilt on the other side.

The original exception is pickled too, but only believed if it can be unpickled over there; what
else is sent suffices to tell the story without it.
"""

from __future__ import annotations

import marshal
from io import BytesIO

from okanjo_conductor._plain import Frozen, values_of
from okanjo_conductor._wire import pickling
from okanjo_conductor.errors import RemoteError, RemoteTraceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_LOST_HERE = (
    "The original was lost on its way: rebuilding it {}. Give all arguments of its "
    "__init__ to super().__init__(), or define __reduce__"
)
_LOST_THERE = (
    "The original stayed in the other process: pickling it raised {}: {}{}. Leave that part out "
    "with __getstate__ or __reduce__ in its class"
)
_PACKAGE = __name__.split(".", 1)[0]


class Failure(Frozen):
    """What is known of an exception in another process."""

    type_name: str
    message: str
    traceback: str
    place: str
    """Innermost frame of the user's code, ``file:line in function``, or ``""``."""
    pickled: bytes | None
    """The exception itself, if it can be pickled."""
    lost: str
    """Why it cannot be pickled, or ``""``."""


def take_apart(error: BaseException) -> Failure:
    """Describe an exception so that it can travel. Never raises."""
    pickled, lost = _pickled(error)
    return Failure(
        type_name=qualified_name(type(error)),
        message=text_of(error),
        traceback=_formatted(error),
        place=_innermost_place(error.__traceback__),
        pickled=pickled,
        lost=lost,
    )


def pack(failure: Failure) -> bytes:
    """Make the bytes of a failure."""
    return marshal.dumps(values_of(failure))


def unpack(packed: bytes | bytearray) -> Failure:
    """Read the bytes of a failure."""
    return Failure(*marshal.loads(packed))


def rebuild(failure: Failure) -> Exception:
    """Make an exception to show: the original if it survives, else a `RemoteError`.

    Its ``__cause__`` is the remote traceback as text. ``SystemExit`` and its kin become a
    `RemoteError` as well: raised here, they would end a program that only looked at a result.
    """
    error, lost = _unpickled(failure)
    if error is None:
        error = RemoteError(failure.type_name, failure.message)
        if lost:
            error.lost = lost
            error.add_note(lost)
    # The class may forbid assignments, as a frozen dataclass does.
    BaseException.__setattr__(error, "__cause__", RemoteTraceback(failure.traceback))
    return error


def _unpickled(failure: Failure) -> tuple[Exception | None, str]:
    if failure.pickled is None:
        return None, failure.lost
    try:
        error = pickling.loads(failure.pickled)
    except KeyboardInterrupt:
        raise  # more likely the user's than the exception's
    except BaseException as broken:  # its class may raise anything
        raised = f"raised {qualified_name(type(broken))}: {text_of(broken)}"
        return None, _LOST_HERE.format(raised)
    if isinstance(error, BaseException):
        return (error, "") if isinstance(error, Exception) else (None, "")
    return None, _LOST_HERE.format(f"gave a {qualified_name(type(error))}")


class _ErrorPickler(pickling.Pickler):
    """Takes exceptions apart as their classes say.

    Not as what libraries register for all of them does, as `tblib` for Dask: that loses arguments.
    """

    def reducer_override(self, obj: object) -> Any:
        return obj.__reduce_ex__(5) if isinstance(obj, BaseException) else NotImplemented


def _pickled(error: BaseException) -> tuple[bytes | None, str]:
    try:
        into = BytesIO()
        _ErrorPickler(into, 5).dump(error)
        return into.getvalue(), ""
    except BaseException as broken:  # its class may raise anything
        return None, _LOST_THERE.format(
            qualified_name(type(broken)), text_of(broken), _part_that_broke(error)
        )


def _part_that_broke(error: BaseException) -> str:
    from okanjo_conductor._wire.tracing import unpicklable_part  # rarely needed

    culprit = unpicklable_part(error, "error")
    return f" ({culprit.path}, a {culprit.type_name})" if culprit else ""


def _formatted(error: BaseException) -> str:
    import traceback  # takes 2 ms to load

    try:
        return "".join(traceback.format_exception(error))
    except BaseException as broken:
        why = qualified_name(type(broken))
        return f"{qualified_name(type(error))} (its traceback cannot be formatted: {why})"


def text_of(error: BaseException) -> str:
    """Return the message of an exception. Never raises."""
    try:
        # A __str__ may return an instance of a subclass of str, which cannot be marshalled.
        return str.__str__(str(error))
    except BaseException:
        return "(its message cannot be shown)"


def said(error: BaseException) -> str:
    """Return the type and the message of an exception. Never raises."""
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def qualified_name(kind: type) -> str:
    """Name a type as tracebacks do."""
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def _innermost_place(trace: TracebackType | None) -> str:
    place = ""
    while trace is not None:
        frame, line, trace = trace.tb_frame, trace.tb_lineno, trace.tb_next
        # Code run by exec() names its module as it likes, or not at all.
        if str(frame.f_globals.get("__name__")).split(".", 1)[0] != _PACKAGE:
            place = f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
    return place
