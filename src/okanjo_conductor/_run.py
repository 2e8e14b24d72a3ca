"""One run: the shell around the core, on any event loop.

Turns what happens outside into events, hands them to `ConductorState` one at a time, delivers the
records of each step and carries out its commands in order. It decides nothing.
"""

from __future__ import annotations

import sys
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from okanjo_conductor import _posts as posts
from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core.endings import cause_of
from okanjo_conductor._core.outcomes import outcomes_of
from okanjo_conductor._core.prefetch import MAX_BATCH
from okanjo_conductor._core.records import JobFailed, JobsDone
from okanjo_conductor._core.state import ConductorState
from okanjo_conductor._delivery import ReportBuilder
from okanjo_conductor._intake import Intake
from okanjo_conductor._io import bootstrap, loggers
from okanjo_conductor._io.loops import call_soon
from okanjo_conductor._posts import Posts
from okanjo_conductor._types import Cause, JobProgress, Ordinal, WorkerId
from okanjo_conductor._vitals import Vitals
from okanjo_conductor._wire import byvalue, failures, pickling
from okanjo_conductor._wire import messages as msg
from okanjo_conductor._wire.codec import Encoded, decode, size_of
from okanjo_conductor.errors import (
    IntakeError,
    JobTimeoutError,
    JournalError,
    PlacementError,
    SerialisationError,
    SinkError,
    TooManyFailuresError,
    describe_exit,
)
from okanjo_conductor.lookups import arrays, live
from okanjo_conductor.lookups.live import Desk, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._core.policy import Policy
    from okanjo_conductor._core.records import Record
    from okanjo_conductor._delivery import OutcomeBuffer
    from okanjo_conductor._intake import JobsQueue
    from okanjo_conductor._io.loops import Loop, Timer
    from okanjo_conductor._journaling import Journaling, JournalPlan
    from okanjo_conductor._snapshot import Observer, Snapshot
    from okanjo_conductor._types import Attempt, JobId, Key, Report, StatsReport
    from okanjo_conductor._wire.messages import AnyMessage
    from okanjo_conductor.clusters._base import Launch, Link
    from okanjo_conductor.errors import ConductorError, ProtocolError
    from okanjo_conductor.sinks import Feed

_TICK = 0.02
"""Seconds after which outcomes that no frame announced are looked for, at the earliest."""
_TICK_OF_ONE = 0.0002
"""The same, for each worker: to look at one takes a few microseconds, so that is a few percent."""
_WARNING = 30
"""The level of the root logger as it comes."""
_TOLD_OF_AN_ERROR = 1000
"""Characters of an error's text that the next attempt is told."""


if TYPE_CHECKING:  # making protocols takes a while, in every new process

    class Owner(live.Owner, posts.Owner, Protocol):
        """The conductor, as its run sees it."""

        def _note_stats(self, report: StatsReport) -> None: ...

        def _note_report(self, report: Report) -> None: ...

        def _wants_all_of(self, slots: int) -> bool: ...

        def _emit(self, event: str, *args: Any) -> None: ...

        def _has_listeners(self, event: str) -> bool: ...

        def _say(self, text: str, *args: Any) -> None: ...


