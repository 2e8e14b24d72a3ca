"""Workers end with their conductor, whatever either of them is doing.

The conductor holds the write end of a pipe into which nothing is ever written; each process it
started holds a read end. When the conductor is gone, so is the last write end. On Linux the kernel
then sends SIGKILL to the holder's process group (``O_ASYNC`` with ``F_SETSIG``), even while C code
keeps the GIL. Elsewhere a thread blocks in ``read`` and ends the process when it returns.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import threading
from contextlib import suppress

from okanjo_conductor._io.descriptors import move_up

_write_ends: set[int] = set()
"""Of this process. A forked child must not keep them open, or nobody would see us die."""


def _forget_write_ends() -> None:
    for write_end in _write_ends:
        with suppress(OSError):
            os.close(write_end)
    _write_ends.clear()


os.register_at_fork(after_in_child=_forget_write_ends)


class DeadMansSwitch:
    """The conductor's end."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        _write_ends.add(self._write_end)

    def close(self) -> None:
        """Let go. Whoever is armed with the read end dies."""
        if self._write_end in _write_ends:
            _write_ends.discard(self._write_end)
            os.close(self._write_end)
            os.close(self.read_end)


def arm(read_end: int) -> None:
    """Tie this process, the leader of its group, to the conductor that holds the write end."""
    if hasattr(fcntl, "F_SETSIG"):
        own = _reopened(read_end)
        fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpid())
        flags = fcntl.fcntl(own, fcntl.F_GETFL)
        fcntl.fcntl(own, fcntl.F_SETFL, flags | os.O_ASYNC)
        if _is_closed(own):  # it went between the fork and here
            _die()
    else:
        thread = threading.Thread(target=_watch, args=(read_end,), name="deadman", daemon=True)
        thread.start()


def _reopened(read_end: int) -> int:
    """Open the pipe anew: signal and owner belong to the open file, which a fork shares."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    return move_up(os.open(f"/proc/self/fd/{read_end}", flags))


def _is_closed(read_end: int) -> bool:
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _watch(read_end: int) -> None:
    with suppress(OSError):
        os.read(read_end, 1)
    _die()


def _die() -> None:
    with suppress(OSError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
