"""The values users see: what a job came to, how a run went, what is sent between processes.

Plain data, without behaviour that needs a process or a clock. Seconds are ``float``, sizes are
bytes as ``int``.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import StrEnum

from okanjo_conductor._plain import Frozen, Plain, Row, fresh
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    JobsFailedError,
    describe_exit,
)

TYPE_CHECKING = False  # see _plain
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any, Final, NewType

__all__ = [
    "LATER",
    "Attempt",
    "Cause",
    "FailureGroup",
    "JobInfo",
    "JobState",
    "Key",
    "Later",
    "LookupStats",
    "Message",
    "Outcome",
    "RecentFailure",
    "Recycle",
    "Report",
    "Retry",
    "StatsAggregate",
    "StatsReport",
    "TimeSplit",
    "WorkerExit",
    "WorkerStats",
    "WorkerStuck",
]

Key = Hashable
"""What identifies a job to its user: the job's number by default, or what ``job_key`` gave."""

if TYPE_CHECKING:
    JobId = NewType("JobId", int)
    """The number of a job in the order of acceptance, from 0."""
    WorkerId = NewType("WorkerId", int)
    """The number of a worker in the order of starts, from 1; never reused in a conductor."""
    Slot = NewType("Slot", int)
    """A stable place for one worker at a time, from 0."""
    Ordinal = NewType("Ordinal", int)
    """The number of a hand-out to one worker, from 1; never reused within a worker."""
else:
    JobId = WorkerId = Slot = Ordinal = int


