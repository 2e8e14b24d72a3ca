"""Kill a worker of a real run at a named moment.

Two kinds of moment. Some are news that every program can hear, an event of the conductor. Others
are states, found by looking at the run again and again from its own loop: a worker that seems to
execute the job in question is first stopped (SIGSTOP), then looked at once more, and only if it is
caught in the act does it get the signal; else it is continued, and never knew.
"""

from __future__ import annotations

import os
import signal as signals
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from okanjo_conductor.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from okanjo_conductor._conductor import Conductor
    from okanjo_conductor._types import Key, Outcome, WorkerExit

_LOOK = 0.001
"""Seconds between looks at a run."""
_NOTHING = object()


@dataclass(eq=False)
class Kill:
    """A kill that was ordered, and what came of it."""

    conductor: Conductor
    signal: signals.Signals
    worker_id: int | None = None
    """Whom it struck; None as long as its moment has not come."""
    pid: int | None = None
    _pids: dict[int, int] = field(default_factory=dict[int, int])
    """Processes by worker id, of those that live."""
    _look: Callable[[], int | None] | None = None
    _is_looking: bool = False
    _suspect: int | None = None
    """A worker that was stopped, to be looked at when it stands still."""

    @property
    def happened(self) -> bool:
        """Whether its moment came."""
        return self.worker_id is not None

    def check(self) -> None:
        """Raise `AssertionError` unless its moment came."""
        if not self.happened:
            message = f"the moment to send a worker {self.signal.name} never came"
            raise AssertionError(message)

    def _strike(self, worker_id: int | None) -> None:
        """Kill a worker, once; if it is gone already, any other."""
        if self.happened or not self._pids:
            return
        victim = worker_id if worker_id in self._pids else min(self._pids)
        self.worker_id, self.pid = victim, self._pids[victim]
        with suppress(ProcessLookupError):
            os.kill(self.pid, self.signal)

    def _note_exit(self, end: WorkerExit) -> None:
        self._pids.pop(end.worker_id, None)
        if self._suspect == end.worker_id:
            self._suspect = None


def kill_worker_at(
    conductor: Conductor,
    *,
    start: int | None = None,
    outcome: int | None = None,
    ready: int | None = None,
    running: Key = _NOTHING,
    signal: signals.Signals = signals.SIGKILL,
) -> Kill:
    """Have a worker killed once, when the moment that is named has come. Call it before the run.

    Name one moment:

    Args:
        conductor: whose worker.
        start: the n-th worker process of the run exists; it is not set up yet, and is the victim.
        outcome: the n-th outcome has arrived; the victim is the worker it came from.
        ready: n workers wait for jobs or have some; the victim is the oldest.
        running: a worker executes the job of this key; it is the victim, and is struck while it
            does: not before, not after. The job must run for some milliseconds. Needs ``/proc``.
        signal: what it is sent.

    Returns:
        The kill: ``happened``, ``worker_id``, ``pid``, and ``check()`` for the end of a test.

    Raises:
        ConfigurationError: no moment is named, or several are; or workers are no processes.
    """
    if not conductor._cluster.capabilities.is_isolated:
        message = (
            f'kill_worker_at: the workers of cluster="{conductor._cluster.name}" live in this '
            'process, and it would be killed. Use cluster="processes"'
        )
        raise ConfigurationError(message)
    named = [start is not None, outcome is not None, ready is not None, running is not _NOTHING]
    if sum(named) != 1:
        message = "kill_worker_at: name one moment: start, outcome, ready or running"
        raise ConfigurationError(message)
    kill = Kill(conductor, signal)
    conductor.on("worker_exit", kill._note_exit)
    if outcome is not None:
        _at_outcome(kill, outcome)
    if ready is not None:
        kill._look = lambda: _find_ready(kill, ready)
    if running is not _NOTHING:
        kill._look = lambda: _catch(kill, running)
    _watch_starts(kill, start)
    return kill


def _watch_starts(kill: Kill, nth: int | None) -> None:
    started = 0

    def on_start(worker_id: int, pid: int) -> None:
        nonlocal started
        started += 1
        kill._pids[worker_id] = pid
        if started == nth:
            kill._strike(worker_id)
        if kill._look is not None and not kill._is_looking:
            _keep_looking(kill)

    kill.conductor.on("worker_start", on_start)


def _at_outcome(kill: Kill, nth: int) -> None:
    seen = 0

    def on_outcome(outcome: Outcome) -> None:
        nonlocal seen
        seen += 1
        if seen >= nth:
            kill._strike(outcome.worker_id)

    kill.conductor.on("job_done", on_outcome)
    kill.conductor.on("job_failed", on_outcome)


def _keep_looking(kill: Kill) -> None:
    """Look again and again, from the loop of the run, until there is nobody to look at."""
    kill._is_looking = bool(kill._pids) and not kill.happened
    if not kill._is_looking or kill._look is None:
        return
    victim = kill._look()
    if victim is None:
        loop = kill.conductor._loop
        if loop is not None:
            loop.call_later(_LOOK, _keep_looking, kill)
    else:
        kill._strike(victim)


def _find_ready(kill: Kill, count: int) -> int | None:
    run = kill.conductor._run
    ready = [] if run is None else [w.id for w in run._state._fleet.takers()]
    return min(ready) if len(ready) >= count else None


def _catch(kill: Kill, key: Key) -> int | None:
    """Stop who seems to execute the job; if it still does when it stands still, it is caught."""
    if kill._suspect is None:
        kill._suspect = _executor_of(kill, key)
        if kill._suspect is not None:
            _signal(kill, signals.SIGSTOP)
        return None
    if not _stands_still(kill._pids[kill._suspect]):
        return None
    suspect = kill._suspect
    _tick(kill.conductor, suspect)
    if _executor_of(kill, key) == suspect:
        return suspect
    _signal(kill, signals.SIGCONT)
    kill._suspect = None
    return None


def _signal(kill: Kill, number: signals.Signals) -> None:
    if kill._suspect is not None:
        with suppress(ProcessLookupError):
            os.kill(kill._pids[kill._suspect], number)


def _executor_of(kill: Kill, key: Key) -> int | None:
    """Find the worker that has claimed this job and not finished it."""
    run: Any = kill.conductor._run
    if run is None:
        return None
    for worker_id, link in run._links.items():
        worker = run._state._fleet._workers.get(worker_id)
        executing = {} if worker is None else run._state._executing(worker, _claimed(link))
        is_there = any(job.key == key for job in executing.values())
        if is_there and worker_id in kill._pids:
            return int(worker_id)
    return None


def _claimed(link: Any) -> int | None:
    from okanjo_conductor._io import cells

    return cells.last_started(link.cells)


def _tick(conductor: Conductor, worker_id: int) -> None:
    """Hear what the worker has said, so that a finished job is seen to be finished."""
    run = conductor._run
    if run is not None and worker_id in run._links:
        run._links[worker_id].tick()


def _stands_still(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True  # gone: its exit will be heard of
    return state in "TZX"
