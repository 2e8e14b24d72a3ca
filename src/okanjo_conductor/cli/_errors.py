"""How the command line says no: one line, with a near match, and an exit code."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DONE = 0
"""Every job is done."""
FAILED = 1
"""Some jobs failed."""
USAGE = 2
"""The command makes no sense, or its files are not there."""
STOPPED = 3
"""The run ended before its jobs did; the same command goes on, where there is a journal."""
REFUSED = 4
"""The journal, or the log of jobs, does not fit, is in use or is damaged."""
INTERNAL = 70
"""A fault of our own; the number is that of `sysexits.h`."""
SIGNAL = 128
"""And the number of the signal: 130 for SIGINT, 143 for SIGTERM, 141 for a closed pipe."""


class UsageError(Exception):
    """What was typed makes no sense; the message says what does."""


class RefusedError(Exception):
    """What was noted of an earlier run does not fit to this one."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name what is near to a word that is unknown: ``"; did you mean 'x'?"``, or nothing."""
    import difflib  # takes 5 ms to load, for errors only

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
