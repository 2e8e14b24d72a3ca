"""The whole system on a fake clock and fake pipes, driven by chance: `simulate(seed)`.

The core is the real one. Around it, workers boot, read their links, claim, decide, execute, write
outcomes and die, one small step at a time; every step and every message takes a time of its own,
drawn from a few values, so that much falls into the same instant and then comes in any order. A
*schedule* is everything that its seed draws: workers, jobs and their fates, budgets, delays, and
the faults that strike, each at the n-th step of the world.

To extend it, add a row to a table and write its method:

    FATES    what becomes of an execution     name: (weight, method of the world)
    FAULTS   what strikes from outside        name: (most per schedule, method of the world)

The books are those of `World`: every promise is checked at every step. A world in which nothing is
due any more and whose run is not over has found a run that hangs.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeAlias

from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.endings import STACK_TIME
from okanjo_conductor._core.state import Phase
from okanjo_conductor._io import cells
from okanjo_conductor._types import Cause, JobState, Ordinal, Recycle, Retry, WorkerId
from okanjo_conductor.testing._promises import BrokenPromiseError, require
from okanjo_conductor.testing._world import GRACE, SimWorker, World

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from okanjo_conductor._core.jobs import Job

_MOST_STEPS = 20_000
"""A schedule needs a few hundred; one that needs as many never ends."""
_LAST_STRIKE = (30, 100, 300)
"""Faults strike before that step of the world, so that short and long schedules get their share."""
_TICK = 0.02
_MILLISECONDS: tuple[tuple[int, ...], ...] = (
    (0,),
    (0, 1),
    (0, 0, 1, 5),
    (1, 5, 20),
    (0, 0, 0, 90),
    (0, 250),
)
"""Delays to draw from; a schedule uses one row for messages and one for steps of workers."""
_PACES = ((1_000,), (1_000, 500_000), (4_000_000,), (1_000, 60_000_000))
"""Nanoseconds that jobs say they took, for batches that are large, middle-sized and small."""
_MODEST, _WORN, _HUGE = 50, 150, 300
"""Bytes of memory: few, enough to be recycled, more than may be."""
_MOST_RSS, _RECYCLE_RSS = 200, 100
_PATIENCE = 5.0
"""Seconds until a job that hangs is cancelled."""
_FREEZE = 40.0
"""Seconds until a frozen worker is thawed or killed by somebody: beyond every grace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """What happened in one schedule."""

    seed: int
    states: dict[JobState, int]
    """Jobs by final state."""
    returned: int
    """Jobs given back without an outcome."""
    workers: int
    """How many were started."""
    retries: int
    error: Exception | None
    """Why the run ended early, if it did."""
    happened: Counter[str]
    """By name: fates, faults, and `declined`, `recalled`, `died between claim and decision` …"""
    steps: int
    seconds: float
    """On the fake clock."""

    @property
    def jobs(self) -> int:
        """Jobs that were accepted."""
        return sum(self.states.values()) + self.returned


@dataclass(eq=False)
class SimProcess(SimWorker):
    """A simulated worker process."""

    inbox: list[range | None] = field(default_factory=list)
    """What has arrived and was not read: ordinals of jobs, or None, which asks it to stop."""
    on_the_way: list[range | None] = field(default_factory=list)
    batch_ends: set[int] = field(default_factory=set)
    """The last ordinals of batches: there it reports what it has skipped."""
    is_booted: bool = False
    has_said_ready: bool = False
    is_due: bool = False
    """A step of it is scheduled."""
    is_dead: bool = False
    is_frozen: bool = False
    is_deaf: bool = False
    """It ignores SIGTERM."""
    is_leaving: bool = False
    """It has read that it shall stop."""
    is_hanging: bool = False
    """It is in a job that never ends by itself, and does nothing else."""
    blocked_by: int | None = None
    """The job that it is in and that lets no other go on, if it executes several at a time."""
    postponed: list[int] = field(default_factory=list)
    """Jobs that would have ended meanwhile."""
    unread: list[tuple[int, float | None]] = field(default_factory=list)
    """What it was asked to cancel meanwhile."""
    is_looked_at: bool = False
    told: int = 0
    """The ordinal that the core was last told to be executed."""
    is_oom: bool = False
    """The kernel ended it for want of memory."""
    pending_interrupt: int = 0
    """Came while it was frozen: the ordinal."""
    is_ticking: bool = False
    """Its result pipe will be looked at."""
    pending_signal: str | None = None
    """Came while it was frozen."""
    code: int | None = None
    signal: str | None = None


_Entry: TypeAlias = "tuple[float, float, Callable[..., None], tuple[Any, ...]]"


