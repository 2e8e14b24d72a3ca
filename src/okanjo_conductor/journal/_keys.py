"""Keys of jobs as text, and back; and the key of a payload that was given none.

The journal knows a job by the text of its key. Texts are JSON without spaces, so that who opens the
file sees what is meant, and two keys have the same text only if they are equal and of the same
type::

    int, float, bool, None      42   0.5   true   null
    str                         "Quito"
    tuple                       [3,"Quito"]
    anything else               {"bytes":"00ff"}   {"Path":"in/a.png"}   {"UUID":"…"}   …

A job without a `job_key` is known by its payload: by itself where that is a short int, str, path,
UUID or tuple of these, else by a hash of its *canonical form*. That form depends on what the
payload holds and on nothing else, neither on the process nor on the order in which a dict or a set
was filled, so the same payload has the same key in the next run. Classes go by their name without
their module: the same script has another one when it is imported.
"""

from __future__ import annotations

import json
from contextlib import suppress
from json.encoder import encode_basestring  # with characters beyond ASCII as they are
from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import JobKeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from okanjo_conductor._types import Key

LONGEST_PLAIN = 200
"""Characters of text up to which a payload is its own key."""
_HASH_DIGITS = 32
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_GIVE_ONE = "give Conductor(job_key=…), a function of the payload"


def text_of(key: Key) -> str:
    """Return the text of a key.

    Raises:
        JobKeyError: it is of a type that has none.
    """
    try:
        return _JSON(_plain(key))
    except RecursionError:
        raise _no_key(key, "a tuple nested that deep") from None
    except ValueError as error:  # an int of thousands of digits
        raise _no_key(key, str(error)) from None


def texts_of(keys: Sequence[Key], *, is_strict: bool = False) -> list[str]:
    """Return the texts of many keys; a key that has none gets one that says what it looks like.

    Raises:
        JobKeyError: a key has none, and this is strict.
    """
    kinds = set(map(type, keys))
    if kinds == {int}:
        with suppress(ValueError):  # an int of thousands of digits
            return list(map(str, keys))
    if kinds == {str} and "".join(keys).isascii():  # type: ignore[arg-type]  # all are str
        return list(map(encode_basestring, keys))  # type: ignore[arg-type]  # as above
    return list(map(text_of if is_strict else safe_text_of, keys))


def safe_text_of(key: Key) -> str:
    """Return the text of a key, or of what it looks like."""
    try:
        return text_of(key)
    except JobKeyError:
        return _JSON({"repr": _printable(repr(key))})


def key_of(text: str) -> Key:
    """Return the key that has this text.

    Raises:
        JobKeyError: no key has.
    """
    try:
        key: Key = _key(json.loads(text))
        return key
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        message = f"{text[:LONGEST_PLAIN]!r} is the text of no key"
        raise JobKeyError(message) from error


def default_key(payload: Any) -> Key:
    """Return the key of a payload: itself where it is short and plain, else a hash of it.

    Raises:
        JobKeyError: it holds something that has no canonical form.
    """
    is_plain = _is_plain(payload)
    if is_plain and type(payload) not in (int, str):
        is_plain = len(text_of(payload)) <= LONGEST_PLAIN
    key: Key = payload if is_plain else hash_of(payload)
    return key


def default_keys(payloads: Sequence[Any]) -> list[Key]:
    """Return the keys of many payloads.

    Raises:
        JobKeyError: one holds something that has no canonical form.
    """
    kinds = set(map(type, payloads))
    is_plain = False
    if kinds == {int}:
        is_plain = all(map(_is_plain, (min(payloads), max(payloads))))
    elif kinds == {str}:
        is_plain = max(map(len, payloads)) <= LONGEST_PLAIN
    return list(payloads if is_plain else map(default_key, payloads))


def hash_of(payload: Any) -> str:
    """Return the hash of a payload's canonical form.

    Raises:
        JobKeyError: it holds something that has none.
    """
    from hashlib import sha256

    from okanjo_conductor.journal._canonical import canonical

    return sha256(canonical(payload)).hexdigest()[:_HASH_DIGITS]


# Keys to what JSON can say


def _plain(key: Any) -> Any:
    kind = type(key)
    if key is None or kind is bool or kind is int:
        return key
    if kind is str:
        return key if _is_encodable(key) else {"str": _hex_of(key)}
    if kind is float:
        return _plain_float(key)
    if kind is tuple:
        return list(map(_plain, key))
    if kind is frozenset:
        return {"frozenset": [json.loads(text) for text in sorted(map(text_of, key))]}
    return _tagged(key)


def _plain_float(key: float) -> Any:
    if key != key:  # noqa: PLR0124 - NaN is what differs from itself
        raise _no_key(key, "not even equal to itself")
    return {"float": str(key)} if key in _INFINITE else key


