"""Everything that can go wrong, by whose fault it is.

    ConductorError
    ├── ConfigurationError (ValueError)     caller: an option makes no sense
    ├── ConductorStateError (RuntimeError)  caller: not now, or not here
    ├── UnknownLookupError (KeyError)       caller: no lookup of that name
    ├── ReadOnlyLookupError (TypeError)     caller: that lookup cannot be changed
    ├── TableError                          a lookup table cannot be built, opened, read or written
    │   └── TableKeyError (TypeError)       caller: no key of a lookup table
    ├── JournalError                        the journal cannot be opened, read or written to
    │   ├── JournalLockedError              another conductor is using it
    │   ├── JournalChangedError             caller: the worker is not the one it was begun with
    │   ├── JournalDamagedError             its file is no journal, or not a whole one any more
    │   ├── JournalFullError                there is no room for it
    │   ├── JobKeyError (TypeError)         caller: no key that can be noted
    │   └── UnknownJobError (KeyError)      caller: it holds no job of that key
    ├── SinkError                           a sink could not be opened, or not take outcomes
    ├── WorkerGoneError                     caller: the worker addressed has ended
    ├── IntakeError                         the caller's job generator raised
    ├── SourceError (ValueError)            a file of jobs cannot be read: which, and where in it
    ├── DuplicateKeyError (ValueError)      caller: two jobs of a run with a journal have one key
    ├── WorkerStartError                    the worker's import, construction or setup failed
    │   └── PlacementError                  a cluster of nodes cannot be reached, or has no room
    ├── RequestError                        the other side could not answer a request
    │   └── UnknownCommandError             nobody handles that command
    ├── JobError                            one job ended badly; the run goes on
    │   ├── WorkerCrashError                the worker died while it executed the job
    │   ├── MachineCrashError               the machine went down whenever it was executed
    │   ├── JobTimeoutError                 it took longer than its time limit
    │   ├── JobMemoryError                  it took more memory than there was, or than it may
    │   ├── SerialisationError              payload, key or value could not travel
    │   ├── CommandError                    a command ended badly (conductor exec)
    │   ├── JobCancelledError               it was cancelled, or executing at an abort
    │   └── RemoteError                     stands in for an exception that cannot be rebuilt here
    ├── JobsFailedError                     what Report.raise_for_failures() raises
    │   └── TooManyFailuresError            the run was stopped: max_failures were reached
    └── InternalError                       ours: please report it
        ├── IllegalEventError               the shell told the core something impossible
        └── ProtocolError                   a peer sent bytes that make no sense

The facts stand in the message and as attributes too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from okanjo_conductor._types import Report

__all__ = [
    "CommandError",
    "ConductorError",
    "ConductorStateError",
    "ConfigurationError",
    "DuplicateKeyError",
    "IllegalEventError",
    "IntakeError",
    "InternalError",
    "JobCancelledError",
    "JobError",
    "JobKeyError",
    "JobMemoryError",
    "JobTimeoutError",
    "JobsFailedError",
    "JournalChangedError",
    "JournalDamagedError",
    "JournalError",
    "JournalFullError",
    "JournalLockedError",
    "MachineCrashError",
    "PlacementError",
    "ProtocolError",
    "ReadOnlyLookupError",
    "RemoteError",
    "RemoteTraceback",
    "RequestError",
    "SerialisationError",
    "SinkError",
    "SourceError",
    "TableError",
    "TableKeyError",
    "TooManyFailuresError",
    "UnknownCommandError",
    "UnknownJobError",
    "UnknownLookupError",
    "WorkerCrashError",
    "WorkerGoneError",
    "WorkerStartError",
]


class ConductorError(Exception):
    """Base of every error this package raises."""


class ConfigurationError(ConductorError, ValueError):
    """An option given to a conductor or a worker makes no sense."""


class ConductorStateError(ConductorError, RuntimeError):
    """The call is right, but not now or not in this process."""


class UnknownLookupError(ConductorError, KeyError):
    """There is no lookup of that name.

    Attributes:
        name: the name that was asked for.
        known: the names that exist.
    """

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        known = ", ".join(map(repr, self.known)) or "none"
        return (
            f"no lookup is named {self.name!r}; those that exist: {known}. "
            "Lookups are made by the conductor: Conductor(lookups={name: mapping})"
        )


class ReadOnlyLookupError(ConductorError, TypeError):
    """A lookup was to be changed that cannot be.

    Attributes:
        name: the lookup.
        kind: what it is.
    """

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name, kind)
        self.name = name
        self.kind = kind

    def __str__(self) -> str:
        return (
            f"lookup {self.name!r} cannot be changed: it is of type {self.kind}. Give "
            "Conductor(lookups=…) a mapping that can be: a dict, for example"
        )


class TableError(ConductorError):
    """A lookup table cannot be built, opened, read or written to; the message says why."""


class TableKeyError(TableError, TypeError):
    """The keys of a lookup table are str, bytes, int and tuples of these, and this is none."""


class JournalError(ConductorError):
    """A journal cannot be opened, read or written to; the message says why, and what to do.

    What was committed before stays readable, and the run can be resumed.
    """


class JournalLockedError(JournalError):
    """Another conductor is using the journal.

    Attributes:
        path: the journal.
        pid: process id of the one who does, or None if it does not say.
        host: the machine it is on, or ``""``.
        since: when it began, as local time, or ``""``.
    """

    def __init__(self, path: str, pid: int | None = None, host: str = "", since: str = "") -> None:
        super().__init__(path, pid, host, since)
        self.path = path
        self.pid = pid
        self.host = host
        self.since = since

    def __str__(self) -> str:
        who = "another conductor" if self.pid is None else f"process {self.pid} on {self.host}"
        when = f", since {self.since}" if self.since else ""
        return (
            f"{self.path} is in use by {who}{when}. One conductor at a time writes to a journal: "
            "wait for it or end it, or give this run another journal"
        )


class JournalChangedError(JournalError):
    """The run in the journal was begun with another worker, other options or another version.

    Attributes:
        path: the journal.
        differences: what has changed, as text.
    """

    def __init__(self, path: str, differences: str) -> None:
        super().__init__(path, differences)
        self.path = path
        self.differences = differences

    def __str__(self) -> str:
        return (
            f"{self.path} was begun with another program, so its outcomes may be other than this "
            f"one's would be:\n{self.differences.rstrip()}\nIf they are as good, go on with "
            "accept_changed=True; if not, give this run another journal"
        )


class JournalDamagedError(JournalError):
    """The file is no journal, or a part of it is lost or overwritten. Nothing was changed in it."""


class JournalFullError(JournalError):
    """There is no room for the journal, for its values or for a sink."""


class JobKeyError(JournalError, TypeError):
    """A key, or a payload without a key, is of a type that the journal cannot note."""


class UnknownJobError(JournalError, KeyError):
    """The journal holds no job of that key.

    Attributes:
        key: the key asked for.
        near: keys that look like it.
    """

    def __init__(self, key: object, near: tuple[object, ...] = ()) -> None:
        super().__init__(key, near)
        self.key = key
        self.near = near

    def __str__(self) -> str:
        near = ", ".join(map(repr, self.near))
        return f"the journal holds no job with the key {self.key!r}" + (
            f"; it holds {near}" if near else ""
        )


class SinkError(ConductorError):
    """A sink could not be opened, or could not take outcomes; the message says why."""


class WorkerGoneError(ConductorError):
    """The worker that a message was meant for has ended, or never was.

    Attributes:
        worker_id: the worker addressed.
    """

    def __init__(self, worker_id: int) -> None:
        super().__init__(worker_id)
        self.worker_id = worker_id

    def __str__(self) -> str:
        return f"worker {self.worker_id} has ended or never was: the message cannot be delivered"


class IntakeError(ConductorError):
    """The source of jobs raised; that exception is the ``__cause__``.

    The jobs read before it have all been carried out.
    """


class SourceError(ConductorError, ValueError):
    """A source of jobs cannot be read.

    Attributes:
        path: the file or URL, or ``"-"`` for standard input.
        why: what is wrong there.
        line: its number, from 1, or None.
        column: the place in that line, or the number of the cell, from 1, or None.
    """

    def __init__(
        self, path: str, why: str, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(path, why, line, column)
        self.path = path
        self.why = why
        self.line = line
        self.column = column

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        column = "" if self.column is None else f", column {self.column}"
        path = "standard input" if self.path == "-" else self.path
        return f"{path}{line}{column}: {self.why}"


class DuplicateKeyError(ConductorError, ValueError):
    """Two jobs have the same key, and a journal could not tell them apart.

    Attributes:
        key: of both.
    """

    def __init__(self, key: object) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"two jobs of this run have the key {self.key!r}. Give a job_key that tells them "
            'apart, or say duplicates="skip" to execute the first one only, or '
            'duplicates="number" to execute all'
        )


class WorkerStartError(ConductorError):
    """Workers of one slot kept dying before they could take their first job.

    Attributes:
        slot: the slot that could not be filled.
        detail: the worker's traceback or the cause of its death, as text.
    """

    def __init__(self, slot: int, starts: int, detail: str) -> None:
        super().__init__(slot, starts, detail)
        self.slot = slot
        self.starts = starts
        self.detail = detail

    def __str__(self) -> str:
        return (
            f"slot {self.slot}: {self.starts} workers in a row died before they did any work; "
            f"the last one said:\n{self.detail.rstrip()}"
        )


class PlacementError(WorkerStartError):
    """No node takes any worker: the cluster cannot be reached, or does not have what is asked for.

    Attributes:
        detail: what was asked for, what there is, and what to do.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(0, 0, detail)
        self.args = (detail,)

    def __str__(self) -> str:
        return f"no worker has a place: {self.detail}"


