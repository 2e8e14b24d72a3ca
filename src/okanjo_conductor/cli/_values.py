"""What options say: numbers of workers, limits of time and of failures.

Functions from text to value for argparse, which puts the option's name before what they raise.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

from okanjo_conductor._plain import Frozen

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d|)")
_COUNT = re.compile(r"([+-]?)(\d+)(%?)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_HALT = re.compile(r"(soon|now),(fail|success|done)=(\d+(?:\.\d+)?)(%?)")
_OLD_HALTS = {"0": "never", "1": "soon,fail=1", "2": "now,fail=1"}
"""How GNU parallel wrote them before."""


class Share(Frozen):
    """A per cent figure, as ``1.0`` for 100 %."""

    of: float


class Halt(Frozen):
    """When a run is to stop before its jobs are done."""

    is_now: bool
    """Whether jobs in execution are ended; otherwise they are finished."""
    what: str
    """What is counted: ``"fail"``, ``"success"`` or ``"done"``."""
    most: int | Share
    """So many of them, or that share of the finished jobs."""
    text: str
    """As it is typed."""


def workers(text: str) -> int:
    """Read a number of workers: ``8``, or of the usable CPUs ``50%``, ``+2``, ``-2``."""
    from okanjo_conductor._io.cpus import usable_cpus

    match = _COUNT.fullmatch(text)
    if match is None or (match[1] and match[3]):
        message = f"{text!r} is no number of workers: 8, or of the usable CPUs 50%, +2, -2"
        raise ArgumentTypeError(message)
    sign, number, percent = match[1], int(match[2]), match[3]
    if percent:
        return max(1, round(usable_cpus() * number / 100))
    if sign:
        return max(1, usable_cpus() + int(sign + match[2]))
    if not number:
        message = "0 workers can do nothing; 100% is one for each usable CPU, and the default"
        raise ArgumentTypeError(message)
    return number


def duration(text: str) -> float:
    """Read seconds: ``10``, ``1.5s``, ``500ms``, ``2m``, ``1h``."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not seconds:
        message = f"{text!r} is no time: 10, 10s, 500ms, 2m, 1.5h"
        raise ArgumentTypeError(message)
    return seconds


def timeout(text: str) -> float | Share:
    """Read a time limit: a duration, or ``300%`` of the median of the finished jobs."""
    if (share := _share(text)) is not None:
        return share
    try:
        return duration(text)
    except ArgumentTypeError:
        message = f"{text!r} is no time limit: 10s, 2m, or 300% of the median"
        raise ArgumentTypeError(message) from None


def failures(text: str) -> int | float:
    """Read how many jobs may fail: ``10``, or a share of the finished jobs below ``100%``."""
    share = _share(text)
    if share is not None and share.of < 1:
        return share.of
    if text.isascii() and text.isdigit():
        return int(text)
    message = f"{text!r} is no number of failures: 10, or a share such as 5%, below 100%"
    raise ArgumentTypeError(message)


def count(text: str) -> int:
    """Read a whole number from 0."""
    if not (text.isascii() and text.isdigit()):
        message = f"{text!r} is no whole number"
        raise ArgumentTypeError(message)
    return int(text)


def positive(text: str) -> int:
    """Read a whole number from 1."""
    number = count(text)
    if not number:
        message = "a whole number from 1"
        raise ArgumentTypeError(message)
    return number


def halt(text: str) -> Halt | None:
    """Read when to stop: ``soon,fail=1``, ``now,success=1``, ``now,fail=10%``, ``never``."""
    text = _OLD_HALTS.get(text, text)
    if text == "never":
        return None
    match = _HALT.fullmatch(text)
    most = float(match[3]) if match else 0.0
    if match is None or not most or (not match[4] and not most.is_integer()):
        message = (
            f"{text!r} is no rule to halt: never, or soon or now, a comma, and fail=, success= or "
            "done= with a number or N%, such as soon,fail=1"
        )
        raise ArgumentTypeError(message)
    return Halt(match[1] == "now", match[2], Share(most / 100) if match[4] else int(most), text)


def _share(text: str) -> Share | None:
    match = _SHARE.fullmatch(text.strip())
    return Share(float(match[1]) / 100) if match and float(match[1]) else None
