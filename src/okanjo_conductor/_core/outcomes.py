"""Records as outcomes: what users see of them."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from okanjo_conductor._core.records import JobFailed, JobRetried, JobsDone
from okanjo_conductor._types import JobState, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from okanjo_conductor._core.records import Record


def outcomes_of(record: JobsDone | JobFailed) -> Iterator[Outcome]:
    """Make the outcomes of a record."""
    if isinstance(record, JobFailed):
        last = record.history[-1] if record.history else None
        yield Outcome(
            key=record.job.key,
            job=record.job.payload,
            state=record.state,
            value=None,
            error=record.error,
            cause=record.cause,
            attempts=len(record.history),
            history=record.history,
            worker_id=record.worker_id,
            slot=record.slot,
            seconds=last.seconds if last else None,
        )
        return
    if record.histories:
        yield from _outcomes_with_a_past(record)
        return
    jobs = record.jobs
    seconds = [nanoseconds / 1e9 for nanoseconds in record.nanoseconds]
    fixed = (None, None, 1, (), record.worker_id, record.slot)
    columns = (jobs.keys, jobs.payloads, repeat(JobState.DONE), record.values)
    yield from map(Outcome._make, zip(*columns, *map(repeat, fixed), seconds, strict=False))


def _outcomes_with_a_past(record: JobsDone) -> Iterator[Outcome]:
    jobs = record.jobs
    columns = (jobs.ids, jobs.keys, jobs.payloads, record.values, record.nanoseconds)
    for job_id, key, payload, value, nanoseconds in zip(*columns, strict=True):
        history = record.histories.get(job_id, ())
        yield Outcome(
            key=key,
            job=payload,
            state=JobState.DONE,
            value=value,
            error=None,
            cause=None,
            attempts=len(history) + 1,
            history=history,
            worker_id=record.worker_id,
            slot=record.slot,
            seconds=nanoseconds / 1e9,
        )


def all_outcomes_of(records: Iterable[Record]) -> list[Outcome]:
    """Make the outcomes of all these records, in order; attempts that go on have none."""
    final = (record for record in records if not isinstance(record, JobRetried))
    return [outcome for record in final for outcome in outcomes_of(record)]


def size_of(record: JobsDone | JobFailed) -> int:
    """Count the outcomes of a record."""
    return len(record.jobs) if isinstance(record, JobsDone) else 1
