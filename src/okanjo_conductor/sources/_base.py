"""What every source has: a name, a key, and how its jobs are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from okanjo_conductor._types import Key

KeyOf = Callable[[Any], "Key"]
UNKNOWN_LENGTH: int = NotImplemented
"""What ``__length_hint__`` returns where it cannot tell."""


class Source:
    """An iterable of payloads, which can be read again from its beginning.

    Args:
        path: a file, a URL that fsspec knows, or ``"-"`` for standard input.
        key: what identifies a job: the name of a field, or a function of the payload. None: the
            conductor finds out by itself.
    """

    key: KeyOf | None
    """What identifies a job, as a function of its payload, or None."""

    def __init__(self, path: str | os.PathLike[str], *, key: str | KeyOf | None = None) -> None:
        self.path = os.fspath(path)
        self.key = None if key is None else _as_function(key)
        self._key_field = key if isinstance(key, str) else None
        """The field that every row must have, or None."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def _require_key(self, row: Any, line: int | None) -> None:
        """Refuse a row that has no key, while it is known where it stands."""
        if self._key_field is not None and not has_field(row, self._key_field):
            raise SourceError(self.path, missing_field(row, self._key_field), line)


def has_field(row: Any, name: str) -> bool:
    """Whether a row has a field of this name."""
    return isinstance(row, dict) and name in row


def missing_field(row: Any, name: str) -> str:
    """Say that a row has no such field, and which it has."""
    if not isinstance(row, dict):
        return f"no field {name!r}: the job is a {type(row).__name__}, not an object with fields"
    return f"no field {name!r}; there are: {', '.join(map(repr, row)) or 'none'}"


def _as_function(key: Any) -> KeyOf:
    if callable(key):
        function: KeyOf = key
        return function
    if not isinstance(key, str):
        message = f"key={key!r}: the name of a field, or a function of the job"
        raise ConfigurationError(message)
    return FieldKey(key)


class FieldKey:
    """Identifies a job by one of its fields."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:  # journals compare it
        return f"the field {self._name!r}"

    def __call__(self, job: Any) -> Key:
        """Return the key of a job."""
        if not has_field(job, self._name):
            message = f"job_key: {missing_field(job, self._name)}"
            raise ConfigurationError(message)
        found: Key = job[self._name]
        return found
