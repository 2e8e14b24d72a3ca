"""The messages, one frozen type each, and how they become frames.

Fields are plain data (numbers, text, bytes, lists of these) and are marshalled; a field named
`value` holds something of the user's, already encoded, and travels in the frame's buffers. So
reading a message never runs code of the user's, and a value that cannot be rebuilt spoils nothing
but itself.

    worker → conductor                       conductor → worker
    Ready          set up, waiting for jobs  Jobs, LargeJob   work to do
    Bell           read my outcome log       Define           an object of __main__
    LargeOutcome   did not fit into the log  Post             a custom message, or a reply to one
    Declined       skipped, was recalled     Answer           to LookUp and SetLookup
    Ask            a custom message          Stop             finish, then leave
    LookUp, SetLookup
    Stats, Log
    LastWords      why I am about to die
    Bye            everything is said
"""

from __future__ import annotations

import marshal
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias, cast

from okanjo_conductor._wire.codec import Encoded
from okanjo_conductor._wire.frames import Frame, pack
from okanjo_conductor.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is set up and waits for jobs."""

    KIND: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Bell:
    """There are outcomes in the result pipe: as many as the frame says."""

    KIND: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class LargeOutcome:
    """An outcome too large for an atomic write to the result pipe."""

    KIND: ClassVar[int] = 3
    ordinal: int
    nanoseconds: int
    is_failure: bool
    value: Encoded
    """A pickled value, or in `blob` a packed failure."""


@dataclass(frozen=True, slots=True)
class Declined:
    """These ordinals were recalled before they were started."""

    KIND: ClassVar[int] = 4
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A custom message for the conductor."""

    KIND: ClassVar[int] = 5
    cmd: str
    callback: str | None
    value: Encoded


@dataclass(frozen=True, slots=True)
class LookUp:
    """Keys to look up; `value` is the list of them."""

    KIND: ClassVar[int] = 6
    request: int
    name: str
    value: Encoded


@dataclass(frozen=True, slots=True)
class SetLookup:
    """A lookup entry to set; `value` is the pair of key and value."""

    KIND: ClassVar[int] = 7
    request: int
    name: str
    value: Encoded


@dataclass(frozen=True, slots=True)
class Stats:
    """The worker's counters since its start, and the seconds since its previous report."""

    KIND: ClassVar[int] = 8
    totals: dict[str, Any]
    time_span: float


@dataclass(frozen=True, slots=True)
class Log:
    """A log record; `value` is its dict."""

    KIND: ClassVar[int] = 9
    value: Encoded


@dataclass(frozen=True, slots=True)
class LastWords:
    """Why the worker is about to die."""

    KIND: ClassVar[int] = 10
    text: str


@dataclass(frozen=True, slots=True)
class Bye:
    """The worker has said everything and exits."""

    KIND: ClassVar[int] = 11


@dataclass(frozen=True, slots=True)
class Jobs:
    """A batch of jobs with consecutive ordinals from `first`."""

    KIND: ClassVar[int] = 32
    first: int
    wires: list[Any]
    """Per job an atom or a pickle."""
    keys: bytes
    """The pickled list of keys."""
    attempts: list[tuple[int, int]]
    """Index and attempt number of the jobs that are not at their first attempt."""


@dataclass(frozen=True, slots=True)
class LargeJob:
    """One job whose payload travels beside its pickle."""

    KIND: ClassVar[int] = 33
    ordinal: int
    key: bytes
    """The pickled key."""
    attempt: int
    value: Encoded


@dataclass(frozen=True, slots=True)
class Define:
    """Put an object of the conductor's ``__main__`` into the worker's."""

    KIND: ClassVar[int] = 34
    name: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Post:
    """A custom message from the conductor; a reply if it names a callback."""

    KIND: ClassVar[int] = 35
    cmd: str
    callback: str | None
    error: bytes | None
    """A packed failure, for a reply that says the request could not be answered."""
    value: Encoded


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to `LookUp` or `SetLookup`.

    To the former, `value` is a list of ``(value,)``, or of None where a key is missing.
    """

    KIND: ClassVar[int] = 36
    request: int
    error: bytes | None
    """A packed failure."""
    value: Encoded


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish the job at hand, start no other, leave."""

    KIND: ClassVar[int] = 37


AnyMessage: TypeAlias = (
    Ready
    | Bell
    | LargeOutcome
    | Declined
    | Ask
    | LookUp
    | SetLookup
    | Stats
    | Log
    | LastWords
    | Bye
    | Jobs
    | LargeJob
    | Define
    | Post
    | Answer
    | Stop
)

_TYPES: dict[int, type[Any]] = {
    kind.KIND: kind
    for kind in (
        Ready,
        Bell,
        LargeOutcome,
        Declined,
        Ask,
        LookUp,
        SetLookup,
        Stats,
        Log,
        LastWords,
        Bye,
        Jobs,
        LargeJob,
        Define,
        Post,
        Answer,
        Stop,
    )
}
_PLAIN_FIELDS: dict[int, tuple[str, ...]] = {
    number: tuple(f.name for f in fields(kind) if f.name != "value")
    for number, kind in _TYPES.items()
}


def to_segments(message: AnyMessage, outcomes: int) -> list[bytes | memoryview]:
    """Make the frame of a message."""
    kind = message.KIND
    body = marshal.dumps(tuple(getattr(message, name) for name in _PLAIN_FIELDS[kind]))
    value: Encoded | None = getattr(message, "value", None)
    buffers = () if value is None else (value.blob, *value.buffers)
    return pack(kind, outcomes, body, buffers)


def from_frame(frame: Frame) -> AnyMessage:
    """Read a message.

    Raises:
        ProtocolError: the frame holds no message of this protocol.
    """
    kind = _TYPES.get(frame.kind)
    if kind is None:
        message = f"no message has kind {frame.kind}"
        raise ProtocolError(message)
    try:
        plain = marshal.loads(frame.body)
        if not frame.buffers:
            return cast("AnyMessage", kind(*plain))
        blob, *buffers = frame.buffers
        return cast("AnyMessage", kind(*plain, value=Encoded(blob, buffers)))
    except (ValueError, TypeError, EOFError) as error:
        message = f"the frame of a {kind.__name__} cannot be read: {error}"
        raise ProtocolError(message) from error