class Run:
    """Everything that lives as long as one run."""

    def __init__(
        self,
        owner: Owner,
        loop: Loop,
        *,
        launch: Launch,
        options: bytes,
        concurrency: int | None,
        slots: int,
        largest_batch: int | None,
        policy: Policy,
        jobs_queue: JobsQueue,
        job_key: Callable[[Any], Key] | None,
        job_timeout: float | Callable[[Any], float | None] | None,
        buffer: OutcomeBuffer | None,
        buffer_limit: int | None,
        sticky: list[tuple[str, Encoded]],
        journal: JournalPlan | None = None,
        feed: Feed | None = None,
    ) -> None:
        self._owner = owner
        self._loop = loop
        largest = min(buffer_limit or MAX_BATCH, largest_batch or MAX_BATCH, MAX_BATCH)
        self._state = ConductorState(slots=slots, policy=policy, largest_batch=largest)
        self._options = options
        self._concurrency = concurrency
        self._slots = slots
        self._links: dict[int, Link] = {}
        self._report, self._feed = ReportBuilder(), feed
        self._journal = None if journal is None else self._make_journaling(journal)
        self.intake = Intake(jobs_queue, job_key, job_timeout, self.post, self._loop, self._journal)
        self._observer: Observer | None = None
        """Makes snapshots, once somebody has asked for one."""
        self._buffer = buffer
        self._buffer_limit = buffer_limit
        self._pauses: set[str] = set()
        """Who is behind: the consumer, or the journal."""
        self._arena = arrays.place(owner.lookups)
        self._crew = crew = launch.open(
            loop, self, None if self._arena is None else self._arena.descriptor
        )
        crew.publish(lambda: live.tables_among(owner.lookups))
        make_threads = partial(crew.make_threads, loop=loop)
        self.lookups = Desk(owner, loop, self._links, self._arena, make_threads)
        self.posts = Posts(
            owner,
            loop,
            self._links,
            make_threads(1, "okanjo-conductor-handlers"),
            sticky,
            self.intake.go_on,
        )
        self.intake.is_expecting = self._may_bring_jobs
        self._added: dict[JobId, int] = {}
        """By unfinished job, how many jobs it has added: once, however often it is executed."""
        self._vitals = Vitals(
            self._loop,
            self._links,
            policy,
            post=self.post,
            measure=crew.measure,
            dump_stack=crew.dump_stack,
            emit=owner._emit,
        )
        self._to_add: list[tuple[Encoded, bytes | None, float | None]] = []
        """Jobs that workers have added, to be accepted before the next event."""
        self._last_words: dict[int, str] = {}
        self._farewells: set[int] = set()
        """Workers that have said that they leave."""
        self._definitions: list[msg.Define] = []
        """Objects of ``__main__`` that payloads need, in the order in which they came up."""
        self._events: deque[ev.Event] = deque()
        self._is_handling = False
        self._timer: Timer | None = None
        self._timer_at: float | None = None
        self._tick_timer: Timer | None = None
        self._is_over = False
        self._verdict: do.EndRun | None = None
        """What the core ended the run with."""
        self.is_closed = False
        """Whether nothing of the run is left but its report."""
        self._then: Callable[[], None] = lambda: None
        self._began = loop.time()
        self._made: Report | None = None
        self._broken: BaseException | None = None
        """What a handler of the user's raised that must end the run."""
        self.last_stats: dict[str, Any] = {}

    def _make_journaling(self, plan: JournalPlan) -> Journaling:
        from okanjo_conductor._journaling import Journaling  # only for those who have a journal

        return Journaling(
            plan,
            self._loop,
            self._links,
            oldest_held=self._state.oldest_held,
            skip=self._report.jobs_skipped,
            unread=lambda: self.intake.unread(self.intake.length),
            deliver=self._deliver_committed,
            pause=lambda is_behind: self._set_pause("journal", is_behind=is_behind),
            fail=self._stop_for,
        )

    # Life

    def begin(self, generated: Any, stop: ev.Event | None, then: Callable[[], None]) -> None:
        """Run until every job has its outcome, and call `then`: there is a `result`.

        Args:
            generated: further jobs, what ``generate_jobs`` gave, or None.
            stop: what was asked for before the run began: to drain or abort it.
        """
        self._then = then
        if self._buffer is not None:
            self._buffer.on_resume = self._resume_delivery
            self._set_buffer_limit(1)
        try:
            if generated is not None:
                self.intake.add(generated)
            if self._journal is not None:
                self.intake.ask_length()
            self._tick()
            self.post(ev.RunStarted())
            if stop is not None:
                self.post(stop)
        except Exception as error:
            self._broken = error
            self._finish()

    def result(self) -> Report:
        """Return the report, or raise what ended the run."""
        report = self._made
        if self._broken is not None:
            raise self._broken
        verdict = self._verdict
        if verdict is not None and verdict.error is not None:
            raise verdict.error
        if (error := self.intake.error) is not None:
            message = f"the source of jobs raised {type(error).__name__}: {error}"
            raise IntakeError(message) from error
        assert report is not None  # noqa: S101 - the run is closed
        if verdict is not None and verdict.is_over_budget:
            raise TooManyFailuresError(report)
        return report

    def _finish(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._loop.call_soon(self._close)

    def _close(self) -> None:
        try:
            self._end()
        except Exception as error:
            self._broken = self._broken or error
        self.posts.close(lambda: self.intake.close(lambda: self._crew.close(self._commit_rest)))

    def _commit_rest(self) -> None:
        if self._journal is None:
            self._conclude()
        else:
            self._journal.close(self._conclude)

    def _conclude(self) -> None:
        if self._buffer is not None:
            self._buffer.end()
        now, unstarted = self._loop.time(), self.intake.known()
        self._made = report = self._report.build(
            now - self._began, unstarted, self.last_stats, payloads=self.intake.payloads, now=now
        )
        report.stopped = "" if self._verdict is None else self._verdict.stopped
        if self._feed is not None:
            try:
                self._feed.close()
            except SinkError as error:
                self._broken = self._broken or error
        if self._journal is not None:
            try:
                self._journal.conclude(report, self._broken)
            except JournalError as error:
                self._broken = error
        self._owner._note_report(report)
        self.is_closed = True
        self._then()

    def _end(self) -> None:
        for timer in (self._timer, self._tick_timer):
            if timer is not None:
                timer.cancel()
        for link in self._links.values():
            link.finish()
        self._links.clear()
        self.intake.stop()
        self._accept_added()
        self._vitals.close()
        self.lookups.close()
        if self._arena is not None:
            self._arena.close()

    def cancel(self, key: Key) -> bool:
        """Cancel an unfinished job; say whether there is one of that key."""
        job_id = self._state.find(key)
        if job_id is None:
            return False
        self.post(ev.CancelRequested(job_id=job_id))
        return True

    def set_limit(self, seconds: float) -> None:
        """Let jobs without a time limit of their own have this one."""
        self.post(ev.LimitSet(seconds=seconds))

    def resize(self, slots: int) -> None:
        """Let there be more workers, or fewer."""
        self._slots = slots
        self.post(ev.ResizeRequested(slots=slots))

    def snapshot(self, length: int | None) -> Snapshot:
        """Say how the run stands. Reads tables and cells only.

        Args:
            length: how many jobs the source has given and will give; None: it does not say.
        """
        if self._observer is None:
            from okanjo_conductor._snapshot import Observer  # who does not ask does not pay

            self._observer = Observer()
        state, links = self._state, self._links
        return self._observer.look(
            now=self._loop.time(),
            began=self._began,
            phase=state.phase.name.lower(),
            sights=state.survey({i: link.last_started() for i, link in links.items()}),
            empty=state.empty_slots,
            accepted=state.accepted,
            unread=self.intake.unread(length),
            pids=self._vitals.pids,
            books=self._report,
        )

    def kill_workers(self) -> None:
        """End every worker by force."""
        for worker_id in tuple(self._links):
            self._crew.kill(worker_id)

    # Events in, steps out

    def post(self, event: ev.Event) -> None:
        """Hand an event to the core and take the step; an event that comes of it waits."""
        if self._to_add:
            self._accept_added()  # ahead of the outcome of the job that has added them
        self._events.append(event)
        if not self._is_handling:
            self._take_steps()

    def _take_steps(self) -> None:
        self._is_handling = True
        try:
            while self._events and not self._is_over:
                step = self._state.handle(self._events.popleft(), self._loop.time())
                if step.records:
                    self._pass_on(step.records)
                for command in step.commands:
                    _CARRY_OUT[type(command)](self, command)
        except Exception as error:
            self._broken = error
            self.give_up()
        finally:
            self._is_handling = False
        if self._journal is not None:
            self._journal.mark(is_idle=not self._state.is_busy)
        self._set_timer()
        if self._buffer is not None:
            self._buffer.announce()

    def interrupt(self, why: str) -> None:
        """Abort, and do not wait for handlers of commands: something is raised out of the run."""
        self.posts.abandon()
        self.post(ev.AbortRequested(why=why))

    def give_up(self) -> None:
        """End the run at once: the core or the shell itself has failed, or nobody will wait."""
        self.kill_workers()
        self._finish()
        self.posts.abandon()

    def _set_timer(self) -> None:
        deadline = None if self._is_over else self._state.next_deadline()
        if deadline == self._timer_at:
            return
        self._timer_at = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._pass_time)

    def _pass_time(self) -> None:
        self._timer_at = None
        self._read_outcomes()  # who has just finished must not be judged
        self.post(ev.TimePassed())

    def _read_outcomes(self) -> None:
        for link in tuple(self._links.values()):
            link.tick()

    def _tick(self) -> None:
        if self._state.is_busy:
            self._read_outcomes()
            self._vitals.look()
        pause = max(_TICK, _TICK_OF_ONE * len(self._links))
        self._tick_timer = self._loop.call_later(pause, self._tick)

    # Records

    def _pass_on(self, records: list[Record]) -> None:
        """Deliver records, or have them committed before."""
        if self._added:
            self._forget_added(records)
        if self._journal is None:
            self._deliver(records)
        else:
            self._journal.write(records)

    def _deliver_committed(self, records: list[Record]) -> None:
        """Deliver records that were passed on before."""
        self._deliver(records)
        self.intake.go_on()
        if not self._is_handling:
            self._take_steps()

    def _may_bring_jobs(self) -> bool:
        """Whether somebody is at work, or still to be told of outcomes, who may add jobs."""
        return self.posts.is_at_work or (self._journal is not None and self._journal.is_at_work)

    def _stop_for(self, error: ConductorError) -> None:
        """Stop, because journal, sinks or nodes take no more, and raise that at the end."""
        self._broken = self._broken or error
        if not self._is_over:
            self.post(ev.AbortRequested(why=str(error)))

    def _deliver(self, records: list[Record]) -> None:
        owner = self._owner
        if self._feed is not None:
            self._write_to_sinks(self._feed, records)
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
            self._set_pause("consumer", is_behind=True)
        if self._state.is_dry and self.intake.known():
            self._events.append(ev.IntakeReopened())

    def _write_to_sinks(self, feed: Feed, records: list[Record]) -> None:
        try:
            feed.write(records)
        except SinkError as error:
            self._stop_for(error)

    def _forget_added(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, JobsDone):
                for job_id in record.jobs.ids:
                    self._added.pop(job_id, None)
            elif isinstance(record, JobFailed):
                self._added.pop(record.job.id, None)

    def _resume_delivery(self) -> None:
        call_soon(self._loop, partial(self._set_pause, "consumer", is_behind=False))

    def _set_pause(self, who: str, *, is_behind: bool) -> None:
        """Let no job be read while anybody is behind with the outcomes."""
        was_paused = bool(self._pauses)
        (self._pauses.add if is_behind else self._pauses.discard)(who)
        if bool(self._pauses) != was_paused:
            self._events.append(ev.DeliveryResumed() if was_paused else ev.DeliveryPaused())
            if not self._is_handling:
                self._take_steps()

    def _set_buffer_limit(self, batch: int) -> None:
        if self._buffer is not None:
            fitting = self._buffer_limit or 4 * self._slots * batch
            self._buffer.limit = max(self._buffer.limit, fitting)

    # Commands

    def _read_jobs(self, command: do.ReadJobs) -> None:
        self.intake.read(command.count)

    def _start_worker(self, command: do.StartWorker) -> None:
        worker_id = command.worker_id
        self._report.clock.ordered(worker_id, self._loop.time())
        page = None if self._journal is None else self._journal.page_path(worker_id)
        order = bootstrap.Start(
            worker_id,
            command.slot,
            self._owner.id,
            True,
            self._options,
            _root_level(),
            self._concurrency,
        )
        try:
            self._links[worker_id] = self._crew.start_worker(order, page)
        except OSError as error:
            self._loop.call_soon(self.on_worker_exited, worker_id, None, None, str(error))
            return
        self.posts.worker_added(worker_id)

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
            if self._journal is not None:
                self._journal.note_hand_out(command.worker_id, message)
            link.send(message)

    def _recall(self, command: do.RecallJobs) -> None:
        worker_id = command.worker_id

        def answer(beyond: Ordinal) -> None:
            self.post(ev.JobsRecalled(worker_id=worker_id, beyond=beyond))

        self._links[worker_id].recall(command.last, answer)

    def _stop_worker(self, command: do.StopWorker) -> None:
        link = self._links.get(command.worker_id)  # None: it could not be started, and will exit
        if not self._crew.withdraw(command.worker_id) and link is not None:
            link.send(msg.Stop())

    def _terminate(self, command: do.TerminateWorker) -> None:
        self._crew.terminate(command.worker_id)

    def _kill(self, command: do.KillWorker) -> None:
        self._crew.kill(command.worker_id)

    def _dump_stack(self, command: do.DumpStack) -> None:
        self._crew.dump_stack(command.worker_id)

    def _interrupt_job(self, command: do.InterruptJob) -> None:
        self._crew.interrupt(command.worker_id, command.ordinal, command.limit)

    def _cancel_job(self, command: do.CancelJob) -> None:
        self._links[command.worker_id].send(msg.Cancel(command.ordinal, command.limit))

    def _report_stuck(self, command: do.ReportStuck) -> None:
        self._vitals.report_stuck(command)

    def _return_jobs(self, command: do.ReturnJobs) -> None:
        self.intake.give_back(command.jobs)

    def _announce_exit(self, command: do.AnnounceExit) -> None:
        end, owner = command.end, self._owner
        if end.cause is not None:
            self._report.worker_lost(end)
        owner._say("worker %d %s", end.worker_id, describe_exit(end.code, end.signal))
        owner._emit("worker_exit", end)
        if end.cause is Cause.CRASH:
            owner._emit("error", end.as_crash())

    def _emit_stats(self, command: do.EmitStats) -> None:
        self.last_stats = command.report.agg.last
        self._owner._note_stats(command.report)

    def _end_run(self, command: do.EndRun) -> None:
        self.intake.stop()
        self._verdict = command
        self._finish()

    # What workers say (Receiver, Watcher)

    def on_worker_started(self, worker_id: int, pid: int) -> None:
        """A worker's process exists."""
        self._report.worker_started()
        self._vitals.worker_started(worker_id, pid)
        self._owner._say("worker %d has started as process %d", worker_id, pid)
        self._owner._emit("worker_start", worker_id, pid)

    def on_worker_exited(
        self, worker_id: int, code: int | None, signal: str | None, detail: str
    ) -> None:
        """A worker's process is gone."""
        link = self._links.get(worker_id)
        claimed, running, stderr, stack = None, None, "", ""
        if link is not None:
            claimed, running = link.last_started(), link.running()
            skipped = link.last_skipped()
            stack = link.take_stack()
            link.finish()  # the core may answer its last outcomes with a hand-out: still a link
            if skipped is not None:
                self._post_declined(worker_id, *skipped)
            self._accept_added()  # likewise
            stderr = link.stderr
            del self._links[worker_id]
            self.posts.worker_gone(worker_id)
        self._note_end_of(worker_id, claimed)
        self.lookups.forget_worker(worker_id)
        if code is None and signal is None and worker_id in self._farewells:
            code = 0  # its status went with the template that had forked it
        self._farewells.discard(worker_id)
        self.post(
            ev.WorkerExited(
                worker_id=WorkerId(worker_id),
                code=code,
                signal=signal,
                claimed=claimed,
                running=running,
                detail=self._last_words.pop(worker_id, "") or detail,
                stderr=stderr,
                stack=stack,
                is_oom=self._vitals.worker_gone(worker_id, signal),
            )
        )
        if self._journal is not None:
            self._journal.note_exit(worker_id)

    def on_no_place(self, detail: str) -> None:
        """There can be no workers: the run cannot go on."""
        self._stop_for(PlacementError(detail))

    def on_room(self, slots: int) -> None:
        """The cluster has room for so many workers."""
        if self._owner._wants_all_of(slots):
            self.resize(slots)

    def _note_end_of(self, worker_id: int, claimed: Ordinal | None) -> None:
        """Write down how long a worker has lived, and its last job with it."""
        now, executing = self._loop.time(), 0.0
        if claimed is not None and self._state.job_of(WorkerId(worker_id), claimed) is not None:
            executing = now - self._vitals.executing_since(worker_id, claimed, now)
        self._report.clock.gone(worker_id, now, executing)

    def on_garbage(self, worker_id: int, error: ProtocolError) -> None:
        """A worker's links carry garbage: end it, its outcomes cannot be believed."""
        self._last_words[worker_id] = f"something wrote into the worker's own descriptors: {error}"
        self._crew.kill(worker_id)

    def on_outcomes(
        self, worker_id: int, ordinals: list[int], nanoseconds: list[int], results: list[Any]
    ) -> None:
        """A worker has written outcome records: pass on runs of done jobs, failures singly."""
        if self._journal is not None:
            self._journal.note_outcomes(worker_id)
        if _NEEDS_A_LOOK.isdisjoint(map(type, results)):
            self._post_done(worker_id, ordinals, nanoseconds, 0, results)
            return
        begin = 0
        values: list[Any] = []
        for index, result in enumerate(results):
            kind = type(result)
            if kind is bytes:
                if len(result) > self._report.values.floor:
                    self._weigh(worker_id, ordinals[index], len(result))
                value, error = self._decoded(worker_id, ordinals[index], Encoded(result, []))
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

    def _weigh(self, worker_id: int, ordinal: int, size: int) -> None:
        """Note the bytes of a value."""
        job = self._state.job_of(WorkerId(worker_id), Ordinal(ordinal))
        if job is not None:
            self._report.values.note(size, job.id, job.key)

    def _decoded(
        self, worker_id: int, ordinal: int, encoded: Encoded
    ) -> tuple[Any, SerialisationError | None]:
        try:
            return decode(encoded), None
        except KeyboardInterrupt:
            raise  # more likely the user's than the value's
        except BaseException as error:  # a class's __setstate__ may raise anything
            from okanjo_conductor._wire import refusals  # rarely needed

            job = self._state.job_of(WorkerId(worker_id), Ordinal(ordinal))
            key = None if job is None else job.key
            return None, refusals.unloadable(key, "value", encoded, error)

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
        if isinstance(error, JobTimeoutError):
            error.stack = error.stack or self._links[worker_id].take_stack()
        self.post(
            ev.AttemptFailed(
                worker_id=WorkerId(worker_id),
                ordinal=Ordinal(ordinal),
                cause=cause_of(error),
                error=error,
                place=place,
                nanoseconds=nanoseconds,
            )
        )

    def on_message(self, worker_id: int, message: AnyMessage) -> None:
        """A worker sent a message."""
        handle = _ON_MESSAGE.get(type(message))
        if handle is not None:
            handle(self, worker_id, message)
        else:
            self.lookups.on_message(worker_id, message)

    def _on_ready(self, worker_id: int, message: msg.Ready) -> None:
        self._links[worker_id].note_urgent(message.urgent)
        self._vitals.worker_ready(worker_id, message.concurrency)
        is_parallel = message.concurrency > 1
        self._report.clock.set_up(worker_id, self._loop.time(), is_parallel=is_parallel)
        self.post(
            ev.WorkerReady(
                worker_id=WorkerId(worker_id),
                concurrency=message.concurrency,
                can_cancel=message.can_cancel,
                round_trip=self._links[worker_id].round_trip,
            )
        )

    def _on_large_outcome(self, worker_id: int, message: msg.LargeOutcome) -> None:
        if message.is_failure:
            failure: bytes | Exception | None = bytes(message.value.blob)
            value = None
        else:
            self._weigh(worker_id, message.ordinal, size_of(message.value))
            value, failure = self._decoded(worker_id, message.ordinal, message.value)
        if failure is None:
            self._post_done(worker_id, [message.ordinal], [message.nanoseconds], 0, [value])
        else:
            self._post_failed(worker_id, message.ordinal, message.nanoseconds, failure)
        if self._journal is not None:
            self._journal.note_large_outcome(worker_id)

    def _on_ask(self, worker_id: int, message: msg.Ask) -> None:
        self.posts.on_ask(worker_id, message)

    def _on_response(self, worker_id: int, message: msg.Response) -> None:
        self.posts.on_response(worker_id, message)

    def _on_log(self, worker_id: int, message: msg.Log) -> None:
        try:
            loggers.pass_on(read(message.value, "a log record"))
        except SerialisationError as error:
            loggers.log().error("worker %d: %s", worker_id, error)

    def _on_add_job(self, worker_id: int, message: msg.AddJob) -> None:
        adder = self._state.job_of(WorkerId(worker_id), Ordinal(message.ordinal))
        if adder is not None:
            if message.number <= self._added.get(adder.id, 0):
                return  # an earlier attempt has added it
            self._added[adder.id] = message.number
        if not self._to_add:
            self._loop.call_soon(self._accept_added)
        self._to_add.append((message.value, message.key, message.timeout))

    def _accept_added(self) -> None:
        """Accept what workers have added, together: a step for each would be slow."""
        added, self._to_add = self._to_add, []
        if added:
            self.intake.add_encoded(added)

    def _on_progress(self, worker_id: int, message: msg.Progress) -> None:
        job = self._state.job_of(WorkerId(worker_id), Ordinal(message.ordinal))
        if job is not None and self._owner._has_listeners("job_progress"):
            progress = JobProgress(worker_id, job.key, message.fraction, message.text)
            self._owner._emit("job_progress", progress)

    def _on_abort_run(self, _worker_id: int, message: msg.AbortRun) -> None:
        self.post(ev.AbortRequested(why=message.why))

    def _on_declined(self, worker_id: int, message: msg.Declined) -> None:
        self._post_declined(worker_id, message.first, message.last)

    def _post_declined(self, worker_id: int, first: int, last: int) -> None:
        declined = ev.JobsDeclined(
            worker_id=WorkerId(worker_id), first=Ordinal(first), last=Ordinal(last)
        )
        self.post(declined)

    def _on_stats(self, worker_id: int, message: msg.Stats) -> None:
        self.post(
            ev.StatsReported(
                worker_id=WorkerId(worker_id),
                totals=message.totals,
                time_span=message.time_span,
            )
        )

    def _on_last_words(self, worker_id: int, message: msg.LastWords) -> None:
        self._last_words[worker_id] = message.text

    def _on_bye(self, worker_id: int, _message: msg.Bye) -> None:
        self._farewells.add(worker_id)

    def _on_nothing(self, worker_id: int, message: AnyMessage) -> None:
        """A bell, whose outcomes are applied by now."""


