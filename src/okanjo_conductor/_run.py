"""One run: the asyncio shell around the core.

Turns what happens outside into events, hands them to `ConductorState` one at a time, delivers the
records of each step and carries out its commands in order. It decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core.prefetch import MAX_BATCH
from okanjo_conductor._core.records import JobFailed, JobsDone
from okanjo_conductor._core.state import ConductorState
from okanjo_conductor._delivery import ReportBuilder, outcomes_of
from okanjo_conductor._intake import Intake
from okanjo_conductor._io import bootstrap, cells, links
from okanjo_conductor._io.conductor_link import ConductorLink
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._types import Cause, Message, Ordinal, WorkerId
from okanjo_conductor._wire import byvalue, failures
from okanjo_conductor._wire import messages as msg
from okanjo_conductor._wire.codec import Encoded, decode
from okanjo_conductor.clusters.local import LocalCluster
from okanjo_conductor.errors import (
    IntakeError,
    SerialisationError,
    UnknownCommandError,
    WorkerGoneError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._core.jobs import Job
    from okanjo_conductor._core.records import Record
    from okanjo_conductor._delivery import OutcomeBuffer
    from okanjo_conductor._intake import JobsQueue
    from okanjo_conductor._types import Key, Report, Retry, StatsReport
    from okanjo_conductor._wire.messages import AnyMessage
    from okanjo_conductor.errors import ProtocolError

_TICK = 0.02
"""Seconds after which outcomes that no frame announced are looked for."""
_PIPE_ROOM = 1 << 20
_log = logging.getLogger("okanjo_conductor.conductor")


class Owner(Protocol):
    """The conductor, as its run sees it."""

    @property
    def id(self) -> str:
        """Unique id of the conductor."""
        ...

    def _handle_message(self, worker_id: int, post: Message) -> Any:
        """Handle a custom message; a coroutine is awaited."""

    def get_lookup(self, name: str) -> Any:
        """Find a lookup, or raise `UnknownLookupError`."""

    def get_lookup_value(self, name: str, key: Any, default: Any = None) -> Any:
        """Read a lookup entry."""

    def set_lookup_value(self, name: str, key: Any, value: Any) -> None:
        """Set a lookup entry."""

    def _note_stats(self, report: StatsReport) -> None: ...

    def _note_report(self, report: Report) -> None: ...

    def _emit(self, event: str, *args: Any) -> None: ...

    def _has_listeners(self, event: str) -> bool: ...

    def _say(self, text: str, *args: Any) -> None: ...


class Run:
    """Everything that lives as long as one run."""

    def __init__(
        self,
        owner: Owner,
        *,
        boot: bootstrap.Boot,
        env: dict[str, str],
        options: bytes,
        slots: int,
        retry: Retry,
        grace: float,
        start_method: str,
        jobs_queue: JobsQueue,
        job_key: Callable[[Any], Key] | None,
        buffer: OutcomeBuffer | None,
        buffer_limit: int | None,
    ) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        largest = min(buffer_limit or MAX_BATCH, MAX_BATCH)
        self._state = ConductorState(slots=slots, retry=retry, grace=grace, largest_batch=largest)
        self._options = options
        self._slots = slots
        self._cluster = LocalCluster(
            self._loop, self, boot=boot, env=env, start_method=start_method
        )
        self.intake = Intake(jobs_queue, job_key, self.post, self._loop)
        self._report = ReportBuilder()
        self._buffer = buffer
        self._buffer_limit = buffer_limit
        self._links: dict[int, ConductorLink] = {}
        self._last_words: dict[int, str] = {}
        self._farewells: set[int] = set()
        """Workers that have said that they leave."""
        self._scratch = memoryview(bytearray(_PIPE_ROOM))
        self._definitions: list[msg.Define] = []
        """Objects of ``__main__`` that payloads need, in the order in which they came up."""
        self._events: deque[ev.Event] = deque()
        self._is_handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[Exception | None] = self._loop.create_future()
        self._broken: BaseException | None = None
        """What a handler of the user's raised that must end the run."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.last_stats: dict[str, Any] = {}

    # Life

    async def run(self, generated: Any, *, is_aborted: bool) -> Report:
        """Run until every job has its outcome, or not at all if it was aborted before.

        Args:
            generated: further jobs, what ``generate_jobs`` gave, or None.
        """
        began = self._loop.time()
        if self._buffer is not None:
            self._buffer.on_resume = self._resume_delivery
            self._set_buffer_limit(1)
        try:
            if generated is not None:
                self.intake.add(generated)
            self._cluster.prepare()
            self._tick()
            self.post(ev.RunStarted())
            if is_aborted:
                self.post(ev.AbortRequested())
            error = await self._wait_until_over()
        finally:
            self._end()
            await self.intake.close()
            await self._cluster.close()
            if self._buffer is not None:
                self._buffer.end()
            seconds, unstarted = self._loop.time() - began, self.intake.known()
            report = self._report.build(seconds, unstarted, self.last_stats)
            self._owner._note_report(report)
        self._raise(error)
        return report

    async def _wait_until_over(self) -> Exception | None:
        try:
            return await asyncio.shield(self._over)
        except asyncio.CancelledError:
            self.post(ev.AbortRequested())
            await self._over
            raise

    def _raise(self, error: Exception | None) -> None:
        if self._broken is not None:
            raise self._broken
        if error is not None:
            raise error
        if self.intake.error is not None:
            message = (
                f"the source of jobs raised {type(self.intake.error).__name__}: {self.intake.error}"
            )
            raise IntakeError(message) from self.intake.error

    def _end(self) -> None:
        for timer in (self._timer, self._tick_timer):
            if timer is not None:
                timer.cancel()
        for link in self._links.values():
            link.finish()
        self._links.clear()
        for task in self._tasks:
            task.cancel()

    def abort(self) -> None:
        """Stop now."""
        self.post(ev.AbortRequested())

    # Events in, steps out

    def post(self, event: ev.Event) -> None:
        """Hand an event to the core and take the step; an event that comes of it waits."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events and not self._over.done():
                step = self._state.handle(self._events.popleft(), self._loop.time())
                if step.records:
                    self._deliver(step.records)
                for command in step.commands:
                    _CARRY_OUT[type(command)](self, command)
        except Exception as error:
            self._broken = error
            self._give_up()
        finally:
            self._is_handling = False
        self._set_timer()

    def _give_up(self) -> None:
        """End the run at once: the core or the shell itself has failed."""
        for worker_id in tuple(self._links):
            self._cluster.signal_worker(worker_id, signal.SIGKILL)
        if not self._over.done():
            self._over.set_result(None)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._state.next_deadline()
        if deadline is not None and not self._over.done():
            self._timer = self._loop.call_at(deadline, self.post, ev.TimePassed())

    def _tick(self) -> None:
        if self._state.is_busy:
            for link in tuple(self._links.values()):
                link.tick()
        self._tick_timer = self._loop.call_later(_TICK, self._tick)

    # Records

    def _deliver(self, records: list[Record]) -> None:
        owner = self._owner
        for record in records:
            self._report.add(record)
            if isinstance(record, JobsDone):
                if owner._has_listeners("job_done"):
                    for outcome in outcomes_of(record):
                        owner._emit("job_done", outcome)
            elif isinstance(record, JobFailed):
                if owner._has_listeners("job_failed"):
                    owner._emit("job_failed", *outcomes_of(record))
            else:
                owner._say(
                    "job %r will be executed again: %s", record.job.key, record.attempt.error
                )
                owner._emit("job_retry", record.job.key, record.attempt)
        if self._buffer is not None and self._buffer.put(records):
            self._events.append(ev.DeliveryPaused())
        if self.intake.known():
            self._events.append(ev.IntakeReopened())

    def _resume_delivery(self) -> None:
        call_soon(self._loop, self.post, ev.DeliveryResumed())

    def _set_buffer_limit(self, batch: int) -> None:
        if self._buffer is not None:
            fitting = self._buffer_limit or 4 * self._slots * batch
            self._buffer.limit = max(self._buffer.limit, fitting)

    # Commands

    def _read_jobs(self, command: do.ReadJobs) -> None:
        self.intake.read(command.count)

    def _start_worker(self, command: do.StartWorker) -> None:
        worker_id = command.worker_id
        try:
            ours, theirs = links.make()
        except OSError as error:
            detail = f"its links could not be made: {error}"
            self._loop.call_soon(self.on_worker_exited, worker_id, None, None, detail)
            return
        self._links[worker_id] = ConductorLink(worker_id, ours, self._loop, self, self._scratch)
        order = bootstrap.Start(
            worker_id, command.slot, self._owner.id, True, self._options, _root_level()
        )
        self._cluster.start_worker(order, theirs)

    def _hand_out(self, command: do.HandOut) -> None:
        link = self._links[command.worker_id]
        self._set_buffer_limit(len(command.jobs))
        if len(self.intake.main_names) > len(self._definitions):
            known = {d.name for d in self._definitions}
            for name in sorted(self.intake.main_names - known):
                self._definitions.append(msg.Define(name, byvalue.define(name)))
        while link.definitions_sent < len(self._definitions):
            link.send(self._definitions[link.definitions_sent])
            link.definitions_sent += 1
        for message in _job_messages(command):
            link.send(message)

    def _recall(self, command: do.RecallJobs) -> None:
        worker_id = command.worker_id
        link = self._links[worker_id]
        cells.revoke(link.cells, command.last)
        barrier = cells.membarrier()
        if barrier is None:
            self._loop.call_later(_TICK, self._answer_recall, worker_id)
        else:
            barrier()
            self._answer_recall(worker_id)

    def _answer_recall(self, worker_id: int) -> None:
        link = self._links.get(worker_id)
        if link is not None:
            beyond = Ordinal(cells.last_kept(link.cells))
            self.post(ev.JobsRecalled(worker_id=WorkerId(worker_id), beyond=beyond))

    def _stop_worker(self, command: do.StopWorker) -> None:
        if not self._cluster.withdraw(command.worker_id):
            self._links[command.worker_id].send(msg.Stop())

    def _terminate(self, command: do.TerminateWorker) -> None:
        self._cluster.signal_worker(command.worker_id, signal.SIGTERM)

    def _kill(self, command: do.KillWorker) -> None:
        self._cluster.signal_worker(command.worker_id, signal.SIGKILL)

    def _return_jobs(self, command: do.ReturnJobs) -> None:
        self.intake.give_back(command.jobs)

    def _announce_exit(self, command: do.AnnounceExit) -> None:
        end, owner = command.end, self._owner
        if end.cause is not None:
            self._report.worker_lost(end)
        owner._say("worker %d has ended: %s", end.worker_id, end.signal or f"exit code {end.code}")
        owner._emit("worker_exit", end)
        if end.cause is Cause.CRASH:
            owner._emit("error", end.as_crash())

    def _emit_stats(self, command: do.EmitStats) -> None:
        self.last_stats = command.report.agg.last
        self._owner._note_stats(command.report)

    def _end_run(self, command: do.EndRun) -> None:
        self.intake.stop()
        if not self._over.done():
            self._over.set_result(command.error)

    # What workers say (Receiver, Watcher)

    def on_worker_started(self, worker_id: int, pid: int) -> None:
        """A worker's process exists."""
        self._report.worker_started()
        self._owner._say("worker %d has started as process %d", worker_id, pid)
        self._owner._emit("worker_start", worker_id, pid)

    def on_worker_exited(
        self, worker_id: int, code: int | None, signal: str | None, detail: str
    ) -> None:
        """A worker's process is gone."""
        link = self._links.get(worker_id)
        claimed = None
        if link is not None:
            claimed = cells.last_started(link.cells)
            link.finish()  # the core may answer its last outcomes with a hand-out: still a link
            del self._links[worker_id]
        if code is None and signal is None and worker_id in self._farewells:
            code = 0  # its status went with the template that had forked it
        self._farewells.discard(worker_id)
        self.post(
            ev.WorkerExited(
                worker_id=WorkerId(worker_id),
                code=code,
                signal=signal,
                claimed=None if claimed is None else Ordinal(claimed),
                detail=self._last_words.pop(worker_id, "") or detail,
            )
        )

    def on_garbage(self, worker_id: int, error: ProtocolError) -> None:
        """A worker's links carry garbage: end it, its outcomes cannot be believed."""
        self._last_words[worker_id] = f"something wrote into the worker's own descriptors: {error}"
        self._cluster.signal_worker(worker_id, signal.SIGKILL)

    def on_outcomes(
        self, worker_id: int, ordinals: list[int], nanoseconds: list[int], results: list[Any]
    ) -> None:
        """A worker has written outcome records: pass on runs of done jobs, failures singly."""
        if _NEEDS_A_LOOK.isdisjoint(map(type, results)):
            self._post_done(worker_id, ordinals, nanoseconds, 0, results)
            return
        begin = 0
        values: list[Any] = []
        for index, result in enumerate(results):
            kind = type(result)
            if kind is bytes:
                value, error = _decoded(Encoded(result, []))
                if error is None:
                    values.append(value)
                    continue
            elif kind is not tuple:
                values.append(result)
                continue
            else:
                error = result[0]
            self._post_done(worker_id, ordinals, nanoseconds, begin, values)
            self._post_failed(worker_id, ordinals[index], nanoseconds[index], error)
            begin, values = index + 1, []
        self._post_done(worker_id, ordinals, nanoseconds, begin, values)

    def _post_done(
        self,
        worker_id: int,
        ordinals: list[Any],
        nanoseconds: list[int],
        begin: int,
        values: list[Any],
    ) -> None:
        if values:
            end = begin + len(values)
            self.post(
                ev.AttemptsDone(
                    worker_id=WorkerId(worker_id),
                    ordinals=ordinals[begin:end],
                    values=values,
                    nanoseconds=nanoseconds[begin:end],
                )
            )

    def _post_failed(
        self, worker_id: int, ordinal: int, nanoseconds: int, failure: bytes | Exception
    ) -> None:
        place = ""
        if isinstance(failure, Exception):
            error = failure
        else:
            unpacked = failures.unpack(failure)
            error, place = failures.rebuild(unpacked), unpacked.place
        is_unserialisable = isinstance(error, SerialisationError)
        self.post(
            ev.AttemptFailed(
                worker_id=WorkerId(worker_id),
                ordinal=Ordinal(ordinal),
                cause=Cause.UNSERIALISABLE if is_unserialisable else Cause.ERROR,
                error=error,
                place=place,
                nanoseconds=nanoseconds,
            )
        )

    def on_message(self, worker_id: int, message: AnyMessage) -> None:
        """A worker sent a message."""
        _ON_MESSAGE[type(message)](self, worker_id, message)

    def _on_ready(self, worker_id: int, _message: msg.Ready) -> None:
        self.post(ev.WorkerReady(worker_id=WorkerId(worker_id)))

    def _on_large_outcome(self, worker_id: int, message: msg.LargeOutcome) -> None:
        if message.is_failure:
            failure: bytes | Exception | None = bytes(message.value.blob)
            value = None
        else:
            value, failure = _decoded(message.value)
        if failure is None:
            self._post_done(worker_id, [message.ordinal], [message.nanoseconds], 0, [value])
        else:
            self._post_failed(worker_id, message.ordinal, message.nanoseconds, failure)

    def _on_declined(self, worker_id: int, message: msg.Declined) -> None:
        self.post(
            ev.JobsDeclined(
                worker_id=WorkerId(worker_id),
                first=Ordinal(message.first),
                last=Ordinal(message.last),
            )
        )

    def _on_stats(self, worker_id: int, message: msg.Stats) -> None:
        self.post(
            ev.StatsReported(
                worker_id=WorkerId(worker_id),
                totals=message.totals,
                time_span=message.time_span,
            )
        )

    def _on_log(self, _worker_id: int, message: msg.Log) -> None:
        record = logging.makeLogRecord(decode(message.value))
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)

    def _on_last_words(self, worker_id: int, message: msg.LastWords) -> None:
        self._last_words[worker_id] = message.text

    def _on_bye(self, worker_id: int, _message: msg.Bye) -> None:
        self._farewells.add(worker_id)

    def _on_nothing(self, worker_id: int, message: AnyMessage) -> None:
        """A bell, whose outcomes are applied by now."""

    # Lookups

    def _on_look_up(self, worker_id: int, message: msg.LookUp) -> None:
        self._answer(worker_id, message, lambda: self._find(message))

    def _find(self, message: msg.LookUp) -> list[Any]:
        self._owner.get_lookup(message.name)
        missing = object()
        values = (
            self._owner.get_lookup_value(message.name, key, missing)
            for key in decode(message.value)
        )
        return [None if value is missing else (value,) for value in values]

    def _on_set_lookup(self, worker_id: int, message: msg.SetLookup) -> None:
        def set_it() -> None:
            key, value = decode(message.value)
            self._owner.set_lookup_value(message.name, key, value)

        self._answer(worker_id, message, set_it)

    def _answer(
        self, worker_id: int, message: msg.LookUp | msg.SetLookup, act: Callable[[], Any]
    ) -> None:
        error = None
        try:
            value = byvalue.encode_by_value(act())
        except Exception as raised:
            value = _NOTHING
            error = failures.pack(failures.take_apart(raised))
        self._links[worker_id].send(msg.Answer(message.request, error, value))

    # Custom messages

    def _on_ask(self, worker_id: int, message: msg.Ask) -> None:
        try:
            data = decode(message.value)
        except Exception as error:
            text = f"the data of {message.cmd!r} cannot be unpickled: {error}"
            self.reply_error(worker_id, message.cmd, message.callback, SerialisationError(text))
            return
        post = Message(message.cmd, data, message.callback, worker_id, self._owner.id)
        try:
            reply = self._owner._handle_message(worker_id, post)
        except Exception as error:
            self._note_handler_error(worker_id, post, error)
            return
        if asyncio.iscoroutine(reply):
            task = self._loop.create_task(self._finish_handler(worker_id, post, reply))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _finish_handler(self, worker_id: int, post: Message, reply: Any) -> None:
        try:
            await reply
        except Exception as error:
            self._note_handler_error(worker_id, post, error)

    def _note_handler_error(self, worker_id: int, post: Message, error: Exception) -> None:
        if not isinstance(error, UnknownCommandError):
            _log.error("the handler of command %r raised", post.cmd, exc_info=error)
        self.reply_error(worker_id, post.cmd, post.callback, error)

    def reply_error(self, worker_id: int, cmd: str, callback: str | None, error: Exception) -> None:
        """Tell a worker that its request could not be answered."""
        if callback is not None and worker_id in self._links:
            packed = failures.pack(failures.take_apart(error))
            self._links[worker_id].send(msg.Post(cmd, callback, packed, _NOTHING))

    def send_message(self, worker_id: int, cmd: str, data: Any, callback: str | None) -> None:
        """Send a custom message to a worker."""
        if worker_id not in self._links:
            raise WorkerGoneError(worker_id)
        self._links[worker_id].send(msg.Post(cmd, callback, None, byvalue.encode_by_value(data)))

    def broadcast(self, cmd: str, data: Any) -> None:
        """Send a custom message to every worker."""
        value = byvalue.encode_by_value(data)
        for link in self._links.values():
            link.send(msg.Post(cmd, None, None, value))