class RequestError(ConductorError):
    """The other side could not answer a request; its message says why."""


class UnknownCommandError(RequestError):
    """Nobody on the other side handles that command."""


class JobError(ConductorError):
    """One job ended badly. The run goes on."""


class WorkerCrashError(JobError):
    """A worker died while it executed the job.

    Attributes:
        worker_id: the worker that died.
        code: its exit code, or None when a signal ended it or nobody could tell.
        signal: the name of the signal that ended it, such as ``"SIGKILL"``, or None.
        detail: what the worker had to say about it, such as the error given to ``crash()``.
        stderr: the last lines it wrote to its standard error.
        stack: what its threads were doing, for a segmentation fault and its kin.
    """

    def __init__(
        self,
        worker_id: int,
        code: int | None,
        signal: str | None,
        detail: str = "",
        stderr: str = "",
        stack: str = "",
    ) -> None:
        super().__init__(worker_id, code, signal, detail, stderr, stack)
        self.worker_id = worker_id
        self.code = code
        self.signal = signal
        self.detail = detail
        self.stderr = stderr
        self.stack = stack

    def __str__(self) -> str:
        how = describe_exit(self.code, self.signal)
        said = f": {self.detail.rstrip()}" if self.detail else ""
        stderr = _quoted("the last lines of its standard error", self.stderr)
        stack = _quoted("its stack", self.stack)
        return f"worker {self.worker_id} {how} while it executed this job{said}{stderr}{stack}"


