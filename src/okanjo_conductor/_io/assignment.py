"""What this process, or this thread of it, is: a conductor's own, or a worker, and then which.

A worker mostly has a process of its own; `_boot` then writes its assignment once, for everybody in
the process to read. Where workers live in the conductor's process, each is at home in one thread
(`_hosting`), and only code in that thread sees its assignment.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar

from okanjo_conductor._io.leaving import leave_fork, leave_process
from okanjo_conductor._plain import Frozen

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, NoReturn

    from okanjo_conductor._io.worker_link import WorkerLink


class Home:
    """Where a worker lives: here, in a process of its own."""

    is_process = True
    """Whether it has the process to itself: signals, logging, ``__main__``."""
    code: int | None = None
    """The worker's exit code, once it has decided to leave."""
    is_condemned = False
    """Whether it is to leave as soon as it can."""
    on_condemned: Callable[[], None] | None = None
    """Called then, in any thread."""

    def condemn(self) -> None:
        """Have it leave."""
        self.is_condemned = True
        if self.on_condemned is not None:
            self.on_condemned()

    def leave(self, code: int) -> NoReturn:
        """End the worker at once, from wherever it is."""
        leave_process(code)

    def return_from_fork(self, error: BaseException | None) -> NoReturn:
        """End what has come back into our code and is not the worker: a process forked by a job."""
        leave_fork(error)


class Assignment(Frozen):
    """The place this worker has been given."""

    worker_id: int
    slot: int
    master_id: str
    log_level: int
    link: WorkerLink
    arrays: int | None = None
    """Descriptor of the memory that holds the arrays among the lookups."""
    home: Home = Home()


_is_worker = False
_assignment: Assignment | None = None
_here: ContextVar[tuple[Assignment | None, Any]] = ContextVar(
    "okanjo_conductor_worker", default=(None, None)
)
"""What this thread is, where it is the home of a worker: its assignment, and, once it runs, its
runtime. Tasks that a job starts inherit it."""


def is_worker() -> bool:
    """Whether this process was started by a conductor to run jobs, or this thread by one.

    True from the first import on; a script that is run again in its worker processes asks this
    to tell which of the two it is.
    """
    return _is_worker or _here.get()[0] is not None


def mark_as_worker() -> None:
    """Remember that this process is not a conductor's own."""
    global _is_worker  # noqa: PLW0603 - a fact about the process
    _is_worker = True


def assign(assignment: Assignment) -> None:
    """Remember which worker this process is."""
    global _assignment  # noqa: PLW0603 - a fact about the process
    _assignment = assignment


@contextmanager
def at_home(assignment: Assignment | None, runtime: Any = None) -> Generator[None]:
    """Let this thread be a worker, or none, for as long as it is within."""
    token = _here.set((assignment, runtime))
    try:
        yield
    finally:
        _here.reset(token)


def settle(runtime: Any) -> None:
    """Remember the runtime of the worker that this thread is."""
    _here.set((_here.get()[0], runtime))


def current() -> Assignment | None:
    """Return this worker's assignment, or None before it has one."""
    return _here.get()[0] or _assignment


def runtime_here() -> Any:
    """Return the runtime of the worker that this thread is, or None."""
    return _here.get()[1]
