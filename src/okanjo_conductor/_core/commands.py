"""What the shell is to do, in order. Their results come back as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from okanjo_conductor._plain import Named

if TYPE_CHECKING:
    from okanjo_conductor._core.jobs import Job, Jobs
    from okanjo_conductor._types import (
        Attempt,
        Key,
        Ordinal,
        Slot,
        StatsReport,
        WorkerExit,
        WorkerId,
    )


class ReadJobs(Named):
    """Read up to `count` jobs. Answered once, by `JobsAccepted` or `IntakeEnded`."""

    count: int


class StartWorker(Named):
    """Start a process. Answered by `WorkerReady` or `WorkerExited`."""

    worker_id: WorkerId
    slot: Slot


class HandOut(Named):
    """Send jobs to a worker, as consecutive ordinals from `first`."""

    worker_id: WorkerId
    first: Ordinal
    jobs: Jobs
    histories: dict[int, tuple[Attempt, ...]]
    """By index, the bad ends of those jobs that have any."""


class RecallJobs(Named):
    """Take back what the worker has not started. Answered by `JobsRecalled`, unless it exits."""

    worker_id: WorkerId
    last: Ordinal
    """The last ordinal it was handed."""


class StopWorker(Named):
    """Ask a worker to finish the job at hand and leave."""

    worker_id: WorkerId


class DumpStack(Named):
    """Have a worker write down what its threads are doing. Comes back with `WorkerExited`."""

    worker_id: WorkerId


class InterruptJob(Named):
    """Raise `JobTimeoutError` in this job, if that is possible."""

    worker_id: WorkerId
    ordinal: Ordinal
    limit: float
    """The time limit in seconds."""


class CancelJob(Named):
    """Ask a worker that can do so to end this job and live on."""

    worker_id: WorkerId
    ordinal: Ordinal
    limit: float | None
    """The time limit in seconds that the job has passed; None: it is not wanted any more."""


class ReportStuck(Named):
    """Tell listeners that a job takes long, or a start, with the worker's stack."""

    worker_id: WorkerId
    slot: Slot
    key: Key | None
    """Of the job; None: it is the start."""
    seconds: float


class TerminateWorker(Named):
    """Send SIGTERM: it did not leave in time."""

    worker_id: WorkerId


class KillWorker(Named):
    """Send SIGKILL to its process group: it did not heed SIGTERM."""

    worker_id: WorkerId


class ReturnJobs(Named):
    """Put jobs that were never finished back to the front of the source, in this order."""

    jobs: list[Job]


class AnnounceExit(Named):
    """Tell listeners that a worker has ended."""

    end: WorkerExit


class EmitStats(Named):
    """Tell listeners the counters of a report cycle."""

    report: StatsReport


class EndRun(Named):
    """All is over and no worker is left. The last command."""

    error: Exception | None
    stopped: str = ""
    """Why the run ended before its jobs did, or ``""``."""
    is_over_budget: bool = False
    """It was stopped because too many jobs had failed."""


Command: TypeAlias = (
    ReadJobs
    | StartWorker
    | HandOut
    | RecallJobs
    | StopWorker
    | DumpStack
    | InterruptJob
    | CancelJob
    | ReportStuck
    | TerminateWorker
    | KillWorker
    | ReturnJobs
    | AnnounceExit
    | EmitStats
    | EndRun
)
