"""After each test: no process, no descriptor and no thread of it is left."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid

import pytest

from faults.harness import MARK, marked_processes, open_descriptors
from okanjo_conductor._conductor import _loop_factory

_PATIENCE = 10.0


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
