"""What happened outside: the only input of the core besides the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._types import Cause, JobId, Ordinal, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The run may begin. The first event, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsAccepted:
    """Jobs were read from the source; together they answer one `ReadJobs`.

    Also legal unasked, for jobs that were added by hand.
    """

    jobs: list[Job]
    is_answer: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused:
    """A job cannot travel: its payload does not pickle. It is accepted and failed at once."""

    job: Job
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeEnded:
    """The source has nothing more for now; answers one `ReadJobs`."""

    is_final: bool = False
    """The source broke: never read it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeReopened:
    """The source may have jobs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPaused:
    """Outcomes pile up: the consumer is behind. No job is read until it has caught up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResumed:
    """The consumer has caught up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """A worker is set up and waits for jobs."""

    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsDone:
    """A worker has executed jobs and they have values. Three columns of equal length."""

    worker_id: WorkerId
    ordinals: list[Ordinal]
    values: list[Any]
    nanoseconds: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """A worker has executed a job, lives on, and the job has no value."""

    worker_id: WorkerId
    ordinal: Ordinal
    cause: Cause
    error: Exception
    place: str
    nanoseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsDeclined:
    """A worker skipped these ordinals because they had been recalled."""

    worker_id: WorkerId
    first: Ordinal
    last: Ordinal


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsRecalled:
    """Answers `RecallJobs`: what was handed out beyond this ordinal will not be executed."""

    worker_id: WorkerId
    beyond: Ordinal


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExited:
    """A worker's process is gone and everything it had said has been handled."""

    worker_id: WorkerId
    code: int | None
    signal: str | None
    claimed: Ordinal | None
    """The last ordinal it had started, or None if it had started none."""
    detail: str = ""
    stderr: str = ""
    """The last lines of its standard error."""
    stack: str = ""
    """What it wrote about its threads, at a fatal signal or when it was asked to."""
    is_oom: bool = False
    """The kernel has ended a process for want of memory, and this one by SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """A worker was seen executing this ordinal for some time."""

    worker_id: WorkerId
    ordinal: Ordinal
    since: float
    """When it was seen first, at or after its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMeasured:
    """How much memory a worker holds."""

    worker_id: WorkerId
    rss: int
    """Bytes."""
    claimed: Ordinal | None
    """The last ordinal it had started when that was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsReported:
    """A worker reported its counters."""

    worker_id: WorkerId
    totals: dict[str, Any]
    time_span: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """This job is not wanted any more. Ignored if it has its outcome."""

    job_id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRequested:
    """There may be so many workers from now on."""

    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequested:
    """Finish what is being executed, start nothing more, give back the rest."""

    seconds: float | None = None
    """After them, what is still being executed is ended as by an abort; None: never."""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortRequested:
    """Stop now: hand out nothing, give back what was not started."""

    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """Nothing happened but that `next_deadline()` has come."""


Event: TypeAlias = (
    RunStarted
    | JobsAccepted
    | JobRefused
    | IntakeEnded
    | IntakeReopened
    | DeliveryPaused
    | DeliveryResumed
    | WorkerReady
    | AttemptsDone
    | AttemptFailed
    | JobsDeclined
    | JobsRecalled
    | WorkerExited
    | JobSeen
    | MemoryMeasured
    | StatsReported
    | CancelRequested
    | ResizeRequested
    | DrainRequested
    | AbortRequested
    | TimePassed
)
