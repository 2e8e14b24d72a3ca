"""A pytest fixture that fails a test which leaves processes, descriptors or threads behind.

Import it into a ``conftest.py`` and ask for it, or make it ask for itself::

    from okanjo_conductor.testing.fixtures import no_leaks

    @pytest.fixture(autouse=True)
    def nothing_is_left(no_leaks):
        pass

It looks into ``/proc``; where there is none it looks at threads only. This module needs pytest and
is therefore not imported with the others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from okanjo_conductor._io.loops import new_asyncio_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

__all__ = ["no_leaks", "processes_of_this_test"]

MARK = "OKANJO_CONDUCTOR_TEST"
"""Environment variable by which the processes of one test are recognised, orphans included."""
_PATIENCE = 10.0
"""Seconds that the kernel, and threads on their way out, are given."""
_PROC = Path("/proc")


@pytest.fixture
def no_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if processes, descriptors or threads of it are left, zombies included."""
    _open_what_loops_keep()
    monkeypatch.setenv(MARK, uuid.uuid4().hex)
    descriptors, threads = _open_descriptors(), set(threading.enumerate())
    yield
    _wait_until_none(processes_of_this_test, "processes")
    _wait_until_none(lambda: _open_descriptors() - descriptors, "descriptors")
    _wait_until_none(lambda: set(threading.enumerate()) - threads, "threads")


def processes_of_this_test() -> set[int]:
    """Find every process of the test but ourselves, whoever its parent is by now."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = _descendants()
    for entry in _processes():
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if mark in environment.split(b"\0"):
            found.add(int(entry.name))
    return found - {os.getpid()}


@cache
def _open_what_loops_keep() -> None:
    """Let libuv open what it keeps for the life of a process."""
    with asyncio.Runner(loop_factory=new_asyncio_loop) as runner:
        runner.run(asyncio.sleep(0))


def _wait_until_none(find: Callable[[], AbstractSet[object]], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while left := find():
        if time.monotonic() > end:
            pytest.fail(f"left behind: {what} {left}")
        time.sleep(0.002)


def _processes() -> list[Path]:
    return [entry for entry in _PROC.glob("[0-9]*") if entry.name.isdigit()]


def _descendants() -> set[int]:
    """Find our children and theirs, the dead that nobody has reaped included."""
    parents: dict[int, int] = {}
    for entry in _processes():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    news = {os.getpid()}
    while news:
        news = {pid for pid, parent in parents.items() if parent in news} - found
        found |= news
    return found


def _open_descriptors() -> set[object]:
    found: set[object] = set()
    for entry in (_PROC / "self" / "fd").glob("*"):
        try:
            found.add((int(entry.name), str(entry.readlink())))
        except OSError:
            continue  # the one that listed them
    return found
