"""A thousand workers on one's desk: the real core, its cluster and its clock made up.

`simulate_cluster` answers what a conductor would do with more workers than there are at hand. It
draws nothing by chance and looks for no faults: that is what `simulate` is for. It counts and
times, and is lean enough for many millions of jobs, which it keeps in columns, as the core does.

    _Shell     the conductor: one loop, which is busy for as long as its work costs, and around the
               core only what a run without journal and listeners does
    Node      an agent: gathers what its workers say until one of its two polls is there to carry it
    Worker    executes what it was sent, in order; rings when a batch is done, and every 10 ms
    World     the clock, and what is due

*Time* is simulated, in nanoseconds, but for what the core costs: each call of it is measured by
`clock`, and the simulated conductor is busy for as long. What surrounds the core is charged by
`ShellCosts`. So a conductor that cannot keep up shows as workers that wait. An agent's own work
takes no time here, and no network is ever full.
"""

from __future__ import annotations

import time
import tracemalloc
from collections import deque
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from okanjo_conductor import _core
from okanjo_conductor._core import commands as do
from okanjo_conductor._core import events as ev
from okanjo_conductor._core import records as rec
from okanjo_conductor._core.jobs import Jobs
from okanjo_conductor._core.policy import Policy
from okanjo_conductor._core.state import ConductorState
from okanjo_conductor.testing._promises import require
from okanjo_conductor.testing._scale_nodes import Node, Work, World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from okanjo_conductor._types import Ordinal, WorkerId
    from okanjo_conductor.testing._scale_nodes import Entry

SECOND = 1_000_000_000
"""In nanoseconds, the unit of the simulated clock."""
_STUCK_AFTER = 300.0
"""The default of a conductor: so there is a deadline for each job that lasts."""
_TABLES = [tracemalloc.Filter(True, str(Path(path, "*"))) for path in _core.__path__]
"""Memory that the core's own code has taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellCosts:
    """What a conductor is busy with beside its core, in seconds.

    The defaults were measured, with sockets for an engine: see `docs/scale.md`.
    """

    packet: float = 60e-6
    """To send or receive one packet of a node. An engine that makes a call of it takes longer."""
    message: float = 60e-6
    """To make or read one message of a worker in it."""
    job: float = 0.3e-6
    """To read one job, send it, and read and deliver its outcome; the payload being a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleReport:
    """How a simulated run went. Seconds, and bytes."""

    nodes: int
    workers: int
    jobs: int
    makespan: float
    """From the start of the run to the last outcome, simulated."""
    bound: float
    """No schedule is shorter: all work spread evenly over the workers, or the longest job."""
    utilisation: float
    """The share of the workers' time, until the last outcome, in which they worked for one."""
    core: float
    """What the core has cost, by `clock`."""
    busy: float
    """How long the conductor was busy, simulated: the core, and what surrounds it."""
    events: int
    """How many events the core has handled."""
    hand_outs: int
    recalls: int
    messages: int
    """Between conductor and workers, both ways."""
    packets: int
    """In which they travelled, between conductor and nodes."""
    repeated: int
    """Jobs that were begun on a lost node, and executed again elsewhere."""
    bytes_per_worker: int | None
    """Memory of the core's tables in the middle of the run; None: it was not traced."""


