"""After a test: no process, no descriptor and no thread of it is left.

A package of tests that starts processes imports the fixtures into its ``conftest``.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from pathlib import Path

import pytest

from okanjo_conductor._conductor import _loop_factory

MARK = "OKANJO_CONDUCTOR_TEST"
"""Environment variable by which the processes of one test are recognised, orphans included."""
_PATIENCE = 10.0
"""Seconds that the kernel, and threads on their way out, are given."""


@pytest.fixture(scope="session")
def event_loops():
    """Open what libuv keeps for the life of a process."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def nothing_is_left(event_loops, monkeypatch):
    monkeypatch.setenv(MARK, uuid.uuid4().hex)
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    yield
    wait_until_none(marked_processes, "processes")
    wait_until_none(lambda: open_descriptors() - descriptors, "descriptors")
    wait_until_none(lambda: set(threading.enumerate()) - threads, "threads")


def wait_until_none(find, what):
    """Give the kernel and threads on their way out a moment."""
    end = time.monotonic() + _PATIENCE
    while left := find():
        assert time.monotonic() < end, f"left behind: {what} {left}"
        time.sleep(0.002)


def marked_processes() -> set[int]:
    """Find every process of this test but ourselves, whoever its parent is by now."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = descendants()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in environment.split(b"\0"):
                found.add(int(entry.name))
    return found - {os.getpid()}


def descendants() -> set[int]:
    """Find our children and theirs, the dead that nobody has reaped included."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
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


def open_descriptors() -> set[tuple[int, str]]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((int(entry.name), str(entry.readlink())))
        except OSError:
            continue  # the one that listed them
    return found
