"""What is said when something of a job's does not travel: whose fault, which part, what to do.

Both functions search for the part that broke, which may take a second or two; see `tracing` and
`sketching`. They return errors to be raised, and never raise themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from okanjo_conductor._wire.codec import Encoded
from okanjo_conductor._wire.failures import qualified_name, said, text_of
from okanjo_conductor._wire.sketching import unloadable_part
from okanjo_conductor._wire.tracing import unpicklable_part
from okanjo_conductor.errors import SerialisationError

if TYPE_CHECKING:
    from okanjo_conductor._wire.paths import Culprit

Thing: TypeAlias = Literal["payload", "key", "value"]
_DESTINATIONS: Final = {
    "payload": "a worker",
    "key": "a worker",
    "value": "the conductor",
}
_TOO_DEEP = (
    "It is nested too deeply: send it flatter, as a list of its parts or as bytes of its own"
)
_NO_MEMORY = "Send it in parts, or write it to a file and send the path"
_NOT_PICKLABLE = (
    "Send what it can be made of again, or leave that part out with __getstate__ in its class"
)
_NOT_REBUILT = (
    "Pickling it went well: its class or function must be importable there too, and rebuild it "
    "from what its __reduce__ or __getstate__ gives"
)


def unpicklable(
    key: Any, thing: Thing, value: Any, error: BaseException, reducers: Any = None
) -> SerialisationError:
    """Say that something of a job's cannot be pickled.

    Args:
        key: the job's.
        value: what could not be pickled.
        error: what pickling it raised.
        reducers: as for `unpicklable_part`.
    """
    begin = f"job {_shown(key)}: its {thing}, a {qualified_name(type(value))},"
    end = f"cannot be sent to {_DESTINATIONS[thing]}"
    if isinstance(error, SerialisationError):
        message = f"{begin} {end}: {text_of(error)}"
        return _made(message, None, error)
    begin = f"{begin} cannot be pickled and so {end}: {said(error)}."
    if isinstance(error, MemoryError):  # a second time would not be better
        return _made(f"{begin} {_NO_MEMORY}", None, error)
    is_too_deep = isinstance(error, RecursionError)
    culprit = unpicklable_part(value, thing, is_too_deep=is_too_deep, reducers=reducers)
    advice = _TOO_DEEP if is_too_deep else _NOT_PICKLABLE
    return _made(f"{begin} {_located(culprit, 'a')}. {advice}", culprit, error)


def unloadable(
    key: Any, thing: Thing, encoded: Encoded | bytes, error: BaseException, place: str = ""
) -> SerialisationError:
    """Say that something of a job's was pickled, but cannot be unpickled.

    Args:
        key: the job's.
        encoded: what could not be unpickled.
        error: what unpickling it raised.
        place: where; default: where such things go.
    """
    place = place or _DESTINATIONS[thing].replace("a ", "the ")
    begin = f"job {_shown(key)}: its {thing} cannot be unpickled in {place}: {said(error)}."
    if isinstance(error, MemoryError):  # a second time would not be better
        return _made(f"{begin} {_NO_MEMORY}", None, error)
    if isinstance(encoded, bytes):
        encoded = Encoded(encoded, [])
    culprit = unloadable_part(encoded, thing)
    return _made(f"{begin} {_located(culprit, 'rebuilt by')}. {_NOT_REBUILT}", culprit, error)


def _located(culprit: Culprit | None, relation: str) -> str:
    if culprit is None:
        return "Which part of it broke could not be found out"
    return f"What broke is {culprit.path or 'a part of it'}, {relation} {culprit.type_name}"


def _made(message: str, culprit: Culprit | None, error: BaseException) -> SerialisationError:
    made = SerialisationError(message, *(culprit or ()))
    made.__cause__ = error
    return made


def _shown(key: Any) -> str:
    try:
        return repr(key)
    except BaseException:  # of a class of the user's
        return f"<{qualified_name(type(key))}>"
