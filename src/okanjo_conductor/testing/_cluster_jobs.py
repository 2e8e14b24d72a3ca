"""Workers and jobs for `check_cluster`: importable, because workers may be other processes."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from okanjo_conductor import _runtime
from okanjo_conductor._async_worker import AsyncConductorWorker
from okanjo_conductor._io.assignment import is_worker
from okanjo_conductor._worker import ConductorWorker, command

if TYPE_CHECKING:
    from okanjo_conductor._types import Message

_LOOK = 0.002
"""Seconds between looks at a gate."""


class Thing:
    """Something that is no plain data."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.what == other.what

    __hash__ = None  # type: ignore[assignment]  # nobody needs it


class CheckWorker(ConductorWorker):
    """Does what a job says: a method of this class and its arguments, or a number to double."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.told: list[Any] = []

    def process_job(self, job: Any) -> Any:
        """Do it."""
        if isinstance(job, int):
            return 2 * job
        name, *args = job
        return getattr(self, name)(*args)

    @command("tell")
    def take(self, msg: Message) -> None:
        """Remember what the conductor says."""
        self.told.append(msg.data)

    @command("double")
    def double(self, msg: Message) -> Any:
        """Reply."""
        return 2 * msg.data

    def what_was_told(self, _number: int = 0) -> list[Any]:
        """Return what the conductor has said."""
        return self.told

    def identity(self, _number: int) -> tuple[Any, ...]:
        """Tell how a job sees where it is."""
        job, worker = _runtime.current_job(), _runtime.current_worker()
        assert job is not None  # noqa: S101 - a job is at hand
        return job.key, job.attempt, worker is self, is_worker()

    def echo(self, value: Any) -> Any:
        """Return a value."""
        return value

    def change(self, value: list[Any]) -> list[Any]:
        """Change a payload in place."""
        value.append("changed")
        return value

    def fail(self, text: str) -> None:
        """Raise."""
        raise ValueError(text)

    def leave(self, code: int) -> None:
        """Call what ends other programs."""
        raise SystemExit(code)

    def size_of(self, data: bytes) -> tuple[int, bytes]:
        """Return a large payload."""
        return len(data), data

    def crash_until(self, attempt: int) -> int:
        """Crash in the attempts before that one."""
        if self.attempt < attempt:
            self.crash(f"attempt {self.attempt}")
        return self.attempt

    def die_until(self, attempt: int) -> int:
        """Take the process down in the attempts before that one."""
        if self.attempt < attempt:
            os._exit(9)
        return self.attempt

    @property
    def attempt(self) -> int:
        """Which attempt of the job at hand this is."""
        return self.job.attempt if self.job else 0

    def wait_for(self, gate: str) -> str:
        """Wait for a file, without looking at anything else; not longer than its folder exists."""
        Path(f"{gate}.waiting").touch()
        while not Path(gate).exists() and Path(gate).parent.exists():
            time.sleep(_LOOK)
        return "passed"

    def meet(self, folder: str, number: int, count: int) -> int:
        """Wait until so many jobs are here."""
        Path(folder, f"{number}.here").touch()
        while len(list(Path(folder).glob("*.here"))) < count:
            time.sleep(_LOOK)
        return number

    def ask(self, name: str, data: Any) -> Any:
        """Ask the conductor."""
        return self.request(name, data)

    def ask_later(self, name: str, data: Any) -> Any:
        """Ask by `send_request_to_master`."""
        return self.send_request_to_master(name, data).result().data

    def tell_conductor(self, name: str, data: Any) -> None:
        """Tell the conductor."""
        self.notify(name, data)

    def look_up(self, name: str, key: Any) -> Any:
        """Read an entry."""
        return self.lookup(name, key, "none")

    def look_up_many(self, name: str, keys: list[Any]) -> Any:
        """Read many."""
        return self.lookup_many(name, keys)

    def read_around(self, name: str, key: Any, change: str) -> tuple[Any, Any, Any]:
        """Read an entry, have the conductor change it, read it again."""
        return self.lookup(name, key), self.request(change), self.lookup(name, key)

    def write(self, name: str, key: Any, value: Any) -> Any:
        """Set an entry, and read it."""
        self.set_lookup(name, key, value)
        return self.lookup(name, key)

    def count(self, name: str, key: Any) -> Any:
        """Count an entry up."""
        return self.increment(name, key)

    def swap(self, name: str, key: Any, expected: Any, value: Any) -> bool:
        """Set an entry if it is as expected."""
        return self.compare_and_set(name, key, expected, value)

    def sum_of(self, name: str) -> tuple[float, bool]:
        """Read an array."""
        array = self.shared(name)
        return float(array.sum()), bool(array.flags.writeable)

    def add(self, depth: int) -> int:
        """Add two jobs, each of which adds two."""
        if depth:
            for side in "ab":
                key = f"{self.job.key if self.job else ''}{side}"
                self.add_job(("add", depth - 1), key=key)
        return depth

    def add_and_crash(self, name: str) -> str:
        """Add a job, and crash in the first attempt."""
        self.add_job(("echo", name), key=f"added by {name}")
        if self.attempt == 1:
            self.crash("after adding")
        return name

    def speak(self, text: str) -> None:
        """Log and print."""
        logging.getLogger(__name__).warning("logged: %s", text)
        print("printed:", text)  # noqa: T201 - it is checked where that comes out

    def stop_run(self, reason: str) -> None:
        """Have the run stopped."""
        self.abort(reason)

    def say_progress(self, fraction: float) -> None:
        """Say how far it is."""
        self.progress(fraction, "so far")


class CannotSetUp(CheckWorker):
    """Fails before its first job."""

    def setup(self) -> None:
        """Raise."""
        message = "this worker was never meant to work"
        raise LookupError(message)


class AsyncCheckWorker(AsyncConductorWorker):
    """Does the same with many jobs in flight."""

    async def process_job(self, job: Any) -> Any:
        """Do it."""
        if isinstance(job, int):
            return 2 * job
        name, *args = job
        return await getattr(self, name)(*args)

    async def ask(self, name: str, data: Any) -> Any:
        """Ask the conductor."""
        return await self.request(name, data)

    async def look_up(self, name: str, key: Any) -> Any:
        """Read an entry."""
        return await self.lookup(name, key, "none")

    async def crash_until(self, attempt: int) -> int:
        """Crash in the attempts before that one."""
        now = self.job.attempt if self.job else 0
        if now < attempt:
            self.crash(f"attempt {now}")
        return now

    async def fail(self, text: str) -> None:
        """Raise."""
        raise ValueError(text)


def make_entry(key: Any) -> Any:
    """Make an entry of a lookup."""
    return f"made of {key}"
