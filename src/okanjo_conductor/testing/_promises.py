"""What a broken promise is."""

from __future__ import annotations


class BrokenPromiseError(AssertionError):
    """The core, or what surrounds it, did what it must never do."""


def require(holds: object, promise: str, *facts: object) -> None:
    """Raise `BrokenPromiseError` unless the promise is kept."""
    if not holds:
        message = ": ".join([promise, *map(str, facts)])
        raise BrokenPromiseError(message)
