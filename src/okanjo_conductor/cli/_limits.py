"""When jobs take too long and when a run is to stop, found out while it goes on."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING

from okanjo_conductor.cli._values import Halt, Share

if TYPE_CHECKING:
    from okanjo_conductor._types import Outcome

_FEWEST = 3
"""Jobs that must have finished before a median, or a share of them, says anything."""
_SHORTEST = 0.1
"""Seconds of the shortest limit: how long a job has been executing is seen every 0.02 s."""
_STEP = 0.05
_REMEMBERED = 1001
"""Jobs whose times the median is of: the last ones."""


class MedianTimeout:
    """A time limit that is a multiple of the median time of the finished jobs."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []
        self.limit: float | None = None
        """Seconds; None while there are too few finished jobs."""

    def note(self, seconds: float) -> bool:
        """Take the time of a finished job into account; return whether the limit is another one.

        It follows the median in steps of some per cent.
        """
        self._latest.append(seconds)
        insort(self._sorted, seconds)
        if len(self._latest) > _REMEMBERED:
            oldest = self._latest.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        if len(self._sorted) < _FEWEST:
            return False
        # A limit of 0 would be none at all.
        limit = max(self._factor * self._sorted[len(self._sorted) // 2], _SHORTEST)
        limit = float(f"{limit:.3g}")  # it is told to people
        if self.limit is not None and abs(limit - self.limit) <= _STEP * self.limit:
            return False
        self.limit = limit
        return True


class Halting:
    """Counts outcomes, and says when enough of them have come."""

    def __init__(self, rule: Halt | None) -> None:
        self._rule = rule
        self._counts = {"fail": 0, "success": 0, "done": 0}
        self.is_reached = False

    @property
    def is_wanted(self) -> bool:
        """Whether the run was stopped because it had achieved what it was for."""
        return self.is_reached and self._rule is not None and self._rule.what != "fail"

    def note(self, outcome: Outcome) -> bool:
        """Count an outcome; return whether the run is to stop, once."""
        self._counts["done"] += 1
        self._counts["success" if outcome.is_done else "fail"] += 1
        rule = self._rule
        if rule is None or self.is_reached:
            return False
        self.is_reached = self._has_enough(rule)
        return self.is_reached

    def _has_enough(self, rule: Halt) -> bool:
        count = self._counts[rule.what]
        if not isinstance(rule.most, Share):
            return count >= rule.most
        return count >= _FEWEST and count >= rule.most.of * self._counts["done"]