class MachineCrashError(JobError):
    """The machine went down while the job was being executed, and again when it was alone.

    Attributes:
        times: how often.
    """

    def __init__(self, times: int) -> None:
        super().__init__(times)
        self.times = times

    def __str__(self) -> str:
        return (
            f"the machine went down {self.times} times while this job was being executed, at last "
            "alone. It is not executed any more, unless rerun asks for it"
        )


class JobTimeoutError(JobError):
    """A job took longer than its time limit.

    Raised within the job where `soft_timeout` is set, so that it can clean up.

    Attributes:
        limit: the limit in seconds.
        stack: what the worker's threads were doing when it was reached, or ``""``.
    """

    def __init__(self, limit: float, stack: str = "") -> None:
        super().__init__(limit, stack)
        self.limit = limit
        self.stack = stack

    def __str__(self) -> str:
        stack = _quoted("its worker was at", self.stack)
        return f"the job took longer than its limit of {self.limit:g} s{stack}"


class JobMemoryError(JobError):
    """A job took more memory than there was, or than it may.

    Attributes:
        rss: bytes of memory that the worker held when we ended it, or None if the kernel did.
        limit: `max_rss`, in bytes, or None.
        stderr: the last lines the worker wrote to its standard error.
    """

    def __init__(self, rss: int | None, limit: int | None, stderr: str = "") -> None:
        super().__init__(rss, limit, stderr)
        self.rss = rss
        self.limit = limit
        self.stderr = stderr

    def __str__(self) -> str:
        if self.rss is None or self.limit is None:
            return "the kernel ended the worker for want of memory while it executed this job"
        held, allowed = self.rss / 2**20, self.limit / 2**20
        return (
            f"the worker held {held:,.0f} MiB while it executed this job; max_rss is {allowed:,.0f}"
        )