def simulate_cluster(
    *,
    nodes: int = 32,
    workers: int = 1000,
    jobs: int,
    durations: float | Sequence[float],
    round_trip: float = 0.005,
    costs: ShellCosts | None = None,
    lose_node_at: float | None = None,
    notice_after: float = 5.5,
    clock: Callable[[], float] = time.process_time,
    traces_memory: bool = False,
) -> ScaleReport:
    """Let simulated workers execute jobs, handed out by the real core.

    Args:
        nodes: over which the workers are spread evenly.
        workers: how many; each has a slot of its own, and is there as soon as it was asked for.
        jobs: how many there are to execute.
        durations: seconds that each job takes, or a row of them that is gone through again and
            again; more than 0.
        round_trip: seconds that an answer of a node takes.
        costs: of what surrounds the core.
        lose_node_at: seconds after which one node is gone, with all its workers; no other takes its
            place. None: never.
        notice_after: seconds until the conductor gives the jobs of a lost node to others.
        clock: is read before and after each call of the core; the difference is what it cost.
        traces_memory: measure the memory of the core's tables; the times are wrong then.

    Returns:
        What it took.

    Raises:
        BrokenPromiseError: a job had no outcome, or two; or the run hangs.
    """
    row = [durations] if isinstance(durations, int | float) else durations
    if min(nodes, workers, jobs, len(row)) < 1 or min(row) <= 0:
        message = "nodes, workers, jobs: from 1; durations: one or more, each more than 0"
        raise ValueError(message)
    work = Work(jobs, [max(1, round(seconds * SECOND)) for seconds in row])
    world = World(work, round(round_trip * SECOND / 2))
    shell = _Shell(world, nodes, workers, costs or ShellCosts(), clock)
    if lose_node_at is not None:
        world.at(round(lose_node_at * SECOND), shell.lose_node, round(notice_after * SECOND))
    if traces_memory:
        tracemalloc.start()
    try:
        shell.run()
    finally:
        if traces_memory:
            tracemalloc.stop()
    return shell.report()


