"""How a worker is ended by force, and what its death means for the job it was executing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from okanjo_conductor._core import commands as do
from okanjo_conductor._plain import Frozen, Plain
from okanjo_conductor._types import Cause
from okanjo_conductor.errors import (
    JobCancelledError,
    JobMemoryError,
    JobTimeoutError,
    SerialisationError,
    WorkerCrashError,
)

if TYPE_CHECKING:
    from okanjo_conductor._core.events import WorkerExited
    from okanjo_conductor._core.fleet import Worker
    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._core.policy import Policy
    from okanjo_conductor._types import Ordinal, Slot, WorkerId

STACK_TIME = 0.1
"""Seconds between asking a worker for its stack and doing it harm."""


class Doom(Frozen):
    """We end a worker because of this job."""

    ordinal: Ordinal
    """Of several that are suspected, the first."""
    cause: Cause
    limit: float = 0.0
    """The limit that was passed: seconds, or bytes of memory."""
    rss: int = 0
    is_sure: bool = True
    """Whether it is this job's fault, and not one of the others' that are executed beside it."""


class Plea(Frozen):
    """A worker was asked to end a job and live on."""

    doom: Doom
    """What comes of it if it does not."""
    due: float


class Watch(Plain):
    """A job that was seen executing for some time."""

    job: Job
    ordinal: Ordinal
    since: float
    limit: float | None
    """Its time limit in seconds; None: it has none."""
    expires_at: float | None
    """When that is reached; None: never, or it was."""
    stuck_at: float | None
    """When to say that it takes long; None: it was said, or never shall be."""
    blocks_at: float | None
    """When no other job shall wait behind it any more; None: that has come."""


def force(worker_id: WorkerId, when: float, grace: float) -> Iterator[tuple[float, do.Command]]:
    """Yield how to end a worker that does not leave: what to do, and when."""
    yield when, do.TerminateWorker(worker_id=worker_id)
    yield when + grace, do.KillWorker(worker_id=worker_id)


def steps_of_start(
    worker_id: WorkerId, slot: Slot, policy: Policy, now: float
) -> Iterator[tuple[float, do.Command]]:
    """Yield what to do about a worker that does not get set up, and when."""
    patience, limit = policy.stuck_after, policy.start_timeout
    if patience is not None and (limit is None or patience < limit):
        stuck = do.ReportStuck(worker_id=worker_id, slot=slot, key=None, seconds=patience)
        yield now + patience, stuck
    if limit is not None:
        yield now + limit, do.DumpStack(worker_id=worker_id)
        yield now + limit + STACK_TIME, do.KillWorker(worker_id=worker_id)


def steps_for(
    worker_id: WorkerId, doom: Doom, policy: Policy, now: float, *, was_asked: bool
) -> Iterator[tuple[float, do.Command]]:
    """Yield what to do to a doomed worker, and when.

    At a time limit the stack is taken first; with `soft_timeout` the job then has half of the
    grace to end by itself. The last step is due `timeout_grace` after the first harm. Where the
    worker was asked to end the job, half of that has passed.
    """
    grace = policy.timeout_grace / 2 if was_asked else policy.timeout_grace
    if doom.cause is Cause.MEMORY:
        yield now, do.KillWorker(worker_id=worker_id)
        return
    if doom.cause is Cause.TIMEOUT:
        yield now, do.DumpStack(worker_id=worker_id)
        now += STACK_TIME
        if policy.soft_timeout and not was_asked:
            yield now, do.InterruptJob(worker_id=worker_id, ordinal=doom.ordinal, limit=doom.limit)
            grace /= 2
            now += grace
    yield from force(worker_id, now, grace)


def cause_of(error: Exception) -> Cause:
    """Return why an attempt ended badly of which its worker has told this error."""
    if isinstance(error, SerialisationError):
        return Cause.UNSERIALISABLE
    if isinstance(error, JobCancelledError):
        return Cause.PREEMPTED
    return Cause.TIMEOUT if isinstance(error, JobTimeoutError) else Cause.ERROR


def error_of(worker: Worker, job: Job, event: WorkerExited, cause: Cause) -> Exception:
    """Make the error of a job that a dead worker was executing."""
    doom = worker.doom
    if cause is Cause.PREEMPTED:
        return JobCancelledError("its worker was ended while it executed this job")
    if cause is Cause.TIMEOUT:
        limit = job.timeout if doom is None or job.timeout is not None else doom.limit
        return JobTimeoutError(limit or 0.0, event.stack)
    if cause is Cause.MEMORY:
        held, limit = (doom.rss, int(doom.limit)) if doom is not None else (None, None)
        return JobMemoryError(held, limit, event.stderr)
    return WorkerCrashError(
        worker.id, event.code, event.signal, event.detail, event.stderr, event.stack
    )
