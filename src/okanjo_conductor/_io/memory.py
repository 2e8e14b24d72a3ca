"""How much memory a process holds, and whether the kernel has run out of it."""

from __future__ import annotations

import os

from okanjo_conductor._io.files import text_of

_GROUP_FILES = (
    ("/sys/fs/cgroup{group}/memory.events", "oom_kill"),
    ("/sys/fs/cgroup/memory.events", "oom_kill"),
    ("/sys/fs/cgroup/memory{group}/memory.oom_control", "oom_kill"),
    ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
    ("/proc/vmstat", "oom_kill"),
)
"""Where the kernel counts the processes that it ended for want of memory: in this control group
(version 2, then 1; within a container its own is mounted at the top), else on the whole machine."""


def rss_of(pid: int) -> int | None:
    """Bytes of memory that a process holds, what it shares with others included.

    None where that cannot be told: the process is gone, or there is no ``/proc``.
    """
    try:
        pages = text_of(f"/proc/{pid}/statm").split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class OomWatch:
    """Tells whether the kernel has ended a process for want of memory since it was last asked."""

    def __init__(self) -> None:
        self._file, self._name = _find_counter()
        self._count = self._read()

    def has_risen(self) -> bool:
        """Whether the kernel has ended one more."""
        before, self._count = self._count, self._read()
        return self._count > before

    def _read(self) -> int:
        return 0 if self._file is None else _read_counter(self._file, self._name) or 0


def _find_counter() -> tuple[str | None, str]:
    group = _own_group()
    for pattern, name in _GROUP_FILES:
        file = pattern.format(group=group)
        if _read_counter(file, name) is not None:
            return file, name
    return None, ""


def _own_group() -> str:
    """Path of this process's control group, or ``""``."""
    try:
        lines = text_of("/proc/self/cgroup").splitlines()
    except OSError:
        return ""
    paths = [line.split(":", 2) for line in lines]
    found = [path for _, controllers, path in paths if controllers in ("", "memory")]
    return found[-1].rstrip("/") if found else ""


def _read_counter(file: str, name: str) -> int | None:
    try:
        lines = text_of(file).splitlines()
    except OSError:
        return None
    found = (line.partition(" ") for line in lines)
    return next((int(count) for key, _, count in found if key == name), None)
