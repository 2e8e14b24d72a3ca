"""What is done to a mapping, whoever asks for it. Light: it comes with `Conductor`."""

from __future__ import annotations

from okanjo_conductor.errors import ReadOnlyLookupError
from okanjo_conductor.lookups._kinds import ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def get_entry(lookup: Any, key: Any, default: Any) -> Any:
    """Read an entry of anything that is indexed."""
    try:
        return lookup[key]
    except (KeyError, IndexError):
        return default


def set_entry(lookup: Any, key: Any, value: Any) -> None:
    """Set an entry."""
    lookup[key] = value


def update(lookup: Any, entries: Mapping[Any, Any]) -> None:
    """Set many entries."""
    if hasattr(lookup, "update"):
        lookup.update(entries)
        return
    for key, value in entries.items():
        lookup[key] = value


def increment(lookup: Any, key: Any, by: Any) -> Any:
    """Add to an entry; return what it is then."""
    value = get_entry(lookup, key, 0) + by
    lookup[key] = value
    return value


def compare_and_set(lookup: Any, key: Any, expected: Any, value: Any) -> bool:
    """Set an entry if it is as expected; say whether it was."""
    found = get_entry(lookup, key, ABSENT)
    if found is not expected and (found is ABSENT or not found == expected):  # noqa: SIM201 - `!=` may be another method
        return False
    lookup[key] = value
    return True


def require_writable(name: str, lookup: Any) -> None:
    """Refuse to change what cannot be changed.

    Raises:
        ReadOnlyLookupError: it has no way to set an entry.
    """
    if not hasattr(type(lookup), "__setitem__"):
        raise ReadOnlyLookupError(name, type(lookup).__qualname__)
