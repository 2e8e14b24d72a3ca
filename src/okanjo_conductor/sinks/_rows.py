"""Outcomes as rows: what sinks write of an outcome if they are not told otherwise."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from okanjo_conductor._wire.failures import said

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._types import Key, Outcome

_PLAIN = frozenset({str, int, float, bool, type(None)})


def nested(outcome: Outcome) -> dict[str, Any]:
    """Return key and value, or key, state, cause and error of a job that was not done."""
    row: dict[str, Any] = {"key": plain_key(outcome.key)}
    if outcome.is_done:
        row["value"] = outcome.value
    else:
        row.update(_what_went_wrong(outcome))
    return row


def flat(outcome: Outcome) -> dict[str, Any]:
    """Return the key and the fields of a value that is a dict, or the value itself as a field.

    A field of the value's that is called "key" stands in the place of the job's key.
    """
    if outcome.is_done:
        return flattened({"key": plain_key(outcome.key), "value": outcome.value})
    return nested(outcome)


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """Put the fields of a value that is a dict into the place of the value."""
    value = row.get("value")
    if not isinstance(value, dict):
        return row
    rest = {name: field for name, field in row.items() if name != "value"}
    return rest | {str(name): field for name, field in value.items()}


def cell(value: Any) -> Any:
    """Return what a table of text has in a field, for `csv.writer`.

    Raises:
        TypeError, ValueError: as `json_text`, of which lists and dicts are made.
    """
    if isinstance(value, list | dict | tuple | set):
        return json_text(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _what_went_wrong(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": outcome.state.value,
        "cause": None if outcome.cause is None else outcome.cause.value,
        "error": None if outcome.error is None else said(outcome.error),
    }


def plain_key(key: Key) -> Any:
    """Return a key as JSON can say it, if need be as text."""
    if type(key) in _PLAIN:
        return key
    if isinstance(key, tuple):
        return [plain_key(part) for part in key]
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    return str(key)


def json_text(value: Any, unknown: Callable[[Any], Any] | None = None) -> str:
    """Return the JSON of a value, of the common types beyond JSON's what they look like.

    Args:
        unknown: makes something that JSON has of a part of any other type; None: that is refused.

    Raises:
        TypeError: a part of it is of another type.
        ValueError: it contains itself.
    """
    default = partial(_plain_value, unknown or _refuse)
    text = json.dumps(value, ensure_ascii=False, default=default)
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: names of files may hold some
        return json.dumps(value, default=default)
    return text


def _plain_value(unknown: Callable[[Any], Any], value: Any) -> Any:
    """Return what JSON has in the place of a value it has not."""
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return value.tolist()
    if hasattr(type(value), "__dataclass_fields__"):
        return {name: getattr(value, name) for name in type(value).__dataclass_fields__}
    kind = type(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if any((base.__module__.partition(".")[0], base.__name__) in _TEXTS for base in kind.__mro__):
        return str(value)
    return unknown(value)


def _refuse(value: Any) -> Any:
    kind = type(value)
    message = (
        f"a {kind.__module__}.{kind.__qualname__} is nothing that JSON has: give the sink row=…, a "
        "function that makes of an outcome what is to be written"
    )
    raise TypeError(message)


_TEXTS = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("enum", "Enum"),
        ("pathlib", "PurePath"),
        ("uuid", "UUID"),
    }
)
"""Module and name of types that are written as text."""
