"""Workers that live in the conductor's own process: each is at home in one thread of it.

They run as in a process of their own, over the same links; what differs is how they end. No thread
can be killed, so a worker that leaves, as with `crash()`, is *retired*: its link says no more,
whatever its job still does, and `WorkerLeft` takes it out of the job, or, where the job swallows
that, out of our code when the job has ended.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref

from okanjo_conductor import _boot
from okanjo_conductor._io import assignment
from okanjo_conductor._io.leaving import WorkerLeft, leave_fork
from okanjo_conductor._io.worker_link import WorkerLink
from okanjo_conductor.lookups import arrays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

    from okanjo_conductor._basis import Basis
    from okanjo_conductor._io.bootstrap import Start
    from okanjo_conductor._io.links import WorkerEnds
    from okanjo_conductor.clusters._base import Program

_links: weakref.WeakSet[Any] = weakref.WeakSet()
"""Of the workers in this process."""


def _abandon_links() -> None:
    """In a process that a job has forked, say nothing in the name of any worker."""
    for link in tuple(_links):
        link.abandon()


os.register_at_fork(after_in_child=_abandon_links)  # once: it cannot be undone


class GuestHome(assignment.Home):
    """The home of a worker that shares its process with the conductor."""

    is_process = False

    def __init__(self, link: Any) -> None:
        self._link = link
        self._pid = os.getpid()
        _links.add(link)

    def leave(self, code: int) -> NoReturn:
        """Say no more, and unwind whatever is going on in this thread."""
        if self.code is None:
            self.code = code
        self._link.retire()
        self.condemn()
        raise WorkerLeft(self.code)

    def return_from_fork(self, error: BaseException | None) -> NoReturn:
        """End a forked process; or this worker, if its job goes on after it has left."""
        if self._pid == os.getpid():
            raise WorkerLeft(1 if self.code is None else self.code)
        leave_fork(error)


def raise_interrupt(error: BaseException) -> None:
    """Raise what ends the whole run: Ctrl-C, or ``q`` in the debugger."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    if type(error).__name__ == "BdbQuit":
        raise KeyboardInterrupt from error


class ThreadHost:
    """One worker in a thread of its own.

    Args:
        ends: its ends of its links; owned from here on.

    Raises:
        OSError: there are no descriptors left.
    """

    def __init__(self, program: Program, order: Start, ends: WorkerEnds) -> None:
        self._program = program
        self._order = order
        self._arrays = ends.arrays
        self.link = WorkerLink(ends.job_link, ends.cells, ends.bell)
        self._home = GuestHome(self.link)
        self._worker: Basis | None = None
        self._box = threading.Lock()
        """Held by who writes to the black box, or takes it away."""
        self._is_over = False

    def run(self) -> int:
        """Be the worker, in this thread, to its end; return its exit code."""
        order = self._order
        place = assignment.Assignment(
            order.worker_id,
            order.slot,
            order.master_id,
            order.log_level,
            self.link,
            self._arrays,
            self._home,
        )
        with assignment.at_home(place):
            try:
                return _boot.live(self._start, self.link)
            finally:
                self._clear_up()

    def _start(self) -> int:
        self._worker = worker = _boot.construct(worker_of(self._program), self._order)
        worker.start()
        return 0

    def condemn(self) -> None:
        """Have the worker leave when it waits next, or when its job has ended."""
        self._home.condemn()
        self.link.wake()

    def write_stack(self, thread: int) -> None:
        """Write down where that thread is, as ``faulthandler`` would."""
        frame: FrameType | None = sys._current_frames().get(thread)
        lines = [f"Thread 0x{thread:016x} (most recent call first):"]
        while frame is not None:
            code = frame.f_code
            lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}')
            frame = frame.f_back
        text = "\n".join([*lines, ""]).encode("ascii", "backslashreplace")
        with self._box:
            if not self._is_over:
                os.write(self.link.black_box, text)

    def _clear_up(self) -> None:
        """Close everything."""
        with self._box:
            self._is_over = True
        let_go(self._worker, self._arrays)
        if self._arrays is not None:
            os.close(self._arrays)
        self.link.close()


def let_go(worker: Basis | None, memory: int | None) -> None:
    """Let go of what a process would take with it: a thread, and maps of what all workers read.

    Args:
        memory: descriptor of that of the arrays, which may be closed afterwards.
    """
    if worker is not None:
        worker.stop_monitoring()
        worker._lookups.clear()
    if memory is not None:
        arrays.forget(memory)


def worker_of(program: Program) -> Any:
    """Find the class or function: as it was given, or by its name."""
    given = program.worker
    return _boot.load(program.boot.target) if isinstance(given, str) else given
