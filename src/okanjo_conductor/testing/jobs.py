"""Jobs that name their fate, to see what a program makes of it.

    Conductor(FateWorker, jobs_queue=["done", "raise", "SIGKILL once", "sleep 0.1"])

A job is a text: a fate, its argument, and how often it strikes. Or it is a tuple whose last item is
such a text; what stands before is yours (a key for ``job_key``, say). The value of a job that
survives is the job itself.

    done                 nothing happens
    raise [text]         raises `FateError`
    exit [code]          calls sys.exit
    _exit [code]         calls os._exit: the process is gone without a word
    crash [text]         calls the worker's crash()
    SIGKILL, SIGTERM …   any signal, sent to its own process
    segfault             reads address 0
    stop                 SIGSTOP: the process stands still until somebody continues or kills it
    sleep seconds        sleeps
    spin                 computes for ever, in C code that holds the GIL
    leak size            takes memory and keeps it: "leak 2GiB"
    large size           gives a value of that size
    unpicklable          gives a value that cannot be pickled
    cut                  shuts the worker's link to the conductor, and goes on

At the end may stand ``once``, ``twice`` or ``3 times``: the fate strikes in so many attempts, and
the next one is done. So ``"SIGKILL once"`` is done at its second attempt where
``Retry(crashes=…)`` allows one, and quarantined where it does not.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from okanjo_conductor import _runtime
from okanjo_conductor._io import assignment
from okanjo_conductor._worker import ConductorWorker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FateError", "FateWorker", "meet_fate"]

_TIMES = re.compile(r"^(.*?)(?:\s+(once|twice|(\d+) times))?$", re.DOTALL)
_SIZE = re.compile(r"^(\d+)\s*([KMG]i?)?B?$")
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_PIECE = 16 << 20
"""Bytes that a leak takes at a time."""
_leaked: list[bytearray] = []


class FateError(Exception):
    """What a job raises whose fate it is to raise."""


class FateWorker(ConductorWorker):
    """Meets the fate that each job names."""

    def process_job(self, job: Any) -> Any:
        """Meet the fate of this job."""
        return meet_fate(job, self.job.attempt if self.job else 1)


def meet_fate(job: Any, attempt: int = 1) -> Any:
    """Do what a job names; return its value, if anything is left to return it.

    Args:
        job: a text, or a tuple that ends with one.
        attempt: number of the attempt, from 1; a worker has it in ``self.job.attempt``.

    Raises:
        ValueError: there is no such fate.
    """
    text = job[-1] if isinstance(job, tuple) else job
    fate, times = _read_times(str(text))
    if times is not None and attempt > times:
        return job
    name, _, argument = fate.partition(" ")
    if name in _FATES:
        made = _FATES[name](argument.strip())
        return job if made is None else made
    if name in signal.Signals.__members__:
        _send_to_self(signal.Signals[name])
        return job
    known = ", ".join([*_FATES, "a signal"])
    message = f"job {job!r} names no fate: one of {known}"
    raise ValueError(message)


def _read_times(text: str) -> tuple[str, int | None]:
    match = _TIMES.match(text.strip())
    fate, word, number = match.groups() if match else (text, None, None)
    if word is None:
        return fate, None
    return fate, int(number) if number else {"once": 1, "twice": 2}[word]


def _send_to_self(number: signal.Signals) -> None:
    """Send it, and be there when it arrives."""
    os.kill(os.getpid(), number)
    if signal.getsignal(number) is signal.SIG_DFL and number not in _HARMLESS:
        signal.pause()


_HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGSTOP}
"""Signals that end no process: those that are ignored where nobody handles them, and SIGSTOP."""


def _size(text: str) -> int:
    match = _SIZE.match(text)
    if match is None:
        message = f"{text!r} is no size: write 64MiB, 2GiB or a number of bytes"
        raise ValueError(message)
    return int(match[1]) * _UNITS[match[2] or ""]


def _raise(text: str) -> None:
    raise FateError(text or "it was its fate to raise")


def _exit(code: str) -> None:
    sys.exit(int(code or 0))


def _leave(code: str) -> None:
    os._exit(int(code or 0))


def _crash(text: str) -> None:
    runtime = _runtime.running()
    if runtime is None:
        _raise(text)
    else:
        runtime.die(text)


def _segfault(_: str) -> None:
    ctypes.string_at(0)


def _stop(_: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _sleep(seconds: str) -> None:
    time.sleep(float(seconds or 1))


def _spin(_: str) -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")  # a regular expression that ends long after the sun


def _leak(size: str) -> None:
    left = _size(size)
    while left > 0:
        piece = bytearray(min(left, _PIECE))
        piece[::4096] = b"\1" * len(piece[::4096])
        _leaked.append(piece)
        left -= len(piece)


def _large(size: str) -> bytes:
    return bytes(_size(size))


def _unpicklable(_: str) -> Any:
    return threading.Lock()


def _cut(_: str) -> None:
    place = assignment.current()
    if place is not None:
        place.link.cut(socket.SHUT_RDWR)


_FATES: dict[str, Callable[[str], Any]] = {
    "done": lambda _: None,
    "raise": _raise,
    "exit": _exit,
    "_exit": _leave,
    "crash": _crash,
    "segfault": _segfault,
    "stop": _stop,
    "sleep": _sleep,
    "spin": _spin,
    "leak": _leak,
    "large": _large,
    "unpicklable": _unpicklable,
    "cut": _cut,
}
