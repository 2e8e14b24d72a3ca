"""What this process is: a conductor's own, or a worker of one, and then which.

Written once by `_boot`, read by everybody.
"""

from __future__ import annotations

from okanjo_conductor._plain import Frozen

TYPE_CHECKING = False

if TYPE_CHECKING:
    from okanjo_conductor._io.worker_link import WorkerLink


class Assignment(Frozen):
    """The place this worker process has been given."""

    worker_id: int
    slot: int
    master_id: str
    log_level: int
    link: WorkerLink
    arrays: int | None = None
    """Descriptor of the memory that holds the arrays among the lookups."""


_is_worker = False
_assignment: Assignment | None = None


def is_worker() -> bool:
    """Whether this process was started by a conductor to run jobs.

    True from the first import on; a script that is run again in its worker processes asks this
    to tell which of the two it is.
    """
    return _is_worker


def mark_as_worker() -> None:
    """Remember that this process is not a conductor's own."""
    global _is_worker  # noqa: PLW0603 - a fact about the process
    _is_worker = True


def assign(assignment: Assignment) -> None:
    """Remember which worker this process is."""
    global _assignment  # noqa: PLW0603 - a fact about the process
    _assignment = assignment


def current() -> Assignment | None:
    """Return this worker's assignment, or None before it has one."""
    return _assignment
