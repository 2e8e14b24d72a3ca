"""The worker process: the job loop, and one attempt as named steps.

One job at a time, in the main thread::

    claim ──► unpickle ──► process_job ──► (wait for complete_job) ──► pickle ──► publish
      │
      └─ was it recalled? then decline it

The claim is stored before anything of the job runs, and the outcome lies in the log before the
next claim: whenever this process dies, the conductor knows which job it was executing.

What arrives on the job link is read between jobs, and while a job waits for a reply: jobs are
queued, replies are handed over at once, other messages wait for the end of the job.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
from collections import deque
from contextlib import suppress
from time import perf_counter_ns, sleep

from okanjo_conductor import _logs
from okanjo_conductor._io import assignment, cells
from okanjo_conductor._io.cells import CLAIM, HIGH, LOW
from okanjo_conductor._io.leaving import WorkerLeft
from okanjo_conductor._logs import log
from okanjo_conductor._outputs import Outputs
from okanjo_conductor._talk import ConductorGone, Talk
from okanjo_conductor._types import LATER, OUTPUTS, Attempt, Cause, JobInfo, Key
from okanjo_conductor._wire import failures, pickling, records
from okanjo_conductor._wire.byvalue import encode_by_value, reducers
from okanjo_conductor._wire.codec import ATOMS, Encoded, decode_payload, encode
from okanjo_conductor._wire.messages import (
    AbortRun,
    AddJob,
    Bell,
    Bye,
    Declined,
    Define,
    Jobs,
    LargeJob,
    LargeOutcome,
    LastWords,
    Log,
    Progress,
    Ready,
    Stats,
    Stop,
)
from okanjo_conductor.errors import (
    ConductorStateError,
    ConfigurationError,
    JobError,
    JobTimeoutError,
    RemoteError,
)
from okanjo_conductor.lookups._client import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, Literal, NoReturn, TypeAlias

    from okanjo_conductor._basis import Basis
    from okanjo_conductor._io.assignment import Assignment
    from okanjo_conductor._io.worker_link import WorkerLink
    from okanjo_conductor._wire.messages import BadEnd

_UNTIL_KEPT = 0.0005
"""Seconds between looks whether a large outcome is safe."""
CRASH_CODE = 4
"""Exit code of `crash`, as in the Node module."""
_BELL = 10_000_000
"""Nanoseconds of work after which the conductor is told, at the next end of a job: as long as a
batch, for the same reason."""
QUIET = 100_000_000
"""Nanoseconds between two reports of progress."""
_SETTLED, _NEVER = 50_000_000, 1 << 63
"""Nanoseconds of life after which a worker registers for the barrier, 2 ms of work; and no more."""
_INTERRUPT_AGAIN = 0.02
"""Seconds until an interruption is tried again."""
_started: Runtime | None = None
"""Of this process, where it is a worker's own."""


def has_run() -> bool:
    """Whether a worker was started in this process."""
    return _started is not None


def running() -> Runtime | None:
    """Return the runtime of this thread's worker, or of this process's, or None."""
    return assignment.runtime_here() or _started


def current_job() -> JobInfo | None:
    """Tell which job this worker is executing: its key, attempt and history.

    None between jobs, and where there is no worker: in another process, or, with workers in
    threads, in any other thread. In a `ConductorWorker` it is `job`.
    """
    runtime = running()
    return runtime.job_at_hand() if runtime else None


def _path_for_output(job: JobInfo, name: str) -> str | None:
    """Find where a job writes a file; None: it is not at hand."""
    runtime = running()
    here = runtime and runtime.job_at_hand()
    if not (runtime and here) or (here.key, here.attempt) != (job.key, job.attempt):
        return None
    return runtime.outputs(job).path(name)


OUTPUTS[:] = [_path_for_output]


def current_worker() -> Basis:
    """Return the worker of this process, or thread, for code that is not a method of it.

    A worker made of a function talks to its conductor through this:
    ``current_worker().lookup(…)``, ``.add_job(…)``, ``.request(…)``, ``.notify(…)``,
    ``.progress(…)``.

    Raises:
        ConductorStateError: there is none.
    """
    runtime = running()
    if runtime is None:
        message = (
            "current_worker() is called outside a worker process or, with workers in threads, in "
            "a thread that is no worker's; ask is_worker() first"
        )
        raise ConductorStateError(message)
    return runtime.worker


