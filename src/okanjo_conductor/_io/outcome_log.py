"""The outcome log: a ring of records in the memory that a worker shares with its conductor.

The worker puts a record down and then moves HEAD past it: a record is there whole or not at all,
whatever becomes of its writer, and no system call is made for it. The conductor reads up to HEAD
when a frame, a tick or the worker's death says so, and moves TAIL.

Positions count bytes from the beginning of time. A record lies in one piece: where it does not fit
before the end of the ring, the rest is left unused, SKIPPED says from where, and the record goes to
the beginning. The writer begins a new lap only when the reader is in the current one, so one
SKIPPED is enough.
"""

from __future__ import annotations

import errno
import os
import threading

from okanjo_conductor._io import cells
from okanjo_conductor._io.cells import HEAD
from okanjo_conductor._wire import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

_LARGEST_RECORD = 1 << 15
_STRONG = frozenset({"x86_64", "amd64", "i686"})
"""Machines that keep the order of stores, and of loads, without being told."""
NEEDS_FENCE: Final = os.uname().machine.lower() not in _STRONG
_lock = threading.Lock()
_put_int, _INT_SIZE = records.INT_RECORD.pack_into, records.INT_RECORD.size
_MARK = records.LONG1_8


def fence() -> None:
    """Keep the order of memory accesses before and after it, on machines that would not.

    A lock that is released and then acquired again is a full barrier: nothing moves down past a
    release, nothing up past an acquire, and the two are not exchanged.
    """
    with _lock:
        pass
    with _lock:
        pass


class Writer:
    """The worker's end.

    Args:
        memory: what it shares with the conductor.
        wait: called while there is no room, to let the conductor read.
    """

    __slots__ = ("_base", "_cells", "_wait", "at", "count", "edge", "largest", "ring")

    def __init__(self, memory: memoryview[int], wait: Callable[[], None]) -> None:
        self._cells = memory
        self.ring = cells.ring_of(memory)
        self._wait = wait
        self._base = 0
        """Position at which this lap began."""
        self.at = 0
        """Where in the ring the next record goes."""
        self.edge = len(self.ring)
        """Up to where there is room."""
        self.count = 0
        """How many records were written."""
        self.largest = min(_LARGEST_RECORD, len(self.ring) // 4)
        """Bytes that a record may have."""

    def write(self, record: bytes) -> None:
        """Write one record of at most `largest` bytes.

        Raises:
            OSError: this is not the worker any more.
        """
        size = len(record)
        if self.at + size > self.edge:
            self._make_room(size)
        at = self.at
        self.ring[at : at + size] = record
        self._publish(at + size)

    def write_int(self, ordinal: int, nanoseconds: int, value: int) -> None:
        """Write the record of an integer in one go: what most small jobs come to.

        Raises:
            struct.error: it has more than 64 bits; nothing was written.
            OSError: as `write`.
        """
        at = self.at
        if at + _INT_SIZE > self.edge:
            self._make_room(_INT_SIZE)
            at = self.at
        _put_int(self.ring, at, _MARK, ordinal, _MARK, nanoseconds, _MARK, value)
        self._publish(at + _INT_SIZE)

    def _publish(self, at: int) -> None:
        """Let the conductor see the record that ends at this place."""
        self.at = at
        self.count += 1
        if NEEDS_FENCE:
            fence()
        self._cells[HEAD] = self._base + at

    def _make_room(self, size: int) -> None:
        """Return when a record of that size can be put at `at`."""
        while not self._has_room(size):
            self._wait()

    def abandon(self) -> None:
        """Write no more: this is a process that a job has forked, or the worker has ended."""
        self.edge = -1

    def close(self) -> None:
        """Let go of the memory."""
        self.abandon()
        self.ring.release()

    def _has_room(self, size: int) -> bool:
        if self.edge < 0:
            raise OSError(errno.EBADF, "only the worker can write outcomes, not a fork of it")
        end, tail = len(self.ring), self._cells[cells.TAIL]
        if tail < self._base:  # the reader is a lap behind
            self.edge = tail - self._base + end
        elif self.at + size <= end:
            self.edge = end
        else:
            self._cells[cells.SKIPPED] = self._base + self.at
            self.edge = tail - self._base
            self._base += end
            self.at = 0
        return self.at + size <= self.edge


class Reader:
    """The conductor's end.

    Args:
        memory: what it shares with the worker.
        keeps: whether records stay in the ring after they were read, until `free` lets go of them.
    """

    __slots__ = ("_cells", "_keeps", "_ring", "_tail")

    def __init__(self, memory: memoryview[int], *, keeps: bool = False) -> None:
        self._cells = memory
        self._ring = cells.ring_of(memory)
        self._keeps = keeps
        self._tail = memory[cells.TAIL]

    @property
    def position(self) -> int:
        """Up to where records were read."""
        return self._tail

    @property
    def is_filling(self) -> bool:
        """Whether more than half of the ring was read and not freed."""
        return 2 * (self._tail - self._cells[cells.TAIL]) > len(self._ring)

    @property
    def has_news(self) -> bool:
        """Whether there are records to take."""
        return self._cells[HEAD] != self._tail

    def read(self) -> bytes:
        """Take all records there are."""
        tail, head = self._tail, self._cells[HEAD]
        if head == tail:
            return b""
        if NEEDS_FENCE:
            fence()
        size = len(self._ring)
        begin = tail % size
        lap_end = tail - begin + size
        if head <= lap_end:
            data = bytes(self._ring[begin : begin + head - tail])
        else:
            skipped = self._cells[cells.SKIPPED]
            rest = self._ring[begin : begin + skipped - tail]
            data = b"".join((rest, self._ring[: head - lap_end]))
        self._tail = head
        if not self._keeps:
            self.free(head)
        return data

    def free(self, position: int) -> None:
        """Let the worker write over what lies before this position."""
        self._cells[cells.TAIL] = position

    def close(self) -> None:
        """Let go of the memory."""
        self._ring.release()
