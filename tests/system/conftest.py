"""Fixtures: named moments, and the check that nothing is left behind."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from okanjo_conductor._conductor import _run_in_loop

from .moments import Moment

_STRAGGLERS = 5.0
"""Seconds that a child, thread or descriptor may take to go after the test."""


def descendants() -> set[int]:
    """List the processes below this one, zombies included."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def descriptors() -> dict[str, str]:
    """List the open descriptors of this process and what they are."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[entry.name] = str(entry.readlink())
    return {number: what for number, what in found.items() if not what.endswith("/fd")}


@pytest.fixture(scope="session", autouse=True)
def first_loop():
    """Have the event loop open what it keeps for the life of the process."""

    async def main():
        pass

    _run_in_loop(main())


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """Fail a test that leaves a process, a thread or a descriptor."""
    children, open_before, threads = descendants(), descriptors(), set(threading.enumerate())
    yield

    def leftovers() -> list[object]:
        opened = [what for what in descriptors().items() if what[0] not in open_before]
        return [
            *(descendants() - children),
            *opened,
            *(set(threading.enumerate()) - threads),
        ]

    deadline = monotonic() + _STRAGGLERS
    pause = threading.Event()
    while leftovers() and monotonic() < deadline:
        pause.wait(0.005)
    assert leftovers() == []


@pytest.fixture
def moment(tmp_path):
    """Make moments by name."""
    held = []

    def make(name: str) -> Moment:
        path = tmp_path / name
        os.mkfifo(path)
        held.append(os.open(path, os.O_RDWR))
        return Moment(path)

    yield make
    for descriptor in held:
        os.close(descriptor)