def start(worker: Basis, kind: type[Runtime] | None = None) -> None:
    """Run the worker of this process until the conductor has no more work for it.

    Args:
        kind: how it executes jobs; None: one at a time.
    """
    global _started  # noqa: PLW0603 - one worker per process
    place = assignment.current()
    if place is None:
        message = (
            "start() runs a worker in a process that a Conductor started; this is not one. "
            "Ask is_worker() first, or give the class to Conductor(worker=…)"
        )
        raise ConductorStateError(message)
    if running() is not None:
        message = "a worker was started in this process already"
        raise ConductorStateError(message)
    runtime = (kind or Runtime)(worker, place)
    if place.home.is_process:
        _started = runtime
    else:
        assignment.settle(runtime)
    runtime.run()


class Batch:
    """Jobs handed out together."""

    def __init__(
        self, first: int, wires: list[Any], keys: bytes, histories: list[tuple[int, list[BadEnd]]]
    ) -> None:
        self.first = first
        self.wires = wires
        self._pickled_keys = keys
        self._keys: list[Key] = []
        self.histories = dict(histories)
        self.claimed: Iterator[int] = iter(())
        """Claims the next job each time it is asked; shared by the loop and `get_next_job`."""

    def key(self, index: int) -> Key:
        """Return the key of a job. They are read when one is asked for: mostly none is."""
        if not self._keys:
            self._keys = _keys(self._pickled_keys, len(self.wires))
        return self._keys[index]


