"""The simulated side of `_scale`: the clock, nodes with their agents, and workers.

    World      the clock, and what is due
    Node       an agent: gathers what its workers say until one of its two polls can carry it
    Worker     executes what it was sent, in order; rings when a batch is done, and every 10 ms

What is said is an *entry*: a verb, a worker's number, and what belongs to it.

    to a node                         to the conductor
    start   number                    ready    number trip
    take    number first ids          outcomes number ordinals nanoseconds
    recall  number                    claim    number ordinal since
    stop    number                    recalled number kept
                                      exited   number

Times are whole nanoseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from heapq import heappop, heappush
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

from okanjo_conductor._types import Ordinal, WorkerId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from okanjo_conductor._types import JobId

Entry: TypeAlias = "tuple[Any, ...]"

_BELL = 10_000_000
"""After which a worker rings at the next end of a job, as in `_runtime`."""
_LASTING = 40_000_000
"""After which an agent tells that a job goes on: two of its ticks, as in `_agent`."""
_POLLS = 2
"""Calls that wait at an agent for what it says, as in `clusters.ray`."""


class Work:
    """How long jobs take, in nanoseconds."""

    def __init__(self, jobs: int, row: list[int]) -> None:
        self.jobs = jobs
        self._row = row
        rounds, rest = divmod(jobs, len(row))
        self.total = rounds * sum(row) + sum(row[:rest])
        self.longest = max(row[:jobs])

    def of(self, ids: Sequence[int]) -> list[int]:
        """Return how long each of these takes."""
        row, length = self._row, len(self._row)
        return row * len(ids) if length == 1 else [row[number % length] for number in ids]


class World:
    """The clock, what is due, and what everybody must know."""

    def __init__(self, work: Work, half_trip: int) -> None:
        self.work = work
        self.half_trip = half_trip
        """How long a packet is on its way."""
        self.now = 0
        self._due: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: int, action: Callable[..., None], *args: Any) -> None:
        """Have something done then; at the same time, in the order of the calls."""
        self._count += 1
        heappush(self._due, (when, self._count, action, args))

    def go_on(self) -> bool:
        """Do what is due next; say whether there was anything."""
        if not self._due:
            return False
        self.now, _, action, args = heappop(self._due)
        action(*args)
        return True


class Worker:
    """One worker, and what it was sent."""

    def __init__(self, number: WorkerId, node: Node, world: World) -> None:
        self._number = number
        self._node = node
        self._world = world
        self._waiting: deque[tuple[int, Sequence[int]]] = deque()
        """Batches it has not begun: the first ordinal, and the jobs."""
        self._first = 1
        """The ordinal at the head of the batch at hand."""
        self._lengths: list[int] = []
        self._times = [0]
        """When the batch began, and when each of its jobs ends."""
        self._told = 0
        """How many jobs of the batch it has told of."""
        self._rang = -_BELL
        self._is_working = False
        self._is_leaving = False
        self._plan = 0
        """Counts plans: what an earlier one has scheduled is void."""
        self._before = 0
        """Jobs of batches before this one."""
        self.heard = 0
        """Jobs whose outcome has reached the conductor. Changed by the shell."""

    def take(self, first: Ordinal, ids: Sequence[JobId]) -> None:
        """Execute these after the others."""
        self._waiting.append((first, ids))
        if not self._is_working:
            self._begin()

    def recall(self) -> None:
        """Give back what it has not begun."""
        self._waiting.clear()
        if self._is_working:
            begun = self._begun_of_batch()
            del self._lengths[begun:], self._times[begun + 1 :]
            self._plan_ahead()
        self._say("recalled", self._first + len(self._lengths) - 1)

    def stop(self) -> None:
        """Leave. It holds nothing: a run that is not ended early stops workers at its end."""
        self._is_leaving = True
        if not self._is_working:
            self._leave()

    def freeze(self) -> int:
        """Do nothing more; tell how many jobs were ever begun."""
        self._plan += 1
        return self._before + self._begun_of_batch()

    def _begun_of_batch(self) -> int:
        return min(bisect_right(self._times, self._world.now), len(self._lengths))

    def _begin(self) -> None:
        """Begin the next batch, if there is one."""
        self._before += len(self._lengths)
        self._is_working = bool(self._waiting)
        if self._is_working:
            self._first, ids = self._waiting.popleft()
            self._lengths = self._world.work.of(ids)
            self._times = list(accumulate(self._lengths, initial=self._world.now))
            self._told = 0
            self._plan_ahead()
        else:
            self._first += len(self._lengths)
            self._lengths = []
            if self._is_leaving:
                self._leave()

    def _plan_ahead(self) -> None:
        """Find the end of a job at which it rings next; and is the one before it seen to last?"""
        self._plan += 1
        world, times = self._world, self._times
        due = max(bisect_right(times, self._rang + _BELL), self._told + 1)
        last = min(due, len(self._lengths))
        world.at(times[last], self._ring, self._plan, last)
        seen_at = times[last - 1] + _LASTING
        if world.now < seen_at < times[last]:
            world.at(seen_at, self._lasts, self._plan, last - 1)

    def _ring(self, plan: int, done: int) -> None:
        if plan != self._plan:
            return
        told, self._told, self._rang = self._told, done, self._world.now
        ordinals = list(range(self._first + told, self._first + done))
        self._say("outcomes", ordinals, self._lengths[told:done])
        if done == len(self._lengths):
            self._begin()
        else:
            self._plan_ahead()

    def _lasts(self, plan: int, index: int) -> None:
        if plan == self._plan:
            self._say("claim", self._first + index, self._times[index])

    def _leave(self) -> None:
        self._say("exited")

    def _say(self, verb: str, *args: Any) -> None:
        self._node.say((verb, self._number, *args))


class Node:
    """A node: its agent, and the workers there."""

    def __init__(self, world: World, read: Callable[[Node, list[Entry]], None]) -> None:
        self._world = world
        self._read = read
        self.workers: dict[WorkerId, Worker] = {}
        self.placed = 0
        """How many workers have a place here, as the conductor believes."""
        self.begun: dict[WorkerId, int] = {}
        """How many jobs each worker had begun when the node was lost."""
        self._said: list[Entry] = []
        self._polls = _POLLS
        self._is_flushing = False
        self._is_lost = False

    def say(self, entry: Entry) -> None:
        """Have an entry brought to the conductor, with all others of this moment."""
        self._said.append(entry)
        self._flush_soon()

    def poll(self) -> None:
        """Take a call that waits for what is said."""
        self._polls += 1
        if self._said:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._polls and not self._is_flushing:
            self._is_flushing = True
            self._world.at(self._world.now, self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if not self._is_lost:
            said, self._said = self._said, []
            self._polls -= 1
            world = self._world
            world.at(world.now + world.half_trip, self._read, self, said)

    def hear(self, entries: list[Entry]) -> None:
        """Do what a packet says."""
        if self._is_lost:
            return
        for verb, number, *args in entries:
            if verb == "start":
                self.workers[number] = Worker(number, self, self._world)
                self.say(("ready", number, 2 * self._world.half_trip))
            else:
                _DO[verb](self.workers[number], *args)

    def lose(self) -> None:
        """Be gone."""
        self._is_lost = True
        self.begun = {number: worker.freeze() for number, worker in self.workers.items()}


_DO: dict[str, Callable[..., None]] = {
    "take": Worker.take,
    "recall": Worker.recall,
    "stop": Worker.stop,
}
