"""Values to bytes and back: payloads, results, message data.

Plain ``int``, ``float``, ``bool``, ``None`` and ``str`` (the *atoms*) travel bare. Everything else
is pickled, each value alone: one pickle for a batch would share identity between jobs and let one
bad object poison the rest. Buffers of `OUT_OF_BAND` bytes and more, such as those of NumPy arrays,
are not copied into the pickle but travel beside it (PEP 574).

Pickle only calls what the value's own class defines. It can raise anything, so callers treat every
exception out of here as the fault of that one value.
"""

from __future__ import annotations

from okanjo_conductor._wire import pickling
from okanjo_conductor._wire.frames import MAX_BUFFERS
from okanjo_conductor.errors import SerialisationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pickle import PickleBuffer
    from typing import Any, Final, TypeAlias

ATOMS: Final = frozenset({int, float, bool, type(None), str})
OUT_OF_BAND = 1 << 16
"""Bytes from which a buffer travels beside the pickle. Below it, copying is cheaper."""
MAX_SIZE = 1 << 32
"""Bytes that one value may take, pickled: 4 GiB. More is better passed through a file."""
_PROTOCOL = 5


class Encoded:
    """A pickle and the buffers that travel beside it."""

    __slots__ = ("blob", "buffers")

    def __init__(self, blob: bytes | bytearray, buffers: list[Any]) -> None:
        self.blob = blob
        self.buffers = buffers

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoded):
            return NotImplemented
        return (self.blob, self.buffers) == (other.blob, other.buffers)

    __hash__ = None  # type: ignore[assignment]  # buffers cannot be hashed

    def __repr__(self) -> str:
        return f"Encoded({self.blob!r}, {self.buffers!r})"

    @property
    def is_large(self) -> bool:
        """Whether it deserves a frame of its own."""
        return bool(self.buffers) or len(self.blob) >= OUT_OF_BAND


Wire: TypeAlias = int | float | bool | str | bytes | Encoded | None
"""A job's payload, ready to travel: an atom, a pickle, or a large one in parts."""


def encode(value: Any) -> Encoded:
    """Pickle one value.

    Raises:
        SerialisationError: it takes more than `MAX_SIZE`.
        Exception: whatever pickling this value raises.
    """
    buffers: list[Any] = []

    def stays_in_band(buffer: PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND or len(buffers) >= MAX_BUFFERS - 1:
            return True
        buffers.append(raw)
        return False

    return checked(
        Encoded(pickling.dumps(value, _PROTOCOL, buffer_callback=stays_in_band), buffers)
    )


def checked(encoded: Encoded) -> Encoded:
    """Return what is not too large to travel.

    Raises:
        SerialisationError: it takes more than `MAX_SIZE`.
    """
    size = size_of(encoded)
    if size > MAX_SIZE:
        message = (
            f"it takes {size / 2**30:.1f} GiB pickled ({size:,} bytes), and at most "
            f"{MAX_SIZE / 2**30:g} GiB travel: write it to a file and send the path"
        )
        raise SerialisationError(message)
    return encoded


def size_of(encoded: Encoded) -> int:
    """Bytes that a value takes, pickled."""
    return len(encoded.blob) + sum(memoryview(buffer).nbytes for buffer in encoded.buffers)


def decode(encoded: Encoded) -> Any:
    """Unpickle one value.

    Raises:
        Exception: whatever unpickling this value raises.
    """
    return pickling.loads(encoded.blob, buffers=encoded.buffers)


def stand_in(size: int) -> Encoded:
    """Make what takes the place of a value that was too large; decoding it raises MemoryError."""
    return Encoded(pickling.dumps(_TooLarge(size), _PROTOCOL), [])


class _TooLarge:
    def __init__(self, size: int) -> None:
        self._size = size

    def __reduce__(self) -> Any:
        return _raise_too_large, (self._size,)


def _raise_too_large(size: int) -> None:
    message = f"its {size} bytes do not fit into the memory of this process"
    raise MemoryError(message)


def encode_payload(payload: Any) -> Wire:
    """Make a job's payload ready to travel."""
    if type(payload) in ATOMS:
        return payload  # type: ignore[no-any-return]  # an atom is a Wire
    encoded = encode(payload)
    return encoded if encoded.is_large else bytes(encoded.blob)


def decode_payload(wire: Wire) -> Any:
    """Rebuild a job's payload."""
    if type(wire) is bytes:
        return pickling.loads(wire)
    return decode(wire) if type(wire) is Encoded else wire