class Runtime:
    """The life of one worker process."""

    def __init__(self, worker: Basis, place: Assignment) -> None:
        self.worker = worker
        self._place = place
        self._link: WorkerLink = place.link
        handlers: dict[type[Any], Callable[[Any], None]] = {
            Jobs: self._on_jobs,
            LargeJob: self._on_large_job,
            Define: self._on_define,
            Stop: self._on_stop,
        }
        self.talk = self._make_talk(handlers)
        self._largest_item = place.link.log.largest - records.HEAD_SIZE
        self._sent_large = 0
        """How many outcomes were too large for the log."""
        self._is_heard = False
        """Whether anybody has ever listened to ``job_done``."""
        self._batches: deque[Batch] = deque()
        self._is_stopping = False
        self._batch: Batch | None = None
        self._index = -1
        """Position of the job at hand in its batch; -1 between jobs."""
        self._payload: Any = None
        self._completion: tuple[Any, Any] | None = None
        """Error and value given to `complete_job` for the job at hand."""
        self._rung = 0
        """When the conductor was told last, on the clock of `_started`."""
        self._registers_at = perf_counter_ns() + _SETTLED
        self._told = 0
        """Of how many outcomes the conductor was told then."""
        self._started = 0
        """When the job at hand was started; between jobs, when the last one ended."""
        self._declined: tuple[int, int] | None = None
        """A run of ordinals skipped and not yet reported."""
        self._outputs: dict[int, Outputs] = {}
        """By ordinal, files of jobs in execution that make some."""
        self._overdue = 0
        """The ordinal that is to be interrupted as soon as it can be."""
        self._adding = threading.Lock()
        """Held while a job is added: numbers go out in order."""
        self._added = 0, 0
        """An ordinal, and how many jobs it has added."""
        self._said_at = 0
        """When progress was sent last."""
        self._unsaid: Progress | None = None
        """Progress that waits for its time."""

    # Life

    def run(self) -> None:
        """Set up, work, tear down."""
        home = self._place.home
        self.attach()
        if home.is_process:
            _logs.install(self, self._place.log_level)
            signal.signal(signal.SIGUSR2, self._interrupt)
        try:
            self._live()
        except (ConductorGone, BrokenPipeError, ConnectionResetError):
            home.leave(1)  # the conductor is gone
        except OSError:
            if not self._link.is_abandoned:
                raise
            home.return_from_fork(None)

    def attach(self) -> None:
        """Let the worker know where it is, and listen to it."""
        worker = self.worker
        worker._attach(self, self._place)
        self.talk.urgent = worker._urgent
        self._is_heard = worker._hears("job_done")
        worker._on_listener(self._note_listener)

    def _make_talk(self, handlers: dict[type[Any], Callable[[Any], None]]) -> Talk:
        return Talk(self.worker, self._place, handlers, self._check_deadline)

    def _live(self) -> None:
        self.set_up()
        self._work()
        self.tear_down()

    def set_up(self) -> None:
        """Have the worker prepare, and say that it is ready."""
        worker = self.worker
        if self._place.home.is_process:
            self._link.open_hatch()
        worker.setup()
        worker.start_monitoring()
        self.talk.serve_urgent()
        self._link.send(Ready(sorted(worker._urgent)))

    def tear_down(self) -> None:
        """Have the worker clean up, and say that it leaves."""
        worker = self.worker
        worker.teardown()
        worker.stop_monitoring()
        self.report_stats()
        self._emit("completed")
        self._link.send(Bye())

    def die(self, error: BaseException | str | None) -> NoReturn:
        """End this worker at once, as a crash, after its last report."""
        if isinstance(error, BaseException):
            import traceback

            error = "".join(traceback.format_exception(error))
        with suppress(OSError, ConductorGone):
            self.report_stats()
            self._link.send(LastWords(f"crash() was called: {error}"))
        self._place.home.leave(CRASH_CODE)

    def _work(self) -> None:
        while True:
            self.talk.deliver_posts()
            if self._batches:
                self._run_batch(self._batches.popleft())
                self._report_declined()
                self._ring()
            elif self._is_stopping:
                return
            else:
                self.talk.read_unless(self._is_wanted)

    def _is_wanted(self) -> bool:
        return bool(self._batches or self.talk.posts or self._is_stopping)

    # One attempt

    def _run_batch(self, batch: Batch) -> None:
        """Execute the jobs of a batch. The hot path of the package: well under a µs per job."""
        clock, atoms, process_job = perf_counter_ns, ATOMS, self.worker.process_job
        wires, outputs = batch.wires, self._outputs
        self._batch = batch
        batch.claimed = self._claim_each(batch)
        self._started = clock()
        for index in batch.claimed:
            self._index = index
            try:
                wire = wires[index]
                self._payload = payload = wire if type(wire) in atoms else self._unpickled(wire)
                value = process_job(payload)
                if self._index < 0:
                    continue  # get_next_job has published everything
                if self._completion is not None or value is LATER:
                    value = self._completed(value)
                is_bare = type(value) is int and not outputs
                item: Item = value if is_bare else self._done_item(value)
            except BaseException as error:
                item = self._failure_item(error)
            self._publish(item)
        self._batch = None

    def _claim_each(self, batch: Batch) -> Iterator[int]:
        """Claim the jobs of a batch one after another; decline those that were recalled.

        Every start of a job comes through here, and the outcome of a job lies in the log before
        the next one is asked for.
        """
        page = self._link.cells
        for index in range(len(batch.wires)):
            ordinal = batch.first + index
            page[CLAIM] = ordinal
            if self._is_stopping or (ordinal <= page[HIGH] and page[LOW] < ordinal):
                self._decline(ordinal)
            else:
                yield index

    def _publish(self, item: Item) -> None:
        """Put the outcome of the job at hand into the log, and let go of the job."""
        batch, index = self._batch, self._index
        if batch is None or index < 0:
            log().error("process_job raised after get_next_job() had completed its last job")
            return
        now = perf_counter_ns()
        self._put_down(batch.first + index, now - self._started, item)
        batch.wires[index] = None
        self._index = -1
        self._payload = self._completion = None
        self._started = now
        if self._is_heard:
            self._emit("job_done")
        if self.talk.posts:
            self.talk.deliver_posts()
        if now - self._rung > _BELL:
            self._ring()
            self.talk.read_nowait()
            self._started = perf_counter_ns()

    def _put_down(self, ordinal: int, nanoseconds: int, item: Item) -> None:
        """Put an outcome into the log."""
        if isinstance(item, int):
            self._count_done()
            try:
                self._link.log.write_int(ordinal, nanoseconds, item)
            except struct.error:  # it has more than 64 bits
                self._write(ordinal, nanoseconds, records.atom(item))
        else:
            self._write(ordinal, nanoseconds, item)

    def _write(self, ordinal: int, nanoseconds: int, item: bytes | Encoded | _LargeFailure) -> None:
        """Write an outcome into the log, or send it if it is too large for that."""
        if isinstance(item, bytes) and len(item) <= self._largest_item:
            self._link.log.write(records.head(ordinal, nanoseconds) + item)
            return
        is_failure = type(item) is _LargeFailure
        if isinstance(item, _LargeFailure):
            item = Encoded(item.packed, [])
        elif isinstance(item, bytes):
            item = records.atom_pickle(item)
        self._link.send(LargeOutcome(ordinal, nanoseconds, is_failure, item))
        self._sent_large += 1
        self._wait_until_kept()

    def _wait_until_kept(self) -> None:
        """Claim no other job while the conductor's death would lose the outcome of this one."""
        page = self._link.cells
        while 0 < page[cells.KEPT] <= self._sent_large:
            sleep(_UNTIL_KEPT)

    def _completed(self, value: Any) -> Any:
        """Wait for `complete_job`; return its value, or raise its error."""
        self._await_completion(lambda: self._completion is not None)
        error, completed = self._completion or (None, None)
        if error:
            raise error if isinstance(error, BaseException) else JobError(str(error))
        return completed if value is None or value is LATER else value

    def _await_completion(self, is_completed: Callable[[], bool]) -> None:
        self.talk.wait_for(is_completed, None)

    def complete(self, error: Any, job: Any, value: Any) -> None:
        """Complete the job at hand, from any thread."""
        if self._index < 0 or self._completion is not None or not self._is_at_hand(job):
            log().warning("complete_job(job=%r): no such job waits to be completed; ignored", job)
            return
        self._completion = (error, value)
        self._link.wake()

    def _is_at_hand(self, job: Any) -> bool:
        if job is None or job is self._payload:
            return True
        try:
            return bool(job == self._payload)
        except Exception:
            return True

    def next_job(self) -> Any:
        """Publish the completed job at hand and claim the next one, within `process_job`."""
        batch = self._batch
        if batch is None or self._completion is None:
            message = (
                "get_next_job() is called within process_job, after complete_job() for the job "
                "at hand"
            )
            raise ConductorStateError(message)
        try:
            item: Item = self._done_item(self._completed(None))
        except BaseException as error:
            item = self._failure_item(error)
        self._publish(item)
        index = next(batch.claimed, None)
        if index is None:
            return None
        self._index, self._started = index, perf_counter_ns()
        self._payload = payload = self._unpickled(batch.wires[index])
        return payload

    def job_at_hand(self) -> JobInfo | None:
        """Tell which job is being executed."""
        batch, index = self._batch, self._index
        return None if batch is None or index < 0 else self._info(batch, index)

    def outputs(self, job: JobInfo) -> Outputs:
        """Return the files of the job at hand."""
        return self._outputs.setdefault(self._ordinal(), Outputs(job.key))

    def _drop_outputs(self) -> None:
        if outputs := self._outputs.pop(self._ordinal(), None):
            outputs.drop()

    @staticmethod
    def _info(batch: Batch, index: int) -> JobInfo:
        history = batch.histories.get(index, [])
        return JobInfo(batch.key(index), len(history) + 1, tuple(map(_attempt, history)))

    def _done_item(self, value: Any) -> Item:
        item = records.atom(value) if type(value) in ATOMS else self._value_item(value)
        if self._outputs and (outputs := self._outputs.pop(self._ordinal(), None)):
            outputs.keep()
        self._count_done()
        return item

    def _count_done(self) -> None:
        stats = self.worker.stats
        stats["jobs_done"] = stats.get("jobs_done", 0) + 1

    def _unpickled(self, wire: Any) -> Any:
        try:
            return decode_payload(wire)
        except BaseException as error:
            from okanjo_conductor._wire import refusals  # rarely needed

            raise refusals.unloadable(self._key(), "payload", wire, error) from error

    def _value_item(self, value: Any) -> bytes | Encoded:
        try:
            encoded = encode_by_value(value)
        except BaseException as error:
            from okanjo_conductor._wire import refusals  # rarely needed

            key = self._key()
            raise refusals.unpicklable(key, "value", value, error, reducers()) from error
        if encoded.is_large or len(encoded.blob) > self._largest_item - records.BYTES_HEAD_SIZE:
            return encoded
        return records.pickled(encoded.blob)

    def _key(self) -> Key | None:
        job = self.job_at_hand()
        return job.key if job else None

    def _failure_item(self, error: BaseException) -> bytes | _LargeFailure:
        if self._outputs and not self._link.is_abandoned:
            self._drop_outputs()
        if isinstance(error, (ConductorGone, WorkerLeft)):
            raise error
        if self._link.is_abandoned:
            self._place.home.return_from_fork(error)
        self._emit("error", error)
        packed = failures.pack(failures.take_apart(error))
        item = records.failure(packed)
        return item if len(item) <= self._largest_item else _LargeFailure(packed)

    # Time limits

    def _interrupt(self, _signal: int, frame: FrameType | None) -> None:
        """Raise `JobTimeoutError` in the job that has passed its time limit.

        Not within our own code, which would be left halfway: it raises at its next wait, or this
        is called again in a moment.
        """
        ordinal = self._link.cells[cells.EXPIRED]
        if not self._is_at(ordinal):
            return
        if _is_users_code(frame):
            self._raise_timeout()
        self._overdue = ordinal
        again = threading.Timer(_INTERRUPT_AGAIN, os.kill, (os.getpid(), signal.SIGUSR2))
        again.daemon = True
        again.start()

    def _is_at(self, ordinal: int) -> bool:
        batch, index = self._batch, self._index
        return batch is not None and index >= 0 and batch.first + index == ordinal

    def _raise_timeout(self) -> NoReturn:
        self._overdue = 0
        raise JobTimeoutError(self._link.cells[cells.LIMIT] / 1e9)

    def _check_deadline(self) -> None:
        if self._place.home.is_condemned:
            self._place.home.leave(1)
        if self._overdue and self._is_at(self._overdue):
            self._raise_timeout()

    # Recalled jobs

    def _decline(self, ordinal: int) -> None:
        if self._declined and self._declined[1] == ordinal - 1:
            self._declined = self._declined[0], ordinal
        else:
            self._report_declined()
            self._declined = ordinal, ordinal
        cells.decline(self._link.cells, ordinal)

    def _report_declined(self) -> None:
        if self._declined:
            self._link.send(Declined(*self._declined))
            self._declined = None

    # What the conductor says about jobs

    def _on_jobs(self, message: Jobs) -> None:
        self._batches.append(Batch(message.first, message.wires, message.keys, message.histories))

    def _on_large_job(self, message: LargeJob) -> None:
        histories = [(0, message.history)]
        self._batches.append(Batch(message.ordinal, [message.value], message.key, histories))

    def _on_define(self, message: Define) -> None:
        if self._place.home.is_process:  # else this is the conductor's own, and has it
            setattr(sys.modules["__main__"], message.name, pickling.loads(message.blob))

    def _on_stop(self, _message: Stop) -> None:
        self._is_stopping = True

    # What the conductor is told

    def report_stats(self) -> None:
        """Send the counters."""
        totals, span = self.worker._take_report()
        self.talk.send(Stats(totals, span))
        self._emit("stats", totals)

    def report_stats_while_alive(self) -> bool:
        """Send the counters, from another thread; say whether there is anybody to send them to."""
        try:
            self.report_stats()
        except (ConductorGone, OSError):
            return False
        return True

    def add_job(self, job: Any, key: Key | None, timeout: float | None) -> None:
        """Send a job to be added, on behalf of the job at hand."""
        if timeout is not None and not timeout > 0:
            message = f"add_job(timeout={timeout!r}): seconds, more than 0"
            raise ConfigurationError(message)
        value = self._travelling(job, "payload", key)
        packed = None if key is None else bytes(self._travelling(key, "key", key).blob)
        if self._link.is_abandoned:  # the lock may be held by a thread that is not in this fork
            text = "only the worker can add jobs, not a process that a job has forked"
            raise ConductorStateError(text)
        with self._adding:
            ordinal = self._ordinal()
            number = self._added_by(ordinal) + 1
            seconds = None if timeout is None else float(timeout)
            self.talk.send(AddJob(ordinal, number, packed, seconds, value))
            self._note_added(ordinal, number)

    def _added_by(self, ordinal: int) -> int:
        return self._added[1] if self._added[0] == ordinal else 0

    def _note_added(self, ordinal: int, number: int) -> None:
        self._added = ordinal, number

    @staticmethod
    def _travelling(value: Any, what: Literal["payload", "key"], key: Key | None) -> Encoded:
        """Pickle a part of a job that is added."""
        try:
            return encode(value)
        except BaseException as error:
            from okanjo_conductor._wire import refusals  # rarely needed

            shown = "to be added" if key is None else key
            raise refusals.unpicklable(shown, what, value, error) from error

    def report_progress(self, fraction: float, text: str) -> None:
        """Send how far the job at hand is: now, or when the last time is long enough ago."""
        progress = self._progress(fraction, text)
        if progress is None:
            return
        waits, self._unsaid = self._unsaid, progress
        left = self._said_at + QUIET - perf_counter_ns()
        if left <= 0:
            self._say_progress()
        elif waits is None:
            later = threading.Timer(left / 1e9, self._say_progress)
            later.daemon = True
            later.start()

    def _progress(self, fraction: float, text: str) -> Progress | None:
        """Make the message; None between jobs."""
        if not 0 <= fraction <= 1:
            message = f"progress({fraction!r}): a fraction of the job, from 0 to 1"
            raise ConfigurationError(message)
        ordinal = self._ordinal()
        return Progress(ordinal, float(fraction), str(text)) if ordinal else None

    def _say_progress(self) -> None:
        progress, self._unsaid = self._unsaid, None
        if progress is not None and progress.ordinal == self._ordinal():
            self._said_at = perf_counter_ns()
            with suppress(ConductorGone, OSError):  # the main thread comes across that
                self.talk.send(progress)

    def abort_run(self, reason: str) -> None:
        """Ask for the end of the run."""
        job = self.job_at_hand()
        where = f" in job {job.key!r}" if job else ""
        said = f": {reason}" if reason else ""
        who = f"worker {self._place.worker_id}{where}"
        self.talk.send(AbortRun(f"{who} asked for it{said}"))

    def _ordinal(self) -> int:
        """Return the ordinal of the job at hand, or 0 between jobs."""
        batch, index = self._batch, self._index
        return 0 if batch is None or index < 0 else batch.first + index

    def _ring(self) -> None:
        """Tell the conductor that there are outcomes, if it has not been told of all."""
        self._rung = perf_counter_ns()
        if self._rung > self._registers_at:
            self._registers_at = _NEVER
            cells.register_for_membarrier(self._link.cells)
        if self._told != self._link.log.count:
            self._told = self._link.log.count
            self._link.send(Bell())

    def _emit(self, event: str, *args: Any) -> None:
        """Tell listeners, if there are any; what they raise is logged."""
        worker = self.worker
        if worker._hears(event):
            try:
                worker._tell(event, *args)
            except (Exception, SystemExit):
                log().exception("a listener to %r raised", event)

    def _note_listener(self, event: str) -> None:
        self._is_heard |= event == "job_done"

    # Logging

    @property
    def is_fork(self) -> bool:
        """Whether this process is not the worker, but forked by a job of it."""
        return self._link.is_abandoned

    def send_log(self, record: logging.LogRecord) -> None:
        """Send a log record to the conductor's logging."""
        entry = {
            **record.__dict__,
            "worker_id": self._place.worker_id,
            "job_key": self._key(),
        }
        try:
            value = encode(entry)
        except BaseException:  # a class's __reduce__ may raise anything
            value = encode({name: _plain(field) for name, field in entry.items()})
        self._link.send(Log(value))


