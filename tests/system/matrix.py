"""The moments and the faults of the crash matrix: what its workers do, and what is done to them.

A fault strikes once, at its moment; how the moment is reached depends on no clock: somebody waits
for a file, for bytes in a socket, for the state of a process.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import termios
import threading
from pathlib import Path
from typing import Any

from faults.moments import is_first, note, state_of, touch, wait_for_file, wait_until
from okanjo_conductor import AsyncConductorWorker, ConductorWorker, command
from okanjo_conductor._io import assignment

MIB = 1 << 20
LARGE = 64 * MIB
UNDER_WAY = MIB // 4
"""Bytes in a socket that show that something large is being sent; its buffer takes more."""
VICTIM = "victim"
ASYNC = ("beside others", "awaiting a lookup", "awaiting a reply")
"""Moments of an async worker, with several jobs in flight."""
NEIGHBOURS = list(range(10))
COMPANIONS = NEIGHBOURS[:5]
"""The neighbours that are ahead of the victim; in an async worker they are in flight with it."""
IN_FLIGHT = len(COMPANIONS) + 1
BESIDE = ("looking up", "requesting")
"""Moments at which the worker waits: the fault comes from another thread, or from who answers."""
_ROOM = 256 * MIB
MOST_MEMORY = 4 * LARGE
"""Bytes that a worker may have in the cells that are about it."""


class StruckError(Exception):
    """What the fault `exception` raises."""


def strike(fault: str, folder: str) -> None:
    """Let a fault strike this process."""
    note(Path(folder) / "struck", os.getpid())
    _FAULTS[fault]()


def struck(folder: Path | str) -> list[int]:
    """Return the processes that were struck."""
    path = Path(folder) / "struck"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def _raise() -> None:
    message = "struck"
    raise StruckError(message)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _exhaust_memory() -> None:
    """Take more memory than there is, with a limit that is ours."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, limits[1]))
    try:
        taken = [bytearray(_ROOM // 4) for _ in range(8)]
        taken.clear()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _keep_memory() -> None:
    """Take more memory than is allowed, and wait for what comes of it."""
    taken = b"\1" * (2 * MOST_MEMORY)
    signal.pause()
    del taken


def _cut() -> None:
    link_socket().shutdown(socket.SHUT_RDWR)


def link_socket() -> socket.socket:
    """Return the job link of this worker."""
    place = assignment.current()
    assert place is not None
    return place.link._socket


_FAULTS = {
    "exception": _raise,
    "sys.exit": lambda: sys.exit(3),
    "os._exit(0)": lambda: os._exit(0),
    "SIGKILL": _kill,
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "memory": _exhaust_memory,
    "socket cut": _cut,
}
FAULTS = tuple(_FAULTS)
KEPT = "memory kept"
"""The fault `memory` where the conductor watches it."""
_FAULTS[KEPT] = _keep_memory


class Mine:
    """A payload or a value that strikes when it is pickled, or unpickled; then it is a text."""

    def __init__(self, fault: str, folder: str, *, when: str) -> None:
        self.fault, self.folder, self.when = fault, folder, when

    def __reduce__(self) -> Any:
        if self.when == "pickled":
            strike_once(self.fault, self.folder)
            return str, ("mine",)
        return unpickle_mine, (self.fault, self.folder)


def unpickle_mine(fault: str, folder: str) -> str:
    strike_once(fault, folder)
    return VICTIM


def is_struck_twice(folder: str) -> bool:
    return Path(folder, "twice").exists()


def strike_twice(fault: str, folder: str) -> None:
    """Strike when many are in flight, and again when the victim is executed alone."""
    if is_first(Path(folder) / "once") or is_first(Path(folder) / "twice"):
        strike(fault, folder)


def strike_once(fault: str, folder: str) -> None:
    if is_first(Path(folder) / "once"):
        strike(fault, folder)


class Struck(ConductorWorker):
    """Reaches every moment, and is struck at one of them."""

    def __init__(self, *, moment: str, fault: str, folder: str) -> None:
        super().__init__(logging=False)
        self.moment, self.fault, self.folder = moment, fault, folder
        self.done: Any = None
        self.answering = threading.Event()
        self.on("job_done", self.after_sending)

    def reach(self, moment: str) -> None:
        if moment == self.moment:
            strike_once(self.fault, self.folder)

    def setup(self) -> None:
        self.reach("setup")

    def teardown(self) -> None:
        self.reach("exiting")

    def on_master_message(self, msg: Any) -> None:
        if msg.cmd == "strike":
            self.reach("idle")
        elif msg.cmd == "release":
            touch(Path(self.folder) / "release")

    @command("answer", during_job=True)
    def answer(self, _msg: Any) -> str:
        try:
            self.reach("answering")
        finally:
            self.answering.set()
        return "answered"

    def after_sending(self) -> None:
        if self.done == VICTIM:
            self.reach("after sending")

    def process_job(self, job: Any) -> Any:
        self.done = job
        if job == "wait":
            wait_for_file(Path(self.folder) / "release")
        elif job == "who":
            return os.getpid()
        elif job == VICTIM:
            return self.meet()
        return job if isinstance(job, str | int) else len(job)

    def meet(self) -> Any:
        """Be the job that the moment is about."""
        self.reach("running")
        if self.moment == "sending":
            wait_until(lambda: queued(termios.FIONREAD) > UNDER_WAY, "the next job is on its way")
            self.reach("sending")
        if self.moment in BESIDE:
            self.strike_beside(lambda: wait_for_file(Path(self.folder) / "reached"))
            ask = self.lookup if self.moment == "looking up" else self.request
            ask("table", os.getpid())
        if self.moment == "answering":
            self.notify("ask me")
            self.answering.wait()
        if self.moment == "after adding":
            self.add_job("added")
            self.reach("after adding")
        if self.moment == "pickling the result":
            return Mine(self.fault, self.folder, when="pickled")
        if self.moment == "sending the result":
            wait_for_file(Path(self.folder) / "reached")
            self.strike_beside(
                lambda: wait_until(
                    lambda: queued(termios.TIOCOUTQ) > UNDER_WAY, "the result is on its way"
                )
            )
            return bytes(LARGE)
        return VICTIM

    def strike_beside(self, wait: Any) -> None:
        strike_beside(wait, strike_once, self.fault, self.folder)


class AsyncStruck(AsyncConductorWorker):
    """Is struck while several jobs are in flight, and again when the victim is alone."""

    concurrency = IN_FLIGHT

    def __init__(self, *, moment: str, fault: str, folder: str) -> None:
        super().__init__(logging=False)
        self.moment, self.fault, self.folder = moment, fault, folder

    async def setup(self) -> None:
        self.all_here = asyncio.Barrier(IN_FLIGHT)
        self.is_over = asyncio.Event()
        """The victim has failed; nothing is set where its worker dies."""

    async def process_job(self, job: Any) -> Any:
        assert self.job is not None
        is_first_attempt = self.job.attempt == 1
        if is_first_attempt and (job == VICTIM or job in COMPANIONS):
            await self.all_here.wait()
        if job == VICTIM:
            return await self.meet()
        if is_first_attempt and job in COMPANIONS:
            await self.is_over.wait()
        return job

    async def meet(self) -> str:
        try:
            if is_struck_twice(self.folder):
                return VICTIM
            if self.moment == "beside others":
                strike_twice(self.fault, self.folder)
                await asyncio.Event().wait()  # until the end of the link is noticed
            pid = os.getpid()
            where = reached(self.folder, pid)
            strike_beside(lambda: wait_for_file(where), strike_twice, self.fault, self.folder)
            ask = self.lookup if self.moment == "awaiting a lookup" else self.request
            await ask("table", pid)
        except BaseException:
            self.is_over.set()
            raise
        return VICTIM


def strike_beside(wait: Any, strike: Any, fault: str, folder: str) -> None:
    """Be struck from another thread, when it has waited."""
    if fault in {"exception", "sys.exit", "memory"}:
        return  # who answers raises them

    def run() -> None:
        wait()
        strike(fault, folder)

    threading.Thread(target=run, daemon=True).start()


def reached(folder: Path | str, pid: int) -> Path:
    """Return what is there once the conductor was asked by this process."""
    return Path(folder) / f"reached by {pid}"


def queued(which: int) -> int:
    """Count the bytes in this worker's link, one way or the other."""
    room = fcntl.ioctl(link_socket(), which, b"\0" * 4)
    return int(struct.unpack("i", room)[0])


class Answerer(dict[Any, Any]):
    """The conductor's side of a lookup or a request that is under way when the fault strikes."""

    def __init__(self, fault: str, folder: Path) -> None:
        super().__init__()
        self.fault, self.folder = fault, folder

    def __getitem__(self, pid: int) -> str:
        touch(self.folder / "reached")
        touch(reached(self.folder, pid))
        if self.fault == "exception":
            _raise()
        if self.fault == "sys.exit":
            sys.exit(3)
        if self.fault == "memory":
            raise MemoryError
        if self.will_be_struck(pid):
            wait_until(lambda: state_of(pid) in "ZXT", "the worker is struck")
        return "answer"

    def will_be_struck(self, pid: int) -> bool:
        return not struck(self.folder) or pid in struck(self.folder)


class AsyncAnswerer(Answerer):
    """The same where only who will be struck asks."""

    def will_be_struck(self, _pid: int) -> bool:
        return True
