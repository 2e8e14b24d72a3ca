"""Keys to bytes and back, so that the order of the bytes is the order of the keys.

The encoding is the tuple layer of FoundationDB, with the same type bytes:

    01 bytes            bytes
    02 str              its UTF-8
    05 tuple            its parts, one after the other
    0b … 1d int         14 is zero; 15 … 1c are positive, of 1 … 8 bytes, big endian; 13 … 0c are
                        negative, their bytes inverted; 1d and 0b carry a length byte and more

Within a tuple a str, bytes or tuple ends with ``00``, and a ``00`` inside it becomes ``00 ff``. A
key that is no tuple ends where it ends, so that a `str` costs no more than its UTF-8. So keys sort
by type first (bytes, str, tuple, int), then bytes by byte, str by code point, int by value, tuples
part by part; and what begins with the encoding of a tuple, str or bytes is what begins with that.

LMDB takes keys of up to 511 bytes. What is encoded in more than `PLAIN` is stored under its first
`KEPT` bytes and a hash of the whole; such keys have 511 bytes and the others have fewer, so no two
of them meet. The whole encoding is then kept beside the value. Long keys that agree in the first
`KEPT` bytes come in no particular order among themselves.
"""

from __future__ import annotations

from operator import index

from okanjo_conductor.errors import TableKeyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    Key: TypeAlias = str | bytes | int | tuple[Any, ...]

STR: Final = b"\x02"
_BYTES, _END, _ESCAPED = b"\x01", b"\x00", b"\x00\xff"
TUPLE: Final = 0x05
_TUPLE = bytes([TUPLE])
_ZERO, _LEAST, _GREATEST = 0x14, 0x0B, 0x1D
_SHORT_INT = 8
"""Bytes of an int whose length stands in its type byte."""
_LONGEST_INT = 255
"""Bytes: their number must fit into one."""
_MAX_SIZE: Final = 511
"""Of a key in LMDB, in bytes."""
_HASH = 32
PLAIN: Final = _MAX_SIZE - 1
"""Bytes up to which a key is stored as it is encoded."""
KEPT: Final = _MAX_SIZE - _HASH
"""Bytes of a longer one that are."""


def encode(key: Any) -> bytes:
    """Return the bytes that stand for a key.

    Raises:
        TableKeyError: it is no str, bytes, int or tuple of these.
    """
    if isinstance(key, str):
        return STR + _utf8(key)
    if isinstance(key, bytes):
        return _BYTES + key
    if isinstance(key, tuple):
        return _TUPLE + b"".join(map(_part, key))
    return _encode_int(key)


def encode_prefix(prefix: object) -> bytes:
    """Return what the encodings of all keys with this prefix begin with.

    Raises:
        TableKeyError: it is no str, bytes or tuple.
    """
    if not isinstance(prefix, str | bytes | tuple):
        message = (
            f"{prefix!r} is no prefix of keys: give a str, bytes, "
            "or a tuple, with which longer tuples begin"
        )
        raise TableKeyError(message)
    return encode(prefix)


def stored(encoded: bytes) -> bytes:
    """Return what an encoded key is stored under."""
    if len(encoded) <= PLAIN:
        return encoded
    from hashlib import blake2b  # only for long keys

    return encoded[:KEPT] + blake2b(encoded, digest_size=_HASH).digest()


def decode(encoded: bytes) -> Key:
    """Return the key that these bytes stand for."""
    kind = encoded[:1]
    if kind == STR:
        return encoded[1:].decode("utf-8", "surrogatepass")
    if kind == _BYTES:
        return encoded[1:]
    if kind == _TUPLE:
        return _decode_parts(encoded, 1)[0]
    return _decode_int(encoded, 0)[0]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # names of files may hold lone surrogates


def _part(part: Any) -> bytes:
    encoded = encode(part)
    if encoded[:1] in (STR, _BYTES):
        return encoded.replace(_END, _ESCAPED) + _END
    return encoded + _END if encoded[:1] == _TUPLE else encoded


def _encode_int(key: Any) -> bytes:
    try:
        number = index(key)
    except TypeError:
        message = (
            f"{key!r} is a {type(key).__name__}: the keys of a lookup table are str, bytes, int, "
            "and tuples of these"
        )
        raise TableKeyError(message) from None
    size = (abs(number).bit_length() + 7) // 8
    if size > _LONGEST_INT:
        message = f"an int of {size} bytes is no key of a lookup table: {_LONGEST_INT} at most"
        raise TableKeyError(message)
    if number < 0:
        number += (1 << 8 * size) - 1
        head = [_ZERO - size] if size <= _SHORT_INT else [_LEAST, 255 - size]
    else:
        head = [_ZERO + size] if size <= _SHORT_INT else [_GREATEST, size]
    return bytes(head) + number.to_bytes(size, "big")


def _decode_int(encoded: bytes, begin: int) -> tuple[int, int]:
    kind = encoded[begin]
    begin += 1
    if kind == _GREATEST:
        size, begin = encoded[begin], begin + 1
    elif kind == _LEAST:
        size, begin = 255 - encoded[begin], begin + 1
    else:
        size = abs(kind - _ZERO)
    number = int.from_bytes(encoded[begin : begin + size], "big")
    if kind < _ZERO:
        number -= (1 << 8 * size) - 1
    return number, begin + size


def _decode_parts(encoded: bytes, begin: int) -> tuple[tuple[Any, ...], int]:
    """Decode up to the end of the tuple or of everything; return where that is as well."""
    parts: list[Any] = []
    while begin < len(encoded) and encoded[begin] != 0:
        kind = encoded[begin : begin + 1]
        if kind in (STR, _BYTES):
            end = _end_of(encoded, begin)
            parts.append(decode(encoded[begin:end].replace(_ESCAPED, _END)))
            begin = end + 1
        elif kind == _TUPLE:
            part, end = _decode_parts(encoded, begin + 1)
            parts.append(part)
            begin = end + 1
        else:
            number, begin = _decode_int(encoded, begin)
            parts.append(number)
    return tuple(parts), begin


def _end_of(encoded: bytes, begin: int) -> int:
    end = encoded.index(_END, begin)
    while encoded[end : end + 2] == _ESCAPED:
        end = encoded.index(_END, end + 2)
    return end