def _tagged(key: Any) -> Any:
    if type(key) is bytes:
        return {"bytes": key.hex()}
    for name, (find, write, _) in _OTHERS.items():
        if type(key) is find():
            return {name: write(key)}
    raise _no_key(key, f"a {type(key).__qualname__}")


def _no_key(key: object, what: str) -> JobKeyError:
    message = (
        f"{_shown(key)} cannot be the key of a job in a journal: it is {what}. Keys are str, int, "
        "bytes, float, bool, None, paths, dates and times, Decimal, UUID, tuples and frozensets of "
        "these: let job_key return one"
    )
    return JobKeyError(message)


def _shown(key: object) -> str:
    text = repr(key)
    return text if len(text) <= LONGEST_PLAIN else f"{text[:LONGEST_PLAIN]}…"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: names of files may hold some
        return False
    return True


def _hex_of(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").hex()


def _text_of_hex(digits: str) -> str:
    return bytes.fromhex(digits).decode("utf-8", "surrogatepass")


def _printable(text: str) -> str:
    return text if _is_encodable(text) else ascii(text)


# And back


def _key(found: Any) -> Any:
    if isinstance(found, list):
        return tuple(map(_key, found))
    if not isinstance(found, dict):
        return found
    ((name, written),) = found.items()
    return _READ[name](written)


def _read_frozenset(parts: Iterable[Any]) -> Hashable:
    return frozenset(map(_key, parts))


_INFINITE = (float("inf"), float("-inf"))


def _path_type() -> type:
    import pathlib

    return type(pathlib.Path())


def _pure_path_type() -> type:
    import pathlib

    return type(pathlib.PurePath())


def _type(module: str, name: str) -> Callable[[], type]:
    def find() -> type:
        import importlib

        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]

    return find


_uuid, _decimal = _type("uuid", "UUID"), _type("decimal", "Decimal")


def _reader_of_text(find: Callable[[], type]) -> Callable[[Any], Any]:
    def read(written: str) -> Any:
        return find()(written)

    return read


def _written_path(path: Any) -> Any:
    text = str(path)
    return text if _is_encodable(text) else [_hex_of(text)]


def _reader_of_path(find: Callable[[], type]) -> Callable[[Any], Hashable]:
    def read(written: Any) -> Hashable:
        text = written if isinstance(written, str) else _text_of_hex(written[0])
        return find()(text)  # type: ignore[no-any-return]

    return read


def _iso(value: Any) -> str:
    return value.isoformat()  # type: ignore[no-any-return]  # dates and times


def _reader_of_iso(name: str) -> Callable[[Any], Hashable]:
    find = _type("datetime", name)
    return lambda text: find().fromisoformat(text)  # type: ignore[attr-defined]


def _written_time(value: Any) -> str:
    """Refuse times whose zone is more than an offset: it would come back as another one."""
    import datetime as dt

    if value.tzinfo is not None and type(value.tzinfo) is not dt.timezone:
        raise _no_key(value, "a time with a zone; turn it into UTC")
    if value.fold:
        raise _no_key(value, "a time with fold=1")
    return value.isoformat()  # type: ignore[no-any-return]


_OTHERS: dict[str, tuple[Callable[[], type], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "Path": (_path_type, _written_path, _reader_of_path(_path_type)),
    "PurePath": (_pure_path_type, _written_path, _reader_of_path(_pure_path_type)),
    "UUID": (_uuid, str, _reader_of_text(_uuid)),
    "Decimal": (
        _decimal,
        str,
        _reader_of_text(_decimal),
    ),
    "datetime": (_type("datetime", "datetime"), _written_time, _reader_of_iso("datetime")),
    "date": (_type("datetime", "date"), _iso, _reader_of_iso("date")),
    "time": (_type("datetime", "time"), _written_time, _reader_of_iso("time")),
}
"""Types by the name in their tag, found when they are needed; how to write one, and to read it."""
_READ: dict[str, Callable[[Any], Any]] = {
    "str": _text_of_hex,
    "float": float,
    "bytes": bytes.fromhex,
    "frozenset": _read_frozenset,
    "repr": str,
    **{name: read for name, (_, _, read) in _OTHERS.items()},
}


def _is_plain(payload: Any) -> bool:
    """Whether a payload may be its own key: what is equal to it must not be another payload."""
    kind = type(payload)
    if kind is tuple:
        return len(payload) <= LONGEST_PLAIN and all(map(_is_plain, payload))
    if kind is int:
        return abs(payload) < _LARGEST_PLAIN  # type: ignore[no-any-return]
    if kind is str:
        return len(payload) <= LONGEST_PLAIN
    return kind.__name__ in _PLAIN_NAMES and kind in (_path_type(), _pure_path_type(), _uuid())


_LARGEST_PLAIN = 10**LONGEST_PLAIN
_PLAIN_NAMES = frozenset({"PosixPath", "PurePosixPath", "UUID"})