class _Shell:
    """The conductor: one loop, which is busy for as long as its work costs."""

    def __init__(
        self,
        world: World,
        nodes: int,
        workers: int,
        costs: ShellCosts,
        clock: Callable[[], float],
    ) -> None:
        self._world = world
        self._work = world.work
        self._costs = costs
        self._clock = clock
        self._slots = workers
        self._state = ConductorState(slots=workers, policy=Policy(stuck_after=_STUCK_AFTER))
        self._node_count = nodes
        self._nodes = [Node(world, self._on_packet) for _ in range(nodes)]
        self._room = -(-workers // nodes)
        self._homes: dict[WorkerId, Node] = {}
        self._placeless: list[WorkerId] = []
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        """What the loop has to do."""
        self._outbox: dict[Node, list[Entry]] = {}
        """What is said in this turn of it."""
        self._is_busy = False
        self._events: deque[ev.Event] = deque()
        self._timer: float | None = None
        self._spent = 0.0
        """Seconds since the turn began."""
        self._next_job = 0
        self._ended = bytearray(world.work.jobs)
        """By job, whether it has its outcome."""
        self._left = world.work.jobs
        self._makespan = 0.0
        self._lost_at = inf
        self._lost_workers = 0
        self._is_over = False
        names = "events", "hand_outs", "recalls", "messages", "packets", "repeated"
        self._sums = dict.fromkeys(names, 0)
        self._core = self._busy = 0.0
        self._traced: int | None = None

    def run(self) -> None:
        """Execute every job."""
        self._call(self._post, ev.RunStarted())
        while not self._is_over:
            require(self._world.go_on(), "a run does not hang", self._state)
        require(not self._left, "every job has an outcome", self._left)

    def report(self) -> ScaleReport:
        """Say how it went."""
        total, makespan = self._work.total / SECOND, self._makespan
        even = total / self._slots
        if even > self._lost_at:
            rest = total - self._lost_at * self._slots
            even = self._lost_at + rest / (self._slots - self._lost_workers)
        lost_time = self._lost_workers * max(0.0, makespan - self._lost_at)
        return ScaleReport(
            nodes=self._node_count,
            workers=self._slots,
            jobs=self._work.jobs,
            makespan=makespan,
            bound=max(even, self._work.longest / SECOND),
            utilisation=total / (self._slots * makespan - lost_time),
            core=self._core,
            busy=self._busy + self._spent,  # the last turn has not ended
            bytes_per_worker=None if self._traced is None else self._traced // self._slots,
            **self._sums,
        )

    # The loop

    def _call(self, action: Callable[..., None], *args: Any) -> None:
        """Have something done in the next turn, which is now unless the loop is busy."""
        self._calls.append((action, args))
        if not self._is_busy:
            self._take_turn()

    def _take_turn(self) -> None:
        self._is_busy = True
        while self._calls:
            action, args = self._calls.popleft()
            action(*args)
        outbox, self._outbox = self._outbox, {}
        for node, entries in outbox.items():
            self._spend(self._costs.packet)
            self._sums["packets"] += 1
            self._later(self._world.half_trip, node.hear, entries)
        self._later(0, self._end_turn)

    def _end_turn(self) -> None:
        self._busy += self._spent
        self._spent = 0.0
        self._is_busy = False
        if self._calls:
            self._take_turn()

    def _spend(self, seconds: float) -> None:
        self._spent += seconds

    def _later(self, nanoseconds: int, action: Callable[..., None], *args: Any) -> None:
        """Have something done so long after the moment that the turn has come to."""
        world = self._world
        world.at(world.now + round(self._spent * SECOND) + nanoseconds, action, *args)

    def _now(self) -> float:
        return self._world.now / SECOND + self._spent

    # The core

    def _post(self, event: ev.Event) -> None:
        """Hand the core an event, and what comes of it."""
        events, clock = self._events, self._clock
        events.append(event)
        while events and not self._is_over:
            self._sums["events"] += 1
            began = clock()
            step = self._state.handle(events.popleft(), self._now())
            self._note_core(clock() - began)
            for record in step.records:
                self._receive(record)
            for command in step.commands:
                _CARRY_OUT.get(type(command), _ignore)(self, command)
        if not self._is_over:
            self._set_timer()

    def _note_message(self) -> None:
        self._sums["messages"] += 1
        self._spend(self._costs.message)

    def _note_core(self, seconds: float) -> None:
        self._core += seconds
        self._spend(seconds)

    def _set_timer(self) -> None:
        began = self._clock()
        deadline = self._state.next_deadline()
        self._note_core(self._clock() - began)
        if deadline is not None and deadline != self._timer:
            at = ceil(deadline * SECOND) + 1  # not a rounding error less
            self._world.at(max(at, self._world.now), self._on_timer, deadline)
        self._timer = deadline

    def _on_timer(self, deadline: float) -> None:
        if deadline == self._timer:
            self._timer = None
            self._call(self._post, ev.TimePassed())

    def _receive(self, record: rec.Record) -> None:
        require(isinstance(record, rec.JobsDone), "no job is charged", record)
        assert isinstance(record, rec.JobsDone)  # noqa: S101 - said to who checks types
        self._note_ended(record.jobs.ids)
        self._homes[record.worker_id].workers[record.worker_id].heard += len(record.jobs)
        if not self._left:
            self._makespan = self._now()

    def _note_ended(self, ids: Sequence[int]) -> None:
        ended = self._ended
        if isinstance(ids, range):
            is_new = ended.find(1, ids.start, ids.stop) < 0
            ended[ids.start : ids.stop] = b"\x01" * len(ids)
        else:
            is_new = not any(ended[number] for number in ids)
            for number in ids:
                ended[number] = 1
        require(is_new, "no job has two outcomes", ids)
        before, self._left = self._left, self._left - len(ids)
        half = self._work.jobs // 2
        if before > half >= self._left and tracemalloc.is_tracing():
            self._traced = _bytes_of_tables()

    # Commands

    def _read_jobs(self, command: do.ReadJobs) -> None:
        first, left = self._next_job, self._work.jobs - self._next_job
        ids = range(first, first + min(command.count, left))
        self._next_job = ids.stop
        if ids:
            payloads = [None] * len(ids)
            jobs = Jobs(ids, ids, payloads, payloads)  # type: ignore[arg-type]  # job ids are ints
            self._events.append(ev.JobsAccepted(jobs=jobs))
        else:
            self._events.append(ev.IntakeEnded())

    def _start_worker(self, command: do.StartWorker) -> None:
        free = [node for node in self._nodes if node.placed < self._room]
        if not free:
            self._placeless.append(command.worker_id)
            return
        node = min(free, key=lambda node: node.placed)
        node.placed += 1
        self._homes[command.worker_id] = node
        self._say("start", command.worker_id)

    def _hand_out(self, command: do.HandOut) -> None:
        self._sums["hand_outs"] += 1
        self._spend(self._costs.job * len(command.jobs))
        self._say("take", command.worker_id, command.first, command.jobs.ids)

    def _recall(self, command: do.RecallJobs) -> None:
        self._sums["recalls"] += 1
        self._say("recall", command.worker_id)

    def _stop_worker(self, command: do.StopWorker) -> None:
        if command.worker_id in self._homes:
            self._say("stop", command.worker_id)
        else:
            self._events.append(_exited(command.worker_id))

    def _end_run(self, _command: do.EndRun) -> None:
        self._is_over = True

    def _say(self, verb: str, number: WorkerId, *args: Any) -> None:
        self._note_message()
        self._outbox.setdefault(self._homes[number], []).append((verb, number, *args))

    # What nodes say

    def _on_packet(self, node: Node, entries: list[Entry]) -> None:
        if node in self._nodes:
            self._call(self._read_packet, node, entries)

    def _read_packet(self, node: Node, entries: list[Entry]) -> None:
        self._sums["packets"] += 1
        self._spend(self._costs.packet)
        self._later(self._world.half_trip, node.poll)
        for verb, number, *args in entries:
            self._note_message()
            if verb == "exited":
                del node.workers[number]
            self._post(_EVENT_OF[verb](number, *args))

    def lose_node(self, notice_after: int) -> None:
        """Let the first node be gone, and the conductor know of it later."""
        node = self._nodes[0]
        node.lose()
        self._lost_at, self._lost_workers = self._world.now / SECOND, len(node.workers)
        self._world.at(self._world.now + notice_after, self._call, self._bury, node)

    def _bury(self, node: Node) -> None:
        self._nodes.remove(node)
        for number, worker in node.workers.items():
            self._sums["repeated"] += node.begun[number] - worker.heard
            self._post(_exited(number, None))


def _ready(number: WorkerId, round_trip: int) -> ev.WorkerReady:
    return ev.WorkerReady(worker_id=number, round_trip=round_trip / SECOND)


def _done(number: WorkerId, ordinals: list[Ordinal], nanoseconds: list[int]) -> ev.AttemptsDone:
    return ev.AttemptsDone(
        worker_id=number,
        ordinals=ordinals,
        values=[None] * len(ordinals),
        nanoseconds=nanoseconds,
    )


def _seen(number: WorkerId, ordinal: Ordinal, since: int) -> ev.JobsSeen:
    return ev.JobsSeen(worker_id=number, first=ordinal, last=ordinal, since=since / SECOND)


def _recalled(number: WorkerId, kept: Ordinal) -> ev.JobsRecalled:
    return ev.JobsRecalled(worker_id=number, beyond=kept)


def _exited(number: WorkerId, code: int | None = 0) -> ev.WorkerExited:
    return ev.WorkerExited(worker_id=number, code=code, signal=None, claimed=None)


def _ignore(_shell: _Shell, _command: do.Command) -> None:
    """Nobody listens; and whoever is to be ended by force is on a lost node."""


_EVENT_OF: dict[str, Callable[..., ev.Event]] = {
    "ready": _ready,
    "outcomes": _done,
    "claim": _seen,
    "recalled": _recalled,
    "exited": _exited,
}
_CARRY_OUT: dict[type[Any], Callable[[_Shell, Any], None]] = {
    do.ReadJobs: _Shell._read_jobs,
    do.StartWorker: _Shell._start_worker,
    do.HandOut: _Shell._hand_out,
    do.RecallJobs: _Shell._recall,
    do.StopWorker: _Shell._stop_worker,
    do.EndRun: _Shell._end_run,
}


def _bytes_of_tables() -> int:
    traces = tracemalloc.take_snapshot().filter_traces(_TABLES).traces
    return sum(trace.size for trace in traces)
