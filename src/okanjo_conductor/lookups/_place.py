"""Where a table lies: a directory, what is in it, and whose it is.

    data.mdb, lock.mdb   LMDB's: the tree of entries, and who reads it
    large                records that are too large for it; see `_large`
    cells                8-byte cells in shared memory, for all who have the table open
    complete             the mark: written last, into what is whole

A table is made in a directory beside its place and renamed when it is complete, so at its place
there is the whole of it or nothing, whenever its builder is killed.

**The lock** (``flock``) on the directory itself says who may write to it. The kernel drops it when
its holder dies, so a table under construction, or a temporary one, that nobody has locked is what a
dead process has left; see `_making`.
"""

from __future__ import annotations

import os

from okanjo_conductor._io.files import text_of
from okanjo_conductor.errors import TableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CELLS: Final = "cells"
CELLS_SIZE: Final = 4096
VERSION, DIRTY, BOOT = 0, 1, 2
"""Numbers of cells. VERSION is counted up after each commit. DIRTY is 1 from the first write until
everything is on the disk; BOOT says since which start of the machine."""
MARK: Final = "complete"
FORMAT: Final = b"okanjo_conductor lookup table, format 1\n"

BUSY: Final = "is being written to by another process, or by another table object of this one"


def open_directory(path: str) -> int:
    """Open a directory.

    Raises:
        OSError: there is none.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def lock(descriptor: int) -> bool:
    """Take the lock of a directory, unless another process, or descriptor, has it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(descriptor: int, path: str) -> bool:
    """Whether this directory is still the one at that path."""
    try:
        there = os.stat(path)  # noqa: PTH116 - `pathlib` takes 3 ms to load
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def require_complete(descriptor: int, path: str) -> None:
    """Refuse what is no table, or not a whole one.

    Raises:
        TableError: it is not.
    """
    try:
        mark = os.open(MARK, os.O_RDONLY | os.O_CLOEXEC, dir_fd=descriptor)
    except FileNotFoundError:
        message = f"{path!r} is no complete lookup table: build one with LookupTable.build()"
        raise TableError(message) from None
    try:
        found = os.read(mark, 100)
    finally:
        os.close(mark)
    if found != FORMAT:
        message = (
            f"{path!r} says that it is {found.decode('utf-8', 'replace').strip()!r}, and this "
            f"version reads {FORMAT.decode().strip()!r}: build it anew"
        )
        raise TableError(message)


def boot() -> int:
    """Return a number for this start of the machine, or 0 where that cannot be told."""
    try:
        text = text_of("/proc/sys/kernel/random/boot_id")
    except OSError:
        return 0
    return int(text.replace("-", "")[:15], 16)
