"""What became of jobs, as facts: delivered to the user before the commands of the same step.

Done jobs come in columns, because they are the million; the others come one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from okanjo_conductor._plain import Named

if TYPE_CHECKING:
    from okanjo_conductor._core.jobs import Job, Jobs
    from okanjo_conductor._types import Attempt, Cause, JobId, JobState, Ordinal, Slot, WorkerId


class JobsDone(Named):
    """Final: these jobs have values. Columns of equal length."""

    worker_id: WorkerId
    slot: Slot
    jobs: Jobs
    values: list[Any]
    nanoseconds: list[int]
    histories: dict[JobId, tuple[Attempt, ...]]
    """Earlier attempts of those that had any."""


class JobFailed(Named):
    """Final: this job has no value."""

    worker_id: WorkerId | None
    slot: Slot | None
    job: Job
    state: JobState
    cause: Cause
    error: Exception
    place: str
    history: tuple[Attempt, ...]
    """Every attempt; the last one is what `cause` is about, unless the job was cancelled while it
    waited."""


class JobRetried(Named):
    """Not final: an attempt ended badly and there will be another."""

    job: Job
    attempt: Attempt
    ordinal: Ordinal | None
    """Under which its worker reported the end; None: the worker did not live to."""


Record: TypeAlias = JobsDone | JobFailed | JobRetried
