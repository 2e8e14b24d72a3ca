"""What an attempt that ended badly means for its job."""

from __future__ import annotations

import pytest

from okanjo_conductor._backoff import exponential
from okanjo_conductor._core.retry import delay, final_state
from okanjo_conductor._types import Attempt, Cause, JobState, Retry

E, C, U = Cause.ERROR, Cause.CRASH, Cause.UNSERIALISABLE


def history(*causes, error=None):
    return [
        Attempt(number, cause, error or ValueError("no"), 1, None)
        for number, cause in enumerate(causes, start=1)
    ]


@pytest.mark.parametrize(
    ("retry", "causes", "state"),
    [
        (Retry(), [E], JobState.FAILED),
        (Retry(errors=1), [E], None),
        (Retry(errors=1), [E, E], JobState.FAILED),
        (Retry(crashes=0), [C], JobState.QUARANTINED),
        (Retry(), [C, C], None),
        (Retry(), [C, C, C], JobState.QUARANTINED),
        (Retry(errors=1), [C, C, E], None),
        (Retry(errors=1, crashes=1), [E, C], None),
        (Retry(errors=1, crashes=1), [E, C, E], JobState.FAILED),
        (Retry(errors=1, crashes=1), [C, E, C], JobState.QUARANTINED),
        (Retry(errors=9, crashes=9), [U], JobState.FAILED),
    ],
)
def test_each_cause_has_a_budget_of_its_own(retry, causes, state):
    assert final_state(retry, history(*causes)) is state


@pytest.mark.parametrize(
    ("on", "error", "state"),
    [
        (OSError, OSError(), None),
        (OSError, TimeoutError(), None),
        (OSError, ValueError(), JobState.FAILED),
        ((OSError, ValueError), ValueError(), None),
        (Exception, ValueError(), None),
    ],
)
def test_only_errors_of_the_named_types_are_worth_another_attempt(on, error, state):
    assert final_state(Retry(errors=1, on=on), history(E, error=error)) is state


def test_a_crash_counts_whatever_errors_are_worth_another_attempt():
    assert final_state(Retry(on=OSError), history(C)) is None


def test_without_a_backoff_there_is_no_wait():
    assert delay(Retry(), history(C)) == 0


def test_the_backoff_is_told_how_many_attempts_ended_badly_whatever_the_cause():
    assert delay(Retry(backoff=float), history(C, E, C)) == 3


def test_the_exponential_backoff_ends_at_its_limit_for_good():
    backoff = exponential(base=1.0, factor=10.0, limit=50.0)
    assert [backoff(n) for n in (1, 2, 3, 400)] == [1.0, 10.0, 50.0, 50.0]