class SerialisationError(JobError):
    """A payload, key or value could not be pickled or unpickled, or was too large to travel.

    The message says which job's, on which side, and what to do; the ``__cause__`` is what was
    raised, or its traceback as text.

    Attributes:
        path: the innermost part that broke, as an expression such as
            ``"payload['model'].layers[3].lock"``, or ``""`` if it could not be found.
        part_type: qualified name of the type of that part, or of the function that failed to
            rebuild it, such as ``"_thread.lock"``; or ``""``.
    """

    def __init__(self, message: str = "", path: str = "", part_type: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.part_type = part_type


class CommandError(JobError):
    """A command of ``conductor exec`` ended with an exit code other than 0, or by a signal.

    Attributes:
        command: as one would type it.
        code: its exit code, 126 or 127 where it could not be started; None: a signal ended it.
        signal: the name of that signal, such as ``"SIGTERM"``, or None.
        stderr: the last lines that it wrote to its standard error.
        started: when, in Unix time.
        seconds: how long it ran.
    """

    def __init__(
        self,
        command: str,
        code: int | None,
        signal: str | None = None,
        stderr: str = "",
        started: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(command, code, signal, stderr, started, seconds)
        self.command = command
        self.code = code
        self.signal = signal
        self.stderr = stderr
        self.started = started
        self.seconds = seconds

    def __str__(self) -> str:
        stderr = _quoted("the last lines of its standard error", self.stderr)
        return f"the command {describe_exit(self.code, self.signal)}{stderr}"


class JobCancelledError(JobError):
    """The job was cancelled, or was being executed when the run was aborted."""


class RemoteError(JobError):
    """Stands in for an exception that could not be rebuilt in this process.

    Attributes:
        type_name: qualified name of the original type, such as ``"pkg.mod.BrokenError"``.
        message: ``str()`` of the original.
        lost: why the original is not here, also a note of this exception; or ``""``.
    """

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(type_name, message)
        self.type_name = type_name
        self.message = message
        self.lost = ""

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class RemoteTraceback(Exception):  # noqa: N818 - it is a text to read, never raised by itself
    """The worker's traceback as text: the ``__cause__`` of an error that came from a worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class JobsFailedError(ConductorError):
    """Some jobs have no value.

    Attributes:
        report: the run's `Report`, which says which and why.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        return f"not every job was done\n{self.report}"


class TooManyFailuresError(JobsFailedError):
    """The run was stopped because more jobs had failed than `max_failures` allows.

    Jobs in execution were finished, the others are back in `jobs_queue`.
    """

    def __str__(self) -> str:
        return str(self.report)


class InternalError(ConductorError):
    """A fault of okanjo_conductor itself. Please report it."""


class IllegalEventError(InternalError):
    """The core was told something that cannot have happened. Nothing was changed."""


class ProtocolError(InternalError):
    """A peer sent bytes that are no message of this protocol."""


def describe_exit(code: int | None, signal: str | None) -> str:
    """Say in words how a process ended."""
    if signal is not None:
        return f"was ended by {signal}"
    return "ended in a way nobody could observe" if code is None else f"exited with code {code}"


def _quoted(title: str, text: str) -> str:
    lines = text.rstrip().splitlines()
    return "\n    ".join((f"\n  {title}:", *lines)) if lines else ""