class JobState(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    """Given up because it keeps killing its workers."""
    CANCELLED = "cancelled"
    """Somebody asked for it: it was cancelled, or executing when the run was aborted."""


class Cause(StrEnum):
    """Why an attempt ended badly."""

    ERROR = "error"
    CRASH = "crash"
    """The worker's process died: an exit, a signal, a segmentation fault."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    """The kernel ended the worker for want of memory, or we did at `max_rss`."""
    UNSERIALISABLE = "unserialisable"
    PREEMPTED = "preempted"
    """We ended the worker ourselves. Charged to nobody."""
    SUSPECT = "suspect"
    """The worker's process died while it executed this job and others. Charged to nobody: each of
    them is executed alone next time, and whoever kills its worker then is charged."""


class Later:
    """The type of `LATER`."""

    def __repr__(self) -> str:
        return "LATER"

    def __reduce__(self) -> str:
        return "LATER"


LATER: Final = Later()
"""What ``process_job`` returns when ``complete_job`` will be called after it has returned."""


OUTPUTS: list[Callable[[JobInfo, str], str | None]] = []
"""Finds the path to write to for `JobInfo.output`; put here by the runtime of workers."""


class JobInfo(Frozen):
    """What a worker knows about the job it is executing, besides its payload."""

    key: Key
    attempt: int
    """Number of this attempt, from 1."""
    history: tuple[Attempt, ...] = ()
    """The attempts that ended badly, oldest first; their errors are told, not rebuilt
    (`RemoteError`)."""

    def output(self, name: str | os.PathLike[str]) -> str:
        """Return the path to write a file to that is to have this name when the job is done.

        It is a hidden file in the same folder, with the same extension. When ``process_job`` has
        returned, it is renamed, before anybody learns that the job is done; when it has raised, it
        is removed. So a file of that name is whole, and of an attempt that counts. The folder is
        made if it is not there.

        A job that returns without having made the file has failed, with `FileNotFoundError`.

        Raises:
            ConductorStateError: this job is not being executed, or not in this process.
        """
        path = OUTPUTS[0](self, str(name)) if OUTPUTS else None
        if path is None:
            message = f"output() is for the job at hand, and job {self.key!r} is not executed here"
            raise ConductorStateError(message)
        return path


class Attempt(Frozen):
    """One execution of a job that ended badly."""

    number: int
    cause: Cause
    error: Exception
    worker_id: int
    seconds: float | None
    """How long it ran, or None where its worker did not live to tell."""


class Outcome(Row):
    """How a job finally ended. Every accepted job has exactly one."""

    key: Key
    job: Any
    """The payload, as it was given to the conductor."""
    state: JobState
    value: Any
    """What ``process_job`` returned, or None if the job was not done."""
    error: Exception | None
    """Why it was not done; its ``__cause__`` shows the worker's traceback where there is one."""
    cause: Cause | None
    attempts: int
    """How many times it was executed, the last one included."""
    history: tuple[Attempt, ...]
    """The attempts that ended badly, oldest first."""
    worker_id: int | None
    """The worker of the last attempt, or None if no worker ever had the job."""
    slot: int | None
    seconds: float | None
    """Duration of the last attempt, or None where its worker did not live to tell."""

    @property
    def is_done(self) -> bool:
        """Whether there is a value."""
        return self.state is JobState.DONE

    @property
    def stack(self) -> str:
        """What the worker was doing when it was ended or crashed, as text, or ``""``."""
        return getattr(self.error, "stack", "")

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Message(Frozen):
    """A custom command between a worker and its conductor.

    The fields are those of the Node module's message object, in snake case.
    """

    cmd: str
    data: Any = None
    callback: str | None = None
    """Id to hand back with the reply, or None where no reply is expected."""
    worker_id: int = 0
    master_id: str = ""


class Retry(Frozen):
    """How often a job may be executed again, by the cause that ended the last attempt.

    Only the job that was being executed is charged; a job that merely waited in a dead worker
    goes back to the queue as if nothing had happened. An attempt that we ended ourselves, for
    another reason than the job's, is charged to nobody. When an async worker dies with several jobs
    in flight, none is charged: each is executed alone next time, and who kills its worker then is.
    """

    errors: int = 0
    """Further attempts after an exception of a type in `on`."""
    crashes: int = 2
    """Further attempts after the worker died under the job. When they are spent, the job is
    quarantined. Three deaths in all is also what Dask allows a task
    (``distributed.scheduler.allowed-failures``)."""
    timeouts: int = 0
    """Further attempts after one that took longer than `job_timeout`."""
    memory: int = 1
    """Further attempts after one that ended for want of memory: beside other jobs it may fit."""
    on: type[Exception] | tuple[type[Exception], ...] = Exception
    """Exceptions worth another attempt."""
    backoff: Callable[[int], float] | None = None
    """Seconds to wait after the nth bad end of a job before it may run again; see
    `exponential`. The wait blocks no slot. None: no wait."""

    def __post_init__(self) -> None:
        for name in ("errors", "crashes", "timeouts", "memory"):
            budget = getattr(self, name)
            if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
                message = f"Retry({name}={budget!r}): a budget is a whole number from 0"
                raise ConfigurationError(message)


def check_concurrency(concurrency: Any) -> None:
    """Refuse what is no number of jobs at a time."""
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        message = f"concurrency={concurrency!r}: a whole number of jobs, from 1"
        raise ConfigurationError(message)


class Recycle(Frozen):
    """When a worker makes room for a fresh one, between two jobs. None: never for that.

    The replacement is set up before the old worker leaves, so for a moment there are two in the
    slot. Nothing is charged to any job.
    """

    jobs: int | None = None
    """After so many jobs; none is executed beyond them."""
    rss: int | None = None
    """When it holds so many bytes of memory."""
    seconds: float | None = None
    """At that age, counted from the end of its ``setup``."""

    def __post_init__(self) -> None:
        for name in ("jobs", "rss", "seconds"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                message = f"Recycle({name}={limit!r}): more than 0, or None for no limit"
                raise ConfigurationError(message)


class WorkerExit(Frozen):
    """The payload of the ``worker_exit`` and ``error`` events."""

    type: str
    """``"worker_exit"``, or ``"worker_crash"`` for the ``error`` event."""
    worker_id: int
    slot: int
    code: int | None
    """Exit code; None when a signal ended it."""
    signal: str | None
    """Name of the signal that ended it, such as ``"SIGKILL"``."""
    cause: Cause | None
    """None for a worker that ended because its work was done."""
    key: Key | None
    """The job it was executing, if it was one."""
    detail: str = ""
    """Its last words: the error given to ``crash()``, or the traceback of a failed start."""
    stderr: str = ""
    """The last lines it wrote to its standard error."""
    stack: str = ""
    """What its threads were doing: at a segmentation fault, or when we were about to end it."""
    keys: tuple[Key, ...] = ()
    """All jobs it was executing, oldest first."""

    @property
    def id(self) -> int:
        """The worker's id, under the name that the Node module uses."""
        return self.worker_id

    def __str__(self) -> str:
        how = describe_exit(self.code, self.signal)
        job = "" if self.key is None else f" while it executed job {self.key!r}"
        if len(self.keys) > 1:
            job = f" while it executed {len(self.keys)} jobs, {self.keys[0]!r} the first of them"
        said = "".join(f":\n{text.rstrip()}" for text in (self.detail, self.stack) if text)
        return f"worker {self.worker_id} in slot {self.slot} {how}{job}{said}"

    def as_crash(self) -> WorkerExit:
        """Return the payload of the ``error`` event for this exit."""
        return self._replace(type="worker_crash")


class JobProgress(Frozen):
    """The payload of the ``job_progress`` event: what a job said with `progress`."""

    worker_id: int
    key: Key
    fraction: float
    """From 0 to 1."""
    text: str


class WorkerStuck(Frozen):
    """The payload of ``worker_stuck``: a job, or a start, takes longer than `stuck_after`."""

    worker_id: int
    slot: int
    key: Key | None
    """Of the job; None: the worker is not set up yet."""
    seconds: float
    """How long the job has been executing, or the worker been starting."""
    stack: str
    """What the worker's threads are doing, or ``""`` if it does not say."""

    def __str__(self) -> str:
        stack = f":\n{self.stack.rstrip()}" if self.stack else "; its stack could not be taken"
        what = "starting" if self.key is None else f"executing job {self.key!r}"
        return (
            f"worker {self.worker_id} in slot {self.slot} has been {what} for "
            f"{self.seconds:.1f} s{stack}"
        )


class WorkerStats(Frozen):
    """What one worker reported."""

    stats: dict[str, Any]
    """Its counters, since its start."""
    diff: dict[str, Any]
    """Their change since its previous report."""
    time_span: float
    """Seconds since its previous report, or since its start."""


class StatsAggregate(Frozen):
    """Counters of all workers of a conductor, the dead included."""

    last: dict[str, Any]
    """Sum of every worker's latest counters."""
    diff: dict[str, Any]
    """Change of that sum since the previous report; over a run they add up to `last`."""


class StatsReport(Frozen):
    """The payload of the ``stats`` event."""

    raw: dict[int, WorkerStats]
    """Per worker id: those that reported in this cycle."""
    agg: StatsAggregate
    avg_time_span: float
    """Mean seconds that the reports of this cycle cover."""


class FailureGroup(Frozen):
    """Failures of one run that look alike: same state, type of error and place."""

    state: JobState
    cause: Cause | None
    error: str
    """Qualified type name and message of the first of them."""
    place: str
    """Innermost frame of the worker's traceback, ``file:line in function``, or ``""``."""
    count: int
    keys: tuple[Key, ...]
    """The first few keys."""
    traceback: str = ""
    """That of the first of them, as the worker formatted it; ``""`` where there is none. The middle
    of a long one is left out."""


class RecentFailure(Frozen):
    """A job that has ended without a value, as a `Snapshot` tells of it."""

    key: Key
    state: JobState
    cause: Cause
    error: str
    """Qualified type name and message, cut where that is long."""


class TimeSplit(Frozen):
    """What the workers of a run did with their time. Seconds, added up over all of them."""

    workers: float = 0.0
    """From the order to start each of them to its exit. The other fields are parts of it."""
    start: float = 0.0
    """Until they were set up: interpreter, imports, ``setup``."""
    work: float = 0.0
    """In jobs, by the workers' own clocks. An async worker's jobs overlap, and are added up."""
    lost: float = 0.0
    """In jobs that ended with their worker, to about 0.05 s each."""
    wait: float | None = 0.0
    """The rest: no job was there, or they were leaving. None with async workers: it cannot be told
    from the sums."""


class LookupStats(Frozen):
    """How a lookup was used by the workers of a run."""

    hits: int = 0
    """Entries read without asking the conductor: kept by the worker, or in shared memory."""
    misses: int = 0
    """Entries that the conductor was asked for."""
    round_trips: int = 0
    """Questions to the conductor that were answered, changes included."""
    seconds: float = 0.0
    """Time that jobs spent waiting for these answers."""


class Report(Plain):
    """How a run went."""

    counts: dict[JobState, int] = fresh(factory=dict)
    """Jobs by final state. Their sum is the number of jobs that were accepted."""
    skipped: int = 0
    """Jobs that were not executed because the journal has their outcome, or because they were
    given twice. They are in no other count."""
    recovered: int = 0
    """Outcomes of an earlier run that had not reached the journal when its conductor died."""
    causes: dict[Cause, int] = fresh(factory=dict)
    """Jobs without a value, by what their last attempt ended with."""
    unstarted: int = 0
    """Jobs left in ``jobs_queue`` by a run that was stopped, as far as they are known without
    reading on."""
    stopped: str = ""
    """Why the run ended before its jobs did, or ``""``."""
    seconds: float = 0.0
    retries: int = 0
    """Attempts that ended badly and were followed by another one."""
    retried: dict[Cause, int] = fresh(factory=dict)
    """These by cause."""
    time: TimeSplit = fresh(factory=TimeSplit)
    """What the workers did with their time."""
    failures: list[FailureGroup] = fresh(factory=list)
    """Most frequent first. At most `MAX_FAILURE_GROUPS`; the rest is in `failures_not_shown`."""
    failures_not_shown: int = 0
    slowest: list[tuple[float, Key]] = fresh(factory=list)
    """Seconds and key of the slowest done jobs, slowest first."""
    biggest_payloads: list[tuple[int, Key]] = fresh(factory=list)
    """Bytes and key of the jobs with the biggest payloads, as they travelled. Plain numbers and
    texts are not weighed, nor is what takes less than a KiB."""
    biggest_values: list[tuple[int, Key]] = fresh(factory=list)
    """The same of the values of done jobs."""
    workers_started: int = 0
    worker_exits: list[WorkerExit] = fresh(factory=list)
    """Workers that ended before their work was done, oldest first; the first
    `MAX_WORKER_EXITS` of them."""
    workers_lost: int = 0
    """How many ended before their work was done, those not listed included."""
    lost_causes: dict[Cause, int] = fresh(factory=dict)
    """These by cause."""
    last_stats: dict[str, Any] = fresh(factory=dict)
    """Final sum of the workers' counters."""
    lookups: dict[str, LookupStats] = fresh(factory=dict)
    """By name, those that workers have used."""

    @property
    def jobs(self) -> int:
        """Jobs with an outcome."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Jobs with a value."""
        return self.counts.get(JobState.DONE, 0)

    @property
    def failed(self) -> int:
        """Jobs without one, whatever the state."""
        return self.jobs - self.done

    @property
    def jobs_per_second(self) -> float:
        """Outcomes over wall time."""
        return self.jobs / self.seconds if self.seconds else 0.0

    def raise_for_failures(self) -> None:
        """Raise `JobsFailedError` unless every job was done and none was given back."""
        if self.failed or self.unstarted:
            raise JobsFailedError(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data: dicts, lists, texts, numbers and None.

        The names are those of ``docs/report.md``, and stay. Keys of jobs that are no numbers, texts
        or tuples of such become the text that ``repr`` gives.
        """
        from okanjo_conductor import _reporting  # workers need no reports

        return _reporting.as_dict(self)

    def as_json(self, *, indent: int | None = None) -> str:
        """Return `as_dict` as JSON."""
        from okanjo_conductor import _reporting

        return _reporting.as_json(self, indent)

    def __str__(self) -> str:
        from okanjo_conductor import _reporting

        return "\n".join(_reporting.lines(self))


LOOKUP_COUNTERS = "lookups."
"""What the names of counters of lookups begin with; name and counter follow, a dot between."""
MAX_FAILURE_GROUPS = 50
MAX_WORKER_EXITS = 100
