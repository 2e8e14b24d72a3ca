"""Outcome records: one per outcome, written by the worker into its outcome log.

A record is a run of pickle opcodes that put three things on the stack, the ordinal, the duration
in nanoseconds and the result::

    LONG1 ordinal   LONG1 nanoseconds   an atom's own opcodes        the value itself
                                        BINBYTES pickle              a pickled value
                                        BINBYTES failure, TUPLE1     an exception

Records joined together, between a prologue and an epilogue, are the pickle of one flat list: the
conductor takes all of them apart with a single ``loads`` in C. Nothing of the user's is run by it;
pickled values are unpickled later, one by one.

What is too long for the log travels as a `LargeOutcome` frame.
"""

from __future__ import annotations

import struct

from okanjo_conductor._wire import pickling
from okanjo_conductor._wire.codec import Encoded
from okanjo_conductor.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONG1_8 = b"\x8a\x08"
"""The opcode that 8 bytes of an integer follow."""
_PROLOGUE = b"\x80\x05]("
_EPILOGUE = b"e."
_HEAD = struct.Struct("<2sq2sq").pack
_BYTES_HEAD: Callable[[bytes, int], bytes] = struct.Struct("<cI").pack
HEAD_SIZE = 20
BYTES_HEAD_SIZE = 6
"""Upper bound of what `pickled` and `failure` add."""


def head(ordinal: int, nanoseconds: int) -> bytes:
    """Make the first two items of a record."""
    return _HEAD(LONG1_8, ordinal, LONG1_8, nanoseconds)


INT_RECORD = struct.Struct("<2sq2sq2sq")
"""The record of an integer of 64 bits: `LONG1_8` before its ordinal, nanoseconds and value."""


def atom(value: float | str | None) -> bytes:
    """Make the result item of an atom: its pickle without protocol mark and STOP."""
    return pickling.dumps(value, 3)[2:-1]


def pickled(blob: bytes | bytearray) -> bytes:
    """Make the result item of a value that was pickled alone."""
    return _BYTES_HEAD(b"B", len(blob)) + blob


def failure(packed: bytes) -> bytes:
    """Make the result item of an exception."""
    return pickled(packed) + b"\x85"


def atom_pickle(item: bytes) -> Encoded:
    """Make an ordinary pickle of an atom's result item, for one that is too long for a record."""
    return Encoded(b"\x80\x03" + item + b".", [])


def unpack(chunk: bytes | bytearray | memoryview) -> tuple[list[int], list[int], list[Any]]:
    """Take whole records apart: ordinals, nanoseconds and results, as three columns.

    A result of type ``bytes`` is a pickled value; a 1-tuple holds a packed failure; anything else
    is the value itself.

    Raises:
        ProtocolError: the bytes are no records.
    """
    try:
        items = pickling.loads(b"".join((_PROLOGUE, chunk, _EPILOGUE)))
    except Exception as error:
        message = f"{len(chunk)} bytes in an outcome log are no outcome records: {error}"
        raise ProtocolError(message) from error
    # A record cut short may swallow the epilogue's first byte; then its last item comes out alone.
    if type(items) is not list or len(items) % 3:
        message = f"{len(chunk)} bytes in an outcome log end inside a record"
        raise ProtocolError(message)
    return items[0::3], items[1::3], items[2::3]