_NEEDS_A_LOOK = frozenset({bytes, tuple})
"""Types of results that are not the values themselves: pickles and failures."""
_NOTHING = Encoded(pickle.dumps(None), [])
_CARRY_OUT: dict[type[Any], Callable[[Run, Any], None]] = {
    do.ReadJobs: Run._read_jobs,
    do.StartWorker: Run._start_worker,
    do.HandOut: Run._hand_out,
    do.RecallJobs: Run._recall,
    do.StopWorker: Run._stop_worker,
    do.TerminateWorker: Run._terminate,
    do.KillWorker: Run._kill,
    do.ReturnJobs: Run._return_jobs,
    do.AnnounceExit: Run._announce_exit,
    do.EmitStats: Run._emit_stats,
    do.EndRun: Run._end_run,
}
_ON_MESSAGE: dict[type[Any], Callable[[Run, int, Any], None]] = {
    msg.Ready: Run._on_ready,
    msg.Bell: Run._on_nothing,
    msg.LargeOutcome: Run._on_large_outcome,
    msg.Declined: Run._on_declined,
    msg.Ask: Run._on_ask,
    msg.LookUp: Run._on_look_up,
    msg.SetLookup: Run._on_set_lookup,
    msg.Stats: Run._on_stats,
    msg.Log: Run._on_log,
    msg.LastWords: Run._on_last_words,
    msg.Bye: Run._on_bye,
}


