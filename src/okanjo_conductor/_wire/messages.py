"""The messages, one frozen type each, and how they become frames.

Fields are plain data (numbers, text, bytes, lists of these) and are marshalled; a field named
`value`, always the last, holds something of the user's, already encoded, and travels in the
frame's buffers; or it is None, where plain data takes its place. So reading a message never runs
code of the user's, and a value that cannot be rebuilt spoils nothing but itself.

    worker → conductor                       conductor → worker
    Ready          set up, waiting for jobs  Jobs, LargeJob   work to do
    Bell           read my outcome log       Define           an object of __main__
    LargeOutcome   did not fit into the log  Cancel           end a job and live on
    Declined       skipped, was recalled     Post             a custom message, or a reply to one
    Ask            a custom message          Request          a custom message to answer
    Response       to Request                Answer           to a request about a lookup
    AddJob         one more job              Load             make entries, for your own request
    Progress       how far the job is        Invalidate       entries of a lookup have changed
                                             Stop             finish, then leave
    AbortRun       stop the whole run
    OpenLookup     how is it reached?
    LookUp, ChangeLookup
    Loaded         an entry, or its failure
    Forget         I wait for that no more
    Stats, Log
    LastWords      why I am about to die
    Bye            everything is said
"""

from __future__ import annotations

import marshal

from okanjo_conductor._plain import Frozen, fresh, values_of
from okanjo_conductor._wire.codec import Encoded, stand_in
from okanjo_conductor._wire.frames import Frame, pack
from okanjo_conductor.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias


class Ready(Frozen):
    """The worker is set up and waits for jobs."""

    urgent: list[str] = fresh(factory=list)
    """Commands that it handles during a job; it wants the bell rung for them."""
    concurrency: int = 1
    """How many it executes at a time."""
    can_cancel: bool = False
    """Whether it heeds `Cancel`."""


class Bell(Frozen):
    """There are outcomes in the result pipe: as many as the frame says."""


class LargeOutcome(Frozen):
    """An outcome too large for an atomic write to the result pipe."""

    ordinal: int
    nanoseconds: int
    is_failure: bool
    value: Encoded
    """A pickled value, or in `blob` a packed failure."""


class Declined(Frozen):
    """These ordinals were recalled before they were started."""

    first: int
    last: int


class Ask(Frozen):
    """A custom message for the conductor."""

    cmd: str
    callback: str | None
    value: Encoded


class Response(Frozen):
    """The reply to a `Request`."""

    request: int
    error: bytes | None
    """A packed failure."""
    value: Encoded


class AddJob(Frozen):
    """One more job. Its frame goes ahead of the outcome of the job that adds it."""

    ordinal: int
    """Of the job that adds it; 0 between jobs."""
    number: int
    """How manieth of those that this attempt adds, from 1."""
    key: bytes | None
    """Pickled."""
    timeout: float | None
    value: Encoded


class Progress(Frozen):
    """How far a job is."""

    ordinal: int
    fraction: float
    text: str


class AbortRun(Frozen):
    """The worker asks for the end of the whole run."""

    why: str


class OpenLookup(Frozen):
    """A question: how are the entries of this lookup reached from a worker?"""

    request: int
    name: str


class LookUp(Frozen):
    """Keys to look up: the list of them, plain, or as `value`."""

    request: int
    name: str
    plain: list[Any] | None
    value: Encoded | None


class ChangeLookup(Frozen):
    """A lookup to change; `value` is the tuple of the verb's arguments."""

    request: int
    name: str
    verb: str
    value: Encoded


class Loaded(Frozen):
    """What became of an entry that the worker was told to load, in answer to `Load`."""

    number: int
    """As in `Load`."""
    error: bytes | None
    """A packed failure."""
    value: Encoded


class Forget(Frozen):
    """Nobody waits for the answer to this request any more, nor will load anything for it."""

    request: int


class Stats(Frozen):
    """The worker's counters since its start, and the seconds since its previous report."""

    totals: dict[str, Any]
    time_span: float


class Log(Frozen):
    """A log record; `value` is its dict."""

    value: Encoded


class LastWords(Frozen):
    """Why the worker is about to die."""

    text: str


class Bye(Frozen):
    """The worker has said everything and exits."""


BadEnd: TypeAlias = tuple[int, str, str, str, int, float | None]
"""Of an attempt: number, cause, type and text of the error, worker, seconds."""


