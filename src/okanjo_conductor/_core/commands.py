"""What the shell is to do, in order. Their results come back as events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._types import (
        Attempt,
        Key,
        Ordinal,
        Slot,
        StatsReport,
        WorkerExit,
        WorkerId,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJobs:
    """Read up to `count` jobs. Answered once, by `JobsAccepted` or `IntakeEnded`."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    """Start a process. Answered by `WorkerReady` or `WorkerExited`."""

    worker_id: WorkerId
    slot: Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOut:
    """Send jobs to a worker, as consecutive ordinals from `first`."""

    worker_id: WorkerId
    first: Ordinal
    jobs: list[Job]
    histories: dict[int, tuple[Attempt, ...]]
    """By index, the bad ends of those jobs that have any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallJobs:
    """Take back what the worker has not started. Answered by `JobsRecalled`, unless it exits."""

    worker_id: WorkerId
    last: Ordinal
    """The last ordinal it was handed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWorker:
    """Ask a worker to finish the job at hand and leave."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpStack:
    """Have a worker write down what its threads are doing. Comes back with `WorkerExited`."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptJob:
    """Raise `JobTimeoutError` in this job, if that is possible."""

    worker_id: WorkerId
    ordinal: Ordinal
    limit: float
    """The time limit in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStuck:
    """Tell listeners that a job takes long, with the worker's stack."""

    worker_id: WorkerId
    slot: Slot
    key: Key
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateWorker:
    """Send SIGTERM: it did not leave in time."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class KillWorker:
    """Send SIGKILL to its process group: it did not heed SIGTERM."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnJobs:
    """Put jobs that were never finished back to the front of the source, in this order."""

    jobs: list[Job]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceExit:
    """Tell listeners that a worker has ended."""

    end: WorkerExit


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitStats:
    """Tell listeners the counters of a report cycle."""

    report: StatsReport


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
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
    | ReportStuck
    | TerminateWorker
    | KillWorker
    | ReturnJobs
    | AnnounceExit
    | EmitStats
    | EndRun
)
