"""A small simulated world around a `ConductorState`: the shell, the workers, the source, a clock.

The world carries out commands and answers with events, as the shell does. It keeps books of its
own (who executes what, who was charged for what) and compares them with what the core says:
`deliver` judges every step, `check` the state between steps.

A simulated worker executes what it was handed in the order of the ordinals. It *claims* an
ordinal, then finishes it; what it says waits in its `outbox` until the world lets the core hear it.
Recalls follow the protocol of claims: ordinals after the claimed one are revoked, one may race.
"""

from __future__ import annotations

from collections import Counter, deque
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count

import pytest

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.jobs import Job
from okanjo_conductor._core.policy import Policy
from okanjo_conductor._core.state import ConductorState, Phase
from okanjo_conductor._types import Cause, JobState, Retry
from okanjo_conductor.errors import IllegalEventError, JobCancelledError, WorkerCrashError

GRACE = 2.0
_MANY = 10_000
"""Events in one go: more than that is a loop without end."""


class FaultyJobError(Exception):
    """What a simulated job raises."""


@dataclass(eq=False)
class SimWorker:
    """A worker, as the world knows it."""

    id: int
    slot: int
    is_ready: bool = False
    handed: dict[int, Job] = field(default_factory=dict)
    """Everything it was ever handed."""
    todo: deque[int] = field(default_factory=deque)
    """Ordinals it has not looked at."""
    claimed: int | None = None
    executing: int | None = None
    last_sent: int = 0
    low: int = 0
    high: int = 0
    """Ordinals in (low, high] are revoked."""
    declined: int | None = None
    is_recalled: bool = False
    outbox: deque[ev.Event] = field(default_factory=deque)
    totals: dict[str, int] = field(default_factory=dict)
    is_stopping: bool = False
    was_terminated: bool = False
    was_killed: bool = False

    @property
    def is_racing(self) -> bool:
        """Whether the next ordinal may be executed though it is revoked."""
        return self.is_recalled and bool(self.todo) and self.todo[0] == self.low + 1

    def claim(self, *, races: bool = False) -> None:
        """Start the next ordinal, or skip it if it was revoked."""
        self.claimed = ordinal = self.todo.popleft()
        if self.low < ordinal <= self.high and not races:
            self.declined = ordinal
            self.outbox.append(ev.JobsDeclined(worker_id=self.id, first=ordinal, last=ordinal))
        else:
            self.executing = ordinal

    def finish(self, nanoseconds: int = 1_000_000) -> None:
        """End the executing job with a value."""
        done = self.outbox[-1] if self.outbox else None
        ordinal, self.executing = self.executing, None
        if isinstance(done, ev.AttemptsDone):
            done.ordinals.append(ordinal)
            done.values.append(ordinal)
            done.nanoseconds.append(nanoseconds)
            return
        self.outbox.append(
            ev.AttemptsDone(
                worker_id=self.id, ordinals=[ordinal], values=[ordinal], nanoseconds=[nanoseconds]
            )
        )

    def fail(self, cause: Cause = Cause.ERROR) -> None:
        """End the executing job without a value."""
        ordinal, self.executing = self.executing, None
        self.outbox.append(
            ev.AttemptFailed(
                worker_id=self.id,
                ordinal=ordinal,
                cause=cause,
                error=FaultyJobError(f"ordinal {ordinal}"),
                place="jobs.py:1 in job",
                nanoseconds=1_000_000,
            )
        )

    def revoke(self) -> None:
        """Revoke what it has not claimed."""
        self.is_recalled = True
        claimed = self.claimed or 0
        if claimed >= self.last_sent:
            return
        if not self.low < claimed <= self.high:
            self.low = claimed
        self.high = self.last_sent

    @property
    def last_kept(self) -> int:
        """The last ordinal it may still execute."""
        return max(self.low, self.claimed or 0)

    @property
    def last_started(self) -> int | None:
        """What it had claimed and not skipped."""
        return self.claimed if self.claimed != self.declined else None