def _job_messages(command: do.HandOut) -> list[msg.Jobs | msg.LargeJob]:
    """Make the messages of a hand-out: runs of small jobs together, large ones alone."""
    attempts = dict(command.attempts)
    made: list[msg.Jobs | msg.LargeJob] = []
    small: list[Job] = []

    def flush(end: int) -> None:
        if small:
            begin = end - len(small)
            numbers = [(i - begin, n) for i, n in attempts.items() if begin <= i < end]
            keys = pickle.dumps([job.key for job in small], 5)
            wires = [job.wire for job in small]
            made.append(msg.Jobs(command.first + begin, wires, keys, numbers))
            small.clear()

    for index, job in enumerate(command.jobs):
        if type(job.wire) is not Encoded:
            small.append(job)
            continue
        flush(index)
        key = pickle.dumps(job.key, 5)
        ordinal = command.first + index
        made.append(msg.LargeJob(ordinal, key, attempts.get(index, 1), job.wire))
    flush(len(command.jobs))
    return made


def _decoded(encoded: Encoded) -> tuple[Any, SerialisationError | None]:
    try:
        return decode(encoded), None
    except KeyboardInterrupt:
        raise  # more likely the user's than the value's
    except BaseException as error:  # a class's __setstate__ may raise anything
        message = (
            "the value of this job cannot be unpickled in the conductor: "
            f"{type(error).__name__}: {error}"
        )
        made = SerialisationError(message)
        made.__cause__ = error
        return None, made


def _root_level() -> int:
    return logging.getLogger().level