class Jobs(Frozen):
    """A batch of jobs with consecutive ordinals from `first`."""

    first: int
    wires: list[Any]
    """Per job an atom or a pickle."""
    keys: bytes
    """The pickled list of keys."""
    histories: list[tuple[int, list[BadEnd]]]
    """By index, the bad ends of the jobs that have any."""


class LargeJob(Frozen):
    """One job whose payload travels beside its pickle."""

    ordinal: int
    key: bytes
    """The pickled list of its key."""
    history: list[BadEnd]
    value: Encoded


class Define(Frozen):
    """Put an object of the conductor's ``__main__`` into the worker's."""

    name: str
    blob: bytes


class Post(Frozen):
    """A custom message from the conductor; a reply if it names a callback."""

    cmd: str
    callback: str | None
    error: bytes | None
    """A packed failure, for a reply that says the request could not be answered."""
    value: Encoded


class Request(Frozen):
    """A custom message from the conductor that must be answered with a `Response`."""

    request: int
    cmd: str
    value: Encoded


class Answer(Frozen):
    """The reply to `OpenLookup`, `LookUp` or `ChangeLookup`.

    To `LookUp`, it is a list of ``(value,)``, or of None where a key is missing.
    """

    request: int
    error: bytes | None
    """A packed failure."""
    plain: list[Any] | None
    """The answer as the only item, if it is plain data; else it is `value`, or an error."""
    value: Encoded | None


class Load(Frozen):
    """Entries that the worker shall make, for a request of its own; `value` is a list of keys."""

    request: int
    numbers: list[int]
    """Per key, what names it in `Loaded`."""
    value: Encoded


class Cancel(Frozen):
    """End a job and live on."""

    ordinal: int
    limit: float | None
    """The time limit in seconds that it has passed; None: it is not wanted any more."""


class Invalidate(Frozen):
    """Entries of a lookup have changed: let go of what was kept of them."""

    name: str
    keys: list[Any] | None
    """None: all of them. Plain data, so that reading it runs no code of the user's."""


class Stop(Frozen):
    """Finish the job at hand, start no other, leave."""


AnyMessage: TypeAlias = (
    Ready
    | Bell
    | LargeOutcome
    | Declined
    | Ask
    | Response
    | AddJob
    | Progress
    | AbortRun
    | OpenLookup
    | LookUp
    | ChangeLookup
    | Loaded
    | Forget
    | Stats
    | Log
    | LastWords
    | Bye
    | Jobs
    | LargeJob
    | Define
    | Cancel
    | Post
    | Request
    | Answer
    | Load
    | Invalidate
    | Stop
)

PLAIN: Final = frozenset({int, float, bool, type(None), str, bytes})
"""Types of a user's values that may travel as plain data: marshalled, which takes half the time."""
UNSEEN: Final = ()
"""What stands for an entry of a lookup, ``(value,)`` or None, where it has to be asked for with
`LookUp`."""
_TYPES: dict[int, type[Any]] = {
    1: Ready,
    2: Bell,
    3: LargeOutcome,
    4: Declined,
    5: Ask,
    6: LookUp,
    7: ChangeLookup,
    8: Stats,
    9: Log,
    10: LastWords,
    11: Bye,
    12: OpenLookup,
    13: Loaded,
    14: Forget,
    20: Response,
    21: AddJob,
    22: Progress,
    23: AbortRun,
    32: Jobs,
    33: LargeJob,
    34: Define,
    35: Post,
    36: Answer,
    37: Stop,
    38: Load,
    39: Invalidate,
    48: Request,
    60: Cancel,
}
KINDS: Final = {kind: number for number, kind in _TYPES.items()}


def to_segments(message: AnyMessage, outcomes: int) -> list[bytes | memoryview]:
    """Make the frame of a message."""
    kind = KINDS[type(message)]
    value: Encoded | None = getattr(message, "value", None)
    if value is None:
        return pack(kind, outcomes, marshal.dumps(values_of(message)))
    return pack(
        kind, outcomes, marshal.dumps(values_of(message)[:-1]), (value.blob, *value.buffers)
    )


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
        if frame.dropped:
            return kind(*plain, stand_in(frame.dropped))  # type: ignore[no-any-return]
        if not frame.buffers:
            return kind(*plain)  # type: ignore[no-any-return]
        blob, *buffers = frame.buffers
        return kind(*plain, Encoded(blob, buffers))  # type: ignore[no-any-return]
    except (ValueError, TypeError, EOFError) as error:
        message = f"the frame of a {kind.__name__} cannot be read: {error}"
        raise ProtocolError(message) from error
