"""Our descriptors in a worker: moved up, out of the way of jobs that close or reuse low ones."""

from __future__ import annotations

import fcntl
import os
import resource

_HIGH = 200
_ROOM = 24
"""Descriptors left above the place where ours begin, where few are allowed."""


def move_up(descriptor: int) -> int:
    """Give a descriptor a high number; it is closed on ``exec``."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    base = max(3, min(_HIGH, soft_limit - _ROOM))
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, base)
    os.close(descriptor)
    return moved
