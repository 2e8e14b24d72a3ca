"""How long a job waits before it is executed again."""

from __future__ import annotations

from random import random

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def exponential(
    base: float = 0.1, factor: float = 2.0, limit: float = 30.0, *, jitter: float = 0.0
) -> Callable[[int], float]:
    """Make a backoff: ``base * factor ** (n - 1)`` seconds after the nth bad end, up to `limit`.

    Args:
        jitter: the part of each wait that is left to chance, from 0 to 1, so that jobs which
            failed together do not come back together.

    >>> [exponential(0.5)(n) for n in (1, 2, 3)]
    [0.5, 1.0, 2.0]
    """

    def delay(bad_ends: int) -> float:
        try:
            longest = min(limit, base * factor ** (bad_ends - 1))
        except OverflowError:  # a float ends at 2 ** 1024
            longest = limit
        return longest * (1 - jitter * random())  # noqa: S311 - no secret

    return delay
