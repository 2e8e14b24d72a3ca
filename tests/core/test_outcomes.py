"""Records as outcomes, and the causes of errors."""

from __future__ import annotations

import pytest

from okanjo_conductor._core.endings import cause_of
from okanjo_conductor._core.jobs import Job, Jobs
from okanjo_conductor._core.outcomes import all_outcomes_of, outcomes_of, size_of
from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._types import Attempt, Cause, JobState
from okanjo_conductor.errors import JobCancelledError, JobTimeoutError, SerialisationError

BAD_END = Attempt(1, Cause.ERROR, ValueError("no"), 7, 0.5)


def done(histories=None):
    jobs = Jobs([4, 5], ["a", "b"], ["payload a", "payload b"], [1, 2])
    return JobsDone(
        worker_id=7,
        slot=2,
        jobs=jobs,
        values=["A", "B"],
        nanoseconds=[1_000_000_000, 2_000_000_000],
        histories=histories or {},
    )


@pytest.mark.parametrize("histories", [{}, {5: (BAD_END,)}])
def test_done_jobs_are_outcomes_in_their_order(histories):
    record = done(histories)
    found = list(outcomes_of(record))
    assert size_of(record) == len(found) == 2
    assert [outcome.key for outcome in found] == ["a", "b"]
    assert [outcome.job for outcome in found] == ["payload a", "payload b"]
    assert [outcome.value for outcome in found] == ["A", "B"]
    assert [outcome.seconds for outcome in found] == [1.0, 2.0]
    assert [outcome.attempts for outcome in found] == [1, 1 + len(histories)]
    assert [outcome.history for outcome in found] == [(), histories.get(5, ())]
    assert {(o.state, o.error, o.cause, o.worker_id, o.slot) for o in found} == {
        (JobState.DONE, None, None, 7, 2)
    }


def test_of_many_records_attempts_that_go_on_are_no_outcomes():
    retried = JobRetried(job=Job(4, "a", None, None), attempt=BAD_END, ordinal=None)
    found = all_outcomes_of([retried, done(), retried, done()])
    assert [outcome.key for outcome in found] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("history", [(), (BAD_END,)])
def test_a_failed_job_is_one_outcome(history):
    record = JobFailed(
        worker_id=7,
        slot=2,
        job=Job(4, "a", "payload", 1),
        state=JobState.FAILED,
        cause=Cause.ERROR,
        error=BAD_END.error,
        place="",
        history=history,
    )
    (outcome,) = outcomes_of(record)
    assert size_of(record) == 1
    assert (outcome.key, outcome.job, outcome.value) == ("a", "payload", None)
    assert (outcome.state, outcome.cause, outcome.error) == ("failed", "error", BAD_END.error)
    assert (outcome.attempts, outcome.history) == (len(history), history)
    assert outcome.seconds == (0.5 if history else None)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError(), Cause.ERROR),
        (SerialisationError("x"), Cause.UNSERIALISABLE),
        (JobCancelledError("x"), Cause.PREEMPTED),
        (JobTimeoutError(1.0), Cause.TIMEOUT),
    ],
)
def test_the_cause_of_a_bad_end_is_told_by_its_error(error, cause):
    assert cause_of(error) is cause
