"""What the user has laid down for a run: budgets, limits and graces."""

from __future__ import annotations

from okanjo_conductor._plain import Named, fresh
from okanjo_conductor._types import Recycle, Retry

MIN_SAMPLE = 20
"""Finished jobs before a share of failures says anything."""


class Policy(Named):
    """The options of a conductor that the core decides by. Seconds and bytes."""

    retry: Retry = fresh(factory=Retry)
    recycle: Recycle = fresh(factory=Recycle)
    abort_grace: float = 1.0
    timeout_grace: float = 1.0
    soft_timeout: bool = False
    start_timeout: float | None = None
    stuck_after: float | None = None
    max_rss: int | None = None
    max_failures: float | None = None
    """An ``int`` is a number of jobs; a ``float`` below 1 a share of the finished ones."""

    @property
    def measures_memory(self) -> bool:
        """Whether anything depends on how much memory workers hold."""
        return self.max_rss is not None or self.recycle.rss is not None


class FailureBudget:
    """How many jobs have failed, and whether that is too many."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._finished = 0
        self._failed = 0

    def note(self, *, done: int = 0, failed: int = 0) -> None:
        """Count outcomes."""
        self._finished += done + failed
        self._failed += failed

    @property
    def is_spent(self) -> bool:
        """Whether more jobs have failed than the limit allows."""
        limit = self._limit
        if limit is None:
            return False
        if isinstance(limit, int):
            return self._failed > limit
        return self._finished >= MIN_SAMPLE and self._failed > limit * self._finished

    @property
    def why(self) -> str:
        """Say what was spent."""
        return f"{self._failed:,} of {self._finished:,} jobs failed; max_failures={self._limit}"
