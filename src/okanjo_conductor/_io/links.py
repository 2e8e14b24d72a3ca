"""What connects a conductor with one worker: made here in pairs of ends, shared with nobody else.

    job link      stream socket pair; frames, both ways
    cells         shared memory: claims, the outcome log, the black box; see `cells`
    output pipes  the worker's standard output and error
    arrays        memory that all workers read, if the run has any; see `lookups.arrays`
    bell          a pipe: a byte in it says that a message waits which must not wait for a job

The worker's ends travel to the new process as descriptors, in the order of `WorkerEnds`.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

from okanjo_conductor._io import cells
from okanjo_conductor._plain import Plain, values_of

_SOCKET_BUFFER = 1 << 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def none_left(error: OSError, page_path: str | None) -> OSError:
    """Return an error that says what to do where the links of a worker cannot be made.

    Args:
        page_path: where its page was to be; None: in memory.
    """
    do = (
        "Raise the limits on open files (ulimit -n) and on the size of files (ulimit -f), or ask "
        "for fewer workers"
    )
    if page_path is not None and error.errno in _NO_ROOM:
        do = (
            f"Make room where {page_path} is to be: each worker takes {cells.SIZE:,} "
            "bytes there while a run with a journal goes on"
        )
    return OSError(f"its links could not be made: {error}. {do}")


class WorkerEnds(Plain):
    """Descriptors for the worker."""

    job_link: int
    cells: int
    stdout: int | None
    stderr: int | None
    bell: int
    arrays: int | None

    def as_list(self) -> list[int]:
        """Return them in the order in which they travel."""
        return [end for end in values_of(self) if end is not None]

    def close(self) -> None:
        """Close the conductor's copies."""
        for descriptor in self.as_list():
            os.close(descriptor)


class ConductorEnds(Plain):
    """Descriptors and memory for the conductor."""

    job_link: socket.socket
    cells: memoryview[int]
    stdout: int | None
    stderr: int | None
    bell: int

    def close(self) -> None:
        """Close everything."""
        self.job_link.close()
        for descriptor in (self.stdout, self.stderr, self.bell):
            if descriptor is not None:
                os.close(descriptor)
        self.cells.release()


def make(
    arrays: int | None = None, *, has_output: bool = True, page_path: str | None = None
) -> tuple[ConductorEnds, WorkerEnds]:
    """Make the links of one worker.

    Args:
        arrays: descriptor of what all workers read; the worker gets a copy of it.
        has_output: whether the worker has a standard output and error of its own.
        page_path: the file that cells and outcome log are kept in, if they are to outlive us.

    Raises:
        OSError: out of descriptors; nothing is left open.
    """
    with ExitStack() as undo:
        ours, theirs = socket.socketpair()
        # A socket closes itself: closed by its number, it would later close somebody else's.
        undo.callback(ours.close)
        undo.callback(theirs.close)
        bell = _pipe(undo)
        stdout = _pipe(undo) if has_output else (None, None)
        stderr = _pipe(undo) if has_output else (None, None)
        page = cells.make_page(page_path)
        undo.callback(os.close, page)
        if arrays is not None:
            arrays = os.dup(arrays)
            undo.callback(os.close, arrays)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        for descriptor in (stdout[0], stderr[0], bell[1]):
            if descriptor is not None:
                os.set_blocking(descriptor, False)
        ours.setblocking(False)
        theirs.setblocking(True)  # socket.setdefaulttimeout() may have said otherwise
        view = cells.map_page(page)
        undo.pop_all()
    return (
        ConductorEnds(ours, view, stdout[0], stderr[0], bell[1]),
        WorkerEnds(theirs.detach(), page, stdout[1], stderr[1], bell[0], arrays),
    )


def _pipe(undo: ExitStack) -> tuple[int, int]:
    pair = os.pipe()
    for descriptor in pair:
        undo.callback(os.close, descriptor)
    return pair
