"""The file of large records: only ever longer.

Bytes once written there never change and never move, so what is read is a view of the mapped file:
nothing is copied, and a view stays what it is for as long as somebody holds it, whatever is written
to the table, even when the table is closed, replaced or removed. The price: a large value that is
overwritten or deleted keeps its place in the file until the table is built anew.

A writer that dies leaves bytes at the end that nobody refers to.
"""

from __future__ import annotations

import mmap
import os

from okanjo_conductor._io.descriptors import write_at
from okanjo_conductor.errors import TableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "large"
_ALIGN = 64
"""Bytes at whose multiples records start: a cache line."""


class LargeFile:
    """The file of one table, in one process.

    Args:
        directory: descriptor of the table's directory. It is used, not owned.
    """

    __slots__ = ("_descriptor", "_map")

    def __init__(self, directory: int, *, is_writable: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT if is_writable else os.O_RDONLY
        self._descriptor = os.open(NAME, flags | os.O_CLOEXEC, 0o600, dir_fd=directory)
        self._map: mmap.mmap | None = None

    def append(self, parts: Sequence[bytes | memoryview]) -> tuple[int, int]:
        """Write a record; return its offset and its size. One thread at a time.

        Raises:
            TableError: there is no room.
        """
        end = os.fstat(self._descriptor).st_size
        offset = end + -end % _ALIGN
        position = offset
        try:
            for part in parts:
                position = write_at(self._descriptor, part, position)
        except OSError as error:
            raise TableError(f"a value of a lookup table cannot be written: {error}") from error
        return offset, position - offset

    def view(self, offset: int, size: int) -> memoryview:
        """Return a read-only view of a record."""
        mapped = self._map
        if mapped is None or offset + size > len(mapped):
            mapped = self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        return memoryview(mapped)[offset : offset + size]

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; views stay."""
        os.close(self._descriptor)
        self._map = None
