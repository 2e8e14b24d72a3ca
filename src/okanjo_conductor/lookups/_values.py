"""Values to bytes and back.

The first byte of a *record* says what follows:

    s  str, its UTF-8             b  bytes                  i  int, little endian, signed
    f  float, 8 bytes             T, F, N  True, False, None
    p  anything else, pickled, and the buffers that lie outside of the pickle (PEP 574)
    >  offset and size of a record that is too large for the tree; see `_large`
    k  size of a whole key, that key, and the record: what `_keys` says of long keys

Buffers of a pickle, such as those of NumPy arrays, are not copied when it is read: what is rebuilt
holds views of the record, which are read-only. In the record each starts at a multiple of `_ALIGN`.
"""

from __future__ import annotations

import struct

from okanjo_conductor._wire import pickling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pickle import PickleBuffer
    from typing import Any, Final, TypeAlias

    Parts: TypeAlias = list[bytes | memoryview]

STR: Final = ord("s")
BYTES: Final = ord("b")
LONG_KEY: Final = ord("k")
_INT, _FLOAT, _PICKLE, _LARGE = b"ifp>"
_CONSTANTS: dict[Any, bytes] = {True: b"T", False: b"F", None: b"N"}
_REAL = struct.Struct("<cd")
_PLACE = struct.Struct("<cQQ")
_KEY = struct.Struct("<cI")
_HEAD = struct.Struct("<c3xIQ")
"""Of a pickle: the number of buffers, and the size of the pickle."""
_ALIGN = 16
"""Bytes; what malloc gives, and so what code that works on arrays is used to."""
_PROTOCOL = 5


def encode(value: Any) -> Parts:  # noqa: PLR0911 - one for each kind
    """Return the parts of which a value's record consists.

    Raises:
        Exception: whatever pickling this value raises.
    """
    kind = type(value)
    if kind is str:
        try:
            return [b"s" + value.encode()]
        except UnicodeEncodeError:  # lone surrogates, which pickle knows to keep
            return _pickled(value)
    if kind is bytes:
        return [b"b", value]
    if kind is int:
        return [b"i" + value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)]
    if kind is float:
        return [_REAL.pack(b"f", value)]
    if kind is bool or value is None:
        return [_CONSTANTS[value]]
    return _pickled(value)


def place(offset: int, size: int) -> bytes:
    """Return the record that stands for one that lies elsewhere."""
    return _PLACE.pack(b">", offset, size)


def with_key(encoded_key: bytes, record: bytes) -> bytes:
    """Return a record that holds its whole key as well."""
    return _KEY.pack(b"k", len(encoded_key)) + encoded_key + record


def part_key(record: bytes) -> tuple[bytes | None, bytes]:
    """Part a record from its whole key, which is None unless it holds one."""
    if record[0] != LONG_KEY:
        return None, record
    end = _KEY.size + _KEY.unpack_from(record)[1]
    return record[_KEY.size : end], record[end:]


def resolve(record: bytes, large: Callable[[int, int], memoryview]) -> bytes | memoryview:
    """Return the record itself, or the one it stands for."""
    if record[0] != _LARGE:
        return record
    _, offset, size = _PLACE.unpack(record)
    return large(offset, size)


def decode(record: bytes | memoryview) -> Any:
    """Rebuild the value of a record that is resolved and without key.

    Raises:
        Exception: whatever unpickling it raises.
    """
    kind = record[0]
    if kind == STR:
        return str(record[1:], "utf-8")
    if kind == BYTES:
        return bytes(record[1:])
    if kind == _PICKLE:
        return _unpickled(memoryview(record))
    if kind == _INT:
        return int.from_bytes(record[1:], "little", signed=True)
    if kind == _FLOAT:
        return _REAL.unpack(record)[1]
    return {84: True, 70: False, 78: None}[kind]


def _pickled(value: Any) -> Parts:
    buffers: list[memoryview] = []

    def keep(buffer: PickleBuffer) -> None:
        buffers.append(buffer.raw())

    pickle = pickling.dumps(value, _PROTOCOL, buffer_callback=keep)
    sizes = [len(buffer) for buffer in buffers]
    head = _HEAD.pack(b"p", len(sizes), len(pickle)) + struct.pack(f"<{len(sizes)}Q", *sizes)
    parts: Parts = [head + pickle]
    size = len(parts[0])
    for buffer in buffers:
        parts += [bytes(-size % _ALIGN), buffer]
        size += -size % _ALIGN + len(buffer)
    return parts


def _unpickled(record: memoryview) -> Any:
    _, count, size = _HEAD.unpack_from(record)
    sizes = struct.unpack_from(f"<{count}Q", record, _HEAD.size)
    begin = _HEAD.size + 8 * count
    end = begin + size
    pickle = record[begin:end]
    buffers: list[memoryview] = []
    for length in sizes:
        begin = end + -end % _ALIGN
        end = begin + length
        buffers.append(record[begin:end])
    return pickling.loads(pickle, buffers=buffers)
