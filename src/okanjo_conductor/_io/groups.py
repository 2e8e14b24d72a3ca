"""Process groups: what a worker's jobs have started ends with the worker.

Every worker leads a group. A dead leader that nobody has reaped keeps its number, so the group can
be ended by that number without hitting a stranger; hence the order here: see, end, reap. A process
that is to outlive its worker needs a session of its own (``start_new_session=True``).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def end(leader: int) -> None:
    """Kill everybody in the group of that leader."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def reap(leader: int, *, with_group: bool = True) -> int | None:
    """Reap a child that has died, and end its group before; None while it lives.

    Returns:
        Its status as ``waitpid`` gives it.

    Raises:
        ChildProcessError: somebody else has reaped it.
    """
    can_look = hasattr(os, "waitid")
    if can_look and os.waitid(os.P_PID, leader, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    if can_look and with_group:
        end(leader)
    reaped, status = os.waitpid(leader, os.WNOHANG)
    if not reaped:
        return None
    if with_group and not can_look:
        end(leader)
    return status
