"""What the shell sees of live workers without asking them: claims, memory, stacks.

None of it needs the worker's help, so it works while C code of a job keeps the GIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from okanjo_conductor._core import events as ev
from okanjo_conductor._io.loggers import log
from okanjo_conductor._io.memory import OomWatch
from okanjo_conductor._types import Ordinal, WorkerId, WorkerStuck

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._core import commands as do
    from okanjo_conductor._core.policy import Policy
    from okanjo_conductor._io.loops import Loop, Timer
    from okanjo_conductor.clusters._base import Link

_MEASURE_EVERY = 0.1
"""Seconds between looks at the workers' memory."""
_STACK_TIME = 0.2
"""Seconds that a worker may take to write its stack; its kernel does it in well under one ms."""
_LOOKS = 10
"""So many times that, where the machine is so busy that the worker does not come to it."""


class Vitals:
    """Looks at the workers of a run.

    Args:
        measure: tells how much memory a worker holds, by its number and that of its process.
        dump_stack: has a worker write down what its threads are doing; says whether it can.
        emit: tells the conductor's listeners.
    """

    def __init__(
        self,
        loop: Loop,
        links: dict[int, Link],
        policy: Policy,
        *,
        post: Callable[[ev.Event], None],
        measure: Callable[[int, int], int | None],
        dump_stack: Callable[[int], bool],
        emit: Callable[..., None],
    ) -> None:
        self._loop = loop
        self._links = links
        self._post = post
        self._measure_one = measure
        self._dump_stack = dump_stack
        self._emit = emit
        self._measures = policy.measures_memory
        self._measured_at = loop.time()
        self._seen: dict[int, tuple[int, float, int]] = {}
        """By worker: the ordinal it had claimed at the last look that found a new one, when that
        was, and the last one of which the core knows."""
        self._parallel: set[int] = set()
        """Workers that execute several jobs at a time."""
        self.pids: dict[int, int] = {}
        """By worker whose process exists."""
        self._oom = OomWatch()
        self._timers: set[Timer] = set()
        self._asked: dict[int, list[int]] = {}
        """By worker: where in what it has written the stacks begin that are waited for."""

    def worker_started(self, worker_id: int, pid: int) -> None:
        """Begin to look at a worker."""
        self.pids[worker_id] = pid

    def worker_ready(self, worker_id: int, concurrency: int) -> None:
        """Take note of how many jobs a worker executes at a time."""
        if concurrency > 1:
            self._parallel.add(worker_id)

    def worker_gone(self, worker_id: int, signal_name: str | None) -> bool:
        """Look at a worker no more; say whether the kernel has ended it for want of memory."""
        self.pids.pop(worker_id, None)
        self._seen.pop(worker_id, None)
        self._asked.pop(worker_id, None)
        self._parallel.discard(worker_id)
        return signal_name == "SIGKILL" and self._oom.has_risen()

    def executing_since(self, worker_id: int, ordinal: int, now: float) -> float:
        """When a worker was first seen executing this; `now`, if it never was."""
        seen, since, _ = self._seen.get(worker_id, (0, now, 0))
        return since if seen == ordinal else now

    def close(self) -> None:
        """Tell nothing more."""
        for timer in self._timers:
            timer.cancel()

    def look(self) -> None:
        """Tell the core which jobs go on for some time, and what memory the workers hold."""
        now = self._loop.time()
        for worker_id, link in tuple(self._links.items()):
            self._look_at_claim(worker_id, link, now)
        if self._measures and now - self._measured_at >= _MEASURE_EVERY:
            self._measured_at = now
            for worker_id, pid in tuple(self.pids.items()):
                self._measure(worker_id, pid)

    def _look_at_claim(self, worker_id: int, link: Link, now: float) -> None:
        """Tell of what was claimed before the last look and, as far as can be seen, goes on."""
        claimed = link.last_started() or 0
        ordinal, since, told = self._seen.get(worker_id, (0, now, 0))
        is_parallel = worker_id in self._parallel
        if told < ordinal and (is_parallel or claimed == ordinal):
            first = told + 1 if is_parallel else ordinal
            told = ordinal
            self._post(
                ev.JobsSeen(
                    worker_id=WorkerId(worker_id),
                    first=Ordinal(first),
                    last=Ordinal(ordinal),
                    since=since,
                )
            )
        if claimed > ordinal:
            ordinal, since = claimed, now
        self._seen[worker_id] = ordinal, since, told

    def _measure(self, worker_id: int, pid: int) -> None:
        link, rss = self._links.get(worker_id), self._measure_one(worker_id, pid)
        if link is None or rss is None:
            return
        claimed = link.last_started()
        self._post(ev.MemoryMeasured(worker_id=WorkerId(worker_id), rss=rss, claimed=claimed))

    def report_stuck(self, command: do.ReportStuck) -> None:
        """Tell listeners that a job takes long, when its stack is here."""
        worker_id = command.worker_id
        link = self._links.get(worker_id)
        if link is None:
            return
        begin = link.box_size
        self._asked.setdefault(worker_id, []).append(begin)
        can_write = self._dump_stack(worker_id)
        self._tell_later(command, link, begin, _LOOKS if can_write else 1)

    def _tell_later(self, command: do.ReportStuck, link: Link, begin: int, looks: int) -> None:
        """Tell when the stack is there, after a few looks for it at most."""

        def tell() -> None:
            self._timers.discard(timer)
            if self._links.get(command.worker_id) is not link:
                return
            if looks > 1 and link.box_size == begin:
                self._tell_later(command, link, begin, looks - 1)
                return
            asked = self._asked[command.worker_id]
            asked.remove(begin)
            end = min((later for later in asked if later > begin), default=None)
            self._tell_stuck(command, link.take_stack(begin, end))

        timer = self._loop.call_later(_STACK_TIME, tell)
        self._timers.add(timer)

    def _tell_stuck(self, command: do.ReportStuck, stack: str) -> None:
        stuck = WorkerStuck(command.worker_id, command.slot, command.key, command.seconds, stack)
        log().warning("%s", stuck)
        self._emit("worker_stuck", stuck)
