"""What an attempt that ended badly means for its job: another one, or the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from okanjo_conductor._types import Attempt, Cause, JobState, Retry

if TYPE_CHECKING:
    from collections.abc import Sequence


UNCHARGED = frozenset({Cause.PREEMPTED, Cause.SUSPECT})
"""Bad ends that are nobody's fault, or of which nobody knows yet whose."""


def final_state(retry: Retry, history: Sequence[Attempt]) -> JobState | None:
    """Judge a job by its attempts, all of which ended badly.

    Returns:
        The state it ends in, or None if it may be executed again.
    """
    last = history[-1]
    if last.cause in UNCHARGED:
        return None
    spent = sum(attempt.cause is last.cause for attempt in history)
    if spent <= _budget(retry, last):
        return None
    return JobState.QUARANTINED if last.cause is Cause.CRASH else JobState.FAILED


def _budget(retry: Retry, attempt: Attempt) -> int:
    if attempt.cause is Cause.ERROR:
        return retry.errors if isinstance(attempt.error, retry.on) else 0
    budgets = {
        Cause.CRASH: retry.crashes,
        Cause.TIMEOUT: retry.timeouts,
        Cause.MEMORY: retry.memory,
    }
    return budgets.get(attempt.cause, 0)


def delay(retry: Retry, history: Sequence[Attempt]) -> float:
    """Seconds until a job with these bad ends may be executed again."""
    bad_ends = sum(attempt.cause not in UNCHARGED for attempt in history)
    return retry.backoff(bad_ends) if retry.backoff and bad_ends else 0.0
