"""What an attempt that ended badly means for its job: another one, or the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from okanjo_conductor._types import Attempt, Cause, JobState, Retry

if TYPE_CHECKING:
    from collections.abc import Sequence


def final_state(retry: Retry, history: Sequence[Attempt]) -> JobState | None:
    """Judge a job by its attempts, all of which ended badly.

    Returns:
        The state it ends in, or None if it may be executed again.
    """
    last = history[-1]
    spent = sum(attempt.cause is last.cause for attempt in history)
    if last.cause is Cause.CRASH:
        return JobState.QUARANTINED if spent > retry.crashes else None
    if last.cause is Cause.ERROR and isinstance(last.error, retry.on):
        return JobState.FAILED if spent > retry.errors else None
    return JobState.FAILED


def delay(retry: Retry, history: Sequence[Attempt]) -> float:
    """Seconds until a job with these bad ends may be executed again."""
    return retry.backoff(len(history)) if retry.backoff else 0.0