_OURS = "okanjo_conductor._", "okanjo_conductor.lookups."
_HARMLESS = frozenset({"okanjo_conductor._basis", "okanjo_conductor._worker"})
"""They call the user's function, or are called by it, and have nothing to leave halfway."""


class _LargeFailure:
    """A packed failure that does not fit into a record."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed


Item: TypeAlias = int | bytes | Encoded | _LargeFailure
"""A result on its way: an integer, or ready for a record, or too large for one."""


def _attempt(end: BadEnd) -> Attempt:
    number, cause, type_name, text, worker_id, seconds = end
    return Attempt(number, Cause(cause), RemoteError(type_name, text), worker_id, seconds)


def _is_users_code(frame: FrameType | None) -> bool:
    """Whether a job runs in this frame, and no code of ours on its behalf.

    A function that makes an entry of a lookup is called so that it may be left at any point.
    """
    callers = Runtime._run_batch.__code__, Source._loaded.__code__
    is_within = False
    while frame is not None and frame.f_code not in callers:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(_OURS) and module not in _HARMLESS:
            return False
        is_within = True
        frame = frame.f_back
    return is_within


def _plain(field: Any) -> Any:
    return field if type(field) in ATOMS else repr(field)


def _keys(pickled: bytes, count: int) -> list[Key]:
    """Read the keys of a batch. One that cannot be read here must not spoil the jobs."""
    try:
        keys: list[Key] = pickling.loads(pickled)
    except BaseException:  # a key's class may raise anything
        log().exception("the keys of %d jobs cannot be unpickled in the worker", count)
        return ["(a key that cannot be unpickled in the worker)"] * count
    return keys