class World:
    """The shell and everything outside it."""

    def __init__(self, *, slots: int = 2, retry: Retry | None = None) -> None:
        self.retry = retry or Retry()
        self.slots = slots
        self.state = ConductorState(
            slots=slots, policy=Policy(retry=self.retry, abort_grace=GRACE, timeout_grace=GRACE)
        )
        self.now = 0.0
        self.ids = count()
        self.source: deque[str] = deque()
        self.is_source_broken = False
        self.asked: int | None = None
        """Of the `ReadJobs` that is not answered, its count."""
        self.answers_recalls_at_once = True
        self.is_paused = False
        self.late_jobs = 0
        """How many jobs the receiver of outcomes will add yet."""
        self.workers: dict[int, SimWorker] = {}
        self.buried: list[SimWorker] = []
        self.accepted: dict[int, Job] = {}
        self.in_vain: set[int] = set()
        """Jobs that were added when the run was ending."""
        self.filled_in_vain = 0
        """How many jobs the source was given when the run was ending."""
        self.charges: dict[int, list[Cause]] = {}
        """The bad ends of every job, by the books of the world."""
        self.heard_charges: dict[int, list[Cause]] = {}
        """The same, by the records of the core."""
        self.finals: dict[int, rec.Record | Job] = {}
        self.states: dict[int, JobState] = {}
        self.returned: list[Job] = []
        self.ends: list[do.EndRun] = []
        self.exits: list[do.AnnounceExit] = []
        self.reports: list[do.EmitStats] = []
        self.commands: list[do.Command] = []
        """Of the last `send`."""
        self._events: deque[ev.Event] = deque()

    @property
    def phase(self) -> Phase:
        """Where the run stands."""
        return self.state._phase

    @property
    def is_over(self) -> bool:
        """Whether nothing may happen any more."""
        return bool(self.ends)

    # The shell

    def send(self, event: ev.Event) -> list[do.Command]:
        """Hand the core an event, do what it says, and hand it what comes of that at once."""
        self._events.append(event)
        self.commands = []
        for _ in range(_MANY):
            if not self._events or self.is_over:
                break
            self.deliver(self._events.popleft())
        else:
            pytest.fail(f"commands and answers follow each other without end: {self.state}")
        self._drop_late_jobs()
        return self.commands

    def _drop_late_jobs(self) -> None:
        """Jobs that are added in the very step that ends the run are not accepted."""
        for event in self._events:
            self.refuse(event)
            for job in event.jobs:
                del self.accepted[job.id]
        self._events.clear()

    def deliver(self, event: ev.Event) -> None:
        """Hand the core one event and do what it says."""
        step = self.state.handle(event, self.now)
        for record in step.records:
            self._receive(record)
        for command in step.commands:
            assert not self.is_over, f"{command} after the end"
            self.commands.append(command)
            self._CARRY_OUT[type(command)](self, command)

    def refuse(self, event: ev.Event) -> IllegalEventError:
        """Hand the core an event that cannot have happened, and see that nothing changes."""
        before = repr(self.state), self.state.next_deadline(), self.snapshot()
        with pytest.raises(IllegalEventError) as caught:
            self.state.handle(event, self.now)
        assert (repr(self.state), self.state.next_deadline(), self.snapshot()) == before
        return caught.value

    def snapshot(self) -> object:
        """All that the core knows, as plain data."""
        ledger, fleet = self.state._ledger, self.state._fleet
        return deepcopy(
            (
                self.places(),
                {k: len(v) for k, v in ledger._histories.items()},
                [
                    [getattr(w, name) for name in w.__slots__ if name not in ("slot", "sizer")]
                    + [w.sizer.batch, w.sizer._seconds_per_job]
                    for w in fleet
                ],
                [(s.failed_starts, s.idle_deaths, s.not_before) for s in fleet.slots],
                self.state._stats._totals,
                self.state._stats._cycle,
                self.state._is_delivery_paused,
            )
        )

    def places(self) -> dict[str, list[int]]:
        """The ids of the jobs in each place of the ledger, in order."""
        ledger = self.state._ledger
        held = {f"held by {w}": [j.id for j in jobs.values()] for w, jobs in ledger._held.items()}
        return {
            "queue": [job.id for job in ledger._queue],
            "delayed": [job_id for _, job_id, _ in ledger._delayed],
            **held,
        }

    # Records

    def _receive(self, record: rec.Record) -> None:
        if isinstance(record, rec.JobRetried):
            self.heard_charges.setdefault(record.job.id, []).append(record.attempt.cause)
            assert record.attempt.number == len(self.heard_charges[record.job.id])
            return
        if isinstance(record, rec.JobsDone):
            assert len(record.jobs) == len(record.values) == len(record.nanoseconds) > 0
            for job in record.jobs:
                history = record.histories.get(job.id, ())
                self._close(job, record, JobState.DONE, [a.cause for a in history])
        else:
            causes = [attempt.cause for attempt in record.history]
            if causes:
                assert record.cause is causes[-1]
                self.heard_charges.setdefault(record.job.id, []).append(record.cause)
            self._judge(record, causes)
            self._close(record.job, record, record.state, causes)
        if self.late_jobs:
            self.late_jobs -= 1
            self.add_by_hand(1)

    def _close(self, job: Job, record: rec.Record, state: JobState, causes: list[Cause]) -> None:
        assert job.id in self.accepted
        assert job.id not in self.finals, f"job {job.id} has a second outcome"
        self.finals[job.id], self.states[job.id] = record, state
        assert causes == self.charges.get(job.id, [])
        assert causes == self.heard_charges.get(job.id, [])

    def _judge(self, record: rec.JobFailed, causes: list[Cause]) -> None:
        spent = Counter(causes)
        match record.cause:
            case Cause.CRASH:
                assert record.state is JobState.QUARANTINED
                assert spent[Cause.CRASH] == self.retry.crashes + 1
                assert isinstance(record.error, WorkerCrashError)
            case Cause.PREEMPTED:
                assert record.state is JobState.CANCELLED
                assert isinstance(record.error, JobCancelledError)
            case Cause.ERROR:
                assert record.state is JobState.FAILED
                assert spent[Cause.ERROR] == self.retry.errors + 1
            case Cause.UNSERIALISABLE:
                assert record.state is JobState.FAILED

    # Commands

    def _read_jobs(self, command: do.ReadJobs) -> None:
        assert self.asked is None, "two questions at once"
        assert not self.is_paused
        assert not self.is_source_broken
        assert self.phase is Phase.RUNNING
        fleet = self.state._fleet
        bound = max(2 * self.slots, sum(w.sizer.batch for w in fleet.takers()))
        assert 0 < command.count <= bound
        assert self.state._ledger.queued + command.count <= bound
        self.asked = command.count

    def _start_worker(self, command: do.StartWorker) -> None:
        assert 0 <= command.slot < self.slots
        assert command.slot not in {w.slot for w in self.workers.values()}
        assert command.worker_id == 1 + len(self.workers) + len(self.buried), "ids are reused"
        self.workers[command.worker_id] = SimWorker(command.worker_id, command.slot)

    def _hand_out(self, command: do.HandOut) -> None:
        worker = self.workers[command.worker_id]
        assert worker.is_ready
        assert not worker.is_stopping
        assert not worker.is_recalled
        assert command.first == worker.last_sent + 1
        assert command.jobs
        batch = self.state._fleet.get(worker.id).sizer.batch
        for place, job in enumerate(command.jobs):
            assert len(command.histories.get(place, ())) == len(self.charges.get(job.id, ()))
            worker.last_sent += 1
            worker.handed[worker.last_sent] = job
            worker.todo.append(worker.last_sent)
        assert len(command.jobs) <= batch
        assert self.state._ledger.held_by(worker.id) <= 2 * batch

    def _recall_jobs(self, command: do.RecallJobs) -> None:
        worker = self.workers[command.worker_id]
        assert not worker.is_recalled
        worker.revoke()
        if self.answers_recalls_at_once:
            self._events.append(self.recall_answer(worker))

    def _stop_worker(self, command: do.StopWorker) -> None:
        worker = self.workers[command.worker_id]
        assert not worker.is_stopping
        worker.is_stopping = True

    def _terminate_worker(self, command: do.TerminateWorker) -> None:
        worker = self.workers[command.worker_id]
        assert worker.is_stopping
        assert not worker.was_terminated
        worker.was_terminated = True

    def _kill_worker(self, command: do.KillWorker) -> None:
        worker = self.workers[command.worker_id]
        assert worker.was_terminated
        worker.was_killed = True

    def _return_jobs(self, command: do.ReturnJobs) -> None:
        assert command.jobs == sorted(command.jobs, key=lambda job: job.id)
        self.returned += command.jobs

    def _announce_exit(self, command: do.AnnounceExit) -> None:
        self.exits.append(command)

    def _emit_stats(self, command: do.EmitStats) -> None:
        assert command.report.raw
        self.reports.append(command)

    def _end_run(self, command: do.EndRun) -> None:
        assert not self.workers, "workers are left"
        self.ends.append(command)

    _CARRY_OUT = {  # noqa: RUF012 - a table
        do.ReadJobs: _read_jobs,
        do.StartWorker: _start_worker,
        do.HandOut: _hand_out,
        do.RecallJobs: _recall_jobs,
        do.StopWorker: _stop_worker,
        do.TerminateWorker: _terminate_worker,
        do.KillWorker: _kill_worker,
        do.ReturnJobs: _return_jobs,
        do.AnnounceExit: _announce_exit,
        do.EmitStats: _emit_stats,
        do.EndRun: _end_run,
    }

    # What may happen

    def start(self, jobs: int = 0) -> list[do.Command]:
        """Begin the run, with so many jobs in the source."""
        self.source.extend("job" for _ in range(jobs))
        if self.phase is Phase.ENDING:
            self.filled_in_vain += jobs
        commands = self.send(ev.RunStarted())
        return commands + self.answer_intake() if jobs else commands

    def make_job(self) -> Job:
        """Accept a job."""
        number = next(self.ids)
        job = Job(id=number, key=f"key {number}", payload=number, wire=b"")
        self.accepted[number] = job
        if self.phase is Phase.ENDING:
            self.in_vain.add(number)
        return job

    def answer_intake(self, limit: int = _MANY, refused: int = 0) -> list[do.Command]:
        """Answer `ReadJobs` from the source, with some jobs that cannot travel."""
        asked, self.asked = self.asked, None
        taken = min(asked, limit, len(self.source))
        if not taken:
            return self.send(ev.IntakeEnded(is_final=self.is_source_broken))
        jobs = [self.make_job() for _ in range(taken)]
        for _ in range(taken):
            self.source.popleft()
        commands = []
        for job in jobs[:refused]:
            commands += self.refuse_job(job)
        return commands + self.send(ev.JobsAccepted(jobs=jobs[refused:]))

    def refuse_job(self, job: Job) -> list[do.Command]:
        """Say that a job cannot travel."""
        return self.send(ev.JobRefused(job=job, error=FaultyJobError("unpicklable")))

    def break_source(self) -> list[do.Command]:
        """Let the source raise; it answers the question under way."""
        self.is_source_broken, self.asked = True, None
        self.source.clear()
        return self.send(ev.IntakeEnded(is_final=True))

    def fill_source(self, jobs: int) -> list[do.Command]:
        """Let the source have jobs again."""
        self.source.extend("job" for _ in range(jobs))
        return self.send(ev.IntakeReopened())

    def add_by_hand(self, jobs: int) -> None:
        """Add jobs past the source; `send` hands them over."""
        made = [self.make_job() for _ in range(jobs)]
        self._events.append(ev.JobsAccepted(jobs=made, is_answer=False))

    def pause(self) -> list[do.Command]:
        """Let the consumer fall behind."""
        self.is_paused = True
        return self.send(ev.DeliveryPaused())

    def resume(self) -> list[do.Command]:
        """Let the consumer catch up."""
        self.is_paused = False
        return self.send(ev.DeliveryResumed())

    def abort(self) -> list[do.Command]:
        """Stop now."""
        return self.send(ev.AbortRequested())

    def ready(self, worker: SimWorker) -> list[do.Command]:
        """Let a worker be set up."""
        worker.is_ready = True
        return self.send(ev.WorkerReady(worker_id=worker.id))

    def hear(self, worker: SimWorker, events: int = _MANY) -> list[do.Command]:
        """Let the core hear some of what a worker has said."""
        commands = []
        while worker.outbox and events and not self.is_over:
            events -= 1
            event = worker.outbox.popleft()
            if isinstance(event, ev.AttemptFailed):
                job = worker.handed[event.ordinal]
                self.charges.setdefault(job.id, []).append(event.cause)
            commands += self.send(event)
        return commands

    def recall_answer(self, worker: SimWorker) -> ev.JobsRecalled:
        """Settle what was revoked: the event that says so."""
        worker.is_recalled = False
        return ev.JobsRecalled(worker_id=worker.id, beyond=worker.last_kept)

    def answer_recall(self, worker: SimWorker) -> list[do.Command]:
        """Answer `RecallJobs`."""
        return self.send(self.recall_answer(worker))

    def report_stats(self, worker: SimWorker, **totals: int) -> list[do.Command]:
        """Let a worker report its counters."""
        worker.totals = totals
        return self.send(ev.StatsReported(worker_id=worker.id, totals=totals, time_span=5.0))

    def exit(
        self,
        worker: SimWorker,
        code: int | None = None,
        signal: str | None = "SIGKILL",
        detail: str = "",
    ) -> list[do.Command]:
        """Let a worker's process be gone."""
        commands = self.hear(worker)
        if worker.executing is not None:
            job = worker.handed[worker.executing]
            is_ours = self.phase is Phase.ABORTING
            cause = Cause.PREEMPTED if is_ours else Cause.CRASH
            self.charges.setdefault(job.id, []).append(cause)
        del self.workers[worker.id]
        self.buried.append(worker)
        return commands + self.send(
            ev.WorkerExited(
                worker_id=worker.id,
                code=code if signal is None else None,
                signal=signal,
                claimed=worker.last_started,
                detail=detail,
            )
        )

    def leave(self, worker: SimWorker) -> list[do.Command]:
        """Let a worker end because its work is done."""
        return self.exit(worker, code=0, signal=None)

    def pass_time(self, seconds: float) -> list[do.Command]:
        """Let time pass, and tell the core whenever it wanted to be told."""
        commands: list[do.Command] = []
        end = self.now + seconds
        while not self.is_over and (due := self.state.next_deadline()) is not None and due <= end:
            assert due > self.now or not commands, "the core asks for the same time twice"
            self.now = max(self.now, due)
            commands += self.send(ev.TimePassed())
            later = self.state.next_deadline()
            assert later is None or later > self.now
        self.now = end
        return commands

    # The end

    def work(self, worker: SimWorker) -> list[do.Command]:
        """Let a worker do everything it has."""
        commands = []
        if not worker.is_ready:
            commands += self.ready(worker)
        if worker.is_recalled:
            commands += self.answer_recall(worker)
        while not self.is_over and (worker.todo or worker.executing is not None):
            if worker.executing is None:
                worker.claim()
            if worker.executing is not None:
                worker.finish()
            commands += self.hear(worker)
        return commands + self.hear(worker)

    def drive_to_the_end(self) -> None:
        """Let everything that is under way end well."""
        if self.phase is Phase.NEW:
            self.start()
        if self.is_paused and not self.is_over:
            self.resume()
        for _ in range(1_000):
            if self.is_over:
                return
            if self.asked is not None:
                self.answer_intake()
            for worker in tuple(self.workers.values()):
                if worker.is_stopping and not worker.is_recalled:
                    self.leave_in_an_orderly_way(worker)
                else:
                    self.work(worker)
            self.pass_time(10.0)
        pytest.fail(f"the run does not end: {self.state}")

    def leave_in_an_orderly_way(self, worker: SimWorker) -> None:
        """Finish the job at hand and leave."""
        if worker.executing is not None:
            worker.finish()
        self.hear(worker)
        if not self.is_over:
            self.leave(worker)

    # What must hold between events

    def check(self) -> None:
        """Compare the books."""
        self.check_places()
        self.check_nobody_idles()
        executing = {
            (w.id, w.executing): w.handed[w.executing]
            for w in self.workers.values()
            if w.executing is not None
        }
        for (worker_id, ordinal), job in executing.items():
            assert self.state._ledger._held[worker_id][ordinal] is job, (
                "taken from under its worker"
            )

    def check_places(self) -> None:
        """Every accepted job is in exactly one place, or finished, or returned."""
        found = [job_id for place in self.places().values() for job_id in place]
        found += [*self.finals, *(job.id for job in self.returned)]
        assert sorted(found) == sorted(self.accepted)
        unfinished = self.accepted.keys() - self.finals.keys()
        assert self.state._ledger._histories.keys() <= unfinished

    def check_nobody_idles(self) -> None:
        """No job waits here beside an idle worker, or there in one while nobody takes it back."""
        if self.phase is not Phase.RUNNING:
            return
        ledger, fleet = self.state._ledger, self.state._fleet
        idle = [w for w in fleet.takers() if not w.is_recalled and not ledger.held_by(w.id)]
        if not idle:
            return
        assert not ledger.queued
        richest = max(fleet.takers(), key=lambda w: ledger.held_by(w.id))
        sim = self.workers[richest.id]
        is_asked = richest.is_recalled
        free = [k for k in ledger._held[richest.id] if k > sim.last_kept and k > richest.kept]
        assert is_asked or ledger.held_by(richest.id) <= 1 or not free

    def check_end(self) -> None:
        """Everything is accounted for."""
        assert len(self.ends) == 1
        assert not self.workers
        self.check_places()
        assert self.accepted.keys() == self.finals.keys() | {job.id for job in self.returned}
        assert self.state._ledger.is_empty
        assert not self.state._ledger._histories
        assert self.state.next_deadline() is None
        self.check_stats()

    def check_stats(self) -> None:
        """The diffs add up to the last totals, and those to what the workers said."""
        said: Counter[str] = Counter()
        for worker in self.buried:
            said.update(worker.totals)
        diffs: Counter[str] = Counter()
        for command in self.reports:
            diffs.update(command.report.agg.diff)
        last = self.reports[-1].report.agg.last if self.reports else {}
        for name in said | diffs.keys() | last.keys():
            assert said[name] == diffs[name] == last.get(name, 0)
