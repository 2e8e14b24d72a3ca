"""What happened outside: the only input of the core besides the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from okanjo_conductor._plain import Named, fresh
from okanjo_conductor._types import Cause, JobState

if TYPE_CHECKING:
    from okanjo_conductor._core.jobs import Job, Jobs
    from okanjo_conductor._types import Attempt, JobId, Ordinal, WorkerId


class RunStarted(Named):
    """The run may begin. The first event, once."""


class JobsAccepted(Named):
    """Jobs were read from the source; together they answer one `ReadJobs`.

    Also legal unasked, for jobs that were added by hand.
    """

    jobs: Jobs
    is_answer: bool = True
    histories: dict[JobId, tuple[Attempt, ...]] = fresh(factory=dict)
    """Bad ends of attempts in earlier runs, of those jobs that had any."""
    loners: frozenset[JobId] = frozenset()
    """Those that are to be executed while nothing else is, in the whole run."""


class JobRefused(Named):
    """A job will not be executed: it is accepted and failed at once. Mostly it cannot travel."""

    job: Job
    error: Exception
    state: JobState = JobState.FAILED
    cause: Cause = Cause.UNSERIALISABLE


class IntakeEnded(Named):
    """The source has nothing more for now; answers one `ReadJobs`."""

    is_final: bool = False
    """The source broke: never read it again."""


class IntakeReopened(Named):
    """The source may have jobs again."""


class DeliveryPaused(Named):
    """Outcomes pile up: the consumer is behind. No job is read until it has caught up."""


class DeliveryResumed(Named):
    """The consumer has caught up."""


class WorkerReady(Named):
    """A worker is set up and waits for jobs."""

    worker_id: WorkerId
    concurrency: int = 1
    """How many jobs it executes at a time."""
    can_cancel: bool = False
    """Whether it can end a job and live on, as long as it answers."""
    round_trip: float = 0.0
    """Seconds that pass between an outcome of its and the jobs that answer it: it has to hold work
    for as long. 0 on this machine."""


class AttemptsDone(Named):
    """A worker has executed jobs and they have values. Three columns of equal length."""

    worker_id: WorkerId
    ordinals: list[Ordinal]
    values: list[Any]
    nanoseconds: list[int]


class AttemptFailed(Named):
    """A worker has executed a job, lives on, and the job has no value."""

    worker_id: WorkerId
    ordinal: Ordinal
    cause: Cause
    error: Exception
    place: str
    nanoseconds: int


class JobsDeclined(Named):
    """A worker skipped these ordinals because they had been recalled."""

    worker_id: WorkerId
    first: Ordinal
    last: Ordinal


class JobsRecalled(Named):
    """Answers `RecallJobs`: what was handed out beyond this ordinal will not be executed."""

    worker_id: WorkerId
    beyond: Ordinal


class WorkerExited(Named):
    """A worker's process is gone and everything it had said has been handled."""

    worker_id: WorkerId
    code: int | None
    signal: str | None
    claimed: Ordinal | None
    """The last ordinal it had started, or None if it had started none. Of those it has skipped
    before, everybody knows."""
    running: Ordinal | None = None
    """Whose code it was in when it died, where it executes several at a time and knows it."""
    detail: str = ""
    stderr: str = ""
    """The last lines of its standard error."""
    stack: str = ""
    """What it wrote about its threads, at a fatal signal or when it was asked to."""
    is_oom: bool = False
    """The kernel has ended a process for want of memory, and this one by SIGKILL."""


class JobsSeen(Named):
    """A worker was seen executing these ordinals for some time, those excepted that have ended."""

    worker_id: WorkerId
    first: Ordinal
    last: Ordinal
    since: float
    """When they were seen first, at or after their start."""


class MemoryMeasured(Named):
    """How much memory a worker holds."""

    worker_id: WorkerId
    rss: int
    """Bytes."""
    claimed: Ordinal | None
    """The last ordinal it had started when that was measured."""


class StatsReported(Named):
    """A worker reported its counters."""

    worker_id: WorkerId
    totals: dict[str, Any]
    time_span: float


class CancelRequested(Named):
    """This job is not wanted any more. Ignored if it has its outcome."""

    job_id: JobId


class LimitSet(Named):
    """Jobs without a time limit of their own have this one from now on, executing ones too."""

    seconds: float


class ResizeRequested(Named):
    """There may be so many workers from now on."""

    slots: int


class DrainRequested(Named):
    """Finish what is being executed, start nothing more, give back the rest."""

    seconds: float | None = None
    """After them, what is still being executed is ended as by an abort; None: never."""
    why: str = ""


class AbortRequested(Named):
    """Stop now: hand out nothing, give back what was not started."""

    why: str = ""


class TimePassed(Named):
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
    | JobsSeen
    | MemoryMeasured
    | StatsReported
    | CancelRequested
    | LimitSet
    | ResizeRequested
    | DrainRequested
    | AbortRequested
    | TimePassed
)