class SimulatedWorld(World):
    """A `World` that runs by itself.

    Args:
        seed: decides everything that the other arguments leave open.
        slots: how many workers at most.
        jobs: how many are in the source at first.
        retry: the budgets.
        concurrency: how many jobs a worker executes at a time.
        faults: names of those that may strike, of `FAULTS`; default: all.
        fates: names of those that jobs may have, of `FATES`; default: all.
        trace: collect a line for each thing that happens in `lines`.
    """

    def __init__(
        self,
        seed: int,
        *,
        slots: int | None = None,
        jobs: int | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        faults: Collection[str] | None = None,
        fates: Collection[str] | None = None,
        trace: bool = False,
    ) -> None:
        self.seed = seed
        self.chance = chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
        drawn_slots, drawn_jobs = chance.choice((1, 2, 2, 3)), chance.choice(_JOBS)
        drawn_retry = _draw_retry(chance)
        super().__init__(
            slots=drawn_slots if slots is None else slots,
            retry=drawn_retry if retry is None else retry,
            **_draw_limits(chance),
        )
        self._timeouts = chance.choice(_TIMEOUTS)
        self.lines: list[str] | None = [] if trace else None
        self.happened: Counter[str] = Counter()
        self.steps = 0
        self.answers_recalls_at_once = not self._one_in(3)
        self.late_jobs = chance.choice((0, 0, 0, 2))
        self._late_fills = chance.choice((0, 0, 0, 2))
        """How many jobs the receiver of outcomes will make the source have yet."""
        self._refusals = 0
        """How many of the next jobs cannot travel."""
        self._bad_starts = chance.choice((0.0, 0.03, 0.03, 0.5))
        self.source.extend(["job"] * (drawn_jobs if jobs is None else jobs))
        self._lags = chance.choice(_MILLISECONDS)
        self._concurrency = (
            chance.choice((1, 1, 1, 2, 3, 8)) if concurrency is None else concurrency
        )
        self._can_cancel = self._concurrency > 1 or self._one_in(8)
        self._has_pasts = self._one_in(4)
        self._pauses = chance.choice(_MILLISECONDS)
        self._paces = chance.choice(_PACES)
        self._due: list[_Entry] = []
        self._is_changed = False
        """Whether the core was handed anything since the books were compared."""
        self._timer: float | None = None
        self._fates: dict[int, str] = {}
        self._unhappy: set[int] = set()
        """Jobs whose fate has struck once."""
        self._fate_names, self._fate_weights = _weighed(chance, fates)
        self._strikes = self._draw_strikes(FAULTS if faults is None else faults)

    def _draw_strikes(self, names: Collection[str]) -> dict[int, list[str]]:
        chance, last = self.chance, self.chance.choice(_LAST_STRIKE)
        strikes: dict[int, list[str]] = {}
        for name, (most, _) in FAULTS.items():
            times = chance.choice((0, 0, 0, 1, most))
            if name in _STOPS and self._one_in(2):
                times = 0
            for _ in range(times):
                step = chance.randrange(1, last)
                if name in names:
                    strikes.setdefault(step, []).append(name)
        return strikes

    # Driving

    def run(self) -> SimulationReport:
        """Run the schedule to its end.

        Raises:
            BrokenPromiseError: a promise was broken, or the run hangs.
        """
        self.start()
        self._settle()
        while not self.is_over:
            require(self._due, "a run does not hang", self.state)
            require(self.steps < _MOST_STEPS, "a run ends", self.state)
            self.steps += 1
            for name in self._strikes.get(self.steps, ()):
                self._strike(name)
            self._take_step()
        if self.is_over_budget:
            self._happens("over budget")
        self.check_end()
        self._check_nothing_is_left()
        return self._report()

    def _strike(self, name: str) -> None:
        if not self.is_over and FAULTS[name][1](self):
            self._happens(name)
            self._settle()

    def _take_step(self) -> None:
        if self.is_over:
            return
        due, _, action, args = heappop(self._due)
        self.now = max(self.now, due)
        action(*args)
        self._settle()

    def _at(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        heappush(self._due, (self.now + delay, self.chance.random(), action, args))

    def _one_in(self, number: int) -> bool:
        return self.chance.randrange(number) == 0

    def _lag(self) -> float:
        return self.chance.choice(self._lags) / 1000

    def _pause(self) -> float:
        return self.chance.choice(self._pauses) / 1000

    def deliver(self, event: ev.Event) -> None:
        """Hand the core one event and do what it says."""
        if self.lines is not None:
            self.lines.append(f"{self.now:9.3f}  ── {event}")
        self._is_changed = True
        super().deliver(event)

    def _settle(self) -> None:
        """Compare the books and set the timer, if the core was handed anything."""
        if not self._is_changed:
            return
        self._is_changed = False
        self.check()
        due = None if self.is_over else self.state.next_deadline()
        if due is not None and due != self._timer:
            self._at(max(0.0, due - self.now), self._on_timer, due)
        self._timer = due

    def _on_timer(self, due: float) -> None:
        if self._timer == due:
            self._timer = None
            self.now = max(self.now, due)  # not a rounding error less
            self.send_time()

    def _happens(self, name: str) -> None:
        self.happened[name] += 1
        self._trace(name)

    def _trace(self, text: str) -> None:
        if self.lines is not None:
            self.lines.append(f"{self.now:9.3f}  {text}")

    # The shell

    def _receive(self, record: rec.Record) -> None:
        super()._receive(record)
        if isinstance(record, rec.JobRetried):
            self._happens(f"cause {record.attempt.cause.value}")
        elif isinstance(record, rec.JobFailed):
            self._happens(f"cause {record.cause.value}")
        may_fill = self.phase is Phase.RUNNING and not self.is_source_broken
        if self._late_fills and may_fill and self._one_in(5):
            self._late_fills -= 1
            self.source.append("job")  # in silence, as an iterator does that waits for outcomes

    def _make_worker(self, command: do.StartWorker) -> SimProcess:
        if any(w.slot == command.slot and not w.is_stopping for w in self.workers.values()):
            self._happens("recycled")
        worker = SimProcess(command.worker_id, command.slot)
        worker.concurrency, worker.can_cancel = self._concurrency, self._can_cancel
        worker.is_deaf = self._one_in(10)
        self._at(self._lag(), self._boot, worker)
        return worker

    def _read_jobs(self, command: do.ReadJobs) -> None:
        super()._read_jobs(command)
        self._at(self._lag(), self._source_answers)

    def _source_answers(self) -> None:
        if self.asked is not None:
            refused, self._refusals = self._refusals, 0
            self.answer_intake(self.chance.choice((1, 3, 100)), refused)

    def make_job(self) -> Job:
        """Accept a job, and draw its fate."""
        job = super().make_job()
        (self._fates[job.id],) = self.chance.choices(self._fate_names, self._fate_weights)
        job.timeout = self.chance.choice(self._timeouts)
        if self._has_pasts:
            self._draw_past(job)
        return job

    def _draw_past(self, job: Job) -> None:
        """Let a job have been executed before, within its budgets, or be a suspect of a journal."""
        if self._one_in(4):
            self._happens("job with a past")
            causes = [cause for cause, most in self.budgets.items() for _ in range(min(most, 2))]
            self.give_past(job, *causes)
        if self._one_in(6):
            self._happens("loner")
            self.give_past(job, is_loner=True)

    def _send_jobs(self, worker: SimWorker, ordinals: range) -> None:
        self._post(self._process(worker.id), ordinals)

    def _begin_recall(self, worker: SimWorker) -> None:
        self._happens("recalled")
        if self.answers_recalls_at_once:
            super()._begin_recall(worker)
        else:
            self._at(_TICK, self._answer_late, worker)

    def _answer_late(self, worker: SimWorker) -> None:
        if worker.id in self.workers:
            self.answer_recall(worker)

    def _stop_worker(self, command: do.StopWorker) -> None:
        super()._stop_worker(command)
        worker = self._process(command.worker_id)
        if worker.is_booted or self._one_in(2):
            self._post(worker, None)
        else:
            self._happens("start withdrawn")
            self._die(worker, code=0)

    def _dump_stack(self, command: do.DumpStack) -> None:
        super()._dump_stack(command)
        self._happens("stack taken")

    def _interrupt_job(self, command: do.InterruptJob) -> None:
        super()._interrupt_job(command)
        worker = self._process(command.worker_id)
        self._at(self._lag(), self._interrupt, worker, command.ordinal)

    def _cancel_job(self, command: do.CancelJob) -> None:
        super()._cancel_job(command)
        worker = self._process(command.worker_id)
        self._at(self._lag(), self._hear_cancel, worker, command.ordinal, command.limit)

    def _report_stuck(self, command: do.ReportStuck) -> None:
        super()._report_stuck(command)
        self._happens("reported stuck")

    def _terminate_worker(self, command: do.TerminateWorker) -> None:
        super()._terminate_worker(command)
        self._at(self._lag(), self._signal, self._process(command.worker_id), "SIGTERM")

    def _kill_worker(self, command: do.KillWorker) -> None:
        super()._kill_worker(command)
        if self._process(command.worker_id).force.is_late:
            self._happens("start too late")
        self._at(self._lag(), self._signal, self._process(command.worker_id), "SIGKILL")

    def _process(self, worker_id: WorkerId) -> SimProcess:
        worker = self._live(worker_id)
        if not isinstance(worker, SimProcess):
            raise TypeError(worker)
        return worker

    # Links

    def _post(self, worker: SimProcess, message: range | None) -> None:
        worker.on_the_way.append(message)
        self._at(self._lag(), self._arrive, worker)

    def _arrive(self, worker: SimProcess) -> None:
        """Let the oldest message on the way arrive: a link keeps the order."""
        worker.inbox.append(worker.on_the_way.pop(0))
        self._wake(worker)

    def _say(self, worker: SimProcess, event: ev.Event) -> None:
        worker.say(event)
        self._at(self._lag(), self._hear_some, worker)

    def _hear_some(self, worker: SimProcess) -> None:
        """Read one frame or all; the others have readings of their own."""
        if worker.id in self.workers and worker.link:
            self.hear(worker, self.chance.choice((1, len(worker.link))))

    def _ring(self, worker: SimProcess) -> None:
        """Tell the conductor of outcomes in the pipe."""
        if worker.pipe:
            self._at(self._lag(), self._hear_upto, worker, worker.written)

    def _hear_upto(self, worker: SimProcess, written: int) -> None:
        if worker.id in self.workers and not worker.link:
            self._apply(worker, written)

    def _written(self, worker: SimProcess) -> None:
        if worker.pipe and not worker.is_ticking:
            worker.is_ticking = True
            self._at(_TICK, self._tick, worker)

    def _tick(self, worker: SimProcess) -> None:
        worker.is_ticking = False
        if worker.id in self.workers:
            self.hear(worker)

    # What the shell sees unasked

    def _look(self, worker: SimProcess, claimed: int = 0, since: float = 0.0) -> None:
        """Look at a worker's claim, twice at least, and tell the core if it is the same."""
        worker.is_looked_at = False
        ordinal = cells.last_started(worker.cells)
        if worker.concurrency > 1:
            self._look_at_all(worker, ordinal or 0, claimed, since)
            return
        if worker.id not in self.workers or ordinal is None or ordinal == worker.told:
            return
        if ordinal == claimed:
            worker.told = ordinal
            self.see(worker, ordinal, since)
        else:
            self._look_in(_TICK, worker, ordinal, self.now)

    def _look_at_all(self, worker: SimProcess, now: int, claimed: int, since: float) -> None:
        """Look at a worker that executes several at a time: what was claimed last time, goes on."""
        if worker.id not in self.workers:
            return
        if claimed > worker.told:
            first, worker.told = worker.told + 1, claimed
            self.see(worker, claimed, since, first)
        if now > worker.told:
            self._look_in(_TICK, worker, now, self.now)

    def _look_in(self, delay: float, worker: SimProcess, *seen: float) -> None:
        if not worker.is_looked_at:
            worker.is_looked_at = True
            self._at(delay, self._look, worker, *seen)

    def _measure(self, worker: SimProcess, rss: int) -> None:
        if worker.id in self.workers and not worker.is_dead:
            self.measure(worker, rss)

    # A worker's life

    def _boot(self, worker: SimProcess) -> None:
        if worker.is_dead:
            return
        worker.is_booted = True
        if self.chance.random() < self._bad_starts:
            self._happens("died while starting")
            self._die(worker, code=1)
        else:
            self._schedule(worker)

    def _schedule(self, worker: SimProcess, delay: float = 0.0) -> None:
        if not worker.is_due:
            worker.is_due = True
            self._at(delay + self._pause(), self._step_of, worker)

    def _wake(self, worker: SimProcess) -> None:
        """End its blocking read, if it is in one."""
        is_idle = not worker.todo and worker.executing is None and worker.undecided is None
        is_reading = is_idle or worker.concurrency > 1
        if worker.has_said_ready and is_reading:
            self._schedule(worker)

    def _step_of(self, worker: SimProcess) -> None:
        worker.is_due = False
        if worker.is_dead or worker.is_frozen or worker.is_hanging or worker.blocked_by:
            return
        if worker.executing is not None and worker.concurrency == 1:
            self._end_execution(worker)
        elif worker.undecided is not None:
            self._decide(worker)
        elif not worker.has_said_ready:
            worker.has_said_ready = True
            self._say(worker, worker.ready_event())
            self._schedule(worker)
        elif worker.skipped and self._must_report(worker):
            worker.report_skipped()
            self._at(self._lag(), self._hear_some, worker)
            self._schedule(worker)
        elif worker.todo and (worker.can_start or worker.is_leaving):
            worker.store_claim()
            self._look_in(self.chance.random() * _TICK, worker)
            self._schedule(worker)
        else:
            self._between_batches(worker)

    def _must_report(self, worker: SimProcess) -> bool:
        if worker.concurrency == 1:
            return worker.claimed in worker.batch_ends
        return not worker.todo or worker.todo[0] > worker.cells[cells.HIGH]

    def _decide(self, worker: SimProcess) -> None:
        before = worker.executions
        worker.decide(is_leaving=worker.is_leaving)
        if worker.executions == before:
            self._happens("declined")
            self._schedule(worker)
            return
        ordinal = worker.busy[-1]
        job = worker.handed[ordinal]
        self._check_may_execute(worker, ordinal)
        fate = self._fates[job.id]
        if fate == "swells":
            self._at(self.chance.choice((0.0, 0.1)), self._measure, worker, _HUGE)
        length = self._draw_length(job) if fate in ("long", "swells", "blocks") else 0.0
        if worker.concurrency > 1:
            if fate == "blocks":
                worker.blocked_by = worker.running = ordinal
            self._at(length + self._pause(), self._end_one_of, worker, ordinal)
        self._schedule(worker, length)

    def _end_one_of(self, worker: SimProcess, ordinal: int) -> None:
        """End one of several jobs, unless another one lets nothing go on."""
        if worker.is_dead or ordinal not in worker.busy:
            return
        if worker.is_frozen or worker.blocked_by not in (ordinal, None):
            worker.postponed.append(ordinal)
            return
        worker.ending = ordinal
        self._end_execution(worker)
        if not worker.is_dead and ordinal not in worker.busy:
            self._unblock(worker, ordinal)

    def _unblock(self, worker: SimProcess, ordinal: int) -> None:
        """Let the others go on, if they were waiting for this one."""
        if worker.blocked_by == ordinal:
            worker.blocked_by = worker.running = None
            self._go_on(worker)

    def _go_on(self, worker: SimProcess) -> None:
        """Let happen what was waiting."""
        postponed, worker.postponed = worker.postponed, []
        for ordinal in postponed:
            self._at(self._pause(), self._end_one_of, worker, ordinal)
        unread, worker.unread = worker.unread, []
        for ordinal, limit in unread:
            self._at(0.0, self._hear_cancel, worker, ordinal, limit)
        self._schedule(worker)

    def _draw_length(self, job: Job) -> float:
        """Draw how long a job is executed: often just as long as it may."""
        limit = job.timeout
        if limit is None or self._one_in(2):
            return self.chance.choice((0.1, 3.0))
        return limit + self.chance.choice((0.0, 0.01, STACK_TIME, STACK_TIME + GRACE / 2))

    def _check_may_execute(self, worker: SimProcess, ordinal: int) -> None:
        job = worker.handed[ordinal]
        require(job.id not in self.finals, "nothing runs after its outcome", job)
        require(job not in self.returned, "nothing runs that was given back", job)
        is_held = self.state._ledger.peek(worker.id, Ordinal(ordinal)) == job
        require(is_held, "nothing runs that was taken back", job)
        everything = [w.handed[o] for w in self.workers.values() for o in w.busy]
        require(everything.count(job) == 1, "a job is executed once at a time", job)
        is_alone = len(worker.busy) == 1 or job.id not in self.suspects
        require(is_alone, "suspects are executed alone", job)

    def _end_execution(self, worker: SimProcess) -> None:
        job = worker.handed[worker.busy[0] if worker.ending is None else worker.ending]
        fate = self._fates[job.id]
        self._happens(fate)
        FATES[fate][1](self, worker, job)
        if not (worker.is_dead or worker.is_hanging):
            self._after_execution(worker)

    def _after_execution(self, worker: SimProcess) -> None:
        worker.has_worked = True
        self._written(worker)
        if self._one_in(5):
            self._ring(worker)
            self._read_inbox(worker)
        self._schedule(worker)

    def _hear_cancel(self, worker: SimProcess, ordinal: int, limit: float | None) -> None:
        """Let a worker cancel one of its jobs, which may heed that, end otherwise, or go on."""
        if worker.is_dead or ordinal not in worker.busy:
            return
        if worker.is_frozen or worker.blocked_by:
            worker.unread.append((ordinal, limit))
            return
        answer = self.chance.choice(("heeded", "heeded", "swallowed", "ignored"))
        self._happens(f"cancellation {answer}")
        if answer == "ignored":
            return
        worker.ending = ordinal
        if answer == "heeded":
            worker.fail(Cause.PREEMPTED if limit is None else Cause.TIMEOUT)
        else:
            worker.finish()
        worker.is_hanging = False
        self._after_execution(worker)

    def _between_batches(self, worker: SimProcess) -> None:
        self._ring(worker)
        self._read_inbox(worker)
        if worker.todo and (worker.can_start or worker.is_leaving):
            self._schedule(worker)
        elif worker.is_leaving and not (worker.todo or worker.busy):
            self._leave(worker)

    def _read_inbox(self, worker: SimProcess) -> None:
        for message in worker.inbox:
            if message is None:
                worker.is_leaving = True
            else:
                worker.todo.extend(message)
                worker.batch_ends.add(message[-1])
        worker.inbox.clear()

    def _leave(self, worker: SimProcess) -> None:
        if self._one_in(20):
            self._happens("died in teardown")
            self._die(worker, code=3)
        else:
            self._count(worker)
            self._die(worker, code=0)

    def _die(
        self, worker: SimProcess, *, code: int | None = None, signal: str | None = None
    ) -> None:
        """End a process; the conductor sees it later."""
        if worker.is_dead:
            return
        if worker.undecided is not None:
            self._happens("died between claim and decision")
        worker.is_dead, worker.code, worker.signal = True, code, signal
        self._trace(f"worker {worker.id} dies: {signal or code}")
        self._at(self._lag(), self._bury, worker)

    def _bury(self, worker: SimProcess) -> None:
        self.exit(worker, worker.code, worker.signal, is_oom=worker.is_oom)

    def _interrupt(self, worker: SimProcess, ordinal: int) -> None:
        """Let a job meet `JobTimeoutError`, which it may heed, swallow or never see."""
        if worker.is_frozen:
            worker.pending_interrupt = ordinal
        if worker.is_dead or worker.is_frozen or worker.executing != ordinal:
            return
        answer = self.chance.choice(("heeded", "heeded", "swallowed", "ignored"))
        self._happens(f"interruption {answer}")
        if answer == "ignored":
            return
        if answer == "heeded":
            worker.fail(Cause.TIMEOUT)
        else:
            worker.finish()
        worker.is_hanging = False
        self._after_execution(worker)

    def _signal(self, worker: SimProcess, name: str) -> None:
        if name == "SIGTERM" and worker.is_deaf:
            self._happens("deaf to SIGTERM")
        elif name == "SIGTERM" and worker.is_frozen:
            worker.pending_signal = name
        else:
            self._die(worker, signal=name)

    def _count(self, worker: SimProcess) -> None:
        """Let a worker report its counters."""
        done = worker.totals.get("jobs", 0) + self.chance.randrange(3)
        worker.totals = {"jobs": done, f"of slot {worker.slot}": done}
        event = ev.StatsReported(worker_id=worker.id, totals=worker.totals, time_span=5.0)
        self._say(worker, event)

    # Fates: how an execution ends

    def fate_done(self, worker: SimProcess, _job: Job) -> None:
        """It has a value."""
        worker.finish(self.chance.choice(self._paces))

    def fate_large(self, worker: SimProcess, _job: Job) -> None:
        """Its value is too large for the result pipe."""
        worker.finish(self.chance.choice(self._paces), is_large=True)
        self._at(self._lag(), self._hear_some, worker)

    def fate_long(self, worker: SimProcess, job: Job) -> None:
        """It takes as long as was drawn; then it has a value of either kind."""
        if self._one_in(3):
            self.fate_large(worker, job)
        else:
            self.fate_done(worker, job)

    def fate_blocks(self, worker: SimProcess, job: Job) -> None:
        """It lets nothing else go on in its worker for a while, even if that has several jobs."""
        self.fate_done(worker, job)

    def fate_raises_unasked(self, worker: SimProcess, _job: Job) -> None:
        """It raises what only a cancelled job does."""
        worker.fail(Cause.PREEMPTED if worker.can_cancel else Cause.ERROR)

    def fate_raises(self, worker: SimProcess, _job: Job) -> None:
        """It raises, always."""
        worker.fail(Cause.ERROR, self.chance.choice(self._paces))

    def fate_raises_once(self, worker: SimProcess, job: Job) -> None:
        """It raises the first time."""
        self._once(worker, job, self.fate_raises)

    def fate_unserialisable(self, worker: SimProcess, _job: Job) -> None:
        """Its value cannot be pickled."""
        worker.fail(Cause.UNSERIALISABLE)

    def fate_crashes(self, worker: SimProcess, _job: Job) -> None:
        """It kills its worker, always."""
        self._die(worker, signal="SIGSEGV")

    def fate_crashes_once(self, worker: SimProcess, job: Job) -> None:
        """It kills its worker the first time."""
        self._once(worker, job, self.fate_crashes)

    def fate_swells(self, worker: SimProcess, job: Job) -> None:
        """It takes a lot of memory for a while."""
        self.fate_done(worker, job)

    def fate_hangs(self, worker: SimProcess, job: Job) -> None:
        """It never ends; without a time limit its caller loses patience."""
        ordinal, worker.ending = worker.ending, None
        if worker.concurrency == 1:
            worker.is_hanging = True
        elif self._one_in(2):
            self._happens("blocked for ever")
            worker.blocked_by = worker.running = ordinal
        if job.timeout is None:
            self._at(_PATIENCE, self._give_up, job)

    def _give_up(self, job: Job) -> None:
        if not self.is_over:
            self._happens("hanging cancelled")
            self.cancel(job.id)

    def fate_hangs_once(self, worker: SimProcess, job: Job) -> None:
        """It never ends the first time."""
        self._once(worker, job, self.fate_hangs)

    def fate_oom(self, worker: SimProcess, _job: Job) -> None:
        """It takes more memory than there is, always."""
        worker.is_oom = True
        self._die(worker, signal="SIGKILL")

    def fate_exits_once(self, worker: SimProcess, job: Job) -> None:
        """It ends its worker the first time, with exit code 0."""
        self._once(worker, job, lambda w, _: self._die(w, code=0))

    def _once(self, worker: SimProcess, job: Job, fate: Callable[[SimProcess, Job], None]) -> None:
        if job.id in self._unhappy:
            self.fate_done(worker, job)
        else:
            self._unhappy.add(job.id)
            fate(worker, job)

    # Faults: return whether there was anything to strike

    def _pick(self, condition: Callable[[SimProcess], bool]) -> SimProcess | None:
        found = [w for w in self.workers.values() if isinstance(w, SimProcess) and condition(w)]
        return self.chance.choice(found) if found else None

    def fault_kill(self) -> bool:
        """Somebody kills a worker."""
        worker = self._pick(lambda w: not w.is_dead)
        if worker is not None:
            self._die(worker, signal="SIGKILL")
        return worker is not None

    def fault_freeze(self) -> bool:
        """Somebody stops a worker's process, and much later continues or kills it."""
        worker = self._pick(lambda w: not w.is_dead and not w.is_frozen)
        if worker is None:
            return False
        worker.is_frozen = True
        self._at(_FREEZE, self.chance.choice((self._thaw, self._kill)), worker)
        return True

    def _thaw(self, worker: SimProcess) -> None:
        worker.is_frozen = False
        if worker.pending_signal:
            self._die(worker, signal=worker.pending_signal)
        elif worker.is_booted and not worker.is_dead:
            self._go_on(worker)
            self._interrupt(worker, worker.pending_interrupt)

    def _kill(self, worker: SimProcess) -> None:
        self._die(worker, signal="SIGKILL")

    def fault_stats(self) -> bool:
        """A worker reports its counters."""
        worker = self._pick(lambda w: w.has_said_ready and not w.is_dead and not w.is_frozen)
        if worker is not None:
            self._count(worker)
        return worker is not None

    def fault_abort(self) -> bool:
        """The caller aborts the run."""
        self.abort()
        return True

    def fault_drain(self) -> bool:
        """The caller drains the run, and perhaps loses patience."""
        self.drain(self.chance.choice((None, None, 0.0, 0.5, 10.0)))
        if self._one_in(3):
            self._at(self.chance.choice((0.0, 0.3, 5.0)), self._lose_patience)
        return True

    def _lose_patience(self) -> None:
        self._happens("aborted while draining")
        self.abort()

    def fault_cancel(self) -> bool:
        """The caller wants a job no more; it may be anywhere, or finished."""
        if not self.accepted:
            return False
        open_jobs = [i for i in self.accepted if i not in self.finals]
        busy = [w.handed[o].id for w in self.workers.values() for o in w.busy]
        chosen = self.chance.choice((open_jobs, open_jobs, busy, [])) or list(self.accepted)
        self.cancel(self.chance.choice(chosen))
        return True

    def fault_measured(self) -> bool:
        """Somebody looks at the memory of a worker."""
        worker = self._pick(lambda w: w.is_booted and not w.is_dead)
        if worker is not None:
            self._measure(worker, self.chance.choice((_MODEST, _WORN, _WORN, _HUGE)))
        return worker is not None

    def fault_out_of_memory(self) -> bool:
        """The kernel ends a worker for want of memory."""
        worker = self._pick(lambda w: not w.is_dead)
        if worker is not None:
            worker.is_oom = True
            self._die(worker, signal="SIGKILL")
        return worker is not None

    def fault_resize(self) -> bool:
        """The caller wants more workers, or fewer."""
        self.resize(self.chance.choice((1, 2, 3)))
        return True

    def fault_limit(self) -> bool:
        """The caller finds out how long jobs may take."""
        self.set_limit(self.chance.choice((0.05, 1.0)))
        return True

    def fault_pause(self) -> bool:
        """The receiver of outcomes falls behind for a while."""
        if self.is_paused:
            return False
        self.pause()
        self._at(self.chance.choice((0.0, 0.05, 50.0)), self._catch_up)
        return True

    def _catch_up(self) -> None:
        self.resume()

    def fault_refill(self) -> bool:
        """The source has jobs again."""
        if self.is_source_broken:
            return False
        self.fill_source(self.chance.randrange(1, 6))
        return True

    def fault_broken_source(self) -> bool:
        """The source raises while it is read."""
        if self.asked is None:
            return False
        self.break_source()
        return True

    def fault_refused(self) -> bool:
        """The next job of the source cannot be pickled."""
        self._refusals = 1
        return True

    def fault_job_by_hand(self) -> bool:
        """The caller adds a job past the source."""
        self.add_by_hand(1)
        event = self._events.popleft()
        self.send(event)
        return True

    # The end

    def _check_nothing_is_left(self) -> None:
        """Only what stops a run leaves jobs without an outcome."""
        is_stopped = self.happened["abort"] or self.happened["drain"] or self.is_over_budget
        is_cut_short = is_stopped or self.ends[0].error is not None
        if is_cut_short:
            return
        returned = {job.id for job in self.returned}
        require(returned <= self.in_vain, "no job is given back by a run that was not aborted")
        if not self.is_source_broken:
            left = len(self.source)
            require(left == self.filled_in_vain, "no job is left in the source", left)

    def _report(self) -> SimulationReport:
        return SimulationReport(
            seed=self.seed,
            states=dict(Counter(self.states.values())),
            returned=len(self.returned),
            workers=len(self.buried),
            retries=sum(map(len, self.charges.values())),
            error=self.ends[0].error,
            happened=self.happened,
            steps=self.steps,
            seconds=self.now,
        )


FATES: dict[str, tuple[int, Callable[[SimulatedWorld, SimProcess, Job], None]]] = {
    "done": (60, SimulatedWorld.fate_done),
    "long": (6, SimulatedWorld.fate_long),
    "blocks": (3, SimulatedWorld.fate_blocks),
    "raises unasked": (2, SimulatedWorld.fate_raises_unasked),
    "large": (6, SimulatedWorld.fate_large),
    "raises": (4, SimulatedWorld.fate_raises),
    "raises once": (4, SimulatedWorld.fate_raises_once),
    "unserialisable": (3, SimulatedWorld.fate_unserialisable),
    "crashes": (3, SimulatedWorld.fate_crashes),
    "crashes once": (4, SimulatedWorld.fate_crashes_once),
    "exits once": (3, SimulatedWorld.fate_exits_once),
    "hangs": (2, SimulatedWorld.fate_hangs),
    "hangs once": (3, SimulatedWorld.fate_hangs_once),
    "swells": (3, SimulatedWorld.fate_swells),
    "oom": (2, SimulatedWorld.fate_oom),
}
"""How likely a job's fate is, and what it does when the job has been executed."""

FAULTS: dict[str, tuple[int, Callable[[SimulatedWorld], bool]]] = {
    "kill": (6, SimulatedWorld.fault_kill),
    "freeze": (2, SimulatedWorld.fault_freeze),
    "stats": (6, SimulatedWorld.fault_stats),
    "abort": (1, SimulatedWorld.fault_abort),
    "drain": (1, SimulatedWorld.fault_drain),
    "cancel": (4, SimulatedWorld.fault_cancel),
    "measured": (4, SimulatedWorld.fault_measured),
    "out of memory": (1, SimulatedWorld.fault_out_of_memory),
    "resize": (2, SimulatedWorld.fault_resize),
    "limit": (1, SimulatedWorld.fault_limit),
    "pause": (2, SimulatedWorld.fault_pause),
    "refill": (2, SimulatedWorld.fault_refill),
    "broken source": (1, SimulatedWorld.fault_broken_source),
    "refused": (2, SimulatedWorld.fault_refused),
    "job by hand": (3, SimulatedWorld.fault_job_by_hand),
}
"""How often a fault strikes a schedule at most, and what it does."""

_STOPS = ("abort", "drain")
"""Faults after which little happens: half as often as others."""
_TIMEOUTS: tuple[tuple[float | None, ...], ...] = ((None,), (None,), (None, 0.05, 1.0), (1.0,))
"""Time limits to draw from; a schedule uses one row."""
_RECYCLES = (
    *([Recycle()] * 4),
    Recycle(jobs=1),
    Recycle(jobs=2),
    Recycle(jobs=5, rss=_RECYCLE_RSS),
    Recycle(rss=_RECYCLE_RSS),
    Recycle(seconds=0.05),
    Recycle(seconds=1.0),
)
_JOBS = (0, 1, 2, 3, 5, 8, 13, 20)


def _fixed_backoff(bad_ends: int) -> float:
    return 0.5 * bad_ends


def _draw_retry(chance: random.Random) -> Retry:
    return Retry(
        errors=chance.choice((0, 1, 2)),
        crashes=chance.choice((0, 1, 2)),
        timeouts=chance.choice((0, 0, 1)),
        memory=chance.choice((0, 1)),
        backoff=chance.choice((None, _fixed_backoff)),
    )


def _draw_limits(chance: random.Random) -> dict[str, Any]:
    """Draw further fields of `Policy`."""
    return {
        "recycle": chance.choice(_RECYCLES),
        "soft_timeout": chance.choice((False, True, True)),
        "stuck_after": chance.choice((None, None, 0.1, 1.0)),
        "start_timeout": chance.choice((*[None] * 6, 0.01, 0.5)),
        "max_rss": chance.choice((None, _MOST_RSS)),
        "max_failures": chance.choice((*[None] * 8, 0, 2, 0.3)),
    }


def _weighed(chance: random.Random, names: Collection[str] | None) -> tuple[list[str], list[int]]:
    """Draw whether jobs of this schedule are good on the whole, or bad."""
    good = chance.choice((1, 1, 10))
    chosen = [name for name in FATES if names is None or name in names]
    return chosen, [FATES[name][0] * (good if name == "done" else 1) for name in chosen]


def simulate(seed: int, **options: Any) -> SimulationReport:
    """Run one schedule of the whole system, and check every promise at every step.

    Args:
        seed: which schedule.
        options: those of `SimulatedWorld`, to hold something fixed that the seed would draw.

    Raises:
        BrokenPromiseError: a promise was broken; the message says which, and how to see it again,
            and tells everything that happened.
    """
    try:
        return SimulatedWorld(seed, **options).run()
    except Exception as error:
        raise BrokenPromiseError(_story(seed, options, error)) from error


def _story(seed: int, options: dict[str, Any], error: Exception) -> str:
    """Play a schedule again and write down what happens."""
    traced: dict[str, Any] = {**options, "trace": True}
    world = SimulatedWorld(seed, **traced)
    try:
        world.run()
    except Exception as again:
        error = again
    arguments = ", ".join([f"seed={seed}", *(f"{k}={v!r}" for k, v in options.items())])
    head = [
        f"{type(error).__name__}: {error}",
        f"to see it again: okanjo_conductor.testing.simulate({arguments})",
        f"workers: {world.slots}, {world.policy}",
    ]
    return "\n".join([*head, *(world.lines or ())])
