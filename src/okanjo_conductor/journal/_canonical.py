"""The canonical form of a payload: bytes that depend on what it holds, and on nothing else.

Every part is written as a letter for its type, its size and its content, so no two different
payloads have the same form. What has no order of its own (dict, set) is sorted by the forms of its
parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import JobKeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def canonical(value: Any) -> bytes:
    """Return the canonical form of a value.

    Raises:
        JobKeyError: it, or a part of it, has none.
    """
    try:
        return _form(value)
    except RecursionError:
        message = (
            "a payload that contains itself, or is nested too deep, has no key: "
            "give Conductor(job_key=…), a function of the payload"
        )
        raise JobKeyError(message) from None


def _form(value: Any) -> bytes:
    write = _EXACT.get(type(value))
    if write is not None:
        return write(value)
    for base, write in _BASES.items():
        if isinstance(value, base):
            return write(value)
    return _by_module(value)


def _tag(letter: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (letter, len(content), content)


def _text(letter: bytes, text: str) -> bytes:
    return _tag(letter, text.encode("utf-8", "surrogatepass"))


def _parts(letter: bytes, values: Iterable[Any]) -> bytes:
    return _tag(letter, b"".join(map(_form, values)))


def _sorted_parts(letter: bytes, values: Iterable[Any]) -> bytes:
    return _tag(letter, b"".join(sorted(map(_form, values))))


def _mapping(value: Any) -> bytes:
    items = sorted((_form(key), _form(item)) for key, item in value.items())
    return _tag(b"d", b"".join(key + item for key, item in items))


def _named(letter: bytes, value: Any, content: bytes) -> bytes:
    return _tag(letter, _text(b"s", type(value).__qualname__) + content)


def _int(value: int) -> bytes:
    return _tag(b"i", b"%x" % value)


_EXACT: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"n0:",
    bool: lambda value: b"b1:1" if value else b"b1:0",
    int: _int,
    float: lambda value: _text(b"f", repr(value)),
    complex: lambda value: _text(b"c", repr(value)),
    str: lambda value: _text(b"s", value),
    bytes: lambda value: _tag(b"y", value),
    bytearray: lambda value: _tag(b"Y", bytes(value)),
    list: lambda value: _parts(b"l", value),
    tuple: lambda value: _parts(b"t", value),
    set: lambda value: _sorted_parts(b"S", value),
    frozenset: lambda value: _sorted_parts(b"F", value),
    dict: _mapping,
    range: lambda value: _parts(b"r", (value.start, value.stop, value.step)),
}


def _fields_of(value: Any, names: Iterable[str]) -> bytes:
    return _named(b"o", value, _mapping({name: getattr(value, name) for name in names}))


def _subclass_of_tuple(value: tuple[Any, ...]) -> bytes:
    return _named(b"T", value, _parts(b"t", value))


def _subclass_of_dict(value: dict[Any, Any]) -> bytes:
    return _named(b"D", value, _mapping(value))


_BASES: dict[type, Callable[[Any], bytes]] = {
    tuple: _subclass_of_tuple,  # named tuples
    dict: _subclass_of_dict,  # OrderedDict, defaultdict, Counter
}


def _by_module(value: Any) -> bytes:
    """Write what is of a type that would have to be loaded to be compared with."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return _fields_of(value, kind.__dataclass_fields__)
    if hasattr(kind, "__attrs_attrs__"):
        return _fields_of(value, [attribute.name for attribute in kind.__attrs_attrs__])
    for base in kind.__mro__:
        write = _BY_NAME.get((base.__module__.partition(".")[0], base.__name__))
        if write is not None and kind.__name__ != "MaskedArray":  # its mask would not count
            return write(value)
    message = (
        f"a payload with a {kind.__module__}.{kind.__qualname__} in it has no key of its own: give "
        "Conductor(job_key=…), a function of the payload that returns what identifies it"
    )
    raise JobKeyError(message)


def _enum(value: Any) -> bytes:
    return _named(b"e", value, _text(b"s", value.name or repr(value.value)))


def _path(value: Any) -> bytes:
    return _text(b"p", str(value))


def _repr(value: Any) -> bytes:
    return _text(b"R", repr(value))


def _array(value: Any) -> bytes:
    if value.dtype.hasobject:
        return _tag(b"O", _form(value.shape) + _form(value.tolist()))
    kind = repr(value.dtype.descr) if value.dtype.names else value.dtype.str
    return _tag(b"A", _text(b"s", kind) + _form(value.shape) + value.tobytes())


_BY_NAME: dict[tuple[str, str], Callable[[Any], bytes]] = {
    ("enum", "Enum"): _enum,
    ("pathlib", "PurePath"): _path,
    ("datetime", "datetime"): _repr,
    ("datetime", "date"): _repr,
    ("datetime", "time"): _repr,
    ("datetime", "timedelta"): _repr,
    ("decimal", "Decimal"): _repr,
    ("fractions", "Fraction"): _repr,
    ("uuid", "UUID"): _repr,
    ("numpy", "ndarray"): _array,
    ("numpy", "generic"): _array,
}
