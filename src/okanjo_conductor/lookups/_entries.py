"""Entries: a key and a value as the two strings of bytes that the tree holds."""

from __future__ import annotations

from okanjo_conductor.lookups import _keys, _values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from okanjo_conductor.lookups._keys import Key
    from okanjo_conductor.lookups._values import Parts

_LARGE = 1024
"""Bytes from which a record does not lie in the tree. Two entries must fit into a page of 4096
bytes, with keys of 511."""


def encode(key: Any, value: Any, append: Callable[[Parts], tuple[int, int]]) -> tuple[bytes, bytes]:
    """Return what a key is stored under, and the record that is stored there.

    Args:
        append: writes a large record and returns where it lies.

    Raises:
        TableKeyError: it is no key.
        Exception: whatever pickling the value raises, with a note that says whose it is.
    """
    encoded = _keys.encode(key)
    try:
        parts = _values.encode(value)
    except Exception as error:
        error.add_note(f"It was raised by the value of the key {key!r} of a lookup table.")
        raise
    is_large = sum(map(len, parts)) >= _LARGE
    record = _values.place(*append(parts)) if is_large else b"".join(parts)
    if len(encoded) <= _keys.PLAIN:
        return encoded, record
    return _keys.stored(encoded), _values.with_key(encoded, record)


def encoded_key(stored: bytes, record: bytes) -> bytes:
    """Return the whole encoding of an entry's key."""
    if len(stored) <= _keys.PLAIN:
        return stored
    return _values.part_key(record)[0] or stored


def key_of(stored: bytes, record: bytes) -> Key:
    """Return an entry's key."""
    return _keys.decode(encoded_key(stored, record))


def value_of(record: bytes, view: Callable[[int, int], memoryview]) -> Any:
    """Return an entry's value.

    Args:
        view: returns a large record.

    Raises:
        Exception: whatever unpickling it raises.
    """
    return _values.decode(_values.resolve(_values.part_key(record)[1], view))


def has_prefix(encoded: bytes, prefix: bytes) -> bool:
    """Whether an encoded key begins with what a prefix is encoded as.

    ``ff`` would go on with a string in a tuple: ``00 ff`` is a null byte there, no end.
    """
    if not encoded.startswith(prefix):
        return False
    return prefix[0] != _keys.TUPLE or encoded[len(prefix) : len(prefix) + 1] != b"\xff"