_NEEDS_A_LOOK = frozenset({bytes, tuple})
"""Types of results that are not the values themselves: pickles and failures."""
_CARRY_OUT: dict[type[Any], Callable[[Run, Any], None]] = {
    do.ReadJobs: Run._read_jobs,
    do.StartWorker: Run._start_worker,
    do.HandOut: Run._hand_out,
    do.RecallJobs: Run._recall,
    do.StopWorker: Run._stop_worker,
    do.DumpStack: Run._dump_stack,
    do.InterruptJob: Run._interrupt_job,
    do.CancelJob: Run._cancel_job,
    do.ReportStuck: Run._report_stuck,
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
    msg.Response: Run._on_response,
    msg.AddJob: Run._on_add_job,
    msg.Log: Run._on_log,
    msg.Progress: Run._on_progress,
    msg.AbortRun: Run._on_abort_run,
    msg.Stats: Run._on_stats,
    msg.LastWords: Run._on_last_words,
    msg.Bye: Run._on_bye,
}


def _job_messages(command: do.HandOut) -> list[msg.Jobs | msg.LargeJob]:
    """Make the messages of a hand-out: runs of small jobs together, large ones alone."""
    jobs, histories = command.jobs, command.histories
    wires = list(jobs.wires)
    has_large = Encoded in map(type, wires)
    large = [i for i, w in enumerate(wires) if type(w) is Encoded] if has_large else []
    made: list[msg.Jobs | msg.LargeJob] = []
    begin = 0
    for index in (*large, len(wires)):
        if begin < index:
            theirs = [(i - begin, _bad_ends(h)) for i, h in histories.items() if begin <= i < index]
            keys = pickling.dumps(jobs.keys[begin:index], 5)
            made.append(msg.Jobs(command.first + begin, wires[begin:index], keys, theirs))
        if index < len(wires):
            key = pickling.dumps([jobs.keys[index]], 5)
            history = _bad_ends(histories.get(index, ()))
            made.append(msg.LargeJob(command.first + index, key, history, wires[index]))
        begin = index + 1
    return made


def _bad_ends(history: tuple[Attempt, ...]) -> list[msg.BadEnd]:
    """Take attempts apart to travel."""
    return [
        (
            end.number,
            end.cause.value,
            getattr(end.error, "type_name", None) or failures.qualified_name(type(end.error)),
            failures.text_of(end.error)[:_TOLD_OF_AN_ERROR],
            end.worker_id,
            end.seconds,
        )
        for end in history
    ]


def _root_level() -> int:
    logging = sys.modules.get("logging")  # who has not loaded it has not set a level
    return _WARNING if logging is None else logging.getLogger().level
