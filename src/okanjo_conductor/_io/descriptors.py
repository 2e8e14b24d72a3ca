"""Descriptors that jobs do not meet: moved up, or of files that have no name."""

from __future__ import annotations

import fcntl
import os
import resource

_HIGH = 200
_CHUNK = 1 << 26
"""Bytes written at once."""
_ROOM = 24
"""Descriptors left above the place where ours begin, where few are allowed."""


def move_up(descriptor: int) -> int:
    """Give a descriptor a high number; it is closed on ``exec``."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    base = max(3, min(_HIGH, soft_limit - _ROOM))
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, base)
    os.close(descriptor)
    return moved


def make_nameless(label: str, *, sealable: bool = False) -> int:
    """Make an empty file in memory that is gone with its last descriptor; return the first.

    Where the kernel has no such thing, it lies in the folder for temporary files, unlinked.

    Args:
        label: what the memory maps of a process show.
        sealable: whether changes of it can be forbidden, where the kernel has it.

    Raises:
        OSError: there are no descriptors left, or no room.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))
    import tempfile  # only where there is no memfd

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write_at(descriptor: int, data: bytes | memoryview, position: int) -> int:
    """Write all of this into a file, at a place of it; return where it ends.

    Raises:
        OSError: there is no room.
    """
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left[:_CHUNK], position)
        left, position = left[written:], position + written
    return position
